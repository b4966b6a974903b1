/* log.c: see log.h.
 *
 *      a line is made on the caller's stack ──► one write() of the whole line ──► file, pipe or terminal
 *
 * Files are opened with O_APPEND: the kernel then puts each write() at the end, whole, whoever else writes to the file. So
 * no lock is held across a write, which can block. The mutex guards only the numbers of the open files, and a file that
 * log_reopen() replaces gets its new inode under the old number (dup2), so that no writer ever sees a closed one.
 *
 * A pipe or terminal that nobody reads would block us: before each write to something that is not a regular file we ask
 * poll() whether there is room, and drop the line when there is none. The next line that gets through says how many
 * were lost.
 *
 * The access line is the "combined" format that every log reader knows, with key=value pairs after it.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* An escaped byte takes up to six: four values of a request, or one message, always fit with all that stands around them. */
#define LINE_MAX_BYTES 16384
#define VALUE_MAX_BYTES 512
#define MESSAGE_MAX_BYTES 2048

struct sink {
	char *path;      /* NULL: one of the standard streams, which are not reopened */
	atomic_int fd;         /* -1: off */
	atomic_bool may_block; /* not a regular file */
	atomic_ullong dropped;
};

struct log {
	pthread_mutex_t mutex;
	atomic_int level;
	atomic_bool json;
	atomic_bool access_on;
	/* The mutex guards the sinks' paths, and opening. Writers use fd without it: a number stays open, on one file or
	   another, for as long as the log lives. */
	struct sink main_sink, access_sink;
};

LOCK_VERBS(log, mutex, log_mutex)

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

/* Writes a whole line, or drops it. A short write happens only on a full disk or pipe: what is lost then is counted. */
static void sink_write(struct sink *sink, struct line *line)
{
	int fd = sink->fd;
	if (fd < 0)
		return;
	line->bytes[line->length++] = '\n';
	if (sink->may_block) {
		struct pollfd room = { .fd = fd, .events = POLLOUT };
		if (poll(&room, 1, 0) != 1 || (room.revents & POLLOUT) == 0) {
			atomic_fetch_add(&sink->dropped, 1);
			return;
		}
	}
	unsigned long long dropped = atomic_exchange(&sink->dropped, 0);
	if (dropped > 0)
		dprintf(fd, "# %llu log lines were dropped: nobody was reading\n", dropped);
	ssize_t written = write(fd, line->bytes, line->length);
	if (written < 0)
		atomic_fetch_add(&sink->dropped, 1);
}

