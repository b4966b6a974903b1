/* test_flags.c: the options of the demo programs. Each test gives flags_read() an argv and looks at the variables.
 *
 * The rule behind most of them: a variable changes only when its whole value was understood, and a refusal says what
 * was read and what would have been allowed.
 */
#include "lib/flags.h"

#include "unit.h"

#include <string.h>

static struct {
	bool on;
	uint64_t number, us;
	const char *text;
	unsigned choice;
	struct flag_list list;
	char error[FLAGS_ERROR_BYTES];
} got;

static enum flags_result read_these(char **argv)
{
	const struct flag table[] = {
		{ .name = "on", .kind = FLAG_SWITCH, .into.on = &got.on, .help = "" },
		{ .name = "number", .kind = FLAG_NUMBER, .into.number = &got.number, .lowest = 3, .highest = 80, .value = "N" },
		{ .name = "wide", .kind = FLAG_NUMBER, .into.number = &got.number, .highest = UINT64_MAX, .value = "N" },
		{ .name = "seconds", .kind = FLAG_SECONDS, .into.number = &got.us, .highest = 5000000, .value = "S" },
		{ .name = "text", .kind = FLAG_TEXT, .into.text = &got.text, .value = "T" },
		{ .name = "choice", .kind = FLAG_CHOICE, .into.choice = &got.choice, .choices = "yes|no|yesno" },
		{ .name = "list", .kind = FLAG_LIST, .into.list = &got.list, .value = "T" },
	};
	int argc = 0;
	while (argv[argc])
		argc++;
	memset(&got, 0, sizeof got);
	got.number = got.us = got.choice = 7;
	return flags_read(table, sizeof table / sizeof table[0], argc, argv, got.error);
}

#define READ(...) read_these((char *[]){ (char *)"program", __VA_ARGS__, NULL })
#define A(text) ((char *)(text))

static void nothing_given_changes_nothing(void)
{
	char *argv[] = { A("program"), NULL };
	CU_ASSERT_EQUAL(read_these(argv), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, 7);
	CU_ASSERT_PTR_NULL(got.text);
	CU_ASSERT_FALSE(got.on);
}

