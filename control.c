/* control.c: see control.h. */
#include "control.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/text.h"
#include "service.h"
#include "switch.h"

/* jansson parses by recursion, on a stack that we keep small: what is nested deeper never reaches it. */
#define DEPTH_MAX 8u
#define HOSTS_MAX 4096u
#define CAP_MAX 1000000

static int wrong(char why[CONTROL_WHY_MAX], int status, const char *format, ...) PRINTF_LIKE(3, 4);
static int wrong(char why[CONTROL_WHY_MAX], int status, const char *format, ...)
{
	char line[CONTROL_WHY_MAX];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	text_clean(line, strlen(line), why, CONTROL_WHY_MAX);
	return status;
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* How deep brackets are nested, those in strings aside. */
static bool is_too_deep(const char *body, size_t length)
{
	unsigned depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < length; i++) {
		if (in_string && body[i] == '\\')
			i++;
		else if (body[i] == '"')
			in_string = !in_string;
		else if (!in_string && (body[i] == '[' || body[i] == '{') && ++depth > DEPTH_MAX)
			return true;
		else if (!in_string && (body[i] == ']' || body[i] == '}') && depth > 0)
			depth--;
	}
	return false;
}

/* The object that a body is; NULL, and why. */
static json_t *read_object(const char *body, size_t length, char why[CONTROL_WHY_MAX])
{
	json_error_t error;
	if (is_too_deep(body, length)) {
		wrong(why, 400, "nested too deep");
		return NULL;
	}
	json_t *object = json_loadb(body, length, JSON_REJECT_DUPLICATES, &error);
	if (object == NULL)
		wrong(why, 400, "not JSON: line %d, column %d: %.100s", error.line, error.column, error.text);
	else if (!json_is_object(object))
		wrong(why, 400, "a JSON object is wanted");
	if (json_is_object(object))
		return object;
	json_decref(object);
	return NULL;
}

static bool is_word(const char *words, const char *key)
{
	size_t length = strlen(key);
	for (const char *end; *words != '\0'; words = *end == '|' ? end + 1 : end) {
		end = words + strcspn(words, "|");
		if ((size_t)(end - words) == length && memcmp(words, key, length) == 0)
			return true;
	}
	return false;
}

/* Is every key one of the words "a|b|c"? */
static bool keys_are_known(json_t *object, const char *words, char why[CONTROL_WHY_MAX])
{
	const char *key;
	json_t *value;
	json_object_foreach(object, key, value)
	{
		if (is_word(words, key))
			continue;
		wrong(why, 400, "unknown key '%.60s'; allowed: %s", key, words);
		return false;
	}
	return true;
}

/* The only service that there is; one that ends does not count while another goes on. */
static struct proxy *only_service(struct proxy *const *proxies, size_t count)
{
	struct proxy *found = NULL;
	size_t staying = 0;
	for (size_t i = 0; i < count; i++)
		if (!proxy_is_draining(proxies[i])) {
			found = proxies[i];
			staying++;
		}
	return staying == 1 ? found : count == 1 ? proxies[0] : NULL;
}

/* The service that is meant: the one that is named, or the only one. NULL, and why. */
static struct proxy *find_service(struct proxy *const *proxies, size_t count, json_t *object, char why[CONTROL_WHY_MAX])
{
	json_t *named = json_object_get(object, "service");
	const char *name = json_string_value(named);
	struct proxy *only = named == NULL ? only_service(proxies, count) : NULL;
	if (named == NULL && only == NULL)
		wrong(why, 400, "there are %zu services: service says which", count);
	else if (named != NULL && name == NULL)
		wrong(why, 400, "service: a name is wanted");
	for (size_t i = 0; name != NULL && i < count; i++)
		if (strcmp(proxy_name(proxies[i]), name) == 0)
			return proxies[i];
	if (name != NULL)
		wrong(why, 400, "there is no service '%.100s'", name);
	return only;
}

/* ---- limits --------------------------------------------------------------------------------------------------------- */

struct wish {
	bool has_threshold, has_caps;
	struct settings_rate threshold;
	unsigned default_cap;
	struct host_limits limits; /* the whole list as it is to be */
};

