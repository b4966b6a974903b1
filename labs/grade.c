/* grade.c: runs the graded tests of a lab and adds up their points.
 *
 * The problem: the code under test is a student's. It may crash, loop, wait for a lock that it holds itself or end the
 * program, and the tests after that must run all the same.
 *
 * The idea: a process for each test. What it has to say goes through a page that both share, so that it is there even
 * when the test died in the middle; how it ended, the parent hears from the kernel.
 *
 *      grade_main ──fork──► child: alarm(10), run(), "finished"
 *           │                  └──► grade_fail() ──► [ shared page: lost, cap, text ]
 *           └─── waitpid() ◄── exit, a signal, or SIGALRM        │
 *           └─── prints the line, then the text ◄────────────────┘
 *
 * The invariant: a test has all its points only if its function returned and said nothing against it. Silence is not a
 * pass: a child that ends in another way than by returning has none.
 *
 * The one test that runs is known to this file (the_test), as grade_fail() has no other way to know for whom it speaks:
 * there is one in each process.
 */
#include "labs/grade.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEXTS_MAX 3u
#define TEXT_BYTES 16384u
#define SECONDS_DEFAULT 10u
#define CROWD_MAX 16u
#define CROWD_SECONDS 3
#define STOPS 200u
#define MOMENTS_MAX 25u

/* What a test leaves behind. */
struct outcome {
	bool is_finished;
	int points; /* what it may still get */
	unsigned texts;
	size_t length;
	char text[TEXT_BYTES];
};

struct arguments {
	const char *program, *only;
	bool list, here;
	unsigned seconds;
};

static struct outcome *the_test;
static struct {
	void (*work)(void *argument);
	void *argument;
	atomic_bool is_over;
	atomic_ulong calls; /* that have ended */
	sem_t went_on;      /* posted by each thread that was stopped */
} the_crowd;
static uint64_t the_seed = 1;
static pthread_mutex_t outcome_mutex = PTHREAD_MUTEX_INITIALIZER;

/* ---- what a test says ------------------------------------------------------------ */

static void __attribute__((format(printf, 2, 0))) lose(int points_left, const char *format, va_list values)
{
	struct outcome *o = the_test;

	pthread_mutex_lock(&outcome_mutex);
	if (o->points > points_left)
		o->points = points_left;
	if (o->texts++ < TEXTS_MAX) {
		size_t room = TEXT_BYTES - o->length;
		int length = vsnprintf(o->text + o->length, room, format, values);

		if (length > 0)
			o->length += (size_t)length < room ? (size_t)length : room - 1;
		if (o->length + 1 < TEXT_BYTES)
			o->text[o->length++] = '\n';
	}
	pthread_mutex_unlock(&outcome_mutex);
}

void grade_fail(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	lose(0, format, values);
	va_end(values);
}

void grade_partial(int points, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	lose(points > 0 ? points : 0, format, values);
	va_end(values);
}

bool grade_check(bool holds, const char *format, ...)
{
	va_list values;

	if (holds)
		return true;
	va_start(values, format);
	lose(0, format, values);
	va_end(values);
	return false;
}

uint64_t grade_seed(void)
{
	return the_seed;
}

/* ---- one test ------------------------------------------------------------ */

static void write_sentence(char *sentence, size_t capacity, const char *what)
{
	size_t length = 0;

	for (; what[length] != '\0' && length + 1 < capacity; length++)
		sentence[length] = what[length] == '_' ? ' ' : what[length];
	sentence[length] = '\0';
}

static void __attribute__((format(printf, 1, 2))) fail_afterwards(const char *format, ...)
{
	va_list values;

	the_test->texts = 0; /* this text is the most important one: it is never only counted */
	va_start(values, format);
	lose(0, format, values);
	va_end(values);
}

static _Noreturn void run_in_child(const struct grade_test *test, unsigned seconds)
{
	const struct rlimit no_core = { .rlim_cur = 0, .rlim_max = 0 };

	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGALRM, SIG_DFL); /* ends the process, whatever its threads are at */
	alarm(seconds);
	test->run();
	the_test->is_finished = true;
	fflush(NULL);
	_exit(0);
}

static void run_apart(const struct grade_test *test, const char *sentence, const struct arguments *arguments)
{
	int status = 0;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child == 0)
		run_in_child(test, arguments->seconds);
	if (child < 0) {
		fail_afterwards("the grader could not start a process for this test: %s", strerror(errno));
		return;
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		fail_afterwards(
			"no end after %u s: it loops, or waits for what never comes (a lock that it holds itself?)",
			arguments->seconds);
	else if (WIFSIGNALED(status))
		fail_afterwards("it crashed: %s. To see where: gdb --args %s --here --only '%s'",
		                strsignal(WTERMSIG(status)), arguments->program, sentence);
	else if (!the_test->is_finished)
		fail_afterwards("it ended the whole program, with status %d", WEXITSTATUS(status));
}

