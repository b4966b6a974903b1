/* weir.c: see weir.h. A list of services, and nothing that belongs to the process: no signals, no globals, no exit. */
#include "weir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "proxy.h"

struct service {
	struct service *next;
	struct proxy *proxy;
	uint64_t drain_us;
	uint64_t drain_deadline_us; /* while it drains */
	bool is_wanted;             /* by the configuration that is coming into force */
};

struct weir {
	struct log *log;
	struct service *running;
	struct service *draining; /* a reload has no more use for them */
};

static struct service *find(struct weir *weir, const char *name)
{
	struct service *service = weir->running;
	while (service != NULL && name != NULL && strcmp(proxy_name(service->proxy), name) != 0)
		service = service->next;
	return service;
}

static bool create_service(struct weir *weir, struct settings *settings, char *error, size_t error_size)
{
	struct service *service = calloc(1, sizeof *service);
	if (service == NULL) {
		snprintf(error, error_size, "out of memory");
		return false;
	}
	service->proxy = proxy_create(settings, weir->log, error, error_size);
	if (service->proxy == NULL) {
		free(service);
		return false;
	}
	service->drain_us = settings->drain_timeout_us;
	service->is_wanted = true;
	service->next = weir->running;
	weir->running = service;
	return true;
}

static void drain(struct service *service)
{
	service->drain_deadline_us = clock_us() + service->drain_us;
	proxy_drain(service->proxy);
}

/* Waits for the end of a service that drains. */
static bool finish(struct service *service)
{
	bool none_cut = proxy_finish(service->proxy, service->drain_deadline_us);
	proxy_destroy(service->proxy);
	free(service);
	return none_cut;
}

struct weir *weir_create(const struct configuration *configuration, struct log *log, char *error, size_t error_size)
{
	struct weir *weir = calloc(1, sizeof *weir);
	if (weir == NULL) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	weir->log = log;
	for (size_t i = 0; i < configuration->service_count; i++) {
		if (create_service(weir, configuration->services[i], error, error_size))
			continue;
		weir_stop(weir);
		return NULL;
	}
	return weir;
}

bool weir_start(struct weir *weir, char *error, size_t error_size)
{
	for (struct service *service = weir->running; service != NULL; service = service->next)
		if (!proxy_start(service->proxy, error, error_size))
			return false;
	return true;
}

/* Moves services that are wanted no more over to those that drain. */
static void drain_unwanted(struct weir *weir)
{
	struct service **place = &weir->running;
	while (*place != NULL) {
		struct service *service = *place;
		if (service->is_wanted) {
			place = &service->next;
			continue;
		}
		*place = service->next;
		service->next = weir->draining;
		weir->draining = service;
		drain(service);
	}
}

/* Frees those whose time to drain is over. */
static void finish_drained(struct weir *weir)
{
	struct service **place = &weir->draining;
	while (*place != NULL) {
		struct service *service = *place;
		if (clock_us() < service->drain_deadline_us) {
			place = &service->next;
			continue;
		}
		*place = service->next;
		finish(service);
	}
}

bool weir_reload(struct weir *weir, const struct configuration *configuration, char *error, size_t error_size)
{
	bool good = true;
	finish_drained(weir);
	for (struct service *service = weir->running; service != NULL; service = service->next)
		service->is_wanted = false;
	for (size_t i = 0; i < configuration->service_count; i++) {
		struct settings *settings = configuration->services[i];
		struct service *service = find(weir, settings->name);
		if (service == NULL) {
			/* A new one stands first in the list. One that can't start drains at once, with nobody to wait for. */
			bool made = create_service(weir, settings, error, error_size);
			bool started = made && proxy_start(weir->running->proxy, error, error_size);
			if (made)
				weir->running->is_wanted = started;
			good = good && started;
			continue;
		}
		service->is_wanted = true;
		if (proxy_reload(service->proxy, settings, error, error_size))
			service->drain_us = settings->drain_timeout_us;
		else
			good = false;
	}
	drain_unwanted(weir);
	return good;
}

bool weir_stop(struct weir *weir)
{
	bool none_cut = true;
	for (struct service *service = weir->running; service != NULL; service = service->next)
		service->is_wanted = false;
	drain_unwanted(weir);
	while (weir->draining != NULL) {
		struct service *service = weir->draining;
		weir->draining = service->next;
		none_cut = finish(service) && none_cut;
	}
	free(weir);
	return none_cut;
}

unsigned weir_port(struct weir *weir, const char *service)
{
	struct service *found = find(weir, service);
	return found == NULL ? 0 : proxy_port(found->proxy);
}
