/* Tests of lib/splice.c by way of those who use it, lib/relay.c and lib/exchange.c: large bodies with a length, which
 * pass through a pipe inside the kernel, and every way in which that can end. (Tunnels are test_tunnel.c's.)
 *
 * The exchange runs on a thread of its own, over TCP; the test plays the client and the target. Whoever has read all
 * that was sent so far knows that the exchange waits for more, its pipe open: then is the time for something to
 * happen. */
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/exchange.h"
#include "lib/thread.h"
#include "unit.h"

#define BODY_BYTES (2u << 20)
#define ENDLESS_BYTES (64u << 20) /* more than the buffers of two connections and a pipe take */
#define FIRST_BYTES 100000u       /* what a connection takes although nobody reads; more than is copied before there is a pipe */
#define PATIENCE_US (30 * US_PER_S)
#define SHORT_US (100 * US_PER_MS)

static struct exchange x;
static struct splice_share pipes;
static struct cut cut;
static char client_buffer[48 * 1024], upstream_buffer[48 * 1024], head_buffer[8 * 1024];
static int client, target; /* the peers */
static enum exchange_result result;
static pthread_t runner;
static const struct rewrite_request how = { .via = "weir-1", .forwarded = REWRITE_OFF, .scheme = "http",
	                                    .target_host = { "t", 1 }, .keep_alive = true, .max_forwards = -1 };

/* ---- the stage ------------------------------------------------------------------------------------------------------ */

static void tcp_pair(int ends[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof at;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listener, 1), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(listener, (struct sockaddr *)&at, &length), 0);
	ends[1] = socket(AF_INET, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(connect(ends[1], (struct sockaddr *)&at, sizeof at), 0);
	ends[0] = accept(listener, NULL, NULL);
	CU_ASSERT_TRUE_FATAL(ends[0] >= 0);
	close(listener);
}

/* What stands at each place of a body: a byte lost, doubled or moved would show. */
static char byte_at(size_t place)
{
	return (char)(place ^ (place >> 8) ^ (place >> 16));
}

struct pouring {
	int fd;
	size_t from, until;
	bool ends_urgently; /* and then a byte sent as urgent, which is none of the body's */
	pthread_t thread;
};

static void *pour(void *argument)
{
	struct pouring *p = argument;
	char chunk[16384];
	for (size_t done = p->from; done < p->until;) {
		size_t length = p->until - done < sizeof chunk ? p->until - done : sizeof chunk;
		for (size_t i = 0; i < length; i++)
			chunk[i] = byte_at(done + i);
		ssize_t sent = send(p->fd, chunk, length, MSG_NOSIGNAL);
		if (sent <= 0)
			return NULL;
		done += (size_t)sent;
	}
	if (p->ends_urgently)
		send(p->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL);
	return NULL;
}

static void start_pouring(struct pouring *p)
{
	CU_ASSERT_EQUAL_FATAL(thread_start(&p->thread, pour, p), 0);
}

static void pour_now(int fd, size_t from, size_t until)
{
	pour(&(struct pouring){ .fd = fd, .from = from, .until = until });
}

/* Reads that part of a body: is every byte in its place? */
static bool pours_out(int fd, size_t from, size_t until)
{
	char chunk[16384];
	for (size_t done = from; done < until;) {
		ssize_t count = recv(fd, chunk, until - done < sizeof chunk ? until - done : sizeof chunk, 0);
		if (count <= 0)
			return false;
		for (ssize_t i = 0; i < count; i++)
			if (chunk[i] != byte_at(done + (size_t)i))
				return false;
		done += (size_t)count;
	}
	return true;
}

/* Reads a head, and nothing behind it. */
static bool head_comes(int fd, const char *start)
{
	char head[2048] = "";
	for (size_t length = 0; length < sizeof head - 1 && strstr(head, "\r\n\r\n") == NULL; length++)
		if (recv(fd, head + length, 1, 0) != 1)
			return false;
	return strncmp(head, start, strlen(start)) == 0;
}