static void print_text(const struct outcome *o)
{
	const char *line = o->text, *end = o->text + o->length;

	while (line < end) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		size_t length = newline != NULL ? (size_t)(newline - line) : (size_t)(end - line);

		printf("        %.*s\n", (int)length, line);
		line += length + 1;
	}
	if (o->texts > TEXTS_MAX)
		printf("        (and %u more of that kind)\n", o->texts - TEXTS_MAX);
}

static int points_of(const struct grade_test *test, const char *sentence, const struct arguments *arguments)
{
	*the_test = (struct outcome){ .points = test->points };
	if (arguments->here)
		test->run();
	else
		run_apart(test, sentence, arguments);
	printf("  %d/%d   %s\n", the_test->points, test->points, sentence);
	print_text(the_test);
	return the_test->points;
}

/* ---- many threads at once ------------------------------------------------------------ */

/* Runs in the thread that is stopped, between two of its instructions. It may hold any lock, so nothing is called here
   that takes one. */
static void stop_here(int signal_number)
{
	const struct timespec moment = { .tv_nsec = 20000 };
	unsigned long before = atomic_load(&the_crowd.calls);
	int saved_errno = errno;

	(void)signal_number;
	for (unsigned i = 0; i < MOMENTS_MAX && atomic_load(&the_crowd.calls) < before + 5; i++)
		nanosleep(&moment, NULL);
	errno = saved_errno;
	sem_post(&the_crowd.went_on);
}

static void *work_on(void *unused)
{
	(void)unused;
	while (!atomic_load(&the_crowd.is_over)) {
		the_crowd.work(the_crowd.argument);
		atomic_fetch_add(&the_crowd.calls, 1);
	}
	return NULL;
}

static void stop_one_after_another(const pthread_t *threads, unsigned count)
{
	struct timespec now, end;
	uint64_t random = the_seed;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += CROWD_SECONDS;
	for (unsigned i = 0; i < STOPS; i++) {
		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		if (pthread_kill(threads[(random >> 33) % count], SIGUSR1) != 0)
			return;
		while (sem_wait(&the_crowd.went_on) != 0)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec >= end.tv_nsec))
			return;
	}
}

unsigned long grade_crowd(unsigned threads, void (*work)(void *argument), void *argument)
{
	struct sigaction action = { .sa_handler = stop_here, .sa_flags = SA_RESTART };
	pthread_t started[CROWD_MAX];
	unsigned count = 0;

	the_crowd.work = work;
	the_crowd.argument = argument;
	atomic_store(&the_crowd.is_over, false);
	atomic_store(&the_crowd.calls, 0);
	sem_init(&the_crowd.went_on, 0, 0);
	sigaction(SIGUSR1, &action, NULL);
	while (count < threads && count < CROWD_MAX && pthread_create(&started[count], NULL, work_on, NULL) == 0)
		count++;
	if (grade_check(count == threads, "the grader could not start %u threads", threads))
		stop_one_after_another(started, count);
	atomic_store(&the_crowd.is_over, true);
	for (unsigned i = 0; i < count; i++)
		pthread_join(started[i], NULL);
	sem_destroy(&the_crowd.went_on);
	return count == threads ? atomic_load(&the_crowd.calls) : 0;
}

/* ---- all of them ------------------------------------------------------------ */

static bool read_arguments(struct arguments *arguments, int argc, char **argv)
{
	const char *seconds = getenv("GRADE_SECONDS");

	arguments->program = argv[0];
	arguments->seconds = seconds != NULL && atoi(seconds) > 0 ? (unsigned)atoi(seconds) : SECONDS_DEFAULT;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--list") == 0)
			arguments->list = true;
		else if (strcmp(argv[i], "--here") == 0)
			arguments->here = true;
		else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
			arguments->only = argv[++i];
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			the_seed = strtoull(argv[++i], NULL, 0);
		else
			return false;
	}
	return true;
}

int grade_main(const char *lab, const struct grade_test *tests, size_t count, int argc, char **argv)
{
	struct arguments arguments = { .only = NULL };
	int score = 0, full = 0;

	if (!read_arguments(&arguments, argc, argv)) {
		fprintf(stderr, "the grader of %s: %s [--list] [--only TEXT] [--seed N] [--here]\n", lab, argv[0]);
		return 2;
	}
	the_test = mmap(NULL, sizeof(*the_test), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (the_test == MAP_FAILED) {
		perror("grade: mmap");
		return 2;
	}
	for (size_t i = 0; i < count; i++) {
		char sentence[256];

		write_sentence(sentence, sizeof(sentence), tests[i].what);
		if (arguments.only != NULL && strstr(sentence, arguments.only) == NULL)
			continue;
		full += tests[i].points;
		if (arguments.list)
			printf("  %d   %s\n", tests[i].points, sentence);
		else
			score += points_of(&tests[i], sentence, &arguments);
		fflush(stdout);
	}
	munmap(the_test, sizeof(*the_test));
	if (full == 0) {
		printf("no test\n"); /* has the words of --only in its sentence */
		return 2;
	}
	if (arguments.list)
		return 0;
	printf("score %d/%d\n", score, full);
	return score == full ? 0 : 1;
}
