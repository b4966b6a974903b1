/* fuzz_settings.c: one value of one setting from random bytes, as a flag or the environment would give it.
 *
 *      "threshold=600/m"        the row of lib/settings.def, and its value
 *          value_read() ──► good? cleared, read again: good again, and nothing stays behind
 *                       └─► wrong? the field is as clear as before, and why is one line
 *
 * For lists of networks more is known: what the list says of an address is what its entries say one by one, and a
 * network holds its own first address. (What a whole file with such values means, and that --check prints it so that it
 * reads back: fuzz_ini.c.)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/settings_internal.h"

#define FIELD_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static bool is_clear(const void *field)
{
	static const unsigned char zero[FIELD_BYTES];
	return memcmp(field, zero, FIELD_BYTES) == 0;
}

/* Aligned as any field is. */
static union {
	unsigned char bytes[FIELD_BYTES];
	uint64_t number;
	void *pointer;
} field;

static void read_row(const struct settings_row *row, const char *text)
{
	char why[VALUE_WHY_MAX] = "", again[VALUE_WHY_MAX] = "", allowed[VALUE_ALLOWED_MAX];
	memset(&field, 0, sizeof field);
	enum value_result result = value_read(row, text, &field, why);
	must(result != VALUE_NO_MEMORY, "there is memory");
	must(result != VALUE_WRONG || is_clear(&field), "a wrong value leaves nothing");
	must(strchr(why, '\n') == NULL, "a reason is one line");
	value_clear(row, &field);
	must(is_clear(&field), "what is cleared is zero");
	must(value_read(row, text, &field, again) == result, "a value is good or wrong, each time");
	value_clear(row, &field);
	value_allowed(row, allowed);
	must(allowed[0] != '\0', "what is allowed can be said");
}

/* The same question, put to one entry after the other. */
static void ask_networks(const char *text)
{
	static const char *const asked[] = { "127.0.0.1", "10.1.2.3", "192.0.2.7", "::1", "2001:db8::1", "::ffff:10.1.2.3" };
	const struct settings_row *row = settings_row_find("trust_forwarded");
	struct networks list = { .items = NULL };
	char why[VALUE_WHY_MAX];
	if (value_networks(row, text, &list, why) != VALUE_GOOD)
		return;
	for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
		struct address address;
		bool is_in_one = false;
		must(address_parse(asked[i], 1, &address), "these are addresses");
		for (size_t k = 0; k < list.count; k++) {
			struct networks one = { .items = &list.items[k], .count = 1 };
			is_in_one = is_in_one || networks_contain(&one, &address);
		}
		must(networks_contain(&list, &address) == is_in_one, "a list holds what its entries hold");
	}
	value_clear_networks(&list);
}

/* One network: a bit behind the prefix makes it none, and it holds its own first address. */
static void ask_network(const char *text, size_t length)
{
	struct network network;
	struct address address = { .length = 0 };
	if (!network_parse(text, length, &network))
		return;
	must(network.family == AF_INET || network.family == AF_INET6, "a network has a family");
	must(network.prefix_bits <= (network.family == AF_INET ? 32u : 128u), "a prefix is no longer than an address");
	address.any.sa_family = (sa_family_t)network.family;
	address.length = network.family == AF_INET ? sizeof address.v4 : sizeof address.v6;
	if (network.family == AF_INET)
		memcpy(&address.v4.sin_addr, network.bytes, 4);
	else
		memcpy(&address.v6.sin6_addr, network.bytes, 16);
	struct networks list = { .items = &network, .count = 1 };
	bool is_mapped = network.family == AF_INET6 && memcmp(network.bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
	must(is_mapped || networks_contain(&list, &address), "a network holds its first address");
}

/* Strings and bytes of their exact size: what reads past them is seen. */
static char *copy(const uint8_t *bytes, size_t length, size_t more)
{
	char *out = malloc(length + more > 0 ? length + more : 1);
	must(out != NULL, "there is memory");
	if (length > 0)
		memcpy(out, bytes, length);
	if (more > 0)
		out[length] = '\0';
	return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *equals = size > 0 ? memchr(data, '=', size) : NULL;
	if (equals == NULL)
		return 0;
	size_t key_length = (size_t)(equals - data), length = size - key_length - 1;
	char *key = copy(data, key_length, 1), *text = copy(equals + 1, length, 1), *exact = copy(equals + 1, length, 0);
	const struct settings_row *row = settings_row_find(key);
	if (row != NULL)
		read_row(row, text);
	ask_network(exact, length);
	ask_networks(text);
	free(exact);
	free(text);
	free(key);
	return 0;
}
