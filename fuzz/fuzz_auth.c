/* fuzz_auth.c: a file of users from random bytes, and a field with credentials.
 *
 *      input ──► a file in memory ──► auth_create()     ──► good, or "FILE:LINE: what is wrong" in one line
 *                                 └─► auth_check_file() ──► the same verdict, in the same words
 *            └─► auth_basic(): what is good is written again as base64, and is then what came
 *
 * No password is checked against a hash: the hashes of a random file could ask for hours of computing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "lib/auth.h"

#define ERROR_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what, const char *error)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s: \"%s\"\n", what, error);
	abort();
}

static void read_users(const uint8_t *data, size_t size)
{
	char path[64], error[ERROR_MAX] = "", checked[ERROR_MAX] = "";
	int fd = memfd_create("users", 0);
	must(fd >= 0 && write(fd, data, size) == (ssize_t)size, "there is a file", "");
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	struct auth *auth = auth_create(path, error, sizeof error);
	bool is_good = auth_check_file(path, checked, sizeof checked);
	must((auth != NULL) == is_good, "a file is good or not", error);
	must(is_good || strcmp(error, checked) == 0, "what is wrong with a file is one thing", error);
	must(is_good || strncmp(error, path, strlen(path)) == 0, "an error names its file", error);
	for (const char *c = error; !is_good && *c != '\0'; c++)
		must((unsigned char)*c >= 0x20 && *c != 0x7f, "an error is one line of plain text", error);
	auth_release(auth);
	close(fd);
}

/* What was read says the same when it is written anew. */
static void read_credentials(const char *text, size_t length)
{
	char *out = malloc(length + 1), *again = malloc(2 * length + 8);
	size_t user_length = 0;
	must(out != NULL && again != NULL, "there is memory", "");
	if (auth_basic(text, length, out, length + 1, &user_length)) {
		size_t plain = strlen(out);
		must(user_length < plain && memchr(out, ':', plain) == out + user_length, "a user ends at the first colon", out);
		int coded = EVP_EncodeBlock((unsigned char *)again, (const unsigned char *)out, (int)plain);
		must((size_t)coded < length && memcmp(text + length - (size_t)coded, again, (size_t)coded) == 0,
		     "credentials have one spelling", out);
	}
	free(out);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_users(data, size);
	char *exact = malloc(size > 0 ? size : 1);
	must(exact != NULL, "there is memory", "");
	if (size > 0)
		memcpy(exact, data, size);
	while (size > 0 && (exact[size - 1] == ' ' || exact[size - 1] == '\t')) /* a field has none at its ends */
		size--;
	read_credentials(exact, size);
	free(exact);
	return 0;
}
