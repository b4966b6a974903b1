/* cluster_wire.h: what nodes say to each other, as bytes of a datagram, and which datagrams are not to be believed.
 *
 *       0     4  5  6         14  16           24  32        40     48
 *      ┌─────┬──┬──┬─────────┬───┬────────────┬───┬─────────┬──────┬──────────────────┬ ─ ─ ─ ─ ─ ─ ┐
 *      │magic│v.│k.│group tag│ id│incarnation │ to│ sequence│ epoch│ body of its kind │ 16 bytes tag
 *      └─────┴──┴──┴─────────┴───┴────────────┴───┴─────────┴──────┴──────────────────┴ ─ ─ ─ ─ ─ ─ ┘
 *                                                                                       with a secret
 *
 * All numbers in network byte order, at most CLUSTER_WIRE_MAX bytes: that passes every link without being cut into
 * fragments, of which one lost loses all. "to" is the incarnation of whom it is meant for, 0: everybody. Without it
 * somebody could record a grant on its way to one node and play it to another, which has never seen its sequence
 * number.
 *
 * The tag is HMAC-SHA256 with the group's secret over all before it, cut to 16 bytes (RFC 2104 §5 allows half). A
 * datagram that somebody recorded carries a good tag for ever: so each has a sequence number, and one that is not new
 * is refused. The window is 64 wide, for datagrams overtake each other (RFC 4303 §3.4.3 does the same).
 *
 * Knows no socket and no clock. One thread at a time for each object.
 */
#ifndef WEIR_CLUSTER_WIRE_H
#define WEIR_CLUSTER_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "cluster.h"

#define CLUSTER_WIRE_MAX 1200u

/* Why a datagram is not for the state machine. The names are for logs and pages: cluster_wire_reason(). */
enum cluster_wire_result {
	CLUSTER_WIRE_GOOD,
	CLUSTER_WIRE_OWN,     /* it is one of ours, come back: no fault of anybody's */
	CLUSTER_WIRE_MAGIC,   /* not weir's */
	CLUSTER_WIRE_VERSION, /* of another version of this protocol */
	CLUSTER_WIRE_GROUP,   /* of another group */
	CLUSTER_WIRE_LENGTH,  /* not as long as its kind is: cut off, or with something behind it */
	CLUSTER_WIRE_VALUE,   /* a number in it can't be */
	CLUSTER_WIRE_TAG,     /* made without our secret, or changed on its way */
	CLUSTER_WIRE_OTHER,   /* meant for another node, or an earlier life of this one */
	CLUSTER_WIRE_REPLAY,  /* seen before, or too old to say */
	CLUSTER_WIRE_CROWD,   /* from one sender more than can be told apart */
	CLUSTER_WIRE_RESULTS,
};

struct cluster_wire_options {
	const char *group;     /* the group's address as text: who has another is in another group */
	const char *secret;    /* NULL: none. Copied */
	uint64_t incarnation;  /* ours */
};

struct cluster_wire;

/* NULL when out of memory, or when libcrypto can't work. */
struct cluster_wire *cluster_wire_create(const struct cluster_wire_options *options);
void cluster_wire_destroy(struct cluster_wire *w);
/* Another secret, NULL: none; the sequence and what was seen stay. -1 when out of memory: the old one stays. */
int cluster_wire_set_secret(struct cluster_wire *w, const char *secret);

/* Writes one datagram. to: the incarnation of its receiver, 0: everybody. Returns its length; 0 when the message can't
   be: it holds what cluster_wire_read() would refuse. */
size_t cluster_wire_write(struct cluster_wire *w, const struct cluster_message *message, uint64_t to,
                          unsigned char out[CLUSTER_WIRE_MAX]);

/* Reads one datagram that came at now_us, in microseconds of one clock that never goes back. message is whole if the
   answer is CLUSTER_WIRE_GOOD, and else holds anything. */
enum cluster_wire_result cluster_wire_read(struct cluster_wire *w, const unsigned char *bytes, size_t length, uint64_t now_us,
                                           struct cluster_message *message);

/* "a wrong tag", ... Lives for ever. */
const char *cluster_wire_reason(enum cluster_wire_result result);

#endif
