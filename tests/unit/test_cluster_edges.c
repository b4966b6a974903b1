/* test_cluster_edges.c: the numbers of the cluster's protocol, to the microsecond, as docs/cluster.md tells them.
 *
 * test_cluster.c tells what the protocol is for; its stories would mostly be the same if a time were a little longer or a limit
 * one higher. But nodes of one group may be of different builds, and each rule leans on the others' numbers: that an echo is good
 * for 700 ms, no less and no more, is in the length of quiet time of a strict group. So here each number is met from both sides:
 * the last moment at which something still holds, and the first at which it doesn't.
 *
 * One node, mostly, and puppets, in whose places the test speaks. The world stands still but for what the test lets happen, and the
 * node is asked exactly when it wanted to be.
 */
#include "cluster_world.h"
#include "unit.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define AHEAD (50 * MS)
#define LATE_MIN (8 * MS)
#define LATE_MAX (100 * MS)
#define QUIET (SECOND + AHEAD + LATE_MAX)
#define ALIVE (700 * MS)
#define LISTEN (700 * MS)
#define NOT_AT_ALL UINT64_MAX

/* Lets the world run until the node sends one of these. How long that took; NOT_AT_ALL if it did not within most_us. */
static uint64_t time_to_send(struct peer *node, enum cluster_kind kind, uint64_t most_us)
{
	struct world *w = node->world;
	uint64_t begun_us = w->now_us;
	unsigned before = node->sent[kind];
	while (node->sent[kind] == before)
		if (!step(w, begun_us + most_us))
			return NOT_AT_ALL;
	return w->now_us - begun_us;
}

static uint64_t time_to_event(struct peer *node, enum cluster_event event, uint64_t most_us)
{
	struct world *w = node->world;
	uint64_t begun_us = w->now_us;
	unsigned before = node->events[event];
	while (node->events[event] == before)
		if (!step(w, begun_us + most_us))
			return NOT_AT_ALL;
	return w->now_us - begun_us;
}

/* Time passes, and nobody is asked. */
static void let_pass(struct world *w, uint64_t time_us)
{
	w->now_us += time_us;
}

/* One real node and one puppet, that have not met yet. */
static struct world *make_pair(unsigned id, unsigned puppet_id, unsigned threshold)
{
	struct world *w = make_world();
	add_node(w, id, threshold);
	add_puppet(w, puppet_id);
	return w;
}

/* Node 1 is master, gives, and takes puppet 2 for alive, which follows it. */
static struct world *make_master(unsigned threshold)
{
	struct world *w = make_pair(1, 2, threshold);
	run_for(w, 10 * MS);
	run_with_puppet(&w->nodes[1], &w->nodes[0], 1, 1, 2 * SECOND);
	CU_ASSERT_TRUE(report_of(&w->nodes[0]).is_giving);
	return w;
}

/* Node 2 is a member of puppet 1's group. */
static struct world *make_member(void)
{
	struct world *w = make_pair(2, 1, 50);
	run_for(w, 10 * MS);
	run_with_puppet(&w->nodes[1], &w->nodes[0], 1, 5, SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[0]), 1);
	return w;
}

static void say_demand(struct peer *puppet, struct peer *to, struct cluster_demand demand)
{
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1, .is.demand = demand };
	say(puppet, to, &message);
}

/* ---- heartbeats -------------------------------------------------------------------------------------------------------- */

static void a_heartbeat_comes_every_50_milliseconds_until_all_is_settled_and_then_every_200(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50);
	uint64_t begun_us = w->now_us;
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 0);
	while (w->now_us + 50 * MS < begun_us + QUIET)
		CU_ASSERT_EQUAL_FATAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 50 * MS);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 200 * MS);
	end_world(w);
}

static void a_new_role_is_told_5_milliseconds_after_the_last_heartbeat(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 3 * SECOND);
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	let_pass(w, MS);
	CU_ASSERT_EQUAL(master_of(node), 2);
	say_beat(puppet, node, 1, 5);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 4 * MS);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.master, 1);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 200 * MS); /* a member is settled */
	end_world(w);
}

static void a_newcomer_stands_for_master_after_700_milliseconds_and_not_before(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50);
	run_for(w, LISTEN - 1);
	CU_ASSERT_EQUAL(master_of(node), 0);
	run_for(w, 1);
	CU_ASSERT_EQUAL(master_of(node), 1);
	end_world(w);
}

static void an_echo_is_good_for_700_milliseconds_after_its_challenge(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(time_to_send(node, CLUSTER_HEARTBEAT, SECOND) > 50 * MS); /* with a challenge of now */
	let_pass(w, 100 * MS);
	say_beat(puppet, node, 1, 1);
	CU_ASSERT_TRUE(is_alive_for(node, 2));
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_CAME], 2);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_NODE_CAME], 0);
	CU_ASSERT_EQUAL(time_to_event(node, CLUSTER_NODE_WENT, 2 * SECOND), ALIVE - 100 * MS + 1);
	CU_ASSERT_FALSE(is_alive_for(node, 2));
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_WENT], 2);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_NODE_WENT], 0);
	end_world(w);
}

static void in_the_first_moments_of_a_clock_nobody_is_alive_without_an_echo(void)
{
	struct world *w = make_world();
	struct peer *node = add_place(w, 1), *puppet = add_puppet(w, 2);
	node->options = options_of(1, 50);
	node->offset_us = 2 - BEGIN_US;
	start_node(node);
	run_for(w, 20 * MS);
	struct cluster_message message = beat_of(puppet, node, 1, 1);
	message.is.heartbeat.echo_count = 0;
	unsigned sent = node->sent[CLUSTER_HEARTBEAT];
	say(puppet, node, &message);
	CU_ASSERT_FALSE(is_alive_for(node, 2));
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], sent + 1);
	CU_ASSERT_TRUE(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer);
	CU_ASSERT_EQUAL(report_of(node).node_count, 1);
	CU_ASSERT_EQUAL(node->events[CLUSTER_NODE_CAME], 0);
	say_beat(puppet, node, 1, 1);
	CU_ASSERT_TRUE(is_alive_for(node, 2));
	end_world(w);
}

static void an_echo_that_comes_too_late_wakes_nobody(void)
{
	for (unsigned more_us = 0; more_us < 2; more_us++) {
		struct world *w = make_pair(1, 2, 50);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
		run_for(w, 3 * SECOND);
		time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
		struct cluster_message message = beat_of(puppet, node, 1, 1);
		run_for(w, ALIVE + more_us);
		say(puppet, node, &message);
		CU_ASSERT_EQUAL(is_alive_for(node, 2), more_us == 0);
		end_world(w);
	}
}

/* A second puppet, that never proved to be there, hears what all hear. */
static void who_is_suspected_is_asked_alone_from_450_milliseconds_on_40_times_a_second_up_to_2_6_seconds(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *stranger = add_puppet(w, 9);
	w->delay_us = 0;
	run_for(w, 3 * SECOND);
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	run_for(w, 0);
	say_beat(puppet, node, 1, 1);
	uint64_t proven_us = w->now_us, asked_us = 0;
	unsigned count = 0;
	while (w->now_us < proven_us + 4 * SECOND) {
		unsigned alone = puppet->heard[CLUSTER_HEARTBEAT] - stranger->heard[CLUSTER_HEARTBEAT];
		if (!step(w, proven_us + 4 * SECOND))
			break;
		if (puppet->heard[CLUSTER_HEARTBEAT] - stranger->heard[CLUSTER_HEARTBEAT] == alone + 1 &&
		    puppet->last_heard[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer && w->packet_count == 0) {
			CU_ASSERT_EQUAL(w->now_us - (count == 0 ? proven_us : asked_us), count == 0 ? 450 * MS + 1 : 25 * MS);
			asked_us = w->now_us;
			count++;
		}
	}
	CU_ASSERT_EQUAL(count, 86); /* the last at 450 + 85 * 25 ms */
	end_world(w);
}

static void who_wants_an_answer_gets_one_at_most_every_12_and_a_half_milliseconds(void)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	run_for(w, 20 * MS);
	struct cluster_message message = beat_of(puppet, node, 1, 1);
	message.is.heartbeat.wants_answer = true;
	unsigned before = node->sent[CLUSTER_HEARTBEAT];
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], before + 1);
	CU_ASSERT_FALSE(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer);
	let_pass(w, 12500 - 1);
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], before + 1);
	let_pass(w, 1);
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], before + 2);
	end_world(w);
}

static void a_challenge_is_good_for_all_heartbeats_of_50_milliseconds(void)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	uint64_t challenge = node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.challenge;
	struct cluster_message message = beat_of(puppet, node, 1, 1);
	message.is.heartbeat.wants_answer = true;
	let_pass(w, 50 * MS - 1);
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(puppet->world->nodes[0].last_sent[CLUSTER_HEARTBEAT].is.heartbeat.challenge, challenge);
	let_pass(w, 12500);
	say(puppet, node, &message);
	CU_ASSERT_NOT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.challenge, challenge);
	challenge = node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.challenge;
	let_pass(w, 50 * MS);
	say(puppet, node, &message);
	CU_ASSERT_NOT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.challenge, challenge);
	end_world(w);
}

static void an_echo_is_known_however_many_challenges_there_were_since(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 10 * MS);
	struct cluster_message message = beat_of(puppet, node, 0, 0);
	run_for(w, ALIVE - 10 * MS); /* one each 50 ms */
	say(puppet, node, &message);
	CU_ASSERT_TRUE(is_alive_for(node, 2));
	end_world(w);
}

static void each_challenge_of_a_long_row_is_known(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0];
	run_for(w, 3 * SECOND);
	for (unsigned i = 0; i < 40; i++) {
		struct peer *puppet = add_puppet(w, 10 + i);
		CU_ASSERT_TRUE(time_to_send(node, CLUSTER_HEARTBEAT, SECOND) <= 200 * MS);
		say_beat(puppet, node, 1, 1);
		CU_ASSERT_TRUE(is_alive_for(node, 10 + i));
		crash(puppet);
	}
	end_world(w);
}

static bool is_echoed(const struct peer *node, unsigned id)
{
	const struct cluster_heartbeat *beat = &node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat;
	for (unsigned i = 0; i < beat->echo_count; i++)
		if (beat->echoes[i].id == id)
			return true;
	return false;
}

static void who_was_heard_in_the_last_700_milliseconds_is_echoed(void)
{
	for (unsigned more_us = 0; more_us < 2; more_us++) {
		struct world *w = make_pair(1, 2, 50);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *other = add_puppet(w, 3);
		run_for(w, 3 * SECOND);
		say_beat(puppet, node, 1, 1);
		run_for(w, ALIVE + more_us);
		struct cluster_message message = beat_of(other, node, 1, 1);
		message.is.heartbeat.wants_answer = true;
		unsigned sent = node->sent[CLUSTER_HEARTBEAT];
		say(other, node, &message);
		CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], sent + 1);
		CU_ASSERT_TRUE(is_echoed(node, 3));
		CU_ASSERT_EQUAL(is_echoed(node, 2), more_us == 0);
		end_world(w);
	}
}

static void a_heartbeat_wants_answers_while_its_sender_is_alone(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer);
	say_beat(puppet, node, 1, 1);
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	CU_ASSERT_FALSE(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer);
	end_world(w);
}

static void each_suspect_is_asked_and_at_450_milliseconds_nobody_is_one_yet(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *first = &w->nodes[1], *second = add_puppet(w, 3);
	w->delay_us = 0;
	run_for(w, 3 * SECOND);
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	run_for(w, 0);
	say_beat(first, node, 1, 1);
	say_beat(second, node, 1, 1);
	run_for(w, 449 * MS);
	unsigned sent = node->sent[CLUSTER_HEARTBEAT];
	let_pass(w, MS);
	tick(node);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], sent);
	let_pass(w, 1);
	tick(node);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], sent + 2);
	CU_ASSERT_TRUE(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer);
	end_world(w);
}

static void who_said_goodbye_is_not_asked(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *stranger = add_puppet(w, 9);
	run_for(w, 3 * SECOND);
	say_beat(puppet, node, 1, 1);
	run_for(w, MS);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = 1 };
	say(puppet, node, &leave);
	unsigned alone = puppet->heard[CLUSTER_HEARTBEAT] - stranger->heard[CLUSTER_HEARTBEAT];
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(puppet->heard[CLUSTER_HEARTBEAT] - stranger->heard[CLUSTER_HEARTBEAT], alone);
	end_world(w);
}

