/* unit.h: what every tests/unit/test_ROOM.c has in common.
 *
 * A room's tests are one program: a list of functions whose names are sentences, and a main() that hands the list over.
 *
 *      #include "limiter.h"
 *      #include "unit.h"
 *
 *      static void a_threshold_of_nought_lets_everything_through(void)
 *      {
 *              ...
 *              CU_ASSERT_EQUAL(limiter_enter(l, &ticket, 0, now_us), LIMITER_GO);
 *      }
 *
 *      int main(void)
 *      {
 *              static const struct unit_test tests[] = {
 *                      TEST(a_threshold_of_nought_lets_everything_through),
 *              };
 *              return unit_main("limiter", tests, sizeof tests / sizeof tests[0]);
 *      }
 *
 * One program for each room because CUnit runs its tests in its own process: a crash takes the rest of the program with
 * it, and so it takes one room, not all of them.
 *
 * The environment: UNIT_ONLY=text runs the tests whose name contains text, UNIT_NOT=text those whose name does not (several texts
 * have commas between them), UNIT_VERBOSE=1 prints every test's name, UNIT_STOP=1 ends the run at the first test that fails,
 * UNIT_SECONDS=n is how long one test may take (60).
 *
 * CUnit counts without a lock: assert in the test's own thread only, and let other threads leave what they saw in a
 * variable.
 */
#ifndef WEIR_UNIT_H
#define WEIR_UNIT_H

#include <CUnit/CUnit.h>
#include <stddef.h>

struct unit_test {
	const char *name;
	void (*run)(void);
};

#define TEST(f) { #f, f }

/* Runs the tests in order as one suite and prints "N passed, N failed" as its last line; N counts tests. A test fails
   when one of its assertions does, and when it makes none: a test must be able to fail. Returns what main() should: 0
   when every test passed and at least one ran, else 1. The names and the array must live until it returns. Call it
   once, from main(). */
int unit_main(const char *suite, const struct unit_test *tests, size_t count);

#endif
