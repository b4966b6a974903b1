/* strict.h: a second reader of HTTP/1.1 messages, for fuzz_exchange.c: what would the next server make of these bytes?
 *
 * It shares nothing with lib/http.c and lib/body.c but the RFC. It has no state and no pieces: it is given a whole stream
 * and walks down the grammar of RFC 9112 once, taking the strictest reading at each step. Too simple to be fast, and too
 * simple to be wrong in the same way: where it and weir differ about where a message ends, a request can be smuggled.
 *
 * It is strict about what decides framing, and does not look at the rest (hosts, forms of targets, bytes of values).
 */
#ifndef WEIR_FUZZ_STRICT_H
#define WEIR_FUZZ_STRICT_H

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STRICT_FIELDS_MAX 300u

enum strict_state {
	STRICT_PARTIAL, /* the stream ends before the message does */
	STRICT_BAD,     /* no reader may guess what this means */
	STRICT_WHOLE,
};

struct strict_text {
	const char *at;
	size_t length;
};

struct strict_field {
	struct strict_text name, value;
};

struct strict {
	enum strict_state state;
	bool head_is_whole;
	size_t used; /* of the stream, when whole */
	struct strict_text method, target;
	int status;
	unsigned minor;
	struct strict_field fields[STRICT_FIELDS_MAX];
	size_t field_count;
	bool is_chunked, has_length, until_close;
	uint64_t length;
	char *body; /* strict_free() */
	size_t body_length;
};

static inline bool strict_is(struct strict_text text, const char *word)
{
	return text.length == strlen(word) && strncasecmp(text.at, word, text.length) == 0;
}

static inline void strict_free(struct strict *m)
{
	free(m->body);
	m->body = NULL;
}

/* The line at *at; *at moves behind its CR LF. A bare CR, LF or a NUL in it is bad. */
static inline enum strict_state strict_line(const char **at, const char *end, struct strict_text *line)
{
	const char *line_feed = memchr(*at, '\n', (size_t)(end - *at));
	if (line_feed == NULL)
		return STRICT_PARTIAL;
	if (line_feed == *at || line_feed[-1] != '\r')
		return STRICT_BAD;
	*line = (struct strict_text){ *at, (size_t)(line_feed - 1 - *at) };
	*at = line_feed + 1;
	bool is_clean = memchr(line->at, '\r', line->length) == NULL && memchr(line->at, '\0', line->length) == NULL;
	return is_clean ? STRICT_WHOLE : STRICT_BAD;
}

static inline bool strict_is_token(struct strict_text text)
{
	for (size_t i = 0; i < text.length; i++)
		if (!isalnum((unsigned char)text.at[i]) &&
		    (text.at[i] == '\0' || strchr("!#$%&'*+-.^_`|~", text.at[i]) == NULL))
			return false;
	return text.length > 0;
}

static inline struct strict_text strict_trim(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t'))
		at++;
	while (end > at && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	return (struct strict_text){ at, (size_t)(end - at) };
}

/* Digits and nothing else, of 18 places at most; a list of equal ones is one. */
static inline bool strict_length(struct strict_text value, struct strict *m)
{
	const char *at = value.at, *end = value.at + value.length;
	do {
		const char *comma = at < end ? memchr(at, ',', (size_t)(end - at)) : NULL;
		struct strict_text one = strict_trim(at, comma != NULL ? comma : end);
		uint64_t number = 0;
		if (one.length == 0 || one.length > 18)
			return false;
		for (size_t i = 0; i < one.length; i++) {
			if (one.at[i] < '0' || one.at[i] > '9')
				return false;
			number = number * 10 + (uint64_t)(one.at[i] - '0');
		}
		if (m->has_length && m->length != number)
			return false;
		m->has_length = true;
		m->length = number;
		at = comma != NULL ? comma + 1 : NULL;
	} while (at != NULL);
	return true;
}

static inline bool strict_note(struct strict *m, struct strict_field field)
{
	if (m->field_count == STRICT_FIELDS_MAX)
		return false;
	m->fields[m->field_count++] = field;
	if (strict_is(field.name, "Content-Length"))
		return strict_length(field.value, m);
	if (!strict_is(field.name, "Transfer-Encoding"))
		return true;
	bool is_first = !m->is_chunked;
	m->is_chunked = true;
	return is_first && m->minor == 1 && strict_is(field.value, "chunked");
}

static inline enum strict_state strict_fields(const char **at, const char *end, struct strict *m)
{
	struct strict_text line;
	enum strict_state state;
	while ((state = strict_line(at, end, &line)) == STRICT_WHOLE && line.length > 0) {
		const char *colon = memchr(line.at, ':', line.length);
		if (colon == NULL)
			return STRICT_BAD;
		struct strict_field field = { { line.at, (size_t)(colon - line.at) },
			                      strict_trim(colon + 1, line.at + line.length) };
		if (!strict_is_token(field.name) || !strict_note(m, field))
			return STRICT_BAD;
	}
	if (state == STRICT_WHOLE && m->is_chunked && m->has_length)
		return STRICT_BAD;
	m->head_is_whole = state == STRICT_WHOLE;
	return state;
}

/* "1a;extension" */
static inline bool strict_chunk_size(struct strict_text line, uint64_t *size)
{
	static const char digits[] = "0123456789abcdef";
	size_t i = 0;
	for (*size = 0; i < line.length && line.at[i] != ';'; i++) {
		const char *found = line.at[i] == '\0' ? NULL : strchr(digits, tolower((unsigned char)line.at[i]));
		if (found == NULL || i >= 15)
			return false;
		*size = *size * 16 + (uint64_t)(found - digits);
	}
	return i > 0;
}

static inline enum strict_state strict_chunks(const char **at, const char *end, struct strict *m)
{
	for (;;) {
		struct strict_text line;
		uint64_t size;
		enum strict_state state = strict_line(at, end, &line);
		if (state != STRICT_WHOLE)
			return state;
		if (!strict_chunk_size(line, &size))
			return STRICT_BAD;
		if (size == 0)
			break;
		size_t left = (size_t)(end - *at), there = size < left ? (size_t)size : left;
		memcpy(m->body + m->body_length, *at, there);
		m->body_length += there;
		*at += there;
		if (there < size || end - *at < 2)
			return STRICT_PARTIAL;
		if (memcmp(*at, "\r\n", 2) != 0)
			return STRICT_BAD;
		*at += 2;
	}
	struct strict_text line;
	enum strict_state state;
	while ((state = strict_line(at, end, &line)) == STRICT_WHOLE && line.length > 0)
		if (memchr(line.at, ':', line.length) == NULL)
			return STRICT_BAD;
	return state;
}

/* What is behind the head. */
static inline enum strict_state strict_body(const char **at, const char *end, struct strict *m)
{
	m->body = malloc((size_t)(end - *at) + 1);
	if (m->body == NULL)
		abort();
	if (m->is_chunked)
		return strict_chunks(at, end, m);
	size_t left = (size_t)(end - *at);
	size_t there = m->until_close || m->length > left ? left : (size_t)m->length;
	memcpy(m->body, *at, there);
	m->body_length = there;
	*at += there;
	return m->until_close || there == m->length ? STRICT_WHOLE : STRICT_PARTIAL;
}

static inline void strict_end(struct strict *m, enum strict_state state, const char *bytes, const char *at)
{
	m->state = state;
	m->used = (size_t)(at - bytes);
}

static inline bool strict_version(struct strict_text text, unsigned *minor)
{
	if (text.length != 8 || memcmp(text.at, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)text.at[7]))
		return false;
	*minor = text.at[7] == '0' ? 0 : 1; /* a later one is read as the last that is known: RFC 9110 §2.5 */
	return true;
}

