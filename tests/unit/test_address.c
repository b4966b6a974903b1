/* Tests of lib/address.c: one client has one name and one number, however it reached us. */
#include <string.h>

#include "lib/address.h"
#include "unit.h"

static struct address parsed(const char *host, unsigned port)
{
	struct address address;
	if (!address_parse(host, port, &address))
		memset(&address, 0, sizeof address);
	return address;
}

static void an_address_is_written_as_it_is_read(void)
{
	static const struct {
		const char *host, *text;
	} rows[] = {
		{ "192.0.2.1", "192.0.2.1:80" },
		{ "0.0.0.0", "0.0.0.0:80" },
		{ "2001:db8::1", "[2001:db8::1]:80" },
		{ "::", "[::]:80" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:80" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[ADDRESS_TEXT_MAX], host[ADDRESS_TEXT_MAX];
		struct address address = parsed(rows[i].host, 80);
		address_text(&address, text);
		address_host_text(&address, host);
		CU_ASSERT_STRING_EQUAL(text, rows[i].text);
		CU_ASSERT_STRING_EQUAL(host, rows[i].host);
		CU_ASSERT_EQUAL(address_port(&address), 80);
	}
}

static void a_name_or_nonsense_is_no_address(void)
{
	static const char *const rows[] = {
		"", "localhost", "192.0.2", "192.0.2.256", "192.0.2.1 ", "[::1]", "::1::", "1",
	};
	struct address address;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		CU_ASSERT_FALSE(address_parse(rows[i], 80, &address));
}

static void an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client(void)
{
	char text[ADDRESS_TEXT_MAX];
	struct address address = parsed("::ffff:192.0.2.1", 4711);
	address_unmap(&address);
	address_text(&address, text);
	CU_ASSERT_STRING_EQUAL(text, "192.0.2.1:4711");
	CU_ASSERT_EQUAL(address.length, sizeof address.v4);
}

static void other_addresses_stay_when_unmapped(void)
{
	static const char *const rows[] = { "192.0.2.1", "2001:db8::1", "::1", "::192.0.2.1" };
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char before[ADDRESS_TEXT_MAX], after[ADDRESS_TEXT_MAX];
		struct address address = parsed(rows[i], 1);
		address_text(&address, before);
		address_unmap(&address);
		address_text(&address, after);
		CU_ASSERT_STRING_EQUAL(before, after);
	}
}

static void a_client_is_its_ipv4_address_or_its_ipv6_network(void)
{
	struct address a = parsed("192.0.2.1", 1), b = parsed("192.0.2.1", 2), c = parsed("192.0.2.2", 1);
	CU_ASSERT_EQUAL(address_client_number(&a), address_client_number(&b));
	CU_ASSERT_NOT_EQUAL(address_client_number(&a), address_client_number(&c));
	struct address d = parsed("2001:db8:1:2::1", 1), e = parsed("2001:db8:1:2:ffff::9", 1);
	struct address f = parsed("2001:db8:1:3::1", 1);
	CU_ASSERT_EQUAL(address_client_number(&d), address_client_number(&e));
	CU_ASSERT_NOT_EQUAL(address_client_number(&d), address_client_number(&f));
}

static void a_unix_path_has_room_for_107_bytes(void)
{
	char path[110], text[ADDRESS_TEXT_MAX], expected[ADDRESS_TEXT_MAX];
	struct address address;
	memset(path, 'p', sizeof path);
	path[108] = '\0';
	CU_ASSERT_FALSE(address_unix(path, &address));
	path[107] = '\0';
	CU_ASSERT_TRUE_FATAL(address_unix(path, &address));
	address_text(&address, text);
	snprintf(expected, sizeof expected, "unix:%s", path);
	CU_ASSERT_STRING_EQUAL(text, expected);
	CU_ASSERT_EQUAL(address_port(&address), 0);
	CU_ASSERT_FALSE(address_unix("", &address));
}

static void a_peer_without_a_path_is_unix_all_the_same(void)
{
	char text[ADDRESS_TEXT_MAX], host[ADDRESS_TEXT_MAX];
	struct address address;
	memset(&address, 0xff, sizeof address); /* accept() writes the family and nothing else */
	address.any.sa_family = AF_UNIX;
	address.length = sizeof(sa_family_t);
	address_text(&address, text);
	address_host_text(&address, host);
	CU_ASSERT_STRING_EQUAL(text, "unix:");
	CU_ASSERT_STRING_EQUAL(host, "unix");
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(an_address_is_written_as_it_is_read),
		TEST(a_name_or_nonsense_is_no_address),
		TEST(an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client),
		TEST(other_addresses_stay_when_unmapped),
		TEST(a_client_is_its_ipv4_address_or_its_ipv6_network),
		TEST(a_unix_path_has_room_for_107_bytes),
		TEST(a_peer_without_a_path_is_unix_all_the_same),
	};
	return unit_main("address", tests, sizeof tests / sizeof tests[0]);
}
