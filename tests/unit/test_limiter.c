/* test_limiter.c: when a request may start, as a specification. All time is made up.
 *
 * The small tests give one rule each. Then a model (slots in a plain array, searched anew each time) is compared with
 * the limiter over random histories, and a simulation lets hundreds of clients loop through it, all of them late in
 * waking and in sending, to show the two promises: never more than the threshold in any window, and never less than
 * 99 % of it.
 */
#include "../../limiter.h"
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000u
#define GUARD 4000u
#define ROUND (SECOND + GUARD)
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static void count_wake(struct limiter_ticket *ticket)
{
	if (ticket->owner != NULL)
		++*(unsigned *)ticket->owner;
}

static struct limiter_options options_of(unsigned threshold, unsigned backlog)
{
	return (struct limiter_options){ .threshold = threshold, .window_us = SECOND, .backlog = backlog };
}

static struct limiter *make(unsigned threshold, unsigned backlog)
{
	struct limiter_options options = options_of(threshold, backlog);

	return limiter_create(&options, count_wake);
}

static struct limiter *make_fair(unsigned threshold, unsigned backlog)
{
	struct limiter_options options = options_of(threshold, backlog);

	options.queue = LIMITER_FAIR;
	return limiter_create(&options, count_wake);
}

/* A request that may start and does, at once. */
static bool starts(struct limiter *l, uint64_t now_us)
{
	struct limiter_ticket ticket = { .owner = NULL };
	enum limiter_answer answer = limiter_enter(l, &ticket, 0, now_us);

	if (answer == LIMITER_GO)
		limiter_started(l, &ticket, now_us);
	else if (answer == LIMITER_WAIT)
		limiter_cancel(l, &ticket, now_us);
	return answer == LIMITER_GO;
}

static unsigned count_starts(struct limiter *l, unsigned tries, uint64_t now_us)
{
	unsigned count = 0;

	for (unsigned i = 0; i < tries; i++)
		count += starts(l, now_us);
	return count;
}

static struct limiter_report report_of(struct limiter *l, uint64_t now_us)
{
	struct limiter_report report;

	limiter_report(l, now_us, &report);
	return report;
}

static enum limiter_answer turn(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	uint64_t wake_us;

	return limiter_turn(l, ticket, now_us, &wake_us);
}

static uint64_t wake_of(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	uint64_t wake_us;

	CU_ASSERT_EQUAL(limiter_turn(l, ticket, now_us, &wake_us), LIMITER_WAIT);
	return wake_us;
}

/* ---- the window ------------------------------------------------------------ */

static void a_threshold_of_nought_is_no_limit(void)
{
	struct limiter *l = make(0, 0);

	CU_ASSERT_EQUAL(count_starts(l, 10, 0), 10);
	CU_ASSERT_EQUAL(count_starts(l, 990, 5), 990);
	CU_ASSERT_EQUAL(report_of(l, 5).started_total, 1000);
	CU_ASSERT_EQUAL(report_of(l, 5).next_slot_us, 5);
	CU_ASSERT_EQUAL(report_of(l, 5).outstanding, 0);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 5), 0);
	limiter_destroy(l);
}

static void a_slot_is_free_again_one_window_and_the_guard_after_its_start(void)
{
	struct limiter *l = make(5, 0);

	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_TRUE(starts(l, 100 + i * 10));
	CU_ASSERT_EQUAL(count_starts(l, 5, 200), 0);
	CU_ASSERT_EQUAL(report_of(l, 200).next_slot_us, 100 + ROUND);
	CU_ASSERT_EQUAL(report_of(l, 200).refused_total, 5);
	CU_ASSERT_EQUAL(count_starts(l, 2, 99 + ROUND), 0);
	CU_ASSERT_EQUAL(count_starts(l, 5, 100 + ROUND), 1);
	CU_ASSERT_EQUAL(report_of(l, 130 + ROUND).available, 3);
	CU_ASSERT_EQUAL(count_starts(l, 5, 140 + ROUND), 4);
	limiter_destroy(l);
}

static void the_window_counts_from_the_send_not_from_the_permission(void)
{
	struct limiter *l = make(1, 0);
	struct limiter_ticket ticket = { .owner = NULL };

	CU_ASSERT_EQUAL(limiter_enter(l, &ticket, 0, 0), LIMITER_GO);
	CU_ASSERT_EQUAL(report_of(l, 3 * SECOND).next_slot_us, UINT64_MAX);
	CU_ASSERT_EQUAL(count_starts(l, 1, 3 * SECOND), 0); /* it may still be sent */
	limiter_started(l, &ticket, 3 * SECOND);
	CU_ASSERT_EQUAL(count_starts(l, 1, 3 * SECOND + ROUND - 1), 0);
	CU_ASSERT_EQUAL(count_starts(l, 1, 3 * SECOND + ROUND), 1);
	limiter_destroy(l);
}

static void a_slow_rate_is_one_start_in_a_long_window(void)
{
	struct limiter_options half_a_second = { .threshold = 1, .window_us = 2 * SECOND };
	struct limiter *l = limiter_create(&half_a_second, count_wake);

	CU_ASSERT_EQUAL(count_starts(l, 3, 1), 1);
	CU_ASSERT_EQUAL(count_starts(l, 3, 2 * SECOND + GUARD), 0);
	CU_ASSERT_EQUAL(count_starts(l, 3, 2 * SECOND + GUARD + 1), 1);
	limiter_destroy(l);
}

static void a_slot_that_is_handed_back_is_used_once_more_and_only_once(void)
{
	struct limiter *l = make(3, 0);
	struct limiter_ticket tickets[3] = { { .owner = NULL } };

	for (size_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &tickets[i], 0, 10), LIMITER_GO);
	CU_ASSERT_EQUAL(report_of(l, 10).outstanding, 3);
	limiter_started(l, &tickets[1], 10);
	limiter_cancel(l, &tickets[0], 20);
	limiter_cancel(l, &tickets[2], 20);
	limiter_cancel(l, &tickets[2], 20); /* a second time: nothing to give back */
	CU_ASSERT_EQUAL(report_of(l, 20).available, 2);
	CU_ASSERT_EQUAL(report_of(l, 20).cancelled_total, 2);
	CU_ASSERT_EQUAL(count_starts(l, 5, 30), 2);
	CU_ASSERT_EQUAL(count_starts(l, 5, 10 + ROUND), 1);
	limiter_destroy(l);
}

/* ---- the line ------------------------------------------------------------ */

/* The ring begins somewhere else each time: what goes back to the front must not lie down on a start. */
static void a_slot_that_is_handed_back_forgets_no_start_wherever_the_ring_begins(void)
{
	struct limiter *l = make(3, 0);
	struct limiter_ticket ticket = { .owner = NULL };

	for (uint64_t now_us = 0; now_us < 20 * SECOND; now_us += 2 * SECOND) {
		CU_ASSERT_TRUE(starts(l, now_us));
		CU_ASSERT_EQUAL(limiter_enter(l, &ticket, 0, now_us), LIMITER_GO);
		limiter_cancel(l, &ticket, now_us);
		CU_ASSERT_EQUAL(report_of(l, now_us).available, 2);
	}
	limiter_destroy(l);
}

static void exactly_the_backlog_may_wait(void)
{
	struct limiter *l = make(2, 3);
	struct limiter_ticket tickets[7] = { { .owner = NULL } };

	for (size_t i = 0; i < 7; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &tickets[i], 0, 0),
		                i < 2 ? LIMITER_GO : i < 5 ? LIMITER_WAIT : LIMITER_FULL);
	CU_ASSERT_EQUAL(report_of(l, 0).waiting, 3);
	CU_ASSERT_EQUAL(report_of(l, 0).refused_total, 2);
	for (size_t i = 0; i < 5; i++)
		limiter_cancel(l, &tickets[i], 1);
	CU_ASSERT_EQUAL(report_of(l, 1).waiting, 0);
	CU_ASSERT_EQUAL(report_of(l, 1).available, 2);
	limiter_destroy(l);
}

