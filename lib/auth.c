/* auth.c: see auth.h.
 *
 * What a wrong password costs is paid from two budgets, one of its user's and one of all: a check takes a token from both before it
 * begins and gives them back when the password was right. Who guesses at one user's password stops that user's new
 * log-ins, not the others'; who guesses at all of them is bounded by the common budget: ten hashes of 17 ms a second are a sixth of a
 * core.
 *
 *      user's budget   ● ● ● ○ ○     one token a second, at most 5
 *      common budget   ● ● ● ● … ○   ten a second, at most 20
 *
 * While a budget is empty, a pair that was good a while ago (ten minutes) is still let in: else a guesser could log everybody out,
 * by waiting until their minute is over.
 *
 * Several threads with the same new pair (a browser opens six connections at once) make one hash: the others wait for it.
 */
#include "auth.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "siphash.h"
#include "thread.h"
#include "ts.h"

#define LINE_MAX_BYTES 1024u
#define CREDENTIALS_MAX 1024u
#define GOOD_FOR_US (60 * US_PER_S)
#define GOOD_UNDER_ATTACK_US (600 * US_PER_S)
#define WRONG_FOR_US (10 * US_PER_S)
#define SETS 256u
#define SET_PLACES 4u
#define USER_TOKENS 5u
#define USER_TOKEN_US US_PER_S
#define ALL_TOKENS 20u
#define ALL_TOKEN_US (US_PER_S / 10)
#define WAIT_MAX_US (2 * US_PER_S)
#define CHECKS_MAX 16u

/* Tokens come back with time: what is kept is how far ahead of time they have been spent. */
struct budget {
	uint64_t spent_until_us;
};

struct auth_user {
	char *name;
	char *hash;
	struct budget budget; /* guarded by auth_mutex, as all budgets */
};

/* "user:password" as 128 keyed bits. */
struct pair {
	uint64_t first, second;
};

struct memory {
	struct pair pair;
	uint64_t at_us; /* 0: an empty place */
	bool is_good;
};

struct auth {
	atomic_uint holders;
	struct auth_user *users; /* sorted; the list never changes */
	size_t count;
	uint8_t secret[2][SIPHASH_SECRET_BYTES];
	unsigned checks_at_once;
	pthread_mutex_t mutex;
	pthread_cond_t check_ended;
	struct pair under_way[CHECKS_MAX] GUARDED_BY(auth_mutex);
	unsigned checks GUARDED_BY(auth_mutex);
	struct budget all GUARDED_BY(auth_mutex);
	struct budget unknown GUARDED_BY(auth_mutex); /* users that there are not */
	struct memory memories[SETS][SET_PLACES] GUARDED_BY(auth_mutex);
	struct auth_report counts GUARDED_BY(auth_mutex);
};

LOCK_VERBS(auth, mutex, auth_mutex)

/* ---- the file ------------------------------------------------------------------------------------------------------- */

/* How long the last part of a hash is, by its method (crypt(5)). */
static const struct method {
	const char *prefix;
	size_t tail;
} methods[] = { { "$y$", 43 },    { "$gy$", 43 }, { "$7$", 43 },   { "$2a$", 53 }, { "$2b$", 53 },
	        { "$2y$", 53 }, { "$6$", 86 },  { "$5$", 43 }, { "$sha1$", 28 }, { "$1$", 22 } };

static const char *why_no_hash(const char *hash)
{
	if (hash[0] != '$')
		return "no hash of crypt(3) after the colon: it begins with $, as mkpasswd -m yescrypt writes it";
	const struct method *method = NULL;
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
		if (strncmp(hash, methods[i].prefix, strlen(methods[i].prefix)) == 0)
			method = &methods[i];
	if (method == NULL)
		return "a hash of a kind that crypt(3) doesn't know: $y$, $gy$, $7$, $2b$, $6$, $5$, $sha1$ and $1$ are known";
	int checked = crypt_checksalt(hash);
	if (strlen(strrchr(hash, '$') + 1) != method->tail || checked == CRYPT_SALT_INVALID || checked == CRYPT_SALT_METHOD_DISABLED)
		return "a hash that is cut short or damaged";
	return NULL;
}

