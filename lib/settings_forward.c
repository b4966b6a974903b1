/* settings_forward.c: host_limits, host_rates and connect_allow.
 *
 *      api.example=5, api.example:8443=2, [2001:db8::1]=0        host_limits: a cap for each host
 *      api.example=600/m, api.example:8443=0.5/s                  host_rates: a rate for each host
 *      *:443, *.example.com:80, 10.1.0.0/16:*                    connect_allow: what may be reached
 *
 * A host is kept under the name it is counted by (hosts_name()): "API.example.:443" is api.example. So two spellings of one host in
 * a list are found, which is an error: which of the two caps was meant?
 *
 * The invariant: what is not understood down to its last byte is an error, and then nothing is kept. Any thread.
 */
#include "settings_internal.h"

#include <stdlib.h>
#include <string.h>

/* Says which item is wrong, for there may be thousands. */
static enum value_result wrong_item(const char *item, const char *reason, char *why)
{
	char quoted[SETTINGS_QUOTE_MAX];
	snprintf(why, VALUE_WHY_MAX, "%s: %s", settings_quote(item, quoted), reason);
	return VALUE_WRONG;
}

static size_t count_items(const char *text)
{
	size_t count = 1;
	for (; *text != '\0'; text++)
		count += *text == ',';
	return count;
}

/* ---- host_limits ---- */

const char *settings_parse_host(const char *text, size_t length, char name[HOSTS_NAME_MAX])
{
	const char *end = text + length, *colon = NULL;
	uint64_t port = 80;

	if (length > 0 && text[0] == '[') {
		const char *bracket = memchr(text, ']', length);
		if (!bracket)
			return "no ] after the [";
		if (bracket + 1 < end && bracket[1] != ':')
			return "not a colon after the ]";
		colon = bracket + 1 < end ? bracket + 1 : NULL;
	} else {
		colon = memchr(text, ':', length);
		if (colon && memchr(colon + 1, ':', (size_t)(end - colon) - 1))
			return "an IPv6 address stands in brackets";
	}
	if (colon) {
		const char *digits = colon + 1;
		if (!value_digits(&digits, &port) || digits != end || port < 1 || port > 65535)
			return "no such port";
		length = (size_t)(colon - text);
	}
	return hosts_name(text, length, (unsigned)port, name) ? NULL : "not a name or an address";
}

/* "host = N": the host's name, and where N begins. item is trimmed. */
static enum value_result split_item(char *item, char name[HOSTS_NAME_MAX], const char **number, char *why)
{
	if (*item == '\0')
		return value_wrong(why, "nothing between two commas, or after the last");
	char *equals = strrchr(item, '=');
	if (!equals)
		return wrong_item(item, "no =N", why);
	*number = equals + 1 + strspn(equals + 1, " \t");
	size_t length = (size_t)(equals - item);
	while (length > 0 && (item[length - 1] == ' ' || item[length - 1] == '\t'))
		length--;
	const char *reason = settings_parse_host(item, length, name);
	return reason ? wrong_item(item, reason, why) : VALUE_GOOD;
}

static enum value_result add_limit(struct host_limits *list, char *item, char *why)
{
	char name[HOSTS_NAME_MAX];
	const char *digits;
	uint64_t cap;

	item = settings_trim(item);
	enum value_result result = split_item(item, name, &digits, why);
	if (result != VALUE_GOOD)
		return result;
	if (!value_digits(&digits, &cap) || *digits != '\0' || cap > SETTINGS_CONNECTIONS_MAX)
		return wrong_item(item, "no such number", why);
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].name, name) == 0)
			return wrong_item(item, "this host twice in the list", why);
	struct host_limit *limit = &list->items[list->count];
	*limit = (struct host_limit){ .name = strdup(name), .cap = (unsigned)cap };
	if (!limit->name)
		return VALUE_NO_MEMORY;
	list->count++;
	return VALUE_GOOD;
}

