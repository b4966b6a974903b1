/* stage.c: where lab 8 is played: nodes with the student's election on the simulation's roads, under a plan of the simulation's kind.
 *
 *      plan (by hand, or plan_random(seed)) ──► faults ─┐
 *                                                       ▼
 *      election_tick, election_receive ◄── queue ◄── roads that lose, double, delay, cut
 *                 └──► after each event: who takes whom for master? ──► lanes, the story, the rules
 *
 * tests/sim/world.c does the same for cluster.c. What is shared is what decides: the random numbers, the order of events (queue.c), the roads'
 * faults and the adversary's plans (random_plan.c, scenarios.c), so a seed means the same trouble here and in `make sim SEED=...`.
 *
 * Two rules are watched all the time. (1) Two nodes that can hear each other are not both master for longer than the plan's test allows.
 * (2) Once nothing has happened for a while and everybody hears everybody, all take the lowest id for master. A node that has just been
 * stopped and went on is judged from its first call on: before that it could not know.
 */
#include "labs/08-election/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LANE 60u
#define LANE_US 50000u
#define STORY 14u
#define RECORDED_HERE 128u
#define LOOK_US 10000u
#define BEARABLE_LOSS 350000u /* as network.c has it */
#define BEARABLE_DELAY_US 250000u
#define EASY_LOSS 50000u      /* with so little, everybody has to agree */
#define EASY_DELAY_US 60000u

struct letter {
	unsigned length;
	unsigned char bytes[ELECTION_DATAGRAM_MAX];
};

struct player {
	struct stage *stage;
	struct election *election;
	unsigned index, id, master;
	bool is_up, has_run; /* has_run: since it began, or went on */
	uint64_t life, offset_us, tick_us, resume_us;
	int drift_ppm;
	uint64_t sent;
	char lane[LANE];
};

struct stage {
	const struct plan *plan;
	struct stage_rules *rules;
	struct random random;
	struct queue queue;
	uint64_t now_us, changed_us, next_lane_us, attack_until_us, together_us[NODES_MAX][NODES_MAX];
	unsigned attacks_a_second, lanes, recorded_count;
	struct road roads[NODES_MAX][NODES_MAX];
	struct player players[NODES_MAX];
	struct letter recorded[RECORDED_HERE];
	char story[STORY][120];
	unsigned told;
	bool has_failed;
};

/* ---- the story, for whoever has to understand a failure ---------------------------------------------------------- */

static void tell(struct stage *s, const char *format, ...) PRINTF_LIKE(2, 3);
static void tell(struct stage *s, const char *format, ...)
{
	char *line = s->story[s->told++ % STORY];
	int length = snprintf(line, sizeof s->story[0], "t=%.3f s  ", (double)s->now_us / 1e6);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line + length, sizeof s->story[0] - (size_t)length, format, arguments);
	va_end(arguments);
}

static void draw(struct stage *s)
{
	for (unsigned i = 0; i < s->plan->node_count; i++) {
		struct player *p = &s->players[i];

		p->lane[s->lanes % LANE] = !p->is_up                   ? ' ' :
		                           p->resume_us > s->now_us    ? '=' :
		                           p->master == p->id          ? 'M' :
		                           p->master == 0              ? '.' :
		                                                         (char)('0' + p->master / 10 % 10);
	}
	s->lanes++;
}

static size_t add(char *text, size_t at, const char *format, ...) PRINTF_LIKE(3, 4);
static size_t add(char *text, size_t at, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(text + at, STAGE_TEXT_MAX - at, format, arguments);
	va_end(arguments);
	return length < 0 || (size_t)length >= STAGE_TEXT_MAX - at ? STAGE_TEXT_MAX - 1 : at + (size_t)length;
}

