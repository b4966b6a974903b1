/* settings_values.c: a text becomes a value, or an error that says why not and what would be allowed.
 *
 * One function for each kind of row, all of one form: text in, a clear field out, and a reason when it is wrong. The
 * invariant: a field changes only when the whole text was understood, down to its last byte.
 *
 * strtod(), strtoul() and their like are not used. They skip blanks, take signs, hexadecimal, "inf" and "nan", stop
 * at the first odd character and leave it to the caller to notice; strtod() wants a comma for a point in a German
 * locale, so that a timeout of 0.5 s becomes one of 0 on one machine of ten. Decimals are read as whole numbers of
 * the smallest step:
 *
 *      "0.5" with 6 places       500000 us
 *      "2.5" with 3 places       2500/1000  ──► 5/2  ──► 5 in 2 s       (the rate as a fraction in lowest terms)
 *
 * A threshold must be a whole number of requests in a window, for the limiter counts requests. A rate below 1 is 1
 * request in a longer window, rounded up to the microsecond: never more often than was asked for.
 */
#include "settings_internal.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "admin.h"

#define US_PER_S UINT64_C(1000000)

enum value_result value_wrong(char *why, const char *reason)
{
	snprintf(why, VALUE_WHY_MAX, "%s", reason);
	return VALUE_WRONG;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

bool value_is_letter_or_digit(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---- numbers ---- */

/* Reads digits at *at and moves it behind them. False when there are none, or too many for 64 bits. */
bool value_digits(const char **at, uint64_t *out)
{
	uint64_t number = 0;
	if (!is_digit(**at))
		return false;
	for (; is_digit(**at); (*at)++) {
		uint64_t digit = (uint64_t)(**at - '0');
		if (number > (UINT64_MAX - digit) / 10)
			return false;
		number = number * 10 + digit;
	}
	*out = number;
	return true;
}

/* Reads "12", "0.25" or ".5" as a whole number of steps of 10^-places. False also when there are more places. */
static bool read_decimal(const char **at, unsigned places, uint64_t *out)
{
	uint64_t number = 0, fraction = 0, scale = 1;
	const char *fraction_at;

	if (**at != '.' && !value_digits(at, &number))
		return false;
	if (**at == '.') {
		fraction_at = ++*at;
		if (!value_digits(at, &fraction) || (size_t)(*at - fraction_at) > places)
			return false;
		for (size_t digits = (size_t)(*at - fraction_at); digits < places; digits++)
			fraction *= 10;
	}
	for (unsigned i = 0; i < places; i++)
		scale *= 10;
	if (number > (UINT64_MAX - fraction) / scale)
		return false;
	*out = number * scale + fraction;
	return true;
}

static enum value_result read_number(const struct settings_row *row, const char *text, void *field, char *why)
{
	uint64_t number;
	if (row->all && strcasecmp(text, "all") == 0) {
		*(unsigned *)field = UINT_MAX;
		return VALUE_GOOD;
	}
	if (!value_digits(&text, &number) || *text != '\0')
		return value_wrong(why, "");
	if (number < row->least || number > row->most)
		return value_wrong(why, number < row->least ? "too small" : "too large");
	*(unsigned *)field = (unsigned)number;
	return VALUE_GOOD;
}

static enum value_result read_duration(const struct settings_row *row, const char *text, void *field, char *why)
{
	uint64_t microseconds;
	if (!read_decimal(&text, 6, &microseconds) || *text != '\0')
		return value_wrong(why, "");
	if (microseconds < row->least || microseconds > row->most)
		return value_wrong(why, microseconds < row->least ? "too short" : "too long");
	*(uint64_t *)field = microseconds;
	return VALUE_GOOD;
}

static enum value_result read_size(const struct settings_row *row, const char *text, void *field, char *why)
{
	uint64_t number;
	unsigned shift;

	if (!value_digits(&text, &number))
		return value_wrong(why, "");
	if (*text == ' ' && text[1] != '\0')
		text++;
	if (*text == '\0' || strcasecmp(text, "b") == 0)
		shift = 0;
	else if (settings_word_is_in(text, "k|ki|kib"))
		shift = 10;
	else if (settings_word_is_in(text, "m|mi|mib"))
		shift = 20;
	else if (settings_word_is_in(text, "g|gi|gib"))
		shift = 30;
	else
		return value_wrong(why, "");
	if (number > row->most >> shift)
		return value_wrong(why, "too large");
	if (number << shift < row->least)
		return value_wrong(why, "too small");
	*(uint64_t *)field = number << shift;
	return VALUE_GOOD;
}

/* Who writes configurations for several programs has other words at hand. */
static const char *plain_answer(const char *text)
{
	if (settings_word_is_in(text, "on|true|1"))
		return "yes";
	return settings_word_is_in(text, "off|false|0") ? "no" : text;
}

static enum value_result read_choice(const struct settings_row *row, const char *text, void *field, char *why)
{
	if (strcmp(row->choices, "no|yes") == 0)
		text = plain_answer(text);
	size_t length = strlen(text);
	const char *word = row->choices;

	for (unsigned place = 0;; place++) {
		size_t word_length = strcspn(word, "|");
		if (word_length == length && strncasecmp(word, text, length) == 0) {
			*(int *)field = (int)place;
			return VALUE_GOOD;
		}
		if (word[word_length] == '\0')
			return value_wrong(why, "");
		word += word_length + 1;
	}
}

/* ---- rates ---- */

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

static bool read_unit(const char *text, uint64_t *out_us)
{
	if (*text == '\0' || strcasecmp(text, "/s") == 0)
		*out_us = US_PER_S;
	else if (strcasecmp(text, "/m") == 0)
		*out_us = 60 * US_PER_S;
	else if (strcasecmp(text, "/h") == 0)
		*out_us = 3600 * US_PER_S;
	else if (strcasecmp(text, "/d") == 0)
		*out_us = 86400 * US_PER_S;
	else
		return false;
	return true;
}

enum value_result value_rate(const char *text, struct settings_rate *rate, char *why)
{
	uint64_t thousandths, unit_us;

	if (!read_decimal(&text, 3, &thousandths) || !read_unit(text, &unit_us))
		return value_wrong(why, "");
	if (thousandths > SETTINGS_RATE_MAX * UINT64_C(1000))
		return value_wrong(why, "too large");
	if (thousandths == 0) {
		rate->count = 0;
		rate->window_us = US_PER_S;
	} else if (thousandths < 1000) {
		rate->count = 1;
		rate->window_us = (unit_us * 1000 + thousandths - 1) / thousandths;
	} else {
		uint64_t divisor = greatest_common_divisor(thousandths, 1000);
		if (thousandths / divisor > SETTINGS_RATE_MAX)
			return value_wrong(why, "not a whole number in any window of at most 1000000 requests");
		rate->count = (unsigned)(thousandths / divisor);
		rate->window_us = unit_us * (1000 / divisor);
	}
	return VALUE_GOOD;
}

/* ---- texts ---- */

bool value_is_url_path(const char *text)
{
	if (text[0] != '/' || strlen(text) > 2048)
		return false;
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text > '~' || *text == '#')
			return false;
	return true;
}

bool value_is_stats_path(const char *text)
{
	size_t length = strlen(text);
	return value_is_url_path(text) && length > 1 && text[length - 1] != '/' && strchr(text, '?') == NULL;
}

bool value_is_admin(const char *text)
{
	struct admin_place place;
	return admin_parse_place(text, &place);
}

bool value_is_file(const char *text)
{
	return strlen(text) < PATH_MAX;
}

bool value_is_files(const char *text)
{
	for (;;) {
		size_t length = strcspn(text, ",");
		if (strspn(text, " \t") >= length) /* nothing between two commas */
			return false;
		if (text[length] == '\0')
			return true;
		text += length + 1;
	}
}

bool value_is_user(const char *text)
{
	if (!value_is_letter_or_digit(text[0]) && text[0] != '_')
		return false;
	for (; *text != '\0'; text++)
		if (!value_is_letter_or_digit(*text) && !strchr("_.-$", *text))
			return false;
	return true;
}

/* Any bytes that a line can hold. */
bool value_is_secret(const char *text)
{
	return *text != '\0';
}

#define CREDENTIALS_MAX 1024u

/* For Basic credentials (RFC 7617): the user has no colon, so the first one ends it. */
bool value_is_credentials(const char *text)
{
	const char *colon = strchr(text, ':');
	if (!colon || colon == text || strlen(text) > CREDENTIALS_MAX)
		return false;
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

bool value_is_token(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!value_is_letter_or_digit(text[i]) && (text[i] == '\0' || !strchr("!#$%&'*+-.^_`|~", text[i])))
			return false;
	return length > 0;
}

static enum value_result read_hash_key(const struct settings_row *row, const char *text, void *field, char *why)
{
	struct settings_hash_key *key = field;

