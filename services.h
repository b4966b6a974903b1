/* services.h: the services of one configuration, started, changed and stopped together.
 *
 *      weir.c ──► services.c ──┬──► proxy (a stanza)          those that run, and those that a reload has let go and that
 *                              ├──► proxy (a stanza)          drain while the others go on
 *                              ├──► console (the admin address)
 *                              └──► roster: which there are, for those who look
 *
 * It knows no signals and no file: what is in force is a configuration that somebody has read. One thread at a time,
 * but for services_roster() and services_cut().
 */
#ifndef WEIR_SERVICES_H
#define WEIR_SERVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/log.h"
#include "lib/settings.h"
#include "roster.h"

struct services;

/* Makes every service of the configuration and opens its port. The configuration is read only during the call; the
   log must outlive the object. NULL, and a line in error, when one of them can't be made: then none is. */
struct services *services_create(const struct configuration *configuration, struct log *log, char *error, size_t error_size);
/* Begins to serve, in the background. False, and a line in error, when that fails: services_stop() it. Once. */
bool services_start(struct services *services, char *error, size_t error_size);

/* Goes over to another configuration: services are told apart by name. Those that are new start, those that are gone
   drain, the others change in place, with no connection dropped. False, and a line in error, when something could
   not be done; what could has been. */
bool services_reload(struct services *services, const struct configuration *configuration, char *error, size_t error_size);

/* The configuration that was read anew is wrong, and nothing was changed: the metrics say so. */
void services_reload_refused(struct services *services);

/* As the deadline of services_stop(): each service has its own drain_timeout. */
#define SERVICES_DRAIN_TIMEOUT UINT64_MAX

/* Drains all services and ends them, also those that never started; what has something in hand at deadline_us is
   cut. Returns true if nothing had to be. Then it is empty, and can only be asked for its roster and destroyed. */
bool services_stop(struct services *services, uint64_t deadline_us);
/* Cuts what services_stop() still waits for, from another thread. */
void services_cut(struct services *services);
/* After services_stop(). */
void services_destroy(struct services *services);

/* Which there are. Lives as long as the services. Any thread. */
struct roster *services_roster(struct services *services);

#endif
