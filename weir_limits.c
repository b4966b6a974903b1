/* weir_limits.c: what weir.h tells of an object while it runs, and what may be changed: where it is, its limits, its
 * connections.
 *
 *      weir_set_host_limit ──► roster ──► each forward proxy ──► lib/hosts      at once
 *
 * All goes through the roster, which holds a service for as long as somebody looks at it: so a reload or the end may
 * come at any time. Two changes at once, one of them by the API, take turns (roster_begin_change()): one that reads the
 * list, changes it and writes it back would else undo the other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "service.h"
#include "weir_internal.h"

/* ---- where it is ---------------------------------------------------------------------------------------------------- */

/* The service with that name, or the first; NULL when there is none. One that drains is none any more. In a view that is held. */
static struct proxy *find(const struct roster_view *view, const char *service)
{
	for (size_t i = 0; i < view->count; i++)
		if (!atomic_load(&view->proxies[i]->is_draining) &&
		    (service == NULL || strcmp(proxy_name(view->proxies[i]), service) == 0))
			return view->proxies[i];
	return NULL;
}

static unsigned port_of(struct weir *weir, const char *service)
{
	struct roster_view view;
	if (weir == NULL || !roster_hold(services_roster(weir->services), &view))
		return 0;
	struct proxy *proxy = find(&view, service);
	unsigned port = proxy != NULL ? proxy_port(proxy) : 0;
	roster_release(&view);
	return port;
}

unsigned weir_port(struct weir *weir)
{
	return port_of(weir, NULL);
}

unsigned weir_service_port(struct weir *weir, const char *service)
{
	return service != NULL ? port_of(weir, service) : 0;
}

/* A text that lives as long as the object: there is one of each kind, however often it is asked for. */
static const char *keep_text(struct weir *weir, const char *text)
{
	size_t size = strlen(text) + 1;
	weir_lock(weir);
	struct weir_text *kept = weir->texts;
	while (kept != NULL && strcmp(kept->text, text) != 0)
		kept = kept->next;
	if (kept == NULL && (kept = malloc(sizeof *kept + size)) != NULL) {
		memcpy(kept->text, text, size);
		kept->next = weir->texts;
		weir->texts = kept;
	}
	weir_unlock(weir);
	return kept != NULL ? kept->text : NULL;
}

static const char *url_of(struct weir *weir, const char *service)
{
	struct roster_view view;
	char url[SERVICE_URL_MAX];
	if (weir == NULL || !roster_hold(services_roster(weir->services), &view))
		return NULL;
	struct proxy *proxy = find(&view, service);
	bool is_there = proxy != NULL && service_url(proxy, url);
	roster_release(&view);
	return is_there ? keep_text(weir, url) : NULL;
}

const char *weir_url(struct weir *weir)
{
	return url_of(weir, NULL);
}

const char *weir_service_url(struct weir *weir, const char *service)
{
	return service != NULL ? url_of(weir, service) : NULL;
}

/* ---- limits --------------------------------------------------------------------------------------------------------- */

/* One change, for every forward proxy. name: of one host; NULL: see the fields. */
struct change {
	const char *name;
	bool is_removed;
	unsigned limit;
	const struct host_limits *all; /* instead of those there are; NULL: not */
};

static bool change_one(struct proxy *proxy, const struct change *change)
{
	unsigned default_cap;
	struct host_limits before;
	if (change->name != NULL)
		return (change->is_removed ? hosts_remove_cap(proxy->hosts, change->name) :
		                             hosts_set_cap(proxy->hosts, change->name, change->limit)) == 0;
	if (change->all == NULL)
		return hosts_set_default_cap(proxy->hosts, change->limit) == 0;
	if (hosts_limits(proxy->hosts, &default_cap, &before) != 0)
		return false;
	host_limits_free(&before);
	return service_set_caps(proxy, default_cap, change->all);
}

static enum weir_result change_limits(struct weir *weir, const struct change *change)
{
	struct roster *roster = services_roster(weir->services);
	struct roster_view view;
	enum weir_result result = WEIR_NO_FORWARD;
	roster_begin_change(roster, CLOCK_NEVER);
	if (!roster_hold(roster, &view)) {
		roster_end_change(roster);
		return WEIR_NO_MEMORY;
	}
	for (size_t i = 0; i < view.count; i++)
		if (view.proxies[i]->hosts != NULL && result != WEIR_NO_MEMORY)
			result = change_one(view.proxies[i], change) ? WEIR_OK : WEIR_NO_MEMORY;
	roster_release(&view);
	roster_end_change(roster);
	return result;
}

