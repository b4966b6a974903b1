/* queue.c: the world's future: what will happen, the earliest first; and where chance comes from.
 *
 *                 3             a heap in an array: the children of i are 4i + 1 .. 4i + 4,
 *            ┌──┬─┴┬──┐         a parent is never later than its children
 *            9  5  4  7
 *
 * Four children instead of two: half as deep, and the four lie side by side in memory. Events of one moment come out in
 * the order in which they went in: without that the shape of the heap would decide, and a run could not be repeated
 * after an innocent change.
 *
 * The random numbers are splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): 64
 * bits of state, so one number names a run, and neighbouring seeds give runs that have nothing in common.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>

#define CHILDREN 4u

uint64_t random_next(struct random *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t random_below(struct random *r, uint64_t limit)
{
	return limit > 0 ? random_next(r) % limit : 0;
}

uint64_t random_between(struct random *r, uint64_t least, uint64_t most)
{
	return least + random_below(r, most - least + 1);
}

bool random_chance(struct random *r, unsigned per_million)
{
	return per_million > 0 && random_next(r) % 1000000 < per_million;
}

static bool is_earlier(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void queue_push(struct queue *q, struct event event)
{
	size_t at = q->count++;

	if (q->count > q->capacity) {
		q->capacity = q->capacity > 0 ? 2 * q->capacity : 1024;
		q->events = sim_allocate(q->events, q->capacity * sizeof(*q->events));
	}
	event.order = q->order++;
	while (at > 0 && is_earlier(&event, &q->events[(at - 1) / CHILDREN])) {
		q->events[at] = q->events[(at - 1) / CHILDREN];
		at = (at - 1) / CHILDREN;
	}
	q->events[at] = event;
}

bool queue_pop(struct queue *q, struct event *event)
{
	const struct event *last;
	size_t at = 0;

	if (q->count == 0)
		return false;
	*event = q->events[0];
	last = &q->events[--q->count];
	for (;;) {
		size_t child = CHILDREN * at + 1, earliest = child;

		if (child >= q->count)
			break;
		for (size_t i = child + 1; i < child + CHILDREN && i < q->count; i++)
			if (is_earlier(&q->events[i], &q->events[earliest]))
				earliest = i;
		if (!is_earlier(&q->events[earliest], last))
			break;
		q->events[at] = q->events[earliest];
		at = earliest;
	}
	q->events[at] = *last;
	return true;
}

void *sim_allocate(void *old, size_t bytes)
{
	void *memory = realloc(old, bytes);

	if (memory == NULL)
		abort();
	return memory;
}
