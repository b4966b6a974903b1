/* Tests of lib/answer.c: what weir says itself is read back by its own strict parser. */
#include <string.h>

#include "lib/answer.h"
#include "lib/clock.h"
#include "lib/http.h"
#include "lib/ratelimit.h"
#include "unit.h"

struct said {
	char bytes[ANSWER_MAX];
	size_t length, body_bytes, head_length;
	struct http_head head;
	bool is_sound;
};

static void say(const struct answer *answer, struct said *said)
{
	struct http_scan scan = { .is_response = true };
	said->length = answer_write(answer, said->bytes, &said->body_bytes);
	said->is_sound = said->length <= ANSWER_MAX &&
	                 http_scan(&scan, said->bytes, said->length, &said->head_length) == HTTP_SCAN_COMPLETE &&
	                 http_parse_response(said->bytes, said->head_length, HTTP_GET, &said->head).status == 0;
}

static bool has_field(const struct said *said, const char *name, const char *value)
{
	const struct http_field *field = http_find_name(&said->head, name);
	return field != NULL && field->value.length == strlen(value) &&
	       memcmp(field->value.at, value, strlen(value)) == 0;
}

static bool body_is(const struct said *said, const char *body)
{
	return said->body_bytes == strlen(body) && said->head_length + said->body_bytes == said->length &&
	       memcmp(said->bytes + said->head_length, body, said->body_bytes) == 0;
}

static void an_answer_is_as_long_as_it_says(void)
{
	struct said said;
	say(&(struct answer){ .status = 400, .cause = "http_request_error", .details = "more than one Host" }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_EQUAL(said.head.status, 400);
	CU_ASSERT_EQUAL(said.head.content_length, said.body_bytes);
	CU_ASSERT_TRUE(body_is(&said, "400 Bad Request: more than one Host\n"));
	CU_ASSERT_TRUE(has_field(&said, "Proxy-Status",
	                         "weir; error=http_request_error; details=\"more than one Host\""));
	CU_ASSERT_FALSE(said.head.keep_alive);
}

static void an_answer_says_when_it_was_made(void)
{
	struct said said;
	say(&(struct answer){ .status = 400, .details = "more than one Host", .date_s = 784111777 }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_TRUE(has_field(&said, "Date", "Sun, 06 Nov 1994 08:49:37 GMT"));
}

static void an_answer_to_head_announces_its_body_and_leaves_it_out(void)
{
	struct said said;
	say(&(struct answer){ .status = 500, .body = "All servers is off", .head_only = true }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_EQUAL(said.head.content_length, strlen("All servers is off"));
	CU_ASSERT_TRUE(body_is(&said, ""));
}

static void a_refusal_over_a_limit_is_json_and_says_when_to_come_back(void)
{
	struct said said;
	say(&(struct answer){ .status = 429,
	                      .details = "over threshold",
	                      .over_limit = true,
	                      .retry_after_s = 7,
	                      .keep_alive = true },
	    &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_TRUE(body_is(&said, "{\"overLimit\":{\"code\":429,\"message\":\"over threshold\"}}"));
	CU_ASSERT_TRUE(has_field(&said, "Retry-After", "7"));
	CU_ASSERT_TRUE(has_field(&said, "Content-Type", "application/json"));
	CU_ASSERT_TRUE(said.head.keep_alive);
}

static void a_1_0_client_is_told_that_the_connection_stays(void)
{
	struct said said;
	say(&(struct answer){ .status = 200, .body = "", .keep_alive = true, .says_keep_alive = true }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_TRUE(has_field(&said, "Connection", "keep-alive"));
}

static void further_fields_are_written_whole(void)
{
	struct said said;
	say(&(struct answer){ .status = 405, .details = "no", .fields = "Allow: GET, HEAD\r\nX-More: 1\r\n" }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_TRUE(has_field(&said, "Allow", "GET, HEAD"));
	CU_ASSERT_TRUE(has_field(&said, "X-More", "1"));
}

static void the_fields_of_many_limits_are_written_whole(void)
{
	static struct ratelimit limits[8];
	char fields[RATELIMIT_MAX];
	struct said said;
	for (size_t i = 0; i < 8; i++)
		limits[i] = (struct ratelimit){ .name = "limit.some_name", .quota = 100, .window_us = US_PER_S,
			                        .reset_us = US_PER_S };
	CU_ASSERT_TRUE(ratelimit_write(limits, 8, true, true, fields) > 500);
	say(&(struct answer){ .status = 429, .cause = "http_request_denied", .details = "over limit.some_name",
	                      .over_limit = true, .retry_after_s = 1, .fields = fields }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_TRUE(has_field(&said, "RateLimit-Reset", "1"));
	CU_ASSERT_TRUE(has_field(&said, "Connection", "close"));
	CU_ASSERT_TRUE(body_is(&said, "{\"overLimit\":{\"code\":429,\"message\":\"over limit.some_name\"}}"));
}

static void an_answer_with_too_much_to_say_is_cut_and_still_sound(void)
{
	char much[4000];
	struct said said;
	memset(much, 'x', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	say(&(struct answer){ .status = 503, .body = much }, &said);
	CU_ASSERT_TRUE_FATAL(said.is_sound);
	CU_ASSERT_EQUAL(said.head.content_length, said.body_bytes);
	CU_ASSERT_EQUAL(said.head_length + said.body_bytes, said.length);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(an_answer_is_as_long_as_it_says),
		TEST(an_answer_says_when_it_was_made),
		TEST(an_answer_to_head_announces_its_body_and_leaves_it_out),
		TEST(a_refusal_over_a_limit_is_json_and_says_when_to_come_back),
		TEST(a_1_0_client_is_told_that_the_connection_stays),
		TEST(further_fields_are_written_whole),
		TEST(the_fields_of_many_limits_are_written_whole),
		TEST(an_answer_with_too_much_to_say_is_cut_and_still_sound),
	};
	return unit_main("answer", tests, sizeof tests / sizeof tests[0]);
}
