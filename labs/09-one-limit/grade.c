/* grade.c: lab 9's graded tests: a plan for the stage, a line of requests at each node, and a judge that sees every
 * start by true time.
 *
 *      give ──► a start for each, at its moment, or a little late ──► does anybody wait? is it in time? ──► judge
 *
 *      starts   │ │  │││ │   │  │     (t - window, t] is the window that ends with this start. The fullest ends with
 *      ─────────┴─┴──┴┴┴─┴───┴──┴──►  one, so to look at each start's own is to look at all.
 *                  └────────────┘t
 *
 * The election is played by this file, from above: it sees who runs and who hears whom, and tells each node, late and
 * at different moments. What share.h promises of it is kept here: see look_for_master().
 */
#include "labs/09-one-limit/share.h"

#include <stdio.h>
#include <string.h>

#include "labs/grade.h"
#include "labs/stage.h"

#define ADVERSARIES 10u
#define BACKLOG 1000u
#define LOST_US (500 * MS)   /* a master that is not heard for so long is lost ... */
#define VACANT_US (300 * MS) /* ... and so much later there is another */
#define NEWCOMER_US (700 * MS)
#define NOBODY NODES_MAX
#define UNTOLD 65536u

struct desk {
	unsigned told; /* whom it was told to take for master; UNTOLD: nothing yet, or it stood still */
	uint64_t began_us, unheard_us, ran_us;
	struct share_line line;
	struct load load;
	uint64_t load_life, measured;
	unsigned in_letter;
};

static struct plan plan;

/* What a test asks for, and the game. */
static struct office {
	uint64_t from_us, until_us; /* starts are counted between these */
	const char *advice;         /* said when a window is too full */
	struct desk desks[NODES_MAX];
	unsigned master; /* index; NOBODY */
	uint64_t master_life, missing_since_us, vacant_since_us, next_look_us;
	struct start starts[SHARE_THRESHOLD_MAX + 1];
	size_t first, count;
	uint64_t measured;
} office;

static struct desk *desk_of(const struct player *p)
{
	return &office.desks[p->index];
}

/* ---- the judge --------------------------------------------------------------------------------------------------- */

static const struct start *start_at(size_t i)
{
	return &office.starts[(office.first + i) % (SHARE_THRESHOLD_MAX + 1)];
}

static void exceeded(struct stage *s)
{
	char list[400] = "";

	for (size_t i = office.count > 12 ? office.count - 12 : 0; i < office.count; i++)
		snprintf(list + strlen(list), sizeof list - strlen(list), " %.4f (node %u)",
		         (double)start_at(i)->at_us / 1e6, s->players[start_at(i)->node].id);
	stage_tell(s, "the starts in that window%s:%s", office.count > 12 ? ", the last 12" : "", list);
	stage_fail(s, "%zu starts in one window of %.3f s, and the threshold is %u%s%s", office.count,
	           (double)plan.window_us / 1e6, plan.threshold, office.advice != NULL ? ": " : "",
	           office.advice != NULL ? office.advice : "");
}

static void judge(struct player *p)
{
	struct stage *s = p->stage;

	while (office.count > 0 && start_at(0)->at_us + plan.window_us <= s->now_us) {
		office.first = (office.first + 1) % (SHARE_THRESHOLD_MAX + 1);
		office.count--;
	}
	office.starts[(office.first + office.count++) % (SHARE_THRESHOLD_MAX + 1)] =
		(struct start){ s->now_us, p->index };
	if (plan.threshold <= 5)
		stage_tell(s, "node %u starts a request", p->id);
	desk_of(p)->in_letter++;
	if (s->now_us >= office.from_us && s->now_us < office.until_us) {
		office.measured++;
		desk_of(p)->measured++;
	}
	if (office.count > plan.threshold)
		exceeded(s);
}

/* ---- the line ---------------------------------------------------------------------------------------------------- */

static void on_send(void *context, unsigned to, const void *bytes, size_t length)
{
	stage_send(context, to, bytes, length);
}

static uint64_t on_random(void *context)
{
	return random_next(&((struct player *)context)->stage->random);
}

static void on_line(void *context, struct share_line *out)
{
	*out = desk_of(context)->line;
}

