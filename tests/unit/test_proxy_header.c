/* Tests of lib/proxy_header.c: what a header says, what is none, and that not a byte behind it is taken. */
#include "lib/clock.h"
#include "lib/proxy_header.h"
#include "lib/thread.h"
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define LONG_US (20 * US_PER_S)

struct bytes {
	const char *at;
	size_t length;
};
#define BYTES(text) { text, sizeof text - 1 }

static enum proxy_header_result parse(struct bytes bytes, struct proxy_header *out, size_t *used)
{
	return proxy_header_parse(bytes.at, bytes.length, out, used);
}

static const struct {
	struct bytes bytes;
	const char *client, *destination; /* NULL: it names nobody */
} good[] = {
	{ BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n"), "192.0.2.7:5000", "198.51.100.1:443" },
	{ BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), "255.255.255.255:65535", "255.255.255.255:65535" },
	{ BYTES("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), "0.0.0.0:0", "0.0.0.0:0" },
	{ BYTES("PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), "[2001:db8::7]:1", "[::1]:2" },
	{ BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
	  "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" },
	{ BYTES("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), "192.0.2.7:1", "[::1]:2" },
	{ BYTES("PROXY UNKNOWN\r\n"), NULL, NULL },
	{ BYTES("PROXY UNKNOWN 1 2 3 what ever\r\n"), NULL, NULL },
	{ BYTES(SIGNATURE "\x21\x11\0\x0c\xc0\0\2\7\xc6\x33\x64\1\x13\x88\1\xbb"), "192.0.2.7:5000", "198.51.100.1:443" },
	{ BYTES(SIGNATURE "\x21\x11\0\x11\xc0\0\2\7\xc6\x33\x64\1\x13\x88\1\xbb\4\0\2ab"), "192.0.2.7:5000", "198.51.100.1:443" },
	{ BYTES(SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\0\2"),
	  "[2001:db8::7]:1", "[::1]:2" },
	{ BYTES(SIGNATURE "\x20\0\0\0"), NULL, NULL },
	{ BYTES(SIGNATURE "\x20\x11\0\x0c\xc0\0\2\7\xc6\x33\x64\1\x13\x88\1\xbb"), NULL, NULL }, /* LOCAL: whatever it says */
	{ BYTES(SIGNATURE "\x21\0\0\3xyz"), NULL, NULL },
	{ BYTES(SIGNATURE "\x21\x12\0\x0c\xc0\0\2\7\xc6\x33\x64\1\x13\x88\1\xbb"), NULL, NULL }, /* datagrams */
	{ BYTES(SIGNATURE "\x21\x31\0\0"), NULL, NULL },                                      /* Unix sockets */
};

static void check_good(size_t i, const struct proxy_header *header)
{
	char text[ADDRESS_TEXT_MAX];
	CU_ASSERT_EQUAL(header->has_client, good[i].client != NULL);
	if (!header->has_client || good[i].client == NULL)
		return;
	address_text(&header->client, text);
	CU_ASSERT_STRING_EQUAL(text, good[i].client);
	address_text(&header->destination, text);
	CU_ASSERT_STRING_EQUAL(text, good[i].destination);
}

static void both_versions_name_a_client_and_every_part_of_one_asks_for_more(void)
{
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct proxy_header header;
		size_t used;
		for (size_t length = 0; length < good[i].bytes.length; length++)
			CU_ASSERT_EQUAL(proxy_header_parse(good[i].bytes.at, length, &header, &used), PROXY_HEADER_MORE);
		CU_ASSERT_EQUAL(parse(good[i].bytes, &header, &used), PROXY_HEADER_WHOLE);
		CU_ASSERT_EQUAL(used, good[i].bytes.length);
		check_good(i, &header);
	}
}

static void what_is_no_header_is_bad(void)
{
	static const struct bytes bad[] = {
		BYTES("G"), BYTES("GET / HTTP/1.1\r\n"), BYTES("PROXX"), BYTES("proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n"),
		BYTES("PROXY \r\n"), BYTES("PROXY\r\n"), BYTES("PROXY TCP4\r\n"), BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"),
		BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n"), BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n"),
		BYTES("PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n"), BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n"),
		BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"), BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n"),
		BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n"), BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 99999999999999999999 1\r\n"),
		BYTES("PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n"), BYTES("PROXY TCP4 ::1 ::1 1 1\r\n"), BYTES("PROXY TCP6 1.2.3.4 ::1 1 1\r\n"),
		BYTES("PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n"), BYTES("PROXY UNKNOWN \0\r\n"), BYTES("PROXY UNKNOWN\r \r\n"),
		BYTES("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123\r\n"),
		BYTES(SIGNATURE "\x11\x11\0\x0c............"), BYTES(SIGNATURE "\x22\x11\0\x0c............"),
		BYTES(SIGNATURE "\x21\x41\0\x0c............"), BYTES(SIGNATURE "\x21\x13\0\x0c............"),
		BYTES(SIGNATURE "\x21\x11\0\x0b..........."), BYTES(SIGNATURE "\x21\x21\0\x23..................................."),
		BYTES(SIGNATURE "\x21\x11\x10\x01"), /* 4,097 bytes are too many */
		BYTES("\r\n\r\n\0\r\nQUIX"),
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct proxy_header header;
		size_t used;
		CU_ASSERT_EQUAL(parse(bad[i], &header, &used), PROXY_HEADER_BAD);
		CU_ASSERT_FALSE(header.has_client);
	}
}

static void what_is_written_is_read_back(void)
{
	static const struct {
		const char *client, *destination, *read_client, *read_destination;
	} cases[] = {
		{ "192.0.2.7", "198.51.100.1", "192.0.2.7:81", "198.51.100.1:82" },
		{ "2001:db8::7", "::1", "[2001:db8::7]:81", "[::1]:82" },
		{ "2001:db8::7", "198.51.100.1", "[2001:db8::7]:81", "198.51.100.1:82" },
		{ "192.0.2.7", "::1", "192.0.2.7:81", "[::1]:82" },
	};
	for (unsigned version = 1; version <= 2; version++)
		for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
			char out[PROXY_HEADER_WRITE_MAX], text[ADDRESS_TEXT_MAX];
			struct address client, destination;
			struct proxy_header header;
			size_t used;
			CU_ASSERT_TRUE_FATAL(address_parse(cases[i].client, 81, &client));
			CU_ASSERT_TRUE_FATAL(address_parse(cases[i].destination, 82, &destination));
			size_t length = proxy_header_write(version, &client, &destination, out);
			CU_ASSERT_EQUAL(proxy_header_parse(out, length, &header, &used), PROXY_HEADER_WHOLE);
			CU_ASSERT_EQUAL(used, length);
			CU_ASSERT_TRUE(header.has_client);
			address_text(&header.client, text);
			CU_ASSERT_STRING_EQUAL(text, cases[i].read_client);
			address_text(&header.destination, text);
			CU_ASSERT_STRING_EQUAL(text, cases[i].read_destination);
		}
}

static void nobody_is_unknown_or_local(void)
{
	char out[PROXY_HEADER_WRITE_MAX];
	struct address local, internet;
	CU_ASSERT_TRUE_FATAL(address_unix("/x", &local));
	CU_ASSERT_TRUE_FATAL(address_parse("192.0.2.7", 1, &internet));
	CU_ASSERT_EQUAL(proxy_header_write(1, NULL, NULL, out), 15);
	CU_ASSERT_EQUAL(memcmp(out, "PROXY UNKNOWN\r\n", 15), 0);
	CU_ASSERT_EQUAL(proxy_header_write(1, &local, &internet, out), 15);
	CU_ASSERT_EQUAL(proxy_header_write(2, NULL, NULL, out), 16);
	CU_ASSERT_EQUAL(memcmp(out, SIGNATURE "\x20\0\0\0", 16), 0);
	CU_ASSERT_EQUAL(proxy_header_write(2, &internet, &local, out), 16);
}

struct sender {
	int fd;
	struct bytes bytes;
};

/* One byte a time: the receiver sees many divisions. */
static void *send_slowly(void *argument)
{
	const struct sender *sender = argument;
	for (size_t i = 0; i < sender->bytes.length; i++) {
		if (send(sender->fd, sender->bytes.at + i, 1, MSG_NOSIGNAL) != 1)
			break;
		sched_yield();
	}
	return NULL;
}

static void not_a_byte_behind_the_header_is_taken(void)
{
	static const char tail[] = "\x16\x03\x01 a handshake";
	for (size_t i = 0; i < 2 * sizeof good / sizeof good[0]; i++) {
		char all[512], rest[sizeof tail + 1];
		size_t which = i / 2, length = good[which].bytes.length;
		int pair[2];
		pthread_t thread;
		struct proxy_header header;
		memcpy(all, good[which].bytes.at, length);
		memcpy(all + length, tail, sizeof tail);
		struct sender sender = { .bytes = { all, length + sizeof tail } };
		CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		sender.fd = pair[1];
		bool slowly = i % 2 == 0;
		if (slowly)
			CU_ASSERT_EQUAL_FATAL(thread_start(&thread, send_slowly, &sender), 0)
		else
			CU_ASSERT_EQUAL_FATAL(send(pair[1], all, length + sizeof tail, 0), (ssize_t)(length + sizeof tail));
		CU_ASSERT_EQUAL(proxy_header_receive(pair[0], clock_us() + LONG_US, &header), PROXY_HEADER_WHOLE);
		check_good(which, &header);
		if (slowly)
			pthread_join(thread, NULL);
		CU_ASSERT_EQUAL(recv(pair[0], rest, sizeof rest, 0), (ssize_t)sizeof tail);
		CU_ASSERT_EQUAL(memcmp(rest, tail, sizeof tail), 0);
		close(pair[0]);
		close(pair[1]);
	}
}

static void one_that_ends_or_does_not_come_is_told_apart(void)
{
	struct proxy_header header;
	int pair[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	CU_ASSERT_EQUAL(proxy_header_receive(pair[0], clock_us() + 2 * US_PER_MS, &header), PROXY_HEADER_LATE);
	CU_ASSERT_EQUAL(send(pair[1], "PROXY TCP4 1", 12, 0), 12);
	CU_ASSERT_EQUAL(proxy_header_receive(pair[0], clock_us() + 2 * US_PER_MS, &header), PROXY_HEADER_LATE);
	CU_ASSERT_EQUAL(send(pair[1], "PROXY", 5, 0), 5);
	close(pair[1]);
	CU_ASSERT_EQUAL(proxy_header_receive(pair[0], clock_us() + LONG_US, &header), PROXY_HEADER_END);
	close(pair[0]);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(both_versions_name_a_client_and_every_part_of_one_asks_for_more),
		TEST(what_is_no_header_is_bad),
		TEST(what_is_written_is_read_back),
		TEST(nobody_is_unknown_or_local),
		TEST(not_a_byte_behind_the_header_is_taken),
		TEST(one_that_ends_or_does_not_come_is_told_apart),
	};
	return unit_main("proxy_header", tests, sizeof tests / sizeof tests[0]);
}
