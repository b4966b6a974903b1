/* demo_server.h: a server of the message switch: sets itself up, answers each message with the SHA-1 of its payload.
 *
 *      listen ──► set up: connect, send {"type":"1",…}, close ──► accept ──► message, answer, message, answer, …
 *
 * It listens before it sets itself up: a message may come the moment that the reverse proxy knows of it. After its
 * set-up it waits until the other side has closed as well, for by then the set-up has been read: who starts programs
 * one after the other can rely on it.
 */
#ifndef WEIR_DEMO_SERVER_H
#define WEIR_DEMO_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "demo.h"
#include "wire.h"

struct demo_server {
	const char *id, *policy;
	struct demo_proxy proxy;
	uint64_t patience_us; /* how long the reverse proxy may take to appear */
	uint64_t delay_us;    /* before each answer */
};

/* Tells the reverse proxy. False when it was not there in time or refused: a line on standard error says why. */
bool demo_server_set_up(const struct demo_server *server, unsigned port);

/* Serves one connection to its end; does not close it. w is the caller's, any thread. */
void demo_server_serve(const struct demo_server *server, struct wire *w);

#endif
