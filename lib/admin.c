/* admin.c: see admin.h. */
#include "admin.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "clock.h"
#include "conn.h"
#include "crew.h"
#include "guard.h"
#include "listener.h"

#define HEAD_US (5 * US_PER_S)
#define BODY_US (10 * US_PER_S)
#define IDLE_US (15 * US_PER_S)
/* When there are hardly places left, nobody keeps one by saying nothing. */
#define CROWD_MIN (ADMIN_CLIENTS_MAX - ADMIN_CLIENTS_MAX / 4)
#define CROWDED_US (1 * US_PER_S)
/* What the kernel keeps for a slow reader of a stream; left to itself it keeps megabytes. */
#define STREAM_BUFFER_BYTES (64 * 1024)
#define SEND_US (10 * US_PER_S)
#define STREAM_SEND_US (3 * US_PER_S)
#define LINGER_SILENCE_US (1 * US_PER_S)
#define LINGER_US (3 * US_PER_S)
#define END_US (1 * US_PER_S)

struct admin {
	struct admin_job job;
	struct crew *crew;
	int listen_fd;
	atomic_uint served; /* connections that are being served */
	char *token;
	struct admin_place place;
	char machine_name[256];
};

struct admin_stream {
	struct worker *worker;
	struct conn *conn;
	bool has_begun; /* the head before it was sent */
};

/* What one thread keeps. */
struct clerk {
	struct admin *admin;
	struct worker *worker;
	struct address peer;
	struct conn conn;
	struct http_head head;
	bool has_head;
	char *body; /* ADMIN_BODY_MAX; made at the first PUT */
	char buffer[ADMIN_HEAD_MAX + CONN_BODY_ROOM];
};

/* ---- where it listens ----------------------------------------------------------------------------------------------- */

static bool parse_port(const char *text, unsigned *port)
{
	uint64_t number;
	if (!http_parse_number((struct http_text){ text, strlen(text) }, &number) || number > 65535)
		return false;
	*port = (unsigned)number;
	return true;
}

bool admin_parse_place(const char *text, struct admin_place *out)
{
	struct address address;
	const char *colon = strrchr(text, ':');
	*out = (struct admin_place){ .bind = "127.0.0.1" };
	if (parse_port(text, &out->port))
		return true;
	if (strncmp(text, "unix:", 5) == 0) {
		snprintf(out->bind, sizeof out->bind, "%s", text);
		return address_unix(text + 5, &address);
	}
	if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof out->bind || !parse_port(colon + 1, &out->port))
		return false;
	size_t length = (size_t)(colon - text);
	bool has_brackets = text[0] == '[' && text[length - 1] == ']';
	snprintf(out->bind, sizeof out->bind, "%.*s", (int)(has_brackets ? length - 2 : length), has_brackets ? text + 1 : text);
	if (strcasecmp(out->bind, "localhost") == 0) {
		snprintf(out->name, sizeof out->name, "localhost");
		snprintf(out->bind, sizeof out->bind, "127.0.0.1");
	}
	if (strcmp(out->bind, "*") == 0)
		snprintf(out->bind, sizeof out->bind, "::");
	bool is_v6 = strchr(out->bind, ':') != NULL;
	return address_parse(out->bind, out->port, &address) && (!is_v6 || has_brackets || text[0] == '*');
}

