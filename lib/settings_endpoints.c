/* settings_endpoints.c: names, addresses and lists of targets.
 *
 *      10.0.0.1:80 , web.example.org:8080*3 , [2001:db8::1]:80 , unix:/run/app.sock*2
 *      └host──┘ │                         │    └host─────┘               └path─┘      │
 *               port                      weight (1)                                  weight
 *
 * A list may have a thousand items, so an error about one of them names that one and what it lacks, not the list
 * alone.
 *
 * Names are checked for their form, never resolved: a name that does not resolve is a target that is out, which is a
 * matter for the running service (it may resolve tomorrow), and a file is checked on machines that cannot resolve it.
 * What looks like an IPv4 address must be one, for getaddrinfo() would take "10.1" for 10.0.0.1, and 256.0.0.1 for a
 * name to ask the world for.
 *
 * The invariant: what is not understood down to its last byte is an error, and then nothing is kept. Source: RFC 1035
 * §2.3.4 (length of names), RFC 3986 §3.2.2 (brackets), unix(7) (length of paths). Any thread.
 */
#include "settings_internal.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#define HOST_MAX 255u /* RFC 1035 §2.3.4 */
#define UNIX_PATH_MAX_BYTES (sizeof((struct sockaddr_un *)0)->sun_path - 1)

/* ---- names and addresses ---- */

/* Dots and digits alone: meant as an IPv4 address, and a resolver may read "10.1" as 10.0.0.1. */
static bool looks_like_ipv4(const char *host)
{
	return host[strspn(host, "0123456789.")] == '\0';
}

static bool is_ipv4(const char *host)
{
	struct in_addr address;
	return inet_pton(AF_INET, host, &address) == 1;
}

/* With a scope, too: fe80::1%eth0. */
bool value_is_ipv6(const char *host)
{
	struct in6_addr address;
	char copy[INET6_ADDRSTRLEN];
	size_t length = strcspn(host, "%");

	if (length >= sizeof copy || (host[length] == '%' && host[length + 1] == '\0'))
		return false;
	memcpy(copy, host, length);
	copy[length] = '\0';
	return inet_pton(AF_INET6, copy, &address) == 1;
}

/* An underscore is not allowed in a hostname and is common in the names that containers are given. */
static bool is_host(const char *host)
{
	size_t length = strlen(host);
	if (length == 0 || length > HOST_MAX || host[0] == '.' || host[0] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!value_is_letter_or_digit(host[i]) && !strchr("-._", host[i]))
			return false;
	if (strstr(host, ".."))
		return false;
	return looks_like_ipv4(host) ? is_ipv4(host) : true;
}

static bool is_unix_path(const char *path)
{
	return path[0] == '/' && path[1] != '\0' && strlen(path) <= UNIX_PATH_MAX_BYTES;
}

bool value_is_hostname(const char *text)
{
	return is_host(text);
}

bool value_is_server_name(const char *text)
{
	return is_host(text) || value_is_ipv6(text);
}

bool value_is_bind(const char *text)
{
	if (strncasecmp(text, "unix:", 5) == 0)
		return is_unix_path(text + 5);
	return is_ipv4(text) || value_is_ipv6(text);
}

/* ---- endpoints ---- */

/* Takes "*N" off the end of item. False when there is one and it is no weight. */
static bool take_weight(char *item, bool is_unix, unsigned *out)
{
	char *star = strrchr(item, '*');
	uint64_t weight = 1;

	if (star) {
		const char *digits = star + 1;
		/* A path may have stars of its own. */
		if (!value_digits(&digits, &weight) || *digits != '\0') {
			*out = 1;
			return is_unix;
		}
		if (weight < 1 || weight > SETTINGS_WEIGHT_MAX)
			return false;
		*star = '\0';
	}
	*out = (unsigned)weight;
	return true;
}

static bool read_port(const char *text, unsigned *out)
{
	uint64_t port;
	if (!value_digits(&text, &port) || *text != '\0' || port < 1 || port > 65535)
		return false;
	*out = (unsigned)port;
	return true;
}

const char *value_split_host_port(char *item, unsigned *port, const char **why)
{
	char *colon = strrchr(item, ':');
	char *host = item;
	bool bracketed = item[0] == '[';

	if (strstr(item, "://")) {
		*why = "a target, not a URL, is wanted";
		return NULL;
	}
	if (!bracketed && colon && strchr(item, ':') != colon) {
		*why = "an IPv6 address stands in brackets";
		return NULL;
	}
	if (!colon || (bracketed && strchr(colon, ']'))) {
		*why = "no port";
		return NULL;
	}
	*colon = '\0';
	if (!read_port(colon + 1, port)) {
		*why = "no such port";
		return NULL;
	}
	if (bracketed) {
		size_t length = strlen(item);
		*why = "not an IPv6 address in brackets";
		if (length < 3 || item[length - 1] != ']')
			return NULL;
		item[length - 1] = '\0';
		host = item + 1;
		return value_is_ipv6(host) ? host : NULL;
	}
	*why = "not a name or an IPv4 address";
	return is_host(host) ? host : NULL;
}

