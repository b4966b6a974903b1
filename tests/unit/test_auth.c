/* test_auth.c: the file of users, Basic credentials, and what right and wrong passwords cost. */
#include "lib/auth.h"

#include "lib/clock.h"
#include "lib/thread.h"
#include "unit.h"

#include <crypt.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- a gate before each hash, and a clock that can be watched ------------------------------------------------------- */

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool is_shut;
	unsigned came;
} gate = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* Instead of the library's. */
char *crypt_r(const char *phrase, const char *setting, struct crypt_data *data)
{
	pthread_mutex_lock(&gate.mutex);
	gate.came++;
	pthread_cond_broadcast(&gate.changed);
	while (gate.is_shut)
		pthread_cond_wait(&gate.changed, &gate.mutex);
	pthread_mutex_unlock(&gate.mutex);
	return crypt_rn(phrase, setting, data, sizeof *data);
}

static void shut_gate(void)
{
	pthread_mutex_lock(&gate.mutex);
	gate.is_shut = true;
	gate.came = 0;
	pthread_mutex_unlock(&gate.mutex);
}

/* Until somebody stands before it. */
static void await_hash(void)
{
	pthread_mutex_lock(&gate.mutex);
	while (gate.came == 0)
		pthread_cond_wait(&gate.changed, &gate.mutex);
	pthread_mutex_unlock(&gate.mutex);
}

static unsigned hashes_made(void)
{
	pthread_mutex_lock(&gate.mutex);
	unsigned came = gate.came;
	pthread_mutex_unlock(&gate.mutex);
	return came;
}

/* How many have come to it. */
static unsigned open_gate(void)
{
	pthread_mutex_lock(&gate.mutex);
	gate.is_shut = false;
	pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.mutex);
	return hashes_made();
}

static _Thread_local bool looks_are_counted;
static _Thread_local time_t clock_is_behind_s;
static atomic_uint looks;

int clock_gettime(clockid_t clock, struct timespec *now)
{
	long result = syscall(SYS_clock_gettime, clock, now);
	now->tv_sec -= clock_is_behind_s;
	if (looks_are_counted)
		atomic_fetch_add(&looks, 1);
	return (int)result;
}

/* ---- files and users ------------------------------------------------------------------------------------------------ */

/* A file with this text; unlink() it. */
static char *make_file(const char *text, size_t length)
{
	static char path[64];
	snprintf(path, sizeof path, "/tmp/weir-auth-XXXXXX");
	int fd = mkstemp(path);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	CU_ASSERT_EQUAL_FATAL(write(fd, text, length), (ssize_t)length);
	close(fd);
	return path;
}

static struct auth *make_auth(const char *text, char *error, size_t error_size)
{
	char *path = make_file(text, strlen(text));
	struct auth *auth = auth_create(path, error, error_size);
	unlink(path);
	return auth;
}

/* The cheapest of the strong hashes, so that the tests are quick. */
static void hash_of(const char *password, const char *setting, char out[128])
{
	struct crypt_data *data = calloc(1, sizeof *data);
	CU_ASSERT_PTR_NOT_NULL_FATAL(data);
	snprintf(out, 128, "%s", crypt_r(password, setting, data));
	free(data);
}

static struct auth *make_users(void)
{
	char one[128], two[128], text[512], error[256] = "";
	hash_of("wonderland", "$6$rounds=1000$saltsalt$", one);
	hash_of("builder:with:colons", "$5$rounds=1000$othersalt$", two);
	snprintf(text, sizeof text, "# users\n\nalice:%s\r\nbob:%s", one, two);
	struct auth *auth = make_auth(text, error, sizeof error);
	CU_ASSERT_STRING_EQUAL(error, "");
	CU_ASSERT_PTR_NOT_NULL_FATAL(auth);
	return auth;
}

static void encode(const char *text, char out[2048])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t length = strlen(text), at = (size_t)sprintf(out, "Basic ");
	for (size_t i = 0; i < length; i += 3) {
		uint32_t bits = (uint32_t)(unsigned char)text[i] << 16;
		bits |= i + 1 < length ? (uint32_t)(unsigned char)text[i + 1] << 8 : 0;
		bits |= i + 2 < length ? (uint32_t)(unsigned char)text[i + 2] : 0;
		out[at++] = digits[bits >> 18];
		out[at++] = digits[bits >> 12 & 63];
		out[at++] = i + 1 < length ? digits[bits >> 6 & 63] : '=';
		out[at++] = i + 2 < length ? digits[bits & 63] : '=';
	}
	out[at] = '\0';
}

