/* settings.c: texts from the file, the environment and the command line become one configuration.
 *
 *      stanzas of the file ──► those for this machine ──► a struct settings each: file, then environment, then flags,
 *                         │                               then defaults where nothing was said
 *                         └──► those of others ──► read, to see whether they are well-formed, and thrown away
 *
 *      weir reverse --port …  ──► one struct settings, without a file
 *
 * One file serves every machine of a fleet: a typing error in another machine's stanza is reported here, before that
 * machine finds it; but what that stanza needs (an endpoint from its environment, a free port) is its own business.
 *
 * The invariant: a configuration is complete and consistent, or there is none; there is no half of one to clean up
 * after, so a reload can fail without anyone noticing. What no value can tell by itself is checked in
 * settings_check.c.
 *
 * A configuration never changes. The only thing in it that does is holders, an atomic count: a service that serves
 * its last requests by old settings keeps those alive after the configuration they came from is gone.
 */
#include "settings_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls.h"

#define CAP_REJECT_STATUS 500u /* what clients of an egress limiter were told before there was weir */

/* What is being filled: a struct settings, or the struct settings_globals. */
struct filling {
	void *holder;
	struct settings_origins *origins;
	enum settings_scope scope;
	char *error;
};

/* ---- one value ---- */

static void *field_of(const struct settings_row *row, void *holder)
{
	return (char *)holder + row->offset;
}

/* A URL often has a password in it where only a host is allowed. NULL: there is none; else what follows it, from @ on. */
static const char *after_credentials(const char *text)
{
	const char *scheme = strstr(text, "://");
	return scheme == NULL ? NULL : strrchr(scheme, '@');
}

static bool fail_wrong(const struct filling *f, const struct settings_row *row, const char *why)
{
	const struct settings_origin *origin = settings_origin_of(row, f->origins);
	char place[SETTINGS_ORIGIN_MAX], quoted[SETTINGS_QUOTE_MAX], allowed[VALUE_ALLOWED_MAX], shown[2 * SETTINGS_QUOTE_MAX];
	bool from_file = origin->source == SOURCE_FILE;

	settings_say_place(row, f->origins, place);
	value_allowed(row, allowed);
	const char *host = after_credentials(origin->text);
	if (host != NULL)
		snprintf(shown, sizeof shown, "********%s", host);
	if (row->is_secret)
		snprintf(quoted, sizeof quoted, "what"); /* a secret is not shown, and why might show it */
	else
		settings_quote(host == NULL ? origin->text : shown, quoted);
	bool says_why = *why != '\0' && !row->is_secret && host == NULL;
	const char *key = origin->key ? origin->key : row->name;
	return settings_fail(f->error, "%s: %s%s%s was read%s%s%s; allowed: %s", place, from_file ? key : "",
	                     from_file ? ": " : "", quoted, says_why ? " (" : "", says_why ? why : "",
	                     says_why ? ")" : "", allowed);
}

/* Puts a rule in the place of the one with its name, or behind the others. It is the list's then, its origin too. */
static enum value_result keep_rule(struct settings *s, struct settings_rule *rule, struct settings_origin *origin,
                                   char *why)
{
	size_t i = 0;

	while (i < s->rule_count && strcmp(s->rules[i].name, rule->name) != 0)
		i++;
	if (i == SETTINGS_RULES_MAX)
		return value_wrong(why, "too many rules; allowed: 16");
	if (!s->rules)
		s->rules = calloc(SETTINGS_RULES_MAX, sizeof *s->rules);
	if (!s->rules)
		return VALUE_NO_MEMORY;
	struct settings_origin *kept = &s->origins->of_rules[i];
	value_clear_rule(&s->rules[i]);
	free(kept->key);
	free(kept->text);
	s->rules[i] = *rule;
	*kept = *origin;
	*rule = (struct settings_rule){ .name = NULL };
	*origin = (struct settings_origin){ .key = NULL };
	if (i == s->rule_count)
		s->origins->rule_count = ++s->rule_count;
	return VALUE_GOOD;
}

/* Reads limit.NAME, whose origin is in its row's place. */
static enum value_result read_rule(const struct filling *f, const struct settings_row *row, char *why)
{
	struct settings_origin *origin = settings_origin_of(row, f->origins);
	struct settings_rule rule = { .name = NULL };
	const char *name = origin->key + strlen(row->name) + 1;

