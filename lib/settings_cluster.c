/* settings_cluster.c: which group of nodes a service belongs to.
 *
 *      unicast   = 192.168.1.255:7000         ┐
 *      multicast = 239.1.2.3:7000             ├─ at most one of them, and an id with it
 *      peers     = a:7000, b:7000, dns:c:7000 ┘
 *
 * The address is the group: who has the same shares one throttle. So it is brought into one spelling before it is
 * compared: 7000 and 07000 are one port, and ff02:0::1 and ff02::1 one address. What is compared is also what the
 * nodes' datagrams carry.
 *
 * The file knows more than its parts. It lists the nodes of a group on all machines, so it says how many there should
 * be, which `partition = strict` divides by; and it shows two nodes that were given one id, a mistake that no node
 * could see alone.
 *
 * Nothing is kept: any thread.
 */
#include "settings_internal.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define GROUP_TEXT_MAX 128

/* ---- addresses --------------------------------------------------------------------------------------------------- */

struct group_address {
	bool is_v6;
	struct in_addr v4;
	struct in6_addr v6;
	unsigned port;
};

/* Reads a numeric address and a port. */
static bool read_address(const char *text, struct group_address *out)
{
	char copy[GROUP_TEXT_MAX];
	const char *why;

	if (strlen(text) >= sizeof copy)
		return false;
	snprintf(copy, sizeof copy, "%s", text);
	const char *host = value_split_host_port(copy, &out->port, &why);
	out->is_v6 = text[0] == '[';
	if (!host)
		return false;
	return out->is_v6 ? inet_pton(AF_INET6, host, &out->v6) == 1 : inet_pton(AF_INET, host, &out->v4) == 1;
}

bool value_is_broadcast(const char *text)
{
	struct group_address address;
	return read_address(text, &address) && !address.is_v6 && (ntohl(address.v4.s_addr) & 0xff) == 0xff &&
	       !IN_MULTICAST(ntohl(address.v4.s_addr));
}

bool value_is_multicast(const char *text)
{
	struct group_address address;
	if (!read_address(text, &address))
		return false;
	return address.is_v6 ? IN6_IS_ADDR_MULTICAST(&address.v6) : IN_MULTICAST(ntohl(address.v4.s_addr));
}

/* The one spelling of a group: of an address its own, of peers as they were written. */
static void spell_group(const char *text, char *out, size_t size)
{
	struct group_address address;
	char host[INET6_ADDRSTRLEN];

	if (read_address(text, &address)) {
		inet_ntop(address.is_v6 ? AF_INET6 : AF_INET,
		          address.is_v6 ? (const void *)&address.v6 : (const void *)&address.v4, host, sizeof host);
		snprintf(out, size, address.is_v6 ? "[%s]:%u" : "%s:%u", host, address.port);
	} else {
		snprintf(out, size, "%s", text);
	}
}

