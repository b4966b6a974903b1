/* packet.c: see packet.h.
 *
 * The reader takes a byte at a time through a handful of states:
 *
 *                  { [                 "              \
 *      BETWEEN ──────────► INSIDE ◄─────────► STRING ◄───► ESCAPE
 *         │  ▲                │ the outermost bracket closes: a whole message
 *         │  └────────────────┘
 *         │ anything else                     GARBAGE: one fault, and all is passed over up to a newline or a bracket
 *         └─────────────────► GARBAGE
 *
 * After a fault inside a message the reader goes on counting without keeping anything: the next message begins after
 * this one has ended. Two faults leave no hope of finding that end. A newline in a string is forbidden, and the
 * likeliest reason is a quote that was forgotten: to go on would swallow every message that follows, so that line is
 * given up and the next begins anew. A bracket closed by one of the other kind: what comes next is taken for garbage.
 *
 * The blanks between the parts of a message are left out, and nothing else is changed: what goes on to a server is
 * what came, digit for digit. Where two bare words would grow together ("1 2") one blank stays, for that is no JSON
 * and must not become any.
 *
 * Sources: RFC 8259; RFC 7464 §1 on what happens without framing.
 */
#include "packet.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 1024u
#define KEPT_CAPACITY (64u * 1024u) /* more than this is given back after a message */

enum state { BETWEEN, INSIDE, STRING, ESCAPE, GARBAGE };

/* ---- finding messages ------------------------------------------------------------------------------------------ */

void packet_reader_init(struct packet_reader *reader, size_t limit_bytes)
{
	memset(reader, 0, sizeof *reader);
	reader->limit = limit_bytes;
}

void packet_reader_free(struct packet_reader *reader)
{
	free(reader->bytes);
	reader->bytes = NULL;
	reader->length = reader->capacity = 0;
}

/* The next message begins. */
static void begin_anew(struct packet_reader *reader)
{
	if (reader->capacity > KEPT_CAPACITY)
		packet_reader_free(reader);
	reader->length = reader->depth = reader->values = 0;
	reader->braces = 0;
	reader->state = BETWEEN;
	reader->is_faulty = reader->is_done = reader->has_gap = false;
}

void packet_reader_restart(struct packet_reader *reader)
{
	begin_anew(reader);
}

bool packet_reader_is_between(const struct packet_reader *reader)
{
	return reader->is_done || reader->state == BETWEEN || reader->state == GARBAGE;
}

/* The first thing that is wrong with a message is told, and the rest of it is passed over. */
static enum packet_event find_fault(struct packet_reader *reader, const char *fault)
{
	if (reader->is_faulty)
		return PACKET_MORE;
	reader->is_faulty = true;
	reader->fault = fault;
	return PACKET_FAULT;
}

