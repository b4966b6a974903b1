/* proxy.c: the road: what a thread does with a connection, and with each request on it.
 *
 *      accept ─► read head ─► admit ─────► pick ─► send ─► relay ─► account ─┐
 *                   ▲           │ wait its  ▲        │ failed?               │
 *                   │           │ turn      └────────┘ the next target       │
 *                   └───────────┴──────────── the next request ◄─────────────┘
 *
 * One thread walks it from end to end, for one request at a time, with blocking calls that each have a deadline. Every step
 * says how it went (enum step). What can't go on leaves by one door, refuse(), with an answer that names the cause; and
 * every request, answered or not, ends in account().
 *
 * Invariants. A slot of the limiter is either used (limiter_started, noted after the bytes left) or given back. A pick of the
 * balancer is given back once. A request whose bytes reached a target is sent again only if its method is idempotent and
 * nothing of a body had left (RFC 9110 §9.2.2). After an error no more is read from that connection: what follows could be
 * the tail of what was not understood (RFC 9112 §11).
 */
#include "proxy.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/admission.h"
#include "lib/answer.h"
#include "lib/clock.h"
#include "lib/exchange.h"
#include "lib/tunnel.h"
#include "service.h"

/* Room for the fields we add to a head. */
#define HEAD_ROOM (4u * 1024u)
/* After an answer that ends a connection while the client still sends: how long it is listened to, in all and in silence,
   so that it can read the answer. */
#define LINGER_US (30 * US_PER_S)
#define LINGER_SILENCE_US (2 * US_PER_S)
/* A request that could not be repeated takes an idle connection only if it was in use this recently: a target that closes
   idle connections after some seconds is then unlikely to be closing just this one just now. */
#define UNREPEATABLE_IDLE_US US_PER_S

/* How a step ended. */
enum step {
	STEP_ON,      /* the next step, please */
	STEP_REFUSED, /* road->answer says what the client is told */
	STEP_OVER,    /* nothing can be said any more: the client is gone, or has half an answer */
};

enum ending { END_KEEP, END_CLOSE, END_LINGER, END_RESET };

/* What one thread keeps. */
struct road {
	struct proxy *proxy;
	struct worker *worker;
	struct settings *settings; /* held */
	unsigned settings_generation;
	struct exchange exchange;
	size_t max_header_bytes; /* what the buffers were made for */
	char *buffers;
	int wake_fd; /* made at the first wait: a request in line is woken by it */

	/* this connection */
	struct address peer;
	char peer_text[ADDRESS_TEXT_MAX];
	bool is_first_request;
	uint64_t counted_client; /* for client_connections */

	/* this request */
	struct admission admission; /* who is asking: see client_text in there */
	struct limiter_ticket ticket;
	bool has_slot;
	bool client_has_more; /* it sent more than this request, and may have finished sending */
	bool has_pick;
	struct balancer_pick pick;
	struct balancer_tried tried;
	struct answer answer;
	bool has_request; /* a head could be read */
	enum ending ending;
	struct log_access record;
	char target_text[ADDRESS_TEXT_MAX + 256];
	char body[1024];             /* of an answer of ours */
	char details[128];           /* why, when that is no fixed phrase */
	char fields[RATELIMIT_MAX];
	uint64_t begun_us, upstream_begun_us;
};

/* ---- the door ------------------------------------------------------------------------------------------------------- */

/* The one way out for what can't go on. details is a static phrase. */
static enum step refuse(struct road *r, int status, const char *cause, const char *details)
{
	r->answer = (struct answer){ .status = status, .cause = cause, .details = details };
	r->record.outcome = details;
	return STEP_REFUSED;
}

static enum step refuse_unavailable(struct road *r)
{
	enum step step = refuse(r, (int)r->settings->unavailable_status, "destination_unavailable", "All servers is off");
	r->answer.body = "All servers is off";
	return step;
}

static enum step over(struct road *r, const char *outcome)
{
	r->record.outcome = outcome;
	return STEP_OVER;
}

