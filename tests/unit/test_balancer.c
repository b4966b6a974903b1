/* test_balancer.c: whose turn it is, as a specification. Time is made up; an item is a counter of how often it was
 * released. Names are single letters, so that a rotation reads as a string. */
#include "../../balancer.h"
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000u

static unsigned released[64]; /* the items are pointers into this */

static void count_release(void *item)
{
	++*(unsigned *)item;
}

static struct balancer *make(enum balancer_policy policy, bool probe_asks, unsigned rise, unsigned fall)
{
	struct balancer_options options = { .policy = policy, .probe_interval_us = SECOND, .probe_rise = rise,
		                            .probe_fall = fall, .probe_asks = probe_asks };

	memset(released, 0, sizeof(released));
	return balancer_create(&options, count_release);
}

/* "A1 B2*": each letter a name, the digit its weight. The item of the i-th entry is released[first_item + i]. */
static int set(struct balancer *b, const char *spec, size_t first_item, uint64_t now_us)
{
	struct balancer_entry entries[32];
	char names[32][2];
	size_t count = 0;

	for (; spec[0] != '\0'; spec += 2, count++) {
		names[count][0] = spec[0];
		names[count][1] = '\0';
		entries[count] = (struct balancer_entry){ .name = names[count], .weight = (unsigned)(spec[1] - '0'),
			                                  .item = &released[first_item + count] };
	}
	return balancer_set_targets(b, entries, count, now_us);
}

static char name_of(struct balancer *b, const struct balancer_pick *pick, const char *names)
{
	(void)b;
	return names[(unsigned *)pick->item - released];
}

/* One request after the other, each over before the next; the names picked, as a string. */
static const char *rotation(struct balancer *b, const char *names, size_t count)
{
	static char out[256];
	size_t i;

	for (i = 0; i < count && i + 1 < sizeof(out); i++) {
		struct balancer_tried tried = { .count = 0 };
		struct balancer_pick pick;

		if (!balancer_pick(b, i, &tried, &pick)) {
			out[i] = '-';
			continue;
		}
		out[i] = name_of(b, &pick, names);
		balancer_done(b, &pick);
	}
	out[i] = '\0';
	return out;
}

/* Picks until it meets the wanted target; the others' requests are over at once. */
static struct balancer_pick pick_of(struct balancer *b, unsigned *item)
{
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick = { .item = NULL };

	while (balancer_pick(b, 1, &tried, &pick)) {
		if (pick.item == item)
			return pick;
		balancer_done(b, &pick);
	}
	CU_FAIL("the wanted target was not to be had");
	return pick;
}

static bool fail(struct balancer *b, unsigned *item, uint64_t now_us)
{
	struct balancer_pick pick = pick_of(b, item);
	bool took_it_out = balancer_failed(b, &pick, now_us);

	balancer_done(b, &pick);
	return took_it_out;
}

static enum balancer_change probe(struct balancer *b, bool good, uint64_t now_us)
{
	struct balancer_pick pick;
	uint64_t wake_us;

	if (!balancer_probe_due(b, now_us, &pick, &wake_us)) {
		CU_FAIL("no probe is due");
		return BALANCER_SAME;
	}
	return balancer_probed(b, &pick, good, now_us);
}

static uint64_t next_probe(struct balancer *b, uint64_t now_us)
{
	struct balancer_pick pick;
	uint64_t wake_us;

	if (balancer_probe_due(b, now_us, &pick, &wake_us)) {
		CU_FAIL("a probe is due too early");
		balancer_probed(b, &pick, false, now_us);
	}
	return wake_us;
}

static void equal_weights_take_strict_turns(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	CU_ASSERT_EQUAL(set(b, "A1B1C1D1E1", 0, 0), 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDE", 12), "ABCDEABCDEAB");
	balancer_destroy(b);
}

static void a_dead_target_leaves_a_gap_and_returns_to_its_place(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;

	set(b, "A3B3C3D3E3", 0, 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDE", 7), "ABCDEAB");
	CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &pick));
	CU_ASSERT_PTR_EQUAL(pick.item, &released[2]);
	CU_ASSERT_TRUE(balancer_failed(b, &pick, 0));
	balancer_done(b, &pick);
	CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &pick)); /* the same request goes on to the next */
	CU_ASSERT_PTR_EQUAL(pick.item, &released[3]);
	balancer_done(b, &pick);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDE", 9), "EABDEABDE");
	CU_ASSERT_EQUAL(probe(b, true, SECOND), BALANCER_CAME_IN);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDE", 11), "ABCDEABCDEA");
	fail(b, &released[2], SECOND); /* back in the middle of a round */
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDE", 6), "DEABDE");
	CU_ASSERT_EQUAL(probe(b, true, 3 * SECOND), BALANCER_CAME_IN);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDE", 11), "ABCDEABCDEA");
	balancer_destroy(b);
}

static void unequal_weights_are_served_smoothly(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	set(b, "A3B1C1", 0, 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 10), "ABACAABACA");
	set(b, "A5B1C1", 3, 0); /* the example of nginx, but ties go on in a circle */
	const char *turns = rotation(b, "ABC", 70);
	size_t a = 0;

	for (size_t i = 0; i < 70; i++)
		a += turns[i] == 'A';
	CU_ASSERT_EQUAL(a, 50);
	CU_ASSERT_PTR_NULL(strstr(turns, "AAAAA"));
	balancer_destroy(b);
}

