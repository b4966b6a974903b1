/* Tests of lib/lookup.c against a name service of our own: this program's getaddrinfo() stands before the C library's. It knows
 * numbers at once; for names it answers, fails, or hangs until it is let go, as the test says. */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/lookup.h"
#include "lib/thread.h"
#include "unit.h"

#define LONG_US (20 * US_PER_S)

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool hangs;
	unsigned addresses, asked;
} names = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static struct addrinfo *make_info(const char *host, const char *service)
{
	struct addrinfo *info = calloc(1, sizeof *info + sizeof(struct sockaddr_in));
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)(info + 1);
	v4->sin_family = AF_INET;
	v4->sin_port = htons((uint16_t)atoi(service));
	inet_pton(AF_INET, host, &v4->sin_addr);
	info->ai_addr = (struct sockaddr *)(void *)v4;
	info->ai_addrlen = sizeof *v4;
	return info;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	struct in_addr number;
	*result = NULL;
	if (inet_pton(AF_INET, node, &number) == 1) {
		*result = make_info(node, service);
		return 0;
	}
	if (hints->ai_flags & AI_NUMERICHOST)
		return EAI_NONAME;
	pthread_mutex_lock(&names.mutex);
	names.asked++;
	pthread_cond_broadcast(&names.changed);
	while (names.hangs)
		pthread_cond_wait(&names.changed, &names.mutex);
	for (unsigned i = 0; i < names.addresses; i++) {
		char host[32];
		snprintf(host, sizeof host, "192.0.2.%u", i % 250);
		struct addrinfo *info = make_info(host, service);
		info->ai_next = *result;
		*result = info;
	}
	pthread_mutex_unlock(&names.mutex);
	return *result == NULL ? EAI_AGAIN : 0;
}

void freeaddrinfo(struct addrinfo *info)
{
	while (info != NULL) {
		struct addrinfo *next = info->ai_next;
		free(info);
		info = next;
	}
}

static void set(bool hangs, unsigned addresses)
{
	pthread_mutex_lock(&names.mutex);
	names.hangs = hangs;
	names.addresses = addresses;
	pthread_cond_broadcast(&names.changed);
	pthread_mutex_unlock(&names.mutex);
}

/* Each asks as somebody else. */
static enum lookup_result ask_within(struct lookups *lookups, const char *host, uint64_t us, struct lookup_answer *answer)
{
	static unsigned askers;
	char asker[16];
	snprintf(asker, sizeof asker, "%u", ++askers);
	return lookup(lookups, asker, host, 8080, clock_us() + us, answer);
}

/* Lets those that hang go, and waits until they have ended. */
static void let_go(struct lookups *lookups)
{
	set(false, 1);
	while (lookups_under_way(lookups) > 0)
		sched_yield();
}

static void a_number_is_answered_at_once_even_while_the_name_service_hangs(void)
{
	struct lookups *lookups = lookups_create(1);
	struct lookup_answer answer;
	set(true, 1);
	CU_ASSERT_EQUAL(lookup(lookups, "me", "127.0.0.1", 81, 0, &answer), LOOKUP_FOUND);
	CU_ASSERT_EQUAL(answer.count, 1);
	CU_ASSERT_EQUAL(address_port(&answer.addresses[0]), 81);
	CU_ASSERT_EQUAL(lookups_under_way(lookups), 0);
	lookups_destroy(lookups);
}

static void a_name_has_all_its_addresses_up_to_a_bound(void)
{
	struct lookups *lookups = lookups_create(4);
	struct lookup_answer answer;
	set(false, 3);
	CU_ASSERT_EQUAL(ask_within(lookups, "three.test", LONG_US, &answer), LOOKUP_FOUND);
	CU_ASSERT_EQUAL(answer.count, 3);
	CU_ASSERT_EQUAL(address_port(&answer.addresses[2]), 8080);
	set(false, 200);
	CU_ASSERT_EQUAL(ask_within(lookups, "many.test", LONG_US, &answer), LOOKUP_FOUND);
	CU_ASSERT_EQUAL(answer.count, LOOKUP_ADDRESSES_MAX);
	lookups_destroy(lookups);
}

static void a_name_that_is_unknown_says_why(void)
{
	struct lookups *lookups = lookups_create(4);
	struct lookup_answer answer;
	set(false, 0);
	CU_ASSERT_EQUAL(ask_within(lookups, "no.test", LONG_US, &answer), LOOKUP_UNKNOWN);
	CU_ASSERT_EQUAL(answer.error, EAI_AGAIN);
	lookups_destroy(lookups);
}

static void one_that_hangs_is_left_behind_at_the_deadline(void)
{
	struct lookups *lookups = lookups_create(4);
	struct lookup_answer answer;
	set(true, 1);
	CU_ASSERT_EQUAL(ask_within(lookups, "hangs.test", 5 * US_PER_MS, &answer), LOOKUP_LATE);
	CU_ASSERT_EQUAL(lookups_under_way(lookups), 1);
	let_go(lookups);
	CU_ASSERT_EQUAL(ask_within(lookups, "works.test", LONG_US, &answer), LOOKUP_FOUND);
	lookups_destroy(lookups);
}

