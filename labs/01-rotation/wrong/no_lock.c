/* A turn is read and moved on without the lock: two threads that come together take the same one, and counts are lost.
 *
 * grader: turns were lost or taken twice
 */
#include <stddef.h>

struct own_target {
	char unused;
};

struct own_balancer {
	size_t next;
};

#include "labs/targets.h"

static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us)
{
	(void)now_us;
	for (size_t i = 0; i < old_count; i++) {
		const struct target *t = old_list[(b->own.next + i) % old_count];

		for (size_t j = 0; t->is_listed && j < b->count; j++)
			if (b->list[j] == t) {
				b->own.next = j;
				return;
			}
	}
	b->own.next = 0;
}

bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out)
{
	(void)key_hash;
	for (size_t i = 0; i < b->count; i++) {
		size_t place = (b->own.next + i) % b->count;
		struct target *t = b->list[place];

		if ((tried->bits[t->slot / 64] >> (t->slot % 64) & 1) != 0)
			continue;
		b->own.next = (place + 1) % b->count;
		tried->bits[t->slot / 64] |= UINT64_C(1) << (t->slot % 64);
		tried->count++;
		t->active++;
		t->requests_total++;
		*out = (struct balancer_pick){ .slot = t->slot, .item = t->item };
		return true;
	}
	return false;
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