/* Random failures, returns, retries and overlapping requests: equals never get two turns in a row. */
static void no_equal_is_picked_twice_in_a_row_whatever_happens(void)
{
	static const char *specs[] = { "A1B1", "A2B2C2", "A5B5C1", "A1B1C1D1E1", "A3B3C1D1" };
	unsigned seed = 42;

	for (size_t spec = 0; spec < sizeof(specs) / sizeof(specs[0]); spec++) {
		struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
		size_t count = strlen(specs[spec]) / 2;
		const void *last = NULL;
		uint64_t now_us = 0;

		set(b, specs[spec], 0, 0);
		for (unsigned step = 0; step < 20000; step++, now_us += 50000) {
			struct balancer_tried tried = { .count = 0 };
			struct balancer_pick pick;
			uint64_t wake_us;

			while (rand_r(&seed) % 2 == 0 && balancer_probe_due(b, now_us, &pick, &wake_us))
				balancer_probed(b, &pick, rand_r(&seed) % 2 == 0, now_us);
			while (balancer_pick(b, 0, &tried, &pick)) {
				struct balancer_report r[8];
				size_t equals_in = 0, me = (size_t)((unsigned *)pick.item - released);

				balancer_report(b, r, 8);
				for (size_t i = 0; i < count; i++)
					equals_in += r[i].state == BALANCER_IN && r[i].weight == r[me].weight;
				if (tried.count == 1 && equals_in > 1)
					CU_ASSERT_PTR_NOT_EQUAL(pick.item, last);
				last = pick.item;
				int fate = rand_r(&seed) % 8;
				if (fate == 0)
					balancer_failed(b, &pick, now_us);
				balancer_done(b, &pick);
				if (fate > 1) /* 1: tried again elsewhere, though it stays in */
					break;
			}
		}
		balancer_destroy(b);
	}
}

static void a_request_meets_each_target_once(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;
	unsigned met[3] = { 0 };

	set(b, "A1B4C2", 0, 0);
	while (balancer_pick(b, 0, &tried, &pick)) {
		met[(unsigned *)pick.item - released]++;
		balancer_done(b, &pick);
	}
	CU_ASSERT_EQUAL(tried.count, 3);
	CU_ASSERT_TRUE(met[0] == 1 && met[1] == 1 && met[2] == 1);
	balancer_destroy(b);
}

static void leastconn_goes_where_the_least_is_at_work_for_its_weight(void)
{
	struct balancer *b = make(BALANCER_LEASTCONN, false, 1, 1);
	struct balancer_pick picks[12];
	unsigned active[3] = { 0 };

	set(b, "A1B2C3", 0, 0);
	for (size_t i = 0; i < 12; i++) {
		struct balancer_tried tried = { .count = 0 };

		CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &picks[i]));
		active[(unsigned *)picks[i].item - released]++;
	}
	CU_ASSERT_TRUE(active[0] == 2 && active[1] == 4 && active[2] == 6);
	for (size_t i = 0; i < 12; i++)
		balancer_done(b, &picks[i]);
	balancer_destroy(b);
}

static void leastconn_rotates_among_equals(void)
{
	struct balancer *b = make(BALANCER_LEASTCONN, false, 1, 1);

	set(b, "A1B1C1", 0, 0);
	struct balancer_pick busy = pick_of(b, &released[1]);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 6), "CACACA");
	balancer_done(b, &busy);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 6), "BCABCA");
	balancer_destroy(b);
}

static void *target_of_key(struct balancer *b, uint64_t key)
{
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;

	if (!balancer_pick(b, key, &tried, &pick))
		return NULL;
	balancer_done(b, &pick);
	return pick.item;
}

static void hash_keeps_a_key_at_its_target_and_moves_only_those_of_a_dead_one(void)
{
	enum { KEYS = 20000 };
	static void *before[KEYS];
	struct balancer *b = make(BALANCER_HASH, false, 1, 1);
	unsigned share[4] = { 0 };

	set(b, "A1B1C2D4", 0, 0);
	for (uint64_t key = 0; key < KEYS; key++) { /* keys that are close together, on purpose */
		before[key] = target_of_key(b, key);
		share[(unsigned *)before[key] - released]++;
	}
	static const unsigned expected[] = { KEYS / 8, KEYS / 8, KEYS / 4, KEYS / 2 };
	for (size_t i = 0; i < 4; i++)
		CU_ASSERT_TRUE(share[i] > expected[i] * 9 / 10 && share[i] < expected[i] * 11 / 10);
	struct balancer_pick pick = pick_of(b, &released[2]);
	balancer_failed(b, &pick, 0);
	balancer_done(b, &pick);
	unsigned moved_to[4] = { 0 };
	for (uint64_t key = 0; key < KEYS; key++) {
		void *now = target_of_key(b, key);

		CU_ASSERT_TRUE(now == before[key] || before[key] == &released[2]);
		if (now != before[key])
			moved_to[(unsigned *)now - released]++;
	}
	CU_ASSERT_TRUE(moved_to[0] > 0 && moved_to[1] > 0 && moved_to[3] > moved_to[0]);
	probe(b, true, SECOND);
	for (uint64_t key = 0; key < KEYS; key++)
		CU_ASSERT_PTR_EQUAL(target_of_key(b, key), before[key]);
	balancer_destroy(b);
}

static void one_failed_request_takes_a_target_out_whatever_probe_fall_says(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 2, 3);

	set(b, "A1", 0, 0);
	CU_ASSERT_TRUE(balancer_any_in(b));
	CU_ASSERT_TRUE(fail(b, &released[0], 100));
	CU_ASSERT_FALSE(balancer_any_in(b));
	CU_ASSERT_STRING_EQUAL(rotation(b, "A", 1), "-");
	CU_ASSERT_EQUAL(next_probe(b, 100), 100 + SECOND);
	balancer_destroy(b);
}