/* Splits "user:hash". NULL, or what is wrong. */
static const char *split_line(char *line, char **hash)
{
	char *colon = strchr(line, ':');
	if (colon == NULL)
		return "no colon: write user:hash";
	if (colon == line)
		return "no user before the colon";
	if (colon - line >= AUTH_USER_MAX)
		return "the user's name is too long: at most 255 bytes";
	for (const char *c = line; c < colon; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return "a control character in the user's name";
	*colon = '\0';
	*hash = colon + 1;
	return why_no_hash(*hash);
}

static int compare_users(const void *one, const void *other)
{
	return strcmp(((const struct auth_user *)one)->name, ((const struct auth_user *)other)->name);
}

static const struct auth_user *find_in(const struct auth_user *users, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(users[i].name, name) == 0)
			return &users[i];
	return NULL;
}

static const char *add_user(struct auth *auth, size_t *capacity, const char *name, const char *hash)
{
	if (auth->count == *capacity) {
		size_t more = *capacity == 0 ? 16 : *capacity * 2;
		struct auth_user *grown = realloc(auth->users, more * sizeof *grown);
		if (grown == NULL)
			return "out of memory";
		auth->users = grown;
		*capacity = more;
	}
	struct auth_user *user = &auth->users[auth->count];
	*user = (struct auth_user){ .name = strdup(name), .hash = strdup(hash) };
	auth->count++; /* counted even when it is not whole: it is freed with the others */
	return user->name != NULL && user->hash != NULL ? NULL : "out of memory";
}

/* One line of the file, without its end. NULL, or what is wrong. */
static const char *take_line(struct auth *auth, size_t *capacity, char *line, size_t length)
{
	char *hash = NULL;
	if (strlen(line) != length)
		return "a NUL byte";
	if (line[strspn(line, " \t")] == '\0' || line[0] == '#')
		return NULL;
	const char *why = split_line(line, &hash);
	if (why == NULL && find_in(auth->users, auth->count, line) != NULL)
		why = "this user again";
	return why != NULL ? why : add_user(auth, capacity, line, hash);
}

/* A pipe or a terminal would keep whoever opens it waiting. */
static FILE *open_file(const char *path, char *error, size_t error_size)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) != 0) {
		snprintf(error, error_size, "%s: %s", path, strerror(errno));
	} else if (!S_ISREG(status.st_mode)) {
		snprintf(error, error_size, "%s: not a regular file", path);
	} else {
		FILE *file = fdopen(fd, "r");
		if (file != NULL)
			return file;
		snprintf(error, error_size, "%s: out of memory", path);
	}
	if (fd >= 0)
		close(fd);
	return NULL;
}

static bool read_file(struct auth *auth, const char *path, char *error, size_t error_size)
{
	char line[LINE_MAX_BYTES];
	const char *why = NULL;
	size_t capacity = 0;
	unsigned number = 0;
	FILE *file = open_file(path, error, error_size);
	if (file == NULL)
		return false;
	while (why == NULL) {
		size_t length = 0;
		int c;
		while ((c = fgetc(file)) != EOF && c != '\n' && length < sizeof line - 1)
			line[length++] = (char)c;
		if (c == EOF && length == 0)
			break;
		number++;
		if (length > 0 && line[length - 1] == '\r')
			length--;
		line[length] = '\0';
		why = c != '\n' && c != EOF ? "the line is too long" : take_line(auth, &capacity, line, length);
	}
	bool is_broken = ferror(file) != 0;
	fclose(file);
	explicit_bzero(line, sizeof line);
	if (why != NULL)
		snprintf(error, error_size, "%s:%u: %s", path, number, why);
	else if (is_broken)
		snprintf(error, error_size, "%s: it can't be read", path);
	else if (auth->count == 0)
		snprintf(error, error_size, "%s: no user in it: nobody could come in", path);
	return why == NULL && !is_broken && auth->count > 0;
}

struct auth *auth_create(const char *path, char *error, size_t error_size)
{
	struct auth *auth = calloc(1, sizeof *auth);
	if (auth == NULL || getrandom(auth->secret, sizeof auth->secret, 0) != (ssize_t)sizeof auth->secret ||
	    thread_condition_init(&auth->check_ended) != 0) {
		snprintf(error, error_size, "%s: out of memory", path);
		free(auth);
		return NULL;
	}
	pthread_mutex_init(&auth->mutex, NULL);
	atomic_init(&auth->holders, 1);
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	auth->checks_at_once = cores <= 2 ? 1 : cores - 1 < (long)CHECKS_MAX ? (unsigned)cores - 1 : CHECKS_MAX;
	if (!read_file(auth, path, error, error_size)) {
		auth_release(auth);
		return NULL;
	}
	qsort(auth->users, auth->count, sizeof *auth->users, compare_users);
	return auth;
}

