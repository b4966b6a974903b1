/* service.c: what a service is made of, and how it starts, changes and ends.
 *
 *      settings ──► balancer (targets, kept up to date by the resolver and the probes)
 *               ├─► limiter ◄── group (of nodes that share the threshold)
 *               └─► listener ──► crew of threads ──► the road (proxy.c)
 *
 * A reload makes no new service. The balancer and the limiter stay, with their counters and windows, and are told what has changed;
 * the settings themselves are an object that never changes: requests under way keep the one they began with, the next ones take
 * the new one. Only a new port or address needs a new listener, with a crew of its own; the old one drains.
 */
#include "service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/listener.h"
#include "lib/proxy_header.h"
#include "line.h"
#include "roads.h"

#define REAP_EVERY_US (5 * US_PER_S)
/* For the handshake of a connection that is one too many: only to tell the client so. */
#define UNWANTED_PATIENCE_US US_PER_S
/* Threads that may wait for the name service at once. */
#define LOOKUPS_MAX 256u

/* A listener and its crew. One that a reload has replaced lives on until its last connection has ended. */
struct serving {
	struct serving *next;
	struct crew *crew;
	int listen_fd;
};

/* ---- targets -------------------------------------------------------------------------------------------------------- */

static void release_target(void *item)
{
	upstream_destroy(item);
}

static struct balancer_options balancer_options(const struct settings *settings)
{
	static const enum balancer_policy policies[] = { [BALANCE_ROUNDROBIN] = BALANCER_ROUNDROBIN,
		                                         [BALANCE_LEASTCONN] = BALANCER_LEASTCONN,
		                                         [BALANCE_HASH] = BALANCER_HASH };
	return (struct balancer_options){ .policy = policies[settings->balance],
		                          .probe_interval_us = settings->probe_interval_us,
		                          .probe_rise = settings->probe_rise,
		                          .probe_fall = settings->probe_fall,
		                          .probe_asks = settings->probe_path != NULL };
}

static struct limiter_options limiter_options(const struct settings *settings)
{
	return (struct limiter_options){ .threshold = settings->threshold.count,
		                         .window_us = settings->threshold.window_us,
		                         .burst = settings->burst,
		                         .backlog = settings->backlog_requests,
		                         .queue = settings->queue == QUEUE_FAIR ? LIMITER_FAIR : LIMITER_FIFO,
		                         .slots_are_given = group_gives_slots(settings) };
}

static void endpoint_text(const struct settings_endpoint *endpoint, char *out, size_t size)
{
	if (endpoint->is_unix)
		snprintf(out, size, "unix:%s", endpoint->host);
	else
		snprintf(out, size, strchr(endpoint->host, ':') != NULL ? "[%s]:%u" : "%s:%u", endpoint->host, endpoint->port);
}

/* Two names may lead to one address, and one name may list it twice: it is one target. */
static bool is_listed(const struct balancer_entry *entries, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(entries[i].name, name) == 0)
			return true;
	return false;
}

/* Makes a balancer's entry of one answer of the resolver. False when it is there already, or there is no memory. */
static bool make_entry(struct upstreams *all, const struct settings *settings, const struct resolver_answer *answer,
                       struct balancer_entry *entries, size_t count)
{
	const struct settings_endpoint *endpoint = &settings->endpoint.items[answer->question];
	char name[ADDRESS_TEXT_MAX + 256];
	endpoint_text(endpoint, name, sizeof name);
	struct upstream *upstream = upstream_create(all, name, answer->has_address ? &answer->address : NULL);
	if (upstream == NULL)
		return false;
	if (is_listed(entries, count, upstream_address(upstream))) {
		upstream_destroy(upstream);
		return false;
	}
	entries[count] = (struct balancer_entry){ .name = upstream_address(upstream),
		                                  .weight = endpoint->weight,
		                                  .out = !answer->has_address,
		                                  .item = upstream };
	return true;
}

/* Says which names do not resolve, when that is news. */
static void warn_of_names(struct proxy *proxy, const struct balancer_entry *entries, size_t count)
{
	unsigned unresolved = 0;
	for (size_t i = 0; i < count; i++)
		unresolved += entries[i].out ? 1u : 0u;
	if (atomic_exchange(&proxy->unresolved, unresolved) == unresolved)
		return;
	for (size_t i = 0; i < count; i++)
		if (entries[i].out)
			log_write(proxy->log, LOG_LEVEL_WARN, proxy->name, "target %s is out: its name does not resolve", entries[i].name);
}

static bool set_targets(struct proxy *proxy, const struct settings *settings, const struct resolver_answer *answers,
                        size_t answer_count)
{
	struct balancer_entry *entries = calloc(answer_count + 1, sizeof *entries);
	size_t count = 0;
	if (entries == NULL)
		return false;
	for (size_t i = 0; i < answer_count && count < BALANCER_TARGETS_MAX; i++)
		if (make_entry(proxy->upstreams, settings, &answers[i], entries, count))
			count++;
	warn_of_names(proxy, entries, count);
	bool good = balancer_set_targets(proxy->balancer, entries, count, clock_us()) == 0;
	for (size_t i = 0; !good && i < count; i++)
		upstream_destroy(entries[i].item);
	free(entries);
	return good;
}

