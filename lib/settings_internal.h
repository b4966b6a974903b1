/* settings_internal.h: what the parts of settings share. Nobody else includes it, but for their tests.
 *
 *      settings.def ──► settings_table.c    the rows: looking up, naming, suggesting
 *                            │
 *      command line ──► settings_flags.c ──┐
 *      environment  ──►        "           ├──► settings.c ──► struct configuration ──► settings_print.c
 *      INI file     ──► settings_file.c ───┘     │   │
 *                                                │   └──► settings_values.c, _endpoints.c, _networks.c, _rules.c,
 *                                                │            _forward.c: a text's value
 *                                                ├──────► settings_secrets.c: what files hold: NAME_file, auth_file
 *                                                ├──────► settings_tls.c: and keys and certificates
 *                                                └──────► settings_check.c: what must get along with others
 *
 * The first three deliver texts, each with its row and where it stood; not one of them knows what a value means.
 * settings.c lays them over each other in the order file, environment, flag, and asks settings_values.c to read them.
 * So a value obeys the same rules wherever it came from, and the error about it differs in its first words only.
 */
#ifndef WEIR_SETTINGS_INTERNAL_H
#define WEIR_SETTINGS_INTERNAL_H

#include "settings.h"
#include "ts.h"

#define SETTINGS_RATE_MAX 1000000u
#define SETTINGS_NAME_MAX 64 /* bytes of a key, the NUL included */
#define SETTINGS_ENDPOINTS_MAX 1024u
#define SETTINGS_WEIGHT_MAX 256u
#define SETTINGS_PEERS_MAX 64u
#define SETTINGS_GROUP_WINDOW_MAX_US UINT64_C(604800000000) /* a week */
#define SETTINGS_NETWORKS_MAX 4096u
#define SETTINGS_RULE_HEADERS_MAX 8u
#define SETTINGS_HOST_LIMITS_MAX 4096u
#define SETTINGS_DESTINATIONS_MAX 4096u
#define SETTINGS_CONNECTIONS_MAX 1000000u

/* ---- the table (settings_table.c) ---- */

enum settings_kind {
	KIND_TEXT,
	KIND_NUMBER,
	KIND_SIZE,
	KIND_DURATION,
	KIND_CHOICE,
	KIND_RATE,
	KIND_ENDPOINTS,
	KIND_PEERS,
	KIND_HASH_KEY,
	KIND_KEY,
	KIND_NETWORKS,
	KIND_EXEMPTIONS,
	KIND_HOST_LIMITS,
	KIND_HOST_RATES,
	KIND_DESTINATIONS,
	KIND_RULE,
};

enum settings_scope { SCOPE_SERVICE, SCOPE_GLOBAL };

struct settings_row {
	const char *name;
	enum settings_kind kind;
	enum settings_scope scope;
	size_t offset;             /* of the field in struct settings or struct settings_globals */
	const char *default_text;  /* NULL: not set */
	const char *default_of_mode[3]; /* instead of default_text, by enum settings_mode */
	const char *default_says;  /* what the help says it is, when default_text would not tell */
	bool default_is_several;   /* no one value means the same: --check prints default_says, as a comment */
	const char *heading;       /* the group that begins with this row */
	const char *help;
	const char *also;          /* a further name, in the environment and as a flag */
	bool only_in_file;         /* makes sense in a stanza alone */
	const char *needs;         /* the setting without which it does nothing; NULL: none */
	unsigned only_in;          /* the modes in which it does something, as bits; 0: all */
	bool is_secret;            /* never printed, neither in --check nor in an error */
	const char *holds;         /* TEXT: a file that holds the value of this other row */
	bool holds_users;          /* TEXT: a file of user:hash lines */

	/* Constraints. */
	uint64_t least, most;           /* NUMBER, SIZE in bytes, DURATION in microseconds */
	bool all;                       /* NUMBER: "all" is UINT_MAX */
	bool none;                      /* NETWORKS, EXEMPTIONS: "none" is the empty list */
	bool one_part;                  /* KEY: client or header:NAME, not joined */
	const char *choices;            /* CHOICE: "first|second" */
	const char *alone;              /* CHOICE: what the flag means when no value follows it; NULL: one must */
	bool (*check)(const char *text); /* TEXT */
	const char *allowed;            /* TEXT: what check lets through, in words */