static void who_arrives_does_not_overtake_who_waits(void)
{
	struct limiter *l = make(1, 5);
	struct limiter_ticket first = { .owner = NULL }, second = { .owner = NULL }, third = { .owner = NULL };

	CU_ASSERT_TRUE(starts(l, 1));
	CU_ASSERT_EQUAL(limiter_enter(l, &first, 0, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &second, 0, 2), LIMITER_WAIT);
	/* The slot that is free now is not for it. */
	CU_ASSERT_EQUAL(limiter_enter(l, &third, 0, ROUND + 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &third, ROUND + 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &second, ROUND + 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &first, ROUND + 1), LIMITER_GO);
	limiter_started(l, &first, ROUND + 1);
	CU_ASSERT_EQUAL(turn(l, &third, 2 * ROUND + 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &second, 2 * ROUND + 1), LIMITER_GO);
	limiter_cancel(l, &second, 2 * ROUND + 1);
	CU_ASSERT_EQUAL(turn(l, &third, 2 * ROUND + 1), LIMITER_GO);
	limiter_cancel(l, &third, 2 * ROUND + 1);
	limiter_destroy(l);
}

static void only_the_front_waits_by_the_clock(void)
{
	struct limiter *l = make(1, 5);
	unsigned first_wakes = 0, second_wakes = 0;
	struct limiter_ticket first = { .owner = &first_wakes }, second = { .owner = &second_wakes };

	starts(l, 7);
	limiter_enter(l, &first, 0, 8);
	limiter_enter(l, &second, 0, 9);
	CU_ASSERT_EQUAL(wake_of(l, &first, 10), 7 + ROUND);
	CU_ASSERT_EQUAL(wake_of(l, &second, 10), UINT64_MAX);
	CU_ASSERT_EQUAL(first_wakes + second_wakes, 0);
	limiter_cancel(l, &first, 20); /* hangs up: the one behind moves up, and must hear of it */
	CU_ASSERT_EQUAL(second_wakes, 1);
	CU_ASSERT_EQUAL(wake_of(l, &second, 21), 7 + ROUND);
	limiter_cancel(l, &second, 22);
	CU_ASSERT_EQUAL(first_wakes, 0);
	limiter_destroy(l);
}

/* "Counted and never refused": it waits its turn, and the window stays exact. */
static void who_is_exempt_waits_behind_a_full_line_and_is_not_refused(void)
{
	struct limiter *l = make(1, 1);
	struct limiter_ticket first = { .owner = NULL }, other = { .owner = NULL };
	struct limiter_ticket exempt = { .owner = NULL, .is_exempt = true };

	starts(l, 7);
	CU_ASSERT_EQUAL(limiter_enter(l, &first, 0, 8), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &other, 0, 9), LIMITER_FULL);
	CU_ASSERT_EQUAL(limiter_enter(l, &exempt, 0, 10), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &exempt, 7 + ROUND - 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &first, 7 + ROUND), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &exempt, 7 + ROUND), LIMITER_WAIT); /* no sooner than anybody else */
	limiter_started(l, &first, 7 + ROUND);
	CU_ASSERT_EQUAL(turn(l, &exempt, 7 + 2 * ROUND), LIMITER_GO);
	limiter_cancel(l, &exempt, 7 + 2 * ROUND);
	limiter_destroy(l);
}

static void one_call_serves_everybody_whose_slot_is_free(void)
{
	struct limiter *l = make(3, 10);
	unsigned wakes[5] = { 0 };
	struct limiter_ticket tickets[5] = { { .owner = NULL } };

	CU_ASSERT_EQUAL(count_starts(l, 3, 1), 3);
	for (size_t i = 0; i < 5; i++) {
		tickets[i] = (struct limiter_ticket){ .owner = &wakes[i] };
		limiter_enter(l, &tickets[i], 0, 2);
		wake_of(l, &tickets[i], 2);
	}
	CU_ASSERT_EQUAL(turn(l, &tickets[0], ROUND + 1), LIMITER_GO);
	CU_ASSERT_EQUAL(wakes[0], 0); /* it knows */
	CU_ASSERT_EQUAL(wakes[1], 1);
	CU_ASSERT_EQUAL(wakes[2], 1);
	CU_ASSERT_EQUAL(wakes[3], 1); /* the new front, to learn when */
	CU_ASSERT_EQUAL(wakes[4], 0);
	CU_ASSERT_EQUAL(wake_of(l, &tickets[3], ROUND + 1), UINT64_MAX); /* nobody knows: three are on their way */
	limiter_cancel(l, &tickets[1], ROUND + 5);                   /* told GO or not, its slot goes on */
	CU_ASSERT_EQUAL(wakes[3], 2);
	CU_ASSERT_EQUAL(turn(l, &tickets[3], ROUND + 5), LIMITER_GO);
	CU_ASSERT_EQUAL(wakes[4], 1);
	CU_ASSERT_EQUAL(wake_of(l, &tickets[4], ROUND + 5), UINT64_MAX);
	limiter_started(l, &tickets[0], ROUND + 9); /* now it is known */
	CU_ASSERT_EQUAL(wakes[4], 2);
	CU_ASSERT_EQUAL(wake_of(l, &tickets[4], ROUND + 9), 2 * ROUND + 9);
	limiter_cancel(l, &tickets[2], ROUND + 9);
	CU_ASSERT_EQUAL(turn(l, &tickets[4], ROUND + 9), LIMITER_GO);
	limiter_cancel(l, &tickets[3], ROUND + 9);
	limiter_cancel(l, &tickets[4], ROUND + 9);
	CU_ASSERT_EQUAL(report_of(l, ROUND + 9).available, 2);
	CU_ASSERT_EQUAL(report_of(l, ROUND + 9).outstanding, 0);
	limiter_destroy(l);
}

/* ---- clients in turn ------------------------------------------------------------ */

static void fair_clients_take_turns_and_a_single_request_is_not_held_up_by_a_thousand(void)
{
	static struct limiter_ticket greedy[1000];
	struct limiter *l = make_fair(2, 2000);
	struct limiter_ticket polite = { .owner = NULL }, second_polite = { .owner = NULL };

	CU_ASSERT_EQUAL(count_starts(l, 2, 1), 2);
	for (size_t i = 0; i < LENGTH(greedy); i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &greedy[i], 1, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &polite, 2, 2), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &polite, ROUND + 1), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &greedy[0], ROUND + 1), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &greedy[1], ROUND + 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &second_polite, 2, ROUND + 1), LIMITER_WAIT);
	limiter_started(l, &greedy[0], ROUND + 1);
	limiter_cancel(l, &polite, ROUND + 1); /* goes to the greedy one's next: it is its turn */
	CU_ASSERT_EQUAL(turn(l, &greedy[1], ROUND + 1), LIMITER_GO);
	limiter_cancel(l, &greedy[1], ROUND + 1);
	CU_ASSERT_EQUAL(turn(l, &second_polite, ROUND + 1), LIMITER_GO);
	limiter_cancel(l, &second_polite, ROUND + 1);
	for (size_t i = 2; i < LENGTH(greedy); i++)
		limiter_cancel(l, &greedy[i], ROUND + 1);
	CU_ASSERT_EQUAL(report_of(l, ROUND + 1).waiting, 0);
	limiter_destroy(l);
}

static void a_full_fair_line_takes_from_the_longest_to_give_to_a_shorter(void)
{
	struct limiter *l = make_fair(1, 4);
	unsigned wakes[8] = { 0 };
	struct limiter_ticket t[8] = { { .owner = NULL } };

	starts(l, 0);
	for (size_t i = 0; i < 8; i++)
		t[i] = (struct limiter_ticket){ .owner = &wakes[i] };
	for (size_t i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &t[i], 1, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[4], 1, 1), LIMITER_FULL); /* the longest gets no more */
	CU_ASSERT_EQUAL(limiter_enter(l, &t[5], 2, 1), LIMITER_WAIT); /* 4 + 0 become 3 + 1 */
	CU_ASSERT_EQUAL(wakes[3], 1);
	CU_ASSERT_EQUAL(turn(l, &t[3], 1), LIMITER_FULL);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[6], 2, 1), LIMITER_WAIT); /* 2 + 2 */
	CU_ASSERT_EQUAL(turn(l, &t[2], 1), LIMITER_FULL);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[7], 2, 1), LIMITER_FULL);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[7], 3, 1), LIMITER_WAIT); /* 2 + 1 + 1 in some order */
	CU_ASSERT_EQUAL(report_of(l, 1).waiting, 4);
	CU_ASSERT_EQUAL(report_of(l, 1).refused_total, 5);
	limiter_cancel(l, &t[3], 1); /* harmless: it has nothing */
	CU_ASSERT_EQUAL(report_of(l, 1).cancelled_total, 0);
	for (size_t i = 0; i < 8; i++)
		limiter_cancel(l, &t[i], 1);
	CU_ASSERT_EQUAL(report_of(l, 1).waiting, 0);
	limiter_destroy(l);
}

