/* demo_client.h: a client of the message switch: sends one packet file and checks the hash that comes back.
 *
 *      pktfiles/1.json ──► message, with our id ──► the reverse proxy ──► answer ──► is it the SHA-1 of the payload?
 */
#ifndef WEIR_DEMO_CLIENT_H
#define WEIR_DEMO_CLIENT_H

#include <stdint.h>

#include "demo.h"

struct demo_client {
	const char *id;          /* NULL: the message's own srcid stays */
	const char *packet_path;
	struct demo_proxy proxy;
	uint64_t timeout_us;     /* from connecting to the last byte of the answer */
};

/* Does it. The program's exit status: 0 when the hash is correct, 2 when the packet file can't be used, else 1. */
int demo_client_run(const struct demo_client *client);

#endif