static void on_give(void *context, uint64_t from_us, uint64_t until_us, unsigned count)
{
	struct player *p = context;
	struct stage *s = p->stage;
	uint64_t now_us = stage_clock_us(p), in_us = from_us > now_us ? from_us - now_us : 0;

	if (count > plan.threshold || in_us > plan.window_us * 2 + 10 * SECOND) {
		stage_fail(s, "node %u is given %u starts in %.3f s: that cannot be meant", p->id, count,
		           (double)in_us / 1e6);
		return;
	}
	for (; count > 0; count--) {
		desk_of(p)->line.held++;
		queue_push(&s->queue, (struct event){ .at_us = s->now_us + in_us + stage_lateness_us(s),
		                                      .kind = EVENT_SEND,
		                                      .node = p->index,
		                                      .life = p->life,
		                                      .number = until_us });
	}
}

static void set_waiting(struct player *p, unsigned waiting)
{
	bool has_grown = waiting > desk_of(p)->line.waiting;

	desk_of(p)->line.waiting = waiting;
	if (has_grown)
		stage_tick_soon(p);
}

static void start_one(struct player *p, uint64_t until_us)
{
	struct desk *d = desk_of(p);

	d->line.held--;
	if (stage_clock_us(p) > until_us || d->line.waiting == 0) {
		d->line.died_total++;
		return;
	}
	d->line.used_total++;
	set_waiting(p, d->line.waiting - 1);
	judge(p);
	if (d->load.pattern == LOAD_STANDING)
		set_waiting(p, d->load.depth);
}

static void plan_arrival(struct player *p)
{
	struct stage *s = p->stage;
	struct load *load = &desk_of(p)->load;

	if (load->rate <= 0)
		return;
	uint64_t gap_us = (uint64_t)(1e6 / load->rate);
	if (load->pattern == LOAD_RANDOM)
		gap_us = random_below(&s->random, 2 * gap_us);
	queue_push(&s->queue, (struct event){ .at_us = s->now_us + gap_us + 1,
	                                      .kind = EVENT_ARRIVAL,
	                                      .node = p->index,
	                                      .life = p->life,
	                                      .number = desk_of(p)->load_life });
}

static void set_load(struct player *p, const struct load *load)
{
	desk_of(p)->load = *load;
	desk_of(p)->load_life++;
	if (!p->is_up)
		return;
	if (load->pattern == LOAD_STANDING)
		set_waiting(p, load->depth);
	else if (load->pattern == LOAD_IDLE)
		set_waiting(p, 0);
	else
		plan_arrival(p);
}

static void arrive(struct player *p)
{
	unsigned waiting =
		desk_of(p)->line.waiting + (desk_of(p)->load.pattern == LOAD_BURSTS ? desk_of(p)->load.depth : 1);

	set_waiting(p, waiting < BACKLOG ? waiting : BACKLOG);
	plan_arrival(p);
}

static void happen(struct player *p, const struct event *e)
{
	if (e->kind == EVENT_LOAD) {
		const struct load *load = &plan.loads[e->number];

		for (unsigned i = 0; i < plan.node_count; i++)
			if (load->nodes >> i & 1)
				set_load(&p->stage->players[i], load);
	} else if (!p->is_up || e->life != p->life) {
		return;
	} else if (e->kind == EVENT_SEND) {
		start_one(p, e->number);
	} else if (e->kind == EVENT_ARRIVAL && e->number == desk_of(p)->load_life) {
		arrive(p);
	}
}

/* ---- the election ------------------------------------------------------------------------------------------------ */

static bool hears_anybody(const struct stage *s, unsigned i)
{
	unsigned others = 0;

	for (unsigned k = 0; k < plan.node_count; k++) {
		others += k != i && s->players[k].is_up;
		if (k != i && s->players[k].is_up && stage_hear(s, i, k))
			return true;
	}
	return others == 0;
}

static void tell_player(struct stage *s, unsigned i, unsigned id)
{
	if (office.desks[i].told == id)
		return;
	office.desks[i].told = id;
	if (id == s->players[i].id)
		stage_tell(s, "node %u is told that it is master", id);
	share_elected(s->players[i].mind, id, stage_clock_us(&s->players[i]));
}

