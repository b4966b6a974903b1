/* group.c: see group.h.
 *
 * Everything of the state machine happens under cluster_mutex, most of it in gossip's thread: a datagram came, or it is
 * time. Its calls go out from there: to the limiter (limiter_mutex is further in) and to the sockets, whose sends never
 * block. What it has to say to a person is noted and logged when the lock is free again.
 *
 *      came():  bytes ──► cluster_wire_read ──► cluster_receive
 *      tick():  cluster_tick ──► when next?     then: what is to be logged; who has waited for a master for too long
 *
 * A place is where a datagram came from together with its sender's incarnation: an answer is addressed to that life of
 * that node, and refused by any other that it is played to (cluster_wire.h).
 *
 * Nobody waits for a master that is not there: a request beyond the backlog may stand in line for a round trip. When no
 * answer comes for PATIENCE_US, those who have stood there for that long are treated as if the master had looked and
 * had nothing to give.
 *
 * The thread's lateness is the group's: a start may be used for some milliseconds only, so the thread is made prompt
 * (thread.h), and it does nothing that waits.
 */
#include "group.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/clock.h"
#include "lib/gossip.h"
#include "lib/ts.h"

#define PATIENCE_US (100 * US_PER_MS)
#define LOOK_AT_LINE_US (20 * US_PER_MS) /* how often who has no answer looks whether somebody's patience is over */
#define DROPS_LOGGED_US US_PER_S
#define NOTES_MAX 32u
/* So long after it was given a start may still be used: how far ahead a master gives, and the latest start (cluster.c). */
#define GIVEN_AHEAD_US (150 * US_PER_MS)

/* What is to be told to a person. */
struct note {
	enum cluster_event event;
	unsigned id;
	uint64_t number;
};

struct group {
	const char *name;
	struct log *log;
	struct limiter *limiter;
	struct gossip *gossip; /* made when it first joins a group, and kept; NULL before */
	bool is_started;       /* group_start() was called; the configuring thread's, */
	bool is_unlisted;      /* as is this: its own list of peers does not name it; */
	uint64_t window_us;    /* and this: of the settings in force */
	atomic_bool is_member; /* and its thread runs: kicks are for something */

	pthread_mutex_t mutex;
	struct cluster *cluster GUARDED_BY(cluster_mutex); /* NULL: in no group */
	struct cluster_wire *wire GUARDED_BY(cluster_mutex);
	char *address GUARDED_BY(cluster_mutex);
	unsigned id GUARDED_BY(cluster_mutex);
	uint64_t answered_us GUARDED_BY(cluster_mutex);  /* when the master last answered */
	bool gave_in_vain GUARDED_BY(cluster_mutex);     /* what it gave was too late for use */
	uint64_t asks_from_us GUARDED_BY(cluster_mutex); /* it asks for no starts before */
	uint64_t repeated_us GUARDED_BY(cluster_mutex);  /* when a note was taken that a peer can cause at will */
	struct note notes[NOTES_MAX] GUARDED_BY(cluster_mutex);
	size_t note_count GUARDED_BY(cluster_mutex);
	uint64_t received_total GUARDED_BY(cluster_mutex), sent_total GUARDED_BY(cluster_mutex);
	uint64_t dropped_total[CLUSTER_WIRE_RESULTS] GUARDED_BY(cluster_mutex);
	uint64_t drops_logged_us GUARDED_BY(cluster_mutex), drops_logged GUARDED_BY(cluster_mutex);
	enum cluster_wire_result last_drop GUARDED_BY(cluster_mutex);
	struct address last_dropped_from GUARDED_BY(cluster_mutex);
};

LOCK_VERBS(group, mutex, cluster_mutex)

/* ---- places ------------------------------------------------------------------------------------------------------ */

/* What a struct cluster_place holds. */
struct place {
	uint64_t incarnation;
	uint32_t scope;
	uint16_t port; /* in network byte order, as the address is */
	uint8_t is_v6;
	uint8_t host[16];
};

_Static_assert(sizeof(struct place) <= CLUSTER_PLACE_BYTES, "a place holds an address and an incarnation");

