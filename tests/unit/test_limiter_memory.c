/* test_limiter_memory.c: a limiter is made, set anew, and stood in line at, while memory runs out.
 *
 * limiter.c is compiled here once more with a calloc() and a malloc() that fail on demand: at the first allocation, then, in a fresh
 * run, at the second, and so on until a run goes through. Each failure is said, leaves nothing behind (that is what
 * `make asan` sees), and changes nothing.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static unsigned long allocations_left = -1ul; /* allocations that succeed before one fails */
static bool mutexes_fail;

static void *scarce_calloc(size_t count, size_t size)
{
	return allocations_left-- == 0 ? NULL : calloc(count, size);
}

static void *scarce_malloc(size_t size)
{
	return allocations_left-- == 0 ? NULL : malloc(size);
}

static int scarce_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
	return mutexes_fail ? -1 : pthread_mutex_init(mutex, attributes);
}

#define calloc scarce_calloc
#define malloc scarce_malloc
#define pthread_mutex_init scarce_mutex_init
#include "../../limiter.c"
#undef calloc
#undef malloc
#undef pthread_mutex_init

#include "unit.h"

static void woken(struct limiter_ticket *ticket)
{
	(void)ticket;
}

static struct limiter_options options_of(unsigned threshold, enum limiter_queue queue)
{
	return (struct limiter_options){ .threshold = threshold, .window_us = SECOND_US, .backlog = 8, .queue = queue };
}

static void out_of_memory_no_limiter_is_made(void)
{
	static const enum limiter_queue queues[] = { LIMITER_FIFO, LIMITER_FAIR };

	for (size_t i = 0; i < 2; i++) {
		struct limiter_options options = options_of(3, queues[i]);
		struct limiter *l = NULL;
		unsigned failures = 0;

		for (;; failures++) {
			allocations_left = failures;
			l = limiter_create(&options, woken);
			allocations_left = -1ul;
			if (l != NULL)
				break;
		}
		/* Itself, the table of clients and the ring, and a client in advance; a fair line knows who has the longest. */
		CU_ASSERT_EQUAL(failures, queues[i] == LIMITER_FAIR ? 5 : 4);
		limiter_destroy(l);
		mutexes_fail = true;
		CU_ASSERT_PTR_NULL(limiter_create(&options, woken));
		mutexes_fail = false;
	}
	limiter_destroy(NULL);
}

static void out_of_memory_the_old_limits_stay(void)
{
	static const enum limiter_queue queues[] = { LIMITER_FIFO, LIMITER_FAIR };

	for (size_t i = 0; i < 2; i++) {
		struct limiter_options before = options_of(2, queues[i]), after = options_of(5, queues[1 - i]);
		struct limiter *l = limiter_create(&before, woken);
		struct limiter_ticket tickets[4] = { { .owner = NULL } };
		struct limiter_report report;
		unsigned failures = 0;

		CU_ASSERT_PTR_NOT_NULL_FATAL(l);
		for (unsigned k = 0; k < 4; k++)
			CU_ASSERT_EQUAL(limiter_enter(l, &tickets[k], k, 1), k < 2 ? LIMITER_GO : LIMITER_WAIT);
		for (;; failures++) {
			allocations_left = failures;
			int result = limiter_configure(l, &after, 2);
			allocations_left = -1ul;
			if (result == 0)
				break;
			CU_ASSERT_EQUAL(result, -1);
			limiter_report(l, 2, &report);
			CU_ASSERT_TRUE(report.threshold == 2 && report.waiting == 2 && report.outstanding == 2);
		}
		CU_ASSERT_TRUE(failures >= 2);
		limiter_report(l, 2, &report);
		CU_ASSERT_TRUE(report.threshold == 5 && report.waiting == 0 && report.outstanding == 4);
		for (unsigned k = 0; k < 4; k++)
			limiter_cancel(l, &tickets[k], 3);
		limiter_destroy(l);
	}
}

/* A line of a client's own needs memory, and whoever joins one that is there needs none. */
static void out_of_memory_the_line_takes_nobody_and_goes_on(void)
{
	struct limiter_options options = options_of(1, LIMITER_FAIR);
	struct limiter *l = limiter_create(&options, woken);
	struct limiter_ticket tickets[4] = { { .owner = NULL } };
	uint64_t wake_us;

	CU_ASSERT_PTR_NOT_NULL_FATAL(l);
	CU_ASSERT_EQUAL(limiter_enter(l, &tickets[0], 0, 1), LIMITER_GO);
	CU_ASSERT_EQUAL(limiter_enter(l, &tickets[1], 1, 1), LIMITER_WAIT); /* the client that was made in advance */
	allocations_left = 0;
	CU_ASSERT_EQUAL(limiter_enter(l, &tickets[2], 2, 1), LIMITER_FULL);
	allocations_left = -1ul;
	limiter_started(l, &tickets[0], 1);
	CU_ASSERT_EQUAL(limiter_turn(l, &tickets[1], 2 * SECOND_US, &wake_us), LIMITER_GO);
	CU_ASSERT_EQUAL(limiter_enter(l, &tickets[2], 2, 2 * SECOND_US), LIMITER_WAIT);
	limiter_cancel(l, &tickets[2], 2 * SECOND_US);
	limiter_cancel(l, &tickets[1], 2 * SECOND_US);
	limiter_destroy(l);
}

static void clients_that_come_and_go_take_no_more_memory(void)
{
	struct limiter_options options = options_of(1, LIMITER_FAIR);
	struct limiter *l = limiter_create(&options, woken);
	struct limiter_ticket first = { .owner = NULL }, ticket = { .owner = NULL };

	CU_ASSERT_PTR_NOT_NULL_FATAL(l);
	CU_ASSERT_EQUAL(limiter_enter(l, &first, 0, 1), LIMITER_GO);
	allocations_left = 0; /* there is the client that was made in advance */
	for (unsigned client = 1; client < 5; client++) {
		CU_ASSERT_EQUAL(limiter_enter(l, &ticket, client, 1), LIMITER_WAIT);
		limiter_cancel(l, &ticket, 1);
	}
	allocations_left = -1ul;
	limiter_cancel(l, &first, 1);
	limiter_destroy(l);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(out_of_memory_no_limiter_is_made),
		TEST(out_of_memory_the_old_limits_stay),
		TEST(out_of_memory_the_line_takes_nobody_and_goes_on),
		TEST(clients_that_come_and_go_take_no_more_memory),
	};

	return unit_main("limiter_memory", tests, sizeof(tests) / sizeof(tests[0]));
}
