/* clients.c: see traffic.h. Clients that keep their connections and clients that do not; GET, POST, tunnels.
 *
 * What became of a request that was not answered with what was asked for? The rule is here, in judge(), and it is the soak's rule of
 * what is lost:
 *
 *      a limit refused it (429)                                                     refused: not lost
 *      the weir that had it was killed since it began                               gone with the node: nobody could help it
 *      a weir that was told to stop closed the connection before a target saw the
 *      request: it may not have read it                                             moved: a client asks elsewhere
 *      its target died after it had begun to answer                                 cut: the client saw that it was cut
 *      a POST, a tunnel, or what only one target can answer (forward), and a target
 *      died since it began: 502, 504                                                failed with its target, as SPEC says
 *      anything else                                                                LOST
 *
 * The news of a death travels, too: a connection that was closed at one end a moment ago looks well at the other. So "since it began" means:
 * since half a second before.
 *
 * So a GET through a reverse proxy that lives is lost unless it is answered in full: one target at least is always there, for soak.py sees
 * to that.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "traffic.h"

#define CONNECTIONS_MAX 100u /* of clients, at one place */
#define READ_BYTES 65536u
#define IDLE_US (5 * US_PER_S) /* far from weir's idle_timeout: what is asked on a connection that is just being closed is nobody's fault */
#define NEWS_US (US_PER_S / 2)
#define SILENCE_US (90 * US_PER_S) /* longer than any deadline of weir's: it hangs */

void clients_begin(struct traffic *t)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		t->clients[i].ear = (struct ear){ .kind = EAR_CLIENT, .fd = -1 };
}

static void begin_busy(struct traffic *t, struct client *client)
{
	client->state = CLIENT_WAITS;
	t->busy++;
	t->places[client->place].busy++;
}

static void end_busy(struct traffic *t, struct client *client)
{
	if (client->state != CLIENT_WAITS && client->state != CLIENT_TUNNEL)
		return;
	t->busy--;
	t->places[client->place].busy--;
}

static void hang_up(struct traffic *t, struct client *client)
{
	end_busy(t, client);
	close(client->ear.fd);
	client->ear.fd = -1;
	client->state = CLIENT_FREE;
	client->serial = 0;
	t->places[client->place].connections--;
}

/* ---- what became of it ---------------------------------------------------------------------------------------------- */

static const char *const service_names[] = { "group", "solo", "open", "forward" };
static const char *const kind_names[] = { "GET", "POST", "tunnel" };

static void say_lost(struct traffic *t, struct client *client, const char *what, int status)
{
	const struct place *place = &t->places[client->place];
	fprintf(stderr,
	        "LOST %s %llu to %s (place %u, %s): %s, status %d, after %.3f s; seen by a target %s, answering %s, a target died %.3f s "
	        "ago\n%.600s\n",
	        kind_names[client->kind], (unsigned long long)client->serial, service_names[place->service], client->place,
	        place->state == PLACE_UP ? "up" : place->state == PLACE_DOWN ? "down" : "draining", what, status,
	        (double)(now_us() - client->begun_us) / 1e6, client->is_seen ? "yes" : "no", client->is_answering ? "yes" : "no",
	        (double)(now_us() - t->last_kill_us) / 1e6, client->in.head);
	t->counts.lost++;
}

static bool target_died_answering(const struct traffic *t, const struct client *client)
{
	return client->is_answering && t->targets[client->target].kills != client->target_kills;
}

/* Only one target could answer it, or only one should be asked. */
static bool hangs_on_one_target(const struct traffic *t, const struct client *client)
{
	return client->kind != KIND_GET || t->places[client->place].service == SERVICE_FORWARD;
}

/* The request is over and was not answered with what was asked for. status 0: the connection ended, for the reason why. */
static void judge(struct traffic *t, struct client *client, int status, const char *why)
{
	const struct place *place = &t->places[client->place];
	bool a_target_died = t->last_kill_us > 0 && t->last_kill_us + NEWS_US > client->begun_us, is_leaving = place->state != PLACE_UP;
	if (status == 429)
		t->counts.refused++;
	else if (status == 0 && place->kills != client->place_kills)
		t->counts.gone_with_node++;
	else if (status == 0 && is_leaving && ((!client->has_answer_bytes && !client->is_seen) || client->kind == KIND_TUNNEL))
		t->counts.moved++; /* a tunnel: drain_timeout was over */
	else if (status == 0 && (target_died_answering(t, client) || (client->kind == KIND_TUNNEL && a_target_died)))
		t->counts.cut_by_target++;
	else if (hangs_on_one_target(t, client) && a_target_died && (status == 502 || status == 504))
		t->counts.failed_by_target++;
	else
		say_lost(t, client, why, status);
}