/* The resolver has news. Called by its thread: the probe thread will see to it. */
static void names_changed(void *context)
{
	struct proxy *proxy = context;
	prober_kick(proxy->prober);
}

static struct resolver *start_resolver(struct proxy *proxy, const struct settings *settings)
{
	size_t count = settings->mode == MODE_REVERSE ? settings->endpoint.count : 0;
	struct resolver_question *questions = calloc(count, sizeof *questions);
	if (questions == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		const struct settings_endpoint *endpoint = &settings->endpoint.items[i];
		questions[i] = (struct resolver_question){ endpoint->host, endpoint->port, endpoint->is_unix };
	}
	struct resolver *resolver = resolver_start(questions, count, settings->resolve_interval_us, names_changed, proxy);
	free(questions);
	return resolver;
}

static void names_lock(struct proxy *proxy) ACQUIRE(names_mutex) UNCHECKED
{
	pthread_mutex_lock(&proxy->names);
}

static void names_unlock(struct proxy *proxy) RELEASE(names_mutex) UNCHECKED
{
	pthread_mutex_unlock(&proxy->names);
}

/* Brings the balancer's list up to what the resolver knows now. One thread at a time: of two, the one with older news might
   come last. */
static void take_names(struct proxy *proxy)
{
	struct resolver_answer *answers = NULL;
	unsigned generation = 0;
	size_t count = 0;
	names_lock(proxy);
	proxy_lock(proxy);
	struct settings *settings = settings_hold(proxy->settings);
	if (proxy->resolver != NULL)
		count = resolver_take(proxy->resolver, &answers, &generation);
	proxy_unlock(proxy);
	if (count > 0 && generation != proxy->answers_taken && set_targets(proxy, settings, answers, count))
		proxy->answers_taken = generation;
	names_unlock(proxy);
	settings_release(settings);
	free(answers);
}

void service_target_failed(struct proxy *proxy)
{
	proxy_lock(proxy);
	if (proxy->resolver != NULL)
		resolver_kick(proxy->resolver);
	proxy_unlock(proxy);
	prober_kick(proxy->prober);
}

/* ---- probes --------------------------------------------------------------------------------------------------------- */

/* The probe thread asks what is to be done. */
static bool next_probe(void *context, uint64_t now_us, struct probe_job *job, uint64_t *wake_us)
{
	struct proxy *proxy = context;
	unsigned generation;
	take_names(proxy);
	struct settings *settings = service_settings(proxy, &generation);
	if (now_us >= proxy->reap_us) {
		upstreams_reap(proxy->upstreams, settings->idle_timeout_us);
		roads_trim(proxy->roads);
		if (proxy->hosts != NULL)
			hosts_reap(proxy->hosts, settings->idle_timeout_us, now_us);
		if (proxy->host_rates != NULL)
			host_rates_reap(proxy->host_rates, now_us);
		proxy->reap_us = now_us + REAP_EVERY_US;
	}
	struct balancer_pick pick;
	bool due = balancer_probe_due(proxy->balancer, now_us, &pick, wake_us);
	if (due) {
		*job = (struct probe_job){ .upstream = pick.item,
			                   .slot = pick.slot,
			                   .stay = pick.stay,
			                   .timeout_us = settings->connect_timeout_us,
			                   .tls = tls_hold(settings->tls_client) };
		if (settings->probe_path != NULL)
			snprintf(job->path, sizeof job->path, "%s", settings->probe_path);
		if (settings->send_proxy != SEND_PROXY_OFF) {
			char header[PROXY_HEADER_WRITE_MAX]; /* that of nobody is as long as the room for it, at most */
			job->preface_bytes = proxy_header_write((unsigned)settings->send_proxy, NULL, NULL, header);
			memcpy(job->preface, header, job->preface_bytes);
		}
	} else if (*wake_us > proxy->reap_us) {
		*wake_us = proxy->reap_us;
	}
	settings_release(settings);
	return due;
}

static void probe_done(void *context, const struct probe_job *job, bool good, const char *why)
{
	struct proxy *proxy = context;
	char name[ADDRESS_TEXT_MAX + 256];
	snprintf(name, sizeof name, "%s", upstream_address(job->upstream)); /* the item may be gone after the report */
	struct balancer_pick pick = { .slot = job->slot, .stay = job->stay, .item = (void *)(uintptr_t)job->upstream };
	switch (balancer_probed(proxy->balancer, &pick, good, clock_us())) {
	case BALANCER_CAME_IN:
		log_write(proxy->log, LOG_LEVEL_INFO, proxy_name(proxy), "target %s is back in the rotation", name);
		break;
	case BALANCER_WENT_OUT:
		log_write(proxy->log, LOG_LEVEL_WARN, proxy_name(proxy), "target %s leaves the rotation: %s", name, why);
		break;
	case BALANCER_SAME:
		log_write(proxy->log, LOG_LEVEL_DEBUG, proxy_name(proxy), "probe of target %s: %s", name, good ? "good" : why);
		break;
	}
}

/* ---- listening ------------------------------------------------------------------------------------------------------ */

