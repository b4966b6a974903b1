/* console.h: what is served on the admin address: the page, metrics and the API.
 *
 *      /              the page                     /healthz       is the process there?
 *      /api/live      what moves on it             /readyz        would a request be served?
 *      /api/view      one frame of that            /metrics       for Prometheus
 *      /api/status    all of it, as JSON
 *      /api/limits    GET, PUT                     /api/targets   GET, PUT
 *
 * lib/admin.h serves and guards it; status.h, metrics.h and control.h know what to say; live.h draws the moving part.
 */
#ifndef WEIR_CONSOLE_H
#define WEIR_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

#include "roster.h"

struct console;

/* Opens the address. place and token (NULL: none) are copied. beside: the one that this one replaces, at another place; or NULL. NULL, and
   a line in error, when it can't. */
struct console *console_open(struct roster *roster, const char *place, const char *token, const struct console *beside, char *error,
                             size_t error_size);
/* Begins to serve. False, and a line in error, when it can't. Once. */
bool console_start(struct console *console, char *error, size_t error_size);
/* Ends what is under way, and frees. */
void console_stop(struct console *console);

/* Was it opened at that place; with that token? */
bool console_is_at(const struct console *console, const char *place);
bool console_is(const struct console *console, const char *place, const char *token);

#endif
