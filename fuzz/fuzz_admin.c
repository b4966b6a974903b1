/* fuzz_admin.c: requests to the admin server from random bytes: who may ask, and what a change says.
 *
 *      bytes ──► http_parse_request() ──► guard_check()      a change from elsewhere passes with the token alone
 *      the rest, as a body ──► control_put_limits(), control_put_targets()
 *                                   │ good: 200          what is in force is what was asked for, within its bounds
 *                                   └ wrong: 4xx, why    one line; nothing has changed
 *
 * Two services live as long as the run, one reverse and one forward; they listen and nobody serves: what changes is
 * theirs, as when weir runs.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "lib/guard.h"
#include "service.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct proxy *proxies[2];

static void must(bool holds, const char *what, const char *why)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s: \"%s\"\n", what, why);
	abort();
}

static struct proxy *create_service(struct log *log, char **arguments, int count)
{
	char error[SETTINGS_ERROR_MAX] = "";
	enum configuration_wish wish;
	struct configuration *configuration = configuration_read(count, arguments, &wish, error);
	must(configuration != NULL, "the settings are good", error);
	struct proxy *proxy = proxy_create(configuration->services[0], log, error, sizeof error);
	must(proxy != NULL, "there is a service", error);
	configuration_free(configuration);
	return proxy;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char *reverse[] = { "weir", "reverse", "--port", "0", "--bind", "127.0.0.1", "--endpoint", "127.0.0.1:1", NULL };
	static char *forward[] = { "weir", "forward", "--port", "0", "--bind", "127.0.0.1", "--max-connections", "5", NULL };
	char error[256] = "";
	struct log_options options = { .path = "/dev/null", .level = LOG_LEVEL_ERROR };
	struct log *log = log_create(&options, error, sizeof error);
	(void)argc;
	(void)argv;
	must(log != NULL, "there is a log", error);
	proxies[0] = create_service(log, reverse, 8);
	proxies[1] = create_service(log, forward, 8);
	return 0;
}

/* The head of the request, if it is one. Returns its length. */
static size_t look_at_head(const char *bytes, size_t size)
{
	struct http_scan scan = { .seen = 0 };
	struct http_head head;
	struct address here, elsewhere;
	size_t length = 0;
	if (http_scan(&scan, bytes, size, &length) != HTTP_SCAN_COMPLETE ||
	    http_parse_request(bytes + scan.skipped, length, &head).status != 0)
		return 0;
	struct guard open = { .machine_name = "machine" }, locked = { .token = "hush", .machine_name = "machine" };
	must(address_parse("127.0.0.1", 1, &here) && address_parse("192.0.2.1", 1, &elsewhere), "these are addresses", "");
	guard_check(&open, &here, &head);
	guard_check(&locked, &here, &head);
	bool reads = head.method == HTTP_GET || head.method == HTTP_HEAD;
	must(reads || guard_check(&open, &elsewhere, &head) != GUARD_PASS, "without a token nobody elsewhere changes a thing", "");
	const struct http_field *field = http_find_name(&head, "Authorization");
	bool has_token = field != NULL && memmem(field->value.at, field->value.length, "hush", 4) != NULL;
	must(reads || has_token || guard_check(&locked, &elsewhere, &head) != GUARD_PASS, "nobody passes without the token", "");
	return scan.skipped + length;
}

struct state {
	unsigned generations[2], default_cap;
	size_t cap_count;
	struct settings_rate thresholds[2];
};

static struct state look(void)
{
	struct state state;
	struct host_limits limits = { .items = NULL };
	memset(&state, 0, sizeof state);
	for (size_t i = 0; i < 2; i++) {
		struct settings *settings = service_settings(proxies[i], &state.generations[i]);
		state.thresholds[i] = settings->threshold;
		settings_release(settings);
	}
	must(hosts_limits(proxies[1]->hosts, &state.default_cap, &limits) == 0, "there is memory", "");
	state.cap_count = limits.count;
	host_limits_free(&limits);
	return state;
}

static bool same(const struct state *a, const struct state *b)
{
	for (size_t i = 0; i < 2; i++)
		if (a->generations[i] != b->generations[i] || a->thresholds[i].count != b->thresholds[i].count ||
		    a->thresholds[i].window_us != b->thresholds[i].window_us)
			return false;
	return a->default_cap == b->default_cap && a->cap_count == b->cap_count;
}

static void check_why(int status, const char *why)
{
	if (status == 200)
		return;
	must(status == 400 || status == 404, "a refusal is the client's fault", why);
	must(why[0] != '\0' && strpbrk(why, "\r\n") == NULL, "a reason is one line", why);
}

static void change(const char *body, size_t length)
{
	char why[CONTROL_WHY_MAX] = "";
	for (size_t count = 1; count <= 2; count++) {
		struct state before = look();
		int status = control_put_limits(proxies, count, body, length, why);
		struct state after = look();
		check_why(status, why);
		must(status == 200 || same(&before, &after), "what is wrong changes nothing", why);
		must(after.thresholds[0].count <= LIMITER_THRESHOLD_MAX && after.default_cap <= 1000000, "limits are bounded", "");
		status = control_put_targets(proxies, count, body, length, why);
		check_why(status, why);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *bytes = malloc(size + 1);
	must(bytes != NULL, "there is memory", "");
	memcpy(bytes, data, size);
	bytes[size] = '\0'; /* as admin.c does */
	size_t head = look_at_head(bytes, size);
	change(bytes + head, size - head);
	free(bytes);
	return 0;
}
