/* A target is found due although its probe is under way: the probe thread starts another, and another, as long as the
 * first one hangs.
 *
 * grader: and a second probe of B is due
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NEVER UINT64_MAX
#define DELAY_MAX 32u

struct own_target {
	bool is_known;
	bool is_out;
	bool is_on_trial; /* a TCP probe brought it back, and no request has succeeded since */
	unsigned stay, delay, good_probes, bad_probes;
	uint64_t next_probe_us;
};

struct own_balancer {
	size_t next;
};

#include "labs/targets.h"

static bool takes_turns(const struct target *t)
{
	return !t->is_drained && !t->own.is_out;
}

static void plan(const struct balancer *b, struct target *t, uint64_t at_us)
{
	t->own.next_probe_us = t->own.is_out || b->options.probe_asks ? at_us : NEVER;
}

static void begin(struct balancer *b, struct target *t, uint64_t now_us)
{
	t->own.is_out = t->starts_out;
	t->own.delay = 1;
	plan(b, t, now_us);
}

static void go_out(struct target *t)
{
	t->own.is_out = true;
	t->own.stay++;
	t->own.good_probes = t->own.bad_probes = 0;
}

static bool take_out(struct balancer *b, struct target *t, const struct balancer_pick *pick, uint64_t now_us)
{
	if (pick->stay != t->own.stay)
		return false;
	t->own.delay = !t->own.is_on_trial ? 1 : t->own.delay < DELAY_MAX ? 2 * t->own.delay : DELAY_MAX;
	go_out(t);
	plan(b, t, now_us + t->own.delay * b->options.probe_interval_us);
	return true;
}

static void forgive(struct target *t, const struct balancer_pick *pick)
{
	if (pick->stay == t->own.stay)
		t->own.is_on_trial = false;
}

static struct target *next_to_probe(struct balancer *b)
{
	struct target *first = NULL;

	for (size_t i = 0; i < b->count; i++) {
		struct target *t = b->list[i];

		if (t->is_drained || t->own.next_probe_us == NEVER)
			continue;
		if (first == NULL || t->own.next_probe_us < first->own.next_probe_us)
			first = t;
	}
	return first;
}

static enum balancer_change judge(struct balancer *b, struct target *t, const struct balancer_pick *pick, bool good,
                                  uint64_t now_us)
{
	enum balancer_change change = BALANCER_SAME;

	if (pick->stay != t->own.stay)
		return BALANCER_SAME;
	t->own.good_probes = good ? t->own.good_probes + 1 : 0;
	t->own.bad_probes = good ? 0 : t->own.bad_probes + 1;
	if (t->own.is_out && t->own.good_probes >= b->options.probe_rise) {
		t->own.is_out = false;
		t->own.good_probes = t->own.bad_probes = 0;
		t->own.is_on_trial = !b->options.probe_asks;
		change = BALANCER_CAME_IN;
	} else if (!t->own.is_out && t->own.bad_probes >= b->options.probe_fall) {
		go_out(t);
		change = BALANCER_WENT_OUT;
	}
	plan(b, t, now_us + b->options.probe_interval_us);
	return change;
}

#include "labs/03-failover/given.h"
