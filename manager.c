/* manager.c: see manager.h. */
#include "manager.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/notify.h"
#include "summary.h"
#include "weir_internal.h"

/* What the end takes besides the drain: leaving the group, giving places in Redis back. */
#define LEAVE_US (10 * US_PER_S)
#define TROUBLE_MAX 192
#define STATUS_MAX (TROUBLE_MAX + SUMMARY_MAX + 64)

struct manager {
	struct notifier *notifier;
	struct log *log;
	struct summary before;     /* the look that the next rates are counted from */
	char trouble[TROUBLE_MAX]; /* of the last reload, with a separator behind it; or empty */
	bool has_complained;
};

/* Once: a manager that has gone away is gone for each of the following messages as well. */
static void complain(struct manager *manager, enum notify_result result)
{
	if (result == NOTIFY_SENT || manager->has_complained)
		return;
	log_write(manager->log, LOG_LEVEL_WARN, NULL, "cannot tell the service manager: %s", strerror(errno));
	manager->has_complained = true;
}

struct manager *manager_create(const char *address, struct log *log)
{
	struct notifier *notifier;
	enum notify_result result = notifier_create(address, &notifier);
	if (result == NOTIFY_BAD_ADDRESS)
		log_write(log, LOG_LEVEL_WARN, NULL,
		          "NOTIFY_SOCKET: \"%.100s\" was read; allowed: a path from / on, or @ and a name", address);
	else if (result == NOTIFY_FAILED)
		log_write(log, LOG_LEVEL_WARN, NULL, "NOTIFY_SOCKET: %s", strerror(errno));
	if (result != NOTIFY_SENT)
		return NULL;
	struct manager *manager = calloc(1, sizeof *manager);
	if (manager == NULL) {
		notifier_destroy(notifier);
		return NULL;
	}
	manager->notifier = notifier;
	manager->log = log;
	return manager;
}

void manager_destroy(struct manager *manager)
{
	if (manager == NULL)
		return;
	notifier_destroy(manager->notifier);
	free(manager);
}

static void write_status(struct manager *manager, struct weir *weir, char status[STATUS_MAX])
{
	struct summary now;
	char line[SUMMARY_MAX] = "it runs";
	if (summary_take(services_roster(weir->services), clock_us(), &now)) {
		summary_write(&now, &manager->before, line);
		manager->before = now;
	}
	snprintf(status, STATUS_MAX, "%s%s", manager->trouble, line);
}

void manager_say_ready(struct manager *manager, struct weir *weir)
{
	char status[STATUS_MAX];
	if (manager == NULL)
		return;
	write_status(manager, weir, status);
	complain(manager, notify_ready(manager->notifier, status));
}

void manager_say_reloading(struct manager *manager)
{
	if (manager != NULL)
		complain(manager, notify_reloading(manager->notifier, clock_us()));
}

void manager_say_reloaded(struct manager *manager, struct weir *weir, const char *error)
{
	if (manager == NULL)
		return;
	manager->trouble[0] = '\0';
	if (error != NULL)
		snprintf(manager->trouble, sizeof manager->trouble, "reload failed: %.160s; ", error);
	manager_say_ready(manager, weir);
}

void manager_say_stopping(struct manager *manager, struct weir *weir, uint64_t drain_us)
{
	struct summary now;
	char status[STATUS_MAX];
	if (manager == NULL)
		return;
	snprintf(status, sizeof status, "draining for at most %g s", (double)drain_us / 1e6);
	if (summary_take(services_roster(weir->services), clock_us(), &now))
		snprintf(status, sizeof status, "draining for at most %g s: %u connection%s of clients", (double)drain_us / 1e6,
		         now.clients, now.clients == 1 ? "" : "s");
	complain(manager, notify_stopping(manager->notifier, status, drain_us + LEAVE_US));
}

void manager_say_status(struct manager *manager, struct weir *weir)
{
	char status[STATUS_MAX];
	if (manager == NULL)
		return;
	write_status(manager, weir, status);
	notify_status(manager->notifier, status); /* the next one will do as well */
}