static void complain(void *context, const char *what, int error)
{
	struct proxy *proxy = context;
	log_write(proxy->log, LOG_LEVEL_ERROR, proxy_name(proxy), "%s: %s", what, strerror(error));
	/* To many hosts there may be more idle connections than a host of ours has clients. */
	if (proxy->hosts != NULL && (error == EMFILE || error == ENFILE))
		hosts_close_idle(proxy->hosts);
}

enum tls_greeting service_shake_hands(struct proxy *proxy, const struct service_greeting *g)
{
	char why[TLS_WHY_MAX];
	if (g->settings->tls_server == NULL)
		return TLS_GREETED;
	/* A message has no head: there all that is said has idle_timeout. */
	uint64_t patience_us =
		g->settings->mode == MODE_PACKET ? g->settings->idle_timeout_us : g->settings->header_timeout_us;
	if (g->is_unwanted && patience_us > UNWANTED_PATIENCE_US)
		patience_us = UNWANTED_PATIENCE_US;
	/* Nothing has been asked yet: a drain may end it. */
	bool goes_on = worker_rest(g->worker);
	enum tls_greeting greeting = TLS_SAID_NOTHING;
	if (goes_on)
		greeting = conn_accept_tls(g->client, g->settings->tls_server, clock_us() + patience_us, why);
	if (greeting == TLS_GREETED || greeting == TLS_SPOKE_PLAINLY)
		worker_resume(g->worker);
	if (greeting == TLS_GREETING_FAILED)
		log_write(proxy->log, LOG_LEVEL_INFO, proxy_name(proxy), "TLS handshake of %s failed: %s", g->client_text, why);
	else if (goes_on && greeting == TLS_SAID_NOTHING)
		log_write(proxy->log, LOG_LEVEL_DEBUG, proxy_name(proxy), "TLS handshake of %s: no byte came", g->client_text);
	return greeting;
}

static void close_listener(int fd)
{
	listener_retire(fd);
	close(fd);
}

static void end_serving(struct serving *serving)
{
	crew_destroy(serving->crew);
	close(serving->listen_fd);
	free(serving);
}

/* Those that were replaced and have served their last connection: nothing else would give back what they hold. */
static void end_retired(struct proxy *proxy)
{
	struct serving *ended = NULL;
	proxy_lock(proxy);
	struct serving **place = &proxy->serving->next;
	while (*place != NULL) {
		struct serving *serving = *place;
		if (!crew_has_ended(serving->crew)) {
			place = &serving->next;
			continue;
		}
		*place = serving->next;
		serving->next = ended;
		ended = serving;
	}
	proxy_unlock(proxy);
	while (ended != NULL) {
		struct serving *next = ended->next;
		crew_wait(ended->crew, CLOCK_NEVER); /* for the last thread's last moment */
		end_serving(ended);
		ended = next;
	}
}

/* It is not what proxy_start() will serve on. */
static void forget_opened(struct proxy *proxy, int fd)
{
	proxy_lock(proxy);
	if (proxy->opened_fd == fd)
		proxy->opened_fd = -1;
	proxy_unlock(proxy);
}

/* Starts a crew on an open listener, in place of the present one if there is one: that takes no more connections, and those it
   has go on. On failure the listener is closed. */
static bool serve_on(struct proxy *proxy, int fd, const struct settings *settings, char *error, size_t error_size)
{
	struct crew_job job = settings->mode == MODE_PACKET ? switch_crew_job : proxy_crew_job;
	job.context = proxy;
	job.complain = complain;
	struct serving *serving = calloc(1, sizeof *serving);
	struct crew *crew = serving == NULL ? NULL : crew_start(fd, settings->max_clients, &job);
	if (crew == NULL) {
		snprintf(error, error_size, "no memory or threads to serve with");
		forget_opened(proxy, fd);
		close_listener(fd);
		free(serving);
		return false;
	}
	*serving = (struct serving){ .crew = crew, .listen_fd = fd };
	proxy_lock(proxy);
	struct serving *before = proxy->serving;
	serving->next = before;
	proxy->serving = serving;
	proxy->opened_fd = -1;
	proxy_unlock(proxy);
	if (before != NULL) {
		listener_retire(before->listen_fd);
		crew_retire(before->crew);
	}

	struct address address;
	char text[ADDRESS_TEXT_MAX];
	listener_address(fd, &address);
	address_text(&address, text);
	static const char *const modes[] = { [MODE_REVERSE] = "reverse", [MODE_FORWARD] = "forward", [MODE_PACKET] = "packet" };
	log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "%s listens on %s port=%u", modes[settings->mode], text,
	          address_port(&address));
	return true;
}

/* ---- a forward proxy's own parts ------------------------------------------------------------------------------------- */

void service_host_changed(void *context, const char *host, bool was_opened, unsigned count, unsigned limit)
{
	struct proxy *proxy = context;
	log_write(proxy->log, LOG_LEVEL_DEBUG, proxy->name, "%s a connection host=%s count=%u limit=%u",
	          was_opened ? "open" : "close", host, count, limit);
}

