/* grade.c of lab 3: who is out, since when, and what brings it back?
 *
 * Time is made up: each test says when a request failed and when somebody asks for a probe. In weir another thread does
 * that: it sleeps until balancer_probe_due() has one for it, knocks at the target, and says balancer_probed().
 *
 * What makes it difficult is that news come late. A request that was sent before the target failed comes back after the
 * target is in again, and says that it failed: that is old. So each pick says in which of the target's stays in the
 * rotation it was made.
 */
#include "labs/balancing.h"

#include <stdatomic.h>
#include <stdio.h>

#define THREADS 4u
#define MINUTE_US (60 * SECOND_US)

/* A request that is sent and not answered yet. */
static char begin_request(struct balancer *b, struct balancer_pick *pick)
{
	struct balancer_tried tried = { .count = 0 };

	return pick_letter(b, &tried, pick);
}

/* A request to that target, which fails. The turns of others that lie before it go by. */
static bool fail_at(struct balancer *b, char letter, uint64_t now_us)
{
	struct balancer_pick pick;

	for (unsigned i = 0; i < 26; i++) {
		char came = begin_request(b, &pick);
		bool is_news = came == letter && balancer_failed(b, &pick, now_us);

		if (came != '-')
			balancer_done(b, &pick);
		if (came == letter)
			return is_news;
	}
	grade_fail("target %c gets no turn", letter);
	return false;
}


/* The letter whose probe is due now, '-' if none. */
static char probe_due(struct balancer *b, uint64_t now_us, struct balancer_pick *pick, uint64_t *wake_us)
{
	memset(pick, 0, sizeof(*pick));
	*wake_us = 0;
	if (!balancer_probe_due(b, now_us, pick, wake_us))
		return '-';
	return pick->item != NULL ? *(const char *)pick->item : '?';
}

/* A probe that is due now, and its result. False (and the test failed) when none is due. */
static bool probe(struct balancer *b, bool good, uint64_t now_us, enum balancer_change *change)
{
	struct balancer_pick pick;
	uint64_t wake_us;

	if (!grade_check(probe_due(b, now_us, &pick, &wake_us) != '-', "at %.1f s no probe is planned that is due",
	                 (double)now_us / 1e6))
		return false;
	*change = balancer_probed(b, &pick, good, now_us);
	return true;
}

static const char *name_of(enum balancer_change change)
{
	return change == BALANCER_CAME_IN    ? "BALANCER_CAME_IN"
	       : change == BALANCER_WENT_OUT ? "BALANCER_WENT_OUT"
	                                     : "BALANCER_SAME";
}

/* ---- out ------------------------------------------------------------ */

static void a_target_that_failed_gets_no_turn(void)
{
	struct balancer *b = make_balancer("ABC", NULL, plain_options());

	if (b == NULL)
		return;
	serve(b);
	fail_at(b, 'B', SECOND_US);
	expect_history(b, "CACACA", "A was served, B failed and left the rotation; C and A go on:");
	balancer_destroy(b);
}

static void only_the_call_that_took_it_out_says_so(void)
{
	struct balancer *b = make_balancer("A", NULL, plain_options());
	struct balancer_pick picks[3];
	struct balancer_report report = { .active = 0 };
	unsigned said = 0;

	if (b == NULL)
		return;
	for (size_t i = 0; i < 3; i++)
		if (!grade_check(begin_request(b, &picks[i]) == 'A', "A gets no turn"))
			return;
	for (size_t i = 0; i < 3; i++)
		said += balancer_failed(b, &picks[i], SECOND_US + i);
	for (size_t i = 0; i < 3; i++)
		balancer_done(b, &picks[i]);
	balancer_report(b, &report, 1);
	grade_check(said == 1, "three requests were at A when it failed,\n"
	            "and balancer_failed() said %u times that this call took it out", said);
	if (report.failures_total != 3)
		grade_partial(1, "three requests failed, and failures_total says %ju",
		              (uintmax_t)report.failures_total);
	balancer_destroy(b);
}

static void when_all_failed_nobody_is_found(void)
{
	struct balancer *b = make_balancer("AB", NULL, plain_options());

	if (b == NULL)
		return;
	fail_at(b, 'A', SECOND_US);
	fail_at(b, 'B', SECOND_US);
	grade_check(serve(b) == '-', "A and B failed, and one of them was picked");
	if (balancer_any_in(b))
		grade_partial(1, "A and B failed, and balancer_any_in() says that one is in");
	balancer_destroy(b);
}

/* ---- and back ------------------------------------------------------------ */

