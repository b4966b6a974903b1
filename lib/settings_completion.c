/* settings_completion.c: the table as a completion script for bash: `source <(weir --completion bash)`.
 *
 *      weir rev<TAB>                     a mode
 *      weir reverse --thr<TAB>           a flag that does something in this mode
 *      weir reverse --balance <TAB>      one of its values
 *      weir -c weir.ini --node <TAB>     a stanza of that file
 *
 * bash calls the function with the line cut into words, and takes what it leaves in COMPREPLY. It also cuts at "=", so that
 * --balance=le is three words: both forms are brought to one first. Nothing of the package bash-completion is used; with it the
 * script is loaded by itself from share/bash-completion/completions/weir, without it one sources it.
 *
 * A line of the script stands in each string, so that it can be read here as it will be there. Any thread.
 */
#include "settings_internal.h"

#include <string.h>

static const char script_head[] =
	"# Completion of weir's arguments in bash. Written by `weir --completion bash` from the table of settings.\n"
	"_weir_files()\n"
	"{\n"
	"\tcompopt -o filenames 2>/dev/null\n"
	"\tmapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
	"}\n"
	"\n"
	"_weir_stanzas() # a name may be any bytes: never given to compgen -W, which expands what it is given\n"
	"{\n"
	"\tlocal name\n"
	"\t[[ -f $file && -r $file ]] || return\n"
	"\twhile read -r name; do\n"
	"\t\t[[ ${name,,} == globals || $name != \"$word\"* ]] || COMPREPLY+=(\"$(printf %q \"$name\")\")\n"
	"\tdone < <(sed -n 's/^\\[\\([^]]*\\)\\].*/\\1/p' -- \"$file\")\n"
	"}\n"
	"\n"
	"_weir()\n"
	"{\n"
	"\tlocal word before value=\"\" mode=\"\" file=\"\" i flags=\"\"\n"
	"\tword=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
	"\tif [[ $word == \"=\" ]]; then\n"
	"\t\tword=\"\"\n"
	"\telif [[ $before == \"=\" && $COMP_CWORD -gt 2 ]]; then\n"
	"\t\tbefore=${COMP_WORDS[COMP_CWORD - 2]}\n"
	"\tfi\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tcase ${COMP_WORDS[i]} in\n";

static const char script_middle[] =
	"\t\t-c | -config | --config)\n"
	"\t\t\tfile=${COMP_WORDS[i + 1]}\n"
	"\t\t\t[[ $file != \"=\" ]] || file=${COMP_WORDS[i + 2]}\n"
	"\t\t\t;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\tCOMPREPLY=()\n"
	"\tcase $before in\n"
	"\t-*) value=${before#-} value=${value#-} value=${value//_/-} ;;\n"
	"\tesac\n"
	"\tif [[ $mode == top ]]; then\n"
	"\t\tcase $value in\n"
	"\t\ttoken-file) _weir_files ;;\n"
	"\t\tadmin | interval) ;;\n"
	"\t\t*) mapfile -t COMPREPLY < <(compgen -W \"--admin --interval --once --token-file --help --version\" -- \"$word\") ;;\n"
	"\t\tesac\n"
	"\t\treturn\n"
	"\tfi\n"
	"\tcase $value in\n"
	"\tc | config)\n"
	"\t\t_weir_files\n"
	"\t\treturn\n"
	"\t\t;;\n"
	"\tnode)\n"
	"\t\t_weir_stanzas\n"
	"\t\treturn\n"
	"\t\t;;\n"
	"\tcompletion)\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W bash -- \"$word\")\n"
	"\t\treturn\n"
	"\t\t;;\n";

static const char script_end[] =
	"\tif [[ $word != -* && -z $mode && -z $file ]]; then\n"
	"\t\tflags=\"$modes\"\n"
	"\tfi\n"
	"\tmapfile -t COMPREPLY < <(compgen -W \"$flags\" -- \"$word\")\n"
	"}\n"
	"complete -F _weir weir\n";

/* The flags that are no settings. */
static const char own_flags[] = "-c --config --node --check --quiet --daemon --help --version --reference --completion --healthcheck";

