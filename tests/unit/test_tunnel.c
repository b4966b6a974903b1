/* Tests of lib/tunnel.c: bytes both ways, unread, until both sides have finished. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/thread.h"
#include "lib/tunnel.h"
#include "unit.h"

static struct conn client, target;
static char buffers[2][48 * 1024];
static int client_peer, target_peer;
static struct tunnel_counts counts;
static uint64_t idle_us;
static pthread_t runner;

static void *run(void *argument)
{
	*(enum conn_result *)argument = tunnel_run(&client, &target, idle_us, &counts);
	return NULL;
}

static void begin(void)
{
	int ends[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&client, ends[0], buffers[0], sizeof buffers[0]);
	client_peer = ends[1];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&target, ends[0], buffers[1], sizeof buffers[1]);
	target_peer = ends[1];
	counts = (struct tunnel_counts){ 0, 0 };
	idle_us = 20 * US_PER_S;
}

/* As weir does: SIGPIPE is blocked. */
static void start(enum conn_result *result)
{
	CU_ASSERT_EQUAL_FATAL(thread_start(&runner, run, result), 0);
}

static void end(void)
{
	conn_close(&client);
	conn_close(&target);
	close(client_peer);
	close(target_peer);
}

static bool arrives(int fd, const char *text)
{
	char got[100];
	return recv(fd, got, strlen(text), MSG_WAITALL) == (ssize_t)strlen(text) && memcmp(got, text, strlen(text)) == 0;
}

static bool has_ended(int fd)
{
	char byte;
	return recv(fd, &byte, 1, 0) == 0;
}

static void what_one_side_says_the_other_hears(void)
{
	enum conn_result result;
	begin();
	start(&result);
	send(client_peer, "hello", 5, MSG_NOSIGNAL);
	CU_ASSERT_TRUE(arrives(target_peer, "hello"));
	send(target_peer, "you", 3, MSG_NOSIGNAL);
	CU_ASSERT_TRUE(arrives(client_peer, "you"));
	shutdown(client_peer, SHUT_WR);
	shutdown(target_peer, SHUT_WR);
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_END);
	CU_ASSERT_EQUAL(counts.up_bytes, 5);
	CU_ASSERT_EQUAL(counts.down_bytes, 3);
	end();
}

static void one_side_may_finish_while_the_other_goes_on(void)
{
	enum conn_result result;
	begin();
	start(&result);
	send(client_peer, "question", 8, MSG_NOSIGNAL);
	shutdown(client_peer, SHUT_WR);
	CU_ASSERT_TRUE(arrives(target_peer, "question"));
	CU_ASSERT_TRUE(has_ended(target_peer));
	send(target_peer, "answer", 6, MSG_NOSIGNAL);
	CU_ASSERT_TRUE(arrives(client_peer, "answer"));
	shutdown(target_peer, SHUT_WR);
	CU_ASSERT_TRUE(has_ended(client_peer));
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_END);
	end();
}

static void what_came_early_goes_first_and_the_kept_head_stays(void)
{
	enum conn_result result;
	begin();
	memcpy(buffers[0], "GET /chat\nearly", 15);
	client.end = 15;
	conn_keep(&client, 10);
	start(&result);
	CU_ASSERT_TRUE(arrives(target_peer, "early"));
	for (int i = 0; i < 10000; i++) { /* more than the buffer takes */
		send(client_peer, "SECRET!", 7, MSG_NOSIGNAL);
		CU_ASSERT_TRUE(arrives(target_peer, "SECRET!"));
	}
	shutdown(client_peer, SHUT_WR);
	shutdown(target_peer, SHUT_WR);
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(memcmp(buffers[0], "GET /chat\n", 10), 0);
	end();
}

static void a_silent_tunnel_is_ended(void)
{
	enum conn_result result;
	begin();
	idle_us = US_PER_MS;
	start(&result);
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_TIMEOUT);
	end();
}

static void a_side_that_breaks_ends_both(void)
{
	enum conn_result result;
	begin();
	close(target_peer);
	send(client_peer, "hello", 5, MSG_NOSIGNAL);
	start(&result);
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_BROKEN);
	target_peer = -1;
	end();
}

/* ---- much at a time ------------------------------------------------------------------------------------------------- */

#define MUCH_BYTES (8u << 20)

struct pouring {
	int fd;
	size_t from, until;
	bool is_urgent_then; /* after the last byte: one sent as urgent, and "after" */
	bool ends;           /* "no more from me", last of all */
	pthread_t thread;
};

