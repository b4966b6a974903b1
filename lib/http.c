/* http.c: from bytes to a head: the scan for its end, the start lines, and the order in which a head is read.
 *
 *      GET /pub?q=1 HTTP/1.1\r\n         start line: three parts, exactly one blank between them
 *      Host: example.org\r\n             field lines (http_fields.c)
 *      \r\n                              the empty line: here the head ends and the body begins
 *
 * The scan and the parse are two steps on purpose. The scan is called after each read and looks only for line ends,
 * each byte once, however the bytes were cut: a client that sends one byte a second costs no more work than one that
 * sends all at once. The parse then has the whole head in front of it, needs no memory of its own and has no state to
 * get wrong.
 *
 * A line ends in CR LF and in nothing else. RFC 9112 §2.2 allows a bare LF to be taken for a line end; but a proxy
 * that takes it and a server that does not see two different heads in the same bytes. So: bare LF, bare CR and NUL
 * are refused.
 *
 * The scan also gives up early on what can never become a head (the first byte of a TLS handshake, say), since the
 * one who sent it waits for an answer and would otherwise hang until header_timeout.
 *
 * Invariant: what is accepted here has one meaning. No byte outside its grammar survives in any text of struct
 * http_head, so none of them can end a line early when it is written out again.
 *
 * Sources: RFC 9112 §2 to §6, RFC 9110 §5 to §7 and §10.1.1.
 */
#include <string.h>

#include "http_parts.h"

#define METHOD_LENGTH_MAX 32

/* Bytes of empty lines before a request line: some old clients send one after a body. */
#define SKIPPED_MAX 4

/* ---- the scan -------------------------------------------------------------------------------------------------- */

/* Could these, at least one, be the first bytes of a head, or of an empty line before it? */
static bool begins_well(const struct http_scan *scan, const char *bytes, size_t length)
{
	const char *at = bytes + scan->skipped;
	size_t count = length - scan->skipped;
	if (scan->is_response)
		return memcmp(at, "HTTP/", count < 5 ? count : 5) == 0;
	if (at[0] == '\r')
		return scan->skipped < SKIPPED_MAX && (count < 2 || at[1] == '\n');
	return http_is(at[0], HTTP_IN_TOKEN);
}

enum http_scan_result http_scan(struct http_scan *scan, const char *bytes, size_t length, size_t *head_length)
{
	while (scan->seen < length) {
		if (scan->line_at == scan->skipped && !begins_well(scan, bytes, length))
			return HTTP_SCAN_BAD;
		const char *from = bytes + scan->seen;
		const char *line_feed = memchr(from, '\n', length - scan->seen);
		const char *stop = line_feed ? line_feed : bytes + length;
		if (memchr(from, '\0', (size_t)(stop - from)))
			return HTTP_SCAN_BAD;
		scan->seen = (size_t)(stop - bytes);
		if (!line_feed)
			return HTTP_SCAN_MORE;
		if (scan->seen == scan->line_at || stop[-1] != '\r')
			return HTTP_SCAN_BAD;
		bool line_is_empty = scan->seen == scan->line_at + 1;
		bool is_before_head = scan->line_at == scan->skipped;
		scan->seen++;
		scan->line_at = scan->seen;
		if (line_is_empty && !is_before_head) {
			*head_length = scan->seen - scan->skipped;
			return HTTP_SCAN_COMPLETE;
		}
		if (line_is_empty)
			scan->skipped = scan->seen;
	}
	return HTTP_SCAN_MORE;
}

/* ---- start lines ----------------------------------------------------------------------------------------------- */

static enum http_method recognise_method(struct http_text text)
{
	static const struct {
		const char *name;
		enum http_method method;
	} known[] = {
		{ "GET", HTTP_GET }, { "POST", HTTP_POST }, { "HEAD", HTTP_HEAD }, { "PUT", HTTP_PUT },
		{ "DELETE", HTTP_DELETE }, { "OPTIONS", HTTP_OPTIONS }, { "CONNECT", HTTP_CONNECT },
		{ "TRACE", HTTP_TRACE },
	};
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (strlen(known[i].name) == text.length && memcmp(known[i].name, text.at, text.length) == 0)
			return known[i].method;
	return HTTP_OTHER;
}

