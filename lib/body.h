/* body.h: finds the end of a body in a stream of bytes, and takes chunked framing off and puts it on.
 *
 *      wire bytes ──► body_read() ──► payload pieces (where they lie, nothing is copied) … then BODY_END
 *
 * The reader keeps its place between calls, so any division of the bytes over reads gives the same payload. It is
 * given wire bytes and says how many of them it used and which of those are payload. What is left after BODY_END
 * belongs to the next message. Chunks are never relayed as they came: the payload is framed anew, extensions are
 * dropped, trailers are kept.
 *
 * Source: RFC 9112 §6, §7.1. No allocation, no shared state: any thread.
 */
#ifndef WEIR_BODY_H
#define WEIR_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http.h"

#define BODY_TRAILERS_MAX 4096      /* bytes of trailer section */
#define BODY_EXTENSION_MAX 256      /* bytes of extension in one chunk head */
#define BODY_EXTENSIONS_MAX 16384   /* … and in all chunk heads of one body: a flood of them is an attack, no message */
#define BODY_CHUNK_HEAD_MAX 20      /* hex digits, CR LF */

enum body_event {
	BODY_MORE, /* all bytes given are used; more are needed */
	BODY_DATA, /* *data is a piece of payload inside the bytes given; call again with what is left */
	BODY_END,  /* the body is complete */
	BODY_BAD,  /* malformed: body->why says how. Nothing after this can be trusted */
};

struct body {
	enum http_framing framing;
	uint64_t left;            /* bytes to come: of the body (by length) or of this chunk */
	uint64_t payload_bytes;   /* payload seen */
	const char *why;
	int state;                /* chunked: where in the grammar; body.c's own */
	size_t extension_bytes;   /* in this chunk head */
	size_t extensions_bytes;  /* in all of them */
	unsigned size_digits;
	size_t trailers_length;   /* trailers kept: whole "Name: value\r\n" lines, checked, ready to send; complete at
	                             BODY_END. Framing, hop-by-hop and others that have no place here are dropped */
	size_t line_length;       /* of the trailer line being read; it stands behind those kept */
	size_t trailers_wire_bytes;
	char trailers[BODY_TRAILERS_MAX];
};

/* Begins a body as the head announced it. HTTP_NO_BODY gives BODY_END at the first call. */
void body_begin(struct body *body, enum http_framing framing, uint64_t content_length);

/* Reads on in bytes[0..length). *used is set in every case. length 0 is allowed: it gives BODY_END if the body is
   complete, else BODY_MORE. */
enum body_event body_read(struct body *body, const char *bytes, size_t length, size_t *used, struct http_text *data);

/* The stream ended here. True if that is where the body ends (HTTP_UNTIL_CLOSE, or complete already); false: it was
   cut short. */
bool body_may_end_here(const struct body *body);

/* Writes the head of a chunk ("1a\r\n") for length > 0 bytes of payload; returns its length. The chunk ends with
   "\r\n". */
size_t body_chunk_head(char out[BODY_CHUNK_HEAD_MAX], size_t length);

#endif
