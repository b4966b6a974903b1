/* decision.c: what one decision costs, in nanoseconds: alone, and with 64 threads on it.
 *
 * A decision is what the road of a request pays for a limit: limiter_enter() and limiter_started() when it may start,
 * limiter_enter() alone when it is refused, client_limits_ask() for its client. The time that they are told is made up
 * (one counter that each decision moves on), so that the clock of the machine is not measured with them.
 *
 * Alone: one thread, no lock is ever waited for. Together: 64 threads decide as fast as they can, which no proxy does,
 * since between two decisions of a thread lies a request. "wall" is the time divided by all decisions: how many a
 * second the limit can take; "CPU" is what the processors spent on each, waiting for the lock and switching threads
 * included. Each number is the best of five rounds: what other programs took from the machine is no cost of the
 * decision.
 *
 * Ends with 1 if a decision of the limiter alone takes more than MAX_NS.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/client_limits.h"
#include "limiter.h"

#define MAX_NS 100.0
#define ROUNDS 5u
#define THREADS 64u
#define DECISIONS 2000000u
#define KEYS 1000000u
#define STEP_US 100u /* the made-up time between two decisions: a threshold of 20,000 has a slot for each */

struct bench {
	const char *what;
	void (*decide)(struct bench *, uint64_t number);
	bool is_the_limiter;
	struct limiter *limiter;
	struct client_limits *limits;
	atomic_uint_fast64_t time_us;
	unsigned decisions_each;
	atomic_uint_fast64_t wrong; /* decisions that came out otherwise than this case is about */
};

static uint64_t next_us(struct bench *b)
{
	return atomic_fetch_add_explicit(&b->time_us, STEP_US, memory_order_relaxed);
}

/* A thread that was stopped between reading the time and entering comes from so long ago that it is refused. */
static void start(struct bench *b, uint64_t number)
{
	struct limiter_ticket ticket = { .owner = NULL };
	uint64_t now_us = next_us(b);

	(void)number;
	while (limiter_enter(b->limiter, &ticket, 1, now_us) != LIMITER_GO)
		now_us = next_us(b);
	limiter_started(b->limiter, &ticket, now_us);
}

static void be_refused(struct bench *b, uint64_t number)
{
	struct limiter_ticket ticket = { .owner = NULL };

	(void)number;
	if (limiter_enter(b->limiter, &ticket, 1, 10) != LIMITER_FULL)
		atomic_fetch_add(&b->wrong, 1);
}

static void ask_for(struct bench *b, uint64_t key, bool expected)
{
	struct client_ask ask = { .key = key, .count = 1, .window_us = expected ? 1 : UINT64_C(1) << 42, .burst = 1000 };

	if (client_limits_ask(b->limits, &ask, 1, next_us(b)) != expected)
		atomic_fetch_add(&b->wrong, 1);
}

static void ask_for_one_client(struct bench *b, uint64_t number)
{
	(void)number;
	ask_for(b, 1, true);
}

static void ask_for_a_client_that_is_over(struct bench *b, uint64_t number)
{
	(void)number;
	ask_for(b, 2, false);
}

/* As the keys of a million clients fall: nothing of the table is in the cache. */
static void ask_for_any_client(struct bench *b, uint64_t number)
{
	uint64_t mixed = number * UINT64_C(0x9e3779b97f4a7c15);

	ask_for(b, (mixed >> 20) % KEYS * UINT64_C(0xd1342543de82ef95) + 3, true);
}

static void hash_an_address(struct bench *b, uint64_t number)
{
	if (client_limits_hash(b->limits, "client", (const char *)&number, sizeof(number)) == 0)
		atomic_fetch_add(&b->wrong, 1);
}

static void *decide_often(void *argument)
{
	struct bench *b = argument;
	static atomic_uint_fast64_t next;
	uint64_t first = atomic_fetch_add(&next, b->decisions_each);

	for (uint64_t i = 0; i < b->decisions_each; i++)
		b->decide(b, first + i);
	return NULL;
}

