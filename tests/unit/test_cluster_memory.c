/* test_cluster_memory.c: a cluster is made, and set anew, while memory runs out.
 *
 * cluster.c is compiled here once more with a calloc() that fails on demand: at the first allocation, then, in a fresh run, at the
 * second, and so on until a run goes through. Each failure is said, leaves nothing behind (that is what `make asan` sees), and
 * changes nothing.
 */
#include <stdbool.h>
#include <stdlib.h>

static unsigned long allocations_left = -1ul; /* allocations that succeed before one fails */

static void *scarce_calloc(size_t count, size_t size)
{
	return allocations_left-- == 0 ? NULL : calloc(count, size);
}

#define calloc scarce_calloc
#include "../../cluster.c"
#undef calloc

#include "cluster_world.h"
#include "unit.h"

static void out_of_memory_no_cluster_is_made(void)
{
	struct cluster_options options = options_of(1, 50);
	struct cluster_calls calls = { .context = NULL };
	options.incarnation = 1;
	unsigned failures = 0;
	for (;; failures++) {
		allocations_left = failures;
		struct cluster *c = cluster_create(&options, &calls, BEGIN_US);
		allocations_left = -1ul;
		if (c != NULL) {
			cluster_destroy(c);
			break;
		}
	}
	CU_ASSERT_EQUAL(failures, 2);
	cluster_destroy(NULL);
}

static void out_of_memory_the_old_settings_stay(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50);
	struct cluster_options options = options_of(1, 80);
	run_for(w, 3 * SECOND);
	allocations_left = 0;
	CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), -1);
	allocations_left = -1ul;
	CU_ASSERT_EQUAL(report_of(node).slots, 50);
	let_wait(node, 1000, true);
	run_for(w, 3 * SECOND);
	CU_ASSERT_EQUAL(fullest_window(w), 50);
	end_world(w);
}

/* Out of memory for the ring that it is handed: it keeps asking, and keeps quiet in the meantime. */
static void out_of_memory_a_handover_is_asked_for_again(void)
{
	struct world *w = make_world();
	struct peer *node = add_node(w, 1, 50);
	crash(node);
	add_node(w, 2, 50);
	let_wait(&w->nodes[1], 1000, true);
	run_for(w, 3 * SECOND);
	start_node(node);
	run_for(w, 600 * MS);
	allocations_left = 0;
	run_for(w, 2 * SECOND);
	CU_ASSERT_EQUAL(allocations_left, -1ul - 1); /* it failed once, and was asked for once more */
	allocations_left = -1ul;
	CU_ASSERT_EQUAL(master_of(node), 1);
	CU_ASSERT_EQUAL(report_of(node).takeovers_total, 1);
	CU_ASSERT_TRUE(fullest_window(w) <= 50);
	end_world(w);
}

/* What must be true of the ring at any time: see struct ring. */
static void check_ring(const struct cluster *c, uint64_t now_us)
{
	size_t owned[TABLE + 1] = { 0 };
	bool is_sorted = true, has_owned_due = false;
	for (size_t i = 0; i < c->ring.count; i++) {
		is_sorted = is_sorted && (i == 0 || free_us(&c->ring, i - 1) <= free_us(&c->ring, i));
		has_owned_due = has_owned_due || (i < c->ring.due && slot_at(&c->ring, i)->owner != NOBODY);
		owned[slot_at(&c->ring, i)->owner]++;
	}
	CU_ASSERT_TRUE(is_sorted);
	CU_ASSERT_FALSE(has_owned_due);
	CU_ASSERT_TRUE(c->ring.due <= c->ring.count && c->ring.count <= c->ring.capacity);
	for (unsigned i = 0; i < TABLE; i++)
		CU_ASSERT_EQUAL(owned[i], c->nodes[i].owned);
	if (c->ring.count > 0)
		CU_ASSERT_TRUE(free_us(&c->ring, c->ring.count - 1) <= now_us + AHEAD_US + quiet_us(c) + SECOND);
}

static void the_ring_is_sorted_and_counted_through_random_lives(void)
{
	struct world *w = make_world();
	for (unsigned id = 1; id <= 4; id++) {
		struct cluster_options options = options_of(id, 30);
		options.is_strict = id % 2 == 0; /* also of different opinions */
		add_node_with(w, options);
		let_wait(&w->nodes[id - 1], 100000, true);
	}
	w->loss_percent = 10;
	w->jitter_us = 2 * MS;
	for (unsigned i = 0; i < 400; i++) {
		struct peer *node = &w->nodes[world_random(w) % 4];
		struct cluster_options options = node->options;
		options.threshold = (unsigned)(world_random(w) % 60);
		options.burst = (unsigned)(world_random(w) % 20);
		switch (world_random(w) % 6) {
		case 0:
			crash(node);
			start_node(node);
			break;
		case 1:
			pause_node(node, 700 * MS);
			break;
		case 2:
			CU_ASSERT_EQUAL(cluster_configure(node->cluster, &options, clock_of(node)), 0);
			break;
		case 3:
			node->late_us = 3 * MS;
			break;
		}
		run_for(w, world_random(w) % (500 * MS));
		for (unsigned n = 0; n < 4; n++)
			check_ring(w->nodes[n].cluster, clock_of(&w->nodes[n]));
	}
	end_world(w);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(out_of_memory_no_cluster_is_made),
		TEST(out_of_memory_the_old_settings_stay),
		TEST(out_of_memory_a_handover_is_asked_for_again),
		TEST(the_ring_is_sorted_and_counted_through_random_lives),
	};

	return unit_main("cluster_memory", tests, sizeof tests / sizeof tests[0]);
}