	/* The names of the limits that are no rules: under one of them two limits would share their counts. */
	if (settings_word_is_in(name, "threshold|client|client_rate|client_connections"))
		return value_wrong(why, "weir has a limit of that name; allowed: another name");
	enum value_result result = value_read(row, origin->text, &rule, why);
	if (result == VALUE_GOOD && !(rule.name = strdup(name)))
		result = VALUE_NO_MEMORY;
	if (result == VALUE_GOOD)
		result = keep_rule(f->holder, &rule, origin, why);
	value_clear_rule(&rule);
	return result;
}

/* Notes what was said about a row and where, over what was. given.text is copied; key is the row's name or, for a
   prefix, the whole key. */
static bool set_origin(struct settings_origin *origin, const struct settings_row *row, const char *key,
                       struct settings_origin given)
{
	char spelt[SETTINGS_NAME_MAX];
	const char *text = given.text + strspn(given.text, " \t");
	size_t length = strlen(text);

	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		length--;
	given.text = strndup(text, length);
	if (row->is_prefix && settings_spell_key(key, spelt))
		given.key = strdup(spelt);
	if (!given.text || (row->is_prefix && !given.key)) {
		free(given.text);
		free(given.key);
		return false;
	}
	free(origin->text);
	free(origin->key);
	*origin = given;
	return true;
}

/* Reads the text that stands in the row's origin. */
static enum value_result read_value(const struct filling *f, const struct settings_row *row, char *why)
{
	if (row->is_prefix)
		return read_rule(f, row, why);
	value_clear(row, field_of(row, f->holder));
	return value_read(row, settings_origin_of(row, f->origins)->text, field_of(row, f->holder), why);
}

/* Gives a row a value, over what it had. given.text is copied. */
static bool set_value(const struct filling *f, const struct settings_row *row, const char *key,
                      struct settings_origin given)
{
	struct settings_origin *origin = settings_origin_of(row, f->origins);
	char why[VALUE_WHY_MAX];

	if (!set_origin(origin, row, key, given))
		return settings_fail_memory(f->error);
	switch (read_value(f, row, why)) {
	case VALUE_GOOD:
		return true;
	case VALUE_NO_MEMORY:
		return settings_fail_memory(f->error);
	case VALUE_WRONG:
		break;
	}
	return fail_wrong(f, row, why);
}

/* ---- many values ---- */

static bool fill_from_stanza(const struct filling *f, const struct ini_stanza *stanza)
{
	for (size_t i = 0; i < stanza->entry_count; i++) {
		const struct ini_entry *entry = &stanza->entries[i];
		struct settings_origin given = { .source = SOURCE_FILE, .line = entry->line, .text = entry->value };
		if (!set_value(f, entry->row, entry->key, given))
			return false;
	}
	return true;
}

static bool fill_from_given(const struct filling *f, const struct settings_given *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct settings_origin given = { .source = list[i].source,
			                         .by_other_name = list[i].by_other_name,
			                         .text = (char *)list[i].text };
		if (list[i].row->scope == f->scope && !set_value(f, list[i].row, list[i].key, given))
			return false;
	}
	return true;
}

/* What was not said. mode stands before the rows whose default depends on it. */
static bool fill_from_defaults(const struct filling *f)
{
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		const char *text = row->default_text;
		if (row->scope != f->scope || f->origins->of[i].text)
			continue;
		if (row->default_of_mode[0])
			text = row->default_of_mode[((struct settings *)f->holder)->mode];
		struct settings_origin given = { .source = SOURCE_DEFAULT, .text = (char *)text };
		if (text && !set_value(f, row, row->name, given))
			return false;
	}
	return true;
}

static void clear_values(void *holder, enum settings_scope scope)
{
	for (size_t i = 0; i < settings_row_count; i++)
		if (settings_rows[i].scope == scope && !settings_rows[i].is_prefix)
			value_clear(&settings_rows[i], field_of(&settings_rows[i], holder));
}

/* ---- one service ---- */

static struct settings *settings_create(const char *name, const char *file, unsigned line)
{
	struct settings *settings = calloc(1, sizeof *settings);
	if (!settings)
		return NULL;
	atomic_init(&settings->holders, 1);
	settings->name = strdup(name);
	settings->origins = settings_origins_create(file, line);
	if (!settings->name || !settings->origins) {
		settings_release(settings);
		return NULL;
	}
	return settings;
}

