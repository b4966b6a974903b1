/* fuzz_head.c: heads from random bytes: scanned, parsed, written out again, and read once more.
 *
 *      input ──► scan in pieces ═ scan at once        any division of the bytes gives the same head
 *            └─► parse ──► rewrite ──► scan, parse    what we send is one head, and means what we understood
 *
 * Crashes are only half of what is looked for. A proxy that accepts a head and sends on one that reads otherwise has
 * been used to smuggle a request; so the head that goes out is read with our own parser, the strictest reader there
 * will be, and compared.
 *
 * Each input is tried as a request and as a response. Where reads are cut and which options are used follows from a
 * hash of the input, so that a file that failed fails again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rewrite.h"

#define VIA "weir-fuzz"
#define FIELDS_ADDED_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static uint32_t hash_of(const uint8_t *data, size_t size)
{
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * 16777619u;
	return hash;
}

static uint32_t next(uint32_t *random)
{
	*random = *random * 1664525u + 1013904223u;
	return *random >> 16;
}

/* Memory of exactly that size: a read past its end is seen. */
static char *copy(const void *bytes, size_t size)
{
	char *new = calloc(size ? size : 1, 1);
	if (!new)
		abort();
	if (size > 0)
		memcpy(new, bytes, size);
	return new;
}

/* ---- scanning -------------------------------------------------------------------------------------------------- */

static enum http_scan_result scan_in_pieces(const uint8_t *data, size_t size, uint32_t random, struct http_scan *scan,
                                            size_t *length)
{
	size_t have = 0;
	enum http_scan_result result = HTTP_SCAN_MORE;
	while (have < size && result == HTTP_SCAN_MORE) {
		size_t step = 1 + next(&random) % (next(&random) % 4 == 0 ? 64 : 3);
		have += step < size - have ? step : size - have;
		char *bytes = copy(data, have); /* they may move between reads */
		result = http_scan(scan, bytes, have, length);
		free(bytes);
	}
	return result;
}

static enum http_scan_result scan(const uint8_t *data, size_t size, bool is_response, size_t *skipped, size_t *length)
{
	struct http_scan whole = { .is_response = is_response }, pieces = whole;
	size_t whole_length = 0, pieces_length = 0;
	char *bytes = copy(data, size);
	enum http_scan_result result = http_scan(&whole, bytes, size, &whole_length);
	free(bytes);
	must(scan_in_pieces(data, size, hash_of(data, size), &pieces, &pieces_length) == result, "pieces: same result");
	must(whole_length == pieces_length, "pieces: same length");
	must(whole.skipped == pieces.skipped, "pieces: same bytes skipped");
	if (result == HTTP_SCAN_COMPLETE) {
		must(whole.skipped + whole_length <= size && whole_length >= 4, "a head lies within the bytes");
		must(memcmp(data + whole.skipped + whole_length - 4, "\r\n\r\n", 4) == 0,
		     "a head ends with an empty line");
	}
	*skipped = whole.skipped;
	*length = whole_length;
	return result;
}

/* ---- what a parsed head must be like --------------------------------------------------------------------------- */

static void check_text(struct http_text text, const char *bytes, size_t length)
{
	if (!text.at)
		return;
	must(text.at >= bytes && text.at + text.length <= bytes + length, "texts lie within the head");
	for (size_t i = 0; i < text.length; i++) {
		unsigned char c = (unsigned char)text.at[i];
		must((c >= 0x20 || c == '\t') && c != 0x7f, "no control character in a text");
	}
}

static void check_head(const struct http_head *head, const char *bytes, size_t length)
{
	check_text(head->method_text, bytes, length);
	check_text(head->target, bytes, length);
	check_text(head->host, bytes, length);
	check_text(head->reason, bytes, length);
	check_text(head->upgrade, bytes, length);
	must(head->field_count <= HTTP_FIELDS_MAX, "fields are bounded");
	must(head->minor_version <= 1, "the version is 1.0 or 1.1");
	must(head->framing != HTTP_BY_LENGTH || head->has_content_length, "by length: there is a length");
	must(head->framing != HTTP_CHUNKED || (!head->has_content_length && head->minor_version == 1),
	     "chunked: nothing else");
	for (size_t i = 0; i < head->field_count; i++) {
		check_text(head->fields[i].name, bytes, length);
		check_text(head->fields[i].value, bytes, length);
		must(head->fields[i].name.length > 0, "no field without a name");
	}
}

