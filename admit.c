/* admit.c: the second step of the road: who is asking, may it come in, and when may its request start?
 *
 *      whose request? ─► allow, deny ─► client_rate, limit.NAME ─► is there a target at all? ─► the line of the threshold
 *           │                403                 429                      500                         429, or wait
 *           └ admission.h
 *
 * A request that waits blocks in poll() on two things: an eventfd that the limiter writes to when its turn may have come, and its
 * client's socket, for a client that hangs up gives its place to those behind. So waiting costs no CPU, and nobody sleeps
 * past a turn.
 *
 * Invariant: a slot of the limiter is either used (limiter_started, noted after the bytes left) or given back. STEP_ON means
 * that one is in hand; anything else that none is.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "forward.h"
#include "lib/clock.h"
#include "road.h"

/* A start that Redis has given is used again a window and this much later: it covers the way from Redis to the target. */
/* A Redis that comes back empty is given this much more than a window before it is believed. */
#define SETTLING_US (2 * US_PER_S)
#define SHARED_GUARD_US (4 * US_PER_MS)

void proxy_wake(struct limiter_ticket *ticket)
{
	uint64_t one = 1;
	struct road *r = ticket->owner;
	/* An eventfd takes a write at once unless its count is at its limit, and then its reader is being woken already. */
	ssize_t written = write(r->wake_fd, &one, sizeof one);
	(void)written;
}

/* Writes the RateLimit fields for all limits that apply to this request. refused_after_us: when the threshold refused it, how
   long it should stay away; else 0. Returns the fields, which may be empty. */
struct http_text admit_ratelimit_fields(struct road *r, uint64_t refused_after_us)
{
	struct ratelimit limits[ADMISSION_LIMITS_MAX + 1];
	size_t count = r->admission.limit_count;
	int form = r->settings->ratelimit_headers;
	if (form == RATELIMIT_OFF || (count == 0 && r->settings->threshold.count == 0))
		return (struct http_text){ NULL, 0 };
	memcpy(limits, r->admission.limits, count * sizeof limits[0]);
	if (r->settings->threshold.count > 0) {
		uint64_t now_us = clock_us();
		struct limiter_report now;
		limiter_report(r->proxy->limiter, now_us, &now);
		uint64_t reset_us = now.next_slot_us > now_us && now.next_slot_us != UINT64_MAX ? now.next_slot_us - now_us : 0;
		limits[count++] = (struct ratelimit){ .name = "threshold",
			                              .quota = r->settings->threshold.count,
			                              .window_us = r->settings->threshold.window_us,
			                              .remaining = refused_after_us > 0 ? 0 : now.available,
			                              .reset_us = refused_after_us > 0 ? refused_after_us : reset_us };
	}
	size_t length = ratelimit_write(limits, count, form == RATELIMIT_BOTH || form == RATELIMIT_DRAFT,
	                                form == RATELIMIT_BOTH || form == RATELIMIT_LEGACY, r->fields);
	return (struct http_text){ r->fields, length };
}

/* A limit says no: which, and when to come back. */
enum step admit_refuse_over_limit(struct road *r, const char *limit, uint64_t after_us)
{
	snprintf(r->details, sizeof r->details, "over %s", limit);
	enum step step = road_refuse(r, (int)r->settings->reject_status, "http_request_denied", r->details);
	atomic_fetch_add_explicit(&r->proxy->refused_total, 1, memory_order_relaxed);
	bool by_threshold = r->admission.refused_by == NULL;
	struct http_text fields = admit_ratelimit_fields(r, by_threshold ? after_us : 0);
	r->answer.over_limit = true;
	r->answer.retry_after_s = (unsigned)((after_us + US_PER_S - 1) / US_PER_S);
	if (r->answer.retry_after_s == 0)
		r->answer.retry_after_s = 1;
	if (fields.length > 0)
		r->answer.fields = r->fields;
	return step;
}

static enum step refuse_over_threshold(struct road *r)
{
	return admit_refuse_over_limit(r, "threshold", limiter_retry_after_us(r->proxy->limiter, clock_us()));
}

/* A client that has finished sending has gone away, unless it sent more than this request: then it waits for answers. How much
   a body in chunks takes of what has come is not known before it is read. */
static bool client_has_sent_more(const struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	size_t unread_bytes = conn_unread(&r->exchange.client);
	return request->framing == HTTP_CHUNKED ? unread_bytes > 0 : unread_bytes > request->content_length;
}

bool admit_client_is_gone(void *context)
{
	return !client_has_sent_more(context);
}