struct settings *settings_hold(struct settings *settings)
{
	atomic_fetch_add(&settings->holders, 1);
	return settings;
}

void settings_release(struct settings *settings)
{
	if (!settings || atomic_fetch_sub(&settings->holders, 1) > 1)
		return;
	if (settings->base != NULL) { /* all else in it is the base's */
		settings_release(settings->base);
		free(settings);
		return;
	}
	clear_values(settings, SCOPE_SERVICE);
	for (size_t i = 0; i < settings->rule_count; i++)
		value_clear_rule(&settings->rules[i]);
	free(settings->rules);
	free(settings->group_address);
	tls_release(settings->tls_client);
	tls_release(settings->tls_server);
	free(settings->warnings);
	settings_origins_destroy(settings->origins);
	free(settings->name);
	free(settings);
}

/* "weir.ini:3: [node2]", or "weir reverse". */
static void say_service(const struct settings *s, char out[SETTINGS_ORIGIN_MAX])
{
	char quoted[SETTINGS_QUOTE_MAX];

	if (!s->origins->file) {
		snprintf(out, SETTINGS_ORIGIN_MAX, "weir %s", s->name);
		return;
	}
	size_t length = strlen(settings_quote(s->name, quoted));
	snprintf(out, SETTINGS_ORIGIN_MAX, "%.100s:%u: [%.*s]", settings_short_path(s->origins->file), s->origins->line,
	         (int)length - 2, quoted + 1);
}

uint64_t settings_backlog_requests(struct settings_rate rate, uint64_t backlog_us)
{
	if (rate.count == 0 || backlog_us == 0)
		return 0;
	/* Both are bounded: a million times a day in microseconds is far from 64 bits. */
	uint64_t requests = rate.count * backlog_us / rate.window_us;
	return requests > 0 ? requests : 1;
}

static bool check_backlog(const struct settings *s, const char *product, uint64_t requests, char *error)
{
	char service[SETTINGS_ORIGIN_MAX];

	if (requests <= SETTINGS_BACKLOG_MAX)
		return true;
	say_service(s, service);
	return settings_fail(error, "%s: %s lets %llu requests wait; allowed: at most %u", service, product,
	                     (unsigned long long)requests, SETTINGS_BACKLOG_MAX);
}

static bool check_backlogs(struct settings *s, char *error)
{
	uint64_t waiting = settings_backlog_requests(s->threshold, s->backlog_us);
	uint64_t most = settings_backlog_requests(s->host_rate, s->host_backlog_us);
	for (size_t i = 0; i < s->host_rates.count; i++) {
		uint64_t requests = settings_backlog_requests(s->host_rates.items[i].rate, s->host_backlog_us);
		most = requests > most ? requests : most;
	}
	if (!check_backlog(s, "threshold x backlog", waiting, error) || !check_backlog(s, "host_rate x host_backlog", most, error))
		return false;
	s->backlog_requests = (unsigned)waiting;
	return true;
}

bool settings_parse_rate(const char *text, struct settings_rate *out, char *why, size_t why_size)
{
	char reason[VALUE_WHY_MAX] = "";
	*out = (struct settings_rate){ .count = 0 };
	if (value_rate(text, out, reason) == VALUE_GOOD)
		return true;
	snprintf(why, why_size, "%s", reason);
	return false;
}

struct settings *settings_with_threshold(struct settings *settings, const struct settings_rate *threshold, char error[SETTINGS_ERROR_MAX])
{
	struct settings *base = settings->base != NULL ? settings->base : settings;
	struct settings *copy = malloc(sizeof *copy);
	if (copy == NULL) {
		settings_fail_memory(error);
		return NULL;
	}
	memcpy(copy, base, sizeof *copy);
	atomic_init(&copy->holders, 1);
	copy->threshold = *threshold;
	copy->backlog_requests = 0;
	if (!check_backlogs(copy, error)) {
		free(copy);
		return NULL;
	}
	copy->base = settings_hold(base);
	return copy;
}

