/* metrics.c: see metrics.h.
 *
 * All samples of a family stand together, and a family is asked of every service: so every service's reports are taken first, then the
 * families are written one after the other. */
#include "metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "host_rates.h"
#include "lib/clock.h"
#include "service.h"
#include "switch.h"

#define HOSTS_NAMED 100u
#define LABEL_MAX 640u

struct measured_target {
	char label[LABEL_MAX];
	struct balancer_report report;
	uint64_t answers_total, answers_us;
};

/* All that is known of one service, at about one moment. */
struct measured {
	struct proxy *proxy;
	char label[LABEL_MAX]; /* its name, escaped */
	struct settings *settings; /* held */
	struct limiter_report limits;
	struct meters_report meters;
	struct client_limits_report clients;
	struct redis_store_report store;
	unsigned connections;
	struct measured_target *targets;
	size_t target_count;
	struct hosts_report_row *hosts; /* the busiest first */
	size_t host_count;
	struct hosts_totals host_totals;
	struct group_report *group; /* NULL: no memory */
};

/* ---- words ---------------------------------------------------------------------------------------------------------- */

/* A label's value: valid UTF-8, with \ " and line ends escaped. */
static void escape_label(const char *value, char out[LABEL_MAX])
{
	char clean[300];
	size_t used = 0;
	text_clean(value, strlen(value), clean, sizeof clean);
	for (const char *at = clean; *at != '\0' && used + 2 < LABEL_MAX; at++) {
		if (*at == '\\' || *at == '"')
			out[used++] = '\\';
		out[used++] = *at;
	}
	out[used] = '\0';
}

