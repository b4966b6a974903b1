/* test_limiter_given.c: a line that is served with slots which a master gives, as a specification. All time is made up.
 *
 * The small tests give one rule each. Then a model (every slot by itself in a plain array, the line in another) is
 * compared with the limiter over random histories, in which a request acts only when it was woken or when it is time:
 * a wake-up that was lost is a difference. Last, real threads.
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
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static void count_wake(struct limiter_ticket *ticket)
{
	if (ticket->owner != NULL)
		++*(unsigned *)ticket->owner;
}

static struct limiter_options given_options(unsigned threshold, unsigned backlog, enum limiter_queue queue)
{
	return (struct limiter_options){ .threshold = threshold,
		                         .window_us = SECOND,
		                         .backlog = backlog,
		                         .queue = queue,
		                         .slots_are_given = true };
}

static struct limiter *make(unsigned threshold, unsigned backlog, enum limiter_queue queue)
{
	struct limiter_options options = given_options(threshold, backlog, queue);

	return limiter_create(&options, count_wake);
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

static void enter_all(struct limiter *l, struct limiter_ticket *tickets, size_t count, uint64_t now_us)
{
	for (size_t i = 0; i < count; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &tickets[i], 0, now_us), LIMITER_WAIT);
}

static void end(struct limiter *l, struct limiter_ticket *tickets, size_t count, uint64_t now_us)
{
	for (size_t i = 0; i < count; i++)
		limiter_cancel(l, &tickets[i], now_us);
	CU_ASSERT_EQUAL(report_of(l, now_us).waiting, 0);
	CU_ASSERT_EQUAL(report_of(l, now_us).outstanding, 0);
	limiter_destroy(l);
}

/* ---- a slot's time ------------------------------------------------------------ */

static void a_given_slot_is_used_not_before_its_time_and_the_front_is_told_when(void)
{
	struct limiter *l = make(5, 5, LIMITER_FIFO);
	unsigned wakes[2] = { 0 };
	struct limiter_ticket t[2] = { { .owner = &wakes[0] }, { .owner = &wakes[1] } };

	enter_all(l, t, 2, 1);
	CU_ASSERT_EQUAL(wake_of(l, &t[0], 1), UINT64_MAX);
	CU_ASSERT_EQUAL(wake_of(l, &t[1], 1), UINT64_MAX);
	limiter_give(l, 200, 300, 1, 10);
	CU_ASSERT_EQUAL(wakes[0], 1);
	CU_ASSERT_EQUAL(wakes[1], 0);
	CU_ASSERT_EQUAL(wake_of(l, &t[0], 11), 200);
	limiter_give(l, 100, 250, 1, 12); /* an earlier one: it must hear of it */
	CU_ASSERT_EQUAL(wakes[0], 2);
	CU_ASSERT_EQUAL(wake_of(l, &t[0], 99), 100);
	CU_ASSERT_EQUAL(turn(l, &t[0], 100), LIMITER_GO);
	CU_ASSERT_EQUAL(t[0].until_us, 250);
	CU_ASSERT_EQUAL(wakes[1], 1);
	CU_ASSERT_EQUAL(wake_of(l, &t[1], 199), 200);
	CU_ASSERT_EQUAL(turn(l, &t[1], 300), LIMITER_GO); /* its very last moment */
	CU_ASSERT_TRUE(limiter_may_start(l, &t[1], 300));
	end(l, t, 2, 300);
}

static void a_slot_that_died_is_counted_and_not_used_and_those_in_line_stay(void)
{
	struct limiter *l = make(5, 5, LIMITER_FIFO);
	struct limiter_ticket t[2] = { { .owner = NULL } };

	enter_all(l, t, 2, 1);
	limiter_give(l, 100, 200, 3, 10);
	limiter_give(l, 5, 9, 2, 10);    /* too late already */
	limiter_give(l, 300, 299, 4, 10); /* never */
	CU_ASSERT_EQUAL(report_of(l, 10).held, 3);
	CU_ASSERT_EQUAL(report_of(l, 10).died_total, 6);
	CU_ASSERT_EQUAL(turn(l, &t[0], 201), LIMITER_WAIT);
	CU_ASSERT_EQUAL(report_of(l, 201).died_total, 9);
	CU_ASSERT_EQUAL(report_of(l, 201).held, 0);
	CU_ASSERT_EQUAL(report_of(l, 201).waiting, 2);
	limiter_give(l, 250, 260, 2, 202);
	CU_ASSERT_EQUAL(turn(l, &t[1], 255), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[0], 255), LIMITER_GO);
	limiter_started(l, &t[0], 258);
	limiter_started(l, &t[1], 275); /* 15 us late */
	struct limiter_report r = report_of(l, 280);
	CU_ASSERT_TRUE(r.used_total == 2 && r.started_total == 2 && r.died_total == 9 && r.late_us_total == 15);
	end(l, t, 0, 280);
}

