/* network.c: the roads between the nodes, what happens to datagrams on them, and who can talk with whom.
 *
 *      bytes ──► lost? ──► delay ──► at the other's door
 *                  └─ doubled: each copy with a delay of its own, so copies and neighbours overtake each other
 *
 * Each direction of each pair is a road of its own: a link that works one way only is the fault that protocols forget.
 *
 * Who can talk with whom matters to the judge. Where a group is not strict, each part of a split network may use the
 * whole threshold; and where A and B cannot hear each other but both hear C, nothing but a vote could keep both from
 * being master. So what may be expected is: at most as many masters as there are nodes of which no two can talk (the
 * largest independent set of the graph; with at most twelve nodes it is found by trying). In a whole network that is
 * one.
 *
 * The attacker hears everything and can send to everybody, in anybody's name. He does not have the group's secret.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

/* Worse than this, and a road is as good as cut: the protocol has 700 ms to hear of a node. */
#define BEARABLE_LOSS 350000u
#define BEARABLE_DELAY_US 250000u

/* ---- datagrams ------------------------------------------------------------------------------------------------------
   */

static struct datagram *datagram_make(struct world *w, unsigned from, const unsigned char *bytes, size_t length)
{
	struct datagram *d = w->network.spare;

	if (d != NULL)
		w->network.spare = d->next;
	else
		d = sim_allocate(NULL, sizeof(*d));
	d->references = 1;
	d->from = from;
	d->length = (unsigned)length;
	memcpy(d->bytes, bytes, length);
	return d;
}

void datagram_release(struct world *w, struct datagram *d)
{
	if (--d->references > 0)
		return;
	d->next = w->network.spare;
	w->network.spare = d;
}

static void deliver(struct world *w, struct datagram *d, unsigned from, unsigned to, uint64_t in_us)
{
	d->references++;
	queue_push(&w->queue, (struct event){ .at_us = w->now_us + in_us,
					      .kind = EVENT_DATAGRAM,
					      .node = to,
					      .subject = d,
					      .number = from });
}

static uint64_t delay_us(struct world *w, const struct road *road)
{
	uint64_t us = road->delay_us + random_below(&w->random, road->jitter_us + UINT64_C(1));

	if (random_chance(&w->random, road->spike_per_million))
		us += random_below(&w->random, road->spike_us + UINT64_C(1));
	return us > 0 ? us : 1;
}

static void travel(struct world *w, struct datagram *d, unsigned to)
{
	const struct road *road = &w->network.roads[d->from][to];
	bool is_doubled = random_chance(&w->random, road->doubled_per_million);

	if (road->is_cut || random_chance(&w->random, road->lost_per_million))
		return;
	deliver(w, d, d->from, to, delay_us(w, road));
	if (is_doubled)
		deliver(w, d, d->from, to, delay_us(w, road));
}

static void record(struct world *w, struct datagram *d)
{
	struct datagram **place = &w->network.recorded[random_below(&w->random, RECORDED)];

	if (*place != NULL)
		datagram_release(w, *place);
	*place = d;
	d->references++;
}

void network_send(struct world *w, unsigned from, unsigned to, const unsigned char *bytes, size_t length)
{
	struct datagram *d = datagram_make(w, from, bytes, length);

	w->network.sent++;
	if (to < w->plan->node_count)
		travel(w, d, to);
	for (unsigned i = 0; to == NODES_MAX && i < w->plan->node_count; i++)
		if (i != from || random_chance(&w->random, 20000)) /* our own come back too; a few are enough */
			travel(w, d, i);
	if (w->network.forger != NULL && random_chance(&w->random, 200000))
		record(w, d);
	datagram_release(w, d);
}

/* ---- the attacker ---------------------------------------------------------------------------------------------------
   */

static size_t forge(struct world *w, unsigned char bytes[CLUSTER_WIRE_MAX])
{
	struct random *r = &w->random;
	const struct plan_node *victim = &w->plan->nodes[random_below(r, w->plan->node_count)];
	struct cluster_message message = {
		.kind = (enum cluster_kind)random_between(r, CLUSTER_HEARTBEAT, CLUSTER_TAKEOVER),
		.id = random_chance(r, 500000) ? victim->id : 1,
		.incarnation = random_next(r) | 1,
		.epoch = random_below(r, 1000),
	};

	if (message.kind == CLUSTER_HEARTBEAT) {
		message.is.heartbeat.threshold = 1000;
		message.is.heartbeat.window_us = w->plan->window_us;
		message.is.heartbeat.master = message.id;
	} else if (message.kind == CLUSTER_GRANT) {
		message.is.grant = (struct cluster_grant){ .number = 1, .late_us = 8000, .run_count = 1 };
		message.is.grant.runs[0] = (struct cluster_run){ .in_us = 0, .count = 100 };
	}
	return cluster_wire_write(w->network.forger, &message, 0, bytes);
}

static void bend(struct world *w, unsigned char *bytes, size_t *length)
{
	struct random *r = &w->random;

	if (random_chance(r, 300000))
		*length = random_below(r, *length);
	else
		bytes[random_below(r, *length)] ^= (unsigned char)(1u << random_below(r, 8));
}