static void family(struct text *out, const char *name, const char *type, const char *help)
{
	text_add(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(struct text *out, const char *name, const struct measured *m, double value)
{
	text_add(out, "%s{service=\"%s\"} %.17g\n", name, m->label, value);
}

/* ---- measuring ------------------------------------------------------------------------------------------------------ */

static void measure_targets(struct measured *m)
{
	struct balancer_report *reports = calloc(BALANCER_TARGETS_MAX, sizeof *reports);
	struct upstream_report *latencies = calloc(2 * BALANCER_TARGETS_MAX, sizeof *latencies);
	m->targets = calloc(BALANCER_TARGETS_MAX, sizeof *m->targets);
	if (reports != NULL && latencies != NULL && m->targets != NULL) {
		size_t known = upstreams_report(m->proxy->upstreams, latencies, 2 * BALANCER_TARGETS_MAX);
		m->target_count = balancer_report(m->proxy->balancer, reports, BALANCER_TARGETS_MAX);
		for (size_t i = 0; i < m->target_count; i++) {
			const struct upstream_report *latency = upstream_report_find(latencies, known, reports[i].name);
			m->targets[i].report = reports[i];
			escape_label(reports[i].name, m->targets[i].label);
			m->targets[i].answers_total = latency != NULL ? latency->answers_total : 0;
			m->targets[i].answers_us = latency != NULL ? latency->answers_us : 0;
		}
	}
	free(reports);
	free(latencies);
}

static void measure_servers(struct measured *m)
{
	struct packet_switch_row *rows = calloc(SWITCH_SERVERS_MAX, sizeof *rows);
	m->targets = calloc(SWITCH_SERVERS_MAX, sizeof *m->targets);
	if (rows != NULL && m->targets != NULL) {
		m->target_count = packet_switch_report(m->proxy->packets, rows, SWITCH_SERVERS_MAX);
		for (size_t i = 0; i < m->target_count; i++) {
			char name[PACKET_ID_MAX + ADDRESS_TEXT_MAX + 8];
			snprintf(name, sizeof name, "%s at %s", rows[i].id, rows[i].address);
			escape_label(name, m->targets[i].label);
			m->targets[i].report = rows[i].report;
		}
	}
	free(rows);
}

static int compare_hosts(const void *one, const void *other)
{
	const struct hosts_report_row *a = one, *b = other;
	return a->open != b->open ? (a->open > b->open ? -1 : 1) : strcmp(a->name, b->name);
}

static void measure_hosts(struct measured *m)
{
	size_t room = hosts_report(m->proxy->hosts, NULL, 0, &m->host_totals) + 64;
	m->hosts = calloc(room, sizeof *m->hosts);
	if (m->hosts == NULL)
		return;
	size_t count = hosts_report(m->proxy->hosts, m->hosts, room, &m->host_totals);
	m->host_count = count < room ? count : room;
	qsort(m->hosts, m->host_count, sizeof *m->hosts, compare_hosts);
}

static void measure(struct proxy *proxy, struct measured *m)
{
	unsigned generation;
	m->proxy = proxy;
	escape_label(proxy_name(proxy), m->label);
	m->settings = service_settings(proxy, &generation);
	limiter_report(proxy->limiter, clock_us(), &m->limits);
	meters_report(proxy->meters, &m->meters);
	client_limits_report(proxy->client_limits, &m->clients);
	if (proxy->store != NULL)
		redis_store_report(proxy->store, &m->store);
	m->connections = service_connections(proxy);
	if (proxy->packets != NULL)
		measure_servers(m);
	else
		measure_targets(m);
	if (proxy->hosts != NULL)
		measure_hosts(m);
	m->group = calloc(1, sizeof *m->group);
	if (m->group != NULL)
		group_report(proxy->group, m->group);
}

static void forget(struct measured *m)
{
	settings_release(m->settings);
	free(m->targets);
	free(m->hosts);
	free(m->group);
}

/* ---- families of a service ------------------------------------------------------------------------------------------- */

static void write_requests(const struct measured *all, size_t count, struct text *out)
{
	static const char *const classes[] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };
	family(out, "weir_requests_total", "counter", "Requests that have ended, by the class of the status that the client got.");
	for (size_t i = 0; i < count; i++)
		for (size_t class = 0; class < METER_CLASSES; class++)
			text_add(out, "weir_requests_total{service=\"%s\",code=\"%s\"} %llu\n", all[i].label, classes[class],
			         (unsigned long long)all[i].meters.classes[class]);
	family(out, "weir_answered_here_total", "counter", "Answers that weir made itself, refusals and errors among them.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_answered_here_total", &all[i], (double)atomic_load(&all[i].proxy->answered_total));
	family(out, "weir_connections_open", "gauge", "Connections of clients that are being served.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_connections_open", &all[i], all[i].connections);
}

static void write_limits(const struct measured *all, size_t count, struct text *out)
{
	family(out, "weir_limit_threshold", "gauge", "Requests that may start in one window; 0 for no limit.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_limit_threshold", &all[i], all[i].settings->threshold.count);
	family(out, "weir_limit_window_seconds", "gauge", "The window of the threshold.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_limit_window_seconds", &all[i], (double)all[i].settings->threshold.window_us / 1e6);
	family(out, "weir_limit_available", "gauge", "Starts that are free now, where there is a threshold.");
	for (size_t i = 0; i < count; i++)
		if (all[i].limits.available != UINT32_MAX)
			sample(out, "weir_limit_available", &all[i], all[i].limits.available);
	family(out, "weir_starts_total", "counter", "Tries that started upstream: each takes one of the threshold.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_starts_total", &all[i], (double)all[i].limits.started_total);
	family(out, "weir_refused_total", "counter", "Requests that a limit refused, by the limit.");
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < all[i].meters.refusal_count; k++) {
			char limit[LABEL_MAX];
			escape_label(all[i].meters.refusals[k].name, limit);
			text_add(out, "weir_refused_total{service=\"%s\",limit=\"%s\"} %llu\n", all[i].label, limit,
			         (unsigned long long)all[i].meters.refusals[k].count);
		}
	family(out, "weir_shadowed_total", "counter", "Requests that a rule in shadow mode would have refused.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_shadowed_total", &all[i], (double)atomic_load(&all[i].proxy->shadowed_total));
	family(out, "weir_queue_length", "gauge", "Requests that wait for their turn.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_queue_length", &all[i], all[i].limits.waiting);
	family(out, "weir_queue_limit", "gauge", "Requests that may wait for their turn.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_queue_limit", &all[i], all[i].settings->backlog_requests);
	family(out, "weir_client_keys", "gauge", "Clients whose rates are remembered.");
	for (size_t i = 0; i < count; i++)
		sample(out, "weir_client_keys", &all[i], (double)all[i].clients.keys);
}

