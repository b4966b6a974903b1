/* http_fields.c: field lines, and the two things that fields decide: what belongs to this connection, and where the
 * body ends.
 *
 *      Content-Length: 5, 5\r\n
 *      └──── name ───┘ └value┘     a token, a colon at once, blanks, anything printable, blanks, CR LF
 *
 * The old freedoms are refused. A blank before the colon made "Content-Length : 5" a length to one server and an
 * unknown field to another; a line that begins with a blank (obs-fold) belonged to the field above for one and was a
 * field of its own for the other. Each was a way to hide a second request in the body of the first (RFC 9112 §5.1,
 * §5.2, §11.2).
 *
 * Framing (RFC 9112 §6.3) is decided here once, from what all fields say together:
 *
 *      Content-Length ── digits only, every value given the same number ──► by length
 *      Transfer-Encoding ── exactly "chunked", in HTTP/1.1 ───────────────► chunked
 *      both, or anything else ────────────────────────────────────────────► refused
 *
 * The RFC would let Transfer-Encoding win over Content-Length. We refuse the pair: the sender, or somebody before us,
 * is confused or attacks, and the server behind us may choose the other one.
 *
 * Connection names the fields that are meant for us alone (RFC 9110 §7.6.1). They are marked here and left out by
 * rewrite.c; but a client may not use it to take away what the next server must see: "Connection: Host" or
 * "Connection: X-Forwarded-For" would strip the very fields that say who is asking for what.
 */
#include <string.h>

#include "http_parts.h"

/* Names that one head's Connection fields may list. Each is looked for among all fields; 32 KiB of names would be a
   cheap way to keep a core busy, and nobody needs more than a handful. */
#define OPTIONS_MAX 64

#define KNOWN_LENGTH_MAX 19

struct known_name {
	const char *text;
	enum http_name known;
};

/* By length, so that one load leaves at most two candidates. */
static const struct known_name known_names[KNOWN_LENGTH_MAX + 1][3] = {
	[2] = { { "te", HTTP_NAME_TE } },
	[3] = { { "via", HTTP_NAME_VIA } },
	[4] = { { "host", HTTP_NAME_HOST }, { "date", HTTP_NAME_DATE } },
	[6] = { { "expect", HTTP_NAME_EXPECT } },
	[7] = { { "referer", HTTP_NAME_REFERER }, { "upgrade", HTTP_NAME_UPGRADE }, { "trailer", HTTP_NAME_TRAILER } },
	[10] = { { "connection", HTTP_NAME_CONNECTION }, { "user-agent", HTTP_NAME_USER_AGENT },
		{ "keep-alive", HTTP_NAME_KEEP_ALIVE } },
	[12] = { { "max-forwards", HTTP_NAME_MAX_FORWARDS } },
	[14] = { { "content-length", HTTP_NAME_CONTENT_LENGTH }, { "http2-settings", HTTP_NAME_HTTP2_SETTINGS } },
	[15] = { { "x-forwarded-for", HTTP_NAME_FORWARDED_FOR } },
	[16] = { { "x-forwarded-host", HTTP_NAME_FORWARDED_HOST }, { "proxy-connection", HTTP_NAME_PROXY_CONNECTION } },
	[17] = { { "transfer-encoding", HTTP_NAME_TRANSFER_ENCODING },
		{ "x-forwarded-proto", HTTP_NAME_FORWARDED_PROTO } },
	[19] = { { "proxy-authorization", HTTP_NAME_PROXY_AUTHORIZATION } },
};

static enum http_name recognise(struct http_text name)
{
	if (name.length > KNOWN_LENGTH_MAX)
		return HTTP_NAME_OTHER;
	const struct known_name *candidates = known_names[name.length];
	for (size_t i = 0; i < 3 && candidates[i].text; i++)
		if ((name.at[0] | 0x20) == candidates[i].text[0] && http_text_is(name, candidates[i].text))
			return candidates[i].known;
	return HTTP_NAME_OTHER;
}

static bool is_always_hop_by_hop(enum http_name known)
{
	switch (known) {
	case HTTP_NAME_CONNECTION:
	case HTTP_NAME_HTTP2_SETTINGS:
	case HTTP_NAME_KEEP_ALIVE:
	case HTTP_NAME_PROXY_AUTHORIZATION:
	case HTTP_NAME_PROXY_CONNECTION:
	case HTTP_NAME_TE:
	case HTTP_NAME_TRANSFER_ENCODING:
	case HTTP_NAME_UPGRADE:
		return true;
	default:
		return false;
	}
}

