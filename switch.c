/* switch.c: the road of a message: what a thread does with a connection, and with each message on it.
 *
 *      accept ─► read object ─┬─ type 0 ─► admit ─► pick ─► connect, send ─► read answer ─► close ─► answer ─┐
 *                   ▲         │                      ▲           │ failed?                                   │
 *                   │         │                      └───────────┘ the next server                           │
 *                   │         ├─ type 1 ─► the table, no answer                                              │
 *                   │         └─ else ───► an error, type 3                                        account ◄─┘
 *                   └──────────────────────────── the next object ◄───────────────────────────────────┘
 *
 * It is the road of proxy.c with other vehicles: one thread walks it from end to end, each call has a deadline, each
 * step says how it went (enum step), and what can't go on leaves by one door, refuse(), with an error object that
 * says why. The connection goes on after it, for where the next message begins is known (packet.h).
 *
 * A connection to a server carries one message. Servers of this exercise serve one connection after the other, or
 * take one recv() for one message: so the message leaves in one piece, without blanks and as short as it can be, and
 * the connection is closed when the answer is there. What is forwarded is what came; the answer goes back as it came,
 * too.
 *
 * Invariants. A slot of the limiter is either used (limiter_started, noted after the bytes left) or given back. A
 * turn at a server is given back once. A message that got no answer goes to the next server: to hash a payload twice
 * does no harm. Nobody is ever dropped without a word: whoever can still be told is told.
 */
#include "switch.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "entrance.h"
#include "lib/admission.h"
#include "lib/clock.h"
#include "lib/packet.h"
#include "lib/thread.h"
#include "line.h"
#include "service.h"

#define READ_BYTES (16u * 1024u)
#define CONNECTIONS_MAX 5 /* for one message to one server, when each closes before the message may start */
#define LINGER_US (30 * US_PER_S)
#define LINGER_SILENCE_US (2 * US_PER_S)

/* How a step ended. */
enum step {
	STEP_ON,      /* the next step, please */
	STEP_REFUSED, /* road->why says what the client is told */
	STEP_OVER,    /* the connection ends here */
};

/* What one thread keeps. */
struct road {
	struct proxy *proxy;
	struct worker *worker;
	struct settings *settings; /* held */
	unsigned settings_generation;
	struct conn client, server;
	struct packet_reader request, answer;
	struct line_sleeper sleeper; /* a message in line waits with it */
	unsigned stripe;             /* of the meters: this thread's own */

	/* this connection */
	struct address peer, own;
	char peer_text[ADDRESS_TEXT_MAX];
	bool is_last; /* the client may not come in, or does not end what it began: it is told so, and closed */
	bool is_told, closes_at_once; /* over client_connections: it is counted among the goodbyes; there are too many of its */

	/* this message */
	struct packet message; /* has_message: to be released */
	bool has_message;
	struct admission admission;
	struct line_turn turn; /* of threshold */
	struct switch_turn at_server;
	char why[PACKET_WHY_MAX];
	const char *refused_by; /* the limit that refused it, or NULL */
	unsigned over_limit_s; /* 0: this is no matter of limits */
	uint64_t begun_us; /* 0: nothing of it has come yet */
	struct log_access record;
	char target_text[ADDRESS_TEXT_MAX];
	bool traces;     /* each hop is written to the log */
	uint64_t number; /* of this message, for its traces */

	char buffers[2][READ_BYTES];
};

/* A line about one hop of this message, for --trace. Off, it costs the look at one bool. */
#define trace(r, ...)                                                                                                       \
	do {                                                                                                                \
		if ((r)->traces)                                                                                            \
			log_trace((r)->proxy->log, proxy_name((r)->proxy), (r)->number, clock_us() - (r)->begun_us, __VA_ARGS__); \
	} while (0)

/* ---- the door -------------------------------------------------------------------------------------------------- */

/* status: what HTTP would call it, for the access log; the client gets words. */
static enum step refuse(struct road *r, int status, const char *format, ...) PRINTF_LIKE(3, 4);
static enum step refuse(struct road *r, int status, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(r->why, sizeof r->why, format, arguments);
	va_end(arguments);
	r->over_limit_s = 0;
	r->record.status = status;
	r->record.outcome = r->why;
	return STEP_REFUSED;
}

