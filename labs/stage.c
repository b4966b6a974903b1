/* stage.c: plays a plan with a student's nodes: see stage.h.
 *
 * An event of a node that stands still is put off until it goes on; the datagrams that came meanwhile lay in a
 * socket's buffer, and all of them fall on the node at once, before or after its own clockwork moves. A node that
 * died comes back with another incarnation, another clock and no memory.
 *
 * Without it a student's protocol could only be tried on the network of one machine, where nothing is ever lost.
 */
#include "labs/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORY 18u
#define RECORDED_HERE 128u
#define LOOK_US 10000u
#define BEARABLE_LOSS 350000u /* as network.c has it */
#define BEARABLE_DELAY_US 250000u
#define EASY_LOSS 50000u /* with so little, everybody has to agree */
#define EASY_DELAY_US 60000u

struct letter {
	unsigned length;
	unsigned char bytes[STAGE_DATAGRAM_MAX];
};

/* ---- the story, for whoever has to understand a failure ---------------------------------------------------------- */

void stage_tell(struct stage *s, const char *format, ...)
{
	char *line = s->story[s->told++ % STORY];
	int length = snprintf(line, sizeof s->story[0], "t=%.4f s  ", (double)s->now_us / 1e6);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line + length, sizeof s->story[0] - (size_t)length, format, arguments);
	va_end(arguments);
}

static void draw(struct stage *s)
{
	for (unsigned i = 0; i < s->plan->node_count; i++) {
		struct player *p = &s->players[i];

		p->lane[s->lanes % STAGE_LANE] = !p->is_up ? ' ' : p->resume_us > s->now_us ? '=' : s->game->letter(p);
	}
	s->lanes++;
}

static void add(struct stage *s, const char *format, ...) PRINTF_LIKE(2, 3);
static void add(struct stage *s, const char *format, ...)
{
	size_t at = strlen(s->failure);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(s->failure + at, sizeof s->failure - at, format, arguments);
	va_end(arguments);
}

void stage_fail(struct stage *s, const char *format, ...)
{
	va_list arguments;

	if (s->has_failed)
		return;
	s->has_failed = true;
	draw(s);
	add(s, "t=%.4f s, seed %llu: ", (double)s->now_us / 1e6, (unsigned long long)s->plan->seed);
	va_start(arguments, format);
	vsnprintf(s->failure + strlen(s->failure), 300, format, arguments);
	va_end(arguments);
	add(s, "\n");
	for (unsigned i = s->told > STORY ? s->told - STORY : 0; i < s->told; i++)
		add(s, "    %s\n", s->story[i % STORY]);
	unsigned first = s->lanes > STAGE_LANE ? s->lanes - STAGE_LANE : 0;
	add(s, "  the last %.1f s, %u ms a letter: %s, = stands still, blank: gone\n",
	    (double)(s->lanes - first) * STAGE_LANE_US / 1e6, STAGE_LANE_US / 1000, s->game->legend);
	for (unsigned i = 0; i < s->plan->node_count; i++) {
		add(s, "    node %3u |", s->players[i].id);
		for (unsigned k = first; k < s->lanes; k++)
			add(s, "%c", s->players[i].lane[k % STAGE_LANE]);
		add(s, i + 1 < s->plan->node_count ? "|\n" : "|");
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
		           (struct event){
				   .at_us = s->now_us + in_us, .kind = EVENT_DATAGRAM, .node = to, .subject = letter });
	}
}

void stage_send(struct player *p, unsigned to, const void *bytes, size_t length)
{
	struct stage *s = p->stage;
	unsigned place = s->recorded_count < RECORDED_HERE ? s->recorded_count++ :
	                                                     (unsigned)random_below(&s->random, RECORDED_HERE);

	if (length > STAGE_DATAGRAM_MAX) {
		stage_fail(s, "node %u sends a datagram of %zu bytes, and %u are allowed", p->id, length,
		           STAGE_DATAGRAM_MAX);
		return;
	}
	p->sent++;
	s->recorded[place].length = (unsigned)length;
	memcpy(s->recorded[place].bytes, bytes, length);
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
	queue_push(&s->queue,
	           (struct event){ .at_us = s->now_us +
	                                    random_between(&s->random, 1, 2 * SECOND / (s->attacks_a_second + 1)),
	                           .kind = EVENT_ATTACK });
}

bool stage_hear(const struct stage *s, unsigned i, unsigned k)
{
	return is_open(s, i, k, BEARABLE_LOSS, BEARABLE_DELAY_US) && is_open(s, k, i, BEARABLE_LOSS, BEARABLE_DELAY_US);
}

