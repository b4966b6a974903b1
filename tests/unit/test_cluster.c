/* test_cluster.c: one threshold for many nodes, as a specification: each rule of the protocol has a test that is red without it.
 *
 * The tests drive cluster.c from outside: nodes in a network in memory (cluster_world.h), or one node and puppets, in whose place
 * the test speaks. Starts are counted by the world's clock, which no node knows. Long random histories are the simulation's
 * affair (tests/sim); here each test is one story that a reader can follow.
 */
#include "cluster_world.h"
#include "unit.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define HORIZON (50 * MS)
#define LATE_MAX (100 * MS)
#define QUIET (SECOND + HORIZON + LATE_MAX)

/* Nodes 1 to count, in a group that has found itself and gives. */
static struct world *make_group(unsigned count, unsigned threshold)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= count; id++)
		add_node(w, id, threshold);
	run_for(w, 3 * SECOND);
	return w;
}

static struct world *make_strict_group(unsigned count, unsigned threshold, unsigned group_size)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= count; id++) {
		struct cluster_options options = options_of(id, threshold);
		options.group_size = group_size;
		options.is_strict = true;
		add_node_with(w, options);
	}
	run_for(w, 6 * SECOND);
	return w;
}

static void saturate(struct world *w)
{
	for (unsigned i = 0; i < w->node_count; i++)
		let_wait(&w->nodes[i], 1000000, true);
}

/* One real node and one puppet that it takes for alive. */
static struct world *make_pair(unsigned id, unsigned puppet_id, unsigned threshold)
{
	struct world *w = make_world();
	add_node(w, id, threshold);
	add_puppet(w, puppet_id);
	run_for(w, 10 * MS);
	return w;
}

/* Several datagrams may lie there at once: this is one of them, and the tick comes after the last. */
static void hear(struct peer *node, struct peer *from, struct cluster_message message)
{
	struct cluster_place place = { .bytes = { (unsigned char)(from - from->world->nodes) } };
	message.id = from->id;
	message.incarnation = from->incarnation;
	cluster_receive(node->cluster, &message, &place, clock_of(node));
}

/* The puppet is somebody else from here on, and proves that it is there. */
static void say_beat_as(struct peer *puppet, struct peer *to, unsigned id, unsigned master, uint64_t epoch)
{
	puppet->id = id;
	puppet->incarnation = 1000 + id;
	say_beat(puppet, to, master, epoch);
}

/* The group is cut in two: those up to cut_a, and those above. */
static bool passes_no_cut(const struct world *w, unsigned from, unsigned to, const struct cluster_message *message)
{
	(void)message;
	return (from <= w->cut_a) == (to <= w->cut_a);
}

static void cut_after(struct world *w, unsigned id)
{
	w->cut_a = id;
	w->passes = passes_no_cut;
}

/* ---- who is there --------------------------------------------------------------------------------------------------- */

static void nodes_find_each_other_within_two_seconds_and_the_lowest_id_is_master(void)
{
	struct world *w = make_world();
	for (unsigned id = 5; id >= 1; id--)
		add_node(w, id, 50);
	run_for(w, 2 * SECOND);
	for (unsigned i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL(report_of(&w->nodes[i]).node_count, 5);
		CU_ASSERT_EQUAL(master_of(&w->nodes[i]), 1);
		CU_ASSERT_EQUAL(w->nodes[i].events[CLUSTER_NODE_CAME], 4);
	}
	CU_ASSERT_TRUE(report_of(&w->nodes[4]).is_giving);
	end_world(w);
}

static bool passes_not_from_a_to_b(const struct world *w, unsigned from, unsigned to, const struct cluster_message *message)
{
	(void)message;
	return from != w->cut_a || to != w->cut_b;
}

static void who_hears_us_but_is_not_heard_and_who_is_heard_but_hears_us_not_are_not_alive(void)
{
	struct world *w = make_world();
	struct peer *a = add_node(w, 1, 50), *b = add_node(w, 2, 50);
	w->cut_a = 1;
	w->cut_b = 2;
	w->passes = passes_not_from_a_to_b;
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(a->heard[CLUSTER_HEARTBEAT] > 0);
	CU_ASSERT_FALSE(is_alive_for(a, 2));
	CU_ASSERT_FALSE(is_alive_for(b, 1));
	w->passes = NULL;
	run_for(w, SECOND);
	CU_ASSERT_TRUE(is_alive_for(a, 2));
	CU_ASSERT_TRUE(is_alive_for(b, 1));
	end_world(w);
}

static void a_replayed_heartbeat_keeps_nobody_alive(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *dead = &w->nodes[1];
	say_beat(dead, node, 1, 5);
	CU_ASSERT_TRUE(is_alive_for(node, 1));
	CU_ASSERT_EQUAL(master_of(node), 1);
	struct cluster_message recorded = beat_of(dead, node, 1, 5);
	for (unsigned i = 0; i < 15; i++) {
		say(dead, node, &recorded);
		run_for(w, 50 * MS);
	}
	CU_ASSERT_FALSE(is_alive_for(node, 1));
	CU_ASSERT_EQUAL(master_of(node), 2);
	end_world(w);
}

static void what_a_node_says_that_never_proved_to_be_there_is_not_believed(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *forger = &w->nodes[1];
	run_for(w, 3 * SECOND);
	struct cluster_message message = beat_of(forger, node, 1, 99);
	message.is.heartbeat.echoes[0].challenge ^= 1;
	say(forger, node, &message);
	CU_ASSERT_EQUAL(report_of(node).epoch, 1);
	CU_ASSERT_EQUAL(master_of(node), 2);
	CU_ASSERT_EQUAL(report_of(node).node_count, 1);
	message = (struct cluster_message){ .kind = CLUSTER_TAKEOVER, .is.takeover.nonce = 1 };
	say(forger, node, &message);
	message = (struct cluster_message){ .kind = CLUSTER_DEMAND, .is.demand = { .asked_us = 1, .waiting = 5 } };
	say(forger, node, &message);
	CU_ASSERT_EQUAL(master_of(node), 2);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_HANDOVER], 0);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_GRANT], 0);
	end_world(w);
}

static void who_says_goodbye_is_gone_at_once(void)
{
	struct world *w = make_group(3, 50);
	cluster_leave(w->nodes[2].cluster, clock_of(&w->nodes[2]));
	run_for(w, MS);
	CU_ASSERT_FALSE(is_alive_for(&w->nodes[0], 3));
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_NODE_WENT], 1);
	/* And it says and does nothing more. */
	size_t sent = w->nodes[2].sent[CLUSTER_HEARTBEAT];
	let_wait(&w->nodes[2], 10, false);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[2].sent[CLUSTER_HEARTBEAT], sent);
	CU_ASSERT_EQUAL(w->nodes[2].given, 0);
	CU_ASSERT_FALSE(is_alive_for(&w->nodes[0], 3));
	end_world(w);
}

static void a_dead_node_is_noticed_within_a_second(void)
{
	struct world *w = make_group(3, 50);
	crash(&w->nodes[2]);
	run_for(w, SECOND);
	CU_ASSERT_FALSE(is_alive_for(&w->nodes[0], 3));
	CU_ASSERT_FALSE(is_alive_for(&w->nodes[1], 3));
	end_world(w);
}

static void a_restarted_node_is_a_new_one_and_the_page_shows_its_id_once(void)
{
	struct world *w = make_group(3, 50);
	crash(&w->nodes[2]);
	run_for(w, 100 * MS);
	start_node(&w->nodes[2]);
	run_for(w, 2 * SECOND);
	struct cluster_report report = report_of(&w->nodes[0]);
	CU_ASSERT_EQUAL(report.node_count, 3);
	CU_ASSERT_TRUE(is_alive_for(&w->nodes[0], 3));
	CU_ASSERT_TRUE(find_report(&report, 3)->uptime_us < 3 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_TWIN_MET] + w->nodes[2].events[CLUSTER_TWIN_MET], 0);
	end_world(w);
}

static void of_two_lives_with_one_id_that_are_over_the_page_shows_the_later(void)
{
	struct world *w = make_group(3, 50);
	crash(&w->nodes[2]);
	run_for(w, 100 * MS);
	start_node(&w->nodes[2]);
	run_for(w, 2 * SECOND);
	crash(&w->nodes[2]);
	run_for(w, 2 * SECOND);
	struct cluster_report report = report_of(&w->nodes[0]);
	CU_ASSERT_EQUAL(report.node_count, 3);
	CU_ASSERT_EQUAL(find_report(&report, 3)->state, CLUSTER_DEAD);
	CU_ASSERT_TRUE(find_report(&report, 3)->age_us >= 2 * SECOND && find_report(&report, 3)->age_us <= 2300 * MS);
	end_world(w);
}

static void an_old_heartbeat_that_comes_late_changes_nothing_that_a_newer_one_said(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	run_with_puppet(other, node, 0, 0, 100 * MS);
	struct cluster_message old = beat_of(other, node, 2, 0);
	run_with_puppet(other, node, 1, 0, 3 * SECOND);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	unsigned elections = node->events[CLUSTER_MASTER_CHANGED];
	say(other, node, &old);
	run_with_puppet(other, node, 1, 0, 100 * MS);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], elections);
	end_world(w);
}

/* ---- when a master may give ----------------------------------------------------------------------------------------- */

static void a_lone_node_gives_nothing_before_quiet_time_is_over(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50);
	let_wait(node, 1000, true);
	run_for(w, QUIET - HORIZON - 1);
	CU_ASSERT_EQUAL(node->given, 0);
	run_for(w, HORIZON + 25 * MS);
	CU_ASSERT_EQUAL(node->given, 50);
	CU_ASSERT_TRUE(w->starts[0].at_us >= BEGIN_US + QUIET);
	end_world(w);
}

static void a_dead_master_is_replaced_and_the_new_one_is_quiet_for_long_enough(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	run_for(w, 5 * SECOND);
	uint64_t died_us = w->now_us;
	crash(&w->nodes[0]);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[1]), 2);
	CU_ASSERT_EQUAL(master_of(&w->nodes[2]), 2);
	uint64_t silence_us = gap_after(w, died_us + HORIZON + LATE_MAX);
	CU_ASSERT_TRUE(silence_us < 2 * SECOND);
	CU_ASSERT_TRUE(count_starts_since(w, 0, died_us + 2 * SECOND) > 0);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

