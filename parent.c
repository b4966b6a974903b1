/* parent.c: see parent.h.
 *
 *      weir ── CONNECT host:443, Proxy-Authorization ─► parent
 *           ◄─ 200 ──────────────────────────────────┘         a tunnel: every byte behind the empty line is the host's
 *           ◄─ 403, 407, 502, … ─────────────────────┘         502 to the client, and why
 *
 * The parent's refusal is not passed on as it came. A 407 would make the client ask its user for a password that the
 * client has no use for: it speaks to us, and the credentials between us and the parent are ours (RFC 9110 §11.7.1). A
 * 403 would say that we refuse. So it is told 502, and that it was the parent, and the parent's status.
 *
 * Nothing that a parent says can hold us for long: the head of its answer is bounded by max_header, interim answers by
 * their number, and all of it by response_timeout. While we wait, the client is looked at: one that has gone frees the
 * place.
 *
 * Sources: RFC 9110 §9.3.6 (any 2xx makes a tunnel, and such an answer has no body whatever its fields say), §15.2
 * (1xx).
 */
#include "parent.h"

#include <stdio.h>

#include "lib/clock.h"

#define INTERIM_MAX 10
#define LOOK_EVERY_US US_PER_S

static enum step refuse_silence(struct road *r)
{
	return road_refuse(r, 504, "http_response_timeout", "the parent proxy was silent for response_timeout");
}

static enum step refuse_closed(struct road *r)
{
	return road_refuse(r, 502, "connection_terminated", "the parent proxy closed the connection");
}

static enum step refuse_nonsense(struct road *r)
{
	return road_refuse(r, 502, "http_protocol_error",
	                   "the parent proxy's answer to CONNECT is malformed or too long");
}

static enum step send_question(struct road *r)
{
	struct exchange *x = &r->exchange;
	size_t sent_bytes = 0;
	struct rewrite_connect how = { .target = r->target_text,
		                       .credentials = r->settings->parent_auth,
		                       .via = r->settings->forwarded == FORWARDED_OFF ? NULL : r->proxy->via,
		                       .minor_version = x->request.minor_version };
	struct iovec part = { .iov_base = x->head, .iov_len = rewrite_connect(&how, x->head, x->head_capacity) };
	if (part.iov_len == 0)
		return road_refuse(r, 400, "http_request_error", "the name is too long for a parent proxy");
	enum step step = admit_renew_slot(r); /* the connection may have taken longer than a slot lives */
	if (step != STEP_ON)
		return step;
	uint64_t deadline_us = clock_us() + r->settings->response_timeout_us;
	enum conn_result result = conn_send(&x->upstream, &part, 1, deadline_us, &sent_bytes);
	if (sent_bytes > 0)
		admit_use_slot(r, clock_us());
	if (result == CONN_TIMEOUT)
		return refuse_silence(r);
	return result == CONN_OK ? STEP_ON : refuse_closed(r);
}

/* Waits for more of the answer, and looks at the client now and then. */
static enum step wait_for_more(struct road *r, uint64_t deadline_us)
{
	struct exchange *x = &r->exchange;
	for (;;) {
		uint64_t look_us = clock_us() + LOOK_EVERY_US;
		enum conn_result result = conn_fill(&x->upstream, look_us < deadline_us ? look_us : deadline_us);
		if (result == CONN_OK)
			return STEP_ON;
		if (result == CONN_TIMEOUT && look_us >= deadline_us)
			return refuse_silence(r);
		if (result != CONN_TIMEOUT)
			return refuse_closed(r);
		if (conn_has_hung_up(&x->client) && admit_client_is_gone(r))
			return road_over(r, "client went away while the parent proxy was asked");
	}
}

/* Reads one head, interim or final, into x->response. */
static enum step read_head(struct road *r, uint64_t deadline_us)
{
	struct exchange *x = &r->exchange;
	struct http_scan scan = { .is_response = true };
	enum http_scan_result found;
	size_t length = 0;
	while ((found = http_scan(&scan, conn_bytes(&x->upstream), conn_available(&x->upstream), &length)) ==
	       HTTP_SCAN_MORE) {
		if (conn_available(&x->upstream) > x->limits.max_header_bytes)
			return refuse_nonsense(r);
		enum step step = wait_for_more(r, deadline_us);
		if (step != STEP_ON)
			return step;
	}
	if (found == HTTP_SCAN_BAD || length > x->limits.max_header_bytes)
		return refuse_nonsense(r);
	conn_use(&x->upstream, scan.skipped);
	struct http_fault fault = http_parse_response(conn_bytes(&x->upstream), length, HTTP_CONNECT, &x->response);
	if (fault.status != 0)
		return refuse_nonsense(r);
	conn_use(&x->upstream, length);
	return STEP_ON;
}

enum step parent_open_tunnel(struct road *r)
{
	struct http_head *answer = &r->exchange.response;
	enum step step = send_question(r);
	uint64_t deadline_us = clock_us() + r->settings->response_timeout_us;
	if (step == STEP_ON)
		step = read_head(r, deadline_us);
	for (int interim = 0; step == STEP_ON && answer->status < 200; interim++) {
		if (interim == INTERIM_MAX || answer->status == 101)
			return refuse_nonsense(r);
		step = read_head(r, deadline_us);
	}
	if (step != STEP_ON)
		return step;
	road_trace(r, "parent   %d from %s", answer->status, r->settings->parent);
	if (answer->status < 300)
		return STEP_ON;
	snprintf(r->details, sizeof r->details, "the parent proxy answered %d to CONNECT", answer->status);
	return road_refuse(r, 502, "http_upstream_request_denied", r->details);
}
