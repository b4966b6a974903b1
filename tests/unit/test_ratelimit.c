/* test_ratelimit.c: what a client is told about its limits, byte for byte; and, for random limits, that a strict reader
 * of structured fields finds in the lists what was put in.
 */
#include "../../lib/ratelimit.h"
#include "unit.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000)
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static void check_written(const struct ratelimit *limits, size_t count, bool draft, bool legacy, const char *expected)
{
	char out[RATELIMIT_MAX];
	size_t length = ratelimit_write(limits, count, draft, legacy, out);

	CU_ASSERT_STRING_EQUAL(out, expected);
	CU_ASSERT_EQUAL(length, strlen(expected));
}

static void the_fields_are_those_of_the_draft_or_of_old_or_both(void)
{
	struct ratelimit limit = { "threshold", 5, SECOND, 0, SECOND };

	check_written(&limit, 1, true, false,
	              "RateLimit-Policy: \"threshold\";q=5;w=1\r\nRateLimit: \"threshold\";r=0;t=1\r\n");
	check_written(&limit, 1, false, true, "RateLimit-Limit: 5\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 1\r\n");
	check_written(&limit, 1, true, true,
	              "RateLimit-Policy: \"threshold\";q=5;w=1\r\nRateLimit: \"threshold\";r=0;t=1\r\n"
	              "RateLimit-Limit: 5\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 1\r\n");
	check_written(&limit, 1, false, false, "");
	check_written(NULL, 0, true, true, "");
}

static void several_limits_are_a_list_and_the_tightest_one_is_the_legacy(void)
{
	struct ratelimit limits[] = { { "threshold", 100, SECOND, 7, SECOND },
		                      { "client", 10, 60 * SECOND, 3, 6 * SECOND },
		                      { "login", 5, 3600 * SECOND, 3, 720 * SECOND } };

	check_written(limits, 3, true, true,
	              "RateLimit-Policy: \"threshold\";q=100;w=1, \"client\";q=10;w=60, \"login\";q=5;w=3600\r\n"
	              "RateLimit: \"threshold\";r=7;t=1, \"client\";r=3;t=6, \"login\";r=3;t=720\r\n"
	              "RateLimit-Limit: 5\r\nRateLimit-Remaining: 3\r\nRateLimit-Reset: 720\r\n");
	check_written(limits, 2, false, true,
	              "RateLimit-Limit: 10\r\nRateLimit-Remaining: 3\r\nRateLimit-Reset: 6\r\n");
}

static void seconds_are_rounded_up_and_a_window_is_never_none(void)
{
	struct ratelimit limit = { "a", 1, 1, 1, 0 };

	check_written(&limit, 1, true, false, "RateLimit-Policy: \"a\";q=1;w=1\r\nRateLimit: \"a\";r=1;t=0\r\n");
	limit.window_us = 0;
	limit.reset_us = 1;
	check_written(&limit, 1, true, false, "RateLimit-Policy: \"a\";q=1;w=1\r\nRateLimit: \"a\";r=1;t=1\r\n");
	limit.window_us = 2 * SECOND;
	limit.reset_us = 2 * SECOND + 1;
	check_written(&limit, 1, true, true,
	              "RateLimit-Policy: \"a\";q=1;w=2\r\nRateLimit: \"a\";r=1;t=3\r\n"
	              "RateLimit-Limit: 1\r\nRateLimit-Remaining: 1\r\nRateLimit-Reset: 3\r\n");
	limit.quota = limit.remaining = UINT32_MAX;
	limit.window_us = limit.reset_us = UINT64_MAX;
	check_written(&limit, 1, true, false,
	              "RateLimit-Policy: \"a\";q=4294967295;w=18446744073710\r\n"
	              "RateLimit: \"a\";r=4294967295;t=18446744073710\r\n");
}

static void a_name_is_quoted_as_a_structured_field_wants_it(void)
{
	struct ratelimit limit = { "say \"a\\b\"\r\nX: y\x7f\xc3\xa4", 1, SECOND, 1, 0 };

	check_written(&limit, 1, true, false,
	              "RateLimit-Policy: \"say \\\"a\\\\b\\\"__X: y___\";q=1;w=1\r\n"
	              "RateLimit: \"say \\\"a\\\\b\\\"__X: y___\";r=1;t=0\r\n");
}

/* ---- a strict reader --------------------------------------------------------------------------------------------- */

static const char *expect(const char *at, const char *text)
{
	return at != NULL && strncmp(at, text, strlen(text)) == 0 ? at + strlen(text) : NULL;
}