	bool is_prefix;            /* stands for every NAME.anything, each a value of its own */
};

extern const struct settings_row settings_rows[];
extern const size_t settings_row_count;

/* The row of a key in any spelling (case does not matter, - is _), or NULL. */
const struct settings_row *settings_row_find(const char *key);
/* The same, for a name of the command line or the environment that may also be a row's further name. */
const struct settings_row *settings_row_find_also(const char *key, bool *by_other_name);
/* The key that was perhaps meant, or NULL. */
const char *settings_row_guess(const char *key);
/* Its default as the help has it; "none" when it is not set. */
const char *settings_default_in_words(const struct settings_row *row);
/* What help and errors write behind a row's name: ".NAME" if it is a prefix, else "". */
const char *settings_row_suffix(const char *name);
/* How many letters to insert, delete, change or swap make one of the other. Both shorter than SETTINGS_NAME_MAX. */
unsigned settings_distance(const char *a, const char *b);
/* Is word one of "a|b|c"? Case does not matter. */
bool settings_word_is_in(const char *word, const char *words);

/* Takes blanks and tabs off both ends, in place; returns where the rest begins. */
char *settings_trim(char *text);
/* Lower case, - becomes _. False when it does not fit. */
bool settings_spell_key(const char *key, char out[SETTINGS_NAME_MAX]);
void settings_spell_flag(const char *key, char out[SETTINGS_NAME_MAX + 2]);        /* --max-clients */
void settings_spell_environment(const char *key, char out[SETTINGS_NAME_MAX + 5]); /* WEIR_MAX_CLIENTS */

/* ---- values (settings_values.c) ---- */

enum value_result {
	VALUE_GOOD,
	VALUE_WRONG,
	VALUE_NO_MEMORY,
};

#define VALUE_WHY_MAX 200
#define VALUE_ALLOWED_MAX 320

/* Reads text, without blanks around it, into the field of row, which must be clear: zero or cleared. When it is wrong
   the field stays clear, and why says what is wrong in particular, or is empty. The field of a row that is a prefix is
   one item of its list. */
enum value_result value_read(const struct settings_row *row, const char *text, void *field, char why[VALUE_WHY_MAX]);
/* Frees what a field holds and makes it zero. */
void value_clear(const struct settings_row *row, void *field);
/* What a row allows, in words. */
void value_allowed(const struct settings_row *row, char out[VALUE_ALLOWED_MAX]);

/* Says why; always VALUE_WRONG. */
enum value_result value_wrong(char *why, const char *reason);
/* Reads digits at *at and moves it behind them. False when there are none, or too many for 64 bits. */
bool value_digits(const char **at, uint64_t *out);
bool value_is_letter_or_digit(char c); /* of ASCII */
bool value_is_token(const char *text, size_t length); /* RFC 9110 §5.6.2: names of fields, methods */
/* "100", "600/m", "0.5/s". */
enum value_result value_rate(const char *text, struct settings_rate *out, char *why);

/* Networks, and exemptions, whose list may hold headers as well (settings_networks.c). */
enum value_result value_networks(const struct settings_row *row, const char *text, struct networks *out, char *why);
enum value_result value_exemptions(const struct settings_row *row, const char *text, struct settings_exemptions *out,
                                   char *why);
void value_clear_networks(struct networks *networks);
void value_clear_exemptions(struct settings_exemptions *exemptions);

/* Rules and keys (settings_rules.c). value_rule() sets all but the name. */
enum value_result value_key(const char *text, bool one_part, struct settings_key *out, char *why);
enum value_result value_rule(const char *text, struct settings_rule *out, char *why);
void value_clear_key(struct settings_key *key);
void value_clear_rule(struct settings_rule *rule);

/* Names and targets (settings_endpoints.c). */
enum value_result value_endpoints(const char *text, struct settings_endpoints *out, char *why);
void value_clear_endpoints(struct settings_endpoints *endpoints);
/* Splits "host:port" or "[v6]:port" in place. Returns the host, or NULL and what is wrong. */
const char *value_split_host_port(char *item, unsigned *port, const char **why);

