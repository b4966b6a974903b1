/* redis_internal.h: what the files of the store share.
 *
 *      redis_store.c    accounts: what this worker has at each host; letters that tell Redis and ask for more
 *      redis_starts.c   the shared threshold
 *      redis_keeper.c   the store's own thread: connecting, heartbeat, renewal, finding foreign workers, events
 *      redis_calls.c    the pool of connections, and running a script on one
 *      redis_scripts.c  the scripts themselves, in Lua
 *      redis_line.c     one connection
 */
#ifndef WEIR_REDIS_INTERNAL_H
#define WEIR_REDIS_INTERNAL_H

#include <pthread.h>

#include "hosts.h"
#include "redis_line.h"
#include "redis_store.h"
#include "ts.h"

#define REDIS_PREFIX "proxy_rate_limiter:"
#define REDIS_INDEX "proxy_rate_limiter_index:"
#define REDIS_WAITING "proxy_rate_limiter_waiting:"
#define REDIS_WANTED "proxy_rate_limiter_wanted:"
#define REDIS_STARTS "proxy_rate_limiter_starts:"
#define REDIS_MARKER "proxy_rate_limiter_born"
#define REDIS_WORKERS "proxy_rate_limiter_workers"
#define REDIS_SCAN "proxy_rate_limiter_scan"
#define REDIS_EVENTS "proxy_rate_limiter_events"

#define REDIS_ID_MAX 64
#define REDIS_SHA_MAX 41
#define REDIS_ACCOUNT_BUCKETS 1024u
#define REDIS_IDLE_LINES 16u
#define REDIS_LINES_MAX 32u

enum redis_script { SCRIPT_LETTER, SCRIPT_HEARTBEAT, SCRIPT_NOTE, SCRIPT_START, SCRIPT_STARTED, SCRIPT_COUNT };
/* The text of each. */
extern const char *const redis_scripts[SCRIPT_COUNT];

enum redis_state {
	REDIS_OFF,
	REDIS_CONNECTING, /* the first attempt is under way: who asks waits for its outcome */
	REDIS_UP,
	REDIS_DOWN,
};

/* A thread that asks for a place; on its stack. */
struct redis_taker {
	struct redis_taker *next;
	pthread_cond_t answered;
	unsigned cap;
	bool will_wait;
	bool has_answer;
	enum redis_store_answer answer;
	struct redis_store_result result;
};

/* What this worker has at one host. Guarded by redis_mutex. */
struct redis_account {
	struct redis_account *next;
	struct redis_account *next_to_tell;
	unsigned own;      /* places: this is the truth, Redis is told of it */
	unsigned cap;      /* the last one; 0: none, and Redis isn't told */
	unsigned idle;     /* of own */
	unsigned workers;  /* that had places when Redis was asked last */
	bool is_told;      /* Redis may have a counter of ours */
	bool is_dirty;     /* what Redis has is not the truth */
	bool is_busy;      /* a letter is under way: one at a time */
	bool is_to_tell;   /* in the list of those that the keeper will tell of */
	struct redis_taker *first, *last;
	char name[HOSTS_NAME_MAX];
};

struct redis_store {
	char id[REDIS_ID_MAX];
	struct redis_store_watch watch;
	pthread_t keeper;
	int wake_fd; /* wakes the keeper */
	struct lookups *lookups; /* who Redis's name is asked of: the end does not wait for an answer */
	/* Held while a listener is called, by the keeper; only whoever takes the listener away waits for it. Outside all locks of
	   lib/ts.h. */
	pthread_mutex_t listening;
	void (*host_changed)(void *context, const char *host, bool is_wanted);
	void *listener;

