/* test_roads.c: the memory of requests: as much as is needed at once, and no longer than it is.
 *
 * roads.c is compiled here once more with memory that is counted and may run out, and with settings of the test's own.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "service.h"

static struct {
	unsigned blocks; /* in use */
	bool is_out;
} memory;

static void *counted_malloc(size_t size)
{
	void *block = memory.is_out ? NULL : malloc(size);
	memory.blocks += block != NULL;
	return block;
}

static void counted_free(void *block)
{
	memory.blocks -= block != NULL;
	free(block);
}

static struct settings in_force;
static unsigned settings_held;

static struct settings *held_settings(struct proxy *proxy, unsigned *generation)
{
	*generation = atomic_load(&proxy->settings_generation);
	settings_held++;
	return &in_force;
}

static void release_settings(struct settings *settings)
{
	settings_held -= settings == &in_force;
}

static struct auth *no_auth(struct proxy *proxy)
{
	(void)proxy;
	return NULL;
}

static struct cut *no_cut(struct worker *worker)
{
	(void)worker;
	return NULL;
}

#define malloc counted_malloc
#define free counted_free
#define service_settings held_settings
#define settings_release release_settings
#define service_auth no_auth
#define worker_cut no_cut
#include "roads.c"
#undef malloc
#undef free
#undef service_settings
#undef settings_release
#undef service_auth
#undef worker_cut

#include "unit.h"

#define BLOCKS_OF_A_ROAD 2u /* itself, and its buffers */
#define MANY 512u /* as many as are kept */
#define TOO_MANY 600u

static struct proxy proxy;
static struct seat seat;
static struct road *taken[TOO_MANY];

static struct roads *begin(void)
{
	in_force.max_header_bytes = 4096;
	memory.is_out = false;
	struct roads *roads = roads_create(&proxy);
	CU_ASSERT_PTR_NOT_NULL_FATAL(roads);
	CU_ASSERT_EQUAL(memory.blocks, 0);
	return roads;
}

static void end(struct roads *roads)
{
	roads_destroy(roads);
	memory.blocks++; /* it was not made by our malloc() */
	CU_ASSERT_EQUAL(memory.blocks, 0);
	CU_ASSERT_EQUAL(settings_held, 0);
}

static void take(struct roads *roads, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		taken[i] = roads_take(roads, &seat);
		CU_ASSERT_PTR_NOT_NULL_FATAL(taken[i]);
	}
}

static void give_back(struct roads *roads, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		roads_give_back(roads, taken[i]);
}

static void the_road_given_back_last_is_taken_next(void)
{
	struct roads *roads = begin();
	take(roads, 3);
	struct road *last = taken[2];
	give_back(roads, 3);
	CU_ASSERT_PTR_EQUAL(roads_take(roads, &seat), last);
	roads_give_back(roads, last);
	CU_ASSERT_EQUAL(memory.blocks, 3 * BLOCKS_OF_A_ROAD);
	end(roads);
}

static void as_many_as_were_needed_at_once_stay_and_none_is_made_again(void)
{
	struct roads *roads = begin();
	take(roads, MANY);
	for (int round = 0; round < 3; round++) {
		give_back(roads, MANY);
		CU_ASSERT_EQUAL(memory.blocks, MANY * BLOCKS_OF_A_ROAD);
		memory.is_out = true; /* whoever made one now would fail */
		take(roads, MANY);
		memory.is_out = false;
		roads_trim(roads); /* all were needed since the last time */
		CU_ASSERT_EQUAL(memory.blocks, MANY * BLOCKS_OF_A_ROAD);
	}
	give_back(roads, MANY);
	end(roads);
}

static void more_than_are_of_use_are_not_kept_until_somebody_looks(void)
{
	struct roads *roads = begin();
	take(roads, TOO_MANY);
	give_back(roads, TOO_MANY);
	CU_ASSERT_EQUAL(memory.blocks, MANY * BLOCKS_OF_A_ROAD);
	end(roads);
}

static void those_that_nobody_needed_for_a_while_are_freed(void)
{
	struct roads *roads = begin();
	take(roads, MANY);
	give_back(roads, MANY);
	roads_trim(roads); /* from here on it is watched */
	CU_ASSERT_EQUAL(memory.blocks, MANY * BLOCKS_OF_A_ROAD);
	take(roads, 40);
	give_back(roads, 40);
	take(roads, 10);
	give_back(roads, 10);
	roads_trim(roads);
	CU_ASSERT_EQUAL(memory.blocks, 40 * BLOCKS_OF_A_ROAD);
	roads_trim(roads); /* and nobody came at all */
	CU_ASSERT_EQUAL(memory.blocks, 0);
	roads_trim(roads);
	take(roads, 1);
	CU_ASSERT_EQUAL(memory.blocks, BLOCKS_OF_A_ROAD);
	give_back(roads, 1);
	end(roads);
}

static void those_under_way_are_never_freed(void)
{
	struct roads *roads = begin();
	take(roads, 20);
	roads_trim(roads);
	roads_trim(roads);
	CU_ASSERT_EQUAL(memory.blocks, 20 * BLOCKS_OF_A_ROAD);
	for (unsigned i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(taken[i]->max_header_bytes, 4096);
	give_back(roads, 20);
	end(roads);
}

static void without_memory_there_is_no_road_and_nothing_is_lost(void)
{
	struct roads *roads = begin();
	memory.is_out = true;
	CU_ASSERT_PTR_NULL(roads_take(roads, &seat));
	memory.is_out = false;
	take(roads, 1);
	give_back(roads, 1);
	end(roads);
}

static void after_a_change_of_settings_a_free_road_takes_the_new_ones(void)
{
	struct roads *roads = begin();
	take(roads, 1);
	give_back(roads, 1);
	in_force.max_header_bytes = 8192;
	atomic_fetch_add(&proxy.settings_generation, 1);
	take(roads, 1);
	CU_ASSERT_EQUAL(taken[0]->max_header_bytes, 8192);
	CU_ASSERT_EQUAL(settings_held, 1);
	give_back(roads, 1);
	end(roads);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(the_road_given_back_last_is_taken_next),
		TEST(as_many_as_were_needed_at_once_stay_and_none_is_made_again),
		TEST(more_than_are_of_use_are_not_kept_until_somebody_looks),
		TEST(those_that_nobody_needed_for_a_while_are_freed),
		TEST(those_under_way_are_never_freed),
		TEST(without_memory_there_is_no_road_and_nothing_is_lost),
		TEST(after_a_change_of_settings_a_free_road_takes_the_new_ones),
	};
	return unit_main("roads", tests, sizeof tests / sizeof tests[0]);
}
