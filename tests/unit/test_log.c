/* Tests of lib/log.c: whole lines, in two formats, that nobody can forge and that wait for nobody. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "unit.h"

static char folder[64], path[96], other_path[96], error[600];
static char text[256 * 1024];

static void make_folder(void)
{
	strcpy(folder, "/tmp/weir-test-log-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/log", folder);
	snprintf(other_path, sizeof other_path, "%s/other", folder);
}

static void remove_folder(void)
{
	unlink(path);
	unlink(other_path);
	rmdir(folder);
}

static struct log *open_log(const struct log_options *options)
{
	struct log *log = log_create(options, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(log);
	return log;
}

static const char *content_of(const char *file_path)
{
	FILE *file = fopen(file_path, "r");
	size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
	if (file != NULL)
		fclose(file);
	text[length] = '\0';
	return text;
}

static bool says(const char *file_path, const char *what)
{
	return strstr(content_of(file_path), what) != NULL;
}

static const struct log_access access_of_a_get = {
	.service = "main", .client = "192.0.2.7", .method = { "GET", 3 }, .uri = { "/a\"b\n\xff", 6 },
	.minor_version = 1, .status = 200, .bytes_out = 5, .user_agent = { "curl\\", 5 }, .target = "192.0.2.1:80", .tries = 2,
	.wait_us = 1500000, .upstream_us = 20, .total_us = 1500020, .outcome = "ok",
};

static void a_line_has_a_time_a_level_a_service_and_an_end(void)
{
	make_folder();
	struct log *log = open_log(&(struct log_options){ .path = path, .level = LOG_LEVEL_INFO });
	log_write(log, LOG_LEVEL_WARN, "main", "target %s leaves", "192.0.2.1:80");
	log_write(log, LOG_LEVEL_DEBUG, "main", "not this one");
	content_of(path);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "Z warn  main: target 192.0.2.1:80 leaves\n"));
	CU_ASSERT_PTR_NULL(strstr(text, "not this one"));
	CU_ASSERT_FALSE(log_shows(log, LOG_LEVEL_DEBUG));
	log_destroy(log);
	remove_folder();
}

static void nobody_can_begin_a_line_of_his_own(void)
{
	make_folder();
	struct log *log = open_log(&(struct log_options){ .path = path, .level = LOG_LEVEL_INFO });
	log_write(log, LOG_LEVEL_INFO, NULL, "%s", "one\n2026 error forged\x1b[2J");
	content_of(path);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "one\\x0a2026 error forged\\x1b[2J\n"));
	CU_ASSERT_PTR_EQUAL(strchr(text, '\n'), text + strlen(text) - 1);
	log_destroy(log);
	remove_folder();
}

static void an_access_line_is_the_combined_format_and_more(void)
{
	make_folder();
	struct log *log = open_log(&(struct log_options){ .path = other_path, .access_path = path });
	log_access(log, &access_of_a_get);
	content_of(path);
	CU_ASSERT_EQUAL(strncmp(text, "192.0.2.7 - - [", 15), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "] \"GET /a\\\"b\\x0a\\xff HTTP/1.1\" 200 5 \"-\" \"curl\\\\\" "
	                                    "service=main target=192.0.2.1:80 tries=2 wait=1.500000 upstream=0.000020 "
	                                    "total=1.500020 bytes_in=0 outcome=\"ok\"\n"));
	log_destroy(log);
	remove_folder();
}

static void a_json_line_is_one_object_in_ascii(void)
{
	make_folder();
	struct log *log = open_log(&(struct log_options){ .path = other_path, .access_path = path, .json = true });
	log_access(log, &access_of_a_get);
	content_of(path);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"uri\":\"/a\\\"b\\u000a\\u00ff\""));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"status\":200,"));
	CU_ASSERT_EQUAL(strcmp(text + strlen(text) - 16, "\"outcome\":\"ok\"}\n"), 0);
	for (const char *at = text; *at != '\0'; at++)
		if ((unsigned char)*at >= 0x7f)
			CU_FAIL("a byte that is not ASCII");
	log_destroy(log);
	remove_folder();
}

static void an_access_line_says_what_the_shadow_did(void)
{
	struct log_access access = access_of_a_get;
	access.shadow = "503";
	make_folder();
	for (int json = 0; json < 2; json++) {
		struct log *log = open_log(&(struct log_options){ .path = other_path, .access_path = path, .json = json == 1 });
		log_access(log, &access);
		log_access(log, &access_of_a_get);
		content_of(path);
		const char *told = json == 1 ? ",\"shadow\":\"503\",\"outcome\":" : " shadow=503 outcome=";
		const char *first = strstr(text, told);
		CU_ASSERT_PTR_NOT_NULL_FATAL(first);
		CU_ASSERT_PTR_NULL(strstr(first + strlen(told), "shadow")); /* a request without one says nothing of it */
		log_destroy(log);
		unlink(path);
	}
	remove_folder();
}

