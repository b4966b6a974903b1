/* log.c: see log.h.
 *
 *      a line is made on the caller's stack ──► one write() of the whole line ──► file, pipe or terminal
 *
 * Files are opened with O_APPEND: the kernel then puts each write() at the end, whole, whoever else writes to the file. So
 * no lock is held across a write, which can block. The mutex guards only the numbers of the open files, and a file that
 * log_reopen() replaces gets its new inode under the old number (dup2), so that no writer ever sees a closed one.
 *
 * A pipe or terminal that nobody reads would block us, so it is opened not to block, and a line for which there is no
 * room is dropped. The next one that gets through says how many were lost. To ask poll() first would not do: it knows of
 * room for something, not for this line, and of two threads that ask at the same time one is wrong. Nor may O_NONBLOCK
 * be set on a standard stream as we found it: that is shared with every process that has the same terminal. Opened anew
 * through /proc/self/fd it is ours alone; a socket has MSG_DONTWAIT.
 *
 * A terminal takes one write at a time, and a second writer who will not wait hears that there is no room, as if nobody
 * read. So there a line waits a moment, as long as lines come through: a terminal that is stopped costs that moment once.
 *
 * The access line is the "combined" format that every log reader knows, with key=value pairs after it.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "text.h"

/* An escaped byte takes up to six: four values of a request, or one message, always fit with all that stands around them. */
#define LINE_MAX_BYTES 16384
#define VALUE_MAX_BYTES 512
#define MESSAGE_MAX_BYTES 2048
#define TERMINAL_WAIT_US 250000

struct sink {
	char *path;      /* NULL: one of the standard streams, which are not reopened */
	atomic_int fd;         /* -1: off */
	atomic_bool is_socket;
	atomic_bool is_pipe;
	atomic_bool is_terminal;
	atomic_bool is_stuck;  /* a terminal took no line in TERMINAL_WAIT_US, and none since */
	atomic_bool may_block; /* it could not be opened not to */
	atomic_bool is_torn;   /* a line was cut: the next must not be glued to it */
	atomic_ullong dropped;
	atomic_int last_error; /* what the last line was lost of */
};

struct log {
	pthread_mutex_t mutex;
	atomic_int level;
	atomic_bool json;
	atomic_bool access_on;
	atomic_bool access_is_taken; /* by whoever takes what would go to a standard stream */
	atomic_bool traces;
	/* Set once. */
	void (*take)(void *context, enum log_level level, const char *service, const char *text);
	void *take_context;
	/* The mutex guards the sinks' paths, and opening. Writers use fd without it: a number stays open, on one file or
	   another, for as long as the log lives. */
	struct sink main_sink, access_sink;
	pthread_mutex_t events_mutex;
	uint64_t event_count GUARDED_BY(log_events_mutex);
	struct log_event events[LOG_EVENTS_MAX] GUARDED_BY(log_events_mutex);
};

LOCK_VERBS(log, mutex, log_mutex)

static void events_lock(struct log *log) ACQUIRE(log_events_mutex) UNCHECKED
{
	pthread_mutex_lock(&log->events_mutex);
}

static void events_unlock(struct log *log) RELEASE(log_events_mutex) UNCHECKED
{
	pthread_mutex_unlock(&log->events_mutex);
}

/* A line being made. Full is silent: a cut line is better than none. */
struct line {
	size_t length;
	char bytes[LINE_MAX_BYTES];
};

static void put_bytes(struct line *line, const char *bytes, size_t length)
{
	size_t room = LINE_MAX_BYTES - 1 - line->length; /* one is kept for the newline */
	if (length > room)
		length = room;
	memcpy(line->bytes + line->length, bytes, length);
	line->length += length;
}

static void put(struct line *line, const char *text)
{
	put_bytes(line, text, strlen(text));
}

static void put_v(struct line *line, const char *format, va_list arguments)
{
	size_t room = LINE_MAX_BYTES - 1 - line->length;
	if (room == 0)
		return;
	int length = vsnprintf(line->bytes + line->length, room, format, arguments);
	if (length > 0)
		line->length += (size_t)length < room ? (size_t)length : room - 1;
}

