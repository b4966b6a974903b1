#include "balancer.h"
#include "labs/grade.h"

static void release(void *item)
{
	(void)item;
}

static void three_targets_come_in_turn(void)
{
	static const struct balancer_entry entries[] = { { "A", 1, false, NULL }, { "B", 1, false, NULL }, { "C", 1, false, NULL } };
	struct balancer_options options = { .policy = BALANCER_ROUNDROBIN, .probe_interval_us = 1000000, .probe_rise = 1, .probe_fall = 1 };
	struct balancer *b = balancer_create(&options, release);
	struct balancer_pick pick;

	balancer_set_targets(b, entries, 3, 0);
	for (unsigned i = 0; i < 9; i++) {
		struct balancer_tried tried = { .count = 0 };

		grade_check(balancer_pick(b, 0, &tried, &pick), "pick %u found nobody", i);
		grade_check(pick.slot == i % 3, "pick %u gave %c", i, 'A' + (int)pick.slot);
		balancer_done(b, &pick);
	}
	balancer_destroy(b);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = { GRADE(5, three_targets_come_in_turn) };

	return grade_main("01-rotation", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