/* What stands at each place of a stream: a byte lost, doubled or moved would show. */
static char byte_at(size_t place)
{
	return (char)(place ^ (place >> 8) ^ (place >> 16));
}

static void *pour(void *argument)
{
	struct pouring *p = argument;
	char chunk[16384];
	for (size_t done = p->from; done < p->until;) {
		size_t length = p->until - done < sizeof chunk ? p->until - done : sizeof chunk;
		for (size_t i = 0; i < length; i++)
			chunk[i] = byte_at(done + i);
		ssize_t sent = send(p->fd, chunk, length, MSG_NOSIGNAL);
		if (sent <= 0)
			return NULL;
		done += (size_t)sent;
	}
	if (p->is_urgent_then) {
		send(p->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL);
		send(p->fd, "after", 5, MSG_NOSIGNAL);
	}
	if (p->ends)
		shutdown(p->fd, SHUT_WR);
	return NULL;
}

static void start_pouring(struct pouring *p)
{
	CU_ASSERT_EQUAL_FATAL(thread_start(&p->thread, pour, p), 0);
}

static int open_pipe_ends(void)
{
	int count = 0;
	DIR *folder = opendir("/proc/self/fd");
	CU_ASSERT_PTR_NOT_NULL_FATAL(folder);
	for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
		char what[64] = "";
		if (readlinkat(dirfd(folder), entry->d_name, what, sizeof what - 1) > 0)
			count += strncmp(what, "pipe:", 5) == 0;
	}
	closedir(folder);
	return count;
}

/* Reads that part of the stream: is every byte in its place? *most_pipe_ends (may be NULL) grows to the most that were
   open meanwhile. */
static bool pours_out(int fd, size_t from, size_t until, int *most_pipe_ends)
{
	char chunk[16384];
	for (size_t done = from; done < until;) {
		size_t length = until - done < sizeof chunk ? until - done : sizeof chunk;
		ssize_t count = recv(fd, chunk, length, 0);
		if (count <= 0)
			return false;
		for (ssize_t i = 0; i < count; i++)
			if (chunk[i] != byte_at(done + (size_t)i))
				return false;
		done += (size_t)count;
		int ends = most_pipe_ends != NULL ? open_pipe_ends() : 0;
		if (most_pipe_ends != NULL && ends > *most_pipe_ends)
			*most_pipe_ends = ends;
	}
	return true;
}

static void much_arrives_whole_through_pipes_and_then_the_end(void)
{
	enum conn_result result;
	int before = open_pipe_ends(), most = before;
	begin();
	memcpy(buffers[1], "early", 5);
	target.end = 5;
	start(&result);
	CU_ASSERT_TRUE(arrives(client_peer, "early"));
	struct pouring down = { .fd = target_peer, .until = MUCH_BYTES, .ends = true };
	start_pouring(&down);
	CU_ASSERT_TRUE(pours_out(client_peer, 0, MUCH_BYTES, &most));
	CU_ASSERT_EQUAL(most, before + 2);
	CU_ASSERT_TRUE(has_ended(client_peer));
	CU_ASSERT_EQUAL(open_pipe_ends(), before);
	struct pouring up = { .fd = client_peer, .until = MUCH_BYTES, .ends = true };
	start_pouring(&up);
	CU_ASSERT_TRUE(pours_out(target_peer, 0, MUCH_BYTES, NULL));
	CU_ASSERT_TRUE(has_ended(target_peer));
	pthread_join(runner, NULL);
	pthread_join(down.thread, NULL);
	pthread_join(up.thread, NULL);
	CU_ASSERT_EQUAL(result, CONN_END);
	CU_ASSERT_EQUAL(counts.up_bytes, MUCH_BYTES);
	CU_ASSERT_EQUAL(counts.down_bytes, MUCH_BYTES + 5);
	CU_ASSERT_EQUAL(open_pipe_ends(), before);
	CU_ASSERT_EQUAL(fcntl(client.fd, F_GETFL) & O_NONBLOCK, 0);
	CU_ASSERT_EQUAL(fcntl(target.fd, F_GETFL) & O_NONBLOCK, 0);
	end();
}

