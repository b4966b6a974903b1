/* test_settings.c: what may be set, where, in which words, and what is said when it is wrong.
 *
 * Nearly all tests go in by the door that main() uses, with the file, the environment and the hostname given by the
 * test (struct settings_input), so that they say nothing about the machine they run on. Errors are compared word by
 * word where the wording is the contract (FILE:LINE, what was read, what is allowed), and by a part where only a part
 * is.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/settings.h"
#include "lib/settings_internal.h"
#include "unit.h"

#define ARGUMENTS_MAX 16

static char error[SETTINGS_ERROR_MAX];
static enum configuration_wish wish;
static const char *hostname = "micro2.example.org";
static char *no_environment[] = { NULL };
static char **environment = no_environment;

/* ---- helpers ---- */

/* A stream over text; fmemopen() takes no empty one. */
static FILE *stream_of(const char *text, size_t length)
{
	FILE *file = tmpfile();
	if (!file || fwrite(text, 1, length, file) != length)
		abort();
	rewind(file);
	return file;
}

static struct configuration *assemble(int argc, char **argv, const char *text, size_t length)
{
	struct settings_input input = { .argc = argc,
		                        .argv = argv,
		                        .environment = environment,
		                        .hostname = hostname,
		                        .file = text ? stream_of(text, length) : NULL };
	wish = CONFIGURATION_RUN;
	memset(error, 0, sizeof error);
	struct configuration *c = configuration_assemble(&input, &wish, error);
	if (input.file)
		fclose(input.file);
	CU_ASSERT((c == NULL) == (error[0] != '\0'));
	CU_ASSERT_PTR_NULL(strchr(error, '\n'));
	return c;
}

/* weir ARGUMENTS..., NULL at the end. */
static struct configuration *command(const char *first, ...)
{
	static char *argv[ARGUMENTS_MAX];
	int argc = 0;
	va_list rest;

	argv[argc++] = "weir";
	va_start(rest, first);
	for (const char *argument = first; argument; argument = va_arg(rest, const char *))
		argv[argc++] = (char *)argument;
	va_end(rest);
	argv[argc] = NULL;
	return assemble(argc, argv, NULL, 0);
}

/* weir -c weir.ini [FLAG VALUE], the file being text. */
static struct configuration *file_with(const char *text, const char *flag, const char *value)
{
	static char *argv[6];
	int argc = 0;

	argv[argc++] = "weir";
	argv[argc++] = "-c";
	argv[argc++] = "weir.ini";
	if (flag)
		argv[argc++] = (char *)flag;
	if (value)
		argv[argc++] = (char *)value;
	argv[argc] = NULL;
	return assemble(argc, argv, text, strlen(text));
}

static struct configuration *file(const char *text)
{
	return file_with(text, NULL, NULL);
}

static void print_unexpected(const char *wanted)
{
	if (strcmp(error, wanted) != 0)
		printf("       wanted: %s\n       found:  %s\n", wanted, error);
}

/* The reading failed with exactly this line. */
static void expect_error(struct configuration *c, const char *wanted)
{
	CU_ASSERT_PTR_NULL(c);
	print_unexpected(wanted);
	CU_ASSERT_STRING_EQUAL(error, wanted);
	configuration_free(c);
}

static void expect_error_with(struct configuration *c, const char *part)
{
	CU_ASSERT_PTR_NULL(c);
	if (!strstr(error, part))
		print_unexpected(part);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, part));
	configuration_free(c);
}

static void expect_good(struct configuration *c)
{
	CU_ASSERT_PTR_NOT_NULL(c);
	if (!c)
		print_unexpected("");
	configuration_free(c);
}

/* One key of an otherwise good service. */
static struct configuration *key(const char *line)
{
	char *text;
	if (asprintf(&text, "[a]\nendpoint = t:1\n%s\n", line) < 0)
		abort();
	struct configuration *c = file(text);
	free(text);
	return c;
}

/* n times text, the caller's. */
static char *repeated(const char *text, size_t n)
{
	size_t length = strlen(text);
	char *all = malloc(length * n + 1);
	if (!all)
		abort();
	for (size_t i = 0; i < n; i++)
		memcpy(all + i * length, text, length);
	all[length * n] = '\0';
	return all;
}

static char *printed(const struct configuration *c)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	configuration_print(c, out);
	fclose(out);
	return text;
}

static const struct settings *first(const struct configuration *c)
{
	static const struct settings none;
	CU_ASSERT_FATAL(c != NULL);
	CU_ASSERT(c->service_count > 0);
	return c->service_count > 0 ? c->services[0] : &none;
}

/* ---- the file of issue 2, and defaults ---- */

static void the_proxypy_example_is_read_as_it_stands(void)
{
	hostname = "micro2";
	struct configuration *c = file("[node2]\n"
	                               "id              = 2\n"
	                               "hostname        = micro2\n"
	                               "port            = 8090\n"
	                               "endpoint        = localhost:80\n"
	                               "threshold       = 5\n"
	                               "backlog         = 4\n"
	                               "ssl             = no\n");
	const struct settings *s = first(c);
	CU_ASSERT_STRING_EQUAL(s->name, "node2");
	CU_ASSERT_EQUAL(s->mode, MODE_REVERSE);
	CU_ASSERT_EQUAL(s->id, 2);
	CU_ASSERT_STRING_EQUAL(s->hostname, "micro2");
	CU_ASSERT_EQUAL(s->port, 8090);
	CU_ASSERT_EQUAL(s->endpoint.count, 1);
	CU_ASSERT_STRING_EQUAL(s->endpoint.items[0].host, "localhost");
	CU_ASSERT_EQUAL(s->endpoint.items[0].port, 80);
	CU_ASSERT_EQUAL(s->threshold.count, 5);
	CU_ASSERT_EQUAL(s->threshold.window_us, 1000000);
	CU_ASSERT_EQUAL(s->backlog_us, 4000000);
	CU_ASSERT_EQUAL(s->backlog_requests, 20);
	configuration_free(c);
	hostname = "micro2.example.org";
}

static void defaults_are_those_of_the_contract(void)
{
	struct configuration *c = command("reverse", "--endpoint", "127.0.0.1:9001", NULL);
	const struct settings *s = first(c);
	CU_ASSERT_EQUAL(wish, CONFIGURATION_RUN);
	CU_ASSERT_STRING_EQUAL(s->name, "reverse");
	CU_ASSERT_EQUAL(s->id, 0);
	CU_ASSERT_PTR_NULL(s->hostname);
	CU_ASSERT_EQUAL(s->port, 8000);
	CU_ASSERT_PTR_NULL(s->bind);
	CU_ASSERT_EQUAL(s->balance, BALANCE_ROUNDROBIN);
	CU_ASSERT_EQUAL(s->hash_key.kind, HASH_KEY_CLIENT);
	CU_ASSERT_EQUAL(s->probe_interval_us, 1000000);
	CU_ASSERT_PTR_NULL(s->probe_path);
	CU_ASSERT_EQUAL(s->probe_rise, 1);
	CU_ASSERT_EQUAL(s->probe_fall, 1);
	CU_ASSERT_EQUAL(s->resolve_interval_us, 30000000);
	CU_ASSERT_EQUAL(s->threshold.count, 0);
	CU_ASSERT(s->threshold.window_us > 0);
	CU_ASSERT_EQUAL(s->burst, 0);
	CU_ASSERT_EQUAL(s->backlog_us, 0);
	CU_ASSERT_EQUAL(s->backlog_requests, 0);
	CU_ASSERT_EQUAL(s->reject_status, 429);
	CU_ASSERT_EQUAL(s->unavailable_status, 500);
	CU_ASSERT_EQUAL(s->forwarded, FORWARDED_APPEND);
	CU_ASSERT_EQUAL(s->connect_timeout_us, 3000000);
	CU_ASSERT_EQUAL(s->header_timeout_us, 10000000);
	CU_ASSERT_EQUAL(s->response_timeout_us, 60000000);
	CU_ASSERT_EQUAL(s->idle_timeout_us, 60000000);
	CU_ASSERT_EQUAL(s->tunnel_timeout_us, 3600000000u);
	CU_ASSERT_EQUAL(s->drain_timeout_us, 10000000);
	CU_ASSERT_EQUAL(s->retries, UINT_MAX);
	CU_ASSERT_EQUAL(s->max_clients, 10000);
	CU_ASSERT_EQUAL(s->max_header_bytes, 32768);
	CU_ASSERT_EQUAL(s->max_body_bytes, 0);
	CU_ASSERT_EQUAL(s->queue, QUEUE_FIFO);
	CU_ASSERT_EQUAL(s->ratelimit_headers, RATELIMIT_BOTH);
	CU_ASSERT_EQUAL(s->client_rate.count, 0);
	CU_ASSERT(s->client_rate.window_us > 0);
	CU_ASSERT_EQUAL(s->client_burst, 0);
	CU_ASSERT_EQUAL(s->client_connections, 0);
	CU_ASSERT_TRUE(s->client_key.client && !s->client_key.path && !s->client_key.header);
	CU_ASSERT_EQUAL(s->client_block_us, 0);
	CU_ASSERT_EQUAL(s->exempt.networks.count + s->exempt.header_count, 0);
	CU_ASSERT_FALSE(s->exempt.networks.has_unix);
	CU_ASSERT_TRUE(s->allow.count == 2 && s->allow.has_unix);
	CU_ASSERT_TRUE(s->deny.count == 0 && !s->deny.has_unix);
	CU_ASSERT_TRUE(s->trust_forwarded.count == 0 && !s->trust_forwarded.has_unix);
	CU_ASSERT_EQUAL(s->rule_count, 0);
	CU_ASSERT_EQUAL(s->reject_status, 429);
	CU_ASSERT_EQUAL(s->cap_reject_status, 500);
	CU_ASSERT_EQUAL(s->max_connections, 0);
	CU_ASSERT_EQUAL(s->host_limits.count, 0);
	CU_ASSERT_EQUAL(s->cap_backlog_us, 0);
	CU_ASSERT_EQUAL(s->connect_allow.count, 0);
	CU_ASSERT_PTR_NULL(s->auth_file);
	CU_ASSERT_PTR_NULL(s->redis_addr);
	CU_ASSERT_PTR_NULL(s->redis_password);
	CU_ASSERT_EQUAL(s->redis_db, 0);
	CU_ASSERT_EQUAL(s->redis_fail, REDIS_FAIL_CLOSED);
	CU_ASSERT_PTR_NULL(c->globals.logfile);
	CU_ASSERT_EQUAL(c->globals.log_level, LEVEL_INFO);
	CU_ASSERT_EQUAL(c->globals.log_format, FORMAT_TEXT);
	CU_ASSERT_PTR_NULL(c->globals.access_log);
	CU_ASSERT_PTR_NULL(c->globals.user);
	CU_ASSERT_PTR_NULL(c->globals.pidfile);
	CU_ASSERT_FALSE(c->daemon);
	configuration_free(c);
}

static void every_row_of_the_table_is_complete(void)
{
	char why[VALUE_WHY_MAX], allowed[VALUE_ALLOWED_MAX];
	union {
		struct settings_rule rule;
		struct settings_exemptions exemptions;
		struct networks networks;
		struct settings_endpoints endpoints;
		uint64_t number;
	} field;

	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		CU_ASSERT(row->help != NULL && *row->help != '\0');
		CU_ASSERT(strlen(row->name) < SETTINGS_NAME_MAX - 8);
		for (size_t j = 0; j < i; j++)
			CU_ASSERT_STRING_NOT_EQUAL(row->name, settings_rows[j].name);
		CU_ASSERT(row->kind != KIND_TEXT || (row->check != NULL && row->allowed != NULL));
		value_allowed(row, allowed);
		CU_ASSERT(strlen(allowed) > 0 && strlen(allowed) < VALUE_ALLOWED_MAX - 1);
		memset(&field, 0, sizeof field);
		if (row->default_text)
			CU_ASSERT_EQUAL(value_read(row, row->default_text, &field, why), VALUE_GOOD);
		value_clear(row, &field);
	}
}

/* ---- precedence and origins ---- */

static unsigned port_of(struct configuration *c)
{
	unsigned port = first(c)->port;
	configuration_free(c);
	return port;
}

static void a_flag_goes_before_the_environment_before_the_file_before_the_default(void)
{
	static char *with_port[] = { "HOME=/", "WEIR_PORT=3", NULL };
	const char *with = "[a]\nendpoint = t:1\nport = 2\n", *without = "[a]\nendpoint = t:1\n";

	CU_ASSERT_EQUAL(port_of(file(without)), 8000);
	CU_ASSERT_EQUAL(port_of(file(with)), 2);
	CU_ASSERT_EQUAL(port_of(file_with(with, "--port", "4")), 4);
	environment = with_port;
	CU_ASSERT_EQUAL(port_of(file(without)), 3);
	CU_ASSERT_EQUAL(port_of(file(with)), 3);
	CU_ASSERT_EQUAL(port_of(file_with(with, "--port", "4")), 4);
	CU_ASSERT_EQUAL(port_of(command("reverse", "--endpoint", "t:1", NULL)), 3);
	CU_ASSERT_EQUAL(port_of(command("reverse", "--endpoint", "t:1", "--port", "4", NULL)), 4);
	environment = no_environment;
}

static void a_value_that_owns_memory_is_replaced_by_the_one_before_it(void)
{
	static char *variables[] = { "WEIR_ENDPOINT=e:1,f:2", "WEIR_HASH_KEY=header:b", "WEIR_LOGFILE=/e", NULL };
	environment = variables;
	struct configuration *c = file_with(
		"[globals]\nlogfile = /f\n[a]\nendpoint = a:1,b:2,c:3\nhash_key = header:a\n", "--endpoint=g:9", NULL);
	environment = no_environment;
	const struct settings *s = first(c);
	CU_ASSERT_EQUAL(s->endpoint.count, 1);
	CU_ASSERT_STRING_EQUAL(s->endpoint.items[0].host, "g");
	CU_ASSERT_EQUAL(s->hash_key.kind, HASH_KEY_HEADER);
	CU_ASSERT_STRING_EQUAL(s->hash_key.header, "b");
	CU_ASSERT_STRING_EQUAL(c->globals.logfile, "/e");
	configuration_free(c);
}

static void a_wrong_value_in_the_file_is_an_error_even_under_a_flag(void)
{
	expect_error(file_with("[a]\nendpoint = t:1\nport = x\n", "--port", "4"),
	             "weir.ini:3: port: \"x\" was read; allowed: a whole number from 0 to 65535");
}

static void flags_override_every_stanza_that_runs(void)
{
	struct configuration *c =
		file_with("[a]\nendpoint=t:1\nport=1\nbacklog=1\n[b]\nendpoint=t:1\nport=2\n", "--backlog", "7");
	CU_ASSERT_EQUAL(first(c)->backlog_us, 7000000);
	CU_ASSERT_EQUAL(c->services[1]->backlog_us, 7000000);
	configuration_free(c);
	c = file_with("[a]\nendpoint=t:1\n", "--log-level", "debug");
	CU_ASSERT_EQUAL(first(c)->backlog_us, 0);
	CU_ASSERT_EQUAL(c->globals.log_level, LEVEL_DEBUG);
	configuration_free(c);
}

static void check_prints_each_value_with_where_it_came_from(void)
{
	static char *variables[] = { "DPRL_PORT=81", "WEIR_BACKLOG=2", NULL };
	environment = variables;
	struct configuration *c = file_with("[a]\n\n  endpoint = t:1   # the target\n", "--threshold", "600/m");
	environment = no_environment;
	char *text = printed(c);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\n[a]\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nendpoint = t:1    # weir.ini:3\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nport = 81    # environment DPRL_PORT\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nbacklog = 2    # environment WEIR_BACKLOG\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nthreshold = 600/m    # flag --threshold\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nburst = 0    # default\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nmode = reverse    # default\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\n# probe_path is not set: a TCP connect    # default\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "[globals]\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nlog_level = info    # default\n"));
	free(text);
	configuration_free(c);
}