static void lose_master(struct stage *s)
{
	unsigned old = office.master;

	stage_tell(s, "the master, node %u, is lost", s->players[old].id);
	office.master = NOBODY;
	office.vacant_since_us = s->now_us;
	if (stage_runs(&s->players[old]) && s->players[old].life == office.master_life)
		tell_player(s, old, 0);
}

/* Half a second without the master, then 0.3 s without any: more than 0.7 s after it last did anything. */
static void look_for_master(struct stage *s)
{
	if (office.master != NOBODY) {
		const struct player *m = &s->players[office.master];
		bool is_there = stage_runs(m) && m->life == office.master_life && hears_anybody(s, office.master);

		if (is_there)
			office.missing_since_us = s->now_us;
		else if (s->now_us - office.missing_since_us >= LOST_US)
			lose_master(s);
		return;
	}
	if (s->now_us - office.vacant_since_us < VACANT_US)
		return;
	for (unsigned i = 0; i < plan.node_count; i++) {
		struct player *p = &s->players[i];

		if (!stage_runs(p) || s->now_us - office.desks[i].began_us < NEWCOMER_US || !hears_anybody(s, i))
			continue;
		office.master = i;
		office.master_life = p->life;
		office.missing_since_us = s->now_us;
		tell_player(s, i, p->id);
		return;
	}
}

/* Each hears the news in its own time. */
static void tell_players(struct stage *s)
{
	for (unsigned i = 0; i < plan.node_count; i++) {
		struct desk *d = &office.desks[i];

		if (!stage_runs(&s->players[i]))
			continue;
		if (s->now_us - d->ran_us > 50 * MS) /* it stood still */
			d->told = UNTOLD;
		d->ran_us = s->now_us;
		bool hears = office.master != NOBODY && (i == office.master || stage_hear(s, i, office.master));
		if (hears)
			d->unheard_us = s->now_us;
		if (hears && (i != office.master || s->players[i].life == office.master_life) &&
		    random_chance(&s->random, 100000))
			tell_player(s, i, s->players[office.master].id);
		else if (!hears && s->now_us - d->unheard_us > LOST_US && random_chance(&s->random, 100000))
			tell_player(s, i, 0);
	}
}

/* ---- the game ---------------------------------------------------------------------------------------------------- */

static void *create(struct player *p, uint64_t now_us)
{
	struct share_options options = { .id = p->id,
		                         .incarnation = p->incarnation,
		                         .nodes = plan.node_count,
		                         .threshold = plan.threshold,
		                         .window_us = plan.window_us };
	struct share_calls calls = {
		.context = p, .send = on_send, .line = on_line, .give = on_give, .random = on_random
	};
	struct desk *d = desk_of(p);

	d->told = UNTOLD;
	d->began_us = d->unheard_us = d->ran_us = p->stage->now_us;
	d->line = (struct share_line){ .waiting = 0 };
	void *mind = share_create(&options, &calls, now_us);
	if (mind != NULL)
		set_load(p, &(struct load){ .pattern = d->load.pattern, .rate = d->load.rate, .depth = d->load.depth });
	return mind;
}

static void destroy(struct player *p)
{
	share_destroy(p->mind);
}

static uint64_t tick(struct player *p, uint64_t now_us)
{
	return share_tick(p->mind, now_us);
}

static void receive(struct player *p, const void *bytes, size_t length, uint64_t now_us)
{
	share_receive(p->mind, bytes, length, now_us);
	stage_tick_soon(p);
}

static char letter(const struct player *p)
{
	unsigned count = desk_of(p)->in_letter;

	desk_of(p)->in_letter = 0;
	return count == 0 ? '.' : count > 9 ? '+' : (char)('0' + count);
}

static void watch(struct stage *s)
{
	if (s->now_us < office.next_look_us)
		return;
	office.next_look_us = s->now_us + 10 * MS;
	look_for_master(s);
	tell_players(s);
}

