/* destination.c: see destination.h. */
#include "destination.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LENGTH_MAX 253u

/* ---- special addresses ------------------------------------------------------------------------------------------------ */

/* RFC 6890, as far as an address there is never somebody out on the Internet. Networks for documentation and benchmarks
   are left alone: nobody is harmed by a connection to them, and people test with them. */
static const struct network specials[] = {
	{ AF_INET, { 0 }, 8 },          /* 0.0.0.0/8 this network: Linux takes 0.0.0.0 for the machine itself */
	{ AF_INET, { 10 }, 8 },         /* 10.0.0.0/8 private */
	{ AF_INET, { 100, 64 }, 10 },   /* 100.64.0.0/10 shared: carriers' own */
	{ AF_INET, { 127 }, 8 },        /* 127.0.0.0/8 loopback */
	{ AF_INET, { 169, 254 }, 16 },  /* 169.254.0.0/16 link-local, and the metadata of clouds */
	{ AF_INET, { 172, 16 }, 12 },   /* 172.16.0.0/12 private */
	{ AF_INET, { 192, 168 }, 16 },  /* 192.168.0.0/16 private */
	{ AF_INET, { 224 }, 4 },        /* 224.0.0.0/4 multicast */
	{ AF_INET, { 240 }, 4 },        /* 240.0.0.0/4 reserved, broadcast */
	{ AF_INET6, { 0 }, 96 },        /* ::/96 unspecified, loopback, and the old IPv4-compatible form */
	{ AF_INET6, { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48 }, /* 64:ff9b:1::/48 local NAT64 */
	{ AF_INET6, { 0xfc }, 7 },       /* fc00::/7 unique local */
	{ AF_INET6, { 0xfe, 0x80 }, 10 }, /* fe80::/10 link-local */
	{ AF_INET6, { 0xfe, 0xc0 }, 10 }, /* fec0::/10 site-local, as it was once called */
	{ AF_INET6, { 0xff }, 8 },       /* ff00::/8 multicast */
};

static bool contains(const struct network *network, const struct address *address)
{
	struct networks one = { .items = (struct network *)network, .count = 1 };
	return networks_contain(&one, address);
}

/* The IPv4 address at some bytes of an IPv6 one; Teredo (RFC 4380) writes it with every bit turned over. */
static struct address embedded(const uint8_t *bytes, uint8_t turned)
{
	struct address address = { .length = sizeof address.v4 };
	uint8_t v4[4];
	for (size_t i = 0; i < 4; i++)
		v4[i] = bytes[i] ^ turned;
	address.v4.sin_family = AF_INET;
	memcpy(&address.v4.sin_addr, v4, sizeof v4);
	return address;
}

/* The special network that an address is in. */
static bool find_special(const struct address *address, struct network *network)
{
	for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
		if (contains(&specials[i], address)) {
			*network = specials[i];
			return true;
		}
	}
	return false;
}

/* Forms of IPv6 that carry an IPv4 address to which somebody on the way may hand the packets: where in the bytes it is. */
static const struct carrier {
	struct network form;
	unsigned at;
	uint8_t turned;
} carriers[] = {
	{ { AF_INET6, { 0x00, 0x64, 0xff, 0x9b }, 96 }, 12, 0 },                    /* 64:ff9b::/96 NAT64, RFC 6052 */
	{ { AF_INET6, { 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0 }, 96 }, 12, 0 }, /* ::ffff:0:0:0/96 translated, RFC 2765 */
	{ { AF_INET6, { 0x20, 0x02 }, 16 }, 2, 0 },                                /* 2002::/16 6to4, RFC 3056 */
	{ { AF_INET6, { 0x20, 0x01 }, 32 }, 4, 0 },                                /* 2001::/32 Teredo's server, RFC 4380 */
	{ { AF_INET6, { 0x20, 0x01 }, 32 }, 12, 0xff },                            /* 2001::/32 Teredo's client */
};

/* The special network around an address; for one that carries an IPv4 address the carrier's bits and those of the network in it. */
static bool special_network(const struct address *address, struct network *network)
{
	struct address plain = *address;
	address_unmap(&plain);
	if (find_special(&plain, network))
		return true;
	for (size_t i = 0; plain.any.sa_family == AF_INET6 && i < sizeof carriers / sizeof carriers[0]; i++) {
		const struct carrier *carrier = &carriers[i];
		struct network inner;
		if (!contains(&carrier->form, &plain))
			continue;
		struct address carried = embedded(plain.v6.sin6_addr.s6_addr + carrier->at, carrier->turned);
		if (!find_special(&carried, &inner))
			continue;
		*network = carrier->form;
		/* What lies in it: everything up to the end of the inner network's bits is fixed. */
		network->prefix_bits = carrier->at * 8 + inner.prefix_bits;
		memcpy(network->bytes, plain.v6.sin6_addr.s6_addr, sizeof network->bytes);
		return true;
	}
	return false;
}

