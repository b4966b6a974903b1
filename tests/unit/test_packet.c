/* test_packet.c: messages are found in any stream, bounded, and say what they say.
 *
 * Each stream is read whole, and in pieces of every size: any division over reads gives the same events.
 */
#include "lib/packet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#define EVENTS_BYTES 65536

/* Everything that a stream is read as, as text: "<message>" for each one, "!fault" for each fault, "…" for a message
   that is not whole. */
static const char *read_all(const char *stream, size_t length, size_t piece_bytes, size_t limit_bytes,
                            char out[EVENTS_BYTES])
{
	struct packet_reader reader;
	size_t at = 0, written = 0;
	packet_reader_init(&reader, limit_bytes);
	out[0] = '\0';
	while (at < length) {
		size_t used, piece = length - at < piece_bytes ? length - at : piece_bytes;
		enum packet_event event = packet_read(&reader, stream + at, piece, &used);
		CU_ASSERT_TRUE_FATAL(used <= piece && (event != PACKET_MORE || used == piece));
		at += used;
		if (event == PACKET_WHOLE)
			written += (size_t)snprintf(out + written, EVENTS_BYTES - written, "<%.*s>", (int)reader.length,
			                            reader.bytes);
		if (event == PACKET_FAULT)
			written += (size_t)snprintf(out + written, EVENTS_BYTES - written, "!%s", reader.fault);
		CU_ASSERT_TRUE_FATAL(written < EVENTS_BYTES);
	}
	if (!packet_reader_is_between(&reader))
		snprintf(out + written, EVENTS_BYTES - written, "…");
	packet_reader_free(&reader);
	return out;
}

static void check_stream(const char *stream, size_t length, const char *expected)
{
	static char out[EVENTS_BYTES];
	for (size_t piece_bytes = 1; piece_bytes <= length; piece_bytes++) {
		const char *got = read_all(stream, length, piece_bytes, PACKET_BYTES_MAX, out);
		CU_ASSERT_STRING_EQUAL(got, expected);
		if (strcmp(got, expected) != 0) {
			printf("pieces of %zu of %s: %s instead of %s\n", piece_bytes, stream, got, expected);
			return;
		}
	}
}

static void check(const char *stream, const char *expected)
{
	check_stream(stream, strlen(stream), expected);
}

/* ---- finding messages ------------------------------------------------------------------------------------------ */

static void messages_are_found_in_any_framing(void)
{
	check("{\"a\":1}", "<{\"a\":1}>");
	check("{\"a\":1}{\"b\":2}{\"c\":3}", "<{\"a\":1}><{\"b\":2}><{\"c\":3}>");
	check("{\"a\":1}\n{\"b\":2}\r\n\r\n \t{\"c\":3}\n", "<{\"a\":1}><{\"b\":2}><{\"c\":3}>");
	check("{ \"a\" :\n\t[ 1 , 2 ,{ } ] ,\r\n \"b\" : \"x y\" }", "<{\"a\":[1,2,{}],\"b\":\"x y\"}>");
	check("\n\n", "");
	check("{\"a\":", "…");
	check("{}", "<{}>");
}

static void a_c_programs_nul_between_messages_is_a_blank(void)
{
	static const char stream[] = "{\"a\":1}\0{\"b\":2}\0\0\0";
	check_stream(stream, sizeof stream - 1, "<{\"a\":1}><{\"b\":2}>");
}

static void brackets_and_quotes_in_texts_do_not_count(void)
{
	check("{\"}{][\":\"]}\"}{}", "<{\"}{][\":\"]}\"}><{}>");
	check("{\"a\":\"\\\"}\"}{}", "<{\"a\":\"\\\"}\"}><{}>");
	check("{\"a\":\"\\\\\"}{}", "<{\"a\":\"\\\\\"}><{}>");
	check("{\"a\":\"\\u007b\\\\\\\"\"}{}", "<{\"a\":\"\\u007b\\\\\\\"\"}><{}>");
	check("{\"\xc3\xa9\":\"\xe2\x82\xac { \"}", "<{\"\xc3\xa9\":\"\xe2\x82\xac { \"}>");
}

