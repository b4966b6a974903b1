/* fuzz_chunked.c: chunked bodies from random bytes, read three times over.
 *
 *      input ──► reader, in pieces ═ reader, at once ═ a second reader that is written as the RFC is
 *                                        └──► framed anew ──► read back: the same payload
 *
 * The second reader below has no state and no pieces: it sees the whole stream and walks down the grammar of RFC 9112
 * §7.1. It is too simple to be fast and too simple to be wrong in the same way; where the two differ, one of them
 * would let a request be smuggled.
 *
 * Where the pieces are cut follows from a hash of the input, so that a file that failed fails again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/body.h"

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

static void *take(size_t size)
{
	void *new = calloc(size ? size : 1, 1);
	if (!new)
		abort();
	return new;
}

/* What came of a stream. */
struct outcome {
	enum body_event end;
	size_t used;
	size_t payload_length;
	char *payload;
	size_t trailers_length;
	char trailers[BODY_TRAILERS_MAX];
};

/* ---- the reader under test ------------------------------------------------------------------------------------- */

static void read_piece(struct body *body, const char *bytes, size_t length, struct outcome *o)
{
	size_t at = 0, used;
	struct http_text data;
	do {
		o->end = body_read(body, bytes + at, length - at, &used, &data);
		must(used <= length - at, "no more is used than was given");
		must((o->end == BODY_DATA) == (data.length > 0), "payload comes with BODY_DATA and never without");
		must(o->end != BODY_MORE || used == length - at, "more is asked for when all is used");
		if (data.length > 0) {
			must(data.at >= bytes + at && data.at + data.length == bytes + at + used,
			     "payload ends where reading stopped");
			memcpy(o->payload + o->payload_length, data.at, data.length);
			o->payload_length += data.length;
		}
		at += used;
	} while (o->end == BODY_DATA);
	o->used += at;
}

/* random 0: all at once. */
static struct outcome read_stream(const char *bytes, size_t size, uint32_t random)
{
	struct outcome o = { .end = BODY_MORE, .payload = take(size) };
	struct body body;
	size_t from = 0;
	bool in_pieces = random != 0;
	body_begin(&body, HTTP_CHUNKED, 0);
	while (o.end == BODY_MORE && from < size) {
		size_t step = in_pieces ? 1 + next(&random) % (next(&random) % 4 == 0 ? 40 : 3) : size;
		if (step > size - from)
			step = size - from;
		char *piece = take(step);
		memcpy(piece, bytes + from, step);
		read_piece(&body, piece, step, &o);
		free(piece);
		from += step;
	}
	must(body.payload_bytes == o.payload_length, "payload is counted");
	must((o.end == BODY_BAD) == (body.why != NULL), "what is malformed has a reason");
	must(body_may_end_here(&body) == (o.end == BODY_END), "a stream may end where the body does");
	must(body.trailers_length <= BODY_TRAILERS_MAX, "trailers are bounded");
	o.trailers_length = body.trailers_length;
	memcpy(o.trailers, body.trailers, body.trailers_length);
	return o;
}

static bool same(const struct outcome *a, const struct outcome *b)
{
	return a->end == b->end && (a->end == BODY_BAD || a->used == b->used) &&
		a->payload_length == b->payload_length &&
	       memcmp(a->payload, b->payload, a->payload_length) == 0 && a->trailers_length == b->trailers_length &&
	       memcmp(a->trailers, b->trailers, a->trailers_length) == 0;
}

/* ---- the second reader ----------------------------------------------------------------------------------------- */

/* The line at *at, without its CR LF; *at moves behind it. False: it is not whole, or ends in a bare LF. */
static bool take_line(const char **at, const char *end, struct http_text *line)
{
	const char *line_feed = memchr(*at, '\n', (size_t)(end - *at));
	if (!line_feed || line_feed == *at || line_feed[-1] != '\r')
		return false;
	*line = (struct http_text){ *at, (size_t)(line_feed - 1 - *at) };
	*at = line_feed + 1;
	return true;
}

