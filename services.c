/* services.c: see services.h. A list of services, and nothing that belongs to the process: no signals, no globals, no exit. */
#include "services.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "lib/clock.h"
#include "lib/thread.h"
#include "proxy.h"
#include "roster.h"

#define RETRY_MS 10

struct service {
	struct service *next;
	struct roster *roster;
	struct proxy *proxy;
	uint64_t drain_us;
	uint64_t drain_deadline_us; /* while it drains */
	bool is_wanted;             /* by the configuration that is coming into force */
	/* A service that a reload has removed is brought to its end by a thread of its own: nobody else waits for it. */
	pthread_t finisher;
	bool has_finisher, none_cut;
	atomic_bool has_finished;
};

struct services {
	struct log *log;
	struct roster *roster;
	struct console *console;  /* the status page and the API; NULL: not wanted */
	struct service *running;  /* in the order of their making */
	struct service *draining; /* a reload has no more use for them */
};

static struct service *find(struct services *services, const char *name)
{
	struct service *service = services->running;
	while (service != NULL && name != NULL && strcmp(proxy_name(service->proxy), name) != 0)
		service = service->next;
	return service;
}

static struct service *create_service(struct services *services, struct settings *settings, char *error, size_t error_size)
{
	struct service *service = calloc(1, sizeof *service);
	if (service == NULL) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	service->proxy = proxy_create(settings, services->log, error, error_size);
	if (service->proxy == NULL) {
		free(service);
		return NULL;
	}
	service->roster = services->roster;
	service->drain_us = settings->drain_timeout_us;
	service->is_wanted = true;
	if (!roster_add(services->roster, service->proxy)) {
		snprintf(error, error_size, "out of memory");
		proxy_destroy(service->proxy);
		free(service);
		return NULL;
	}
	struct service **place = &services->running;
	while (*place != NULL)
		place = &(*place)->next;
	*place = service;
	return service;
}

static void drain(struct service *service)
{
	service->drain_deadline_us = clock_us() + service->drain_us;
	proxy_drain(service->proxy);
}

static void *run_to_its_end(void *argument)
{
	struct service *service = argument;
	service->none_cut = proxy_finish(service->proxy, service->drain_deadline_us);
	roster_remove(service->roster, service->proxy);
	proxy_destroy(service->proxy);
	atomic_store(&service->has_finished, true);
	return NULL;
}

/* Waits for the end of a service that drains. */
static bool finish(struct service *service)
{
	if (service->has_finisher)
		pthread_join(service->finisher, NULL);
	else
		run_to_its_end(service);
	bool none_cut = service->none_cut;
	free(service);
	return none_cut;
}

static void abandon(struct services *services)
{
	services_stop(services, 0);
	services_destroy(services);
}

struct services *services_create(const struct configuration *configuration, struct log *log, char *error, size_t error_size)
{
	struct services *services = calloc(1, sizeof *services);
	if (services == NULL) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	services->log = log;
	services->roster = roster_create(log);
	if (services->roster == NULL) {
		snprintf(error, error_size, "out of memory");
		free(services);
		return NULL;
	}
	const struct settings_globals *globals = &configuration->globals;
	if (globals->admin != NULL) {
		services->console = console_open(services->roster, globals->admin, globals->admin_token, NULL, error, error_size);
		if (services->console == NULL) {
			abandon(services);
			return NULL;
		}
	}
	for (size_t i = 0; i < configuration->service_count; i++) {
		if (create_service(services, configuration->services[i], error, error_size) != NULL)
			continue;
		abandon(services);
		return NULL;
	}
	return services;
}

bool services_start(struct services *services, char *error, size_t error_size)
{
	for (struct service *service = services->running; service != NULL; service = service->next)
		if (!proxy_start(service->proxy, error, error_size))
			return false;
	return services->console == NULL || console_start(services->console, error, error_size);
}

/* Moves services that are wanted no more over to those that drain. */
static void drain_unwanted(struct services *services)
{
	struct service **place = &services->running;
	while (*place != NULL) {
		struct service *service = *place;
		if (service->is_wanted) {
			place = &service->next;
			continue;
		}
		*place = service->next;
		service->next = services->draining;
		services->draining = service;
		drain(service);
	}
}

/* Those that drain while others run are waited for in the background. Without a thread for that, the next reload looks
   after them. */
static void finish_in_background(struct services *services)
{
	for (struct service *service = services->draining; service != NULL; service = service->next)
		if (!service->has_finisher)
			service->has_finisher = thread_start(&service->finisher, run_to_its_end, service) == 0;
}

/* Frees those that have drained. */
static void finish_drained(struct services *services)
{
	struct service **place = &services->draining;
	while (*place != NULL) {
		struct service *service = *place;
		bool is_over = service->has_finisher ? atomic_load(&service->has_finished) :
		                                       clock_us() >= service->drain_deadline_us;
		if (!is_over) {
			place = &service->next;
			continue;
		}
		*place = service->next;
		finish(service);
	}
}

/* What went wrong first is what is told: the next service's room rules over its own line of error, good or bad. */
struct trouble {
	bool is_there;
	char first[SETTINGS_ERROR_MAX + 128];
};

static void note(struct trouble *trouble, const struct settings *settings, const char *error)
{
	if (!trouble->is_there)
		snprintf(trouble->first, sizeof trouble->first, "[%.100s] %s", settings->name, error);
	trouble->is_there = true;
}