/* It has not heard us for a while, or never. */
static void who_has_no_good_echo_is_answered_and_asked_back(void)
{
	static const struct { uint64_t after_us; bool is_answered; } cases[] = {
		{ 300 * MS, false }, { ALIVE, false }, { ALIVE + 1, true }, { 5 * SECOND, true },
	};
	for (unsigned i = 0; i < LENGTH(cases); i++) {
		struct world *w = make_pair(1, 2, 50);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
		run_for(w, 3 * SECOND);
		time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
		say_beat(puppet, node, 1, 1);
		run_for(w, cases[i].after_us - (cases[i].after_us == ALIVE + 1));
		let_pass(w, cases[i].after_us == ALIVE + 1);
		struct cluster_message message = beat_of(puppet, node, 1, 1);
		message.is.heartbeat.echo_count = 0;
		struct cluster_place place = { .bytes = { 1 } };
		message.id = puppet->id;
		message.incarnation = puppet->incarnation;
		unsigned sent = node->sent[CLUSTER_HEARTBEAT];
		cluster_receive(node->cluster, &message, &place, clock_of(node));
		CU_ASSERT_EQUAL(node->sent[CLUSTER_HEARTBEAT], sent + cases[i].is_answered);
		if (cases[i].is_answered)
			CU_ASSERT_TRUE(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.wants_answer);
		end_world(w);
	}
}

/* ---- a pause ----------------------------------------------------------------------------------------------------------- */

static void who_did_not_run_for_more_than_500_milliseconds_begins_anew(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50);
	run_for(w, 3 * SECOND);
	tick(node);
	let_pass(w, 500 * MS);
	tick(node);
	CU_ASSERT_EQUAL(node->events[CLUSTER_WAS_PAUSED], 0);
	CU_ASSERT_EQUAL(master_of(node), 1);
	let_pass(w, 500 * MS + 1);
	tick(node);
	CU_ASSERT_EQUAL(node->events[CLUSTER_WAS_PAUSED], 1);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_WAS_PAUSED], 1);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_WAS_PAUSED], 500 * MS + 1);
	CU_ASSERT_EQUAL(master_of(node), 0);
	end_world(w);
}

/* ---- when a start may be ----------------------------------------------------------------------------------------------- */

/* On the master's clock slots come due at whole milliseconds. */
static uint64_t on_grid(uint64_t at_us)
{
	return (at_us + MS - 1) / MS * MS;
}

static void a_slot_is_given_50_milliseconds_ahead_and_again_after_the_window_and_l(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 1);
	uint64_t born_us = clock_of(node), first_us = born_us + QUIET;
	let_wait(node, 1000, true);
	run_for(w, QUIET - AHEAD - 1);
	CU_ASSERT_EQUAL(node->given, 0);
	run_for(w, 1); /* it asks every 20 ms, since 700 ms: now, too */
	CU_ASSERT_EQUAL(node->given, 1);
	CU_ASSERT_EQUAL(node->first_from_us, first_us);
	CU_ASSERT_EQUAL(node->last_until_us, clock_of(node) + AHEAD + LATE_MIN - 2 * MS);
	for (unsigned i = 0; i < 3; i++) {
		node->first_from_us = 0;
		first_us = on_grid(first_us + SECOND + LATE_MIN);
		run_for(w, born_us + (first_us - born_us) - AHEAD - clock_of(node) - 1);
		CU_ASSERT_EQUAL(node->given, i + 1);
		run_for(w, 20 * MS);
		CU_ASSERT_EQUAL(node->given, i + 2);
		CU_ASSERT_EQUAL(node->first_from_us, first_us);
	}
	end_world(w);
}

static void a_strict_master_is_quiet_for_700_milliseconds_more(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 50);
	options.is_strict = true;
	struct peer *node = add_node_with(w, options);
	uint64_t born_us = clock_of(node);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL(report_of(node).quiet_until_us, born_us + QUIET + ALIVE);
	CU_ASSERT_FALSE(report_of(node).is_giving);
	run_for(w, QUIET + ALIVE - SECOND - 1);
	CU_ASSERT_FALSE(report_of(node).is_giving);
	run_for(w, 1);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	CU_ASSERT_EQUAL(report_of(node).quiet_until_us, 0);
	end_world(w);
}

/* A lone node, born on the second, that is master since QUIET. On its clock the world begins at 0. */
static struct world *make_lone(struct cluster_options options, uint64_t born_us)
{
	struct world *w = make_world();
	struct peer *node = add_place(w, options.id);
	node->options = options;
	node->offset_us = born_us - BEGIN_US;
	start_node(node);
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	return w;
}

static void a_slot_comes_due_on_the_next_whole_millisecond(void)
{
	static const struct { uint64_t asked_us, due_us; } cases[] = { { 0, 0 }, { 1, MS }, { 999, MS }, { MS, MS } };
	for (unsigned i = 0; i < LENGTH(cases); i++) {
		struct world *w = make_lone(options_of(1, 1), 7 * SECOND + MS + cases[i].asked_us);
		struct peer *node = &w->nodes[0];
		let_wait(node, 1000, true);
		run_for(w, 1500 * MS);
		CU_ASSERT_EQUAL_FATAL(w->start_count, 2);
		CU_ASSERT_EQUAL(w->starts[0].at_us + node->offset_us, 10 * SECOND + MS + cases[i].asked_us);
		CU_ASSERT_EQUAL(w->starts[1].at_us + node->offset_us, 11 * SECOND + MS + LATE_MIN + cases[i].due_us);
		end_world(w);
	}
}

static void what_is_given_is_told_until_it_comes_due_again(void)
{
	struct world *w = make_lone(options_of(1, 2), 7 * SECOND);
	struct peer *node = &w->nodes[0];
	let_wait(node, 1, false);
	run_for(w, 500 * MS);
	let_wait(node, 1, false);
	run_for(w, 500 * MS);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 2);
	let_wait(node, 1, false); /* with the first slot, in 8 ms */
	run_for(w, 20 * MS);
	CU_ASSERT_EQUAL(w->start_count, 3);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 2);
	run_for(w, 500 * MS);
	let_wait(node, 1, false);
	run_for(w, 20 * MS);
	CU_ASSERT_EQUAL(w->start_count, 4);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 2);
	end_world(w);
}

static void a_burst_goes_at_once_and_the_rest_at_the_even_flows_distance(void)
{
	struct cluster_options options = options_of(1, 100);
	options.burst = 3;
	struct world *w = make_lone(options, 7 * SECOND);
	let_wait(&w->nodes[0], 1000, true);
	run_for(w, 500 * MS);
	CU_ASSERT_TRUE_FATAL(w->start_count > 50);
	for (size_t i = 0; i < 50; i++)
		CU_ASSERT_EQUAL(w->starts[i].at_us - w->starts[0].at_us, i < 3 ? 0 : (i - 2) * 10080);
	end_world(w);
}

/* A round of 1,008,000 us has room for a million, one each microsecond. */
static void the_largest_threshold_has_an_even_flow_too(void)
{
	struct cluster_options options = options_of(1, CLUSTER_THRESHOLD_MAX);
	options.burst = 10;
	struct world *w = make_lone(options, 7 * SECOND);
	let_wait(&w->nodes[0], 100, false);
	run_for(w, 10);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 100);
	for (size_t i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(w->starts[i].at_us - w->starts[0].at_us, i < 10 ? 0 : i - 9);
	end_world(w);
}

static void without_a_burst_the_even_flow_that_was_holds_nobody_up(void)
{
	struct cluster_options options = options_of(1, 10);
	options.burst = 1;
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0];
	let_wait(node, 1, false);
	run_for(w, MS);
	CU_ASSERT_EQUAL(w->start_count, 1);
	options.burst = 0;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	let_wait(node, 5, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(w->start_count, 6);
	CU_ASSERT_EQUAL(w->starts[5].at_us, w->now_us);
	end_world(w);
}

static void a_shorter_window_holds_the_even_flow_up_for_one_round_of_its_own_and_h(void)
{
	struct cluster_options options = options_of(1, 2);
	options.window_us = 10 * SECOND;
	options.burst = 1;
	struct world *w = make_world();
	struct peer *node = add_node_with(w, options);
	run_for(w, 12 * SECOND);
	let_wait(node, 2, false);
	run_for(w, MS);
	CU_ASSERT_EQUAL(w->start_count, 1); /* the next in 5 seconds */
	options.window_us = SECOND;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	uint64_t changed_us = w->now_us;
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 2);
	CU_ASSERT_EQUAL(w->starts[1].at_us, changed_us + AHEAD + SECOND + LATE_MIN);
	end_world(w);
}

static void the_same_settings_once_more_take_nothing_away(void)
{
	struct cluster_options options = options_of(1, 5);
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0];
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	CU_ASSERT_EQUAL(report_of(node).slots, 5);
	let_wait(node, 5, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(w->start_count, 5);
	end_world(w);
}

/* Puppet 2's starts came 3 ms too late, all together, since it asked last. */
static void a_late_start_pushes_the_slots_back_by_as_much_once(void)
{
	struct world *w = make_master(1);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	let_wait(node, 1000, true);
	run_for(w, 0);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 1);
	uint64_t due_us = on_grid(w->starts[0].at_us + node->offset_us + SECOND + LATE_MIN);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .late_us_total = 9000, .late_seen_us_total = 9000 });
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 2, .late_us_total = 12000 });
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 2, .late_us_total = 12000 });
	run_with_puppet(puppet, node, 1, 1, 1500 * MS);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 2);
	CU_ASSERT_EQUAL(w->starts[1].at_us + node->offset_us, due_us + 3 * MS);
	struct cluster_options options = node->options;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	run_with_puppet(puppet, node, 1, 1, 1500 * MS);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 4);
	CU_ASSERT_EQUAL(w->starts[2].at_us - w->starts[1].at_us, SECOND + LATE_MIN);
	CU_ASSERT_EQUAL(w->starts[3].at_us - w->starts[2].at_us, SECOND + LATE_MIN);
	end_world(w);
}

/* What its first demand tells of is no news where some master has confirmed it, and pushes by a window at most. */
static void of_a_first_demand_only_what_no_master_has_seen_pushes_the_slots_back(void)
{
	static const struct { uint64_t total_us, seen_us, pushed_us; } cases[] = {
		{ 5000, 5000, 0 }, { 5000, 3000, 2000 }, { 5000, 0, 5000 }, { 3 * SECOND, 0, SECOND },
	};
	for (unsigned i = 0; i < LENGTH(cases); i++) {
		struct world *w = make_master(1);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
		let_wait(node, 1000, true);
		run_for(w, 0);
		say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1,
		                                                  .late_us_total = cases[i].total_us,
		                                                  .late_seen_us_total = cases[i].seen_us });
		run_with_puppet(puppet, node, 1, 1, 2500 * MS);
		CU_ASSERT_TRUE_FATAL(w->start_count >= 2);
		CU_ASSERT_EQUAL(w->starts[1].at_us + node->offset_us,
		                on_grid(w->starts[0].at_us + node->offset_us + SECOND + LATE_MIN) + cases[i].pushed_us);
		end_world(w);
	}
}

/* Half of the group's slots are this part's. What others may have given meanwhile is not the node's own. */
static void a_strict_master_that_begins_again_owns_nothing(void)
{
	struct cluster_options options = options_of(1, 10);
	options.is_strict = true;
	options.group_size = 2;
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0], *puppet = add_puppet(w, 2);
	CU_ASSERT_EQUAL(report_of(node).slots, 5);
	options.threshold = 20;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	CU_ASSERT_EQUAL(report_of(node).slots, 10);
	run_for(w, 2 * SECOND);
	let_wait(node, 10, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 10);
	say_beat(puppet, node, 0, 9);
	CU_ASSERT_EQUAL(report_of(node).epoch, 10);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 0);
	end_world(w);
}

static void a_lower_threshold_takes_the_slots_that_are_due_first_from_their_owner(void)
{
	struct cluster_options options = options_of(1, 5);
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0];
	let_wait(node, 5, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 5);
	options.threshold = 3;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 3);
	CU_ASSERT_EQUAL(report_of(node).slots, 3);
	run_for(w, 2 * SECOND);
	let_wait(node, 1, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(w->start_count, 6);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 1);
	end_world(w);
}

