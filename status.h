/* status.h: what there is to say about the services, as JSON: one schema for /api/status, the page, and weir top.
 *
 *      balancer ─┐
 *      limiter  ─┼── each asked for its report, one after the other ──► one JSON object
 *      hosts    ─┤
 *      meters   ─┘
 *
 * Each report is a copy taken under that part's own mutex for a moment: no two of them are of exactly the same moment, and nobody
 * on the road waits for the text to be made. Fields are added, never renamed or removed: programs read them. Any thread.
 */
#ifndef WEIR_STATUS_H
#define WEIR_STATUS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "proxy.h"
#include "roster.h"

enum status_form {
	STATUS_API,  /* everything that is stable: /api/status */
	STATUS_PAGE, /* as the page wants it: the last requests and events as well; long lists are cut */
	STATUS_PUBLIC, /* the same without requests and events, which are about others */
};

/* {"version","uptime_s",…,"services":[…]} of these services. The caller's to json_decref(). NULL when out of memory. */
json_t *status_write(struct proxy *const *proxies, size_t count, const struct roster_facts *facts, enum status_form form);
/* A string of JSON, whatever the bytes are: what is not UTF-8 becomes '?'. */
json_t *status_text(const char *text);

/* Is there something to send a request to? A forward proxy and a message switch take whatever comes. */
bool status_is_ready(struct proxy *const *proxies, size_t count);

/* {"services":[{"name","threshold","default","hosts":{…}}]} */
json_t *status_limits(struct proxy *const *proxies, size_t count);
/* {"services":[{"name","targets":[{"address","state"}]}]} */
json_t *status_targets(struct proxy *const *proxies, size_t count);

#endif
