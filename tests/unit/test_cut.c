/* Tests of lib/cut.c: one thread ends another's blocking call, and never a stranger's. */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cut.h"
#include "unit.h"

static struct cut cut;
static int client[2], upstream[2];

static void begin(void)
{
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, client), 0);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, upstream), 0);
	cut_init(&cut);
}

static void end(void)
{
	cut_destroy(&cut);
	for (int i = 0; i < 2; i++) {
		close(client[i]);
		close(upstream[i]);
	}
}

static bool is_open(int fd)
{
	char byte;
	return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0;
}

static void *read_to_the_end(void *argument)
{
	char byte;
	while (recv(*(int *)argument, &byte, 1, 0) > 0)
		;
	return NULL;
}

static void a_cut_ends_a_blocking_read(void)
{
	pthread_t reader;
	begin();
	cut_attach(&cut, CUT_CLIENT, client[0]);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&reader, NULL, read_to_the_end, &client[0]), 0);
	cut_now(&cut);
	CU_ASSERT_EQUAL(pthread_join(reader, NULL), 0); /* unit.c ends a test that hangs here */
	end();
}

static void what_is_attached_after_the_cut_is_cut_at_once(void)
{
	begin();
	cut_now(&cut);
	cut_attach(&cut, CUT_UPSTREAM, upstream[0]);
	CU_ASSERT_FALSE(is_open(upstream[0]));
	end();
}

static void what_was_detached_is_left_alone(void)
{
	begin();
	cut_attach(&cut, CUT_CLIENT, client[0]);
	cut_attach(&cut, CUT_UPSTREAM, upstream[0]);
	cut_detach(&cut, CUT_CLIENT);
	cut_now(&cut);
	CU_ASSERT_TRUE(is_open(client[0]));
	CU_ASSERT_FALSE(is_open(upstream[0]));
	end();
}

static void a_client_whose_input_is_cut_can_still_be_answered(void)
{
	char byte = 0;
	begin();
	cut_attach(&cut, CUT_CLIENT, client[0]);
	cut_attach(&cut, CUT_UPSTREAM, upstream[0]);
	cut_client_input(&cut);
	CU_ASSERT_FALSE(is_open(client[0]));
	CU_ASSERT_EQUAL(send(client[0], "x", 1, MSG_NOSIGNAL), 1);
	CU_ASSERT_EQUAL(recv(client[1], &byte, 1, MSG_DONTWAIT), 1);
	CU_ASSERT_TRUE(is_open(upstream[0]));
	end();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_cut_ends_a_blocking_read),
		TEST(what_is_attached_after_the_cut_is_cut_at_once),
		TEST(what_was_detached_is_left_alone),
		TEST(a_client_whose_input_is_cut_can_still_be_answered),
	};
	return unit_main("cut", tests, sizeof tests / sizeof tests[0]);
}
