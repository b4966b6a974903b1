/* status.c: see status.h. */
#include "status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "host_rates.h"
#include "lib/clock.h"
#include "lib/text.h"
#include "service.h"
#include "switch.h"

/* How much of a long list is shown: the API's readers may be slow, the page's are people. */
#define API_HOSTS_MAX 1000u
#define PAGE_ROWS_MAX 100u
#define PAGE_RECORDS_MAX 50u
/* Records that are asked for with each look: ten looks a second show up to this much each. */
#define PAGE_RECORDS_ASKED 12

json_t *status_text(const char *text)
{
	char clean[1024];
	text_clean(text, strlen(text), clean, sizeof clean);
	return json_string(clean);
}

static json_t *count_of(uint64_t number)
{
	return json_integer((json_int_t)number);
}

/* A whole number as one, for "2" and "2.0" are the same to most readers and not to all. */
static json_t *seconds_of(uint64_t us)
{
	return us % US_PER_S == 0 ? json_integer((json_int_t)(us / US_PER_S)) : json_real((double)us / 1e6);
}

/* ---- targets -------------------------------------------------------------------------------------------------------- */

static const char *state_name(enum balancer_state state)
{
	return state == BALANCER_IN ? "in" : state == BALANCER_OUT ? "out" : "drain";
}

static json_t *write_target(const struct balancer_report *report, uint64_t now_us)
{
	json_t *target = json_object();
	json_object_set_new(target, "address", status_text(report->name));
	json_object_set_new(target, "state", json_string(state_name(report->state)));
	json_object_set_new(target, "weight", count_of(report->weight));
	json_object_set_new(target, "active", count_of(report->active));
	json_object_set_new(target, "requests_total", count_of(report->requests_total));
	json_object_set_new(target, "failures_total", count_of(report->failures_total));
	json_object_set_new(target, "probing", json_boolean(report->probing));
	json_object_set_new(target, "next", json_boolean(report->is_next));
	if (report->next_probe_us > 0 && report->state == BALANCER_OUT)
		json_object_set_new(target, "next_probe_s",
		                    json_real(report->next_probe_us > now_us ? (double)(report->next_probe_us - now_us) / 1e6 : 0));
	return target;
}

static void add_latency(json_t *target, const struct upstream_report *report)
{
	if (report == NULL)
		return;
	json_object_set_new(target, "answers_total", count_of(report->answers_total));
	json_object_set_new(target, "answers_s", json_real((double)report->answers_us / 1e6));
}

static void add_targets(json_t *service, struct proxy *proxy, uint64_t now_us, size_t most)
{
	json_t *targets = json_array();
	struct balancer_report *reports = calloc(BALANCER_TARGETS_MAX, sizeof *reports);
	struct upstream_report *latencies = calloc(2 * BALANCER_TARGETS_MAX, sizeof *latencies);
	size_t count = 0;
	if (reports != NULL && latencies != NULL) {
		size_t known = upstreams_report(proxy->upstreams, latencies, 2 * BALANCER_TARGETS_MAX);
		count = balancer_report(proxy->balancer, reports, BALANCER_TARGETS_MAX);
		for (size_t i = 0; i < count && i < most; i++) {
			json_t *target = write_target(&reports[i], now_us);
			add_latency(target, upstream_report_find(latencies, known, reports[i].name));
			json_array_append_new(targets, target);
		}
	}
	free(reports);
	free(latencies);
	json_object_set_new(service, "targets", targets);
	if (count > most)
		json_object_set_new(service, "targets_more", count_of(count - most));
}

/* The servers that have set themselves up. */
static void add_servers(json_t *service, struct proxy *proxy, uint64_t now_us, size_t most)
{
	json_t *targets = json_array();
	struct packet_switch_row *rows = calloc(SWITCH_SERVERS_MAX, sizeof *rows);
	size_t count = rows == NULL ? 0 : packet_switch_report(proxy->packets, rows, SWITCH_SERVERS_MAX);
	for (size_t i = 0; i < count && i < most; i++) {
		json_t *target = write_target(&rows[i].report, now_us);
		json_object_set_new(target, "address", status_text(rows[i].address));
		json_object_set_new(target, "id", status_text(rows[i].id));
		json_object_set_new(target, "policy", status_text(rows[i].policy));
		json_array_append_new(targets, target);
	}
	free(rows);
	json_object_set_new(service, "targets", targets);
	if (count > most)
		json_object_set_new(service, "targets_more", count_of(count - most));
}

