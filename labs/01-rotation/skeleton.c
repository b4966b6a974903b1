/* mine.c: a balancer of your own. As it stands it picks the first target each time, which is no rotation.
 *
 * The list of targets is kept for you: read labs/targets.h first, for struct target and struct balancer are there.
 * README.md beside this file says what is asked and how it is graded.
 *
 *      make lab N=1
 */
#include <stddef.h>

struct own_target { /* what you want to remember of each target: here nothing is needed, and C wants a member */
	char unused;
};

struct own_balancer { /* and of them all: whose turn is it? */
	size_t next;
};

#include "labs/targets.h"

/* The list of targets is a new one: b->list[0 .. b->count-1]. The turn goes on with the first target, from the one
   whose turn it was in the old list, that is still there (is_listed). The mutex is locked already. */
static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us)
{
	(void)old_list;
	(void)old_count;
	(void)now_us;
	b->own.next = 0;
}

/* Whose turn is it? The next target in the circle that this request has not tried yet (tried->bits: one bit for each
   slot). Marks it there, counts the request (tried->count, active, requests_total), and fills in *out. False when there
   is no such target. Any thread may call this at any time: what must not happen between reading whose turn it is and
   moving on? */
bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out)
{
	struct target *t;

	(void)key_hash; /* for another policy, which is not asked here */
	(void)tried;
	if (b->count == 0)
		return false;
	t = b->list[0];
	*out = (struct balancer_pick){ .slot = t->slot, .item = t->item };
	return true;
}

/* Would balancer_pick() with nothing tried find a target? */
bool balancer_any_in(struct balancer *b)
{
	(void)b;
	return true;
}

#include "labs/no_failover.h"
