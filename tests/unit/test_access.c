/* test_access.c: whose word about a client's address counts, and who may come in.
 *
 * Heads are real ones, read by http_parse_request(), so that what is walked is what a client could send.
 */
#include "lib/access.h"

#include "unit.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers ---- */

/* A list of networks, NULL at the end; "unix" as well. Static: one list of a name at a time. */
static struct networks *list_of(struct network items[8], struct networks *list, const char *first, ...)
{
	va_list rest;

	*list = (struct networks){ .items = items };
	va_start(rest, first);
	for (const char *text = first; text; text = va_arg(rest, const char *)) {
		if (strcmp(text, "unix") == 0)
			list->has_unix = true;
		else if (!network_parse(text, strlen(text), &items[list->count++]))
			abort();
	}
	va_end(rest);
	return list;
}

static struct network trusted_items[8], allow_items[8], deny_items[8];
static struct networks trusted, allow, deny;
#define TRUST(...) list_of(trusted_items, &trusted, __VA_ARGS__, NULL)
#define ALLOW(...) list_of(allow_items, &allow, __VA_ARGS__, NULL)
#define DENY(...) list_of(deny_items, &deny, __VA_ARGS__, NULL)
#define NOBODY (const char *)NULL

/* A request with these field lines, each with its line end. The head and its bytes stay until the next call. */
static const struct http_head *request(const char *fields)
{
	static char bytes[32768];
	static struct http_head head;
	int length = snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
	struct http_fault fault = http_parse_request(bytes, (size_t)length, &head);
	if (fault.status != 0)
		printf("       %s: %s\n", fields, fault.why);
	CU_ASSERT_EQUAL_FATAL(fault.status, 0);
	return &head;
}

static struct address address_of(const char *text)
{
	struct address address;
	if (strcmp(text, "unix") == 0 ? !address_unix("/run/x", &address) : !address_parse(text, 4711, &address))
		abort();
	return address;
}

static void expect_client(const char *peer_text, const char *fields, const char *wanted)
{
	struct address peer = address_of(peer_text), client;
	char found[ADDRESS_TEXT_MAX];

	memset(&client, 0xa5, sizeof client);
	access_client(&trusted, &peer, request(fields), &client);
	address_host_text(&client, found);
	if (strcmp(found, wanted) != 0)
		printf("       %s, %s: %s, wanted %s\n", peer_text, fields, found, wanted);
	CU_ASSERT_STRING_EQUAL(found, wanted);
}

/* ---- the client ---- */

static void without_trust_the_peer_is_the_client_whatever_it_says(void)
{
	TRUST(NOBODY);
	expect_client("198.51.100.1", "", "198.51.100.1");
	expect_client("198.51.100.1", "X-Forwarded-For: 203.0.113.9\r\n", "198.51.100.1");
	expect_client("::1", "X-Forwarded-For: 203.0.113.9\r\n", "::1");
	expect_client("unix", "X-Forwarded-For: 203.0.113.9\r\n", "unix");
	TRUST("10.0.0.0/8");
	expect_client("198.51.100.1", "X-Forwarded-For: 10.0.0.1\r\n", "198.51.100.1");
	expect_client("198.51.100.1", "X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n", "198.51.100.1");
}

static void a_trusted_peer_is_believed_about_its_client(void)
{
	TRUST("10.0.0.0/8");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9");
	expect_client("10.0.0.2", "X-Forwarded-For: 2001:db8::9\r\n", "2001:db8::9");
	expect_client("10.0.0.2", "", "10.0.0.2");
	expect_client("::ffff:10.0.0.2", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9");
	expect_client("::ffff:10.0.0.2", "", "10.0.0.2");
	TRUST("2001:db8::/32");
	expect_client("2001:db8::2", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9");
}

static void the_walk_ends_at_the_first_from_the_right_that_is_not_trusted(void)
{
	TRUST("10.0.0.0/8", "192.0.2.1");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.0.0.3\r\n", "198.51.100.7");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.0.0.3\r\n", "203.0.113.9");
	expect_client("10.0.0.2", "X-Forwarded-For: 10.9.9.9, 198.51.100.7\r\n", "198.51.100.7");
}

static void what_a_client_puts_on_the_left_changes_nothing(void)
{
	char fields[1024];
	static const char *const forged[] = { "10.0.0.1", "unknown", "1.2.3.4, 5.6.7.8",  ",,,",
					      "[::1]:1",  "\"\"",    "10.0.0.1, 10.0.0.2" };

	TRUST("10.0.0.0/8");
	for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) {
		snprintf(fields, sizeof fields, "X-Forwarded-For: %s, 198.51.100.7\r\n", forged[i]);
		expect_client("10.0.0.2", fields, "198.51.100.7");
		snprintf(fields, sizeof fields, "X-Forwarded-For: %s\r\nX-Forwarded-For: 198.51.100.7, 10.1.1.1\r\n",
			 forged[i]);
		expect_client("10.0.0.2", fields, "198.51.100.7");
	}
}

