/* relay.c: see relay.h. Source: RFC 9112 §7.1 (chunks are one hop's own affair: each hop frames anew), §6.3. */
#include "relay.h"

#include <stdint.h>
#include <string.h>

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
	flow->to = NULL;
	flow->share = NULL;
	flow->comes_fast = flow->has_lost = false;
	flow->pipe = (struct splice){ .is_open = false };
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
	if (payload_bytes > 0)
		flow->comes_fast = payload_bytes >= FLOW_STEP_BYTES;
	flow->is_too_long = flow->limit_bytes > 0 && flow->body.payload_bytes > flow->limit_bytes;
	if (event == BODY_BAD || flow->is_too_long)
		return FLOW_BAD;
	if (flow->chunked_out && payload_bytes > 0)
		frame_chunk(flow, first, payload_bytes);
	else if (flow->chunked_out)
		flow->left--;
	if (event == BODY_END) {
		flow_end_splice(flow); /* the sender was faster than FLOW_TAIL_BYTES foresaw */
		add_end(flow);
	}
	if (flow->left > 0)
		return FLOW_SEND;
	return flow->has_ended ? FLOW_DONE : FLOW_NEED;
}

void flow_gather(struct flow *flow, char *head, size_t capacity)
{
	if (flow->left < 2 || flow->parts[0].iov_base != head)
		return;
	size_t length = flow->parts[0].iov_len, more = 0;
	for (int i = 1; i < flow->left; i++)
		more += flow->parts[i].iov_len;
	if (more > FLOW_GATHER_BYTES || more > capacity - length)
		return;
	for (int i = 1; i < flow->left; i++) {
		memcpy(head + length, flow->parts[i].iov_base, flow->parts[i].iov_len);
		length += flow->parts[i].iov_len;
	}
	flow->parts[0].iov_len = length;
	flow->left = 1;
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

/* ---- past us -------------------------------------------------------------------------------------------------------- */

void flow_may_splice(struct flow *flow, struct conn *to, struct splice_share *share)
{
	bool is_in_limit = flow->limit_bytes == 0 || flow->body.left <= flow->limit_bytes;
	if (share == NULL || flow->body.framing != HTTP_BY_LENGTH || !is_in_limit)
		return;
	flow->to = to;
	flow->share = share;
}

void flow_end_splice(struct flow *flow)
{
	if (!flow->pipe.is_open)
		return;
	flow->has_lost = flow->pipe.waiting_bytes > 0;
	splice_end(&flow->pipe);
	splice_let_block(flow->from->fd);
	splice_let_block(flow->to->fd);
}

/* Nothing of the flow waits. Is there, or may there be now, a pipe for what comes next? One that can't be had is not asked for again. */
static bool has_pipe(struct flow *flow)
{
	bool is_tail = flow->body.left <= FLOW_TAIL_BYTES;
	if (flow->pipe.is_open && is_tail)
		flow_end_splice(flow);
	if (flow->pipe.is_open)
		return true;
	if (flow->to == NULL || !flow->comes_fast || flow->body.left < FLOW_SPLICE_BYTES || conn_available(flow->from) > 0)
		return false;
	if (!splice_begin(&flow->pipe, flow->from, flow->to, flow->share))
		flow->to = NULL;
	return flow->pipe.is_open;
}

enum conn_result flow_try_fill(struct flow *flow)
{
	if (has_pipe(flow)) {
		uint64_t most = flow->body.left - FLOW_TAIL_BYTES;
		enum conn_result result =
			splice_take(&flow->pipe, flow->from, most < SPLICE_PIPE_BYTES ? (size_t)most : SPLICE_PIPE_BYTES);
		if (result != CONN_WOULD_BLOCK)
			return result;
	}
	return conn_try_fill(flow->from);
}

enum conn_result flow_fill(struct flow *flow, uint64_t deadline_us)
{
	if (!has_pipe(flow))
		return conn_fill(flow->from, deadline_us);
	for (;;) {
		enum conn_result result = flow_try_fill(flow);
		if (result != CONN_WOULD_BLOCK)
			return result;
		result = conn_wait(flow->from->fd, true, deadline_us);
		if (result != CONN_OK)
			return result;
	}
}

/* What passes by us is counted when the receiver has taken it, for what is in the pipe would be lost with it. */
static enum conn_result give(struct flow *flow, struct conn *to, size_t *sent)
{
	size_t count;
	enum conn_result result = splice_give(&flow->pipe, to, &count);
	flow->body.left -= count;
	flow->body.payload_bytes += count;
	if (sent != NULL)
		*sent += count;
	return result;
}

enum conn_result flow_try_send(struct flow *flow, struct conn *to, size_t *sent)
{
	return flow->pipe.waiting_bytes > 0 ? give(flow, to, sent) : conn_try_send(to, &flow->next, &flow->left, sent);
}

enum conn_result flow_send(struct flow *flow, struct conn *to, uint64_t deadline_us)
{
	if (flow->pipe.waiting_bytes == 0)
		return conn_send(to, flow->next, flow->left, deadline_us, NULL);
	enum conn_result result = CONN_OK;
	while (result == CONN_OK && flow->pipe.waiting_bytes > 0) {
		result = give(flow, to, NULL);
		if (result == CONN_WOULD_BLOCK)
			result = conn_wait(to->fd, false, deadline_us);
	}
	return result;
}