/* No line of the head may be more than a field that was meant: every LF follows a CR, every CR is followed by LF. */
static void check_lines(const char *out, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (out[i] == '\n')
			must(i > 0 && out[i - 1] == '\r', "written: no bare LF");
		if (out[i] == '\r')
			must(i + 1 < length && out[i + 1] == '\n', "written: no bare CR");
		must(out[i] != '\0', "written: no NUL");
	}
	size_t skipped, head_length;
	bool is_response = length >= 5 && memcmp(out, "HTTP/", 5) == 0;
	must(scan((const uint8_t *)out, length, is_response, &skipped, &head_length) == HTTP_SCAN_COMPLETE,
	     "written: a head");
	must(skipped == 0 && head_length == length, "written: one head and nothing else");
}

static bool is_gone(const struct http_head *head, enum http_name known)
{
	const struct http_field *field = http_find(head, known);
	return !field;
}

static void check_hop_by_hop_fields_are_gone(const struct http_head *before, const struct http_head *after)
{
	static const enum http_name always[] = { HTTP_NAME_KEEP_ALIVE, HTTP_NAME_PROXY_CONNECTION, HTTP_NAME_TE,
		                                 HTTP_NAME_PROXY_AUTHORIZATION, HTTP_NAME_HTTP2_SETTINGS };
	for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
		must(is_gone(after, always[i]), "written: nothing that is always hop-by-hop");
	for (size_t i = 0; i < before->field_count; i++) {
		const struct http_field *field = &before->fields[i];
		if (!field->hop_by_hop || field->known != HTTP_NAME_OTHER)
			continue;
		for (size_t k = 0; k < after->field_count; k++)
			must(after->fields[k].name.length != field->name.length ||
			     memcmp(after->fields[k].name.at, field->name.at, field->name.length) != 0,
			     "written: nothing that Connection named");
	}
}

static void check_same_framing(const struct http_head *before, const struct http_head *after)
{
	must(after->framing == before->framing, "written: same framing");
	must(after->has_content_length == before->has_content_length, "written: a length if there was one");
	must(after->content_length == before->content_length, "written: same length");
}

/* ---- requests and responses ------------------------------------------------------------------------------------ */

/* Writes into memory of exactly the right size, having learnt what that is. */
static char *write_request(const struct http_head *head, const struct rewrite_request *how, size_t *length)
{
	static char large[1 << 20];
	*length = rewrite_request(head, how, large, sizeof large);
	must(*length > 0, "a request fits into a large buffer");
	char *out = copy(large, *length);
	must(rewrite_request(head, how, out, *length - 1) == 0, "one byte too few is too few");
	must(rewrite_request(head, how, out, *length) == *length, "exactly as many bytes as needed are enough");
	return out;
}

