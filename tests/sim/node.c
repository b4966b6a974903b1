/* node.c: one node: a clock of its own, the real limiter, cluster and wire, and the thread that carries datagrams.
 *
 *                    ┌───────── node ─────────────────────────────────┐
 *      network ──►   │ wire ──► cluster ──give──► limiter ◄── requests │
 *              ◄──   │ wire ◄── cluster ◄──line──    │                 │
 *                    └────────────▲──────────────poke┘                 │
 *                                 └ the line has grown ────────────────┘
 *
 * What lib/gossip.c and the lock around a cluster do in a proxy is done here by the order of events: one call at a
 * time, a tick after each datagram and when one was asked for, a thread that is never quite on time. A node that stands
 * still (node_is_paused) sees nothing; what came meanwhile waits in a socket's buffer, and all of it falls on the node
 * at once when it goes on.
 *
 * A life ends with all its memory: another incarnation, another clock, sequence numbers from the beginning.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define GROUP "127.255.255.255:7000"
#define SECRET "open sesame"
#define MILLION INT64_C(1000000)

uint64_t node_clock_us(const struct node *n)
{
	int64_t t = (int64_t)n->world->now_us;

	return n->clock_offset_us + (uint64_t)(t + t * n->drift_ppm / MILLION);
}

uint64_t node_true_us(const struct node *n, uint64_t clock_us)
{
	int64_t t, elapsed;

	if (clock_us == NEVER_US || clock_us - n->clock_offset_us > (uint64_t)INT64_MAX / 2)
		return clock_us == NEVER_US ? NEVER_US : n->world->now_us;
	elapsed = (int64_t)(clock_us - n->clock_offset_us);
	t = elapsed - elapsed * n->drift_ppm / (MILLION + n->drift_ppm);
	while (t + t * n->drift_ppm / MILLION < elapsed)
		t++;
	return (uint64_t)t;
}

bool node_is_paused(const struct node *n)
{
	return n->resume_us > n->world->now_us;
}

/* ---- what the cluster calls -------------------------------------------------------------------------------------- */

struct address {
	uint32_t index;
	uint64_t incarnation;
};

static void on_send(void *context, const struct cluster_place *to, const struct cluster_message *message)
{
	struct node *n = context;
	struct address address = { .index = NODES_MAX };
	unsigned char bytes[CLUSTER_WIRE_MAX];
	size_t length;

	if (to != NULL)
		memcpy(&address, to->bytes, sizeof(address));
	length = cluster_wire_write(n->wire, message, address.incarnation, bytes);
	if (length == 0)
		world_fail(n->world, "node %u (id %u) wants to say what can't be said (kind %d)", n->index, n->id,
			   (int)message->kind);
	else
		network_send(n->world, n->index, address.index, bytes, length);
}

static void on_give(void *context, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	struct node *n = context;
	uint64_t begin_us = from_us > now_us ? from_us : now_us;

	if (until_us < begin_us)
		world_tell(n->world, n, "is given %u, too late by %.3f ms", count,
			   (double)(begin_us - until_us) / 1000);
	else
		world_tell(n->world, n, "is given %u: in %.3f ms, for %.3f ms", count,
			   (double)(begin_us - now_us) / 1000, (double)(until_us - begin_us) / 1000);
	limiter_give(n->limiter, from_us, until_us, count, now_us);
}

static void on_answered(void *context, uint64_t asked_us, uint64_t now_us)
{
	limiter_answered(((struct node *)context)->limiter, asked_us, now_us);
}

static void on_line(void *context, uint64_t now_us, struct cluster_line *out)
{
	struct limiter_report report;

	limiter_report(((struct node *)context)->limiter, now_us, &report);
	*out = (struct cluster_line){
		.waiting = report.waiting,
		.held = report.held,
		.used_total = report.used_total,
		.died_total = report.died_total,
		.late_us_total = report.late_us_total,
		.started_total = report.started_total,
	};
}

static uint64_t on_random(void *context)
{
	return random_next(&((struct node *)context)->world->random);
}

