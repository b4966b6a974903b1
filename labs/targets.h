/* targets.h: the part of a balancer that the labs give: who the targets are. Included once, by a student's balancer.
 *
 * balancer.h promises three things: a list of targets that may change at any time, whose turn it is, and who is out.
 * This file keeps the list, so that a lab can be about the rest. What a lab remembers beyond that goes into two structs
 * of its own, which are defined before this file is included:
 *
 *      struct own_target { ... };     for each target
 *      struct own_balancer { ... };   for all of them together
 *      #include "labs/targets.h"
 *
 *      b->list[0 .. count-1]   the targets in the caller's order; these take turns
 *      b->slots[]              the same, and those that left and still have a request under way: a pick names a slot
 *
 *          list    [ A | B | C ]            after set_targets(A, C) while B is busy:   list   [ A | C ]
 *          slots   [ A | B | C | - | - ]                                               slots  [ A | B | C | - ]
 *
 * Here are: balancer_create, _destroy, _configure, _set_targets, _drain, _done and _report. The student's file has
 * list_changed() and describe(), declared below, and the other functions of balancer.h.
 *
 * The invariant: everything but release is read and written with mutex locked. A new target's memory is all zero, own
 * too.
 */
#ifndef LABS_TARGETS_H
#define LABS_TARGETS_H

#include "balancer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct target {
	char name[256];
	void *item;
	unsigned slot; /* its place in slots, which never changes */
	unsigned weight;
	unsigned active; /* requests under way; balancer_done() counts down */
	uint64_t requests_total, failures_total;
	bool starts_out; /* as its entry said when it was new */
	bool is_drained;
	bool is_probing; /* it is kept as long as this is set */
	bool is_listed;  /* false: left the list */
	struct own_target own;
};

struct balancer {
	pthread_mutex_t mutex;
	void (*release)(void *item);
	struct balancer_options options;
	struct target *slots[BALANCER_TARGETS_MAX];
	struct target *list[BALANCER_TARGETS_MAX];
	size_t count;
	struct own_balancer own;
};

/* The list is a new one. Those of old_list that left it are still there to be looked at, with is_listed false. Called
   with the mutex locked. */
static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us);
/* Fills in what only the student's file knows: state, is_next, next_probe_us. The rest is there. Called with the mutex
   locked. */
static void describe(const struct balancer *b, const struct target *t, struct balancer_report *report);

struct balancer *balancer_create(const struct balancer_options *options, void (*release)(void *item))
{
	struct balancer *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return NULL;
	pthread_mutex_init(&b->mutex, NULL);
	b->options = *options;
	b->release = release;
	return b;
}

void balancer_destroy(struct balancer *b)
{
	if (b == NULL)
		return;
	for (size_t i = 0; i < BALANCER_TARGETS_MAX; i++) {
		if (b->slots[i] != NULL)
			b->release(b->slots[i]->item);
		free(b->slots[i]);
	}
	pthread_mutex_destroy(&b->mutex);
	free(b);
}

void balancer_configure(struct balancer *b, const struct balancer_options *options)
{
	pthread_mutex_lock(&b->mutex);
	b->options = *options;
	pthread_mutex_unlock(&b->mutex);
}

static struct target *find_target(struct target *const *list, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strncmp(list[i]->name, name, sizeof(list[i]->name) - 1) == 0)
			return list[i];
	return NULL;
}

static struct target *new_target(struct balancer *b, const struct balancer_entry *entry)
{
	struct target *t;
	unsigned slot = 0;

	while (slot < BALANCER_TARGETS_MAX && b->slots[slot] != NULL)
		slot++;
	t = slot < BALANCER_TARGETS_MAX ? calloc(1, sizeof(*t)) : NULL;
	if (t == NULL)
		return NULL;
	strncpy(t->name, entry->name, sizeof(t->name) - 1);
	t->item = entry->item;
	t->starts_out = entry->out;
	t->slot = slot;
	b->slots[slot] = t;
	return t;
}

/* A target that left the list ends with its last request. Returns its item if that is now, to be released with the
   mutex unlocked. */
static void *end_if_unused(struct balancer *b, struct target *t)
{
	void *item = t->item;

	if (t->is_listed || t->active > 0 || t->is_probing)
		return NULL;
	b->slots[t->slot] = NULL;
	free(t);
	return item;
}