/* A group of nodes (settings_cluster.c). */
enum value_result value_peers(const char *text, struct settings_peers *out, char *why);
void value_clear_peers(struct settings_peers *peers);
bool value_is_broadcast(const char *text);
bool value_is_multicast(const char *text);

/* Caps and rates of hosts, and what a forward proxy may reach (settings_forward.c). */
enum value_result value_host_limits(const char *text, struct host_limits *out, char *why);
enum value_result value_host_rates(const char *text, struct settings_host_rates *out, char *why);
void value_clear_host_rates(struct settings_host_rates *rates);
enum value_result value_destinations(const char *text, struct destinations *out, char *why);
void value_clear_destinations(struct destinations *destinations);

/* What rows of KIND_TEXT ask for. */
bool value_is_hostname(const char *text);
bool value_is_ipv6(const char *text);
bool value_is_bind(const char *text);
bool value_is_url_path(const char *text);
bool value_is_stats_path(const char *text);
bool value_is_admin(const char *text);
bool value_is_file(const char *text);
bool value_is_files(const char *text); /* comma-separated */
bool value_is_server_name(const char *text);
bool value_is_user(const char *text);
bool value_is_redis_address(const char *text);
bool value_is_secret(const char *text);
bool value_is_credentials(const char *text);
bool value_is_host_and_port(const char *text);

/* ---- where a value came from ---- */

/* SOURCE_COMMAND: the mode as a word; SOURCE_PROGRAM: the settings that weir_create() is given. */
enum settings_source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_FLAG, SOURCE_COMMAND, SOURCE_PROGRAM };

struct settings_origin {
	enum settings_source source;
	unsigned line;      /* SOURCE_FILE */
	bool by_other_name; /* it was called row->also */
	char *key;          /* of a row that is a prefix: "limit.login" */
	char *text;         /* as it was written; NULL: not set */
};

struct settings_origins {
	char *file;    /* as -c named it, or NULL */
	unsigned line; /* of the stanza's name */
	/* One for each rule; of[] has the one that was read last. */
	struct settings_origin of_rules[SETTINGS_RULES_MAX];
	size_t rule_count;
	struct settings_origin of[]; /* one for each row */
};

struct settings_origins *settings_origins_create(const char *file, unsigned line);
void settings_origins_destroy(struct settings_origins *origins);
struct settings_origin *settings_origin_of(const struct settings_row *row, struct settings_origins *origins);
/* "weir.ini:7", "environment WEIR_PORT", "flag --port", "setting port", "default". */
#define SETTINGS_ORIGIN_MAX 256
void settings_origin_say(const struct settings_row *row, const struct settings_origins *origins,
                         const struct settings_origin *origin, char out[SETTINGS_ORIGIN_MAX]);

/* "reverse, forward": the modes whose bits are set. */
#define SETTINGS_MODES_MAX 64
void settings_list_modes(unsigned modes, char out[SETTINGS_MODES_MAX]);

/* The first words of an error: "weir.ini:7", "--port", "WEIR_PORT", "weir forward". */
void settings_say_place(const struct settings_row *row, struct settings_origins *origins, char out[SETTINGS_ORIGIN_MAX]);

/* Bytes that came from outside, made fit for one line of an error: cut, in quotes, control characters escaped. */
#define SETTINGS_QUOTE_MAX 96
const char *settings_quote(const char *text, char out[SETTINGS_QUOTE_MAX]);
/* The end of a long path is what tells it apart. */
const char *settings_short_path(const char *path);

/* Fills error; always false, so that it can stand in a return. */
bool settings_fail(char error[SETTINGS_ERROR_MAX], const char *format, ...) PRINTF_LIKE(2, 3);
bool settings_fail_memory(char error[SETTINGS_ERROR_MAX]);

/* ---- the INI file (settings_file.c) ---- */

struct ini_entry {
	const struct settings_row *row;
	char *key; /* as it was written, for NAME.anything */
	char *value;
	unsigned line;
};

struct ini_stanza {
	char *name;
	unsigned line;
	bool is_globals;
	struct ini_entry *entries;
	size_t entry_count, entry_room;
};

