/* limiter.h: decides WHEN a request may start, or why it may not.
 *
 * The promise: in no window of window_us do more than threshold requests start. Requests over that stand in a line of
 * at most backlog; the rest are refused at once.
 *
 * The life of one request:
 *
 *      limiter_enter ──► LIMITER_GO ────────────────────────────► limiter_started   (it was sent, now)
 *            │                ▲                             └───► limiter_cancel    (it will not be sent)
 *            ├──► LIMITER_WAIT ──► limiter_turn, again at *wake_us or when wake() was called for the ticket
 *            │                └───► limiter_cancel    (its client went away)
 *            └──► LIMITER_FULL   refused; nothing to give back
 *
 * The slots are this limiter's own; or, when several nodes share one threshold, the master of their group has them
 * and gives them out, each with the moments between which it may be used (slots_are_given). Then the promise is the
 * master's, and what is kept here is the line, and that no slot is used outside its moments:
 *
 *      limiter_give ──► LIMITER_GO ──► limiter_may_start ──► send ──► limiter_started
 *                           ▲                  │ false: its slot died on the way
 *                           └── limiter_turn ◄─┘
 *
 * One mutex inside; every function may be called from any thread. Times are microseconds of one clock that never goes
 * back, passed in.
 */
#ifndef WEIR_LIMITER_H
#define WEIR_LIMITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIMITER_THRESHOLD_MAX 1000000u
#define LIMITER_EXEMPT_PLACES 65536u
#define LIMITER_RUNS_MAX 256u

enum limiter_queue {
	LIMITER_FIFO, /* first come, first served */
	LIMITER_FAIR, /* clients take turns; each client's own requests are first come, first served */
};

struct limiter_options {
	unsigned threshold;  /* starts in one window; 0: no limit */
	uint64_t window_us;  /* the window, at least 1 */
	unsigned burst;      /* how many may start at once, 1 spaces them evenly; 0 or >= threshold: all */
	unsigned backlog;    /* requests that may stand in line */
	enum limiter_queue queue;
	bool slots_are_given; /* by a master, with limiter_give(); burst is its matter, and ignored here. Without a
	                         threshold there is no limit, and nothing needs to be given */
};

/* Largest rate as a whole number in a window: "0.5/s" is 1 in 2,000,000 us, "600/m" is 600 in 60,000,000 us. */

enum limiter_answer {
	LIMITER_GO,   /* start now, then say limiter_started(); or give it back with limiter_cancel() */
	LIMITER_WAIT, /* stand in line */
	LIMITER_FULL, /* refused: the line is full, or went to another client (LIMITER_FAIR), or no slot came */
};

/* One request's place. The memory is the caller's and must stay where it is from limiter_enter() until started,
   cancelled or refused; the fields are the limiter's own, guarded by its mutex. */
struct limiter_ticket {
	struct limiter_ticket *next, *previous;
	struct limiter_client *client; /* in whose part of the line it stands; NULL when it does not wait */
	uint64_t key;                  /* the client, as limiter_enter() was told */
	struct limiter_ticket *newer, *older; /* in line, by when they came */
	int state;
	uint64_t entered_us; /* when it joined the line, or came back to it */
	uint64_t until_us;   /* a granted one: may not start after it; UINT64_MAX with a slot of our own */
	void *owner;    /* the caller's, for wake(); set before limiter_enter() */
	bool is_exempt; /* the caller's, set before limiter_enter(): it waits its turn like any other, but is not refused when the
	                   line is full; behind the backlog there is room for LIMITER_EXEMPT_PLACES such */
};

struct limiter_report {
	unsigned threshold;
	unsigned waiting;
	unsigned available;    /* slots that could be taken at the time asked; UINT32_MAX when there is no limit. Of
	                          given slots a guess: the threshold without what was used here lately, and the line */
	unsigned in_window;    /* slots that are taken: by starts of the last window, and by what is outstanding. Unlike
	                          the threshold without available, it knows nothing of burst. Of given slots a guess */
	unsigned outstanding;  /* slots given to requests that have neither started nor been cancelled */
	uint64_t started_total, refused_total, cancelled_total;
	uint64_t next_slot_us; /* when the next slot comes free; the time asked when one is free now; UINT64_MAX when
	                          all slots are with requests that have not started yet. Of given slots a guess: when
	                          one is available or the line is through, should slots come here as they did lately */
	/* Given slots: */
	unsigned held;          /* in hand, nobody's yet */
	uint64_t used_total;    /* started with one, ever */
	uint64_t died_total;    /* nobody used them in time, ever */
	uint64_t late_us_total; /* by how much starts passed their until_us, all together, ever */
};

