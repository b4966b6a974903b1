/* limiter.c: when a request may start, or why it may not.
 *
 * The problem: in no window of window_us, wherever it begins, may more than threshold requests start, as someone at
 * the target's door counts them; and a service that has enough to do must run at 99 % of that or more.
 *
 * The idea: threshold slots, each of which may be used again one window and a small guard after its last start. They
 * lie in a ring, ordered by that start, so the one that comes free next is always in front:
 *
 *              front                              back
 *      ring    [ 0.003 | 0.003 | 0.010 | ... | 0.951 ]  ◄── limiter_started: a slot returns with its start
 *                 │
 *                 └──► at 0.003 + window + guard: a request takes it; until it started, the slot is in flight
 *
 * Why it is exact: of any threshold + 1 starts two used the same slot, so they lie more than a window apart. What
 * counts is the time AFTER the send: a request that was allowed at 0.000 and left at 0.050 holds its slot until
 * 1.050. The guard is for the road to the target, which hurries one request more than another. Why it is fast: a
 * slot's round takes a window, the guard, and as much as its thread was late; those two are under 1 % of a second. A
 * token bucket with burst b lets threshold + b start in a window, and without a burst loses what a late thread did
 * not take; fixed windows let twice the threshold through at their border.
 *
 * Starts that the ring no longer knows (their slot was used again, or a change took it away) leave one trace:
 * forgotten_us, the latest of them. A slot that a change adds begins as if it had been used then. So no change
 * refills anything.
 *
 * burst: a second, softer condition (GCRA: even_us is when an even flow would be due again). Its debts to late
 * threads are forgiven by a few milliseconds, else every late wake-up would be lost for good. The ring stays the law.
 *
 * The line: who arrives while somebody waits goes behind. One list for each client and a circle of clients;
 * LIMITER_FIFO is the case of one client. There is no thread here that hands out slots. Whoever calls serves all
 * whose slots have come free and wakes them, so nobody depends on another being scheduled. Only the front waits by
 * the clock; the invariant that no wake-up is lost: the front was told a time not after its slot, or wake() was
 * called since (settle() sees to it).
 *
 * Given slots: several nodes share one threshold, and the ring is their master's. What comes here are slots that may be
 * used between two moments only. No ring remembers them: the master gives each again no sooner than one window after it
 * died, so the second moment is the law, and a slot that comes late is worth nothing.
 *
 *      limiter_give ──► [ 0.100-0.108: 2 | 0.103-0.111: 1 | ... ]     as they begin; no ring: its count is 0
 *                              │                  └──► 0.111 passes, nobody waits: it died
 *                              └──► front of the line ──► limiter_may_start ──► limiter_started
 *                                        ▲                       │ after 0.108: it died too
 *                                        └─ ahead of the line ◄──┘
 *
 * Everything else is told once for both. The invariant of the line stays as it is, with the time when the first slot
 * begins as the front's. That a request stands in line says nothing before the master has seen it there: so up to a
 * threshold of them may stand behind the backlog, and limiter_answered() sends away who was seen in vain.
 *
 * Who is refused is promised a time, and those times are kept in a book with as many lines as there are slots, each
 * used again one round after the time that stands on it: the ring once more, of what is to come.
 *
 * Sources: the sliding window log, with its memory bounded by the threshold; ITU-T I.371 (GCRA); Nagle, RFC 970 (fair
 * lines).
 */
#include "limiter.h"
#include "lib/ts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NEVER 0u /* a slot that was not used yet */
#define UNKNOWN UINT64_MAX
#define FOR_EVER UINT64_MAX
#define GUARD_MAX_US 4000u
#define FORGIVEN_MAX_US 10000u
#define PAGES 16u
#define PROMISED_ROUNDS 16u
#define LATE_MAX_US 100000u /* how much later than promised a client that obeys may come */
#define SECOND_US UINT64_C(1000000)
#define BUCKETS 65536u /* a power of two */

enum place { AWAY, IN_LINE, GRANTED, PUSHED_OUT };

/* One client's part of the line. It exists while the client has a request in it. */
struct limiter_client {
	uint64_t key;
	struct limiter_ticket *first, *last;
	unsigned length;
	struct limiter_client *next, *previous;               /* the circle of turns */
	struct limiter_client *next_as_long, *previous_as_long; /* those whose lines are as long as this one */
	struct limiter_client *next_in_bucket;                /* in the table by key; next in the list of spare ones */
};

struct line {
	struct limiter_client *turn; /* whose first ticket is the front of the line; NULL when nobody waits */
	unsigned waiting;
	size_t places; /* the backlog; where slots are given, and a threshold of those whom the master has not seen */
	struct limiter_client **buckets;
	size_t bucket_count;               /* a power of two */
	struct limiter_client **by_length; /* finds the longest without a search; NULL when FIFO */
	unsigned longest;
	struct limiter_client returned; /* ahead of the turns, of all clients: they were called, and their slot died */
	struct limiter_ticket *newest;  /* of all: entered_us falls from here to older and older */
};

