/* client_limits.h: how fast each client may come: a rate and a burst for each key, for a million keys in bounded memory.
 *
 * One number a key says it all (GCRA, the generic cell rate algorithm): the theoretical arrival time, the moment up to which the
 * client has used its rate. A request is within the limit if that lies no more than the burst ahead of now; then it moves on by one
 * interval. A key that has not been seen for a while has a time in the past, which is the same as no entry at all: that is
 * why the oldest idle ones may be forgotten, and nothing else needs to be.
 *
 * The table is an array of small sets, each with a few places; locks are striped over the sets. Nothing grows, nothing is
 * rehashed, no sweep ever stops the world. Keys are hashed with a secret (SipHash), so that nobody can choose keys that
 * collide.
 *
 * Sources: ITU-T I.371 (GCRA); Aumasson and Bernstein 2012 (SipHash-2-4). Any thread; time is passed in.
 */
#ifndef WEIR_CLIENT_LIMITS_H
#define WEIR_CLIENT_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_LIMITS_ASKS_MAX 32

struct client_limits;

/* capacity: keys that are remembered, rounded up; memory is touched only as keys come. NULL when out of memory. */
struct client_limits *client_limits_create(size_t capacity);
void client_limits_destroy(struct client_limits *limits);

/* One question: may this key have one more? */
struct client_ask {
	/* set by the caller */
	uint64_t key;         /* client_limits_hash() of the rule's name and what tells clients apart under it */
	unsigned count;       /* the rate: count in window_us */
	uint64_t window_us;
	unsigned burst;       /* how many may come at once, at least 1 */
	uint64_t block_us;    /* a client that is over stays blocked this long; 0: no longer than the rate says */
	bool shadow;          /* counted, never refused by this rule */
	bool exempt;          /* as shadow: this request is counted and never refused */
	/* set by client_limits_ask() */
	bool is_over;
	unsigned remaining;        /* requests that would pass now, after this one */
	uint64_t retry_after_us;   /* when is_over: in how long one would pass */
	uint64_t reset_us;         /* in how long the whole burst is there again */
};

/* A keyed hash of bytes, the same for the life of the table. part tells rules apart (its name). */
uint64_t client_limits_hash(const struct client_limits *limits, const char *part, const char *bytes, size_t length);

/* Asks all questions of one request as one: if any that is neither shadow nor exempt is over, the answer is false and nothing is taken from any of
   them; else each is charged (shadow ones that are over are not). A refused request prolongs no block. count is at most
   CLIENT_LIMITS_ASKS_MAX. */
bool client_limits_ask(struct client_limits *limits, struct client_ask *asks, size_t count, uint64_t now_us);

/* For the status page: keys remembered, and keys that were forgotten while they still counted (the table was too small). */
struct client_limits_report {
	uint64_t keys, forgotten_total;
};
void client_limits_report(struct client_limits *limits, struct client_limits_report *report);

#endif
