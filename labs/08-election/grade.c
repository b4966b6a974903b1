/* grade.c: lab 8's graded tests. Each is a plan for the stage: who begins when, what goes wrong, and what must be so in the end.
 *
 * The last one has no plan of its own: it takes the adversary's, random_plan.c of the simulation, a hundred of them from --seed on.
 */
#include "labs/08-election/stage.h"

#include <stdio.h>
#include <string.h>

#include "labs/grade.h"

#define ADVERSARIES 100u

static struct plan plan;
static struct stage_rules rules;

static const struct road calm_road = { .delay_us = 200, .jitter_us = 800 };

/* nodes: so many, with the ids 10, 20, 30, ... first: the bits of those that begin at once. */
static void begin_plan(unsigned nodes, unsigned first, uint64_t end_us)
{
	memset(&plan, 0, sizeof plan);
	memset(&rules, 0, sizeof rules);
	rules.pairs_from_us = 3 * SECOND;
	plan.seed = grade_seed();
	plan.node_count = nodes;
	plan.end_us = end_us;
	plan.road = calm_road;
	for (unsigned i = 0; i < nodes; i++)
		plan.nodes[i].id = 10 * (i + 1);
	plan_fault(&plan, (struct fault){ .kind = FAULT_START, .nodes = first, .at_us = 1000 });
}

static void run(const struct stage_claim *claims)
{
	rules.claims = claims;
	if (!stage_run(&plan, &rules))
		grade_fail("%s", rules.failure);
}