/* Fields that Connection may name without effect: routing, framing, and what proxies say about the client. */
static bool is_never_hop_by_hop(enum http_name known)
{
	switch (known) {
	case HTTP_NAME_CONTENT_LENGTH:
	case HTTP_NAME_FORWARDED_FOR:
	case HTTP_NAME_FORWARDED_HOST:
	case HTTP_NAME_FORWARDED_PROTO:
	case HTTP_NAME_HOST:
	case HTTP_NAME_VIA:
		return true;
	default:
		return false;
	}
}

const char *http_read_field(struct http_cursor *c, struct http_field *field)
{
	const char *from = c->at;
	const char *at = http_skip(from, c->end, HTTP_IN_TOKEN);
	bool is_blank = at < c->end && (*at == ' ' || *at == '\t');
	if (at == from)
		return is_blank ? "a folded field line" : "malformed field name";
	if (at == c->end || *at != ':')
		return is_blank ? "a blank before the colon of a field" : "malformed field name";
	field->name = http_piece(from, at);
	from = at + 1;
	at = http_skip(from, c->end, HTTP_IN_VALUE);
	field->value = http_trim(http_piece(from, at));
	c->at = at;
	if (!http_take_line_end(c))
		return "a forbidden character in a field value";
	field->known = recognise(field->name);
	field->hop_by_hop = is_always_hop_by_hop(field->known);
	return NULL;
}

struct http_fault http_read_fields(struct http_cursor *c, struct http_head *head, http_names *present)
{
	*present = 0;
	head->field_count = 0;
	while (!http_take_line_end(c)) {
		if (head->field_count == HTTP_FIELDS_MAX)
			return http_refuse(431, "too many fields");
		struct http_field *field = &head->fields[head->field_count];
		const char *why = http_read_field(c, field);
		if (why)
			return http_refuse(400, why);
		*present |= (http_names)1 << field->known;
		head->field_count++;
	}
	return c->at == c->end ? http_accept() : http_refuse(400, "bytes after the empty line");
}

/* ---- Connection and Upgrade ------------------------------------------------------------------------------------ */

struct connection_options {
	size_t count;
	bool close, keep_alive, upgrade;
};

static void mark_hop_by_hop(struct http_head *head, struct http_text name)
{
	for (size_t i = 0; i < head->field_count; i++) {
		struct http_field *field = &head->fields[i];
		if (http_same(field->name, name) && !is_never_hop_by_hop(field->known))
			field->hop_by_hop = true;
	}
}

static struct http_fault read_options(struct http_head *head, struct http_text list, struct connection_options *options)
{
	struct http_text option;
	while (http_next_element(&list, &option)) {
		if (!http_is_token(option))
			return http_refuse(400, "malformed Connection");
		if (++options->count > OPTIONS_MAX)
			return http_refuse(400, "too many names in Connection");
		if (http_text_is(option, "close"))
			options->close = true;
		else if (http_text_is(option, "keep-alive"))
			options->keep_alive = true;
		else if (http_text_is(option, "upgrade"))
			options->upgrade = true;
		else
			mark_hop_by_hop(head, option);
	}
	return http_accept();
}

/* Is this a list of "name" or "name/version", without h2c? An h2c upgrade would turn the connection into one that
   carries requests we never see: they would pass every rule we have (request smuggling through h2c). */
static bool protocols_are_welcome(struct http_text list)
{
	struct http_text protocol;
	size_t count = 0;
	while (http_next_element(&list, &protocol)) {
		const char *end = protocol.at + protocol.length;
		const char *slash = memchr(protocol.at, '/', protocol.length);
		struct http_text name = http_piece(protocol.at, slash ? slash : end);
		if (!http_is_token(name) || (slash && !http_is_token(http_piece(slash + 1, end))))
			return false;
		if (http_text_is(name, "h2c") || http_text_is(name, "h2"))
			return false;
		count++;
	}
	return count > 0;
}

/* The value of Upgrade if it is one field that we would pass on; else it is ignored, as any server may (RFC 9110
   §7.8). */
static struct http_text read_upgrade(const struct http_head *head)
{
	struct http_text upgrade = { NULL, 0 };
	for (size_t i = 0; i < head->field_count; i++) {
		if (head->fields[i].known != HTTP_NAME_UPGRADE)
			continue;
		if (upgrade.at)
			return (struct http_text){ NULL, 0 };
		upgrade = head->fields[i].value;
	}
	return upgrade.at && protocols_are_welcome(upgrade) ? upgrade : (struct http_text){ NULL, 0 };
}

