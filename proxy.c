/* proxy.c: the road: what a thread does with a connection, and with each request on it.
 *
 *      accept ─► read head ─► admit ─────► pick ─► send ─► relay ─► account ─┐
 *                   ▲           │ wait its  ▲        │ failed?               │
 *                   │           │ turn      └────────┘ the next target       │
 *                   └───────────┴──────────── the next request ◄─────────────┘
 *
 * One thread walks it from end to end, for one request at a time, with blocking calls that each have a deadline. Every step
 * says how it went (enum step). What can't go on leaves by one door, road_refuse(), with an answer that names the cause; and
 * every request, answered or not, ends in account().
 *
 * Admitting is in admit.c, picking and sending in reverse.c: each a step of its own, with a story of its own.
 *
 * Invariants. Whatever a request took (a slot, a pick, a connection) is given back in account() at the latest. After an error no
 * more is read from that connection: what follows could be the tail of what was not understood (RFC 9112 §11).
 */
#include "proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "entrance.h"
#include "forward.h"
#include "lib/clock.h"
#include "lib/tunnel.h"
#include "road.h"
#include "roads.h"

/* After an answer that ends a connection while the client still sends: how long it is listened to, in all and in silence,
   so that it can read the answer. */
#define LINGER_US (30 * US_PER_S)
#define LINGER_SILENCE_US (2 * US_PER_S)

/* ---- the door ------------------------------------------------------------------------------------------------------- */

/* The one way out for what can't go on. details is a static phrase. */
enum step road_refuse(struct road *r, int status, const char *cause, const char *details)
{
	r->answer = (struct answer){ .status = status, .cause = cause, .details = details };
	r->record.outcome = details;
	return STEP_REFUSED;
}

enum step road_refuse_unavailable(struct road *r)
{
	enum step step = road_refuse(r, (int)r->settings->unavailable_status, "destination_unavailable", "All servers is off");
	r->answer.body = "All servers is off";
	return step;
}

enum step road_over(struct road *r, const char *outcome)
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

/* Sends the answer that a step has left. The connection goes on only if the whole request has been read and understood. Behind a
   CONNECT that is refused there may be bytes that were meant for the tunnel: they are nobody's request. */
static void send_answer(struct road *r)
{
	struct exchange *x = &r->exchange;
	char bytes[ANSWER_MAX];
	size_t body_bytes;
	bool goes_on = request_is_read(r) && x->request.keep_alive && r->answer.status != 400 &&
	               r->answer.status != 413 && x->request.method != HTTP_CONNECT && !worker_is_draining(r->worker);
	r->answer.keep_alive = goes_on;
	r->answer.says_keep_alive = goes_on && x->request.minor_version == 0;
	r->answer.date_s = clock_wall_s();
	/* The method of a request that was refused may be known, too: its client expects no body either. */
	r->answer.head_only = r->record.method.at != NULL && x->request.method == HTTP_HEAD;
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

/* What was asked for, as a string for a trace. */
static const char *trace_target(struct road *r)
{
	struct http_text target = r->exchange.request.target;
	snprintf(r->details, sizeof r->details, "%.*s", (int)(target.length < 100 ? target.length : 100), target.at);
	return r->details;
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
			return road_refuse(r, 431, "http_request_error", "the head is longer than max_header");
		enum conn_result result = conn_fill(&x->client, deadline_us);
		if (result == CONN_TIMEOUT)
			return road_refuse(r, 408, "http_request_error", "the head did not come within header_timeout");
		if (result != CONN_OK)
			return road_over(r, "client went away in the middle of a head");
	}
	if (found == HTTP_SCAN_BAD)
		return road_refuse(r, 400, "http_request_error", "not an HTTP/1.1 request");
	if (length > r->max_header_bytes)
		return road_refuse(r, 431, "http_request_error", "the head is longer than max_header");
	conn_use(&x->client, scan.skipped);
	conn_make_room(&x->client, length);
	struct http_fault fault = http_parse_request(conn_bytes(&x->client), length, &x->request);
	r->record.method = x->request.method_text;
	r->record.uri = x->request.target;
	r->record.minor_version = x->request.minor_version;
	if (fault.status != 0)
		return road_refuse(r, fault.status, "http_request_error", fault.why);
	conn_keep(&x->client, length);
	r->has_request = true;
	road_trace(r, "read     %zu bytes: %.*s %.100s", length, (int)x->request.method_text.length, x->request.method_text.at,
	           trace_target(r));
	exchange_begin(x);
	return STEP_ON;
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
		return road_refuse(r, 502, "http_protocol_error", "the target's answer to an upgrade can't be passed on");
	admit_forget_host(r); /* it may last for hours */
	r->record.status = 101;
	if (conn_send(&x->client, &part, 1, clock_us() + r->settings->idle_timeout_us, NULL) != CONN_OK)
		return road_over(r, "client went away");
	enum conn_result result = tunnel_run(&x->client, &x->upstream, r->settings->tunnel_timeout_us, &counts);
	r->record.bytes_in = counts.up_bytes;
	r->record.bytes_out = counts.down_bytes;
	return road_over(r, result == CONN_END ? "ok" : result == CONN_TIMEOUT ? "tunnel_timeout" : "tunnel broken");
}