static void of_two_lines_of_one_length_one_is_the_longest_when_the_other_shrinks(void)
{
	struct limiter *l = make_fair(1, 4);
	unsigned wakes[6] = { 0 };
	struct limiter_ticket t[6] = { { .owner = NULL } };
	static const uint64_t clients[6] = { 1, 1, 2, 2, 3, 4 };

	starts(l, 0);
	for (size_t i = 0; i < 6; i++) {
		t[i] = (struct limiter_ticket){ .owner = &wakes[i] };
		if (i == 4)
			limiter_cancel(l, &t[3], 1); /* the second's line is one long now, the first's still two */
		CU_ASSERT_EQUAL(limiter_enter(l, &t[i], clients[i], 1), LIMITER_WAIT);
	}
	CU_ASSERT_EQUAL(turn(l, &t[1], 1), LIMITER_FULL); /* it gave way to the fourth's first */
	for (size_t i = 0; i < 6; i++)
		limiter_cancel(l, &t[i], 1);
	limiter_destroy(l);
}

static void clients_that_wait_for_one_request_each_do_not_push_each_other_out(void)
{
	struct limiter *l = make_fair(1, 2);
	struct limiter_ticket t[3] = { { .owner = NULL } };

	starts(l, 0);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[0], 1, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[1], 2, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[2], 3, 1), LIMITER_FULL);
	limiter_cancel(l, &t[0], 1);
	limiter_cancel(l, &t[1], 1);
	limiter_destroy(l);
}

static void who_is_exempt_is_not_pushed_out_for_a_shorter_line(void)
{
	struct limiter *l = make_fair(1, 2);
	struct limiter_ticket t[4] = { { .owner = NULL }, { .is_exempt = true }, { .owner = NULL }, { .owner = NULL } };

	starts(l, 0);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[0], 1, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[1], 1, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[2], 2, 1), LIMITER_FULL); /* the newest of the longest is the exempt one */
	limiter_cancel(l, &t[1], 1);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[1], 2, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(report_of(l, 1).waiting, 2);
	limiter_cancel(l, &t[0], 1);
	limiter_cancel(l, &t[1], 1);
	limiter_destroy(l);
}

/* So many that some share a place in the table of clients; half of them leave, and come back behind the others. */
static void thousands_of_clients_each_keep_their_own_place(void)
{
	enum { CLIENTS = 3000 };
	static struct limiter_ticket t[CLIENTS];
	struct limiter *l = make_fair(1, CLIENTS);
	uint64_t now_us = 1;

	memset(t, 0, sizeof(t));
	starts(l, now_us);
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t i = round; i < CLIENTS; i += 1 + round)
			CU_ASSERT_EQUAL(limiter_enter(l, &t[i], i * i + 1, 1), LIMITER_WAIT);
		for (uint64_t i = 1; i < CLIENTS && round == 0; i += 2)
			limiter_cancel(l, &t[i], 1);
	}
	CU_ASSERT_EQUAL(report_of(l, 1).waiting, CLIENTS);
	for (unsigned i = 0; i < CLIENTS; i++) {
		unsigned next = i < CLIENTS / 2 ? 2 * i : 2 * (i - CLIENTS / 2) + 1;

		now_us += ROUND;
		CU_ASSERT_EQUAL(turn(l, &t[next], now_us), LIMITER_GO);
		limiter_started(l, &t[next], now_us);
	}
	CU_ASSERT_EQUAL(report_of(l, now_us).waiting, 0);
	limiter_destroy(l);
}

static void what_has_no_slot_is_never_counted_as_started(void)
{
	struct limiter *l = make(1, 1);
	struct limiter_ticket t[2] = { { .owner = NULL } };

	CU_ASSERT_EQUAL(limiter_enter(l, &t[0], 0, 1), LIMITER_GO);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[1], 0, 1), LIMITER_WAIT);
	limiter_started(l, &t[0], 2);
	limiter_started(l, &t[0], 3); /* a second time */
	CU_ASSERT_TRUE(limiter_may_start(l, &t[0], 4)); /* it has no slot that could be over */
	limiter_cancel(l, &t[0], 4);
	CU_ASSERT_EQUAL(report_of(l, 4).started_total, 1);
	CU_ASSERT_EQUAL(report_of(l, 4).outstanding, 0);
	CU_ASSERT_EQUAL(report_of(l, 4).cancelled_total, 0);
	CU_ASSERT_EQUAL(turn(l, &t[1], 1 + ROUND), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &t[1], 2 + ROUND), LIMITER_GO);
	limiter_started(l, &t[1], 2 + ROUND);
	limiter_destroy(l);
}

/* ---- burst ------------------------------------------------------------ */

static void another_burst_goes_on_where_the_even_flow_was(void)
{
	struct limiter_options options = options_of(10, 0);

	options.burst = 3;
	struct limiter *l = limiter_create(&options, count_wake);
	CU_ASSERT_EQUAL(count_starts(l, 10, SECOND), 3);
	options.burst = 2;
	CU_ASSERT_EQUAL(limiter_configure(l, &options, SECOND), 0);
	/* No gift, and no debt beyond a whole burst of the new size. */
	CU_ASSERT_EQUAL(report_of(l, SECOND).next_slot_us, SECOND + ROUND / 10);
	CU_ASSERT_FALSE(starts(l, SECOND + ROUND / 10 - 1));
	CU_ASSERT_TRUE(starts(l, SECOND + ROUND / 10));
	options.burst = 1;
	CU_ASSERT_EQUAL(limiter_configure(l, &options, 10 * SECOND), 0);
	CU_ASSERT_EQUAL(count_starts(l, 10, 10 * SECOND), 1);
	CU_ASSERT_EQUAL(report_of(l, 10 * SECOND).next_slot_us, 10 * SECOND + ROUND / 10);
	limiter_destroy(l);
}

static void of_a_burst_of_one_each_that_is_refused_is_told_another_second(void)
{
	struct limiter_options options = options_of(10, 0);

	options.burst = 1;
	struct limiter *l = limiter_create(&options, count_wake);
	CU_ASSERT_TRUE(starts(l, 5 * SECOND));
	for (unsigned i = 1; i <= 16; i++)
		CU_ASSERT_EQUAL(limiter_retry_after_us(l, 5 * SECOND), i * (uint64_t)SECOND);
	limiter_destroy(l);
}

static void a_burst_of_one_spaces_starts_evenly(void)
{
	struct limiter_options options = options_of(5, 0);
	uint64_t last_us = 0;
	unsigned count = 0;

	options.burst = 1;
	struct limiter *l = limiter_create(&options, count_wake);
	for (uint64_t now_us = 10 * SECOND; now_us < 20 * SECOND; now_us += 100) {
		CU_ASSERT_TRUE(report_of(l, now_us).available <= 1);
		if (!starts(l, now_us))
			continue;
		CU_ASSERT_TRUE(count == 0 || now_us - last_us >= ROUND / 5);
		last_us = now_us;
		count++;
	}
	CU_ASSERT_EQUAL(count, 50);
	limiter_destroy(l);
}

/* A round of 1,004,000 us has room for a million, one each microsecond. */
static void the_largest_threshold_has_an_even_flow_too(void)
{
	struct limiter_options options = options_of(LIMITER_THRESHOLD_MAX, 0);
	struct limiter *l;

	options.burst = 1;
	l = limiter_create(&options, count_wake);
	CU_ASSERT_EQUAL(count_starts(l, 5, SECOND), 1);
	CU_ASSERT_EQUAL(count_starts(l, 5, SECOND + 1), 1);
	limiter_destroy(l);
}

