/* redis_line.h: one connection to Redis: a command out, its reply in, by a deadline.
 *
 *      redis_line_call("GET", "key") ──►  *2\r\n$3\r\nGET\r\n$3\r\nkey\r\n
 *                                    ◄──  $5\r\nhello\r\n
 *
 * hiredis writes the commands and reads the replies; the socket is ours (conn.h). Debian's hiredis 0.14 has one timeout for each
 * read rather than a deadline for the call, resolves names with no deadline at all, and raises SIGPIPE when the other side is gone,
 * which a library must not do to its program. So it is used for what it does well, the protocol, and never sees a socket.
 *
 * One thread at a time.
 */
#ifndef WEIR_REDIS_LINE_H
#define WEIR_REDIS_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

#include "address.h"

#define REDIS_WHY_MAX 160

struct redis_line;

struct redis_login {
	const char *password; /* NULL: none */
	unsigned database;
};

/* Connects, and logs in. NULL: why says what went wrong. */
struct redis_line *redis_line_open(const struct address *to, const struct redis_login *login, uint64_t deadline_us,
                                   char why[REDIS_WHY_MAX]);
void redis_line_close(struct redis_line *line);

/* The words of a command; lengths NULL: they end in NUL. The reply is the caller's (freeReplyObject()), or NULL, with why: the
   connection is then of no use any more. An error reply is a reply. */
redisReply *redis_line_call(struct redis_line *line, int count, const char *const *words, const size_t *lengths,
                            uint64_t deadline_us, char why[REDIS_WHY_MAX]);

/* For one that has subscribed: what has arrived, without waiting. False: the connection is of no use any more. *reply is NULL
   when nothing whole has come. */
bool redis_line_poll(struct redis_line *line, redisReply **reply);
int redis_line_fd(const struct redis_line *line);
/* Is it still good, after having lain idle? */
bool redis_line_is_quiet(const struct redis_line *line);

#endif
