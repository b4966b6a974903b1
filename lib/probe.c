/* probe.c: see probe.h.
 *
 * Probes under way are kept in a list, with their sockets attached to a `struct cut`, so that stopping does not wait for a target
 * that hangs. The number of probes at once is bounded: with a thousand targets out, a thousand threads would help nobody.
 */
#include "probe.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "http.h"
#include "thread.h"

#define PROBES_AT_ONCE 32
#define ANSWER_HEAD_MAX 8192

struct prober {
	struct probe_caller caller;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool kicked GUARDED_BY(probe_mutex);
	bool stopping GUARDED_BY(probe_mutex);
	unsigned under_way GUARDED_BY(probe_mutex);
	struct run *runs GUARDED_BY(probe_mutex);
	struct thread_end last_end GUARDED_BY(probe_mutex);
};

/* One probe under way. */
struct run {
	struct prober *prober;
	struct run *next, *previous;
	struct probe_job job;
	struct cut cut;
};

LOCK_VERBS(prober, mutex, probe_mutex)

/* GET path: is the status 2xx or 3xx? */
static bool ask(struct conn *conn, const struct probe_job *job, uint64_t deadline_us, const char **why)
{
	char request[PROBE_PATH_MAX + 512];
	int length = snprintf(request, sizeof request,
	                      "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: weir-probe\r\nConnection: close\r\n\r\n", job->path,
	                      upstream_host(job->upstream));
	struct iovec part = { .iov_base = request, .iov_len = (size_t)length };
	*why = "the probe's request was not taken";
	if (length >= (int)sizeof request || conn_send(conn, &part, 1, deadline_us, NULL) != CONN_OK)
		return false;

	struct http_scan scan = { .is_response = true };
	struct http_head head;
	size_t head_length;
	enum http_scan_result result;
	*why = "no answer to the probe";
	while ((result = http_scan(&scan, conn_bytes(conn), conn_available(conn), &head_length)) == HTTP_SCAN_MORE)
		if (conn_fill(conn, deadline_us) != CONN_OK)
			return false;
	*why = "a malformed answer to the probe";
	if (result == HTTP_SCAN_BAD ||
	    http_parse_response(conn_bytes(conn) + scan.skipped, head_length, HTTP_GET, &head).status != 0)
		return false;
	*why = "the probe was answered with a status other than 2xx or 3xx";
	return head.status >= 200 && head.status < 400;
}

/* What OpenSSL knows is more than that something went wrong. */
static void say_why(const struct conn *conn, const char *otherwise, char why[UPSTREAM_WHY_MAX])
{
	snprintf(why, UPSTREAM_WHY_MAX, "%s", conn_why(conn)[0] != '\0' ? conn_why(conn) : otherwise);
}

static bool try_target(struct run *run, char why[UPSTREAM_WHY_MAX])
{
	char buffer[ANSWER_HEAD_MAX];
	struct conn conn;
	bool reused;
	uint64_t deadline_us = clock_us() + run->job.timeout_us;
	conn_init(&conn, -1, buffer, sizeof buffer);
	/* A lease changes the pool of idle connections only when it takes one, and a fresh one is asked for. */
	struct upstream *upstream = (struct upstream *)(uintptr_t)run->job.upstream;
	bool speaks = run->job.path[0] != '\0' || run->job.tls != NULL;
	struct upstream_wish wish = { .connect_timeout_us = run->job.timeout_us,
		                      .tls = run->job.tls,
		                      .preface = run->job.preface,
		                      .preface_bytes = speaks ? run->job.preface_bytes : 0 };
	const char *reason = "it refused the TLS handshake";
	if (upstream_lease(upstream, &conn, &run->cut, &wish, &reused, why) != CONN_OK)
		return false;
	bool good = run->job.path[0] != '\0' ? ask(&conn, &run->job, deadline_us, &reason) :
	                                       conn.tls == NULL || tls_part(conn.tls, deadline_us);
	if (!good)
		say_why(&conn, reason, why);
	upstream_discard(&conn, &run->cut);
	return good;
}