/* Room for it all would have to be found on each thread's stack. */
static void a_message_is_cut_at_two_kibibytes(void)
{
	static char message[3000], wanted[2100];
	memset(message, 'm', sizeof message - 1);
	make_folder();
	for (int json = 0; json < 2; json++) {
		struct log *log = open_log(&(struct log_options){ .path = path, .level = LOG_LEVEL_INFO, .json = json == 1 });
		log_write(log, LOG_LEVEL_INFO, NULL, "<%s", message);
		snprintf(wanted, sizeof wanted, "<%.2047s%s\n", message, json == 1 ? "\"}" : "");
		CU_ASSERT_TRUE(says(path, wanted));
		log_trace(log, "main", 1, 0, ">%s", message);
		wanted[0] = '>';
		CU_ASSERT_TRUE(says(path, wanted));
		log_destroy(log);
		unlink(path);
	}
	remove_folder();
}

static void a_trace_says_which_request_and_when(void)
{
	make_folder();
	for (int json = 0; json < 2; json++) {
		struct log *log = open_log(&(struct log_options){ .path = path, .traces = true, .json = json == 1 });
		CU_ASSERT_TRUE(log_wants_traces(log));
		log_trace(log, "main", 7, 1500020, "asks \"%s\"", "a\n");
		content_of(path);
		if (json == 1) {
			CU_ASSERT_EQUAL(strncmp(text, "{\"time\":\"2", 10), 0);
			CU_ASSERT_PTR_NOT_NULL(strstr(text, "Z\",\"level\":\"trace\",\"service\":\"main\","
			                                    "\"request\":7,\"after_us\":1500020,"
			                                    "\"message\":\"asks \\\"a\\u000a\\\"\"}\n"));
		} else {
			CU_ASSERT_STRING_EQUAL(text, "trace main #7 +1.500020 asks \"a\\x0a\"\n");
		}
		log_destroy(log);
		unlink(path);
	}
	remove_folder();
}

static void reopening_follows_the_name(void)
{
	make_folder();
	struct log *log = open_log(&(struct log_options){ .path = path, .level = LOG_LEVEL_INFO });
	log_write(log, LOG_LEVEL_INFO, NULL, "before");
	CU_ASSERT_EQUAL(rename(path, other_path), 0);
	log_write(log, LOG_LEVEL_INFO, NULL, "between");
	log_reopen(log);
	log_write(log, LOG_LEVEL_INFO, NULL, "after");
	CU_ASSERT_TRUE(says(other_path, "before") && says(other_path, "between") && !says(other_path, "after"));
	CU_ASSERT_TRUE(says(path, "after") && !says(path, "between"));
	log_destroy(log);
	remove_folder();
}

static void what_cannot_be_opened_keeps_its_old_file(void)
{
	make_folder();
	CU_ASSERT_PTR_NULL(log_create(&(struct log_options){ .path = "/nonexistent/log" }, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "/nonexistent/log"));
	struct log *log = open_log(&(struct log_options){ .path = path, .level = LOG_LEVEL_INFO });
	CU_ASSERT_FALSE(log_configure(log, &(struct log_options){ .path = "/nonexistent/log" }, error, sizeof error));
	log_write(log, LOG_LEVEL_INFO, NULL, "still here");
	CU_ASSERT_TRUE(says(path, "still here"));
	log_destroy(log);
	remove_folder();
}

