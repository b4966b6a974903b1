/* line.h: one request's turn in one limiter's line, for the threads that stand there (part of the road).
 *
 *      line_take ──► LINE_GO ──► line_renew ──► line_use     its first bytes have left, now
 *          │            ▲  └────────────────► line_give_back   it will not be sent
 *          │ waits      │ its turn
 *          ├────────────┘
 *          └──► LINE_FULL, LINE_CLIENT_GONE, LINE_NO_DESCRIPTOR: nothing is held
 *
 * A limiter (limiter.h) decides and never sleeps; whoever must wait does so here, in poll(), on two things: an eventfd
 * that the limiter writes to when the turn may have come, and the client's socket, for a client that hangs up gives
 * its place to those behind. So waiting costs no CPU, and nobody sleeps past a turn.
 *
 * A slot that a group's master gave is good for some milliseconds. What comes between LINE_GO and the first byte, a
 * connection that is opened, may take longer: so line_renew() is asked last of all, and may mean standing in line again,
 * at the front.
 *
 * A request may hold turns of several limiters (its host's, the service's); its thread waits for one at a time, so one
 * sleeper does for all of them. The invariant: has_slot is true from LINE_GO until line_use() or line_give_back(), and
 * the turn stays where it is in memory as long as it is held or waited for.
 *
 * One thread at a time, save for line_wake().
 */
#ifndef WEIR_LINE_H
#define WEIR_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "group.h"
#include "limiter.h"

/* What a thread waits with: one for each. The caller sets the fields at the start. */
struct line_sleeper {
	int wake_fd;          /* -1 at first; made at the first wait, and kept */
	int client_fd;        /* watched while it waits */
	bool client_has_more; /* it sent more than this request, and may have ended: false for each new request */
	bool (*client_has_sent_more)(void *context); /* did it? Then it waits for answers though it sends no more */
	void *context;
};

struct line_turn {
	struct limiter *limiter;
	/* The service's, in a group or not: a reload may bring those into one who stand in line already. It hears of it when
	   the line has grown. NULL: the limiter's slots are never given. */
	struct group *group;
	struct limiter_ticket ticket;
	bool has_slot;
	bool waited; /* the last line_take() or line_renew() was not answered at once … */
	uint64_t waited_us; /* … and this is how long it stood in line */
};

enum line_answer {
	LINE_GO,
	LINE_FULL,          /* refused: the line is full, or the place in it went to another */
	LINE_CLIENT_GONE,   /* it hung up while it waited */
	LINE_NO_DESCRIPTOR, /* nothing to wait with */
};

/* For limiter_create(). Any thread. */
void line_wake(struct limiter_ticket *ticket);

/* Takes a slot of turn->limiter, unless one is held already; waits for it if need be. client: a number that tells
   clients apart. exempt: never refused for a full line. */
enum line_answer line_take(struct line_turn *turn, struct line_sleeper *sleeper, uint64_t client, bool is_exempt);
/* Asked right before the first byte is sent: is the slot in hand, if there is one, still good? Waits for another if it is
   not. Anything but LINE_GO: no slot is in hand any more. */
enum line_answer line_renew(struct line_turn *turn, struct line_sleeper *sleeper);
/* line_take() without waiting: false when it could not start at once. */
bool line_try(struct line_turn *turn, uint64_t client, bool is_exempt);
/* The slot in hand is used up: the request's first bytes have left, and since then it became now_us. Without one: nothing. */
void line_use(struct line_turn *turn, uint64_t now_us);
/* The slot in hand will not be used: it is the next one's. Without one: nothing. */
void line_give_back(struct line_turn *turn);

/* For waiting that no limiter ends: makes sure that there is something to wait with (false: no descriptor) … */
bool line_can_sleep(struct line_sleeper *sleeper);
/* … and sleeps until wake_us or a wake-up. False when the client is gone, or was cut off. */
bool line_sleep(struct line_sleeper *sleeper, uint64_t wake_us);
/* The thread ends. */
void line_close(struct line_sleeper *sleeper);

#endif
