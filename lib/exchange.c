/* exchange.c: see exchange.h.
 *
 *                up: the request's body                         while up is not finished, each step waits in poll() for
 *      client ═══════════════════════════► target              whatever can move and moves it without blocking;
 *             ◄═══════════════════════════                     when up is finished, down goes on with plain blocking calls
 *                down: the answer
 *
 * Who is waited for decides who is blamed. A flow with bytes to send waits for the receiver, one without for the sender; when
 * nothing has moved for too long, the one that was waited for was silent.
 *
 * An answer is never made to look whole when it is not (RFC 9112 §8): a chunked one ends without its last chunk, one with a length
 * ends short, and what only the close ends is closed with a reset by our caller.
 *
 * A large body passes by us in the kernel (relay.h), the request's always without blocking, the answer's once the request is over; so
 * never do both have a pipe. Meanwhile calls on both sockets do not block, and nobody else may have these: exchange_end().
 */
#include "exchange.h"

#include <errno.h>
#include <poll.h>

#include "clock.h"

/* Interim answers to one request: a flood of them is no progress. */
#define INTERIM_MAX 100
/* How often a thread that waits for a target looks whether its client is still there. */
#define LOOK_EVERY_US US_PER_S

void exchange_begin(struct exchange *x)
{
	x->client_is_untouched = true;
	x->client_must_close = false;
	x->down_has_begun = false;
	x->extra = (struct http_text){ NULL, 0 };
	x->has_answer_bytes = false;
	x->why = "";
	flow_begin(&x->up, &x->client, HTTP_NO_BODY, 0, false, 0, NULL, 0); /* nothing of an exchange before it is left */
}

bool exchange_request_is_done(const struct exchange *x)
{
	return flow_is_done(&x->up);
}

bool exchange_client_is_waited_for(const struct exchange *x)
{
	return !exchange_request_is_done(x) && !x->up_is_broken && !flow_has_waiting(&x->up) && !x->up.has_lost;
}

bool exchange_upstream_is_reusable(const struct exchange *x)
{
	return exchange_request_is_done(x) && !x->up_is_broken && x->down.has_ended && x->response.keep_alive &&
	       x->response.framing != HTTP_UNTIL_CLOSE && conn_available(&x->upstream) == 0;
}

static bool up_is_over(const struct exchange *x)
{
	return x->up_is_broken || exchange_request_is_done(x);
}

/* ---- up ------------------------------------------------------------------------------------------------------------- */

static enum exchange_result bad_body(struct exchange *x)
{
	if (x->up.is_too_long)
		return EXCHANGE_CLIENT_TOO_LONG;
	x->why = x->up.body.why;
	return EXCHANGE_CLIENT_BAD;
}

/* Sends what the target takes now. Has anything left? */
static bool send_up(struct exchange *x)
{
	size_t sent = 0;
	uint64_t moved_before = x->upstream.moved_bytes;
	enum conn_result result = flow_try_send(&x->up, &x->upstream, &sent);
	x->sent_bytes += sent;
	if (result == CONN_BROKEN) {
		x->up_is_broken = true;
		flow_end_splice(&x->up);
	}
	return x->upstream.moved_bytes != moved_before;
}

/* Moves the request's body on as far as that goes without waiting. */
static enum exchange_result move_up(struct exchange *x)
{
	while (!up_is_over(x)) {
		if (flow_has_waiting(&x->up)) {
			if (send_up(x))
				x->moved_us = clock_us();
			if (flow_has_waiting(&x->up))
				return EXCHANGE_OK; /* the target takes no more now, or ever */
			continue;
		}
		enum flow_state state = flow_take(&x->up);
		if (state == FLOW_BAD)
			return bad_body(x);
		if (state != FLOW_NEED)
			continue;
		/* Half a chunk head may have been taken, with nothing sent of it: the read may run over it, even one that
		   gets nothing. What is lost can't be sent again. */
		if (x->client.start > x->client.kept)
			x->client_is_untouched = false;
		enum conn_result result = flow_try_fill(&x->up);
		if (result == CONN_WOULD_BLOCK)
			return EXCHANGE_OK;
		if (result != CONN_OK)
			return EXCHANGE_CLIENT_GONE; /* a body that ends before its end is no request */
		x->client_is_untouched = false;
		x->moved_us = clock_us();
	}
	return EXCHANGE_OK;
}

