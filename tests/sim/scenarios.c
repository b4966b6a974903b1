/* scenarios.c: the plans that have a name, each with the promise that it must show, beyond the window that every run
 * must keep.
 *
 * One line of the table below is one scenario; set_up() makes a plan of it. The seed moves what a name leaves open:
 * when threads are late, which datagram is lost, the moment of a death to the microsecond.
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#define LATE_MAX_US (100 * MS) /* the largest L */
#define AHEAD_US (50 * MS)     /* H */
#define NOTICED_US (1000 * MS) /* a dead node is noticed within 1 s */

enum story {
	STORY_SATURATED,   /* every node has more than enough */
	STORY_SKEWED,      /* one node has all of the load */
	STORY_SHIFTING,    /* all of the load moves from node to node */
	STORY_BELOW,       /* half of the threshold, spread over the nodes */
	STORY_MASTER_DIES,
	STORY_MASTER_PAUSES,
	STORY_MASTER_RESTARTS,
	STORY_MASTER_LEAVES,
	STORY_MASTER_COMES, /* a lower id takes over from one that gives */
	STORY_SHORT_REIGN, /* it takes over, and dies before all have heard of it */
	STORY_MEMBER_PAUSES,
	STORY_LOSS,
	STORY_SPLIT,
	STORY_TWINS,
	STORY_ATTACK,
	STORY_DEAF,        /* the master can be heard, and hears nobody */
	STORY_CHAIN,       /* two nodes cannot hear each other, and a third hears both */
	STORY_REPLAY,      /* the master is dead, and somebody plays what it once said to a node that begins */
	STORY_BURSTS,
};

struct scenario {
	const char *name, *text;
	enum story story;
	unsigned nodes, threshold, delay_us;
	bool is_strict;
	double utilisation;
};

