/* redis_keeper.c: the store's own thread.
 *
 *      connect ──► heartbeat (4 a second) ──► renewal (3 in a time to live) ──► what is to be told ──► a step of the scan ──┐
 *         ▲                                                                                                              │
 *         └── lost: again in 50 ms, 100, 200 … 500                          sleep until something is due or has come ◄───┘
 *
 * It has two lines to Redis of its own: one for its calls, one that has subscribed to the events of the other workers (a line that
 * has subscribed takes no other command).
 *
 * The heartbeat also tells whether Redis is still the one that was told: an empty one has a new mark. Then everything that is
 * open here is told again, within a quarter of a second, while settle_us holds back everybody's questions.
 *
 * Foreign workers write counters and no index. To find them the keys have to be looked through. KEYS would stop Redis for
 * as long as that takes; SCAN goes in steps of some hundred keys. One worker does it for all, in turns of 0.7 s, and never for more than half of
 * the time.
 */
#include "redis_internal.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "lookup.h"
#include "thread.h"

/* How long the name service may take. */
#define NAME_PATIENCE_US (5 * US_PER_S)
#define HEARTBEAT_US (250 * US_PER_MS)
/* A worker whose heartbeat is this old is dead. */
#define SILENT_US (5 * US_PER_S)
#define BACK_OFF_LEAST_US (50 * US_PER_MS)
#define BACK_OFF_MOST_US (500 * US_PER_MS)
#define SCAN_TURN_MS 700u
#define SCAN_COUNT "500"
#define SCAN_CALLS_AT_ONCE 20u
#define SCAN_PAUSE_US (2 * US_PER_MS)
#define NOTES_IN_A_CALL 20u

struct keeper {
	struct redis_store *store;
	struct redis_line *line, *events; /* NULL: not connected */
	uint64_t generation;
	uint64_t retry_us, back_off_us, heartbeat_us, renew_us, scan_us;
	uint64_t born;
	char run[48]; /* which run of Redis this is; "-": it doesn't say */
	bool has_said_down;
	bool is_scanning;
	char cursor[24];
};

static void hear(struct redis_store *store, const char *host, bool is_wanted)
{
	pthread_mutex_lock(&store->listening);
	if (store->host_changed != NULL)
		store->host_changed(store->listener, host, is_wanted);
	pthread_mutex_unlock(&store->listening);
}

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

/* "host:port", "host", "[::1]:6379", "unix:/path". */
static bool resolve(struct redis_store *store, const char *text, struct address *to, char why[REDIS_WHY_MAX])
{
	char host[256];
	const char *port = "6379";
	if (strncmp(text, "unix:", 5) == 0) {
		snprintf(why, REDIS_WHY_MAX, "the socket's path is too long");
		return address_unix(text + 5, to);
	}
	snprintf(host, sizeof host, "%s", text[0] == '[' ? text + 1 : text);
	char *end = text[0] == '[' ? strchr(host, ']') : strchr(host, ':');
	if (end != NULL) {
		const char *colon = *end == ']' ? end + 1 : end;
		if (*colon == ':')
			port = text + (colon + 1 - host) + (text[0] == '[');
		*end = '\0';
	}
	struct lookup_answer answer;
	unsigned number = (unsigned)strtoul(port, NULL, 10);
	enum lookup_result result = lookup(store->lookups, "redis", host, number, clock_us() + NAME_PATIENCE_US, &answer);
	if (result == LOOKUP_FOUND)
		*to = answer.addresses[0];
	else if (result == LOOKUP_UNKNOWN)
		snprintf(why, REDIS_WHY_MAX, "%s", gai_strerror(answer.error));
	else
		snprintf(why, REDIS_WHY_MAX, result == LOOKUP_LATE ? "its name does not resolve in time" : "out of memory");
	return result == LOOKUP_FOUND;
}

/* Redis keeps the scripts and is told their names (SHA-1 of the text) afterwards. One that refuses gets the text each time. */
static bool load_scripts(struct keeper *keeper, uint64_t deadline_us, char why[REDIS_WHY_MAX])
{
	struct redis_store *store = keeper->store;
	for (unsigned i = 0; i < SCRIPT_COUNT; i++) {
		const char *words[] = { "SCRIPT", "LOAD", redis_scripts[i] };
		redisReply *reply = redis_line_call(keeper->line, 3, words, NULL, deadline_us, why);
		if (reply == NULL)
			return false;
		redis_store_lock(store);
		bool is_good = reply->type == REDIS_REPLY_STRING && strlen(reply->str) < REDIS_SHA_MAX;
		snprintf(store->sha[i], REDIS_SHA_MAX, "%s", is_good ? reply->str : "");
		redis_store_unlock(store);
		freeReplyObject(reply);
	}
	return true;
}