static void of_a_lower_threshold_all_may_start_that_were_free(void)
{
	struct cluster_options options = options_of(1, 5);
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0];
	options.threshold = 3;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	let_wait(node, 5, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(w->start_count, 3);
	end_world(w);
}

static void quiet_time_is_as_long_as_ever_after_a_late_start(void)
{
	struct world *w = make_master(1);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .late_us_total = 3000 });
	let_wait(node, 1, true);
	say_beat(puppet, node, 0, 9);
	uint64_t quiet_until_us = clock_of(node) + QUIET;
	CU_ASSERT_EQUAL(report_of(node).quiet_until_us, quiet_until_us);
	run_with_puppet(puppet, node, 1, 10, 2 * SECOND);
	CU_ASSERT_EQUAL(gap_after(w, quiet_until_us - node->offset_us - SECOND), SECOND);
	end_world(w);
}

static void the_only_slot_is_nobodys_when_it_is_due(void)
{
	struct world *w = make_master(1);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	for (unsigned i = 1; i <= 2; i++) {
		let_wait(node, 1, false);
		run_for(w, 0);
		CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 1);
		run_with_puppet(puppet, node, 1, 1, 1200 * MS);
		say_demand(puppet, node, (struct cluster_demand){ .asked_us = i });
		CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 0);
	}
	end_world(w);
}

/* ---- L ----------------------------------------------------------------------------------------------------------------- */

/* Master 1 and puppet 2, of whose starts two died: L has just grown from 8 to 16 ms. demand: what the puppet has told until then. */
static struct world *make_widened(struct cluster_demand *demand)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	*demand = (struct cluster_demand){ .asked_us = 1, .used_total = 1000, .died_total = 1000 };
	say_demand(puppet, node, *demand);
	CU_ASSERT_EQUAL(report_of(node).late_us, LATE_MIN);
	demand->died_total += 2;
	say_demand(puppet, node, *demand);
	for (unsigned i = 0; i < 250 && report_of(node).late_us == LATE_MIN; i++) {
		let_pass(w, MS);
		tick(node);
	}
	CU_ASSERT_EQUAL(report_of(node).late_us, 2 * LATE_MIN);
	return w;
}

/* L, so long after it was widened, if so many more starts were used, and died. */
static unsigned late_us_after(uint64_t used, uint64_t died, uint64_t after_us)
{
	struct cluster_demand demand;
	struct world *w = make_widened(&demand);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	uint64_t end_us = w->now_us + after_us;
	demand.used_total += used;
	demand.died_total += died;
	say_demand(puppet, node, demand);
	while (w->now_us + 50 * MS < end_us) {
		let_pass(w, 50 * MS);
		say_beat(puppet, node, 1, 1);
	}
	let_pass(w, end_us - w->now_us);
	tick(node);
	unsigned late_us = report_of(node).late_us;
	end_world(w);
	return late_us;
}

static void l_widens_four_times_a_second_at_most_and_narrows_once(void)
{
	CU_ASSERT_EQUAL(late_us_after(0, 2, 250 * MS - 1), 16 * MS);
	CU_ASSERT_EQUAL(late_us_after(0, 2, 250 * MS), 32 * MS);
	CU_ASSERT_EQUAL(late_us_after(1000, 0, SECOND - 1), 16 * MS);
	CU_ASSERT_EQUAL(late_us_after(1000, 0, SECOND), 15 * MS);
	CU_ASSERT_EQUAL(late_us_after(1000, 0, 10 * SECOND), 15 * MS); /* since then nothing was used */
}

static void l_grows_by_half_when_more_than_one_of_200_dies_and_doubles_when_most_do(void)
{
	CU_ASSERT_EQUAL(late_us_after(398, 2, 250 * MS), 16 * MS);
	CU_ASSERT_EQUAL(late_us_after(397, 2, 250 * MS), 24 * MS);
	CU_ASSERT_EQUAL(late_us_after(2, 2, 250 * MS), 24 * MS);
	CU_ASSERT_EQUAL(late_us_after(1, 2, 250 * MS), 32 * MS);
	CU_ASSERT_EQUAL(late_us_after(0, 1, 250 * MS), 16 * MS); /* one is none */
}

static void l_shrinks_when_at_most_one_of_a_thousand_died_and_there_were_sixteen(void)
{
	CU_ASSERT_EQUAL(late_us_after(16, 0, SECOND), 15 * MS);
	CU_ASSERT_EQUAL(late_us_after(15, 0, SECOND), 16 * MS);
	CU_ASSERT_EQUAL(late_us_after(999, 1, SECOND), 15 * MS);
	CU_ASSERT_EQUAL(late_us_after(998, 1, SECOND), 16 * MS);
}

static void l_is_100_milliseconds_at_most(void)
{
	struct cluster_demand demand;
	struct world *w = make_widened(&demand);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	static const uint64_t wider_us[] = { 32 * MS, 64 * MS, LATE_MAX, LATE_MAX };
	for (unsigned i = 0; i < LENGTH(wider_us); i++) {
		demand.died_total += 2;
		say_demand(puppet, node, demand);
		run_with_puppet(puppet, node, 1, 1, 250 * MS);
		tick(node);
		CU_ASSERT_EQUAL(report_of(node).late_us, wider_us[i]);
	}
	end_world(w);
}

/* Of whoever asked in the last 250 ms. */
static void l_is_not_below_the_longest_round_trip_and_6_milliseconds(void)
{
	static const struct { unsigned round_trip_us; uint64_t late_us; } cases[] = {
		{ 0, 8 * MS }, { 2000, 8 * MS }, { 2001, 8001 }, { 10000, 16 * MS }, { 94000, LATE_MAX }, { 95000, LATE_MAX },
	};
	for (unsigned i = 0; i < LENGTH(cases); i++) {
		struct world *w = make_master(50);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
		say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .round_trip_us = cases[i].round_trip_us });
		CU_ASSERT_EQUAL(report_of(node).late_us, cases[i].late_us);
		end_world(w);
	}
}

static void a_round_trip_counts_for_250_milliseconds(void)
{
	for (unsigned more_us = 0; more_us < 2; more_us++) {
		struct cluster_demand demand;
		struct world *w = make_widened(&demand);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
		uint64_t widened_us = w->now_us;
		demand.used_total += 100;
		while (w->now_us < widened_us + 750 * MS) {
			say_beat(puppet, node, 1, 1);
			let_pass(w, 50 * MS);
		}
		tick(node);
		let_pass(w, 1 - more_us);
		demand.round_trip_us = 10 * MS; /* it holds L at 16 ms */
		say_demand(puppet, node, demand);
		let_pass(w, widened_us + SECOND - w->now_us);
		tick(node);
		CU_ASSERT_EQUAL(report_of(node).late_us, more_us == 0 ? 16 * MS : 15 * MS);
		end_world(w);
	}
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static void a_standing_line_asks_every_20_milliseconds_and_one_that_changes_after_one(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0];
	let_wait(node, 5, false);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 0);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_DEMAND].is.demand.waiting, 5);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_DEMAND].is.demand.asked_us, clock_of(node));
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 20 * MS);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 20 * MS);
	let_pass(w, 100);
	let_wait(node, 6, false);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), MS - 100);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 20 * MS);
	end_world(w);
}

/* Two slots, used up; before they come due the puppet asks for two. When they are due, the node asks for two, as long after it. */
static unsigned given_so_long_after_anothers_demand(uint64_t after_us)
{
	struct world *w = make_master(2);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	let_wait(node, 2, false);
	run_for(w, MS);
	CU_ASSERT_EQUAL(node->given, 2);
	run_with_puppet(puppet, node, 1, 1, 900 * MS);
	run_for(w, 55 * MS);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .waiting = 2 });
	CU_ASSERT_EQUAL(puppet->heard[CLUSTER_GRANT], 0);
	run_for(w, after_us);
	CU_ASSERT_EQUAL(puppet->last_heard[CLUSTER_GRANT].is.grant.run_count, 0);
	let_wait(node, 2, false);
	run_for(w, 0);
	unsigned given = (unsigned)node->given - 2;
	end_world(w);
	return given;
}

static void who_asked_45_milliseconds_ago_has_a_share_and_nobody_later(void)
{
	CU_ASSERT_EQUAL(given_so_long_after_anothers_demand(45 * MS), 1);
	CU_ASSERT_EQUAL(given_so_long_after_anothers_demand(45 * MS + 1), 2);
}

/* ---- taking over ------------------------------------------------------------------------------------------------------- */

/* Node 1 comes up, and puppet 2 is master of its group, of which it has heard since it is there. */
static struct world *make_candidate(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	w->delay_us = 0;
	run_for(w, 0);
	for (unsigned i = 0; i < 14; i++) {
		say_beat(puppet, node, 2, 5);
		run_for(w, 50 * MS - (i == 13));
	}
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 0);
	run_for(w, 1);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 1);
	return w;
}

static void a_ring_is_asked_for_every_50_milliseconds_with_one_nonce(void)
{
	struct world *w = make_candidate();
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	uint64_t nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	CU_ASSERT_TRUE(nonce != 0);
	for (unsigned i = 0; i < 8; i++) {
		say_beat(puppet, node, 2, 5);
		CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_TAKEOVER, SECOND), 50 * MS);
		CU_ASSERT_EQUAL(node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce, nonce);
	}
	end_world(w);
}

static void one_that_has_yielded_is_waited_for_for_300_milliseconds(void)
{
	struct world *w = make_candidate();
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 20 * MS);
	say_beat(puppet, node, 1, 5);
	uint64_t yielded_us = clock_of(node);
	for (unsigned i = 0; i < 5; i++) {
		run_for(w, 50 * MS);
		struct cluster_message message = beat_of(puppet, node, 1, 5);
		message.is.heartbeat.uptime_us = 0; /* an old one, that says nothing new */
		say(puppet, node, &message);
	}
	run_for(w, 30 * MS - 1);
	CU_ASSERT_EQUAL(master_of(node), 0);
	let_pass(w, 1);
	tick(node);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_EQUAL(report_of(node).quiet_until_us, yielded_us + QUIET);
	CU_ASSERT_EQUAL(report_of(node).epoch, 6);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 0);
	end_world(w);
}

/* The old master handed over; the answer may be lost, so it may be asked again, for two seconds. */
static void a_ring_that_was_handed_over_is_told_again_for_two_seconds(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 3 * SECOND);
	say_beat(puppet, node, 0, 1);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover = { .nonce = 77 } };
	say(puppet, node, &message);
	uint64_t handed_us = w->now_us;
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 1);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HANDOVER].is.handover.nonce, 77);
	CU_ASSERT_EQUAL(master_of(node), 1);
	run_with_puppet(puppet, node, 1, 6, 1950 * MS);
	run_for(w, handed_us + 2 * SECOND - 1 - w->now_us);
	message.is.takeover.nonce = 78;
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 2);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HANDOVER].is.handover.nonce, 78);
	run_for(w, 1);
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 2);
	end_world(w);
}

/* ---- another's ring ---------------------------------------------------------------------------------------------------- */

/* Node 2 is master, and gives; puppet 3 says that it is, too: the lower id asks for the other's ring. */
static struct world *make_two_masters(unsigned threshold)
{
	struct world *w = make_pair(2, 3, threshold);
	run_for(w, 3 * SECOND);
	return w;
}

static void hand_over(struct peer *puppet, struct peer *node, struct cluster_handover handover)
{
	struct cluster_message message = { .kind = CLUSTER_HANDOVER, .epoch = 1, .is.handover = handover };
	say_beat(puppet, node, puppet->id, 1);
	CU_ASSERT_EQUAL(master_of(node), 0);
	message.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	message.is.handover.bucket_us = CLUSTER_BUCKET_US;
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(master_of(node), node->id);
	CU_ASSERT_TRUE(report_of(node).is_giving);
}

static void of_two_rings_the_latest_slots_stay(void)
{
	struct world *w = make_two_masters(4);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	for (unsigned i = 0; i < 3; i++) {
		let_wait(node, 1, false);
		run_for(w, 100 * MS);
	}
	CU_ASSERT_EQUAL_FATAL(w->start_count, 3);
	uint64_t due_us[4];
	for (unsigned i = 0; i < 3; i++)
		due_us[i] = on_grid(w->starts[i].at_us + node->offset_us + SECOND + LATE_MIN) - node->offset_us + 3 * MS;
	say_beat(puppet, node, 2, 1);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .late_us_total = 3000 });
	struct cluster_handover theirs = { .bucket_count = 116 };
	theirs.buckets[0] = 2;
	theirs.buckets[59] = 1;
	theirs.buckets[114] = 1;
	hand_over(puppet, node, theirs);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].granted, 0); /* it is the other's now as much as its own */
	due_us[3] = w->now_us + 1150 * MS;
	let_wait(node, 1000, true);
	run_for(w, 1200 * MS);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 7);
	for (unsigned i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(w->starts[3 + i].at_us, due_us[i]);
	end_world(w);
}

