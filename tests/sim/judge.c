/* judge.c: watches every start, by true time, and knows what the group promised.
 *
 *      starts   │ │  │││ │   │  │     (t - window, t] is the window that ends with this start. The fullest
 *      ─────────┴─┴──┴┴┴─┴───┴──┴──►  window ends with a start, so to look at each start's own is to look at all.
 *                  └────────────┘t
 *
 * How many are allowed: the threshold; where a group is not strict and its network is split, one threshold for each
 * master that there may be (network_look), and each part alone is held to its own. What was true lately still counts
 * for a while: the promise is that the rule holds again within 2 s after parts met, or after a lower threshold was set.
 *
 * One start is not held against anybody: that of a thread which was past its last look at the clock when its whole node
 * was stopped, and sent when the node went on. No protocol can catch it unless the target takes part (Kleppmann, "How
 * to do distributed locking", 2016, calls the target's part a fencing token). They are counted and shown.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_US 100000u
#define WITHIN_US (2 * SECOND)
#define LATE_MAX_US (100 * MS) /* the largest L */

static uint64_t memory_us(const struct plan *p)
{
	return p->window_us + SECOND > WITHIN_US ? p->window_us + SECOND : WITHIN_US;
}

/* How long the group may take to be whole again after the last fault, and how long it is watched then. */
static uint64_t settled_us(const struct plan *p)
{
	return p->expect.calm_us + 5 * SECOND + 2 * p->window_us;
}

/* ---- what is allowed --------------------------------------------------------------------------------------------- */

static void remember(struct was *was, unsigned *count, unsigned limit, uint64_t now_us, unsigned value)
{
	if (*count == limit) {
		memmove(was, was + 1, (limit - 1) * sizeof(*was));
		--*count;
	}
	was[(*count)++] = (struct was){ .until_us = now_us, .value = value };
}

static unsigned highest(const struct was *was, unsigned count, unsigned now, uint64_t since_us)
{
	for (unsigned i = 0; i < count; i++)
		if (was[i].until_us >= since_us && was[i].value > now)
			now = was[i].value;
	return now;
}

void judge_masters(struct world *w, unsigned masters)
{
	struct judge *j = &w->judge;

	if (w->plan->is_strict)
		masters = 1;
	if (j->masters_now != masters && j->masters_now != 0)
		remember(j->masters, &j->masters_count, 64, w->now_us, j->masters_now);
	j->masters_now = masters;
}

void judge_threshold(struct world *w)
{
	struct judge *j = &w->judge;
	unsigned threshold = 0;

	for (unsigned i = 0; i < w->plan->node_count; i++)
		if (w->nodes[i].is_up && w->nodes[i].threshold > threshold)
			threshold = w->nodes[i].threshold;
	if (j->threshold_now != threshold && j->threshold_now != 0)
		remember(j->thresholds, &j->thresholds_count, 64, w->now_us, j->threshold_now);
	j->threshold_now = threshold;
}

/* ---- starts ------------------------------------------------------------------------------------------------------ */

static void keep_start(struct judge *j, uint64_t at_us, unsigned node)
{
	if (j->count == j->capacity) {
		size_t capacity = j->capacity > 0 ? 2 * j->capacity : 1024;
		struct start *starts = sim_allocate(NULL, capacity * sizeof(*starts));

		for (size_t i = 0; i < j->count; i++)
			starts[i] = j->starts[(j->first + i) % j->capacity];
		free(j->starts);
		j->starts = starts;
		j->first = 0;
		j->capacity = capacity;
	}
	j->starts[(j->first + j->count++) % j->capacity] = (struct start){ .at_us = at_us, .node = node };
	j->of_node[node]++;
}

static void forget_starts(struct judge *j, uint64_t until_us)
{
	while (j->count > 0 && j->starts[j->first].at_us <= until_us) {
		j->of_node[j->starts[j->first].node]--;
		j->first = (j->first + 1) % j->capacity;
		j->count--;
	}
}

