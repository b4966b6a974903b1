/* world.c: takes the earliest event, sets the clock to it, lets it happen, until the plan's end; and does to the nodes
 * what the plan says they suffer.
 *
 *      queue ──► event ──► is its node still in that life? does it stand still? ──► the part that it is for
 *
 * Standing still (a stopped process, a machine that swaps, a virtual machine that is moved) is the hardest fault for a
 * protocol of leases, and the reason why events pass through here: those of a node that stands still are put off until
 * it goes on, where threads wake in any order, and the datagrams come in the order in which the socket's buffer kept
 * them.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERED_MAX 400u

void world_plan(struct world *w, uint64_t in_us, enum event_kind kind, unsigned node, uint64_t life, void *subject)
{
	queue_push(&w->queue, (struct event){ .at_us = w->now_us + in_us, .kind = kind, .node = node, .life = life,
	                                      .subject = subject });
}

uint64_t world_lateness_us(struct world *w, const struct lateness *lateness)
{
	bool is_rare = random_chance(&w->random, lateness->rare_per_million);

	return 1 + random_below(&w->random, is_rare ? lateness->rare_us : lateness->usual_us);
}

void world_fail(struct world *w, const char *format, ...)
{
	va_list arguments;

	if (w->result->has_failed)
		return;
	w->result->has_failed = true;
	w->result->failed_us = w->now_us;
	va_start(arguments, format);
	vsnprintf(w->result->why, sizeof(w->result->why), format, arguments);
	va_end(arguments);
	world_tell(w, NULL, "FAILED: %s", w->result->why);
}

void world_tell(struct world *w, const struct node *node, const char *format, ...)
{
	va_list arguments;

	if (!w->has_timeline)
		return;
	printf("%12.6f  ", (double)w->now_us / 1e6);
	if (node != NULL)
		printf("node %u (id %u) ", node->index, node->id);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

void world_pause(struct world *w, struct node *n, uint64_t for_us)
{
	n->pause_when_called_us = 0;
	if (!n->is_up || node_is_paused(n))
		return;
	world_tell(w, n, "stands still for %" PRIu64 " ms", for_us / 1000);
	n->resume_us = w->now_us + for_us;
	n->buffered = 0;
	world_plan(w, for_us, EVENT_RESUME, n->index, n->life, NULL);
}

static void stop_node(struct world *w, struct node *n, const struct fault *f)
{
	if (!n->is_up)
		return;
	node_end(n, f->kind == FAULT_LEAVE && !node_is_paused(n));
	if (f->for_us > 0)
		world_plan(w, f->for_us, EVENT_RETURN, n->index, n->life, NULL);
}

static void configure_node(struct node *n, unsigned threshold)
{
	n->wanted_threshold = threshold; /* it reads its file when it begins; one that stands still, when it goes on */
	if (n->is_up && !node_is_paused(n))
		node_configure(n);
}

static void suffer(struct world *w, const struct fault *f)
{
	static const char *const names[] = { "start", "crash", "leave", "pause", "pause when called", "road", "calm", "reload", "attack" };

	world_tell(w, NULL, "---- %s: nodes %03x, others %03x, cut %d, loss %u/1000000, delay %u us", names[f->kind],
		   f->nodes, f->others, f->road.is_cut, f->road.lost_per_million, f->road.delay_us);
	if (f->kind == FAULT_ROAD)
		network_set(w, f->nodes, f->others, &f->road);
	else if (f->kind == FAULT_CALM)
		network_set(w, ALL_NODES, ALL_NODES, &w->plan->road);
	else if (f->kind == FAULT_ATTACK) {
		w->network.attack_until_us = w->now_us + f->for_us;
		w->network.attacks_a_second = f->threshold;
		world_plan(w, 1, EVENT_ATTACK, 0, 0, NULL);
	}
	for (unsigned i = 0; i < w->plan->node_count; i++) {
		struct node *n = &w->nodes[i];

		if (!(f->nodes >> i & 1))
			continue;
		if (f->kind == FAULT_START && !n->is_up)
			node_begin(n);
		else if (f->kind == FAULT_CRASH || f->kind == FAULT_LEAVE)
			stop_node(w, n, f);
		else if (f->kind == FAULT_PAUSE)
			world_pause(w, n, f->for_us);
		else if (f->kind == FAULT_PAUSE_WHEN_CALLED)
			n->pause_when_called_us = f->for_us;
		else if (f->kind == FAULT_CALM)
			n->pause_when_called_us = 0;
		else if (f->kind == FAULT_RELOAD)
			configure_node(n, f->threshold);
	}
	network_look(w);
}

