/* grade.c: lab 7's graded tests of the table alone. No server listens anywhere: the table believes what it is told. */
#include "switch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "labs/grade.h"
#include "lib/clock.h"

static struct log *the_log;
static struct upstreams *all;
static struct settings settings;
static struct packet_switch *sw;

static void begin(void)
{
	char error[256];
	struct log_options quiet = { .path = "/dev/null", .level = LOG_LEVEL_ERROR };

	settings.probe_interval_us = 3600 * US_PER_S;
	settings.probe_rise = settings.probe_fall = 1;
	settings.connect_timeout_us = US_PER_S;
	the_log = log_create(&quiet, error, sizeof error);
	all = upstreams_create();
	sw = packet_switch_create("packet", the_log, all, &settings);
	if (sw == NULL)
		grade_fail("packet_switch_create() gave NULL");
}

static void end(void)
{
	packet_switch_destroy(sw);
	upstreams_destroy(all);
	log_destroy(the_log);
}

static const char *name_of(enum switch_setup result)
{
	static const char *const names[] = { "SWITCH_SET_UP", "SWITCH_REPLACED", "SWITCH_UNCHANGED",
		                             "SWITCH_TOO_MANY_SERVERS", "SWITCH_NO_MEMORY" };

	return (unsigned)result < 5 ? names[result] : "no answer that there is";
}

static bool set_up(const char *id, const char *policy, unsigned port, enum switch_setup expected)
{
	struct address address;

	if (!address_parse("127.0.0.1", port, &address))
		abort();
	enum switch_setup result = packet_switch_set_up(sw, id, policy, &address);
	return grade_check(result == expected, "server %s sets itself up for policy %s at port %u: %s, and %s is right",
	                   id, policy, port, name_of(result), name_of(expected));
}

/* The ids of the next servers of a policy, in order, as one text; "-" for none. fails: the one that does not answer. */
static const char *turns(const char *policy, unsigned count, const char *fails)
{
	static char out[512];

	out[0] = '\0';
	for (unsigned i = 0; i < count; i++) {
		struct balancer_tried tried;
		struct switch_turn turn;

		memset(&tried, 0, sizeof tried);
		if (!packet_switch_pick(sw, policy, &tried, &turn)) {
			strcat(out, "- ");
			continue;
		}
		strncat(strncat(out, turn.id, 20), " ", 2);
		if (fails != NULL && strcmp(fails, turn.id) == 0)
			packet_switch_failed(sw, &turn);
		else
			packet_switch_succeeded(sw, &turn);
		packet_switch_done(sw, &turn);
	}
	return out;
}

static bool check_turns(const char *policy, const char *expected, unsigned count, const char *why)
{
	const char *got = turns(policy, count, NULL);

	return grade_check(strcmp(got, expected) == 0, "policy %s: the turns are %s, and should be %s(%s)", policy, got,
	                   expected, why);
}

static void a_message_goes_to_a_server_of_its_policy(void)
{
	static const char *const policies[] = { "112", "111", "111", "112", "112" };
	struct balancer_tried tried;
	struct switch_turn turn;

	begin();
	if (!set_up("100", "111", 1, SWITCH_SET_UP) || !set_up("101", "112", 2, SWITCH_SET_UP))
		return;
	for (unsigned i = 0; i < 5; i++) {
		memset(&tried, 0, sizeof tried);
		if (!grade_check(packet_switch_pick(sw, policies[i], &tried, &turn),
		                 "policy %s has a server, and none was picked", policies[i]))
			return;
		const char *right = strcmp(policies[i], "111") == 0 ? "100" : "101";
		if (!grade_check(strcmp(turn.id, right) == 0,
		                 "picked: server %s, of policy %s, and the message is of policy %s", turn.id,
		                 strcmp(turn.id, "100") == 0 ? "111" : "112", policies[i]))
			return;
		packet_switch_done(sw, &turn);
	}
	memset(&tried, 0, sizeof tried);
	grade_check(!packet_switch_pick(sw, "113", &tried, &turn), "nobody serves policy 113, and server %s was picked",
	            turn.id);
	end();
}

static void servers_take_turns_in_the_order_of_their_set_up(void)
{
	begin();
	set_up("5", "111", 1, SWITCH_SET_UP);
	set_up("1", "112", 2, SWITCH_SET_UP);
	set_up("3", "111", 3, SWITCH_SET_UP);
	set_up("4", "111", 4, SWITCH_SET_UP);
	if (check_turns("111", "5 3 4 5 ", 4, "set up in the order 5 3 4") &&
	    check_turns("112", "1 1 ", 2, "each policy turns by itself"))
		check_turns("111", "3 4 5 ", 3, "and another policy's turns change nothing");
	end();
}

static void each_server_is_tried_once_for_a_message(void)
{
	struct balancer_tried tried;
	struct switch_turn turn;
	char ids[64] = "";

	begin();
	memset(&tried, 0, sizeof tried);
	for (unsigned i = 1; i <= 3; i++)
		set_up((const char *[]){ "", "a", "b", "c" }[i], "111", i, SWITCH_SET_UP);
	for (unsigned i = 0; i < 3; i++)
		if (packet_switch_pick(sw, "111", &tried, &turn)) {
			strncat(ids, turn.id, 10);
			packet_switch_done(sw, &turn);
		}
	grade_check(strcmp(ids, "abc") == 0, "three picks for one message: \"%s\", and each of a, b, c once is right",
	            ids);
	grade_check(!packet_switch_pick(sw, "111", &tried, &turn), "all three were tried, and one is picked once more");
	end();
}

