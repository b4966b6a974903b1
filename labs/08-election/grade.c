/* grade.c: lab 8's graded tests. Each is a plan for the stage: who begins when, what goes wrong, and what must be so
 * in the end.
 *
 * The last ones have no plan of their own: they take the adversary's, random_plan.c of the simulation, fifty of them:
 * ten from each thousandth seed, from --seed on.
 */
#include "labs/08-election/election.h"

#include <stdio.h>
#include <string.h>

#include "labs/grade.h"
#include "labs/stage.h"

#define ADVERSARIES 10u

/* From from_us until until_us these nodes (bits, by their place in the plan) take master for master, or text tells
   what went wrong. */
struct claim {
	uint64_t from_us, until_us;
	unsigned nodes, master;
	const char *text;
};

struct rules {
	uint64_t overlap_us;        /* how long two nodes that hear each other may both be master; 0: never */
	uint64_t pairs_from_us;     /* before that it is not looked at */
	uint64_t settle_us;         /* so long after the last fault all agree; 0: not asked */
	const struct claim *claims; /* ended by one without a text; NULL: none */
	/* While it is played. */
	unsigned masters[NODES_MAX]; /* whom each takes for master */
	uint64_t together_us[NODES_MAX][NODES_MAX];
};

static struct plan plan;
static struct rules rules;

/* ---- the game ---------------------------------------------------------------------------------------------------- */

static void on_send(void *context, unsigned to, const void *bytes, size_t length)
{
	stage_send(context, to, bytes, length);
}

static uint64_t on_random(void *context)
{
	return random_next(&((struct player *)context)->stage->random);
}

static void *create(struct player *p, uint64_t now_us)
{
	struct election_options options = { .id = p->id, .incarnation = p->incarnation };
	struct election_calls calls = { .context = p, .send = on_send, .random = on_random };

	rules.masters[p->index] = 0;
	return election_create(&options, &calls, now_us);
}

static void destroy(struct player *p)
{
	election_destroy(p->mind);
}

static void leave(struct player *p, uint64_t now_us)
{
	election_leave(p->mind, now_us);
}

static uint64_t tick(struct player *p, uint64_t now_us)
{
	return election_tick(p->mind, now_us);
}

static void receive(struct player *p, const void *bytes, size_t length, uint64_t now_us)
{
	election_receive(p->mind, bytes, length, now_us);
}

static char letter(const struct player *p)
{
	unsigned master = rules.masters[p->index];

	return master == p->id ? 'M' : master == 0 ? '.' : (char)('0' + master / 10 % 10);
}

static bool is_judged(const struct player *p)
{
	return stage_runs(p) && p->has_run;
}

static void check_pair(struct stage *s, unsigned i, unsigned k)
{
	const struct player *a = &s->players[i], *b = &s->players[k];
	bool both = is_judged(a) && is_judged(b) && rules.masters[i] == a->id && rules.masters[k] == b->id;

	if (!both || s->now_us < rules.pairs_from_us || !stage_hear(s, i, k)) {
		rules.together_us[i][k] = NEVER_US;
		return;
	}
	if (rules.together_us[i][k] == NEVER_US)
		rules.together_us[i][k] = s->now_us;
	if (s->now_us - rules.together_us[i][k] >= rules.overlap_us)
		stage_fail(s,
		           "nodes %u and %u were masters at the same time, and can hear each other (allowed: %.1f s)",
		           a->id, b->id, (double)rules.overlap_us / 1e6);
}

static void check_agreement(struct stage *s)
{
	unsigned lowest = UINT32_MAX;

	for (unsigned i = 0; i < s->plan->node_count; i++) {
		if (s->players[i].is_up && !stage_runs(&s->players[i]))
			return;
		if (s->players[i].is_up && s->players[i].id < lowest)
			lowest = s->players[i].id;
	}
	for (unsigned i = 0; i < s->plan->node_count; i++)
		if (s->players[i].is_up && rules.masters[i] != lowest)
			stage_fail(s,
			           "nothing has happened for %.1f s, and node %u takes %u for master and not %u, the "
			           "lowest id alive",
			           (double)(s->now_us - s->changed_us) / 1e6, s->players[i].id, rules.masters[i],
			           lowest);
}

static void check_claims(struct stage *s)
{
	for (const struct claim *c = rules.claims; c != NULL && c->text != NULL; c++)
		for (unsigned i = 0; i < s->plan->node_count; i++)
			if ((c->nodes >> i & 1) && s->now_us >= c->from_us && s->now_us < c->until_us &&
			    is_judged(&s->players[i]) && rules.masters[i] != c->master)
				stage_fail(s, "%s", c->text);
}

static void watch(struct stage *s)
{
	for (unsigned i = 0; i < s->plan->node_count; i++) {
		struct player *p = &s->players[i];
		unsigned master = is_judged(p) ? election_master(p->mind) : rules.masters[i];

		if (master != rules.masters[i])
			stage_tell(s, "node %u takes %u for master%s", p->id, master,
			           master == p->id ? ": itself" :
			           master == 0     ? ": nobody" :
			                             "");
		rules.masters[i] = master;
	}
	check_claims(s);
	for (unsigned i = 0; i < s->plan->node_count; i++)
		for (unsigned k = i + 1; k < s->plan->node_count; k++)
			check_pair(s, i, k);
	if (rules.settle_us > 0 && s->now_us >= s->changed_us + rules.settle_us && stage_hear_easily(s))
		check_agreement(s);
}