static void rise_and_fall_count_probes_in_a_row(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 2, 3);
	uint64_t now_us = 0;

	set(b, "A1", 0, 0);
	static const struct {
		bool good;
		enum balancer_change change;
	} steps[] = {
		{ false, BALANCER_SAME }, { false, BALANCER_SAME }, { true, BALANCER_SAME }, { false, BALANCER_SAME },
		{ false, BALANCER_SAME }, { false, BALANCER_WENT_OUT }, { true, BALANCER_SAME },
		{ false, BALANCER_SAME },
		{ true, BALANCER_SAME }, { true, BALANCER_CAME_IN }, { true, BALANCER_SAME },
	};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		CU_ASSERT_EQUAL(probe(b, steps[i].good, now_us), steps[i].change);
		CU_ASSERT_EQUAL(next_probe(b, now_us), now_us + SECOND);
		now_us += SECOND;
	}
	balancer_destroy(b);
}

static void a_target_that_is_in_is_probed_only_when_probes_ask(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_options asks = { .probe_interval_us = SECOND, .probe_rise = 1, .probe_fall = 1,
		                         .probe_asks = true };

	set(b, "A1B1", 0, 0);
	CU_ASSERT_EQUAL(next_probe(b, 0), UINT64_MAX);
	balancer_configure(b, &asks);
	CU_ASSERT_EQUAL(probe(b, true, 0), BALANCER_SAME); /* at once, whatever the time is */
	CU_ASSERT_EQUAL(probe(b, true, 5), BALANCER_SAME);
	CU_ASSERT_EQUAL(next_probe(b, 5), SECOND);
	balancer_configure(b, &asks); /* what was planned stays so */
	CU_ASSERT_EQUAL(next_probe(b, 5), SECOND);
	asks.probe_asks = false;
	balancer_configure(b, &asks);
	CU_ASSERT_EQUAL(next_probe(b, 5), UINT64_MAX);
	balancer_destroy(b);
}

static void a_hung_target_behind_an_open_port_is_probed_ever_more_rarely(void)
{
	static const unsigned waits[] = { 1, 2, 4, 8, 16, 32, 32 };
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	uint64_t now_us = 7;

	set(b, "A1", 0, 0);
	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		CU_ASSERT_TRUE(fail(b, &released[0], now_us));
		CU_ASSERT_EQUAL(next_probe(b, now_us), now_us + waits[i] * SECOND);
		now_us += waits[i] * SECOND;
		CU_ASSERT_EQUAL(probe(b, true, now_us), BALANCER_CAME_IN);
	}
	struct balancer_pick pick = pick_of(b, &released[0]);
	balancer_succeeded(b, &pick);
	balancer_done(b, &pick);
	fail(b, &released[0], now_us);
	CU_ASSERT_EQUAL(next_probe(b, now_us), now_us + SECOND);
	balancer_destroy(b);
}

static void a_success_of_an_earlier_trial_ends_no_later_one(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	set(b, "A1", 0, 0);
	fail(b, &released[0], 0);
	probe(b, true, SECOND);
	struct balancer_pick late = pick_of(b, &released[0]);
	fail(b, &released[0], SECOND);
	probe(b, true, 3 * SECOND);
	balancer_succeeded(b, &late);
	balancer_done(b, &late);
	fail(b, &released[0], 3 * SECOND);
	CU_ASSERT_EQUAL(next_probe(b, 3 * SECOND), 7 * SECOND);
	balancer_destroy(b);
}

static void a_probe_that_asks_is_believed(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);

	set(b, "A1", 0, 0);
	probe(b, true, 0);
	for (uint64_t now_us = 0; now_us < 5 * SECOND; now_us += SECOND) {
		fail(b, &released[0], now_us);
		CU_ASSERT_EQUAL(next_probe(b, now_us), now_us + SECOND);
		CU_ASSERT_EQUAL(probe(b, true, now_us + SECOND), BALANCER_CAME_IN);
	}
	balancer_destroy(b);
}

static void many_requests_that_fail_together_take_it_out_once(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_pick picks[64];

	set(b, "A1", 0, 0);
	for (size_t i = 0; i < 64; i++) {
		struct balancer_tried tried = { .count = 0 };

		CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &picks[i]));
	}
	for (size_t i = 0; i < 32; i++)
		CU_ASSERT_EQUAL(balancer_failed(b, &picks[i], i), i == 0);
	CU_ASSERT_EQUAL(next_probe(b, 40), SECOND);
	probe(b, true, SECOND);
	balancer_succeeded(b, &picks[32]); /* that its port was open is all that is known since */
	for (size_t i = 32; i < 64; i++) /* picked before it was out: old news, neither taken out nor doubled */
		CU_ASSERT_FALSE(balancer_failed(b, &picks[i], 2 * SECOND));
	CU_ASSERT_TRUE(balancer_any_in(b));
	for (size_t i = 0; i < 64; i++)
		balancer_done(b, &picks[i]);
	CU_ASSERT_TRUE(fail(b, &released[0], 3 * SECOND)); /* a fresh one does both */
	CU_ASSERT_EQUAL(next_probe(b, 3 * SECOND), 5 * SECOND);
	struct balancer_report r;
	balancer_report(b, &r, 1);
	CU_ASSERT_EQUAL(r.failures_total, 65);
	CU_ASSERT_EQUAL(r.requests_total, 65);
	CU_ASSERT_EQUAL(r.active, 0);
	balancer_destroy(b);
}