static void who_comes_when_a_slot_is_there_and_nobody_waits_goes_at_once(void)
{
	struct limiter *l = make(5, 0, LIMITER_FIFO);
	struct limiter_ticket t[2] = { { .owner = NULL } };

	limiter_give(l, 100, 200, 1, 10);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[0], 0, 150), LIMITER_GO);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[1], 0, 150), LIMITER_WAIT);
	limiter_cancel(l, &t[0], 160); /* the slot lives until 200: it goes to the next */
	CU_ASSERT_EQUAL(turn(l, &t[1], 160), LIMITER_GO);
	CU_ASSERT_EQUAL(t[1].until_us, 200);
	limiter_cancel(l, &t[1], 170);
	CU_ASSERT_EQUAL(report_of(l, 170).held, 1);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[0], 0, 200), LIMITER_GO);
	limiter_cancel(l, &t[0], 201); /* it died with it */
	CU_ASSERT_EQUAL(report_of(l, 201).held, 0);
	CU_ASSERT_EQUAL(report_of(l, 201).died_total, 1);
	end(l, t, 0, 201);
}

static void of_the_slots_that_have_begun_the_one_that_dies_first_is_used(void)
{
	struct limiter *l = make(5, 5, LIMITER_FIFO);
	struct limiter_ticket t[3] = { { .owner = NULL } };

	limiter_give(l, 10, 90, 1, 1);
	limiter_give(l, 20, 50, 1, 1);
	limiter_give(l, 60, 65, 1, 1);
	enter_all(l, t, 1, 5);
	CU_ASSERT_EQUAL(turn(l, &t[0], 10), LIMITER_GO);
	limiter_cancel(l, &t[0], 11);
	for (size_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &t[i], 0, 30), i < 2 ? LIMITER_GO : LIMITER_WAIT);
	CU_ASSERT_EQUAL(t[0].until_us, 50);
	CU_ASSERT_EQUAL(t[1].until_us, 90);
	end(l, t, 3, 31);
}

static void the_list_of_slots_is_bounded_and_those_that_die_first_go(void)
{
	struct limiter *l = make(1000, 0, LIMITER_FIFO);

	for (unsigned i = 0; i < LIMITER_RUNS_MAX + 10; i++) /* given from the last to the first */
		limiter_give(l, 10000 - i, 20000 - i, 1, 1);
	CU_ASSERT_EQUAL(report_of(l, 1).held, LIMITER_RUNS_MAX);
	CU_ASSERT_EQUAL(report_of(l, 1).died_total, 10);
	for (unsigned i = 0; i < LIMITER_RUNS_MAX; i++) /* equal times merge: nothing goes */
		limiter_give(l, 10000 - i, 20000 - i, 2, 1);
	CU_ASSERT_EQUAL(report_of(l, 1).held, 3 * LIMITER_RUNS_MAX);
	CU_ASSERT_EQUAL(report_of(l, 1).died_total, 10);
	limiter_give(l, 10001, 15000, 7, 1); /* it dies before all others */
	CU_ASSERT_EQUAL(report_of(l, 1).died_total, 17);
	limiter_give(l, 10000, 20000, UINT32_MAX, 1);
	CU_ASSERT_EQUAL(report_of(l, 1).held, LIMITER_THRESHOLD_MAX);
	CU_ASSERT_EQUAL(report_of(l, 30000).held, 0);
	limiter_destroy(l);
}

/* Also those that begin at this very moment, and those far behind in the list. */
static void the_one_that_dies_first_is_found_wherever_it_stands(void)
{
	struct limiter *l = make(10, 0, LIMITER_FIFO);
	static const uint64_t dies[] = { 50, 60, 70, 80, 90 };
	struct limiter_ticket t = { .owner = NULL };

	limiter_give(l, 1, 90, 1, 1);
	limiter_give(l, 2, 80, 1, 1);
	limiter_give(l, 3, 60, 1, 1);
	limiter_give(l, 4, 70, 1, 1);
	limiter_give(l, 5, 50, 1, 1);
	limiter_give(l, 6, 10, 1, 1); /* has not begun */
	for (size_t i = 0; i < LENGTH(dies); i++) {
		CU_ASSERT_EQUAL(limiter_enter(l, &t, 0, 5), LIMITER_GO);
		CU_ASSERT_EQUAL(t.until_us, dies[i]);
		limiter_started(l, &t, 5);
	}
	CU_ASSERT_EQUAL(report_of(l, 5).held, 1);
	CU_ASSERT_EQUAL(report_of(l, 11).died_total, 1);
	limiter_destroy(l);
}

/* Those that have begun stand in front; the dead among them go, wherever they stand. */
static void the_dead_go_from_between_the_living(void)
{
	struct limiter *l = make(10, 0, LIMITER_FIFO);

	limiter_give(l, 1, 90, 1, 1);
	limiter_give(l, 2, 20, 2, 1);
	limiter_give(l, 3, 80, 1, 1);
	limiter_give(l, 4, 30, 4, 1);
	CU_ASSERT_EQUAL(report_of(l, 20).held, 8); /* its last moment is one of its life */
	CU_ASSERT_EQUAL(report_of(l, 21).held, 6);
	CU_ASSERT_EQUAL(report_of(l, 31).held, 2);
	CU_ASSERT_EQUAL(report_of(l, 31).died_total, 6);
	limiter_destroy(l);
}

