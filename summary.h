/* summary.h: all services in one line, for whoever looks from far away: `systemctl status`.
 *
 *      2 services, 3 of 4 targets in, master is node 2, 12 clients, 340 requests/s, 5 refused/s
 *
 * Totals only: what each service does stands in status.h. The rates are those between two looks, so the caller keeps the one before.
 * As there, no two numbers are of exactly the same moment. Any thread.
 */
#ifndef WEIR_SUMMARY_H
#define WEIR_SUMMARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct roster;

struct summary {
	uint64_t taken_us; /* clock_us(); 0: there is none */
	size_t services;
	size_t targets, targets_in; /* servers of a message switch too */
	bool is_member;    /* a service is in a group of nodes, */
	unsigned master;   /* and this is the master of the first such; 0: there is none now */
	unsigned clients;  /* connections of clients */
	uint64_t requests_total, refused_total;
};

/* False when out of memory. */
bool summary_take(struct roster *roster, uint64_t now_us, struct summary *out);

#define SUMMARY_MAX 320
/* before: an earlier look, or one whose taken_us is 0: then no rates are written. */
void summary_write(const struct summary *now, const struct summary *before, char out[SUMMARY_MAX]);

#endif
