/* meters.c: see meters.h.
 *
 * The names of the limits that refuse are few and come once: a place in the list is found by comparing, without a lock, for a name
 * that stands there never changes. Only to put a new one in takes the mutex. */
#include "meters.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ts.h"

#define STRIPES 16u

const uint64_t histogram_bounds_us[HISTOGRAM_BOUNDS] = { 500,     1000,    2500,    5000,    10000,    25000,    50000,    100000,
	                                                 250000,  500000,  1000000, 2500000, 5000000, 10000000, 30000000, 60000000 };

struct histogram {
	atomic_ullong buckets[HISTOGRAM_BOUNDS + 1];
	atomic_ullong total_us;
};

struct stripe {
	struct histogram times[METER_TIMES];
	atomic_ullong classes[METER_CLASSES];
	char apart[64]; /* the next stripe begins on another cache line */
};

struct refusals {
	char name[METER_NAME_MAX];
	atomic_ullong count;
};

struct meters {
	struct stripe stripes[STRIPES];
	atomic_uint next_stripe;
	pthread_mutex_t mutex;
	struct refusals refusals[METER_LIMITS_MAX]; /* a name is written once, before refusal_count says that it is there */
	atomic_size_t refusal_count;
};

LOCK_VERBS(meters, mutex, meters_mutex)

static void add(atomic_ullong *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static uint64_t value(const atomic_ullong *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

struct meters *meters_create(void)
{
	struct meters *meters = calloc(1, sizeof *meters);
	if (meters != NULL)
		pthread_mutex_init(&meters->mutex, NULL);
	return meters;
}

void meters_destroy(struct meters *meters)
{
	if (meters == NULL)
		return;
	pthread_mutex_destroy(&meters->mutex);
	free(meters);
}

unsigned meters_stripe(struct meters *meters)
{
	return atomic_fetch_add_explicit(&meters->next_stripe, 1, memory_order_relaxed) % STRIPES;
}

void meters_count_status(struct meters *meters, unsigned stripe, int status)
{
	add(&meters->stripes[stripe].classes[status >= 100 && status < 600 ? status / 100 : 0], 1);
}

void meters_count_time(struct meters *meters, unsigned stripe, enum meter_time which, uint64_t us)
{
	struct histogram *histogram = &meters->stripes[stripe].times[which];
	size_t bucket = 0;
	while (bucket < HISTOGRAM_BOUNDS && us > histogram_bounds_us[bucket])
		bucket++;
	add(&histogram->buckets[bucket], 1);
	add(&histogram->total_us, us);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------- */

static struct refusals *find(struct meters *meters, const char *name)
{
	size_t count = atomic_load_explicit(&meters->refusal_count, memory_order_acquire);
	for (size_t i = 0; i < count; i++)
		if (strcmp(meters->refusals[i].name, name) == 0)
			return &meters->refusals[i];
	return NULL;
}

/* The last place is for all that find no other. */
static struct refusals *find_or_add(struct meters *meters, const char *name)
{
	meters_lock(meters);
	struct refusals *found = find(meters, name);
	size_t count = atomic_load(&meters->refusal_count);
	if (found == NULL && count >= METER_LIMITS_MAX - 1) {
		name = "other";
		found = find(meters, name);
	}
	if (found == NULL) {
		found = &meters->refusals[count];
		snprintf(found->name, sizeof found->name, "%s", name);
		atomic_store_explicit(&meters->refusal_count, count + 1, memory_order_release);
	}
	meters_unlock(meters);
	return found;
}

void meters_count_refusal(struct meters *meters, const char *name)
{
	struct refusals *found = find(meters, name);
	if (found == NULL) { /* the first of this name, or one longer than is kept */
		char cut[METER_NAME_MAX];
		snprintf(cut, sizeof cut, "%s", name);
		found = find_or_add(meters, cut);
	}
	add(&found->count, 1);
}

/* ---- sums ----------------------------------------------------------------------------------------------------------- */

void meters_report(struct meters *meters, struct meters_report *report)
{
	memset(report, 0, sizeof *report);
	for (size_t i = 0; i < STRIPES; i++) {
		for (size_t class = 0; class < METER_CLASSES; class++)
			report->classes[class] += value(&meters->stripes[i].classes[class]);
		for (size_t which = 0; which < METER_TIMES; which++) {
			const struct histogram *histogram = &meters->stripes[i].times[which];
			struct histogram_sum *sum = &report->times[which];
			for (size_t bucket = 0; bucket <= HISTOGRAM_BOUNDS; bucket++) {
				uint64_t count = value(&histogram->buckets[bucket]);
				sum->buckets[bucket] += count;
				sum->count += count;
			}
			sum->total_us += value(&histogram->total_us);
		}
	}
	size_t count = atomic_load_explicit(&meters->refusal_count, memory_order_acquire);
	for (size_t i = 0; i < count; i++) {
		memcpy(report->refusals[i].name, meters->refusals[i].name, METER_NAME_MAX);
		report->refusals[i].count = value(&meters->refusals[i].count);
	}
	report->refusal_count = count;
}

uint64_t histogram_quantile_us(const struct histogram_sum *sum, double share)
{
	double wanted = share * (double)sum->count, seen = 0;
	if (sum->count == 0)
		return 0;
	for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
		double here = (double)sum->buckets[i];
		uint64_t from = i == 0 ? 0 : histogram_bounds_us[i - 1];
		if (here > 0 && seen + here >= wanted)
			return from + (uint64_t)((wanted - seen) / here * (double)(histogram_bounds_us[i] - from));
		seen += here;
	}
	return histogram_bounds_us[HISTOGRAM_BOUNDS - 1];
}
