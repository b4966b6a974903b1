/* lookup.c: see lookup.h.
 *
 *      the asking thread ──┐                     ┌── one question: host, answer, is it done?
 *                          ├──► struct question ─┤
 *      its helper ─────────┘    two holders      └── the helper ends in getaddrinfo's own time
 *
 * A question is shared by two holders and freed by whoever leaves last; so is the whole of struct lookups, which each
 * helper that is under way holds too: a service may end while a name service still hangs.
 *
 * One mutex and one condition for all: an answer wakes everybody who waits, but those are few, and a name is asked for
 * at most once for each connection.
 */
#include "lookup.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "thread.h"
#include "ts.h"

/* The part of all questions that one asker may have under way. */
#define SHARE_OF_ONE 4u

struct lookups {
	unsigned most; /* never changes */
	pthread_mutex_t mutex;
	pthread_cond_t signal;
	bool is_abandoned GUARDED_BY(lookups_mutex);
	unsigned under_way GUARDED_BY(lookups_mutex);
	unsigned holders GUARDED_BY(lookups_mutex); /* the owner, and each helper */
	struct question *first GUARDED_BY(lookups_mutex); /* of those under way */
};

LOCK_VERBS(lookups, mutex, lookups_mutex)

struct question {
	struct lookups *lookups;
	char *host, *asker;
	char port[8];
	struct question *next GUARDED_BY(lookups_mutex), *previous GUARDED_BY(lookups_mutex);
	bool is_done GUARDED_BY(lookups_mutex);
	bool is_left GUARDED_BY(lookups_mutex); /* by whoever asked */
	struct lookup_answer answer;            /* the helper's until is_done, then the asker's */
};

struct lookups *lookups_create(unsigned most)
{
	struct lookups *lookups = calloc(1, sizeof *lookups);
	if (lookups == NULL)
		return NULL;
	pthread_mutex_init(&lookups->mutex, NULL);
	thread_condition_init(&lookups->signal);
	lookups->most = most;
	lookups_lock(lookups);
	lookups->holders = 1;
	lookups_unlock(lookups);
	return lookups;
}

static void leave(struct lookups *lookups)
{
	lookups_lock(lookups);
	bool is_last = --lookups->holders == 0;
	lookups_unlock(lookups);
	if (!is_last)
		return;
	pthread_cond_destroy(&lookups->signal);
	pthread_mutex_destroy(&lookups->mutex);
	free(lookups);
}

void lookups_abandon(struct lookups *lookups)
{
	lookups_lock(lookups);
	lookups->is_abandoned = true;
	pthread_cond_broadcast(&lookups->signal);
	lookups_unlock(lookups);
}

void lookups_destroy(struct lookups *lookups)
{
	if (lookups != NULL)
		leave(lookups);
}

static void free_question(struct question *question)
{
	free(question->host);
	free(question->asker);
	free(question);
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

/* Calls getaddrinfo(). flags: AI_NUMERICHOST asks nobody. */
static void ask(const char *host, const char *port, int flags, struct lookup_answer *answer)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
		                  .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_NUMERICSERV | flags };
	struct addrinfo *found = NULL;
	answer->count = 0;
	answer->error = getaddrinfo(host, port, &hints, &found);
	if (answer->error != 0)
		return;
	for (struct addrinfo *one = found; one != NULL && answer->count < LOOKUP_ADDRESSES_MAX; one = one->ai_next) {
		struct address *address = &answer->addresses[answer->count];
		if (one->ai_addrlen > sizeof address->storage)
			continue;
		memset(address, 0, sizeof *address);
		memcpy(&address->storage, one->ai_addr, one->ai_addrlen);
		address->length = one->ai_addrlen;
		answer->count++;
	}
	freeaddrinfo(found);
	if (answer->count == 0)
		answer->error = EAI_NODATA;
}

static void put_in(struct lookups *lookups, struct question *question) REQUIRES(lookups_mutex)
{
	question->next = lookups->first;
	if (lookups->first != NULL)
		lookups->first->previous = question;
	lookups->first = question;
	lookups->under_way++;
}

static void take_out(struct lookups *lookups, struct question *question) REQUIRES(lookups_mutex)
{
	if (question->next != NULL)
		question->next->previous = question->previous;
	if (question->previous != NULL)
		question->previous->next = question->next;
	else
		lookups->first = question->next;
	lookups->under_way--;
	pthread_cond_broadcast(&lookups->signal);
}