static enum step refuse_over_limit(struct road *r, const char *limit, uint64_t after_us)
{
	uint64_t after_s = (after_us + US_PER_S - 1) / US_PER_S;
	enum step step = refuse(r, 429, "over %s", limit);
	r->refused_by = limit;
	meters_count_refusal(r->proxy->meters, limit);
	r->over_limit_s = after_s == 0 ? 1 : after_s > 86400 ? 86400 : (unsigned)after_s;
	atomic_fetch_add_explicit(&r->proxy->refused_total, 1, memory_order_relaxed);
	return step;
}

/* Sends one object and a newline, which does no harm and helps those who read lines. */
static enum step tell_client(struct road *r, const char *object, size_t length)
{
	struct iovec parts[2] = { { .iov_base = (void *)(uintptr_t)object, .iov_len = length },
		                  { .iov_base = "\n", .iov_len = 1 } };
	if (conn_send(&r->client, parts, 2, clock_us() + r->settings->idle_timeout_us, NULL) == CONN_OK) {
		r->record.bytes_out = length;
		return STEP_ON;
	}
	r->record.status = 0;
	r->record.outcome = "client went away";
	return STEP_OVER;
}

/* The one way out for what can't go on: an error object. */
static enum step send_error(struct road *r)
{
	static const char no_memory[] = "{\"type\":\"3\",\"error\":\"out of memory\"}";
	size_t length;
	char *object = packet_write_error(r->why, r->over_limit_s, &length);
	log_write(r->proxy->log, LOG_LEVEL_INFO, proxy_name(r->proxy), "sending an error to %s: %s", r->peer_text,
	          r->why);
	atomic_fetch_add_explicit(&r->proxy->answered_total, 1, memory_order_relaxed);
	enum step step =
		object == NULL ? tell_client(r, no_memory, sizeof no_memory - 1) : tell_client(r, object, length);
	free(object);
	return step;
}

/* ---- read object ----------------------------------------------------------------------------------------------- */

/* Nothing of a message is there yet. Between messages a drain may close the connection; what has come already is
   served. */
static enum step wait_for_message(struct road *r)
{
	bool may_wait = worker_rest(r->worker);
	uint64_t deadline_us = clock_us() + r->settings->idle_timeout_us;
	if ((may_wait ? conn_fill(&r->client, deadline_us) : conn_try_fill(&r->client)) != CONN_OK)
		return STEP_OVER;
	worker_resume(r->worker);
	return STEP_ON;
}

/* More of a message of which a part is there. */
static enum step wait_for_rest(struct road *r)
{
	switch (conn_fill(&r->client, r->begun_us + r->settings->idle_timeout_us)) {
	case CONN_OK:
		return STEP_ON;
	case CONN_TIMEOUT:
		r->is_last = true;
		return refuse(r, 408, "the message did not end within idle_timeout");
	case CONN_END:
		r->is_last = true;
		return refuse(r, 400, "the connection ended in the middle of a message");
	default:
		return STEP_OVER;
	}
}

/* Reads until a message is whole: it is in r->request then. STEP_REFUSED: what came is none. */
static enum step read_object(struct road *r)
{
	for (;;) {
		size_t used;
		enum packet_event event =
			packet_read(&r->request, conn_bytes(&r->client), conn_available(&r->client), &used);
		conn_use(&r->client, used);
		bool is_between = event == PACKET_MORE && packet_reader_is_between(&r->request);
		if (!is_between && r->begun_us == 0)
			r->begun_us = clock_us();
		if (event == PACKET_WHOLE)
			return STEP_ON;
		if (event == PACKET_FAULT)
			return refuse(r, 400, "%s", r->request.fault);
		enum step step = is_between ? wait_for_message(r) : wait_for_rest(r);
		if (step != STEP_ON)
			return step;
	}
}

/* ---- type 1 ---------------------------------------------------------------------------------------------------- */

/* Where the server listens: at the address it speaks from. One on this machine may have come over a unix socket. */
static struct address server_address(const struct road *r, unsigned port)
{
	struct address address = r->peer;
	if (address.any.sa_family == AF_INET)
		address.v4.sin_port = htons((uint16_t)port);
	else if (address.any.sa_family == AF_INET6)
		address.v6.sin6_port = htons((uint16_t)port);
	else
		address_parse("127.0.0.1", port, &address);
	return address;
}

