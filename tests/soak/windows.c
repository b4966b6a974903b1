/* windows.c: see traffic.h.
 *
 *      starts:   | | ||  |||  | |  ||| | ||
 *                   ◄── 1 s ──►               at each start: how many in the second that ends with it?
 *
 * The times are the kernel's, of the packets (SO_TIMESTAMPNS): they come in the order in which they are read, not in which they happened.
 * So they are gathered, and judged in order when nothing older can come any more.
 *
 * A limit that is changed while a window lasts: the window may hold what the larger of the two allows. Who raises a limit says so
 * here before it happens, who lowers one afterwards.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "traffic.h"

#define SETTLED_NS (2 * NS_PER_S) /* what is older has been read */
#define CHANGES_MAX 64

struct change {
	uint64_t since_ns;
	unsigned limit;
};

struct starts {
	uint64_t *ns;
	size_t count, capacity;
	size_t judged; /* so many of the first ones were judged before, and are kept for the windows that reach back to them */
	struct change changes[CHANGES_MAX]; /* the newest last */
	size_t change_count;
	struct windows_report report;
};

struct windows {
	struct starts starts[SERVICES];
};

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

struct windows *windows_create(void)
{
	struct windows *w = calloc(1, sizeof *w);
	for (int i = 0; w != NULL && i < SERVICES; i++)
		w->starts[i].report.most_over = -1000000;
	return w;
}

void windows_note(struct windows *w, enum service service, uint64_t ns)
{
	struct starts *starts = &w->starts[service];
	if (starts->count == starts->capacity) {
		size_t capacity = starts->capacity > 0 ? 2 * starts->capacity : 65536;
		uint64_t *more = realloc(starts->ns, capacity * sizeof *more);
		if (more == NULL) {
			fprintf(stderr, "traffic: no memory for the times of starts\n");
			exit(1);
		}
		starts->ns = more;
		starts->capacity = capacity;
	}
	starts->ns[starts->count++] = ns > 0 ? ns : now_ns(); /* the kernel leaves the very first packets without a time */
}

void windows_limit(struct windows *w, enum service service, unsigned limit)
{
	struct starts *starts = &w->starts[service];
	if (starts->change_count == CHANGES_MAX) {
		for (size_t i = 1; i < CHANGES_MAX; i++)
			starts->changes[i - 1] = starts->changes[i];
		starts->change_count--;
	}
	starts->changes[starts->change_count++] = (struct change){ .since_ns = now_ns(), .limit = limit };
}

/* The largest limit that held at some moment of the second before end_ns; 0: there was a moment without any. */
static unsigned limit_before(const struct starts *starts, uint64_t end_ns)
{
	unsigned largest = 0;
	for (size_t i = starts->change_count; i-- > 0;) {
		const struct change *change = &starts->changes[i];
		if (change->since_ns > end_ns)
			continue;
		if (change->limit == 0)
			return 0;
		if (change->limit > largest)
			largest = change->limit;
		if (change->since_ns + NS_PER_S <= end_ns)
			break;
	}
	return largest;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

struct windows_report windows_judge(struct windows *w, enum service service)
{
	struct starts *starts = &w->starts[service];
	uint64_t until_ns = now_ns() - SETTLED_NS;
	size_t first = 0, last;
	qsort(starts->ns, starts->count, sizeof *starts->ns, compare);
	for (last = 0; last < starts->count && starts->ns[last] < until_ns; last++) {
		while (starts->ns[last] - starts->ns[first] >= NS_PER_S)
			first++;
		if (last < starts->judged)
			continue;
		unsigned here = (unsigned)(last - first + 1), limit = limit_before(starts, starts->ns[last]);
		starts->report.starts++;
		if (here > starts->report.fullest)
			starts->report.fullest = here;
		if (limit > 0 && (long)here - (long)limit > starts->report.most_over)
			starts->report.most_over = (long)here - (long)limit;
		starts->report.breaches += limit > 0 && here > limit;
	}
	/* The last second stays, for the windows to come. */
	for (size_t i = first; i < starts->count; i++)
		starts->ns[i - first] = starts->ns[i];
	starts->judged = last - first;
	starts->count -= first;
	return starts->report;
}