static void a_master_that_restarts_with_an_empty_memory_does_not_give_twice(void)
{
	for (unsigned count = 1; count <= 3; count += 2) {
		struct world *w = make_group(count, 50);
		saturate(w);
		run_for(w, 5 * SECOND);
		crash(&w->nodes[0]);
		run_for(w, 10 * MS);
		start_node(&w->nodes[0]);
		uint64_t back_us = w->now_us;
		run_for(w, 5 * SECOND);
		CU_ASSERT_TRUE(fullest_window(w) <= 50);
		CU_ASSERT_TRUE(count_starts_since(w, 0, back_us + 2 * SECOND) >= 2 * 50);
		end_world(w);
	}
}

static void hand_over_at(uint64_t phase_us)
{
	struct world *w = make_world();
	struct peer *newcomer = add_node(w, 1, 50);
	crash(newcomer);
	for (unsigned id = 2; id <= 4; id++)
		add_node(w, id, 50);
	saturate(w);
	run_for(w, 5 * SECOND + phase_us);
	CU_ASSERT_EQUAL(master_of(&w->nodes[3]), 2);
	start_node(newcomer);
	uint64_t came_us = w->now_us;
	run_for(w, 4 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[3]), 1);
	CU_ASSERT_EQUAL(report_of(newcomer).takeovers_total, 1);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	/* No second without its 50, but for the width of a bucket and a round trip. */
	for (unsigned i = 0; i < 25; i++)
		CU_ASSERT_TRUE(count_starts(w, 0, came_us + i * 100 * MS, came_us + i * 100 * MS + 1100 * MS) >= 50);
	end_world(w);
}

static void a_lower_id_takes_the_ring_over_and_goes_on_at_once(void)
{
	for (uint64_t phase_us = 0; phase_us < SECOND; phase_us += 200 * MS)
		hand_over_at(phase_us);
}

static void a_master_that_has_handed_over_gives_nothing_more(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *lower = &w->nodes[1];
	run_for(w, 3 * SECOND);
	say_beat(lower, node, 0, 1);
	let_wait(node, 10, true);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover.nonce = 77 };
	say(lower, node, &message);
	run_with_puppet(lower, node, 0, 1, 500 * MS);
	CU_ASSERT_EQUAL(lower->heard[CLUSTER_HANDOVER], 1);
	CU_ASSERT_EQUAL(node->given, 0);
	end_world(w);
}

/* Node 1 meets a master with a higher id, and is handed a ring of so many free slots. Returns when it gave first after that. */
static uint64_t gap_after_handover(unsigned slots, uint64_t nonce_change)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50), *master = add_puppet(w, 2);
	run_for(w, 10 * MS);
	run_with_puppet(master, node, 2, 1, 3 * SECOND);
	CU_ASSERT_TRUE(master->heard[CLUSTER_TAKEOVER] > 0);
	let_wait(node, 1000, true);
	struct cluster_message message = { .kind = CLUSTER_HANDOVER, .epoch = 1, .is.handover.bucket_us = CLUSTER_BUCKET_US };
	message.is.handover.nonce = master->last_heard[CLUSTER_TAKEOVER].is.takeover.nonce ^ nonce_change;
	message.is.handover.bucket_count = 1;
	message.is.handover.buckets[0] = slots;
	uint64_t handed_us = w->now_us;
	say(master, node, &message);
	run_with_puppet(master, node, nonce_change != 0 ? 2 : 1, 1, 4 * SECOND);
	uint64_t gap_us = gap_after(w, handed_us - 1);
	end_world(w);
	return gap_us;
}

static void a_handover_ends_the_quiet_for_the_slots_that_it_tells_of_and_with_another_nonce_for_none(void)
{
	CU_ASSERT_TRUE(gap_after_handover(50, 0) < 15 * MS);
	CU_ASSERT_TRUE(gap_after_handover(1, 0) < 15 * MS);
	CU_ASSERT_TRUE(gap_after_handover(0, 0) >= QUIET);
	CU_ASSERT_EQUAL(gap_after_handover(50, 1), UINT64_MAX);
}

static bool passes_no_first_handover(const struct world *w, unsigned from, unsigned to, const struct cluster_message *message)
{
	(void)to;
	return message->kind != CLUSTER_HANDOVER || w->nodes[from - 1].sent[CLUSTER_HANDOVER] > 2;
}

static void a_lost_handover_is_asked_for_again(void)
{
	struct world *w = make_group(2, 50);
	crash(&w->nodes[0]);
	saturate(w);
	run_for(w, 5 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[1]), 2);
	w->passes = passes_no_first_handover;
	start_node(&w->nodes[0]);
	run_for(w, 2 * SECOND);
	CU_ASSERT_TRUE(w->nodes[1].sent[CLUSTER_HANDOVER] == 3);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).takeovers_total, 1);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).quiet_until_us, 0);
	run_for(w, 2 * SECOND);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

static void what_was_handed_over_may_be_asked_for_again_for_two_seconds(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *lower = &w->nodes[1];
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover.nonce = 77 };
	run_for(w, 3 * SECOND);
	say_beat(lower, node, 0, 1);
	say(lower, node, &message);
	run_with_puppet(lower, node, 1, 2, 1800 * MS);
	CU_ASSERT_EQUAL(lower->heard[CLUSTER_HANDOVER], 1);
	message.epoch = 2;
	message.is.takeover.nonce = 78;
	say(lower, node, &message);
	run_with_puppet(lower, node, 1, 2, 300 * MS);
	CU_ASSERT_EQUAL(lower->heard[CLUSTER_HANDOVER], 2);
	CU_ASSERT_EQUAL(lower->last_heard[CLUSTER_HANDOVER].is.handover.nonce, 78);
	message.is.takeover.nonce = 79; /* by now others have given for so long that ours is worth nothing */
	say(lower, node, &message);
	run_with_puppet(lower, node, 1, 2, 300 * MS);
	CU_ASSERT_EQUAL(lower->heard[CLUSTER_HANDOVER], 2);
	end_world(w);
}

static void a_ring_is_taken_from_nobody_but_the_master_that_was_asked(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *master = &w->nodes[1], *stranger = add_puppet(w, 3);
	say_beat(stranger, node, 2, 1);
	run_with_puppet(master, node, 2, 1, SECOND);
	say_beat(stranger, node, 2, 1);
	CU_ASSERT_TRUE(is_alive_for(node, 3));
	CU_ASSERT_TRUE(master->heard[CLUSTER_TAKEOVER] > 0);
	struct cluster_message message = { .kind = CLUSTER_HANDOVER, .epoch = 1, .is.handover.bucket_us = CLUSTER_BUCKET_US };
	message.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	message.is.handover.bucket_count = 1;
	message.is.handover.buckets[0] = 50;
	say(stranger, node, &message);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 0);
	CU_ASSERT_EQUAL(master_of(node), 0);
	say(master, node, &message);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 1);
	CU_ASSERT_EQUAL(master_of(node), 1);
	end_world(w);
}

static void a_ring_that_comes_before_it_was_asked_for_is_not_taken(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	struct cluster_message message = { .kind = CLUSTER_HANDOVER, .epoch = 8, .is.handover.bucket_us = CLUSTER_BUCKET_US };
	message.is.handover.bucket_count = 1;
	message.is.handover.buckets[0] = 50;
	hear(node, other, beat_of(other, node, 2, 8));
	hear(node, other, message); /* its nonce is nought, as ours is while we have asked nobody */
	tick(node);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 0);
	CU_ASSERT_EQUAL(master_of(node), 0);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 1);
	end_world(w);
}

static void a_master_that_came_and_went_between_two_looks_is_not_asked_for_its_ring_but_waited_out(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *first = &w->nodes[1], *second = add_puppet(w, 3);
	run_with_puppet(first, node, 2, 1, 750 * MS); /* it has asked a moment ago */
	struct cluster_message message = { .kind = CLUSTER_HANDOVER, .epoch = 1, .is.handover.bucket_us = CLUSTER_BUCKET_US };
	message.is.handover.nonce = node->last_sent[CLUSTER_TAKEOVER].is.takeover.nonce;
	say(first, node, &message);
	CU_ASSERT_EQUAL(master_of(node), 1);
	unsigned asked = node->sent[CLUSTER_TAKEOVER];
	hear(node, second, beat_of(second, node, 3, 20));
	hear(node, second, beat_of(second, node, 0, 20));
	let_wait(node, 1000, true);
	uint64_t gone_us = w->now_us;
	tick(node);
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], asked);
	CU_ASSERT_EQUAL(master_of(node), 1);
	run_for(w, 2 * SECOND);
	CU_ASSERT_TRUE(w->start_count > 0);
	CU_ASSERT_TRUE(gap_after(w, gone_us - 1) >= QUIET);
	end_world(w);
}

static bool passes_no_handover(const struct world *w, unsigned from, unsigned to, const struct cluster_message *message)
{
	(void)w, (void)from, (void)to;
	return message->kind != CLUSTER_HANDOVER;
}

static void without_an_answer_the_new_master_keeps_quiet_time(void)
{
	struct world *w = make_group(2, 50);
	crash(&w->nodes[0]);
	saturate(w);
	run_for(w, 5 * SECOND);
	w->passes = passes_no_handover;
	start_node(&w->nodes[0]);
	run_for(w, 4 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[1]), 1);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).takeovers_total, 0);
	CU_ASSERT_TRUE(report_of(&w->nodes[0]).is_giving);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	CU_ASSERT_TRUE(count_starts_since(w, 0, w->now_us - SECOND) >= 49);
	end_world(w);
}

static void two_masters_that_meet_obey_the_threshold_within_two_seconds(void)
{
	struct world *w = make_group(4, 60);
	cut_after(w, 2);
	saturate(w);
	run_for(w, 5 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[0]), 1);
	CU_ASSERT_EQUAL(master_of(&w->nodes[3]), 3);
	CU_ASSERT_EQUAL(fullest_window_between(w, SECOND, w->now_us - SECOND, w->now_us), 120);
	w->passes = NULL;
	uint64_t met_us = w->now_us;
	run_for(w, 5 * SECOND);
	for (unsigned i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(master_of(&w->nodes[i]), 1);
	CU_ASSERT_TRUE(report_of(&w->nodes[0]).epoch > 2);
	CU_ASSERT_TRUE(fullest_window_between(w, SECOND, met_us + SECOND, UINT64_MAX) <= 60);
	CU_ASSERT_TRUE(count_starts_since(w, 0, met_us + 2 * SECOND) >= 170);
	end_world(w);
}