bool stage_hear_easily(const struct stage *s)
{
	for (unsigned i = 0; i < s->plan->node_count; i++)
		for (unsigned k = 0; k < s->plan->node_count; k++)
			if (i != k && s->players[i].is_up && s->players[k].is_up &&
			    !is_open(s, i, k, EASY_LOSS, EASY_DELAY_US))
				return false;
	return true;
}

/* ---- players ----------------------------------------------------------------------------------------------------- */

uint64_t stage_clock_us(const struct player *p)
{
	int64_t t = (int64_t)p->stage->now_us;

	return p->offset_us + (uint64_t)(t + t * p->drift_ppm / 1000000);
}

bool stage_runs(const struct player *p)
{
	return p->is_up && p->resume_us <= p->stage->now_us;
}

uint64_t stage_lateness_us(struct stage *s)
{
	return 1 + random_below(&s->random, random_chance(&s->random, 500) ? 4000 : 60);
}

static void plan_tick(struct player *p, uint64_t in_us)
{
	struct stage *s = p->stage;

	p->tick_us = s->now_us + in_us + stage_lateness_us(s);
	queue_push(&s->queue,
	           (struct event){ .at_us = p->tick_us, .kind = EVENT_TICK, .node = p->index, .life = p->life });
}

void stage_tick_soon(struct player *p)
{
	if (p->tick_us > p->stage->now_us + 100)
		plan_tick(p, 0);
}

static void tick(struct player *p)
{
	uint64_t now_us = stage_clock_us(p), wanted_us = p->stage->game->tick(p, now_us);

	p->has_run = true;
	if (wanted_us <= now_us)
		stage_fail(p->stage, "node %u wants to be called again at once: that would never end", p->id);
	plan_tick(p, wanted_us - now_us < 3600 * SECOND ? wanted_us - now_us : 3600 * SECOND);
}

static void begin_player(struct player *p)
{
	struct stage *s = p->stage;

	p->life++;
	p->is_up = true;
	p->resume_us = 0;
	p->has_run = false;
	p->incarnation = random_next(&s->random) | 1;
	p->offset_us = random_below(&s->random, UINT64_C(1) << 44) + SECOND;
	s->changed_us = s->now_us;
	stage_tell(s, "node %u begins", p->id);
	p->mind = s->game->create(p, stage_clock_us(p));
	if (p->mind == NULL) {
		stage_fail(s, "node %u could not be created", p->id);
		p->is_up = false;
		return;
	}
	plan_tick(p, 1);
}

static void end_player(struct player *p, bool says_goodbye)
{
	struct stage *s = p->stage;

	says_goodbye = says_goodbye && s->game->leave != NULL;
	stage_tell(s, "node %u %s", p->id, says_goodbye ? "says goodbye and is gone" : "dies without a word");
	if (says_goodbye)
		s->game->leave(p, stage_clock_us(p));
	s->game->destroy(p);
	p->mind = NULL;
	p->is_up = false;
	p->life++;
	s->changed_us = s->now_us;
}

static void stop_player(struct player *p, uint64_t for_us)
{
	struct stage *s = p->stage;

	if (!p->is_up || p->resume_us > s->now_us)
		return;
	stage_tell(s, "node %u stands still for %.3f s", p->id, (double)for_us / 1e6);
	p->resume_us = s->now_us + for_us;
	s->changed_us = s->now_us;
	queue_push(&s->queue,
	           (struct event){ .at_us = p->resume_us, .kind = EVENT_RESUME, .node = p->index, .life = p->life });
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
			queue_push(&s->queue, (struct event){ .at_us = s->now_us + f->for_us,
			                                      .kind = EVENT_RETURN,
			                                      .node = p->index,
			                                      .life = p->life });
	}
}

