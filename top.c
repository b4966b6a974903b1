/* top.c: `weir top`: what the status page shows, in a terminal: for a classroom without a browser, and for a night on a serial line.
 *
 *      each second:  GET /api/status of another weir ──► one screen of text ──► written in one piece over the last one
 *
 * It is a client like any other and knows nothing of the inside: the same JSON that everybody may read, over a connection of its own
 * each time. Rates are what has been added since the last look. Where the output is no terminal, or a dumb one, there are no cursor
 * movements and no colours, so that it can be kept in a file; NO_COLOR is obeyed (no-color.org). A weir that can't be asked at first is a
 * mistake in the address; one that goes away later is what somebody wants to see: then the screen says so, and we go on asking.
 *
 * Bytes from the other side are shown, never obeyed: the text is JSON, whose control characters are escapes, and those are taken out
 * before a byte reaches the terminal.
 */
#include "top.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "lib/clock.h"
#include "lib/flags.h"
#include "lib/text.h"

#define ANSWER_MAX_BYTES (16u * 1024u * 1024u)
#define ASK_US (5 * US_PER_S)
#define NAMES_MAX 256u
#define BAR_CELLS 40
#define NAME_MAX_BYTES 60

struct options {
	const char *admin, *token_file;
	uint64_t interval_us;
	bool once;
};

/* What one service's counters were at the last look. */
struct before {
	char name[128];
	double at_s, requests, started, refused;
};

struct screen {
	struct text text;
	bool is_terminal, has_colours, is_lost;
	char lost_at[16]; /* when it was first not heard, of the wall clock */
	double now_s;
	struct before past[NAMES_MAX], next[NAMES_MAX];
	size_t past_count, next_count;
};

/* ---- asking --------------------------------------------------------------------------------------------------------- */

/* The JSON of an answer that is 200; NULL and *why. */
static json_t *parse_answer(const struct asked *asked, const char **why)
{
	*why = asked->status == 401 || asked->status == 403 ? "it refuses us (admin_token?)" : "it is no admin address";
	return asked->status == 200 ? json_loadb(asked->answer.bytes + asked->head_bytes, asked->answer.length - asked->head_bytes, 0, NULL) :
	                              NULL;
}

/* Of a place as admin is written, or as the log says it (http://.../). */
static json_t *ask_status(const struct options *options, const char *token, const char **why)
{
	char place[512];
	const char *text = options->admin;
	snprintf(place, sizeof place, "%s", strncmp(text, "http://", 7) == 0 ? text + 7 : text);
	if (strncmp(place, "unix:", 5) != 0)
		place[strcspn(place, "/")] = '\0';
	struct ask question = { .place = place, .target = "/api/status", .token = token, .deadline_us = clock_us() + ASK_US,
		                .answer_max_bytes = ANSWER_MAX_BYTES, .wants_body = true };
	struct asked asked;
	json_t *status = NULL;
	if (ask(&question, &asked))
		status = parse_answer(&asked, why);
	else
		*why = asked.why;
	text_free(&asked.answer);
	return status;
}

/* ---- words ---------------------------------------------------------------------------------------------------------- */

enum colour { PLAIN = 0, BOLD = 1, RED = 31, GREEN = 32, YELLOW = 33, QUIET = 2 };

