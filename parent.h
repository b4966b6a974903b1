/* parent.h: a step of the forward proxy's road: asking a parent proxy to open a tunnel. For forward.c only. */
#ifndef WEIR_PARENT_H
#define WEIR_PARENT_H

#include "road.h"

/* r->exchange.upstream is a fresh connection to the parent. Asks it for a tunnel to where the client wants to go, and
   waits for its answer. STEP_ON: it agreed; what came behind its answer are bytes of the tunnel. The slots in hand
   are used up if a byte left. */
enum step parent_open_tunnel(struct road *r);

#endif
