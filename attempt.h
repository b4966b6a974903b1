/* attempt.h: one try at one target, on a connection that is in hand: send, wait for the head of an answer, and say what to do next.
 * For reverse.c and forward.c, which differ only in where the connection comes from.
 */
#ifndef WEIR_ATTEMPT_H
#define WEIR_ATTEMPT_H

#include "road.h"

/* What one try at one target came to. */
enum attempt {
	ATTEMPT_ANSWERED, /* the head of an answer is there */
	ATTEMPT_NEXT,     /* the request can go to another target */
	ATTEMPT_FRESH,    /* a connection that had been idle turned out to be closed: once more, on a new one */
	ATTEMPT_REFUSED,
	ATTEMPT_OVER,
};

/* So often a request goes to one target on a connection of its own, when each closes before the request may start. */
#define ATTEMPT_FRESH_MAX 4

/* STEP_REFUSED and STEP_OVER as what an attempt came to. */
enum attempt attempt_of(enum step step);

/* How long a connection may have been idle to be taken for this request. A request that could not be repeated takes only one that was
   in use a moment ago: a target that closes idle connections after some seconds is then unlikely to be closing just this one just now. */
uint64_t attempt_idle_max_us(const struct road *r);

/* Sends the request on r->exchange.upstream and waits for the head of the answer. host: for the Host of a request that has none.
   was_reused: the connection was idle before. *blame says what the target did wrong, or NULL when it is not to blame. The
   limiter's slot in hand is used up if a byte left. On anything but ATTEMPT_ANSWERED the connection is of no more use. */
enum attempt attempt_send(struct road *r, const char *host, bool was_reused, const char **blame);

/* A connection could not be opened for a reason that lies with us, not with the target: no other target would do better. */
bool attempt_is_our_own_lack(int error);
enum attempt attempt_refuse_for_lack(struct road *r);

#endif
