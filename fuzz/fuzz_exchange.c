/* fuzz_exchange.c: whole exchanges from random bytes, both ways, read again by somebody else.
 *
 *      input ──┬─► client's bytes ──► lib/exchange.c ──► what the target is sent ──► strict.h: one message, the same
 *              │        └─► strict.h: a message that ends here                        method, target, body, framing
 *              └─► target's bytes ──► lib/exchange.c ──► what the client is sent ──► strict.h: the same status, body
 *                       └─► strict.h
 *
 * The input is what the client says, a line of four dashes, and what each target answers; without that line the target
 * answers nothing. The client's bytes may be many messages: each must begin where the second reader thinks that it does. A message
 * that the second reader calls bad, or cut off, may not arrive whole anywhere.
 *
 * Peers are ends of socket pairs. All that they say has been written before it is asked for, and then comes the end of their
 * stream: so nobody waits for anybody, and the same input gives the same run.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/exchange.h"
#include "strict.h"

#define MAX_HEADER 4096u
#define INPUT_MAX 65536u
#define SEEN_MAX (4u * INPUT_MAX)
#define MESSAGES_MAX 40

static const char parting[] = "\n----\n";
static struct exchange x;
static char client_buffer[MAX_HEADER + CONN_BODY_ROOM], upstream_buffer[MAX_HEADER + CONN_BODY_ROOM];
static char head_buffer[MAX_HEADER + 4096], seen[SEEN_MAX];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

/* A peer that has said all that it will say. Returns our end. */
static int peer_saying(const char *bytes, size_t length, int *its_end)
{
	int ends[2], room = (int)SEEN_MAX;
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "there are sockets");
	for (int i = 0; i < 2; i++)
		setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	must(length == 0 || send(ends[1], bytes, length, MSG_NOSIGNAL) == (ssize_t)length, "a socket takes it all");
	shutdown(ends[1], SHUT_WR);
	*its_end = ends[1];
	return ends[0];
}

/* All that a peer was told since the last time. */
static size_t told(int fd)
{
	size_t length = 0;
	ssize_t count;
	while ((count = recv(fd, seen + length, sizeof seen - length, MSG_DONTWAIT)) > 0)
		length += (size_t)count;
	return length;
}

static bool same_text(struct strict_text a, struct strict_text b)
{
	return a.length == b.length && memcmp(a.at, b.at, a.length) == 0;
}

static bool same_body(const struct strict *a, const struct strict *b)
{
	return a->body_length == b->body_length && (a->body_length == 0 || memcmp(a->body, b->body, a->body_length) == 0);
}

/* What goes out was in what came, or is ours to say. */
static void check_fields(const struct strict *in, const struct strict *out)
{
	static const char *const ours[] = { "Host", "Via", "Connection", "Content-Length", "Transfer-Encoding",
		                            "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Max-Forwards", "Upgrade" };
	for (size_t i = 0; i < out->field_count; i++) {
		const struct strict_field *field = &out->fields[i];
		bool is_known = false;
		for (size_t k = 0; k < sizeof ours / sizeof ours[0]; k++)
			is_known = is_known || strict_is(field->name, ours[k]);
		for (size_t k = 0; k < in->field_count && !is_known; k++)
			is_known = same_text(field->name, in->fields[k].name) && same_text(field->value, in->fields[k].value);
		must(is_known, "a field that goes out came in");
	}
}

/* in: the message as the second reader sees it in the client's bytes. */
static void check_request(const struct strict *in, int target)
{
	static struct strict out;
	size_t length = told(target);
	bool is_done = exchange_request_is_done(&x) && length > 0;
	strict_read_request(seen, length, &out);
	must(out.state != STRICT_BAD, "what a target is sent is well-formed");
	must(length == 0 || in->head_is_whole, "a head that goes out has come");
	must(!is_done || out.state == STRICT_WHOLE, "a request that was sent is whole");
	must(!is_done || in->state == STRICT_WHOLE, "only a whole request is sent whole");
	if (out.state == STRICT_WHOLE) {
		must(out.used == length, "one request is one message");
		must(in->state == STRICT_WHOLE && same_body(in, &out), "the body that came is the body that went");
		must(same_text(in->method, out.method), "the method stays");
		must(in->target.at[0] != '/' || same_text(in->target, out.target), "the target stays");
		must(out.minor == 1 && in->is_chunked == out.is_chunked, "framing stays of its kind");
		check_fields(in, &out);
	}
	strict_free(&out);
}

