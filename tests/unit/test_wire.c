/* test_wire.c: the demo programs' reading of HTTP/1.1 framing, over a pair of connected sockets.
 *
 * Every message is read whole and in pieces of each size: any division of the bytes over reads gives the same result.
 */
#include "lib/wire.h"

#include "lib/clock.h"
#include "unit.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOON (clock_us() + 5 * US_PER_S)

/* What a body is read as when its bytes come in pieces of piece_bytes and then the connection ends. */
static enum wire_result read_body(const struct wire_framing *framing, const char *bytes, size_t length,
                                  size_t piece_bytes, uint64_t limit_bytes, uint64_t *body_bytes, size_t *left_bytes)
{
	static struct wire w;
	int pair[2];
	enum wire_result result = WIRE_OK;

	*body_bytes = 0;
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (size_t at = 0; at < length; at += piece_bytes) {
		size_t left = length - at;
		CU_ASSERT_TRUE_FATAL(send(pair[1], bytes + at, left < piece_bytes ? left : piece_bytes, MSG_DONTWAIT) > 0);
	}
	shutdown(pair[1], SHUT_WR);
	wire_begin(&w, pair[0]);
	result = wire_skip_body(&w, framing, limit_bytes, SOON, body_bytes);
	*left_bytes = w.end - w.start;
	close(pair[0]);
	close(pair[1]);
	return result;
}

struct body_case {
	const char *bytes;
	enum wire_result result;
	uint64_t body_bytes;
};

static void check_bodies(const struct wire_framing *framing, const struct body_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(cases[i].bytes);
		for (size_t piece_bytes = 1; piece_bytes <= length; piece_bytes++) {
			uint64_t body_bytes;
			size_t left_bytes;
			enum wire_result result = read_body(framing, cases[i].bytes, length, piece_bytes, 1000, &body_bytes,
			                                    &left_bytes);
			CU_ASSERT_EQUAL(result, cases[i].result);
			if (result == WIRE_OK)
				CU_ASSERT_EQUAL(body_bytes, cases[i].body_bytes);
		}
	}
}