/* Is the whole request read, or can it be? A body that came with its head is passed over. */
static bool request_is_read(struct road *r)
{
	struct exchange *x = &r->exchange;
	struct conn *client = &x->client;
	if (!r->has_request || x->request.framing == HTTP_CHUNKED)
		return false;
	if (x->request.framing == HTTP_NO_BODY)
		return true;
	if (!x->client_is_untouched || client->end - client->kept < x->request.content_length)
		return false;
	client->start = client->kept + (size_t)x->request.content_length;
	return true;
}

/* Sends the answer that a step has left. The connection goes on only if the whole request has been read and understood. */
static void send_answer(struct road *r)
{
	struct exchange *x = &r->exchange;
	char bytes[ANSWER_MAX];
	size_t body_bytes;
	bool goes_on = request_is_read(r) && x->request.keep_alive && r->answer.status != 400 &&
	               !worker_is_draining(r->worker);
	r->answer.keep_alive = goes_on;
	r->answer.says_keep_alive = goes_on && x->request.minor_version == 0;
	r->answer.head_only = r->has_request && x->request.method == HTTP_HEAD;
	size_t length = answer_write(&r->answer, bytes, &body_bytes);
	struct iovec part = { .iov_base = bytes, .iov_len = length };
	atomic_fetch_add_explicit(&r->proxy->answered_total, 1, memory_order_relaxed);
	r->record.status = r->answer.status;
	r->record.bytes_out = body_bytes;
	r->ending = goes_on ? END_KEEP : END_LINGER;
	if (conn_send(&x->client, &part, 1, clock_us() + r->settings->idle_timeout_us, NULL) != CONN_OK)
		r->ending = END_CLOSE;
}

/* ---- read head ------------------------------------------------------------------------------------------------------ */

/* Waits for the first byte of a request. Between requests a drain may close the connection. */
static enum step wait_for_request(struct road *r)
{
	struct exchange *x = &r->exchange;
	if (conn_available(&x->client) > 0)
		return STEP_ON;
	uint64_t patience_us = r->is_first_request ? r->settings->header_timeout_us : r->settings->idle_timeout_us;
	if (!worker_rest(r->worker)) {
		worker_resume(r->worker);
		return conn_try_fill(&x->client) == CONN_OK ? STEP_ON : STEP_OVER; /* what has come already is served */
	}
	enum conn_result result = conn_fill(&x->client, clock_us() + patience_us);
	worker_resume(r->worker);
	return result == CONN_OK ? STEP_ON : STEP_OVER;
}

static enum step read_head(struct road *r)
{
	struct exchange *x = &r->exchange;
	struct http_scan scan = { .seen = 0 };
	size_t length = 0;
	enum http_scan_result found;
	uint64_t deadline_us = r->begun_us + r->settings->header_timeout_us;
	while ((found = http_scan(&scan, conn_bytes(&x->client), conn_available(&x->client), &length)) == HTTP_SCAN_MORE) {
		if (conn_available(&x->client) > r->max_header_bytes)
			return refuse(r, 431, "http_request_error", "the head is longer than max_header");
		enum conn_result result = conn_fill(&x->client, deadline_us);
		if (result == CONN_TIMEOUT)
			return refuse(r, 408, "http_request_error", "the head did not come within header_timeout");
		if (result != CONN_OK)
			return over(r, "client went away in the middle of a head");
	}
	if (found == HTTP_SCAN_BAD)
		return refuse(r, 400, "http_request_error", "not an HTTP/1.1 request");
	if (length > r->max_header_bytes)
		return refuse(r, 431, "http_request_error", "the head is longer than max_header");
	conn_use(&x->client, scan.skipped);
	conn_make_room(&x->client, length);
	struct http_fault fault = http_parse_request(conn_bytes(&x->client), length, &x->request);
	r->record.method = x->request.method_text;
	r->record.uri = x->request.target;
	r->record.minor_version = x->request.minor_version;
	if (fault.status != 0)
		return refuse(r, fault.status, "http_request_error", fault.why);
	conn_keep(&x->client, length);
	r->has_request = true;
	exchange_begin(x);
	return STEP_ON;
}