void admin_url(struct admin *admin, char out[ADMIN_URL_MAX])
{
	struct address address;
	char text[ADDRESS_TEXT_MAX];
	listener_address(admin->listen_fd, &address);
	address_text(&address, text);
	snprintf(out, ADMIN_URL_MAX, address.any.sa_family == AF_UNIX ? "%s" : "http://%s/", text);
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

void admin_refuse(struct admin_reply *reply, int status, const char *why)
{
	char body[512];
	char clean[400];
	size_t used = 0;
	for (const char *at = why; *at != '\0' && used + 1 < sizeof clean; at++)
		clean[used++] = *at == '"' || *at == '\\' || (unsigned char)*at < ' ' ? '\'' : *at;
	clean[used] = '\0';
	int length = snprintf(body, sizeof body, "{\"error\":\"%s\"}\n", clean);
	free(reply->body);
	*reply = (struct admin_reply){ .status = status, .content_type = "application/json", .body = strdup(body) };
	reply->body_bytes = reply->body != NULL ? (size_t)length : 0;
}

/* The fields keep browsers from guessing, framing, caching and telling others. */
static bool send_reply(struct clerk *clerk, const struct admin_reply *reply, bool head_only, bool keep_alive)
{
	char head[2048], date[HTTP_DATE_MAX];
	char length_field[64] = "";
	if (reply->stream == NULL)
		snprintf(length_field, sizeof length_field, "Content-Length: %zu\r\n", reply->body_bytes);
	http_write_date(clock_wall_s(), date);
	int length = snprintf(head, sizeof head,
	                      "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n%sCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
	                      "X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n"
	                      "%.1200s%s\r\n",
	                      reply->status, http_reason(reply->status), date, reply->content_type, length_field,
	                      reply->fields != NULL ? reply->fields : "", keep_alive ? "" : "Connection: close\r\n");
	if (length < 0 || length >= (int)sizeof head)
		return false;
	bool has_body = !head_only && reply->body != NULL;
	struct iovec parts[2] = { { .iov_base = head, .iov_len = (size_t)length },
		                  { .iov_base = reply->body, .iov_len = has_body ? reply->body_bytes : 0 } };
	return conn_send(&clerk->conn, parts, has_body ? 2 : 1, clock_us() + SEND_US, NULL) == CONN_OK;
}

bool admin_stream_is_open(struct admin_stream *stream)
{
	return stream->has_begun && !worker_is_draining(stream->worker) && !conn_has_hung_up(stream->conn);
}

bool admin_stream_send(struct admin_stream *stream, const char *bytes, size_t length)
{
	struct iovec part = { .iov_base = (char *)(uintptr_t)bytes, .iov_len = length };
	return admin_stream_is_open(stream) &&
	       conn_send(stream->conn, &part, 1, clock_us() + STREAM_SEND_US, NULL) == CONN_OK;
}

/* ---- one request ---------------------------------------------------------------------------------------------------- */

/* How long a client may say nothing. */
static uint64_t patience_us(struct admin *admin, bool is_first)
{
	if (atomic_load(&admin->served) >= CROWD_MIN)
		return CROWDED_US;
	return is_first ? HEAD_US : IDLE_US;
}

/* Reads a head. False: the connection is over; status is what the client is still told, 0 for nothing. */
static bool read_head(struct clerk *clerk, bool is_first, int *status, const char **why)
{
	struct conn *conn = &clerk->conn;
	struct http_scan scan = { .seen = 0 };
	size_t length = 0;
	enum http_scan_result found;
	*status = 0;
	if (conn_available(conn) == 0) {
		bool rests = worker_rest(clerk->worker);
		enum conn_result first = rests ? conn_fill(conn, clock_us() + patience_us(clerk->admin, is_first)) : CONN_END;
		worker_resume(clerk->worker);
		if (first != CONN_OK)
			return false;
	}
	uint64_t deadline_us = clock_us() + HEAD_US;
	while ((found = http_scan(&scan, conn_bytes(conn), conn_available(conn), &length)) == HTTP_SCAN_MORE) {
		enum conn_result result = conn_available(conn) > ADMIN_HEAD_MAX ? CONN_FULL : conn_fill(conn, deadline_us);
		if (result == CONN_OK)
			continue;
		*status = result == CONN_FULL ? 431 : result == CONN_TIMEOUT ? 408 : 0;
		*why = result == CONN_FULL ? "the head is too long" : "the head did not come in time";
		return false;
	}
	*status = 400;
	*why = "not an HTTP/1.1 request";
	if (found == HTTP_SCAN_BAD)
		return false;
	conn_use(conn, scan.skipped);
	conn_make_room(conn, length);
	struct http_fault fault = http_parse_request(conn_bytes(conn), length, &clerk->head);
	if (fault.status != 0) {
		*status = fault.status;
		*why = fault.why;
		return false;
	}
	conn_keep(conn, length);
	clerk->has_head = true;
	return true;
}

/* Reads a body of known length into clerk->body. 0, or the status to refuse with. */
static int read_body(struct clerk *clerk, size_t length)
{
	static char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct conn *conn = &clerk->conn;
	uint64_t deadline_us = clock_us() + BODY_US;
	size_t used = 0;
	if (clerk->body == NULL && (clerk->body = malloc(ADMIN_BODY_MAX + 1)) == NULL)
		return 503;
	struct iovec part = { .iov_base = go_on, .iov_len = sizeof go_on - 1 };
	if (clerk->head.expects_continue && conn_available(conn) == 0 && conn_send(conn, &part, 1, deadline_us, NULL) != CONN_OK)
		return 408;
	while (used < length) {
		if (conn_available(conn) == 0 && conn_fill(conn, deadline_us) != CONN_OK)
			return 408;
		size_t piece = conn_available(conn) < length - used ? conn_available(conn) : length - used;
		memcpy(clerk->body + used, conn_bytes(conn), piece);
		conn_use(conn, piece);
		used += piece;
	}
	clerk->body[length] = '\0';
	return 0;
}

/* The rules about methods and bodies that all answers have in common. False: reply refuses. */
static bool check_form(const struct http_head *head, struct admin_reply *reply)
{
	bool reads = head->method == HTTP_GET || head->method == HTTP_HEAD;
	if (!reads && head->method != HTTP_PUT) {
		admin_refuse(reply, 405, "GET, HEAD and PUT are all there is");
		reply->fields = "Allow: GET, HEAD, PUT\r\n";
	} else if (head->form != HTTP_ORIGIN_FORM && head->form != HTTP_ABSOLUTE_FORM) {
		admin_refuse(reply, 400, "the target is no path");
	} else if (reads && head->framing != HTTP_NO_BODY) {
		admin_refuse(reply, 400, "a GET has no body here");
	} else if (!reads && head->framing != HTTP_BY_LENGTH) {
		admin_refuse(reply, 411, "a PUT needs a Content-Length");
	} else if (!reads && head->content_length > ADMIN_BODY_MAX) {
		admin_refuse(reply, 413, "the body is longer than 256 KiB");
	}
	return reply->status == 0;
}

static bool check_guard(struct clerk *clerk, struct admin_reply *reply)
{
	struct admin *admin = clerk->admin;
	struct guard guard = { .token = admin->token,
		               .bound_name = admin->place.name[0] != '\0' ? admin->place.name : NULL,
		               .machine_name = admin->machine_name };
	switch (guard_check(&guard, &clerk->peer, &clerk->head)) {
	case GUARD_PASS:
		return true;
	case GUARD_FOREIGN_HOST:
		admin_refuse(reply, 403, "Host must be an address, localhost or this machine's name (or give the admin_token)");
		return false;
	case GUARD_FOREIGN_ORIGIN:
		admin_refuse(reply, 403, "requests of other web pages are refused: Origin or Sec-Fetch-Site is not this host's");
		return false;
	case GUARD_LOCAL_ONLY:
		admin_refuse(reply, 403, "changes are made from this machine alone: no admin_token is set");
		return false;
	default:
		admin_refuse(reply, 401, "a change from another machine needs Authorization: Bearer and the admin_token");
		reply->fields = "WWW-Authenticate: Bearer realm=\"weir\"\r\n";
		return false;
	}
}

static void ask_caller(struct clerk *clerk, struct admin_reply *reply)
{
	struct http_head *head = &clerk->head;
	const char *query = memchr(head->path.at, '?', head->path.length);
	size_t path_length = query != NULL ? (size_t)(query - head->path.at) : head->path.length;
	struct admin_request request = { .method = head->method == HTTP_HEAD ? HTTP_GET : head->method,
		                         .path = { head->path.at, path_length },
		                         .wants_body = head->method != HTTP_HEAD,
		                         .body = clerk->body,
		                         .body_bytes = (size_t)head->content_length };
	if (path_length == 0) /* "http://host?query" */
		request.path = (struct http_text){ "/", 1 };
	clerk->admin->job.answer(clerk->admin->job.context, &request, reply);
	if (reply->status == 0)
		admin_refuse(reply, 500, "no memory for an answer");
}

enum after { AFTER_NEXT, AFTER_CLOSE, AFTER_LINGER };

/* A request that came whole, guarded and with its body read. */
static enum after serve_read(struct clerk *clerk)
{
	struct http_head *head = &clerk->head;
	struct admin_reply reply = { .status = 0 };
	bool body_is_left = head->framing != HTTP_NO_BODY;
	if (check_guard(clerk, &reply) && check_form(head, &reply)) {
		int status = body_is_left ? read_body(clerk, (size_t)head->content_length) : 0;
		if (status != 0)
			admin_refuse(&reply, status, "the body did not come");
		body_is_left = body_is_left && status != 0;
		if (status == 0)
			ask_caller(clerk, &reply);
	}
	bool streams = reply.stream != NULL && head->method != HTTP_HEAD;
	if (!streams)
		reply.stream = NULL;
	bool goes_on = head->keep_alive && head->minor_version == 1 && !streams && !body_is_left && reply.status < 500 &&
	               !worker_is_draining(clerk->worker);
	bool is_sent = send_reply(clerk, &reply, head->method == HTTP_HEAD, goes_on);
	free(reply.body);
	if (streams) { /* in any case: it has to hear that it is over */
		struct admin_stream stream = { .worker = clerk->worker, .conn = &clerk->conn, .has_begun = is_sent };
		int size = STREAM_BUFFER_BYTES; /* that it can't be had is no harm */
		setsockopt(clerk->conn.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		reply.stream(clerk->admin->job.context, &stream);
	}
	if (!is_sent || streams)
		return AFTER_CLOSE;
	/* Only bytes that nobody has read would make a close hurt the answer. */
	return goes_on ? AFTER_NEXT : body_is_left || conn_available(&clerk->conn) > 0 ? AFTER_LINGER : AFTER_CLOSE;
}

static enum after serve_request(struct clerk *clerk, bool is_first)
{
	int status;
	const char *why = NULL;
	clerk->has_head = false;
	if (read_head(clerk, is_first, &status, &why)) {
		enum after after = serve_read(clerk);
		conn_forget(&clerk->conn);
		return after;
	}
	if (status == 0)
		return AFTER_CLOSE;
	struct admin_reply reply = { .status = 0 };
	admin_refuse(&reply, status, why);
	bool is_sent = send_reply(clerk, &reply, false, false);
	free(reply.body);
	return is_sent ? AFTER_LINGER : AFTER_CLOSE;
}

static void serve(void *state, int fd, const struct address *peer)
{
	struct clerk *clerk = state;
	clerk->peer = *peer;
	atomic_fetch_add(&clerk->admin->served, 1);
	conn_init(&clerk->conn, fd, clerk->buffer, sizeof clerk->buffer);
	enum after after = serve_request(clerk, true);
	while (after == AFTER_NEXT)
		after = serve_request(clerk, false);
	if (after == AFTER_LINGER)
		conn_linger(&clerk->conn, LINGER_SILENCE_US, clock_us() + LINGER_US);
	cut_detach(worker_cut(clerk->worker), CUT_CLIENT);
	conn_close(&clerk->conn);
	atomic_fetch_sub(&clerk->admin->served, 1);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static void *begin_thread(void *context, struct worker *worker)
{
	struct clerk *clerk = calloc(1, sizeof *clerk);
	if (clerk != NULL) {
		clerk->admin = context;
		clerk->worker = worker;
	}
	return clerk;
}

static void end_thread(void *state)
{
	struct clerk *clerk = state;
	free(clerk->body);
	free(clerk);
}

static void complain(void *context, const char *what, int error)
{
	struct admin *admin = context;
	admin->job.complain(admin->job.context, what, error);
}

/* While the other one, if there is one, lets its port be taken over. */
static int open_beside(const struct admin_place *place, const struct admin *beside, char *error, size_t error_size)
{
	if (beside == NULL)
		return listener_open(place->bind, place->port, false, error, error_size);
	listener_share(beside->listen_fd, true);
	int fd = listener_open(place->bind, place->port, true, error, error_size);
	listener_share(beside->listen_fd, false);
	return fd;
}

struct admin *admin_open(const char *place, const char *token, const struct admin_job *job, const struct admin *beside, char *error,
                         size_t error_size)
{
	struct admin *admin = calloc(1, sizeof *admin);
	if (admin != NULL && token != NULL)
		admin->token = strdup(token);
	if (admin == NULL || (token != NULL && admin->token == NULL)) {
		snprintf(error, error_size, "admin: out of memory");
		free(admin);
		return NULL;
	}
	admin->job = *job;
	admin->listen_fd = -1;
	if (gethostname(admin->machine_name, sizeof admin->machine_name - 1) != 0)
		admin->machine_name[0] = '\0';
	char why[256] = "not an address";
	if (admin_parse_place(place, &admin->place))
		admin->listen_fd = open_beside(&admin->place, beside, why, sizeof why);
	if (admin->listen_fd >= 0)
		return admin;
	snprintf(error, error_size, "admin: %s", why);
	admin_stop(admin);
	return NULL;
}

bool admin_start(struct admin *admin, char *error, size_t error_size)
{
	struct crew_job job = { .context = admin, .begin = begin_thread, .end = end_thread, .serve = serve, .complain = complain };
	admin->crew = crew_start(admin->listen_fd, ADMIN_CLIENTS_MAX, &job);
	if (admin->crew == NULL)
		snprintf(error, error_size, "admin: no memory or threads to serve with");
	return admin->crew != NULL;
}

void admin_stop(struct admin *admin)
{
	if (admin == NULL)
		return;
	if (admin->listen_fd >= 0)
		listener_retire(admin->listen_fd);
	if (admin->crew != NULL) {
		crew_drain(admin->crew);
		if (!crew_wait(admin->crew, clock_us() + END_US)) {
			crew_cut(admin->crew);
			crew_wait(admin->crew, CLOCK_NEVER);
		}
		crew_destroy(admin->crew);
	}
	if (admin->listen_fd >= 0)
		close(admin->listen_fd);
	if (admin->token != NULL)
		explicit_bzero(admin->token, strlen(admin->token));
	free(admin->token);
	free(admin);
}
