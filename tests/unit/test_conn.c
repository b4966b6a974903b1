/* Tests of lib/conn.c: a byte stream with deadlines. The peer is the other end of a socket pair; a deadline that is to
 * pass has passed already, or passes while the connection itself waits for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/conn.h"
#include "lib/listener.h"
#include "unit.h"

#define SOON (clock_us() + 5 * US_PER_S)

static char buffer[64];
static struct conn conn;
static int peer;

static void open_pair(void)
{
	int ends[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&conn, ends[0], buffer, sizeof buffer);
	peer = ends[1];
}

static void close_pair(void)
{
	conn_close(&conn);
	close(peer);
}

static void say(const char *text)
{
	CU_ASSERT_EQUAL_FATAL(send(peer, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static bool waits(const char *text)
{
	return conn_available(&conn) == strlen(text) && memcmp(conn_bytes(&conn), text, strlen(text)) == 0;
}

static void bytes_wait_until_they_are_used(void)
{
	open_pair();
	say("hello");
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits("hello"));
	conn_use(&conn, 2);
	say(" you");
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits("llo you"));
	close_pair();
}

static void a_deadline_that_has_passed_ends_a_read_and_a_write_at_once(void)
{
	struct iovec part = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	size_t sent = 9;
	open_pair();
	CU_ASSERT_EQUAL(conn_fill(&conn, clock_us() - 1), CONN_TIMEOUT);
	CU_ASSERT_EQUAL(conn_send(&conn, &part, 1, clock_us() - 1, &sent), CONN_TIMEOUT);
	CU_ASSERT_EQUAL(sent, 0);
	close_pair();
}

static void a_silent_peer_is_waited_for_until_the_deadline(void)
{
	open_pair();
	uint64_t begun_us = clock_us();
	CU_ASSERT_EQUAL(conn_fill(&conn, begun_us + 20 * US_PER_MS), CONN_TIMEOUT);
	CU_ASSERT_TRUE(clock_us() >= begun_us + 20 * US_PER_MS);
	close_pair();
}

static void patience_is_as_good_as_a_deadline(void)
{
	open_pair();
	uint64_t begun_us = clock_us();
	CU_ASSERT_EQUAL(conn_fill_within(&conn, 20 * US_PER_MS), CONN_TIMEOUT);
	CU_ASSERT_TRUE(clock_us() >= begun_us + 15 * US_PER_MS); /* the system measures it, in ticks */
	say("hello");
	CU_ASSERT_EQUAL(conn_fill_within(&conn, 5 * US_PER_S), CONN_OK);
	CU_ASSERT_TRUE(waits("hello"));
	conn.start = conn.kept = 0;
	conn.end = conn.capacity;
	CU_ASSERT_EQUAL(conn_fill_within(&conn, 5 * US_PER_S), CONN_FULL);
	conn_use(&conn, conn.capacity);
	shutdown(peer, SHUT_WR);
	CU_ASSERT_EQUAL(conn_fill_within(&conn, 5 * US_PER_S), CONN_END);
	close_pair();
	conn_init(&conn, -1, buffer, sizeof buffer);
	CU_ASSERT_EQUAL(conn_fill_within(&conn, 5 * US_PER_S), CONN_BROKEN);
}

static volatile sig_atomic_t alarms;

static void interrupt(int signal)
{
	(void)signal;
	if (++alarms == 5)
		(void)!write(peer, "hello", 5);
}

/* A call with a timeout is interrupted by a signal, and by SIGSTOP and SIGCONT, whatever the handler's flags say (signal(7)). */
static void an_interrupted_wait_goes_on(void)
{
	struct sigaction action = { .sa_handler = interrupt }, before;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec often = { { .tv_nsec = 2000000 }, { .tv_nsec = 2000000 } };
	for (int way = 0; way < 2; way++) {
		timer_t timer;
		open_pair();
		alarms = 0;
		sigaction(SIGUSR1, &action, &before);
		CU_ASSERT_EQUAL_FATAL(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
		timer_settime(timer, 0, &often, NULL);
		enum conn_result result = way == 0 ? conn_fill(&conn, SOON) : conn_fill_within(&conn, 5 * US_PER_S);
		timer_delete(timer);
		sigaction(SIGUSR1, &before, NULL);
		CU_ASSERT_EQUAL(result, CONN_OK);
		CU_ASSERT_TRUE(waits("hello"));
		CU_ASSERT_TRUE(alarms >= 5);
		close_pair();
	}
}

static void parts_arrive_in_their_order_however_large_they_are(void)
{
	static char sent[4096], came[sizeof sent];
	static const size_t sizes[] = { 3, 2047, 2048, 2049, sizeof sent };
	for (size_t i = 0; i < sizeof sent; i++)
		sent[i] = (char)(i % 251);
	open_pair();
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		struct iovec parts[4] = { { sent, 1 }, { sent + 1, 0 }, { sent + 1, sizes[i] - 2 }, { sent + sizes[i] - 1, 1 } };
		size_t count;
		CU_ASSERT_EQUAL(conn_send(&conn, parts, 4, SOON, &count), CONN_OK);
		CU_ASSERT_EQUAL(count, sizes[i]);
		CU_ASSERT_EQUAL(recv(peer, came, sizeof came, MSG_DONTWAIT), (ssize_t)sizes[i]);
		CU_ASSERT_EQUAL(memcmp(sent, came, sizes[i]), 0);
	}
	close_pair();
}

