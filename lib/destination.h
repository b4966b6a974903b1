/* destination.h: what a forward proxy may reach, so that it is not an open door.
 *
 * A forward proxy stands inside a network and connects wherever it is told. Without a rule, whoever can reach it can reach
 * the machine's own admin pages (127.0.0.1), the cloud's metadata (169.254.169.254), and every printer of the house. A check
 * of the name alone is worth nothing: anybody can publish a name that resolves to 127.0.0.1. So there are two checks:
 *
 *      CONNECT host:port ──► destinations_may_ask ──► resolve ──► destinations_may_connect ──► connect to that very address
 *                            does any entry fit?                  for each address
 *
 * The second check is made on the address that is then connected to, not on the answer to another question asked earlier (a name
 * may resolve to something else a moment later: "DNS rebinding").
 *
 *      entry               fits                                opens loopback, private … too?
 *      *:443               every host                          no
 *      *.example.com:*     names that end in .example.com      no
 *      example.com:443     that name                           yes, it was meant
 *      10.1.0.0/16:80      addresses in it                     yes, if it lies wholly in a special range (0.0.0.0/0 does not)
 *
 * Source: RFC 6890 and the IANA special-purpose address registries. Pure functions over values that never change: any thread.
 */
#ifndef WEIR_DESTINATION_H
#define WEIR_DESTINATION_H

#include <stdbool.h>
#include <stddef.h>

#include "address.h"
#include "network.h"

enum destination_kind { DESTINATION_ANY, DESTINATION_SUFFIX, DESTINATION_NAME, DESTINATION_NETWORK };

struct destination_entry {
	enum destination_kind kind;
	char *name;             /* NAME: lower case, no trailing dot; SUFFIX: ".example.com". NULL for the others */
	struct network network; /* NETWORK */
	unsigned port;          /* 0: every port */
};

struct destinations {
	struct destination_entry *items;
	size_t count; /* 0: not set: *:443 for CONNECT, *:* for plain requests */
};

/* Reads one entry. NULL, or what is wrong with it (destination_no_memory: nothing is, but memory ran out); entry->name is the
   caller's to free. */
extern const char destination_no_memory[];
const char *destination_parse(const char *text, size_t length, struct destination_entry *entry);

struct destination {
	const char *host; /* as the request has it; IPv6 with or without brackets */
	size_t length;
	unsigned port;
	bool is_connect;
};

enum destination_answer {
	DESTINATION_ALLOWED,
	DESTINATION_NOT_LISTED, /* no entry fits */
	DESTINATION_SPECIAL,    /* loopback, link-local, private, shared, multicast, unspecified, and nothing names it */
};

/* Before resolution: could any address of this name be allowed? A host that is an address is decided at once. */
enum destination_answer destinations_may_ask(const struct destinations *allowed, const struct destination *to);
/* Before resolution too, but where a parent proxy resolves the name, so that no address will ever be seen here: a network in the list stands for no
   name, and a host that is an address in whatever spelling, or localhost, is judged as that address. */
enum destination_answer destinations_may_ask_parent(const struct destinations *allowed, const struct destination *to);
/* For each address that the name resolved to, just before connecting to it. */
enum destination_answer destinations_may_connect(const struct destinations *allowed, const struct destination *to,
                                                 const struct address *address);

/* Is it an address that a * does not open? Forms that carry an IPv4 address (mapped, NAT64, 6to4, Teredo) are judged by it. */
bool destination_is_special(const struct address *address);

#endif