/* Five slots, and the other tells of one: of the four others nobody knows. What stands behind the last bucket is nothing. */
static void slots_that_one_is_not_told_of_count_as_given_just_now(void)
{
	struct world *w = make_two_masters(5);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	struct cluster_handover theirs = { .bucket_count = 2, .buckets = { 0, 1, 4 } };
	hand_over(puppet, node, theirs);
	uint64_t handed_us = w->now_us;
	let_wait(node, 1000, true);
	run_for(w, 1200 * MS);
	CU_ASSERT_TRUE_FATAL(w->start_count >= 5);
	CU_ASSERT_EQUAL(w->starts[0].at_us, handed_us + 20 * MS);
	CU_ASSERT_EQUAL(count_starts(w, 0, 0, handed_us + QUIET), 1);
	CU_ASSERT_EQUAL(count_starts(w, 0, handed_us + QUIET, handed_us + QUIET + 1), 5);
	end_world(w);
}

/* L is short again for a new master, whose ring has longer ones from its predecessor: each next one still tells of them. */
static void a_ring_that_goes_on_keeps_its_longest_slot(void)
{
	for (unsigned threshold = 2; threshold <= 3; threshold++) {
		struct world *w = make_two_masters(threshold);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *lower = add_puppet(w, 1);
		struct cluster_handover theirs = { .bucket_count = 109 };
		theirs.buckets[0] = theirs.buckets[108] = 1;
		theirs.buckets[50] = threshold - 2;
		hand_over(puppet, node, theirs);
		uint64_t handed_us = w->now_us;
		let_wait(node, 1, false);
		run_for(w, 20 * MS);
		CU_ASSERT_EQUAL(w->start_count, 1);
		say_beat(puppet, node, 2, 2);
		say_beat(lower, node, 0, 2);
		struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 2, .is.takeover = { .nonce = 5 } };
		say(lower, node, &message);
		CU_ASSERT_EQUAL_FATAL(node->sent[CLUSTER_HANDOVER], 1);
		const struct cluster_handover *told = &node->last_sent[CLUSTER_HANDOVER].is.handover;
		CU_ASSERT_EQUAL(told->bucket_us, CLUSTER_BUCKET_US);
		CU_ASSERT_EQUAL(told->bucket_count, (1090 * MS - (w->now_us - handed_us) - 1) / CLUSTER_BUCKET_US + 1);
		CU_ASSERT_EQUAL(told->buckets[told->bucket_count - 1], 2);
		CU_ASSERT_EQUAL(told->buckets[48], threshold - 2);
		end_world(w);
	}
}

/* Puppet 2 has been master for as long as we hear it. Before, or beside it, there was another. */
static void a_ring_does_not_tell_of_a_master_that_went_after_its_own_became_one(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *other = add_puppet(w, 3);
	w->delay_us = 0;
	run_for(w, 0);
	say_beat(puppet, node, 2, 5);
	say_beat(other, node, 3, 5);
	run_for(w, 100 * MS);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = 5 };
	say(other, node, &leave);
	uint64_t went_us = clock_of(node);
	run_with_puppet(puppet, node, 2, 5, 650 * MS);
	struct cluster_message ring = { .kind = CLUSTER_HANDOVER, .epoch = 5 };
	ring.is.handover = (struct cluster_handover){ .bucket_us = CLUSTER_BUCKET_US, .bucket_count = 1, .buckets = { 50 } };
	ring.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	say(puppet, node, &ring);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 1);
	CU_ASSERT_EQUAL(report_of(node).quiet_until_us, went_us + QUIET);
	end_world(w);
}

static void one_that_yielded_and_is_master_again_is_asked_on(void)
{
	struct world *w = make_candidate();
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 20 * MS);
	say_beat(puppet, node, 1, 5);
	run_for(w, 20 * MS);
	run_with_puppet(puppet, node, 2, 5, 500 * MS);
	CU_ASSERT_EQUAL(master_of(node), 0);
	CU_ASSERT_TRUE(time_to_send(node, CLUSTER_TAKEOVER, SECOND) <= 50 * MS);
	end_world(w);
}

/* Node 1 listens, and puppet 2 says at 600 ms whom it takes for master. How long the node is quiet then, since it was born. */
static uint64_t quiet_after_hearing_of(unsigned master, bool master_is_heard)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *other = add_puppet(w, 8), *third = add_puppet(w, 9);
	uint64_t born_us = clock_of(node);
	run_for(w, 10 * MS);
	say_beat(puppet, node, 0, 0);
	say_beat(other, node, 0, 0);
	if (master_is_heard)
		say_beat(third, node, 0, 0);
	run_for(w, 590 * MS);
	say_beat(puppet, node, master, 0);
	run_for(w, 100 * MS);
	CU_ASSERT_EQUAL(master_of(node), 1);
	uint64_t quiet_us = report_of(node).quiet_until_us - born_us;
	end_world(w);
	return quiet_us;
}

static void who_takes_somebody_for_master_that_we_do_not_hear_may_have_its_grants_still(void)
{
	CU_ASSERT_EQUAL(quiet_after_hearing_of(0, false), QUIET);
	CU_ASSERT_EQUAL(quiet_after_hearing_of(1, false), QUIET);
	CU_ASSERT_EQUAL(quiet_after_hearing_of(9, false), 600 * MS + QUIET);
	CU_ASSERT_EQUAL(quiet_after_hearing_of(9, true), 600 * MS + QUIET); /* it does not say so itself */
}

static void who_takes_somebody_for_master_that_we_hear_tells_nothing_new(void)
{
	struct world *w = make_pair(1, 9, 50);
	struct peer *node = &w->nodes[0], *master = &w->nodes[1], *other = add_puppet(w, 5), *follower = add_puppet(w, 6);
	w->delay_us = 0;
	run_for(w, 0);
	say_beat(other, node, 0, 5);
	say_beat(master, node, 9, 5);
	run_for(w, 350 * MS);
	say_beat(follower, node, 9, 5);
	run_with_puppet(master, node, 9, 5, 400 * MS);
	struct cluster_message ring = { .kind = CLUSTER_HANDOVER, .epoch = 5 };
	ring.is.handover = (struct cluster_handover){ .bucket_us = CLUSTER_BUCKET_US, .bucket_count = 1, .buckets = { 50 } };
	ring.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	say(master, node, &ring);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	end_world(w);
}

static void a_lower_id_that_dies_may_have_been_master(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 10 * MS);
	run_with_puppet(puppet, node, 0, 0, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(node), 0);
	CU_ASSERT_TRUE(time_to_event(node, CLUSTER_NODE_WENT, 2 * SECOND) != NOT_AT_ALL);
	CU_ASSERT_EQUAL(master_of(node), 2);
	CU_ASSERT_EQUAL(report_of(node).quiet_until_us, clock_of(node) + QUIET);
	end_world(w);
}

static void of_two_masters_the_lower_is_believed_whoever_is_heard_first(void)
{
	for (unsigned first = 0; first < 2; first++) {
		struct world *w = make_world();
		struct peer *node = add_node(w, 5, 50), *puppets[2] = { add_puppet(w, 2), add_puppet(w, 3) };
		run_for(w, 10 * MS);
		say_beat(puppets[first], node, puppets[first]->id, 5);
		say_beat(puppets[1 - first], node, puppets[1 - first]->id, 5);
		CU_ASSERT_EQUAL(master_of(node), 2);
		end_world(w);
	}
}

/* It stood for master, stood back for a lower one, and stands again: who answers the first question tells of a ring that is old. */
static void each_time_it_asks_for_a_ring_with_another_nonce(void)
{
	struct world *w = make_two_masters(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *lower = add_puppet(w, 1);
	say_beat(puppet, node, 3, 1);
	uint64_t nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 1);
	say_beat(lower, node, 0, 1);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = 1 };
	say(lower, node, &leave);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 2);
	CU_ASSERT_NOT_EQUAL(node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce, nonce);
	end_world(w);
}

/* Node 2 was master, took 3's ring, all of which is free, and is master again, at once; 4 follows it. */
static void be_elected_again(struct world *w)
{
	struct cluster_handover free_ring = { .bucket_count = 1 };
	free_ring.buckets[0] = w->nodes[0].options.threshold;
	hand_over(&w->nodes[1], &w->nodes[0], free_ring);
	run_for(w, 10 * MS);
	say_beat(&w->nodes[1], &w->nodes[0], 2, 2);
}

static struct world *make_second_term(unsigned threshold)
{
	struct world *w = make_two_masters(threshold);
	say_beat(add_puppet(w, 4), &w->nodes[0], 2, 1);
	return w;
}

static void a_new_master_has_been_asked_by_nobody(void)
{
	struct world *w = make_second_term(2);
	struct peer *node = &w->nodes[0], *member = &w->nodes[2];
	let_wait(node, 2, false); /* so that nothing is left for the other */
	run_for(w, 0);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 1, .waiting = 2 });
	be_elected_again(w);
	run_for(w, 2 * SECOND);
	say_beat(member, node, 2, 2);
	CU_ASSERT_EQUAL(node->given, 2);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 2, .waiting = 0 });
	run_for(w, 3 * MS);
	CU_ASSERT_EQUAL(member->last_heard[CLUSTER_GRANT].is.grant.run_count, 0);
	end_world(w);
}

static void what_an_earlier_master_gave_is_not_on_its_way_any_more(void)
{
	struct world *w = make_second_term(20);
	struct peer *node = &w->nodes[0], *member = &w->nodes[2];
	say_demand(member, node, (struct cluster_demand){ .asked_us = 1, .waiting = 5 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 5);
	be_elected_again(w);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 2, .waiting = 5, .last_grant = 0 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 10);
	end_world(w);
}

static void l_begins_anew_with_each_master(void)
{
	struct world *w = make_second_term(20);
	struct peer *node = &w->nodes[0], *member = &w->nodes[2];
	run_for(w, 300 * MS);
	say_beat(member, node, 2, 1);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 1 });
	say_demand(member, node, (struct cluster_demand){ .asked_us = 2, .died_total = 2 });
	run_for(w, 500 * MS);
	CU_ASSERT_EQUAL(report_of(node).late_us, 2 * LATE_MIN);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 3, .died_total = 3 });
	be_elected_again(w);
	CU_ASSERT_EQUAL(report_of(node).late_us, LATE_MIN);
	say_beat(member, node, 2, 2);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 4, .died_total = 9 });
	say_demand(member, node, (struct cluster_demand){ .asked_us = 5, .died_total = 10 });
	run_for(w, 600 * MS);
	CU_ASSERT_EQUAL(report_of(node).late_us, LATE_MIN); /* one, since it is master */
	end_world(w);
}

static void a_late_start_that_another_master_has_seen_does_not_count_again(void)
{
	struct world *w = make_second_term(1);
	struct peer *node = &w->nodes[0], *member = &w->nodes[2];
	say_demand(member, node, (struct cluster_demand){ .asked_us = 1 });
	be_elected_again(w);
	say_beat(member, node, 2, 2);
	let_wait(node, 1000, true);
	run_for(w, 0);
	say_demand(member, node, (struct cluster_demand){ .asked_us = 2, .late_us_total = 5000, .late_seen_us_total = 5000 });
	run_for(w, 1200 * MS);
	CU_ASSERT_TRUE_FATAL(w->start_count >= 2);
	CU_ASSERT_EQUAL(w->starts[1].at_us + node->offset_us, on_grid(w->starts[0].at_us + node->offset_us + SECOND + LATE_MIN));
	end_world(w);
}

/* ---- how many there are ------------------------------------------------------------------------------------------------ */

static struct world *make_strict(unsigned threshold)
{
	struct cluster_options options = options_of(1, threshold);
	options.is_strict = true;
	struct world *w = make_lone(options, 7 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, threshold);
	return w;
}

