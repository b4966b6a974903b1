/* thread.c: see thread.h.
 *
 * Two things that textbooks leave out. A new thread inherits the signal mask of the one that starts it: blocking all
 * signals around pthread_create() is the only way to be sure that no worker ever sees one. And a condition variable
 * waits on the wall clock unless it is told otherwise: an operator who sets the time would then stretch every wait.
 */
#include "thread.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define PROMPT_NICE (-10)

static int start(pthread_t *thread, void *(*body)(void *), void *argument, int detach_state)
{
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);
	if (error != 0)
		return error;
	size_t stack = THREAD_STACK_BYTES;
	/* The C library may want more than we do (its minimum grows with the CPU's register file). */
	long least = sysconf(_SC_THREAD_STACK_MIN);
	if (least > 0 && (size_t)least * 4 > stack)
		stack = (size_t)least * 4;
	pthread_attr_setstacksize(&attributes, stack);
	pthread_attr_setdetachstate(&attributes, detach_state);

	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(thread, &attributes, body, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return error;
}

int thread_start(pthread_t *thread, void *(*body)(void *), void *argument)
{
	return start(thread, body, argument, PTHREAD_CREATE_JOINABLE);
}

int thread_start_detached(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	return start(&thread, body, argument, PTHREAD_CREATE_DETACHED);
}

struct thread_end thread_note_end(struct thread_end *last)
{
	struct thread_end before = *last;
	*last = (struct thread_end){ .thread = pthread_self(), .is_there = true };
	return before;
}

void thread_join_end(struct thread_end end)
{
	if (end.is_there)
		pthread_join(end.thread, NULL);
}

void thread_name(const char *name)
{
	pthread_setname_np(pthread_self(), name);
}

void thread_prefer_batch(void)
{
	struct sched_param none = { .sched_priority = 0 };
	sched_setscheduler(0, SCHED_BATCH, &none);
}

void thread_prefer_prompt(void)
{
	struct sched_param none = { .sched_priority = 0 };
	sched_setscheduler(0, SCHED_OTHER, &none);
	setpriority(PRIO_PROCESS, 0, PROMPT_NICE); /* on Linux the calling thread's alone; most may not, and do without */
}

int thread_condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;
	int error = pthread_condattr_init(&attributes);
	if (error != 0)
		return error;
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	error = pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
	return error;
}
