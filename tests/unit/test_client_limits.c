/* test_client_limits.c: how fast each client may come, as a specification. All time is made up.
 *
 * The small tests give one rule each. Then a naive model, which keeps every moment at which a key was let in and counts
 * them anew for each request, is compared with the table over random schedules of requests with several keys, blocks,
 * shadows and exemptions; and changes of the rates are let loose on it, to show that no change is ever a gift.
 */
#include "../../lib/client_limits.h"
#include "../../lib/siphash.h"
#include "unit.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000)
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static struct client_ask ask_of(uint64_t key, unsigned count, unsigned burst)
{
	return (struct client_ask){ .key = key, .count = count, .window_us = SECOND, .burst = burst };
}

static bool asks(struct client_limits *limits, struct client_ask ask, uint64_t now_us)
{
	return client_limits_ask(limits, &ask, 1, now_us);
}

static struct client_ask answer_to(struct client_limits *limits, struct client_ask ask, uint64_t now_us)
{
	client_limits_ask(limits, &ask, 1, now_us);
	return ask;
}

static unsigned count_passes(struct client_limits *limits, struct client_ask ask, unsigned tries, uint64_t now_us)
{
	unsigned passes = 0;

	for (unsigned i = 0; i < tries; i++)
		passes += asks(limits, ask, now_us);
	return passes;
}

static struct client_limits_report report_of(struct client_limits *limits)
{
	struct client_limits_report report;

	client_limits_report(limits, &report);
	return report;
}

/* ---- rate and burst ---------------------------------------------------------------------------------------------- */

static void a_burst_passes_at_once_and_comes_back_at_the_rate(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask two_a_second = ask_of(7, 2, 4);

	CU_ASSERT_EQUAL(count_passes(limits, two_a_second, 9, SECOND), 4);
	CU_ASSERT_EQUAL(count_passes(limits, two_a_second, 9, SECOND + SECOND / 2 - 1), 0);
	CU_ASSERT_EQUAL(count_passes(limits, two_a_second, 9, SECOND + SECOND / 2), 1);
	CU_ASSERT_EQUAL(count_passes(limits, two_a_second, 9, 2 * SECOND + SECOND / 2), 2);
	CU_ASSERT_EQUAL(count_passes(limits, two_a_second, 9, 100 * SECOND), 4);
	client_limits_destroy(limits);
}

static void an_answer_says_what_is_left_and_when_more_comes(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask half = { .key = 5, .count = 1, .window_us = 2 * SECOND, .burst = 3 };
	struct client_ask said = answer_to(limits, half, 1);

	CU_ASSERT_FALSE(said.is_over);
	CU_ASSERT_EQUAL(said.remaining, 2);
	CU_ASSERT_EQUAL(said.reset_us, 2 * SECOND);
	said = answer_to(limits, half, 1 + SECOND); /* half a request has come back: it is no whole one */
	CU_ASSERT_EQUAL(said.remaining, 1);
	CU_ASSERT_EQUAL(said.reset_us, 3 * SECOND);
	said = answer_to(limits, half, 1 + SECOND);
	CU_ASSERT_EQUAL(said.remaining, 0);
	CU_ASSERT_FALSE(said.is_over);
	said = answer_to(limits, half, 1 + SECOND);
	CU_ASSERT_TRUE(said.is_over);
	CU_ASSERT_EQUAL(said.remaining, 0);
	CU_ASSERT_EQUAL(said.retry_after_us, SECOND);
	CU_ASSERT_EQUAL(said.reset_us, 5 * SECOND);
	CU_ASSERT_FALSE(asks(limits, half, 2 * SECOND));
	CU_ASSERT_TRUE(asks(limits, half, 1 + 2 * SECOND)); /* who obeys gets in */
	client_limits_destroy(limits);
}

static void a_rate_that_does_not_divide_the_window_never_drifts(void)
{
	static const unsigned rates[] = { 3, 7, 333, 999, 999983 };

	for (size_t i = 0; i < LENGTH(rates); i++) {
		struct client_limits *limits = client_limits_create(100);
		uint64_t now_us = 5, windows = rates[i] > 1000 ? 1 : 300;

		CU_ASSERT_TRUE(asks(limits, ask_of(1, rates[i], 1), now_us));
		for (uint64_t n = 0; n < windows * rates[i]; n++) {
			struct client_ask said = answer_to(limits, ask_of(1, rates[i], 1), now_us);

			if (said.is_over)
				now_us += said.retry_after_us;
			if (said.is_over && !asks(limits, ask_of(1, rates[i], 1), now_us))
				CU_FAIL("who obeyed was refused");
		}
		/* Each waited for its whole microsecond, and lost at most one by that. */
		CU_ASSERT_TRUE(now_us >= 5 + windows * SECOND);
		CU_ASSERT_TRUE(now_us <= 5 + windows * SECOND + windows * rates[i]);
		client_limits_destroy(limits);
	}
}