static void when_all_are_trusted_the_first_of_them_is_the_client(void)
{
	TRUST("10.0.0.0/8");
	expect_client("10.0.0.2", "X-Forwarded-For: 10.0.0.9, 10.0.0.3\r\n", "10.0.0.9");
	TRUST("0.0.0.0/0", "::/0", "unix");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n", "203.0.113.9");
}

static void several_fields_are_one_list_in_their_order(void)
{
	TRUST("10.0.0.0/8");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9\r\nX-Other: 1\r\nx-forwarded-for: 10.0.0.3\r\n",
		      "203.0.113.9");
	expect_client("10.0.0.2", "X-Forwarded-For: 10.0.0.3\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For:\r\nX-Forwarded-For: , ,\r\n",
		      "203.0.113.9");
}

static void entries_may_have_ports_and_brackets(void)
{
	static const struct {
		const char *entry, *client;
	} good[] = {
		{ "203.0.113.9:80", "203.0.113.9" },     { "203.0.113.9:65535", "203.0.113.9" },
		{ "[2001:db8::9]", "2001:db8::9" },      { "[2001:db8::9]:443", "2001:db8::9" },
		{ "2001:db8::9", "2001:db8::9" },        { "2001:DB8:0::9", "2001:db8::9" },
		{ "::ffff:203.0.113.9", "203.0.113.9" }, { "[::ffff:203.0.113.9]:1", "203.0.113.9" },
		{ "\t 203.0.113.9 \t", "203.0.113.9" },  { "::", "::" },
		{ "203.0.113.9 \t, ,", "203.0.113.9" },
	};
	char fields[128];

	TRUST("10.0.0.0/8");
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		snprintf(fields, sizeof fields, "X-Forwarded-For: 1.1.1.1,%s\r\n", good[i].entry);
		expect_client("10.0.0.2", fields, good[i].client);
	}
	/* A trusted proxy with a port is still one. */
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9, [::ffff:10.0.0.3]:4711, 10.0.0.4:1\r\n",
		      "203.0.113.9");
}

static void an_entry_that_is_no_address_ends_the_walk_at_who_wrote_it(void)
{
	static const char *const bad[] = { "unknown",
					   "_hidden",
					   "unix",
					   "203.0.113.9:",
					   "203.0.113.9:x",
					   "203.0.113.9:123456",
					   "[]",
					   "[",
					   "]",
					   "[203.0.113.9]",
					   "[::1",
					   "[::1]80",
					   "::1]",
					   "[::1]:",
					   "fe80::1%e0",
					   "203.0.113",
					   "0x7f.0.0.1",
					   "for=1.2.3.4",
					   ":",
					   ":80",
					   "\"1.2.3.4\"",
					   "1.2.3.4 5.6.7.8",
					   "1.2.3.4;5",
					   "256.1.1.1",
					   "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc" };
	char fields[256];

	TRUST("10.0.0.0/8");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(fields, sizeof fields, "X-Forwarded-For: 203.0.113.9, %s\r\n", bad[i]);
		expect_client("10.0.0.2", fields, "10.0.0.2");
		snprintf(fields, sizeof fields, "X-Forwarded-For: 203.0.113.9, %s, 10.0.0.3\r\n", bad[i]);
		expect_client("10.0.0.2", fields, "10.0.0.3");
	}
}

static void a_unix_peer_is_believed_only_when_the_list_says_unix(void)
{
	TRUST("0.0.0.0/0", "::/0");
	expect_client("unix", "X-Forwarded-For: 203.0.113.9\r\n", "unix");
	TRUST("unix");
	expect_client("unix", "X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\n", "203.0.113.9");
	expect_client("10.0.0.2", "X-Forwarded-For: 203.0.113.9\r\n", "10.0.0.2");
}

static void a_very_long_list_is_walked_to_its_beginning(void)
{
	static char fields[32000];
	size_t used = (size_t)sprintf(fields, "X-Forwarded-For: 203.0.113.9");
	while (used < sizeof fields - 32)
		used += (size_t)sprintf(fields + used, ",10.0.0.1");
	sprintf(fields + used, "\r\n");
	TRUST("10.0.0.0/8");
	expect_client("10.0.0.2", fields, "203.0.113.9");
}

/* However a proxy's client fills the head, the client is the last entry, the one that the proxy added. */
static void no_forged_list_ever_changes_the_client_behind_one_proxy(void)
{
	static const char *const pieces[] = {
		"10.0.0.1", "203.0.113.9",           ",",  " ",  "[", "]",   ":", "::1", "80",
		"unknown",  "\r\nX-Forwarded-For: ", "/8", "\t", ".", "ffff"
	};
	uint64_t random = 2463534242u;

	TRUST("10.0.0.0/8");
	for (unsigned round = 0; round < 20000; round++) {
		char fields[1024] = "X-Forwarded-For: ";
		for (unsigned i = 0; i < 12; i++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			strcat(fields, pieces[(random >> 33) % (sizeof pieces / sizeof pieces[0])]);
		}
		strcat(fields, ", 198.51.100.7\r\n");
		struct address peer = address_of("10.0.0.2"), client;
		char found[ADDRESS_TEXT_MAX];
		access_client(&trusted, &peer, request(fields), &client);
		address_host_text(&client, found);
		CU_ASSERT_STRING_EQUAL_FATAL(found, "198.51.100.7");
	}
}

