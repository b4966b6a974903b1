/* grade.c of lab 2: does everybody get the turns of its weight, and are they spread?
 *
 * A round is as many requests as all weights together. Of each round every target has to get exactly its weight: that
 * is counted, over weights drawn at random. How the turns lie within a round is compared with the smooth order, where
 * there is only one: 3 1 1 is A B A C A. Then come the moments at which what is owed has to be forgotten: another list,
 * another weight, a request that tried again.
 */
#include "labs/balancing.h"

#include <stdio.h>

#define THREADS 4u
#define BATCH 40u /* a multiple of the weights in the test with threads, and of the targets */

static uint64_t draw(uint64_t *random, uint64_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (*random >> 33) % below;
}

static void equal_weights_are_the_plain_rotation(void)
{
	static const unsigned sevens[] = { 7, 7, 7 };
	struct balancer *ones = make_balancer("ABC", NULL, plain_options());
	struct balancer *b = make_balancer("ABC", sevens, plain_options());

	if (ones == NULL || b == NULL)
		return;
	expect_history(ones, "ABCABCABC", "weights 1 1 1:");
	expect_history(b, "ABCABCABC", "weights 7 7 7, which is the same:");
	balancer_destroy(ones);
	balancer_destroy(b);
}

static void without_a_target_nobody_is_found(void)
{
	struct balancer *b = make_balancer("", NULL, plain_options());

	if (b == NULL)
		return;
	grade_check(serve(b) == '-', "the list is empty, and balancer_pick() says it found a target");
	balancer_destroy(b);
}

static void write_weights(char *text, size_t capacity, const unsigned *weights, size_t count)
{
	size_t length = 0;

	for (size_t i = 0; i < count; i++)
		length += (size_t)snprintf(text + length, capacity - length, "%s%c %u", i > 0 ? ", " : "", 'A' + (int)i,
		                           weights[i]);
}

/* Counts one round and compares. */
static bool round_is_exact(struct balancer *b, const unsigned *weights, size_t count, unsigned round)
{
	unsigned got[26] = { 0 }, total = 0;
	char text[200], weights_text[200];

	for (size_t i = 0; i < count; i++)
		total += weights[i];
	for (unsigned i = 0; i < total; i++) {
		char letter = serve(b);

		if (letter >= 'A' && letter <= 'Z')
			got[letter - 'A']++;
	}
	if (memcmp(got, weights, count * sizeof(got[0])) == 0)
		return true;
	write_weights(weights_text, sizeof(weights_text), weights, count);
	write_weights(text, sizeof(text), got, count);
	grade_fail("weights %s: a round is %u requests, and of round %u they got\n        %s", weights_text, total,
	           round, text);
	return false;
}

static void of_each_round_every_target_gets_its_weight(void)
{
	uint64_t random = grade_seed();

	for (unsigned trial = 0; trial < 60; trial++) {
		char letters[] = "ABCDEF";
		unsigned weights[6];
		size_t count = 2 + draw(&random, 5);
		struct balancer *b;

		letters[count] = '\0';
		for (size_t i = 0; i < count; i++)
			weights[i] = 1 + (unsigned)draw(&random, trial < 5 ? 3 : 12);
		b = make_balancer(letters, weights, plain_options());
		if (b == NULL)
			return;
		for (unsigned round = 1; round <= 3; round++)
			if (!round_is_exact(b, weights, count, round))
				return;
		balancer_destroy(b);
	}
}

static void the_turns_of_a_heavy_target_are_spread_over_the_round(void)
{
	static const struct {
		unsigned weights[3];
		const char *expected, *why;
	} rounds[] = {
		{ { 3, 1, 1 },
		  "ABACAABACA",
		  "weights A 3, B 1, C 1: not three times A in a row while B and C stand idle:" },
		{ { 5, 1, 1 }, "AABACAAAABACAA", "weights A 5, B 1, C 1:" },
		{ { 1, 2, 4 }, "CBCACBC", "weights A 1, B 2, C 4:" },
	};
	size_t right = 0, count = sizeof(rounds) / sizeof(rounds[0]);
	char came[3][32];

	for (size_t i = 0; i < count; i++) {
		struct balancer *b = make_balancer("ABC", rounds[i].weights, plain_options());

		if (b == NULL)
			return;
		serve_many(b, strlen(rounds[i].expected), came[i]);
		right += strcmp(came[i], rounds[i].expected) == 0;
		balancer_destroy(b);
	}
	for (size_t i = 0; i < count; i++)
		if (strcmp(came[i], rounds[i].expected) != 0)
			tell_apart(right > 0 ? 4 : 0, came[i], rounds[i].expected, rounds[i].why);
}

static void a_light_target_beside_a_heavy_one_waits_one_round_and_no_longer(void)
{
	static const unsigned weights[] = { 400000, 1 };
	struct balancer *b = make_balancer("AB", weights, plain_options());

	if (b == NULL)
		return;
	for (unsigned round = 1; round <= 2; round++)
		if (!round_is_exact(b, weights, 2, round))
			return;
	balancer_destroy(b);
}