static const struct stage_game game = {
	.create = create,
	.destroy = destroy,
	.tick = tick,
	.receive = receive,
	.happen = happen,
	.watch = watch,
	.letter = letter,
	.legend = "how many started there (+: more than 9, . none)",
};

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void begin_plan(unsigned nodes, unsigned threshold, uint64_t end_us)
{
	memset(&plan, 0, sizeof plan);
	memset(&office, 0, sizeof office);
	plan.seed = grade_seed();
	plan.node_count = nodes;
	plan.threshold = threshold;
	plan.window_us = SECOND;
	plan.end_us = end_us;
	plan.road = (struct road){ .delay_us = 80, .jitter_us = 120 };
	office.from_us = 4 * SECOND;
	office.until_us = end_us;
	office.advice = "a slot may be used again one window after the last moment at which a start may use it (a "
	                "start may come late)";
	for (unsigned i = 0; i < nodes; i++)
		plan.nodes[i].id = 10 * (i + 1);
	plan_fault(&plan, (struct fault){ .kind = FAULT_START, .nodes = (1u << nodes) - 1, .at_us = 1000 });
}

static void saturate(unsigned nodes, uint64_t at_us)
{
	plan_load(&plan,
	          (struct load){
			  .at_us = at_us, .nodes = nodes, .pattern = LOAD_STANDING, .depth = plan.threshold / 5 + 10 });
}

/* Plays the plan; shows its failure. */
static bool went_well(void)
{
	office.master = NOBODY;
	struct stage *s = stage_run(&plan, &game, NULL);
	bool has_failed = s->has_failed;

	if (has_failed)
		grade_fail("%s", s->failure);
	stage_free(s);
	return !has_failed;
}

/* How much of what was allowed between office.from_us and until_us was used. */
static double used(void)
{
	return (double)office.measured * (double)plan.window_us / (double)(office.until_us - office.from_us) /
	       plan.threshold;
}

static void check_used(double least, const char *when)
{
	grade_check(used() >= least, "%.0f %% of the threshold was used %s, and %.0f %% are asked for", 100 * used(),
	            when, 100 * least);
}

static void a_node_that_is_alone_uses_its_limit(void)
{
	begin_plan(1, 10, 14 * SECOND);
	saturate(1, 0);
	if (went_well())
		check_used(0.85, "by a node that is alone");
}

static void three_nodes_share_one_limit(void)
{
	begin_plan(3, 20, 16 * SECOND);
	saturate(7, 500 * MS);
	if (!went_well())
		return;
	if (used() >= 0.5 && used() < 0.85)
		grade_partial(3, "%.0f %% of the threshold was used by three nodes; 85 %% are asked for", 100 * used());
	else
		check_used(0.85, "by three nodes");
}

static void each_of_three_gets_its_part(void)
{
	begin_plan(3, 5, 34 * SECOND);
	saturate(7, 500 * MS);
	if (!went_well())
		return;
	for (unsigned i = 0; i < 3; i++)
		grade_check(office.measured > 0 && office.desks[i].measured * 100 >= office.measured * 15,
		            "node %u got %llu of the starts, and all three together %llu; at least 15 %% are asked for",
		            plan.nodes[i].id, (unsigned long long)office.desks[i].measured,
		            (unsigned long long)office.measured);
}

static void load_that_moves_takes_the_limit_with_it(void)
{
	begin_plan(3, 20, 22 * SECOND);
	for (unsigned i = 0; i < 11; i++) {
		plan_load(&plan, (struct load){ .at_us = i * 2 * SECOND, .nodes = ALL_NODES });
		saturate(1u << i % 3, i * 2 * SECOND + 1);
	}
	if (went_well())
		check_used(0.75, "while the load moved from node to node");
}

static void with_40_ms_one_way_most_of_it_is_used(void)
{
	begin_plan(3, 20, 24 * SECOND);
	plan.road = (struct road){ .delay_us = 38000, .jitter_us = 4000 };
	saturate(7, 500 * MS);
	if (went_well())
		check_used(0.70, "with 40 ms one way");
}

static void with_20_percent_lost_it_holds(void)
{
	begin_plan(3, 20, 24 * SECOND);
	plan.road = (struct road){
		.delay_us = 80, .jitter_us = 20000, .lost_per_million = 200000, .doubled_per_million = 200000
	};
	saturate(7, 500 * MS);
	if (went_well())
		check_used(0.50, "with a fifth of the datagrams lost");
}