static void a_pipe_that_nobody_opened_is_an_error(void)
{
	make_folder();
	CU_ASSERT_EQUAL_FATAL(mkfifo(path, 0600), 0);
	CU_ASSERT_PTR_NULL(log_create(&(struct log_options){ .path = path }, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, path));
	remove_folder();
}

static size_t drain(int fd)
{
	size_t length = 0;
	ssize_t count;
	while ((count = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += (size_t)count;
	text[length] = '\0';
	return length;
}

/* Lines longer than a page of the pipe, in both formats: there is room for something, and not for the line. */
static void lines_that_a_full_pipe_has_no_room_for_are_counted(void)
{
	static char agent[512];
	memset(agent, '\xff', sizeof agent);
	for (int json = 0; json < 2; json++) {
		struct log_access access = access_of_a_get;
		access.user_agent = access.referer = (struct http_text){ agent, sizeof agent };
		make_folder();
		CU_ASSERT_EQUAL_FATAL(mkfifo(path, 0600), 0);
		int reader = open(path, O_RDONLY | O_NONBLOCK);
		struct log_options options = { .path = other_path, .access_path = path, .json = json == 1 };
		struct log *log = open_log(&options);
		for (int i = 0; i < 100; i++) {
			access.referer.length = (size_t)(i * 37 % 512);
			log_access(log, &access); /* unit.c ends a test that hangs here */
		}
		drain(reader);
		log_access(log, &access_of_a_get);
		drain(reader);
		const char *told = " lines were lost: nobody was reading";
		CU_ASSERT_PTR_NOT_NULL(strstr(text, told));
		CU_ASSERT_PTR_NOT_NULL(strstr(text, json ? "reading\"}\n" : "reading\n"));
		CU_ASSERT_PTR_NOT_NULL(strstr(text, json ? "\"outcome\":\"ok\"}\n" : "outcome=\"ok\"\n"));
		log_destroy(log);
		close(reader);
		remove_folder();
	}
}

/* A log that writes to the standard error stream, which is this while it is made. */
static struct log *open_log_on_stderr(int as_stderr)
{
	int own = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	CU_ASSERT_FATAL(own >= 0);
	dup2(as_stderr, STDERR_FILENO);
	struct log *log = log_create(&(struct log_options){ .level = LOG_LEVEL_INFO }, error, sizeof error);
	dup2(own, STDERR_FILENO);
	close(own);
	CU_ASSERT_PTR_NOT_NULL_FATAL(log);
	return log;
}

/* systemd gives a service a socket as its standard error stream. */
static void lines_to_a_socket_wait_for_nobody(void)
{
	int ends[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	CU_ASSERT_EQUAL_FATAL(fcntl(ends[0], F_SETFL, 0), 0);
	struct log *log = open_log_on_stderr(ends[0]);
	log_write(log, LOG_LEVEL_INFO, NULL, "one");
	drain(ends[1]);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "Z info  one\n"));
	for (int i = 0; i < 5000; i++)
		log_write(log, LOG_LEVEL_INFO, NULL, "unit.c ends a test that hangs here: nobody reads");
	drain(ends[1]);
	log_write(log, LOG_LEVEL_INFO, NULL, "last");
	drain(ends[1]);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, " lines were lost: nobody was reading\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "Z info  last\n"));
	close(ends[1]);
	log_write(log, LOG_LEVEL_INFO, NULL, "a SIGPIPE would end the program here");
	log_destroy(log);
	close(ends[0]);
}

/* Nobody wants to hear it. And no file or connection may get that stream's number: what is said there would go into it. */
static void a_log_without_a_standard_stream_writes_nowhere(void)
{
	int own = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	CU_ASSERT_FATAL(own >= 0);
	make_folder();
	close(STDERR_FILENO);
	struct log *log = log_create(&(struct log_options){ .level = LOG_LEVEL_INFO }, error, sizeof error);
	int other = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_PTR_NOT_NULL(log);
	CU_ASSERT_TRUE(other > STDERR_FILENO);
	if (log != NULL)
		log_write(log, LOG_LEVEL_ERROR, NULL, "into nothing");
	fputs("into nothing", stderr);
	CU_ASSERT_STRING_EQUAL(content_of(path), "");
	log_destroy(log);
	if (other > STDERR_FILENO)
		close(other);
	dup2(own, STDERR_FILENO);
	close(own);
	remove_folder();
}

/* Who has started weir is gone by then. */
static void a_log_that_leaves_the_terminal_writes_there_no_more(void)
{
	int ends[2];
	make_folder();
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	struct log *log = open_log_on_stderr(ends[0]);
	log_write(log, LOG_LEVEL_INFO, NULL, "before");
	CU_ASSERT_TRUE(log_leave_terminal(log));
	log_write(log, LOG_LEVEL_INFO, NULL, "behind");
	drain(ends[1]);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "before"));
	CU_ASSERT_PTR_NULL(strstr(text, "behind"));
	/* To write nowhere is no loss. */
	CU_ASSERT_TRUE(log_configure(log, &(struct log_options){ .path = path, .level = LOG_LEVEL_INFO }, error, sizeof error));
	log_write(log, LOG_LEVEL_INFO, NULL, "in a file");
	CU_ASSERT_TRUE(says(path, "in a file") && !says(path, "lost"));
	CU_ASSERT_FALSE(log_leave_terminal(log));
	log_write(log, LOG_LEVEL_INFO, NULL, "still there");
	CU_ASSERT_TRUE(says(path, "still there"));
	log_destroy(log);
	close(ends[0]);
	close(ends[1]);
	remove_folder();
}

