/* summary.c: see summary.h. */
#include "summary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "roster.h"
#include "service.h"
#include "switch.h"

static void count_state(struct summary *out, const struct balancer_report *report)
{
	out->targets++;
	out->targets_in += report->state == BALANCER_IN;
}

static bool add_targets(struct proxy *proxy, struct summary *out)
{
	struct balancer_report *reports = calloc(BALANCER_TARGETS_MAX, sizeof *reports);
	if (reports == NULL)
		return false;
	size_t count = balancer_report(proxy->balancer, reports, BALANCER_TARGETS_MAX);
	for (size_t i = 0; i < count; i++)
		count_state(out, &reports[i]);
	free(reports);
	return true;
}

static bool add_servers(struct proxy *proxy, struct summary *out)
{
	struct packet_switch_row *rows = calloc(SWITCH_SERVERS_MAX, sizeof *rows);
	if (rows == NULL)
		return false;
	size_t count = packet_switch_report(proxy->packets, rows, SWITCH_SERVERS_MAX);
	for (size_t i = 0; i < count && i < SWITCH_SERVERS_MAX; i++)
		count_state(out, &rows[i].report);
	free(rows);
	return true;
}

static bool add_group(struct proxy *proxy, struct summary *out)
{
	struct group_report *report = calloc(1, sizeof *report);
	if (report == NULL)
		return false;
	group_report(proxy->group, report);
	if (report->is_member && !out->is_member) {
		out->is_member = true;
		out->master = report->cluster.master;
	}
	free(report);
	return true;
}

bool summary_take(struct roster *roster, uint64_t now_us, struct summary *out)
{
	struct roster_view view;
	bool is_whole = true;
	if (!roster_hold(roster, &view))
		return false;
	*out = (struct summary){ .taken_us = now_us, .services = view.count };
	for (size_t i = 0; i < view.count && is_whole; i++) {
		struct proxy *proxy = view.proxies[i];
		out->clients += service_connections(proxy);
		out->requests_total += atomic_load(&proxy->requests_total);
		out->refused_total += atomic_load(&proxy->refused_total);
		is_whole = (proxy->packets != NULL ? add_servers(proxy, out) : add_targets(proxy, out)) && add_group(proxy, out);
	}
	roster_release(&view);
	return is_whole;
}

/* A service that a reload has ended takes its counts along: then there is no rate to tell of, and it is not a huge one. */
static uint64_t each_second(uint64_t now, uint64_t before, uint64_t us)
{
	return now > before && us > 0 ? (uint64_t)((double)(now - before) * 1e6 / (double)us + 0.5) : 0;
}

static const char *ending(size_t count)
{
	return count == 1 ? "" : "s";
}

void summary_write(const struct summary *now, const struct summary *before, char out[SUMMARY_MAX])
{
	char targets[64] = "", master[64] = "", rates[128] = "";
	uint64_t us = now->taken_us - before->taken_us;
	if (now->targets > 0)
		snprintf(targets, sizeof targets, ", %zu of %zu target%s in", now->targets_in, now->targets, ending(now->targets));
	if (now->is_member && now->master == 0)
		snprintf(master, sizeof master, ", no master");
	else if (now->is_member)
		snprintf(master, sizeof master, ", master is node %u", now->master);
	if (before->taken_us > 0)
		snprintf(rates, sizeof rates, ", %" PRIu64 " requests/s, %" PRIu64 " refused/s",
		         each_second(now->requests_total, before->requests_total, us),
		         each_second(now->refused_total, before->refused_total, us));
	snprintf(out, SUMMARY_MAX, "%zu service%s%s%s, %u client%s%s", now->services, ending(now->services), targets, master,
	         now->clients, ending(now->clients), rates);
}