bool destination_is_special(const struct address *address)
{
	struct network network;
	return special_network(address, &network);
}

/* ---- entries -------------------------------------------------------------------------------------------------------- */

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

const char destination_no_memory[] = "out of memory";

/* The root's dot at the end is no part of it. */
static bool is_name(const char *text, size_t length)
{
	if (length == 0 || length > NAME_LENGTH_MAX || text[0] == '.' || text[length - 1] == '.')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_name_byte(lower(text[i])) || (text[i] == '.' && text[i - 1] == '.'))
			return false;
	return true;
}

static const char *read_name(const char *text, size_t length, struct destination_entry *entry)
{
	bool is_suffix = length > 2 && text[0] == '*' && text[1] == '.';
	size_t skipped = is_suffix ? 2 : 0;
	if (length > 0 && text[length - 1] == '.')
		length--;
	if (length <= skipped || !is_name(text + skipped, length - skipped))
		return "not a name, *.name, an address, a network or *";
	skipped = is_suffix ? 1 : 0; /* its dot is kept: notexample.com does not end in .example.com */
	entry->kind = is_suffix ? DESTINATION_SUFFIX : DESTINATION_NAME;
	entry->name = calloc(1, length - skipped + 1);
	for (size_t i = skipped; entry->name != NULL && i < length; i++)
		entry->name[i - skipped] = lower(text[i]);
	return entry->name != NULL ? NULL : destination_no_memory;
}

static bool read_port(const char *text, size_t length, unsigned *port)
{
	*port = 0;
	if (length == 1 && text[0] == '*')
		return true;
	if (length == 0 || length > 5)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*port = *port * 10 + (unsigned)(text[i] - '0');
	}
	return *port >= 1 && *port <= 65535;
}

/* "[2001:db8::]/32" is "2001:db8::/32": the brackets only keep its colons from the port's. */
static bool read_bracketed(const char *text, size_t length, struct network *network)
{
	char plain[64];
	const char *end = memchr(text, ']', length);
	if (end == NULL || length - 2 >= sizeof plain)
		return false;
	size_t inner = (size_t)(end - text) - 1, rest = length - inner - 2;
	memcpy(plain, text + 1, inner);
	memcpy(plain + inner, end + 1, rest);
	return memchr(plain, ':', inner) != NULL && network_parse(plain, inner + rest, network);
}

/* Only digits, dots and a slash: it was meant to be an address. */
static bool looks_like_address(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((text[i] < '0' || text[i] > '9') && text[i] != '.' && text[i] != '/')
			return false;
	return true;
}

const char *destination_parse(const char *text, size_t length, struct destination_entry *entry)
{
	*entry = (struct destination_entry){ .kind = DESTINATION_NETWORK };
	const char *colon = length > 0 ? memrchr(text, ':', length) : NULL;
	if (colon == NULL || (text[0] == '[' && memchr(text, ']', (size_t)(colon - text)) == NULL))
		return "no port: write host:port, or host:* for every port";
	size_t host_length = (size_t)(colon - text);
	if (!read_port(colon + 1, length - host_length - 1, &entry->port))
		return "the port is neither 1 to 65535 nor *";
	if (host_length == 1 && text[0] == '*') {
		entry->kind = DESTINATION_ANY;
		return NULL;
	}
	if (host_length > 0 && text[0] == '[')
		return read_bracketed(text, host_length, &entry->network) ? NULL : "no IPv6 address or network in the brackets";
	if (memchr(text, ':', host_length) != NULL)
		return "an IPv6 address is written in brackets";
	if (network_parse(text, host_length, &entry->network))
		return NULL;
	if (host_length == 0 || looks_like_address(text, host_length) || memchr(text, '/', host_length) != NULL)
		return "not a name, an address, a network or *";
	return read_name(text, host_length, entry);
}

/* ---- decisions ------------------------------------------------------------------------------------------------------ */

static const struct destination_entry default_connect = { .kind = DESTINATION_ANY, .port = 443 };
static const struct destination_entry default_plain = { .kind = DESTINATION_ANY };

static bool equal_without_case(const char *host, const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (lower(host[i]) != name[i])
			return false;
	return true;
}

static bool name_fits(const struct destination_entry *entry, const struct destination *to)
{
	size_t length = to->length, name_length = entry->name != NULL ? strlen(entry->name) : 0;
	if (length > 0 && to->host[length - 1] == '.')
		length--;
	switch (entry->kind) {
	case DESTINATION_ANY: return true;
	case DESTINATION_NAME: return length == name_length && equal_without_case(to->host, entry->name, length);
	case DESTINATION_SUFFIX:
		return length > name_length && equal_without_case(to->host + length - name_length, entry->name, name_length);
	case DESTINATION_NETWORK: break;
	}
	return false;
}

