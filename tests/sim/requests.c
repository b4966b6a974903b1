/* requests.c: clients that come, and for each request the thread that waits with it.
 *
 *      arrive ──► limiter_enter ─┬─ full: refused
 *                                ├─ go ─────────────────────┐
 *                                └─ wait ──► limiter_turn ──┴─► connect ──► limiter_may_start ──► send (judged)
 *                                              ▲    ▲                            │          └──► limiter_started
 *                                     woken or │    └────────────────────────────┘ too late
 *                                  by the clock
 *
 * Between any two steps the thread may be late: usually some tens of microseconds, now and then milliseconds, as on a
 * busy machine; and the whole node may stand still there. Each step does exactly what a thread of the proxy does.
 *
 * Checked on the way: nobody is called before one who came earlier (unless that one lost a slot by being late himself).
 */
#include "tests/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS 5u /* for queue = fair */
#define RETRY_US 40000u /* what a client that was refused does meanwhile */
#define THINK_US 200u

/* ---- a request's life -------------------------------------------------------------------------------------------- */

static struct request *make_request(struct node *n)
{
	struct world *w = n->world;
	struct request *r = w->spare;
	uint64_t life = 1;

	if (r != NULL) {
		w->spare = r->next;
		life = r->life + 1;
	} else {
		r = sim_allocate(NULL, sizeof(*r));
	}
	*r = (struct request){ .node = n->index, .life = life, .arrived_us = w->now_us, .wakes_us = NEVER_US };
	r->world = w;
	r->ticket.owner = r;
	r->previous = n->last;
	*(n->last != NULL ? &n->last->next : &n->first) = r;
	n->last = r;
	return r;
}

static struct node *node_of(const struct request *r)
{
	return &r->world->nodes[r->node];
}

static void set_state(struct request *r, enum request_state state)
{
	struct node *n = node_of(r);

	n->waiting -= r->state == REQUEST_WAITING;
	n->waiting += state == REQUEST_WAITING;
	r->state = state;
}

static void drop_request(struct request *r)
{
	struct node *n = node_of(r);

	set_state(r, REQUEST_FREE);
	*(r->previous != NULL ? &r->previous->next : &n->first) = r->next;
	*(r->next != NULL ? &r->next->previous : &n->last) = r->previous;
	r->life++; /* events on their way find nobody */
	r->next = n->world->spare;
	n->world->spare = r;
}

static void wake_in(struct request *r, uint64_t at_us)
{
	struct world *w = r->world;

	if (at_us >= r->wakes_us)
		return;
	r->wakes_us = at_us;
	queue_push(&w->queue,
		   (struct event){
			   .at_us = at_us, .kind = EVENT_THREAD, .node = r->node, .life = r->life, .subject = r });
}

/* Called with the limiter's mutex held: it only plans. */
void request_woken(struct limiter_ticket *ticket)
{
	struct request *r = ticket->owner;
	struct world *w = r->world;

	wake_in(r, w->now_us + world_lateness_us(w, &w->plan->threads.wake));
}

static void called(struct request *r)
{
	struct world *w = r->world;
	uint64_t in_us = random_below(&w->random, w->plan->threads.connect_us + UINT64_C(1));

	set_state(r, REQUEST_CALLED);
	world_plan(w, in_us, EVENT_CHECK, r->node, r->life, r);
	if (node_of(r)->pause_when_called_us > 0)
		world_pause(w, node_of(r), node_of(r)->pause_when_called_us);
}

/* Of those who came earlier and still wait, each must have been called too: its thread only does not know it yet. */
static void check_order(struct node *n, const struct request *r)
{
	uint64_t wake_us;
	unsigned looked_at = 0;

	if (n->world->plan->is_fair || r->has_died)
		return;
	for (struct request *i = n->first; i != NULL && i != r && looked_at < 16; i = i->next) {
		if (i->state != REQUEST_WAITING || i->has_died)
			continue;
		looked_at++;
		if (limiter_turn(n->limiter, &i->ticket, node_clock_us(n), &wake_us) == LIMITER_WAIT) {
			world_fail(n->world, "node %u called a request of %.6f before one of %.6f", n->index,
			           (double)r->arrived_us / 1e6, (double)i->arrived_us / 1e6);
			return;
		}
	}
}

static void refused(struct request *r)
{
	struct node *n = node_of(r);

	n->world->result->refused++;
	drop_request(r);
	load_refill(n, true);
}