/* The lines without their origins, which do differ. */
static void cut_origins(char *text)
{
	char *to = text;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *origin = strstr(line, "    # ");
		size_t length = origin ? (size_t)(origin - line) : strlen(line);
		memmove(to, line, length);
		to += length;
		*to++ = '\n';
	}
	to[-1] = '\0';
}

static void what_check_prints_reads_back_as_the_same_settings(void)
{
	struct configuration *c = file("[globals]\nlogfile = /var/log/a b#c.log\naccess_log = -\nuser = nobody\n"
	                               "[a name;with#things]\nid = 7\nendpoint = [::1]:80*3 ,\tunix:/run/a "
	                               "b*2,h:1\nbind = unix:/run/weir.sock\n"
	                               "hash_key = header:X-User\nbalance = HASH\nthreshold = 2.5/s\nbacklog = "
	                               ".5\nmax_header = 64 KiB\nretries = all\n"
	                               "probe_path = /health?deep=1;x\n");
	CU_ASSERT_FATAL(c != NULL);
	char *once = printed(c);
	struct configuration *again = file(once);
	CU_ASSERT_FATAL(again != NULL);
	CU_ASSERT_STRING_EQUAL(first(again)->endpoint.items[1].host, "/run/a b");
	CU_ASSERT_EQUAL(first(again)->endpoint.items[1].weight, 2);
	CU_ASSERT_EQUAL(first(again)->threshold.window_us, 2000000);
	CU_ASSERT_STRING_EQUAL(again->globals.logfile, "/var/log/a b#c.log");
	char *twice = printed(again);
	cut_origins(once);
	cut_origins(twice);
	CU_ASSERT_STRING_EQUAL(once, twice);
	free(once);
	free(twice);
	configuration_free(c);
	configuration_free(again);
}

static void a_value_that_no_file_could_hold_is_refused_from_elsewhere(void)
{
	expect_error_with(command("reverse", "--endpoint", "t:1", "--logfile", "/a #b", NULL), "begins a comment");
	expect_error_with(command("reverse", "--endpoint", "t:1", "--logfile", "/a\n[b]", NULL), "a control character");
	expect_error_with(command("reverse", "--endpoint", "t:1", "--logfile", "#b", NULL), "begins a comment");
	expect_error_with(command("-c", "a\nb", NULL), "control character");
	char *text = repeated("a:1,", 20000);
	expect_error_with(command("reverse", "--endpoint", text, NULL), "was read (more than 61440 bytes); allowed: ");
	free(text);
}

/* ---- the command line ---- */

static void a_flag_may_be_spelt_in_every_common_way(void)
{
	static const char *const spellings[] = { "--max-clients", "-max-clients", "--max_clients", "-max_clients",
		                                 "--MAX-Clients" };
	for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
		char joined[64];
		struct configuration *c = command("reverse", "--endpoint=t:1", spellings[i], "77", NULL);
		CU_ASSERT_EQUAL(first(c)->max_clients, 77);
		configuration_free(c);
		snprintf(joined, sizeof joined, "%s=78", spellings[i]);
		c = command("reverse", joined, "-endpoint", "t:1", NULL);
		CU_ASSERT_EQUAL(first(c)->max_clients, 78);
		configuration_free(c);
	}
	CU_ASSERT_EQUAL(port_of(command("--port", "5", "reverse", "--endpoint", "t:1", NULL)), 5);
	CU_ASSERT_EQUAL(port_of(command("reverse", "--dprl-port", "6", "--endpoint", "t:1", NULL)), 6);
	CU_ASSERT_EQUAL(port_of(command("reverse", "-DPRL_PORT=7", "--endpoint", "t:1", NULL)), 7);
}

static void switches_say_what_is_wished(void)
{
	struct configuration *c = command("reverse", "--endpoint", "t:1", "--check", "--daemon", NULL);
	CU_ASSERT_EQUAL(wish, CONFIGURATION_CHECK);
	CU_ASSERT_EQUAL(first(c)->port, 8000);
	CU_ASSERT_TRUE(c->daemon);
	configuration_free(c);
	expect_good(file_with("[a]\nendpoint = t:1\n", "--check", NULL));
	CU_ASSERT_EQUAL(wish, CONFIGURATION_CHECK);
	expect_good(command("--help", "--whatever", NULL));
	CU_ASSERT_EQUAL(wish, CONFIGURATION_HELP);
	expect_good(command("forward", "-h", NULL));
	CU_ASSERT_EQUAL(wish, CONFIGURATION_HELP);
	expect_good(command("-version", NULL));
	CU_ASSERT_EQUAL(wish, CONFIGURATION_VERSION);
	expect_good(command("--reference", NULL));
	CU_ASSERT_EQUAL(wish, CONFIGURATION_REFERENCE);
	expect_error(command("--help=yes", NULL), "--help: takes no value");
}

#define FORMS "allowed: weir reverse --port 8000 --endpoint HOST:PORT, or weir -c FILE; see weir --help"

static void without_a_mode_or_a_file_both_forms_are_told(void)
{
	expect_error(command(NULL, NULL), "neither a mode nor a file is given; " FORMS);
	expect_error(command("--check", NULL), "neither a mode nor a file is given; " FORMS);
	expect_error(command("revers", NULL), "\"revers\" was read; " FORMS);
	expect_error(command("", NULL), "\"\" was read; " FORMS);
	expect_error(command("-", NULL), "\"-\" was read; " FORMS);
	expect_error(command("reverse", "-c", "f", NULL),
	             "-c f: there is a mode, reverse, as well; allowed: one of the two");
	expect_error(command("reverse", "reverse", NULL), "\"reverse\" was read, and a mode before it; allowed: one");
	expect_error(command("reverse", "--mode", "reverse", NULL), "--mode: given twice; allowed: once");
	expect_error(command("reverse", "--node", "a", NULL),
	             "--node: chooses a stanza of a file; allowed: with -c FILE");
}

static void the_mode_is_a_setting_as_others_are(void)
{
	struct configuration *c = command("--mode", "forward", "--port=0", NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_EQUAL(first(c)->mode, MODE_FORWARD);
	CU_ASSERT_STRING_EQUAL(first(c)->name, "forward");
	configuration_free(c);
	c = command("--endpoint", "t:1", NULL); /* its default */
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_EQUAL(first(c)->mode, MODE_REVERSE);
	CU_ASSERT_STRING_EQUAL(first(c)->name, "reverse");
	configuration_free(c);
	static char *variables[] = { "WEIR_MODE=packet", NULL };
	environment = variables;
	c = command(NULL, NULL);
	environment = no_environment;
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_EQUAL(first(c)->mode, MODE_PACKET);
	CU_ASSERT_STRING_EQUAL(first(c)->name, "packet");
	configuration_free(c);
	expect_error(command("--port", "80", NULL),
	             "weir reverse has no endpoint to send requests to; allowed: --endpoint host:port,...");
}

static void a_flag_that_is_wrong_is_named(void)
{
	expect_error(command("reverse", "--port", "80x", NULL),
	             "--port: \"80x\" was read; allowed: a whole number from 0 to 65535");
	expect_error(command("reverse", "--port", "-1", NULL),
	             "--port: \"-1\" was read; allowed: a whole number from 0 to 65535");
	expect_error(command("reverse", "--port", NULL),
	             "--port: no value follows; allowed: a whole number from 0 to 65535");
	expect_error(command("reverse", "--port", "--check", NULL),
	             "--port: no value follows; allowed: a whole number from 0 to 65535");
	expect_error(command("reverse", "--port=", NULL),
	             "--port: \"\" was read (nothing); allowed: a whole number from 0 to 65535");
	expect_error(command("reverse", "-port", "1", "--PORT=1", NULL), "--port: given twice; allowed: once");
	expect_error(command("reverse", "--port", "1", "--dprl-port=1", NULL),
	             "--dprl-port: given twice; allowed: once");
	expect_error(command("-c", "a", "-c", "b", NULL), "-c: given twice; allowed: once");
	expect_error(command("-c", NULL), "-c: no value follows; allowed: an INI file's path");
	expect_error(command("reverse", "--thresold=5", NULL),
	             "unknown option \"--thresold\"; did you mean --threshold? (weir --help lists what is allowed)");
	expect_error(command("reverse", "--chek", NULL),
	             "unknown option \"--chek\"; did you mean --check? (weir --help lists what is allowed)");
	expect_error(command("reverse", "--x", NULL), "unknown option \"--x\" (weir --help lists what is allowed)");
	expect_error(command("reverse", "--", NULL), "unknown option \"--\" (weir --help lists what is allowed)");
	expect_error_with(command("reverse", "--hostname", "micro2", NULL), "--hostname: ");
	expect_error(command("reverse", NULL),
	             "weir reverse has no endpoint to send requests to; allowed: --endpoint host:port,...");
}

/* ---- the environment ---- */

static void the_environment_has_weir_names_and_a_few_others(void)
{
	static char *variables[] = { "LOG_LEVEL=WARN",       "PORT=1", "DPRL_PORT=2", "WEIR_PORT=3",
		                     "WEIR_MAX_CLIENTS= 9 ", NULL };
	static char *other_order[] = { "WEIR_PORT=3", "DPRL_PORT=2", NULL };
	environment = variables;
	struct configuration *c = command("reverse", "--endpoint", "t:1", NULL);
	CU_ASSERT_EQUAL(first(c)->port, 3);
	CU_ASSERT_EQUAL(first(c)->max_clients, 9);
	CU_ASSERT_EQUAL(c->globals.log_level, LEVEL_WARN);
	configuration_free(c);
	environment = other_order;
	CU_ASSERT_EQUAL(port_of(command("reverse", "--endpoint", "t:1", NULL)), 3);
	environment = no_environment;
}

static void variable(char *assignment, const char *wanted)
{
	char *variables[] = { assignment, NULL };
	environment = variables;
	struct configuration *c = command("reverse", "--endpoint", "t:1", NULL);
	environment = no_environment;
	if (wanted)
		expect_error(c, wanted);
	else
		expect_good(c);
}

static void a_variable_that_is_wrong_is_named_and_an_empty_one_is_not_set(void)
{
	variable("WEIR_PORT=x", "WEIR_PORT: \"x\" was read; allowed: a whole number from 0 to 65535");
	variable("DPRL_PORT=x", "DPRL_PORT: \"x\" was read; allowed: a whole number from 0 to 65535");
	variable("LOG_LEVEL=loud", "LOG_LEVEL: \"loud\" was read; allowed: debug, info, warn, error");
	variable("WEIR_THRESOLD=5",
	         "unknown setting \"WEIR_THRESOLD\" in the environment; did you mean WEIR_THRESHOLD? "
	         "(weir --help lists what is allowed)");
	variable("WEIR_=5", "unknown setting \"WEIR_\" in the environment (weir --help lists what is allowed)");
	variable("WEIR_port=5", "unknown setting \"WEIR_port\" in the environment; did you mean WEIR_PORT? "
	                        "(weir --help lists what is allowed)");
	variable("WEIR_STATS_PATH=/stats", NULL);
	variable("WEIR_SSL=maybe", "WEIR_SSL: \"maybe\" was read; allowed: no, yes");
	variable("WEIR_SSL=off", NULL);
	variable("REDIS_ADDR=localhost:6379", NULL);
	variable("REDIS_ADDR=redis://localhost",
	         "REDIS_ADDR: \"redis://localhost\" was read; allowed: host, host:port (6379) or unix:/path; IPv6 in brackets");
	variable("DPRL_MAX_CONNECTIONS=25", NULL);
	variable("DPRL_MAX_CONNECTIONS=-1",
	         "DPRL_MAX_CONNECTIONS: \"-1\" was read; allowed: a whole number from 0 to 1000000");
	variable("REDIS_DB=two", "REDIS_DB: \"two\" was read; allowed: a whole number from 0 to 1000000");
	variable("WEIR_LIMIT_LOGIN=rate=5",
	         "WEIR_LIMIT: not set by the environment; allowed: limit.NAME in a stanza of the file, or the flag "
	         "--limit.NAME");
	variable("WEIR_LIMIT=rate=5",
	         "WEIR_LIMIT: not set by the environment; allowed: limit.NAME in a stanza of the file, or the flag "
	         "--limit.NAME");
	variable("WEIR_PORT=", NULL);
	variable("REDIS_PASSWORD=", NULL);
	variable("WEIR_NONSENSE=", NULL);
	variable("WEIRD=1", NULL);
	variable("no equals sign", NULL);
}

/* ---- the INI reader ---- */

static void errors_name_the_file_and_the_line(void)
{
	expect_error(file("# one\n\n[a]\nendpoint = t:1\n\n; six\nthresold = 5\n"),
	             "weir.ini:7: unknown key \"thresold\"; did you mean \"threshold\"? (weir --help lists what is "
	             "allowed)");
	expect_error(key("zzz = 1"), "weir.ini:3: unknown key \"zzz\" (weir --help lists what is allowed)");
	expect_error(key("port = 1\nPort = 2"),
	             "weir.ini:4: \"Port\" is set on line 3 already; allowed: once in a stanza");
	expect_error(key("max-header = 2k\nmax_header = 2k"),
	             "weir.ini:4: \"max_header\" is set on line 3 already; allowed: once in a stanza");
	expect_error(key("[a]"), "weir.ini:3: \"a\" is the name of the stanza on line 1 as well; each may stand once");
	expect_error(file("[globals]\n[GLOBALS]\n"),
	             "weir.ini:2: \"GLOBALS\" is the name of the stanza on line 1 as well; each may stand once");
	expect_error(file("port = 1\n[a]\n"),
	             "weir.ini:1: \"port\" stands before the first stanza; allowed: a line such as [name] above it");
	expect_error(file("[globals]\nport = 1\n"),
	             "weir.ini:2: \"port\" is about one service; allowed: in its stanza, not in [globals]");
	expect_error(key("log_level = info"),
	             "weir.ini:3: \"log_level\" is about the whole process; allowed: in [globals]");
	expect_error(key("port 80"),
	             "weir.ini:3: \"port\" has no = after it; allowed: key = value, [name] or a comment");
	expect_error(key("= 80"),
	             "weir.ini:3: \"\" is not a key; allowed: letters, digits, _, - and . before the =, at most 63");
	expect_error(key("[b"), "weir.ini:3: \"[b\" has no ]; allowed: [name]");
	expect_error(key("[b] c"), "weir.ini:3: \"[b] c\" has something after the ]; allowed: [name]");
	expect_error(key("[ ]"), "weir.ini:3: [] names nothing; allowed: [name]");
	expect_error(key("port = 80x"), "weir.ini:3: port: \"80x\" was read; allowed: a whole number from 0 to 65535");
	expect_error(key("port ="),
	             "weir.ini:3: port: \"\" was read (nothing); allowed: a whole number from 0 to 65535");
	expect_error(key("port = # 80"),
	             "weir.ini:3: port: \"\" was read (nothing); allowed: a whole number from 0 to 65535");
	expect_error(file("\n[node2]\nport = 1\n"),
	             "weir.ini:2: [node2] has no endpoint to send requests to; allowed: endpoint = host:port, ...");
	expect_error(file(""), "weir.ini: has no stanza; allowed: one or more, as [name], and keys below it");
	expect_error(file("[globals]\nlog_level = info\n"),
	             "weir.ini: has no stanza; allowed: one or more, as [name], and keys below it");
}

static void the_first_error_of_a_file_is_the_one_reported(void)
{
	expect_error_with(key("prot = 1\nendpoint = again:1\n[a]\nfoo"), "weir.ini:3: unknown key \"prot\"");
}

static void comments_begin_at_the_start_of_a_line_or_after_a_blank(void)
{
	struct configuration *c = file("; [x]\n#y\n \t # z\n[a] ; name\nendpoint = t:1 ;*2\n\tport\t=\t7\t#8\n"
	                               "probe_path = /a;b\nhash_key = header:a#b # c ; d\n");
	const struct settings *s = first(c);
	CU_ASSERT_STRING_EQUAL(s->name, "a");
	CU_ASSERT_EQUAL(s->endpoint.items[0].weight, 1);
	CU_ASSERT_EQUAL(s->port, 7);
	CU_ASSERT_STRING_EQUAL(s->probe_path, "/a;b");
	CU_ASSERT_STRING_EQUAL(s->hash_key.header, "a#b");
	configuration_free(c);
}

static void an_indented_line_is_a_line_of_its_own_never_more_of_the_value_above(void)
{
	struct configuration *c = file("  [a]\n    endpoint = t:1\n    port = 7\n");
	CU_ASSERT_EQUAL(first(c)->port, 7);
	CU_ASSERT_EQUAL(first(c)->endpoint.count, 1);
	configuration_free(c);
	expect_error_with(file("[a]\nendpoint = t:1,\n    u:2\n"), "weir.ini:3: unknown key \"u\"");
}

static void line_ends_of_windows_a_missing_last_one_and_a_byte_order_mark_are_fine(void)
{
	CU_ASSERT_EQUAL(port_of(file("[a]\r\nendpoint = t:1\r\nport = 7\r\n")), 7);
	CU_ASSERT_EQUAL(port_of(file("[a]\nendpoint = t:1\nport = 7")), 7);
	CU_ASSERT_EQUAL(port_of(file("[a]\r\nendpoint = t:1\r\nport = 7\r")), 7);
	CU_ASSERT_EQUAL(port_of(file("\xef\xbb\xbf[a]\nendpoint = t:1\nport: 7")), 7);
	struct configuration *c = file("[a]\nendpoint = t:1\n[b]");
	expect_error(c, "weir.ini:3: [b] has no endpoint to send requests to; allowed: endpoint = host:port, ...");
}

static void a_file_that_is_no_text_is_refused(void)
{
	static char *argv[] = { "weir", "-c", "weir.ini", NULL };
	expect_error(assemble(3, argv, "[a]\nendpoint = t:1\0,u:2\n", 23),
	             "weir.ini:2: byte 15 is the control character 0x00; allowed: text");
	expect_error(assemble(3, argv, "\0", 1), "weir.ini:1: byte 1 is the control character 0x00; allowed: text");
	expect_error(key("port = 1\r2"), "weir.ini:3: byte 9 is the control character 0x0d; allowed: text");
	expect_error(key("\x1b[2J"), "weir.ini:3: byte 1 is the control character 0x1b; allowed: text");
}

static void a_line_may_have_64_kib_and_no_more(void)
{
	char *blanks = repeated(" ", 65536 - strlen("port = 7")), *text;
	if (asprintf(&text, "port =%s 7", blanks) < 0)
		abort();
	CU_ASSERT_EQUAL(strlen(text), 65536);
	CU_ASSERT_EQUAL(port_of(key(text)), 7);
	free(text);
	if (asprintf(&text, "# %s%s", blanks, blanks) < 0)
		abort();
	expect_error(key(text), "weir.ini:3: a line of more than 65536 bytes; allowed: 65536");
	free(text);
	free(blanks);
}

static void a_value_of_ten_kib_arrives_whole(void)
{
	char *list = repeated("target-of-a-long-name.example.org:8000, ", 300);
	for (size_t i = 0; i < 300; i++) /* 300 different ports */
		memcpy(strchr(list + i * 40, ':') + 1,
		       (char[]){ '8', (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10) }, 4);
	list[strlen(list) - 2] = '\0';
	CU_ASSERT(strlen(list) > 10240);
	char *text;
	if (asprintf(&text, "[a]\nendpoint = %s\nport = 7\n", list) < 0)
		abort();
	struct configuration *c = file(text);
	CU_ASSERT_EQUAL(first(c)->endpoint.count, 300);
	CU_ASSERT_EQUAL(c->services[0]->endpoint.items[299].port, 8299);
	CU_ASSERT_EQUAL(c->services[0]->port, 7);
	for (size_t i = 0; i < c->services[0]->endpoint.count; i++) {
		CU_ASSERT_EQUAL(c->services[0]->endpoint.items[i].port, 8000 + i);
		CU_ASSERT_STRING_EQUAL(c->services[0]->endpoint.items[i].host, "target-of-a-long-name.example.org");
	}
	configuration_free(c);
	c = command("reverse", "--endpoint", list, NULL);
	CU_ASSERT_EQUAL(first(c)->endpoint.count, 300);
	configuration_free(c);
	free(text);
	free(list);
}

/* Whatever stands where inih's 200 bytes end: blanks, and the characters that begin comments, keys and stanzas. */
static void no_byte_of_a_value_is_lost_at_a_seam(void)
{
	for (size_t length = 1; length < 900; length += 1 + length / 200) {
		for (size_t shift = 0; shift < 8; shift++) {
			char value[1024], line[1100];
			static const char odd[] = " [;=#]:|";
			memset(value, 'x', length);
			value[length] = '\0';
			for (size_t i = 1; i + 1 < length; i++)
				value[i] = odd[(i + shift) % 8];
			for (size_t i = 1; i < length; i++) /* but no comment */
				if (value[i - 1] == ' ' && (value[i] == ';' || value[i] == '#'))
					value[i] = '|';
			struct ini_file out;
			int all = snprintf(line, sizeof line, "[globals]\nlogfile = %s\npidfile = p\n", value);
			FILE *in = stream_of(line, (size_t)all);
			CU_ASSERT_TRUE(ini_file_read(in, "weir.ini", &out, error));
			fclose(in);
			CU_ASSERT_EQUAL_FATAL(out.stanza_count, 1);
			CU_ASSERT_EQUAL_FATAL(out.stanzas[0].entry_count, 2);
			CU_ASSERT_STRING_EQUAL(out.stanzas[0].entries[0].value, value);
			CU_ASSERT_EQUAL(out.stanzas[0].entries[1].line, 3);
			ini_file_free(&out);
		}
	}
}

static void a_stanza_may_have_a_long_name(void)
{
	char *name = repeated("123456789-", 6), *text; /* inih would cut it at 49, to the same as its neighbour's */
	if (asprintf(&text, "[%sa]\nendpoint=t:1\nport=1\n[%sb]\nendpoint=t:1\nport=2\n", name, name) < 0)
		abort();
	struct configuration *c = file(text);
	CU_ASSERT_EQUAL(c->service_count, 2);
	CU_ASSERT_EQUAL(strlen(first(c)->name), 61);
	CU_ASSERT_EQUAL(c->services[1]->port, 2);
	configuration_free(c);
	char *node = repeated("123456789-", 6);
	node = realloc(node, 62);
	strcat(node, "b");
	c = file_with(text, "--node", node);
	CU_ASSERT_EQUAL(c->service_count, 1);
	CU_ASSERT_EQUAL(first(c)->port, 2);
	configuration_free(c);
	free(node);
	free(text);
	free(name);
	name = repeated("n", 255);
	if (asprintf(&text, "[%s]\nendpoint=t:1\n[%sx]\n", name, name) < 0)
		abort();
	expect_error_with(file(text), "weir.ini:3: \"nnn");
	expect_error_with(file(text), "is too long a name; allowed: 255 bytes");
	free(text);
	free(name);
}

static void a_file_with_too_much_in_it_is_refused(void)
{
	char *text = malloc(4100 * 8 + 1), *at = text;
	for (unsigned i = 0; i < 4097; i++)
		at += sprintf(at, "[%u]\n", i);
	expect_error(file(text), "weir.ini:4097: too many stanzas; allowed: 4096");
	free(text);
	text = malloc(1100 * 16 + 8);
	at = text + sprintf(text, "[a]\n");
	for (unsigned i = 0; i < 1025; i++)
		at += sprintf(at, "limit.%u = 1\n", i);
	expect_error(file(text), "weir.ini:1026: too many keys in one stanza; allowed: 1024");
	free(text);
}

/* ---- values ---- */

struct sample {
	const char *line;
	bool is_good;
};

static void expect_samples(const struct sample *samples, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct configuration *c = key(samples[i].line);
		if ((c != NULL) != samples[i].is_good)
			printf("       %s: %s\n", samples[i].line, c ? "was accepted" : error);
		CU_ASSERT_EQUAL(c != NULL, samples[i].is_good);
		if (!samples[i].is_good) {
			CU_ASSERT_EQUAL(strncmp(error, "weir.ini:3: ", 12), 0);
			CU_ASSERT_PTR_NOT_NULL(strstr(error, " was read"));
			CU_ASSERT_PTR_NOT_NULL(strstr(error, "; allowed: "));
		}
		configuration_free(c);
	}
}

