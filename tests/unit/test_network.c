/* test_network.c: which texts are networks, and which addresses are in them.
 *
 * Membership is compared, over many random networks and addresses, with a check that is too slow and too simple to be
 * wrong: one bit after the other.
 */
#include "lib/network.h"

#include "unit.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static bool is_network(const char *text)
{
	struct network network;
	return network_parse(text, strlen(text), &network);
}

/* Is the address in the list of this one network? */
static bool holds(const char *text, const char *host)
{
	struct network network;
	struct address address;
	struct networks list = { .items = &network, .count = 1 };

	CU_ASSERT_TRUE_FATAL(network_parse(text, strlen(text), &network));
	CU_ASSERT_TRUE_FATAL(address_parse(host, 0, &address));
	return networks_contain(&list, &address);
}

static void addresses_and_networks_are_read(void)
{
	static const char *const good[] = { "10.0.0.0/8",  "192.0.2.7",     "192.0.2.7/32",        "0.0.0.0/0",
					    "::/0",        "2001:db8::/32", "2001:db8::1",         "::1/128",
					    "128.0.0.0/1", "fe80::/10",     "::ffff:10.0.0.0/104", "::ffff:192.0.2.1" };
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		CU_ASSERT_TRUE(is_network(good[i]));
}

static void what_could_be_read_in_two_ways_is_no_network(void)
{
	static const char *const bad[] = { "",
					   "/",
					   "/8",
					   "10.0.0.0/",
					   "10.0.0.0/33",
					   "10/8",
					   "10.0.0.1/8",
					   "10.0.0.0/08",
					   "10.0.0.0/+8",
					   "10.0.0.0/ 8",
					   "10.0.0.0/8 ",
					   " 10.0.0.0",
					   "10.0.0.0/8/8",
					   "010.0.0.0",
					   "256.0.0.0",
					   "10.0.0.0/-1",
					   "::/129",
					   "2001:db8::1/32",
					   "fe80::1%1",
					   "[::1]",
					   "1.2.3.4:80",
					   "::ffff:10.0.0.1/104",
					   "example.org",
					   "10.0.0.0/8x",
					   "10.0.0.0/1000",
					   "10.0.0.0/4294967304",
					   "unix",
					   "all" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (is_network(bad[i]))
			printf("       %s was accepted\n", bad[i]);
		CU_ASSERT_FALSE(is_network(bad[i]));
	}
	CU_ASSERT_FALSE(network_parse("10.0.0.0\0", 9, &(struct network){ 0 }));
}

static void only_the_bytes_that_are_given_are_read(void)
{
	struct network network;
	CU_ASSERT_TRUE(network_parse("0.0.0.0/16", 9, &network));
	CU_ASSERT_EQUAL(network.prefix_bits, 1);
	CU_ASSERT_FALSE(network_parse("10.0.0.0/8", 9, &network)); /* "10.0.0.0/" */
}

static void a_network_holds_its_first_and_its_last_address_and_not_those_beside_them(void)
{
	CU_ASSERT_TRUE(holds("10.1.0.0/16", "10.1.0.0"));
	CU_ASSERT_TRUE(holds("10.1.0.0/16", "10.1.255.255"));
	CU_ASSERT_FALSE(holds("10.1.0.0/16", "10.0.255.255"));
	CU_ASSERT_FALSE(holds("10.1.0.0/16", "10.2.0.0"));
	CU_ASSERT_TRUE(holds("10.16.0.0/12", "10.31.255.255"));
	CU_ASSERT_FALSE(holds("10.16.0.0/12", "10.32.0.0"));
	CU_ASSERT_TRUE(holds("192.0.2.7", "192.0.2.7"));
	CU_ASSERT_FALSE(holds("192.0.2.7", "192.0.2.6"));
	CU_ASSERT_TRUE(holds("2001:db8::/33", "2001:db8:7fff::1"));
	CU_ASSERT_FALSE(holds("2001:db8::/33", "2001:db8:8000::1"));
	CU_ASSERT_TRUE(holds("::1", "::1"));
	CU_ASSERT_FALSE(holds("::1", "::2"));
}

