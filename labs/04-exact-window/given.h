/* given.h: the part of lab 4's limiter that is given: what is not about the window or the line. Included at the end of
 * a student's limiter, whose struct limiter begins with these members:
 *
 *      pthread_mutex_t mutex;
 *      void (*wake)(struct limiter_ticket *);
 *      struct limiter_options options;
 *      struct limiter_report totals;     counted by the student: waiting, outstanding, started_total, refused_total,
 * cancelled_total
 *
 * Here are: limiter_create, _destroy, _configure, _report and _retry_after_us, and what concerns slots that the master
 * of a cluster gives (limiter.h tells of them), which this lab leaves out.
 */
#ifndef LABS_04_GIVEN_H
#define LABS_04_GIVEN_H

struct limiter *limiter_create(const struct limiter_options *options, void (*wake)(struct limiter_ticket *))
{
	struct limiter *l;

	if (options->threshold > LIMITER_THRESHOLD_MAX)
		return NULL;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return NULL;
	pthread_mutex_init(&l->mutex, NULL);
	l->wake = wake;
	l->options = *options;
	if (!window_create(l)) {
		pthread_mutex_destroy(&l->mutex);
		free(l);
		return NULL;
	}
	return l;
}

void limiter_destroy(struct limiter *l)
{
	if (l == NULL)
		return;
	window_destroy(l);
	pthread_mutex_destroy(&l->mutex);
	free(l);
}

/* Another backlog. A threshold that changes while requests wait is not in this lab: then nothing changes. */
int limiter_configure(struct limiter *l, const struct limiter_options *options, uint64_t now_us)
{
	bool is_same;

	(void)now_us;
	pthread_mutex_lock(&l->mutex);
	is_same = options->threshold == l->options.threshold && options->window_us == l->options.window_us;
	if (is_same)
		l->options = *options;
	pthread_mutex_unlock(&l->mutex);
	return is_same ? 0 : -1;
}

uint64_t limiter_retry_after_us(struct limiter *l, uint64_t now_us)
{
	(void)now_us;
	return l->options.threshold > 0
	               ? l->options.window_us +
	                         (UINT64_C(1000000) - l->options.window_us % UINT64_C(1000000)) % UINT64_C(1000000)
	               : 0;
}

void limiter_report(struct limiter *l, uint64_t now_us, struct limiter_report *out)
{
	pthread_mutex_lock(&l->mutex);
	*out = l->totals;
	out->threshold = l->options.threshold;
	out->next_slot_us = now_us;
	out->available = UINT32_MAX;
	if (l->options.threshold > 0) {
		out->next_slot_us = window_next_us(l) > now_us ? window_next_us(l) : now_us;
		out->available = out->next_slot_us == now_us; /* at least */
		out->in_window = l->options.threshold - out->available;
	}
	pthread_mutex_unlock(&l->mutex);
}

bool limiter_may_start(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	(void)l;
	(void)ticket;
	(void)now_us;
	return true;
}

void limiter_give(struct limiter *l, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	(void)l;
	(void)from_us;
	(void)until_us;
	(void)count;
	(void)now_us;
}

void limiter_answered(struct limiter *l, uint64_t asked_us, uint64_t now_us)
{
	(void)l;
	(void)asked_us;
	(void)now_us;
}

#endif
