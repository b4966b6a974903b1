/* test_redis_store.c: caps and starts shared through a real Redis, which each test starts for itself on a Unix socket in a folder
 * of its own, with a time to live that is short enough to see it run out.
 *
 * Several stores in one process are as many workers: they share nothing but Redis. The one that is killed is a process. What
 * takes time in Redis (a counter that expires, a scan) is waited for with a deadline: the test asks until it is so.
 *
 * redis_calls.c is compiled here once more with a strdup() that fails when the test says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_bool copies_fail;

static char *scarce_strdup(const char *text)
{
	return atomic_load(&copies_fail) ? NULL : strdup(text);
}

#undef strdup
#define strdup scarce_strdup
#include "lib/redis_calls.c"
#undef strdup

#include "lib/hosts.h"
#include "lib/redis_store.h"
#include "lib/thread.h"
#include "unit.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Instead of the system's, which would ask somebody elsewhere: there is no such name. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	(void)node;
	(void)service;
	(void)hints;
	*result = NULL;
	return EAI_NONAME;
}

/* This machine has a name that would divide a key into too many parts. */
int gethostname(char *name, size_t size)
{
	snprintf(name, size, "box_7:prod.example");
	return 0;
}

#define SOON_US (10 * US_PER_S) /* a deadline for what should come at once */
#define WORKERS 3

/* ---- a Redis of one's own --------------------------------------------------------------------------------------------- */

struct server {
	char folder[64];
	char path[96];
	char address[128];
	const char *password;
	pid_t pid;
	redisContext *client; /* the test's own connection */
};

/* A moment, between two looks at something that takes time elsewhere. */
static void a_moment(void)
{
	poll(NULL, 0, 5);
}

static void connect_client(struct server *server)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	for (;;) {
		server->client = redisConnectUnix(server->path);
		if (server->client != NULL && server->client->err == 0) {
			redisSetTimeout(server->client, (struct timeval){ .tv_sec = 10 });
			if (server->password != NULL)
				freeReplyObject(redisCommand(server->client, "AUTH %s", server->password));
			redisReply *reply = redisCommand(server->client, "PING");
			bool is_ready = reply != NULL && reply->type == REDIS_REPLY_STATUS;
			freeReplyObject(reply);
			if (is_ready)
				return;
		}
		redisFree(server->client);
		CU_ASSERT_TRUE_FATAL(clock_us() < deadline_us);
		a_moment();
	}
}

static void start_server(struct server *server)
{
	server->pid = fork();
	CU_ASSERT_TRUE_FATAL(server->pid >= 0);
	if (server->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that crashes leaves no server behind */
		int nowhere = open("/dev/null", O_RDWR);
		dup2(nowhere, 1);
		dup2(nowhere, 2);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", server->path, "--dir", server->folder, "--save", "",
		       server->password != NULL ? "--requirepass" : NULL, server->password, NULL);
		_exit(127);
	}
	connect_client(server);
}

static void stop_server(struct server *server)
{
	redisFree(server->client);
	server->client = NULL;
	kill(server->pid, SIGKILL);
	waitpid(server->pid, NULL, 0);
	unlink(server->path);
}