static void chunks_are_read_to_their_end_however_they_are_split(void)
{
	static const struct body_case cases[] = {
		{ "0\r\n\r\n", WIRE_OK, 0 },
		{ "5\r\nhello\r\n0\r\n\r\n", WIRE_OK, 5 },
		{ "A\r\n0123456789\r\n000\r\n\r\n", WIRE_OK, 10 },
		{ "1;name=value\r\na\r\n2 ;x\r\nbc\r\n0;last\r\nTrailer: x\r\n\r\n", WIRE_OK, 3 },
		{ "2\r\n\r\n\r\n0\r\n\r\n", WIRE_OK, 2 },
		{ "5\r\nhello\r\n0\r\n", WIRE_END, 0 },
		{ "5\r\nhell", WIRE_END, 0 },
		{ "5", WIRE_END, 0 },
		{ "\r\n", WIRE_MALFORMED, 0 },
		{ "5\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5\r\nhello!\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5 \r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ " 5\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "+5\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "0x5\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5g\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "0000000000000005\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5\r\nhello\r\n0\r\nno colon\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "FFFFFFFFFFFFFFF\r\n", WIRE_TOO_BIG, 0 },
		{ "3E8\r\n", WIRE_END, 0 },
		{ "3E9\r\n", WIRE_TOO_BIG, 0 },
	};
	const struct wire_framing framing = { .is_chunked = true };
	check_bodies(&framing, cases, sizeof cases / sizeof cases[0]);
}

static void a_length_is_read_exactly(void)
{
	static const struct body_case cases[] = {
		{ "hello", WIRE_OK, 5 },
		{ "hell", WIRE_END, 0 },
	};
	const struct wire_framing framing = { .has_length = true, .length = 5 };
	uint64_t body_bytes;
	size_t left_bytes;
	check_bodies(&framing, cases, sizeof cases / sizeof cases[0]);
	CU_ASSERT_EQUAL(read_body(&framing, "helloGET", 8, 8, 1000, &body_bytes, &left_bytes), WIRE_OK);
	CU_ASSERT_EQUAL(left_bytes, 3);
	CU_ASSERT_EQUAL(read_body(&framing, "hello", 5, 5, 4, &body_bytes, &left_bytes), WIRE_TOO_BIG);
}

static enum wire_result take(struct wire_framing *f, const char *name, const char *value)
{
	return wire_framing_field(f, name, value);
}

static void ambiguous_framing_is_malformed(void)
{
	static const char *const lengths[] = { "", "-1", "+1", "1 ", "0x1", "1,1", "1.0", "9999999999999999999" };
	static const char *const codings[] = { "", "gzip", "gzip, chunked", "chunked, chunked", "chunked;q=1",
		"xchunked", "identity" };
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
		CU_ASSERT_EQUAL(take(&(struct wire_framing){ 0 }, "Content-Length", lengths[i]), WIRE_MALFORMED);
	for (size_t i = 0; i < sizeof codings / sizeof codings[0]; i++)
		CU_ASSERT_EQUAL(take(&(struct wire_framing){ 0 }, "Transfer-Encoding", codings[i]), WIRE_MALFORMED);

	struct wire_framing both = { 0 }, other_order = { 0 }, twice = { 0 }, coded_twice = { 0 };
	CU_ASSERT_EQUAL(take(&both, "content-length", "5"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&both, "transfer-encoding", "chunked"), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(take(&other_order, "Transfer-Encoding", "CHUNKED"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&other_order, "Content-Length", "5"), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(take(&twice, "Content-Length", "5"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&twice, "Content-Length", "05"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&twice, "Content-Length", "6"), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(take(&coded_twice, "Transfer-Encoding", "chunked"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&coded_twice, "Transfer-Encoding", "chunked"), WIRE_MALFORMED);
}

static void connection_words_are_found_whole_and_in_any_case(void)
{
	struct wire_framing f = { 0 };
	CU_ASSERT_EQUAL(take(&f, "connection", "closed, keep-alive-not"), WIRE_OK);
	CU_ASSERT_FALSE(f.asks_close);
	CU_ASSERT_FALSE(f.asks_keep_alive);
	CU_ASSERT_EQUAL(take(&f, "Connection", "upgrade ,Close"), WIRE_OK);
	CU_ASSERT_TRUE(f.asks_close);
	CU_ASSERT_TRUE(wire_list_has(",, a\t,b", "B"));
	CU_ASSERT_FALSE(wire_list_has("", "b"));
}

static void a_field_has_a_token_a_colon_and_a_trimmed_value(void)
{
	static const char *const bad[] = { "", ":", ": a", "A", "A b: c", "A : c", " A: c", "A\t: c", "A(: c", "\x80: c" };
	char line[64], *name, *value;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(line, sizeof line, "%s", bad[i]);
		CU_ASSERT_FALSE(wire_field(line, &name, &value));
	}
	snprintf(line, sizeof line, "X-Name: \t a: b \t");
	CU_ASSERT_TRUE(wire_field(line, &name, &value));
	CU_ASSERT_STRING_EQUAL(name, "X-Name");
	CU_ASSERT_STRING_EQUAL(value, "a: b");
	snprintf(line, sizeof line, "A:");
	CU_ASSERT_TRUE(wire_field(line, &name, &value));
	CU_ASSERT_STRING_EQUAL(value, "");
}

/* Reads one line of what is sent, all at once, on a connection that stays open. */
static enum wire_result read_line(const char *bytes, size_t length, size_t budget_bytes, uint64_t deadline_us)
{
	static struct wire w;
	int pair[2];
	char *line;

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	if (length > 0)
		CU_ASSERT_EQUAL(send(pair[1], bytes, length, MSG_DONTWAIT), (ssize_t)length);
	wire_begin(&w, pair[0]);
	enum wire_result result = wire_line(&w, &budget_bytes, deadline_us, &line);
	close(pair[0]);
	close(pair[1]);
	return result;
}

static void a_line_ends_in_crlf_and_holds_neither_cr_nor_nul(void)
{
	static char huge[WIRE_BUFFER_BYTES + 10];
	memset(huge, 'a', sizeof huge);
	CU_ASSERT_EQUAL(read_line("ab\r\n", 4, 4, SOON), WIRE_OK);
	CU_ASSERT_EQUAL(read_line("ab\r\n", 4, 3, SOON), WIRE_TOO_BIG);
	CU_ASSERT_EQUAL(read_line("ab\n", 3, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("\n", 1, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("a\rb\r\n", 5, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("a\r\r\n", 4, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("a\0b\r\n", 5, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("aaaa", 4, 3, SOON), WIRE_TOO_BIG);
	CU_ASSERT_EQUAL(read_line(huge, sizeof huge, SIZE_MAX, SOON), WIRE_TOO_BIG);
}

static void a_line_that_does_not_end_is_late_at_the_deadline(void)
{
	CU_ASSERT_EQUAL(read_line("ab\r", 3, 100, clock_us()), WIRE_LATE);
	CU_ASSERT_EQUAL(read_line("", 0, 100, clock_us()), WIRE_LATE);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(chunks_are_read_to_their_end_however_they_are_split),
		TEST(a_length_is_read_exactly),
		TEST(ambiguous_framing_is_malformed),
		TEST(connection_words_are_found_whole_and_in_any_case),
		TEST(a_field_has_a_token_a_colon_and_a_trimmed_value),
		TEST(a_line_ends_in_crlf_and_holds_neither_cr_nor_nul),
		TEST(a_line_that_does_not_end_is_late_at_the_deadline),
	};
	return unit_main("wire", tests, sizeof tests / sizeof tests[0]);
}