static void check_part(struct world *w, const struct node *n, unsigned threshold)
{
	const struct network *net = &w->network;
	const struct judge *j = &w->judge;

	for (unsigned i = 0; i < net->part_count; i++) {
		unsigned sum = 0, allowed = threshold * (w->plan->is_strict ? 1 : net->part_masters[i]);

		if (!(net->parts[i] >> n->index & 1))
			continue;
		for (unsigned k = 0; k < w->plan->node_count; k++)
			sum += net->parts[i] >> k & 1 ? j->of_node[k] : 0;
		if (sum > allowed)
			world_fail(w, "%u starts in one window in a part of the group that may have %u", sum, allowed);
	}
}

static void measure(struct world *w, const struct request *r)
{
	const struct expectation *e = &w->plan->expect;
	struct judge *j = &w->judge;
	uint64_t since_us = j->last_start_us > e->from_us ? j->last_start_us : e->from_us;

	if (w->now_us < e->from_us || w->now_us >= e->until_us)
		return;
	if (w->now_us - since_us > j->standstill_us)
		j->standstill_us = w->now_us - since_us;
	if (j->measured == j->measured_capacity) {
		j->measured_capacity = j->measured_capacity > 0 ? 2 * j->measured_capacity : 1024;
		j->waits = sim_allocate(j->waits, j->measured_capacity * sizeof(*j->waits));
		j->times = sim_allocate(j->times, j->measured_capacity * sizeof(*j->times));
	}
	j->waits[j->measured] = w->now_us - r->arrived_us;
	j->times[j->measured++] = w->now_us;
}

void judge_start(struct world *w, struct node *n, const struct request *r)
{
	struct judge *j = &w->judge;
	const struct plan *p = w->plan;
	uint64_t since_us = w->now_us - (w->now_us > memory_us(p) ? memory_us(p) : w->now_us);
	unsigned threshold = highest(j->thresholds, j->thresholds_count, j->threshold_now, since_us);
	unsigned masters = highest(j->masters, j->masters_count, j->masters_now, since_us);

	if (p->threshold <= 50)
		world_tell(w, n, "starts a request that came %.3f ms ago", (double)(w->now_us - r->arrived_us) / 1000);
	n->started++;
	n->second_started++;
	w->result->started++;
	measure(w, r);
	j->last_start_us = w->now_us;
	if (p->expect.calm_us > 0 && w->now_us >= settled_us(p)) {
		j->served_in_calm[n->index]++;
		j->calm_starts++;
	}
	if (r->is_frozen) {
		w->result->frozen++;
		return;
	}
	keep_start(j, w->now_us, n->index);
	forget_starts(j, w->now_us > p->window_us ? w->now_us - p->window_us : 0);
	if (threshold == 0)
		return;
	if (masters == 1 && threshold == p->threshold && j->count > w->result->largest)
		w->result->largest = (unsigned)j->count;
	if (j->count > (uint64_t)threshold * masters)
		world_fail(w, "%zu starts in one window, %u x %u allowed", j->count, masters, threshold);
	if (w->network.changed_us + memory_us(p) <= w->now_us)
		check_part(w, n, threshold);
}

/* ---- now and then ------------------------------------------------------------------------------------------------ */

/* The front of the line must have been told when to ask. */
static void check_front(struct world *w, struct node *n)
{
	struct request *front = n->first;
	enum limiter_answer answer;
	uint64_t wake_us;

	while (front != NULL && front->state != REQUEST_WAITING)
		front = front->next;
	if (w->plan->is_fair || front == NULL || front->has_died || front->wakes_us != NEVER_US)
		return;
	answer = limiter_turn(n->limiter, &front->ticket, node_clock_us(n), &wake_us);
	if (answer != LIMITER_WAIT || wake_us != NEVER_US)
		world_fail(w, "node %u: the front of the line sleeps, and nobody woke it", n->index);
}

