/* manager.h: what the service manager (systemd) is told, and when. For main.c.
 *
 * lib/notify.h has the protocol; here is what is said in it. The status line is the one of summary.h, a few seconds old at most. After
 * a reload that was refused it begins with why, until one succeeds: `systemctl reload` itself cannot fail any more by then, and
 * the log scrolls away.
 *
 * There is no WATCHDOG=1. The thread that would send it sleeps until a signal comes; that it is well would say nothing about those
 * that serve, and a watchdog that can't tell would restart a weir that works, or keep one that hangs.
 *
 * One thread.
 */
#ifndef WEIR_MANAGER_H
#define WEIR_MANAGER_H

#include <stdint.h>

#include "lib/log.h"
#include "weir.h"

struct manager;

/* address: NOTIFY_SOCKET of the environment, or NULL. NULL when there is no manager to tell, or no memory; an address that is none is
   said in the log, which outlives the object. The others take NULL. */
struct manager *manager_create(const char *address, struct log *log);
void manager_destroy(struct manager *manager);

void manager_say_ready(struct manager *manager, struct weir *weir);
void manager_say_reloading(struct manager *manager);
/* error: why the old settings stay, or not all new ones are in force; NULL: they are. */
void manager_say_reloaded(struct manager *manager, struct weir *weir, const char *error);
/* drain_us: how long connections may take to end. */
void manager_say_stopping(struct manager *manager, struct weir *weir, uint64_t drain_us);
/* Now and then. */
void manager_say_status(struct manager *manager, struct weir *weir);

#endif
