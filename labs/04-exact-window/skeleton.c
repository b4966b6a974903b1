/* mine.c: a limiter of your own. As it stands it is a token bucket, the usual answer, and nobody may wait.
 *
 *      a bucket holds up to threshold tokens; each request takes one; threshold tokens a window flow in, evenly
 *
 *      tokens  5 |\        /|         the bucket is full after a quiet second: five start at once ...
 *              0 | \/\/\/\/ |\/\/\/   ... and in the same second five new tokens flow in: ten starts in one second
 *
 * Part 1 is the window: make it exact. Part 2 is the line: let requests wait their turn. limiter.h says what each
 * function promises; README.md beside this file says what of it is asked and how it is graded.
 *
 *      make lab N=4
 */
#include "limiter.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct limiter {
	pthread_mutex_t mutex;
	void (*wake)(struct limiter_ticket *); /* call it with the mutex locked */
	struct limiter_options options;        /* threshold, window_us, backlog; leave the others */
	struct limiter_report totals;          /* waiting, outstanding, started_total, refused_total, cancelled_total */
	/* Yours: the window. */
	double tokens;
	uint64_t filled_us;
	/* Yours: the line. */
};

/* ticket->state is yours: what you need to know of a request. */
enum { AWAY, GRANTED };

/* ---- part 1: the window ------------------------------------------------------------ */

/* Everything is 0 but the first four members. False when there is no memory. */
static bool window_create(struct limiter *l)
{
	l->tokens = l->options.threshold;
	return true;
}

static void window_destroy(struct limiter *l)
{
	(void)l;
}

/* When the next request may start: a time that may have passed already. UINT64_MAX when that cannot be said: all that
   may start in a window were told to go, and none of them has started yet. */
static uint64_t window_next_us(const struct limiter *l)
{
	double missing = l->tokens < 1 ? 1 - l->tokens : 0;

	return l->filled_us + (uint64_t)(missing * (double)l->options.window_us / l->options.threshold);
}

/* A request is told to go. It has not started yet. */
static void window_take(struct limiter *l, uint64_t now_us)
{
	l->tokens += (double)(now_us - l->filled_us) * l->options.threshold / (double)l->options.window_us;
	if (l->tokens > l->options.threshold)
		l->tokens = l->options.threshold;
	l->filled_us = now_us;
	l->tokens -= 1;
}

/* One that was told to go has started: its first byte left at now_us, and that is what counts. */
static void window_started(struct limiter *l, uint64_t now_us)
{
	(void)l;
	(void)now_us;
}

/* One that was told to go will not start. */
static void window_give_back(struct limiter *l, uint64_t now_us)
{
	(void)now_us;
	l->tokens += 1;
}

/* ---- part 2: the line ------------------------------------------------------------ */

enum limiter_answer limiter_enter(struct limiter *l, struct limiter_ticket *ticket, uint64_t client, uint64_t now_us)
{
	enum limiter_answer answer = LIMITER_FULL;

	(void)client; /* first come, first served: whoever it is */
	pthread_mutex_lock(&l->mutex);
	ticket->state = AWAY;
	if (l->options.threshold == 0 || window_next_us(l) <= now_us) {
		if (l->options.threshold > 0)
			window_take(l, now_us);
		ticket->state = GRANTED;
		l->totals.outstanding++;
		answer = LIMITER_GO;
	} else {
		l->totals.refused_total++;
	}
	pthread_mutex_unlock(&l->mutex);
	return answer;
}

/* One that waits asks whether it may go. If not, *wake_us is when to ask again: UINT64_MAX for "when wake() is called
   for you". */
enum limiter_answer limiter_turn(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us, uint64_t *wake_us)
{
	(void)l;
	(void)ticket;
	(void)now_us;
	*wake_us = UINT64_MAX;
	return LIMITER_FULL;
}

/* Whose first byte left at now_us. Who is waiting, and knows nothing of it yet? */
void limiter_started(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	pthread_mutex_lock(&l->mutex);
	if (ticket->state == GRANTED) {
		l->totals.outstanding--;
		l->totals.started_total++;
		if (l->options.threshold > 0)
			window_started(l, now_us);
	}
	ticket->state = AWAY;
	pthread_mutex_unlock(&l->mutex);
}

/* It was told to go and will not, or it waits and its client went away. Who is waiting, and should hear of it? */
void limiter_cancel(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	pthread_mutex_lock(&l->mutex);
	if (ticket->state == GRANTED) {
		l->totals.outstanding--;
		l->totals.cancelled_total++;
		if (l->options.threshold > 0)
			window_give_back(l, now_us);
	}
	ticket->state = AWAY;
	pthread_mutex_unlock(&l->mutex);
}

#include "labs/04-exact-window/given.h"