/* "a|b" as "a b" or "a | b". */
static void put_words(const char *choices, const char *separator, FILE *out)
{
	for (; *choices != '\0'; choices++)
		if (*choices == '|')
			fputs(separator, out);
		else
			fputc(*choices, out);
}

enum completion { COMPLETES_CHOICES, COMPLETES_FILES, COMPLETES_USERS, COMPLETES_NOTHING };

static enum completion completion_of(const struct settings_row *row)
{
	if (row->kind == KIND_CHOICE)
		return COMPLETES_CHOICES;
	if (row->kind != KIND_TEXT)
		return COMPLETES_NOTHING;
	if (row->check == value_is_file || row->check == value_is_files)
		return COMPLETES_FILES;
	return row->check == value_is_user ? COMPLETES_USERS : COMPLETES_NOTHING;
}

/* What stands in quotes after -W, or in a pattern, must be free of what the shell reads: choices and the names of flags are. */
static void put_choices(const struct settings_row *row, FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2];
	settings_spell_flag(row->name, flag);
	fprintf(out, "\t%s)\n\t\tmapfile -t COMPREPLY < <(compgen -W \"", flag + 2);
	put_words(row->choices, " ", out);
	/* After --trace a value may follow, or the next flag. */
	fprintf(out, "\" -- \"$word\")\n\t\t%sreturn\n\t\t;;\n", row->alone != NULL ? "[[ $word == -* ]] || " : "");
}

/* All flags that are completed in the same way, as one pattern, and the command that does it. */
static void put_group(enum completion completion, const char *command, FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2];
	const char *separator = "\t";
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		if (row->only_in_file || completion_of(row) != completion)
			continue;
		settings_spell_flag(row->name, flag);
		fprintf(out, "%s%s%s", separator, flag + 2, row->is_prefix ? ".*" : "");
		separator = " | ";
	}
	fprintf(out, ")\n%s\t\treturn\n\t\t;;\n", command);
}

static void put_flags_of(unsigned mode_bit, FILE *out)
{
	char flag[SETTINGS_NAME_MAX + 2];
	fputs(own_flags, out);
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		bool is_of_use = row->only_in == 0 || mode_bit == 0 || (row->only_in & mode_bit) != 0;
		if (row->only_in_file || row->is_prefix || !is_of_use)
			continue;
		settings_spell_flag(row->name, flag);
		fprintf(out, " %s", flag);
	}
}

/* modes: "reverse|packet|forward", in the order of their numbers. */
static void put_flags(const char *modes, FILE *out)
{
	unsigned bit = 1;
	fputs("\tesac\n\tcase $mode in\n", out);
	for (const char *mode = modes; *mode != '\0'; bit <<= 1) {
		size_t length = strcspn(mode, "|");
		fprintf(out, "\t%.*s) flags=\"", (int)length, mode);
		put_flags_of(bit, out);
		fputs("\" ;;\n", out);
		mode += length;
		mode += *mode == '|';
	}
	fputs("\t*) flags=\"", out);
	put_flags_of(0, out);
	fputs("\" ;;\n\tesac\n", out);
}

void settings_print_completion(FILE *out)
{
	const char *modes = settings_row_find("mode")->choices;
	fputs(script_head, out);
	fputs("\t\t", out);
	put_words(modes, " | ", out);
	fputs(" | top) [[ $i -gt 1 && ${COMP_WORDS[i]} == top ]] || mode=${mode:-${COMP_WORDS[i]}} ;;\n", out);
	fputs(script_middle, out);
	for (size_t i = 0; i < settings_row_count; i++)
		if (completion_of(&settings_rows[i]) == COMPLETES_CHOICES)
			put_choices(&settings_rows[i], out);
	put_group(COMPLETES_FILES, "\t\t_weir_files\n", out);
	put_group(COMPLETES_USERS, "\t\tmapfile -t COMPREPLY < <(compgen -u -- \"$word\")\n", out);
	put_group(COMPLETES_NOTHING, "", out);
	put_flags(modes, out);
	fputs("\tlocal modes=\"", out);
	put_words(modes, " ", out);
	fputs(" top\"\n", out);
	fputs(script_end, out);
}