static void a_set_up_that_changes_nothing_disturbs_nobody(void)
{
	begin();
	for (unsigned i = 1; i <= 3; i++)
		set_up((const char *[]){ "", "a", "b", "c" }[i], "111", i, SWITCH_SET_UP);
	check_turns("111", "a ", 1, "set up in the order a b c");
	set_up("b", "111", 2, SWITCH_UNCHANGED);
	check_turns("111", "b c a b ", 4, "b was next, and nothing about b has changed");
	end();
}

static void a_server_at_another_address_keeps_its_turn(void)
{
	begin();
	for (unsigned i = 1; i <= 3; i++)
		set_up((const char *[]){ "", "a", "b", "c" }[i], "111", i, SWITCH_SET_UP);
	check_turns("111", "a b c a ", 4, "set up in the order a b c");
	set_up("b", "111", 20, SWITCH_REPLACED);
	check_turns("111", "b c a b c ", 5, "b moved to another port just when it was its turn");
	end();
}

static void a_server_that_failed_is_out_until_it_comes_again(void)
{
	begin();
	set_up("a", "111", 1, SWITCH_SET_UP);
	set_up("b", "111", 2, SWITCH_SET_UP);
	const char *got = turns("111", 3, "a");
	grade_check(strcmp(got, "a b b ") == 0, "a does not answer, and is asked again: %s, and a b b is right", got);
	got = turns("111", 2, "b");
	grade_check(strcmp(got, "b - ") == 0, "now b does not answer either, and is asked again: %s, and b - is right",
	            got);
	grade_check(packet_switch_presence(sw, "111") == SWITCH_ALL_OUT, "both are out: SWITCH_ALL_OUT");
	grade_check(packet_switch_presence(sw, "112") == SWITCH_NOBODY,
	            "policy 112 has no server at all: SWITCH_NOBODY");
	set_up("b", "111", 2, SWITCH_REPLACED);
	grade_check(packet_switch_presence(sw, "111") == SWITCH_SOMEBODY, "b is back: SWITCH_SOMEBODY");
	check_turns("111", "b b ", 2, "b set itself up again");
	end();
}

static void a_server_that_changes_its_policy_leaves_the_old_one(void)
{
	begin();
	set_up("a", "111", 1, SWITCH_SET_UP);
	set_up("b", "111", 2, SWITCH_SET_UP);
	set_up("a", "112", 1, SWITCH_REPLACED);
	check_turns("111", "b b ", 2, "a serves 112 now");
	check_turns("112", "a ", 1, "a serves 112 now");
	set_up("b", "112", 2, SWITCH_REPLACED);
	grade_check(packet_switch_presence(sw, "111") == SWITCH_NOBODY,
	            "nobody serves policy 111 any more: SWITCH_NOBODY");
	end();
}

static void a_turn_outlives_the_entry_it_was_taken_from(void)
{
	struct balancer_tried tried;
	struct switch_turn turn;

	begin();
	memset(&tried, 0, sizeof tried);
	set_up("a", "111", 1, SWITCH_SET_UP);
	if (!grade_check(packet_switch_pick(sw, "111", &tried, &turn), "a serves policy 111, and was not picked"))
		return;
	set_up("a", "111", 2, SWITCH_REPLACED);
	set_up("b", "112", 3, SWITCH_SET_UP);
	grade_check(strcmp(turn.id, "a") == 0 && strcmp(upstream_address(turn.upstream), "127.0.0.1:1") == 0,
	            "a came again at port 2, while a message was at its old entry; id and upstream of that turn are "
	            "good until "
	            "packet_switch_done()");
	grade_check(!packet_switch_failed(sw, &turn),
	            "that message fails: old news, for the entry is replaced, and nobody goes out for it");
	packet_switch_done(sw, &turn);
	check_turns("111", "a a ", 2, "a at port 2 has done nothing wrong: what happened at port 1 is old news");
	end();
}

static void the_table_is_bounded(void)
{
	char id[16];

	begin();
	for (unsigned i = 0; i < SWITCH_SERVERS_MAX; i++) {
		snprintf(id, sizeof id, "%u", i);
		if (!set_up(id, id, 9, SWITCH_SET_UP))
			return;
	}
	set_up("one more", "0", 9, SWITCH_TOO_MANY_SERVERS);
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(id, sizeof id, "policy %u", i);
		if (!set_up("0", id, 9, SWITCH_REPLACED))
			return; /* who is there may come again, however often */
	}
	end();
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(4, a_message_goes_to_a_server_of_its_policy),
		GRADE(4, servers_take_turns_in_the_order_of_their_set_up),
		GRADE(3, each_server_is_tried_once_for_a_message),
		GRADE(4, a_set_up_that_changes_nothing_disturbs_nobody),
		GRADE(4, a_server_at_another_address_keeps_its_turn),
		GRADE(4, a_server_that_failed_is_out_until_it_comes_again),
		GRADE(3, a_server_that_changes_its_policy_leaves_the_old_one),
		GRADE(4, a_turn_outlives_the_entry_it_was_taken_from),
		GRADE(2, the_table_is_bounded),
	};

	return grade_main("07-message-switch", tests, sizeof tests / sizeof *tests, argc, argv);
}