static void a_master_that_meets_a_lower_one_hands_its_ring_over(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *lower = &w->nodes[1];
	run_for(w, 3 * SECOND);
	let_wait(node, 1000, true);
	run_for(w, SECOND);
	say_beat(lower, node, 1, 1);
	CU_ASSERT_EQUAL(master_of(node), 1);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover.nonce = 77 };
	say(lower, node, &message);
	run_for(w, MS);
	CU_ASSERT_EQUAL_FATAL(lower->heard[CLUSTER_HANDOVER], 1);
	const struct cluster_handover *handover = &lower->last_heard[CLUSTER_HANDOVER].is.handover;
	unsigned sum = 0;
	for (unsigned i = 0; i < handover->bucket_count; i++)
		sum += handover->buckets[i];
	CU_ASSERT_EQUAL(sum, 50);
	CU_ASSERT_EQUAL(handover->nonce, 77);
	end_world(w);
}

static void a_paused_master_gives_nothing_of_its_own_and_starts_again_as_a_newcomer(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	run_for(w, 5 * SECOND);
	uint64_t paused_us = w->now_us;
	pause_node(&w->nodes[0], 3 * SECOND);
	run_for(w, 6 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_WAS_PAUSED], 1);
	CU_ASSERT_TRUE(w->nodes[0].event_number[CLUSTER_WAS_PAUSED] >= 2900 * MS);
	CU_ASSERT_EQUAL(master_of(&w->nodes[2]), 1);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	CU_ASSERT_TRUE(count_starts_since(w, 0, paused_us + 2 * SECOND) >= 150);
	end_world(w);
}

static void a_paused_member_uses_nothing_old_and_starts_again_as_a_newcomer(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	run_for(w, 5 * SECOND);
	pause_node(&w->nodes[2], 3 * SECOND);
	run_for(w, 6 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[2].events[CLUSTER_WAS_PAUSED], 1);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	CU_ASSERT_TRUE(count_starts_since(w, 3, w->now_us - SECOND) >= 15);
	end_world(w);
}

static void of_twins_the_elder_stays_and_the_younger_steps_aside_until_it_is_gone(void)
{
	struct world *w = make_world();
	struct peer *elder = add_node(w, 1, 50), *other = add_node(w, 2, 50);
	run_for(w, 5 * SECOND);
	struct peer *younger = add_node(w, 1, 50);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL(elder->events[CLUSTER_TWIN_MET], 1);
	CU_ASSERT_EQUAL(younger->events[CLUSTER_TWIN_MET], 1);
	CU_ASSERT_EQUAL(elder->events[CLUSTER_STEPPED_ASIDE], 0);
	CU_ASSERT_EQUAL(younger->events[CLUSTER_STEPPED_ASIDE], 1);
	CU_ASSERT_EQUAL(report_of(younger).nodes[0].state, CLUSTER_ASIDE);
	saturate(w);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(younger->given, 0);
	CU_ASSERT_TRUE(elder->given > 0 && other->given > 0);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	crash(elder);
	run_for(w, 4 * SECOND);
	CU_ASSERT_EQUAL(younger->events[CLUSTER_CAME_BACK], 1);
	CU_ASSERT_EQUAL(master_of(other), 1);
	CU_ASSERT_TRUE(younger->given > 0);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

static void twins_of_one_age_are_told_apart_by_their_incarnation(void)
{
	struct world *w = make_world();
	struct peer *a = add_node(w, 1, 50), *b = add_node(w, 1, 50);
	run_for(w, 3 * SECOND);
	struct peer *stays = a->incarnation > b->incarnation ? a : b, *goes = stays == a ? b : a;
	CU_ASSERT_EQUAL(stays->events[CLUSTER_STEPPED_ASIDE], 0);
	CU_ASSERT_EQUAL(goes->events[CLUSTER_STEPPED_ASIDE], 1);
	CU_ASSERT_EQUAL(master_of(stays), 1);
	end_world(w);
}

static void of_three_with_one_id_one_stays(void)
{
	struct world *w = make_group(2, 50);
	struct peer *elder = &w->nodes[0], *second = add_node(w, 1, 50);
	run_for(w, 500 * MS);
	struct peer *third = add_node(w, 1, 50);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(second->events[CLUSTER_CAME_BACK], 0); /* that the third is aside, too, makes no room for it */
	CU_ASSERT_EQUAL(elder->events[CLUSTER_STEPPED_ASIDE], 0);
	CU_ASSERT_EQUAL(second->events[CLUSTER_STEPPED_ASIDE], 1);
	CU_ASSERT_EQUAL(third->events[CLUSTER_STEPPED_ASIDE], 1);
	saturate(w);
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(elder->given > 0 && w->nodes[1].given > 0);
	CU_ASSERT_EQUAL(second->given + third->given, 0);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

/* A twin that is younger by what it says, and stays all the same. */
static bool steps_aside_for_a_twin_that_stays(bool twin_is_greater)
{
	struct world *w = make_pair(1, 1, 50);
	struct peer *node = &w->nodes[0], *twin = &w->nodes[1];
	struct cluster_message message;
	twin->incarnation = twin_is_greater ? node->incarnation + 1 : node->incarnation - 1;
	run_for(w, 3 * SECOND);
	for (unsigned i = 0; i < 40; i++) {
		message = beat_of(twin, node, 0, 1);
		message.is.heartbeat.uptime_us = i * 50 * MS;
		say(twin, node, &message);
		run_for(w, 50 * MS);
		if (i < 19)
			CU_ASSERT_EQUAL(node->events[CLUSTER_STEPPED_ASIDE], 0);
	}
	unsigned stepped_aside = node->events[CLUSTER_STEPPED_ASIDE];
	end_world(w);
	return stepped_aside == 1;
}

static void twins_that_both_stay_for_a_second_are_told_apart_by_their_incarnation(void)
{
	CU_ASSERT_TRUE(steps_aside_for_a_twin_that_stays(true));
	CU_ASSERT_FALSE(steps_aside_for_a_twin_that_stays(false));
}

static void a_younger_twin_that_knows_a_higher_epoch_does_not_stop_the_elder(void)
{
	struct world *w = make_pair(1, 1, 50);
	struct peer *node = &w->nodes[0], *twin = &w->nodes[1];
	run_for(w, 3 * SECOND);
	let_wait(node, 1000, true);
	struct cluster_message message = beat_of(twin, node, 0, 50);
	message.is.heartbeat.uptime_us = 0;
	uint64_t met_us = w->now_us;
	say(twin, node, &message);
	run_for(w, 1500 * MS);
	CU_ASSERT_EQUAL(node->events[CLUSTER_TWIN_MET], 1);
	CU_ASSERT_EQUAL(report_of(node).epoch, 50);
	CU_ASSERT_EQUAL(report_of(node).elections_total, 1);
	CU_ASSERT_EQUAL(count_starts(w, 1, met_us, met_us + SECOND), 50);
	end_world(w);
}

/* said_master: whom it says then that it takes for master; who is aside is none, whatever it says. */
static void meet_twin_that_steps_aside(unsigned said_master)
{
	struct world *w = make_pair(1, 1, 50);
	struct peer *node = &w->nodes[0], *twin = &w->nodes[1];
	run_for(w, 3 * SECOND);
	struct cluster_message message = beat_of(twin, node, 1, 1);
	message.is.heartbeat.uptime_us = 0;
	say(twin, node, &message);
	/* Two masters have met: it asks the twin for its ring. */
	CU_ASSERT_EQUAL(node->sent[CLUSTER_TAKEOVER], 1);
	let_wait(node, 1000, true);
	uint64_t aside_us = w->now_us;
	message.is.heartbeat.is_aside = true;
	message.is.heartbeat.master = said_master;
	say(twin, node, &message);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_TRUE(w->start_count > 0);
	CU_ASSERT_TRUE(gap_after(w, aside_us - 1) >= QUIET);
	end_world(w);
}

static void when_a_twin_that_was_master_steps_aside_the_elder_keeps_quiet_time(void)
{
	meet_twin_that_steps_aside(0);
	meet_twin_that_steps_aside(1);
}

/* ---- strict and available -------------------------------------------------------------------------------------------- */

static void strict_parts_of_a_split_group_use_their_shares_and_never_more_together(void)
{
	struct world *w = make_strict_group(5, 50, 5);
	saturate(w);
	run_for(w, 3 * SECOND);
	cut_after(w, 2);
	run_for(w, 8 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, 20);
	CU_ASSERT_EQUAL(report_of(&w->nodes[2]).slots, 30);
	CU_ASSERT_TRUE(count_starts_since(w, 0, w->now_us - SECOND) >= 49);
	w->passes = NULL;
	run_for(w, 8 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, 50);
	CU_ASSERT_TRUE(count_starts_since(w, 0, w->now_us - SECOND) >= 49);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

static void strict_without_a_group_size_counts_the_nodes_that_were_ever_there_at_once(void)
{
	struct world *w = make_strict_group(4, 40, 0);
	cut_after(w, 3);
	run_for(w, 4 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, 30);
	CU_ASSERT_EQUAL(report_of(&w->nodes[3]).slots, 10);
	end_world(w);
}

static void a_restart_does_not_make_a_strict_group_believe_that_it_was_larger(void)
{
	struct world *w = make_strict_group(3, 30, 0);
	crash(&w->nodes[2]);
	start_node(&w->nodes[2]);
	run_for(w, 5 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, 30);
	end_world(w);
}

static void slots_that_a_strict_master_regains_are_usable_after_quiet_time(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	struct cluster_options options = options_of(1, 50);
	options.is_strict = true;
	options.group_size = 2;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	run_for(w, 4 * SECOND);
	let_wait(node, 1000, true);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 25);
	uint64_t joined_us = w->now_us;
	run_with_puppet(other, node, 1, 1, 4 * SECOND);
	CU_ASSERT_EQUAL(report_of(node).slots, 50);
	CU_ASSERT_TRUE(fullest_window_between(w, SECOND, joined_us, joined_us + QUIET + 700 * MS) <= 25);
	CU_ASSERT_EQUAL(fullest_window(w), 50);
	end_world(w);
}

static void a_node_that_is_alive_but_follows_another_master_adds_no_share(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	struct cluster_options options = options_of(1, 50);
	options.is_strict = true;
	options.group_size = 2;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	run_with_puppet(other, node, 9, 0, 3 * SECOND);
	CU_ASSERT_TRUE(is_alive_for(node, 2));
	CU_ASSERT_EQUAL(report_of(node).slots, 25);
	end_world(w);
}

static void available_parts_use_the_whole_threshold(void)
{
	struct world *w = make_group(3, 50);
	cut_after(w, 2);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, 50);
	CU_ASSERT_EQUAL(report_of(&w->nodes[2]).slots, 50);
	end_world(w);
}

/* ---- asking and giving ----------------------------------------------------------------------------------------------- */

/* A member, and a puppet that it takes for its master at epoch 5. */
static struct world *make_member(void)
{
	struct world *w = make_pair(2, 1, 50);
	say_beat(&w->nodes[1], &w->nodes[0], 1, 5);
	let_wait(&w->nodes[0], 1000, true);
	run_for(w, 2 * MS);
	CU_ASSERT_TRUE(w->nodes[1].heard[CLUSTER_DEMAND] > 0);
	return w;
}

static void say_grant(struct peer *master, struct peer *to, uint64_t epoch, uint64_t asked_us, uint32_t in_us, uint32_t count)
{
	struct cluster_message message = { .kind = CLUSTER_GRANT, .epoch = epoch };
	message.is.grant = (struct cluster_grant){ .asked_us = asked_us, .number = 1, .late_us = 6000, .run_count = 1 };
	message.is.grant.runs[0] = (struct cluster_run){ in_us, count };
	say(master, to, &message);
}

static void a_start_is_not_before_its_time_by_the_members_clock_and_not_after_the_question_and_its_time_and_l(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	uint64_t asked_us = master->last_heard[CLUSTER_DEMAND].is.demand.asked_us;
	run_for(w, 2 * MS);
	say_grant(master, node, 5, asked_us, 30000, 3);
	CU_ASSERT_EQUAL(node->given, 3);
	CU_ASSERT_EQUAL(node->first_from_us, clock_of(node) + 30000);
	CU_ASSERT_EQUAL(node->last_until_us, asked_us + 30000 + 6000);
	CU_ASSERT_EQUAL(node->answered_asked_us, asked_us);
	end_world(w);
}

static void a_grant_that_came_too_late_is_dead(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	uint64_t asked_us = master->last_heard[CLUSTER_DEMAND].is.demand.asked_us;
	run_for(w, 100 * MS);
	say_grant(master, node, 5, asked_us, 10000, 3);
	CU_ASSERT_EQUAL(node->died, 3);
	CU_ASSERT_EQUAL(node->used, 0);
	end_world(w);
}

static void grants_of_another_epoch_or_of_who_is_not_master_or_to_a_question_never_asked_are_refused(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1], *stranger = add_puppet(w, 3);
	uint64_t asked_us = master->last_heard[CLUSTER_DEMAND].is.demand.asked_us;
	say_beat(stranger, node, 1, 5);
	CU_ASSERT_TRUE(is_alive_for(node, 3));
	say_grant(master, node, 4, asked_us, 0, 1);
	CU_ASSERT_EQUAL(node->given, 0);
	say_grant(stranger, node, 5, asked_us, 0, 1);
	CU_ASSERT_EQUAL(node->given, 0);
	say_grant(master, node, 5, clock_of(node) + 1, 0, 1);
	CU_ASSERT_EQUAL(node->given, 0);
	say_grant(master, node, 5, asked_us, 0, 1);
	CU_ASSERT_EQUAL(node->given, 1);
	end_world(w);
}