static void put_f(struct line *line, const char *format, ...) PRINTF_LIKE(2, 3);
static void put_f(struct line *line, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	put_v(line, format, arguments);
	va_end(arguments);
}

/* Control bytes and what is not ASCII are escaped. JSON wants \u00XX, and no bytes that are not UTF-8: those above 0x7f
   are taken as Latin-1, which every byte is. */
static void put_plain(struct line *line, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)bytes[i];
		if (c >= 0x20 && c != 0x7f)
			put_bytes(line, &bytes[i], 1);
		else
			put_f(line, "\\x%02x", c);
	}
}

/* Text from elsewhere, to stand between quotes: quotes and backslashes are escaped as well. */
static void put_escaped(struct line *line, const char *bytes, size_t length, bool json)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)bytes[i];
		if (c == '"' || c == '\\')
			put_f(line, "\\%c", c);
		else if (c >= 0x20 && c < 0x7f)
			put_bytes(line, &bytes[i], 1);
		else
			put_f(line, json ? "\\u%04x" : "\\x%02x", c);
	}
}

static void put_text(struct line *line, const char *before, struct http_text text, bool json, const char *after)
{
	put(line, before);
	if (text.at == NULL && !json)
		put(line, "-");
	else
		put_escaped(line, text.at, text.length < VALUE_MAX_BYTES ? text.length : VALUE_MAX_BYTES, json);
	put(line, after);
}

static void put_time(struct line *line)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct tm utc;
	gmtime_r(&now.tv_sec, &utc);
	char text[32];
	size_t length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
	put_bytes(line, text, length);
	put_f(line, ".%03ldZ", now.tv_nsec / 1000000);
}

/* A pipe that nobody reads any more would end the process by SIGPIPE, and write() knows no MSG_NOSIGNAL. Where the signal was
   not blocked it is taken back before anybody gets it; one that was pending before stays. */
static ssize_t write_pipe(int fd, const struct line *line)
{
	sigset_t pipe_signal, before, pending;
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
	ssize_t written = write(fd, line->bytes, line->length);
	int error = errno;
	if (written < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE))
		sigtimedwait(&pipe_signal, NULL, &(struct timespec){ .tv_sec = 0 });
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return written;
}

/* One write() of the line's bytes from begin on, which does not wait: how many went, or -1 and errno. */
static ssize_t write_from(const struct sink *sink, const struct line *line, size_t begin)
{
	int fd = sink->fd;
	struct pollfd room = { .fd = fd, .events = POLLOUT };
	ssize_t written = -1;
	do {
		errno = EAGAIN;
		if (sink->is_socket)
			written = send(fd, line->bytes, line->length, MSG_DONTWAIT | MSG_NOSIGNAL);
		else if (!sink->may_block || (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) != 0))
			written = sink->is_pipe ? write_pipe(fd, line) : write(fd, line->bytes + begin, line->length - begin);
	} while (written < 0 && errno == EINTR);
	return written;
}

/* Writes a line to a terminal, whose other writers may be in the way. Gives the bytes that went, or -1 and errno. */
static ssize_t write_terminal(struct sink *sink, const struct line *line)
{
	struct pollfd room = { .fd = sink->fd, .events = POLLOUT };
	uint64_t now_us = clock_us(), until_us = atomic_load(&sink->is_stuck) ? now_us : now_us + TERMINAL_WAIT_US;
	size_t done = 0;
	for (;;) {
		ssize_t written = write_from(sink, line, done);
		done += written > 0 ? (size_t)written : 0;
		if (done == line->length || (written < 0 && errno != EAGAIN)) {
			atomic_store(&sink->is_stuck, false);
			return done > 0 ? (ssize_t)done : written;
		}
		now_us = clock_us();
		if (now_us >= until_us)
			break;
		poll(&room, 1, (int)((until_us - now_us + 999) / 1000));
	}
	atomic_store(&sink->is_stuck, true);
	errno = EAGAIN;
	return done > 0 ? (ssize_t)done : -1;
}