struct ini_file {
	const char *path; /* the caller's, for errors */
	struct ini_stanza *stanzas;
	size_t stanza_count, stanza_room;
};

/* Reads a whole file. On failure error says "PATH:LINE: …". Either way ini_file_free() releases what there is. */
bool ini_file_read(FILE *in, const char *path, struct ini_file *out, char error[SETTINGS_ERROR_MAX]);
void ini_file_free(struct ini_file *file);
const struct ini_entry *ini_stanza_entry(const struct ini_stanza *stanza, const char *key);

/* ---- the command line and the environment (settings_flags.c) ---- */

struct settings_given {
	const struct settings_row *row;
	char key[SETTINGS_NAME_MAX]; /* the row's name; of a prefix the whole key */
	const char *text; /* in argv or the environment */
	enum settings_source source;
	bool by_other_name;
};

struct settings_command {
	enum configuration_wish wish;
	const char *file;   /* -c */
	bool is_program;    /* a program that has the library in it speaks, and no person at a command line */
	bool daemon;
	bool quiet;         /* with --check */
	const char **nodes; /* --node */
	size_t node_count;
	struct settings_given *flags; /* at most one for each row, or key of a prefix */
	size_t flag_count;
	struct settings_given *environment; /* at most one for each row */
	size_t environment_count;
};

/* Either way settings_command_free() releases what there is. environment: "NAME=value" …, NULL. */
bool settings_command_read(int argc, char **argv, char **environment, struct settings_command *out,
                           char error[SETTINGS_ERROR_MAX]);
/* The same of a program that has the library in it: "key = value" …, NULL, and a file or NULL. No environment: that is the program's. */
bool settings_program_read(const char *file, const char *const settings[], struct settings_command *out,
                           char error[SETTINGS_ERROR_MAX]);
void settings_command_free(struct settings_command *command);

/* ---- what files hold (settings_secrets.c) ---- */

/* Reads the files that hold values of this service, and looks at those that it will read later. */
bool settings_read_secrets(struct settings *settings, char *error);
bool settings_read_global_secrets(struct settings_globals *globals, char *error);

/* ---- keys and certificates (settings_tls.c) ---- */

/* Reads the files of ssl and tls_crtfile, and checks that the settings about them fit together. */
bool settings_read_tls(struct settings *settings, char *error);

/* ---- side by side (settings_check.c) ---- */

/* Is this stanza for this machine: named with --node, or without one by its hostname? */
bool settings_stanza_is_chosen(const struct ini_stanza *stanza, const struct settings_command *command,
                               const char *hostname);
/* Each --node is a stanza of the file. */
bool settings_check_nodes(const struct ini_file *file, const struct settings_command *command, char *error);
/* A service has at most one group, and an id in it. Works out group_address and, for peers, group_size. */
bool settings_check_group(struct settings *settings, char *error);
/* Works out group_size: how many stanzas, of all machines, are of the service's group. */
void settings_count_group(const struct ini_file *file, struct settings *settings);
/* No two stanzas of one group have one id. */
bool settings_check_ids(const struct ini_file *file, char *error);
/* No two services of this process listen at one place. */
bool settings_check_ports(const struct configuration *configuration, char *error);
/* Says that nothing in the file is for this machine, and for whom it is; always false. */
bool settings_fail_no_service(const struct ini_file *file, const struct settings_command *command, const char *hostname,
                              char *error);

/* ---- all together (settings.c) ---- */

struct settings_input {
	int argc;
	char **argv;
	char **environment;
	const char *hostname;  /* of this machine */
	const char *file_path; /* where the file that -c names is now; NULL: as -c says */
	FILE *file;            /* read instead of opening it; the caller's */
	/* Of a program that has the library in it, instead of argv and environment. */
	bool is_program;
	const char *program_file;
	const char *const *program_settings;
};

struct configuration *configuration_assemble(const struct settings_input *input, enum configuration_wish *wish,
                                             char error[SETTINGS_ERROR_MAX]);

/* The line of --check for a row, or its lines (settings_print.c). */
void settings_print_line(const struct settings_row *row, const struct settings_origins *origins, FILE *out);

#endif