static void rewrite_and_read_request(const struct http_head *head, uint32_t random)
{
	static struct http_head again;
	struct rewrite_request how = {
		.via = VIA,
		.forwarded = (enum rewrite_forwarded)(next(&random) % 3),
		.client = { "2001:db8::1", 11 },
		.scheme = "http",
		.target_host = { "target:1", 8 },
		.upgrades = next(&random) % 2 == 0,
		.keep_alive = next(&random) % 2 == 0,
		.max_forwards = (int)(next(&random) % 3) - 1,
	};
	size_t length;
	char *out = write_request(head, &how, &length);
	check_lines(out, length);
	struct http_fault fault = http_parse_request(out, length, &again);
	if (fault.status == 431 && head->field_count + FIELDS_ADDED_MAX > HTTP_FIELDS_MAX) {
		free(out);
		return;
	}
	must(fault.status == 0, fault.why ? fault.why : "");
	check_same_framing(head, &again);
	check_hop_by_hop_fields_are_gone(head, &again);
	must(again.method == head->method && again.expects_continue == head->expects_continue, "written: same method");
	must(again.minor_version == 1, "written: as HTTP/1.1");
	must(head->host.at == NULL || (again.host.length == head->host.length &&
	     memcmp(again.host.at, head->host.at, head->host.length) == 0), "written: same host");
	must(how.forwarded == REWRITE_OFF || rewrite_is_loop(&again, VIA), "written: we know ourselves again");
	must((again.upgrade.at != NULL) == (how.upgrades && head->upgrade.at), "written: upgrade if asked for");
	must(again.keep_alive == (how.keep_alive || again.upgrade.at), "written: Connection as told");
	free(out);
}

static void try_request(const uint8_t *data, size_t size)
{
	static struct http_head head;
	size_t skipped, length;
	enum http_scan_result result = scan(data, size, false, &skipped, &length);
	/* The parser must hold out against any bytes, and accept nothing that the scan did not find. */
	if (result != HTTP_SCAN_COMPLETE)
		length = size, skipped = 0;
	char *bytes = copy(data + skipped, length);
	struct http_fault fault = http_parse_request(bytes, length, &head);
	must((fault.status != 0) == (fault.why != NULL), "a fault has a reason");
	if (fault.status == 0) {
		must(result == HTTP_SCAN_COMPLETE, "nothing is parsed that was not found");
		check_head(&head, bytes, length);
		rewrite_and_read_request(&head, hash_of(data, size));
	} else {
		must(fault.status >= 400 && fault.status <= 505, "a fault is the client's or about what we can");
		check_text(head.method_text, bytes, length);
		check_text(head.target, bytes, length);
	}
	free(bytes);
}

static void rewrite_and_read_response(const struct http_head *head, enum http_method method, uint32_t random)
{
	static struct http_head again;
	static char out[1 << 20];
	struct rewrite_response how = {
		.via = next(&random) % 2 == 0 ? VIA : NULL,
		.client_is_1_1 = next(&random) % 2 == 0,
		.keep_alive = next(&random) % 2 == 0,
		.client_asked_keep_alive_1_0 = next(&random) % 2 == 0,
		.framing = head->framing,
		.content_length = head->content_length,
		.has_content_length = head->has_content_length,
		.upgrades = head->status == 101,
	};
	size_t length = rewrite_response(head, &how, out, sizeof out);
	must(length > 0, "a response fits into a large buffer");
	check_lines(out, length);
	struct http_fault fault = http_parse_response(out, length, method, &again);
	if (fault.status && head->field_count + FIELDS_ADDED_MAX > HTTP_FIELDS_MAX)
		return;
	must(fault.status == 0, fault.why ? fault.why : "");
	check_same_framing(head, &again);
	check_hop_by_hop_fields_are_gone(head, &again);
	must(again.status == head->status, "written: same status");
}

static void try_response(const uint8_t *data, size_t size)
{
	static const enum http_method methods[] = { HTTP_GET, HTTP_HEAD, HTTP_CONNECT };
	static struct http_head head;
	size_t skipped, length;
	enum http_scan_result result = scan(data, size, true, &skipped, &length);
	must(skipped == 0, "nothing is skipped before a response");
	if (result != HTTP_SCAN_COMPLETE)
		length = size;
	char *bytes = copy(data, length);
	for (size_t i = 0; i < 3; i++) {
		struct http_fault fault = http_parse_response(bytes, length, methods[i], &head);
		must(fault.status == 0 || (fault.status == 502 && fault.why), "a bad response is 502");
		if (fault.status)
			continue;
		must(result == HTTP_SCAN_COMPLETE, "nothing is parsed that was not found");
		check_head(&head, bytes, length);
		rewrite_and_read_response(&head, methods[i], hash_of(data, size));
	}
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_request(data, size);
	try_response(data, size);
	return 0;
}
