/* test_rewrite.c: which head goes out for the head that came in.
 *
 * Whole heads are compared, byte by byte: what a proxy adds by mistake is as bad as what it leaves out. Then the
 * round trip: the head that goes out, read by our own parser, must mean what the head that came in meant, framing
 * above all.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/rewrite.h"
#include "unit.h"

#define VIA "weir-1"

static const struct rewrite_request usual_request = {
	.via = VIA,
	.forwarded = REWRITE_APPEND,
	.client = { "192.0.2.7", 9 },
	.scheme = "http",
	.target_host = { "10.0.0.1:9001", 13 },
	.keep_alive = true,
	.max_forwards = -1,
};

static const struct rewrite_response usual_response = {
	.via = VIA,
	.client_is_1_1 = true,
	.keep_alive = true,
	.framing = HTTP_NO_BODY,
};

/* Where the last head was written, ended by NUL. */
static char written[8192];

static void expect(const char *came, size_t length, const char *goes)
{
	written[length] = '\0';
	if (strcmp(written, goes) != 0)
		fprintf(stderr, "came:\n%s\nexpected:\n%s\nwritten:\n%s\n", came, goes, written);
	CU_ASSERT_STRING_EQUAL(written, goes);
}

static void expect_request(const struct rewrite_request *how, const char *came, const char *goes)
{
	static struct http_head head;
	CU_ASSERT_EQUAL_FATAL(http_parse_request(came, strlen(came), &head).status, 0);
	expect(came, rewrite_request(&head, how, written, sizeof written - 1), goes);
}

static void expect_response(const struct rewrite_response *how, const char *came, const char *goes)
{
	static struct http_head head;
	CU_ASSERT_EQUAL_FATAL(http_parse_response(came, strlen(came), HTTP_GET, &head).status, 0);
	expect(came, rewrite_response(&head, how, written, sizeof written - 1), goes);
}

/* What we add to a request by default. */
#define OURS(host)                                             \
	"Via: 1.1 " VIA "\r\nX-Forwarded-For: 192.0.2.7\r\n" \
	"X-Forwarded-Proto: http\r\nX-Forwarded-Host: " host "\r\n"

/* ---- requests -------------------------------------------------------------------------------------------------- */

static void host_comes_first_then_the_fields_in_their_order_then_ours(void)
{
	expect_request(&usual_request,
		"GET /a?b HTTP/1.1\r\n"
		"Accept: x\r\n"
		"Host: h:80\r\n"
		"X-B:  y z \r\n"
		"Accept: w\r\n"
		"Empty:\r\n"
		"\r\n",
		/* becomes */
		"GET /a?b HTTP/1.1\r\n"
		"Host: h:80\r\n"
		"Accept: x\r\n"
		"X-B: y z\r\n"
		"Accept: w\r\n"
		"Empty: \r\n"
		OURS("h:80")
		"\r\n");
}

static void the_target_goes_out_in_origin_form_and_its_authority_replaces_host(void)
{
	expect_request(&usual_request,
		"GET http://a:81/x%2F?y HTTP/1.1\r\n"
		"Host: b\r\n"
		"\r\n",
		/* becomes */
		"GET /x%2F?y HTTP/1.1\r\n"
		"Host: a:81\r\n"
		OURS("a:81")
		"\r\n");
	expect_request(&usual_request,
		"GET http://a?y HTTP/1.1\r\n"
		"Host: b\r\n"
		"\r\n",
		/* becomes */
		"GET /?y HTTP/1.1\r\n"
		"Host: a\r\n"
		OURS("a")
		"\r\n");
	expect_request(&usual_request,
		"GET http://a HTTP/1.1\r\n"
		"Host: b\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: a\r\n"
		OURS("a")
		"\r\n");
	expect_request(&usual_request,
		"OPTIONS http://a HTTP/1.1\r\n"
		"Host: b\r\n"
		"\r\n",
		/* becomes */
		"OPTIONS * HTTP/1.1\r\n"
		"Host: a\r\n"
		OURS("a")
		"\r\n");
}

static void a_1_0_request_goes_out_as_1_1_with_the_target_as_host_if_it_had_none(void)
{
	expect_request(&usual_request,
		"GET / HTTP/1.0\r\n"
		"Expect: 100-continue\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: 10.0.0.1:9001\r\n"
		"Via: 1.0 " VIA "\r\n"
		"X-Forwarded-For: 192.0.2.7\r\n"
		"X-Forwarded-Proto: http\r\n"
		"\r\n");
}