static void paint(struct screen *screen, enum colour colour, const char *format, ...) PRINTF_LIKE(3, 4);
static void paint(struct screen *screen, enum colour colour, const char *format, ...)
{
	char line[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (screen->has_colours && colour != PLAIN)
		text_add(&screen->text, "\033[%dm%s\033[0m", (int)colour, line);
	else
		text_add(&screen->text, "%s", line);
}

/* The rest of a line is cleared, for a longer one may have stood there. */
static void end_line(struct screen *screen)
{
	text_add(&screen->text, screen->is_terminal ? "\033[K\n" : "\n");
}

static double number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* A string of theirs, made harmless, and no longer than there is room for. */
static const char *words(const json_t *object, const char *key, char *out, size_t size)
{
	const char *value = json_string_value(json_object_get(object, key));
	text_clean(value != NULL ? value : "", value != NULL ? strlen(value) : 0, out, size);
	return out;
}

/* How wide a column of such strings has to be. */
static int width_of(const json_t *rows, const char *key)
{
	size_t i, widest = 0;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		const char *value = json_string_value(json_object_get(row, key));
		size_t length = value != NULL ? strlen(value) : 0;
		widest = length > widest ? length : widest;
	}
	return (int)(widest < NAME_MAX_BYTES ? widest : NAME_MAX_BYTES);
}

static void paint_bar(struct screen *screen, double used, double all, enum colour colour)
{
	double share = all > 0 ? used / all : 0; /* of numbers that are not ours: any */
	int filled = share > 0 ? (int)((share < 1 ? share : 1) * BAR_CELLS + 0.5) : 0;
	char bar[BAR_CELLS + 1];
	memset(bar, '#', (size_t)filled);
	memset(bar + filled, '.', (size_t)(BAR_CELLS - filled));
	bar[BAR_CELLS] = '\0';
	paint(screen, colour, "[%s]", bar);
}

/* ---- one service ------------------------------------------------------------------------------------------------------ */

static struct before *find_before(struct screen *screen, const char *name)
{
	for (size_t i = 0; i < screen->past_count; i++)
		if (strcmp(screen->past[i].name, name) == 0)
			return &screen->past[i];
	return NULL;
}

/* Returns the starts in each second since the last look, -1 at the first one. */
static double paint_rates(struct screen *screen, const json_t *service, const char *name)
{
	struct before now = { .at_s = screen->now_s, .requests = number(service, "requests_total"),
		              .started = number(service, "started_total"), .refused = number(service, "refused_total") };
	snprintf(now.name, sizeof now.name, "%s", name);
	const struct before *past = find_before(screen, name);
	double s = past != NULL ? now.at_s - past->at_s : 0;
	bool has_grown = s > 0 && now.requests >= past->requests && now.started >= past->started && now.refused >= past->refused;
	if (has_grown)
		paint(screen, PLAIN, "  requests %.0f (%.1f/s)  started %.0f (%.1f/s)  refused %.0f (%.1f/s)", now.requests,
		      (now.requests - past->requests) / s, now.started, (now.started - past->started) / s, now.refused,
		      (now.refused - past->refused) / s);
	else
		paint(screen, PLAIN, "  requests %.0f  started %.0f  refused %.0f", now.requests, now.started, now.refused);
	double started_per_s = has_grown ? (now.started - past->started) / s : -1;
	if (screen->next_count < NAMES_MAX)
		screen->next[screen->next_count++] = now;
	const json_t *answers = json_object_get(service, "answers");
	double errors = number(answers, "5xx");
	paint(screen, errors > 0 ? RED : PLAIN, "  5xx %.0f", errors);
	end_line(screen);
	return started_per_s;
}

/* What a group's node has started of the group's threshold it can only guess: then what was counted between two looks is shown. */
static void paint_window(struct screen *screen, const json_t *service, double threshold, double started_per_s)
{
	double window_s = number(service, "window_s"), used = number(service, "in_window");
	bool is_shared = json_object_get(service, "group") != NULL;
	if (is_shared && started_per_s < 0) {
		paint(screen, PLAIN, "  window  %.0f in %g s, for the whole group", threshold, window_s);
	} else {
		used = is_shared ? started_per_s * window_s : used;
		paint(screen, PLAIN, "  window ");
		paint_bar(screen, used, threshold, used >= threshold ? YELLOW : GREEN);
		paint(screen, PLAIN, is_shared ? " %.0f of the group's %.0f in %g s" : " %.0f of %.0f in %g s", used, threshold, window_s);
	}
	end_line(screen);
}

