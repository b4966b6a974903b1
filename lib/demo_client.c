/* demo_client.c: see demo_client.h. What it prints reads like the exercise that it belongs to. */
#include "demo_client.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "packet.h"
#include "wire.h"

/* ---- the packet file ------------------------------------------------------------------------------------------- */

/* One line on standard error; false. */
static bool reject(const char *path, const char *why)
{
	fprintf(stderr, "client_demo: --pkt: %s: %s\n", path, why);
	return false;
}

static bool is_blank(const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (strchr(" \t\r\n", bytes[i]) == NULL || bytes[i] == '\0')
			return false;
	return true;
}

/* Reads the one message that the file holds. */
static bool read_message(FILE *file, const char *path, struct packet_reader *reader)
{
	char bytes[4096];
	size_t length;
	bool is_whole = false;
	while ((length = fread(bytes, 1, sizeof bytes, file)) > 0) {
		for (size_t at = 0, used; at < length; at += used) {
			if (is_whole && is_blank(bytes + at, length - at))
				break;
			if (is_whole)
				return reject(path, "there is more than one message in it; allowed: one");
			enum packet_event event = packet_read(reader, bytes + at, length - at, &used);
			if (event == PACKET_FAULT)
				return reject(path, reader->fault);
			is_whole = event == PACKET_WHOLE;
		}
	}
	if (ferror(file))
		return reject(path, strerror(errno));
	return is_whole || reject(path, "there is no whole JSON object in it");
}

static bool read_packet_file(const char *path, struct packet *out)
{
	struct packet_reader reader;
	char why[PACKET_WHY_MAX];
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return reject(path, strerror(errno));
	packet_reader_init(&reader, PACKET_BYTES_MAX);
	bool good = read_message(file, path, &reader);
	fclose(file);
	if (good && !packet_parse(reader.bytes, reader.length, out, why))
		good = reject(path, why);
	else if (good && out->type != PACKET_MESSAGE) {
		packet_release(out);
		good = reject(path, "this is no message of a client; allowed: type 0");
	}
	packet_reader_free(&reader);
	return good;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static const char *name_of(enum wire_result result)
{
	switch (result) {
	case WIRE_END:
		return "it closed the connection";
	case WIRE_LATE:
		return "there was no answer in time";
	default:
		return "the connection is broken";
	}
}

static int fail(const char *why)
{
	fprintf(stderr, "client_demo: no answer: %s\n", why);
	return 1;
}

static int judge(const struct demo_client *client, const struct packet *message, const struct packet *answer)
{
	char hash[DEMO_SHA1_HEX_BYTES], excerpt[PACKET_EXCERPT_MAX];
	const char *id = client->id == NULL ? message->source : client->id;
	if (answer->type == PACKET_ERROR) {
		printf("Receiving an error: %s\n", packet_excerpt(answer->error, strlen(answer->error), excerpt));
		return 1;
	}
	if (answer->type != PACKET_ANSWER)
		return fail("what came is no answer; type 2 or 3 was expected");
	printf("Receiving a response from server id %s%s%s payload: %s\n", demo_colour(answer->source), answer->source,
	       demo_plain(), packet_excerpt(answer->payload, answer->payload_bytes, excerpt));
	if (answer->destination[0] != '\0' && strcmp(answer->destination, id) != 0) {
		printf("The response is for client %s\n", answer->destination);
		return 1;
	}
	if (!demo_sha1_hex(message->payload, message->payload_bytes, hash))
		return fail("the hash cannot be made");
	bool is_correct = answer->payload_bytes == strlen(hash) && memcmp(answer->payload, hash, strlen(hash)) == 0;
	printf("Hash of payload is %s\n", is_correct ? "correct" : "not correct");
	return is_correct ? 0 : 1;
}

/* Waits for one object and judges it. */
static int await_answer(const struct demo_client *client, const struct packet *message, struct wire *w,
                        uint64_t deadline_us)
{
	struct packet_reader reader;
	enum packet_event event = PACKET_MORE;
	enum wire_result result = WIRE_OK;
	packet_reader_init(&reader, PACKET_BYTES_MAX);
	while (event == PACKET_MORE && (result = wire_wait(w, deadline_us)) == WIRE_OK) {
		size_t used;
		event = packet_read(&reader, w->buffer + w->start, w->end - w->start, &used);
		w->start += used;
	}
	struct packet answer;
	char why[PACKET_WHY_MAX];
	int status = 1;
	if (event == PACKET_MORE)
		fail(name_of(result));
	else if (event == PACKET_FAULT)
		fail(reader.fault);
	else if (!packet_parse(reader.bytes, reader.length, &answer, why))
		fail(why);
	else {
		status = judge(client, message, &answer);
		packet_release(&answer);
	}
	packet_reader_free(&reader);
	return status;
}

static int ask(const struct demo_client *client, const struct packet *message, struct wire *w)
{
	const char *why = "";
	char excerpt[PACKET_EXCERPT_MAX];
	size_t length;
	uint64_t deadline_us = clock_us() + client->timeout_us;
	char *text = packet_write_from(message, client->id == NULL ? message->source : client->id, &length);
	if (text == NULL)
		return fail("out of memory");
	printf("Sending message %s to privacy policy %s through the reverse proxy running on port %s\n",
	       packet_excerpt(message->payload, message->payload_bytes, excerpt), message->policy, client->proxy.port);
	int fd = demo_connect(&client->proxy, deadline_us, &why);
	int status = 1;
	if (fd < 0) {
		fprintf(stderr, "client_demo: no reverse proxy at %s port %s: %s\n", client->proxy.host,
		        client->proxy.port, why);
	} else {
		wire_begin(w, fd);
		/* A reverse proxy may refuse and close before it has read all: so a failed send is no reason not to
		   read. */
		wire_send(fd, text, length, deadline_us);
		status = await_answer(client, message, w, deadline_us);
		close(fd);
	}
	free(text);
	return status;
}

int demo_client_run(const struct demo_client *client)
{
	struct packet message;
	struct wire *w = malloc(sizeof *w);
	if (w == NULL)
		return fail("out of memory");
	int status = 2;
	if (read_packet_file(client->packet_path, &message)) {
		status = ask(client, &message, w);
		packet_release(&message);
	}
	free(w);
	return fflush(stdout) == 0 ? status : 1;
}
