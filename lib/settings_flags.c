/* settings_flags.c: the command line and the environment become a list of texts, each with its row.
 *
 *      weir reverse --port 8000 -endpoint=127.0.0.1:9001           the first word is the mode
 *      weir -c weir.ini --node node2 --check --log-level debug     flags override what the file says
 *
 * One dash or two, --key=value and --key value, - and _ are the same and case does not matter: people come from curl,
 * from HAProxy and from Go programs, and none of them should have to look it up. A flag may be given once: of two
 * values for one setting one would be ignored. What follows a flag is its value even when it begins with a dash
 * ("-1"), so that the error is about the value; but two dashes are the next flag, and then the value is what is
 * missing.
 *
 * The environment: WEIR_ and a key is a setting, and one that is not known is an error as it is in the file. Other
 * programs' variables are none of ours, but for the few names that rows give as .also. A variable that is set to
 * nothing is not set: that is how compose files and unit files leave out what they do not need.
 *
 * A program that has the library in it gives "key = value" texts instead; then the environment is left alone, for it is that program's.
 *
 * No value is copied: the texts stay in argv and in the environment. Main thread, as for all that reads the
 * environment.
 */
#include "settings_internal.h"

#include <stdlib.h>
#include <string.h>

#define TWO_FORMS "allowed: weir reverse --port 8000 --endpoint HOST:PORT, or weir -c FILE; see weir --help"

struct command_reading {
	int argc;
	char **argv;
	int at;
	struct settings_command *out;
	char *error;
};

/* ---- flags that are not settings ---- */

static const struct {
	const char *name;
	enum configuration_wish wish;
} wishes[] = {
	{ "check", CONFIGURATION_CHECK },     { "help", CONFIGURATION_HELP },           { "h", CONFIGURATION_HELP },
	{ "version", CONFIGURATION_VERSION }, { "reference", CONFIGURATION_REFERENCE },
	{ "manual_flags", CONFIGURATION_MANUAL_FLAGS }, { "manual_keys", CONFIGURATION_MANUAL_KEYS },
};

/* Names that a typing error may have been meant for, besides those of the table. */
static const char *const own_names[] = { "config", "node",    "check",     "quiet",     "daemon",
	                                 "help",   "version", "reference", "completion", "healthcheck" };

static bool is_last_wish(enum configuration_wish wish)
{
	return wish != CONFIGURATION_RUN && wish != CONFIGURATION_CHECK;
}

static const char *guess_flag(const char *name)
{
	const char *best = settings_row_guess(name);
	unsigned best_distance = best ? settings_distance(name, best) : (unsigned)strlen(name) / 3 + 1;

	for (size_t i = 0; i < sizeof own_names / sizeof own_names[0]; i++) {
		unsigned distance = settings_distance(name, own_names[i]);
		if (distance < best_distance) {
			best_distance = distance;
			best = own_names[i];
		}
	}
	return best;
}

/* argument without its value, which may be a secret under a misspelt name. */
static bool fail_unknown_flag(struct command_reading *r, const char *name)
{
	char cut[SETTINGS_QUOTE_MAX], quoted[SETTINGS_QUOTE_MAX], flag[SETTINGS_NAME_MAX + 2] = "";
	const char *argument = r->argv[r->at];
	const char *guess = guess_flag(name);
	size_t length = strcspn(argument, "=");

	snprintf(cut, sizeof cut, "%.*s", (int)(length < sizeof cut ? length : sizeof cut - 1), argument);
	if (guess)
		settings_spell_flag(guess, flag);
	return settings_fail(r->error, "unknown option %s%s%s%s%s (weir --help lists what is allowed)",
	                     settings_quote(cut, quoted), guess ? "; did you mean " : "", flag,
	                     guess ? settings_row_suffix(guess) : "", guess ? "?" : "");
}

/* ---- lists ---- */

static bool add_given(struct settings_given **list, size_t *count, struct settings_given given)
{
	/* One for each row at most, and so many rules: the room is made once. */
	if (!*list)
		*list = calloc(settings_row_count + SETTINGS_RULES_MAX, sizeof **list);
	if (!*list)
		return false;
	(*list)[(*count)++] = given;
	return true;
}