static void paint_limits(struct screen *screen, const json_t *service, double started_per_s)
{
	double threshold = number(service, "threshold"), waiting = number(service, "waiting"), room = number(service, "backlog_requests");
	if (threshold > 0)
		paint_window(screen, service, threshold, started_per_s);
	if (room > 0) {
		paint(screen, PLAIN, "  line   ");
		paint_bar(screen, waiting, room, waiting >= room ? RED : YELLOW);
		paint(screen, PLAIN, " %.0f of %.0f wait", waiting, room);
		end_line(screen);
	}
	const json_t *times = json_object_get(service, "times"), *total = json_object_get(times, "total");
	if (number(total, "count") > 0) {
		const json_t *wait = json_object_get(times, "wait");
		paint(screen, QUIET, "  half of all under %.1f ms, 95 %% under %.1f ms; waiting: %.1f, %.1f ms", number(total, "p50_s") * 1e3,
		      number(total, "p95_s") * 1e3, number(wait, "p50_s") * 1e3, number(wait, "p95_s") * 1e3);
		end_line(screen);
	}
}

/* What matters most stands in front: eighty columns are all that some have. */
static void paint_targets(struct screen *screen, const json_t *service)
{
	char address[NAME_MAX_BYTES + 1], state[16];
	const json_t *targets = json_object_get(service, "targets");
	int width = width_of(targets, "address");
	size_t i;
	json_t *target;
	json_array_foreach(targets, i, target)
	{
		words(target, "state", state, sizeof state);
		bool is_in = strcmp(state, "in") == 0;
		paint(screen, PLAIN, "  %s %-*s ", json_is_true(json_object_get(target, "next")) ? ">" : " ", width,
		      words(target, "address", address, sizeof address));
		paint(screen, is_in ? GREEN : strcmp(state, "out") == 0 ? RED : YELLOW, "%-5s", state);
		double answers = number(target, "answers_total");
		paint(screen, PLAIN, " active %-4.0f requests %-8.0f failures %-4.0f", number(target, "active"),
		      number(target, "requests_total"), number(target, "failures_total"));
		if (answers > 0)
			paint(screen, QUIET, " %.1f ms", number(target, "answers_s") / answers * 1e3);
		if (number(target, "weight") > 1)
			paint(screen, QUIET, " weight %.0f", number(target, "weight"));
		end_line(screen);
	}
}

static void paint_hosts(struct screen *screen, const json_t *service)
{
	char name[NAME_MAX_BYTES + 1];
	const json_t *hosts = json_object_get(service, "hosts");
	int width = width_of(hosts, "host");
	size_t i;
	json_t *host;
	json_array_foreach(hosts, i, host)
	{
		double active = number(host, "active"), limit = number(host, "limit"), waiting = number(host, "waiting");
		if (i >= 20)
			break;
		paint(screen, PLAIN, "    %-*s ", width, words(host, "host", name, sizeof name));
		if (limit > 0)
			paint_bar(screen, active, limit, active >= limit ? RED : GREEN);
		paint(screen, PLAIN, limit > 0 ? " %.0f of %.0f" : " %.0f connections", active, limit);
		if (waiting > 0)
			paint(screen, YELLOW, ", %.0f wait", waiting);
		end_line(screen);
	}
}

static void paint_group(struct screen *screen, const json_t *service)
{
	char state[16], address[128];
	const json_t *group = json_object_get(service, "group");
	size_t i;
	json_t *node;
	if (group == NULL)
		return;
	paint(screen, PLAIN, "  group %s: node %.0f, master %.0f, epoch %.0f", words(group, "address", address, sizeof address), number(group, "self"),
	      number(group, "master"), number(group, "epoch"));
	end_line(screen);
	json_array_foreach(json_object_get(group, "nodes"), i, node)
	{
		paint(screen, PLAIN, "    node %-5.0f %-5s heard %.0f ms ago  started %.0f  waiting %.0f  granted %.0f", number(node, "id"), words(node, "state", state, sizeof state),
		      number(node, "age_ms"), number(node, "started_total"), number(node, "waiting"), number(node, "granted"));
		end_line(screen);
	}
}