	(void)row;
	if (strcasecmp(text, "client") == 0) {
		key->kind = HASH_KEY_CLIENT;
		return VALUE_GOOD;
	}
	if (strcasecmp(text, "uri") == 0) {
		key->kind = HASH_KEY_URI;
		return VALUE_GOOD;
	}
	if (strncasecmp(text, "header:", 7) != 0)
		return value_wrong(why, "");
	text += 7;
	if (*text == '\0')
		return value_wrong(why, "no name after header:");
	if (!value_is_token(text, strlen(text)))
		return value_wrong(why, "not a field name");
	key->header = strdup(text);
	if (!key->header)
		return VALUE_NO_MEMORY;
	key->kind = HASH_KEY_HEADER;
	return VALUE_GOOD;
}

static enum value_result read_text(const struct settings_row *row, const char *text, void *field, char *why)
{
	if (!row->check(text))
		return value_wrong(why, "");
	char *copy = strdup(text);
	if (!copy)
		return VALUE_NO_MEMORY;
	*(char **)field = copy;
	return VALUE_GOOD;
}

/* A line of the file has 64 KiB; --check writes the key and the origin beside the value. */
#define TEXT_MAX_BYTES 61440u

/* What no INI file could say is not allowed elsewhere either: --check prints what can be read back. */
static bool fits_in_a_file(const char *text, char *why)
{
	if (strlen(text) > TEXT_MAX_BYTES) {
		value_wrong(why, "more than 61440 bytes");
		return false;
	}
	for (const char *at = text; *at != '\0'; at++) {
		if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f) {
			value_wrong(why, "a control character");
			return false;
		}
		if ((*at == '#' || *at == ';') && (at == text || at[-1] == ' ' || at[-1] == '\t')) {
			value_wrong(why, "# or ; after a blank begins a comment");
			return false;
		}
	}
	return true;
}

