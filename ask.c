/* ask.c: one question to a weir that runs, over a connection of its own.
 *
 *      place ──► addresses ──► the first that takes a connection ──► GET ──► the answer's head (and body, to the connection's end)
 *      └─────────────────────────── one deadline for all of it ───────────────────────────────────────────────────────┘
 *
 * A health check that hangs is worse than one that says no: whoever called it (a container's engine, a script at night) waits with it.
 * So the deadline is a moment that every step shares. Resolving is one of those steps, and getaddrinfo() can't be interrupted:
 * lookup.h leaves it behind.
 *
 * A name can have several addresses ("localhost" is ::1 and 127.0.0.1), of which weir may listen on one only: they are tried in turn.
 */
#include "ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/admin.h"
#include "lib/clock.h"
#include "lib/conn.h"
#include "lib/http.h"
#include "lib/lookup.h"

#define QUESTION_MAX_BYTES 4096

/* ---- where ---------------------------------------------------------------------------------------------------------- */

static bool add_address(const char *host, unsigned port, struct lookup_answer *found)
{
	return address_parse(host, port, &found->addresses[found->count]) && ++found->count > 0;
}

/* What admin may be set to, but for a name. Every address of that machine ("::", "0.0.0.0"): loopback is one of them, in either family,
   for a container has often only one. */
static bool addresses_of_place(const char *text, char host[ASK_HOST_MAX], struct lookup_answer *found)
{
	struct admin_place place;
	if (!admin_parse_place(text, &place) || place.name[0] != '\0')
		return false;
	if (strncmp(place.bind, "unix:", 5) == 0) {
		snprintf(host, ASK_HOST_MAX, "localhost");
		found->count = address_unix(place.bind + 5, &found->addresses[0]);
		return found->count == 1;
	}
	bool is_every_v6 = strcmp(place.bind, "::") == 0, is_every = is_every_v6 || strcmp(place.bind, "0.0.0.0") == 0;
	snprintf(host, ASK_HOST_MAX, strchr(place.bind, ':') != NULL ? "[%s]" : "%s", place.bind);
	if (!is_every)
		return add_address(place.bind, place.port, found);
	snprintf(host, ASK_HOST_MAX, "127.0.0.1");
	return add_address("127.0.0.1", place.port, found) && (!is_every_v6 || add_address("::1", place.port, found));
}

/* HOST:PORT. False and *why. */
static bool addresses_of_name(const char *place, uint64_t deadline_us, char host[ASK_HOST_MAX], struct lookup_answer *found,
                              const char **why)
{
	const char *colon = strrchr(place, ':');
	char *end = NULL;
	unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
	*why = "it is no HOST:PORT";
	if (colon == NULL || colon == place || (size_t)(colon - place) >= ASK_HOST_MAX || *end != '\0' || port < 1 || port > 65535)
		return false;
	snprintf(host, ASK_HOST_MAX, "%.*s", (int)(colon - place), place);
	struct lookups *lookups = lookups_create(1);
	*why = "out of memory";
	if (lookups == NULL)
		return false;
	enum lookup_result result = lookup(lookups, "me", host, (unsigned)port, deadline_us, found);
	lookups_destroy(lookups);
	if (result != LOOKUP_NO_MEMORY)
		*why = result == LOOKUP_LATE ? "its name was not resolved in time" : "no such host";
	return result == LOOKUP_FOUND;
}

/* A connection, or -1 and *why. */
static int connect_to(const struct ask *question, char host[ASK_HOST_MAX], const char **why)
{
	struct lookup_answer *found = calloc(1, sizeof *found);
	int fd = -1;
	*why = "out of memory";
	if (found == NULL)
		return -1;
	if (!addresses_of_place(question->place, host, found) &&
	    !addresses_of_name(question->place, question->deadline_us, host, found, why))
		found->count = 0;
	for (size_t i = 0; i < found->count && fd < 0; i++) {
		*why = "it can't be connected to";
		fd = conn_socket(&found->addresses[i]);
		if (fd >= 0 && conn_connect(fd, &found->addresses[i], question->deadline_us) != CONN_OK) {
			close(fd);
			fd = -1;
		}
	}
	free(found);
	return fd;
}

/* ---- question and answer -------------------------------------------------------------------------------------------- */

static bool send_question(int fd, const struct ask *question, const char *host)
{
	char bytes[QUESTION_MAX_BYTES];
	struct conn conn;
	conn_init(&conn, fd, bytes, sizeof bytes);
	bool has_token = question->token[0] != '\0';
	int length = snprintf(bytes, sizeof bytes, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s%s%s\r\n", question->target, host,
	                      has_token ? "Authorization: Bearer " : "", question->token, has_token ? "\r\n" : "");
	if (length < 0 || length >= (int)sizeof bytes)
		return false;
	struct iovec part = { .iov_base = bytes, .iov_len = (size_t)length };
	return conn_send(&conn, &part, 1, question->deadline_us, NULL) == CONN_OK;
}

/* Reads the head, and if it is wanted the body: that ends with the connection. */
static bool read_answer(int fd, const struct ask *question, struct asked *asked)
{
	char bytes[16384];
	struct conn conn;
	struct http_scan scan = { .is_response = true };
	enum http_scan_result head = HTTP_SCAN_MORE;
	enum conn_result result = CONN_OK;
	while (result == CONN_OK && head != HTTP_SCAN_BAD && (question->wants_body || head == HTTP_SCAN_MORE) &&
	       asked->answer.length < question->answer_max_bytes && !asked->answer.has_failed) {
		conn_init(&conn, fd, bytes, sizeof bytes);
		result = conn_fill(&conn, question->deadline_us);
		if (result != CONN_OK)
			break;
		text_add_bytes(&asked->answer, conn_bytes(&conn), conn_available(&conn));
		if (head == HTTP_SCAN_MORE && !asked->answer.has_failed)
			head = http_scan(&scan, asked->answer.bytes, asked->answer.length, &asked->head_bytes);
	}
	asked->why = head == HTTP_SCAN_BAD ? "its answer is no HTTP" : "it did not answer in time";
	if (head == HTTP_SCAN_MORE && result != CONN_TIMEOUT)
		asked->why = "it closed the connection without an answer";
	return head == HTTP_SCAN_COMPLETE && !asked->answer.has_failed && (!question->wants_body || result == CONN_END);
}

bool ask(const struct ask *question, struct asked *asked)
{
	char host[ASK_HOST_MAX] = "";
	*asked = (struct asked){ .why = "it did not take the question" };
	int fd = connect_to(question, host, &asked->why);
	if (fd < 0)
		return false;
	asked->why = "it did not take the question";
	bool is_whole = send_question(fd, question, host) && read_answer(fd, question, asked);
	close(fd);
	struct http_head *head = is_whole ? malloc(sizeof *head) : NULL;
	if (is_whole) {
		asked->why = head == NULL ? "out of memory" : "its answer is no HTTP";
		if (head != NULL && http_parse_response(asked->answer.bytes, asked->head_bytes, HTTP_GET, head).status == 0)
			asked->status = head->status;
	}
	free(head);
	return asked->status != 0;
}