static void a_master_that_meets_a_higher_epoch_stops_and_keeps_quiet_time(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	run_for(w, 3 * SECOND);
	let_wait(node, 1000, true);
	run_for(w, SECOND);
	uint64_t met_us = w->now_us;
	say_beat(other, node, 1, 8);
	CU_ASSERT_EQUAL(report_of(node).epoch, 9);
	CU_ASSERT_FALSE(report_of(node).is_giving);
	run_with_puppet(other, node, 1, 8, 3 * SECOND);
	CU_ASSERT_TRUE(gap_after(w, met_us + HORIZON + LATE_MAX) >= QUIET - HORIZON - LATE_MAX);
	CU_ASSERT_TRUE(count_starts_since(w, 0, met_us + 2 * SECOND) >= 49);
	end_world(w);
}

static void the_highest_epoch_there_is_does_not_end_the_group(void)
{
	struct world *w = make_group(2, 50);
	struct peer *forger = add_puppet(w, 9);
	say_beat(forger, &w->nodes[1], 1, UINT64_MAX);
	saturate(w);
	run_for(w, 5 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[1]), 1);
	CU_ASSERT_TRUE(count_starts_since(w, 2, w->now_us - SECOND) >= 20);
	end_world(w);
}

static void a_request_below_the_threshold_waits_for_one_round_trip(void)
{
	struct world *w = make_group(3, 50);
	uint64_t asked_us = w->now_us;
	let_wait(&w->nodes[2], 1, false);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 1);
	CU_ASSERT_EQUAL(w->starts[0].at_us - asked_us, 2 * w->delay_us);
	/* The master's own waits for nothing. */
	asked_us = w->now_us;
	let_wait(&w->nodes[0], 1, false);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL_FATAL(w->start_count, 2);
	CU_ASSERT_EQUAL(w->starts[1].at_us, asked_us);
	end_world(w);
}

static void a_saturated_group_uses_at_least_99_percent_and_never_more_than_the_threshold(void)
{
	static const unsigned thresholds[] = { 1, 5, 50, 1000 };
	for (unsigned i = 0; i < LENGTH(thresholds); i++) {
		struct world *w = make_group(3, thresholds[i]);
		saturate(w);
		run_for(w, 2 * SECOND);
		uint64_t from_us = w->now_us;
		run_for(w, 8 * SECOND);
		CU_ASSERT_EQUAL(fullest_window(w), thresholds[i]);
		CU_ASSERT_TRUE((double)count_starts_since(w, 0, from_us) >= 8 * 0.99 * thresholds[i] - 1);
		end_world(w);
	}
}

static void a_demand_with_nobody_in_line_is_not_sent_and_a_standing_one_is_repeated(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	unsigned heard = master->heard[CLUSTER_DEMAND];
	run_for(w, 200 * MS);
	CU_ASSERT_TRUE(master->heard[CLUSTER_DEMAND] - heard >= 9 && master->heard[CLUSTER_DEMAND] - heard <= 11);
	let_wait(node, 0, false);
	run_for(w, 2 * MS);
	heard = master->heard[CLUSTER_DEMAND];
	run_for(w, 200 * MS);
	CU_ASSERT_EQUAL(master->heard[CLUSTER_DEMAND], heard);
	end_world(w);
}

static void a_line_that_changes_all_the_time_asks_at_most_once_a_millisecond(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	unsigned heard = master->heard[CLUSTER_DEMAND];
	for (unsigned i = 0; i < 1000; i++) {
		let_wait(node, 10 + i, true);
		run_for(w, 100);
	}
	CU_ASSERT_TRUE(master->heard[CLUSTER_DEMAND] - heard >= 90 && master->heard[CLUSTER_DEMAND] - heard <= 101);
	end_world(w);
}

static void the_poorest_is_filled_first(void)
{
	/* Node 3 wants little and gets all of it; 1 and 2 share what is left. */
	struct world *w = make_group(3, 90);
	let_wait(&w->nodes[0], 1000, true);
	let_wait(&w->nodes[1], 1000, true);
	for (unsigned i = 0; i < 1200; i++) {
		let_wait(&w->nodes[2], w->nodes[2].waiting + (i % 10 == 0), false);
		run_for(w, 10 * MS);
	}
	uint64_t from_us = w->now_us - 10 * SECOND;
	CU_ASSERT_TRUE(count_starts_since(w, 3, from_us) >= 95);
	CU_ASSERT_TRUE(count_starts_since(w, 1, from_us) >= 360 && count_starts_since(w, 1, from_us) <= 440);
	CU_ASSERT_TRUE(count_starts_since(w, 2, from_us) >= 360 && count_starts_since(w, 2, from_us) <= 440);
	CU_ASSERT_TRUE(fullest_window(w) <= 90);
	end_world(w);
}

static void a_threshold_of_five_over_three_nodes_goes_round(void)
{
	struct world *w = make_group(3, 5);
	saturate(w);
	run_for(w, 20 * SECOND);
	for (unsigned id = 1; id <= 3; id++) {
		size_t count = count_starts_since(w, id, w->now_us - 15 * SECOND);
		CU_ASSERT_TRUE(count >= 24 && count <= 26);
	}
	end_world(w);
}

static void who_has_not_asked_for_45_milliseconds_has_no_share(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	run_with_puppet(other, node, 1, 1, 3 * SECOND);
	/* It asks for all, once, when all is free; and the answer is lost. */
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1, .is.demand = { .asked_us = 1, .waiting = 50 } };
	let_wait(node, 1000, true);
	say(other, node, &message);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(count_starts(w, 1, w->now_us - SECOND, w->now_us), 50);
	end_world(w);
}

static void demands_and_grants_that_are_lost_and_out_of_order_starve_nobody(void)
{
	struct world *w = make_group(3, 60);
	w->loss_percent = 20;
	w->jitter_us = 3 * MS;
	saturate(w);
	run_for(w, 15 * SECOND);
	CU_ASSERT_TRUE(fullest_window(w) <= 60);
	CU_ASSERT_TRUE(count_starts_since(w, 0, w->now_us - 10 * SECOND) >= 400);
	for (unsigned id = 1; id <= 3; id++)
		CU_ASSERT_TRUE(count_starts_since(w, id, w->now_us - 10 * SECOND) >= 60);
	end_world(w);
}

static void a_doubled_or_overtaken_demand_takes_no_slots_for_nobody(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	run_with_puppet(other, node, 1, 1, 3 * SECOND);
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1, .is.demand = { .asked_us = 1000, .waiting = 10 } };
	for (unsigned i = 0; i < 5; i++)
		say(other, node, &message); /* the same, five times, none of its answers seen */
	CU_ASSERT_EQUAL(report_of(node).granted_total, 10);
	/* The answer came, the ten are used: nobody waits. Then an older demand comes in. */
	message.is.demand = (struct cluster_demand){ .asked_us = 2000, .waiting = 0, .last_grant = 5 };
	say(other, node, &message);
	message.is.demand = (struct cluster_demand){ .asked_us = 1500, .waiting = 10, .last_grant = 5 };
	say(other, node, &message);
	CU_ASSERT_EQUAL(report_of(node).granted_total, 10);
	/* New ones are given as soon as they ask, for the old ones were seen. */
	message.is.demand = (struct cluster_demand){ .asked_us = 3000, .waiting = 10, .last_grant = 5 };
	say(other, node, &message);
	CU_ASSERT_EQUAL(report_of(node).granted_total, 20);
	end_world(w);
}

static void a_new_masters_numbers_are_not_taken_for_the_old_ones(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	run_for(w, 5 * SECOND);
	uint64_t number = w->nodes[2].last_sent[CLUSTER_DEMAND].is.demand.last_grant;
	CU_ASSERT_TRUE(number > 100);
	crash(&w->nodes[0]);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[2]), 2);
	CU_ASSERT_TRUE(w->nodes[2].last_sent[CLUSTER_DEMAND].is.demand.last_grant < number);
	end_world(w);
}

