/* roster.c: see roster.h. */
#include "roster.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/clock.h"
#include "lib/thread.h"
#include "lib/ts.h"

struct roster_entry {
	struct roster_entry *next;
	struct proxy *proxy;
	unsigned holders; /* guarded by the roster's mutex */
};

struct roster {
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* a holder let go, or a change ended */
	struct roster_entry *first GUARDED_BY(roster_mutex);
	size_t count GUARDED_BY(roster_mutex);
	bool is_changing GUARDED_BY(roster_mutex);
	struct roster_facts facts GUARDED_BY(roster_mutex);
};

LOCK_VERBS(roster, mutex, roster_mutex)

struct roster *roster_create(struct log *log)
{
	struct roster *roster = calloc(1, sizeof *roster);
	if (roster == NULL)
		return NULL;
	pthread_mutex_init(&roster->mutex, NULL);
	thread_condition_init(&roster->changed);
	int64_t now_s = (int64_t)time(NULL);
	roster_lock(roster);
	roster->facts = (struct roster_facts){
		.log = log, .started_us = clock_us(), .started_s = now_s, .last_reload_is_good = true, .last_reload_s = now_s
	};
	roster_unlock(roster);
	return roster;
}

void roster_destroy(struct roster *roster)
{
	if (roster == NULL)
		return;
	pthread_cond_destroy(&roster->changed);
	pthread_mutex_destroy(&roster->mutex);
	free(roster);
}

bool roster_add(struct roster *roster, struct proxy *proxy)
{
	struct roster_entry *entry = calloc(1, sizeof *entry);
	if (entry == NULL)
		return false;
	entry->proxy = proxy;
	roster_lock(roster);
	struct roster_entry **place = &roster->first;
	while (*place != NULL)
		place = &(*place)->next;
	*place = entry;
	roster->count++;
	roster_unlock(roster);
	return true;
}

void roster_remove(struct roster *roster, struct proxy *proxy)
{
	roster_lock(roster);
	struct roster_entry **place = &roster->first;
	while (*place != NULL && (*place)->proxy != proxy)
		place = &(*place)->next;
	struct roster_entry *entry = *place;
	if (entry != NULL) {
		*place = entry->next;
		roster->count--;
		pthread_cond_broadcast(&roster->changed);
		while (entry->holders > 0)
			pthread_cond_wait(&roster->changed, &roster->mutex);
	}
	roster_unlock(roster);
	free(entry);
}

/* Is there a younger one of the same name? */
static bool is_succeeded(const struct roster_entry *entry)
{
	if (!proxy_is_draining(entry->proxy))
		return false;
	for (const struct roster_entry *other = entry->next; other != NULL; other = other->next)
		if (strcmp(proxy_name(other->proxy), proxy_name(entry->proxy)) == 0)
			return true;
	return false;
}

static bool hold(struct roster *roster, struct roster_view *view, bool also_succeeded)
{
	*view = (struct roster_view){ .roster = roster };
	roster_lock(roster);
	size_t room = roster->count + 1;
	view->entries = calloc(room, sizeof *view->entries);
	view->proxies = calloc(room, sizeof *view->proxies);
	bool good = view->entries != NULL && view->proxies != NULL;
	for (struct roster_entry *entry = roster->first; good && entry != NULL; entry = entry->next) {
		if (!also_succeeded && is_succeeded(entry))
			continue;
		entry->holders++;
		view->entries[view->count] = entry;
		view->proxies[view->count++] = entry->proxy;
	}
	roster_unlock(roster);
	if (!good)
		roster_release(view);
	return good;
}

bool roster_hold(struct roster *roster, struct roster_view *view)
{
	return hold(roster, view, false);
}

bool roster_hold_all(struct roster *roster, struct roster_view *view)
{
	return hold(roster, view, true);
}

void roster_release(struct roster_view *view)
{
	roster_lock(view->roster);
	for (size_t i = 0; i < view->count; i++)
		view->entries[i]->holders--;
	pthread_cond_broadcast(&view->roster->changed);
	roster_unlock(view->roster);
	free(view->entries);
	free(view->proxies);
	*view = (struct roster_view){ .roster = NULL };
}

/* Waits for a change. ETIMEDOUT at the deadline. */
static int wait_for_change(struct roster *roster, uint64_t deadline_us) REQUIRES(roster_mutex)
{
	struct timespec deadline = { .tv_sec = (time_t)(deadline_us / US_PER_S),
		                     .tv_nsec = (long)(deadline_us % US_PER_S) * 1000 };
	return deadline_us == CLOCK_NEVER ? pthread_cond_wait(&roster->changed, &roster->mutex) :
	                                    pthread_cond_timedwait(&roster->changed, &roster->mutex, &deadline);
}

bool roster_wait_empty(struct roster *roster, uint64_t deadline_us)
{
	int error = 0;
	roster_lock(roster);
	while (roster->count > 0 && error != ETIMEDOUT)
		error = wait_for_change(roster, deadline_us);
	bool is_empty = roster->count == 0;
	roster_unlock(roster);
	return is_empty;
}

bool roster_begin_change(struct roster *roster, uint64_t deadline_us)
{
	int error = 0;
	roster_lock(roster);
	while (roster->is_changing && error != ETIMEDOUT)
		error = wait_for_change(roster, deadline_us);
	bool is_ours = !roster->is_changing;
	roster->is_changing = true;
	roster_unlock(roster);
	return is_ours;
}

void roster_end_change(struct roster *roster)
{
	roster_lock(roster);
	roster->is_changing = false;
	pthread_cond_broadcast(&roster->changed);
	roster_unlock(roster);
}

void roster_facts(struct roster *roster, struct roster_facts *facts)
{
	roster_lock(roster);
	*facts = roster->facts;
	roster_unlock(roster);
}

void roster_note_drain(struct roster *roster)
{
	roster_lock(roster);
	roster->facts.is_draining = true;
	roster_unlock(roster);
}

void roster_note_reload(struct roster *roster, bool is_good)
{
	int64_t now_s = (int64_t)time(NULL);
	roster_lock(roster);
	roster->facts.last_reload_is_good = is_good;
	if (is_good)
		roster->facts.last_reload_s = now_s;
	roster_unlock(roster);
}