/* The connection ended, or could not be made. */
static void fail(struct traffic *t, struct client *client, const char *why)
{
	if (client->state != CLIENT_IDLE)
		judge(t, client, 0, why);
	hang_up(t, client);
}

/* ---- asking --------------------------------------------------------------------------------------------------------- */

/* One that lives; soak.py lets some. */
static unsigned some_target(struct traffic *t)
{
	for (;;) {
		unsigned index = (unsigned)chance(t, t->target_count);
		if (t->targets[index].is_up)
			return index;
	}
}

/* Sizes as they are on the web: many small, few large. */
static uint64_t some_bytes(struct traffic *t, uint64_t most)
{
	if (t->only_large)
		return most;
	return chance(t, 20) == 0 ? chance(t, most) : chance(t, 2000);
}

static void write_request(struct traffic *t, struct client *client, enum service service, const char *authority, char *head, size_t size)
{
	unsigned slot = (unsigned)(client - t->clients), delay_ms = chance(t, 12) == 0 ? (unsigned)chance(t, 200) : 0;
	bool is_open = service == SERVICE_OPEN || service == SERVICE_FORWARD;
	char kind = client->kind == KIND_GET ? 'g' : client->kind == KIND_POST ? 'p' : 'u';
	/* Where starts are counted a POST leaves in one packet: else the packets of its body would bring the time of its head forward. */
	uint64_t body_bytes = client->kind != KIND_POST ? 0 : is_open ? some_bytes(t, 300000) : chance(t, 3000);
	bool is_chunked = is_open && chance(t, 2) == 0;
	char framing[64] = "";
	client->answer_bytes = some_bytes(t, 200000);
	if (client->kind == KIND_POST && is_chunked)
		snprintf(framing, sizeof framing, "Transfer-Encoding: chunked\r\n");
	else if (client->kind == KIND_POST)
		snprintf(framing, sizeof framing, "Content-Length: %llu\r\n", (unsigned long long)body_bytes);
	else if (client->kind == KIND_TUNNEL)
		snprintf(framing, sizeof framing, "Upgrade: echo\r\nConnection: upgrade\r\n");
	snprintf(head, size, "%s %s/%c/%u/%u/%llu/%llu/%u HTTP/1.1\r\nHost: soak\r\n%s%s\r\n", client->kind == KIND_POST ? "POST" : "GET",
	         authority, kind, (unsigned)service, slot, (unsigned long long)client->serial, (unsigned long long)client->answer_bytes,
	         delay_ms, framing, client->closes && client->kind != KIND_TUNNEL ? "Connection: close\r\n" : "");
	outgoing_begin(&client->out, head, client->serial, body_bytes, client->kind == KIND_POST && is_chunked);
}

/* Makes the request, and sends what can be sent. */
static void ask(struct traffic *t, struct client *client)
{
	const struct place *place = &t->places[client->place];
	uint64_t die = chance(t, 1000);
	char authority[64] = "", head[512];
	unsigned target = t->targets[some_target(t)].port;
	client->kind = die < 5 ? KIND_TUNNEL : die < 150 ? KIND_POST : KIND_GET;
	client->serial = ++t->serial;
	client->begun_us = now_us();
	client->place_kills = place->kills;
	client->is_seen = client->is_answering = client->has_answer_bytes = false;
	client->closes = client->requests_left == 0;
	client->asks_connect = client->kind == KIND_TUNNEL && place->service == SERVICE_FORWARD;
	begin_busy(t, client);
	t->counts.asked[client->kind]++;
	if (place->service == SERVICE_FORWARD && !client->asks_connect)
		snprintf(authority, sizeof authority, "http://127.0.0.1:%u", target);
	write_request(t, client, place->service, authority, client->request, sizeof client->request);
	incoming_begin(&client->in);
	if (client->asks_connect) {
		snprintf(head, sizeof head, "CONNECT 127.0.0.1:%u HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n", target, target);
		outgoing_begin(&client->out, head, 0, 0, false);
	}
	if (outgoing_send(&client->out, client->ear.fd) == SENDING_BROKEN)
		client_ready(t, client); /* it reads why */
}

