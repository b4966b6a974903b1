/* meters.h: what a service has done, counted so that counting costs next to nothing.
 *
 * Every request is counted by whichever thread served it, and once a second somebody asks for the sum. One number that all threads
 * add to would travel from processor to processor with each request. So each counter is there several times over (stripes):
 *
 *      thread 1, 9, 17 …  ──► stripe 0 ┐
 *      thread 2, 10 …     ──► stripe 1 ├──► added up when somebody asks
 *      …                               ┘
 *
 * A thread keeps to its stripe. Additions are atomic and relaxed: no lock, nothing is lost, and no order is promised between two
 * counters: a sum taken while requests end may have the one and not yet the other.
 *
 * Times go into histograms whose bounds never change: a request is one addition to the bucket it falls into and one to the sum. How
 * many took longer than a bound is then exact; what a median is, whoever reads the buckets can guess well enough, over any
 * stretch of time and over many machines, which no stored median allows.
 *
 * Source: Prometheus, "Histograms and summaries"; LongAdder (Java) for the stripes.
 */
#ifndef WEIR_METERS_H
#define WEIR_METERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- histograms ----------------------------------------------------------------------------------------------------- */

#define HISTOGRAM_BOUNDS 16
extern const uint64_t histogram_bounds_us[HISTOGRAM_BOUNDS];

/* A sum, taken at some moment. */
struct histogram_sum {
	uint64_t buckets[HISTOGRAM_BOUNDS + 1]; /* how many fell between the bound before and this one; the last: over all bounds */
	uint64_t count, total_us;
};

/* The time that a share (0.5, 0.95 …) of them stayed below, guessed evenly within its bucket; 0 when there are none. */
uint64_t histogram_quantile_us(const struct histogram_sum *sum, double share);

/* ---- one service's -------------------------------------------------------------------------------------------------- */

enum meter_time {
	METER_TOTAL,    /* from the first byte of a request to its end; not of tunnels */
	METER_UPSTREAM, /* from the first byte sent to a target to the last of its answer */
	METER_WAIT,     /* in line, behind the threshold or a cap */
	METER_TIMES,
};

/* 1xx to 5xx; 0: no answer was made, for the client was gone. */
#define METER_CLASSES 6
/* Limits that refusals are counted for by name: those beyond are counted as "other". */
#define METER_LIMITS_MAX 32
#define METER_NAME_MAX 80

struct meters;

/* NULL when out of memory. */
struct meters *meters_create(void);
void meters_destroy(struct meters *meters);

/* A thread begins: which stripe is its own. */
unsigned meters_stripe(struct meters *meters);
void meters_count_status(struct meters *meters, unsigned stripe, int status);
void meters_count_time(struct meters *meters, unsigned stripe, enum meter_time which, uint64_t us);
/* A limit has refused a request. name: "threshold", "client_rate", "limit.login" … */
void meters_count_refusal(struct meters *meters, const char *name);

struct meters_refusals {
	char name[METER_NAME_MAX];
	uint64_t count;
};
struct meters_report {
	uint64_t classes[METER_CLASSES];
	struct histogram_sum times[METER_TIMES];
	struct meters_refusals refusals[METER_LIMITS_MAX];
	size_t refusal_count;
};
void meters_report(struct meters *meters, struct meters_report *report);

#endif
