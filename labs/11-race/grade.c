/* grade.c: lab 11's graded tests: each scene with many seeds. The first that goes wrong is drawn. */
#include "labs/11-race/scenes.h"

#include <inttypes.h>
#include <stdio.h>

#include "labs/grade.h"

#define SEEDS 1200u

static void try_scene(unsigned scene)
{
	static char text[SCENE_TEXT_MAX], first[SCENE_TEXT_MAX];
	uint64_t wrong_seed = 0;
	unsigned wrong = 0;

	for (uint64_t seed = grade_seed(); seed < grade_seed() + SEEDS; seed++) {
		if (scene_play(scene, seed, text))
			continue;
		if (wrong++ == 0) {
			wrong_seed = seed;
			snprintf(first, sizeof first, "%s", text);
		}
		if (wrong == 20)
			break;
	}
	if (wrong > 0)
		grade_fail("%s%u seeds go wrong, the first is %" PRIu64 " (make replay SEED=%" PRIu64 " SCENE=%u):\n%s",
		           wrong == 20 ? "at least " : "", wrong, wrong_seed, wrong_seed, scene + 1, first);
}

static void everybody_who_leaves_is_counted(void)
{
	try_scene(0);
}

static void never_two_in_a_gate_for_one_and_all_come_through(void)
{
	try_scene(1);
}

static void never_three_in_a_gate_for_two(void)
{
	try_scene(2);
}

static void a_gate_that_is_closed_lets_all_who_wait_go(void)
{
	try_scene(3);
}

static void two_threads_look_at_both_gates(void)
{
	try_scene(4);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(6, everybody_who_leaves_is_counted), GRADE(8, never_two_in_a_gate_for_one_and_all_come_through),
		GRADE(4, never_three_in_a_gate_for_two),   GRADE(6, a_gate_that_is_closed_lets_all_who_wait_go),
		GRADE(6, two_threads_look_at_both_gates),
	};

	return grade_main("11-race", tests, sizeof tests / sizeof *tests, argc, argv);
}
