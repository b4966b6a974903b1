/* settings_file.c: an INI file becomes stanzas with entries: which key, what text, on which line.
 *
 * The library inih parses, and it has limits that it does not report: a line of more than 200 bytes (INI_MAX_LINE)
 * goes on as if a second line began in its middle, a section's name is cut at 49, an indented line is taken for more
 * of the value above, and its handler never learns the number of the line. But it asks for its lines by a function
 * that the caller may give (ini_parse_stream), and that is where all of this is mended:
 *
 *      the file                           what our reader hands to inih           what our handler makes of it
 *      ─────────────────────────────      ───────────────────────────────         ─────────────────────────────────
 *       7  [a name of any length]         [0]                                     (the reader has begun stanza 0)
 *       8    endpoint = a:1, … b:2  # x   endpoint=|a:1, |                        a new entry, from line 8
 *                                         endpoint=|… b:2|                        more of that entry: it is joined
 *       9  port 80                        (nothing: an error of line 9)
 *
 * A long value goes in pieces, each as a line of its own that inih has room for, between two bars so that blanks at
 * the seams stay and no piece can look like a comment. Comments are taken off before; so none of inih's switches for
 * comments, continuation lines and byte order marks matters, however it was compiled.
 *
 * The invariant: every byte of a value arrives, or there is an error that names the line. Nothing is skipped, and the
 * first error ends the reading. Source: inih r55, ini.c, INI_MAX_LINE and MAX_SECTION.
 *
 * All state is in the caller's hands: any thread.
 */
#include "settings_internal.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_MAX_BYTES 65536u
#define STANZA_NAME_MAX 255u
#define STANZAS_MAX 4096u
#define ENTRIES_MAX 1024u

struct ini_reading {
	FILE *in;
	struct ini_file *out;
	char *error;
	bool failed;
	unsigned line_number;
	char *line; /* LINE_MAX_BYTES and the NUL */
	/* What of the line is still to be handed over. */
	const char *key, *value; /* in line; key is NULL when there is nothing */
	size_t value_left;
	bool is_first_piece; /* for the handler */
};

/* Says "FILE:LINE: …" and ends the reading. */
static void fail_here(struct ini_reading *r, const char *what)
{
	settings_fail(r->error, "%s:%u: %s", settings_short_path(r->out->path), r->line_number, what);
	r->failed = true;
}

static void fail_quoting(struct ini_reading *r, const char *quoted, const char *what)
{
	char room[SETTINGS_QUOTE_MAX];
	settings_fail(r->error, "%s:%u: %s %s", settings_short_path(r->out->path), r->line_number,
	              settings_quote(quoted, room), what);
	r->failed = true;
}

static void fail_memory(struct ini_reading *r)
{
	fail_here(r, "out of memory");
}

/* Makes room for one more item of an array. False when out of memory. */
static bool grow(void **items, size_t count, size_t *room, size_t item_size)
{
	if (count < *room)
		return true;
	size_t wanted = *room == 0 ? 8 : *room * 2;
	void *grown = realloc(*items, wanted * item_size);
	if (!grown)
		return false;
	*items = grown;
	*room = wanted;
	return true;
}

/* ---- one line ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Takes the comment off: from a # or ; at the start of the line or after a blank. */
static void cut_comment(char *line)
{
	for (char *at = line; *at != '\0'; at++) {
		if ((*at == '#' || *at == ';') && (at == line || is_blank(at[-1]))) {
			*at = '\0';
			return;
		}
	}
}

/* A file that is no text (a key, a program, a disk) is told apart by its control characters. */
static bool is_text(struct ini_reading *r, size_t length)
{
	char what[96];
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)r->line[i];
		if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
			snprintf(what, sizeof what, "byte %zu is the control character 0x%02x; allowed: text", i + 1,
			         byte);
			fail_here(r, what);
			return false;
		}
	}
	return true;
}

/* Reads the next line into r->line, without its end. False at the end of the file or after an error. getline() would
   take as much memory as the line is long. */
static bool read_line(struct ini_reading *r)
{
	size_t length = 0;
	int c;

	r->line_number++;
	errno = 0;
	while ((c = getc(r->in)) != EOF && c != '\n') {
		if (length == LINE_MAX_BYTES) {
			fail_here(r, "a line of more than 65536 bytes; allowed: 65536");
			return false;
		}
		r->line[length++] = (char)c;
	}
	if (ferror(r->in)) {
		char what[128];
		snprintf(what, sizeof what, "cannot be read: %s", strerror(errno));
		fail_here(r, what);
		return false;
	}
	if (c == EOF && length == 0)
		return false;
	if (length > 0 && r->line[length - 1] == '\r')
		length--;
	r->line[length] = '\0';
	return is_text(r, length);
}

/* ---- [name] ---- */