static void hop_by_hop_fields_and_those_named_in_connection_stay_here(void)
{
	expect_request(&usual_request,
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Connection: keep-alive, X-Mine, Host, Via\r\n"
		"X-Mine: 1\r\n"
		"Keep-Alive: timeout=5\r\n"
		"TE: trailers\r\n"
		"Trailer: X\r\n"
		"Upgrade: websocket\r\n"
		"Proxy-Connection: close\r\n"
		"Proxy-Authorization: Basic x\r\n"
		"HTTP2-Settings: x\r\n"
		"Via: 1.0 other\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Trailer: X\r\n"
		"Via: 1.0 other\r\n"
		OURS("h")
		"\r\n");
}

static void framing_is_one_field_spelt_by_us(void)
{
	expect_request(&usual_request,
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"content-length: 05, 5\r\n"
		"Content-Length: 5\r\n"
		"\r\n",
		/* becomes */
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Content-Length: 5\r\n"
		OURS("h")
		"\r\n");
	expect_request(&usual_request,
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"transfer-encoding:\tCHUNKED \r\n"
		"\r\n",
		/* becomes */
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Transfer-Encoding: chunked\r\n"
		OURS("h")
		"\r\n");
	expect_request(&usual_request,
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Content-Length: 0\r\n"
		"\r\n",
		/* becomes */
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Content-Length: 0\r\n"
		OURS("h")
		"\r\n");
	expect_request(&usual_request,
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Content-Length: 999999999999999999\r\n"
		"\r\n",
		/* becomes */
		"POST / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Content-Length: 999999999999999999\r\n"
		OURS("h")
		"\r\n");
}

static const char came_through_proxies[] =
	"GET / HTTP/1.1\r\n"
	"Host: h\r\n"
	"X-Forwarded-For: 203.0.113.9\r\n"
	"X-Forwarded-Proto: https\r\n"
	"X-Forwarded-Host: front\r\n"
	"Via: 1.1 one\r\n"
	"X-Forwarded-For:\r\n"
	"X-Forwarded-For: 198.51.100.2, 198.51.100.3\r\n"
	"\r\n";

static void appending_joins_the_clients_of_all_proxies_and_keeps_what_the_first_one_said(void)
{
	expect_request(&usual_request,
		came_through_proxies,
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"X-Forwarded-Proto: https\r\n"
		"X-Forwarded-Host: front\r\n"
		"Via: 1.1 one\r\n"
		"Via: 1.1 " VIA "\r\n"
		"X-Forwarded-For: 203.0.113.9, 198.51.100.2, 198.51.100.3, 192.0.2.7\r\n"
		"\r\n");
}

static void setting_believes_nothing_that_came_in(void)
{
	struct rewrite_request how = usual_request;
	how.forwarded = REWRITE_SET;
	expect_request(&how,
		came_through_proxies,
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Via: 1.1 one\r\n"
		OURS("h")
		"\r\n");
	expect_request(&how,
		"GET / HTTP/1.0\r\n"
		"X-Forwarded-Host: x\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: 10.0.0.1:9001\r\n"
		"Via: 1.0 " VIA "\r\n"
		"X-Forwarded-For: 192.0.2.7\r\n"
		"X-Forwarded-Proto: http\r\n"
		"\r\n");
}

static void off_adds_nothing_and_takes_nothing_away(void)
{
	struct rewrite_request how = usual_request;
	how.forwarded = REWRITE_OFF;
	expect_request(&how,
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"X-Forwarded-For: a\r\n"
		"X-Forwarded-Proto: b\r\n"
		"X-Forwarded-Host: c\r\n"
		"Via: 1.1 d\r\n"
		"X-Forwarded-For: e\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"X-Forwarded-For: a\r\n"
		"X-Forwarded-Proto: b\r\n"
		"X-Forwarded-Host: c\r\n"
		"Via: 1.1 d\r\n"
		"X-Forwarded-For: e\r\n"
		"\r\n");
}

static void connection_says_close_or_upgrade_or_nothing(void)
{
	struct rewrite_request how = usual_request;
	how.forwarded = REWRITE_OFF;
	how.keep_alive = false;
	expect_request(&how,
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Connection: close\r\n"
		"\r\n");
	how.upgrades = true;
	expect_request(&how,
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Connection: upgrade\r\n"
		"Upgrade: a, b/2\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Connection: upgrade\r\n"
		"Upgrade: a, b/2\r\n"
		"\r\n");
	expect_request(&how,
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Connection: upgrade\r\n"
		"Upgrade: h2c\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Connection: close\r\n"
		"\r\n");
}