static void much_both_ways_at_once_arrives_whole(void)
{
	enum conn_result result;
	begin();
	start(&result);
	struct pouring down = { .fd = target_peer, .until = MUCH_BYTES, .ends = true };
	struct pouring up = { .fd = client_peer, .until = MUCH_BYTES, .ends = true };
	start_pouring(&down);
	start_pouring(&up);
	for (size_t done = 0; done < MUCH_BYTES; done += MUCH_BYTES / 64) {
		CU_ASSERT_TRUE(pours_out(client_peer, done, done + MUCH_BYTES / 64, NULL));
		CU_ASSERT_TRUE(pours_out(target_peer, done, done + MUCH_BYTES / 64, NULL));
	}
	CU_ASSERT_TRUE(has_ended(client_peer) && has_ended(target_peer));
	pthread_join(runner, NULL);
	pthread_join(down.thread, NULL);
	pthread_join(up.thread, NULL);
	CU_ASSERT_EQUAL(result, CONN_END);
	end();
}

static void a_short_talk_takes_no_pipe(void)
{
	enum conn_result result;
	int before = open_pipe_ends();
	begin();
	start(&result);
	struct pouring down = { .fd = target_peer, .until = 65536 };
	start_pouring(&down);
	CU_ASSERT_TRUE(pours_out(client_peer, 0, 65536, NULL));
	send(client_peer, "thanks", 6, MSG_NOSIGNAL);
	CU_ASSERT_TRUE(arrives(target_peer, "thanks"));
	CU_ASSERT_EQUAL(open_pipe_ends(), before);
	shutdown(client_peer, SHUT_WR);
	shutdown(target_peer, SHUT_WR);
	pthread_join(runner, NULL);
	pthread_join(down.thread, NULL);
	end();
}

static void a_long_talk_in_small_steps_takes_no_pipe_either(void)
{
	enum conn_result result;
	char said[512] = "";
	int before = open_pipe_ends();
	begin();
	start(&result);
	for (int i = 0; i < 2000; i++) {
		send(client_peer, said, sizeof said, MSG_NOSIGNAL);
		CU_ASSERT_EQUAL(recv(target_peer, said, sizeof said, MSG_WAITALL), sizeof said);
	}
	CU_ASSERT_EQUAL(open_pipe_ends(), before);
	shutdown(client_peer, SHUT_WR);
	shutdown(target_peer, SHUT_WR);
	pthread_join(runner, NULL);
	end();
}

static void a_quiet_tunnel_gives_its_pipe_back_and_takes_another_one_later(void)
{
	enum conn_result result;
	int before = open_pipe_ends(), most;
	begin();
	start(&result);
	for (size_t round = 0; round < 2; round++) {
		struct pouring down = { .fd = target_peer, .from = round * MUCH_BYTES, .until = (round + 1) * MUCH_BYTES };
		most = before;
		start_pouring(&down);
		CU_ASSERT_TRUE(pours_out(client_peer, down.from, down.until, &most));
		CU_ASSERT_EQUAL(most, before + 2);
		pthread_join(down.thread, NULL);
		uint64_t deadline_us = clock_us() + 20 * US_PER_S;
		while (open_pipe_ends() != before && clock_us() < deadline_us)
			sched_yield();
		CU_ASSERT_EQUAL(open_pipe_ends(), before);
	}
	shutdown(client_peer, SHUT_WR);
	shutdown(target_peer, SHUT_WR);
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_END);
	end();
}

static void without_descriptors_for_a_pipe_bytes_are_copied(void)
{
	enum conn_result result;
	struct rlimit usual, none_left;
	int ends[2];
	begin();
	int first_free = dup(0);
	close(first_free);
	CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_NOFILE, &usual), 0);
	none_left = (struct rlimit){ .rlim_cur = (rlim_t)first_free, .rlim_max = usual.rlim_max };
	CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &none_left), 0);
	CU_ASSERT_EQUAL(pipe(ends), -1);
	start(&result);
	struct pouring down = { .fd = target_peer, .until = MUCH_BYTES, .ends = true };
	start_pouring(&down);
	CU_ASSERT_TRUE(pours_out(client_peer, 0, MUCH_BYTES, NULL));
	CU_ASSERT_TRUE(has_ended(client_peer));
	shutdown(client_peer, SHUT_WR);
	pthread_join(runner, NULL);
	pthread_join(down.thread, NULL);
	setrlimit(RLIMIT_NOFILE, &usual);
	CU_ASSERT_EQUAL(result, CONN_END);
	CU_ASSERT_EQUAL(counts.down_bytes, MUCH_BYTES);
	end();
}