struct limiter;

/* wake(ticket) is called when a waiting ticket's turn may have come, or when it lost its place. It is
   called with the limiter's mutex held: it must not block and must not call the limiter. Clients' lines are
   counted in memory that is asked for as they come; all else is allocated here and in limiter_configure(). NULL
   when out of memory or when the threshold is over LIMITER_THRESHOLD_MAX. */
struct limiter *limiter_create(const struct limiter_options *options, void (*wake)(struct limiter_ticket *));
void limiter_destroy(struct limiter *l); /* no ticket may be outstanding */

/* Asks for a start. client tells clients apart for LIMITER_FAIR (any number made of the client's address or key). Where
   slots are given, a threshold's worth of requests may stand in line behind the backlog, until the master has seen
   them: limiter_answered(). */
enum limiter_answer limiter_enter(struct limiter *l, struct limiter_ticket *ticket, uint64_t client, uint64_t now_us);
/* A waiting ticket asks whether its turn has come; the first time right after limiter_enter(), which does not say
   when. LIMITER_WAIT: ask again at *wake_us (UINT64_MAX: when woken), or sooner when woken. LIMITER_FULL: it was
   pushed out of the line and has nothing to give back. */
enum limiter_answer limiter_turn(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us, uint64_t *wake_us);
/* Asked right before the first byte is sent, for a ticket that was told LIMITER_GO. False: its slot was given for a
   time that is over; the slot is counted as died, and the ticket stands in line again, ahead of all who were not called
   yet, in a fair line too: call limiter_turn(), or limiter_cancel(). Always true for a slot of our own. */
bool limiter_may_start(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us);
/* The request was sent: now_us is read AFTER its first bytes left. */
void limiter_started(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us);
/* The request will not be sent: its place in line or its slot goes to the next (a given slot, as long as it lives). */
void limiter_cancel(struct limiter *l, struct limiter_ticket *ticket, uint64_t now_us);

/* When a request that was refused at now_us should come back to be let in: a whole number of seconds, in
   microseconds, at least one second (0 when there is no limit), for Retry-After has no fractions. Each call promises
   a start at that moment, or up to 50 ms later, to one client, so that a thousand refused clients do not all return
   for one free slot. It holds among those who obey, as far as the limits stay and nobody else comes first; promises
   reach 16 windows ahead. Where slots are given nothing can be promised: it is the line's length, and those who were
   told to come back, by the starts of the last window here (at least one), as if that would stay. */
uint64_t limiter_retry_after_us(struct limiter *l, uint64_t now_us);

/* Changes the limits. Nothing is refilled: what started within the last window still counts. Those in line stay
   there, also when the line is now too long. The limiter remembers no more starts than it has slots: a slot that is
   added counts as used when the latest start that it no longer knows was, which after a change to a longer window
   can hold the new slots back for one window. From own slots to given ones and back: the line stays; slots in hand are
   thrown away with the change back, and every slot of our own counts as used at now_us. -1 when out of memory or when
   the threshold is too large: nothing changed. */
int limiter_configure(struct limiter *l, const struct limiter_options *options, uint64_t now_us);

/* The master gives: count slots, each for one start not before from_us and not after until_us. The front of the line
   uses them as they begin; what nobody used by until_us has died. At most LIMITER_THRESHOLD_MAX slots with LIMITER_RUNS_MAX
   different times are kept; of more times those that die first go, and count as died. Without effect with slots of our
   own. */
void limiter_give(struct limiter *l, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us);
/* The master has seen the line as it stood at asked_us, and gave what was due (call limiter_give() for it first). Of
   those who joined at or before asked_us, as many may stay as the backlog and the slots in hand have room for; the
   others are pushed out and woken, the newest first (LIMITER_FAIR: the newest of the longest line, while it has any
   that are not younger than asked_us), but none that is exempt. Without effect with slots of our own. */
void limiter_answered(struct limiter *l, uint64_t asked_us, uint64_t now_us);

void limiter_report(struct limiter *l, uint64_t now_us, struct limiter_report *out);

#endif
