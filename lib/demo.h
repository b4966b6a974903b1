/* demo.h: what the two ends of the message switch's demonstration share: the way to it, the hash, the colours.
 *
 *      client_demo ── message ──► weir packet ── message ──► server_demo
 *                  ◄── answer ───             ◄── SHA-1 ────
 *
 * The two programs read messages with packet.h, as the switch does: a mistake there would be made on both sides. What
 * keeps it honest are the programs of others that the tests let them talk to.
 */
#ifndef WEIR_DEMO_H
#define WEIR_DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEMO_SHA1_HEX_BYTES 41 /* with its NUL */

/* Where the reverse proxy is. */
struct demo_proxy {
	char host[256];
	char port[8];
};

/* "2100", "host:2100", "[::1]:2100". False when it is none of them. */
bool demo_read_proxy(const char *text, struct demo_proxy *out);

/* A connection to it, or -1 and a phrase in *why. Blocks until deadline_us of clock_us() at most, and longer only if
   the name service does. */
int demo_connect(const struct demo_proxy *proxy, uint64_t deadline_us, const char **why);

/* In lower case. False when the library refuses. */
bool demo_sha1_hex(const char *bytes, size_t length, char out[DEMO_SHA1_HEX_BYTES]);

/* For an id, and back to normal: empty unless standard output is a terminal and NO_COLOR is not set. */
const char *demo_colour(const char *id);
const char *demo_plain(void);

#endif
