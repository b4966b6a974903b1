/* stats.c: see stats.h. */
#include "stats.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/access.h"
#include "lib/page.h"
#include "lib/text.h"
#include "status.h"

/* What stands behind stats_path, without a query; at is NULL when the request is for something else. */
static struct http_text rest_of(const struct road *r)
{
	const struct http_head *request = &r->exchange.request;
	const char *path = r->settings->stats_path;
	struct http_text none = { NULL, 0 };
	if (path == NULL || request->form != HTTP_ORIGIN_FORM)
		return none;
	size_t length = strlen(path);
	const char *query = memchr(request->path.at, '?', request->path.length);
	size_t whole = query != NULL ? (size_t)(query - request->path.at) : request->path.length;
	if (whole < length || memcmp(request->path.at, path, length) != 0 || (whole > length && request->path.at[length] != '/'))
		return none;
	return (struct http_text){ request->path.at + length, whole - length };
}

bool stats_is_asked(const struct road *r)
{
	return rest_of(r).at != NULL;
}

/* The client is worked out as for any request, and asked of the lists alone. */
static bool may_enter(struct road *r)
{
	struct admission *admission = &r->admission;
	access_client(&r->settings->trust_forwarded, &r->peer, &r->exchange.request, &admission->client);
	address_host_text(&admission->client, admission->client_text);
	r->record.client = admission->client_text;
	return access_may_enter(&r->settings->allow, &r->settings->deny, &admission->client);
}

static int add_json(const char *bytes, size_t length, void *text)
{
	text_add_bytes(text, bytes, length);
	return 0;
}

static void write_status(struct road *r, enum status_form form, struct text *body)
{
	struct proxy *proxies[] = { r->proxy };
	struct roster_facts facts = { .log = r->proxy->log,
		                      .started_us = r->proxy->started_us,
		                      .is_draining = atomic_load(&r->proxy->is_draining),
		                      .last_reload_is_good = true };
	json_t *status = status_write(proxies, 1, &facts, form);
	if (status == NULL || json_dump_callback(status, add_json, body, JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0)
		body->has_failed = true;
	json_decref(status);
}

static enum step send_body(struct road *r, const char *type, const char *fields, struct text *body)
{
	struct exchange *x = &r->exchange;
	char head[PAGE_FIELDS_MAX + 512], date[HTTP_DATE_MAX];
	bool keep_alive = x->request.keep_alive && x->request.minor_version == 1 && x->request.framing == HTTP_NO_BODY &&
	                  !worker_is_draining(r->worker);
	http_write_date(clock_wall_s(), date);
	int length = snprintf(head, sizeof head,
	                      "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
	                      "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n%s%s\r\n",
	                      date, type, body->length, fields, keep_alive ? "" : "Connection: close\r\n");
	bool has_body = x->request.method != HTTP_HEAD;
	struct iovec parts[2] = { { .iov_base = head, .iov_len = (size_t)length },
		                  { .iov_base = body->bytes, .iov_len = has_body ? body->length : 0 } };
	r->record.status = 200;
	r->record.bytes_out = has_body ? body->length : 0;
	atomic_fetch_add_explicit(&r->proxy->answered_total, 1, memory_order_relaxed);
	bool is_sent = conn_send(&x->client, parts, has_body ? 2 : 1, clock_us() + r->settings->idle_timeout_us, NULL) == CONN_OK;
	r->ending = !is_sent ? END_CLOSE : keep_alive ? END_KEEP : END_LINGER;
	return road_over(r, is_sent ? "ok" : "client went away");
}

enum step stats_answer(struct road *r)
{
	struct http_text rest = rest_of(r);
	enum http_method method = r->exchange.request.method;
	char fields[PAGE_FIELDS_MAX] = "";
	const char *type = "application/json";
	struct text body = { .bytes = NULL };
	if (!may_enter(r)) {
		r->exchange.request.keep_alive = false;
		return road_refuse(r, 403, "http_request_denied", "this client may not come in");
	}
	if (method != HTTP_GET && method != HTTP_HEAD) {
		enum step step = road_refuse(r, 405, NULL, "the status page can be looked at only");
		r->answer.fields = "Allow: GET, HEAD\r\n";
		return step;
	}
	if (rest.length == 0 || http_text_is(rest, "/")) {
		type = "text/html; charset=utf-8";
		page_write(&body, fields);
	} else if (http_text_is(rest, "/api/status")) {
		write_status(r, STATUS_API, &body);
	} else if (http_text_is(rest, "/api/view")) {
		write_status(r, STATUS_PUBLIC, &body);
	} else {
		return road_refuse(r, 404, NULL, "the status page has no such part");
	}
	if (body.has_failed) {
		text_free(&body);
		return road_refuse(r, 503, "proxy_internal_error", "no memory for the status page");
	}
	enum step step = send_body(r, type, fields, &body);
	text_free(&body);
	return step;
}
