/* guard.c: see guard.h. */
#include "guard.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#include "network.h"

bool guard_is_loopback(const struct address *peer)
{
	struct network four, six;
	network_parse("127.0.0.0/8", 11, &four);
	network_parse("::1", 3, &six);
	struct network items[] = { four, six };
	struct networks loopback = { .items = items, .count = 2, .has_unix = true };
	return networks_contain(&loopback, peer);
}

/* "name:80", "[::1]:80" without the port. */
static struct http_text without_port(struct http_text host)
{
	if (host.length > 0 && host.at[0] == '[') {
		const char *end = memchr(host.at, ']', host.length);
		return end == NULL ? host : (struct http_text){ host.at + 1, (size_t)(end - host.at) - 1 };
	}
	const char *colon = memchr(host.at, ':', host.length);
	return colon == NULL ? host : (struct http_text){ host.at, (size_t)(colon - host.at) };
}

static bool is_address(struct http_text host)
{
	char text[INET6_ADDRSTRLEN];
	unsigned char bytes[sizeof(struct in6_addr)];
	if (host.length >= sizeof text)
		return false;
	memcpy(text, host.at, host.length);
	text[host.length] = '\0';
	return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

/* The machine's name, long or short as it happens to be set. */
static bool is_machine(struct http_text host, const char *name)
{
	return name != NULL && name[0] != '\0' &&
	       (http_text_is(host, name) ||
	        (host.length == strcspn(name, ".") && host.length > 0 && strncasecmp(host.at, name, host.length) == 0));
}

static bool host_is_ours(const struct guard *guard, struct http_text host)
{
	if (host.at == NULL) /* HTTP/1.0 without one: no browser asks like this */
		return true;
	struct http_text name = without_port(host);
	return is_address(name) || http_text_is(name, "localhost") || is_machine(name, guard->machine_name) ||
	       (guard->bound_name != NULL && http_text_is(name, guard->bound_name));
}

static bool starts_with(struct http_text *text, const char *word)
{
	size_t length = strlen(word);
	if (text->length < length || strncasecmp(text->at, word, length) != 0)
		return false;
	text->at += length;
	text->length -= length;
	return true;
}

/* https as well: something in front of us may speak TLS for us. */
static bool origin_is_host(struct http_text origin, struct http_text host)
{
	if (host.at == NULL || (!starts_with(&origin, "http://") && !starts_with(&origin, "https://")))
		return false;
	return origin.length == host.length && strncasecmp(origin.at, host.at, host.length) == 0;
}

/* Browsers say so of their own accord, and a page can't say otherwise: an <img> or a <script> of a stranger's asks without an Origin. That
   somebody followed a link to us is another matter. */
static bool another_page_asks(const struct http_head *request)
{
	const struct http_field *site = http_find_name(request, "Sec-Fetch-Site"), *mode = http_find_name(request, "Sec-Fetch-Mode");
	if (site == NULL || http_text_is(site->value, "same-origin") || http_text_is(site->value, "none"))
		return false;
	return mode == NULL || !http_text_is(mode->value, "navigate");
}

enum token { TOKEN_NONE, TOKEN_RIGHT, TOKEN_WRONG };

/* Compared by their hashes, all bytes at any rate: how long it takes says neither where two tokens differ nor how long ours is. */
static enum token token_of(const struct guard *guard, const struct http_head *request)
{
	const struct http_field *field = http_find_name(request, "Authorization");
	unsigned char given[SHA256_DIGEST_LENGTH], ours[SHA256_DIGEST_LENGTH];
	if (field == NULL || guard->token == NULL)
		return TOKEN_NONE;
	struct http_text value = field->value;
	if (!starts_with(&value, "Bearer "))
		return TOKEN_WRONG;
	while (value.length > 0 && *value.at == ' ') {
		value.at++;
		value.length--;
	}
	SHA256((const unsigned char *)value.at, value.length, given);
	SHA256((const unsigned char *)guard->token, strlen(guard->token), ours);
	return CRYPTO_memcmp(given, ours, sizeof ours) == 0 ? TOKEN_RIGHT : TOKEN_WRONG;
}

enum guard_verdict guard_check(const struct guard *guard, const struct address *peer, const struct http_head *request)
{
	const struct http_field *origin = http_find_name(request, "Origin");
	enum token token = token_of(guard, request);
	bool reads = request->method == HTTP_GET || request->method == HTTP_HEAD;
	if (token == TOKEN_WRONG)
		return GUARD_WRONG_TOKEN;
	if (token != TOKEN_RIGHT && !host_is_ours(guard, request->host))
		return GUARD_FOREIGN_HOST;
	if ((origin != NULL && !origin_is_host(origin->value, request->host)) || another_page_asks(request))
		return GUARD_FOREIGN_ORIGIN;
	if (reads || token == TOKEN_RIGHT || guard_is_loopback(peer))
		return GUARD_PASS;
	return guard->token == NULL ? GUARD_LOCAL_ONLY : GUARD_TOKEN_NEEDED;
}
