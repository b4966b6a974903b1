/* stage.h: plays a plan with the student's nodes, and says what went wrong: see stage.c. */
#ifndef LAB_ELECTION_STAGE_H
#define LAB_ELECTION_STAGE_H

#include "labs/08-election/election.h"
#include "tests/sim/sim.h"

#define STAGE_TEXT_MAX 8192u

/* From from_us until until_us these nodes (bits, by their place in the plan) take master for master, or text tells what went wrong. */
struct stage_claim {
	uint64_t from_us, until_us;
	unsigned nodes, master;
	const char *text;
};

struct stage_rules {
	uint64_t overlap_us; /* how long two nodes that hear each other may both be master; 0: never */
	uint64_t pairs_from_us; /* before that it is not looked at */
	uint64_t settle_us;  /* so long after the last fault all agree; 0: not asked */
	const struct stage_claim *claims; /* ended by one without a text; NULL: none */
	/* What came of it. */
	char failure[STAGE_TEXT_MAX]; /* why, what happened last, and who took whom for master, in lines */
	uint64_t most_sent;           /* datagrams of the node that sent most */
};

/* True when it went well. Depends on the plan, with its seed, alone. */
bool stage_run(const struct plan *plan, struct stage_rules *rules);

#endif