void service_count(struct proxy *proxy, unsigned stripe, const struct log_access *record, const char *refused_by, bool is_tunnel)
{
	struct meters *meters = proxy->meters;
	meters_count_status(meters, stripe, record->status);
	if (record->tries > 0 && !is_tunnel) {
		meters_count_time(meters, stripe, METER_UPSTREAM, record->upstream_us);
		meters_count_time(meters, stripe, METER_WAIT, record->wait_us);
	}
	if (!is_tunnel)
		meters_count_time(meters, stripe, METER_TOTAL, record->total_us);
	if (recent_wants(proxy->recent, record->status >= 200 && record->status < 400 ? RECENT_GOOD : RECENT_BAD))
		recent_show(proxy->recent, record, refused_by);
}

unsigned service_connections(struct proxy *proxy)
{
	unsigned active = 0;
	proxy_lock(proxy);
	for (struct serving *serving = proxy->serving; serving != NULL; serving = serving->next)
		active += crew_active(serving->crew);
	proxy_unlock(proxy);
	return active;
}

/* What the limiter should have now. With redis_fail = local this process keeps to its share of the threshold while Redis
   is away, at least 1. */
static struct limiter_options limits_now(struct proxy *proxy, const struct settings *settings, bool *store_is_up)
{
	struct limiter_options options = limiter_options(settings);
	struct redis_store_report store = { .is_up = false };
	if (proxy->store != NULL)
		redis_store_report(proxy->store, &store);
	*store_is_up = store.is_up;
	bool is_shared = settings->redis_addr != NULL && proxy->store != NULL && !options.slots_are_given;
	if (!is_shared || store.is_up || settings->redis_fail != REDIS_FAIL_LOCAL || options.threshold == 0)
		return options;
	unsigned workers = redis_store_live_workers(proxy->store, "");
	if (workers > 1)
		options.threshold = options.threshold / workers > 0 ? options.threshold / workers : 1;
	return options;
}

/* Redis comes and goes while settings change: whoever sets the limits looks again afterwards, so that the last word is
   said by somebody who knew both as they are. */
static void settle_limits(struct proxy *proxy)
{
	bool was_up, is_up;
	unsigned generation;
	do {
		struct settings *settings = service_settings(proxy, &generation);
		struct limiter_options options = limits_now(proxy, settings, &was_up);
		if (limiter_configure(proxy->limiter, &options, clock_us()) != 0)
			log_write(proxy->log, LOG_LEVEL_ERROR, proxy->name, "no memory for another threshold: the old one stays");
		limits_now(proxy, settings, &is_up);
		settings_release(settings);
	} while (is_up != was_up || generation != atomic_load(&proxy->settings_generation));
}

static void store_changed(void *context, bool is_up, const char *why)
{
	struct proxy *proxy = context;
	if (is_up)
		log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "Redis answers: caps and threshold are shared");
	else
		log_write(proxy->log, LOG_LEVEL_ERROR, proxy->name, "Redis can't be reached: %s", why);
	settle_limits(proxy);
}

static struct hosts_settings hosts_settings(const struct settings *settings)
{
	static const enum hosts_fail fails[] = { [REDIS_FAIL_CLOSED] = HOSTS_FAIL_CLOSED,
		                                 [REDIS_FAIL_LOCAL] = HOSTS_FAIL_LOCAL,
		                                 [REDIS_FAIL_OPEN] = HOSTS_FAIL_OPEN };
	return (struct hosts_settings){ .default_cap = settings->max_connections,
		                        .limits = &settings->host_limits,
		                        .when_store_is_down = fails[settings->redis_fail] };
}

static struct host_rates_options rates_options(const struct settings *settings)
{
	return (struct host_rates_options){ .rate = settings->host_rate,
		                            .overrides = &settings->host_rates,
		                            .backlog_us = settings->host_backlog_us };
}

static struct redis_store_options store_options(const struct settings *settings)
{
	return (struct redis_store_options){ .address = settings->redis_addr,
		                             .password = settings->redis_password,
		                             .database = settings->redis_db };
}

struct auth *service_auth(struct proxy *proxy)
{
	proxy_lock(proxy);
	struct auth *auth = proxy->auth != NULL ? auth_hold(proxy->auth) : NULL;
	proxy_unlock(proxy);
	return auth;
}

/* Those that are still asking the one before hold it too. */
static void change_auth(struct proxy *proxy, struct auth *auth)
{
	proxy_lock(proxy);
	struct auth *before = proxy->auth;
	proxy->auth = auth;
	proxy_unlock(proxy);
	auth_release(before);
}

/* Reads auth_file, if there is one. False: it is wrong. */
static bool read_auth(const struct settings *settings, struct auth **auth, char *error, size_t error_size)
{
	*auth = settings->auth_file == NULL ? NULL : auth_create(settings->auth_file, error, error_size);
	return settings->auth_file == NULL || *auth != NULL;
}

/* Redis is asked by forward proxies for their caps, and by all that speak HTTP for a threshold. */
static bool create_store(struct proxy *proxy, const struct settings *settings)
{
	struct redis_store_options options = store_options(settings);
	struct redis_store_watch watch = { .state_changed = store_changed, .context = proxy };
	proxy->store = redis_store_create(&options, &watch);
	if (proxy->store != NULL && settings->redis_addr != NULL) /* one that is down should not keep the port shut */
		redis_store_wait_up(proxy->store, clock_us() + US_PER_S);
	return proxy->store != NULL;
}