static void l_widens_when_starts_die_and_narrows_again(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).late_us, 8 * MS);
	w->nodes[1].lag_us = w->nodes[2].lag_us = 12 * MS; /* a busy machine */
	run_for(w, 5 * SECOND);
	CU_ASSERT_TRUE(report_of(&w->nodes[0]).late_us > 14 * MS);
	uint64_t died = w->nodes[1].died + w->nodes[2].died;
	run_for(w, SECOND);
	CU_ASSERT_TRUE(w->nodes[1].died + w->nodes[2].died - died <= 10);
	w->nodes[1].lag_us = w->nodes[2].lag_us = 0;
	run_for(w, 60 * SECOND);
	CU_ASSERT_TRUE(report_of(&w->nodes[0]).late_us <= 9 * MS);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

/* What a member says of its starts since it spoke last, and what the master then has for L. */
static unsigned late_us_after(struct peer *member, struct peer *master, unsigned used, unsigned died)
{
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1 };
	member->used += used;
	member->died += died;
	message.is.demand.asked_us = member->world->now_us;
	message.is.demand.used_total = member->used;
	message.is.demand.died_total = member->died;
	say(member, master, &message);
	run_with_puppet(member, master, 1, 1, 1200 * MS);
	return report_of(master).late_us;
}

static void of_how_many_starts_how_many_died_decides_whether_l_widens_stays_or_narrows(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *member = &w->nodes[1];
	run_with_puppet(member, node, 1, 1, 3 * SECOND);
	CU_ASSERT_EQUAL(late_us_after(member, node, 0, 0), 8 * MS);
	CU_ASSERT_EQUAL(late_us_after(member, node, 10, 2), 12 * MS);
	/* One of 300 is neither many nor few; and that counts no more, when another dies. */
	CU_ASSERT_EQUAL(late_us_after(member, node, 299, 1), 12 * MS);
	CU_ASSERT_EQUAL(late_us_after(member, node, 10, 1), 12 * MS);
	/* One of 19 are too few to say: that still counts. */
	CU_ASSERT_EQUAL(late_us_after(member, node, 8, 0), 12 * MS);
	CU_ASSERT_EQUAL(late_us_after(member, node, 0, 1), 18 * MS);
	CU_ASSERT_EQUAL(late_us_after(member, node, 1000, 2), 18 * MS);
	CU_ASSERT_EQUAL(late_us_after(member, node, 2000, 1), 16875);
	end_world(w);
}

static void l_does_not_narrow_while_nothing_is_used(void)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= 2; id++) {
		struct cluster_options options = options_of(id, 20);
		options.window_us = 10 * SECOND;
		add_node_with(w, options);
	}
	run_for(w, 12 * SECOND);
	saturate(w);
	w->nodes[1].lag_us = 12 * MS;
	run_for(w, 25 * SECOND);
	uint64_t wide_us = report_of(&w->nodes[0]).late_us;
	CU_ASSERT_TRUE(wide_us > 14 * MS);
	let_wait(&w->nodes[0], 0, false);
	let_wait(&w->nodes[1], 0, false);
	run_for(w, 60 * SECOND);
	CU_ASSERT_TRUE(report_of(&w->nodes[0]).late_us >= wide_us * 14 / 16);
	end_world(w);
}

static void with_40_milliseconds_one_way_90_percent_is_used(void)
{
	struct world *w = make_group(3, 100);
	w->delay_us = 40 * MS;
	run_for(w, SECOND);
	saturate(w);
	run_for(w, 3 * SECOND);
	uint64_t from_us = w->now_us;
	run_for(w, 10 * SECOND);
	CU_ASSERT_TRUE(fullest_window(w) <= 100);
	CU_ASSERT_TRUE(count_starts_since(w, 0, from_us) >= 900);
	/* Members say how long a grant takes: L need not learn it from starts that die. */
	CU_ASSERT_TRUE(w->nodes[1].died + w->nodes[2].died <= 100);
	end_world(w);
}

static void one_grant_that_took_long_does_not_widen_l_for_the_group(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	uint64_t first_us = master->last_heard[CLUSTER_DEMAND].is.demand.asked_us;
	for (unsigned i = 0; i < 50; i++) {
		say_grant(master, node, 5, master->last_heard[CLUSTER_DEMAND].is.demand.asked_us, 0, 1);
		run_with_puppet(master, node, 1, 5, 50 * MS);
	}
	unsigned before_us = master->last_heard[CLUSTER_DEMAND].is.demand.round_trip_us;
	say_grant(master, node, 5, first_us, 0, 1);
	run_for(w, 50 * MS);
	CU_ASSERT_TRUE(master->last_heard[CLUSTER_DEMAND].is.demand.round_trip_us < before_us + 20 * MS);
	end_world(w);
}

static void a_start_that_was_late_pushes_the_slots_back(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	run_for(w, 3 * SECOND);
	for (unsigned i = 0; i < 4; i++) {
		w->nodes[i % 3].late_us = 40 * MS;
		run_for(w, 1500 * MS);
	}
	CU_ASSERT_EQUAL(w->nodes[0].late_us_total + w->nodes[1].late_us_total + w->nodes[2].late_us_total, 160 * MS);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

static bool passes_no_demand_from_a(const struct world *w, unsigned from, unsigned to, const struct cluster_message *message)
{
	(void)to;
	return message->kind != CLUSTER_DEMAND || from != w->cut_a;
}

static void a_late_start_that_the_old_master_never_heard_of_counts_with_the_next(void)
{
	struct world *w = make_world();
	struct peer *first = add_node(w, 1, 1), *second = add_node(w, 2, 1), *member = add_node(w, 3, 1);
	crash(first);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(member), 2);
	start_node(first);
	run_for(w, 650 * MS); /* it listens, and will soon take over */
	CU_ASSERT_EQUAL(master_of(member), 2);
	member->late_us = 90 * MS;
	let_wait(member, 1, false);
	run_for(w, 600); /* the start; before its lateness is told, demands get lost */
	CU_ASSERT_EQUAL(member->used, 1);
	w->cut_a = 3;
	w->passes = passes_no_demand_from_a;
	run_for(w, 100 * MS);
	CU_ASSERT_EQUAL(master_of(member), 1);
	CU_ASSERT_EQUAL(report_of(first).takeovers_total, 1);
	w->passes = NULL;
	let_wait(second, 100, true);
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(w->start_count >= 3);
	CU_ASSERT_TRUE(fullest_window(w) <= 1);
	end_world(w);
}

static void a_late_start_is_told_until_a_question_that_told_of_it_is_answered(void)
{
	struct world *w = make_member();
	struct peer *node = &w->nodes[0], *master = &w->nodes[1];
	const struct cluster_demand *demand = &master->last_heard[CLUSTER_DEMAND].is.demand;
	uint64_t before_us = demand->asked_us;
	let_wait(node, 0, false);
	node->late_us_total = 5 * MS;
	run_for(w, 2 * MS);
	CU_ASSERT_EQUAL(demand->late_us_total, 5 * MS);
	say_grant(master, node, 5, before_us, 0, 0); /* the answer to one that said nothing of it */
	unsigned heard = master->heard[CLUSTER_DEMAND];
	run_for(w, 100 * MS);
	CU_ASSERT_TRUE(master->heard[CLUSTER_DEMAND] >= heard + 4);
	CU_ASSERT_EQUAL(demand->late_seen_us_total, 0);
	say_grant(master, node, 5, demand->asked_us, 0, 0);
	run_for(w, 30 * MS);
	heard = master->heard[CLUSTER_DEMAND];
	run_for(w, 100 * MS);
	CU_ASSERT_EQUAL(master->heard[CLUSTER_DEMAND], heard);
	end_world(w);
}

static void a_grant_has_room_for_so_many_moments_and_the_next_one_goes_on_from_there(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 20000);
	options.burst = 1;
	struct peer *node = add_node_with(w, options), *member = add_puppet(w, 2);
	run_for(w, 10 * MS);
	run_with_puppet(member, node, 1, 1, 3 * SECOND);
	uint64_t last_us = 0;
	for (unsigned i = 1; i <= 3; i++) {
		struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1 };
		message.is.demand = (struct cluster_demand){ .asked_us = i, .waiting = 1000, .last_grant = i - 1 };
		uint64_t given_us = w->now_us;
		say(member, node, &message);
		run_for(w, MS);
		const struct cluster_grant *grant = &member->last_heard[CLUSTER_GRANT].is.grant;
		CU_ASSERT_EQUAL_FATAL(grant->number, i);
		CU_ASSERT_EQUAL(grant->run_count, CLUSTER_RUNS_MAX);
		CU_ASSERT_TRUE(given_us + grant->runs[0].in_us > last_us);
		last_us = given_us + grant->runs[CLUSTER_RUNS_MAX - 1].in_us;
	}
	CU_ASSERT_EQUAL(report_of(node).granted_total, 3 * CLUSTER_RUNS_MAX);
	end_world(w);
}

static void burst_spaces_the_starts_of_the_whole_group(void)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= 3; id++) {
		struct cluster_options options = options_of(id, 100);
		options.burst = 3;
		add_node_with(w, options);
	}
	run_for(w, 3 * SECOND);
	saturate(w);
	run_for(w, 5 * SECOND);
	CU_ASSERT_TRUE(fullest_window(w) <= 100);
	CU_ASSERT_TRUE(count_starts_since(w, 0, w->now_us - 3 * SECOND) >= 290);
	/* Three at once, and then one each step of 10 ms; L = 8 ms lets one more fall into a step. */
	CU_ASSERT_TRUE(fullest_window_between(w, 10 * MS, 0, UINT64_MAX) <= 4);
	end_world(w);
}

/* ---- new settings, limits, reports ------------------------------------------------------------------------------------ */

static void configure_all(struct world *w, unsigned threshold, uint64_t window_us)
{
	for (unsigned i = 0; i < w->node_count; i++) {
		struct peer *node = &w->nodes[i];
		struct cluster_options options = options_of(999, threshold);
		if (node->cluster == NULL)
			continue;
		options.window_us = window_us;
		CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
		node->options.threshold = threshold;
		node->options.window_us = window_us;
	}
}

static void a_new_threshold_refills_nothing(void)
{
	struct world *w = make_group(3, 50);
	saturate(w);
	run_for(w, 3 * SECOND);
	for (unsigned i = 0; i < 10; i++) {
		configure_all(w, 10, SECOND);
		run_for(w, 30 * MS);
		configure_all(w, 50, SECOND);
		run_for(w, 70 * MS);
	}
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	uint64_t raised_us = w->now_us;
	configure_all(w, 80, SECOND);
	run_for(w, 5 * SECOND);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).self, 1);
	CU_ASSERT_TRUE(fullest_window_between(w, SECOND, raised_us, raised_us + QUIET) <= 50);
	CU_ASSERT_EQUAL(fullest_window_between(w, SECOND, raised_us + QUIET, UINT64_MAX), 80);
	uint64_t lowered_us = w->now_us;
	configure_all(w, 20, SECOND);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(fullest_window_between(w, SECOND, lowered_us + SECOND, UINT64_MAX), 20);
	end_world(w);
}

