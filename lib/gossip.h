/* gossip.h: the thread that carries datagrams between this process and the others of a group. It does not know what is
 * in them.
 *
 *                    ┌── shared port ◄──── broadcast or multicast of everybody
 *      came() ◄──────┤
 *                    └── own port ◄─────── answers, to us alone
 *                          │
 *      gossip_send() ──────┴─────────────► everybody, or one: always from the own port, so the source address of any
 *                                          datagram is where its sender can be answered
 *      gossip_kick() ──► tick() soon       any thread: there is something to do
 *
 * One thread for each object. It sleeps in ppoll() until a datagram comes, it is kicked, or the moment comes that the
 * last tick() asked for. came() is called for each datagram, and then tick(), once for all that were there. Both are
 * called by that thread alone.
 */
#ifndef WEIR_GOSSIP_H
#define WEIR_GOSSIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

#define GOSSIP_DATAGRAM_MAX 1472u /* what an Ethernet frame carries; longer ones come cut off */

enum gossip_way {
	GOSSIP_BROADCAST, /* to an address that ends in 255: a subnet's, this machine's (127.255.255.255) or everybody's */
	GOSSIP_MULTICAST, /* on every interface that is up */
	GOSSIP_PEERS,     /* to each of a list */
};

struct gossip_peer {
	const char *host; /* name or address */
	unsigned port;
};

struct gossip_options {
	enum gossip_way way;
	struct address address; /* for broadcast and multicast */
	/* For peers: all of them, this one included: it listens where the first entry says that is an address of this
	   machine and still free. If none is, on all addresses, at the port of the first entry. */
	const struct gossip_peer *peers;
	size_t peer_count;
};

struct gossip_calls {
	void *context;
	void (*came)(void *context, const unsigned char *bytes, size_t length, const struct address *from);
	/* Returns when it wants to be called next, at the latest. */
	uint64_t (*tick)(void *context);
	/* A system call failed; it will be tried again. At most once a second. */
	void (*trouble)(void *context, const char *what, int error);
};

struct gossip;
struct gossip_sockets;

/* calls is copied. NULL when out of memory or descriptors. */
struct gossip *gossip_create(const struct gossip_calls *calls);
void gossip_destroy(struct gossip *g); /* stopped; NULL is nobody */

/* Opens sockets, beside those that may be in use now: before is asked for peers alone, NULL if there is none, and keeps
   its port if the new list has it too. May wait two seconds for the names of peers. NULL, and a line in error, when it
   can't. */
struct gossip_sockets *gossip_open(const struct gossip_options *options, const struct gossip *before, char *error,
                                   size_t error_size);
void gossip_close(struct gossip_sockets *sockets); /* never used */
/* Uses these from now on, and closes those before. Not while the thread runs. */
void gossip_use(struct gossip *g, struct gossip_sockets *sockets);
/* Does one of the peers' entries stand for this node? True for the other ways. */
bool gossip_is_listed(const struct gossip_sockets *sockets);

/* Starts and stops the thread. Stopping waits for a callback to end. Start gives 0 or an errno number. One thread at a
   time. */
int gossip_start(struct gossip *g);
void gossip_stop(struct gossip *g);

/* Calls tick() as soon as can be. Never blocks; a thousand kicks before the thread wakes are one. Any thread, at any
   time. */
void gossip_kick(struct gossip *g);
/* Sends to one, or with NULL to everybody. Never blocks; what does not get through is lost. Any thread, but not while
   sockets change. */
void gossip_send(struct gossip *g, const struct address *to, const unsigned char *bytes, size_t length);

#endif
