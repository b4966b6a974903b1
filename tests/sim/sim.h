/* sim.h: the cluster in a box: many nodes of the real cluster.c, limiter.c and cluster_wire.c under a made-up clock and
 * network.
 *
 *      plan (from a name or a seed) ──► world ──► what happened: starts, waits, faults found
 *
 *                 ┌ node: clock, limiter, cluster, wire, requests' threads ┐
 *      world ─────┼ node                                                   ├──► judge: is a window too full?
 *        queue    └ node                                                   ┘
 *        network: links that lose, double, delay, cut
 *
 * The problem: what breaks a protocol is an order of events that nobody thought of, and on real machines such an order
 * comes once in a year and never again. The idea (FoundationDB's, and Lamport's before it): nothing in the three files
 * under test knows a socket or a clock, so one thread can hand them every event in an order that one 64-bit seed
 * decides. A seed that fails, fails always; a thousand hours take minutes, for idle time is skipped.
 *
 * The invariant that makes a run repeatable: every random number comes from the plan's or the world's own generator,
 * events of one moment run in the order in which they were planned, and nothing depends on an address in memory or on a
 * real clock.
 *
 * True time is the world's: microseconds since the run began. A node sees only its own clock (node_clock_us), which
 * starts anywhere and may run fast or slow. The judge uses true time alone.
 */
#ifndef WEIR_SIM_H
#define WEIR_SIM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster.h"
#include "cluster_wire.h"
#include "lib/ts.h"
#include "limiter.h"

#define NODES_MAX 12u
#define LOADS_MAX 256u
#define FAULTS_MAX 128u
#define ALL_NODES ((1u << NODES_MAX) - 1)
#define MS UINT64_C(1000)
#define SECOND UINT64_C(1000000)
#define NEVER_US UINT64_MAX

/* ---- random numbers (queue.c) ------------------------------------------------------------------------------------ */

struct random {
	uint64_t state;
};

uint64_t random_next(struct random *r);
uint64_t random_below(struct random *r, uint64_t limit); /* 0 when limit is 0 */
uint64_t random_between(struct random *r, uint64_t least, uint64_t most);
bool random_chance(struct random *r, unsigned per_million);

/* ---- the plan: all that is decided before a run ------------------------------------------------------------------ */

/* One direction between two nodes. */
struct road {
	unsigned delay_us, jitter_us;            /* delay + 0..jitter */
	unsigned spike_per_million, spike_us;    /* now and then 0..spike more */
	unsigned lost_per_million, doubled_per_million;
	bool is_cut;
};

/* How late threads run. usual: 1..usual; now and then 1..rare. */
struct lateness {
	unsigned usual_us, rare_per_million, rare_us;
};

struct threads {
	struct lateness wake;  /* from a wake-up to the thread's next step */
	struct lateness gap;   /* from limiter_may_start() to the send */
	unsigned connect_us;   /* up to so long between a slot and limiter_may_start() */
};

enum load_pattern {
	LOAD_IDLE,
	LOAD_STEADY,   /* rate a second, evenly */
	LOAD_RANDOM,   /* rate a second, on average */
	LOAD_STANDING, /* depth requests always stand in line: who starts is followed by the next */
	LOAD_BURSTS,   /* depth requests at once, rate times a second */
};

struct load {
	uint64_t at_us;
	unsigned nodes; /* bits: whose load it is from now on */
	enum load_pattern pattern;
	double rate;
	unsigned depth;
};

enum fault_kind {
	FAULT_START,  /* nodes begin */
	FAULT_CRASH,  /* nodes are gone without a word; again there after for_us, with empty memory; 0: never */
	FAULT_LEAVE,  /* as above, with a word */
	FAULT_PAUSE,  /* nodes stand still for for_us */
	FAULT_PAUSE_WHEN_CALLED, /* the same, as soon as a request there is told to start */
	FAULT_ROAD,   /* the roads from nodes to others become this one */
	FAULT_CALM,   /* all roads are as at the beginning */
	FAULT_RELOAD, /* nodes are configured with another threshold */
	FAULT_ATTACK, /* for for_us somebody sends threshold datagrams a second: recorded ones, garbage, forgeries */
};

struct fault {
	uint64_t at_us, for_us;
	enum fault_kind kind;
	unsigned nodes, others;
	unsigned threshold;
	struct road road;
};