static void a_burst_is_spent_at_once_and_comes_back_with_time(void)
{
	struct limiter_options options = options_of(10, 0);

	options.burst = 3;
	struct limiter *l = limiter_create(&options, count_wake);
	CU_ASSERT_EQUAL(report_of(l, SECOND).available, 3);
	CU_ASSERT_EQUAL(count_starts(l, 10, SECOND), 3);
	CU_ASSERT_EQUAL(report_of(l, SECOND).next_slot_us, SECOND + ROUND / 10);
	CU_ASSERT_EQUAL(count_starts(l, 10, SECOND + ROUND / 10 - 1), 0);
	CU_ASSERT_EQUAL(count_starts(l, 10, SECOND + ROUND / 10), 1);
	CU_ASSERT_EQUAL(count_starts(l, 10, SECOND + ROUND / 10 * 3), 2);
	CU_ASSERT_EQUAL(count_starts(l, 10, 9 * SECOND), 3);
	limiter_destroy(l);
}

static void what_is_in_the_window_is_told_whatever_the_burst(void)
{
	struct limiter_options options = options_of(10, 5);

	options.burst = 1;
	struct limiter *l = limiter_create(&options, count_wake);
	struct limiter_ticket ticket = { .owner = NULL }, waiting = { .owner = NULL };
	CU_ASSERT_EQUAL(report_of(l, SECOND).in_window, 0); /* one is available, and yet nine are not taken */
	CU_ASSERT_TRUE(starts(l, SECOND));
	CU_ASSERT_EQUAL(report_of(l, SECOND).in_window, 1);
	CU_ASSERT_EQUAL(limiter_enter(l, &ticket, 0, SECOND + ROUND / 2), LIMITER_GO);
	CU_ASSERT_EQUAL(limiter_enter(l, &waiting, 0, SECOND + ROUND / 2), LIMITER_WAIT);
	CU_ASSERT_EQUAL(report_of(l, SECOND + ROUND / 2).in_window, 2); /* one started, one about to; who waits has taken none */
	limiter_cancel(l, &waiting, SECOND + ROUND / 2);
	limiter_started(l, &ticket, SECOND + ROUND / 2);
	CU_ASSERT_EQUAL(report_of(l, SECOND + ROUND).in_window, 1);
	CU_ASSERT_EQUAL(report_of(l, SECOND + 2 * ROUND).in_window, 0);
	options.threshold = 0;
	CU_ASSERT_EQUAL(limiter_configure(l, &options, 9 * SECOND), 0);
	CU_ASSERT_EQUAL(report_of(l, 9 * SECOND).in_window, 0);
	limiter_destroy(l);
}

static void a_burst_that_is_set_later_is_not_a_gift(void)
{
	struct limiter_options options = options_of(10, 0);
	struct limiter *l = make(10, 0);

	CU_ASSERT_EQUAL(count_starts(l, 4, SECOND), 4);
	options.burst = 3;
	CU_ASSERT_EQUAL(limiter_configure(l, &options, SECOND + 1), 0);
	CU_ASSERT_EQUAL(count_starts(l, 9, SECOND + ROUND / 10 - 1), 0);
	CU_ASSERT_EQUAL(count_starts(l, 9, SECOND + ROUND / 10), 1);
	limiter_destroy(l);
}

static void a_cancelled_start_gives_its_turn_in_the_even_flow_back(void)
{
	struct limiter_options options = options_of(5, 0);
	struct limiter_ticket ticket = { .owner = NULL };

	options.burst = 1;
	struct limiter *l = limiter_create(&options, count_wake);
	CU_ASSERT_EQUAL(limiter_enter(l, &ticket, 0, SECOND), LIMITER_GO);
	CU_ASSERT_FALSE(starts(l, SECOND + 5));
	limiter_cancel(l, &ticket, SECOND + 10);
	CU_ASSERT_TRUE(starts(l, SECOND + 10));
	CU_ASSERT_FALSE(starts(l, SECOND + 10));
	limiter_destroy(l);
}

/* ---- Retry-After ------------------------------------------------------------ */

static void of_thirty_refused_at_once_all_get_in_when_they_come_back_as_told(void)
{
	enum { CLIENTS = 30 };
	struct limiter *l = make(5, 0);
	uint64_t back_us[CLIENTS];

	CU_ASSERT_EQUAL(count_starts(l, 5, 1), 5);
	for (size_t i = 0; i < CLIENTS; i++) {
		uint64_t after_us;

		CU_ASSERT_FALSE(starts(l, 100 * i + 1));
		after_us = limiter_retry_after_us(l, 100 * i + 1);
		CU_ASSERT_TRUE(after_us >= SECOND && after_us % SECOND == 0);
		back_us[i] = 100 * i + 1 + after_us;
		CU_ASSERT_TRUE(i == 0 || back_us[i] > back_us[i - 1]);
	}
	CU_ASSERT_TRUE(back_us[CLIENTS - 1] <= 13 * SECOND);
	for (size_t i = 0; i < CLIENTS; i++)
		CU_ASSERT_TRUE(starts(l, back_us[i] + i * 7919 % 50000)); /* five at a time come in any order */
	limiter_destroy(l);
}

struct returning {
	uint64_t at_us;
	bool was_promised;
};

static int compare_returns(const void *a, const void *b)
{
	const struct returning *x = a, *y = b;

	return x->at_us < y->at_us ? -1 : x->at_us > y->at_us;
}

/* A crowd comes within one window. Who is refused comes back as told, up to 50 ms late, and no threshold, window,
   burst or moment in the second makes that a second refusal. */
static void whenever_a_client_was_refused_it_gets_in_when_it_obeys(void)
{
	enum { CROWD = 300 };
	static const uint64_t windows_us[] = { SECOND, 2 * SECOND, 10 * SECOND, 60 * SECOND };
	unsigned promised = 0;

	for (unsigned seed = 1; seed <= 3000; seed++) {
		unsigned state = seed;
		unsigned most = seed % 8 == 0 ? 150 : 40;
		struct limiter_options options = options_of(1 + (unsigned)rand_r(&state) % most, 0);
		struct returning crowd[CROWD];
		size_t count = options.threshold * 7 < CROWD ? options.threshold * 7 : CROWD;

		options.window_us = windows_us[(unsigned)rand_r(&state) % LENGTH(windows_us)];
		options.burst = seed % 3 == 0 ? 1 + (unsigned)rand_r(&state) % options.threshold : 0;
		struct limiter *l = limiter_create(&options, count_wake);
		uint64_t span_us = options.burst > 0 ? 1000 : 1 + (uint64_t)rand_r(&state) % options.window_us;
		if (options.burst > 0 && count > options.burst * 7)
			count = options.burst * 7;
		for (size_t i = 0; i < count; i++)
			crowd[i] = (struct returning){ .at_us = 1 + (uint64_t)rand_r(&state) % span_us };
		for (size_t i = 0; i < count; i++) {
			qsort(&crowd[i], count - i, sizeof(crowd[0]), compare_returns);
			struct returning *r = &crowd[i];
			if (starts(l, r->at_us))
				continue;
			if (r->was_promised) {
				printf("seed %u: one of %zu at %u in %u s was refused twice\n", seed, count,
				       options.threshold, (unsigned)(options.window_us / SECOND));
				CU_FAIL("a promise was broken");
				limiter_destroy(l);
				return;
			}
			r->at_us += limiter_retry_after_us(l, r->at_us) + (uint64_t)rand_r(&state) % 50000;
			r->was_promised = true;
			promised++;
			i--;
		}
		limiter_destroy(l);
	}
	CU_ASSERT_TRUE(promised > 100000);
}

static void promises_reach_up_to_a_horizon_and_are_forgotten_with_time(void)
{
	struct limiter *l = make(2, 0);
	uint64_t last = 0;

	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 1), SECOND); /* free slots: at once, which is a second */
	count_starts(l, 2, 1);
	for (size_t i = 0; i < 1000; i++)
		last = limiter_retry_after_us(l, 1);
	CU_ASSERT_TRUE(last >= 15 * (uint64_t)SECOND && last <= 17 * (uint64_t)SECOND);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 40 * (uint64_t)SECOND), SECOND); /* nobody came */
	limiter_destroy(l);
}

