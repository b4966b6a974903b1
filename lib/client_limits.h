/* client_limits.h: how fast each client may come: a rate and a burst for each key, for a million keys in bounded
 * memory.
 *
 * One number a key says it all (GCRA, the generic cell rate algorithm): its debt. Each request adds one interval to
 * it, time takes it away again; a request is within the limit if the debt with it is at most the burst. The moment at
 * which nothing would be left of it is the theoretical arrival time. A key that has not been seen for a while has
 * that moment in the past, which is the same as no entry at all: that is why the oldest idle ones may be forgotten,
 * and nothing else needs to be.
 *
 * The table is an array of small sets, each with a few places; locks are striped over the sets. Nothing grows,
 * nothing is rehashed, no sweep ever stops the world. Keys are hashed with a secret (lib/siphash.h), so that nobody
 * can choose keys that collide.
 *
 * Source: ITU-T I.371 (GCRA, in its leaky bucket form). Any thread; time is passed in.
 */
#ifndef WEIR_CLIENT_LIMITS_H
#define WEIR_CLIENT_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_LIMITS_ASKS_MAX 32

/* What a rate may be. The settings keep to it; in an ask a greater number is set to the greatest, nought to one. */
#define CLIENT_LIMITS_COUNT_MAX 1000000u
#define CLIENT_LIMITS_BURST_MAX 1000000u
#define CLIENT_LIMITS_WINDOW_MAX_US (UINT64_C(1) << 42) /* 50 days */

struct client_limits;

/* capacity: keys that are remembered. The table has at least twice as many places, of 48 bytes each: 2^21 of them, 96
   MiB, for a million keys. Even if all of them matter at once, about one in a hundred finds its set full. Memory is
   touched only as keys come. NULL when out of memory or of random bytes for the secret. */
struct client_limits *client_limits_create(size_t capacity);
void client_limits_destroy(struct client_limits *limits);

/* One question: may this key have one more? */
struct client_ask {
	/* set by the caller */
	uint64_t key;         /* client_limits_hash() of the rule's name and what tells clients apart under it */
	unsigned count;       /* the rate: count in window_us */
	uint64_t window_us;
	unsigned burst;       /* how many may come at once, at least 1 */
	uint64_t block_us;    /* a client that goes over stays blocked this long; 0: no longer than the rate says */
	bool shadow;          /* counted, never refused by this rule */
	bool exempt;          /* as shadow, and it begins no block: this request is counted and never refused */
	/* set by client_limits_ask() */
	bool is_over;
	unsigned remaining;        /* requests that would pass now, after this one */
	uint64_t retry_after_us;   /* when is_over: in how long one would pass */
	uint64_t reset_us;         /* in how long the whole burst is there again */
};

/* A keyed hash of bytes, the same for the life of the table. part tells rules apart (its name). */
uint64_t client_limits_hash(const struct client_limits *limits, const char *part, const char *bytes, size_t length);

/* Asks all questions of one request as one: if any that is neither shadow nor exempt is over, the answer is false and
   nothing is taken from any of them; else each is charged (shadow ones that are over are not). A client goes over
   once: the requests that are refused after that prolong neither its block nor its debt. Two questions may have the
   same key: the second is asked as if the first had been granted. count is at most CLIENT_LIMITS_ASKS_MAX: those
   beyond are not asked.

   Settings may change from one ask to the next. A debt is kept as a number of requests, so no change forgives any;
   what has passed since the key was seen last is judged by the slower of its old and its new rate. A block ends when
   it would have ended, had the new block_us been in force when it began. */
bool client_limits_ask(struct client_limits *limits, struct client_ask *asks, size_t count, uint64_t now_us);

/* For the status page: keys remembered, keys that were forgotten while they still counted (the table was too small),
   and the memory that the table has, touched or not. */
struct client_limits_report {
	uint64_t keys, forgotten_total;
	size_t bytes;
};
void client_limits_report(struct client_limits *limits, struct client_limits_report *report);

#endif