static void check_discovered(struct world *w)
{
	unsigned up = 0;

	for (unsigned i = 0; i < w->plan->node_count; i++)
		up += w->nodes[i].is_up;
	for (unsigned i = 0; i < w->plan->node_count; i++) {
		struct cluster_report report;
		unsigned alive = 0;

		if (!w->nodes[i].is_up)
			continue;
		cluster_report(w->nodes[i].cluster, node_clock_us(&w->nodes[i]), &report);
		for (unsigned k = 0; k < report.node_count; k++)
			alive += report.nodes[k].state == CLUSTER_ALIVE;
		if (alive != up)
			world_fail(w, "node %u sees %u nodes alive of %u", i, alive, up);
	}
}

static bool has_twin(const struct world *w, const struct node *n)
{
	for (unsigned i = 0; i < w->plan->node_count; i++)
		if (i != n->index && w->nodes[i].is_up && w->nodes[i].id == n->id)
			return true;
	return false;
}

static void check_agreement(struct world *w)
{
	unsigned lowest = UINT32_MAX;

	for (unsigned i = 0; i < w->plan->node_count; i++)
		if (w->nodes[i].is_up && w->nodes[i].id < lowest)
			lowest = w->nodes[i].id;
	for (unsigned i = 0; i < w->plan->node_count; i++) {
		struct cluster_report report;

		if (!w->nodes[i].is_up || has_twin(w, &w->nodes[i]))
			continue;
		cluster_report(w->nodes[i].cluster, node_clock_us(&w->nodes[i]), &report);
		if (report.master != lowest)
			world_fail(w, "all faults are over, and node %u (id %u) takes %u for master, not %u", i,
			           w->nodes[i].id, report.master, lowest);
	}
}

static bool is_between(uint64_t us, uint64_t from_us, uint64_t until_us)
{
	return us >= from_us && us < until_us;
}

void judge_look(struct world *w)
{
	const struct expectation *e = &w->plan->expect;
	struct judge *j = &w->judge;
	uint64_t since_us = j->last_start_us > e->from_us ? j->last_start_us : e->from_us;
	bool somebody_waits = false;

	for (unsigned i = 0; i < w->plan->node_count; i++) {
		if (!w->nodes[i].is_up || node_is_paused(&w->nodes[i]))
			continue;
		check_front(w, &w->nodes[i]);
		somebody_waits = somebody_waits || w->nodes[i].waiting > 0;
	}
	if (somebody_waits && is_between(w->now_us, e->from_us, e->until_us) && w->now_us - since_us > j->standstill_us)
		j->standstill_us = w->now_us - since_us;
	if (e->discovered_us > 0 && is_between(w->now_us, e->discovered_us, e->discovered_us + LOOK_US))
		check_discovered(w);
	if (e->calm_us > 0 && is_between(w->now_us, settled_us(w->plan), settled_us(w->plan) + LOOK_US))
		check_agreement(w);
	if (e->from_us > 0 && is_between(w->now_us, e->from_us, e->from_us + LOOK_US))
		j->sent_at_from = w->network.sent;
	world_plan(w, LOOK_US, EVENT_LOOK, 0, 0, NULL);
}

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

