/* settings_table.c: the rows of settings.def as an array, and how keys are looked up, spelt and guessed.
 *
 * One key has four spellings, and all of them are made from the row's name:
 *
 *      max_clients          in the file
 *      --max-clients        as a flag, with one dash or two
 *      WEIR_MAX_CLIENTS     in the environment
 *      Max-Clients          case never matters, and - is _
 *
 * A key that is not known is never skipped: "thresold = 5" that is read over means a service without a limit, found
 * out on the day when the limit was needed. So it is an error, and the error guesses what was meant: the key with the
 * fewest letters to insert, delete, change or swap with their neighbour (the distance of Damerau and Levenshtein, in
 * the form that is called optimal string alignment), if these are few against the length of the word.
 *
 * The array is constant. The functions keep nothing: any thread.
 */
#include "settings_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The member of a kind's field, as settings.h declares it. */
#define MEMBER_TEXT(name) name
#define MEMBER_NUMBER(name) name
#define MEMBER_SIZE(name) name##_bytes
#define MEMBER_DURATION(name) name##_us
#define MEMBER_CHOICE(name) name
#define MEMBER_RATE(name) name
#define MEMBER_ENDPOINTS(name) name
#define MEMBER_PEERS(name) name
#define MEMBER_HASH_KEY(name) name
#define MEMBER_KEY(name) name
#define MEMBER_NETWORKS(name) name
#define MEMBER_EXEMPTIONS(name) name
#define MEMBER_HOST_LIMITS(name) name
#define MEMBER_HOST_RATES(name) name
#define MEMBER_DESTINATIONS(name) name
#define MEMBER_RULE(name) rules