static void fail(struct stage *s, const char *why)
{
	size_t at;

	if (s->has_failed)
		return;
	s->has_failed = true;
	draw(s);
	unsigned first = s->lanes > LANE ? s->lanes - LANE : 0, from = s->told > STORY ? s->told - STORY : 0;
	at = add(s->rules->failure, 0, "t=%.3f s, seed %llu: %s\n", (double)s->now_us / 1e6, (unsigned long long)s->plan->seed, why);
	for (unsigned i = from; i < s->told; i++)
		at = add(s->rules->failure, at, "    %s\n", s->story[i % STORY]);
	at = add(s->rules->failure, at,
	         "  the last %.1f s, 50 ms a letter: M it is master, 1 it takes 10 for master, . nobody, = stands still, blank: gone\n",
	         (double)(s->lanes - first) * LANE_US / 1e6);
	for (unsigned i = 0; i < s->plan->node_count; i++) {
		at = add(s->rules->failure, at, "    node %3u |", s->players[i].id);
		for (unsigned k = first; k < s->lanes; k++)
			at = add(s->rules->failure, at, "%c", s->players[i].lane[k % LANE]);
		at = add(s->rules->failure, at, "|\n");
	}
}

/* ---- roads ------------------------------------------------------------------------------------------------------- */

static void set_roads(struct stage *s, unsigned from, unsigned to, const struct road *road)
{
	for (unsigned i = 0; i < NODES_MAX; i++)
		for (unsigned k = 0; k < NODES_MAX; k++)
			if ((from >> i & 1) && (to >> k & 1) && i != k)
				s->roads[i][k] = *road;
}

static bool is_open(const struct stage *s, unsigned from, unsigned to, unsigned loss, unsigned delay_us)
{
	const struct road *road = &s->roads[from][to];

	return !road->is_cut && road->lost_per_million <= loss && road->delay_us + road->jitter_us <= delay_us;
}

static void deliver(struct stage *s, unsigned from, unsigned to, const void *bytes, size_t length)
{
	const struct road *road = &s->roads[from][to];
	unsigned copies = random_chance(&s->random, road->doubled_per_million) ? 2 : 1;

	if (road->is_cut || random_chance(&s->random, road->lost_per_million))
		return;
	for (; copies > 0; copies--) {
		struct letter *letter = sim_allocate(NULL, sizeof *letter);
		uint64_t in_us = 1 + road->delay_us + random_below(&s->random, road->jitter_us + UINT64_C(1));

		letter->length = (unsigned)length;
		memcpy(letter->bytes, bytes, length);
		if (random_chance(&s->random, road->spike_per_million))
			in_us += random_below(&s->random, road->spike_us + UINT64_C(1));
		queue_push(&s->queue,
		           (struct event){ .at_us = s->now_us + in_us, .kind = EVENT_DATAGRAM, .node = to, .subject = letter });
	}
}

static void on_send(void *context, unsigned to, const void *bytes, size_t length)
{
	struct player *p = context;
	struct stage *s = p->stage;

	if (length > ELECTION_DATAGRAM_MAX) {
		fail(s, "a datagram is longer than ELECTION_DATAGRAM_MAX");
		return;
	}
	p->sent++;
	struct letter *kept = &s->recorded[s->recorded_count < RECORDED_HERE ? s->recorded_count++
	                                                                      : random_below(&s->random, RECORDED_HERE * 8) % RECORDED_HERE];
	kept->length = (unsigned)length;
	memcpy(kept->bytes, bytes, length);
	for (unsigned i = 0; i < s->plan->node_count; i++)
		if (i != p->index && (to == 0 || s->players[i].id == to))
			deliver(s, p->index, i, bytes, length);
}

/* One old datagram to somebody, or garbage. */
static void attack(struct stage *s)
{
	unsigned char garbage[64];
	unsigned to = (unsigned)random_below(&s->random, s->plan->node_count);
	const struct letter *old = &s->recorded[random_below(&s->random, s->recorded_count)];

	if (s->now_us >= s->attack_until_us)
		return;
	for (size_t i = 0; i < sizeof garbage; i++)
		garbage[i] = (unsigned char)random_next(&s->random);
	if (s->recorded_count > 0 && random_chance(&s->random, 900000))
		deliver(s, to, to, old->bytes, old->length);
	else
		deliver(s, to, to, garbage, random_below(&s->random, sizeof garbage));
	queue_push(&s->queue, (struct event){ .at_us = s->now_us + random_between(&s->random, 1, 2 * SECOND / (s->attacks_a_second + 1)),
	                                      .kind = EVENT_ATTACK });
}

/* ---- players ----------------------------------------------------------------------------------------------------- */