/* Writes a line, or counts it as lost. Only a full disk, pipe or terminal takes a part of one. */
static void put_out(struct sink *sink, const struct line *line, unsigned long long lost_with_it)
{
	ssize_t written = sink->is_terminal ? write_terminal(sink, line) : write_from(sink, line, 0);
	if (written == (ssize_t)line->length)
		return;
	/* A part of a line: there was no room for the rest, which the next write would be told. */
	int full = sink->is_socket || sink->is_terminal || sink->may_block ? EAGAIN : ENOSPC;
	atomic_store(&sink->last_error, written < 0 ? errno : full);
	if (written > 0)
		atomic_store(&sink->is_torn, true);
	atomic_fetch_add(&sink->dropped, lost_with_it);
}

/* Says how many lines are missing here, in the log's own format. */
static void tell_dropped(struct sink *sink, unsigned long long dropped, bool json)
{
	struct line line;
	line.length = 0;
	put(&line, atomic_exchange(&sink->is_torn, false) ? "\n" : "");
	put(&line, json ? "{\"time\":\"" : "");
	put_time(&line);
	put(&line, json ? "\",\"level\":\"warn\",\"message\":\"" : " warn  ");
	int error = atomic_load(&sink->last_error);
	put_f(&line, "%llu lines were lost: %s", dropped,
	      error == EAGAIN || error == EPIPE || error == ENXIO ? "nobody was reading" : strerror(error));
	put(&line, json ? "\"}\n" : "\n");
	put_out(sink, &line, dropped);
}

static void sink_write(struct sink *sink, struct line *line, bool json)
{
	if (sink->fd < 0)
		return;
	unsigned long long dropped = atomic_exchange(&sink->dropped, 0);
	if (dropped > 0)
		tell_dropped(sink, dropped, json);
	line->bytes[line->length++] = '\n';
	put_out(sink, line, 1);
}

/* A standard stream, opened once more if it could block. -1 and errno. */
static int open_standard(int standard)
{
	char path[32];
	struct stat status;
	if (fstat(standard, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode))) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", standard);
		int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		if (fd >= 0)
			return fd;
	}
	int fd = fcntl(standard, F_DUPFD_CLOEXEC, 3);
	if (fd < 0) /* started with that stream closed: nobody wants to hear */
		fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	return fd;
}