static void no_more_than_so_many_are_under_way(void)
{
	struct lookups *lookups = lookups_create(2);
	struct lookup_answer answer;
	set(true, 1);
	unsigned before = names.asked;
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(ask_within(lookups, "hangs.test", 5 * US_PER_MS, &answer), LOOKUP_LATE);
	pthread_mutex_lock(&names.mutex);
	while (names.asked < before + 2)
		pthread_cond_wait(&names.changed, &names.mutex);
	CU_ASSERT_EQUAL(names.asked, before + 2);
	pthread_mutex_unlock(&names.mutex);
	CU_ASSERT_EQUAL(lookups_under_way(lookups), 2);
	let_go(lookups);
	lookups_destroy(lookups);
}

static void one_asker_has_a_quarter_of_them_and_no_more(void)
{
	struct lookups *lookups = lookups_create(8);
	struct lookup_answer answer;
	set(true, 1);
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(lookup(lookups, "greedy", "hangs.test", 80, clock_us() + 5 * US_PER_MS, &answer), LOOKUP_LATE);
	CU_ASSERT_EQUAL(lookups_under_way(lookups), 2);
	CU_ASSERT_EQUAL(ask_within(lookups, "hangs.test", 5 * US_PER_MS, &answer), LOOKUP_LATE);
	CU_ASSERT_EQUAL(lookups_under_way(lookups), 3);
	let_go(lookups);
	CU_ASSERT_EQUAL(lookup(lookups, "greedy", "works.test", 80, clock_us() + LONG_US, &answer), LOOKUP_FOUND);
	lookups_destroy(lookups);
}

static void *release_soon(void *argument)
{
	(void)argument;
	pthread_mutex_lock(&names.mutex);
	while (names.asked == 0)
		pthread_cond_wait(&names.changed, &names.mutex);
	pthread_mutex_unlock(&names.mutex);
	set(false, 1);
	return NULL;
}

static void who_finds_no_room_is_served_when_there_is_some(void)
{
	struct lookups *lookups = lookups_create(1);
	struct lookup_answer answer;
	pthread_t releaser;
	set(true, 1);
	names.asked = 0;
	CU_ASSERT_EQUAL(ask_within(lookups, "hangs.test", 5 * US_PER_MS, &answer), LOOKUP_LATE);
	CU_ASSERT_EQUAL_FATAL(thread_start(&releaser, release_soon, NULL), 0);
	CU_ASSERT_EQUAL(ask_within(lookups, "waits.test", LONG_US, &answer), LOOKUP_FOUND);
	pthread_join(releaser, NULL);
	let_go(lookups);
	lookups_destroy(lookups);
}

static void *abandon_soon(void *argument)
{
	pthread_mutex_lock(&names.mutex);
	while (names.asked == 0)
		pthread_cond_wait(&names.changed, &names.mutex);
	pthread_mutex_unlock(&names.mutex);
	lookups_abandon(argument);
	return NULL;
}

static void those_that_are_abandoned_wait_no_longer(void)
{
	struct lookups *lookups = lookups_create(2);
	struct lookup_answer answer;
	pthread_t other;
	set(true, 1);
	names.asked = 0;
	CU_ASSERT_EQUAL_FATAL(thread_start(&other, abandon_soon, lookups), 0);
	uint64_t begun_us = clock_us();
	CU_ASSERT_EQUAL(ask_within(lookups, "hangs.test", LONG_US, &answer), LOOKUP_LATE);
	pthread_join(other, NULL);
	CU_ASSERT_EQUAL(ask_within(lookups, "later.test", LONG_US, &answer), LOOKUP_LATE);
	CU_ASSERT_TRUE(clock_us() - begun_us < LONG_US / 2);
	CU_ASSERT_EQUAL(names.asked, 1); /* the later one was not even asked for */
	let_go(lookups);
	lookups_destroy(lookups);
}

static void they_may_be_destroyed_while_one_hangs(void)
{
	struct lookups *lookups = lookups_create(1);
	struct lookup_answer answer;
	set(true, 1);
	CU_ASSERT_EQUAL(ask_within(lookups, "hangs.test", 5 * US_PER_MS, &answer), LOOKUP_LATE);
	lookups_destroy(lookups);
	set(false, 1); /* what is left is freed by the thread that ends: the sanitizers look */
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_number_is_answered_at_once_even_while_the_name_service_hangs),
		TEST(a_name_has_all_its_addresses_up_to_a_bound),
		TEST(a_name_that_is_unknown_says_why),
		TEST(one_that_hangs_is_left_behind_at_the_deadline),
		TEST(no_more_than_so_many_are_under_way),
		TEST(one_asker_has_a_quarter_of_them_and_no_more),
		TEST(who_finds_no_room_is_served_when_there_is_some),
		TEST(those_that_are_abandoned_wait_no_longer),
		TEST(they_may_be_destroyed_while_one_hangs),
	};
	return unit_main("lookup", tests, sizeof tests / sizeof tests[0]);
}