static void a_probe_is_due_one_interval_after_the_failure(void)
{
	struct balancer_options options = plain_options();
	struct balancer *b;
	struct balancer_pick pick;
	uint64_t wake_us;

	options.probe_interval_us = 3 * SECOND_US;
	b = make_balancer("ABC", NULL, options);
	if (b == NULL)
		return;
	if (probe_due(b, MINUTE_US, &pick, &wake_us) != '-' || wake_us != UINT64_MAX)
		grade_partial(2, "all are in, and balancer_probe_due() plans a probe");
	fail_at(b, 'B', 10 * SECOND_US);
	char early = probe_due(b, 13 * SECOND_US - 1, &pick, &wake_us);
	grade_check(early == '-', "probe_interval is 3 s, B failed at 10.0 s, and a probe was due before 13.0 s");
	if (early == '-' && wake_us == UINT64_MAX)
		grade_fail("probe_interval is 3 s, B failed at 10.0 s, and no probe is planned (*wake_us is for ever)");
	else if (early == '-' && wake_us != 13 * SECOND_US)
		grade_fail("probe_interval is 3 s, B failed at 10.0 s: *wake_us should be 13.000000 s and is %.6f s",
		           (double)wake_us / 1e6);
	char due = probe_due(b, 13 * SECOND_US, &pick, &wake_us);
	grade_check(due == 'B', "at 13.0 s the probe of B is due, and balancer_probe_due() gave %c", due);
	balancer_destroy(b);
}

static void a_target_that_begins_out_is_probed_at_once(void)
{
	struct balancer_entry entries[] = { { "A", 1, false, &(char){ 'A' } }, { "B", 1, true, &(char){ 'B' } } };
	struct balancer *b = make_balancer("", NULL, plain_options());
	struct balancer_pick pick;
	uint64_t wake_us;

	if (b == NULL)
		return;
	balancer_set_targets(b, entries, 2, 5 * SECOND_US);
	expect_history(b, "AAA", "A, and B, whose name did not resolve, so that it begins out:");
	char due = probe_due(b, 5 * SECOND_US, &pick, &wake_us);
	grade_check(due == 'B', "B begins out at 5.0 s, and at 5.0 s its probe is due; balancer_probe_due() gave %c",
	            due);
	balancer_destroy(b);
}

static void one_probe_of_a_target_at_a_time(void)
{
	struct balancer *b = make_balancer("AB", NULL, plain_options());
	struct balancer_pick pick, second;
	uint64_t wake_us;

	if (b == NULL)
		return;
	fail_at(b, 'B', 10 * SECOND_US);
	if (!grade_check(probe_due(b, 11 * SECOND_US, &pick, &wake_us) == 'B',
	                 "B failed at 10.0 s, and at 11.0 s no probe is planned that is due"))
		return;
	char due = probe_due(b, 20 * SECOND_US, &second, &wake_us);
	if (!grade_check(due == '-', "the probe of B is under way, and a second probe of %c is due", due))
		return;
	balancer_probed(b, &pick, false, 20 * SECOND_US);
	due = probe_due(b, 21 * SECOND_US - 1, &second, &wake_us);
	grade_check(due == '-' && wake_us == 21 * SECOND_US,
	            "the probe of B was bad at 20.0 s: the next one is due at 21.0 s, and not %s",
	            due == 'B' ? "before" : "at another time");
	balancer_destroy(b);
}

static void a_good_probe_brings_it_back_in_its_place(void)
{
	struct balancer *b = make_balancer("ABC", NULL, plain_options());
	enum balancer_change change = BALANCER_SAME;

	if (b == NULL)
		return;
	fail_at(b, 'B', SECOND_US);
	if (!probe(b, false, 2 * SECOND_US, &change))
		return;
	grade_check(change == BALANCER_SAME, "a bad probe, and balancer_probed() said %s", name_of(change));
	if (!expect_history(b, "CAC", "B failed; a bad probe brings nobody back:") ||
	    !probe(b, true, 3 * SECOND_US, &change))
		return;
	if (change != BALANCER_CAME_IN)
		grade_partial(2, "a good probe brings B back, and balancer_probed() said %s", name_of(change));
	expect_history(b, "ABCABC", "B failed; a good probe brought it back, with no turn to make up for:");
	balancer_destroy(b);
}

static void it_takes_as_many_good_probes_in_a_row_as_asked(void)
{
	static const bool results[] = { true, true, false, true, true, true };
	struct balancer_options options = plain_options();
	struct balancer *b;

	options.probe_rise = 3;
	b = make_balancer("AB", NULL, options);
	if (b == NULL)
		return;
	fail_at(b, 'B', 0);
	for (unsigned i = 0; i < 6; i++) {
		enum balancer_change change = BALANCER_SAME;

		if (!probe(b, results[i], (i + 1) * SECOND_US, &change))
			return;
		if (!grade_check((change == BALANCER_CAME_IN) == (i == 5),
		                 "probe_rise is 3; probes: good good bad good good good:\n"
		                 "three in a row are the last three, "
		                 "and after probe %u balancer_probed() said %s", i + 1, name_of(change)))
			return;
	}
	expect_history(b, "AB", "after three good probes in a row B is back:");
	balancer_destroy(b);
}

