/* redis_store.c: see redis_store.h. Accounts and letters.
 *
 *      takers ask ──► ┌ account "example.com" ┐   letter: "I have 5 and want 2"   ┌───────┐
 *      gives: own − 1 │ own 5, one letter out │ ─────────────────────────────────►│ Redis │
 *                     └ at a time             ┘ ◄── "2 granted, the sum is 9" ─────└───────┘
 *
 * The thread that finds no letter under way writes the next, for all that have asked by then, and hands out what came back; those
 * that come meanwhile are in the next. So the counter is only ever written with the truth of one moment, in the order of those moments
 * (each letter has a number, and Redis ignores one that comes late).
 *
 * The invariant: while no letter of an account is under way and it isn't dirty, Redis has own, or has lost everything.
 */
#include "redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "clock.h"
#include "lookup.h"
#include "thread.h"

/* Names that may be asked for at once: an answer that never comes must not keep the next question from being asked. */
#define LOOKUPS_MAX 8u
#define DEFAULT_TTL_US (30 * US_PER_S)
#define DEFAULT_DEADLINE_US (500 * US_PER_MS)
#define DEFAULT_SETTLE_US US_PER_S
/* A thread that only gives back writes at most this many letters for others before it leaves them to the keeper. */
#define LETTERS_FOR_OTHERS 4u

/* ---- create and destroy ---------------------------------------------------------------------------------------------- */

/* Host name, process and chance: who it is can be seen in redis-cli, and no two are the same. */
static bool make_id(char id[REDIS_ID_MAX])
{
	char host[32] = "";
	uint32_t chance;
	if (getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
		return false;
	gethostname(host, sizeof host - 1);
	for (char *c = host; *c != '\0'; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '-'))
			*c = '-';
	snprintf(id, REDIS_ID_MAX, "%.31s-%ld-%08x", host, (long)getpid(), chance);
	return true;
}

static int set_options(struct redis_store *store, const struct redis_store_options *options)
{
	char *address = options->address != NULL ? strdup(options->address) : NULL;
	char *password = options->password != NULL ? strdup(options->password) : NULL;
	if ((options->address != NULL && address == NULL) || (options->password != NULL && password == NULL)) {
		free(address);
		free(password);
		return -1;
	}
	redis_store_lock(store);
	char *old_address = store->address, *old_password = store->password;
	store->address = address;
	store->password = password;
	store->database = options->database;
	store->ttl_us = options->ttl_us != 0 ? options->ttl_us : DEFAULT_TTL_US;
	store->deadline_us = options->deadline_us != 0 ? options->deadline_us : DEFAULT_DEADLINE_US;
	store->settle_us = options->settle_us != 0 ? options->settle_us : DEFAULT_SETTLE_US;
	store->state = address != NULL ? REDIS_CONNECTING : REDIS_OFF;
	store->generation++;
	pthread_cond_broadcast(&store->state_changed);
	redis_store_unlock(store);
	free(old_address);
	if (old_password != NULL)
		explicit_bzero(old_password, strlen(old_password));
	free(old_password);
	return 0;
}

static void free_all(struct redis_store *store)
{
	redis_store_lock(store);
	for (size_t i = 0; i < REDIS_ACCOUNT_BUCKETS; i++) {
		while (store->accounts[i] != NULL) {
			struct redis_account *account = store->accounts[i];
			store->accounts[i] = account->next;
			free(account);
		}
	}
	redis_store_unlock(store);
	set_options(store, &(struct redis_store_options){ .address = NULL });
	lookups_destroy(store->lookups);
	if (store->wake_fd >= 0)
		close(store->wake_fd);
	pthread_cond_destroy(&store->state_changed);
	pthread_mutex_destroy(&store->listening);
	pthread_mutex_destroy(&store->mutex);
	free(store);
}

