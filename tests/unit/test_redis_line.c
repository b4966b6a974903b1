/* test_redis_line.c: one connection to Redis, over which a thread of the test answers what the test says, right or wrong.
 *
 * redis_line.c is compiled here once more with memory that is lacking when the test says so. What a real Redis does with the
 * commands is in test_redis_store.c.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

static struct {
	unsigned calls;  /* of those that need memory, so far */
	unsigned failing; /* the number of the one that fails; 0: none */
} memory;

#define FAILS (++memory.calls == memory.failing)

static void *scarce_calloc(size_t count, size_t size)
{
	return FAILS ? NULL : calloc(count, size);
}

static redisReader *scarce_reader(void)
{
	return FAILS ? (errno = ENOMEM, NULL) : redisReaderCreate();
}

static int scarce_format(char **out, int count, const char **words, const size_t *lengths)
{
	return FAILS ? -1 : redisFormatCommandArgv(out, count, words, lengths);
}

#define calloc scarce_calloc
#define redisReaderCreate scarce_reader
#define redisFormatCommandArgv scarce_format
#include "lib/redis_line.c"
#undef calloc
#undef redisReaderCreate
#undef redisFormatCommandArgv

#include "lib/listener.h"
#include "lib/thread.h"
#include "unit.h"

#define SOON (clock_us() + 10 * US_PER_S)

/* ---- the other side ---------------------------------------------------------------------------------------------- */

#define ANSWERS_MAX 4

/* It hears, says the next of these, and hears again; after the last it closes. An empty one is left out: it closes with what it
   has not read. */
static const char *answers[ANSWERS_MAX];
static char heard[4096];
static int listener;
static struct address address;
static pthread_t other_side;
static char why[REDIS_WHY_MAX];

static void *play_redis(void *argument)
{
	int fd = accept(listener, NULL, NULL);
	size_t length = 0;
	(void)argument;
	for (int i = 0; i < ANSWERS_MAX && answers[i] != NULL; i++) {
		if (answers[i][0] == '\0') {
			recv(fd, heard, 1, MSG_PEEK);
			break;
		}
		ssize_t got = recv(fd, heard + length, sizeof heard - 1 - length, 0);
		length += got > 0 ? (size_t)got : 0;
		if (send(fd, answers[i], strlen(answers[i]), MSG_NOSIGNAL) < 0)
			break;
	}
	heard[length] = '\0';
	close(fd);
	return NULL;
}

static void begin(const char *first, const char *second, const char *third)
{
	char error[200];
	answers[0] = first;
	answers[1] = second;
	answers[2] = third;
	memset(&memory, 0, sizeof memory);
	memset(why, 0, sizeof why);
	listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	CU_ASSERT_EQUAL_FATAL(thread_start(&other_side, play_redis, NULL), 0);
}

static void end(struct redis_line *line)
{
	redis_line_close(line);
	pthread_join(other_side, NULL);
	close(listener);
}

static struct redis_line *open_line(const char *password, unsigned database)
{
	struct redis_login login = { .password = password, .database = database };
	return redis_line_open(&address, &login, SOON, why);
}