/* ---- hosts ---------------------------------------------------------------------------------------------------------- */

static int compare_hosts(const void *one, const void *other)
{
	const struct hosts_report_row *a = one, *b = other;
	if (a->waiting != b->waiting)
		return a->waiting > b->waiting ? -1 : 1;
	return a->open != b->open ? (a->open > b->open ? -1 : 1) : strcmp(a->name, b->name);
}

static void add_hosts(json_t *service, struct proxy *proxy, size_t most)
{
	json_t *hosts = json_array();
	struct hosts_totals totals = { .hosts = 0 };
	size_t count = 0, room = 0;
	struct hosts_report_row *rows = NULL;
	if (proxy->hosts != NULL) {
		room = hosts_report(proxy->hosts, NULL, 0, &totals) + 64;
		rows = calloc(room, sizeof *rows);
	}
	if (rows != NULL) {
		count = hosts_report(proxy->hosts, rows, room, &totals);
		count = count < room ? count : room;
		qsort(rows, count, sizeof *rows, compare_hosts);
	}
	for (size_t i = 0; i < count && i < most; i++) {
		json_t *host = json_object();
		json_object_set_new(host, "host", status_text(rows[i].name));
		json_object_set_new(host, "active", count_of(rows[i].open));
		json_object_set_new(host, "limit", count_of(rows[i].limit));
		json_object_set_new(host, "idle", count_of(rows[i].idle));
		json_object_set_new(host, "waiting", count_of(rows[i].waiting));
		json_array_append_new(hosts, host);
	}
	free(rows);
	json_object_set_new(service, "hosts", hosts);
	if (count > most)
		json_object_set_new(service, "hosts_more", count_of(count - most));
}

/* ---- the group ------------------------------------------------------------------------------------------------------ */

/* "group": {"address","self","master","epoch","nodes":[{"id","state","age_ms","started_total"}]}. A service that shares its threshold
   with nobody has none: then nothing is written. */
static void add_group(json_t *service, struct proxy *proxy)
{
	static const char *const states[] = { [CLUSTER_ALIVE] = "alive", [CLUSTER_DEAD] = "dead", [CLUSTER_ASIDE] = "aside" };
	struct group_report *report = calloc(1, sizeof *report);
	if (report != NULL)
		group_report(proxy->group, report);
	if (report == NULL || !report->is_member) {
		free(report);
		return;
	}
	const struct cluster_report *cluster = &report->cluster;
	json_t *group = json_object(), *nodes = json_array();
	for (unsigned i = 0; i < cluster->node_count; i++)
		json_array_append_new(nodes, json_pack("{s:i, s:s, s:I, s:I, s:i, s:i}", "id", (int)cluster->nodes[i].id, "state",
		                                       states[cluster->nodes[i].state], "age_ms",
		                                       (json_int_t)(cluster->nodes[i].age_us / 1000), "started_total",
		                                       (json_int_t)cluster->nodes[i].started_total, "waiting",
		                                       (int)cluster->nodes[i].waiting, "granted", (int)cluster->nodes[i].granted));
	json_object_set_new(group, "address", status_text(report->address));
	json_object_set_new(group, "self", count_of(cluster->self));
	json_object_set_new(group, "master", cluster->master == 0 ? json_null() : count_of(cluster->master));
	json_object_set_new(group, "epoch", count_of(cluster->epoch));
	json_object_set_new(group, "giving", json_boolean(cluster->is_giving));
	json_object_set_new(group, "elections_total", count_of(cluster->elections_total));
	json_object_set_new(group, "nodes", nodes);
	json_object_set_new(service, "group", group);
	free(report);
}

/* ---- what was done -------------------------------------------------------------------------------------------------- */

