/* resolver.c: see resolver.h.
 *
 * The box is shared by two holders, the owner and the thread, and freed by whoever leaves last. Numeric addresses and unix
 * paths are answered at once, by resolver_start() itself: a configuration without names never needs the thread.
 */
#include "resolver.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "thread.h"
#include "ts.h"

#define ANSWERS_FOR_ONE 64 /* addresses of one name */
#define ANSWERS_MAX 1024

struct question {
	char *host;
	unsigned port;
	bool is_unix;
};

struct resolver {
	/* Never changed after the start. */
	struct question *questions;
	size_t question_count;
	uint64_t interval_us;
	void (*changed)(void *context);
	void *context;
	bool has_names;

	pthread_mutex_t mutex;
	pthread_cond_t signal;
	unsigned holders GUARDED_BY(resolver_mutex);
	bool stopping GUARDED_BY(resolver_mutex);
	bool kicked GUARDED_BY(resolver_mutex);
	unsigned generation GUARDED_BY(resolver_mutex);
	bool names_are_known GUARDED_BY(resolver_mutex); /* the name service has been asked, or need not be */
	struct resolver_answer *answers GUARDED_BY(resolver_mutex);
	size_t answer_count GUARDED_BY(resolver_mutex);
};

LOCK_VERBS(resolver, mutex, resolver_mutex)

static void free_resolver(struct resolver *r)
{
	for (size_t i = 0; i < r->question_count; i++)
		free(r->questions[i].host);
	free(r->questions);
	resolver_lock(r);
	free(r->answers);
	resolver_unlock(r);
	pthread_cond_destroy(&r->signal);
	pthread_mutex_destroy(&r->mutex);
	free(r);
}

static void leave(struct resolver *r)
{
	resolver_lock(r);
	bool last = --r->holders == 0;
	resolver_unlock(r);
	if (last)
		free_resolver(r);
}

/* A growing list of answers. */
struct answers {
	struct resolver_answer *items;
	size_t count;
	bool failed; /* out of memory */
};

static void add(struct answers *list, size_t question, const struct address *address)
{
	if (list->count >= ANSWERS_MAX || list->failed)
		return;
	struct resolver_answer *grown = realloc(list->items, (list->count + 1) * sizeof *grown);
	if (grown == NULL) {
		list->failed = true;
		return;
	}
	list->items = grown;
	struct resolver_answer *answer = &grown[list->count++];
	memset(answer, 0, sizeof *answer);
	answer->question = question;
	answer->has_address = address != NULL;
	if (address != NULL)
		answer->address = *address;
}

/* Asks the name service. The number of addresses added; 0: none. */
static size_t look_up(struct answers *list, size_t index, const struct question *question)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found = NULL;
	char port[8];
	snprintf(port, sizeof port, "%u", question->port);
	if (getaddrinfo(question->host, port, &hints, &found) != 0)
		return 0;
	size_t count = 0;
	for (struct addrinfo *one = found; one != NULL && count < ANSWERS_FOR_ONE; one = one->ai_next) {
		struct address address;
		if (one->ai_addrlen > sizeof address.storage)
			continue;
		memset(&address, 0, sizeof address);
		memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
		address.length = one->ai_addrlen;
		add(list, index, &address);
		count++;
	}
	freeaddrinfo(found);
	return count;
}

/* What the last set had for this question. */
static size_t keep_old(struct resolver *r, struct answers *list, size_t index)
{
	size_t count = 0;
	resolver_lock(r);
	for (size_t i = 0; i < r->answer_count; i++)
		if (r->answers[i].question == index && r->answers[i].has_address) {
			add(list, index, &r->answers[i].address);
			count++;
		}
	resolver_unlock(r);
	return count;
}

static void resolve(struct resolver *r, bool ask_for_names)
{
	struct answers list = { .items = NULL };
	for (size_t i = 0; i < r->question_count; i++) {
		struct address address;
		const struct question *q = &r->questions[i];
		if (q->is_unix ? address_unix(q->host, &address) : address_parse(q->host, q->port, &address))
			add(&list, i, &address);
		else if ((!ask_for_names || look_up(&list, i, q) == 0) && keep_old(r, &list, i) == 0)
			add(&list, i, NULL);
	}
	if (list.failed) {
		free(list.items);
		return;
	}
	resolver_lock(r);
	free(r->answers);
	r->answers = list.items;
	r->answer_count = list.count;
	r->generation++;
	r->names_are_known = ask_for_names || !r->has_names;
	pthread_cond_broadcast(&r->signal);
	if (!r->stopping && ask_for_names)
		r->changed(r->context);
	resolver_unlock(r);
}