static bool create_forward(struct proxy *proxy, const struct settings *settings, char *error, size_t error_size)
{
	struct auth *auth;
	struct hosts_settings hosts = hosts_settings(settings);
	struct hosts_watch watch = { .changed = service_host_changed, .context = proxy };
	if (!read_auth(settings, &auth, error, error_size))
		return false;
	change_auth(proxy, auth);
	struct host_rates_options rates = rates_options(settings);
	proxy->lookups = lookups_create(LOOKUPS_MAX);
	proxy->host_rates = host_rates_create(&rates, line_wake);
	proxy->hosts = hosts_create(&hosts, proxy->store, &watch);
	return proxy->hosts != NULL && proxy->host_rates != NULL && proxy->lookups != NULL;
}

/* A reload failed half-way: what is in force still says the settings that are. As far as there is memory. */
static void put_caps_and_rates_back(struct proxy *proxy)
{
	unsigned generation;
	struct settings *settings = service_settings(proxy, &generation);
	struct hosts_settings hosts = hosts_settings(settings);
	struct host_rates_options rates = rates_options(settings);
	hosts_configure(proxy->hosts, &hosts);
	host_rates_configure(proxy->host_rates, &rates, clock_us());
	settings_release(settings);
}

/* What can be wrong comes first, and changes nothing. */
static bool configure_forward(struct proxy *proxy, const struct settings *settings, char *error, size_t error_size)
{
	struct auth *auth;
	struct host_rates_options rates = rates_options(settings);
	struct hosts_settings hosts = hosts_settings(settings);
	if (!read_auth(settings, &auth, error, error_size))
		return false;
	bool has_caps = hosts_configure(proxy->hosts, &hosts) == 0;
	if (!has_caps || host_rates_configure(proxy->host_rates, &rates, clock_us()) != 0) {
		if (has_caps)
			snprintf(error, error_size,
			         "host_rate, host_rates: no memory or room for such rates of all hosts that were asked lately");
		put_caps_and_rates_back(proxy);
		auth_release(auth);
		return false;
	}
	change_auth(proxy, auth);
	return true;
}

static void destroy_forward(struct proxy *proxy)
{
	if (proxy->hosts != NULL)
		hosts_destroy(proxy->hosts);
	host_rates_destroy(proxy->host_rates);
	lookups_destroy(proxy->lookups);
	if (proxy->store != NULL)
		redis_store_destroy(proxy->store);
	change_auth(proxy, NULL);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

struct settings *service_settings(struct proxy *proxy, unsigned *generation)
{
	proxy_lock(proxy);
	struct settings *settings = settings_hold(proxy->settings);
	*generation = atomic_load(&proxy->settings_generation);
	proxy_unlock(proxy);
	return settings;
}

const char *proxy_name(const struct proxy *proxy)
{
	return proxy->name;
}

bool proxy_is_draining(const struct proxy *proxy)
{
	return atomic_load(&proxy->is_draining);
}

static void choose_via(struct proxy *proxy)
{
	uint64_t token = clock_us();
	if (getrandom(&token, sizeof token, GRND_NONBLOCK) != (ssize_t)sizeof token)
		token ^= (uint64_t)getpid() << 32;
	snprintf(proxy->via, sizeof proxy->via, "weir-%016llx", (unsigned long long)token);
}

/* A setting that is there and does nothing makes somebody believe in what is not so. */
static void warn_of_idle_settings(struct proxy *proxy, const struct settings *settings)
{
	char line[SETTINGS_IDLE_MAX];
	for (size_t at = 0; settings_next_idle(settings, &at, line);)
		log_write(proxy->log, LOG_LEVEL_WARN, proxy->name, "%s", line);
}

/* What is odd about them otherwise, at the start and after each reload. */
static void log_warnings(struct proxy *proxy, const struct settings *settings)
{
	for (const char *line = settings->warnings; line != NULL && *line != '\0';) {
		size_t length = strcspn(line, "\n");
		log_write(proxy->log, LOG_LEVEL_WARN, proxy->name, "%.*s", (int)length, line);
		line += length + (line[length] == '\n');
	}
}

static bool create_parts(struct proxy *proxy, struct settings *settings, char *error, size_t error_size)
{
	snprintf(error, error_size, "no memory or threads to start with");
	struct balancer_options balancing = balancer_options(settings);
	struct limiter_options limiting = limiter_options(settings);
	struct probe_caller caller = { .context = proxy, .due = next_probe, .done = probe_done };
	proxy->name = strdup(settings->name);
	proxy->roads = roads_create(proxy);
	proxy->upstreams = upstreams_create();
	proxy->balancer = balancer_create(&balancing, release_target);
	proxy->limiter = limiter_create(&limiting, line_wake);
	proxy->client_limits = client_limits_create(CLIENTS_REMEMBERED);
	proxy->client_counts = client_counts_create();
	proxy->goodbyes = client_counts_create();
	proxy->meters = meters_create();
	proxy->recent = recent_create();
	if (proxy->roads == NULL || proxy->meters == NULL || proxy->recent == NULL)
		return false;
	if (proxy->name == NULL || proxy->upstreams == NULL || proxy->balancer == NULL || proxy->limiter == NULL ||
	    proxy->client_limits == NULL || proxy->client_counts == NULL || proxy->goodbyes == NULL)
		return false;
	if (settings->mode != MODE_PACKET && !create_store(proxy, settings))
		return false;
	if (settings->mode == MODE_FORWARD && !create_forward(proxy, settings, error, error_size))
		return false;
	if (settings->mode == MODE_PACKET)
		proxy->packets = packet_switch_create(proxy->name, proxy->log, proxy->upstreams, settings);
	if (settings->mode == MODE_PACKET && proxy->packets == NULL)
		return false;
	proxy->group = group_create(proxy->name, proxy->log, proxy->limiter);
	if (proxy->group == NULL || !group_configure(proxy->group, settings, error, error_size))
		return false;
	snprintf(error, error_size, "no memory or threads to start with");
	proxy->prober = prober_start(&caller);
	if (proxy->prober == NULL)
		return false;
	struct resolver *resolver = start_resolver(proxy, settings);
	if (resolver == NULL)
		return false;
	/* The first request should find its targets; a name service that is slow should not keep the port shut. The probe
	   thread runs already: were the resolver there for it to see, it would say of names not yet asked for that they do
	   not resolve. */
	resolver_wait_first(resolver, clock_us() + settings->connect_timeout_us);
	proxy_lock(proxy);
	proxy->resolver = resolver;
	proxy_unlock(proxy);
	log_warnings(proxy, settings);
	take_names(proxy);
	prober_kick(proxy->prober); /* a name that does not resolve is a target that is out: its probe is due */
	return true;
}

struct proxy *proxy_create(struct settings *settings, struct log *log, char *error, size_t error_size)
{
	struct proxy *proxy = calloc(1, sizeof *proxy);
	if (proxy == NULL) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&proxy->mutex, NULL);
	pthread_mutex_init(&proxy->names, NULL);
	proxy->log = log;
	proxy->started_us = clock_us();
	proxy_lock(proxy);
	proxy->settings = settings_hold(settings);
	int fd = proxy->opened_fd = listener_open(settings->bind, settings->port, false, error, error_size);
	proxy_unlock(proxy);
	choose_via(proxy);
	if (fd >= 0 && create_parts(proxy, settings, error, error_size))
		return proxy;
	proxy_destroy(proxy);
	return NULL;
}