static void take_line(void *context, enum log_level level, const char *service, const char *line)
{
	(void)level;
	(void)service;
	snprintf(context, 64, "%s", line);
}

/* A program that has weir in it takes the lines: its own standard stream is none of weir's business. */
static void a_file_that_is_no_longer_named_is_left_to_who_takes_the_lines(void)
{
	char taken[64] = "";
	make_folder();
	struct log_options options = { .path = path, .level = LOG_LEVEL_INFO, .take = take_line, .take_context = taken };
	struct log *log = open_log(&options);
	log_write(log, LOG_LEVEL_INFO, NULL, "one");
	CU_ASSERT_TRUE(says(path, "one"));
	options.path = NULL;
	CU_ASSERT_TRUE(log_configure(log, &options, error, sizeof error));
	log_write(log, LOG_LEVEL_INFO, NULL, "two");
	CU_ASSERT_STRING_EQUAL(taken, "two");
	CU_ASSERT_FALSE(says(path, "two"));
	options.path = path;
	CU_ASSERT_TRUE(log_configure(log, &options, error, sizeof error));
	log_write(log, LOG_LEVEL_INFO, NULL, "three");
	CU_ASSERT_STRING_EQUAL(taken, "three");
	CU_ASSERT_TRUE(says(path, "three"));
	log_destroy(log);
	remove_folder();
}

static void the_last_lines_are_kept_whatever_level_is_written(void)
{
	struct log_options options = { .path = "/dev/null", .level = LOG_LEVEL_ERROR };
	struct log *log = log_create(&options, error, sizeof error);
	struct log_event *events = calloc(LOG_EVENTS_MAX, sizeof *events);
	CU_ASSERT_PTR_NOT_NULL_FATAL(log);
	CU_ASSERT_PTR_NOT_NULL_FATAL(events);
	log_write(log, LOG_LEVEL_DEBUG, "main", "too small to keep");
	CU_ASSERT_EQUAL(log_events(log, events, LOG_EVENTS_MAX), 0);
	for (int i = 1; i <= LOG_EVENTS_MAX + 3; i++)
		log_write(log, LOG_LEVEL_INFO, i % 2 == 0 ? "main" : NULL, "line %d\n\xff", i);
	CU_ASSERT_EQUAL(log_events(log, events, LOG_EVENTS_MAX), LOG_EVENTS_MAX);
	CU_ASSERT_EQUAL(events[0].number, 4);
	CU_ASSERT_STRING_EQUAL(events[0].text, "line 4??");
	CU_ASSERT_STRING_EQUAL(events[0].service, "main");
	CU_ASSERT_STRING_EQUAL(events[1].service, "");
	CU_ASSERT_EQUAL(log_events(log, events, 2), 2);
	CU_ASSERT_EQUAL(events[1].number, LOG_EVENTS_MAX + 3);
	free(events);
	log_destroy(log);
}

