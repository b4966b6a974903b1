/* switch_table.c: the message switch table: which servers there are, and whose turn it is.
 *
 *      policy 111 ──► balancer ──► server 100 at 10.0.0.5:2105     in the order in which they set themselves up;
 *                             └──► server 102 at 10.0.0.7:2105     each policy turns by itself
 *      policy 112 ──► balancer ──► server 101 at …
 *
 * Each policy has a balancer of its own, the same that a reverse proxy has: strict rotation, out at the first
 * failure, back by a probe. What is added here is that the list of targets is not written in a file: servers come by
 * themselves, come again, and change their policy.
 *
 * A server that sets itself up again, unchanged and in the rotation, changes nothing: not even whose turn is next.
 * One that is out, or has another address, is new: whoever has just spoken to us need not wait for a probe. It keeps
 * its place in the turn of its policy.
 *
 * Only servers that are out are probed, by a connect that is closed at once. Many servers of this exercise serve one
 * connection at a time, and some can't bear a connection that says nothing; those that work are left alone.
 *
 * Invariants. A server's id stands in the table once. A policy's place in the table never moves, and its balancer
 * lives as long as the switch: whoever holds a turn may give it back at any time. A policy without servers may become
 * another one; a turn is picked under the same lock that guards the policy's name, so no message goes to a server of
 * another policy.
 */
#include "switch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/probe.h"
#include "lib/ts.h"

/* What the balancer holds for each server, until it lets go of it. */
struct server {
	char id[PACKET_ID_MAX];
	struct upstream *upstream;
};

/* One server as the table knows it. */
struct member {
	char id[PACKET_ID_MAX];
	struct address address;
	char name[PACKET_ID_MAX + ADDRESS_TEXT_MAX + 64]; /* of this stay in the table: the balancer's name for it */
};

struct policy {
	char name[PACKET_ID_MAX];
	struct balancer *balancer;
	struct member *members[SWITCH_SERVERS_MAX + 1]; /* one more while a server takes its own place */
	size_t count;
};

struct packet_switch {
	const char *name; /* the service's */
	struct log *log;
	struct upstreams *all;
	struct prober *prober;

	pthread_mutex_t mutex;
	struct balancer_options balancing GUARDED_BY(switch_mutex);
	uint64_t connect_timeout_us GUARDED_BY(switch_mutex);
	struct policy *policies[SWITCH_POLICIES_MAX] GUARDED_BY(switch_mutex);
	size_t policy_count GUARDED_BY(switch_mutex);
	size_t server_count GUARDED_BY(switch_mutex);
	unsigned setups GUARDED_BY(switch_mutex); /* tells one stay of a server in the table from the next */
};

LOCK_VERBS(packet_switch, mutex, switch_mutex)

/* ---- servers --------------------------------------------------------------------------------------------------- */

static void release_server(void *item)
{
	struct server *server = item;
	if (server == NULL) /* of a server that the balancer had already */
		return;
	upstream_destroy(server->upstream);
	free(server);
}

static struct server *make_server(struct upstreams *all, const struct member *member)
{
	struct server *server = calloc(1, sizeof *server);
	if (server == NULL)
		return NULL;
	memcpy(server->id, member->id, sizeof server->id);
	server->upstream = upstream_create(all, member->name, &member->address);
	if (server->upstream == NULL) {
		free(server);
		return NULL;
	}
	return server;
}

static struct member *make_member(const char *id, const char *policy, const struct address *address, unsigned number)
{
	struct member *member = calloc(1, sizeof *member);
	char where[ADDRESS_TEXT_MAX];
	if (member == NULL)
		return NULL;
	address_text(address, where);
	snprintf(member->id, sizeof member->id, "%s", id);
	member->address = *address;
	snprintf(member->name, sizeof member->name, "server %s (policy %.32s, %s, set-up %u)", id, policy, where,
	         number);
	return member;
}

static bool is_at(const struct member *member, const struct address *address)
{
	char there[ADDRESS_TEXT_MAX], here[ADDRESS_TEXT_MAX];
	address_text(&member->address, there);
	address_text(address, here);
	return strcmp(there, here) == 0;
}

/* ---- policies -------------------------------------------------------------------------------------------------- */

static struct policy *find_policy(struct packet_switch *sw, const char *name, unsigned *place) REQUIRES(switch_mutex)
{
	for (size_t i = 0; i < sw->policy_count; i++)
		if (sw->policies[i]->count > 0 && strcmp(sw->policies[i]->name, name) == 0) {
			*place = (unsigned)i;
			return sw->policies[i];
		}
	return NULL;
}

