/* Tests of lib/exchange.c: one request and its answer. Both peers are ends of socket pairs, and what they will say is
 * written before it is asked for: no thread is needed, and nothing depends on who is faster. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/exchange.h"
#include "unit.h"

static struct exchange x;
static char client_buffer[20 * 1024], upstream_buffer[20 * 1024], head_buffer[8 * 1024], seen[8 * 1024];
static int client, target;
static const struct rewrite_request how = { .via = "weir-1", .forwarded = REWRITE_OFF, .scheme = "http",
	                                    .target_host = { "t", 1 }, .keep_alive = true, .max_forwards = -1 };

static void say(int fd, const char *text)
{
	if (*text == '\0')
		return;
	CU_ASSERT_EQUAL_FATAL(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* All that one of the peers has been sent so far, as a string. */
static const char *told(int fd)
{
	ssize_t length = recv(fd, seen, sizeof seen - 1, MSG_DONTWAIT);
	seen[length > 0 ? length : 0] = '\0';
	return seen;
}

static bool begins_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

static bool ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

/* A client has sent these bytes; its head has been read. */
static void begin(const char *request)
{
	struct http_scan scan = { .seen = 0 };
	size_t length = 0;
	int ends[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&x.client, ends[0], client_buffer, sizeof client_buffer);
	client = ends[1];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&x.upstream, ends[0], upstream_buffer, sizeof upstream_buffer);
	target = ends[1];
	x.head = head_buffer;
	x.head_capacity = sizeof head_buffer;
	x.limits = (struct exchange_limits){ 5 * US_PER_S, 5 * US_PER_S, 0, 4096 };
	say(client, request);
	CU_ASSERT_EQUAL_FATAL(conn_fill(&x.client, clock_us() + US_PER_S), CONN_OK);
	enum http_scan_result found = http_scan(&scan, conn_bytes(&x.client), conn_available(&x.client), &length);
	CU_ASSERT_EQUAL_FATAL(found, HTTP_SCAN_COMPLETE);
	CU_ASSERT_EQUAL_FATAL(http_parse_request(conn_bytes(&x.client), length, &x.request).status, 0);
	conn_keep(&x.client, length);
	exchange_begin(&x);
}

static void end(void)
{
	conn_close(&x.client);
	conn_close(&x.upstream);
	close(client);
	close(target);
}

/* The whole of it, with the answer that the target has in store. */
static enum exchange_result run(const char *answer)
{
	say(target, answer);
	enum exchange_result result = exchange_send(&x, &how);
	if (result == EXCHANGE_OK)
		result = exchange_await_head(&x, "weir-1");
	return result == EXCHANGE_OK ? exchange_relay(&x, "weir-1", true) : result;
}

