/* settings_rules.c: limit.NAME, the rules that an operator adds, and keys, which say what a client is.
 *
 *      rate=5 burst=10 key=client+path method=POST,PUT path=/login* host=api.example header.X-Plan="free trial"
 *      └word┘          └─────┬───────┘ └──────┬──────┘
 *                       joined by +      one of these
 *
 * Words are separated by blanks, in any order, each name once. Only rate must be there. A value that holds blanks
 * stands in double quotes, which have no escapes: a value that holds a quote cannot be written.
 *
 * A rule must be able to match. It is compared with the path as it is meant (rules.h): decoded, without "//", "." and
 * "..". A rule that is written in another form would be kept, printed by --check and never hold anyone, and that is
 * found out on the day of the attack; so it is an error here, as is a * in the middle, a port in host, or a rate of 0.
 *
 * The invariant: a rule is whole or there is none, and its rate and burst are at least 1. Any thread.
 */
#include "settings_internal.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PATH_MAX_BYTES 2048u

/* ---- keys ---- */

void value_clear_key(struct settings_key *key)
{
	free(key->header);
	*key = (struct settings_key){ .header = NULL };
}

static enum value_result add_key_part(const char *part, size_t length, struct settings_key *key, char *why)
{
	bool *flag = NULL;

	if (length == 6 && strncasecmp(part, "client", 6) == 0)
		flag = &key->client;
	else if (length == 4 && strncasecmp(part, "path", 4) == 0)
		flag = &key->path;
	else if (length < 7 || strncasecmp(part, "header:", 7) != 0)
		return value_wrong(why, "a part of the key is neither client, path nor header:NAME");
	if (flag ? *flag : key->header != NULL)
		return value_wrong(why, flag ? "a part of the key stands twice" : "more than one header in the key");
	if (flag) {
		*flag = true;
		return VALUE_GOOD;
	}
	if (!value_is_token(part + 7, length - 7))
		return value_wrong(why, length == 7 ? "no name after header:" : "not a field name");
	key->header = strndup(part + 7, length - 7);
	return key->header ? VALUE_GOOD : VALUE_NO_MEMORY;
}

enum value_result value_key(const char *text, bool one_part, struct settings_key *out, char *why)
{
	struct settings_key key = { .header = NULL };
	enum value_result result = VALUE_GOOD;

	for (const char *at = text; at && result == VALUE_GOOD;) {
		size_t length = strcspn(at, "+");
		result = add_key_part(at, length, &key, why);
		at = at[length] == '+' ? at + length + 1 : NULL;
	}
	if (result == VALUE_GOOD && one_part && key.client + key.path + (key.header != NULL) > 1)
		result = value_wrong(why, "more than one part");
	if (result == VALUE_GOOD && one_part && key.path)
		result = value_wrong(why, "a path is no client");
	if (result == VALUE_GOOD)
		*out = key;
	else
		value_clear_key(&key);
	return result;
}

/* ---- the words of a rule ---- */

/* What is being read: one value, with its name. */
struct rule_word {
	char *name;
	char *value; /* without quotes, never empty */
};

static enum value_result keep_text(const char *text, size_t length, char **out)
{
	*out = strndup(text, length);
	return *out ? VALUE_GOOD : VALUE_NO_MEMORY;
}

static enum value_result take_rate(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	enum value_result result = value_rate(word->value, &rule->rate, why);

	if (result == VALUE_WRONG && *why == '\0')
		return value_wrong(why, "rate: not a number with /s, /m, /h or /d or for a second");
	if (result == VALUE_GOOD && rule->rate.count == 0)
		return value_wrong(why, "a rate of 0 would let nobody through, or everybody: leave the rule out");
	return result;
}

static enum value_result take_burst(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	const char *digits = word->value;
	uint64_t burst;

	if (!value_digits(&digits, &burst) || *digits != '\0' || burst < 1 || burst > SETTINGS_RATE_MAX)
		return value_wrong(why, "burst: not a whole number from 1 to 1000000");
	rule->burst = (unsigned)burst;
	return VALUE_GOOD;
}

static enum value_result take_key(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	return value_key(word->value, false, &rule->key, why);
}