enum value_result value_read(const struct settings_row *row, const char *text, void *field, char why[VALUE_WHY_MAX])
{
	why[0] = '\0';
	if (*text == '\0')
		return value_wrong(why, "nothing");
	if (!fits_in_a_file(text, why))
		return VALUE_WRONG;
	switch (row->kind) {
	case KIND_TEXT:
		return read_text(row, text, field, why);
	case KIND_NUMBER:
		return read_number(row, text, field, why);
	case KIND_SIZE:
		return read_size(row, text, field, why);
	case KIND_DURATION:
		return read_duration(row, text, field, why);
	case KIND_CHOICE:
		return read_choice(row, text, field, why);
	case KIND_RATE:
		return value_rate(text, field, why);
	case KIND_ENDPOINTS:
		return value_endpoints(text, field, why);
	case KIND_PEERS:
		return value_peers(text, field, why);
	case KIND_HASH_KEY:
		return read_hash_key(row, text, field, why);
	case KIND_KEY:
		return value_key(text, row->one_part, field, why);
	case KIND_NETWORKS:
		return value_networks(row, text, field, why);
	case KIND_EXEMPTIONS:
		return value_exemptions(row, text, field, why);
	case KIND_HOST_LIMITS:
		return value_host_limits(text, field, why);
	case KIND_HOST_RATES:
		return value_host_rates(text, field, why);
	case KIND_DESTINATIONS:
		return value_destinations(text, field, why);
	case KIND_RULE:
		return value_rule(text, field, why);
	}
	return VALUE_WRONG;
}

