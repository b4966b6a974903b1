/* settings_print.c: the table and a configuration, written out for people: --check, --help, --reference.
 *
 * --check answers "which value is in force, and who said so?", the question behind most reports that begin with "I
 * have set it, but". Its lines are those of an INI file, with the origin as a comment, so that its output can be
 * kept, compared and given to weir again:
 *
 *      [node2]
 *      port = 8090    # weir.ini:4
 *      backlog = 4    # environment WEIR_BACKLOG
 *      burst = 0    # default
 *      # probe_path is not set: none: a TCP connect    # default
 *
 * The invariant: what is printed, read back, gives the same values. A secret is the exception, and so it stands in a
 * comment, as stars whose number says nothing.
 *
 * Each of the three walks over settings.def's rows: a row that is added there appears in all of them. Any thread.
 */
#include "settings_internal.h"

#include <string.h>

/* ---- --check ---- */

static void print_value(const struct settings_row *row, const struct settings_origins *origins,
                        const struct settings_origin *origin, FILE *out)
{
	const char *key = origin->key ? origin->key : row->name;
	char said[SETTINGS_ORIGIN_MAX];

	settings_origin_say(row, origins, origin, said);
	if (!origin->text || (row->default_is_several && origin->source == SOURCE_DEFAULT))
		fprintf(out, "# %s%s is not set%s%s    # %s\n", row->name, settings_row_suffix(row->name),
		        row->default_says ? ": " : "", row->default_says ? row->default_says : "", said);
	else if (row->is_secret)
		fprintf(out, "# %s = ********    # %s\n", key, said);
	else
		fprintf(out, "%s = %s    # %s\n", key, origin->text, said);
}

void settings_print_line(const struct settings_row *row, const struct settings_origins *origins, FILE *out)
{
	if (!row->is_prefix || origins->rule_count == 0)
		print_value(row, origins, &origins->of[row - settings_rows], out);
	else
		for (size_t i = 0; i < origins->rule_count; i++)
			print_value(row, origins, &origins->of_rules[i], out);
}

static void print_stanza(const char *name, const struct settings_origins *origins, enum settings_scope scope, FILE *out)
{
	fprintf(out, "[%s]\n", name);
	for (size_t i = 0; i < settings_row_count; i++)
		if (settings_rows[i].scope == scope)
			settings_print_line(&settings_rows[i], origins, out);
}

void configuration_print(const struct configuration *configuration, FILE *out)
{
	char idle[SETTINGS_IDLE_MAX];

	print_stanza("globals", configuration->globals.origins, SCOPE_GLOBAL, out);
	for (size_t i = 0; i < configuration->service_count; i++) {
		const struct settings *s = configuration->services[i];
		fputc('\n', out);
		print_stanza(s->name, s->origins, SCOPE_SERVICE, out);
		for (size_t at = 0; settings_next_idle(s, &at, idle);)
			fprintf(out, "# %s\n", idle);
	}
}

/* ---- --help ---- */

const char *settings_default_in_words(const struct settings_row *row)
{
	if (row->default_says)
		return row->default_says;
	return row->default_text ? row->default_text : "none";
}

