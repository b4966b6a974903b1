/* test_guard.c: who may ask the admin server what. */
#include "lib/guard.h"

#include "lib/admin.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

static const struct guard open_guard = { .machine_name = "weir1.example.net" };
static const struct guard token_guard = { .token = "open sesame", .machine_name = "weir1.example.net" };

static enum guard_verdict ask(const struct guard *guard, const char *from, const char *method, const char *fields)
{
	char bytes[1024];
	struct http_head head;
	struct address peer;
	int length = snprintf(bytes, sizeof bytes, "%s /api/limits HTTP/1.1\r\n%s\r\n", method, fields);
	struct http_fault fault = http_parse_request(bytes, (size_t)length, &head);
	CU_ASSERT_EQUAL_FATAL(fault.status, 0);
	CU_ASSERT_TRUE_FATAL(address_parse(from, 40000, &peer));
	address_unmap(&peer);
	return guard_check(guard, &peer, &head);
}

static void loopback_is_every_address_of_it_and_no_other(void)
{
	static const char *const inside[] = { "127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1" };
	static const char *const outside[] = { "128.0.0.1", "10.0.0.1", "::2", "::ffff:10.0.0.1", "0.0.0.0", "::" };
	struct address address;
	for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
		CU_ASSERT_TRUE_FATAL(address_parse(inside[i], 1, &address));
		CU_ASSERT_TRUE(guard_is_loopback(&address));
	}
	for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
		CU_ASSERT_TRUE_FATAL(address_parse(outside[i], 1, &address));
		CU_ASSERT_FALSE(guard_is_loopback(&address));
	}
	CU_ASSERT_TRUE_FATAL(address_unix("/run/weir.sock", &address));
	CU_ASSERT_TRUE(guard_is_loopback(&address));
}

static void a_host_that_is_no_address_and_not_this_machine_is_refused(void)
{
	static const char *const ours[] = { "127.0.0.1:9100", "localhost", "LOCALHOST:9100", "[::1]:9100", "192.0.2.7", "weir1",
		                            "weir1.example.net:80", "WEIR1:9100" };
	static const char *const foreign[] = { "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9100", "weir1.evil.example",
		                               "weir", "weir1x", "example.net" };
	char fields[200];
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
		snprintf(fields, sizeof fields, "Host: %s\r\n", ours[i]);
		CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "GET", fields), GUARD_PASS);
	}
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
		snprintf(fields, sizeof fields, "Host: %s\r\n", foreign[i]);
		CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "GET", fields), GUARD_FOREIGN_HOST);
	}
}

static void another_page_s_origin_is_refused_for_reads_and_writes(void)
{
	static const char *const foreign[] = { "http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:9101",
		                               "http://127.0.0.1:9100.evil.example", "ftp://127.0.0.1:9100" };
	char fields[200];
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
		snprintf(fields, sizeof fields, "Host: 127.0.0.1:9100\r\nOrigin: %s\r\n", foreign[i]);
		CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "PUT", fields), GUARD_FOREIGN_ORIGIN);
		CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "GET", fields), GUARD_FOREIGN_ORIGIN);
	}
	CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "PUT", "Host: 127.0.0.1:9100\r\nOrigin: http://127.0.0.1:9100\r\n"), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "PUT", "Host: localhost:9100\r\nOrigin: https://localhost:9100\r\n"), GUARD_PASS);
}

static void what_another_page_embeds_is_refused_and_a_link_to_us_is_not(void)
{
	static const struct {
		const char *fields;
		enum guard_verdict verdict;
	} cases[] = {
		{ "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n", GUARD_FOREIGN_ORIGIN },
		{ "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", GUARD_FOREIGN_ORIGIN },
		{ "Sec-Fetch-Site: cross-site\r\n", GUARD_FOREIGN_ORIGIN },
		{ "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", GUARD_PASS },
		{ "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", GUARD_PASS },
		{ "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n", GUARD_PASS },
	};
	char fields[200];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		snprintf(fields, sizeof fields, "Host: 127.0.0.1:9100\r\n%s", cases[i].fields);
		CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "GET", fields), cases[i].verdict);
	}
}

