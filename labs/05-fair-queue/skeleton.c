/* skeleton.c: lab 5, the line of a limiter. It compiles and keeps the window; its line is first come, first served,
 * has no end, and forgets nobody who left.
 *
 *      clients' requests ──► enter ──► [ line: who is next? ] ──► turn ──► started
 *                                           └──► cancel: whoever leaves, leaves his place
 *
 * The slots are done (that was lab 4). Yours are the four functions between the two rulers. limiter.h says what each
 * must do; what of it this lab leaves out is at the end of the file.
 *
 * A ticket's memory is the caller's, but next, previous, newer, older, client, key, state and entered_us are for the
 * line to use.
 */
#include "limiter.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TAKEN UINT64_MAX /* a slot that a request has, which has not started yet */
#define GUARD_US 1u

enum place { AWAY, IN_LINE, GRANTED, PUSHED_OUT };

struct limiter {
	pthread_mutex_t mutex;
	void (*wake)(struct limiter_ticket *);
	struct limiter_options options;
	uint64_t *free_us;                   /* of each slot: from when on it may be used again; TAKEN */
	struct limiter_ticket *first, *last; /* who waits, by arrival */
	unsigned waiting;
};

/* ---- slots: done (lab 4) ----------------------------------------------------------------------------------------- */

/* The slot that comes free first. */
static unsigned soonest_slot(const struct limiter *l)
{
	unsigned soonest = 0;

	for (unsigned i = 1; i < l->options.threshold; i++)
		if (l->free_us[i] < l->free_us[soonest])
			soonest = i;
	return soonest;
}

static bool slot_is_free(const struct limiter *l, uint64_t now_us)
{
	return l->options.threshold > 0 && l->free_us[soonest_slot(l)] <= now_us;
}

/* Which slot a granted ticket has is kept in its until_us. */
static void grant(struct limiter *l, struct limiter_ticket *ticket)
{
	ticket->until_us = soonest_slot(l);
	l->free_us[ticket->until_us] = TAKEN;
	ticket->state = GRANTED;
}

static void return_slot(struct limiter *l, struct limiter_ticket *ticket, uint64_t free_us)
{
	if (l->options.threshold > 0)
		l->free_us[ticket->until_us] = free_us;
	ticket->state = AWAY;
}

/* ---- the line: yours --------------------------------------------------------------------------------------------- */

enum limiter_answer limiter_enter(struct limiter *l, struct limiter_ticket *ticket, uint64_t client, uint64_t now_us)
{
	pthread_mutex_lock(&l->mutex);
	ticket->key = client;
	if (l->options.threshold == 0 || (l->waiting == 0 && slot_is_free(l, now_us))) {
		if (l->options.threshold > 0)
			grant(l, ticket);
		pthread_mutex_unlock(&l->mutex);
		return LIMITER_GO;
	}
	/* 1. Is there room for one more (options.backlog)? If not: LIMITER_FULL. With LIMITER_FAIR, whose request
	   should have to go? 2. Where in the line does it stand, so that clients take turns? */
	ticket->state = IN_LINE;
	ticket->next = NULL;
	ticket->previous = l->last;
	*(l->last != NULL ? &l->last->next : &l->first) = ticket;
	l->last = ticket;
	l->waiting++;
	pthread_mutex_unlock(&l->mutex);
	return LIMITER_WAIT;
}

enum limiter_answer limiter_turn(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us, uint64_t *wake_us)
{
	enum limiter_answer answer = LIMITER_WAIT;

	pthread_mutex_lock(&l->mutex);
	/* Only the front asks again by the clock; the others sleep until they are woken, so whoever becomes the front
	   has to be. */
	*wake_us = ticket == l->first ? l->free_us[soonest_slot(l)] : UINT64_MAX;
	if (ticket == l->first && slot_is_free(l, now_us)) {
		l->first = ticket->next;
		*(l->first != NULL ? &l->first->previous : &l->last) = NULL;
		l->waiting--;
		grant(l, ticket);
		if (l->first != NULL)
			l->wake(l->first);
		answer = LIMITER_GO;
	}
	pthread_mutex_unlock(&l->mutex);
	return answer;
}

void limiter_started(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	pthread_mutex_lock(&l->mutex);
	return_slot(l, ticket, now_us + l->options.window_us + GUARD_US);
	if (l->first != NULL)
		l->wake(l->first); /* it may have been told to sleep, when all slots were taken */
	pthread_mutex_unlock(&l->mutex);
}

void limiter_cancel(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	/* It stands in line, or has a slot, or was pushed out. What becomes of its place, and who has to hear of it? */
	(void)l, (void)ticket, (void)now_us;
}

/* ---- the rest: done ---------------------------------------------------------------------------------------------- */

struct limiter *limiter_create(const struct limiter_options *options, void (*wake)(struct limiter_ticket *))
{
	struct limiter *l = calloc(1, sizeof *l);

	if (l == NULL || options->threshold > LIMITER_THRESHOLD_MAX) {
		free(l);
		return NULL;
	}
	pthread_mutex_init(&l->mutex, NULL);
	l->wake = wake;
	l->options = *options;
	l->free_us = calloc(options->threshold + 1, sizeof *l->free_us);
	if (l->free_us == NULL) {
		limiter_destroy(l);
		return NULL;
	}
	return l;
}

void limiter_destroy(struct limiter *l)
{
	if (l == NULL)
		return;
	pthread_mutex_destroy(&l->mutex);
	free(l->free_us);
	free(l);
}

bool limiter_may_start(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	(void)l, (void)ticket, (void)now_us;
	return true;
}

uint64_t limiter_retry_after_us(struct limiter *l, uint64_t now_us)
{
	(void)now_us;
	return l->options.threshold > 0 ? 1000000 : 0;
}

int limiter_configure(struct limiter *l, const struct limiter_options *options, uint64_t now_us)
{
	(void)l, (void)options, (void)now_us;
	return -1; /* no reload in this lab */
}

void limiter_give(struct limiter *l, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	(void)l, (void)from_us, (void)until_us, (void)count, (void)now_us;
}

void limiter_answered(struct limiter *l, uint64_t asked_us, uint64_t now_us)
{
	(void)l, (void)asked_us, (void)now_us;
}

void limiter_report(struct limiter *l, uint64_t now_us, struct limiter_report *out)
{
	pthread_mutex_lock(&l->mutex);
	*out = (struct limiter_report){ .threshold = l->options.threshold,
		                        .waiting = l->waiting,
		                        .next_slot_us = now_us };
	for (unsigned i = 0; i < l->options.threshold; i++) {
		out->outstanding += l->free_us[i] == TAKEN;
		out->available += l->free_us[i] <= now_us;
	}
	out->in_window = l->options.threshold - out->available;
	pthread_mutex_unlock(&l->mutex);
}
