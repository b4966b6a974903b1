/* test_schedule.c: the labs' scheduler (labs/schedule.h): a seed is an order of events; a race is found; who cannot go
 * on is told.
 *
 * The code under test here is broken on purpose, and beside each stands its repaired twin. What is broken must go wrong
 * with some seed, the twin with none of the same seeds.
 */
#include "labs/schedule.c"

/* It has these for itself as plain accesses. */
#undef READ
#undef WRITE
#define READ(x) schedule_read(&(x), #x)
#define WRITE(x, value) schedule_write(&(x), (value), #x)

#include "unit.h"

#define SEEDS 300u

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, other = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* What the threads of a test share. */
struct shared {
	unsigned count, ready;
	bool is_repaired;
};

static void lock(pthread_mutex_t *m)
{
	schedule_lock(m, "mutex");
}

static void unlock(pthread_mutex_t *m)
{
	schedule_unlock(m, "mutex");
}

static void run_two(void *(*first)(void *), void *(*second)(void *), void *context)
{
	pthread_t a, b;

	schedule_create(&a, first, context);
	schedule_create(&b, second, context);
	schedule_join(a, NULL);
	schedule_join(b, NULL);
}

static void *count_one(void *context)
{
	struct shared *shared = context;

	if (shared->is_repaired)
		lock(&mutex);
	WRITE(shared->count, READ(shared->count) + 1);
	if (shared->is_repaired)
		unlock(&mutex);
	return NULL;
}

static void count_two(void *context)
{
	run_two(count_one, count_one, context);
}

/* The signal may come between the question and the sleep. */
static void *wait_until_ready(void *context)
{
	struct shared *shared = context;

	lock(&mutex);
	while (READ(shared->ready) == 0) {
		if (!shared->is_repaired) {
			unlock(&mutex);
			lock(&mutex);
		}
		schedule_wait(&changed, &mutex, "changed", "mutex");
	}
	unlock(&mutex);
	return NULL;
}

static void *make_ready(void *context)
{
	struct shared *shared = context;

	lock(&mutex);
	WRITE(shared->ready, 1);
	schedule_wake(&changed, false, "changed");
	unlock(&mutex);
	return NULL;
}

static void wait_and_make_ready(void *context)
{
	run_two(wait_until_ready, make_ready, context);
}

static void *lock_both(void *context)
{
	(void)context;
	lock(&mutex);
	lock(&other);
	unlock(&other);
	unlock(&mutex);
	return NULL;
}

static void *lock_both_the_other_way(void *context)
{
	(void)context;
	lock(&other);
	lock(&mutex);
	unlock(&mutex);
	unlock(&other);
	return NULL;
}

static void lock_both_in_two_orders(void *context)
{
	run_two(lock_both, ((struct shared *)context)->is_repaired ? lock_both : lock_both_the_other_way, context);
}

/* How many of the seeds end well, and how many with a sum of 2. */
static unsigned count_good(void (*body)(void *), bool is_repaired, bool sum_matters, enum schedule_end *bad_end)
{
	unsigned good = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct shared shared = { .is_repaired = is_repaired };
		struct schedule *s = schedule_run(seed, body, &shared);

		CU_ASSERT_PTR_NOT_NULL_FATAL(s);
		if (schedule_ended(s) == SCHEDULE_WELL)
			good += !sum_matters || shared.count == 2;
		else
			*bad_end = schedule_ended(s);
		schedule_free(s);
	}
	return good;
}

static void a_seed_gives_the_same_picture_each_time_and_another_seed_another(void)
{
	unsigned different = 0;
	static char before[PICTURE_MAX];

	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct shared one = { .count = 0 }, two = { .count = 0 };
		struct schedule *a = schedule_run(seed, count_two, &one), *b = schedule_run(seed, count_two, &two);

		CU_ASSERT_FATAL(a != NULL && b != NULL);
		CU_ASSERT_STRING_EQUAL(schedule_picture(a), schedule_picture(b));
		CU_ASSERT_EQUAL(one.count, two.count);
		different += strcmp(before, schedule_picture(a)) != 0;
		snprintf(before, sizeof before, "%s", schedule_picture(a));
		schedule_free(a);
		schedule_free(b);
	}
	CU_ASSERT(different > 5);
}