/* key: the row's name, or of a prefix the whole. */
static struct settings_given *find_given(struct settings_given *list, size_t count, const char *key)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].key, key) == 0)
			return &list[i];
	return NULL;
}

/* Is there no room for one more key of a prefix? */
static bool is_full(const struct settings_command *command, const struct settings_row *row)
{
	size_t count = 0;
	for (size_t i = 0; i < command->flag_count; i++)
		count += command->flags[i].row == row;
	return row->is_prefix && count == SETTINGS_RULES_MAX;
}

static struct settings_given given_of(const struct settings_row *row, const char *key, const char *text,
                                      enum settings_source source)
{
	struct settings_given given = { .row = row, .text = text, .source = source };
	snprintf(given.key, sizeof given.key, "%s", row->is_prefix ? key : row->name);
	return given;
}

/* ---- the command line ---- */

/* The value of the flag at r->at: what stands after its =, or the next argument, to which r->at then moves. */
static const char *take_value(struct command_reading *r, const char *after_equals)
{
	if (after_equals)
		return after_equals;
	if (r->at + 1 >= r->argc || strncmp(r->argv[r->at + 1], "--", 2) == 0)
		return NULL;
	return r->argv[++r->at];
}

static bool fail_no_value(struct command_reading *r, const char *flag, const char *allowed)
{
	return settings_fail(r->error, "%s: no value follows; allowed: %s", flag, allowed);
}

/* A flag that may stand alone takes the word after it only if that is one of its values. */
static const char *take_value_of(struct command_reading *r, const struct settings_row *row, const char *after_equals)
{
	bool has_next = r->at + 1 < r->argc;
	if (row->alone && !after_equals && !(has_next && settings_word_is_in(r->argv[r->at + 1], row->choices)))
		return row->alone;
	return take_value(r, after_equals);
}

static bool read_setting(struct command_reading *r, const char *name, const char *after_equals)
{
	bool by_other_name;
	const struct settings_row *row = settings_row_find_also(name, &by_other_name);
	char flag[SETTINGS_NAME_MAX + 2], allowed[VALUE_ALLOWED_MAX];

	if (!row)
		return fail_unknown_flag(r, name);
	settings_spell_flag(name, flag);
	value_allowed(row, allowed);
	const char *text = take_value_of(r, row, after_equals);
	if (!text)
		return fail_no_value(r, flag, allowed);
	if (row->only_in_file)
		return settings_fail(r->error,
		                     "%s: %s; allowed: in a stanza of the file (and --node chooses a stanza by name)",
		                     flag, row->help);
	struct settings_given given = given_of(row, name, text, SOURCE_FLAG);
	given.by_other_name = by_other_name;
	if (find_given(r->out->flags, r->out->flag_count, given.key))
		return settings_fail(r->error, "%s: given twice; allowed: once", flag);
	if (is_full(r->out, row))
		return settings_fail(r->error, "%s: too many rules; allowed: %u", flag, SETTINGS_RULES_MAX);
	return add_given(&r->out->flags, &r->out->flag_count, given) || settings_fail_memory(r->error);
}

static bool read_node(struct command_reading *r, const char *after_equals)
{
	const char *name = take_value(r, after_equals);
	if (!name || *name == '\0')
		return fail_no_value(r, "--node", "the name of a stanza");
	if (!r->out->nodes)
		r->out->nodes = calloc((size_t)r->argc, sizeof *r->out->nodes);
	if (!r->out->nodes)
		return settings_fail_memory(r->error);
	r->out->nodes[r->out->node_count++] = name;
	return true;
}

static bool read_file_name(struct command_reading *r, const char *after_equals)
{
	const char *name = take_value(r, after_equals);
	if (!name || *name == '\0')
		return fail_no_value(r, "-c", "an INI file's path");
	for (const char *at = name; *at != '\0'; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f) /* it is printed with every error, which has one line */
			return settings_fail(r->error, "-c: a path with a control character; allowed: one without");
	if (r->out->file)
		return settings_fail(r->error, "-c: given twice; allowed: once");
	r->out->file = name;
	return true;
}

