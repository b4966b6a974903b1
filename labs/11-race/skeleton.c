/* skeleton.c: lab 11, a gate that works on your machine. It has five faults, all of one kind: what happens depends on
 * which thread runs when.
 *
 * Do not look for them yet. Let them be shown to you, one at a time:
 *
 *      make replay             the first seed of each scene that goes wrong, with a picture of what the threads did
 *      make replay SEED=91     that seed, again and again
 *
 * READ(x) and WRITE(x, v) are x and x = v, and a place where the picture shows it. Use them for what threads share.
 */
#include "labs/11-race/gate.h"

#include <pthread.h>
#include <stdlib.h>

#include "labs/schedule.h"

struct gate {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned limit, inside, served, closed;
};

struct gate *gate_create(unsigned limit)
{
	struct gate *g = calloc(1, sizeof *g);

	if (g == NULL)
		return NULL;
	pthread_mutex_init(&g->mutex, NULL);
	pthread_cond_init(&g->changed, NULL);
	g->limit = limit;
	return g;
}

void gate_destroy(struct gate *g)
{
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->mutex);
	free(g);
}

bool gate_enter(struct gate *g)
{
	if (READ(g->inside) >= g->limit) { /* full: wait until somebody leaves */
		pthread_mutex_lock(&g->mutex);
		pthread_cond_wait(&g->changed, &g->mutex);
		pthread_mutex_unlock(&g->mutex);
	}
	if (READ(g->closed) != 0)
		return false;
	pthread_mutex_lock(&g->mutex);
	WRITE(g->inside, READ(g->inside) + 1);
	pthread_mutex_unlock(&g->mutex);
	return true;
}

void gate_leave(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	WRITE(g->inside, READ(g->inside) - 1);
	pthread_cond_signal(&g->changed);
	pthread_mutex_unlock(&g->mutex);
	WRITE(g->served, READ(g->served) + 1);
}

void gate_close(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	WRITE(g->closed, 1);
	pthread_cond_signal(&g->changed);
	pthread_mutex_unlock(&g->mutex);
}

unsigned gate_served(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	unsigned served = READ(g->served);
	pthread_mutex_unlock(&g->mutex);
	return served;
}

unsigned gate_served_by_both(struct gate *a, struct gate *b)
{
	pthread_mutex_lock(&a->mutex);
	pthread_mutex_lock(&b->mutex);
	unsigned served = READ(a->served) + READ(b->served);
	pthread_mutex_unlock(&b->mutex);
	pthread_mutex_unlock(&a->mutex);
	return served;
}
