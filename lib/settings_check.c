/* settings_check.c: what no value can tell by itself: whom a stanza is for, whether stanzas get along, and what does
 * nothing where it stands.
 *
 * A file is written for a fleet, and some mistakes show only when its stanzas are laid side by side:
 *
 *      [a]                          [b]
 *      hostname = micro1            hostname = micro1
 *      port     = 8000   ◄────────► port     = 8000          both run here: the second would find its port taken
 *      id       = 2      ◄────────► id       = 2             one group: two nodes would both believe to be number 2
 *      unicast  = 10.0.0.255:7000   unicast  = 10.0.0.255:7000
 *
 * Without these checks the first would be found by bind() at the start, perhaps at three in the morning by a machine
 * that boots; the second by nobody, as a threshold that is passed now and then. The ports are those of this machine's
 * services alone; the ids (settings_cluster.c) are looked at in all stanzas, for whom they clash with runs elsewhere.
 *
 * Nothing is kept: any thread.
 */
#include "settings_internal.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define LIST_MAX 320

/* ---- which stanzas are for this machine ---- */

/* hostname is this machine's, long or short as it happens to be set; a stanza may use either form. */
static bool is_name_of_machine(const char *name, const char *hostname)
{
	size_t short_length = strcspn(hostname, ".");
	return strcasecmp(name, hostname) == 0 ||
	       (strlen(name) == short_length && strncasecmp(name, hostname, short_length) == 0);
}

bool settings_stanza_is_chosen(const struct ini_stanza *stanza, const struct settings_command *command,
                               const char *hostname)
{
	const struct ini_entry *machine = ini_stanza_entry(stanza, "hostname");

	for (size_t i = 0; i < command->node_count; i++)
		if (strcmp(command->nodes[i], stanza->name) == 0)
			return true;
	return command->node_count == 0 && (!machine || is_name_of_machine(machine->value, hostname));
}

/* Adds ", word" to a list in an error; when there is no more room, an ellipsis. */
static void add_word(char list[LIST_MAX], const char *word)
{
	char quoted[SETTINGS_QUOTE_MAX];
	size_t used = strlen(list), length = strlen(settings_quote(word, quoted));

	if (used + length + 8 < LIST_MAX)
		snprintf(list + used, LIST_MAX - used, "%s%s", used > 0 ? ", " : "", quoted);
	else if (used + 5 < LIST_MAX && strcmp(list + used - 3, "...") != 0)
		snprintf(list + used, LIST_MAX - used, " ...");
}

/* The names of the stanzas (key NULL), or what they say about a key. */
static void list_stanzas(const struct ini_file *file, const char *key, char list[LIST_MAX])
{
	list[0] = '\0';
	for (size_t i = 0; i < file->stanza_count; i++) {
		const struct ini_stanza *stanza = &file->stanzas[i];
		const struct ini_entry *entry = key ? ini_stanza_entry(stanza, key) : NULL;
		if (!stanza->is_globals && (!key || entry))
			add_word(list, key ? entry->value : stanza->name);
	}
}

bool settings_check_nodes(const struct ini_file *file, const struct settings_command *command, char *error)
{
	char list[LIST_MAX], quoted[SETTINGS_QUOTE_MAX];

	for (size_t i = 0; i < command->node_count; i++) {
		bool found = false;
		for (size_t j = 0; j < file->stanza_count; j++)
			found = found ||
			        (!file->stanzas[j].is_globals && strcmp(file->stanzas[j].name, command->nodes[i]) == 0);
		if (found)
			continue;
		list_stanzas(file, NULL, list);
		return settings_fail(error, "%s: %s has no stanza %s; allowed: %s", command->is_program ? "node" : "--node",
		                     settings_short_path(file->path), settings_quote(command->nodes[i], quoted),
		                     *list ? list : "none, for it has none at all");
	}
	return true;
}

bool settings_fail_no_service(const struct ini_file *file, const struct settings_command *command, const char *hostname,
                              char *error)
{
	char list[LIST_MAX], quoted[SETTINGS_QUOTE_MAX];
	const char *path = settings_short_path(file->path);

	list_stanzas(file, "hostname", list);
	if (*list == '\0')
		return settings_fail(error, "%s: has no stanza; allowed: one or more, as [name], and keys below it",
		                     path);
	return settings_fail(
		error,
		"%s: no stanza has hostname = %s, which is this machine; there are %s; %s chooses "
		"by the stanza's name",
		path, settings_quote(hostname, quoted), list, command->is_program ? "node = NAME" : "--node NAME");
}

/* ---- what several services must be together ---- */