/* Every place but the first is looked at: here it is the second, and then the last, that dies first. */
static void one_too_many_throws_away_what_dies_first_wherever_it_stands(void)
{
	static const unsigned places[] = { 0, 1, LIMITER_RUNS_MAX };

	for (size_t k = 0; k < LENGTH(places); k++) {
		struct limiter *l = make(1000, 0, LIMITER_FIFO);

		for (unsigned i = 0; i <= LIMITER_RUNS_MAX; i++)
			limiter_give(l, 1000 + i, i == places[k] ? 50000 : 100000 + i, 1, 1);
		CU_ASSERT_EQUAL(report_of(l, 1).died_total, 1);
		CU_ASSERT_EQUAL(report_of(l, 60000).died_total, 1); /* it was the one that would have died by now */
		CU_ASSERT_EQUAL(report_of(l, 60000).held, LIMITER_RUNS_MAX);
		limiter_destroy(l);
	}
}

/* The count of this window, and as much of the last one's as lies in the second before now, were its starts spread evenly. */
static void what_was_used_lately_is_told_by_this_window_and_the_last(void)
{
	static const struct {
		uint64_t at_us;
		unsigned uses, told;
	} steps[] = {
		{ 5000000, 4, 4 }, { 5900000, 6, 10 }, { 6250000, 0, 7 }, { 6250000, 4, 11 }, { 6500000, 0, 9 },
		{ 6999999, 0, 4 }, { 7000000, 0, 4 },  { 7500000, 0, 2 }, { 8000000, 0, 0 },  { 9000000, 1, 1 },
		{ 8999999, 1, 2 }, /* two threads read the clock in one order and came here in the other */
		{ 9500000, 0, 2 }, { 10000000, 0, 2 }, { 10500000, 3, 4 }, { 12500000, 2, 2 },
	};
	struct limiter *l = make(100, 0, LIMITER_FIFO);

	for (size_t i = 0; i < LENGTH(steps); i++) {
		uint64_t now_us = steps[i].at_us;

		for (unsigned k = 0; k < steps[i].uses; k++) {
			struct limiter_ticket t = { .owner = NULL };

			limiter_give(l, now_us, now_us, 1, now_us);
			CU_ASSERT_EQUAL(limiter_enter(l, &t, 0, now_us), LIMITER_GO);
			CU_ASSERT_TRUE(limiter_may_start(l, &t, now_us));
			limiter_started(l, &t, now_us);
		}
		CU_ASSERT_EQUAL(report_of(l, now_us).in_window, steps[i].told);
		CU_ASSERT_EQUAL(report_of(l, now_us).available, 100 - steps[i].told);
	}
	CU_ASSERT_EQUAL(report_of(l, 12500000).used_total, 21);
	CU_ASSERT_EQUAL(report_of(l, 12500000).died_total, 0);
	limiter_destroy(l);
}

/* ---- back to the front ------------------------------------------------------------ */

static void who_may_not_start_any_more_stands_ahead_of_all_in_either_kind_of_line(void)
{
	for (int queue = LIMITER_FIFO; queue <= LIMITER_FAIR; queue++) {
		struct limiter *l = make(9, 9, (enum limiter_queue)queue);
		unsigned wakes[4] = { 0 };
		struct limiter_ticket t[4] = { { .owner = NULL } };

		for (size_t i = 0; i < 4; i++) {
			t[i] = (struct limiter_ticket){ .owner = &wakes[i] };
			limiter_enter(l, &t[i], i / 2, 1); /* two of each client: a fair turn would be 0 2 1 3 */
		}
		limiter_give(l, 10, 20, 1, 5);
		CU_ASSERT_EQUAL(turn(l, &t[0], 15), LIMITER_GO);
		CU_ASSERT_TRUE(limiter_may_start(l, &t[0], 20));
		CU_ASSERT_FALSE(limiter_may_start(l, &t[0], 21));
		CU_ASSERT_EQUAL(report_of(l, 21).died_total, 1);
		CU_ASSERT_EQUAL(report_of(l, 21).waiting, 4);
		CU_ASSERT_EQUAL(report_of(l, 21).outstanding, 0);
		CU_ASSERT_EQUAL(wake_of(l, &t[0], 21), UINT64_MAX);
		limiter_give(l, 30, 40, 2, 22);
		CU_ASSERT_EQUAL(wake_of(l, &t[0], 22), 30);
		CU_ASSERT_EQUAL(turn(l, &t[0], 30), LIMITER_GO);
		size_t next = queue == LIMITER_FAIR ? 2 : 1; /* its second call was no second turn */
		CU_ASSERT_EQUAL(turn(l, &t[next], 30), LIMITER_GO);
		CU_ASSERT_EQUAL(turn(l, &t[3 - next], 30), LIMITER_WAIT);
		limiter_give(l, 30, 99, 1, 41);
		CU_ASSERT_EQUAL(turn(l, &t[3 - next], 41), LIMITER_GO);
		CU_ASSERT_FALSE(limiter_may_start(l, &t[0], 41)); /* and so does every further time */
		limiter_cancel(l, &t[3 - next], 42);               /* whose slot it then gets */
		CU_ASSERT_EQUAL(turn(l, &t[0], 42), LIMITER_GO);
		CU_ASSERT_TRUE(limiter_may_start(l, &t[0], 42));
		end(l, t, 4, 43);
	}
}