static void blanks_go_but_two_words_never_grow_together(void)
{
	check("{\"a\": 1 2}", "<{\"a\":1 2}>");
	check("{\"a\": tr \n ue }", "<{\"a\":tr ue}>");
	check("{\"a\" \"b\"}", "<{\"a\"\"b\"}>");
	check("{\"a\":\"  two  blanks  \"}", "<{\"a\":\"  two  blanks  \"}>");
}

static void garbage_is_one_fault_and_the_next_message_is_found(void)
{
	check("hello\n{\"a\":1}", "!this is no JSON object<{\"a\":1}>");
	check("hello{\"a\":1}", "!this is no JSON object<{\"a\":1}>");
	check("one\ntwo\n", "!this is no JSON object!this is no JSON object");
	check("}{}", "!this is no JSON object<{}>");
	check("{},{}", "<{}>!this is no JSON object<{}>");
	check("12 34", "!this is no JSON object");
	check("[{\"a\":1}]{}", "<[{\"a\":1}]><{}>"); /* whole; that it is no object is said by who parses it */
	check("{\"a\":[}{}", "!bad JSON: a bracket is closed by one of the other kind<{}>");
	check("{\"a\":[1}]}\n{}", "!bad JSON: a bracket is closed by one of the other kind<{}>");
}

static void a_text_that_runs_over_its_line_gives_up_that_line_only(void)
{
	check("{\"a\":\"x}\n{\"b\":2}\n", "!bad JSON: a text goes on over the end of its line<{\"b\":2}>");
	check("{\"a\":\"x\ty\"}{\"b\":2}", "!bad JSON: a control character in a text<{\"b\":2}>");
	check("{\"a\":\"x\ty\n{\"b\":2}", "!bad JSON: a control character in a text<{\"b\":2}>");
}

static void depth_is_bounded_and_the_stream_goes_on_behind(void)
{
	char stream[2 * 3000 + 64], expected[256];
	for (unsigned depth = PACKET_DEPTH_MAX - 1; depth <= PACKET_DEPTH_MAX + 1; depth++) {
		size_t at = 0;
		for (unsigned i = 0; i < depth; i++)
			stream[at++] = '[';
		for (unsigned i = 0; i < depth; i++)
			stream[at++] = ']';
		snprintf(stream + at, sizeof stream - at, "{\"b\":2}");
		if (depth <= PACKET_DEPTH_MAX)
			snprintf(expected, sizeof expected, "<%.*s><{\"b\":2}>", (int)at, stream);
		else
			snprintf(expected, sizeof expected, "!the message is nested too deeply<{\"b\":2}>");
		check(stream, expected);
	}
	/* As many as run through a thread's stack in jansson. */
	memset(stream, '[', 3000);
	memset(stream + 3000, ']', 3000);
	snprintf(stream + 6000, sizeof stream - 6000, "{}");
	static char out[EVENTS_BYTES];
	CU_ASSERT_STRING_EQUAL(read_all(stream, strlen(stream), 7, PACKET_BYTES_MAX, out),
	                       "!the message is nested too deeply<{}>");
}

static void the_fault_is_told_at_once_and_not_at_the_end(void)
{
	struct packet_reader reader;
	char brackets[64];
	size_t used;
	memset(brackets, '{', sizeof brackets);
	packet_reader_init(&reader, PACKET_BYTES_MAX);
	CU_ASSERT_EQUAL(packet_read(&reader, brackets, sizeof brackets, &used), PACKET_FAULT);
	CU_ASSERT_EQUAL(used, PACKET_DEPTH_MAX + 1);
	packet_reader_free(&reader);
}

static void the_number_of_values_is_bounded(void)
{
	for (unsigned values = PACKET_VALUES_MAX - 1; values <= PACKET_VALUES_MAX + 1; values++) {
		static char stream[3 * PACKET_VALUES_MAX], out[EVENTS_BYTES];
		size_t at = 0;
		stream[at++] = '[';
		for (unsigned i = 1; i < values; i++) /* the bracket is one, and each comma makes one more */
			stream[at++] = ',';
		snprintf(stream + at, sizeof stream - at, "]{}");
		read_all(stream, strlen(stream), strlen(stream), PACKET_BYTES_MAX, out);
		CU_ASSERT_EQUAL(strcmp(out, "!the message has too many values<{}>") == 0, values > PACKET_VALUES_MAX);
	}
}