static void a_request_and_its_answer_go_through_and_both_connections_live_on(void)
{
	begin("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
	CU_ASSERT_EQUAL(run("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), EXCHANGE_OK);
	CU_ASSERT_TRUE(begins_with(told(target), "GET /a HTTP/1.1\r\nHost: h\r\n"));
	CU_ASSERT_EQUAL(x.sent_bytes, x.sent_head_bytes);
	CU_ASSERT_TRUE(ends_with(told(client), "\r\n\r\nhello"));
	CU_ASSERT_TRUE(exchange_upstream_is_reusable(&x));
	CU_ASSERT_FALSE(x.client_must_close);
	end();
}

static size_t told_before;

static void note_what_is_told(void *context)
{
	(void)context;
	told_before = strlen(told(client));
}

/* Who has the end of an answer may ask again at once: by then the place at the target must be free. */
static void the_target_is_done_with_before_the_client_has_anything_of_an_answer_that_came_whole(void)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
		x.target_is_done = note_what_is_told;
		told_before = SIZE_MAX;
		CU_ASSERT_EQUAL(run(answers[i]), EXCHANGE_OK);
		CU_ASSERT_EQUAL(told_before, 0);
		CU_ASSERT_TRUE(begins_with(told(client), "HTTP/1.1 20"));
		x.target_is_done = NULL;
		end();
	}
}

static void an_answer_whose_body_begins_badly_is_none(void)
{
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	CU_ASSERT_EQUAL(run("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n"), EXCHANGE_TARGET_BAD);
	CU_ASSERT_STRING_EQUAL(told(client), "");
	end();
}

static void surplus_bytes_make_the_targets_connection_unfit(void)
{
	begin("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
	CU_ASSERT_EQUAL(run("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), EXCHANGE_OK);
	CU_ASSERT_TRUE(ends_with(told(client), "\r\n\r\n"));
	CU_ASSERT_FALSE(exchange_upstream_is_reusable(&x));
	end();
}

static void interim_answers_are_for_1_1_clients(void)
{
	static const char answer[] = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	                             "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	CU_ASSERT_EQUAL(run(answer), EXCHANGE_OK);
	CU_ASSERT_TRUE(begins_with(told(client), "HTTP/1.1 103 "));
	end();
	begin("GET / HTTP/1.0\r\n\r\n");
	CU_ASSERT_EQUAL(run(answer), EXCHANGE_OK);
	CU_ASSERT_TRUE(begins_with(told(client), "HTTP/1.1 200 "));
	end();
}

static void a_1_0_client_gets_no_chunks(void)
{
	begin("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	CU_ASSERT_EQUAL(run("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), EXCHANGE_OK);
	CU_ASSERT_TRUE(ends_with(told(client), "\r\n\r\nok"));
	CU_ASSERT_PTR_NULL(strstr(seen, "chunked"));
	CU_ASSERT_TRUE(x.client_must_close);
	end();
}

static void an_answer_cut_short_is_said_to_be(void)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
		say(target, answers[i]);
		shutdown(target, SHUT_WR);
		CU_ASSERT_EQUAL(run(""), EXCHANGE_TARGET_CUT);
		CU_ASSERT_FALSE(ends_with(told(client), "\r\n0\r\n\r\n"));
		end();
	}
}

static void an_answer_that_only_the_close_ends_is_cut_short_by_a_drain(void)
{
	struct cut cut;
	cut_init(&cut);
	for (int drained = 0; drained < 2; drained++) {
		begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
		x.cut = &cut;
		say(target, "HTTP/1.0 200 OK\r\n\r\nhello");
		shutdown(target, SHUT_WR);
		if (drained == 1)
			cut_now(&cut);
		CU_ASSERT_EQUAL(run(""), drained == 1 ? EXCHANGE_TARGET_CUT : EXCHANGE_OK);
		CU_ASSERT_EQUAL(ends_with(told(client), "\r\n0\r\n\r\n"), drained == 0);
		x.cut = NULL;
		end();
	}
	cut_destroy(&cut);
}

static void half_a_head_is_no_answer(void)
{
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	say(target, "HTTP/1.1 200 OK\r\nContent-Le");
	shutdown(target, SHUT_WR);
	CU_ASSERT_EQUAL(run(""), EXCHANGE_TARGET_FAILED);
	CU_ASSERT_TRUE(x.has_answer_bytes);
	CU_ASSERT_STRING_EQUAL(told(client), "");
	end();
}

static void a_request_whose_body_has_not_moved_can_be_sent_again_as_it_was(void)
{
	begin("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_OK);
	CU_ASSERT_TRUE(ends_with(told(target), "\r\n\r\nhello"));
	CU_ASSERT_TRUE(x.client_is_untouched);
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_OK);
	CU_ASSERT_TRUE(ends_with(told(target), "\r\n\r\nhello"));
	CU_ASSERT_TRUE(exchange_request_is_done(&x));
	end();
}

/* "1" of the size "10": taken, and nothing sent of it. A read, even one that gets nothing, makes its place free. */
static void a_half_chunk_size_that_may_be_lost_makes_the_request_unrepeatable(void)
{
	begin("PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1");
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_OK);
	CU_ASSERT_EQUAL(x.sent_bytes, x.sent_head_bytes);
	shutdown(target, SHUT_WR);
	CU_ASSERT_EQUAL(exchange_await_head(&x, NULL), EXCHANGE_TARGET_FAILED);
	CU_ASSERT_FALSE(x.client_is_untouched);
	CU_ASSERT_TRUE(exchange_client_is_waited_for(&x));
	end();
}