static void *probe(void *argument)
{
	struct run *run = argument;
	thread_name("weir:probe");
	struct prober *prober = run->prober;
	char why[UPSTREAM_WHY_MAX] = "";
	bool good = try_target(run, why);
	prober->caller.done(prober->caller.context, &run->job, good, why);
	tls_release(run->job.tls);

	prober_lock(prober);
	struct thread_end before = thread_note_end(&prober->last_end);
	prober_unlock(prober);
	thread_join_end(before);

	prober_lock(prober);
	if (run->next != NULL)
		run->next->previous = run->previous;
	if (run->previous != NULL)
		run->previous->next = run->next;
	else
		prober->runs = run->next;
	prober->under_way--;
	prober->kicked = true;
	pthread_cond_broadcast(&prober->changed);
	prober_unlock(prober);
	cut_destroy(&run->cut);
	free(run);
	return NULL;
}

/* Starts a thread for one probe. A probe that can't be started counts as one that failed: it is tried again when it is due. */
static void begin(struct prober *prober, const struct probe_job *job)
{
	struct run *run = calloc(1, sizeof *run);
	if (run != NULL) {
		run->prober = prober;
		run->job = *job;
		cut_init(&run->cut);
		prober_lock(prober);
		run->next = prober->runs;
		if (run->next != NULL)
			run->next->previous = run;
		prober->runs = run;
		prober->under_way++;
		prober_unlock(prober);
		pthread_t thread;
		if (thread_start(&thread, probe, run) == 0)
			return;
		prober_lock(prober);
		prober->runs = run->next;
		if (run->next != NULL)
			run->next->previous = NULL;
		prober->under_way--;
		prober_unlock(prober);
		cut_destroy(&run->cut);
		free(run);
	}
	prober->caller.done(prober->caller.context, job, false, "no memory or thread for the probe");
	tls_release(job->tls);
}

/* Sleeps until wake_us, a kick, or the end. While as many probes run as may, only an end of one matters. */
static void wait_until(struct prober *prober, uint64_t wake_us) REQUIRES(probe_mutex)
{
	if (wake_us == CLOCK_NEVER) {
		pthread_cond_wait(&prober->changed, &prober->mutex);
		return;
	}
	struct timespec wake = { .tv_sec = (time_t)(wake_us / US_PER_S), .tv_nsec = (long)(wake_us % US_PER_S) * 1000 };
	pthread_cond_timedwait(&prober->changed, &prober->mutex, &wake);
}

static void *run_prober(void *argument)
{
	struct prober *prober = argument;
	thread_name("weir:prober");
	prober_lock(prober);
	while (!prober->stopping) {
		uint64_t wake_us = CLOCK_NEVER;
		struct probe_job job;
		bool has_room = prober->under_way < PROBES_AT_ONCE;
		prober->kicked = false;
		prober_unlock(prober);
		bool is_due = has_room && prober->caller.due(prober->caller.context, clock_us(), &job, &wake_us);
		if (is_due)
			begin(prober, &job);
		prober_lock(prober);
		if (!is_due && !prober->kicked && !prober->stopping)
			wait_until(prober, wake_us);
	}
	for (struct run *run = prober->runs; run != NULL; run = run->next)
		cut_now(&run->cut);
	while (prober->under_way > 0)
		pthread_cond_wait(&prober->changed, &prober->mutex);
	struct thread_end last = prober->last_end;
	prober_unlock(prober);
	thread_join_end(last);
	return NULL;
}

struct prober *prober_start(const struct probe_caller *caller)
{
	struct prober *prober = calloc(1, sizeof *prober);
	if (prober == NULL)
		return NULL;
	prober->caller = *caller;
	pthread_mutex_init(&prober->mutex, NULL);
	thread_condition_init(&prober->changed);
	if (thread_start(&prober->thread, run_prober, prober) == 0)
		return prober;
	pthread_cond_destroy(&prober->changed);
	pthread_mutex_destroy(&prober->mutex);
	free(prober);
	return NULL;
}

void prober_kick(struct prober *prober)
{
	prober_lock(prober);
	prober->kicked = true;
	pthread_cond_broadcast(&prober->changed);
	prober_unlock(prober);
}

void prober_stop(struct prober *prober)
{
	if (prober == NULL)
		return;
	prober_lock(prober);
	prober->stopping = true;
	pthread_cond_broadcast(&prober->changed);
	prober_unlock(prober);
	pthread_join(prober->thread, NULL);
	pthread_cond_destroy(&prober->changed);
	pthread_mutex_destroy(&prober->mutex);
	free(prober);
}
