/* http_parts.h: what the files that read heads share among themselves (and body.c, for trailers). Nobody else
 * includes it.
 *
 *      http.c          the scan for the end of a head; start lines; the order in which a head is read
 *      http_target.c   the request target and the Host grammar: where does this request want to go?
 *      http_fields.c   field lines, and what the fields say about the connection and about the framing of the body
 *      http_text.c     classes of characters, lists, numbers, names of statuses
 *      http_date.c     the time as Date has it
 *
 * All of them look at a byte once, through one table of 256 entries: a branch for each forbidden character would be
 * slower, and a reader could never be sure that none was forgotten.
 */
#ifndef WEIR_HTTP_PARTS_H
#define WEIR_HTTP_PARTS_H

#include "http.h"

/* Which grammars a byte may stand in. */
enum http_class {
	HTTP_IN_TOKEN = 1,   /* tchar: methods, field names, codings (RFC 9110 §5.6.2) */
	HTTP_IN_VALUE = 2,   /* field values, reason phrases: HTAB, SP, visible ASCII, 0x80-0xff (§5.5) */
	HTTP_IN_TARGET = 4,  /* request targets: visible ASCII without '#' */
	HTTP_IN_HOST = 8,    /* reg-name (RFC 3986 §3.2.2) without escapes; without ',', that looks like two hosts */
	HTTP_IN_HEX = 16,
	HTTP_IN_DIGITS = 32,
};

extern const unsigned char http_classes[256];

static inline bool http_is(char c, enum http_class class)
{
	return (http_classes[(unsigned char)c] & class) != 0;
}

/* A place in bytes that are being read; at moves towards end and never past it. */
struct http_cursor {
	const char *at;
	const char *end;
};

/* The first byte at or after at that is not in the class, or end. */
static inline const char *http_skip(const char *at, const char *end, enum http_class class)
{
	while (at < end && http_is(*at, class))
		at++;
	return at;
}

/* Moves over CR LF; false when something else stands there. */
static inline bool http_take_line_end(struct http_cursor *c)
{
	if (c->end - c->at < 2 || c->at[0] != '\r' || c->at[1] != '\n')
		return false;
	c->at += 2;
	return true;
}

static inline struct http_text http_piece(const char *from, const char *to)
{
	return (struct http_text){ from, (size_t)(to - from) };
}

static inline struct http_fault http_refuse(int status, const char *why)
{
	return (struct http_fault){ status, why };
}

static inline struct http_fault http_accept(void)
{
	return (struct http_fault){ 0, NULL };
}

/* Which of the known names occur in a head, one bit each: most heads have few, and most questions end here. */
typedef uint32_t http_names;

static inline bool http_has(http_names present, enum http_name known)
{
	return (present >> known & 1u) != 0;
}

bool http_same(struct http_text one, struct http_text other); /* without regard to case */
bool http_is_token(struct http_text text);
struct http_text http_trim(struct http_text text); /* without blanks at either end */

/* Reads one field line with its line end. NULL when it is well-formed, else the phrase that says what is wrong. */
const char *http_read_field(struct http_cursor *c, struct http_field *field);
/* Reads all field lines and the empty line, which must be the last thing there is. */
struct http_fault http_read_fields(struct http_cursor *c, struct http_head *head, http_names *present);
/* Connection, Upgrade: sets keep_alive, upgrade and every field's hop_by_hop. */
struct http_fault http_read_connection(struct http_head *head, http_names present);
/* Content-Length, Transfer-Encoding: sets framing (never HTTP_UNTIL_CLOSE), content_length, has_content_length. */
struct http_fault http_read_framing(struct http_head *head, http_names present);

/* The target's form, path and authority; head->method and head->target are known. */
struct http_fault http_read_target(struct http_head *head);
/* Exactly one valid Host in HTTP/1.1, at most one before. */
struct http_fault http_read_host(struct http_head *head, http_names present);

#endif
