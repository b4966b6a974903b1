/* admit.c: the second step of the road: who is asking, may it come in, and when may its request start?
 *
 *      whose request? ─► allow, deny ─► client_rate, limit.NAME ─► is there a target at all? ─► the line of the threshold
 *           │                403                 429                      500                         429, or wait
 *           └ admission.h
 *
 * A forward proxy asks for more, and in this order: the line of the host's rate ─► a place under the host's cap (forward.c) ─► the
 * line of the threshold. Who waits for what many want holds as little as may be of what many want; and as all take them in one
 * order, no two wait for each other.
 *
 * How a thread waits is in line.c.
 *
 * Invariant: a slot of a limiter is either used (noted after the bytes left) or given back. admit_use_slot() and
 * admit_give_slot_back() settle all that are in hand. STEP_ON means that one is; anything else that none of that limiter is.
 */
#include <stdio.h>
#include <string.h>

#include "forward.h"
#include "lib/clock.h"
#include "lib/writer.h"
#include "road.h"
#include "stats.h"

/* A Redis that comes back empty is given this much more than a window before it is believed. */
#define SETTLING_US (2 * US_PER_S)
/* A start that Redis has given is used again a window and this much later: it covers the way from Redis to the target. */
#define SHARED_GUARD_US (4 * US_PER_MS)
/* The names by which the two limits with a line are known to clients. */
#define THRESHOLD "threshold"
#define HOST_RATE "host_rate"

/* What a limiter has left, as a row of the RateLimit fields. refused_after_us: how long who was refused should stay away; 0: it was
   not. */
static struct ratelimit describe_limiter(struct limiter *limiter, const char *name, struct settings_rate rate,
                                         uint64_t refused_after_us)
{
	uint64_t now_us = clock_us();
	struct limiter_report now;
	limiter_report(limiter, now_us, &now);
	uint64_t reset_us = now.next_slot_us > now_us && now.next_slot_us != UINT64_MAX ? now.next_slot_us - now_us : 0;
	return (struct ratelimit){ .name = name,
		                   .quota = rate.count,
		                   .window_us = rate.window_us,
		                   .remaining = refused_after_us > 0 ? 0 : now.available,
		                   .reset_us = refused_after_us > 0 ? refused_after_us : reset_us };
}

struct http_text admit_ratelimit_fields(struct road *r, const char *refused_by, uint64_t refused_after_us)
{
	struct ratelimit limits[ADMISSION_LIMITS_MAX + 2];
	size_t count = r->admission.limit_count;
	int form = r->settings->ratelimit_headers;
	bool by_threshold = refused_by != NULL && strcmp(refused_by, THRESHOLD) == 0;
	bool by_host = refused_by != NULL && strcmp(refused_by, HOST_RATE) == 0;
	if (form == RATELIMIT_OFF)
		return (struct http_text){ NULL, 0 };
	memcpy(limits, r->admission.limits, count * sizeof limits[0]);
	if (r->settings->threshold.count > 0)
		limits[count++] = describe_limiter(r->proxy->limiter, THRESHOLD, r->settings->threshold,
		                                   by_threshold ? refused_after_us : 0);
	if (r->rate.entry != NULL && r->rate.rate.count > 0)
		limits[count++] = describe_limiter(r->rate.limiter, HOST_RATE, r->rate.rate, by_host ? refused_after_us : 0);
	if (count == 0)
		return (struct http_text){ NULL, 0 };
	size_t length = ratelimit_write(limits, count, form == RATELIMIT_BOTH || form == RATELIMIT_DRAFT,
	                                form == RATELIMIT_BOTH || form == RATELIMIT_LEGACY, r->fields);
	return (struct http_text){ r->fields, length };
}

