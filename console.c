/* console.c: see console.h. */
#include "console.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "lib/admin.h"
#include "lib/clock.h"
#include "lib/page.h"
#include "live.h"
#include "metrics.h"
#include "status.h"

#define JSON "application/json"
/* How long a change waits for a reload that is under way. */
#define CHANGE_US (5 * US_PER_S)

struct console {
	struct roster *roster;
	struct log *log;
	struct admin *admin;
	struct live *live;
	char *place, *token;
};

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static void reply_text(struct admin_reply *reply, int status, const char *type, struct text *text)
{
	if (text->has_failed) {
		text_free(text);
		admin_refuse(reply, 503, "out of memory");
		return;
	}
	reply->status = status;
	reply->content_type = type;
	reply->body = text->bytes;
	reply->body_bytes = text->length;
	*text = (struct text){ .bytes = NULL };
}

static int add_json(const char *bytes, size_t length, void *text)
{
	text_add_bytes(text, bytes, length);
	return 0;
}

/* The object is used up. */
static void write_json(json_t *object, size_t flags, struct text *out)
{
	if (object == NULL || json_dump_callback(object, add_json, out, flags) != 0)
		out->has_failed = true;
	json_decref(object);
}

static void reply_json(struct admin_reply *reply, json_t *object)
{
	struct text text = { .bytes = NULL };
	write_json(object, JSON_INDENT(1) | JSON_REAL_PRECISION(9), &text);
	text_add_bytes(&text, "\n", 1);
	reply_text(reply, 200, JSON, &text);
}

static void reply_words(struct admin_reply *reply, int status, const char *words)
{
	struct text text = { .bytes = NULL };
	text_add(&text, "%s\n", words);
	reply_text(reply, status, "text/plain; charset=utf-8", &text);
}

/* ---- what is asked for ------------------------------------------------------------------------------------------------ */

typedef void (*answerer)(struct console *console, const struct roster_view *view, const struct admin_request *request,
                         struct admin_reply *reply);

static void answer_page(struct console *console, const struct roster_view *view, const struct admin_request *request,
                        struct admin_reply *reply)
{
	struct text text = { .bytes = NULL };
	(void)console, (void)view, (void)request;
	page_write(&text, reply->room);
	reply->fields = reply->room;
	reply_text(reply, 200, "text/html; charset=utf-8", &text);
}

static void answer_health(struct console *console, const struct roster_view *view, const struct admin_request *request,
                          struct admin_reply *reply)
{
	(void)console, (void)view, (void)request;
	reply_words(reply, 200, "ok");
}

static void answer_ready(struct console *console, const struct roster_view *view, const struct admin_request *request,
                         struct admin_reply *reply)
{
	struct roster_facts facts;
	(void)request;
	roster_facts(console->roster, &facts);
	if (facts.is_draining)
		reply_words(reply, 503, "draining");
	else if (!status_is_ready(view->proxies, view->count))
		reply_words(reply, 503, "no service has a target that is in");
	else
		reply_words(reply, 200, "ready");
}

static void answer_metrics(struct console *console, const struct roster_view *view, const struct admin_request *request,
                           struct admin_reply *reply)
{
	struct roster_facts facts;
	struct text text = { .bytes = NULL };
	(void)request;
	roster_facts(console->roster, &facts);
	metrics_write(view->proxies, view->count, &facts, &text);
	reply_text(reply, 200, "text/plain; version=0.0.4; charset=utf-8", &text);
}

static void answer_status(struct console *console, const struct roster_view *view, const struct admin_request *request,
                          struct admin_reply *reply)
{
	struct roster_facts facts;
	(void)request;
	roster_facts(console->roster, &facts);
	reply_json(reply, status_write(view->proxies, view->count, &facts, STATUS_API));
}

static void answer_view(struct console *console, const struct roster_view *view, const struct admin_request *request,
                        struct admin_reply *reply)
{
	struct roster_facts facts;
	(void)request;
	roster_facts(console->roster, &facts);
	reply_json(reply, status_write(view->proxies, view->count, &facts, STATUS_PAGE));
}

static void stream_frames(void *context, struct admin_stream *stream)
{
	struct console *console = context;
	live_stream(console->live, stream);
}

static void answer_live(struct console *console, const struct roster_view *view, const struct admin_request *request,
                        struct admin_reply *reply)
{
	(void)view;
	if (!request->wants_body) { /* HEAD */
		reply->status = 200;
		reply->content_type = "text/event-stream";
	} else if (!live_enter(console->live)) {
		admin_refuse(reply, 503, "too many look already");
	} else {
		reply->status = 200;
		reply->content_type = "text/event-stream";
		reply->stream = stream_frames;
	}
}

typedef int (*changer)(struct proxy *const *proxies, size_t count, const char *body, size_t body_bytes, char why[CONTROL_WHY_MAX]);
typedef json_t *(*writer)(struct proxy *const *proxies, size_t count);

/* Shows; or changes, and shows what it is then. Who changes has the turn (answer_in_turn()). */
static void change(const struct roster_view *view, const struct admin_request *request, struct admin_reply *reply, changer put,
                   writer show)
{
	char why[CONTROL_WHY_MAX] = "";
	int status = 200;
	if (request->method == HTTP_PUT)
		status = put(view->proxies, view->count, request->body, request->body_bytes, why);
	if (status == 200)
		reply_json(reply, show(view->proxies, view->count));
	else
		admin_refuse(reply, status, why);
}