static struct server *make_server(const char *password)
{
	struct server *server = calloc(1, sizeof *server);
	CU_ASSERT_PTR_NOT_NULL_FATAL(server);
	snprintf(server->folder, sizeof server->folder, "/tmp/weir-redis-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(server->folder));
	snprintf(server->path, sizeof server->path, "%s/socket", server->folder);
	snprintf(server->address, sizeof server->address, "unix:%s", server->path);
	server->password = password;
	start_server(server);
	return server;
}

static void end_server(struct server *server)
{
	char dump[96];
	stop_server(server);
	snprintf(dump, sizeof dump, "%s/dump.rdb", server->folder);
	unlink(dump);
	rmdir(server->folder);
	free(server);
}

/* The integer that a command answers, the length of a string or an array; -1 for nothing, -2 for an error. */
static long long ask(struct server *server, const char *format, ...) PRINTF_LIKE(2, 3);
static long long ask(struct server *server, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	redisReply *reply = redisvCommand(server->client, format, arguments);
	va_end(arguments);
	long long result = -2;
	if (reply != NULL && reply->type == REDIS_REPLY_INTEGER)
		result = reply->integer;
	else if (reply != NULL && reply->type == REDIS_REPLY_STRING)
		result = strtoll(reply->str, NULL, 10);
	else if (reply != NULL && reply->type == REDIS_REPLY_ARRAY)
		result = (long long)reply->elements;
	else if (reply != NULL && reply->type == REDIS_REPLY_NIL)
		result = -1;
	else if (reply != NULL && reply->type == REDIS_REPLY_STATUS)
		result = 1;
	freeReplyObject(reply);
	return result;
}

/* ---- stores --------------------------------------------------------------------------------------------------------- */

struct heard {
	atomic_uint lost, back;
	char why[REDIS_WHY_MAX], first_why[REDIS_WHY_MAX];
};

static void hear_state(void *context, bool is_up, const char *why)
{
	struct heard *heard = context;
	if (!is_up)
		snprintf(heard->why, sizeof heard->why, "%s", why);
	if (!is_up && atomic_load(&heard->lost) == 0)
		snprintf(heard->first_why, sizeof heard->first_why, "%s", why);
	atomic_fetch_add(is_up ? &heard->back : &heard->lost, 1);
}

static struct redis_store_options options_for(const struct server *server)
{
	return (struct redis_store_options){ .address = server->address,
		                             .password = server->password,
		                             .settle_us = 400 * US_PER_MS,
		                             .deadline_us = 2 * US_PER_S };
}

static struct redis_store *make_store(const struct redis_store_options *options, struct heard *heard)
{
	struct redis_store_watch watch = { hear_state, heard };
	struct redis_store *store = redis_store_create(options, heard != NULL ? &watch : NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(store);
	return store;
}

/* As the road does: what settles is asked again. */
static enum redis_store_answer take(struct redis_store *store, const char *host, unsigned cap)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	struct redis_store_result result;
	enum redis_store_answer answer;
	while ((answer = redis_store_take(store, host, cap, false, &result)) == REDIS_STORE_SETTLING && clock_us() < deadline_us)
		a_moment();
	return answer;
}

/* Asks until the answer is this one. */
static bool take_until(struct redis_store *store, const char *host, unsigned cap, enum redis_store_answer wanted, uint64_t within_us)
{
	uint64_t deadline_us = clock_us() + within_us;
	for (;;) {
		enum redis_store_answer answer = take(store, host, cap);
		if (answer == wanted)
			return true;
		if (answer == REDIS_STORE_GRANTED)
			redis_store_give(store, host, 1);
		if (clock_us() >= deadline_us)
			return false;
		a_moment();
	}
}

/* ---- places --------------------------------------------------------------------------------------------------------- */

struct attempt {
	struct redis_store *store;
	pthread_barrier_t *barrier;
	enum redis_store_answer answer;
	pthread_t thread;
};

static void *attempt_body(void *argument)
{
	struct attempt *attempt = argument;
	pthread_barrier_wait(attempt->barrier);
	attempt->answer = take(attempt->store, "api.example", 5);
	return NULL;
}

static void two_hundred_attempts_at_once_over_three_workers_get_what_the_cap_allows(void)
{
	enum { ATTEMPTS = 200 };
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *stores[WORKERS];
	static struct attempt attempts[ATTEMPTS];
	pthread_barrier_t barrier;
	for (size_t i = 0; i < WORKERS; i++)
		stores[i] = make_store(&options, NULL);
	pthread_barrier_init(&barrier, NULL, ATTEMPTS);
	for (size_t i = 0; i < ATTEMPTS; i++) {
		attempts[i] = (struct attempt){ .store = stores[i % WORKERS], .barrier = &barrier };
		CU_ASSERT_EQUAL_FATAL(thread_start(&attempts[i].thread, attempt_body, &attempts[i]), 0);
	}
	unsigned granted = 0, full = 0;
	for (size_t i = 0; i < ATTEMPTS; i++) {
		pthread_join(attempts[i].thread, NULL);
		granted += attempts[i].answer == REDIS_STORE_GRANTED;
		full += attempts[i].answer == REDIS_STORE_FULL;
	}
	CU_ASSERT_EQUAL(granted, 5);
	CU_ASSERT_EQUAL(full, ATTEMPTS - 5);
	CU_ASSERT_EQUAL(ask(server, "EVAL %s 0", "local s = 0 for _, k in ipairs(redis.call('KEYS', 'proxy_rate_limiter:api.example:*')) do "
	                                         "s = s + redis.call('GET', k) end return s"), 5);
	for (size_t i = 0; i < WORKERS; i++)
		redis_store_destroy(stores[i]);
	pthread_barrier_destroy(&barrier);
	end_server(server);
}

struct crowd {
	struct redis_store *stores[WORKERS];
	atomic_uint number, open, most, granted;
};

static void *crowd_body(void *argument)
{
	struct crowd *crowd = argument;
	struct redis_store *store = crowd->stores[atomic_fetch_add(&crowd->number, 1) % WORKERS];
	for (unsigned i = 0; i < 100; i++) {
		if (take(store, "api.example:8443", 4) != REDIS_STORE_GRANTED)
			continue;
		unsigned open = atomic_fetch_add(&crowd->open, 1) + 1, most = atomic_load(&crowd->most);
		while (open > most && !atomic_compare_exchange_weak(&crowd->most, &most, open))
			;
		atomic_fetch_add(&crowd->granted, 1);
		sched_yield();
		atomic_fetch_sub(&crowd->open, 1);
		redis_store_give(store, "api.example:8443", 1);
	}
	return NULL;
}

static void workers_that_come_and_go_never_pass_the_cap_and_leave_no_keys(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct crowd crowd = { .open = 0 };
	pthread_t threads[24];
	for (size_t i = 0; i < WORKERS; i++)
		crowd.stores[i] = make_store(&options, NULL);
	for (size_t i = 0; i < 24; i++)
		CU_ASSERT_EQUAL_FATAL(thread_start(&threads[i], crowd_body, &crowd), 0);
	for (size_t i = 0; i < 24; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_TRUE(atomic_load(&crowd.most) <= 4);
	CU_ASSERT_TRUE(atomic_load(&crowd.most) >= 2);
	CU_ASSERT_TRUE(atomic_load(&crowd.granted) > 50);
	uint64_t deadline_us = clock_us() + SOON_US;
	while (ask(server, "KEYS proxy_rate_limiter:*") > 0 && clock_us() < deadline_us)
		a_moment();
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 0);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter_index:*"), 0);
	for (size_t i = 0; i < WORKERS; i++)
		redis_store_destroy(crowd.stores[i]);
	end_server(server);
}

static void counters_have_the_form_and_the_time_to_live_of_the_contract_and_are_removed_at_the_end(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_report report;
	CU_ASSERT_EQUAL(take(store, "example.com", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(take(store, "example.com", 5), REDIS_STORE_GRANTED);
	redis_store_report(store, &report);
	CU_ASSERT_EQUAL(ask(server, "GET proxy_rate_limiter:example.com:%s", report.worker_id), 2);
	long long ttl_ms = ask(server, "PTTL proxy_rate_limiter:example.com:%s", report.worker_id);
	CU_ASSERT_TRUE(ttl_ms > 15000 && ttl_ms <= 30000);
	CU_ASSERT_EQUAL(strncmp(report.worker_id, "box-7-prod-example-", 19), 0);
	redis_store_give(store, "example.com", 1);
	CU_ASSERT_EQUAL(ask(server, "GET proxy_rate_limiter:example.com:%s", report.worker_id), 1);
	CU_ASSERT_EQUAL(redis_store_live_workers(store, "example.com"), 1);
	redis_store_destroy(store);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 0);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter_index:*"), 0);
	CU_ASSERT_EQUAL(ask(server, "ZCARD proxy_rate_limiter_workers"), 0);
	end_server(server);
}

static void the_places_of_a_worker_that_was_killed_come_back_when_its_time_to_live_is_over(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	options.ttl_us = 1500 * US_PER_MS;
	int done[2];
	CU_ASSERT_EQUAL_FATAL(pipe(done), 0);
	pid_t pid = fork();
	CU_ASSERT_TRUE_FATAL(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		struct redis_store *doomed = redis_store_create(&options, NULL);
		char verdict = 'y';
		for (unsigned i = 0; i < 5; i++)
			if (take(doomed, "a", 5) != REDIS_STORE_GRANTED)
				verdict = 'n';
		if (write(done[1], &verdict, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	char verdict = '?';
	CU_ASSERT_EQUAL(read(done[0], &verdict, 1), 1);
	CU_ASSERT_EQUAL(verdict, 'y');
	struct redis_store *store = make_store(&options, NULL);
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_FULL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	uint64_t killed_us = clock_us();
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_FULL);
	CU_ASSERT_TRUE(take_until(store, "a", 5, REDIS_STORE_GRANTED, options.ttl_us + US_PER_S / 2));
	CU_ASSERT_TRUE(clock_us() - killed_us <= options.ttl_us + US_PER_S / 2);
	for (unsigned i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_FULL);
	redis_store_destroy(store);
	close(done[0]);
	close(done[1]);
	end_server(server);
}

static void a_place_that_is_held_for_long_is_renewed(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	options.ttl_us = 900 * US_PER_MS;
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_report report;
	CU_ASSERT_EQUAL(take(store, "a", 1), REDIS_STORE_GRANTED);
	redis_store_report(store, &report);
	unsigned renewals = 0;
	long long before = 1000000;
	uint64_t deadline_us = clock_us() + SOON_US;
	while (renewals < 4 && clock_us() < deadline_us) {
		long long left_ms = ask(server, "PTTL proxy_rate_limiter:a:%s", report.worker_id);
		CU_ASSERT_TRUE_FATAL(left_ms > 0);
		renewals += left_ms > before;
		before = left_ms;
	}
	CU_ASSERT_EQUAL(renewals, 4); /* more than one time to live has passed, and the counter was there at each look */
	redis_store_destroy(store);
	end_server(server);
}

/* Is a letter about the host under way? */
static bool is_busy(struct redis_store *store, const char *host)
{
	bool busy = false;
	redis_store_lock(store);
	for (size_t i = 0; i < REDIS_ACCOUNT_BUCKETS; i++)
		for (const struct redis_account *account = store->accounts[i]; account != NULL; account = account->next)
			busy = busy || (account->is_busy && strcmp(account->name, host) == 0);
	redis_store_unlock(store);
	return busy;
}

/* Many workers without a place make a letter slow enough to meet it under way. Who gives a place back meanwhile leaves
   the news to whoever wrote the letter, and that may be the keeper. */
static void a_place_given_back_during_a_letter_of_the_keeper_is_told_at_once(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	/* It is somebody else's turn to look for foreign workers: so many of them would keep the keeper busy. */
	CU_ASSERT_EQUAL(ask(server, "SET proxy_rate_limiter_scan other PX 600000"), 1);
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_report report;
	static const char make_workers[] = "for i = 1, 20000 do redis.call('SET', 'proxy_rate_limiter:a:w' .. i, '0') "
					   "redis.call('HSET', 'proxy_rate_limiter_index:a', 'w' .. i, '0 0') end "
					   "return 1";
	CU_ASSERT_EQUAL(ask(server, "EVAL %s 0", make_workers), 1);
	CU_ASSERT_EQUAL(take(store, "a", 40), REDIS_STORE_GRANTED);
	redis_store_report(store, &report);
	for (unsigned i = 0; i < 8; i++) {
		CU_ASSERT_EQUAL(take(store, "a", 40), REDIS_STORE_GRANTED);
		uint64_t deadline_us = clock_us() + SOON_US;
		redis_store_tell(store, "a");
		while (!is_busy(store, "a") && clock_us() < deadline_us)
			poll(NULL, 0, 1);
		CU_ASSERT_TRUE(is_busy(store, "a"));
		redis_store_give(store, "a", 1);
		deadline_us = clock_us() + 5 * US_PER_S; /* half of the time to the next renewal */
		while (ask(server, "GET proxy_rate_limiter:a:%s", report.worker_id) != 1 && clock_us() < deadline_us)
			a_moment();
		CU_ASSERT_EQUAL_FATAL(ask(server, "GET proxy_rate_limiter:a:%s", report.worker_id), 1);
	}
	redis_store_destroy(store);
	end_server(server);
}

static void foreign_counters_are_seen_within_two_seconds(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	/* Among many keys that are none of ours. */
	CU_ASSERT_EQUAL(ask(server, "EVAL %s 0", "for i = 1, 50000 do redis.call('SET', 'key:' .. i, i) end return redis.call('DBSIZE')"), 50000);
	CU_ASSERT_EQUAL(take(store, "a:8080", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "EVAL %s 1 proxy_rate_limiter:a:8080:foreign-1",
	                    "redis.call('INCRBY', KEYS[1], 3) return redis.call('EXPIRE', KEYS[1], 30)"), 1);
	ask(server, "SET proxy_rate_limiter:a:8080:nonsense many");
	ask(server, "LPUSH proxy_rate_limiter:a:8080:list 1");
	uint64_t written_us = clock_us();
	CU_ASSERT_TRUE(take_until(store, "a:8080", 4, REDIS_STORE_FULL, 2 * US_PER_S));
	CU_ASSERT_TRUE(clock_us() - written_us < 2 * US_PER_S);
	CU_ASSERT_EQUAL(redis_store_live_workers(store, "a:8080"), 2); /* the other sends no heartbeat, and has places there */
	CU_ASSERT_EQUAL(redis_store_live_workers(store, "elsewhere"), 1);
	CU_ASSERT_EQUAL(take(store, "a:8080", 5), REDIS_STORE_GRANTED); /* 1 + 3 + 1 */
	CU_ASSERT_EQUAL(take(store, "a:8080", 5), REDIS_STORE_FULL);
	CU_ASSERT_EQUAL(ask(server, "DECR proxy_rate_limiter:a:8080:foreign-1"), 2);
	CU_ASSERT_EQUAL(take(store, "a:8080", 5), REDIS_STORE_GRANTED);
	ask(server, "DEL proxy_rate_limiter:a:8080:foreign-1");
	CU_ASSERT_EQUAL(take(store, "a:8080", 5), REDIS_STORE_GRANTED);
	redis_store_destroy(store);
	end_server(server);
}

static void keys_are_split_into_host_and_worker(void)
{
	static const struct {
		const char *key, *host, *worker;
	} cases[] = {
		{ "proxy_rate_limiter:a.example:w1", "a.example", "w1" },
		{ "proxy_rate_limiter:a.example:8443:w1", "a.example:8443", "w1" },
		{ "proxy_rate_limiter:a.example:w1:2", "a.example", "w1:2" },
		{ "proxy_rate_limiter:a.example:1234", "a.example", "1234" },
		{ "proxy_rate_limiter:[::1]:w", "[::1]", "w" },
		{ "proxy_rate_limiter:[2001:db8::1]:8080:w:3", "[2001:db8::1]:8080", "w:3" },
		{ "proxy_rate_limiter:a", NULL, NULL },
		{ "proxy_rate_limiter::w", NULL, NULL },
		{ "proxy_rate_limiter:a:", NULL, NULL },
		{ "proxy_rate_limiter:[::1", NULL, NULL },
		{ "something:a:w", NULL, NULL },
		{ "", NULL, NULL },
	};
	char host[HOSTS_NAME_MAX], worker[REDIS_ID_MAX * 2];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		bool is_one = redis_split_key(cases[i].key, strlen(cases[i].key), host, worker);
		CU_ASSERT_EQUAL(is_one, cases[i].host != NULL);
		if (is_one && cases[i].host != NULL) {
			CU_ASSERT_STRING_EQUAL(host, cases[i].host);
			CU_ASSERT_STRING_EQUAL(worker, cases[i].worker);
		}
	}
}

static void await_at_least(atomic_uint *count, unsigned wanted)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	while (atomic_load(count) < wanted && clock_us() < deadline_us)
		a_moment();
	CU_ASSERT_TRUE(atomic_load(count) >= wanted);
}

/* ---- Redis that goes away and comes back -------------------------------------------------------------------------------- */

static void await(atomic_uint *count, unsigned wanted)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	while (atomic_load(count) < wanted && clock_us() < deadline_us)
		a_moment();
	CU_ASSERT_EQUAL(atomic_load(count), wanted);
}

static void a_redis_that_was_killed_is_met_again_and_told_what_is_open(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard[2] = { { .lost = 0 }, { .lost = 0 } };
	struct redis_store *one = make_store(&options, &heard[0]), *two = make_store(&options, &heard[1]);
	struct redis_store_result result;
	await(&heard[0].back, 1);
	await(&heard[1].back, 1);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(take(one, "a", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(take(two, "a", 5), REDIS_STORE_GRANTED);
	stop_server(server);
	await(&heard[0].lost, 1);
	await(&heard[1].lost, 1);
	uint64_t began_us = clock_us();
	CU_ASSERT_EQUAL(redis_store_take(one, "a", 5, false, &result), REDIS_STORE_DOWN);
	CU_ASSERT_TRUE(clock_us() - began_us < US_PER_S); /* known to be down: not even the deadline is waited for */
	/* What happens meanwhile counts. */
	redis_store_give(one, "a", 1);
	CU_ASSERT_TRUE(redis_store_assume(two, "a", 5));
	CU_ASSERT_TRUE(redis_store_assume(two, "b", 5));
	start_server(server);
	/* Empty as it is, nothing is granted before all have told what they have: 2 and 2 of 5. */
	CU_ASSERT_TRUE(take_until(two, "a", 5, REDIS_STORE_GRANTED, SOON_US));
	CU_ASSERT_EQUAL(take(two, "a", 5), REDIS_STORE_FULL);
	CU_ASSERT_EQUAL(take(one, "a", 5), REDIS_STORE_FULL);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:b:*"), 1);
	await(&heard[0].back, 2);
	await(&heard[1].back, 2);
	CU_ASSERT_EQUAL(atomic_load(&heard[0].lost), 1); /* said once */
	CU_ASSERT_EQUAL(atomic_load(&heard[1].lost), 1);
	redis_store_destroy(one);
	redis_store_destroy(two);
	end_server(server);
}

static void a_redis_that_comes_back_with_an_old_file_is_told_the_truth(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard[2] = { { .lost = 0 }, { .lost = 0 } };
	struct redis_store *one = make_store(&options, &heard[0]), *two = make_store(&options, &heard[1]);
	CU_ASSERT_EQUAL(take(one, "a", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "SAVE"), 1); /* it remembers one place, and not those that follow */
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(take(one, "a", 5), REDIS_STORE_GRANTED);
	stop_server(server);
	await(&heard[0].lost, 1);
	await(&heard[1].lost, 1);
	start_server(server);
	CU_ASSERT_TRUE(take_until(two, "a", 5, REDIS_STORE_GRANTED, SOON_US));
	CU_ASSERT_EQUAL(take(two, "a", 5), REDIS_STORE_FULL);
	redis_store_destroy(one);
	redis_store_destroy(two);
	end_server(server);
}

static void a_redis_that_was_emptied_grants_nothing_before_all_have_told_what_they_have(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *one = make_store(&options, NULL), *two = make_store(&options, NULL);
	struct redis_store_result result;
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(take(one, "a", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "FLUSHALL"), 1);
	enum redis_store_answer at_once = redis_store_take(two, "a", 5, false, &result);
	CU_ASSERT_TRUE(at_once == REDIS_STORE_SETTLING || at_once == REDIS_STORE_FULL);
	CU_ASSERT_EQUAL(take(two, "a", 5), REDIS_STORE_FULL);
	CU_ASSERT_EQUAL(ask(server, "SCRIPT FLUSH"), 1);
	CU_ASSERT_EQUAL(take(two, "a", 6), REDIS_STORE_GRANTED);
	redis_store_destroy(one);
	redis_store_destroy(two);
	end_server(server);
}

/* Asks once. A place that was granted is given back. */
static enum redis_store_answer ask_once(struct redis_store *store, uint64_t *wait_us)
{
	struct redis_store_result result;
	enum redis_store_answer answer = redis_store_take(store, "a", 5, false, &result);
	if (answer == REDIS_STORE_GRANTED)
		redis_store_give(store, "a", 1);
	*wait_us = result.wait_us;
	return answer;
}

static void nothing_is_granted_while_an_empty_or_another_redis_settles(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	options.settle_us = 60 * US_PER_S;
	struct redis_store *store = make_store(&options, NULL);
	uint64_t wait_us = 0;
	CU_ASSERT_EQUAL(ask_once(store, &wait_us), REDIS_STORE_SETTLING);
	CU_ASSERT_TRUE(wait_us > 40 * US_PER_S && wait_us <= 60 * US_PER_S);
	/* It has had the truth for long, as far as the mark says. */
	CU_ASSERT_EQUAL(ask(server, "SET proxy_rate_limiter_born %s", "1 -"), 1);
	CU_ASSERT_EQUAL(ask_once(store, &wait_us), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "FLUSHALL"), 1);
	CU_ASSERT_EQUAL(ask_once(store, &wait_us), REDIS_STORE_SETTLING);
	/* A mark of another run: an old file was loaded. The next heartbeat finds out. */
	CU_ASSERT_EQUAL(ask(server, "SET proxy_rate_limiter_born %s", "1 0123456789abcdef"), 1);
	enum redis_store_answer answer = REDIS_STORE_GRANTED;
	for (uint64_t deadline_us = clock_us() + SOON_US; answer == REDIS_STORE_GRANTED && clock_us() < deadline_us;)
		answer = ask_once(store, &wait_us);
	CU_ASSERT_EQUAL(answer, REDIS_STORE_SETTLING);
	redis_store_destroy(store);
	end_server(server);
}

static void a_redis_that_hangs_costs_no_more_than_the_deadline(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store_result result;
	options.deadline_us = 300 * US_PER_MS;
	struct redis_store *store = make_store(&options, &heard);
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_GRANTED);
	kill(server->pid, SIGSTOP);
	uint64_t began_us = clock_us();
	CU_ASSERT_EQUAL(redis_store_take(store, "a", 5, false, &result), REDIS_STORE_DOWN);
	CU_ASSERT_TRUE(clock_us() - began_us < options.deadline_us + US_PER_S);
	kill(server->pid, SIGCONT);
	CU_ASSERT_TRUE(take_until(store, "a", 5, REDIS_STORE_GRANTED, SOON_US));
	/* The letter that hung may have been read after all: the counter is the truth again. */
	struct redis_store_report report;
	redis_store_report(store, &report);
	CU_ASSERT_EQUAL(ask(server, "GET proxy_rate_limiter:a:%s", report.worker_id), 2);
	CU_ASSERT_TRUE(report.failures_total >= 1);
	redis_store_destroy(store);
	end_server(server);
}

static void passwords_and_databases_are_kept_to(void)
{
	struct server *server = make_server("open sesame");
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	options.password = "wrong";
	struct redis_store *store = make_store(&options, &heard);
	struct redis_store_result result;
	await(&heard.lost, 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(heard.why, "WRONGPASS"));
	CU_ASSERT_PTR_NULL(strstr(heard.why, "wrong")); /* never printed */
	CU_ASSERT_EQUAL(redis_store_take(store, "a", 5, false, &result), REDIS_STORE_DOWN);
	options.password = server->password;
	options.database = 3;
	CU_ASSERT_EQUAL(redis_store_configure(store, &options), 0);
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 0);
	ask(server, "SELECT 3");
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 1);
	/* Another database: what is open moves. */
	options.database = 4;
	CU_ASSERT_EQUAL(redis_store_configure(store, &options), 0);
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 0);
	ask(server, "SELECT 4");
	CU_ASSERT_EQUAL(ask(server, "EVAL %s 0", "return tonumber(redis.call('GET', redis.call('KEYS', 'proxy_rate_limiter:a:*')[1]))"), 2);
	options.address = NULL;
	CU_ASSERT_EQUAL(redis_store_configure(store, &options), 0);
	CU_ASSERT_EQUAL(redis_store_take(store, "a", 5, false, &result), REDIS_STORE_OFF);
	redis_store_destroy(store);
	end_server(server);
}

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

