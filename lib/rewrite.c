/* rewrite.c: writes the head that goes out.
 *
 *      what came in                          what goes out
 *      GET http://a/x HTTP/1.1               GET /x HTTP/1.1            own version, origin form
 *      Host: b                               Host: a                    always first: the absolute form wins
 *      Accept: text/html                     Accept: text/html          end-to-end: as it came, in its order
 *      Connection: keep-alive, X-Mine        (nothing)                  hop-by-hop, and what it names
 *      X-Mine: 1                             (nothing)
 *      Content-Length: 5, 5                  Content-Length: 5          framing: written anew from what we decided
 *                                            Via: 1.1 weir-5f3a
 *                                            X-Forwarded-For: 192.0.2.7
 *
 * Framing is the reason why nothing is copied blindly. We have read a body of n bytes; the next server must read n
 * bytes too. So it gets one framing field, spelt by us, and none of those that came.
 *
 * Invariant: each text written was accepted by the parser, whose classes contain neither CR nor LF, or is ours. So
 * nobody outside can add a line to a head that we write.
 *
 * Sources: RFC 9110 §7.6 (Connection, Max-Forwards, Via), RFC 9112 §3.2, §6; X-Forwarded-* as proxies have always
 * written them.
 */
#include <string.h>

#include "rewrite.h"
#include "writer.h"

static void put_text(struct writer *w, struct http_text text)
{
	writer_put(w, text.at, text.length);
}

static void put_field(struct writer *w, struct http_text name, struct http_text value)
{
	put_text(w, name);
	writer_put_literal(w, ": ");
	put_text(w, value);
	writer_put_literal(w, "\r\n");
}

static void put_framing(struct writer *w, enum http_framing framing, bool has_content_length, uint64_t content_length)
{
	if (framing == HTTP_CHUNKED) {
		writer_put_literal(w, "Transfer-Encoding: chunked\r\n");
	} else if (has_content_length) {
		writer_put_literal(w, "Content-Length: ");
		writer_put_number(w, content_length);
		writer_put_literal(w, "\r\n");
	}
}

/* The version in Via is the one the message came in (RFC 9110 §7.6.3). */
static void put_via(struct writer *w, unsigned minor_version, const char *via)
{
	writer_put_string(w, minor_version == 0 ? "Via: 1.0 " : "Via: 1.1 ");
	writer_put_string(w, via);
	writer_put_literal(w, "\r\n");
}

static void put_upgrade(struct writer *w, struct http_text upgrade)
{
	writer_put_literal(w, "Connection: upgrade\r\nUpgrade: ");
	put_text(w, upgrade);
	writer_put_literal(w, "\r\n");
}

static struct http_text text_of(const char *string)
{
	return (struct http_text){ string, strlen(string) };
}

static size_t finish(struct writer *w)
{
	writer_put_literal(w, "\r\n");
	return w->is_full ? 0 : w->length;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* Which of the fields that proxies write have come in already. */
struct forwarded_seen {
	bool host, proto;
};

/* All values of X-Forwarded-For become one list, and the client we see is its last element: the one that can be
   believed. */
static void put_forwarded_for(struct writer *w, const struct http_head *head, const struct rewrite_request *how)
{
	writer_put_literal(w, "X-Forwarded-For: ");
	for (size_t i = 0; how->forwarded == REWRITE_APPEND && i < head->field_count; i++) {
		const struct http_field *field = &head->fields[i];
		if (field->known != HTTP_NAME_FORWARDED_FOR || field->value.length == 0)
			continue;
		put_text(w, field->value);
		writer_put_literal(w, ", ");
	}
	put_text(w, how->client);
	writer_put_literal(w, "\r\n");
}

/* X-Forwarded-Proto and -Host tell of the first proxy's client. When appending, values that came in were written by a
   proxy before us that knew it; when setting, there is no such proxy and they are a client's invention. */
static void put_forwarded(struct writer *w, const struct http_head *head, const struct rewrite_request *how,
                          struct forwarded_seen seen)
{
	put_via(w, head->minor_version, how->via);
	put_forwarded_for(w, head, how);
	if (!seen.proto) {
		writer_put_literal(w, "X-Forwarded-Proto: ");
		writer_put_string(w, how->scheme);
		writer_put_literal(w, "\r\n");
	}
	if (!seen.host && head->host.at) {
		writer_put_literal(w, "X-Forwarded-Host: ");
		put_text(w, head->host);
		writer_put_literal(w, "\r\n");
	}
}

/* RFC 4648 §4: three bytes are four digits of six bits; what is missing at the end is "=". */
static void put_base64(struct writer *w, const char *bytes, size_t length)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < length; i += 3) {
		size_t left = length - i;
		uint32_t bits = (uint32_t)(unsigned char)bytes[i] << 16;
		bits |= left > 1 ? (uint32_t)(unsigned char)bytes[i + 1] << 8 : 0;
		bits |= left > 2 ? (unsigned char)bytes[i + 2] : 0;
		char four[4] = { digits[bits >> 18], digits[(bits >> 12) & 63], left > 1 ? digits[(bits >> 6) & 63] : '=',
			         left > 2 ? digits[bits & 63] : '=' };
		writer_put(w, four, sizeof four);
	}
}

