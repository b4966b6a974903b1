/* sim.c: the simulation's command line.
 *
 *      sim --hours H [--seed S] [--jobs N]   random plans of seeds S, S+1, ... until H simulated hours are through
 *      sim --seed S [--timeline]             one random plan, for itself: how a failure is looked at again
 *      sim --scenario NAME [--seed S] [--timeline] [--hours H]
 *      sim --table                           every scenario, as a table
 *      sim --list
 *
 * --until-failure ends at the first failure and then calls it a success: it is used where the protocol was broken on
 * purpose, and the simulation has to find it.
 *
 * Several jobs are several processes: job j of n takes every n-th seed. A run depends on its seed alone, so what fails
 * in company fails alone. Ends with 0 when all went well, 1 when a run failed, 2 when the arguments make no sense.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX 64u
#define FAILURES_SHOWN 10u

struct arguments {
	double hours;
	uint64_t seed;
	const char *scenario, *program;
	unsigned jobs;
	bool has_seed, has_timeline, until_failure, wants_table, wants_list;
};

/* What the jobs report. */
struct sum {
	uint64_t runs, failures, simulated_us, started, datagrams, frozen, died;
	uint64_t first_seed; /* of the failures */
	struct result first;
};

static void make_plan(const struct arguments *a, uint64_t seed, struct plan *plan)
{
	if (a->scenario == NULL || !plan_named(plan, a->scenario, seed))
		plan_random(plan, seed);
}

static void show_failure(const struct arguments *a, const struct result *r)
{
	printf("seed %" PRIu64 ": at %.6f s: %s\n", r->seed, (double)r->failed_us / 1e6, r->why);
	printf("    %s%s%s --seed %" PRIu64 " --timeline\n", a->program, a->scenario != NULL ? " --scenario " : "",
	       a->scenario != NULL ? a->scenario : "", r->seed);
	fflush(stdout);
}

/* ---- many runs --------------------------------------------------------------------------------------------------- */

static void count_run(const struct arguments *a, const struct result *r, struct sum *sum)
{
	sum->runs++;
	sum->simulated_us += r->has_failed ? r->failed_us : r->end_us;
	sum->started += r->started;
	sum->datagrams += r->datagrams;
	sum->frozen += r->frozen;
	sum->died += r->died;
	if (!r->has_failed)
		return;
	if (sum->failures++ == 0)
		sum->first = *r;
	if (sum->failures <= FAILURES_SHOWN)
		show_failure(a, r);
}

static void run_job(const struct arguments *a, unsigned job, int report)
{
	static struct plan plan;
	struct sum sum = { .runs = 0 };
	uint64_t wanted_us = (uint64_t)(a->hours * 3600e6 / a->jobs);

	for (uint64_t seed = a->seed + job; sum.simulated_us < wanted_us; seed += a->jobs) {
		struct result result;

		make_plan(a, seed, &plan);
		world_run(&plan, false, &result);
		count_run(a, &result, &sum);
		if (a->until_failure && sum.failures > 0)
			break;
	}
	if (write(report, &sum, sizeof(sum)) != (ssize_t)sizeof(sum))
		_exit(1);
	_exit(0);
}

static void add(struct sum *all, const struct sum *one)
{
	if (all->failures == 0 && one->failures > 0)
		all->first = one->first;
	all->runs += one->runs;
	all->failures += one->failures;
	all->simulated_us += one->simulated_us;
	all->started += one->started;
	all->datagrams += one->datagrams;
	all->frozen += one->frozen;
	all->died += one->died;
}

/* False when a job ended without a report: that is a failure of its own, as a crash would be. */
static bool run_jobs(const struct arguments *a, struct sum *all)
{
	int reports[JOBS_MAX];
	bool is_whole = true;

	for (unsigned job = 0; job < a->jobs; job++) {
		int ends[2];

		if (pipe(ends) != 0) {
			perror("sim: pipe");
			exit(1);
		}
		fflush(stdout);
		pid_t child = fork();
		if (child < 0) {
			perror("sim: fork");
			exit(1);
		}
		if (child == 0)
			run_job(a, job, ends[1]);
		close(ends[1]);
		reports[job] = ends[0];
	}
	for (unsigned job = 0; job < a->jobs; job++) {
		struct sum one;

		if (read(reports[job], &one, sizeof(one)) == (ssize_t)sizeof(one))
			add(all, &one);
		else
			is_whole = false;
		close(reports[job]);
	}
	while (wait(NULL) > 0)
		;
	return is_whole;
}