static struct policy *make_policy(struct packet_switch *sw) REQUIRES(switch_mutex)
{
	struct policy *policy = calloc(1, sizeof *policy);
	if (policy == NULL)
		return NULL;
	policy->balancer = balancer_create(&sw->balancing, release_server);
	if (policy->balancer == NULL) {
		free(policy);
		return NULL;
	}
	sw->policies[sw->policy_count++] = policy;
	return policy;
}

/* The policy of that name; one that nobody serves any more, given that name; or a new one. NULL when out of memory. */
static struct policy *take_policy(struct packet_switch *sw, const char *name) REQUIRES(switch_mutex)
{
	unsigned place;
	struct policy *policy = find_policy(sw, name, &place);
	if (policy != NULL)
		return policy;
	for (size_t i = 0; i < sw->policy_count && policy == NULL; i++)
		if (sw->policies[i]->count == 0)
			policy = sw->policies[i];
	if (policy == NULL && sw->policy_count < SWITCH_POLICIES_MAX)
		policy = make_policy(sw);
	if (policy != NULL)
		snprintf(policy->name, sizeof policy->name, "%s", name);
	return policy;
}

static struct policy *find_server(struct packet_switch *sw, const char *id, size_t *index) REQUIRES(switch_mutex)
{
	for (size_t i = 0; i < sw->policy_count; i++)
		for (size_t k = 0; k < sw->policies[i]->count; k++)
			if (strcmp(sw->policies[i]->members[k]->id, id) == 0) {
				*index = k;
				return sw->policies[i];
			}
	return NULL;
}

/* Tells the balancer who its targets are now. newcomer: the one that it does not know yet, or NULL. */
static bool tell_balancer(struct packet_switch *sw, struct policy *policy, const struct member *newcomer)
	REQUIRES(switch_mutex)
{
	struct balancer_entry *entries = calloc(policy->count + 1, sizeof *entries);
	struct server *server = entries == NULL || newcomer == NULL ? NULL : make_server(sw->all, newcomer);
	bool good = entries != NULL && (newcomer == NULL || server != NULL);
	for (size_t i = 0; good && i < policy->count; i++)
		entries[i] = (struct balancer_entry){ .name = policy->members[i]->name,
			                              .weight = 1,
			                              .item = policy->members[i] == newcomer ? server : NULL };
	good = good && balancer_set_targets(policy->balancer, entries, policy->count, clock_us()) == 0;
	if (!good)
		release_server(server);
	free(entries);
	return good;
}

/* The balancer's list is ours, unless it could not be told of a change: then the names tell. */
static bool is_in_rotation(struct policy *policy, size_t index)
{
	struct balancer_report *reports = calloc(policy->count, sizeof *reports);
	bool is_in = reports != NULL && balancer_report(policy->balancer, reports, policy->count) > index &&
	             strcmp(reports[index].name, policy->members[index]->name) == 0 &&
	             reports[index].state == BALANCER_IN;
	free(reports);
	return is_in;
}

/* False: nothing changed. */
static bool put_member_in(struct packet_switch *sw, struct policy *policy, size_t index, struct member *member)
	REQUIRES(switch_mutex)
{
	size_t behind = policy->count - index;
	memmove(&policy->members[index + 1], &policy->members[index], behind * sizeof policy->members[0]);
	policy->members[index] = member;
	policy->count++;
	if (tell_balancer(sw, policy, member)) {
		sw->server_count++;
		return true;
	}
	policy->count--;
	memmove(&policy->members[index], &policy->members[index + 1], behind * sizeof policy->members[0]);
	return false;
}

/* Should there be no memory to tell the balancer with, the drain keeps the server out of all turns until it can be
   told. */
static void take_member_out(struct packet_switch *sw, struct policy *policy, size_t index) REQUIRES(switch_mutex)
{
	struct member *member = policy->members[index];
	balancer_drain(policy->balancer, member->name, true);
	policy->count--;
	memmove(&policy->members[index], &policy->members[index + 1],
	        (policy->count - index) * sizeof policy->members[0]);
	tell_balancer(sw, policy, NULL);
	sw->server_count--;
	free(member);
}

static enum switch_setup set_up(struct packet_switch *sw, const char *id, const char *name,
                                const struct address *address) REQUIRES(switch_mutex)
{
	size_t index = 0;
	struct policy *before = find_server(sw, id, &index);
	bool stays = before != NULL && strcmp(before->name, name) == 0;
	if (stays && is_at(before->members[index], address) && is_in_rotation(before, index))
		return SWITCH_UNCHANGED;
	if (before == NULL && sw->server_count == SWITCH_SERVERS_MAX)
		return SWITCH_TOO_MANY_SERVERS;
	struct policy *policy = stays ? before : take_policy(sw, name);
	struct member *member = policy == NULL ? NULL : make_member(id, name, address, ++sw->setups);
	/* What takes its own place stands behind it for a moment, so that if it is its turn, it stays its turn. */
	if (member == NULL || !put_member_in(sw, policy, stays ? index + 1 : policy->count, member)) {
		free(member);
		return SWITCH_NO_MEMORY;
	}
	if (before != NULL)
		take_member_out(sw, before, index);
	return before == NULL ? SWITCH_SET_UP : SWITCH_REPLACED;
}