static inline void strict_read_request(const char *bytes, size_t size, struct strict *m)
{
	const char *at = bytes, *end = bytes + size;
	struct strict_text line;
	memset(m, 0, sizeof *m);
	while (end - at >= 2 && memcmp(at, "\r\n", 2) == 0) /* RFC 9112 §2.2 */
		at += 2;
	enum strict_state state = strict_line(&at, end, &line);
	if (state == STRICT_WHOLE) {
		const char *first = memchr(line.at, ' ', line.length);
		const char *last = memrchr(line.at, ' ', line.length);
		if (first == NULL || first == last)
			state = STRICT_BAD;
		else {
			m->method = (struct strict_text){ line.at, (size_t)(first - line.at) };
			m->target = (struct strict_text){ first + 1, (size_t)(last - first - 1) };
			struct strict_text version = { last + 1, (size_t)(line.at + line.length - last - 1) };
			if (!strict_version(version, &m->minor) || !strict_is_token(m->method) || m->target.length == 0 ||
			    memchr(m->target.at, ' ', m->target.length) != NULL)
				state = STRICT_BAD;
		}
	}
	if (state == STRICT_WHOLE)
		state = strict_fields(&at, end, m);
	if (state == STRICT_WHOLE)
		state = strict_body(&at, end, m);
	strict_end(m, state, bytes, at);
}

static inline enum strict_state strict_status_line(const char **at, const char *end, struct strict *m)
{
	struct strict_text line;
	enum strict_state state = strict_line(at, end, &line);
	if (state != STRICT_WHOLE)
		return state;
	struct strict_text version = { line.at, line.length < 8 ? line.length : 8 };
	if (!strict_version(version, &m->minor) || line.length < 12 || line.at[8] != ' ')
		return STRICT_BAD;
	for (size_t i = 9; i < 12; i++) {
		if (!isdigit((unsigned char)line.at[i]))
			return STRICT_BAD;
		m->status = m->status * 10 + (line.at[i] - '0');
	}
	return line.length == 12 || line.at[12] == ' ' ? STRICT_WHOLE : STRICT_BAD;
}

/* The final answer of a stream that ends where the bytes do; interim ones are passed over. */
static inline void strict_read_response(const char *bytes, size_t size, bool to_head, struct strict *m)
{
	const char *at = bytes, *end = bytes + size;
	enum strict_state state;
	do {
		while (end - at >= 2 && memcmp(at, "\r\n", 2) == 0)
			at += 2;
		memset(m, 0, sizeof *m);
		state = strict_status_line(&at, end, m);
		if (state == STRICT_WHOLE)
			state = strict_fields(&at, end, m);
	} while (state == STRICT_WHOLE && m->status < 200 && m->status >= 100 && m->status != 101);
	bool is_bare = to_head || m->status == 204 || m->status == 304 || m->status == 101;
	if (state == STRICT_WHOLE && is_bare) {
		m->is_chunked = m->has_length = false;
		m->length = 0;
	}
	m->until_close = !is_bare && !m->is_chunked && !m->has_length;
	if (state == STRICT_WHOLE)
		state = strict_body(&at, end, m);
	strict_end(m, state, bytes, at);
}

#endif