/* What several values of one service must be together. */
static bool check_service(struct settings *s, char *error)
{
	char service[SETTINGS_ORIGIN_MAX];

	if (s->mode == MODE_REVERSE && s->endpoint.count == 0) {
		say_service(s, service);
		return settings_fail(error, "%s has no endpoint to send requests to; allowed: %s", service,
		                     s->origins->file ? "endpoint = host:port, ..." : "--endpoint host:port,...");
	}
	if (s->client_burst == 0)
		s->client_burst = s->client_rate.count;
	const struct settings_row *status = settings_row_find("reject_status");
	bool is_set = settings_origin_of(status, s->origins)->source != SOURCE_DEFAULT;
	s->cap_reject_status = is_set ? s->reject_status : CAP_REJECT_STATUS;
	return check_backlogs(s, error) && settings_read_secrets(s, error) && settings_check_group(s, error) &&
	       settings_read_tls(s, error);
}

/* Makes one service's settings. stanza is NULL for the command line's. One that is not for here is another machine's,
   looked at for its form only. NULL and error when something is wrong. */
static struct settings *read_service(const char *name, const struct ini_stanza *stanza,
                                     const struct settings_command *command, bool is_for_here, char *error)
{
	struct settings *s = settings_create(name, command->file, stanza ? stanza->line : 0);
	if (!s) {
		settings_fail_memory(error);
		return NULL;
	}
	struct filling f = { s, s->origins, SCOPE_SERVICE, error };
	bool is_good = !stanza || fill_from_stanza(&f, stanza);
	if (is_for_here)
		is_good = is_good && fill_from_given(&f, command->environment, command->environment_count) &&
		          fill_from_given(&f, command->flags, command->flag_count) && fill_from_defaults(&f) &&
		          check_service(s, error);
	if (!is_good) {
		settings_release(s);
		return NULL;
	}
	return s;
}

/* ---- the whole ---- */

static bool read_globals(struct configuration *c, const struct ini_file *file, const struct settings_command *command,
                         char *error)
{
	c->globals.origins = settings_origins_create(command->file, 0);
	if (!c->globals.origins)
		return settings_fail_memory(error);
	struct filling f = { &c->globals, c->globals.origins, SCOPE_GLOBAL, error };
	for (size_t i = 0; i < file->stanza_count; i++)
		if (file->stanzas[i].is_globals && !fill_from_stanza(&f, &file->stanzas[i]))
			return false;
	return fill_from_given(&f, command->environment, command->environment_count) &&
	       fill_from_given(&f, command->flags, command->flag_count) && fill_from_defaults(&f) &&
	       settings_read_global_secrets(&c->globals, error);
}

static bool read_stanzas(struct configuration *c, const struct ini_file *file, const struct settings_command *command,
                         const char *hostname, char *error)
{
	c->services = calloc(file->stanza_count + 1, sizeof *c->services);
	if (!c->services)
		return settings_fail_memory(error);
	if (!settings_check_nodes(file, command, error) || !settings_check_ids(file, error))
		return false;
	for (size_t i = 0; i < file->stanza_count; i++) {
		const struct ini_stanza *stanza = &file->stanzas[i];
		if (stanza->is_globals)
			continue;
		bool is_for_here = settings_stanza_is_chosen(stanza, command, hostname);
		struct settings *s = read_service(stanza->name, stanza, command, is_for_here, error);
		if (!s)
			return false;
		settings_count_group(file, s);
		if (is_for_here)
			c->services[c->service_count++] = s;
		else
			settings_release(s);
	}
	return (c->service_count > 0 || settings_fail_no_service(file, command, hostname, error)) &&
	       settings_check_ports(c, error);
}

/* What a service without a stanza is called: by its mode, wherever that was said. */
static const char *name_of_mode(const struct settings_command *command)
{
	const struct settings_row *mode = settings_row_find("mode");

	for (size_t i = 0; i < command->flag_count; i++)
		if (command->flags[i].row == mode)
			return command->flags[i].text;
	for (size_t i = 0; i < command->environment_count; i++)
		if (command->environment[i].row == mode)
			return command->environment[i].text;
	return mode->default_text;
}

static bool read_command_line_service(struct configuration *c, const struct settings_command *command, char *error)
{
	const char *name = name_of_mode(command);

	c->services = calloc(1, sizeof *c->services);
	if (!c->services)
		return settings_fail_memory(error);
	c->services[0] = read_service(name, NULL, command, true, error);
	if (!c->services[0])
		return false;
	c->service_count = 1;
	return true;
}

/* A daemon that went to "/" still finds the file. The path is not resolved further: links may point elsewhere tomorrow,
   and that is how some deployments swap a file. */
static char *absolute_path(const char *path)
{
	char folder[PATH_MAX], *whole;

	if (path[0] == '/' || !getcwd(folder, sizeof folder))
		return strdup(path);
	return asprintf(&whole, "%s/%s", folder, path) >= 0 ? whole : NULL;
}

