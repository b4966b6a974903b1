/* election.h: what lab 8 asks for: nodes on a bad network agree on one of them, the master.
 *
 *      datagrams in ──► election_receive ─┐                    ┌─► send    datagrams out
 *      time passes  ──► election_tick    ─┴─► who is alive? ───┴─► election_master: whom this node takes for master
 *
 * The rule is the simplest that there is: the lowest id alive is master (Garcia-Molina's bully, without the
 * shouting). All the work is in the word alive, for a network loses datagrams, doubles them, delays them, works one
 * way only, or plays old ones again; and a node that stood still for a while does not feel that it did.
 *
 * It is a pure state machine, as cluster.h is, and for the same reason: it opens no socket, reads no clock and draws
 * no random number of its own, so the simulator can run hours of trouble in a second, and the same seed gives the
 * same run. cluster.c does all this and shares a limit as well; reference.c, beside this file, wraps it into this
 * interface.
 *
 * Datagrams are bytes of your own making, and only nodes with your own code read them: a struct that is copied in and
 * out will do. Times are microseconds of this node's own clock. The clocks of two nodes have nothing in common. One
 * call at a time.
 */
#ifndef LAB_ELECTION_H
#define LAB_ELECTION_H

#include <stddef.h>
#include <stdint.h>

#define ELECTION_NODES_MAX 12u
#define ELECTION_DATAGRAM_MAX 1200u
#define ELECTION_BEATS_MAX 40u /* datagrams that a node may send in a second of calm, on average */

struct election_options {
	unsigned id;          /* 1 to 65535, of nobody else */
	uint64_t incarnation; /* random, not 0: a node that died and came back has the same id and another one */
};

struct election_calls {
	void *context;
	/* to: an id; 0: everybody else. The bytes are copied. */
	void (*send)(void *context, unsigned to, const void *bytes, size_t length);
	uint64_t (*random)(void *context);
};

struct election;

/* calls is copied. NULL when out of memory. */
struct election *election_create(const struct election_options *options, const struct election_calls *calls,
                                 uint64_t now_us);
void election_destroy(struct election *e);
/* Does what is due. Returns when it wants to be called next, at the latest; it may be called sooner, and is always a
   little late. */
uint64_t election_tick(struct election *e, uint64_t now_us);
/* A datagram came: from another node, and perhaps not for the first time; or from somebody who sends garbage. */
void election_receive(struct election *e, const void *bytes, size_t length, uint64_t now_us);
/* Says goodbye, so that nobody has to wait until this node's silence is noticed. Only election_destroy() follows. */
void election_leave(struct election *e, uint64_t now_us);
/* Whom this node takes for master: its own id when it is master itself; 0 when it does not know. */
unsigned election_master(const struct election *e);

#endif