static uint64_t clock_us(const struct player *p)
{
	int64_t t = (int64_t)p->stage->now_us;

	return p->offset_us + (uint64_t)(t + t * p->drift_ppm / 1000000);
}

static uint64_t on_random(void *context)
{
	return random_next(&((struct player *)context)->stage->random);
}

static void plan_tick(struct player *p, uint64_t in_us)
{
	struct stage *s = p->stage;

	p->tick_us = s->now_us + in_us + 1 + random_below(&s->random, random_chance(&s->random, 500) ? 4000 : 60);
	queue_push(&s->queue, (struct event){ .at_us = p->tick_us, .kind = EVENT_TICK, .node = p->index, .life = p->life });
}

static void tick(struct player *p)
{
	uint64_t now_us = clock_us(p), wanted_us = election_tick(p->election, now_us);

	p->has_run = true;
	if (wanted_us <= now_us)
		fail(p->stage, "election_tick() wants to be called again at once: that would never end");
	plan_tick(p, wanted_us - now_us < 3600 * SECOND ? wanted_us - now_us : 3600 * SECOND);
}

static void begin_player(struct player *p)
{
	struct stage *s = p->stage;
	struct election_options options = { .id = p->id, .incarnation = random_next(&s->random) | 1 };
	struct election_calls calls = { .context = p, .send = on_send, .random = on_random };

	p->life++;
	p->is_up = true;
	p->resume_us = 0;
	p->has_run = false;
	p->offset_us = random_below(&s->random, UINT64_C(1) << 44) + SECOND;
	p->election = election_create(&options, &calls, clock_us(p));
	if (p->election == NULL) {
		fail(s, "election_create() gave NULL");
		p->is_up = false;
		return;
	}
	s->changed_us = s->now_us;
	tell(s, "node %u begins", p->id);
	plan_tick(p, 1);
}

static void end_player(struct player *p, bool says_goodbye)
{
	struct stage *s = p->stage;

	if (!p->is_up)
		return;
	tell(s, "node %u %s", p->id, says_goodbye ? "says goodbye and is gone" : "dies without a word");
	if (says_goodbye)
		election_leave(p->election, clock_us(p));
	election_destroy(p->election);
	p->election = NULL;
	p->is_up = false;
	p->master = 0;
	p->life++;
	s->changed_us = s->now_us;
}

static void stop_player(struct player *p, uint64_t for_us)
{
	struct stage *s = p->stage;

	if (!p->is_up || p->resume_us > s->now_us)
		return;
	tell(s, "node %u stands still for %.3f s", p->id, (double)for_us / 1e6);
	p->resume_us = s->now_us + for_us;
	s->changed_us = s->now_us;
	queue_push(&s->queue, (struct event){ .at_us = p->resume_us, .kind = EVENT_RESUME, .node = p->index, .life = p->life });
}

/* ---- what is watched --------------------------------------------------------------------------------------------- */

static bool is_judged(const struct stage *s, const struct player *p)
{
	return p->is_up && p->has_run && p->resume_us <= s->now_us;
}

static void check_pair(struct stage *s, unsigned i, unsigned k)
{
	const struct player *a = &s->players[i], *b = &s->players[k];
	bool hear = is_open(s, i, k, BEARABLE_LOSS, BEARABLE_DELAY_US) && is_open(s, k, i, BEARABLE_LOSS, BEARABLE_DELAY_US);
	bool both = is_judged(s, a) && is_judged(s, b) && a->master == a->id && b->master == b->id;
	char why[160];

	if (!both || !hear || s->now_us < s->rules->pairs_from_us) {
		s->together_us[i][k] = NEVER_US;
		return;
	}
	if (s->together_us[i][k] == NEVER_US)
		s->together_us[i][k] = s->now_us;
	uint64_t begun_us = s->together_us[i][k];
	if (s->now_us - begun_us < s->rules->overlap_us)
		return;
	snprintf(why, sizeof why, "nodes %u and %u were masters at the same time, and can hear each other (allowed: %.1f s)", a->id, b->id,
	         (double)s->rules->overlap_us / 1e6);
	fail(s, why);
}

static bool hears_everybody(const struct stage *s)
{
	for (unsigned i = 0; i < s->plan->node_count; i++)
		for (unsigned k = 0; k < s->plan->node_count; k++)
			if (i != k && s->players[i].is_up && s->players[k].is_up && !is_open(s, i, k, EASY_LOSS, EASY_DELAY_US))
				return false;
	return true;
}