static enum auth_answer try(struct auth *auth, const char *user_password, uint64_t now_us)
{
	char field[2048], user[AUTH_USER_MAX];
	uint64_t retry_after_us;
	encode(user_password, field);
	return auth_check(auth, field, strlen(field), now_us, user, &retry_after_us);
}

static struct auth_report report_of(struct auth *auth)
{
	struct auth_report report;
	auth_report(auth, &report);
	return report;
}

/* ---- the file ------------------------------------------------------------------------------------------------------- */

static void lines_that_are_wrong_are_refused_with_file_and_line(void)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "no user in it" },
		{ "# nobody\n", "no user in it" },
		{ "alice\n", ":1: no colon" },
		{ "# a\n\n:$6$x\n", ":3: no user" },
		{ "alice:secret\n", ":1: no hash" },
		{ "alice:\n", ":1: no hash" },
		{ "alice:*0\n", ":1: no hash" },
		{ "alice:!\n", ":1: no hash" },
		{ "alice:abJnggxhB/yWI\n", ":1: no hash" }, /* DES: two letters of a password look like its salt */
		{ "alice:$apr1$abc$0123456789012345678901\n", ":1: a hash of a kind" },
		{ "alice:$6$saltsalt$short\n", ":1: a hash that is cut short" },
		{ "alice:$6$\n", ":1: a hash that is cut short" },
		{ "al\tice:$6$x\n", ":1: a control character" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char error[256] = "";
		struct auth *auth = make_auth(cases[i].text, error, sizeof error);
		CU_ASSERT_PTR_NULL(auth);
		CU_ASSERT_PTR_NOT_NULL(strstr(error, cases[i].why));
		CU_ASSERT_EQUAL(strncmp(error, "/tmp/weir-auth-", 15), 0);
		if (strstr(error, cases[i].why) == NULL)
			printf("       row %zu: %s\n", i, error);
		auth_release(auth);
	}
}

static void a_file_that_is_not_there_a_user_twice_and_a_nul_are_refused(void)
{
	char error[256] = "", hash[128], text[512];
	CU_ASSERT_FALSE(auth_check_file("/tmp/weir-no-such-file", error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "/tmp/weir-no-such-file: No such file"));
	hash_of("x", "$6$rounds=1000$saltsalt$", hash);
	snprintf(text, sizeof text, "a:%s\nb:%s\na:%s\n", hash, hash, hash);
	CU_ASSERT_PTR_NULL(make_auth(text, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ":3: this user again"));
	snprintf(text, sizeof text, "a:%s", hash);
	char *path = make_file(text, strlen(text) + 1);
	CU_ASSERT_FALSE(auth_check_file(path, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ":1: a NUL byte"));
	unlink(path);
	char *whole = make_file(text, strlen(text));
	CU_ASSERT_TRUE(auth_check_file(whole, error, sizeof error));
	unlink(whole);
}

static void a_users_name_has_at_most_255_bytes(void)
{
	char error[256] = "", hash[128], text[512], name[AUTH_USER_MAX + 1], pair[AUTH_USER_MAX + 2];
	hash_of("x", "$6$rounds=1000$saltsalt$", hash);
	memset(name, 'n', AUTH_USER_MAX);
	name[AUTH_USER_MAX] = '\0';
	snprintf(text, sizeof text, "%s:%s\n", name, hash);
	CU_ASSERT_PTR_NULL(make_auth(text, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ":1: the user's name is too long: at most 255 bytes"));
	snprintf(text, sizeof text, "%s:%s\n", name + 1, hash);
	struct auth *auth = make_auth(text, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(auth);
	snprintf(pair, sizeof pair, "%s:x", name + 1);
	CU_ASSERT_EQUAL(try(auth, pair, 1), AUTH_GOOD);
	auth_release(auth);
}

static void every_kind_of_hash_that_crypt_makes_is_taken(void)
{
	static const char *const kinds[] = { "$y$", "$2b$", "$6$", "$5$", "$1$", "$gy$", "$7$", "$sha1" };
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		char setting[CRYPT_GENSALT_OUTPUT_SIZE], hash[512], text[600], error[256] = "";
		unsigned long cost = strncmp(kinds[i], "$2", 2) == 0 ? 4 : strchr("yg7", kinds[i][1]) != NULL ? 1 : 0;
		if (strncmp(kinds[i], "$7", 2) == 0)
			cost = 6;
		CU_ASSERT_PTR_NOT_NULL_FATAL(crypt_gensalt_rn(kinds[i], cost, NULL, 0, setting, sizeof setting));
		struct crypt_data *data = calloc(1, sizeof *data);
		CU_ASSERT_PTR_NOT_NULL_FATAL(data);
		snprintf(hash, sizeof hash, "%s", crypt_r("pass", setting, data));
		free(data);
		snprintf(text, sizeof text, "u:%s\n", hash);
		struct auth *auth = make_auth(text, error, sizeof error);
		if (auth == NULL)
			printf("       %s: %s\n", hash, error);
		CU_ASSERT_PTR_NOT_NULL_FATAL(auth);
		CU_ASSERT_EQUAL(try(auth, "u:pass", 1), AUTH_GOOD);
		CU_ASSERT_EQUAL(try(auth, "u:Pass", 1), AUTH_WRONG);
		auth_release(auth);
	}
}