/* ---- in or out ---- */

static bool enters(const char *client_text)
{
	struct address client = address_of(client_text);
	return access_may_enter(&allow, &deny, &client);
}

static void an_empty_allow_lets_everyone_in_and_deny_wins(void)
{
	ALLOW(NOBODY);
	DENY(NOBODY);
	CU_ASSERT_TRUE(enters("203.0.113.9") && enters("2001:db8::1") && enters("unix"));
	DENY("203.0.113.0/24");
	CU_ASSERT_FALSE(enters("203.0.113.9"));
	CU_ASSERT_FALSE(enters("::ffff:203.0.113.9"));
	CU_ASSERT_TRUE(enters("203.0.114.9"));
	ALLOW("203.0.0.0/16");
	CU_ASSERT_FALSE(enters("203.0.113.9"));
	CU_ASSERT_TRUE(enters("203.0.114.9"));
	CU_ASSERT_FALSE(enters("198.51.100.1"));
	CU_ASSERT_FALSE(enters("2001:db8::1"));
	CU_ASSERT_FALSE(enters("unix"));
}

static void unix_peers_are_let_in_and_kept_out_by_their_word(void)
{
	ALLOW("unix");
	DENY(NOBODY);
	CU_ASSERT_TRUE(enters("unix"));
	CU_ASSERT_FALSE(enters("127.0.0.1")); /* a list with nothing but unix is not empty */
	ALLOW(NOBODY);
	DENY("unix");
	CU_ASSERT_FALSE(enters("unix"));
	CU_ASSERT_TRUE(enters("127.0.0.1"));
}

/* ---- exemptions ---- */

static bool is_exempt(const struct settings_exemptions *exempt, const char *peer_text, const char *client_text,
		      const char *fields)
{
	struct address peer = address_of(peer_text), client = address_of(client_text);
	return access_is_exempt(exempt, &trusted, &peer, &client, request(fields));
}

static void a_network_exempts_by_the_client_not_by_the_peer(void)
{
	struct network items[8];
	struct settings_exemptions exempt = { .headers = NULL };

	TRUST("10.0.0.0/8");
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "10.0.0.2", ""));
	list_of(items, &exempt.networks, "10.1.0.0/16", NULL);
	CU_ASSERT_TRUE(is_exempt(&exempt, "10.0.0.2", "10.1.2.3", ""));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.1.2.3", "203.0.113.9", ""));
}

static void a_header_exempts_only_when_a_trusted_peer_sends_it(void)
{
	struct settings_header headers[] = { { "X-Plan", "gold" }, { "X-Team", "a, b" } };
	struct settings_exemptions exempt = { .headers = headers, .header_count = 2 };

	TRUST("10.0.0.0/8");
	CU_ASSERT_TRUE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "x-plan: gold\r\n"));
	CU_ASSERT_TRUE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Team: a, b\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "203.0.113.9", "203.0.113.9", "X-Plan: gold\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "203.0.113.9", "10.0.0.2", "X-Plan: gold\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plan: Gold\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plan: golden\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plan:\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plans: gold\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", ""));
}

static void a_header_that_says_two_things_exempts_nobody(void)
{
	struct settings_header headers[] = { { "X-Plan", "gold" } };
	struct settings_exemptions exempt = { .headers = headers, .header_count = 1 };

	TRUST("10.0.0.0/8");
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plan: gold\r\nX-Plan: free\r\n"));
	CU_ASSERT_FALSE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plan: free\r\nX-Plan: gold\r\n"));
	CU_ASSERT_TRUE(is_exempt(&exempt, "10.0.0.2", "203.0.113.9", "X-Plan: gold\r\nX-Plan: gold\r\n"));
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(without_trust_the_peer_is_the_client_whatever_it_says),
		TEST(a_trusted_peer_is_believed_about_its_client),
		TEST(the_walk_ends_at_the_first_from_the_right_that_is_not_trusted),
		TEST(what_a_client_puts_on_the_left_changes_nothing),
		TEST(when_all_are_trusted_the_first_of_them_is_the_client),
		TEST(several_fields_are_one_list_in_their_order),
		TEST(entries_may_have_ports_and_brackets),
		TEST(an_entry_that_is_no_address_ends_the_walk_at_who_wrote_it),
		TEST(a_unix_peer_is_believed_only_when_the_list_says_unix),
		TEST(a_very_long_list_is_walked_to_its_beginning),
		TEST(no_forged_list_ever_changes_the_client_behind_one_proxy),
		TEST(an_empty_allow_lets_everyone_in_and_deny_wins),
		TEST(unix_peers_are_let_in_and_kept_out_by_their_word),
		TEST(a_network_exempts_by_the_client_not_by_the_peer),
		TEST(a_header_exempts_only_when_a_trusted_peer_sends_it),
		TEST(a_header_that_says_two_things_exempts_nobody),
	};
	return unit_main("access", tests, sizeof tests / sizeof tests[0]);
}
