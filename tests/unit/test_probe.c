/* Tests of lib/probe.c: one target, probed when the caller says so, by a connect or by a GET. What it answers is fixed
 * by a thread of the test that takes one connection. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/listener.h"
#include "lib/probe.h"
#include "unit.h"

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned due, done; /* probes that are to be made; that were */
	bool was_good;
	char why[200];
	struct probe_job job;
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
	}
	pthread_mutex_unlock(&seen.mutex);
	*wake_us = CLOCK_NEVER;
	return due;
}

static void has_ended(void *context, const struct probe_job *job, bool good, const char *why)
{
	(void)context;
	(void)job;
	pthread_mutex_lock(&seen.mutex);
	seen.done++;
	seen.was_good = good;
	snprintf(seen.why, sizeof seen.why, "%s", why);
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.mutex);
}

static void begin(void)
{
	static const struct probe_caller caller = { .due = is_due, .done = has_ended };
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

static void order(const char *path, uint64_t timeout_us)
{
	pthread_mutex_lock(&seen.mutex);
	seen.job = (struct probe_job){ .upstream = upstream, .timeout_us = timeout_us };
	snprintf(seen.job.path, sizeof seen.job.path, "%s", path);
	seen.due = 1;
	pthread_mutex_unlock(&seen.mutex);
	prober_kick(prober);
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

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_connect_is_enough_without_a_path),
		TEST(a_path_must_answer_2xx_or_3xx),
		TEST(the_longest_path_is_asked_for_in_full),
		TEST(a_target_that_hangs_is_given_up_at_the_deadline),
		TEST(stopping_does_not_wait_for_a_target_that_hangs),
	};
	return unit_main("probe", tests, sizeof tests / sizeof tests[0]);
}