static enum weir_result parse_host(const char *host, char name[HOSTS_NAME_MAX])
{
	if (host == NULL)
		return WEIR_NOTHING;
	return settings_parse_host(host, strlen(host), name) == NULL ? WEIR_OK : WEIR_BAD_HOST;
}

enum weir_result weir_set_default_limit(struct weir *weir, unsigned limit)
{
	if (weir == NULL)
		return WEIR_NOTHING;
	if (limit > WEIR_LIMIT_MAX)
		return WEIR_BAD_LIMIT;
	return change_limits(weir, &(struct change){ .limit = limit });
}

enum weir_result weir_set_host_limit(struct weir *weir, const char *host, unsigned limit)
{
	char name[HOSTS_NAME_MAX];
	enum weir_result result = weir != NULL ? parse_host(host, name) : WEIR_NOTHING;
	if (result == WEIR_OK && limit > WEIR_LIMIT_MAX)
		result = WEIR_BAD_LIMIT;
	return result == WEIR_OK ? change_limits(weir, &(struct change){ .name = name, .limit = limit }) : result;
}

enum weir_result weir_remove_host_limit(struct weir *weir, const char *host)
{
	char name[HOSTS_NAME_MAX];
	enum weir_result result = weir != NULL ? parse_host(host, name) : WEIR_NOTHING;
	return result == WEIR_OK ? change_limits(weir, &(struct change){ .name = name, .is_removed = true }) : result;
}

static bool is_listed(const struct host_limits *limits, const char *name)
{
	for (size_t i = 0; i < limits->count; i++)
		if (strcmp(limits->items[i].name, name) == 0)
			return true;
	return false;
}

/* Adds one to a list that has room for it. */
static enum weir_result add_limit(struct host_limits *list, const struct weir_limit *limit, const char **why)
{
	char name[HOSTS_NAME_MAX];
	*why = "NULL is no host";
	if (limit->host == NULL)
		return WEIR_NOTHING;
	*why = settings_parse_host(limit->host, strlen(limit->host), name);
	if (*why != NULL)
		return WEIR_BAD_HOST;
	*why = "this host is there twice";
	if (is_listed(list, name))
		return WEIR_BAD_HOST;
	*why = "allowed: a limit of 0 to 1000000";
	if (limit->limit > WEIR_LIMIT_MAX)
		return WEIR_BAD_LIMIT;
	list->items[list->count] = (struct host_limit){ .name = strdup(name), .cap = limit->limit };
	*why = "out of memory";
	return list->items[list->count].name != NULL && ++list->count > 0 ? WEIR_OK : WEIR_NO_MEMORY;
}

static enum weir_result say(enum weir_result result, char *error, size_t error_size, const char *host, const char *why)
{
	if (error == NULL || error_size == 0)
		return result;
	if (host == NULL)
		snprintf(error, error_size, "%s", result == WEIR_OK ? "" : why);
	else
		snprintf(error, error_size, "\"%.*s\": %s", WEIR_HOST_MAX, host, why);
	return result;
}