static json_t *write_times(const struct histogram_sum *sum, enum status_form form)
{
	json_t *times = json_object();
	json_object_set_new(times, "count", count_of(sum->count));
	json_object_set_new(times, "sum_s", json_real((double)sum->total_us / 1e6));
	json_object_set_new(times, "p50_s", json_real((double)histogram_quantile_us(sum, 0.5) / 1e6));
	json_object_set_new(times, "p95_s", json_real((double)histogram_quantile_us(sum, 0.95) / 1e6));
	if (form == STATUS_API)
		return times;
	json_t *buckets = json_array(); /* the page works out what was now, from two looks */
	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
		json_array_append_new(buckets, count_of(sum->buckets[i]));
	json_object_set_new(times, "buckets", buckets);
	return times;
}

static void add_meters(json_t *service, struct proxy *proxy, enum status_form form)
{
	static const char *const names[] = { [METER_TOTAL] = "total", [METER_UPSTREAM] = "upstream", [METER_WAIT] = "wait" };
	static const char *const classes[] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };
	struct meters_report report;
	meters_report(proxy->meters, &report);
	json_t *answers = json_object(), *times = json_object(), *refusals = json_object();
	for (size_t i = 0; i < METER_CLASSES; i++)
		json_object_set_new(answers, classes[i], count_of(report.classes[i]));
	for (size_t i = 0; i < METER_TIMES; i++)
		json_object_set_new(times, names[i], write_times(&report.times[i], form));
	for (size_t i = 0; i < report.refusal_count; i++) {
		char name[METER_NAME_MAX];
		text_clean(report.refusals[i].name, strlen(report.refusals[i].name), name, sizeof name);
		json_object_set_new(refusals, name, count_of(report.refusals[i].count));
	}
	json_object_set_new(service, "answers", answers);
	json_object_set_new(service, "times", times);
	json_object_set_new(service, "refusals", refusals);
}

static void add_clients(json_t *service, struct proxy *proxy)
{
	struct client_limits_report report;
	client_limits_report(proxy->client_limits, &report);
	json_object_set_new(service, "clients", json_pack("{s:I, s:I}", "known", (json_int_t)report.keys, "forgotten_total",
	                                                  (json_int_t)report.forgotten_total));
}

/* How many hosts have a rate that matters now. */
static void add_host_rates(json_t *service, struct proxy *proxy)
{
	struct host_rates_report report;
	if (proxy->host_rates == NULL)
		return;
	host_rates_report(proxy->host_rates, &report);
	json_object_set_new(service, "host_rates", json_pack("{s:I, s:I}", "hosts", (json_int_t)report.hosts, "full_total",
	                                                     (json_int_t)report.full_total));
}

static json_t *write_record(const struct recent_record *record)
{
	return json_pack("{s:I, s:I, s:s, s:s, s:s, s:s, s:i, s:f, s:f, s:s, s:s}", "number", (json_int_t)record->number, "at_ms",
	                 (json_int_t)record->ended_ms, "client", record->client, "method", record->method, "uri", record->uri,
	                 "target", record->target, "status", record->status, "wait_s", (double)record->wait_us / 1e6, "total_s",
	                 (double)record->total_us / 1e6, "refused_by", record->refused_by, "outcome", record->outcome);
}

static void add_recent(json_t *service, struct proxy *proxy)
{
	json_t *requests = json_array();
	struct recent_record *records = calloc(PAGE_RECORDS_MAX, sizeof *records);
	size_t count = records == NULL ? 0 : recent_read(proxy->recent, 0, records, PAGE_RECORDS_MAX);
	for (size_t i = 0; i < count; i++)
		json_array_append_new(requests, write_record(&records[i]));
	free(records);
	recent_ask(proxy->recent, PAGE_RECORDS_ASKED);
	json_object_set_new(service, "requests", requests);
}

/* ---- a service, and all of them --------------------------------------------------------------------------------------- */