static void expect_goes_on_and_max_forwards_is_replaced_where_it_counts(void)
{
	struct rewrite_request how = usual_request;
	how.forwarded = REWRITE_OFF;
	expect_request(&how,
		"PUT / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Expect: 100-continue\r\n"
		"Content-Length: 1\r\n"
		"\r\n",
		/* becomes */
		"PUT / HTTP/1.1\r\n"
		"Host: h\r\n"
		"Expect: 100-continue\r\n"
		"Content-Length: 1\r\n"
		"\r\n");
	how.max_forwards = 4;
	expect_request(&how,
		"OPTIONS * HTTP/1.1\r\n"
		"Host: h\r\n"
		"max-forwards: 5\r\n"
		"\r\n",
		/* becomes */
		"OPTIONS * HTTP/1.1\r\n"
		"Host: h\r\n"
		"Max-Forwards: 4\r\n"
		"\r\n");
	expect_request(&how,
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"max-forwards: 5\r\n"
		"\r\n",
		/* becomes */
		"GET / HTTP/1.1\r\n"
		"Host: h\r\n"
		"max-forwards: 5\r\n"
		"\r\n");
	how.max_forwards = -1;
	expect_request(&how,
		"TRACE / HTTP/1.1\r\n"
		"Host: h\r\n"
		"max-forwards: 5\r\n"
		"\r\n",
		/* becomes */
		"TRACE / HTTP/1.1\r\n"
		"Host: h\r\n"
		"max-forwards: 5\r\n"
		"\r\n");
}

/* ---- responses ------------------------------------------------------------------------------------------------- */

static void a_response_keeps_its_status_reason_and_fields_and_gets_our_framing(void)
{
	struct rewrite_response how = usual_response;
	how.framing = HTTP_BY_LENGTH;
	how.has_content_length = true;
	how.content_length = 12;
	expect_response(&how,
		"HTTP/1.0 404 Not here\r\n"
		"Content-Length: 12\r\n"
		"Set-Cookie: a\r\n"
		"Connection: x\r\n"
		"X: 1\r\n"
		"Keep-Alive: 5\r\n"
		"Proxy-Authenticate: Basic\r\n"
		"Set-Cookie: b\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 404 Not here\r\n"
		"Set-Cookie: a\r\n"
		"Proxy-Authenticate: Basic\r\n"
		"Set-Cookie: b\r\n"
		"Content-Length: 12\r\n"
		"Via: 1.0 " VIA "\r\n"
		"\r\n");
	how.framing = HTTP_CHUNKED;
	how.has_content_length = false;
	how.via = NULL;
	expect_response(&how,
		"HTTP/1.1 200\r\n"
		"transfer-encoding: chunked\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 200 \r\n"
		"Transfer-Encoding: chunked\r\n"
		"\r\n");
}

static void an_answer_without_a_date_gets_one_and_keeps_its_own(void)
{
	struct rewrite_response how = usual_response;
	how.via = NULL;
	how.date = "Sun, 06 Nov 1994 08:49:37 GMT";
	expect_response(&how,
		"HTTP/1.1 204 No Content\r\n"
		"X: y\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 204 No Content\r\n"
		"X: y\r\n"
		"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
		"\r\n");
	expect_response(&how,
		"HTTP/1.1 204 No Content\r\n"
		"date: yesterday\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 204 No Content\r\n"
		"date: yesterday\r\n"
		"\r\n");
	expect_response(&how, /* who says that Date is meant for us alone has sent none for others */
		"HTTP/1.1 204 No Content\r\n"
		"Connection: Date\r\n"
		"Date: yesterday\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 204 No Content\r\n"
		"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
		"\r\n");
	expect_response(&how,
		"HTTP/1.1 103 Early Hints\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 103 Early Hints\r\n"
		"\r\n");
}

static void the_client_is_told_whether_its_connection_stays_open(void)
{
	struct rewrite_response how = usual_response;
	how.via = NULL;
	how.framing = HTTP_UNTIL_CLOSE;
	how.keep_alive = false;
	expect_response(&how,
		"HTTP/1.1 200 OK\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 200 OK\r\n"
		"Connection: close\r\n"
		"\r\n");
	how.framing = HTTP_BY_LENGTH;
	how.has_content_length = true;
	how.keep_alive = true;
	how.client_is_1_1 = false;
	how.client_asked_keep_alive_1_0 = true;
	expect_response(&how,
		"HTTP/1.1 200 OK\r\n"
		"Content-Length: 0\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 200 OK\r\n"
		"Content-Length: 0\r\n"
		"Connection: keep-alive\r\n"
		"\r\n");
}