/* Bent datagrams only where there is a secret: without one, whoever can write a good checksum can say anything. */
void network_attack(struct world *w)
{
	struct random *r = &w->random;
	struct datagram *old = w->network.recorded[random_below(r, RECORDED)], *d;
	unsigned char bytes[CLUSTER_WIRE_MAX];
	unsigned to = (unsigned)random_below(r, w->plan->node_count);
	/* He may give the sender's address or his own, to which answers go in vain. */
	unsigned from = old != NULL && random_chance(r, 700000) ? old->from : NODES_MAX + 1;
	uint64_t way = random_below(r, w->plan->has_secret ? 4 : 2);
	size_t length = 0;

	if (way == 0) {
		length = random_below(r, CLUSTER_WIRE_MAX);
		for (size_t i = 0; i < length; i++)
			bytes[i] = (unsigned char)random_next(r);
	} else if (way == 3) {
		length = forge(w, bytes);
	} else if (old != NULL) {
		length = old->length;
		memcpy(bytes, old->bytes, length);
		if (way == 2 && length > 0)
			bend(w, bytes, &length);
	}
	d = datagram_make(w, from, bytes, length);
	deliver(w, d, from, to, random_between(r, 1, 1000));
	datagram_release(w, d);
}

/* ---- roads ------------------------------------------------------------------------------------------------------- */

void network_set(struct world *w, unsigned from, unsigned to, const struct road *road)
{
	for (unsigned i = 0; i < w->plan->node_count; i++)
		for (unsigned j = 0; j < w->plan->node_count; j++)
			if ((from >> i & 1) && (to >> j & 1) && i != j)
				w->network.roads[i][j] = *road;
}

static bool is_open(const struct world *w, unsigned from, unsigned to)
{
	const struct road *road = &w->network.roads[from][to];

	return !road->is_cut && road->lost_per_million <= BEARABLE_LOSS &&
	       road->delay_us + road->jitter_us <= BEARABLE_DELAY_US;
}

/* The largest number of nodes in the set of which no two can talk. */
static unsigned most_strangers(const struct network *n, unsigned set)
{
	unsigned first = 0, with, without;

	if (set == 0)
		return 0;
	while (!(set >> first & 1))
		first++;
	with = 1 + most_strangers(n, set & ~(1u << first) & ~n->reach[first]);
	if ((set & n->reach[first]) == 0)
		return with;
	without = most_strangers(n, set & ~(1u << first));
	return with > without ? with : without;
}

static unsigned part_around(const struct network *n, unsigned node)
{
	unsigned part = 1u << node, before;

	do {
		before = part;
		for (unsigned i = 0; i < NODES_MAX; i++)
			if (before >> i & 1)
				part |= n->reach[i];
	} while (part != before);
	return part;
}

void network_look(struct world *w)
{
	struct network *n = &w->network;
	unsigned before[NODES_MAX], left = 0, masters = 0;

	memcpy(before, n->reach, sizeof(before));
	memset(n->reach, 0, sizeof(n->reach));
	for (unsigned i = 0; i < w->plan->node_count; i++) {
		for (unsigned j = 0; w->nodes[i].is_up && j < w->plan->node_count; j++)
			if (i != j && w->nodes[j].is_up && is_open(w, i, j) && is_open(w, j, i))
				n->reach[i] |= 1u << j;
		left |= w->nodes[i].is_up ? 1u << i : 0;
	}
	for (n->part_count = 0; left != 0; n->part_count++) {
		unsigned first = 0;

		while (!(left >> first & 1))
			first++;
		n->parts[n->part_count] = part_around(n, first);
		n->part_masters[n->part_count] = most_strangers(n, n->parts[n->part_count]);
		masters += n->part_masters[n->part_count];
		left &= ~n->parts[n->part_count];
	}
	if (memcmp(before, n->reach, sizeof(before)) != 0)
		n->changed_us = w->now_us;
	judge_masters(w, masters > 0 ? masters : 1);
}

void network_begin(struct world *w)
{
	struct cluster_wire_options options = { .group = "127.255.255.255:7000",
						.secret = "guessed",
						.incarnation = 1 };
	bool is_attacked = false;

	network_set(w, ALL_NODES, ALL_NODES, &w->plan->road);
	for (unsigned i = 0; i < w->plan->node_count; i++)
		w->network.roads[i][i] = w->plan->road;
	for (unsigned i = 0; i < w->plan->fault_count; i++)
		is_attacked = is_attacked || w->plan->faults[i].kind == FAULT_ATTACK;
	if (is_attacked && (w->network.forger = cluster_wire_create(&options)) == NULL)
		abort();
}

void network_end(struct world *w)
{
	for (unsigned i = 0; i < RECORDED; i++)
		if (w->network.recorded[i] != NULL)
			datagram_release(w, w->network.recorded[i]);
	while (w->network.spare != NULL) {
		struct datagram *d = w->network.spare;

		w->network.spare = d->next;
		free(d);
	}
	cluster_wire_destroy(w->network.forger);
}