void judge_begin(struct world *w)
{
	world_plan(w, LOOK_US, EVENT_LOOK, 0, 0, NULL);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* How much of the threshold can be used at the worst L that there is. A lost question or a lost grant costs its slots for a
   round. So does a thread that sleeps for longer than L while it is the front of a line, and one that connects for longer than
   L: L follows, but at small thresholds that takes many rounds, and few are watched. */
static double worst_use(const struct plan *p)
{
	bool is_slow = p->threads.wake.rare_us > 8 * MS || p->threads.connect_us > 4 * MS;
	double lost = p->road.lost_per_million / 1e6 + (is_slow ? 0.25 : 0);

	return (double)p->window_us / (double)(p->window_us + LATE_MAX_US) * (1 - lost) * (1 - lost) * 0.97;
}

/* A strict group without some of its nodes has a share. */
static double usable_threshold(const struct world *w)
{
	unsigned up = 0;

	for (unsigned i = 0; i < w->plan->node_count; i++)
		up += w->nodes[i].is_up && !has_twin(w, &w->nodes[i]);
	if (!w->plan->is_strict || up >= w->plan->group_size)
		return w->judge.threshold_now;
	return w->judge.threshold_now * up / w->plan->group_size;
}

static void check_calm(struct world *w)
{
	const struct plan *p = w->plan;
	uint64_t watched_us = p->end_us - settled_us(p);
	double threshold = usable_threshold(w), due = threshold * (double)watched_us / (double)p->window_us;

	if (w->judge.threshold_now == 0)
		return;
	/* They may come all at once, and then a last round is just not complete. */
	if ((double)w->judge.calm_starts < worst_use(p) * due - threshold - 1)
		world_fail(w, "all faults are over, and %llu of %.0f starts were used",
			   (unsigned long long)w->judge.calm_starts, due);
	for (unsigned i = 0; i < p->node_count; i++)
		if (w->nodes[i].is_up && !has_twin(w, &w->nodes[i]) && due > 4 * p->node_count &&
		    p->road.lost_per_million <= 20000 && /* else all of its few grants may be lost */
		    w->judge.served_in_calm[i] == 0)
			world_fail(w, "all faults are over, and node %u (id %u) is not served", i, w->nodes[i].id);
}

static void check_expectations(struct world *w)
{
	const struct expectation *e = &w->plan->expect;
	const struct result *r = w->result;

	if (e->calm_us > 0)
		check_calm(w);
	if (e->utilisation > 0 && r->utilisation < e->utilisation)
		world_fail(w, "utilisation %.2f %%, not %.2f %%", 100 * r->utilisation, 100 * e->utilisation);
	if (e->wait_p99_us > 0 && r->wait_p99_us > e->wait_p99_us)
		world_fail(w, "one request of a hundred waited for %.1f ms, not %.1f ms", (double)r->wait_p99_us / 1000,
		           (double)e->wait_p99_us / 1000);
	if (e->standstill_us > 0 && r->standstill_us > e->standstill_us)
		world_fail(w, "nothing started for %.1f ms, not %.1f ms", (double)r->standstill_us / 1000,
		           (double)e->standstill_us / 1000);
}

/* Starts often come all at once, a threshold of them: to count them between two fixed moments would tell up to a whole
   window too many or too few. So it is told how long it took from one start to the one that came some whole thresholds
   later. */
static double utilisation(const struct world *w)
{
	const struct judge *j = &w->judge;
	size_t threshold = w->plan->threshold,
	       rounds = threshold > 0 && j->measured > 0 ? (j->measured - 1) / threshold : 0;

	if (rounds == 0)
		return 0;
	return (double)rounds * (double)w->plan->window_us / (double)(j->times[rounds * threshold] - j->times[0]);
}

void judge_end(struct world *w)
{
	const struct expectation *e = &w->plan->expect;
	struct judge *j = &w->judge;
	struct result *r = w->result;

	r->standstill_us = j->standstill_us;
	r->utilisation = utilisation(w);
	if (w->now_us > e->from_us)
		r->datagrams_a_second =
			(double)(w->network.sent - j->sent_at_from) * 1e6 / (double)(w->now_us - e->from_us);
	if (j->measured > 0) {
		qsort(j->waits, j->measured, sizeof(*j->waits), compare);
		r->wait_p50_us = j->waits[j->measured / 2];
		r->wait_p99_us = j->waits[j->measured * 99 / 100];
	}
	if (!r->has_failed)
		check_expectations(w);
	free(j->starts);
	free(j->waits);
	free(j->times);
}