enum weir_result weir_set_host_limits(struct weir *weir, const struct weir_limit *limits, size_t count, char *error,
                                      size_t error_size)
{
	struct host_limits list = { .items = NULL };
	enum weir_result result = WEIR_OK;
	const char *why;
	if (weir == NULL || (limits == NULL && count > 0))
		return say(WEIR_NOTHING, error, error_size, NULL, weir_result_text(WEIR_NOTHING));
	if (count > WEIR_LIMITS_MAX)
		return say(WEIR_BAD_LIMIT, error, error_size, NULL, weir_result_text(WEIR_BAD_LIMIT));
	list.items = calloc(count + 1, sizeof *list.items);
	if (list.items == NULL)
		return say(WEIR_NO_MEMORY, error, error_size, NULL, weir_result_text(WEIR_NO_MEMORY));
	for (size_t i = 0; result == WEIR_OK && i < count; i++) {
		result = add_limit(&list, &limits[i], &why);
		if (result != WEIR_OK)
			say(result, error, error_size, limits[i].host, why);
	}
	if (result == WEIR_OK) {
		result = change_limits(weir, &(struct change){ .all = &list });
		say(result, error, error_size, NULL, weir_result_text(result));
	}
	host_limits_free(&list);
	return result;
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* The first forward proxy's limits, copied. */
static enum weir_result copy_limits(struct weir *weir, unsigned *default_limit, struct host_limits *limits)
{
	struct roster_view view;
	enum weir_result result = WEIR_NO_FORWARD;
	if (weir == NULL)
		return WEIR_NOTHING;
	if (!roster_hold(services_roster(weir->services), &view))
		return WEIR_NO_MEMORY;
	for (size_t i = 0; i < view.count && result == WEIR_NO_FORWARD; i++)
		if (view.proxies[i]->hosts != NULL)
			result = hosts_limits(view.proxies[i]->hosts, default_limit, limits) == 0 ? WEIR_OK : WEIR_NO_MEMORY;
	roster_release(&view);
	return result;
}

long weir_default_limit(struct weir *weir)
{
	unsigned limit;
	struct host_limits limits;
	enum weir_result result = copy_limits(weir, &limit, &limits);
	if (result != WEIR_OK)
		return result;
	host_limits_free(&limits);
	return (long)limit;
}

long weir_host_limit(struct weir *weir, const char *host)
{
	unsigned limit;
	struct host_limits limits;
	char name[HOSTS_NAME_MAX];
	enum weir_result result = parse_host(host, name);
	if (result == WEIR_OK)
		result = copy_limits(weir, &limit, &limits);
	if (result != WEIR_OK)
		return result;
	for (size_t i = 0; i < limits.count; i++)
		if (strcmp(limits.items[i].name, name) == 0)
			limit = limits.items[i].cap;
	host_limits_free(&limits);
	return (long)limit;
}

/* What is open to targets of one service: a forward proxy's host by its name, a reverse proxy's target by what the
   caller wrote. */
static unsigned active(struct proxy *proxy, const char *name, const char *target)
{
	if (proxy->hosts != NULL)
		return target != NULL && name == NULL ? 0 : hosts_open(proxy->hosts, name);
	struct balancer_report *reports = proxy->packets == NULL ? calloc(BALANCER_TARGETS_MAX, sizeof *reports) : NULL;
	size_t count = reports == NULL ? 0 : balancer_report(proxy->balancer, reports, BALANCER_TARGETS_MAX);
	unsigned sum = 0;
	for (size_t i = 0; i < count && i < BALANCER_TARGETS_MAX; i++)
		if (target == NULL || strcmp(reports[i].name, target) == 0)
			sum += reports[i].active;
	free(reports);
	return sum;
}

static long sum_active(struct weir *weir, const char *name, const char *target)
{
	struct roster_view view;
	unsigned long sum = 0;
	if (!roster_hold_all(services_roster(weir->services), &view))
		return WEIR_NO_MEMORY;
	for (size_t i = 0; i < view.count; i++)
		sum += active(view.proxies[i], name, target);
	roster_release(&view);
	return (long)sum;
}

long weir_active_connections(struct weir *weir, const char *host)
{
	char name[HOSTS_NAME_MAX];
	if (weir == NULL)
		return WEIR_NOTHING;
	if (host == NULL)
		return sum_active(weir, NULL, NULL);
	bool is_unix = strncmp(host, "unix:", 5) == 0;
	if (!is_unix && parse_host(host, name) != WEIR_OK)
		return WEIR_BAD_HOST;
	return sum_active(weir, is_unix ? NULL : name, host);
}

long weir_host_limits(struct weir *weir, struct weir_host *out, size_t capacity)
{
	unsigned limit;
	struct host_limits limits;
	if (out == NULL && capacity > 0)
		return WEIR_NOTHING;
	enum weir_result result = copy_limits(weir, &limit, &limits);
	if (result != WEIR_OK)
		return result;
	for (size_t i = 0; i < limits.count && i < capacity; i++) {
		long count = sum_active(weir, limits.items[i].name, limits.items[i].name);
		out[i] = (struct weir_host){ .limit = limits.items[i].cap, .active = count > 0 ? (unsigned)count : 0 };
		snprintf(out[i].name, sizeof out[i].name, "%s", limits.items[i].name);
	}
	long count = (long)limits.count;
	host_limits_free(&limits);
	return count;
}