static void begin_stanza(struct ini_reading *r, char *name, bool is_globals)
{
	struct ini_file *file = r->out;
	char what[96];

	for (size_t i = 0; i < file->stanza_count; i++) {
		const struct ini_stanza *other = &file->stanzas[i];
		if (strcmp(other->name, name) == 0 || (is_globals && other->is_globals)) {
			snprintf(what, sizeof what, "is the name of the stanza on line %u as well; each may stand once",
			         other->line);
			fail_quoting(r, name, what);
			return;
		}
	}
	if (file->stanza_count == STANZAS_MAX) {
		fail_here(r, "too many stanzas; allowed: 4096");
		return;
	}
	if (!grow((void **)&file->stanzas, file->stanza_count, &file->stanza_room, sizeof *file->stanzas)) {
		fail_memory(r);
		return;
	}
	struct ini_stanza *stanza = &file->stanzas[file->stanza_count];
	*stanza = (struct ini_stanza){ .name = strdup(name), .line = r->line_number, .is_globals = is_globals };
	if (!stanza->name) {
		fail_memory(r);
		return;
	}
	file->stanza_count++;
}

static void read_stanza_line(struct ini_reading *r, char *text)
{
	char *end = strchr(text, ']');

	if (!end || end[1] != '\0') {
		fail_quoting(r, text, end ? "has something after the ]; allowed: [name]" : "has no ]; allowed: [name]");
		return;
	}
	*end = '\0';
	char *name = settings_trim(text + 1);
	if (*name == '\0')
		fail_here(r, "[] names nothing; allowed: [name]");
	else if (strlen(name) > STANZA_NAME_MAX)
		fail_quoting(r, name, "is too long a name; allowed: 255 bytes");
	else
		begin_stanza(r, name, strcasecmp(name, "globals") == 0);
}

/* ---- key = value ---- */

static bool is_key(const char *key)
{
	size_t length = strlen(key);
	if (length == 0 || length >= SETTINGS_NAME_MAX)
		return false;
	return strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == length;
}

static void read_key_line(struct ini_reading *r, char *text)
{
	/* inih takes a colon as well, as Python's configparser does. */
	size_t key_length = strcspn(text, "=:");

	if (text[key_length] == '\0') {
		text[strcspn(text, " \t")] = '\0'; /* what follows may be a secret that lacks its = */
		fail_quoting(r, text, "has no = after it; allowed: key = value, [name] or a comment");
		return;
	}
	text[key_length] = '\0';
	char *key = settings_trim(text), *value = settings_trim(text + key_length + 1);
	if (!is_key(key)) {
		fail_quoting(r, key, "is not a key; allowed: letters, digits, _, - and . before the =, at most 63");
	} else if (r->out->stanza_count == 0) {
		fail_quoting(r, key, "stands before the first stanza; allowed: a line such as [name] above it");
	} else {
		r->key = key;
		r->value = value;
		r->value_left = strlen(value);
		r->is_first_piece = true;
	}
}

/* Writes "key=|piece|\n", as much of the value as fits. */
static bool hand_piece(struct ini_reading *r, char *to, size_t room)
{
	size_t around = strlen(r->key) + strlen("=||\n") + 1;

	if (room <= around) {
		fail_here(r, "inih was compiled with too short lines (INI_MAX_LINE) to hold this key");
		return false;
	}
	size_t piece = r->value_left < room - around ? r->value_left : room - around;
	snprintf(to, room, "%s=|%.*s|\n", r->key, (int)piece, r->value);
	r->value += piece;
	r->value_left -= piece;
	if (r->value_left == 0)
		r->value = NULL;
	return true;
}

/* ---- between us and inih ---- */

/* inih wants a line: as fgets() would give it, of at most room - 1 bytes. NULL ends the reading. */
static char *next_line(char *to, int room, void *context)
{
	struct ini_reading *r = context;

	if (room < 32 && !r->failed)
		fail_here(r, "inih was compiled with too short lines (INI_MAX_LINE)");
	if (r->failed)
		return NULL;
	if (r->value)
		return hand_piece(r, to, (size_t)room) ? to : NULL;
	while (read_line(r)) {
		char *text = r->line;
		if (r->line_number == 1 && strncmp(text, "\xef\xbb\xbf", 3) == 0)
			text += 3; /* the byte order mark that some editors put before UTF-8 */
		cut_comment(text);
		text = settings_trim(text);
		if (*text == '\0')
			continue;
		if (*text == '[')
			read_stanza_line(r, text);
		else
			read_key_line(r, text);
		if (r->failed)
			return NULL;
		if (r->value)
			return hand_piece(r, to, (size_t)room) ? to : NULL;
		snprintf(to, (size_t)room, "[%zu]\n", r->out->stanza_count - 1);
		return to;
	}
	return NULL;
}

static void fail_unknown(struct ini_reading *r, const char *key)
{
	char quoted[SETTINGS_QUOTE_MAX];
	const char *guess = settings_row_guess(key);
	settings_fail(r->error, "%s:%u: unknown key %s%s%s%s%s (weir --help lists what is allowed)",
	              settings_short_path(r->out->path), r->line_number, settings_quote(key, quoted),
	              guess ? "; did you mean \"" : "", guess ? guess : "", guess ? settings_row_suffix(guess) : "",
	              guess ? "\"?" : "");
	r->failed = true;
}

