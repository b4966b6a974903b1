/* client_counts.c: see client_counts.h. A hash table with lists of entries; an entry whose count falls to 0 is freed.
 *
 * Clients choose their addresses within limits, and the table is small enough that a collision costs a step in a list. The
 * bucket is taken from a product with a random odd number, so that the lists can't be chosen from outside.
 */
#include "client_counts.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "ts.h"

#define BUCKETS_LOG2 12

struct entry {
	struct entry *next;
	uint64_t client;
	unsigned count;
};

struct client_counts {
	uint64_t multiplier; /* set once */
	pthread_mutex_t mutex;
	struct entry *buckets[1 << BUCKETS_LOG2] GUARDED_BY(client_counts_mutex);
};

LOCK_VERBS(client_counts, mutex, client_counts_mutex)

struct client_counts *client_counts_create(void)
{
	struct client_counts *counts = calloc(1, sizeof *counts);
	if (counts == NULL)
		return NULL;
	counts->multiplier = UINT64_C(0x9e3779b97f4a7c15);
	uint64_t random;
	if (getrandom(&random, sizeof random, GRND_NONBLOCK) == (ssize_t)sizeof random)
		counts->multiplier = random | 1;
	pthread_mutex_init(&counts->mutex, NULL);
	return counts;
}

void client_counts_destroy(struct client_counts *counts)
{
	if (counts == NULL)
		return;
	client_counts_lock(counts);
	for (size_t i = 0; i < (size_t)1 << BUCKETS_LOG2; i++) {
		while (counts->buckets[i] != NULL) {
			struct entry *entry = counts->buckets[i];
			counts->buckets[i] = entry->next;
			free(entry);
		}
	}
	client_counts_unlock(counts);
	pthread_mutex_destroy(&counts->mutex);
	free(counts);
}

/* The place that points to the client's entry, or to NULL at the end of its list. */
static struct entry **find(struct client_counts *counts, uint64_t client) REQUIRES(client_counts_mutex)
{
	struct entry **place = &counts->buckets[(client * counts->multiplier) >> (64 - BUCKETS_LOG2)];
	while (*place != NULL && (*place)->client != client)
		place = &(*place)->next;
	return place;
}

bool client_counts_enter(struct client_counts *counts, uint64_t client, unsigned cap)
{
	bool may = cap > 0;
	client_counts_lock(counts);
	struct entry **place = find(counts, client);
	if (may && *place == NULL) {
		*place = calloc(1, sizeof **place);
		may = *place != NULL;
		if (may)
			(*place)->client = client;
	}
	may = may && (*place)->count < cap;
	if (may)
		(*place)->count++;
	client_counts_unlock(counts);
	return may;
}

void client_counts_leave(struct client_counts *counts, uint64_t client)
{
	client_counts_lock(counts);
	struct entry **place = find(counts, client);
	struct entry *entry = *place;
	if (entry != NULL && --entry->count == 0) {
		*place = entry->next;
		free(entry);
	}
	client_counts_unlock(counts);
}