static void bad_probes_that_ask_take_a_target_out(void)
{
	static const bool results[] = { false, true, false, false };
	struct balancer_options options = plain_options();
	struct balancer *b;
	enum balancer_change change = BALANCER_SAME;

	options.probe_asks = true;
	options.probe_fall = 2;
	b = make_balancer("A", NULL, options);
	if (b == NULL)
		return;
	for (unsigned i = 0; i < 4; i++) {
		if (!probe(b, results[i], (i + 1) * SECOND_US, &change))
			return;
		if (!grade_check((change == BALANCER_WENT_OUT) == (i == 3),
		                 "probe_asks, probe_fall 2; probes: bad good bad bad: two in a row are the last two,\n"
		                 "and after probe %u balancer_probed() said %s", i + 1, name_of(change)))
			return;
	}
	grade_check(serve(b) == '-', "two bad probes in a row took A out, and it was picked");
	balancer_destroy(b);
}

/* ---- late news ------------------------------------------------------------ */

static void old_news_do_not_take_a_target_out_again(void)
{
	struct balancer *b = make_balancer("A", NULL, plain_options());
	struct balancer_pick old, pick;
	enum balancer_change change = BALANCER_SAME;

	if (b == NULL)
		return;
	begin_request(b, &old);
	begin_request(b, &pick);
	balancer_failed(b, &pick, 10 * SECOND_US);
	balancer_done(b, &pick);
	if (!probe(b, true, 11 * SECOND_US, &change))
		return;
	grade_check(!balancer_failed(b, &old, 12 * SECOND_US) && serve(b) == 'A',
	            "10.0 s  two requests are at A, one fails: A is out\n"
	            "11.0 s  a good probe: A is in again\n"
	            "12.0 s  the other request says that it failed: it was sent before 10.0 s, so that is old news,\n"
	            "        and it took A out");
	balancer_done(b, &old);
	balancer_destroy(b);
}

static void a_probe_that_began_in_an_earlier_stay_tells_nothing(void)
{
	struct balancer_options options = plain_options();
	struct balancer *b;
	struct balancer_pick probe_pick;
	uint64_t wake_us;
	enum balancer_change change;

	options.probe_asks = true;
	b = make_balancer("A", NULL, options);
	if (b == NULL)
		return;
	if (!grade_check(probe_due(b, 1 * SECOND_US, &probe_pick, &wake_us) == 'A',
	                 "probe_asks: those that are in are probed as well, and A is not"))
		return;
	fail_at(b, 'A', 5 * SECOND_US);
	change = balancer_probed(b, &probe_pick, true, 5 * SECOND_US + 100);
	grade_check(
		change == BALANCER_SAME && serve(b) == '-',
		"1.0 s  a probe of A begins\n"
		"5.0 s  a request fails at A: it is out\n"
		"5.0 s  the probe ends, good: it looked at A before that, so it is old news, and it brought A back");
	balancer_destroy(b);
}

/* Lets it fail, says after how many intervals the next probe was planned, and brings it back with that probe. */
static unsigned intervals_to_probe(struct balancer *b, uint64_t *now_us)
{
	struct balancer_pick pick;
	uint64_t wake_us, failed_us = *now_us;

	fail_at(b, 'B', failed_us);
	probe_due(b, failed_us, &pick, &wake_us);
	if (wake_us == UINT64_MAX || wake_us < failed_us)
		return 0;
	*now_us = wake_us;
	if (probe_due(b, *now_us, &pick, &wake_us) == '-')
		return 0;
	balancer_probed(b, &pick, true, *now_us);
	return (unsigned)((*now_us - failed_us) / SECOND_US);
}

static void a_target_that_hangs_behind_an_open_port_is_asked_more_and_more_rarely(void)
{
	static const unsigned expected[] = { 1, 2, 4, 8, 16, 32, 32 };
	struct balancer *b = make_balancer("AB", NULL, plain_options());
	unsigned came[7], right = 0;
	uint64_t now_us = 10 * SECOND_US;
	char text[100] = "";
	size_t length = 0;
	struct balancer_pick pick;

	if (b == NULL)
		return;
	for (size_t i = 0; i < 7; i++) {
		came[i] = intervals_to_probe(b, &now_us);
		right += came[i] == expected[i];
		length += (size_t)snprintf(text + length, sizeof(text) - length, " %u", came[i]);
	}
	if (right < 7)
		grade_partial(right > 3 ? 2 : 0,
		              "each TCP probe of B is good and each request fails. Intervals from failure to probe\n"
		              "    were        %s\n    should be    1 2 4 8 16 32 32",
		              text);
	while (begin_request(b, &pick) == 'A')
		balancer_done(b, &pick);
	balancer_succeeded(b, &pick);
	balancer_done(b, &pick);
	unsigned after = intervals_to_probe(b, &now_us);
	if (after != 1)
		grade_partial(2, "then a request succeeded at B and the next failed:\n"
		                 "the probe is due after 1 interval again, not %u", after);
	balancer_destroy(b);
}