static void an_answer_before_the_end_of_the_request_closes_both_connections(void)
{
	begin("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhello");
	CU_ASSERT_EQUAL(run("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"), EXCHANGE_OK);
	CU_ASSERT_PTR_NOT_NULL(strstr(told(client), "Connection: close\r\n"));
	CU_ASSERT_TRUE(x.client_must_close);
	CU_ASSERT_FALSE(exchange_upstream_is_reusable(&x));
	end();
}

static void a_malformed_body_is_never_begun(void)
{
	begin("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n");
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_CLIENT_BAD);
	CU_ASSERT_STRING_EQUAL(told(target), "");
	end();
	begin("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
	x.limits.max_body_bytes = 4;
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_CLIENT_TOO_LONG);
	CU_ASSERT_STRING_EQUAL(told(target), "");
	end();
}

static void whose_turn_it_is_is_who_was_silent(void)
{
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	x.limits.response_us = US_PER_MS;
	CU_ASSERT_EQUAL(run(""), EXCHANGE_TARGET_SILENT);
	end();
	begin("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
	x.limits.idle_us = US_PER_MS;
	CU_ASSERT_EQUAL(run(""), EXCHANGE_CLIENT_SILENT);
	end();
	/* It asked for "100 Continue", and is to send its body when it gets none. */
	begin("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
	x.limits.response_us = US_PER_MS;
	CU_ASSERT_EQUAL(run(""), EXCHANGE_CLIENT_SILENT);
	end();
}

static void a_client_that_ends_in_the_middle_of_its_body_is_gone(void)
{
	begin("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
	shutdown(client, SHUT_WR);
	CU_ASSERT_EQUAL(run(""), EXCHANGE_CLIENT_GONE);
	end();
}

static void a_client_that_takes_nothing_any_more_is_gone(void)
{
	static const char early_hints[] = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	shutdown(client, SHUT_RD);
	CU_ASSERT_EQUAL(run(early_hints), EXCHANGE_CLIENT_GONE);
	CU_ASSERT_EQUAL(x.response.status, 103);
	end();
	/* And while its own body is still under way. */
	begin("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
	shutdown(client, SHUT_RD);
	CU_ASSERT_EQUAL(run("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), EXCHANGE_CLIENT_GONE);
	CU_ASSERT_EQUAL(x.response.status, 200);
	CU_ASSERT_FALSE(exchange_request_is_done(&x));
	end();
}

static void ambiguous_answers_are_bad_before_anything_is_sent(void)
{
	static const char *const answers[] = {
		"SSH-2.0-OpenSSH\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
	};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
		CU_ASSERT_EQUAL(run(answers[i]), EXCHANGE_TARGET_BAD);
		CU_ASSERT_STRING_EQUAL(told(client), "");
		end();
	}
}

/* What weir adds to a head (Via, Date, ...) has to find room, or nothing of it leaves. */
static void a_head_that_grows_beyond_its_room_is_sent_to_nobody(void)
{
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	x.head_capacity = 20;
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_CLIENT_BAD);
	CU_ASSERT_STRING_EQUAL(x.why, "the head grew too long");
	CU_ASSERT_STRING_EQUAL(told(target), "");
	end();
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	say(target, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
	CU_ASSERT_EQUAL(exchange_send(&x, &how), EXCHANGE_OK);
	CU_ASSERT_EQUAL(exchange_await_head(&x, "weir-1"), EXCHANGE_OK);
	x.head_capacity = 40;
	CU_ASSERT_EQUAL(exchange_relay(&x, "weir-1", true), EXCHANGE_TARGET_BAD);
	CU_ASSERT_STRING_EQUAL(x.why, "the head of the target's answer grew too long");
	CU_ASSERT_STRING_EQUAL(told(client), "");
	end();
}

static void an_interim_answer_that_finds_no_room_is_left_out(void)
{
	char answer[600];
	snprintf(answer, sizeof answer,
	         "HTTP/1.1 103 Early Hints\r\nLink: </%0400d>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 0);
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	x.head_capacity = 300;
	CU_ASSERT_EQUAL(run(answer), EXCHANGE_OK);
	CU_ASSERT_TRUE(begins_with(told(client), "HTTP/1.1 204 "));
	end();
}

/* Both would be written where the request's head still waits for the target to take it. */
static void an_interim_answer_to_a_head_that_waits_is_left_out(void)
{
	static char junk[4096];
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	for (size_t length = sizeof junk; length > 0;)
		if (send(x.upstream.fd, junk, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			length /= 2;
	CU_ASSERT_EQUAL(run("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
	                EXCHANGE_OK);
	CU_ASSERT_EQUAL(x.sent_bytes, 0);
	CU_ASSERT_TRUE(begins_with(told(client), "HTTP/1.1 200 "));
	CU_ASSERT_PTR_NOT_NULL(strstr(seen, "Connection: close\r\n"));
	CU_ASSERT_TRUE(ends_with(seen, "\r\n\r\nok"));
	CU_ASSERT_FALSE(exchange_upstream_is_reusable(&x));
	end();
}

/* The client has some of it by then, and must not take the answer for a whole one. */
static void an_answer_whose_body_goes_bad_later_is_cut_short(void)
{
	char answer[400];
	snprintf(answer, sizeof answer,
	         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n%0256d\r\nfive\r\nhello\r\n0\r\n\r\n", 1);
	begin("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
	x.upstream.capacity = 200; /* less than the first chunk: the second is not seen together with it */
	CU_ASSERT_EQUAL(run(answer), EXCHANGE_TARGET_CUT);
	CU_ASSERT_STRING_EQUAL(x.why, "malformed chunk size");
	CU_ASSERT_TRUE(begins_with(told(client), "HTTP/1.1 200 "));
	CU_ASSERT_TRUE(ends_with(seen, "00\r\n")); /* a piece of the first chunk, and no last one behind it */
	CU_ASSERT_FALSE(exchange_upstream_is_reusable(&x));
	end();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_request_and_its_answer_go_through_and_both_connections_live_on),
		TEST(the_target_is_done_with_before_the_client_has_anything_of_an_answer_that_came_whole),
		TEST(an_answer_whose_body_begins_badly_is_none),
		TEST(surplus_bytes_make_the_targets_connection_unfit),
		TEST(interim_answers_are_for_1_1_clients),
		TEST(a_1_0_client_gets_no_chunks),
		TEST(an_answer_cut_short_is_said_to_be),
		TEST(an_answer_that_only_the_close_ends_is_cut_short_by_a_drain),
		TEST(half_a_head_is_no_answer),
		TEST(a_request_whose_body_has_not_moved_can_be_sent_again_as_it_was),
		TEST(a_half_chunk_size_that_may_be_lost_makes_the_request_unrepeatable),
		TEST(an_answer_before_the_end_of_the_request_closes_both_connections),
		TEST(a_malformed_body_is_never_begun),
		TEST(whose_turn_it_is_is_who_was_silent),
		TEST(a_client_that_ends_in_the_middle_of_its_body_is_gone),
		TEST(a_client_that_takes_nothing_any_more_is_gone),
		TEST(ambiguous_answers_are_bad_before_anything_is_sent),
		TEST(a_head_that_grows_beyond_its_room_is_sent_to_nobody),
		TEST(an_interim_answer_that_finds_no_room_is_left_out),
		TEST(an_interim_answer_to_a_head_that_waits_is_left_out),
		TEST(an_answer_whose_body_goes_bad_later_is_cut_short),
	};
	return unit_main("exchange", tests, sizeof tests / sizeof tests[0]);
}