static void a_write_from_elsewhere_needs_the_token(void)
{
	const char *host = "Host: 192.0.2.1:9100\r\n";
	CU_ASSERT_EQUAL(ask(&open_guard, "192.0.2.7", "PUT", host), GUARD_LOCAL_ONLY);
	CU_ASSERT_EQUAL(ask(&open_guard, "192.0.2.7", "GET", host), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&open_guard, "127.0.0.1", "PUT", host), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "PUT", host), GUARD_TOKEN_NEEDED);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "GET", host), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&token_guard, "127.0.0.1", "PUT", host), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "PUT", "Host: 192.0.2.1\r\nAuthorization: Bearer open sesame\r\n"), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "PUT", "Host: 192.0.2.1\r\nAuthorization: bearer open sesame\r\n"), GUARD_PASS);
}

static void a_wrong_token_is_refused_even_where_none_is_needed(void)
{
	static const char *const wrong[] = { "Bearer open sesam", "Bearer open sesame!", "Bearer", "Bearer ", "Basic b3BlbiBzZXNhbWU=",
		                             "open sesame" };
	char fields[200];
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		snprintf(fields, sizeof fields, "Host: 127.0.0.1\r\nAuthorization: %s\r\n", wrong[i]);
		CU_ASSERT_EQUAL(ask(&token_guard, "127.0.0.1", "PUT", fields), GUARD_WRONG_TOKEN);
		CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "GET", fields), GUARD_WRONG_TOKEN);
	}
}

static void the_token_opens_any_host_but_no_foreign_origin(void)
{
	const char *token = "Host: weir.lan\r\nAuthorization: Bearer open sesame\r\n";
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "GET", token), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "PUT", token), GUARD_PASS);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "GET",
	                    "Host: weir.lan\r\nAuthorization: Bearer open sesame\r\nOrigin: http://evil.example\r\n"),
	                GUARD_FOREIGN_ORIGIN);
	CU_ASSERT_EQUAL(ask(&token_guard, "192.0.2.7", "GET", "Host: weir.lan\r\n"), GUARD_FOREIGN_HOST);
}

static void places_are_read_and_a_port_alone_is_on_loopback(void)
{
	static const struct {
		const char *text, *bind;
		unsigned port;
	} good[] = { { "9100", "127.0.0.1", 9100 },           { "0", "127.0.0.1", 0 },
		     { "127.0.0.1:9100", "127.0.0.1", 9100 }, { "localhost:9100", "127.0.0.1", 9100 },
		     { "[::1]:9100", "::1", 9100 },           { "*:9100", "::", 9100 },
		     { "0.0.0.0:80", "0.0.0.0", 80 },         { "unix:/run/weir.sock", "unix:/run/weir.sock", 0 } };
	static const char *const bad[] = { "", ":9100", "9100:", "65536", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "::1:9100", "[::1]",
		                           "weir.example:9100", "-1", "9100 ", "unix:", "[127.0.0.1:9100", "*", "1.2.3:9100" };
	struct admin_place place;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		CU_ASSERT_TRUE(admin_parse_place(good[i].text, &place));
		CU_ASSERT_STRING_EQUAL(place.bind, good[i].bind);
		CU_ASSERT_EQUAL(place.port, good[i].port);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_FALSE(admin_parse_place(bad[i], &place));
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(loopback_is_every_address_of_it_and_no_other),
		TEST(a_host_that_is_no_address_and_not_this_machine_is_refused),
		TEST(another_page_s_origin_is_refused_for_reads_and_writes),
		TEST(what_another_page_embeds_is_refused_and_a_link_to_us_is_not),
		TEST(a_write_from_elsewhere_needs_the_token),
		TEST(a_wrong_token_is_refused_even_where_none_is_needed),
		TEST(the_token_opens_any_host_but_no_foreign_origin),
		TEST(places_are_read_and_a_port_alone_is_on_loopback),
	};
	return unit_main("guard", tests, sizeof tests / sizeof tests[0]);
}
