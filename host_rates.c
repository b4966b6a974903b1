/* host_rates.c: see host_rates.h.
 *
 *      buckets ──► entry "a.example" ── limiter, users 2          held: by requests under way
 *                  entry "b.example" ── limiter, users 0          kept: its window still counts
 *
 * When may an entry go? A limiter that nobody holds gives the same answers as a new one exactly when all of its slots
 * are free: no start of the last window is in it. limiter_report() says so. It is asked now and then, and when room is
 * needed; of a full table at most every SWEEP_EVERY_US, or a crowd of made-up names would have each request look
 * through all of it.
 *
 * A rate of 0 (no limit) that a reload gives to a host which had one is not the end of its entry: a second reload may
 * bring the limit back, and what started before the first must still count then. So such an entry stays, and counts
 * on, for one window. The same goes for a window that becomes shorter.
 *
 * Changing the rates of all hosts takes memory for each, and may fail in the middle. What was changed stays changed: a
 * window is kept either way, and the error says that the old settings are still wanted. The caller then puts those in
 * force again. Rates that become smaller are changed before those that grow: who stands first in the table is a matter
 * of chance, and must not decide whether there is room.
 *
 * Collisions: names are hashed with a secret (siphash.h), so that nobody can choose names that share a bucket.
 */
#include "host_rates.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/clock.h"
#include "lib/hosts.h"
#include "lib/siphash.h"
#include "lib/ts.h"

#define BUCKETS 4096u
#define SWEEP_EVERY_US (100 * US_PER_MS)

struct host_rates_entry {
	struct host_rates_entry *next;
	struct limiter *limiter;
	struct settings_rate rate;
	unsigned users;
	uint64_t keep_until_us; /* a host whose limit was taken away, or has a shorter window now */
	char name[];
};

/* What the settings say. */
struct rules {
	struct settings_rate rate;
	struct settings_host_rate *overrides; /* sorted by name */
	size_t override_count;
	uint64_t backlog_us;
};

struct host_rates {
	void (*wake)(struct limiter_ticket *); /* never changes */
	uint8_t secret[SIPHASH_SECRET_BYTES];
	pthread_mutex_t mutex;
	struct rules rules GUARDED_BY(host_rates_mutex);
	struct host_rates_entry *buckets[BUCKETS] GUARDED_BY(host_rates_mutex);
	size_t count GUARDED_BY(host_rates_mutex);
	uint64_t slots GUARDED_BY(host_rates_mutex);
	uint64_t full_total GUARDED_BY(host_rates_mutex);
	uint64_t next_sweep_us GUARDED_BY(host_rates_mutex); /* of a full table */
};

LOCK_VERBS(host_rates, mutex, host_rates_mutex)

/* ---- the rules -------------------------------------------------------------------------------------------------- */

static int compare(const void *one, const void *other)
{
	return strcmp(((const struct settings_host_rate *)one)->name, ((const struct settings_host_rate *)other)->name);
}

static void free_rules(struct rules *rules)
{
	for (size_t i = 0; i < rules->override_count; i++)
		free(rules->overrides[i].name);
	free(rules->overrides);
}

static int copy_rules(const struct host_rates_options *options, struct rules *copy)
{
	size_t count = options->overrides != NULL ? options->overrides->count : 0;
	*copy = (struct rules){ .rate = options->rate, .backlog_us = options->backlog_us };
	if (count == 0)
		return 0;
	copy->overrides = calloc(count, sizeof *copy->overrides);
	if (copy->overrides == NULL)
		return -1;
	for (; copy->override_count < count; copy->override_count++) {
		struct settings_host_rate *item = &copy->overrides[copy->override_count];
		item->rate = options->overrides->items[copy->override_count].rate;
		item->name = strdup(options->overrides->items[copy->override_count].name);
		if (item->name == NULL) {
			free_rules(copy);
			return -1;
		}
	}
	qsort(copy->overrides, count, sizeof *copy->overrides, compare);
	return 0;
}

static struct settings_rate rate_of(const struct rules *rules, const char *name)
{
	struct settings_host_rate key = { .name = (char *)(uintptr_t)name };
	const struct settings_host_rate *found = NULL;
	if (rules->override_count > 0)
		found = bsearch(&key, rules->overrides, rules->override_count, sizeof key, compare);
	return found != NULL ? found->rate : rules->rate;
}