/* Ten times the same misfortune, a little later each time: the worst moment is hit by one of them. */
static void suffer(struct fault fault, unsigned delay_us, const char *advice, double least)
{
	for (unsigned i = 0; i < 10; i++) {
		begin_plan(3, 5, 14 * SECOND);
		plan.seed += i;
		fault.at_us = 5 * SECOND + i * 103 * MS;
		office.from_us = 10 * SECOND;
		office.advice = advice;
		plan.road.delay_us = delay_us;
		saturate(7, 500 * MS);
		plan_fault(&plan, fault);
		if (!went_well())
			return;
		if (used() < least) {
			grade_fail("%.0f %% of the threshold was used from 5 s after it on, and %.0f %% are asked for "
			           "(seed %llu)",
			           100 * used(), 100 * least, (unsigned long long)plan.seed);
			return;
		}
	}
}

static void the_master_dies(void)
{
	suffer((struct fault){ .kind = FAULT_CRASH, .nodes = 1 }, 80,
	       "grants of the dead master are still out when the new one begins (no quiet time?)", 0.40);
}

static void the_master_forgets_all_and_begins_again(void)
{
	suffer((struct fault){ .kind = FAULT_CRASH, .nodes = 1, .for_us = 50 * MS }, 80,
	       "what the old life of the master gave counts, too (no quiet time?)", 0.40);
}

static void the_master_stands_still(void)
{
	suffer((struct fault){ .kind = FAULT_PAUSE, .nodes = 1, .for_us = 3 * SECOND }, 80,
	       "a master gave on after it had stood still, and another had been elected meanwhile", 0.40);
}

static void members_stand_still(void)
{
	suffer((struct fault){ .kind = FAULT_PAUSE, .nodes = 6, .for_us = 3 * SECOND }, 30000,
	       "a grant that is old was used as if it were new: it lay in a buffer while the member stood still", 0.40);
}

static bool won_against(char lost[STAGE_TEXT_MAX])
{
	memset(&office, 0, sizeof office);
	office.master = NOBODY;
	/* Watched when all is mended. */
	office.from_us = plan.expect.calm_us + 5 * SECOND + 2 * plan.window_us;
	office.until_us = plan.end_us;
	struct stage *s = stage_run(&plan, &game, NULL);
	double due = (double)(office.until_us - office.from_us) / (double)plan.window_us * plan.threshold;

	if (!s->has_failed && plan.expect.calm_us > 0 && (double)office.measured < 0.4 * due - plan.threshold - 1)
		stage_fail(s, "all faults are over, and %llu of %.0f starts were used",
		           (unsigned long long)office.measured, due);
	bool has_won = !s->has_failed;
	if (!has_won && lost[0] == '\0')
		snprintf(lost, STAGE_TEXT_MAX, "%s", s->failure);
	stage_free(s);
	return has_won;
}

static void play_against_the_adversary(unsigned group)
{
	static char lost[STAGE_TEXT_MAX];
	uint64_t seed = grade_seed() + group * 1000, lost_seed = 0;
	unsigned won = 0;

	for (unsigned i = 0; i < ADVERSARIES; seed++) {
		plan_random(&plan, seed);
		if (stage_has_twins(&plan) || plan.threshold > SHARE_THRESHOLD_MAX)
			continue;
		i++;
		if (won_against(lost))
			won++;
		else if (lost_seed == 0)
			lost_seed = seed;
	}
	if (won < ADVERSARIES)
		grade_partial((int)(2 * won / ADVERSARIES),
		              "%u of %u seeds were won. The first that was lost (make lab N=9 ONLY=\"first ten\" "
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
		GRADE(4, a_node_that_is_alone_uses_its_limit),
		GRADE(6, three_nodes_share_one_limit),
		GRADE(4, each_of_three_gets_its_part),
		GRADE(4, load_that_moves_takes_the_limit_with_it),
		GRADE(4, with_40_ms_one_way_most_of_it_is_used),
		GRADE(4, with_20_percent_lost_it_holds),
		GRADE(5, the_master_dies),
		GRADE(5, the_master_forgets_all_and_begins_again),
		GRADE(5, the_master_stands_still),
		GRADE(4, members_stand_still),
		GRADE(2, the_first_ten_of_the_adversarys_seeds),
		GRADE(2, the_second_ten_of_the_adversarys_seeds),
		GRADE(2, the_third_ten_of_the_adversarys_seeds),
		GRADE(2, the_fourth_ten_of_the_adversarys_seeds),
		GRADE(2, the_last_ten_of_the_adversarys_seeds),
	};

	return grade_main("09-one-limit", tests, sizeof tests / sizeof *tests, argc, argv);
}