/* A limit says no: which, and when to come back. */
enum step admit_refuse_over_limit(struct road *r, const char *limit, uint64_t after_us)
{
	struct writer details = { .out = r->details, .capacity = sizeof r->details - 1 };
	writer_put_literal(&details, "over ");
	writer_put_some(&details, limit, sizeof r->details / 2);
	r->details[details.length] = '\0';
	r->refused_by = limit;
	meters_count_refusal(r->proxy->meters, limit);
	enum step step = road_refuse(r, (int)r->settings->reject_status, "http_request_denied", r->details);
	atomic_fetch_add_explicit(&r->proxy->refused_total, 1, memory_order_relaxed);
	struct http_text fields = admit_ratelimit_fields(r, limit, after_us);
	r->answer.over_limit = true;
	r->answer.retry_after_s = (unsigned)((after_us + US_PER_S - 1) / US_PER_S);
	if (r->answer.retry_after_s == 0)
		r->answer.retry_after_s = 1;
	if (fields.length > 0)
		r->answer.fields = r->fields;
	return step;
}

/* A client that has finished sending has gone away, unless it sent more than this request: then it waits for answers. How much
   a body in chunks takes of what has come is not known before it is read. */
static bool client_has_sent_more(struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	/* A drain ends the input of connections that look idle: of one whose request had just come, too (crew_drain). */
	if (worker_is_draining(r->worker))
		return true;
	/* A try before this one may have taken the body, and another is to have it again: looking must not run over it. */
	if (r->exchange.client_is_untouched)
		r->exchange.client.start = r->exchange.client.kept;
	size_t unread_bytes = conn_unread(&r->exchange.client);
	return request->framing == HTTP_CHUNKED ? unread_bytes > 0 : unread_bytes > request->content_length;
}

bool admit_client_is_gone(void *context)
{
	return !client_has_sent_more(context);
}

bool admit_client_has_more(void *context)
{
	return client_has_sent_more(context);
}

/* What the answer of a line means for the request that stood there. limit: the name of the line. */
static enum step step_of(struct road *r, enum line_answer answer, const struct line_turn *turn, const char *limit)
{
	switch (answer) {
	case LINE_FULL:
		return admit_refuse_over_limit(r, limit, limiter_retry_after_us(turn->limiter, clock_us()));
	case LINE_CLIENT_GONE:
		return road_over(r, "client went away while it waited");
	case LINE_NO_DESCRIPTOR:
		return road_refuse(r, 503, "proxy_internal_error", "no descriptor to wait with");
	case LINE_GO:
		break;
	}
	if (turn->waited) {
		r->record.wait_us += turn->waited_us;
		road_trace(r, "wait     %.6f s in line, behind the %s", (double)turn->waited_us / 1e6, limit);
	}
	return STEP_ON;
}

/* Takes a slot of one limiter; waits for one if need be. */
static enum step take_turn(struct road *r, struct line_turn *turn, const char *limit)
{
	r->sleeper.client_fd = r->exchange.client.fd;
	return step_of(r, line_take(turn, &r->sleeper, r->admission.client_number, r->admission.is_exempt), turn, limit);
}

enum step admit_renew_slot(struct road *r)
{
	r->sleeper.client_fd = r->exchange.client.fd;
	return step_of(r, line_renew(&r->turn, &r->sleeper), &r->turn, THRESHOLD);
}

/* The host's limiter is held from the first try to the end of the request: the answer tells the client what is left under it. */
static enum step find_host_rate(struct road *r)
{
	enum step step = STEP_ON;
	if (r->rate.entry != NULL)
		return STEP_ON;
	switch (host_rates_take(r->proxy->host_rates, r->host_name, clock_us(), &r->rate)) {
	case HOST_RATES_HELD:
		r->host_turn.limiter = r->rate.limiter;
		break;
	case HOST_RATES_NONE:
		break;
	case HOST_RATES_FULL:
		step = road_refuse(r, 503, "proxy_internal_error", "too many hosts to keep the rate of: try again later");
		r->answer.retry_after_s = 1;
		break;
	case HOST_RATES_NO_MEMORY:
		step = road_refuse(r, 503, "proxy_internal_error", "no memory to keep the rate of this host");
		break;
	}
	return step;
}

enum step admit_take_host_turn(struct road *r, bool may_wait)
{
	enum step step = find_host_rate(r);
	if (step != STEP_ON || r->rate.entry == NULL)
		return step;
	if (may_wait)
		return take_turn(r, &r->host_turn, HOST_RATE);
	line_try(&r->host_turn, r->admission.client_number, r->admission.is_exempt);
	return STEP_ON;
}