/* What a run must show, beyond the window. Nought: not asked. */
struct expectation {
	uint64_t from_us, until_us; /* measured between these */
	double utilisation;         /* at least */
	uint64_t wait_p99_us;       /* at most: arrival to start */
	uint64_t standstill_us;     /* at most: no start by anybody, while somebody waits */
	uint64_t discovered_us;     /* by then all see all */
	uint64_t calm_us;           /* all faults are over: within CALM_US all agree on a master and all are served */
};

struct plan {
	char name[40], text[120];
	uint64_t seed, end_us;
	unsigned node_count;
	struct plan_node {
		unsigned id;
		int drift_ppm;
	} nodes[NODES_MAX];
	unsigned threshold, burst, backlog, group_size;
	uint64_t window_us;
	bool is_strict, is_fair, has_secret;
	unsigned impatient_per_million; /* clients that go away while they wait */
	struct road road;
	struct threads threads;
	struct load loads[LOADS_MAX];
	unsigned load_count;
	struct fault faults[FAULTS_MAX];
	unsigned fault_count;
	struct expectation expect;
};

void plan_load(struct plan *p, struct load load);
void plan_fault(struct plan *p, struct fault fault);
void plan_random(struct plan *p, uint64_t seed);
void plan_any_scenario(struct plan *p, uint64_t seed);
/* False when there is no scenario of that name. */
bool plan_named(struct plan *p, const char *name, uint64_t seed);
/* NULL behind the last. */
const char *plan_name(unsigned index, const char **text);

/* ---- the run ----------------------------------------------------------------------------------------------------- */

struct result {
	uint64_t seed, end_us;
	bool has_failed;
	uint64_t failed_us;
	char why[240];
	char name[40];
	unsigned threshold, largest; /* starts in the fullest window over all nodes, where one threshold counted */
	double utilisation;          /* between the expectation's times */
	uint64_t standstill_us;
	uint64_t wait_p50_us, wait_p99_us;
	uint64_t started, refused, died, frozen, datagrams;
	double datagrams_a_second;
	uint64_t dropped[CLUSTER_WIRE_RESULTS];
};

/* Runs a plan to its end or to the first breach. lines: prints a timeline. */
void world_run(const struct plan *plan, bool has_timeline, struct result *result);

/* ---- events (queue.c) -------------------------------------------------------------------------------------------- */

enum event_kind {
	EVENT_TICK,    /* a node's group thread wakes up */
	EVENT_DATAGRAM,
	EVENT_ARRIVAL, /* a client's request */
	EVENT_THREAD,  /* a waiting request's thread wakes up */
	EVENT_CHECK,   /* it is about to send */
	EVENT_SEND,    /* its first byte leaves */
	EVENT_GIVE_UP, /* its client goes away */
	EVENT_LOAD,
	EVENT_FAULT,
	EVENT_RETURN,  /* a node comes back */
	EVENT_RESUME,
	EVENT_ATTACK,
	EVENT_LOOK,    /* the judge looks around */
};

struct event {
	uint64_t at_us, order;
	enum event_kind kind;
	unsigned node;
	uint64_t life; /* of the node, or of the request: who is gone by then is not disturbed */
	void *subject;
	uint64_t number;
};

struct queue {
	struct event *events;
	size_t count, capacity;
	uint64_t order;
};

void queue_push(struct queue *q, struct event event);
bool queue_pop(struct queue *q, struct event *event);

/* ---- the parts --------------------------------------------------------------------------------------------------- */

enum request_state { REQUEST_FREE, REQUEST_WAITING, REQUEST_CALLED, REQUEST_CHECKED };

struct request {
	struct limiter_ticket ticket;
	struct world *world;
	struct request *next, *previous; /* of one node, in order of arrival; free ones by next alone */
	unsigned node;
	uint64_t life; /* grows when the memory is used again */
	enum request_state state;
	uint64_t arrived_us, wakes_us; /* true time; wakes_us: when its thread runs next, NEVER_US: when woken */
	bool has_died;  /* a slot died in its hands */
	bool is_frozen; /* its node stood still between the check and the send */
};

struct node {
	struct world *world;
	unsigned index, id;
	bool is_up, was_up;
	uint64_t life, incarnation;
	uint64_t clock_offset_us;
	int drift_ppm;
	uint64_t resume_us; /* stands still before that */
	uint64_t pause_when_called_us;
	unsigned buffered;  /* datagrams that wait for it to go on */
	unsigned threshold, wanted_threshold;
	struct cluster *cluster;
	struct limiter *limiter;
	struct cluster_wire *wire;
	uint64_t tick_us; /* true time of the next tick: other tick events are stale */
	struct load load;
	uint64_t load_life, refill_us; /* refill_us: when its standing line is looked after next */
	struct request *first, *last;
	unsigned waiting; /* requests in REQUEST_WAITING */
	uint64_t started, served_us; /* starts of all its lives; the last of them */
	unsigned second_started;
};