/* Do two addresses take one port from each other? "::" is IPv6 alone: weir opens a socket for each family. */
static bool binds_overlap(const char *a, const char *b)
{
	struct in6_addr address_a, address_b;

	if (!a || !b || strcasecmp(a, b) == 0)
		return true;
	if (inet_pton(AF_INET, a, &address_a) == 1 && inet_pton(AF_INET, b, &address_b) == 1)
		return strcmp(a, "0.0.0.0") == 0 || strcmp(b, "0.0.0.0") == 0;
	if (inet_pton(AF_INET6, a, &address_a) == 1 && inet_pton(AF_INET6, b, &address_b) == 1)
		return IN6_IS_ADDR_UNSPECIFIED(&address_a) || IN6_IS_ADDR_UNSPECIFIED(&address_b) ||
		       IN6_ARE_ADDR_EQUAL(&address_a, &address_b);
	return false;
}

static bool is_unix(const char *bind)
{
	return bind && strncasecmp(bind, "unix:", 5) == 0;
}

static bool listen_together(const struct settings *a, const struct settings *b)
{
	if (is_unix(a->bind) || is_unix(b->bind))
		return is_unix(a->bind) && is_unix(b->bind) && strcmp(a->bind + 5, b->bind + 5) == 0;
	return a->port == b->port && a->port != 0 && binds_overlap(a->bind, b->bind);
}

/* The line that says where a service listens: that of its port or bind, else of its name. */
static unsigned listen_line(const struct settings *s)
{
	const struct settings_row *row = settings_row_find(is_unix(s->bind) ? "bind" : "port");
	const struct settings_origin *origin = settings_origin_of(row, s->origins);
	return origin->source == SOURCE_FILE ? origin->line : s->origins->line;
}

bool settings_check_ports(const struct configuration *c, char *error)
{
	for (size_t i = 0; i < c->service_count; i++) {
		for (size_t j = 0; j < i; j++) {
			const struct settings *late = c->services[i], *early = c->services[j];
			char quoted[SETTINGS_QUOTE_MAX], early_quoted[SETTINGS_QUOTE_MAX],
				where[SETTINGS_QUOTE_MAX + 16];
			if (!listen_together(late, early))
				continue;
			if (is_unix(late->bind))
				snprintf(where, sizeof where, "%s", settings_quote(late->bind, quoted));
			else
				snprintf(where, sizeof where, "port %u", late->port);
			return settings_fail(
				error,
				"%s:%u: %s listens on %s, and so does %s on line %u; allowed: another port or bind",
				settings_short_path(late->origins->file), listen_line(late),
				settings_quote(late->name, quoted), where, settings_quote(early->name, early_quoted),
				listen_line(early));
		}
	}
	return true;
}

/* ---- what does nothing here ---- */

void settings_list_modes(unsigned modes, char out[SETTINGS_MODES_MAX])
{
	const char *word = settings_row_find("mode")->choices;

	out[0] = '\0';
	for (unsigned mode = 0; *word != '\0'; mode++) {
		size_t length = strcspn(word, "|"), used = strlen(out);
		if (modes >> mode & 1)
			snprintf(out + used, SETTINGS_MODES_MAX - used, "%s%.*s", used > 0 ? ", " : "", (int)length, word);
		word += length + (word[length] == '|');
	}
}

static bool is_default(const struct settings_row *row, struct settings_origins *origins)
{
	const struct settings_origin *origin = settings_origin_of(row, origins);
	return origin->source == SOURCE_DEFAULT || (row->default_text != NULL && strcmp(origin->text, row->default_text) == 0);
}

static bool was_said_here(const struct settings_row *row, struct settings_origins *origins)
{
	const struct settings_origin *origin = settings_origin_of(row, origins);
	bool was_said = origin->source == SOURCE_FILE || origin->source == SOURCE_FLAG || origin->source == SOURCE_PROGRAM;
	return was_said && !is_default(row, origins);
}

bool settings_next_idle(const struct settings *settings, size_t *at, char out[SETTINGS_IDLE_MAX])
{
	unsigned mode = 1u << (unsigned)settings->mode;
	char place[SETTINGS_ORIGIN_MAX], here[SETTINGS_MODES_MAX], there[SETTINGS_MODES_MAX];

	for (; *at < settings_row_count; ++*at) {
		const struct settings_row *row = &settings_rows[*at];
		if (row->scope != SCOPE_SERVICE || !was_said_here(row, settings->origins))
			continue;
		bool is_elsewhere = row->only_in != 0 && (row->only_in & mode) == 0;
		bool is_alone = row->needs != NULL && is_default(settings_row_find(row->needs), settings->origins);
		settings_say_place(row, settings->origins, place);
		settings_list_modes(mode, here);
		settings_list_modes(row->only_in, there);
		if (is_elsewhere)
			snprintf(out, SETTINGS_IDLE_MAX, "%s: %s does nothing in mode %s, only in %s", place, row->name, here, there);
		else if (is_alone)
			snprintf(out, SETTINGS_IDLE_MAX, "%s: %s does nothing without %.*s", place, row->name,
			         SETTINGS_NAME_MAX, row->needs);
		if (!is_elsewhere && !is_alone)
			continue;
		++*at;
		return true;
	}
	return false;
}