void request_thread(struct request *r)
{
	struct node *n = node_of(r);
	struct world *w = n->world;
	uint64_t wake_us;

	r->wakes_us = NEVER_US;
	if (r->state != REQUEST_WAITING)
		return;
	switch (limiter_turn(n->limiter, &r->ticket, node_clock_us(n), &wake_us)) {
	case LIMITER_GO:
		check_order(n, r);
		called(r);
		break;
	case LIMITER_WAIT:
		if (wake_us != NEVER_US) {
			uint64_t true_us = node_true_us(n, wake_us);

			true_us = true_us > w->now_us ? true_us : w->now_us;
			wake_in(r, true_us + world_lateness_us(w, &w->plan->threads.wake));
		}
		break;
	case LIMITER_FULL:
		refused(r);
		break;
	}
}

static bool arrive(struct node *n)
{
	struct world *w = n->world;
	struct request *r = make_request(n);

	switch (limiter_enter(n->limiter, &r->ticket, random_below(&w->random, CLIENTS), node_clock_us(n))) {
	case LIMITER_GO:
		called(r);
		return true;
	case LIMITER_WAIT:
		set_state(r, REQUEST_WAITING);
		request_thread(r);
		node_poke(n);
		if (random_chance(&w->random, w->plan->impatient_per_million))
			world_plan(w, random_below(&w->random, 2 * SECOND), EVENT_GIVE_UP, n->index, r->life, r);
		return true;
	case LIMITER_FULL:
		break;
	}
	w->result->refused++;
	drop_request(r);
	return false;
}

void request_check(struct request *r)
{
	struct node *n = node_of(r);
	struct world *w = n->world;

	if (limiter_may_start(n->limiter, &r->ticket, node_clock_us(n))) {
		set_state(r, REQUEST_CHECKED);
		world_plan(w, world_lateness_us(w, &w->plan->threads.gap), EVENT_SEND, r->node, r->life, r);
		return;
	}
	w->result->died++;
	r->has_died = true;
	set_state(r, REQUEST_WAITING);
	request_thread(r);
	node_poke(n);
}

void request_send(struct request *r)
{
	struct node *n = node_of(r);

	judge_start(n->world, n, r);
	limiter_started(n->limiter, &r->ticket, node_clock_us(n));
	drop_request(r);
	load_refill(n, false);
}

void request_give_up(struct request *r)
{
	struct node *n = node_of(r);

	if (r->state != REQUEST_WAITING)
		return;
	limiter_cancel(n->limiter, &r->ticket, node_clock_us(n));
	drop_request(r);
	load_refill(n, false);
}

/* The process is gone, and its threads with it. */
void request_drop_all(struct node *n)
{
	while (n->first != NULL)
		drop_request(n->first);
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

static void plan_arrival(struct node *n, uint64_t in_us)
{
	queue_push(&n->world->queue, (struct event){ .at_us = n->world->now_us + in_us,
						     .kind = EVENT_ARRIVAL,
						     .node = n->index,
						     .life = n->life,
						     .number = n->load_life });
}

static uint64_t next_arrival_us(struct node *n)
{
	double mean_us = 1e6 / n->load.rate, share;

	if (n->load.pattern != LOAD_RANDOM)
		return (uint64_t)mean_us;
	share = ((double)(random_next(&n->world->random) >> 11) + 1) / 9007199254740993.0;
	return (uint64_t)(-log(share) * mean_us);
}

void load_set(struct node *n, const struct load *load)
{
	n->load = *load;
	n->load_life++;
	n->refill_us = 0;
	if (!n->is_up || load->pattern == LOAD_IDLE)
		return;
	if (load->pattern == LOAD_STANDING)
		plan_arrival(n, random_between(&n->world->random, 1, THINK_US));
	else if (load->rate > 0)
		plan_arrival(n, (uint64_t)((double)random_below(&n->world->random, 1000) / 1000 * 1e6 / load->rate));
}

/* A place in a standing line came free: its client sends the next, soon if it was served. */
void load_refill(struct node *n, bool was_refused)
{
	uint64_t in_us = was_refused ? RETRY_US : random_between(&n->world->random, 1, THINK_US);

	if (n->load.pattern != LOAD_STANDING || n->waiting >= n->load.depth)
		return;
	if (n->refill_us > n->world->now_us && n->refill_us <= n->world->now_us + in_us)
		return;
	n->load_life++; /* one refill at a time */
	n->refill_us = n->world->now_us + in_us;
	plan_arrival(n, in_us);
}

void load_next(struct node *n)
{
	if (n->load.pattern == LOAD_STANDING) {
		for (unsigned i = 0; i < n->load.depth && n->waiting < n->load.depth; i++)
			if (!arrive(n)) {
				n->refill_us = 0;
				load_refill(n, true);
				break;
			}
		return;
	}
	for (unsigned i = n->load.pattern == LOAD_BURSTS ? n->load.depth : 1; i > 0; i--)
		arrive(n);
	plan_arrival(n, next_arrival_us(n));
}
