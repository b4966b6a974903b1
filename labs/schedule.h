/* schedule.h: threads that run one at a time, in an order that a seed decides. So a race that is met is met again, as
 * often as you like.
 *
 * The problem: what a race does depends on which thread runs when, and nobody can say that again: it shows itself
 * once in a million runs, on somebody else's machine, and never under a debugger.
 *
 * The idea (Oechsle and Barzen 2007; CHESS, Musuvathi and Qadeer 2008): threads can disturb each other only where
 * they touch what they share. Between two such places it does not matter who runs. So the calls that matter go
 * through here, and at each of them one thread may have to stop, and another goes on:
 *
 *      pthread_mutex_lock(&m)      ─┐                                  ┌── A ──┐
 *      pthread_cond_wait(&c, &m)   ─┼─► schedule.c: who goes on? ──────┼── B    │   one runs, the others stand still
 *      READ(x), WRITE(x, v)        ─┘          the seed says           └── C    │
 *
 * Most races need very few switches at the wrong places: so a seed has only a few to spend (2, 4 or 12), besides
 * those that cannot be avoided because a thread waits. Deadlock is no timeout here, but a fact: nobody can go on.
 *
 * Include this after <pthread.h>, in the code that is looked at. It turns calls of POSIX threads into calls of its
 * own by macros. With NO_SCHEDULE defined it changes nothing, and the same source is an ordinary program: for
 * ThreadSanitizer, and for weir.
 */
#ifndef LABS_SCHEDULE_H
#define LABS_SCHEDULE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define SCHEDULE_THREADS_MAX 8u

enum schedule_end {
	SCHEDULE_WELL,     /* all threads came to their end */
	SCHEDULE_DEADLOCK, /* nobody can go on */
	SCHEDULE_MISUSE,   /* a lock was given back by somebody who did not have it, and the like */
	SCHEDULE_ENDLESS,  /* thousands of steps, and no end */
};

struct schedule;

/* Runs body as the thread "main", and the threads that it creates, to their end. NULL when out of memory or threads.
   One at a time. */
struct schedule *schedule_run(uint64_t seed, void (*body)(void *context), void *context);
void schedule_free(struct schedule *s);
enum schedule_end schedule_ended(const struct schedule *s);
/* What went wrong, as a sentence; "" when nothing did. */
const char *schedule_why(const struct schedule *s);
/* What each thread did, one line a step, one column a thread. */
const char *schedule_picture(const struct schedule *s);

/* For the body: a line of the calling thread in the picture. */
void schedule_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- what the macros call. Each is a place where the seed may stop a thread -------------------------------------- */

void schedule_yield(void);
unsigned schedule_read(const unsigned *variable, const char *name);
void schedule_write(unsigned *variable, unsigned value, const char *name);
int schedule_lock(pthread_mutex_t *mutex, const char *name);
int schedule_unlock(pthread_mutex_t *mutex, const char *name);
int schedule_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, const char *name, const char *mutex_name);
int schedule_wake(pthread_cond_t *condition, bool all, const char *name);
int schedule_create(pthread_t *thread, void *(*start)(void *), void *argument);
int schedule_join(pthread_t thread, void **result);

#if defined NO_SCHEDULE || defined SCHEDULE_ITSELF
#define READ(x) (x)
#define WRITE(x, value) ((void)((x) = (value)))
#else
/* An unsigned that several threads use. */
#define READ(x) schedule_read(&(x), #x)
#define WRITE(x, value) schedule_write(&(x), (value), #x)
#define pthread_mutex_lock(m) schedule_lock((m), #m)
#define pthread_mutex_unlock(m) schedule_unlock((m), #m)
#define pthread_cond_wait(c, m) schedule_wait((c), (m), #c, #m)
#define pthread_cond_signal(c) schedule_wake((c), false, #c)
#define pthread_cond_broadcast(c) schedule_wake((c), true, #c)
#define pthread_create(thread, attributes, start, argument) schedule_create((thread), (start), (argument))
#define pthread_join(thread, result) schedule_join((thread), (result))
#endif

#endif
