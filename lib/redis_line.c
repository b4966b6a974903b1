/* redis_line.c: see redis_line.h. */
#include "redis_line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "conn.h"

/* More than any reply of the scripts needs; SCAN's with a thousand long keys comes in several pieces. */
#define LINE_BUFFER 8192u

struct redis_line {
	struct conn conn;
	redisReader *reader;
	char buffer[LINE_BUFFER];
};

static const char *why_not(enum conn_result result)
{
	switch (result) {
	case CONN_TIMEOUT: return "no answer in time";
	case CONN_END: return "it closed the connection";
	default: return "the connection broke";
	}
}

static redisReply *fail(char why[REDIS_WHY_MAX], const char *text)
{
	snprintf(why, REDIS_WHY_MAX, "%s", text);
	return NULL;
}

/* A login or a SELECT that is refused is as good as no connection. */
static bool expect_ok(struct redis_line *line, const char *word, const char *argument, uint64_t deadline_us,
                      char why[REDIS_WHY_MAX])
{
	const char *words[] = { word, argument };
	redisReply *reply = redis_line_call(line, 2, words, NULL, deadline_us, why);
	if (reply == NULL)
		return false;
	bool is_ok = reply->type == REDIS_REPLY_STATUS;
	if (!is_ok)
		snprintf(why, REDIS_WHY_MAX, "%s: %.100s", word, reply->type == REDIS_REPLY_ERROR ? reply->str : "odd reply");
	freeReplyObject(reply);
	return is_ok;
}

static bool log_in(struct redis_line *line, const struct redis_login *login, uint64_t deadline_us, char why[REDIS_WHY_MAX])
{
	char database[16];
	snprintf(database, sizeof database, "%u", login->database);
	if (login->password != NULL && !expect_ok(line, "AUTH", login->password, deadline_us, why))
		return false;
	return login->database == 0 || expect_ok(line, "SELECT", database, deadline_us, why);
}

struct redis_line *redis_line_open(const struct address *to, const struct redis_login *login, uint64_t deadline_us,
                                   char why[REDIS_WHY_MAX])
{
	struct redis_line *line = calloc(1, sizeof *line);
	if (line == NULL) {
		fail(why, "out of memory");
		return NULL;
	}
	line->reader = redisReaderCreate();
	int fd = line->reader != NULL ? conn_socket(to) : -1;
	conn_init(&line->conn, fd, line->buffer, sizeof line->buffer);
	if (fd < 0 || conn_connect(fd, to, deadline_us) != CONN_OK) {
		snprintf(why, REDIS_WHY_MAX, "%s", strerror(errno));
	} else if (log_in(line, login, deadline_us, why)) {
		return line;
	}
	redis_line_close(line);
	return NULL;
}

void redis_line_close(struct redis_line *line)
{
	if (line == NULL)
		return;
	conn_close(&line->conn);
	if (line->reader != NULL)
		redisReaderFree(line->reader);
	free(line);
}

int redis_line_fd(const struct redis_line *line)
{
	return line->conn.fd;
}

bool redis_line_is_quiet(const struct redis_line *line)
{
	return conn_is_quiet(line->conn.fd, NULL);
}

/* Gives what has come to hiredis. *reply is NULL while there is no whole one. False: it is no reply of Redis's at all. */
static bool take_reply(struct redis_line *line, redisReply **reply)
{
	void *got = NULL;
	*reply = NULL;
	if (redisReaderFeed(line->reader, conn_bytes(&line->conn), conn_available(&line->conn)) != REDIS_OK)
		return false;
	conn_use(&line->conn, conn_available(&line->conn));
	if (redisReaderGetReply(line->reader, &got) != REDIS_OK)
		return false;
	*reply = got;
	return true;
}

redisReply *redis_line_call(struct redis_line *line, int count, const char *const *words, const size_t *lengths,
                            uint64_t deadline_us, char why[REDIS_WHY_MAX])
{
	char *command = NULL;
	redisReply *reply = NULL;
	/* hiredis takes a const char **, and changes nothing. */
	int length = redisFormatCommandArgv(&command, count, (const char **)words, lengths);
	if (length < 0)
		return fail(why, "out of memory");
	struct iovec part = { .iov_base = command, .iov_len = (size_t)length };
	enum conn_result result = conn_send(&line->conn, &part, 1, deadline_us, NULL);
	redisFreeCommand(command);
	while (result == CONN_OK) {
		if (!take_reply(line, &reply))
			return fail(why, "what answered there is no Redis");
		if (reply != NULL)
			return reply;
		result = conn_fill(&line->conn, deadline_us);
	}
	return fail(why, why_not(result));
}

bool redis_line_poll(struct redis_line *line, redisReply **reply)
{
	enum conn_result result = conn_try_fill(&line->conn);
	*reply = NULL;
	if (result != CONN_OK && result != CONN_WOULD_BLOCK)
		return false;
	return take_reply(line, reply);
}