/* Brackets without a comma between them are no JSON, and that is found out when the message is whole: until then they count. */
static void brackets_count_as_values_too(void)
{
	for (unsigned values = PACKET_VALUES_MAX; values <= PACKET_VALUES_MAX + 1; values++) {
		static char stream[3 * PACKET_VALUES_MAX], out[EVENTS_BYTES];
		size_t at = 0;
		stream[at++] = '[';
		for (unsigned i = 1; i < values; i++) {
			stream[at++] = '{';
			stream[at++] = '}';
		}
		snprintf(stream + at, sizeof stream - at, "]{}");
		read_all(stream, strlen(stream), strlen(stream), PACKET_BYTES_MAX, out);
		CU_ASSERT_EQUAL(strcmp(out, "!the message has too many values<{}>") == 0, values > PACKET_VALUES_MAX);
	}
}

static void length_is_bounded_without_the_blanks_and_the_stream_goes_on_behind(void)
{
	static char out[EVENTS_BYTES];
	static const char fits[] = "{ \"a\" : \"0123456789\" }{}", too_long[] = "{\"a\":\"01234567890\"}{}";
	for (size_t piece = 1; piece < sizeof fits; piece++) {
		CU_ASSERT_STRING_EQUAL(read_all(fits, strlen(fits), piece, 18, out), "<{\"a\":\"0123456789\"}><{}>");
		CU_ASSERT_STRING_EQUAL(read_all(too_long, strlen(too_long), piece, 18, out),
		                       "!the message is too long<{}>");
		/* A blank that keeps two words apart counts, too. */
		CU_ASSERT_STRING_EQUAL(read_all("{\"a\":1\n 2}{}", 13, piece, 6, out), "!the message is too long<{}>");
	}
}

static void a_payload_of_a_mebibyte_fits_however_it_is_spelt(void)
{
	static const char *const spellings[] = { "x", "\\u0001", "\xc3\xa9" };
	for (size_t s = 0; s < 3; s++) {
		size_t one = strlen(spellings[s]), times = s == 2 ? PACKET_PAYLOAD_MAX / 2 : PACKET_PAYLOAD_MAX,
		       length = 0, used;
		char *stream = malloc(one * (times + 1) + 256), why[PACKET_WHY_MAX];
		struct packet packet;
		CU_ASSERT_PTR_NOT_NULL_FATAL(stream);
		for (size_t extra = 0; extra < 2; extra++) {
			struct packet_reader reader;
			packet_reader_init(&reader, PACKET_BYTES_MAX);
			length = (size_t)sprintf(stream, "{\"type\":0,\"srcid\":1,\"privPoliId\":1,\"payload\":\"");
			for (size_t i = 0; i < times + extra; i++, length += one)
				memcpy(stream + length, spellings[s], one);
			length += (size_t)sprintf(stream + length, "\"}");
			CU_ASSERT_EQUAL_FATAL(packet_read(&reader, stream, length, &used), PACKET_WHOLE);
			bool good = packet_parse(reader.bytes, reader.length, &packet, why);
			CU_ASSERT_EQUAL(good, extra == 0);
			if (good) {
				CU_ASSERT_EQUAL(packet.payload_bytes, PACKET_PAYLOAD_MAX);
				packet_release(&packet);
			}
			packet_reader_free(&reader);
		}
		free(stream);
	}
}

/* ---- what they say --------------------------------------------------------------------------------------------- */

static bool parse(const char *text, struct packet *packet, char why[PACKET_WHY_MAX])
{
	return packet_parse(text, strlen(text), packet, why);
}

