/* crowd.c: real threads at lab 11's gate, as many as the processors have, in no order that anybody chose: for
 * ThreadSanitizer.
 *
 *      make replay TSAN=yes [MINE=file.c]
 *
 * The gate is wide enough for all of them, so that nobody ever has to wait: a lost wake-up would end in silence, and
 * here the lost update is to be seen.
 */
#include <pthread.h>
#include <stdio.h>

#include "labs/11-race/gate.h"

#define THREADS 4u
#define VISITS 20000u

static void *visit(void *argument)
{
	struct gate *gate = argument;

	for (unsigned i = 0; i < VISITS; i++)
		if (gate_enter(gate))
			gate_leave(gate);
	return NULL;
}

int main(void)
{
	struct gate *gate = gate_create(THREADS);
	pthread_t threads[THREADS];
	unsigned begun = 0;

	if (gate == NULL)
		return 1;
	while (begun < THREADS && pthread_create(&threads[begun], NULL, visit, gate) == 0)
		begun++;
	for (unsigned i = 0; i < begun; i++)
		pthread_join(threads[i], NULL);
	printf("%u threads came through the gate %u times each: %u served, and %u is right\n", begun, VISITS,
	       gate_served(gate), begun * VISITS);
	gate_destroy(gate);
	return 0;
}