#define EXPECT(...)                                                          \
	do {                                                                 \
		static const struct sample samples[] = { __VA_ARGS__ };      \
		expect_samples(samples, sizeof samples / sizeof samples[0]); \
	} while (0)

static void numbers_are_digits_within_bounds(void)
{
	EXPECT({ "port = 0", true }, { "port = 65535", true }, { "port = 00080", true }, { "port = 65536", false },
	       { "port = -1", false }, { "port = +1", false }, { "port = 0x50", false }, { "port = 80 81", false },
	       { "port = 1e3", false }, { "port = 80.0", false }, { "port = 18446744073709551617", false },
	       { "port = 99999999999999999999999999", false }, { "port = \xd9\xa3", false }, { "port = all", false },
	       { "id = 0", false }, { "id = 1", true }, { "id = 65535", true }, { "id = 65536", false },
	       { "retries = all", true }, { "retries = ALL", true }, { "retries = 0", true },
	       { "retries = 1025", false }, { "reject_status = 399", false }, { "reject_status = 400", true },
	       { "reject_status = 599", true }, { "reject_status = 600", false }, { "unavailable_status = 200", false },
	       { "max_clients = 0", false }, { "probe_rise = 0", false }, { "probe_fall = 3", true },
	       { "burst = 1000001", false });
}

static void durations_are_decimal_seconds_within_bounds(void)
{
	EXPECT({ "backlog = 0", true }, { "backlog = 0.5", true }, { "backlog = .5", true }, { "backlog = 5.", false },
	       { "backlog = .", false }, { "backlog = 0,5", false }, { "backlog = 1.0000001", false },
	       { "backlog = nan", false }, { "backlog = inf", false }, { "backlog = 1e2", false },
	       { "backlog = -0", false }, { "backlog = +1", false }, { "backlog = 1s", false },
	       { "backlog = 0x1", false }, { "backlog = 86400", true }, { "backlog = 86400.000001", false },
	       { "backlog = 1.2.3", false }, { "backlog = 18446744073709.551616", false },
	       { "backlog = 18446744073709551616", false }, { "idle_timeout = 0", false },
	       { "idle_timeout = 0.001", true }, { "idle_timeout = 0.000999", false },
	       { "idle_timeout = 31536000", true }, { "idle_timeout = 31536001", false }, { "drain_timeout = 0", true },
	       { "resolve_interval = 0.5", false }, { "probe_interval = 0.01", true });
	expect_error(key("connect_timeout = 0"),
	             "weir.ini:3: connect_timeout: \"0\" was read (too short); allowed: seconds from "
	             "0.001 to 31536000, as 3 or 0.5, at most six digits after the point");
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void a_duration_is_exact_to_the_microsecond(void)
{
	const struct settings_row *row = settings_row_find("idle_timeout");
	uint64_t seed = 88172645463325252u, found;
	char text[64], why[VALUE_WHY_MAX];

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t wanted = 1000 + next_random(&seed) % (row->most - 1000);
		snprintf(text, sizeof text, "%llu.%06llu", (unsigned long long)(wanted / 1000000),
		         (unsigned long long)(wanted % 1000000));
		found = 0;
		if (value_read(row, text, &found, why) != VALUE_GOOD || found != wanted)
			CU_FAIL("not what was written");
	}
	CU_ASSERT_EQUAL(value_read(row, "0.1", &found, why), VALUE_GOOD);
	CU_ASSERT_EQUAL(found, 100000);
}

static uint64_t size_of(const char *line)
{
	struct configuration *c = key(line);
	uint64_t size = strstr(line, "max_body") ? first(c)->max_body_bytes : first(c)->max_header_bytes;
	configuration_free(c);
	return size;
}

static void sizes_are_bytes_or_powers_of_1024(void)
{
	CU_ASSERT_EQUAL(size_of("max_header = 4096"), 4096);
	CU_ASSERT_EQUAL(size_of("max_header = 32k"), 32768);
	CU_ASSERT_EQUAL(size_of("max_header = 32K"), 32768);
	CU_ASSERT_EQUAL(size_of("max_header = 32KiB"), 32768);
	CU_ASSERT_EQUAL(size_of("max_header = 32 KiB"), 32768);
	CU_ASSERT_EQUAL(size_of("max_header = 1M"), 1048576);
	CU_ASSERT_EQUAL(size_of("max_body = 3g"), UINT64_C(3) << 30);
	CU_ASSERT_EQUAL(size_of("max_body = 12GiB"), UINT64_C(12) << 30);
	EXPECT({ "max_header = 1023", false }, { "max_header = 1024", true }, { "max_header = 1 MiB", true },
	       { "max_header = 1048577", false }, { "max_header = 2M", false }, { "max_header = 1.5k", false },
	       { "max_header = k", false }, { "max_header = 32KB", false }, { "max_header = 32  k", false },
	       { "max_header = 32k k", false }, { "max_header = -1", false },
	       { "max_header = 18014398509481985k", false }, { "max_body = 17179869185g", false },
	       { "max_body = 1048576G", true }, { "max_body = 1048577G", false });
	expect_error(key("max_header = 2M"),
	             "weir.ini:3: max_header: \"2M\" was read (too large); allowed: bytes, or with k, M "
	             "or G (KiB, MiB, GiB), from 1 KiB to 1 MiB");
}

static void expect_rate(const char *text, unsigned count, uint64_t window_us)
{
	char line[64];
	snprintf(line, sizeof line, "threshold = %s", text);
	struct configuration *c = key(line);
	CU_ASSERT_EQUAL(first(c)->threshold.count, count);
	CU_ASSERT_EQUAL(first(c)->threshold.window_us, window_us);
	configuration_free(c);
}

static void rates_are_whole_numbers_in_a_window(void)
{
	expect_rate("0", 0, 1000000);
	expect_rate("0/h", 0, 1000000);
	expect_rate("100", 100, 1000000);
	expect_rate("100/s", 100, 1000000);
	expect_rate("600/m", 600, 60000000);
	expect_rate("5000/H", 5000, 3600000000u);
	expect_rate("9/d", 9, 86400000000u);
	expect_rate("0.5/s", 1, 2000000);
	expect_rate("0.5", 1, 2000000);
	expect_rate("2.5/s", 5, 2000000);
	expect_rate("2.50/s", 5, 2000000);
	expect_rate("0.3", 1, 3333334);
	expect_rate("0.001/d", 1, 86400000000000u);
	expect_rate("1.001/m", 1001, 60000000000u);
	expect_rate("1000000", 1000000, 1000000);
	EXPECT({ "threshold = 1000001", false }, { "threshold = 100 /s", false }, { "threshold = 100/x", false },
	       { "threshold = 100/", false }, { "threshold = /s", false }, { "threshold = -1", false },
	       { "threshold = 0.0001", false }, { "threshold = nan", false }, { "threshold = 1/2", false },
	       { "threshold = 100/s/s", false }, { "threshold = 100/sec", false }, { "threshold = 1001.001", false },
	       { "threshold = 99999999999999999999", false }, { "threshold = 1e3", false });
}

