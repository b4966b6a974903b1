/* weir.h: the services of one configuration, started, changed and stopped together.
 *
 * It installs no signal handler and never ends the process: that is the business of whoever calls it (main.c does). Two of them may
 * live in one process.
 */
#ifndef WEIR_H
#define WEIR_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/log.h"
#include "lib/settings.h"

struct weir;

/* Makes every service of the configuration and opens its port. The configuration is read only during the call; the log must
   outlive the object. NULL, and a line in error, when one of them can't be made: then none is. */
struct weir *weir_create(const struct configuration *configuration, struct log *log, char *error, size_t error_size);
/* Begins to serve, in the background. False, and a line in error, when that fails: weir_stop() it. Once. */
bool weir_start(struct weir *weir, char *error, size_t error_size);

/* Goes over to another configuration: services are told apart by name. Those that are new start, those that are gone drain, the others
   change in place, with no connection dropped. False, and a line in error, when something could not be done; what could has been.
   One thread at a time. */
bool weir_reload(struct weir *weir, const struct configuration *configuration, char *error, size_t error_size);

/* The configuration that was read anew is wrong, and nothing was changed: the metrics say so. */
void weir_reload_refused(struct weir *weir);

/* Drains all services, each within its drain_timeout, and frees; also what never started. Returns true if no connection had to be cut. */
bool weir_stop(struct weir *weir);

/* The port of the service with that name (NULL: the first); 0 when there is none. */
unsigned weir_port(struct weir *weir, const char *service);

#endif
