/* forward.c: pick and send for a forward proxy: the client says where to.
 *
 *      GET http://host/path ─┐                                  ┌─► attempt.h: send, await the head ─► relay (proxy.c)
 *                            ├─► may it? ─► a place at the host ┤
 *      CONNECT host:port  ───┘   403        cap: refused, wait  └─► 200, then a tunnel: never looked into
 *
 * A place (hosts.h) stands for one connection to a host, from before it is opened until after it is closed; idle ones that are kept for
 * reuse count too. So the cap holds at every moment, and is not a matter of how fast we are.
 *
 * Where a client may send us is decided twice: by the name it asks for, and by each address that the name resolves to, at the
 * moment of connecting to that very address (destination.h). Every address of a name is tried in turn.
 *
 * With a parent proxy (setting parent) the connection goes there, whatever the host: a plain request in absolute form, a CONNECT as
 * a CONNECT whose good answer makes the tunnel. A place, and a turn, are still those of the host that the client named, and an idle
 * connection serves that host alone. The parent resolves the name: its addresses can't be looked at here.
 *
 * Sources: RFC 9110 §9.3.6 (CONNECT), §7.4 (rejecting misdirected requests); RFC 9112 §3.2.2 (absolute form).
 */
#include "forward.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attempt.h"
#include "lib/auth.h"
#include "lib/clock.h"
#include "lib/destination.h"
#include "lib/hosts.h"
#include "lib/lookup.h"
#include "lib/tunnel.h"
#include "lib/writer.h"
#include "parent.h"

#define PORT_HTTP 80u
#define HOST_MAX 256

/* ---- where to ------------------------------------------------------------------------------------------------------- */

/* Parts "host:port", "[v6]:port" or "host". The parser has checked the form already. */
static bool part_authority(struct http_text authority, char host[HOST_MAX], unsigned *port)
{
	const char *at = authority.at, *end = authority.at + authority.length;
	const char *stop = end;
	if (authority.length == 0)
		return false;
	if (*at == '[') {
		at++;
		stop = memchr(at, ']', (size_t)(end - at));
	} else {
		const char *colon = memchr(at, ':', (size_t)(end - at));
		stop = colon != NULL ? colon : end;
	}
	if (stop == NULL || stop == at || stop - at >= HOST_MAX)
		return false;
	memcpy(host, at, (size_t)(stop - at));
	host[stop - at] = '\0';
	const char *digits = stop < end && *stop == ']' ? stop + 1 : stop;
	uint64_t number = PORT_HTTP;
	if (digits < end && (*digits != ':' || (digits + 1 < end &&
	                                        !http_parse_number((struct http_text){ digits + 1, (size_t)(end - digits - 1) }, &number))))
		return false;
	*port = (unsigned)number;
	return number > 0 && number <= UINT16_MAX;
}

static bool is_https(struct http_text target)
{
	return target.length >= 8 && strncasecmp(target.at, "https://", 8) == 0;
}

/* "host:port", and an IPv6 address in brackets. */
static void write_target(struct road *r)
{
	struct writer w = { .out = r->target_text, .capacity = sizeof r->target_text - 1 };
	bool is_v6 = strchr(r->host, ':') != NULL;
	writer_put_string(&w, is_v6 ? "[" : "");
	writer_put_string(&w, r->host);
	writer_put_string(&w, is_v6 ? "]:" : ":");
	writer_put_number(&w, r->port);
	r->target_text[w.length] = '\0';
}

/* Reads where the client wants to go. */
static enum step read_destination(struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	if (request->form != HTTP_ABSOLUTE_FORM && request->form != HTTP_AUTHORITY_FORM)
		return road_refuse(r, 400, "http_request_error", "a forward proxy is asked with a whole address: http://host/path");
	if (request->form == HTTP_ABSOLUTE_FORM && is_https(request->target))
		return road_refuse(r, 400, "http_request_error", "https goes through CONNECT");
	if (!part_authority(request->host, r->host, &r->port) ||
	    !hosts_name(r->host, strlen(r->host), r->port, r->host_name))
		return road_refuse(r, 400, "http_request_error", "no host and port that can be connected to");
	write_target(r);
	return STEP_ON;
}

static struct destination destination_of(const struct road *r)
{
	return (struct destination){ .host = r->host,
		                     .length = strlen(r->host),
		                     .port = r->port,
		                     .is_connect = r->exchange.request.method == HTTP_CONNECT };
}