static bool read_shell(struct command_reading *r, const char *after_equals)
{
	const char *name = take_value(r, after_equals);
	char quoted[SETTINGS_QUOTE_MAX];
	if (!name)
		return fail_no_value(r, "--completion", "bash");
	if (strcmp(name, "bash") != 0)
		return settings_fail(r->error, "--completion: %s was read; allowed: bash", settings_quote(name, quoted));
	r->out->wish = CONFIGURATION_COMPLETION;
	return true;
}

/* Flags that take no value. False when name is none of them. */
static bool take_switch(struct command_reading *r, const char *name)
{
	bool *flag = strcmp(name, "daemon") == 0 ? &r->out->daemon : strcmp(name, "quiet") == 0 ? &r->out->quiet : NULL;
	if (flag != NULL) {
		*flag = true;
		return true;
	}
	for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
		if (strcmp(name, wishes[i].name) == 0) {
			r->out->wish = wishes[i].wish;
			return true;
		}
	}
	return false;
}

static bool read_flag(struct command_reading *r)
{
	const char *argument = r->argv[r->at] + 1;
	char name[SETTINGS_NAME_MAX];

	if (*argument == '-')
		argument++;
	size_t length = strcspn(argument, "=");
	const char *after_equals = argument[length] == '=' ? argument + length + 1 : NULL;
	if (length == 0 || length >= sizeof name)
		return fail_unknown_flag(r, "");
	memcpy(name, argument, length);
	name[length] = '\0';
	settings_spell_key(name, name);

	if (take_switch(r, name))
		return !after_equals || settings_fail(r->error, "--%s: takes no value", name);
	if (strcmp(name, "c") == 0 || strcmp(name, "config") == 0)
		return read_file_name(r, after_equals);
	if (strcmp(name, "node") == 0)
		return read_node(r, after_equals);
	if (strcmp(name, "completion") == 0)
		return read_shell(r, after_equals);
	if (strcmp(name, "healthcheck") == 0)
		return settings_fail(r->error, "--healthcheck: asks a weir that runs already; allowed: as the first argument, "
		                               "with a URL behind it or nothing");
	return read_setting(r, name, after_equals);
}

/* A word without dashes: the mode, once. */
static bool read_word(struct command_reading *r)
{
	const struct settings_row *mode = settings_row_find("mode");
	const char *word = r->argv[r->at];
	char quoted[SETTINGS_QUOTE_MAX];

	if (!settings_word_is_in(word, mode->choices))
		return settings_fail(r->error, "%s was read; " TWO_FORMS, settings_quote(word, quoted));
	if (find_given(r->out->flags, r->out->flag_count, mode->name))
		return settings_fail(r->error, "%s was read, and a mode before it; allowed: one",
		                     settings_quote(word, quoted));
	struct settings_given given = given_of(mode, NULL, word, SOURCE_COMMAND);
	return add_given(&r->out->flags, &r->out->flag_count, given) || settings_fail_memory(r->error);
}

static bool check_form(struct command_reading *r)
{
	const struct settings_command *out = r->out;
	const struct settings_given *mode = find_given(out->flags, out->flag_count, "mode");
	bool has_word = mode && mode->source == SOURCE_COMMAND;

	if (has_word && out->file)
		return settings_fail(r->error, "-c %s: there is a mode, %s, as well; allowed: one of the two",
		                     settings_short_path(out->file), mode->text);
	if (out->flag_count == 0 && out->environment_count == 0 && !out->file)
		return settings_fail(r->error, "neither a mode nor a file is given; " TWO_FORMS);
	if (out->node_count > 0 && !out->file)
		return settings_fail(r->error, "--node: chooses a stanza of a file; allowed: with -c FILE");
	if (out->quiet && out->wish != CONFIGURATION_CHECK)
		return settings_fail(r->error, "--quiet: leaves out what --check prints; allowed: with --check");
	return true;
}

