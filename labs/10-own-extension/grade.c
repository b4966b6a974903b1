/* grade.c: lab 10's graded tests of own_edit() alone: what it makes of one head. */
#include "labs/10-own-extension/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "labs/grade.h"

#define HEAD "GET /a HTTP/1.1\r\nHost: b\r\nX-A: 1\r\nX-Another: 2\r\nx-a: 3\r\nContent-Length: 0\r\n\r\n"

/* A text as C would write it. */
static const char *shown(const char *text, size_t length)
{
	static char out[2][600];
	static unsigned turn;
	char *to = out[turn++ % 2];
	size_t at = 0;

	for (size_t i = 0; i < length && at < 590; i++)
		at += (size_t)sprintf(to + at,
		                      text[i] == '\r'             ? "\\r" :
		                      text[i] == '\n'             ? "\\n" :
		                      (unsigned char)text[i] < 32 ? "?" :
		                                                    "%c",
		                      text[i]);
	to[at] = '\0';
	return to;
}

static bool check_edit(const char *rules, const char *expected)
{
	char out[1024];
	size_t length = own_edit(rules, HEAD, sizeof HEAD - 1, out, sizeof out);

	return grade_check(length == strlen(expected) && memcmp(out, expected, length) == 0,
	                   "\"%s\" left \"%s\"\n%*sand \"%s\" is right", rules,
	                   shown(out, length < sizeof out ? length : 0), (int)strlen(rules) - 3, "",
	                   shown(expected, strlen(expected)));
}

static void check_refused(const char *rules, const char *what)
{
	char out[1024];
	size_t length = own_edit(rules, HEAD, sizeof HEAD - 1, out, sizeof out);

	grade_check(length == 0, "\"%s\" is %s, and is carried out", shown(rules, strlen(rules)), what);
}

static void without_rules_nothing_changes(void)
{
	check_edit("", HEAD);
	check_edit("  ", HEAD);
	check_edit("drop X-Not-There", HEAD);
}

static void drop_takes_all_fields_of_a_name(void)
{
	check_edit("drop X-Another", "GET /a HTTP/1.1\r\nHost: b\r\nX-A: 1\r\nx-a: 3\r\nContent-Length: 0\r\n\r\n");
	check_edit("drop x-a", "GET /a HTTP/1.1\r\nHost: b\r\nX-Another: 2\r\nContent-Length: 0\r\n\r\n");
	check_edit("drop x-a|drop X-ANOTHER", "GET /a HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n");
}

static void set_leaves_one_field_of_a_name(void)
{
	check_edit("set X-A: new",
	           "GET /a HTTP/1.1\r\nHost: b\r\nX-A: new\r\nX-Another: 2\r\nContent-Length: 0\r\n\r\n");
	check_edit("set X-Lab: 10", "GET /a HTTP/1.1\r\nHost: b\r\nX-A: 1\r\nX-Another: 2\r\nx-a: 3\r\nContent-Length: "
	                            "0\r\nX-Lab: 10\r\n\r\n");
	check_edit("set X-A:", "GET /a HTTP/1.1\r\nHost: b\r\nX-A: \r\nX-Another: 2\r\nContent-Length: 0\r\n\r\n");
}

static void add_leaves_what_is_there(void)
{
	check_edit("add X-A: 4", "GET /a HTTP/1.1\r\nHost: b\r\nX-A: 1\r\nX-Another: 2\r\nx-a: 3\r\nContent-Length: "
	                         "0\r\nX-A: 4\r\n\r\n");
}

static void rules_are_carried_out_from_left_to_right(void)
{
	check_edit("add X-B: 1 | add X-B: 2 | set X-B: a, b; c | drop X-A",
	           "GET /a HTTP/1.1\r\nHost: b\r\nX-Another: 2\r\nContent-Length: 0\r\nX-B: a, b; c\r\n\r\n");
	check_edit("set X-B: 1 | drop X-B | drop X-A | drop X-Another",
	           "GET /a HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n");
}

static void rules_about_the_framing_are_refused(void)
{
	check_refused("set Content-Length: 5", "about where the message ends");
	check_refused("drop content-length", "about where the message ends");
	check_refused("add Transfer-Encoding: chunked", "about where the message ends");
	check_refused("set X-A: 1 | set Connection: close", "about the connection");
	check_refused("drop HOST", "about where the message goes");
}

static void rules_that_are_none_are_refused(void)
{
	check_refused("set X-B: 1\r\nX-C: 2", "a rule with a line end in a value");
	check_refused("set X-B: 1\nX-C: 2", "a rule with a line end in a value");
	check_refused("set X-B", "a rule without a value");
	check_refused("set : 1", "a rule without a name");
	check_refused("drop X B", "a rule with a blank in the name");
	check_refused("add X-B : 1", "a rule with a blank in the name");
	check_refused("remove X-A", "no rule");
	check_refused("drop X-A | | drop X-A", "an empty rule");
}

static void nothing_is_written_behind_the_end(void)
{
	static const char rules[] = "set X-A: new|add X-B: 2";
	char out[256];
	size_t whole = own_edit(rules, HEAD, sizeof HEAD - 1, out, sizeof out);

	if (!grade_check(whole > 0, "\"%s\" is not carried out", rules))
		return;
	for (size_t capacity = 0; capacity <= whole + 1; capacity++) {
		memset(out, '#', sizeof out);
		size_t length = own_edit(rules, HEAD, sizeof HEAD - 1, out, capacity), behind = capacity;

		while (behind < sizeof out && out[behind] == '#')
			behind++;
		if (!grade_check(behind == sizeof out, "%zu bytes of room, and byte %zu was written", capacity,
		                 behind) ||
		    !grade_check(length == (capacity >= whole ? whole : 0),
		                 "%zu bytes of room, %zu are needed, and the answer is %zu", capacity, whole, length))
			return;
	}
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(1, without_rules_nothing_changes),
		GRADE(3, drop_takes_all_fields_of_a_name),
		GRADE(3, set_leaves_one_field_of_a_name),
		GRADE(2, add_leaves_what_is_there),
		GRADE(2, rules_are_carried_out_from_left_to_right),
		GRADE(3, rules_about_the_framing_are_refused),
		GRADE(3, rules_that_are_none_are_refused),
		GRADE(3, nothing_is_written_behind_the_end),
	};

	return grade_main("10-own-extension", tests, sizeof tests / sizeof *tests, argc, argv);
}
