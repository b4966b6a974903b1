/* auth.h: who may use a forward proxy: users and the hashes of their passwords.
 *
 *      Proxy-Authorization: Basic dXNlcjpwYXNz ──► "user:pass" ──► known good for a minute? ──► yes: in, ~1 µs
 *                                                                  │ no
 *                                                                  ▼
 *                                            one of a few at a time: crypt(3), 1 to 17 ms ──► equal, in constant time? ──► remembered
 *                                                                                             └─► no: the next wrong one waits
 *
 * A password hash is slow on purpose: who steals the file can't try many. The same slowness turns against us: 60 wrong passwords
 * a second would fill a core. So at most one check runs at a time for each core but one, wrong answers are paced to a budget that
 * all share, and whoever comes when the budget is spent is told "later", at no cost. Those who were good within the last minute
 * are not asked to wait: the table holds a keyed hash of "user:password", with a key drawn at the start. It holds no password.
 *
 * An unknown user costs as much as a wrong password: else the time would tell which users there are.
 *
 * Source: RFC 7617 (Basic), crypt(5) for the forms of hashes. Any thread may call auth_check(); time is passed in.
 */
#ifndef WEIR_AUTH_H
#define WEIR_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct auth;

/* Reads a file of "user:hash" lines; blank lines and those that begin with # are skipped. NULL: error says what is wrong,
   "FILE:LINE: …", or that the file can't be read. What it points to is copied. */
struct auth *auth_create(const char *path, char *error, size_t error_size);
/* Reads the file only to say what is wrong with it: for --check. True when it is good. */
bool auth_check_file(const char *path, char *error, size_t error_size);
/* One more holder; who made it is the first. Whoever can still reach it may call this. Gives auth back. */
struct auth *auth_hold(struct auth *auth);
/* The last holder frees it; others may still be inside auth_check(). NULL: nothing happens. */
void auth_release(struct auth *auth);

enum auth_answer {
	AUTH_GOOD,
	AUTH_MISSING,  /* no credentials, another scheme, or not well-formed: 407 */
	AUTH_WRONG,    /* 407 */
	AUTH_LATER,    /* too many checks under way, or too many wrong ones lately: 503 or 429, with auth's *retry_after_us */
};

/* field: the value of Proxy-Authorization (NULL: there is none). user (may be NULL): room for the user's name, for the log, set
   when AUTH_GOOD. Blocks for up to 20 ms of computing when the credentials are not known yet. */
#define AUTH_USER_MAX 256
enum auth_answer auth_check(struct auth *auth, const char *field, size_t length, uint64_t now_us, char user[AUTH_USER_MAX],
                            uint64_t *retry_after_us);

/* "Basic" and credentials, strictly: one space or more, base64 with its padding and no bits left over, a colon, no control
   characters. False otherwise. user_password has room for `capacity` bytes; ends in NUL; *user_length is where the colon is. */
bool auth_basic(const char *field, size_t length, char *user_password, size_t capacity, size_t *user_length);

struct auth_report {
	uint64_t good_total, wrong_total, remembered_total, later_total; /* remembered: good ones that cost no hash */
};
void auth_report(struct auth *auth, struct auth_report *report);

#endif