static void a_longer_window_counts_what_the_shorter_one_let_start(void)
{
	struct world *w = make_group(2, 20);
	saturate(w);
	run_for(w, 3 * SECOND);
	uint64_t changed_us = w->now_us;
	configure_all(w, 20, 3 * SECOND);
	run_for(w, 10 * SECOND);
	CU_ASSERT_TRUE(fullest_window_between(w, 3 * SECOND, changed_us - SECOND, UINT64_MAX) <= 40);
	CU_ASSERT_EQUAL(fullest_window_between(w, 3 * SECOND, changed_us + HORIZON, UINT64_MAX), 20);
	CU_ASSERT_TRUE(gap_after(w, changed_us + HORIZON + 8 * MS) >= 3 * SECOND);
	end_world(w);
}

static void a_shorter_window_is_in_force_after_its_own_quiet_time(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 10);
	options.window_us = 60 * SECOND;
	struct peer *node = add_node_with(w, options);
	run_for(w, 62 * SECOND);
	let_wait(node, 1000, true);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL(w->start_count, 10);
	uint64_t changed_us = w->now_us;
	configure_all(w, 10, SECOND);
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(count_starts_since(w, 0, changed_us) >= 10);
	CU_ASSERT_TRUE(fullest_window(w) <= 10);
	end_world(w);
}

static void an_even_flow_is_not_held_up_by_the_slower_one_before_it(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 2);
	options.window_us = 60 * SECOND;
	options.burst = 1;
	struct peer *node = add_node_with(w, options);
	run_for(w, 62 * SECOND);
	let_wait(node, 1000, true);
	run_for(w, 100 * MS);
	CU_ASSERT_EQUAL(w->start_count, 1);
	uint64_t changed_us = w->now_us;
	options.threshold = 50;
	options.window_us = SECOND;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	run_for(w, 4 * SECOND);
	CU_ASSERT_TRUE(count_starts_since(w, 0, changed_us) >= 50);
	end_world(w);
}

/* A clock that began with the machine, and not long ago. */
static void a_burst_that_is_longer_than_the_clock_is_old_may_start(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 100);
	struct peer *node = add_node(w, 1, 100);
	crash(node);
	node->offset_us = 0;
	node->options.window_us = options.window_us = 600 * SECOND;
	node->options.burst = 2;
	start_node(node);
	run_for(w, 605 * SECOND);
	CU_ASSERT_TRUE(report_of(node).is_giving);
	options.burst = 90; /* and 10 more later, one each 6 s: it is as if the first of 90 had been 534 s ago */
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	let_wait(node, 1000, true);
	run_for(w, SECOND);
	CU_ASSERT_TRUE(w->start_count >= 90);
	CU_ASSERT_TRUE(fullest_window_between(w, 600 * SECOND, 0, UINT64_MAX) <= 100);
	end_world(w);
}

static void a_ring_without_slots_is_handed_over_too(void)
{
	struct world *w = make_group(2, 0);
	crash(&w->nodes[0]);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(&w->nodes[1]), 2);
	start_node(&w->nodes[0]);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[1].sent[CLUSTER_HANDOVER], 1);
	CU_ASSERT_EQUAL(w->nodes[1].last_sent[CLUSTER_HANDOVER].is.handover.bucket_count, 0);
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).takeovers_total, 1);
	CU_ASSERT_EQUAL(master_of(&w->nodes[1]), 1);
	configure_all(w, 30, SECOND);
	saturate(w);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(fullest_window(w), 30);
	end_world(w);
}

static void a_threshold_of_nought_gives_nothing_and_one_too_large_changes_nothing(void)
{
	struct world *w = make_group(2, 0);
	saturate(w);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(w->start_count, 0);
	struct cluster_options options = options_of(1, CLUSTER_THRESHOLD_MAX + 1);
	CU_ASSERT_EQUAL(cluster_configure(w->nodes[0].cluster, &options, clock_of(&w->nodes[0])), -1);
	struct cluster_calls calls = { &w->nodes[0], on_send, on_give, on_answered, on_line, on_random, on_happened };
	CU_ASSERT_PTR_NULL(cluster_create(&options, &calls, BEGIN_US));
	CU_ASSERT_EQUAL(report_of(&w->nodes[0]).slots, 0);
	configure_all(w, 30, SECOND);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(fullest_window(w), 30);
	end_world(w);
}

static void a_ring_whose_window_is_a_week_can_be_handed_over_and_a_longer_one_is_refused(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *lower = &w->nodes[1];
	run_for(w, 3 * SECOND);
	configure_all(w, 50, CLUSTER_WINDOW_MAX_US);
	struct cluster_options options = options_of(2, 50);
	options.window_us = CLUSTER_WINDOW_MAX_US + 1;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), -1);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover.nonce = 77 };
	say_beat(lower, node, 0, 1);
	say(lower, node, &message);
	run_for(w, MS);
	const struct cluster_handover *handover = &lower->last_heard[CLUSTER_HANDOVER].is.handover;
	CU_ASSERT_EQUAL(lower->heard[CLUSTER_HANDOVER], 1);
	CU_ASSERT_TRUE(handover->bucket_count > 0 && handover->bucket_count <= CLUSTER_BUCKETS_MAX);
	CU_ASSERT_TRUE((uint64_t)handover->bucket_count * handover->bucket_us >= CLUSTER_WINDOW_MAX_US);
	end_world(w);
}

static void a_member_that_says_it_is_ever_later_does_not_break_the_handover(void)
{
	struct world *w = make_pair(2, 1, 50);
	struct peer *node = &w->nodes[0], *lower = &w->nodes[1], *liar = add_puppet(w, 3);
	run_for(w, 3 * SECOND);
	say_beat(liar, node, 2, 1);
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1 };
	configure_all(w, 50, CLUSTER_WINDOW_MAX_US);
	for (unsigned i = 1; i <= 10; i++) {
		message.is.demand = (struct cluster_demand){ .asked_us = i, .late_us_total = i * CLUSTER_WINDOW_MAX_US };
		say(liar, node, &message);
	}
	message = (struct cluster_message){ .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover.nonce = 77 };
	say_beat(lower, node, 0, 1);
	say(lower, node, &message);
	run_for(w, MS);
	const struct cluster_handover *handover = &lower->last_heard[CLUSTER_HANDOVER].is.handover;
	CU_ASSERT_EQUAL(lower->heard[CLUSTER_HANDOVER], 1);
	CU_ASSERT_TRUE(handover->bucket_count <= CLUSTER_BUCKETS_MAX);
	end_world(w);
}

static void a_handover_that_says_for_ever_stops_the_group_for_no_longer_than_quiet_time(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *liar = &w->nodes[1];
	run_with_puppet(liar, node, 2, 1, SECOND);
	CU_ASSERT_EQUAL_FATAL(liar->heard[CLUSTER_TAKEOVER] > 0, true);
	struct cluster_message message = { .kind = CLUSTER_HANDOVER, .epoch = 1 };
	message.is.handover.nonce = liar->last_heard[CLUSTER_TAKEOVER].is.takeover.nonce;
	message.is.handover.bucket_us = UINT32_MAX;
	message.is.handover.bucket_count = CLUSTER_BUCKETS_MAX;
	message.is.handover.buckets[CLUSTER_BUCKETS_MAX - 1] = 50;
	let_wait(node, 1000, true);
	say(liar, node, &message);
	run_with_puppet(liar, node, 1, 1, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_TRUE(count_starts_since(w, 1, 0) >= 50);
	end_world(w);
}

static void forge_until_the_table_is_full(unsigned threshold)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, threshold), *forger = add_puppet(w, 999);
	run_for(w, 10 * MS);
	for (unsigned i = 0; i < 2000; i++) {
		struct cluster_message message = beat_of(forger, node, 0, 0);
		message.is.heartbeat.echo_count = 0;
		forger->incarnation = 1000 + i;
		forger->id = 100 + i;
		say(forger, node, &message);
		run_for(w, MS);
		if (i == 1000)
			add_node(w, 2, threshold);
	}
	CU_ASSERT_TRUE(is_alive_for(node, 2));
	CU_ASSERT_EQUAL(master_of(&w->nodes[2]), 1);
	CU_ASSERT_EQUAL(report_of(node).node_count, 2);
	end_world(w);
}

static void forgeries_that_fill_the_table_keep_no_honest_node_out(void)
{
	forge_until_the_table_is_full(50);
	forge_until_the_table_is_full(0);
}

#define REMEMBERED 96u /* nodes that one node remembers, itself among them */

static void a_table_that_is_full_of_the_living_lets_nobody_in_until_some_have_gone(void)
{
	struct world *w = make_pair(1, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	for (unsigned id = 100; id < 100 + REMEMBERED - 1; id++)
		say_beat_as(other, node, id, 1, 0);
	CU_ASSERT_EQUAL(node->events[CLUSTER_NODE_CAME], REMEMBERED - 1);
	say_beat_as(other, node, 900, 1, 0);
	CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 1);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_FULL], 900);
	CU_ASSERT_FALSE(is_alive_for(node, 900));
	CU_ASSERT_EQUAL(report_of(node).node_count, CLUSTER_NODES_MAX);
	run_for(w, 800 * MS);
	CU_ASSERT_EQUAL(node->events[CLUSTER_NODE_WENT], REMEMBERED - 1);
	say_beat_as(other, node, 900, 1, 0);
	CU_ASSERT_TRUE(is_alive_for(node, 900));
	CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 1);
	end_world(w);
}

/* They have no room for us, and so do not echo what we say: they are heard, and are not alive for us. */
static void who_hears_a_full_group_stands_for_nothing_beside_it_and_says_so(void)
{
	struct world *w = make_pair(999, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	for (unsigned i = 0; i < 30; i++) {
		for (unsigned id = 1; id <= CLUSTER_NODES_MAX && i % 6 == 0; id++) {
			struct cluster_message message = beat_of(other, node, 1, 0);
			other->id = id;
			other->incarnation = 1000 + id;
			message.is.heartbeat.echo_count = 0;
			say(other, node, &message);
		}
		run_for(w, 100 * MS);
		CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.master, 0);
	}
	CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 1);
	CU_ASSERT_EQUAL(node->event_id[CLUSTER_FULL], 999);
	CU_ASSERT_EQUAL(node->events[CLUSTER_MASTER_CHANGED], 0);
	run_for(w, SECOND); /* they have gone */
	CU_ASSERT_EQUAL(master_of(node), 999);
	end_world(w);
}

