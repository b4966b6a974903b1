/* proxy_header.h: the line or block with which a proxy names its client, at the very beginning of a connection (PROXY
 * protocol).
 *
 *      v1   PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n                                 text, at most 107 bytes
 *      v2   12 bytes that no other protocol begins with │ version, command │ family │ length │ addresses │ TLVs
 *
 * Behind a proxy that relays bytes (HAProxy in TCP mode, a cloud's balancer) every connection comes from the proxy.
 * With this header it says for whom. Whoever may write it may be anybody: it is believed from trusted networks alone,
 * which is the caller's to see to.
 *
 * It comes before all else, a TLS handshake included. So it is read off the socket itself, and not a byte behind it.
 *
 * Source: "The PROXY protocol, versions 1 & 2" (W. Tarreau, HAProxy, doc/proxy-protocol.txt). No shared state: any
 * thread.
 */
#ifndef WEIR_PROXY_HEADER_H
#define WEIR_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

/* Room for the longest that is read: a block of v2 with further things (TLVs) of up to 4 KiB. */
#define PROXY_HEADER_MAX (16u + 4096u)
/* Room for the longest that is written. */
#define PROXY_HEADER_WRITE_MAX 108u

struct proxy_header {
	bool has_client; /* else it is the proxy's own connection (LOCAL), or it knows not whose (UNKNOWN, Unix, datagrams) */
	struct address client, destination;
};

enum proxy_header_result {
	PROXY_HEADER_WHOLE,
	PROXY_HEADER_MORE, /* all right so far */
	PROXY_HEADER_BAD,
	/* proxy_header_receive() alone: */
	PROXY_HEADER_END,  /* the peer closed, before or within it */
	PROXY_HEADER_LATE,
};

/* Parses. *used is the header's length when it is whole. The further things are passed over, the checksum among them.
   */
enum proxy_header_result proxy_header_parse(const char *bytes, size_t length, struct proxy_header *out, size_t *used);

/* Reads a header off a blocking socket, up to its last byte. Never PROXY_HEADER_MORE. */
enum proxy_header_result proxy_header_receive(int fd, uint64_t deadline_us, struct proxy_header *out);

/* Writes one, of version 1 or 2, and returns its length. client NULL, or not of the Internet: that the connection is
   nobody's (v1 UNKNOWN, v2 LOCAL). Addresses of two families are both written as IPv6. */
size_t proxy_header_write(unsigned version, const struct address *client, const struct address *destination,
                          char out[PROXY_HEADER_WRITE_MAX]);

#endif
