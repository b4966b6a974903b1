/* upstream.h: one target's address, and the connections to it that are idle now.
 *
 *      lease ──► the idle connection used last, if it is still quiet ──► send, receive ──► give back
 *            └─► a new one                                                             └─► or close it
 *
 * Most recently used first: the connections at the bottom of the stack grow old together and are closed, so that the pool
 * shrinks to what the load needs. Before reuse a connection must be quiet: one that the target has closed, or on which it has
 * said something unasked, is thrown away (a leftover byte would be read as the start of the next answer). So is one that was made
 * under other TLS settings than those in force: whom it speaks to was checked by the old ones, or not at all.
 */
#ifndef WEIR_UPSTREAM_H
#define WEIR_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"
#include "conn.h"
#include "cut.h"

struct upstream;

/* All targets of a service, so that their idle connections can be looked after. It must outlive them. NULL when out of memory. */
struct upstreams;
struct upstreams *upstreams_create(void);
void upstreams_destroy(struct upstreams *all);
/* Closes idle connections that the target has closed, and those idle for longer than idle_max_us: a few of each target in one
   call. Never blocks. Any thread. */
void upstreams_reap(struct upstreams *all, uint64_t idle_max_us);

/* What there is to know of one target, for the status page. */
struct upstream_report {
	char address[ADDRESS_TEXT_MAX + 256]; /* as upstream_address() */
	uint64_t answers_total, answers_us;   /* how many heads of answers came, and how long they took together */
};
/* Copies up to capacity, sorted by address. Returns how many it copied. */
size_t upstreams_report(struct upstreams *all, struct upstream_report *reports, size_t capacity);
/* The report of that address, or NULL. */
const struct upstream_report *upstream_report_find(const struct upstream_report *reports, size_t count, const char *address);

/* One target. name is how the settings call its host ("api.example:80"), for the Host of requests that have none.
   address NULL: the name did not resolve; every lease fails. Strings are copied. NULL when out of memory. */
struct upstream *upstream_create(struct upstreams *all, const char *name, const struct address *address);
/* Closes what is idle. No connection may be on lease. */
void upstream_destroy(struct upstream *upstream);

const char *upstream_name(const struct upstream *upstream);    /* as configured */
const char *upstream_host(const struct upstream *upstream);    /* for Host: the name; "localhost" for a unix socket */
const char *upstream_address(const struct upstream *upstream); /* "127.0.0.1:9001"; the name while there is no address */

/* It answered after so long. Any thread. */
void upstream_answered(struct upstream *upstream, uint64_t us);

/* What kind of connection is wanted. */
struct upstream_wish {
	uint64_t idle_max_us;        /* an idle one will do that has been idle for no longer; 0: a fresh one is wanted */
	uint64_t connect_timeout_us; /* for connecting, and for the TLS handshake with it */
	struct tls *tls;             /* NULL: plain */
	const char *preface;         /* a fresh one is wanted, which begins with these bytes (a PROXY header), before all else */
	size_t preface_bytes;        /* 0: none */
};
/* Room for the text of an errno number as well. */
#define UPSTREAM_WHY_MAX TLS_WHY_MAX

/* Readies conn (its buffer is set already) with a connection to the target, and attaches it to cut. *reused says whether it
   was idle. Any thread. CONN_OK, CONN_TIMEOUT, CONN_BROKEN: why says why not, and errno (EPROTO when it is TLS that failed). */
enum conn_result upstream_lease(struct upstream *upstream, struct conn *conn, struct cut *cut, const struct upstream_wish *wish,
                                bool *reused, char why[UPSTREAM_WHY_MAX]);
/* The exchange ended cleanly, and both sides want to go on. */
void upstream_give_back(struct upstream *upstream, struct conn *conn, struct cut *cut);
/* It did not. */
void upstream_discard(struct conn *conn, struct cut *cut);

#endif