static void a_probe_from_before_a_failure_does_not_bring_it_back(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_pick pick;
	uint64_t wake_us;

	set(b, "A1", 0, 0);
	CU_ASSERT_TRUE(balancer_probe_due(b, 0, &pick, &wake_us));
	fail(b, &released[0], 10);
	CU_ASSERT_EQUAL(balancer_probed(b, &pick, true, 20), BALANCER_SAME);
	CU_ASSERT_FALSE(balancer_any_in(b));
	CU_ASSERT_EQUAL(next_probe(b, 20), 10 + SECOND);
	balancer_destroy(b);
}

static void a_name_that_did_not_resolve_begins_out_and_is_probed_at_once(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_entry entry = { .name = "nowhere", .weight = 1, .out = true, .item = &released[0] };

	CU_ASSERT_EQUAL(balancer_set_targets(b, &entry, 1, 500), 0);
	CU_ASSERT_FALSE(balancer_any_in(b));
	CU_ASSERT_EQUAL(probe(b, false, 500), BALANCER_SAME);
	CU_ASSERT_EQUAL(next_probe(b, 500), 500 + SECOND);
	CU_ASSERT_EQUAL(probe(b, true, 500 + SECOND), BALANCER_CAME_IN);
	balancer_destroy(b);
}

static void a_target_is_probed_by_one_at_a_time_and_the_longest_due_first(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_pick first, second, third;
	uint64_t wake_us;

	set(b, "A1B1", 0, 0);
	fail(b, &released[1], 10);
	fail(b, &released[0], 20);
	CU_ASSERT_TRUE(balancer_probe_due(b, 2 * SECOND, &first, &wake_us));
	CU_ASSERT_PTR_EQUAL(first.item, &released[1]);
	CU_ASSERT_TRUE(balancer_probe_due(b, 2 * SECOND, &second, &wake_us));
	CU_ASSERT_PTR_EQUAL(second.item, &released[0]);
	CU_ASSERT_FALSE(balancer_probe_due(b, 2 * SECOND, &third, &wake_us));
	CU_ASSERT_EQUAL(wake_us, UINT64_MAX);
	balancer_probed(b, &first, true, 2 * SECOND);
	balancer_probed(b, &second, false, 2 * SECOND);
	CU_ASSERT_EQUAL(next_probe(b, 2 * SECOND), 3 * SECOND);
	balancer_destroy(b);
}

static void a_drained_target_is_neither_picked_nor_probed(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_report r[2];

	set(b, "A1B1", 0, 0);
	struct balancer_pick pick = pick_of(b, &released[0]);
	CU_ASSERT_TRUE(balancer_drain(b, "A", true));
	CU_ASSERT_FALSE(balancer_drain(b, "nobody", true));
	CU_ASSERT_STRING_EQUAL(rotation(b, "AB", 4), "BBBB");
	CU_ASSERT_EQUAL(probe(b, true, 0), BALANCER_SAME); /* B alone */
	CU_ASSERT_EQUAL(next_probe(b, 0), SECOND);
	balancer_report(b, r, 2);
	CU_ASSERT_EQUAL(r[0].state, BALANCER_DRAIN);
	CU_ASSERT_EQUAL(r[0].active, 1); /* what runs may end */
	balancer_done(b, &pick);
	CU_ASSERT_TRUE(balancer_drain(b, "A", false));
	CU_ASSERT_STRING_EQUAL(rotation(b, "AB", 4), "ABAB");
	balancer_destroy(b);
}

static void a_target_that_failed_while_drained_is_out_when_it_is_let_back(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	set(b, "A1", 0, 0);
	struct balancer_pick pick = pick_of(b, &released[0]);
	balancer_drain(b, "A", true);
	CU_ASSERT_TRUE(balancer_failed(b, &pick, 0));
	balancer_done(b, &pick);
	CU_ASSERT_EQUAL(next_probe(b, 9 * SECOND), UINT64_MAX);
	balancer_drain(b, "A", false);
	CU_ASSERT_FALSE(balancer_any_in(b));
	CU_ASSERT_EQUAL(probe(b, true, 9 * SECOND), BALANCER_CAME_IN);
	balancer_destroy(b);
}

static void a_new_list_keeps_those_that_stay_and_their_turn(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_report r[4];

	set(b, "A1B1C1", 0, 0);
	fail(b, &released[2], 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 1), "A");
	CU_ASSERT_EQUAL(set(b, "D1C1B1A1", 3, 0), 0); /* D is item 3; 4, 5 and 6 are not needed */
	CU_ASSERT_TRUE(released[4] == 1 && released[5] == 1 && released[6] == 1);
	CU_ASSERT_TRUE(released[0] == 0 && released[1] == 0 && released[2] == 0 && released[3] == 0);
	CU_ASSERT_EQUAL(balancer_report(b, r, 4), 4);
	CU_ASSERT_STRING_EQUAL(r[1].name, "C");
	CU_ASSERT_EQUAL(r[1].state, BALANCER_OUT);
	CU_ASSERT_EQUAL(r[1].failures_total, 1);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCD", 4), "BADB");
	balancer_destroy(b);
	for (size_t i = 0; i < 7; i++)
		CU_ASSERT_EQUAL(released[i], 1);
}