/* An answer that is cut short must look cut short: what only the close would end is ended by a reset. */
static void end_short(struct road *r)
{
	bool close_is_the_end = r->exchange.request.minor_version == 0 && !r->exchange.response.has_content_length;
	r->ending = close_is_the_end ? END_RESET : END_CLOSE;
}

/* The target's connection can serve another request. */
static void keep_upstream(struct road *r)
{
	if (r->has_lease)
		forward_keep(r);
	else if (r->settings->send_proxy != SEND_PROXY_OFF) /* it was named as this client's */
		upstream_discard(&r->exchange.upstream, worker_cut(r->worker));
	else
		upstream_give_back(r->pick.item, &r->exchange.upstream, worker_cut(r->worker));
}

static enum step relay_answer(struct road *r)
{
	struct exchange *x = &r->exchange;
	const char *via = r->settings->forwarded == FORWARDED_OFF ? NULL : r->proxy->via;
	bool keep_alive = x->request.keep_alive && !worker_is_draining(r->worker);
	if (x->response.status == 101)
		return x->request.upgrade.at != NULL && x->response.upgrade.at != NULL &&
		                       http_upgrade_was_offered(x->request.upgrade, x->response.upgrade) ?
		               run_tunnel(r) :
		               road_refuse(r, 502, "http_protocol_error", "the target switched to a protocol that was not asked for");
	x->extra = admit_ratelimit_fields(r, NULL, 0);
	if (x->extra.length > 0 && (http_find_name(&x->response, "RateLimit") != NULL ||
	                            http_find_name(&x->response, "RateLimit-Limit") != NULL))
		x->extra = (struct http_text){ NULL, 0 }; /* the target's own stand */
	road_trace(r, "answer   %d from %s", x->response.status, r->target_text);
	enum exchange_result result = exchange_relay(x, via, keep_alive);
	if (result == EXCHANGE_TARGET_BAD)
		return road_refuse(r, 502, "http_protocol_error", x->why);
	r->record.status = x->response.status;
	r->record.upstream_us += clock_us() - r->upstream_begun_us;
	r->record.bytes_out = x->down.body.payload_bytes;
	road_trace(r, "relay    %llu bytes to %s", (unsigned long long)r->record.bytes_out, r->peer_text);
	if (result == EXCHANGE_OK) {
		r->record.outcome = "ok";
		r->ending = !x->client_must_close ? END_KEEP : exchange_request_is_done(x) ? END_CLOSE : END_LINGER;
		if (x->upstream.fd >= 0 && exchange_upstream_is_reusable(x))
			keep_upstream(r);
		return STEP_ON;
	}
	end_short(r);
	if (result == EXCHANGE_CLIENT_GONE || result == EXCHANGE_CLIENT_SILENT)
		return road_over(r, "client went away");
	if (result == EXCHANGE_CLIENT_BAD || result == EXCHANGE_CLIENT_TOO_LONG)
		return road_over(r, "the rest of the client's body was malformed or too long");
	return road_over(r, "the target's answer was cut short");
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
	admit_give_slot_back(r);
	admit_forget_host(r);
	reverse_give_pick_back(r);
	forward_give_back(r);
	atomic_fetch_add_explicit(&r->proxy->requests_total, 1, memory_order_relaxed);
	road_trace(r, "end      %d %s", r->record.status, r->record.outcome);
	r->record.total_us = clock_us() - r->begun_us;
	bool is_tunnel = r->record.status == 101 || (r->has_request && x->request.method == HTTP_CONNECT);
	service_count(r->proxy, r->stripe, &r->record, r->refused_by, is_tunnel);
	if (!log_wants_access(r->proxy->log))
		return;
	if (r->has_request) {
		describe_request(r);
		if (x->request.framing != HTTP_NO_BODY && r->record.tries > 0 && r->record.bytes_in == 0)
			r->record.bytes_in = x->up.body.payload_bytes;
	}
	log_access(r->proxy->log, &r->record);
}

