/* test_settings_memory.c: settings are read while memory runs out, at every single allocation in turn.
 *
 * The sources of settings are compiled here once more, with malloc() and its like replaced by ones that fail on demand: the
 * first allocation fails, then, in a fresh run, the second, and so on until a run goes through. Each failure must end in an
 * error that says so, and in nothing left behind (that is what `make asan` sees). This finds the path that forgets to free
 * or to check; no load test ever runs out of memory at just that place.
 *
 * inih allocates nothing as Debian builds it (its line is on the stack), so it needs no such replacement.
 */
#include <CUnit/CUnit.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

static unsigned long left = -1ul; /* allocations that succeed before one fails */
static unsigned long failed;

static bool fails(void)
{
	if (left-- > 0)
		return false;
	left = -1ul;
	failed++;
	return true;
}

static void *scarce_malloc(size_t size)
{
	return fails() ? NULL : malloc(size);
}

static void *scarce_calloc(size_t count, size_t size)
{
	return fails() ? NULL : calloc(count, size);
}

static void *scarce_realloc(void *old, size_t size)
{
	return fails() ? NULL : realloc(old, size);
}

static char *scarce_strdup(const char *text)
{
	return fails() ? NULL : strdup(text);
}

static char *scarce_strndup(const char *text, size_t length)
{
	return fails() ? NULL : strndup(text, length);
}

static int scarce_asprintf(char **out, const char *format, ...)
{
	va_list arguments;
	if (fails())
		return -1;
	va_start(arguments, format);
	int length = vasprintf(out, format, arguments);
	va_end(arguments);
	return length;
}

#undef strdup
#undef strndup
#define malloc scarce_malloc
#define calloc scarce_calloc
#define realloc scarce_realloc
#define strdup scarce_strdup
#define strndup scarce_strndup
#define asprintf scarce_asprintf
#include "lib/settings.c"
#include "lib/settings_check.c"
#include "lib/settings_endpoints.c"
#include "lib/settings_file.c"
#include "lib/settings_flags.c"
#include "lib/settings_forward.c"
#include "lib/settings_networks.c"
#include "lib/settings_print.c"
#include "lib/settings_rules.c"
#include "lib/settings_secrets.c"
#include "lib/settings_table.c"
#include "lib/settings_values.c"

/* Reads again and again, with one allocation more each time. Returns how many runs failed before one succeeded. */
static unsigned run_out_of_memory_with(struct settings_input input, const char *text)
{
	char error[SETTINGS_ERROR_MAX];
	enum configuration_wish wish;
	input.hostname = "here";

	for (unsigned runs = 0; runs < 10000; runs++) {
		FILE *in = text ? fmemopen((char *)text, strlen(text), "r") : NULL;
		input.file = in;
		unsigned long failed_before = failed;
		error[0] = '\0';
		left = runs;
		struct configuration *c = configuration_assemble(&input, &wish, error);
		left = -1ul;
		bool ran_out = failed > failed_before;
		if (in)
			fclose(in);
		CU_ASSERT_EQUAL(c == NULL, ran_out);
		CU_ASSERT_EQUAL(strstr(error, "out of memory") != NULL, ran_out);
		configuration_free(c);
		if (!ran_out)
			return runs;
	}
	return 0;
}

static unsigned run_out_of_memory(int argc, char **argv, char **variables, const char *text)
{
	return run_out_of_memory_with((struct settings_input){ .argc = argc, .argv = argv, .environment = variables }, text);
}

static void a_programs_settings_are_read_whole_or_not_at_all_when_memory_runs_out(void)
{
	static const char *const settings[] = { "node = a", "node = b", "endpoint = x:1, y:2", "limit.a = rate=1 path=/a", NULL };
	struct settings_input input = { .is_program = true, .program_file = "weir.ini", .program_settings = settings };
	CU_ASSERT(run_out_of_memory_with(input, "[a]\nport = 1\n[b]\nport = 2\n") > 30);
}

static void a_file_is_read_whole_or_not_at_all_when_memory_runs_out(void)
{
	static char *argv[] = { "weir",        "-c",        "weir.ini",   "--node=a", "--node=b",
		                "--endpoint=x:1,y:2", "--log-level=debug", NULL };
	static char *variables[] = { "WEIR_HASH_KEY=header:a", "LOG_LEVEL=info", "WEIR_LOGFILE=/x", NULL };
	static const char text[] = "[globals]\nlogfile = /log\npidfile = p\n"
	                           "[a]\nendpoint = a:1*2, [::1]:80, unix:/s\nhash_key = header:b\nprobe_path = /p\n"
	                           "threshold = 5\nid = 2\npeers = a:1, [::1]:1, dns:d:1\nbacklog = 2\nssl = no\nport = 1\nbind = ::1\n"
	                           "host_limits = a=1, b:8=2\nhost_rates = a=1/m, b:8=2\nconnect_allow = *:443, a:1\nredis_addr = r\n"
	                           "redis_password = p\nallow = ::1, 10.0.0.0/8\nexempt = 10.0.0.1, header:a=b, header:c=d\n"
	                           "client_key = header:k\nlimit.r = rate=1 key=header:a method=POST path=/x host=h "
	                           "header.a=b header.c=d\nlimit.s = rate=1\n"
	                           "[b]\nendpoint = b:1\nport = 2\n[c]\nhostname = there\nendpoint = c:1\nid = 3\nunicast = 10.0.0.255:7\n"
	                           "[d]\n[e]\n[f]\n[g]\n[h]\n[i]\nlimit.a = rate=1\n"
	                           "limit.b = rate=2 key=header:a+path\n";
	CU_ASSERT(run_out_of_memory(7, argv, variables, text) > 100);
}

static void a_command_line_is_read_whole_or_not_at_all_when_memory_runs_out(void)
{
	static char *argv[] = { "weir",     "reverse",          "--endpoint", "a:1,b:2", "--hash-key", "header:a",
		                "--limit.a", "rate=1 path=/a", NULL };
	static char *variables[] = { "WEIR_ENDPOINT=c:1", "WEIR_DENY=::1", NULL };
	CU_ASSERT(run_out_of_memory(8, argv, variables, NULL) > 30);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_file_is_read_whole_or_not_at_all_when_memory_runs_out),
		TEST(a_command_line_is_read_whole_or_not_at_all_when_memory_runs_out),
		TEST(a_programs_settings_are_read_whole_or_not_at_all_when_memory_runs_out),
	};
	return unit_main("settings_memory", tests, sizeof tests / sizeof tests[0]);
}