static void a_rate_never_lets_more_through_than_was_asked_for(void)
{
	const struct settings_row *row = settings_row_find("threshold");
	static const struct {
		const char *name;
		unsigned seconds;
	} units[] = { { "", 1 }, { "/m", 60 }, { "/h", 3600 }, { "/d", 86400 } };
	uint64_t seed = 4101842887655102017u;
	char text[64], why[VALUE_WHY_MAX];

	for (unsigned i = 0; i < 20000; i++) {
		unsigned thousandths = 1 + (unsigned)(next_random(&seed) % (i % 2 ? 2000 : 200000)), unit = i % 4;
		struct settings_rate rate = { 0, 0 };
		snprintf(text, sizeof text, "%u.%03u%s", thousandths / 1000, thousandths % 1000, units[unit].name);
		if (value_read(row, text, &rate, why) != VALUE_GOOD || rate.count == 0) {
			CU_FAIL("a good rate was refused");
			continue;
		}
		/* count / window <= thousandths / (1000 x unit), and not by more than the rounding of the window */
		uint64_t given = (uint64_t)rate.count * 1000 * units[unit].seconds * 1000000;
		uint64_t asked = (uint64_t)thousandths * rate.window_us;
		CU_ASSERT(given <= asked && asked - given < thousandths);
	}
}

static unsigned backlog_of(const char *lines)
{
	struct configuration *c = key(lines);
	unsigned backlog = first(c)->backlog_requests;
	configuration_free(c);
	return backlog;
}

static void backlog_is_worked_out_in_requests(void)
{
	CU_ASSERT_EQUAL(backlog_of("threshold = 100\nbacklog = 2"), 200);
	CU_ASSERT_EQUAL(backlog_of("threshold = 600/m\nbacklog = 2"), 20);
	CU_ASSERT_EQUAL(backlog_of("threshold = 5\nbacklog = 0.5"), 2);
	CU_ASSERT_EQUAL(backlog_of("threshold = 0.5\nbacklog = 0.1"), 1);
	CU_ASSERT_EQUAL(backlog_of("threshold = 100\nbacklog = 0"), 0);
	CU_ASSERT_EQUAL(backlog_of("threshold = 0\nbacklog = 5"), 0);
	CU_ASSERT_EQUAL(backlog_of("threshold = 1000000\nbacklog = 1"), 1000000);
	expect_error(key("threshold = 1000000\nbacklog = 86400"),
	             "weir.ini:1: [a]: threshold x backlog lets 86400000000 requests wait; allowed: at most 1000000");
}

static struct configuration *endpoints(const char *list)
{
	return command("reverse", "--endpoint", list, NULL);
}

static void endpoints_are_a_list_of_targets(void)
{
	struct configuration *c =
		endpoints(" a.b-c_d:1 ,[::1]:80*3,unix:/run/x.sock, UNIX:/y*256,10.0.0.1:65535*1 ,[fe80::1%eth0]:7");
	const struct settings_endpoints *e = &first(c)->endpoint;
	CU_ASSERT_EQUAL_FATAL(e->count, 6);
	CU_ASSERT_STRING_EQUAL(e->items[0].host, "a.b-c_d");
	CU_ASSERT_EQUAL(e->items[0].port, 1);
	CU_ASSERT_EQUAL(e->items[0].weight, 1);
	CU_ASSERT_STRING_EQUAL(e->items[1].host, "::1");
	CU_ASSERT_EQUAL(e->items[1].port, 80);
	CU_ASSERT_EQUAL(e->items[1].weight, 3);
	CU_ASSERT_TRUE(e->items[2].is_unix);
	CU_ASSERT_STRING_EQUAL(e->items[2].host, "/run/x.sock");
	CU_ASSERT_EQUAL(e->items[2].port, 0);
	CU_ASSERT_STRING_EQUAL(e->items[3].host, "/y");
	CU_ASSERT_EQUAL(e->items[3].weight, 256);
	CU_ASSERT_FALSE(e->items[4].is_unix);
	CU_ASSERT_EQUAL(e->items[4].port, 65535);
	CU_ASSERT_STRING_EQUAL(e->items[5].host, "fe80::1%eth0");
	configuration_free(c);
}

static void an_endpoint_that_is_wrong_is_named_within_its_list(void)
{
	expect_error_with(endpoints("a:1,b,c:2"),
	                  "--endpoint: \"a:1,b,c:2\" was read (\"b\": no port); allowed: host:port[*weight]");
	expect_error_with(endpoints("http://a:1"), "\"http://a:1\": a target, not a URL, is wanted");
	expect_error_with(endpoints("::1:80"), "an IPv6 address stands in brackets");
	expect_error_with(endpoints("[::1]"), "no port");
	expect_error_with(endpoints("[::g]:1"), "not an IPv6 address in brackets");
	expect_error_with(endpoints("[]:1"), "not an IPv6 address in brackets");
	expect_error_with(endpoints("[:1"), "not an IPv6 address in brackets");
	expect_error_with(endpoints("[::1%]:1"), "not an IPv6 address in brackets");
	expect_error_with(endpoints("a:0"), "no such port");
	expect_error_with(endpoints("a:65536"), "no such port");
	expect_error_with(endpoints("a:"), "no such port");
	expect_error_with(endpoints("a:http"), "no such port");
	expect_error_with(endpoints(":80"), "not a name or an IPv4 address");
	expect_error_with(endpoints("256.0.0.1:80"), "not a name or an IPv4 address");
	expect_error_with(endpoints("10.1:80"), "not a name or an IPv4 address");
	expect_error_with(endpoints("a b:80"), "not a name or an IPv4 address");
	expect_error_with(endpoints("a..b:80"), "not a name or an IPv4 address");
	expect_error_with(endpoints("-a:80"), "not a name or an IPv4 address");
	expect_error_with(endpoints("a:80*0"), "no such weight");
	expect_error_with(endpoints("a:80*257"), "no such weight");
	expect_error_with(endpoints("a:80*"), "no such weight");
	expect_error_with(endpoints("a:80*x"), "no such weight");
	expect_error_with(endpoints("a:80**2"), "no such port");
	expect_error_with(endpoints("unix:x"), "not an absolute path");
	expect_error_with(endpoints("unix:/"), "not an absolute path");
	expect_error_with(endpoints("a:80,"), "nothing between two commas");
	expect_error_with(endpoints(",a:80"), "nothing between two commas");
	expect_error_with(endpoints(","), "nothing between two commas");
	expect_error_with(endpoints("a:80,b:80,A:80*2"), "\"A:80*2\": twice in the list");
	expect_error_with(endpoints("unix:/a,unix:/a"), "twice in the list");
	expect_good(endpoints("a:80,a:81,unix:/a,unix:/A"));
	char *path = repeated("p", 107), *text;
	path[0] = '/';
	if (asprintf(&text, "unix:%s", path) < 0)
		abort();
	expect_good(endpoints(text));
	free(text);
	if (asprintf(&text, "unix:%sp", path) < 0)
		abort();
	expect_error_with(endpoints(text), "not an absolute path of at most 107 bytes");
	free(text);
	free(path);
}

static void a_thousand_endpoints_are_the_most(void)
{
	char *list = malloc(1025 * 8), *at = list;
	for (unsigned i = 0; i < 1025; i++) {
		at += sprintf(at, "%st:%u", i > 0 ? "," : "", i + 1);
		if (i == 1023) {
			struct configuration *c = endpoints(list);
			CU_ASSERT_EQUAL(first(c)->endpoint.count, 1024);
			configuration_free(c);
		}
	}
	expect_error_with(endpoints(list), "was read (too many); allowed: ");
	free(list);
}

static void names_paths_and_addresses_are_checked(void)
{
	EXPECT({ "hash_key = client", true }, { "hash_key = URI", true }, { "hash_key = header:X-User", true },
	       { "hash_key = header:", false }, { "hash_key = header:a b", false }, { "hash_key = header:a:b", false },
	       { "hash_key = cookie", false }, { "probe_path = /", true }, { "probe_path = /ping/?a=b", true },
	       { "probe_path = ping", false }, { "probe_path = http://a/", false }, { "probe_path = /a b", false },
	       { "probe_path = /a#b", false }, { "probe_path = /\xc3\xa9", false }, { "bind = 127.0.0.1", true },
	       { "bind = ::", true }, { "bind = fe80::1%eth0", true }, { "bind = unix:/run/weir", true },
	       { "bind = unix:weir", false }, { "bind = 127.0.0", false }, { "bind = localhost", false },
	       { "bind = ::,0.0.0.0", false }, { "bind = [::1]", false }, { "hostname = a b", false },
	       { "hostname = -a", false }, { "forwarded = OFF", true }, { "forwarded = no", false },
	       { "balance = hash", true }, { "balance = hashh", false }, { "balance = has", false },
	       { "mode = reverse", true }, { "mode = |", false });
	struct configuration *c = key("hash_key = uri\nforwarded = set\nbalance = leastconn");
	CU_ASSERT_EQUAL(first(c)->hash_key.kind, HASH_KEY_URI);
	CU_ASSERT_EQUAL(first(c)->forwarded, FORWARDED_SET);
	CU_ASSERT_EQUAL(first(c)->balance, BALANCE_LEASTCONN);
	configuration_free(c);
	expect_error_with(file("[globals]\nuser = a b\n[a]\nendpoint=t:1\n"), "weir.ini:2: user: \"a b\" was read");
	c = file("[globals]\nuser = _weir\nlog_format = json\nlogfile = /l\npidfile = p q\naccess_log = "
	         "-\n[a]\nendpoint=t:1\n");
	CU_ASSERT_FATAL(c != NULL);
	CU_ASSERT_STRING_EQUAL(c->globals.user, "_weir");
	CU_ASSERT_EQUAL(c->globals.log_format, FORMAT_JSON);
	CU_ASSERT_STRING_EQUAL(c->globals.pidfile, "p q");
	CU_ASSERT_STRING_EQUAL(c->globals.access_log, "-");
	configuration_free(c);
}

static void what_was_read_is_cut_and_escaped_in_an_error(void)
{
	char quoted[SETTINGS_QUOTE_MAX], *text = repeated("a", 10240);
	expect_error_with(command("reverse", "--endpoint", "t:1", "--port", text, NULL),
	                  "aaa...\" was read; allowed: a whole number");
	CU_ASSERT(strlen(error) < 200);
	free(text);
	CU_ASSERT_STRING_EQUAL(settings_quote("a\nb\x7f", quoted), "\"a\\x0ab\\x7f\"");
	text = repeated("\n", 300);
	CU_ASSERT(strlen(settings_quote(text, quoted)) < SETTINGS_QUOTE_MAX);
	free(text);
}

/* ---- clients, networks and rules ---- */

/* A value of the one service of a file with this line. The configuration is the caller's. */
static const struct settings *service_with(const char *line, struct configuration **c)
{
	*c = key(line);
	if (!*c)
		print_unexpected(line);
	return first(*c);
}

static void what_the_limits_of_clients_say_is_in_their_fields(void)
{
	struct configuration *c;
	const struct settings *s =
		service_with("queue = fair\nclient_rate = 600/m\nclient_burst = 7\nclient_block = 1.5\n"
			     "client_connections = 9\nclient_key = header:X-Api-Key\n"
			     "ratelimit_headers = legacy",
			     &c);
	CU_ASSERT_EQUAL(s->queue, QUEUE_FAIR);
	CU_ASSERT_EQUAL(s->client_rate.count, 600);
	CU_ASSERT_EQUAL(s->client_rate.window_us, 60000000);
	CU_ASSERT_EQUAL(s->client_burst, 7);
	CU_ASSERT_EQUAL(s->client_block_us, 1500000);
	CU_ASSERT_EQUAL(s->client_connections, 9);
	CU_ASSERT_TRUE(!s->client_key.client && !s->client_key.path);
	CU_ASSERT_STRING_EQUAL(s->client_key.header, "X-Api-Key");
	CU_ASSERT_EQUAL(s->ratelimit_headers, RATELIMIT_LEGACY);
	configuration_free(c);
	static const struct {
		const char *line;
		int value;
	} headers[] = { { "ratelimit_headers = both", RATELIMIT_BOTH },
			{ "ratelimit_headers = draft", RATELIMIT_DRAFT },
			{ "ratelimit_headers = legacy", RATELIMIT_LEGACY },
			{ "ratelimit_headers = off", RATELIMIT_OFF } };
	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
		CU_ASSERT_EQUAL(service_with(headers[i].line, &c)->ratelimit_headers, headers[i].value);
		configuration_free(c);
	}
}

static void a_burst_that_is_not_given_is_the_rate_and_at_least_1(void)
{
	static const struct {
		const char *line;
		unsigned burst;
	} cases[] = { { "client_rate = 5", 5 },
		      { "client_rate = 0.5", 1 },
		      { "client_rate = 600/m", 600 },
		      { "client_rate = 5\nclient_burst = 0", 5 },
		      { "client_rate = 5\nclient_burst = 1", 1 } };
	struct configuration *c;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		CU_ASSERT_EQUAL(service_with(cases[i].line, &c)->client_burst, cases[i].burst);
		configuration_free(c);
	}
	CU_ASSERT_EQUAL(service_with("limit.a = rate=5", &c)->rules[0].burst, 5);
	configuration_free(c);
	CU_ASSERT_EQUAL(service_with("limit.a = rate=0.1/m", &c)->rules[0].burst, 1);
	configuration_free(c);
}

static void a_client_is_an_address_or_a_header(void)
{
	static const struct sample samples[] = {
		{ "client_key = client", true },
		{ "client_key = CLIENT", true },
		{ "client_key = header:a", true },
		{ "client_key = Header:X-A", true },
		{ "client_key = header:", false },
		{ "client_key = header:a b", false },
		{ "client_key = path", false },
		{ "client_key = client+path", false },
		{ "client_key = client+header:a", false },
		{ "client_key = uri", false },
		{ "client_key =", false },
		{ "client_key = +", false },
		{ "client_block = -1", false },
		{ "client_block = 31536000", true },
		{ "client_block = 31536001", false },
		{ "client_burst = 1000000", true },
		{ "client_burst = 1000001", false },
		{ "client_burst = 0.5", false },
		{ "client_connections = 0", true },
		{ "client_connections = -1", false },
		{ "client_rate = 0.5/s", true },
		{ "client_rate = x", false },
		{ "queue = lifo", false },
		{ "ratelimit_headers = on", false },
	};
	expect_samples(samples, sizeof samples / sizeof samples[0]);
	expect_error(key("client_key = client+path"), "weir.ini:3: client_key: \"client+path\" was read (more than one "
						      "part); allowed: client, or header:NAME");
}