static void a_promise_is_behind_those_that_wait(void)
{
	struct limiter *l = make(2, 3);
	struct limiter_ticket t[3] = { { .owner = NULL } };

	count_starts(l, 2, 1);
	for (size_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &t[i], 0, 1), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 1), 3 * SECOND); /* three in line take 1, 1 and 2 rounds */
	for (size_t i = 0; i < 3; i++)
		limiter_cancel(l, &t[i], 1);
	limiter_destroy(l);
}

static struct limiter *make_slow(unsigned threshold, unsigned backlog)
{
	struct limiter_options options = { .threshold = threshold, .window_us = 60 * SECOND, .backlog = backlog };

	return limiter_create(&options, count_wake);
}

static void a_promise_is_of_the_slot_behind_those_of_the_line(void)
{
	struct limiter *l = make_slow(3, 1);
	struct limiter_ticket ticket = { .owner = NULL };

	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_TRUE(starts(l, 20 * i * SECOND + 1));
	CU_ASSERT_EQUAL(limiter_enter(l, &ticket, 0, 41 * SECOND), LIMITER_WAIT); /* for the first, at 60 s */
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 41 * SECOND), 40 * SECOND); /* the second, at 80.004 s */
	limiter_cancel(l, &ticket, 41 * SECOND);
	limiter_destroy(l);
}

static void a_promise_of_a_slot_in_flight_is_a_window_from_now(void)
{
	struct limiter *l = make_slow(2, 1);
	struct limiter_ticket flies = { .owner = NULL }, waits = { .owner = NULL };

	CU_ASSERT_TRUE(starts(l, 10 * SECOND));
	CU_ASSERT_EQUAL(limiter_enter(l, &flies, 0, 20 * SECOND), LIMITER_GO);
	CU_ASSERT_EQUAL(limiter_enter(l, &waits, 0, 41 * SECOND), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 41 * SECOND), 61 * SECOND);
	limiter_cancel(l, &flies, 41 * SECOND);
	limiter_cancel(l, &waits, 41 * SECOND);
	limiter_destroy(l);
}

static void without_a_burst_no_promise_waits_for_the_even_flow_that_was(void)
{
	struct limiter_options options = { .threshold = 2, .window_us = 60 * SECOND, .burst = 1 };
	struct limiter *l = limiter_create(&options, count_wake);

	CU_ASSERT_TRUE(starts(l, 1));
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, SECOND), 30 * SECOND);
	options.burst = 0;
	CU_ASSERT_EQUAL(limiter_configure(l, &options, SECOND), 0);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, SECOND), SECOND);
	limiter_destroy(l);
}

/* ---- changes ------------------------------------------------------------ */

static void change(struct limiter *l, unsigned threshold, unsigned backlog, uint64_t now_us)
{
	struct limiter_options options = options_of(threshold, backlog);

	CU_ASSERT_EQUAL(limiter_configure(l, &options, now_us), 0);
}

static void a_raised_threshold_adds_only_the_difference(void)
{
	struct limiter *l = make(5, 0);

	CU_ASSERT_EQUAL(count_starts(l, 9, 10), 5);
	change(l, 10, 0, 20);
	CU_ASSERT_EQUAL(count_starts(l, 20, 20), 5);
	CU_ASSERT_EQUAL(count_starts(l, 20, 10 + ROUND), 5);
	limiter_destroy(l);
}

static void a_lowered_threshold_keeps_the_latest_starts(void)
{
	struct limiter *l = make(4, 0);

	for (unsigned i = 0; i < 4; i++)
		CU_ASSERT_TRUE(starts(l, 100 * i + 1));
	change(l, 2, 0, 500);
	CU_ASSERT_EQUAL(count_starts(l, 4, 101 + ROUND), 0);
	CU_ASSERT_EQUAL(count_starts(l, 4, 201 + ROUND), 1);
	CU_ASSERT_EQUAL(count_starts(l, 4, 301 + ROUND), 1);
	limiter_destroy(l);
}

static void no_sequence_of_changes_refills_a_window(void)
{
	struct limiter *l = make(10, 0);

	CU_ASSERT_EQUAL(count_starts(l, 20, 10), 10);
	change(l, 3, 0, 20);
	change(l, 10, 0, 30);
	CU_ASSERT_EQUAL(count_starts(l, 20, 40), 0);
	change(l, 0, 0, 50);
	change(l, 10, 0, 60);
	CU_ASSERT_EQUAL(count_starts(l, 20, 70), 0);
	struct limiter_options options = options_of(10, 0);
	options.window_us = 60u * SECOND;
	limiter_configure(l, &options, 80);
	CU_ASSERT_EQUAL(count_starts(l, 20, 2 * SECOND), 0); /* judged under the new window */
	CU_ASSERT_EQUAL(count_starts(l, 20, 61u * SECOND), 10);
	limiter_destroy(l);
}

static void a_longer_window_does_not_forget_what_the_shorter_reused(void)
{
	struct limiter *l = make(1, 0);
	struct limiter_options options = { .threshold = 10, .window_us = 10u * SECOND };
	uint64_t now_us = 1;

	for (unsigned i = 0; i < 8; i++, now_us += ROUND)
		CU_ASSERT_TRUE(starts(l, now_us));
	limiter_configure(l, &options, now_us);
	CU_ASSERT_TRUE(count_starts(l, 20, now_us) <= 2);
	CU_ASSERT_TRUE(count_starts(l, 20, now_us + 11u * SECOND) >= 8);
	limiter_destroy(l);
}

static void starts_from_a_time_without_limit_count_when_one_is_set(void)
{
	struct limiter *l = make(0, 0);
	struct limiter_ticket flying = { .owner = NULL };

	count_starts(l, 100, 10);
	limiter_enter(l, &flying, 0, 15);
	change(l, 4, 0, 20);
	CU_ASSERT_EQUAL(count_starts(l, 9, 30), 0);
	limiter_started(l, &flying, 40);
	CU_ASSERT_EQUAL(count_starts(l, 9, 10 + ROUND), 3);
	CU_ASSERT_EQUAL(count_starts(l, 9, 40 + ROUND), 1);
	limiter_destroy(l);
	l = make(0, 0);
	change(l, 4, 0, 20);
	CU_ASSERT_EQUAL(count_starts(l, 9, 30), 4); /* nothing ever started */
	limiter_destroy(l);
}

static void requests_on_their_way_when_the_threshold_falls_are_a_debt(void)
{
	struct limiter *l = make(7, 0);
	struct limiter_ticket t[7] = { { .owner = NULL } };

	for (size_t i = 0; i < 7; i++)
		limiter_enter(l, &t[i], 0, 0);
	change(l, 5, 0, 1);
	limiter_started(l, &t[0], 10);
	limiter_cancel(l, &t[1], 11);
	CU_ASSERT_EQUAL(report_of(l, 11).available, 0);
	for (size_t i = 2; i < 7; i++)
		limiter_started(l, &t[i], 10 + 10 * i);
	CU_ASSERT_EQUAL(report_of(l, 100).outstanding, 0);
	CU_ASSERT_EQUAL(count_starts(l, 9, 29 + ROUND), 0);
	CU_ASSERT_EQUAL(count_starts(l, 9, 30 + ROUND), 1);
	CU_ASSERT_EQUAL(count_starts(l, 9, 70 + ROUND), 4);
	limiter_destroy(l);
}

static void those_in_line_stay_there_through_a_change_and_hear_of_it(void)
{
	struct limiter *l = make(1, 4);
	unsigned wakes[4] = { 0 };
	struct limiter_ticket t[5] = { { .owner = NULL } };
	struct limiter_options options = options_of(1, 1);

	starts(l, 1);
	for (size_t i = 0; i < 4; i++) {
		t[i] = (struct limiter_ticket){ .owner = &wakes[i] };
		limiter_enter(l, &t[i], i / 2, 2);
		wake_of(l, &t[i], 2);
	}
	change(l, 1, 1, 3);
	CU_ASSERT_EQUAL(report_of(l, 3).waiting, 4);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[4], 0, 3), LIMITER_FULL);
	options.queue = LIMITER_FAIR; /* 0 0 1 1 is now served 0 1 0 1 */
	CU_ASSERT_EQUAL(limiter_configure(l, &options, 4), 0);
	options.threshold = 3;
	CU_ASSERT_EQUAL(limiter_configure(l, &options, 4), 0);
	CU_ASSERT_TRUE(wakes[0] == 1 && wakes[1] == 1 && wakes[2] == 1 && wakes[3] == 0);
	CU_ASSERT_EQUAL(turn(l, &t[0], 4), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[2], 4), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[1], 4), LIMITER_WAIT);
	change(l, 0, 0, 5); /* FIFO, and no limit */
	CU_ASSERT_EQUAL(turn(l, &t[1], 5), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[3], 5), LIMITER_GO);
	for (size_t i = 0; i < 4; i++)
		limiter_cancel(l, &t[i], 6);
	limiter_destroy(l);
}

