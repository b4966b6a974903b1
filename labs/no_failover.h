/* no_failover.h: the part of a balancer that labs 1 and 2 leave out: no target is ever out. Included at the end of a
 * student's balancer, so that all of balancer.h is there and weir can be built with it. Lab 3 is about what stands
 * here.
 *
 * Without it, a target that is down gets its turn like all others: weir then tries the next one for that request, so
 * that clients wait and are served, and the same happens again a turn later.
 */
#ifndef LABS_NO_FAILOVER_H
#define LABS_NO_FAILOVER_H

static void describe(const struct balancer *b, const struct target *t, struct balancer_report *report)
{
	(void)b;
	(void)t;
	(void)report;
}

void balancer_succeeded(struct balancer *b, const struct balancer_pick *pick)
{
	(void)b;
	(void)pick;
}

bool balancer_failed(struct balancer *b, const struct balancer_pick *pick, uint64_t now_us)
{
	(void)now_us;
	pthread_mutex_lock(&b->mutex);
	b->slots[pick->slot]->failures_total++;
	pthread_mutex_unlock(&b->mutex);
	return false;
}

bool balancer_probe_due(struct balancer *b, uint64_t now_us, struct balancer_pick *out, uint64_t *wake_us)
{
	(void)b;
	(void)now_us;
	(void)out;
	*wake_us = UINT64_MAX;
	return false;
}

enum balancer_change balancer_probed(struct balancer *b, const struct balancer_pick *pick, bool good, uint64_t now_us)
{
	(void)b;
	(void)pick;
	(void)good;
	(void)now_us;
	return BALANCER_SAME;
}

#endif
