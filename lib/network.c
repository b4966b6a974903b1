/* network.c: see network.h.
 *
 *      10.1.0.0/16        bytes  0a 01 00 00      the first 16 bits count
 *      10.1.200.7                0a 01 c8 07      in it: 0a 01 is the same
 *
 * An IPv4 client may be written in two ways: 192.0.2.1, and ::ffff:192.0.2.1 as a dual-stack socket gives it. A list
 * that knew one of them only could be walked around by the other. So both sides are brought into the IPv4 form before
 * they are compared, and an IPv6 network never holds an IPv4 client, not even ::/0: who means everyone says both.
 *
 * "10.0.0.1/8" is refused. It may mean 10.0.0.0/8 or 10.0.0.1/32, and whoever wrote it into a list of trusted proxies
 * would find out which one only from the outside.
 *
 * The invariant: bytes behind prefix_bits are 0, and so are those that the family does not use.
 */
#include "network.h"

#include <arpa/inet.h>
#include <string.h>

#define MAPPED_BITS 96u /* ::ffff:0:0/96 */

/* The bytes of an address, with IPv4-mapped ones as IPv4. Returns the family, or 0 when there is no IP address. */
static int bytes_of(const struct address *address, const uint8_t **bytes)
{
	switch (address->any.sa_family) {
	case AF_INET:
		*bytes = (const uint8_t *)&address->v4.sin_addr;
		return AF_INET;
	case AF_INET6:
		*bytes = address->v6.sin6_addr.s6_addr;
		if (!IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
			return AF_INET6;
		*bytes += MAPPED_BITS / 8;
		return AF_INET;
	default:
		return 0;
	}
}

/* "0" to "128", without leading zeros: "/08" may have been meant as octal. */
static bool read_prefix(const char *text, size_t length, unsigned most, unsigned *out)
{
	unsigned bits = 0;

	if (length == 0 || length > 3 || (length > 1 && text[0] == '0'))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		bits = bits * 10 + (unsigned)(text[i] - '0');
	}
	*out = bits;
	return bits <= most;
}

/* Reads the address alone, into bytes that are 0. Returns how many bits it has, or 0. */
static unsigned read_address(const char *text, size_t length, struct network *network)
{
	char copy[INET6_ADDRSTRLEN];

	if (length == 0 || length >= sizeof copy || memchr(text, '\0', length))
		return 0;
	memcpy(copy, text, length);
	copy[length] = '\0';
	network->family = AF_INET;
	if (inet_pton(AF_INET, copy, network->bytes) == 1)
		return 32;
	network->family = AF_INET6;
	return inet_pton(AF_INET6, copy, network->bytes) == 1 ? 128 : 0;
}

/* Are the first bits the same? */
static bool begin_alike(const uint8_t *one, const uint8_t *other, unsigned bits)
{
	unsigned rest = bits % 8;

	if (memcmp(one, other, bits / 8) != 0)
		return false;
	return rest == 0 || (one[bits / 8] ^ other[bits / 8]) >> (8 - rest) == 0;
}

static bool rest_is_zero(const struct network *network)
{
	for (unsigned bit = network->prefix_bits; bit < 128; bit++)
		if (network->bytes[bit / 8] >> (7 - bit % 8) & 1)
			return false;
	return true;
}

static void unmap(struct network *network)
{
	struct in6_addr address;

	memcpy(&address, network->bytes, sizeof address);
	if (network->family != AF_INET6 || network->prefix_bits < MAPPED_BITS || !IN6_IS_ADDR_V4MAPPED(&address))
		return;
	memset(network->bytes, 0, sizeof network->bytes);
	memcpy(network->bytes, &address.s6_addr[MAPPED_BITS / 8], 4);
	network->family = AF_INET;
	network->prefix_bits -= MAPPED_BITS;
}

bool network_parse(const char *text, size_t length, struct network *network)
{
	const char *slash = memchr(text, '/', length);
	size_t address_length = slash ? (size_t)(slash - text) : length;

	memset(network, 0, sizeof *network);
	unsigned bits = read_address(text, address_length, network);
	if (bits == 0)
		return false;
	network->prefix_bits = bits;
	if (slash && !read_prefix(slash + 1, length - address_length - 1, bits, &network->prefix_bits))
		return false;
	if (!rest_is_zero(network))
		return false;
	unmap(network);
	return true;
}

bool networks_contain(const struct networks *networks, const struct address *address)
{
	const uint8_t *bytes = NULL;
	int family = bytes_of(address, &bytes);

	if (family == 0)
		return networks->has_unix && address->any.sa_family == AF_UNIX;
	for (size_t i = 0; i < networks->count; i++) {
		const struct network *network = &networks->items[i];
		if (network->family == family && begin_alike(network->bytes, bytes, network->prefix_bits))
			return true;
	}
	return false;
}