static void a_target_that_left_is_released_when_its_last_request_and_probe_are_over(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_pick probing;
	uint64_t wake_us;

	set(b, "A1", 0, 0);
	CU_ASSERT_TRUE(balancer_probe_due(b, 0, &probing, &wake_us));
	struct balancer_pick first = pick_of(b, &released[0]), second = pick_of(b, &released[0]);
	set(b, "A1", 9, 0); /* it is at work, and stays what it was */
	CU_ASSERT_TRUE(released[0] == 0 && released[9] == 1);
	set(b, "B1", 1, 0);
	for (size_t i = 0; i < 2000; i++) /* the old slot rests, however often the list changes */
		set(b, i % 2 == 0 ? "C1" : "B1", 2 + i % 2, 0);
	CU_ASSERT_FALSE(balancer_failed(b, &first, 5));
	balancer_done(b, &first);
	CU_ASSERT_EQUAL(balancer_probed(b, &probing, false, 5), BALANCER_SAME);
	CU_ASSERT_EQUAL(released[0], 0);
	balancer_done(b, &second);
	CU_ASSERT_EQUAL(released[0], 1);
	CU_ASSERT_TRUE(balancer_any_in(b));
	balancer_destroy(b);
}

static void a_list_that_is_too_long_changes_nothing(void)
{
	static struct balancer_entry entries[BALANCER_TARGETS_MAX + 1];
	static char names[BALANCER_TARGETS_MAX + 1][16];
	static unsigned items[BALANCER_TARGETS_MAX + 1];
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	set(b, "A1", 0, 0);
	struct balancer_pick pick = pick_of(b, &released[0]);
	for (size_t i = 0; i <= BALANCER_TARGETS_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "target%zu", i);
		entries[i] = (struct balancer_entry){ .name = names[i], .weight = 1, .item = &items[i] };
	}
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX + 1, 0), -1);
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX, 0), -1); /* A is still at work */
	CU_ASSERT_STRING_EQUAL(rotation(b, "A", 2), "AA");
	balancer_done(b, &pick);
	CU_ASSERT_EQUAL(balancer_set_targets(b, NULL, 0, 0), 0);
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX, 0), 0);
	CU_ASSERT_EQUAL(released[0], 1);
	balancer_destroy(b);
	for (size_t i = 0; i < BALANCER_TARGETS_MAX; i++)
		CU_ASSERT_EQUAL(items[i], 1);
}

static void a_name_that_stands_twice_is_one_target(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	set(b, "A1B1A7", 0, 0);
	CU_ASSERT_EQUAL(released[2], 1);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABx", 4), "ABAB");
	balancer_destroy(b);
}

/* ---- from many threads at once ---- */

static void *hammer(void *argument)
{
	struct balancer *b = argument;
	unsigned seed = (unsigned)(uintptr_t)&seed;

	for (unsigned i = 0; i < 3000; i++) {
		struct balancer_tried tried = { .count = 0 };
		struct balancer_pick pick;
		uint64_t wake_us;

		while (balancer_pick(b, i, &tried, &pick)) {
			bool good = rand_r(&seed) % 4 != 0;

			if (good)
				balancer_succeeded(b, &pick);
			else
				balancer_failed(b, &pick, i);
			balancer_done(b, &pick);
			if (good)
				break;
		}
		if (balancer_probe_due(b, i + 40 * (uint64_t)SECOND, &pick, &wake_us))
			balancer_probed(b, &pick, true, i);
		if (i % 64 == 0)
			balancer_drain(b, "B", i % 128 == 0);
	}
	return NULL;
}

static void many_threads_leave_every_count_right(void)
{
	static unsigned items[200][3]; /* each list brings new items; the old ones are kept or released, never both */
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_report r[4];
	pthread_t threads[4];

	for (size_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, hammer, b);
	for (size_t i = 0; i < 200; i++) {
		struct balancer_entry entries[3] = { { .name = "A", .weight = 1, .item = &items[i][0] },
			                             { .name = i % 2 ? "B" : "C", .weight = 2, .item = &items[i][1] },
			                             { .name = i % 3 ? "D" : "E", .weight = 1, .item = &items[i][2] } };

		CU_ASSERT_EQUAL(balancer_set_targets(b, entries, 3, i), 0);
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(balancer_report(b, r, 4), 3);
	for (size_t i = 0; i < 3; i++)
		CU_ASSERT_TRUE(r[i].active == 0 && !r[i].probing);
	balancer_destroy(b);
	for (size_t i = 0; i < 200; i++)
		CU_ASSERT_TRUE(items[i][0] == 1 && items[i][1] == 1 && items[i][2] == 1);
}

static void the_report_says_whose_turn_is_next(void)
{
	static const enum balancer_policy policies[] = { BALANCER_ROUNDROBIN, BALANCER_LEASTCONN };
	uint64_t dice = 7;

	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		struct balancer *b = make(policies[p], false, 1, 1);
		struct balancer_pick held[8] = { { .item = NULL } };
		unsigned rounds = 0;

		CU_ASSERT_EQUAL_FATAL(set(b, "A3B1C2D1", 0, 0), 0);
		for (unsigned i = 0; i < 400; i++) {
			struct balancer_report reports[4];
			struct balancer_tried tried = { .count = 0 };
			struct balancer_pick pick;
			size_t next = 4, count_of_next = 0;

			dice = dice * UINT64_C(6364136223846793005) + 1;
			balancer_drain(b, (const char *[]){ "A", "B", "C", "D" }[dice >> 62], (dice >> 40) % 3 == 0);
			CU_ASSERT_EQUAL_FATAL(balancer_report(b, reports, 4), 4);
			for (size_t k = 0; k < 4; k++)
				if (reports[k].is_next) {
					next = k;
					count_of_next++;
				}
			bool picked = balancer_pick(b, 0, &tried, &pick);
			CU_ASSERT_EQUAL(count_of_next, picked ? 1 : 0);
			CU_ASSERT_TRUE(!picked || pick.item == &released[next]);
			rounds += picked;
			if (held[i % 8].item != NULL)
				balancer_done(b, &held[i % 8]);
			held[i % 8] = picked ? pick : (struct balancer_pick){ .item = NULL };
		}
		CU_ASSERT_TRUE(rounds > 200);
		for (size_t i = 0; i < 8; i++)
			if (held[i].item != NULL)
				balancer_done(b, &held[i]);
		balancer_destroy(b);
	}
}