static enum step refuse_destination(struct road *r, enum destination_answer answer)
{
	r->exchange.request.keep_alive = r->exchange.request.keep_alive && r->exchange.request.method != HTTP_CONNECT;
	if (answer == DESTINATION_SPECIAL)
		return road_refuse(r, 403, "destination_ip_prohibited", "an address of this network: connect_allow does not name it");
	return road_refuse(r, 403, "http_request_denied", "connect_allow does not list this host and port");
}

/* ---- who asks ------------------------------------------------------------------------------------------------------- */

static enum step check_credentials(struct road *r)
{
	if (r->auth == NULL)
		return STEP_ON;
	const struct http_field *field = http_find(&r->exchange.request, HTTP_NAME_PROXY_AUTHORIZATION);
	uint64_t retry_us = 0;
	char user[AUTH_USER_MAX];
	enum auth_answer answer = auth_check(r->auth, field != NULL ? field->value.at : NULL,
	                                     field != NULL ? field->value.length : 0, clock_us(), user, &retry_us);
	if (answer == AUTH_GOOD)
		return STEP_ON;
	if (answer == AUTH_LATER) {
		enum step step = road_refuse(r, 503, "proxy_internal_error", "too many passwords to check");
		r->answer.retry_after_s = 1 + (unsigned)(retry_us / US_PER_S);
		return step;
	}
	enum step step = road_refuse(r, 407, "http_request_denied",
	                             answer == AUTH_WRONG ? "the credentials are wrong" : "credentials are asked for");
	r->answer.fields = "Proxy-Authenticate: Basic realm=\"weir\", charset=\"UTF-8\"\r\n";
	return step;
}

enum step forward_check(struct road *r)
{
	/* Keep-alive of HTTP/1.0 is not for proxies: one that did not know it may stand before us and have passed it on, and would
	   wait for a close that never comes (RFC 9112 §9.3, §C.2.2). */
	if (r->exchange.request.minor_version == 0)
		r->exchange.request.keep_alive = false;
	enum step step = check_credentials(r);
	if (step == STEP_ON)
		step = read_destination(r);
	if (step != STEP_ON)
		return step;
	struct destination to = destination_of(r);
	enum destination_answer answer = r->settings->parent != NULL ?
	                                         destinations_may_ask_parent(&r->settings->connect_allow, &to) :
	                                         destinations_may_ask(&r->settings->connect_allow, &to);
	return answer == DESTINATION_ALLOWED ? STEP_ON : refuse_destination(r, answer);
}

/* ---- a place at the host -------------------------------------------------------------------------------------------- */

static enum step refuse_over_cap(struct road *r)
{
	snprintf(r->details, sizeof r->details, "over the cap of %u connections to %s", r->lease.limit, r->host_name);
	enum step step = road_refuse(r, (int)r->settings->cap_reject_status, "connection_limit_reached", r->details);
	r->answer.over_limit = true;
	r->answer.retry_after_s = 1;
	r->refused_by = "max_connections";
	meters_count_refusal(r->proxy->meters, r->refused_by);
	atomic_fetch_add_explicit(&r->proxy->refused_total, 1, memory_order_relaxed);
	return step;
}

/* What an idle connection is good for: one port, under the settings that it was opened with. A reload may have changed the parent,
   or shut an address that it leads to, while connections are still in use: they are kept under the old number, and never met again. */
static unsigned way_of(const struct road *r)
{
	return (r->settings_generation & UINT16_MAX) << 16 | r->port;
}

/* Takes a place, and perhaps an idle connection with it. STEP_ON: r->lease is held. */
static enum step take_place(struct road *r, uint64_t idle_max_us)
{
	uint64_t begun_us = clock_us();
	struct hosts_wish wish = { .name = r->host_name,
		                   .port = way_of(r),
		                   .idle_max_us = idle_max_us,
		                   .now_us = begun_us,
		                   .wait_until_us = r->settings->cap_backlog_us > 0 ? begun_us + r->settings->cap_backlog_us : 0,
		                   .client_fd = r->exchange.client.fd,
		                   .client_is_gone = admit_client_is_gone,
		                   .context = r };
	enum hosts_answer answer = hosts_lease(r->proxy->hosts, &wish, &r->lease);
	if (wish.wait_until_us != 0)
		r->record.wait_us += clock_us() - begun_us;
	switch (answer) {
	case HOSTS_IDLE:
	case HOSTS_PLACE:
		r->has_lease = true;
		return STEP_ON;
	case HOSTS_FULL:
		return refuse_over_cap(r);
	case HOSTS_CLIENT_GONE:
		return road_over(r, "client went away while it waited for a place");
	case HOSTS_STORE_DOWN: {
		enum step step = road_refuse(r, 503, "proxy_internal_error", "the shared cap can't be asked: Redis is down");
		r->answer.retry_after_s = 1;
		return step;
	}
	default:
		return road_refuse(r, 503, "proxy_internal_error", "no memory or descriptor to count the connection with");
	}
}