/* Slots that a master gave, ordered by when they begin, then by when they die. */
struct given {
	unsigned run_count, held;
	uint64_t used_total, died_total, late_us_total;
	/* Used lately: in the window (the n-th since time began) of the latest use, and in the one before it. */
	uint64_t window, used_in_window, used_before;
	struct run {
		uint64_t from_us, until_us;
		unsigned count;
	} runs[LIMITER_RUNS_MAX + 1]; /* the last is for the moment between one too many and throwing one away */
};

/* A book of promises: as many lines as may start at once, divided over a few pages. A page is filled, then the next;
   when it comes round again it is free for who comes back a round after the last that it promised. */
struct book {
	struct page {
		unsigned made;      /* promises on it */
		uint64_t latest_us; /* when the last of those clients comes back */
		uint64_t free_us;   /* before that nobody may be promised a place on it */
	} pages[PAGES];
	unsigned open; /* the page that is being filled */
};

struct limiter {
	pthread_mutex_t mutex;
	void (*wake)(struct limiter_ticket *); /* never changes */
	struct limiter_options options GUARDED_BY(limiter_mutex);
	/* Times that follow from the options. */
	uint64_t round_us GUARDED_BY(limiter_mutex);   /* from a slot's start to its next use: window and guard */
	uint64_t step_us GUARDED_BY(limiter_mutex);    /* between starts of an even flow; 0: no spacing */
	uint64_t slack_us GUARDED_BY(limiter_mutex);   /* how far ahead of an even flow a burst may run */
	uint64_t forgiven_us GUARDED_BY(limiter_mutex);
	/* The slots. count + outstanding == slots; after the threshold was lowered, outstanding may be more. */
	unsigned slots GUARDED_BY(limiter_mutex);        /* the threshold; 0 when there is none or they are given */
	uint64_t *ring GUARDED_BY(limiter_mutex); /* starts, ascending */
	size_t front GUARDED_BY(limiter_mutex), count GUARDED_BY(limiter_mutex), capacity GUARDED_BY(limiter_mutex);
	unsigned outstanding GUARDED_BY(limiter_mutex);
	uint64_t forgotten_us GUARDED_BY(limiter_mutex); /* the latest start that no slot remembers */
	uint64_t last_start_us GUARDED_BY(limiter_mutex), last_grant_us GUARDED_BY(limiter_mutex);
	uint64_t even_us GUARDED_BY(limiter_mutex);
	const struct limiter_ticket *latest GUARDED_BY(limiter_mutex); /* granted last: its step can be given back */
	/* The line. */
	struct line line GUARDED_BY(limiter_mutex);
	struct limiter_client *spare GUARDED_BY(limiter_mutex);
	unsigned spare_count GUARDED_BY(limiter_mutex);
	const struct limiter_ticket *told GUARDED_BY(limiter_mutex); /* the front, once it was told or woken */
	uint64_t told_us GUARDED_BY(limiter_mutex);                  /* what it was told; 0: it is awake and will ask */
	struct book slot_book GUARDED_BY(limiter_mutex); /* what the ring will allow */
	struct book even_book GUARDED_BY(limiter_mutex); /* what the even flow will allow */
	uint64_t started_total GUARDED_BY(limiter_mutex), refused_total GUARDED_BY(limiter_mutex);
	uint64_t cancelled_total GUARDED_BY(limiter_mutex);
	struct given given GUARDED_BY(limiter_mutex);
};

LOCK_VERBS(limiter, mutex, limiter_mutex)

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* ---- slots that were given ------------------------------------------------------------ */

/* What is left of it has died. */
static void remove_run(struct given *g, unsigned i)
{
	g->held -= g->runs[i].count;
	g->died_total += g->runs[i].count;
	g->run_count--;
	memmove(&g->runs[i], &g->runs[i + 1], (g->run_count - i) * sizeof(g->runs[0]));
}

/* Who is dead has begun, and those stand in front. */
static void bury_the_dead(struct given *g, uint64_t now_us)
{
	unsigned i = 0;

	while (i < g->run_count && g->runs[i].from_us <= now_us)
		if (g->runs[i].until_us < now_us)
			remove_run(g, i);
		else
			i++;
}

static bool is_before(const struct run *a, const struct run *b)
{
	return a->from_us < b->from_us || (a->from_us == b->from_us && a->until_us < b->until_us);
}

static void put_run(struct given *g, struct run run, uint64_t now_us)
{
	unsigned room = LIMITER_THRESHOLD_MAX - g->held, at = g->run_count, first_to_die = 0;

	if (run.until_us < now_us || run.until_us < run.from_us)
		room = 0;
	g->died_total += minus(run.count, room);
	run.count = run.count < room ? run.count : room;
	if (run.count == 0)
		return;
	g->held += run.count;
	while (at > 0 && is_before(&run, &g->runs[at - 1]))
		at--;
	if (at > 0 && !is_before(&g->runs[at - 1], &run)) {
		g->runs[at - 1].count += run.count;
		return;
	}
	memmove(&g->runs[at + 1], &g->runs[at], (g->run_count - at) * sizeof(run));
	g->runs[at] = run;
	g->run_count++;
	if (g->run_count <= LIMITER_RUNS_MAX)
		return;
	for (unsigned i = 1; i < g->run_count; i++)
		if (g->runs[i].until_us < g->runs[first_to_die].until_us)
			first_to_die = i;
	remove_run(g, first_to_die);
}

