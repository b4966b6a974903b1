/* When the list or a weight changes the credits stay: what was owed in the old round is paid out in the new one.
 *
 * grader: and B is not owed a turn for each of the 40
 */
#include <stddef.h>
#include <stdint.h>

#include "balancer.h"

struct own_target {
	int64_t credit;
};

struct own_balancer {
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

static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us)
{
	(void)now_us;
	b->own.next = new_beginning(b, old_list, old_count);
}

static struct target *choose(struct balancer *b, const struct balancer_tried *tried)
{
	struct target *best = NULL;
	size_t best_place = 0;
	int64_t earned = 0;
	bool passed_over = false;

	for (size_t i = 0; i < b->count; i++) {
		size_t place = (b->own.next + i) % b->count;
		struct target *t = b->list[place];

		if (was_tried(tried, t)) {
			passed_over = true;
			continue;
		}
		t->own.credit += t->weight;
		earned += t->weight;
		if (best == NULL || t->own.credit > best->own.credit) {
			best = t;
			best_place = place;
		}
	}
	if (best == NULL)
		return NULL;
	best->own.credit -= earned;
	for (size_t i = 0; i < b->count && passed_over; i++)
		b->list[i]->own.credit = 0;
	b->own.next = (best_place + 1) % b->count;
	return best;
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