/* Does every address of the inner network lie in the outer one? */
static bool lies_within(const struct network *inner, const struct network *outer)
{
	struct address first = { .length = sizeof first.v6 };
	if (inner->family != outer->family || inner->prefix_bits < outer->prefix_bits)
		return false;
	first.any.sa_family = (sa_family_t)inner->family;
	if (inner->family == AF_INET)
		memcpy(&first.v4.sin_addr, inner->bytes, 4);
	else
		memcpy(&first.v6.sin6_addr, inner->bytes, 16);
	/* The outer one's bytes may go on behind its prefix (special_network()); only its first bits are compared. */
	return contains(outer, &first);
}

/* The host as an address, if it is one. */
static bool read_address(const struct destination *to, struct address *address)
{
	char text[INET6_ADDRSTRLEN];
	const char *host = to->host;
	size_t length = to->length;
	if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
		host++;
		length -= 2;
	}
	if (length == 0 || length >= sizeof text)
		return false;
	memcpy(text, host, length);
	text[length] = '\0';
	return address_parse(text, to->port, address);
}

static size_t list_of(const struct destinations *allowed, bool is_connect, const struct destination_entry **items)
{
	*items = allowed->count > 0 ? allowed->items : is_connect ? &default_connect : &default_plain;
	return allowed->count > 0 ? allowed->count : 1;
}

enum destination_answer destinations_may_ask(const struct destinations *allowed, const struct destination *to)
{
	struct address address;
	if (read_address(to, &address))
		return destinations_may_connect(allowed, to, &address);
	const struct destination_entry *items;
	size_t count = list_of(allowed, to->is_connect, &items);
	for (size_t i = 0; i < count; i++)
		if ((items[i].port == 0 || items[i].port == to->port) &&
		    (items[i].kind == DESTINATION_NETWORK || name_fits(&items[i], to)))
			return DESTINATION_ALLOWED;
	return DESTINATION_NOT_LISTED;
}

static bool is_localhost(const struct destination *to)
{
	static const char name[] = "localhost";
	size_t length = to->length, name_length = sizeof name - 1;
	if (length > 0 && to->host[length - 1] == '.')
		length--;
	return length >= name_length && equal_without_case(to->host + length - name_length, name, name_length) &&
	       (length == name_length || to->host[length - name_length - 1] == '.');
}

/* The host as an address in any spelling that some resolver takes for one: "127.1", "0x7f000001", with the root's dot or without.
   Zeros may stand before each number, so it may be as long as a name. */
static bool read_any_address(const struct destination *to, struct address *address)
{
	char text[NAME_LENGTH_MAX + 1];
	struct destination shorter = *to;
	if (shorter.length > 0 && shorter.host[shorter.length - 1] == '.')
		shorter.length--;
	if (read_address(&shorter, address))
		return true;
	*address = (struct address){ .length = sizeof address->v4 };
	address->v4.sin_family = AF_INET;
	if (shorter.length == 0 || shorter.length >= sizeof text)
		return false;
	memcpy(text, shorter.host, shorter.length);
	text[shorter.length] = '\0';
	return inet_aton(text, &address->v4.sin_addr) == 1;
}

enum destination_answer destinations_may_ask_parent(const struct destinations *allowed, const struct destination *to)
{
	struct address address;
	bool is_address = read_any_address(to, &address) || (is_localhost(to) && address_parse("127.0.0.1", to->port, &address));
	if (is_address)
		return destinations_may_connect(allowed, to, &address);
	const struct destination_entry *items;
	size_t count = list_of(allowed, to->is_connect, &items);
	for (size_t i = 0; i < count; i++)
		if ((items[i].port == 0 || items[i].port == to->port) && name_fits(&items[i], to))
			return DESTINATION_ALLOWED;
	return DESTINATION_NOT_LISTED;
}

enum destination_answer destinations_may_connect(const struct destinations *allowed, const struct destination *to,
                                                 const struct address *address)
{
	const struct destination_entry *items;
	size_t count = list_of(allowed, to->is_connect, &items);
	struct network special;
	bool is_special = special_network(address, &special);
	enum destination_answer answer = DESTINATION_NOT_LISTED;
	for (size_t i = 0; i < count; i++) {
		const struct destination_entry *entry = &items[i];
		if (entry->port != 0 && entry->port != to->port)
			continue;
		bool is_network = entry->kind == DESTINATION_NETWORK;
		if (is_network ? !contains(&entry->network, address) : !name_fits(entry, to))
			continue;
		bool names_it = entry->kind == DESTINATION_NAME || (is_network && lies_within(&entry->network, &special));
		if (!is_special || names_it)
			return DESTINATION_ALLOWED;
		answer = DESTINATION_SPECIAL;
	}
	return answer;
}