static void with_slots_of_our_own_a_request_may_always_start(void)
{
	struct limiter_options options = { .threshold = 1, .window_us = SECOND };
	struct limiter *l = limiter_create(&options, count_wake);
	struct limiter_ticket t = { .owner = NULL };

	CU_ASSERT_EQUAL(limiter_enter(l, &t, 0, 1), LIMITER_GO);
	CU_ASSERT_EQUAL(t.until_us, UINT64_MAX);
	CU_ASSERT_TRUE(limiter_may_start(l, &t, 99u * SECOND));
	limiter_give(l, 1, UINT64_MAX, 5, 1); /* nobody asked for them */
	limiter_answered(l, 1, 1);
	CU_ASSERT_EQUAL(report_of(l, 1).held, 0);
	limiter_started(l, &t, 2);
	CU_ASSERT_EQUAL(report_of(l, 2).used_total, 0);
	CU_ASSERT_EQUAL(limiter_enter(l, &t, 0, 3), LIMITER_FULL);
	limiter_destroy(l);
}

/* ---- what the master has seen ------------------------------------------------------------ */

static void without_a_backlog_a_request_stands_until_the_first_answer(void)
{
	struct limiter *l = make(3, 0, LIMITER_FIFO);
	unsigned wakes = 0;
	struct limiter_ticket t[4] = { { .owner = &wakes } };

	enter_all(l, t, 3, 10);
	CU_ASSERT_EQUAL(limiter_enter(l, &t[3], 0, 10), LIMITER_FULL); /* a threshold of them, no more */
	limiter_answered(l, 9, 20);                                     /* it had not seen them */
	CU_ASSERT_EQUAL(report_of(l, 20).waiting, 3);
	limiter_give(l, 30, 40, 2, 25);
	limiter_answered(l, 10, 25);
	CU_ASSERT_EQUAL(turn(l, &t[2], 25), LIMITER_FULL); /* the newest; two slots are in hand for the others */
	CU_ASSERT_EQUAL(report_of(l, 25).waiting, 2);
	CU_ASSERT_EQUAL(report_of(l, 25).refused_total, 2);
	CU_ASSERT_EQUAL(turn(l, &t[0], 30), LIMITER_GO);
	CU_ASSERT_FALSE(limiter_may_start(l, &t[0], 41)); /* it came back: of that the master knows nothing yet */
	limiter_answered(l, 40, 42);
	CU_ASSERT_EQUAL(turn(l, &t[0], 42), LIMITER_WAIT);
	wakes = 0;
	limiter_answered(l, 41, 43);
	CU_ASSERT_EQUAL(wakes, 1);
	CU_ASSERT_EQUAL(turn(l, &t[0], 43), LIMITER_FULL);
	end(l, t, 4, 44);
}

static void an_answer_sends_away_only_those_beyond_the_backlog_that_it_saw(void)
{
	struct limiter *l = make(9, 2, LIMITER_FIFO);
	struct limiter_ticket t[7] = { { .owner = NULL } };

	t[4].is_exempt = true;
	enter_all(l, t, 5, 10);
	enter_all(l, &t[5], 2, 20);
	limiter_give(l, 50, 60, 1, 25);
	limiter_answered(l, 10, 30); /* five seen, two in the backlog and one for the slot; t[4] is exempt */
	for (size_t i = 0; i < 7; i++)
		CU_ASSERT_EQUAL(turn(l, &t[i], 30), i == 2 || i == 3 ? LIMITER_FULL : LIMITER_WAIT);
	limiter_answered(l, 10, 31); /* the same again does no more */
	CU_ASSERT_EQUAL(report_of(l, 31).waiting, 5);
	limiter_answered(l, 20, 61); /* and the slot is gone */
	for (size_t i = 0; i < 7; i++)
		CU_ASSERT_EQUAL(turn(l, &t[i], 61), i == 0 || i == 4 ? LIMITER_WAIT : LIMITER_FULL);
	end(l, t, 7, 62);
}

static void an_answer_sends_nobody_away_who_is_exempt(void)
{
	static const enum limiter_queue queues[] = { LIMITER_FIFO, LIMITER_FAIR };

	for (size_t i = 0; i < 2; i++) {
		struct limiter *l = make(10, 0, queues[i]);
		struct limiter_ticket t[3] = { { .is_exempt = true }, { .owner = NULL }, { .is_exempt = true } };

		enter_all(l, t, 3, 5);
		limiter_answered(l, 5, 6);
		CU_ASSERT_EQUAL(turn(l, &t[0], 6), LIMITER_WAIT);
		CU_ASSERT_EQUAL(turn(l, &t[1], 6), LIMITER_FULL);
		CU_ASSERT_EQUAL(turn(l, &t[2], 6), LIMITER_WAIT);
		end(l, t, 3, 7);
	}
}

