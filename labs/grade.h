/* grade.h: what the graders of the labs (labs/NN-name/grade.c) have in common.
 *
 * A grader is a program: a list of tests, each worth some points, linked with the student's file and the rest of weir.
 *
 *      #include "balancer.h"
 *      #include "labs/grade.h"
 *
 *      static void ten_picks_of_three_targets_come_in_turn(void)
 *      {
 *              ...
 *              grade_check(slot == i % 3, "pick %u gave target %c, and it was %c's turn", i, name(slot), name(i % 3));
 *      }
 *
 *      int main(int argc, char **argv)
 *      {
 *              static const struct grade_test tests[] = {
 *                      GRADE(5, ten_picks_of_three_targets_come_in_turn),
 *              };
 *              return grade_main("01-rotation", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
 *      }
 *
 * It prints a line for each test, then, deeper, why points were lost, and the sum:
 *
 *        5/5   ten picks of three targets come in turn
 *        0/5   a dead target is not picked
 *              pick 4 gave target B, which left the rotation before pick 2
 *      score 5/10
 *
 * Each test runs in a process of its own, with a deadline: one that crashes or hangs costs its own points and no
 * others. What the student's code prints appears above the line of its test.
 */
#ifndef WEIR_GRADE_H
#define WEIR_GRADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grade_test {
	const char *what; /* a sentence; underscores are printed as blanks */
	int points;       /* at least 1 */
	void (*run)(void);
};

#define GRADE(points, function) { #function, points, function }

/* Runs the tests in order and prints what became of them. Returns what main() should: 0 with all points, 1 with fewer,
   2 when it was called wrongly. lab is the folder's name. The arguments:
        --list        print the tests and their points, run nothing
        --only TEXT   run the tests whose sentence has TEXT in it
        --seed N      what grade_seed() gives: another N, other random numbers (1)
        --here        no process for each test and no deadline: for a debugger
   GRADE_SECONDS in the environment is the deadline of each test (10). Call it once, from main(). */
int grade_main(const char *lab, const struct grade_test *tests, size_t count, int argc, char **argv);

/* The next three are for a running test, from any of its threads. The text is printed below the test's line; it may
   have several lines. After a few texts the rest are only counted. */

/* This test gets no points. It goes on: return, if there is nothing more to see. */
void grade_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* This test gets no more than points. */
void grade_partial(int points, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* grade_fail() with that text, unless it holds. Returns holds. */
bool grade_check(bool holds, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Of --seed. A test that draws random numbers begins with it, so that each run draws the same. */
uint64_t grade_seed(void);

/* Runs work(argument) in that many threads at once, over and over, and meanwhile stops one after another of them in the
   middle of whatever it is at, until the others got on (or cannot, for it holds a lock that they need). So what may
   happen between two instructions of a thread does happen, on one processor too. Returns how often work was called,
   after all threads have ended; 0 when none could be started, and the test has failed. Not for code that leaves a
   system call when a signal comes. */
unsigned long grade_crowd(unsigned threads, void (*work)(void *argument), void *argument);

#endif