/* Of those that have begun (one has) the one that dies first. */
static void take_given(struct given *g, struct limiter_ticket *ticket, uint64_t now_us)
{
	unsigned best = 0;

	for (unsigned i = 1; i < g->run_count && g->runs[i].from_us <= now_us; i++)
		if (g->runs[i].until_us < g->runs[best].until_us)
			best = i;
	ticket->until_us = g->runs[best].until_us;
	g->held--;
	if (--g->runs[best].count == 0)
		remove_run(g, best);
}

static void count_use(struct given *g, uint64_t now_us, uint64_t window_us)
{
	uint64_t window = now_us / window_us;

	if (window > g->window) {
		g->used_before = window == g->window + 1 ? g->used_in_window : 0;
		g->used_in_window = 0;
		g->window = window;
	}
	g->used_in_window++;
	g->used_total++;
}

/* Uses in the last window, as if those of the window before were spread evenly over it. */
static unsigned used_lately(const struct given *g, uint64_t now_us, uint64_t window_us)
{
	uint64_t passed = minus(now_us / window_us, g->window), left_us = window_us - now_us % window_us;

	if (passed == 0)
		return (unsigned)(g->used_in_window + g->used_before * left_us / window_us);
	return passed == 1 ? (unsigned)(g->used_in_window * left_us / window_us) : 0;
}

/* ---- the slots ------------------------------------------------------------ */

static uint64_t free_us(const struct limiter *l, uint64_t start_us) REQUIRES(limiter_mutex)
{
	return start_us == NEVER ? 0 : start_us + l->round_us;
}

static uint64_t *place_in_ring(const struct limiter *l, size_t i) REQUIRES(limiter_mutex)
{
	size_t at = l->front + i;

	return &l->ring[at < l->capacity ? at : at - l->capacity];
}

static uint64_t take_front(struct limiter *l) REQUIRES(limiter_mutex)
{
	uint64_t start_us = l->ring[l->front];

	l->front = l->front + 1 < l->capacity ? l->front + 1 : 0;
	l->count--;
	return start_us;
}

/* All that lie in the ring started later, or as late: it stays in order. */
static void put_front(struct limiter *l, uint64_t start_us) REQUIRES(limiter_mutex)
{
	l->front = (l->front > 0 ? l->front : l->capacity) - 1;
	l->ring[l->front] = start_us;
	l->count++;
}

static void forget(struct limiter *l, uint64_t start_us) REQUIRES(limiter_mutex)
{
	l->forgotten_us = later(l->forgotten_us, start_us);
}

/* When the next request may start; UNKNOWN while every slot is in flight. */
static uint64_t next_slot_us(const struct limiter *l) REQUIRES(limiter_mutex)
{
	if (l->count > 0)
		return later(free_us(l, *place_in_ring(l, 0)), l->step_us > 0 ? minus(l->even_us, l->slack_us) : 0);
	if (l->options.threshold == 0)
		return 0;
	return l->given.run_count > 0 ? l->given.runs[0].from_us : UNKNOWN;
}

/* How many may start here in a round: of given slots as many as lately, for who knows what the others will take. */
static unsigned starts_in_round(const struct limiter *l, uint64_t now_us) REQUIRES(limiter_mutex)
{
	if (!l->options.slots_are_given)
		return l->slots;
	return (unsigned)later(used_lately(&l->given, now_us, l->options.window_us), 1);
}

/* When a request may start that others go ahead of, as far as can be foreseen: what is in flight starts now. */
static uint64_t foreseen_us(const struct limiter *l, unsigned ahead, uint64_t now_us) REQUIRES(limiter_mutex)
{
	unsigned in_round = starts_in_round(l, now_us), rounds = ahead / in_round, place = ahead % in_round;
	uint64_t at_us;

	if (l->options.slots_are_given)
		return now_us + (ahead + UINT64_C(1)) * l->options.window_us / in_round;
	at_us = later(now_us, free_us(l, place < l->count ? *place_in_ring(l, place) : now_us));
	at_us += rounds * l->round_us;
	return l->step_us > 0 ? later(at_us, minus(l->even_us + ahead * l->step_us, l->slack_us)) : at_us;
}

static void grant(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us, bool waited)
	REQUIRES(limiter_mutex)
{
	ticket->until_us = FOR_EVER;
	if (l->slots > 0)
		forget(l, take_front(l));
	else if (l->options.slots_are_given)
		take_given(&l->given, ticket, now_us);
	/* Who waited was woken late: the even flow goes on from when it was due. Who did not wait was not late. */
	if (l->step_us > 0)
		l->even_us = later(l->even_us, waited ? minus(now_us, l->forgiven_us) : now_us) + l->step_us;
	l->last_grant_us = later(l->last_grant_us, now_us);
	l->latest = ticket;
	l->outstanding++;
	ticket->state = GRANTED;
}