bool auth_check_file(const char *path, char *error, size_t error_size)
{
	struct auth *auth = auth_create(path, error, error_size);
	auth_release(auth);
	return auth != NULL;
}

struct auth *auth_hold(struct auth *auth)
{
	atomic_fetch_add(&auth->holders, 1);
	return auth;
}

void auth_release(struct auth *auth)
{
	if (auth == NULL || atomic_fetch_sub(&auth->holders, 1) > 1)
		return;
	for (size_t i = 0; i < auth->count; i++) {
		free(auth->users[i].name);
		if (auth->users[i].hash != NULL)
			explicit_bzero(auth->users[i].hash, strlen(auth->users[i].hash));
		free(auth->users[i].hash);
	}
	free(auth->users);
	pthread_cond_destroy(&auth->check_ended);
	pthread_mutex_destroy(&auth->mutex);
	explicit_bzero(auth->secret, sizeof auth->secret);
	free(auth);
}

/* ---- Basic ---------------------------------------------------------------------------------------------------------- */

static int digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 §4, and nothing else: no line ends, no missing padding, no bits behind the last byte (two spellings of one secret). */
static bool decode(const char *text, size_t length, char *out, size_t capacity, size_t *out_length)
{
	size_t padding = length >= 2 && text[length - 2] == '=' ? 2 : length >= 1 && text[length - 1] == '=' ? 1 : 0;
	size_t digits = length - padding, bytes = length / 4 * 3 - padding;
	uint32_t bits = 0;
	unsigned held = 0;
	if (length == 0 || length % 4 != 0 || (padding == 2 && text[length - 1] != '=') || bytes >= capacity)
		return false;
	*out_length = 0;
	for (size_t i = 0; i < digits; i++) {
		int digit = digit_of(text[i]);
		if (digit < 0)
			return false;
		bits = (bits << 6 | (uint32_t)digit) & 0xffffffu;
		held += 6;
		if (held >= 8) {
			held -= 8;
			out[(*out_length)++] = (char)(bits >> held);
		}
	}
	out[*out_length] = '\0';
	return (bits & ((1u << held) - 1)) == 0;
}

bool auth_basic(const char *field, size_t length, char *user_password, size_t capacity, size_t *user_length)
{
	static const char scheme[] = "basic";
	size_t at = 0, count = 0;
	for (; at < sizeof scheme - 1; at++)
		if (at >= length || (field[at] | 0x20) != scheme[at])
			return false;
	if (at >= length || field[at] != ' ')
		return false;
	while (at < length && field[at] == ' ')
		at++;
	if (!decode(field + at, length - at, user_password, capacity, &count))
		return false;
	for (size_t i = 0; i < count; i++)
		if ((unsigned char)user_password[i] < ' ' || user_password[i] == 0x7f)
			return false;
	const char *colon = memchr(user_password, ':', count);
	*user_length = colon != NULL ? (size_t)(colon - user_password) : 0;
	return colon != NULL;
}

/* ---- budgets and memory ---------------------------------------------------------------------------------------------- */

/* Is a token left? If not, *wait_us is at least how long it takes until one is. */
static bool has_token(const struct budget *budget, uint64_t tokens, uint64_t token_us, uint64_t now_us, uint64_t *wait_us)
{
	uint64_t ahead_us = budget->spent_until_us > now_us ? budget->spent_until_us - now_us : 0;
	if (ahead_us + token_us <= tokens * token_us)
		return true;
	uint64_t need_us = ahead_us + token_us - tokens * token_us;
	*wait_us = *wait_us > need_us ? *wait_us : need_us;
	return false;
}

static void spend(struct budget *budget, uint64_t token_us, uint64_t now_us)
{
	budget->spent_until_us = (budget->spent_until_us > now_us ? budget->spent_until_us : now_us) + token_us;
}

static void refund(struct budget *budget, uint64_t token_us)
{
	budget->spent_until_us -= budget->spent_until_us > token_us ? token_us : budget->spent_until_us;
}

