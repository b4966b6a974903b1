/* test_wire.c: the demo programs' reading of HTTP/1.1 framing, over a pair of connected sockets.
 *
 * Every message is read whole and in pieces of each size: any division of the bytes over reads gives the same result.
 *
 * wire.c is compiled here once more with a poll() that a signal interrupts, or that fails, when it is told to.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

static struct {
	int errors[2]; /* of the next calls; 0: the call is the system's own */
	unsigned calls;
	int other_end; /* says hello while the second of these fails */
} polls;

static int told_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int error = polls.calls < 2 ? polls.errors[polls.calls] : 0;
	polls.calls++;
	if (error == 0)
		return poll(fds, count, timeout_ms);
	if (polls.calls == 2 && send(polls.other_end, "hello\r\n", 7, MSG_NOSIGNAL) != 7)
		error = EBADF;
	errno = error;
	return -1;
}

#define poll told_poll
#include "lib/wire.c"
#undef poll

#include "lib/listener.h"
#include "lib/thread.h"
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SOON (clock_us() + 5 * US_PER_S)

/* What a body is read as when its bytes come in pieces of piece_bytes and then the connection ends. */
static enum wire_result read_body(const struct wire_framing *framing, const char *bytes, size_t length,
                                  size_t piece_bytes, uint64_t limit_bytes, uint64_t *body_bytes, size_t *left_bytes)
{
	static struct wire w;
	int pair[2];
	enum wire_result result = WIRE_OK;

	*body_bytes = 0;
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (size_t at = 0; at < length; at += piece_bytes) {
		size_t left = length - at;
		CU_ASSERT_TRUE_FATAL(send(pair[1], bytes + at, left < piece_bytes ? left : piece_bytes, MSG_DONTWAIT) > 0);
	}
	shutdown(pair[1], SHUT_WR);
	wire_begin(&w, pair[0]);
	result = wire_skip_body(&w, framing, limit_bytes, SOON, body_bytes);
	*left_bytes = w.end - w.start;
	close(pair[0]);
	close(pair[1]);
	return result;
}

struct body_case {
	const char *bytes;
	enum wire_result result;
	uint64_t body_bytes;
};

static void check_bodies(const struct wire_framing *framing, const struct body_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		size_t length = strlen(cases[i].bytes);
		for (size_t piece_bytes = 1; piece_bytes <= length; piece_bytes++) {
			uint64_t body_bytes;
			size_t left_bytes;
			enum wire_result result = read_body(framing, cases[i].bytes, length, piece_bytes, 1000, &body_bytes,
			                                    &left_bytes);
			CU_ASSERT_EQUAL(result, cases[i].result);
			if (result == WIRE_OK)
				CU_ASSERT_EQUAL(body_bytes, cases[i].body_bytes);
		}
	}
}

