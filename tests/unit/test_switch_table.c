/* test_switch_table.c: the message switch table: who is in it, and whose turn it is.
 *
 * No server listens anywhere, but where it is said: the table believes what it is told. Probes are an hour away.
 */
#include "switch.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "unit.h"

struct stage {
	struct log *log;
	struct upstreams *all;
	struct settings settings;
	struct packet_switch *sw;
};

static void begin(struct stage *s)
{
	char error[256];
	struct log_options quiet = { .path = "/dev/null", .level = LOG_LEVEL_ERROR };
	memset(s, 0, sizeof *s);
	s->settings.probe_interval_us = 3600 * US_PER_S;
	s->settings.probe_rise = s->settings.probe_fall = 1;
	s->settings.connect_timeout_us = US_PER_S;
	s->log = log_create(&quiet, error, sizeof error);
	s->all = upstreams_create();
	CU_ASSERT_FATAL(s->log != NULL && s->all != NULL);
	s->sw = packet_switch_create("packet", s->log, s->all, &s->settings);
	CU_ASSERT_PTR_NOT_NULL_FATAL(s->sw);
}

static void end(struct stage *s)
{
	packet_switch_destroy(s->sw);
	upstreams_destroy(s->all);
	log_destroy(s->log);
}

static enum switch_setup set_up(struct stage *s, const char *id, const char *policy, unsigned port)
{
	struct address address;
	CU_ASSERT_TRUE_FATAL(address_parse("127.0.0.1", port, &address));
	return packet_switch_set_up(s->sw, id, policy, &address);
}

/* The ids of the next servers of a policy, in order, as one text; "-" for none. fails: the one that does not answer. */
static const char *turns(struct stage *s, const char *policy, unsigned count, const char *fails, char out[512])
{
	out[0] = '\0';
	for (unsigned i = 0; i < count; i++) {
		struct balancer_tried tried;
		struct switch_turn turn;
		memset(&tried, 0, sizeof tried);
		if (!packet_switch_pick(s->sw, policy, &tried, &turn)) {
			strcat(out, "- ");
			continue;
		}
		strcat(strcat(out, turn.id), " ");
		bool has_failed = fails != NULL && strcmp(fails, turn.id) == 0;
		if (has_failed)
			has_failed = packet_switch_failed(s->sw, &turn);
		else
			packet_switch_succeeded(s->sw, &turn);
		CU_ASSERT_EQUAL(has_failed, fails != NULL && strcmp(fails, turn.id) == 0);
		packet_switch_done(s->sw, &turn);
	}
	return out;
}

#define CHECK_TURNS(stage, policy, count, fails, expected)                                         \
	do {                                                                                       \
		char its_turns[512];                                                               \
		CU_ASSERT_STRING_EQUAL(turns(stage, policy, count, fails, its_turns), expected); \
	} while (0)

static void each_policy_turns_by_itself_in_the_order_of_the_setups(void)
{
	struct stage s;
	begin(&s);
	CU_ASSERT_EQUAL(packet_switch_presence(s.sw, "111"), SWITCH_NOBODY);
	CU_ASSERT_EQUAL(set_up(&s, "5", "111", 1), SWITCH_SET_UP);
	CU_ASSERT_EQUAL(set_up(&s, "1", "112", 2), SWITCH_SET_UP);
	CU_ASSERT_EQUAL(set_up(&s, "3", "111", 3), SWITCH_SET_UP);
	CU_ASSERT_EQUAL(set_up(&s, "4", "111", 4), SWITCH_SET_UP);
	CHECK_TURNS(&s, "111", 4, NULL, "5 3 4 5 ");
	CHECK_TURNS(&s, "112", 2, NULL, "1 1 ");
	CHECK_TURNS(&s, "111", 3, NULL, "3 4 5 ");
	CHECK_TURNS(&s, "113", 1, NULL, "- ");
	end(&s);
}

static void an_unchanged_setup_does_not_disturb_the_turns(void)
{
	struct stage s;
	begin(&s);
	for (unsigned i = 1; i <= 3; i++)
		set_up(&s, (const char *[]){ "", "a", "b", "c" }[i], "111", i);
	CHECK_TURNS(&s, "111", 1, NULL, "a ");
	CU_ASSERT_EQUAL(set_up(&s, "b", "111", 2), SWITCH_UNCHANGED);
	CHECK_TURNS(&s, "111", 4, NULL, "b c a b ");
	end(&s);
}

