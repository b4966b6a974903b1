/* hosts_internal.h: what hosts.c (places, idle connections, waiting) and hosts_limits.c (caps, reports) share.
 *
 *      struct hosts ── buckets ──► struct hosts_host "example.com" ── idle: [oldest … newest]
 *                                        │                         └─ waiters: first ◄► … ◄► last
 *                                        └─ open = leased + idle
 *
 * An entry lives while anything refers to it: a place, a waiter, or a thread that is inside a call (users). What a thread has to do
 * for it outside the lock (give places back to the store, tell the log) is noted in it as a debt, and hosts_settle() pays it.
 */
#ifndef WEIR_HOSTS_INTERNAL_H
#define WEIR_HOSTS_INTERNAL_H

#include <pthread.h>

#include "hosts.h"
#include "redis_store.h"
#include "siphash.h"
#include "ts.h"

#define HOSTS_BUCKETS 4096u

struct hosts_idle {
	int fd; /* -1: none */
	unsigned port;
	uint64_t since_us;
	uint64_t receive_timeout_us, send_timeout_us;
};

/* One thread that waits; on its stack. */
struct hosts_waiter {
	struct hosts_waiter *next, *previous;
	int wake_fd;
	unsigned port;
	bool may_reuse;
	bool is_granted;         /* a place was handed over: it is out of the line */
	struct hosts_idle given; /* with this connection, if it has a fd */
};

/* All fields are guarded by hosts_mutex; a thread that counts in users may read name without it. */
struct hosts_host {
	struct hosts_host *next;
	unsigned open;
	unsigned users;
	unsigned cap;            /* of the settings; 0: none */
	unsigned cap_in_force;   /* the one the last decision was made with: this worker's share, when the store is down */
	bool must_ask;           /* the cap was lowered: the store has to be asked before a place is handed on */
	unsigned events;         /* goes up when those that wait should look again */
	uint64_t hold_until_us;  /* until then even those that would not wait do: the store said that places may come */
	uint64_t wanted_until_us; /* another worker wants places, or has those that we want: no idle connection is kept until then */
	uint64_t in_vain_until_us; /* one was held just now for nothing: until then the others' places are taken for busy ones */
	struct hosts_idle *idle; /* oldest first */
	size_t idle_count, idle_capacity;
	struct hosts_waiter *first, *last;
	unsigned waiting;
	unsigned owed;           /* places to give back to the store */
	unsigned untold;         /* closings that the log was not told of */
	char name[HOSTS_NAME_MAX];
};

struct hosts {
	struct redis_store *store;
	struct hosts_watch watch;
	uint8_t secret[SIPHASH_SECRET_BYTES];
	pthread_mutex_t mutex;
	unsigned default_cap GUARDED_BY(hosts_mutex);
	enum hosts_fail fail GUARDED_BY(hosts_mutex);
	struct host_limits limits GUARDED_BY(hosts_mutex); /* sorted by name */
	struct hosts_host *buckets[HOSTS_BUCKETS] GUARDED_BY(hosts_mutex);
	struct hosts_totals totals GUARDED_BY(hosts_mutex); /* waiting and hosts are kept up to date, open and idle too */
};

LOCK_VERBS(hosts, mutex, hosts_mutex)

/* The cap of a name. */
unsigned hosts_find_cap(const struct hosts *hosts, const char *name) REQUIRES(hosts_mutex);
/* Tells the first in line to look again. */
void hosts_look_again(struct hosts_host *host) REQUIRES(hosts_mutex);
/* Closes the oldest idle connections until no more than so many are left. */
void hosts_shrink_idle(struct hosts *hosts, struct hosts_host *host, size_t keep) REQUIRES(hosts_mutex);
/* Runs visit on every host, under the lock, and then pays what it owes, without it. */
void hosts_visit(struct hosts *hosts, void (*visit)(struct hosts *hosts, struct hosts_host *host, const void *how), const void *how)
	EXCLUDES(hosts_mutex);

#endif
