/* Tests of lib/probe.c: one target, probed when the caller says so, by a connect or by a GET. What it answers is fixed
 * by a thread of the test that takes one connection.
 *
 * probe.c is compiled here once more with memory and threads that are lacking when the test says so. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/thread.h"

static struct {
	atomic_bool memory, threads;
} lack;

static void *scarce_calloc(size_t count, size_t size)
{
	return atomic_load(&lack.memory) ? NULL : calloc(count, size);
}

static int scarce_thread_start(pthread_t *thread, void *(*body)(void *), void *argument)
{
	return atomic_load(&lack.threads) ? EAGAIN : thread_start(thread, body, argument);
}

#define calloc scarce_calloc
#define thread_start scarce_thread_start
#define begin begin_probe
#define probe probe_body
#include "lib/probe.c"
#undef calloc
#undef thread_start
#undef begin
#undef probe

#include "lib/listener.h"
#include "unit.h"

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned due, done; /* probes that are to be made; that were */
	bool was_good;
	char why[200];
	struct probe_job job;
	bool keeps_something; /* of each thread that probes, until after its end */
	pthread_key_t key;
	atomic_uint kept, forgotten;
} seen = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static int listener;
static struct upstreams *all;
static struct upstream *upstream;
static struct prober *prober;
static const char *answer; /* NULL: none, and the connection stays open */
static char asked[4096];

static bool is_due(void *context, uint64_t now_us, struct probe_job *job, uint64_t *wake_us)
{
	(void)context;
	(void)now_us;
	pthread_mutex_lock(&seen.mutex);
	bool due = seen.due > 0;
	if (due) {
		seen.due--;
		*job = seen.job;
		pthread_cond_broadcast(&seen.changed);
	}
	pthread_mutex_unlock(&seen.mutex);
	*wake_us = CLOCK_NEVER;
	return due;
}

static void has_ended(void *context, const struct probe_job *job, bool good, const char *why)
{
	(void)context;
	(void)job;
	if (seen.keeps_something && pthread_setspecific(seen.key, &seen) == 0)
		atomic_fetch_add(&seen.kept, 1);
	pthread_mutex_lock(&seen.mutex);
	seen.done++;
	seen.was_good = good;
	snprintf(seen.why, sizeof seen.why, "%s", why);
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.mutex);
}

/* As OpenSSL does: what a library keeps for each thread goes when the thread does, after weir's last line in it. */
static void forget(void *kept)
{
	(void)kept;
	poll(NULL, 0, 50);
	atomic_fetch_add(&seen.forgotten, 1);
}

static const struct probe_caller caller = { .due = is_due, .done = has_ended };

static void begin(void)
{
	struct address address;
	char error[200];
	listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	all = upstreams_create();
	upstream = upstream_create(all, "target:80", &address);
	CU_ASSERT_PTR_NOT_NULL_FATAL(upstream);
	seen.done = 0;
	prober = prober_start(&caller);
	CU_ASSERT_PTR_NOT_NULL_FATAL(prober);
}

static void end(void)
{
	prober_stop(prober);
	upstream_destroy(upstream);
	upstreams_destroy(all);
	close(listener);
}

static void order_many(const char *path, uint64_t timeout_us, unsigned count)
{
	pthread_mutex_lock(&seen.mutex);
	seen.job = (struct probe_job){ .upstream = upstream, .timeout_us = timeout_us };
	snprintf(seen.job.path, sizeof seen.job.path, "%s", path);
	seen.due = count;
	pthread_mutex_unlock(&seen.mutex);
	prober_kick(prober);
}

static void order(const char *path, uint64_t timeout_us)
{
	order_many(path, timeout_us, 1);
}

/* Waits until it is so many. unit.c ends a test that hangs here. */
static void await(const unsigned *count, unsigned wanted)
{
	pthread_mutex_lock(&seen.mutex);
	while (*count != wanted)
		pthread_cond_wait(&seen.changed, &seen.mutex);
	pthread_mutex_unlock(&seen.mutex);
}

static bool probe(const char *path, uint64_t timeout_us)
{
	unsigned before = seen.done;
	order(path, timeout_us);
	pthread_mutex_lock(&seen.mutex);
	while (seen.done == before)
		pthread_cond_wait(&seen.changed, &seen.mutex);
	bool good = seen.was_good;
	pthread_mutex_unlock(&seen.mutex);
	return good;
}

