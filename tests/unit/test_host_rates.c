/* Tests of host_rates.c: which hosts have a limiter, and for how long. Time is made up. */
#include "host_rates.h"
#include "lib/clock.h"
#include "lib/thread.h"
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define T (1000 * US_PER_S)

static void no_wake(struct limiter_ticket *ticket)
{
	(void)ticket;
}

static struct host_rates *make(unsigned count, uint64_t window_us)
{
	struct host_rates_options options = { .rate = { count, window_us } };
	struct host_rates *rates = host_rates_create(&options, no_wake);
	CU_ASSERT_PTR_NOT_NULL_FATAL(rates);
	return rates;
}

static void set_rate(struct host_rates *rates, unsigned count, uint64_t window_us, uint64_t now_us)
{
	struct host_rates_options options = { .rate = { count, window_us } };
	CU_ASSERT_EQUAL(host_rates_configure(rates, &options, now_us), 0);
}

/* Starts one request, if it may start now. */
static bool start(struct host_rates *rates, const char *name, uint64_t now_us)
{
	struct host_rates_hold hold;
	struct limiter_ticket ticket;
	if (host_rates_take(rates, name, now_us, &hold) != HOST_RATES_HELD)
		return false;
	memset(&ticket, 0, sizeof ticket);
	bool may = limiter_enter(hold.limiter, &ticket, 0, now_us) == LIMITER_GO;
	if (may)
		limiter_started(hold.limiter, &ticket, now_us);
	host_rates_release(rates, &hold);
	return may;
}

static size_t hosts_of(struct host_rates *rates)
{
	struct host_rates_report report;
	host_rates_report(rates, &report);
	return report.hosts;
}

static void each_host_has_a_rate_of_its_own(void)
{
	struct host_rates *rates = make(2, US_PER_S);
	CU_ASSERT_TRUE(start(rates, "a", T));
	CU_ASSERT_TRUE(start(rates, "a", T));
	CU_ASSERT_FALSE(start(rates, "a", T));
	CU_ASSERT_TRUE(start(rates, "b", T));
	CU_ASSERT_FALSE(start(rates, "a", T + US_PER_S / 2));
	CU_ASSERT_TRUE(start(rates, "a", T + 2 * US_PER_S));
	host_rates_destroy(rates);
}

static void a_host_without_a_rate_has_no_limiter(void)
{
	struct settings_host_rate items[] = { { "z", { 5, US_PER_S } }, { "free", { 0, US_PER_S } }, { "a:81", { 1, US_PER_S } } };
	struct settings_host_rates overrides = { items, 3 };
	struct host_rates_options options = { .overrides = &overrides };
	struct host_rates *rates = host_rates_create(&options, no_wake);
	struct host_rates_hold hold;
	CU_ASSERT_PTR_NOT_NULL_FATAL(rates);
	CU_ASSERT_EQUAL(host_rates_take(rates, "other", T, &hold), HOST_RATES_NONE);
	CU_ASSERT_PTR_NULL(hold.entry);
	host_rates_release(rates, &hold); /* nothing is held: nothing happens */
	CU_ASSERT_EQUAL(host_rates_take(rates, "free", T, &hold), HOST_RATES_NONE);
	CU_ASSERT_EQUAL(hosts_of(rates), 0);
	CU_ASSERT_EQUAL(host_rates_take(rates, "z", T, &hold), HOST_RATES_HELD);
	CU_ASSERT_EQUAL(hold.rate.count, 5);
	host_rates_release(rates, &hold);
	CU_ASSERT_EQUAL(host_rates_take(rates, "a:81", T, &hold), HOST_RATES_HELD);
	CU_ASSERT_EQUAL(hold.rate.count, 1);
	host_rates_release(rates, &hold);
	host_rates_destroy(rates);
}

static void a_limiter_stays_until_its_window_has_passed(void)
{
	struct host_rates *rates = make(2, US_PER_S);
	CU_ASSERT_TRUE(start(rates, "a", T));
	host_rates_reap(rates, T + US_PER_S - 1);
	CU_ASSERT_EQUAL(hosts_of(rates), 1);
	CU_ASSERT_TRUE(start(rates, "a", T + US_PER_S - 1));
	CU_ASSERT_FALSE(start(rates, "a", T + US_PER_S - 1));
	host_rates_reap(rates, T + 3 * US_PER_S);
	CU_ASSERT_EQUAL(hosts_of(rates), 0);
	host_rates_destroy(rates);
}