static void an_earlier_life_of_its_own_makes_no_group_larger(void)
{
	struct world *w = make_strict(10);
	struct peer *node = &w->nodes[0], *twin = add_puppet(w, 1);
	struct cluster_message message = beat_of(twin, node, 0, 1);
	message.is.heartbeat.uptime_us = MS;
	say(twin, node, &message);
	CU_ASSERT_EQUAL(node->events[CLUSTER_TWIN_MET], 1);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_EQUAL(report_of(node).slots, 10);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 10);
	end_world(w);
}

/* Node 2 restarts twice, so fast that all its lives are there at once; then node 3 comes, and goes. */
static void each_id_counts_once_however_often_it_restarts(void)
{
	struct world *w = make_strict(9);
	struct peer *node = &w->nodes[0], *lives[3], *third;
	for (unsigned i = 0; i < 3; i++)
		lives[i] = add_puppet(w, 2);
	third = add_puppet(w, 3);
	for (unsigned i = 0; i < 3; i++)
		say_beat(lives[i], node, 1, 1);
	CU_ASSERT_EQUAL(node->events[CLUSTER_NODE_CAME], 3);
	say_beat(third, node, 1, 1);
	run_with_puppet(lives[2], node, 1, 1, SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 6); /* two of three */
	for (unsigned i = 0; i < 2; i++)
		say_beat(add_puppet(w, 2), node, 1, 1); /* with it and the master four lives, of two */
	run_with_puppet(lives[2], node, 1, 1, SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 6);
	end_world(w);
}

static void who_died_and_came_back_counts_beside_one_who_comes_later(void)
{
	struct world *w = make_strict(9);
	struct peer *node = &w->nodes[0], *first = add_puppet(w, 2), *again = add_puppet(w, 2), *third = add_puppet(w, 3);
	say_beat(first, node, 1, 1);
	run_for(w, SECOND);
	CU_ASSERT_FALSE(is_alive_for(node, 2));
	say_beat(again, node, 1, 1);
	say_beat(third, node, 1, 1);
	run_with_puppet(again, node, 1, 1, SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 6);
	end_world(w);
}

/* ---- a full table ------------------------------------------------------------------------------------------------------ */

#define PLACES 95u /* for others; so many ids are heard here, of which no group could be */

/* A heartbeat of a node that is no peer of this world. */
static void hear_of(struct peer *node, unsigned id, uint64_t uptime_us, bool has_echo)
{
	struct peer *any = &node->world->nodes[1];
	struct cluster_message message = beat_of(any, node, 0, 1);
	message.id = id;
	message.incarnation = id;
	message.is.heartbeat.uptime_us = uptime_us;
	message.is.heartbeat.echo_count = has_echo;
	receive(node, 1, &message);
}

static struct world *make_crowd(unsigned living)
{
	struct world *w = make_pair(1, 2, 2);
	run_for(w, 3 * SECOND);
	for (unsigned id = 100; id < 100 + living; id++)
		hear_of(&w->nodes[0], id, SECOND, true);
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_NODE_CAME], living);
	return w;
}

static void who_has_gone_keeps_its_place_for_700_milliseconds(void)
{
	struct world *w = make_crowd(PLACES);
	struct peer *node = &w->nodes[0];
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .id = 120, .incarnation = 120, .epoch = 1 };
	receive(node, 1, &leave);
	CU_ASSERT_EQUAL(node->events[CLUSTER_NODE_WENT], 1);
	run_for(w, 300 * MS);
	for (unsigned id = 100; id < 100 + PLACES; id++)
		if (id != 120)
			hear_of(node, id, 2 * SECOND, true);
	run_for(w, ALIVE - 300 * MS - 1);
	hear_of(node, 500, SECOND, true);
	CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 1);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_FULL], 500);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_FULL], CLUSTER_NODES_MAX);
	run_for(w, 1);
	hear_of(node, 500, SECOND, true);
	CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 1);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_CAME], 500);
	end_world(w);
}

static bool is_known(const struct peer *node, unsigned id)
{
	struct cluster_report report = report_of(node);
	return find_report(&report, id) != NULL;
}

/* 11 and 14 proved to be there, and died, 14 first. 12 and 13 never proved it, and 13 was heard first. */
static void those_go_first_that_never_proved_to_be_there_and_of_those_the_longest_silent(void)
{
	struct world *w = make_pair(1, 2, 2);
	struct peer *node = &w->nodes[0];
	run_for(w, 3 * SECOND);
	hear_of(node, 11, SECOND, true);
	hear_of(node, 12, SECOND, false);
	hear_of(node, 13, SECOND, false);
	hear_of(node, 14, SECOND, true);
	run_for(w, 10 * MS);
	hear_of(node, 11, SECOND, false);
	hear_of(node, 12, SECOND, false);
	run_for(w, SECOND);
	for (unsigned id = 100; id < 100 + PLACES - 4; id++)
		hear_of(node, id, SECOND, true);
	CU_ASSERT_FALSE(is_alive_for(node, 11));
	hear_of(node, 501, SECOND, true);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .id = 12, .incarnation = 12, .epoch = 1 };
	receive(node, 1, &leave);
	hear_of(node, 12, SECOND, true); /* it is still known, and has left: so it does not come */
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_CAME], 501);
	run_for(w, ALIVE); /* 12 was heard just now, and with an echo */
	for (unsigned id = 100; id < 100 + PLACES - 4; id++)
		hear_of(node, id, 2 * SECOND, true);
	hear_of(node, 501, 2 * SECOND, true);
	CU_ASSERT_TRUE(is_known(node, 11));
	CU_ASSERT_TRUE(is_known(node, 14));
	hear_of(node, 502, SECOND, true);
	CU_ASSERT_TRUE(is_known(node, 11));
	CU_ASSERT_FALSE(is_known(node, 14));
	hear_of(node, 503, SECOND, true);
	CU_ASSERT_FALSE(is_known(node, 11));
	CU_ASSERT_TRUE(is_known(node, 12));
	hear_of(node, 504, SECOND, true);
	CU_ASSERT_FALSE(is_known(node, 12));
	hear_of(node, 505, SECOND, true);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_CAME], 504);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_FULL], 505);
	end_world(w);
}

static void of_those_that_never_proved_it_the_longest_silent_goes_wherever_it_stands(void)
{
	for (unsigned later = 12; later <= 13; later++) {
		struct world *w = make_pair(1, 2, 2);
		struct peer *node = &w->nodes[0];
		run_for(w, 3 * SECOND);
		hear_of(node, 12, SECOND, false);
		hear_of(node, 13, SECOND, false);
		run_for(w, 10 * MS);
		hear_of(node, later, SECOND, false);
		for (unsigned id = 100; id < 100 + PLACES - 2; id++)
			hear_of(node, id, SECOND, true);
		hear_of(node, 501, SECOND, true);
		struct cluster_message leave = { .kind = CLUSTER_LEAVE, .id = later, .incarnation = later, .epoch = 1 };
		receive(node, 1, &leave);
		hear_of(node, later, SECOND, true); /* it is still known, and has left: so it does not come */
		CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_CAME], 501);
		CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 0);
		end_world(w);
	}
}

static void who_has_the_place_of_one_who_died_owns_not_even_the_first_slot(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 1);
	options.window_us = 60 * SECOND;
	struct peer *node = add_node_with(w, options), *puppet = add_puppet(w, 2);
	run_for(w, 62 * SECOND);
	say_beat(puppet, node, 1, 1);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .waiting = 1 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 1);
	run_for(w, SECOND);
	for (unsigned id = 100; id < 100 + PLACES - 1; id++)
		hear_of(node, id, SECOND, true);
	CU_ASSERT_TRUE(is_known(node, 2));
	hear_of(node, 50, SECOND, true);
	CU_ASSERT_FALSE(is_known(node, 2));
	options.threshold = 0; /* the slot is taken from its owner */
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	struct cluster_report report = report_of(node);
	const struct cluster_node_report *heir = find_report(&report, 50);
	CU_ASSERT_PTR_NOT_NULL_FATAL(heir);
	CU_ASSERT_EQUAL(heir->granted, 0);
	end_world(w);
}

static void who_has_anothers_place_has_nothing_of_it(void)
{
	struct world *w = make_crowd(PLACES - 1);
	struct peer *node = &w->nodes[0];
	hear_of(node, 400, 1000 * SECOND, false);
	hear_of(node, 401, SECOND, true);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_NODE_CAME], 401);
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .id = 401, .incarnation = 401, .epoch = 1 };
	message.is.demand = (struct cluster_demand){ .asked_us = 1, .waiting = 2 };
	receive(node, 1, &message);
	CU_ASSERT_EQUAL(report_of(node).granted_total, 2);
	end_world(w);
}

static void of_more_than_a_group_the_64_lowest_are_echoed(void)
{
	struct world *w = make_pair(1, 2, 2);
	struct peer *node = &w->nodes[0];
	run_for(w, 3 * SECOND);
	for (unsigned id = 170; id >= 100; id--)
		hear_of(node, id, SECOND, true);
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.echo_count, CLUSTER_NODES_MAX);
	for (unsigned id = 100; id < 170; id++)
		CU_ASSERT_EQUAL(is_echoed(node, id), id < 100 + CLUSTER_NODES_MAX);
	end_world(w);
}

static void many_lives_of_one_id_get_no_more_echoes_than_there_is_room_for(void)
{
	struct world *w = make_pair(1, 2, 2);
	struct peer *node = &w->nodes[0];
	run_for(w, 3 * SECOND);
	for (unsigned life = 1; life <= 70; life++) {
		struct cluster_message message = beat_of(&w->nodes[1], node, 0, 1);
		message.id = 100;
		message.incarnation = life;
		receive(node, 1, &message);
	}
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.echo_count, CLUSTER_NODES_MAX);
	end_world(w);
}

/* ---- a new master ------------------------------------------------------------------------------------------------------ */

static void a_new_master_begins_without_a_burst(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(2, 100);
	options.burst = 3;
	struct peer *node = add_node_with(w, options), *puppet = add_puppet(w, 3);
	run_for(w, 3 * SECOND);
	struct cluster_handover free_ring = { .bucket_count = 1, .buckets = { 100 } };
	hand_over(puppet, node, free_ring);
	uint64_t handed_us = w->now_us;
	let_wait(node, 1000, true);
	run_for(w, 100 * MS);
	CU_ASSERT_TRUE_FATAL(w->start_count > 5);
	CU_ASSERT_EQUAL(w->starts[0].at_us, handed_us + 10 * MS); /* the ring says "in 10 ms at most" */
	for (size_t i = 1; i < 5; i++)
		CU_ASSERT_EQUAL(w->starts[i].at_us, handed_us + i * 10080);
	end_world(w);
}

static void who_was_paused_tells_nobody_of_its_ring(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	run_for(w, 3 * SECOND);
	say_beat(puppet, node, 0, 1);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover = { .nonce = 77 } };
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 1);
	let_pass(w, 600 * MS);
	tick(node);
	CU_ASSERT_EQUAL(node->events[CLUSTER_WAS_PAUSED], 1);
	say_beat(puppet, node, 0, 1);
	CU_ASSERT_TRUE(is_alive_for(node, 1));
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 1);
	end_world(w);
}

/* Datagrams that came together are received before anything else is done. */
static void after_the_handover_not_one_demand_is_answered(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1], *member = add_puppet(w, 3);
	run_for(w, 3 * SECOND);
	say_beat(puppet, node, 0, 1);
	say_beat(member, node, 2, 1);
	struct cluster_place place = { .bytes = { 1 } };
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .id = 1, .incarnation = puppet->incarnation, .epoch = 1 };
	message.is.takeover.nonce = 5;
	cluster_receive(node->cluster, &message, &place, clock_of(node));
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 1);
	message = (struct cluster_message){ .kind = CLUSTER_DEMAND, .id = 3, .incarnation = member->incarnation, .epoch = 1 };
	message.is.demand = (struct cluster_demand){ .asked_us = 1, .waiting = 5 };
	cluster_receive(node->cluster, &message, &place, clock_of(node));
	CU_ASSERT_EQUAL(node->sent[CLUSTER_GRANT], 0);
	CU_ASSERT_EQUAL(report_of(node).granted_total, 0);
	end_world(w);
}

static void a_master_takes_no_grants(void)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	struct cluster_message message = { .kind = CLUSTER_GRANT, .epoch = report_of(node).epoch };
	message.is.grant = (struct cluster_grant){ .asked_us = clock_of(node), .number = 1, .late_us = 6000, .run_count = 1 };
	message.is.grant.runs[0] = (struct cluster_run){ 0, 3 };
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(node->given, 0);
	CU_ASSERT_EQUAL(node->answers, 0);
	end_world(w);
}