/* Opens path (NULL: the standard stream) and puts it where the sink's writers look. */
static bool sink_open(struct sink *sink, const char *path, int standard, char *error, size_t error_size)
{
	int fd;
	char *copy = NULL;
	if (path == NULL && sink->path == NULL && sink->fd >= 0)
		return true; /* it is that stream already; opened anew it might be refused, with the rights we have now */
	if (path != NULL) {
		/* O_NONBLOCK for the open() as well: that of a pipe waits for a reader. */
		int flags = O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
		copy = strdup(path);
		fd = copy == NULL ? -1 : open(path, flags, 0640);
		if (fd < 0) {
			snprintf(error, error_size, "cannot open the log file \"%s\": %s", path, strerror(errno));
			free(copy);
			return false;
		}
	} else {
		fd = open_standard(standard);
		if (fd < 0) {
			snprintf(error, error_size, "cannot open a log stream: %s", strerror(errno));
			return false;
		}
	}
	struct stat status = { .st_mode = 0 };
	bool is_known = fstat(fd, &status) == 0;
	bool is_non_blocking = (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
	if (sink->fd >= 0) {
		dup3(fd, sink->fd, O_CLOEXEC);
		close(fd);
	} else {
		sink->fd = fd;
	}
	sink->is_socket = is_known && S_ISSOCK(status.st_mode);
	sink->is_pipe = is_known && S_ISFIFO(status.st_mode);
	sink->is_terminal = isatty(sink->fd) == 1;
	sink->may_block = !is_non_blocking && !(is_known && S_ISREG(status.st_mode));
	free(sink->path);
	sink->path = copy;
	return true;
}

/* From now on it is written nowhere. False: it is a file, or off. */
static bool leave_terminal(struct sink *sink)
{
	if (sink->fd < 0 || sink->path != NULL)
		return false;
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (nowhere < 0)
		return false;
	dup3(nowhere, sink->fd, O_CLOEXEC);
	close(nowhere);
	/* send() to what is no socket any more would fail, and each line be told as lost in the next file. */
	sink->is_socket = sink->is_pipe = sink->is_terminal = sink->may_block = false;
	return true;
}

/* Nothing is written there any more. Its number stays open, for a writer may have it in hand. */
static void sink_close(struct sink *sink)
{
	if (sink->fd >= 0 && sink->path != NULL) {
		free(sink->path);
		sink->path = NULL;
		leave_terminal(sink);
	}
}

static bool apply(struct log *log, const struct log_options *options, char *error, size_t error_size)
{
	bool good = true;
	if (options->path != NULL || log->take == NULL)
		good = sink_open(&log->main_sink, options->path, STDERR_FILENO, error, error_size);
	else
		sink_close(&log->main_sink);
	const char *access = options->access_path;
	const char *path = access == NULL || strcmp(access, "-") == 0 ? NULL : access;
	if (good && access != NULL && (path != NULL || log->take == NULL))
		good = sink_open(&log->access_sink, path, STDOUT_FILENO, error, error_size);
	if (!good)
		return false;
	atomic_store(&log->access_is_taken, path == NULL && log->take != NULL);
	atomic_store(&log->access_on, access != NULL);
	atomic_store(&log->level, (int)options->level);
	atomic_store(&log->json, options->json);
	atomic_store(&log->traces, options->traces);
	return true;
}

struct log *log_create(const struct log_options *options, char *error, size_t error_size)
{
	struct log *log = calloc(1, sizeof *log);
	if (log == NULL || pthread_mutex_init(&log->mutex, NULL) != 0) {
		snprintf(error, error_size, "out of memory");
		free(log);
		return NULL;
	}
	pthread_mutex_init(&log->events_mutex, NULL);
	log->main_sink.fd = log->access_sink.fd = -1;
	log->take = options->take;
	log->take_context = options->take_context;
	log_lock(log);
	bool good = apply(log, options, error, error_size);
	log_unlock(log);
	if (!good) {
		log_destroy(log);
		return NULL;
	}
	return log;
}

void log_destroy(struct log *log)
{
	if (log == NULL)
		return;
	if (log->main_sink.fd >= 0)
		close(log->main_sink.fd);
	if (log->access_sink.fd >= 0)
		close(log->access_sink.fd);
	free(log->main_sink.path);
	free(log->access_sink.path);
	pthread_mutex_destroy(&log->events_mutex);
	pthread_mutex_destroy(&log->mutex);
	free(log);
}

bool log_configure(struct log *log, const struct log_options *options, char *error, size_t error_size)
{
	log_lock(log);
	bool good = apply(log, options, error, error_size);
	log_unlock(log);
	return good;
}

static bool reopen(struct log *log, struct sink *sink)
{
	char error[512] = "";
	log_lock(log);
	char *path = sink->path == NULL ? NULL : strdup(sink->path);
	bool good = path == NULL || sink_open(sink, path, -1, error, sizeof error);
	log_unlock(log);
	free(path);
	if (!good)
		log_write(log, LOG_LEVEL_ERROR, NULL, "%s; the old file stays in use", error);
	return good;
}

void log_give_to(struct log *log, uid_t user, gid_t group)
{
	log_lock(log);
	if (log->main_sink.path != NULL && fchown(log->main_sink.fd, user, group) != 0)
		errno = 0; /* what can't be given away stays as it is: opening it again will say so */
	if (log->access_sink.path != NULL && fchown(log->access_sink.fd, user, group) != 0)
		errno = 0;
	log_unlock(log);
}

bool log_leave_terminal(struct log *log)
{
	log_lock(log);
	bool was_log = leave_terminal(&log->main_sink);
	leave_terminal(&log->access_sink);
	log_unlock(log);
	return was_log;
}

void log_reopen(struct log *log)
{
	bool good = reopen(log, &log->main_sink);
	if (reopen(log, &log->access_sink) && good)
		log_write(log, LOG_LEVEL_INFO, NULL, "log files are open again");
}

bool log_shows(struct log *log, enum log_level level)
{
	return (int)level >= atomic_load_explicit(&log->level, memory_order_relaxed);
}

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_DEBUG: return "debug";
	case LOG_LEVEL_INFO: return "info";
	case LOG_LEVEL_WARN: return "warn";
	case LOG_LEVEL_ERROR: return "error";
	}
	return "error";
}