/* The idle connection that came with the place is not used after all. */
static void close_leased_idle(struct road *r)
{
	if (r->lease.fd >= 0)
		close(r->lease.fd);
	r->lease.fd = -1;
}

void forward_give_back(struct road *r)
{
	if (!r->has_lease)
		return;
	close_leased_idle(r);
	upstream_discard(&r->exchange.upstream, worker_cut(r->worker));
	hosts_end(r->proxy->hosts, &r->lease);
	r->has_lease = false;
}

void forward_keep(struct road *r)
{
	struct conn *conn = &r->exchange.upstream;
	int fd = conn->fd;
	cut_detach(worker_cut(r->worker), CUT_UPSTREAM);
	r->lease.receive_timeout_us = conn->receive_timeout_us;
	r->lease.send_timeout_us = conn->send_timeout_us;
	conn->fd = -1;
	hosts_keep(r->proxy->hosts, &r->lease, fd, clock_us());
	r->has_lease = false;
}

/* ---- connecting ----------------------------------------------------------------------------------------------------- */

/* Why no address of the host could be connected to: the last reason counts. */
struct trouble {
	enum destination_answer refused;
	enum conn_result result;
	int error;
};

/* Did this system find out by itself that it can't connect? When in doubt, no. */
static bool never_left(const struct trouble *trouble)
{
	return trouble->result == CONN_BROKEN && (attempt_is_our_own_lack(trouble->error) || trouble->error == EACCES ||
	                                          trouble->error == EPERM || trouble->error == EAFNOSUPPORT);
}

/* Tries one address. The descriptor, or -1. */
static int connect_to(struct road *r, const struct address *address, struct trouble *trouble)
{
	struct destination to = destination_of(r);
	enum destination_answer answer = r->settings->parent != NULL ?
	                                         DESTINATION_ALLOWED :
	                                         destinations_may_connect(&r->settings->connect_allow, &to, address);
	if (answer != DESTINATION_ALLOWED) {
		trouble->refused = answer;
		return -1;
	}
	int fd = conn_socket(address);
	if (fd < 0 && attempt_is_our_own_lack(errno)) { /* what is idle for other hosts' sake can make room */
		hosts_close_idle(r->proxy->hosts);
		fd = conn_socket(address);
	}
	if (fd < 0) {
		trouble->result = CONN_BROKEN;
		trouble->error = errno;
		return -1;
	}
	cut_attach(worker_cut(r->worker), CUT_UPSTREAM, fd);
	uint64_t deadline_us = clock_us() + r->settings->connect_timeout_us;
	trouble->result = conn_ask_to_connect(fd, address, deadline_us);
	trouble->error = trouble->result == CONN_OK ? 0 : errno;
	/* The first packet of a tunnel is on its way: how long the host takes to answer it is no lateness of the start. */
	if (r->exchange.request.method == HTTP_CONNECT && r->settings->parent == NULL && !never_left(trouble))
		admit_use_slot(r, clock_us());
	if (trouble->result == CONN_OK) {
		trouble->result = conn_await_connected(fd, address, deadline_us);
		trouble->error = trouble->result == CONN_OK ? 0 : errno;
	}
	if (trouble->result == CONN_OK)
		return fd;
	cut_detach(worker_cut(r->worker), CUT_UPSTREAM);
	close(fd);
	return -1;
}

static enum step refuse_connecting(struct road *r, const struct trouble *trouble)
{
	if (trouble->result == CONN_OK)
		return refuse_destination(r, trouble->refused);
	if (trouble->result == CONN_TIMEOUT)
		return road_refuse(r, 504, "connection_timeout", r->settings->parent != NULL ?
		                   "the parent proxy did not answer within connect_timeout" :
		                   "the host did not answer within connect_timeout");
	if (attempt_is_our_own_lack(trouble->error))
		return road_refuse(r, 503, "proxy_internal_error", "no descriptor or memory for a connection");
	snprintf(r->details, sizeof r->details, "cannot connect%s: %s", r->settings->parent != NULL ? " to the parent proxy" : "",
	         strerror(trouble->error));
	return road_refuse(r, 502, trouble->error == ECONNREFUSED ? "connection_refused" : "destination_unavailable", r->details);
}

