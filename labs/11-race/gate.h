/* gate.h: what lab 11 is about: a gate through which at most so many threads are at a time, as a proxy has one for
 * its connections (max_clients).
 *
 *      gate_enter ──► [ at most limit inside ] ──► gate_leave
 *          └─ full: it sleeps until somebody leaves, or the gate is closed
 *
 * Every function may be called by many threads at once.
 */
#ifndef LAB_GATE_H
#define LAB_GATE_H

#include <stdbool.h>

struct gate;

struct gate *gate_create(unsigned limit); /* NULL when out of memory */
void gate_destroy(struct gate *g);        /* nobody is inside or waits */
/* Waits for a place. False: the gate was closed. */
bool gate_enter(struct gate *g);
/* Gives the place back, and counts whoever had it as served. */
void gate_leave(struct gate *g);
/* Nobody is let in any more, and whoever waits goes away. */
void gate_close(struct gate *g);
/* How many have left. */
unsigned gate_served(struct gate *g);
/* How many have left both: at one moment, so neither may change between the two looks. Two threads may ask for the
   same two, in any order. */
unsigned gate_served_by_both(struct gate *a, struct gate *b);

#endif
