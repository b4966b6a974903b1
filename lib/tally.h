/* tally.h: what became of many requests, added up by many threads.
 *
 *      worker ──┐                           ┌── counts by outcome, by status, by target
 *      worker ──┼── tally_add(one entry) ───┤
 *      worker ──┘                           └── drawers of latencies ──► p50, p90, p99, p99.9
 *
 * The invariant: each request is exactly one entry, an answer with a status or a failure of one kind, so that the
 * counts add up to the number of requests. Memory is fixed: it does not grow with their number.
 *
 * An average would hide what matters: of a thousand requests, 990 that take 1 ms and ten that take a second average 11
 * ms, which none of them took.
 *
 * One mutex inside; every function may be called from any thread.
 */
#ifndef WEIR_TALLY_H
#define WEIR_TALLY_H

#include <stdint.h>
#include <stdio.h>

#define TALLY_NAME_BYTES 64

enum tally_outcome {
	TALLY_ANSWERED,
	TALLY_REFUSED,     /* nobody listens there */
	TALLY_UNREACHABLE, /* no connection, for any other reason */
	TALLY_RESET,       /* the connection broke */
	TALLY_CLOSED,      /* closed before the first byte of an answer */
	TALLY_CUT,         /* closed in the middle of an answer */
	TALLY_LATE,        /* not finished in time */
	TALLY_MALFORMED,   /* what came back is not HTTP/1.1, or not one whole answer */
	TALLY_OUTCOMES,
};

struct tally_entry {
	enum tally_outcome outcome;
	uint64_t behind_us;               /* how long after its moment the request started */
	int status;                       /* of an answer, 100 to 599; what follows is read for answers only */
	uint64_t took_us, body_bytes;
	char target[TALLY_NAME_BYTES];    /* who answered, or empty; no quote, backslash or control character */
};

struct tally_totals {
	uint64_t answered, failed;
	uint64_t with_status; /* answers with the status that was asked about */
};

struct tally;

/* NULL when out of memory. */
struct tally *tally_create(void);
void tally_destroy(struct tally *t);

void tally_add(struct tally *t, const struct tally_entry *entry);
void tally_add_connection(struct tally *t);
void tally_add_reconnection(struct tally *t);

struct tally_totals tally_totals(struct tally *t, int status);

/* The latency that permille (1 to 1000) of a thousand answers did not exceed, at most 0.2 % too high and never
   above the slowest; 0 when there are none. */
uint64_t tally_percentile_us(struct tally *t, uint64_t permille);

/* The summary, for a person or as one line of JSON. */
void tally_print(struct tally *t, FILE *out, uint64_t elapsed_us);
void tally_print_json(struct tally *t, FILE *out, uint64_t elapsed_us);

/* "refused" for TALLY_REFUSED. */
const char *tally_outcome_name(enum tally_outcome outcome);

#endif
