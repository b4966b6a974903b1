/* test_line.c: a turn in a limiter's line, for who will not stand there.
 *
 *      line_try ──► a slot is free: it is held until it is used or given back
 *          └──────► none is: no place in line is kept, so nothing comes later for somebody who has left
 *
 * A place that was kept would be given the next slot, and nobody would ever use it or give it back: that slot would be lost,
 * and with each another. No test waits: the window is an hour, and who must not wait is asked to.
 */
#include "line.h"

#include <string.h>

#include "lib/clock.h"
#include "unit.h"

static struct limiter *limiter_of(unsigned threshold, unsigned backlog)
{
	struct limiter_options options = { .threshold = threshold, .window_us = 3600 * US_PER_S, .backlog = backlog };
	struct limiter *l = limiter_create(&options, line_wake);
	CU_ASSERT_PTR_NOT_NULL_FATAL(l);
	return l;
}

static void begin_turn(struct line_turn *turn, struct limiter *limiter)
{
	memset(turn, 0, sizeof *turn);
	turn->limiter = limiter;
}

static struct limiter_report report_of(struct limiter *limiter)
{
	struct limiter_report report;
	limiter_report(limiter, clock_us(), &report);
	return report;
}

static void who_only_tries_leaves_no_place_in_line_behind(void)
{
	struct limiter *l = limiter_of(1, 2);
	struct line_turn holds, tries;
	begin_turn(&holds, l);
	begin_turn(&tries, l);
	CU_ASSERT_TRUE(line_try(&holds, 1, false));
	for (unsigned i = 0; i < 5; i++) { /* more often than the line has places, with and without the right to stand behind it */
		CU_ASSERT_FALSE(line_try(&tries, 2, i % 2 == 1));
		CU_ASSERT_FALSE(tries.has_slot);
		CU_ASSERT_EQUAL(report_of(l).waiting, 0);
	}
	CU_ASSERT_EQUAL(report_of(l).refused_total, 0);
	line_give_back(&holds);
	/* It is nobody's in line: so it is there for who comes next. */
	CU_ASSERT_EQUAL(report_of(l).outstanding, 0);
	CU_ASSERT_TRUE(line_try(&tries, 2, false));
	CU_ASSERT_TRUE(line_try(&tries, 2, false)); /* it holds one already: no other is taken */
	CU_ASSERT_EQUAL(report_of(l).outstanding, 1);
	line_use(&tries, clock_us());
	CU_ASSERT_EQUAL(report_of(l).started_total, 1);
	CU_ASSERT_FALSE(line_try(&tries, 2, false));
	line_give_back(&tries); /* none is held: nothing happens */
	CU_ASSERT_EQUAL(report_of(l).in_window, 1);
	limiter_destroy(l);
}

static void who_tries_where_there_is_no_line_is_refused_and_holds_nothing(void)
{
	struct limiter *l = limiter_of(1, 0);
	struct line_turn holds, tries;
	begin_turn(&holds, l);
	begin_turn(&tries, l);
	CU_ASSERT_TRUE(line_try(&holds, 1, false));
	CU_ASSERT_FALSE(line_try(&tries, 2, false));
	CU_ASSERT_EQUAL(report_of(l).refused_total, 1);
	CU_ASSERT_EQUAL(report_of(l).outstanding, 1);
	line_give_back(&tries); /* the slot is the other's, and stays so */
	CU_ASSERT_EQUAL(report_of(l).outstanding, 1);
	line_use(&holds, clock_us());
	limiter_destroy(l);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(who_only_tries_leaves_no_place_in_line_behind),
		TEST(who_tries_where_there_is_no_line_is_refused_and_holds_nothing),
	};
	return unit_main("line", tests, sizeof tests / sizeof tests[0]);
}
