/* network.h: networks in CIDR form ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7"), and whether an address is in one.
 *
 * Source: RFC 4632 §3.1, RFC 4291 §2.3. Values that never change once made: any thread.
 */
#ifndef WEIR_NETWORK_H
#define WEIR_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

struct network {
	int family; /* AF_INET, AF_INET6 */
	uint8_t bytes[16];
	unsigned prefix_bits;
};

struct networks {
	struct network *items;
	size_t count;
	bool has_unix; /* the word "unix": peers that came by a Unix socket */
};

/* Reads one network; without "/bits" it is a single address. Bits behind the prefix must be 0. An IPv4-mapped IPv6
   network of at least /96 is the IPv4 network that it stands for. False for anything else. */
bool network_parse(const char *text, size_t length, struct network *network);

/* An IPv4-mapped IPv6 address is the IPv4 address that it stands for. The peer of a Unix socket has no address: it is
   in the list when has_unix says so. */
bool networks_contain(const struct networks *networks, const struct address *address);

#endif
