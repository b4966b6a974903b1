/* http_target.c: where does this request want to go? Request targets and the grammar of Host.
 *
 * A target has one of four forms (RFC 9112 §3.2), and each goes with certain methods only:
 *
 *      origin      /pub/page?q=1                 any method but CONNECT
 *      absolute    http://host:port/pub?q=1      the same; how a client speaks to a forward proxy
 *      authority   host:port                     CONNECT, and nothing else
 *      asterisk    *                             OPTIONS, and nothing else
 *
 * The target is checked and cut, never decoded: "%2e%2e" and "..", "%2f" and "/" are different bytes to one server
 * and the same to the next, and whoever decodes on the way lets a path through that a rule before him had not seen.
 * Only an escape that is none ("%zz", "%4") is refused, since programs disagree about what it is; in the query it is
 * left alone, where form encoders have always written such things.
 *
 * Host must be one name with an optional port. "a, b", "user@a", "a/b" are names to one program and several to
 * another: one routes by the first half and the next checks the second (cache poisoning, password-reset poisoning).
 *
 * Sources: RFC 9112 §3.2, RFC 9110 §7.2, RFC 3986 §3.2.
 */
#include <arpa/inet.h>
#include <string.h>

#include "http_parts.h"

/* Does every '%' begin an escape of two hex digits? */
static bool escapes_are_whole(struct http_text text)
{
	const char *at = text.at, *end = text.at + text.length;
	while ((at = memchr(at, '%', (size_t)(end - at))) != NULL) {
		if (end - at < 3 || !http_is(at[1], HTTP_IN_HEX) || !http_is(at[2], HTTP_IN_HEX))
			return false;
		at += 3;
	}
	return true;
}

static bool is_ipv6_address(struct http_text text)
{
	char address[INET6_ADDRSTRLEN];
	struct in6_addr ignored;
	if (text.length >= sizeof address || memchr(text.at, '\0', text.length))
		return false;
	memcpy(address, text.at, text.length);
	address[text.length] = '\0';
	return inet_pton(AF_INET6, address, &ignored) == 1;
}

/* Moves over uri-host: a name, an IPv4 address (which has the form of a name), or an IPv6 address in brackets. */
static bool take_host(struct http_cursor *c)
{
	const char *from = c->at;
	if (from < c->end && *from == '[') {
		const char *close = memchr(from, ']', (size_t)(c->end - from));
		if (!close || !is_ipv6_address(http_piece(from + 1, close)))
			return false;
		c->at = close + 1;
		return true;
	}
	while (c->at < c->end && (http_is(*c->at, HTTP_IN_HOST) || *c->at == '%'))
		c->at++;
	return c->at > from && escapes_are_whole(http_piece(from, c->at));
}

/* uri-host [":" port]. A port may be left empty ("host:"), unless one is needed. */
static bool is_authority(struct http_text text, bool needs_port)
{
	struct http_cursor c = { text.at, text.at + text.length };
	if (!take_host(&c))
		return false;
	if (c.at == c.end)
		return !needs_port;
	if (*c.at++ != ':')
		return false;
	if (c.at == c.end)
		return !needs_port;
	uint64_t port;
	if (!http_parse_number(http_piece(c.at, c.end), &port))
		return false;
	return port <= 65535 && (port > 0 || !needs_port);
}

static bool path_is_sound(struct http_text path)
{
	const char *query = memchr(path.at, '?', path.length);
	return escapes_are_whole(http_piece(path.at, query ? query : path.at + path.length));
}

/* "http://" or "https://": what follows, or NULL. */
static const char *after_scheme(struct http_text target)
{
	static const char *const schemes[] = { "http://", "https://" };
	for (size_t i = 0; i < 2; i++) {
		size_t length = strlen(schemes[i]);
		if (target.length >= length && http_text_is((struct http_text){ target.at, length }, schemes[i]))
			return target.at + length;
	}
	return NULL;
}

static struct http_fault read_absolute_form(struct http_head *head)
{
	const char *from = after_scheme(head->target), *end = head->target.at + head->target.length;
	if (!from)
		return http_refuse(400, "the request target has no known form");
	const char *at = from;
	while (at < end && *at != '/' && *at != '?')
		at++;
	head->form = HTTP_ABSOLUTE_FORM;
	head->host = http_piece(from, at);
	if (!is_authority(head->host, false))
		return http_refuse(400, "malformed host in the request target");
	head->path = http_piece(at, end);
	if (head->path.length == 0)
		head->path = (struct http_text){ head->method == HTTP_OPTIONS ? "*" : "/", 1 };
	if (!path_is_sound(head->path))
		return http_refuse(400, "malformed escape in the request target");
	return http_accept();
}

struct http_fault http_read_target(struct http_head *head)
{
	struct http_text target = head->target;
	head->path = target;
	if (head->method == HTTP_CONNECT) {
		head->form = HTTP_AUTHORITY_FORM;
		head->host = target;
		if (!is_authority(target, true))
			return http_refuse(400, "CONNECT needs host:port");
		return http_accept();
	}
	if (target.at[0] == '/') {
		head->form = HTTP_ORIGIN_FORM;
		if (!path_is_sound(target))
			return http_refuse(400, "malformed escape in the request target");
		return http_accept();
	}
	if (target.length == 1 && target.at[0] == '*') {
		head->form = HTTP_ASTERISK_FORM;
		if (head->method != HTTP_OPTIONS)
			return http_refuse(400, "the target * goes with OPTIONS only");
		return http_accept();
	}
	return read_absolute_form(head);
}

struct http_fault http_read_host(struct http_head *head, http_names present)
{
	const struct http_field *host = NULL;
	if (http_has(present, HTTP_NAME_HOST))
		for (size_t i = 0; i < head->field_count; i++) {
			if (head->fields[i].known != HTTP_NAME_HOST)
				continue;
			if (host)
				return http_refuse(400, "more than one Host");
			host = &head->fields[i];
		}
	if (!host)
		return head->minor_version >= 1 ? http_refuse(400, "no Host") : http_accept();
	if (!is_authority(host->value, false))
		return http_refuse(400, "malformed Host");
	if (!head->host.at)
		head->host = host->value;
	return http_accept();
}