static const struct scenario scenarios[] = {
	{ "saturated-5x3", "3 nodes saturated, 5/s", STORY_SATURATED, 3, 5, 0, false, 0.99 },
	{ "saturated-50x3", "3 nodes saturated, 50/s", STORY_SATURATED, 3, 50, 0, false, 0.99 },
	{ "saturated-1000x3", "3 nodes saturated, 1,000/s", STORY_SATURATED, 3, 1000, 0, false, 0.99 },
	{ "saturated-20000x3", "3 nodes saturated, 20,000/s", STORY_SATURATED, 3, 20000, 0, false, 0.99 },
	{ "saturated-5x5", "5 nodes saturated, 5/s", STORY_SATURATED, 5, 5, 0, false, 0.99 },
	{ "saturated-50x5", "5 nodes saturated, 50/s", STORY_SATURATED, 5, 50, 0, false, 0.99 },
	{ "saturated-1000x5", "5 nodes saturated, 1,000/s", STORY_SATURATED, 5, 1000, 0, false, 0.99 },
	{ "saturated-20000x5", "5 nodes saturated, 20,000/s", STORY_SATURATED, 5, 20000, 0, false, 0.99 },
	{ "skewed-5x3", "one of 3 nodes has all the load, 5/s", STORY_SKEWED, 3, 5, 0, false, 0.99 },
	{ "skewed-50x3", "one of 3 nodes has all the load, 50/s", STORY_SKEWED, 3, 50, 0, false, 0.99 },
	{ "skewed-1000x5", "one of 5 nodes has all the load, 1,000/s", STORY_SKEWED, 5, 1000, 0, false, 0.99 },
	{ "skewed-20000x5", "one of 5 nodes has all the load, 20,000/s", STORY_SKEWED, 5, 20000, 0, false, 0.99 },
	{ "shifting-5x3", "load moves between 3 nodes, 5/s", STORY_SHIFTING, 3, 5, 0, false, 0.99 },
	{ "shifting-50x5", "load moves between 5 nodes, 50/s", STORY_SHIFTING, 5, 50, 0, false, 0.99 },
	{ "shifting-1000x3", "load moves between 3 nodes, 1,000/s", STORY_SHIFTING, 3, 1000, 0, false, 0.99 },
	{ "shifting-20000x3", "load moves between 3 nodes, 20,000/s", STORY_SHIFTING, 3, 20000, 0, false, 0.99 },
	{ "wide-5x3", "saturated, 40 ms one way, 5/s", STORY_SATURATED, 3, 5, 40000, false, 0.90 },
	{ "wide-50x3", "saturated, 40 ms one way, 50/s", STORY_SATURATED, 3, 50, 40000, false, 0.90 },
	{ "wide-1000x5", "saturated, 40 ms one way, 1,000/s", STORY_SATURATED, 5, 1000, 40000, false, 0.90 },
	{ "wide-shifting-50x3", "load moves, 40 ms one way, 50/s", STORY_SHIFTING, 3, 50, 40000, false, 0.90 },
	{ "below-50x3", "half of 50/s, over 3 nodes", STORY_BELOW, 3, 50, 0, false, 0 },
	{ "below-1000x5", "half of 1,000/s, over 5 nodes", STORY_BELOW, 5, 1000, 0, false, 0 },
	{ "below-wide-50x3", "half of 50/s, 40 ms one way", STORY_BELOW, 3, 50, 40000, false, 0 },
	{ "bursts-50x3", "bursts of 20 on 3 nodes, 50/s", STORY_BURSTS, 3, 50, 0, false, 0 },
	{ "master-dies-50x3", "the master is killed, 50/s", STORY_MASTER_DIES, 3, 50, 0, false, 0 },
	{ "master-dies-1000x5", "the master is killed, 1,000/s", STORY_MASTER_DIES, 5, 1000, 0, false, 0 },
	{ "master-pauses-50x3", "the master stands still for 3 s, 50/s", STORY_MASTER_PAUSES, 3, 50, 0, false, 0 },
	{ "master-restarts-50x3", "the master forgets all and starts again, 50/s", STORY_MASTER_RESTARTS, 3, 50, 0,
	  false, 0 },
	{ "master-leaves-50x3", "the master says goodbye, 50/s", STORY_MASTER_LEAVES, 3, 50, 0, false, 0 },
	{ "master-comes-50x3", "a lower id takes over, 50/s", STORY_MASTER_COMES, 3, 50, 0, false, 0 },
	{ "short-reign-50x3", "a master dies before all have heard of it, 50/s", STORY_SHORT_REIGN, 3, 50, 0, false, 0 },
	{ "member-pauses-50x3", "members stand still for 3 s, 50/s", STORY_MEMBER_PAUSES, 3, 50, 0, false, 0 },
	{ "loss-50x3", "20 % lost, 5 % doubled, out of order, 50/s", STORY_LOSS, 3, 50, 0, false, 0 },
	{ "split-strict-50x4", "4 nodes split in two and meet, strict", STORY_SPLIT, 4, 50, 0, true, 0 },
	{ "split-available-50x4", "4 nodes split in two and meet, available", STORY_SPLIT, 4, 50, 0, false, 0 },
	{ "twins-50x3", "a fourth node with the master's id", STORY_TWINS, 4, 50, 0, false, 0 },
	{ "deaf-50x3", "the master is heard, and hears nobody, 50/s", STORY_DEAF, 3, 50, 0, false, 0 },
	{ "chain-50x3", "two cannot talk, the third with both, 50/s", STORY_CHAIN, 3, 50, 0, false, 0 },
	{ "replay-50x3", "a dead master's heartbeats played again, 50/s", STORY_REPLAY, 3, 50, 0, false, 0 },
	{ "attack-50x3", "garbage, forgeries, replays, 500 a second", STORY_ATTACK, 3, 50, 0, false, 0 },
};
#define SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

