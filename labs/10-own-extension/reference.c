/* reference.c: lab 10's graded part: heads edited by rules.
 *
 *      rules "drop Cookie | set X-Lab: 10"
 *                │              │
 *      head ──► one ──► two ──► one ──► out       each rule reads one text and writes the other
 *
 * The invariant: what is in either text is a whole, well-formed head. A rule that could make it another message (a
 * length, a line end in a value) is refused before anything is written, and then nothing goes out at all: weir
 * answers with an error, and logs that the head was not to be written. A half-edited head would be worse.
 */
#include "labs/10-own-extension/own.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One rule, as pieces of the text. */
struct rule {
	char verb; /* d, s or a */
	const char *name, *value;
	size_t name_length, value_length;
};

/* Text that is being written; is_full: it did not fit. */
struct pen {
	char *out;
	size_t length, capacity;
	bool is_full;
};

static void write_bytes(struct pen *w, const char *bytes, size_t length)
{
	if (length > w->capacity - w->length) {
		w->is_full = true;
		return;
	}
	memcpy(w->out + w->length, bytes, length);
	w->length += length;
}

static bool is_token(const char *text, size_t length)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < length; i++)
		if (!((text[i] >= '0' && text[i] <= '9') || ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z') ||
		      (text[i] != '\0' && strchr(others, text[i]))))
			return false;
	return length > 0;
}

static bool is_name(const struct rule *rule, const char *name, size_t length)
{
	return rule->name_length == length && strncasecmp(rule->name, name, length) == 0;
}

static bool is_allowed(const struct rule *rule)
{
	static const char *const kept[] = { "content-length", "transfer-encoding", "connection", "upgrade", "host" };

	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		if (rule->name_length == strlen(kept[i]) && strncasecmp(rule->name, kept[i], rule->name_length) == 0)
			return false;
	for (size_t i = 0; i < rule->value_length; i++)
		if (((unsigned char)rule->value[i] < 32 && rule->value[i] != '\t') || rule->value[i] == 127)
			return false;
	return is_token(rule->name, rule->name_length);
}

static void trim(const char **text, size_t *length)
{
	while (*length > 0 && (**text == ' ' || **text == '\t')) {
		++*text;
		--*length;
	}
	while (*length > 0 && ((*text)[*length - 1] == ' ' || (*text)[*length - 1] == '\t'))
		--*length;
}

/* Reads a rule of that length. */
static bool read_rule(const char *text, size_t length, struct rule *rule)
{
	static const char *const verbs[] = { "drop ", "set ", "add " };

	*rule = (struct rule){ .verb = '\0', .value = "" };
	trim(&text, &length);
	for (size_t i = 0; i < 3; i++)
		if (length > strlen(verbs[i]) && strncmp(text, verbs[i], strlen(verbs[i])) == 0)
			rule->verb = verbs[i][0];
	if (rule->verb == '\0')
		return false;
	const char *name = memchr(text, ' ', length);
	length -= (size_t)(name + 1 - text);
	rule->name = name + 1;
	rule->name_length = length;
	if (rule->verb != 'd') {
		const char *colon = memchr(rule->name, ':', length);
		if (colon == NULL)
			return false;
		rule->name_length = (size_t)(colon - rule->name);
		rule->value = colon + 1;
		rule->value_length = length - rule->name_length - 1;
		trim(&rule->value, &rule->value_length);
	}
	return is_allowed(rule);
}

static void write_field(struct pen *w, const struct rule *rule)
{
	write_bytes(w, rule->name, rule->name_length);
	write_bytes(w, ": ", 2);
	write_bytes(w, rule->value, rule->value_length);
	write_bytes(w, "\r\n", 2);
}

/* The head with one rule carried out. */
static void carry_out(const struct rule *rule, const char *head, size_t length, struct pen *w)
{
	const char *end = head + length - 2, *line = (const char *)memchr(head, '\n', length) + 1;
	bool is_written = rule->verb == 'd';

	write_bytes(w, head, (size_t)(line - head));
	while (line < end) {
		const char *next = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1,
			   *colon = memchr(line, ':', (size_t)(next - line));

		if (rule->verb == 'a' || colon == NULL || !is_name(rule, line, (size_t)(colon - line))) {
			write_bytes(w, line, (size_t)(next - line));
		} else if (!is_written) {
			write_field(w, rule);
			is_written = true;
		}
		line = next;
	}
	if (!is_written)
		write_field(w, rule);
	write_bytes(w, "\r\n", 2);
}

static bool edit_all(const char *rules, struct pen *from, struct pen *to)
{
	while (rules[strspn(rules, " \t")] != '\0') {
		struct rule rule;
		size_t length = strcspn(rules, "|");
		struct pen swap = *from;

		if (!read_rule(rules, length, &rule))
			return false;
		to->length = 0;
		carry_out(&rule, from->out, from->length, to);
		if (to->is_full)
			return false;
		*from = *to;
		*to = swap;
		rules += length + (rules[length] == '|');
	}
	return true;
}

size_t own_edit(const char *rules, const char *head, size_t length, char *out, size_t capacity)
{
	size_t room = length + 5 * strlen(rules); /* a rule adds no more than its own length, and ": \r\n" */
	char *one = malloc(room), *two = malloc(room);
	struct pen from = { one, 0, room, false }, to = { two, 0, room, false };
	struct pen last = { out, 0, capacity, false };

	if (one != NULL && two != NULL) {
		write_bytes(&from, head, length);
		if (edit_all(rules, &from, &to))
			write_bytes(&last, from.out, from.length);
	}
	free(one);
	free(two);
	return last.is_full ? 0 : last.length;
}

#include "labs/10-own-extension/given.h"