static struct limiter_options limits_of(const struct rules *rules, struct settings_rate rate)
{
	return (struct limiter_options){ .threshold = rate.count,
		                         .window_us = rate.window_us,
		                         .backlog = (unsigned)settings_backlog_requests(rate, rules->backlog_us) };
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

static struct host_rates_entry **bucket_of(struct host_rates *rates, const char *name) REQUIRES(host_rates_mutex)
{
	struct siphash hash;
	siphash_begin(&hash, rates->secret);
	siphash_add(&hash, name, strlen(name));
	return &rates->buckets[siphash_end(&hash) % BUCKETS];
}

static bool matters(const struct host_rates_entry *entry, uint64_t now_us)
{
	struct limiter_report now;
	if (entry->users > 0 || now_us < entry->keep_until_us)
		return true;
	limiter_report(entry->limiter, now_us, &now);
	return now.outstanding > 0 || now.waiting > 0 || now.available < now.threshold;
}

static void sweep(struct host_rates *rates, uint64_t now_us) REQUIRES(host_rates_mutex)
{
	for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
		struct host_rates_entry **place = &rates->buckets[bucket];
		while (*place != NULL) {
			struct host_rates_entry *entry = *place;
			if (matters(entry, now_us)) {
				place = &entry->next;
				continue;
			}
			*place = entry->next;
			rates->count--;
			rates->slots -= entry->rate.count;
			limiter_destroy(entry->limiter);
			free(entry);
		}
	}
}

/* A rate that is larger than all slots together is for one host alone. */
static bool has_room(const struct host_rates *rates, unsigned slots) REQUIRES(host_rates_mutex)
{
	return rates->count == 0 ||
	       (rates->count < HOST_RATES_HOSTS_MAX && rates->slots + slots <= HOST_RATES_SLOTS_MAX);
}

static bool make_room(struct host_rates *rates, unsigned slots, uint64_t now_us) REQUIRES(host_rates_mutex)
{
	if (has_room(rates, slots))
		return true;
	if (now_us < rates->next_sweep_us)
		return false;
	sweep(rates, now_us);
	rates->next_sweep_us = now_us + SWEEP_EVERY_US;
	return has_room(rates, slots);
}

static struct host_rates_entry *create_entry(struct host_rates *rates, const char *name, struct settings_rate rate)
	REQUIRES(host_rates_mutex)
{
	size_t length = strlen(name);
	struct limiter_options limits = limits_of(&rates->rules, rate);
	struct host_rates_entry *entry = malloc(sizeof *entry + length + 1);
	if (entry == NULL)
		return NULL;
	*entry = (struct host_rates_entry){ .rate = rate, .limiter = limiter_create(&limits, rates->wake) };
	if (entry->limiter == NULL) {
		free(entry);
		return NULL;
	}
	memcpy(entry->name, name, length + 1);
	struct host_rates_entry **bucket = bucket_of(rates, name);
	entry->next = *bucket;
	*bucket = entry;
	rates->count++;
	rates->slots += rate.count;
	return entry;
}

static enum host_rates_answer find_or_create(struct host_rates *rates, const char *name, uint64_t now_us,
                                             struct host_rates_entry **found) REQUIRES(host_rates_mutex)
{
	struct host_rates_entry *entry = *bucket_of(rates, name);
	while (entry != NULL && strcmp(entry->name, name) != 0)
		entry = entry->next;
	if (entry == NULL) {
		struct settings_rate rate = rate_of(&rates->rules, name);
		if (rate.count == 0)
			return HOST_RATES_NONE;
		if (!make_room(rates, rate.count, now_us)) {
			rates->full_total++;
			return HOST_RATES_FULL;
		}
		entry = create_entry(rates, name, rate);
	}
	*found = entry;
	return entry != NULL ? HOST_RATES_HELD : HOST_RATES_NO_MEMORY;
}

enum host_rates_answer host_rates_take(struct host_rates *rates, const char *name, uint64_t now_us,
                                       struct host_rates_hold *hold)
{
	struct host_rates_entry *entry = NULL;
	*hold = (struct host_rates_hold){ .entry = NULL };
	host_rates_lock(rates);
	enum host_rates_answer answer = find_or_create(rates, name, now_us, &entry);
	if (answer == HOST_RATES_HELD) {
		entry->users++;
		*hold = (struct host_rates_hold){ .entry = entry, .limiter = entry->limiter, .rate = entry->rate };
	}
	host_rates_unlock(rates);
	return answer;
}