static struct client *connect_to(struct traffic *t, unsigned index)
{
	struct place *place = &t->places[index];
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)place->port) };
	int on = 1;
	unsigned i = 0;
	while (i < CLIENTS_MAX && t->clients[i].state != CLIENT_FREE)
		i++;
	if (i == CLIENTS_MAX || place->connections >= CONNECTIONS_MAX)
		return NULL;
	struct client *client = &t->clients[i];
	if (i >= t->clients_top)
		t->clients_top = i + 1;
	client->ear.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (client->ear.fd < 0) {
		perror("traffic: socket");
		exit(1);
	}
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(client->ear.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	client->place = index;
	client->requests_left = chance(t, 4) == 0 ? 0 : (unsigned)chance(t, 200);
	client->state = CLIENT_IDLE;
	client->idle_us = now_us();
	place->connections++;
	if (connect(client->ear.fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) {
		/* a refusal of loopback is told at once: it is a request that nobody took */
		begin_busy(t, client);
		client->kind = KIND_GET;
		client->begun_us = now_us();
		client->place_kills = place->kills;
			client->is_seen = client->is_answering = client->has_answer_bytes = false;
		client->in.head[0] = '\0';
		fail(t, client, "the connection was refused");
		return NULL;
	}
	listen_to(t, &client->ear);
	return client;
}

void client_ask_one(struct traffic *t, enum service service)
{
	unsigned up[PLACES_MAX], count = 0;
	for (unsigned i = 0; i < PLACES_MAX; i++)
		if (t->places[i].state == PLACE_UP && t->places[i].service == service)
			up[count++] = i;
	if (count == 0) {
		t->counts.skipped++;
		return;
	}
	unsigned place = up[chance(t, count)], from = (unsigned)chance(t, t->clients_top);
	struct client *client = NULL;
	for (unsigned i = 0; i < t->clients_top && client == NULL; i++) {
		struct client *one = &t->clients[(from + i) % t->clients_top];
		if (one->state == CLIENT_IDLE && one->place == place && now_us() - one->idle_us < IDLE_US)
			client = one;
	}
	if (client == NULL)
		client = connect_to(t, place);
	if (client != NULL)
		ask(t, client);
	else
		t->counts.skipped++;
}

void clients_close_idle(struct traffic *t)
{
	for (unsigned i = 0; i < t->clients_top; i++)
		if (t->clients[i].state == CLIENT_IDLE)
			hang_up(t, &t->clients[i]);
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static void say_wrong(struct traffic *t, struct client *client, const char *what)
{
	fprintf(stderr, "WRONG answer to %s %llu: %s\n%.300s\n", kind_names[client->kind], (unsigned long long)client->serial, what,
	        client->in.head);
	t->counts.wrong++;
	hang_up(t, client);
}

/* The next block goes into the tunnel, or it was the last. */
static void next_round(struct traffic *t, struct client *client)
{
	if (client->rounds_left == 0 || t->rests) {
		t->counts.answered[KIND_TUNNEL]++;
		hang_up(t, client);
		return;
	}
	client->rounds_left--;
	client->round++;
	client->round_bytes = 1 + chance(t, 8000);
	client->round_due_us = 0;
	client->in.number = client->serial + client->round;
	client->in.body_bytes = 0;
	outgoing_begin(&client->out, "", client->in.number, client->round_bytes, false);
	outgoing_send(&client->out, client->ear.fd); /* a break is read soon enough */
}

static void begin_tunnel(struct traffic *t, struct client *client)
{
	client->state = CLIENT_TUNNEL;
	client->rounds_left = 2 + (unsigned)chance(t, 30);
	client->round = 0;
	next_round(t, client);
}

static void take_round(struct traffic *t, struct client *client, const char *bytes, size_t length)
{
	if (client->in.body_bytes + length > client->round_bytes || !incoming_check(&client->in, bytes, length))
		say_wrong(t, client, "a tunnel gave back what was not put in");
	else if (client->in.body_bytes == client->round_bytes)
		client->round_due_us = now_us() + 1000 * chance(t, 300);
}

/* The status line is there, and the fields. True: a body may follow. */
static bool take_head(struct traffic *t, struct client *client)
{
	int status = atoi(client->in.head + 9);
	const char *connection = incoming_field(&client->in, "connection: ");
	if (connection != NULL && strncasecmp(connection, "close", 5) == 0)
		client->closes = true;
	client->in.number = client->serial;
	if (client->asks_connect && status == 200) {
		client->asks_connect = false;
		incoming_begin(&client->in);
		outgoing_begin(&client->out, client->request, 0, 0, false);
		outgoing_send(&client->out, client->ear.fd);
		return false;
	}
	if (status == 101 && client->kind == KIND_TUNNEL) {
		begin_tunnel(t, client);
		return false;
	}
	const char *serial = incoming_field(&client->in, "x-serial: ");
	if (status != 200) {
		judge(t, client, status, "an answer that was not asked for");
		hang_up(t, client); /* its body is weir's own */
	} else if (serial == NULL || strtoull(serial, NULL, 10) != client->serial) {
		say_wrong(t, client, "the answer to another request");
	} else {
		return true;
	}
	return false;
}

static void finish(struct traffic *t, struct client *client)
{
	if (client->in.body_bytes != client->answer_bytes) {
		say_wrong(t, client, "a body of another length, that looks whole");
		return;
	}
	t->counts.answered[client->kind]++;
	if (client->closes || client->requests_left == 0) {
		hang_up(t, client);
		return;
	}
	end_busy(t, client);
	client->requests_left--;
	client->state = CLIENT_IDLE;
	client->idle_us = now_us();
}

static void take_answer(struct traffic *t, struct client *client, const char *bytes, size_t length)
{
	size_t at = 0, used;
	client->has_answer_bytes = true;
	while (client->state == CLIENT_WAITS && at < length) {
		enum receiving state = incoming_take(&client->in, bytes + at, length - at, &used);
		at += used;
		if (state == RECEIVING_HEAD && !take_head(t, client))
			continue;
		if (state == RECEIVING_HEAD && client->in.framing == FRAMING_LENGTH && client->in.left_bytes == 0)
			state = RECEIVING_WHOLE;
		if (state == RECEIVING_WHOLE)
			finish(t, client);
		else if (state == RECEIVING_WRONG)
			say_wrong(t, client, client->in.wrong);
	}
	if (at < length && client->state == CLIENT_TUNNEL)
		take_round(t, client, bytes + at, length - at);
	else if (at < length && client->state == CLIENT_IDLE)
		say_wrong(t, client, "bytes that nobody asked for");
}

void client_ready(struct traffic *t, struct client *client)
{
	static char bytes[READ_BYTES];
	if (client->state == CLIENT_WAITS || client->state == CLIENT_TUNNEL)
		outgoing_send(&client->out, client->ear.fd);
	while (client->state != CLIENT_FREE) {
		ssize_t count = recv(client->ear.fd, bytes, sizeof bytes, MSG_DONTWAIT);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN)
			return;
		if (count <= 0)
			fail(t, client, count == 0 ? "the connection was closed" : strerror(errno));
		else if (client->state == CLIENT_TUNNEL)
			take_round(t, client, bytes, (size_t)count);
		else
			take_answer(t, client, bytes, (size_t)count);
	}
}

void clients_tick(struct traffic *t)
{
	uint64_t now = now_us();
	for (unsigned i = 0; i < t->clients_top; i++) {
		struct client *client = &t->clients[i];
		if (client->state == CLIENT_IDLE && now - client->idle_us >= IDLE_US && now > client->idle_us)
			hang_up(t, client);
		if (client->state == CLIENT_TUNNEL && client->round_due_us > 0 && now >= client->round_due_us)
			next_round(t, client);
		if (client->state == CLIENT_WAITS && now > client->begun_us + SILENCE_US) {
			say_lost(t, client, "no answer and no end: it hangs", 0);
			hang_up(t, client);
		}
	}
}
