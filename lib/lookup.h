/* lookup.h: asks the name service for the addresses of one host, and gives up at a deadline.
 *
 *      lookup ──► a number, "127.1", "::1": answered at once
 *           └───► a name: a thread of its own asks ──┬─► in time: the addresses
 *                                                    └─► too late: LOOKUP_LATE; the thread is left behind
 *
 * getaddrinfo() can block for half a minute and can't be interrupted. Whoever called it directly would be held through
 * any deadline, and through a drain. So the question is put by a thread that can be left behind. How many may be under
 * way is bounded: a name service that hangs would else collect a thread for each request. Who finds no room waits for
 * it until its deadline. One asker may have a quarter of them: a client whose names all hang holds nobody else up.
 *
 * Any thread may call anything.
 */
#ifndef WEIR_LOOKUP_H
#define WEIR_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

#include "address.h"

/* Addresses of one name: more are not looked at. */
#define LOOKUP_ADDRESSES_MAX 64u

struct lookups;

/* most: questions under way at once, at least 1. NULL when out of memory. */
struct lookups *lookups_create(unsigned most);
/* The end: who waits gets LOOKUP_LATE now, and so does whoever asks for a name from now on. */
void lookups_abandon(struct lookups *lookups);
/* No lookup() may be running. Does not wait for questions that were left behind. */
void lookups_destroy(struct lookups *lookups);

enum lookup_result {
	LOOKUP_FOUND,
	LOOKUP_UNKNOWN,   /* *error is a number for gai_strerror() */
	LOOKUP_LATE,      /* no answer by the deadline, or lookups_abandon() */
	LOOKUP_NO_MEMORY, /* or no thread */
};

struct lookup_answer {
	struct address addresses[LOOKUP_ADDRESSES_MAX];
	size_t count; /* at least 1 when LOOKUP_FOUND */
	int error;
};

/* Asks for the addresses of host, for streams, with this port in them. asker: who the question is for, in any words. */
enum lookup_result lookup(struct lookups *lookups, const char *asker, const char *host, unsigned port,
                          uint64_t deadline_us, struct lookup_answer *answer);
/* Questions that are under way, those left behind included. */
unsigned lookups_under_way(struct lookups *lookups);

#endif
