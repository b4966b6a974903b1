/* test_http.c: what a head may look like, and what it means.
 *
 * Most of it is tables: a head, and the status it earns. The tables are the specification; the RFC paragraph stands
 * beside what is not obvious. The property that matters most is at the end: however the bytes are cut into reads, the
 * same comes out.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/http.h"
#include "unit.h"

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define OK "HTTP/1.1 200 OK\r\n"

/* A head in memory of exactly its size, so that the address sanitizer sees a read past its end. */
struct sample {
	char *bytes;
	size_t length;
	struct http_head head;
	struct http_fault fault;
};

static struct sample request_of(const char *bytes, size_t length)
{
	struct sample s = { .bytes = malloc(length ? length : 1), .length = length };
	if (!s.bytes)
		abort();
	memcpy(s.bytes, bytes, length);
	s.fault = http_parse_request(s.bytes, length, &s.head);
	return s;
}

static struct sample request(const char *bytes)
{
	return request_of(bytes, strlen(bytes));
}

static struct sample response_to(enum http_method method, const char *bytes)
{
	struct sample s = { .bytes = malloc(strlen(bytes)), .length = strlen(bytes) };
	if (!s.bytes)
		abort();
	memcpy(s.bytes, bytes, s.length);
	s.fault = http_parse_response(s.bytes, s.length, method, &s.head);
	return s;
}

static void drop(struct sample *s)
{
	free(s->bytes);
}

static bool same(struct http_text text, const char *expected)
{
	return text.at && text.length == strlen(expected) && memcmp(text.at, expected, text.length) == 0;
}

struct expectation {
	const char *bytes;
	int status; /* 0: accepted */
};

static void expect_requests(const struct expectation *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct sample s = request(list[i].bytes);
		if (s.fault.status != list[i].status)
			fprintf(stderr, "expected %d, got %d (%s) for:\n%s\n", list[i].status, s.fault.status,
			        s.fault.why ? s.fault.why : "accepted", list[i].bytes);
		CU_ASSERT_EQUAL(s.fault.status, list[i].status);
		CU_ASSERT_EQUAL(s.fault.status != 0, s.fault.why != NULL);
		drop(&s);
	}
}

static void expect_responses(enum http_method method, const struct expectation *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct sample s = response_to(method, list[i].bytes);
		if (s.fault.status != list[i].status)
			fprintf(stderr, "expected %d, got %d (%s) for:\n%s\n", list[i].status, s.fault.status,
			        s.fault.why ? s.fault.why : "accepted", list[i].bytes);
		CU_ASSERT_EQUAL(s.fault.status, list[i].status);
		drop(&s);
	}
}

#define EXPECT_REQUESTS(list) expect_requests(list, sizeof(list) / sizeof((list)[0]))
#define EXPECT_RESPONSES(method, list) expect_responses(method, list, sizeof(list) / sizeof((list)[0]))

/* ---- request lines --------------------------------------------------------------------------------------------- */

static void a_plain_request_is_read_into_its_parts(void)
{
	struct sample s =
		request("GET /a/b?c=d HTTP/1.1\r\nHost: example.org:8080\r\nAccept:  text/html \t\r\nEmpty:\r\n\r\n");
	CU_ASSERT_EQUAL_FATAL(s.fault.status, 0);
	CU_ASSERT_EQUAL(s.head.method, HTTP_GET);
	CU_ASSERT(same(s.head.method_text, "GET"));
	CU_ASSERT(same(s.head.target, "/a/b?c=d"));
	CU_ASSERT(same(s.head.path, "/a/b?c=d"));
	CU_ASSERT_EQUAL(s.head.form, HTTP_ORIGIN_FORM);
	CU_ASSERT(same(s.head.host, "example.org:8080"));
	CU_ASSERT_EQUAL(s.head.minor_version, 1);
	CU_ASSERT(s.head.keep_alive && s.head.is_idempotent && !s.head.expects_continue);
	CU_ASSERT_EQUAL(s.head.framing, HTTP_NO_BODY);
	CU_ASSERT(!s.head.has_content_length);
	CU_ASSERT_PTR_NULL(s.head.upgrade.at);
	CU_ASSERT_EQUAL(s.head.field_count, 3);
	CU_ASSERT(same(s.head.fields[1].name, "Accept"));
	CU_ASSERT(same(s.head.fields[1].value, "text/html"));
	CU_ASSERT_EQUAL(s.head.fields[2].value.length, 0);
	drop(&s);
}