struct datagram {
	struct datagram *next;
	unsigned references, length, from;
	unsigned char bytes[CLUSTER_WIRE_MAX];
};

#define RECORDED 256u

struct network {
	struct road roads[NODES_MAX][NODES_MAX];
	struct datagram *spare;
	struct datagram *recorded[RECORDED];
	unsigned recorded_count;
	struct cluster_wire *forger;
	uint64_t attack_until_us;
	unsigned attacks_a_second;
	uint64_t sent;
	/* Who can talk with whom, both ways. */
	unsigned reach[NODES_MAX];
	unsigned parts[NODES_MAX], part_count; /* bits of the nodes in each connected part */
	unsigned part_masters[NODES_MAX];      /* nodes in it of which no two can talk: so many may be master at once */
	uint64_t changed_us;
};

/* What held until when. */
struct was {
	uint64_t until_us;
	unsigned value;
};

struct judge {
	struct start {
		uint64_t at_us;
		unsigned node;
	} *starts; /* a ring: the starts of the last window */
	size_t first, count, capacity;
	unsigned of_node[NODES_MAX];
	struct was masters[64], thresholds[64];
	unsigned masters_count, thresholds_count;
	unsigned masters_now, threshold_now;
	uint64_t *waits, *times; /* of the starts between the expectation's moments */
	size_t measured, measured_capacity;
	uint64_t last_start_us, standstill_us;
	unsigned served_in_calm[NODES_MAX];
	uint64_t calm_starts;
	uint64_t sent_at_from;
};

struct world {
	const struct plan *plan;
	struct result *result;
	bool has_timeline, is_over;
	struct random random;
	uint64_t now_us;
	struct queue queue;
	struct node nodes[NODES_MAX];
	struct network network;
	struct judge judge;
	struct request *spare;
	uint64_t second_us;
};

/* Ends the run: the protocol is broken. */
void world_fail(struct world *w, const char *format, ...) PRINTF_LIKE(2, 3);
/* A line of the timeline. node: NULL for the world itself. */
void world_tell(struct world *w, const struct node *node, const char *format, ...) PRINTF_LIKE(3, 4);
/* An event of now + in_us. */
void world_plan(struct world *w, uint64_t in_us, enum event_kind kind, unsigned node, uint64_t life, void *subject);
void world_pause(struct world *w, struct node *n, uint64_t for_us);
uint64_t world_lateness_us(struct world *w, const struct lateness *lateness);
void *sim_allocate(void *old, size_t bytes); /* realloc that ends the program when there is none */

uint64_t node_clock_us(const struct node *n);
uint64_t node_true_us(const struct node *n, uint64_t clock_us); /* when will its clock show that? */
bool node_is_paused(const struct node *n);
void node_begin(struct node *n);
void node_end(struct node *n, bool says_goodbye);
void node_tick(struct node *n);
void node_poke(struct node *n); /* the line has grown */
void node_receive(struct node *n, struct datagram *d, unsigned from);
void node_configure(struct node *n); /* to what is wanted */

void network_begin(struct world *w);
void network_end(struct world *w);
/* to: NODES_MAX for everybody. */
void network_send(struct world *w, unsigned from, unsigned to, const unsigned char *bytes, size_t length);
void network_set(struct world *w, unsigned from, unsigned to, const struct road *road);
void network_look(struct world *w); /* who can talk with whom may have changed */
void network_attack(struct world *w);
void datagram_release(struct world *w, struct datagram *d);

void request_arrive(struct node *n);
void request_thread(struct request *r);
void request_check(struct request *r);
void request_send(struct request *r);
void request_give_up(struct request *r);
void request_woken(struct limiter_ticket *ticket);
void request_drop_all(struct node *n);
void load_set(struct node *n, const struct load *load);
void load_next(struct node *n); /* an arrival of its load is due */
void load_refill(struct node *n, bool was_refused);

void judge_begin(struct world *w);
void judge_end(struct world *w);
void judge_start(struct world *w, struct node *n, const struct request *r);
void judge_look(struct world *w); /* every 100 ms */
void judge_masters(struct world *w, unsigned masters);
void judge_threshold(struct world *w);

#endif
