/* roster.h: which services there are right now, for those who look at them from outside the road.
 *
 * A reload makes and ends services while somebody reads the status page. Whoever looks takes hold of all that are there, and a service
 * that leaves is freed when nobody holds it any more:
 *
 *      reload:   roster_add() … roster_remove(): takes it off the list, then waits for those that hold it ──► proxy_destroy()
 *      looking:  roster_hold() … roster_release()          a moment: nothing in between may block
 *
 * Changes from outside (the API) and reloads take turns by roster_begin_change(): it is no lock, for a reload may wait for
 * names to resolve, and nobody should hold a mutex that long. Who changes waits for that turn first and takes hold then: the other way
 * round, a reload could wait for him while he waits for the reload, and what he holds could be of yesterday.
 *
 * A stanza that is taken out of the file and put back while its connections still drain is two services of one name for a while. Names
 * are what everybody outside tells services by, so the old one is looked at no more.
 *
 * Any thread.
 */
#ifndef WEIR_ROSTER_H
#define WEIR_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/log.h"
#include "proxy.h"

struct roster;

/* NULL when out of memory. log outlives it. */
struct roster *roster_create(struct log *log);
void roster_destroy(struct roster *roster); /* empty, and held by nobody */

/* False when out of memory. */
bool roster_add(struct roster *roster, struct proxy *proxy);
/* Waits until nobody holds it. One that is not there: nothing. */
void roster_remove(struct roster *roster, struct proxy *proxy);

/* Waits until there is no service left. False at the deadline (CLOCK_NEVER: none). */
bool roster_wait_empty(struct roster *roster, uint64_t deadline_us);

struct roster_view {
	struct roster *roster;
	struct roster_entry **entries;
	struct proxy **proxies; /* in the order of their making */
	size_t count;
};
/* Without those that drain and whose name is another's by now. False when out of memory: then nothing is held. */
bool roster_hold(struct roster *roster, struct roster_view *view);
/* Those too: for who ends them. */
bool roster_hold_all(struct roster *roster, struct roster_view *view);
void roster_release(struct roster_view *view);

/* Waits for its turn, at most until deadline_us. False: somebody else still changes. */
bool roster_begin_change(struct roster *roster, uint64_t deadline_us);
void roster_end_change(struct roster *roster);

/* What is known of the process as a whole. */
struct roster_facts {
	struct log *log;
	uint64_t started_us;     /* clock_us() */
	int64_t started_s;       /* of the wall clock */
	bool is_draining;
	bool last_reload_is_good; /* also when there was none */
	int64_t last_reload_s;   /* when settings last came into force, of the wall clock */
};
void roster_facts(struct roster *roster, struct roster_facts *facts);
void roster_note_drain(struct roster *roster);
void roster_note_reload(struct roster *roster, bool is_good);

#endif