static void put_credentials(struct writer *w, const char *credentials)
{
	writer_put_literal(w, "Proxy-Authorization: Basic ");
	put_base64(w, credentials, strlen(credentials));
	writer_put_literal(w, "\r\n");
}

/* "OPTIONS *" for the whole server has no path in absolute form (RFC 9112 §3.2.4). */
static void put_absolute_target(struct writer *w, const struct http_head *head)
{
	bool is_asterisk = head->path.length == 1 && head->path.at[0] == '*';
	writer_put_literal(w, "http://");
	put_text(w, head->host);
	if (!is_asterisk && head->path.length > 0 && head->path.at[0] == '?')
		writer_put_literal(w, "/");
	if (!is_asterisk)
		put_text(w, head->path);
}

static void put_request_line(struct writer *w, const struct http_head *head, const struct rewrite_request *how)
{
	put_text(w, head->method_text);
	writer_put_literal(w, " ");
	if (how->to_proxy) {
		put_absolute_target(w, head);
		writer_put_literal(w, " HTTP/1.1\r\n");
		return;
	}
	if (head->path.length > 0 && head->path.at[0] == '?')
		writer_put_literal(w, "/");
	put_text(w, head->path);
	writer_put_literal(w, " HTTP/1.1\r\n");
}

static void put_max_forwards(struct writer *w, const struct http_head *head, const struct rewrite_request *how,
                             const struct http_field *field)
{
	if (how->max_forwards < 0 || (head->method != HTTP_OPTIONS && head->method != HTTP_TRACE)) {
		put_field(w, field->name, field->value);
		return;
	}
	writer_put_literal(w, "Max-Forwards: ");
	writer_put_number(w, (uint64_t)how->max_forwards);
	writer_put_literal(w, "\r\n");
}

/* Writes the fields that go on, and notes which of those that proxies write were among them. */
static struct forwarded_seen put_request_fields(struct writer *w, const struct http_head *head,
                                                const struct rewrite_request *how)
{
	struct forwarded_seen seen = { false, false };
	bool keeps_for = how->forwarded == REWRITE_OFF, keeps_others = how->forwarded != REWRITE_SET;

	for (size_t i = 0; i < head->field_count; i++) {
		const struct http_field *field = &head->fields[i];
		if (field->hop_by_hop)
			continue;
		switch (field->known) {
		case HTTP_NAME_HOST:
		case HTTP_NAME_CONTENT_LENGTH:
			continue; /* written by us */
		case HTTP_NAME_FORWARDED_FOR:
			if (!keeps_for)
				continue;
			break;
		case HTTP_NAME_FORWARDED_HOST:
			if (!keeps_others)
				continue;
			seen.host = true;
			break;
		case HTTP_NAME_FORWARDED_PROTO:
			if (!keeps_others)
				continue;
			seen.proto = true;
			break;
		case HTTP_NAME_MAX_FORWARDS:
			put_max_forwards(w, head, how, field);
			continue;
		default:
			break;
		}
		put_field(w, field->name, field->value);
	}
	return seen;
}