static redisReply *get(struct redis_line *line, uint64_t deadline_us)
{
	static const char *const words[] = { "GET", "key" };
	return redis_line_call(line, 2, words, NULL, deadline_us, why);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static void a_command_goes_out_as_an_array_of_words_and_its_reply_is_read(void)
{
	begin("$5\r\nhello\r\n", NULL, NULL);
	struct redis_line *line = open_line(NULL, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(line);
	redisReply *reply = get(line, SOON);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_EQUAL(reply->type, REDIS_REPLY_STRING);
	CU_ASSERT_STRING_EQUAL(reply->str, "hello");
	freeReplyObject(reply);
	end(line);
	CU_ASSERT_STRING_EQUAL(heard, "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
}

static void an_error_is_a_reply(void)
{
	begin("-WRONGTYPE no\r\n", NULL, NULL);
	struct redis_line *line = open_line(NULL, 0);
	redisReply *reply = get(line, SOON);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_EQUAL(reply->type, REDIS_REPLY_ERROR);
	freeReplyObject(reply);
	end(line);
}

/* What is said of a call that has no reply. */
static void fails_with(const char *answer, uint64_t patience_us, const char *words)
{
	begin(answer, NULL, NULL);
	struct redis_line *line = open_line(NULL, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(line);
	uint64_t deadline_us = clock_us() + patience_us;
	CU_ASSERT_PTR_NULL(get(line, deadline_us));
	CU_ASSERT_STRING_EQUAL(why, words);
	end(line);
}

static void a_call_without_a_reply_says_why(void)
{
	fails_with("$5\r\nhel", 10 * US_PER_S, "it closed the connection");
	fails_with("HTTP/1.1 400 Bad Request\r\n\r\n", 10 * US_PER_S, "what answered there is no Redis");
	fails_with("", 10 * US_PER_S, "the connection broke");
}

static void a_reply_that_does_not_come_is_waited_for_until_the_deadline(void)
{
	begin("+OK\r\n", "$5\r\nhel", "+OK\r\n"); /* and after the second it hears, for the third */
	struct redis_line *line = open_line("secret", 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(line);
	uint64_t deadline_us = clock_us() + 20 * US_PER_MS;
	CU_ASSERT_PTR_NULL(get(line, deadline_us));
	CU_ASSERT_STRING_EQUAL(why, "no answer in time");
	CU_ASSERT_TRUE(clock_us() >= deadline_us);
	end(line);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void a_password_and_a_database_are_told_first(void)
{
	begin("+OK\r\n", "+OK\r\n", NULL);
	struct redis_line *line = open_line("secret", 7);
	CU_ASSERT_PTR_NOT_NULL(line);
	end(line);
	CU_ASSERT_STRING_EQUAL(heard, "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n");
}

static void refuses(const char *first, const char *second, const char *words)
{
	begin(first, second, NULL);
	CU_ASSERT_PTR_NULL(open_line("secret", 7));
	CU_ASSERT_STRING_EQUAL(why, words);
	end(NULL);
}

static void a_login_that_is_not_taken_is_no_connection(void)
{
	refuses("-WRONGPASS no\r\n", NULL, "AUTH: WRONGPASS no");
	refuses(":1\r\n", NULL, "AUTH: odd reply");
	refuses("+OK\r\n", "-ERR DB index is out of range\r\n", "SELECT: ERR DB index is out of range");
	refuses("+O", NULL, "it closed the connection");
}

static void a_redis_that_is_not_there_is_refused_by_the_system(void)
{
	struct redis_login login = { .password = NULL };
	char error[200];
	listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	close(listener);
	CU_ASSERT_PTR_NULL(redis_line_open(&address, &login, SOON, why));
	CU_ASSERT_STRING_EQUAL(why, "Connection refused");
	redis_line_close(NULL);
}

static void without_memory_there_is_no_connection_and_no_call(void)
{
	static const char *const words[] = { "out of memory", "Cannot allocate memory", "out of memory" };
	for (unsigned i = 0; i < 3; i++) {
		begin("+OK\r\n", NULL, NULL);
		memory.failing = i + 1; /* the line, its reader, the command */
		CU_ASSERT_PTR_NULL(open_line("secret", 0));
		CU_ASSERT_STRING_EQUAL(why, words[i]);
		memory.failing = 0;
		struct redis_line *line = i < 2 ? open_line("secret", 0) : NULL; /* for the other side, which waits for somebody */
		CU_ASSERT_EQUAL(line != NULL, i < 2);
		end(line);
	}
}

/* ---- lines that listen ------------------------------------------------------------------------------------------- */

static void a_line_that_listens_takes_what_is_whole_and_does_not_wait_for_more(void)
{
	begin("+OK\r\n", "+one\r\n+two\r\n$5\r\nth", "ree\r\n");
	struct redis_line *line = open_line("secret", 0);
	redisReply *reply;
	CU_ASSERT_PTR_NOT_NULL_FATAL(line);
	CU_ASSERT_TRUE(redis_line_is_quiet(line));
	CU_ASSERT_TRUE(redis_line_poll(line, &reply));
	CU_ASSERT_PTR_NULL(reply);
	reply = get(line, SOON); /* which is what it answers */
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_STRING_EQUAL(reply->str, "one");
	freeReplyObject(reply);
	CU_ASSERT_TRUE(redis_line_poll(line, &reply));
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_STRING_EQUAL(reply->str, "two");
	freeReplyObject(reply);
	CU_ASSERT_TRUE(redis_line_poll(line, &reply));
	CU_ASSERT_PTR_NULL(reply);
	reply = get(line, SOON);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_STRING_EQUAL(reply->str, "three");
	pthread_join(other_side, NULL);
	redisReply *last = reply;
	CU_ASSERT_FALSE(redis_line_is_quiet(line)); /* it has closed */
	CU_ASSERT_FALSE(redis_line_poll(line, &reply));
	CU_ASSERT_PTR_NULL(reply);
	freeReplyObject(last);
	redis_line_close(line);
	close(listener);
}

static void a_line_that_hears_nonsense_is_of_no_use_any_more(void)
{
	begin("+OK\r\n", "nonsense\r\n", "+OK\r\n");
	struct redis_line *line = open_line("secret", 0);
	redisReply *reply;
	CU_ASSERT_PTR_NOT_NULL_FATAL(line);
	CU_ASSERT_PTR_NULL(get(line, SOON));
	CU_ASSERT_STRING_EQUAL(why, "what answered there is no Redis");
	CU_ASSERT_FALSE(redis_line_poll(line, &reply)); /* nor does it come to its senses */
	CU_ASSERT_PTR_NULL(get(line, SOON));
	end(line);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_command_goes_out_as_an_array_of_words_and_its_reply_is_read),
		TEST(an_error_is_a_reply),
		TEST(a_call_without_a_reply_says_why),
		TEST(a_reply_that_does_not_come_is_waited_for_until_the_deadline),
		TEST(a_password_and_a_database_are_told_first),
		TEST(a_login_that_is_not_taken_is_no_connection),
		TEST(a_redis_that_is_not_there_is_refused_by_the_system),
		TEST(without_memory_there_is_no_connection_and_no_call),
		TEST(a_line_that_listens_takes_what_is_whole_and_does_not_wait_for_more),
		TEST(a_line_that_hears_nonsense_is_of_no_use_any_more),
	};
	return unit_main("redis_line", tests, sizeof tests / sizeof tests[0]);
}
