/* share.h: what lab 9 asks for: many nodes that keep one limit together.
 *
 *      datagrams in ─────► share_receive ─┐                    ┌─► send   datagrams out
 *      time, a longer line ► share_tick  ─┼─► who may start? ──┼─► line   how many wait here?
 *      the election ─────► share_elected ─┘                    └─► give   starts for this node's line
 *
 * The promise: in no window of window_us do more than threshold requests start, on all nodes together; through loss,
 * doubling, delay, death and pause of any node. And the limit is to be used: a promise is easily kept by starting
 * nothing.
 *
 * The election (lab 8) is done for you, and this much can be relied on:
 *
 *   - No two nodes that run are told to be master at the same time.
 *   - A master is lost when it dies, stands still, or cannot be heard for half a second. Another is told to be master
 *     at the earliest 0.7 s after the last moment at which the old one did anything as master.
 *   - But: a node that stands still is told nothing, and hears the news up to a second after it went on. Whoever stood
 *     still is told again (also if nothing has changed). It can see by its clock that it was not called for a while.
 *   - Members hear who is master at different times.
 *
 * A pure state machine, as cluster.h is. Times are microseconds of this node's own clock; the clocks of two nodes
 * show different times, and one may be faster than another by up to 100 millionths. Datagrams are bytes of your own
 * making. One call at a time; the calls come back from inside yours, and must not lead into the interface again.
 */
#ifndef LAB_SHARE_H
#define LAB_SHARE_H

#include <stddef.h>
#include <stdint.h>

#define SHARE_NODES_MAX 12u
#define SHARE_THRESHOLD_MAX 1000u
#define SHARE_DATAGRAM_MAX 1200u

struct share_options {
	unsigned id;          /* 1 to 65535 */
	uint64_t incarnation; /* random, not 0: of this life */
	unsigned nodes;       /* how many there are when all are there */
	unsigned threshold;   /* starts in a window, of all nodes together */
	uint64_t window_us;
};

/* How this node's line stands. */
struct share_line {
	unsigned waiting;                /* requests in line */
	unsigned held;                   /* starts in hand that are not due yet */
	uint64_t used_total, died_total; /* starts ever used, and ever in hand too late or for nobody */
};

struct share_calls {
	void *context;
	/* to: an id; 0: everybody else. The bytes are copied. */
	void (*send)(void *context, unsigned to, const void *bytes, size_t length);
	void (*line)(void *context, struct share_line *out);
	/* count starts for this node: each is used as soon as possible from from_us on if somebody waits then, and
	   never after until_us. Threads are late: usually by microseconds, sometimes by milliseconds. */
	void (*give)(void *context, uint64_t from_us, uint64_t until_us, unsigned count);
	uint64_t (*random)(void *context);
};

struct share;

/* calls is copied. NULL when out of memory. */
struct share *share_create(const struct share_options *options, const struct share_calls *calls, uint64_t now_us);
void share_destroy(struct share *s);
/* Does what is due; called soon after the line has grown, too. Returns when it wants to be called next, at the
   latest. */
uint64_t share_tick(struct share *s, uint64_t now_us);
/* A datagram came; perhaps an old one, or garbage. share_tick() is called soon. */
void share_receive(struct share *s, const void *bytes, size_t length, uint64_t now_us);
/* The election's news: whom to take for master; this node's own id: be master; 0: nobody. */
void share_elected(struct share *s, unsigned master, uint64_t now_us);

#endif