/* The slot of a request that started goes to the back. When the threshold was lowered there may be too many outstanding,
   and the ring is empty: then this one is given up, and the later ones stay. */
static void return_used(struct limiter *l, uint64_t start_us) REQUIRES(limiter_mutex)
{
	if (l->count + l->outstanding >= l->slots) {
		forget(l, start_us);
		return;
	}
	*place_in_ring(l, l->count) = start_us;
	l->count++;
}

/* The slot of a request that did not start was free when it was taken, and is so again. forgotten_us is no later than
   any start in the ring, and no earlier than this slot's own. A given one has begun, and can still die. */
static void return_unused(struct limiter *l, uint64_t until_us, uint64_t now_us) REQUIRES(limiter_mutex)
{
	if (l->options.slots_are_given && until_us != FOR_EVER)
		put_run(&l->given, (struct run){ .from_us = 0, .until_us = until_us, .count = 1 }, now_us);
	else if (l->count + l->outstanding < l->slots)
		put_front(l, l->forgotten_us);
}

/* ---- the line ------------------------------------------------------------ */

static struct limiter_ticket *front_of_line(const struct limiter *l) REQUIRES(limiter_mutex)
{
	if (l->line.returned.first != NULL)
		return l->line.returned.first;
	return l->line.turn != NULL ? l->line.turn->first : NULL;
}

static struct limiter_client **bucket_of(const struct line *line, uint64_t key)
{
	uint64_t mixed = (key ^ (key >> 29)) * 0x9e3779b97f4a7c15u;

	return &line->buckets[(mixed >> 32) & (line->bucket_count - 1)];
}

static struct limiter_client *find_client(const struct line *line, uint64_t key)
{
	struct limiter_client *c = *bucket_of(line, key);

	while (c != NULL && c->key != key)
		c = c->next_in_bucket;
	return c;
}

/* A line grows or shrinks by one, so the longest does too: no search. */
static void set_length(struct line *line, struct limiter_client *c, unsigned length)
{
	unsigned before = c->length;

	c->length = length;
	if (line->by_length == NULL)
		return;
	if (before > 0) {
		struct limiter_client *previous = c->previous_as_long;

		*(previous != NULL ? &previous->next_as_long : &line->by_length[before]) = c->next_as_long;
		if (c->next_as_long != NULL)
			c->next_as_long->previous_as_long = previous;
	}
	if (length > 0) {
		c->previous_as_long = NULL;
		c->next_as_long = line->by_length[length];
		if (c->next_as_long != NULL)
			c->next_as_long->previous_as_long = c;
		line->by_length[length] = c;
	}
	if (length > line->longest || line->by_length[line->longest] == NULL)
		line->longest = length;
}

/* Makes sure that count clients can be made without asking for memory. */
static bool reserve_clients(struct limiter *l, unsigned count) REQUIRES(limiter_mutex)
{
	while (l->spare_count < count) {
		struct limiter_client *c = malloc(sizeof(*c));

		if (c == NULL)
			return false;
		c->next_in_bucket = l->spare;
		l->spare = c;
		l->spare_count++;
	}
	return true;
}

/* A new client goes to the end of the circle: just before the one whose turn it is. A spare one must be there. */
static struct limiter_client *add_client(struct limiter *l, uint64_t key) REQUIRES(limiter_mutex)
{
	struct limiter_client *c = l->spare, **bucket = bucket_of(&l->line, key), *turn = l->line.turn;

	l->spare = c->next_in_bucket;
	l->spare_count--;
	*c = (struct limiter_client){ .key = key, .next_in_bucket = *bucket };
	*bucket = c;
	c->next = turn != NULL ? turn : c;
	c->previous = turn != NULL ? turn->previous : c;
	c->next->previous = c;
	c->previous->next = c;
	if (turn == NULL)
		l->line.turn = c;
	return c;
}

static void remove_client(struct limiter *l, struct limiter_client *c) REQUIRES(limiter_mutex)
{
	struct limiter_client **at = bucket_of(&l->line, c->key);

	while (*at != c)
		at = &(*at)->next_in_bucket;
	*at = c->next_in_bucket;
	c->previous->next = c->next;
	c->next->previous = c->previous;
	if (l->line.turn == c)
		l->line.turn = c->next != c ? c->next : NULL;
	c->next_in_bucket = l->spare;
	l->spare = c;
	l->spare_count++;
}

/* Two threads may have read the clock in one order and come here in the other: entered_us rises all the same. */
static void stand_behind(struct line *line, struct limiter_client *c, struct limiter_ticket *ticket, uint64_t now_us)
{
	ticket->client = c;
	ticket->next = NULL;
	ticket->previous = c->last;
	*(c->last != NULL ? &c->last->next : &c->first) = ticket;
	c->last = ticket;
	ticket->entered_us = line->newest != NULL ? later(now_us, line->newest->entered_us) : now_us;
	ticket->newer = NULL;
	ticket->older = line->newest;
	if (line->newest != NULL)
		line->newest->newer = ticket;
	line->newest = ticket;
	line->waiting++;
	ticket->state = IN_LINE;
}

