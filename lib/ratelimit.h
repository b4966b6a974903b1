/* ratelimit.h: the RateLimit fields, which tell a client how much it has left.
 *
 *      draft:    RateLimit-Policy: "threshold";q=5;w=1            draft-ietf-httpapi-ratelimit-headers (10)
 *                RateLimit: "threshold";r=0;t=1
 *      legacy:   RateLimit-Limit: 5   RateLimit-Remaining: 0   RateLimit-Reset: 1       the same draft up to version 06
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
	uint64_t reset_us;     /* until more can be had */
};

/* Writes the fields, each line with CR LF, for up to count limits (draft: all of them as a list; legacy: the one with the least left). Returns the
   length; cut at a whole field when it does not fit. Seconds are rounded up. */
size_t ratelimit_write(const struct ratelimit *limits, size_t count, bool draft, bool legacy, char out[RATELIMIT_MAX]);

#endif