static void a_fair_line_sends_away_the_newest_of_the_longest(void)
{
	struct limiter *l = make(20, 3, LIMITER_FAIR);
	struct limiter_ticket t[6] = { { .owner = NULL } };
	struct limiter_ticket late = { .owner = NULL };
	static const uint64_t clients[6] = { 1, 1, 1, 1, 2, 3 };

	for (size_t i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &t[i], clients[i], 10), LIMITER_WAIT);
	CU_ASSERT_EQUAL(limiter_enter(l, &late, 4, 20), LIMITER_WAIT);
	limiter_answered(l, 10, 30); /* six seen, three stay: one of each client */
	for (size_t i = 0; i < 6; i++)
		CU_ASSERT_EQUAL(turn(l, &t[i], 30), i >= 1 && i <= 3 ? LIMITER_FULL : LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &late, 30), LIMITER_WAIT);
	limiter_cancel(l, &late, 30);
	end(l, t, 6, 31);
}

/* ---- promises, changes ------------------------------------------------------------ */

static void who_is_refused_is_told_a_time_by_the_line_and_by_what_was_used_lately(void)
{
	struct limiter *l = make(100, 0, LIMITER_FIFO);
	struct limiter_ticket t[100] = { { .owner = NULL } };
	uint64_t now_us = 10u * SECOND + 1, last_us = 0;

	CU_ASSERT_EQUAL(report_of(l, now_us).available, 100);
	CU_ASSERT_EQUAL(report_of(l, now_us).next_slot_us, now_us);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, now_us), SECOND);
	for (unsigned i = 0; i < 10; i++) {
		limiter_give(l, now_us, now_us + 9, 1, now_us);
		CU_ASSERT_EQUAL(limiter_enter(l, &t[0], 0, now_us), LIMITER_GO);
		limiter_started(l, &t[0], now_us);
	}
	CU_ASSERT_EQUAL(report_of(l, now_us).available, 90);
	enter_all(l, t, 100, now_us);
	CU_ASSERT_EQUAL(report_of(l, now_us).available, 0);
	CU_ASSERT_EQUAL(report_of(l, now_us).in_window, 10); /* who waits has started nothing */
	CU_ASSERT_EQUAL(report_of(l, now_us).next_slot_us, now_us + 101u * SECOND / 10);
	uint64_t first_us = limiter_retry_after_us(l, now_us);
	CU_ASSERT_TRUE(first_us >= 10u * SECOND && first_us <= 11u * SECOND); /* 100 in line, ten a second */
	for (unsigned i = 0; i < 1000; i++) {
		last_us = limiter_retry_after_us(l, now_us);
		CU_ASSERT_TRUE(last_us % SECOND == 0 && last_us >= SECOND);
	}
	CU_ASSERT_TRUE(last_us > first_us && last_us <= 17u * SECOND); /* they do not all come back at once */
	CU_ASSERT_EQUAL(report_of(l, now_us + 3u * SECOND).next_slot_us, now_us + 104u * SECOND); /* one a window */
	end(l, t, 100, now_us);
}

static void a_change_to_given_slots_and_back_keeps_the_line_and_refills_nothing(void)
{
	struct limiter_options own = { .threshold = 3, .window_us = SECOND, .backlog = 9 };
	struct limiter_options given = given_options(3, 9, LIMITER_FAIR);
	struct limiter *l = limiter_create(&own, count_wake);
	struct limiter_ticket t[8] = { { .owner = NULL } };
	uint64_t back_us = 5u * SECOND;

	for (size_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(limiter_enter(l, &t[i], i, 1), LIMITER_GO);
	enter_all(l, &t[3], 4, 2);
	CU_ASSERT_EQUAL(limiter_configure(l, &given, 3), 0);
	limiter_started(l, &t[0], 4);
	limiter_cancel(l, &t[1], 4); /* slots of our own: nobody else's now */
	CU_ASSERT_TRUE(limiter_may_start(l, &t[2], back_us));
	CU_ASSERT_EQUAL(report_of(l, 4).waiting, 4);
	CU_ASSERT_EQUAL(turn(l, &t[3], 3u * SECOND), LIMITER_WAIT);
	limiter_give(l, 3u * SECOND, back_us, 2, 3u * SECOND);
	limiter_give(l, 9u * SECOND, 10u * SECOND, 2, 3u * SECOND);
	CU_ASSERT_EQUAL(turn(l, &t[3], 3u * SECOND), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[4], 3u * SECOND), LIMITER_GO);
	limiter_started(l, &t[3], 3u * SECOND);
	CU_ASSERT_EQUAL(report_of(l, 3u * SECOND).used_total, 1);
	CU_ASSERT_EQUAL(limiter_configure(l, &own, back_us), 0);
	CU_ASSERT_EQUAL(report_of(l, back_us).held, 0);
	CU_ASSERT_FALSE(limiter_may_start(l, &t[4], back_us + 1)); /* the group may have given it to another */
	CU_ASSERT_EQUAL(turn(l, &t[5], back_us + SECOND + 3999), LIMITER_WAIT);
	CU_ASSERT_EQUAL(turn(l, &t[4], back_us + SECOND + 4000), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[5], back_us + SECOND + 4000), LIMITER_GO);
	CU_ASSERT_EQUAL(turn(l, &t[6], back_us + SECOND + 4000), LIMITER_WAIT); /* t[2] has not started yet */
	CU_ASSERT_EQUAL(report_of(l, back_us + SECOND + 4000).outstanding, 3);
	end(l, t, 8, back_us + SECOND + 4000);
}