static void paint_service(struct screen *screen, const json_t *service)
{
	char name[128], mode[16];
	words(service, "name", name, sizeof name);
	paint(screen, BOLD, "%s", name);
	paint(screen, QUIET, "  %s, port %.0f, %.0f connections%s", words(service, "mode", mode, sizeof mode), number(service, "port"),
	      number(service, "connections"), json_is_true(json_object_get(service, "draining")) ? ", draining" : "");
	end_line(screen);
	double started_per_s = paint_rates(screen, service, name);
	paint_limits(screen, service, started_per_s);
	paint_targets(screen, service);
	paint_hosts(screen, service);
	paint_group(screen, service);
	end_line(screen);
}

/* ---- the screen --------------------------------------------------------------------------------------------------------- */

/* Only as many lines as there is room for: a longer text would scroll, and the next screen would stand below. The last one says how much
   there is besides. */
static void cut_to_height(struct text *text)
{
	struct winsize size;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row < 3)
		return;
	size_t lines = 0, kept = 0, room = size.ws_row - 2u;
	for (size_t i = 0; i < text->length; i++)
		if (text->bytes[i] == '\n' && ++lines == room)
			kept = i + 1;
	if (lines <= room + 1)
		return;
	text->length = kept;
	text_add(text, "... and %zu more lines\033[K", lines - room);
}

/* One piece, so that no half of a screen is seen. */
static bool flush_screen(struct screen *screen)
{
	bool good = !screen->text.has_failed && fwrite(screen->text.bytes, 1, screen->text.length, stdout) == screen->text.length &&
	            fflush(stdout) == 0;
	text_free(&screen->text);
	return good;
}

static bool show_status(struct screen *screen, const struct options *options, const json_t *status, const char *clock_text)
{
	char version[64];
	json_t *service;
	size_t i;
	screen->now_s = (double)clock_us() / 1e6;
	screen->next_count = 0;
	text_add(&screen->text, !screen->is_terminal ? "" : screen->past_count == 0 ? "\033[?7l\033[2J\033[H" : "\033[?7l\033[H"); /* cut, not wrapped */
	paint(screen, BOLD, "weir %s", words(status, "version", version, sizeof version));
	paint(screen, QUIET, "  at %s, up %.0f s, %s%s%s", options->admin, number(status, "uptime_s"), clock_text,
	      json_is_true(json_object_get(status, "draining")) ? ", draining" : "",
	      json_is_false(json_object_get(status, "last_reload_good")) ? ", the last reload was refused" : "");
	end_line(screen);
	end_line(screen);
	json_array_foreach(json_object_get(status, "services"), i, service)
		paint_service(screen, service);
	if (screen->is_terminal) {
		cut_to_height(&screen->text);
		text_add(&screen->text, "\033[J\033[?7h");
	}
	memcpy(screen->past, screen->next, sizeof screen->past);
	screen->past_count = screen->next_count;
	screen->is_lost = false;
	return flush_screen(screen);
}

/* The first line is written over; what was seen last stays below. */
static bool show_loss(struct screen *screen, const struct options *options, const char *why, const char *clock_text)
{
	if (!screen->is_lost)
		snprintf(screen->lost_at, sizeof screen->lost_at, "%s", clock_text);
	else if (!screen->is_terminal)
		return true; /* said already */
	screen->is_lost = true;
	text_add(&screen->text, screen->is_terminal ? "\033[?7l\033[H" : "");
	paint(screen, RED, "no answer since %s", screen->lost_at);
	paint(screen, PLAIN, " from %s: %s; trying again, %s", options->admin, why, clock_text);
	end_line(screen);
	text_add(&screen->text, screen->is_terminal ? "\033[?7h" : "");
	return flush_screen(screen);
}

