/* fuzz_ini.c: any bytes at all as an INI file.
 *
 *      bytes ──► ini_file_read() ──► error? it must name a line
 *                     │
 *                     ▼
 *        configuration_assemble() ──► error? it must name the file
 *                     │
 *                     ▼
 *        configuration_print() ──► read again ──► printed again: the same text, byte for byte
 *
 * The last step is the property that a crash hunt alone would miss: what --check prints is a file that means the same. No
 * input may leave memory behind (libFuzzer's leak check), and no error may have more than one line.
 *
 * The file is given as a stream over the input; hostname, command line and environment are fixed, so a run depends on
 * nothing but its bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/settings_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what, const char *error)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_ini: %s: \"%s\"\n", what, error);
	abort();
}

static bool names_a_line(const char *error)
{
	const char *rest = error + strlen("fuzz.ini:");
	return strncmp(error, "fuzz.ini:", strlen("fuzz.ini:")) == 0 && *rest >= '1' && *rest <= '9' &&
	       strncmp(rest + strspn(rest, "0123456789"), ": ", 2) == 0;
}

static FILE *stream_of(const char *text, size_t size)
{
	FILE *in = fmemopen((char *)text, size, "r");
	if (!in)
		abort();
	return in;
}

static bool read_alone(const char *text, size_t size)
{
	char error[SETTINGS_ERROR_MAX] = "";
	struct ini_file file;
	FILE *in = stream_of(text, size);
	bool is_good = ini_file_read(in, "fuzz.ini", &file, error);

	fclose(in);
	require(is_good || names_a_line(error), "an error without a line", error);
	require(!strchr(error, '\n'), "an error of two lines", error);
	require(!is_good || error[0] == '\0', "an error that was none", error);
	ini_file_free(&file);
	return is_good;
}

/* What --check would print, or NULL when there is an error. */
static char *print(const char *text, size_t size, size_t *printed_size, char error[SETTINGS_ERROR_MAX])
{
	static char *argv[] = { "weir", "-c", "fuzz.ini", NULL };
	static char *environment[] = { NULL };
	enum configuration_wish wish;
	char *printed = NULL;
	FILE *in = stream_of(text, size);
	struct settings_input input = {
		.argc = 3, .argv = argv, .environment = environment, .hostname = "here.example.org", .file = in
	};

	error[0] = '\0';
	struct configuration *c = configuration_assemble(&input, &wish, error);
	fclose(in);
	require((c == NULL) == (error[0] != '\0'), "neither good nor an error", error);
	if (!c)
		return NULL;
	FILE *out = open_memstream(&printed, printed_size);
	if (!out)
		abort();
	configuration_print(c, out);
	fclose(out);
	configuration_free(c);
	return printed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[SETTINGS_ERROR_MAX];
	size_t once_size, twice_size, thrice_size;

	if (size == 0 || !read_alone((const char *)data, size))
		return 0;
	char *once = print((const char *)data, size, &once_size, error);
	if (!once) {
		require(strncmp(error, "fuzz.ini:", strlen("fuzz.ini:")) == 0, "an error without the file", error);
		require(!strchr(error, '\n'), "an error of two lines", error);
		return 0;
	}
	/* The first print has other origins than the second, the second and the third have the same. */
	char *twice = print(once, once_size, &twice_size, error);
	require(twice != NULL, "what --check prints cannot be read", error);
	char *thrice = print(twice, twice_size, &thrice_size, error);
	require(thrice != NULL && strcmp(twice, thrice) == 0, "what --check prints reads back differently", error);
	free(once);
	free(twice);
	free(thrice);
	return 0;
}