/* A spare client must be there. */
static void join_line(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us) REQUIRES(limiter_mutex)
{
	uint64_t key = l->options.queue == LIMITER_FAIR ? ticket->key : 0;
	struct limiter_client *c = find_client(&l->line, key);

	if (c == NULL)
		c = add_client(l, key);
	stand_behind(&l->line, c, ticket, now_us);
	set_length(&l->line, c, c->length + 1);
}

static void leave_line(struct limiter *l, struct limiter_ticket *ticket) REQUIRES(limiter_mutex)
{
	struct limiter_client *c = ticket->client;

	*(ticket->previous != NULL ? &ticket->previous->next : &c->first) = ticket->next;
	*(ticket->next != NULL ? &ticket->next->previous : &c->last) = ticket->previous;
	*(ticket->newer != NULL ? &ticket->newer->older : &l->line.newest) = ticket->older;
	if (ticket->older != NULL)
		ticket->older->newer = ticket->newer;
	if (c != &l->line.returned)
		set_length(&l->line, c, c->length - 1);
	if (c != &l->line.returned && c->length == 0)
		remove_client(l, c);
	l->line.waiting--;
	ticket->client = NULL;
	ticket->state = AWAY;
}

/* The front leaves, and the turn goes to the next client. Who returned had its turn already. */
static struct limiter_ticket *call_front(struct limiter *l) REQUIRES(limiter_mutex)
{
	struct limiter_ticket *ticket = front_of_line(l);
	struct limiter_client *c = ticket->client;

	if (c == l->line.turn && c->length > 1)
		l->line.turn = c->next;
	leave_line(l, ticket);
	return ticket;
}

static void push_out(struct limiter *l, struct limiter_ticket *ticket) REQUIRES(limiter_mutex)
{
	leave_line(l, ticket);
	ticket->state = PUSHED_OUT;
	l->refused_total++;
	l->wake(ticket);
}

/* Is there room in the line, or can room be made? The newest of the longest line gives way to one whose line is
   shorter even with the newcomer in it: were it only as long, two clients would push each other out for ever. */
static bool make_room(struct limiter *l, const struct limiter_ticket *ticket) REQUIRES(limiter_mutex)
{
	const struct limiter_client *own;
	struct limiter_ticket *newest;

	if (l->line.waiting < l->line.places + (ticket->is_exempt ? LIMITER_EXEMPT_PLACES : 0))
		return true;
	own = find_client(&l->line, ticket->key);
	if (l->options.queue != LIMITER_FAIR || (own != NULL ? own->length : 0) + 1 >= l->line.longest)
		return false;
	newest = l->line.by_length[l->line.longest]->last;
	if (newest->is_exempt)
		return false;
	push_out(l, newest);
	return true;
}

/* Whom it hits first when too many have been seen in vain; NULL when nobody that may be pushed out is left there. Those
   who were called already are the last. */
static struct limiter_ticket *newest_seen(const struct limiter *l, uint64_t asked_us) REQUIRES(limiter_mutex)
{
	const struct line *line = &l->line;
	const struct limiter_client *parts[2] = { line->by_length != NULL ? line->by_length[line->longest] : line->turn,
		                                  &line->returned };

	for (unsigned i = 0; i < 2; i++)
		for (struct limiter_ticket *t = parts[i] != NULL ? parts[i]->last : NULL; t != NULL; t = t->previous)
			if (t->entered_us <= asked_us && !t->is_exempt)
				return t;
	return NULL;
}

static void push_out_seen(struct limiter *l, uint64_t asked_us) REQUIRES(limiter_mutex)
{
	const struct limiter_ticket *newcomer = l->line.newest;
	uint64_t stay = (uint64_t)l->options.backlog + l->given.held;
	unsigned seen = l->line.waiting;

	while (seen > stay && newcomer->entered_us > asked_us) {
		newcomer = newcomer->older;
		seen--;
	}
	while (seen > stay) {
		struct limiter_ticket *ticket = newest_seen(l, asked_us);

		if (ticket == NULL)
			return;
		push_out(l, ticket);
		seen--;
	}
}

/* Serves all whose slots have come free, and sees to it that the front knows when to ask. Every call that may change
   either ends or begins with it. self is the ticket of the caller, who need not be woken. */
static void settle(struct limiter *l, uint64_t now_us, const struct limiter_ticket *self) REQUIRES(limiter_mutex)
{
	struct limiter_ticket *front, *ticket;

	if (l->given.run_count > 0)
		bury_the_dead(&l->given, now_us);
	while (l->line.waiting > 0 && next_slot_us(l) <= now_us) {
		ticket = call_front(l);
		grant(l, ticket, now_us, true);
		if (ticket != self)
			l->wake(ticket);
	}
	front = front_of_line(l);
	if (front != NULL && (front != l->told || next_slot_us(l) < l->told_us)) {
		if (front != self)
			l->wake(front);
		l->told_us = 0;
	}
	l->told = front;
}

