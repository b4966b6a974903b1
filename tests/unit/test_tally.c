/* test_tally.c: the counts and percentiles of the demo client.
 *
 * Percentiles are compared with those of a plain sorted array: the drawers may make one look up to 0.2 % worse, never
 * better.
 */
#include "lib/tally.h"

#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct tally_entry answer_of(int status, uint64_t took_us, const char *target)
{
	struct tally_entry entry = { .outcome = TALLY_ANSWERED, .status = status, .took_us = took_us };
	snprintf(entry.target, sizeof entry.target, "%s", target);
	return entry;
}

static void add_latency(struct tally *t, uint64_t took_us)
{
	struct tally_entry entry = answer_of(200, took_us, "");
	tally_add(t, &entry);
}

static void an_empty_tally_has_no_percentiles_and_no_counts(void)
{
	struct tally *t = tally_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	CU_ASSERT_EQUAL(tally_percentile_us(t, 500), 0);
	CU_ASSERT_EQUAL(tally_percentile_us(t, 1000), 0);
	CU_ASSERT_EQUAL(tally_totals(t, 200).answered, 0);
	tally_destroy(t);
}

static void each_entry_is_counted_exactly_once(void)
{
	struct tally *t = tally_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	for (unsigned outcome = TALLY_ANSWERED + 1; outcome < TALLY_OUTCOMES; outcome++) {
		struct tally_entry entry = { .outcome = (enum tally_outcome)outcome, .status = 200 };
		tally_add(t, &entry);
	}
	struct tally_entry ok = answer_of(200, 1, "a"), busy = answer_of(503, 1, "a");
	tally_add(t, &ok);
	tally_add(t, &ok);
	tally_add(t, &busy);
	struct tally_totals totals = tally_totals(t, 200);
	CU_ASSERT_EQUAL(totals.answered, 3);
	CU_ASSERT_EQUAL(totals.failed, TALLY_OUTCOMES - 1);
	CU_ASSERT_EQUAL(totals.with_status, 2);
	CU_ASSERT_EQUAL(tally_totals(t, 503).with_status, 1);
	CU_ASSERT_EQUAL(tally_totals(t, -1).with_status, 0);
	CU_ASSERT_EQUAL(tally_totals(t, 600).with_status, 0);
	tally_destroy(t);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void percentiles_are_those_of_a_sorted_list_or_barely_worse(void)
{
	enum { COUNT = 5000 };
	static uint64_t latencies[COUNT];
	uint64_t random = 12345;
	for (unsigned round = 0; round < 20; round++) {
		struct tally *t = tally_create();
		CU_ASSERT_PTR_NOT_NULL_FATAL(t);
		for (size_t i = 0; i < COUNT; i++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			latencies[i] = (random >> 20) % (UINT64_C(1) << (2 * round));
			add_latency(t, latencies[i]);
		}
		qsort(latencies, COUNT, sizeof latencies[0], compare);
		for (uint64_t permille = 1; permille <= 1000; permille++) {
			uint64_t exact = latencies[(COUNT * permille + 999) / 1000 - 1];
			uint64_t found = tally_percentile_us(t, permille);
			if (found < exact || found > exact + exact / 500)
				CU_FAIL("a percentile is better than it was, or more than 0.2 % worse");
		}
		CU_ASSERT_EQUAL(tally_percentile_us(t, 1000), latencies[COUNT - 1]);
		tally_destroy(t);
	}
}

static void the_largest_latency_there_is_finds_a_drawer(void)
{
	struct tally *t = tally_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	add_latency(t, UINT64_MAX);
	CU_ASSERT_TRUE(tally_percentile_us(t, 500) > 0);
	tally_destroy(t);
}

static void more_targets_than_there_is_room_for_are_counted_together(void)
{
	char *text = NULL, name[32];
	size_t length = 0;
	struct tally *t = tally_create();
	FILE *memory = open_memstream(&text, &length);
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
	for (int i = 0; i < 70; i++) {
		snprintf(name, sizeof name, "target%d", i);
		struct tally_entry entry = answer_of(200, 1, name);
		tally_add(t, &entry);
	}
	tally_print_json(t, memory, 1000000);
	fclose(memory);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"target63\":1}"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"other_targets\":6,"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"answered\":70,"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"rate\":70.000,"));
	free(text);
	tally_destroy(t);
}

static void *add_many(void *tally)
{
	for (int i = 0; i < 10000; i++) {
		add_latency(tally, 5);
		tally_add_connection(tally);
	}
	return NULL;
}

static void threads_lose_no_entry(void)
{
	pthread_t threads[4];
	struct tally *t = tally_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	for (size_t i = 0; i < 4; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, add_many, t), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(tally_totals(t, 200).with_status, 40000);
	tally_destroy(t);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(an_empty_tally_has_no_percentiles_and_no_counts),
		TEST(each_entry_is_counted_exactly_once),
		TEST(percentiles_are_those_of_a_sorted_list_or_barely_worse),
		TEST(the_largest_latency_there_is_finds_a_drawer),
		TEST(more_targets_than_there_is_room_for_are_counted_together),
		TEST(threads_lose_no_entry),
	};
	return unit_main("tally", tests, sizeof tests / sizeof tests[0]);
}
