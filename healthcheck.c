/* healthcheck.c: `weir --healthcheck [URL]`: asks a weir that runs whether it is well, and says so by its exit status.
 *
 *      engine ── every 10 s ──► weir --healthcheck ── GET /healthz ──► admin of the weir in the same container
 *             ◄── 0 or 1 ──────                    ◄── 200 ───────
 *
 * A container's engine asks for health by running a command inside. The usual one is curl, which brings thirty libraries into
 * an image that has one program otherwise, and each of them must be kept up to date there. The program itself can ask.
 *
 * Where to ask: the URL that is given; else the admin address that WEIR_ADMIN names, which the proxy in the same container reads too, so
 * that the two cannot differ; else port 9100. Nothing else is read, above all no file: a health check has to work, and quickly, when the
 * file has been broken since the start, for what it asks about is the process.
 *
 * /healthz is 200 while the process answers, also while it drains. Whether it could serve a request is /readyz: say that URL where
 * the answer decides about traffic and not about a restart. A proxy that is killed because its targets are down helps nobody.
 */
#include "healthcheck.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ask.h"
#include "lib/admin.h"
#include "lib/clock.h"

#define DEADLINE_US (5 * US_PER_S)
#define HEAD_MAX_BYTES (64u * 1024u)
#define DEFAULT_PLACE "127.0.0.1:9100"
#define DEFAULT_TARGET "/healthz"
#define OPTION "healthcheck"
#define SCHEME "http://"
#define PORT_MAX 65535u

enum { EXIT_WELL = 0, EXIT_UNWELL = 1, EXIT_USAGE = 2 };

struct whereabouts {
	char place[ASK_HOST_MAX + sizeof ":65535"];
	const char *target;
};

/* The option's name, or NULL. */
static const char *option_of(const char *argument)
{
	if (argument[0] != '-')
		return NULL;
	const char *name = argument + (argument[1] == '-' ? 2 : 1);
	size_t length = strlen(OPTION);
	return strncasecmp(name, OPTION, length) == 0 && (name[length] == '\0' || name[length] == '=') ? name : NULL;
}

bool healthcheck_is_asked(const char *argument)
{
	return option_of(argument) != NULL;
}

/* Nothing that could end the request's line, or a terminal's. */
static bool is_visible(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
			return false;
	return true;
}

/* The host's part of a URL, with or without :PORT. False when it can be neither a name nor an address with a port. */
static bool is_authority(const char *text, size_t length, bool *has_port)
{
	const char *end = text + length, *host_end = text[0] == '[' ? memchr(text, ']', length) : memchr(text, ':', length);
	if (text[0] == '[' && host_end == NULL)
		return false;
	const char *colon = host_end == NULL ? end : text[0] == '[' ? host_end + 1 : host_end;
	*has_port = colon < end;
	if (!*has_port)
		return true;
	unsigned long port = 0;
	for (const char *digit = colon + 1; digit < end && port <= PORT_MAX; digit++)
		port = *digit >= '0' && *digit <= '9' ? port * 10 + (unsigned)(*digit - '0') : PORT_MAX + 1;
	return *colon == ':' && colon > text && port >= 1 && port <= PORT_MAX;
}

/* http://HOST[:PORT][/PATH] is asked as it stands; of a place as admin is written, /healthz. */
static bool read_whereabouts(const char *text, struct whereabouts *out)
{
	bool is_url = strncasecmp(text, SCHEME, strlen(SCHEME)) == 0;
	const char *authority = is_url ? text + strlen(SCHEME) : text;
	size_t length = is_url ? strcspn(authority, "/?#") : strlen(authority);
	if (!is_visible(text) || length == 0 || length >= ASK_HOST_MAX || (!is_url && strstr(text, "://") != NULL))
		return false;
	out->target = !is_url ? DEFAULT_TARGET : authority[length] == '\0' ? "/" : authority + length;
	if (out->target[0] != '/' || strchr(out->target, '#') != NULL || memchr(authority, '@', length) != NULL)
		return false;
	bool has_port = true;
	struct admin_place place;
	if (is_url || !admin_parse_place(authority, &place)) {
		if (!is_authority(authority, length, &has_port) || (!is_url && !has_port))
			return false;
	}
	snprintf(out->place, sizeof out->place, "%.*s%s", (int)length, authority, is_url && !has_port ? ":80" : "");
	return true;
}

int healthcheck_main(int argc, char **argv)
{
	const char *name = option_of(argv[1]), *said_by = "--healthcheck";
	const char *text = name[strlen(OPTION)] == '=' ? name + strlen(OPTION) + 1 : argc > 2 ? argv[2] : NULL;
	if (argc > 3 || (argc > 2 && text != argv[2])) {
		fprintf(stderr, "weir: --healthcheck: more than one argument was read; allowed: one URL, or none\n");
		return EXIT_USAGE;
	}
	if (text == NULL) {
		text = getenv("WEIR_ADMIN");
		said_by = "environment WEIR_ADMIN";
		if (text == NULL || *text == '\0')
			text = DEFAULT_PLACE;
	}
	struct whereabouts where;
	if (!read_whereabouts(text, &where)) {
		fprintf(stderr, "weir: %s: '%.160s' was read; allowed: http://HOST[:PORT][/PATH], or an address as admin has it\n", said_by,
		        is_visible(text) ? text : "control characters");
		return EXIT_USAGE;
	}
	struct ask question = { .place = where.place, .target = where.target, .token = "", .deadline_us = clock_us() + DEADLINE_US,
		                .answer_max_bytes = HEAD_MAX_BYTES };
	struct asked asked;
	bool is_answered = ask(&question, &asked), is_well = is_answered && asked.status >= 200 && asked.status < 300;
	text_free(&asked.answer);
	if (is_answered && !is_well)
		fprintf(stderr, "weir: --healthcheck: %s answers %s with %d\n", where.place, where.target, asked.status);
	else if (!is_answered)
		fprintf(stderr, "weir: --healthcheck: %s: %s\n", where.place, asked.why);
	return is_well ? EXIT_WELL : EXIT_UNWELL;
}