static void note_line(struct trouble *trouble, const char *error)
{
	if (!trouble->is_there)
		snprintf(trouble->first, sizeof trouble->first, "%.1000s", error);
	trouble->is_there = true;
}

/* Those that run already take on their new settings. */
static void change_services(struct services *services, const struct configuration *configuration, struct trouble *trouble)
{
	char error[SETTINGS_ERROR_MAX];
	for (size_t i = 0; i < configuration->service_count; i++) {
		struct settings *settings = configuration->services[i];
		struct service *service = find(services, settings->name);
		if (service == NULL)
			continue;
		service->is_wanted = true;
		if (proxy_reload(service->proxy, settings, error, sizeof error))
			service->drain_us = settings->drain_timeout_us;
		else
			note(trouble, settings, error);
	}
}

/* Those that do not run yet start. */
static void start_missing(struct services *services, const struct configuration *configuration, struct trouble *trouble)
{
	char error[SETTINGS_ERROR_MAX];
	for (size_t i = 0; i < configuration->service_count; i++) {
		struct settings *settings = configuration->services[i];
		if (find(services, settings->name) != NULL)
			continue;
		struct service *service = create_service(services, settings, error, sizeof error);
		bool has_started = service != NULL && proxy_start(service->proxy, error, sizeof error);
		if (service != NULL)
			service->is_wanted = has_started; /* one that can't start has nobody to wait for, and drains */
		if (!has_started)
			note(trouble, settings, error);
	}
}

/* Another admin address or token: the new one is opened before the old one closes, so that there is always one; at the same address
   the old one has to go first. */
static void change_console(struct services *services, const struct settings_globals *globals, struct trouble *trouble)
{
	char error[SETTINGS_ERROR_MAX];
	struct console *before = services->console, *console = NULL;
	if (before != NULL && globals->admin != NULL && console_is(before, globals->admin, globals->admin_token))
		return;
	if (before != NULL && (globals->admin == NULL || console_is_at(before, globals->admin))) {
		console_stop(before);
		before = services->console = NULL;
	}
	if (globals->admin == NULL)
		return;
	console = console_open(services->roster, globals->admin, globals->admin_token, before, error, sizeof error);
	if (console != NULL && console_start(console, error, sizeof error)) {
		console_stop(before);
		services->console = console;
		return;
	}
	console_stop(console);
	note_line(trouble, error);
}

static void change_all(struct services *services, const struct configuration *configuration, struct trouble *trouble)
{
	struct trouble at_first = { .is_there = false };
	finish_drained(services);
	for (struct service *service = services->running; service != NULL; service = service->next)
		service->is_wanted = false;
	change_services(services, configuration, trouble);
	start_missing(services, configuration, &at_first);
	drain_unwanted(services);
	/* A stanza that was renamed finds its port taken by the one that it was: that has let go of it now. */
	if (at_first.is_there)
		start_missing(services, configuration, trouble);
	drain_unwanted(services);
	finish_in_background(services);
}

/* The admin server changes when the turn is over: to end the old one means to wait for its threads, and those may wait for the turn. */
bool services_reload(struct services *services, const struct configuration *configuration, char *error, size_t error_size)
{
	struct trouble trouble = { .is_there = false };
	roster_begin_change(services->roster, CLOCK_NEVER);
	change_all(services, configuration, &trouble);
	roster_end_change(services->roster);
	change_console(services, &configuration->globals, &trouble);
	if (trouble.is_there)
		snprintf(error, error_size, "%s", trouble.first);
	roster_note_reload(services->roster, !trouble.is_there);
	return !trouble.is_there;
}

void services_reload_refused(struct services *services)
{
	roster_note_reload(services->roster, false);
}

/* Ends those that nobody else ends. */
static bool finish_own(struct services *services, uint64_t deadline_us)
{
	bool none_cut = true;
	struct service **place = &services->draining;
	while (*place != NULL) {
		struct service *service = *place;
		if (service->has_finisher) {
			place = &service->next;
			continue;
		}
		*place = service->next;
		if (deadline_us != SERVICES_DRAIN_TIMEOUT)
			service->drain_deadline_us = deadline_us;
		none_cut = finish(service) && none_cut;
	}
	return none_cut;
}

bool services_stop(struct services *services, uint64_t deadline_us)
{
	roster_note_drain(services->roster);
	for (struct service *service = services->running; service != NULL; service = service->next)
		service->is_wanted = false;
	drain_unwanted(services);
	bool none_cut = finish_own(services, deadline_us);
	/* Those that a reload has let go have a thread and a deadline of their own; ours may be nearer. */
	if (!roster_wait_empty(services->roster, deadline_us))
		services_cut(services);
	while (services->draining != NULL) {
		struct service *service = services->draining;
		services->draining = service->next;
		none_cut = finish(service) && none_cut;
	}
	console_stop(services->console); /* the last: until here it says that weir drains */
	services->console = NULL;
	return none_cut;
}

void services_cut(struct services *services)
{
	struct roster_view view;
	while (!roster_hold_all(services->roster, &view))
		poll(NULL, 0, RETRY_MS); /* out of memory: others will give some back */
	for (size_t i = 0; i < view.count; i++)
		proxy_cut(view.proxies[i]);
	roster_release(&view);
}

void services_destroy(struct services *services)
{
	roster_destroy(services->roster);
	free(services);
}

struct roster *services_roster(struct services *services)
{
	return services->roster;
}
