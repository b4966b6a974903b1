/* cluster_world.h: a group of cluster nodes in one process: a network in memory, clocks that differ, and a line at each node.
 *
 *      node 1 ──┐                           each node: cluster.c, a clock of its own (offset_us), a line of waiting requests
 *      node 2 ──┼── the network ── puppet   a puppet: the test itself speaks and listens in the node's place
 *      node 3 ──┘   (delay, loss, and a filter that a test may set; no doubles: those cluster_wire.c keeps out)
 *
 * Nothing here waits: run_to() goes from event to event. All that happens comes from the seed, so that each run is the same.
 *
 * Every start is noted by the world's clock, and the starts of the group are then counted: how many in the fullest window, how
 * many in all. Header only, for test_cluster.c and test_cluster_memory.c are two programs.
 */
#ifndef WEIR_CLUSTER_WORLD_H
#define WEIR_CLUSTER_WORLD_H

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../cluster.h"

#define MS UINT64_C(1000)
#define SECOND UINT64_C(1000000)
#define NODES_MAX 80u
#define KINDS (CLUSTER_HANDOVER + 1)
#define EVENTS (CLUSTER_FULL + 1)
#define BEGIN_US (100 * SECOND)

struct world;

struct peer {
	struct world *world;
	struct cluster *cluster; /* NULL: not there, or a puppet */
	bool is_puppet;
	unsigned id;
	uint64_t incarnation, offset_us, next_us, paused_until_us;
	struct cluster_options options;
	/* Its line. */
	unsigned waiting, held;
	bool is_endless;     /* waiting never falls */
	uint64_t lag_us;     /* a start is so much after its moment */
	uint64_t late_us;    /* the next start is so much later than it may be */
	uint64_t used, died, unused, late_us_total;
	uint64_t first_from_us, last_until_us, given, answered_asked_us;
	unsigned answers;
	/* What it told. */
	unsigned events[EVENTS];
	unsigned event_id[EVENTS];
	uint64_t event_number[EVENTS];
	/* What it sent, and what a puppet heard. */
	unsigned sent[KINDS], heard[KINDS];
	struct cluster_message last_sent[KINDS], last_heard[KINDS];
};

struct packet {
	uint64_t at_us, number; /* of two that come at once, the one that was sent first */
	unsigned from, to;      /* indices */
	struct cluster_message *message;
};

struct start {
	uint64_t at_us;
	unsigned id;
};

struct world {
	uint64_t now_us, random, delay_us, jitter_us;
	unsigned loss_percent;
	bool (*passes)(const struct world *w, unsigned from_id, unsigned to_id, const struct cluster_message *message);
	unsigned cut_a, cut_b;   /* for filters */
	unsigned node_count;
	struct peer nodes[NODES_MAX];
	struct packet *packets;
	size_t packet_count, packet_room, sent_total;
	uint64_t carried;
	struct start *starts;
	size_t start_count, start_room;
};