/* Keeps a line for those who look at the status page. */
static void keep_event(struct log *log, enum log_level level, const char *service, const struct line *message)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	events_lock(log);
	struct log_event *event = &log->events[log->event_count % LOG_EVENTS_MAX];
	event->number = ++log->event_count;
	event->time_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	event->level = level;
	text_clean(service != NULL ? service : "", service != NULL ? strlen(service) : 0, event->service, sizeof event->service);
	text_clean(message->bytes, message->length, event->text, sizeof event->text);
	events_unlock(log);
}

size_t log_events(struct log *log, struct log_event *out, size_t capacity)
{
	events_lock(log);
	uint64_t last = log->event_count, kept = last < LOG_EVENTS_MAX ? last : LOG_EVENTS_MAX;
	size_t count = kept < capacity ? (size_t)kept : capacity;
	for (size_t i = 0; i < count; i++)
		out[i] = log->events[(last - count + i) % LOG_EVENTS_MAX];
	events_unlock(log);
	return count;
}

/* Gives a line to whoever takes them, with no byte in it that could move a cursor. */
static void hand_over(struct log *log, enum log_level level, const char *service, const struct line *message)
{
	if (log->take == NULL)
		return;
	struct line line;
	line.length = 0;
	put_plain(&line, message->bytes, message->length);
	line.bytes[line.length] = '\0';
	log->take(log->take_context, level, service, line.bytes);
}

void log_write(struct log *log, enum log_level level, const char *service, const char *format, ...)
{
	bool is_shown = log_shows(log, level);
	if (!is_shown && level < LOG_LEVEL_INFO)
		return;
	struct line message;
	message.length = 0; /* an initialiser would clear all 16 KiB of it, each time */
	va_list arguments;
	va_start(arguments, format);
	put_v(&message, format, arguments);
	va_end(arguments);
	if (message.length > MESSAGE_MAX_BYTES)
		message.length = MESSAGE_MAX_BYTES;
	if (level >= LOG_LEVEL_INFO)
		keep_event(log, level, service, &message);
	if (!is_shown)
		return;
	hand_over(log, level, service, &message);
	if (log->main_sink.fd < 0)
		return;

	struct line line;
	line.length = 0;
	bool json = atomic_load(&log->json);
	put(&line, json ? "{\"time\":\"" : "");
	put_time(&line);
	put_f(&line, json ? "\",\"level\":\"%s\"" : " %-5s ", level_name(level));
	if (service != NULL) {
		put(&line, json ? ",\"service\":\"" : "");
		put_escaped(&line, service, strlen(service), json);
		put(&line, json ? "\"" : ": ");
	}
	if (json) {
		put(&line, ",\"message\":\"");
		put_escaped(&line, message.bytes, message.length, true);
		put(&line, "\"}");
	} else {
		put_plain(&line, message.bytes, message.length);
	}
	sink_write(&log->main_sink, &line, json);
}

bool log_wants_traces(struct log *log)
{
	return atomic_load_explicit(&log->traces, memory_order_relaxed);
}

void log_trace(struct log *log, const char *service, uint64_t number, uint64_t after_us, const char *format, ...)
{
	struct line message, line;
	va_list arguments;
	bool json = atomic_load(&log->json);
	message.length = line.length = 0;
	va_start(arguments, format);
	put_v(&message, format, arguments);
	va_end(arguments);
	if (message.length > MESSAGE_MAX_BYTES)
		message.length = MESSAGE_MAX_BYTES;
	if (json) {
		put(&line, "{\"time\":\"");
		put_time(&line);
		put_text(&line, "\",\"level\":\"trace\",\"service\":\"", (struct http_text){ service, strlen(service) }, true, "\"");
		put_f(&line, ",\"request\":%llu,\"after_us\":%llu", (unsigned long long)number, (unsigned long long)after_us);
		put(&line, ",\"message\":\"");
		put_escaped(&line, message.bytes, message.length, true);
		put(&line, "\"}");
	} else {
		put_f(&line, "trace %s #%llu +%.6f ", service, (unsigned long long)number, (double)after_us / 1e6);
		put_plain(&line, message.bytes, message.length);
	}
	hand_over(log, LOG_LEVEL_DEBUG, service, &line);
	sink_write(&log->main_sink, &line, json);
}