static void networks_are_a_list(void)
{
	static const struct sample samples[] = {
		{ "allow = all", true },
		{ "allow = ALL", true },
		{ "allow = none", false },
		{ "deny = none", true },
		{ "deny = None", true },
		{ "deny = all", true },
		{ "trust_forwarded = none", true },
		{ "trust_forwarded = all", true },
		{ "trust_forwarded = unix", true },
		{ "exempt = none", true },
		{ "allow = 10.0.0.0/8", true },
		{ "allow = 10.0.0.0/8,::1", true },
		{ "allow = 10.0.0.0/8 , ::1", true },
		{ "allow = 10.0.0.0/8,", false },
		{ "allow = ,10.0.0.0/8", false },
		{ "allow = 10.0.0.0/8 ::1", false },
		{ "allow = 10.0.0.1/8", false },
		{ "allow = 10.0.0.0/33", false },
		{ "allow = localhost", false },
		{ "allow = *", false },
		{ "deny = none, ::1", false },
		{ "deny = ::1, none", false },
		{ "allow = [::1]", false },
		{ "allow = ::1, all", true },
		{ "allow =", false },
		{ "allow = header:a=b", false },
		{ "allow = \"::1,::2\"", false },
	};
	expect_samples(samples, sizeof samples / sizeof samples[0]);
	expect_error(
		key("deny = ::1, 10.0.0.1/8"),
		"weir.ini:3: deny: \"::1, 10.0.0.1/8\" was read (\"10.0.0.1/8\": bits behind the network's are set); "
		"allowed: addresses and networks as 10.0.0.0/8 or 2001:db8::/32, unix (peers of a Unix socket), "
		"comma-separated, at most 4096; or all, or none");
	expect_error_with(key("allow = none"), "(\"none\": none stands alone, and not everywhere); allowed: addresses");
	expect_error_with(key("allow = none"), "at most 4096; or all");
	expect_error_with(key("allow = ::/129"), "\"::/129\": no such number of bits behind the /");
	expect_error_with(key("allow = host/8"), "\"host/8\": no address before the /");
	expect_error_with(key("allow = host"), "\"host\": not an address, a network or unix");
}

static void networks_keep_their_order_and_unix_is_a_flag(void)
{
	struct configuration *c;
	const struct settings *s = service_with("allow = 10.0.0.0/8, unix, 2001:db8::/32\ntrust_forwarded = all", &c);
	CU_ASSERT_EQUAL_FATAL(s->allow.count, 2);
	CU_ASSERT_TRUE(s->allow.has_unix);
	CU_ASSERT_EQUAL(s->allow.items[0].prefix_bits, 8);
	CU_ASSERT_EQUAL(s->allow.items[1].prefix_bits, 32);
	CU_ASSERT_EQUAL_FATAL(s->trust_forwarded.count, 2);
	CU_ASSERT_TRUE(s->trust_forwarded.has_unix);
	CU_ASSERT_EQUAL(s->trust_forwarded.items[0].prefix_bits + s->trust_forwarded.items[1].prefix_bits, 0);
	CU_ASSERT_NOT_EQUAL(s->trust_forwarded.items[0].family, s->trust_forwarded.items[1].family);
	configuration_free(c);
}

static void four_thousand_networks_are_the_most(void)
{
	char *list = repeated("10.0.0.0/8,", 4096), *line;
	list[strlen(list) - 1] = '\0';
	if (asprintf(&line, "deny = %s", list) < 0)
		abort();
	expect_good(key(line));
	free(line);
	if (asprintf(&line, "deny = %s,::1", list) < 0)
		abort();
	expect_error_with(key(line), " was read (too many); allowed: ");
	free(line);
	free(list);
}

static void exemptions_are_networks_and_headers(void)
{
	struct configuration *c;
	const struct settings *s =
		service_with("exempt = 10.0.0.0/8, header:X-Plan=gold, unix, header:X-Team=\"a, b\", header:X-Eq=a=b",
			     &c);
	CU_ASSERT_EQUAL(s->exempt.networks.count, 1);
	CU_ASSERT_TRUE(s->exempt.networks.has_unix);
	CU_ASSERT_EQUAL_FATAL(s->exempt.header_count, 3);
	CU_ASSERT_STRING_EQUAL(s->exempt.headers[0].name, "X-Plan");
	CU_ASSERT_STRING_EQUAL(s->exempt.headers[0].value, "gold");
	CU_ASSERT_STRING_EQUAL(s->exempt.headers[1].value, "a, b");
	CU_ASSERT_STRING_EQUAL(s->exempt.headers[2].value, "a=b");
	configuration_free(c);
	static const struct sample samples[] = {
		{ "exempt = header:a=b", true },       { "exempt = HEADER:a=b", true },
		{ "exempt = header:a=", false },       { "exempt = header:a", false },
		{ "exempt = header:=b", false },       { "exempt = header:a b=c", false },
		{ "exempt = header:a=\"b", false },    { "exempt = header:a=b\"", false },
		{ "exempt = header:a=\"\"", false },   { "exempt = header:a=\"b\"c", false },
		{ "exempt = header:a=\" b\"", false }, { "exempt = header:a=b,", false },
		{ "exempt = header:a=b c", true },     { "exempt = client", false },
		{ "exempt = header: a=b", false },
	};
	expect_samples(samples, sizeof samples / sizeof samples[0]);
}

static void a_rule_has_a_rate_and_whom_it_concerns(void)
{
	struct configuration *c;
	const struct settings *s =
		service_with("limit.Log-In = rate=30/m  burst=10\tkey=client+path+header:X-A method=POST,PUT "
			     "path=/login* host=api.example "
			     "header.X-Plan=free header.X-Team=\"a b\" mode=shadow\nlimit.all = rate=0.5",
			     &c);
	CU_ASSERT_EQUAL_FATAL(s->rule_count, 2);
	const struct settings_rule *rule = &s->rules[0];
	CU_ASSERT_STRING_EQUAL(rule->name, "log_in");
	CU_ASSERT_EQUAL(rule->rate.count, 30);
	CU_ASSERT_EQUAL(rule->rate.window_us, 60000000);
	CU_ASSERT_EQUAL(rule->burst, 10);
	CU_ASSERT_TRUE(rule->key.client && rule->key.path);
	CU_ASSERT_STRING_EQUAL(rule->key.header, "X-A");
	CU_ASSERT_STRING_EQUAL(rule->method, "POST,PUT");
	CU_ASSERT_STRING_EQUAL(rule->path, "/login");
	CU_ASSERT_TRUE(rule->path_is_prefix);
	CU_ASSERT_STRING_EQUAL(rule->host, "api.example");
	CU_ASSERT_EQUAL_FATAL(rule->header_count, 2);
	CU_ASSERT_STRING_EQUAL(rule->headers[0].name, "X-Plan");
	CU_ASSERT_STRING_EQUAL(rule->headers[0].value, "free");
	CU_ASSERT_STRING_EQUAL(rule->headers[1].value, "a b");
	CU_ASSERT_TRUE(rule->shadow);
	rule = &s->rules[1];
	CU_ASSERT_STRING_EQUAL(rule->name, "all");
	CU_ASSERT_EQUAL(rule->rate.count, 1);
	CU_ASSERT_EQUAL(rule->rate.window_us, 2000000);
	CU_ASSERT_TRUE(rule->key.client && !rule->key.path && !rule->key.header);
	CU_ASSERT_PTR_NULL(rule->method);
	CU_ASSERT_PTR_NULL(rule->path);
	CU_ASSERT_PTR_NULL(rule->host);
	CU_ASSERT_FALSE(rule->shadow || rule->path_is_prefix);
	CU_ASSERT_EQUAL(rule->header_count, 0);
	configuration_free(c);
}

static void a_rule_that_says_too_little_or_too_much_is_refused(void)
{
	static const struct sample samples[] = {
		{ "limit.a = rate=1", true },
		{ "limit.a = RATE=1 Mode=Shadow", true },
		{ "limit.a =", false },
		{ "limit.a = burst=1", false },
		{ "limit.a = rate", false },
		{ "limit.a = rate=", false },
		{ "limit.a = rate =1", false },
		{ "limit.a = rate= 1", false },
		{ "limit.a = rate=0", false },
		{ "limit.a = rate=-1", false },
		{ "limit.a = rate=1/w", false },
		{ "limit.a = rate=1 rate=1", false },
		{ "limit.a = rate=1,burst=2", false },
		{ "limit.a = rate=1 1", false },
		{ "limit.a = rate=1 speed=1", false },
		{ "limit.a = rate=1 burst=0", false },
		{ "limit.a = rate=1 burst=1000001", false },
		{ "limit.a = rate=1 burst=1 burst=1", false },
		{ "limit.a = rate=1 key=path", true },
		{ "limit.a = rate=1 key=header:a+client", true },
		{ "limit.a = rate=1 key=client+client", false },
		{ "limit.a = rate=1 key=header:a+header:b", false },
		{ "limit.a = rate=1 key=client+", false },
		{ "limit.a = rate=1 key=+client", false },
		{ "limit.a = rate=1 key=ip", false },
		{ "limit.a = rate=1 key=header:", false },
		{ "limit.a = rate=1 method=PO ST", false },
		{ "limit.a = rate=1 method=POST,", false },
		{ "limit.a = rate=1 method=,", false },
		{ "limit.a = rate=1 method=\"POST, PUT\"", false },
		{ "limit.a = rate=1 mode=off", false },
		{ "limit.a = rate=1 mode=shadow mode=shadow", false },
		{ "limit.a = rate=1 header.a=b header.b=b", true },
		{ "limit.a = rate=1 header.a=b header.A=c", false },
		{ "limit.a = rate=1 header.=b", false },
		{ "limit.a = rate=1 header=b", false },
		{ "limit.a = rate=1 header.a(=b", false },
		{ "limit.a = rate=1 header.a=\" b\"", false },
		{ "limit.a = rate=1 header.a=\"b\"", true },
		{ "limit.a = rate=1 header.a=\"b", false },
		{ "limit.a = rate=1 header.a=b\"c", false },
		{ "limit.a = rate=1 header.a=\"b\"c", false },
		{ "limit.a = rate=1 header.a=\"\"", false },
		{ "limit.a = rate=\"1\" header.a=\"b  c\"", true },
	};
	expect_samples(samples, sizeof samples / sizeof samples[0]);
}

static void a_rule_could_match_a_path_or_is_refused(void)
{
	static const struct sample samples[] = {
		{ "limit.a = rate=1 path=/", true },
		{ "limit.a = rate=1 path=/*", true },
		{ "limit.a = rate=1 path=/a/", true },
		{ "limit.a = rate=1 path=/a/*", true },
		{ "limit.a = rate=1 path=/.well-known/*", true },
		{ "limit.a = rate=1 path=/a/.*", true },
		{ "limit.a = rate=1 path=/a/..b", true },
		{ "limit.a = rate=1 path=\"/a b\"", true },
		{ "limit.a = rate=1 path=/100%", true },
		{ "limit.a = rate=1 path=/a..", true },
		{ "limit.a = rate=1 path=*", false },
		{ "limit.a = rate=1 path=a", false },
		{ "limit.a = rate=1 path=/*/a", false },
		{ "limit.a = rate=1 path=/a**", false },
		{ "limit.a = rate=1 path=//a", false },
		{ "limit.a = rate=1 path=/a//", false },
		{ "limit.a = rate=1 path=/a//*", false },
		{ "limit.a = rate=1 path=/a/./b", false },
		{ "limit.a = rate=1 path=/a/..", false },
		{ "limit.a = rate=1 path=/../a*", false },
		{ "limit.a = rate=1 path=/.", false },
		{ "limit.a = rate=1 path=/a/./*", false },
		{ "limit.a = rate=1 path=/a?b", false },
		{ "limit.a = rate=1 path=/%6cogin", false },
		{ "limit.a = rate=1 path=\"\"", false },
		{ "limit.a = rate=1 host=a", true },
		{ "limit.a = rate=1 host=10.0.0.1", true },
		{ "limit.a = rate=1 host=[::1]", true },
		{ "limit.a = rate=1 host=::1", true },
		{ "limit.a = rate=1 host=a.example.", true },
		{ "limit.a = rate=1 host=a:80", false },
		{ "limit.a = rate=1 host=[::1]:80", false },
		{ "limit.a = rate=1 host=[]", false },
		{ "limit.a = rate=1 host=[a]", false },
		{ "limit.a = rate=1 host=*.a", false },
		{ "limit.a = rate=1 host=.", false },
		{ "limit.a = rate=1 host=http://a", false },
	};
	struct configuration *c;

	expect_samples(samples, sizeof samples / sizeof samples[0]);
	CU_ASSERT_STRING_EQUAL(service_with("limit.a = rate=1 host=[2001:DB8::1]", &c)->rules[0].host, "2001:DB8::1");
	configuration_free(c);
	CU_ASSERT_STRING_EQUAL(service_with("limit.a = rate=1 host=a.example.", &c)->rules[0].host, "a.example");
	configuration_free(c);
}

static void what_is_wrong_with_a_rule_is_said(void)
{
	expect_error(key("limit.login = rate=5 pth=/login*"),
		     "weir.ini:3: limit.login: \"rate=5 pth=/login*\" was read (\"pth\": unknown); allowed: rate=5 (or "
		     "600/m, "
		     "0.5/s) and, each once, burst=10 key=client (path, header:NAME; joined by +) method=POST,PUT "
		     "path=/login (or /login*) host=api.example header.NAME=VALUE mode=shadow; a value with blanks in "
		     "double "
		     "quotes");
	expect_error_with(key("limit.a = rate=5 rate=6"), "(\"rate\": stands twice)");
	expect_error_with(key("limit.a = path=/x"), "(no rate)");
	expect_error_with(key("limit.a = rate=5 path=/a b"), "(\"b\": a word without =)");
	expect_error_with(key("limit.a = rate=5 path=//a"), "(path: written without //)");
	expect_error_with(key("limit.a = rate=5 key=ip"),
			  "(a part of the key is neither client, path nor header:NAME)");
	expect_error_with(command("reverse", "--endpoint=t:1", "--limit.a", "rate=x", NULL),
			  "--limit.a: \"rate=x\" was read (rate: not a number");
	expect_error_with(command("reverse", "--endpoint=t:1", "--limit.a", NULL),
			  "--limit.a: no value follows; allowed: rate=5");
}

static void the_names_of_rules_are_one_each_and_not_those_of_other_limits(void)
{
	expect_error(key("limit.a-b = rate=1\nLimit.A_B = rate=2"),
		     "weir.ini:4: \"Limit.A_B\" is set on line 3 already; allowed: once in a stanza");
	expect_good(key("limit.a.b = rate=1\nlimit.a = rate=2\nlimit.0 = rate=1"));
	expect_error(key("limit. = rate=1"), "weir.ini:3: unknown key \"limit.\"; did you mean \"limit.NAME\"? "
					     "(weir --help lists what is allowed)");
	expect_error(key("limit = rate=1"), "weir.ini:3: unknown key \"limit\"; did you mean \"limit.NAME\"? "
					    "(weir --help lists what is allowed)");
	expect_error(command("reverse", "--endpoint=t:1", "--limit=rate=1", NULL),
		     "unknown option \"--limit\"; did you mean --limit.NAME? (weir --help lists what is allowed)");
	expect_error_with(command("reverse", "--endpoint=t:1", "--limit.a b=rate=1", NULL),
			  "unknown option \"--limit.a b\"");
	expect_error_with(command("reverse", "--limit.a=rate=1", "--Limit.A=rate=1", NULL), "--limit.a: given twice");
	expect_error_with(key("limit.client = rate=1"), "weir has a limit of that name");
	expect_error_with(key("limit.Threshold = rate=1"), "weir has a limit of that name");
}