/* ---- admit ---------------------------------------------------------------------------------------------------------- */

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
static struct http_text ratelimit_fields(struct road *r, uint64_t refused_after_us)
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
static enum step refuse_over_limit(struct road *r, const char *limit, uint64_t after_us)
{
	snprintf(r->details, sizeof r->details, "over %s", limit);
	enum step step = refuse(r, (int)r->settings->reject_status, "http_request_denied", r->details);
	bool by_threshold = r->admission.refused_by == NULL;
	struct http_text fields = ratelimit_fields(r, by_threshold ? after_us : 0);
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
	return refuse_over_limit(r, "threshold", limiter_retry_after_us(r->proxy->limiter, clock_us()));
}

/* A client that has finished sending has gone away, unless it sent more than this request: then it waits for answers. How much
   a body in chunks takes of what has come is not known before it is read. */
static bool client_has_sent_more(const struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	size_t unread_bytes = conn_unread(&r->exchange.client);
	return request->framing == HTTP_CHUNKED ? unread_bytes > 0 : unread_bytes > request->content_length;
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
			return over(r, "client went away while it waited");
		}
	}
}

/* Asks for a slot, with something to be woken by should it be given a place in line instead. Whether there is a line is the
   limiter's to say: a reload may have made one since this request began. */
static enum limiter_answer enter_line(struct road *r, uint64_t now_us)
{
	struct limiter *limiter = r->proxy->limiter;
	r->ticket.owner = r;
	enum limiter_answer answer = limiter_enter(limiter, &r->ticket, r->admission.client_number, now_us);
	if (answer != LIMITER_WAIT || r->wake_fd >= 0)
		return answer;
	limiter_cancel(limiter, &r->ticket, now_us);
	r->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return r->wake_fd < 0 ? LIMITER_WAIT : limiter_enter(limiter, &r->ticket, r->admission.client_number, now_us);
}

/* Takes a slot of the limiter; waits for one if need be. */
static enum step take_slot(struct road *r)
{
	if (r->has_slot)
		return STEP_ON;
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
			return refuse(r, 503, "proxy_internal_error", "no descriptor to wait with");
		step = wait_in_line(r);
		break;
	}
	r->record.wait_us += clock_us() - now_us;
	return step;
}

/* OPTIONS and TRACE can ask for the answer of the n-th hop (RFC 9110 §7.6.2). */
static enum step answer_as_last_hop(struct road *r)
{
	struct http_head *request = &r->exchange.request;
	enum step step = refuse(r, 200, NULL, "Max-Forwards is 0");
	r->answer.body = "";
	if (request->method == HTTP_OPTIONS) {
		r->answer.fields = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";
		return step;
	}
	int length = snprintf(r->body, sizeof r->body, "TRACE %.*s HTTP/1.%u\r\nHost: %.*s\r\nMax-Forwards: 0\r\n\r\n",
	                      (int)request->target.length, request->target.at, request->minor_version,
	                      (int)request->host.length, request->host.at);
	if (length < 0 || length >= 400)
		return refuse(r, 405, "http_request_denied", "TRACE of a long target is not answered");
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
		return refuse_over_limit(r, r->admission.refused_by, r->admission.retry_after_us);
	if (verdict == ADMISSION_PASS)
		return STEP_ON;
	r->exchange.request.keep_alive = false;
	return refuse(r, 403, "http_request_denied", "this client may not come in");
}

/* May this request go on at all? And when? */
static enum step admit(struct road *r)
{
	enum step admitted = check_client(r);
	if (admitted != STEP_ON)
		return admitted;
	struct http_head *request = &r->exchange.request;
	if (request->method == HTTP_CONNECT) {
		enum step step = refuse(r, 405, "http_request_denied", "CONNECT is for forward proxies");
		r->answer.fields = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE\r\n";
		request->keep_alive = false;
		return step;
	}
	if (rewrite_is_loop(request, r->proxy->via))
		return refuse(r, 508, "proxy_loop_detected", "this request has been here before");
	if (is_last_hop(request))
		return answer_as_last_hop(r);
	if (r->settings->max_body_bytes > 0 && request->framing == HTTP_BY_LENGTH &&
	    request->content_length > r->settings->max_body_bytes)
		return refuse(r, 413, "http_request_error", "the body is longer than max_body");
	if (!balancer_any_in(r->proxy->balancer)) /* nobody should wait for nothing */
		return refuse_unavailable(r);
	return take_slot(r);
}