static bool method_is_idempotent(enum http_method method)
{
	switch (method) {
	case HTTP_GET:
	case HTTP_HEAD:
	case HTTP_PUT:
	case HTTP_DELETE:
	case HTTP_OPTIONS:
	case HTTP_TRACE:
		return true;
	default:
		return false;
	}
}

/* "HTTP/1.x". A minor version that we don't know is compatible by definition (RFC 9110 §2.5) and read as 1.1. */
static struct http_fault read_version(struct http_cursor *c, struct http_head *head)
{
	const char *at = c->at;
	if (c->end - at < 8 || memcmp(at, "HTTP/", 5) != 0 || !http_is(at[5], HTTP_IN_DIGITS) || at[6] != '.' ||
	    !http_is(at[7], HTTP_IN_DIGITS))
		return http_refuse(400, "malformed HTTP version");
	c->at += 8;
	if (at[5] != '1')
		return http_refuse(505, "not a version of HTTP/1");
	head->minor_version = at[7] == '0' ? 0 : 1;
	return http_accept();
}

/* Takes the part of a line up to the single blank that must follow it. */
static bool take_part(struct http_cursor *c, enum http_class class, struct http_text *part)
{
	const char *from = c->at, *at = http_skip(from, c->end, class);
	if (at == from || at == c->end || *at != ' ')
		return false;
	*part = http_piece(from, at);
	c->at = at + 1;
	return true;
}

static struct http_fault read_request_line(struct http_cursor *c, struct http_head *head)
{
	struct http_text method;
	if (!take_part(c, HTTP_IN_TOKEN, &method) || method.length > METHOD_LENGTH_MAX)
		return http_refuse(400, "malformed method");
	head->method_text = method;
	head->method = recognise_method(method);
	head->is_idempotent = method_is_idempotent(head->method);
	if (!take_part(c, HTTP_IN_TARGET, &head->target))
		return http_refuse(400, "malformed request target");
	struct http_fault fault = read_version(c, head);
	if (fault.status)
		return fault;
	return http_take_line_end(c) ? http_accept() : http_refuse(400, "malformed request line");
}