enum switch_setup packet_switch_set_up(struct packet_switch *sw, const char *id, const char *policy,
                                       const struct address *address)
{
	packet_switch_lock(sw);
	enum switch_setup result = set_up(sw, id, policy, address);
	packet_switch_unlock(sw);
	return result;
}

/* ---- turns ----------------------------------------------------------------------------------------------------- */

enum switch_presence packet_switch_presence(struct packet_switch *sw, const char *policy)
{
	unsigned place;
	packet_switch_lock(sw);
	struct policy *found = find_policy(sw, policy, &place);
	bool any_in = found != NULL && balancer_any_in(found->balancer);
	packet_switch_unlock(sw);
	return any_in ? SWITCH_SOMEBODY : found != NULL ? SWITCH_ALL_OUT : SWITCH_NOBODY;
}

bool packet_switch_pick(struct packet_switch *sw, const char *policy, struct balancer_tried *tried,
                        struct switch_turn *out)
{
	packet_switch_lock(sw);
	struct policy *found = find_policy(sw, policy, &out->policy);
	bool picked = found != NULL && balancer_pick(found->balancer, 0, tried, &out->pick);
	packet_switch_unlock(sw);
	if (!picked)
		return false;
	const struct server *server = out->pick.item;
	out->id = server->id;
	out->upstream = server->upstream;
	return true;
}

static struct balancer *balancer_of(struct packet_switch *sw, unsigned place)
{
	packet_switch_lock(sw);
	struct balancer *balancer = sw->policies[place]->balancer;
	packet_switch_unlock(sw);
	return balancer;
}

void packet_switch_succeeded(struct packet_switch *sw, const struct switch_turn *turn)
{
	balancer_succeeded(balancer_of(sw, turn->policy), &turn->pick);
}

bool packet_switch_failed(struct packet_switch *sw, const struct switch_turn *turn)
{
	bool went_out = balancer_failed(balancer_of(sw, turn->policy), &turn->pick, clock_us());
	prober_kick(sw->prober); /* a probe is to be planned */
	return went_out;
}

void packet_switch_done(struct packet_switch *sw, const struct switch_turn *turn)
{
	balancer_done(balancer_of(sw, turn->policy), &turn->pick);
}

/* ---- for those who look ------------------------------------------------------------------------------------------ */

/* The members of a policy that its balancer knows: the names tell which report is whose. */
static size_t report_policy(struct policy *policy, struct balancer_report *reports, struct packet_switch_row *rows,
                            size_t capacity)
{
	size_t known = balancer_report(policy->balancer, reports, SWITCH_SERVERS_MAX + 1), count = 0;
	for (size_t i = 0; i < policy->count && count < capacity; i++) {
		const struct member *member = policy->members[i];
		for (size_t k = 0; k < known && k <= SWITCH_SERVERS_MAX; k++) {
			if (strncmp(reports[k].name, member->name, sizeof reports[k].name - 1) != 0)
				continue;
			struct packet_switch_row *row = &rows[count++];
			memcpy(row->id, member->id, sizeof row->id);
			memcpy(row->policy, policy->name, sizeof row->policy);
			address_text(&member->address, row->address);
			row->report = reports[k];
			break;
		}
	}
	return count;
}

size_t packet_switch_report(struct packet_switch *sw, struct packet_switch_row *rows, size_t capacity)
{
	struct balancer_report *reports = calloc(SWITCH_SERVERS_MAX + 1, sizeof *reports);
	size_t count = 0;
	if (reports == NULL)
		return 0;
	packet_switch_lock(sw);
	for (size_t i = 0; i < sw->policy_count; i++)
		count += report_policy(sw->policies[i], reports, rows + count, capacity - count);
	packet_switch_unlock(sw);
	free(reports);
	return count;
}

bool packet_switch_drain(struct packet_switch *sw, const char *address, bool drain)
{
	bool found = false;
	packet_switch_lock(sw);
	for (size_t i = 0; i < sw->policy_count; i++)
		for (size_t k = 0; k < sw->policies[i]->count; k++) {
			char there[ADDRESS_TEXT_MAX];
			address_text(&sw->policies[i]->members[k]->address, there);
			if (strcmp(there, address) == 0)
				found = balancer_drain(sw->policies[i]->balancer, sw->policies[i]->members[k]->name, drain) || found;
		}
	packet_switch_unlock(sw);
	if (found && !drain)
		prober_kick(sw->prober);
	return found;
}

/* ---- probes ---------------------------------------------------------------------------------------------------- */

