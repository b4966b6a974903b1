/* proxy_header.c: see proxy_header.h.
 *
 * How to read a header and not a byte more? Its length is not known before some of it has come, and what comes behind
 * it is not ours: a TLS library will want it from the socket. So each step takes only what must still be part of it:
 *
 *      fewer than 12 bytes    up to 12: the shortest header of v1 has 15, of v2 16
 *      v2                     up to 16, where its length stands; then so many
 *      v1                     looks without taking (MSG_PEEK), and takes up to the end of the line, or all
 *
 * What is not a header is found out at its first wrong byte: a plain "GET /" does not wait for a timeout.
 */
#include "proxy_header.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "conn.h"

#define V1_MAX 107u
#define V2_HEAD 16u
#define BOTH_AT_LEAST 12u

static const char signature[BOTH_AT_LEAST] = { '\r', '\n', '\r', '\n', '\0', '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };
static const char word[] = "PROXY ";

/* ---- version 1 -------------------------------------------------------------------------------------------------- */

/* Takes "text" and the blank behind it; the last one ends with the line. */
static bool take_word(char **rest, char **taken)
{
	*taken = *rest;
	if (*rest == NULL || **rest == '\0' || **rest == ' ')
		return false;
	char *blank = strchr(*rest, ' ');
	if (blank != NULL)
		*blank++ = '\0';
	*rest = blank;
	return true;
}

static bool read_port(const char *text, unsigned *port)
{
	*port = 0;
	if (text[0] == '0' && text[1] != '\0')
		return false;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9' || *port > UINT16_MAX)
			return false;
		*port = *port * 10 + (unsigned)(*text - '0');
	}
	return *port <= UINT16_MAX;
}

static bool read_address(int family, const char *host, unsigned port, struct address *out)
{
	memset(out, 0, sizeof *out);
	out->any.sa_family = (sa_family_t)family;
	out->length = family == AF_INET ? sizeof out->v4 : sizeof out->v6;
	out->v4.sin_port = htons((uint16_t)port); /* both have it in one place */
	void *bytes = family == AF_INET ? (void *)&out->v4.sin_addr : (void *)&out->v6.sin6_addr;
	if (inet_pton(family, host, bytes) != 1)
		return false;
	address_unmap(out);
	return true;
}

/* line: without its end. */
static bool parse_line(char *line, struct proxy_header *out)
{
	char *rest = line + sizeof word - 1, *kind, *client, *destination, *client_port, *destination_port;
	unsigned ports[2];
	if (!take_word(&rest, &kind))
		return false;
	if (strcmp(kind, "UNKNOWN") == 0) /* and whatever follows */
		return true;
	int family = strcmp(kind, "TCP4") == 0 ? AF_INET : strcmp(kind, "TCP6") == 0 ? AF_INET6 : AF_UNSPEC;
	if (family == AF_UNSPEC || !take_word(&rest, &client) || !take_word(&rest, &destination) ||
	    !take_word(&rest, &client_port) || !take_word(&rest, &destination_port) || rest != NULL)
		return false;
	out->has_client = read_port(client_port, &ports[0]) && read_port(destination_port, &ports[1]) &&
	                  read_address(family, client, ports[0], &out->client) &&
	                  read_address(family, destination, ports[1], &out->destination);
	return out->has_client;
}

static enum proxy_header_result parse_v1(const char *bytes, size_t length, struct proxy_header *out, size_t *used)
{
	char line[V1_MAX + 1];
	const char *end = memchr(bytes, '\n', length < V1_MAX ? length : V1_MAX);
	if (end == NULL)
		return length < V1_MAX ? PROXY_HEADER_MORE : PROXY_HEADER_BAD;
	size_t line_length = (size_t)(end - bytes);
	if (line_length == 0 || bytes[line_length - 1] != '\r')
		return PROXY_HEADER_BAD;
	line_length--;
	memcpy(line, bytes, line_length);
	line[line_length] = '\0';
	*used = line_length + 2;
	if (memchr(line, '\0', line_length) != NULL || memchr(line, '\r', line_length) != NULL)
		return PROXY_HEADER_BAD;
	return parse_line(line, out) ? PROXY_HEADER_WHOLE : PROXY_HEADER_BAD;
}

