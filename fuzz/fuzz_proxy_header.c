/* fuzz_proxy_header.c: PROXY headers from random bytes.
 *
 *      input ──► parsed at every length      "more" until it is whole or bad, and the same verdict from there on
 *                     │ it names a client
 *                     └──► written as v1 and as v2 ──► read back: the same client
 *
 * The input is copied to memory of its exact size for each length: what reads past it is seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static enum proxy_header_result parse(const uint8_t *data, size_t size, struct proxy_header *header, size_t *used)
{
	char *exact = malloc(size > 0 ? size : 1);
	if (exact == NULL)
		abort();
	if (size > 0)
		memcpy(exact, data, size);
	enum proxy_header_result result = proxy_header_parse(exact, size, header, used);
	free(exact);
	return result;
}

static void same_address(const struct address *a, const struct address *b)
{
	char texts[2][ADDRESS_TEXT_MAX];
	address_text(a, texts[0]);
	address_text(b, texts[1]);
	must(strcmp(texts[0], texts[1]) == 0, "what is written is read back");
}

static void write_and_read_back(const struct proxy_header *header)
{
	for (unsigned version = 1; version <= 2; version++) {
		char out[PROXY_HEADER_WRITE_MAX];
		struct proxy_header again;
		size_t used, length = proxy_header_write(version, &header->client, &header->destination, out);
		must(length <= sizeof out, "there is room for what is written");
		must(proxy_header_parse(out, length, &again, &used) == PROXY_HEADER_WHOLE && used == length && again.has_client,
		     "what is written is a header");
		same_address(&header->client, &again.client);
		same_address(&header->destination, &again.destination);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum proxy_header_result verdict = PROXY_HEADER_MORE;
	size_t verdict_used = 0;
	size_t most = size < 300 ? size : 300; /* each length is tried: a long tail says nothing new */
	for (size_t length = 0; length <= most; length++) {
		struct proxy_header header;
		size_t used;
		enum proxy_header_result result = parse(data, length, &header, &used);
		must(verdict == PROXY_HEADER_MORE || result == verdict, "more bytes do not change a verdict");
		must(result != PROXY_HEADER_WHOLE || (used <= length && used > 0), "a whole header has come");
		must(verdict != PROXY_HEADER_WHOLE || used == verdict_used, "more bytes do not change where it ends");
		must(result == PROXY_HEADER_WHOLE || !header.has_client, "half a header names nobody");
		if (result == PROXY_HEADER_WHOLE && verdict == PROXY_HEADER_MORE && header.has_client)
			write_and_read_back(&header);
		verdict = result;
		verdict_used = used;
	}
	return 0;
}
