/* test_destination.c: what a forward proxy may reach. Tables: an entry, a question, an answer. */
#include "lib/destination.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads "a, b, c" into a list. */
static struct destinations make_list(const char *text)
{
	struct destinations list = { .items = calloc(16, sizeof *list.items) };
	CU_ASSERT_PTR_NOT_NULL_FATAL(list.items);
	while (*text != '\0') {
		size_t length = strcspn(text, ",");
		const char *why = destination_parse(text, length, &list.items[list.count++]);
		CU_ASSERT_PTR_NULL_FATAL(why);
		text += length;
		text += strspn(text, ", ");
	}
	return list;
}

static void free_list(struct destinations *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].name);
	free(list->items);
}

static enum destination_answer may_ask(const char *allowed, const char *host, unsigned port, bool is_connect)
{
	struct destinations list = make_list(allowed);
	struct destination to = { .host = host, .length = strlen(host), .port = port, .is_connect = is_connect };
	enum destination_answer answer = destinations_may_ask(&list, &to);
	free_list(&list);
	return answer;
}

static enum destination_answer may_connect(const char *allowed, const char *host, unsigned port, const char *address_text)
{
	struct destinations list = make_list(allowed);
	struct destination to = { .host = host, .length = strlen(host), .port = port };
	struct address address;
	CU_ASSERT_TRUE_FATAL(address_parse(address_text, port, &address));
	enum destination_answer answer = destinations_may_connect(&list, &to, &address);
	free_list(&list);
	return answer;
}