static int read_threshold(json_t *value, struct wish *wish, char why[CONTROL_WHY_MAX])
{
	char reason[160] = "", text[64];
	if (value == NULL)
		return 200;
	wish->has_threshold = true;
	if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= LIMITER_THRESHOLD_MAX)
		snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
	else if (json_is_string(value) && json_string_length(value) < sizeof text)
		snprintf(text, sizeof text, "%s", json_string_value(value));
	else
		return wrong(why, 400, "threshold: allowed: a whole number from 0 to 1000000, or a rate such as '600/m'");
	if (settings_parse_rate(text, &wish->threshold, reason, sizeof reason))
		return 200;
	return wrong(why, 400, "threshold: '%s' was read%s%s; allowed: a rate such as '100', '600/m' or '0.5/s'", text,
	             reason[0] != '\0' ? ": " : "", reason);
}

static bool read_cap(json_t *value, unsigned *cap)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > CAP_MAX)
		return false;
	*cap = (unsigned)json_integer_value(value);
	return true;
}

/* Sets, adds or (value null) removes one override. */
static int change_cap(struct host_limits *limits, const char *name, json_t *value, const char *key, char why[CONTROL_WHY_MAX])
{
	unsigned cap = 0;
	size_t i = 0;
	if (!json_is_null(value) && !read_cap(value, &cap))
		return wrong(why, 400, "hosts: '%.100s': allowed: a whole number from 0 to %d, or null", key, CAP_MAX);
	while (i < limits->count && strcmp(limits->items[i].name, name) != 0)
		i++;
	if (i < limits->count && json_is_null(value)) {
		free(limits->items[i].name);
		limits->items[i] = limits->items[--limits->count];
	} else if (i < limits->count) {
		limits->items[i].cap = cap;
	} else if (!json_is_null(value)) {
		if (limits->count >= HOSTS_MAX)
			return wrong(why, 400, "hosts: more than %u hosts with limits of their own", HOSTS_MAX);
		limits->items[i] = (struct host_limit){ .name = strdup(name), .cap = cap };
		if (limits->items[i].name == NULL)
			return wrong(why, 500, "out of memory");
		limits->count++;
	}
	return 200;
}

/* Two spellings of one host in one body: which of them was meant? */
static int read_hosts(json_t *hosts, struct wish *wish, char why[CONTROL_WHY_MAX])
{
	const char *key;
	json_t *value, *seen = json_object();
	int status = 200;
	json_object_foreach(hosts, key, value)
	{
		char name[HOSTS_NAME_MAX];
		const char *reason = settings_parse_host(key, strlen(key), name);
		if (reason != NULL)
			status = wrong(why, 400, "hosts: '%.100s': %s", key, reason);
		else if (json_object_get(seen, name) != NULL)
			status = wrong(why, 400, "hosts: '%.100s': this host twice", key);
		else
			status = change_cap(&wish->limits, name, value, key, why);
		if (status != 200)
			break;
		json_object_set_new(seen, name, json_true());
	}
	json_decref(seen);
	return status;
}

/* The list as it is, with room for what is to come. */
static int copy_caps(struct proxy *proxy, size_t more, struct wish *wish, char why[CONTROL_WHY_MAX])
{
	if (hosts_limits(proxy->hosts, &wish->default_cap, &wish->limits) != 0)
		return wrong(why, 500, "out of memory");
	struct host_limit *items = realloc(wish->limits.items, (wish->limits.count + more + 1) * sizeof *items);
	if (items == NULL)
		return wrong(why, 500, "out of memory");
	wish->limits.items = items;
	return 200;
}

static int read_caps(struct proxy *proxy, json_t *object, struct wish *wish, char why[CONTROL_WHY_MAX])
{
	json_t *default_cap = json_object_get(object, "default"), *hosts = json_object_get(object, "hosts");
	if (default_cap == NULL && hosts == NULL)
		return 200;
	if (proxy->hosts == NULL)
		return wrong(why, 400, "default and hosts are limits of a forward proxy, which '%.100s' is not", proxy_name(proxy));
	if (hosts != NULL && (!json_is_object(hosts) || json_object_size(hosts) > HOSTS_MAX))
		return wrong(why, 400, "hosts: allowed: an object of at most %u hosts", HOSTS_MAX);
	int status = copy_caps(proxy, hosts != NULL ? json_object_size(hosts) : 0, wish, why);
	if (status == 200 && default_cap != NULL && !read_cap(default_cap, &wish->default_cap))
		status = wrong(why, 400, "default: allowed: a whole number from 0 to %d", CAP_MAX);
	if (status == 200 && hosts != NULL)
		status = read_hosts(hosts, wish, why);
	wish->has_caps = true;
	return status;
}