static const char *read_string(const char *at, char *out)
{
	at = expect(at, "\"");
	while (at != NULL && *at != '"') {
		if (*at == '\\' && *++at != '"' && *at != '\\')
			return NULL;
		if (*at < ' ' || *at > '~')
			return NULL;
		*out++ = *at++;
	}
	*out = '\0';
	return expect(at, "\"");
}

static const char *read_integer(const char *at, unsigned long long *out)
{
	char *end;

	if (at == NULL || !isdigit((unsigned char)*at))
		return NULL;
	*out = strtoull(at, &end, 10);
	return end - at <= 15 ? end : NULL;
}

/* Reads one field line: its items must be the first of the limits, with these parameters. Returns the next line. */
static const char *read_list(const char *at, const char *name, const char *first, const char *second,
                             const struct ratelimit *limits, size_t *items)
{
	char text[RATELIMIT_MAX];
	unsigned long long a, b;

	at = expect(at, name);
	for (*items = 0; at != NULL; ++*items) {
		at = read_string(at, text);
		if (at == NULL || strcmp(text, limits[*items].name) != 0)
			return NULL;
		at = read_integer(expect(at, first), &a);
		at = read_integer(expect(at, second), &b);
		if (at == NULL || a != (first[1] == 'q' ? limits[*items].quota : limits[*items].remaining))
			return NULL;
		if (expect(at, "\r\n") != NULL) {
			++*items;
			return at + 2;
		}
		at = expect(at, ", ");
	}
	return NULL;
}

static void random_limits_are_read_back_and_what_does_not_fit_is_left_out_whole(void)
{
	enum { LIMITS = 32 };
	static char names[LIMITS][300];
	unsigned left_out = 0, nothing = 0;

	for (unsigned seed = 1; seed <= 3000; seed++) {
		struct ratelimit limits[LIMITS];
		unsigned state = seed;
		size_t count = 1 + (size_t)rand_r(&state) % LIMITS, policies = 0, items = 0;
		size_t longest = (size_t)1 << rand_r(&state) % 9;
		char out[RATELIMIT_MAX];

		for (size_t i = 0; i < count; i++) {
			size_t length = (size_t)rand_r(&state) % (longest + 1);

			for (size_t k = 0; k < length; k++)
				names[i][k] = (char)(' ' + rand_r(&state) % ('~' - ' ' + 1));
			names[i][length] = '\0';
			limits[i] = (struct ratelimit){ .name = names[i], .quota = (unsigned)rand_r(&state) };
			limits[i].window_us = (uint64_t)rand_r(&state) * 1000;
			limits[i].remaining = (unsigned)rand_r(&state);
			limits[i].reset_us = (uint64_t)rand_r(&state) << (seed % 40);
		}
		memset(out, 'x', sizeof(out));
		size_t written = ratelimit_write(limits, count, true, seed % 2 == 0, out);
		CU_ASSERT_TRUE_FATAL(written < RATELIMIT_MAX && strlen(out) == written);
		const char *at = out;
		if (strncmp(at, "RateLimit-Policy", 16) == 0) {
			at = read_list(at, "RateLimit-Policy: ", ";q=", ";w=", limits, &policies);
			at = read_list(at, "RateLimit: ", ";r=", ";t=", limits, &items);
		}
		CU_ASSERT_PTR_NOT_NULL_FATAL(at);
		CU_ASSERT_TRUE(policies == items && items <= count);
		CU_ASSERT_TRUE(seed % 2 != 0 || expect(at, "RateLimit-Limit: ") != NULL);
		CU_ASSERT_TRUE(seed % 2 == 0 || *at == '\0');
		left_out += items < count;
		nothing += items == 0;
	}
	CU_ASSERT_TRUE(left_out > 100 && left_out < 2900 && nothing < 100);
}

static void a_name_that_does_not_fit_leaves_the_legacy_fields(void)
{
	static char name[2000];
	struct ratelimit limit = { name, 5, SECOND, 0, SECOND };

	memset(name, 'n', sizeof(name) - 1);
	check_written(&limit, 1, true, true, "RateLimit-Limit: 5\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: 1\r\n");
	check_written(&limit, 1, true, false, "");
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(the_fields_are_those_of_the_draft_or_of_old_or_both),
		TEST(several_limits_are_a_list_and_the_tightest_one_is_the_legacy),
		TEST(seconds_are_rounded_up_and_a_window_is_never_none),
		TEST(a_name_is_quoted_as_a_structured_field_wants_it),
		TEST(random_limits_are_read_back_and_what_does_not_fit_is_left_out_whole),
		TEST(a_name_that_does_not_fit_leaves_the_legacy_fields),
	};

	return unit_main("ratelimit", tests, LENGTH(tests));
}
