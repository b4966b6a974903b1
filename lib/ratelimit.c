/* ratelimit.c: see ratelimit.h.
 *
 * The draft's fields are structured fields (RFC 9651): a List of Strings, each with parameters that are Integers.
 *
 *      RateLimit-Policy: "threshold";q=5;w=1, "login";q=10;w=60        q: the quota, w: its window in whole seconds,
 * at least 1
 *      RateLimit: "threshold";r=0;t=1, "login";r=9;t=6                 r: what is left, t: in how many seconds there
 * is more
 *
 * A reader that finds one error in such a field must ignore all of it (RFC 9651 §4.2). So a name is quoted as §3.3.3
 * says, a list is never cut in the middle, and the two lists always name the same limits. Seconds are rounded up:
 * rounded down, a client that obeys would come too early, and a window of a tenth of a second would be one of none.
 *
 * Source: draft-ietf-httpapi-ratelimit-headers-10 §3, §4; version 06 for the three fields that most clients still read.
 */
#include "ratelimit.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "clock.h"
#include "ts.h"

/* An Integer of a structured field has at most 15 digits. */
#define INTEGER_MAX UINT64_C(999999999999999)

struct writer {
	char *out;
	size_t length;
	bool is_full; /* something did not fit: what is there is worth nothing */
};

static void put(struct writer *w, const char *format, ...) PRINTF_LIKE(2, 3);
static void put(struct writer *w, const char *format, ...)
{
	size_t room = RATELIMIT_MAX - w->length;
	va_list arguments;
	int length;

	if (w->is_full)
		return;
	va_start(arguments, format);
	length = vsnprintf(w->out + w->length, room, format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length >= room)
		w->is_full = true;
	else
		w->length += (size_t)length;
}

static uint64_t whole_seconds(uint64_t us)
{
	uint64_t seconds = us / US_PER_S + (us % US_PER_S > 0);

	return seconds < INTEGER_MAX ? seconds : INTEGER_MAX;
}

/* A String holds printable ASCII; what else a name has can't be said in one. */
static void put_name(struct writer *w, const char *name)
{
	put(w, "\"");
	for (; *name != '\0'; name++) {
		bool is_printable = *name >= ' ' && *name <= '~';

		put(w, "%s%c", *name == '"' || *name == '\\' ? "\\" : "", is_printable ? *name : '_');
	}
	put(w, "\"");
}

static void put_draft(struct writer *w, const struct ratelimit *limits, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t window_s = whole_seconds(limits[i].window_us);

		put(w, i == 0 ? "RateLimit-Policy: " : ", ");
		put_name(w, limits[i].name);
		put(w, ";q=%u;w=%" PRIu64, limits[i].quota, window_s > 0 ? window_s : 1);
	}
	for (size_t i = 0; i < count; i++) {
		put(w, i == 0 ? "\r\nRateLimit: " : ", ");
		put_name(w, limits[i].name);
		put(w, ";r=%u;t=%" PRIu64, limits[i].remaining, whole_seconds(limits[i].reset_us));
	}
	put(w, "\r\n");
}

static const struct ratelimit *tightest(const struct ratelimit *limits, size_t count)
{
	const struct ratelimit *least = &limits[0];

	for (size_t i = 1; i < count; i++)
		if (limits[i].remaining < least->remaining ||
		    (limits[i].remaining == least->remaining && limits[i].reset_us > least->reset_us))
			least = &limits[i];
	return least;
}

static void put_legacy(struct writer *w, const struct ratelimit *limit)
{
	put(w, "RateLimit-Limit: %u\r\nRateLimit-Remaining: %u\r\nRateLimit-Reset: %" PRIu64 "\r\n", limit->quota,
	    limit->remaining, whole_seconds(limit->reset_us));
}

size_t ratelimit_write(const struct ratelimit *limits, size_t count, bool draft, bool legacy, char out[RATELIMIT_MAX])
{
	for (size_t listed = count; count > 0; listed--) {
		struct writer w = { .out = out };

		if (draft && listed > 0)
			put_draft(&w, limits, listed);
		if (legacy)
			put_legacy(&w, tightest(limits, count));
		if (!w.is_full) {
			out[w.length] = '\0';
			return w.length;
		}
	}
	out[0] = '\0';
	return 0;
}