/* Which target gets a key is the same in every weir in front of these targets, and stays so from one release to the next: so the answer
   stands here. */
static void each_weir_of_each_release_sends_a_key_to_the_same_target(void)
{
	struct balancer *b = make(BALANCER_HASH, false, 1, 1);

	set(b, "A1B1C2D4", 0, 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABCD", 100), 
	                       "BBBDDADDBDBCDDDDDBCDDCCCCDACCDDDDBACBBDDDDDCADDDCC"
	                       "CDDCDDBDCDBCBADDDDAADCADCADDDADDDDDDCDDCBDDCDDCCBA");
	balancer_destroy(b);
}

static void a_request_meets_each_of_many_targets_once(void)
{
	enum { COUNT = 200 };
	static unsigned met[COUNT];
	static char names[COUNT][8];
	struct balancer_entry entries[COUNT];
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;

	memset(met, 0, sizeof(met));
	for (size_t i = 0; i < COUNT; i++) {
		snprintf(names[i], sizeof(names[i]), "t%zu", i);
		entries[i] = (struct balancer_entry){ .name = names[i], .weight = 1, .item = &met[i] };
	}
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, COUNT, 0), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &pick));
		CU_ASSERT_PTR_EQUAL(pick.item, &met[i]);
		CU_ASSERT_EQUAL(tried.count, i + 1);
		balancer_done(b, &pick);
	}
	CU_ASSERT_FALSE(balancer_pick(b, 0, &tried, &pick));
	balancer_destroy(b);
}

static void good_probes_of_before_a_failure_do_not_bring_it_back(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 2, 3);

	set(b, "A1", 0, 0);
	CU_ASSERT_EQUAL(probe(b, true, 0), BALANCER_SAME);
	fail(b, &released[0], SECOND);
	CU_ASSERT_EQUAL(probe(b, true, 2 * SECOND), BALANCER_SAME);
	CU_ASSERT_EQUAL(probe(b, true, 3 * SECOND), BALANCER_CAME_IN);
	balancer_destroy(b);
}

static void a_target_that_began_out_is_on_trial_like_any_other(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_entry entry = { .name = "nowhere", .weight = 1, .out = true, .item = &released[0] };

	balancer_set_targets(b, &entry, 1, 0);
	CU_ASSERT_EQUAL(probe(b, true, 0), BALANCER_CAME_IN);
	CU_ASSERT_TRUE(fail(b, &released[0], 10));
	CU_ASSERT_EQUAL(next_probe(b, 10), 10 + 2 * SECOND);
	balancer_destroy(b);
}

/* What the credits were must not matter any more: A gave its turn away, and B would be owed one. */
static void who_comes_in_and_who_changes_the_options_starts_the_turns_afresh(void)
{
	struct balancer_options options = { .probe_interval_us = SECOND, .probe_rise = 1, .probe_fall = 1 };
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	set(b, "A3B1C1", 0, 0);
	fail(b, &released[2], 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 1), "A");
	CU_ASSERT_EQUAL(probe(b, true, SECOND), BALANCER_CAME_IN);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 6), "ABACAA"); /* BAC..., were it not so */
	balancer_configure(b, &options);
	CU_ASSERT_STRING_EQUAL(rotation(b, "ABC", 6), "ABACAA");
	balancer_destroy(b);
}

static void a_list_that_says_nothing_new_leaves_the_turns_as_they_are(void)
{
	static const struct {
		const char *list, *turns;
	} lists[] = {
		{ "A3B1C1D1", "BCADAA" }, /* the same */
		{ "A3B1C1D1E1", "ABCADE" },
		{ "A3B1C1", "ABACAA" },
		{ "A3B1D1C1", "ABDACA" },
		{ "A3B1C1D2", "ADBACD" },
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

		set(b, "A3B1C1D1", 0, 0);
		CU_ASSERT_STRING_EQUAL(rotation(b, "ABCD", 1), "A");
		CU_ASSERT_EQUAL(set(b, lists[i].list, 5, 0), 0);
		CU_ASSERT_STRING_EQUAL(rotation(b, "ABCD.....E", 6), lists[i].turns);
		balancer_destroy(b);
	}
}

static void the_turn_goes_on_with_the_first_that_is_still_there(void)
{
	static const struct {
		size_t picks;
		const char *list, *turns;
	} lists[] = {
		{ 2, "E1D1B1A1", "DBAE" },   /* C was next, and is gone: D */
		{ 2, "C1A1B1", "CABC" },     /* C is there, and in front now */
		{ 4, "D1C1B1A1", "ADCB" },   /* E was next, and is gone: round to A */
		{ 3, "B1A1C1", "ACBA" },     /* D and E are gone */
		{ 3, "F1", "FFFF" },
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

		set(b, "A1B1C1D1E1", 0, 0);
		rotation(b, "ABCDE", lists[i].picks);
		CU_ASSERT_EQUAL(set(b, lists[i].list, 5, 0), 0);
		CU_ASSERT_STRING_EQUAL(rotation(b, "ABCDEF", 4), lists[i].turns);
		balancer_destroy(b);
	}
}