static void numbers_are_read_as_numbers_and_as_texts(void)
{
	static const char *const messages[] = {
		"{\"type\":0,\"srcid\":7,\"privPoliId\":111,\"payloadsize\":3,\"payload\":\"abc\"}",
		"{\"type\":\"0\",\"srcid\":\"7\",\"privPoliId\":\"111\",\"payloadsize\":\"3\",\"payload\":\"abc\"}",
		"{\"payload\":\"abc\",\"privPolyId\":111,\"srcid\":\"7\",\"type\":0,\"more\":[null]}",
	};
	for (size_t i = 0; i < 3; i++) {
		struct packet packet;
		char why[PACKET_WHY_MAX];
		CU_ASSERT_TRUE_FATAL(parse(messages[i], &packet, why));
		CU_ASSERT_EQUAL(packet.type, PACKET_MESSAGE);
		CU_ASSERT_STRING_EQUAL(packet.source, "7");
		CU_ASSERT_STRING_EQUAL(packet.policy, "111");
		CU_ASSERT_STRING_EQUAL(packet.payload, "abc");
		CU_ASSERT_EQUAL(packet.payload_bytes, 3);
		packet_release(&packet);
	}
}

static void a_setup_says_who_what_and_where(void)
{
	static const char *const setups[] = {
		"{\"type\":1,\"id\":100,\"privPolyId\":111,\"listenport\":2105}",
		"{\"type\":\"1\",\"id\":\"100\",\"privPoliId\":\"111\",\"listenport\":\"2105\"}"
	};
	for (size_t i = 0; i < 2; i++) {
		struct packet packet;
		char why[PACKET_WHY_MAX];
		CU_ASSERT_TRUE_FATAL(parse(setups[i], &packet, why));
		CU_ASSERT_EQUAL(packet.type, PACKET_SETUP);
		CU_ASSERT_STRING_EQUAL(packet.source, "100");
		CU_ASSERT_STRING_EQUAL(packet.policy, "111");
		CU_ASSERT_EQUAL(packet.port, 2105);
		packet_release(&packet);
	}
}

static void an_answer_and_an_error_are_read(void)
{
	struct packet packet;
	char why[PACKET_WHY_MAX];
	CU_ASSERT_TRUE_FATAL(
		parse("{\"type\":2,\"srcid\":100,\"destid\":\"7\",\"payloadsize\":1,\"payload\":\"h\"}", &packet, why));
	CU_ASSERT_STRING_EQUAL(packet.destination, "7");
	packet_release(&packet);
	CU_ASSERT_TRUE_FATAL(parse("{\"type\":\"2\",\"srcid\":100,\"payload\":\"h\"}", &packet, why));
	CU_ASSERT_STRING_EQUAL(packet.destination, "");
	packet_release(&packet);
	CU_ASSERT_TRUE_FATAL(parse("{\"type\":\"3\",\"error\":\"no\"}", &packet, why));
	CU_ASSERT_STRING_EQUAL(packet.error, "no");
	packet_release(&packet);
}

