/* live.h: a moving picture, drawn once for all who look, and not at all when nobody does.
 *
 *      one thread:  while somebody looks, ten times a second: make a frame ──► the latest frame
 *      each reader: wait for a frame newer than mine ──► send it ──► wait …
 *
 * A slow reader misses frames; it never holds up the others, and the next one it gets is of now. Frames are counted references: the
 * latest is replaced while somebody still sends the one before.
 *
 * It is sent as server-sent events (WHATWG HTML §9.2): an answer that never ends, of lines "data: …" and an empty line. A browser
 * connects again by itself when the connection breaks.
 */
#ifndef WEIR_LIVE_H
#define WEIR_LIVE_H

#include <stdbool.h>

#include "lib/admin.h"
#include "lib/text.h"

struct live;

/* make writes one frame, without line ends; it is called by live's own thread. NULL when out of memory or threads. */
struct live *live_create(void (*make)(void *context, struct text *out), void *context);
/* When no stream is under way. */
void live_destroy(struct live *live);

/* Room for one more reader? True: live_stream() follows, or live_leave(). */
bool live_enter(struct live *live);
void live_leave(struct live *live);
/* Sends frames until the stream ends. After live_enter(); leaves by itself. */
void live_stream(struct live *live, struct admin_stream *stream);

#endif