static void sixteen_rules_are_the_most_from_everywhere_together(void)
{
	static char *argv[2 + 17 + 1] = { "weir", "reverse" };
	static char flags[17][24];
	char text[1024], *at = text + sprintf(text, "[a]\nendpoint = t:1\n");

	for (unsigned i = 0; i < 16; i++)
		at += sprintf(at, "limit.r%u = rate=%u\n", i, i + 1);
	struct configuration *c = file_with(text, "--limit.r3", "rate=99");
	CU_ASSERT_EQUAL_FATAL(first(c)->rule_count, 16);
	CU_ASSERT_EQUAL(first(c)->rules[3].rate.count, 99); /* the flag's in the place of the file's */
	CU_ASSERT_EQUAL(first(c)->rules[15].rate.count, 16);
	configuration_free(c);
	expect_error_with(file_with(text, "--limit.new", "rate=1"),
			  "--limit.new: \"rate=1\" was read (too many rules; allowed: 16)");
	sprintf(at, "limit.r16 = rate=1\n");
	expect_error_with(file(text), "weir.ini:19: limit.r16: \"rate=1\" was read (too many rules; allowed: 16)");
	for (unsigned i = 0; i < 17; i++) {
		snprintf(flags[i], sizeof flags[i], "--limit.r%u=rate=1", i);
		argv[2 + i] = flags[i];
	}
	expect_error(assemble(19, argv, NULL, 0), "--limit.r16: too many rules; allowed: 16");
}

static void rules_are_printed_each_with_where_it_came_from(void)
{
	struct configuration *c = file_with("[a]\nendpoint = t:1\nlimit.B-1 = rate=5  path=/x\nlimit.a = rate=1\n"
					    "[b]\nendpoint = t:1\nport = 1\nlimit.c = rate=3\n",
					    "--limit.a", "rate=2");
	char *text = printed(c);
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text, "\nlimit.b_1 = rate=5  path=/x    # weir.ini:3\nlimit.a = rate=2    # flag --limit.a\n"));
	CU_ASSERT_PTR_NOT_NULL(
		strstr(text, "\nlimit.c = rate=3    # weir.ini:8\nlimit.a = rate=2    # flag --limit.a\n"));
	struct configuration *again = file(text);
	char *twice = again ? printed(again) : NULL;
	CU_ASSERT_PTR_NOT_NULL_FATAL(twice);
	CU_ASSERT_PTR_NOT_NULL(strstr(twice, "\nlimit.b_1 = rate=5  path=/x    # weir.ini:"));
	free(twice);
	configuration_free(again);
	free(text);
	configuration_free(c);
	c = file("[a]\nendpoint = t:1\n");
	text = printed(c);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\n# limit.NAME is not set    # default\n"));
	free(text);
	configuration_free(c);
}

/* ---- a forward proxy ---- */

static void a_forward_proxy_needs_no_endpoint_and_has_a_port_of_its_own(void)
{
	CU_ASSERT_EQUAL(port_of(command("forward", NULL)), 8080);
	CU_ASSERT_EQUAL(port_of(command("forward", "--dprl-port", "3128", NULL)), 3128);
	CU_ASSERT_EQUAL(port_of(file("[a]\nmode = forward\n")), 8080);
}

static void caps_are_kept_under_the_names_that_hosts_are_counted_by(void)
{
	struct configuration *c =
		file("[a]\nendpoint = t:1\nmax_connections = 25\ncap_backlog = 1.5\nredis_fail = local\n"
	             "host_limits = API.example.:443=5, api.example:8443 = 0,[2001:DB8::1]=7 , [::1]:81=1000000,127.1=9\n");
	static const char *const names[] = { "api.example", "api.example:8443", "[2001:db8::1]", "[::1]:81", "127.0.0.1" };
	static const unsigned caps[] = { 5, 0, 7, 1000000, 9 };
	const struct settings *s = first(c);

	CU_ASSERT_EQUAL(s->max_connections, 25);
	CU_ASSERT_EQUAL(s->cap_backlog_us, 1500000);
	CU_ASSERT_EQUAL(s->redis_fail, REDIS_FAIL_LOCAL);
	CU_ASSERT_EQUAL_FATAL(s->host_limits.count, 5);
	for (size_t i = 0; i < 5; i++) {
		CU_ASSERT_STRING_EQUAL(s->host_limits.items[i].name, names[i]);
		CU_ASSERT_EQUAL(s->host_limits.items[i].cap, caps[i]);
	}
	configuration_free(c);
}

