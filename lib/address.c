/* address.c: see address.h. */
#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

void address_unmap(struct address *address)
{
	if (address->any.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		return;
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = address->v6.sin6_port };
	memcpy(&v4.sin_addr, &address->v6.sin6_addr.s6_addr[12], sizeof v4.sin_addr);
	address->v4 = v4;
	address->length = sizeof v4;
}

/* By hand: each request's client is written out once at least, and inet_ntop() does it by way of sprintf(), which took a tenth of
   all the instructions that a request cost. */
static void write_v4(const struct in_addr *v4, char *out)
{
	const unsigned char *bytes = (const unsigned char *)&v4->s_addr;
	for (int i = 0; i < 4; i++) {
		if (bytes[i] >= 100)
			*out++ = (char)('0' + bytes[i] / 100);
		if (bytes[i] >= 10)
			*out++ = (char)('0' + bytes[i] / 10 % 10);
		*out++ = (char)('0' + bytes[i] % 10);
		*out++ = i < 3 ? '.' : '\0';
	}
}

void address_host_text(const struct address *address, char out[ADDRESS_TEXT_MAX])
{
	switch (address->any.sa_family) {
	case AF_INET:
		write_v4(&address->v4.sin_addr, out);
		return;
	case AF_INET6:
		inet_ntop(AF_INET6, &address->v6.sin6_addr, out, ADDRESS_TEXT_MAX);
		return;
	default:
		strcpy(out, "unix");
	}
}

void address_text(const struct address *address, char out[ADDRESS_TEXT_MAX])
{
	char host[ADDRESS_TEXT_MAX];
	switch (address->any.sa_family) {
	case AF_INET:
		address_host_text(address, host);
		snprintf(out, ADDRESS_TEXT_MAX, "%.64s:%u", host, address_port(address));
		return;
	case AF_INET6:
		address_host_text(address, host);
		snprintf(out, ADDRESS_TEXT_MAX, "[%.64s]:%u", host, address_port(address));
		return;
	default:
		/* sun_path need not end in NUL when it is full; a peer that was never bound has none at all. */
		snprintf(out, ADDRESS_TEXT_MAX, "unix:%.*s", (int)sizeof address->local.sun_path,
		         address->length > sizeof(sa_family_t) ? address->local.sun_path : "");
	}
}

unsigned address_port(const struct address *address)
{
	switch (address->any.sa_family) {
	case AF_INET: return ntohs(address->v4.sin_port);
	case AF_INET6: return ntohs(address->v6.sin6_port);
	default: return 0;
	}
}

uint64_t address_client_number(const struct address *address)
{
	uint64_t number = 0;
	if (address->any.sa_family == AF_INET)
		number = ntohl(address->v4.sin_addr.s_addr);
	else if (address->any.sa_family == AF_INET6)
		for (size_t i = 0; i < 8; i++)
			number = number << 8 | address->v6.sin6_addr.s6_addr[i];
	return number;
}

bool address_parse(const char *host, unsigned port, struct address *out)
{
	memset(out, 0, sizeof *out);
	if (inet_pton(AF_INET, host, &out->v4.sin_addr) == 1) {
		out->v4.sin_family = AF_INET;
		out->v4.sin_port = htons((uint16_t)port);
		out->length = sizeof out->v4;
		return true;
	}
	if (inet_pton(AF_INET6, host, &out->v6.sin6_addr) == 1) {
		out->v6.sin6_family = AF_INET6;
		out->v6.sin6_port = htons((uint16_t)port);
		out->length = sizeof out->v6;
		return true;
	}
	return false;
}

bool address_unix(const char *path, struct address *out)
{
	size_t length = strlen(path);
	memset(out, 0, sizeof *out);
	if (length == 0 || length >= sizeof out->local.sun_path)
		return false;
	out->local.sun_family = AF_UNIX;
	memcpy(out->local.sun_path, path, length + 1);
	out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
	return true;
}
