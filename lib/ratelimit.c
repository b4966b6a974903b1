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

#include "clock.h"
#include "writer.h"

/* An Integer of a structured field has at most 15 digits. */
#define INTEGER_MAX UINT64_C(999999999999999)

static uint64_t whole_seconds(uint64_t us)
{
	uint64_t seconds = us / US_PER_S + (us % US_PER_S > 0);

	return seconds < INTEGER_MAX ? seconds : INTEGER_MAX;
}

/* A String holds printable ASCII; what else a name has can't be said in one. */
static void put_name(struct writer *w, const char *name)
{
	writer_put_literal(w, "\"");
	for (; *name != '\0'; name++) {
		bool is_printable = *name >= ' ' && *name <= '~';

		if (*name == '"' || *name == '\\')
			writer_put_literal(w, "\\");
		writer_put(w, is_printable ? name : "_", 1);
	}
	writer_put_literal(w, "\"");
}

/* ";q=5;w=1" and its like. */
static void put_numbers(struct writer *w, const char *count_is, uint64_t count, const char *seconds_are, uint64_t seconds)
{
	writer_put_string(w, count_is);
	writer_put_number(w, count);
	writer_put_string(w, seconds_are);
	writer_put_number(w, seconds);
}

static void put_draft(struct writer *w, const struct ratelimit *limits, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t window_s = whole_seconds(limits[i].window_us);

		writer_put_string(w, i == 0 ? "RateLimit-Policy: " : ", ");
		put_name(w, limits[i].name);
		put_numbers(w, ";q=", limits[i].quota, ";w=", window_s > 0 ? window_s : 1);
	}
	for (size_t i = 0; i < count; i++) {
		writer_put_string(w, i == 0 ? "\r\nRateLimit: " : ", ");
		put_name(w, limits[i].name);
		put_numbers(w, ";r=", limits[i].remaining, ";t=", whole_seconds(limits[i].reset_us));
	}
	writer_put_literal(w, "\r\n");
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
	writer_put_literal(w, "RateLimit-Limit: ");
	put_numbers(w, "", limit->quota, "\r\nRateLimit-Remaining: ", limit->remaining);
	writer_put_literal(w, "\r\nRateLimit-Reset: ");
	writer_put_number(w, whole_seconds(limit->reset_us));
	writer_put_literal(w, "\r\n");
}

size_t ratelimit_write(const struct ratelimit *limits, size_t count, bool draft, bool legacy, char out[RATELIMIT_MAX])
{
	for (size_t listed = count; count > 0; listed--) {
		struct writer w = { .out = out, .capacity = RATELIMIT_MAX - 1 };

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