/* ---- the environment ---- */

static bool fail_unknown_variable(const char *name, size_t length, char *error)
{
	char cut[SETTINGS_NAME_MAX], quoted[SETTINGS_QUOTE_MAX], guessed[SETTINGS_NAME_MAX + 5];
	snprintf(cut, sizeof cut, "%.*s", (int)(length < sizeof cut ? length : sizeof cut - 1), name);
	const char *guess = settings_row_guess(cut + strlen("WEIR_"));
	if (guess)
		settings_spell_environment(guess, guessed);
	settings_quote(cut, quoted);
	return settings_fail(error, "unknown setting %s in the environment%s%s%s (weir --help lists what is allowed)",
	                     quoted, guess ? "; did you mean " : "", guess ? guessed : "", guess ? "?" : "");
}

/* The row that a variable sets, or NULL. Unlike flags, variables are spelt in one way only. */
static const struct settings_row *find_variable(const char *name, size_t length, bool *by_other_name)
{
	char spelt[SETTINGS_NAME_MAX + 5];

	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		settings_spell_environment(row->name, spelt);
		size_t spelt_length = strlen(spelt);
		*by_other_name = false;
		if (row->is_prefix && length >= spelt_length && strncmp(name, spelt, spelt_length) == 0 &&
		    (length == spelt_length || strchr("._", name[spelt_length])))
			return row;
		if (!row->is_prefix && spelt_length == length && strncmp(name, spelt, length) == 0)
			return row;
		*by_other_name = true;
		if (row->also && strlen(row->also) == length && strncmp(name, row->also, length) == 0)
			return row;
	}
	return NULL;
}

static bool read_variable(const char *variable, struct settings_command *out, char *error)
{
	char spelt[SETTINGS_NAME_MAX + 5];
	bool by_other_name;
	size_t length = strcspn(variable, "=");

	if (variable[length] == '\0' || variable[length + 1] == '\0')
		return true;
	const struct settings_row *row = find_variable(variable, length, &by_other_name);
	if (!row)
		return strncmp(variable, "WEIR_", 5) != 0 || fail_unknown_variable(variable, length, error);
	settings_spell_environment(row->name, spelt);
	if (row->only_in_file)
		return settings_fail(error, "%.*s: %s; allowed: in a stanza of the file", (int)length, variable,
		                     row->help);
	if (row->is_prefix) /* a shell's names have no dot */
		return settings_fail(error,
		                     "%.64s: not set by the environment; allowed: %s.NAME in a stanza of the file, or "
		                     "the flag --%s.NAME",
		                     spelt, row->name, row->name);
	struct settings_given given = given_of(row, row->name, variable + length + 1, SOURCE_ENVIRONMENT);
	given.by_other_name = by_other_name;
	struct settings_given *other = find_given(out->environment, out->environment_count, given.key);
	if (!other)
		return add_given(&out->environment, &out->environment_count, given) || settings_fail_memory(error);
	/* WEIR_PORT is said to weir alone, DPRL_PORT to others as well. */
	if (other->by_other_name && !by_other_name)
		*other = given;
	return true;
}

bool settings_command_read(int argc, char **argv, char **environment, struct settings_command *out,
                           char error[SETTINGS_ERROR_MAX])
{
	struct command_reading r = { .argc = argc, .argv = argv, .out = out, .error = error };

	*out = (struct settings_command){ .wish = CONFIGURATION_RUN };
	error[0] = '\0';
	for (r.at = 1; r.at < argc; r.at++) {
		const char *argument = argv[r.at];
		if (!(argument[0] == '-' && argument[1] != '\0' ? read_flag(&r) : read_word(&r)))
			return false;
		if (is_last_wish(out->wish))
			return true;
	}
	for (char **variable = environment; variable && *variable; variable++)
		if (!read_variable(*variable, out, error))
			return false;
	return check_form(&r);
}

/* ---- a program's own settings ------------------------------------------------------------------------------------- */