static bool is_same_group(const char *a, const char *b)
{
	char one[GROUP_TEXT_MAX], other[GROUP_TEXT_MAX];

	if (strlen(a) >= GROUP_TEXT_MAX || strlen(b) >= GROUP_TEXT_MAX)
		return strcasecmp(a, b) == 0;
	spell_group(a, one, sizeof one);
	spell_group(b, other, sizeof other);
	return strcasecmp(one, other) == 0;
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

void value_clear_peers(struct settings_peers *peers)
{
	for (size_t i = 0; i < peers->count; i++)
		free(peers->items[i].host);
	free(peers->items);
	*peers = (struct settings_peers){ NULL, 0 };
}

static enum value_result add_peer(struct settings_peers *list, char *item, char *why)
{
	struct settings_peer *added = &list->items[list->count];
	char quoted[SETTINGS_QUOTE_MAX];
	const char *reason = NULL;

	item = settings_trim(item);
	settings_quote(item, quoted);
	if (*item == '\0')
		return value_wrong(why, "nothing between two commas, or after the last");
	added->is_all = strncasecmp(item, "dns:", 4) == 0;
	const char *host = value_split_host_port(item + (added->is_all ? 4 : 0), &added->port, &reason);
	for (size_t i = 0; host && i < list->count; i++)
		if (list->items[i].port == added->port && strcasecmp(list->items[i].host, host) == 0)
			reason = "twice in the list", host = NULL;
	if (!host) {
		snprintf(why, VALUE_WHY_MAX, "%s: %s", quoted, reason);
		return VALUE_WRONG;
	}
	added->host = strdup(host);
	if (!added->host)
		return VALUE_NO_MEMORY;
	list->count++;
	return VALUE_GOOD;
}

enum value_result value_peers(const char *text, struct settings_peers *out, char *why)
{
	struct settings_peers list = { NULL, 0 };
	enum value_result result = VALUE_GOOD;
	size_t commas = 0;

	for (const char *at = text; *at != '\0'; at++)
		commas += *at == ',';
	if (commas + 1 > SETTINGS_PEERS_MAX)
		return value_wrong(why, "too many");
	list.items = calloc(commas + 1, sizeof *list.items);
	char *copy = strdup(text);
	if (!list.items || !copy)
		result = VALUE_NO_MEMORY;
	for (char *rest = copy; result == VALUE_GOOD && rest;)
		result = add_peer(&list, strsep(&rest, ","), why);
	free(copy);
	if (result == VALUE_GOOD)
		*out = list;
	else
		value_clear_peers(&list);
	return result;
}

/* ---- one service ------------------------------------------------------------------------------------------------- */

static const char *const group_keys[] = { "unicast", "multicast", "peers" };
#define GROUP_KEYS (sizeof group_keys / sizeof group_keys[0])

bool settings_check_group(struct settings *s, char *error)
{
	const struct settings_row *found = NULL;
	char place[SETTINGS_ORIGIN_MAX];

	for (size_t i = 0; i < GROUP_KEYS; i++) {
		const struct settings_row *row = settings_row_find(group_keys[i]);
		if (!settings_origin_of(row, s->origins)->text)
			continue;
		settings_say_place(row, s->origins, place);
		if (found)
			return settings_fail(error, "%s: %s and %s are both set; allowed: one of unicast, multicast and peers",
			                     place, row->name, found->name);
		found = row;
	}
	if (!found)
		return true;
	if (s->id == 0)
		return settings_fail(error, "%s: %s needs an id; allowed: id = 1 to 65535, of no other node of the group",
		                     place, found->name);
	if (s->threshold.count > 0 && s->threshold.window_us > SETTINGS_GROUP_WINDOW_MAX_US) {
		settings_say_place(settings_row_find("threshold"), s->origins, place);
		return settings_fail(error, "%s: threshold: in a group there may be a week between two starts, and not more; "
		                     "allowed: 0.143/d, or more", place);
	}
	const char *text = settings_origin_of(found, s->origins)->text;
	size_t room = strlen(text) + GROUP_TEXT_MAX;
	s->group_address = malloc(room);
	if (!s->group_address)
		return settings_fail_memory(error);
	spell_group(text, s->group_address, room);
	bool is_countable = true;
	for (size_t i = 0; i < s->peers.count; i++)
		is_countable = is_countable && !s->peers.items[i].is_all;
	s->group_size = is_countable ? (unsigned)s->peers.count : 0;
	return true;
}

/* ---- side by side ------------------------------------------------------------------------------------------------ */

/* The address that a node shares its throttle by, or NULL. */
static const char *group_of(const struct ini_stanza *stanza)
{
	for (size_t i = 0; i < GROUP_KEYS; i++) {
		const struct ini_entry *entry = ini_stanza_entry(stanza, group_keys[i]);
		if (entry)
			return entry->value;
	}
	return NULL;
}

void settings_count_group(const struct ini_file *file, struct settings *s)
{
	if (!s->group_address || s->peers.count > 0)
		return;
	for (size_t i = 0; i < file->stanza_count; i++) {
		const char *group = group_of(&file->stanzas[i]);
		if (group && is_same_group(group, s->group_address))
			s->group_size++;
	}
}

/* 0: none, or not a number, which is reported when the stanza is read. */
static unsigned id_of(const struct ini_stanza *stanza)
{
	const struct ini_entry *entry = ini_stanza_entry(stanza, "id");
	char why[VALUE_WHY_MAX];
	unsigned id = 0;

	return entry && value_read(entry->row, entry->value, &id, why) == VALUE_GOOD ? id : 0;
}

/* All machines' stanzas: that the id is taken shows in the whole file only. */
bool settings_check_ids(const struct ini_file *file, char *error)
{
	for (size_t i = 0; i < file->stanza_count; i++) {
		const struct ini_stanza *stanza = &file->stanzas[i];
		const char *group = group_of(stanza);
		unsigned id = id_of(stanza);
		for (size_t j = 0; group && id > 0 && j < i; j++) {
			const struct ini_stanza *other = &file->stanzas[j];
			const char *others_group = group_of(other);
			char quoted[SETTINGS_QUOTE_MAX];
			if (!others_group || !is_same_group(group, others_group) || id_of(other) != id)
				continue;
			return settings_fail(
				error, "%s:%u: id %u is taken in the group by %s on line %u; allowed: one that is not",
				settings_short_path(file->path), ini_stanza_entry(stanza, "id")->line, id,
				settings_quote(other->name, quoted), ini_stanza_entry(other, "id")->line);
		}
	}
	return true;
}