static void an_ipv4_client_is_the_same_in_both_spellings(void)
{
	CU_ASSERT_TRUE(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
	CU_ASSERT_TRUE(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
	CU_ASSERT_TRUE(holds("::ffff:10.0.0.0/104", "::ffff:10.1.2.3"));
	CU_ASSERT_TRUE(holds("::ffff:0.0.0.0/96", "203.0.113.9"));
	CU_ASSERT_FALSE(holds("10.0.0.0/8", "::ffff:11.1.2.3"));
}

static void a_family_has_nothing_of_the_other(void)
{
	CU_ASSERT_TRUE(holds("0.0.0.0/0", "203.0.113.9"));
	CU_ASSERT_FALSE(holds("0.0.0.0/0", "2001:db8::1"));
	CU_ASSERT_TRUE(holds("::/0", "2001:db8::1"));
	CU_ASSERT_FALSE(holds("::/0", "203.0.113.9"));
	CU_ASSERT_FALSE(holds("::/0", "::ffff:203.0.113.9"));
	CU_ASSERT_FALSE(holds("a00::/8", "10.0.0.0"));
}

static void a_unix_peer_is_in_a_list_that_says_unix_and_in_no_network(void)
{
	struct network everything[2] = { { .family = AF_INET }, { .family = AF_INET6 } };
	struct networks list = { .items = everything, .count = 2 };
	struct address peer, tcp;

	CU_ASSERT_TRUE_FATAL(address_unix("/run/weir.sock", &peer) && address_parse("192.0.2.1", 1, &tcp));
	CU_ASSERT_FALSE(networks_contain(&list, &peer));
	list.has_unix = true;
	CU_ASSERT_TRUE(networks_contain(&list, &peer));
	list.count = 0;
	CU_ASSERT_TRUE(networks_contain(&list, &peer));
	CU_ASSERT_FALSE(networks_contain(&list, &tcp));
}

static void an_empty_list_holds_nobody(void)
{
	struct networks none = { .items = NULL };
	struct address address;
	CU_ASSERT_TRUE_FATAL(address_parse("192.0.2.1", 0, &address));
	CU_ASSERT_FALSE(networks_contain(&none, &address));
}

/* ---- against the naive check ---- */

static uint64_t random_state = 88172645463325252u;

static unsigned random_below(unsigned most)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state >> 33) % most;
}

static unsigned bit_of(const uint8_t *bytes, unsigned bit)
{
	return (unsigned)bytes[bit / 8] >> (7 - bit % 8) & 1u;
}

static bool naive(const uint8_t *one, const uint8_t *other, unsigned bits)
{
	for (unsigned bit = 0; bit < bits; bit++)
		if (bit_of(one, bit) != bit_of(other, bit))
			return false;
	return true;
}

/* A random network as text, and an address that shares some random number of its bits. */
static void membership_is_that_of_a_bit_by_bit_comparison(void)
{
	unsigned inside = 0, rounds = 200000;

	for (unsigned round = 0; round < rounds; round++) {
		int family = random_below(2) ? AF_INET : AF_INET6;
		unsigned size = family == AF_INET ? 4 : 16, prefix = random_below(size * 8 + 1),
			 shared = random_below(size * 8 + 1);
		uint8_t base[16] = { 0 }, host[16] = { 0 };
		char text[INET6_ADDRSTRLEN + 8], host_text[INET6_ADDRSTRLEN];

		for (unsigned bit = 0; bit < size * 8; bit++) {
			uint8_t mask = (uint8_t)(1u << (7 - bit % 8));
			if (bit < prefix && random_below(2))
				base[bit / 8] |= mask;
			if (bit < shared ? bit_of(base, bit) : random_below(2))
				host[bit / 8] |= mask;
		}
		inet_ntop(family, base, text, sizeof text);
		snprintf(text + strlen(text), 8, "/%u", prefix);
		inet_ntop(family, host, host_text, sizeof host_text);
		bool wanted = naive(base, host, prefix), found = holds(text, host_text);
		if (wanted != found)
			printf("       %s in %s: %d, wanted %d\n", host_text, text, found, wanted);
		CU_ASSERT_EQUAL_FATAL(found, wanted);
		inside += wanted;
	}
	CU_ASSERT(inside > rounds / 10 && inside < rounds * 9 / 10); /* both answers were put to the test */
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(addresses_and_networks_are_read),
		TEST(what_could_be_read_in_two_ways_is_no_network),
		TEST(only_the_bytes_that_are_given_are_read),
		TEST(a_network_holds_its_first_and_its_last_address_and_not_those_beside_them),
		TEST(an_ipv4_client_is_the_same_in_both_spellings),
		TEST(a_family_has_nothing_of_the_other),
		TEST(a_unix_peer_is_in_a_list_that_says_unix_and_in_no_network),
		TEST(an_empty_list_holds_nobody),
		TEST(membership_is_that_of_a_bit_by_bit_comparison),
	};
	return unit_main("network", tests, sizeof tests / sizeof tests[0]);
}