static void a_limiter_stays_while_somebody_holds_it(void)
{
	struct host_rates *rates = make(1, US_PER_S);
	struct host_rates_hold first, second;
	CU_ASSERT_EQUAL(host_rates_take(rates, "a", T, &first), HOST_RATES_HELD);
	host_rates_reap(rates, T + 100 * US_PER_S);
	CU_ASSERT_EQUAL(host_rates_take(rates, "a", T + 100 * US_PER_S, &second), HOST_RATES_HELD);
	CU_ASSERT_PTR_EQUAL(first.limiter, second.limiter);
	host_rates_release(rates, &first);
	host_rates_reap(rates, T + 200 * US_PER_S);
	CU_ASSERT_EQUAL(hosts_of(rates), 1);
	host_rates_release(rates, &second);
	host_rates_reap(rates, T + 200 * US_PER_S);
	CU_ASSERT_EQUAL(hosts_of(rates), 0);
	host_rates_destroy(rates);
}

static void a_full_table_says_so_and_refills_nobody(void)
{
	struct host_rates *rates = make(1, US_PER_S);
	struct host_rates_hold hold;
	struct host_rates_report report;
	char name[32];
	for (unsigned i = 0; i < HOST_RATES_HOSTS_MAX; i++) {
		snprintf(name, sizeof name, "h%u", i);
		CU_ASSERT_TRUE_FATAL(start(rates, name, T));
	}
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "new%u", i);
		CU_ASSERT_EQUAL(host_rates_take(rates, name, T + i, &hold), HOST_RATES_FULL);
	}
	CU_ASSERT_FALSE(start(rates, "h0", T + 1000));
	host_rates_report(rates, &report);
	CU_ASSERT_EQUAL(report.hosts, HOST_RATES_HOSTS_MAX);
	CU_ASSERT_EQUAL(report.full_total, 1000);
	CU_ASSERT_TRUE(start(rates, "new", T + 2 * US_PER_S)); /* it made room for itself */
	CU_ASSERT_EQUAL(hosts_of(rates), 1);
	host_rates_destroy(rates);
}

static void large_rates_fill_the_table_by_their_slots(void)
{
	struct host_rates *rates = make(1000000, US_PER_S);
	struct host_rates_hold hold;
	char name[32];
	for (unsigned i = 0; i < HOST_RATES_SLOTS_MAX / 1000000; i++) {
		snprintf(name, sizeof name, "h%u", i);
		CU_ASSERT_TRUE(start(rates, name, T));
	}
	CU_ASSERT_EQUAL(host_rates_take(rates, "new", T, &hold), HOST_RATES_FULL);
	CU_ASSERT_TRUE(start(rates, "h0", T));
	host_rates_destroy(rates);
}

static void no_change_of_the_rate_refills_a_window(void)
{
	struct host_rates *rates = make(3, 3600 * US_PER_S);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_TRUE(start(rates, "a", T));
	set_rate(rates, 3, 3600 * US_PER_S, T + 1);
	CU_ASSERT_FALSE(start(rates, "a", T + 2));
	set_rate(rates, 5, 3600 * US_PER_S, T + 3);
	CU_ASSERT_TRUE(start(rates, "a", T + 4));
	CU_ASSERT_TRUE(start(rates, "a", T + 4));
	CU_ASSERT_FALSE(start(rates, "a", T + 4));
	set_rate(rates, 0, US_PER_S, T + 5); /* no limit … */
	CU_ASSERT_TRUE(start(rates, "a", T + 6));
	host_rates_reap(rates, T + 7);
	set_rate(rates, 3, 3600 * US_PER_S, T + 8); /* … and back again */
	CU_ASSERT_FALSE(start(rates, "a", T + 9));
	set_rate(rates, 0, US_PER_S, T + 10);
	host_rates_reap(rates, T + 4000 * US_PER_S);
	CU_ASSERT_EQUAL(hosts_of(rates), 0); /* a limit that was taken away is not remembered for ever */
	host_rates_destroy(rates);
}

