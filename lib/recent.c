/* recent.c: see recent.h. */
#include "recent.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text.h"
#include "ts.h"

struct recent {
	atomic_int places[RECENT_KINDS];
	pthread_mutex_t mutex;
	uint64_t count GUARDED_BY(recent_mutex); /* written so far */
	struct recent_record ring[RECENT_MAX] GUARDED_BY(recent_mutex);
};

LOCK_VERBS(recent, mutex, recent_mutex)

struct recent *recent_create(void)
{
	struct recent *recent = calloc(1, sizeof *recent); /* pages that are never touched cost nothing */
	if (recent != NULL)
		pthread_mutex_init(&recent->mutex, NULL);
	return recent;
}

void recent_destroy(struct recent *recent)
{
	if (recent == NULL)
		return;
	pthread_mutex_destroy(&recent->mutex);
	free(recent);
}

void recent_ask(struct recent *recent, int count)
{
	for (int kind = 0; kind < RECENT_KINDS; kind++)
		atomic_store_explicit(&recent->places[kind], count, memory_order_relaxed);
}

bool recent_wants(struct recent *recent, enum recent_kind kind)
{
	if (atomic_load_explicit(&recent->places[kind], memory_order_relaxed) <= 0)
		return false;
	/* Of two that saw the last place one goes away empty-handed; the number may be below 0 for a while. */
	return atomic_fetch_sub_explicit(&recent->places[kind], 1, memory_order_relaxed) > 0;
}

void recent_add(struct recent *recent, const struct recent_record *record)
{
	recent_lock(recent);
	struct recent_record *place = &recent->ring[recent->count % RECENT_MAX];
	*place = *record;
	place->number = ++recent->count;
	recent_unlock(recent);
}

static void copy_text(char *out, size_t size, struct http_text text)
{
	text_clean(text.at != NULL ? text.at : "", text.length, out, size);
}

static void copy_string(char *out, size_t size, const char *string)
{
	copy_text(out, size, (struct http_text){ string, string != NULL ? strlen(string) : 0 });
}

void recent_show(struct recent *recent, const struct log_access *access, const char *refused_by)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct recent_record record = { .ended_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
		                        .status = access->status,
		                        .wait_us = access->wait_us,
		                        .total_us = access->total_us };
	copy_string(record.client, sizeof record.client, access->client);
	copy_text(record.method, sizeof record.method, access->method);
	copy_text(record.uri, sizeof record.uri, access->uri);
	copy_string(record.target, sizeof record.target, access->target);
	copy_string(record.refused_by, sizeof record.refused_by, refused_by);
	copy_string(record.outcome, sizeof record.outcome, access->outcome);
	recent_add(recent, &record);
}

size_t recent_read(struct recent *recent, uint64_t after, struct recent_record *out, size_t capacity)
{
	recent_lock(recent);
	uint64_t last = recent->count;
	uint64_t first = last > RECENT_MAX ? last - RECENT_MAX : 0;
	if (after > first)
		first = after < last ? after : last;
	if (last - first > capacity)
		first = last - capacity;
	size_t count = 0;
	for (uint64_t number = first; number < last; number++)
		out[count++] = recent->ring[number % RECENT_MAX];
	recent_unlock(recent);
	return count;
}
