/* targets.c: see traffic.h. Servers that do what the path of a request says:
 *
 *      /KIND/SERVICE/SLOT/SERIAL/BYTES/DELAY_MS      kind g: answer so many bytes; p: the body's number is SERIAL too;
 *                                                    u: switch to a protocol that sends everything back
 *
 * SLOT is the client that asked, and SERIAL its request: so it hears here that it was seen, and that an answer has begun. An answer
 * to an odd SERIAL goes in chunks.
 *
 * A target that dies closes its listener and all its connections, as the system does for a process that is killed. It keeps its port
 * (bound, not listening), so that nobody else gets it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "traffic.h"

#define READ_BYTES 65536u

static int bind_to(unsigned port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		perror("traffic: a target's port");
		exit(1);
	}
	return fd;
}

void target_revive(struct traffic *t, unsigned index)
{
	if (listen(t->targets[index].ear.fd, 4096) != 0) {
		perror("traffic: listen");
		exit(1);
	}
	listen_to(t, &t->targets[index].ear);
	t->targets[index].is_up = true;
}

void targets_begin(struct traffic *t, unsigned count)
{
	for (unsigned i = 0; i < SERVED_MAX; i++)
		t->served[i].ear = (struct ear){ .kind = EAR_SERVED, .fd = -1 };
	for (unsigned i = 0; i < count; i++) {
		struct sockaddr_in address;
		socklen_t length = sizeof address;
		struct target *target = &t->targets[i];
		target->ear = (struct ear){ .kind = EAR_LISTENER, .fd = bind_to(0) };
		getsockname(target->ear.fd, (struct sockaddr *)&address, &length);
		target->port = ntohs(address.sin_port);
		target_revive(t, i);
	}
	t->target_count = count;
}

static void leave(struct served *served)
{
	close(served->ear.fd);
	served->ear.fd = -1;
	served->state = SERVED_FREE;
}

void target_kill(struct traffic *t, unsigned index, bool hard)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	struct target *target = &t->targets[index];
	target->is_up = false;
	target->kills++;
	t->target_kills++;
	t->last_kill_us = now_us();
	close(target->ear.fd);
	for (unsigned i = 0; i < t->served_top; i++) {
		struct served *served = &t->served[i];
		if (served->state == SERVED_FREE || served->target != index)
			continue;
		if (hard)
			setsockopt(served->ear.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
		leave(served);
	}
	target->ear.fd = bind_to(target->port);
}

void target_accept(struct traffic *t, struct target *target)
{
	int fd, on = 1;
	while ((fd = accept4(target->ear.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		unsigned i = 0;
		while (i < SERVED_MAX && t->served[i].state != SERVED_FREE)
			i++;
		if (i == SERVED_MAX) {
			fprintf(stderr, "traffic: more connections to the targets than %u\n", SERVED_MAX);
			exit(1);
		}
		struct served *served = &t->served[i];
		if (i >= t->served_top)
			t->served_top = i + 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		served->ear.fd = fd;
		served->state = SERVED_READS;
		served->target = (unsigned)(target - t->targets);
		served->out.length = served->out.sent = 0;
		incoming_begin(&served->in);
		listen_to(t, &served->ear);
		served_ready(t, served);
	}
}

/* The client whose request this is, if it still waits for it. */
static struct client *asker(struct traffic *t, const struct served *served)
{
	struct client *client = served->slot < CLIENTS_MAX ? &t->clients[served->slot] : NULL;
	return client != NULL && client->state != CLIENT_FREE && client->serial == served->serial ? client : NULL;
}

/* Tells the client that its answer is on the way. */
static void say_answering(struct traffic *t, const struct served *served)
{
	struct client *client = asker(t, served);
	if (client == NULL)
		return;
	client->is_answering = true;
	client->target = served->target;
	client->target_kills = t->targets[served->target].kills;
}

static bool begin_request(struct traffic *t, struct served *served, uint64_t stamp_ns)
{
	char kind;
	unsigned service, delay_ms;
	unsigned long long serial, bytes;
	const char *path = strchr(served->in.head, ' ');
	if (path == NULL || sscanf(path, " /%c/%u/%u/%llu/%llu/%u ", &kind, &service, &served->slot, &serial, &bytes, &delay_ms) != 6 ||
	    service >= SERVICES)
		return false;
	const char *connection = incoming_field(&served->in, "connection: ");
	served->serial = serial;
	served->answer_bytes = bytes;
	served->in.number = serial;
	served->due_us = now_us() + delay_ms * UINT64_C(1000);
	served->closes = connection != NULL && strncmp(connection, "close", 5) == 0;
	windows_note(t->windows, (enum service)service, stamp_ns);
	struct client *client = asker(t, served);
	if (client != NULL)
		client->is_seen = true;
	if (kind == 'u')
		served->answer_bytes = UINT64_MAX; /* a tunnel */
	return true;
}