static void a_cap_that_is_wrong_is_named_within_its_list(void)
{
	static const struct {
		const char *value, *reason;
	} cases[] = {
		{ "a", "\"a\": no =N" },
		{ "a=1,", "nothing between two commas" },
		{ "a=x", "\"a=x\": no such number" },
		{ "a=", "\"a=\": no such number" },
		{ "a=-1", "\"a=-1\": no such number" },
		{ "a=1000001", "\"a=1000001\": no such number" },
		{ "=5", "\"=5\": not a name" },
		{ "a/b=5", "\"a/b=5\": not a name" },
		{ "*.a=5", "\"*.a=5\": not a name" },
		{ "a:0=5", "\"a:0=5\": no such port" },
		{ "a:65536=5", "no such port" },
		{ "a:=5", "no such port" },
		{ "a:8x=5", "no such port" },
		{ "::1=5", "\"::1=5\": an IPv6 address stands in brackets" },
		{ "[::1=5", "no ] after the [" },
		{ "[::1]x=5", "not a colon after the ]" },
		{ "[::g]=5", "not a name" },
		{ "a=1, b=2, A.:80=3", "\"A.:80=3\": this host twice in the list" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char line[128];
		snprintf(line, sizeof line, "host_limits = %s", cases[i].value);
		expect_error_with(key(line), "weir.ini:3: host_limits: ");
		expect_error_with(key(line), cases[i].reason);
	}
	char *many = repeated("a=1,", 4097);
	char *line = malloc(strlen(many) + 32);
	sprintf(line, "host_limits = %s", many);
	expect_error_with(key(line), "(too many)");
	free(line);
	free(many);
}

static void rates_of_hosts_are_kept_under_the_same_names(void)
{
	struct configuration *c = file("[a]\nendpoint = t:1\nhost_rate = 600/m\nhost_backlog = 1.5\n"
	                               "host_rates = API.example.:443=5, api.example:8443 = 0.5/s,[::1]:81=0\n");
	static const char *const names[] = { "api.example", "api.example:8443", "[::1]:81" };
	static const struct settings_rate rates[] = { { 5, 1000000 }, { 1, 2000000 }, { 0, 1000000 } };
	const struct settings *s = first(c);

	CU_ASSERT_EQUAL(s->host_rate.count, 600);
	CU_ASSERT_EQUAL(s->host_rate.window_us, 60000000);
	CU_ASSERT_EQUAL(s->host_backlog_us, 1500000);
	CU_ASSERT_EQUAL_FATAL(s->host_rates.count, 3);
	for (size_t i = 0; i < 3; i++) {
		CU_ASSERT_STRING_EQUAL(s->host_rates.items[i].name, names[i]);
		CU_ASSERT_EQUAL(s->host_rates.items[i].rate.count, rates[i].count);
		CU_ASSERT_EQUAL(s->host_rates.items[i].rate.window_us, rates[i].window_us);
	}
	configuration_free(c);
}

static void a_rate_that_is_wrong_is_named_within_its_list(void)
{
	static const struct {
		const char *value, *reason;
	} cases[] = {
		{ "a", "\"a\": no =N" },          { "a=1,", "nothing between two commas" },
		{ "a=x", "\"a=x\": no such rate" }, { "a=", "\"a=\": no such rate" },
		{ "a=1/w", "\"a=1/w\": no such rate" }, { "a=1000001", "\"a=1000001\": no such rate" },
		{ "a/b=5", "\"a/b=5\": not a name" }, { "a=1, A.:443=2/m", "\"A.:443=2/m\": this host twice in the list" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char line[128];
		snprintf(line, sizeof line, "host_rates = %s", cases[i].value);
		expect_error_with(key(line), "weir.ini:3: host_rates: ");
		expect_error_with(key(line), cases[i].reason);
	}
	expect_error(file("[a]\nendpoint = t:1\nhost_rates = a=1, b=1000000\nhost_backlog = 2\n"),
	             "weir.ini:1: [a]: host_rate x host_backlog lets 2000000 requests wait; allowed: at most 1000000");
}

static void what_may_be_reached_is_a_list(void)
{
	struct configuration *c = command("reverse", "--endpoint=t:1", "--connect-allow",
	                                  "*:443, *.Example.com:80,10.0.0.0/8:*,[::1]:1", NULL);
	const struct destinations *list = &first(c)->connect_allow;
	CU_ASSERT_EQUAL_FATAL(list->count, 4);
	CU_ASSERT_EQUAL(list->items[0].kind, DESTINATION_ANY);
	CU_ASSERT_STRING_EQUAL(list->items[1].name, ".example.com");
	CU_ASSERT_EQUAL(list->items[2].network.prefix_bits, 8);
	CU_ASSERT_EQUAL(list->items[3].port, 1);
	configuration_free(c);
	expect_error_with(key("connect_allow = *:443, example.com"),
	                  "weir.ini:3: connect_allow: \"*:443, example.com\" was read (\"example.com\": no port");
	expect_error_with(key("connect_allow = *:443,"), "nothing between two commas");
	expect_error_with(key("connect_allow = ::1:443"), "an IPv6 address is written in brackets");
	expect_error_with(key("connect_allow = 10.0.0.1/8:443"), "not a name, an address, a network or *");
}

static void addresses_of_redis_are_checked(void)
{
	static const char *const good[] = { "localhost", "localhost:6379", "10.0.0.1:1", "[::1]", "[::1]:6380", "unix:/run/redis",
		                            "redis.example" };
	static const char *const bad[] = { ":6379", "localhost:", "localhost:0", "localhost:x", "::1", "[::1", "[::1]6379", "unix:redis",
		                           "redis://a", "a b", "10.1", "a:1:2" };
	char line[128];
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		snprintf(line, sizeof line, "redis_addr = %s", good[i]);
		expect_good(key(line));
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(line, sizeof line, "redis_addr = %s", bad[i]);
		expect_error_with(key(line), "weir.ini:3: redis_addr: ");
	}
}

static void the_status_of_caps_is_500_unless_a_status_was_set(void)
{
	struct configuration *c = key("port = 1");
	CU_ASSERT_EQUAL(first(c)->cap_reject_status, 500);
	configuration_free(c);
	c = key("reject_status = 503");
	CU_ASSERT_EQUAL(first(c)->reject_status, 503);
	CU_ASSERT_EQUAL(first(c)->cap_reject_status, 503);
	configuration_free(c);
	c = key("reject_status = 429");
	CU_ASSERT_EQUAL(first(c)->cap_reject_status, 429); /* said, though it is the default of rates */
	configuration_free(c);
}

/* reject_status = 429 in it would be read back as 429 for caps as well. */
static void what_check_prints_and_reads_back_keeps_the_status_of_caps(void)
{
	struct configuration *c = key("port = 1");
	char *text = printed(c);
	configuration_free(c);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\n# reject_status is not set: 429 for rates, 500 for caps    # default\n"));
	struct configuration *again = file(text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(again);
	CU_ASSERT_EQUAL(first(again)->reject_status, 429);
	CU_ASSERT_EQUAL(first(again)->cap_reject_status, 500);
	configuration_free(again);
	free(text);
	c = key("reject_status = 429");
	text = printed(c);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nreject_status = 429    # weir.ini:3\n"));
	configuration_free(c);
	free(text);
}

static unsigned cap_and_database(struct configuration *c)
{
	unsigned both = first(c)->max_connections * 100 + first(c)->redis_db;
	configuration_free(c);
	return both;
}

static void the_other_names_of_caps_and_redis_go_where_variables_and_flags_go(void)
{
	static char *variables[] = { "DPRL_MAX_CONNECTIONS=3", "REDIS_DB=4", "REDIS_ADDR=env:1", "REDIS_PASSWORD=from env", NULL };
	const char *text = "[a]\nendpoint = t:1\nmax_connections = 1\nredis_db = 2\nredis_addr = file:1\n";

	CU_ASSERT_EQUAL(cap_and_database(file(text)), 102);
	environment = variables;
	CU_ASSERT_EQUAL(cap_and_database(file(text)), 304);
	CU_ASSERT_EQUAL(cap_and_database(file_with(text, "--dprl-max-connections", "5")), 504);
	CU_ASSERT_EQUAL(cap_and_database(file_with(text, "--redis-db", "6")), 306);
	struct configuration *c = file_with(text, "--redis-addr", "flag:1");
	CU_ASSERT_STRING_EQUAL(first(c)->redis_addr, "flag:1");
	CU_ASSERT_STRING_EQUAL(first(c)->redis_password, "from env");
	char *shown = printed(c);
	CU_ASSERT_PTR_NOT_NULL(strstr(shown, "max_connections = 3    # environment DPRL_MAX_CONNECTIONS\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(shown, "redis_addr = flag:1    # flag --redis-addr\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(shown, "# redis_password = ********    # environment REDIS_PASSWORD\n"));
	CU_ASSERT_PTR_NULL(strstr(shown, "from env"));
	free(shown);
	configuration_free(c);
	environment = no_environment;
}

/* A file with this content; its path until the next call. */
static const char *content(const char *text, size_t length)
{
	static char path[64];
	snprintf(path, sizeof path, "/tmp/weir-settings-XXXXXX");
	int fd = mkstemp(path);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	CU_ASSERT_EQUAL_FATAL(write(fd, text, length), (ssize_t)length);
	close(fd);
	return path;
}

static void a_secret_may_stand_in_a_file_of_its_own(void)
{
	char line[256], text[512];
	const char *path = content("hush hush\n", 10);
	snprintf(line, sizeof line, "redis_password_file = %s", path);
	struct configuration *c = key(line);
	CU_ASSERT_STRING_EQUAL(first(c)->redis_password, "hush hush");
	char *shown = printed(c);
	CU_ASSERT_PTR_NULL(strstr(shown, "hush"));
	CU_ASSERT_PTR_NOT_NULL(strstr(shown, line));
	free(shown);
	configuration_free(c);
	/* Whoever goes before, says the value or the file. */
	snprintf(text, sizeof text, "[a]\nendpoint = t:1\n%s\n", line);
	c = file_with(text, "--redis-password", "said");
	CU_ASSERT_STRING_EQUAL(first(c)->redis_password, "said");
	configuration_free(c);
	c = file_with("[a]\nendpoint = t:1\nredis_password = said\n", "--redis-password-file", path);
	CU_ASSERT_STRING_EQUAL(first(c)->redis_password, "hush hush");
	configuration_free(c);
	snprintf(text, sizeof text, "%s\nredis_password = said", line);
	expect_error_with(key(text), "weir.ini:3: redis_password_file: ");
	expect_error_with(key(text), "the value itself is set as well");
	unlink(path);
	expect_error_with(key(line), "No such file or directory; allowed: a file with redis_password as its only line");
	/* Another machine's need not be here. */
	snprintf(text, sizeof text, "[a]\nendpoint = t:1\n[b]\nhostname = there\nauth_file = /nowhere\n%s\n", line);
	expect_good(file(text));
}

static void a_file_that_holds_no_secret_is_refused_and_its_content_not_shown(void)
{
	static const struct {
		const char *text;
		size_t length;
		const char *why;
	} cases[] = {
		{ "", 0, "nothing in it" },          { "\n", 1, "nothing in it" },
		{ "hush\nhush\n", 10, "a second line" }, { "hu\0sh", 5, "a control character" },
	};
	char line[256];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const char *path = content(cases[i].text, cases[i].length);
		snprintf(line, sizeof line, "redis_password_file = %s", path);
		expect_error_with(key(line), cases[i].why);
		CU_ASSERT_PTR_NULL(strstr(error, "hush"));
		unlink(path);
	}
	char *much = repeated("x", 4097);
	const char *path = content(much, 4097);
	snprintf(line, sizeof line, "redis_password_file = %s", path);
	expect_error_with(key(line), "more than 4096 bytes");
	unlink(path);
	free(much);
	expect_error_with(key("redis_password_file = /dev/null"), "not a regular file");
	expect_error_with(key("redis_password_file = /tmp"), "not a regular file");
}

static void a_file_of_users_is_looked_through(void)
{
	char line[256], wanted[256];
	const char *path = content("# users\nalice:secret\n", 21);
	snprintf(line, sizeof line, "auth_file = %s", path);
	snprintf(wanted, sizeof wanted, "weir.ini:3: auth_file: %s:2: no hash of crypt(3)", path);
	expect_error_with(key(line), wanted);
	CU_ASSERT_PTR_NULL(strstr(error, "secret"));
	unlink(path);
	expect_error_with(key(line), "No such file or directory");
	expect_error_with(key("auth_file = /dev/null"), "/dev/null: not a regular file");
	expect_error_with(command("reverse", "--endpoint=t:1", "--auth-file=/nowhere", NULL),
	                  "--auth-file: /nowhere: No such file or directory");
	static const char good[] = "alice:$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/\n";
	path = content(good, sizeof good - 1);
	snprintf(line, sizeof line, "auth_file = %s", path);
	expect_good(key(line));
	unlink(path);
}

/* ---- where it is looked at ---- */

static void an_admin_address_is_refused_when_it_is_none(void)
{
	expect_error(file("[globals]\nadmin = nine\n[a]\nendpoint = t:1\n"),
	             "weir.ini:2: admin: \"nine\" was read; allowed: a port, address:port, localhost:port, *:port or unix:/path; "
	             "IPv6 in brackets");
	expect_error(file("[a]\nendpoint = t:1\nstats_path = stats\n"),
	             "weir.ini:3: stats_path: \"stats\" was read; allowed: a path such as /stats: of visible ASCII characters without ? "
	             "and #, no / at the end");
}

static void another_threshold_keeps_all_else_and_outlives_what_it_came_from(void)
{
	struct configuration *c = file("[a]\nendpoint = t:1\nthreshold = 100\nbacklog = 2\nstats_path = /s\n");
	struct settings_rate rate = { .count = 7, .window_us = 1000000 }, large = { .count = 1000000, .window_us = 1000000 };
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	struct settings *first = settings_with_threshold(c->services[0], &rate, error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(first);
	CU_ASSERT_PTR_NULL(settings_with_threshold(c->services[0], &large, error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "threshold x backlog"));
	rate.count = 9;
	struct settings *second = settings_with_threshold(first, &rate, error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(second);
	configuration_free(c);
	settings_release(first);
	CU_ASSERT_EQUAL(second->threshold.count, 9);
	CU_ASSERT_EQUAL(second->backlog_requests, 18);
	CU_ASSERT_STRING_EQUAL(second->stats_path, "/s");
	CU_ASSERT_EQUAL(second->endpoint.count, 1);
	settings_release(second);
}

/* ---- secrets ---- */

static void a_secret_is_in_no_error(void)
{
	unsigned secrets = 0;
	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		char text[256], flag[SETTINGS_NAME_MAX + 8];
		if (!row->is_secret)
			continue;
		secrets++;
		const char *stanza = row->scope == SCOPE_GLOBAL ? "globals" : "a";
		static const char *const lines[] = { "%s = hush", "%s hush", "%sx = hush", "%s: hush hush #hush",
			                             "%s == hush" };
		for (size_t j = 0; j < sizeof lines / sizeof lines[0]; j++) {
			int used = snprintf(text, sizeof text, "[%s]\n", stanza);
			snprintf(text + used, sizeof text - (size_t)used, lines[j], row->name);
			struct configuration *c = file(text);
			CU_ASSERT_PTR_NULL(c);
			CU_ASSERT_PTR_NULL(strstr(error, "hush"));
		}
		snprintf(flag, sizeof flag, "--%s=hush", row->name);
		CU_ASSERT_PTR_NULL(command("reverse", flag, NULL));
		CU_ASSERT_PTR_NULL(strstr(error, "hush"));
		snprintf(flag, sizeof flag, "--%sx=hush", row->name);
		CU_ASSERT_PTR_NULL(command("reverse", flag, NULL));
		CU_ASSERT_PTR_NULL(strstr(error, "hush"));
	}
	CU_ASSERT(secrets >= 4);
	/* Where only a host is allowed people write the URL that other programs want. */
	CU_ASSERT_PTR_NULL(command("forward", "--parent=http://user:hush@p.example:80", NULL));
	CU_ASSERT_PTR_NULL(strstr(error, "hush"));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "--parent: \"********@p.example:80\" was read; allowed: "));
	CU_ASSERT_PTR_NULL(command("reverse", "--endpoint=http://a:hush@x:1,http://b:hush@y:2", NULL));
	CU_ASSERT_PTR_NULL(strstr(error, "hush"));
	variable("WEIR_REDIS_PASSWORDS=hush",
	         "unknown setting \"WEIR_REDIS_PASSWORDS\" in the environment; did you mean "
	         "WEIR_REDIS_PASSWORD? (weir --help lists what is allowed)");
}

static void a_secret_is_masked_when_it_is_printed(void)
{
	const struct settings_row *row = settings_row_find("cluster_secret");
	struct settings_origins *origins = settings_origins_create("weir.ini", 1);
	char *text = NULL;
	size_t length;
	struct settings_origin *origin = &origins->of[row - settings_rows];

	origin->source = SOURCE_FILE;
	origin->line = 4;
	origin->text = strdup("hush");
	FILE *out = open_memstream(&text, &length);
	settings_print_line(row, origins, out);
	fclose(out);
	CU_ASSERT_STRING_EQUAL(text, "# cluster_secret = ********    # weir.ini:4\n");
	free(text);
	settings_origins_destroy(origins);
}

/* ---- machines ---- */

#define FLEET                                                                   \
	"[one]\nhostname = micro1\nendpoint = t:1\nport = 1\n"                  \
	"[two]\nhostname = Micro2\nendpoint = t:1\nport = 2\n"                  \
	"[two more]\nhostname = micro2.example.org\nendpoint = t:1\nport = 3\n" \
	"[three]\nhostname = micro\nendpoint = t:1\nport = 4\n"

static void the_stanzas_of_this_machine_run(void)
{
	struct configuration *c = file(FLEET);
	CU_ASSERT_FATAL(c != NULL);
	CU_ASSERT_EQUAL(c->service_count, 2);
	CU_ASSERT_EQUAL(c->services[0]->port, 2);
	CU_ASSERT_EQUAL(c->services[1]->port, 3);
	configuration_free(c);
	c = file(FLEET "[all]\nendpoint = t:1\nport = 5\n");
	CU_ASSERT_FATAL(c != NULL);
	CU_ASSERT_EQUAL(c->service_count, 3);
	CU_ASSERT_EQUAL(c->services[2]->port, 5);
	configuration_free(c);
	hostname = "other";
	expect_error(file(FLEET),
	             "weir.ini: no stanza has hostname = \"other\", which is this machine; there are \"micro1\", "
	             "\"Micro2\", \"micro2.example.org\", \"micro\"; --node NAME chooses by the stanza's name");
	hostname = "micro2.example.org";
}

static void node_chooses_by_the_name_of_the_stanza(void)
{
	static char *two[] = { "weir", "-c", "weir.ini", "--node", "three", "--node=one", NULL };
	struct configuration *c = file_with(FLEET, "--node", "one");
	CU_ASSERT_EQUAL(c->service_count, 1);
	CU_ASSERT_EQUAL(first(c)->port, 1);
	configuration_free(c);
	c = assemble(6, two, FLEET, strlen(FLEET));
	CU_ASSERT_FATAL(c != NULL);
	CU_ASSERT_EQUAL(c->service_count, 2);
	CU_ASSERT_EQUAL(c->services[0]->port, 1);
	CU_ASSERT_EQUAL(c->services[1]->port, 4);
	configuration_free(c);
	expect_error(file_with(FLEET, "--node", "four"),
	             "--node: weir.ini has no stanza \"four\"; allowed: \"one\", \"two\", \"two more\", \"three\"");
	expect_error_with(file_with("[globals]\n[a]\nendpoint = t:1\n", "--node", "globals"),
	                  "has no stanza \"globals\"; allowed: \"a\"");
	expect_error(file_with(FLEET, "--node", NULL), "--node: no value follows; allowed: the name of a stanza");
}

static void a_long_list_of_names_is_cut(void)
{
	char *text = malloc(200 * 64), *at = text;
	for (unsigned i = 0; i < 200; i++)
		at += sprintf(at, "[some node %u]\nendpoint = t:1\nport = 0\n", i);
	expect_error_with(file_with(text, "--node", "x"), " ...");
	CU_ASSERT(strlen(error) < 500);
	free(text);
}

#define HERE "[here]\nendpoint = t:1\n[there]\nhostname = elsewhere\n"

static void stanzas_of_other_machines_are_checked_for_form_only(void)
{
	struct configuration *c =
		file(HERE "mode = forward\nunicast = 10.0.0.255:7\nkeyfile = /not/here\nlimit.x = rate=1\n");
	CU_ASSERT_EQUAL(first(c)->port, 8000);
	CU_ASSERT_EQUAL(c->service_count, 1);
	configuration_free(c);
	expect_error_with(file(HERE "port = x\n"), "weir.ini:5: port: \"x\" was read");
	expect_error_with(file(HERE "prot = 1\n"), "weir.ini:5: unknown key \"prot\"");
	expect_error_with(file(HERE "mode = sideways\n"), "weir.ini:5: mode: \"sideways\" was read");
	expect_error_with(file(HERE "limit.x = y\n"), "weir.ini:5: limit.x: \"y\" was read");
}

/* ---- several services ---- */

static struct configuration *pair(const char *a, const char *b)
{
	char text[256];
	snprintf(text, sizeof text, "[a]\nendpoint = t:1\n%s\n[b]\nendpoint = t:1\n%s\n", a, b);
	return file(text);
}

static void two_services_cannot_listen_at_one_place(void)
{
	expect_error(
		pair("port = 80", "port = 80"),
		"weir.ini:6: \"b\" listens on port 80, and so does \"a\" on line 3; allowed: another port or bind");
	expect_error(
		pair("", ""),
		"weir.ini:4: \"b\" listens on port 8000, and so does \"a\" on line 1; allowed: another port or bind");
	expect_error_with(pair("bind = 127.0.0.1", ""), "listens on port 8000");
	expect_error_with(pair("bind = 127.0.0.1", "bind = 0.0.0.0"), "listens on port 8000");
	expect_error_with(pair("bind = ::", "bind = ::1"), "listens on port 8000");
	expect_error_with(pair("bind = 0::1", "bind = ::1"), "listens on port 8000");
	expect_error(
		pair("bind = unix:/a", "bind = unix:/a"),
		"weir.ini:6: \"b\" listens on \"unix:/a\", and so does \"a\" on line 3; allowed: another port or bind");
	expect_good(pair("port = 80", "port = 81"));
	expect_good(pair("port = 0", "port = 0"));
	expect_good(pair("bind = 127.0.0.1", "bind = 127.0.0.2"));
	expect_good(pair("bind = 0.0.0.0", "bind = ::"));
	expect_good(pair("bind = unix:/a", "bind = unix:/b"));
	expect_good(pair("bind = unix:/a", ""));
}

static void two_nodes_of_one_group_cannot_have_one_id(void)
{
	expect_error(file("[a]\nhostname = x\nunicast = 10.0.0.255:7\nid = 2\n[b]\nhostname = y\nid = 02\nunicast = "
	                  "10.0.0.255:7\n"),
	             "weir.ini:7: id 2 is taken in the group by \"a\" on line 4; allowed: one that is not");
	expect_error_with(file("[a]\nhostname = x\nmulticast = 239.0.0.1:7\nid = 2\n[b]\nhostname = y\nid = "
	                       "2\nmulticast = 239.0.0.1:7\n"),
	                  "weir.ini:7: id 2 is taken");
	expect_good(file(
		"[a]\nhostname = x\nunicast = 10.0.0.255:7\nid = 2\n[b]\nhostname = y\nid = 2\nunicast = 10.0.0.255:8\n"
		"[c]\nendpoint = t:1\n"));
	expect_good(file("[a]\nendpoint = t:1\nid = 2\nport = 1\n[b]\nendpoint = t:1\nid = 2\nport = 2\n"));
}

static void a_group_is_compared_by_what_its_address_means(void)
{
	expect_error_with(file("[a]\nhostname = x\nunicast = 10.0.0.255:7\nid = 2\n[b]\nhostname = y\nid = 2\nunicast = "
	                       "10.0.0.255:07\n"),
	                  "weir.ini:7: id 2 is taken");
	expect_error_with(file("[a]\nhostname = x\nmulticast = [ff02::1]:7\nid = 2\n[b]\nhostname = y\nid = 2\nmulticast "
	                       "= [FF02:0::1]:7\n"),
	                  "weir.ini:7: id 2 is taken");
	expect_error_with(file("[a]\nhostname = x\npeers = m:1, n:2\nid = 2\n[b]\nhostname = y\nid = 2\npeers = m:1, n:2\n"),
	                  "weir.ini:7: id 2 is taken");
}

static void a_group_asks_for_an_id_and_there_is_one_group_at_most(void)
{
	expect_error(key("unicast = 10.0.0.255:7000"),
	             "weir.ini:3: unicast needs an id; allowed: id = 1 to 65535, of no other node of the group");
	expect_error(command("reverse", "--endpoint=t:1", "--peers=a:1", NULL),
	             "--peers: peers needs an id; allowed: id = 1 to 65535, of no other node of the group");
	expect_error(key("id = 1\nunicast = 10.0.0.255:7000\nmulticast = 239.1.2.3:7000"),
	             "weir.ini:5: multicast and unicast are both set; allowed: one of unicast, multicast and peers");
	expect_error_with(key("id = 1\npeers = a:1\nunicast = 10.0.0.255:7000"), "weir.ini:4: peers and unicast are both set");
}

static void a_group_counts_in_windows_of_a_week_at_most(void)
{
	expect_good(key("id = 1\nunicast = 10.0.0.255:7000\nthreshold = 0.143/d"));
	expect_error(key("id = 1\nunicast = 10.0.0.255:7000\nthreshold = 0.14/d"),
	             "weir.ini:5: threshold: in a group there may be a week between two starts, and not more; allowed: "
	             "0.143/d, or more");
	expect_good(key("threshold = 0.14/d"));
}

static void addresses_of_groups_are_broadcast_or_multicast_ones(void)
{
	static const char *const wrong[] = { "unicast = 10.0.0.1:7",   "unicast = 10.0.0.255",     "unicast = 239.0.0.255:7",
		                             "unicast = host:7",       "unicast = 10.0.0.255:0",   "unicast = [ff02::1]:7",
		                             "multicast = 10.0.0.1:7", "multicast = [2001::1]:7",  "multicast = 239.1.1.1",
		                             "multicast = 239.1.1.1:70000", "peers = a", "peers = a:1,", "peers = a:1, A:1",
		                             "peers = dns:a", "peers = dns:a:0", "peers = [::1:1", "partition = maybe" };
	static const char *const right[] = { "unicast = 255.255.255.255:1", "unicast = 127.255.255.255:65535",
		                             "multicast = 224.0.0.251:7", "multicast = [ff15::1]:7",
		                             "peers = a:1, b:1, 10.0.0.1:2, [2001:db8::1]:7", "peers = dns:weir.internal:7" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		char line[128];
		snprintf(line, sizeof line, "id = 1\n%s", wrong[i]);
		expect_error_with(key(line), "weir.ini:4: ");
	}
	for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
		char line[128];
		snprintf(line, sizeof line, "id = 1\n%s", right[i]);
		expect_good(key(line));
	}
}

static void the_size_of_a_group_is_what_the_file_lists(void)
{
	struct configuration *c = file("[a]\nendpoint = t:1\nid = 1\nunicast = 10.0.0.255:007\n[b]\nhostname = y\nid = 2\n"
	                               "unicast = 10.0.0.255:7\n[c]\nhostname = z\nid = 2\nunicast = 10.0.0.255:8\n");
	CU_ASSERT_STRING_EQUAL(first(c)->group_address, "10.0.0.255:7");
	CU_ASSERT_EQUAL(first(c)->group_size, 2);
	configuration_free(c);
	c = key("id = 1\npeers = a:1, b:1, [::1]:1");
	CU_ASSERT_STRING_EQUAL(first(c)->group_address, "a:1, b:1, [::1]:1");
	CU_ASSERT_EQUAL(first(c)->group_size, 3);
	CU_ASSERT_EQUAL(first(c)->peers.count, 3);
	CU_ASSERT_STRING_EQUAL(first(c)->peers.items[2].host, "::1");
	configuration_free(c);
	c = key("id = 1\npeers = a:1, dns:b:2");
	CU_ASSERT_EQUAL(first(c)->group_size, 0);
	CU_ASSERT_TRUE(!first(c)->peers.items[0].is_all && first(c)->peers.items[1].is_all);
	configuration_free(c);
	c = command("reverse", "--endpoint=t:1", "--id=4", "--unicast=10.0.0.255:7", "--partition=strict", NULL);
	CU_ASSERT_EQUAL(first(c)->group_size, 0);
	CU_ASSERT_EQUAL(first(c)->partition, PARTITION_STRICT);
	configuration_free(c);
	c = key("id = 7");
	CU_ASSERT_PTR_NULL(first(c)->group_address);
	configuration_free(c);
}

/* ---- real files ---- */

static char *write_file(const char *folder, const char *text)
{
	char *path;
	if (asprintf(&path, "%s/weir.ini", folder) < 0)
		abort();
	FILE *out = fopen(path, "w");
	if (!out || fputs(text, out) < 0 || fclose(out) != 0)
		abort();
	return path;
}

static void a_file_that_cannot_be_read_is_named_with_the_reason(void)
{
	expect_error(command("-c", "/no/such/weir.ini", NULL),
	             "-c /no/such/weir.ini: cannot be read: No such file or directory");
	expect_error(command("-c", "/", NULL), "-c /: cannot be read: Is a directory");
	expect_error(command("-c", "/dev/null", NULL),
	             "/dev/null: has no stanza; allowed: one or more, as [name], and keys below it");
	char *path = repeated("long/", 2000);
	expect_error_with(command("-c", path, NULL), "cannot be read: File name too long");
	free(path);
	if (geteuid() == 0)
		return; /* root reads everything */
	char folder[] = "/tmp/weir-settings-XXXXXX";
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	path = write_file(folder, "[a]\n");
	chmod(path, 0);
	expect_error_with(command("-c", path, NULL), "cannot be read: Permission denied");
	unlink(path);
	rmdir(folder);
	free(path);
}

static void a_file_is_read_again_from_where_it_was(void)
{
	static char *argv[] = { "weir", "-c", "weir.ini", NULL };
	char folder[] = "/tmp/weir-settings-XXXXXX", here[PATH_MAX];

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	CU_ASSERT_PTR_NOT_NULL_FATAL(getcwd(here, sizeof here));
	char *path = write_file(folder, "[a]\nendpoint = t:1\nport = 1\n");
	CU_ASSERT_EQUAL_FATAL(chdir(folder), 0);
	clearenv(); /* configuration_read() reads the real one */
	error[0] = '\0';
	struct configuration *old = configuration_read(3, argv, &wish, error);
	CU_ASSERT_EQUAL_FATAL(chdir("/"), 0); /* as a daemon does */
	CU_ASSERT_EQUAL(first(old)->port, 1);

	free(write_file(folder, "[a]\nendpoint = t:1\nport = 2\n"));
	struct configuration *new = configuration_reread(old, error);
	CU_ASSERT_EQUAL(first(new)->port, 2);
	free(write_file(folder, "[a]\nendpoint = t:1\nport = two\n"));
	struct configuration *wrong = configuration_reread(new, error);
	CU_ASSERT_PTR_NULL(wrong);
	CU_ASSERT_STRING_EQUAL(error, "weir.ini:3: port: \"two\" was read; allowed: a whole number from 0 to 65535");
	CU_ASSERT_EQUAL(first(new)->port, 2);
	configuration_free(old);
	configuration_free(new);
	unlink(path);
	CU_ASSERT_EQUAL(chdir(here), 0);
	rmdir(folder);
	free(path);
}

/* ---- the rest ---- */

static void settings_outlive_their_configuration_while_they_are_held(void)
{
	struct configuration *c = command("reverse", "--endpoint", "t:1", NULL);
	struct settings *held = settings_hold(c->services[0]);
	CU_ASSERT_PTR_EQUAL(held, first(c));
	configuration_free(c);
	CU_ASSERT_STRING_EQUAL(held->endpoint.items[0].host, "t");
	settings_release(held);
	settings_release(NULL);
	configuration_free(NULL);
}

static char *written(void (*print)(FILE *))
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	print(out);
	fclose(out);
	return text;
}