/* ---- the requests ------------------------------------------------------------ */

enum limiter_answer limiter_enter(struct limiter *l, struct limiter_ticket *ticket, uint64_t client, uint64_t now_us)
{
	enum limiter_answer answer = LIMITER_WAIT;

	limiter_lock(l);
	ticket->key = client;
	ticket->state = AWAY;
	settle(l, now_us, NULL);
	if (l->line.waiting == 0 && next_slot_us(l) <= now_us) {
		grant(l, ticket, now_us, false);
		answer = LIMITER_GO;
	} else if (!reserve_clients(l, 1) || !make_room(l, ticket)) {
		l->refused_total++;
		answer = LIMITER_FULL;
	} else {
		join_line(l, ticket, now_us);
		if (front_of_line(l) == ticket) { /* its thread is awake, and asks next */
			l->told = ticket;
			l->told_us = 0;
		}
	}
	limiter_unlock(l);
	return answer;
}

enum limiter_answer limiter_turn(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us, uint64_t *wake_us)
{
	enum limiter_answer answer = LIMITER_FULL;

	limiter_lock(l);
	settle(l, now_us, ticket);
	*wake_us = UNKNOWN;
	if (ticket->state == GRANTED)
		answer = LIMITER_GO;
	if (ticket->state == IN_LINE) {
		answer = LIMITER_WAIT;
		if (front_of_line(l) == ticket)
			*wake_us = l->told_us = next_slot_us(l);
	}
	limiter_unlock(l);
	return answer;
}

bool limiter_may_start(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	bool is_late;

	limiter_lock(l);
	is_late = ticket->state == GRANTED && now_us > ticket->until_us;
	if (is_late) {
		l->outstanding--;
		return_unused(l, ticket->until_us, now_us); /* where it is seen to be dead, and counted */
		stand_behind(&l->line, &l->line.returned, ticket, now_us);
		settle(l, now_us, ticket);
	}
	limiter_unlock(l);
	return !is_late;
}

void limiter_started(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	limiter_lock(l);
	if (ticket->state == GRANTED) {
		/* Two threads may have read the clock in one order and come here in the other. */
		l->last_start_us = later(later(l->last_start_us, now_us), NEVER + 1);
		l->outstanding--;
		l->started_total++;
		return_used(l, l->last_start_us);
		if (ticket->until_us != FOR_EVER) {
			count_use(&l->given, now_us, l->options.window_us);
			l->given.late_us_total += minus(now_us, ticket->until_us);
		}
		if (l->latest == ticket)
			l->latest = NULL;
		ticket->state = AWAY;
	}
	settle(l, now_us, NULL);
	limiter_unlock(l);
}

void limiter_cancel(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us)
{
	limiter_lock(l);
	if (ticket->state == IN_LINE) {
		leave_line(l, ticket);
		l->cancelled_total++;
	} else if (ticket->state == GRANTED) {
		l->outstanding--;
		l->cancelled_total++;
		return_unused(l, ticket->until_us, now_us);
		if (l->latest == ticket) { /* nobody came after it in the even flow */
			l->even_us = minus(l->even_us, l->step_us);
			l->latest = NULL;
		}
	}
	ticket->state = AWAY;
	settle(l, now_us, NULL);
	limiter_unlock(l);
}

/* ---- what the master says ------------------------------------------------------------ */

void limiter_give(struct limiter *l, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us)
{
	limiter_lock(l);
	if (l->options.slots_are_given)
		put_run(&l->given, (struct run){ .from_us = from_us, .until_us = until_us, .count = count }, now_us);
	settle(l, now_us, NULL);
	limiter_unlock(l);
}

void limiter_answered(struct limiter *l, uint64_t asked_us, uint64_t now_us)
{
	limiter_lock(l);
	settle(l, now_us, NULL); /* whose slot has begun does not stand in line */
	if (l->options.slots_are_given)
		push_out_seen(l, asked_us);
	settle(l, now_us, NULL);
	limiter_unlock(l);
}

/* ---- promises to those who are refused ------------------------------------------------------------ */

/* The page for the next promise, in a book with that many lines, each to be used again after round_us. */
static struct page *open_page(struct book *book, unsigned lines, uint64_t round_us)
{
	unsigned on_a_page = (lines + PAGES - 1) / PAGES;
	struct page *page = &book->pages[book->open];

	if (page->made < on_a_page)
		return page;
	book->open = (book->open + 1) % (lines / on_a_page);
	page = &book->pages[book->open];
	if (page->made > 0)
		page->free_us = page->latest_us + round_us + LATE_MAX_US;
	page->made = 0;
	return page;
}

static void write_down(struct page *page, uint64_t back_us)
{
	page->made++;
	page->latest_us = later(page->latest_us, back_us);
}

