/* client_counts.h: how many connections each client has open now, for client_connections.
 *
 * Unlike a rate, a count may not be forgotten while it is above 0. It needs no bound of its own: there are never more entries than
 * connections, and those are bounded by max_clients. Any thread.
 */
#ifndef WEIR_CLIENT_COUNTS_H
#define WEIR_CLIENT_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

struct client_counts;

struct client_counts *client_counts_create(void); /* NULL when out of memory */
void client_counts_destroy(struct client_counts *counts);

/* Counts one more connection of this client, if it then has no more than cap. False: it is over (or out of memory), nothing was counted.
   True: client_counts_leave() with the same client follows. */
bool client_counts_enter(struct client_counts *counts, uint64_t client, unsigned cap);
void client_counts_leave(struct client_counts *counts, uint64_t client);

#endif