/* Messages to ourselves would go round until every thread is busy with them. */
static bool is_this_switch(const struct road *r, const struct address *server)
{
	char theirs[ADDRESS_TEXT_MAX], ours[ADDRESS_TEXT_MAX];
	address_text(server, theirs);
	address_text(&r->own, ours);
	return strcmp(theirs, ours) == 0;
}

static enum step set_up_server(struct road *r)
{
	const struct packet *message = &r->message;
	struct address address = server_address(r, message->port);
	char where[ADDRESS_TEXT_MAX];
	address_text(&address, where);
	if (is_this_switch(r, &address))
		return refuse(r, 400, "listenport %u is this switch's own", message->port);
	const char *what = "";
	switch (packet_switch_set_up(r->proxy->packets, message->source, message->policy, &address)) {
	case SWITCH_TOO_MANY_SERVERS:
		return refuse(r, 503, "there are %u servers already", SWITCH_SERVERS_MAX);
	case SWITCH_NO_MEMORY:
		return refuse(r, 503, "no memory for another server");
	case SWITCH_SET_UP:
		break;
	case SWITCH_REPLACED:
		what = ", in place of what it was";
		break;
	case SWITCH_UNCHANGED:
		what = ", as it is already";
		break;
	}
	log_write(r->proxy->log, LOG_LEVEL_INFO, proxy_name(r->proxy),
	          "received a setup message from server id %s privacy policy %s port %u (%s)%s", message->source,
	          message->policy, message->port, where, what);
	r->record.status = 200;
	r->record.outcome = "ok";
	return STEP_ON;
}

/* ---- admit ----------------------------------------------------------------------------------------------------- */

static bool client_has_sent_more(void *context)
{
	struct road *r = context;
	/* A drain ends the input of connections that look idle: of one whose message had just come, too (crew_drain). */
	return worker_is_draining(r->worker) || conn_unread(&r->client) > 0;
}

/* What the answer of the line means for the message that stood there. */
static enum step step_of(struct road *r, enum line_answer answer)
{
	switch (answer) {
	case LINE_GO:
		break;
	case LINE_FULL:
		return refuse_over_limit(r, "threshold", limiter_retry_after_us(r->proxy->limiter, clock_us()));
	case LINE_NO_DESCRIPTOR:
		return refuse(r, 503, "no descriptor to wait with");
	case LINE_CLIENT_GONE:
		refuse(r, 400, "the connection ended while the message waited for its turn");
		send_error(r); /* it may have ended in one direction only */
		return STEP_OVER;
	}
	if (r->turn.waited) {
		r->record.wait_us += r->turn.waited_us;
		trace(r, "wait     in line, behind the threshold");
	}
	return STEP_ON;
}

/* Takes a slot of the limiter; waits for one if need be. */
static enum step take_slot(struct road *r)
{
	r->turn.limiter = r->proxy->limiter;
	r->turn.group = r->proxy->group;
	r->sleeper.client_fd = r->client.fd;
	return step_of(r, line_take(&r->turn, &r->sleeper, r->admission.client_number, r->admission.is_exempt));
}

/* May this client come in, and is it within its own limits? The rules are made for HTTP: to them a message is a
   request without a method, a path and fields. */
static enum step check_client(struct road *r)
{
	static const struct http_head no_head;
	enum admission_verdict verdict =
		admission_check(r->proxy->client_limits, r->settings, &r->peer, &no_head, clock_us(), &r->admission);
	if (verdict == ADMISSION_OVER_LIMIT)
		return refuse_over_limit(r, r->admission.refused_by, r->admission.retry_after_us);
	r->is_last = verdict == ADMISSION_FORBIDDEN;
	return r->is_last ? refuse(r, 403, "this client may not come in") : STEP_ON;
}

static enum step refuse_unserved(struct road *r)
{
	if (packet_switch_presence(r->proxy->packets, r->message.policy) == SWITCH_NOBODY)
		return refuse(r, 503, "no server for privacy policy %s", r->message.policy);
	return refuse(r, 503, "all servers for privacy policy %s are off", r->message.policy);
}

static enum step admit(struct road *r)
{
	if (packet_switch_presence(r->proxy->packets, r->message.policy) !=
	    SWITCH_SOMEBODY) /* nobody should wait for nothing */
		return refuse_unserved(r);
	return take_slot(r);
}

/* ---- pick, connect, send, read the answer ---------------------------------------------------------------------- */