/* Each run of Redis has an id of its own. One that has loaded an old file looks as if it knew everything: its id gives it away. */
static bool ask_for_run(struct keeper *keeper, uint64_t deadline_us, char why[REDIS_WHY_MAX])
{
	const char *words[] = { "INFO", "server" };
	redisReply *reply = redis_line_call(keeper->line, 2, words, NULL, deadline_us, why);
	if (reply == NULL)
		return false;
	const char *at = reply->type == REDIS_REPLY_STRING ? strstr(reply->str, "run_id:") : NULL;
	size_t length = at != NULL ? strspn(at + 7, "0123456789abcdef") : 0;
	snprintf(keeper->run, sizeof keeper->run, "%.*s", length > 0 ? (int)length : 1, length > 0 ? at + 7 : "-");
	freeReplyObject(reply);
	return true;
}

static bool subscribe(struct keeper *keeper, uint64_t deadline_us, char why[REDIS_WHY_MAX])
{
	const char *words[] = { "SUBSCRIBE", REDIS_EVENTS };
	redisReply *reply = redis_line_call(keeper->events, 2, words, NULL, deadline_us, why);
	if (reply == NULL)
		return false;
	bool is_ok = reply->type == REDIS_REPLY_ARRAY;
	if (!is_ok)
		snprintf(why, REDIS_WHY_MAX, "SUBSCRIBE: %.100s", reply->type == REDIS_REPLY_ERROR ? reply->str : "odd reply");
	freeReplyObject(reply);
	return is_ok;
}

static void disconnect(struct keeper *keeper)
{
	redis_line_close(keeper->line);
	redis_line_close(keeper->events);
	keeper->line = keeper->events = NULL;
	keeper->is_scanning = false;
	redis_close_lines(keeper->store);
}

struct settings_copy {
	char *address, *password;
	struct redis_login login;
	uint64_t deadline_us;
};

/* What to connect to, now. */
static bool copy_settings(struct keeper *keeper, struct settings_copy *copy)
{
	struct redis_store *store = keeper->store;
	redis_store_lock(store);
	copy->address = store->address != NULL ? strdup(store->address) : NULL;
	copy->password = store->password != NULL ? strdup(store->password) : NULL;
	bool is_whole = copy->address != NULL && (copy->password != NULL || store->password == NULL);
	copy->login = (struct redis_login){ .password = copy->password, .database = store->database };
	copy->deadline_us = store->deadline_us;
	keeper->generation = store->generation;
	redis_store_unlock(store);
	return is_whole;
}

static bool connect_lines(struct keeper *keeper, char why[REDIS_WHY_MAX])
{
	struct redis_store *store = keeper->store;
	struct settings_copy copy;
	struct address to;
	bool is_connected = false;
	snprintf(why, REDIS_WHY_MAX, "out of memory");
	if (copy_settings(keeper, &copy) && resolve(store, copy.address, &to, why)) {
		uint64_t deadline_us = clock_us() + copy.deadline_us;
		keeper->line = redis_line_open(&to, &copy.login, deadline_us, why);
		keeper->events = keeper->line != NULL ? redis_line_open(&to, &copy.login, deadline_us, why) : NULL;
		is_connected = keeper->events != NULL && load_scripts(keeper, deadline_us, why) &&
		               ask_for_run(keeper, deadline_us, why) && subscribe(keeper, deadline_us, why);
		redis_store_lock(store);
		store->to = to;
		redis_store_unlock(store);
	}
	if (copy.password != NULL)
		explicit_bzero(copy.password, strlen(copy.password));
	free(copy.password);
	free(copy.address);
	if (!is_connected)
		disconnect(keeper);
	return is_connected;
}