static void *answer_one(void *unused)
{
	int fd = accept(listener, NULL, NULL);
	ssize_t length = recv(fd, asked, sizeof asked - 1, 0);
	(void)unused;
	asked[length > 0 ? length : 0] = '\0';
	if (answer != NULL)
		send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	else
		while (recv(fd, asked, sizeof asked, 0) > 0) /* until it is given up */
			;
	close(fd);
	return NULL;
}

static bool probe_answered_with(const char *path, const char *text, uint64_t timeout_us)
{
	pthread_t target;
	answer = text;
	CU_ASSERT_EQUAL_FATAL(pthread_create(&target, NULL, answer_one, NULL), 0);
	bool good = probe(path, timeout_us);
	pthread_join(target, NULL);
	return good;
}

static void a_connect_is_enough_without_a_path(void)
{
	begin();
	CU_ASSERT_TRUE(probe("", US_PER_S));
	listener_retire(listener);
	CU_ASSERT_FALSE(probe("", US_PER_S));
	CU_ASSERT_STRING_EQUAL(seen.why, "Connection refused");
	end();
}

static void a_path_must_answer_2xx_or_3xx(void)
{
	static const struct {
		const char *answer;
		bool good;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true },
		{ "HTTP/1.1 204 No\r\n\r\n", true },
		{ "HTTP/1.0 302 Found\r\n\r\n", true },
		{ "HTTP/1.1 404 Not Found\r\n\r\n", false },
		{ "HTTP/1.1 503 Busy\r\n\r\n", false },
		{ "SSH-2.0-OpenSSH\r\n", false },
		{ "HTTP/1.1 200 OK\r\nContent-Le", false },
		{ "", false },
	};
	begin();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		CU_ASSERT_EQUAL(probe_answered_with("/health?x=1", rows[i].answer, 5 * US_PER_S), rows[i].good);
	CU_ASSERT_EQUAL(strncmp(asked, "GET /health?x=1 HTTP/1.1\r\nHost: target:80\r\n", 43), 0);
	end();
}

static void the_longest_path_is_asked_for_in_full(void)
{
	char path[PROBE_PATH_MAX];
	memset(path, 'p', sizeof path);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	begin();
	CU_ASSERT_TRUE(probe_answered_with(path, "HTTP/1.1 200 OK\r\n\r\n", 5 * US_PER_S));
	CU_ASSERT_EQUAL(strncmp(asked + 4, path, strlen(path)), 0);
	CU_ASSERT_EQUAL(strncmp(asked + 4 + strlen(path), " HTTP/1.1\r\n", 11), 0);
	end();
}

static void a_target_that_hangs_is_given_up_at_the_deadline(void)
{
	begin();
	CU_ASSERT_FALSE(probe_answered_with("/health", NULL, 20 * US_PER_MS));
	CU_ASSERT_STRING_EQUAL(seen.why, "no answer to the probe");
	end();
}

static void stopping_does_not_wait_for_a_target_that_hangs(void)
{
	char request[200];
	begin();
	order("/health", 3600 * US_PER_S);
	int fd = accept(listener, NULL, NULL);
	CU_ASSERT_TRUE(recv(fd, request, sizeof request, 0) > 0); /* now it waits for an answer */
	end(); /* unit.c ends a test that hangs here */
	CU_ASSERT_EQUAL(recv(fd, request, sizeof request, 0), 0);
	CU_ASSERT_EQUAL(seen.done, 1);
	CU_ASSERT_FALSE(seen.was_good);
	close(fd);
}

/* A client of the test's own listener: a probe whose request has come. */
static int accept_asking(void)
{
	char request[200];
	int fd = accept(listener, NULL, NULL);
	CU_ASSERT_TRUE(recv(fd, request, sizeof request, 0) > 0);
	return fd;
}

