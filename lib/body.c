/* body.c: finds the end of a body, and takes chunked framing off.
 *
 *      1a;name=value\r\n      chunk head: size in hex, extensions (dropped)
 *      <26 bytes>\r\n         payload, and a line end of its own
 *      0\r\n                  the last chunk has size 0
 *      Name: value\r\n        trailer fields, checked as those of a head are
 *      \r\n                   the empty line: here the body ends
 *
 * The reader is a machine with a few states that looks at framing byte by byte and at payload in one piece. All it
 * knows between two calls is in struct body, so it does not matter where the bytes were cut: inside a size, between
 * CR and LF, anywhere.
 *
 *      SIZE ─► EXTENSION ─► SIZE_LF ─► DATA ─► DATA_CR ─► DATA_LF ─┐
 *        ▲                     │ size 0                            │
 *        └─────────────────────┼───────────────────────────────────┘
 *                              └──► TRAILERS ─► DONE               anything unexpected ─► SPOILT, for good
 *
 * Why so strict about a few hex digits? Each freedom has been a hole in some proxy: "0x5", "+5", "5 ", a size that
 * overflows to a small one, a bare LF after the extension, two bytes skipped unseen after the payload. Whoever reads
 * one byte more or less than the next server reads the rest of the body as a request (RFC 9112 §7.1, §11.2).
 *
 * A chunk head may be far longer than its chunk. Extensions are counted, in one head and over all, so that nobody is
 * kept reading megabytes for a body of a few bytes (CVE-2023-39326).
 */
#include <string.h>

#include "body.h"
#include "http_parts.h"

enum body_state { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILERS, DONE, SPOILT };

/* 16 digits are 64 bits; the value is kept below 2^60, so that sums of sizes can't overflow either. */
#define SIZE_DIGITS_MAX 16
#define SIZE_LIMIT (UINT64_C(1) << 60)

void body_begin(struct body *body, enum http_framing framing, uint64_t content_length)
{
	/* The trailers' 4 KiB are not cleared: trailers_length says how many of them mean something. */
	body->framing = framing;
	body->left = framing == HTTP_BY_LENGTH ? content_length : 0;
	body->payload_bytes = 0;
	body->why = NULL;
	body->state = SIZE;
	body->extension_bytes = 0;
	body->extensions_bytes = 0;
	body->size_digits = 0;
	body->trailers_length = 0;
	body->line_length = 0;
	body->trailers_wire_bytes = 0;
}

static void spoil(struct body *body, const char *why)
{
	body->why = why;
	body->state = SPOILT;
}

/* ---- chunk heads ----------------------------------------------------------------------------------------------- */

static uint64_t hex_value(char digit)
{
	return (uint64_t)(http_is(digit, HTTP_IN_DIGITS) ? digit - '0' : (digit | 0x20) - 'a' + 10);
}

static void read_size_byte(struct body *body, char byte)
{
	if (http_is(byte, HTTP_IN_HEX)) {
		if (++body->size_digits > SIZE_DIGITS_MAX) {
			spoil(body, "chunk size too long");
			return;
		}
		/* left < 2^60 before, so it can't overflow here. */
		body->left = body->left * 16 + hex_value(byte);
		if (body->left >= SIZE_LIMIT)
			spoil(body, "chunk size too large");
	} else if (body->size_digits == 0) {
		spoil(body, "malformed chunk size");
	} else if (byte == '\r') {
		body->state = SIZE_LF;
	} else if (byte == ';') {
		body->extension_bytes = 0;
		body->state = EXTENSION;
	} else {
		spoil(body, "malformed chunk size");
	}
}

/* Extensions are not understood and not passed on; only bytes that could never stand in one are refused. Quotes need
   no care: no quoted string can hold a CR. */
static void read_extension_byte(struct body *body, char byte)
{
	if (byte == '\r')
		body->state = SIZE_LF;
	else if (!http_is(byte, HTTP_IN_VALUE))
		spoil(body, "forbidden character in a chunk extension");
	else if (++body->extension_bytes > BODY_EXTENSION_MAX || ++body->extensions_bytes > BODY_EXTENSIONS_MAX)
		spoil(body, "chunk extensions too long");
}

/* One byte of framing, outside payload and trailers. */
static void read_framing_byte(struct body *body, char byte)
{
	switch ((enum body_state)body->state) {
	case SIZE:
		read_size_byte(body, byte);
		break;
	case EXTENSION:
		read_extension_byte(body, byte);
		break;
	case SIZE_LF:
		body->size_digits = 0;
		body->state = body->left > 0 ? DATA : TRAILERS;
		if (byte != '\n')
			spoil(body, "chunk head without a line end");
		break;
	case DATA_CR:
		body->state = DATA_LF;
		if (byte != '\r')
			spoil(body, "chunk without a line end");
		break;
	case DATA_LF:
		body->state = SIZE;
		if (byte != '\n')
			spoil(body, "chunk without a line end");
		break;
	default:
		break;
	}
}