static void on_happened(void *context, enum cluster_event event, unsigned id, uint64_t number)
{
	static const char *const says[] = {
		[CLUSTER_NODE_CAME] = "sees a node come",
		[CLUSTER_NODE_WENT] = "sees a node go",
		[CLUSTER_MASTER_CHANGED] = "has another master; the epoch is",
		[CLUSTER_TWIN_MET] = "meets a twin",
		[CLUSTER_STEPPED_ASIDE] = "steps aside for its twin",
		[CLUSTER_CAME_BACK] = "comes back, its twin is gone",
		[CLUSTER_WAS_PAUSED] = "finds that it stood still, for us",
		[CLUSTER_DISAGREES] = "sees a node disagree about",
		[CLUSTER_FULL] = "has no room for a node",
	};
	struct node *n = context;
	world_tell(n->world, n, "%s (node %u) %llu", says[event], id, (unsigned long long)number);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static void wake_at(struct node *n, uint64_t true_us)
{
	n->tick_us = true_us;
	queue_push(&n->world->queue,
	           (struct event){ .at_us = true_us, .kind = EVENT_TICK, .node = n->index, .life = n->life });
}

void node_tick(struct node *n)
{
	struct world *w = n->world;
	uint64_t wanted_us = node_true_us(n, cluster_tick(n->cluster, node_clock_us(n)));
	uint64_t earliest_us = w->now_us;

	if (wanted_us == NEVER_US) {
		n->tick_us = NEVER_US;
		return;
	}
	if (wanted_us < earliest_us)
		wanted_us = earliest_us;
	wanted_us += world_lateness_us(w, &w->plan->threads.wake);
	/* What was planned and comes soon enough serves as well. */
	if (n->tick_us > w->now_us && n->tick_us <= wanted_us)
		return;
	wake_at(n, wanted_us);
}

void node_poke(struct node *n)
{
	uint64_t at_us = n->world->now_us + world_lateness_us(n->world, &n->world->plan->threads.wake);

	if (n->tick_us <= n->world->now_us || n->tick_us > at_us)
		wake_at(n, at_us);
}

void node_receive(struct node *n, struct datagram *d, unsigned from)
{
	struct cluster_message message;
	struct cluster_place place = { .bytes = { 0 } };
	struct address address = { .index = from };
	uint64_t now_us = node_clock_us(n);
	enum cluster_wire_result result = cluster_wire_read(n->wire, d->bytes, d->length, now_us, &message);

	n->world->result->dropped[result]++;
	if (result != CLUSTER_WIRE_GOOD)
		return;
	address.incarnation = message.incarnation;
	memcpy(place.bytes, &address, sizeof(address));
	cluster_receive(n->cluster, &message, &place, now_us);
	node_tick(n);
}

/* ---- its lives --------------------------------------------------------------------------------------------------- */

static struct limiter_options limiter_settings(const struct node *n)
{
	const struct plan *p = n->world->plan;

	return (struct limiter_options){
		.threshold = n->threshold,
		.window_us = p->window_us,
		.burst = p->burst,
		.backlog = p->backlog,
		.queue = p->is_fair ? LIMITER_FAIR : LIMITER_FIFO,
		.slots_are_given = true,
	};
}

static struct cluster_options cluster_settings(const struct node *n)
{
	const struct plan *p = n->world->plan;

	return (struct cluster_options){
		.id = n->id,
		.incarnation = n->incarnation,
		.threshold = n->threshold,
		.window_us = p->window_us,
		.burst = p->burst,
		.group_size = p->group_size,
		.is_strict = p->is_strict,
	};
}

void node_begin(struct node *n)
{
	struct world *w = n->world;
	struct cluster_wire_options wire;
	struct cluster_options settings;
	struct limiter_options limits;
	struct cluster_calls calls = {
		.context = n,
		.send = on_send,
		.give = on_give,
		.answered = on_answered,
		.line = on_line,
		.random = on_random,
		.happened = on_happened,
	};

	n->life++;
	n->is_up = n->was_up = true;
	n->resume_us = 0;
	n->incarnation = random_next(&w->random) | 1;
	n->clock_offset_us = random_below(&w->random, UINT64_C(1) << 44) + SECOND;
	n->threshold = n->wanted_threshold;
	limits = limiter_settings(n);
	settings = cluster_settings(n);
	wire = (struct cluster_wire_options){ .group = GROUP, .secret = w->plan->has_secret ? SECRET : NULL,
	                                      .incarnation = n->incarnation };
	n->wire = cluster_wire_create(&wire);
	n->limiter = limiter_create(&limits, request_woken);
	n->cluster = cluster_create(&settings, &calls, node_clock_us(n));
	if (n->wire == NULL || n->limiter == NULL || n->cluster == NULL)
		abort();
	wake_at(n, w->now_us + world_lateness_us(w, &w->plan->threads.wake));
	load_set(n, &n->load);
	network_look(w);
	judge_threshold(w);
	world_tell(w, n, "begins, incarnation %016llx", (unsigned long long)n->incarnation);
}

void node_end(struct node *n, bool says_goodbye)
{
	world_tell(n->world, n, says_goodbye ? "leaves" : "dies");
	if (says_goodbye)
		cluster_leave(n->cluster, node_clock_us(n));
	request_drop_all(n);
	cluster_destroy(n->cluster);
	limiter_destroy(n->limiter);
	cluster_wire_destroy(n->wire);
	n->is_up = false;
	n->tick_us = NEVER_US;
	n->resume_us = 0;
	n->life++;
	network_look(n->world);
	judge_threshold(n->world);
}

void node_configure(struct node *n)
{
	uint64_t now_us = node_clock_us(n);
	struct limiter_options limits;
	struct cluster_options settings;

	n->threshold = n->wanted_threshold;
	limits = limiter_settings(n);
	settings = cluster_settings(n);
	world_tell(n->world, n, "has now a threshold of %u", n->threshold);
	judge_threshold(n->world);
	if (limiter_configure(n->limiter, &limits, now_us) != 0 ||
	    cluster_configure(n->cluster, &settings, now_us) != 0)
		world_fail(n->world, "node %u cannot be configured", n->index);
	node_tick(n);
}
