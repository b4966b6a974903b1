/* tally.c: what became of many requests, added up by many threads. See tally.h for the idea.
 *
 * Latencies are not kept one by one but counted in drawers. Below 1024 us each microsecond has a drawer of its own;
 * above, each doubling is divided into 512 equal ones:
 *
 *      0 1 2 ... 1023 │ 1024  1026  1028 ... 2046 │ 2048  2052 ... 4092 │ 4096  4104 ...
 *      width 1        │ width 2                   │ width 4             │ width 8
 *
 * So a drawer's width is never more than 1/512 of what is in it, whether that is a millisecond or an hour, and 16,384
 * drawers are enough. What is read out is the top of a drawer: a percentile may look 0.2 % worse than it was, never
 * better.
 *
 * Source: Gil Tene's HdrHistogram.
 */
#include "tally.h"

#include "ts.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TARGETS_MAX 64
#define STATUSES 600
#define LINEAR_US UINT64_C(1024)
#define DRAWERS_PER_DOUBLING UINT64_C(512)
#define DOUBLINGS UINT64_C(30)
#define DRAWERS (LINEAR_US + DOUBLINGS * DRAWERS_PER_DOUBLING)

extern struct lock_role tally_mutex;

struct target_count {
	char name[TALLY_NAME_BYTES];
	uint64_t answers;
};

struct tally {
	pthread_mutex_t mutex;
	uint64_t outcomes[TALLY_OUTCOMES] GUARDED_BY(tally_mutex);
	uint64_t statuses[STATUSES] GUARDED_BY(tally_mutex);
	struct target_count targets[TARGETS_MAX] GUARDED_BY(tally_mutex);
	size_t targets_known GUARDED_BY(tally_mutex);
	uint64_t other_targets GUARDED_BY(tally_mutex); /* answers of targets for which there was no room */
	uint64_t connections GUARDED_BY(tally_mutex);
	uint64_t reconnections GUARDED_BY(tally_mutex);
	uint64_t body_bytes GUARDED_BY(tally_mutex);
	uint64_t furthest_behind_us GUARDED_BY(tally_mutex);
	uint64_t slowest_us GUARDED_BY(tally_mutex);
	uint64_t drawers[DRAWERS] GUARDED_BY(tally_mutex);
};

LOCK_VERBS(tally, mutex, tally_mutex)

struct tally *tally_create(void)
{
	struct tally *t = calloc(1, sizeof *t);
	if (t && pthread_mutex_init(&t->mutex, NULL) != 0) {
		free(t);
		return NULL;
	}
	return t;
}

void tally_destroy(struct tally *t)
{
	if (!t)
		return;
	pthread_mutex_destroy(&t->mutex);
	free(t);
}