/* ---- the road ------------------------------------------------------------------------------------------------------- */

static void begin_request(struct road *r)
{
	r->begun_us = clock_us();
	r->has_request = false;
	r->sleeper.client_has_more = false;
	r->admission.limit_count = 0;
	r->refused_by = NULL;
	r->ending = END_CLOSE;
	r->traces = log_wants_traces(r->proxy->log);
	r->number = r->traces ? atomic_fetch_add(&r->proxy->traced_total, 1) + 1 : 0;
	r->record = (struct log_access){ .service = proxy_name(r->proxy), .client = r->peer_text, .minor_version = 1, .outcome = "" };
	if (r->settings_generation != atomic_load_explicit(&r->proxy->settings_generation, memory_order_acquire))
		roads_take_settings(r);
	r->exchange.limits = (struct exchange_limits){ .idle_us = r->settings->idle_timeout_us,
		                                       .response_us = r->settings->response_timeout_us,
		                                       .max_body_bytes = r->settings->max_body_bytes,
		                                       .max_header_bytes = r->max_header_bytes };
}

/* Pick and send. CONNECT has no answer to relay: it is over when its tunnel is. */
static enum step find_target(struct road *r)
{
	if (r->settings->mode == MODE_REVERSE)
		return reverse_find_target(r);
	return r->exchange.request.method == HTTP_CONNECT ? forward_tunnel(r) : forward_find_target(r);
}

/* One request, from its first byte to its line in the log. True if another may follow on this connection. */
static bool serve_request(struct road *r)
{
	begin_request(r);
	road_trace(r, r->is_first_request ? "accept   a connection of %s" : "again    on the connection of %s", r->peer_text);
	enum step step = read_head(r);
	if (step == STEP_ON)
		step = admit(r);
	if (step == STEP_ON)
		step = find_target(r);
	if (step == STEP_ON)
		step = relay_answer(r);
	exchange_end(&r->exchange);
	if (step == STEP_REFUSED)
		send_answer(r);
	account(r);
	conn_forget(&r->exchange.client);
	return r->ending == END_KEEP;
}

/* ---- a connection --------------------------------------------------------------------------------------------------- */

/* Waits for the first byte of a request, in the seat: whoever waits for long needs no more. Between requests a drain may close the
   connection. */
static bool wait_in(struct seat *seat, uint64_t patience_us)
{
	bool may_wait = worker_rest(seat->worker); /* else what has come already is served */
	/* What a client connects for is often there by now. */
	enum conn_result result = seat->is_first_request || !may_wait ? conn_try_fill(&seat->client) : CONN_WOULD_BLOCK;
	if (result == CONN_WOULD_BLOCK && may_wait)
		result = conn_fill_within(&seat->client, patience_us);
	if (result != CONN_OK)
		return false;
	worker_resume(seat->worker);
	return true;
}