static enum value_result take_method(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	for (const char *at = word->value;;) {
		size_t length = strcspn(at, ",");
		if (!value_is_token(at, length))
			return value_wrong(why, "method: not a method, or several as POST,PUT");
		if (at[length] == '\0')
			break;
		at += length + 1;
	}
	return keep_text(word->value, strlen(word->value), &rule->method);
}

static bool is_hex(char c)
{
	return c != '\0' && strchr("0123456789abcdefABCDEF", c);
}

/* Could a path in its plain form be this, or begin with it? NULL, or why not. A * may follow the length bytes: it
   belongs to the last segment, for "/.*" is the beginning of "/.well-known". */
static const char *why_no_plain_path(const char *path, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (path[i] == '*')
			return "path: a * stands at the end only";
		if (path[i] == '?')
			return "path: the query is not part of it";
		if (path[i] == '%' && is_hex(path[i + 1]) && is_hex(path[i + 2]))
			return "path: written as it is meant, not with % escapes";
		if (path[i] != '/')
			continue;
		size_t segment = strcspn(path + i + 1, "/");
		bool is_last = i + 1 + segment >= length;
		if (segment == 0 && !is_last)
			return "path: written without //";
		if ((segment == 1 && path[i + 1] == '.') || (segment == 2 && strncmp(path + i + 1, "..", 2) == 0))
			return "path: written without . and ..";
	}
	return NULL;
}

static enum value_result take_path(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	size_t length = strlen(word->value);

	rule->path_is_prefix = word->value[length - 1] == '*';
	if (rule->path_is_prefix)
		length--;
	if (length == 0 || word->value[0] != '/')
		return value_wrong(why, "path: it begins with a /");
	if (length > PATH_MAX_BYTES)
		return value_wrong(why, "path: more than 2048 bytes");
	const char *reason = why_no_plain_path(word->value, length);
	return reason ? value_wrong(why, reason) : keep_text(word->value, length, &rule->path);
}

/* Keeps an IPv6 address without its brackets and a name without the dot at its end. */
static enum value_result take_host(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	const char *host = word->value;
	size_t length = strlen(host);

	if (host[0] == '[' && host[length - 1] == ']') {
		host++;
		length -= 2;
	} else if (length > 1 && host[length - 1] == '.') {
		length--;
	}
	enum value_result result = keep_text(host, length, &rule->host);
	if (result != VALUE_GOOD)
		return result;
	struct in6_addr address;
	bool is_ipv6 = inet_pton(AF_INET6, rule->host, &address) == 1;
	if (host != word->value ? is_ipv6 : is_ipv6 || value_is_hostname(rule->host))
		return VALUE_GOOD;
	return value_wrong(why, "host: not a name or an address, without port");
}

static enum value_result take_mode(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	rule->shadow = true;
	return strcasecmp(word->value, "shadow") == 0 ? VALUE_GOOD : value_wrong(why, "mode: only shadow");
}

static enum value_result take_header(struct settings_rule *rule, const struct rule_word *word, char *why)
{
	const char *name = word->name + strlen("header.");
	size_t length = strlen(word->value);

	if (!value_is_token(name, strlen(name)))
		return value_wrong(why, "header.: not a field name behind it");
	/* A field's value has no blanks at its ends: this one would never be found. */
	if (strchr(" \t", word->value[0]) || strchr(" \t", word->value[length - 1]))
		return value_wrong(why, "header.: a value with blanks at its ends");
	for (size_t i = 0; i < rule->header_count; i++)
		if (strcasecmp(rule->headers[i].name, name) == 0)
			return value_wrong(why, "one header stands twice");
	if (rule->header_count == SETTINGS_RULE_HEADERS_MAX)
		return value_wrong(why, "more than 8 headers");
	if (!rule->headers)
		rule->headers = calloc(SETTINGS_RULE_HEADERS_MAX, sizeof *rule->headers);
	if (!rule->headers)
		return VALUE_NO_MEMORY;
	struct settings_header *header = &rule->headers[rule->header_count++];
	enum value_result result = keep_text(name, strlen(name), &header->name);
	return result == VALUE_GOOD ? keep_text(word->value, length, &header->value) : result;
}

