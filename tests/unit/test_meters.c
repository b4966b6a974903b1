/* test_meters.c: counters in stripes, histograms, the last requests, and texts for those who read them. */
#include "lib/meters.h"

#include "lib/recent.h"
#include "lib/text.h"
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 8
#define ROUNDS 20000

static void *count_much(void *argument)
{
	struct meters *meters = argument;
	unsigned stripe = meters_stripe(meters);
	for (unsigned i = 0; i < ROUNDS; i++) {
		meters_count_status(meters, stripe, i % 2 == 0 ? 200 : 503);
		meters_count_time(meters, stripe, METER_TOTAL, 1000 + i % 7);
		meters_count_refusal(meters, i % 3 == 0 ? "threshold" : "client_rate");
	}
	return NULL;
}

static void nothing_is_lost_when_many_threads_count(void)
{
	struct meters *meters = meters_create();
	struct meters_report *report = malloc(sizeof *report);
	pthread_t threads[THREADS];
	uint64_t us = 0, refused = 0;
	CU_ASSERT_PTR_NOT_NULL_FATAL(meters);
	CU_ASSERT_PTR_NOT_NULL_FATAL(report);
	for (size_t i = 0; i < THREADS; i++)
		CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, count_much, meters), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < ROUNDS; i++)
		us += 1000 + i % 7;
	meters_report(meters, report);
	CU_ASSERT_EQUAL(report->classes[2], THREADS * ROUNDS / 2);
	CU_ASSERT_EQUAL(report->classes[5], THREADS * ROUNDS / 2);
	CU_ASSERT_EQUAL(report->times[METER_TOTAL].count, THREADS * ROUNDS);
	CU_ASSERT_EQUAL(report->times[METER_TOTAL].total_us, THREADS * us);
	CU_ASSERT_EQUAL(report->times[METER_WAIT].count, 0);
	CU_ASSERT_EQUAL(report->refusal_count, 2);
	for (size_t i = 0; i < report->refusal_count; i++)
		refused += report->refusals[i].count;
	CU_ASSERT_EQUAL(refused, THREADS * ROUNDS);
	free(report);
	meters_destroy(meters);
}

static void a_time_falls_into_the_first_bucket_that_is_not_shorter(void)
{
	struct meters *meters = meters_create();
	struct meters_report *report = calloc(1, sizeof *report);
	CU_ASSERT_PTR_NOT_NULL_FATAL(meters);
	CU_ASSERT_PTR_NOT_NULL_FATAL(report);
	for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
		meters_count_time(meters, 0, METER_WAIT, histogram_bounds_us[i]);
		meters_count_time(meters, 0, METER_WAIT, histogram_bounds_us[i] + 1);
	}
	meters_count_time(meters, 0, METER_WAIT, 0);
	meters_report(meters, report);
	CU_ASSERT_EQUAL(report->times[METER_WAIT].buckets[0], 2);
	for (size_t i = 1; i < HISTOGRAM_BOUNDS; i++)
		CU_ASSERT_EQUAL(report->times[METER_WAIT].buckets[i], 2);
	CU_ASSERT_EQUAL(report->times[METER_WAIT].buckets[HISTOGRAM_BOUNDS], 1);
	free(report);
	meters_destroy(meters);
}

static void statuses_that_are_none_are_counted_as_no_answer(void)
{
	static const int odd[] = { 0, 99, 600, -1, 1000 };
	struct meters *meters = meters_create();
	struct meters_report *report = calloc(1, sizeof *report);
	CU_ASSERT_PTR_NOT_NULL_FATAL(meters);
	CU_ASSERT_PTR_NOT_NULL_FATAL(report);
	for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
		meters_count_status(meters, 3, odd[i]);
	meters_report(meters, report);
	CU_ASSERT_EQUAL(report->classes[0], sizeof odd / sizeof odd[0]);
	free(report);
	meters_destroy(meters);
}

static void limits_beyond_the_last_place_are_counted_as_other(void)
{
	struct meters *meters = meters_create();
	struct meters_report *report = calloc(1, sizeof *report);
	char name[32];
	CU_ASSERT_PTR_NOT_NULL_FATAL(meters);
	CU_ASSERT_PTR_NOT_NULL_FATAL(report);
	for (unsigned i = 0; i < METER_LIMITS_MAX + 10; i++) {
		snprintf(name, sizeof name, "limit.n%u", i);
		meters_count_refusal(meters, name);
	}
	meters_report(meters, report);
	CU_ASSERT_EQUAL(report->refusal_count, METER_LIMITS_MAX);
	CU_ASSERT_STRING_EQUAL(report->refusals[METER_LIMITS_MAX - 1].name, "other");
	CU_ASSERT_EQUAL(report->refusals[METER_LIMITS_MAX - 1].count, 11);
	free(report);
	meters_destroy(meters);
}

static void a_quantile_lies_in_the_bucket_that_holds_it(void)
{
	struct histogram_sum sum = { .count = 0 };
	CU_ASSERT_EQUAL(histogram_quantile_us(&sum, 0.5), 0);
	sum.buckets[3] = 90; /* over 2,500 to 5,000 us */
	sum.buckets[6] = 10; /* over 25,000 to 50,000 us */
	sum.count = 100;
	CU_ASSERT_TRUE(histogram_quantile_us(&sum, 0.5) > 2500 && histogram_quantile_us(&sum, 0.5) <= 5000);
	CU_ASSERT_TRUE(histogram_quantile_us(&sum, 0.95) > 25000 && histogram_quantile_us(&sum, 0.95) <= 50000);
	sum.buckets[HISTOGRAM_BOUNDS] = 1000;
	sum.count = 1100;
	CU_ASSERT_EQUAL(histogram_quantile_us(&sum, 0.99), histogram_bounds_us[HISTOGRAM_BOUNDS - 1]);
}

