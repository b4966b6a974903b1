/* wire.c: just enough HTTP/1.1 framing for the two demo programs. See wire.h for the idea.
 *
 * A chunked body on the wire (RFC 9112 section 7.1), and who reads what:
 *
 *      "5;note=x\r\n"      wire_line, read_chunk_size        hex digits, then an extension that nobody uses
 *      "Hello" "\r\n"      skip_bytes, wire_line             the line after the data must be empty
 *      "0\r\n"             the last chunk
 *      "X-Sum: 1\r\n"      wire_line                         trailers, bounded by the budget
 *      "\r\n"              the end
 *
 * A body is over when its framing says so and never before: a connection that closes in the middle gives WIRE_END, and
 * the caller must not take that for a whole message. This is how a proxy that cuts answers short is caught.
 */
#include "wire.h"

#include "clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define CHUNK_LINES_BYTES 4096 /* one chunk's size line; and all trailers together */

void wire_begin(struct wire *w, int fd)
{
	w->fd = fd;
	w->wants_arrival = false;
	w->arrived_us = 0;
	w->start = w->end = 0;
}

/* poll() counts in milliseconds: rounded up, or the last millisecond would be spent turning round and round. */
static enum wire_result wait_for(int fd, short events, uint64_t deadline_us)
{
	for (;;) {
		uint64_t left_us = clock_left_us(deadline_us);
		if (left_us == 0)
			return WIRE_LATE;
		uint64_t left_ms = left_us / US_PER_MS + 1;
		struct pollfd p = { .fd = fd, .events = events };
		int ready = poll(&p, 1, left_us == CLOCK_NEVER ? -1 : left_ms > 60000 ? 60000 : (int)left_ms);
		if (ready > 0)
			return WIRE_OK;
		if (ready < 0 && errno != EINTR)
			return WIRE_RESET;
	}
}

/* When the kernel received these bytes. Its own note is taken since a busy machine may wake this thread much later. */
static uint64_t arrival_us(struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
			struct timespec t;
			memcpy(&t, CMSG_DATA(c), sizeof t);
			return (uint64_t)t.tv_sec * US_PER_S + (uint64_t)t.tv_nsec / 1000;
		}
	}
	return 0;
}

static ssize_t receive(struct wire *w, char *into, size_t room)
{
	if (!w->wants_arrival)
		return recv(w->fd, into, room, MSG_DONTWAIT);
	_Alignas(struct cmsghdr) char notes[128];
	struct iovec piece = { .iov_base = into, .iov_len = room };
	struct msghdr message = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = notes, .msg_controllen = sizeof notes,
	};
	ssize_t got = recvmsg(w->fd, &message, MSG_DONTWAIT);
	if (got > 0)
		w->arrived_us = arrival_us(&message);
	return got;
}

/* Adds at least one byte to what is in the buffer, which must have room once it is moved to the front. */
static enum wire_result fill(struct wire *w, uint64_t deadline_us)
{
	if (w->start == w->end) {
		w->start = w->end = 0;
	} else if (w->end == sizeof w->buffer) {
		memmove(w->buffer, w->buffer + w->start, w->end - w->start);
		w->end -= w->start;
		w->start = 0;
	}
	for (;;) {
		ssize_t got = receive(w, w->buffer + w->end, sizeof w->buffer - w->end);
		if (got > 0) {
			w->end += (size_t)got;
			return WIRE_OK;
		}
		if (got == 0)
			return WIRE_END;
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return WIRE_RESET;
		enum wire_result waited = wait_for(w->fd, POLLIN, deadline_us);
		if (waited != WIRE_OK)
			return waited;
	}
}

enum wire_result wire_wait(struct wire *w, uint64_t deadline_us)
{
	return w->start < w->end ? WIRE_OK : fill(w, deadline_us);
}

enum wire_result wire_line(struct wire *w, size_t *budget_bytes, uint64_t deadline_us, char **line)
{
	size_t seen = 0;
	for (;;) {
		char *begin = w->buffer + w->start;
		size_t held = w->end - w->start;
		char *newline = held > seen ? memchr(begin + seen, '\n', held - seen) : NULL;
		size_t length = newline ? (size_t)(newline - begin) + 1 : held;
		if (length > *budget_bytes)
			return WIRE_TOO_BIG;
		if (newline) {
			if (length < 2 || newline[-1] != '\r')
				return WIRE_MALFORMED;
			newline[-1] = '\0';
			/* A NUL or a further CR inside would make this line something else for the next reader. */
			if (strlen(begin) != length - 2 || strchr(begin, '\r'))
				return WIRE_MALFORMED;
			*budget_bytes -= length;
			w->start += length;
			*line = begin;
			return WIRE_OK;
		}
		if (held == sizeof w->buffer)
			return WIRE_TOO_BIG;
		seen = held;
		enum wire_result filled = fill(w, deadline_us);
		if (filled != WIRE_OK)
			return filled;
	}
}

static bool is_token_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

bool wire_field(char *line, char **name, char **value)
{
	char *at = line;
	while (is_token_char(*at))
		at++;
	if (at == line || *at != ':')
		return false;
	*at++ = '\0';
	at += strspn(at, " \t");
	size_t length = strlen(at);
	while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t'))
		length--;
	at[length] = '\0';
	*name = line;
	*value = at;
	return true;
}

bool wire_list_has(const char *list, const char *word)
{
	size_t word_length = strlen(word);
	for (const char *at = list; *at;) {
		at += strspn(at, ", \t");
		size_t length = strcspn(at, ", \t");
		if (length == word_length && strncasecmp(at, word, length) == 0)
			return true;
		at += length;
	}
	return false;
}

