/* reference.c: lab 11's gate, repaired: the twin of skeleton.c.
 *
 * All that is shared is read and written with the mutex locked. Whoever sleeps does so in a loop that asks again, for
 * between the signal and the moment when it has the mutex again, somebody else may have taken the place. What makes a
 * sleeper's question come out differently (a place, the end) is followed by a signal, or by a broadcast where it
 * concerns them all. Two mutexes are locked in one order everywhere: by their address.
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
	pthread_mutex_lock(&g->mutex);
	while (READ(g->closed) == 0 && READ(g->inside) >= g->limit)
		pthread_cond_wait(&g->changed, &g->mutex);
	bool is_open = READ(g->closed) == 0;
	if (is_open)
		WRITE(g->inside, READ(g->inside) + 1);
	pthread_mutex_unlock(&g->mutex);
	return is_open;
}

void gate_leave(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	WRITE(g->inside, READ(g->inside) - 1);
	WRITE(g->served, READ(g->served) + 1);
	pthread_cond_signal(&g->changed);
	pthread_mutex_unlock(&g->mutex);
}

void gate_close(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	WRITE(g->closed, 1);
	pthread_cond_broadcast(&g->changed);
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
	struct gate *first = a < b ? a : b, *second = a < b ? b : a;

	pthread_mutex_lock(&first->mutex);
	if (second != first)
		pthread_mutex_lock(&second->mutex);
	unsigned served = READ(first->served) + READ(second->served);
	if (second != first)
		pthread_mutex_unlock(&second->mutex);
	pthread_mutex_unlock(&first->mutex);
	return served;
}