static enum step refuse_unresolved(struct road *r, enum lookup_result result, int error)
{
	if (result == LOOKUP_LATE)
		return road_refuse(r, 504, "dns_timeout", "the name service did not answer within connect_timeout");
	if (result == LOOKUP_NO_MEMORY)
		return road_refuse(r, 503, "proxy_internal_error", "no memory or thread to ask the name service with");
	snprintf(r->details, sizeof r->details, "cannot resolve the %s: %s",
	         r->settings->parent != NULL ? "parent proxy" : "host", gai_strerror(error));
	return road_refuse(r, 502, "dns_error", r->details);
}

/* The host itself, or the parent proxy, whose form the settings have checked. */
static void where_to_connect(const struct road *r, char host[HOST_MAX], unsigned *port)
{
	const char *parent = r->settings->parent;
	if (parent == NULL || !part_authority((struct http_text){ parent, strlen(parent) }, host, port)) {
		memcpy(host, r->host, HOST_MAX);
		*port = r->port;
	}
}

/* Opens a connection to the host, trying each of its addresses. A CONNECT starts here: whatever comes of it, the host was asked. */
static enum step open_connection(struct road *r)
{
	struct lookup_answer found;
	struct trouble trouble = { .refused = DESTINATION_ALLOWED, .result = CONN_OK };
	int fd = -1;
	uint64_t deadline_us = clock_us() + r->settings->connect_timeout_us;
	char host[HOST_MAX];
	unsigned port;
	where_to_connect(r, host, &port);
	enum lookup_result result = lookup(r->proxy->lookups, r->record.client, host, port, deadline_us, &found);
	if (result != LOOKUP_FOUND)
		return refuse_unresolved(r, result, found.error);
	bool is_gone = false;
	/* The name service may have taken longer than a slot lives. */
	bool starts_here = r->exchange.request.method == HTTP_CONNECT && r->settings->parent == NULL;
	enum step step = starts_here ? admit_renew_slot(r) : STEP_ON;
	if (step != STEP_ON)
		return step;
	for (size_t i = 0; i < found.count && fd < 0 && !is_gone; i++) {
		fd = connect_to(r, &found.addresses[i], &trouble);
		is_gone = fd < 0 && conn_has_hung_up(&r->exchange.client) && admit_client_is_gone(r);
	}
	if (is_gone) /* a name may have many addresses, and each of them connect_timeout */
		return road_over(r, "client went away while its host was connected to");
	if (fd < 0)
		return refuse_connecting(r, &trouble);
	road_trace(r, "connect  to %s%s%s, place %u of %u", r->target_text, r->settings->parent != NULL ? " through " : "",
	           r->settings->parent != NULL ? r->settings->parent : "", r->lease.count, r->lease.limit);
	conn_init(&r->exchange.upstream, fd, r->exchange.upstream.buffer, r->exchange.upstream.capacity);
	return STEP_ON;
}

/* The connection was idle and is of no use: another one takes its place. The place stays ours: had it been given back, somebody
   else might have it now. */
static void replace_connection(struct road *r)
{
	close_leased_idle(r);
	upstream_discard(&r->exchange.upstream, worker_cut(r->worker));
	service_host_changed(r->proxy, r->host_name, false, r->lease.count - 1, r->lease.limit);
	service_host_changed(r->proxy, r->host_name, true, r->lease.count, r->lease.limit);
}

/* The idle connection that came with the place is made ours. */
static void use_idle(struct road *r)
{
	struct conn *conn = &r->exchange.upstream;
	cut_attach(worker_cut(r->worker), CUT_UPSTREAM, r->lease.fd);
	conn_init(conn, r->lease.fd, conn->buffer, conn->capacity);
	conn->receive_timeout_us = r->lease.receive_timeout_us;
	conn->send_timeout_us = r->lease.send_timeout_us;
	r->lease.fd = -1;
}

/* ---- the two kinds of request --------------------------------------------------------------------------------------- */

/* Was the idle connection closed, or has it become too old, while its request waited for a turn? */
static bool idle_is_stale(const struct road *r, uint64_t waited_us, uint64_t idle_max_us)
{
	return waited_us > 0 && (waited_us > idle_max_us || !conn_is_quiet(r->lease.fd, NULL));
}

/* A turn at the host's rate. Another try has a place in hand already, and others that have a turn may be waiting for just that
   place: then the place is given back rather than held while we wait. */
static enum step take_host_turn(struct road *r)
{
	enum step step = STEP_ON;
	if (r->has_lease) {
		step = admit_take_host_turn(r, false);
		if (step == STEP_ON && r->rate.entry != NULL && !r->host_turn.has_slot)
			forward_give_back(r);
	}
	return step == STEP_ON ? admit_take_host_turn(r, true) : step;
}