/* All that is idle in a service, a line each. */
static void expect_idle(const struct settings *settings, const char *const *wanted, size_t count)
{
	char line[SETTINGS_IDLE_MAX];
	size_t at = 0, found = 0;

	for (; settings_next_idle(settings, &at, line); found++) {
		CU_ASSERT_TRUE_FATAL(found < count);
		CU_ASSERT_STRING_EQUAL(line, wanted[found]);
	}
	CU_ASSERT_EQUAL(found, count);
}

static void what_does_nothing_in_a_mode_is_found_where_it_was_set(void)
{
	static char *variables[] = { "REDIS_DB=3", "WEIR_BALANCE=leastconn", NULL };
	environment = variables;
	struct configuration *c = file_with("[a]\nmode = packet\nport = 1\nendpoint = t:1\nretries = 1\n"
	                                    "redis_addr = r\nredis_db = 0\n[b]\nendpoint = t:1\nport = 2\nhost_limits = h=1\n"
	                                    "[c]\nmode = forward\nport = 3\nhost_limits = h=1\n",
	                                    "--probe-rise", "2");
	environment = no_environment;
	static const char *const in_packet[] = {
		"weir.ini:4: endpoint does nothing in mode packet, only in reverse",
		"weir.ini:6: redis_addr does nothing in mode packet, only in reverse, forward",
	};
	static const char *const in_reverse[] = { "weir.ini:11: host_limits does nothing in mode reverse, only in forward" };
	static const char *const in_forward[] = {
		"--probe-rise: probe_rise does nothing in mode forward, only in reverse, packet"
	};
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	expect_idle(c->services[0], in_packet, 2);
	expect_idle(c->services[1], in_reverse, 1);
	expect_idle(c->services[2], in_forward, 1);
	configuration_free(c);
}

static void what_does_nothing_without_another_is_found(void)
{
	struct configuration *c = file_with("[a]\nendpoint = t:1\nport = 1\nbacklog = 2\nburst = 0\nredis_db = 3\n"
	                                    "[b]\nendpoint = t:1\nport = 2\nthreshold = 5\nbacklog = 2\nburst = 1\n"
	                                    "client_rate = 1\n",
	                                    "--client-burst", "2");
	static const char *const alone[] = {
		"weir.ini:4: backlog does nothing without threshold",
		"--client-burst: client_burst does nothing without client_rate",
		"weir.ini:6: redis_db does nothing without redis_addr",
	};
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	expect_idle(c->services[0], alone, 3);
	expect_idle(c->services[1], NULL, 0);
	configuration_free(c);
}

static void help_and_reference_name_every_setting(void)
{
	char *help = written(settings_print_help), *reference = written(settings_print_reference);
	char word[SETTINGS_NAME_MAX + 8];

	for (size_t i = 0; i < settings_row_count; i++) {
		const struct settings_row *row = &settings_rows[i];
		snprintf(word, sizeof word, "| `%s%s` |", row->name, row->is_prefix ? ".NAME" : "");
		CU_ASSERT_PTR_NOT_NULL(strstr(reference, word));
		CU_ASSERT_PTR_NOT_NULL(strstr(help, row->help));
		if (row->only_in_file)
			continue;
		settings_spell_flag(row->name, word);
		strcat(word, settings_row_suffix(row->name));
		CU_ASSERT_PTR_NOT_NULL(strstr(help, word));
		if (row->is_prefix)
			continue; /* no variable */
		settings_spell_environment(row->name, word);
		CU_ASSERT_PTR_NOT_NULL(strstr(reference, word));
	}
	free(help);
	free(reference);
}

static void a_guess_is_made_when_few_letters_differ(void)
{
	CU_ASSERT_STRING_EQUAL(settings_row_guess("thresold"), "threshold");
	CU_ASSERT_STRING_EQUAL(settings_row_guess("prot"), "port");
	CU_ASSERT_STRING_EQUAL(settings_row_guess("Max-Client"), "max_clients");
	CU_ASSERT_STRING_EQUAL(settings_row_guess("end_point"), "endpoint");
	CU_ASSERT_PTR_NULL(settings_row_guess("x"));
	CU_ASSERT_PTR_NULL(settings_row_guess("something_else"));
	CU_ASSERT_EQUAL(settings_distance("prot", "port"), 1);
	CU_ASSERT_EQUAL(settings_distance("", "port"), 4);
	CU_ASSERT_EQUAL(settings_distance("kitten", "sitting"), 3);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(the_proxypy_example_is_read_as_it_stands),
		TEST(defaults_are_those_of_the_contract),
		TEST(every_row_of_the_table_is_complete),
		TEST(a_flag_goes_before_the_environment_before_the_file_before_the_default),
		TEST(a_value_that_owns_memory_is_replaced_by_the_one_before_it),
		TEST(a_wrong_value_in_the_file_is_an_error_even_under_a_flag),
		TEST(flags_override_every_stanza_that_runs),
		TEST(check_prints_each_value_with_where_it_came_from),
		TEST(what_check_prints_reads_back_as_the_same_settings),
		TEST(a_value_that_no_file_could_hold_is_refused_from_elsewhere),
		TEST(a_flag_may_be_spelt_in_every_common_way),
		TEST(switches_say_what_is_wished),
		TEST(without_a_mode_or_a_file_both_forms_are_told),
		TEST(the_mode_is_a_setting_as_others_are),
		TEST(a_flag_that_is_wrong_is_named),
		TEST(the_environment_has_weir_names_and_a_few_others),
		TEST(a_variable_that_is_wrong_is_named_and_an_empty_one_is_not_set),
		TEST(errors_name_the_file_and_the_line),
		TEST(the_first_error_of_a_file_is_the_one_reported),
		TEST(comments_begin_at_the_start_of_a_line_or_after_a_blank),
		TEST(an_indented_line_is_a_line_of_its_own_never_more_of_the_value_above),
		TEST(line_ends_of_windows_a_missing_last_one_and_a_byte_order_mark_are_fine),
		TEST(a_file_that_is_no_text_is_refused),
		TEST(a_line_may_have_64_kib_and_no_more),
		TEST(a_value_of_ten_kib_arrives_whole),
		TEST(no_byte_of_a_value_is_lost_at_a_seam),
		TEST(a_stanza_may_have_a_long_name),
		TEST(a_file_with_too_much_in_it_is_refused),
		TEST(numbers_are_digits_within_bounds),
		TEST(durations_are_decimal_seconds_within_bounds),
		TEST(a_duration_is_exact_to_the_microsecond),
		TEST(sizes_are_bytes_or_powers_of_1024),
		TEST(rates_are_whole_numbers_in_a_window),
		TEST(a_rate_never_lets_more_through_than_was_asked_for),
		TEST(backlog_is_worked_out_in_requests),
		TEST(endpoints_are_a_list_of_targets),
		TEST(an_endpoint_that_is_wrong_is_named_within_its_list),
		TEST(a_thousand_endpoints_are_the_most),
		TEST(names_paths_and_addresses_are_checked),
		TEST(what_was_read_is_cut_and_escaped_in_an_error),
		TEST(what_the_limits_of_clients_say_is_in_their_fields),
		TEST(a_burst_that_is_not_given_is_the_rate_and_at_least_1),
		TEST(a_client_is_an_address_or_a_header),
		TEST(networks_are_a_list),
		TEST(networks_keep_their_order_and_unix_is_a_flag),
		TEST(four_thousand_networks_are_the_most),
		TEST(exemptions_are_networks_and_headers),
		TEST(a_rule_has_a_rate_and_whom_it_concerns),
		TEST(a_rule_that_says_too_little_or_too_much_is_refused),
		TEST(a_rule_could_match_a_path_or_is_refused),
		TEST(what_is_wrong_with_a_rule_is_said),
		TEST(the_names_of_rules_are_one_each_and_not_those_of_other_limits),
		TEST(sixteen_rules_are_the_most_from_everywhere_together),
		TEST(rules_are_printed_each_with_where_it_came_from),
		TEST(a_forward_proxy_needs_no_endpoint_and_has_a_port_of_its_own),
		TEST(caps_are_kept_under_the_names_that_hosts_are_counted_by),
		TEST(a_cap_that_is_wrong_is_named_within_its_list),
		TEST(rates_of_hosts_are_kept_under_the_same_names),
		TEST(a_rate_that_is_wrong_is_named_within_its_list),
		TEST(what_may_be_reached_is_a_list),
		TEST(addresses_of_redis_are_checked),
		TEST(the_status_of_caps_is_500_unless_a_status_was_set),
		TEST(what_check_prints_and_reads_back_keeps_the_status_of_caps),
		TEST(the_other_names_of_caps_and_redis_go_where_variables_and_flags_go),
		TEST(a_secret_may_stand_in_a_file_of_its_own),
		TEST(a_file_that_holds_no_secret_is_refused_and_its_content_not_shown),
		TEST(a_file_of_users_is_looked_through),
		TEST(an_admin_address_is_refused_when_it_is_none),
		TEST(another_threshold_keeps_all_else_and_outlives_what_it_came_from),
		TEST(a_secret_is_in_no_error),
		TEST(a_secret_is_masked_when_it_is_printed),
		TEST(the_stanzas_of_this_machine_run),
		TEST(node_chooses_by_the_name_of_the_stanza),
		TEST(a_long_list_of_names_is_cut),
		TEST(stanzas_of_other_machines_are_checked_for_form_only),
		TEST(two_services_cannot_listen_at_one_place),
		TEST(two_nodes_of_one_group_cannot_have_one_id),
		TEST(a_group_is_compared_by_what_its_address_means),
		TEST(a_group_asks_for_an_id_and_there_is_one_group_at_most),
		TEST(a_group_counts_in_windows_of_a_week_at_most),
		TEST(addresses_of_groups_are_broadcast_or_multicast_ones),
		TEST(the_size_of_a_group_is_what_the_file_lists),
		TEST(a_file_that_cannot_be_read_is_named_with_the_reason),
		TEST(a_file_is_read_again_from_where_it_was),
		TEST(settings_outlive_their_configuration_while_they_are_held),
		TEST(what_does_nothing_in_a_mode_is_found_where_it_was_set),
		TEST(what_does_nothing_without_another_is_found),
		TEST(help_and_reference_name_every_setting),
		TEST(a_guess_is_made_when_few_letters_differ),
	};
	return unit_main("settings", tests, sizeof tests / sizeof tests[0]);
}