bool log_wants_access(struct log *log)
{
	return atomic_load_explicit(&log->access_on, memory_order_relaxed) || log_shows(log, LOG_LEVEL_DEBUG);
}

static void put_protocol(struct line *line, const struct log_access *a)
{
	if (a->protocol != NULL)
		put(line, a->protocol);
	else
		put_f(line, "HTTP/1.%u", a->minor_version);
}

static void put_access_json(struct line *line, const struct log_access *a)
{
	put(line, "{\"time\":\"");
	put_time(line);
	put_text(line, "\",\"service\":\"", (struct http_text){ a->service, strlen(a->service) }, true, "\"");
	put_f(line, ",\"client\":\"%s\"", a->client);
	put_text(line, ",\"method\":\"", a->method, true, "\"");
	put_text(line, ",\"uri\":\"", a->uri, true, "\"");
	put(line, ",\"protocol\":\"");
	put_protocol(line, a);
	put_f(line, "\",\"status\":%d", a->status);
	put_f(line, ",\"bytes_in\":%llu,\"bytes_out\":%llu", (unsigned long long)a->bytes_in, (unsigned long long)a->bytes_out);
	put_text(line, ",\"referer\":\"", a->referer, true, "\"");
	put_text(line, ",\"user_agent\":\"", a->user_agent, true, "\"");
	put_f(line, ",\"target\":\"%s\",\"tries\":%u", a->target != NULL ? a->target : "", a->tries);
	put_f(line, ",\"wait_us\":%llu,\"upstream_us\":%llu,\"total_us\":%llu", (unsigned long long)a->wait_us,
	      (unsigned long long)a->upstream_us, (unsigned long long)a->total_us);
	if (a->shadow != NULL)
		put_f(line, ",\"shadow\":\"%s\"", a->shadow);
	put_text(line, ",\"outcome\":\"", (struct http_text){ a->outcome, strlen(a->outcome) }, true, "\"}");
}

static void put_access_text(struct line *line, const struct log_access *a)
{
	time_t now = time(NULL);
	struct tm local;
	localtime_r(&now, &local);
	char stamp[40] = "";
	strftime(stamp, sizeof stamp, "%d/%b/%Y:%H:%M:%S %z", &local);
	put_f(line, "%s - - [%s] \"", a->client, stamp);
	put_text(line, "", a->method, false, " ");
	put_text(line, "", a->uri, false, "");
	put(line, " ");
	put_protocol(line, a);
	put_f(line, "\" %d %llu", a->status, (unsigned long long)a->bytes_out);
	put_text(line, " \"", a->referer, false, "\"");
	put_text(line, " \"", a->user_agent, false, "\"");
	put_f(line, " service=%s target=%s tries=%u", a->service, a->target != NULL ? a->target : "-", a->tries);
	put_f(line, " wait=%.6f upstream=%.6f total=%.6f", (double)a->wait_us / 1e6, (double)a->upstream_us / 1e6,
	      (double)a->total_us / 1e6);
	put_f(line, " bytes_in=%llu", (unsigned long long)a->bytes_in);
	if (a->shadow != NULL)
		put_f(line, " shadow=%s", a->shadow);
	put_text(line, " outcome=\"", (struct http_text){ a->outcome, strlen(a->outcome) }, false, "\"");
}

void log_access(struct log *log, const struct log_access *access)
{
	struct line line;
	line.length = 0;
	bool json = atomic_load(&log->json);
	if (json)
		put_access_json(&line, access);
	else
		put_access_text(&line, access);
	bool own = atomic_load(&log->access_on);
	if (!own || atomic_load(&log->access_is_taken))
		hand_over(log, own ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, access->service, &line);
	if (!own || !atomic_load(&log->access_is_taken))
		sink_write(own ? &log->access_sink : &log->main_sink, &line, json);
}