static void add_limits(json_t *service, struct proxy *proxy, const struct settings *settings, uint64_t now_us)
{
	struct limiter_report limits;
	limiter_report(proxy->limiter, now_us, &limits);
	json_object_set_new(service, "threshold", count_of(settings->threshold.count));
	json_object_set_new(service, "window_s", seconds_of(settings->threshold.window_us));
	json_object_set_new(service, "burst", count_of(settings->burst));
	json_object_set_new(service, "backlog", seconds_of(settings->backlog_us));
	json_object_set_new(service, "backlog_requests", count_of(settings->backlog_requests));
	json_object_set_new(service, "waiting", count_of(limits.waiting));
	json_object_set_new(service, "started_total", count_of(limits.started_total));
	json_object_set_new(service, "refused_total", count_of(atomic_load(&proxy->refused_total)));
	json_object_set_new(service, "cancelled_total", count_of(limits.cancelled_total));
	json_object_set_new(service, "outstanding", count_of(limits.outstanding));
	json_object_set_new(service, "in_window", count_of(limits.in_window));
	json_object_set_new(service, "available", limits.available == UINT32_MAX ? json_null() : count_of(limits.available));
}

static json_t *write_service(struct proxy *proxy, enum status_form form)
{
	static const char *const modes[] = { [MODE_REVERSE] = "reverse", [MODE_FORWARD] = "forward", [MODE_PACKET] = "packet" };
	unsigned generation;
	uint64_t now_us = clock_us();
	json_t *service = json_object();
	struct settings *settings = service_settings(proxy, &generation);
	json_object_set_new(service, "at_ms", count_of(now_us / 1000));
	json_object_set_new(service, "name", status_text(proxy_name(proxy)));
	json_object_set_new(service, "mode", json_string(modes[settings->mode]));
	json_object_set_new(service, "port", count_of(proxy_port(proxy)));
	json_object_set_new(service, "draining", json_boolean(atomic_load(&proxy->is_draining)));
	json_object_set_new(service, "connections", count_of(service_connections(proxy)));
	json_object_set_new(service, "requests_total", count_of(atomic_load(&proxy->requests_total)));
	json_object_set_new(service, "answered_here_total", count_of(atomic_load(&proxy->answered_total)));
	json_object_set_new(service, "shadowed_total", count_of(atomic_load(&proxy->shadowed_total)));
	add_limits(service, proxy, settings, now_us);
	if (proxy->packets != NULL)
		add_servers(service, proxy, now_us, form == STATUS_API ? SIZE_MAX : PAGE_ROWS_MAX);
	else
		add_targets(service, proxy, now_us, form == STATUS_API ? SIZE_MAX : PAGE_ROWS_MAX);
	add_hosts(service, proxy, form == STATUS_API ? API_HOSTS_MAX : PAGE_ROWS_MAX);
	add_meters(service, proxy, form);
	add_clients(service, proxy);
	add_host_rates(service, proxy);
	add_group(service, proxy);
	if (form == STATUS_PAGE)
		add_recent(service, proxy);
	if (form != STATUS_API) /* tells it from one of the same name that was there before */
		json_object_set_new(service, "since_ms", count_of(proxy->started_us / 1000));
	settings_release(settings);
	return service;
}

static json_int_t wall_clock_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The last lines of the log. */
static json_t *write_events(struct log *log)
{
	static const char *const levels[] = { "debug", "info", "warn", "error" };
	json_t *list = json_array();
	struct log_event *events = calloc(LOG_EVENTS_MAX, sizeof *events);
	size_t count = events == NULL ? 0 : log_events(log, events, LOG_EVENTS_MAX);
	for (size_t i = 0; i < count; i++) {
		json_array_append_new(list, json_pack("{s:I, s:I, s:s, s:s, s:s}", "number", (json_int_t)events[i].number, "at_ms",
		                                      (json_int_t)events[i].time_ms, "level", levels[events[i].level], "service",
		                                      events[i].service, "text", events[i].text));
	}
	free(events);
	return list;
}

