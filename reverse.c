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
#include <string.h>

#include "attempt.h"
#include "lib/clock.h"
#include "lib/proxy_header.h"

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

/* The target did not do what it should: it leaves the rotation. */
static void blame_target(struct road *r, const char *why)
{
	road_trace(r, "failed   %s: %s", r->target_text, why);
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

/* A connection to the target: an idle one, or a fresh one. With send_proxy always a fresh one, which begins with whose it is: a
   connection that was named as one client's must not carry another's request. */
static enum conn_result connect_to(struct road *r, struct upstream *upstream, bool fresh, bool *reused,
                                   char why[UPSTREAM_WHY_MAX])
{
	struct cut *cut = worker_cut(r->worker);
	char header[PROXY_HEADER_WRITE_MAX];
	struct address destination = r->destination;
	struct upstream_wish wish = { .idle_max_us = fresh ? 0 : attempt_idle_max_us(r),
		                      .connect_timeout_us = r->settings->connect_timeout_us,
		                      .tls = r->settings->tls_client };
	if (r->settings->send_proxy == SEND_PROXY_OFF)
		return upstream_lease(upstream, &r->exchange.upstream, cut, &wish, reused, why);
	if (destination.length == 0) {
		destination.length = sizeof destination.storage;
		if (getsockname(r->exchange.client.fd, &destination.any, &destination.length) != 0)
			destination = r->admission.client;
		address_unmap(&destination);
	}
	wish.preface = header;
	wish.preface_bytes = proxy_header_write((unsigned)r->settings->send_proxy, &r->admission.client, &destination, header);
	return upstream_lease(upstream, &r->exchange.upstream, cut, &wish, reused, why);
}

/* One try: a connection, the request, the head of the answer. */
static enum attempt try_target(struct road *r, bool fresh)
{
	struct upstream *upstream = r->pick.item;
	struct conn *conn = &r->exchange.upstream;
	bool reused;
	r->exchange.sent_bytes = 0;
	r->last_result = EXCHANGE_TARGET_FAILED;
	r->record.tries++;
	char why[UPSTREAM_WHY_MAX];
	if (connect_to(r, upstream, fresh, &reused, why) != CONN_OK) {
		int error = errno;
		if (attempt_is_our_own_lack(error)) /* to blame this target, and then the next, would only empty the rotation */
			return attempt_refuse_for_lack(r);
		if (cut_has_happened(worker_cut(r->worker))) /* our own doing, and no target's */
			return attempt_of(road_over(r, "cut when drain_timeout was over"));
		blame_target(r, why);
		return ATTEMPT_NEXT;
	}
	road_trace(r, reused ? "reuse    an idle connection to %s" : "connect  to %s", r->target_text);
	if (conn->tls != NULL && !reused)
		road_trace(r, "tls      %s%s", tls_version(conn->tls), tls_was_resumed(conn->tls) ? ", resumed" : "");
	const char *blame;
	enum attempt attempt = attempt_send(r, upstream_host(upstream), reused, &blame);
	if (blame != NULL)
		blame_target(r, blame);
	if (attempt != ATTEMPT_ANSWERED)
		upstream_discard(conn, worker_cut(r->worker));
	return attempt;
}

/* One target: again, when its connection was closed before the request. Each try that starts needs a slot of its own. */
static enum attempt ask_target(struct road *r)
{
	enum attempt attempt = ATTEMPT_FRESH;
	for (unsigned fresh = 0; attempt == ATTEMPT_FRESH && fresh <= ATTEMPT_FRESH_MAX; fresh++) {
		enum step step = admit_take_slot(r);
		if (step != STEP_ON)
			return attempt_of(step);
		attempt = try_target(r, fresh > 0);
	}
	return attempt == ATTEMPT_FRESH ? ATTEMPT_NEXT : attempt;
}

static enum step refuse_after_last_try(struct road *r)
{
	if (!balancer_any_in(r->proxy->balancer))
		return road_refuse_unavailable(r);
	if (r->last_result == EXCHANGE_TARGET_SILENT)
		return road_refuse(r, 504, "http_response_timeout", "the target was silent, and retries are used up");
	return road_refuse(r, 502, "connection_terminated", "the target did not answer, and retries are used up");
}

/* What the log and the traces call it: copied, for the target may be gone from the settings before they are written. */
static void note_target(struct road *r)
{
	const char *address = upstream_address(r->pick.item);
	size_t length = strnlen(address, sizeof r->target_text - 1);
	memcpy(r->target_text, address, length);
	r->target_text[length] = '\0';
	r->record.target = r->target_text;
	road_trace(r, "pick     target %s", r->target_text);
}

/* Picks targets until one answers. */
enum step reverse_find_target(struct road *r)
{
	struct balancer *balancer = r->proxy->balancer;
	uint64_t key = key_of(r);
	memset(&r->tried, 0, sizeof r->tried);
	for (unsigned tries = 0;; tries++) {
		if (!balancer_pick(balancer, key, &r->tried, &r->pick))
			break;
		r->has_pick = true;
		note_target(r);
		uint64_t before_us = r->record.upstream_us;
		switch (ask_target(r)) {
		case ATTEMPT_ANSWERED:
			upstream_answered(r->pick.item, r->record.upstream_us - before_us);
			balancer_succeeded(balancer, &r->pick);
			return STEP_ON;
		case ATTEMPT_REFUSED:
			return STEP_REFUSED;
		case ATTEMPT_OVER:
			return STEP_OVER;
		default:
			reverse_give_pick_back(r);
		}
		if (tries == r->settings->retries) /* others might have answered, and were not to be asked */
			return refuse_after_last_try(r);
	}
	return road_refuse_unavailable(r);
}