/* ---- pick and send -------------------------------------------------------------------------------------------------- */

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

static void give_pick_back(struct road *r)
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
		return refused(over(r, "client went away before the answer"));
	case EXCHANGE_CLIENT_SILENT:
		return refused(refuse(r, 408, "http_request_error", "the body stopped coming"));
	case EXCHANGE_CLIENT_BAD:
		return refused(refuse(r, 400, "http_request_error", x->why));
	case EXCHANGE_CLIENT_TOO_LONG:
		return refused(refuse(r, 413, "http_request_error", "the body is longer than max_body"));
	case EXCHANGE_TARGET_BAD:
		return refused(refuse(r, 502, "http_protocol_error", x->why));
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
		return refused(refuse(r, 504, "http_response_timeout", "the target was silent for response_timeout"));
	return refused(refuse(r, 502, "connection_terminated", "the target closed the connection without an answer"));
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
			return refused(refuse(r, 503, "proxy_internal_error", "no descriptor or memory for a connection"));
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
		enum step step = take_slot(r);
		if (step != STEP_ON)
			return refused(step);
		attempt = try_target(r, fresh);
	}
	return attempt;
}

/* Picks targets until one answers. */
static enum step find_target(struct road *r)
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
			give_pick_back(r);
		}
		if (tries == UINT32_MAX)
			break;
	}
	return refuse_unavailable(r);
}

/* ---- relay ---------------------------------------------------------------------------------------------------------- */

/* The target has agreed to another protocol: from here on it is bytes, both ways. */
static enum step run_tunnel(struct road *r)
{
	struct exchange *x = &r->exchange;
	struct tunnel_counts counts = { .up_bytes = 0 };
	char head[8192];
	struct rewrite_response how = { .via = r->settings->forwarded == FORWARDED_OFF ? NULL : r->proxy->via,
		                        .client_is_1_1 = true, .keep_alive = true, .framing = HTTP_NO_BODY, .upgrades = true };
	size_t length = rewrite_response(&x->response, &how, head, sizeof head);
	struct iovec part = { .iov_base = head, .iov_len = length };
	if (length == 0 || !exchange_request_is_done(x))
		return refuse(r, 502, "http_protocol_error", "the target's answer to an upgrade can't be passed on");
	r->record.status = 101;
	r->ending = END_CLOSE;
	if (conn_send(&x->client, &part, 1, clock_us() + r->settings->idle_timeout_us, NULL) != CONN_OK)
		return over(r, "client went away");
	enum conn_result result = tunnel_run(&x->client, &x->upstream, r->settings->tunnel_timeout_us, &counts);
	r->record.bytes_in = counts.up_bytes;
	r->record.bytes_out = counts.down_bytes;
	return over(r, result == CONN_END ? "ok" : result == CONN_TIMEOUT ? "tunnel_timeout" : "tunnel broken");
}

/* An answer that is cut short must look cut short: what only the close would end is ended by a reset. */
static void end_short(struct road *r)
{
	bool close_is_the_end = r->exchange.request.minor_version == 0 && !r->exchange.response.has_content_length;
	r->ending = close_is_the_end ? END_RESET : END_CLOSE;
}

