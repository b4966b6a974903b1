/* test_body.c: where a body ends, what is its payload, and what is no body at all.
 *
 * Every stream here is read in many divisions (whole, one byte at a time, each cut in two, and random ones from a
 * fixed seed) and must give the same payload, the same trailers and the same end each time: reads() does that for
 * every test.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/body.h"
#include "unit.h"

#define PAYLOAD_MAX 65536

/* What came of a stream. */
struct outcome {
	enum body_event end;
	size_t used; /* bytes of the stream that belong to the body; of no meaning after BODY_BAD */
	size_t payload_length;
	char payload[PAYLOAD_MAX];
	size_t trailers_length;
	char trailers[BODY_TRAILERS_MAX];
	bool may_end;
};

/* Each piece is handed over in memory of its own size, so that the address sanitizer sees a read past its end. */
static enum body_event read_piece(struct body *body, const char *bytes, size_t length, struct outcome *o)
{
	char *piece = malloc(length ? length : 1);
	size_t at = 0, used;
	struct http_text data;
	enum body_event event;
	if (!piece)
		abort();
	memcpy(piece, bytes, length);
	do {
		event = body_read(body, piece + at, length - at, &used, &data);
		if (event == BODY_DATA) {
			CU_ASSERT_FATAL(data.length > 0 && used >= data.length);
			CU_ASSERT_FATAL(data.at >= piece + at && data.at + data.length <= piece + at + used);
			CU_ASSERT_FATAL(o->payload_length + data.length <= PAYLOAD_MAX);
			memcpy(o->payload + o->payload_length, data.at, data.length);
			o->payload_length += data.length;
		}
		if (event == BODY_MORE)
			CU_ASSERT_FATAL(used == length - at);
		at += used;
	} while (event == BODY_DATA);
	o->used += at;
	free(piece);
	return event;
}

static void read_divided(enum http_framing framing, uint64_t content_length, const char *bytes, size_t length,
                         const bool *cut, struct outcome *o)
{
	struct body body;
	size_t from = 0;
	body_begin(&body, framing, content_length);
	memset(o, 0, sizeof *o);
	o->end = read_piece(&body, bytes, 0, o);
	while (o->end == BODY_MORE && from < length) {
		size_t to = from + 1;
		while (to < length && !cut[to - 1])
			to++;
		o->end = read_piece(&body, bytes + from, to - from, o);
		from = to;
	}
	CU_ASSERT_EQUAL(body.payload_bytes, o->payload_length);
	CU_ASSERT_EQUAL(o->end == BODY_BAD, body.why != NULL);
	o->may_end = body_may_end_here(&body);
	o->trailers_length = body.trailers_length;
	memcpy(o->trailers, body.trailers, body.trailers_length);
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
	return a->end == b->end && (a->end == BODY_BAD || a->used == b->used) &&
		a->payload_length == b->payload_length &&
	       memcmp(a->payload, b->payload, a->payload_length) == 0 && a->trailers_length == b->trailers_length &&
	       memcmp(a->trailers, b->trailers, a->trailers_length) == 0 && a->may_end == b->may_end;
}

/* Reads the stream at once, checks that every other division gives the same, and returns what came of it. */
static const struct outcome *reads(enum http_framing framing, uint64_t content_length, const char *bytes, size_t length)
{
	static struct outcome at_once, divided;
	bool *cut = calloc(length + 1, sizeof *cut);
	unsigned seed = 4711;
	if (!cut)
		abort();
	read_divided(framing, content_length, bytes, length, cut, &at_once);
	for (size_t k = 0; k < length && length < 300; k++) {
		cut[k] = true;
		read_divided(framing, content_length, bytes, length, cut, &divided);
		CU_ASSERT(same_outcome(&at_once, &divided));
		cut[k] = false;
	}
	for (unsigned round = 0; round < 16; round++) { /* round 0: one byte at a time */
		for (size_t k = 0; k < length; k++) {
			seed = seed * 1103515245u + 12345u;
			cut[k] = round == 0 || (seed >> 16) % 16 < round;
		}
		read_divided(framing, content_length, bytes, length, cut, &divided);
		CU_ASSERT(same_outcome(&at_once, &divided));
	}
	free(cut);
	return &at_once;
}