static void answer_limits(struct console *console, const struct roster_view *view, const struct admin_request *request,
                          struct admin_reply *reply)
{
	(void)console;
	change(view, request, reply, control_put_limits, status_limits);
}

static void answer_targets(struct console *console, const struct roster_view *view, const struct admin_request *request,
                           struct admin_reply *reply)
{
	(void)console;
	change(view, request, reply, control_put_targets, status_targets);
}

static const struct {
	const char *path;
	bool may_put;
	answerer answer;
} routes[] = {
	{ "/", false, answer_page },
	{ "/healthz", false, answer_health },
	{ "/readyz", false, answer_ready },
	{ "/metrics", false, answer_metrics },
	{ "/api/status", false, answer_status },
	{ "/api/view", false, answer_view },
	{ "/api/live", false, answer_live },
	{ "/api/limits", true, answer_limits },
	{ "/api/targets", true, answer_targets },
};

static void answer_now(struct console *console, answerer answer, const struct admin_request *request, struct admin_reply *reply)
{
	struct roster_view view;
	if (!roster_hold(console->roster, &view)) {
		admin_refuse(reply, 503, "out of memory");
		return;
	}
	answer(console, &view, request, reply);
	roster_release(&view);
}

/* A change takes its turn with reloads before it takes hold of any service. */
static void answer_in_turn(struct console *console, answerer answer, const struct admin_request *request, struct admin_reply *reply)
{
	if (!roster_begin_change(console->roster, clock_us() + CHANGE_US)) {
		admin_refuse(reply, 503, "a reload is under way: try again");
		return;
	}
	answer_now(console, answer, request, reply);
	roster_end_change(console->roster);
}

static void answer(void *context, const struct admin_request *request, struct admin_reply *reply)
{
	struct console *console = context;
	size_t i = 0, count = sizeof routes / sizeof routes[0];
	while (i < count && !(strlen(routes[i].path) == request->path.length &&
	                      memcmp(routes[i].path, request->path.at, request->path.length) == 0))
		i++;
	if (i == count) {
		admin_refuse(reply, 404, "no such page; /, /metrics, /healthz, /readyz, /api/status, /api/limits and /api/targets are");
		return;
	}
	if (request->method == HTTP_PUT && !routes[i].may_put) {
		admin_refuse(reply, 405, "this can be looked at only");
		reply->fields = "Allow: GET, HEAD\r\n";
		return;
	}
	if (request->method == HTTP_PUT)
		answer_in_turn(console, routes[i].answer, request, reply);
	else
		answer_now(console, routes[i].answer, request, reply);
}

/* ---- the moving picture ----------------------------------------------------------------------------------------------- */

static void make_frame(void *context, struct text *out)
{
	struct console *console = context;
	struct roster_facts facts;
	struct roster_view view;
	roster_facts(console->roster, &facts);
	if (!roster_hold(console->roster, &view)) {
		out->has_failed = true;
		return;
	}
	write_json(status_write(view.proxies, view.count, &facts, STATUS_PAGE), JSON_COMPACT | JSON_REAL_PRECISION(9), out);
	roster_release(&view);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static void complain(void *context, const char *what, int error)
{
	struct console *console = context;
	log_write(console->log, LOG_LEVEL_ERROR, NULL, "admin: %s: %s", what, strerror(error));
}

static bool same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool console_is_at(const struct console *console, const char *place)
{
	return same(console->place, place);
}

bool console_is(const struct console *console, const char *place, const char *token)
{
	return same(console->place, place) && same(console->token, token);
}

struct console *console_open(struct roster *roster, const char *place, const char *token, const struct console *beside, char *error,
                             size_t error_size)
{
	struct roster_facts facts;
	struct console *console = calloc(1, sizeof *console);
	snprintf(error, error_size, "admin: out of memory");
	if (console == NULL)
		return NULL;
	roster_facts(roster, &facts);
	console->roster = roster;
	console->log = facts.log;
	console->place = strdup(place);
	console->token = token != NULL ? strdup(token) : NULL;
	if (console->place != NULL && (token == NULL || console->token != NULL)) {
		struct admin_job job = { .context = console, .answer = answer, .complain = complain };
		console->admin = admin_open(place, token, &job, beside != NULL ? beside->admin : NULL, error, error_size);
	}
	if (console->admin != NULL)
		return console;
	console_stop(console);
	return NULL;
}

bool console_start(struct console *console, char *error, size_t error_size)
{
	char url[ADMIN_URL_MAX];
	console->live = live_create(make_frame, console);
	if (console->live == NULL) {
		snprintf(error, error_size, "admin: no memory or threads to serve with");
		return false;
	}
	admin_url(console->admin, url);
	if (!admin_start(console->admin, error, error_size))
		return false;
	log_write(console->log, LOG_LEVEL_INFO, NULL, "the status page, metrics and the API are at %s", url);
	return true;
}

void console_stop(struct console *console)
{
	if (console == NULL)
		return;
	admin_stop(console->admin);
	live_destroy(console->live);
	free(console->place);
	if (console->token != NULL)
		explicit_bzero(console->token, strlen(console->token));
	free(console->token);
	free(console);
}
