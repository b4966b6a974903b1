/* Tests of lib/resolver.c against a name service of our own: this program's getaddrinfo() stands before the C library's.
 * It answers, fails, or hangs until it is let go, as the test says. */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/resolver.h"
#include "unit.h"

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool hangs, fails;
	const char *address;
	unsigned asked, answered, told;
} names = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	(void)node;
	(void)hints;
	pthread_mutex_lock(&names.mutex);
	names.asked++;
	pthread_cond_broadcast(&names.changed);
	while (names.hangs)
		pthread_cond_wait(&names.changed, &names.mutex);
	struct addrinfo *info = names.fails ? NULL : calloc(1, sizeof *info + sizeof(struct sockaddr_in));
	if (info != NULL) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)(info + 1);
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(service));
		inet_pton(AF_INET, names.address, &v4->sin_addr);
		info->ai_addr = (struct sockaddr *)(void *)v4;
		info->ai_addrlen = sizeof *v4;
	}
	*result = info;
	names.answered++;
	pthread_cond_broadcast(&names.changed);
	pthread_mutex_unlock(&names.mutex);
	return info == NULL ? EAI_AGAIN : 0;
}

void freeaddrinfo(struct addrinfo *info)
{
	free(info);
}

static void set(bool hangs, bool fails, const char *address)
{
	pthread_mutex_lock(&names.mutex);
	names.hangs = hangs;
	names.fails = fails;
	names.address = address;
	pthread_cond_broadcast(&names.changed);
	pthread_mutex_unlock(&names.mutex);
}

static void changed(void *context)
{
	(void)context;
	pthread_mutex_lock(&names.mutex);
	names.told++;
	pthread_cond_broadcast(&names.changed);
	pthread_mutex_unlock(&names.mutex);
}

static unsigned wait_for(const unsigned *count, unsigned more_than)
{
	pthread_mutex_lock(&names.mutex);
	while (*count <= more_than)
		pthread_cond_wait(&names.changed, &names.mutex);
	unsigned now = *count;
	pthread_mutex_unlock(&names.mutex);
	return now;
}

/* How often something has happened so far. */
static unsigned so_far(const unsigned *count)
{
	pthread_mutex_lock(&names.mutex);
	unsigned happened = *count;
	pthread_mutex_unlock(&names.mutex);
	return happened;
}

static const struct resolver_question questions[] = {
	{ "192.0.2.1", 80, false }, { "name.example", 81, false }, { "/run/app", 0, true }
};

/* The answer to one question, as text; "" when it has no address. */
static const char *answer_to(struct resolver *resolver, size_t question)
{
	static char text[ADDRESS_TEXT_MAX];
	struct resolver_answer *answers;
	size_t count = resolver_take(resolver, &answers, NULL);
	strcpy(text, "none");
	for (size_t i = 0; i < count; i++) {
		if (answers[i].question != question)
			continue;
		text[0] = '\0';
		if (answers[i].has_address)
			address_text(&answers[i].address, text);
	}
	free(answers);
	return text;
}

static void addresses_and_paths_never_ask_the_name_service(void)
{
	const struct resolver_question known[] = { questions[0], questions[2] };
	unsigned before = so_far(&names.asked);
	set(true, false, "192.0.2.9");
	struct resolver *resolver = resolver_start(known, 2, 30 * US_PER_S, changed, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(resolver);
	CU_ASSERT_TRUE(resolver_wait_first(resolver, clock_us()));
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 0), "192.0.2.1:80");
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 1), "unix:/run/app");
	resolver_stop(resolver);
	CU_ASSERT_EQUAL(so_far(&names.asked), before);
	set(false, false, "192.0.2.9");
}

static void addresses_are_known_while_the_name_service_hangs(void)
{
	unsigned generation;
	struct resolver_answer *answers;
	unsigned told = so_far(&names.told), asked = so_far(&names.asked);
	set(true, false, "192.0.2.9");
	struct resolver *resolver = resolver_start(questions, 3, 30 * US_PER_S, changed, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(resolver);
	wait_for(&names.asked, asked);
	CU_ASSERT_FALSE(resolver_wait_first(resolver, clock_us()));
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 0), "192.0.2.1:80");
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 1), "");
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 2), "unix:/run/app");
	resolver_take(resolver, &answers, &generation);
	free(answers);
	CU_ASSERT_EQUAL(generation, RESOLVER_WITHOUT_NAMES);
	set(false, false, "192.0.2.9");
	wait_for(&names.told, told);
	CU_ASSERT_TRUE(resolver_wait_first(resolver, clock_us() + 5 * US_PER_S));
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 1), "192.0.2.9:81");
	resolver_stop(resolver);
}

static void a_kick_asks_again_and_a_failure_keeps_what_was_known(void)
{
	unsigned told = so_far(&names.told);
	set(false, false, "192.0.2.9");
	struct resolver *resolver = resolver_start(questions, 3, 3600 * US_PER_S, changed, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(resolver);
	told = wait_for(&names.told, told);
	set(false, true, NULL);
	resolver_kick(resolver);
	told = wait_for(&names.told, told);
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 1), "192.0.2.9:81");
	set(false, false, "192.0.2.10");
	resolver_kick(resolver);
	wait_for(&names.told, told);
	CU_ASSERT_STRING_EQUAL(answer_to(resolver, 1), "192.0.2.10:81");
	resolver_stop(resolver);
}

static void stopping_does_not_wait_for_a_name_service_that_hangs(void)
{
	unsigned asked = so_far(&names.asked), told = so_far(&names.told);
	set(true, false, "192.0.2.9");
	struct resolver *resolver = resolver_start(questions, 3, 30 * US_PER_S, changed, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(resolver);
	wait_for(&names.asked, asked);
	resolver_stop(resolver); /* returns, though the answer is still to come */
	unsigned answered = so_far(&names.answered);
	set(false, false, "192.0.2.9");
	wait_for(&names.answered, answered);
	CU_ASSERT_EQUAL(so_far(&names.told), told);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(addresses_and_paths_never_ask_the_name_service),
		TEST(addresses_are_known_while_the_name_service_hangs),
		TEST(a_kick_asks_again_and_a_failure_keeps_what_was_known),
		TEST(stopping_does_not_wait_for_a_name_service_that_hangs),
	};
	return unit_main("resolver", tests, sizeof tests / sizeof tests[0]);
}