static void chunks_are_read_to_their_end_however_they_are_split(void)
{
	static const struct body_case cases[] = {
		{ "0\r\n\r\n", WIRE_OK, 0 },
		{ "5\r\nhello\r\n0\r\n\r\n", WIRE_OK, 5 },
		{ "A\r\n0123456789\r\n000\r\n\r\n", WIRE_OK, 10 },
		{ "1;name=value\r\na\r\n2 ;x\r\nbc\r\n0;last\r\nTrailer: x\r\n\r\n", WIRE_OK, 3 },
		{ "2\r\n\r\n\r\n0\r\n\r\n", WIRE_OK, 2 },
		{ "5\r\nhello\r\n0\r\n", WIRE_END, 0 },
		{ "5\r\nhello\r", WIRE_END, 0 },
		{ "5\r\nhello", WIRE_END, 0 },
		{ "5\r\nhell", WIRE_END, 0 },
		{ "5", WIRE_END, 0 },
		{ "\r\n", WIRE_MALFORMED, 0 },
		{ "5\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5\r\nhello!\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5 \r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ " 5\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "+5\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "0x5\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5g\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "0000000000000005\r\nhello\r\n0\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "5\r\nhello\r\n0\r\nno colon\r\n\r\n", WIRE_MALFORMED, 0 },
		{ "FFFFFFFFFFFFFFF\r\n", WIRE_TOO_BIG, 0 },
		{ "3E8\r\n", WIRE_END, 0 },
		{ "3E9\r\n", WIRE_TOO_BIG, 0 },
	};
	const struct wire_framing framing = { .is_chunked = true };
	check_bodies(&framing, cases, sizeof cases / sizeof cases[0]);
}

static void a_length_is_read_exactly(void)
{
	static const struct body_case cases[] = {
		{ "hello", WIRE_OK, 5 },
		{ "hell", WIRE_END, 0 },
	};
	const struct wire_framing framing = { .has_length = true, .length = 5 };
	uint64_t body_bytes;
	size_t left_bytes;
	check_bodies(&framing, cases, sizeof cases / sizeof cases[0]);
	CU_ASSERT_EQUAL(read_body(&framing, "helloGET", 8, 8, 1000, &body_bytes, &left_bytes), WIRE_OK);
	CU_ASSERT_EQUAL(left_bytes, 3);
	CU_ASSERT_EQUAL(read_body(&framing, "hello", 5, 5, 4, &body_bytes, &left_bytes), WIRE_TOO_BIG);
}

static enum wire_result take(struct wire_framing *f, const char *name, const char *value)
{
	return wire_framing_field(f, name, value);
}

static void ambiguous_framing_is_malformed(void)
{
	static const char *const lengths[] = { "", "-1", "+1", "1 ", "0x1", "1,1", "1.0", "9999999999999999999" };
	static const char *const codings[] = { "", "gzip", "gzip, chunked", "chunked, chunked", "chunked;q=1",
		"xchunked", "identity" };
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
		CU_ASSERT_EQUAL(take(&(struct wire_framing){ 0 }, "Content-Length", lengths[i]), WIRE_MALFORMED);
	for (size_t i = 0; i < sizeof codings / sizeof codings[0]; i++)
		CU_ASSERT_EQUAL(take(&(struct wire_framing){ 0 }, "Transfer-Encoding", codings[i]), WIRE_MALFORMED);

	struct wire_framing both = { 0 }, other_order = { 0 }, twice = { 0 }, coded_twice = { 0 };
	CU_ASSERT_EQUAL(take(&both, "content-length", "5"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&both, "transfer-encoding", "chunked"), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(take(&other_order, "Transfer-Encoding", "CHUNKED"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&other_order, "Content-Length", "5"), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(take(&twice, "Content-Length", "5"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&twice, "Content-Length", "05"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&twice, "Content-Length", "6"), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(take(&coded_twice, "Transfer-Encoding", "chunked"), WIRE_OK);
	CU_ASSERT_EQUAL(take(&coded_twice, "Transfer-Encoding", "chunked"), WIRE_MALFORMED);
}

static void connection_words_are_found_whole_and_in_any_case(void)
{
	struct wire_framing f = { 0 };
	CU_ASSERT_EQUAL(take(&f, "connection", "closed, keep-alive-not"), WIRE_OK);
	CU_ASSERT_FALSE(f.asks_close);
	CU_ASSERT_FALSE(f.asks_keep_alive);
	CU_ASSERT_EQUAL(take(&f, "Connection", "upgrade ,Close"), WIRE_OK);
	CU_ASSERT_TRUE(f.asks_close);
	CU_ASSERT_TRUE(wire_list_has(",, a\t,b", "B"));
	CU_ASSERT_FALSE(wire_list_has("", "b"));
}

static void a_field_has_a_token_a_colon_and_a_trimmed_value(void)
{
	static const char *const bad[] = { "", ":", ": a", "A", "A b: c", "A : c", " A: c", "A\t: c", "A(: c", "\x80: c" };
	char line[64], *name, *value;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(line, sizeof line, "%s", bad[i]);
		CU_ASSERT_FALSE(wire_field(line, &name, &value));
	}
	snprintf(line, sizeof line, "X-Name: \t a: b \t");
	CU_ASSERT_TRUE(wire_field(line, &name, &value));
	CU_ASSERT_STRING_EQUAL(name, "X-Name");
	CU_ASSERT_STRING_EQUAL(value, "a: b");
	snprintf(line, sizeof line, "A:");
	CU_ASSERT_TRUE(wire_field(line, &name, &value));
	CU_ASSERT_STRING_EQUAL(value, "");
}

/* Reads one line of what is sent, all at once, on a connection that stays open. */
static enum wire_result read_line(const char *bytes, size_t length, size_t budget_bytes, uint64_t deadline_us)
{
	static struct wire w;
	int pair[2];
	char *line;

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	if (length > 0)
		CU_ASSERT_EQUAL(send(pair[1], bytes, length, MSG_DONTWAIT), (ssize_t)length);
	wire_begin(&w, pair[0]);
	enum wire_result result = wire_line(&w, &budget_bytes, deadline_us, &line);
	close(pair[0]);
	close(pair[1]);
	return result;
}

static void a_line_ends_in_crlf_and_holds_neither_cr_nor_nul(void)
{
	static char huge[WIRE_BUFFER_BYTES + 10];
	memset(huge, 'a', sizeof huge);
	CU_ASSERT_EQUAL(read_line("ab\r\n", 4, 4, SOON), WIRE_OK);
	CU_ASSERT_EQUAL(read_line("ab\r\n", 4, 3, SOON), WIRE_TOO_BIG);
	CU_ASSERT_EQUAL(read_line("ab\n", 3, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("\n", 1, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("a\rb\r\n", 5, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("a\r\r\n", 4, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("a\0b\r\n", 5, 100, SOON), WIRE_MALFORMED);
	CU_ASSERT_EQUAL(read_line("aaaa", 4, 3, SOON), WIRE_TOO_BIG);
	CU_ASSERT_EQUAL(read_line(huge, sizeof huge, SIZE_MAX, SOON), WIRE_TOO_BIG);
}

static void a_line_that_does_not_end_is_late_at_the_deadline(void)
{
	CU_ASSERT_EQUAL(read_line("ab\r", 3, 100, clock_us()), WIRE_LATE);
	CU_ASSERT_EQUAL(read_line("", 0, 100, clock_us()), WIRE_LATE);
}

static void open_pair(int pair[2])
{
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_pair(const int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

static void a_message_with_neither_length_nor_chunks_has_no_body(void)
{
	const struct wire_framing framing = { 0 };
	uint64_t body_bytes;
	size_t left_bytes;
	CU_ASSERT_EQUAL(read_body(&framing, "GET /", 5, 5, 1000, &body_bytes, &left_bytes), WIRE_OK);
	CU_ASSERT_EQUAL(body_bytes, 0);
}

/* 300 bytes do not divide the buffer: a line lies across its end again and again. */
static void lines_that_lie_across_the_end_of_the_buffer_are_whole(void)
{
	static char text[600 * 300];
	static struct wire w;
	char *line;
	size_t budget_bytes = sizeof text, at = 0;
	unsigned wrong = 0;
	int pair[2];
	open_pair(pair);
	memset(text, 'x', sizeof text);
	for (unsigned i = 0; i < 600; i++) {
		int length = snprintf(text + i * 300, 300, "%u", i);
		text[i * 300 + (unsigned)length] = 'x';
		memcpy(text + i * 300 + 298, "\r\n", 2);
	}
	wire_begin(&w, pair[0]);
	for (unsigned i = 0; i < 600; i++) {
		while (w.end - w.start < 300 && at < sizeof text) {
			ssize_t sent = send(pair[1], text + at, sizeof text - at, MSG_DONTWAIT);
			if (sent <= 0)
				break;
			at += (size_t)sent;
		}
		CU_ASSERT_EQUAL_FATAL(wire_line(&w, &budget_bytes, SOON, &line), WIRE_OK);
		wrong += strlen(line) != 298 || strtoul(line, NULL, 10) != i;
	}
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_EQUAL(budget_bytes, 0);
	close_pair(pair);
}

static void nothing_is_read_as_late_before_the_deadline(void)
{
	static struct wire w;
	char *line;
	size_t budget_bytes = 100;
	int pair[2];
	open_pair(pair);
	wire_begin(&w, pair[0]);
	uint64_t deadline_us = clock_us() + 20 * US_PER_MS;
	CU_ASSERT_EQUAL(wire_line(&w, &budget_bytes, deadline_us, &line), WIRE_LATE);
	CU_ASSERT_TRUE(clock_us() >= deadline_us);
	/* What came later is read from where it was left. */
	CU_ASSERT_EQUAL(send(pair[1], "late\r\n", 6, 0), 6);
	CU_ASSERT_EQUAL(wire_wait(&w, SOON), WIRE_OK);
	CU_ASSERT_EQUAL(wire_line(&w, &budget_bytes, SOON, &line), WIRE_OK);
	CU_ASSERT_STRING_EQUAL(line, "late");
	close_pair(pair);
}

static void a_signal_does_not_end_a_wait(void)
{
	static struct wire w;
	char *line = NULL;
	size_t budget_bytes = 100;
	int pair[2];
	open_pair(pair);
	wire_begin(&w, pair[0]);
	polls.calls = 0;
	polls.errors[0] = polls.errors[1] = EINTR;
	polls.other_end = pair[1];
	CU_ASSERT_EQUAL(wire_line(&w, &budget_bytes, SOON, &line), WIRE_OK);
	CU_ASSERT_STRING_EQUAL(line, "hello");
	CU_ASSERT_EQUAL(polls.calls, 3);
	polls.errors[0] = polls.errors[1] = 0;
	close_pair(pair);
}

static void a_wait_that_the_system_refuses_is_no_endless_one(void)
{
	static struct wire w;
	int pair[2];
	open_pair(pair);
	wire_begin(&w, pair[0]);
	polls.calls = 0;
	polls.errors[0] = ENOMEM;
	CU_ASSERT_EQUAL(wire_wait(&w, SOON), WIRE_RESET);
	CU_ASSERT_EQUAL(polls.calls, 1);
	polls.errors[0] = 0;
	close_pair(pair);
}

/* The end of the other side with something of ours unread is a reset. */
static void a_reset_is_told_from_an_end(void)
{
	static struct wire w;
	int pair[2];
	open_pair(pair);
	wire_begin(&w, pair[0]);
	close(pair[1]);
	CU_ASSERT_EQUAL(wire_wait(&w, SOON), WIRE_END);
	close(pair[0]);
	open_pair(pair);
	wire_begin(&w, pair[0]);
	CU_ASSERT_EQUAL(wire_send(pair[0], "unread", 6, SOON), WIRE_OK);
	close(pair[1]);
	CU_ASSERT_EQUAL(wire_wait(&w, SOON), WIRE_RESET);
	close(pair[0]);
}

struct rest_case {
	const char *bytes;
	bool ends;
	uint64_t limit_bytes;
	enum wire_result result;
	uint64_t body_bytes;
};

static void a_body_without_a_length_goes_to_the_end_of_the_connection(void)
{
	static const struct rest_case cases[] = {
		{ "", true, 0, WIRE_OK, 0 },
		{ "hello", true, 5, WIRE_OK, 5 },
		{ "hello", true, 4, WIRE_TOO_BIG, 0 },
		{ "hello", false, 5, WIRE_LATE, 5 },
	};
	static struct wire w;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t body_bytes = 0;
		int pair[2];
		open_pair(pair);
		wire_begin(&w, pair[0]);
		CU_ASSERT_EQUAL(wire_send(pair[1], cases[i].bytes, strlen(cases[i].bytes), SOON), WIRE_OK);
		if (cases[i].ends)
			shutdown(pair[1], SHUT_WR);
		uint64_t deadline_us = cases[i].ends ? SOON : clock_us() + 5 * US_PER_MS;
		CU_ASSERT_EQUAL(wire_skip_to_end(&w, cases[i].limit_bytes, deadline_us, &body_bytes), cases[i].result);
		CU_ASSERT_EQUAL(body_bytes, cases[i].body_bytes);
		close_pair(pair);
	}
}

static void *read_all(void *argument)
{
	static char piece[65536];
	static size_t read_bytes;
	int fd = *(int *)argument;
	ssize_t got;
	read_bytes = 0;
	while ((got = recv(fd, piece, sizeof piece, 0)) > 0)
		for (ssize_t i = 0; i < got; i++)
			read_bytes += piece[i] == 'a';
	return &read_bytes;
}

static void a_peer_that_reads_slowly_gets_all_of_it_and_one_that_does_not_read_is_late(void)
{
	static char much[4000000];
	pthread_t thread;
	void *read_bytes;
	int pair[2];
	memset(much, 'a', sizeof much);
	open_pair(pair);
	CU_ASSERT_EQUAL(wire_send(pair[0], much, sizeof much, clock_us() + 5 * US_PER_MS), WIRE_LATE);
	close_pair(pair);
	open_pair(pair);
	CU_ASSERT_EQUAL_FATAL(thread_start(&thread, read_all, &pair[1]), 0);
	CU_ASSERT_EQUAL(wire_send(pair[0], much, sizeof much, clock_us() + 60 * US_PER_S), WIRE_OK);
	shutdown(pair[0], SHUT_WR);
	pthread_join(thread, &read_bytes);
	CU_ASSERT_EQUAL(*(size_t *)read_bytes, sizeof much);
	close_pair(pair);
}

static void sending_to_a_peer_that_is_gone_is_a_reset_and_no_signal(void)
{
	int pair[2];
	open_pair(pair);
	close(pair[1]);
	CU_ASSERT_EQUAL(wire_send(pair[0], "hello", 5, SOON), WIRE_RESET);
	close(pair[0]);
}

static uint64_t wall_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

/* Over TCP, which is where the kernel notes it; it begins to a moment after it was first asked to. */
static void the_arrival_is_when_the_kernel_got_the_bytes(void)
{
	static struct wire w;
	struct address address;
	char error[200], *line;
	int on = 1;
	uint64_t deadline_us = clock_us() + 10 * US_PER_S, sent_us = 0, later_us = 0;
	int listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(connect(client, &address.any, address.length), 0);
	int fd = accept(listener, NULL, NULL);
	wire_begin(&w, fd);
	w.wants_arrival = true;
	CU_ASSERT_EQUAL(wire_send(client, "x\r\n", 3, SOON), WIRE_OK);
	CU_ASSERT_EQUAL(wire_line(&w, &(size_t){ 100 }, SOON, &line), WIRE_OK);
	CU_ASSERT_EQUAL(w.arrived_us, 0); /* the socket was not told to note it */
	CU_ASSERT_EQUAL(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on), 0);
	while (w.arrived_us == 0 && clock_us() < deadline_us) {
		sent_us = wall_us();
		CU_ASSERT_EQUAL_FATAL(wire_send(client, "x\r\n", 3, SOON), WIRE_OK);
		CU_ASSERT_EQUAL_FATAL(wire_line(&w, &(size_t){ 100 }, SOON, &line), WIRE_OK);
		later_us = wall_us();
	}
	CU_ASSERT_TRUE(w.arrived_us >= sent_us);
	CU_ASSERT_TRUE(w.arrived_us <= later_us);
	close(client);
	close(fd);
	close(listener);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(chunks_are_read_to_their_end_however_they_are_split),
		TEST(a_length_is_read_exactly),
		TEST(ambiguous_framing_is_malformed),
		TEST(connection_words_are_found_whole_and_in_any_case),
		TEST(a_field_has_a_token_a_colon_and_a_trimmed_value),
		TEST(a_line_ends_in_crlf_and_holds_neither_cr_nor_nul),
		TEST(a_line_that_does_not_end_is_late_at_the_deadline),
		TEST(a_message_with_neither_length_nor_chunks_has_no_body),
		TEST(lines_that_lie_across_the_end_of_the_buffer_are_whole),
		TEST(nothing_is_read_as_late_before_the_deadline),
		TEST(a_signal_does_not_end_a_wait),
		TEST(a_wait_that_the_system_refuses_is_no_endless_one),
		TEST(a_reset_is_told_from_an_end),
		TEST(a_body_without_a_length_goes_to_the_end_of_the_connection),
		TEST(a_peer_that_reads_slowly_gets_all_of_it_and_one_that_does_not_read_is_late),
		TEST(sending_to_a_peer_that_is_gone_is_a_reset_and_no_signal),
		TEST(the_arrival_is_when_the_kernel_got_the_bytes),
	};
	return unit_main("wire", tests, sizeof tests / sizeof tests[0]);
}