/* Redis can't be reached, or doesn't do as it should. */
static void lost(struct keeper *keeper, const char *why)
{
	struct redis_store *store = keeper->store;
	disconnect(keeper);
	redis_store_lock(store);
	bool was_up = store->state == REDIS_UP, was_new = store->state == REDIS_CONNECTING;
	if (store->generation == keeper->generation && store->state != REDIS_OFF)
		store->state = REDIS_DOWN;
	store->counts.losses_total += was_up;
	pthread_cond_broadcast(&store->state_changed);
	redis_store_unlock(store);
	keeper->back_off_us = keeper->back_off_us == 0 ? BACK_OFF_LEAST_US : keeper->back_off_us * 2;
	if (keeper->back_off_us > BACK_OFF_MOST_US)
		keeper->back_off_us = BACK_OFF_MOST_US;
	keeper->retry_us = clock_us() + keeper->back_off_us;
	if ((was_up || was_new) && !keeper->has_said_down && store->watch.state_changed != NULL)
		store->watch.state_changed(store->watch.context, false, why);
	keeper->has_said_down = true;
}

/* ---- heartbeat ------------------------------------------------------------------------------------------------------- */

static redisReply *run(struct keeper *keeper, enum redis_script script, const struct redis_words *words, char why[REDIS_WHY_MAX])
{
	bool is_broken = false;
	redis_store_lock(keeper->store);
	uint64_t deadline_us = clock_us() + keeper->store->deadline_us;
	redis_store_unlock(keeper->store);
	return redis_run_on(keeper->store, keeper->line, script, words, deadline_us, why, &is_broken);
}

static bool is_up(struct redis_store *store)
{
	redis_store_lock(store);
	bool up = store->state == REDIS_UP;
	redis_store_unlock(store);
	return up;
}

/* The state is up, and all is told again: before anybody asks, if this thread is quick, and in any case before those that were
   held by the settling time are let go. */
static void back(struct keeper *keeper)
{
	struct redis_store *store = keeper->store;
	redis_store_lock(store);
	bool is_news = store->state != REDIS_UP && store->generation == keeper->generation;
	if (is_news)
		store->state = REDIS_UP;
	pthread_cond_broadcast(&store->state_changed);
	redis_store_unlock(store);
	if (!is_news)
		return;
	redis_tell_all(store);
	redis_tell_queued(store);
	keeper->back_off_us = 0;
	keeper->has_said_down = false;
	if (store->watch.state_changed != NULL)
		store->watch.state_changed(store->watch.context, true, "");
	hear(store, NULL, false);
}

static void beat(struct keeper *keeper, uint64_t now_us)
{
	struct redis_store *store = keeper->store;
	struct redis_words words = { .keys = 0 };
	char why[REDIS_WHY_MAX] = "";
	redis_words_add(&words, store->id);
	redis_words_number(&words, SILENT_US);
	redis_words_number(&words, SCAN_TURN_MS);
	redis_words_add(&words, keeper->run);
	redisReply *reply = run(keeper, SCRIPT_HEARTBEAT, &words, why);
	if (reply == NULL) {
		lost(keeper, why);
		return;
	}
	uint64_t born = redis_number(reply, 0);
	redis_store_lock(store);
	store->live_workers = (unsigned)redis_number(reply, 1);
	store->is_doubted = false;
	redis_store_unlock(store);
	if (redis_number(reply, 2) == 1 && !keeper->is_scanning) {
		keeper->is_scanning = true;
		keeper->scan_us = now_us;
		snprintf(keeper->cursor, sizeof keeper->cursor, "0");
	}
	freeReplyObject(reply);
	keeper->heartbeat_us = now_us + HEARTBEAT_US;
	if (born != keeper->born)
		redis_tell_all(store);
	keeper->born = born;
	back(keeper);
}

/* ---- foreign workers ------------------------------------------------------------------------------------------------- */

/* The host ends at the first colon behind its name, or behind its port: a number with another colon after it. */
bool redis_split_key(const char *key, size_t length, char host[HOSTS_NAME_MAX], char worker[REDIS_ID_MAX * 2])
{
	const size_t prefix = sizeof REDIS_PREFIX - 1;
	if (length <= prefix || memcmp(key, REDIS_PREFIX, prefix) != 0 || memchr(key, '\0', length) != NULL)
		return false;
	const char *at = key + prefix, *end = key + length;
	const char *bracket = *at == '[' ? memchr(at, ']', (size_t)(end - at)) : at;
	const char *colon = bracket != NULL ? memchr(bracket, ':', (size_t)(end - bracket)) : NULL;
	if (colon == NULL)
		return false;
	const char *digit = colon + 1;
	while (digit < end && *digit >= '0' && *digit <= '9')
		digit++;
	if (digit > colon + 1 && digit - colon <= 6 && digit < end && *digit == ':')
		colon = digit;
	size_t host_length = (size_t)(colon - at), worker_length = (size_t)(end - colon) - 1;
	if (host_length == 0 || host_length >= HOSTS_NAME_MAX || worker_length == 0 || worker_length >= REDIS_ID_MAX * 2)
		return false;
	memcpy(host, at, host_length);
	host[host_length] = '\0';
	memcpy(worker, colon + 1, worker_length);
	worker[worker_length] = '\0';
	return true;
}