	pthread_mutex_t mutex;
	pthread_cond_t state_changed; /* also: a line came back */
	bool is_stopping GUARDED_BY(redis_mutex);
	enum redis_state state GUARDED_BY(redis_mutex);
	bool is_doubted GUARDED_BY(redis_mutex); /* a call failed: the keeper is to look at once */
	uint64_t generation GUARDED_BY(redis_mutex); /* of the settings: lines of an older one are closed */
	char *address GUARDED_BY(redis_mutex);
	char *password GUARDED_BY(redis_mutex);
	unsigned database GUARDED_BY(redis_mutex);
	uint64_t ttl_us GUARDED_BY(redis_mutex);
	uint64_t deadline_us GUARDED_BY(redis_mutex);
	uint64_t settle_us GUARDED_BY(redis_mutex);
	struct address to GUARDED_BY(redis_mutex); /* the address, resolved by the keeper */
	char sha[SCRIPT_COUNT][REDIS_SHA_MAX] GUARDED_BY(redis_mutex);
	struct redis_line *lines[REDIS_IDLE_LINES] GUARDED_BY(redis_mutex);
	unsigned line_count GUARDED_BY(redis_mutex); /* idle ones */
	unsigned lines_out GUARDED_BY(redis_mutex);
	struct redis_account *accounts[REDIS_ACCOUNT_BUCKETS] GUARDED_BY(redis_mutex);
	struct redis_account *tell_first GUARDED_BY(redis_mutex);
	struct redis_account *tell_last GUARDED_BY(redis_mutex);
	uint64_t letters GUARDED_BY(redis_mutex); /* the number of the last letter */
	unsigned live_workers GUARDED_BY(redis_mutex);
	struct redis_store_report counts GUARDED_BY(redis_mutex);
};

LOCK_VERBS(redis_store, mutex, redis_mutex)

/* ---- redis_calls.c ---------------------------------------------------------------------------------------------------- */

struct redis_words {
	const char *words[48];
	int count;
	int keys; /* how many of the words are keys */
	char numbers[16][24]; /* numbers that were made words */
	int numbers_used;
};
void redis_words_add(struct redis_words *words, const char *word);
void redis_words_number(struct redis_words *words, uint64_t number);

/* Runs a script on a line of the pool, within the store's deadline. NULL: it failed, and the store knows; else the reply (no error
   reply), the caller's. */
redisReply *redis_run(struct redis_store *store, enum redis_script script, const struct redis_words *words)
	EXCLUDES(redis_mutex);
/* The same on a line of one's own. NULL: why says what went wrong; *is_broken whether the line is of no use any more. */
redisReply *redis_run_on(struct redis_store *store, struct redis_line *line, enum redis_script script,
                         const struct redis_words *words, uint64_t deadline_us, char why[REDIS_WHY_MAX], bool *is_broken)
	EXCLUDES(redis_mutex);
/* The number at a place of an array, 0 when there is none. */
uint64_t redis_number(const redisReply *reply, size_t at);
/* Closes the idle lines of the pool. */
void redis_close_lines(struct redis_store *store) EXCLUDES(redis_mutex);
/* May questions be asked? Waits for the outcome of a first attempt to connect. */
enum redis_store_answer redis_may_ask(struct redis_store *store) REQUIRES(redis_mutex);
void redis_wake_keeper(struct redis_store *store);

/* ---- redis_store.c ---------------------------------------------------------------------------------------------------- */

/* Every account that Redis knows of, or should, is to be told of again: Redis came back, or the time to live runs. */
void redis_tell_all(struct redis_store *store) EXCLUDES(redis_mutex);
/* Tells of the accounts in the list. Stops when Redis fails. */
void redis_tell_queued(struct redis_store *store) EXCLUDES(redis_mutex);
/* The name of an account that Redis may know of: the at-th in a bucket. False: there are no more. */
bool redis_told_host(struct redis_store *store, size_t bucket, size_t at, char host[HOSTS_NAME_MAX]) EXCLUDES(redis_mutex);
/* The words of a letter, without the account. */
void redis_letter(struct redis_words *words, char keys[5][HOSTS_NAME_MAX + REDIS_ID_MAX + 32], const char *id, const char *host);

/* ---- redis_keeper.c --------------------------------------------------------------------------------------------------- */

void *redis_keeper(void *store);
/* Host and worker of a counter's key. False: not of that form. */
bool redis_split_key(const char *key, size_t length, char host[HOSTS_NAME_MAX], char worker[REDIS_ID_MAX * 2]);

#endif
