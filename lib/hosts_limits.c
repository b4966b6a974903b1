/* hosts_limits.c: the caps, which may change at any time, and the report.
 *
 * The overrides are a sorted array: found by halving, compared with no allocation. A change makes a new array first, so that a
 * change that fails for lack of memory changes nothing. Then every host that has an entry is looked at:
 *
 *      raised     those that wait are told to look again
 *      lowered    idle connections over it are closed; those in use end in their own time, and are not handed on
 */
#include "hosts_internal.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *one, const void *other)
{
	return strcmp(((const struct host_limit *)one)->name, ((const struct host_limit *)other)->name);
}

void host_limits_free(struct host_limits *limits)
{
	for (size_t i = 0; i < limits->count; i++)
		free(limits->items[i].name);
	free(limits->items);
	*limits = (struct host_limits){ .items = NULL };
}

/* A copy with room for one more. */
static int copy_limits(const struct host_limits *from, struct host_limits *copy)
{
	size_t count = from != NULL ? from->count : 0;
	*copy = (struct host_limits){ .items = calloc(count + 1, sizeof *copy->items) };
	if (copy->items == NULL)
		return -1;
	for (; copy->count < count; copy->count++) {
		struct host_limit *item = &copy->items[copy->count];
		item->cap = from->items[copy->count].cap;
		item->name = strdup(from->items[copy->count].name);
		if (item->name == NULL) {
			host_limits_free(copy);
			return -1;
		}
	}
	return 0;
}

static struct host_limit *find_limit(const struct host_limits *limits, const char *name)
{
	struct host_limit key = { .name = (char *)name };
	return limits->count > 0 ? bsearch(&key, limits->items, limits->count, sizeof key, compare) : NULL;
}

unsigned hosts_find_cap(const struct hosts *hosts, const char *name)
{
	const struct host_limit *limit = find_limit(&hosts->limits, name);
	return limit != NULL ? limit->cap : hosts->default_cap;
}

/* The host's cap may be another one now. */
static void apply(struct hosts *hosts, struct hosts_host *host, const void *how) REQUIRES(hosts_mutex)
{
	(void)how;
	unsigned before = host->cap;
	host->cap = host->cap_in_force = hosts_find_cap(hosts, host->name);
	if (host->cap == before)
		return;
	if (host->cap != 0 && (before == 0 || host->cap < before)) {
		host->must_ask = hosts->store != NULL;
		if (before == 0 && hosts->store != NULL)
			redis_store_tell(hosts->store, host->name);
		unsigned in_use = host->open - (unsigned)host->idle_count;
		size_t room = host->cap > in_use ? host->cap - in_use : 0;
		hosts_shrink_idle(hosts, host, room);
	}
	hosts_look_again(host);
}

/* Puts a changed list into force, and returns the old one in it. */
static void install(struct hosts *hosts, struct host_limits *limits) EXCLUDES(hosts_mutex)
{
	hosts_lock(hosts);
	struct host_limits old = hosts->limits;
	hosts->limits = *limits;
	hosts_unlock(hosts);
	*limits = old;
	hosts_visit(hosts, apply, NULL);
}

int hosts_configure(struct hosts *hosts, const struct hosts_settings *settings)
{
	struct host_limits limits;
	if (copy_limits(settings->limits, &limits) != 0)
		return -1;
	if (limits.count > 1)
		qsort(limits.items, limits.count, sizeof *limits.items, compare);
	hosts_lock(hosts);
	hosts->default_cap = settings->default_cap;
	hosts->fail = settings->when_store_is_down;
	hosts_unlock(hosts);
	install(hosts, &limits);
	host_limits_free(&limits);
	return 0;
}

int hosts_set_default_cap(struct hosts *hosts, unsigned cap)
{
	hosts_lock(hosts);
	hosts->default_cap = cap;
	hosts_unlock(hosts);
	hosts_visit(hosts, apply, NULL);
	return 0;
}

/* Two at once: the list is copied, changed and put back, all under one lock, or one of them would be lost. No part of it can block. */
static int change_limit(struct hosts *hosts, const char *name, bool is_removed, unsigned cap)
{
	struct host_limits limits, old = { .items = NULL };
	hosts_lock(hosts);
	int result = copy_limits(&hosts->limits, &limits);
	struct host_limit *limit = result == 0 ? find_limit(&limits, name) : NULL;
	if (limit != NULL && is_removed) {
		free(limit->name);
		*limit = limits.items[--limits.count];
	} else if (limit != NULL) {
		limit->cap = cap;
	} else if (result == 0 && !is_removed) {
		limits.items[limits.count] = (struct host_limit){ .name = strdup(name), .cap = cap };
		if (limits.items[limits.count].name != NULL)
			limits.count++;
		else
			result = -1;
	}
	if (result == 0) {
		if (limits.count > 1)
			qsort(limits.items, limits.count, sizeof *limits.items, compare);
		old = hosts->limits;
		hosts->limits = limits;
	}
	hosts_unlock(hosts);
	host_limits_free(result == 0 ? &old : &limits);
	hosts_visit(hosts, apply, NULL);
	return result;
}

int hosts_set_cap(struct hosts *hosts, const char *name, unsigned cap)
{
	return change_limit(hosts, name, false, cap);
}

int hosts_remove_cap(struct hosts *hosts, const char *name)
{
	return change_limit(hosts, name, true, 0);
}

unsigned hosts_cap(struct hosts *hosts, const char *name)
{
	hosts_lock(hosts);
	unsigned cap = hosts_find_cap(hosts, name);
	hosts_unlock(hosts);
	return cap;
}

int hosts_limits(struct hosts *hosts, unsigned *default_cap, struct host_limits *copy)
{
	hosts_lock(hosts);
	*default_cap = hosts->default_cap;
	int result = copy_limits(&hosts->limits, copy);
	hosts_unlock(hosts);
	return result;
}

size_t hosts_report(struct hosts *hosts, struct hosts_report_row *rows, size_t capacity, struct hosts_totals *totals)
{
	size_t count = 0;
	hosts_lock(hosts);
	for (size_t bucket = 0; bucket < HOSTS_BUCKETS; bucket++) {
		for (struct hosts_host *host = hosts->buckets[bucket]; host != NULL; host = host->next) {
			if (host->open == 0 && host->waiting == 0)
				continue; /* kept for what it remembers */
			if (count++ >= capacity)
				continue;
			rows[count - 1] = (struct hosts_report_row){ .open = host->open,
				                                 .idle = (unsigned)host->idle_count,
				                                 .waiting = host->waiting,
				                                 .limit = host->cap };
			memcpy(rows[count - 1].name, host->name, sizeof host->name);
		}
	}
	*totals = hosts->totals;
	hosts_unlock(hosts);
	return count;
}