static void a_shorter_window_in_between_refills_no_longer_one(void)
{
	struct host_rates *rates = make(3, 3600 * US_PER_S);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_TRUE(start(rates, "a", T));
	set_rate(rates, 3, US_PER_S, T + US_PER_S);
	host_rates_reap(rates, T + 10 * US_PER_S);
	set_rate(rates, 0, US_PER_S, T + 11 * US_PER_S); /* the shorter of two memories does not end the longer */
	host_rates_reap(rates, T + 20 * US_PER_S);
	set_rate(rates, 3, 3600 * US_PER_S, T + 21 * US_PER_S);
	CU_ASSERT_FALSE(start(rates, "a", T + 22 * US_PER_S));
	set_rate(rates, 3, US_PER_S, T + 23 * US_PER_S);
	host_rates_reap(rates, T + 4000 * US_PER_S);
	CU_ASSERT_EQUAL(hosts_of(rates), 0);
	host_rates_destroy(rates);
}

static void an_override_that_changes_is_that_of_its_host_alone(void)
{
	struct settings_host_rate items[] = { { "a", { 2, US_PER_S } } };
	struct settings_host_rates overrides = { items, 1 };
	struct host_rates_options options = { .rate = { 1, US_PER_S }, .overrides = &overrides };
	struct host_rates *rates = make(1, US_PER_S);
	CU_ASSERT_TRUE(start(rates, "a", T));
	CU_ASSERT_TRUE(start(rates, "b", T));
	CU_ASSERT_EQUAL(host_rates_configure(rates, &options, T), 0);
	CU_ASSERT_TRUE(start(rates, "a", T));
	CU_ASSERT_FALSE(start(rates, "a", T));
	CU_ASSERT_FALSE(start(rates, "b", T));
	host_rates_destroy(rates);
}