static enum redis_store_answer start_one(struct redis_store *store, const char *name)
{
	struct redis_store_start start;
	uint64_t wait_us;
	enum redis_store_answer answer;
	uint64_t deadline_us = clock_us() + SOON_US;
	while ((answer = redis_store_start(store, name, 1000, 50 * US_PER_MS, 0, &start, &wait_us)) == REDIS_STORE_SETTLING &&
	       clock_us() < deadline_us)
		a_moment();
	return answer;
}

static bool starts_again(struct redis_store *store, const char *name)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	while (start_one(store, name) != REDIS_STORE_GRANTED)
		if (clock_us() >= deadline_us)
			return false;
	return true;
}

/* As if so many calls more were under way. */
static void be_busy(struct redis_store *store, int change)
{
	redis_store_lock(store);
	store->lines_out += (unsigned)change;
	pthread_cond_broadcast(&store->state_changed);
	redis_store_unlock(store);
}

static void a_call_that_finds_all_connections_busy_gives_up_at_its_deadline(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	options.deadline_us = US_PER_S;
	struct redis_store *store = make_store(&options, &heard);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	be_busy(store, REDIS_LINES_MAX);
	uint64_t began_us = clock_us();
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_DOWN);
	CU_ASSERT_TRUE(clock_us() - began_us >= options.deadline_us);
	CU_ASSERT_STRING_EQUAL(heard.first_why, "all connections to it are busy");
	be_busy(store, -(int)REDIS_LINES_MAX);
	CU_ASSERT_TRUE(starts_again(store, "svc"));
	redis_store_destroy(store);
	end_server(server);
}