static void the_end_is_told_apart_from_a_break(void)
{
	open_pair();
	shutdown(peer, SHUT_WR);
	CU_ASSERT_EQUAL(conn_try_fill(&conn), CONN_END);
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_END);
	close_pair();
	open_pair();
	CU_ASSERT_EQUAL(conn_try_fill(&conn), CONN_WOULD_BLOCK);
	close(conn.fd);
	CU_ASSERT_EQUAL(conn_try_fill(&conn), CONN_BROKEN);
	conn.fd = -1;
	close_pair();
}

static void a_kept_head_stays_where_it_is_while_a_body_streams_by(void)
{
	open_pair();
	say("HEADbody");
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	conn_keep(&conn, 4);
	for (int i = 0; i < 50; i++) {
		conn_use(&conn, conn_available(&conn) / 2);
		say("0123456789");
		CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
		CU_ASSERT_EQUAL(memcmp(buffer, "HEAD", 4), 0);
		conn_use(&conn, conn_available(&conn));
	}
	conn_forget(&conn);
	say("next");
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits("next"));
	CU_ASSERT_PTR_EQUAL(conn_bytes(&conn), buffer);
	close_pair();
}

static void a_full_buffer_is_said_to_be_full(void)
{
	char much[100];
	memset(much, 'x', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	open_pair();
	say(much);
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	CU_ASSERT_EQUAL(conn_available(&conn), sizeof buffer);
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_FULL);
	CU_ASSERT_EQUAL(conn_try_fill(&conn), CONN_FULL);
	conn_use(&conn, 1);
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	CU_ASSERT_EQUAL(conn_available(&conn), sizeof buffer);
	close_pair();
}

static void a_head_at_the_end_of_the_buffer_is_moved_to_where_a_body_has_room(void)
{
	static char large[CONN_BODY_ROOM + 100];
	memset(large, 'x', sizeof large);
	memcpy(large + sizeof large - 5, "HEAD+", 5);
	conn_init(&conn, -1, large, sizeof large);
	conn.start = sizeof large - 5;
	conn.end = sizeof large;
	conn_make_room(&conn, 4);
	CU_ASSERT_TRUE(waits("HEAD+"));
	conn_keep(&conn, 4);
	CU_ASSERT_TRUE(conn.capacity - conn.kept >= CONN_BODY_ROOM);
	CU_ASSERT_TRUE(waits("+"));
	/* One that has room stays: to move it would only cost. */
	conn_init(&conn, -1, large, sizeof large);
	conn.start = 10;
	conn.end = 20;
	conn_make_room(&conn, 10);
	CU_ASSERT_EQUAL(conn.start, 10);
}

static void a_connection_that_moves_takes_along_what_waits(void)
{
	static char small[8];
	struct conn seat;
	open_pair();
	conn_init(&seat, -1, small, sizeof small);
	say("GET / ");
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	conn_use(&conn, 4);
	int fd = conn.fd;
	conn_move(&seat, &conn);
	CU_ASSERT_EQUAL(conn.fd, -1);
	CU_ASSERT_EQUAL(conn_available(&conn), 0);
	CU_ASSERT_EQUAL(seat.fd, fd);
	CU_ASSERT_PTR_EQUAL(seat.buffer, small);
	CU_ASSERT_EQUAL(seat.capacity, sizeof small);
	CU_ASSERT_NOT_EQUAL(seat.receive_timeout_us, 0); /* what the kernel was told is known there too */
	conn_move(&conn, &seat);
	CU_ASSERT_EQUAL(seat.fd, -1);
	CU_ASSERT_TRUE(waits("/ "));
	close_pair();
}

static void sending_goes_on_where_a_timeout_stopped_it(void)
{
	static char a[300000], b[300000], got[1000];
	struct iovec parts[3] = { { a, sizeof a }, { a, 0 }, { b, sizeof b } };
	size_t sent, sent_in_all = 0, read_in_all = 0;
	enum conn_result result;
	memset(a, 'a', sizeof a);
	memset(b, 'b', sizeof b);
	open_pair();
	do {
		result = conn_send(&conn, parts, 3, clock_us() + 2 * US_PER_MS, &sent);
		sent_in_all += sent;
		while (result == CONN_TIMEOUT || read_in_all < sent_in_all) {
			ssize_t count = recv(peer, got, sizeof got, MSG_DONTWAIT);
			if (count <= 0)
				break;
			for (ssize_t i = 0; i < count; i++, read_in_all++)
				if (got[i] != (read_in_all < sizeof a ? 'a' : 'b'))
					CU_FAIL("a byte in the wrong place");
		}
	} while (result == CONN_TIMEOUT);
	CU_ASSERT_EQUAL(result, CONN_OK);
	CU_ASSERT_EQUAL(sent_in_all, sizeof a + sizeof b);
	CU_ASSERT_EQUAL(read_in_all, sizeof a + sizeof b);
	close_pair();
}

