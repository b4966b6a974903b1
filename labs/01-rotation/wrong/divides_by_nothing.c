/* There is always somebody, it thinks: an empty list is divided by, and when all were tried one of them comes again.
 * grader: it crashed:
 */
#define OWN_CHOICE
#include "lesson.inc"

static struct target *choose(struct balancer *b, const struct balancer_tried *tried)
{
	struct target *t;

	for (size_t i = 0; i < b->count && was_tried(tried, b->list[b->own.next]); i++)
		b->own.next = (b->own.next + 1) % b->count;
	t = b->list[b->own.next % b->count];
	b->own.next = (b->own.next + 1) % b->count;
	return t;
}