static const struct outcome *chunked(const char *bytes)
{
	return reads(HTTP_CHUNKED, 0, bytes, strlen(bytes));
}

static bool payload_is(const struct outcome *o, const char *expected)
{
	return o->payload_length == strlen(expected) && memcmp(o->payload, expected, o->payload_length) == 0;
}

static bool trailers_are(const struct outcome *o, const char *expected)
{
	return o->trailers_length == strlen(expected) && memcmp(o->trailers, expected, o->trailers_length) == 0;
}

/* ---- without chunks -------------------------------------------------------------------------------------------- */

static void no_body_ends_at_once_and_takes_nothing(void)
{
	const struct outcome *o = reads(HTTP_NO_BODY, 0, "GET / HTTP/1.1\r\n", 16);
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT_EQUAL(o->used, 0);
	CU_ASSERT(o->may_end);
}

static void a_body_by_length_is_exactly_so_long(void)
{
	const struct outcome *o = reads(HTTP_BY_LENGTH, 5, "helloGET /", 10);
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT_EQUAL(o->used, 5);
	CU_ASSERT(payload_is(o, "hello"));
	o = reads(HTTP_BY_LENGTH, 0, "GET /", 5);
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT_EQUAL(o->used, 0);
}

static void a_body_by_length_that_is_cut_short_has_not_ended(void)
{
	const struct outcome *o = reads(HTTP_BY_LENGTH, 6, "hello", 5);
	CU_ASSERT_EQUAL(o->end, BODY_MORE);
	CU_ASSERT(!o->may_end);
	CU_ASSERT(payload_is(o, "hello"));
}

static void a_body_until_close_takes_everything_and_ends_where_the_stream_does(void)
{
	const struct outcome *o = reads(HTTP_UNTIL_CLOSE, 0, "0\r\n\r\nx", 6);
	CU_ASSERT_EQUAL(o->end, BODY_MORE);
	CU_ASSERT(o->may_end);
	CU_ASSERT(payload_is(o, "0\r\n\r\nx"));
}

/* ---- chunks ---------------------------------------------------------------------------------------------------- */

static void chunks_are_joined_and_what_follows_the_last_is_left(void)
{
	const struct outcome *o =
		chunked("5\r\nhello\r\n1;a=b\r\n,\r\n00A\r\n wonderful\r\n0\r\n\r\nGET / HTTP/1.1\r\n");
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT(payload_is(o, "hello, wonderful"));
	CU_ASSERT_EQUAL(o->used, strlen("5\r\nhello\r\n1;a=b\r\n,\r\n00A\r\n wonderful\r\n0\r\n\r\n"));
	CU_ASSERT_EQUAL(o->trailers_length, 0);
	CU_ASSERT(o->may_end);
}

static void a_chunked_body_may_be_empty_and_its_payload_may_look_like_framing(void)
{
	const struct outcome *o = chunked("0\r\n\r\n");
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT_EQUAL(o->payload_length, 0);
	o = chunked("7\r\n0\r\n\r\n\r\n\r\n000\r\n\r\n");
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT(payload_is(o, "0\r\n\r\n\r\n"));
}

static void a_chunked_body_that_is_cut_short_has_not_ended(void)
{
	static const char whole[] = "5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
	for (size_t length = 0; length < sizeof whole - 1; length++) {
		const struct outcome *o = reads(HTTP_CHUNKED, 0, whole, length);
		CU_ASSERT_EQUAL(o->end, BODY_MORE);
		CU_ASSERT(!o->may_end);
	}
}

