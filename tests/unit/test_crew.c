/* Tests of lib/crew.c: threads that accept, and their ends. The job says one byte and listens until its client ends. */
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/crew.h"
#include "lib/listener.h"
#include "unit.h"

#define SOON (clock_us() + 10 * US_PER_S)

static struct {
	pthread_mutex_t mutex;
	unsigned begun, ended, active, most_active;
	bool rests; /* the job is idle while it listens; set before the crew starts */
} seen = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static int listener;
static struct address address;

static void *begin_state(void *context, struct worker *worker)
{
	(void)context;
	pthread_mutex_lock(&seen.mutex);
	seen.begun++;
	pthread_mutex_unlock(&seen.mutex);
	return worker;
}

static void end_state(void *state)
{
	(void)state;
	pthread_mutex_lock(&seen.mutex);
	seen.ended++;
	pthread_mutex_unlock(&seen.mutex);
}

static void enter(int change)
{
	pthread_mutex_lock(&seen.mutex);
	seen.active += (unsigned)change;
	if (seen.active > seen.most_active)
		seen.most_active = seen.active;
	pthread_mutex_unlock(&seen.mutex);
}

static void serve(void *state, int fd, const struct address *peer)
{
	struct worker *worker = state;
	char byte = (char)(peer->any.sa_family == AF_INET ? '4' : '?');
	enter(1);
	bool goes_on = !seen.rests || worker_rest(worker);
	if (goes_on && send(fd, &byte, 1, MSG_NOSIGNAL) == 1)
		while (recv(fd, &byte, 1, 0) > 0)
			;
	cut_detach(worker_cut(worker), CUT_CLIENT);
	close(fd);
	enter(-1);
}

static void complain(void *context, const char *what, int error)
{
	(void)context;
	(void)what;
	(void)error;
}

static struct crew *start(unsigned limit, bool rests)
{
	static const struct crew_job job = {
		.begin = begin_state, .end = end_state, .serve = serve, .complain = complain,
	};
	char error[200];
	seen.begun = seen.ended = seen.active = seen.most_active = 0;
	seen.rests = rests;
	listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	struct crew *crew = crew_start(listener, limit, &job);
	CU_ASSERT_PTR_NOT_NULL_FATAL(crew);
	return crew;
}

static void finish(struct crew *crew)
{
	crew_drain(crew);
	CU_ASSERT_TRUE(crew_wait(crew, SOON));
	CU_ASSERT_EQUAL(seen.begun, seen.ended);
	crew_destroy(crew);
	close(listener);
}

static int connected(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL_FATAL(connect(fd, &address.any, address.length), 0);
	return fd;
}

/* The byte that says that a thread serves this connection; 0 at its end. */
static char greeting(int fd, int flags)
{
	char byte = 0;
	return recv(fd, &byte, 1, flags) == 1 ? byte : '\0';
}

static void connections_are_served_side_by_side(void)
{
	int fds[20];
	struct crew *crew = start(100, false);
	for (int i = 0; i < 20; i++)
		fds[i] = connected();
	for (int i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(greeting(fds[i], 0), '4');
	CU_ASSERT_EQUAL(crew_active(crew), 20);
	for (int i = 0; i < 20; i++)
		close(fds[i]);
	finish(crew);
	CU_ASSERT_EQUAL(seen.most_active, 20);
}

static void the_limit_is_held_by_not_accepting(void)
{
	struct crew *crew = start(2, false);
	int first = connected(), second = connected(), third = connected();
	CU_ASSERT_EQUAL(greeting(first, 0), '4');
	CU_ASSERT_EQUAL(greeting(second, 0), '4');
	CU_ASSERT_EQUAL(greeting(third, MSG_DONTWAIT), '\0');
	close(first);
	CU_ASSERT_EQUAL(greeting(third, 0), '4');
	close(second);
	close(third);
	finish(crew);
	CU_ASSERT_EQUAL(seen.most_active, 2);
	CU_ASSERT_EQUAL(seen.begun, 2);
}

static void a_crew_of_one_serves_one_after_the_other(void)
{
	struct crew *crew = start(1, false);
	for (int i = 0; i < 50; i++) {
		int fd = connected();
		CU_ASSERT_EQUAL(greeting(fd, 0), '4');
		close(fd);
	}
	finish(crew);
	CU_ASSERT_EQUAL(seen.begun, 1);
}

static void a_raised_limit_lets_those_that_wait_in(void)
{
	struct crew *crew = start(1, false);
	int first = connected(), second = connected();
	CU_ASSERT_EQUAL(greeting(first, 0), '4');
	crew_set_limit(crew, 2);
	CU_ASSERT_EQUAL(greeting(second, 0), '4');
	close(first);
	close(second);
	finish(crew);
}

static void a_drain_ends_what_rests_at_once_and_waits_for_what_does_not(void)
{
	struct crew *crew = start(10, true);
	int fd = connected();
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	finish(crew); /* though the client has not ended */
	CU_ASSERT_EQUAL(greeting(fd, 0), '\0');
	close(fd);
	crew = start(10, false);
	fd = connected();
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	crew_drain(crew);
	CU_ASSERT_FALSE(crew_wait(crew, clock_us() + 10 * US_PER_MS));
	close(fd);
	finish(crew);
}

static void a_cut_ends_everything(void)
{
	struct crew *crew = start(10, false);
	int fd = connected();
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	crew_drain(crew);
	CU_ASSERT_EQUAL(crew_cut(crew), 1);
	finish(crew);
	close(fd);
}

static void a_retired_crew_accepts_nobody_and_goes_on_with_those_it_has(void)
{
	struct crew *crew = start(10, true);
	int fd = connected();
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	crew_retire(crew);
	int late = socket(AF_INET, SOCK_STREAM, 0);
	CU_ASSERT_NOT_EQUAL(connect(late, &address.any, address.length), 0);
	close(late);
	CU_ASSERT_FALSE(crew_wait(crew, clock_us() + 10 * US_PER_MS));
	close(fd);
	CU_ASSERT_TRUE(crew_wait(crew, SOON));
	finish(crew);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(connections_are_served_side_by_side),
		TEST(the_limit_is_held_by_not_accepting),
		TEST(a_crew_of_one_serves_one_after_the_other),
		TEST(a_raised_limit_lets_those_that_wait_in),
		TEST(a_drain_ends_what_rests_at_once_and_waits_for_what_does_not),
		TEST(a_cut_ends_everything),
		TEST(a_retired_crew_accepts_nobody_and_goes_on_with_those_it_has),
	};
	return unit_main("crew", tests, sizeof tests / sizeof tests[0]);
}
