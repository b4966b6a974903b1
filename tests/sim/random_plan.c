/* random_plan.c: a seed becomes a plan: a group, a network, load that moves, and everything that can go wrong, at once.
 *
 *      0 ──────────────────── faults and load of every kind ──────────────────── calm ── settled ── watched ── end
 *                                                                                 │ all is mended, everybody saturates
 *
 * Every run ends in calm: all roads as at the beginning, everybody has room to breathe, and each node has requests
 * standing. Then the group must come together, choose the lowest id, use its threshold and serve each node. So each run
 * asks both questions: was a window ever too full, and did anything stay broken?
 *
 * Most of the chance goes where a protocol breaks: small thresholds (one start too many is seen at once), load that
 * saturates, faults that follow each other within a second or two, and the master as their victim.
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

static const struct road lan = { .delay_us = 80, .jitter_us = 200, .spike_per_million = 200, .spike_us = 3000 };

void plan_load(struct plan *p, struct load load)
{
	if (p->load_count < LOADS_MAX)
		p->loads[p->load_count++] = load;
}

void plan_fault(struct plan *p, struct fault fault)
{
	if (p->fault_count < FAULTS_MAX)
		p->faults[p->fault_count++] = fault;
}

/* ---- the group --------------------------------------------------------------------------------------------------- */

static void choose_road(struct plan *p, struct random *r)
{
	p->road = lan;
	/* There and back within 90 ms: what takes longer than the largest L cannot be used at all. */
	if (random_chance(r, 300000)) { /* a wide network */
		p->road.delay_us = (unsigned)random_between(r, 1000, 40000);
		p->road.jitter_us = (unsigned)random_below(r, p->road.delay_us / 9);
	} else if (random_chance(r, 300000)) { /* a busy one */
		p->road.jitter_us += (unsigned)random_below(r, 10000);
	}
	if (random_chance(r, 300000))
		p->road.lost_per_million = (unsigned)random_below(r, 20000);
	if (random_chance(r, 300000))
		p->road.doubled_per_million = (unsigned)random_below(r, 50000);
}

static void choose_threads(struct plan *p, struct random *r)
{
	bool is_busy = random_chance(r, 250000);

	p->threads.wake = (struct lateness){ 60, is_busy ? 5000 : 500, is_busy ? 30000 : 4000 };
	p->threads.gap = (struct lateness){ 30, 300, 1500 };
	p->threads.connect_us = random_chance(r, 700000) ? 0 : (unsigned)random_below(r, 12000);
}

static void choose_group(struct plan *p, struct random *r)
{
	static const unsigned thresholds[] = { 1, 2, 3, 5, 5, 5, 7, 10, 20, 50 };
	static const uint64_t windows_us[] = { 250000, 500000, 2000000, 10000000 };
	bool drifts = random_chance(r, 200000);

	p->node_count = (unsigned)(random_chance(r, 700000) ? random_between(r, 2, 4) : random_between(r, 2, 9));
	for (unsigned i = 0; i < p->node_count; i++) {
		p->nodes[i].id = (i + 1) * 10;
		p->nodes[i].drift_ppm = drifts ? (int)random_below(r, 101) - 50 : 0;
	}
	p->threshold = thresholds[random_below(r, sizeof(thresholds) / sizeof(*thresholds))];
	if (random_chance(r, 5000))
		p->threshold = 1000;
	p->window_us = random_chance(r, 850000) ? SECOND : windows_us[random_below(r, 4)];
	p->burst = random_chance(r, 850000) ? 0 : (unsigned)random_between(r, 1, p->threshold);
	p->backlog = (unsigned)(random_chance(r, 300000) ? random_below(r, 5) : 1000);
	p->is_strict = random_chance(r, 500000);
	p->group_size = p->is_strict || random_chance(r, 500000) ? p->node_count : 0;
	p->is_fair = random_chance(r, 200000);
	p->has_secret = random_chance(r, 60000);
	p->impatient_per_million = random_chance(r, 300000) ? 100000 : 0;
}

/* Another process with the id of one that is there. It takes the last place, and comes and goes. It counts in
   group_size: with more nodes than that, two parts of a split group would each believe to be the larger one. */
