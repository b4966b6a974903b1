/* Tests of lib/crew.c: threads that accept, and their ends. The job says one byte and listens until its client ends.
 *
 * crew.c is compiled here once more with calls that fail on demand: a process that is out of descriptors, threads or memory.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/thread.h"

static struct {
	atomic_int accept_error; /* of the next accepts_left calls */
	atomic_int accepts_left;
	atomic_int thread_error; /* 0: threads can be started */
	bool no_memory;
} lack;

static int scarce_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	if (atomic_load(&lack.accepts_left) <= 0)
		return accept4(fd, address, length, flags);
	atomic_fetch_sub(&lack.accepts_left, 1);
	errno = atomic_load(&lack.accept_error);
	return -1;
}

static int scarce_thread_start(pthread_t *thread, void *(*body)(void *), void *argument)
{
	int error = atomic_load(&lack.thread_error);
	return error != 0 ? error : thread_start(thread, body, argument);
}

static void *scarce_calloc(size_t count, size_t size)
{
	return lack.no_memory ? NULL : calloc(count, size);
}

#define accept4 scarce_accept4
#define thread_start scarce_thread_start
#define calloc scarce_calloc
#include "lib/crew.c"
#undef accept4
#undef thread_start
#undef calloc

#include "lib/listener.h"
#include "unit.h"

#define SOON (clock_us() + 10 * US_PER_S)

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned begun, ended, active, most_active, complaints;
	const char *complained; /* of what, the first time, and with which error */
	int error;
	unsigned beginnings_that_fail;
	bool keeps_something; /* of each thread, until after its end */
	pthread_key_t key;
	atomic_uint forgotten;
	unsigned at_their_end;
	bool end_is_held_up, end_of_state_is_held_up;
	bool rests; /* the job is idle while it listens; set before the crew starts */
} seen = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static int listener;
static struct address address;

static void *begin_state(void *context, struct worker *worker)
{
	(void)context;
	pthread_mutex_lock(&seen.mutex);
	bool fails = seen.beginnings_that_fail > 0;
	seen.beginnings_that_fail -= fails;
	seen.begun += !fails;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.mutex);
	if (seen.keeps_something)
		pthread_setspecific(seen.key, worker);
	return fails ? NULL : worker;
}

/* As OpenSSL does: what a library keeps for each thread goes when the thread does, after weir's last line in it. */
static void forget(void *kept)
{
	(void)kept;
	pthread_mutex_lock(&seen.mutex);
	seen.at_their_end++;
	pthread_cond_broadcast(&seen.changed);
	while (seen.end_is_held_up)
		pthread_cond_wait(&seen.changed, &seen.mutex);
	pthread_mutex_unlock(&seen.mutex);
	poll(NULL, 0, 50);
	atomic_fetch_add(&seen.forgotten, 1);
}

static void end_state(void *state)
{
	(void)state;
	pthread_mutex_lock(&seen.mutex);
	seen.ended++;
	pthread_cond_broadcast(&seen.changed);
	while (seen.end_of_state_is_held_up)
		pthread_cond_wait(&seen.changed, &seen.mutex);
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

static void serve_client(void *state, int fd, const struct address *peer)
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

static void note_complaint(void *context, const char *what, int error)
{
	(void)context;
	pthread_mutex_lock(&seen.mutex);
	if (seen.complaints++ == 0) {
		seen.complained = what;
		seen.error = error;
	}
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.mutex);
}

/* What the threads have counted so far. */
static unsigned now(const unsigned *count)
{
	pthread_mutex_lock(&seen.mutex);
	unsigned so_many = *count;
	pthread_mutex_unlock(&seen.mutex);
	return so_many;
}

/* Waits until it is so many: false if it does not come to that. */
static bool reaches(const unsigned *count, unsigned wanted)
{
	uint64_t deadline_us = SOON;
	struct timespec deadline = { .tv_sec = (time_t)(deadline_us / US_PER_S) };
	int error = 0;
	pthread_mutex_lock(&seen.mutex);
	while (*count < wanted && error == 0)
		error = pthread_cond_timedwait(&seen.changed, &seen.mutex, &deadline);
	bool is_so = *count >= wanted;
	pthread_mutex_unlock(&seen.mutex);
	return is_so;
}