static void a_chunk_size_is_plain_hex_and_bounded(void)
{
	static const struct {
		const char *bytes;
		enum body_event end;
	} list[] = {
		{ "a\r\n0123456789\r\n0\r\n\r\n", BODY_END },
		{ "A\r\n0123456789\r\n0\r\n\r\n", BODY_END },
		{ "0000000000000001\r\nx\r\n0\r\n\r\n", BODY_END },
		{ "00000000000000001\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "0fffffffffffffff\r\nx", BODY_MORE },
		{ "1000000000000000\r\nx", BODY_BAD },
		{ "ffffffffffffffff\r\nx", BODY_BAD },
		{ "10000000000000001\r\nx\r\n0\r\n\r\n", BODY_BAD }, /* 2^64 + 1 */
		{ "\r\n0\r\n\r\n", BODY_BAD },
		{ ";a\r\n0\r\n\r\n", BODY_BAD },
		{ "+1\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "-1\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "0x1\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "1_0\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ " 1\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "\t1\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "1 \r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "1 ;a\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "1,1\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "g\r\nx\r\n0\r\n\r\n", BODY_BAD },
		{ "\"1\"\r\nx\r\n0\r\n\r\n", BODY_BAD },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		const struct outcome *o = chunked(list[i].bytes);
		if (o->end != list[i].end)
			fprintf(stderr, "expected %d, got %d for: %s\n", list[i].end, o->end, list[i].bytes);
		CU_ASSERT_EQUAL(o->end, list[i].end);
	}
}

static void every_line_of_framing_ends_in_cr_lf(void)
{
	static const char *const list[] = {
		"1\nx\r\n0\r\n\r\n", "1\r\nx\n0\r\n\r\n", "1\r\nx\r\n0\n\r\n", "1\r\nx\r\n0\r\n\n",
		"1\rx\r\n0\r\n\r\n", "1\r\nx0\r\n\r\n", "1\r\nxy\r\n0\r\n\r\n", "1\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
		"1\r\nx\r0\r\n\r\n", "1;a\nx\r\n0\r\n\r\n", "1;a\n\r\nx\r\n0\r\n\r\n", "1;a\rb\r\nx\r\n0\r\n\r\n",
		"1\r\r\nx\r\n0\r\n\r\n", "0\r\nA: b\n\r\n", "0\r\nA: b\rc\r\n\r\n", "0\r\n\rA\r\n\r\n", "0\r\n\r\r\n",
		"0\r\rA\r\n\r\n", "1\r\nx\r\n\r\n0\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		const struct outcome *o = chunked(list[i]);
		if (o->end != BODY_BAD)
			fprintf(stderr, "accepted: %s\n", list[i]);
		CU_ASSERT_EQUAL(o->end, BODY_BAD);
		CU_ASSERT(!o->may_end);
	}
}

static void what_was_malformed_once_stays_so(void)
{
	struct body body;
	size_t used;
	struct http_text data;
	body_begin(&body, HTTP_CHUNKED, 0);
	CU_ASSERT_EQUAL(body_read(&body, "x\r\n", 3, &used, &data), BODY_BAD);
	CU_ASSERT_EQUAL(body_read(&body, "0\r\n\r\n", 5, &used, &data), BODY_BAD);
	CU_ASSERT_EQUAL(used, 0);
	CU_ASSERT_EQUAL(body_read(&body, NULL, 0, &used, &data), BODY_BAD);
}

static void an_extension_is_skipped_whatever_visible_characters_it_has_and_is_bounded(void)
{
	CU_ASSERT_EQUAL(chunked("1;a;b=c;d=\"e;\\\" f\"; g\t=h\xe9\r\nx\r\n0;z\r\n\r\n")->end, BODY_END);
	CU_ASSERT_EQUAL(chunked("1;\r\nx\r\n0\r\n\r\n")->end, BODY_END);
	CU_ASSERT_EQUAL(chunked("1;a\x01\r\nx\r\n0\r\n\r\n")->end, BODY_BAD);
	CU_ASSERT_EQUAL(chunked("1;a\x7f\r\nx\r\n0\r\n\r\n")->end, BODY_BAD);
	CU_ASSERT_EQUAL(reads(HTTP_CHUNKED, 0, "1;\0\r\nx\r\n0\r\n\r\n", 14)->end, BODY_BAD);
	for (size_t length = BODY_EXTENSION_MAX; length <= BODY_EXTENSION_MAX + 1; length++) {
		char bytes[BODY_EXTENSION_MAX + 64] = "0;";
		memset(bytes + 2, 'e', length);
		strcpy(bytes + 2 + length, "\r\n\r\n");
		CU_ASSERT_EQUAL(chunked(bytes)->end, length > BODY_EXTENSION_MAX ? BODY_BAD : BODY_END);
	}
}

static void a_flood_of_extensions_is_cut_off(void)
{
	/* Each chunk carries one byte of payload and as much extension as one may: 64 of them reach the limit. */
	static char bytes[70 * 300];
	char *at = bytes;
	for (size_t i = 0; i < BODY_EXTENSIONS_MAX / BODY_EXTENSION_MAX; i++) {
		at = stpcpy(at, "1;");
		memset(at, 'e', BODY_EXTENSION_MAX);
		at = stpcpy(at + BODY_EXTENSION_MAX, "\r\nx\r\n");
	}
	strcpy(at, "0;\r\n\r\n");
	CU_ASSERT_EQUAL(chunked(bytes)->end, BODY_END);
	strcpy(at, "0;e\r\n\r\n");
	CU_ASSERT_EQUAL(chunked(bytes)->end, BODY_BAD);
}

/* ---- trailers -------------------------------------------------------------------------------------------------- */

static void trailers_are_kept_ready_to_send(void)
{
	const struct outcome *o = chunked("0\r\nX-Checksum: abc\r\nServer-Timing:db;dur=5\r\n\r\nGET");
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT(trailers_are(o, "X-Checksum: abc\r\nServer-Timing:db;dur=5\r\n"));
}

static void fields_of_framing_routing_and_access_have_no_place_in_trailers(void)
{
	static const char *const names[] = {
		"Content-Length", "transfer-encoding", "HOST", "Connection", "Keep-Alive", "Proxy-Connection", "TE",
		"Trailer", "Upgrade", "HTTP2-Settings", "Authorization", "Proxy-Authorization", "Cookie",
		"Set-Cookie", "Content-Encoding", "Content-Type", "Content-Range", "Cache-Control", "Expect",
		"Max-Forwards", "Range", "If-Match", "Location", "Via", "X-Forwarded-For", "X-Forwarded-Host",
		"X-Forwarded-Proto", "Forwarded", "WWW-Authenticate",
	};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char bytes[128];
		snprintf(bytes, sizeof bytes, "0\r\nA: 1\r\n%s: 5\r\nB: 2\r\n\r\n", names[i]);
		const struct outcome *o = chunked(bytes);
		CU_ASSERT_EQUAL(o->end, BODY_END);
		CU_ASSERT(trailers_are(o, "A: 1\r\nB: 2\r\n"));
	}
}

/* Heads know them, and yet they decide nothing: whoever sends them late is heard. */
static void fields_that_heads_know_and_that_decide_nothing_are_kept_in_trailers(void)
{
	const struct outcome *o = chunked("0\r\nUser-Agent: a\r\nTE: x\r\nReferer: http://b/\r\n\r\n");
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT(trailers_are(o, "User-Agent: a\r\nReferer: http://b/\r\n"));
}

static void trailers_obey_the_grammar_of_heads(void)
{
	static const char *const list[] = {
		"0\r\nA : b\r\n\r\n", "0\r\n A: b\r\n\r\n", "0\r\nA: b\r\n c\r\n\r\n", "0\r\nA\r\n\r\n",
		"0\r\n: b\r\n\r\n", "0\r\nA: \x01\r\n\r\n", "0\r\nContent-Length : 5\r\n\r\n",
		"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
		CU_ASSERT_EQUAL(chunked(list[i])->end, BODY_BAD);
	CU_ASSERT_EQUAL(reads(HTTP_CHUNKED, 0, "0\r\nA: \0\r\n\r\n", 12)->end, BODY_BAD);
}

static void trailers_are_bounded_on_the_wire_kept_or_not(void)
{
	static const char *const names[] = { "A: ", "TE:" };
	static char bytes[BODY_TRAILERS_MAX + 64];
	for (size_t k = 0; k < 2; k++)
		for (size_t length = BODY_TRAILERS_MAX; length <= BODY_TRAILERS_MAX + 1; length++) {
			/* Two lines and the empty one make length bytes. */
			char *at = stpcpy(bytes, "0\r\nB: c\r\n");
			at = stpcpy(at, names[k]);
			memset(at, 'v', length - 6 - 3 - 4);
			strcpy(at + length - 6 - 3 - 4, "\r\n\r\n");
			const struct outcome *o = chunked(bytes);
			CU_ASSERT_EQUAL(o->end, length > BODY_TRAILERS_MAX ? BODY_BAD : BODY_END);
			if (o->end == BODY_END)
				CU_ASSERT_EQUAL(o->trailers_length, k == 0 ? BODY_TRAILERS_MAX - 2 : 6);
		}
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void a_chunk_head_is_the_length_in_hex(void)
{
	static const struct {
		size_t length;
		const char *head;
	} list[] = {
		{ 1, "1\r\n" }, { 15, "f\r\n" }, { 16, "10\r\n" }, { 0x1a2b, "1a2b\r\n" }, { 65536, "10000\r\n" },
		{ SIZE_MAX, sizeof(size_t) == 8 ? "ffffffffffffffff\r\n" : "ffffffff\r\n" },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		char out[BODY_CHUNK_HEAD_MAX];
		size_t length = body_chunk_head(out, list[i].length);
		CU_ASSERT_EQUAL(length, strlen(list[i].head));
		CU_ASSERT(memcmp(out, list[i].head, length) == 0);
	}
}

static void what_is_written_in_chunks_is_read_back(void)
{
	static char bytes[20000];
	static char payload[9001];
	size_t at = 0;
	for (size_t i = 0; i < sizeof payload; i++)
		payload[i] = (char)(i * 31);
	for (size_t from = 0, size = 1; from < sizeof payload; from += size, size = size * 2 + 1) {
		if (size > sizeof payload - from)
			size = sizeof payload - from;
		at += body_chunk_head(bytes + at, size);
		memcpy(bytes + at, payload + from, size);
		memcpy(bytes + at + size, "\r\n", 2);
		at += size + 2;
	}
	memcpy(bytes + at, "0\r\n\r\n", 5);
	const struct outcome *o = reads(HTTP_CHUNKED, 0, bytes, at + 5);
	CU_ASSERT_EQUAL(o->end, BODY_END);
	CU_ASSERT(o->payload_length == sizeof payload && memcmp(o->payload, payload, sizeof payload) == 0);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(no_body_ends_at_once_and_takes_nothing),
		TEST(a_body_by_length_is_exactly_so_long),
		TEST(a_body_by_length_that_is_cut_short_has_not_ended),
		TEST(a_body_until_close_takes_everything_and_ends_where_the_stream_does),
		TEST(chunks_are_joined_and_what_follows_the_last_is_left),
		TEST(a_chunked_body_may_be_empty_and_its_payload_may_look_like_framing),
		TEST(a_chunked_body_that_is_cut_short_has_not_ended),
		TEST(a_chunk_size_is_plain_hex_and_bounded),
		TEST(every_line_of_framing_ends_in_cr_lf),
		TEST(what_was_malformed_once_stays_so),
		TEST(an_extension_is_skipped_whatever_visible_characters_it_has_and_is_bounded),
		TEST(a_flood_of_extensions_is_cut_off),
		TEST(trailers_are_kept_ready_to_send),
		TEST(fields_of_framing_routing_and_access_have_no_place_in_trailers),
		TEST(fields_that_heads_know_and_that_decide_nothing_are_kept_in_trailers),
		TEST(trailers_obey_the_grammar_of_heads),
		TEST(trailers_are_bounded_on_the_wire_kept_or_not),
		TEST(a_chunk_head_is_the_length_in_hex),
		TEST(what_is_written_in_chunks_is_read_back),
	};
	return unit_main("body", tests, sizeof tests / sizeof tests[0]);
}
