/* skeleton.c: lab 7, the table of the message switch. It compiles, and takes each message to the server that set
 * itself up first, whatever its policy; a server that sets itself up twice stands in the table twice.
 *
 *      {"type":1, id 100, privPolyId 111, listenport 2105} ──► packet_switch_set_up      the table
 *      {"type":0, srcid 7, privPoliId 111, ...}            ──► packet_switch_pick        whose turn is it?
 *                                                               └─► _succeeded or _failed, then _done
 *
 * The road of a message (switch.c) is done, and so is the memory of servers. Yours are the functions between the
 * rulers: switch.h says what each has to do. Every one of them may be called by many threads at once.
 */
#include "switch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct server {
	char id[PACKET_ID_MAX], policy[PACKET_ID_MAX];
	struct address address;
	struct upstream *upstream;
	unsigned place; /* in the table: what a turn's pick.slot says */
	unsigned users; /* turns that are not given back yet */
	bool is_listed; /* false: replaced, and kept until nobody uses it */
	bool is_out;    /* it failed */
	bool is_drained;
	uint64_t last_turn; /* when it had its last turn, counted in turns */
	uint64_t requests_total, failures_total;
};

struct packet_switch {
	struct upstreams *all;
	pthread_mutex_t mutex;
	struct server *servers[BALANCER_TARGETS_MAX]; /* NULL: a free place */
	unsigned listed;
	uint64_t turns;
};

/* ---- given: servers, and the table as a whole ---------------------------------------------------------------------
   */

struct packet_switch *packet_switch_create(const char *name, struct log *log, struct upstreams *all,
                                           const struct settings *settings)
{
	struct packet_switch *sw = calloc(1, sizeof *sw);

	(void)name, (void)log, (void)settings;
	if (sw == NULL)
		return NULL;
	sw->all = all;
	pthread_mutex_init(&sw->mutex, NULL);
	return sw;
}

static void free_server(struct packet_switch *sw, struct server *server)
{
	sw->servers[server->place] = NULL;
	upstream_destroy(server->upstream);
	free(server);
}

void packet_switch_destroy(struct packet_switch *sw)
{
	if (sw == NULL)
		return;
	for (unsigned i = 0; i < BALANCER_TARGETS_MAX; i++)
		if (sw->servers[i] != NULL)
			free_server(sw, sw->servers[i]);
	pthread_mutex_destroy(&sw->mutex);
	free(sw);
}

void packet_switch_configure(struct packet_switch *sw, const struct settings *settings)
{
	(void)sw, (void)settings;
}

/* A new server in a free place of the table, listed. NULL when there is none, or no memory. */
static struct server *make_server(struct packet_switch *sw, const char *id, const char *policy,
                                  const struct address *address)
{
	unsigned place = 0;
	char name[PACKET_ID_MAX + 16];

	while (place < BALANCER_TARGETS_MAX && sw->servers[place] != NULL)
		place++;
	struct server *server = place < BALANCER_TARGETS_MAX ? calloc(1, sizeof *server) : NULL;
	if (server == NULL)
		return NULL;
	snprintf(name, sizeof name, "server %s", id);
	server->upstream = upstream_create(sw->all, name, address);
	if (server->upstream == NULL) {
		free(server);
		return NULL;
	}
	snprintf(server->id, sizeof server->id, "%s", id);
	snprintf(server->policy, sizeof server->policy, "%s", policy);
	server->address = *address;
	server->place = place;
	server->is_listed = true;
	server->last_turn = sw->turns; /* behind those who wait for their turn */
	sw->servers[place] = server;
	sw->listed++;
	return server;
}

static bool is_at(const struct server *server, const struct address *address)
{
	char here[ADDRESS_TEXT_MAX], there[ADDRESS_TEXT_MAX];

	address_text(&server->address, here);
	address_text(address, there);
	return strcmp(here, there) == 0;
}

static struct server *find_server(struct packet_switch *sw, const char *id)
{
	for (unsigned i = 0; i < BALANCER_TARGETS_MAX; i++)
		if (sw->servers[i] != NULL && sw->servers[i]->is_listed && strcmp(sw->servers[i]->id, id) == 0)
			return sw->servers[i];
	return NULL;
}

static bool was_tried(const struct balancer_tried *tried, unsigned place)
{
	return (tried->bits[place / 64] >> (place % 64) & 1) != 0;
}

static void mark_tried(struct balancer_tried *tried, unsigned place)
{
	tried->bits[place / 64] |= UINT64_C(1) << (place % 64);
	tried->count++;
}

