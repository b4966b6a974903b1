/* redis_starts.c: a threshold that many workers share: in no window do more requests start than it says.
 *
 *      starts in Redis, by its clock:   ├──x──x─────x──┤        threshold 3: the fourth may start when the first is window_us old
 *                                       now − window   now
 *
 * A script can't know when the request's first byte will leave: it notes the moment at which it says "go". The request starts a
 * little later, d. Two of them, a window apart in the notes, are less than a window apart on the wire if the first was held up for
 * longer than the second. So a note counts for window + guard: as long as d ≤ guard the starts themselves obey the window. d is
 * measured, by our clock, from before the question to after the send, which is never too little; when it was more than the guard,
 * the note is moved to now (redis_store_started()).
 *
 * After an empty Redis was met the starts of the last window are not known: nothing is given for a window (at most 2 s of it).
 */
#include "redis_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

#define SETTLE_MOST_US (2 * US_PER_S)

static void name_key(const struct redis_store_start *start, char key[128])
{
	snprintf(key, 128, REDIS_STARTS "%s", start->name);
}

static uint64_t settle_us(uint64_t window_us, uint64_t guard_us)
{
	uint64_t settle = window_us < SETTLE_MOST_US ? window_us : SETTLE_MOST_US;
	return settle + guard_us;
}

enum redis_store_answer redis_store_start(struct redis_store *store, const char *name, unsigned threshold, uint64_t window_us,
                                          uint64_t guard_us, struct redis_store_start *start, uint64_t *wait_us)
{
	*start = (struct redis_store_start){ .asked_us = clock_us(), .guard_us = guard_us, .window_us = window_us };
	*wait_us = 0;
	snprintf(start->name, sizeof start->name, "%s", name);
	redis_store_lock(store);
	enum redis_store_answer answer = redis_may_ask(store);
	uint64_t number = ++store->letters;
	redis_store_unlock(store);
	if (answer != REDIS_STORE_GRANTED)
		return answer;
	/* The end of the id is what is random in it. */
	size_t id_length = strlen(store->id);
	snprintf(start->member, sizeof start->member, "%s:%" PRIu64, store->id + (id_length > 16 ? id_length - 16 : 0), number);
	char key[128];
	name_key(start, key);
	struct redis_words words = { .keys = 1 };
	redis_words_add(&words, key);
	redis_words_add(&words, start->member);
	redis_words_number(&words, threshold);
	redis_words_number(&words, window_us + guard_us);
	redis_words_number(&words, settle_us(window_us, guard_us));
	redisReply *reply = redis_run(store, SCRIPT_START, &words);
	if (reply == NULL)
		return REDIS_STORE_DOWN;
	bool is_settling = reply->elements > 0 && reply->element[0]->type == REDIS_REPLY_INTEGER && reply->element[0]->integer < 0;
	answer = is_settling ? REDIS_STORE_SETTLING : redis_number(reply, 0) == 1 ? REDIS_STORE_GRANTED : REDIS_STORE_FULL;
	*wait_us = redis_number(reply, 1);
	freeReplyObject(reply);
	return answer;
}

static void change(struct redis_store *store, const struct redis_store_start *start, const char *how)
{
	char key[128];
	name_key(start, key);
	struct redis_words words = { .keys = 1 };
	redis_words_add(&words, key);
	redis_words_add(&words, start->member);
	redis_words_add(&words, how);
	redis_store_lock(store);
	bool may = redis_may_ask(store) == REDIS_STORE_GRANTED;
	redis_store_unlock(store);
	redisReply *reply = may ? redis_run(store, SCRIPT_STARTED, &words) : NULL;
	if (reply != NULL)
		freeReplyObject(reply);
}

void redis_store_started(struct redis_store *store, const struct redis_store_start *start)
{
	if (clock_us() - start->asked_us > start->guard_us)
		change(store, start, "now");
}

void redis_store_cancel(struct redis_store *store, const struct redis_store_start *start)
{
	change(store, start, "gone");
}