static void write_histogram(const struct measured *all, size_t count, enum meter_time which, const char *name, const char *help,
                            struct text *out)
{
	family(out, name, "histogram", help);
	for (size_t i = 0; i < count; i++) {
		const struct histogram_sum *sum = &all[i].meters.times[which];
		uint64_t below = 0;
		for (size_t bucket = 0; bucket < HISTOGRAM_BOUNDS; bucket++) {
			below += sum->buckets[bucket];
			text_add(out, "%s_bucket{service=\"%s\",le=\"%g\"} %llu\n", name, all[i].label,
			         (double)histogram_bounds_us[bucket] / 1e6, (unsigned long long)below);
		}
		text_add(out, "%s_bucket{service=\"%s\",le=\"+Inf\"} %llu\n", name, all[i].label, (unsigned long long)sum->count);
		text_add(out, "%s_sum{service=\"%s\"} %.17g\n", name, all[i].label, (double)sum->total_us / 1e6);
		text_add(out, "%s_count{service=\"%s\"} %llu\n", name, all[i].label, (unsigned long long)sum->count);
	}
}

static void write_times(const struct measured *all, size_t count, struct text *out)
{
	write_histogram(all, count, METER_TOTAL, "weir_request_duration_seconds",
	                "From the first byte of a request to the last of its answer; tunnels are left out.", out);
	write_histogram(all, count, METER_UPSTREAM, "weir_upstream_duration_seconds",
	                "From the first byte sent to a target to the last of its answer; tunnels are left out.", out);
	write_histogram(all, count, METER_WAIT, "weir_queue_wait_seconds",
	                "Spent waiting for a turn, by requests that were sent; most wait for nothing.", out);
}

/* One number of each target. */
typedef double (*target_number)(const struct measured_target *target);

static double is_up(const struct measured_target *target)
{
	return target->report.state == BALANCER_IN;
}
static double is_drained(const struct measured_target *target)
{
	return target->report.state == BALANCER_DRAIN;
}
static double active(const struct measured_target *target)
{
	return target->report.active;
}
static double requests(const struct measured_target *target)
{
	return (double)target->report.requests_total;
}
static double failures(const struct measured_target *target)
{
	return (double)target->report.failures_total;
}

static void write_targets(const struct measured *all, size_t count, struct text *out)
{
	static const struct {
		const char *name, *type, *help;
		target_number number;
	} families[] = {
		{ "weir_target_up", "gauge", "1 while the target takes its turns.", is_up },
		{ "weir_target_drained", "gauge", "1 while an operator keeps the target out.", is_drained },
		{ "weir_target_active", "gauge", "Requests that are with the target now.", active },
		{ "weir_target_requests_total", "counter", "Turns that the target has had.", requests },
		{ "weir_target_failures_total", "counter", "Turns in which the target failed.", failures },
	};
	for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
		family(out, families[f].name, families[f].type, families[f].help);
		for (size_t i = 0; i < count; i++)
			for (size_t k = 0; k < all[i].target_count; k++)
				text_add(out, "%s{service=\"%s\",target=\"%s\"} %.17g\n", families[f].name, all[i].label,
				         all[i].targets[k].label, families[f].number(&all[i].targets[k]));
	}
	family(out, "weir_target_answer_seconds", "summary", "From the first byte sent to the head of the target's answer.");
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < all[i].target_count; k++) {
			const struct measured_target *target = &all[i].targets[k];
			text_add(out, "weir_target_answer_seconds_sum{service=\"%s\",target=\"%s\"} %.17g\n", all[i].label, target->label,
			         (double)target->answers_us / 1e6);
			text_add(out, "weir_target_answer_seconds_count{service=\"%s\",target=\"%s\"} %llu\n", all[i].label,
			         target->label, (unsigned long long)target->answers_total);
		}
}