/* A SIGPIPE would end this program, and fail them all. */
static void break_in_the_middle(int (*start_thread)(pthread_t *, void *(*)(void *), void *), int pipe_ends)
{
	enum conn_result result;
	int before = open_pipe_ends(), most = before;
	begin();
	CU_ASSERT_EQUAL_FATAL(start_thread(&runner, run, &result), 0);
	struct pouring down = { .fd = target_peer, .until = MUCH_BYTES };
	start_pouring(&down);
	CU_ASSERT_TRUE(pours_out(client_peer, 0, MUCH_BYTES / 2, &most));
	CU_ASSERT_EQUAL(most, before + pipe_ends);
	close(client_peer);
	client_peer = -1;
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_BROKEN);
	CU_ASSERT_EQUAL(open_pipe_ends(), before);
	conn_close(&target); /* its peer's sending ends */
	pthread_join(down.thread, NULL);
	end();
}

static void a_peer_that_goes_while_its_bytes_are_in_a_pipe_breaks_the_tunnel(void)
{
	break_in_the_middle(thread_start, 2);
}

static int start_bare(pthread_t *thread, void *(*body)(void *), void *argument)
{
	return pthread_create(thread, NULL, body, argument);
}

static void a_thread_that_sigpipe_would_kill_copies(void)
{
	break_in_the_middle(start_bare, 0);
}

static void a_reader_who_stops_in_the_middle_is_waited_for_and_then_not(void)
{
	enum conn_result result;
	int before = open_pipe_ends();
	begin();
	idle_us = 50 * US_PER_MS;
	start(&result);
	struct pouring down = { .fd = target_peer, .until = MUCH_BYTES };
	start_pouring(&down);
	CU_ASSERT_TRUE(pours_out(client_peer, 0, MUCH_BYTES / 4, NULL));
	pthread_join(runner, NULL);
	CU_ASSERT_EQUAL(result, CONN_TIMEOUT);
	CU_ASSERT_EQUAL(open_pipe_ends(), before);
	conn_close(&target); /* its peer's sending ends */
	pthread_join(down.thread, NULL);
	end();
}

/* Two ends of a TCP connection over loopback. */
static void tcp_pair(int ends[2])
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof here;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&here, sizeof here), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listener, 1), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(listener, (struct sockaddr *)&here, &length), 0);
	ends[0] = socket(AF_INET, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(connect(ends[0], (struct sockaddr *)&here, sizeof here), 0);
	ends[1] = accept(listener, NULL, NULL);
	CU_ASSERT_TRUE_FATAL(ends[1] >= 0);
	close(listener);
}

static void begin_with_tcp(void)
{
	int ends[2];
	begin();
	end();
	tcp_pair(ends);
	conn_init(&client, ends[0], buffers[0], sizeof buffers[0]);
	client_peer = ends[1];
	tcp_pair(ends);
	conn_init(&target, ends[0], buffers[1], sizeof buffers[1]);
	target_peer = ends[1];
}

/* splice() stops before such a byte; what comes after it must still arrive. */
static void a_byte_sent_as_urgent_stops_nothing(void)
{
	enum conn_result result;
	int before = open_pipe_ends(), most = before;
	begin_with_tcp();
	start(&result);
	struct pouring up = { .fd = client_peer, .until = MUCH_BYTES, .is_urgent_then = true };
	start_pouring(&up);
	CU_ASSERT_TRUE(pours_out(target_peer, 0, MUCH_BYTES, &most));
	CU_ASSERT_EQUAL(most, before + 2);
	CU_ASSERT_TRUE(arrives(target_peer, "after"));
	shutdown(client_peer, SHUT_WR);
	shutdown(target_peer, SHUT_WR);
	pthread_join(runner, NULL);
	pthread_join(up.thread, NULL);
	CU_ASSERT_EQUAL(result, CONN_END);
	end();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(what_one_side_says_the_other_hears),
		TEST(one_side_may_finish_while_the_other_goes_on),
		TEST(what_came_early_goes_first_and_the_kept_head_stays),
		TEST(a_silent_tunnel_is_ended),
		TEST(a_side_that_breaks_ends_both),
		TEST(much_arrives_whole_through_pipes_and_then_the_end),
		TEST(much_both_ways_at_once_arrives_whole),
		TEST(a_short_talk_takes_no_pipe),
		TEST(a_long_talk_in_small_steps_takes_no_pipe_either),
		TEST(a_quiet_tunnel_gives_its_pipe_back_and_takes_another_one_later),
		TEST(without_descriptors_for_a_pipe_bytes_are_copied),
		TEST(a_peer_that_goes_while_its_bytes_are_in_a_pipe_breaks_the_tunnel),
		TEST(a_thread_that_sigpipe_would_kill_copies),
		TEST(a_reader_who_stops_in_the_middle_is_waited_for_and_then_not),
		TEST(a_byte_sent_as_urgent_stops_nothing),
	};
	return unit_main("tunnel", tests, sizeof tests / sizeof tests[0]);
}