static void without_a_threshold_nothing_needs_to_be_given(void)
{
	struct limiter *l = make(0, 0, LIMITER_FIFO);
	struct limiter_options limited = given_options(2, 0, LIMITER_FIFO);
	struct limiter_ticket t = { .owner = NULL };

	CU_ASSERT_EQUAL(limiter_enter(l, &t, 0, 1), LIMITER_GO);
	CU_ASSERT_TRUE(limiter_may_start(l, &t, 1));
	limiter_started(l, &t, 1);
	CU_ASSERT_EQUAL(limiter_retry_after_us(l, 1), 0);
	CU_ASSERT_EQUAL(limiter_configure(l, &limited, 2), 0);
	CU_ASSERT_EQUAL(limiter_enter(l, &t, 0, 3), LIMITER_WAIT);
	limiter_cancel(l, &t, 4);
	limiter_destroy(l);
}

/* ---- a model, over random histories ------------------------------------------------------------ */

#define TICKETS 20u
#define SLOTS_MAX 400u

enum place { OUTSIDE, WAITING, GOING, REFUSED };

struct model {
	struct { uint64_t from_us, until_us; } slots[SLOTS_MAX];
	size_t slot_count;
	size_t queue[TICKETS];
	uint64_t queue_entered_us[TICKETS];
	unsigned waiting, threshold, backlog;
	unsigned returned; /* so many, first in the queue, were called before */
	enum place place[TICKETS];
	uint64_t until_us[TICKETS];
	uint64_t used_total, died_total, late_us_total;
	/* What a request knows: it asks again only then. */
	unsigned wakes[TICKETS];
	uint64_t alarm_us[TICKETS];
};

static void model_drop(struct model *m, size_t at)
{
	m->slots[at] = m->slots[--m->slot_count];
}

static void model_bury(struct model *m, uint64_t now_us)
{
	for (size_t i = 0; i < m->slot_count;)
		if (m->slots[i].until_us < now_us) {
			model_drop(m, i);
			m->died_total++;
		} else {
			i++;
		}
}

static bool model_take(struct model *m, size_t ticket, uint64_t now_us)
{
	size_t best = SIZE_MAX;

	model_bury(m, now_us);
	for (size_t i = 0; i < m->slot_count; i++)
		if (m->slots[i].from_us <= now_us &&
		    (best == SIZE_MAX || m->slots[i].until_us < m->slots[best].until_us))
			best = i;
	if (best == SIZE_MAX)
		return false;
	m->until_us[ticket] = m->slots[best].until_us;
	m->place[ticket] = GOING;
	model_drop(m, best);
	return true;
}

static void model_leave(struct model *m, unsigned at, enum place to)
{
	m->place[m->queue[at]] = to;
	memmove(&m->queue[at], &m->queue[at + 1], (m->waiting - at - 1) * sizeof(m->queue[0]));
	memmove(&m->queue_entered_us[at], &m->queue_entered_us[at + 1], (m->waiting - at - 1) * sizeof(uint64_t));
	m->waiting--;
	m->returned -= at < m->returned;
}

static void model_insert(struct model *m, unsigned at, size_t ticket, uint64_t now_us)
{
	memmove(&m->queue[at + 1], &m->queue[at], (m->waiting - at) * sizeof(m->queue[0]));
	memmove(&m->queue_entered_us[at + 1], &m->queue_entered_us[at], (m->waiting - at) * sizeof(uint64_t));
	m->queue[at] = ticket;
	m->queue_entered_us[at] = now_us;
	m->waiting++;
	m->place[ticket] = WAITING;
}

static void model_serve(struct model *m, uint64_t now_us)
{
	model_bury(m, now_us);
	while (m->waiting > 0 && model_take(m, m->queue[0], now_us))
		model_leave(m, 0, GOING);
}

static void model_give_back(struct model *m, uint64_t until_us, uint64_t now_us)
{
	m->slots[m->slot_count].from_us = 0;
	m->slots[m->slot_count++].until_us = until_us;
	model_bury(m, now_us);
}

static void model_answered(struct model *m, uint64_t asked_us)
{
	unsigned seen = 0;

	for (unsigned i = 0; i < m->waiting; i++)
		seen += m->queue_entered_us[i] <= asked_us;
	for (unsigned i = m->waiting; i-- > 0 && seen > m->backlog + m->slot_count;)
		if (m->queue_entered_us[i] <= asked_us) {
			/* Of those that returned the newest came back last: the order is the same. */
			model_leave(m, i, REFUSED);
			seen--;
		}
}

struct history {
	struct model m;
	struct limiter *l;
	struct limiter_ticket tickets[TICKETS];
	unsigned seed;
	uint64_t now_us;
};

static unsigned upto(struct history *h, unsigned limit)
{
	return (unsigned)rand_r(&h->seed) % (limit + 1);
}