static FILE *open_file(const char *path, const struct settings_command *command, char *error)
{
	struct stat status;
	FILE *in = fopen(path, "re");
	int reason = errno;

	/* fopen() opens a folder, and only reading it fails. */
	if (in && fstat(fileno(in), &status) == 0 && S_ISDIR(status.st_mode)) {
		fclose(in);
		in = NULL;
		reason = EISDIR;
	}
	if (!in)
		settings_fail(error, "%s%s: cannot be read: %s", command->is_program ? "" : "-c ",
		              settings_short_path(command->file), strerror(reason));
	return in;
}

static bool read_file(struct configuration *c, const struct settings_input *input,
                      const struct settings_command *command, struct ini_file *file, char *error)
{
	c->file_path = input->file_path ? strdup(input->file_path) : absolute_path(command->file);
	if (!c->file_path)
		return settings_fail_memory(error);
	if (input->file)
		return ini_file_read(input->file, command->file, file, error);
	FILE *in = open_file(c->file_path, command, error);
	if (!in)
		return false;
	bool is_good = ini_file_read(in, command->file, file, error);
	fclose(in);
	return is_good;
}

struct configuration *configuration_assemble(const struct settings_input *input, enum configuration_wish *wish,
                                             char error[SETTINGS_ERROR_MAX])
{
	struct settings_command command;
	struct ini_file file = { .path = NULL };
	struct configuration *c = calloc(1, sizeof *c);
	bool is_good = input->is_program ?
	                       settings_program_read(input->program_file, input->program_settings, &command, error) :
	                       settings_command_read(input->argc, input->argv, input->environment, &command, error);

	if (is_good && !c)
		is_good = settings_fail_memory(error);
	if (is_good) {
		*wish = command.wish;
		c->daemon = command.daemon;
		c->quiet = command.quiet;
		c->argc = input->argc;
		c->argv = input->argv;
		c->is_program = input->is_program;
		c->program_file = input->program_file;
		c->program_settings = input->program_settings;
	}
	if (is_good && (command.wish == CONFIGURATION_RUN || command.wish == CONFIGURATION_CHECK)) {
		is_good = (!command.file || read_file(c, input, &command, &file, error)) &&
		          read_globals(c, &file, &command, error) &&
		          (command.file ? read_stanzas(c, &file, &command, input->hostname, error)
		                        : read_command_line_service(c, &command, error));
	}
	ini_file_free(&file);
	settings_command_free(&command);
	if (!is_good) {
		configuration_free(c);
		return NULL;
	}
	return c;
}

static struct configuration *read_here(struct settings_input input, enum configuration_wish *wish, char *error)
{
	char hostname[HOST_NAME_MAX + 1] = "";

	if (gethostname(hostname, sizeof hostname - 1) < 0)
		hostname[0] = '\0';
	input.environment = environ;
	input.hostname = hostname;
	return configuration_assemble(&input, wish, error);
}

struct configuration *configuration_read(int argc, char **argv, enum configuration_wish *wish,
                                         char error[SETTINGS_ERROR_MAX])
{
	return read_here((struct settings_input){ .argc = argc, .argv = argv }, wish, error);
}

struct configuration *configuration_reread(const struct configuration *old, char error[SETTINGS_ERROR_MAX])
{
	enum configuration_wish wish;
	struct settings_input input = { .argc = old->argc,
		                        .argv = old->argv,
		                        .file_path = old->file_path,
		                        .is_program = old->is_program,
		                        .program_file = old->program_file,
		                        .program_settings = old->program_settings };
	return read_here(input, &wish, error);
}

struct configuration *configuration_of_program(const char *file, const char *const settings[],
                                               char error[SETTINGS_ERROR_MAX])
{
	enum configuration_wish wish;
	struct settings_input input = { .is_program = true, .program_file = file, .program_settings = settings };
	return read_here(input, &wish, error);
}

void configuration_free(struct configuration *configuration)
{
	if (!configuration)
		return;
	for (size_t i = 0; i < configuration->service_count; i++)
		settings_release(configuration->services[i]);
	free(configuration->services);
	clear_values(&configuration->globals, SCOPE_GLOBAL);
	settings_origins_destroy(configuration->globals.origins);
	free(configuration->file_path);
	free(configuration);
}