enum exchange_result exchange_send(struct exchange *x, const struct rewrite_request *how)
{
	x->sent_bytes = 0;
	x->up_is_broken = false;
	x->has_answer_bytes = false;
	x->sent_head_bytes = rewrite_request(&x->request, how, x->head, x->head_capacity);
	if (x->sent_head_bytes == 0) {
		x->why = "the head grew too long";
		return EXCHANGE_CLIENT_BAD;
	}
	x->client.start = x->client.kept; /* the body begins behind the head, at each try */
	flow_begin(&x->up, &x->client, x->request.framing, x->request.content_length, x->request.framing == HTTP_CHUNKED,
	           x->limits.max_body_bytes, x->head, x->sent_head_bytes);
	flow_may_splice(&x->up, &x->upstream, x->pipes);
	if (flow_take(&x->up) == FLOW_BAD)
		return bad_body(x);
	(void)send_up(x);
	x->moved_us = clock_us();
	return EXCHANGE_OK;
}

/* ---- both ways ------------------------------------------------------------------------------------------------------ */

/* Waits until something can move, while the request is not finished. */
static enum exchange_result wait_for_either(struct exchange *x)
{
	struct pollfd fds[2] = { { .fd = x->client.fd }, { .fd = x->upstream.fd } };
	bool target_is_full = flow_has_waiting(&x->up);
	bool client_is_full = x->down_has_begun && flow_has_waiting(&x->down);
	fds[target_is_full ? 1 : 0].events |= target_is_full ? POLLOUT : POLLIN;
	fds[client_is_full ? 0 : 1].events |= client_is_full ? POLLOUT : POLLIN;
	for (int i = 0; i < 2; i++)
		if (fds[i].events == 0)
			fds[i].fd = -1; /* else its hang-up would wake us again and again */

	/* A client that asked for "100 Continue" may wait for the target's word, but not for ever (RFC 9110 §10.1.1): it is
	   its turn, else anybody could have every target blamed for silence by asking and then saying nothing. */
	bool waits_for_continue = x->request.expects_continue && x->client_is_untouched && !x->has_answer_bytes;
	uint64_t patience_us = target_is_full || waits_for_continue ? x->limits.response_us : x->limits.idle_us;
	uint64_t left_us = clock_left_us(x->moved_us + patience_us);
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	int ready = ppoll(fds, 2, &left, NULL);
	if (ready > 0 || (ready < 0 && errno == EINTR))
		return EXCHANGE_OK;
	return target_is_full ? EXCHANGE_TARGET_SILENT : EXCHANGE_CLIENT_SILENT;
}

/* Waits for more of the answer. A wait that lasts is cut into pieces, and after each the client is looked at: nobody should
   keep a target busy for a client that is gone. */
static enum conn_result wait_for_answer(struct exchange *x, uint64_t deadline_us, enum exchange_result *trouble)
{
	for (;;) {
		uint64_t look_us = clock_us() + LOOK_EVERY_US;
		uint64_t until_us = look_us < deadline_us ? look_us : deadline_us;
		enum conn_result result = x->down_has_begun ? flow_fill(&x->down, until_us) : conn_fill(&x->upstream, until_us);
		if (result != CONN_TIMEOUT || look_us >= deadline_us)
			return result;
		if (conn_has_hung_up(&x->client)) {
			*trouble = EXCHANGE_CLIENT_GONE;
			return CONN_OK;
		}
	}
}

/* Gets more of the answer into the buffer. While the request is on its way: whatever has come, perhaps nothing. Then: waits. */
static enum conn_result more_of_answer(struct exchange *x, uint64_t deadline_us, enum exchange_result *trouble)
{
	*trouble = EXCHANGE_OK;
	if (up_is_over(x))
		return wait_for_answer(x, deadline_us, trouble);
	*trouble = move_up(x);
	if (*trouble != EXCHANGE_OK)
		return CONN_OK;
	enum conn_result result = conn_try_fill(&x->upstream);
	if (result == CONN_OK)
		x->moved_us = clock_us();
	if (result != CONN_WOULD_BLOCK)
		return result;
	if (!up_is_over(x))
		*trouble = wait_for_either(x);
	return CONN_OK;
}

/* ---- the head of the answer ----------------------------------------------------------------------------------------- */

/* In the middle of a large body calls on the client's socket do not block. */
static enum conn_result send_interim(struct exchange *x, struct iovec *part)
{
	uint64_t deadline_us = clock_us() + x->limits.idle_us;
	int left = 1;
	enum conn_result result = CONN_OK;
	if (!x->up.pipe.is_open)
		return conn_send(&x->client, part, 1, deadline_us, NULL);
	while (result == CONN_OK && left > 0) {
		result = conn_try_send(&x->client, &part, &left, NULL);
		if (result == CONN_WOULD_BLOCK)
			result = conn_wait(x->client.fd, false, deadline_us);
	}
	return result;
}