/* Those in line go first, and those who were promised something and have not come yet. */
static unsigned count_ahead(const struct limiter *l, uint64_t now_us) REQUIRES(limiter_mutex)
{
	unsigned ahead = l->line.waiting;

	for (unsigned i = 0; i < PAGES; i++)
		if (l->slot_book.pages[i].latest_us + LATE_MAX_US > now_us)
			ahead += l->slot_book.pages[i].made;
	return ahead;
}

/* Why the books are needed: Retry-After counts whole seconds, so clients come later than their slots are free, and in
   bunches. But of as many promises as there are lines, and one more, two stood on the same line: they lie a round
   apart. */
uint64_t limiter_retry_after_us(struct limiter *l, uint64_t now_us)
{
	uint64_t at_us, horizon_us, seconds = 0;

	limiter_lock(l);
	if (l->options.threshold > 0) {
		struct page *slot_page = open_page(&l->slot_book, starts_in_round(l, now_us), l->round_us);
		struct page *even_page = l->step_us == 0 ? slot_page :
			open_page(&l->even_book, l->options.burst, l->options.burst * l->step_us);

		horizon_us = now_us + PROMISED_ROUNDS * later(l->round_us, SECOND_US);
		at_us = foreseen_us(l, count_ahead(l, now_us), now_us);
		at_us = later(at_us, later(slot_page->free_us, even_page->free_us));
		/* So far ahead one guess is as good as another: it is not written down. */
		seconds = (minus(at_us < horizon_us ? at_us : horizon_us, now_us) + SECOND_US - 1) / SECOND_US;
		seconds = later(seconds, 1);
		if (at_us < horizon_us)
			write_down(slot_page, now_us + seconds * SECOND_US);
		if (at_us < horizon_us && even_page != slot_page)
			write_down(even_page, now_us + seconds * SECOND_US);
	}
	limiter_unlock(l);
	return seconds * SECOND_US;
}

/* ---- the limits ------------------------------------------------------------ */

static void set_times(struct limiter *l, const struct limiter_options *options, uint64_t now_us) REQUIRES(limiter_mutex)
{
	bool was_even = l->step_us > 0;
	uint64_t window_us = options->window_us;

	l->options = *options;
	l->round_us = window_us + (window_us / 250 < GUARD_MAX_US ? window_us / 250 : GUARD_MAX_US);
	l->forgiven_us = window_us / 100 < FORGIVEN_MAX_US ? window_us / 100 : FORGIVEN_MAX_US;
	l->step_us = options->burst > 0 && options->burst < options->threshold ? l->round_us / options->threshold : 0;
	l->slack_us = l->step_us > 0 ? (options->burst - 1) * l->step_us : 0;
	l->latest = NULL; /* its step was another */
	if (l->step_us == 0)
		return;
	if (!was_even) /* the burst was used up by whatever went before */
		l->even_us = l->last_grant_us > 0 ? l->last_grant_us + l->slack_us + l->step_us : 0;
	l->even_us = l->even_us < now_us + l->slack_us + l->step_us ? l->even_us : now_us + l->slack_us + l->step_us;
}

/* The new ring takes over the latest starts; the slots that are new begin as if used when the last forgotten one
   was. */
static void move_ring(struct limiter *l, uint64_t *ring, unsigned slots) REQUIRES(limiter_mutex)
{
	size_t room = slots > l->outstanding ? slots - l->outstanding : 0;
	size_t kept, added;

	while (l->count > room)
		forget(l, take_front(l));
	kept = l->count;
	added = room - kept;
	for (size_t i = 0; i < added; i++)
		ring[i] = l->forgotten_us;
	for (size_t i = 0; i < kept; i++)
		ring[added + i] = *place_in_ring(l, i);
	free(l->ring);
	l->ring = ring;
	l->front = 0;
	l->count = room;
	l->slots = slots;
	l->capacity = slots > 0 ? slots : 1;
}

/* The slots that the master gave are its own again, and it alone knows when their last starts were. */
static void leave_given(struct limiter *l, uint64_t now_us) REQUIRES(limiter_mutex)
{
	l->given.run_count = l->given.held = 0;
	l->last_start_us = later(l->last_start_us, now_us);
	forget(l, l->last_start_us);
}

/* Everybody is called in the order of turns and joins again, which keeps that order under either kind of queue. */
static void move_line(struct limiter *l, struct line *line, uint64_t now_us) REQUIRES(limiter_mutex)
{
	struct limiter_ticket *first = NULL, **end = &first;

	while (l->line.waiting > 0) {
		struct limiter_ticket *ticket = call_front(l);

		ticket->next = NULL;
		*end = ticket;
		end = &ticket->next;
	}
	free(l->line.buckets);
	free(l->line.by_length);
	l->line = *line;
	while (first != NULL) {
		struct limiter_ticket *next = first->next;

		join_line(l, first, now_us);
		first = next;
	}
}

