/* reverse.c: pick and send: targets in turn, until one answers.
 *
 *      pick ──► a slot ──► a connection ──► send ──► the head of an answer? ──► on to relay
 *       ▲                     │ refused       │ reset, closed, silent
 *       └─────────────────────┴───────────────┘ the target leaves the rotation; the request goes on to the next, if it may
 *
 * Invariants. A pick of the balancer is given back once. A request whose bytes reached a target is sent again only if its method
 * is idempotent and nothing of a body had left (RFC 9110 §9.2.2). Each try that starts has a slot of its own.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/clock.h"
#include "road.h"

/* A request that could not be repeated takes an idle connection only if it was in use this recently: a target that closes
   idle connections after some seconds is then unlikely to be closing just this one just now. */
#define UNREPEATABLE_IDLE_US US_PER_S

/* One number for all requests that should go to the same target. */
static uint64_t hash_of(const char *bytes, size_t length)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a; the balancer mixes it further */
	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static uint64_t key_of(const struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	if (r->settings->balance != BALANCE_HASH)
		return 0;
	if (r->settings->hash_key.kind == HASH_KEY_URI)
		return hash_of(request->path.at, request->path.length);
	if (r->settings->hash_key.kind == HASH_KEY_HEADER) {
		const struct http_field *field = http_find_name(request, r->settings->hash_key.header);
		return field == NULL ? 0 : hash_of(field->value.at, field->value.length);
	}
	return hash_of(r->admission.client_text, strlen(r->admission.client_text));
}

static struct rewrite_request how_to_send(const struct road *r, const char *target)
{
	const struct http_head *request = &r->exchange.request;
	const struct http_field *field = http_find(request, HTTP_NAME_MAX_FORWARDS);
	uint64_t left;
	struct rewrite_request how = { .via = r->proxy->via,
		                       .forwarded = (enum rewrite_forwarded)r->settings->forwarded,
		                       .client = { r->peer_text, strlen(r->peer_text) },
		                       .scheme = "http",
		                       .target_host = { target, strlen(target) },
		                       .upgrades = request->upgrade.at != NULL,
		                       .keep_alive = true,
		                       .max_forwards = -1 };
	if ((request->method == HTTP_OPTIONS || request->method == HTTP_TRACE) && field != NULL &&
	    http_parse_number(field->value, &left))
		how.max_forwards = left > INT32_MAX ? INT32_MAX : (int)left - 1;
	return how;
}

/* The target did not do what it should: it leaves the rotation. */
static void blame_target(struct road *r, const char *why)
{
	if (balancer_failed(r->proxy->balancer, &r->pick, clock_us()))
		log_write(r->proxy->log, LOG_LEVEL_WARN, proxy_name(r->proxy), "target %s leaves the rotation: %s", r->target_text, why);
	service_target_failed(r->proxy);
}

void reverse_give_pick_back(struct road *r)
{
	if (!r->has_pick)
		return;
	upstream_discard(&r->exchange.upstream, worker_cut(r->worker));
	balancer_done(r->proxy->balancer, &r->pick);
	r->has_pick = false;
}

/* The slot is used if something left for the target, at the moment it had left. */
static void settle_slot(struct road *r)
{
	if (!r->has_slot || r->exchange.sent_bytes == 0)
		return;
	limiter_started(r->proxy->limiter, &r->ticket, clock_us());
	r->has_slot = false;
}

/* What one try at one target came to. */
enum attempt {
	ATTEMPT_ANSWERED, /* the head of an answer is there */
	ATTEMPT_NEXT,     /* the request can go to another target */
	ATTEMPT_FRESH,    /* an idle connection turned out to be closed: once more, on a new one */
	ATTEMPT_REFUSED,
	ATTEMPT_OVER,
};

static enum attempt refused(enum step step)
{
	return step == STEP_REFUSED ? ATTEMPT_REFUSED : ATTEMPT_OVER;
}

/* Could this request be sent again, after what has left for the target? */
static bool is_repeatable(const struct road *r)
{
	const struct exchange *x = &r->exchange;
	if (!x->client_is_untouched)
		return false;
	if (x->sent_bytes == 0)
		return true;
	return x->request.is_idempotent && x->sent_bytes <= x->sent_head_bytes;
}