static void answers_without_a_body_announce_a_length_only_where_one_may(void)
{
	struct rewrite_response how = usual_response;
	how.via = NULL;
	how.has_content_length = true;
	how.content_length = 7;
	expect_response(&how,
		"HTTP/1.1 304 Not Modified\r\n"
		"Content-Length: 7\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 304 Not Modified\r\n"
		"Content-Length: 7\r\n"
		"\r\n");
	expect_response(&how,
		"HTTP/1.1 204 No Content\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 204 No Content\r\n"
		"\r\n");
}

static void an_interim_answer_says_nothing_about_framing_or_connection_but_101_does(void)
{
	struct rewrite_response how = usual_response;
	how.via = NULL;
	how.keep_alive = false;
	expect_response(&how,
		"HTTP/1.1 103 Early Hints\r\n"
		"Link: x\r\n"
		"Connection: close\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 103 Early Hints\r\n"
		"Link: x\r\n"
		"\r\n");
	how.upgrades = true;
	expect_response(&how,
		"HTTP/1.1 101 Switching\r\n"
		"Upgrade: websocket\r\n"
		"Connection: Upgrade\r\n"
		"Sec-A: b\r\n"
		"\r\n",
		/* becomes */
		"HTTP/1.1 101 Switching\r\n"
		"Sec-A: b\r\n"
		"Connection: upgrade\r\n"
		"Upgrade: websocket\r\n"
		"\r\n");
}

/* ---- bounds, loops, round trips -------------------------------------------------------------------------------- */