static void a_request_line_has_three_parts_and_exactly_one_blank_between_them(void)
{
	static const struct expectation list[] = {
		{ "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400 },
		{ " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\r\nHost: a\r\n\r\n", 400 },
		{ "GET\r\nHost: a\r\n\r\n", 400 },
		{ " / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "", 400 },
		{ "\r\n", 400 },
		{ "\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void a_method_is_a_short_token(void)
{
	static const struct expectation list[] = {
		{ "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345 / HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456 / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void methods_are_compared_with_regard_to_case(void)
{
	struct sample s = request("get / HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT_EQUAL(s.fault.status, 0);
	CU_ASSERT_EQUAL(s.head.method, HTTP_OTHER);
	CU_ASSERT(!s.head.is_idempotent);
	drop(&s);
}

static void get_head_options_trace_put_and_delete_may_be_repeated_and_others_not(void)
{
	static const struct {
		const char *line;
		enum http_method method;
		bool is_idempotent;
	} list[] = {
		{ "GET / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_GET, true },
		{ "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_HEAD, true },
		{ "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_OPTIONS, true },
		{ "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_TRACE, true },
		{ "PUT / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_PUT, true },
		{ "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_DELETE, true },
		{ "POST / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_POST, false },
		{ "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_OTHER, false },
		{ "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_CONNECT, false },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = request(list[i].line);
		CU_ASSERT_EQUAL(s.fault.status, 0);
		CU_ASSERT_EQUAL(s.head.method, list[i].method);
		CU_ASSERT_EQUAL(s.head.is_idempotent, list[i].is_idempotent);
		drop(&s);
	}
}

static void versions_other_than_http_1_are_505_and_malformed_ones_400(void)
{
	static const struct expectation list[] = {
		{ "GET / HTTP/1.0\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 0 },
		{ "GET / HTTP/1.9\r\nHost: a\r\n\r\n", 0 },
		{ "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505 },
		{ "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505 },
		{ "GET / HTTP/3.1\r\nHost: a\r\n\r\n", 505 },
		{ "PRI * HTTP/2.0\r\n\r\n", 505 },
		{ "GET / HTTP/2\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/11.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1.\r\nHost: a\r\n\r\n", 400 },
		{ "GET / http/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1", 400 },
		{ "GET / HTTP/1", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void an_unknown_minor_version_is_read_as_1_1(void)
{
	struct sample s = request("GET / HTTP/1.7\r\nHost: a\r\n\r\n");
	CU_ASSERT_EQUAL(s.head.minor_version, 1);
	CU_ASSERT(s.head.keep_alive);
	drop(&s);
}

static void after_a_fault_the_log_still_has_method_and_target(void)
{
	struct sample s = request("GET /x HTTP/1.1\r\n\r\n");
	CU_ASSERT_EQUAL(s.fault.status, 400);
	CU_ASSERT(same(s.head.method_text, "GET"));
	CU_ASSERT(same(s.head.target, "/x"));
	drop(&s);
	s = request("GE\"T /x HTTP/1.1\r\n\r\n");
	CU_ASSERT_PTR_NULL(s.head.method_text.at);
	CU_ASSERT_PTR_NULL(s.head.target.at);
	drop(&s);
}

/* ---- targets --------------------------------------------------------------------------------------------------- */

static void only_the_four_known_target_forms_are_accepted_each_with_its_methods(void)
{
	static const struct expectation list[] = {
		{ "GET //x HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 0 },
		{ "GET HTTPS://a HTTP/1.1\r\nHost: b\r\n\r\n", 0 },
		{ "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http: HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://a:0/ HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET http://a:/ HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET http://a:65535/ HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET http://a:65536/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://a:8x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://a:+8/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://[::1]:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://[1.2.3.4]/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT a:65536 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT :443 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT u@a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "CONNECT http://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void a_target_is_visible_ascii_without_a_fragment_and_its_path_has_whole_escapes(void)
{
	static const struct expectation list[] = {
		{ "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /?x#y HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /%41%2e%2F HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /% HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /%4?x HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /%%41 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /?100%&%zz HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
		{ "GET http://a/%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://a?%4 HTTP/1.1\r\nHost: a\r\n\r\n", 0 },
	};
	EXPECT_REQUESTS(list);
}

static void the_absolute_form_gives_path_and_host_and_wins_over_the_host_field(void)
{
	static const struct {
		const char *bytes, *path, *host;
	} list[] = {
		{ "GET http://a:81/x?y HTTP/1.1\r\nHost: b\r\n\r\n", "/x?y", "a:81" },
		{ "GET http://a HTTP/1.1\r\nHost: b\r\n\r\n", "/", "a" },
		{ "GET http://a?q=/ HTTP/1.1\r\nHost: b\r\n\r\n", "?q=/", "a" },
		{ "OPTIONS http://a HTTP/1.1\r\nHost: b\r\n\r\n", "*", "a" },
		{ "OPTIONS http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", "/", "a" },
		{ "OPTIONS http://a?q HTTP/1.1\r\nHost: b\r\n\r\n", "?q", "a" },
		{ "GET http://[2001:db8::7]:81/ HTTP/1.0\r\n\r\n", "/", "[2001:db8::7]:81" },
		{ "CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\n", "a:443", "a:443" },
		{ "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", "*", "b" },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = request(list[i].bytes);
		CU_ASSERT_EQUAL_FATAL(s.fault.status, 0);
		CU_ASSERT(same(s.head.path, list[i].path));
		CU_ASSERT(same(s.head.host, list[i].host));
		drop(&s);
	}
}

static void http_1_1_needs_exactly_one_valid_host(void)
{
	static const struct expectation list[] = {
		{ "GET / HTTP/1.1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: \t \r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\nhOsT: b\r\n\r\n", 400 },
		{ "GET http://a/ HTTP/1.1\r\n\r\n", 400 },
		{ "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: \xc3\xa9.org\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a:9999999999999999999999\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: [::ffff:192.0.2.1]:8000\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: []\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: [1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21]\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: [00000:00000:00000:00000:00000:00000:00000:0000]\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: [0000:0000:0000:0000:0000:ffff:192.0.2.123:8]\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: a_b-c.d~e\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: a%20b\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: a%2\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 0 },
		{ "GET / HTTP/1.1\r\nHost: \ta:80 \r\n\r\n", 0 },
	};
	EXPECT_REQUESTS(list);
}

static void http_1_0_may_lack_host_and_one_that_is_there_is_checked(void)
{
	static const struct expectation list[] = {
		{ "GET / HTTP/1.0\r\n\r\n", 0 },
		{ "GET / HTTP/1.0\r\nHost: a\r\n\r\n", 0 },
		{ "GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400 },
		{ "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
	struct sample s = request("GET / HTTP/1.0\r\n\r\n");
	CU_ASSERT_PTR_NULL(s.head.host.at);
	drop(&s);
}

/* ---- field lines ----------------------------------------------------------------------------------------------- */

static void a_field_line_is_a_token_a_colon_at_once_and_a_value_without_control_characters(void)
{
	static const struct expectation list[] = {
		{ GET "A:b\r\n\r\n", 0 },
		{ GET "A: b\tc\r\n\r\n", 0 },
		{ GET "A: \x80\xff\r\n\r\n", 0 },
		{ GET "!#$%&'*+-.^_`|~: b\r\n\r\n", 0 },
		{ GET "A : b\r\n\r\n", 400 },
		{ GET "A\t: b\r\n\r\n", 400 },
		{ GET "A b: c\r\n\r\n", 400 },
		{ GET ": b\r\n\r\n", 400 },
		{ GET "A\r\n\r\n", 400 },
		{ GET "A(b): c\r\n\r\n", 400 },
		{ GET "A\xc3\xa9: c\r\n\r\n", 400 },
		{ GET " A: b\r\n\r\n", 400 },
		{ GET "A: b\r\n c\r\n\r\n", 400 }, /* obs-fold */
		{ GET "A: b\r\n\tc\r\n\r\n", 400 },
		{ GET "A:\r\n \r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400 }, /* RFC 9112 §2.2 */
		{ GET "A: b\rc\r\n\r\n", 400 },
		{ GET "A: b\r\r\n\r\n", 400 },
		{ GET "A: b\nC: d\r\n\r\n", 400 },
		{ GET "A: b\x0b\r\n\r\n", 400 },
		{ GET "A: \x01\r\n\r\n", 400 },
		{ GET "A: \x1b[0m\r\n\r\n", 400 },
		{ GET "A: \x7f\r\n\r\n", 400 },
		{ GET "A: b", 400 },
		{ GET "A: b\r\n", 400 },
		{ GET "A: b\r\n\r", 400 },
		{ GET "A: b\r\n\r\nGET", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void the_phrase_says_what_was_wrong_with_a_field_line(void)
{
	static const struct {
		const char *bytes, *why;
	} list[] = {
		{ GET "A: b\r\n c\r\n\r\n", "a folded field line" },
		{ GET "A: b\r\n\tc\r\n\r\n", "a folded field line" },
		{ GET "A : b\r\n\r\n", "a blank before the colon of a field" },
		{ GET "A\t: b\r\n\r\n", "a blank before the colon of a field" },
		{ GET "A\r\n\r\n", "malformed field name" },
		{ GET "(: b\r\n\r\n", "malformed field name" },
		{ GET "A: b\rc\r\n\r\n", "a forbidden character in a field value" },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = request(list[i].bytes);
		CU_ASSERT_STRING_EQUAL_FATAL(s.fault.why, list[i].why);
		drop(&s);
	}
}

static void a_nul_is_refused_wherever_it_stands(void)
{
	static const char whole[] = "GET /x HTTP/1.1\r\nHost: a\r\nAbc: def\r\n\r\n";
	for (size_t i = 0; i < sizeof whole - 1; i++) {
		char bytes[sizeof whole];
		memcpy(bytes, whole, sizeof whole);
		bytes[i] = '\0';
		struct sample s = request_of(bytes, sizeof whole - 1);
		CU_ASSERT(s.fault.status == 400);
		drop(&s);
		struct http_scan scan = { .seen = 0 };
		size_t length;
		CU_ASSERT_EQUAL(http_scan(&scan, bytes, sizeof whole - 1, &length), HTTP_SCAN_BAD);
	}
}

static void as_many_fields_as_fit_are_accepted_and_one_more_is_431(void)
{
	char bytes[HTTP_FIELDS_MAX * 8 + 64];
	for (size_t fields = HTTP_FIELDS_MAX; fields <= HTTP_FIELDS_MAX + 1; fields++) {
		strcpy(bytes, GET);
		for (size_t i = 1; i < fields; i++)
			strcat(bytes, "A: b\r\n");
		strcat(bytes, "\r\n");
		struct sample s = request(bytes);
		CU_ASSERT_EQUAL(s.fault.status, fields > HTTP_FIELDS_MAX ? 431 : 0);
		drop(&s);
	}
}

static void each_known_name_is_recognised_in_any_case_and_nothing_else_is(void)
{
	static const struct {
		const char *name;
		enum http_name known;
	} names[] = {
		{ "Connection", HTTP_NAME_CONNECTION }, { "CONTENT-LENGTH", HTTP_NAME_CONTENT_LENGTH },
		{ "date", HTTP_NAME_DATE }, { "Expect", HTTP_NAME_EXPECT },
		{ "x-forwarded-FOR", HTTP_NAME_FORWARDED_FOR },
		{ "X-Forwarded-Host", HTTP_NAME_FORWARDED_HOST }, { "X-Forwarded-Proto", HTTP_NAME_FORWARDED_PROTO },
		{ "hoST", HTTP_NAME_HOST }, { "HTTP2-Settings", HTTP_NAME_HTTP2_SETTINGS },
		{ "Keep-Alive", HTTP_NAME_KEEP_ALIVE }, { "Max-Forwards", HTTP_NAME_MAX_FORWARDS },
		{ "Proxy-Authorization", HTTP_NAME_PROXY_AUTHORIZATION },
		{ "Proxy-Connection", HTTP_NAME_PROXY_CONNECTION },
		{ "Referer", HTTP_NAME_REFERER }, { "tE", HTTP_NAME_TE }, { "Trailer", HTTP_NAME_TRAILER },
		{ "Transfer-Encoding", HTTP_NAME_TRANSFER_ENCODING }, { "Upgrade", HTTP_NAME_UPGRADE },
		{ "User-Agent", HTTP_NAME_USER_AGENT }, { "Via", HTTP_NAME_VIA }, { "Hos", HTTP_NAME_OTHER },
		{ "Hosts", HTTP_NAME_OTHER }, { "Content_Length", HTTP_NAME_OTHER },
		{ "Content-Lengtx", HTTP_NAME_OTHER },
		{ "Transfer-Encoding-Much-Longer", HTTP_NAME_OTHER }, { "T", HTTP_NAME_OTHER },
	};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		/* A response, where none of them has to have a certain value, apart from the two that frame. */
		char bytes[128];
		const char *value = names[i].known == HTTP_NAME_TRANSFER_ENCODING ? "chunked" : "1";
		snprintf(bytes, sizeof bytes, OK "%s: %s\r\n\r\n", names[i].name, value);
		struct sample s = response_to(HTTP_GET, bytes);
		CU_ASSERT_EQUAL(s.fault.status, 0);
		CU_ASSERT_EQUAL(s.head.fields[0].known, names[i].known);
		CU_ASSERT_PTR_EQUAL(http_find_name(&s.head, names[i].name), &s.head.fields[0]);
		CU_ASSERT_PTR_EQUAL(http_find(&s.head, names[i].known), &s.head.fields[0]);
		CU_ASSERT_PTR_NULL(http_find_name(&s.head, "Absent"));
		drop(&s);
	}
}

/* ---- framing --------------------------------------------------------------------------------------------------- */

static void content_length_is_digits_only_and_all_values_are_equal(void)
{
	static const struct expectation list[] = {
		{ POST "Content-Length: 0\r\n\r\n", 0 },
		{ POST "Content-Length: 5, 5\r\n\r\n", 0 },
		{ POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 0 },
		{ POST "Content-Length: 05 ,5\r\n\r\n", 0 },
		{ POST "Content-Length: 999999999999999999\r\n\r\n", 0 },
		{ POST "Content-Length: 1000000000000000000\r\n\r\n", 400 },
		{ POST "Content-Length: 18446744073709551621\r\n\r\n", 400 },
		{ POST "Content-Length:\r\n\r\n", 400 },
		{ POST "Content-Length: 5,\r\n\r\n", 400 },
		{ POST "Content-Length: ,5\r\n\r\n", 400 },
		{ POST "Content-Length: 5,,5\r\n\r\n", 400 },
		{ POST "Content-Length: 5, 6\r\n\r\n", 400 },
		{ POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400 },
		{ POST "Content-Length: 5\r\nContent-Length:\r\n\r\n", 400 },
		{ POST "Content-Length: +5\r\n\r\n", 400 },
		{ POST "Content-Length: -5\r\n\r\n", 400 },
		{ POST "Content-Length: 0x5\r\n\r\n", 400 },
		{ POST "Content-Length: 5 5\r\n\r\n", 400 },
		{ POST "Content-Length: 5.0\r\n\r\n", 400 },
		{ POST "Content-Length: 5e1\r\n\r\n", 400 },
		{ POST "Content-Length: \"5\"\r\n\r\n", 400 },
		{ POST "Content-Length: 5;\r\n\r\n", 400 },
		{ POST "Content-Length: five\r\n\r\n", 400 },
		{ POST "Content-Length: \xb2\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void transfer_encoding_is_exactly_chunked_and_only_an_unknown_coding_is_501(void)
{
	static const struct expectation list[] = {
		{ POST "Transfer-Encoding: chunked\r\n\r\n", 0 },
		{ POST "transfer-encoding:\tCHUNKed \r\n\r\n", 0 },
		{ POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501 },
		{ POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501 },
		{ POST "Transfer-Encoding: gzip\r\n\r\n", 501 },
		{ POST "Transfer-Encoding: identity\r\n\r\n", 501 },
		{ POST "Transfer-Encoding: xchunked\r\n\r\n", 501 },
		{ POST "Transfer-Encoding: chunked, chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked, gzip\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked, gzip, chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding:\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: ,\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: ,chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked,\r\n\r\n", 400 },
		{ POST "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked;q=1\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: gzip;q=1\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chun ked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked\x0c\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked\xa0\r\n\r\n", 400 },
		{ POST "Transfer-Encoding : chunked\r\n\r\n", 400 },
		{ POST " Transfer-Encoding: chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding:\r\n chunked\r\n\r\n", 400 },
		{ "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void content_length_together_with_transfer_encoding_is_refused_in_any_order_and_spelling(void)
{
	static const struct expectation list[] = {
		{ POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400 },
		{ POST "Transfer-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 400 },
		{ POST "Connection: Content-Length\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400 },
		{ POST "Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void the_framing_of_a_request_comes_from_its_fields(void)
{
	struct sample s = request(POST "Content-Length: 0042\r\n\r\n");
	CU_ASSERT_EQUAL(s.head.framing, HTTP_BY_LENGTH);
	CU_ASSERT(s.head.has_content_length && s.head.content_length == 42);
	drop(&s);
	s = request(POST "Content-Length: 0\r\n\r\n");
	CU_ASSERT_EQUAL(s.head.framing, HTTP_BY_LENGTH);
	CU_ASSERT(s.head.has_content_length && s.head.content_length == 0);
	drop(&s);
	s = request(POST "Transfer-Encoding: chunked\r\n\r\n");
	CU_ASSERT_EQUAL(s.head.framing, HTTP_CHUNKED);
	CU_ASSERT(!s.head.has_content_length);
	drop(&s);
	s = request(POST "\r\n");
	CU_ASSERT_EQUAL(s.head.framing, HTTP_NO_BODY);
	drop(&s);
}

static void a_fault_is_not_forgotten_because_what_follows_is_in_order(void)
{
	static const struct expectation list[] = {
		{ "OPTIONS / HTTP/1.1\r\nMax-Forwards: 1\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 400 },
		{ POST "Connection: a b\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 400 },
		{ POST "Content-Length: x\r\nExpect: 100-continue\r\n\r\n", 400 },
		{ "OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nMax-Forwards: 1\r\n\r\n", 501 },
		{ "OPTIONS / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nMax-Forwards: 1\r\n\r\n", 417 },
		{ "CONNECT x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

static void letters_are_compared_without_regard_to_case_and_nothing_else_is(void)
{
	static const char upper[] = "@ABCDEFGHIJKLMNOPQRSTUVWXYZ[", lower[] = "`abcdefghijklmnopqrstuvwxyz{";
	for (size_t i = 0; i < sizeof upper - 1; i++) {
		bool is_letter = i > 0 && i < sizeof upper - 2;
		char word[] = { lower[i], '\0' };
		CU_ASSERT_EQUAL(http_text_is((struct http_text){ upper + i, 1 }, word), is_letter);
	}
	CU_ASSERT(!http_text_is((struct http_text){ "clos", 4 }, "close"));
	CU_ASSERT(http_text_is((struct http_text){ NULL, 0 }, ""));
}

static void a_connect_has_no_body(void)
{
	static const struct expectation list[] = {
		{ "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\n\r\n", 0 },
		{ "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n", 400 },
		{ "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
	};
	EXPECT_REQUESTS(list);
}

/* ---- the connection -------------------------------------------------------------------------------------------- */

static void a_connection_stays_open_as_version_and_connection_say_together(void)
{
	static const struct {
		const char *bytes;
		bool keep_alive;
	} list[] = {
		{ GET "\r\n", true },
		{ GET "Connection: close\r\n\r\n", false },
		{ GET "Connection: x, CLOSE\r\n\r\n", false },
		{ GET "Connection: x\r\nConnection: y,close,\r\n\r\n", false },
		{ GET "Connection: keep-alive, close\r\n\r\n", false },
		{ GET "Connection: closed\r\n\r\n", true },
		{ GET "Connection:\r\n\r\n", true },
		{ "GET / HTTP/1.0\r\n\r\n", false },
		{ "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true },
		{ "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false },
		{ "GET / HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n", false },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = request(list[i].bytes);
		CU_ASSERT_EQUAL(s.fault.status, 0);
		CU_ASSERT_EQUAL(s.head.keep_alive, list[i].keep_alive);
		drop(&s);
	}
}

static void a_malformed_or_endless_connection_field_is_refused(void)
{
	static const struct expectation list[] = {
		{ GET "Connection: a b\r\n\r\n", 400 },
		{ GET "Connection: \"close\"\r\n\r\n", 400 },
		{ GET "Connection: close;q=1\r\n\r\n", 400 },
		{ GET "Connection: , ,\t,\r\n\r\n", 0 },
	};
	EXPECT_REQUESTS(list);
	char bytes[1024];
	for (size_t names = 64; names <= 65; names++) {
		strcpy(bytes, GET "Connection: ");
		for (size_t i = 0; i < names; i++)
			strcat(bytes, "x,");
		strcat(bytes, "\r\n\r\n");
		struct sample s = request(bytes);
		CU_ASSERT_EQUAL(s.fault.status, names > 64 ? 400 : 0);
		drop(&s);
	}
}

#define LONG_NAME "A-Name-So-Long-That-It-Would-Not-Fit-Into-Any-Buffer-Of-Sixty-Four-Bytes"

static void hop_by_hop_fields_are_those_always_so_and_those_that_connection_names(void)
{
	struct sample s = request(
		GET "X-Mine: 1\r\n"
		"connection: x-mine, Host, content-length, Via, X-Forwarded-For, accept\r\n"
		"Connection: X-Forwarded-Proto, X-Forwarded-Host, " LONG_NAME "\r\n"
		"Content-Length: 0\r\nVia: 1.1 x\r\nX-Forwarded-For: y\r\nX-Forwarded-Proto: y\r\n"
		"X-Forwarded-Host: y\r\nAccept: z\r\nX-MINE: 2\r\nKeep-Alive: 1\r\nTE: trailers\r\nUpgrade: x\r\n"
		"Proxy-Connection: x\r\n"
		"Proxy-Authorization: x\r\nHTTP2-Settings: x\r\nTrailer: x\r\nX-Mine2: 1\r\n" LONG_NAME ": 1\r\n\r\n");
	static const struct {
		const char *name;
		bool hop_by_hop;
	} list[] = {
		{ "X-Mine", true }, { "Connection", true }, { "Host", false }, { "Content-Length", false },
		{ "Via", false },
		{ "X-Forwarded-For", false }, { "X-Forwarded-Proto", false }, { "X-Forwarded-Host", false },
		{ "Accept", true },
		{ "Keep-Alive", true }, { "TE", true }, { "Upgrade", true }, { "Proxy-Connection", true },
		{ "Proxy-Authorization", true }, { "HTTP2-Settings", true }, { "Trailer", false }, { "X-Mine2", false },
		{ LONG_NAME, true },
	};
	CU_ASSERT_EQUAL_FATAL(s.fault.status, 0);
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		const struct http_field *field = http_find_name(&s.head, list[i].name);
		CU_ASSERT_PTR_NOT_NULL_FATAL(field);
		CU_ASSERT_EQUAL(field->hop_by_hop, list[i].hop_by_hop);
	}
	CU_ASSERT(s.head.fields[11].hop_by_hop); /* the second X-Mine */
	drop(&s);
}

static struct http_text text_of(const char *string)
{
	return (struct http_text){ string, strlen(string) };
}

static void a_switch_counts_only_to_protocols_that_were_offered(void)
{
	static const struct {
		const char *offered, *chosen;
		bool was_offered;
	} list[] = {
		{ "websocket", "websocket", true },
		{ "websocket", "WebSocket", true },
		{ "a/1, b", "b", true },
		{ "a/1, b", "b, a/1", true },
		{ "websocket", "irc", false },
		{ "websocket", "websocket, irc", false },
		{ "websocket", "websocket/2", false },
		{ "websocket", "web", false },
		{ "web", "websocket", false },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
		CU_ASSERT_EQUAL(http_upgrade_was_offered(text_of(list[i].offered), text_of(list[i].chosen)), list[i].was_offered);
}

static void a_refused_request_still_says_its_method(void)
{
	struct sample s = request("HEAD * HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT_EQUAL(s.fault.status, 400);
	CU_ASSERT_EQUAL(s.head.method, HTTP_HEAD);
	CU_ASSERT(same(s.head.method_text, "HEAD"));
	drop(&s);
}

static void an_upgrade_counts_only_when_connection_names_it_in_1_1_and_never_for_h2c(void)
{
	static const struct {
		const char *bytes, *upgrade;
	} list[] = {
		{ GET "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "websocket" },
		{ GET "Connection: keep-alive, upgrade\r\nUpgrade: a/1, b\r\n\r\n", "a/1, b" },
		{ GET "Upgrade: websocket\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\nUpgrade:\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\nUpgrade: web socket\r\n\r\n", NULL },
		{ GET "Connection: Upgrade\r\nUpgrade: a/\r\n\r\n", NULL },
		{ "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", NULL },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = request(list[i].bytes);
		CU_ASSERT_EQUAL(s.fault.status, 0);
		if (list[i].upgrade)
			CU_ASSERT(same(s.head.upgrade, list[i].upgrade));
		if (!list[i].upgrade)
			CU_ASSERT_PTR_NULL(s.head.upgrade.at);
		drop(&s);
	}
}

static void only_100_continue_is_expected_and_only_where_it_means_something(void)
{
	static const struct {
		const char *bytes;
		int status;
		bool expects_continue;
	} list[] = {
		{ POST "Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n", 0, true },
		{ POST "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", 0, true },
		{ POST "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", 0, false },
		{ POST "Expect: 100-continue\r\n\r\n", 0, false },
		{ "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 0, false },
		{ POST "Expect: 100-continue\r\nConnection: expect\r\nContent-Length: 5\r\n\r\n", 0, false },
		{ POST "Expect: 200-ok\r\nContent-Length: 5\r\n\r\n", 417, false },
		{ POST "Expect:\r\nContent-Length: 5\r\n\r\n", 417, false },
		{ POST "Expect: 100-continue, x\r\nContent-Length: 5\r\n\r\n", 417, false },
		{ POST "Expect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n\r\n", 417, false },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = request(list[i].bytes);
		CU_ASSERT_EQUAL(s.fault.status, list[i].status);
		if (list[i].status == 0)
			CU_ASSERT_EQUAL(s.head.expects_continue, list[i].expects_continue);
		drop(&s);
	}
}

static void max_forwards_must_be_a_number_for_options_and_trace_and_is_left_alone_elsewhere(void)
{
	static const struct expectation list[] = {
		{ "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", 0 },
		{ "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n", 400 },
		{ "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n", 400 },
		{ "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nMax-Forwards: 1\r\n\r\n", 400 },
		{ GET "Max-Forwards: x\r\n\r\n", 0 },
	};
	EXPECT_REQUESTS(list);
}

/* ---- responses ------------------------------------------------------------------------------------------------- */

static void a_status_line_is_a_version_and_three_digits_and_may_lack_the_reason(void)
{
	static const struct expectation list[] = {
		{ "HTTP/1.1 200 OK\r\n\r\n", 0 },
		{ "HTTP/1.1 200 \r\n\r\n", 0 },
		{ "HTTP/1.1 200\r\n\r\n", 0 },
		{ "HTTP/1.0 200 OK\r\n\r\n", 0 },
		{ "HTTP/1.3 200 OK\r\n\r\n", 0 },
		{ "HTTP/1.1 200 Tr\xe8s bien\r\n\r\n", 0 },
		{ "HTTP/1.1 599 X\r\n\r\n", 0 },
		{ "HTTP/1.1 100\r\n\r\n", 0 },
		{ "HTTP/1.1 600 X\r\n\r\n", 502 },
		{ "HTTP/1.1 099 X\r\n\r\n", 502 },
		{ "HTTP/1.1 20 X\r\n\r\n", 502 },
		{ "HTTP/1.1 2000 X\r\n\r\n", 502 },
		{ "HTTP/1.1 2xx X\r\n\r\n", 502 },
		{ "HTTP/1.1  200 X\r\n\r\n", 502 },
		{ "HTTP/1.1 200X\r\n\r\n", 502 },
		{ "HTTP/1.1X200 OK\r\n\r\n", 502 },
		{ "HTTP/2.0 200 X\r\n\r\n", 502 },
		{ "HTTP/2 200\r\n\r\n", 502 },
		{ "http/1.1 200 X\r\n\r\n", 502 },
		{ "ICY 200 OK\r\n\r\n", 502 },
		{ "HTTP/1.1 200 a\rb\r\n\r\n", 502 },
		{ "HTTP/1.1 200 \x01\r\n\r\n", 502 },
		{ "HTTP/1.1 200 OK", 502 },
		{ "HTTP/1.1 2", 502 },
		{ "HTTP/1.1", 502 },
	};
	EXPECT_RESPONSES(HTTP_GET, list);
}

static void a_response_that_is_malformed_or_ambiguous_is_502(void)
{
	static const struct expectation list[] = {
		{ OK "Content-Length: 5, 5\r\n\r\n", 0 },
		{ OK "Content-Length: 5, 6\r\n\r\n", 502 },
		{ OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 502 },
		{ OK "Content-Length: -1\r\n\r\n", 502 },
		{ OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 502 },
		{ OK "Transfer-Encoding: gzip, chunked\r\n\r\n", 502 },
		{ OK "Transfer-Encoding: chunked, chunked\r\n\r\n", 502 },
		{ "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 502 },
		{ OK "A : b\r\n\r\n", 502 },
		{ OK "A: b\r\n c\r\n\r\n", 502 },
		{ OK "Connection: a b\r\n\r\n", 502 },
		{ "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", 502 },
		{ "HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n", 502 },
		{ "HTTP/1.1 204 X\r\nContent-Length: 1\r\n\r\n", 502 },
		{ "HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", 0 },
		{ OK "Host: a b\r\nExpect: x\r\n\r\n", 0 }, /* fields of requests mean nothing here */
	};
	EXPECT_RESPONSES(HTTP_GET, list);
}

static void the_end_of_a_response_body_depends_on_status_request_and_fields(void)
{
	static const struct {
		enum http_method method;
		const char *bytes;
		enum http_framing framing;
		bool has_content_length;
		uint64_t content_length;
	} list[] = {
		{ HTTP_GET, OK "Content-Length: 7\r\n\r\n", HTTP_BY_LENGTH, true, 7 },
		{ HTTP_GET, OK "Content-Length: 0\r\n\r\n", HTTP_BY_LENGTH, true, 0 },
		{ HTTP_GET, OK "Transfer-Encoding: chunked\r\n\r\n", HTTP_CHUNKED, false, 0 },
		{ HTTP_GET, OK "\r\n", HTTP_UNTIL_CLOSE, false, 0 },
		{ HTTP_HEAD, OK "Content-Length: 7\r\n\r\n", HTTP_NO_BODY, true, 7 },
		{ HTTP_HEAD, OK "Transfer-Encoding: chunked\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_HEAD, OK "\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_GET, "HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n", HTTP_NO_BODY, true, 7 },
		{ HTTP_GET, "HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_GET, "HTTP/1.1 204 X\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_GET, "HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_GET, "HTTP/1.1 100 X\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_GET, "HTTP/1.1 101 X\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_CONNECT, OK "Content-Length: 7\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_CONNECT, "HTTP/1.1 299 X\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_NO_BODY, false, 0 },
		{ HTTP_CONNECT, "HTTP/1.1 300 X\r\nContent-Length: 7\r\n\r\n", HTTP_BY_LENGTH, true, 7 },
		{ HTTP_CONNECT, "HTTP/1.1 403 X\r\nContent-Length: 7\r\n\r\n", HTTP_BY_LENGTH, true, 7 },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct sample s = response_to(list[i].method, list[i].bytes);
		CU_ASSERT_EQUAL(s.fault.status, 0);
		CU_ASSERT_EQUAL(s.head.framing, list[i].framing);
		CU_ASSERT_EQUAL(s.head.has_content_length, list[i].has_content_length);
		CU_ASSERT_EQUAL(s.head.content_length, list[i].content_length);
		drop(&s);
	}
}

static void a_response_is_read_into_its_parts(void)
{
	struct sample s = response_to(HTTP_GET,
	                              "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
	CU_ASSERT_EQUAL_FATAL(s.fault.status, 0);
	CU_ASSERT_EQUAL(s.head.status, 101);
	CU_ASSERT(same(s.head.reason, "Switching Protocols"));
	CU_ASSERT_EQUAL(s.head.field_count, 2);
	CU_ASSERT(same(s.head.upgrade, "x"));
	CU_ASSERT(s.head.keep_alive);
	drop(&s);
	s = response_to(HTTP_GET, "HTTP/1.0 200\r\n\r\n");
	CU_ASSERT(!s.head.keep_alive);
	CU_ASSERT_EQUAL(s.head.reason.length, 0);
	drop(&s);
}

/* ---- the scan -------------------------------------------------------------------------------------------------- */

static enum http_scan_result scan_whole(bool is_response, const char *bytes, size_t length, struct http_scan *scan,
                                        size_t *head_length)
{
	*scan = (struct http_scan){ .is_response = is_response };
	*head_length = 0;
	return http_scan(scan, bytes, length, head_length);
}

static void the_scan_ends_behind_the_empty_line_and_leaves_what_follows(void)
{
	static const char bytes[] = GET "\r\nPOST \0\n";
	struct http_scan scan;
	size_t length;
	CU_ASSERT_EQUAL(scan_whole(false, bytes, sizeof bytes - 1, &scan, &length), HTTP_SCAN_COMPLETE);
	CU_ASSERT_EQUAL(length, strlen(GET "\r\n"));
	CU_ASSERT_EQUAL(scan.skipped, 0);
}

static void up_to_two_empty_lines_before_a_request_are_skipped(void)
{
	static const struct {
		const char *bytes;
		enum http_scan_result result;
		size_t skipped;
	} list[] = {
		{ "\r\n" GET "\r\n", HTTP_SCAN_COMPLETE, 2 },
		{ "\r\n\r\n" GET "\r\n", HTTP_SCAN_COMPLETE, 4 },
		{ "\r\n\r\n", HTTP_SCAN_MORE, 4 },
		{ "\r\n\r\n\r", HTTP_SCAN_BAD, 4 },
		{ "\r\n\r\n\r\n" GET "\r\n", HTTP_SCAN_BAD, 4 },
		{ "\n" GET "\r\n", HTTP_SCAN_BAD, 0 },
		{ "\rG", HTTP_SCAN_BAD, 0 },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct http_scan scan;
		size_t length;
		CU_ASSERT_EQUAL(scan_whole(false, list[i].bytes, strlen(list[i].bytes), &scan, &length),
		                list[i].result);
		CU_ASSERT_EQUAL(scan.skipped, list[i].skipped);
		if (list[i].result == HTTP_SCAN_COMPLETE)
			CU_ASSERT_EQUAL(length, strlen(GET "\r\n"));
	}
}

static void what_can_never_be_a_head_is_refused_at_the_first_byte_that_shows_it(void)
{
	static const struct {
		bool is_response;
		const char *bytes;
		size_t bad_at; /* how many bytes are needed to see it */
	} list[] = {
		{ false, "\x16\x03\x01", 1 }, /* a TLS handshake */
		{ false, "\x80", 1 },
		{ false, " GET", 1 },
		{ false, "{}", 1 },
		{ false, "\n", 1 },
		{ false, "GET / HTTP/1.1\nHost", 15 },
		{ false, GET "A: b\n", 30 },
		{ false, GET "\n", 26 },
		{ true, "H\r", 2 },
		{ true, "HTTQ", 4 },
		{ true, "\r\n", 1 },
		{ true, "GET", 1 },
		{ true, "<html>", 1 },
		{ true, "HTTP/1.1 200\n", 13 },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		struct http_scan scan = { .is_response = list[i].is_response };
		size_t length, at = 0;
		enum http_scan_result result = HTTP_SCAN_MORE;
		while (result == HTTP_SCAN_MORE && at < strlen(list[i].bytes))
			result = http_scan(&scan, list[i].bytes, ++at, &length);
		CU_ASSERT_EQUAL(result, HTTP_SCAN_BAD);
		CU_ASSERT_EQUAL(at, list[i].bad_at);
	}
}

/* What a stream of heads comes to, read in pieces: how each scan ended, and where. */
struct outcome {
	enum http_scan_result results[8];
	size_t lengths[8], skips[8];
	size_t count;
};

/* cut(i) says whether a read ends behind byte i. */
static struct outcome read_in_pieces(const char *bytes, size_t length, const bool *cut, bool is_response)
{
	struct outcome o = { .count = 0 };
	size_t from = 0, have = 0;
	while (o.count < 8) {
		struct http_scan scan = { .is_response = is_response };
		size_t head_length = 0;
		enum http_scan_result result;
		/* Bytes behind the first head are there at once, as they are in the proxy's buffer. */
		while ((result = http_scan(&scan, bytes + from, have - from, &head_length)) == HTTP_SCAN_MORE &&
		       have < length) {
			do
				have++;
			while (have < length && !cut[have - 1]);
		}
		o.results[o.count] = result;
		o.lengths[o.count] = head_length;
		o.skips[o.count++] = scan.skipped;
		if (result != HTTP_SCAN_COMPLETE)
			break;
		from += scan.skipped + head_length;
	}
	return o;
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (a->results[i] != b->results[i] || a->lengths[i] != b->lengths[i] || a->skips[i] != b->skips[i])
			return false;
	return true;
}

static void any_division_of_the_bytes_over_reads_gives_the_same_heads(void)
{
	static const struct {
		bool is_response;
		const char *bytes;
	} list[] = {
		{ false, GET "\r\n" },
		{ false, "\r\n\r\n" GET "Accept: x\r\n\r\n\r\n" POST "\r\n" GET "\r\n" },
		{ false, GET "A: b\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n" },
		{ false, GET "\r\n\x16\x03\x01" },
		{ false, GET "\r\n\r\n\r\n\r\n" },
		{ false, "GET / HTTP/1.1\r\nA\rB: \r\r\n\r\n" },
		{ true, OK "A: b\r\n\r\n" OK "\r\n\r\n" },
		{ true, OK "\r\nHTTQ" },
	};
	unsigned seed = 20260101;
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		size_t length = strlen(list[i].bytes);
		bool *cut = calloc(length, sizeof *cut);
		if (!cut)
			abort();
		struct outcome at_once = read_in_pieces(list[i].bytes, length, cut, list[i].is_response);
		for (size_t k = 0; k < length; k++) { /* every division in two */
			cut[k] = true;
			struct outcome o = read_in_pieces(list[i].bytes, length, cut, list[i].is_response);
			CU_ASSERT(same_outcome(&at_once, &o));
			cut[k] = false;
		}
		for (int round = 0; round < 200; round++) { /* round 0: one byte at a time */
			for (size_t k = 0; k < length; k++) {
				seed = seed * 1103515245u + 12345u;
				cut[k] = round == 0 || (seed >> 16) % 8 < (unsigned)round % 8;
			}
			struct outcome o = read_in_pieces(list[i].bytes, length, cut, list[i].is_response);
			CU_ASSERT(same_outcome(&at_once, &o));
		}
		free(cut);
	}
}

/* ---- small coin ------------------------------------------------------------------------------------------------ */

static void a_list_is_taken_apart_at_commas_without_blanks_and_empty_elements(void)
{
	struct http_text list = { " a ,, b c,\t,d", 13 }, element;
	CU_ASSERT(http_next_element(&list, &element) && same(element, "a"));
	CU_ASSERT(http_next_element(&list, &element) && same(element, "b c"));
	CU_ASSERT(http_next_element(&list, &element) && same(element, "d"));
	CU_ASSERT(!http_next_element(&list, &element));
	CU_ASSERT(!http_next_element(&list, &element));
}

static void a_number_is_one_to_eighteen_digits(void)
{
	uint64_t n = 1;
	CU_ASSERT(http_parse_number((struct http_text){ "0", 1 }, &n) && n == 0);
	CU_ASSERT(http_parse_number((struct http_text){ "999999999999999999", 18 }, &n) &&
	          n == UINT64_C(999999999999999999));
	CU_ASSERT(!http_parse_number((struct http_text){ "0000000000000000001", 19 }, &n));
	CU_ASSERT(!http_parse_number((struct http_text){ "", 0 }, &n));
	CU_ASSERT(!http_parse_number((struct http_text){ " 1", 2 }, &n));
	CU_ASSERT(!http_parse_number((struct http_text){ "1a", 2 }, &n));
	CU_ASSERT(!http_parse_number((struct http_text){ NULL, 0 }, &n));
}

static void a_date_is_that_of_the_calendar(void)
{
	static const struct {
		int64_t unix_s;
		const char *date;
	} known[] = {
		{ 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },  /* RFC 9110 §5.6.7 */
		{ 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
		{ 951782399, "Mon, 28 Feb 2000 23:59:59 GMT" },
		{ 951782400, "Tue, 29 Feb 2000 00:00:00 GMT" },
		{ 951868800, "Wed, 01 Mar 2000 00:00:00 GMT" },
		{ 4107542399, "Sun, 28 Feb 2100 23:59:59 GMT" },  /* no leap year */
		{ 4107542400, "Mon, 01 Mar 2100 00:00:00 GMT" },
		{ 253402300799, "Fri, 31 Dec 9999 23:59:59 GMT" },
		{ 253402300800, "Fri, 31 Dec 9999 23:59:59 GMT" }, /* and no further */
		{ INT64_MAX, "Fri, 31 Dec 9999 23:59:59 GMT" },
		{ -1, "Thu, 01 Jan 1970 00:00:00 GMT" },
		{ INT64_MIN, "Thu, 01 Jan 1970 00:00:00 GMT" },
	};
	char date[HTTP_DATE_MAX], wanted[64];
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		http_write_date(known[i].unix_s, date);
		CU_ASSERT_STRING_EQUAL(date, known[i].date);
	}
	size_t differences = 0;
	for (int64_t day = 0; day < 2 * 146097; day++) { /* each day of 800 years, at another time of day */
		time_t now = day * 86400 + day * 7919 % 86400;
		struct tm utc;
		strftime(wanted, sizeof wanted, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &utc));
		http_write_date(now, date);
		differences += strcmp(date, wanted) != 0;
	}
	CU_ASSERT_EQUAL(differences, 0);
}

static void each_status_that_weir_sends_has_its_name(void)
{
	CU_ASSERT_STRING_EQUAL(http_reason(200), "OK");
	CU_ASSERT_STRING_EQUAL(http_reason(429), "Too Many Requests");
	CU_ASSERT_STRING_EQUAL(http_reason(508), "Loop Detected");
	CU_ASSERT_STRING_EQUAL(http_reason(599), "Unknown");
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_plain_request_is_read_into_its_parts),
		TEST(a_request_line_has_three_parts_and_exactly_one_blank_between_them),
		TEST(a_method_is_a_short_token),
		TEST(methods_are_compared_with_regard_to_case),
		TEST(get_head_options_trace_put_and_delete_may_be_repeated_and_others_not),
		TEST(versions_other_than_http_1_are_505_and_malformed_ones_400),
		TEST(an_unknown_minor_version_is_read_as_1_1),
		TEST(after_a_fault_the_log_still_has_method_and_target),
		TEST(only_the_four_known_target_forms_are_accepted_each_with_its_methods),
		TEST(a_target_is_visible_ascii_without_a_fragment_and_its_path_has_whole_escapes),
		TEST(the_absolute_form_gives_path_and_host_and_wins_over_the_host_field),
		TEST(http_1_1_needs_exactly_one_valid_host),
		TEST(http_1_0_may_lack_host_and_one_that_is_there_is_checked),
		TEST(a_field_line_is_a_token_a_colon_at_once_and_a_value_without_control_characters),
		TEST(the_phrase_says_what_was_wrong_with_a_field_line),
		TEST(a_nul_is_refused_wherever_it_stands),
		TEST(as_many_fields_as_fit_are_accepted_and_one_more_is_431),
		TEST(each_known_name_is_recognised_in_any_case_and_nothing_else_is),
		TEST(content_length_is_digits_only_and_all_values_are_equal),
		TEST(transfer_encoding_is_exactly_chunked_and_only_an_unknown_coding_is_501),
		TEST(content_length_together_with_transfer_encoding_is_refused_in_any_order_and_spelling),
		TEST(the_framing_of_a_request_comes_from_its_fields),
		TEST(a_fault_is_not_forgotten_because_what_follows_is_in_order),
		TEST(letters_are_compared_without_regard_to_case_and_nothing_else_is),
		TEST(a_connect_has_no_body),
		TEST(a_connection_stays_open_as_version_and_connection_say_together),
		TEST(a_malformed_or_endless_connection_field_is_refused),
		TEST(hop_by_hop_fields_are_those_always_so_and_those_that_connection_names),
		TEST(a_switch_counts_only_to_protocols_that_were_offered),
		TEST(a_refused_request_still_says_its_method),
		TEST(an_upgrade_counts_only_when_connection_names_it_in_1_1_and_never_for_h2c),
		TEST(only_100_continue_is_expected_and_only_where_it_means_something),
		TEST(max_forwards_must_be_a_number_for_options_and_trace_and_is_left_alone_elsewhere),
		TEST(a_status_line_is_a_version_and_three_digits_and_may_lack_the_reason),
		TEST(a_response_that_is_malformed_or_ambiguous_is_502),
		TEST(the_end_of_a_response_body_depends_on_status_request_and_fields),
		TEST(a_response_is_read_into_its_parts),
		TEST(the_scan_ends_behind_the_empty_line_and_leaves_what_follows),
		TEST(up_to_two_empty_lines_before_a_request_are_skipped),
		TEST(what_can_never_be_a_head_is_refused_at_the_first_byte_that_shows_it),
		TEST(any_division_of_the_bytes_over_reads_gives_the_same_heads),
		TEST(a_list_is_taken_apart_at_commas_without_blanks_and_empty_elements),
		TEST(a_number_is_one_to_eighteen_digits),
		TEST(a_date_is_that_of_the_calendar),
		TEST(each_status_that_weir_sends_has_its_name),
	};
	return unit_main("http", tests, sizeof tests / sizeof tests[0]);
}
