/* group.h: a service's place in a group of nodes that share one threshold: what stands between the state machine and
 * the world.
 *
 *      requests ──► limiter ◄── give, answered ──┐
 *                      │                         │
 *                      └── the line stands so ──► cluster.c ◄──► cluster_wire.c ◄──► lib/gossip.c ◄──► the other nodes
 *      the line grew ──── group_kick ──────────────────────────────────────────────► wakes its thread
 *
 * cluster.c decides and knows no sockets; gossip.c has sockets and knows nothing of what it carries; cluster_wire.c
 * knows both forms of a message. This object owns one of each, and the lock under which they meet.
 *
 * Every service has such an object, in a group or not: a reload may bring it into one, into another, or out.
 */
#ifndef WEIR_GROUP_H
#define WEIR_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster.h"
#include "cluster_wire.h"
#include "lib/log.h"
#include "lib/settings.h"
#include "limiter.h"

struct group;

/* name, log and limiter are those of the service, and outlive it. NULL when out of memory. */
struct group *group_create(const char *name, struct log *log, struct limiter *limiter);
void group_destroy(struct group *g); /* left; NULL is nobody */

/* Joins the group that the settings name, goes over to it from another, takes over what has changed in it, or leaves.
   Nothing is refilled: who joins begins as a newcomer. May wait two seconds for the names of peers. False, and a line
   in error: all is as it was, unless it was a thread that could not be had. One thread at a time. */
bool group_configure(struct group *g, const struct settings *settings, char *error, size_t error_size);
/* From now on its thread runs; before, sockets are open and nothing more. settings: those of group_configure(). False,
   and a line in error: no memory, or no thread can be had. */
bool group_start(struct group *g, const struct settings *settings, char *error, size_t error_size);
/* Says goodbye to the others, and stops its thread: nobody is given anything any more. */
void group_leave(struct group *g);

/* Are a service's slots given by a master? Then its limiter must have slots_are_given. */
bool group_gives_slots(const struct settings *settings);

/* The line has grown: the master should know at once. Never blocks. Any thread. NULL is nobody. */
void group_kick(struct group *g);

struct group_report {
	bool is_member; /* false: the service is in no group, and nothing else here is filled in */
	char address[128]; /* cut off when it is longer */
	struct cluster_report cluster;
	uint64_t received_total, sent_total; /* datagrams; received: those that were good */
	uint64_t dropped_total[CLUSTER_WIRE_RESULTS]; /* by reason */
};

/* Any thread. */
void group_report(struct group *g, struct group_report *out);

#endif
