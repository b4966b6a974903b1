/* fuzz_packet.c: streams of messages from random bytes.
 *
 *      input ──► reader, in pieces ═ reader, at once            any division gives the same events
 *                                      │ the first message
 *                                      ├──► jansson reads the same from what was kept as from what came
 *                                      └──► parsed ──► answered, given another sender ──► read back
 *
 * Where the pieces are cut follows from a hash of the input, so that a file that failed fails again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/packet.h"

#define LIMIT_BYTES 2000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static uint32_t next(uint32_t *random)
{
	*random = *random * 1664525u + 1013904223u;
	return *random >> 16;
}

/* What came of a stream: a hash over all events and messages, in order. */
struct outcome {
	uint64_t hash;
	size_t wholes, faults;
	bool is_between;
};

static void note(struct outcome *o, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		o->hash = (o->hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
	o->hash = (o->hash ^ 0x1ff) * UINT64_C(0x100000001b3);
}

static unsigned depth_of(const json_t *value)
{
	unsigned deepest = 0;
	size_t i;
	const char *key;
	json_t *member;
	json_array_foreach(value, i, member)
		if (depth_of(member) > deepest)
			deepest = depth_of(member);
	json_object_foreach((json_t *)(uintptr_t)value, key, member)
		if (depth_of(member) > deepest)
			deepest = depth_of(member);
	return json_is_array(value) || json_is_object(value) ? deepest + 1 : 0;
}

static void check_round_trip(const struct packet *packet)
{
	struct packet back;
	char why[PACKET_WHY_MAX];
	size_t length;
	if (packet->type != PACKET_MESSAGE)
		return;
	char *text = packet_write_answer(packet, "100", "0123456789", &length);
	must(text != NULL && packet_parse(text, length, &back, why), "an answer can be written and read");
	must(back.type == PACKET_ANSWER && strcmp(back.destination, packet->source) == 0, "it goes back to the sender");
	packet_release(&back);
	free(text);
	text = packet_write_from(packet, "7", &length);
	must(text != NULL && packet_parse(text, length, &back, why), "a message from another can be written and read");
	must(strcmp(back.source, "7") == 0 && strcmp(back.policy, packet->policy) == 0, "only the sender changes");
	must(back.payload_bytes == packet->payload_bytes &&
	             memcmp(back.payload, packet->payload, back.payload_bytes) == 0,
	     "and not the payload");
	packet_release(&back);
	free(text);
}

static void check_message(const struct packet_reader *reader)
{
	struct packet packet;
	char why[PACKET_WHY_MAX], excerpt[PACKET_EXCERPT_MAX];
	size_t length;
	must(reader->length >= 2 && reader->length <= LIMIT_BYTES, "a message is bounded");
	if (!packet_parse(reader->bytes, reader->length, &packet, why)) {
		char *text = packet_write_error(why, 0, &length);
		must(text != NULL, "what is wrong can be said in JSON");
		free(text);
		return;
	}
	must(depth_of(packet.json) <= PACKET_DEPTH_MAX, "nesting is bounded");
	if (packet.payload != NULL)
		packet_excerpt(packet.payload, packet.payload_bytes, excerpt);
	check_round_trip(&packet);
	packet_release(&packet);
}

/* The first message, as it came and as it was kept, say the same. */
static void check_first(const struct packet_reader *reader, const char *bytes, size_t length)
{
	json_error_t error;
	while (length > 0 && strchr(" \t\r\n", *bytes) != NULL) /* finds a NUL as well */
		bytes++, length--;
	json_t *came = json_loadb(bytes, length, JSON_ALLOW_NUL, &error);
	json_t *kept = json_loadb(reader->bytes, reader->length, JSON_ALLOW_NUL, &error);
	must((came == NULL) == (kept == NULL), "blanks make no difference to what is JSON");
	must(came == NULL || json_equal(came, kept) == 1, "nor to what it says");
	json_decref(came);
	json_decref(kept);
}

/* random 0: all at once. */
static struct outcome read_stream(const char *bytes, size_t size, uint32_t random)
{
	struct outcome o = { .hash = UINT64_C(0xcbf29ce484222325) };
	struct packet_reader reader;
	bool in_pieces = random != 0;
	size_t at = 0, used;
	packet_reader_init(&reader, LIMIT_BYTES);
	while (at < size) {
		size_t step = in_pieces ? 1 + next(&random) % 5 : size;
		if (step > size - at)
			step = size - at;
		char *piece = malloc(step); /* of its own, so that a read beyond it is seen */
		must(piece != NULL, "there is memory");
		memcpy(piece, bytes + at, step);
		enum packet_event event = packet_read(&reader, piece, step, &used);
		free(piece);
		must(used > 0 && used <= step && (event != PACKET_MORE || used == step),
		     "bytes are used, and no more than came");
		at += used;
		if (event == PACKET_FAULT)
			note(&o, reader.fault, strlen(reader.fault));
		if (event == PACKET_WHOLE) {
			note(&o, reader.bytes, reader.length);
			if (!in_pieces && o.wholes + o.faults == 0)
				check_first(&reader, bytes, at);
			check_message(&reader);
		}
		o.wholes += event == PACKET_WHOLE;
		o.faults += event == PACKET_FAULT;
	}
	o.is_between = packet_reader_is_between(&reader);
	packet_reader_free(&reader);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * 16777619u;
	struct outcome whole = read_stream(bytes, size, 0), pieces = read_stream(bytes, size, hash | 1u);
	must(whole.hash == pieces.hash && whole.wholes == pieces.wholes && whole.faults == pieces.faults &&
	             whole.is_between == pieces.is_between,
	     "any division gives the same events");
	return 0;
}