static void wait_at_most(struct resolver *r, uint64_t until_us, bool a_kick_ends_it) REQUIRES(resolver_mutex)
{
	struct timespec wake = { .tv_sec = (time_t)(until_us / US_PER_S), .tv_nsec = (long)(until_us % US_PER_S) * 1000 };
	int error = 0;
	while (!r->stopping && !(a_kick_ends_it && r->kicked) && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&r->signal, &r->mutex, &wake);
}

static void *run(void *argument)
{
	struct resolver *r = argument;
	thread_name("weir:names");
	bool stopping = false;
	while (!stopping) {
		resolve(r, true);
		uint64_t now_us = clock_us();
		resolver_lock(r);
		wait_at_most(r, now_us + US_PER_S, false); /* a storm of failures asks once a second */
		wait_at_most(r, now_us + r->interval_us, true);
		r->kicked = false;
		stopping = r->stopping;
		resolver_unlock(r);
	}
	leave(r);
	return NULL;
}

static bool copy_questions(struct resolver *r, const struct resolver_question *questions, size_t count)
{
	r->questions = calloc(count, sizeof *r->questions);
	if (r->questions == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct address address;
		r->questions[i] = (struct question){ strdup(questions[i].host), questions[i].port, questions[i].is_unix };
		if (r->questions[i].host == NULL)
			return false;
		r->question_count++;
		if (!questions[i].is_unix && !address_parse(questions[i].host, questions[i].port, &address))
			r->has_names = true;
	}
	return true;
}

struct resolver *resolver_start(const struct resolver_question *questions, size_t count, uint64_t interval_us,
                                void (*changed)(void *context), void *context)
{
	struct resolver *r = calloc(1, sizeof *r);
	if (r == NULL)
		return NULL;
	pthread_mutex_init(&r->mutex, NULL);
	thread_condition_init(&r->signal);
	r->interval_us = interval_us;
	r->changed = changed;
	r->context = context;
	if (!copy_questions(r, questions, count)) {
		free_resolver(r);
		return NULL;
	}
	resolve(r, false);
	resolver_lock(r);
	r->holders = r->has_names ? 2 : 1;
	bool good = r->generation == RESOLVER_WITHOUT_NAMES; /* else there was no memory for it */
	resolver_unlock(r);
	if (!good || (r->has_names && thread_start_detached(run, r) != 0)) {
		free_resolver(r);
		return NULL;
	}
	return r;
}

bool resolver_wait_first(struct resolver *r, uint64_t deadline_us)
{
	struct timespec deadline = { .tv_sec = (time_t)(deadline_us / US_PER_S),
	                             .tv_nsec = (long)(deadline_us % US_PER_S) * 1000 };
	int error = 0;
	resolver_lock(r);
	while (!r->names_are_known && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&r->signal, &r->mutex, &deadline);
	bool there = r->names_are_known;
	resolver_unlock(r);
	return there;
}

void resolver_kick(struct resolver *r)
{
	resolver_lock(r);
	r->kicked = true;
	pthread_cond_broadcast(&r->signal);
	resolver_unlock(r);
}

size_t resolver_take(struct resolver *r, struct resolver_answer **answers, unsigned *generation)
{
	*answers = NULL;
	resolver_lock(r);
	size_t count = r->answer_count;
	if (count > 0)
		*answers = malloc(count * sizeof **answers);
	if (*answers == NULL)
		count = 0;
	else
		memcpy(*answers, r->answers, count * sizeof **answers);
	if (generation != NULL)
		*generation = r->generation;
	resolver_unlock(r);
	return count;
}

void resolver_stop(struct resolver *r)
{
	if (r == NULL)
		return;
	resolver_lock(r);
	r->stopping = true;
	pthread_cond_broadcast(&r->signal);
	resolver_unlock(r);
	leave(r);
}