static void choose_twin(struct plan *p, struct random *r, uint64_t until_us)
{
	unsigned twin = p->node_count - 1;
	uint64_t at_us = random_between(r, SECOND, until_us);

	p->nodes[twin].id = p->nodes[random_below(r, twin)].id;
	plan_fault(p, (struct fault){ .kind = FAULT_START, .nodes = 1u << twin, .at_us = random_below(r, at_us) });
	plan_fault(p, (struct fault){ .kind = FAULT_CRASH, .nodes = 1u << twin, .at_us = until_us });
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

static unsigned some_nodes(const struct plan *p, struct random *r)
{
	unsigned all = (1u << p->node_count) - 1, some = (unsigned)random_next(r) & all;

	if (random_chance(r, 400000))
		return all;
	if (random_chance(r, 500000) || some == 0)
		return 1u << random_below(r, p->node_count);
	return some;
}

static void choose_loads(struct plan *p, struct random *r, uint64_t until_us)
{
	double a_second = p->threshold * 1e6 / (double)p->window_us;

	for (uint64_t at_us = 0; at_us < until_us; at_us += random_between(r, SECOND, 15 * SECOND)) {
		struct load load = { .at_us = at_us, .nodes = some_nodes(p, r), .depth = 8 };
		uint64_t dice = random_below(r, 100);

		if (at_us > 0 && random_chance(r, 300000)) { /* at night */
			plan_load(p, (struct load){ .at_us = at_us, .nodes = ALL_NODES });
			at_us += random_between(r, 10 * SECOND, 60 * SECOND);
			continue;
		}
		load.pattern = dice < 45   ? LOAD_STANDING
			       : dice < 65 ? LOAD_RANDOM
			       : dice < 75 ? LOAD_STEADY
					   : LOAD_BURSTS;
		load.rate = a_second * (double)random_between(r, 5, 90) / 100 / p->node_count;
		load.depth = (unsigned)random_between(r, 1, 2 * p->threshold);
		if (load.pattern == LOAD_BURSTS)
			load.rate = 0.1 + (double)random_below(r, 1000) / 500;
		if (load.pattern == LOAD_BURSTS || load.pattern == LOAD_STANDING)
			load.depth = load.depth < 100 ? load.depth : 100;
		if (dice >= 85)
			load.pattern = LOAD_IDLE;
		if (random_chance(r, 500000)) /* elsewhere it ends as it begins here: load that moves */
			plan_load(p, (struct load){ .at_us = at_us, .nodes = ALL_NODES });
		plan_load(p, load);
	}
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

static unsigned victim(const struct plan *p, struct random *r)
{
	return random_chance(r, 500000) ? 1 : 1u << random_below(r, p->node_count);
}

static uint64_t some_time_us(struct random *r)
{
	return random_chance(r, 500000) ? random_between(r, 300 * MS, 1500 * MS)
					: random_between(r, 1000 * MS, 5000 * MS);
}

static void add_both_ways(struct plan *p, struct fault f)
{
	unsigned nodes = f.nodes;

	plan_fault(p, f);
	f.nodes = f.others;
	f.others = nodes;
	plan_fault(p, f);
}

static void add_road_fault(struct plan *p, struct random *r, uint64_t at_us)
{
	struct fault f = {
		.kind = FAULT_ROAD, .at_us = at_us, .road = p->road, .nodes = victim(p, r), .others = ALL_NODES
	};
	uint64_t way = random_below(r, 7);

	if (way == 0) { /* one way between two */
		f.road.is_cut = true;
		f.others = 1u << random_below(r, p->node_count);
		plan_fault(p, f);
		return;
	}
	if (way == 1) { /* both ways between two */
		f.road.is_cut = true;
		f.others = 1u << random_below(r, p->node_count);
	} else if (way == 2) { /* a node alone */
		f.road.is_cut = true;
	} else if (way == 3) { /* two parts */
		f.road.is_cut = true;
		f.nodes = (unsigned)random_next(r) & ALL_NODES;
		f.others = ALL_NODES & ~f.nodes;
	} else if (way == 4) {
		f.nodes = ALL_NODES;
		f.road.lost_per_million = (unsigned)random_between(r, 20000, 250000);
		f.road.doubled_per_million = (unsigned)random_below(r, 200000);
	} else if (way == 5) {
		f.road.jitter_us = (unsigned)random_between(r, 2000, 100000);
	} else { /* deaf, but not dumb */
		f.nodes = ALL_NODES;
		f.others = victim(p, r);
		f.road.is_cut = true;
		plan_fault(p, f);
		return;
	}
	add_both_ways(p, f);
}

static void add_fault(struct plan *p, struct random *r, uint64_t at_us)
{
	struct fault f = { .at_us = at_us, .nodes = victim(p, r), .for_us = some_time_us(r) };
	uint64_t dice = random_below(r, 100);

	if (dice < 22)
		f.kind = FAULT_PAUSE;
	else if (dice < 42)
		f.kind = FAULT_CRASH;
	else if (dice < 50)
		f.kind = FAULT_LEAVE;
	else if (dice < 55)
		f.kind = FAULT_ATTACK;
	else if (dice < 60)
		f.kind = FAULT_RELOAD;
	else if (dice < 80)
		f.kind = FAULT_CALM;
	else
		f.kind = FAULT_ROAD;
	if (f.kind == FAULT_CRASH && random_chance(r, 300000))
		f.for_us = random_between(r, 1, 300 * MS); /* a supervisor that starts it again at once */
	if (f.kind == FAULT_PAUSE && random_chance(r, 200000))
		f.for_us = random_between(r, 1, 700 * MS);
	if (f.kind == FAULT_PAUSE && random_chance(r, 400000))
		f.kind = FAULT_PAUSE_WHEN_CALLED; /* the worst moment */
	f.threshold = f.kind == FAULT_ATTACK ? (unsigned)random_between(r, 5, 500)
					     : (unsigned)random_between(r, 1, 2 * p->threshold);
	if (f.kind == FAULT_RELOAD)
		f.nodes = random_chance(r, 800000) ? ALL_NODES : f.nodes;
	if (f.kind == FAULT_ROAD)
		add_road_fault(p, r, at_us);
	else
		plan_fault(p, f);
}

/* ---- all together ------------------------------------------------------------------------------------------------ */

void plan_random(struct plan *p, uint64_t seed)
{
	struct random random = { .state = seed }, *r = &random;
	uint64_t calm_us, at_us = random_below(r, 6 * SECOND);
	unsigned first;

	if (random_chance(r, 100000)) { /* the expectations of the scenarios hold for every seed */
		plan_any_scenario(p, seed);
		return;
	}
	memset(p, 0, sizeof(*p));
	p->seed = seed;
	snprintf(p->name, sizeof(p->name), "random");
	choose_group(p, r);
	choose_road(p, r);
	choose_threads(p, r);
	calm_us = random_between(r, 20 * SECOND, 200 * SECOND) + 4 * p->window_us;
	first = (1u << p->node_count) - 1;
	if (p->node_count > 2 && random_chance(r, 80000)) {
		choose_twin(p, r, calm_us);
		first >>= 1;
	}
	for (unsigned i = 0; i < p->node_count; i++)
		if (first >> i & 1)
			plan_fault(p,
				   (struct fault){ .kind = FAULT_START,
						   .nodes = 1u << i,
						   .at_us = random_chance(r, 700000) ? random_below(r, 20 * MS)
										     : random_below(r, 4 * SECOND) });
	choose_loads(p, r, calm_us);
	while (at_us < calm_us && p->fault_count < FAULTS_MAX - 8) {
		add_fault(p, r, at_us);
		at_us += random_chance(r, 500000) ? random_below(r, 2 * SECOND) : random_below(r, 20 * SECOND);
	}
	plan_fault(p, (struct fault){ .kind = FAULT_CALM, .nodes = ALL_NODES, .at_us = calm_us });
	plan_fault(p, (struct fault){ .kind = FAULT_RELOAD,
				      .nodes = ALL_NODES,
				      .threshold = p->threshold,
				      .at_us = calm_us + 6 * SECOND });
	plan_load(p, (struct load){ .at_us = calm_us,
				    .nodes = ALL_NODES,
				    .pattern = LOAD_STANDING,
				    .depth = p->threshold < 100 ? p->threshold + 2 : 100 });
	p->expect.calm_us = calm_us + 6 * SECOND; /* who stands still or is gone is back by then */
	p->end_us = p->expect.calm_us + 5 * SECOND + 2 * p->window_us + 4 * SECOND + 4 * p->window_us;
	p->expect.from_us = SECOND;
	p->expect.until_us = p->end_us;
	snprintf(p->text, sizeof(p->text), "%u nodes, %u in %.2f s, burst %u, backlog %u, %s%s%s, %u us one way",
		 p->node_count, p->threshold, (double)p->window_us / 1e6, p->burst, p->backlog,
		 p->is_strict ? "strict" : "available", p->is_fair ? ", fair" : "", p->has_secret ? ", secret" : "",
		 p->road.delay_us);
}
