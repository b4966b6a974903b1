/* reference.c: lab 8's interface, done by weir's own cluster.c.
 *
 * cluster.c elects a master and shares a limit. Here its limit is one start and nobody ever asks for it, so that what
 * is left is the election; cluster_wire.c makes bytes of its messages, as in the proxy.
 */
#include "labs/08-election/election.h"

#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "cluster_wire.h"

struct election {
	struct election_calls calls;
	struct cluster *cluster;
	struct cluster_wire *wire;
	uint64_t ran_us;
};

/* What a struct cluster_place holds here. */
struct address {
	unsigned id;
	uint64_t incarnation;
};

static void on_send(void *context, const struct cluster_place *to, const struct cluster_message *message)
{
	struct election *e = context;
	struct address address = { .id = 0 };
	unsigned char bytes[CLUSTER_WIRE_MAX];

	if (to != NULL)
		memcpy(&address, to->bytes, sizeof address);
	size_t length = cluster_wire_write(e->wire, message, address.incarnation, bytes);
	if (length > 0)
		e->calls.send(e->calls.context, address.id, bytes, length);
}

static void on_give(void *context, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	(void)context, (void)from_us, (void)until_us, (void)count, (void)now_us;
}

static void on_answered(void *context, uint64_t asked_us, uint64_t now_us)
{
	(void)context, (void)asked_us, (void)now_us;
}

static void on_line(void *context, uint64_t now_us, struct cluster_line *out)
{
	(void)context, (void)now_us;
	*out = (struct cluster_line){ .waiting = 0 };
}

static uint64_t on_random(void *context)
{
	struct election *e = context;

	return e->calls.random(e->calls.context);
}

static void on_happened(void *context, enum cluster_event event, unsigned id, uint64_t number)
{
	(void)context, (void)event, (void)id, (void)number;
}

struct election *election_create(const struct election_options *options, const struct election_calls *calls,
                                 uint64_t now_us)
{
	struct election *e = calloc(1, sizeof *e);

	if (e == NULL)
		return NULL;
	struct cluster_options cluster = {
		.id = options->id, .incarnation = options->incarnation, .threshold = 1, .window_us = 1000000
	};
	struct cluster_calls own = { e, on_send, on_give, on_answered, on_line, on_random, on_happened };
	struct cluster_wire_options wire = { .group = "lab 8", .incarnation = options->incarnation };
	e->calls = *calls;
	e->ran_us = now_us;
	e->wire = cluster_wire_create(&wire);
	e->cluster = cluster_create(&cluster, &own, now_us);
	if (e->wire == NULL || e->cluster == NULL) {
		election_destroy(e);
		return NULL;
	}
	return e;
}

void election_destroy(struct election *e)
{
	if (e == NULL)
		return;
	cluster_destroy(e->cluster);
	cluster_wire_destroy(e->wire);
	free(e);
}

uint64_t election_tick(struct election *e, uint64_t now_us)
{
	e->ran_us = now_us;
	return cluster_tick(e->cluster, now_us);
}

void election_receive(struct election *e, const void *bytes, size_t length, uint64_t now_us)
{
	struct cluster_message message;
	struct cluster_place place = { .bytes = { 0 } };

	e->ran_us = now_us;
	if (cluster_wire_read(e->wire, bytes, length, now_us, &message) != CLUSTER_WIRE_GOOD)
		return;
	struct address address = { .id = message.id, .incarnation = message.incarnation };
	memcpy(place.bytes, &address, sizeof address);
	cluster_receive(e->cluster, &message, &place, now_us);
}

void election_leave(struct election *e, uint64_t now_us)
{
	cluster_leave(e->cluster, now_us);
}

unsigned election_master(const struct election *e)
{
	struct cluster_report report;

	cluster_report(e->cluster, e->ran_us, &report);
	return report.master;
}