/* A request has come, and there is no memory to read it in. */
static void refuse_for_memory(struct seat *seat)
{
	struct answer answer = { .status = 503,
		                 .date_s = clock_wall_s(),
		                 .cause = "proxy_internal_error",
		                 .details = "no memory for a request" };
	char bytes[ANSWER_MAX];
	size_t body_bytes;
	struct iovec part = { .iov_base = bytes, .iov_len = answer_write(&answer, bytes, &body_bytes) };
	(void)conn_send(&seat->client, &part, 1, clock_us() + US_PER_S, NULL);
}

/* The road for the next request on this connection: r, if something of it has come already; else the connection waits in
   the seat. NULL: there will be none, and the connection is in the seat. */
static struct road *await_request(struct seat *seat, struct road *r)
{
	uint64_t patience_us = r->is_first_request ? r->settings->header_timeout_us : r->settings->idle_timeout_us;
	if (conn_available(&r->exchange.client) > 0)
		return r;
	roads_rest(seat->proxy->roads, r, seat);
	if (!wait_in(seat, patience_us))
		return NULL;
	r = roads_rise(seat->proxy->roads, seat);
	if (r == NULL)
		refuse_for_memory(seat);
	return r;
}

/* goodbye_us: how long a slow client's goodbye may take. */
static void close_client(struct seat *seat, struct conn *client, enum ending ending, uint64_t goodbye_us)
{
	/* With bytes that nobody read, a close would be a reset, and would take back what the client has not got yet. */
	bool waits = ending != END_RESET && ending != END_AT_ONCE;
	if (ending == END_LINGER || (waits && conn_unread(client) > 0))
		conn_linger(client, LINGER_SILENCE_US, clock_us() + LINGER_US);
	else if (waits && client->tls != NULL) /* it may have to wait for room */
		conn_end_sending(client, clock_us() + goodbye_us);
	cut_detach(worker_cut(seat->worker), CUT_CLIENT);
	if (ending == END_RESET)
		conn_close_hard(client);
	else
		conn_close(client);
}

/* client_connections. A trusted proxy's connections are not one client's.
 *
 * To tell a client that it has too many takes a place, too: a handshake, and a while in which it can read the answer. Who opens
 * connections all the time would have more places by being refused than the cap lets it have. So it is told with care as often at
 * once as it may be served; beyond that it is answered and closed at once, whether it can read that or not. */
enum entrance { ENTRANCE_FREE, ENTRANCE_COUNTED, ENTRANCE_REFUSED, ENTRANCE_TURNED_AWAY };

static enum entrance count_client(struct road *r, uint64_t *number)
{
	if (r->settings->client_connections == 0 || networks_contain(&r->settings->trust_forwarded, &r->peer) ||
	    networks_contain(&r->settings->exempt.networks, &r->peer))
		return ENTRANCE_FREE;
	*number = address_client_number(&r->peer);
	if (client_counts_enter(r->proxy->client_counts, *number, r->settings->client_connections))
		return ENTRANCE_COUNTED;
	bool is_told = client_counts_enter(r->proxy->goodbyes, *number, r->settings->client_connections);
	return is_told ? ENTRANCE_REFUSED : ENTRANCE_TURNED_AWAY;
}

static void forget_client(struct proxy *proxy, enum entrance entrance, uint64_t number)
{
	if (entrance == ENTRANCE_COUNTED)
		client_counts_leave(proxy->client_counts, number);
	else if (entrance == ENTRANCE_REFUSED)
		client_counts_leave(proxy->goodbyes, number);
}