/* ---- a rule ---- */

static const struct {
	const char *name; /* one that ends in a dot is the beginning of a name */
	enum value_result (*take)(struct settings_rule *rule, const struct rule_word *word, char *why);
} rule_words[] = {
	{ "rate", take_rate }, { "burst", take_burst }, { "key", take_key },   { "method", take_method },
	{ "path", take_path }, { "host", take_host },   { "mode", take_mode }, { "header.", take_header },
};
#define WORD_COUNT (sizeof rule_words / sizeof rule_words[0])

/* Which of the words is it? WORD_COUNT: none. */
static size_t word_of(const char *name)
{
	size_t i = 0;
	for (; i < WORD_COUNT; i++) {
		size_t length = strlen(rule_words[i].name);
		if (rule_words[i].name[length - 1] == '.' ? strncasecmp(name, rule_words[i].name, length) == 0
		                                     : strcasecmp(name, rule_words[i].name) == 0)
			break;
	}
	return i;
}

/* Cuts the first word off *rest and takes it apart. NULL, or what is wrong with it. */
static const char *take_word(char **rest, struct rule_word *word)
{
	char *at = *rest, *end;
	size_t name_length = strcspn(at, "= \t");

	word->name = at;
	word->value = at + name_length;
	if (at[name_length] != '=')
		return "a word without =";
	*word->value++ = '\0';
	if (*word->value == '"') {
		end = strchr(++word->value, '"');
		if (!end)
			return "a quote that is not closed";
		*end++ = '\0';
		if (*end != '\0' && *end != ' ' && *end != '\t')
			return "something right behind a quote";
	} else {
		end = word->value + strcspn(word->value, " \t");
		if (memchr(word->value, '"', (size_t)(end - word->value)))
			return "a quote in the middle of a value";
		if (*end != '\0')
			*end++ = '\0';
	}
	*rest = end + strspn(end, " \t");
	return *word->value == '\0' ? "nothing after the =" : NULL;
}

/* Says which word it was. */
static enum value_result fail_word(const char *name, const char *reason, char *why)
{
	char quoted[SETTINGS_QUOTE_MAX];
	snprintf(why, VALUE_WHY_MAX, "%s: %s", settings_quote(name, quoted), reason);
	return VALUE_WRONG;
}

/* Reads all words; text is cut up. */
static enum value_result read_words(char *text, struct settings_rule *rule, char *why)
{
	bool seen[WORD_COUNT] = { false };

	while (*text != '\0') {
		struct rule_word word;
		const char *reason = take_word(&text, &word);
		if (reason) {
			word.name[strcspn(word.name, " \t")] = '\0';
			return fail_word(word.name, reason, why);
		}
		size_t i = word_of(word.name);
		if (i == WORD_COUNT)
			return fail_word(word.name, "unknown", why);
		if (seen[i] && rule_words[i].take != take_header)
			return fail_word(word.name, "stands twice", why);
		seen[i] = true;
		enum value_result result = rule_words[i].take(rule, &word, why);
		if (result != VALUE_GOOD)
			return result;
	}
	return seen[0] ? VALUE_GOOD : value_wrong(why, "no rate");
}

enum value_result value_rule(const char *text, struct settings_rule *out, char *why)
{
	struct settings_rule rule = { .name = NULL };
	char *copy = strdup(text);
	enum value_result result = copy ? read_words(copy, &rule, why) : VALUE_NO_MEMORY;

	free(copy);
	if (result != VALUE_GOOD) {
		value_clear_rule(&rule);
		return result;
	}
	if (rule.burst == 0)
		rule.burst = rule.rate.count;
	if (!rule.key.client && !rule.key.path && !rule.key.header)
		rule.key.client = true;
	*out = rule;
	return VALUE_GOOD;
}

void value_clear_rule(struct settings_rule *rule)
{
	for (size_t i = 0; i < rule->header_count; i++) {
		free(rule->headers[i].name);
		free(rule->headers[i].value);
	}
	free(rule->headers);
	free(rule->name);
	free(rule->method);
	free(rule->path);
	free(rule->host);
	value_clear_key(&rule->key);
	*rule = (struct settings_rule){ .name = NULL };
}
