/* tunnel.h: two connections become one: bytes go both ways, unread, until both sides have finished. Any thread. */
#ifndef WEIR_TUNNEL_H
#define WEIR_TUNNEL_H

#include <stdint.h>

#include "conn.h"

struct tunnel_counts {
	uint64_t up_bytes;   /* from the client to the target */
	uint64_t down_bytes; /* from the target to the client */
};

/* Relays until both sides have ended (CONN_END), one is broken (CONN_BROKEN), or nothing has moved for idle_us (CONN_TIMEOUT).
   What waits in the connections' buffers goes first, and what is kept there stays: the log still speaks of the request.
   The connections stay the caller's to close, blocking as before; meanwhile they are not. Unless both sides have ended, nothing
   but closing may follow: TLS is gone from them, for its goodbye would say that all of it came. Where both are plain, bytes may pass
   from one to the other inside the kernel. */
enum conn_result tunnel_run(struct conn *client, struct conn *target, uint64_t idle_us, struct tunnel_counts *counts);

#endif