static const struct crew_job job = {
	.begin = begin_state, .end = end_state, .serve = serve_client, .complain = note_complaint,
};

static void listen_anew(bool rests)
{
	char error[200];
	seen.begun = seen.ended = seen.active = seen.most_active = seen.complaints = 0;
	seen.complained = "";
	seen.rests = rests;
	listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
}

static struct crew *start(unsigned limit, bool rests)
{
	listen_anew(rests);
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

static void the_wait_is_over_when_all_threads_are_gone_and_not_before(void)
{
	int fds[8];
	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&seen.key, forget), 0);
	seen.keeps_something = true;
	atomic_store(&seen.forgotten, 0);
	struct crew *crew = start(100, false);
	for (int i = 0; i < 8; i++)
		fds[i] = connected();
	for (int i = 0; i < 8; i++)
		CU_ASSERT_EQUAL(greeting(fds[i], 0), '4');
	for (int i = 0; i < 8; i++)
		close(fds[i]);
	finish(crew);
	CU_ASSERT_EQUAL(atomic_load(&seen.forgotten), seen.begun);
	CU_ASSERT_TRUE(seen.begun >= 8);
	seen.keeps_something = false;
	pthread_key_delete(seen.key);
}

/* gate: seen.end_is_held_up, seen.end_of_state_is_held_up. */
static void hold_up(bool *gate, bool is_held_up)
{
	pthread_mutex_lock(&seen.mutex);
	*gate = is_held_up;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.mutex);
}

static void a_place_that_comes_free_while_nobody_waits_is_taken_at_once(void)
{
	struct crew *crew = start(2, false);
	int leaving = connected(), staying = connected();
	CU_ASSERT_EQUAL(greeting(leaving, 0), '4');
	CU_ASSERT_EQUAL(greeting(staying, 0), '4');
	hold_up(&seen.end_of_state_is_held_up, true);
	crew_set_limit(crew, 1);
	close(leaving);
	CU_ASSERT_TRUE(reaches(&seen.ended, 1));
	crew_set_limit(crew, 2); /* it has its place still, and the other is busy: nobody waits in accept() */
	int late = connected();
	hold_up(&seen.end_of_state_is_held_up, false);
	CU_ASSERT_EQUAL(greeting(late, 0), '4');
	close(staying);
	close(late);
	finish(crew);
}