void admit_forget_host(struct road *r)
{
	if (r->rate.entry != NULL)
		host_rates_release(r->proxy->host_rates, &r->rate);
	r->host_turn.limiter = NULL;
}

/* Redis can't be asked. What then, the settings say; "local" has made our own limiter narrower (service.c). */
static enum step without_redis(struct road *r)
{
	if (r->settings->redis_fail != REDIS_FAIL_CLOSED)
		return STEP_ON;
	enum step step = road_refuse(r, 503, "proxy_internal_error", "the shared threshold can't be asked: Redis is down");
	r->answer.retry_after_s = 1;
	return step;
}

/* Sleeps for some of what is left of the backlog. */
static enum step sleep_for_share(struct road *r, uint64_t wait_us, uint64_t until_us)
{
	uint64_t wake_us = clock_us() + wait_us;
	if (wake_us > until_us)
		return admit_refuse_over_limit(r, THRESHOLD, wait_us);
	r->sleeper.client_fd = r->exchange.client.fd;
	if (!line_can_sleep(&r->sleeper))
		return road_refuse(r, 503, "proxy_internal_error", "no descriptor to wait with");
	while (clock_us() < wake_us)
		if (!line_sleep(&r->sleeper, wake_us))
			return road_over(r, "client went away while it waited");
	return STEP_ON;
}

/* Takes one of the starts that the whole fleet shares. Who asks holds a slot of this process already: the line is kept there. */
static enum step take_shared_start(struct road *r)
{
	struct settings_rate rate = r->settings->threshold;
	uint64_t begun_us = clock_us(), until_us = begun_us + r->settings->backlog_us;
	enum step step = STEP_ON;
	while (step == STEP_ON) {
		uint64_t wait_us = 0;
		switch (redis_store_start(r->proxy->store, proxy_name(r->proxy), rate.count, rate.window_us, SHARED_GUARD_US,
		                          &r->shared_start, &wait_us)) {
		case REDIS_STORE_GRANTED:
			r->has_shared_start = true;
			r->record.wait_us += clock_us() - begun_us;
			return STEP_ON;
		case REDIS_STORE_FULL:
			step = sleep_for_share(r, wait_us, until_us);
			break;
		case REDIS_STORE_SETTLING: /* it knows nothing of the last window: nobody starts in this one, with a backlog or without */
			step = sleep_for_share(r, wait_us, begun_us + rate.window_us + SETTLING_US);
			break;
		default:
			return without_redis(r);
		}
	}
	return step;
}

enum step admit_take_slot(struct road *r)
{
	if (r->turn.has_slot)
		return STEP_ON;
	r->turn.limiter = r->proxy->limiter;
	r->turn.group = r->proxy->group;
	enum step step = take_turn(r, &r->turn, THRESHOLD);
	/* In a group the master has the threshold, and Redis only the caps. */
	bool is_shared = r->settings->redis_addr != NULL && r->settings->threshold.count > 0 && !group_gives_slots(r->settings);
	if (step != STEP_ON || !is_shared)
		return step;
	step = take_shared_start(r);
	if (step != STEP_ON)
		line_give_back(&r->turn);
	return step;
}

void admit_use_slot(struct road *r, uint64_t now_us)
{
	line_use(&r->host_turn, now_us);
	line_use(&r->turn, now_us);
	if (r->has_shared_start)
		redis_store_started(r->proxy->store, &r->shared_start);
	r->has_shared_start = false;
}

void admit_give_slot_back(struct road *r)
{
	line_give_back(&r->host_turn);
	line_give_back(&r->turn);
	if (r->has_shared_start)
		redis_store_cancel(r->proxy->store, &r->shared_start);
	r->has_shared_start = false;
}