static void a_node_that_is_alone_listens_and_then_is_master(void)
{
	static const struct stage_claim claims[] = {
		{ 0, 300 * MS, 1, 0, "node 10 has not listened for 0.3 s yet, and does not say that it knows nobody" },
		{ 2000 * MS, 9 * SECOND, 1, 10, "node 10 is alone for 2 s and still not master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(1, 1, 5 * SECOND);
	run(claims);
}

static void three_nodes_agree_on_the_lowest_id(void)
{
	static const struct stage_claim claims[] = {
		{ 2 * SECOND, 9 * SECOND, 7, 10, "three nodes are there for 2 s, and not all take 10 for master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 9 * SECOND);
	rules.pairs_from_us = 0;
	run(claims);
}

static void nodes_in_calm_do_not_chatter(void)
{
	begin_plan(5, 31, 21 * SECOND);
	run(NULL);
	if (rules.most_sent == 0)
		grade_fail("%s", "no node has sent a single datagram");
	grade_check(rules.most_sent <= 21 * ELECTION_BEATS_MAX, "a node sent %llu datagrams in 21 s; %u a second are allowed",
	            (unsigned long long)rules.most_sent, ELECTION_BEATS_MAX);
}

static void when_the_master_dies_there_is_another_within_1500_ms(void)
{
	static const struct stage_claim claims[] = {
		{ 3500 * MS, 5000 * MS, 7, 10, "10 is alive, and not everybody's master" },
		{ 6500 * MS, 12 * SECOND, 6, 20, "10 has been dead for 1.5 s, and no node took 20 for master, or not both" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 12 * SECOND);
	plan_fault(&plan, (struct fault){ .kind = FAULT_CRASH, .nodes = 1, .at_us = 5 * SECOND });
	run(claims);
}

static void when_the_master_says_goodbye_nobody_waits(void)
{
	static const struct stage_claim claims[] = {
		{ 5500 * MS, 12 * SECOND, 6, 20, "10 said goodbye 0.5 s ago, and not all take 20 for master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 12 * SECOND);
	plan_fault(&plan, (struct fault){ .kind = FAULT_LEAVE, .nodes = 1, .at_us = 5 * SECOND });
	run(claims);
}

static void a_lower_id_takes_over_and_there_are_never_two(void)
{
	static const struct stage_claim claims[] = {
		{ 3 * SECOND, 5 * SECOND, 6, 20, "20 and 30 are there, and not both take 20 for master" },
		{ 7 * SECOND, 12 * SECOND, 7, 10, "10 came 2 s ago, and is not yet everybody's master" },
		{ 0, 0, 0, 0, NULL },
	};

	for (unsigned i = 0; i < 20; i++) {
		begin_plan(3, 6, 12 * SECOND);
		plan.seed += i;
		plan_fault(&plan, (struct fault){ .kind = FAULT_START, .nodes = 1, .at_us = 5 * SECOND });
		rules.claims = claims;
		if (!stage_run(&plan, &rules)) {
			grade_fail("%s", rules.failure);
			return;
		}
	}
}

static void with_20_percent_lost_the_master_stays(void)
{
	static const struct stage_claim claims[] = {
		{ 5 * SECOND, 90 * SECOND, 7, 10, "all are alive, a fifth of the datagrams is lost, and 10 is not everybody's master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 60 * SECOND);
	plan.road = (struct road){ .delay_us = 200, .jitter_us = 60000, .lost_per_million = 200000, .doubled_per_million = 200000 };
	run(claims);
}

static void a_master_that_can_hear_nobody_is_replaced(void)
{
	static const struct stage_claim claims[] = {
		{ 7 * SECOND, 12 * SECOND, 6, 20, "10 is heard, but can hear nobody: it answers nothing, and 20 is not yet master of 20 and 30" },
		{ 0, 0, 0, 0, NULL },
	};
	struct road cut = calm_road;

	begin_plan(3, 7, 12 * SECOND);
	cut.is_cut = true;
	plan_fault(&plan, (struct fault){ .kind = FAULT_ROAD, .nodes = 6, .others = 1, .road = cut, .at_us = 5 * SECOND });
	run(claims);
}

static void a_master_that_stood_still_goes_on_as_a_newcomer(void)
{
	static const struct stage_claim claims[] = {
		{ 6500 * MS, 8 * SECOND, 6, 20, "10 has stood still for 1.5 s, and 20 is not yet master" },
		{ 8 * SECOND + 2, 8 * SECOND + 50 * MS, 1, 0, "10 went on after it had stood still for 3 s, and does not begin as a newcomer does, "
		                                               "who listens first (it can see by its clock that it did not run)" },
		{ 10 * SECOND, 14 * SECOND, 7, 10, "10 went on 2 s ago, and is not yet everybody's master again" },
		{ 0, 0, 0, 0, NULL },
	};

	for (unsigned i = 0; i < 20; i++) {
		begin_plan(3, 7, 14 * SECOND);
		plan.seed += i;
		plan_fault(&plan, (struct fault){ .kind = FAULT_PAUSE, .nodes = 1, .at_us = 5 * SECOND, .for_us = 3 * SECOND });
		rules.claims = claims;
		if (!stage_run(&plan, &rules)) {
			grade_fail("%s", rules.failure);
			return;
		}
	}
}

static void datagrams_of_the_dead_and_garbage_wake_nobody(void)
{
	static const struct stage_claim claims[] = {
		{ 7 * SECOND, 14 * SECOND, 6, 20, "10 has been dead for 2 s, somebody plays its old datagrams again, and 20 is not master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 14 * SECOND);
	plan_fault(&plan, (struct fault){ .kind = FAULT_ATTACK, .nodes = 0, .at_us = 4 * SECOND, .for_us = 10 * SECOND, .threshold = 2000 });
	plan_fault(&plan, (struct fault){ .kind = FAULT_CRASH, .nodes = 1, .at_us = 5 * SECOND });
	run(claims);
}

static void a_split_group_has_two_masters_and_one_when_it_meets(void)
{
	static const struct stage_claim claims[] = {
		{ 6500 * MS, 9 * SECOND, 3, 10, "the group has been split for 1.5 s, and 10 is not master of 10 and 20" },
		{ 6500 * MS, 9 * SECOND, 12, 30, "the group has been split for 1.5 s, and 30 is not master of 30 and 40" },
		{ 10500 * MS, 14 * SECOND, 15, 10, "the parts met 1.5 s ago, and 10 is not everybody's master" },
		{ 0, 0, 0, 0, NULL },
	};
	struct road cut = calm_road;

	begin_plan(4, 15, 14 * SECOND);
	cut.is_cut = true;
	plan_fault(&plan, (struct fault){ .kind = FAULT_ROAD, .nodes = 3, .others = 12, .road = cut, .at_us = 5 * SECOND });
	plan_fault(&plan, (struct fault){ .kind = FAULT_ROAD, .nodes = 12, .others = 3, .road = cut, .at_us = 5 * SECOND });
	plan_fault(&plan, (struct fault){ .kind = FAULT_CALM, .nodes = 0, .at_us = 9 * SECOND });
	rules.overlap_us = 1500 * MS;
	run(claims);
}

/* Two nodes with one id are another exercise. */
static bool has_twins(void)
{
	for (unsigned i = 0; i < plan.node_count; i++)
		for (unsigned k = 0; k < i; k++)
			if (plan.nodes[i].id == plan.nodes[k].id)
				return true;
	return false;
}

static void a_hundred_of_the_adversarys_seeds(void)
{
	static char lost[STAGE_TEXT_MAX];
	uint64_t seed = grade_seed(), lost_seed = 0;
	unsigned won = 0;

	for (unsigned i = 0; i < ADVERSARIES; seed++) {
		plan_random(&plan, seed);
		if (has_twins())
			continue;
		i++;
		memset(&rules, 0, sizeof rules);
		rules.overlap_us = 1500 * MS;
		rules.settle_us = 3 * SECOND;
		if (stage_run(&plan, &rules)) {
			won++;
		} else if (lost_seed == 0) {
			lost_seed = seed;
			memcpy(lost, rules.failure, sizeof lost);
		}
	}
	if (won < ADVERSARIES)
		grade_partial((int)won / 10, "%u of %u seeds were won: a point for every ten. The first that was lost (again: make lab N=8 ONLY=seeds SEED=%llu):\n%s",
		              won, ADVERSARIES, (unsigned long long)lost_seed, lost);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(2, a_node_that_is_alone_listens_and_then_is_master),
		GRADE(4, three_nodes_agree_on_the_lowest_id),
		GRADE(2, nodes_in_calm_do_not_chatter),
		GRADE(5, when_the_master_dies_there_is_another_within_1500_ms),
		GRADE(2, when_the_master_says_goodbye_nobody_waits),
		GRADE(3, a_lower_id_takes_over_and_there_are_never_two),
		GRADE(3, with_20_percent_lost_the_master_stays),
		GRADE(3, a_master_that_can_hear_nobody_is_replaced),
		GRADE(3, a_master_that_stood_still_goes_on_as_a_newcomer),
		GRADE(3, datagrams_of_the_dead_and_garbage_wake_nobody),
		GRADE(3, a_split_group_has_two_masters_and_one_when_it_meets),
		GRADE(10, a_hundred_of_the_adversarys_seeds),
	};

	return grade_main("08-election", tests, sizeof tests / sizeof *tests, argc, argv);
}