static void check_answer(enum exchange_result result, const char *bytes, size_t length, int client)
{
	static struct strict in, out;
	bool to_head = x.request.method == HTTP_HEAD;
	size_t got = told(client);
	strict_read_response(bytes, length, to_head, &in);
	strict_read_response(seen, got, to_head, &out);
	must(got == 0 || out.state != STRICT_BAD, "what a client is sent is well-formed");
	if (result == EXCHANGE_OK) {
		must(in.state == STRICT_WHOLE, "only a whole answer is relayed whole");
		must(out.state == STRICT_WHOLE && out.used == got, "one answer is one message");
		must(in.status == out.status && same_body(&in, &out), "the answer that came is the answer that went");
		must(!out.until_close || x.client_must_close, "what the close ends is followed by one");
	} else if (out.head_is_whole && out.status >= 200 && !out.until_close && !to_head) {
		must(out.state == STRICT_PARTIAL || out.body_length == 0, "an answer that is cut short looks so");
	}
	strict_free(&in);
	strict_free(&out);
}

/* One exchange with a target of its own. True when the client's connection may go on. */
static bool exchange_with(const char *answer, size_t length, const struct strict *in, int client)
{
	struct rewrite_request how = { .via = "weir-1", .forwarded = REWRITE_APPEND, .client = { "192.0.2.1", 9 },
		                       .scheme = "http", .target_host = { "t", 1 }, .keep_alive = true, .max_forwards = -1,
		                       .upgrades = x.request.upgrade.at != NULL };
	int target;
	conn_init(&x.upstream, peer_saying(answer, length, &target), upstream_buffer, sizeof upstream_buffer);
	exchange_begin(&x);
	enum exchange_result result = exchange_send(&x, &how);
	if (result == EXCHANGE_OK)
		result = exchange_await_head(&x, "weir-1");
	bool has_head = result == EXCHANGE_OK;
	if (has_head && x.response.status != 101)
		result = exchange_relay(&x, "weir-1", x.request.keep_alive);
	check_request(in, target);
	bool is_tunnel = has_head && x.response.status == 101;
	if (has_head && !is_tunnel)
		check_answer(result, answer, length, client);
	else
		told(client);
	conn_close(&x.upstream);
	close(target);
	return has_head && !is_tunnel && result == EXCHANGE_OK && !x.client_must_close;
}

/* Reads the next request as proxy.c does. False: there is none. */
static bool read_request(void)
{
	struct http_scan scan = { .seen = 0 };
	size_t length = 0;
	enum http_scan_result found;
	while ((found = http_scan(&scan, conn_bytes(&x.client), conn_available(&x.client), &length)) == HTTP_SCAN_MORE)
		if (conn_available(&x.client) > MAX_HEADER || conn_fill(&x.client, clock_us() + US_PER_S) != CONN_OK)
			return false;
	if (found == HTTP_SCAN_BAD || length > MAX_HEADER)
		return false;
	conn_use(&x.client, scan.skipped);
	conn_make_room(&x.client, length);
	if (http_parse_request(conn_bytes(&x.client), length, &x.request).status != 0 || x.request.method == HTTP_CONNECT)
		return false;
	conn_keep(&x.client, length);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct strict in;
	const char *bytes = (const char *)data;
	if (size == 0 || size > INPUT_MAX)
		return 0;
	const char *line = memmem(bytes, size, parting, sizeof parting - 1);
	size_t said = line != NULL ? (size_t)(line - bytes) : size;
	const char *answer = line != NULL ? line + sizeof parting - 1 : bytes;
	size_t answer_length = line != NULL ? size - said - (sizeof parting - 1) : 0;
	int client;
	conn_init(&x.client, peer_saying(bytes, said, &client), client_buffer, sizeof client_buffer);
	x.head = head_buffer;
	x.head_capacity = sizeof head_buffer;
	x.limits = (struct exchange_limits){ 5 * US_PER_S, 5 * US_PER_S, 0, MAX_HEADER };
	bool goes_on = true;
	for (int i = 0; i < MESSAGES_MAX && goes_on && read_request(); i++) {
		strict_read_request(bytes, said, &in);
		must(in.head_is_whole, "a head that weir reads is one");
		goes_on = exchange_with(answer, answer_length, &in, client);
		conn_forget(&x.client);
		bytes += in.used;
		said -= in.used;
		strict_free(&in);
	}
	conn_close(&x.client);
	close(client);
	return 0;
}