static void entries_are_read(void)
{
	static const struct {
		const char *text;
		enum destination_kind kind;
		const char *name;
		unsigned port, prefix_bits;
	} cases[] = {
		{ "*:443", DESTINATION_ANY, NULL, 443, 0 },
		{ "*:*", DESTINATION_ANY, NULL, 0, 0 },
		{ "Example.COM.:80", DESTINATION_NAME, "example.com", 80, 0 },
		{ "*.Example.com:*", DESTINATION_SUFFIX, ".example.com", 0, 0 },
		{ "10.0.0.0/8:443", DESTINATION_NETWORK, NULL, 443, 8 },
		{ "192.0.2.7:65535", DESTINATION_NETWORK, NULL, 65535, 32 },
		{ "[::1]:*", DESTINATION_NETWORK, NULL, 0, 128 },
		{ "[2001:db8::]/32:1", DESTINATION_NETWORK, NULL, 1, 32 },
		{ "[2001:db8::/32]:1", DESTINATION_NETWORK, NULL, 1, 32 },
		{ "[::ffff:10.0.0.0]/104:1", DESTINATION_NETWORK, NULL, 1, 8 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct destination_entry entry;
		CU_ASSERT_PTR_NULL_FATAL(destination_parse(cases[i].text, strlen(cases[i].text), &entry));
		CU_ASSERT_EQUAL(entry.kind, cases[i].kind);
		CU_ASSERT_EQUAL(entry.port, cases[i].port);
		if (cases[i].name != NULL)
			CU_ASSERT_STRING_EQUAL(entry.name, cases[i].name);
		if (cases[i].kind == DESTINATION_NETWORK)
			CU_ASSERT_EQUAL(entry.network.prefix_bits, cases[i].prefix_bits);
		free(entry.name);
	}
}

static void what_is_no_entry_is_refused_with_a_reason(void)
{
	static const char *const bad[] = { "", ":", "*", "example.com", "example.com:", "example.com:0", "example.com:65536", "a:-1",
		                           "a:80x", "a: 80", "[::1]", "[::1", "::1:80", "[]:80", "[127.0.0.1]:80", "[a]:80", "10.0.0.1/8:80",
		                           "10.0.0.0/33:80", "300.1.1.1:80", ".example.com:80", "*.:80", "*example.com:80", "a..b:80", "a..:80", "*.a..:80", "a b:80",
		                           "a/b:80", ":80", "a*b:80", "*.*:80", "**:80", "a:**",
		                           "[2001:db8::0000000000000000000000000000000000000000000000000000000000000001]:80" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct destination_entry entry;
		const char *why = destination_parse(bad[i], strlen(bad[i]), &entry);
		CU_ASSERT_PTR_NOT_NULL(why);
		if (why == NULL)
			printf("       taken: %s\n", bad[i]);
		CU_ASSERT_PTR_NULL(entry.name);
	}
}

static void names_and_ports_are_asked_before_resolution(void)
{
	static const struct {
		const char *allowed, *host;
		unsigned port;
		bool is_connect;
		enum destination_answer answer;
	} cases[] = {
		{ "", "example.com", 443, true, DESTINATION_ALLOWED },
		{ "", "example.com", 80, true, DESTINATION_NOT_LISTED },
		{ "", "example.com", 22, true, DESTINATION_NOT_LISTED },
		{ "", "example.com", 8080, false, DESTINATION_ALLOWED },
		{ "*:80", "example.com", 80, true, DESTINATION_ALLOWED },
		{ "*:80", "example.com", 443, true, DESTINATION_NOT_LISTED }, /* once set it governs both */
		{ "*:80", "example.com", 81, false, DESTINATION_NOT_LISTED },
		{ "example.com:443", "EXAMPLE.com.", 443, true, DESTINATION_ALLOWED },
		{ "example.com:443", "www.example.com", 443, true, DESTINATION_NOT_LISTED },
		{ "example.com:443", "example.com.evil.test", 443, true, DESTINATION_NOT_LISTED },
		{ "example.com:443", "notexample.com", 443, true, DESTINATION_NOT_LISTED },
		{ "*.example.com:443", "www.example.com", 443, true, DESTINATION_ALLOWED },
		{ "*.example.com:443", "a.b.EXAMPLE.com", 443, true, DESTINATION_ALLOWED },
		{ "*.example.com:443", "example.com", 443, true, DESTINATION_NOT_LISTED },
		{ "*.example.com:443", "notexample.com", 443, true, DESTINATION_NOT_LISTED },
		{ "*.example.com:443", ".example.com", 443, true, DESTINATION_NOT_LISTED },
		{ "192.0.2.0/24:443", "some.name", 443, true, DESTINATION_ALLOWED }, /* it may resolve to one of them */
		{ "192.0.2.0/24:443", "192.0.2.9", 443, true, DESTINATION_ALLOWED },
		{ "192.0.2.0/24:443", "198.51.100.1", 443, true, DESTINATION_NOT_LISTED },
		{ "", "127.0.0.1", 443, true, DESTINATION_SPECIAL },
		{ "", "[::1]", 443, true, DESTINATION_SPECIAL },
		{ "", "::ffff:127.0.0.1", 443, true, DESTINATION_SPECIAL },
		{ "127.0.0.1:443", "127.0.0.1", 443, true, DESTINATION_ALLOWED },
		{ "[::1]:443", "[::1]", 443, true, DESTINATION_ALLOWED },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		enum destination_answer answer = may_ask(cases[i].allowed, cases[i].host, cases[i].port, cases[i].is_connect);
		CU_ASSERT_EQUAL(answer, cases[i].answer);
		if (answer != cases[i].answer)
			printf("       row %zu: %s\n", i, cases[i].host);
	}
}

static void special_addresses_are_told_from_others(void)
{
	static const char *const special[] = {
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.168.1.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", "::", "::1", "::7f00:1",
		"fe80::1", "febf::1", "fec0::1", "fc00::1", "fdff::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::7f00:1",
		"64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "::ffff:0:127.0.0.1",
		"2001:0:a00:1::1" /* Teredo by way of 10.0.0.1 */, "2001:0:102:304:0:0:80ff:fffe" /* and to 127.0.0.1 */ };
	static const char *const other[] = { "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
		                             "128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255",
		                             "192.169.0.0", "223.255.255.255", "2606:4700::1111", "2001:db8::1", "::ffff:1.1.1.1",
		                             "64:ff9b::1.1.1.1", "2002:101:101::1", "fbff::1", "fe00::1" };
	struct address address;
	for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
		CU_ASSERT_TRUE_FATAL(address_parse(special[i], 1, &address));
		CU_ASSERT_TRUE(destination_is_special(&address));
		if (!destination_is_special(&address))
			printf("       not taken for special: %s\n", special[i]);
	}
	for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
		CU_ASSERT_TRUE_FATAL(address_parse(other[i], 1, &address));
		CU_ASSERT_FALSE(destination_is_special(&address));
		if (destination_is_special(&address))
			printf("       taken for special: %s\n", other[i]);
	}
}