static void a_server_at_another_address_keeps_its_place_and_the_old_one_gets_no_more(void)
{
	struct stage s;
	begin(&s);
	for (unsigned i = 1; i <= 3; i++)
		set_up(&s, (const char *[]){ "", "a", "b", "c" }[i], "111", i);
	CHECK_TURNS(&s, "111", 4, NULL, "a b c a ");
	CU_ASSERT_EQUAL(set_up(&s, "b", "111", 20), SWITCH_REPLACED); /* just when it is its turn */
	CHECK_TURNS(&s, "111", 5, NULL, "b c a b c ");
	struct balancer_tried tried;
	struct switch_turn turn;
	memset(&tried, 0, sizeof tried);
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_TRUE_FATAL(packet_switch_pick(s.sw, "111", &tried, &turn));
		bool is_moved = strcmp(upstream_address(turn.upstream), "127.0.0.1:20") == 0;
		CU_ASSERT_EQUAL(is_moved, strcmp(turn.id, "b") == 0);
		packet_switch_done(s.sw, &turn);
	}
	CU_ASSERT_FALSE(packet_switch_pick(s.sw, "111", &tried, &turn)); /* each server once for one message */
	end(&s);
}

static void a_server_that_failed_is_out_until_it_sets_itself_up_again(void)
{
	struct stage s;
	begin(&s);
	set_up(&s, "a", "111", 1);
	set_up(&s, "b", "111", 2);
	CHECK_TURNS(&s, "111", 1, "a", "a ");
	CHECK_TURNS(&s, "111", 2, "b", "b - ");
	CU_ASSERT_EQUAL(packet_switch_presence(s.sw, "111"), SWITCH_ALL_OUT);
	CU_ASSERT_EQUAL(set_up(&s, "b", "111", 2), SWITCH_REPLACED);
	CU_ASSERT_EQUAL(packet_switch_presence(s.sw, "111"), SWITCH_SOMEBODY);
	CHECK_TURNS(&s, "111", 2, NULL, "b b ");
	CU_ASSERT_EQUAL(set_up(&s, "a", "111", 1), SWITCH_REPLACED);
	CHECK_TURNS(&s, "111", 4, NULL, "a b a b ");
	end(&s);
}

static void a_drained_server_gets_no_turn_until_the_drain_ends(void)
{
	struct stage s;
	begin(&s);
	set_up(&s, "a", "111", 1);
	set_up(&s, "b", "111", 2);
	set_up(&s, "c", "112", 1); /* at the address of a: one drain for both */
	CU_ASSERT_FALSE(packet_switch_drain(s.sw, "127.0.0.1:3", true));
	CU_ASSERT_TRUE(packet_switch_drain(s.sw, "127.0.0.1:1", true));
	CHECK_TURNS(&s, "111", 2, NULL, "b b ");
	CHECK_TURNS(&s, "112", 1, NULL, "- ");
	CU_ASSERT_FALSE(packet_switch_drain(s.sw, "127.0.0.1:3", false));
	CU_ASSERT_TRUE(packet_switch_drain(s.sw, "127.0.0.1:1", false));
	CU_ASSERT_EQUAL(packet_switch_presence(s.sw, "112"), SWITCH_SOMEBODY);
	CHECK_TURNS(&s, "112", 1, NULL, "c ");
	char turned[512];
	turns(&s, "111", 4, NULL, turned);
	CU_ASSERT_TRUE(strcmp(turned, "a b a b ") == 0 || strcmp(turned, "b a b a ") == 0);
	end(&s);
}

/* A listener of a server that sets itself up: who connects to it is a probe. */
static int listen_as(struct stage *s, const char *id, const char *policy, char text[ADDRESS_TEXT_MAX])
{
	struct address here = { .length = sizeof here.storage };
	struct sockaddr_in loopback = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_FATAL(listener >= 0 && bind(listener, (struct sockaddr *)&loopback, sizeof loopback) == 0);
	CU_ASSERT_FATAL(listen(listener, 8) == 0 && getsockname(listener, &here.any, &here.length) == 0);
	address_text(&here, text);
	CU_ASSERT_EQUAL(packet_switch_set_up(s->sw, id, policy, &here), SWITCH_SET_UP);
	return listener;
}

static int was_probed(int listener, int within_ms)
{
	struct pollfd knock = { .fd = listener, .events = POLLIN };
	return poll(&knock, 1, within_ms);
}

/* Two fail, and the first is drained: the probe of the second says that its own would have been due. Then nobody is left to be probed,
   and nothing but the end of the drain wakes the thread that does it. */
static void a_server_whose_probe_is_due_is_probed_when_its_drain_ends(void)
{
	struct stage s;
	struct balancer_tried tried;
	struct switch_turn turn;
	char text[ADDRESS_TEXT_MAX], other[ADDRESS_TEXT_MAX];
	begin(&s);
	memset(&tried, 0, sizeof tried);
	s.settings.probe_interval_us = 20 * US_PER_MS;
	packet_switch_configure(s.sw, &s.settings);
	int drained = listen_as(&s, "a", "111", text), probed = listen_as(&s, "b", "112", other);
	CU_ASSERT_TRUE_FATAL(packet_switch_pick(s.sw, "111", &tried, &turn));
	CU_ASSERT_TRUE(packet_switch_drain(s.sw, text, true));
	packet_switch_failed(s.sw, &turn);
	packet_switch_done(s.sw, &turn);
	CHECK_TURNS(&s, "112", 1, "b", "b ");
	CU_ASSERT_EQUAL(was_probed(probed, 30000), 1);
	CU_ASSERT_EQUAL(was_probed(drained, 0), 0);
	CU_ASSERT_TRUE(packet_switch_drain(s.sw, text, false));
	CU_ASSERT_EQUAL(was_probed(drained, 30000), 1);
	end(&s);
	close(drained);
	close(probed);
}

