/* fuzz_forward.c: what a forward proxy reads from strangers and operators: hosts, credentials, keys of other programs, and the lists of
 * host_limits and connect_allow.
 *
 *      first byte chooses the parser, the rest is its input
 *
 * Beside crashes it looks for: a name of a host that is not its own name (the second spelling would have a second cap); credentials that
 * hold a control character; an entry of connect_allow that lets a special address through by "*".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/auth.h"
#include "lib/destination.h"
#include "lib/hosts.h"
#include "lib/redis_internal.h"
#include "lib/settings_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_forward: %s\n", what);
	abort();
}

/* What is a name already stays as it is, brackets and port apart. */
static void read_host(const char *text, size_t length)
{
	char name[HOSTS_NAME_MAX], again[HOSTS_NAME_MAX];
	if (!hosts_name(text, length, 80, name))
		return;
	require(hosts_name(name, strlen(name), 443, again), "a name that is none");
	require(strcmp(name, again) == 0, "a name that has another name");
	require(hosts_name(name, strlen(name), 8080, again), "a name that has no port");
	require(strncmp(name, again, strlen(name)) == 0 && strcmp(again + strlen(name), ":8080") == 0, "a name and a port");
}

static void read_credentials(const char *text, size_t length)
{
	char *out = malloc(length + 1);
	size_t user_length = 0;
	if (out == NULL)
		abort();
	if (auth_basic(text, length, out, length + 1, &user_length)) {
		require(out[user_length] == ':', "no colon where the user ends");
		for (const char *c = out; *c != '\0'; c++)
			require((unsigned char)*c >= ' ' && *c != 0x7f, "a control character");
	}
	free(out);
}

static void read_key(const char *text, size_t length)
{
	char host[HOSTS_NAME_MAX], worker[REDIS_ID_MAX * 2];
	if (!redis_split_key(text, length, host, worker))
		return;
	require(strlen(REDIS_PREFIX) + strlen(host) + 1 + strlen(worker) == length, "a key that isn't the sum of its parts");
}

static void read_entry(const char *text, size_t length)
{
	static const char *const specials[] = { "127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1",
		                                "64:ff9b::7f00:1" };
	struct destination_entry entry;
	struct address address;
	if (destination_parse(text, length, &entry) != NULL) {
		require(entry.name == NULL, "a name of an entry that is none");
		return;
	}
	struct destinations list = { .items = &entry, .count = 1 };
	struct destination to = { .host = "www.example.com", .length = 15, .port = entry.port != 0 ? entry.port : 80 };
	bool may_be_meant = entry.kind == DESTINATION_NETWORK || entry.kind == DESTINATION_NAME;
	destinations_may_ask(&list, &to);
	for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
		require(address_parse(specials[i], 80, &address), "no address");
		require(may_be_meant || destinations_may_connect(&list, &to, &address) != DESTINATION_ALLOWED, "an open door");
	}
	free(entry.name);
}

static void read_list(const char *key, const char *text)
{
	const struct settings_row *row = settings_row_find(key);
	char why[VALUE_WHY_MAX];
	union {
		struct host_limits limits;
		struct settings_host_rates rates;
		struct destinations destinations;
	} field;
	memset(&field, 0, sizeof field);
	bool is_good = value_read(row, text, &field, why) == VALUE_GOOD;
	require(is_good || field.limits.items == NULL, "half a list");
	value_clear(row, &field);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	/* A copy of its exact size: what reads past it is seen. */
	size_t length = size - 1;
	char *text = malloc(length + 1);
	if (text == NULL)
		abort();
	memcpy(text, data + 1, length);
	text[length] = '\0';
	char *exact = malloc(length > 0 ? length : 1);
	if (exact == NULL)
		abort();
	memcpy(exact, text, length);
	switch (data[0]) {
	case 'h': read_host(exact, length); break;
	case 'b': read_credentials(exact, length); break;
	case 'k': read_key(exact, length); break;
	case 'e': read_entry(exact, length); break;
	case 'l': read_list("host_limits", text); break;
	case 'r': read_list("host_rates", text); break;
	case 'a': read_list("connect_allow", text); break;
	default: break;
	}
	free(exact);
	free(text);
	return 0;
}
