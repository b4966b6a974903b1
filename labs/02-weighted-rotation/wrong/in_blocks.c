/* Each target gets all its turns of the round at once: A A A B C. The shares are right, and a server that should carry
 * three times as much as its neighbour carries all of it, then nothing.
 * grader: not three times A in a row
 */
#define WITHOUT_RESET
#define OWN_CHOICE
#include "lesson.inc"

/* credit: how many turns of this round it has had. */
static struct target *choose(struct balancer *b, const struct balancer_tried *tried)
{
	for (size_t i = 0; i <= b->count && b->count > 0; i++) {
		struct target *t = b->list[b->own.next];

		if (!was_tried(tried, t) && t->own.credit < t->weight) {
			t->own.credit++;
			return t;
		}
		t->own.credit = 0;
		b->own.next = (b->own.next + 1) % b->count;
	}
	return NULL;
}