static void say(int fd, const char *text)
{
	CU_ASSERT_EQUAL_FATAL(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void say_answer(size_t body_bytes)
{
	char head[100];
	snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body_bytes);
	say(target, head);
}

/* A client has sent a head. body_bytes: of a PUT; 0: it is a GET. */
static void begin(size_t body_bytes)
{
	struct http_scan scan = { .seen = 0 };
	size_t length = 0;
	int ends[2];
	char head[100] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
	if (body_bytes > 0)
		snprintf(head, sizeof head, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n", body_bytes);
	tcp_pair(ends);
	conn_init(&x.client, ends[0], client_buffer, sizeof client_buffer);
	client = ends[1];
	tcp_pair(ends);
	conn_init(&x.upstream, ends[0], upstream_buffer, sizeof upstream_buffer);
	target = ends[1];
	x.head = head_buffer;
	x.head_capacity = sizeof head_buffer;
	x.limits = (struct exchange_limits){ PATIENCE_US, PATIENCE_US, 0, 4096 };
	x.pipes = &pipes;
	cut_init(&cut);
	x.cut = &cut;
	cut_attach(&cut, CUT_CLIENT, x.client.fd);
	cut_attach(&cut, CUT_UPSTREAM, x.upstream.fd);
	atomic_store(&pipes.in_use, 0);
	say(client, head);
	CU_ASSERT_EQUAL_FATAL(conn_fill(&x.client, clock_us() + PATIENCE_US), CONN_OK);
	enum http_scan_result found = http_scan(&scan, conn_bytes(&x.client), conn_available(&x.client), &length);
	CU_ASSERT_EQUAL_FATAL(found, HTTP_SCAN_COMPLETE);
	CU_ASSERT_EQUAL_FATAL(http_parse_request(conn_bytes(&x.client), length, &x.request).status, 0);
	conn_keep(&x.client, length);
	exchange_begin(&x);
}

static void *run(void *argument)
{
	(void)argument;
	result = exchange_send(&x, &how);
	if (result == EXCHANGE_OK)
		result = exchange_await_head(&x, "weir-1");
	if (result == EXCHANGE_OK)
		result = exchange_relay(&x, "weir-1", true);
	return NULL;
}

static void start(void)
{
	CU_ASSERT_EQUAL_FATAL(thread_start(&runner, run, NULL), 0);
}

static bool blocks(int fd)
{
	return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
}

/* It is over, whichever way: no pipe is left, and the connections are as they were. */
static bool ends_cleanly_as(enum exchange_result wanted)
{
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, wanted);
	CU_ASSERT_EQUAL(atomic_load(&pipes.in_use), 0);
	CU_ASSERT_FALSE(x.up.pipe.is_open || x.down.pipe.is_open);
	return blocks(x.client.fd) && blocks(x.upstream.fd);
}

static void end(void)
{
	cut_destroy(&cut);
	conn_close(&x.client);
	conn_close(&x.upstream);
	close(client);
	close(target);
}

static bool there_is_a_pipe(void)
{
	uint64_t deadline_us = clock_us() + PATIENCE_US;
	while (atomic_load(&pipes.in_use) == 0 && clock_us() < deadline_us)
		sched_yield();
	return atomic_load(&pipes.in_use) == 1;
}

static void reset(int *fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(*fd);
	*fd = -1;
}

/* ---- down ----------------------------------------------------------------------------------------------------------- */

/* A GET, an answer of which much has been sent and received, and a pipe that waits for more. */
static void come_to_the_middle_of_an_answer(size_t body_bytes)
{
	begin(0);
	start();
	CU_ASSERT_TRUE(head_comes(target, "GET / HTTP/1.1\r\n"));
	say_answer(body_bytes);
	pour_now(target, 0, FIRST_BYTES);
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	CU_ASSERT_TRUE(pours_out(client, 0, FIRST_BYTES));
	CU_ASSERT_TRUE(there_is_a_pipe());
}

static void a_large_answer_arrives_whole_and_both_connections_live_on(void)
{
	come_to_the_middle_of_an_answer(BODY_BYTES);
	struct pouring rest = { .fd = target, .from = FIRST_BYTES, .until = BODY_BYTES };
	start_pouring(&rest);
	CU_ASSERT_TRUE(pours_out(client, FIRST_BYTES, BODY_BYTES));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_OK));
	pthread_join(rest.thread, NULL);
	CU_ASSERT_EQUAL(x.down.body.payload_bytes, BODY_BYTES);
	CU_ASSERT_TRUE(exchange_upstream_is_reusable(&x));
	CU_ASSERT_FALSE(x.client_must_close);
	end();
}