static enum value_result read_endpoint(char *item, struct settings_endpoint *out, const char **why)
{
	const char *host;

	out->is_unix = strncasecmp(item, "unix:", 5) == 0;
	if (!take_weight(item, out->is_unix, &out->weight)) {
		*why = "no such weight";
		return VALUE_WRONG;
	}
	if (out->is_unix) {
		host = item + 5;
		*why = "not an absolute path of at most 107 bytes";
		if (!is_unix_path(host))
			return VALUE_WRONG;
	} else {
		host = value_split_host_port(item, &out->port, why);
		if (!host)
			return VALUE_WRONG;
	}
	out->host = strdup(host);
	return out->host ? VALUE_GOOD : VALUE_NO_MEMORY;
}

static bool is_same_endpoint(const struct settings_endpoint *a, const struct settings_endpoint *b)
{
	if (a->is_unix != b->is_unix || a->port != b->port)
		return false;
	return a->is_unix ? strcmp(a->host, b->host) == 0 : strcasecmp(a->host, b->host) == 0;
}

void value_clear_endpoints(struct settings_endpoints *endpoints)
{
	for (size_t i = 0; i < endpoints->count; i++)
		free(endpoints->items[i].host);
	free(endpoints->items);
	*endpoints = (struct settings_endpoints){ NULL, 0 };
}

/* Reads one item of the list; what is wrong with it names it, for there may be a thousand. */
static enum value_result add_endpoint(struct settings_endpoints *list, char *item, char *why)
{
	struct settings_endpoint *added = &list->items[list->count];
	char quoted[SETTINGS_QUOTE_MAX];
	const char *reason = NULL;

	item = settings_trim(item);
	settings_quote(item, quoted);
	if (*item == '\0')
		return value_wrong(why, "nothing between two commas, or after the last");
	enum value_result result = read_endpoint(item, added, &reason);
	if (result != VALUE_GOOD) {
		if (result == VALUE_WRONG)
			snprintf(why, VALUE_WHY_MAX, "%s: %s", quoted, reason);
		return result;
	}
	list->count++;
	for (size_t i = 0; i + 1 < list->count; i++) {
		if (is_same_endpoint(&list->items[i], added)) {
			snprintf(why, VALUE_WHY_MAX, "%s: twice in the list; give it a weight instead", quoted);
			return VALUE_WRONG;
		}
	}
	return VALUE_GOOD;
}

enum value_result value_endpoints(const char *text, struct settings_endpoints *out, char *why)
{
	struct settings_endpoints list = { NULL, 0 };
	enum value_result result = VALUE_GOOD;
	size_t commas = 0;

	for (const char *at = text; *at != '\0'; at++)
		commas += *at == ',';
	if (commas + 1 > SETTINGS_ENDPOINTS_MAX)
		return value_wrong(why, "too many");
	list.items = calloc(commas + 1, sizeof *list.items);
	char *copy = strdup(text);
	if (!list.items || !copy)
		result = VALUE_NO_MEMORY;
	for (char *rest = copy; result == VALUE_GOOD && rest;)
		result = add_endpoint(&list, strsep(&rest, ","), why);
	free(copy);
	if (result == VALUE_GOOD)
		*out = list;
	else
		value_clear_endpoints(&list);
	return result;
}

bool value_is_host_and_port(const char *text)
{
	char copy[HOST_MAX + 16];
	const char *why;
	unsigned port;

	if (strlen(text) >= sizeof copy || strncasecmp(text, "unix:", 5) == 0)
		return false;
	snprintf(copy, sizeof copy, "%s", text);
	return value_split_host_port(copy, &port, &why) != NULL;
}

/* "host", "host:port", "[v6]:port", "[v6]", "unix:/path". */
bool value_is_redis_address(const char *text)
{
	char copy[HOST_MAX + 16];
	const char *why;
	unsigned port;
	size_t length = strlen(text);

	if (strncasecmp(text, "unix:", 5) == 0)
		return is_unix_path(text + 5);
	if (length >= sizeof copy - 8)
		return false;
	bool has_port = text[0] == '[' ? text[length - 1] != ']' : strchr(text, ':') != NULL;
	snprintf(copy, sizeof copy, "%s%s", text, has_port ? "" : ":6379");
	return value_split_host_port(copy, &port, &why) != NULL;
}