const char *plan_name(unsigned index, const char **text)
{
	if (index >= SCENARIOS)
		return NULL;
	*text = scenarios[index].text;
	return scenarios[index].name;
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

/* As many as come due while a question is on its way and back, and a few: then there is always enough to ask for. */
static unsigned standing(const struct scenario *s)
{
	uint64_t round_trip_us = 2 * s->delay_us + 120 * MS;

	return (unsigned)(s->threshold * round_trip_us / SECOND + 10);
}

static void load_all(struct plan *p, const struct scenario *s)
{
	plan_load(p, (struct load){ .at_us = 500 * MS, .nodes = ALL_NODES, .pattern = LOAD_STANDING,
	                            .depth = standing(s) });
}

static void load_story(struct plan *p, const struct scenario *s)
{
	double rate = s->threshold / 2.0 / s->nodes;

	if (s->story == STORY_SKEWED) {
		plan_load(p, (struct load){ .at_us = 500 * MS, .nodes = 2, .pattern = LOAD_STANDING,
		                            .depth = standing(s) });
	} else if (s->story == STORY_SHIFTING) {
		for (unsigned i = 0; i * 700 * MS < p->end_us; i++) {
			plan_load(p, (struct load){ .at_us = i * 700 * MS, .nodes = 1u << (i + 1) % s->nodes,
			                            .pattern = LOAD_STANDING, .depth = standing(s) });
			plan_load(p, (struct load){ .at_us = i * 700 * MS + 1, .nodes = 1u << i % s->nodes });
		}
	} else if (s->story == STORY_BELOW) {
		plan_load(p, (struct load){ .nodes = ALL_NODES, .pattern = LOAD_STEADY, .rate = rate });
	} else if (s->story >= STORY_MASTER_DIES && s->story <= STORY_SHORT_REIGN) {
		/* First evenly spread, and so much below the threshold that nobody waits for long. What saturates then finds
		   slots that come free evenly, and a moment without starts is one without grants. */
		plan_load(p, (struct load){ .nodes = ALL_NODES, .pattern = LOAD_STEADY, .rate = 1.4 * rate });
		plan_load(p, (struct load){ .at_us = s->story == STORY_MASTER_COMES ? 16 * SECOND : 7900 * MS, .nodes = ALL_NODES,
		                            .pattern = LOAD_STANDING, .depth = standing(s) });
	} else if (s->story == STORY_DEAF || s->story == STORY_REPLAY) {
		plan_load(p, (struct load){ .nodes = 4, .pattern = LOAD_STEADY, .rate = s->threshold / 2.0 });
	} else if (s->story == STORY_BURSTS) {
		plan_load(p, (struct load){ .nodes = ALL_NODES, .pattern = LOAD_BURSTS, .rate = 0.7, .depth = 20 });
	} else {
		load_all(p, s);
	}
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

/* Both ways. */
static void cut(struct plan *p, uint64_t at_us, unsigned nodes, unsigned others)
{
	struct fault f = { .at_us = at_us, .kind = FAULT_ROAD, .nodes = nodes, .others = others, .road = p->road };

	f.road.is_cut = true;
	plan_fault(p, f);
	f.nodes = others;
	f.others = nodes;
	plan_fault(p, f);
}

/* Somebody plays what a dead master once said, to a node that begins meanwhile. */
static void replay(struct plan *p, uint64_t at_us)
{
	struct fault f = { .at_us = SECOND, .for_us = p->end_us, .kind = FAULT_ATTACK, .threshold = 2000 };

	p->has_secret = true;
	plan_fault(p, f);
	plan_fault(p, (struct fault){ .at_us = at_us, .kind = FAULT_CRASH, .nodes = 1 });
	f = (struct fault){ .at_us = at_us + 2 * SECOND, .kind = FAULT_CRASH, .nodes = 4, .for_us = 100 * MS };
	plan_fault(p, f);
}

static void fault_story(struct plan *p, const struct scenario *s, struct random *r)
{
	uint64_t at_us = 8 * SECOND + random_below(r, SECOND);
	struct fault f = { .at_us = at_us, .nodes = 1, .for_us = 3 * SECOND };

	switch (s->story) {
	case STORY_MASTER_DIES:
		f.kind = FAULT_CRASH;
		f.for_us = 0;
		break;
	case STORY_MASTER_RESTARTS:
		f.kind = FAULT_CRASH;
		f.for_us = random_between(r, 1, 900 * MS);
		break;
	case STORY_MASTER_LEAVES:
		f.kind = FAULT_LEAVE;
		f.for_us = 4 * SECOND;
		break;
	case STORY_MASTER_PAUSES:
		f.kind = FAULT_PAUSE;
		break;
	case STORY_MEMBER_PAUSES:
		f.kind = FAULT_PAUSE;
		f.nodes = 6;
		break;
	case STORY_SHORT_REIGN:
		f.kind = FAULT_CRASH;
		f.at_us = 9 * SECOND + random_between(r, 750 * MS, 1000 * MS);
		break;
	case STORY_SPLIT:
		cut(p, at_us, 5, ALL_NODES & ~5u);
		f.kind = FAULT_CALM;
		f.at_us = at_us + 5 * SECOND;
		break;
	case STORY_TWINS:
		f.kind = FAULT_START;
		f.nodes = 8;
		break;
	case STORY_ATTACK:
		f.kind = FAULT_ATTACK;
		f.threshold = 500;
		f.at_us = SECOND;
		f.for_us = 15 * SECOND;
		break;
	case STORY_DEAF:
		f.kind = FAULT_ROAD;
		f.others = 1;
		f.nodes = ALL_NODES;
		f.road = p->road;
		f.road.is_cut = true;
		break;
	case STORY_CHAIN:
		cut(p, at_us, 1, 2);
		return;
	case STORY_REPLAY:
		replay(p, at_us);
		return;
	default:
		return;
	}
	plan_fault(p, f);
}

static bool begins_late(enum story story)
{
	return story == STORY_MASTER_COMES || story == STORY_SHORT_REIGN;
}

static void expect_story(struct plan *p, const struct scenario *s)
{
	struct expectation *e = &p->expect;
	uint64_t quiet_us = p->window_us + AHEAD_US + LATE_MAX_US;

	e->from_us = s->story == STORY_SPLIT ? 16 * SECOND : 6 * SECOND; /* when the parts have met */
	e->until_us = s->story >= STORY_MASTER_DIES && s->story <= STORY_MASTER_COMES ? 16 * SECOND : p->end_us;
	e->utilisation = s->utilisation;
	e->discovered_us = begins_late(s->story) ? 0 : 2 * SECOND;
	if (s->story == STORY_BELOW)
		e->wait_p99_us = 2 * p->road.delay_us + 2 * p->road.jitter_us + 2 * MS;
	if (s->story == STORY_MASTER_DIES)
		e->standstill_us = quiet_us + NOTICED_US;
	if (s->story == STORY_DEAF || s->story == STORY_REPLAY || s->story == STORY_CHAIN)
		e->standstill_us = quiet_us + NOTICED_US + 100 * MS;
	if (s->story == STORY_MASTER_COMES)
		e->standstill_us = 300 * MS;
	if (s->story >= STORY_MASTER_DIES && s->story <= STORY_ATTACK)
		e->calm_us = 16 * SECOND;
}

/* ---- all together ------------------------------------------------------------------------------------------------ */

static void set_up(struct plan *p, const struct scenario *s, uint64_t seed)
{
	struct random random = { .state = seed };
	unsigned begin = (1u << s->nodes) - 1;

	memset(p, 0, sizeof(*p));
	snprintf(p->name, sizeof(p->name), "%s", s->name);
	snprintf(p->text, sizeof(p->text), "%s", s->text);
	p->seed = seed;
	p->end_us = s->story >= STORY_MASTER_DIES ? 27 * SECOND : s->threshold > 1000 ? 16 * SECOND : 36 * SECOND;
	p->node_count = s->nodes;
	p->threshold = s->threshold;
	p->window_us = SECOND;
	p->backlog = s->threshold;
	p->is_strict = s->is_strict;
	p->group_size = s->is_strict ? s->nodes : 0;
	p->has_secret = s->story == STORY_ATTACK;
	for (unsigned i = 0; i < s->nodes; i++)
		p->nodes[i].id = i + 1;
	p->road = (struct road){ .delay_us = s->delay_us > 0 ? s->delay_us : 80,
				 .jitter_us = s->delay_us > 0 ? 2000 : 120 };
	p->threads.wake = (struct lateness){ 60, 200, 2000 };
	p->threads.gap = (struct lateness){ 30, 100, 1000 };
	if (s->story == STORY_LOSS)
		p->road = (struct road){
			.delay_us = 80, .jitter_us = 8000, .lost_per_million = 200000, .doubled_per_million = 50000
		};
	if (s->story == STORY_TWINS) {
		p->nodes[3].id = 1;
		begin = 7;
	}
	if (s->story == STORY_SHORT_REIGN)
		p->road.lost_per_million = 250000;
	if (begins_late(s->story)) {
		plan_fault(p, (struct fault){ .at_us = 9 * SECOND, .kind = FAULT_START, .nodes = 1 });
		begin = 6;
	}
	plan_fault(p, (struct fault){ .at_us = 1, .kind = FAULT_START, .nodes = begin });
	load_story(p, s);
	fault_story(p, s, &random);
	expect_story(p, s);
}

/* One of those that cost little. */
void plan_any_scenario(struct plan *p, uint64_t seed)
{
	struct random random = { .state = seed };
	unsigned index;

	do
		index = (unsigned)random_below(&random, SCENARIOS);
	while (scenarios[index].threshold > 50);
	set_up(p, &scenarios[index], seed);
}

bool plan_named(struct plan *p, const char *name, uint64_t seed)
{
	for (unsigned i = 0; i < SCENARIOS; i++)
		if (strcmp(scenarios[i].name, name) == 0) {
			set_up(p, &scenarios[i], seed);
			return true;
		}
	return false;
}