static void *start_body(void *store)
{
	static enum redis_store_answer answer;
	answer = start_one(store, "svc");
	return &answer;
}

static void a_call_that_finds_all_connections_busy_takes_the_first_that_comes_back(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	options.deadline_us = SOON_US;
	struct redis_store *store = make_store(&options, NULL);
	pthread_t thread;
	void *answer;
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	be_busy(store, REDIS_LINES_MAX);
	CU_ASSERT_EQUAL_FATAL(thread_start(&thread, start_body, store), 0);
	a_moment();
	be_busy(store, -1);
	pthread_join(thread, &answer);
	CU_ASSERT_EQUAL(*(enum redis_store_answer *)answer, REDIS_STORE_GRANTED);
	be_busy(store, 1 - (int)REDIS_LINES_MAX);
	redis_store_destroy(store);
	end_server(server);
}

/* The number of the connection that was made last: the first word of each line is its number. */
static long long last_connection(struct server *server)
{
	long long last = 0;
	redisReply *reply = redisCommand(server->client, "CLIENT LIST");
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	for (const char *at = reply->str; at != NULL && *at != '\0'; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, "id=", 3) == 0 && strtoll(at + 3, NULL, 10) > last)
			last = strtoll(at + 3, NULL, 10);
	}
	freeReplyObject(reply);
	return last;
}