/* ---- version 2 -------------------------------------------------------------------------------------------------- */

enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 };
enum { STREAM_OVER_IPV4 = 0x11, STREAM_OVER_IPV6 = 0x21 };

static size_t v2_length(const char *bytes)
{
	return V2_HEAD + ((size_t)(unsigned char)bytes[14] << 8 | (unsigned char)bytes[15]);
}

static void set_address(struct address *out, int family, const char *host, const char *port)
{
	memset(out, 0, sizeof *out);
	out->any.sa_family = (sa_family_t)family;
	out->length = family == AF_INET ? sizeof out->v4 : sizeof out->v6;
	memcpy(&out->v4.sin_port, port, 2);
	if (family == AF_INET)
		memcpy(&out->v4.sin_addr, host, 4);
	else
		memcpy(&out->v6.sin6_addr, host, 16);
	address_unmap(out);
}

static enum proxy_header_result parse_v2(const char *bytes, size_t length, struct proxy_header *out, size_t *used)
{
	if (length < V2_HEAD)
		return PROXY_HEADER_MORE;
	unsigned command = (unsigned char)bytes[12], family = (unsigned char)bytes[13];
	*used = v2_length(bytes);
	bool is_known = (command == COMMAND_LOCAL || command == COMMAND_PROXY) && family >> 4 <= 3 &&
	                (family & 0x0f) <= 2;
	size_t address_bytes = family == STREAM_OVER_IPV4 ? 4 : family == STREAM_OVER_IPV6 ? 16 : 0;
	size_t needed = address_bytes == 0 ? 0 : 2 * address_bytes + 4;
	if (!is_known || *used > PROXY_HEADER_MAX || (command == COMMAND_PROXY && *used - V2_HEAD < needed))
		return PROXY_HEADER_BAD;
	if (length < *used)
		return PROXY_HEADER_MORE;
	if (command == COMMAND_LOCAL || address_bytes == 0)
		return PROXY_HEADER_WHOLE;
	const char *hosts = bytes + V2_HEAD, *ports = hosts + 2 * address_bytes;
	int system_family = address_bytes == 4 ? AF_INET : AF_INET6;
	set_address(&out->client, system_family, hosts, ports);
	set_address(&out->destination, system_family, hosts + address_bytes, ports + 2);
	out->has_client = true;
	return PROXY_HEADER_WHOLE;
}

static bool begins_as(const char *bytes, size_t length, const char *wanted, size_t wanted_length)
{
	return memcmp(bytes, wanted, length < wanted_length ? length : wanted_length) == 0;
}

enum proxy_header_result proxy_header_parse(const char *bytes, size_t length, struct proxy_header *out, size_t *used)
{
	memset(out, 0, sizeof *out);
	*used = 0;
	if (begins_as(bytes, length, signature, sizeof signature))
		return length < sizeof signature ? PROXY_HEADER_MORE : parse_v2(bytes, length, out, used);
	if (begins_as(bytes, length, word, sizeof word - 1))
		return length < sizeof word - 1 ? PROXY_HEADER_MORE : parse_v1(bytes, length, out, used);
	return PROXY_HEADER_BAD;
}

/* ---- receiving -------------------------------------------------------------------------------------------------- */

/* How many more bytes may be looked at; those of v1 are then cut at the end of the line. */
static size_t wanted_now(const char *bytes, size_t length)
{
	if (length < BOTH_AT_LEAST)
		return BOTH_AT_LEAST - length;
	if (bytes[0] == word[0])
		return V1_MAX - length;
	return length < V2_HEAD ? V2_HEAD - length : v2_length(bytes) - length;
}

/* Takes what has come of the header. The number of bytes; 0: the end, -1: broken. */
static ssize_t take(int fd, char *buffer, size_t length)
{
	char *to = buffer + length;
	ssize_t count = recv(fd, to, wanted_now(buffer, length), MSG_PEEK);
	if (count <= 0)
		return count;
	const char *end = length >= BOTH_AT_LEAST && buffer[0] == word[0] ? memchr(to, '\n', (size_t)count) : NULL;
	return recv(fd, to, end != NULL ? (size_t)(end - to) + 1 : (size_t)count, 0);
}