/* Each is tried just before and just when it is due: a rounded interval would be late or early by now. The burst of two
   keeps the fractions of a microsecond by which each comes too late. */
static void three_a_second_are_exactly_three_in_every_second(void)
{
	struct client_limits *limits = client_limits_create(100);
	static const uint64_t due_us[] = { 0, 333334, 666667 };

	CU_ASSERT_TRUE(asks(limits, ask_of(1, 3, 2), 0));
	for (uint64_t s = 0; s < 5000; s++)
		for (size_t i = 0; i < LENGTH(due_us); i++) {
			CU_ASSERT_TRUE(s + i == 0 || !asks(limits, ask_of(1, 3, 2), s * SECOND + due_us[i] - 1));
			CU_ASSERT_TRUE(asks(limits, ask_of(1, 3, 2), s * SECOND + due_us[i]));
		}
	client_limits_destroy(limits);
}

static void keys_do_not_disturb_each_other(void)
{
	struct client_limits *limits = client_limits_create(30000); /* so many places that no nine keys ever meet in one set */

	for (unsigned i = 0; i < 300; i++) {
		char text[16];
		int length = snprintf(text, sizeof(text), "10.0.0.%u", i);
		uint64_t key = client_limits_hash(limits, "client", text, (size_t)length);

		CU_ASSERT_EQUAL(count_passes(limits, ask_of(key, 1, 2), 3, SECOND), 2);
	}
	CU_ASSERT_EQUAL(report_of(limits).keys, 300);
	CU_ASSERT_EQUAL(report_of(limits).forgotten_total, 0);
	client_limits_destroy(limits);
}