static void attack(struct world *w)
{
	if (w->now_us >= w->network.attack_until_us)
		return;
	network_attack(w);
	world_plan(w, random_between(&w->random, 1, 2 * SECOND / (w->network.attacks_a_second + 1)), EVENT_ATTACK, 0,
		   0, NULL);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static bool is_of_node(enum event_kind kind)
{
	return kind <= EVENT_GIVE_UP;
}

static bool is_stale(const struct world *w, const struct event *e)
{
	const struct node *n = &w->nodes[e->node];

	switch (e->kind) {
	case EVENT_TICK:
		return e->life != n->life || e->at_us != n->tick_us;
	case EVENT_ARRIVAL:
		return e->life != n->life || e->number != n->load_life;
	case EVENT_THREAD:
		return ((struct request *)e->subject)->life != e->life ||
		       ((struct request *)e->subject)->wakes_us != e->at_us;
	case EVENT_CHECK:
	case EVENT_SEND:
	case EVENT_GIVE_UP:
		return ((struct request *)e->subject)->life != e->life;
	case EVENT_RETURN:
	case EVENT_RESUME:
		return e->life != n->life;
	default:
		return false;
	}
}

/* Its node stands still: it happens when the node goes on. */
static void put_off(struct world *w, struct event *e)
{
	struct node *n = &w->nodes[e->node];

	if (e->kind == EVENT_DATAGRAM) {
		if (n->buffered++ >= BUFFERED_MAX) {
			datagram_release(w, e->subject);
			return;
		}
		e->at_us = n->resume_us + 300;
	} else {
		e->at_us = n->resume_us + random_between(&w->random, 1, 1000);
	}
	if (e->kind == EVENT_TICK)
		n->tick_us = e->at_us;
	if (e->kind == EVENT_THREAD)
		((struct request *)e->subject)->wakes_us = e->at_us;
	if (e->kind == EVENT_SEND)
		((struct request *)e->subject)->is_frozen = true;
	queue_push(&w->queue, *e);
}

static void happen_to_node(struct node *n, const struct event *e)
{
	switch (e->kind) {
	case EVENT_TICK:
		node_tick(n);
		break;
	case EVENT_DATAGRAM:
		if (n->is_up)
			node_receive(n, e->subject, (unsigned)e->number);
		datagram_release(n->world, e->subject);
		break;
	case EVENT_ARRIVAL:
		load_next(n);
		break;
	case EVENT_THREAD:
		request_thread(e->subject);
		break;
	case EVENT_CHECK:
		request_check(e->subject);
		break;
	case EVENT_SEND:
		request_send(e->subject);
		break;
	default:
		request_give_up(e->subject);
		break;
	}
}

static void set_load(struct world *w, const struct load *load)
{
	for (unsigned i = 0; i < w->plan->node_count; i++)
		if (load->nodes >> i & 1)
			load_set(&w->nodes[i], load);
}

static void happen(struct world *w, struct event *e)
{
	struct node *n = &w->nodes[e->node];

	switch (e->kind) {
	case EVENT_LOAD:
		set_load(w, &w->plan->loads[e->number]);
		break;
	case EVENT_FAULT:
		suffer(w, &w->plan->faults[e->number]);
		break;
	case EVENT_RETURN:
		if (!n->is_up)
			node_begin(n);
		break;
	case EVENT_RESUME:
		world_tell(w, n, "goes on");
		if (n->wanted_threshold != n->threshold)
			node_configure(n);
		break;
	case EVENT_ATTACK:
		attack(w);
		break;
	case EVENT_LOOK:
		judge_look(w);
		break;
	default:
		happen_to_node(n, e);
		break;
	}
}

/* One line for each second: who was what, and who started how many. */
static void tell_second(struct world *w)
{
	unsigned sum = 0;

	printf("%12.6f  ==", (double)w->second_us / 1e6);
	for (unsigned i = 0; i < w->plan->node_count; i++) {
		struct node *n = &w->nodes[i];
		struct cluster_report report = { .master = 0 };

		if (n->is_up)
			cluster_report(n->cluster, node_clock_us(n), &report);
		printf("  %u:%s %u (%u wait)", i,
		       !n->is_up             ? "gone" :
		       node_is_paused(n)     ? "still" :
		       report.is_giving      ? "MASTER" :
		       report.quiet_until_us ? "quiet" :
		       report.master != 0    ? "member" :
		                               "alone",
		       n->second_started, n->waiting);
		sum += n->second_started;
		n->second_started = 0;
	}
	printf("  = %u of %u\n", sum, w->judge.threshold_now);
}

static void begin(struct world *w)
{
	const struct plan *p = w->plan;

	w->random.state = p->seed ^ 0x5eed;
	for (unsigned i = 0; i < p->node_count; i++)
		w->nodes[i] = (struct node){ .world = w,
					     .index = i,
					     .id = p->nodes[i].id,
					     .drift_ppm = p->nodes[i].drift_ppm,
					     .wanted_threshold = p->threshold,
					     .tick_us = NEVER_US };
	network_begin(w);
	judge_begin(w);
	for (unsigned i = 0; i < p->load_count; i++)
		queue_push(&w->queue, (struct event){ .at_us = p->loads[i].at_us, .kind = EVENT_LOAD, .number = i });
	for (unsigned i = 0; i < p->fault_count; i++)
		queue_push(&w->queue, (struct event){ .at_us = p->faults[i].at_us, .kind = EVENT_FAULT, .number = i });
}

static void end(struct world *w)
{
	struct event e;

	for (unsigned i = 0; i < w->plan->node_count; i++)
		if (w->nodes[i].is_up)
			node_end(&w->nodes[i], false);
	while (queue_pop(&w->queue, &e))
		if (e.kind == EVENT_DATAGRAM)
			datagram_release(w, e.subject);
	free(w->queue.events);
	while (w->spare != NULL) {
		struct request *r = w->spare;

		w->spare = r->next;
		free(r);
	}
	network_end(w);
}

void world_run(const struct plan *plan, bool has_timeline, struct result *result)
{
	struct world *w = sim_allocate(NULL, sizeof(*w));
	struct event e;

	*result = (struct result){ .seed = plan->seed, .end_us = plan->end_us, .threshold = plan->threshold };
	memcpy(result->name, plan->name, sizeof(result->name));
	memset(w, 0, sizeof(*w));
	w->plan = plan;
	w->result = result;
	w->has_timeline = has_timeline;
	begin(w);
	while (!result->has_failed && queue_pop(&w->queue, &e)) {
		if (e.at_us >= plan->end_us) {
			if (e.kind == EVENT_DATAGRAM)
				datagram_release(w, e.subject);
			break;
		}
		for (; has_timeline && w->second_us + SECOND <= e.at_us; tell_second(w)) {
			w->second_us += SECOND;
			w->now_us = w->second_us;
		}
		w->now_us = e.at_us;
		if (is_stale(w, &e))
			continue;
		if (is_of_node(e.kind) && node_is_paused(&w->nodes[e.node]))
			put_off(w, &e);
		else
			happen(w, &e);
	}
	if (!result->has_failed)
		w->now_us = plan->end_us;
	result->datagrams = w->network.sent;
	judge_end(w);
	end(w);
	free(w);
}
