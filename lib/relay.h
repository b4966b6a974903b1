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
 * Much of a body whose length is known need not come to us at all: once flow_may_splice() has said where it goes, all of it but its
 * last bytes passes through a pipe inside the kernel (splice.h), if that is much and there is a pipe. The last bytes come by
 * the buffer again, so that there is one place where a body ends. While there is a pipe, calls on both sockets do not block: wait
 * with flow_fill() and flow_send().
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
#include "splice.h"

#define FLOW_PIECES 32
#define FLOW_SPLICE_BYTES (256u * 1024u) /* what must still be to come for a pipe to pay … */
#define FLOW_STEP_BYTES (8u * 1024u)     /* … and what must have come at once: a sender in small steps fills no pipe */
#define FLOW_GATHER_BYTES 2048u          /* what is copied rather than sent as one more piece */
#define FLOW_TAIL_BYTES (16u * 1024u)    /* of a body, which do not pass through a pipe */

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
	struct conn *to;            /* where it goes, if it may be spliced; else NULL */
	struct splice_share *share;
	bool comes_fast;            /* the last piece was no small one */
	struct splice pipe;
	bool has_lost;              /* something waited in the pipe when it was closed: the receiver was too slow for it */
};

/* Begins: head (length head_length) goes out before the body. The body's bytes come from `from`, first those that wait
   in its buffer. chunked_out: the body is sent in chunks. */
void flow_begin(struct flow *flow, struct conn *from, enum http_framing framing, uint64_t content_length, bool chunked_out,
                uint64_t limit_bytes, const char *head, size_t head_length);

/* All that flow_begin() was given goes to this connection, and may pass by a pipe of that share: fills and sends are then done with the
   functions below. share NULL: it is copied. */
void flow_may_splice(struct flow *flow, struct conn *to, struct splice_share *share);
/* Before anything else is done with its two connections: closes the pipe, with what waits in it, and lets calls block again. */
void flow_end_splice(struct flow *flow);

/* Gets more from the sender: waits until deadline_us, or takes what has come. As conn_fill() and conn_try_fill(). */
enum conn_result flow_fill(struct flow *flow, uint64_t deadline_us);
enum conn_result flow_try_fill(struct flow *flow);
/* Sends what waits: all of it, or what the receiver takes now (sent may be NULL). As conn_send() and conn_try_send(). */
enum conn_result flow_send(struct flow *flow, struct conn *to, uint64_t deadline_us);
enum conn_result flow_try_send(struct flow *flow, struct conn *to, size_t *sent);

/* Has it bytes that are to be sent before more is read? */
static inline bool flow_has_waiting(const struct flow *flow)
{
	return flow->left > 0 || flow->pipe.waiting_bytes > 0;
}

/* Takes what is in the buffer. Call when there is nothing left to send (flow->left is 0), or at the start. */
enum flow_state flow_take(struct flow *flow);

/* Copies what waits behind the head to the head, if that is little and has room there: one piece costs the system less than several.
   head: where flow_begin()'s head stands, with so much room in all. */
void flow_gather(struct flow *flow, char *head, size_t capacity);

/* `from` has ended. The next flow_take() says what that means. */
enum flow_state flow_input_ended(struct flow *flow);

/* Is everything sent, end included? */
static inline bool flow_is_done(const struct flow *flow)
{
	return flow->has_ended && flow->left == 0;
}

#endif
