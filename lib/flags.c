/* flags.c: the options of a small program, from one table. See flags.h for the idea.
 *
 * The reading of one argument, from left to right:
 *
 *      --interval=0.2         dashes │ name up to '=' or the end │ value after '=', or the next argument
 *
 * The invariant: a variable changes only when its whole value was understood. strtoul() is not used, since it reads
 * "-1" as 18446744073709551615, skips blanks, stops at the first odd character and reports that only to those who ask.
 * A port of "80x" must not become port 80: the student would look for the mistake in the network.
 *
 * Source: the GNU conventions for long options; X11's and Go's for one dash.
 */
#include "flags.h"

#include <inttypes.h>
#include <string.h>

/* Digits only, no sign, no blanks, no overflow. */
static bool read_whole(const char *text, size_t length, uint64_t *out)
{
	uint64_t number = 0;
	if (length == 0)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		uint64_t digit = (uint64_t)(text[i] - '0');
		if (number > (UINT64_MAX - digit) / 10)
			return false;
		number = number * 10 + digit;
	}
	*out = number;
	return true;
}

/* "12", "0.25", ".5": at most six places after the point, since a microsecond is the smallest step. Whole numbers are
   used all the way: 0.1 has no exact double. */
static bool read_seconds(const char *text, uint64_t *out_us)
{
	const char *point = strchr(text, '.');
	size_t before = point ? (size_t)(point - text) : strlen(text);
	size_t after = point ? strlen(point + 1) : 0;
	uint64_t seconds = 0, fraction = 0;

	if (before + after == 0 || after > 6 || (point && after == 0))
		return false;
	if (before > 0 && !read_whole(text, before, &seconds))
		return false;
	if (after > 0 && !read_whole(point + 1, after, &fraction))
		return false;
	for (size_t places = after; places < 6; places++)
		fraction *= 10;
	if (seconds > (UINT64_MAX - fraction) / 1000000)
		return false;
	*out_us = seconds * 1000000 + fraction;
	return true;
}

static bool read_choice(const char *text, const char *choices, unsigned *out)
{
	size_t length = strlen(text);
	unsigned place = 0;
	for (const char *word = choices;; place++) {
		size_t word_length = strcspn(word, "|");
		if (length == word_length && strncmp(word, text, length) == 0) {
			*out = place;
			return true;
		}
		if (word[word_length] == '\0')
			return false;
		word += word_length + 1;
	}
}

static bool read_value(const struct flag *f, const char *text)
{
	uint64_t number;
	switch (f->kind) {
	case FLAG_SWITCH:
		return false;
	case FLAG_NUMBER:
	case FLAG_SECONDS:
		if (f->kind == FLAG_NUMBER ? !read_whole(text, strlen(text), &number) : !read_seconds(text, &number))
			return false;
		if (number < f->lowest || number > f->highest)
			return false;
		*f->into.number = number;
		return true;
	case FLAG_TEXT:
		if (text[0] == '\0')
			return false;
		*f->into.text = text;
		return true;
	case FLAG_CHOICE:
		return read_choice(text, f->choices, f->into.choice);
	case FLAG_LIST:
		if (text[0] == '\0' || f->into.list->count == FLAG_LIST_MAX)
			return false;
		f->into.list->items[f->into.list->count++] = text;
		return true;
	}
	return false;
}

static void say_allowed(const struct flag *f, char *out, size_t size)
{
	switch (f->kind) {
	case FLAG_SWITCH:
		snprintf(out, size, "no value");
		break;
	case FLAG_NUMBER:
		snprintf(out, size, "a whole number from %" PRIu64 " to %" PRIu64, f->lowest, f->highest);
		break;
	case FLAG_SECONDS:
		snprintf(out, size, "seconds from %g to %g, at most six decimals", (double)f->lowest / 1e6,
		         (double)f->highest / 1e6);
		break;
	case FLAG_TEXT:
		snprintf(out, size, "a text that is not empty");
		break;
	case FLAG_CHOICE:
		snprintf(out, size, "%s", f->choices);
		break;
	case FLAG_LIST:
		snprintf(out, size, "a text that is not empty, at most %d times", FLAG_LIST_MAX);
		break;
	}
}

static const struct flag *find_flag(const struct flag *table, size_t count, const char *name, size_t length)
{
	for (size_t i = 0; i < count; i++)
		if (strlen(table[i].name) == length && strncmp(table[i].name, name, length) == 0)
			return &table[i];
	return NULL;
}