/* Everything that can fail comes first. */
static int configure(struct limiter *l, const struct limiter_options *options, uint64_t now_us) REQUIRES(limiter_mutex)
{
	bool fair = options->queue == LIMITER_FAIR;
	unsigned slots = options->slots_are_given ? 0 : options->threshold;
	struct line line = { .bucket_count = fair ? BUCKETS : 1,
		             .places = (size_t)options->backlog + (options->slots_are_given ? options->threshold : 0) };
	size_t places = later(line.places, l->line.waiting) + LIMITER_EXEMPT_PLACES + 1;
	uint64_t *ring;

	line.buckets = calloc(line.bucket_count, sizeof(struct limiter_client *));
	line.by_length = fair ? calloc(places, sizeof(struct limiter_client *)) : NULL;
	ring = calloc(slots > 0 ? slots : 1, sizeof(*ring));
	if (line.buckets == NULL || ring == NULL || (fair && line.by_length == NULL) ||
	    !reserve_clients(l, l->line.waiting + 1)) {
		free(line.buckets);
		free(line.by_length);
		free(ring);
		return -1;
	}
	if (l->options.slots_are_given && !options->slots_are_given)
		leave_given(l, now_us);
	l->given.window = l->given.used_in_window = l->given.used_before = 0; /* counted in another window */
	move_ring(l, ring, slots);
	set_times(l, options, now_us);
	move_line(l, &line, now_us);
	l->slot_book = l->even_book = (struct book){ .open = 0 }; /* promises made under other limits */
	settle(l, now_us, NULL);
	return 0;
}

int limiter_configure(struct limiter *l, const struct limiter_options *options, uint64_t now_us)
{
	struct limiter_options own = *options;
	int result;

	if (own.threshold > LIMITER_THRESHOLD_MAX)
		return -1;
	own.window_us = later(own.window_us, 1);
	own.slots_are_given = own.slots_are_given && own.threshold > 0;
	own.burst = own.slots_are_given ? 0 : own.burst;
	limiter_lock(l);
	result = configure(l, &own, now_us);
	limiter_unlock(l);
	return result;
}

struct limiter *limiter_create(const struct limiter_options *options, void (*wake)(struct limiter_ticket *))
{
	struct limiter *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	if (pthread_mutex_init(&l->mutex, NULL) != 0) {
		free(l);
		return NULL;
	}
	l->wake = wake;
	if (limiter_configure(l, options, 0) != 0) {
		limiter_destroy(l);
		return NULL;
	}
	return l;
}

void limiter_destroy(struct limiter *l)
{
	if (l == NULL)
		return;
	limiter_lock(l);
	while (l->spare != NULL) {
		struct limiter_client *next = l->spare->next_in_bucket;

		free(l->spare);
		l->spare = next;
	}
	free(l->line.buckets);
	free(l->line.by_length);
	free(l->ring);
	limiter_unlock(l);
	pthread_mutex_destroy(&l->mutex);
	free(l);
}

/* Slots of our own ring that are free: those that came back first stand in front. */
static unsigned ring_free(const struct limiter *l, uint64_t now_us) REQUIRES(limiter_mutex)
{
	size_t low = 0, high = l->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (free_us(l, *place_in_ring(l, middle)) <= now_us)
			low = middle + 1;
		else
			high = middle;
	}
	return (unsigned)low;
}

static unsigned slots_free(const struct limiter *l, uint64_t now_us) REQUIRES(limiter_mutex)
{
	uint64_t even;
	unsigned in_ring;

	if (l->options.threshold == 0)
		return UINT32_MAX;
	if (l->options.slots_are_given)
		return (unsigned)minus(minus(l->options.threshold, l->line.waiting),
		                       used_lately(&l->given, now_us, l->options.window_us));
	in_ring = ring_free(l, now_us);
	if (l->step_us == 0)
		return in_ring;
	even = minus(l->even_us, l->slack_us) > now_us ?
		       0 :
		       (now_us + l->slack_us - later(l->even_us, now_us)) / l->step_us + 1;
	return (unsigned)(even < in_ring ? even : in_ring);
}

static unsigned slots_taken(const struct limiter *l, uint64_t now_us) REQUIRES(limiter_mutex)
{
	uint64_t taken = l->options.slots_are_given ? used_lately(&l->given, now_us, l->options.window_us) :
	                                              minus(l->options.threshold, ring_free(l, now_us));

	return (unsigned)(taken < l->options.threshold ? taken : l->options.threshold);
}

void limiter_report(struct limiter *l, uint64_t now_us, struct limiter_report *out)
{
	limiter_lock(l);
	bury_the_dead(&l->given, now_us);
	*out = (struct limiter_report){
		.threshold = l->options.threshold,
		.waiting = l->line.waiting,
		.available = slots_free(l, now_us),
		.in_window = slots_taken(l, now_us),
		.outstanding = l->outstanding,
		.started_total = l->started_total,
		.refused_total = l->refused_total,
		.cancelled_total = l->cancelled_total,
		.next_slot_us = later(next_slot_us(l), now_us),
		.held = l->given.held,
		.used_total = l->given.used_total,
		.died_total = l->given.died_total,
		.late_us_total = l->given.late_us_total,
	};
	if (l->options.slots_are_given)
		out->next_slot_us = out->available > 0 ? now_us : foreseen_us(l, l->line.waiting, now_us);
	limiter_unlock(l);
}