/* ---- the last requests ---- */

static void nobody_looking_nothing_is_wanted(void)
{
	struct recent *recent = recent_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(recent);
	for (int i = 0; i < 1000; i++)
		CU_ASSERT_FALSE(recent_wants(recent, RECENT_GOOD));
	recent_ask(recent, 3);
	unsigned taken[RECENT_KINDS] = { 0 };
	for (int i = 0; i < 1000; i++)
		for (int kind = 0; kind < RECENT_KINDS; kind++)
			taken[kind] += recent_wants(recent, (enum recent_kind)kind);
	CU_ASSERT_EQUAL(taken[RECENT_GOOD], 3);
	CU_ASSERT_EQUAL(taken[RECENT_BAD], 3);
	recent_ask(recent, 2);
	CU_ASSERT_TRUE(recent_wants(recent, RECENT_BAD));
	recent_destroy(recent);
}

static void the_latest_are_read_oldest_first_and_by_number(void)
{
	struct recent *recent = recent_create();
	struct recent_record *out = calloc(RECENT_MAX + 1, sizeof *out);
	struct recent_record record = { .status = 0 };
	CU_ASSERT_PTR_NOT_NULL_FATAL(recent);
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	CU_ASSERT_EQUAL(recent_read(recent, 0, out, RECENT_MAX), 0);
	for (int i = 1; i <= RECENT_MAX + 50; i++) {
		record.status = i;
		recent_add(recent, &record);
	}
	CU_ASSERT_EQUAL(recent_read(recent, 0, out, RECENT_MAX + 1), RECENT_MAX);
	CU_ASSERT_EQUAL(out[0].number, 51);
	CU_ASSERT_EQUAL(out[RECENT_MAX - 1].status, RECENT_MAX + 50);
	CU_ASSERT_EQUAL(recent_read(recent, RECENT_MAX + 47, out, RECENT_MAX), 3);
	CU_ASSERT_EQUAL(out[0].number, RECENT_MAX + 48);
	CU_ASSERT_EQUAL(recent_read(recent, 0, out, 5), 5);
	CU_ASSERT_EQUAL(out[4].number, RECENT_MAX + 50);
	CU_ASSERT_EQUAL(recent_read(recent, UINT64_MAX, out, 5), 0);
	free(out);
	recent_destroy(recent);
}

/* ---- texts ---- */

static bool becomes(const char *bytes, size_t length, const char *wanted)
{
	char out[64];
	text_clean(bytes, length, out, sizeof out);
	return strcmp(out, wanted) == 0;
}

static void what_is_no_utf_8_becomes_question_marks(void)
{
	CU_ASSERT_TRUE(becomes("plain", 5, "plain"));
	CU_ASSERT_TRUE(becomes("K\xc3\xb6ln \xe2\x82\xac \xf0\x9f\x98\x80", 14, "K\xc3\xb6ln \xe2\x82\xac \xf0\x9f\x98\x80"));
	CU_ASSERT_TRUE(becomes("a\nb\0c\x1b[1m\x7f", 10, "a?b?c?[1m?"));
	CU_ASSERT_TRUE(becomes("\xc0\xaf", 2, "??"));         /* / written too long */
	CU_ASSERT_TRUE(becomes("\xe0\x80\xaf", 3, "???"));
	CU_ASSERT_TRUE(becomes("\xed\xa0\x80", 3, "???"));    /* a surrogate */
	CU_ASSERT_TRUE(becomes("\xf4\x90\x80\x80", 4, "????")); /* over 0x10ffff */
	CU_ASSERT_TRUE(becomes("\xc2\x85", 2, "??"));         /* a control character */
	CU_ASSERT_TRUE(becomes("\xe2\x82", 2, "??"));         /* cut */
	CU_ASSERT_TRUE(becomes("\xff", 1, "?"));
}

static void a_cut_never_divides_a_character(void)
{
	char out[4];
	text_clean("ab\xc3\xb6", 4, out, sizeof out);
	CU_ASSERT_STRING_EQUAL(out, "ab");
	text_clean("a\xc3\xb6z", 4, out, sizeof out);
	CU_ASSERT_STRING_EQUAL(out, "a\xc3\xb6");
}

static void a_text_grows_and_keeps_what_it_has(void)
{
	struct text text = { .bytes = NULL };
	for (int i = 0; i < 5000; i++)
		text_add(&text, "%d,", i % 10);
	CU_ASSERT_FALSE(text.has_failed);
	CU_ASSERT_EQUAL(text.length, 10000);
	CU_ASSERT_EQUAL(strlen(text.bytes), 10000);
	CU_ASSERT_EQUAL(memcmp(text.bytes + 9996, "8,9,", 4), 0);
	text_free(&text);
	CU_ASSERT_PTR_NULL(text.bytes);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(nothing_is_lost_when_many_threads_count),
		TEST(a_time_falls_into_the_first_bucket_that_is_not_shorter),
		TEST(statuses_that_are_none_are_counted_as_no_answer),
		TEST(limits_beyond_the_last_place_are_counted_as_other),
		TEST(a_quantile_lies_in_the_bucket_that_holds_it),
		TEST(nobody_looking_nothing_is_wanted),
		TEST(the_latest_are_read_oldest_first_and_by_number),
		TEST(what_is_no_utf_8_becomes_question_marks),
		TEST(a_cut_never_divides_a_character),
		TEST(a_text_grows_and_keeps_what_it_has),
	};
	return unit_main("meters", tests, sizeof tests / sizeof tests[0]);
}
