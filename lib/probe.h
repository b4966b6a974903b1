/* probe.h: the probe thread: tries targets that are out, so that no client has to.
 *
 *      probe thread:  who is due? ──► a short-lived thread for each ──► connect (and GET probe_path) ──► report
 *                     sleeps until the next is due, or until probe_kick() says that something has changed
 *
 * A target whose certificate is wrong, or that refuses ours, accepts connections as well as any other. So with TLS a probe shakes
 * hands, and listens to what is said to that.
 *
 * It knows nothing of rotations: the caller says what is due and hears how it went. A target that hangs holds up its own
 * probe and nobody else's.
 */
#ifndef WEIR_PROBE_H
#define WEIR_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "upstream.h"

/* What the settings allow, and its NUL. */
#define PROBE_PATH_MAX 2049

struct prober;

/* One probe to be made: of that target, and how. */
struct probe_job {
	const struct upstream *upstream;
	unsigned slot, stay;     /* the caller's */
	uint64_t timeout_us;     /* for all of it */
	char preface[16];        /* begins a connection that is to be asked something: a PROXY header that names nobody */
	size_t preface_bytes;
	struct tls *tls;         /* NULL: plain. Held; the prober releases it */
	char path[PROBE_PATH_MAX]; /* "": a TCP connect is enough, and with TLS a handshake that the target accepts */
};

struct probe_caller {
	void *context;
	/* The next probe that is due at now_us: true and *job; else false and *wake_us, when to ask again. Called by the probe thread
	   alone; the place for other regular work as well. It must not block. */
	bool (*due)(void *context, uint64_t now_us, struct probe_job *job, uint64_t *wake_us);
	/* A probe has ended. Called by any thread. */
	void (*done)(void *context, const struct probe_job *job, bool good, const char *why);
};

/* NULL when out of memory or threads. */
struct prober *prober_start(const struct probe_caller *caller);
/* Something has changed: ask again now. Never blocks. Any thread. */
void prober_kick(struct prober *prober);
/* Cuts the probes under way, waits for their threads, frees. */
void prober_stop(struct prober *prober);

#endif