static const struct stage_game game = {
	.create = create,
	.destroy = destroy,
	.leave = leave,
	.tick = tick,
	.receive = receive,
	.watch = watch,
	.letter = letter,
	.legend = "M it is master, 1 it takes 10 for master, . nobody",
};

static struct stage *play(void)
{
	for (unsigned i = 0; i < NODES_MAX; i++)
		for (unsigned k = 0; k < NODES_MAX; k++)
			rules.together_us[i][k] = NEVER_US;
	return stage_run(&plan, &game, NULL);
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

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

/* Returns the most that a node has sent. */
static uint64_t run(const struct claim *claims)
{
	rules.claims = claims;
	struct stage *s = play();
	uint64_t most = 0;

	if (s->has_failed)
		grade_fail("%s", s->failure);
	for (unsigned i = 0; i < plan.node_count; i++)
		most = s->players[i].sent > most ? s->players[i].sent : most;
	bool has_failed = s->has_failed;
	stage_free(s);
	return has_failed ? 0 : most;
}

static void a_node_that_is_alone_listens_and_then_is_master(void)
{
	static const struct claim claims[] = {
		{ 0, 300 * MS, 1, 0, "node 10 has not listened for 0.3 s yet, and does not say that it knows nobody" },
		{ 2000 * MS, 9 * SECOND, 1, 10, "node 10 is alone for 2 s and still not master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(1, 1, 5 * SECOND);
	run(claims);
}

static void three_nodes_agree_on_the_lowest_id(void)
{
	static const struct claim claims[] = {
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
	uint64_t most = run(NULL);
	grade_check(most > 0, "no node has sent a single datagram");
	grade_check(most <= 21 * ELECTION_BEATS_MAX, "a node sent %llu datagrams in 21 s; %u a second are allowed",
	            (unsigned long long)most, ELECTION_BEATS_MAX);
}

static void when_the_master_dies_there_is_another_within_1500_ms(void)
{
	static const struct claim claims[] = {
		{ 3500 * MS, 5000 * MS, 7, 10, "10 is alive, and not everybody's master" },
		{ 6500 * MS, 12 * SECOND, 6, 20,
		  "10 has been dead for 1.5 s, and no node took 20 for master, or not both" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 12 * SECOND);
	plan_fault(&plan, (struct fault){ .kind = FAULT_CRASH, .nodes = 1, .at_us = 5 * SECOND });
	run(claims);
}

static void when_the_master_says_goodbye_nobody_waits(void)
{
	static const struct claim claims[] = {
		{ 5500 * MS, 12 * SECOND, 6, 20, "10 said goodbye 0.5 s ago, and not all take 20 for master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 12 * SECOND);
	plan_fault(&plan, (struct fault){ .kind = FAULT_LEAVE, .nodes = 1, .at_us = 5 * SECOND });
	run(claims);
}

static void a_lower_id_takes_over_and_there_are_never_two(void)
{
	static const struct claim claims[] = {
		{ 3 * SECOND, 5 * SECOND, 6, 20, "20 and 30 are there, and not both take 20 for master" },
		{ 7 * SECOND, 12 * SECOND, 7, 10, "10 came 2 s ago, and is not yet everybody's master" },
		{ 0, 0, 0, 0, NULL },
	};

	for (unsigned i = 0; i < 20; i++) {
		begin_plan(3, 6, 12 * SECOND);
		plan.seed += i;
		plan_fault(&plan, (struct fault){ .kind = FAULT_START, .nodes = 1, .at_us = 5 * SECOND });
		if (run(claims) == 0)
			return;
	}
}

static void with_20_percent_lost_the_master_stays(void)
{
	static const struct claim claims[] = {
		{ 5 * SECOND, 90 * SECOND, 7, 10,
		  "all are alive, a fifth of the datagrams is lost, and 10 is not everybody's master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 60 * SECOND);
	plan.road = (struct road){
		.delay_us = 200, .jitter_us = 60000, .lost_per_million = 200000, .doubled_per_million = 200000
	};
	run(claims);
}

static void a_master_that_can_hear_nobody_is_replaced(void)
{
	static const struct claim claims[] = {
		{ 7 * SECOND, 12 * SECOND, 6, 20,
		  "10 is heard, but can hear nobody: it answers nothing, and 20 is not yet master of 20 and 30" },
		{ 0, 0, 0, 0, NULL },
	};
	struct road cut = calm_road;

	begin_plan(3, 7, 12 * SECOND);
	cut.is_cut = true;
	plan_fault(&plan,
	           (struct fault){ .kind = FAULT_ROAD, .nodes = 6, .others = 1, .road = cut, .at_us = 5 * SECOND });
	run(claims);
}

static void a_master_that_stood_still_goes_on_as_a_newcomer(void)
{
	static const struct claim claims[] = {
		{ 6500 * MS, 8 * SECOND, 6, 20, "10 has stood still for 1.5 s, and 20 is not yet master" },
		{ 8 * SECOND + 2, 8 * SECOND + 50 * MS, 1, 0,
		  "10 went on after it had stood still for 3 s, and does not begin as a newcomer does, "
		  "who listens first (it can see by its clock that it did not run)" },
		{ 10 * SECOND, 14 * SECOND, 7, 10, "10 went on 2 s ago, and is not yet everybody's master again" },
		{ 0, 0, 0, 0, NULL },
	};

	for (unsigned i = 0; i < 20; i++) {
		begin_plan(3, 7, 14 * SECOND);
		plan.seed += i;
		plan_fault(&plan, (struct fault){
					  .kind = FAULT_PAUSE, .nodes = 1, .at_us = 5 * SECOND, .for_us = 3 * SECOND });
		if (run(claims) == 0)
			return;
	}
}

static void datagrams_of_the_dead_and_garbage_wake_nobody(void)
{
	static const struct claim claims[] = {
		{ 7 * SECOND, 14 * SECOND, 6, 20,
		  "10 has been dead for 2 s, somebody plays its old datagrams again, and 20 is not master" },
		{ 0, 0, 0, 0, NULL },
	};

	begin_plan(3, 7, 14 * SECOND);
	plan_fault(&plan, (struct fault){ .kind = FAULT_ATTACK,
	                                  .nodes = 0,
	                                  .at_us = 4 * SECOND,
	                                  .for_us = 10 * SECOND,
	                                  .threshold = 2000 });
	plan_fault(&plan, (struct fault){ .kind = FAULT_CRASH, .nodes = 1, .at_us = 5 * SECOND });
	run(claims);
}

static void a_split_group_has_two_masters_and_one_when_it_meets(void)
{
	static const struct claim claims[] = {
		{ 6500 * MS, 9 * SECOND, 3, 10,
		  "the group has been split for 1.5 s, and 10 is not master of 10 and 20" },
		{ 6500 * MS, 9 * SECOND, 12, 30,
		  "the group has been split for 1.5 s, and 30 is not master of 30 and 40" },
		{ 10500 * MS, 14 * SECOND, 15, 10, "the parts met 1.5 s ago, and 10 is not everybody's master" },
		{ 0, 0, 0, 0, NULL },
	};
	struct road cut = calm_road;

	begin_plan(4, 15, 14 * SECOND);
	cut.is_cut = true;
	plan_fault(&plan,
	           (struct fault){ .kind = FAULT_ROAD, .nodes = 3, .others = 12, .road = cut, .at_us = 5 * SECOND });
	plan_fault(&plan,
	           (struct fault){ .kind = FAULT_ROAD, .nodes = 12, .others = 3, .road = cut, .at_us = 5 * SECOND });
	plan_fault(&plan, (struct fault){ .kind = FAULT_CALM, .nodes = 0, .at_us = 9 * SECOND });
	rules.overlap_us = 1500 * MS;
	run(claims);
}

static void play_against_the_adversary(unsigned group)
{
	static char lost[STAGE_TEXT_MAX];
	uint64_t seed = grade_seed() + group * 1000, lost_seed = 0;
	unsigned won = 0;

	for (unsigned i = 0; i < ADVERSARIES; seed++) {
		plan_random(&plan, seed);
		if (stage_has_twins(&plan))
			continue;
		i++;
		memset(&rules, 0, sizeof rules);
		rules.overlap_us = 1500 * MS;
		rules.settle_us = 3 * SECOND;
		struct stage *s = play();
		won += !s->has_failed;
		if (s->has_failed && lost_seed == 0) {
			lost_seed = seed;
			memcpy(lost, s->failure, sizeof lost);
		}
		stage_free(s);
	}
	if (won < ADVERSARIES)
		grade_partial((int)(2 * won / ADVERSARIES),
		              "%u of %u seeds were won. The first that was lost (make lab N=8 ONLY=\"first ten\" "
		              "SEED=%llu):\n%s",
		              won, ADVERSARIES, (unsigned long long)lost_seed, lost);
}

static void the_first_ten_of_the_adversarys_seeds(void)
{
	play_against_the_adversary(0);
}

static void the_second_ten_of_the_adversarys_seeds(void)
{
	play_against_the_adversary(1);
}

static void the_third_ten_of_the_adversarys_seeds(void)
{
	play_against_the_adversary(2);
}

static void the_fourth_ten_of_the_adversarys_seeds(void)
{
	play_against_the_adversary(3);
}

static void the_last_ten_of_the_adversarys_seeds(void)
{
	play_against_the_adversary(4);
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
		GRADE(2, the_first_ten_of_the_adversarys_seeds),
		GRADE(2, the_second_ten_of_the_adversarys_seeds),
		GRADE(2, the_third_ten_of_the_adversarys_seeds),
		GRADE(2, the_fourth_ten_of_the_adversarys_seeds),
		GRADE(2, the_last_ten_of_the_adversarys_seeds),
	};

	return grade_main("08-election", tests, sizeof tests / sizeof *tests, argc, argv);
}