static void a_weight_of_nought_counts_as_one(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_report r[2];

	set(b, "A0B1", 0, 0);
	CU_ASSERT_STRING_EQUAL(rotation(b, "AB", 4), "ABAB");
	balancer_report(b, r, 2);
	CU_ASSERT_EQUAL(r[0].weight, 1);
	balancer_destroy(b);
}

/* The request has A marked as tried, and A's place is free again: who comes next must not be taken for it. */
static void a_target_that_comes_new_is_not_taken_for_the_one_before(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;

	set(b, "A1", 0, 0);
	for (unsigned i = 0; i < 100; i++) {
		CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &pick));
		balancer_done(b, &pick);
		set(b, i % 2 == 0 ? "B1" : "A1", 0, 0);
	}
	CU_ASSERT_EQUAL(tried.count, 100);
	balancer_destroy(b);
}

static void as_many_targets_as_there_may_be_can_all_be_others_at_once(void)
{
	static struct balancer_entry entries[BALANCER_TARGETS_MAX];
	static char names[BALANCER_TARGETS_MAX][16];
	static unsigned items[3 * BALANCER_TARGETS_MAX];
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;
	uint64_t wake_us;

	memset(items, 0, sizeof(items));
	for (size_t round = 0; round < 2; round++) {
		for (size_t i = 0; i < BALANCER_TARGETS_MAX; i++) {
			snprintf(names[i], sizeof(names[i]), "%zu-%zu", round, i);
			entries[i] = (struct balancer_entry){ .name = names[i], .weight = 1,
				                              .item = &items[round * BALANCER_TARGETS_MAX + i] };
		}
		CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX, 0), 0);
	}
	CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &pick));
	balancer_done(b, &pick);
	CU_ASSERT_TRUE(balancer_pick(b, 0, &tried, &pick)); /* the second is at work: it needs its place, and none is left */
	names[1][0] = '3';
	for (size_t i = 0; i < BALANCER_TARGETS_MAX; i++)
		entries[i].item = &items[2 * BALANCER_TARGETS_MAX + i];
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX, 0), -1);
	CU_ASSERT_EQUAL(balancer_report(b, NULL, 0), BALANCER_TARGETS_MAX);
	balancer_done(b, &pick);
	fail(b, &items[BALANCER_TARGETS_MAX + 1], 0); /* nor is there while it is probed */
	CU_ASSERT_TRUE(balancer_probe_due(b, SECOND, &pick, &wake_us));
	CU_ASSERT_PTR_EQUAL(pick.item, &items[BALANCER_TARGETS_MAX + 1]);
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX, 0), -1);
	balancer_probed(b, &pick, true, SECOND);
	CU_ASSERT_EQUAL(items[2 * BALANCER_TARGETS_MAX], 0);
	CU_ASSERT_EQUAL(balancer_set_targets(b, entries, BALANCER_TARGETS_MAX, 0), 0);
	balancer_destroy(b);
	for (size_t i = 0; i < 3 * BALANCER_TARGETS_MAX; i++)
		CU_ASSERT_EQUAL(items[i], 1);
}

/* An operator's word stands, whatever a probe brings that was under way. */
static void a_probe_that_ends_after_a_drain_changes_nothing(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_pick pick;
	uint64_t wake_us;

	set(b, "A1", 0, 0);
	CU_ASSERT_TRUE(balancer_probe_due(b, 0, &pick, &wake_us));
	balancer_drain(b, "A", true);
	CU_ASSERT_EQUAL(balancer_probed(b, &pick, false, 5), BALANCER_SAME);
	CU_ASSERT_EQUAL(next_probe(b, 2 * SECOND), UINT64_MAX);
	balancer_drain(b, "A", false);
	CU_ASSERT_TRUE(balancer_any_in(b));
	CU_ASSERT_EQUAL(next_probe(b, 5), SECOND + 5);
	balancer_destroy(b);
}

static void whose_turn_is_next_is_nobodys_when_the_key_decides(void)
{
	struct balancer *b = make(BALANCER_HASH, false, 1, 1);
	struct balancer_report r[2];

	set(b, "A1B1", 0, 0);
	CU_ASSERT_EQUAL(balancer_report(b, r, 2), 2);
	CU_ASSERT_FALSE(r[0].is_next || r[1].is_next);
	balancer_destroy(b);
}

static void any_that_is_in_is_found(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, false, 1, 1);

	CU_ASSERT_FALSE(balancer_any_in(b));
	set(b, "A1B1C1", 0, 0);
	CU_ASSERT_TRUE(balancer_any_in(b));
	fail(b, &released[0], 0);
	fail(b, &released[1], 0);
	CU_ASSERT_TRUE(balancer_any_in(b));
	fail(b, &released[2], 0);
	CU_ASSERT_FALSE(balancer_any_in(b));
	balancer_destroy(b);
}

static void several_that_left_are_each_released_and_the_last_probe_releases_too(void)
{
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_pick probing;
	uint64_t wake_us;

	set(b, "A1B1C1", 0, 0);
	CU_ASSERT_TRUE(balancer_probe_due(b, 0, &probing, &wake_us));
	CU_ASSERT_PTR_EQUAL(probing.item, &released[0]);
	set(b, "D1", 3, 0);
	CU_ASSERT_TRUE(released[0] == 0 && released[1] == 1 && released[2] == 1);
	CU_ASSERT_EQUAL(balancer_probed(b, &probing, false, 0), BALANCER_SAME);
	CU_ASSERT_EQUAL(released[0], 1);
	balancer_destroy(b);
	CU_ASSERT_TRUE(released[0] == 1 && released[3] == 1);
}