struct redis_store *redis_store_create(const struct redis_store_options *options, const struct redis_store_watch *watch)
{
	struct redis_store *store = calloc(1, sizeof *store);
	if (store == NULL)
		return NULL;
	if (thread_condition_init(&store->state_changed) != 0) {
		free(store);
		return NULL;
	}
	pthread_mutex_init(&store->mutex, NULL);
	pthread_mutex_init(&store->listening, NULL);
	if (watch != NULL)
		store->watch = *watch;
	store->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	store->lookups = lookups_create(LOOKUPS_MAX);
	if (store->wake_fd < 0 || store->lookups == NULL || !make_id(store->id) || set_options(store, options) != 0 ||
	    thread_start(&store->keeper, redis_keeper, store) != 0) {
		free_all(store);
		return NULL;
	}
	return store;
}

void redis_store_destroy(struct redis_store *store)
{
	if (store == NULL)
		return;
	redis_store_lock(store);
	store->is_stopping = true;
	redis_store_unlock(store);
	lookups_abandon(store->lookups);
	redis_wake_keeper(store);
	pthread_join(store->keeper, NULL);
	redis_close_lines(store);
	free_all(store);
}

static bool is_same_text(const char *one, const char *other)
{
	return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

/* Leaving Redis for a moment would show others free places that are taken. */
static bool is_in_force(struct redis_store *store, const struct redis_store_options *options)
{
	redis_store_lock(store);
	bool is_same = is_same_text(store->address, options->address) && is_same_text(store->password, options->password) &&
	               store->database == options->database &&
	               store->ttl_us == (options->ttl_us != 0 ? options->ttl_us : DEFAULT_TTL_US) &&
	               store->deadline_us == (options->deadline_us != 0 ? options->deadline_us : DEFAULT_DEADLINE_US) &&
	               store->settle_us == (options->settle_us != 0 ? options->settle_us : DEFAULT_SETTLE_US);
	redis_store_unlock(store);
	return is_same;
}

int redis_store_configure(struct redis_store *store, const struct redis_store_options *options)
{
	if (is_in_force(store, options))
		return 0;
	int result = set_options(store, options);
	redis_wake_keeper(store);
	return result;
}

bool redis_store_wait_up(struct redis_store *store, uint64_t deadline_us)
{
	struct timespec until = { .tv_sec = (time_t)(deadline_us / US_PER_S), .tv_nsec = (long)(deadline_us % US_PER_S) * 1000 };
	redis_store_lock(store);
	while (store->state != REDIS_UP)
		if (pthread_cond_timedwait(&store->state_changed, &store->mutex, &until) != 0)
			break;
	bool is_up = store->state == REDIS_UP;
	redis_store_unlock(store);
	return is_up;
}

void redis_store_listen(struct redis_store *store, void (*host_changed)(void *context, const char *host, bool is_wanted),
                        void *context)
{
	pthread_mutex_lock(&store->listening);
	store->host_changed = host_changed;
	store->listener = context;
	pthread_mutex_unlock(&store->listening);
}

/* ---- accounts ------------------------------------------------------------------------------------------------------- */

/* Names are counted, not secret: whoever chooses host names can make the lists long, and each costs him a connection. */
static struct redis_account **bucket_of(struct redis_store *store, const char *host) REQUIRES(redis_mutex)
{
	uint32_t hash = 2166136261u; /* FNV-1a */
	for (const char *c = host; *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	return &store->accounts[hash % REDIS_ACCOUNT_BUCKETS];
}

static struct redis_account *find(struct redis_store *store, const char *host) REQUIRES(redis_mutex)
{
	struct redis_account *account = *bucket_of(store, host);
	while (account != NULL && strcmp(account->name, host) != 0)
		account = account->next;
	return account;
}

static struct redis_account *find_or_make(struct redis_store *store, const char *host) REQUIRES(redis_mutex)
{
	struct redis_account *account = find(store, host);
	size_t length = strlen(host);
	if (account != NULL || length >= HOSTS_NAME_MAX)
		return account;
	account = calloc(1, sizeof *account);
	if (account == NULL)
		return NULL;
	memcpy(account->name, host, length + 1);
	struct redis_account **bucket = bucket_of(store, host);
	account->next = *bucket;
	*bucket = account;
	return account;
}

/* Frees it if nothing is left to be said about it. */
static void forget(struct redis_store *store, struct redis_account *account) REQUIRES(redis_mutex)
{
	if (account->own > 0 || account->is_told || account->is_busy || account->is_to_tell || account->first != NULL)
		return;
	struct redis_account **place = bucket_of(store, account->name);
	while (*place != account)
		place = &(*place)->next;
	*place = account->next;
	free(account);
}

/* The keeper will tell of it. */
static void queue(struct redis_store *store, struct redis_account *account) REQUIRES(redis_mutex)
{
	account->is_dirty = true;
	if (account->is_to_tell)
		return;
	account->is_to_tell = true;
	account->next_to_tell = NULL;
	if (store->tell_first == NULL)
		store->tell_first = account;
	else
		store->tell_last->next_to_tell = account;
	store->tell_last = account;
}

/* ---- letters -------------------------------------------------------------------------------------------------------- */

struct letter {
	char host[HOSTS_NAME_MAX];
	unsigned own, want, cap, idle;
	bool will_wait;
	uint64_t number, ttl_ms, settle_us;
};

void redis_letter(struct redis_words *words, char keys[5][HOSTS_NAME_MAX + REDIS_ID_MAX + 32], const char *id, const char *host)
{
	static const size_t size = HOSTS_NAME_MAX + REDIS_ID_MAX + 32;
	snprintf(keys[0], size, REDIS_INDEX "%s", host);
	snprintf(keys[1], size, REDIS_PREFIX "%s:%s", host, id);
	snprintf(keys[2], size, REDIS_WAITING "%s", host);
	snprintf(keys[3], size, REDIS_WANTED "%s", host);
	*words = (struct redis_words){ .keys = 4 };
	for (size_t i = 0; i < 4; i++)
		redis_words_add(words, keys[i]);
	redis_words_add(words, host);
	redis_words_add(words, id);
}

static redisReply *send_letter(struct redis_store *store, const struct letter *letter) EXCLUDES(redis_mutex)
{
	struct redis_words words;
	char keys[5][HOSTS_NAME_MAX + REDIS_ID_MAX + 32];
	redis_letter(&words, keys, store->id, letter->host);
	redis_words_number(&words, letter->number);
	redis_words_number(&words, letter->own);
	redis_words_number(&words, letter->want);
	redis_words_number(&words, letter->cap);
	redis_words_number(&words, letter->ttl_ms);
	redis_words_number(&words, letter->settle_us);
	redis_words_number(&words, letter->will_wait);
	redis_words_number(&words, letter->idle > 0);
	return redis_run(store, SCRIPT_LETTER, &words);
}

/* What came back goes to those that asked: granted ones first come, first served. */
static void hand_out(struct redis_store *store, struct redis_account *account, struct redis_taker *takers, const redisReply *reply)
	REQUIRES(redis_mutex)
{
	bool is_old = reply != NULL && reply->elements > 0 && reply->element[0]->integer < 0;
	enum redis_store_answer answer = REDIS_STORE_DOWN;
	uint64_t granted = 0;
	struct redis_store_result result = { .live_workers = store->live_workers };
	if (reply != NULL && !is_old) {
		answer = redis_number(reply, 0) == 1 ? REDIS_STORE_FULL : REDIS_STORE_SETTLING;
		granted = redis_number(reply, 1);
		result.sum = (unsigned)redis_number(reply, 2);
		account->workers = (unsigned)redis_number(reply, 3);
		result.idle_elsewhere = redis_number(reply, 4) != 0;
		result.wait_us = redis_number(reply, 5);
	}
	while (takers != NULL) {
		struct redis_taker *taker = takers;
		takers = taker->next;
		taker->answer = granted > 0 ? REDIS_STORE_GRANTED : answer;
		if (granted > 0) {
			granted--;
			account->own++;
		}
		taker->result = result;
		taker->has_answer = true;
		pthread_cond_signal(&taker->answered);
	}
	/* More was granted than asked for: can't be, but then Redis counts too many. */
	account->is_dirty = account->is_dirty || reply == NULL || is_old || granted > 0;
}

/* One letter, for everybody who has asked by now. False: Redis failed. */
static bool write_letter(struct redis_store *store, struct redis_account *account) REQUIRES(redis_mutex)
{
	struct redis_taker *takers = account->first;
	struct letter letter = { .own = account->own, .idle = account->idle, .number = ++store->letters };
	memcpy(letter.host, account->name, sizeof letter.host);
	for (struct redis_taker *taker = takers; taker != NULL; taker = taker->next) {
		letter.want++;
		letter.will_wait = letter.will_wait || taker->will_wait;
		account->cap = taker->cap;
	}
	letter.cap = account->cap;
	letter.ttl_ms = store->ttl_us / US_PER_MS;
	letter.settle_us = store->settle_us;
	account->first = account->last = NULL;
	account->is_busy = true;
	account->is_dirty = false;
	account->is_told = true;
	redis_store_unlock(store);
	redisReply *reply = send_letter(store, &letter);
	redis_store_lock(store);
	account->is_busy = false;
	if (reply != NULL && letter.own + redis_number(reply, 1) == 0 && reply->element[0]->integer >= 0)
		account->is_told = false;
	hand_out(store, account, takers, reply);
	/* Those that asked meanwhile: one of them writes the next. */
	if (account->first != NULL)
		pthread_cond_signal(&account->first->answered);
	bool has_failed = reply == NULL;
	if (reply != NULL)
		freeReplyObject(reply);
	return !has_failed;
}

/* Redis shall have the truth about this account, now if possible. If a letter is under way, whoever wrote it goes on. */
static void tell(struct redis_store *store, struct redis_account *account) REQUIRES(redis_mutex)
{
	for (unsigned i = 0; i < LETTERS_FOR_OTHERS; i++) {
		if (!account->is_dirty || account->is_busy || store->state != REDIS_UP)
			return; /* when Redis is back, all is told again */
		if (account->first != NULL)
			return; /* those that ask tell it as well */
		write_letter(store, account);
	}
	if (account->is_dirty) {
		queue(store, account);
		redis_wake_keeper(store);
	}
}

/* ---- the verbs ------------------------------------------------------------------------------------------------------- */

static void ask(struct redis_store *store, struct redis_account *account, struct redis_taker *taker) REQUIRES(redis_mutex)
{
	if (account->last != NULL)
		account->last->next = taker;
	else
		account->first = taker;
	account->last = taker;
	while (!taker->has_answer) {
		if (!account->is_busy)
			write_letter(store, account);
		else
			pthread_cond_wait(&taker->answered, &store->mutex);
	}
}

enum redis_store_answer redis_store_take(struct redis_store *store, const char *host, unsigned cap, bool will_wait,
                                         struct redis_store_result *result)
{
	struct redis_taker taker = { .cap = cap, .will_wait = will_wait };
	*result = (struct redis_store_result){ .live_workers = 1 };
	redis_store_lock(store);
	enum redis_store_answer answer = redis_may_ask(store);
	struct redis_account *account = answer == REDIS_STORE_GRANTED ? find_or_make(store, host) : NULL;
	if (account != NULL && thread_condition_init(&taker.answered) == 0) {
		ask(store, account, &taker);
		pthread_cond_destroy(&taker.answered);
		answer = taker.answer;
		*result = taker.result;
		/* A place that was given back while the letter was under way has waited for this thread. Whoever woke first may have
		   freed the account. */
		account = find(store, host);
		if (account != NULL) {
			tell(store, account);
			forget(store, account);
		}
	} else if (answer == REDIS_STORE_GRANTED) {
		answer = REDIS_STORE_NO_MEMORY;
	}
	redis_store_unlock(store);
	return answer;
}

bool redis_store_assume(struct redis_store *store, const char *host, unsigned cap)
{
	redis_store_lock(store);
	struct redis_account *account = find_or_make(store, host);
	if (account != NULL) {
		account->own++;
		if (cap != 0)
			account->cap = cap;
		account->is_dirty = true;
		if (account->cap != 0)
			queue(store, account);
	}
	redis_store_unlock(store);
	return account != NULL;
}

void redis_store_tell(struct redis_store *store, const char *host)
{
	redis_store_lock(store);
	struct redis_account *account = find(store, host);
	if (account != NULL) {
		account->cap = account->cap != 0 ? account->cap : 1;
		queue(store, account);
	}
	redis_store_unlock(store);
	redis_wake_keeper(store);
}

void redis_store_give(struct redis_store *store, const char *host, unsigned count)
{
	redis_store_lock(store);
	struct redis_account *account = find(store, host);
	if (account != NULL) {
		account->own -= count < account->own ? count : account->own;
		account->idle = account->idle < account->own ? account->idle : account->own;
		account->is_dirty = true;
		if (account->is_told)
			tell(store, account);
		forget(store, account);
	}
	redis_store_unlock(store);
}

void redis_store_idle(struct redis_store *store, const char *host, unsigned idle)
{
	redis_store_lock(store);
	struct redis_account *account = find(store, host);
	if (account != NULL) {
		bool was_idle = account->idle > 0;
		account->idle = idle;
		/* Only whether there are any matters to others, and it may be told a little later. */
		if (was_idle != (idle > 0) && account->is_told)
			queue(store, account);
	}
	redis_store_unlock(store);
}

bool redis_store_is_down(struct redis_store *store)
{
	redis_store_lock(store);
	bool is_down = store->state == REDIS_DOWN;
	redis_store_unlock(store);
	return is_down;
}

unsigned redis_store_live_workers(struct redis_store *store, const char *host)
{
	redis_store_lock(store);
	struct redis_account *account = find(store, host);
	unsigned live = store->live_workers;
	if (account != NULL && account->workers > live)
		live = account->workers;
	redis_store_unlock(store);
	return live > 0 ? live : 1;
}

/* ---- for the keeper --------------------------------------------------------------------------------------------------- */

void redis_tell_all(struct redis_store *store)
{
	redis_store_lock(store);
	for (size_t i = 0; i < REDIS_ACCOUNT_BUCKETS; i++)
		for (struct redis_account *account = store->accounts[i]; account != NULL; account = account->next)
			if (account->is_told || account->cap != 0)
				queue(store, account);
	redis_store_unlock(store);
}

bool redis_told_host(struct redis_store *store, size_t bucket, size_t at, char host[HOSTS_NAME_MAX])
{
	redis_store_lock(store);
	struct redis_account *account = store->accounts[bucket];
	while (account != NULL && (!account->is_told || at > 0)) {
		at -= account->is_told;
		account = account->next;
	}
	if (account != NULL)
		memcpy(host, account->name, HOSTS_NAME_MAX);
	redis_store_unlock(store);
	return account != NULL;
}

/* What is queued meanwhile waits for the next round: a heartbeat may be due. */
void redis_tell_queued(struct redis_store *store)
{
	redis_store_lock(store);
	const struct redis_account *last = store->tell_last;
	while (store->tell_first != NULL && store->state == REDIS_UP) {
		struct redis_account *account = store->tell_first;
		bool is_last = account == last;
		store->tell_first = account->next_to_tell;
		account->is_to_tell = false;
		/* Is a letter under way, whoever wrote it tells the rest. */
		if (!account->is_busy) {
			if (account->is_dirty && !write_letter(store, account)) {
				queue(store, account);
				break;
			}
			/* A place was given back during the letter, and its thread relied on us. */
			if (account->is_dirty && account->is_told && account->first == NULL)
				queue(store, account);
			forget(store, account);
		}
		if (is_last)
			break;
	}
	if (store->tell_first != NULL && store->state == REDIS_UP)
		redis_wake_keeper(store);
	redis_store_unlock(store);
}

void redis_store_report(struct redis_store *store, struct redis_store_report *report)
{
	redis_store_lock(store);
	*report = store->counts;
	report->is_on = store->state != REDIS_OFF;
	report->is_up = store->state == REDIS_UP;
	memcpy(report->worker_id, store->id, sizeof report->worker_id);
	report->live_workers = store->live_workers;
	report->connections = store->line_count + store->lines_out;
	redis_store_unlock(store);
}