static struct http_fault read_status_line(struct http_cursor *c, struct http_head *head)
{
	struct http_fault fault = read_version(c, head);
	if (fault.status)
		return fault;
	const char *at = c->at;
	if (c->end - at < 4 || at[0] != ' ' || at[1] < '1' || at[1] > '5' || !http_is(at[2], HTTP_IN_DIGITS) ||
	    !http_is(at[3], HTTP_IN_DIGITS))
		return http_refuse(502, "malformed status");
	head->status = (at[1] - '0') * 100 + (at[2] - '0') * 10 + (at[3] - '0');
	c->at += 4;
	/* The blank after the status is there even when no reason follows (RFC 9112 §4), but servers forget it. */
	head->reason = http_piece(c->at, c->at);
	if (c->at < c->end && *c->at == ' ') {
		head->reason.at = ++c->at;
		c->at = http_skip(c->at, c->end, HTTP_IN_VALUE);
		head->reason = http_trim(http_piece(head->reason.at, c->at));
	}
	return http_take_line_end(c) ? http_accept() : http_refuse(502, "malformed status line");
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* "100-continue" is the only expectation there is (RFC 9110 §10.1.1). Before 1.1 it means nothing and stays here, as
   it does when the client named it in Connection. Without a body there is nothing to wait for. */
static struct http_fault read_expect(struct http_head *head)
{
	for (size_t i = 0; i < head->field_count; i++) {
		struct http_field *field = &head->fields[i];
		if (field->known != HTTP_NAME_EXPECT)
			continue;
		if (!http_text_is(field->value, "100-continue"))
			return http_refuse(417, "unknown expectation");
		if (head->minor_version < 1)
			field->hop_by_hop = true;
		if (!field->hop_by_hop)
			head->expects_continue = head->framing == HTTP_CHUNKED || head->content_length > 0;
	}
	return http_accept();
}

/* Only OPTIONS and TRACE have a use for Max-Forwards; others carry it untouched (RFC 9110 §7.6.2). */
static struct http_fault check_max_forwards(const struct http_head *head)
{
	size_t count = 0;
	uint64_t ignored;
	if (head->method != HTTP_OPTIONS && head->method != HTTP_TRACE)
		return http_accept();
	for (size_t i = 0; i < head->field_count; i++) {
		if (head->fields[i].known != HTTP_NAME_MAX_FORWARDS)
			continue;
		if (++count > 1 || !http_parse_number(head->fields[i].value, &ignored))
			return http_refuse(400, "malformed Max-Forwards");
	}
	return http_accept();
}

/* What the fields of a request must say, once they have been read. */
static struct http_fault understand_request(struct http_head *head, http_names present)
{
	struct http_fault fault = http_read_host(head, present);
	if (!fault.status)
		fault = http_read_connection(head, present);
	if (!fault.status)
		fault = http_read_framing(head, present);
	if (!fault.status && http_has(present, HTTP_NAME_EXPECT))
		fault = read_expect(head);
	if (!fault.status && http_has(present, HTTP_NAME_MAX_FORWARDS))
		fault = check_max_forwards(head);
	/* After CONNECT comes the tunnel: a body before it would be the first bytes of the tunnel to another reader. */
	bool has_body = head->framing == HTTP_CHUNKED || head->content_length > 0;
	if (!fault.status && head->method == HTTP_CONNECT && has_body)
		fault = http_refuse(400, "CONNECT with a body");
	return fault;
}

/* The fields are left as they are: only field_count of them have a meaning, and clearing six kilobytes for each head
   is not free. */
static void clear(struct http_head *head)
{
	memset(head, 0, offsetof(struct http_head, fields));
}

struct http_fault http_parse_request(const char *bytes, size_t length, struct http_head *head)
{
	struct http_cursor c = { bytes, bytes + length };
	http_names present;

	clear(head);
	struct http_fault fault = read_request_line(&c, head);
	if (!fault.status)
		fault = http_read_target(head);
	if (!fault.status)
		fault = http_read_fields(&c, head, &present);
	if (!fault.status)
		fault = understand_request(head, present);
	return fault;
}

/* ---- responses ------------------------------------------------------------------------------------------------- */

/* What framing means for this response to that request (RFC 9112 §6.3). */
static struct http_fault settle_response_body(struct http_head *head, enum http_method request_method)
{
	int status = head->status;
	if (status < 200 || status == 204) {
		/* These never have a body and must not announce one. Whoever does may send it all the same, and its
		   bytes would look like the next response: such a target is not understood, and we do not guess.
		   "Content-Length: 0" is only clumsy. */
		if (head->framing == HTTP_CHUNKED || head->content_length > 0)
			return http_refuse(502, "a body announced where there is none");
		head->has_content_length = false;
		head->framing = HTTP_NO_BODY;
	} else if (request_method == HTTP_CONNECT && status < 300) {
		head->has_content_length = false; /* a tunnel follows, whatever they say (RFC 9110 §9.3.6) */
		head->content_length = 0;
		head->framing = HTTP_NO_BODY;
	} else if (request_method == HTTP_HEAD || status == 304) {
		head->framing = HTTP_NO_BODY; /* the length announced stays: it is news about the resource */
	} else if (head->framing == HTTP_NO_BODY) {
		head->framing = HTTP_UNTIL_CLOSE;
	}
	return http_accept();
}

struct http_fault http_parse_response(const char *bytes, size_t length, enum http_method request_method,
                                      struct http_head *head)
{
	struct http_cursor c = { bytes, bytes + length };
	http_names present;

	clear(head);
	struct http_fault fault = read_status_line(&c, head);
	if (!fault.status)
		fault = http_read_fields(&c, head, &present);
	if (!fault.status)
		fault = http_read_connection(head, present);
	if (!fault.status)
		fault = http_read_framing(head, present);
	if (!fault.status)
		fault = settle_response_body(head, request_method);
	if (fault.status)
		fault.status = 502; /* whatever is wrong with a response, the target is to blame and not the client */
	return fault;
}
