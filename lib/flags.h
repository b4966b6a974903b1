/* flags.h: the options of a small program, from one table.
 *
 * A demo program has ten options at most, and each of them wants a line in --help, a check, and an error that names
 * what was read and what is allowed. Written by hand that is three places for each option, and they drift apart. Here
 * an option is one row of a table; reading, checking, help and errors all come from the row.
 *
 *      { .name = "http", .kind = FLAG_NUMBER, .into.number = &port, .highest = 65535, .value = "PORT", .help = "..." }
 *
 *      -http 80     --http 80     -http=80     --http=80           all the same
 *
 * One dash or two: getopt_long_only() would do that as well, but it also takes unambiguous beginnings (-ht), prints its
 * own messages and permutes argv. An option that works today because it is the only one that begins with "ht" breaks
 * the day a second one is added.
 *
 * No state: everything is in the caller's table and the caller's variables. Any thread.
 */
#ifndef WEIR_FLAGS_H
#define WEIR_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifndef WEIR_VERSION
#define WEIR_VERSION "0.1.0"
#endif

#define FLAGS_ERROR_BYTES 512
#define FLAG_LIST_MAX 32

enum flag_kind {
	FLAG_SWITCH,  /* takes no value: sets *on */
	FLAG_NUMBER,  /* a whole number from lowest to highest */
	FLAG_SECONDS, /* decimal seconds, kept as microseconds; lowest and highest are microseconds */
	FLAG_TEXT,    /* anything that is not empty */
	FLAG_CHOICE,  /* one of the words in choices; kept as its place in them, from 0 */
	FLAG_LIST,    /* FLAG_TEXT that may be given several times */
};

struct flag_list {
	const char *items[FLAG_LIST_MAX];
	size_t count;
};

struct flag {
	const char *name; /* without dashes */
	enum flag_kind kind;
	union {
		bool *on;
		uint64_t *number; /* FLAG_NUMBER, and FLAG_SECONDS in microseconds */
		const char **text;
		unsigned *choice;
		struct flag_list *list;
	} into; /* set only when the option is given: what is there before is the default */
	uint64_t lowest, highest;
	const char *choices; /* FLAG_CHOICE: "yes|no" */
	const char *value;   /* what --help calls the value */
	const char *help;
};

enum flags_result {
	FLAGS_READ,    /* go on */
	FLAGS_HELP,    /* --help was given */
	FLAGS_VERSION, /* --version was given */
	FLAGS_WRONG,   /* error holds one line that says what was read and what is allowed */
};

/* Reads argv[1] and what follows into the variables that the table names. Texts are not copied: they stay in argv. The
   first --help or --version ends the reading; so does the first mistake. error gets a line without its newline. */
enum flags_result flags_read(const struct flag *table, size_t count, int argc, char **argv,
                             char error[FLAGS_ERROR_BYTES]);

/* Prints the table, one option a line, --help and --version included. */
void flags_print(FILE *out, const struct flag *table, size_t count);

/* What a program does with an answer other than FLAGS_READ: prints the help (usage first) or the version on stdout, or
   the error on stderr. Returns the exit status: 0, or 2 when the options were wrong, or 1 when stdout is broken. */
int flags_finish(enum flags_result result, const char *program, const char *usage, const struct flag *table,
                 size_t count, const char *error);

#endif
