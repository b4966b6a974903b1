/* fuzz_rules.c: any request at all, seen by what decides who the client is and which rules concern it.
 *
 *      bytes ──► http_parse_request() ──► a fault? then nothing else may look at it
 *                     │
 *                     ├──► access_client(): an IP address, and without trust the peer's
 *                     ├──► rules_normalize_path(): in its plain form; the beginning of the same in any smaller room;
 *                     │                            encoded again, its own plain form
 *                     └──► rules_match(), rules_key(): nothing is read or written beyond its end
 *
 * Rooms are allocated to the byte, so that the address sanitizer sees one too many.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/access.h"
#include "lib/rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_rules: %s\n", what);
	abort();
}

static char *room_of(size_t bytes)
{
	char *room = malloc(bytes + (bytes == 0));
	if (!room)
		abort();
	return room;
}

static void look_at_client(const struct http_head *head)
{
	struct network items[] = { { .family = AF_INET, .bytes = { 10 }, .prefix_bits = 8 } };
	struct networks nobody = { .items = NULL }, trusted = { .items = items, .count = 1 };
	struct address peer, client;

	require(address_parse("10.0.0.2", 1, &peer), "the peer is an address");
	access_client(&nobody, &peer, head, &client);
	require(client.any.sa_family == AF_INET && client.v4.sin_addr.s_addr == peer.v4.sin_addr.s_addr,
	        "a peer that is not trusted was believed");
	access_client(&trusted, &peer, head, &client);
	require(client.any.sa_family == AF_INET || client.any.sa_family == AF_INET6, "the client is no address");
}

static void require_plain(const char *path, size_t length)
{
	require(length > 0 && path[0] == '/', "a plain path without its slash");
	for (size_t at = 0; at < length;) {
		size_t segment = 0;
		while (at + 1 + segment < length && path[at + 1 + segment] != '/')
			segment++;
		bool is_last = at + 1 + segment == length;
		require(segment > 0 || is_last, "an empty segment");
		require(!(segment == 1 && path[at + 1] == '.'), "a segment .");
		require(!(segment == 2 && memcmp(path + at + 1, "..", 2) == 0), "a segment ..");
		at += 1 + segment;
	}
}

static void require_its_own_plain_form(const char *path, size_t length)
{
	char *encoded = room_of(3 * length), *again = room_of(length);
	size_t used = 0;

	for (size_t i = 0; i < length; i++) {
		if (path[i] != '%' && path[i] != '?') {
			encoded[used++] = path[i];
			continue;
		}
		memcpy(encoded + used, path[i] == '%' ? "%25" : "%3f", 3);
		used += 3;
	}
	size_t found = rules_normalize_path((struct http_text){ encoded, used }, again, length);
	require(found == length && memcmp(again, path, length) == 0, "not its own plain form");
	free(encoded);
	free(again);
}

/* Returns the plain path, to be freed. */
static char *look_at_path(struct http_text path, size_t *length)
{
	/* It never grows, but for the slash of an empty one. */
	char *plain = room_of(path.length + 1), *small = room_of(path.length / 2);
	*length = rules_normalize_path(path, plain, path.length + 1);
	size_t cut = rules_normalize_path(path, small, path.length / 2);

	require(cut == (*length < path.length / 2 ? *length : path.length / 2), "a cut path of another length");
	require(memcmp(small, plain, cut) == 0, "a cut path is not the beginning of the whole");
	if (path.length == 0 || path.at[0] == '/' || path.at[0] == '?') {
		require_plain(plain, *length);
		require_its_own_plain_form(plain, *length);
	}
	free(small);
	return plain;
}

static void look_at_rules(const struct http_head *head, struct http_text path)
{
	struct settings_header header = { .name = "X", .value = "y" };
	struct settings_rule rule = { .method = "POST,PUT", .path = "/", .path_is_prefix = true };
	struct settings_rule other = { .host = "::1", .headers = &header, .header_count = 1 };
	struct settings_key key = { .client = true, .path = true, .header = "X" };

	rules_match(&rule, head, path);
	rules_match(&other, head, path);
	other.header_count = 0;
	rules_match(&other, head, path);
	if (path.length > RULES_PATH_MAX)
		path.length = RULES_PATH_MAX;
	char *room = room_of(RULES_PATH_MAX + 512);
	size_t length = rules_key(&key, head, path, (struct http_text){ "10.0.0.2", 8 }, room, RULES_PATH_MAX + 512);
	require(length > 0 && length < RULES_PATH_MAX + 512, "a key that was cut off");
	free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_head head;
	size_t length;

	char *bytes = room_of(size);
	if (size > 0)
		memcpy(bytes, data, size);
	if (http_parse_request(bytes, size, &head).status == 0) {
		look_at_client(&head);
		char *path = look_at_path(head.path, &length);
		look_at_rules(&head, (struct http_text){ path, length });
		free(path);
	}
	free(bytes);
	return 0;
}