/* ---- Basic ---------------------------------------------------------------------------------------------------------- */

static void basic_credentials_are_read_strictly(void)
{
	static const struct {
		const char *field;
		const char *user_password; /* NULL: refused */
	} cases[] = {
		{ "Basic YTpi", "a:b" },
		{ "bAsIc   YTpi", "a:b" },
		{ "Basic YTpiYw==", "a:bc" },
		{ "Basic YTpiY2Q=", "a:bcd" },
		{ "Basic Og==", ":" },
		{ "Basic YWI=", NULL },         /* no colon */
		{ "Basic", NULL },
		{ "Basic ", NULL },
		{ "BasicYTpi", NULL },
		{ "Basi", NULL },
		{ "Bearer YTpi", NULL },
		{ "Basic\tYTpi", NULL },
		{ "Basic YTpi ", NULL },
		{ "Basic YTp", NULL },
		{ "Basic YTpiYw", NULL },
		{ "Basic YTpiYw=", NULL },
		{ "Basic YTpiYx==", NULL },     /* bits behind the last byte */
		{ "Basic YTpiY2R=", NULL },
		{ "Basic ====", NULL },
		{ "Basic Y===", NULL },
		{ "Basic YT=i", NULL },
		{ "Basic YTp-", NULL },
		{ "Basic YTpi\n", NULL },
		{ "Basic YToA", NULL },         /* NUL */
		{ "Basic YToK", NULL },         /* line feed */
		{ "Basic YTp/", NULL },         /* DEL */
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char out[64] = "";
		size_t user_length = 99;
		bool is_good = auth_basic(cases[i].field, strlen(cases[i].field), out, sizeof out, &user_length);
		CU_ASSERT_EQUAL(is_good, cases[i].user_password != NULL);
		if (is_good != (cases[i].user_password != NULL))
			printf("       row %zu: %s\n", i, cases[i].field);
		if (is_good && cases[i].user_password != NULL) {
			CU_ASSERT_STRING_EQUAL(out, cases[i].user_password);
			CU_ASSERT_EQUAL(user_length, strcspn(cases[i].user_password, ":"));
		}
	}
}