bool proxy_start(struct proxy *proxy, char *error, size_t error_size)
{
	unsigned generation;
	struct settings *settings = service_settings(proxy, &generation);
	proxy_lock(proxy);
	int fd = proxy->opened_fd;
	proxy_unlock(proxy);
	bool good = group_start(proxy->group, settings, error, error_size) && serve_on(proxy, fd, settings, error, error_size);
	if (good)
		warn_of_idle_settings(proxy, settings);
	settings_release(settings);
	return good;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool listens_elsewhere(const struct settings *old, const struct settings *new)
{
	bool has_port = new->bind == NULL || strncmp(new->bind, "unix:", 5) != 0;
	return !same_text(old->bind, new->bind) || (has_port && old->port != new->port);
}

/* Opens the new listener while the old one still listens, perhaps on the same port of an address that includes the new
   one. */
static int open_beside(struct proxy *proxy, const struct settings *settings, char *error, size_t error_size)
{
	proxy_lock(proxy);
	int old_fd = proxy->serving->listen_fd;
	proxy_unlock(proxy);
	listener_share(old_fd, true);
	int fd = listener_open(settings->bind, settings->port, true, error, error_size);
	listener_share(old_fd, false);
	return fd;
}

static bool try_to_share(struct proxy *proxy, const struct settings *settings, char *error, size_t error_size)
{
	struct redis_store_options store = store_options(settings);
	return (proxy->store == NULL || redis_store_configure(proxy->store, &store) == 0) &&
	       (proxy->hosts == NULL || configure_forward(proxy, settings, error, error_size)) &&
	       group_configure(proxy->group, settings, error, error_size);
}

/* Tells the new settings to all that can refuse them: the last may, when the others have them already. Then those are told
   the old ones again, as far as there is memory. */
static bool configure_sharing(struct proxy *proxy, const struct settings *settings, char *error, size_t error_size)
{
	char ignored[SETTINGS_ERROR_MAX];
	unsigned generation;
	if (try_to_share(proxy, settings, error, error_size)) {
		bool store_is_up;
		struct limiter_options limiting = limits_now(proxy, settings, &store_is_up);
		if (limiter_configure(proxy->limiter, &limiting, clock_us()) == 0)
			return true;
	}
	struct settings *old = service_settings(proxy, &generation);
	try_to_share(proxy, old, ignored, sizeof ignored);
	settings_release(old);
	return false;
}

/* Everything that can fail comes first; then the new settings are in force. */
bool proxy_reload(struct proxy *proxy, struct settings *settings, char *error, size_t error_size)
{
	unsigned generation;
	struct settings *old = service_settings(proxy, &generation);
	struct balancer_options balancing = balancer_options(settings);
	bool moves = listens_elsewhere(old, settings), is_other = old->mode != settings->mode;
	settings_release(old);
	if (is_other) {
		snprintf(error, error_size, "the mode of a service can't change while it runs");
		return false;
	}

	snprintf(error, error_size, "no memory or threads for the new settings");
	struct resolver *resolver = start_resolver(proxy, settings);
	if (resolver == NULL)
		return false;
	bool names_are_known = resolver_wait_first(resolver, clock_us() + settings->connect_timeout_us);
	int fd = moves ? open_beside(proxy, settings, error, error_size) : -1;
	if ((moves && fd < 0) || !configure_sharing(proxy, settings, error, error_size)) {
		if (fd >= 0)
			close_listener(fd);
		resolver_stop(resolver);
		return false;
	}
	balancer_configure(proxy->balancer, &balancing);
	if (proxy->packets != NULL)
		packet_switch_configure(proxy->packets, settings);

	names_lock(proxy);
	proxy_lock(proxy);
	struct settings *before = proxy->settings;
	struct resolver *resolver_before = proxy->resolver;
	proxy->settings = settings_hold(settings);
	proxy->resolver = resolver;
	/* While the name service keeps us waiting, the old targets are better than none. */
	proxy->answers_taken = names_are_known ? 0 : RESOLVER_WITHOUT_NAMES;
	atomic_fetch_add(&proxy->settings_generation, 1);
	crew_set_limit(proxy->serving->crew, settings->max_clients);
	proxy_unlock(proxy);
	names_unlock(proxy);
	resolver_stop(resolver_before);
	settings_release(before);
	settle_limits(proxy);
	end_retired(proxy);
	take_names(proxy);
	prober_kick(proxy->prober);
	warn_of_idle_settings(proxy, settings);
	log_warnings(proxy, settings);
	return !moves || serve_on(proxy, fd, settings, error, error_size);
}

bool service_set_threshold(struct proxy *proxy, const struct settings_rate *threshold, char *error, size_t error_size)
{
	unsigned generation;
	char why[SETTINGS_ERROR_MAX];
	struct settings *before = service_settings(proxy, &generation);
	struct settings *settings = settings_with_threshold(before, threshold, why);
	settings_release(before);
	if (settings == NULL) {
		snprintf(error, error_size, "%s", why);
		return false;
	}
	bool store_is_up;
	struct limiter_options limiting = limits_now(proxy, settings, &store_is_up);
	snprintf(error, error_size, "no memory for that threshold");
	bool is_shared = group_configure(proxy->group, settings, error, error_size);
	if (!is_shared || limiter_configure(proxy->limiter, &limiting, clock_us()) != 0) {
		struct settings *old = service_settings(proxy, &generation);
		if (is_shared) /* the group was told already */
			group_configure(proxy->group, old, why, sizeof why);
		settings_release(old);
		settings_release(settings);
		return false;
	}
	proxy_lock(proxy);
	before = proxy->settings;
	proxy->settings = settings_hold(settings);
	atomic_fetch_add(&proxy->settings_generation, 1);
	proxy_unlock(proxy);
	settings_release(before);
	settle_limits(proxy);
	log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "the threshold is now %u in %g s", threshold->count,
	          (double)threshold->window_us / 1e6);
	settings_release(settings);
	return true;
}