/* All places but that of whom we knew first are taken by the living; then it has gone, and somebody has its place. */
static void give_first_place_to(struct peer *puppet, struct peer *node, unsigned places, unsigned id, unsigned master)
{
	struct world *w = puppet->world;
	for (unsigned i = 0; i < places; i++)
		say_beat_as(puppet, node, 300 + i, master, 0);
	run_for(w, 200 * MS);
	say_beat_as(puppet, node, id, master, 0);
	CU_ASSERT_EQUAL(node->events[CLUSTER_FULL], 0);
	CU_ASSERT_TRUE(is_alive_for(node, id));
}

static void who_has_the_place_of_one_who_died_has_none_of_its_slots(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 50);
	options.window_us = 60 * SECOND;
	struct peer *node = add_node_with(w, options), *other = add_puppet(w, 2);
	struct cluster_message message = { .kind = CLUSTER_DEMAND, .epoch = 1, .is.demand = { .asked_us = 1, .waiting = 40 } };
	run_for(w, 62 * SECOND);
	run_with_puppet(other, node, 1, 1, 100 * MS);
	say(other, node, &message);
	CU_ASSERT_EQUAL(report_of(node).nodes[1].granted, 40);
	run_for(w, 600 * MS);
	give_first_place_to(other, node, REMEMBERED - 2, 900, 1);
	struct cluster_report report = report_of(node);
	CU_ASSERT_EQUAL(find_report(&report, 900)->granted, 0);
	/* The slots come due again, and the newcomer and the master, who both stand in line, share them. */
	let_wait(node, 1000, true);
	for (unsigned i = 2; i < 2 + 62 * 50; i++) {
		message.is.demand = (struct cluster_demand){ .asked_us = i, .waiting = 1000, .last_grant = i };
		say_beat(other, node, 1, 1);
		say(other, node, &message);
		run_for(w, 20 * MS);
	}
	report = report_of(node);
	unsigned granted = find_report(&report, 900)->granted;
	CU_ASSERT_TRUE(granted >= 15 && granted <= 35);
	CU_ASSERT_EQUAL(report.nodes[0].granted + granted, 50);
	end_world(w);
}

static void who_has_the_place_of_one_who_took_over_is_not_handed_the_ring(void)
{
	struct world *w = make_pair(50, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1], *lowest = add_puppet(w, 1);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER, .epoch = 1, .is.takeover.nonce = 77 };
	run_for(w, 3 * SECOND);
	say_beat(other, node, 0, 1);
	say(other, node, &message);
	run_for(w, 10 * MS);
	CU_ASSERT_EQUAL(other->heard[CLUSTER_HANDOVER], 1);
	/* Somebody with a lower id is there, so that our node does not become master again. */
	run_with_puppet(lowest, node, 0, 1, 600 * MS);
	give_first_place_to(other, node, REMEMBERED - 3, 3, 0);
	CU_ASSERT_EQUAL(master_of(node), 0);
	say(other, node, &message);
	run_for(w, 10 * MS);
	CU_ASSERT_EQUAL(other->heard[CLUSTER_HANDOVER], 1);
	end_world(w);
}

static void who_has_the_place_of_the_master_is_not_the_master(void)
{
	struct world *w = make_pair(50, 2, 50);
	struct peer *node = &w->nodes[0], *other = &w->nodes[1];
	say_beat(other, node, 2, 5);
	let_wait(node, 10, true);
	run_for(w, 300 * MS);
	uint64_t asked_us = other->last_heard[CLUSTER_DEMAND].is.demand.asked_us;
	for (unsigned i = 0; i < REMEMBERED - 2; i++)
		say_beat_as(other, node, 300 + i, 2, 5);
	CU_ASSERT_EQUAL(master_of(node), 2);
	w->now_us += 450 * MS; /* it was busy elsewhere; now these lie there, and nobody has looked who is alive */
	other->id = 300;
	other->incarnation = 1300;
	hear(node, other, beat_of(other, node, 2, 5));
	CU_ASSERT_EQUAL(node->events[CLUSTER_NODE_WENT], 1);
	other->id = 900;
	hear(node, other, beat_of(other, node, 2, 5));
	CU_ASSERT_TRUE(is_alive_for(node, 900));
	struct cluster_message message = { .kind = CLUSTER_GRANT, .epoch = 5 };
	message.is.grant = (struct cluster_grant){ .asked_us = asked_us, .number = 1, .late_us = 6000, .run_count = 1 };
	message.is.grant.runs[0] = (struct cluster_run){ 0, 3 };
	hear(node, other, message);
	CU_ASSERT_EQUAL(node->given, 0);
	end_world(w);
}

static void sixty_four_nodes_are_one_group_and_their_datagrams_are_bounded(void)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= CLUSTER_NODES_MAX; id++)
		add_node(w, id, 64);
	run_for(w, 4 * SECOND);
	for (unsigned i = 0; i < CLUSTER_NODES_MAX; i++) {
		CU_ASSERT_EQUAL(master_of(&w->nodes[i]), 1);
		CU_ASSERT_EQUAL(report_of(&w->nodes[i]).node_count, CLUSTER_NODES_MAX);
	}
	size_t sent = w->sent_total;
	run_for(w, 2 * SECOND);
	CU_ASSERT_TRUE(w->sent_total - sent <= 2 * CLUSTER_NODES_MAX * 6);
	end_world(w);
}

static void more_nodes_than_a_group_can_hold_do_not_pass_the_threshold(void)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= 70; id++)
		add_node(w, id, 64);
	run_for(w, 4 * SECOND);
	saturate(w);
	run_for(w, 3 * SECOND);
	CU_ASSERT_TRUE(fullest_window(w) <= 64);
	CU_ASSERT_TRUE(count_starts_since(w, 0, w->now_us - SECOND) >= 60);
	CU_ASSERT_EQUAL(w->nodes[69].events[CLUSTER_FULL], 1);
	CU_ASSERT_EQUAL(w->nodes[9].events[CLUSTER_FULL], 0);
	end_world(w);
}

static void an_epoch_that_rises_with_each_datagram_raises_no_storm(void)
{
	struct world *w = make_group(3, 50);
	struct peer *forger = add_puppet(w, 9);
	size_t sent = w->sent_total;
	for (unsigned i = 0; i < 1000; i++) {
		say_beat(forger, &w->nodes[0], 1, 10 + 3 * i);
		run_for(w, MS);
	}
	CU_ASSERT_TRUE(w->sent_total - sent <= 1000);
	end_world(w);
}

static void a_node_that_disagrees_with_the_masters_settings_is_told_of_once(void)
{
	struct world *w = make_group(2, 50);
	struct cluster_options options = options_of(3, 60);
	add_node_with(w, options);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_DISAGREES], 1);
	CU_ASSERT_EQUAL(w->nodes[0].event_id[CLUSTER_DISAGREES], 3);
	CU_ASSERT_EQUAL(w->nodes[0].event_number[CLUSTER_DISAGREES], 60);
	options = options_of(4, 50);
	options.group_size = 9;
	add_node_with(w, options);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_DISAGREES], 2);
	CU_ASSERT_EQUAL(w->nodes[0].event_id[CLUSTER_DISAGREES], 4);
	options = options_of(5, 50);
	options.window_us = 2 * SECOND;
	add_node_with(w, options);
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[0].events[CLUSTER_DISAGREES], 3);
	CU_ASSERT_EQUAL(w->nodes[0].event_id[CLUSTER_DISAGREES], 5);
	/* The master's rules. */
	saturate(w);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(fullest_window(w), 50);
	end_world(w);
}

static void the_report_tells_it_all(void)
{
	struct world *w = make_group(3, 30);
	saturate(w);
	run_for(w, 3 * SECOND);
	crash(&w->nodes[1]);
	run_for(w, 1700 * MS);
	struct cluster_report report = report_of(&w->nodes[0]);
	CU_ASSERT_EQUAL(report.self, 1);
	CU_ASSERT_EQUAL(report.master, 1);
	CU_ASSERT_EQUAL(report.epoch, 1);
	CU_ASSERT_TRUE(report.is_giving);
	CU_ASSERT_EQUAL(report.quiet_until_us, 0);
	CU_ASSERT_EQUAL(report.late_us, 8 * MS);
	CU_ASSERT_EQUAL(report.slots, 30);
	CU_ASSERT_EQUAL(report.elections_total, 1);
	CU_ASSERT_EQUAL(report.takeovers_total, 0);
	CU_ASSERT_TRUE(report.granted_total >= w->start_count && report.granted_total <= w->start_count + 30);
	CU_ASSERT_EQUAL_FATAL(report.node_count, 3);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(report.nodes[i].id, i + 1);
	CU_ASSERT_EQUAL(report.nodes[0].state, CLUSTER_ALIVE);
	CU_ASSERT_EQUAL(report.nodes[0].age_us, 0);
	CU_ASSERT_EQUAL(report.nodes[0].uptime_us, 7700 * MS);
	CU_ASSERT_EQUAL(report.nodes[0].waiting, 1000000);
	CU_ASSERT_EQUAL(report.nodes[0].started_total, w->nodes[0].used);
	CU_ASSERT_EQUAL(report.nodes[1].state, CLUSTER_DEAD);
	CU_ASSERT_TRUE(report.nodes[1].age_us >= 1500 * MS && report.nodes[1].age_us <= 1700 * MS);
	CU_ASSERT_EQUAL(report.nodes[2].state, CLUSTER_ALIVE);
	CU_ASSERT_TRUE(report.nodes[2].age_us <= 250 * MS);
	CU_ASSERT_TRUE(report.nodes[2].granted >= 10 && report.nodes[2].granted <= 20);
	CU_ASSERT_TRUE(report.nodes[2].uptime_us >= 7400 * MS && report.nodes[2].uptime_us <= 7700 * MS);
	CU_ASSERT_TRUE(report.nodes[2].started_total > 0);
	CU_ASSERT_EQUAL(report.nodes[2].waiting, 1000000);
	report = report_of(&w->nodes[2]);
	CU_ASSERT_EQUAL(report.self, 3);
	CU_ASSERT_EQUAL(report.nodes[0].id, 3);
	CU_ASSERT_EQUAL(report.nodes[1].id, 1);
	CU_ASSERT_FALSE(report.is_giving);
	CU_ASSERT_EQUAL(report.slots, 0);
	crash(&w->nodes[0]);
	run_for(w, 1100 * MS);
	report = report_of(&w->nodes[2]);
	CU_ASSERT_EQUAL(report.master, 3);
	CU_ASSERT_EQUAL(report.epoch, 2);
	CU_ASSERT_TRUE(report.quiet_until_us > clock_of(&w->nodes[2]));
	end_world(w);
}