static void what_does_not_fit_is_refused(void)
{
	char out[4];
	size_t user_length;
	CU_ASSERT_TRUE(auth_basic("Basic YTpi", 10, out, 4, &user_length));
	CU_ASSERT_FALSE(auth_basic("Basic YTpi", 10, out, 3, &user_length));
	CU_ASSERT_FALSE(auth_basic("Basic YTpiYw==", 14, out, 4, &user_length));
	struct auth *auth = make_users();
	char longest[1400], field[2048];
	memset(longest, 'x', sizeof longest);
	longest[5] = ':';
	longest[sizeof longest - 1] = '\0';
	encode(longest, field);
	uint64_t retry_after_us;
	CU_ASSERT_EQUAL(auth_check(auth, field, strlen(field), 1, NULL, &retry_after_us), AUTH_MISSING);
	auth_release(auth);
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static void right_passwords_come_in_and_wrong_ones_do_not(void)
{
	struct auth *auth = make_users();
	char user[AUTH_USER_MAX] = "", field[2048];
	uint64_t retry_after_us;
	encode("alice:wonderland", field);
	CU_ASSERT_EQUAL(auth_check(auth, field, strlen(field), 1, user, &retry_after_us), AUTH_GOOD);
	CU_ASSERT_STRING_EQUAL(user, "alice");
	CU_ASSERT_EQUAL(try(auth, "bob:builder:with:colons", 1), AUTH_GOOD);
	CU_ASSERT_EQUAL(try(auth, "alice:builder:with:colons", 1), AUTH_WRONG);
	CU_ASSERT_EQUAL(try(auth, "alice:", 1), AUTH_WRONG);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderlan", 1), AUTH_WRONG);
	CU_ASSERT_EQUAL(try(auth, "carol:wonderland", 1), AUTH_WRONG); /* no such user; the hash checked is the first user's */
	CU_ASSERT_EQUAL(try(auth, "aliceX:wonderland", 1), AUTH_WRONG);
	CU_ASSERT_EQUAL(try(auth, "alic:e:wonderland", 1), AUTH_WRONG);
	CU_ASSERT_EQUAL(auth_check(auth, NULL, 0, 1, user, &retry_after_us), AUTH_MISSING);
	CU_ASSERT_EQUAL(auth_check(auth, "Digest x", 8, 1, user, &retry_after_us), AUTH_MISSING);
	auth_release(auth);
}

static void a_good_pair_is_remembered_for_a_minute(void)
{
	struct auth *auth = make_users();
	uint64_t now_us = 1000 * US_PER_S;
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", now_us), AUTH_GOOD);
	CU_ASSERT_EQUAL(report_of(auth).remembered_total, 0);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", now_us + 59 * US_PER_S), AUTH_GOOD);
	CU_ASSERT_EQUAL(report_of(auth).remembered_total, 1);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderlanD", now_us + 59 * US_PER_S), AUTH_WRONG);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", now_us + 61 * US_PER_S), AUTH_GOOD); /* checked again */
	CU_ASSERT_EQUAL(report_of(auth).remembered_total, 1);
	CU_ASSERT_EQUAL(report_of(auth).good_total, 3);
	auth_release(auth);
}

static void wrong_passwords_are_slowed_and_cannot_log_others_out(void)
{
	struct auth *auth = make_users();
	uint64_t now_us = 1000 * US_PER_S;
	unsigned wrong = 0, later = 0;
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", now_us), AUTH_GOOD);
	now_us += 2 * 60 * US_PER_S;
	for (unsigned i = 0; i < 100; i++) {
		char guess[32];
		snprintf(guess, sizeof guess, "alice:guess%u", i);
		enum auth_answer answer = try(auth, guess, now_us);
		wrong += answer == AUTH_WRONG;
		later += answer == AUTH_LATER;
	}
	CU_ASSERT_EQUAL(wrong, 5);
	CU_ASSERT_EQUAL(wrong + later, 100);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", now_us), AUTH_GOOD); /* her minute is over, and she was good lately */
	CU_ASSERT_EQUAL(try(auth, "bob:builder:with:colons", now_us), AUTH_GOOD); /* another's log-in is not slowed */
	char field[2048];
	uint64_t retry_after_us = 0;
	encode("alice:yet another", field);
	for (unsigned i = 0; i < 6; i++)
		try(auth, i % 2 ? "alice:p" : "alice:q", now_us);
	CU_ASSERT_EQUAL(auth_check(auth, field, strlen(field), now_us, NULL, &retry_after_us), AUTH_LATER);
	CU_ASSERT_TRUE(retry_after_us > 0 && retry_after_us <= US_PER_S);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", now_us + 700 * US_PER_S), AUTH_GOOD);
	auth_release(auth);
}

static void the_same_wrong_pair_again_costs_no_hash(void)
{
	struct auth *auth = make_users();
	for (unsigned i = 0; i < 1000; i++)
		CU_ASSERT_EQUAL(try(auth, "alice:old password", 5), AUTH_WRONG);
	CU_ASSERT_EQUAL(try(auth, "alice:wonderland", 5), AUTH_GOOD);
	CU_ASSERT_EQUAL(report_of(auth).wrong_total, 1000);
	CU_ASSERT_EQUAL(report_of(auth).later_total, 0);
	auth_release(auth);
}

static void guesses_at_many_users_are_bounded_together(void)
{
	struct auth *auth = make_users();
	unsigned wrong = 0;
	for (unsigned i = 0; i < 200; i++) {
		char guess[32];
		snprintf(guess, sizeof guess, "nobody%u:x", i);
		wrong += try(auth, guess, 1000) == AUTH_WRONG;
	}
	CU_ASSERT_EQUAL(wrong, 5);
	auth_release(auth);
}