static void write_host_rows(const struct measured *m, const char *name, bool is_limit, struct text *out)
{
	double rest = 0;
	for (size_t i = 0; i < m->host_count; i++) {
		char host[LABEL_MAX];
		double value = is_limit ? m->hosts[i].limit : m->hosts[i].open;
		escape_label(m->hosts[i].name, host);
		if (i < HOSTS_NAMED)
			text_add(out, "%s{service=\"%s\",host=\"%s\"} %.17g\n", name, m->label, host, value);
		rest += i < HOSTS_NAMED ? 0 : value;
	}
	if (m->host_count > HOSTS_NAMED && !is_limit) /* a blank: no host is called so, whatever clients ask for */
		text_add(out, "%s{service=\"%s\",host=\"all others\"} %.17g\n", name, m->label, rest);
}

static void write_hosts(const struct measured *all, size_t count, struct text *out)
{
	family(out, "weir_host_connections", "gauge", "Connections to a host, idle ones included; the busiest hosts by name.");
	for (size_t i = 0; i < count; i++)
		write_host_rows(&all[i], "weir_host_connections", false, out);
	family(out, "weir_host_connection_limit", "gauge", "The cap on them, 0 for none.");
	for (size_t i = 0; i < count; i++)
		write_host_rows(&all[i], "weir_host_connection_limit", true, out);
	family(out, "weir_host_connections_opened_total", "counter", "Connections to hosts that were opened.");
	for (size_t i = 0; i < count; i++)
		if (all[i].proxy->hosts != NULL)
			sample(out, "weir_host_connections_opened_total", &all[i], (double)all[i].host_totals.opened_total);
	family(out, "weir_host_rate_hosts", "gauge", "Hosts whose host_rate matters now.");
	for (size_t i = 0; i < count; i++)
		if (all[i].proxy->host_rates != NULL) {
			struct host_rates_report rates;
			host_rates_report(all[i].proxy->host_rates, &rates);
			sample(out, "weir_host_rate_hosts", &all[i], (double)rates.hosts);
		}
	family(out, "weir_store_up", "gauge", "1 while Redis answers, where one is set.");
	for (size_t i = 0; i < count; i++)
		if (all[i].store.is_on)
			sample(out, "weir_store_up", &all[i], all[i].store.is_up);
	family(out, "weir_store_failures_total", "counter", "Calls to Redis that got no answer in time, or an error.");
	for (size_t i = 0; i < count; i++)
		if (all[i].store.is_on)
			sample(out, "weir_store_failures_total", &all[i], (double)all[i].store.failures_total);
}

/* ---- the process ------------------------------------------------------------------------------------------------------ */

static unsigned open_files(void)
{
	unsigned count = 0;
	DIR *folder = opendir("/proc/self/fd");
	if (folder == NULL)
		return 0;
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count > 3 ? count - 3 : 0; /* "." and "..", and the folder itself */
}