/* Adds what a step of the scan found to the indexes. */
static bool note(struct keeper *keeper, const redisReply *keys, char why[REDIS_WHY_MAX])
{
	char hosts[NOTES_IN_A_CALL][HOSTS_NAME_MAX], workers[NOTES_IN_A_CALL][REDIS_ID_MAX * 2];
	redis_store_lock(keeper->store);
	uint64_t ttl_ms = keeper->store->ttl_us / US_PER_MS;
	redis_store_unlock(keeper->store);
	for (size_t at = 0; at < keys->elements;) {
		struct redis_words words = { .keys = 0 };
		redis_words_number(&words, 2 * ttl_ms);
		for (size_t found = 0; at < keys->elements && found < NOTES_IN_A_CALL; at++) {
			const redisReply *key = keys->element[at];
			if (key->type != REDIS_REPLY_STRING ||
			    !redis_split_key(key->str, (size_t)key->len, hosts[found], workers[found]) ||
			    strcmp(workers[found], keeper->store->id) == 0)
				continue;
			redis_words_add(&words, hosts[found]);
			redis_words_add(&words, workers[found]);
			found++;
		}
		redisReply *reply = words.count > 1 ? run(keeper, SCRIPT_NOTE, &words, why) : NULL;
		if (words.count > 1 && reply == NULL)
			return false;
		if (reply != NULL)
			freeReplyObject(reply);
	}
	return true;
}

/* One step. False: Redis failed. */
static bool scan_step(struct keeper *keeper, char why[REDIS_WHY_MAX])
{
	const char *words[] = { "SCAN", keeper->cursor, "MATCH", REDIS_PREFIX "*", "COUNT", SCAN_COUNT };
	redis_store_lock(keeper->store);
	uint64_t deadline_us = clock_us() + keeper->store->deadline_us;
	redis_store_unlock(keeper->store);
	redisReply *reply = redis_line_call(keeper->line, 6, words, NULL, deadline_us, why);
	if (reply == NULL)
		return false;
	bool is_good = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->type == REDIS_REPLY_STRING &&
	               reply->element[1]->type == REDIS_REPLY_ARRAY && strlen(reply->element[0]->str) < sizeof keeper->cursor;
	if (is_good) {
		snprintf(keeper->cursor, sizeof keeper->cursor, "%s", reply->element[0]->str);
		is_good = note(keeper, reply->element[1], why);
	} else {
		snprintf(why, REDIS_WHY_MAX, "SCAN: %.100s", reply->type == REDIS_REPLY_ERROR ? reply->str : "odd reply");
	}
	freeReplyObject(reply);
	keeper->is_scanning = strcmp(keeper->cursor, "0") != 0;
	return is_good;
}

static void scan(struct keeper *keeper)
{
	char why[REDIS_WHY_MAX] = "";
	uint64_t began_us = clock_us();
	for (unsigned i = 0; i < SCAN_CALLS_AT_ONCE && keeper->is_scanning; i++) {
		if (!scan_step(keeper, why)) {
			lost(keeper, why);
			return;
		}
	}
	/* As long a rest as the work took: half of the time at most. */
	uint64_t now_us = clock_us();
	keeper->scan_us = now_us + (now_us - began_us) + SCAN_PAUSE_US;
}

/* ---- events ---------------------------------------------------------------------------------------------------------- */

/* "free WORKER HOST" or "wanted WORKER HOST"; our own are no news. */
static void hear_message(struct redis_store *store, char *text)
{
	char *worker = strchr(text, ' ');
	char *host = worker != NULL ? strchr(worker + 1, ' ') : NULL;
	if (host == NULL)
		return;
	*worker++ = '\0';
	*host++ = '\0';
	bool is_wanted = strcmp(text, "wanted") == 0;
	if (strcmp(worker, store->id) != 0 && (is_wanted || strcmp(text, "free") == 0))
		hear(store, host, is_wanted);
}

static bool hear_events(struct keeper *keeper)
{
	redisReply *reply = NULL;
	do {
		if (!redis_line_poll(keeper->events, &reply))
			return false;
		if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
		    reply->element[2]->type == REDIS_REPLY_STRING)
			hear_message(keeper->store, reply->element[2]->str);
		if (reply != NULL)
			freeReplyObject(reply);
	} while (reply != NULL);
	return true;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

