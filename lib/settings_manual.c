/* settings_manual.c: the table as the settings' part of the man pages, in mdoc(7).
 *
 *      settings.def ──► weir --manual-flags ──► docs/man/weir.1        between its two marks      ┐ make docs
 *                   └─► weir --manual-keys  ──► docs/man/weir.ini.5          "                    ┘
 *
 * A man page that is written by hand is right on the day it is written. So the pages have their words from people and their lists of
 * settings from here, and `make lint` and the tests compare.
 *
 * What roff would take for its own is escaped: a backslash anywhere, a point or an apostrophe at the start of a line. Lines are
 * wrapped, for mandoc's lint asks for at most 80 columns. Any thread.
 */
#include "settings_internal.h"

#include <string.h>

#define LINE_MAX_COLUMNS 76

static void put_word(const char *word, size_t length, FILE *out)
{
	for (size_t i = 0; i < length; i++)
		fputs(word[i] == '\\' ? "\\e" : (char[]){ word[i], '\0' }, out);
}

/* A sentence on lines of its own, wrapped, with its full stop. */
static void put_text(const char *text, FILE *out)
{
	size_t column = 0, whole = strlen(text);
	const char *stop = whole > 0 && text[whole - 1] == '.' ? "" : ".";
	while (*text != '\0') {
		size_t length = strcspn(text, " ");
		if (column > 0 && column + 1 + length > LINE_MAX_COLUMNS) {
			fputc('\n', out);
			column = 0;
		} else if (column > 0) {
			fputc(' ', out);
			column++;
		}
		if (column == 0 && (*text == '.' || *text == '\''))
			fputs("\\&", out);
		put_word(text, length, out);
		column += length;
		text += length;
		text += *text == ' ';
	}
	fprintf(out, "%s\n", stop);
}

/* These begin with words of ours. */
static void put_sentence(const char *first_words, const char *text, FILE *out)
{
	char sentence[VALUE_ALLOWED_MAX + 64];
	snprintf(sentence, sizeof sentence, "%s%s", first_words, text);
	put_text(sentence, out);
}

static void put_choices(const struct settings_row *row, FILE *out)
{
	const char *separator = "";
	for (const char *choice = row->choices; *choice != '\0';) {
		size_t length = strcspn(choice, "|");
		fprintf(out, "%s Cm %.*s", separator, (int)length, choice);
		separator = " |";
		choice += length;
		choice += *choice == '|';
	}
}

static void put_list_end(bool is_open, FILE *out)
{
	if (is_open)
		fputs(".El\n", out);
}

static void put_heading(const struct settings_row *row, bool *is_open, FILE *out)
{
	if (row->heading == NULL)
		return;
	put_list_end(*is_open, out);
	/* A bracket at the end of a line is punctuation to a macro, unless something of no width is behind it. */
	bool ends_in_bracket = row->heading[strlen(row->heading) - 1] == ']';
	fprintf(out, ".Ss %s%s\n.Bl -tag -width Ds\n", row->heading, ends_in_bracket ? "\\&" : "");
	*is_open = true;
}

static void put_flag(const struct settings_row *row, FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2];
	settings_spell_flag(row->name, flag);
	fprintf(out, ".It Fl %s%s", flag + 1, settings_row_suffix(row->name));
	if (row->kind == KIND_CHOICE)
		put_choices(row, out);
	else
		fputs(" Ar value", out);
	fputc('\n', out);
	put_text(row->help, out);
	put_sentence("Default: ", settings_default_in_words(row), out);
}

void settings_print_manual_flags(FILE *out)
{
	bool is_open = false;
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		put_heading(row, &is_open, out);
		if (!row->only_in_file)
			put_flag(row, out);
	}
	put_list_end(is_open, out);
}

static void put_other_spellings(const struct settings_row *row, FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2], variable[SETTINGS_NAME_MAX + 5];
	settings_spell_flag(row->name, flag);
	settings_spell_environment(row->name, variable);
	if (row->only_in_file)
		fputs("In the file only.\n", out);
	else if (row->is_prefix)
		fprintf(out, "Flag:\n.Fl %s%s .\n", flag + 1, settings_row_suffix(row->name));
	else
		fprintf(out, "Flag:\n.Fl %s .\nEnvironment:\n.Ev %s%s%s .\n", flag + 1, variable, row->also ? " , " : "",
		        row->also ? row->also : "");
}

static void put_key(const struct settings_row *row, FILE *out)
{
	char allowed[VALUE_ALLOWED_MAX], modes[SETTINGS_MODES_MAX];
	fprintf(out, ".It Cm %s%s\n", row->name, settings_row_suffix(row->name));
	put_text(row->help, out);
	value_allowed(row, allowed);
	put_sentence("Allowed: ", allowed, out);
	put_sentence("Default: ", settings_default_in_words(row), out);
	settings_list_modes(row->only_in, modes);
	if (row->only_in != 0)
		put_sentence("Only in mode ", modes, out);
	put_other_spellings(row, out);
}

void settings_print_manual_keys(FILE *out)
{
	bool is_open = false;
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		put_heading(row, &is_open, out);
		put_key(row, out);
	}
	put_list_end(is_open, out);
}
