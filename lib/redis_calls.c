/* redis_calls.c: the pool of connections to Redis, and running a script on one of them.
 *
 *      a thread ──► an idle line, if it is still quiet; else a new one ──► EVALSHA ──┬─► reply, the line goes back
 *                   (at most 32 at once: whoever is over waits)          NOSCRIPT │   └─► no answer by the deadline: the line is closed,
 *                                                                          EVAL ◄─┘       Redis is taken for lost, the keeper looks
 *
 * The deadline is one for everything: waiting for a line, connecting, and the call. A line that broke while it was idle (Redis closes idle
 * ones, or was restarted) is no sign of anything: the call is made once more on a fresh one. That may run a script twice, and all
 * of them bear it: each says what is, not what is to be added.
 */
#include "redis_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

void redis_words_add(struct redis_words *words, const char *word)
{
	if (words->count < (int)(sizeof words->words / sizeof words->words[0]))
		words->words[words->count++] = word;
}

void redis_words_number(struct redis_words *words, uint64_t number)
{
	char *text = words->numbers[words->numbers_used++];
	snprintf(text, sizeof words->numbers[0], "%" PRIu64, number);
	redis_words_add(words, text);
}

uint64_t redis_number(const redisReply *reply, size_t at)
{
	if (reply->type != REDIS_REPLY_ARRAY || at >= reply->elements || reply->element[at]->type != REDIS_REPLY_INTEGER)
		return 0;
	return reply->element[at]->integer > 0 ? (uint64_t)reply->element[at]->integer : 0;
}

void redis_wake_keeper(struct redis_store *store)
{
	uint64_t one = 1;
	ssize_t written = write(store->wake_fd, &one, sizeof one);
	(void)written; /* full means that it is being woken already */
}

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

struct errand {
	struct redis_line *line;
	uint64_t deadline_us, generation;
	bool was_idle;
};

/* A line, idle or new. False: errand has none, and why says so. */
static bool take_line(struct redis_store *store, struct errand *errand, bool fresh, char why[REDIS_WHY_MAX])
{
	redis_store_lock(store);
	while (store->lines_out >= REDIS_LINES_MAX) {
		struct timespec until = { .tv_sec = (time_t)(errand->deadline_us / US_PER_S),
			                  .tv_nsec = (long)(errand->deadline_us % US_PER_S) * 1000 };
		if (clock_left_us(errand->deadline_us) == 0 ||
		    pthread_cond_timedwait(&store->state_changed, &store->mutex, &until) != 0)
			break;
	}
	bool may = store->lines_out < REDIS_LINES_MAX && store->state != REDIS_OFF;
	errand->line = may && !fresh && store->line_count > 0 ? store->lines[--store->line_count] : NULL;
	errand->generation = store->generation;
	struct address to = store->to;
	char *password = store->password != NULL ? strdup(store->password) : NULL;
	bool has_login = password != NULL || store->password == NULL;
	struct redis_login login = { .password = password, .database = store->database };
	store->lines_out += may;
	redis_store_unlock(store);
	if (!may) {
		free(password);
		snprintf(why, REDIS_WHY_MAX, "all connections to it are busy");
		return false;
	}
	if (errand->line != NULL && !redis_line_is_quiet(errand->line)) {
		redis_line_close(errand->line);
		errand->line = NULL;
	}
	errand->was_idle = errand->line != NULL;
	/* A line that was opened without the password would be refused everything, and kept. */
	if (errand->line == NULL && !has_login)
		snprintf(why, REDIS_WHY_MAX, "out of memory");
	else if (errand->line == NULL)
		errand->line = redis_line_open(&to, &login, errand->deadline_us, why);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	free(password);
	return true;
}

/* A line that is no longer of use has been closed and is NULL here. */
static void put_line(struct redis_store *store, struct errand *errand)
{
	redis_store_lock(store);
	store->lines_out--;
	bool is_kept = errand->line != NULL && errand->generation == store->generation && store->line_count < REDIS_IDLE_LINES;
	if (is_kept)
		store->lines[store->line_count++] = errand->line;
	pthread_cond_broadcast(&store->state_changed);
	redis_store_unlock(store);
	if (!is_kept)
		redis_line_close(errand->line);
	errand->line = NULL;
}