static void a_write_to_a_peer_that_is_gone_is_an_error_and_no_signal(void)
{
	struct iovec part = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	open_pair();
	close(peer);
	CU_ASSERT_EQUAL(conn_send(&conn, &part, 1, SOON, NULL), CONN_BROKEN);
	peer = -1;
	close_pair();
}

static void an_idle_connection_is_good_only_while_it_is_open_and_silent(void)
{
	open_pair();
	CU_ASSERT_TRUE(conn_is_quiet(conn.fd, NULL));
	say("x");
	CU_ASSERT_FALSE(conn_is_quiet(conn.fd, NULL));
	close_pair();
	open_pair();
	shutdown(peer, SHUT_WR);
	CU_ASSERT_FALSE(conn_is_quiet(conn.fd, NULL));
	close_pair();
}

static void a_client_with_something_to_read_has_not_hung_up(void)
{
	open_pair();
	CU_ASSERT_FALSE(conn_has_hung_up(&conn));
	say("x");
	shutdown(peer, SHUT_WR);
	CU_ASSERT_FALSE(conn_has_hung_up(&conn));
	CU_ASSERT_EQUAL(conn_unread(&conn), 1);
	CU_ASSERT_EQUAL(conn_fill(&conn, SOON), CONN_OK);
	CU_ASSERT_FALSE(conn_has_hung_up(&conn));
	CU_ASSERT_EQUAL(conn_unread(&conn), 1);
	conn_use(&conn, 1);
	CU_ASSERT_TRUE(conn_has_hung_up(&conn));
	CU_ASSERT_EQUAL(conn_unread(&conn), 0);
	close_pair();
}

static void a_port_where_nobody_listens_refuses(void)
{
	char error[200];
	struct address address;
	int listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	int fd = conn_socket(&address);
	CU_ASSERT_EQUAL(conn_connect(fd, &address, SOON), CONN_OK);
	close(fd);
	listener_retire(listener); /* the port stays ours until the close */
	fd = conn_socket(&address);
	CU_ASSERT_EQUAL(conn_connect(fd, &address, SOON), CONN_BROKEN);
	CU_ASSERT_EQUAL(errno, ECONNREFUSED);
	close(fd);
	close(listener);
}

/* A unix socket's connect() waits for room in the line, and has no way to be asked for its outcome later. */
static void a_unix_socket_that_takes_nobody_in_is_waited_for_until_the_deadline(void)
{
	char folder[] = "/tmp/weir-test-conn-XXXXXX", path[64];
	struct address address;
	int clients[8], count = 0;
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/socket", folder);
	CU_ASSERT_TRUE_FATAL(address_unix(path, &address));
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(bind(listener, &address.any, address.length), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listener, 0), 0);
	for (bool is_full = false; !is_full && count < 8; count += !is_full) {
		clients[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		is_full = connect(clients[count], &address.any, address.length) != 0;
		if (is_full)
			close(clients[count]);
	}
	CU_ASSERT_TRUE_FATAL(count > 0 && count < 8);
	int fd = conn_socket(&address);
	uint64_t begun_us = clock_us();
	errno = 0;
	CU_ASSERT_EQUAL(conn_connect(fd, &address, begun_us + 20 * US_PER_MS), CONN_TIMEOUT);
	CU_ASSERT_EQUAL(errno, ETIMEDOUT);
	CU_ASSERT_TRUE(clock_us() >= begun_us + 20 * US_PER_MS);
	close(fd);
	close(accept(listener, NULL, NULL));
	fd = conn_socket(&address);
	CU_ASSERT_EQUAL(conn_connect(fd, &address, SOON), CONN_OK);
	close(fd);
	while (count > 0)
		close(clients[--count]);
	close(listener);
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(bytes_wait_until_they_are_used),
		TEST(a_deadline_that_has_passed_ends_a_read_and_a_write_at_once),
		TEST(a_silent_peer_is_waited_for_until_the_deadline),
		TEST(patience_is_as_good_as_a_deadline),
		TEST(an_interrupted_wait_goes_on),
		TEST(parts_arrive_in_their_order_however_large_they_are),
		TEST(the_end_is_told_apart_from_a_break),
		TEST(a_kept_head_stays_where_it_is_while_a_body_streams_by),
		TEST(a_full_buffer_is_said_to_be_full),
		TEST(a_head_at_the_end_of_the_buffer_is_moved_to_where_a_body_has_room),
		TEST(a_connection_that_moves_takes_along_what_waits),
		TEST(sending_goes_on_where_a_timeout_stopped_it),
		TEST(a_write_to_a_peer_that_is_gone_is_an_error_and_no_signal),
		TEST(an_idle_connection_is_good_only_while_it_is_open_and_silent),
		TEST(a_client_with_something_to_read_has_not_hung_up),
		TEST(a_port_where_nobody_listens_refuses),
		TEST(a_unix_socket_that_takes_nobody_in_is_waited_for_until_the_deadline),
	};
	return unit_main("conn", tests, sizeof tests / sizeof tests[0]);
}