static void what_is_wrong_is_said(void)
{
	static const struct {
		const char *text, *why;
	} wrong[] = {
		{ "{}", "type is missing" },
		{ "[]", "no JSON object" },
		{ "{\"type\":4}", "unknown type" },
		{ "{\"type\":-1}", "unknown type" },
		{ "{\"type\":0.0}", "unknown type" },
		{ "{\"type\":null}", "unknown type" },
		{ "{\"type\":\"00\"}", "unknown type" },
		{ "{\"type\":\"message\"}", "unknown type" },
		{ "{\"type\":0,\"privPoliId\":1,\"payload\":\"\"}", "srcid is missing" },
		{ "{\"type\":0,\"srcid\":[],\"privPoliId\":1,\"payload\":\"\"}", "srcid is not understood" },
		{ "{\"type\":0,\"srcid\":\"\",\"privPoliId\":1,\"payload\":\"\"}", "srcid is not understood" },
		{ "{\"type\":0,\"srcid\":\"a\\nb\",\"privPoliId\":1,\"payload\":\"\"}", "srcid is not understood" },
		{ "{\"type\":0,\"srcid\":\"a\\u0000b\",\"privPoliId\":1,\"payload\":\"\"}", "srcid is not understood" },
		{ "{\"type\":0,\"srcid\":1,\"payload\":\"\"}", "privPoliId is missing" },
		{ "{\"type\":0,\"srcid\":1,\"privPoliId\":1}", "payload is missing" },
		{ "{\"type\":0,\"srcid\":1,\"privPoliId\":1,\"payload\":5}", "payload is not understood" },
		{ "{\"type\":1,\"id\":1,\"listenport\":80}", "privPolyId is missing" },
		{ "{\"type\":1,\"id\":1,\"privPolyId\":1}", "listenport is missing" },
		{ "{\"type\":1,\"id\":1,\"privPolyId\":1,\"listenport\":0}", "1 to 65535" },
		{ "{\"type\":1,\"id\":1,\"privPolyId\":1,\"listenport\":65536}", "1 to 65535" },
		{ "{\"type\":1,\"id\":1,\"privPolyId\":1,\"listenport\":\"80x\"}", "1 to 65535" },
		{ "{\"type\":1,\"id\":1,\"privPolyId\":1,\"listenport\":-1}", "1 to 65535" },
		{ "{\"type\":2,\"srcid\":1}", "payload is missing" },
		{ "{\"type\":0,\"type\":1}", "bad JSON: " },
		{ "{\"type\":0,}", "bad JSON: " },
		{ "{type:0}", "bad JSON: " },
		{ "{\"a\":1,\xc3\xa9:2}", "near '\?\?'" },
		{ "{\"a\":\"\xff\"}", "bad JSON: " },
		{ "{\"a\":\"\\ud800\"}", "bad JSON: " },
		{ "{\"a\":99999999999999999999}", "bad JSON: " },
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct packet packet;
		char why[PACKET_WHY_MAX] = "";
		CU_ASSERT_FALSE_FATAL(parse(wrong[i].text, &packet, why));
		CU_ASSERT_PTR_NOT_NULL(strstr(why, wrong[i].why));
		if (strstr(why, wrong[i].why) == NULL)
			printf("%s: %s\n", wrong[i].text, why);
		for (const char *c = why; *c != '\0'; c++)
			CU_ASSERT_TRUE(*c >= ' ' && *c <= '~');
	}
}

static void an_id_has_at_most_63_bytes(void)
{
	for (size_t length = PACKET_ID_MAX - 2; length <= PACKET_ID_MAX; length++) {
		char text[256], id[PACKET_ID_MAX + 1] = "", why[PACKET_WHY_MAX];
		struct packet packet;
		memset(id, 'i', length);
		id[length] = '\0';
		snprintf(text, sizeof text, "{\"type\":0,\"srcid\":\"%s\",\"privPoliId\":1,\"payload\":\"\"}", id);
		bool good = parse(text, &packet, why);
		CU_ASSERT_EQUAL(good, length < PACKET_ID_MAX);
		if (good) {
			CU_ASSERT_STRING_EQUAL(packet.source, id);
			packet_release(&packet);
		}
	}
}

/* ---- saying it ------------------------------------------------------------------------------------------------- */

static void check_text(char *text, size_t length, const char *expected)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	CU_ASSERT_STRING_EQUAL(text, expected);
	CU_ASSERT_EQUAL(length, strlen(expected));
	free(text);
}

static void what_is_written_is_what_the_exercise_wants(void)
{
	size_t length;
	char *text = packet_write_setup("100", "111", 2105, &length);
	check_text(text, length, "{\"type\":\"1\",\"id\":\"100\",\"privPolyId\":\"111\",\"listenport\":\"2105\"}");
	text = packet_write_error("no \"server\"", 0, &length);
	check_text(text, length, "{\"type\":\"3\",\"error\":\"no \\\"server\\\"\"}");
	text = packet_write_error("over threshold", 2, &length);
	check_text(text, length, "{\"type\":\"3\",\"error\":\"over threshold\",\"overLimit\":{\"code\":429,\"message\":"
	                         "\"over threshold\",\"retryAfter\":2}}");
}

