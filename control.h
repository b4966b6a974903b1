/* control.h: what the API may change while weir runs: limits, and which targets take their turns.
 *
 *      bytes ──► bounded, parsed, every field checked ──► changed, at once        200
 *                        │
 *                        └ the first thing that is wrong, in words                400, and nothing has changed
 *
 * A change is no setting: it holds until the settings are read again (SIGHUP), which puts the limits back to what the file says. So
 * the file stays the truth about what is normal, and a number that was typed at night is gone after the next deployment, not
 * a year later. A drained target is the exception: it stays drained while its address stays in the list, for whoever works on that
 * machine does not know who reloads what.
 *
 * No change refills a window or a bucket or drops a connection (limiter.h, hosts.h). One change at a time (roster_begin_change()).
 */
#ifndef WEIR_CONTROL_H
#define WEIR_CONTROL_H

#include <stddef.h>

#include "proxy.h"

#define CONTROL_WHY_MAX 400

/* PUT /api/limits and PUT /api/targets: the status to answer with (200, 400, 404, 500), and why when it is not 200: one line without
   control characters. */
int control_put_limits(struct proxy *const *proxies, size_t count, const char *body, size_t body_bytes, char why[CONTROL_WHY_MAX]);
int control_put_targets(struct proxy *const *proxies, size_t count, const char *body, size_t body_bytes, char why[CONTROL_WHY_MAX]);

#endif