static void the_address_that_is_connected_to_decides(void)
{
	static const struct {
		const char *allowed, *host;
		unsigned port;
		const char *address;
		enum destination_answer answer;
	} cases[] = {
		{ "", "example.com", 80, "1.1.1.1", DESTINATION_ALLOWED },
		{ "", "rebound.test", 80, "127.0.0.1", DESTINATION_SPECIAL },
		{ "*:*", "rebound.test", 80, "10.0.0.1", DESTINATION_SPECIAL },
		{ "*:*", "rebound.test", 80, "::ffff:10.0.0.1", DESTINATION_SPECIAL },
		{ "*:*", "rebound.test", 80, "64:ff9b::10.0.0.1", DESTINATION_SPECIAL },
		{ "*.test:*", "rebound.test", 80, "127.0.0.1", DESTINATION_SPECIAL },
		{ "rebound.test:*", "rebound.test", 80, "127.0.0.1", DESTINATION_ALLOWED }, /* that exact name */
		{ "rebound.test:81", "rebound.test", 80, "127.0.0.1", DESTINATION_NOT_LISTED },
		{ "*:*, 127.0.0.1:80", "rebound.test", 80, "127.0.0.1", DESTINATION_ALLOWED },
		{ "*:*, 127.0.0.1:80", "rebound.test", 81, "127.0.0.1", DESTINATION_SPECIAL },
		{ "*:*, 127.0.0.1:80", "rebound.test", 80, "127.0.0.2", DESTINATION_SPECIAL },
		{ "127.0.0.1:*", "x", 80, "::ffff:127.0.0.1", DESTINATION_ALLOWED },
		{ "[::ffff:127.0.0.1]:*", "x", 80, "127.0.0.1", DESTINATION_ALLOWED },
		{ "10.1.0.0/16:*", "x", 80, "10.1.2.3", DESTINATION_ALLOWED },
		{ "10.1.0.0/16:*", "x", 80, "10.2.2.3", DESTINATION_NOT_LISTED },
		{ "10.0.0.0/8:*", "x", 80, "10.2.2.3", DESTINATION_ALLOWED },
		{ "0.0.0.0/0:*", "x", 80, "10.2.2.3", DESTINATION_SPECIAL }, /* names no private network */
		{ "0.0.0.0/0:*", "x", 80, "1.1.1.1", DESTINATION_ALLOWED },
		{ "0.0.0.0/0:*", "x", 80, "2606:4700::1111", DESTINATION_NOT_LISTED },
		{ "[::]/0:*", "x", 80, "::1", DESTINATION_SPECIAL },
		{ "[fe80::]/10:*", "x", 80, "fe80::1", DESTINATION_ALLOWED },
		{ "[64:ff9b::]/96:*", "x", 80, "64:ff9b::10.0.0.1", DESTINATION_SPECIAL }, /* the whole of NAT64 names no private one */
		{ "[64:ff9b::a00:0]/104:*", "x", 80, "64:ff9b::10.0.0.1", DESTINATION_ALLOWED },
		{ "[64:ff9b::10.0.0.1]:*", "x", 80, "64:ff9b::10.0.0.1", DESTINATION_ALLOWED },
		{ "10.0.0.0/8:*", "x", 80, "64:ff9b::10.0.0.1", DESTINATION_NOT_LISTED },
		{ "192.0.2.0/24:443", "x", 443, "198.51.100.1", DESTINATION_NOT_LISTED },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		enum destination_answer answer = may_connect(cases[i].allowed, cases[i].host, cases[i].port, cases[i].address);
		CU_ASSERT_EQUAL(answer, cases[i].answer);
		if (answer != cases[i].answer)
			printf("       row %zu: %s %s: %d\n", i, cases[i].allowed, cases[i].address, (int)answer);
	}
}