size_t rewrite_request(const struct http_head *head, const struct rewrite_request *how, char *out, size_t capacity)
{
	struct writer w = { out, capacity, 0, false };

	put_request_line(&w, head, how);
	writer_put_literal(&w, "Host: ");
	put_text(&w, head->host.at ? head->host : how->target_host);
	writer_put_literal(&w, "\r\n");
	if (how->to_proxy && how->credentials)
		put_credentials(&w, how->credentials);
	struct forwarded_seen seen = put_request_fields(&w, head, how);
	put_framing(&w, head->framing, head->has_content_length, head->content_length);
	if (how->forwarded != REWRITE_OFF)
		put_forwarded(&w, head, how, seen);
	if (how->upgrades && head->upgrade.at)
		put_upgrade(&w, head->upgrade);
	else if (!how->keep_alive)
		writer_put_literal(&w, "Connection: close\r\n");
	return finish(&w);
}

size_t rewrite_connect(const struct rewrite_connect *how, char *out, size_t capacity)
{
	struct writer w = { out, capacity, 0, false };

	writer_put_literal(&w, "CONNECT ");
	writer_put_string(&w, how->target);
	writer_put_literal(&w, " HTTP/1.1\r\nHost: ");
	writer_put_string(&w, how->target);
	writer_put_literal(&w, "\r\n");
	if (how->credentials)
		put_credentials(&w, how->credentials);
	if (how->via)
		put_via(&w, how->minor_version, how->via);
	return finish(&w);
}

/* ---- responses ------------------------------------------------------------------------------------------------- */

static void put_status_line(struct writer *w, const struct http_head *head)
{
	writer_put_literal(w, "HTTP/1.1 ");
	writer_put_number(w, (uint64_t)head->status);
	writer_put_literal(w, " ");
	put_text(w, head->reason);
	writer_put_literal(w, "\r\n");
}

size_t rewrite_response(const struct http_head *head, const struct rewrite_response *how, char *out, size_t capacity)
{
	struct writer w = { out, capacity, 0, false };
	bool is_interim = head->status < 200, has_date = false;

	put_status_line(&w, head);
	for (size_t i = 0; i < head->field_count; i++) {
		const struct http_field *field = &head->fields[i];
		if (field->hop_by_hop || field->known == HTTP_NAME_CONTENT_LENGTH)
			continue;
		put_field(&w, field->name, field->value);
		has_date = has_date || field->known == HTTP_NAME_DATE;
	}
	if (!is_interim && !has_date && how->date)
		put_field(&w, text_of("Date"), text_of(how->date));
	if (!is_interim && head->status != 204)
		put_framing(&w, how->framing, how->has_content_length, how->content_length);
	if (how->via)
		put_via(&w, head->minor_version, how->via);
	if (how->extra.length > 0)
		put_text(&w, how->extra);
	/* An interim answer says nothing about the connection: the final one will. 101 is the exception, being final
	   for HTTP. */
	if (how->upgrades && head->upgrade.at)
		put_upgrade(&w, head->upgrade);
	else if (!is_interim && !how->keep_alive)
		writer_put_literal(&w, "Connection: close\r\n");
	else if (!is_interim && !how->client_is_1_1 && how->client_asked_keep_alive_1_0)
		writer_put_literal(&w, "Connection: keep-alive\r\n");
	return finish(&w);
}

/* ---- loops ----------------------------------------------------------------------------------------------------- */

/* An element of Via: protocol, blanks, received-by, and perhaps a comment. A comment may hold commas and so be cut in
   pieces here; the pieces may name us in jest, never hide an entry that we wrote, which stands between commas of its
   own. */
static bool names_us(struct http_text element, struct http_text via)
{
	size_t at = 0;
	while (at < element.length && element.at[at] != ' ' && element.at[at] != '\t')
		at++;
	while (at < element.length && (element.at[at] == ' ' || element.at[at] == '\t'))
		at++;
	size_t from = at;
	while (at < element.length && element.at[at] != ' ' && element.at[at] != '\t' && element.at[at] != '(')
		at++;
	return at - from == via.length && memcmp(element.at + from, via.at, via.length) == 0;
}

bool rewrite_is_loop(const struct http_head *head, const char *via)
{
	struct http_text ours = { via, strlen(via) };
	for (size_t i = 0; i < head->field_count; i++) {
		struct http_text list = head->fields[i].value, element;
		if (head->fields[i].known != HTTP_NAME_VIA)
			continue;
		while (http_next_element(&list, &element))
			if (names_us(element, ours))
				return true;
	}
	return false;
}