static void a_threshold_over_the_maximum_changes_nothing(void)
{
	struct limiter_options options = options_of(LIMITER_THRESHOLD_MAX + 1, 0);
	struct limiter *l = make(2, 0);

	CU_ASSERT_PTR_NULL(limiter_create(&options, count_wake));
	CU_ASSERT_EQUAL(limiter_configure(l, &options, 0), -1);
	CU_ASSERT_EQUAL(count_starts(l, 9, 0), 2);
	limiter_destroy(l);
	l = make(LIMITER_THRESHOLD_MAX, 0);
	CU_ASSERT_EQUAL(count_starts(l, LIMITER_THRESHOLD_MAX + 5, 1), LIMITER_THRESHOLD_MAX);
	limiter_destroy(l);
}

/* ---- a model, over random histories ------------------------------------------------------------ */

#define MODEL_SLOTS_MAX 8u
#define MODEL_TICKETS 24u

enum model_place { OUTSIDE, WAITING, GOING };

struct model {
	uint64_t free_us[MODEL_SLOTS_MAX]; /* when each slot may be used; UINT64_MAX in flight */
	unsigned slots, backlog;
	size_t queue[MODEL_TICKETS];
	unsigned waiting;
	enum model_place place[MODEL_TICKETS];
	size_t slot_of[MODEL_TICKETS];
	uint64_t before_us[MODEL_TICKETS]; /* the slot's free_us before it was taken */
};

static bool model_take(struct model *m, size_t ticket, uint64_t now_us)
{
	size_t best = 0;

	for (size_t i = 1; i < m->slots; i++)
		if (m->free_us[i] < m->free_us[best])
			best = i;
	if (m->free_us[best] > now_us)
		return false;
	m->slot_of[ticket] = best;
	m->before_us[ticket] = m->free_us[best];
	m->free_us[best] = UINT64_MAX;
	m->place[ticket] = GOING;
	return true;
}

static void model_leave(struct model *m, size_t ticket)
{
	size_t i = 0;

	while (m->queue[i] != ticket)
		i++;
	memmove(&m->queue[i], &m->queue[i + 1], (m->waiting - i - 1) * sizeof(m->queue[0]));
	m->waiting--;
	m->place[ticket] = OUTSIDE;
}

static void model_serve(struct model *m, uint64_t now_us)
{
	while (m->waiting > 0) {
		size_t first = m->queue[0];

		if (!model_take(m, first, now_us))
			return;
		model_leave(m, first);
		m->place[first] = GOING;
	}
}

static enum limiter_answer model_enter(struct model *m, size_t ticket, uint64_t now_us)
{
	if (m->waiting == 0 && model_take(m, ticket, now_us))
		return LIMITER_GO;
	if (m->waiting >= m->backlog)
		return LIMITER_FULL;
	m->queue[m->waiting++] = ticket;
	m->place[ticket] = WAITING;
	return LIMITER_WAIT;
}

/* One step of both. Returns false at the first difference. */
static bool same_step(struct model *m, struct limiter *l, struct limiter_ticket *tickets, unsigned *seed,
                      uint64_t now_us)
{
	size_t i = (size_t)rand_r(seed) % MODEL_TICKETS;
	uint64_t next_us = UINT64_MAX;

	model_serve(m, now_us);
	if (m->place[i] != OUTSIDE)
		turn(l, &tickets[i], now_us); /* only who was told GO may start */
	if (m->place[i] == OUTSIDE) {
		if (limiter_enter(l, &tickets[i], 0, now_us) != model_enter(m, i, now_us))
			return false;
	} else if (m->place[i] == GOING && rand_r(seed) % 4 != 0) {
		limiter_started(l, &tickets[i], now_us);
		m->free_us[m->slot_of[i]] = now_us + ROUND;
		m->place[i] = OUTSIDE;
	} else if (rand_r(seed) % 4 == 0) {
		limiter_cancel(l, &tickets[i], now_us);
		if (m->place[i] == GOING)
			m->free_us[m->slot_of[i]] = m->before_us[i];
		else
			model_leave(m, i);
		m->place[i] = OUTSIDE;
	}
	model_serve(m, now_us);
	for (size_t k = 0; k < MODEL_TICKETS; k++)
		if (m->place[k] != OUTSIDE &&
		    turn(l, &tickets[k], now_us) != (m->place[k] == GOING ? LIMITER_GO : LIMITER_WAIT))
			return false;
	for (size_t k = 0; k < m->slots; k++)
		next_us = m->free_us[k] < next_us ? m->free_us[k] : next_us;
	struct limiter_report r = report_of(l, now_us);
	return r.waiting == m->waiting && r.next_slot_us == (next_us > now_us ? next_us : now_us);
}

static void the_limiter_does_what_a_plain_model_does_over_random_histories(void)
{
	for (unsigned history = 1; history <= 3000; history++) {
		unsigned seed = history;
		struct model m = { .slots = 1 + history % MODEL_SLOTS_MAX, .backlog = history / 8 % 12 };
		struct limiter *l = make(m.slots, m.backlog);
		struct limiter_ticket tickets[MODEL_TICKETS] = { { .owner = NULL } };
		uint64_t now_us = 1;

		memset(tickets, 0, sizeof(tickets));
		for (unsigned step = 0; step < 300; step++) {
			now_us += (uint64_t)rand_r(&seed) % (2 * ROUND / m.slots / 3);
			if (!same_step(&m, l, tickets, &seed, now_us)) {
				printf("history %u differs at step %u\n", history, step);
				CU_FAIL("the limiter and the model differ");
				return;
			}
		}
		for (size_t i = 0; i < MODEL_TICKETS; i++)
			if (m.place[i] != OUTSIDE)
				limiter_cancel(l, &tickets[i], now_us);
		CU_ASSERT_TRUE(report_of(l, now_us).started_total > 0);
		limiter_destroy(l);
	}
}

/* ---- a simulation of late threads ------------------------------------------------------------ */

#define ACTORS_MAX 500u

enum actor_place { THINKS, IN_LINE, SENDS, SENT };

/* A client that loops: enters, waits, sends, thinks. It acts only when its alarm rings, and every alarm is late. */
struct actor {
	struct limiter_ticket ticket;
	enum actor_place place;
	uint64_t alarm_us;
	bool woken;
};

struct world {
	struct limiter *limiter;
	struct actor actors[ACTORS_MAX];
	size_t actor_count;
	unsigned seed;
	uint64_t now_us;
	unsigned late_us;    /* how late a woken thread may be; an eighth of it again before and after the send */
	unsigned think_us;
	unsigned hang_up_in; /* one in so many gives up, 0: none */
	uint64_t *arrivals;  /* as the target sees them */
	size_t arrival_count, arrivals_max;
};

static struct world world; /* the actors' memory must stay where it is */

static uint64_t upto(unsigned limit)
{
	return limit > 0 ? (uint64_t)rand_r(&world.seed) % (limit + 1) : 0;
}

static void wake_actor(struct limiter_ticket *ticket)
{
	struct actor *a = ticket->owner;
	uint64_t at_us = world.now_us + upto(world.late_us);

	a->woken = true;
	if (at_us < a->alarm_us)
		a->alarm_us = at_us;
}

static void begin_to_send(struct actor *a)
{
	a->place = SENDS;
	a->alarm_us = world.now_us + upto(world.late_us / 8);
}

