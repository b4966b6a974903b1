/* Tests of lib/tunnel.c: bytes both ways, unread, until both sides have finished. */
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/tunnel.h"
#include "unit.h"

static struct conn client, target;
static char buffers[2][1024];
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

static void start(enum conn_result *result)
{
	CU_ASSERT_EQUAL_FATAL(pthread_create(&runner, NULL, run, result), 0);
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
	for (int i = 0; i < 500; i++) {
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

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(what_one_side_says_the_other_hears),
		TEST(one_side_may_finish_while_the_other_goes_on),
		TEST(what_came_early_goes_first_and_the_kept_head_stays),
		TEST(a_silent_tunnel_is_ended),
		TEST(a_side_that_breaks_ends_both),
	};
	return unit_main("tunnel", tests, sizeof tests / sizeof tests[0]);
}