static void check_agreement(struct stage *s)
{
	unsigned lowest = UINT32_MAX;
	char why[160];

	for (unsigned i = 0; i < s->plan->node_count; i++) {
		if (s->players[i].is_up && s->players[i].resume_us > s->now_us)
			return;
		if (s->players[i].is_up && s->players[i].id < lowest)
			lowest = s->players[i].id;
	}
	for (unsigned i = 0; i < s->plan->node_count; i++)
		if (s->players[i].is_up && s->players[i].master != lowest) {
			snprintf(why, sizeof why, "nothing has happened for %.1f s, and node %u takes %u for master and not %u, the lowest id alive",
			         (double)(s->now_us - s->changed_us) / 1e6, s->players[i].id, s->players[i].master, lowest);
			fail(s, why);
			return;
		}
}

static void check_claims(struct stage *s)
{
	for (const struct stage_claim *c = s->rules->claims; c != NULL && c->text != NULL; c++)
		for (unsigned i = 0; i < s->plan->node_count; i++)
			if ((c->nodes >> i & 1) && s->now_us >= c->from_us && s->now_us < c->until_us && is_judged(s, &s->players[i]) &&
			    s->players[i].master != c->master)
				fail(s, c->text);
}

/* After each event. */
static void watch(struct stage *s)
{
	for (unsigned i = 0; i < s->plan->node_count; i++) {
		struct player *p = &s->players[i];

		if (!is_judged(s, p))
			continue;
		unsigned master = election_master(p->election);
		if (master != p->master)
			tell(s, "node %u takes %u for master%s", p->id, master, master == p->id ? ": itself" : master == 0 ? ": nobody" : "");
		p->master = master;
	}
	check_claims(s);
	for (unsigned i = 0; i < s->plan->node_count; i++)
		for (unsigned k = i + 1; k < s->plan->node_count; k++)
			check_pair(s, i, k);
	if (s->rules->settle_us > 0 && s->now_us >= s->changed_us + s->rules->settle_us && hears_everybody(s))
		check_agreement(s);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void suffer_one(struct stage *s, struct player *p, const struct fault *f)
{
	if (f->kind == FAULT_START && !p->is_up)
		begin_player(p);
	else if (f->kind == FAULT_PAUSE || f->kind == FAULT_PAUSE_WHEN_CALLED)
		stop_player(p, f->for_us);
	else if ((f->kind == FAULT_CRASH || f->kind == FAULT_LEAVE) && p->is_up) {
		end_player(p, f->kind == FAULT_LEAVE && p->resume_us <= s->now_us);
		if (f->for_us > 0)
			queue_push(&s->queue, (struct event){ .at_us = s->now_us + f->for_us, .kind = EVENT_RETURN, .node = p->index,
			                                      .life = p->life });
	}
}

static void suffer(struct stage *s, const struct fault *f)
{
	if (f->kind == FAULT_ROAD) {
		set_roads(s, f->nodes, f->others, &f->road);
		tell(s, "roads from nodes %03x to %03x (bits): %s, %.1f %% lost, %.1f %% doubled, %.1f to %.1f ms", f->nodes & 0xfff, f->others & 0xfff,
		     f->road.is_cut ? "cut" : "open", f->road.lost_per_million / 1e4, f->road.doubled_per_million / 1e4, f->road.delay_us / 1e3,
		     (f->road.delay_us + f->road.jitter_us) / 1e3);
	} else if (f->kind == FAULT_CALM) {
		set_roads(s, ALL_NODES, ALL_NODES, &s->plan->road);
		tell(s, "all roads are as at the beginning");
	} else if (f->kind == FAULT_ATTACK) {
		s->attack_until_us = s->now_us + f->for_us;
		s->attacks_a_second = f->threshold;
		tell(s, "for %.1f s somebody sends %u datagrams a second: old ones, and garbage", (double)f->for_us / 1e6, f->threshold);
		attack(s);
	}
	if (f->kind != FAULT_RELOAD && f->kind != FAULT_ATTACK)
		s->changed_us = s->now_us;
	for (unsigned i = 0; i < s->plan->node_count; i++)
		if (f->nodes >> i & 1)
			suffer_one(s, &s->players[i], f);
}

/* Its node stands still: it happens when the node goes on. */
static bool put_off(struct stage *s, struct event *e)
{
	struct player *p = &s->players[e->node];

	if ((e->kind != EVENT_TICK && e->kind != EVENT_DATAGRAM) || p->resume_us <= s->now_us)
		return false;
	e->at_us = p->resume_us + (e->kind == EVENT_DATAGRAM ? 300 : random_between(&s->random, 1, 1000));
	if (e->kind == EVENT_TICK)
		p->tick_us = e->at_us;
	queue_push(&s->queue, *e);
	return true;
}

static void happen(struct stage *s, const struct event *e)
{
	struct player *p = &s->players[e->node];
	struct letter *letter = e->subject;

	if (e->kind == EVENT_TICK && p->is_up && e->life == p->life && e->at_us == p->tick_us)
		tick(p);
	else if (e->kind == EVENT_DATAGRAM && p->is_up) {
		election_receive(p->election, letter->bytes, letter->length, clock_us(p));
		p->has_run = true;
	} else if (e->kind == EVENT_FAULT)
		suffer(s, &s->plan->faults[e->number]);
	else if (e->kind == EVENT_RETURN && e->life == p->life && !p->is_up)
		begin_player(p);
	else if (e->kind == EVENT_ATTACK)
		attack(s);
	else if (e->kind == EVENT_RESUME && e->life == p->life) {
		tell(s, "node %u goes on", p->id);
		p->has_run = false;
		s->changed_us = s->now_us;
	}
	if (e->kind == EVENT_DATAGRAM)
		free(letter);
	if (e->kind == EVENT_LOOK)
		queue_push(&s->queue, (struct event){ .at_us = s->now_us + LOOK_US, .kind = EVENT_LOOK });
}

static void begin(struct stage *s)
{
	const struct plan *p = s->plan;

	s->random.state = p->seed ^ 0x1ab8;
	set_roads(s, ALL_NODES, ALL_NODES, &p->road);
	for (unsigned i = 0; i < NODES_MAX; i++) {
		s->players[i] = (struct player){ .stage = s, .index = i };
		s->roads[i][i] = p->road;
		for (unsigned k = 0; k < NODES_MAX; k++)
			s->together_us[i][k] = NEVER_US;
	}
	for (unsigned i = 0; i < p->node_count; i++) {
		s->players[i].id = p->nodes[i].id;
		s->players[i].drift_ppm = p->nodes[i].drift_ppm;
	}
	for (unsigned i = 0; i < p->fault_count; i++)
		queue_push(&s->queue, (struct event){ .at_us = p->faults[i].at_us, .kind = EVENT_FAULT, .number = i });
	queue_push(&s->queue, (struct event){ .at_us = 1, .kind = EVENT_LOOK });
}

static void end(struct stage *s)
{
	struct event e;

	for (unsigned i = 0; i < s->plan->node_count; i++) {
		if (s->players[i].sent > s->rules->most_sent)
			s->rules->most_sent = s->players[i].sent;
		if (s->players[i].election != NULL)
			election_destroy(s->players[i].election);
	}
	while (queue_pop(&s->queue, &e))
		if (e.kind == EVENT_DATAGRAM)
			free(e.subject);
	free(s->queue.events);
	free(s);
}

bool stage_run(const struct plan *plan, struct stage_rules *rules)
{
	struct stage *s = sim_allocate(NULL, sizeof *s);
	struct event e;

	memset(s, 0, sizeof *s);
	s->plan = plan;
	s->rules = rules;
	rules->failure[0] = '\0';
	rules->most_sent = 0;
	begin(s);
	while (!s->has_failed && queue_pop(&s->queue, &e)) {
		if (e.at_us >= plan->end_us) {
			queue_push(&s->queue, e); /* for end() to free */
			break;
		}
		for (; s->next_lane_us <= e.at_us; s->next_lane_us += LANE_US)
			draw(s);
		s->now_us = e.at_us;
		if (put_off(s, &e))
			continue;
		happen(s, &e);
		watch(s);
	}
	bool went_well = !s->has_failed;
	end(s);
	return went_well;
}
