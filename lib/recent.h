/* recent.h: the last requests of a service, for those who look; nothing at all when nobody does.
 *
 * A page that shows requests as they pass wants some tens a second, not all of thirty thousand; and most of the time there is
 * no page. So who looks hands out places, and who serves takes one if there is one:
 *
 *      the page, ten times a second:  recent_ask(): "the next few, please" ──► places
 *      a request, at its end:         recent_wants()? ── no places: a look at one number, and on
 *                                                     └─ a place: taken; the record is written
 *
 * Requests that were refused or that failed have places of their own: they are what somebody looks for, and are not to be crowded out.
 *
 * Any thread. One mutex, held while a record is copied.
 */
#ifndef WEIR_RECENT_H
#define WEIR_RECENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"

#define RECENT_MAX 128

struct recent_record {
	uint64_t number;   /* counted up, set by recent_add() */
	int64_t ended_ms;  /* of the wall clock */
	char client[64], method[16], uri[128], target[96];
	int status;        /* 0: none was sent */
	uint64_t wait_us, total_us;
	char refused_by[80]; /* the limit; "" when none refused it */
	char outcome[96];
};

enum recent_kind { RECENT_GOOD, RECENT_BAD, RECENT_KINDS };

struct recent;

/* NULL when out of memory. */
struct recent *recent_create(void);
void recent_destroy(struct recent *recent);

/* Somebody looks: so many of each kind are wanted from now on, and no more. */
void recent_ask(struct recent *recent, int count);
/* Is a record of this kind wanted? True takes a place: recent_add() follows. */
bool recent_wants(struct recent *recent, enum recent_kind kind);
void recent_add(struct recent *recent, const struct recent_record *record);
/* Makes a record of what the log says about a request, and adds it. */
void recent_show(struct recent *recent, const struct log_access *access, const char *refused_by);
/* Copies up to capacity of the latest, those with a number greater than after, the oldest first. Returns how many. */
size_t recent_read(struct recent *recent, uint64_t after, struct recent_record *out, size_t capacity);

#endif
