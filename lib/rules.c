/* rules.c: see rules.h.
 *
 * A rule that looked at the path as it is spelt would hold honest clients only. These are all /login:
 *
 *      /%6cogin    //login    /./login    /x/../login    /x%2f..%2Flogin    /login?next=/
 *
 * So a path is brought into its plain form in one pass from left to right, one segment at a time:
 *
 *      next segment     what happens            out, after /a/./%62//../c
 *      ────────────     ───────────────────     ─────────────────────────
 *      "" or "."        nothing                 /a   /a
 *      ".."             the last one goes       /a/b ──► /a
 *      another          it is added             /a/c
 *
 * Escapes are decoded once, as targets do: %2561 is "%61", not "a". What is decoded decides, so %2F divides segments
 * and %2e%2e is "..": some targets see it so, and for a limit it is better to be counted once too often. An escape that
 * is none, and %00, stay as they are. Case counts, backslashes and ";parameters" are left alone.
 *
 * When the room ends. A segment that does not fit is written as far as it goes, what follows it is not written, only
 * counted; ".." takes counted ones off first. So /<9000 bytes>/../login is still /login, and a path that really is
 * longer than the room is cut, which leaves its beginning, and that is what rules look at.
 *
 * The invariant: out begins with a slash, no segment of it is "." or "..", none but the last is empty, and
 * plain(encode(out)) is out again. What does not begin with a slash ("*", a CONNECT target) is left as it is.
 *
 * Source: RFC 3986 §2.4 (decode once), §5.2.4 (dot segments), §6.2.2.
 */
#include "rules.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

/* ---- the plain path ---- */

struct plain {
	char *out;
	size_t capacity;
	size_t used;   /* bytes of the segments that fitted */
	size_t beyond; /* segments that did not; the first of them stands behind used, cut */
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The next decoded byte; *at moves behind it. */
static char take_byte(const char **at, const char *end)
{
	char c = *(*at)++;

	if (c != '%' || end - *at < 2)
		return c;
	int high = hex_digit((*at)[0]), low = hex_digit((*at)[1]);
	if (high < 0 || low < 0 || (high == 0 && low == 0))
		return c;
	*at += 2;
	return (char)(high << 4 | low);
}

static void drop_last(struct plain *p)
{
	if (p->beyond > 0) {
		p->beyond--;
		return;
	}
	while (p->used > 0 && p->out[--p->used] != '/')
		;
}

/* Reads one segment up to its slash or the end, and adds it, or leaves it out, or takes another away. True when a slash
   stands behind the path if nothing follows: "/a/", and "/a/." and "/a/b/.." as well (RFC 3986 §5.2.4). */
static bool take_segment(struct plain *p, const char **at, const char *end)
{
	size_t room = p->beyond > 0 ? 0 : p->capacity - p->used, length = 0;
	char *to = p->out + p->used;
	bool is_dots = true, has_slash = false;

	while (*at < end) {
		char c = take_byte(at, end);
		if (c == '/') {
			has_slash = true;
			break;
		}
		if (length + 1 < room)
			to[length + 1] = c;
		length++;
		is_dots = is_dots && c == '.';
	}
	if (length == 0 || (is_dots && length <= 2)) {
		if (length == 2)
			drop_last(p);
		return true;
	}
	if (room > 0)
		to[0] = '/';
	if (p->beyond > 0 || length + 1 > room)
		p->beyond++;
	else
		p->used += length + 1;
	return has_slash;
}

size_t rules_normalize_path(struct http_text path, char *out, size_t capacity)
{
	const char *at = path.at;
	const char *question = path.length > 0 ? memchr(path.at, '?', path.length) : NULL;
	size_t length = question ? (size_t)(question - path.at) : path.length;
	struct plain p = { .out = out, .capacity = capacity };
	bool wants_slash = true;

	if (capacity == 0)
		return 0;
	if (length > 0 && path.at[0] != '/') {
		if (length > capacity)
			length = capacity;
		memcpy(out, path.at, length);
		return length;
	}
	const char *end = at + length;
	while (at < end)
		wants_slash = take_segment(&p, &at, end);
	if (p.beyond > 0)
		return capacity;
	if (wants_slash && p.used < capacity)
		out[p.used++] = '/';
	return p.used;
}

/* ---- matching ---- */

static bool method_matches(const char *methods, struct http_text method)
{
	struct http_text list = { methods, strlen(methods) }, one;

	/* Without regard to case: "post" is another method (RFC 9110 §9.1), but not to every target. */
	while (http_next_element(&list, &one))
		if (one.length == method.length && strncasecmp(one.at, method.at, one.length) == 0)
			return true;
	return false;
}

static bool path_matches(const struct settings_rule *rule, struct http_text path)
{
	size_t length = strlen(rule->path);

	if (path.length < length || (path.length > length && !rule->path_is_prefix))
		return false;
	return memcmp(path.at, rule->path, length) == 0;
}

/* "api.example:8000" and "api.example." are api.example, "[2001:db8::1]:80" is 2001:db8::1. */
static struct http_text host_alone(struct http_text host)
{
	const char *end;