static void each_change_of_the_master_or_its_epoch_is_told_and_asked_anew(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], 1);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_MASTER_CHANGED], 5);
	let_wait(node, 1, true);
	run_for(w, MS);
	struct cluster_message grant = { .kind = CLUSTER_GRANT, .epoch = 5 };
	grant.is.grant = (struct cluster_grant){ .asked_us = node->last_sent[CLUSTER_DEMAND].is.demand.asked_us, .number = 7 };
	say(master, node, &grant);
	CU_ASSERT_TRUE(time_to_send(node, CLUSTER_DEMAND, SECOND) <= 20 * MS);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_DEMAND].is.demand.last_grant, 7);
	run_for(w, 2 * MS);
	unsigned sent = node->sent[CLUSTER_DEMAND];
	say_beat(master, node, 1, 6);
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], 2);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_MASTER_CHANGED], 1);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_MASTER_CHANGED], 6);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_DEMAND], sent + 1);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_DEMAND].is.demand.last_grant, 0);
	say_beat(master, node, 0, 6);
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], 3);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_MASTER_CHANGED], 0);
	say_beat(master, node, 0, 7);
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], 3);
	say_beat(master, node, 1, 7);
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], 4);
	end_world(w);
}

static void a_member_says_at_once_that_it_follows_another(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 5, 50), *first = add_puppet(w, 2), *second = add_puppet(w, 3);
	run_for(w, 10 * MS);
	for (unsigned i = 0; i < 20; i++) {
		say_beat(first, node, 2, 5);
		say_beat(second, node, 3, 5);
		run_for(w, 50 * MS);
	}
	CU_ASSERT_EQUAL(master_of(node), 2);
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	let_pass(w, MS);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = 5 };
	say(first, node, &leave);
	CU_ASSERT_EQUAL(master_of(node), 3);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 4 * MS);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.master, 3);
	end_world(w);
}

/* What node 2 tells puppet 1 of its ring. */
static const struct cluster_handover *ask_for_ring(struct peer *node, struct peer *puppet)
{
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover = { .nonce = 5 } };
	say_beat(puppet, node, 0, 1);
	say(puppet, node, &message);
	CU_ASSERT_EQUAL_FATAL(node->sent[CLUSTER_HANDOVER], 1);
	return &node->last_sent[CLUSTER_HANDOVER].is.handover;
}

static void a_ring_is_told_in_steps_of_10_milliseconds(void)
{
	for (unsigned more_us = 0; more_us < 2; more_us++) {
		struct world *w = make_lone(options_of(2, 4), 7 * SECOND);
		struct peer *node = &w->nodes[0], *puppet = add_puppet(w, 1);
		let_wait(node, 1, false);
		run_for(w, 500 * MS);
		let_wait(node, 1, false);
		run_for(w, 8 * MS - more_us); /* the first is due in half a second, the second in a whole one */
		const struct cluster_handover *told = ask_for_ring(node, puppet);
		CU_ASSERT_EQUAL(told->bucket_us, CLUSTER_BUCKET_US);
		CU_ASSERT_EQUAL(told->bucket_count, 100 + more_us);
		CU_ASSERT_EQUAL(told->buckets[0], 2);
		CU_ASSERT_EQUAL(told->buckets[49 + more_us], 1);
		CU_ASSERT_EQUAL(told->buckets[99 + more_us], 1);
		end_world(w);
	}
}

static void a_long_windows_ring_is_told_in_160_steps_at_most(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(2, 2);
	options.window_us = 100 * SECOND;
	struct peer *node = add_node_with(w, options), *puppet = add_puppet(w, 1);
	run_for(w, 102 * SECOND);
	let_wait(node, 1, false);
	run_for(w, 0);
	uint64_t due_us = on_grid(clock_of(node) + options.window_us + LATE_MIN);
	run_for(w, SECOND);
	const struct cluster_handover *told = ask_for_ring(node, puppet);
	CU_ASSERT_EQUAL(told->bucket_us, (due_us - clock_of(node)) / 159 + 1);
	CU_ASSERT_EQUAL(told->bucket_count, 159);
	CU_ASSERT_EQUAL(told->buckets[0], 1);
	CU_ASSERT_EQUAL(told->buckets[158], 1);
	end_world(w);
}

static void a_ring_that_tells_all_ends_the_quiet_and_with_strict_begins_it(void)
{
	for (unsigned is_strict = 0; is_strict < 2; is_strict++) {
		struct world *w = make_world();
		struct cluster_options options = options_of(1, 50);
		options.is_strict = is_strict == 1;
		struct peer *node = add_node_with(w, options), *puppet = add_puppet(w, 2);
		w->delay_us = 0;
		run_for(w, 0);
		say_beat(puppet, node, 2, 5); /* for as long as it has been there */
		run_for(w, 50 * MS);
		run_with_puppet(puppet, node, 2, 5, 700 * MS);
		struct cluster_message ring = { .kind = CLUSTER_HANDOVER, .epoch = 5 };
		ring.is.handover = (struct cluster_handover){ .bucket_us = CLUSTER_BUCKET_US, .bucket_count = 1, .buckets = { 50 } };
		ring.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
		say(puppet, node, &ring);
		CU_ASSERT_EQUAL(master_of(node), 1);
		CU_ASSERT_EQUAL(report_of(node).quiet_until_us, is_strict ? clock_of(node) + QUIET + ALIVE : 0);
		end_world(w);
	}
}

/* ---- twins ------------------------------------------------------------------------------------------------------------- */

/* Node 1 has run for 10 seconds, a twin for that and so much more: does the node step aside? */
static bool steps_aside(int64_t older_us, bool twin_is_greater)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50), *twin = add_puppet(w, 1);
	run_for(w, 10 * SECOND);
	twin->incarnation = twin_is_greater ? node->incarnation + 1 : node->incarnation - 1;
	struct cluster_message message = beat_of(twin, node, 0, 1);
	message.is.heartbeat.uptime_us = (uint64_t)((int64_t)(10 * SECOND) + older_us);
	say(twin, node, &message);
	CU_ASSERT_EQUAL(node->events[CLUSTER_TWIN_MET], 1);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_TWIN_MET], 0);
	bool is_aside = node->events[CLUSTER_STEPPED_ASIDE] == 1;
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_STEPPED_ASIDE], 0);
	CU_ASSERT_EQUAL(report_of(node).nodes[0].state, is_aside ? CLUSTER_ASIDE : CLUSTER_ALIVE);
	run_for(w, 2 * SECOND); /* the twin is heard no more */
	CU_ASSERT_EQUAL(node->events[CLUSTER_CAME_BACK], is_aside);
	CU_ASSERT_EQUAL(node->event_number[CLUSTER_CAME_BACK], 0);
	say_beat(twin, node, 0, 1);
	CU_ASSERT_EQUAL(node->events[CLUSTER_TWIN_MET], 2);
	end_world(w);
	return is_aside;
}

static void a_second_of_age_decides_between_twins_and_less_is_too_close_to_say(void)
{
	CU_ASSERT_TRUE(steps_aside((int64_t)SECOND, false));
	CU_ASSERT_FALSE(steps_aside((int64_t)SECOND - 1, false));
	CU_ASSERT_TRUE(steps_aside((int64_t)SECOND - 1, true));
	CU_ASSERT_FALSE(steps_aside(-(int64_t)SECOND, true));
	CU_ASSERT_TRUE(steps_aside(1 - (int64_t)SECOND, true));
	CU_ASSERT_FALSE(steps_aside(1 - (int64_t)SECOND, false));
}

static void twins_that_both_stay_for_more_than_a_second_are_told_apart_by_their_incarnation(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50), *twin = add_puppet(w, 1);
	run_for(w, 10 * SECOND);
	twin->incarnation = node->incarnation + 1;
	uint64_t met_us = w->now_us;
	while (w->now_us < met_us + SECOND) {
		struct cluster_message message = beat_of(twin, node, 0, 1);
		message.is.heartbeat.uptime_us -= 5 * SECOND;
		say(twin, node, &message);
		let_pass(w, 50 * MS);
	}
	tick(node);
	CU_ASSERT_EQUAL(w->now_us, met_us + SECOND);
	CU_ASSERT_EQUAL(node->events[CLUSTER_STEPPED_ASIDE], 0);
	let_pass(w, 1);
	tick(node);
	CU_ASSERT_EQUAL(node->events[CLUSTER_STEPPED_ASIDE], 1);
	end_world(w);
}

static void a_twin_that_asks_for_the_ring_is_not_given_it(void)
{
	struct world *w = make_lone(options_of(1, 50), 7 * SECOND);
	struct peer *node = &w->nodes[0], *twin = add_puppet(w, 1);
	struct cluster_message message = beat_of(twin, node, 0, 1);
	message.is.heartbeat.uptime_us = MS;
	say(twin, node, &message);
	message = (struct cluster_message){ .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover = { .nonce = 5 } };
	say(twin, node, &message);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 0);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	end_world(w);
}

/* ---- shares ------------------------------------------------------------------------------------------------------------ */

static void what_is_on_its_way_is_taken_off_for_350_milliseconds(void)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 1, .waiting = 5 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 5);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 2, .waiting = 8 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 8);
	let_pass(w, 350 * MS - 1);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 3, .waiting = 8 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 8);
	let_pass(w, 1);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 4, .waiting = 8 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 16);
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 5, .waiting = 8, .last_grant = 4 });
	CU_ASSERT_EQUAL(report_of(node).granted_total, 24);
	end_world(w);
}

static void of_a_long_row_of_grants_each_is_on_its_way_until_it_was_seen(void)
{
	struct world *w = make_master(1000);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	say_demand(puppet, node, (struct cluster_demand){ .asked_us = 0 });
	for (unsigned i = 0; i < 70; i++) {
		say_demand(puppet, node, (struct cluster_demand){ .asked_us = i, .waiting = 3, .last_grant = 2 * i + 1 });
		CU_ASSERT_EQUAL(report_of(node).granted_total, 3 * (i + 1));
		say_demand(puppet, node, (struct cluster_demand){ .asked_us = i, .waiting = 3, .last_grant = 2 * i + 1 });
		CU_ASSERT_EQUAL(report_of(node).granted_total, 3 * (i + 1));
	}
	end_world(w);
}

/* Node 1, and puppets 2 and 3 that follow it; all is free. */
static struct world *make_three(unsigned threshold)
{
	struct world *w = make_master(threshold);
	say_beat(add_puppet(w, 3), &w->nodes[0], 1, 1);
	return w;
}

/* Nobody gets anything yet: what comes due is free again when all have asked. */
static void let_all_ask(struct world *w, const unsigned waiting[3])
{
	struct peer *node = &w->nodes[0];
	let_wait(node, node->options.threshold, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(w->start_count, node->options.threshold);
	for (unsigned passed_ms = 0; passed_ms < 950; passed_ms += 50) {
		run_for(w, 50 * MS);
		say_beat(&w->nodes[1], node, 1, 1);
		say_beat(&w->nodes[2], node, 1, 1);
	}
	let_wait(node, waiting[0], false);
	run_for(w, 0);
	for (unsigned i = 1; i < 3; i++)
		say_demand(&w->nodes[i], node, (struct cluster_demand){ .asked_us = 1, .waiting = waiting[i] });
	CU_ASSERT_EQUAL(report_of(node).granted_total, node->options.threshold);
	let_pass(w, 12 * MS);
}

static unsigned given_to(struct world *w, unsigned puppet, unsigned waiting)
{
	uint64_t before = report_of(&w->nodes[0]).granted_total;
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1 };
	struct cluster_place place = { .bytes = { (unsigned char)puppet } };
	message.id = w->nodes[puppet].id;
	message.incarnation = w->nodes[puppet].incarnation;
	message.is.demand = (struct cluster_demand){ .asked_us = 2, .waiting = waiting };
	cluster_receive(w->nodes[0].cluster, &message, &place, clock_of(&w->nodes[0])); /* and the node itself has not asked again */
	return (unsigned)(report_of(&w->nodes[0]).granted_total - before);
}

static void who_wants_one_counts_beside_who_wants_all(void)
{
	struct world *w = make_three(2);
	let_all_ask(w, (const unsigned[]){ 1, 2, 0 });
	CU_ASSERT_EQUAL(given_to(w, 1, 2), 1);
	end_world(w);
}

