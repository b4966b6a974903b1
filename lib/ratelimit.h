/* ratelimit.h: the RateLimit fields, which tell a client how much it has left.
 *
 *      draft:    RateLimit-Policy: "threshold";q=5;w=1            draft-ietf-httpapi-ratelimit-headers (10, 11)
 *                RateLimit: "threshold";r=0;t=1
 *      legacy:   RateLimit-Limit: 5   RateLimit-Remaining: 0   RateLimit-Reset: 1       the same draft up to version 06
 *
 * A client that reads them slows down before it is refused; one that does not learns of the limit by a 429.
 *
 * No shared state: any thread.
 */
#ifndef WEIR_RATELIMIT_H
#define WEIR_RATELIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RATELIMIT_MAX 1024

/* One limit that applies to the request. */
struct ratelimit {
	const char *name;      /* "threshold", "client", a rule's name */
	unsigned quota;        /* requests in a window */
	uint64_t window_us;
	unsigned remaining;
	uint64_t reset_us;     /* until more can be had; on a refusal what Retry-After says */
};

/* Writes the fields, each line with CR LF, for up to count limits (draft: all of them as a list; legacy: the one with
   the least left, of equals the one that takes longest). Returns the length, 0 when there is nothing to say; out ends
   with a NUL. When all do not fit, the last limits are left out of the lists: what is written is always whole.
   Seconds are rounded up. */
size_t ratelimit_write(const struct ratelimit *limits, size_t count, bool draft, bool legacy, char out[RATELIMIT_MAX]);

#endif