/* ---- trailers -------------------------------------------------------------------------------------------------- */

/* Fields that decide about the message before its body is read, or about this connection, come too late in a trailer:
   a program that merged them into the head would read another message than we did (RFC 9110 §6.5.1). */
static bool belongs_in_trailer(const struct http_field *field)
{
	static const char *const forbidden[] = {
		"accept-ranges", "age", "authorization", "cache-control", "content-encoding", "content-location",
		"content-range", "content-type", "cookie", "expires", "forwarded", "if-match", "if-modified-since",
		"if-none-match", "if-range", "if-unmodified-since", "location", "pragma", "proxy-authenticate", "range",
		"retry-after", "set-cookie", "vary", "www-authenticate",
	};
	switch (field->known) {
	case HTTP_NAME_OTHER:
		break;
	case HTTP_NAME_REFERER:
	case HTTP_NAME_USER_AGENT:
		return true;
	default:
		return false; /* framing, routing, hop-by-hop, what proxies say */
	}
	for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
		if (http_text_is(field->name, forbidden[i]))
			return false;
	return true;
}

/* A whole line stands behind the trailers kept: it joins them, or is dropped, or ends the body. */
static void end_trailer_line(struct body *body)
{
	const char *line = body->trailers + body->trailers_length;
	struct http_cursor c = { line, line + body->line_length };
	struct http_field field;

	if (http_take_line_end(&c)) {
		body->state = DONE;
	} else {
		const char *why = http_read_field(&c, &field);
		if (why)
			spoil(body, why);
		else if (belongs_in_trailer(&field))
			body->trailers_length += body->line_length;
	}
	body->line_length = 0;
}

/* Takes bytes up to the end of a trailer line, or all there are. */
static size_t read_trailer_bytes(struct body *body, const char *bytes, size_t length)
{
	const char *line_feed = memchr(bytes, '\n', length);
	size_t count = line_feed ? (size_t)(line_feed - bytes) + 1 : length;

	/* What is kept is never more than what came, so this bound is the buffer's as well. */
	if (count > BODY_TRAILERS_MAX - body->trailers_wire_bytes) {
		spoil(body, "trailers too long");
		return 0;
	}
	body->trailers_wire_bytes += count;
	memcpy(body->trailers + body->trailers_length + body->line_length, bytes, count);
	body->line_length += count;
	if (line_feed)
		end_trailer_line(body);
	return count;
}

/* ---- bodies ---------------------------------------------------------------------------------------------------- */

static enum body_event take_payload(struct body *body, const char *bytes, size_t length, struct http_text *data)
{
	*data = (struct http_text){ bytes, length };
	body->payload_bytes += length;
	return BODY_DATA;
}

static size_t smaller(uint64_t left, size_t length)
{
	return left < length ? (size_t)left : length;
}

static enum body_event read_chunked(struct body *body, const char *bytes, size_t length, size_t *used,
                                    struct http_text *data)
{
	size_t at = 0;
	enum body_event event = BODY_MORE;

	while (at < length && event == BODY_MORE && body->state != DONE && body->state != SPOILT) {
		if (body->state == DATA) {
			size_t count = smaller(body->left, length - at);
			event = take_payload(body, bytes + at, count, data);
			at += count;
			body->left -= count;
			if (body->left == 0)
				body->state = DATA_CR;
		} else if (body->state == TRAILERS) {
			at += read_trailer_bytes(body, bytes + at, length - at);
		} else {
			read_framing_byte(body, bytes[at++]);
		}
	}
	*used = at;
	if (body->state == SPOILT)
		return BODY_BAD;
	return body->state == DONE ? BODY_END : event;
}

static enum body_event read_by_length(struct body *body, const char *bytes, size_t length, size_t *used,
                                      struct http_text *data)
{
	if (body->left == 0)
		return BODY_END;
	if (length == 0)
		return BODY_MORE;
	*used = smaller(body->left, length);
	body->left -= *used;
	return take_payload(body, bytes, *used, data);
}

enum body_event body_read(struct body *body, const char *bytes, size_t length, size_t *used, struct http_text *data)
{
	*used = 0;
	*data = (struct http_text){ NULL, 0 };
	switch (body->framing) {
	case HTTP_CHUNKED:
		return read_chunked(body, bytes, length, used, data);
	case HTTP_BY_LENGTH:
		return read_by_length(body, bytes, length, used, data);
	case HTTP_UNTIL_CLOSE:
		*used = length;
		return length > 0 ? take_payload(body, bytes, length, data) : BODY_MORE;
	case HTTP_NO_BODY:
		break;
	}
	return BODY_END;
}

bool body_may_end_here(const struct body *body)
{
	switch (body->framing) {
	case HTTP_CHUNKED:
		return body->state == DONE;
	case HTTP_BY_LENGTH:
		return body->left == 0;
	case HTTP_UNTIL_CLOSE:
	case HTTP_NO_BODY:
		break;
	}
	return true;
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