enum look { LOOK_GOOD, LOOK_FAILED, LOOK_NO_OUTPUT };

/* is_first: nobody there is a mistake, and is told as one. */
static enum look look(struct screen *screen, const struct options *options, const char *token, bool is_first)
{
	const char *why = "";
	char clock_text[16];
	struct tm parts;
	json_t *status = ask_status(options, token, &why);
	time_t now = time(NULL);
	strftime(clock_text, sizeof clock_text, "%H:%M:%S", localtime_r(&now, &parts));
	if (status == NULL && is_first) {
		fprintf(stderr, "weir top: %s: %s\n", options->admin, why);
		return LOOK_FAILED;
	}
	bool is_shown = status != NULL ? show_status(screen, options, status, clock_text) : show_loss(screen, options, why, clock_text);
	json_decref(status);
	return is_shown ? LOOK_GOOD : LOOK_NO_OUTPUT;
}

static bool is_able_terminal(void)
{
	const char *kind = getenv("TERM");
	return isatty(STDOUT_FILENO) && (kind == NULL || strcmp(kind, "dumb") != 0);
}

/* The file's first line. */
static bool read_token(const char *path, char token[512])
{
	token[0] = '\0';
	if (path == NULL)
		return true;
	FILE *file = fopen(path, "re");
	bool good = file != NULL && fgets(token, 512, file) != NULL;
	if (file != NULL)
		fclose(file);
	token[strcspn(token, "\r\n")] = '\0';
	if (!good)
		fprintf(stderr, "weir top: --token-file: \"%s\" can't be read\n", path);
	return good;
}

int top_main(int argc, char **argv)
{
	static const char usage[] = "weir top [--admin HOST:PORT] [--interval SECONDS] [--once]\n"
				    "Shows what a running weir does, from its admin address, again and again.\n";
	struct options options = { .admin = "127.0.0.1:9100", .interval_us = US_PER_S };
	const struct flag table[] = {
		{ .name = "admin", .kind = FLAG_TEXT, .into.text = &options.admin, .value = "HOST:PORT",
		  .help = "the admin address of the weir to look at, as its setting admin or its log says (127.0.0.1:9100)" },
		{ .name = "interval", .kind = FLAG_SECONDS, .into.number = &options.interval_us, .lowest = 100000, .highest = 3600 * US_PER_S,
		  .value = "SECONDS", .help = "from one look to the next (1)" },
		{ .name = "once", .kind = FLAG_SWITCH, .into.on = &options.once, .help = "look once, and end" },
		{ .name = "token-file", .kind = FLAG_TEXT, .into.text = &options.token_file, .value = "FILE",
		  .help = "file that holds the admin_token, where Host is not one that is let in without" },
	};
	char error[FLAGS_ERROR_BYTES], token[512];
	size_t count = sizeof table / sizeof table[0];
	enum flags_result result = flags_read(table, count, argc, argv, error);
	if (result != FLAGS_READ)
		return flags_finish(result, "weir top", usage, table, count, error);
	if (!read_token(options.token_file, token))
		return 2;
	struct screen *screen = calloc(1, sizeof *screen);
	if (screen == NULL)
		return 1;
	screen->is_terminal = is_able_terminal();
	screen->has_colours = screen->is_terminal && getenv("NO_COLOR") == NULL;
	enum look seen = look(screen, &options, token, true);
	struct timespec pause = { .tv_sec = (time_t)(options.interval_us / US_PER_S), .tv_nsec = (long)(options.interval_us % US_PER_S) * 1000 };
	while (seen == LOOK_GOOD && !options.once) {
		nanosleep(&pause, NULL);
		seen = look(screen, &options, token, false);
	}
	free(screen);
	return seen == LOOK_GOOD ? 0 : 1;
}