void value_clear(const struct settings_row *row, void *field)
{
	switch (row->kind) {
	case KIND_TEXT:
		free(*(char **)field);
		*(char **)field = NULL;
		break;
	case KIND_NUMBER:
		*(unsigned *)field = 0;
		break;
	case KIND_SIZE:
	case KIND_DURATION:
		*(uint64_t *)field = 0;
		break;
	case KIND_CHOICE:
		*(int *)field = 0;
		break;
	case KIND_RATE:
		*(struct settings_rate *)field = (struct settings_rate){ 0, 0 };
		break;
	case KIND_ENDPOINTS:
		value_clear_endpoints(field);
		break;
	case KIND_PEERS:
		value_clear_peers(field);
		break;
	case KIND_HASH_KEY:
		free(((struct settings_hash_key *)field)->header);
		*(struct settings_hash_key *)field = (struct settings_hash_key){ HASH_KEY_CLIENT, NULL };
		break;
	case KIND_KEY:
		value_clear_key(field);
		break;
	case KIND_NETWORKS:
		value_clear_networks(field);
		break;
	case KIND_EXEMPTIONS:
		value_clear_exemptions(field);
		break;
	case KIND_HOST_LIMITS:
		host_limits_free(field);
		break;
	case KIND_HOST_RATES:
		value_clear_host_rates(field);
		break;
	case KIND_DESTINATIONS:
		value_clear_destinations(field);
		break;
	case KIND_RULE:
		value_clear_rule(field);
		break;
	}
}

/* ---- what is allowed ---- */

static void say_size(uint64_t bytes, char *out, size_t size)
{
	static const struct {
		unsigned shift;
		const char *name;
	} units[] = { { 30, " GiB" }, { 20, " MiB" }, { 10, " KiB" } };
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (bytes > 0 && bytes % (UINT64_C(1) << units[i].shift) == 0) {
			snprintf(out, size, "%" PRIu64 "%s", bytes >> units[i].shift, units[i].name);
			return;
		}
	}
	snprintf(out, size, "%" PRIu64, bytes);
}

static void say_seconds(uint64_t microseconds, char *out, size_t size)
{
	int used = snprintf(out, size, "%" PRIu64 ".%06" PRIu64, microseconds / US_PER_S, microseconds % US_PER_S);
	while (used > 0 && out[used - 1] == '0')
		out[--used] = '\0';
	if (used > 0 && out[used - 1] == '.')
		out[--used] = '\0';
}

static void say_choices(const struct settings_row *row, char *out, size_t size)
{
	size_t used = 0;
	const char *word = row->choices;

	out[0] = '\0';
	for (unsigned place = 0;; place++) {
		int length = (int)strcspn(word, "|");
		used += (size_t)snprintf(out + used, size - used, "%s%.*s", place > 0 ? ", " : "", length, word);
		if (word[length] == '\0' || used >= size)
			return;
		word += length + 1;
	}
}

/* The kinds of the settings that are about clients. */
static void say_clients(const struct settings_row *row, char out[VALUE_ALLOWED_MAX])
{
	if (row->kind == KIND_KEY && row->one_part)
		snprintf(out, VALUE_ALLOWED_MAX, "client, or header:NAME");
	else if (row->kind == KIND_KEY)
		snprintf(out, VALUE_ALLOWED_MAX, "client, path, header:NAME, or several, joined by +");
	else if (row->kind == KIND_NETWORKS)
		snprintf(out, VALUE_ALLOWED_MAX,
		         "addresses and networks as 10.0.0.0/8 or 2001:db8::/32, unix (peers of a Unix socket), "
		         "comma-separated, at most %u; or all%s",
		         SETTINGS_NETWORKS_MAX, row->none ? ", or none" : "");
	else if (row->kind == KIND_EXEMPTIONS)
		snprintf(out, VALUE_ALLOWED_MAX,
		         "addresses, networks as 10.0.0.0/8, unix, and header:NAME=VALUE or header:NAME=\"VALUE\", "
		         "comma-separated, at most %u; or none",
		         SETTINGS_NETWORKS_MAX);
	else
		snprintf(out, VALUE_ALLOWED_MAX,
		         "rate=5 (or 600/m, 0.5/s) and, each once, burst=10 key=client (path, header:NAME; joined by "
		         "+) method=POST,PUT path=/login (or /login*) host=api.example header.NAME=VALUE mode=shadow; "
		         "a value with blanks in double quotes");
}