static void *run_helper(void *argument)
{
	struct question *question = argument;
	thread_name("weir:name");
	struct lookups *lookups = question->lookups;
	ask(question->host, question->port, 0, &question->answer);
	lookups_lock(lookups);
	question->is_done = true;
	bool is_left = question->is_left;
	take_out(lookups, question);
	lookups_unlock(lookups);
	if (is_left)
		free_question(question);
	leave(lookups);
	return NULL;
}

static struct question *create_question(struct lookups *lookups, const char *asker, const char *host, const char *port)
{
	struct question *question = calloc(1, sizeof *question);
	if (question == NULL)
		return NULL;
	question->lookups = lookups;
	question->host = strdup(host);
	question->asker = strdup(asker);
	if (question->host == NULL || question->asker == NULL) {
		free_question(question);
		return NULL;
	}
	snprintf(question->port, sizeof question->port, "%s", port);
	return question;
}

static struct timespec time_of(uint64_t us)
{
	return (struct timespec){ .tv_sec = (time_t)(us / US_PER_S), .tv_nsec = (long)(us % US_PER_S) * 1000 };
}

static bool has_room(struct lookups *lookups, const char *asker) REQUIRES(lookups_mutex)
{
	unsigned own = 0, share = lookups->most > SHARE_OF_ONE ? lookups->most / SHARE_OF_ONE : 1;
	for (const struct question *one = lookups->first; one != NULL; one = one->next)
		own += strcmp(one->asker, asker) == 0;
	return lookups->under_way < lookups->most && own < share;
}

/* Waits for room for one more. False: there was none in time. */
static bool take_room(struct lookups *lookups, struct question *question, const struct timespec *deadline)
{
	int error = 0;
	lookups_lock(lookups);
	while (!has_room(lookups, question->asker) && !lookups->is_abandoned && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&lookups->signal, &lookups->mutex, deadline);
	bool is_taken = !lookups->is_abandoned && has_room(lookups, question->asker);
	if (is_taken) {
		put_in(lookups, question);
		lookups->holders++;
	}
	lookups_unlock(lookups);
	return is_taken;
}

static void give_room_back(struct lookups *lookups, struct question *question)
{
	lookups_lock(lookups);
	take_out(lookups, question);
	lookups->holders--;
	lookups_unlock(lookups);
}

/* Waits for the helper. False: too late, and the question is the helper's to free. */
static bool wait_for_answer(struct question *question, const struct timespec *deadline)
{
	struct lookups *lookups = question->lookups;
	int error = 0;
	lookups_lock(lookups);
	while (!question->is_done && !lookups->is_abandoned && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&lookups->signal, &lookups->mutex, deadline);
	bool is_done = question->is_done;
	question->is_left = !is_done;
	lookups_unlock(lookups);
	return is_done;
}

static enum lookup_result lookup_name(struct lookups *lookups, struct question *question, uint64_t deadline_us,
                                      struct lookup_answer *answer)
{
	struct timespec deadline = time_of(deadline_us);
	if (!take_room(lookups, question, &deadline)) {
		free_question(question);
		return LOOKUP_LATE;
	}
	if (thread_start_detached(run_helper, question) != 0) {
		give_room_back(lookups, question);
		free_question(question);
		return LOOKUP_NO_MEMORY;
	}
	if (!wait_for_answer(question, &deadline))
		return LOOKUP_LATE;
	*answer = question->answer;
	free_question(question);
	return answer->error == 0 ? LOOKUP_FOUND : LOOKUP_UNKNOWN;
}

enum lookup_result lookup(struct lookups *lookups, const char *asker, const char *host, unsigned port,
                          uint64_t deadline_us, struct lookup_answer *answer)
{
	char port_text[8];
	snprintf(port_text, sizeof port_text, "%u", port & 0xffffu);
	ask(host, port_text, AI_NUMERICHOST, answer);
	if (answer->error == 0)
		return LOOKUP_FOUND;
	struct question *question = create_question(lookups, asker, host, port_text);
	return question == NULL ? LOOKUP_NO_MEMORY : lookup_name(lookups, question, deadline_us, answer);
}

unsigned lookups_under_way(struct lookups *lookups)
{
	lookups_lock(lookups);
	unsigned count = lookups->under_way;
	lookups_unlock(lookups);
	return count;
}
