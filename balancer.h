/* balancer.h: decides WHOSE TURN it is, and who is out of the rotation.
 *
 * The balancer knows targets by a name, a weight and an opaque item of the caller's. It opens no socket and reads no
 * clock: the caller says what happened to a target and when, and gets decisions back.
 *
 * One mutex inside; every function may be called from any thread. Times are microseconds of one clock that never goes
 * back, passed in.
 */
#ifndef WEIR_BALANCER_H
#define WEIR_BALANCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BALANCER_TARGETS_MAX 1024

enum balancer_policy {
	BALANCER_ROUNDROBIN, /* strict rotation; smooth weighted rotation when weights differ */
	BALANCER_LEASTCONN,  /* the fewest active requests for its weight; rotation among equals */
	BALANCER_HASH,       /* rendezvous hashing on the caller's key: one key, one target */
};

enum balancer_state {
	BALANCER_IN,    /* takes its turns */
	BALANCER_OUT,   /* failed; waits for a probe to bring it back */
	BALANCER_DRAIN, /* an operator took it out: no new requests, no probes */
};

struct balancer_options {
	enum balancer_policy policy;
	uint64_t probe_interval_us; /* from a failure to the probe, and between probes */
	unsigned probe_rise;        /* good probes in a row that bring a target back, at least 1 */
	unsigned probe_fall;        /* bad probes in a row that take one out, at least 1 */
	bool probe_asks;            /* probes speak HTTP (probe_path): those that are in are probed as well, and a good
	                               probe is believed; a bare TCP connect is not, see balancer_failed() */
};

/* One target as the caller wants it. name is copied. item comes back with each pick. */
struct balancer_entry {
	const char *name;
	unsigned weight; /* at least 1 */
	bool out;        /* begins out, with a probe due at once: a name that did not resolve */
	void *item;
};

/* What a pick hands out. The caller gives it back with exactly one balancer_done(). */
struct balancer_pick {
	unsigned slot;
	unsigned stay; /* in which of the target's stays in the rotation it was made: tells old news from new */
	bool is_trial; /* a TCP probe brought the target back, and no request had succeeded since */
	void *item;
};

/* Which slots one request has tried already, so that it meets each target once. Zero it before the first pick. */
struct balancer_tried {
	uint64_t bits[BALANCER_TARGETS_MAX / 64];
	unsigned count;
};

struct balancer_report {
	char name[256];
	enum balancer_state state;
	bool probing;
	bool is_next;            /* its turn comes next, as things stand; of nobody under BALANCER_HASH */
	unsigned weight;
	unsigned active;
	uint64_t requests_total;
	uint64_t failures_total;
	uint64_t next_probe_us; /* 0 when none is planned */
};

struct balancer;

/* release(item) is called once for each item that the balancer lets go of (a target that left the list, when its last
   request is done, and all of them at destroy). It is called with no lock held. NULL when out of memory. */
struct balancer *balancer_create(const struct balancer_options *options, void (*release)(void *item));
void balancer_destroy(struct balancer *b); /* no pick may be outstanding */

/* Changes policy and probe settings; states and turns stay. */
void balancer_configure(struct balancer *b, const struct balancer_options *options);

/* Makes entries the list of targets, in this order. A name that was there keeps its state, counters and old item;
   the new item is released. A name that is gone takes no new requests; should it come back, it begins anew. A name
   that stands twice is one target: the first counts, the other's item is released. Returns 0, or -1 when out of
   memory or when count, together with the targets that left and are still at work, is over BALANCER_TARGETS_MAX:
   then nothing changed and the caller still owns every item. */
int balancer_set_targets(struct balancer *b, const struct balancer_entry *entries, size_t count, uint64_t now_us);

/* Picks the next target that is in and not in tried, marks it in tried and counts the request as active. key_hash
   is read by BALANCER_HASH only. False when there is none. */
bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out);
/* True when balancer_pick() with nothing tried would find a target. */
bool balancer_any_in(struct balancer *b);

/* The request that this pick was for is over. */
void balancer_done(struct balancer *b, const struct balancer_pick *pick);
/* The target gave a good answer: what was suspected of it is forgotten. Bad probes are not: a target may answer
   requests and ask by its probe_path to be left alone. Before balancer_done(). */
void balancer_succeeded(struct balancer *b, const struct balancer_pick *pick);
/* The target refused, reset or stayed silent: it leaves the rotation at once. A target that a TCP probe brought
   back and that fails its next request waits twice as long for the next probe each time, up to 32 intervals. A pick
   that was made before the target was last taken out is old news: it is counted and changes nothing. Returns true
   if this call is the one that took it out (for the log, and to wake the probe thread). Before balancer_done(). */
bool balancer_failed(struct balancer *b, const struct balancer_pick *pick, uint64_t now_us);

/* The next probe that is due at now_us, if any: true, and *out is a pick to be given back with balancer_probed(). Else
   false, and *wake_us is when to ask again (UINT64_MAX: not before something fails). */
bool balancer_probe_due(struct balancer *b, uint64_t now_us, struct balancer_pick *out, uint64_t *wake_us);
enum balancer_change { BALANCER_SAME, BALANCER_CAME_IN, BALANCER_WENT_OUT };
enum balancer_change balancer_probed(struct balancer *b, const struct balancer_pick *pick, bool good, uint64_t now_us);

/* An operator's hand: drain a target, or let it back in (out, if it was out before or failed meanwhile: its probe
   is then due). False when there is no such target. */
bool balancer_drain(struct balancer *b, const char *name, bool drain);

/* Copies the state of up to capacity targets, in their order. Returns how many there are. */
size_t balancer_report(struct balancer *b, struct balancer_report *reports, size_t capacity);

#endif