bool service_set_caps(struct proxy *proxy, unsigned default_cap, const struct host_limits *limits)
{
	unsigned generation;
	struct settings *settings = service_settings(proxy, &generation);
	struct hosts_settings caps = hosts_settings(settings);
	caps.default_cap = default_cap;
	caps.limits = limits;
	bool good = hosts_configure(proxy->hosts, &caps) == 0;
	settings_release(settings);
	if (good)
		log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "new caps: %u for each host, %zu of another number", default_cap,
		          limits->count);
	return good;
}

unsigned proxy_port(struct proxy *proxy)
{
	struct address address;
	proxy_lock(proxy);
	listener_address(proxy->serving != NULL ? proxy->serving->listen_fd : proxy->opened_fd, &address);
	proxy_unlock(proxy);
	return address_port(&address);
}

/* An address that stands for all of the machine's is no place to connect to. */
static void prefer_loopback(struct address *address)
{
	unsigned port = address_port(address);
	if (address->any.sa_family == AF_INET && address->v4.sin_addr.s_addr == htonl(INADDR_ANY))
		address_parse("127.0.0.1", port, address);
	else if (address->any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr))
		address_parse("127.0.0.1", port, address); /* IPV6_V6ONLY is off: see lib/listener.c */
}

bool service_url(struct proxy *proxy, char out[SERVICE_URL_MAX])
{
	struct address address;
	char text[ADDRESS_TEXT_MAX];
	proxy_lock(proxy);
	int fd = proxy->serving != NULL ? proxy->serving->listen_fd : proxy->opened_fd;
	bool listens = fd >= 0;
	if (listens)
		listener_address(fd, &address);
	bool is_packet = proxy->settings->mode == MODE_PACKET, is_tls = proxy->settings->tls_server != NULL;
	proxy_unlock(proxy);
	if (!listens)
		return false;
	address_unmap(&address);
	prefer_loopback(&address);
	address_text(&address, text);
	bool is_unix = address.any.sa_family == AF_UNIX;
	snprintf(out, SERVICE_URL_MAX, "%s%s", is_unix ? "" : is_packet ? "tcp://" : is_tls ? "https://" : "http://", text);
	return true;
}