static void an_answer_goes_back_to_the_id_as_it_was_written(void)
{
	static const char *const sources[] = { "7", "\"7\"", "\"\xc3\xa9\"" };
	for (size_t i = 0; i < 3; i++) {
		char text[256], expected[256], why[PACKET_WHY_MAX];
		struct packet packet;
		size_t length;
		snprintf(text, sizeof text, "{\"type\":0,\"srcid\":%s,\"privPoliId\":1,\"payload\":\"\"}", sources[i]);
		CU_ASSERT_TRUE_FATAL(parse(text, &packet, why));
		snprintf(expected, sizeof expected,
		         "{\"type\":\"2\",\"srcid\":\"100\",\"destid\":%s,\"payloadsize\":2,\"payload\":\"ab\"}",
		         sources[i]);
		char *answer = packet_write_answer(&packet, "100", "ab", &length);
		check_text(answer, length, expected);
		packet_release(&packet);
	}
}

static void a_message_gets_another_sender_and_keeps_the_rest(void)
{
	static const struct {
		const char *before, *id, *after;
	} cases[] = {
		{ "1", "9", "9" },
		{ "\"1\"", "9", "\"9\"" },
		{ "1", "nine", "\"nine\"" },
		{ "1", "9999999999999999999", "\"9999999999999999999\"" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		static const char form[] = "{\"type\":0,\"srcid\":%s,\"privPoliId\":\"1\",\"payload\":\"a\\u0000b\"}";
		char text[256], expected[256], why[PACKET_WHY_MAX];
		struct packet packet;
		size_t length;
		snprintf(text, sizeof text, form, cases[i].before);
		snprintf(expected, sizeof expected, form, cases[i].after);
		CU_ASSERT_TRUE_FATAL(parse(text, &packet, why));
		CU_ASSERT_EQUAL(packet.payload_bytes, 3);
		char *renamed = packet_write_from(&packet, cases[i].id, &length);
		check_text(renamed, length, expected);
		packet_release(&packet);
	}
}

static void an_excerpt_is_short_printable_and_cut_between_letters(void)
{
	char out[PACKET_EXCERPT_MAX], text[200];
	CU_ASSERT_STRING_EQUAL(packet_excerpt("", 0, out), "\"\"");
	CU_ASSERT_STRING_EQUAL(packet_excerpt("a\x1b[2Jb\n", 7, out), "\"a?[2Jb?\"");
	for (size_t shift = 0; shift < 3; shift++) {
		memset(text, 'x', shift);
		for (size_t i = shift; i + 3 < sizeof text; i += 3)
			memcpy(text + i, "\xe2\x82\xac", 3);
		packet_excerpt(text, 180, out);
		CU_ASSERT_PTR_NOT_NULL(strstr(out, "…\" (180 bytes)"));
		json_t *valid = json_string(out); /* NULL when it is no UTF-8 */
		CU_ASSERT_PTR_NOT_NULL(valid);
		json_decref(valid);
	}
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(messages_are_found_in_any_framing),
		TEST(a_c_programs_nul_between_messages_is_a_blank),
		TEST(brackets_and_quotes_in_texts_do_not_count),
		TEST(blanks_go_but_two_words_never_grow_together),
		TEST(garbage_is_one_fault_and_the_next_message_is_found),
		TEST(a_text_that_runs_over_its_line_gives_up_that_line_only),
		TEST(depth_is_bounded_and_the_stream_goes_on_behind),
		TEST(the_fault_is_told_at_once_and_not_at_the_end),
		TEST(the_number_of_values_is_bounded),
		TEST(brackets_count_as_values_too),
		TEST(length_is_bounded_without_the_blanks_and_the_stream_goes_on_behind),
		TEST(a_payload_of_a_mebibyte_fits_however_it_is_spelt),
		TEST(numbers_are_read_as_numbers_and_as_texts),
		TEST(a_setup_says_who_what_and_where),
		TEST(an_answer_and_an_error_are_read),
		TEST(what_is_wrong_is_said),
		TEST(an_id_has_at_most_63_bytes),
		TEST(what_is_written_is_what_the_exercise_wants),
		TEST(an_answer_goes_back_to_the_id_as_it_was_written),
		TEST(a_message_gets_another_sender_and_keeps_the_rest),
		TEST(an_excerpt_is_short_printable_and_cut_between_letters),
	};
	return unit_main("packet", tests, sizeof tests / sizeof tests[0]);
}