static void a_connection_that_redis_closed_while_it_was_idle_is_no_loss(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_report report;
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(ask(server, "CLIENT KILL ID %lld", last_connection(server)), 1);
		CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	}
	redis_store_report(store, &report);
	CU_ASSERT_EQUAL(report.failures_total, 0);
	CU_ASSERT_EQUAL(report.losses_total, 0);
	redis_store_destroy(store);
	end_server(server);
}

static void an_error_of_redis_is_a_loss_that_says_which(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard);
	CU_ASSERT_EQUAL(start_one(store, "other"), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "SET proxy_rate_limiter_starts:svc %s", "somebody's"), 1);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_DOWN);
	CU_ASSERT_PTR_NOT_NULL(strstr(heard.first_why, "WRONGTYPE"));
	CU_ASSERT_EQUAL(ask(server, "DEL proxy_rate_limiter_starts:svc"), 1);
	CU_ASSERT_TRUE(starts_again(store, "svc"));
	redis_store_destroy(store);
	end_server(server);
}

static void a_script_that_answers_something_else_is_a_loss(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	redisReply *reply = redisCommand(server->client, "SCRIPT LOAD %s", "return 1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	redis_store_lock(store);
	snprintf(store->sha[SCRIPT_START], REDIS_SHA_MAX, "%s", reply->str);
	redis_store_unlock(store);
	freeReplyObject(reply);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_DOWN);
	CU_ASSERT_STRING_EQUAL(heard.first_why, "an odd reply");
	redis_store_destroy(store);
	end_server(server);
}

static void a_redis_that_has_forgotten_the_scripts_gets_their_text(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_report report;
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	CU_ASSERT_EQUAL(ask(server, "SCRIPT FLUSH"), 1);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	redis_store_report(store, &report);
	CU_ASSERT_EQUAL(report.failures_total, 0);
	redis_store_destroy(store);
	end_server(server);
}

static void out_of_memory_for_the_password_nobody_logs_in_without_it(void)
{
	struct server *server = make_server("open sesame");
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard);
	CU_ASSERT_TRUE(redis_store_wait_up(store, clock_us() + SOON_US));
	atomic_store(&copies_fail, true);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_DOWN);
	CU_ASSERT_STRING_EQUAL(heard.first_why, "out of memory");
	atomic_store(&copies_fail, false);
	CU_ASSERT_TRUE(starts_again(store, "svc"));
	/* A connection that is there needs none. */
	atomic_store(&copies_fail, true);
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_GRANTED);
	atomic_store(&copies_fail, false);
	redis_store_destroy(store);
	end_server(server);
}

static void a_number_that_is_not_in_a_reply_is_nought(void)
{
	redisReply below = { .type = REDIS_REPLY_INTEGER, .integer = -5 }, above = { .type = REDIS_REPLY_INTEGER, .integer = 7 };
	redisReply text = { .type = REDIS_REPLY_STRING }, *elements[] = { &below, &above, &text };
	redisReply reply = { .type = REDIS_REPLY_ARRAY, .elements = 3, .element = elements };
	CU_ASSERT_EQUAL(redis_number(&reply, 0), 0);
	CU_ASSERT_EQUAL(redis_number(&reply, 1), 7);
	CU_ASSERT_EQUAL(redis_number(&reply, 2), 0);
	CU_ASSERT_EQUAL(redis_number(&reply, 3), 0);
	CU_ASSERT_EQUAL(redis_number(&above, 0), 0);
}

static void the_same_options_again_change_nothing(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard);
	struct redis_store_report before, after;
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_GRANTED);
	await(&heard.back, 1);
	const char *received = "return tonumber(string.match(redis.call('INFO', 'stats'), 'total_connections_received:(%d+)'))";
	long long connections = ask(server, "EVAL %s 0", received);
	CU_ASSERT_TRUE(connections > 0);
	redis_store_report(store, &before);
	for (unsigned i = 0; i < 20; i++) {
		char address[128];
		snprintf(address, sizeof address, "%s", server->address);
		struct redis_store_options again = options;
		again.address = address;
		CU_ASSERT_EQUAL(redis_store_configure(store, &again), 0);
		CU_ASSERT_EQUAL(ask(server, "GET proxy_rate_limiter:a:%s", before.worker_id), 1);
	}
	CU_ASSERT_EQUAL(take(store, "a", 5), REDIS_STORE_GRANTED);
	redis_store_report(store, &after);
	CU_ASSERT_EQUAL(ask(server, "EVAL %s 0", received), connections); /* nobody has connected anew */
	CU_ASSERT_EQUAL(after.refused_while_down_total, 0);
	redis_store_destroy(store);
	end_server(server);
}

/* Of a Redis that lets its users do everything but this. */
static void expect_loss_without(const char *command, const char *why)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	options.deadline_us = SOON_US; /* a slow machine is no loss of another kind */
	CU_ASSERT_EQUAL(ask(server, "ACL SETUSER default -%s", command), 1);
	struct redis_store *store = make_store(&options, &heard);
	await_at_least(&heard.lost, 1);
	CU_ASSERT_EQUAL(strncmp(heard.first_why, why, strlen(why)), 0);
	if (strncmp(heard.first_why, why, strlen(why)) != 0)
		printf("       -%s: %s\n", command, heard.first_why);
	CU_ASSERT_EQUAL(ask(server, "ACL SETUSER default +%s", command), 1);
	CU_ASSERT_TRUE(take_until(store, "a", 1, REDIS_STORE_GRANTED, SOON_US));
	redis_store_destroy(store);
	end_server(server);
}

static void a_redis_without_subscribe_or_scan_is_down_and_says_so(void)
{
	expect_loss_without("subscribe", "SUBSCRIBE: NOPERM");
	expect_loss_without("scan", "SCAN: NOPERM");
}

static void a_redis_whose_name_is_unknown_is_down_and_says_so(void)
{
	struct redis_store_options options = { .address = "no.test:6379", .deadline_us = 2 * US_PER_S };
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard);
	await(&heard.lost, 1);
	CU_ASSERT_STRING_EQUAL(heard.first_why, gai_strerror(EAI_NONAME));
	CU_ASSERT_EQUAL(start_one(store, "svc"), REDIS_STORE_DOWN);
	redis_store_destroy(store);
}

/* ---- starts --------------------------------------------------------------------------------------------------------- */

struct starter {
	struct redis_store *store;
	uint64_t until_us;
	uint64_t *times;
	atomic_uint *count;
	pthread_t thread;
};

#define STARTS_MOST 4096u

static void *starter_body(void *argument)
{
	struct starter *starter = argument;
	while (clock_us() < starter->until_us) {
		struct redis_store_start start;
		uint64_t wait_us = 0;
		enum redis_store_answer answer = redis_store_start(starter->store, "svc", 20, 200 * US_PER_MS, 20 * US_PER_MS, &start, &wait_us);
		if (answer == REDIS_STORE_GRANTED) {
			uint64_t now_us = clock_us();
			unsigned at = atomic_fetch_add(starter->count, 1);
			if (at < STARTS_MOST)
				starter->times[at] = now_us;
			redis_store_started(starter->store, &start);
		} else {
			struct timespec wait = { .tv_nsec = (long)(wait_us % US_PER_S) * 1000 };
			ppoll(NULL, 0, &wait, NULL);
		}
	}
	return NULL;
}

