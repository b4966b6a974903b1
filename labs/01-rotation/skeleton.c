/* mine.c: a balancer of your own. It picks the first target each time, which is not what a rotation is.
 *
 * The list of targets is kept for you: read labs/targets.h first. Write the three functions under "yours"; leave the rest, which is
 * the matter of lab 3. README.md, beside this file, says what is asked and how it is graded.
 *
 *      make lab N=1
 */
#include <stddef.h>

struct own_target { /* what you want to remember of each target */
	char nothing_yet;
};

struct own_balancer { /* and of them all: whose turn is it? */
	size_t next;
};

#include "labs/targets.h"

/* ---- yours ------------------------------------------------------------ */

/* The list of targets is a new one: b->list[0 .. b->count-1]. The turn goes on with the first target, from the one whose turn it was
   in the old list, that is still there (is_listed). The mutex is locked already. */
static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us)
{
	(void)old_list;
	(void)old_count;
	(void)now_us;
	b->own.next = 0;
}

/* Whose turn is it? The next target in the circle that this request has not tried yet (tried->bits: one bit for each slot). Marks it
   there, counts the request (tried->count, active, requests_total), and fills in *out. False when there is no such target. Any thread
   may call this at any time: what must not happen between reading whose turn it is and moving on? */
bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out)
{
	struct target *t;

	(void)key_hash; /* for BALANCER_HASH, which is not asked here */
	(void)tried;
	if (b->count == 0)
		return false;
	t = b->list[0];
	*out = (struct balancer_pick){ .slot = t->slot, .item = t->item };
	t->active++;
	t->requests_total++;
	return true;
}

/* Would balancer_pick() with nothing tried find a target? */
bool balancer_any_in(struct balancer *b)
{
	(void)b;
	return true;
}

/* ---- the matter of lab 3: leave it ------------------------------------------------------------ */

static void describe(const struct balancer *b, const struct target *t, struct balancer_report *report)
{
	report->is_next = b->own.next < b->count && b->list[b->own.next] == t;
}

void balancer_succeeded(struct balancer *b, const struct balancer_pick *pick)
{
	(void)b;
	(void)pick;
}

bool balancer_failed(struct balancer *b, const struct balancer_pick *pick, uint64_t now_us)
{
	(void)now_us;
	pthread_mutex_lock(&b->mutex);
	b->slots[pick->slot]->failures_total++;
	pthread_mutex_unlock(&b->mutex);
	return false;
}

bool balancer_probe_due(struct balancer *b, uint64_t now_us, struct balancer_pick *out, uint64_t *wake_us)
{
	(void)b;
	(void)now_us;
	(void)out;
	*wake_us = UINT64_MAX;
	return false;
}

enum balancer_change balancer_probed(struct balancer *b, const struct balancer_pick *pick, bool good, uint64_t now_us)
{
	(void)b;
	(void)pick;
	(void)good;
	(void)now_us;
	return BALANCER_SAME;
}