void host_rates_release(struct host_rates *rates, struct host_rates_hold *hold)
{
	if (hold->entry == NULL)
		return;
	host_rates_lock(rates);
	hold->entry->users--;
	host_rates_unlock(rates);
	*hold = (struct host_rates_hold){ .entry = NULL };
}

void host_rates_reap(struct host_rates *rates, uint64_t now_us)
{
	host_rates_lock(rates);
	sweep(rates, now_us);
	host_rates_unlock(rates);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

/* A limit that ends, or whose window becomes shorter, is remembered for its window: it may come back. */
static int change_rate(struct host_rates *rates, struct host_rates_entry *entry, uint64_t now_us)
	REQUIRES(host_rates_mutex)
{
	struct settings_rate before = entry->rate, rate = rate_of(&rates->rules, entry->name);
	struct limiter_options limits = limits_of(&rates->rules, rate);
	bool is_too_much = rate.count > before.count && rates->count > 1 &&
	                   rates->slots - before.count + rate.count > HOST_RATES_SLOTS_MAX;
	if (is_too_much || limiter_configure(entry->limiter, &limits, now_us) != 0)
		return -1;
	rates->slots += rate.count;
	rates->slots -= before.count;
	entry->rate = rate;
	uint64_t remember_us = now_us + before.window_us + before.window_us / 100;
	bool is_forgetful = before.count > 0 && (rate.count == 0 || rate.window_us < before.window_us);
	if (is_forgetful && remember_us > entry->keep_until_us)
		entry->keep_until_us = remember_us;
	return 0;
}

/* Those hosts whose rate grows, or all others. */
static int change_rates(struct host_rates *rates, bool are_growing, uint64_t now_us) REQUIRES(host_rates_mutex)
{
	int result = 0;
	for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
		for (struct host_rates_entry *entry = rates->buckets[bucket]; entry != NULL; entry = entry->next) {
			bool grows = rate_of(&rates->rules, entry->name).count > entry->rate.count;
			if (grows == are_growing && change_rate(rates, entry, now_us) != 0)
				result = -1;
		}
	}
	return result;
}

int host_rates_configure(struct host_rates *rates, const struct host_rates_options *options, uint64_t now_us)
{
	struct rules rules;
	if (copy_rules(options, &rules) != 0)
		return -1;
	host_rates_lock(rates);
	struct rules old = rates->rules;
	rates->rules = rules;
	sweep(rates, now_us);
	bool are_smaller_in_force = change_rates(rates, false, now_us) == 0;
	bool are_larger_in_force = change_rates(rates, true, now_us) == 0;
	host_rates_unlock(rates);
	free_rules(&old);
	return are_smaller_in_force && are_larger_in_force ? 0 : -1;
}

struct host_rates *host_rates_create(const struct host_rates_options *options, void (*wake)(struct limiter_ticket *))
{
	struct host_rates *rates = calloc(1, sizeof *rates);
	if (rates == NULL)
		return NULL;
	pthread_mutex_init(&rates->mutex, NULL);
	rates->wake = wake;
	if (getrandom(rates->secret, sizeof rates->secret, 0) == (ssize_t)sizeof rates->secret &&
	    host_rates_configure(rates, options, 0) == 0)
		return rates;
	pthread_mutex_destroy(&rates->mutex);
	free(rates);
	return NULL;
}

void host_rates_destroy(struct host_rates *rates)
{
	if (rates == NULL)
		return;
	host_rates_lock(rates);
	for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
		while (rates->buckets[bucket] != NULL) {
			struct host_rates_entry *entry = rates->buckets[bucket];
			rates->buckets[bucket] = entry->next;
			limiter_destroy(entry->limiter);
			free(entry);
		}
	}
	free_rules(&rates->rules);
	host_rates_unlock(rates);
	pthread_mutex_destroy(&rates->mutex);
	free(rates);
}

void host_rates_report(struct host_rates *rates, struct host_rates_report *report)
{
	host_rates_lock(rates);
	report->hosts = rates->count;
	report->slots = rates->slots;
	report->full_total = rates->full_total;
	host_rates_unlock(rates);
}