/* tls_crtfile: what the client says first is a handshake. One that speaks HTTP instead is told so. */
static bool shake_hands(struct road *r, bool is_unwanted)
{
	struct service_greeting greeting = { .worker = r->worker,
		                             .settings = r->settings,
		                             .client = &r->exchange.client,
		                             .client_text = r->peer_text,
		                             .is_unwanted = is_unwanted };
	switch (service_shake_hands(r->proxy, &greeting)) {
	case TLS_GREETED:
		return true;
	case TLS_SPOKE_PLAINLY:
		begin_request(r);
		road_refuse(r, 400, "http_request_error", "this port speaks HTTPS");
		send_answer(r);
		account(r);
		return false;
	default:
		/* It may be told why by an alert, which a reset would destroy; who goes on talking is not listened to. */
		if (conn_unread(&r->exchange.client) > 0) {
			conn_linger(&r->exchange.client, US_PER_S, clock_us() + US_PER_S);
			r->ending = END_RESET;
		}
		return false;
	}
}

/* A connection too many is answered before it has asked, and closed. */
static void refuse_too_many(struct road *r, bool is_told)
{
	begin_request(r);
	admit_refuse_over_limit(r, "client_connections", US_PER_S);
	if (is_told)
		send_answer(r);
	account(r);
}

static void refuse_connection(struct road *r)
{
	if (shake_hands(r, true))
		refuse_too_many(r, true);
}

/* Over TLS nothing can be said without a handshake, which takes as long as the client likes. */
static void turn_away(struct road *r)
{
	refuse_too_many(r, r->settings->tls_server == NULL);
	r->ending = END_AT_ONCE;
}

/* All requests of a connection. The road that the last one left the connection in; NULL: it is in the seat. */
static struct road *serve_requests(struct seat *seat, struct road *r)
{
	while ((r = await_request(seat, r)) != NULL && serve_request(r))
		r->is_first_request = false;
	return r;
}

/* A connection that has a road to begin with. */
static void serve_on(struct seat *seat, struct road *r)
{
	uint64_t number = 0, goodbye_us = r->settings->idle_timeout_us;
	enum entrance entrance = count_client(r, &number);
	address_host_text(&r->peer, r->peer_text);
	if (entrance == ENTRANCE_REFUSED)
		refuse_connection(r);
	else if (entrance == ENTRANCE_TURNED_AWAY)
		turn_away(r);
	else if (shake_hands(r, false))
		r = serve_requests(seat, r);
	if (r == NULL) {
		close_client(seat, &seat->client, END_CLOSE, goodbye_us);
	} else {
		close_client(seat, &r->exchange.client, r->ending, goodbye_us);
		roads_give_back(seat->proxy->roads, r);
	}
	forget_client(seat->proxy, entrance, number);
}

static void serve_connection(void *state, int fd, const struct address *peer)
{
	struct seat *seat = state;
	struct road *r = roads_take(seat->proxy->roads, seat);
	if (r == NULL) {
		conn_init(&seat->client, fd, seat->bytes, sizeof seat->bytes);
		refuse_for_memory(seat);
		close_client(seat, &seat->client, END_LINGER, US_PER_S);
		return;
	}
	struct conn *client = &r->exchange.client;
	conn_init(client, fd, client->buffer, client->capacity);
	r->peer = *peer;
	r->is_first_request = true;
	r->ending = END_CLOSE;
	if (entrance_read_header(r->proxy, r->worker, r->settings, fd, &r->peer, &r->destination)) {
		serve_on(seat, r);
		return;
	}
	cut_detach(worker_cut(seat->worker), CUT_CLIENT);
	conn_close(client);
	roads_give_back(seat->proxy->roads, r);
}

/* ---- a thread ------------------------------------------------------------------------------------------------------- */

static void *begin_thread(void *context, struct worker *worker)
{
	struct proxy *proxy = context;
	struct seat *seat = malloc(sizeof *seat);
	if (seat == NULL)
		return NULL;
	seat->proxy = proxy;
	seat->worker = worker;
	seat->stripe = meters_stripe(proxy->meters);
	conn_init(&seat->client, -1, seat->bytes, sizeof seat->bytes);
	return seat;
}

static void end_thread(void *state)
{
	free(state);
}

const struct crew_job proxy_crew_job = { .begin = begin_thread, .end = end_thread, .serve = serve_connection };
