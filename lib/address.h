/* address.h: socket addresses, told apart and written out.
 *
 * A client that reaches a dual-stack socket over IPv4 appears as ::ffff:192.0.2.1. Whoever logs, limits or forwards an
 * address wants 192.0.2.1: it is put back into that form once, when the connection is accepted.
 *
 * No shared state: any thread.
 */
#ifndef WEIR_ADDRESS_H
#define WEIR_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>

/* "[" + IPv6 + "%" + scope + "]:65535", or "unix:" and a path. */
#define ADDRESS_TEXT_MAX 128

struct address {
	socklen_t length;
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_un local;
		struct sockaddr_storage storage;
	};
};

/* An IPv4-mapped IPv6 address becomes the IPv4 address that it stands for; others stay. */
void address_unmap(struct address *address);
/* "192.0.2.1:80", "[2001:db8::1]:80", "unix:/path". */
void address_text(const struct address *address, char out[ADDRESS_TEXT_MAX]);
/* The address alone: "192.0.2.1", "2001:db8::1"; "unix" for a local peer. */
void address_host_text(const struct address *address, char out[ADDRESS_TEXT_MAX]);
unsigned address_port(const struct address *address); /* 0 for unix */
/* A number that stands for the client behind an address: the IPv4 address, or the /64 of an IPv6 one. */
uint64_t address_client_number(const struct address *address);

/* Reads a numeric address. False when text is a name or nonsense. */
bool address_parse(const char *host, unsigned port, struct address *out);
/* path is at most 107 bytes long, or false. */
bool address_unix(const char *path, struct address *out);

#endif