/* A turn at the host, a place (unless there is one in hand), a turn of the threshold, a connection: see admit.c for the order. */
static enum step get_connection(struct road *r, uint64_t idle_max_us, bool *reused)
{
	r->record.target = r->target_text;
	r->record.tries++;
	enum step step = take_host_turn(r);
	if (step == STEP_ON && !r->has_lease)
		step = take_place(r, idle_max_us);
	uint64_t waited_us = r->record.wait_us;
	if (step == STEP_ON)
		step = admit_take_slot(r);
	waited_us = r->record.wait_us - waited_us;
	if (step == STEP_ON && r->lease.fd >= 0 && idle_is_stale(r, waited_us, idle_max_us))
		replace_connection(r);
	*reused = step == STEP_ON && r->lease.fd >= 0;
	if (*reused) {
		use_idle(r);
		road_trace(r, "reuse    an idle connection to %s", r->target_text);
	} else if (step == STEP_ON) {
		step = open_connection(r);
	}
	if (step != STEP_ON) { /* before the answer goes out: who has it may ask again at once */
		admit_give_slot_back(r);
		forward_give_back(r);
	}
	return step;
}

enum step forward_find_target(struct road *r)
{
	enum attempt attempt = ATTEMPT_FRESH;
	uint64_t idle_max_us = attempt_idle_max_us(r);
	for (unsigned fresh = 0; attempt == ATTEMPT_FRESH; fresh++) {
		const char *blame;
		bool reused = false;
		enum step step = get_connection(r, idle_max_us, &reused);
		if (step != STEP_ON)
			return step;
		attempt = attempt_send(r, r->target_text, reused, &blame);
		if (attempt == ATTEMPT_FRESH && fresh == ATTEMPT_FRESH_MAX)
			attempt = ATTEMPT_NEXT;
		if (attempt == ATTEMPT_FRESH)
			replace_connection(r);
		else if (attempt != ATTEMPT_ANSWERED)
			forward_give_back(r);
	}
	if (attempt == ATTEMPT_ANSWERED && r->settings->parent != NULL && r->exchange.response.status == 407) {
		forward_give_back(r); /* the client has no credentials for a proxy that it does not know */
		return road_refuse(r, 502, "http_upstream_request_denied", "the parent proxy asks for other credentials: 407");
	}
	if (attempt == ATTEMPT_NEXT) /* there is no other: a host is a host */
		return r->last_result == EXCHANGE_TARGET_SILENT ?
		               road_refuse(r, 504, "http_response_timeout", "the host was silent for response_timeout") :
		               road_refuse(r, 502, "connection_terminated", "the host closed the connection without an answer");
	return attempt == ATTEMPT_ANSWERED ? STEP_ON : attempt == ATTEMPT_REFUSED ? STEP_REFUSED : STEP_OVER;
}

enum step forward_tunnel(struct road *r)
{
	static const char answer[] = "HTTP/1.1 200 Connection established\r\n\r\n";
	struct exchange *x = &r->exchange;
	struct tunnel_counts counts = { .up_bytes = 0 };
	bool reused;
	enum step step = get_connection(r, 0, &reused);
	if (step != STEP_ON)
		return step;
	if (r->settings->parent != NULL)
		step = parent_open_tunnel(r);
	if (step != STEP_ON) {
		admit_give_slot_back(r);
		forward_give_back(r);
		return step;
	}
	admit_forget_host(r); /* a tunnel may last for hours */
	struct iovec part = { .iov_base = (char *)(uintptr_t)answer, .iov_len = sizeof answer - 1 };
	r->record.status = 200;
	if (conn_send(&x->client, &part, 1, clock_us() + r->settings->idle_timeout_us, NULL) != CONN_OK)
		return road_over(r, "client went away");
	uint64_t begun_us = clock_us();
	enum conn_result result = tunnel_run(&x->client, &x->upstream, r->settings->tunnel_timeout_us, &counts);
	r->record.upstream_us = clock_us() - begun_us;
	r->record.bytes_in = counts.up_bytes;
	r->record.bytes_out = counts.down_bytes;
	return road_over(r, result == CONN_END ? "ok" : result == CONN_TIMEOUT ? "tunnel_timeout" : "tunnel broken");
}

void forward_target_is_done(void *context)
{
	struct road *r = context;
	if (r->has_lease && exchange_upstream_is_reusable(&r->exchange))
		forward_keep(r);
	else
		forward_give_back(r);
}
