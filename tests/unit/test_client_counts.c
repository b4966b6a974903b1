/* test_client_counts.c: connections of each client, counted exactly. */
#include "lib/client_counts.h"

#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdatomic.h>

#include "unit.h"

static void a_client_may_have_as_many_connections_as_its_cap_and_no_more(void)
{
	struct client_counts *counts = client_counts_create();
	CU_ASSERT(client_counts_enter(counts, 7, 2));
	CU_ASSERT(client_counts_enter(counts, 7, 2));
	CU_ASSERT_FALSE(client_counts_enter(counts, 7, 2));
	client_counts_leave(counts, 7);
	CU_ASSERT(client_counts_enter(counts, 7, 2));
	client_counts_leave(counts, 7);
	client_counts_leave(counts, 7);
	client_counts_destroy(counts);
}

static void clients_are_counted_apart(void)
{
	struct client_counts *counts = client_counts_create();
	for (uint64_t client = 0; client < 20000; client++)
		CU_ASSERT_FATAL(client_counts_enter(counts, client, 1));
	for (uint64_t client = 0; client < 20000; client++)
		CU_ASSERT_FALSE_FATAL(client_counts_enter(counts, client, 1));
	for (uint64_t client = 0; client < 20000; client++)
		client_counts_leave(counts, client);
	for (uint64_t client = 0; client < 20000; client++)
		CU_ASSERT_FATAL(client_counts_enter(counts, client, 1));
	client_counts_destroy(counts); /* what is left is freed: the leak checker watches */
}

static void a_lowered_cap_counts_those_that_are_there(void)
{
	struct client_counts *counts = client_counts_create();
	for (int i = 0; i < 5; i++)
		CU_ASSERT(client_counts_enter(counts, 1, 10));
	CU_ASSERT_FALSE(client_counts_enter(counts, 1, 5));
	client_counts_leave(counts, 1);
	CU_ASSERT(client_counts_enter(counts, 1, 5));
	client_counts_destroy(counts);
}

struct crowd {
	struct client_counts *counts;
	atomic_uint inside, worst;
};

static void *come_and_go(void *argument)
{
	struct crowd *crowd = argument;
	for (int i = 0; i < 20000; i++) {
		if (!client_counts_enter(crowd->counts, 42, 3))
			continue;
		unsigned now = atomic_fetch_add(&crowd->inside, 1) + 1, worst = atomic_load(&crowd->worst);
		while (now > worst && !atomic_compare_exchange_weak(&crowd->worst, &worst, now))
			;
		atomic_fetch_sub(&crowd->inside, 1);
		client_counts_leave(crowd->counts, 42);
	}
	return NULL;
}

static void many_threads_never_pass_a_cap_together(void)
{
	struct crowd crowd = { .counts = client_counts_create() };
	pthread_t threads[8];
	for (int i = 0; i < 8; i++)
		CU_ASSERT_FATAL(pthread_create(&threads[i], NULL, come_and_go, &crowd) == 0);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT(atomic_load(&crowd.worst) >= 1 && atomic_load(&crowd.worst) <= 3);
	for (int i = 0; i < 3; i++)
		CU_ASSERT(client_counts_enter(crowd.counts, 42, 3)); /* all have left */
	client_counts_destroy(crowd.counts);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_client_may_have_as_many_connections_as_its_cap_and_no_more),
		TEST(clients_are_counted_apart),
		TEST(a_lowered_cap_counts_those_that_are_there),
		TEST(many_threads_never_pass_a_cap_together),
	};
	return unit_main("client_counts", tests, sizeof tests / sizeof tests[0]);
}
