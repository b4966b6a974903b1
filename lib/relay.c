/* relay.c: see relay.h. Source: RFC 9112 §7.1 (chunks are one hop's own affair: each hop frames anew), §6.3. */
#include "relay.h"

#include <stdint.h>

static char crlf[] = "\r\n";
static char last_chunk[] = "0\r\n";

static void add_part(struct flow *flow, const char *at, size_t length)
{
	/* sendmsg() only reads what iov_base points to; the type has no const for the sake of recvmsg(). */
	flow->parts[flow->left++] = (struct iovec){ .iov_base = (char *)(uintptr_t)at, .iov_len = length };
}

void flow_begin(struct flow *flow, struct conn *from, enum http_framing framing, uint64_t content_length, bool chunked_out,
                uint64_t limit_bytes, const char *head, size_t head_length)
{
	body_begin(&flow->body, framing, content_length);
	flow->from = from;
	flow->chunked_out = chunked_out;
	flow->has_ended = false;
	flow->is_too_long = false;
	flow->limit_bytes = limit_bytes;
	flow->next = flow->parts;
	flow->left = 0;
	if (head_length > 0)
		add_part(flow, head, head_length);
}

/* The end of a body in chunks: the last chunk, trailers, an empty line. */
static void add_end(struct flow *flow)
{
	flow->has_ended = true;
	if (!flow->chunked_out)
		return;
	add_part(flow, last_chunk, sizeof last_chunk - 1);
	if (flow->body.trailers_length > 0)
		add_part(flow, flow->body.trailers, flow->body.trailers_length);
	add_part(flow, crlf, sizeof crlf - 1);
}

/* Where the framing of a chunk of payload goes in among the parts: its head stands before the first piece. */
static void frame_chunk(struct flow *flow, int first, size_t payload_bytes)
{
	size_t length = body_chunk_head(flow->chunk_head, payload_bytes);
	flow->parts[first] = (struct iovec){ .iov_base = flow->chunk_head, .iov_len = length };
	add_part(flow, crlf, sizeof crlf - 1);
}

enum flow_state flow_take(struct flow *flow)
{
	if (flow->has_ended)
		return flow->left > 0 ? FLOW_SEND : FLOW_DONE;
	if (flow->left == 0)
		flow->next = flow->parts;
	int first = flow->left; /* behind the head, when there is one */
	size_t payload_bytes = 0;
	if (flow->chunked_out)
		add_part(flow, NULL, 0); /* place of the chunk's head */
	enum body_event event = BODY_MORE;
	for (int pieces = 0; pieces < FLOW_PIECES - 4; pieces++) {
		struct http_text data;
		size_t used;
		event = body_read(&flow->body, conn_bytes(flow->from), conn_available(flow->from), &used, &data);
		conn_use(flow->from, used);
		if (event != BODY_DATA)
			break;
		add_part(flow, data.at, data.length);
		payload_bytes += data.length;
	}
	flow->is_too_long = flow->limit_bytes > 0 && flow->body.payload_bytes > flow->limit_bytes;
	if (event == BODY_BAD || flow->is_too_long)
		return FLOW_BAD;
	if (flow->chunked_out && payload_bytes > 0)
		frame_chunk(flow, first, payload_bytes);
	else if (flow->chunked_out)
		flow->left--;
	if (event == BODY_END)
		add_end(flow);
	if (flow->left > 0)
		return FLOW_SEND;
	return flow->has_ended ? FLOW_DONE : FLOW_NEED;
}

enum flow_state flow_input_ended(struct flow *flow)
{
	if (!body_may_end_here(&flow->body))
		return FLOW_CUT_SHORT;
	if (!flow->has_ended) {
		flow->next = flow->parts;
		add_end(flow);
	}
	return flow->left > 0 ? FLOW_SEND : FLOW_DONE;
}
