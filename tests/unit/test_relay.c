/* Tests of lib/relay.c: a body on its way. What comes in goes out, framed anew, however the bytes were cut. */
#include <string.h>

#include "lib/relay.h"
#include "unit.h"

struct way {
	enum http_framing framing;
	uint64_t length;
	bool chunked_out;
	uint64_t limit;
};

static char buffer[4096], out[8192];
static size_t out_length;
static struct flow flow;

/* What the receiver takes: all of it. */
static void send_parts(void)
{
	for (; flow.left > 0; flow.next++, flow.left--) {
		if (out_length + flow.next->iov_len > sizeof out)
			return;
		if (flow.next->iov_len > 0)
			memcpy(out + out_length, flow.next->iov_base, flow.next->iov_len);
		out_length += flow.next->iov_len;
	}
}

/* Sends `in` through a flow, step bytes at a time; ends the input when is_ended. The state it came to. */
static enum flow_state run(const struct way *way, const char *in, size_t step, bool is_ended)
{
	struct conn from;
	size_t at = 0, length = strlen(in);
	conn_init(&from, -1, buffer, sizeof buffer);
	out_length = 0;
	flow_begin(&flow, &from, way->framing, way->length, way->chunked_out, way->limit, "HEAD", 4);
	for (;;) {
		enum flow_state state = flow_take(&flow);
		if (state == FLOW_BAD)
			return state;
		send_parts();
		if (state == FLOW_SEND)
			continue;
		if (state == FLOW_DONE || (at == length && !is_ended))
			return state;
		if (at == length) {
			state = flow_input_ended(&flow);
			send_parts();
			return state == FLOW_CUT_SHORT ? state : flow_take(&flow);
		}
		size_t count = step < length - at ? step : length - at;
		memcpy(buffer, in + at, count);
		from.start = 0;
		from.end = count;
		at += count;
	}
}

static bool came_out(const char *expected)
{
	return out_length == strlen(expected) && memcmp(out, expected, out_length) == 0;
}

static const struct way by_length = { HTTP_BY_LENGTH, 10, false, 0 };
static const struct way chunked = { HTTP_CHUNKED, 0, true, 0 };
static const struct way unchunked = { HTTP_CHUNKED, 0, false, 0 };
static const struct way until_close = { HTTP_UNTIL_CLOSE, 0, true, 0 };
static const char chunks[] = "3;ext=1\r\nabc\r\n00a\r\n0123456789\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n";

static void any_division_of_the_bytes_gives_the_same_body(void)
{
	for (size_t step = 1; step < 40; step++) {
		CU_ASSERT_EQUAL(run(&by_length, "0123456789", step, false), FLOW_DONE);
		CU_ASSERT_TRUE(came_out("HEAD0123456789"));
		CU_ASSERT_EQUAL(run(&unchunked, chunks, step, false), FLOW_DONE);
		CU_ASSERT_TRUE(came_out("HEADabc0123456789"));
	}
}

static void chunks_are_framed_anew_and_trailers_kept_but_those_that_frame(void)
{
	CU_ASSERT_EQUAL(run(&chunked, chunks, 1000, false), FLOW_DONE);
	CU_ASSERT_TRUE(came_out("HEADd\r\nabc0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"));
	CU_ASSERT_TRUE(flow_is_done(&flow));
}

static void a_body_of_more_chunks_than_there_are_parts_is_whole(void)
{
	char in[2000] = "", expected[300] = "HEAD";
	for (int i = 0; i < 200; i++) {
		strcat(in, "1\r\nx\r\n");
		strcat(expected, "x");
	}
	strcat(in, "0\r\n\r\n");
	CU_ASSERT_EQUAL(run(&unchunked, in, sizeof in, false), FLOW_DONE);
	CU_ASSERT_TRUE(came_out(expected));
}

static void what_the_close_ends_gets_a_last_chunk_only_then(void)
{
	CU_ASSERT_EQUAL(run(&until_close, "hello", 5, false), FLOW_NEED);
	CU_ASSERT_TRUE(came_out("HEAD5\r\nhello\r\n"));
	CU_ASSERT_EQUAL(run(&until_close, "hello", 5, true), FLOW_DONE);
	CU_ASSERT_TRUE(came_out("HEAD5\r\nhello\r\n0\r\n\r\n"));
}

static void a_body_cut_short_is_never_ended(void)
{
	CU_ASSERT_EQUAL(run(&by_length, "012345678", 4, true), FLOW_CUT_SHORT);
	for (size_t length = 0; length < sizeof chunks - 1; length++) {
		char part[sizeof chunks] = "";
		memcpy(part, chunks, length);
		CU_ASSERT_EQUAL(run(&chunked, part, 7, true), FLOW_CUT_SHORT);
		CU_ASSERT_TRUE(out_length < 5 || memcmp(out + out_length - 5, "0\r\n\r\n", 5) != 0);
		CU_ASSERT_FALSE(flow_is_done(&flow));
	}
}