static void suffer(struct stage *s, const struct fault *f)
{
	if (f->kind == FAULT_ROAD) {
		set_roads(s, f->nodes, f->others, &f->road);
		stage_tell(s,
		           "roads from nodes %03x to %03x (bits): %s, %.1f %% lost, %.1f %% doubled, %.1f to %.1f ms",
		           f->nodes & 0xfff, f->others & 0xfff, f->road.is_cut ? "cut" : "open",
		           f->road.lost_per_million / 1e4, f->road.doubled_per_million / 1e4, f->road.delay_us / 1e3,
		           (f->road.delay_us + f->road.jitter_us) / 1e3);
	} else if (f->kind == FAULT_CALM) {
		set_roads(s, ALL_NODES, ALL_NODES, &s->plan->road);
		stage_tell(s, "all roads are as at the beginning");
	} else if (f->kind == FAULT_ATTACK) {
		s->attack_until_us = s->now_us + f->for_us;
		s->attacks_a_second = f->threshold;
		stage_tell(s, "for %.1f s somebody sends %u datagrams a second: old ones, and garbage",
		           (double)f->for_us / 1e6, f->threshold);
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

	if (e->kind > EVENT_GIVE_UP || !p->is_up || p->resume_us <= s->now_us)
		return false;
	e->at_us = p->resume_us + (e->kind == EVENT_DATAGRAM ? 300 : random_between(&s->random, 1, 1000));
	if (e->kind == EVENT_TICK)
		p->tick_us = e->at_us;
	queue_push(&s->queue, *e);
	return true;
}

static void go_on(struct player *p)
{
	stage_tell(p->stage, "node %u goes on", p->id);
	p->has_run = false;
	p->stage->changed_us = p->stage->now_us;
}

static void happen(struct stage *s, const struct event *e)
{
	struct player *p = &s->players[e->node];
	struct letter *letter = e->subject;

	if (e->kind == EVENT_TICK && p->is_up && e->life == p->life && e->at_us == p->tick_us)
		tick(p);
	else if (e->kind == EVENT_DATAGRAM && p->is_up) {
		s->game->receive(p, letter->bytes, letter->length, stage_clock_us(p));
		p->has_run = true;
	} else if (e->kind == EVENT_FAULT)
		suffer(s, &s->plan->faults[e->number]);
	else if (e->kind == EVENT_RETURN && e->life == p->life && !p->is_up)
		begin_player(p);
	else if (e->kind == EVENT_ATTACK)
		attack(s);
	else if (e->kind == EVENT_RESUME && e->life == p->life)
		go_on(p);
	else if (s->game->happen != NULL && e->kind != EVENT_TICK && e->kind != EVENT_DATAGRAM && e->kind != EVENT_LOOK)
		s->game->happen(p, e);
	if (e->kind == EVENT_DATAGRAM)
		free(letter);
	if (e->kind == EVENT_LOOK)
		queue_push(&s->queue, (struct event){ .at_us = s->now_us + LOOK_US, .kind = EVENT_LOOK });
}

static void begin(struct stage *s)
{
	const struct plan *p = s->plan;

	s->random.state = p->seed ^ 0x1ab8;
	s->recorded = sim_allocate(NULL, RECORDED_HERE * sizeof *s->recorded);
	s->story = sim_allocate(NULL, STORY * sizeof *s->story);
	set_roads(s, ALL_NODES, ALL_NODES, &p->road);
	for (unsigned i = 0; i < NODES_MAX; i++) {
		s->players[i] = (struct player){
			.stage = s, .index = i, .id = p->nodes[i].id, .drift_ppm = p->nodes[i].drift_ppm
		};
		s->roads[i][i] = p->road;
	}
	for (unsigned i = 0; i < p->fault_count; i++)
		queue_push(&s->queue, (struct event){ .at_us = p->faults[i].at_us, .kind = EVENT_FAULT, .number = i });
	for (unsigned i = 0; s->game->happen != NULL && i < p->load_count; i++)
		queue_push(&s->queue, (struct event){ .at_us = p->loads[i].at_us, .kind = EVENT_LOAD, .number = i });
	queue_push(&s->queue, (struct event){ .at_us = 1, .kind = EVENT_LOOK });
}

struct stage *stage_run(const struct plan *plan, const struct stage_game *game, void *context)
{
	struct stage *s = sim_allocate(NULL, sizeof *s);
	struct event e;

	memset(s, 0, sizeof *s);
	s->plan = plan;
	s->game = game;
	s->context = context;
	begin(s);
	while (!s->has_failed && queue_pop(&s->queue, &e)) {
		if (e.at_us >= plan->end_us) {
			queue_push(&s->queue, e); /* for stage_free() */
			break;
		}
		for (; s->next_lane_us <= e.at_us; s->next_lane_us += STAGE_LANE_US)
			draw(s);
		s->now_us = e.at_us;
		if (put_off(s, &e))
			continue;
		happen(s, &e);
		game->watch(s);
	}
	return s;
}

void stage_free(struct stage *s)
{
	struct event e;

	for (unsigned i = 0; i < s->plan->node_count; i++)
		if (s->players[i].mind != NULL)
			s->game->destroy(&s->players[i]);
	while (queue_pop(&s->queue, &e))
		if (e.kind == EVENT_DATAGRAM)
			free(e.subject);
	free(s->queue.events);
	free(s->recorded);
	free(s->story);
	free(s);
}

bool stage_has_twins(const struct plan *plan)
{
	for (unsigned i = 0; i < plan->node_count; i++)
		for (unsigned k = 0; k < i; k++)
			if (plan->nodes[i].id == plan->nodes[k].id)
				return true;
	return false;
}