/* Sleeps until wake_us or a wake-up. False when the client is gone, or was cut off. */
static bool sleep_in_line(struct road *r, uint64_t wake_us)
{
	/* The end of a client's sending is no news once it is known that there is more before it; its hang-up always is. */
	short end_of_sending = r->client_has_more ? 0 : POLLRDHUP;
	struct pollfd fds[2] = { { .fd = r->wake_fd, .events = POLLIN },
		                 { .fd = r->exchange.client.fd, .events = end_of_sending } };
	uint64_t left_us = clock_left_us(wake_us);
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	if (ppoll(fds, 2, wake_us == CLOCK_NEVER ? NULL : &left, NULL) < 0)
		return errno == EINTR;
	uint64_t count;
	if (fds[0].revents != 0 && read(r->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
		return false;
	if (fds[1].revents == 0)
		return true;
	r->client_has_more = (fds[1].revents & (POLLHUP | POLLERR)) == 0 && client_has_sent_more(r);
	return r->client_has_more;
}

/* Stands in line until the limiter says go. */
static enum step wait_in_line(struct road *r)
{
	struct limiter *limiter = r->proxy->limiter;
	for (;;) {
		uint64_t wake_us = CLOCK_NEVER;
		switch (limiter_turn(limiter, &r->ticket, clock_us(), &wake_us)) {
		case LIMITER_GO:
			r->has_slot = true;
			return STEP_ON;
		case LIMITER_FULL:
			return refuse_over_threshold(r);
		case LIMITER_WAIT:
			break;
		}
		if (!sleep_in_line(r, wake_us)) {
			limiter_cancel(limiter, &r->ticket, clock_us());
			return road_over(r, "client went away while it waited");
		}
	}
}

/* Asks for a slot, with something to be woken by should it be given a place in line instead. Whether there is a line is the
   limiter's to say: a reload may have made one since this request began. */
static enum limiter_answer enter_line(struct road *r, uint64_t now_us)
{
	struct limiter *limiter = r->proxy->limiter;
	r->ticket.owner = r;
	r->ticket.is_exempt = r->admission.is_exempt;
	enum limiter_answer answer = limiter_enter(limiter, &r->ticket, r->admission.client_number, now_us);
	if (answer != LIMITER_WAIT || r->wake_fd >= 0)
		return answer;
	limiter_cancel(limiter, &r->ticket, now_us);
	r->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return r->wake_fd < 0 ? LIMITER_WAIT : limiter_enter(limiter, &r->ticket, r->admission.client_number, now_us);
}

/* Takes a slot of this process's limiter; waits for one if need be. */
static enum step take_own_slot(struct road *r)
{
	uint64_t now_us = clock_us();
	enum step step = STEP_ON;
	switch (enter_line(r, now_us)) {
	case LIMITER_GO:
		r->has_slot = true;
		return STEP_ON;
	case LIMITER_FULL:
		return refuse_over_threshold(r);
	case LIMITER_WAIT:
		if (r->wake_fd < 0)
			return road_refuse(r, 503, "proxy_internal_error", "no descriptor to wait with");
		step = wait_in_line(r);
		break;
	}
	r->record.wait_us += clock_us() - now_us;
	road_trace(r, "wait     %.6f s in line, behind the threshold", (double)(clock_us() - now_us) / 1e6);
	return step;
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
		return admit_refuse_over_limit(r, "threshold", wait_us);
	if (r->wake_fd < 0)
		r->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (r->wake_fd < 0)
		return road_refuse(r, 503, "proxy_internal_error", "no descriptor to wait with");
	while (clock_us() < wake_us)
		if (!sleep_in_line(r, wake_us))
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
	if (r->has_slot)
		return STEP_ON;
	enum step step = take_own_slot(r);
	bool is_shared = r->settings->redis_addr != NULL && r->settings->threshold.count > 0;
	if (step != STEP_ON || !is_shared)
		return step;
	step = take_shared_start(r);
	if (step != STEP_ON)
		admit_give_slot_back(r);
	return step;
}

void admit_use_slot(struct road *r)
{
	if (r->has_slot)
		limiter_started(r->proxy->limiter, &r->ticket, clock_us());
	if (r->has_shared_start)
		redis_store_started(r->proxy->store, &r->shared_start);
	r->has_slot = r->has_shared_start = false;
}

void admit_give_slot_back(struct road *r)
{
	if (r->has_slot)
		limiter_cancel(r->proxy->limiter, &r->ticket, clock_us());
	if (r->has_shared_start)
		redis_store_cancel(r->proxy->store, &r->shared_start);
	r->has_slot = r->has_shared_start = false;
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
	if (length < 0 || length >= 400)
		return road_refuse(r, 405, "http_request_denied", "TRACE of a long target is not answered");
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
	enum step step = check_client(r);
	if (step == STEP_ON)
		step = check_request(r);
	if (step != STEP_ON || r->settings->mode == MODE_FORWARD) /* there a turn is taken after the place at the host */
		return step;
	return admit_take_slot(r);
}
