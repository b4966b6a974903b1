/* redis_store.h: caps and thresholds that many workers share, through Redis.
 *
 *      worker a ──┐   proxy_rate_limiter:example.com:<a> = 3  ┐
 *      worker b ──┼─► proxy_rate_limiter:example.com:<b> = 1  ├ sum 5 ≤ cap
 *      foreign  ──┘   proxy_rate_limiter:example.com:<x> = 1  ┘
 *
 * One counter for each worker and host, each with a time to live, so that the counters of a worker that dies vanish by
 * themselves. A script (Redis runs one at a time) sums the host's counters and raises the own one if the sum allows: one round trip a
 * decision. No KEYS: an index per host says whose counters there are. Workers of another make, who write counters of this form
 * and know nothing of the index, are found by a SCAN in small steps that one worker at a time makes for all, and added to it.
 *
 * A worker never says "one more" or "one less": it says how many it has ("5, and I want 2"), one letter at a time for each host,
 * and the counter is set to that. A letter that was lost, repeated or never answered does no lasting harm, and a Redis that comes
 * back empty is told the truth by the next letter. Threads that ask at the same time share one letter.
 *
 * A Redis that comes back empty knows nobody's connections, though they are open. So nothing is granted for a short time after an
 * empty database was met (settle_us): every worker's heartbeat finds out in that time and tells what it has.
 *
 * Any thread may call anything. No lock is held across a call to Redis.
 */
#ifndef WEIR_REDIS_STORE_H
#define WEIR_REDIS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redis_store;

struct redis_store_options {
	const char *address;   /* "host:port", "host", "[::1]:6379", "unix:/path"; NULL: off, every question is answered REDIS_STORE_OFF */
	const char *password;  /* NULL: none; "user:password" is not split */
	unsigned database;
	uint64_t ttl_us;       /* 0: 30 s. How long the counters of a worker that died still count */
	uint64_t deadline_us;  /* 0: 500 ms. For each call, and for connecting */
	uint64_t settle_us;    /* 0: 1 s */
};

/* Called by the store's own thread or by one that asks, with no lock held. */
struct redis_store_watch {
	/* Once when Redis is lost (is_up false, why says what went wrong), and once when it is back. */
	void (*state_changed)(void *context, bool is_up, const char *why);
	void *context;
};

/* Starts the keeper thread, which connects in the background. The strings are copied. NULL when out of memory or threads. */
struct redis_store *redis_store_create(const struct redis_store_options *options, const struct redis_store_watch *watch);
/* Removes this worker's keys (within the deadline), and ends the thread. Nobody may be calling. */
void redis_store_destroy(struct redis_store *store);
/* Another address, password or database: what this worker has is told there, and removed at the old one. -1 when out of memory:
   nothing changed. The same options again: nothing happens. */
int redis_store_configure(struct redis_store *store, const struct redis_store_options *options);
/* Waits until Redis has answered, or until the deadline: true if it has. For a start that wants to begin in order. */
bool redis_store_wait_up(struct redis_store *store, uint64_t deadline_us);

/* ---- places --------------------------------------------------------------------------------------------------------- */

enum redis_store_answer {
	REDIS_STORE_GRANTED,
	REDIS_STORE_FULL,
	REDIS_STORE_SETTLING, /* an empty Redis was met just now: ask again in result->wait_us */
	REDIS_STORE_DOWN,     /* it can't be reached, or doesn't do as it should */
	REDIS_STORE_OFF,
	REDIS_STORE_NO_MEMORY,
};

struct redis_store_result {
	unsigned sum;          /* places of all workers, this answer's included */
	unsigned live_workers; /* as known, at least 1 */
	bool idle_elsewhere;   /* FULL: another worker has idle connections to this host, and was asked to close them */
	uint64_t wait_us;      /* SETTLING */
};

/* Asks for a place; cap ≥ 1. will_wait: a refused one wants to hear (host_changed) when places come free. Blocks for one round trip,
   or not at all while Redis is known to be down. GRANTED: redis_store_give() follows. */
enum redis_store_answer redis_store_take(struct redis_store *store, const char *host, unsigned cap, bool will_wait,
                                         struct redis_store_result *result);
/* A place was taken without asking (Redis was down, or the host has no cap: cap 0). It counts from now on as any other, and is told
   at the next occasion. False: out of memory, it is not counted (and not to be given back). Never blocks. */
bool redis_store_assume(struct redis_store *store, const char *host, unsigned cap);
/* So many places are given back. One round trip, unless another thread's takes it along. */
void redis_store_give(struct redis_store *store, const char *host, unsigned count);
/* The host has a cap from now on: what was assumed without one is told soon. Never blocks. */
void redis_store_tell(struct redis_store *store, const char *host);
/* How many of this worker's places are idle connections now: others may ask for them. Never blocks; no round trip. */
void redis_store_idle(struct redis_store *store, const char *host, unsigned idle);
/* Redis was lost, and has not answered since. False before the first answer is due, and when there is no Redis. Never blocks. */
bool redis_store_is_down(struct redis_store *store);
/* As known: those whose heartbeat was seen, foreign ones with places at this host too. At least 1. */
unsigned redis_store_live_workers(struct redis_store *store, const char *host);

/* Events from other workers. is_wanted: somebody there was refused: idle connections to this host ought to be closed.
   Otherwise: places came free (or Redis came back; host is NULL for "any host"). By the store's thread; it may give places back and
   must not do anything else that blocks. NULL: nobody listens; after the return no call is under way. */
void redis_store_listen(struct redis_store *store, void (*host_changed)(void *context, const char *host, bool is_wanted),
                        void *context);

/* ---- starts: a threshold that is shared -------------------------------------------------------------------------------- */

/* One start slot. In no window_us, by Redis's own clock, are more than threshold slots given. name tells services apart.
   A slot is used again window_us + guard_us after it was given: if each request is sent within guard_us of asking, the starts
   themselves obey the window exactly. REDIS_STORE_GRANTED: send now, then call redis_store_started(). REDIS_STORE_FULL: ask again in
   *wait_us (not before). SETTLING, DOWN, OFF as above. threshold at most 100,000. */
struct redis_store_start {
	char name[64];
	char member[40];
	uint64_t asked_us, guard_us, window_us;
};
enum redis_store_answer redis_store_start(struct redis_store *store, const char *name, unsigned threshold, uint64_t window_us,
                                          uint64_t guard_us, struct redis_store_start *start, uint64_t *wait_us);
/* The request was sent (call it after the send). If that took longer than the guard, the slot is moved to now: one more
   round trip, rarely. */
void redis_store_started(struct redis_store *store, const struct redis_store_start *start);
/* It will not be sent: the slot is given back. */
void redis_store_cancel(struct redis_store *store, const struct redis_store_start *start);

/* ---- for the status page ---------------------------------------------------------------------------------------------- */

struct redis_store_report {
	bool is_on, is_up;
	char worker_id[64];
	unsigned live_workers, connections;
	uint64_t calls_total, failures_total;    /* failures: a call that got no answer in time, or an error */
	uint64_t refused_while_down_total;       /* questions answered DOWN */
	uint64_t losses_total;                   /* times that Redis was lost */
};
void redis_store_report(struct redis_store *store, struct redis_store_report *report);

#endif