static void send_answer(struct traffic *t, struct served *served)
{
	enum sending state = outgoing_send(&served->out, served->ear.fd);
	if (state == SENDING_BROKEN || (state == SENDING_DONE && served->closes)) {
		leave(served);
	} else if (state == SENDING_DONE && served->state == SERVED_ANSWERS) {
		served->state = SERVED_READS;
		incoming_begin(&served->in);
	}
	(void)t;
}

static void begin_answer(struct traffic *t, struct served *served)
{
	char head[256];
	bool is_tunnel = served->answer_bytes == UINT64_MAX, is_chunked = !is_tunnel && served->serial % 2 == 1;
	if (is_tunnel)
		snprintf(head, sizeof head, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
	else if (is_chunked)
		snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nX-Serial: %llu\r\nTransfer-Encoding: chunked\r\n\r\n",
		         (unsigned long long)served->serial);
	else
		snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nX-Serial: %llu\r\nContent-Length: %llu\r\n\r\n",
		         (unsigned long long)served->serial, (unsigned long long)served->answer_bytes);
	served->state = is_tunnel ? SERVED_ECHOES : SERVED_ANSWERS;
	served->closes = served->closes && !is_tunnel;
	outgoing_begin(&served->out, head, served->serial, is_tunnel ? 0 : served->answer_bytes, is_chunked);
	say_answering(t, served);
	send_answer(t, served);
}

static void answer_when_due(struct traffic *t, struct served *served)
{
	served->state = SERVED_DELAYS;
	if (now_us() >= served->due_us)
		begin_answer(t, served);
}

/* A body that is not what it should be is the worst that can happen. */
static void report_wrong(struct traffic *t, struct served *served, const char *what)
{
	fprintf(stderr, "WRONG at a target: %s, in request %llu: %.200s\n", what, (unsigned long long)served->serial, served->in.head);
	t->counts.wrong++;
	leave(served);
}

static void take_request(struct traffic *t, struct served *served, const char *bytes, size_t length, uint64_t stamp_ns)
{
	size_t at = 0, used;
	while (served->state == SERVED_READS && at < length) {
		enum receiving state = incoming_take(&served->in, bytes + at, length - at, &used);
		at += used;
		if (state == RECEIVING_HEAD && !begin_request(t, served, stamp_ns))
			state = RECEIVING_WRONG;
		if (state == RECEIVING_HEAD && served->in.framing != FRAMING_CHUNKED && served->in.left_bytes == 0)
			state = RECEIVING_WHOLE;
		if (state == RECEIVING_WRONG)
			report_wrong(t, served, served->in.wrong != NULL ? served->in.wrong : "not a request of ours");
		else if (state == RECEIVING_WHOLE)
			answer_when_due(t, served);
	}
	if (at < length && served->state != SERVED_FREE)
		report_wrong(t, served, "bytes behind a request");
}

/* The protocol of a tunnel: everything goes back. What does not fit into our buffer is read when there is room: the reader below
   asks for no more than that. */
static bool echo(struct served *served, const char *bytes, size_t length)
{
	memcpy(served->out.bytes + served->out.length, bytes, length);
	served->out.length += length;
	return outgoing_send(&served->out, served->ear.fd) != SENDING_BROKEN;
}

static ssize_t receive(struct served *served, char *bytes, uint64_t *stamp_ns)
{
	char control[CMSG_SPACE(sizeof(struct timespec))];
	size_t room = served->state == SERVED_ECHOES ? OUT_BYTES - served->out.length : READ_BYTES;
	struct iovec part = { .iov_base = bytes, .iov_len = room };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct timespec stamp = { .tv_sec = 0 };
	if (room == 0) {
		errno = EAGAIN;
		return -1;
	}
	ssize_t count = recvmsg(served->ear.fd, &message, MSG_DONTWAIT);
	if (count < 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS)
			memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
	*stamp_ns = (uint64_t)stamp.tv_sec * NS_PER_S + (uint64_t)stamp.tv_nsec;
	return count;
}

void served_ready(struct traffic *t, struct served *served)
{
	static char bytes[READ_BYTES];
	uint64_t stamp_ns = 0;
	if (served->state == SERVED_ANSWERS || served->state == SERVED_ECHOES)
		send_answer(t, served);
	while (served->state != SERVED_FREE) {
		ssize_t count = receive(served, bytes, &stamp_ns);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0 && errno == EAGAIN)
			return;
		if (count <= 0)
			leave(served);
		else if (served->state == SERVED_READS)
			take_request(t, served, bytes, (size_t)count, stamp_ns);
		else if (served->state != SERVED_ECHOES)
			report_wrong(t, served, "bytes while an answer is on its way");
		else if (!echo(served, bytes, (size_t)count))
			leave(served);
	}
}

void targets_tick(struct traffic *t)
{
	uint64_t now = now_us();
	for (unsigned i = 0; i < t->served_top; i++)
		if (t->served[i].state == SERVED_DELAYS && now >= t->served[i].due_us)
			begin_answer(t, &t->served[i]);
}