static struct cluster_place place_of(const struct address *from, uint64_t incarnation)
{
	struct place place = { .incarnation = incarnation };
	struct cluster_place out;
	memset(&out, 0, sizeof out);
	if (from->any.sa_family == AF_INET6) {
		place.is_v6 = 1;
		place.port = from->v6.sin6_port;
		place.scope = from->v6.sin6_scope_id;
		memcpy(place.host, &from->v6.sin6_addr, 16);
	} else {
		place.port = from->v4.sin_port;
		memcpy(place.host, &from->v4.sin_addr, 4);
	}
	memcpy(out.bytes, &place, sizeof place);
	return out;
}

static struct address address_of(const struct place *place)
{
	struct address address;
	memset(&address, 0, sizeof address);
	if (place->is_v6 != 0) {
		address.length = sizeof address.v6;
		address.v6.sin6_family = AF_INET6;
		address.v6.sin6_port = place->port;
		address.v6.sin6_scope_id = place->scope;
		memcpy(&address.v6.sin6_addr, place->host, 16);
	} else {
		address.length = sizeof address.v4;
		address.v4.sin_family = AF_INET;
		address.v4.sin_port = place->port;
		memcpy(&address.v4.sin_addr, place->host, 4);
	}
	return address;
}

/* ---- what the state machine calls -------------------------------------------------------------------------------- */

static void send_message(void *context, const struct cluster_place *to, const struct cluster_message *message)
	REQUIRES(cluster_mutex)
{
	struct group *g = context;
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct place place = { .incarnation = 0 };
	if (to != NULL)
		memcpy(&place, to->bytes, sizeof place);
	size_t length = cluster_wire_write(g->wire, message, place.incarnation, bytes);
	if (length == 0)
		return;
	struct address address = address_of(&place);
	g->sent_total++;
	gossip_send(g->gossip, to != NULL ? &address : NULL, bytes, length);
}

static void give(void *context, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us) REQUIRES(cluster_mutex)
{
	struct group *g = context;
	g->gave_in_vain = g->gave_in_vain || until_us <= now_us;
	limiter_give(g->limiter, from_us, until_us, count, now_us);
}

/* The master had starts for those who waited, and they died on their way: that is no reason to send anybody away. They
   are asked for again, within everybody's patience. */
static void answered(void *context, uint64_t asked_us, uint64_t now_us) REQUIRES(cluster_mutex)
{
	struct group *g = context;
	bool was_in_vain = g->gave_in_vain;
	g->gave_in_vain = false;
	if (was_in_vain)
		return;
	g->answered_us = now_us;
	limiter_answered(g->limiter, asked_us, now_us);
}

/* Who has started by other slots until now asks for none of these as long as those starts count. */
static void tell_line(void *context, uint64_t now_us, struct cluster_line *out) REQUIRES(cluster_mutex)
{
	struct group *g = context;
	struct limiter_report now;
	limiter_report(g->limiter, now_us, &now);
	*out = (struct cluster_line){ .waiting = now_us >= g->asks_from_us ? now.waiting : 0,
		                      .held = now.held,
		                      .used_total = now.used_total,
		                      .died_total = now.died_total,
		                      .late_us_total = now.late_us_total,
		                      .started_total = now.started_total };
}