/* The kinds of the settings of a forward proxy. */
static void say_forward(const struct settings_row *row, char out[VALUE_ALLOWED_MAX])
{
	if (row->kind == KIND_HOST_LIMITS)
		snprintf(out, VALUE_ALLOWED_MAX,
		         "host=N or host:port=N, comma-separated, at most %u; IPv6 in brackets, N 0 (no cap) to %u",
		         SETTINGS_HOST_LIMITS_MAX, SETTINGS_CONNECTIONS_MAX);
	else if (row->kind == KIND_HOST_RATES)
		snprintf(out, VALUE_ALLOWED_MAX,
		         "host=N or host:port=N, comma-separated, at most %u; IPv6 in brackets, N a rate as 100, 600/m, "
		         "0.5/s, or 0 (no limit)",
		         SETTINGS_HOST_LIMITS_MAX);
	else
		snprintf(out, VALUE_ALLOWED_MAX,
		         "host:port, comma-separated, at most %u; host a name, *.name, an address, a network as "
		         "10.0.0.0/8, or *; IPv6 in brackets; port 1 to 65535 or *",
		         SETTINGS_DESTINATIONS_MAX);
}

void value_allowed(const struct settings_row *row, char out[VALUE_ALLOWED_MAX])
{
	char least[32], most[32];

	switch (row->kind) {
	case KIND_TEXT:
		snprintf(out, VALUE_ALLOWED_MAX, "%s", row->allowed);
		break;
	case KIND_NUMBER:
		snprintf(out, VALUE_ALLOWED_MAX, "a whole number from %" PRIu64 " to %" PRIu64 "%s", row->least,
		         row->most, row->all ? ", or all" : "");
		break;
	case KIND_SIZE:
		say_size(row->least, least, sizeof least);
		say_size(row->most, most, sizeof most);
		snprintf(out, VALUE_ALLOWED_MAX, "bytes, or with k, M or G (KiB, MiB, GiB), from %s to %s", least,
		         most);
		break;
	case KIND_DURATION:
		say_seconds(row->least, least, sizeof least);
		say_seconds(row->most, most, sizeof most);
		snprintf(out, VALUE_ALLOWED_MAX,
		         "seconds from %s to %s, as 3 or 0.5, at most six digits after the point", least, most);
		break;
	case KIND_CHOICE:
		say_choices(row, out, VALUE_ALLOWED_MAX);
		break;
	case KIND_RATE:
		snprintf(out, VALUE_ALLOWED_MAX,
		         "a number up to %u, with /s, /m, /h or /d or for a second, at most three digits after the "
		         "point: 100, 600/m, 0.5/s; 0 for no limit",
		         SETTINGS_RATE_MAX);
		break;
	case KIND_ENDPOINTS:
		snprintf(out, VALUE_ALLOWED_MAX,
		         "host:port[*weight] or unix:/path[*weight], comma-separated, at most %u; IPv6 in brackets, "
		         "port 1 to 65535, weight 1 to %u",
		         SETTINGS_ENDPOINTS_MAX, SETTINGS_WEIGHT_MAX);
		break;
	case KIND_PEERS:
		snprintf(out, VALUE_ALLOWED_MAX,
		         "host:port or dns:NAME:PORT, comma-separated, at most %u; IPv6 in brackets, port 1 to 65535",
		         SETTINGS_PEERS_MAX);
		break;
	case KIND_HASH_KEY:
		snprintf(out, VALUE_ALLOWED_MAX, "client, uri, or header:NAME");
		break;
	case KIND_HOST_LIMITS:
	case KIND_HOST_RATES:
	case KIND_DESTINATIONS:
		say_forward(row, out);
		break;
	case KIND_KEY:
	case KIND_NETWORKS:
	case KIND_EXEMPTIONS:
	case KIND_RULE:
		say_clients(row, out);
		break;
	}
}