static bool read_length(const char *text, uint64_t *out)
{
	uint64_t number = 0;
	size_t digits = strspn(text, "0123456789");
	/* 18 digits cannot overflow, and no body is that long. */
	if (digits == 0 || digits > 18 || text[digits] != '\0')
		return false;
	for (size_t i = 0; i < digits; i++)
		number = number * 10 + (uint64_t)(text[i] - '0');
	*out = number;
	return true;
}

enum wire_result wire_framing_field(struct wire_framing *f, const char *name, const char *value)
{
	if (strcasecmp(name, "Content-Length") == 0) {
		uint64_t length;
		if (!read_length(value, &length) || f->is_chunked || (f->has_length && f->length != length))
			return WIRE_MALFORMED;
		f->has_length = true;
		f->length = length;
	} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
		if (f->has_length || f->is_chunked || strcasecmp(value, "chunked") != 0)
			return WIRE_MALFORMED;
		f->is_chunked = true;
	} else if (strcasecmp(name, "Connection") == 0) {
		f->asks_close = f->asks_close || wire_list_has(value, "close");
		f->asks_keep_alive = f->asks_keep_alive || wire_list_has(value, "keep-alive");
	}
	return WIRE_OK;
}

static enum wire_result skip_bytes(struct wire *w, uint64_t length, uint64_t deadline_us)
{
	while (length > 0) {
		enum wire_result waited = wire_wait(w, deadline_us);
		if (waited != WIRE_OK)
			return waited;
		size_t held = w->end - w->start;
		size_t used = length < held ? (size_t)length : held;
		w->start += used;
		length -= used;
	}
	return WIRE_OK;
}

static bool read_chunk_size(const char *line, uint64_t *out)
{
	uint64_t size = 0;
	size_t digits = strspn(line, "0123456789abcdefABCDEF");
	size_t blanks = strspn(line + digits, " \t");
	char after = line[digits + blanks];
	/* RFC 9112 allows blanks before ';' only (and calls them bad). 15 digits cannot overflow. */
	if (digits == 0 || digits > 15 || (after != ';' && (after != '\0' || blanks > 0)))
		return false;
	for (size_t i = 0; i < digits; i++) {
		char c = line[i];
		uint64_t digit = (uint64_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
		size = size * 16 + digit;
	}
	*out = size;
	return true;
}

static enum wire_result skip_trailers(struct wire *w, uint64_t deadline_us)
{
	size_t budget_bytes = CHUNK_LINES_BYTES;
	for (;;) {
		char *line, *name, *value;
		enum wire_result got = wire_line(w, &budget_bytes, deadline_us, &line);
		if (got != WIRE_OK || *line == '\0')
			return got;
		if (!wire_field(line, &name, &value))
			return WIRE_MALFORMED;
	}
}

static enum wire_result skip_chunks(struct wire *w, uint64_t limit_bytes, uint64_t deadline_us, uint64_t *body_bytes)
{
	for (;;) {
		size_t budget_bytes = CHUNK_LINES_BYTES;
		uint64_t size;
		char *line;
		enum wire_result got = wire_line(w, &budget_bytes, deadline_us, &line);
		if (got != WIRE_OK)
			return got;
		if (!read_chunk_size(line, &size))
			return WIRE_MALFORMED;
		if (size == 0)
			return skip_trailers(w, deadline_us);
		if (size > limit_bytes)
			return WIRE_TOO_BIG;
		limit_bytes -= size;
		got = skip_bytes(w, size, deadline_us);
		if (got != WIRE_OK)
			return got;
		*body_bytes += size;
		got = wire_line(w, &budget_bytes, deadline_us, &line);
		if (got != WIRE_OK)
			return got;
		if (*line != '\0')
			return WIRE_MALFORMED;
	}
}

enum wire_result wire_skip_body(struct wire *w, const struct wire_framing *f, uint64_t limit_bytes,
                                uint64_t deadline_us, uint64_t *body_bytes)
{
	if (f->is_chunked)
		return skip_chunks(w, limit_bytes, deadline_us, body_bytes);
	if (!f->has_length)
		return WIRE_OK;
	if (f->length > limit_bytes)
		return WIRE_TOO_BIG;
	enum wire_result got = skip_bytes(w, f->length, deadline_us);
	if (got == WIRE_OK)
		*body_bytes += f->length;
	return got;
}

enum wire_result wire_skip_to_end(struct wire *w, uint64_t limit_bytes, uint64_t deadline_us, uint64_t *body_bytes)
{
	for (;;) {
		size_t held = w->end - w->start;
		if (held > limit_bytes)
			return WIRE_TOO_BIG;
		limit_bytes -= held;
		*body_bytes += held;
		w->start = w->end;
		enum wire_result got = fill(w, deadline_us);
		if (got != WIRE_OK)
			return got == WIRE_END ? WIRE_OK : got;
	}
}

enum wire_result wire_send(int fd, const char *bytes, size_t length, uint64_t deadline_us)
{
	while (length > 0) {
		/* MSG_NOSIGNAL: a peer that has gone is an error of this connection, not a SIGPIPE that ends the program. */
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) {
			bytes += sent;
			length -= (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return WIRE_RESET;
		enum wire_result waited = wait_for(fd, POLLOUT, deadline_us);
		if (waited != WIRE_OK)
			return waited;
	}
	return WIRE_OK;
}
