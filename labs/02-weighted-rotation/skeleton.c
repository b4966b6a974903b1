/* mine.c: a balancer of your own, with weights. As it stands it is the plain rotation, and nobody's weight counts.
 *
 * The list of targets is kept for you (labs/targets.h), with each target's weight, which is 1 or more. README.md beside
 * this file says what is asked and how it is graded.
 *
 *      make lab N=2
 */
#include <stddef.h>
#include <stdint.h>

struct own_target { /* what you want to remember of each target */
	int64_t credit;
};

struct own_balancer { /* and of them all: where the circle begins */
	size_t next;
};

#include "labs/targets.h"

static bool was_tried(const struct balancer_tried *tried, const struct target *t)
{
	return (tried->bits[t->slot / 64] >> (t->slot % 64) & 1) != 0;
}

/* Where the circle begins in the new list: at the first target, from the old beginning, that is still there. */
static size_t new_beginning(const struct balancer *b, struct target *const *old_list, size_t old_count)
{
	for (size_t i = 0; i < old_count; i++) {
		const struct target *t = old_list[(b->own.next + i) % old_count];

		for (size_t j = 0; t->is_listed && j < b->count; j++)
			if (b->list[j] == t)
				return j;
	}
	return 0;
}

/* The list of targets is a new one, or a weight is; or neither, for names are resolved again and again, and mostly with
   the same result. When something changed nobody is owed anything: what is owed in the old list means nothing in the
   new one. When nothing did, the round goes on. How will you know? The mutex is locked already. */
static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us)
{
	(void)now_us;
	b->own.next = new_beginning(b, old_list, old_count);
}

/* Whose turn is it? Smooth weighted rotation: all who can be picked earn their weight, the richest is picked and pays
   what all earned together; of equals, the first in the circle. Who was tried by this request earns nothing and is not
   picked. */
static struct target *choose(struct balancer *b, const struct balancer_tried *tried)
{
	for (size_t i = 0; i < b->count; i++) {
		size_t place = (b->own.next + i) % b->count;

		if (was_tried(tried, b->list[place]))
			continue;
		b->own.next = (place + 1) % b->count;
		return b->list[place];
	}
	return NULL;
}

/* ---- as in lab 1 ------------------------------------------------------------ */

bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out)
{
	struct target *t;

	(void)key_hash;
	pthread_mutex_lock(&b->mutex);
	t = choose(b, tried);
	if (t != NULL) {
		tried->bits[t->slot / 64] |= UINT64_C(1) << (t->slot % 64);
		tried->count++;
		t->active++;
		t->requests_total++;
		*out = (struct balancer_pick){ .slot = t->slot, .item = t->item };
	}
	pthread_mutex_unlock(&b->mutex);
	return t != NULL;
}

bool balancer_any_in(struct balancer *b)
{
	bool found;

	pthread_mutex_lock(&b->mutex);
	found = b->count > 0;
	pthread_mutex_unlock(&b->mutex);
	return found;
}

#include "labs/no_failover.h"
