/* A die is thrown, and the weights are its faces. On the average everybody gets the share, and in a given round nobody
 * does: of 10 requests one server may get 6.
 * grader: and of round 1 they got
 */
#define OWN_CHOICE
#include "lesson.inc"

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