static struct pair make_pair(const struct auth *auth, const char *user_password)
{
	struct pair pair;
	struct siphash hash;
	siphash_begin(&hash, auth->secret[0]);
	siphash_add(&hash, user_password, strlen(user_password));
	pair.first = siphash_end(&hash);
	siphash_begin(&hash, auth->secret[1]);
	siphash_add(&hash, user_password, strlen(user_password));
	pair.second = siphash_end(&hash);
	return pair;
}

static bool is_same(struct pair one, struct pair other)
{
	return ((one.first ^ other.first) | (one.second ^ other.second)) == 0;
}

static struct memory *recall(struct auth *auth, struct pair pair) REQUIRES(auth_mutex)
{
	struct memory *set = auth->memories[pair.first % SETS];
	for (size_t i = 0; i < SET_PLACES; i++)
		if (set[i].at_us != 0 && is_same(set[i].pair, pair))
			return &set[i];
	return NULL;
}

/* In the place of a wrong one, if there is one, else of the oldest: wrong passwords must not drive out good ones. */
static void remember(struct auth *auth, struct pair pair, bool is_good, uint64_t now_us) REQUIRES(auth_mutex)
{
	struct memory *set = auth->memories[pair.first % SETS], *place = recall(auth, pair);
	for (size_t i = 0; place == NULL && i < SET_PLACES; i++)
		if (set[i].at_us == 0)
			place = &set[i];
	for (size_t i = 0; place == NULL && i < SET_PLACES; i++)
		if (!set[i].is_good)
			place = &set[i];
	if (place == NULL && !is_good)
		return;
	if (place == NULL) {
		place = &set[0];
		for (size_t i = 1; i < SET_PLACES; i++)
			if (set[i].at_us < place->at_us)
				place = &set[i];
	}
	*place = (struct memory){ .pair = pair, .at_us = now_us > 0 ? now_us : 1, .is_good = is_good };
}

