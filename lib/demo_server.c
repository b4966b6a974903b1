/* demo_server.c: see demo_server.h. What it prints reads like the exercise that it belongs to. */
#include "demo_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "packet.h"

#define IDLE_US (75 * US_PER_S)
#define REST_US (60 * US_PER_S)
#define SEND_US (30 * US_PER_S)
#define CLOSE_US (2 * US_PER_S) /* a reverse proxy that never closes the connection is not waited for longer */
#define RETRY_US (100 * US_PER_MS)

static void sleep_us(uint64_t time_us)
{
	struct timespec left = { .tv_sec = (time_t)(time_us / US_PER_S), .tv_nsec = (long)(time_us % US_PER_S) * 1000 };
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

/* ---- setting up ------------------------------------------------------------------------------------------------ */

/* Reads until the other side has closed. A set-up is not answered, unless there is something wrong with it. */
static bool await_close(struct wire *w)
{
	struct packet_reader reader;
	struct packet packet;
	char why[PACKET_WHY_MAX];
	uint64_t deadline_us = clock_us() + CLOSE_US;
	bool good = true;
	packet_reader_init(&reader, PACKET_BYTES_MAX);
	while (good && wire_wait(w, deadline_us) == WIRE_OK) {
		size_t used;
		enum packet_event event = packet_read(&reader, w->buffer + w->start, w->end - w->start, &used);
		w->start += used;
		if (event != PACKET_WHOLE || !packet_parse(reader.bytes, reader.length, &packet, why))
			continue;
		if (packet.type == PACKET_ERROR) {
			fprintf(stderr, "server_demo: the reverse proxy refuses the set-up: %s\n", packet.error);
			good = false;
		}
		packet_release(&packet);
	}
	packet_reader_free(&reader);
	return good;
}

static bool send_setup(const struct demo_server *server, unsigned port, int fd)
{
	size_t length;
	struct wire *w = malloc(sizeof *w);
	char *setup = packet_write_setup(server->id, server->policy, port, &length);
	bool good = w != NULL && setup != NULL && wire_send(fd, setup, length, clock_us() + SEND_US) == WIRE_OK;
	if (!good)
		fprintf(stderr, "server_demo: cannot send the set-up: %s\n",
		        setup == NULL ? "out of memory" : strerror(errno));
	if (good) {
		shutdown(fd, SHUT_WR);
		wire_begin(w, fd);
		good = await_close(w);
	}
	free(setup);
	free(w);
	return good;
}

bool demo_server_set_up(const struct demo_server *server, unsigned port)
{
	const char *why = "";
	uint64_t deadline_us = clock_us() + server->patience_us;
	int fd;
	printf("Connecting to the reverse proxy on port %s\n", server->proxy.port);
	while ((fd = demo_connect(&server->proxy, deadline_us, &why)) < 0 && clock_left_us(deadline_us) > RETRY_US)
		sleep_us(RETRY_US);
	if (fd < 0) {
		fprintf(stderr, "server_demo: no reverse proxy at %s port %s: %s\n", server->proxy.host,
		        server->proxy.port, why);
		return false;
	}
	bool good = send_setup(server, port, fd);
	close(fd);
	if (good)
		printf("Set up as server id %s%s%s privacy policy %s port %u\n", demo_colour(server->id), server->id,
		       demo_plain(), server->policy, port);
	return good;
}

/* ---- serving --------------------------------------------------------------------------------------------------- */

static bool send_error(int fd, const char *error)
{
	size_t length;
	char *text = packet_write_error(error, 0, &length);
	printf("Sending an error: %s\n", error);
	bool good = text != NULL && wire_send(fd, text, length, clock_us() + SEND_US) == WIRE_OK;
	free(text);
	return good;
}

static bool send_answer(const struct demo_server *server, int fd, const struct packet *message)
{
	char hash[DEMO_SHA1_HEX_BYTES], excerpt[PACKET_EXCERPT_MAX];
	size_t length;
	printf("Received a message from client %s%s%s payload: %s\n", demo_colour(message->source), message->source,
	       demo_plain(), packet_excerpt(message->payload, message->payload_bytes, excerpt));
	if (server->delay_us > 0)
		sleep_us(server->delay_us);
	if (!demo_sha1_hex(message->payload, message->payload_bytes, hash))
		return send_error(fd, "the hash cannot be made");
	char *answer = packet_write_answer(message, server->id, hash, &length);
	if (answer == NULL)
		return send_error(fd, "out of memory");
	printf("Sending a response to client %s%s%s payload: %s\n", demo_colour(message->source), message->source,
	       demo_plain(), hash);
	bool good = wire_send(fd, answer, length, clock_us() + SEND_US) == WIRE_OK;
	free(answer);
	return good;
}

static bool handle(const struct demo_server *server, int fd, const struct packet_reader *reader)
{
	struct packet packet;
	char why[PACKET_WHY_MAX];
	if (!packet_parse(reader->bytes, reader->length, &packet, why))
		return send_error(fd, why);
	bool good = packet.type == PACKET_MESSAGE ? send_answer(server, fd, &packet) :
	                                            send_error(fd, "this is not for a server; type 0 is wanted");
	packet_release(&packet);
	return good;
}

void demo_server_serve(const struct demo_server *server, struct wire *w)
{
	struct packet_reader reader;
	bool good = true;
	uint64_t deadline_us = clock_us() + IDLE_US;
	packet_reader_init(&reader, PACKET_BYTES_MAX);
	while (good && wire_wait(w, deadline_us) == WIRE_OK) {
		bool was_between = packet_reader_is_between(&reader);
		size_t used;
		enum packet_event event = packet_read(&reader, w->buffer + w->start, w->end - w->start, &used);
		w->start += used;
		if (event == PACKET_FAULT)
			good = send_error(w->fd, reader.fault);
		if (event == PACKET_WHOLE)
			good = handle(server, w->fd, &reader);
		if (packet_reader_is_between(&reader))
			deadline_us = clock_us() + IDLE_US;
		else if (was_between)
			deadline_us = clock_us() + REST_US;
	}
	packet_reader_free(&reader);
}
