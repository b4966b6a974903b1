/* message.c: see message.h.
 *
 * The reader is strict, as the reader of a proxy's words may be: lines end with CRLF, sizes are plain hex, one framing. It is
 * written anew here, and not weir's own: two ends that share a mistake agree.
 */
#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define CHUNK_BYTES_MAX 3000u /* of those we make */
#define CHUNK_ROOM 16u        /* the line before one, and the line's end behind it */
#define LINE_BYTES_MAX 20u

static char pattern(uint64_t number, uint64_t at)
{
	return (char)(unsigned char)(number * 131u + at * 7u + (at >> 8));
}

void outgoing_begin(struct outgoing *out, const char *head, uint64_t number, uint64_t body_bytes, bool is_chunked)
{
	size_t length = strlen(head);
	memcpy(out->bytes, head, length);
	out->length = length;
	out->sent = 0;
	out->number = number;
	out->body_bytes = body_bytes;
	out->made_bytes = 0;
	out->is_chunked = is_chunked;
	out->is_made = !is_chunked && body_bytes == 0;
}

static void make_bytes(struct outgoing *out, size_t count)
{
	for (size_t i = 0; i < count; i++)
		out->bytes[out->length++] = pattern(out->number, out->made_bytes++);
}

/* One chunk, or the end of them. False: no room. */
static bool make_chunk(struct outgoing *out)
{
	size_t room = OUT_BYTES - out->length, count = CHUNK_BYTES_MAX;
	if (count > out->body_bytes - out->made_bytes)
		count = (size_t)(out->body_bytes - out->made_bytes);
	if (room < count + CHUNK_ROOM)
		return false;
	out->length += (size_t)snprintf(out->bytes + out->length, room, "%zx\r\n", count);
	make_bytes(out, count);
	memcpy(out->bytes + out->length, "\r\n", 2);
	out->length += 2;
	out->is_made = count == 0;
	return true;
}

/* Fills the buffer. */
static void make_more(struct outgoing *out)
{
	while (out->is_chunked && !out->is_made && make_chunk(out))
		;
	if (out->is_chunked)
		return;
	size_t room = OUT_BYTES - out->length;
	uint64_t left = out->body_bytes - out->made_bytes;
	make_bytes(out, left < room ? (size_t)left : room);
	out->is_made = out->made_bytes == out->body_bytes;
}

enum sending outgoing_send(struct outgoing *out, int fd)
{
	for (;;) {
		if (!out->is_made)
			make_more(out);
		if (out->sent == out->length)
			return SENDING_DONE;
		ssize_t count = send(fd, out->bytes + out->sent, out->length - out->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (count < 0)
			return errno == EAGAIN || errno == EINTR || errno == ENOTCONN ? SENDING_LATER : SENDING_BROKEN;
		out->sent += (size_t)count;
		if (out->sent == out->length)
			out->sent = out->length = 0;
		else
			return SENDING_LATER;
	}
}

/* ---- in ------------------------------------------------------------------------------------------------------------- */

void incoming_begin(struct incoming *in)
{
	in->head_bytes = 0;
	in->head[0] = '\0';
	in->head_is_whole = false;
	in->framing = FRAMING_NONE;
	in->left_bytes = 0;
	in->part = CHUNK_SIZE;
	in->line_bytes = 0;
	in->number = in->body_bytes = 0;
	in->wrong = NULL;
}

static enum receiving wrong(struct incoming *in, const char *what)
{
	in->wrong = what;
	return RECEIVING_WRONG;
}

const char *incoming_field(const struct incoming *in, const char *name)
{
	size_t length = strlen(name);
	for (const char *line = strstr(in->head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n"))
		if (strncasecmp(line + 2, name, length) == 0)
			return line + 2 + length;
	return NULL;
}

static enum receiving understand_head(struct incoming *in)
{
	const char *length = incoming_field(in, "content-length: "), *coding = incoming_field(in, "transfer-encoding: ");
	if (length != NULL && coding != NULL)
		return wrong(in, "two framings");
	if (coding != NULL && strncmp(coding, "chunked\r\n", 9) != 0)
		return wrong(in, "a coding that is not chunked");
	in->framing = coding != NULL ? FRAMING_CHUNKED : length != NULL ? FRAMING_LENGTH : FRAMING_NONE;
	in->left_bytes = length != NULL ? strtoull(length, NULL, 10) : 0;
	in->head_is_whole = true;
	return RECEIVING_HEAD;
}

static enum receiving take_head(struct incoming *in, const char *bytes, size_t length, size_t *used)
{
	while (*used < length) {
		if (in->head_bytes == HEAD_BYTES)
			return wrong(in, "a head without an end");
		char c = bytes[(*used)++];
		in->head[in->head_bytes++] = c;
		in->head[in->head_bytes] = '\0';
		if (c == '\n' && in->head_bytes >= 4 && memcmp(in->head + in->head_bytes - 4, "\r\n\r\n", 4) == 0)
			return understand_head(in);
	}
	return RECEIVING_MORE;
}

bool incoming_check(struct incoming *in, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != pattern(in->number, in->body_bytes++))
			return false;
	return true;
}

/* As much of the body, or of the chunk, as there is. */
static bool take_data(struct incoming *in, const char *bytes, size_t length, size_t *used)
{
	size_t count = length - *used < in->left_bytes ? length - *used : (size_t)in->left_bytes;
	bool good = incoming_check(in, bytes + *used, count);
	*used += count;
	in->left_bytes -= count;
	return good;
}

/* One character of the lines between chunks. */
static enum receiving take_line(struct incoming *in, char c)
{
	if (c == '\r')
		return RECEIVING_MORE;
	if (c != '\n') {
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (in->part != CHUNK_SIZE || digit < 0 || ++in->line_bytes > LINE_BYTES_MAX)
			return wrong(in, "a malformed line between chunks");
		in->left_bytes = in->left_bytes * 16 + (unsigned)digit;
		return RECEIVING_MORE;
	}
	if (in->part == CHUNK_TRAILER)
		return RECEIVING_WHOLE;
	if (in->part == CHUNK_SIZE && in->line_bytes == 0)
		return wrong(in, "a chunk without a size");
	if (in->part == CHUNK_SIZE)
		in->part = in->left_bytes == 0 ? CHUNK_TRAILER : CHUNK_DATA;
	else
		in->part = CHUNK_SIZE;
	in->line_bytes = 0;
	return RECEIVING_MORE;
}

static enum receiving take_chunks(struct incoming *in, const char *bytes, size_t length, size_t *used)
{
	enum receiving state = RECEIVING_MORE;
	while (*used < length && state == RECEIVING_MORE) {
		if (in->part != CHUNK_DATA) {
			state = take_line(in, bytes[(*used)++]);
			continue;
		}
		if (!take_data(in, bytes, length, used))
			return wrong(in, "a byte of the body is another");
		if (in->left_bytes == 0)
			in->part = CHUNK_END;
	}
	return state;
}

enum receiving incoming_take(struct incoming *in, const char *bytes, size_t length, size_t *used)
{
	*used = 0;
	if (!in->head_is_whole)
		return take_head(in, bytes, length, used);
	if (in->framing == FRAMING_CHUNKED)
		return take_chunks(in, bytes, length, used);
	if (in->framing == FRAMING_LENGTH && !take_data(in, bytes, length, used))
		return wrong(in, "a byte of the body is another");
	return in->left_bytes == 0 ? RECEIVING_WHOLE : RECEIVING_MORE;
}