static void a_parent_is_asked_for_names_and_for_no_address_that_is_not_allowed(void)
{
	static const struct {
		const char *allowed, *host;
		enum destination_answer answer;
	} cases[] = {
		{ "*:*", "a.test", DESTINATION_ALLOWED },          { "*:*", "192.0.2.1", DESTINATION_ALLOWED },
		{ "*:*", "127.0.0.1", DESTINATION_SPECIAL },       { "*:*", "127.0.0.1.", DESTINATION_SPECIAL },
		{ "*:*", "127.1", DESTINATION_SPECIAL },           { "*:*", "0x7f000001", DESTINATION_SPECIAL },
		{ "*:*", "017700000001", DESTINATION_SPECIAL },    { "*:*", "[::1]", DESTINATION_SPECIAL },
		{ "*:*", "::ffff:10.0.0.1", DESTINATION_SPECIAL }, { "*:*", "localhost", DESTINATION_SPECIAL },
		{ "*:*", "LOCALHOST.", DESTINATION_SPECIAL },      { "*:*", "a.localhost", DESTINATION_SPECIAL },
		{ "*:*", "notlocalhost", DESTINATION_ALLOWED },    { "localhost:80", "localhost", DESTINATION_ALLOWED },
		{ "10.0.0.0/8:*", "a.test", DESTINATION_NOT_LISTED }, /* it may resolve into it: nobody would look */
		{ "10.0.0.0/8:*", "10.1", DESTINATION_ALLOWED },   { "*.test:*", "a.test", DESTINATION_ALLOWED },
		{ "*.test:*", "a.example", DESTINATION_NOT_LISTED }, { "*:443", "a.test", DESTINATION_NOT_LISTED },
		{ "", "a.test", DESTINATION_ALLOWED },             { "", "10.0.0.1", DESTINATION_SPECIAL },
		{ "*.test:*", "a-name-that-is-longer-than-every-usual-spelling-of-an-address.test", DESTINATION_ALLOWED },
		{ "*:*", "000000000000000000000000000000000000000000000000000177.1", DESTINATION_SPECIAL },
		{ "*:*", "0x000000000000000000000000000000000000000000000007f000001.", DESTINATION_SPECIAL },
		{ "*.test:*", ".", DESTINATION_NOT_LISTED },       { "*.test:*", "", DESTINATION_NOT_LISTED },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct destinations list = make_list(cases[i].allowed);
		struct destination to = { .host = cases[i].host, .length = strlen(cases[i].host), .port = 80 };
		enum destination_answer answer = destinations_may_ask_parent(&list, &to);
		CU_ASSERT_EQUAL(answer, cases[i].answer);
		if (answer != cases[i].answer)
			printf("       row %zu: %s %s: %d\n", i, cases[i].allowed, cases[i].host, (int)answer);
		free_list(&list);
	}
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(entries_are_read),
		TEST(what_is_no_entry_is_refused_with_a_reason),
		TEST(names_and_ports_are_asked_before_resolution),
		TEST(special_addresses_are_told_from_others),
		TEST(the_address_that_is_connected_to_decides),
		TEST(a_parent_is_asked_for_names_and_for_no_address_that_is_not_allowed),
	};
	return unit_main("destination", tests, sizeof tests / sizeof tests[0]);
}