/* What one try at one server came to. */
enum attempt {
	ATTEMPT_ANSWERED, /* r->answer holds the answer */
	ATTEMPT_NEXT,     /* another server, please; why_not says why not this one */
	ATTEMPT_REFUSED,
};

/* The slot is used if something left for the server, at the moment it had left. */
static void settle_slot(struct road *r, size_t sent_bytes)
{
	if (sent_bytes > 0)
		line_use(&r->turn, clock_us());
}

static bool is_an_answer(struct road *r, const char **why_not)
{
	struct packet answer;
	char why[PACKET_WHY_MAX];
	*why_not = "its answer is not understood";
	if (!packet_parse(r->answer.bytes, r->answer.length, &answer, why))
		return false;
	bool good = answer.type == PACKET_ANSWER || answer.type == PACKET_ERROR;
	r->record.status = answer.type == PACKET_ANSWER ? 200 : 502;
	r->record.outcome = answer.type == PACKET_ANSWER ? "ok" : "the server answered with an error";
	if (good)
		log_write(r->proxy->log, LOG_LEVEL_INFO, proxy_name(r->proxy),
		          "received %s from server id %s for client %s, payload of %zu bytes",
		          answer.type == PACKET_ANSWER ? "a data message" : "an error", r->at_server.id, r->message.source,
		          answer.payload_bytes);
	packet_release(&answer);
	return good;
}

/* The one answer. */
static bool read_answer(struct road *r, const char **why_not)
{
	uint64_t deadline_us = clock_us() + r->settings->response_timeout_us;
	packet_reader_restart(&r->answer);
	for (;;) {
		size_t used;
		switch (packet_read(&r->answer, conn_bytes(&r->server), conn_available(&r->server), &used)) {
		case PACKET_WHOLE:
			return is_an_answer(r, why_not);
		case PACKET_FAULT:
			*why_not = "its answer is no message";
			return false;
		case PACKET_MORE:
			conn_use(&r->server, used);
			break;
		}
		enum conn_result result = conn_fill(&r->server, deadline_us);
		*why_not = result == CONN_TIMEOUT ? "it was silent for response_timeout" :
		                                    "it closed the connection without an answer";
		if (result != CONN_OK)
			return false;
	}
}