static void hand_out(struct server *server, struct switch_turn *out)
{
	server->users++;
	server->requests_total++;
	*out = (struct switch_turn){ .id = server->id,
		                     .upstream = server->upstream,
		                     .pick = { .slot = server->place, .item = server } };
}

size_t packet_switch_report(struct packet_switch *sw, struct packet_switch_row *rows, size_t capacity)
{
	size_t count = 0;

	pthread_mutex_lock(&sw->mutex);
	for (unsigned i = 0; i < BALANCER_TARGETS_MAX && count < capacity; i++) {
		const struct server *server = sw->servers[i];

		if (server == NULL || !server->is_listed)
			continue;
		struct packet_switch_row *row = &rows[count++];
		memset(row, 0, sizeof *row);
		memcpy(row->id, server->id, sizeof row->id);
		memcpy(row->policy, server->policy, sizeof row->policy);
		address_text(&server->address, row->address);
		row->report = (struct balancer_report){ .state = server->is_out ? BALANCER_OUT : BALANCER_IN,
			                                .weight = 1,
			                                .active = server->users,
			                                .requests_total = server->requests_total,
			                                .failures_total = server->failures_total };
	}
	pthread_mutex_unlock(&sw->mutex);
	return count;
}

bool packet_switch_drain(struct packet_switch *sw, const char *address, bool drain)
{
	bool found = false;
	char there[ADDRESS_TEXT_MAX];

	pthread_mutex_lock(&sw->mutex);
	for (unsigned i = 0; i < BALANCER_TARGETS_MAX; i++) {
		if (sw->servers[i] == NULL || !sw->servers[i]->is_listed)
			continue;
		address_text(&sw->servers[i]->address, there);
		if (strcmp(there, address) == 0) {
			sw->servers[i]->is_drained = drain;
			found = true;
		}
	}
	pthread_mutex_unlock(&sw->mutex);
	return found;
}

/* ---- yours
   --------------------------------------------------------------------------------------------------------- */

/* 1. Is the id in the table already? Then it may be unchanged (same policy, same address, not out): nothing happens,
   not even to the turns. 2. Else the new entry takes its place and its turn (last_turn), if the policy is the same.
   The old one may be at work: see _done. 3. No more than SWITCH_SERVERS_MAX of them. */
enum switch_setup packet_switch_set_up(struct packet_switch *sw, const char *id, const char *policy,
                                       const struct address *address)
{
	pthread_mutex_lock(&sw->mutex);
	struct server *before = find_server(sw, id);
	bool is_there = before != NULL && strcmp(before->policy, policy) == 0 && is_at(before, address);
	struct server *server = make_server(sw, id, policy, address);
	(void)is_there;
	pthread_mutex_unlock(&sw->mutex);
	return server != NULL ? SWITCH_SET_UP : SWITCH_NO_MEMORY;
}

enum switch_presence packet_switch_presence(struct packet_switch *sw, const char *policy)
{
	(void)policy;
	return sw->listed > 0 ? SWITCH_SOMEBODY : SWITCH_NOBODY;
}

/* Of this policy, listed, not out, not drained, not tried: whose last turn is the longest ago? Of two the one that
   came first. */
bool packet_switch_pick(struct packet_switch *sw, const char *policy, struct balancer_tried *tried,
                        struct switch_turn *out)
{
	bool picked = false;

	(void)policy;
	pthread_mutex_lock(&sw->mutex);
	for (unsigned i = 0; i < BALANCER_TARGETS_MAX && !picked; i++)
		if (sw->servers[i] != NULL && !was_tried(tried, i)) {
			mark_tried(tried, i);
			sw->servers[i]->last_turn = ++sw->turns;
			hand_out(sw->servers[i], out);
			picked = true;
		}
	pthread_mutex_unlock(&sw->mutex);
	return picked;
}

void packet_switch_succeeded(struct packet_switch *sw, const struct switch_turn *turn)
{
	(void)sw, (void)turn;
}

/* Out of the turns. What a turn of an entry says that was replaced meanwhile is old news. */
bool packet_switch_failed(struct packet_switch *sw, const struct switch_turn *turn)
{
	(void)sw, (void)turn;
	return false;
}

/* The last user of an entry that was replaced frees it. */
void packet_switch_done(struct packet_switch *sw, const struct switch_turn *turn)
{
	struct server *server = turn->pick.item;

	pthread_mutex_lock(&sw->mutex);
	server->users--;
	pthread_mutex_unlock(&sw->mutex);
}
