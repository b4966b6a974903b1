/* settings_secrets.c: values that stand in files of their own, and files of users.
 *
 *      redis_password_file = /run/secrets/redis   ──► the file's only line ──► redis_password
 *      auth_file           = users                ──► is it one, from its first line to its last?
 *
 * A secret on a command line is seen by everybody who may type ps, one in the environment by whoever may read /proc, and one in
 * weir.ini by whoever gets a copy of it to help. In a file of its own it has its own owner and mode.
 *
 * Files are read for the services of this machine alone: those of other machines need not exist here. Only regular files: a pipe or
 * a terminal would keep --check waiting for ever. Any thread.
 */
#include "settings_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"

#define SECRET_MAX 4096u

/* One line, with or without its end. NULL, or what is wrong. */
static const char *read_only_line(const char *path, char line[SECRET_MAX + 1])
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return strerror(errno);
	const char *why = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? NULL : "not a regular file";
	ssize_t length;
	do
		length = why ? 0 : read(fd, line, SECRET_MAX + 1);
	while (length < 0 && errno == EINTR);
	close(fd);
	if (why)
		return why;
	if (length < 0 || length > (ssize_t)SECRET_MAX)
		return length < 0 ? "it cannot be read" : "more than 4096 bytes";
	size_t end = (size_t)length;
	if (end > 0 && line[end - 1] == '\n')
		end--;
	if (end > 0 && line[end - 1] == '\r')
		end--;
	for (size_t i = 0; i < end; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			return "a control character or a second line in it";
	line[end] = '\0';
	return end > 0 ? NULL : "nothing in it";
}

static bool fail_file(const struct settings_row *row, struct settings_origins *origins, const char *path, const char *reason,
                      char *error)
{
	char place[SETTINGS_ORIGIN_MAX], quoted[SETTINGS_QUOTE_MAX];
	bool from_file = settings_origin_of(row, origins)->source == SOURCE_FILE;

	settings_say_place(row, origins, place);
	return settings_fail(error, "%s: %s%s%s: %s; allowed: a file with %s as its only line", place, from_file ? row->name : "",
	                     from_file ? ": " : "", settings_quote(path, quoted), reason, row->holds);
}

/* The file's line becomes the value of the row that it holds, unless that was set by somebody who goes before. holder: the struct
   settings, or the struct settings_globals, that the rows are fields of. */
static bool read_secret(const struct settings_row *row, void *holder, struct settings_origins *origins, char *error)
{
	const struct settings_row *held = settings_row_find(row->holds);
	const char *path = *(char **)((char *)holder + row->offset);
	char **value = (char **)((char *)holder + held->offset);
	char line[SECRET_MAX + 1];

	enum settings_source its_source = settings_origin_of(row, origins)->source;
	enum settings_source held_source = settings_origin_of(held, origins)->source;
	if (!path || (*value && held_source > its_source))
		return true;
	if (*value && held_source == its_source)
		return fail_file(row, origins, path, "the value itself is set as well", error);
	const char *why = read_only_line(path, line);
	if (!why && held->check && !held->check(line))
		why = held->allowed;
	char *copy = why ? NULL : strdup(line);
	explicit_bzero(line, sizeof line);
	if (why)
		return fail_file(row, origins, path, why, error);
	if (!copy)
		return settings_fail_memory(error);
	free(*value);
	*value = copy;
	return true;
}

static bool check_users(const struct settings_row *row, struct settings *s, char *error)
{
	const char *path = *(char **)((char *)s + row->offset);
	char place[SETTINGS_ORIGIN_MAX], why[256];
	bool from_file = settings_origin_of(row, s->origins)->source == SOURCE_FILE;

	if (!path || auth_check_file(path, why, sizeof why))
		return true;
	settings_say_place(row, s->origins, place);
	return settings_fail(error, "%s: %s%s%s; allowed: a file of user:hash lines, as mkpasswd -m yescrypt makes the hash", place,
	                     from_file ? row->name : "", from_file ? ": " : "", why);
}

bool settings_read_secrets(struct settings *settings, char *error)
{
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		if (row->scope != SCOPE_SERVICE)
			continue;
		if (row->holds && !read_secret(row, settings, settings->origins, error))
			return false;
		if (row->holds_users && !check_users(row, settings, error))
			return false;
	}
	return true;
}

bool settings_read_global_secrets(struct settings_globals *globals, char *error)
{
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		if (row->scope == SCOPE_GLOBAL && row->holds && !read_secret(row, globals, globals->origins, error))
			return false;
	}
	return true;
}