static void numbers_out_of_bounds_are_taken_as_the_bound(void)
{
	struct client_limits *limits = client_limits_create(10);
	struct client_ask least = { .key = 0 };
	struct client_ask most = { .key = 9, .count = UINT32_MAX, .window_us = UINT64_MAX, .burst = UINT32_MAX,
		                   .block_us = UINT64_MAX };

	CU_ASSERT_EQUAL(count_passes(limits, least, 5, 10), 1);
	CU_ASSERT_EQUAL(count_passes(limits, least, 5, 11), 1);
	CU_ASSERT_EQUAL(count_passes(limits, most, CLIENT_LIMITS_BURST_MAX + 5, 10), CLIENT_LIMITS_BURST_MAX);
	CU_ASSERT_FALSE(asks(limits, most, UINT64_MAX)); /* blocked for good */
	CU_ASSERT_TRUE(client_limits_ask(limits, NULL, 0, 10));
	CU_ASSERT_PTR_NULL(client_limits_create(SIZE_MAX / 2));
	client_limits_destroy(limits);
	client_limits_destroy(NULL);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static void who_goes_over_is_blocked_and_refused_requests_do_not_prolong_it(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask ask = ask_of(3, 10, 2);

	ask.block_us = 5 * SECOND;
	CU_ASSERT_EQUAL(count_passes(limits, ask, 2, SECOND), 2);
	CU_ASSERT_EQUAL(answer_to(limits, ask, SECOND + 100).retry_after_us, 5 * SECOND);
	for (uint64_t now_us = SECOND + 100; now_us < 6 * SECOND + 100; now_us += 9973)
		CU_ASSERT_FALSE(asks(limits, ask, now_us));
	CU_ASSERT_EQUAL(answer_to(limits, ask, 6 * SECOND + 99).retry_after_us, 1);
	CU_ASSERT_EQUAL(answer_to(limits, ask, 6 * SECOND + 99).reset_us, 1);
	CU_ASSERT_EQUAL(count_passes(limits, ask, 2, 6 * SECOND + 100), 2);
	CU_ASSERT_EQUAL(answer_to(limits, ask, 6 * SECOND + 100).retry_after_us, 5 * SECOND); /* over once more */
	client_limits_destroy(limits);
}

static void a_block_shorter_than_the_rate_is_not_begun_again_and_again(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask ask = { .key = 1, .count = 1, .window_us = 10 * SECOND, .burst = 1, .block_us = 3 * SECOND };

	CU_ASSERT_TRUE(asks(limits, ask, 0));
	for (uint64_t now_us = 1; now_us < 10 * SECOND; now_us += 10007)
		CU_ASSERT_FALSE(asks(limits, ask, now_us));
	CU_ASSERT_TRUE(asks(limits, ask, 10 * SECOND));
	client_limits_destroy(limits);
}

static void a_changed_block_applies_at_once(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask ask = ask_of(3, 10, 1);

	ask.block_us = 100 * SECOND;
	CU_ASSERT_EQUAL(count_passes(limits, ask, 2, SECOND), 1);
	CU_ASSERT_FALSE(asks(limits, ask, 20 * SECOND));
	ask.block_us = 30 * SECOND;
	CU_ASSERT_EQUAL(answer_to(limits, ask, 20 * SECOND).retry_after_us, 11 * SECOND);
	ask.block_us = 200 * SECOND;
	CU_ASSERT_EQUAL(answer_to(limits, ask, 20 * SECOND).retry_after_us, 181 * SECOND);
	ask.block_us = 10 * SECOND;
	CU_ASSERT_TRUE(asks(limits, ask, 20 * SECOND));
	client_limits_destroy(limits);
}

/* ---- shadow, exempt ---------------------------------------------------------------------------------------------- */

static void a_shadow_counts_what_it_would_have_refused_and_refuses_nothing(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask shadow = ask_of(3, 1, 2);

	shadow.shadow = true;
	shadow.block_us = 10 * SECOND;
	for (unsigned i = 0; i < 9; i++) {
		struct client_ask ask = shadow;

		CU_ASSERT_TRUE(client_limits_ask(limits, &ask, 1, SECOND));
		CU_ASSERT_EQUAL(ask.is_over, i >= 2);
	}
	CU_ASSERT_TRUE(answer_to(limits, shadow, 10 * SECOND).is_over); /* it would be blocked */
	CU_ASSERT_FALSE(answer_to(limits, shadow, 11 * SECOND).is_over);
	client_limits_destroy(limits);
}

static void an_exempt_request_is_counted_never_refused_and_begins_no_block(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask ask = ask_of(3, 1, 4), exempt = ask;

	ask.block_us = exempt.block_us = 60 * SECOND;
	exempt.exempt = true;
	CU_ASSERT_EQUAL(count_passes(limits, exempt, 3, SECOND), 3);
	CU_ASSERT_EQUAL(count_passes(limits, ask, 1, SECOND), 1); /* the exempt ones were counted */
	CU_ASSERT_EQUAL(count_passes(limits, exempt, 50, SECOND), 50);
	CU_ASSERT_TRUE(answer_to(limits, exempt, SECOND).is_over);
	CU_ASSERT_TRUE(asks(limits, ask, 2 * SECOND)); /* and those over the rate neither add to it nor block */
	CU_ASSERT_FALSE(asks(limits, ask, 2 * SECOND));
	CU_ASSERT_TRUE(asks(limits, exempt, 3 * SECOND)); /* passes a block that another began, and does not end it */
	CU_ASSERT_FALSE(asks(limits, ask, 4 * SECOND));
	client_limits_destroy(limits);
}

/* ---- several asks ------------------------------------------------------------------------------------------------ */

static void a_request_that_one_rule_refuses_takes_nothing_from_the_others(void)
{
	struct client_limits *limits = client_limits_create(100);

	for (unsigned round = 0; round < 20; round++) {
		struct client_ask three[] = { ask_of(1, 1, 5), ask_of(2, 1, 2), ask_of(3, 1, 9) };

		CU_ASSERT_EQUAL(client_limits_ask(limits, three, 3, SECOND), round < 2);
		CU_ASSERT_EQUAL(three[1].is_over, round >= 2);
		CU_ASSERT_EQUAL(three[0].remaining, round < 2 ? 4 - round : 3);
		CU_ASSERT_EQUAL(three[2].remaining, round < 2 ? 8 - round : 7);
	}
	CU_ASSERT_EQUAL(count_passes(limits, ask_of(1, 1, 5), 9, SECOND), 3);
	CU_ASSERT_EQUAL(count_passes(limits, ask_of(3, 1, 9), 9, SECOND), 7);
	client_limits_destroy(limits);
}

static void a_shadow_beside_a_rule_that_refuses_is_not_charged(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask two[] = { ask_of(1, 1, 3), ask_of(2, 1, 1) };

	two[0].shadow = true;
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(client_limits_ask(limits, two, 2, SECOND), i < 1);
	CU_ASSERT_EQUAL(count_passes(limits, ask_of(1, 1, 3), 9, SECOND), 2);
	client_limits_destroy(limits);
}

static void two_asks_with_one_key_take_two_or_none(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask two[] = { ask_of(1, 1, 5), ask_of(2, 1, 9), ask_of(1, 1, 5) };

	CU_ASSERT_TRUE(client_limits_ask(limits, two, 3, SECOND));
	CU_ASSERT_EQUAL(two[2].remaining, 3);
	CU_ASSERT_TRUE(client_limits_ask(limits, two, 3, SECOND));
	two[0].block_us = two[2].block_us = 7 * SECOND;
	CU_ASSERT_FALSE(client_limits_ask(limits, two, 3, SECOND)); /* one is left: the second of them is over */
	CU_ASSERT_FALSE(two[0].is_over);
	CU_ASSERT_TRUE(two[2].is_over);
	CU_ASSERT_FALSE(asks(limits, two[0], SECOND)); /* and that began the block */
	two[0].block_us = 0;
	CU_ASSERT_EQUAL(count_passes(limits, two[0], 9, SECOND), 1);
	CU_ASSERT_EQUAL(count_passes(limits, ask_of(2, 1, 9), 9, SECOND), 7);
	client_limits_destroy(limits);
}

static void as_many_asks_as_there_may_be_are_one_request(void)
{
	struct client_limits *limits = client_limits_create(100000);
	struct client_ask all[CLIENT_LIMITS_ASKS_MAX];

	for (size_t i = 0; i < LENGTH(all); i++)
		all[i] = ask_of(1 + (LENGTH(all) - i) * 7919, 1, i == 20 ? 2 : 4);
	for (unsigned round = 0; round < 5; round++)
		CU_ASSERT_EQUAL(client_limits_ask(limits, all, LENGTH(all), SECOND), round < 2);
	all[20].shadow = true;
	for (unsigned round = 0; round < 5; round++)
		CU_ASSERT_EQUAL(client_limits_ask(limits, all, LENGTH(all), SECOND), round < 2);
	CU_ASSERT_EQUAL(report_of(limits).keys, LENGTH(all));
	client_limits_destroy(limits);
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

static void a_change_of_the_rate_refills_nobody(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask hour = { .key = 1, .count = 10, .window_us = 3600 * SECOND, .burst = 10 };
	struct client_ask second = ask_of(1, 10, 10);
	struct client_ask minute = { .key = 1, .count = 10, .window_us = 60 * SECOND, .burst = 10 };

	CU_ASSERT_EQUAL(count_passes(limits, second, 99, 0), 10);
	CU_ASSERT_EQUAL(count_passes(limits, hour, 99, 0), 0); /* ten in a second are ten in an hour too */
	CU_ASSERT_EQUAL(answer_to(limits, hour, 0).retry_after_us, 360 * SECOND);
	CU_ASSERT_EQUAL(count_passes(limits, minute, 99, 0), 0);
	CU_ASSERT_EQUAL(answer_to(limits, minute, 0).retry_after_us, 6 * SECOND);
	CU_ASSERT_EQUAL(count_passes(limits, second, 99, 0), 0);
	CU_ASSERT_EQUAL(answer_to(limits, second, 0).retry_after_us, SECOND / 10);
	/* What passed since is judged by the slower. */
	CU_ASSERT_EQUAL(count_passes(limits, hour, 99, 100 * SECOND), 0);
	CU_ASSERT_EQUAL(count_passes(limits, second, 99, 200 * SECOND), 0);
	CU_ASSERT_EQUAL(count_passes(limits, second, 99, 201 * SECOND), 10);
	client_limits_destroy(limits);
}

static void a_change_of_the_burst_adds_or_takes_the_difference(void)
{
	struct client_limits *limits = client_limits_create(100);

	CU_ASSERT_EQUAL(count_passes(limits, ask_of(1, 1, 5), 3, 0), 3);
	CU_ASSERT_EQUAL(count_passes(limits, ask_of(1, 1, 2), 9, 0), 0);
	CU_ASSERT_EQUAL(answer_to(limits, ask_of(1, 1, 2), 0).retry_after_us, 2 * SECOND);
	CU_ASSERT_EQUAL(count_passes(limits, ask_of(1, 1, 7), 9, 0), 4);
	client_limits_destroy(limits);
}

static void a_debt_in_another_window_is_rounded_up(void)
{
	struct client_limits *limits = client_limits_create(100);
	struct client_ask slow = { .key = 1, .count = 1, .window_us = 9, .burst = 2 };
	struct client_ask fast = { .key = 1, .count = 1, .window_us = 1, .burst = 2 };

	CU_ASSERT_EQUAL(count_passes(limits, slow, 3, 0), 2);
	CU_ASSERT_FALSE(asks(limits, fast, 4)); /* 14 ninths of a request and one more are over two */
	CU_ASSERT_TRUE(asks(limits, fast, 5));
	client_limits_destroy(limits);
}

/* Whatever the rates in between were: no window holds more than the largest burst and the fastest rate allow. */
static void no_sequence_of_changes_is_a_gift(void)
{
	enum { STEPS = 400 };
	static const uint64_t windows_us[] = { 1, 7, 999, SECOND, 3 * SECOND + 1, CLIENT_LIMITS_WINDOW_MAX_US };

	for (unsigned seed = 1; seed <= 3000; seed++) {
		unsigned state = seed, passed = 0;
		struct client_limits *limits = client_limits_create(1);
		uint64_t passed_us[STEPS], now_us = 0, window_us = windows_us[seed % LENGTH(windows_us)];
		unsigned fastest = 1 + (unsigned)rand_r(&state) % 20, burst = 1 + (unsigned)rand_r(&state) % 6;

		for (unsigned step = 0; step < STEPS; step++) {
			/* The same or a slower rate, said in another window. */
			uint64_t times = 1 + (uint64_t)rand_r(&state) % 9;
			struct client_ask ask = { .key = 1, .burst = 1 + (unsigned)rand_r(&state) % burst };

			times = window_us > CLIENT_LIMITS_WINDOW_MAX_US / 9 ? 1 : times;
			ask.window_us = window_us * times;
			ask.count = 1 + (unsigned)((uint64_t)rand_r(&state) % (fastest * times));
			now_us += (uint64_t)rand_r(&state) % (1 + window_us * 2 / fastest);
			if (asks(limits, ask, now_us))
				passed_us[passed++] = now_us;
		}
		for (unsigned first = 0; first < passed; first++)
			for (unsigned last = first; last < passed; last++) {
				uint64_t time_us = passed_us[last] - passed_us[first];

				if ((last - first + 1) * window_us > burst * window_us + time_us * fastest) {
					printf("seed %u: %u in %llu us\n", seed, last - first + 1,
					       (unsigned long long)time_us);
					CU_FAIL("a change was a gift");
					client_limits_destroy(limits);
					return;
				}
			}
		CU_ASSERT_TRUE(passed > 0);
		client_limits_destroy(limits);
	}
}

/* ---- a naive model over random schedules --------------------------------------------------------------------------------- */

#define MODEL_KEYS 5u
#define MODEL_STEPS 300u

struct model_key {
	unsigned count, burst;
	uint64_t window_us, block_us;
	uint64_t passed_us[MODEL_STEPS];
	unsigned passed;
	bool is_over;
	uint64_t over_us;
};

/* Would it be too many in any of the windows that end now? */
static bool model_is_over(const struct model_key *k, uint64_t now_us)
{
	if (k->is_over && now_us < k->over_us + k->block_us)
		return true;
	for (unsigned first = 0; first < k->passed; first++) {
		uint64_t in_window = k->passed - first + 1;

		if (in_window * k->window_us > k->burst * k->window_us + (now_us - k->passed_us[first]) * k->count)
			return true;
	}
	return false;
}

static struct model_key random_key(unsigned *state)
{
	static const uint64_t windows_us[] = { 1000, 60000, 333333, SECOND };
	struct model_key k = { .count = 1 + (unsigned)rand_r(state) % 30, .burst = 1 + (unsigned)rand_r(state) % 5 };

	k.window_us = windows_us[(unsigned)rand_r(state) % LENGTH(windows_us)];
	k.block_us = rand_r(state) % 3 == 0 ? (uint64_t)rand_r(state) % (2 * k.window_us) : 0;
	return k;
}

/* One request for some of the keys, to the table and to the model. False when they differ. */
static bool same_step(struct client_limits *limits, struct model_key *model, unsigned *state, uint64_t now_us)
{
	struct client_ask request[MODEL_KEYS];
	size_t which[MODEL_KEYS], count = 0;
	bool may_pass = true, over[MODEL_KEYS];

	for (size_t i = 0; i < MODEL_KEYS; i++) {
		struct model_key *k = &model[i];

		if (rand_r(state) % 2 == 0)
			continue;
		request[count] = (struct client_ask){ .key = i + 1, .count = k->count, .window_us = k->window_us,
			                              .burst = k->burst, .block_us = k->block_us,
			                              .shadow = rand_r(state) % 5 == 0, .exempt = rand_r(state) % 9 ==
			   0 };
		over[count] = model_is_over(k, now_us);
		if (over[count] && !request[count].shadow && !request[count].exempt)
			may_pass = false;
		which[count++] = i;
	}
	if (client_limits_ask(limits, request, count, now_us) != may_pass)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct model_key *k = &model[which[i]];

		if (request[i].is_over != over[i])
			return false;
		if (!over[i])
			k->is_over = false;
		if (!over[i] && may_pass)
			k->passed_us[k->passed++] = now_us;
		if (over[i] && !request[i].exempt && !k->is_over) {
			k->is_over = true;
			k->over_us = now_us;
		}
		uint64_t again_us = now_us + request[i].retry_after_us;
		if (over[i] && (again_us == now_us || model_is_over(k, again_us) || !model_is_over(k, again_us - 1)))
			return false;
	}
	return true;
}

static void the_table_does_what_a_naive_model_does_over_random_schedules(void)
{
	static struct model_key model[MODEL_KEYS];
	unsigned passed = 0;

	for (unsigned seed = 1; seed <= 1500; seed++) {
		struct client_limits *limits = client_limits_create(100);
		unsigned state = seed;
		uint64_t now_us = 1;

		for (size_t i = 0; i < MODEL_KEYS; i++)
			model[i] = random_key(&state);
		for (unsigned step = 0; step < MODEL_STEPS; step++) {
			uint64_t pause_us = 1 + SECOND / 40 / (1 + (uint64_t)rand_r(&state) % 20000);

			now_us += rand_r(&state) % 4 == 0 ? (uint64_t)rand_r(&state) % pause_us : 0;
			if (rand_r(&state) % 50 == 0)
				now_us += SECOND / 3;
			if (!same_step(limits, model, &state, now_us)) {
				printf("seed %u differs at step %u\n", seed, step);
				CU_FAIL("the table and the model differ");
				client_limits_destroy(limits);
				return;
			}
		}
		for (size_t i = 0; i < MODEL_KEYS; i++)
			passed += model[i].passed;
		client_limits_destroy(limits);
	}
	CU_ASSERT_TRUE(passed > 10000);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void a_key_in_a_full_set_takes_the_place_of_the_one_that_matters_least(void)
{
	struct client_limits *limits = client_limits_create(4); /* eight places, one set */
	struct client_ask blocked = ask_of(8, 1, 1);

	blocked.block_us = 600 * SECOND;
	for (uint64_t key = 1; key <= 7; key++)
		CU_ASSERT_EQUAL(count_passes(limits, ask_of(key, 1, 100), (unsigned)(10 * key), 0), 10 * key);
	CU_ASSERT_EQUAL(count_passes(limits, blocked, 2, 0), 1);
	CU_ASSERT_EQUAL(report_of(limits).keys, 8);
	CU_ASSERT_TRUE(asks(limits, ask_of(9, 1, 100), 11 * SECOND)); /* the first has paid its ten: it is nobody */
	CU_ASSERT_EQUAL(report_of(limits).forgotten_total, 0);
	CU_ASSERT_EQUAL(report_of(limits).keys, 8);
	for (uint64_t key = 100; key < 200; key++) /* each pushes out the one before, not those that owe much */
		CU_ASSERT_TRUE(asks(limits, ask_of(key, 1, 100), 11 * SECOND));
	CU_ASSERT_EQUAL(report_of(limits).forgotten_total, 100);
	for (uint64_t key = 2; key <= 7; key++)
		CU_ASSERT_EQUAL(answer_to(limits, ask_of(key, 1, 100), 11 * SECOND).remaining, 100 - 10 * key + 11 - 1);
	CU_ASSERT_FALSE(asks(limits, blocked, 500 * SECOND));
	CU_ASSERT_EQUAL(report_of(limits).keys, 8);
	client_limits_destroy(limits);
}

static void requests_that_are_refused_leave_no_new_keys(void)
{
	struct client_limits *limits = client_limits_create(1000);

	CU_ASSERT_TRUE(asks(limits, ask_of(1, 1, 1), 0));
	for (uint64_t key = 2; key < 500; key++) {
		struct client_ask two[] = { ask_of(1, 1, 1), ask_of(key, 1, 1) };

		CU_ASSERT_FALSE(client_limits_ask(limits, two, 2, 1));
	}
	CU_ASSERT_EQUAL(report_of(limits).keys, 1);
	client_limits_destroy(limits);
}

static void a_hash_is_the_same_for_one_table_and_another_for_the_next(void)
{
	struct client_limits *one = client_limits_create(1), *other = client_limits_create(1);

	CU_ASSERT_EQUAL(client_limits_hash(one, "a", "b", 1), client_limits_hash(one, "a", "b", 1));
	CU_ASSERT_NOT_EQUAL(client_limits_hash(one, "a", "b", 1), client_limits_hash(other, "a", "b", 1));
	CU_ASSERT_NOT_EQUAL(client_limits_hash(one, "ab", "c", 1), client_limits_hash(one, "a", "bc", 2));
	CU_ASSERT_NOT_EQUAL(client_limits_hash(one, "a", "b", 1), client_limits_hash(one, "a", "b\0", 2));
	CU_ASSERT_NOT_EQUAL(client_limits_hash(one, "a", "", 0), client_limits_hash(one, "b", "", 0));
	client_limits_destroy(one);
	client_limits_destroy(other);
}

/* What the allocator has handed out. A sanitizer's allocator does not keep this count: nought. */
static size_t allocated_bytes(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/* Names that an attacker has worked out to fall into one set, for a secret that he knows: all zeros, as when there were none. */
static void names_chosen_to_meet_in_one_set_are_spread_by_the_secret(void)
{
	enum { SETS = 256, NAMES = 400 };
	static const uint8_t known[SIPHASH_SECRET_BYTES];
	struct client_limits *limits = client_limits_create(SETS * 8 / 2);
	unsigned found = 0, chosen_sets = 0;

	for (unsigned i = 0; found < NAMES; i++) {
		char name[16];
		struct siphash hash;
		int length = snprintf(name, sizeof name, "%u", i);

		siphash_begin(&hash, known);
		siphash_add(&hash, "r", 2);
		siphash_add(&hash, name, (size_t)length);
		if (siphash_end(&hash) % SETS != 0)
			continue;
		uint64_t key = client_limits_hash(limits, "r", name, (size_t)length);
		chosen_sets += key % SETS == 0;
		CU_ASSERT_TRUE(asks(limits, ask_of(key, 1, 10), SECOND));
		found++;
	}
	/* In one set eight of them would be left, each new one pushing out another. With one secret of a hundred nine meet by
	   chance. */
	CU_ASSERT_TRUE(report_of(limits).keys >= NAMES - 10);
	CU_ASSERT_TRUE(report_of(limits).forgotten_total <= 10);
	CU_ASSERT_TRUE(chosen_sets < 30);
	client_limits_destroy(limits);
}

static void a_million_keys_stay_within_98_mebibytes_and_are_remembered(void)
{
	size_t before = allocated_bytes(), bound = (size_t)98 << 20, forgotten = 0;
	struct client_limits *limits = client_limits_create(1000000);
	struct client_limits_report report = report_of(limits);

	CU_ASSERT_TRUE(report.bytes <= bound);
	CU_ASSERT_TRUE(report.bytes >= ((size_t)1 << 21) * 48);
	size_t made = allocated_bytes();
	CU_ASSERT_TRUE(made - before <= bound);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 1000000; i++) {
			uint64_t key = client_limits_hash(limits, "client", (const char *)&i, sizeof(i));
			struct client_ask ask = { .key = key, .count = 1, .window_us = 3600 * SECOND, .burst = 2 };

			client_limits_ask(limits, &ask, 1, 1 + round);
			forgotten += round == 1 && ask.remaining != 0;
		}
	CU_ASSERT_EQUAL(allocated_bytes(), made); /* nothing grew */
	report = report_of(limits);
	CU_ASSERT_TRUE(report.keys > 980000 && report.keys <= 1000000);
	CU_ASSERT_TRUE(forgotten < 20000);
	CU_ASSERT_TRUE(report.forgotten_total >= forgotten && report.forgotten_total <= 3 * forgotten + 20000);
	if (getenv("UNIT_VERBOSE") != NULL)
		printf("%zu bytes, %zu of a million keys forgotten\n", report.bytes, forgotten);
	client_limits_destroy(limits);
}

static void a_flood_of_keys_needs_no_more_memory_than_one(void)
{
	struct client_limits *limits = client_limits_create(1000);
	size_t made = allocated_bytes();
	unsigned state = 1;

	for (uint64_t i = 0; i < 200000; i++) {
		uint64_t key = (uint64_t)rand_r(&state) << 32 ^ (uint64_t)rand_r(&state);

		CU_ASSERT_TRUE_FATAL(asks(limits, ask_of(key, 1, 1), i));
	}
	CU_ASSERT_EQUAL(allocated_bytes(), made);
	CU_ASSERT_EQUAL(report_of(limits).keys, 2048);
	CU_ASSERT_TRUE(report_of(limits).forgotten_total > 190000); /* all of them within a second */
	client_limits_destroy(limits);
}

/* ---- from many threads at once --------------------------------------------------------------------------------------------- */

#define THREADS 6u
#define THREAD_KEYS 40u
#define THREAD_STEPS 20000u

struct worker {
	pthread_t thread;
	struct client_limits *limits;
	unsigned number;
	unsigned passed[THREAD_KEYS];
};

static void *work(void *argument)
{
	struct worker *w = argument;
	unsigned state = w->number + 1;

	for (unsigned step = 0; step < THREAD_STEPS; step++) {
		struct client_ask request[3];
		size_t keys[3];

		for (size_t i = 0; i < 3; i++) {
			keys[i] = (size_t)rand_r(&state) % THREAD_KEYS;
			request[i] = ask_of(1 + keys[i] * 7, 1, 500); /* other stripes, in any order */
		}
		/* Time stands still: what passes in all is the burst. */
		if (client_limits_ask(w->limits, request, 3, SECOND))
			for (size_t i = 0; i < 3; i++)
				w->passed[keys[i]]++;
		if (step % 1000 == 0)
			report_of(w->limits);
	}
	return NULL;
}

static void many_threads_together_take_no_more_than_the_burst(void)
{
	static struct worker workers[THREADS];
	struct client_limits *limits = client_limits_create(4000);

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .limits = limits, .number = i };
		CU_ASSERT_EQUAL_FATAL(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (size_t key = 0; key < THREAD_KEYS; key++) {
		unsigned passed = 0;

		for (unsigned i = 0; i < THREADS; i++)
			passed += workers[i].passed[key];
		/* What a refused request took would be missing here. */
		CU_ASSERT_EQUAL(passed + count_passes(limits, ask_of(1 + key * 7, 1, 500), 500, SECOND), 500);
	}
	CU_ASSERT_EQUAL(report_of(limits).keys, THREAD_KEYS);
	client_limits_destroy(limits);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_burst_passes_at_once_and_comes_back_at_the_rate),
		TEST(an_answer_says_what_is_left_and_when_more_comes),
		TEST(a_rate_that_does_not_divide_the_window_never_drifts),
		TEST(three_a_second_are_exactly_three_in_every_second),
		TEST(keys_do_not_disturb_each_other),
		TEST(numbers_out_of_bounds_are_taken_as_the_bound),
		TEST(who_goes_over_is_blocked_and_refused_requests_do_not_prolong_it),
		TEST(a_block_shorter_than_the_rate_is_not_begun_again_and_again),
		TEST(a_changed_block_applies_at_once),
		TEST(a_shadow_counts_what_it_would_have_refused_and_refuses_nothing),
		TEST(an_exempt_request_is_counted_never_refused_and_begins_no_block),
		TEST(a_request_that_one_rule_refuses_takes_nothing_from_the_others),
		TEST(a_shadow_beside_a_rule_that_refuses_is_not_charged),
		TEST(two_asks_with_one_key_take_two_or_none),
		TEST(as_many_asks_as_there_may_be_are_one_request),
		TEST(a_change_of_the_rate_refills_nobody),
		TEST(a_change_of_the_burst_adds_or_takes_the_difference),
		TEST(a_debt_in_another_window_is_rounded_up),
		TEST(no_sequence_of_changes_is_a_gift),
		TEST(the_table_does_what_a_naive_model_does_over_random_schedules),
		TEST(a_key_in_a_full_set_takes_the_place_of_the_one_that_matters_least),
		TEST(requests_that_are_refused_leave_no_new_keys),
		TEST(a_hash_is_the_same_for_one_table_and_another_for_the_next),
		TEST(names_chosen_to_meet_in_one_set_are_spread_by_the_secret),
		TEST(a_million_keys_stay_within_98_mebibytes_and_are_remembered),
		TEST(a_flood_of_keys_needs_no_more_memory_than_one),
		TEST(many_threads_together_take_no_more_than_the_burst),
	};

	return unit_main("client_limits", tests, LENGTH(tests));
}