static void ask(struct actor *a)
{
	uint64_t wake_us;

	a->woken = false;
	a->place = IN_LINE;
	if (limiter_turn(world.limiter, &a->ticket, world.now_us, &wake_us) == LIMITER_GO)
		begin_to_send(a);
	else if (!a->woken) /* woken while it asked: the alarm is set */
		a->alarm_us = wake_us == UINT64_MAX ? UINT64_MAX : wake_us + upto(world.late_us);
}

static void give_up(struct actor *a)
{
	limiter_cancel(world.limiter, &a->ticket, world.now_us);
	a->place = THINKS;
	a->alarm_us = world.now_us + upto(world.think_us);
}

static void act(struct actor *a)
{
	bool hangs_up = world.hang_up_in > 0 && upto(world.hang_up_in) == 0;
	enum limiter_answer answer;

	a->alarm_us = UINT64_MAX;
	switch (a->place) {
	case THINKS:
		a->ticket.owner = a;
		answer = limiter_enter(world.limiter, &a->ticket, (uint64_t)(a - world.actors) % 7, world.now_us);
		if (answer == LIMITER_GO)
			begin_to_send(a);
		else if (answer == LIMITER_WAIT)
			ask(a);
		else
			a->alarm_us = world.now_us + 1 + world.think_us / 2 + upto(world.think_us / 2);
		break;
	case IN_LINE:
		if (hangs_up)
			give_up(a);
		else
			ask(a);
		break;
	case SENDS:
		if (hangs_up) {
			give_up(a);
			break;
		}
		/* The road hurries some and delays others, up to the guard. */
		if (world.arrival_count < world.arrivals_max)
			world.arrivals[world.arrival_count++] = world.now_us + upto(GUARD);
		a->place = SENT;
		a->alarm_us = world.now_us + upto(world.late_us / 8);
		break;
	case SENT:
		limiter_started(world.limiter, &a->ticket, world.now_us);
		a->place = THINKS;
		a->alarm_us = world.now_us + upto(world.think_us);
		break;
	}
}

/* Runs until the end, or until no alarm is set: then a wake-up was lost. */
static bool run_world(uint64_t end_us)
{
	while (true) {
		struct actor *first = &world.actors[0];

		for (size_t i = 1; i < world.actor_count; i++)
			if (world.actors[i].alarm_us < first->alarm_us)
				first = &world.actors[i];
		if (first->alarm_us == UINT64_MAX)
			return false;
		if (first->alarm_us >= end_us)
			return true;
		world.now_us = first->alarm_us;
		act(first);
	}
}

static void make_world(const struct limiter_options *options, size_t actors, unsigned seed, uint64_t begin_us)
{
	free(world.arrivals);
	memset(&world, 0, sizeof(world));
	world.seed = seed;
	world.actor_count = actors;
	world.now_us = begin_us;
	for (size_t i = 0; i < actors; i++)
		world.actors[i].alarm_us = begin_us + i;
	world.limiter = limiter_create(options, wake_actor);
	world.arrivals_max = 400000;
	world.arrivals = malloc(world.arrivals_max * sizeof(uint64_t));
}

static void end_world(void)
{
	for (size_t i = 0; i < world.actor_count; i++)
		if (world.actors[i].place != THINKS)
			limiter_cancel(world.limiter, &world.actors[i].ticket, world.now_us);
	limiter_destroy(world.limiter);
	free(world.arrivals);
	world.arrivals = NULL;
}

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The most arrivals in any window [t, t + window_us). */
static size_t fullest_window(uint64_t window_us)
{
	size_t first = 0, fullest = 0;

	qsort(world.arrivals, world.arrival_count, sizeof(uint64_t), compare_times);
	for (size_t last = 0; last < world.arrival_count; last++) {
		while (world.arrivals[last] - world.arrivals[first] >= window_us)
			first++;
		if (last - first + 1 > fullest)
			fullest = last - first + 1;
	}
	return fullest;
}

/* How much of the threshold was used, from the end of the first window's worth of arrivals to that of the last
   whole one: slots that come free together keep together, so a cut elsewhere would count a part of a bunch.
   Arrivals are sorted. */
static double share_used(const struct limiter_options *options)
{
	size_t last = world.arrival_count / options->threshold * options->threshold;
	uint64_t took_us;

	if (last < 3 * (size_t)options->threshold)
		return 0;
	took_us = world.arrivals[last - 1] - world.arrivals[options->threshold - 1];
	return (double)(last / options->threshold - 1) * (double)options->window_us / (double)took_us;
}

struct load {
	unsigned threshold, actors, burst, seconds;
	enum limiter_queue queue;
};

static const struct load loads[] = {
	{ 1, 3, 0, 200, LIMITER_FIFO },     { 5, 1, 0, 60, LIMITER_FIFO },       { 5, 500, 0, 60, LIMITER_FIFO },
	{ 50, 4, 0, 30, LIMITER_FIFO },     { 50, 500, 0, 30, LIMITER_FIFO },    { 50, 500, 0, 30, LIMITER_FAIR },
	{ 1000, 64, 0, 20, LIMITER_FIFO },  { 1000, 500, 0, 20, LIMITER_FAIR },  { 20000, 500, 0, 6, LIMITER_FIFO },
	{ 5, 20, 1, 60, LIMITER_FIFO },     { 50, 100, 1, 30, LIMITER_FIFO },    { 50, 100, 7, 30, LIMITER_FAIR },
	{ 1000, 100, 1, 20, LIMITER_FIFO }, { 1000, 100, 50, 20, LIMITER_FIFO },
};

static void no_window_of_a_saturated_service_holds_more_than_the_threshold_nor_less_than_99_percent(void)
{
	for (size_t i = 0; i < LENGTH(loads); i++) {
		struct limiter_options options = options_of(loads[i].threshold, 1000);

		options.burst = loads[i].burst;
		options.queue = loads[i].queue;
		make_world(&options, loads[i].actors, (unsigned)i + 1, 5);
		world.late_us = 5000;
		world.think_us = 1000;
		CU_ASSERT_TRUE(run_world(loads[i].seconds * (uint64_t)SECOND));
		size_t most = fullest_window(SECOND);
		double share = share_used(&options);

		if (getenv("UNIT_VERBOSE") != NULL)
			printf("%6u a second, %3u clients, burst %3u: fullest window %5zu, used %.2f %%\n",
			       loads[i].threshold, loads[i].actors, loads[i].burst, most, share * 100);
		CU_ASSERT_TRUE(most <= loads[i].threshold);
		CU_ASSERT_TRUE(share >= 0.99);
		end_world();
	}
}

static void a_burst_of_one_stays_even_up_to_the_lateness_of_threads(void)
{
	struct limiter_options options = options_of(100, 1000);

	options.burst = 1;
	make_world(&options, 50, 9, 5);
	world.late_us = 3000;
	world.think_us = 500;
	CU_ASSERT_TRUE(run_world(10 * SECOND));
	/* 10 ms apart; late threads and the road move each by at most 3 + 10 + 4 ms, and forgiveness by 10 more. */
	CU_ASSERT_TRUE(fullest_window(5000) <= 4);
	CU_ASSERT_TRUE(fullest_window(100000) <= 14);
	end_world();
}

/* ThreadSanitizer makes a world thirty times slower and finds nothing in it: it has one thread. */
#ifdef __SANITIZE_THREAD__
#define WORLDS(count) ((count) / 20)
#else
#define WORLDS(count) (count)
#endif

static void random_worlds_never_pass_the_threshold_and_never_lose_a_wake_up(void)
{
	for (unsigned seed = 1; seed <= WORLDS(4000); seed++) {
		struct limiter_options options = options_of(1 + seed % 9, seed % 31);

		options.window_us = seed % 3 == 0 ? 100000 : SECOND;
		options.queue = seed % 2 ? LIMITER_FAIR : LIMITER_FIFO;
		options.burst = seed % 5;
		make_world(&options, 1 + seed % 20, seed, 1);
		world.late_us = seed % 7 * 20000; /* far later than any scheduler is: exact all the same */
		world.think_us = 2000 + seed % 11 * 10000;
		world.hang_up_in = seed % 4 * 3;
		/* The guard of a short window is shorter: then the road keeps its order. */
		CU_ASSERT_TRUE(run_world(30 * options.window_us));
		uint64_t window_us = options.window_us < SECOND ? options.window_us - GUARD : options.window_us;
		CU_ASSERT_TRUE(fullest_window(window_us) <= options.threshold);
		CU_ASSERT_TRUE(world.arrival_count > 0);
		end_world();
	}
}