/* No server would do better: to blame this one, and then the next, would only empty the rotation. */
static bool is_our_own_lack(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static enum attempt connect_to_server(struct road *r, const char **why_not)
{
	bool reused;
	char why[UPSTREAM_WHY_MAX];
	struct upstream_wish wish = { .connect_timeout_us = r->settings->connect_timeout_us };
	snprintf(r->target_text, sizeof r->target_text, "%s", upstream_address(r->at_server.upstream));
	r->record.target = r->target_text;
	r->record.tries++;
	if (upstream_lease(r->at_server.upstream, &r->server, worker_cut(r->worker), &wish, &reused, why) == CONN_OK)
		return ATTEMPT_ANSWERED;
	int error = errno;
	*why_not = strerror(error);
	if (!is_our_own_lack(error))
		return ATTEMPT_NEXT;
	refuse(r, 503, "no descriptor or memory for a connection");
	return ATTEMPT_REFUSED;
}

/* A connection, and a slot that is still good when it is there; ATTEMPT_ANSWERED: both are. If another slot has to be waited for, the
   server may not have waited: then another connection is needed, too. */
static enum attempt connect_in_time(struct road *r, enum step *step, const char **why_not)
{
	*step = STEP_REFUSED;
	for (unsigned connections = 0; connections < CONNECTIONS_MAX; connections++) {
		enum attempt attempt = connect_to_server(r, why_not);
		if (attempt != ATTEMPT_ANSWERED)
			return attempt;
		*step = step_of(r, line_renew(&r->turn, &r->sleeper));
		if (*step == STEP_ON && (!r->turn.waited || conn_is_quiet(r->server.fd, r->server.tls)))
			return ATTEMPT_ANSWERED;
		upstream_discard(&r->server, worker_cut(r->worker));
		if (*step != STEP_ON)
			return ATTEMPT_REFUSED;
		*step = STEP_REFUSED;
	}
	*why_not = "it closes connections before their turn has come";
	return ATTEMPT_NEXT;
}

/* The slot is used when the first bytes have left: a server that takes the rest slowly makes no start late. */
static enum conn_result send_message(struct road *r, size_t *sent_bytes)
{
	struct iovec part = { .iov_base = r->request.bytes, .iov_len = r->request.length }, *next = &part;
	int count = 1;
	size_t more_bytes = 0;
	enum conn_result result = conn_try_send(&r->server, &next, &count, sent_bytes);
	settle_slot(r, *sent_bytes);
	if (result != CONN_WOULD_BLOCK)
		return result;
	result = conn_send(&r->server, next, count, clock_us() + r->settings->response_timeout_us, &more_bytes);
	settle_slot(r, more_bytes);
	*sent_bytes += more_bytes;
	return result;
}

/* One try at the server whose turn it is. */
static enum attempt try_server(struct road *r, enum step *step, const char **why_not)
{
	struct cut *cut = worker_cut(r->worker);
	enum attempt attempt = connect_in_time(r, step, why_not);
	if (attempt != ATTEMPT_ANSWERED)
		return attempt;
	log_write(r->proxy->log, LOG_LEVEL_INFO, proxy_name(r->proxy),
	          "forwarding the data message of client %s to server id %s (%s), payload of %zu bytes",
	          r->message.source, r->at_server.id, upstream_address(r->at_server.upstream), r->message.payload_bytes);
	trace(r, "connect  to server id %s (%s)", r->at_server.id, upstream_address(r->at_server.upstream));
	size_t sent_bytes = 0;
	uint64_t begun_us = clock_us();
	enum conn_result sent = send_message(r, &sent_bytes);
	trace(r, "send     %zu bytes to server id %s", sent_bytes, r->at_server.id);
	*why_not = sent == CONN_TIMEOUT ? "it does not take the message" : "it closed the connection";
	/* One that has seen enough may answer before it has taken all. */
	bool answered = sent != CONN_TIMEOUT && read_answer(r, why_not);
	if (answered)
		trace(r, "answer   %zu bytes from server id %s", r->answer.length, r->at_server.id);
	r->record.upstream_us = clock_us() - begun_us;
	upstream_discard(&r->server, cut);
	return answered ? ATTEMPT_ANSWERED : ATTEMPT_NEXT;
}

static void blame_server(struct road *r, const char *why_not)
{
	trace(r, "failed   server id %s: %s", r->at_server.id, why_not);
	bool went_out = packet_switch_failed(r->proxy->packets, &r->at_server);
	log_write(r->proxy->log, went_out ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, proxy_name(r->proxy),
	          "server id %s (%s) %s: %s", r->at_server.id, upstream_address(r->at_server.upstream),
	          went_out ? "leaves the rotation" : "failed as well", why_not);
}

/* Each try that starts needs a slot of its own. */
static enum attempt ask_server(struct road *r, enum step *step)
{
	const char *why_not = "";
	*step = take_slot(r);
	if (*step != STEP_ON)
		return ATTEMPT_REFUSED;
	enum attempt attempt = try_server(r, step, &why_not);
	if (attempt == ATTEMPT_ANSWERED)
		packet_switch_succeeded(r->proxy->packets, &r->at_server);
	if (attempt == ATTEMPT_NEXT)
		blame_server(r, why_not);
	return attempt;
}

/* Picks servers until one answers. */
static enum step find_server(struct road *r)
{
	struct balancer_tried tried;
	memset(&tried, 0, sizeof tried);
	for (unsigned tries = 0; tries <= r->settings->retries; tries++) {
		enum step step;
		if (!packet_switch_pick(r->proxy->packets, r->message.policy, &tried, &r->at_server))
			break;
		trace(r, "pick     server id %s for policy %s", r->at_server.id, r->message.policy);
		enum attempt attempt = ask_server(r, &step);
		packet_switch_done(r->proxy->packets, &r->at_server);
		if (attempt != ATTEMPT_NEXT)
			return step;
		if (tries == UINT32_MAX)
			break;
	}
	return refuse_unserved(r);
}

/* ---- the road -------------------------------------------------------------------------------------------------- */

static enum step forward(struct road *r)
{
	log_write(r->proxy->log, LOG_LEVEL_INFO, proxy_name(r->proxy),
	          "received a data message from client %s (%s) privacy policy %s, payload of %zu bytes",
	          r->message.source, r->peer_text, r->message.policy, r->message.payload_bytes);
	enum step step = admit(r);
	if (step == STEP_ON)
		step = find_server(r);
	if (step == STEP_ON)
		step = tell_client(r, r->answer.bytes, r->answer.length);
	return step;
}

static enum step handle_object(struct road *r)
{
	enum step step = check_client(r);
	if (step != STEP_ON)
		return step;
	char why[PACKET_WHY_MAX];
	if (!packet_parse(r->request.bytes, r->request.length, &r->message, why))
		return refuse(r, 400, "%s", why);
	r->has_message = true;
	switch (r->message.type) {
	case PACKET_MESSAGE:
		return forward(r);
	case PACKET_SETUP:
		return set_up_server(r);
	case PACKET_ANSWER:
	case PACKET_ERROR:
		break;
	}
	return refuse(r, 400, "type %d is not for a switch; 0 or 1 is wanted", (int)r->message.type);
}

static struct http_text as_text(const char *text)
{
	return (struct http_text){ text, strlen(text) };
}

/* The line of a message reads as that of a request: what was asked of which policy, and who asked. */
static void describe_message(struct road *r)
{
	static const char *const types[] = { "MESSAGE", "SETUP", "ANSWER", "ERROR" };
	r->record.method = as_text(types[r->message.type]);
	if (r->message.policy[0] != '\0')
		r->record.uri = as_text(r->message.policy);
	if (r->message.source[0] != '\0')
		r->record.user_agent = as_text(r->message.source);
}

/* Whatever became of the message: the log has its line, and everything it held is given back. */
static void account(struct road *r)
{
	if (r->has_message)
		describe_message(r);
	r->record.bytes_in = r->request.length;
	r->record.total_us = clock_us() - r->begun_us;
	service_count(r->proxy, r->stripe, &r->record, r->refused_by, false);
	if (log_wants_access(r->proxy->log))
		log_access(r->proxy->log, &r->record);
	line_give_back(&r->turn);
	if (r->has_message)
		packet_release(&r->message);
	r->has_message = false;
	packet_reader_restart(&r->answer);
	atomic_fetch_add_explicit(&r->proxy->requests_total, 1, memory_order_relaxed);
}

static void take_settings(struct road *r)
{
	if (r->settings_generation == atomic_load_explicit(&r->proxy->settings_generation, memory_order_acquire))
		return;
	settings_release(r->settings);
	r->settings = service_settings(r->proxy, &r->settings_generation);
}

/* Nothing is known of a message that has not begun. */
static void expect_message(struct road *r)
{
	r->begun_us = 0;
	r->record = (struct log_access){ .service = proxy_name(r->proxy),
		                         .client = r->peer_text,
		                         .protocol = "PACKET",
		                         .outcome = "" };
}

/* One message, from its first byte to its answer. True if another may follow on this connection. */
static bool serve_message(struct road *r)
{
	expect_message(r);
	enum step step = read_object(r);
	if (step == STEP_OVER)
		return false;
	take_settings(r);
	r->sleeper.client_has_more = false;
	r->refused_by = NULL;
	r->traces = log_wants_traces(r->proxy->log);
	r->number = r->traces ? atomic_fetch_add(&r->proxy->traced_total, 1) + 1 : 0;
	trace(r, "read     %zu bytes from %s", r->request.length, r->peer_text);
	if (step == STEP_ON)
		step = handle_object(r);
	if (step == STEP_REFUSED)
		step = send_error(r);
	trace(r, step == STEP_ON ? "end      ok" : "end      the connection is over");
	account(r);
	return step == STEP_ON && !r->is_last;
}

/* ---- a thread and its connections ------------------------------------------------------------------------------ */

static size_t longest_message(const struct settings *settings)
{
	return settings->max_body_bytes > 0 && settings->max_body_bytes < PACKET_BYTES_MAX ?
	               (size_t)settings->max_body_bytes :
	               PACKET_BYTES_MAX;
}

/* tls_crtfile: what the client says first is a handshake. False: it was none. */
static bool shake_hands(struct road *r, bool is_unwanted)
{
	struct service_greeting greeting = { .worker = r->worker,
		                             .settings = r->settings,
		                             .client = &r->client,
		                             .client_text = r->peer_text,
		                             .is_unwanted = is_unwanted };
	switch (service_shake_hands(r->proxy, &greeting)) {
	case TLS_GREETED:
		return true;
	case TLS_SPOKE_PLAINLY:
		expect_message(r);
		r->begun_us = clock_us();
		refuse(r, 400, "this port speaks TLS");
		send_error(r);
		account(r);
		conn_linger(&r->client, LINGER_SILENCE_US, clock_us() + LINGER_US);
		return false;
	default:
		/* It may be told why by an alert, which a reset would destroy; who goes on talking is not listened to. */
		if (conn_unread(&r->client) > 0) {
			conn_linger(&r->client, US_PER_S, clock_us() + US_PER_S);
			cut_detach(worker_cut(r->worker), CUT_CLIENT);
			conn_close_hard(&r->client);
		}
		return false;
	}
}

static void refuse_connection(struct road *r)
{
	bool can_be_told = !r->closes_at_once || r->settings->tls_server == NULL;
	if (can_be_told && !shake_hands(r, true))
		return;
	expect_message(r);
	r->begun_us = clock_us();
	refuse_over_limit(r, "client_connections", US_PER_S);
	if (can_be_told)
		send_error(r);
	account(r);
}

/* A client with too many connections is told at once; and as proxy.c does it, with care only as often as it may be served. */
static void serve_messages(struct road *r)
{
	unsigned most = r->settings->client_connections;
	uint64_t client = address_client_number(&r->peer);
	bool is_free = most == 0 || networks_contain(&r->settings->trust_forwarded, &r->peer) ||
	               networks_contain(&r->settings->exempt.networks, &r->peer);
	if (!is_free && !client_counts_enter(r->proxy->client_counts, client, most)) {
		r->is_told = client_counts_enter(r->proxy->goodbyes, client, most);
		r->closes_at_once = !r->is_told;
		refuse_connection(r);
		return;
	}
	if (shake_hands(r, false))
		while (serve_message(r))
			;
	if (!is_free)
		client_counts_leave(r->proxy->client_counts, client);
}

static void serve_connection(void *state, int fd, const struct address *peer)
{
	struct road *r = state;
	take_settings(r);
	r->is_last = r->is_told = r->closes_at_once = false;
	r->peer = *peer;
	r->own.length = sizeof r->own.storage;
	if (getsockname(fd, &r->own.any, &r->own.length) != 0)
		memset(&r->own, 0, sizeof r->own);
	address_unmap(&r->own);
	conn_init(&r->client, fd, r->buffers[0], READ_BYTES);
	struct address destination;
	if (!entrance_read_header(r->proxy, r->worker, r->settings, fd, &r->peer, &destination)) {
		cut_detach(worker_cut(r->worker), CUT_CLIENT);
		conn_close(&r->client);
		return;
	}
	address_host_text(&r->peer, r->peer_text);
	packet_reader_init(&r->request, longest_message(r->settings));
	packet_reader_init(&r->answer, PACKET_BYTES_MAX);
	serve_messages(r);
	/* With bytes that nobody read, a close would be a reset, and would take back what the client has not got yet.
	   */
	if (!r->closes_at_once && conn_unread(&r->client) > 0)
		conn_linger(&r->client, LINGER_SILENCE_US, clock_us() + LINGER_US);
	else if (!r->closes_at_once && r->client.tls != NULL)
		conn_end_sending(&r->client, clock_us() + r->settings->idle_timeout_us);
	cut_detach(worker_cut(r->worker), CUT_CLIENT);
	conn_close(&r->client);
	if (r->is_told)
		client_counts_leave(r->proxy->goodbyes, address_client_number(&r->peer));
	packet_reader_free(&r->request);
	packet_reader_free(&r->answer);
}

static void end_thread(void *state)
{
	struct road *r = state;
	line_close(&r->sleeper);
	settings_release(r->settings);
	free(r);
}

static void *begin_thread(void *context, struct worker *worker)
{
	struct proxy *proxy = context;
	struct road *r = malloc(sizeof *r);
	if (r == NULL)
		return NULL;
	memset(r, 0, offsetof(struct road, buffers)); /* pages of the buffers that are never touched cost nothing */
	r->proxy = proxy;
	r->worker = worker;
	r->sleeper = (struct line_sleeper){ .wake_fd = -1, .client_has_sent_more = client_has_sent_more, .context = r };
	r->stripe = meters_stripe(proxy->meters);
	conn_init(&r->server, -1, r->buffers[1], READ_BYTES);
	r->settings = service_settings(proxy, &r->settings_generation);
	return r;
}

const struct crew_job switch_crew_job = { .begin = begin_thread, .end = end_thread, .serve = serve_connection };