static int compare_times(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
	return a < b ? -1 : a > b;
}

static void no_window_holds_more_starts_than_the_threshold_over_three_workers(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	static uint64_t times[STARTS_MOST];
	struct starter starters[6];
	struct redis_store *stores[WORKERS];
	atomic_uint count = 0;
	for (size_t i = 0; i < WORKERS; i++) {
		stores[i] = make_store(&options, NULL);
		CU_ASSERT_TRUE(redis_store_wait_up(stores[i], clock_us() + SOON_US));
	}
	for (size_t i = 0; i < 6; i++) {
		starters[i] = (struct starter){ .store = stores[i % WORKERS], .until_us = clock_us() + 2500 * US_PER_MS,
			                        .times = times, .count = &count };
		CU_ASSERT_EQUAL_FATAL(thread_start(&starters[i].thread, starter_body, &starters[i]), 0);
	}
	for (size_t i = 0; i < 6; i++)
		pthread_join(starters[i].thread, NULL);
	unsigned total = atomic_load(&count);
	qsort(times, total, sizeof *times, compare_times);
	unsigned crowded = 0;
	for (unsigned i = 20; i < total; i++)
		crowded += times[i] - times[i - 20] < 200 * US_PER_MS;
	CU_ASSERT_EQUAL(crowded, 0);
	CU_ASSERT_TRUE(total > 40); /* of 250: enough for a window to be crowded, on any machine */
	for (size_t i = 0; i < WORKERS; i++)
		redis_store_destroy(stores[i]);
	end_server(server);
}

static void a_start_that_was_sent_late_holds_its_slot_from_then_on(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_start start, second;
	uint64_t wait_us = 0, before_us = 0, deadline_us = clock_us() + SOON_US;
	while (redis_store_start(store, "svc", 1, 60 * US_PER_S, 20 * US_PER_MS, &start, &wait_us) != REDIS_STORE_GRANTED &&
	       clock_us() < deadline_us)
		a_moment();
	a_moment();
	CU_ASSERT_EQUAL(redis_store_start(store, "svc", 1, 60 * US_PER_S, 20 * US_PER_MS, &second, &before_us), REDIS_STORE_FULL);
	start.asked_us -= 2 * US_PER_S;
	do { /* what is not moved is waited for ever less */
		redis_store_started(store, &start);
		CU_ASSERT_EQUAL(redis_store_start(store, "svc", 1, 60 * US_PER_S, 20 * US_PER_MS, &second, &wait_us), REDIS_STORE_FULL);
	} while (wait_us <= before_us && clock_us() < deadline_us);
	CU_ASSERT_TRUE(wait_us > before_us);
	redis_store_destroy(store);
	end_server(server);
}

static void a_start_that_is_cancelled_gives_its_slot_back(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct redis_store_start start, second;
	uint64_t wait_us = 0, deadline_us = clock_us() + SOON_US;
	while (redis_store_start(store, "svc", 1, 60 * US_PER_S, 0, &start, &wait_us) != REDIS_STORE_GRANTED &&
	       clock_us() < deadline_us)
		a_moment();
	CU_ASSERT_EQUAL(redis_store_start(store, "svc", 1, 60 * US_PER_S, 0, &second, &wait_us), REDIS_STORE_FULL);
	CU_ASSERT_TRUE(wait_us > 50 * US_PER_S && wait_us <= 60 * US_PER_S);
	CU_ASSERT_EQUAL(redis_store_start(store, "other", 1, 60 * US_PER_S, 0, &second, &wait_us), REDIS_STORE_GRANTED);
	redis_store_cancel(store, &start);
	CU_ASSERT_EQUAL(redis_store_start(store, "svc", 1, 60 * US_PER_S, 0, &second, &wait_us), REDIS_STORE_GRANTED);
	redis_store_destroy(store);
	end_server(server);
}

/* ---- with hosts ------------------------------------------------------------------------------------------------------ */