	if (host.length > 0 && host.at[0] == '[') {
		end = memchr(host.at, ']', host.length);
		return (struct http_text){ host.at + 1, end ? (size_t)(end - host.at) - 1 : host.length - 1 };
	}
	end = host.length > 0 ? memchr(host.at, ':', host.length) : NULL;
	if (end)
		host.length = (size_t)(end - host.at);
	if (host.length > 0 && host.at[host.length - 1] == '.')
		host.length--;
	return host;
}

/* An IPv6 address has many spellings. */
static bool is_same_ipv6(const char *one, struct http_text other)
{
	struct in6_addr a, b;
	char copy[INET6_ADDRSTRLEN];

	if (other.length >= sizeof copy)
		return false;
	memcpy(copy, other.at, other.length);
	copy[other.length] = '\0';
	return inet_pton(AF_INET6, one, &a) == 1 && inet_pton(AF_INET6, copy, &b) == 1 && IN6_ARE_ADDR_EQUAL(&a, &b);
}

static bool host_matches(const char *wanted, struct http_text host)
{
	host = host_alone(host);
	if (host.length == 0)
		return false;
	return http_text_is(host, wanted) || (strchr(wanted, ':') && is_same_ipv6(wanted, host));
}

/* A client that sends the field twice has sent it: one of them is enough. */
static bool header_matches(const struct settings_header *wanted, const struct http_head *request)
{
	size_t length = strlen(wanted->value);

	for (size_t i = 0; i < request->field_count; i++) {
		const struct http_field *field = &request->fields[i];
		if (field->value.length == length && http_text_is(field->name, wanted->name) &&
		    memcmp(field->value.at, wanted->value, length) == 0)
			return true;
	}
	return false;
}

bool rules_match(const struct settings_rule *rule, const struct http_head *request, struct http_text path)
{
	if (rule->method && !method_matches(rule->method, request->method_text))
		return false;
	if (rule->path && !path_matches(rule, path))
		return false;
	if (rule->host && !host_matches(rule->host, request->host))
		return false;
	for (size_t i = 0; i < rule->header_count; i++)
		if (!header_matches(&rule->headers[i], request))
			return false;
	return true;
}

/* ---- keys ---- */

/* Bytes of a part that stand in the key as they are. All three, with what goes before them, have room in
   RULES_PATH_MAX + 512. */
#define CLIENT_PART_MAX 128u
#define HEADER_PART_MAX 256u

struct key_text {
	char *out;
	size_t capacity, used;
};

static void put_bytes(struct key_text *key, const void *bytes, size_t length)
{
	if (length > key->capacity - key->used)
		length = key->capacity - key->used;
	if (length > 0)
		memcpy(key->out + key->used, bytes, length);
	key->used += length;
}

/* FNV-1a. It need not be a secret one: who finds two values that collide shares a limit with himself, and to share that
   of another he would have to know the other's value, with which he could do so anyway. */
static uint64_t hash(struct http_text text)
{
	uint64_t state = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < text.length; i++)
		state = (state ^ (unsigned char)text.at[i]) * UINT64_C(0x100000001b3);
	return state;
}

/* A letter and the length go before the bytes, so that no value can pass for two parts, or for another part. Of a long
   one the beginning stands there and a hash of it all: tokens often begin alike and differ at their end. */
static void put_part(struct key_text *key, char letter, struct http_text text, size_t most)
{
	uint64_t length = text.length, sum = hash(text);

	put_bytes(key, &letter, 1);
	put_bytes(key, &length, sizeof length);
	if (text.length <= most) {
		put_bytes(key, text.at, text.length);
		return;
	}
	put_bytes(key, text.at, most - sizeof sum);
	put_bytes(key, &sum, sizeof sum);
}

/* The one field of that name. One that is empty or stands there twice tells nobody apart: a target may look at either,
   and a second one with a new value each time would be a new client each time. */
static bool find_one(const struct http_head *request, const char *name, struct http_text *value)
{
	size_t count = 0;

	for (size_t i = 0; i < request->field_count; i++) {
		if (http_text_is(request->fields[i].name, name)) {
			*value = request->fields[i].value;
			count++;
		}
	}
	return count == 1 && value->length > 0;
}

size_t rules_key(const struct settings_key *key, const struct http_head *request, struct http_text path,
                 struct http_text client, char *out, size_t capacity)
{
	struct key_text text = { out, capacity, 0 };
	struct http_text value;

	if (key->client)
		put_part(&text, 'c', client, CLIENT_PART_MAX);
	if (key->header && find_one(request, key->header, &value))
		put_part(&text, 'h', value, HEADER_PART_MAX);
	else if (key->header)
		put_part(&text, 'n', client, CLIENT_PART_MAX);
	if (key->path)
		put_part(&text, 'p', path, RULES_PATH_MAX);
	return text.used;
}
