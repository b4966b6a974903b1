/* admission.c: see admission.h. The rooms it calls do the work: access (who), rules (which), client_limits (how many). */
#include "admission.h"

#include <stdio.h>
#include <string.h>

#include "access.h"
#include "rules.h"

/* What a client is counted as: its address, or for IPv6 its /64, which is what one customer is given. */
static void counted_text(const struct address *client, char out[ADDRESS_TEXT_MAX])
{
	struct address network = *client;
	if (client->any.sa_family == AF_INET6)
		memset(&network.v6.sin6_addr.s6_addr[8], 0, 8);
	address_host_text(&network, out);
}

/* One limit that concerns this request. */
struct question {
	const char *name, *label;
	struct settings_rate rate;
	unsigned burst;
	const struct settings_key *key;
	uint64_t block_us;
	bool shadow;
};

struct inquiry {
	struct client_limits *limits;
	const struct http_head *request;
	struct http_text client, path;
	const char *names[ADMISSION_LIMITS_MAX];  /* as the settings call the limit */
	const char *labels[ADMISSION_LIMITS_MAX]; /* as the RateLimit fields do */
	struct client_ask asks[ADMISSION_LIMITS_MAX];
	size_t count;
};

static void add_question(struct inquiry *inquiry, const struct question *question, bool is_exempt)
{
	char key[RULES_PATH_MAX + 1024];
	size_t length = rules_key(question->key, inquiry->request, inquiry->path, inquiry->client, key, sizeof key);
	inquiry->names[inquiry->count] = question->name;
	inquiry->labels[inquiry->count] = question->label;
	inquiry->asks[inquiry->count++] =
		(struct client_ask){ .key = client_limits_hash(inquiry->limits, question->name, key, length),
		                     .count = question->rate.count,
		                     .window_us = question->rate.window_us,
		                     .burst = question->burst,
		                     .block_us = question->block_us,
		                     .shadow = question->shadow,
		                     .exempt = is_exempt };
}

static void ask_of_client_rate(struct inquiry *inquiry, const struct settings *settings, bool is_exempt)
{
	struct question question = { .name = "client_rate",
		                     .label = "client",
		                     .rate = settings->client_rate,
		                     .burst = settings->client_burst,
		                     .key = &settings->client_key,
		                     .block_us = settings->client_block_us };
	add_question(inquiry, &question, is_exempt);
}

static void ask_of_rules(struct inquiry *inquiry, const struct settings *settings, bool is_exempt)
{
	for (size_t i = 0; i < settings->rule_count && inquiry->count < ADMISSION_LIMITS_MAX; i++) {
		const struct settings_rule *rule = &settings->rules[i];
		if (!rules_match(rule, inquiry->request, inquiry->path))
			continue;
		struct question question = {
			.name = rule->name, .label = rule->name, .rate = rule->rate, .burst = rule->burst, .key = &rule->key,
			.shadow = rule->shadow
		};
		add_question(inquiry, &question, is_exempt);
	}
}

/* Takes what the questions brought to light over into the admission. */
static void note_answers(const struct inquiry *inquiry, struct admission *out)
{
	for (size_t i = 0; i < inquiry->count; i++) {
		const struct client_ask *ask = &inquiry->asks[i];
		out->limits[out->limit_count++] = (struct ratelimit){ .name = inquiry->labels[i],
			                                              .quota = ask->count,
			                                              .window_us = ask->window_us,
			                                              .remaining = ask->remaining,
			                                              .reset_us = ask->is_over ? ask->retry_after_us : ask->reset_us };
		if (!ask->is_over)
			continue;
		if (ask->shadow) {
			out->shadowed_by = inquiry->names[i];
		} else if (!ask->exempt && (out->refused_by == NULL || ask->retry_after_us > out->retry_after_us)) {
			out->refused_by = inquiry->names[i];
			out->retry_after_us = ask->retry_after_us;
		}
	}
}

static enum admission_verdict ask_limits(struct client_limits *limits, const struct settings *settings,
                                         const struct http_head *request, uint64_t now_us, struct admission *out)
{
	char client[ADDRESS_TEXT_MAX], path[RULES_PATH_MAX];
	struct inquiry inquiry = { .limits = limits, .request = request };
	inquiry.count = 0;
	counted_text(&out->client, client);
	inquiry.client = (struct http_text){ client, strlen(client) };
	inquiry.path = (struct http_text){ path, rules_normalize_path(request->path, path, sizeof path) };
	if (settings->client_rate.count > 0)
		ask_of_client_rate(&inquiry, settings, out->is_exempt);
	ask_of_rules(&inquiry, settings, out->is_exempt);
	if (inquiry.count == 0)
		return ADMISSION_PASS;
	bool pass = client_limits_ask(limits, inquiry.asks, inquiry.count, now_us);
	note_answers(&inquiry, out);
	return pass ? ADMISSION_PASS : ADMISSION_OVER_LIMIT;
}

/* Clients take turns in a fair line, and what a client is, client_key says. */
static uint64_t number_of_client(struct client_limits *limits, const struct settings *settings,
                                 const struct http_head *request, const struct admission *admission)
{
	char client[ADDRESS_TEXT_MAX], key[RULES_PATH_MAX + 1024];
	counted_text(&admission->client, client);
	size_t length = rules_key(&settings->client_key, request, (struct http_text){ NULL, 0 },
	                          (struct http_text){ client, strlen(client) }, key, sizeof key);
	return client_limits_hash(limits, "queue", key, length);
}

enum admission_verdict admission_check(struct client_limits *limits, const struct settings *settings,
                                       const struct address *peer, const struct http_head *request, uint64_t now_us,
                                       struct admission *out)
{
	access_client(&settings->trust_forwarded, peer, request, &out->client);
	address_host_text(&out->client, out->client_text);
	out->client_number = settings->queue == QUEUE_FAIR ? number_of_client(limits, settings, request, out) : 0;
	out->refused_by = out->shadowed_by = NULL;
	out->retry_after_us = 0;
	out->limit_count = 0;
	if (!access_may_enter(&settings->allow, &settings->deny, &out->client))
		return ADMISSION_FORBIDDEN;
	out->is_exempt = access_is_exempt(&settings->exempt, &settings->trust_forwarded, peer, &out->client, request);
	if (settings->client_rate.count == 0 && settings->rule_count == 0)
		return ADMISSION_PASS;
	return ask_limits(limits, settings, request, now_us, out);
}
