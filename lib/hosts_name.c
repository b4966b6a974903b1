/* hosts_name.c: one name for each host, whichever way it was written.
 *
 *      Example.COM.  443     example.com            2130706433   80     127.0.0.1
 *      example.com  8443     example.com:8443       ::FFFF:7f00:1 80    127.0.0.1
 *      [2001:DB8:0::1] 80    [2001:db8::1]          0x7f.1       81     127.0.0.1:81
 *
 * A cap that is counted by name is passed by whoever finds a second name for the same host. Those that need no name service
 * to be seen through are brought together here: letter case, the root's dot, the default ports, and the many ways to write an
 * address (RFC 4291 §2.2; inet_aton(3) reads hexadecimal, octal and short forms, and getaddrinfo() follows it).
 */
#include "hosts.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "writer.h"

#define NAME_LENGTH_MAX 253u /* RFC 1035 §2.3.4, without the root's dot */

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

/* A name in lower case, without the root's dot. */
static bool copy_name(const char *host, size_t length, char out[HOSTS_NAME_MAX])
{
	if (length > 0 && host[length - 1] == '.')
		length--;
	if (length == 0 || length > NAME_LENGTH_MAX || host[length - 1] == '.')
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = host[i] >= 'A' && host[i] <= 'Z' ? (char)(host[i] - 'A' + 'a') : host[i];
		if (!is_name_byte(c) || (c == '.' && (i == 0 || out[i - 1] == '.')))
			return false;
		out[i] = c;
	}
	out[length] = '\0';
	return true;
}

/* IPv6, in brackets or without. */
static bool copy_v6(const char *host, size_t length, char out[HOSTS_NAME_MAX])
{
	char text[INET6_ADDRSTRLEN];
	struct address address;
	if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
		host++;
		length -= 2;
	}
	if (length == 0 || length >= sizeof text || memchr(host, '\0', length) != NULL)
		return false;
	memcpy(text, host, length);
	text[length] = '\0';
	if (!address_parse(text, 0, &address) || address.any.sa_family != AF_INET6)
		return false;
	address_unmap(&address);
	char written[ADDRESS_TEXT_MAX];
	address_host_text(&address, written);
	snprintf(out, HOSTS_NAME_MAX, address.any.sa_family == AF_INET6 ? "[%.60s]" : "%.60s", written);
	return true;
}

/* "127.1", "0x7f000001": what inet_aton() takes for an address gets the usual form. */
static void unify_v4(char name[HOSTS_NAME_MAX])
{
	struct address address = { .v4 = { .sin_family = AF_INET } };
	if (name[strspn(name, "0123456789abcdefx.")] == '\0' && inet_aton(name, &address.v4.sin_addr) == 1)
		address_host_text(&address, name);
}

bool hosts_name(const char *host, size_t length, unsigned port, char out[HOSTS_NAME_MAX])
{
	if (port == 0 || port > 65535)
		return false;
	if (memchr(host, ':', length) != NULL) {
		if (!copy_v6(host, length, out))
			return false;
	} else {
		if (!copy_name(host, length, out))
			return false;
		unify_v4(out);
	}
	if (port != 80 && port != 443) {
		struct writer w = { .out = out, .capacity = HOSTS_NAME_MAX - 1, .length = strlen(out) };
		writer_put_literal(&w, ":");
		writer_put_number(&w, port);
		out[w.length] = '\0';
	}
	return true;
}