static void wrong_passwords_do_not_drive_good_ones_out_of_memory(void)
{
	enum { USERS = 24 };
	char hash[128], text[4096] = "", pair[64], error[256] = "";
	size_t used = 0;
	uint64_t now_us = US_PER_S;
	hash_of("p", "$1$saltsalt$", hash);
	for (unsigned i = 0; i < USERS; i++)
		used += (size_t)snprintf(text + used, sizeof text - used, "user%u:%s\n", i, hash);
	struct auth *auth = make_auth(text, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(auth);
	for (unsigned i = 0; i < USERS; i++) {
		snprintf(pair, sizeof pair, "user%u:p", i);
		CU_ASSERT_EQUAL(try(auth, pair, now_us), AUTH_GOOD);
	}
	/* As many as the common budget allows, for most of a minute: some in every place of the table. */
	for (unsigned i = 0; i < 580; i++) {
		snprintf(pair, sizeof pair, "user%u:guess%u", i % USERS, i);
		try(auth, pair, now_us + i * 100 * US_PER_MS);
	}
	CU_ASSERT_TRUE(report_of(auth).wrong_total > 500);
	for (unsigned i = 0; i < USERS; i++) {
		snprintf(pair, sizeof pair, "user%u:p", i);
		CU_ASSERT_EQUAL(try(auth, pair, now_us + 58 * US_PER_S), AUTH_GOOD);
	}
	CU_ASSERT_EQUAL(report_of(auth).remembered_total, USERS);
	auth_release(auth);
}

static void of_more_users_than_can_be_remembered_the_last_are(void)
{
	enum { USERS = 1100, LAST = 20 }; /* there is room for 1024 */
	char hash[128], pair[64], error[256] = "";
	char *text = calloc(USERS, sizeof hash);
	size_t used = 0;
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	hash_of("p", "$1$saltsalt$", hash);
	for (unsigned i = 0; i < USERS; i++)
		used += (size_t)snprintf(text + used, USERS * sizeof hash - used, "user%u:%s\n", i, hash);
	struct auth *auth = make_auth(text, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(auth);
	for (unsigned i = 0; i < 2 * USERS; i++) { /* each twice, one after the other */
		snprintf(pair, sizeof pair, "user%u:p", i / 2);
		CU_ASSERT_EQUAL(try(auth, pair, US_PER_S + i), AUTH_GOOD);
	}
	CU_ASSERT_EQUAL(report_of(auth).remembered_total, USERS);
	for (unsigned i = 0; i < 2 * LAST; i++) { /* not where all places are taken by what is right */
		snprintf(pair, sizeof pair, "user%u:guess", i);
		CU_ASSERT_EQUAL(try(auth, pair, (2 + i) * US_PER_S), AUTH_WRONG);
	}
	for (unsigned i = 0; i < USERS; i++) {
		snprintf(pair, sizeof pair, "user%u:p", USERS - 1 - i);
		CU_ASSERT_EQUAL(try(auth, pair, 50 * US_PER_S + i), AUTH_GOOD);
		if (i == LAST - 1)
			CU_ASSERT_EQUAL(report_of(auth).remembered_total, USERS + LAST);
	}
	CU_ASSERT_TRUE(report_of(auth).remembered_total <= USERS + 1024);
	auth_release(auth);
	free(text);
}

struct together {
	struct auth *auth;
	atomic_uint good;
	pthread_barrier_t barrier;
};

static void *together_body(void *argument)
{
	struct together *together = argument;
	pthread_barrier_wait(&together->barrier);
	if (try(together->auth, "alice:wonderland", 1000) == AUTH_GOOD)
		atomic_fetch_add(&together->good, 1);
	return NULL;
}

static void many_at_once_with_one_pair_cost_one_hash(void)
{
	struct together together = { .auth = make_users() };
	pthread_t threads[32];
	pthread_barrier_init(&together.barrier, NULL, 32);
	for (size_t i = 0; i < 32; i++)
		CU_ASSERT_EQUAL_FATAL(thread_start(&threads[i], together_body, &together), 0);
	for (size_t i = 0; i < 32; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(atomic_load(&together.good), 32);
	CU_ASSERT_EQUAL(report_of(together.auth).remembered_total, 31);
	pthread_barrier_destroy(&together.barrier);
	auth_release(together.auth);
}

struct caller {
	struct auth *auth;
	enum auth_answer answer;
	bool is_watched; /* its looks at the clock are counted */
};

static void *caller_body(void *argument)
{
	struct caller *caller = argument;
	looks_are_counted = caller->is_watched;
	caller->answer = try(caller->auth, "alice:wonderland", 1000);
	return NULL;
}

/* A check of alice's password by another thread is held up in its hash. */
static pthread_t begin_slow_check(struct caller *caller)
{
	pthread_t thread;
	shut_gate();
	CU_ASSERT_EQUAL_FATAL(thread_start(&thread, caller_body, caller), 0);
	await_hash();
	return thread;
}

static void who_waits_for_a_check_of_the_same_pair_gets_its_answer(void)
{
	struct caller first = { .auth = make_users() }, second = { .auth = first.auth, .is_watched = true };
	pthread_t thread, waiting;
	char guess[32];
	/* The first of the two has the last token of alice's: for a hash of its own the second would have to come again later. */
	for (unsigned i = 0; i < 4; i++) {
		snprintf(guess, sizeof guess, "alice:%u", i);
		CU_ASSERT_EQUAL(try(first.auth, guess, 1000), AUTH_WRONG);
	}
	atomic_store(&looks, 0);
	thread = begin_slow_check(&first);
	CU_ASSERT_EQUAL_FATAL(thread_start(&waiting, caller_body, &second), 0);
	/* At its beginning, and when it goes to sleep: it holds the lock then, and lets go of it only in its sleep. */
	while (atomic_load(&looks) < 2)
		sched_yield();
	CU_ASSERT_EQUAL(report_of(first.auth).good_total, 0);
	CU_ASSERT_EQUAL(open_gate(), 1);
	pthread_join(thread, NULL);
	pthread_join(waiting, NULL);
	CU_ASSERT_EQUAL(first.answer, AUTH_GOOD);
	CU_ASSERT_EQUAL(second.answer, AUTH_GOOD);
	CU_ASSERT_EQUAL(report_of(first.auth).remembered_total, 1);
	CU_ASSERT_EQUAL(hashes_made(), 1);
	auth_release(first.auth);
}

/* It came three seconds ago by its clock, and two are as long as anybody waits. */
static void who_has_waited_too_long_for_a_check_is_told_to_come_again(void)
{
	struct caller first = { .auth = make_users() };
	char field[2048];
	uint64_t retry_after_us = 0;
	pthread_t thread = begin_slow_check(&first);
	encode("alice:wonderland", field);
	clock_is_behind_s = 3;
	CU_ASSERT_EQUAL(auth_check(first.auth, field, strlen(field), 1000, NULL, &retry_after_us), AUTH_LATER);
	clock_is_behind_s = 0;
	CU_ASSERT_EQUAL(retry_after_us, US_PER_S);
	CU_ASSERT_EQUAL(report_of(first.auth).later_total, 1);
	CU_ASSERT_EQUAL(open_gate(), 1);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(first.answer, AUTH_GOOD);
	CU_ASSERT_EQUAL(try(first.auth, "alice:wonderland", 1000), AUTH_GOOD);
	CU_ASSERT_EQUAL(hashes_made(), 1);
	auth_release(first.auth);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(lines_that_are_wrong_are_refused_with_file_and_line),
		TEST(a_file_that_is_not_there_a_user_twice_and_a_nul_are_refused),
		TEST(a_users_name_has_at_most_255_bytes),
		TEST(every_kind_of_hash_that_crypt_makes_is_taken),
		TEST(basic_credentials_are_read_strictly),
		TEST(what_does_not_fit_is_refused),
		TEST(right_passwords_come_in_and_wrong_ones_do_not),
		TEST(a_good_pair_is_remembered_for_a_minute),
		TEST(wrong_passwords_are_slowed_and_cannot_log_others_out),
		TEST(the_same_wrong_pair_again_costs_no_hash),
		TEST(guesses_at_many_users_are_bounded_together),
		TEST(wrong_passwords_do_not_drive_good_ones_out_of_memory),
		TEST(of_more_users_than_can_be_remembered_the_last_are),
		TEST(many_at_once_with_one_pair_cost_one_hash),
		TEST(who_waits_for_a_check_of_the_same_pair_gets_its_answer),
		TEST(who_has_waited_too_long_for_a_check_is_told_to_come_again),
	};
	return unit_main("auth", tests, sizeof tests / sizeof tests[0]);
}
