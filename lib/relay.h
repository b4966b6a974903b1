/* relay.h: one direction of an exchange: a message's body on its way from one connection to the other.
 *
 *      from's buffer ──► body_read() takes the framing off ──► parts (pointing into the buffer) ──► framing put on ──► to
 *
 * Nothing is copied: the parts to send point into the buffer they were read to. So a flow first sends what it has taken, then
 * reads on; the buffer is all the memory a body of any size needs, and a slow receiver slows the sender (back-pressure).
 *
 *      flow_begin ──► flow_take ──► FLOW_SEND ──► conn_send / conn_try_send the parts, flow_sent ──► flow_take …
 *                        ├────────► FLOW_NEED ──► conn_fill(from)  (at its end: flow_input_ended) ──► flow_take …
 *                        ├────────► FLOW_DONE     all of it has been sent
 *                        └────────► FLOW_BAD      malformed, or too long
 *
 * A flow belongs to one exchange and one thread.
 */
#ifndef WEIR_RELAY_H
#define WEIR_RELAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "body.h"
#include "conn.h"

#define FLOW_PIECES 32

enum flow_state {
	FLOW_SEND,
	FLOW_NEED,
	FLOW_DONE,
	FLOW_BAD,       /* flow->body.why; or over the limit (flow->is_too_long) */
	FLOW_CUT_SHORT, /* the input ended before the body did */
};

struct flow {
	struct conn *from;
	struct body body;
	bool chunked_out;     /* chunks are put on */
	bool has_ended;       /* the end of the body has been taken */
	bool is_too_long;
	uint64_t limit_bytes; /* of payload; 0: none */
	struct iovec parts[FLOW_PIECES + 4];
	struct iovec *next;   /* what of them is still to be sent */
	int left;
	char chunk_head[BODY_CHUNK_HEAD_MAX];
};

/* Begins: head (length head_length) goes out before the body. The body's bytes come from `from`, first those that wait
   in its buffer. chunked_out: the body is sent in chunks. */
void flow_begin(struct flow *flow, struct conn *from, enum http_framing framing, uint64_t content_length, bool chunked_out,
                uint64_t limit_bytes, const char *head, size_t head_length);

/* Takes what is in the buffer. Call when there is nothing left to send (flow->left is 0), or at the start. */
enum flow_state flow_take(struct flow *flow);

/* `from` has ended. The next flow_take() says what that means. */
enum flow_state flow_input_ended(struct flow *flow);

/* Is everything sent, end included? */
static inline bool flow_is_done(const struct flow *flow)
{
	return flow->has_ended && flow->left == 0;
}

#endif
