/* stats.h: the status page on the service's own port, at stats_path. For admit.c only.
 *
 *      GET /stats                  the page
 *      GET /stats/api/status       this service, as the admin address shows it
 *      GET /stats/api/view         what the page asks for each second
 *
 * To look at only, and without what concerns others: no trace of requests (their clients and URIs), no lines of the log. Whoever may
 * come in by allow and deny may look; nothing is taken from any limit. Requests in absolute form are a forward proxy's work, and
 * never meant for this.
 */
#ifndef WEIR_STATS_H
#define WEIR_STATS_H

#include "road.h"

/* Does this request ask for the status page? */
bool stats_is_asked(const struct road *r);
/* Answers it: STEP_OVER when that is done, or STEP_REFUSED. */
enum step stats_answer(struct road *r);

#endif