const struct settings_row settings_rows[] = {
#define SERVICE(kind_, name_, default_, ...)                                                                       \
	{ .name = #name_, .kind = KIND_##kind_, .scope = SCOPE_SERVICE,                                            \
	  .offset = offsetof(struct settings, MEMBER_##kind_(name_)), .default_text = default_, __VA_ARGS__ },
#define GLOBAL(kind_, name_, default_, ...)                                                                        \
	{ .name = #name_, .kind = KIND_##kind_, .scope = SCOPE_GLOBAL,                                             \
	  .offset = offsetof(struct settings_globals, MEMBER_##kind_(name_)), .default_text = default_, __VA_ARGS__ },
#include "settings.def"
#undef SERVICE
#undef GLOBAL
};

const size_t settings_row_count = sizeof settings_rows / sizeof settings_rows[0];

/* ---- spelling ---- */

/* Not tolower(): what a locale calls a letter is no business of a key's. */
static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool settings_spell_key(const char *key, char out[SETTINGS_NAME_MAX])
{
	size_t length = strlen(key);
	if (length >= SETTINGS_NAME_MAX)
		return false;
	for (size_t i = 0; i <= length; i++)
		out[i] = key[i] == '-' ? '_' : lower(key[i]);
	return true;
}

void settings_spell_flag(const char *key, char out[SETTINGS_NAME_MAX + 2])
{
	size_t i = 0;
	out[0] = out[1] = '-';
	for (; key[i] != '\0' && i + 1 < SETTINGS_NAME_MAX; i++)
		out[i + 2] = key[i] == '_' ? '-' : lower(key[i]);
	out[i + 2] = '\0';
}

void settings_spell_environment(const char *key, char out[SETTINGS_NAME_MAX + 5])
{
	size_t i = 0;
	memcpy(out, "WEIR_", 5);
	for (; key[i] != '\0' && i + 1 < SETTINGS_NAME_MAX; i++)
		out[i + 5] = key[i] >= 'a' && key[i] <= 'z' ? (char)(key[i] - 'a' + 'A') : key[i];
	out[i + 5] = '\0';
}

bool settings_word_is_in(const char *word, const char *words)
{
	size_t length = strlen(word);
	for (;;) {
		size_t word_length = strcspn(words, "|");
		if (word_length == length && strncasecmp(word, words, length) == 0)
			return true;
		if (words[word_length] == '\0')
			return false;
		words += word_length + 1;
	}
}

/* ---- looking up ---- */

/* What may stand behind the dot of a prefix, spelt. It is printed in logs, errors and fields of answers. */
static bool is_item_name(const char *name)
{
	return *name != '\0' && name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.")] == '\0';
}

const struct settings_row *settings_row_find_also(const char *key, bool *by_other_name)
{
	char spelt[SETTINGS_NAME_MAX];

	*by_other_name = false;
	if (!settings_spell_key(key, spelt))
		return NULL;
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		size_t length = strlen(row->name);
		if (row->is_prefix && strncmp(spelt, row->name, length) == 0 && spelt[length] == '.' &&
		    is_item_name(spelt + length + 1))
			return row;
		if (!row->is_prefix && strcmp(spelt, row->name) == 0)
			return row;
	}
	for (size_t i = 0; i < settings_row_count; i++) {
		if (settings_rows[i].also && strcasecmp(spelt, settings_rows[i].also) == 0) {
			*by_other_name = true;
			return &settings_rows[i];
		}
	}
	return NULL;
}

const struct settings_row *settings_row_find(const char *key)
{
	bool by_other_name;
	const struct settings_row *row = settings_row_find_also(key, &by_other_name);
	return by_other_name ? NULL : row;
}

static unsigned smaller(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Three rows of the table of distances are enough: each entry looks at most two rows back. */
unsigned settings_distance(const char *a, const char *b)
{
	unsigned rows[3][SETTINGS_NAME_MAX + 1];
	unsigned *before = rows[0], *last = rows[1], *now = rows[2];
	size_t b_length = strlen(b);

	for (unsigned j = 0; j <= b_length; j++)
		before[j] = last[j] = j;
	for (unsigned i = 1; a[i - 1] != '\0'; i++) {
		now[0] = i;
		for (unsigned j = 1; j <= b_length; j++) {
			unsigned change = last[j - 1] + (a[i - 1] != b[j - 1]);
			now[j] = smaller(change, smaller(last[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = smaller(now[j], before[j - 2] + 1);
		}
		unsigned *oldest = before;
		before = last;
		last = now;
		now = oldest;
	}
	return last[b_length];
}

const char *settings_row_guess(const char *key)
{
	char spelt[SETTINGS_NAME_MAX];
	const char *best = NULL;
	unsigned best_distance = 0;

	if (!settings_spell_key(key, spelt))
		return NULL;
	for (size_t i = 0; i < settings_row_count; i++) {
		unsigned d = settings_distance(spelt, settings_rows[i].name);
		/* Of "x" every short key is near: one letter in three may be wrong, and no more. */
		if (d * 3 <= strlen(spelt) && (!best || d < best_distance)) {
			best = settings_rows[i].name;
			best_distance = d;
		}
	}
	return best;
}

const char *settings_row_suffix(const char *name)
{
	for (size_t i = 0; i < settings_row_count; i++)
		if (settings_rows[i].is_prefix && strcmp(settings_rows[i].name, name) == 0)
			return ".NAME";
	return "";
}

char *settings_trim(char *text)
{
	text += strspn(text, " \t");
	size_t length = strlen(text);
	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		length--;
	text[length] = '\0';
	return text;
}

/* ---- errors ---- */

bool settings_fail(char error[SETTINGS_ERROR_MAX], const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error, SETTINGS_ERROR_MAX, format, arguments);
	va_end(arguments);
	return false;
}

bool settings_fail_memory(char error[SETTINGS_ERROR_MAX])
{
	return settings_fail(error, "out of memory while the settings were read");
}

const char *settings_quote(const char *text, char out[SETTINGS_QUOTE_MAX])
{
	size_t used = 0;

	out[used++] = '"';
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;
		/* Room for the longest that may follow: an escape, an ellipsis, the quote and the NUL. */
		if (used + 4 + 3 + 2 > SETTINGS_QUOTE_MAX) {
			memcpy(out + used, "...", 3);
			used += 3;
			break;
		}
		if (byte < 0x20 || byte == 0x7f)
			used += (size_t)snprintf(out + used, SETTINGS_QUOTE_MAX - used, "\\x%02x", byte);
		else
			out[used++] = (char)byte;
	}
	out[used++] = '"';
	out[used] = '\0';
	return out;
}

const char *settings_short_path(const char *path)
{
	size_t length = strlen(path);
	return length > 200 ? path + length - 200 : path;
}

/* ---- origins ---- */

struct settings_origins *settings_origins_create(const char *file, unsigned line)
{
	struct settings_origins *origins = calloc(1, sizeof *origins + settings_row_count * sizeof origins->of[0]);
	if (!origins)
		return NULL;
	origins->line = line;
	if (file && !(origins->file = strdup(file))) {
		free(origins);
		return NULL;
	}
	return origins;
}

static void clear_origins(struct settings_origin *origins, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(origins[i].key);
		free(origins[i].text);
	}
}

void settings_origins_destroy(struct settings_origins *origins)
{
	if (!origins)
		return;
	clear_origins(origins->of, settings_row_count);
	clear_origins(origins->of_rules, origins->rule_count);
	free(origins->file);
	free(origins);
}

struct settings_origin *settings_origin_of(const struct settings_row *row, struct settings_origins *origins)
{
	return &origins->of[row - settings_rows];
}

void settings_origin_say(const struct settings_row *row, const struct settings_origins *origins,
                         const struct settings_origin *origin, char out[SETTINGS_ORIGIN_MAX])
{
	char name[SETTINGS_NAME_MAX + 5];

	switch (origin->source) {
	case SOURCE_DEFAULT:
		snprintf(out, SETTINGS_ORIGIN_MAX, "default");
		break;
	case SOURCE_FILE:
		snprintf(out, SETTINGS_ORIGIN_MAX, "%s:%u", settings_short_path(origins->file), origin->line);
		break;
	case SOURCE_ENVIRONMENT:
		settings_spell_environment(row->name, name);
		snprintf(out, SETTINGS_ORIGIN_MAX, "environment %s", origin->by_other_name ? row->also : name);
		break;
	case SOURCE_FLAG:
		if (origin->key)
			settings_spell_flag(origin->key, name);
		else
			settings_spell_flag(origin->by_other_name ? row->also : row->name, name);
		snprintf(out, SETTINGS_ORIGIN_MAX, "flag %s", name);
		break;
	case SOURCE_COMMAND:
		snprintf(out, SETTINGS_ORIGIN_MAX, "command line");
		break;
	case SOURCE_PROGRAM:
		snprintf(out, SETTINGS_ORIGIN_MAX, "setting %s", origin->key ? origin->key : row->name);
		break;
	}
}

void settings_say_place(const struct settings_row *row, struct settings_origins *origins, char out[SETTINGS_ORIGIN_MAX])
{
	const struct settings_origin *origin = settings_origin_of(row, origins);
	char said[SETTINGS_ORIGIN_MAX];

	settings_origin_say(row, origins, origin, said);
	const char *last_word = strrchr(said, ' ');
	if (origin->source == SOURCE_COMMAND)
		snprintf(out, SETTINGS_ORIGIN_MAX, "weir %s", origin->text);
	else if (origin->source == SOURCE_FILE || !last_word)
		snprintf(out, SETTINGS_ORIGIN_MAX, "%s", said);
	else
		snprintf(out, SETTINGS_ORIGIN_MAX, "%s", last_word + 1);
}
