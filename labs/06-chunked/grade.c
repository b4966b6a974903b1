/* grade.c: lab 6's graded tests: one stream, all the ways in which a network may cut it.
 *
 *      "5\r\nhello\r\n0\r\n\r\n"   whole; cut in two at each place; in three at each two; byte by byte; at random
 *
 * must give the same payload, the same trailers and the same end each time. Each piece lies in memory of its own
 * size, so that a sanitizer (make lab N=6 CFLAGS=-fsanitize=address) sees a read past its end.
 */
#include "lib/body.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "labs/grade.h"

#define PAYLOAD_MAX 8192u
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct outcome {
	enum body_event end;
	size_t used, payload_length, trailers_length;
	char payload[PAYLOAD_MAX], trailers[BODY_TRAILERS_MAX];
	bool may_end, went_wrong; /* went_wrong: an answer that makes no sense */
};

static const struct good {
	const char *bytes, *payload, *trailers;
} good[] = {
	{ "0\r\n\r\n", "", "" },
	{ "5\r\nhello\r\n0\r\n\r\n", "hello", "" },
	{ "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "abc", "" },
	{ "A\r\n0123456789\r\n0\r\n\r\n", "0123456789", "" },
	{ "a\r\n0123456789\r\n0\r\n\r\n", "0123456789", "" },
	{ "10\r\n0123456789abcdef\r\n0\r\n\r\n", "0123456789abcdef", "" },
	{ "0005\r\nhello\r\n00\r\n\r\n", "hello", "" },
	{ "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "" },
	{ "3\r\n0\r\n\r\n2\r\nab\r\n0\r\n\r\n", "0\r\nab", "" },
	{ "5;x\r\nhello\r\n0;y=z\r\n\r\n", "hello", "" },
	{ "5;name=\"a;b\"\r\nhello\r\n6;a;b;c\r\n world\r\n0\r\n\r\n", "hello world", "" },
	{ "2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n", "ab", "X-Sum: 1\r\n" },
	{ "2\r\nab\r\n0\r\nX-Sum: 1\r\nX-More: two\r\n\r\n", "ab", "X-Sum: 1\r\nX-More: two\r\n" },
};

static const struct bad {
	const char *bytes, *what;
} bad[] = {
	{ "\r\nhello\r\n0\r\n\r\n", "no size" },
	{ "g\r\nhello\r\n0\r\n\r\n", "no hex digit" },
	{ "0x5\r\nhello\r\n0\r\n\r\n", "0x" },
	{ "+5\r\nhello\r\n0\r\n\r\n", "a sign" },
	{ "-5\r\nhello\r\n0\r\n\r\n", "a sign" },
	{ " 5\r\nhello\r\n0\r\n\r\n", "a blank before the size" },
	{ "5 \r\nhello\r\n0\r\n\r\n", "a blank behind the size" },
	{ ";x\r\nhello\r\n0\r\n\r\n", "an extension without a size" },
	{ "5\nhello\r\n0\r\n\r\n", "LF without CR behind the size" },
	{ "5\rhello\r\n0\r\n\r\n", "CR without LF behind the size" },
	{ "5\r\nhello0\r\n\r\n", "no line end behind the payload" },
	{ "5\r\nhello\n0\r\n\r\n", "LF without CR behind the payload" },
	{ "5\r\nhello!!0\r\n\r\n", "two other bytes where the line end should be" },
	{ "5\r\nhello world\r\n0\r\n\r\n", "more payload than was said" },
	{ "10000000000000005\r\nhello\r\n0\r\n\r\n", "a size that is 5 modulo 2^64" },
	{ "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "a size of 17 digits" },
	{ "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "a size of nearly 2^64" },
	{ "5;a\x01"
	  "b\r\nhello\r\n0\r\n\r\n",
	  "a control character in an extension" },
	{ "5;a\nb\r\nhello\r\n0\r\n\r\n", "LF in an extension" },
	{ "0\r\nX-Sum 1\r\n\r\n", "a trailer without a colon" },
	{ "0\r\n: 1\r\n\r\n", "a trailer without a name" },
	{ "0\r\n\n", "LF without CR at the end" },
};

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* A stream as C would write it, in one of a few places in turn. */
static const char *shown(const char *bytes, size_t length)
{
	static char text[4][400];
	static unsigned turn;
	char *out = text[turn++ % 4];
	size_t at = 0;

	for (size_t i = 0; i < length && at < 380; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c == '\r' || c == '\n')
			at += (size_t)sprintf(out + at, c == '\r' ? "\\r" : "\\n");
		else
			at += (size_t)sprintf(out + at, c < 32 || c > 126 ? "\\x%02x" : "%c", c);
	}
	sprintf(out + at, length > 0 && at >= 380 ? "..." : "%s", "");
	return out;
}

static void read_piece(struct body *body, const char *bytes, size_t length, struct outcome *o)
{
	char *piece = malloc(length > 0 ? length : 1);
	size_t at = 0;

	if (piece == NULL)
		abort();
	memcpy(piece, bytes, length);
	do {
		size_t used = 0;
		struct http_text data = { NULL, 0 };

		o->end = body_read(body, piece + at, length - at, &used, &data);
		if (used > length - at || (o->end == BODY_MORE && used != length - at) ||
		    (o->end == BODY_DATA &&
		     (data.length == 0 || data.length > used || data.at < piece + at ||
		      data.at + data.length > piece + at + used || o->payload_length + data.length > PAYLOAD_MAX))) {
			o->went_wrong = true;
			break;
		}
		if (o->end == BODY_DATA) {
			memcpy(o->payload + o->payload_length, data.at, data.length);
			o->payload_length += data.length;
		}
		at += used;
	} while (o->end == BODY_DATA);
	o->used += at;
	free(piece);
}

/* cuts: where a piece ends, ascending; the last piece ends with the stream. */
static void read_cut(const char *bytes, size_t length, const size_t *cuts, size_t cut_count, struct outcome *o)
{
	struct body body;
	size_t from = 0;

	memset(o, 0, sizeof *o);
	body_begin(&body, HTTP_CHUNKED, 0);
	for (size_t i = 0; i <= cut_count && (i == 0 || o->end == BODY_MORE) && !o->went_wrong; i++) {
		size_t to = i < cut_count ? cuts[i] : length;

		read_piece(&body, bytes + from, to - from, o);
		from = to;
	}
	o->may_end = body_may_end_here(&body);
	o->trailers_length = body.trailers_length <= BODY_TRAILERS_MAX ? body.trailers_length : 0;
	memcpy(o->trailers, body.trailers, o->trailers_length);
}

static const char *name_of(const struct outcome *o)
{
	static const char *const names[] = { "BODY_MORE", "BODY_DATA", "BODY_END", "BODY_BAD" };

	return o->went_wrong        ? "an answer that cannot be (used or data point outside of the bytes)" :
	       (unsigned)o->end < 4 ? names[o->end] :
	                              "no event";
}

/* False, with a text, when what came of it is not what is written in g. */
static bool is_right(const struct good *g, const struct outcome *o, const char *how, bool with_trailers)
{
	size_t payload = strlen(g->payload), trailers = strlen(g->trailers);

	if (o->went_wrong || o->end != BODY_END)
		return grade_check(false, "\"%s\" %s: %s, and it is a whole body", shown(g->bytes, strlen(g->bytes)),
		                   how, name_of(o));
	if (o->payload_length != payload || memcmp(o->payload, g->payload, payload) != 0)
		return grade_check(false, "\"%s\" %s: the payload is \"%s\", and not \"%s\"",
		                   shown(g->bytes, strlen(g->bytes)), how, shown(o->payload, o->payload_length),
		                   shown(g->payload, payload));
	if (!with_trailers)
		return true;
	return grade_check(o->trailers_length == trailers && memcmp(o->trailers, g->trailers, trailers) == 0,
	                   "\"%s\" %s: the trailers are \"%s\", and not \"%s\"", shown(g->bytes, strlen(g->bytes)), how,
	                   shown(o->trailers, o->trailers_length), shown(g->trailers, trailers));
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void a_body_in_one_piece(void)
{
	static struct outcome o;

	for (size_t i = 0; i < LENGTH(good); i++) {
		read_cut(good[i].bytes, strlen(good[i].bytes), NULL, 0, &o);
		if (!is_right(&good[i], &o, "in one piece", false))
			return;
	}
}

static void a_body_byte_by_byte(void)
{
	static struct outcome o;
	size_t cuts[256];

	for (size_t i = 0; i < 256; i++)
		cuts[i] = i + 1;
	for (size_t i = 0; i < LENGTH(good); i++) {
		size_t length = strlen(good[i].bytes);

		read_cut(good[i].bytes, length, cuts, length - 1, &o);
		if (!is_right(&good[i], &o, "byte by byte", false))
			return;
	}
}

/* Points for as many streams as survive all their cuts. */
static void a_body_cut_in_two_anywhere(void)
{
	static struct outcome o;
	size_t whole = 0;

	for (size_t i = 0; i < LENGTH(good); i++) {
		size_t length = strlen(good[i].bytes), cut = 1;
		char how[120];

		for (; cut < length; cut++) {
			read_cut(good[i].bytes, length, &cut, 1, &o);
			if (o.went_wrong || o.end != BODY_END || o.payload_length != strlen(good[i].payload) ||
			    memcmp(o.payload, good[i].payload, o.payload_length) != 0)
				break;
		}
		if (cut == length) {
			whole++;
			continue;
		}
		snprintf(how, sizeof how, "cut to \"%s\" and \"%s\"", shown(good[i].bytes, cut),
		         shown(good[i].bytes + cut, length - cut));
		grade_partial((int)(6 * whole / LENGTH(good)), "%s: %s, payload \"%s\"", how, name_of(&o),
		              shown(o.payload, o.payload_length));
	}
	if (whole < LENGTH(good))
		grade_partial((int)(6 * whole / LENGTH(good)), "%zu of %zu streams survive each cut", whole,
		              LENGTH(good));
}

static void a_body_cut_in_three_anywhere(void)
{
	static struct outcome o;

	for (size_t i = 0; i < LENGTH(good); i++) {
		size_t length = strlen(good[i].bytes), cuts[2];
		char how[64];

		for (cuts[0] = 0; cuts[0] <= length; cuts[0]++)
			for (cuts[1] = cuts[0]; cuts[1] <= length; cuts[1]++) {
				read_cut(good[i].bytes, length, cuts, 2, &o);
				snprintf(how, sizeof how, "cut behind %zu and %zu bytes", cuts[0], cuts[1]);
				if (!is_right(&good[i], &o, how, false))
					return;
			}
	}
}

static void what_follows_the_body_is_left(void)
{
	static const char next[] = "GET / HTTP/1.1\r\n";
	static struct outcome o;
	char bytes[256];

	for (size_t i = 0; i < LENGTH(good); i++) {
		size_t length = strlen(good[i].bytes);

		memcpy(bytes, good[i].bytes, length);
		memcpy(bytes + length, next, sizeof next - 1);
		read_cut(bytes, length + sizeof next - 1, NULL, 0, &o);
		if (!grade_check(o.end == BODY_END && o.used == length,
		                 "\"%s\": the body has %zu bytes, and %zu were taken: the others belong to the next "
		                 "message (%s)",
		                 shown(bytes, length + sizeof next - 1), length, o.used, name_of(&o)))
			return;
	}
}

static void a_body_that_is_cut_short_is_not_whole(void)
{
	static struct outcome o;

	for (size_t i = 0; i < LENGTH(good); i++)
		for (size_t length = 0; length < strlen(good[i].bytes); length++) {
			read_cut(good[i].bytes, length, NULL, 0, &o);
			if (!grade_check(o.end == BODY_MORE && !o.may_end,
			                 "\"%s\", and then the end of the stream: %s, and body_may_end_here() says %s",
			                 shown(good[i].bytes, length), name_of(&o), o.may_end ? "yes" : "no"))
				return;
		}
}

/* Points for as many as are refused. */
static void hostile_framing_is_refused(void)
{
	static struct outcome whole, split;
	size_t refused = 0;

	for (size_t i = 0; i < LENGTH(bad); i++) {
		size_t length = strlen(bad[i].bytes), cuts[256];

		for (size_t k = 0; k < length; k++)
			cuts[k] = k + 1;
		read_cut(bad[i].bytes, length, NULL, 0, &whole);
		read_cut(bad[i].bytes, length, cuts, length - 1, &split);
		if (whole.end == BODY_BAD && split.end == BODY_BAD && !whole.went_wrong && !split.went_wrong)
			refused++;
		else
			grade_partial((int)(8 * refused / LENGTH(bad)),
			              "%s, \"%s\": %s in one piece, %s byte by byte, and BODY_BAD is right",
			              bad[i].what, shown(bad[i].bytes, length), name_of(&whole), name_of(&split));
	}
	if (refused < LENGTH(bad))
		grade_partial((int)(8 * refused / LENGTH(bad)), "%zu of %zu were refused", refused, LENGTH(bad));
}

static void a_bad_body_stays_bad(void)
{
	struct body body;
	size_t used;
	struct http_text data;

	body_begin(&body, HTTP_CHUNKED, 0);
	grade_check(body_read(&body, "x\r\n", 3, &used, &data) == BODY_BAD && body.why != NULL,
	            "\"x\" is no size: BODY_BAD, with a reason in why");
	grade_check(body_read(&body, "5\r\nhello\r\n0\r\n\r\n", 15, &used, &data) == BODY_BAD,
	            "after BODY_BAD nothing can be trusted any more");
	grade_check(!body_may_end_here(&body), "a bad body may not end anywhere");
}

static enum body_event read_flood(const char *head, char filler, size_t count, const char *rest)
{
	size_t length = strlen(head) + count + strlen(rest);
	char *bytes = malloc(length + 1);
	struct body body;
	struct http_text data;
	size_t at = 0, used;
	enum body_event event;

	if (bytes == NULL)
		abort();
	sprintf(bytes, "%s%*s%s", head, (int)count, "", rest);
	memset(bytes + strlen(head), filler, count);
	body_begin(&body, HTTP_CHUNKED, 0);
	do {
		event = body_read(&body, bytes + at, length - at, &used, &data);
		at += used;
	} while (event == BODY_DATA && at <= length);
	free(bytes);
	return event;
}

static void floods_end(void)
{
	static char many[40000];

	grade_check(read_flood("1;", 'x', 200, "\r\na\r\n0\r\n\r\n") == BODY_END,
	            "an extension of 200 bytes is allowed");
	grade_check(read_flood("1;", 'x', 100000, "\r\na\r\n0\r\n\r\n") == BODY_BAD,
	            "an extension of 100000 bytes is read to its end (BODY_EXTENSION_MAX)");
	grade_check(read_flood("0\r\nX: ", 'x', 8000, "\r\n\r\n") == BODY_BAD,
	            "a trailer of 8000 bytes is taken (BODY_TRAILERS_MAX)");
	grade_check(read_flood("", '0', 5000, "1\r\na\r\n0\r\n\r\n") == BODY_BAD,
	            "a size with 5000 zeros before it is read to its end");
	for (size_t i = 0; i + 210 < sizeof many - 10;) {
		memcpy(many + i, "1;", 2);
		memset(many + i + 2, 'x', 200);
		memcpy(many + i + 202, "\r\na\r\n", 6);
		many[i += 207] = '\0';
	}
	grade_check(read_flood(many, 'x', 0, "0\r\n\r\n") == BODY_BAD,
	            "192 chunks of a byte each, with extensions of 200 bytes: a flood of 38 KiB for 192 bytes "
	            "(BODY_EXTENSIONS_MAX)");
}

static void trailers_are_kept_and_those_about_framing_are_not(void)
{
	static const struct good framing = {
		"1\r\na\r\n0\r\nX-A: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nX-B: 2\r\n\r\n", "a",
		"X-A: 1\r\nX-B: 2\r\n"
	};
	static struct outcome o;

	for (size_t i = 0; i < LENGTH(good); i++) {
		read_cut(good[i].bytes, strlen(good[i].bytes), NULL, 0, &o);
		if (!is_right(&good[i], &o, "in one piece", true))
			return;
	}
	for (size_t cut = 0; cut < strlen(framing.bytes); cut++) {
		read_cut(framing.bytes, strlen(framing.bytes), &cut, 1, &o);
		if (!is_right(&framing, &o, "cut in two", true))
			return;
	}
}

static void what_we_write_can_be_read_again(void)
{
	static char payload[2000], bytes[8000];
	static struct outcome o;
	uint64_t state = grade_seed();

	for (unsigned round = 0; round < 300; round++) {
		size_t length = 0, at = 0, cuts[64], cut_count = 0;

		while (at < sizeof payload) {
			state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			size_t count = 1 + (size_t)(state >> 40) % 300;

			count = count < sizeof payload - at ? count : sizeof payload - at;
			length += body_chunk_head(bytes + length, count);
			for (size_t i = 0; i < count; i++)
				bytes[length++] = payload[at++] = (char)(state >> (i % 56));
			length += (size_t)sprintf(bytes + length, "\r\n");
			if (cut_count < 60)
				cuts[cut_count++] = length - (size_t)(state >> 33) % 3;
		}
		length += (size_t)sprintf(bytes + length, "0\r\n\r\n");
		read_cut(bytes, length, cuts, cut_count, &o);
		if (!grade_check(o.end == BODY_END && o.payload_length == sizeof payload &&
		                         memcmp(o.payload, payload, sizeof payload) == 0,
		                 "round %u, seed %llu: 2000 bytes in chunks: %s, with %zu bytes of payload", round,
		                 (unsigned long long)grade_seed(), name_of(&o), o.payload_length))
			return;
	}
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(4, a_body_in_one_piece),
		GRADE(4, a_body_byte_by_byte),
		GRADE(6, a_body_cut_in_two_anywhere),
		GRADE(3, a_body_cut_in_three_anywhere),
		GRADE(4, what_follows_the_body_is_left),
		GRADE(4, a_body_that_is_cut_short_is_not_whole),
		GRADE(8, hostile_framing_is_refused),
		GRADE(2, a_bad_body_stays_bad),
		GRADE(4, floods_end),
		GRADE(4, trailers_are_kept_and_those_about_framing_are_not),
		GRADE(3, what_we_write_can_be_read_again),
	};

	return grade_main("06-chunked", tests, sizeof tests / sizeof *tests, argc, argv);
}