void settings_print_help(FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2 + sizeof ".NAME"];

	fputs("weir: a rate-limited HTTP proxy.\n\n"
	      "  weir reverse --port 8000 --endpoint 127.0.0.1:9001,127.0.0.1:9002 --threshold 100 --backlog 2\n"
	      "  weir forward --port 8080 --max-connections 25\n"
	      "  weir packet --port 2100\n"
	      "  weir top --admin 127.0.0.1:9100       what a running weir does, in a terminal\n"
	      "  weir -c FILE [--node NAME]... [--check] [--daemon] [--pidfile FILE]\n"
	      "  weir --healthcheck [URL]              exit 0 if a running weir is well, 1 if not: for containers\n\n"
	      "  -c, --config FILE     read an INI file: every stanza whose hostname is this machine's, or that has "
	      "none\n"
	      "  --node NAME           run the stanza [NAME] instead; may be given several times\n"
	      "  --check               print the settings in force and where each came from, and exit\n"
	      "  --quiet               with --check: print only what is wrong or odd\n"
	      "  --daemon              run in the background\n"
	      "  --healthcheck URL     what must answer 2xx within 5 s (/healthz of the admin address in WEIR_ADMIN, or of port 9100)\n"
	      "  --help, --version     print this, or the version, and exit\n"
	      "  --reference           print the reference page of all settings (Markdown) and exit\n"
	      "  --manual-flags, --manual-keys\n"
	      "                        print the settings as parts of the man pages (mdoc) and exit\n"
	      "  --completion bash     print a script that completes weir's arguments in that shell, and exit\n\n"
	      "Each setting is a flag (--max-clients N or --max-clients=N, one dash or two), a key of the file "
	      "(max_clients = N)\n"
	      "and a variable (WEIR_MAX_CLIENTS). A flag goes before the environment, that before the file. Defaults "
	      "in ().\n",
	      out);
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		if (row->heading)
			fprintf(out, "\n%s\n", row->heading);
		settings_spell_flag(row->name, flag);
		strcat(flag, settings_row_suffix(row->name));
		fprintf(out, "  %-21s %s (%s)\n", row->only_in_file ? row->name : flag, row->help,
		        settings_default_in_words(row));
	}
}

/* ---- --reference ---- */

/* A bar would end the cell. */
static void print_cell(const char *text, FILE *out)
{
	for (; *text != '\0'; text++) {
		if (*text == '|')
			fputc('\\', out);
		fputc(*text, out);
	}
}

static void print_reference_row(const struct settings_row *row, FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2], variable[SETTINGS_NAME_MAX + 5], allowed[VALUE_ALLOWED_MAX];
	char modes[SETTINGS_MODES_MAX];

	settings_spell_flag(row->name, flag);
	settings_spell_environment(row->name, variable);
	value_allowed(row, allowed);
	fprintf(out, "| `%s%s` ", row->name, settings_row_suffix(row->name));
	if (row->only_in_file)
		fprintf(out, "| in the file only ");
	else if (row->is_prefix)
		fprintf(out, "| `%s%s` ", flag, settings_row_suffix(row->name));
	else
		fprintf(out, "| `%s`<br>`%s`%s%s%s ", flag, variable, row->also ? "<br>`" : "",
		        row->also ? row->also : "", row->also ? "`" : "");
	fprintf(out, "| ");
	print_cell(settings_default_in_words(row), out);
	fprintf(out, " | ");
	print_cell(row->help, out);
	settings_list_modes(row->only_in, modes);
	fprintf(out, "%s%s | ", row->only_in != 0 ? "; only in mode " : "", modes);
	print_cell(allowed, out);
	fprintf(out, " |\n");
}

void settings_print_reference(FILE *out)
{
	fputs("# Settings\n\n"
	      "This page is written by `make docs` from `lib/settings.def`.\n\n"
	      "A setting is a key of the INI file, a flag and an environment variable. A flag goes before the "
	      "environment, the\n"
	      "environment before the file, the file before the default; `weir --check` prints each value and where it "
	      "came from.\n"
	      "Case does not matter in keys and flags, `-` and `_` are the same, and one dash does for two. A variable "
	      "that is set\n"
	      "to nothing is not set. Comments in the file start with `#` or `;` at the start of a line or after a "
	      "blank. What a file\n"
	      "or a flag sets in a mode that has no use for it is said when weir starts, and by `weir --check`.\n",
	      out);
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		if (row->heading)
			fprintf(out,
			        "\n## %s\n\n| key | flag, environment | default | meaning | allowed "
			        "|\n|---|---|---|---|---|\n",
			        row->heading);
		print_reference_row(row, out);
	}
}