static void one_dash_two_dashes_and_an_equals_sign_are_the_same(void)
{
	CU_ASSERT_EQUAL(READ(A("-number"), A("80")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, 80);
	CU_ASSERT_EQUAL(READ(A("--number"), A("79")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, 79);
	CU_ASSERT_EQUAL(READ(A("-number=78")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, 78);
	CU_ASSERT_EQUAL(READ(A("--number=77"), A("-on"), A("--text"), A("a=b")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, 77);
	CU_ASSERT_TRUE(got.on);
	CU_ASSERT_STRING_EQUAL(got.text, "a=b");
}

static void a_number_is_digits_within_its_bounds_and_nothing_else(void)
{
	static const char *const bad[] = { "", "2", "81", "-3", "+3", " 3", "3 ", "3x", "0x3", "3.0",
		"99999999999999999999",
		"18446744073709551619" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT_EQUAL(READ(A("--number"), A(bad[i])), FLAGS_WRONG);
		CU_ASSERT_EQUAL(got.number, 7);
		CU_ASSERT_PTR_NOT_NULL(strstr(got.error, "--number"));
		CU_ASSERT_PTR_NOT_NULL(strstr(got.error, "from 3 to 80"));
	}
	CU_ASSERT_EQUAL(READ(A("--number"), A("003")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, 3);
	CU_ASSERT_EQUAL(READ(A("--wide"), A("18446744073709551615")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.number, UINT64_MAX);
	CU_ASSERT_EQUAL(READ(A("--wide"), A("18446744073709551616")), FLAGS_WRONG);
}

static void seconds_become_exact_microseconds(void)
{
	static const struct {
		const char *text;
		uint64_t us;
	} good[] = { { "0", 0 }, { "0.1", 100000 }, { ".5", 500000 }, { "1.000001", 1000001 }, { "5", 5000000 },
		{ "0.29", 290000 } };
	static const char *const bad[] = { "", ".", "1.", "5.000001", "0.0000001", "-1", "1e1", "1,5", "1.2.3", "0x1",
		"18446744073710" };
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		CU_ASSERT_EQUAL(READ(A("--seconds"), A(good[i].text)), FLAGS_READ);
		CU_ASSERT_EQUAL(got.us, good[i].us);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT_EQUAL(READ(A("--seconds"), A(bad[i])), FLAGS_WRONG);
		CU_ASSERT_EQUAL(got.us, 7);
	}
}

static void a_choice_is_one_whole_word(void)
{
	CU_ASSERT_EQUAL(READ(A("--choice"), A("yesno")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.choice, 2);
	CU_ASSERT_EQUAL(READ(A("--choice"), A("yes")), FLAGS_READ);
	CU_ASSERT_EQUAL(got.choice, 0);
	CU_ASSERT_EQUAL(READ(A("--choice"), A("ye")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("--choice"), A("yes|no")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("--choice"), A("")), FLAGS_WRONG);
}

static void a_list_grows_up_to_its_bound(void)
{
	char *argv[2 * (FLAG_LIST_MAX + 1) + 2] = { A("program") };
	for (size_t i = 0; i < FLAG_LIST_MAX + 1; i++) {
		argv[1 + 2 * i] = A("--list");
		argv[2 + 2 * i] = A("item");
	}
	CU_ASSERT_EQUAL(read_these(argv), FLAGS_WRONG);
	CU_ASSERT_EQUAL(got.list.count, FLAG_LIST_MAX);
	argv[1 + 2 * FLAG_LIST_MAX] = NULL;
	CU_ASSERT_EQUAL(read_these(argv), FLAGS_READ);
}

static void what_is_unknown_or_incomplete_is_refused(void)
{
	CU_ASSERT_EQUAL(READ(A("--numb"), A("3")), FLAGS_WRONG);
	CU_ASSERT_PTR_NOT_NULL(strstr(got.error, "--numb"));
	CU_ASSERT_PTR_NOT_NULL(strstr(got.error, "--seconds"));
	CU_ASSERT_EQUAL(READ(A("number"), A("3")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("--number")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("--on=yes")), FLAGS_WRONG);
	CU_ASSERT_FALSE(got.on);
	CU_ASSERT_EQUAL(READ(A("--")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("-")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("")), FLAGS_WRONG);
	CU_ASSERT_EQUAL(READ(A("---on")), FLAGS_WRONG);
}

static void a_long_value_cannot_overflow_the_error(void)
{
	static char huge[10000];
	memset(huge, 'a', sizeof huge - 1);
	CU_ASSERT_EQUAL(READ(A("--number"), huge), FLAGS_WRONG);
	CU_ASSERT_TRUE(strlen(got.error) < FLAGS_ERROR_BYTES);
	huge[0] = '-';
	CU_ASSERT_EQUAL(READ(huge), FLAGS_WRONG);
	CU_ASSERT_TRUE(strlen(got.error) < FLAGS_ERROR_BYTES);
}

static void help_and_version_end_the_reading(void)
{
	CU_ASSERT_EQUAL(READ(A("--help"), A("--nonsense")), FLAGS_HELP);
	CU_ASSERT_EQUAL(READ(A("-version"), A("--nonsense")), FLAGS_VERSION);
	CU_ASSERT_EQUAL(READ(A("--nonsense"), A("--help")), FLAGS_WRONG);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(nothing_given_changes_nothing),
		TEST(one_dash_two_dashes_and_an_equals_sign_are_the_same),
		TEST(a_number_is_digits_within_its_bounds_and_nothing_else),
		TEST(seconds_become_exact_microseconds),
		TEST(a_choice_is_one_whole_word),
		TEST(a_list_grows_up_to_its_bound),
		TEST(what_is_unknown_or_incomplete_is_refused),
		TEST(a_long_value_cannot_overflow_the_error),
		TEST(help_and_version_end_the_reading),
	};
	return unit_main("flags", tests, sizeof tests / sizeof tests[0]);
}