/* A try ended without an answer: what now? */
static enum attempt judge(struct road *r, enum exchange_result result, bool was_reused)
{
	struct exchange *x = &r->exchange;
	bool silent = result == EXCHANGE_TARGET_SILENT;
	switch (result) {
	case EXCHANGE_OK:
		return ATTEMPT_ANSWERED;
	case EXCHANGE_CLIENT_GONE:
		return refused(road_over(r, "client went away before the answer"));
	case EXCHANGE_CLIENT_SILENT:
		return refused(road_refuse(r, 408, "http_request_error", "the body stopped coming"));
	case EXCHANGE_CLIENT_BAD:
		return refused(road_refuse(r, 400, "http_request_error", x->why));
	case EXCHANGE_CLIENT_TOO_LONG:
		return refused(road_refuse(r, 413, "http_request_error", "the body is longer than max_body"));
	case EXCHANGE_TARGET_BAD:
		return refused(road_refuse(r, 502, "http_protocol_error", x->why));
	default:
		break;
	}
	/* An idle connection that the target was just closing says nothing about the target. Nor does one that it closed because
	   the rest of the request did not come: whoever can take targets out of the rotation by saying nothing, will. */
	bool was_stale = was_reused && !silent && !x->has_answer_bytes;
	if (!was_stale && !exchange_client_is_waited_for(x))
		blame_target(r, silent ? "it was silent for response_timeout" : "it closed the connection without an answer");
	if (is_repeatable(r))
		return was_stale ? ATTEMPT_FRESH : ATTEMPT_NEXT;
	if (silent)
		return refused(road_refuse(r, 504, "http_response_timeout", "the target was silent for response_timeout"));
	return refused(road_refuse(r, 502, "connection_terminated", "the target closed the connection without an answer"));
}

/* No target would do better: to blame this one, and then the next, would only empty the rotation. */
static bool is_our_own_lack(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* One try: a connection, the request, the head of the answer. */
static enum attempt try_target(struct road *r, bool fresh)
{
	struct exchange *x = &r->exchange;
	struct upstream *upstream = r->pick.item;
	bool could_be_repeated = x->request.is_idempotent && x->request.framing == HTTP_NO_BODY;
	uint64_t idle_max_us = could_be_repeated ? r->settings->idle_timeout_us : UNREPEATABLE_IDLE_US;
	bool reused;
	x->sent_bytes = 0;
	r->record.tries++;
	if (upstream_lease(upstream, &x->upstream, worker_cut(r->worker), fresh ? 0 : idle_max_us,
	                   r->settings->connect_timeout_us, &reused) != CONN_OK) {
		int error = errno;
		if (is_our_own_lack(error))
			return refused(road_refuse(r, 503, "proxy_internal_error", "no descriptor or memory for a connection"));
		blame_target(r, strerror(error));
		return ATTEMPT_NEXT;
	}
	if (log_shows(r->proxy->log, LOG_LEVEL_DEBUG))
		log_write(r->proxy->log, LOG_LEVEL_DEBUG, proxy_name(r->proxy), "%s connection to target %s for %s",
		          reused ? "an idle" : "a new", r->target_text, r->record.client);
	struct rewrite_request how = how_to_send(r, upstream_host(upstream));
	enum exchange_result result = exchange_send(x, &how);
	r->upstream_begun_us = clock_us();
	settle_slot(r);
	if (result == EXCHANGE_OK)
		result = exchange_await_head(x, how.forwarded == REWRITE_OFF ? NULL : r->proxy->via);
	settle_slot(r); /* nothing had left at first: the target took no byte until later */
	r->record.upstream_us += clock_us() - r->upstream_begun_us;
	enum attempt attempt = judge(r, result, reused);
	if (attempt != ATTEMPT_ANSWERED)
		upstream_discard(&x->upstream, worker_cut(r->worker));
	return attempt;
}

/* One target: perhaps twice, when its idle connection was closed. Each try that starts needs a slot of its own. */
static enum attempt ask_target(struct road *r)
{
	enum attempt attempt = ATTEMPT_FRESH;
	for (bool fresh = false; attempt == ATTEMPT_FRESH; fresh = true) {
		enum step step = admit_take_slot(r);
		if (step != STEP_ON)
			return refused(step);
		attempt = try_target(r, fresh);
	}
	return attempt;
}

/* Picks targets until one answers. */
enum step reverse_find_target(struct road *r)
{
	struct balancer *balancer = r->proxy->balancer;
	uint64_t key = key_of(r);
	memset(&r->tried, 0, sizeof r->tried);
	for (unsigned tries = 0; tries <= r->settings->retries; tries++) {
		if (!balancer_pick(balancer, key, &r->tried, &r->pick))
			break;
		r->has_pick = true;
		snprintf(r->target_text, sizeof r->target_text, "%s", upstream_address(r->pick.item));
		r->record.target = r->target_text;
		switch (ask_target(r)) {
		case ATTEMPT_ANSWERED:
			balancer_succeeded(balancer, &r->pick);
			return STEP_ON;
		case ATTEMPT_REFUSED:
			return STEP_REFUSED;
		case ATTEMPT_OVER:
			return STEP_OVER;
		default:
			reverse_give_pick_back(r);
		}
		if (tries == UINT32_MAX)
			break;
	}
	return road_refuse_unavailable(r);
}
