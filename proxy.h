/* proxy.h: one service: a listener, its threads, its targets and its limits, from start to drain.
 *
 *      service.c    what a service is made of: settings in force, targets, probes; start, reload, drain
 *      proxy.c      the road: what a thread does with a connection, and with each request on it
 */
#ifndef WEIR_PROXY_H
#define WEIR_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/log.h"
#include "lib/settings.h"

struct proxy;

/* Makes a service: opens its port, resolves names, starts the probes. settings is held, log must outlive the proxy. NULL and a
   line in error when it cannot. Nobody is served yet: the caller may first give up rights that opening the port took. */
struct proxy *proxy_create(struct settings *settings, struct log *log, char *error, size_t error_size);
/* Begins to serve. False, and a line in error, when there is no memory or thread to do it with. Once. */
bool proxy_start(struct proxy *proxy, char *error, size_t error_size);

/* Puts new settings into force; no connection is dropped, no limit refilled. False, and a line in error, when the new ones can't be
   used (the new port is taken, no memory): then the old ones stay. One thread at a time. */
bool proxy_reload(struct proxy *proxy, struct settings *settings, char *error, size_t error_size);

/* The port it listens on; 0 for a unix socket. */
unsigned proxy_port(struct proxy *proxy);
const char *proxy_name(const struct proxy *proxy);
/* Has proxy_drain() been called? */
bool proxy_is_draining(const struct proxy *proxy);

/* Stops accepting, and lets what is in flight finish. Does not wait. */
void proxy_drain(struct proxy *proxy);
/* Waits until all connections have ended; at the deadline it cuts those that are left. True if none had to be cut. */
bool proxy_finish(struct proxy *proxy, uint64_t deadline_us);
/* Ends that wait at once, from another thread. */
void proxy_cut(struct proxy *proxy);
/* After proxy_finish(). */
void proxy_destroy(struct proxy *proxy);

#endif
