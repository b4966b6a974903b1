/* attempt.c: see attempt.h.
 *
 * The heart of it is judge(): what may be done again, and what may not? A request whose bytes reached a target may have been
 * carried out, whatever came back. It is sent again only if its method is idempotent and nothing of a body had left
 * (RFC 9110 §9.2.2); a client would rather hear 502 than pay twice.
 */
#include "attempt.h"

#include <errno.h>
#include <string.h>

#include "lib/clock.h"

#define UNREPEATABLE_IDLE_US US_PER_S

static bool is_for_parent(const struct road *r)
{
	return r->settings->mode == MODE_FORWARD && r->settings->parent != NULL;
}

static struct rewrite_request how_to_send(const struct road *r, const char *target)
{
	const struct http_head *request = &r->exchange.request;
	const struct http_field *field = http_find(request, HTTP_NAME_MAX_FORWARDS);
	uint64_t left;
	/* What a client asks a forward proxy for is http, however it reached us. */
	bool is_https = r->exchange.client.tls != NULL && r->settings->mode == MODE_REVERSE;
	struct rewrite_request how = { .via = r->proxy->via,
		                       .forwarded = (enum rewrite_forwarded)r->settings->forwarded,
		                       .client = { r->peer_text, strlen(r->peer_text) },
		                       .scheme = is_https ? "https" : "http",
		                       .target_host = { target, strlen(target) },
		                       .upgrades = request->upgrade.at != NULL,
		                       .keep_alive = true,
		                       .to_proxy = is_for_parent(r),
		                       .credentials = r->settings->parent_auth,
		                       .max_forwards = -1 };
	if ((request->method == HTTP_OPTIONS || request->method == HTTP_TRACE) && field != NULL &&
	    http_parse_number(field->value, &left))
		how.max_forwards = left > INT32_MAX ? INT32_MAX : (int)left - 1;
	return how;
}

/* The slot is used if something left for the target, at the moment it had left. */
static void settle_slot(struct road *r, uint64_t now_us)
{
	if (r->exchange.sent_bytes > 0)
		admit_use_slot(r, now_us);
}

enum attempt attempt_of(enum step step)
{
	return step == STEP_REFUSED ? ATTEMPT_REFUSED : ATTEMPT_OVER;
}

/* Could this request be sent again, after what has left for the target? */
static bool is_repeatable(const struct road *r)
{
	const struct exchange *x = &r->exchange;
	if (!x->client_is_untouched)
		return false;
	/* Who refuses the TLS handshake in its own good time (in TLS 1.3 that is after it) reads nothing of what came with it. */
	if (x->sent_bytes == 0 || (x->upstream.tls != NULL && tls_was_refused(x->upstream.tls)))
		return true;
	return x->request.is_idempotent && x->sent_bytes <= x->sent_head_bytes;
}

/* A try ended without an answer: what now? */
static enum attempt judge(struct road *r, enum exchange_result result, bool was_reused, const char **blame)
{
	struct exchange *x = &r->exchange;
	bool silent = result == EXCHANGE_TARGET_SILENT;
	if (result != EXCHANGE_OK && cut_has_happened(worker_cut(r->worker))) /* our own doing, and no target's */
		return attempt_of(road_over(r, "cut when drain_timeout was over"));
	switch (result) {
	case EXCHANGE_OK:
		return ATTEMPT_ANSWERED;
	case EXCHANGE_CLIENT_GONE:
		return attempt_of(road_over(r, "client went away before the answer"));
	case EXCHANGE_CLIENT_SILENT:
		return attempt_of(road_refuse(r, 408, "http_request_error", "the body stopped coming"));
	case EXCHANGE_CLIENT_BAD:
		return attempt_of(road_refuse(r, 400, "http_request_error", x->why));
	case EXCHANGE_CLIENT_TOO_LONG:
		return attempt_of(road_refuse(r, 413, "http_request_error", "the body is longer than max_body"));
	case EXCHANGE_TARGET_BAD:
		return attempt_of(road_refuse(r, 502, "http_protocol_error", x->why));
	default:
		break;
	}
	/* An idle connection that the target was just closing says nothing about the target. Nor does one that it closed because
	   the rest of the request did not come: whoever can take targets out of the rotation by saying nothing, will. */
	bool was_stale = was_reused && !silent && !x->has_answer_bytes;
	const char *why = conn_why(&x->upstream);
	bool refused_us = x->upstream.tls != NULL && tls_was_refused(x->upstream.tls); /* however slow its client is */
	if (!was_stale && (refused_us || !exchange_client_is_waited_for(x)))
		*blame = silent ? "it was silent for response_timeout" :
		         *why ? why : "it closed the connection without an answer";
	if (is_repeatable(r))
		return was_stale ? ATTEMPT_FRESH : ATTEMPT_NEXT;
	if (silent)
		return attempt_of(road_refuse(r, 504, "http_response_timeout", "the target was silent for response_timeout"));
	return attempt_of(road_refuse(r, 502, "connection_terminated", "the target closed the connection without an answer"));
}

uint64_t attempt_idle_max_us(const struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	bool could_be_repeated = request->is_idempotent && request->framing == HTTP_NO_BODY;
	return could_be_repeated ? r->settings->idle_timeout_us : UNREPEATABLE_IDLE_US;
}

enum attempt attempt_send(struct road *r, const char *host, bool was_reused, const char **blame)
{
	struct exchange *x = &r->exchange;
	*blame = NULL;
	if (log_shows(r->proxy->log, LOG_LEVEL_DEBUG))
		log_write(r->proxy->log, LOG_LEVEL_DEBUG, proxy_name(r->proxy), "%s connection to target %s for %s",
		          was_reused ? "an idle" : "a new", r->target_text, r->record.client);
	struct rewrite_request how = how_to_send(r, host);
	enum step step = admit_renew_slot(r);
	if (step != STEP_ON)
		return attempt_of(step);
	if (r->turn.waited && !conn_is_quiet(x->upstream.fd, x->upstream.tls)) /* the target did not wait for us, and need not */
		return ATTEMPT_FRESH;
	enum exchange_result result = exchange_send(x, &how);
	uint64_t sent_us = clock_us();
	road_trace(r, "send     %llu bytes to %s", (unsigned long long)x->sent_bytes, r->target_text);
	settle_slot(r, sent_us);
	if (result == EXCHANGE_OK)
		result = exchange_await_head(x, how.forwarded == REWRITE_OFF ? NULL : r->proxy->via);
	r->upstream_begun_us = clock_us();
	settle_slot(r, r->upstream_begun_us); /* nothing had left at first: the target took no byte until later */
	r->record.upstream_us += r->upstream_begun_us - sent_us;
	r->last_result = result;
	return judge(r, result, was_reused, blame);
}

bool attempt_is_our_own_lack(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
	       error == EADDRNOTAVAIL; /* no local port is left */
}

enum attempt attempt_refuse_for_lack(struct road *r)
{
	return attempt_of(road_refuse(r, 503, "proxy_internal_error", "no descriptor or memory for a connection"));
}