static void what_a_target_says_after_its_answer_is_no_part_of_it(void)
{
	come_to_the_middle_of_an_answer(BODY_BYTES);
	struct pouring rest = { .fd = target, .from = FIRST_BYTES, .until = BODY_BYTES + 1000 };
	start_pouring(&rest);
	CU_ASSERT_TRUE(pours_out(client, FIRST_BYTES, BODY_BYTES));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_OK));
	pthread_join(rest.thread, NULL);
	char byte;
	CU_ASSERT_EQUAL(recv(client, &byte, 1, MSG_DONTWAIT), -1);
	end();
}

static void an_urgent_byte_is_skipped_and_the_rest_arrives(void)
{
	come_to_the_middle_of_an_answer(BODY_BYTES);
	struct pouring more = { .fd = target, .from = FIRST_BYTES, .until = BODY_BYTES / 2, .ends_urgently = true };
	start_pouring(&more);
	CU_ASSERT_TRUE(pours_out(client, FIRST_BYTES, BODY_BYTES / 2));
	pthread_join(more.thread, NULL);
	struct pouring rest = { .fd = target, .from = BODY_BYTES / 2, .until = BODY_BYTES };
	start_pouring(&rest);
	CU_ASSERT_TRUE(pours_out(client, BODY_BYTES / 2, BODY_BYTES));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_OK));
	pthread_join(rest.thread, NULL);
	end();
}

static void an_answer_that_ends_or_breaks_in_the_middle_is_cut_short(void)
{
	for (int breaks = 0; breaks < 2; breaks++) {
		come_to_the_middle_of_an_answer(BODY_BYTES);
		if (breaks)
			reset(&target);
		else
			shutdown(target, SHUT_WR);
		CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_TARGET_CUT));
		CU_ASSERT_EQUAL(x.down.body.payload_bytes, FIRST_BYTES);
		end();
	}
}

static void a_drain_cuts_an_answer_short(void)
{
	come_to_the_middle_of_an_answer(BODY_BYTES);
	cut_now(&cut);
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_TARGET_CUT));
	end();
}

static void a_target_that_falls_silent_in_its_answer_is_given_up(void)
{
	begin(0);
	x.limits.response_us = SHORT_US;
	say_answer(BODY_BYTES); /* before it is asked: whatever the machine does, it is here in time */
	pour_now(target, 0, FIRST_BYTES);
	start();
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	CU_ASSERT_TRUE(pours_out(client, 0, FIRST_BYTES));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_TARGET_CUT));
	end();
}

static void a_client_that_leaves_in_the_middle_is_noticed_while_more_comes_and_while_nothing_does(void)
{
	for (int comes = 0; comes < 2; comes++) {
		come_to_the_middle_of_an_answer(ENDLESS_BYTES);
		struct pouring rest = { .fd = target, .from = FIRST_BYTES, .until = comes ? ENDLESS_BYTES : FIRST_BYTES };
		reset(&client);
		start_pouring(&rest);
		CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_CLIENT_GONE));
		conn_close(&x.upstream); /* ends the pouring */
		pthread_join(rest.thread, NULL);
		end();
	}
}

static void a_client_that_stops_reading_is_waited_for_and_then_not(void)
{
	begin(0);
	x.limits.idle_us = SHORT_US;
	say_answer(ENDLESS_BYTES);
	struct pouring all = { .fd = target, .until = ENDLESS_BYTES };
	start_pouring(&all);
	start();
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_CLIENT_GONE));
	CU_ASSERT_TRUE(x.down.body.payload_bytes < ENDLESS_BYTES);
	conn_close(&x.upstream);
	pthread_join(all.thread, NULL);
	end();
}

/* ---- up ------------------------------------------------------------------------------------------------------------- */

/* The same of a PUT. */
static void come_to_the_middle_of_a_request(size_t body_bytes)
{
	begin(body_bytes);
	start();
	pour_now(client, 0, FIRST_BYTES);
	CU_ASSERT_TRUE(head_comes(target, "PUT / HTTP/1.1\r\n"));
	CU_ASSERT_TRUE(pours_out(target, 0, FIRST_BYTES));
	CU_ASSERT_TRUE(there_is_a_pipe());
}