/* Each request's first target fails it, so it asks again. Equal weights: the turns go on in the circle, whoever asks.
 */
static void a_request_that_tries_again_upsets_no_turn(void)
{
	struct balancer *b = make_balancer("ABC", NULL, plain_options());
	char came[19];

	if (b == NULL)
		return;
	for (size_t i = 0; i < 18; i += 2) {
		struct balancer_tried tried = { .count = 0 };
		struct balancer_pick first, second;

		came[i] = pick_letter(b, &tried, &first);
		came[i + 1] = pick_letter(b, &tried, &second);
		if (!grade_check(came[i] != '-' && came[i + 1] != '-' && came[i] != came[i + 1],
		                 "one request tried twice, and was sent to %c and then to %c", came[i], came[i + 1]))
			return;
		balancer_done(b, &first);
		balancer_done(b, &second);
	}
	came[18] = '\0';
	if (strcmp(came, "ABCABCABCABCABCABC") != 0)
		tell_apart(2, came, "ABCABCABCABCABCABC",
		           "equal weights, and each request tries twice; who was passed over must not be owed a turn:");
	balancer_destroy(b);
}

/* Serves some requests under the first weights, then sets the second, then compares. */
static bool after_a_change(const char *letters, const unsigned *weights, unsigned served, const char *new_letters,
                           const unsigned *new_weights, const char *expected, const char *why)
{
	struct balancer *b = make_balancer(letters, weights, plain_options());
	bool is_right;

	if (b == NULL)
		return false;
	for (unsigned i = 0; i < served; i++)
		serve(b);
	set_letters(b, new_letters, new_weights, 0);
	is_right = expect_history(b, expected, why);
	balancer_destroy(b);
	return is_right;
}

static void after_a_change_nobody_is_owed_anything(void)
{
	static const unsigned hundred_to_one[] = { 100, 1 };

	after_a_change("AB", hundred_to_one, 40, "AB", NULL, "BABABABA",
	               "weights A 100, B 1: 40 requests went to A. Now both weigh 1,\n"
	               "and B is not owed a turn for each of the 40:");
	after_a_change("ABC", NULL, 1, "AB", NULL, "BABABA",
	               "weights 1 1 1: A had its turn. C left, so B and A take turns:");
}

static void the_same_list_again_changes_nothing(void)
{
	static const unsigned weights[] = { 3, 1, 1 };

	after_a_change(
		"ABC", weights, 2, "ABC", weights, "ACAABACA",
		"weights A 3, B 1, C 1: A and B had their turn. The same list came again, so the round goes on:");
}

static void pick_and_finish(void *balancer)
{
	struct balancer_pick picks[BATCH];

	for (size_t i = 0; i < BATCH; i++) {
		struct balancer_tried tried = { .count = 0 };

		if (pick_letter(balancer, &tried, &picks[i]) == '-')
			grade_fail("three targets, and a pick found none");
	}
	for (size_t i = 0; i < BATCH; i++)
		balancer_done(balancer, &picks[i]);
}

static void four_threads_at_once_leave_every_target_its_exact_share(void)
{
	static const unsigned weights[] = { 5, 2, 1 };
	struct balancer *b = make_balancer("ABC", weights, plain_options());
	struct balancer_report reports[3] = { { .active = 0 } };
	unsigned long rounds;

	if (b == NULL)
		return;
	if (!round_is_exact(b, weights, 3, 1)) { /* with one thread: nothing to be seen with four */
		balancer_destroy(b);
		return;
	}
	rounds = 1 + BATCH / 8 * grade_crowd(THREADS, pick_and_finish, b);
	balancer_report(b, reports, 3);
	grade_check(reports[0].requests_total == 5 * rounds && reports[1].requests_total == 2 * rounds &&
	                    reports[2].requests_total == rounds,
	            "weights A 5, B 2, C 1: %lu rounds by %u threads should have given   A %lu   B %lu   C %lu\n"
	            "they had   A %ju   B %ju   C %ju: two threads reckoned with the credits at the same time",
	            rounds, THREADS, 5 * rounds, 2 * rounds, rounds, (uintmax_t)reports[0].requests_total,
	            (uintmax_t)reports[1].requests_total, (uintmax_t)reports[2].requests_total);
	balancer_destroy(b);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(3, equal_weights_are_the_plain_rotation),
		GRADE(2, without_a_target_nobody_is_found),
		GRADE(7, of_each_round_every_target_gets_its_weight),
		GRADE(8, the_turns_of_a_heavy_target_are_spread_over_the_round),
		GRADE(3, a_light_target_beside_a_heavy_one_waits_one_round_and_no_longer),
		GRADE(4, a_request_that_tries_again_upsets_no_turn),
		GRADE(5, after_a_change_nobody_is_owed_anything),
		GRADE(3, the_same_list_again_changes_nothing),
		GRADE(5, four_threads_at_once_leave_every_target_its_exact_share),
	};

	return grade_main("02-weighted-rotation", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
