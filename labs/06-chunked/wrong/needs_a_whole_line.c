/* A chunk's head is looked for in the bytes of one read, with strstr's brothers and strtoul: it works until the
 * network cuts a line in two.
 * grader: cut to "5" and
 */
#include <stdlib.h>

#include "lib/body.h"

#include <string.h>

enum chunked_state { SIZE, DATA, DONE, SPOILT };

void body_begin(struct body *body, enum http_framing framing, uint64_t content_length)
{
	memset(body, 0, sizeof *body);
	body->framing = framing;
	body->left = framing == HTTP_BY_LENGTH ? content_length : 0;
	body->state = SIZE;
}

static enum body_event read_chunked(struct body *body, const char *bytes, size_t length, size_t *used,
                                    struct http_text *data)
{
	if (body->state == DONE)
		return BODY_END;
	if (body->state == DATA && length > 0) {
		size_t count = body->left < length ? (size_t)body->left : length;

		*data = (struct http_text){ bytes, count };
		*used = count;
		body->left -= count;
		body->payload_bytes += count;
		if (body->left == 0)
			body->state = SIZE;
		return BODY_DATA;
	}
	size_t at = 0;
	if (length >= 2 && memcmp(bytes, "\r\n", 2) == 0)
		at = 2; /* of the chunk before */
	const char *end = length > at ? memchr(bytes + at, '\n', length - at) : NULL;
	if (end == NULL) {
		*used = length;
		return BODY_MORE;
	}
	body->left = strtoul(bytes + at, NULL, 16);
	*used = (size_t)(end - bytes) + 1;
	body->state = DATA;
	if (body->left == 0) {
		*used = *used + 2 <= length ? *used + 2 : length;
		body->state = DONE;
		return BODY_END;
	}
	size_t head = *used;
	enum body_event event = head < length ? read_chunked(body, bytes + head, length - head, used, data) : BODY_MORE;
	if (head < length)
		*used += head;
	return event;
}

bool body_may_end_here(const struct body *body)
{
	if (body->framing == HTTP_CHUNKED)
		return body->state == DONE;
	return body->framing != HTTP_BY_LENGTH || body->left == 0;
}

/* ---- the other framings, and what we send: done ------------------------------------------------------------------ */

static size_t smaller(uint64_t left, size_t length)
{
	return left < length ? (size_t)left : length;
}

static enum body_event take(struct body *body, const char *bytes, size_t length, size_t *used, struct http_text *data)
{
	*data = (struct http_text){ bytes, length };
	*used = length;
	body->payload_bytes += length;
	return BODY_DATA;
}

enum body_event body_read(struct body *body, const char *bytes, size_t length, size_t *used, struct http_text *data)
{
	*used = 0;
	*data = (struct http_text){ NULL, 0 };
	if (body->framing == HTTP_CHUNKED)
		return read_chunked(body, bytes, length, used, data);
	if (body->framing == HTTP_NO_BODY || (body->framing == HTTP_BY_LENGTH && body->left == 0))
		return BODY_END;
	if (length == 0)
		return BODY_MORE;
	if (body->framing == HTTP_BY_LENGTH) {
		length = smaller(body->left, length);
		body->left -= length;
	}
	return take(body, bytes, length, used, data);
}

size_t body_chunk_head(char out[BODY_CHUNK_HEAD_MAX], size_t length)
{
	static const char digits[] = "0123456789abcdef";
	size_t count = 1, written = 0;

	for (size_t rest = length >> 4; rest > 0; rest >>= 4)
		count++;
	while (count-- > 0)
		out[written++] = digits[length >> (4 * count) & 15];
	out[written++] = '\r';
	out[written++] = '\n';
	return written;
}