static enum packet_event append(struct packet_reader *reader, const char *bytes, size_t length)
{
	if (reader->is_faulty)
		return PACKET_MORE;
	if (length > reader->limit - reader->length)
		return find_fault(reader, "the message is too long");
	if (reader->length + length > reader->capacity) {
		size_t capacity = reader->capacity == 0 ? FIRST_CAPACITY : reader->capacity;
		while (capacity < reader->length + length)
			capacity *= 2; /* the limit keeps it far from overflowing */
		char *grown = realloc(reader->bytes, capacity);
		if (grown == NULL)
			return find_fault(reader, "no memory for a message of this length");
		reader->bytes = grown;
		reader->capacity = capacity;
	}
	memcpy(reader->bytes + reader->length, bytes, length);
	reader->length += length;
	return PACKET_MORE;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_in_a_word(char c)
{
	return strchr("{}[],:\"", c) == NULL || c == '\0';
}

static enum packet_event open_bracket(struct packet_reader *reader, char c)
{
	reader->state = INSIDE;
	if (++reader->depth > PACKET_DEPTH_MAX)
		return find_fault(reader, "the message is nested too deeply");
	reader->braces = reader->braces << 1 | (c == '{');
	if (++reader->values > PACKET_VALUES_MAX)
		return find_fault(reader, "the message has too many values");
	return append(reader, &c, 1);
}

/* The wrong bracket: where this message was meant to end nobody knows. The next bracket that opens begins another
   one. */
static enum packet_event give_up(struct packet_reader *reader)
{
	enum packet_event event = find_fault(reader, "bad JSON: a bracket is closed by one of the other kind");
	begin_anew(reader);
	reader->state = GARBAGE;
	return event;
}

static enum packet_event close_bracket(struct packet_reader *reader, char c)
{
	if (reader->depth <= PACKET_DEPTH_MAX) {
		if ((reader->braces & 1) != (c == '}'))
			return give_up(reader);
		reader->braces >>= 1;
	}
	enum packet_event event = append(reader, &c, 1);
	if (--reader->depth > 0)
		return event;
	if (event == PACKET_FAULT || reader->is_faulty) {
		begin_anew(reader);
		return event;
	}
	reader->is_done = true;
	return PACKET_WHOLE;
}

static enum packet_event take_between(struct packet_reader *reader, char c)
{
	/* Programs in C are fond of sending the NUL at the end of their string. */
	if (is_blank(c) || c == '\0')
		return PACKET_MORE;
	if (c == '{' || c == '[')
		return open_bracket(reader, c);
	reader->state = GARBAGE;
	reader->fault = "this is no JSON object";
	return PACKET_FAULT;
}

static enum packet_event take_garbage(struct packet_reader *reader, char c)
{
	if (c != '\n' && c != '{' && c != '[')
		return PACKET_MORE;
	reader->state = BETWEEN;
	return take_between(reader, c);
}

static enum packet_event take_inside(struct packet_reader *reader, char c)
{
	enum packet_event event = PACKET_MORE;
	if (is_blank(c)) {
		reader->has_gap = true;
		return PACKET_MORE;
	}
	if (reader->has_gap && !reader->is_faulty && is_in_a_word(c) && is_in_a_word(reader->bytes[reader->length - 1]))
		event = append(reader, " ", 1);
	reader->has_gap = false;
	if (event != PACKET_MORE)
		return event;
	if (c == '{' || c == '[')
		return open_bracket(reader, c);
	if (c == '}' || c == ']')
		return close_bracket(reader, c);
	if (c == '"')
		reader->state = STRING;
	if (c == ',' && ++reader->values > PACKET_VALUES_MAX)
		return find_fault(reader, "the message has too many values");
	return append(reader, &c, 1);
}

static enum packet_event take_in_string(struct packet_reader *reader, char c)
{
	if (c == '\n') {
		enum packet_event event = find_fault(reader, "bad JSON: a text goes on over the end of its line");
		begin_anew(reader);
		return event;
	}
	if ((unsigned char)c < 0x20)
		return find_fault(reader, "bad JSON: a control character in a text");
	reader->state = reader->state == ESCAPE ? STRING : c == '"' ? INSIDE : c == '\\' ? ESCAPE : STRING;
	return append(reader, &c, 1);
}

static enum packet_event take(struct packet_reader *reader, char c)
{
	switch ((enum state)reader->state) {
	case BETWEEN:
		return take_between(reader, c);
	case GARBAGE:
		return take_garbage(reader, c);
	case INSIDE:
		return take_inside(reader, c);
	case STRING:
	case ESCAPE:
		break;
	}
	return take_in_string(reader, c);
}

/* How many of the bytes are plain text within a string: a payload is mostly that, and is copied in one go. */
static size_t plain_text(const char *bytes, size_t length)
{
	size_t count = 0;
	while (count < length && (unsigned char)bytes[count] >= 0x20 && bytes[count] != '"' && bytes[count] != '\\')
		count++;
	return count;
}

enum packet_event packet_read(struct packet_reader *reader, const char *bytes, size_t length, size_t *used)
{
	if (reader->is_done)
		begin_anew(reader);
	size_t at = 0;
	enum packet_event event = PACKET_MORE;
	while (at < length && event == PACKET_MORE) {
		size_t run = reader->state == STRING ? plain_text(bytes + at, length - at) : 0;
		event = run > 0 ? append(reader, bytes + at, run) : take(reader, bytes[at]);
		at += run > 0 ? run : 1;
	}
	*used = at;
	return event;
}

/* ---- what they say --------------------------------------------------------------------------------------------- */

static bool is_plain_text(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return true;
}

/* A number, or a text that may stand for one: 7 and "7" are the same. */
static bool read_id(const json_t *value, char out[PACKET_ID_MAX])
{
	if (json_is_integer(value)) {
		snprintf(out, PACKET_ID_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		return true;
	}
	if (!json_is_string(value))
		return false;
	size_t length = json_string_length(value);
	if (length == 0 || length >= PACKET_ID_MAX || !is_plain_text(json_string_value(value), length))
		return false;
	memcpy(out, json_string_value(value), length + 1);
	return true;
}

static bool take_id(const struct packet *packet, const char *key, char out[PACKET_ID_MAX], char *why)
{
	const json_t *value = json_object_get(packet->json, key);
	if (value != NULL && read_id(value, out))
		return true;
	snprintf(why, PACKET_WHY_MAX, "%s %s; a number is wanted, or a text of 1 to %u bytes", key,
	         value == NULL ? "is missing" : "is not understood", PACKET_ID_MAX - 1);
	return false;
}

static bool take_policy(struct packet *packet, char *why)
{
	bool is_setup = packet->type == PACKET_SETUP;
	const char *own = is_setup ? "privPolyId" : "privPoliId", *other = is_setup ? "privPoliId" : "privPolyId";
	bool has_other = json_object_get(packet->json, own) == NULL && json_object_get(packet->json, other) != NULL;
	return take_id(packet, has_other ? other : own, packet->policy, why);
}

static bool take_port(struct packet *packet, char *why)
{
	char text[PACKET_ID_MAX];
	unsigned port = 0;
	const json_t *value = json_object_get(packet->json, "listenport");
	bool good = value != NULL && read_id(value, text) && strlen(text) <= 5 &&
	            strspn(text, "0123456789") == strlen(text);
	for (size_t i = 0; good && text[i] != '\0'; i++)
		port = port * 10 + (unsigned)(text[i] - '0');
	packet->port = port;
	if (good && port >= 1 && port <= 65535)
		return true;
	snprintf(why, PACKET_WHY_MAX, "listenport %s; a number from 1 to 65535 is wanted",
	         value == NULL ? "is missing" : "is not understood");
	return false;
}

static bool take_payload(struct packet *packet, char *why)
{
	const json_t *value = json_object_get(packet->json, "payload");
	if (!json_is_string(value)) {
		snprintf(why, PACKET_WHY_MAX, "payload %s; a text is wanted",
		         value == NULL ? "is missing" : "is not understood");
		return false;
	}
	packet->payload = json_string_value(value);
	packet->payload_bytes = json_string_length(value);
	if (packet->payload_bytes <= PACKET_PAYLOAD_MAX)
		return true;
	snprintf(why, PACKET_WHY_MAX, "payload has %zu bytes; at most %u are allowed", packet->payload_bytes,
	         PACKET_PAYLOAD_MAX);
	return false;
}

static bool take_type(struct packet *packet, char *why)
{
	char text[PACKET_ID_MAX] = "";
	const json_t *value = json_object_get(packet->json, "type");
	bool is_known = value != NULL && read_id(value, text) && strlen(text) == 1 && strchr("0123", text[0]) != NULL;
	if (is_known)
		packet->type = (enum packet_type)(text[0] - '0');
	else
		snprintf(why, PACKET_WHY_MAX, "%s; 0, 1, 2 or 3 is wanted",
		         value == NULL ? "type is missing" : "unknown type");
	return is_known;
}

static bool take_fields(struct packet *packet, char *why)
{
	if (!take_type(packet, why))
		return false;
	switch (packet->type) {
	case PACKET_MESSAGE:
		return take_id(packet, "srcid", packet->source, why) && take_policy(packet, why) &&
		       take_payload(packet, why);
	case PACKET_SETUP:
		return take_id(packet, "id", packet->source, why) && take_policy(packet, why) && take_port(packet, why);
	case PACKET_ANSWER:
		return take_id(packet, "srcid", packet->source, why) && take_payload(packet, why);
	case PACKET_ERROR:
		break;
	}
	const char *error = json_string_value(json_object_get(packet->json, "error"));
	packet->error = error == NULL ? "an error without a reason" : error;
	return true;
}

/* jansson quotes what it stumbled over, cut off anywhere. */
static void say_bad_json(const json_error_t *error, char *why)
{
	snprintf(why, PACKET_WHY_MAX, "bad JSON: %s", error->text[0] != '\0' ? error->text : "out of memory");
	for (char *c = why; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

bool packet_parse(const char *bytes, size_t length, struct packet *out, char why[PACKET_WHY_MAX])
{
	json_error_t error;
	memset(out, 0, sizeof *out);
	/* Of two values for one key the switch might believe the first and the server the second. */
	out->json = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (out->json == NULL) {
		say_bad_json(&error, why);
		return false;
	}
	bool good = json_is_object(out->json);
	if (!good)
		snprintf(why, PACKET_WHY_MAX, "this is no JSON object");
	good = good && take_fields(out, why);
	if (good && out->type == PACKET_ANSWER) { /* nice to have: who reads the answer knows who asked */
		const json_t *destination = json_object_get(out->json, "destid");
		if (destination == NULL || !read_id(destination, out->destination))
			out->destination[0] = '\0';
	}
	if (!good)
		packet_release(out);
	return good;
}

void packet_release(struct packet *packet)
{
	json_decref(packet->json);
	packet->json = NULL;
	packet->payload = packet->error = NULL;
}

/* ---- saying it ------------------------------------------------------------------------------------------------- */

/* Takes over json. */
static char *write_out(json_t *json, size_t *length)
{
	char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	json_decref(json);
	*length = text == NULL ? 0 : strlen(text);
	return text;
}

/* Numbers as texts, as the exercise's own programs write them: some compare them with texts. */
char *packet_write_setup(const char *id, const char *policy, unsigned port, size_t *length)
{
	char number[16];
	snprintf(number, sizeof number, "%u", port);
	return write_out(
		json_pack("{s:s, s:s, s:s, s:s}", "type", "1", "id", id, "privPolyId", policy, "listenport", number),
		length);
}

char *packet_write_answer(const struct packet *message, const char *id, const char *payload, size_t *length)
{
	json_t *destination = json_object_get(message->json, "srcid");
	return write_out(json_pack("{s:s, s:s, s:O, s:i, s:s}", "type", "2", "srcid", id, "destid", destination,
	                           "payloadsize", (int)strlen(payload), "payload", payload),
	                 length);
}

char *packet_write_from(const struct packet *message, const char *id, size_t *length)
{
	json_t *copy = json_copy(message->json);
	bool was_number = json_is_integer(json_object_get(message->json, "srcid"));
	bool is_number = strlen(id) <= 18 && strspn(id, "0123456789") == strlen(id);
	json_t *value = was_number && is_number ? json_integer(strtoll(id, NULL, 10)) : json_string(id);
	if (copy == NULL || json_object_set_new(copy, "srcid", value) != 0) {
		json_decref(copy);
		copy = NULL;
	}
	return write_out(copy, length);
}

char *packet_write_error(const char *error, unsigned over_limit_s, size_t *length)
{
	if (over_limit_s == 0)
		return write_out(json_pack("{s:s, s:s}", "type", "3", "error", error), length);
	return write_out(json_pack("{s:s, s:s, s:{s:i, s:s, s:i}}", "type", "3", "error", error, "overLimit", "code",
	                           429, "message", error, "retryAfter", (int)over_limit_s),
	                 length);
}

const char *packet_excerpt(const char *text, size_t length, char out[PACKET_EXCERPT_MAX])
{
	size_t at = 0, shown = 0;
	out[at++] = '"';
	/* A terminal obeys control characters; half of a letter at the cut would be shown as rubbish. */
	for (; shown < length && at < PACKET_EXCERPT_MAX / 2; shown++)
		out[at++] = (unsigned char)text[shown] < 0x20 || text[shown] == 0x7f ? '?' : text[shown];
	if (shown < length) {
		while (at > 1 && ((unsigned char)out[at - 1] & 0xc0) == 0x80)
			at--;
		if (at > 1 && ((unsigned char)out[at - 1] & 0xc0) == 0xc0)
			at--;
	}
	snprintf(out + at, PACKET_EXCERPT_MAX - at, shown < length ? "…\" (%zu bytes)" : "\"", length);
	return out;
}