/* It enters, or does what its answer lets it do. */
static bool act(struct history *h, size_t i)
{
	struct model *m = &h->m;
	struct limiter_ticket *t = &h->tickets[i];
	enum limiter_answer expected = LIMITER_GO;

	switch (m->place[i]) {
	case OUTSIDE:
		m->wakes[i] = 0;
		m->alarm_us[i] = 0; /* asks right after */
		if (m->waiting > 0 || !model_take(m, i, h->now_us)) {
			expected = m->waiting < m->backlog + m->threshold ? LIMITER_WAIT : LIMITER_FULL;
			if (expected == LIMITER_WAIT)
				model_insert(m, m->waiting, i, h->now_us);
		}
		return limiter_enter(h->l, t, 0, h->now_us) == expected;
	case GOING:
		if (upto(h, 4) == 0) {
			model_give_back(m, m->until_us[i], h->now_us);
			m->place[i] = OUTSIDE;
			limiter_cancel(h->l, t, h->now_us);
			return true;
		}
		if (h->now_us > m->until_us[i]) {
			m->died_total++;
			model_insert(m, m->returned++, i, h->now_us);
			m->alarm_us[i] = 0;
			return !limiter_may_start(h->l, t, h->now_us);
		}
		if (!limiter_may_start(h->l, t, h->now_us))
			return false;
		h->now_us += upto(h, 30); /* the send takes time */
		m->used_total++;
		m->late_us_total += h->now_us > m->until_us[i] ? h->now_us - m->until_us[i] : 0;
		m->place[i] = OUTSIDE;
		limiter_started(h->l, t, h->now_us);
		return true;
	default:
		return true;
	}
}

/* Woken, or its time has come. */
static bool ask(struct history *h, size_t i)
{
	enum place place = h->m.place[i];
	enum limiter_answer expected = place == WAITING ? LIMITER_WAIT : place == GOING ? LIMITER_GO : LIMITER_FULL;

	h->m.wakes[i] = 0;
	if (limiter_turn(h->l, &h->tickets[i], h->now_us, &h->m.alarm_us[i]) != expected)
		return false;
	if (place == REFUSED)
		h->m.place[i] = OUTSIDE;
	return place == REFUSED || place == GOING ? act(h, i) : true;
}

static bool one_event(struct history *h)
{
	struct model *m = &h->m;
	size_t i = upto(h, TICKETS - 1);
	unsigned count = upto(h, 3);

	switch (upto(h, 5)) {
	case 0: {
		uint64_t from_us = h->now_us + upto(h, 200), until_us = from_us + upto(h, 60);

		for (unsigned k = 0; k < count && m->slot_count < SLOTS_MAX / 2; k++) {
			m->slots[m->slot_count].from_us = from_us;
			m->slots[m->slot_count++].until_us = until_us;
			limiter_give(h->l, from_us, until_us, 1, h->now_us);
		}
		return true;
	}
	case 1: {
		uint64_t asked_us = h->now_us - upto(h, 150);

		model_answered(m, asked_us);
		limiter_answered(h->l, asked_us, h->now_us);
		return true;
	}
	default:
		if (m->place[i] == WAITING && upto(h, 9) == 0) {
			unsigned at = 0;

			while (m->queue[at] != i)
				at++;
			model_leave(m, at, OUTSIDE);
			limiter_cancel(h->l, &h->tickets[i], h->now_us);
			return true;
		}
		if (m->place[i] == OUTSIDE)
			return act(h, i);
		return m->wakes[i] > 0 || m->alarm_us[i] <= h->now_us ? ask(h, i) : true;
	}
}

/* Nobody's turn has come, and no front's time is known, of which it does not hear. */
static bool nobody_sleeps_through(const struct history *h)
{
	const struct model *m = &h->m;
	uint64_t next_us = UINT64_MAX;

	for (size_t i = 0; i < m->slot_count; i++)
		next_us = m->slots[i].from_us < next_us ? m->slots[i].from_us : next_us;
	if (m->waiting > 0 && m->wakes[m->queue[0]] == 0 && m->alarm_us[m->queue[0]] > next_us)
		return false;
	for (size_t i = 0; i < TICKETS; i++)
		if ((m->place[i] == GOING || m->place[i] == REFUSED) && m->wakes[i] == 0 && m->alarm_us[i] > h->now_us)
			return false;
	return true;
}

static bool same(struct history *h)
{
	struct limiter_report r = report_of(h->l, h->now_us);

	return r.waiting == h->m.waiting && r.held == h->m.slot_count && r.used_total == h->m.used_total &&
	       r.died_total == h->m.died_total && r.late_us_total == h->m.late_us_total;
}