static void what_is_left_over_is_not_kept_for_who_wants_no_more(void)
{
	struct world *w = make_three(4);
	let_all_ask(w, (const unsigned[]){ 1, 10, 10 });
	CU_ASSERT_EQUAL(given_to(w, 1, 10), 2);
	end_world(w);
}

static void of_two_that_are_left_over_the_second_gets_one(void)
{
	struct world *w = make_three(2);
	let_all_ask(w, (const unsigned[]){ 10, 10, 10 });
	CU_ASSERT_EQUAL(given_to(w, 2, 10), 0);
	CU_ASSERT_EQUAL(given_to(w, 1, 10), 1);
	end_world(w);
}

static void slots_that_come_due_at_once_are_one_run(void)
{
	struct world *w = make_three(3);
	let_all_ask(w, (const unsigned[]){ 0, 0, 3 });
	CU_ASSERT_EQUAL(given_to(w, 2, 3), 3);
	const struct cluster_grant *grant = &w->nodes[0].last_sent[CLUSTER_GRANT].is.grant;
	CU_ASSERT_EQUAL(grant->run_count, 1);
	CU_ASSERT_EQUAL(grant->runs[0].count, 3);
	CU_ASSERT_TRUE(grant->runs[0].in_us > 40 * MS && grant->runs[0].in_us <= AHEAD);
	end_world(w);
}

/* One slot, for which the first count nodes but 1 ask every 10 ms, the last first. Who gets it next? */
static unsigned who_gets_it(struct world *w, unsigned count, uint64_t *asked)
{
	struct peer *node = &w->nodes[0];
	uint64_t before = report_of(node).granted_total;
	for (unsigned passed_ms = 0; passed_ms < 2000; passed_ms += 10) {
		run_for(w, 10 * MS);
		for (unsigned i = count - 1; i > 0; i--) {
			say_beat(&w->nodes[i], node, 1, 1);
			say_demand(&w->nodes[i], node,
			           (struct cluster_demand){ .asked_us = ++*asked, .waiting = 10, .last_grant = UINT64_MAX });
			if (report_of(node).granted_total > before)
				return w->nodes[i].id;
		}
	}
	return 0;
}

static void what_is_left_over_goes_round_and_who_comes_new_is_soon_level(void)
{
	static const unsigned rounds[] = { 4, 6, 10 };
	for (unsigned i = 0; i < LENGTH(rounds); i++) {
		struct world *w = make_master(1);
		struct peer *node = &w->nodes[0], *second = add_puppet(w, 3), *third = add_puppet(w, 4);
		uint64_t asked = 0;
		say_beat(second, node, 1, 1);
		CU_ASSERT_EQUAL(who_gets_it(w, 2, &asked), 2); /* of a ring that was never used */
		for (unsigned round = 0; round < rounds[i]; round++)
			CU_ASSERT_EQUAL(who_gets_it(w, 3, &asked), round % 2 == 0 ? 2 : 3);
		say_beat(third, node, 1, 1);
		static const unsigned expected[] = { 4, 4, 2, 3, 4, 2, 3, 4 };
		for (unsigned round = 0; round < LENGTH(expected); round++)
			CU_ASSERT_EQUAL(who_gets_it(w, 4, &asked), expected[round]);
		end_world(w);
	}
}

/* ---- round trips ------------------------------------------------------------------------------------------------------- */

static void be_answered_after(struct world *w, uint64_t took_us)
{
	struct peer *node = &w->nodes[0];
	struct cluster_message message = { .kind = CLUSTER_GRANT, .epoch = 5 };
	struct cluster_place place = { .bytes = { 1 } };
	message.id = w->nodes[1].id;
	message.incarnation = w->nodes[1].incarnation;
	message.is.grant = (struct cluster_grant){ .asked_us = clock_of(node) - took_us, .number = 1, .late_us = 6000 };
	cluster_receive(node->cluster, &message, &place, clock_of(node));
}

static unsigned round_trip_told(struct world *w)
{
	struct peer *node = &w->nodes[0];
	CU_ASSERT_TRUE(time_to_send(node, CLUSTER_DEMAND, SECOND) <= 20 * MS);
	return node->last_sent[CLUSTER_DEMAND].is.demand.round_trip_us;
}

static void a_round_trip_is_smoothed_and_told_with_twice_its_variation(void)
{
	struct world *w = make_member();
	let_wait(&w->nodes[0], 5, true);
	CU_ASSERT_EQUAL(round_trip_told(w), 0);
	be_answered_after(w, 32 * MS);
	CU_ASSERT_EQUAL(round_trip_told(w), 32000 + 2 * 2000);
	be_answered_after(w, 64 * MS);
	CU_ASSERT_EQUAL(round_trip_told(w), 33000 + 2 * 3875);
	be_answered_after(w, 200 * MS); /* counts as 100: more is a pause */
	CU_ASSERT_EQUAL(round_trip_told(w), 35093 + 2 * 7820);
	be_answered_after(w, 3093);
	CU_ASSERT_EQUAL(round_trip_told(w), 34093 + 2 * 9331);
	for (unsigned i = 0; i < 200; i++)
		be_answered_after(w, LATE_MAX);
	CU_ASSERT_EQUAL(round_trip_told(w), LATE_MAX);
	end_world(w);
}

static void a_master_that_was_a_member_waits_for_nobodys_round_trip(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0];
	let_wait(node, 5, true);
	be_answered_after(w, 32 * MS);
	run_for(w, 5 * SECOND);
	CU_ASSERT_EQUAL(master_of(node), 2);
	CU_ASSERT_TRUE(w->start_count > 50);
	CU_ASSERT_EQUAL(report_of(node).late_us, LATE_MIN);
	end_world(w);
}

static void each_members_round_trip_counts(void)
{
	struct world *w = make_three(50);
	say_demand(&w->nodes[1], &w->nodes[0], (struct cluster_demand){ .asked_us = 1, .round_trip_us = 3000 });
	say_demand(&w->nodes[2], &w->nodes[0], (struct cluster_demand){ .asked_us = 1, .round_trip_us = 10000 });
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).late_us, 16 * MS);
	end_world(w);
}

static void one_of_200_that_died_is_forgotten_after_a_second_and_one_of_199_is_not(void)
{
	for (unsigned more = 0; more < 2; more++) {
		struct cluster_demand demand;
		struct world *w = make_widened(&demand);
		struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
		demand.used_total += 198 + more;
		demand.died_total += 1;
		say_demand(puppet, node, demand);
		run_with_puppet(puppet, node, 1, 1, 1250 * MS);
		CU_ASSERT_EQUAL(report_of(node).late_us, 16 * MS);
		demand.died_total += 1;
		say_demand(puppet, node, demand);
		run_with_puppet(puppet, node, 1, 1, 500 * MS);
		CU_ASSERT_EQUAL(report_of(node).late_us, more == 1 ? 16 * MS : 24 * MS);
		end_world(w);
	}
}

static void l_narrows_once_a_second(void)
{
	struct cluster_demand demand;
	struct world *w = make_widened(&demand);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	uint64_t widened_us = w->now_us;
	while (w->now_us < widened_us + 3 * SECOND) {
		demand.used_total += 20;
		say_demand(puppet, node, demand);
		say_beat(puppet, node, 1, 1);
		let_pass(w, 50 * MS);
	}
	tick(node);
	CU_ASSERT_EQUAL(report_of(node).late_us, (16000 * 15 / 16 * 15 / 16) * 15 / 16);
	end_world(w);
}

static void a_strict_group_of_one_is_whole_whoever_was_there(void)
{
	struct cluster_options options = options_of(1, 10);
	options.is_strict = true;
	options.group_size = 1;
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0], *puppet = add_puppet(w, 2);
	say_beat(puppet, node, 1, 1);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 10);
	end_world(w);
}

static void of_a_smaller_part_all_may_start_that_were_free(void)
{
	struct cluster_options options = options_of(1, 10);
	options.is_strict = true;
	options.group_size = 2;
	struct world *w = make_lone(options, 7 * SECOND);
	struct peer *node = &w->nodes[0], *puppet = add_puppet(w, 2);
	run_with_puppet(puppet, node, 1, 1, 3 * SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 10);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = 1 };
	say(puppet, node, &leave);
	CU_ASSERT_EQUAL(report_of(node).slots, 5);
	let_wait(node, 10, false);
	run_for(w, 0);
	CU_ASSERT_EQUAL(w->start_count, 5);
	end_world(w);
}

/* ---- asking, again ----------------------------------------------------------------------------------------------------- */

static void starts_in_hand_are_not_asked_for(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0];
	node->held = 3;
	let_wait(node, 5, false);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 0);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_DEMAND].is.demand.waiting, 2);
	node->held = 5;
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), NOT_AT_ALL);
	end_world(w);
}

static void a_line_that_was_empty_is_a_change(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0];
	let_wait(node, 1, true);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 0);
	run_for(w, 2 * MS);
	let_wait(node, 0, true);
	run_for(w, 2 * MS);
	let_wait(node, 1, true);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, SECOND), 0);
	CU_ASSERT_TRUE(node->next_us >= w->now_us + 5 * MS); /* it wants to be left alone until the next is due */
	end_world(w);
}

static void a_master_asks_itself_as_often_as_it_likes(void)
{
	struct world *w = make_master(5);
	struct peer *node = &w->nodes[0];
	for (unsigned i = 1; i <= 3; i++) {
		let_wait(node, i, false);
		tick(node);
	}
	CU_ASSERT_EQUAL(w->start_count, 5); /* 1 and 2, and of the 3 as many as are left */
	end_world(w);
}

static void a_late_start_is_no_news_when_the_master_has_heard_of_it(void)
{
	struct world *w = make_master(5);
	struct peer *node = &w->nodes[0];
	node->late_us_total = 5000;
	tick(node);
	CU_ASSERT_EQUAL(node->answers, 1);
	run_for(w, 300 * MS);
	CU_ASSERT_EQUAL(node->answers, 1);
	end_world(w);

	w = make_member();
	node = &w->nodes[0];
	node->late_us_total = 5000;
	tick(node);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_DEMAND], 1);
	run_for(w, 5 * MS);
	be_answered_after(w, 5 * MS); /* to that very question */
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_DEMAND, 300 * MS), NOT_AT_ALL);
	end_world(w);
}

static void an_answer_in_no_time_is_an_answer(void)
{
	struct world *w = make_member();
	be_answered_after(w, 0);
	CU_ASSERT_EQUAL(w->nodes[0].answers, 1);
	end_world(w);
}

/* ---- datagrams that come before the clock was looked at ---------------------------------------------------------------- */

static void after_a_pause_no_grant_is_taken_before_the_first_look(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0];
	let_pass(w, 600 * MS);
	be_answered_after(w, 600 * MS);
	CU_ASSERT_EQUAL(node->events[CLUSTER_WAS_PAUSED], 1);
	CU_ASSERT_EQUAL(node->answers, 0);
	end_world(w);
}

static void a_goodbye_deposes_nobody(void)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0];
	uint64_t epoch = report_of(node).epoch;
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = epoch + 5 };
	say(&w->nodes[1], node, &leave);
	CU_ASSERT_EQUAL(report_of(node).epoch, epoch);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	end_world(w);
}

static void who_has_just_died_gets_nothing(void)
{
	struct world *w = make_master(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	say_beat(puppet, node, 1, 1);
	run_for(w, ALIVE - 100);
	CU_ASSERT_TRUE(is_alive_for(node, 2));
	let_pass(w, 101);
	CU_ASSERT_EQUAL(given_to(w, 1, 5), 0);
	CU_ASSERT_FALSE(is_alive_for(node, 2));
	end_world(w);
}

/* Node 1 listens. What it hears at 600 ms has no echo of its. How long the node is quiet then, since it was born. */
static uint64_t quiet_after_a_stranger_said(unsigned master)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	uint64_t born_us = clock_of(node);
	run_for(w, 600 * MS);
	struct cluster_message message = beat_of(puppet, node, master, 0);
	message.is.heartbeat.echo_count = 0;
	say(puppet, node, &message);
	run_for(w, 100 * MS);
	CU_ASSERT_EQUAL(master_of(node), 1);
	uint64_t quiet_us = report_of(node).quiet_until_us - born_us;
	end_world(w);
	return quiet_us;
}

