/* log.h: one line for each thing worth knowing, and one for each request.
 *
 * Two formats: text for people, JSON (one object a line) for machines. A log must never slow down or stop what it
 * reports on: when whoever reads our standard error stops reading, lines are dropped and counted, not waited for.
 * Bytes that came from a client are escaped, so that nobody can forge a line or move a reader's cursor.
 *
 * An object, not a global: two proxies in one process may log to two places. Any thread.
 */
#ifndef WEIR_LOG_H
#define WEIR_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "http.h"
#include "ts.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

struct log_options {
	const char *path;        /* NULL: standard error */
	const char *access_path; /* access lines: NULL: none (they appear in the log at level debug), "-": standard output */
	enum log_level level;
	bool json;
	bool traces;             /* log_trace() writes */
	/* Takes the lines that would go to a standard stream, instead of it, and those of path as well. text has no newline, and in front
	   no time, level or service. Any thread, several at a time. NULL: nobody. Fixed when the log is created. */
	void (*take)(void *context, enum log_level level, const char *service, const char *text);
	void *take_context;
};

struct log;

/* NULL when a file cannot be opened: error then says which and why. The strings are copied. */
struct log *log_create(const struct log_options *options, char *error, size_t error_size);
void log_destroy(struct log *log);

/* Opens the files again, by the names they had: what logrotate expects after it has moved them away. What can't be opened keeps
   its old file, and the log says so. */
void log_reopen(struct log *log);
/* The files are given to another user, who can then open them again. Standard streams stay as they are. */
void log_give_to(struct log *log, uid_t user, gid_t group);
/* A daemon has no standard streams: what was written to them is written nowhere from now on. True if that is the log itself. */
bool log_leave_terminal(struct log *log);
/* New options for a running log; what can't be opened keeps its old file. False (and error) then. */
bool log_configure(struct log *log, const struct log_options *options, char *error, size_t error_size);

/* Would a line of this level be written? Asked before work is put into making one. */
bool log_shows(struct log *log, enum log_level level);

/* One line. service names the service it is about, or is NULL. */
void log_write(struct log *log, enum log_level level, const char *service, const char *format, ...) PRINTF_LIKE(4, 5);

/* The last lines of level info and above, whatever level is written: what has changed, in words. For the status page. */
#define LOG_EVENTS_MAX 64
struct log_event {
	uint64_t number;  /* counted up from 1 */
	int64_t time_ms;  /* of the wall clock */
	enum log_level level;
	char service[64]; /* "" when it is about no service */
	char text[240];
};
/* Copies up to capacity of the latest, the oldest first. Returns how many. */
size_t log_events(struct log *log, struct log_event *out, size_t capacity);

/* Are traces wanted? Asked before anything is put into making one: off, a trace costs the look at one number. */
bool log_wants_traces(struct log *log);
/* One hop of one request: number tells requests apart, after_us is the time since its first byte came. */
void log_trace(struct log *log, const char *service, uint64_t number, uint64_t after_us, const char *format, ...)
	PRINTF_LIKE(5, 6);

/* What there is to say about one request. */
struct log_access {
	const char *service;
	const char *client;            /* address */
	struct http_text method, uri;  /* as they came; {NULL,0} when the head could not be read */
	unsigned minor_version;
	const char *protocol;          /* NULL: HTTP/1.minor_version */
	int status;                    /* 0: the client was gone before an answer */
	uint64_t bytes_in, bytes_out;  /* body bytes from and to the client */
	struct http_text referer, user_agent;
	const char *target;            /* "127.0.0.1:9001"; NULL: none was asked */
	unsigned tries;                /* targets asked */
	uint64_t wait_us;              /* spent waiting for a turn */
	uint64_t upstream_us;          /* from the first byte sent to a target to the last of its answer */
	uint64_t total_us;             /* from the first byte of the head to the end */
	const char *shadow;            /* a rule in shadow mode that would have refused it, or NULL */
	const char *outcome;           /* "ok", or why it is not: "target failed", "client went away", "over threshold" … */
};
/* Are access lines wanted at all? */
bool log_wants_access(struct log *log);
void log_access(struct log *log, const struct log_access *access);

#endif