static void a_server_that_changes_its_policy_leaves_the_old_one(void)
{
	struct stage s;
	begin(&s);
	set_up(&s, "a", "111", 1);
	set_up(&s, "b", "111", 2);
	CU_ASSERT_EQUAL(set_up(&s, "a", "112", 1), SWITCH_REPLACED);
	CHECK_TURNS(&s, "111", 2, NULL, "b b ");
	CHECK_TURNS(&s, "112", 1, NULL, "a ");
	CU_ASSERT_EQUAL(set_up(&s, "b", "112", 2), SWITCH_REPLACED);
	CU_ASSERT_EQUAL(packet_switch_presence(s.sw, "111"), SWITCH_NOBODY);
	CHECK_TURNS(&s, "112", 4, NULL, "a b a b ");
	end(&s);
}

static void a_turn_may_be_given_back_after_its_server_was_replaced(void)
{
	struct stage s;
	struct balancer_tried tried;
	struct switch_turn turn;
	begin(&s);
	memset(&tried, 0, sizeof tried);
	set_up(&s, "a", "111", 1);
	CU_ASSERT_TRUE_FATAL(packet_switch_pick(s.sw, "111", &tried, &turn));
	CU_ASSERT_EQUAL(set_up(&s, "a", "112", 2), SWITCH_REPLACED);
	CU_ASSERT_EQUAL(set_up(&s, "b", "113", 3), SWITCH_SET_UP); /* in the place that 111 had */
	CU_ASSERT_STRING_EQUAL(turn.id, "a");
	CU_ASSERT_STRING_EQUAL(upstream_address(turn.upstream), "127.0.0.1:1");
	CU_ASSERT_FALSE(packet_switch_failed(s.sw, &turn)); /* old news: nobody leaves the rotation for it */
	packet_switch_done(s.sw, &turn);
	CHECK_TURNS(&s, "112", 1, NULL, "a ");
	CHECK_TURNS(&s, "113", 1, NULL, "b ");
	end(&s);
}

static void the_table_is_bounded_and_an_empty_policy_is_used_again(void)
{
	struct stage s;
	char id[16];
	begin(&s);
	for (unsigned i = 0; i < SWITCH_SERVERS_MAX; i++) {
		snprintf(id, sizeof id, "%u", i);
		CU_ASSERT_EQUAL_FATAL(set_up(&s, id, id, 9), SWITCH_SET_UP);
	}
	CU_ASSERT_EQUAL(set_up(&s, "one more", "0", 9), SWITCH_TOO_MANY_SERVERS);
	for (unsigned i = 0; i < SWITCH_SERVERS_MAX; i++) {
		snprintf(id, sizeof id, "%u", i);
		CU_ASSERT_EQUAL(set_up(&s, id, id, 10), SWITCH_REPLACED); /* who is there may come again */
	}
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(id, sizeof id, "policy %u", i);
		CU_ASSERT_EQUAL_FATAL(set_up(&s, "0", id, 9), SWITCH_REPLACED);
	}
	CU_ASSERT_EQUAL(set_up(&s, "0", "1", 9), SWITCH_REPLACED);
	CU_ASSERT_EQUAL(set_up(&s, "0", "another policy", 9), SWITCH_REPLACED);
	CHECK_TURNS(&s, "another policy", 1, NULL, "0 ");
	CHECK_TURNS(&s, "1", 2, NULL, "1 1 ");
	end(&s);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(each_policy_turns_by_itself_in_the_order_of_the_setups),
		TEST(an_unchanged_setup_does_not_disturb_the_turns),
		TEST(a_server_at_another_address_keeps_its_place_and_the_old_one_gets_no_more),
		TEST(a_server_that_failed_is_out_until_it_sets_itself_up_again),
		TEST(a_drained_server_gets_no_turn_until_the_drain_ends),
		TEST(a_server_whose_probe_is_due_is_probed_when_its_drain_ends),
		TEST(a_server_that_changes_its_policy_leaves_the_old_one),
		TEST(a_turn_may_be_given_back_after_its_server_was_replaced),
		TEST(the_table_is_bounded_and_an_empty_policy_is_used_again),
	};
	return unit_main("switch_table", tests, sizeof tests / sizeof tests[0]);
}
