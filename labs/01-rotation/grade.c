/* grade.c of lab 1: is it a rotation, and does it stay one when requests try again, the list changes, and several
 * threads pick at once?
 *
 * Most tests write down whom a series of requests went to and compare that with whose turn it was. The last one cannot:
 * nobody knows in which order four threads came. But in a rotation of five targets, of any 5 n picks exactly n go to
 * each, whoever made them; when two threads read the same turn before either moved on, one target has a pick too many
 * and a later one is missing.
 */
#include "labs/balancing.h"

#include <stdio.h>

#define THREADS 4u
#define LETTERS "ABCDE"
#define BATCH 40u /* a multiple of the letters */

static void nine_requests_go_to_three_targets_in_turn(void)
{
	struct balancer *b = make_balancer("ABC", NULL, plain_options());
	char came[10];
	bool goes_round = true;

	if (b == NULL)
		return;
	serve_many(b, 9, came);
	for (size_t i = 0; i < 9; i++)
		goes_round = goes_round && came[i] >= 'A' && came[i] <= 'C' &&
		             (i == 0 || (came[i] - came[i - 1] + 3) % 3 == 1);
	if (strcmp(came, "ABCABCABC") != 0)
		tell_apart(goes_round ? 4 : 0, came, "ABCABCABC",
		           goes_round ? "a rotation, but the first turn is the first target's:"
		                      : "three targets, nobody fails:");
	balancer_destroy(b);
}

static void one_target_gets_every_request(void)
{
	struct balancer *b = make_balancer("A", NULL, plain_options());

	if (b != NULL && expect_history(b, "AAAA", "one target is a circle too:"))
		grade_check(balancer_any_in(b), "balancer_any_in() says false, and A is there");
	balancer_destroy(b);
}

static void without_a_target_nobody_is_found(void)
{
	struct balancer *b = make_balancer("", NULL, plain_options());

	if (b == NULL)
		return;
	grade_check(serve(b) == '-', "the list is empty, and balancer_pick() says it found a target");
	if (balancer_any_in(b))
		grade_partial(2, "the list is empty, and balancer_any_in() says true");
	set_letters(b, "AB", NULL, 0);
	expect_history(b, "ABA", "then A and B came:");
	balancer_destroy(b);
}

/* A request that fails at one target asks again with the same tried. */
static void a_request_that_tries_again_meets_each_target_once(void)
{
	struct balancer *b = make_balancer("ABCD", NULL, plain_options());
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick picks[4];
	char met[5] = "";

	if (b == NULL)
		return;
	for (size_t i = 0; i < 4; i++) {
		char letter = pick_letter(b, &tried, &picks[i]);

		if (i == 1) /* meanwhile another takes a turn */
			serve(b);
		if (!grade_check(letter != '-', "a request that met %zu of 4 targets found no more", i))
			return;
		if (!grade_check(strchr(met, letter) == NULL, "one request met target %c twice: first %s, then %c",
		                 letter, met, letter))
			return;
		met[i] = letter;
	}
	if (tried.count != 4)
		grade_partial(4, "it met 4 targets, and tried->count is %u", tried.count);
	for (size_t i = 0; i < 4; i++)
		balancer_done(b, &picks[i]);
	balancer_destroy(b);
}

static void when_all_were_tried_nobody_is_found_and_the_next_request_is_served(void)
{
	struct balancer *b = make_balancer("AB", NULL, plain_options());
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;

	if (b == NULL)
		return;
	for (unsigned i = 0; i < 2; i++)
		if (pick_letter(b, &tried, &pick) != '-')
			balancer_done(b, &pick);
	grade_check(pick_letter(b, &tried, &pick) == '-',
	            "two targets, both tried by this request, and it was given one again");
	expect_history(b, "ABAB", "then came other requests:");
	balancer_destroy(b);
}

static unsigned active_of(struct balancer *b, size_t place, uint64_t *requests_total)
{
	struct balancer_report reports[26];

	if (balancer_report(b, reports, 26) <= place)
		return 0;
	*requests_total = reports[place].requests_total;
	return reports[place].active;
}

static void a_request_is_counted_until_it_is_done(void)
{
	struct balancer *b = make_balancer("AB", NULL, plain_options());
	struct balancer_pick picks[4];
	uint64_t total = 0;
	unsigned active;

	if (b == NULL)
		return;
	for (size_t i = 0; i < 4; i++) {
		struct balancer_tried tried = { .count = 0 };

		if (!grade_check(pick_letter(b, &tried, &picks[i]) != '-', "request %zu found nobody", i + 1))
			return;
	}
	active = active_of(b, 0, &total);
	if (!grade_check(active == 2, "2 of 4 requests are under way at A, and its active says %u", active))
		return;
	balancer_done(b, &picks[0]);
	active = active_of(b, 0, &total);
	grade_check(active == 1, "1 request is under way at A, and its active says %u", active);
	if (total != 2)
		grade_partial(2, "A has had 2 requests, and its requests_total says %ju", (uintmax_t)total);
	for (size_t i = 1; i < 4; i++)
		balancer_done(b, &picks[i]);
	balancer_destroy(b);
}