static void the_backlog_is_worth_so_many_seconds_of_the_rate(void)
{
	struct host_rates_options options = { .rate = { 2, US_PER_S }, .backlog_us = 3 * US_PER_S / 2 };
	struct host_rates *rates = host_rates_create(&options, no_wake);
	struct limiter_ticket tickets[6];
	struct host_rates_hold hold;
	CU_ASSERT_PTR_NOT_NULL_FATAL(rates);
	memset(tickets, 0, sizeof tickets);
	CU_ASSERT_EQUAL_FATAL(host_rates_take(rates, "a", T, &hold), HOST_RATES_HELD);
	static const enum limiter_answer wanted[6] = { LIMITER_GO, LIMITER_GO, LIMITER_WAIT, LIMITER_WAIT, LIMITER_WAIT, LIMITER_FULL };
	for (unsigned i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(limiter_enter(hold.limiter, &tickets[i], 0, T), wanted[i]);
	for (unsigned i = 0; i < 5; i++)
		limiter_cancel(hold.limiter, &tickets[i], T);
	host_rates_release(rates, &hold);
	host_rates_destroy(rates);
}

/* Four of these fill the table, as far as another such goes. */
#define LARGE 1000000u
#define LARGE_FIT (HOST_RATES_SLOTS_MAX / LARGE)

static unsigned count_of(struct host_rates *rates, const char *name)
{
	struct host_rates_hold hold;
	CU_ASSERT_EQUAL_FATAL(host_rates_take(rates, name, T, &hold), HOST_RATES_HELD);
	struct limiter_report report;
	limiter_report(hold.limiter, T, &report);
	CU_ASSERT_EQUAL(report.threshold, hold.rate.count);
	host_rates_release(rates, &hold);
	return report.threshold;
}

static void a_rate_that_all_hosts_have_no_room_for_is_refused_and_can_be_put_back(void)
{
	struct host_rates_options too_much = { .rate = { LARGE, US_PER_S } };
	struct host_rates *rates = make(1, US_PER_S);
	struct host_rates_report report;
	static const char *const names[] = { "a", "b", "c", "d", "e" };
	unsigned large = 0;
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_TRUE(start(rates, names[i], T));
	CU_ASSERT_EQUAL(host_rates_configure(rates, &too_much, T), -1);
	for (unsigned i = 0; i < 5; i++)
		large += count_of(rates, names[i]) == LARGE;
	CU_ASSERT_EQUAL(large, LARGE_FIT); /* no more than there is room for … */
	set_rate(rates, 1, US_PER_S, T);   /* … and who asked puts the old one back */
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_FALSE(start(rates, names[i], T));
	host_rates_report(rates, &report);
	CU_ASSERT_EQUAL(report.slots, 5);
	CU_ASSERT_EQUAL(host_rates_configure(rates, &too_much, T + 2 * US_PER_S), 0); /* hosts that matter no more make room */
	CU_ASSERT_EQUAL(hosts_of(rates), 0);
	host_rates_destroy(rates);
}

/* Which host stands before which in the table is a matter of chance: so it is done often. */
static void what_one_host_gives_up_is_there_for_another_in_any_order(void)
{
	struct settings_host_rate before[] = { { "a", { LARGE, US_PER_S } }, { "b", { LARGE, US_PER_S } }, { "c", { LARGE, US_PER_S } },
		                               { "d", { LARGE, US_PER_S } } };
	struct settings_host_rate after[] = { { "b", { LARGE, US_PER_S } }, { "c", { LARGE, US_PER_S } }, { "d", { LARGE, US_PER_S } },
		                              { "e", { LARGE, US_PER_S } } };
	struct settings_host_rates old = { before, LARGE_FIT }, new = { after, LARGE_FIT };
	struct host_rates_options options[] = { { .rate = { 1, US_PER_S }, .overrides = &old }, { .rate = { 1, US_PER_S }, .overrides = &new } };
	static const char *const names[] = { "a", "b", "c", "d", "e" };
	for (unsigned round = 0; round < 20; round++) {
		struct host_rates *rates = host_rates_create(&options[0], no_wake);
		CU_ASSERT_PTR_NOT_NULL_FATAL(rates);
		for (unsigned i = 0; i < 5; i++)
			CU_ASSERT_TRUE(start(rates, names[i], T));
		CU_ASSERT_EQUAL(host_rates_configure(rates, &options[1], T), 0);
		CU_ASSERT_EQUAL(count_of(rates, "a"), 1);
		CU_ASSERT_EQUAL(count_of(rates, "e"), LARGE);
		CU_ASSERT_EQUAL(host_rates_configure(rates, &options[0], T), 0);
		CU_ASSERT_EQUAL(count_of(rates, "a"), LARGE);
		CU_ASSERT_EQUAL(count_of(rates, "e"), 1);
		host_rates_destroy(rates);
	}
}

static void *crowd_body(void *argument)
{
	struct host_rates *rates = argument;
	for (unsigned i = 0; i < 2000; i++) {
		char name[8];
		snprintf(name, sizeof name, "h%u", i % 50);
		start(rates, name, T + i * US_PER_MS * 100);
		if (i % 64 == 0)
			host_rates_reap(rates, T + i * US_PER_MS * 100);
		if (i % 500 == 0)
			set_rate(rates, 1 + i / 500, US_PER_S, T + i * US_PER_MS * 100);
	}
	return NULL;
}

static void many_threads_leave_nothing_behind(void)
{
	struct host_rates *rates = make(3, US_PER_S);
	pthread_t threads[4];
	for (size_t i = 0; i < 4; i++)
		CU_ASSERT_EQUAL_FATAL(thread_start(&threads[i], crowd_body, rates), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	host_rates_reap(rates, T + 1000 * US_PER_S);
	CU_ASSERT_EQUAL(hosts_of(rates), 0);
	host_rates_destroy(rates);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(each_host_has_a_rate_of_its_own),
		TEST(a_host_without_a_rate_has_no_limiter),
		TEST(a_limiter_stays_until_its_window_has_passed),
		TEST(a_limiter_stays_while_somebody_holds_it),
		TEST(a_full_table_says_so_and_refills_nobody),
		TEST(large_rates_fill_the_table_by_their_slots),
		TEST(no_change_of_the_rate_refills_a_window),
		TEST(a_shorter_window_in_between_refills_no_longer_one),
		TEST(an_override_that_changes_is_that_of_its_host_alone),
		TEST(the_backlog_is_worth_so_many_seconds_of_the_rate),
		TEST(a_rate_that_all_hosts_have_no_room_for_is_refused_and_can_be_put_back),
		TEST(what_one_host_gives_up_is_there_for_another_in_any_order),
		TEST(many_threads_leave_nothing_behind),
	};
	return unit_main("host_rates", tests, sizeof tests / sizeof tests[0]);
}