const char *tally_outcome_name(enum tally_outcome outcome)
{
	static const char *const names[TALLY_OUTCOMES] = {
		"answered", "refused", "unreachable", "reset", "closed", "cut", "timeout", "malformed",
	};
	return names[outcome];
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

static size_t drawer_of(uint64_t us)
{
	uint64_t doubling = 0;
	if (us < LINEAR_US)
		return (size_t)us;
	while (us >> doubling >= 2 * LINEAR_US)
		doubling++;
	if (doubling >= DOUBLINGS)
		return DRAWERS - 1;
	return (size_t)(LINEAR_US + doubling * DRAWERS_PER_DOUBLING + (us >> (doubling + 1)) - DRAWERS_PER_DOUBLING);
}

/* The largest latency that goes into a drawer. */
static uint64_t drawer_top_us(size_t drawer)
{
	if (drawer < LINEAR_US)
		return drawer;
	uint64_t doubling = (drawer - LINEAR_US) / DRAWERS_PER_DOUBLING;
	uint64_t step = (drawer - LINEAR_US) % DRAWERS_PER_DOUBLING + DRAWERS_PER_DOUBLING;
	return ((step + 1) << (doubling + 1)) - 1;
}

static void count_target(struct tally *t, const char *name) REQUIRES(tally_mutex)
{
	for (size_t i = 0; i < t->targets_known; i++) {
		if (strcmp(t->targets[i].name, name) == 0) {
			t->targets[i].answers++;
			return;
		}
	}
	if (t->targets_known == TARGETS_MAX) {
		t->other_targets++;
		return;
	}
	struct target_count *fresh = &t->targets[t->targets_known++];
	snprintf(fresh->name, sizeof fresh->name, "%s", name);
	fresh->answers = 1;
}

static void count_answer(struct tally *t, const struct tally_entry *entry) REQUIRES(tally_mutex)
{
	if (entry->status >= 0 && entry->status < STATUSES)
		t->statuses[entry->status]++;
	t->body_bytes += entry->body_bytes;
	t->drawers[drawer_of(entry->took_us)]++;
	if (entry->took_us > t->slowest_us)
		t->slowest_us = entry->took_us;
	if (entry->target[0] != '\0')
		count_target(t, entry->target);
}

void tally_add(struct tally *t, const struct tally_entry *entry)
{
	tally_lock(t);
	t->outcomes[entry->outcome]++;
	if (entry->behind_us > t->furthest_behind_us)
		t->furthest_behind_us = entry->behind_us;
	if (entry->outcome == TALLY_ANSWERED)
		count_answer(t, entry);
	tally_unlock(t);
}

void tally_add_connection(struct tally *t)
{
	tally_lock(t);
	t->connections++;
	tally_unlock(t);
}

void tally_add_reconnection(struct tally *t)
{
	tally_lock(t);
	t->reconnections++;
	tally_unlock(t);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static uint64_t count_failed(const struct tally *t) REQUIRES(tally_mutex)
{
	uint64_t failed = 0;
	for (size_t i = TALLY_ANSWERED + 1; i < TALLY_OUTCOMES; i++)
		failed += t->outcomes[i];
	return failed;
}

struct tally_totals tally_totals(struct tally *t, int status)
{
	struct tally_totals totals = { 0, 0, 0 };
	tally_lock(t);
	totals.answered = t->outcomes[TALLY_ANSWERED];
	totals.failed = count_failed(t);
	if (status >= 0 && status < STATUSES)
		totals.with_status = t->statuses[status];
	tally_unlock(t);
	return totals;
}

static uint64_t find_percentile_us(const struct tally *t, uint64_t permille) REQUIRES(tally_mutex)
{
	uint64_t answered = t->outcomes[TALLY_ANSWERED];
	uint64_t wanted = (answered * permille + 999) / 1000;
	uint64_t passed = 0;
	for (size_t i = 0; i < DRAWERS && answered > 0; i++) {
		passed += t->drawers[i];
		if (passed >= wanted && passed > 0)
			return drawer_top_us(i) < t->slowest_us ? drawer_top_us(i) : t->slowest_us;
	}
	return 0;
}

uint64_t tally_percentile_us(struct tally *t, uint64_t permille)
{
	tally_lock(t);
	uint64_t found_us = find_percentile_us(t, permille);
	tally_unlock(t);
	return found_us;
}

static const struct {
	const char *name, *json_name;
	uint64_t permille;
} percentiles[] = { { "p50", "p50", 500 }, { "p90", "p90", 900 }, { "p99", "p99", 990 }, { "p99.9", "p99_9", 999 } };
static const size_t percentile_count = sizeof percentiles / sizeof percentiles[0];

static void print_counts(const struct tally *t, FILE *out) REQUIRES(tally_mutex)
{
	for (int status = 0; status < STATUSES; status++)
		if (t->statuses[status] > 0)
			fprintf(out, "  status %-12d %8" PRIu64 "\n", status, t->statuses[status]);
	for (size_t i = 0; i < t->targets_known; i++)
		fprintf(out, "  target %-12s %8" PRIu64 "\n", t->targets[i].name, t->targets[i].answers);
	if (t->other_targets > 0)
		fprintf(out, "  other targets       %8" PRIu64 "\n", t->other_targets);
	for (unsigned i = TALLY_ANSWERED + 1; i < TALLY_OUTCOMES; i++)
		if (t->outcomes[i] > 0)
			fprintf(out, "  failed: %-11s %8" PRIu64 "\n", tally_outcome_name((enum tally_outcome)i), t->outcomes[i]);
}

static double per_second(uint64_t count, uint64_t elapsed_us)
{
	return elapsed_us > 0 ? (double)count * 1e6 / (double)elapsed_us : 0;
}

static void print_text(const struct tally *t, FILE *out, uint64_t elapsed_us) REQUIRES(tally_mutex)
{
	uint64_t answered = t->outcomes[TALLY_ANSWERED], failed = count_failed(t);

	fprintf(out, "%" PRIu64 " requests in %.3f s (%.1f a second): %" PRIu64 " answered, %" PRIu64 " failed\n",
	        answered + failed, (double)elapsed_us / 1e6, per_second(answered, elapsed_us), answered, failed);
	print_counts(t, out);
	if (answered > 0) {
		fprintf(out, "  latency ms ");
		for (size_t i = 0; i < percentile_count; i++)
			fprintf(out, "  %s %.3f", percentiles[i].name,
			        (double)find_percentile_us(t, percentiles[i].permille) / 1e3);
		fprintf(out, "  max %.3f\n", (double)t->slowest_us / 1e3);
	}
	fprintf(out, "  connections %" PRIu64 ", reconnected %" PRIu64 "\n", t->connections, t->reconnections);
	if (t->furthest_behind_us > 0)
		fprintf(out, "  the latest start was %.3f ms behind its moment\n", (double)t->furthest_behind_us / 1e3);
}

static void print_json(const struct tally *t, FILE *out, uint64_t elapsed_us) REQUIRES(tally_mutex)
{
	const char *comma = "";
	uint64_t answered = t->outcomes[TALLY_ANSWERED], failed = count_failed(t);

	fprintf(out, "{\"requests\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"failed\":%" PRIu64, answered + failed,
	        answered, failed);
	fprintf(out, ",\"elapsed_s\":%.6f,\"rate\":%.3f,\"statuses\":{", (double)elapsed_us / 1e6,
	        per_second(answered, elapsed_us));
	for (int status = 0; status < STATUSES; status++) {
		if (t->statuses[status] == 0)
			continue;
		fprintf(out, "%s\"%d\":%" PRIu64, comma, status, t->statuses[status]);
		comma = ",";
	}
	fprintf(out, "},\"targets\":{");
	for (size_t i = 0; i < t->targets_known; i++)
		fprintf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", t->targets[i].name, t->targets[i].answers);
	fprintf(out, "},\"other_targets\":%" PRIu64 ",\"failures\":{", t->other_targets);
	for (unsigned i = TALLY_ANSWERED + 1; i < TALLY_OUTCOMES; i++)
		fprintf(out, "%s\"%s\":%" PRIu64, i > TALLY_ANSWERED + 1 ? "," : "", tally_outcome_name((enum tally_outcome)i),
		        t->outcomes[i]);
	fprintf(out, "},\"latency_us\":{");
	for (size_t i = 0; i < percentile_count; i++)
		fprintf(out, "\"%s\":%" PRIu64 ",", percentiles[i].json_name, find_percentile_us(t, percentiles[i].permille));
	fprintf(out, "\"max\":%" PRIu64 "},\"connections\":%" PRIu64 ",\"reconnected\":%" PRIu64, t->slowest_us,
	        t->connections, t->reconnections);
	fprintf(out, ",\"body_bytes\":%" PRIu64 ",\"latest_start_us\":%" PRIu64 "}\n", t->body_bytes,
	        t->furthest_behind_us);
}

/* Written to memory with the lock held and to the file without it: a file may be a pipe that nobody reads. */
static void print_with(void (*print)(const struct tally *, FILE *, uint64_t), struct tally *t, FILE *out,
                       uint64_t elapsed_us)
{
	char *text = NULL;
	size_t length = 0;
	FILE *memory = open_memstream(&text, &length);

	if (memory) {
		tally_lock(t);
		print(t, memory, elapsed_us);
		tally_unlock(t);
		if (fclose(memory) == 0)
			fwrite(text, 1, length, out);
		else
			fputs("no memory for the summary\n", out);
	} else {
		fputs("no memory for the summary\n", out);
	}
	free(text);
}

void tally_print(struct tally *t, FILE *out, uint64_t elapsed_us)
{
	print_with(print_text, t, out, elapsed_us);
}

void tally_print_json(struct tally *t, FILE *out, uint64_t elapsed_us)
{
	print_with(print_json, t, out, elapsed_us);
}
