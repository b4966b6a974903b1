/* resolver.h: turns the endpoints of the settings into addresses, again and again, without holding anybody up.
 *
 * Asking the name service can block for half a minute and can't be interrupted. So one thread does nothing else: it asks every
 * interval, and when it is kicked (a connection failed: perhaps the name has moved), and calls back when there is an answer.
 * The thread is detached and shares only a small box with its owner: stopping does not wait for a name service that hangs.
 */
#ifndef WEIR_RESOLVER_H
#define WEIR_RESOLVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"

struct resolver;

/* What to resolve. */
struct resolver_question {
	const char *host; /* name, address, or path (is_unix) */
	unsigned port;
	bool is_unix;
};

/* One address of one question. */
struct resolver_answer {
	size_t question; /* index */
	bool has_address;  /* false: the name does not resolve; there is one such answer for it */
	struct address address;
};

/* Starts with these questions (copied). A name that can't be resolved now but could before keeps its addresses: a name service
   that is down is no reason to lose targets. changed(context) is called by the resolver's thread when a new set of answers is there; it
   must not block. NULL when out of memory or threads. */
struct resolver *resolver_start(const struct resolver_question *questions, size_t count, uint64_t interval_us,
                                void (*changed)(void *context), void *context);
/* Waits for the first set of answers that knows the names too: false at the deadline. */
bool resolver_wait_first(struct resolver *resolver, uint64_t deadline_us);
/* Ask again soon (at most once a second). Never blocks. */
void resolver_kick(struct resolver *resolver);
/* The current answers, in the order of the questions; the caller frees *answers. 0 and NULL when out of memory.
   generation (may be NULL) counts the sets. The first is there from the start: addresses are known at once, and names do
   not resolve yet. */
#define RESOLVER_WITHOUT_NAMES 1u
size_t resolver_take(struct resolver *resolver, struct resolver_answer **answers, unsigned *generation);
/* changed() will not be called after this. Does not wait. */
void resolver_stop(struct resolver *resolver);

#endif
