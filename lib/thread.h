/* thread.h: starts threads the way weir wants them.
 *
 * One thread a connection is only affordable when a thread costs little: the stack is small and explicit (the C library's
 * default of 8 MiB each would reserve 80 GB for 10,000 clients), and pages that are never touched cost nothing.
 */
#ifndef WEIR_THREAD_H
#define WEIR_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* Deep enough for the deepest road (getaddrinfo and printf are the hungry ones), with a guard page below. */
#define THREAD_STACK_BYTES (256u * 1024u)

/* Starts body(argument) on a thread of its own, with every signal blocked: signals are the main thread's business. The thread
   is joined with pthread_join(). Returns 0 or an errno number (EAGAIN: the system has no room for another). Any thread. */
int thread_start(pthread_t *thread, void *(*body)(void *), void *argument);

/* The same; nobody will join it: for a thread that may hang in the C library, and uses no other. */
int thread_start_detached(void *(*body)(void *), void *argument);

/* The thread of a group that ended last. The threads of the group end when they like and nobody keeps a list of them, so each one that
   ends joins the one that ended before it, and whoever waits for the group joins the last. Counting them out is not enough:
   a thread that was counted is there for a moment still and runs what libraries keep for its end (OpenSSL does), which
   neither exit() nor dlclose() may overtake. Zeroed: none has ended yet. The group's mutex guards it. */
struct thread_end {
	pthread_t thread;
	bool is_there;
};

/* Makes the calling thread the last, which has little left to do but thread_join_end() with what this returns: the one before. */
struct thread_end thread_note_end(struct thread_end *last);
/* Waits until that thread is gone, if there is one. With no lock held. */
void thread_join_end(struct thread_end end);

/* Names the calling thread, for top -H, gdb and /proc: a program that has weir in it can tell its own threads from these. At most 15 bytes. */
void thread_name(const char *name);

/* Asks the scheduler to treat this thread, and those it starts, as workers rather than as interactive tasks (SCHED_BATCH): they
   are not woken in the middle of another's turn, which saves a good part of the context switches of a busy proxy. Where the
   system refuses, nothing changes but the speed. */
void thread_prefer_batch(void);

/* The opposite, for a thread that others wait for and that works little: it is woken in the middle of another's turn, and goes first
   where the system allows that (a higher priority is for root, or needs CAP_SYS_NICE). */
void thread_prefer_prompt(void);

/* A condition variable whose timed waits are measured on the clock of clock.h. Returns 0 or an errno number. */
int thread_condition_init(pthread_cond_t *condition);

#endif