enum { TERMINAL_WRITERS = 8, TERMINAL_LINES = 500, TERMINAL_TRIES = 5 };

static struct log *open_log_on_terminal(int *terminal)
{
	char name[64];
	*terminal = posix_openpt(O_RDWR | O_NOCTTY);
	CU_ASSERT_FATAL(*terminal >= 0 && grantpt(*terminal) == 0 && unlockpt(*terminal) == 0);
	CU_ASSERT_FATAL(ptsname_r(*terminal, name, sizeof name) == 0);
	return open_log(&(struct log_options){ .path = name, .level = LOG_LEVEL_INFO });
}

static void *write_lines(void *context)
{
	for (int i = 0; i < TERMINAL_LINES; i++)
		log_write(context, LOG_LEVEL_INFO, NULL, "a line");
	return NULL;
}

static void *count_line_ends(void *context)
{
	long *ends = context;
	char bytes[4096];
	while (*ends < TERMINAL_WRITERS * TERMINAL_LINES) {
		ssize_t count = read((int)ends[1], bytes, sizeof bytes);
		if (count <= 0)
			break;
		for (ssize_t i = 0; i < count; i++)
			*ends += bytes[i] == '\n';
	}
	return NULL;
}

static bool all_lines_come(void)
{
	int terminal;
	struct log *log = open_log_on_terminal(&terminal);
	pthread_t writers[TERMINAL_WRITERS], reader;
	long ends[2] = { 0, terminal };
	pthread_create(&reader, NULL, count_line_ends, ends);
	for (int i = 0; i < TERMINAL_WRITERS; i++)
		pthread_create(&writers[i], NULL, write_lines, log);
	for (int i = 0; i < TERMINAL_WRITERS; i++)
		pthread_join(writers[i], NULL);
	log_destroy(log); /* the reader is told of the end if lines are missing */
	pthread_join(reader, NULL);
	close(terminal);
	return ends[0] == TERMINAL_WRITERS * TERMINAL_LINES;
}

/* A terminal takes one write at a time, and tells a second writer who will not wait that there is no room. Where nobody
   reads for so long that lines may be lost, because the machine is busy elsewhere, it is tried again. */
static void threads_that_write_to_a_terminal_together_lose_no_line(void)
{
	int tries = 1;
	while (!all_lines_come() && tries < TERMINAL_TRIES)
		tries++;
	CU_ASSERT(tries < TERMINAL_TRIES);
}

/* Waiting for room with each line, these would take more than a minute. */
static void a_terminal_that_nobody_reads_is_waited_for_once(void)
{
	int terminal;
	struct log *log = open_log_on_terminal(&terminal);
	uint64_t begin_us = clock_us();
	for (int i = 0; i < TERMINAL_WRITERS; i++)
		write_lines(log);
	CU_ASSERT(clock_us() - begin_us < 10000000);
	log_destroy(log);
	close(terminal);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(the_last_lines_are_kept_whatever_level_is_written),
		TEST(a_line_has_a_time_a_level_a_service_and_an_end),
		TEST(nobody_can_begin_a_line_of_his_own),
		TEST(an_access_line_is_the_combined_format_and_more),
		TEST(a_json_line_is_one_object_in_ascii),
		TEST(an_access_line_says_what_the_shadow_did),
		TEST(a_message_is_cut_at_two_kibibytes),
		TEST(a_trace_says_which_request_and_when),
		TEST(reopening_follows_the_name),
		TEST(what_cannot_be_opened_keeps_its_old_file),
		TEST(a_pipe_that_nobody_opened_is_an_error),
		TEST(lines_that_a_full_pipe_has_no_room_for_are_counted),
		TEST(lines_to_a_socket_wait_for_nobody),
		TEST(a_log_without_a_standard_stream_writes_nowhere),
		TEST(a_log_that_leaves_the_terminal_writes_there_no_more),
		TEST(a_file_that_is_no_longer_named_is_left_to_who_takes_the_lines),
		TEST(threads_that_write_to_a_terminal_together_lose_no_line),
		TEST(a_terminal_that_nobody_reads_is_waited_for_once),
	};
	return unit_main("log", tests, sizeof tests / sizeof tests[0]);
}