/* What is known without a hash: true, and the answer. */
static bool is_known(struct auth *auth, struct pair pair, bool under_attack, uint64_t now_us, enum auth_answer *answer)
	REQUIRES(auth_mutex)
{
	const struct memory *memory = recall(auth, pair);
	if (memory == NULL)
		return false;
	uint64_t age_us = now_us > memory->at_us ? now_us - memory->at_us : 0;
	uint64_t good_for_us = under_attack ? GOOD_UNDER_ATTACK_US : GOOD_FOR_US;
	if (age_us >= (memory->is_good ? good_for_us : WRONG_FOR_US))
		return false;
	*answer = memory->is_good ? AUTH_GOOD : AUTH_WRONG;
	return true;
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

/* As many steps whatever the strings are. */
static bool is_equal(const char *one, const char *other)
{
	size_t length = strlen(one), other_length = strlen(other);
	unsigned char difference = (unsigned char)(length != other_length);
	for (size_t i = 0; i < length; i++)
		difference = (unsigned char)(difference | (unsigned char)(one[i] ^ other[i < other_length ? i : 0]));
	return difference == 0;
}

/* The slow part. crypt_data is 32 KiB: too much for a thread's stack. False: wrong, or out of memory. */
static bool password_fits(const char *password, const char *hash)
{
	struct crypt_data *data = calloc(1, sizeof *data);
	if (data == NULL)
		return false;
	const char *result = crypt_r(password, hash, data);
	bool fits = result != NULL && result[0] != '*' && is_equal(result, hash);
	explicit_bzero(data, sizeof *data);
	free(data);
	return fits;
}

/* One pair on its way through auth_check(). */
struct trial {
	struct auth *auth;
	struct pair pair;
	struct auth_user *user;  /* NULL: there is none of that name */
	struct budget *budget;   /* its */
	const char *password;
	uint64_t now_us;         /* the caller's, and what was slept since */
	uint64_t began_us;       /* by the real clock */
};

static bool is_under_way(const struct auth *auth, struct pair pair) REQUIRES(auth_mutex)
{
	for (unsigned i = 0; i < auth->checks; i++)
		if (is_same(auth->under_way[i], pair))
			return true;
	return false;
}

/* Waits for a free place among the checks, and for the same pair's check under way. True: the caller is to check; false: *answer. */
static bool may_check(struct trial *trial, enum auth_answer *answer, uint64_t *retry_after_us) REQUIRES(auth_mutex)
{
	struct auth *auth = trial->auth;
	uint64_t give_up_us = trial->began_us + WAIT_MAX_US;
	struct timespec until = { .tv_sec = (time_t)(give_up_us / US_PER_S), .tv_nsec = (long)(give_up_us % US_PER_S) * 1000 };
	for (;;) {
		uint64_t now_us = trial->now_us, wait_us = 0;
		if (is_known(auth, trial->pair, false, now_us, answer))
			return false;
		bool is_same_under_way = is_under_way(auth, trial->pair);
		if (!is_same_under_way) {
			bool has_both = has_token(trial->budget, USER_TOKENS, USER_TOKEN_US, now_us, &wait_us);
			has_both = has_token(&auth->all, ALL_TOKENS, ALL_TOKEN_US, now_us, &wait_us) && has_both;
			if (!has_both) {
				*answer = AUTH_LATER;
				*retry_after_us = wait_us;
				is_known(auth, trial->pair, true, now_us, answer);
				return false;
			}
			if (auth->checks < auth->checks_at_once) {
				spend(trial->budget, USER_TOKEN_US, now_us);
				spend(&auth->all, ALL_TOKEN_US, now_us);
				return true;
			}
		}
		uint64_t asleep_us = clock_us();
		if (pthread_cond_timedwait(&auth->check_ended, &auth->mutex, &until) != 0) {
			*answer = AUTH_LATER;
			*retry_after_us = US_PER_S;
			return false;
		}
		trial->now_us += clock_us() - asleep_us;
	}
}

/* The check itself, without the lock. */
static enum auth_answer check(struct trial *trial) REQUIRES(auth_mutex)
{
	struct auth *auth = trial->auth;
	auth->under_way[auth->checks++] = trial->pair;
	auth_unlock(auth);
	bool fits = password_fits(trial->password, trial->user != NULL ? trial->user->hash : auth->users[0].hash);
	bool is_good = fits && trial->user != NULL;
	auth_lock(auth);
	for (unsigned i = 0; i < auth->checks; i++) {
		if (is_same(auth->under_way[i], trial->pair)) {
			auth->under_way[i] = auth->under_way[--auth->checks];
			break;
		}
	}
	if (is_good) {
		refund(trial->budget, USER_TOKEN_US);
		refund(&auth->all, ALL_TOKEN_US);
	}
	remember(auth, trial->pair, is_good, trial->now_us);
	pthread_cond_broadcast(&auth->check_ended);
	return is_good ? AUTH_GOOD : AUTH_WRONG;
}

static void count(struct auth *auth, enum auth_answer answer, bool was_checked) REQUIRES(auth_mutex)
{
	auth->counts.good_total += answer == AUTH_GOOD;
	auth->counts.remembered_total += answer == AUTH_GOOD && !was_checked;
	auth->counts.wrong_total += answer == AUTH_WRONG;
	auth->counts.later_total += answer == AUTH_LATER;
}

enum auth_answer auth_check(struct auth *auth, const char *field, size_t length, uint64_t now_us, char user[AUTH_USER_MAX],
                            uint64_t *retry_after_us)
{
	char user_password[CREDENTIALS_MAX];
	size_t user_length = 0;
	enum auth_answer answer = AUTH_MISSING;
	*retry_after_us = 0;
	if (field == NULL || !auth_basic(field, length, user_password, sizeof user_password, &user_length))
		return AUTH_MISSING;
	struct trial trial = { .auth = auth, .pair = make_pair(auth, user_password), .now_us = now_us, .began_us = clock_us() };
	user_password[user_length] = '\0';
	struct auth_user key = { .name = user_password };
	trial.user = bsearch(&key, auth->users, auth->count, sizeof key, compare_users);
	trial.password = user_password + user_length + 1;
	auth_lock(auth);
	trial.budget = trial.user != NULL ? &trial.user->budget : &auth->unknown;
	bool was_checked = may_check(&trial, &answer, retry_after_us);
	if (was_checked)
		answer = check(&trial);
	count(auth, answer, was_checked);
	auth_unlock(auth);
	if (answer == AUTH_GOOD && user != NULL)
		memcpy(user, user_password, user_length + 1);
	explicit_bzero(user_password, sizeof user_password);
	return answer;
}

void auth_report(struct auth *auth, struct auth_report *report)
{
	auth_lock(auth);
	*report = auth->counts;
	auth_unlock(auth);
}