static void send_the_rest_and_be_answered(void)
{
	struct pouring rest = { .fd = client, .from = FIRST_BYTES, .until = BODY_BYTES };
	start_pouring(&rest);
	CU_ASSERT_TRUE(pours_out(target, FIRST_BYTES, BODY_BYTES));
	say_answer(0);
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_OK));
	pthread_join(rest.thread, NULL);
	CU_ASSERT_EQUAL(x.sent_bytes, x.sent_head_bytes + BODY_BYTES);
	CU_ASSERT_EQUAL(x.up.body.payload_bytes, BODY_BYTES);
	CU_ASSERT_TRUE(exchange_upstream_is_reusable(&x));
	CU_ASSERT_FALSE(x.client_must_close);
}

static void a_large_request_arrives_whole_and_both_connections_live_on(void)
{
	come_to_the_middle_of_a_request(BODY_BYTES);
	send_the_rest_and_be_answered();
	CU_ASSERT_FALSE(x.client_is_untouched);
	end();
}

static void an_interim_answer_passes_in_the_middle_of_a_request(void)
{
	come_to_the_middle_of_a_request(BODY_BYTES);
	say(target, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 103 Early Hints\r\n"));
	send_the_rest_and_be_answered();
	end();
}

static void an_answer_in_the_middle_of_a_request_is_relayed_and_ends_it(void)
{
	come_to_the_middle_of_a_request(BODY_BYTES);
	say_answer(0);
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_OK));
	CU_ASSERT_TRUE(x.client_must_close);
	CU_ASSERT_FALSE(exchange_upstream_is_reusable(&x));
	end();
}

static void a_large_answer_in_the_middle_of_a_request_arrives_whole(void)
{
	come_to_the_middle_of_a_request(BODY_BYTES);
	say_answer(BODY_BYTES);
	struct pouring down = { .fd = target, .until = BODY_BYTES }, up = { .fd = client, .from = FIRST_BYTES, .until = BODY_BYTES };
	start_pouring(&down);
	start_pouring(&up);
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	CU_ASSERT_TRUE(pours_out(client, 0, BODY_BYTES));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_OK));
	close(target);
	target = -1;
	conn_close(&x.client);
	conn_close(&x.upstream);
	pthread_join(down.thread, NULL);
	pthread_join(up.thread, NULL);
	end();
}

static void a_target_that_breaks_in_the_middle_of_a_request_has_failed(void)
{
	come_to_the_middle_of_a_request(BODY_BYTES);
	reset(&target);
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_TARGET_FAILED));
	CU_ASSERT_FALSE(x.client_is_untouched);
	end();
}

static void a_client_that_ends_or_breaks_in_the_middle_of_its_request_is_gone(void)
{
	for (int breaks = 0; breaks < 2; breaks++) {
		come_to_the_middle_of_a_request(BODY_BYTES);
		if (breaks)
			reset(&client);
		else
			shutdown(client, SHUT_WR);
		CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_CLIENT_GONE));
		end();
	}
}

static void a_target_that_stops_reading_is_the_silent_one(void)
{
	begin(ENDLESS_BYTES);
	x.limits.response_us = SHORT_US;
	struct pouring all = { .fd = client, .until = ENDLESS_BYTES };
	start_pouring(&all);
	start();
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_TARGET_SILENT));
	CU_ASSERT_FALSE(exchange_client_is_waited_for(&x));
	conn_close(&x.client);
	pthread_join(all.thread, NULL);
	end();
}

static void a_client_that_falls_silent_in_its_request_is_the_silent_one(void)
{
	begin(BODY_BYTES);
	x.limits.idle_us = SHORT_US;
	pour_now(client, 0, FIRST_BYTES);
	start();
	CU_ASSERT_TRUE(head_comes(target, "PUT / HTTP/1.1\r\n"));
	CU_ASSERT_TRUE(pours_out(target, 0, FIRST_BYTES));
	CU_ASSERT_TRUE(ends_cleanly_as(EXCHANGE_CLIENT_SILENT));
	CU_ASSERT_TRUE(exchange_client_is_waited_for(&x));
	end();
}

/* ---- without a pipe ------------------------------------------------------------------------------------------------- */