/* Do two keys mean one setting? Of a prefix's keys the whole counts, in any spelling. */
static bool is_same_key(const struct ini_entry *entry, const struct settings_row *row, const char *key)
{
	char one[SETTINGS_NAME_MAX], other[SETTINGS_NAME_MAX];

	if (entry->row != row || !row->is_prefix)
		return entry->row == row;
	return settings_spell_key(entry->key, one) && settings_spell_key(key, other) && strcmp(one, other) == 0;
}

/* A new entry for the stanza that stands last, or NULL and an error. */
static struct ini_entry *add_entry(struct ini_reading *r, struct ini_stanza *stanza, const char *key)
{
	const struct settings_row *row = settings_row_find(key);
	char what[96];

	if (!row) {
		fail_unknown(r, key);
		return NULL;
	}
	if ((row->scope == SCOPE_GLOBAL) != stanza->is_globals) {
		fail_quoting(r, key,
		             stanza->is_globals ? "is about one service; allowed: in its stanza, not in [globals]"
		                                : "is about the whole process; allowed: in [globals]");
		return NULL;
	}
	for (size_t i = 0; i < stanza->entry_count; i++) {
		const struct ini_entry *other = &stanza->entries[i];
		if (is_same_key(other, row, key)) {
			snprintf(what, sizeof what, "is set on line %u already; allowed: once in a stanza",
			         other->line);
			fail_quoting(r, key, what);
			return NULL;
		}
	}
	if (stanza->entry_count == ENTRIES_MAX) {
		fail_here(r, "too many keys in one stanza; allowed: 1024");
		return NULL;
	}
	if (!grow((void **)&stanza->entries, stanza->entry_count, &stanza->entry_room, sizeof *stanza->entries)) {
		fail_memory(r);
		return NULL;
	}
	struct ini_entry *entry = &stanza->entries[stanza->entry_count];
	*entry = (struct ini_entry){ .row = row, .key = strdup(key), .value = strdup(""), .line = r->line_number };
	if (!entry->key || !entry->value) {
		free(entry->key);
		free(entry->value);
		fail_memory(r);
		return NULL;
	}
	stanza->entry_count++;
	return entry;
}

/* inih has read a line of ours. Returns what it wants to hear: not zero. Our own errors are in r, which also ends the
   reading: inih itself would read on. */
static int take_piece(void *context, const char *section, const char *key, const char *value)
{
	struct ini_reading *r = context;
	size_t length = strlen(value);

	(void)section;
	if (r->failed)
		return 1;
	struct ini_stanza *stanza = &r->out->stanzas[r->out->stanza_count - 1];
	struct ini_entry *entry =
		r->is_first_piece ? add_entry(r, stanza, key) : &stanza->entries[stanza->entry_count - 1];
	r->is_first_piece = false;
	if (!entry)
		return 1;
	if (length < 2 || value[0] != '|' || value[length - 1] != '|') {
		fail_here(r, "inih did not return the value as it was handed over");
		return 1;
	}
	size_t before = strlen(entry->value);
	char *longer = realloc(entry->value, before + length - 1);
	if (!longer) {
		fail_memory(r);
		return 1;
	}
	memcpy(longer + before, value + 1, length - 2);
	longer[before + length - 2] = '\0';
	entry->value = longer;
	return 1;
}

bool ini_file_read(FILE *in, const char *path, struct ini_file *out, char error[SETTINGS_ERROR_MAX])
{
	*out = (struct ini_file){ .path = path };
	struct ini_reading r = { .in = in, .out = out, .error = error, .line = malloc(LINE_MAX_BYTES + 1) };
	if (!r.line)
		return settings_fail_memory(error);
	int result = ini_parse_stream(next_line, &r, take_piece, &r);
	/* Every line that inih saw was ours and well-formed: it can only have run out of memory. */
	if (result != 0 && !r.failed)
		fail_here(&r, result == -2 ? "out of memory" : "inih could not read this line");
	free(r.line);
	return !r.failed;
}

void ini_file_free(struct ini_file *file)
{
	for (size_t i = 0; i < file->stanza_count; i++) {
		struct ini_stanza *stanza = &file->stanzas[i];
		for (size_t j = 0; j < stanza->entry_count; j++) {
			free(stanza->entries[j].key);
			free(stanza->entries[j].value);
		}
		free(stanza->entries);
		free(stanza->name);
	}
	free(file->stanzas);
	*file = (struct ini_file){ .path = NULL };
}

const struct ini_entry *ini_stanza_entry(const struct ini_stanza *stanza, const char *key)
{
	for (size_t i = 0; i < stanza->entry_count; i++)
		if (strcmp(stanza->entries[i].row->name, key) == 0)
			return &stanza->entries[i];
	return NULL;
}