static void changes_under_load_never_pass_the_largest_threshold_in_force(void)
{
	for (unsigned seed = 1; seed <= WORLDS(1000); seed++) {
		struct limiter_options options = options_of(2 + seed % 9, 50);
		uint64_t now_us = 1;
		unsigned largest = options.threshold;

		make_world(&options, 30, seed, 1);
		world.late_us = 20000;
		world.think_us = 1000;
		for (unsigned round = 0; round < 40; round++) {
			now_us += 1 + upto(SECOND / 2);
			CU_ASSERT_TRUE(run_world(now_us));
			world.now_us = now_us;
			options.threshold = 1 + (unsigned)upto(11);
			options.burst = (unsigned)upto(3);
			options.backlog = (unsigned)upto(40);
			options.queue = upto(1) ? LIMITER_FAIR : LIMITER_FIFO;
			if (options.threshold > largest)
				largest = options.threshold;
			CU_ASSERT_EQUAL(limiter_configure(world.limiter, &options, now_us), 0);
		}
		CU_ASSERT_TRUE(fullest_window(SECOND) <= largest);
		end_world();
	}
}

/* ---- from many threads at once ------------------------------------------------------------ */

#define THREADS 6u
#define REQUESTS_EACH 1500u

/* Each look at this clock moves it by one: time passes as the threads act. */
static atomic_uint_fast64_t ticks;

static uint64_t look(void)
{
	return atomic_fetch_add(&ticks, 1) + 1;
}

struct worker {
	pthread_t thread;
	struct limiter *limiter;
	unsigned number;
	atomic_bool woken;
	uint64_t sent_us[REQUESTS_EACH];
	size_t sent_count;
};

static void wake_worker(struct limiter_ticket *ticket)
{
	struct worker *w = ticket->owner;

	atomic_store(&w->woken, true);
}

/* Acts only when woken or when it is time. */
static bool wait_for_turn(struct worker *w, struct limiter_ticket *ticket)
{
	while (true) {
		uint64_t wake_us;
		enum limiter_answer answer;

		atomic_store(&w->woken, false);
		answer = limiter_turn(w->limiter, ticket, look(), &wake_us);
		if (answer != LIMITER_WAIT)
			return answer == LIMITER_GO;
		while (!atomic_load(&w->woken) && look() < wake_us)
			sched_yield();
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	unsigned seed = w->number;

	while (w->sent_count < REQUESTS_EACH) {
		struct limiter_ticket ticket = { .owner = w };
		enum limiter_answer answer = limiter_enter(w->limiter, &ticket, w->number % 4, look());

		if (answer == LIMITER_WAIT && rand_r(&seed) % 16 == 0) {
			limiter_cancel(w->limiter, &ticket, look());
			continue;
		}
		if (answer == LIMITER_WAIT && wait_for_turn(w, &ticket))
			answer = LIMITER_GO;
		if (answer != LIMITER_GO) {
			limiter_retry_after_us(w->limiter, look());
			continue;
		}
		if (rand_r(&seed) % 16 == 0) {
			limiter_cancel(w->limiter, &ticket, look());
			continue;
		}
		w->sent_us[w->sent_count++] = look();
		limiter_started(w->limiter, &ticket, look());
	}
	return NULL;
}

static void many_threads_never_pass_the_threshold(void)
{
	static struct worker workers[THREADS];
	struct limiter_options options = { .threshold = 4, .window_us = 200, .backlog = 3, .queue = LIMITER_FAIR };
	struct limiter *l = limiter_create(&options, wake_worker);

	make_world(&options, 0, 1, 0);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].limiter = l;
		workers[i].number = i;
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (unsigned i = 0; i < 50; i++) {
		options.queue = i % 2 ? LIMITER_FAIR : LIMITER_FIFO;
		CU_ASSERT_EQUAL(limiter_configure(l, &options, look()), 0);
		report_of(l, look());
		sched_yield();
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		memcpy(&world.arrivals[world.arrival_count], workers[i].sent_us, sizeof(workers[i].sent_us));
		world.arrival_count += REQUESTS_EACH;
	}
	CU_ASSERT_TRUE(fullest_window(options.window_us) <= options.threshold);
	struct limiter_report r = report_of(l, look());
	CU_ASSERT_EQUAL(r.started_total, THREADS * REQUESTS_EACH);
	CU_ASSERT_TRUE(r.waiting == 0 && r.outstanding == 0);
	limiter_destroy(l);
	end_world();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_threshold_of_nought_is_no_limit),
		TEST(a_slot_is_free_again_one_window_and_the_guard_after_its_start),
		TEST(the_window_counts_from_the_send_not_from_the_permission),
		TEST(a_slow_rate_is_one_start_in_a_long_window),
		TEST(a_slot_that_is_handed_back_is_used_once_more_and_only_once),
		TEST(a_slot_that_is_handed_back_forgets_no_start_wherever_the_ring_begins),
		TEST(exactly_the_backlog_may_wait),
		TEST(who_arrives_does_not_overtake_who_waits),
		TEST(only_the_front_waits_by_the_clock),
		TEST(who_is_exempt_waits_behind_a_full_line_and_is_not_refused),
		TEST(one_call_serves_everybody_whose_slot_is_free),
		TEST(fair_clients_take_turns_and_a_single_request_is_not_held_up_by_a_thousand),
		TEST(a_full_fair_line_takes_from_the_longest_to_give_to_a_shorter),
		TEST(of_two_lines_of_one_length_one_is_the_longest_when_the_other_shrinks),
		TEST(clients_that_wait_for_one_request_each_do_not_push_each_other_out),
		TEST(who_is_exempt_is_not_pushed_out_for_a_shorter_line),
		TEST(thousands_of_clients_each_keep_their_own_place),
		TEST(what_has_no_slot_is_never_counted_as_started),
		TEST(another_burst_goes_on_where_the_even_flow_was),
		TEST(of_a_burst_of_one_each_that_is_refused_is_told_another_second),
		TEST(a_burst_of_one_spaces_starts_evenly),
		TEST(the_largest_threshold_has_an_even_flow_too),
		TEST(a_burst_is_spent_at_once_and_comes_back_with_time),
		TEST(what_is_in_the_window_is_told_whatever_the_burst),
		TEST(a_burst_that_is_set_later_is_not_a_gift),
		TEST(a_cancelled_start_gives_its_turn_in_the_even_flow_back),
		TEST(of_thirty_refused_at_once_all_get_in_when_they_come_back_as_told),
		TEST(whenever_a_client_was_refused_it_gets_in_when_it_obeys),
		TEST(a_promise_is_behind_those_that_wait),
		TEST(a_promise_is_of_the_slot_behind_those_of_the_line),
		TEST(a_promise_of_a_slot_in_flight_is_a_window_from_now),
		TEST(without_a_burst_no_promise_waits_for_the_even_flow_that_was),
		TEST(promises_reach_up_to_a_horizon_and_are_forgotten_with_time),
		TEST(a_raised_threshold_adds_only_the_difference),
		TEST(a_lowered_threshold_keeps_the_latest_starts),
		TEST(no_sequence_of_changes_refills_a_window),
		TEST(a_longer_window_does_not_forget_what_the_shorter_reused),
		TEST(starts_from_a_time_without_limit_count_when_one_is_set),
		TEST(requests_on_their_way_when_the_threshold_falls_are_a_debt),
		TEST(those_in_line_stay_there_through_a_change_and_hear_of_it),
		TEST(a_threshold_over_the_maximum_changes_nothing),
		TEST(the_limiter_does_what_a_plain_model_does_over_random_histories),
		TEST(no_window_of_a_saturated_service_holds_more_than_the_threshold_nor_less_than_99_percent),
		TEST(a_burst_of_one_stays_even_up_to_the_lateness_of_threads),
		TEST(random_worlds_never_pass_the_threshold_and_never_lose_a_wake_up),
		TEST(changes_under_load_never_pass_the_largest_threshold_in_force),
		TEST(many_threads_never_pass_the_threshold),
	};

	return unit_main("limiter", tests, LENGTH(tests));
}