static void so_many_probes_are_under_way_and_no_more_and_they_end_in_any_order(void)
{
	enum { ORDERED = PROBES_AT_ONCE + 8 };
	int fds[ORDERED];
	unsigned taken = 0;
	begin();
	order_many("/health", 3600 * US_PER_S, ORDERED);
	for (; taken < PROBES_AT_ONCE; taken++)
		fds[taken] = accept_asking();
	await(&seen.due, 8);
	/* One in the middle, the first and the last: each end lets one more begin. */
	static const unsigned ends[] = { PROBES_AT_ONCE / 2, 0, PROBES_AT_ONCE - 1 };
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(send(fds[ends[i]], "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL), 19);
		await(&seen.done, i + 1);
		fds[taken++] = accept_asking();
		await(&seen.due, 8 - (i + 1));
	}
	CU_ASSERT_TRUE(seen.was_good);
	end();
	CU_ASSERT_EQUAL(seen.done, taken); /* and those under way were given up, each by itself */
	CU_ASSERT_EQUAL(seen.due, ORDERED - taken);
	for (unsigned i = 0; i < taken; i++)
		close(fds[i]);
	seen.due = 0;
}

static void stopping_is_over_when_the_threads_of_all_probes_are_gone(void)
{
	int fds[4];
	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&seen.key, forget), 0);
	seen.keeps_something = true;
	begin();
	order_many("/health", 3600 * US_PER_S, 4);
	for (int i = 0; i < 4; i++)
		fds[i] = accept_asking();
	end();
	CU_ASSERT_EQUAL(atomic_load(&seen.kept), 4);
	CU_ASSERT_EQUAL(atomic_load(&seen.forgotten), 4);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	seen.keeps_something = false;
	pthread_key_delete(seen.key);
}

static void without_memory_or_a_thread_a_probe_fails_and_the_next_may_succeed(void)
{
	begin();
	/* Beside one that is under way. */
	order("/health", 3600 * US_PER_S);
	int hanging = accept_asking();
	for (unsigned i = 0; i < 2; i++) {
		atomic_store(i == 0 ? &lack.memory : &lack.threads, true);
		CU_ASSERT_FALSE(probe("", US_PER_S));
		CU_ASSERT_STRING_EQUAL(seen.why, "no memory or thread for the probe");
		atomic_store(i == 0 ? &lack.memory : &lack.threads, false);
		CU_ASSERT_TRUE(probe("", 10 * US_PER_S));
	}
	CU_ASSERT_EQUAL(seen.done, 4);
	CU_ASSERT_EQUAL(send(hanging, "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL), 19);
	await(&seen.done, 5);
	CU_ASSERT_TRUE(seen.was_good);
	close(hanging);
	end();
}

static void without_memory_or_a_thread_there_is_no_prober(void)
{
	atomic_store(&lack.memory, true);
	CU_ASSERT_PTR_NULL(prober_start(&caller));
	atomic_store(&lack.memory, false);
	atomic_store(&lack.threads, true);
	CU_ASSERT_PTR_NULL(prober_start(&caller));
	atomic_store(&lack.threads, false);
	prober_stop(NULL);
}

/* Half a request would be another request. */
static void a_request_that_does_not_fit_is_not_sent(void)
{
	char name[700], path[PROBE_PATH_MAX], byte;
	struct address address;
	begin();
	struct upstream *usual = upstream;
	memset(name, 'n', sizeof name);
	snprintf(name + 600, sizeof name - 600, ":80");
	memset(path, 'p', sizeof path);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	listener_address(listener, &address);
	upstream = upstream_create(all, name, &address);
	CU_ASSERT_PTR_NOT_NULL_FATAL(upstream);
	CU_ASSERT_FALSE(probe(path, 10 * US_PER_S));
	CU_ASSERT_STRING_EQUAL(seen.why, "the probe's request was not taken");
	int fd = accept(listener, NULL, NULL);
	CU_ASSERT_EQUAL(recv(fd, &byte, 1, 0), 0);
	close(fd);
	prober_stop(prober);
	prober = NULL;
	upstream_destroy(upstream);
	upstream = usual;
	end();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_connect_is_enough_without_a_path),
		TEST(a_path_must_answer_2xx_or_3xx),
		TEST(the_longest_path_is_asked_for_in_full),
		TEST(a_target_that_hangs_is_given_up_at_the_deadline),
		TEST(stopping_does_not_wait_for_a_target_that_hangs),
		TEST(so_many_probes_are_under_way_and_no_more_and_they_end_in_any_order),
		TEST(stopping_is_over_when_the_threads_of_all_probes_are_gone),
		TEST(without_memory_or_a_thread_a_probe_fails_and_the_next_may_succeed),
		TEST(without_memory_or_a_thread_there_is_no_prober),
		TEST(a_request_that_does_not_fit_is_not_sent),
	};
	return unit_main("probe", tests, sizeof tests / sizeof tests[0]);
}