/* The probe thread asks what is to be done. A probe's slot says which policy's balancer wants to hear of it as well. */
static bool next_probe(void *context, uint64_t now_us, struct probe_job *job, uint64_t *wake_us)
{
	struct packet_switch *sw = context;
	struct balancer_pick pick;
	bool due = false;
	*wake_us = CLOCK_NEVER;
	packet_switch_lock(sw);
	for (size_t i = 0; i < sw->policy_count && !due; i++) {
		uint64_t next_us;
		due = balancer_probe_due(sw->policies[i]->balancer, now_us, &pick, &next_us);
		if (due)
			*job = (struct probe_job){ .upstream = ((struct server *)pick.item)->upstream,
				                   .slot = (unsigned)i * BALANCER_TARGETS_MAX + pick.slot,
				                   .stay = pick.stay,
				                   .timeout_us = sw->connect_timeout_us };
		else if (next_us < *wake_us)
			*wake_us = next_us;
	}
	packet_switch_unlock(sw);
	return due;
}

static void probe_done(void *context, const struct probe_job *job, bool good, const char *why)
{
	struct packet_switch *sw = context;
	char name[PACKET_ID_MAX + ADDRESS_TEXT_MAX + 64];
	snprintf(name, sizeof name, "%s", upstream_name(job->upstream)); /* it may be gone after the report */
	struct balancer_pick pick = { .slot = job->slot % BALANCER_TARGETS_MAX, .stay = job->stay };
	struct balancer *balancer = balancer_of(sw, job->slot / BALANCER_TARGETS_MAX);
	if (balancer_probed(balancer, &pick, good, clock_us()) == BALANCER_CAME_IN)
		log_write(sw->log, LOG_LEVEL_INFO, sw->name, "%s is back in the rotation", name);
	else
		log_write(sw->log, LOG_LEVEL_DEBUG, sw->name, "probe of %s: %s", name, good ? "good" : why);
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static struct balancer_options balancing(const struct settings *settings)
{
	return (struct balancer_options){ .policy = BALANCER_ROUNDROBIN,
		                          .probe_interval_us = settings->probe_interval_us,
		                          .probe_rise = settings->probe_rise,
		                          .probe_fall = settings->probe_fall,
		                          .probe_asks = false };
}

struct packet_switch *packet_switch_create(const char *name, struct log *log, struct upstreams *all,
                                           const struct settings *settings)
{
	struct packet_switch *sw = calloc(1, sizeof *sw);
	struct probe_caller caller = { .context = sw, .due = next_probe, .done = probe_done };
	if (sw == NULL)
		return NULL;
	sw->name = name;
	sw->log = log;
	sw->all = all;
	pthread_mutex_init(&sw->mutex, NULL);
	packet_switch_configure(sw, settings);
	sw->prober = prober_start(&caller);
	if (sw->prober != NULL)
		return sw;
	packet_switch_destroy(sw);
	return NULL;
}

void packet_switch_configure(struct packet_switch *sw, const struct settings *settings)
{
	packet_switch_lock(sw);
	sw->balancing = balancing(settings);
	sw->connect_timeout_us = settings->connect_timeout_us;
	for (size_t i = 0; i < sw->policy_count; i++)
		balancer_configure(sw->policies[i]->balancer, &sw->balancing);
	packet_switch_unlock(sw);
}

static void log_counts(struct packet_switch *sw, struct policy *policy)
{
	struct balancer_report *reports = calloc(policy->count + 1, sizeof *reports);
	size_t count = reports == NULL ? 0 : balancer_report(policy->balancer, reports, policy->count);
	for (size_t i = 0; i < count && i < policy->count; i++)
		log_write(sw->log, LOG_LEVEL_INFO, sw->name, "%s was %s: messages=%llu failures=%llu", reports[i].name,
		          reports[i].state == BALANCER_IN ? "in" : "out", (unsigned long long)reports[i].requests_total,
		          (unsigned long long)reports[i].failures_total);
	free(reports);
}

/* Nobody else is left, yet what the lock guards is read as it always is. */
static struct policy *take_last_policy(struct packet_switch *sw)
{
	packet_switch_lock(sw);
	struct policy *policy = sw->policy_count == 0 ? NULL : sw->policies[--sw->policy_count];
	packet_switch_unlock(sw);
	return policy;
}

void packet_switch_destroy(struct packet_switch *sw)
{
	struct policy *policy;
	if (sw == NULL)
		return;
	prober_stop(sw->prober);
	while ((policy = take_last_policy(sw)) != NULL) {
		log_counts(sw, policy);
		balancer_destroy(policy->balancer);
		for (size_t i = 0; i < policy->count; i++)
			free(policy->members[i]);
		free(policy);
	}
	pthread_mutex_destroy(&sw->mutex);
	free(sw);
}