static bool read_size(struct http_text line, uint64_t *size, size_t *extensions)
{
	static const char hex[] = "0123456789abcdef0123456789ABCDEF";
	size_t digits = 0;
	for (*size = 0; digits < line.length && line.at[digits] != ';'; digits++) {
		const char *found = line.at[digits] ? strchr(hex, line.at[digits]) : NULL;
		if (!found || digits == 16)
			return false;
		*size = *size << 4 | (uint64_t)((found - hex) % 16);
	}
	if (digits == 0 || *size >> 60)
		return false;
	for (size_t i = digits; i < line.length; i++) {
		unsigned char c = (unsigned char)line.at[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	size_t extension = line.length > digits ? line.length - digits - 1 : 0;
	*extensions += extension;
	return extension <= BODY_EXTENSION_MAX && *extensions <= BODY_EXTENSIONS_MAX;
}

/* True if the stream holds a whole body, as far as its trailers; then *used bytes came before them. */
static bool reads_as_a_body(const char *bytes, size_t length, char *payload, size_t *payload_length, size_t *used)
{
	const char *at = bytes, *end = bytes + length;
	size_t extensions = 0;
	*payload_length = 0;
	for (;;) {
		struct http_text line;
		uint64_t size;
		if (!take_line(&at, end, &line) || !read_size(line, &size, &extensions))
			return false;
		*used = (size_t)(at - bytes);
		if (size == 0)
			return true;
		if (size > (uint64_t)(end - at) || (uint64_t)(end - at) - size < 2 || memcmp(at + size, "\r\n", 2) != 0)
			return false;
		memcpy(payload + *payload_length, at, (size_t)size);
		*payload_length += (size_t)size;
		at += size + 2;
	}
}

/* Trailers are fields: the head parser judges those that came, by the same grammar, and those that were kept. */
static bool trailers_read_as_fields(const char *bytes, size_t length, struct http_head *head, char **memory)
{
	static const char start[] = "HTTP/1.0 200 OK\r\n";
	*memory = take(sizeof start - 1 + length);
	memcpy(*memory, start, sizeof start - 1);
	memcpy(*memory + sizeof start - 1, bytes, length);
	return http_parse_response(*memory, sizeof start - 1 + length, HTTP_GET, head).status == 0;
}

static void check_trailers_kept(const struct outcome *o)
{
	static struct http_head head;
	char lines[BODY_TRAILERS_MAX + 2], *memory;
	memcpy(lines, o->trailers, o->trailers_length);
	memcpy(lines + o->trailers_length, "\r\n", 2);
	size_t count = 0;
	for (size_t i = 0; i < o->trailers_length; i++)
		count += o->trailers[i] == '\n';
	if (count <= HTTP_FIELDS_MAX) {
		must(trailers_read_as_fields(lines, o->trailers_length + 2, &head, &memory),
		     "trailers kept are fields");
		must(head.field_count == count, "trailers kept are as many fields as lines");
		must(head.framing == HTTP_UNTIL_CLOSE && !head.has_content_length,
		     "no trailer kept says anything about framing");
		for (size_t i = 0; i < count; i++)
			must(!head.fields[i].hop_by_hop && head.fields[i].known != HTTP_NAME_HOST, "nor about routing");
		free(memory);
	}
}

static void compare_with_second_reader(const char *bytes, size_t size, const struct outcome *o)
{
	size_t payload_length, used;
	char *payload = take(size);
	if (!reads_as_a_body(bytes, size, payload, &payload_length, &used)) {
		must(o->end != BODY_END, "the second reader sees the end as well");
	} else {
		must(payload_length == o->payload_length && memcmp(payload, o->payload, payload_length) == 0,
		     "both readers see the same payload");
		/* The trailers end at the first empty line. */
		const char *rest = bytes + used, *end = bytes + size;
		bool has_end = size - used >= 2 && memcmp(rest, "\r\n", 2) == 0;
		const char *empty = has_end ? rest : memmem(rest, size - used, "\r\n\r\n", 4);
		size_t trailers = empty ? (size_t)(empty - rest) + (has_end ? 2 : 4) : (size_t)(end - rest);
		must(o->end != BODY_END || (empty && o->used == used + trailers), "a body ends with its empty line");
		must(o->end != BODY_MORE || !empty, "a body with its empty line is complete");
		must(o->end != BODY_END || trailers <= BODY_TRAILERS_MAX, "trailers are bounded on the wire");
		must(!has_end || o->end == BODY_END, "a body without trailers is complete");
	}
	free(payload);
}

/* ---- the way out ----------------------------------------------------------------------------------------------- */

static void frame_anew_and_read_back(const struct outcome *o, uint32_t random)
{
	size_t at = 0;
	char *bytes = take(o->payload_length * (BODY_CHUNK_HEAD_MAX + 3) + 5);
	for (size_t from = 0; from < o->payload_length;) {
		size_t step = 1 + next(&random) % 200;
		if (step > o->payload_length - from)
			step = o->payload_length - from;
		char head[BODY_CHUNK_HEAD_MAX];
		size_t length = body_chunk_head(head, step);
		memcpy(bytes + at, head, length);
		memcpy(bytes + at + length, o->payload + from, step);
		memcpy(bytes + at + length + step, "\r\n", 2);
		at += length + step + 2;
		from += step;
	}
	memcpy(bytes + at, "0\r\n\r\n", 5);
	struct outcome back = read_stream(bytes, at + 5, 0);
	must(back.end == BODY_END && back.used == at + 5, "what we write is a whole body");
	must(back.payload_length == o->payload_length && memcmp(back.payload, o->payload, o->payload_length) == 0,
	     "what we write has the payload that came");
	free(back.payload);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * 16777619u;
	struct outcome whole = read_stream(bytes, size, 0), pieces = read_stream(bytes, size, hash | 1u);
	must(same(&whole, &pieces), "any division gives the same body");
	must(whole.used <= size, "what follows the body is left");
	compare_with_second_reader(bytes, size, &whole);
	check_trailers_kept(&whole);
	frame_anew_and_read_back(&whole, hash);
	free(whole.payload);
	free(pieces.payload);
	return 0;
}