/* Challenges and incarnations must not be foretold. Once the system has started, this does not wait. */
static uint64_t draw(void *context)
{
	uint64_t number = 0;
	(void)context;
	while (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
		;
	return number;
}

static void happened(void *context, enum cluster_event event, unsigned id, uint64_t number) REQUIRES(cluster_mutex)
{
	struct group *g = context;
	bool may_repeat = event == CLUSTER_FULL || event == CLUSTER_DISAGREES; /* with each datagram of that node, if it wants */
	if (may_repeat && g->repeated_us != 0 && clock_us() - g->repeated_us < US_PER_S)
		return;
	if (may_repeat)
		g->repeated_us = clock_us();
	if (g->note_count < NOTES_MAX)
		g->notes[g->note_count++] = (struct note){ event, id, number };
}

/* ---- what a person is told --------------------------------------------------------------------------------------- */

static void log_master(struct group *g, unsigned self, unsigned id, uint64_t epoch)
{
	if (id == 0)
		log_write(g->log, LOG_LEVEL_WARN, g->name, "the group has no master: nothing starts until there is one");
	else
		log_write(g->log, LOG_LEVEL_INFO, g->name, "node %u is the master of the group%s epoch=%llu", id,
		          id == self ? " (that is this node)" : "", (unsigned long long)epoch);
}

static void log_note(struct group *g, unsigned self, const struct note *note)
{
	unsigned id = note->id;
	unsigned long long number = note->number;
	switch (note->event) {
	case CLUSTER_NODE_CAME:
		log_write(g->log, LOG_LEVEL_INFO, g->name, "node %u came into the group", id);
		break;
	case CLUSTER_NODE_WENT:
		log_write(g->log, LOG_LEVEL_WARN, g->name, "node %u is gone from the group", id);
		break;
	case CLUSTER_MASTER_CHANGED:
		log_master(g, self, id, note->number);
		break;
	case CLUSTER_TWIN_MET:
		log_write(g->log, LOG_LEVEL_ERROR, g->name,
		          "another node of the group has id %u too: each needs an id of its own", self);
		break;
	case CLUSTER_STEPPED_ASIDE:
		log_write(g->log, LOG_LEVEL_ERROR, g->name,
		          "the other node with id %u is the elder: this one steps aside, and starts nothing until that one "
		          "is gone",
		          self);
		break;
	case CLUSTER_CAME_BACK:
		log_write(g->log, LOG_LEVEL_INFO, g->name,
		          "the other node with id %u is gone: this one takes part again", self);
		break;
	case CLUSTER_WAS_PAUSED:
		log_write(g->log, LOG_LEVEL_WARN, g->name, "this node stood still for %.1f s: it joins the group anew",
		          (double)number / 1e6);
		break;
	case CLUSTER_DISAGREES:
		log_write(g->log, LOG_LEVEL_WARN, g->name,
		          "node %u is set up otherwise than the master (threshold=%llu there, or its window or the size of the "
		          "group): the master's settings rule",
		          id, number);
		break;
	case CLUSTER_FULL:
		log_write(g->log, LOG_LEVEL_ERROR, g->name, "node %u is not let in: a group has at most %u nodes", id,
		          CLUSTER_NODES_MAX);
		break;
	}
}

/* What has gathered for the log. */
struct news {
	struct note notes[NOTES_MAX];
	size_t note_count;
	unsigned self;
	uint64_t dropped; /* 0: nothing is to be said about datagrams */
	enum cluster_wire_result last_drop;
	struct address last_from;
};

/* Own datagrams come back by nature, and what takes two ways is heard twice: neither is worth a line. */
static uint64_t count_drops(const struct group *g) REQUIRES(cluster_mutex)
{
	uint64_t count = 0;
	for (int i = 0; i < CLUSTER_WIRE_RESULTS; i++)
		if (i != CLUSTER_WIRE_GOOD && i != CLUSTER_WIRE_OWN && i != CLUSTER_WIRE_REPLAY)
			count += g->dropped_total[i];
	return count;
}

static void gather_news(struct group *g, uint64_t now_us, struct news *news) REQUIRES(cluster_mutex)
{
	uint64_t drops = count_drops(g);
	memcpy(news->notes, g->notes, g->note_count * sizeof g->notes[0]);
	news->note_count = g->note_count;
	news->self = g->id;
	news->dropped = 0;
	g->note_count = 0;
	if (drops == g->drops_logged || (g->drops_logged_us != 0 && now_us - g->drops_logged_us < DROPS_LOGGED_US))
		return;
	news->dropped = drops - g->drops_logged;
	news->last_drop = g->last_drop;
	news->last_from = g->last_dropped_from;
	g->drops_logged = drops;
	g->drops_logged_us = now_us;
}

static void log_news(struct group *g, const struct news *news)
{
	char from[ADDRESS_TEXT_MAX];
	for (size_t i = 0; i < news->note_count; i++)
		log_note(g, news->self, &news->notes[i]);
	if (news->dropped == 0)
		return;
	address_text(&news->last_from, from);
	log_write(g->log, LOG_LEVEL_WARN, g->name, "dropped %llu datagrams of the group's port, the last from %s: %s",
	          (unsigned long long)news->dropped, from, cluster_wire_reason(news->last_drop));
}

/* ---- what gossip calls ------------------------------------------------------------------------------------------- */

static void came(void *context, const unsigned char *bytes, size_t length, const struct address *from)
{
	struct group *g = context;
	struct cluster_message message;
	group_lock(g);
	uint64_t now_us = clock_us(); /* behind the lock: to the state machine time does not go back */
	enum cluster_wire_result result = cluster_wire_read(g->wire, bytes, length, now_us, &message);
	g->dropped_total[result]++;
	if (result == CLUSTER_WIRE_GOOD) {
		struct cluster_place place = place_of(from, message.incarnation);
		g->received_total++;
		cluster_receive(g->cluster, &message, &place, now_us);
	} else if (result != CLUSTER_WIRE_OWN && result != CLUSTER_WIRE_REPLAY) {
		g->last_drop = result;
		g->last_dropped_from = *from;
	}
	group_unlock(g);
}

/* Who has waited for an answer for too long need not wait for another. Returns when to look again. */
static uint64_t end_patience(struct group *g, uint64_t now_us) REQUIRES(cluster_mutex)
{
	struct limiter_report line;
	limiter_report(g->limiter, now_us, &line);
	if (line.waiting == 0)
		return CLOCK_NEVER; /* who comes next kicks */
	if (now_us - g->answered_us >= PATIENCE_US && now_us > PATIENCE_US)
		limiter_answered(g->limiter, now_us - PATIENCE_US, now_us);
	return now_us + LOOK_AT_LINE_US;
}

static uint64_t tick(void *context)
{
	struct group *g = context;
	struct news news;
	group_lock(g);
	uint64_t now_us = clock_us();
	uint64_t next_us = cluster_tick(g->cluster, now_us), look_us = end_patience(g, now_us);
	gather_news(g, now_us, &news);
	group_unlock(g);
	log_news(g, &news);
	return next_us < look_us ? next_us : look_us;
}

static void trouble(void *context, const char *what, int error)
{
	struct group *g = context;
	log_write(g->log, LOG_LEVEL_WARN, g->name, "the group: %s: %s", what, strerror(error));
}

/* ---- joining and leaving ----------------------------------------------------------------------------------------- */

bool group_gives_slots(const struct settings *settings)
{
	return settings->group_address != NULL && settings->threshold.count > 0;
}

static struct cluster_options cluster_options(const struct group *g, const struct settings *settings, uint64_t incarnation)
{
	/* Who is not in its own list of peers is one more than the list says: a strict part must not be thought larger
	   than it is. */
	unsigned unlisted = g->is_unlisted && settings->group_size > 0 ? 1 : 0;
	return (struct cluster_options){ .id = settings->id,
		                         .incarnation = incarnation,
		                         .threshold = settings->threshold.count,
		                         .window_us = settings->threshold.window_us,
		                         .burst = settings->burst,
		                         .group_size = settings->group_size + unlisted,
		                         .is_strict = settings->partition == PARTITION_STRICT };
}

/* "192.168.1.255:7000", "[ff02::1]:7000": as the settings have spelt it. */
static bool parse_address(const char *text, struct address *out)
{
	char host[64];
	const char *colon = strrchr(text, ':');
	if (colon == NULL || (size_t)(colon - text) >= sizeof host)
		return false;
	size_t length = (size_t)(colon - text);
	bool has_brackets = text[0] == '[' && length > 2;
	snprintf(host, sizeof host, "%.*s", (int)(has_brackets ? length - 2 : length), text + (has_brackets ? 1 : 0));
	memset(out, 0, sizeof *out);
	return address_parse(host, (unsigned)strtoul(colon + 1, NULL, 10), out);
}

static struct gossip_sockets *open_sockets(struct group *g, const struct settings *settings, char *error, size_t error_size)
{
	struct gossip_options options = { .way = settings->unicast != NULL   ? GOSSIP_BROADCAST :
		                                 settings->multicast != NULL ? GOSSIP_MULTICAST :
		                                                               GOSSIP_PEERS,
		                          .peer_count = settings->peers.count };
	struct gossip_peer *peers = calloc(settings->peers.count + 1, sizeof *peers);
	snprintf(error, error_size, "no memory to join the group with");
	if (peers == NULL)
		return NULL;
	for (size_t i = 0; i < settings->peers.count; i++)
		peers[i] = (struct gossip_peer){ settings->peers.items[i].host, settings->peers.items[i].port };
	options.peers = peers;
	struct gossip_sockets *sockets = NULL;
	if (options.way == GOSSIP_PEERS || parse_address(settings->group_address, &options.address))
		sockets = gossip_open(&options, g->gossip, error, error_size);
	free(peers);
	return sockets;
}

/* All that a membership is made of. */
struct membership {
	struct cluster *cluster;
	struct cluster_wire *wire;
	char *address;
	unsigned id;
};

static void free_membership(struct membership *m)
{
	cluster_destroy(m->cluster);
	cluster_wire_destroy(m->wire);
	free(m->address);
}

/* Peers are written differently on different nodes, and a port has one group: the list is no name of it. */
static const char *name_on_the_wire(const struct settings *settings)
{
	return settings->peers.count > 0 ? "peers" : settings->group_address;
}

static bool make_membership(struct group *g, const struct settings *settings, struct membership *m)
{
	uint64_t incarnation;
	do
		incarnation = draw(NULL);
	while (incarnation == 0);
	struct cluster_options options = cluster_options(g, settings, incarnation);
	struct cluster_wire_options wire = { .group = name_on_the_wire(settings),
		                             .secret = settings->cluster_secret,
		                             .incarnation = incarnation };
	struct cluster_calls calls = { .context = g,
		                       .send = send_message,
		                       .give = give,
		                       .answered = answered,
		                       .line = tell_line,
		                       .random = draw,
		                       .happened = happened };
	*m = (struct membership){ .cluster = cluster_create(&options, &calls, clock_us()),
		                  .wire = cluster_wire_create(&wire),
		                  .address = strdup(settings->group_address),
		                  .id = settings->id };
	if (m->cluster != NULL && m->wire != NULL && m->address != NULL)
		return true;
	free_membership(m);
	return false;
}

/* Puts a membership, or none, in the place of the present one, which it returns. Nothing is asked for until
   asks_from_us. */
static struct membership swap_membership(struct group *g, struct membership next, uint64_t asks_from_us)
{
	group_lock(g);
	struct membership before = { .cluster = g->cluster, .wire = g->wire, .address = g->address, .id = g->id };
	g->cluster = next.cluster;
	g->wire = next.wire;
	g->address = next.address;
	g->id = next.id;
	g->answered_us = clock_us();
	g->asks_from_us = asks_from_us;
	g->note_count = 0;
	group_unlock(g);
	return before;
}

static void say_goodbye(struct group *g)
{
	struct news news = { .note_count = 0 };
	uint64_t now_us = clock_us();
	group_lock(g);
	if (g->cluster != NULL) {
		cluster_leave(g->cluster, now_us);
		gather_news(g, now_us, &news);
	}
	group_unlock(g);
	log_news(g, &news);
}

static bool run_thread(struct group *g, const struct settings *settings, char *error, size_t error_size)
{
	log_write(g->log, LOG_LEVEL_INFO, g->name, "node %u of the group %s%s", settings->id, settings->group_address,
	          settings->cluster_secret != NULL ? "" : "; without a cluster_secret anybody on this network can take part");
	atomic_store(&g->is_member, true); /* before its first look at the line: who comes after that kicks */
	int failed = gossip_start(g->gossip);
	if (failed != 0) {
		atomic_store(&g->is_member, false);
		snprintf(error, error_size, "no thread for the group: %s", strerror(failed));
	}
	return failed == 0;
}

void group_leave(struct group *g)
{
	struct membership none = { .cluster = NULL };
	if (g->gossip == NULL)
		return;
	atomic_store(&g->is_member, false);
	gossip_stop(g->gossip);
	say_goodbye(g);
	struct membership before = swap_membership(g, none, 0);
	free_membership(&before);
	gossip_use(g->gossip, NULL);
}

/* Goes into a group, from none or from another. */
static bool join(struct group *g, const struct settings *settings, char *error, size_t error_size)
{
	struct membership next;
	struct gossip_calls calls = { .context = g, .came = came, .tick = tick, .trouble = trouble };
	snprintf(error, error_size, "no memory or descriptor to join the group with");
	if (g->gossip == NULL)
		g->gossip = gossip_create(&calls);
	struct gossip_sockets *sockets = g->gossip == NULL ? NULL : open_sockets(g, settings, error, error_size);
	if (sockets == NULL)
		return false;
	bool was_unlisted = g->is_unlisted;
	g->is_unlisted = !gossip_is_listed(sockets);
	if (!make_membership(g, settings, &next)) {
		snprintf(error, error_size, "no memory to join the group with");
		g->is_unlisted = was_unlisted;
		gossip_close(sockets);
		return false;
	}
	atomic_store(&g->is_member, false);
	gossip_stop(g->gossip);
	say_goodbye(g);
	gossip_use(g->gossip, sockets);
	/* The others know nothing of what started here in the last window, by slots of our own or of another group; nor of what that
	   one gave ahead. */
	uint64_t window_us = g->window_us > settings->threshold.window_us ? g->window_us : settings->threshold.window_us;
	uint64_t patient_us = window_us + GIVEN_AHEAD_US;
	struct membership before = swap_membership(g, next, g->is_started ? clock_us() + patient_us : 0);
	free_membership(&before);
	return !g->is_started || run_thread(g, settings, error, error_size);
}

/* The same group and id: the others see new settings, or nothing at all. */
static bool adjust(struct group *g, const struct settings *settings, char *error, size_t error_size)
{
	struct cluster_options options = cluster_options(g, settings, 0);
	group_lock(g);
	bool is_good = cluster_wire_set_secret(g->wire, settings->cluster_secret) == 0 &&
	               cluster_configure(g->cluster, &options, clock_us()) == 0;
	group_unlock(g);
	group_kick(g);
	if (!is_good)
		snprintf(error, error_size, "no memory for the new settings of the group");
	return is_good;
}

bool group_configure(struct group *g, const struct settings *settings, char *error, size_t error_size)
{
	group_lock(g);
	bool is_in = g->cluster != NULL;
	bool stays = is_in && settings->group_address != NULL && g->id == settings->id &&
	             strcmp(g->address, settings->group_address) == 0;
	group_unlock(g);
	bool is_good = true;
	if (stays)
		is_good = adjust(g, settings, error, error_size);
	else if (settings->group_address != NULL)
		is_good = join(g, settings, error, error_size);
	else if (is_in)
		group_leave(g);
	if (is_good)
		g->window_us = settings->threshold.window_us;
	return is_good;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

struct group *group_create(const char *name, struct log *log, struct limiter *limiter)
{
	struct group *g = calloc(1, sizeof *g);
	if (g == NULL)
		return NULL;
	g->name = name;
	g->log = log;
	g->limiter = limiter;
	pthread_mutex_init(&g->mutex, NULL);
	return g;
}

bool group_start(struct group *g, const struct settings *settings, char *error, size_t error_size)
{
	struct membership next;
	g->is_started = true;
	if (settings->group_address == NULL)
		return true;
	/* It lives from now on. To the state machine the time since it was configured would be one in which it stood
	   still. */
	if (!make_membership(g, settings, &next)) {
		snprintf(error, error_size, "no memory to join the group with");
		return false;
	}
	struct membership before = swap_membership(g, next, 0);
	free_membership(&before);
	return run_thread(g, settings, error, error_size);
}

void group_destroy(struct group *g)
{
	if (g == NULL)
		return;
	group_leave(g);
	gossip_destroy(g->gossip);
	pthread_mutex_destroy(&g->mutex);
	free(g);
}

void group_kick(struct group *g)
{
	if (g != NULL && atomic_load_explicit(&g->is_member, memory_order_acquire))
		gossip_kick(g->gossip);
}

void group_report(struct group *g, struct group_report *out)
{
	memset(out, 0, sizeof *out);
	group_lock(g);
	out->is_member = g->cluster != NULL;
	if (out->is_member) {
		snprintf(out->address, sizeof out->address, "%s", g->address);
		cluster_report(g->cluster, clock_us(), &out->cluster);
		out->received_total = g->received_total;
		out->sent_total = g->sent_total;
		memcpy(out->dropped_total, g->dropped_total, sizeof out->dropped_total);
	}
	group_unlock(g);
}
