/* entrance.h: what comes before the first request on a client's connection: the PROXY header, if there has to be one.
 * For proxy.c and switch.c only.
 */
#ifndef WEIR_ENTRANCE_H
#define WEIR_ENTRANCE_H

#include "service.h"

/* With proxy_protocol = on: reads the header, and then *peer is the client that it names, and *destination where that
   one connected to; without a name *peer stays, and destination->length is 0. False: it is to be closed, and the log
   says why, unless it ended by itself. Must come before anything else is read from fd, a TLS handshake included. */
bool entrance_read_header(struct proxy *proxy, struct worker *worker, const struct settings *settings, int fd,
                          struct address *peer, struct address *destination);

#endif