static void a_head_that_does_not_fit_is_not_written_at_all(void)
{
	static const char bytes[] = "GET http://a?x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: y\r\nA: b\r\n\r\n";
	static struct http_head head;
	CU_ASSERT_EQUAL_FATAL(http_parse_request(bytes, strlen(bytes), &head).status, 0);
	size_t whole = rewrite_request(&head, &usual_request, written, sizeof written);
	CU_ASSERT(whole > 0);
	for (size_t capacity = 0; capacity <= whole; capacity++) {
		char *out = malloc(capacity ? capacity : 1); /* of that size: the address sanitizer looks on */
		if (!out)
			abort();
		CU_ASSERT_EQUAL(rewrite_request(&head, &usual_request, out, capacity), capacity < whole ? 0 : whole);
		free(out);
	}
	CU_ASSERT_EQUAL_FATAL(http_parse_response("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 25, HTTP_GET, &head).status, 0);
	whole = rewrite_response(&head, &usual_response, written, sizeof written);
	for (size_t capacity = 0; capacity <= whole; capacity++)
		CU_ASSERT_EQUAL(rewrite_response(&head, &usual_response, written, capacity),
		                capacity < whole ? 0 : whole);
}

static void a_request_that_names_us_in_via_has_been_here(void)
{
	static const struct {
		const char *via;
		bool is_loop;
	} list[] = {
		{ "Via: 1.1 weir-1", true },
		{ "Via: 1.0 fred, HTTP/1.1 weir-1 (a, b)", true },
		{ "Via: 1.0 fred (c, d), 1.1\t weir-1(x)", true },
		{ "Via: 1.1 a\r\nvia: 1.1 weir-1", true },
		{ "Connection: Via\r\nVia: 1.1 weir-1", true },
		{ "Via: 1.1 weir-12", false },
		{ "Via: 1.1 weir", false },
		{ "Via: weir-1", false },
		{ "Via: 1.1 fred (weir-1)", false },
		{ "Via:", false },
		{ "X-Via: 1.1 weir-1", false },
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		static struct http_head head;
		char bytes[256];
		snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", list[i].via);
		CU_ASSERT_EQUAL_FATAL(http_parse_request(bytes, strlen(bytes), &head).status, 0);
		CU_ASSERT_EQUAL(rewrite_is_loop(&head, VIA), list[i].is_loop);
	}
}

static void our_own_head_read_again_is_a_loop_and_means_the_same(void)
{
	static const char *const list[] = {
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a:1?x HTTP/1.1\r\nHost: b\r\nVia: 1.1 x (c, d)\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 7, 07\r\nConnection: close\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
		"OPTIONS http://a HTTP/1.0\r\nX-Forwarded-For: x\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
		static struct http_head before, after;
		CU_ASSERT_EQUAL_FATAL(http_parse_request(list[i], strlen(list[i]), &before).status, 0);
		size_t length = rewrite_request(&before, &usual_request, written, sizeof written);
		CU_ASSERT_EQUAL_FATAL(http_parse_request(written, length, &after).status, 0);
		CU_ASSERT(rewrite_is_loop(&after, VIA));
		CU_ASSERT_EQUAL(after.method, before.method);
		CU_ASSERT_EQUAL(after.framing, before.framing);
		CU_ASSERT_EQUAL(after.has_content_length, before.has_content_length);
		CU_ASSERT_EQUAL(after.content_length, before.content_length);
		CU_ASSERT_EQUAL(after.expects_continue, before.expects_continue);
		struct http_text host = before.host.at ? before.host : usual_request.target_host;
		CU_ASSERT(after.host.length == host.length && memcmp(after.host.at, host.at, host.length) == 0);
		CU_ASSERT_EQUAL(after.minor_version, 1);
	}
}

/* ---- to a parent proxy ----------------------------------------------------------------------------------------- */

static void a_parent_proxy_gets_the_absolute_form_and_our_credentials(void)
{
	struct rewrite_request how = usual_request;
	how.forwarded = REWRITE_OFF;
	how.to_proxy = true;
	how.credentials = "Aladdin:open sesame"; /* RFC 7617 §2 */
	static const char *const cases[][2] = {
		{ "GET http://h:81/a?b HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eA==\r\n\r\n",
		  "GET http://h:81/a?b HTTP/1.1\r\nHost: h:81\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n" },
		{ "GET http://h?b HTTP/1.0\r\n\r\n",
		  "GET http://h/?b HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n" },
		{ "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n",
		  "OPTIONS http://h HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		expect_request(&how, cases[i][0], cases[i][1]);
	how.credentials = NULL;
	expect_request(&how, "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n");
}

static void a_parent_proxy_is_asked_for_a_tunnel(void)
{
	/* RFC 4648 §10: every length of the last group */
	static const char *const cases[][2] = { { "f:", "Zjo=" }, { "f:o", "Zjpv" }, { "f:oo", "Zjpvbw==" }, { "f:\xff\xfe", "Zjr//g==" } };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char goes[256];
		struct rewrite_connect how = { .target = "[::1]:443", .credentials = cases[i][0], .via = VIA, .minor_version = 0 };
		snprintf(goes, sizeof goes, "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic %s\r\n"
		         "Via: 1.0 " VIA "\r\n\r\n", cases[i][1]);
		size_t length = rewrite_connect(&how, written, sizeof written - 1);
		expect(cases[i][0], length, goes);
		CU_ASSERT_EQUAL(rewrite_connect(&how, written, length - 1), 0);
	}
	struct rewrite_connect bare = { .target = "h:1" };
	expect("bare", rewrite_connect(&bare, written, sizeof written - 1), "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n");
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(host_comes_first_then_the_fields_in_their_order_then_ours),
		TEST(the_target_goes_out_in_origin_form_and_its_authority_replaces_host),
		TEST(a_1_0_request_goes_out_as_1_1_with_the_target_as_host_if_it_had_none),
		TEST(hop_by_hop_fields_and_those_named_in_connection_stay_here),
		TEST(framing_is_one_field_spelt_by_us),
		TEST(appending_joins_the_clients_of_all_proxies_and_keeps_what_the_first_one_said),
		TEST(setting_believes_nothing_that_came_in),
		TEST(off_adds_nothing_and_takes_nothing_away),
		TEST(connection_says_close_or_upgrade_or_nothing),
		TEST(expect_goes_on_and_max_forwards_is_replaced_where_it_counts),
		TEST(a_response_keeps_its_status_reason_and_fields_and_gets_our_framing),
		TEST(an_answer_without_a_date_gets_one_and_keeps_its_own),
		TEST(the_client_is_told_whether_its_connection_stays_open),
		TEST(answers_without_a_body_announce_a_length_only_where_one_may),
		TEST(an_interim_answer_says_nothing_about_framing_or_connection_but_101_does),
		TEST(a_head_that_does_not_fit_is_not_written_at_all),
		TEST(a_request_that_names_us_in_via_has_been_here),
		TEST(a_parent_proxy_gets_the_absolute_form_and_our_credentials),
		TEST(a_parent_proxy_is_asked_for_a_tunnel),
		TEST(our_own_head_read_again_is_a_loop_and_means_the_same),
	};
	return unit_main("rewrite", tests, sizeof tests / sizeof tests[0]);
}