enum value_result value_host_limits(const char *text, struct host_limits *out, char *why)
{
	struct host_limits list = { .items = NULL };
	enum value_result result = VALUE_GOOD;
	size_t most = count_items(text);

	if (most > SETTINGS_HOST_LIMITS_MAX)
		return value_wrong(why, "too many");
	list.items = calloc(most, sizeof *list.items);
	char *copy = strdup(text);
	if (!list.items || !copy)
		result = VALUE_NO_MEMORY;
	for (char *rest = copy; result == VALUE_GOOD && rest;)
		result = add_limit(&list, strsep(&rest, ","), why);
	free(copy);
	if (result == VALUE_GOOD)
		*out = list;
	else
		host_limits_free(&list);
	return result;
}

/* ---- host_rates ---- */

void value_clear_host_rates(struct settings_host_rates *rates)
{
	for (size_t i = 0; i < rates->count; i++)
		free(rates->items[i].name);
	free(rates->items);
	*rates = (struct settings_host_rates){ .items = NULL };
}

static enum value_result add_rate(struct settings_host_rates *list, char *item, char *why)
{
	char name[HOSTS_NAME_MAX];
	const char *number;
	struct settings_rate rate;

	item = settings_trim(item);
	enum value_result result = split_item(item, name, &number, why);
	if (result != VALUE_GOOD)
		return result;
	if (value_rate(number, &rate, why) != VALUE_GOOD)
		return wrong_item(item, "no such rate", why);
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].name, name) == 0)
			return wrong_item(item, "this host twice in the list", why);
	list->items[list->count] = (struct settings_host_rate){ .name = strdup(name), .rate = rate };
	if (!list->items[list->count].name)
		return VALUE_NO_MEMORY;
	list->count++;
	return VALUE_GOOD;
}

enum value_result value_host_rates(const char *text, struct settings_host_rates *out, char *why)
{
	struct settings_host_rates list = { .items = NULL };
	enum value_result result = VALUE_GOOD;
	size_t most = count_items(text);

	if (most > SETTINGS_HOST_LIMITS_MAX)
		return value_wrong(why, "too many");
	list.items = calloc(most, sizeof *list.items);
	char *copy = strdup(text);
	if (!list.items || !copy)
		result = VALUE_NO_MEMORY;
	for (char *rest = copy; result == VALUE_GOOD && rest;)
		result = add_rate(&list, strsep(&rest, ","), why);
	free(copy);
	if (result == VALUE_GOOD)
		*out = list;
	else
		value_clear_host_rates(&list);
	return result;
}

/* ---- connect_allow ---- */

void value_clear_destinations(struct destinations *destinations)
{
	for (size_t i = 0; i < destinations->count; i++)
		free(destinations->items[i].name);
	free(destinations->items);
	*destinations = (struct destinations){ .items = NULL };
}

static enum value_result add_destination(struct destinations *list, char *item, char *why)
{
	item = settings_trim(item);
	if (*item == '\0')
		return value_wrong(why, "nothing between two commas, or after the last");
	const char *reason = destination_parse(item, strlen(item), &list->items[list->count]);
	if (reason == destination_no_memory)
		return VALUE_NO_MEMORY;
	if (reason)
		return wrong_item(item, reason, why);
	list->count++;
	return VALUE_GOOD;
}

enum value_result value_destinations(const char *text, struct destinations *out, char *why)
{
	struct destinations list = { .items = NULL };
	enum value_result result = VALUE_GOOD;
	size_t most = count_items(text);

	if (most > SETTINGS_DESTINATIONS_MAX)
		return value_wrong(why, "too many");
	list.items = calloc(most, sizeof *list.items);
	char *copy = strdup(text);
	if (!list.items || !copy)
		result = VALUE_NO_MEMORY;
	for (char *rest = copy; result == VALUE_GOOD && rest;)
		result = add_destination(&list, strsep(&rest, ","), why);
	free(copy);
	if (result == VALUE_GOOD)
		*out = list;
	else
		value_clear_destinations(&list);
	return result;
}