static enum step relay_answer(struct road *r)
{
	struct exchange *x = &r->exchange;
	const char *via = r->settings->forwarded == FORWARDED_OFF ? NULL : r->proxy->via;
	bool keep_alive = x->request.keep_alive && !worker_is_draining(r->worker);
	uint64_t begun_us = clock_us();
	if (x->response.status == 101)
		return x->request.upgrade.at != NULL && x->response.upgrade.at != NULL ?
		               run_tunnel(r) :
		               refuse(r, 502, "http_protocol_error", "the target switched protocols unasked");
	if (http_find_name(&x->response, "RateLimit") == NULL && http_find_name(&x->response, "RateLimit-Limit") == NULL)
		x->extra = ratelimit_fields(r, 0);
	enum exchange_result result = exchange_relay(x, via, keep_alive);
	if (result == EXCHANGE_TARGET_BAD)
		return refuse(r, 502, "http_protocol_error", x->why);
	r->record.status = x->response.status;
	r->record.upstream_us += clock_us() - begun_us;
	r->record.bytes_out = x->down.body.payload_bytes;
	if (result == EXCHANGE_OK) {
		r->record.outcome = "ok";
		r->ending = !x->client_must_close ? END_KEEP : exchange_request_is_done(x) ? END_CLOSE : END_LINGER;
		if (exchange_upstream_is_reusable(x))
			upstream_give_back(r->pick.item, &x->upstream, worker_cut(r->worker));
		return STEP_ON;
	}
	end_short(r);
	if (result == EXCHANGE_CLIENT_GONE || result == EXCHANGE_CLIENT_SILENT)
		return over(r, "client went away");
	if (result == EXCHANGE_CLIENT_BAD || result == EXCHANGE_CLIENT_TOO_LONG)
		return over(r, "the rest of the client's body was malformed or too long");
	return over(r, "the target's answer was cut short");
}

/* ---- account -------------------------------------------------------------------------------------------------------- */

static void describe_request(struct road *r)
{
	const struct http_field *referer = http_find(&r->exchange.request, HTTP_NAME_REFERER);
	const struct http_field *user_agent = http_find(&r->exchange.request, HTTP_NAME_USER_AGENT);
	if (referer != NULL)
		r->record.referer = referer->value;
	if (user_agent != NULL)
		r->record.user_agent = user_agent->value;
}

/* Whatever became of the request: everything it held is given back, and the log has its line. */
static void account(struct road *r)
{
	struct exchange *x = &r->exchange;
	if (r->has_slot)
		limiter_cancel(r->proxy->limiter, &r->ticket, clock_us());
	r->has_slot = false;
	give_pick_back(r);
	atomic_fetch_add_explicit(&r->proxy->requests_total, 1, memory_order_relaxed);
	if (!log_wants_access(r->proxy->log))
		return;
	if (r->has_request) {
		describe_request(r);
		if (x->request.framing != HTTP_NO_BODY && r->record.tries > 0 && r->record.bytes_in == 0)
			r->record.bytes_in = x->up.body.payload_bytes;
	}
	r->record.total_us = clock_us() - r->begun_us;
	log_access(r->proxy->log, &r->record);
}

/* ---- the road ------------------------------------------------------------------------------------------------------- */

static void begin_request(struct road *r)
{
	r->begun_us = clock_us();
	r->has_request = false;
	r->client_has_more = false;
	r->admission.limit_count = 0;
	r->admission.refused_by = NULL;
	r->ending = END_CLOSE;
	r->record = (struct log_access){ .service = proxy_name(r->proxy), .client = r->peer_text, .minor_version = 1, .outcome = "" };
	if (r->settings_generation != atomic_load_explicit(&r->proxy->settings_generation, memory_order_acquire)) {
		settings_release(r->settings);
		r->settings = service_settings(r->proxy, &r->settings_generation);
	}
	r->exchange.limits = (struct exchange_limits){ .idle_us = r->settings->idle_timeout_us,
		                                       .response_us = r->settings->response_timeout_us,
		                                       .max_body_bytes = r->settings->max_body_bytes,
		                                       .max_header_bytes = r->max_header_bytes };
}

/* One request, from its first byte to its line in the log. True if another may follow on this connection. */
static bool serve_request(struct road *r)
{
	if (wait_for_request(r) != STEP_ON)
		return false;
	begin_request(r);
	enum step step = read_head(r);
	if (step == STEP_ON)
		step = admit(r);
	if (step == STEP_ON)
		step = find_target(r);
	if (step == STEP_ON)
		step = relay_answer(r);
	if (step == STEP_REFUSED)
		send_answer(r);
	account(r);
	conn_forget(&r->exchange.client);
	return r->ending == END_KEEP;
}