void redis_close_lines(struct redis_store *store)
{
	for (;;) {
		redis_store_lock(store);
		struct redis_line *line = store->line_count > 0 ? store->lines[--store->line_count] : NULL;
		redis_store_unlock(store);
		if (line == NULL)
			return;
		redis_line_close(line);
	}
}

/* ---- scripts -------------------------------------------------------------------------------------------------------- */

static redisReply *evaluate(struct redis_line *line, const char *verb, const char *script, const struct redis_words *words,
                            uint64_t deadline_us, char why[REDIS_WHY_MAX])
{
	const char *all[sizeof words->words / sizeof words->words[0] + 3];
	char keys[16];
	snprintf(keys, sizeof keys, "%d", words->keys);
	all[0] = verb;
	all[1] = script;
	all[2] = keys;
	memcpy(all + 3, words->words, (size_t)words->count * sizeof *all);
	return redis_line_call(line, words->count + 3, all, NULL, deadline_us, why);
}

redisReply *redis_run_on(struct redis_store *store, struct redis_line *line, enum redis_script script,
                         const struct redis_words *words, uint64_t deadline_us, char why[REDIS_WHY_MAX], bool *is_broken)
{
	char sha[REDIS_SHA_MAX];
	redisReply *reply = NULL;
	redis_store_lock(store);
	memcpy(sha, store->sha[script], sizeof sha);
	store->counts.calls_total++;
	redis_store_unlock(store);
	if (sha[0] != '\0') {
		reply = evaluate(line, "EVALSHA", sha, words, deadline_us, why);
		*is_broken = reply == NULL;
		if (reply == NULL)
			return NULL;
	}
	if (reply == NULL || (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOSCRIPT", 8) == 0)) {
		if (reply != NULL)
			freeReplyObject(reply);
		reply = evaluate(line, "EVAL", redis_scripts[script], words, deadline_us, why);
	}
	*is_broken = reply == NULL;
	if (reply != NULL && reply->type != REDIS_REPLY_ARRAY) {
		snprintf(why, REDIS_WHY_MAX, "%.120s", reply->type == REDIS_REPLY_ERROR ? reply->str : "an odd reply");
		freeReplyObject(reply);
		reply = NULL;
	}
	return reply;
}

/* A call failed: nobody asks until the keeper has looked. */
static void doubt(struct redis_store *store, const char *why)
{
	bool is_news = false;
	redis_store_lock(store);
	store->counts.failures_total++;
	if (store->state == REDIS_UP) {
		store->state = REDIS_DOWN;
		store->counts.losses_total++;
		store->is_doubted = true;
		is_news = true;
	}
	redis_store_unlock(store);
	if (is_news && store->watch.state_changed != NULL)
		store->watch.state_changed(store->watch.context, false, why);
	if (is_news)
		redis_wake_keeper(store);
}

redisReply *redis_run(struct redis_store *store, enum redis_script script, const struct redis_words *words)
{
	char why[REDIS_WHY_MAX] = "";
	struct errand errand = { .line = NULL };
	redis_store_lock(store);
	errand.deadline_us = clock_us() + store->deadline_us;
	redis_store_unlock(store);
	redisReply *reply = NULL;
	for (bool fresh = false, again = true; again && reply == NULL; fresh = true) {
		again = false;
		if (!take_line(store, &errand, fresh, why))
			break;
		bool is_broken = false;
		if (errand.line != NULL) {
			reply = redis_run_on(store, errand.line, script, words, errand.deadline_us, why, &is_broken);
			again = is_broken && errand.was_idle && clock_left_us(errand.deadline_us) > 0;
			if (is_broken) {
				redis_line_close(errand.line);
				errand.line = NULL;
			}
		}
		put_line(store, &errand);
	}
	if (reply == NULL)
		doubt(store, why);
	return reply;
}

enum redis_store_answer redis_may_ask(struct redis_store *store)
{
	uint64_t deadline_us = clock_us() + store->deadline_us;
	struct timespec until = { .tv_sec = (time_t)(deadline_us / US_PER_S), .tv_nsec = (long)(deadline_us % US_PER_S) * 1000 };
	while (store->state == REDIS_CONNECTING)
		if (pthread_cond_timedwait(&store->state_changed, &store->mutex, &until) != 0)
			break;
	switch (store->state) {
	case REDIS_UP: return REDIS_STORE_GRANTED;
	case REDIS_OFF: return REDIS_STORE_OFF;
	default: break;
	}
	store->counts.refused_while_down_total++;
	return REDIS_STORE_DOWN;
}
