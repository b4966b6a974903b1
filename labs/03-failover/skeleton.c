/* mine.c: a balancer of your own, in which a target that fails leaves the rotation and comes back by a probe. As it
 * stands nobody ever leaves.
 *
 *      IN ──── a request fails, or probe_fall bad probes in a row ──► OUT ──── probe_rise good probes in a row ──► IN
 *
 * The list of targets is kept for you (labs/targets.h), the rotation is that of lab 1, and who calls your functions is
 * in given.h, beside this file: all six with the mutex locked. What balancer_failed() and the others promise stands in
 * balancer.h. README.md says how it is graded.
 *
 *      make lab N=3
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NEVER UINT64_MAX

struct own_target { /* what you want to remember of each target: add to it */
	bool is_known; /* it was in the list before */
	bool is_out;
	unsigned stay;          /* how often it was taken out: each pick says in which stay it was made */
	uint64_t next_probe_us; /* NEVER: none is planned */
};

struct own_balancer {
	size_t next; /* whose turn it is */
};

#include "labs/targets.h"

/* May it be picked? (An operator may have drained it, too.) */
static bool takes_turns(const struct target *t)
{
	return !t->is_drained;
}

/* It is new in the list. If it begins out (starts_out), a probe is due at once. */
static void begin(struct balancer *b, struct target *t, uint64_t now_us)
{
	(void)b;
	(void)now_us;
	t->own.next_probe_us = NEVER;
}

/* A request failed at it. Old news? True when this call took it out. */
static bool take_out(struct balancer *b, struct target *t, const struct balancer_pick *pick, uint64_t now_us)
{
	(void)b;
	(void)t;
	(void)pick;
	(void)now_us;
	return false;
}

/* A request succeeded at it. */
static void forgive(struct target *t, const struct balancer_pick *pick)
{
	(void)t;
	(void)pick;
}

/* The target whose probe is due next, or NULL when none is planned. Not one that is drained, nor one whose probe is
   under way (is_probing). */
static struct target *next_to_probe(struct balancer *b)
{
	(void)b;
	return NULL;
}

/* A probe came to an end, good or not: what changes, and when is the next one? is_probing is off again. */
static enum balancer_change judge(struct balancer *b, struct target *t, const struct balancer_pick *pick, bool good,
                                  uint64_t now_us)
{
	(void)b;
	(void)t;
	(void)pick;
	(void)good;
	(void)now_us;
	return BALANCER_SAME;
}

#include "labs/03-failover/given.h"