static int run_many(const struct arguments *a)
{
	struct sum all = { .runs = 0 };
	bool is_whole = run_jobs(a, &all);

	printf("%" PRIu64 " runs, %.1f simulated hours, %" PRIu64 " starts, %" PRIu64 " datagrams, %" PRIu64
	       " slots died of age, %" PRIu64 " sends that a pause hit: %" PRIu64 " failed\n",
	       all.runs, (double)all.simulated_us / 3600e6, all.started, all.datagrams, all.died, all.frozen,
	       all.failures);
	if (!is_whole)
		printf("a job ended without a report\n");
	if (a->until_failure)
		return is_whole && all.failures > 0 ? 0 : 1;
	return is_whole && all.failures == 0 ? 0 : 1;
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static int run_one(const struct arguments *a)
{
	static struct plan plan;
	struct result r;

	make_plan(a, a->seed, &plan);
	printf("seed %" PRIu64 ", %s: %s\n", plan.seed, plan.name, plan.text);
	for (unsigned i = 0; a->has_timeline && i < plan.load_count; i++)
		printf("    at %.6f nodes %03x have load %d, %.2f a second, %u deep\n",
		       (double)plan.loads[i].at_us / 1e6, plan.loads[i].nodes, (int)plan.loads[i].pattern,
		       plan.loads[i].rate, plan.loads[i].depth);
	world_run(&plan, a->has_timeline, &r);
	printf("%" PRIu64 " started, %" PRIu64 " refused, %" PRIu64 " slots died of age, %" PRIu64
	       " datagrams; largest window %u of %u\n",
	       r.started, r.refused, r.died, r.datagrams, r.largest, r.threshold);
	for (int i = 1; i < CLUSTER_WIRE_RESULTS; i++)
		if (r.dropped[i] > 0)
			printf("    %" PRIu64 " datagrams dropped: %s\n", r.dropped[i],
			       cluster_wire_reason((enum cluster_wire_result)i));
	if (r.has_failed)
		show_failure(a, &r);
	return r.has_failed ? 1 : 0;
}

static int show_table(const struct arguments *a)
{
	static struct plan plan;
	const char *name, *text;
	int status = 0;

	printf("%-22s %-46s %13s %7s %12s %9s %9s %9s\n", "scenario", "", "fullest/limit", "used", "no start for",
	       "wait p50", "wait p99", "datagr./s");
	for (unsigned i = 0; (name = plan_name(i, &text)) != NULL; i++) {
		struct result r;

		plan_named(&plan, name, a->seed);
		world_run(&plan, false, &r);
		printf("%-22s %-46s %7u/%-5u %5.1f %% %9.1f ms %6.1f ms %6.1f ms %9.0f%s%s\n", name, text, r.largest,
		       r.threshold, 100 * r.utilisation, (double)r.standstill_us / 1000, (double)r.wait_p50_us / 1000,
		       (double)r.wait_p99_us / 1000, r.datagrams_a_second, r.has_failed ? "  FAILED: " : "", r.why);
		fflush(stdout);
		status = r.has_failed ? 1 : status;
	}
	return status;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static int usage(void)
{
	fprintf(stderr, "usage: sim --hours H [--seed S] [--scenario NAME] [--jobs N] [--until-failure]\n"
	                "       sim --seed S [--scenario NAME] [--timeline]\n"
	                "       sim --table [--seed S]\n"
	                "       sim --list\n");
	return 2;
}

static bool read_number(const char *text, double most, double *number)
{
	char *end;

	*number = strtod(text, &end);
	return end != text && *end == '\0' && *number >= 0 && *number <= most;
}

static bool read_seed(const char *text, uint64_t *seed)
{
	char *end;

	*seed = strtoull(text, &end, 0);
	return text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

static bool read_argument(struct arguments *a, const char *name, const char *value, bool *took_value)
{
	double number = 0;

	*took_value = false;
	if (strcmp(name, "--timeline") == 0)
		return a->has_timeline = true;
	if (strcmp(name, "--until-failure") == 0)
		return a->until_failure = true;
	if (strcmp(name, "--table") == 0)
		return a->wants_table = true;
	if (strcmp(name, "--list") == 0)
		return a->wants_list = true;
	*took_value = true;
	if (value == NULL)
		return false;
	if (strcmp(name, "--seed") == 0)
		return a->has_seed = read_seed(value, &a->seed);
	if (strcmp(name, "--hours") == 0)
		return read_number(value, 1e7, &a->hours) && a->hours > 0;
	if (strcmp(name, "--jobs") == 0 && read_number(value, JOBS_MAX, &number) && number >= 1) {
		a->jobs = (unsigned)number;
		return true;
	}
	if (strcmp(name, "--scenario") == 0) {
		static struct plan plan;

		a->scenario = value;
		return plan_named(&plan, value, 0);
	}
	return false;
}

int main(int argc, char **argv)
{
	struct arguments a = { .seed = 1, .jobs = 1, .program = argv[0] };

	for (int i = 1; i < argc; i++) {
		bool took_value;

		if (!read_argument(&a, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &took_value)) {
			fprintf(stderr, "sim: what does %s %s mean?\n", argv[i],
				took_value && i + 1 < argc ? argv[i + 1] : "");
			return usage();
		}
		i += took_value;
	}
	if (a.wants_list) {
		const char *name, *text;

		for (unsigned i = 0; (name = plan_name(i, &text)) != NULL; i++)
			printf("%-22s %s\n", name, text);
		return 0;
	}
	if (a.wants_table)
		return show_table(&a);
	if (a.hours > 0)
		return run_many(&a);
	return a.has_seed || a.scenario != NULL ? run_one(&a) : usage();
}