/* The threshold first: it can still be refused (the line would be too long). The caps can only lack memory: then it goes back. */
static int apply_limits(struct proxy *proxy, const struct wish *wish, char why[CONTROL_WHY_MAX])
{
	char error[SETTINGS_ERROR_MAX];
	unsigned generation;
	struct settings *before = service_settings(proxy, &generation);
	int status = 200;
	if (wish->has_threshold && !service_set_threshold(proxy, &wish->threshold, error, sizeof error))
		status = wrong(why, 400, "threshold: %.300s", error);
	if (status == 200 && wish->has_caps && !service_set_caps(proxy, wish->default_cap, &wish->limits)) {
		if (wish->has_threshold)
			service_set_threshold(proxy, &before->threshold, error, sizeof error);
		status = wrong(why, 500, "out of memory");
	}
	settings_release(before);
	return status;
}

int control_put_limits(struct proxy *const *proxies, size_t count, const char *body, size_t body_bytes, char why[CONTROL_WHY_MAX])
{
	struct wish wish = { .has_threshold = false };
	json_t *object = read_object(body, body_bytes, why);
	int status = object != NULL && keys_are_known(object, "service|threshold|default|hosts", why) ? 200 : 400;
	struct proxy *proxy = status == 200 ? find_service(proxies, count, object, why) : NULL;
	if (proxy == NULL)
		status = 400;
	if (status == 200)
		status = read_threshold(json_object_get(object, "threshold"), &wish, why);
	if (status == 200)
		status = read_caps(proxy, object, &wish, why);
	if (status == 200 && !wish.has_threshold && !wish.has_caps)
		status = wrong(why, 400, "nothing to change; allowed: threshold, default, hosts");
	if (status == 200)
		status = apply_limits(proxy, &wish, why);
	host_limits_free(&wish.limits);
	json_decref(object);
	return status;
}

/* ---- targets -------------------------------------------------------------------------------------------------------- */

static bool drain(struct proxy *proxy, const char *address, bool is_drained)
{
	if (proxy->packets != NULL)
		return packet_switch_drain(proxy->packets, address, is_drained);
	if (!balancer_drain(proxy->balancer, address, is_drained))
		return false;
	prober_kick(proxy->prober); /* one that was out meanwhile has a probe due */
	return true;
}

int control_put_targets(struct proxy *const *proxies, size_t count, const char *body, size_t body_bytes, char why[CONTROL_WHY_MAX])
{
	json_t *object = read_object(body, body_bytes, why);
	int status = object != NULL && keys_are_known(object, "service|address|state", why) ? 200 : 400;
	struct proxy *proxy = status == 200 ? find_service(proxies, count, object, why) : NULL;
	if (proxy == NULL) {
		json_decref(object);
		return 400;
	}
	const char *address = json_string_value(json_object_get(object, "address"));
	const char *state = json_string_value(json_object_get(object, "state"));
	bool is_drained = state != NULL && strcmp(state, "drain") == 0;
	if (address == NULL)
		status = wrong(why, 400, "address: allowed: a target's address, as GET shows it");
	else if (state == NULL || (!is_drained && strcmp(state, "in") != 0))
		status = wrong(why, 400, "state: allowed: drain or in");
	else if (!drain(proxy, address, is_drained))
		status = wrong(why, 404, "'%.100s' has no target '%.100s'", proxy_name(proxy), address);
	if (status == 200)
		log_write(proxy->log, LOG_LEVEL_INFO, proxy_name(proxy), is_drained ? "target %s is drained: it gets no new requests" :
		                                                                      "target %s is let back in", address);
	json_decref(object);
	return status;
}