/* OPTIONS and TRACE can ask for the answer of the n-th hop (RFC 9110 §7.6.2). */
static enum step answer_as_last_hop(struct road *r)
{
	struct http_head *request = &r->exchange.request;
	enum step step = road_refuse(r, 200, NULL, "Max-Forwards is 0");
	r->answer.body = "";
	if (request->method == HTTP_OPTIONS) {
		r->answer.fields = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";
		return step;
	}
	int length = snprintf(r->body, sizeof r->body, "TRACE %.*s HTTP/1.%u\r\nHost: %.*s\r\nMax-Forwards: 0\r\n\r\n",
	                      (int)request->target.length, request->target.at, request->minor_version,
	                      (int)request->host.length, request->host.at);
	if (length < 0 || length >= 400) {
		step = road_refuse(r, 405, "http_request_denied", "TRACE of a long target is not answered");
		r->answer.fields = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n";
		return step;
	}
	r->answer.body = r->body;
	r->answer.content_type = "message/http";
	return step;
}

static bool is_last_hop(const struct http_head *request)
{
	const struct http_field *field = http_find(request, HTTP_NAME_MAX_FORWARDS);
	uint64_t left;
	return (request->method == HTTP_OPTIONS || request->method == HTTP_TRACE) && field != NULL &&
	       http_parse_number(field->value, &left) && left == 0;
}

/* A rule in shadow mode would have refused this request: the log says so, at most once a second. */
static void note_shadow(struct road *r)
{
	struct proxy *proxy = r->proxy;
	uint64_t now_us = clock_us();
	unsigned long long total = atomic_fetch_add(&proxy->shadowed_total, 1) + 1;
	unsigned long long last_us = atomic_load(&proxy->shadow_logged_us);
	r->record.shadow = r->admission.shadowed_by;
	if (last_us != 0 && now_us - last_us < US_PER_S)
		return;
	if (atomic_compare_exchange_strong(&proxy->shadow_logged_us, &last_us, now_us))
		log_write(proxy->log, LOG_LEVEL_INFO, proxy_name(proxy),
		          "limit.%s (mode=shadow) would have refused %s; %llu requests would have been refused so far",
		          r->admission.shadowed_by, r->record.client, total);
}

/* Whose request is it, may it come in, and is its client within its own limits? */
static enum step check_client(struct road *r)
{
	enum admission_verdict verdict = admission_check(r->proxy->client_limits, r->settings, &r->peer, &r->exchange.request,
	                                                 clock_us(), &r->admission);
	r->record.client = r->admission.client_text;
	if (r->admission.shadowed_by != NULL)
		note_shadow(r);
	if (verdict == ADMISSION_OVER_LIMIT)
		return admit_refuse_over_limit(r, r->admission.refused_by, r->admission.retry_after_us);
	if (verdict == ADMISSION_PASS)
		return STEP_ON;
	r->exchange.request.keep_alive = false;
	return road_refuse(r, 403, "http_request_denied", "this client may not come in");
}

/* What is asked of a reverse proxy's requests alone. */
static enum step check_reverse(struct road *r)
{
	struct http_head *request = &r->exchange.request;
	if (request->method == HTTP_CONNECT) {
		enum step step = road_refuse(r, 405, "http_request_denied", "CONNECT is for forward proxies");
		r->answer.fields = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";
		request->keep_alive = false;
		return step;
	}
	if (!balancer_any_in(r->proxy->balancer)) /* nobody should wait for nothing */
		return road_refuse_unavailable(r);
	return STEP_ON;
}

/* May this request go on at all? */
static enum step check_request(struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	if (rewrite_is_loop(request, r->proxy->via))
		return road_refuse(r, 508, "proxy_loop_detected", "this request has been here before");
	if (is_last_hop(request))
		return answer_as_last_hop(r);
	if (r->settings->max_body_bytes > 0 && request->framing == HTTP_BY_LENGTH &&
	    request->content_length > r->settings->max_body_bytes)
		return road_refuse(r, 413, "http_request_error", "the body is longer than max_body");
	return r->settings->mode == MODE_FORWARD ? forward_check(r) : check_reverse(r);
}

enum step admit(struct road *r)
{
	if (stats_is_asked(r))
		return stats_answer(r);
	enum step step = check_client(r);
	if (step == STEP_ON)
		step = check_request(r);
	if (step != STEP_ON || r->settings->mode == MODE_FORWARD) /* there a turn is taken after the place at the host */
		return step;
	return admit_take_slot(r);
}