static void a_master_that_a_newcomer_heard_and_never_met_may_have_given_until_then(void)
{
	CU_ASSERT_EQUAL(quiet_after_a_stranger_said(2), 600 * MS + QUIET);
	CU_ASSERT_EQUAL(quiet_after_a_stranger_said(0), QUIET);
}

static void a_candidate_asks_50_milliseconds_after_it_asked_last_whenever_heartbeats_are_due(void)
{
	struct world *w = make_two_masters(50);
	struct peer *node = &w->nodes[0], *puppet = &w->nodes[1];
	time_to_send(node, CLUSTER_HEARTBEAT, SECOND);
	let_pass(w, 2 * MS);
	say_beat(puppet, node, 3, 1);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 1);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_HEARTBEAT, SECOND), 3 * MS);
	CU_ASSERT_EQUAL(time_to_send(node, CLUSTER_TAKEOVER, SECOND), 47 * MS);
	end_world(w);
}

/* Node 2 is a member when its threshold is raised. Long after that it takes over a ring that is all free. */
static void a_member_makes_its_ring_larger_when_it_is_told(void)
{
	struct world *w = make_pair(2, 1, 5);
	struct peer *node = &w->nodes[0], *master = &w->nodes[1], *other = add_puppet(w, 3);
	run_for(w, 10 * MS);
	run_with_puppet(master, node, 1, 5, SECOND);
	struct cluster_options options = options_of(2, 10);
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	run_with_puppet(master, node, 1, 5, 2 * SECOND);
	struct cluster_message leave = { .kind = CLUSTER_LEAVE, .epoch = 5 };
	say_beat(other, node, 0, 5);
	struct cluster_message claim = beat_of(other, node, 3, 5), ring = { .kind = CLUSTER_HANDOVER, .epoch = 5 };
	struct cluster_place place = { .bytes = { 1 } };
	leave.id = 1;
	leave.incarnation = master->incarnation;
	cluster_receive(node->cluster, &leave, &place, clock_of(node));
	say(other, node, &claim);
	CU_ASSERT_EQUAL_FATAL(node->sent[CLUSTER_TAKEOVER], 1);
	ring.is.handover = (struct cluster_handover){ .bucket_us = CLUSTER_BUCKET_US, .bucket_count = 1, .buckets = { 10 } };
	ring.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	say(other, node, &ring);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	let_wait(node, 10, false);
	run_for(w, 20 * MS);
	CU_ASSERT_EQUAL(w->start_count, 10);
	end_world(w);
}

/* ---- the report -------------------------------------------------------------------------------------------------------- */

static void the_report_is_by_id_and_a_member_tells_of_no_grants(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0];
	static const unsigned ids[] = { 9, 4, 7, 12, 5 }, sorted[] = { 2, 1, 4, 5, 7, 9, 12 };
	for (unsigned i = 0; i < LENGTH(ids); i++)
		say_beat(add_puppet(w, ids[i]), node, 1, 5);
	struct cluster_report report = report_of(node);
	CU_ASSERT_EQUAL_FATAL(report.node_count, LENGTH(sorted));
	for (unsigned i = 0; i < LENGTH(sorted); i++) {
		CU_ASSERT_EQUAL(report.nodes[i].id, sorted[i]);
		CU_ASSERT_EQUAL(report.nodes[i].granted, 0);
	}
	end_world(w);
}

static void of_two_lives_that_are_over_the_one_is_told_that_was_heard_last(void)
{
	struct world *w = make_lone(options_of(1, 5), 7 * SECOND);
	struct peer *node = &w->nodes[0], *lives[2] = { add_puppet(w, 2), add_puppet(w, 2) };
	say_beat(lives[0], node, 1, 1);
	say_beat(lives[1], node, 1, 1);
	run_for(w, 100 * MS);
	say_beat(lives[0], node, 1, 1);
	run_for(w, 2 * SECOND);
	struct cluster_report report = report_of(node);
	CU_ASSERT_EQUAL_FATAL(report.node_count, 2);
	CU_ASSERT_EQUAL(report.nodes[1].state, CLUSTER_DEAD);
	CU_ASSERT_EQUAL(report.nodes[1].age_us, 2 * SECOND);
	end_world(w);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_heartbeat_comes_every_50_milliseconds_until_all_is_settled_and_then_every_200),
		TEST(a_new_role_is_told_5_milliseconds_after_the_last_heartbeat),
		TEST(a_newcomer_stands_for_master_after_700_milliseconds_and_not_before),
		TEST(an_echo_is_good_for_700_milliseconds_after_its_challenge),
		TEST(in_the_first_moments_of_a_clock_nobody_is_alive_without_an_echo),
		TEST(an_echo_that_comes_too_late_wakes_nobody),
		TEST(who_is_suspected_is_asked_alone_from_450_milliseconds_on_40_times_a_second_up_to_2_6_seconds),
		TEST(who_wants_an_answer_gets_one_at_most_every_12_and_a_half_milliseconds),
		TEST(a_challenge_is_good_for_all_heartbeats_of_50_milliseconds),
		TEST(an_echo_is_known_however_many_challenges_there_were_since),
		TEST(each_challenge_of_a_long_row_is_known),
		TEST(who_was_heard_in_the_last_700_milliseconds_is_echoed),
		TEST(a_heartbeat_wants_answers_while_its_sender_is_alone),
		TEST(each_suspect_is_asked_and_at_450_milliseconds_nobody_is_one_yet),
		TEST(who_said_goodbye_is_not_asked),
		TEST(who_has_no_good_echo_is_answered_and_asked_back),
		TEST(who_did_not_run_for_more_than_500_milliseconds_begins_anew),
		TEST(a_slot_is_given_50_milliseconds_ahead_and_again_after_the_window_and_l),
		TEST(a_strict_master_is_quiet_for_700_milliseconds_more),
		TEST(a_slot_comes_due_on_the_next_whole_millisecond),
		TEST(what_is_given_is_told_until_it_comes_due_again),
		TEST(a_burst_goes_at_once_and_the_rest_at_the_even_flows_distance),
		TEST(the_largest_threshold_has_an_even_flow_too),
		TEST(without_a_burst_the_even_flow_that_was_holds_nobody_up),
		TEST(a_shorter_window_holds_the_even_flow_up_for_one_round_of_its_own_and_h),
		TEST(the_same_settings_once_more_take_nothing_away),
		TEST(a_late_start_pushes_the_slots_back_by_as_much_once),
		TEST(of_a_first_demand_only_what_no_master_has_seen_pushes_the_slots_back),
		TEST(a_strict_master_that_begins_again_owns_nothing),
		TEST(a_lower_threshold_takes_the_slots_that_are_due_first_from_their_owner),
		TEST(of_a_lower_threshold_all_may_start_that_were_free),
		TEST(quiet_time_is_as_long_as_ever_after_a_late_start),
		TEST(the_only_slot_is_nobodys_when_it_is_due),
		TEST(l_widens_four_times_a_second_at_most_and_narrows_once),
		TEST(l_grows_by_half_when_more_than_one_of_200_dies_and_doubles_when_most_do),
		TEST(l_shrinks_when_at_most_one_of_a_thousand_died_and_there_were_sixteen),
		TEST(l_is_100_milliseconds_at_most),
		TEST(l_is_not_below_the_longest_round_trip_and_6_milliseconds),
		TEST(a_round_trip_counts_for_250_milliseconds),
		TEST(a_standing_line_asks_every_20_milliseconds_and_one_that_changes_after_one),
		TEST(who_asked_45_milliseconds_ago_has_a_share_and_nobody_later),
		TEST(a_ring_is_asked_for_every_50_milliseconds_with_one_nonce),
		TEST(one_that_has_yielded_is_waited_for_for_300_milliseconds),
		TEST(a_ring_that_was_handed_over_is_told_again_for_two_seconds),
		TEST(of_two_rings_the_latest_slots_stay),
		TEST(slots_that_one_is_not_told_of_count_as_given_just_now),
		TEST(a_ring_that_goes_on_keeps_its_longest_slot),
		TEST(a_ring_does_not_tell_of_a_master_that_went_after_its_own_became_one),
		TEST(one_that_yielded_and_is_master_again_is_asked_on),
		TEST(who_takes_somebody_for_master_that_we_do_not_hear_may_have_its_grants_still),
		TEST(who_takes_somebody_for_master_that_we_hear_tells_nothing_new),
		TEST(a_lower_id_that_dies_may_have_been_master),
		TEST(of_two_masters_the_lower_is_believed_whoever_is_heard_first),
		TEST(each_time_it_asks_for_a_ring_with_another_nonce),
		TEST(a_new_master_has_been_asked_by_nobody),
		TEST(what_an_earlier_master_gave_is_not_on_its_way_any_more),
		TEST(l_begins_anew_with_each_master),
		TEST(a_late_start_that_another_master_has_seen_does_not_count_again),
		TEST(an_earlier_life_of_its_own_makes_no_group_larger),
		TEST(each_id_counts_once_however_often_it_restarts),
		TEST(who_died_and_came_back_counts_beside_one_who_comes_later),
		TEST(who_has_gone_keeps_its_place_for_700_milliseconds),
		TEST(those_go_first_that_never_proved_to_be_there_and_of_those_the_longest_silent),
		TEST(of_those_that_never_proved_it_the_longest_silent_goes_wherever_it_stands),
		TEST(who_has_the_place_of_one_who_died_owns_not_even_the_first_slot),
		TEST(who_has_anothers_place_has_nothing_of_it),
		TEST(of_more_than_a_group_the_64_lowest_are_echoed),
		TEST(many_lives_of_one_id_get_no_more_echoes_than_there_is_room_for),
		TEST(a_new_master_begins_without_a_burst),
		TEST(who_was_paused_tells_nobody_of_its_ring),
		TEST(after_the_handover_not_one_demand_is_answered),
		TEST(a_master_takes_no_grants),
		TEST(each_change_of_the_master_or_its_epoch_is_told_and_asked_anew),
		TEST(a_member_says_at_once_that_it_follows_another),
		TEST(a_ring_is_told_in_steps_of_10_milliseconds),
		TEST(a_long_windows_ring_is_told_in_160_steps_at_most),
		TEST(a_ring_that_tells_all_ends_the_quiet_and_with_strict_begins_it),
		TEST(a_second_of_age_decides_between_twins_and_less_is_too_close_to_say),
		TEST(twins_that_both_stay_for_more_than_a_second_are_told_apart_by_their_incarnation),
		TEST(a_twin_that_asks_for_the_ring_is_not_given_it),
		TEST(what_is_on_its_way_is_taken_off_for_350_milliseconds),
		TEST(of_a_long_row_of_grants_each_is_on_its_way_until_it_was_seen),
		TEST(who_wants_one_counts_beside_who_wants_all),
		TEST(what_is_left_over_is_not_kept_for_who_wants_no_more),
		TEST(of_two_that_are_left_over_the_second_gets_one),
		TEST(slots_that_come_due_at_once_are_one_run),
		TEST(what_is_left_over_goes_round_and_who_comes_new_is_soon_level),
		TEST(a_round_trip_is_smoothed_and_told_with_twice_its_variation),
		TEST(a_master_that_was_a_member_waits_for_nobodys_round_trip),
		TEST(each_members_round_trip_counts),
		TEST(one_of_200_that_died_is_forgotten_after_a_second_and_one_of_199_is_not),
		TEST(l_narrows_once_a_second),
		TEST(a_strict_group_of_one_is_whole_whoever_was_there),
		TEST(of_a_smaller_part_all_may_start_that_were_free),
		TEST(starts_in_hand_are_not_asked_for),
		TEST(a_line_that_was_empty_is_a_change),
		TEST(a_master_asks_itself_as_often_as_it_likes),
		TEST(a_late_start_is_no_news_when_the_master_has_heard_of_it),
		TEST(an_answer_in_no_time_is_an_answer),
		TEST(after_a_pause_no_grant_is_taken_before_the_first_look),
		TEST(a_goodbye_deposes_nobody),
		TEST(who_has_just_died_gets_nothing),
		TEST(a_master_that_a_newcomer_heard_and_never_met_may_have_given_until_then),
		TEST(a_candidate_asks_50_milliseconds_after_it_asked_last_whenever_heartbeats_are_due),
		TEST(a_member_makes_its_ring_larger_when_it_is_told),
		TEST(the_report_is_by_id_and_a_member_tells_of_no_grants),
		TEST(of_two_lives_that_are_over_the_one_is_told_that_was_heard_last),
	};

	return unit_main("cluster_edges", tests, LENGTH(tests));
}