/* Passes an interim answer on; a 1.0 client does not know them. */
static enum exchange_result pass_interim(struct exchange *x, const char *via)
{
	if (x->request.minor_version == 0)
		return EXCHANGE_OK;
	struct rewrite_response how = { .via = via, .client_is_1_1 = true, .keep_alive = true, .framing = HTTP_NO_BODY };
	struct iovec part = { .iov_base = x->head };
	/* The request's head may still be waiting in x->head to be sent. Then the interim answer is left out: it is advice. */
	if (x->up.left > 0 && x->sent_bytes < x->sent_head_bytes)
		return EXCHANGE_OK;
	part.iov_len = rewrite_response(&x->response, &how, x->head, x->head_capacity);
	if (part.iov_len == 0)
		return EXCHANGE_OK;
	return send_interim(x, &part) == CONN_OK ? EXCHANGE_OK : EXCHANGE_CLIENT_GONE;
}

static enum exchange_result bad_answer(struct exchange *x, const char *why)
{
	x->why = why;
	return EXCHANGE_TARGET_BAD;
}

/* Reads one head: interim or final. */
static enum exchange_result read_answer_head(struct exchange *x)
{
	struct http_scan scan = { .is_response = true };
	size_t length = 0;
	uint64_t deadline_us = clock_us() + x->limits.response_us;
	for (;;) {
		enum http_scan_result found =
			http_scan(&scan, conn_bytes(&x->upstream), conn_available(&x->upstream), &length);
		if (found == HTTP_SCAN_COMPLETE)
			break;
		if (found == HTTP_SCAN_BAD)
			return bad_answer(x, "the head of the target's answer is malformed");
		if (conn_available(&x->upstream) > x->limits.max_header_bytes)
			return bad_answer(x, "the head of the target's answer is too long");
		enum exchange_result trouble;
		bool was_up = !up_is_over(x);
		enum conn_result result = more_of_answer(x, deadline_us, &trouble);
		if (trouble != EXCHANGE_OK)
			return trouble;
		if (result == CONN_TIMEOUT)
			return EXCHANGE_TARGET_SILENT;
		if (result != CONN_OK)
			return EXCHANGE_TARGET_FAILED;
		x->has_answer_bytes = x->has_answer_bytes || conn_available(&x->upstream) > 0;
		if (was_up) /* its time runs from the end of the request */
			deadline_us = clock_us() + x->limits.response_us;
	}
	conn_use(&x->upstream, scan.skipped);
	conn_make_room(&x->upstream, length); /* interim heads may have filled the buffer up to here */
	struct http_fault fault = http_parse_response(conn_bytes(&x->upstream), length, x->request.method, &x->response);
	if (fault.status != 0)
		return bad_answer(x, fault.why);
	conn_keep(&x->upstream, length);
	return EXCHANGE_OK;
}

static enum exchange_result await_head(struct exchange *x, const char *via)
{
	for (int interim = 0; interim < INTERIM_MAX; interim++) {
		enum exchange_result result = read_answer_head(x);
		if (result != EXCHANGE_OK || x->response.status >= 200 || x->response.status == 101)
			return result;
		result = pass_interim(x, via);
		if (result != EXCHANGE_OK)
			return result;
		x->upstream.kept = 0; /* the next head may take this one's place */
	}
	return bad_answer(x, "too many interim answers");
}

enum exchange_result exchange_await_head(struct exchange *x, const char *via)
{
	enum exchange_result result = await_head(x, via);
	if (result != EXCHANGE_OK)
		exchange_end(x);
	return result;
}

/* ---- the answer ----------------------------------------------------------------------------------------------------- */

/* How the answer's end is marked for this client. */
static enum http_framing framing_for_client(const struct exchange *x)
{
	switch (x->response.framing) {
	case HTTP_NO_BODY:
	case HTTP_BY_LENGTH:
		return x->response.framing;
	default:
		return x->request.minor_version >= 1 ? HTTP_CHUNKED : HTTP_UNTIL_CLOSE;
	}
}