static double now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* The best of the rounds, for each decision. */
static bool measure(struct bench *b, unsigned threads, double *wall_ns, double *cpu_ns)
{
	*wall_ns = *cpu_ns = 1e18;
	b->decisions_each = DECISIONS / threads;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_t ids[THREADS];
		double wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
		unsigned made = 0;

		while (made < threads && pthread_create(&ids[made], NULL, decide_often, b) == 0)
			made++;
		for (unsigned i = 0; i < made; i++)
			pthread_join(ids[i], NULL);
		if (made < threads)
			return false;
		wall = (now_ns(CLOCK_MONOTONIC) - wall) / (b->decisions_each * threads);
		cpu = (now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (b->decisions_each * threads);
		*wall_ns = wall < *wall_ns ? wall : *wall_ns;
		*cpu_ns = cpu < *cpu_ns ? cpu : *cpu_ns;
	}
	return b->wrong == 0;
}

static void wake_nobody(struct limiter_ticket *ticket)
{
	(void)ticket;
}

static struct limiter *make_limiter(unsigned threshold, unsigned used)
{
	struct limiter_options options = { .threshold = threshold, .window_us = 1000000 };
	struct limiter *l = limiter_create(&options, wake_nobody);

	for (unsigned i = 0; l != NULL && i < used; i++) {
		struct limiter_ticket ticket = { .owner = NULL };

		if (limiter_enter(l, &ticket, 1, 10) == LIMITER_GO)
			limiter_started(l, &ticket, 10);
	}
	return l;
}

int main(void)
{
	struct limiter *free_limiter = make_limiter(20000, 0), *full_limiter = make_limiter(5, 5);
	struct client_limits *limits = client_limits_create(KEYS);
	struct bench benches[] = {
		{ .what = "limiter: may start", .decide = start, .limiter = free_limiter, .is_the_limiter = true },
		{ .what = "limiter: refused", .decide = be_refused, .limiter = full_limiter, .is_the_limiter = true },
		{ .what = "client limits: one client", .decide = ask_for_one_client, .limits = limits },
		{ .what = "client limits: one that is over", .decide = ask_for_a_client_that_is_over, .limits = limits },
		{ .what = "client limits: a million clients", .decide = ask_for_any_client, .limits = limits },
		{ .what = "client limits: the hash of an address", .decide = hash_an_address, .limits = limits },
	};
	int status = 0;

	if (free_limiter == NULL || full_limiter == NULL || limits == NULL) {
		fprintf(stderr, "decision: out of memory\n");
		return 1;
	}
	for (unsigned i = 0; i < 1000; i++) { /* uses up one client's burst */
		struct client_ask ask = { .key = 2, .count = 1, .window_us = UINT64_C(1) << 42, .burst = 1000 };

		client_limits_ask(limits, &ask, 1, 0);
	}
	printf("%-40s%12s%18s%17s\n", "ns a decision", "alone", "64 threads: wall", "64 threads: CPU");
	for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
		struct bench *b = &benches[i];
		double alone_ns, wall_ns, cpu_ns, ignored;

		b->time_us = 10000000;
		if (!measure(b, 1, &ignored, &alone_ns) || !measure(b, THREADS, &wall_ns, &cpu_ns)) {
			fprintf(stderr, "decision: %s: not measured\n", b->what);
			return 1;
		}
		printf("%-40s%12.1f%18.1f%17.1f\n", b->what, alone_ns, wall_ns, cpu_ns);
		if (b->is_the_limiter && alone_ns > MAX_NS)
			status = 1;
	}
	if (status != 0)
		printf("a decision of the limiter alone takes more than %.0f ns\n", MAX_NS);
	limiter_destroy(free_limiter);
	limiter_destroy(full_limiter);
	client_limits_destroy(limits);
	return status;
}