static void close_client(struct road *r)
{
	struct conn *client = &r->exchange.client;
	/* With bytes that nobody read, a close would be a reset, and would take back what the client has not got yet. */
	if (r->ending == END_LINGER || (r->ending != END_RESET && conn_unread(client) > 0))
		conn_linger(client, LINGER_SILENCE_US, clock_us() + LINGER_US);
	cut_detach(worker_cut(r->worker), CUT_CLIENT);
	if (r->ending == END_RESET)
		conn_close_hard(client);
	else
		conn_close(client);
}

/* ---- a thread and its connections ------------------------------------------------------------------------------------ */

/* The buffers are as large as the greatest head may be. Pages that are never touched cost nothing. */
static bool make_buffers(struct road *r)
{
	size_t max_header = (size_t)r->settings->max_header_bytes;
	if (r->buffers != NULL && r->max_header_bytes == max_header)
		return true;
	size_t read_bytes = max_header + CONN_BODY_ROOM, head_bytes = max_header + HEAD_ROOM;
	char *buffers = malloc(2 * read_bytes + head_bytes);
	if (buffers == NULL)
		return false;
	free(r->buffers);
	r->buffers = buffers;
	r->max_header_bytes = max_header;
	conn_init(&r->exchange.client, -1, buffers, read_bytes);
	conn_init(&r->exchange.upstream, -1, buffers + read_bytes, read_bytes);
	r->exchange.head = buffers + 2 * read_bytes;
	r->exchange.head_capacity = head_bytes;
	return true;
}

static void end_thread(void *state)
{
	struct road *r = state;
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	settings_release(r->settings);
	free(r->buffers);
	free(r);
}

static void *begin_thread(void *context, struct worker *worker)
{
	struct proxy *proxy = context;
	struct road *r = malloc(sizeof *r);
	if (r == NULL)
		return NULL;
	memset(r, 0, sizeof *r);
	r->proxy = proxy;
	r->worker = worker;
	r->wake_fd = -1;
	r->settings = service_settings(proxy, &r->settings_generation);
	if (make_buffers(r))
		return r;
	end_thread(r);
	return NULL;
}

/* client_connections. A trusted proxy's connections are not one client's. */
enum entrance { ENTRANCE_FREE, ENTRANCE_COUNTED, ENTRANCE_REFUSED };

static enum entrance count_client(struct road *r)
{
	if (r->settings->client_connections == 0 || networks_contain(&r->settings->trust_forwarded, &r->peer) ||
	    networks_contain(&r->settings->exempt.networks, &r->peer))
		return ENTRANCE_FREE;
	r->counted_client = address_client_number(&r->peer);
	bool may = client_counts_enter(r->proxy->client_counts, r->counted_client, r->settings->client_connections);
	return may ? ENTRANCE_COUNTED : ENTRANCE_REFUSED;
}

/* A connection too many is answered before it has asked, and closed. */
static void refuse_connection(struct road *r)
{
	begin_request(r);
	r->admission.refused_by = "client_connections";
	refuse_over_limit(r, "client_connections", US_PER_S);
	send_answer(r);
	account(r);
}

static void serve_connection(void *state, int fd, const struct address *peer)
{
	struct road *r = state;
	struct conn *client = &r->exchange.client;
	r->peer = *peer;
	address_host_text(peer, r->peer_text);
	r->is_first_request = true;
	r->ending = END_CLOSE;
	if (r->settings_generation != atomic_load(&r->proxy->settings_generation)) {
		settings_release(r->settings);
		r->settings = service_settings(r->proxy, &r->settings_generation);
	}
	make_buffers(r); /* without memory for new ones the old ones serve on */
	conn_init(client, fd, client->buffer, client->capacity);
	enum entrance entrance = count_client(r);
	if (entrance == ENTRANCE_REFUSED)
		refuse_connection(r);
	else
		while (serve_request(r))
			r->is_first_request = false;
	close_client(r);
	if (entrance == ENTRANCE_COUNTED)
		client_counts_leave(r->proxy->client_counts, r->counted_client);
}

const struct crew_job proxy_crew_job = { .begin = begin_thread, .end = end_thread, .serve = serve_connection };