static void the_report_tells_of_probes_and_fits_its_room(void)
{
	char name[301];
	struct balancer *b = make(BALANCER_ROUNDROBIN, true, 1, 1);
	struct balancer_entry entries[2] = { { .name = name, .weight = 1, .item = &released[0] },
		                             { .name = "B", .weight = 1, .item = &released[1] } };
	struct balancer_report r[2];
	struct balancer_pick pick;
	uint64_t wake_us;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	memset(r, 0xff, sizeof(r));
	balancer_set_targets(b, entries, 2, 0);
	CU_ASSERT_EQUAL(balancer_report(b, r, 1), 2);
	CU_ASSERT_EQUAL(strnlen(r[0].name, sizeof(r[0].name)), sizeof(r[0].name) - 1);
	CU_ASSERT_EQUAL(((unsigned char *)&r[1])[0], 0xff); /* there was no room for it */
	CU_ASSERT_EQUAL(r[0].next_probe_us, 1); /* due since the beginning of time; 0 would be never */
	CU_ASSERT_FALSE(r[0].probing);
	memset(r, 0xff, sizeof(r));
	CU_ASSERT_TRUE(balancer_probe_due(b, 7, &pick, &wake_us));
	balancer_report(b, r, 2);
	CU_ASSERT_TRUE(r[0].probing);
	CU_ASSERT_EQUAL(r[0].next_probe_us, 0);
	CU_ASSERT_EQUAL(balancer_probed(b, &pick, true, 7), BALANCER_SAME);
	balancer_report(b, r, 2);
	CU_ASSERT_EQUAL(r[0].next_probe_us, 7 + SECOND);
	CU_ASSERT_EQUAL(r[1].next_probe_us, 1);
	balancer_drain(b, "B", true);
	balancer_report(b, r, 2);
	CU_ASSERT_EQUAL(r[1].next_probe_us, 0);
	balancer_destroy(b);
	b = make(BALANCER_ROUNDROBIN, false, 1, 1);
	set(b, "A1", 0, 0);
	balancer_report(b, r, 2);
	CU_ASSERT_EQUAL(r[0].next_probe_us, 0); /* it is in, and probes only connect */
	balancer_destroy(b);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(the_report_says_whose_turn_is_next),
		TEST(equal_weights_take_strict_turns),
		TEST(a_dead_target_leaves_a_gap_and_returns_to_its_place),
		TEST(unequal_weights_are_served_smoothly),
		TEST(no_equal_is_picked_twice_in_a_row_whatever_happens),
		TEST(a_request_meets_each_target_once),
		TEST(leastconn_goes_where_the_least_is_at_work_for_its_weight),
		TEST(leastconn_rotates_among_equals),
		TEST(hash_keeps_a_key_at_its_target_and_moves_only_those_of_a_dead_one),
		TEST(one_failed_request_takes_a_target_out_whatever_probe_fall_says),
		TEST(rise_and_fall_count_probes_in_a_row),
		TEST(a_target_that_is_in_is_probed_only_when_probes_ask),
		TEST(a_hung_target_behind_an_open_port_is_probed_ever_more_rarely),
		TEST(a_success_of_an_earlier_trial_ends_no_later_one),
		TEST(a_probe_that_asks_is_believed),
		TEST(many_requests_that_fail_together_take_it_out_once),
		TEST(a_probe_from_before_a_failure_does_not_bring_it_back),
		TEST(a_name_that_did_not_resolve_begins_out_and_is_probed_at_once),
		TEST(a_target_is_probed_by_one_at_a_time_and_the_longest_due_first),
		TEST(a_drained_target_is_neither_picked_nor_probed),
		TEST(a_target_that_failed_while_drained_is_out_when_it_is_let_back),
		TEST(a_new_list_keeps_those_that_stay_and_their_turn),
		TEST(a_target_that_left_is_released_when_its_last_request_and_probe_are_over),
		TEST(a_list_that_is_too_long_changes_nothing),
		TEST(a_name_that_stands_twice_is_one_target),
		TEST(each_weir_of_each_release_sends_a_key_to_the_same_target),
		TEST(a_request_meets_each_of_many_targets_once),
		TEST(good_probes_of_before_a_failure_do_not_bring_it_back),
		TEST(a_target_that_began_out_is_on_trial_like_any_other),
		TEST(who_comes_in_and_who_changes_the_options_starts_the_turns_afresh),
		TEST(a_list_that_says_nothing_new_leaves_the_turns_as_they_are),
		TEST(the_turn_goes_on_with_the_first_that_is_still_there),
		TEST(a_weight_of_nought_counts_as_one),
		TEST(a_target_that_comes_new_is_not_taken_for_the_one_before),
		TEST(as_many_targets_as_there_may_be_can_all_be_others_at_once),
		TEST(a_probe_that_ends_after_a_drain_changes_nothing),
		TEST(whose_turn_is_next_is_nobodys_when_the_key_decides),
		TEST(any_that_is_in_is_found),
		TEST(several_that_left_are_each_released_and_the_last_probe_releases_too),
		TEST(the_report_tells_of_probes_and_fits_its_room),
		TEST(many_threads_leave_every_count_right),
	};

	return unit_main("balancer", tests, sizeof(tests) / sizeof(tests[0]));
}