static void a_malformed_body_is_bad_and_says_why(void)
{
	CU_ASSERT_EQUAL(run(&chunked, "3\r\nabcd\r\n0\r\n\r\n", 100, false), FLOW_BAD);
	CU_ASSERT_TRUE(flow.body.why != NULL && flow.body.why[0] != '\0');
	CU_ASSERT_FALSE(flow.is_too_long);
}

static void a_limit_is_for_payload_and_lets_just_that_much_through(void)
{
	struct way limited = chunked;
	limited.limit = 13;
	CU_ASSERT_EQUAL(run(&limited, chunks, 5, false), FLOW_DONE);
	limited.limit = 12;
	CU_ASSERT_EQUAL(run(&limited, chunks, 5, false), FLOW_BAD);
	CU_ASSERT_TRUE(flow.is_too_long);
}

static void what_follows_a_body_is_left_for_the_next_message(void)
{
	struct conn from;
	conn_init(&from, -1, buffer, sizeof buffer);
	memcpy(buffer, "0123456789GET", 13);
	from.end = 13;
	flow_begin(&flow, &from, HTTP_BY_LENGTH, 10, false, 0, NULL, 0);
	CU_ASSERT_EQUAL(flow_take(&flow), FLOW_SEND);
	CU_ASSERT_EQUAL(conn_available(&from), 3);
	CU_ASSERT_EQUAL(memcmp(conn_bytes(&from), "GET", 3), 0);
}

/* A body of so many bytes behind a head of four, in a head's buffer of that capacity: how many pieces are to be sent? */
static int pieces_of(size_t body_bytes, size_t capacity, bool chunked_out)
{
	static char head[4096], body[sizeof buffer];
	struct conn from;
	memcpy(head, "HEAD", 4);
	memset(head + 4, '-', sizeof head - 4);
	memset(body, 'x', sizeof body);
	memcpy(buffer, body, body_bytes);
	conn_init(&from, -1, buffer, sizeof buffer);
	from.end = body_bytes;
	flow_begin(&flow, &from, HTTP_BY_LENGTH, body_bytes, chunked_out, 0, head, 4);
	CU_ASSERT_EQUAL(flow_take(&flow), FLOW_SEND);
	flow_gather(&flow, head, capacity);
	int pieces = flow.left;
	out_length = 0;
	send_parts();
	CU_ASSERT_TRUE(out_length >= 4 + body_bytes);
	CU_ASSERT_EQUAL(memcmp(out, "HEAD", 4), 0);
	if (!chunked_out)
		CU_ASSERT_EQUAL(memcmp(out + 4, body, body_bytes), 0);
	CU_ASSERT_EQUAL(flow_take(&flow), FLOW_DONE);
	for (size_t i = capacity; i < sizeof head; i++)
		CU_ASSERT_EQUAL(head[i], '-');
	return pieces;
}

static void little_behind_a_head_is_sent_in_one_piece_with_it(void)
{
	CU_ASSERT_EQUAL(pieces_of(1, 4096, false), 1);
	CU_ASSERT_EQUAL(pieces_of(FLOW_GATHER_BYTES, 4096, false), 1);
	CU_ASSERT_EQUAL(pieces_of(FLOW_GATHER_BYTES + 1, 4096, false), 2);
	CU_ASSERT_EQUAL(pieces_of(96, 100, false), 1);
	CU_ASSERT_EQUAL(pieces_of(97, 100, false), 2); /* there is no room */
	CU_ASSERT_EQUAL(pieces_of(0, 4096, false), 1);
	CU_ASSERT_EQUAL(pieces_of(5, 4096, true), 1); /* a chunk's head, the chunk, and the end after it */
	CU_ASSERT_EQUAL(memcmp(out, "HEAD5\r\nxxxxx\r\n0\r\n\r\n", 19), 0);
	CU_ASSERT_EQUAL(out_length, 19);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(any_division_of_the_bytes_gives_the_same_body),
		TEST(chunks_are_framed_anew_and_trailers_kept_but_those_that_frame),
		TEST(a_body_of_more_chunks_than_there_are_parts_is_whole),
		TEST(what_the_close_ends_gets_a_last_chunk_only_then),
		TEST(a_body_cut_short_is_never_ended),
		TEST(a_malformed_body_is_bad_and_says_why),
		TEST(a_limit_is_for_payload_and_lets_just_that_much_through),
		TEST(little_behind_a_head_is_sent_in_one_piece_with_it),
		TEST(what_follows_a_body_is_left_for_the_next_message),
	};
	return unit_main("relay", tests, sizeof tests / sizeof tests[0]);
}
