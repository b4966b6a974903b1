/* reference.c: lab 9's interface, done by weir's own cluster.c.
 *
 * cluster.c has an election of its own, and knows nothing of the one that share_elected() tells of. It is told to be
 * strict: a part of a split group uses its share of the threshold, so that no sum of parts is more than the whole.
 */
#include "labs/09-one-limit/share.h"

#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "cluster_wire.h"

struct share {
	struct share_calls calls;
	struct cluster *cluster;
	struct cluster_wire *wire;
};

/* What a struct cluster_place holds here. */
struct address {
	unsigned id;
	uint64_t incarnation;
};

static void on_send(void *context, const struct cluster_place *to, const struct cluster_message *message)
{
	struct share *s = context;
	struct address address = { .id = 0 };
	unsigned char bytes[CLUSTER_WIRE_MAX];

	if (to != NULL)
		memcpy(&address, to->bytes, sizeof address);
	size_t length = cluster_wire_write(s->wire, message, address.incarnation, bytes);
	if (length > 0)
		s->calls.send(s->calls.context, address.id, bytes, length);
}

static void on_give(void *context, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	struct share *s = context;

	(void)now_us;
	s->calls.give(s->calls.context, from_us, until_us, count);
}

static void on_answered(void *context, uint64_t asked_us, uint64_t now_us)
{
	(void)context, (void)asked_us, (void)now_us;
}

static void on_line(void *context, uint64_t now_us, struct cluster_line *out)
{
	struct share *s = context;
	struct share_line line;

	(void)now_us;
	s->calls.line(s->calls.context, &line);
	*out = (struct cluster_line){ .waiting = line.waiting,
		                      .held = line.held,
		                      .used_total = line.used_total,
		                      .died_total = line.died_total,
		                      .started_total = line.used_total };
}

static uint64_t on_random(void *context)
{
	struct share *s = context;

	return s->calls.random(s->calls.context);
}

static void on_happened(void *context, enum cluster_event event, unsigned id, uint64_t number)
{
	(void)context, (void)event, (void)id, (void)number;
}

struct share *share_create(const struct share_options *options, const struct share_calls *calls, uint64_t now_us)
{
	struct share *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	struct cluster_options cluster = { .id = options->id,
		                           .incarnation = options->incarnation,
		                           .threshold = options->threshold,
		                           .window_us = options->window_us,
		                           .group_size = options->nodes,
		                           .is_strict = true };
	struct cluster_calls own = { s, on_send, on_give, on_answered, on_line, on_random, on_happened };
	struct cluster_wire_options wire = { .group = "lab 9", .incarnation = options->incarnation };
	s->calls = *calls;
	s->wire = cluster_wire_create(&wire);
	s->cluster = cluster_create(&cluster, &own, now_us);
	if (s->wire == NULL || s->cluster == NULL) {
		share_destroy(s);
		return NULL;
	}
	return s;
}

void share_destroy(struct share *s)
{
	if (s == NULL)
		return;
	cluster_destroy(s->cluster);
	cluster_wire_destroy(s->wire);
	free(s);
}

uint64_t share_tick(struct share *s, uint64_t now_us)
{
	return cluster_tick(s->cluster, now_us);
}

void share_receive(struct share *s, const void *bytes, size_t length, uint64_t now_us)
{
	struct cluster_message message;
	struct cluster_place place = { .bytes = { 0 } };

	if (cluster_wire_read(s->wire, bytes, length, now_us, &message) != CLUSTER_WIRE_GOOD)
		return;
	struct address address = { .id = message.id, .incarnation = message.incarnation };
	memcpy(place.bytes, &address, sizeof address);
	cluster_receive(s->cluster, &message, &place, now_us);
}

void share_elected(struct share *s, unsigned master, uint64_t now_us)
{
	(void)s, (void)master, (void)now_us;
}