/* Bytes in memory: the second number of /proc/self/statm, in pages. */
static double resident_bytes(void)
{
	unsigned long long all, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (file == NULL)
		return 0;
	if (fscanf(file, "%llu %llu", &all, &resident) != 2)
		resident = 0;
	fclose(file);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(void)
{
	struct rusage usage;
	if (getrusage(RUSAGE_SELF, &usage) != 0)
		return 0;
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void write_process(const struct roster_facts *facts, struct text *out)
{
	struct rlimit files = { .rlim_cur = 0 };
	getrlimit(RLIMIT_NOFILE, &files);
	family(out, "weir_build_info", "gauge", "1, with the version as a label.");
	text_add(out, "weir_build_info{version=\"%s\"} 1\n", WEIR_VERSION);
	family(out, "weir_draining", "gauge", "1 while weir finishes what is in flight before it ends.");
	text_add(out, "weir_draining %d\n", facts->is_draining);
	family(out, "weir_config_last_reload_successful", "gauge", "1 unless the last reload was refused or incomplete.");
	text_add(out, "weir_config_last_reload_successful %d\n", facts->last_reload_is_good);
	family(out, "weir_config_last_reload_success_timestamp_seconds", "gauge", "When settings last came into force.");
	text_add(out, "weir_config_last_reload_success_timestamp_seconds %lld\n", (long long)facts->last_reload_s);
	family(out, "process_start_time_seconds", "gauge", "When the process started.");
	text_add(out, "process_start_time_seconds %lld\n", (long long)facts->started_s);
	family(out, "process_cpu_seconds_total", "counter", "Processor time that was used.");
	text_add(out, "process_cpu_seconds_total %.6f\n", cpu_seconds());
	family(out, "process_resident_memory_bytes", "gauge", "Memory that is resident.");
	text_add(out, "process_resident_memory_bytes %.17g\n", resident_bytes());
	family(out, "process_open_fds", "gauge", "Open file descriptors.");
	text_add(out, "process_open_fds %u\n", open_files());
	family(out, "process_max_fds", "gauge", "Limit on open file descriptors.");
	text_add(out, "process_max_fds %llu\n", (unsigned long long)files.rlim_cur);
}

static void write_groups(const struct measured *all, size_t count, struct text *out)
{
	static const struct {
		const char *name, *type, *help;
	} families[] = {
		{ "weir_cluster_is_master", "gauge", "1 while this node is its group's master." },
		{ "weir_cluster_members", "gauge", "Nodes of the group that are alive, this one included." },
		{ "weir_cluster_elections_total", "counter", "How often this node has become master." },
		{ "weir_cluster_datagrams_sent_total", "counter", "Datagrams sent to the group." },
		{ "weir_cluster_datagrams_received_total", "counter", "Good datagrams of the group." },
	};
	for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
		family(out, families[f].name, families[f].type, families[f].help);
		for (size_t i = 0; i < count; i++) {
			const struct group_report *group = all[i].group;
			unsigned alive = 0;
			if (group == NULL || !group->is_member)
				continue;
			for (unsigned k = 0; k < group->cluster.node_count; k++)
				alive += group->cluster.nodes[k].state == CLUSTER_ALIVE;
			const double values[] = { group->cluster.master == group->cluster.self, alive,
				                  (double)group->cluster.elections_total, (double)group->sent_total,
				                  (double)group->received_total };
			sample(out, families[f].name, &all[i], values[f]);
		}
	}
	family(out, "weir_cluster_datagrams_dropped_total", "counter", "Datagrams that were not believed, by the reason.");
	for (size_t i = 0; i < count; i++)
		for (int reason = 0; all[i].group != NULL && all[i].group->is_member && reason < CLUSTER_WIRE_RESULTS; reason++)
			if (reason != CLUSTER_WIRE_GOOD && reason != CLUSTER_WIRE_OWN)
				text_add(out, "weir_cluster_datagrams_dropped_total{service=\"%s\",reason=\"%s\"} %llu\n", all[i].label,
				         cluster_wire_reason((enum cluster_wire_result)reason),
				         (unsigned long long)all[i].group->dropped_total[reason]);
}

void metrics_write(struct proxy *const *proxies, size_t count, const struct roster_facts *facts, struct text *out)
{
	struct measured *all = calloc(count + 1, sizeof *all);
	if (all == NULL) {
		out->has_failed = true;
		return;
	}
	for (size_t i = 0; i < count; i++)
		measure(proxies[i], &all[i]);
	write_process(facts, out);
	write_requests(all, count, out);
	write_limits(all, count, out);
	write_times(all, count, out);
	write_targets(all, count, out);
	write_hosts(all, count, out);
	write_groups(all, count, out);
	for (size_t i = 0; i < count; i++)
		forget(&all[i]);
	free(all);
}