json_t *status_write(struct proxy *const *proxies, size_t count, const struct roster_facts *facts, enum status_form form)
{
	json_t *services = json_array(), *status = json_object();
	json_object_set_new(status, "version", json_string(WEIR_VERSION));
	json_object_set_new(status, "uptime_s", json_integer((json_int_t)((clock_us() - facts->started_us) / US_PER_S)));
	json_object_set_new(status, "draining", json_boolean(facts->is_draining));
	json_object_set_new(status, "last_reload_good", json_boolean(facts->last_reload_is_good));
	for (size_t i = 0; i < count; i++)
		json_array_append_new(services, write_service(proxies[i], form));
	json_object_set_new(status, "services", services);
	if (form == STATUS_PAGE)
		json_object_set_new(status, "events", write_events(facts->log));
	if (form != STATUS_API) {
		json_t *bounds = json_array();
		for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++)
			json_array_append_new(bounds, json_real((double)histogram_bounds_us[i] / 1e6));
		json_object_set_new(status, "bounds_s", bounds);
		json_object_set_new(status, "at_ms", count_of(clock_us() / 1000));
		json_object_set_new(status, "since_ms", count_of(facts->started_us / 1000));
		json_object_set_new(status, "time_ms", json_integer(wall_clock_ms()));
	}
	return status;
}

bool status_is_ready(struct proxy *const *proxies, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		bool takes_all = proxies[i]->hosts != NULL || proxies[i]->packets != NULL;
		if (!atomic_load(&proxies[i]->is_draining) && (takes_all || balancer_any_in(proxies[i]->balancer)))
			return true;
	}
	return false;
}

/* ---- what can be changed ---------------------------------------------------------------------------------------------- */

/* As it is to be written in a PUT: a number when the window is a second. */
static json_t *threshold_text(const struct settings_rate *rate)
{
	static const struct {
		uint64_t us;
		const char *unit;
	} units[] = { { 60 * US_PER_S, "m" }, { 3600 * US_PER_S, "h" }, { 86400 * US_PER_S, "d" } };
	char text[64];
	if (rate->count == 0 || rate->window_us == US_PER_S)
		return json_integer(rate->count);
	snprintf(text, sizeof text, "%u in %g s", rate->count, (double)rate->window_us / 1e6);
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
		if (units[i].us == rate->window_us)
			snprintf(text, sizeof text, "%u/%s", rate->count, units[i].unit);
	return json_string(text);
}

static json_t *write_caps(struct proxy *proxy, unsigned *default_cap)
{
	json_t *hosts = json_object();
	struct host_limits limits = { .items = NULL };
	*default_cap = 0;
	if (proxy->hosts != NULL && hosts_limits(proxy->hosts, default_cap, &limits) == 0) {
		for (size_t i = 0; i < limits.count; i++)
			json_object_set_new(hosts, limits.items[i].name, json_integer(limits.items[i].cap));
		host_limits_free(&limits);
	}
	return hosts;
}

json_t *status_limits(struct proxy *const *proxies, size_t count)
{
	json_t *services = json_array();
	for (size_t i = 0; i < count; i++) {
		unsigned generation, default_cap;
		struct settings *settings = service_settings(proxies[i], &generation);
		json_t *hosts = write_caps(proxies[i], &default_cap), *service = json_object();
		json_object_set_new(service, "name", status_text(proxy_name(proxies[i])));
		json_object_set_new(service, "threshold", threshold_text(&settings->threshold));
		json_object_set_new(service, "default", json_integer(default_cap));
		json_object_set_new(service, "hosts", hosts);
		json_array_append_new(services, service);
		settings_release(settings);
	}
	return json_pack("{s:o}", "services", services);
}

json_t *status_targets(struct proxy *const *proxies, size_t count)
{
	json_t *services = json_array();
	for (size_t i = 0; i < count; i++) {
		json_t *service = json_object();
		json_object_set_new(service, "name", status_text(proxy_name(proxies[i])));
		if (proxies[i]->packets != NULL)
			add_servers(service, proxies[i], clock_us(), SIZE_MAX);
		else
			add_targets(service, proxies[i], clock_us(), SIZE_MAX);
		json_array_append_new(services, service);
	}
	return json_pack("{s:o}", "services", services);
}