static bool is_regular(int fd)
{
	struct stat status;
	return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/* Opens path (NULL: the standard stream) and puts it where the sink's writers look. */
static bool sink_open(struct sink *sink, const char *path, int standard, char *error, size_t error_size)
{
	int fd = standard;
	char *copy = NULL;
	if (path != NULL) {
		copy = strdup(path);
		fd = copy == NULL ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
		if (fd < 0) {
			snprintf(error, error_size, "cannot open the log file \"%s\": %s", path, strerror(errno));
			free(copy);
			return false;
		}
	} else {
		fd = fcntl(standard, F_DUPFD_CLOEXEC, 3);
		if (fd < 0) /* started with that stream closed: nobody wants to hear */
			fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (fd < 0) {
			snprintf(error, error_size, "cannot open a log stream: %s", strerror(errno));
			return false;
		}
	}
	bool may_block = !is_regular(fd);
	if (sink->fd >= 0) {
		dup3(fd, sink->fd, O_CLOEXEC);
		close(fd);
	} else {
		sink->fd = fd;
	}
	sink->may_block = may_block;
	free(sink->path);
	sink->path = copy;
	return true;
}

static bool apply(struct log *log, const struct log_options *options, char *error, size_t error_size)
{
	bool good = sink_open(&log->main_sink, options->path, STDERR_FILENO, error, error_size);
	const char *access = options->access_path;
	if (good && access != NULL) {
		const char *path = strcmp(access, "-") == 0 ? NULL : access;
		good = sink_open(&log->access_sink, path, STDOUT_FILENO, error, error_size);
	}
	if (!good)
		return false;
	atomic_store(&log->access_on, access != NULL);
	atomic_store(&log->level, (int)options->level);
	atomic_store(&log->json, options->json);
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
	log->main_sink.fd = log->access_sink.fd = -1;
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

static void reopen(struct log *log, struct sink *sink)
{
	char error[512] = "";
	log_lock(log);
	char *path = sink->path == NULL ? NULL : strdup(sink->path);
	bool good = path == NULL || sink_open(sink, path, -1, error, sizeof error);
	log_unlock(log);
	free(path);
	if (!good)
		log_write(log, LOG_LEVEL_ERROR, NULL, "%s; the old file stays in use", error);
}

void log_reopen(struct log *log)
{
	reopen(log, &log->main_sink);
	reopen(log, &log->access_sink);
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

void log_write(struct log *log, enum log_level level, const char *service, const char *format, ...)
{
	if (!log_shows(log, level))
		return;
	struct line message;
	message.length = 0; /* an initialiser would clear all 16 KiB of it, each time */
	va_list arguments;
	va_start(arguments, format);
	put_v(&message, format, arguments);
	va_end(arguments);
	if (message.length > MESSAGE_MAX_BYTES)
		message.length = MESSAGE_MAX_BYTES;

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
	sink_write(&log->main_sink, &line);
}

bool log_wants_access(struct log *log)
{
	return atomic_load_explicit(&log->access_on, memory_order_relaxed) || log_shows(log, LOG_LEVEL_DEBUG);
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

static void put_access_json(struct line *line, const struct log_access *a)
{
	put(line, "{\"time\":\"");
	put_time(line);
	put_text(line, "\",\"service\":\"", (struct http_text){ a->service, strlen(a->service) }, true, "\"");
	put_f(line, ",\"client\":\"%s\"", a->client);
	put_text(line, ",\"method\":\"", a->method, true, "\"");
	put_text(line, ",\"uri\":\"", a->uri, true, "\"");
	put_f(line, ",\"protocol\":\"HTTP/1.%u\",\"status\":%d", a->minor_version, a->status);
	put_f(line, ",\"bytes_in\":%llu,\"bytes_out\":%llu", (unsigned long long)a->bytes_in, (unsigned long long)a->bytes_out);
	put_text(line, ",\"referer\":\"", a->referer, true, "\"");
	put_text(line, ",\"user_agent\":\"", a->user_agent, true, "\"");
	put_f(line, ",\"target\":\"%s\",\"tries\":%u", a->target != NULL ? a->target : "", a->tries);
	put_f(line, ",\"wait_us\":%llu,\"upstream_us\":%llu,\"total_us\":%llu", (unsigned long long)a->wait_us,
	      (unsigned long long)a->upstream_us, (unsigned long long)a->total_us);
	put_f(line, ",\"outcome\":\"%s\"}", a->outcome);
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
	put_f(line, " HTTP/1.%u\" %d %llu", a->minor_version, a->status, (unsigned long long)a->bytes_out);
	put_text(line, " \"", a->referer, false, "\"");
	put_text(line, " \"", a->user_agent, false, "\"");
	put_f(line, " service=%s target=%s tries=%u", a->service, a->target != NULL ? a->target : "-", a->tries);
	put_f(line, " wait=%.6f upstream=%.6f total=%.6f", (double)a->wait_us / 1e6, (double)a->upstream_us / 1e6,
	      (double)a->total_us / 1e6);
	put_f(line, " bytes_in=%llu outcome=\"%s\"", (unsigned long long)a->bytes_in, a->outcome);
}

void log_access(struct log *log, const struct log_access *access)
{
	struct line line;
	line.length = 0;
	if (atomic_load(&log->json))
		put_access_json(&line, access);
	else
		put_access_text(&line, access);
	bool own = atomic_load(&log->access_on);
	sink_write(own ? &log->access_sink : &log->main_sink, &line);
}
