/* switch.h: the message switch: servers set themselves up under a privacy policy, clients' messages go to one of them.
 *
 *      client ── {"type":0, policy 111} ─► road ──► whose turn is it in 111? ──► server 100, 102, 104, 100, ...
 *      server ── {"type":1, policy 111} ─► road ──► the table
 *
 *      switch_table.c   the table: which servers there are, whose turn it is, and the probes of those that are out
 *      switch.c         the road: what a thread does with a connection, and with each message on it
 *
 * It is the mode "packet" of a service: service.c makes the table and hands the road to the crew.
 */
#ifndef WEIR_SWITCH_H
#define WEIR_SWITCH_H

#include <stdbool.h>
#include <stdint.h>

#include "balancer.h"
#include "lib/address.h"
#include "lib/crew.h"
#include "lib/log.h"
#include "lib/packet.h"
#include "lib/settings.h"
#include "lib/upstream.h"
#include "limiter.h"

/* A balancer has room for some more: those that were replaced and are still at work. */
#define SWITCH_SERVERS_MAX 1000u
/* Each has a server, but for one that a server is just moving to. */
#define SWITCH_POLICIES_MAX (SWITCH_SERVERS_MAX + 1u)

struct packet_switch;

/* The table, empty, and the thread that probes. name is the service's, for the log; log and all outlive the switch.
   NULL when out of memory or threads. */
struct packet_switch *packet_switch_create(const char *name, struct log *log, struct upstreams *all,
                                           const struct settings *settings);
/* When no road is under way any more. Says in the log what each server did. */
void packet_switch_destroy(struct packet_switch *sw);
/* New settings: the servers stay, and their turns. Any thread. */
void packet_switch_configure(struct packet_switch *sw, const struct settings *settings);

enum switch_setup {
	SWITCH_SET_UP,          /* a new server */
	SWITCH_REPLACED,        /* it takes the place of what its id was before */
	SWITCH_UNCHANGED,       /* it is there already, and in the rotation */
	SWITCH_TOO_MANY_SERVERS,
	SWITCH_NO_MEMORY,
};

/* Puts a server into the table, into the rotation of its policy. Any thread. */
enum switch_setup packet_switch_set_up(struct packet_switch *sw, const char *id, const char *policy,
                                       const struct address *address);

enum switch_presence {
	SWITCH_NOBODY,  /* no server has this policy */
	SWITCH_ALL_OUT, /* those that have it are out of the rotation */
	SWITCH_SOMEBODY,
};
enum switch_presence packet_switch_presence(struct packet_switch *sw, const char *policy);

/* One message's turn at a server. id and upstream are good until packet_switch_done(). */
struct switch_turn {
	const char *id;
	struct upstream *upstream;
	unsigned policy;
	struct balancer_pick pick;
};

/* Picks the next server of this policy that is in and not in tried. False when there is none. Any thread. */
bool packet_switch_pick(struct packet_switch *sw, const char *policy, struct balancer_tried *tried,
                        struct switch_turn *out);
/* It answered; it did not. Before packet_switch_done(). _failed is true if this took the server out of the rotation. */
void packet_switch_succeeded(struct packet_switch *sw, const struct switch_turn *turn);
bool packet_switch_failed(struct packet_switch *sw, const struct switch_turn *turn);
/* Gives the turn back. */
void packet_switch_done(struct packet_switch *sw, const struct switch_turn *turn);

/* For the status page: a server of the table. */
struct packet_switch_row {
	char id[PACKET_ID_MAX], policy[PACKET_ID_MAX];
	char address[ADDRESS_TEXT_MAX];
	struct balancer_report report;
};
/* Copies up to capacity servers, policy by policy. Returns how many there are. Any thread. */
size_t packet_switch_report(struct packet_switch *sw, struct packet_switch_row *rows, size_t capacity);
/* An operator's hand: takes the servers at this address out of their turns, or lets them back in. One that sets itself up anew is in.
   False when there is none. Any thread. */
bool packet_switch_drain(struct packet_switch *sw, const char *address, bool drain);

/* The crew's job; its context is a struct proxy of service.h, with a packet_switch in it. */
extern const struct crew_job switch_crew_job;

#endif
