/* A die is thrown, and the weights are its faces. On the average everybody gets the share, and in a given round nobody
 * does: of 10 requests one server may get 6.
 *
 * grader: and of round 1 they got
 */
#include <stddef.h>
#include <stdint.h>

#include "balancer.h"

struct own_target {
	char unused;
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
	uint64_t faces = 0, die;

	for (size_t i = 0; i < b->count; i++)
		faces += was_tried(tried, b->list[i]) ? 0 : b->list[i]->weight;
	die = faces > 0 ? (uint64_t)rand() % faces : 0;
	for (size_t i = 0; i < b->count; i++) {
		struct target *t = b->list[i];

		if (was_tried(tried, t))
			continue;
		if (die < t->weight)
			return t;
		die -= t->weight;
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
