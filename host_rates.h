/* host_rates.h: how fast a forward proxy may start requests to each host: one limiter (limiter.h) for each.
 *
 *      "api.example" ──► host_rates_hold ──► its limiter ──► line.h: wait, use, give back ──► host_rates_release
 *
 * A host has a limiter from the first request that asks for it until nothing of it matters any more: nobody holds it,
 * no slot is out, nobody waits, and nothing has started within a window. Then it is thrown away, and a new one would
 * say the same. So the table forgets without ever forgiving: there is no eviction that would refill somebody's window.
 *
 * Names come from clients, who can make up a million of them. The table has room for HOST_RATES_HOSTS_MAX hosts, and
 * for HOST_RATES_SLOTS_MAX slots of all their limiters together; when that is full of hosts that still matter, the
 * next one is told so (HOST_RATES_FULL) rather than let through uncounted.
 *
 * Any thread may call anything. Names are those of hosts_name() (lib/hosts.h): every spelling of a host is one host.
 */
#ifndef WEIR_HOST_RATES_H
#define WEIR_HOST_RATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/settings.h"
#include "limiter.h"

#define HOST_RATES_HOSTS_MAX 16384u
#define HOST_RATES_SLOTS_MAX (4u * 1024u * 1024u)

struct host_rates;

struct host_rates_options {
	struct settings_rate rate;                   /* of each host; count 0: no limit */
	const struct settings_host_rates *overrides; /* copied; NULL: none */
	uint64_t backlog_us;                         /* rate × backlog may wait, at least 1 unless it is 0 */
};

/* wake: for limiter_create(). NULL when out of memory or of random bytes. */
struct host_rates *host_rates_create(const struct host_rates_options *options, void (*wake)(struct limiter_ticket *));
/* Nothing may be held. */
void host_rates_destroy(struct host_rates *rates);

enum host_rates_answer {
	HOST_RATES_HELD,      /* hold->limiter is this host's, until host_rates_release() */
	HOST_RATES_NONE,      /* this host has no rate */
	HOST_RATES_FULL,      /* too many hosts matter at this moment */
	HOST_RATES_NO_MEMORY,
};

/* The memory is the caller's. */
struct host_rates_hold {
	struct host_rates_entry *entry; /* NULL: nothing is held */
	struct limiter *limiter;
	struct settings_rate rate;      /* as it was when it was taken */
};

enum host_rates_answer host_rates_take(struct host_rates *rates, const char *name, uint64_t now_us,
                                       struct host_rates_hold *hold);
/* Every turn in the limiter must be used or given back before. Without a hold: nothing happens. */
void host_rates_release(struct host_rates *rates, struct host_rates_hold *hold);

/* New rates for all hosts, those included that have a limiter: each keeps its window (limiter_configure()). 0, or -1
   when out of memory: hosts whose limiter could not be changed keep the rate they had, and all others have the new
   one. */
int host_rates_configure(struct host_rates *rates, const struct host_rates_options *options, uint64_t now_us);

/* Throws away what does not matter any more. Now and then; a full table sees to it itself. */
void host_rates_reap(struct host_rates *rates, uint64_t now_us);

struct host_rates_report {
	size_t hosts;         /* that have a limiter */
	uint64_t slots;       /* of all of them */
	uint64_t full_total;  /* answers HOST_RATES_FULL */
};
void host_rates_report(struct host_rates *rates, struct host_rates_report *report);

#endif