static void the_turn_goes_on_when_the_list_changes(void)
{
	static const struct {
		const char *before, *after, *expected, *why;
	} changes[] = {
		{ "ABCD", "ABCD", "CDAB",
		  "A B C D; A and B had their turn. The same list came again, so it was C's turn:" },
		{ "ABCD", "XABCD", "CDXABC",
		  "A B C D; A and B had their turn. X joined in front of A, so it was still C's turn:" },
		{ "ABCD", "ABD", "DABD", "A B C D; A and B had their turn. C left, so it was D's turn:" },
		{ "ABCD", "XY", "XYX", "A B C D; A and B had their turn. All four left and X and Y came:" },
	};
	size_t right = 0, count = sizeof(changes) / sizeof(changes[0]);
	char came[4][16];

	for (size_t i = 0; i < count; i++) {
		struct balancer *b = make_balancer(changes[i].before, NULL, plain_options());

		if (b == NULL)
			return;
		serve(b);
		serve(b);
		set_letters(b, changes[i].after, NULL, 0);
		serve_many(b, strlen(changes[i].expected), came[i]);
		right += strcmp(came[i], changes[i].expected) == 0;
		balancer_destroy(b);
	}
	for (size_t i = 0; i < count; i++) /* one of them alone may be luck */
		if (strcmp(came[i], changes[i].expected) != 0)
			tell_apart(right >= 2 ? 3 : 0, came[i], changes[i].expected, changes[i].why);
}

/* Several at once from each thread: so that most of its time goes into picks. */
static void pick_and_finish(void *balancer)
{
	struct balancer_pick picks[BATCH];

	for (size_t i = 0; i < BATCH; i++) {
		struct balancer_tried tried = { .count = 0 };

		if (pick_letter(balancer, &tried, &picks[i]) == '-')
			grade_fail("five targets, and a pick found none");
	}
	for (size_t i = 0; i < BATCH; i++)
		balancer_done(balancer, &picks[i]);
}

static void judge_shares(struct balancer *b, unsigned long requests)
{
	uint64_t share = requests / strlen(LETTERS), total = 0;
	char shares[200] = "", still_active[200] = "";
	size_t length = 0, active_length = 0;
	bool is_even = true;

	for (size_t i = 0; i < strlen(LETTERS); i++) {
		unsigned active = active_of(b, i, &total);

		length += (size_t)snprintf(shares + length, sizeof(shares) - length, "   %c %ju", LETTERS[i],
		                           (uintmax_t)total);
		is_even = is_even && total == share;
		if (active != 0)
			active_length +=
				(size_t)snprintf(still_active + active_length, sizeof(still_active) - active_length,
			                         "   %c %d", LETTERS[i], (int)active);
	}
	grade_check(
		is_even,
		"turns were lost or taken twice: %lu requests by %u threads, so %ju for each of 5 targets; they had\n"
		" %s\ntwo threads read whose turn it was before one of them had moved on: which lock did they hold?",
		requests, THREADS, (uintmax_t)share, shares);
	if (active_length > 0)
		grade_partial(3, "all are done, and some still count as active, so counts were lost:\n %s",
		              still_active);
}

static void four_threads_at_once_leave_every_target_its_exact_share(void)
{
	struct balancer *b = make_balancer(LETTERS, NULL, plain_options());
	unsigned long requests;

	if (b == NULL)
		return;
	if (!expect_history(b, "ABCDE", "one thread, before the others start:")) {
		balancer_destroy(b);
		return;
	}
	requests = strlen(LETTERS) + BATCH * grade_crowd(THREADS, pick_and_finish, b);
	judge_shares(b, requests);
	balancer_destroy(b);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(6, nine_requests_go_to_three_targets_in_turn),
		GRADE(4, one_target_gets_every_request),
		GRADE(4, without_a_target_nobody_is_found),
		GRADE(6, a_request_that_tries_again_meets_each_target_once),
		GRADE(4, when_all_were_tried_nobody_is_found_and_the_next_request_is_served),
		GRADE(4, a_request_is_counted_until_it_is_done),
		GRADE(6, the_turn_goes_on_when_the_list_changes),
		GRADE(6, four_threads_at_once_leave_every_target_its_exact_share),
	};

	return grade_main("01-rotation", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