static void requests_that_wait_through_a_change_of_master_get_their_turn(void)
{
	struct world *w = make_group(3, 50);
	let_wait(&w->nodes[2], 200, false);
	run_for(w, SECOND);
	crash(&w->nodes[0]);
	run_for(w, 8 * SECOND);
	CU_ASSERT_EQUAL(w->nodes[2].waiting, 0);
	CU_ASSERT_EQUAL(w->nodes[2].used, 200);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

/* ---- settings and requests at their edges ----------------------------------------------------------------------------- */

static void a_window_of_nought_is_the_shortest_there_is(void)
{
	struct world *w = make_world();
	struct cluster_options options = options_of(1, 5);
	options.window_us = 0;
	struct peer *node = add_node_with(w, options);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.window_us, 1);
	options.window_us = 7;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	options.window_us = 0;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
	run_for(w, SECOND);
	CU_ASSERT_EQUAL(node->last_sent[CLUSTER_HEARTBEAT].is.heartbeat.window_us, 1);
	end_world(w);
}

static void goodbye_is_said_once(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 5);
	run_for(w, 3 * SECOND);
	cluster_leave(node->cluster, clock_of(node));
	unsigned told = node->sent[CLUSTER_LEAVE], pauses = node->events[CLUSTER_WAS_PAUSED];
	CU_ASSERT_EQUAL(told, 1);
	run_for(w, 3 * SECOND); /* so long that one who is still there would call it a pause */
	cluster_leave(node->cluster, clock_of(node));
	CU_ASSERT_EQUAL(node->sent[CLUSTER_LEAVE], 1);
	CU_ASSERT_EQUAL(node->events[CLUSTER_WAS_PAUSED], pauses);
	CU_ASSERT_EQUAL(cluster_tick(node->cluster, clock_of(node)), UINT64_MAX);
	CU_ASSERT_EQUAL(master_of(node), 0);
	end_world(w);
}

static void a_higher_id_that_asks_for_the_ring_is_not_given_it(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 2, 5), *puppet = add_puppet(w, 9);
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER };
	run_with_puppet(puppet, node, 2, 0, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(node), 2);
	message.is.takeover.nonce = 5;
	say(puppet, node, &message);
	run_for(w, 10 * MS);
	CU_ASSERT_EQUAL(puppet->heard[CLUSTER_HANDOVER], 0);
	CU_ASSERT_EQUAL(master_of(node), 2);
	end_world(w);
}

static void a_ring_that_nobody_asked_for_is_not_taken(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 2, 5), *puppet = add_puppet(w, 1);
	struct cluster_message message = { .kind = CLUSTER_HANDOVER };
	run_with_puppet(puppet, node, 1, 1, 3 * SECOND);
	CU_ASSERT_EQUAL(master_of(node), 1); /* it is a member */
	message.is.handover.bucket_us = CLUSTER_BUCKET_US;
	say(puppet, node, &message);
	message.is.handover.nonce = 7;
	say(puppet, node, &message);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 0);
	CU_ASSERT_EQUAL(master_of(node), 1);
	end_world(w);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_window_of_nought_is_the_shortest_there_is),
		TEST(goodbye_is_said_once),
		TEST(a_higher_id_that_asks_for_the_ring_is_not_given_it),
		TEST(a_ring_that_nobody_asked_for_is_not_taken),
		TEST(nodes_find_each_other_within_two_seconds_and_the_lowest_id_is_master),
		TEST(who_hears_us_but_is_not_heard_and_who_is_heard_but_hears_us_not_are_not_alive),
		TEST(a_replayed_heartbeat_keeps_nobody_alive),
		TEST(what_a_node_says_that_never_proved_to_be_there_is_not_believed),
		TEST(who_says_goodbye_is_gone_at_once),
		TEST(a_dead_node_is_noticed_within_a_second),
		TEST(a_restarted_node_is_a_new_one_and_the_page_shows_its_id_once),
		TEST(of_two_lives_with_one_id_that_are_over_the_page_shows_the_later),
		TEST(an_old_heartbeat_that_comes_late_changes_nothing_that_a_newer_one_said),
		TEST(a_lone_node_gives_nothing_before_quiet_time_is_over),
		TEST(a_dead_master_is_replaced_and_the_new_one_is_quiet_for_long_enough),
		TEST(a_master_that_restarts_with_an_empty_memory_does_not_give_twice),
		TEST(a_lower_id_takes_the_ring_over_and_goes_on_at_once),
		TEST(a_master_that_has_handed_over_gives_nothing_more),
		TEST(a_handover_ends_the_quiet_for_the_slots_that_it_tells_of_and_with_another_nonce_for_none),
		TEST(a_lost_handover_is_asked_for_again),
		TEST(what_was_handed_over_may_be_asked_for_again_for_two_seconds),
		TEST(a_ring_is_taken_from_nobody_but_the_master_that_was_asked),
		TEST(a_ring_that_comes_before_it_was_asked_for_is_not_taken),
		TEST(a_master_that_came_and_went_between_two_looks_is_not_asked_for_its_ring_but_waited_out),
		TEST(without_an_answer_the_new_master_keeps_quiet_time),
		TEST(two_masters_that_meet_obey_the_threshold_within_two_seconds),
		TEST(a_master_that_meets_a_lower_one_hands_its_ring_over),
		TEST(a_paused_master_gives_nothing_of_its_own_and_starts_again_as_a_newcomer),
		TEST(a_paused_member_uses_nothing_old_and_starts_again_as_a_newcomer),
		TEST(of_twins_the_elder_stays_and_the_younger_steps_aside_until_it_is_gone),
		TEST(twins_of_one_age_are_told_apart_by_their_incarnation),
		TEST(of_three_with_one_id_one_stays),
		TEST(twins_that_both_stay_for_a_second_are_told_apart_by_their_incarnation),
		TEST(a_younger_twin_that_knows_a_higher_epoch_does_not_stop_the_elder),
		TEST(when_a_twin_that_was_master_steps_aside_the_elder_keeps_quiet_time),
		TEST(strict_parts_of_a_split_group_use_their_shares_and_never_more_together),
		TEST(strict_without_a_group_size_counts_the_nodes_that_were_ever_there_at_once),
		TEST(a_restart_does_not_make_a_strict_group_believe_that_it_was_larger),
		TEST(slots_that_a_strict_master_regains_are_usable_after_quiet_time),
		TEST(a_node_that_is_alive_but_follows_another_master_adds_no_share),
		TEST(available_parts_use_the_whole_threshold),
		TEST(a_start_is_not_before_its_time_by_the_members_clock_and_not_after_the_question_and_its_time_and_l),
		TEST(a_grant_that_came_too_late_is_dead),
		TEST(grants_of_another_epoch_or_of_who_is_not_master_or_to_a_question_never_asked_are_refused),
		TEST(a_master_that_meets_a_higher_epoch_stops_and_keeps_quiet_time),
		TEST(the_highest_epoch_there_is_does_not_end_the_group),
		TEST(a_request_below_the_threshold_waits_for_one_round_trip),
		TEST(a_saturated_group_uses_at_least_99_percent_and_never_more_than_the_threshold),
		TEST(a_demand_with_nobody_in_line_is_not_sent_and_a_standing_one_is_repeated),
		TEST(a_line_that_changes_all_the_time_asks_at_most_once_a_millisecond),
		TEST(the_poorest_is_filled_first),
		TEST(a_threshold_of_five_over_three_nodes_goes_round),
		TEST(who_has_not_asked_for_45_milliseconds_has_no_share),
		TEST(demands_and_grants_that_are_lost_and_out_of_order_starve_nobody),
		TEST(a_doubled_or_overtaken_demand_takes_no_slots_for_nobody),
		TEST(a_new_masters_numbers_are_not_taken_for_the_old_ones),
		TEST(l_widens_when_starts_die_and_narrows_again),
		TEST(of_how_many_starts_how_many_died_decides_whether_l_widens_stays_or_narrows),
		TEST(l_does_not_narrow_while_nothing_is_used),
		TEST(with_40_milliseconds_one_way_90_percent_is_used),
		TEST(one_grant_that_took_long_does_not_widen_l_for_the_group),
		TEST(a_start_that_was_late_pushes_the_slots_back),
		TEST(a_late_start_that_the_old_master_never_heard_of_counts_with_the_next),
		TEST(a_late_start_is_told_until_a_question_that_told_of_it_is_answered),
		TEST(a_grant_has_room_for_so_many_moments_and_the_next_one_goes_on_from_there),
		TEST(burst_spaces_the_starts_of_the_whole_group),
		TEST(a_new_threshold_refills_nothing),
		TEST(a_longer_window_counts_what_the_shorter_one_let_start),
		TEST(a_shorter_window_is_in_force_after_its_own_quiet_time),
		TEST(an_even_flow_is_not_held_up_by_the_slower_one_before_it),
		TEST(a_burst_that_is_longer_than_the_clock_is_old_may_start),
		TEST(a_ring_without_slots_is_handed_over_too),
		TEST(a_threshold_of_nought_gives_nothing_and_one_too_large_changes_nothing),
		TEST(a_ring_whose_window_is_a_week_can_be_handed_over_and_a_longer_one_is_refused),
		TEST(a_member_that_says_it_is_ever_later_does_not_break_the_handover),
		TEST(a_handover_that_says_for_ever_stops_the_group_for_no_longer_than_quiet_time),
		TEST(forgeries_that_fill_the_table_keep_no_honest_node_out),
		TEST(a_table_that_is_full_of_the_living_lets_nobody_in_until_some_have_gone),
		TEST(who_hears_a_full_group_stands_for_nothing_beside_it_and_says_so),
		TEST(who_has_the_place_of_one_who_died_has_none_of_its_slots),
		TEST(who_has_the_place_of_one_who_took_over_is_not_handed_the_ring),
		TEST(who_has_the_place_of_the_master_is_not_the_master),
		TEST(sixty_four_nodes_are_one_group_and_their_datagrams_are_bounded),
		TEST(more_nodes_than_a_group_can_hold_do_not_pass_the_threshold),
		TEST(an_epoch_that_rises_with_each_datagram_raises_no_storm),
		TEST(a_node_that_disagrees_with_the_masters_settings_is_told_of_once),
		TEST(the_report_tells_it_all),
		TEST(requests_that_wait_through_a_change_of_master_get_their_turn),
	};

	return unit_main("cluster", tests, LENGTH(tests));
}