static void a_drained_target_is_neither_picked_nor_probed(void)
{
	struct balancer *b = make_balancer("AB", NULL, plain_options());
	struct balancer_pick pick;
	uint64_t wake_us;

	if (b == NULL)
		return;
	fail_at(b, 'B', SECOND_US);
	balancer_drain(b, "B", true);
	grade_check(probe_due(b, MINUTE_US, &pick, &wake_us) == '-',
	            "an operator drained B, which was out, and its probe is due");
	balancer_drain(b, "B", false);
	expect_history(b, "AA",
	               "B failed, was drained, and is let in again: it is still out, for no probe has found it:");
	grade_check(probe_due(b, MINUTE_US, &pick, &wake_us) == 'B',
	            "B is no longer drained, and still out: its probe is due, and is not given");
	balancer_destroy(b);
}

/* ---- many threads ------------------------------------------------------------ */

struct crowd {
	struct balancer *balancer;
	atomic_ulong now_us, went_out, came_in;
};

/* A few requests, one of which fails; then whatever probe is due, which is good. */
static void fail_and_probe(void *argument)
{
	struct crowd *crowd = argument;
	struct balancer_pick picks[8], pick;
	uint64_t now_us = atomic_fetch_add(&crowd->now_us, SECOND_US), wake_us;
	bool is_there[8];

	for (size_t i = 0; i < 8; i++)
		is_there[i] = begin_request(crowd->balancer, &picks[i]) != '-';
	for (size_t i = 0; i < 8; i++) {
		if (!is_there[i])
			continue;
		if (balancer_failed(crowd->balancer, &picks[i], now_us))
			atomic_fetch_add(&crowd->went_out, 1);
		balancer_done(crowd->balancer, &picks[i]);
	}
	while (probe_due(crowd->balancer, now_us + MINUTE_US * 60, &pick, &wake_us) != '-')
		if (balancer_probed(crowd->balancer, &pick, true, now_us) == BALANCER_CAME_IN)
			atomic_fetch_add(&crowd->came_in, 1);
}

static void four_threads_at_once_agree_who_is_out(void)
{
	struct crowd crowd = { .balancer = make_balancer("ABC", NULL, plain_options()) };
	struct balancer_report reports[3] = { { .active = 0 } };
	unsigned long out_now = 0, went_out, came_in;

	if (crowd.balancer == NULL || grade_crowd(THREADS, fail_and_probe, &crowd) == 0)
		return;
	balancer_report(crowd.balancer, reports, 3);
	for (size_t i = 0; i < 3; i++)
		out_now += reports[i].state == BALANCER_OUT;
	went_out = atomic_load(&crowd.went_out);
	came_in = atomic_load(&crowd.came_in);
	grade_check(went_out > 0 && came_in > 0, "targets went out %lu times and came back %lu times", went_out,
	            came_in);
	grade_check(went_out - came_in == out_now,
	            "%u threads were told %lu times that a target went out, and %lu times that one came in;\n"
	            "that leaves %ld out, and the report says %lu",
	            THREADS, went_out, came_in, (long)(went_out - came_in), out_now);
	balancer_destroy(crowd.balancer);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(4, a_target_that_failed_gets_no_turn),
		GRADE(3, only_the_call_that_took_it_out_says_so),
		GRADE(2, when_all_failed_nobody_is_found),
		GRADE(4, a_probe_is_due_one_interval_after_the_failure),
		GRADE(2, a_target_that_begins_out_is_probed_at_once),
		GRADE(3, one_probe_of_a_target_at_a_time),
		GRADE(4, a_good_probe_brings_it_back_in_its_place),
		GRADE(4, it_takes_as_many_good_probes_in_a_row_as_asked),
		GRADE(3, bad_probes_that_ask_take_a_target_out),
		GRADE(5, old_news_do_not_take_a_target_out_again),
		GRADE(3, a_probe_that_began_in_an_earlier_stay_tells_nothing),
		GRADE(4, a_target_that_hangs_behind_an_open_port_is_asked_more_and_more_rarely),
		GRADE(2, a_drained_target_is_neither_picked_nor_probed),
		GRADE(3, four_threads_at_once_agree_who_is_out),
	};

	return grade_main("03-failover", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