bool http_upgrade_was_offered(struct http_text offered, struct http_text chosen)
{
	struct http_text protocol;
	while (http_next_element(&chosen, &protocol)) {
		struct http_text list = offered, candidate;
		bool is_found = false;
		while (!is_found && http_next_element(&list, &candidate))
			is_found = http_same(candidate, protocol);
		if (!is_found)
			return false;
	}
	return true;
}

struct http_fault http_read_connection(struct http_head *head, http_names present)
{
	struct connection_options options = { 0, false, false, false };
	if (http_has(present, HTTP_NAME_CONNECTION))
		for (size_t i = 0; i < head->field_count; i++) {
			if (head->fields[i].known != HTTP_NAME_CONNECTION)
				continue;
			struct http_fault fault = read_options(head, head->fields[i].value, &options);
			if (fault.status)
				return fault;
		}
	head->keep_alive = !options.close && (head->minor_version >= 1 || options.keep_alive);
	head->upgrade = (struct http_text){ NULL, 0 };
	if (options.upgrade && head->minor_version >= 1 && http_has(present, HTTP_NAME_UPGRADE))
		head->upgrade = read_upgrade(head);
	return http_accept();
}

/* ---- framing --------------------------------------------------------------------------------------------------- */

/* One Content-Length field: a number, or a list of equal ones, as a careless proxy makes of repeated fields (RFC 9110
   §8.6). Empty elements, that other lists may have, are refused. */
static bool read_length(struct http_head *head, struct http_text list)
{
	const char *at = list.at, *end = list.at + list.length;
	for (;;) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		uint64_t length;
		if (!http_parse_number(http_trim(http_piece(at, comma ? comma : end)), &length))
			return false;
		if (head->has_content_length && length != head->content_length)
			return false;
		head->content_length = length;
		head->has_content_length = true;
		if (!comma)
			return true;
		at = comma + 1;
	}
}

struct codings {
	size_t chunked, unknown;
	bool chunked_is_last;
};

/* One Transfer-Encoding field. Parameters and empty elements are refused: nothing that works has them, and parsers
   differ. */
static bool read_codings(struct http_text list, struct codings *codings)
{
	const char *at = list.at, *end = list.at + list.length;
	for (;;) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		struct http_text coding = http_trim(http_piece(at, comma ? comma : end));
		if (!http_is_token(coding))
			return false;
		codings->chunked_is_last = http_text_is(coding, "chunked");
		if (codings->chunked_is_last)
			codings->chunked++;
		else
			codings->unknown++;
		if (!comma)
			return true;
		at = comma + 1;
	}
}

static struct http_fault judge_codings(const struct codings *codings)
{
	if (codings->chunked > 1)
		return http_refuse(400, "chunked twice");
	if (codings->chunked == 1 && !codings->chunked_is_last)
		return http_refuse(400, "chunked is not the last transfer coding");
	if (codings->unknown > 0)
		return http_refuse(501, "unknown transfer coding");
	return http_accept();
}

struct http_fault http_read_framing(struct http_head *head, http_names present)
{
	struct codings codings = { 0, 0, false };
	bool has_coding = http_has(present, HTTP_NAME_TRANSFER_ENCODING);

	head->framing = HTTP_NO_BODY;
	if (!has_coding && !http_has(present, HTTP_NAME_CONTENT_LENGTH))
		return http_accept();
	if (has_coding && http_has(present, HTTP_NAME_CONTENT_LENGTH))
		return http_refuse(400, "Content-Length together with Transfer-Encoding");
	if (has_coding && head->minor_version < 1)
		return http_refuse(400, "Transfer-Encoding in an HTTP/1.0 message");
	for (size_t i = 0; i < head->field_count; i++) {
		const struct http_field *field = &head->fields[i];
		if (field->known == HTTP_NAME_CONTENT_LENGTH && !read_length(head, field->value))
			return http_refuse(400, "malformed or contradictory Content-Length");
		if (field->known == HTTP_NAME_TRANSFER_ENCODING && !read_codings(field->value, &codings))
			return http_refuse(400, "malformed Transfer-Encoding");
	}
	head->framing = has_coding ? HTTP_CHUNKED : HTTP_BY_LENGTH;
	return has_coding ? judge_codings(&codings) : http_accept();
}