static void a_thread_whose_end_takes_long_holds_no_place_and_those_that_end_after_it_hold_none(void)
{
	int fds[5];
	CU_ASSERT_EQUAL_FATAL(pthread_key_create(&seen.key, forget), 0);
	seen.keeps_something = true;
	seen.at_their_end = 0;
	atomic_store(&seen.forgotten, 0);
	hold_up(&seen.end_is_held_up, true);
	struct crew *crew = start(3, false);
	for (int i = 0; i < 3; i++) {
		fds[i] = connected();
		CU_ASSERT_EQUAL(greeting(fds[i], 0), '4');
	}
	crew_set_limit(crew, 1);
	close(fds[0]);
	CU_ASSERT_TRUE(reaches(&seen.at_their_end, 1));
	close(fds[1]);
	CU_ASSERT_TRUE(reaches(&seen.ended, 2)); /* and now it waits for the first */
	crew_set_limit(crew, 3);
	for (int i = 3; i < 5; i++) {
		fds[i] = connected();
		CU_ASSERT_EQUAL(greeting(fds[i], 0), '4');
	}
	for (int i = 2; i < 5; i++)
		close(fds[i]);
	crew_drain(crew);
	CU_ASSERT_FALSE(crew_has_ended(crew));
	hold_up(&seen.end_is_held_up, false);
	CU_ASSERT_TRUE(crew_wait(crew, SOON));
	CU_ASSERT_TRUE(crew_has_ended(crew));
	CU_ASSERT_EQUAL(atomic_load(&seen.forgotten), seen.begun);
	crew_destroy(crew);
	close(listener);
	seen.keeps_something = false;
	pthread_key_delete(seen.key);
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

static void a_lowered_limit_ends_as_many_threads_as_are_over_it_and_not_one_more(void)
{
	int fds[5];
	struct crew *crew = start(5, false);
	for (int i = 0; i < 5; i++)
		fds[i] = connected();
	for (int i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(greeting(fds[i], 0), '4');
	crew_set_limit(crew, 2);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	CU_ASSERT_TRUE(reaches(&seen.ended, 3));
	for (int i = 0; i < 3; i++)
		fds[i] = connected();
	CU_ASSERT_EQUAL(greeting(fds[0], 0), '4');
	CU_ASSERT_EQUAL(greeting(fds[1], 0), '4');
	CU_ASSERT_EQUAL(greeting(fds[2], MSG_DONTWAIT), '\0');
	CU_ASSERT_EQUAL(now(&seen.begun), 5);
	CU_ASSERT_EQUAL(now(&seen.ended), 3);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	finish(crew);
}

static void of_many_idle_threads_those_end_that_are_of_no_use(void)
{
	enum { MANY = WAITING_MAX + 12 };
	static int fds[MANY];
	struct crew *crew = start(MANY, false);
	for (int i = 0; i < MANY; i++)
		fds[i] = connected();
	for (int i = 0; i < MANY; i++)
		CU_ASSERT_EQUAL(greeting(fds[i], 0), '4');
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	CU_ASSERT_TRUE(reaches(&seen.ended, 12));
	int fd = connected();
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	CU_ASSERT_EQUAL(now(&seen.begun), MANY);
	CU_ASSERT_EQUAL(now(&seen.ended), 12);
	close(fd);
	finish(crew);
}

static void without_descriptors_it_is_said_once_a_second_and_tried_again(void)
{
	static const int lacks[] = { EMFILE, ENFILE, ENOBUFS, ENOMEM };
	for (size_t i = 0; i < sizeof lacks / sizeof lacks[0]; i++) {
		uint64_t begun_us = clock_us();
		atomic_store(&lack.accept_error, lacks[i]);
		atomic_store(&lack.accepts_left, 3);
		struct crew *crew = start(10, false);
		int fd = connected();
		CU_ASSERT_EQUAL(greeting(fd, 0), '4');
		unsigned complaints = now(&seen.complaints);
		CU_ASSERT_TRUE(complaints >= 1 && complaints <= 1 + (clock_us() - begun_us) / US_PER_S);
		CU_ASSERT_TRUE(clock_us() - begun_us >= 2 * BACK_OFF_MS * US_PER_MS); /* it has not spun */
		close(fd);
		finish(crew);
		CU_ASSERT_STRING_EQUAL(seen.complained, "cannot accept a connection");
		CU_ASSERT_EQUAL(seen.error, lacks[i]);
	}
}

static void a_client_that_left_the_queue_is_nothing_to_complain_of(void)
{
	static const int errors[] = { ECONNABORTED, EINTR, EPERM };
	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		atomic_store(&lack.accept_error, errors[i]);
		atomic_store(&lack.accepts_left, 3);
		struct crew *crew = start(10, false);
		int fd = connected();
		CU_ASSERT_EQUAL(greeting(fd, 0), '4');
		close(fd);
		finish(crew);
		CU_ASSERT_EQUAL(seen.complaints, 0);
	}
}

static void without_threads_those_that_are_there_go_on_and_more_are_started_later(void)
{
	struct crew *crew = start(10, false);
	atomic_store(&lack.thread_error, EAGAIN);
	int first = connected(), second = connected(), third = connected();
	CU_ASSERT_EQUAL(greeting(first, 0), '4');
	CU_ASSERT_EQUAL(now(&seen.complaints), 1);
	CU_ASSERT_EQUAL(crew_active(crew), 1);
	CU_ASSERT_EQUAL(greeting(second, MSG_DONTWAIT), '\0');
	close(first);
	CU_ASSERT_EQUAL(greeting(second, 0), '4'); /* by the same thread */
	CU_ASSERT_EQUAL(now(&seen.begun), 1);
	atomic_store(&lack.thread_error, 0);
	close(second);
	CU_ASSERT_EQUAL(greeting(third, 0), '4');
	int fourth = connected();
	CU_ASSERT_EQUAL(greeting(fourth, 0), '4'); /* and this by another: the third has not ended */
	close(third);
	close(fourth);
	finish(crew);
	CU_ASSERT_STRING_EQUAL(seen.complained, "cannot start another thread");
	CU_ASSERT_EQUAL(seen.error, EAGAIN);
}

static void without_memory_or_a_thread_there_is_no_crew_and_the_listener_stays_as_it_was(void)
{
	listen_anew(false);
	lack.no_memory = true;
	CU_ASSERT_PTR_NULL(crew_start(listener, 10, &job));
	lack.no_memory = false;
	atomic_store(&lack.thread_error, EAGAIN);
	CU_ASSERT_PTR_NULL(crew_start(listener, 10, &job));
	atomic_store(&lack.thread_error, 0);
	CU_ASSERT_EQUAL(seen.error, EAGAIN);
	int fd = connected();
	struct crew *crew = crew_start(listener, 10, &job);
	CU_ASSERT_PTR_NOT_NULL_FATAL(crew);
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	close(fd);
	finish(crew);
}

static void a_thread_that_has_no_memory_begins_again_until_it_has(void)
{
	seen.beginnings_that_fail = 2;
	struct crew *crew = start(10, false);
	int fd = connected();
	CU_ASSERT_EQUAL(greeting(fd, 0), '4');
	close(fd);
	finish(crew);
	CU_ASSERT_STRING_EQUAL(seen.complained, "cannot begin another thread");
	CU_ASSERT_EQUAL(seen.error, ENOMEM);
}

static void a_thread_that_cannot_begin_does_not_hold_up_the_end(void)
{
	seen.beginnings_that_fail = -1u;
	struct crew *crew = start(10, false);
	CU_ASSERT_TRUE(reaches(&seen.complaints, 1));
	finish(crew);
	CU_ASSERT_EQUAL(seen.begun, 0);
	seen.beginnings_that_fail = 0;
}

/* Nor by a thread that was started after the cut. */
static void after_a_cut_nobody_is_served_any_more(void)
{
	struct crew *crew = start(10, false);
	CU_ASSERT_EQUAL(crew_cut(crew), 0);
	for (int i = 0; i < 5; i++) {
		int fd = connected();
		CU_ASSERT_EQUAL(greeting(fd, 0), '\0');
		close(fd);
	}
	CU_ASSERT_TRUE(reaches(&seen.begun, 2));
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
		TEST(the_wait_is_over_when_all_threads_are_gone_and_not_before),
		TEST(a_place_that_comes_free_while_nobody_waits_is_taken_at_once),
		TEST(a_thread_whose_end_takes_long_holds_no_place_and_those_that_end_after_it_hold_none),
		TEST(a_retired_crew_accepts_nobody_and_goes_on_with_those_it_has),
		TEST(a_lowered_limit_ends_as_many_threads_as_are_over_it_and_not_one_more),
		TEST(of_many_idle_threads_those_end_that_are_of_no_use),
		TEST(without_descriptors_it_is_said_once_a_second_and_tried_again),
		TEST(a_client_that_left_the_queue_is_nothing_to_complain_of),
		TEST(without_threads_those_that_are_there_go_on_and_more_are_started_later),
		TEST(without_memory_or_a_thread_there_is_no_crew_and_the_listener_stays_as_it_was),
		TEST(a_thread_that_has_no_memory_begins_again_until_it_has),
		TEST(a_thread_that_cannot_begin_does_not_hold_up_the_end),
		TEST(after_a_cut_nobody_is_served_any_more),
	};
	thread_condition_init(&seen.changed);
	return unit_main("crew", tests, sizeof tests / sizeof tests[0]);
}