static enum flags_result say_unknown(const struct flag *table, size_t count, const char *argument, const char *what,
                                     char *error)
{
	int used = snprintf(error, FLAGS_ERROR_BYTES, "%s '%.80s'; allowed:", what, argument);
	for (size_t i = 0; i < count && used > 0 && used < FLAGS_ERROR_BYTES; i++)
		used += snprintf(error + used, (size_t)(FLAGS_ERROR_BYTES - used), " --%s", table[i].name);
	if (used > 0 && used < FLAGS_ERROR_BYTES)
		snprintf(error + used, (size_t)(FLAGS_ERROR_BYTES - used), " --help --version");
	return FLAGS_WRONG;
}

static bool is_word(const char *name, size_t length, const char *word)
{
	return strlen(word) == length && strncmp(name, word, length) == 0;
}

/* Reads the option at argv[*at] and moves *at to the next one. */
static enum flags_result read_flag(const struct flag *table, size_t count, int argc, char **argv, int *at, char *error)
{
	const char *argument = argv[*at];
	const char *name = argument[0] == '-' ? argument + 1 : argument;
	if (name != argument && *name == '-')
		name++;
	size_t length = strcspn(name, "=");
	const char *value = name[length] == '=' ? name + length + 1 : NULL;
	char allowed[160];

	if (name == argument)
		return say_unknown(table, count, argument, "not an option:", error);
	if (!value && (is_word(name, length, "help") || is_word(name, length, "h")))
		return FLAGS_HELP;
	if (!value && is_word(name, length, "version"))
		return FLAGS_VERSION;
	const struct flag *f = find_flag(table, count, name, length);
	if (!f)
		return say_unknown(table, count, argument, "unknown option", error);
	say_allowed(f, allowed, sizeof allowed);
	*at += 1;
	if (f->kind == FLAG_SWITCH && !value) {
		*f->into.on = true;
		return FLAGS_READ;
	}
	if (!value && *at >= argc) {
		snprintf(error, FLAGS_ERROR_BYTES, "--%s: nothing follows; allowed: %s", f->name, allowed);
		return FLAGS_WRONG;
	}
	if (!value)
		value = argv[(*at)++];
	if (!read_value(f, value)) {
		snprintf(error, FLAGS_ERROR_BYTES, "--%s: '%.160s' was read; allowed: %s", f->name, value, allowed);
		return FLAGS_WRONG;
	}
	return FLAGS_READ;
}

enum flags_result flags_read(const struct flag *table, size_t count, int argc, char **argv,
                             char error[FLAGS_ERROR_BYTES])
{
	error[0] = '\0';
	for (int at = 1; at < argc;) {
		enum flags_result result = read_flag(table, count, argc, argv, &at, error);
		if (result != FLAGS_READ)
			return result;
	}
	return FLAGS_READ;
}

void flags_print(FILE *out, const struct flag *table, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char left[64];
		const char *value = table[i].kind == FLAG_CHOICE ? table[i].choices : table[i].value;
		snprintf(left, sizeof left, "--%s %s", table[i].name, table[i].kind == FLAG_SWITCH ? "" : value);
		/* A long one pushes its help to the next line, so that the column stays. */
		if (strlen(left) > 28)
			fprintf(out, "  %s\n  %-28s %s\n", left, "", table[i].help);
		else
			fprintf(out, "  %-28s %s\n", left, table[i].help);
	}
	fprintf(out, "  %-28s %s\n  %-28s %s\n", "--help", "print this and exit", "--version",
	        "print the version and exit");
	fprintf(out, "One dash or two, --key value or --key=value.\n");
}

int flags_finish(enum flags_result result, const char *program, const char *usage, const struct flag *table,
                 size_t count, const char *error)
{
	if (result == FLAGS_WRONG) {
		fprintf(stderr, "%s: ", program);
		/* What was read is shown, and a line break in it must not make two lines of one. */
		for (const char *c = error; *c; c++)
			fputc((unsigned char)*c < ' ' || *c == 127 ? '?' : *c, stderr);
		fputc('\n', stderr);
		return 2;
	}
	if (result == FLAGS_VERSION) {
		printf("%s %s\n", program, WEIR_VERSION);
	} else {
		fputs(usage, stdout);
		flags_print(stdout, table, count);
	}
	/* A full disk shows itself only when the buffer is written out. */
	return fflush(stdout) == 0 ? 0 : 1;
}