/* The whole of an answer; false if any byte was not in its place, or there was a pipe. */
static bool an_answer_is_copied(int (*start_thread)(pthread_t *, void *(*)(void *), void *), unsigned in_use, size_t body_bytes)
{
	begin(0);
	atomic_store(&pipes.in_use, in_use);
	CU_ASSERT_EQUAL_FATAL(start_thread(&runner, run, NULL), 0);
	CU_ASSERT_TRUE(head_comes(target, "GET / HTTP/1.1\r\n"));
	say_answer(body_bytes);
	struct pouring first = { .fd = target, .until = body_bytes / 2 };
	struct pouring rest = { .fd = target, .from = body_bytes / 2, .until = body_bytes };
	start_pouring(&first);
	CU_ASSERT_TRUE(head_comes(client, "HTTP/1.1 200 OK\r\n"));
	bool is_whole = pours_out(client, 0, body_bytes / 2);
	pthread_join(first.thread, NULL);
	bool is_copied = atomic_load(&pipes.in_use) == in_use;
	start_pouring(&rest);
	is_whole = pours_out(client, body_bytes / 2, body_bytes) && is_whole;
	pthread_join(rest.thread, NULL);
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, EXCHANGE_OK);
	CU_ASSERT_EQUAL(atomic_load(&pipes.in_use), in_use);
	end();
	return is_whole && is_copied;
}

static void a_small_answer_takes_no_pipe(void)
{
	CU_ASSERT_TRUE(an_answer_is_copied(thread_start, 0, 200000));
}

static void when_all_pipes_of_the_share_are_in_use_bytes_are_copied(void)
{
	CU_ASSERT_TRUE(an_answer_is_copied(thread_start, SPLICE_PIPES_MAX, BODY_BYTES));
}

static int start_bare(pthread_t *thread, void *(*body)(void *), void *argument)
{
	return pthread_create(thread, NULL, body, argument);
}

static void a_thread_that_sigpipe_would_kill_copies(void)
{
	CU_ASSERT_TRUE(an_answer_is_copied(start_bare, 0, BODY_BYTES));
}

static int start_without_descriptors(pthread_t *thread, void *(*body)(void *), void *argument)
{
	struct rlimit limit;
	int first_free = dup(0);
	close(first_free);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = (rlim_t)first_free;
	setrlimit(RLIMIT_NOFILE, &limit);
	return thread_start(thread, body, argument);
}

static void without_descriptors_for_a_pipe_bytes_are_copied(void)
{
	struct rlimit usual;
	CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_NOFILE, &usual), 0);
	CU_ASSERT_TRUE(an_answer_is_copied(start_without_descriptors, 0, BODY_BYTES));
	setrlimit(RLIMIT_NOFILE, &usual);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_large_answer_arrives_whole_and_both_connections_live_on),
		TEST(what_a_target_says_after_its_answer_is_no_part_of_it),
		TEST(an_urgent_byte_is_skipped_and_the_rest_arrives),
		TEST(an_answer_that_ends_or_breaks_in_the_middle_is_cut_short),
		TEST(a_drain_cuts_an_answer_short),
		TEST(a_target_that_falls_silent_in_its_answer_is_given_up),
		TEST(a_client_that_leaves_in_the_middle_is_noticed_while_more_comes_and_while_nothing_does),
		TEST(a_client_that_stops_reading_is_waited_for_and_then_not),
		TEST(a_large_request_arrives_whole_and_both_connections_live_on),
		TEST(an_interim_answer_passes_in_the_middle_of_a_request),
		TEST(an_answer_in_the_middle_of_a_request_is_relayed_and_ends_it),
		TEST(a_large_answer_in_the_middle_of_a_request_arrives_whole),
		TEST(a_target_that_breaks_in_the_middle_of_a_request_has_failed),
		TEST(a_client_that_ends_or_breaks_in_the_middle_of_its_request_is_gone),
		TEST(a_target_that_stops_reading_is_the_silent_one),
		TEST(a_client_that_falls_silent_in_its_request_is_the_silent_one),
		TEST(a_small_answer_takes_no_pipe),
		TEST(when_all_pipes_of_the_share_are_in_use_bytes_are_copied),
		TEST(a_thread_that_sigpipe_would_kill_copies),
		TEST(without_descriptors_for_a_pipe_bytes_are_copied),
	};
	return unit_main("splice", tests, sizeof tests / sizeof tests[0]);
}