enum proxy_header_result proxy_header_receive(int fd, uint64_t deadline_us, struct proxy_header *out)
{
	char buffer[PROXY_HEADER_MAX];
	size_t length = 0, used;
	enum proxy_header_result result = PROXY_HEADER_MORE;
	while (result == PROXY_HEADER_MORE) {
		enum conn_result waited = conn_wait(fd, true, deadline_us);
		if (waited != CONN_OK)
			return waited == CONN_TIMEOUT ? PROXY_HEADER_LATE : PROXY_HEADER_END;
		ssize_t count = take(fd, buffer, length);
		if (count < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (count <= 0)
			return PROXY_HEADER_END;
		length += (size_t)count;
		result = proxy_header_parse(buffer, length, out, &used);
	}
	return result;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static bool is_internet(const struct address *address)
{
	return address->any.sa_family == AF_INET || address->any.sa_family == AF_INET6;
}

/* ::ffff:192.0.2.7 for 192.0.2.7. */
static void map(struct address *address)
{
	struct address mapped = { .length = sizeof mapped.v6 };
	mapped.v6.sin6_family = AF_INET6;
	mapped.v6.sin6_port = address->v4.sin_port;
	mapped.v6.sin6_addr.s6_addr[10] = mapped.v6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(mapped.v6.sin6_addr.s6_addr + 12, &address->v4.sin_addr, 4);
	*address = mapped;
}

static size_t size_of(const struct address *address)
{
	return address->any.sa_family == AF_INET ? 4 : 16;
}

static const void *bytes_of(const struct address *address)
{
	return address->any.sa_family == AF_INET ? (const void *)&address->v4.sin_addr : &address->v6.sin6_addr;
}

static size_t write_v1(const struct address *client, const struct address *destination,
                       char out[PROXY_HEADER_WRITE_MAX])
{
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
	int family = client->any.sa_family;
	inet_ntop(family, bytes_of(client), from, sizeof from);
	inet_ntop(family, bytes_of(destination), to, sizeof to);
	return (size_t)snprintf(out, PROXY_HEADER_WRITE_MAX, "PROXY %s %s %s %u %u\r\n",
	                        family == AF_INET ? "TCP4" : "TCP6", from, to, address_port(client),
	                        address_port(destination));
}

static size_t write_v2(const struct address *client, const struct address *destination,
                       char out[PROXY_HEADER_WRITE_MAX])
{
	size_t size = client == NULL ? 0 : size_of(client);
	memcpy(out, signature, sizeof signature);
	out[12] = client == NULL ? COMMAND_LOCAL : COMMAND_PROXY;
	out[13] = size == 0 ? 0 : size == 4 ? STREAM_OVER_IPV4 : STREAM_OVER_IPV6;
	out[14] = 0;
	out[15] = (char)(size == 0 ? 0 : 2 * size + 4);
	if (size == 0)
		return V2_HEAD;
	char *at = out + V2_HEAD;
	memcpy(at, bytes_of(client), size);
	memcpy(at + size, bytes_of(destination), size);
	memcpy(at + 2 * size, &client->v4.sin_port, 2);
	memcpy(at + 2 * size + 2, &destination->v4.sin_port, 2);
	return V2_HEAD + 2 * size + 4;
}

size_t proxy_header_write(unsigned version, const struct address *client, const struct address *destination,
                          char out[PROXY_HEADER_WRITE_MAX])
{
	static const char nobody[] = "PROXY UNKNOWN\r\n";
	if (client == NULL || !is_internet(client) || !is_internet(destination)) {
		if (version == 2)
			return write_v2(NULL, NULL, out);
		memcpy(out, nobody, sizeof nobody - 1);
		return sizeof nobody - 1;
	}
	struct address from = *client, to = *destination;
	if (from.any.sa_family != to.any.sa_family)
		map(from.any.sa_family == AF_INET ? &from : &to);
	return version == 2 ? write_v2(&from, &to, out) : write_v1(&from, &to, out);
}