/* What belongs to the program around us, and not to a part of it. */
static bool is_of_the_process(const char *key)
{
	return strcmp(key, "user") == 0 || strcmp(key, "pidfile") == 0;
}

static bool fail_unknown_key(const char *key, char *error)
{
	char quoted[SETTINGS_QUOTE_MAX];
	const char *guess = settings_row_guess(key);
	return settings_fail(error, "unknown setting %s%s%s%s%s (weir --help lists what is allowed)",
	                     settings_quote(key, quoted), guess ? "; did you mean \"" : "", guess ? guess : "",
	                     guess ? settings_row_suffix(guess) : "", guess ? "\"?" : "");
}

/* One setting, its key apart from its value. */
static bool read_pair(struct command_reading *r, size_t capacity, const char *key, const char *value)
{
	const struct settings_row *row = settings_row_find(key);
	if (strcmp(key, "node") == 0 && r->out->file) {
		if (!r->out->nodes)
			r->out->nodes = calloc(capacity, sizeof *r->out->nodes);
		if (!r->out->nodes)
			return settings_fail_memory(r->error);
		r->out->nodes[r->out->node_count++] = value;
		return true;
	}
	if (strcmp(key, "node") == 0)
		return settings_fail(r->error, "node: chooses a stanza of a file; allowed: with a file");
	if (!row)
		return fail_unknown_key(key, r->error);
	if (row->only_in_file)
		return settings_fail(r->error, "%s: %s; allowed: in a stanza of a file", row->name, row->help);
	if (is_of_the_process(row->name))
		return settings_fail(r->error, "%s: belongs to the process as a whole; allowed: with the program weir", row->name);
	struct settings_given given = given_of(row, key, value, SOURCE_PROGRAM);
	if (find_given(r->out->flags, r->out->flag_count, given.key))
		return settings_fail(r->error, "%s: given twice; allowed: once", given.key);
	if (is_full(r->out, row))
		return settings_fail(r->error, "%s: too many rules; allowed: %u", given.key, SETTINGS_RULES_MAX);
	return add_given(&r->out->flags, &r->out->flag_count, given) || settings_fail_memory(r->error);
}

/* "key = value", blanks around both or none. The value stays where it is. */
static bool read_program_setting(struct command_reading *r, size_t capacity, const char *setting)
{
	char key[SETTINGS_NAME_MAX], quoted[SETTINGS_QUOTE_MAX];
	size_t length = strcspn(setting, "="), begin = strspn(setting, " \t"), end = length;
	if (setting[length] == '\0') {
		snprintf(key, sizeof key, "%.*s", (int)strcspn(setting + begin, " \t"), setting + begin);
		return settings_fail(r->error, "%s has no = after it; allowed: \"key = value\"", settings_quote(key, quoted));
	}
	while (end > begin && (setting[end - 1] == ' ' || setting[end - 1] == '\t'))
		end--;
	snprintf(key, sizeof key, "%.*s", (int)(end > begin ? end - begin : 0), setting + (end > begin ? begin : 0));
	if (end <= begin || end - begin >= sizeof key)
		return fail_unknown_key(key, r->error);
	settings_spell_key(key, key);
	const char *value = setting + length + 1;
	return read_pair(r, capacity, key, value + strspn(value, " \t"));
}

bool settings_program_read(const char *file, const char *const settings[], struct settings_command *out,
                           char error[SETTINGS_ERROR_MAX])
{
	struct command_reading r = { .out = out, .error = error };
	size_t count = 0;

	*out = (struct settings_command){ .wish = CONFIGURATION_RUN, .file = file, .is_program = true };
	error[0] = '\0';
	while (settings && settings[count])
		count++;
	for (size_t i = 0; i < count; i++)
		if (!read_program_setting(&r, count, settings[i]))
			return false;
	return true;
}

void settings_command_free(struct settings_command *command)
{
	free(command->nodes);
	free(command->flags);
	free(command->environment);
	*command = (struct settings_command){ .wish = CONFIGURATION_RUN };
}
