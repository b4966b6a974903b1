/* test_balancer_memory.c: a balancer is made, and given a list, while memory runs out.
 *
 * balancer.c is compiled here once more with a calloc() and a strdup() that fail on demand: at the first allocation, then, in a fresh
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

static char *scarce_strdup(const char *text)
{
	return allocations_left-- == 0 ? NULL : strdup(text);
}

static int scarce_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
{
	return mutexes_fail ? -1 : pthread_mutex_init(mutex, attributes);
}

#undef strdup
#define calloc scarce_calloc
#define strdup scarce_strdup
#define pthread_mutex_init scarce_mutex_init
#include "../../balancer.c"
#undef calloc
#undef strdup
#undef pthread_mutex_init

#include "unit.h"

static unsigned released[8];

static void count_release(void *item)
{
	++*(unsigned *)item;
}

static const struct balancer_options options = { .probe_interval_us = 1000000, .probe_rise = 1, .probe_fall = 1 };

static void out_of_memory_no_balancer_is_made(void)
{
	allocations_left = 0;
	CU_ASSERT_PTR_NULL(balancer_create(&options, count_release));
	allocations_left = -1ul;
	mutexes_fail = true;
	CU_ASSERT_PTR_NULL(balancer_create(&options, count_release));
	mutexes_fail = false;
	balancer_destroy(NULL);
}

static void out_of_memory_the_old_list_stays(void)
{
	struct balancer_entry before[2] = { { .name = "A", .weight = 1, .item = &released[0] },
		                            { .name = "B", .weight = 1, .item = &released[1] } };
	struct balancer_entry after[4] = { { .name = "C", .weight = 1, .item = &released[2] },
		                           { .name = "A", .weight = 1, .item = &released[3] },
		                           { .name = "D", .weight = 1, .item = &released[4] },
		                           { .name = "C", .weight = 1, .item = &released[5] } };
	struct balancer *b = balancer_create(&options, count_release);
	unsigned failures = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(b);
	CU_ASSERT_EQUAL(balancer_set_targets(b, before, 2, 0), 0);
	for (;; failures++) {
		struct balancer_report r[4];

		allocations_left = failures;
		int result = balancer_set_targets(b, after, 4, 0);
		allocations_left = -1ul;
		if (result == 0)
			break;
		CU_ASSERT_EQUAL(result, -1);
		CU_ASSERT_EQUAL(balancer_report(b, r, 4), 2);
		CU_ASSERT_TRUE(strcmp(r[0].name, "A") == 0 && strcmp(r[1].name, "B") == 0);
		for (size_t i = 0; i < 6; i++)
			CU_ASSERT_EQUAL(released[i], 0);
	}
	CU_ASSERT_EQUAL(failures, 5); /* the plan, and two targets with their names */
	CU_ASSERT_TRUE(released[1] == 1 && released[3] == 1 && released[5] == 1);
	balancer_destroy(b);
	for (size_t i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(released[i], 1);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(out_of_memory_no_balancer_is_made),
		TEST(out_of_memory_the_old_list_stays),
	};

	return unit_main("balancer_memory", tests, sizeof(tests) / sizeof(tests[0]));
}