static void a_lost_update_is_found_and_its_repaired_twin_passes(void)
{
	enum schedule_end end = SCHEDULE_WELL;

	CU_ASSERT(count_good(count_two, false, true, &end) < SEEDS);
	CU_ASSERT_EQUAL(count_good(count_two, true, true, &end), SEEDS);
	CU_ASSERT_EQUAL(end, SCHEDULE_WELL);
}

static void a_lost_wake_up_is_found_and_its_repaired_twin_passes(void)
{
	enum schedule_end end = SCHEDULE_WELL;

	CU_ASSERT(count_good(wait_and_make_ready, false, false, &end) < SEEDS);
	CU_ASSERT_EQUAL(end, SCHEDULE_DEADLOCK);
	CU_ASSERT_EQUAL(count_good(wait_and_make_ready, true, false, &end), SEEDS);
}

static void locks_in_two_orders_are_found_and_in_one_order_pass(void)
{
	enum schedule_end end = SCHEDULE_WELL;

	CU_ASSERT(count_good(lock_both_in_two_orders, false, false, &end) < SEEDS);
	CU_ASSERT_EQUAL(end, SCHEDULE_DEADLOCK);
	CU_ASSERT_EQUAL(count_good(lock_both_in_two_orders, true, false, &end), SEEDS);
}

static void lock_twice(void *context)
{
	(void)context;
	lock(&mutex);
	lock(&mutex);
}

static void unlock_what_is_free(void *context)
{
	(void)context;
	unlock(&mutex);
}

static void go_round(void *context)
{
	struct shared *shared = context;

	for (;;)
		WRITE(shared->count, 1);
}

/* Ends a run that must not end well, and gives back why. */
static void check_bad(void (*body)(void *), enum schedule_end end, const char *why)
{
	struct shared shared = { .count = 0 };
	struct schedule *s = schedule_run(1, body, &shared);

	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	CU_ASSERT_EQUAL(schedule_ended(s), end);
	CU_ASSERT_PTR_NOT_NULL(strstr(schedule_why(s), why));
	schedule_free(s);
}

static void misuse_and_what_never_ends_are_told(void)
{
	check_bad(lock_twice, SCHEDULE_MISUSE, "main waits for itself: it has already mutex");
	check_bad(unlock_what_is_free, SCHEDULE_MISUSE, "main gives back what it has not: mutex");
	check_bad(go_round, SCHEDULE_ENDLESS, "2000 steps, and no end");
}

static void create_too_many(void *context)
{
	pthread_t threads[SCHEDULE_THREADS_MAX];
	unsigned *created = context;
	struct shared shared = { .is_repaired = true };

	while (*created < SCHEDULE_THREADS_MAX && schedule_create(&threads[*created], count_one, &shared) == 0)
		++*created;
	for (unsigned i = 0; i < *created; i++)
		schedule_join(threads[i], NULL);
}

static void one_thread_too_many_is_refused(void)
{
	unsigned created = 0;
	struct schedule *s = schedule_run(1, create_too_many, &created);

	CU_ASSERT_PTR_NOT_NULL_FATAL(s);
	CU_ASSERT_EQUAL(schedule_ended(s), SCHEDULE_WELL);
	CU_ASSERT_EQUAL(created, SCHEDULE_THREADS_MAX - 1); /* one is main */
	schedule_free(s);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_seed_gives_the_same_picture_each_time_and_another_seed_another),
		TEST(a_lost_update_is_found_and_its_repaired_twin_passes),
		TEST(a_lost_wake_up_is_found_and_its_repaired_twin_passes),
		TEST(locks_in_two_orders_are_found_and_in_one_order_pass),
		TEST(misuse_and_what_never_ends_are_told),
		TEST(one_thread_too_many_is_refused),
	};
	return unit_main("schedule", tests, sizeof tests / sizeof tests[0]);
}
