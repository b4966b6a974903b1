/* skeleton.c: lab 8, an election. It compiles, and each node takes itself for master, for ever.
 *
 * What a node has to find out is who is alive. Draw what a datagram tells the other before you write code:
 *
 *      node 10                                   node 20
 *        │  "10 is here; my challenge is 7714"      │
 *        ├─────────────────────────────────────────►│
 *        │  "20 is here; I heard 7714 from 10"      │
 *        │◄─────────────────────────────────────────┤   only now does 10 know that 20 lives and hears it
 *
 * election.h says what each function is called for, and with what. Everything that a node knows is in struct
 * election: there are no global variables, for the simulator has many nodes in one process.
 */
#include "labs/08-election/election.h"

#include <stdlib.h>
#include <string.h>

#define BEAT_US UINT64_C(100000)

/* What a datagram of yours says. Nodes copy it in and out of the bytes; add what you need. */
struct note {
	unsigned id;
};

struct election {
	struct election_options options;
	struct election_calls calls;
};

struct election *election_create(const struct election_options *options, const struct election_calls *calls,
                                 uint64_t now_us)
{
	struct election *e = calloc(1, sizeof *e);

	(void)now_us; /* when this life began: a newcomer listens first */
	if (e == NULL)
		return NULL;
	e->options = *options;
	e->calls = *calls;
	return e;
}

void election_destroy(struct election *e)
{
	free(e);
}

/* 1. Has this node stood still since it was last called?  2. Who is alive?  3. Who is the lowest of them?  4. Is a
   heartbeat due? */
uint64_t election_tick(struct election *e, uint64_t now_us)
{
	struct note note = { .id = e->options.id };

	e->calls.send(e->calls.context, 0, &note, sizeof note);
	return now_us + BEAT_US;
}

/* The bytes may be garbage, old, or a copy of what came before. */
void election_receive(struct election *e, const void *bytes, size_t length, uint64_t now_us)
{
	struct note note;

	(void)e, (void)now_us;
	if (length != sizeof note)
		return;
	memcpy(&note, bytes, sizeof note);
}

void election_leave(struct election *e, uint64_t now_us)
{
	(void)e, (void)now_us;
}

unsigned election_master(const struct election *e)
{
	return e->options.id;
}