static inline uint64_t world_random(struct world *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static inline uint64_t clock_of(const struct peer *node)
{
	return node->world->now_us + node->offset_us;
}

/* ---- what a node calls ---------------------------------------------------------------------------------------------- */

static inline void carry(struct world *w, const struct peer *from, unsigned to, const struct cluster_message *message)
{
	struct peer *receiver = &w->nodes[to];
	uint64_t delay_us = w->delay_us + (w->jitter_us > 0 ? world_random(w) % w->jitter_us : 0);
	if (world_random(w) % 100 < w->loss_percent)
		return;
	if (w->passes != NULL && !w->passes(w, from->id, receiver->id, message))
		return;
	if (w->packet_count == w->packet_room) {
		w->packet_room = w->packet_room * 2 + 64;
		w->packets = realloc(w->packets, w->packet_room * sizeof *w->packets);
		if (w->packets == NULL)
			abort();
	}
	struct cluster_message *copy = malloc(sizeof *copy);
	if (copy == NULL)
		abort();
	*copy = *message;
	w->packets[w->packet_count++] = (struct packet){ w->now_us + delay_us, ++w->carried, (unsigned)(from - w->nodes), to, copy };
}

static inline void on_send(void *context, const struct cluster_place *to, const struct cluster_message *message)
{
	struct peer *node = context;
	struct world *w = node->world;
	node->sent[message->kind]++;
	node->last_sent[message->kind] = *message;
	w->sent_total++;
	if (to != NULL)
		carry(w, node, to->bytes[0], message);
	for (unsigned i = 0; i < w->node_count && to == NULL; i++)
		carry(w, node, i, message);
}

static inline void note_start(struct peer *node, uint64_t at_us)
{
	struct world *w = node->world;
	if (w->start_count == w->start_room) {
		w->start_room = w->start_room * 2 + 1024;
		w->starts = realloc(w->starts, w->start_room * sizeof *w->starts);
		if (w->starts == NULL)
			abort();
	}
	w->starts[w->start_count++] = (struct start){ at_us - node->offset_us, node->id };
	node->used++;
}

#define TARGET_US (2 * MS) /* a start is late when it reaches the target so much after its time */

static inline void on_give(void *context, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	struct peer *node = context;
	node->given += count;
	node->first_from_us = node->first_from_us == 0 ? from_us : node->first_from_us;
	node->last_until_us = until_us;
	for (unsigned i = 0; i < count; i++) {
		uint64_t start_us = (from_us > now_us ? from_us : now_us) + node->lag_us;
		if (start_us > until_us) {
			node->died++;
		} else if (node->waiting == 0) {
			node->unused++;
		} else {
			note_start(node, node->late_us > 0 ? until_us + TARGET_US + node->late_us : start_us);
			node->late_us_total += node->late_us;
			node->late_us = 0;
			node->waiting -= !node->is_endless;
		}
	}
}

static inline void on_answered(void *context, uint64_t asked_us, uint64_t now_us)
{
	struct peer *node = context;
	(void)now_us;
	node->answers++;
	node->answered_asked_us = asked_us;
}

static inline void on_line(void *context, uint64_t now_us, struct cluster_line *out)
{
	const struct peer *node = context;
	(void)now_us;
	*out = (struct cluster_line){ .waiting = node->waiting,
		                      .held = node->held,
		                      .used_total = node->used,
		                      .died_total = node->died,
		                      .late_us_total = node->late_us_total,
		                      .started_total = node->used };
}

static inline uint64_t on_random(void *context)
{
	const struct peer *node = context;
	return world_random(node->world);
}

static inline void on_happened(void *context, enum cluster_event event, unsigned id, uint64_t number)
{
	struct peer *node = context;
	node->events[event]++;
	node->event_id[event] = id;
	node->event_number[event] = number;
}

/* ---- building a world ----------------------------------------------------------------------------------------------- */

static inline struct world *make_world(void)
{
	struct world *w = calloc(1, sizeof *w);
	if (w == NULL)
		abort();
	w->now_us = BEGIN_US;
	w->random = 88172645463325252u;
	w->delay_us = 200;
	return w;
}

static inline void end_world(struct world *w)
{
	for (unsigned i = 0; i < w->node_count; i++)
		cluster_destroy(w->nodes[i].cluster);
	for (size_t i = 0; i < w->packet_count; i++)
		free(w->packets[i].message);
	free(w->packets);
	free(w->starts);
	free(w);
}

static inline struct peer *add_place(struct world *w, unsigned id)
{
	struct peer *node = &w->nodes[w->node_count++];
	node->world = w;
	node->id = id;
	node->offset_us = world_random(w) % (1000 * SECOND);
	node->incarnation = world_random(w);
	return node;
}

/* A life of the node begins: with a new incarnation, an empty memory, and its line as it is. */
static inline void start_node(struct peer *node)
{
	struct cluster_calls calls = { node, on_send, on_give, on_answered, on_line, on_random, on_happened };
	node->incarnation = world_random(node->world);
	node->options.incarnation = node->incarnation;
	node->cluster = cluster_create(&node->options, &calls, clock_of(node));
	node->next_us = node->world->now_us;
	node->paused_until_us = 0;
	node->used = node->died = node->late_us_total = 0;
}

static inline struct cluster_options options_of(unsigned id, unsigned threshold)
{
	return (struct cluster_options){ .id = id, .threshold = threshold, .window_us = SECOND };
}

static inline struct peer *add_node_with(struct world *w, struct cluster_options options)
{
	struct peer *node = add_place(w, options.id);
	node->options = options;
	start_node(node);
	return node;
}

static inline struct peer *add_node(struct world *w, unsigned id, unsigned threshold)
{
	return add_node_with(w, options_of(id, threshold));
}

static inline struct peer *add_puppet(struct world *w, unsigned id)
{
	struct peer *node = add_place(w, id);
	node->is_puppet = true;
	return node;
}

static inline void crash(struct peer *node)
{
	cluster_destroy(node->cluster);
	node->cluster = NULL;
}

static inline void pause_node(struct peer *node, uint64_t for_us)
{
	node->paused_until_us = node->world->now_us + for_us;
}

static inline void let_wait(struct peer *node, unsigned waiting, bool is_endless)
{
	node->waiting = waiting;
	node->is_endless = is_endless;
	node->next_us = node->world->now_us;
}

/* ---- running it ----------------------------------------------------------------------------------------------------- */

static inline void tick(struct peer *node)
{
	uint64_t next_us = cluster_tick(node->cluster, clock_of(node));
	node->next_us = next_us == UINT64_MAX ? UINT64_MAX : next_us - node->offset_us;
}

static inline void receive(struct peer *node, unsigned from, const struct cluster_message *message)
{
	struct cluster_place place = { .bytes = { (unsigned char)from } };
	node->heard[message->kind]++;
	node->last_heard[message->kind] = *message;
	if (node->cluster == NULL)
		return;
	cluster_receive(node->cluster, message, &place, clock_of(node));
	tick(node);
}

static inline bool is_paused(const struct peer *node)
{
	return node->paused_until_us > node->world->now_us;
}

static inline uint64_t due_us(const struct peer *node, uint64_t at_us)
{
	return node->paused_until_us > at_us ? node->paused_until_us : at_us;
}

/* Runs what is due first, if it is due by end_us. */
static inline bool step(struct world *w, uint64_t end_us)
{
	uint64_t soonest_us = UINT64_MAX;
	size_t packet = SIZE_MAX, node = SIZE_MAX;
	for (unsigned i = 0; i < w->node_count; i++) {
		uint64_t at_us = due_us(&w->nodes[i], w->nodes[i].next_us);
		if (w->nodes[i].cluster != NULL && at_us < soonest_us) {
			soonest_us = at_us;
			node = i;
		}
	}
	for (size_t i = 0; i < w->packet_count; i++) {
		uint64_t at_us = due_us(&w->nodes[w->packets[i].to], w->packets[i].at_us);
		if (at_us < soonest_us ||
		    (at_us == soonest_us && (packet == SIZE_MAX || w->packets[i].number < w->packets[packet].number))) {
			soonest_us = at_us;
			packet = i;
		}
	}
	if (soonest_us > end_us)
		return false;
	w->now_us = soonest_us > w->now_us ? soonest_us : w->now_us;
	if (packet != SIZE_MAX) {
		struct packet p = w->packets[packet];
		w->packets[packet] = w->packets[--w->packet_count];
		receive(&w->nodes[p.to], p.from, p.message);
		free(p.message);
	} else {
		tick(&w->nodes[node]);
	}
	return true;
}

static inline void run_for(struct world *w, uint64_t time_us)
{
	uint64_t end_us = w->now_us + time_us;
	while (step(w, end_us))
		;
	w->now_us = end_us;
}

/* ---- what came of it ------------------------------------------------------------------------------------------------ */

static inline int by_time(const void *a, const void *b)
{
	const struct start *x = a, *y = b;
	return (x->at_us > y->at_us) - (x->at_us < y->at_us);
}

/* Of the starts from from_us to until_us, the most that one window holds. */
static inline size_t fullest_window_between(struct world *w, uint64_t window_us, uint64_t from_us, uint64_t until_us)
{
	size_t most = 0, first = 0;
	qsort(w->starts, w->start_count, sizeof *w->starts, by_time);
	while (first < w->start_count && w->starts[first].at_us < from_us)
		first++;
	for (size_t last = first; last < w->start_count && w->starts[last].at_us < until_us; last++) {
		while (w->starts[last].at_us - w->starts[first].at_us >= window_us)
			first++;
		most = last - first + 1 > most ? last - first + 1 : most;
	}
	return most;
}

static inline size_t fullest_window(struct world *w)
{
	return fullest_window_between(w, SECOND, 0, UINT64_MAX);
}

/* id: 0 for the whole group. */
static inline size_t count_starts(const struct world *w, unsigned id, uint64_t from_us, uint64_t until_us)
{
	size_t count = 0;
	for (size_t i = 0; i < w->start_count; i++)
		count += (id == 0 || w->starts[i].id == id) && w->starts[i].at_us >= from_us && w->starts[i].at_us < until_us;
	return count;
}

static inline size_t count_starts_since(const struct world *w, unsigned id, uint64_t from_us)
{
	return count_starts(w, id, from_us, UINT64_MAX);
}

/* From since_us to the first start after it; UINT64_MAX if there is none. */
static inline uint64_t gap_after(const struct world *w, uint64_t since_us)
{
	uint64_t soonest_us = UINT64_MAX;
	for (size_t i = 0; i < w->start_count; i++)
		if (w->starts[i].at_us > since_us && w->starts[i].at_us - since_us < soonest_us)
			soonest_us = w->starts[i].at_us - since_us;
	return soonest_us;
}

static inline struct cluster_report report_of(const struct peer *node)
{
	struct cluster_report report;
	cluster_report(node->cluster, clock_of(node), &report);
	return report;
}

static inline unsigned master_of(const struct peer *node)
{
	return report_of(node).master;
}

static inline const struct cluster_node_report *find_report(const struct cluster_report *report, unsigned id)
{
	for (unsigned i = 0; i < report->node_count; i++)
		if (report->nodes[i].id == id)
			return &report->nodes[i];
	return NULL;
}

static inline bool is_alive_for(const struct peer *node, unsigned id)
{
	struct cluster_report report = report_of(node);
	const struct cluster_node_report *found = find_report(&report, id);
	return found != NULL && found->state == CLUSTER_ALIVE;
}

/* ---- speaking in a puppet's place ----------------------------------------------------------------------------------- */

static inline void say(struct peer *puppet, struct peer *to, struct cluster_message *message)
{
	message->id = puppet->id;
	message->incarnation = puppet->incarnation;
	receive(to, (unsigned)(puppet - puppet->world->nodes), message);
}

/* A heartbeat of the puppet that answers to's newest challenge. master: whom it says it takes for master. */
static inline struct cluster_message beat_of(const struct peer *puppet, const struct peer *to, unsigned master, uint64_t epoch)
{
	struct cluster_message message = { .kind = CLUSTER_HEARTBEAT, .epoch = epoch };
	struct cluster_heartbeat *beat = &message.is.heartbeat;
	beat->uptime_us = puppet->world->now_us - BEGIN_US;
	beat->master = master;
	beat->threshold = to->options.threshold;
	beat->window_us = to->options.window_us;
	beat->challenge = 7;
	beat->echo_count = 1;
	beat->echoes[0] = (struct cluster_echo){ to->id, to->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.challenge };
	return message;
}

static inline void say_beat(struct peer *puppet, struct peer *to, unsigned master, uint64_t epoch)
{
	struct cluster_message message = beat_of(puppet, to, master, epoch);
	say(puppet, to, &message);
}

/* Keeps the puppet alive for to, and lets the world run. */
static inline void run_with_puppet(struct peer *puppet, struct peer *to, unsigned master, uint64_t epoch, uint64_t time_us)
{
	for (uint64_t passed_us = 0; passed_us < time_us; passed_us += 50 * MS) {
		say_beat(puppet, to, master, epoch);
		run_for(puppet->world, 50 * MS);
	}
}

#endif
