/* unit.c: runs one room's tests with CUnit and says what came of it.
 *
 * CUnit registers, runs and records; its own "basic" printing is left out, because it prints a table of suites, tests
 * and asserts where `make test` needs one line that can be added up. Two handlers take its place: one as a test starts,
 * one as it ends with the list of its failed assertions.
 *
 * What the library cannot do is added here: a test that never ends is ended by an alarm, and a test that crashes is
 * named before the program dies. Without the name, a crash in a quiet run says no more than "Segmentation fault".
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <CUnit/CUnit.h>
#include <CUnit/TestDB.h>
#include <CUnit/TestRun.h>

#include "unit.h"

#define SECONDS_A_TEST 60u

/* CUnit's handlers and signal handlers take no argument of ours, so the state of the run is the program's. */
static struct {
	const char *running; /* NULL between tests */
	unsigned asserts_before;
	unsigned seconds;
	bool verbose, stops;
	unsigned passed;
	unsigned failed;
} run;

/* In a signal handler stdio may be half-way through a line of its own: only write(2) is safe. */
static void say(const char *text)
{
	size_t length = strlen(text);
	while (length > 0) {
		ssize_t written = write(STDERR_FILENO, text, length);
		if (written <= 0)
			return;
		text += written;
		length -= (size_t)written;
	}
}

static void name_the_test_and_die(int signal_number)
{
	say(signal_number == SIGALRM ? "\nTOO LONG: " : "\nCRASHED: ");
	say(run.running ? run.running : "(between tests)");
	say("\n");
	signal(signal_number, SIG_DFL); /* die of the same signal, so that the caller sees which it was */
	raise(signal_number);
}

/* A sanitizer has handlers of its own, with a stack trace: those stay. */
static void watch_for(int signal_number)
{
	struct sigaction before;
	if (sigaction(signal_number, NULL, &before) < 0 || before.sa_handler != SIG_DFL)
		return;
	struct sigaction ours = { .sa_handler = name_the_test_and_die, .sa_flags = (int)SA_RESETHAND | SA_NODEFER };
	sigemptyset(&ours.sa_mask);
	sigaction(signal_number, &ours, NULL);
}

static void test_starts(const CU_pTest test, const CU_pSuite suite)
{
	(void)suite;
	run.running = test->pName;
	run.asserts_before = CU_get_number_of_asserts();
	alarm(run.seconds);
}

static void test_ended(const CU_pTest test, const CU_pSuite suite, const CU_pFailureRecord failures)
{
	alarm(0);
	run.running = NULL;
	bool asserted = CU_get_number_of_asserts() > run.asserts_before;
	bool passed = failures == NULL && asserted;
	if (passed)
		run.passed++;
	else
		run.failed++;
	if (!passed || run.verbose)
		printf("%s %s: %s\n", passed ? "ok    " : "FAILED", suite->pName, test->pName);
	for (CU_pFailureRecord failure = failures; failure != NULL; failure = failure->pNext)
		printf("       %s:%u: %s\n", failure->strFileName, failure->uiLineNumber, failure->strCondition);
	if (!asserted)
		printf("       it asserted nothing, so it could not fail\n");
	fflush(stdout); /* a crash in the next test must not swallow what this one said */
	if (!passed && run.stops)
		_exit(1);
}

/* Is one of these words, with commas between them, in the name? */
static bool has_one_of(const char *name, const char *words)
{
	while (words != NULL && *words != '\0') {
		size_t length = strcspn(words, ",");
		for (const char *at = name; length > 0 && *at != '\0'; at++)
			if (strncmp(at, words, length) == 0)
				return true;
		words += length + (words[length] == ',');
	}
	return false;
}

static bool register_tests(const char *suite_name, const struct unit_test *tests, size_t count)
{
	const char *only = getenv("UNIT_ONLY"), *not = getenv("UNIT_NOT");
	CU_pSuite suite = CU_add_suite(suite_name, NULL, NULL);
	if (suite == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		if ((only != NULL && !has_one_of(tests[i].name, only)) || has_one_of(tests[i].name, not))
			continue;
		if (CU_add_test(suite, tests[i].name, tests[i].run) == NULL)
			return false;
		/* The same name twice is a test pasted and never renamed: CUnit adds it and says so only here. */
		if (CU_get_error() != CUE_SUCCESS) {
			fprintf(stderr, "%s: %s: %s\n", suite_name, tests[i].name, CU_get_error_msg());
			return false;
		}
	}
	return true;
}

int unit_main(const char *suite, const struct unit_test *tests, size_t count)
{
	const char *seconds = getenv("UNIT_SECONDS");
	run.seconds = seconds != NULL ? (unsigned)strtoul(seconds, NULL, 10) : SECONDS_A_TEST;
	run.verbose = getenv("UNIT_VERBOSE") != NULL;
	run.stops = getenv("UNIT_STOP") != NULL;
	watch_for(SIGALRM);
	watch_for(SIGSEGV);
	watch_for(SIGBUS);
	watch_for(SIGFPE);
	watch_for(SIGABRT);

	if (CU_initialize_registry() != CUE_SUCCESS || !register_tests(suite, tests, count)) {
		fprintf(stderr, "%s: cannot register the tests: %s\n", suite, CU_get_error_msg());
		return 1;
	}
	CU_set_test_start_handler(test_starts);
	CU_set_test_complete_handler(test_ended);
	CU_ErrorCode error = CU_run_all_tests();
	CU_cleanup_registry();
	if (error != CUE_SUCCESS) {
		fprintf(stderr, "%s: CUnit gave up: error %d\n", suite, (int)error);
		run.failed++;
	}
	printf("%u passed, %u failed\n", run.passed, run.failed);
	return run.failed == 0 && run.passed > 0 ? 0 : 1;
}