static void log_counts(struct proxy *proxy)
{
	struct balancer_report *reports = calloc(BALANCER_TARGETS_MAX, sizeof *reports);
	size_t count = reports == NULL ? 0 : balancer_report(proxy->balancer, reports, BALANCER_TARGETS_MAX);
	for (size_t i = 0; i < count && i < BALANCER_TARGETS_MAX; i++)
		log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "target %s was %s: requests=%llu failures=%llu", reports[i].name,
		          reports[i].state == BALANCER_IN ? "in" : reports[i].state == BALANCER_OUT ? "out" : "drained", (unsigned long long)reports[i].requests_total,
		          (unsigned long long)reports[i].failures_total);
	free(reports);
	struct limiter_report limits;
	limiter_report(proxy->limiter, clock_us(), &limits);
	log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "requests=%llu answered_here=%llu started=%llu refused=%llu",
	          (unsigned long long)atomic_load(&proxy->requests_total), (unsigned long long)atomic_load(&proxy->answered_total),
	          (unsigned long long)limits.started_total, (unsigned long long)atomic_load(&proxy->refused_total));
	if (limits.used_total + limits.died_total > 0)
		log_write(proxy->log, LOG_LEVEL_INFO, proxy->name, "starts given by the group's master: used=%llu died=%llu late_us=%llu",
		          (unsigned long long)limits.used_total, (unsigned long long)limits.died_total,
		          (unsigned long long)limits.late_us_total);
}

void proxy_drain(struct proxy *proxy)
{
	atomic_store(&proxy->is_draining, true);
	proxy_lock(proxy);
	struct serving *serving = proxy->serving;
	proxy_unlock(proxy);
	if (serving != NULL) /* those behind it are retired: a path that was theirs may be somebody else's by now */
		listener_retire(serving->listen_fd);
	for (; serving != NULL; serving = serving->next)
		crew_drain(serving->crew);
}

/* Cuts what a crew still has. */
static void cut(struct proxy *proxy, struct serving *serving)
{
	unsigned cut = crew_cut(serving->crew);
	if (proxy->lookups != NULL) /* nothing on a socket would wake those */
		lookups_abandon(proxy->lookups);
	atomic_fetch_add(&proxy->cut_total, cut);
}

void proxy_cut(struct proxy *proxy)
{
	proxy_lock(proxy);
	for (struct serving *serving = proxy->serving; serving != NULL; serving = serving->next)
		cut(proxy, serving);
	proxy_unlock(proxy);
}

/* Until its crew has ended a listener stays in the list, for those who count connections and for proxy_cut(). */
bool proxy_finish(struct proxy *proxy, uint64_t deadline_us)
{
	proxy_lock(proxy);
	struct serving *serving = proxy->serving;
	proxy_unlock(proxy);
	bool has_served = serving != NULL;
	while (serving != NULL) {
		if (!crew_wait(serving->crew, deadline_us)) {
			cut(proxy, serving);
			crew_wait(serving->crew, CLOCK_NEVER);
		}
		proxy_lock(proxy);
		struct serving *next = proxy->serving = serving->next;
		proxy_unlock(proxy);
		end_serving(serving);
		serving = next;
	}
	unsigned cut_total = atomic_load(&proxy->cut_total);
	if (cut_total > 0)
		log_write(proxy->log, LOG_LEVEL_WARN, proxy->name, "drain_timeout is over: connections were cut count=%u", cut_total);
	if (has_served)
		log_counts(proxy);
	group_leave(proxy->group); /* not before: those who waited for their turn were still given one */
	return cut_total == 0;
}

void proxy_destroy(struct proxy *proxy)
{
	proxy_lock(proxy);
	struct resolver *resolver = proxy->resolver;
	struct settings *settings = proxy->settings;
	proxy->resolver = NULL; /* the probe thread may be about to ask it */
	int opened_fd = proxy->opened_fd;
	proxy_unlock(proxy);
	if (opened_fd >= 0) /* never started */
		close_listener(opened_fd);
	resolver_stop(resolver); /* before the prober, which it kicks */
	prober_stop(proxy->prober);
	roads_destroy(proxy->roads);
	packet_switch_destroy(proxy->packets);
	destroy_forward(proxy);
	group_destroy(proxy->group);
	limiter_destroy(proxy->limiter);
	client_limits_destroy(proxy->client_limits);
	client_counts_destroy(proxy->client_counts);
	client_counts_destroy(proxy->goodbyes);
	meters_destroy(proxy->meters);
	recent_destroy(proxy->recent);
	balancer_destroy(proxy->balancer);
	upstreams_destroy(proxy->upstreams);
	settings_release(settings);
	pthread_mutex_destroy(&proxy->names);
	pthread_mutex_destroy(&proxy->mutex);
	free(proxy->name);
	free(proxy);
}
