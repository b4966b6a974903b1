/* settings_networks.c: lists of networks (allow, deny, trust_forwarded), and exempt, which may name headers as well.
 *
 *      10.0.0.0/8, 2001:db8::/32, 192.0.2.7, unix            networks
 *      10.1.0.0/16, header:X-Plan=gold, header:X-Of="a, b"   exemptions: a value that holds a comma stands in quotes
 *
 *      all     0.0.0.0/0, ::/0 and unix
 *      none    the empty list, by itself, and only where that is harmless: "allow = none" could be read by the code
 *              that asks "is the list empty?" as everyone or as nobody, so it cannot be written
 *
 * A list may have thousands of items, so an error about one of them names that one and what it lacks.
 *
 * The invariant: what is not understood down to its last byte is an error, and then nothing is kept. A list that says
 * who is let in, with one item skipped, lets in other people than the operator wrote. Any thread.
 */
#include "settings_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void value_clear_networks(struct networks *networks)
{
	free(networks->items);
	*networks = (struct networks){ .items = NULL };
}

void value_clear_exemptions(struct settings_exemptions *exemptions)
{
	value_clear_networks(&exemptions->networks);
	for (size_t i = 0; i < exemptions->header_count; i++) {
		free(exemptions->headers[i].name);
		free(exemptions->headers[i].value);
	}
	free(exemptions->headers);
	*exemptions = (struct settings_exemptions){ .headers = NULL };
}

/* ---- one item ---- */

static const char *why_no_network(const char *item)
{
	const char *slash = strchr(item, '/');
	struct network network;
	uint64_t bits;

	if (!slash)
		return "not an address, a network or unix";
	if (!network_parse(item, (size_t)(slash - item), &network))
		return "no address before the /";
	const char *digits = slash + 1;
	if (!value_digits(&digits, &bits) || *digits != '\0' || bits > (network.family == AF_INET ? 32 : 128))
		return "no such number of bits behind the /";
	return "bits behind the network's are set";
}

/* Adds an item to a list that has room for two more. NULL, or what is wrong. */
static const char *add_network(struct networks *list, const char *item)
{
	if (strcasecmp(item, "unix") == 0) {
		list->has_unix = true;
		return NULL;
	}
	if (strcasecmp(item, "all") == 0) {
		list->has_unix = true;
		list->items[list->count++] = (struct network){ .family = AF_INET };
		list->items[list->count++] = (struct network){ .family = AF_INET6 };
		return NULL;
	}
	if (strcasecmp(item, "none") == 0)
		return "none stands alone, and not everywhere";
	if (!network_parse(item, strlen(item), &list->items[list->count]))
		return why_no_network(item);
	list->count++;
	return NULL;
}

/* Takes the quotes off a value, in place. NULL when they are not a pair around it. */
static char *unquote(char *value)
{
	size_t length = strlen(value);
	if (!strchr(value, '"'))
		return value;
	if (length < 2 || value[0] != '"' || strchr(value + 1, '"') != value + length - 1)
		return NULL;
	value[length - 1] = '\0';
	return value + 1;
}

/* item is "header:NAME=VALUE". */
static enum value_result add_header(struct settings_exemptions *out, char *item, const char **why)
{
	char *name = item + strlen("header:");
	char *equals = strchr(name, '=');

	*why = "no NAME=VALUE after header:";
	if (!equals)
		return VALUE_WRONG;
	*equals = '\0';
	if (!value_is_token(name, strlen(name))) {
		*why = "not a field name";
		return VALUE_WRONG;
	}
	/* A field's value has no blanks at its ends: what is written with some would never be found. */
	char *value = unquote(equals + 1);
	*why = "no value, or one with blanks at its ends, or a quote that is not one of a pair around it";
	if (!value || *value == '\0' || strchr(" \t", value[0]) || strchr(" \t", value[strlen(value) - 1]))
		return VALUE_WRONG;
	struct settings_header header = { strdup(name), strdup(value) };
	if (!header.name || !header.value) {
		free(header.name);
		free(header.value);
		return VALUE_NO_MEMORY;
	}
	out->headers[out->header_count++] = header;
	return VALUE_GOOD;
}

static enum value_result add_item(const struct settings_row *row, struct settings_exemptions *out, char *item,
                                  char *why)
{
	char quoted[SETTINGS_QUOTE_MAX];
	const char *reason = NULL;
	enum value_result result = VALUE_GOOD;

	settings_quote(item, quoted);
	if (*item == '\0')
		return value_wrong(why, "nothing between two commas, or after the last");
	if (row->kind == KIND_EXEMPTIONS && strncasecmp(item, "header:", strlen("header:")) == 0) {
		result = add_header(out, item, &reason);
	} else {
		reason = add_network(&out->networks, item);
		if (reason)
			result = VALUE_WRONG;
	}
	if (result == VALUE_WRONG)
		snprintf(why, VALUE_WHY_MAX, "%s: %s", quoted, reason);
	return result;
}

/* ---- a list ---- */

/* Cuts the first item off *rest, at a comma that is not in quotes; *rest is NULL behind the last. */
static char *take_item(char **rest)
{
	char *item = *rest, *at = item;
	bool in_quotes = false;

	for (; *at != '\0' && (in_quotes || *at != ','); at++)
		in_quotes ^= *at == '"';
	*rest = *at == ',' ? at + 1 : NULL;
	*at = '\0';
	return settings_trim(item);
}

enum value_result value_exemptions(const struct settings_row *row, const char *text, struct settings_exemptions *out,
                                   char *why)
{
	struct settings_exemptions list = { .headers = NULL };
	enum value_result result = VALUE_GOOD;
	size_t most = 1;

	if (row->none && strcasecmp(text, "none") == 0)
		return VALUE_GOOD;
	for (const char *at = text; *at != '\0'; at++)
		most += *at == ',';
	if (most > SETTINGS_NETWORKS_MAX)
		return value_wrong(why, "too many");
	list.networks.items = calloc(2 * most, sizeof *list.networks.items);
	list.headers = calloc(most, sizeof *list.headers);
	char *copy = strdup(text);
	if (!list.networks.items || !list.headers || !copy)
		result = VALUE_NO_MEMORY;
	for (char *rest = copy; result == VALUE_GOOD && rest;)
		result = add_item(row, &list, take_item(&rest), why);
	free(copy);
	if (result == VALUE_GOOD)
		*out = list;
	else
		value_clear_exemptions(&list);
	return result;
}

enum value_result value_networks(const struct settings_row *row, const char *text, struct networks *out, char *why)
{
	struct settings_exemptions list = { .headers = NULL };
	enum value_result result = value_exemptions(row, text, &list, why);

	*out = list.networks;
	list.networks = (struct networks){ .items = NULL };
	value_clear_exemptions(&list);
	return result;
}