/* Makes list out of entries. Items that are not needed go to spare. False when there is no room or no memory. */
static bool read_entries(struct balancer *b, const struct balancer_entry *entries, size_t count, struct target **list,
                         size_t *listed, void **spare)
{
	for (size_t i = 0; i < count; i++) {
		struct target *t = find_target(list, *listed, entries[i].name);

		spare[i] = entries[i].item;
		if (t != NULL)
			continue;
		t = find_target(b->list, b->count, entries[i].name);
		if (t == NULL) {
			t = new_target(b, &entries[i]);
			spare[i] = NULL;
		}
		if (t == NULL)
			return false;
		list[(*listed)++] = t;
	}
	return true;
}

static void undo_entries(struct balancer *b, struct target *const *list, size_t listed)
{
	for (size_t i = 0; i < listed; i++)
		if (!list[i]->is_listed) {
			b->slots[list[i]->slot] = NULL;
			free(list[i]);
		}
}

static unsigned weight_of(const struct balancer_entry *entries, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strncmp(entries[i].name, name, sizeof(((struct target *)NULL)->name) - 1) == 0)
			return entries[i].weight > 0 ? entries[i].weight : 1;
	return 1;
}

int balancer_set_targets(struct balancer *b, const struct balancer_entry *entries, size_t count, uint64_t now_us)
{
	struct target *list[BALANCER_TARGETS_MAX], *old_list[BALANCER_TARGETS_MAX];
	void *spare[BALANCER_TARGETS_MAX], *ended[BALANCER_TARGETS_MAX];
	size_t listed = 0, old_count;

	if (count > BALANCER_TARGETS_MAX)
		return -1;
	pthread_mutex_lock(&b->mutex);
	if (!read_entries(b, entries, count, list, &listed, spare)) {
		undo_entries(b, list, listed);
		pthread_mutex_unlock(&b->mutex);
		return -1;
	}
	old_count = b->count;
	memcpy(old_list, b->list, old_count * sizeof(old_list[0]));
	for (size_t i = 0; i < old_count; i++)
		old_list[i]->is_listed = false;
	for (size_t i = 0; i < listed; i++) {
		list[i]->is_listed = true;
		list[i]->weight = weight_of(entries, count, list[i]->name);
	}
	memcpy(b->list, list, listed * sizeof(list[0]));
	b->count = listed;
	list_changed(b, old_list, old_count, now_us);
	for (size_t i = 0; i < old_count; i++)
		ended[i] = end_if_unused(b, old_list[i]);
	pthread_mutex_unlock(&b->mutex);
	for (size_t i = 0; i < old_count; i++)
		if (ended[i] != NULL)
			b->release(ended[i]);
	for (size_t i = 0; i < count; i++)
		if (spare[i] != NULL)
			b->release(spare[i]);
	return 0;
}

bool balancer_drain(struct balancer *b, const char *name, bool drain)
{
	struct target *t;

	pthread_mutex_lock(&b->mutex);
	t = find_target(b->list, b->count, name);
	if (t != NULL)
		t->is_drained = drain;
	pthread_mutex_unlock(&b->mutex);
	return t != NULL;
}

void balancer_done(struct balancer *b, const struct balancer_pick *pick)
{
	void *ended;

	pthread_mutex_lock(&b->mutex);
	b->slots[pick->slot]->active--;
	ended = end_if_unused(b, b->slots[pick->slot]);
	pthread_mutex_unlock(&b->mutex);
	if (ended != NULL)
		b->release(ended);
}

size_t balancer_report(struct balancer *b, struct balancer_report *reports, size_t capacity)
{
	size_t count;

	pthread_mutex_lock(&b->mutex);
	count = b->count;
	for (size_t i = 0; i < count && i < capacity; i++) {
		const struct target *t = b->list[i];
		struct balancer_report *r = &reports[i];

		memset(r, 0, sizeof(*r));
		memcpy(r->name, t->name, sizeof(r->name));
		r->state = t->is_drained ? BALANCER_DRAIN : BALANCER_IN;
		r->probing = t->is_probing;
		r->weight = t->weight;
		r->active = t->active;
		r->requests_total = t->requests_total;
		r->failures_total = t->failures_total;
		describe(b, t, r);
	}
	pthread_mutex_unlock(&b->mutex);
	return count;
}

#endif