static uint64_t earlier(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

static void sleep_until_due(struct keeper *keeper, bool is_off)
{
	uint64_t due_us = is_off ? CLOCK_NEVER : keeper->retry_us, count;
	if (keeper->line != NULL) {
		due_us = earlier(keeper->heartbeat_us, keeper->renew_us);
		if (keeper->is_scanning)
			due_us = earlier(due_us, keeper->scan_us);
	}
	struct pollfd fds[2] = { { .fd = keeper->store->wake_fd, .events = POLLIN },
		                 { .fd = keeper->events != NULL ? redis_line_fd(keeper->events) : -1, .events = POLLIN } };
	uint64_t left_us = clock_left_us(due_us);
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	int ready = ppoll(fds, 2, due_us == CLOCK_NEVER ? NULL : &left, NULL);
	if (ready <= 0)
		return;
	if (fds[0].revents != 0 && read(fds[0].fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR)
		return;
	if (fds[1].revents != 0 && !hear_events(keeper))
		lost(keeper, "it closed the connection");
}

/* What this worker has told Redis is taken back: the end, or another Redis. */
static void say_farewell(struct keeper *keeper)
{
	struct redis_store *store = keeper->store;
	struct redis_words words;
	char keys[5][HOSTS_NAME_MAX + REDIS_ID_MAX + 32], why[REDIS_WHY_MAX], host[HOSTS_NAME_MAX];
	for (size_t bucket = 0; bucket < REDIS_ACCOUNT_BUCKETS; bucket++) {
		for (size_t at = 0; redis_told_host(store, bucket, at, host); at++) {
			redis_letter(&words, keys, store->id, host);
			redis_store_lock(store);
			redis_words_number(&words, ++store->letters);
			redis_store_unlock(store);
			/* own, want, cap, ttl, settle, waits, idle */
			for (unsigned i = 0; i < 7; i++)
				redis_words_number(&words, i == 3);
			redisReply *reply = run(keeper, SCRIPT_LETTER, &words, why);
			if (reply == NULL)
				return;
			freeReplyObject(reply);
		}
	}
	const char *leave[] = { "ZREM", REDIS_WORKERS, store->id };
	redisReply *reply = redis_line_call(keeper->line, 3, leave, NULL, clock_us() + US_PER_S / 2, why);
	if (reply != NULL)
		freeReplyObject(reply);
}

/* One round. */
static void work(struct keeper *keeper)
{
	struct redis_store *store = keeper->store;
	char why[REDIS_WHY_MAX] = "";
	uint64_t now_us = clock_us();
	if (keeper->line == NULL && now_us >= keeper->retry_us) {
		if (!connect_lines(keeper, why)) {
			lost(keeper, why);
			return;
		}
		keeper->heartbeat_us = keeper->renew_us = 0;
	}
	redis_store_lock(store);
	uint64_t renewal_us = store->ttl_us / 3;
	bool is_doubted = store->is_doubted;
	redis_store_unlock(store);
	if (is_doubted)
		keeper->has_said_down = true; /* the thread that lost it has said so */
	if (keeper->line != NULL && (is_doubted || now_us >= keeper->heartbeat_us))
		beat(keeper, now_us);
	if (keeper->line != NULL && now_us >= keeper->renew_us) {
		redis_tell_all(store);
		keeper->renew_us = now_us + renewal_us;
	}
	if (keeper->line != NULL && is_up(store))
		redis_tell_queued(store);
	if (keeper->line != NULL && keeper->is_scanning && clock_us() >= keeper->scan_us)
		scan(keeper);
}

void *redis_keeper(void *argument)
{
	struct redis_store *store = argument;
	thread_name("weir:redis");
	struct keeper keeper = { .store = store };
	for (;;) {
		redis_store_lock(store);
		bool is_stopping = store->is_stopping, is_off = store->state == REDIS_OFF;
		bool is_changed = keeper.generation != 0 && store->generation != keeper.generation;
		redis_store_unlock(store);
		if (keeper.line != NULL && (is_stopping || is_changed)) {
			say_farewell(&keeper);
			disconnect(&keeper);
		}
		if (is_stopping)
			break;
		if (is_changed)
			keeper.retry_us = keeper.back_off_us = keeper.born = keeper.has_said_down = 0;
		if (!is_off)
			work(&keeper);
		sleep_until_due(&keeper, is_off);
	}
	return NULL;
}