static void the_limiter_does_what_a_plain_model_does_and_no_wake_up_is_lost(void)
{
	static struct history h;
	uint64_t used = 0, died = 0, late = 0, refused = 0;

	for (unsigned seed = 1; seed <= 3000; seed++) {
		memset(&h, 0, sizeof(h));
		h.seed = seed;
		h.now_us = 1000;
		h.m.threshold = 1 + seed % 7;
		h.m.backlog = seed / 7 % 6;
		h.l = make(h.m.threshold, h.m.backlog, LIMITER_FIFO);
		for (size_t i = 0; i < TICKETS; i++)
			h.tickets[i].owner = &h.m.wakes[i];
		for (unsigned step = 0; step < 400; step++) {
			h.now_us += upto(&h, 20);
			model_serve(&h.m, h.now_us);
			limiter_give(h.l, 1, 1, 0, h.now_us); /* gives nothing: time passes in both */
			bool fine = one_event(&h);
			model_serve(&h.m, h.now_us);
			limiter_give(h.l, 1, 1, 0, h.now_us);
			if (!fine || !same(&h) || !nobody_sleeps_through(&h)) {
				printf("seed %u differs at step %u\n", seed, step);
				CU_FAIL("the limiter and the model differ");
				return;
			}
		}
		used += h.m.used_total;
		died += h.m.died_total;
		late += h.m.late_us_total;
		refused += report_of(h.l, h.now_us).refused_total;
		end(h.l, h.tickets, TICKETS, h.now_us);
	}
	CU_ASSERT_TRUE(used > 10000 && died > 10000 && late > 10000 && refused > 10000);
}

/* ---- from many threads at once ------------------------------------------------------------ */

#define THREADS 6u
#define REQUESTS_EACH 800u

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
	unsigned sent;
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
		if (answer == LIMITER_FULL)
			return false;
		if (answer == LIMITER_GO && limiter_may_start(w->limiter, ticket, look()))
			return true;
		if (answer == LIMITER_GO)
			continue;
		while (!atomic_load(&w->woken) && look() < wake_us)
			sched_yield();
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	unsigned seed = w->number;

	while (w->sent < REQUESTS_EACH) {
		struct limiter_ticket ticket = { .owner = w };
		enum limiter_answer answer = limiter_enter(w->limiter, &ticket, w->number % 4, look());

		if (answer == LIMITER_FULL || !wait_for_turn(w, &ticket)) {
			sched_yield();
			continue;
		}
		if (rand_r(&seed) % 16 == 0) {
			limiter_cancel(w->limiter, &ticket, look());
			continue;
		}
		limiter_started(w->limiter, &ticket, look());
		w->sent++;
	}
	return NULL;
}

static void many_threads_are_served_by_a_master_that_gives_and_answers(void)
{
	static struct worker workers[THREADS];
	struct limiter_options options = given_options(4, 1, LIMITER_FAIR);
	uint64_t given = 0;

	options.window_us = 200;
	struct limiter *l = limiter_create(&options, wake_worker);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].limiter = l;
		workers[i].number = i;
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	while (report_of(l, look()).started_total < THREADS * REQUESTS_EACH) {
		uint64_t asked_us = look(), now_us = look();

		/* Some die soon; not all, for on a busy machine no thread might run in time. */
		limiter_give(l, now_us + 20, now_us + (given % 4 == 0 ? 2000 : 200000), 2, now_us);
		given += 2;
		if (given % 16 == 0)
			limiter_answered(l, asked_us, look());
		if (given % 1000 == 0) {
			options.queue = given % 2000 == 0 ? LIMITER_FAIR : LIMITER_FIFO;
			CU_ASSERT_EQUAL(limiter_configure(l, &options, look()), 0);
		}
		sched_yield();
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	struct limiter_report r = report_of(l, look());
	CU_ASSERT_EQUAL(r.used_total, THREADS * REQUESTS_EACH);
	CU_ASSERT_EQUAL(r.used_total + r.died_total + r.held, given); /* none was lost, none was used twice */
	CU_ASSERT_TRUE(r.waiting == 0 && r.outstanding == 0);
	limiter_destroy(l);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_given_slot_is_used_not_before_its_time_and_the_front_is_told_when),
		TEST(a_slot_that_died_is_counted_and_not_used_and_those_in_line_stay),
		TEST(who_comes_when_a_slot_is_there_and_nobody_waits_goes_at_once),
		TEST(of_the_slots_that_have_begun_the_one_that_dies_first_is_used),
		TEST(the_list_of_slots_is_bounded_and_those_that_die_first_go),
		TEST(the_one_that_dies_first_is_found_wherever_it_stands),
		TEST(the_dead_go_from_between_the_living),
		TEST(one_too_many_throws_away_what_dies_first_wherever_it_stands),
		TEST(what_was_used_lately_is_told_by_this_window_and_the_last),
		TEST(who_may_not_start_any_more_stands_ahead_of_all_in_either_kind_of_line),
		TEST(with_slots_of_our_own_a_request_may_always_start),
		TEST(without_a_backlog_a_request_stands_until_the_first_answer),
		TEST(an_answer_sends_away_only_those_beyond_the_backlog_that_it_saw),
		TEST(an_answer_sends_nobody_away_who_is_exempt),
		TEST(a_fair_line_sends_away_the_newest_of_the_longest),
		TEST(who_is_refused_is_told_a_time_by_the_line_and_by_what_was_used_lately),
		TEST(a_change_to_given_slots_and_back_keeps_the_line_and_refills_nothing),
		TEST(without_a_threshold_nothing_needs_to_be_given),
		TEST(the_limiter_does_what_a_plain_model_does_and_no_wake_up_is_lost),
		TEST(many_threads_are_served_by_a_master_that_gives_and_answers),
	};

	return unit_main("limiter_given", tests, LENGTH(tests));
}