static bool begin_down(struct exchange *x, const char *via, bool keep_alive)
{
	enum http_framing framing = framing_for_client(x);
	/* A body that the target did not want to the end would be read as the next request: the connection ends here. */
	x->client_must_close = !keep_alive || framing == HTTP_UNTIL_CLOSE || !exchange_request_is_done(x);
	char date[HTTP_DATE_MAX];
	http_write_date(clock_wall_s(), date);
	struct rewrite_response how = { .via = via,
		                        .date = date,
		                        .client_is_1_1 = x->request.minor_version >= 1,
		                        .keep_alive = !x->client_must_close,
		                        .client_asked_keep_alive_1_0 = x->request.minor_version == 0 && x->request.keep_alive,
		                        .framing = framing,
		                        .content_length = x->response.content_length,
		                        .has_content_length = x->response.has_content_length,
		                        .extra = x->extra,
		                        .upgrades = x->response.status == 101 };
	/* x->head may hold what is left of the request's own head, when the target answered before it had taken that. */
	bool head_is_in_use = !x->up_is_broken && x->up.left > 0 && x->sent_bytes < x->sent_head_bytes;
	if (head_is_in_use) {
		x->up_is_broken = true;
		x->up.left = 0;
	}
	size_t length = rewrite_response(&x->response, &how, x->head, x->head_capacity);
	if (length == 0)
		return false;
	flow_begin(&x->down, &x->upstream, x->response.framing, x->response.content_length, framing == HTTP_CHUNKED, 0,
	           x->head, length);
	flow_may_splice(&x->down, &x->client, x->pipes);
	x->down_has_begun = true;
	return true;
}

/* One step of the answer that may not wait: the request is still on its way. */
static enum exchange_result send_down_some(struct exchange *x)
{
	uint64_t moved_before = x->client.moved_bytes;
	if (conn_try_send(&x->client, &x->down.next, &x->down.left, NULL) == CONN_BROKEN)
		return EXCHANGE_CLIENT_GONE;
	if (x->client.moved_bytes != moved_before)
		x->moved_us = clock_us();
	if (x->down.left == 0)
		return EXCHANGE_OK;
	enum exchange_result result = move_up(x);
	if (result != EXCHANGE_OK || up_is_over(x))
		return result;
	return wait_for_either(x);
}

/* Sends what is left, to a client that may be slow: as long as it takes something within idle_us, it is waited for. The
   system wakes a sender only when a good part of its buffer is free again, so at the deadline it is asked once more:
   what it takes then, the client has made room for. */
static enum conn_result send_while_it_moves(struct exchange *x)
{
	enum conn_result result;
	uint64_t moved_before;
	do {
		moved_before = x->client.moved_bytes;
		result = flow_send(&x->down, &x->client, clock_us() + x->limits.idle_us);
		if (result == CONN_TIMEOUT && x->client.moved_bytes == moved_before)
			(void)flow_try_send(&x->down, &x->client, NULL);
	} while (result == CONN_TIMEOUT && x->client.moved_bytes != moved_before);
	return result;
}

static enum exchange_result send_down(struct exchange *x)
{
	if (!up_is_over(x))
		return send_down_some(x);
	enum conn_result result = send_while_it_moves(x);
	x->down.left = 0;
	return result == CONN_OK ? EXCHANGE_OK : EXCHANGE_CLIENT_GONE;
}

static enum exchange_result read_down(struct exchange *x)
{
	enum exchange_result trouble;
	enum conn_result result = more_of_answer(x, clock_us() + x->limits.response_us, &trouble);
	if (trouble != EXCHANGE_OK)
		return trouble;
	if (result == CONN_OK)
		return EXCHANGE_OK;
	if (result != CONN_END || (x->cut != NULL && cut_has_happened(x->cut)) || flow_input_ended(&x->down) == FLOW_CUT_SHORT)
		return EXCHANGE_TARGET_CUT;
	return EXCHANGE_OK;
}

static enum exchange_result relay(struct exchange *x, const char *via, bool keep_alive)
{
	if (!begin_down(x, via, keep_alive))
		return bad_answer(x, "the head of the target's answer grew too long");
	/* What has come of the body leaves together with the head: one call, one packet, one TLS record, one waking of the
	   client. And when that is all of it, this is known before the client has the end. */
	if (flow_take(&x->down) == FLOW_BAD)
		return bad_answer(x, x->down.body.why);
	if (x->client.tls == NULL) /* which makes one record of them anyway */
		flow_gather(&x->down, x->head, x->head_capacity);
	enum exchange_result result = EXCHANGE_OK;
	while (result == EXCHANGE_OK) {
		if (flow_has_waiting(&x->down)) {
			if (x->down.has_ended && up_is_over(x) && x->target_is_done != NULL)
				x->target_is_done(x->context);
			result = send_down(x);
			continue;
		}
		switch (flow_take(&x->down)) {
		case FLOW_DONE:
			return EXCHANGE_OK;
		case FLOW_BAD:
			x->why = x->down.body.why;
			return EXCHANGE_TARGET_CUT;
		case FLOW_SEND:
			break;
		default:
			result = read_down(x);
		}
	}
	return result;
}

enum exchange_result exchange_relay(struct exchange *x, const char *via, bool keep_alive)
{
	enum exchange_result result = relay(x, via, keep_alive);
	exchange_end(x);
	return result;
}

void exchange_end(struct exchange *x)
{
	flow_end_splice(&x->up);
	flow_end_splice(&x->down);
}