static struct hosts *make_hosts(struct redis_store *store, unsigned cap, enum hosts_fail fail)
{
	struct hosts_settings settings = { .default_cap = cap, .when_store_is_down = fail };
	struct hosts *hosts = hosts_create(&settings, store, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(hosts);
	return hosts;
}

static enum hosts_answer lease(struct hosts *hosts, uint64_t wait_us, struct hosts_lease *out)
{
	uint64_t now_us = clock_us();
	struct hosts_wish wish = { .name = "a", .port = 80, .now_us = now_us, .client_fd = -1, .idle_max_us = 60 * US_PER_S };
	wish.wait_until_us = wait_us > 0 ? now_us + wait_us : 0;
	return hosts_lease(hosts, &wish, out);
}

static void an_idle_connection_of_another_worker_is_closed_when_its_place_is_needed(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *stores[2] = { make_store(&options, NULL), make_store(&options, NULL) };
	struct hosts *hosts[2] = { make_hosts(stores[0], 1, HOSTS_FAIL_CLOSED), make_hosts(stores[1], 1, HOSTS_FAIL_CLOSED) };
	struct hosts_lease held, other;
	struct hosts_totals totals;
	int pair[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	CU_ASSERT_EQUAL(lease(hosts[0], 0, &held), HOSTS_PLACE);
	hosts_keep(hosts[0], &held, pair[0], clock_us());
	enum hosts_answer answer = HOSTS_FULL;
	for (uint64_t deadline_us = clock_us() + SOON_US; answer == HOSTS_FULL && clock_us() < deadline_us;)
		answer = lease(hosts[1], 0, &other);
	CU_ASSERT_EQUAL(answer, HOSTS_PLACE);
	char byte;
	CU_ASSERT_EQUAL(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
	hosts_report(hosts[0], NULL, 0, &totals);
	CU_ASSERT_EQUAL(totals.open, 0);
	hosts_end(hosts[1], &other);
	for (size_t i = 0; i < 2; i++) {
		hosts_destroy(hosts[i]);
		redis_store_destroy(stores[i]);
	}
	close(pair[1]);
	end_server(server);
}

static void workers_that_take_turns_at_a_cap_are_not_refused_for_what_lies_idle(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *stores[2] = { make_store(&options, NULL), make_store(&options, NULL) };
	struct hosts *hosts[2] = { make_hosts(stores[0], 1, HOSTS_FAIL_CLOSED), make_hosts(stores[1], 1, HOSTS_FAIL_CLOSED) };
	unsigned refused = 0;
	int other[20];
	for (unsigned i = 0; i < 20; i++) {
		struct hosts_lease held;
		int pair[2];
		CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		other[i] = pair[1];
		enum hosts_answer answer = lease(hosts[i % 2], 0, &held);
		if (answer == HOSTS_IDLE)
			close(held.fd);
		if (answer == HOSTS_PLACE || answer == HOSTS_IDLE) {
			hosts_keep(hosts[i % 2], &held, pair[0], clock_us());
		} else {
			refused++;
			close(pair[0]);
		}
	}
	CU_ASSERT(refused <= 4); /* none, on a machine that is not too slow */
	for (size_t i = 0; i < 2; i++) {
		hosts_destroy(hosts[i]);
		redis_store_destroy(stores[i]);
	}
	for (unsigned i = 0; i < 20; i++)
		close(other[i]);
	end_server(server);
}

struct late {
	struct hosts *hosts;
	struct hosts_lease lease;
	enum hosts_answer answer;
	uint64_t served_us;
};

static void *late_body(void *argument)
{
	struct late *late = argument;
	late->answer = lease(late->hosts, SOON_US, &late->lease);
	late->served_us = clock_us();
	return NULL;
}

/* Until the other end is closed. */
static bool is_closed_soon(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	char byte;
	return poll(&poller, 1, (int)(SOON_US / US_PER_MS)) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* A connection to this host is idle; the other end. */
static int keep_one_idle(struct hosts *hosts, const char *name)
{
	uint64_t now_us = clock_us();
	struct hosts_wish wish = { .name = name, .port = 80, .now_us = now_us, .client_fd = -1 };
	wish.wait_until_us = now_us + SOON_US;
	struct hosts_lease held;
	int pair[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	CU_ASSERT_EQUAL_FATAL(hosts_lease(hosts, &wish, &held), HOSTS_PLACE);
	hosts_keep(hosts, &held, pair[0], clock_us());
	return pair[1];
}

/* The store hears of all workers' hosts, and somebody else may write to the channel, too. */
static void what_is_said_of_unknown_hosts_or_makes_no_sense_is_passed_over(void)
{
	static const char *const events[] = { "wanted", "wanted other", "", " ", "free other unknown", "wanted other unknown",
		                              "nonsense other a", "wanted other b" };
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct hosts *hosts = make_hosts(store, 2, HOSTS_FAIL_CLOSED);
	struct redis_store_report report;
	int a = keep_one_idle(hosts, "a"), b = keep_one_idle(hosts, "b");
	redis_store_report(store, &report);
	CU_ASSERT_EQUAL(ask(server, "PUBLISH " REDIS_EVENTS " %s%s%s", "wanted ", report.worker_id, " a"), 1); /* its own word */
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
		CU_ASSERT_EQUAL(ask(server, "PUBLISH " REDIS_EVENTS " %s", events[i]), 1);
	CU_ASSERT_TRUE(is_closed_soon(b)); /* the last of them: all have been heard */
	CU_ASSERT_EQUAL(hosts_open(hosts, "a"), 1);
	CU_ASSERT_EQUAL(ask(server, "PUBLISH " REDIS_EVENTS " %s", "wanted other a"), 1);
	CU_ASSERT_TRUE(is_closed_soon(a));
	hosts_destroy(hosts);
	redis_store_destroy(store);
	close(a);
	close(b);
	end_server(server);
}

/* Other workers need not be asked for what this one has itself. */
static void an_own_idle_connection_gives_its_place_to_one_that_it_does_not_suit(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct hosts *hosts = make_hosts(store, 1, HOSTS_FAIL_CLOSED);
	struct hosts_lease held;
	struct hosts_wish wish = { .name = "a", .port = 443, .client_fd = -1, .idle_max_us = 60 * US_PER_S };
	int idle = keep_one_idle(hosts, "a"); /* to port 80 */
	wish.now_us = clock_us();
	CU_ASSERT_EQUAL(hosts_lease(hosts, &wish, &held), HOSTS_PLACE);
	CU_ASSERT_TRUE(is_closed_soon(idle));
	CU_ASSERT_EQUAL(hosts_open(hosts, "a"), 1);
	hosts_end(hosts, &held);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 0);
	hosts_destroy(hosts);
	redis_store_destroy(store);
	close(idle);
	end_server(server);
}

/* Once Redis knows of it, who comes is held for it, whether it was refused in vain just now or not. */
static void one_that_comes_is_held_for_a_connection_that_another_worker_is_known_to_keep_idle(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *stores[2] = { make_store(&options, NULL), make_store(&options, NULL) };
	struct hosts *hosts[2] = { make_hosts(stores[0], 1, HOSTS_FAIL_CLOSED), make_hosts(stores[1], 1, HOSTS_FAIL_CLOSED) };
	struct hosts_lease other;
	struct redis_store_report report;
	const char *knows = "return string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', ' 1$') and 1 or 0";
	long long is_known = 0;
	int idle = keep_one_idle(hosts[0], "a");
	redis_store_report(stores[0], &report);
	for (uint64_t deadline_us = clock_us() + SOON_US; is_known != 1 && clock_us() < deadline_us; a_moment())
		is_known = ask(server, "EVAL %s 1 " REDIS_INDEX "a %s", knows, report.worker_id);
	CU_ASSERT_EQUAL(is_known, 1);
	CU_ASSERT_TRUE(redis_store_wait_up(stores[1], clock_us() + SOON_US));
	enum hosts_answer answer = HOSTS_FULL;
	for (uint64_t deadline_us = clock_us() + SOON_US; answer == HOSTS_FULL && clock_us() < deadline_us;)
		answer = lease(hosts[1], 0, &other);
	CU_ASSERT_EQUAL(answer, HOSTS_PLACE);
	CU_ASSERT_TRUE(is_closed_soon(idle));
	hosts_end(hosts[1], &other);
	for (size_t i = 0; i < 2; i++) {
		hosts_destroy(hosts[i]);
		redis_store_destroy(stores[i]);
	}
	close(idle);
	end_server(server);
}

/* Without a cap nobody counts; with one, what was opened before counts as well. */
static void a_host_that_gets_a_cap_tells_redis_what_is_open_already(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL), *second = make_store(&options, NULL);
	struct hosts *hosts = make_hosts(store, 0, HOSTS_FAIL_CLOSED);
	struct hosts_lease held[2];
	for (size_t i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(lease(hosts, 0, &held[i]), HOSTS_PLACE);
	CU_ASSERT_TRUE(take_until(second, "a", 1, REDIS_STORE_GRANTED, SOON_US)); /* Redis knows nothing of the two */
	redis_store_give(second, "a", 1);
	CU_ASSERT_EQUAL(hosts_set_cap(hosts, "a", 3), 0);
	CU_ASSERT_TRUE(take_until(second, "a", 2, REDIS_STORE_FULL, SOON_US));
	CU_ASSERT_EQUAL(take(second, "a", 3), REDIS_STORE_GRANTED);
	redis_store_give(second, "a", 1);
	for (size_t i = 0; i < 2; i++)
		hosts_end(hosts, &held[i]);
	CU_ASSERT_TRUE(take_until(second, "a", 1, REDIS_STORE_GRANTED, SOON_US));
	redis_store_give(second, "a", 1);
	hosts_destroy(hosts);
	redis_store_destroy(store);
	redis_store_destroy(second);
	end_server(server);
}

static void one_that_waits_hears_of_a_place_that_came_free_at_another_worker(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *stores[2] = { make_store(&options, NULL), make_store(&options, NULL) };
	struct hosts *hosts[2] = { make_hosts(stores[0], 1, HOSTS_FAIL_CLOSED), make_hosts(stores[1], 1, HOSTS_FAIL_CLOSED) };
	uint64_t total_us = 0;
	for (unsigned i = 0; i < 5; i++) {
		struct hosts_lease held;
		struct late late = { .hosts = hosts[1] };
		struct hosts_totals totals = { .waiting = 0 };
		pthread_t thread;
		CU_ASSERT_EQUAL(lease(hosts[0], SOON_US, &held), HOSTS_PLACE);
		CU_ASSERT_EQUAL_FATAL(thread_start(&thread, late_body, &late), 0);
		while (totals.waiting == 0)
			hosts_report(hosts[1], NULL, 0, &totals);
		uint64_t freed_us = clock_us();
		hosts_end(hosts[0], &held);
		pthread_join(thread, NULL);
		CU_ASSERT_EQUAL(late.answer, HOSTS_PLACE);
		total_us += late.served_us - freed_us;
		hosts_end(hosts[1], &late.lease);
	}
	CU_ASSERT_TRUE(total_us < 2500 * US_PER_MS); /* by the event: asking once a second would take longer */
	for (size_t i = 0; i < 2; i++) {
		hosts_destroy(hosts[i]);
		redis_store_destroy(stores[i]);
	}
	end_server(server);
}

static void those_that_are_held_while_an_empty_redis_settles_are_served(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct redis_store *store = make_store(&options, NULL);
	struct hosts *hosts = make_hosts(store, 2, HOSTS_FAIL_CLOSED);
	struct hosts_lease held[3];
	CU_ASSERT_EQUAL(lease(hosts, 0, &held[0]), HOSTS_PLACE); /* with no wait asked for */
	CU_ASSERT_EQUAL(lease(hosts, 0, &held[1]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(lease(hosts, 0, &held[2]), HOSTS_FULL);
	CU_ASSERT_EQUAL(held[2].count, 2);
	hosts_end(hosts, &held[0]);
	hosts_end(hosts, &held[1]);
	CU_ASSERT_EQUAL(ask(server, "KEYS proxy_rate_limiter:*"), 0);
	hosts_destroy(hosts);
	redis_store_destroy(store);
	end_server(server);
}

/* How many of ten get a place while Redis is down, and what the eleventh is told. */
static unsigned places_while_down(enum hosts_fail fail, unsigned cap, enum hosts_answer *refusal)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard), *second = make_store(&options, NULL);
	struct hosts *hosts = make_hosts(store, cap, fail);
	struct hosts_lease held[10];
	unsigned granted = 0;
	uint64_t deadline_us = clock_us() + SOON_US;
	while (redis_store_live_workers(store, "a") < 2 && clock_us() < deadline_us)
		a_moment();
	stop_server(server);
	await(&heard.lost, 1);
	for (unsigned i = 0; i < 10; i++) {
		enum hosts_answer answer = lease(hosts, 0, &held[i]);
		granted += answer == HOSTS_PLACE;
		if (answer != HOSTS_PLACE)
			*refusal = answer;
	}
	/* Back again: it is told of all of them. */
	start_server(server);
	CU_ASSERT_TRUE(redis_store_wait_up(store, clock_us() + SOON_US));
	CU_ASSERT_TRUE(take_until(second, "a", granted + 1, REDIS_STORE_GRANTED, SOON_US));
	CU_ASSERT_EQUAL(take(second, "a", granted + 1), REDIS_STORE_FULL);
	for (unsigned i = 0; i < 10; i++)
		hosts_end(hosts, &held[i]);
	hosts_destroy(hosts);
	redis_store_destroy(store);
	redis_store_destroy(second);
	end_server(server);
	return granted;
}

static void while_redis_is_down_closed_local_and_open_do_as_they_say(void)
{
	enum hosts_answer refusal = HOSTS_PLACE;
	CU_ASSERT_EQUAL(places_while_down(HOSTS_FAIL_CLOSED, 6, &refusal), 0);
	CU_ASSERT_EQUAL(refusal, HOSTS_STORE_DOWN);
	CU_ASSERT_EQUAL(places_while_down(HOSTS_FAIL_LOCAL, 6, &refusal), 3); /* of two workers */
	CU_ASSERT_EQUAL(refusal, HOSTS_FULL);
	CU_ASSERT_EQUAL(places_while_down(HOSTS_FAIL_LOCAL, 1, &refusal), 1);
	CU_ASSERT_EQUAL(places_while_down(HOSTS_FAIL_OPEN, 6, &refusal), 6);
	CU_ASSERT_EQUAL(refusal, HOSTS_FULL);
}

static void while_redis_is_down_closed_uses_no_idle_connection_either(void)
{
	struct server *server = make_server(NULL);
	struct redis_store_options options = options_for(server);
	struct heard heard = { .lost = 0 };
	struct redis_store *store = make_store(&options, &heard);
	struct hosts *hosts = make_hosts(store, 2, HOSTS_FAIL_CLOSED);
	struct hosts_lease held;
	int pair[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	CU_ASSERT_EQUAL(lease(hosts, 0, &held), HOSTS_PLACE);
	hosts_keep(hosts, &held, pair[0], clock_us());
	stop_server(server);
	await(&heard.lost, 1);
	CU_ASSERT_EQUAL(lease(hosts, 0, &held), HOSTS_STORE_DOWN);
	start_server(server);
	CU_ASSERT_TRUE(redis_store_wait_up(store, clock_us() + SOON_US));
	CU_ASSERT_EQUAL(lease(hosts, 0, &held), HOSTS_IDLE);
	CU_ASSERT_EQUAL(held.fd, pair[0]);
	close(pair[0]);
	close(pair[1]);
	hosts_end(hosts, &held);
	hosts_destroy(hosts);
	redis_store_destroy(store);
	end_server(server);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(two_hundred_attempts_at_once_over_three_workers_get_what_the_cap_allows),
		TEST(workers_that_come_and_go_never_pass_the_cap_and_leave_no_keys),
		TEST(counters_have_the_form_and_the_time_to_live_of_the_contract_and_are_removed_at_the_end),
		TEST(the_places_of_a_worker_that_was_killed_come_back_when_its_time_to_live_is_over),
		TEST(a_place_that_is_held_for_long_is_renewed),
		TEST(a_place_given_back_during_a_letter_of_the_keeper_is_told_at_once),
		TEST(foreign_counters_are_seen_within_two_seconds),
		TEST(keys_are_split_into_host_and_worker),
		TEST(a_redis_that_was_killed_is_met_again_and_told_what_is_open),
		TEST(a_redis_that_comes_back_with_an_old_file_is_told_the_truth),
		TEST(a_redis_that_was_emptied_grants_nothing_before_all_have_told_what_they_have),
		TEST(nothing_is_granted_while_an_empty_or_another_redis_settles),
		TEST(a_redis_that_hangs_costs_no_more_than_the_deadline),
		TEST(passwords_and_databases_are_kept_to),
		TEST(a_call_that_finds_all_connections_busy_gives_up_at_its_deadline),
		TEST(a_call_that_finds_all_connections_busy_takes_the_first_that_comes_back),
		TEST(a_connection_that_redis_closed_while_it_was_idle_is_no_loss),
		TEST(an_error_of_redis_is_a_loss_that_says_which),
		TEST(a_script_that_answers_something_else_is_a_loss),
		TEST(a_redis_that_has_forgotten_the_scripts_gets_their_text),
		TEST(out_of_memory_for_the_password_nobody_logs_in_without_it),
		TEST(a_number_that_is_not_in_a_reply_is_nought),
		TEST(the_same_options_again_change_nothing),
		TEST(a_redis_without_subscribe_or_scan_is_down_and_says_so),
		TEST(a_redis_whose_name_is_unknown_is_down_and_says_so),
		TEST(no_window_holds_more_starts_than_the_threshold_over_three_workers),
		TEST(a_start_that_was_sent_late_holds_its_slot_from_then_on),
		TEST(a_start_that_is_cancelled_gives_its_slot_back),
		TEST(an_idle_connection_of_another_worker_is_closed_when_its_place_is_needed),
		TEST(workers_that_take_turns_at_a_cap_are_not_refused_for_what_lies_idle),
		TEST(what_is_said_of_unknown_hosts_or_makes_no_sense_is_passed_over),
		TEST(an_own_idle_connection_gives_its_place_to_one_that_it_does_not_suit),
		TEST(one_that_comes_is_held_for_a_connection_that_another_worker_is_known_to_keep_idle),
		TEST(a_host_that_gets_a_cap_tells_redis_what_is_open_already),
		TEST(one_that_waits_hears_of_a_place_that_came_free_at_another_worker),
		TEST(those_that_are_held_while_an_empty_redis_settles_are_served),
		TEST(while_redis_is_down_closed_local_and_open_do_as_they_say),
		TEST(while_redis_is_down_closed_uses_no_idle_connection_either),
	};
	signal(SIGPIPE, SIG_IGN); /* the test's own client, which is all of hiredis, writes with it */
	return unit_main("redis_store", tests, sizeof tests / sizeof tests[0]);
}
