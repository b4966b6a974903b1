/* stage.h: where labs 8 and 9 are played: nodes with a student's code on the simulation's roads, under a plan of the
 * simulation's kind.
 *
 *      plan (by hand, or plan_random(seed)) ──► faults ─┐
 *                                                       ▼
 *      game->tick, game->receive ◄── queue ◄── roads that lose, double, delay, cut
 *                 └──► after each event: game->watch ──► the rules, the story, the lanes
 *
 * tests/sim/world.c does the same for cluster.c. What is shared is what decides: the random numbers, the order of
 * events (queue.c), the roads' faults and the adversary's plans (random_plan.c, scenarios.c), so a seed means the
 * same trouble here and in `make sim SEED=...`.
 *
 * Everything depends on the plan, with its seed, alone. One thread.
 */
#ifndef LABS_STAGE_H
#define LABS_STAGE_H

#include "tests/sim/sim.h"

#define STAGE_TEXT_MAX 8192u
#define STAGE_DATAGRAM_MAX 1200u
#define STAGE_LANE 60u
#define STAGE_LANE_US 50000u

struct stage;

struct player {
	struct stage *stage;
	void *mind; /* the student's; NULL while it is gone */
	unsigned index, id;
	bool is_up, has_run; /* has_run: since it began, or went on: before that it could not know anything */
	uint64_t life, incarnation, offset_us, tick_us, resume_us, sent;
	int drift_ppm;
	char lane[STAGE_LANE];
};

/* What is played. */
struct stage_game {
	void *(*create)(struct player *p, uint64_t now_us); /* NULL: it could not */
	void (*destroy)(struct player *p);
	void (*leave)(struct player *p, uint64_t now_us); /* or NULL: nobody says goodbye */
	uint64_t (*tick)(struct player *p, uint64_t now_us);
	void (*receive)(struct player *p, const void *bytes, size_t length, uint64_t now_us);
	void (*happen)(struct player *p,
	               const struct event *e);  /* an event of the game's own, which it put into the queue; or NULL */
	void (*watch)(struct stage *s);         /* after each event, and every 10 ms */
	char (*letter)(const struct player *p); /* what the lane shows of it now, while it is there and runs */
	const char *legend;
};

struct stage {
	const struct plan *plan;
	const struct stage_game *game;
	void *context; /* the game's */
	struct random random;
	struct queue queue;
	uint64_t now_us, changed_us; /* changed_us: the last moment at which the plan did something */
	struct road roads[NODES_MAX][NODES_MAX];
	struct player players[NODES_MAX];
	bool has_failed;
	char failure[STAGE_TEXT_MAX]; /* why, what happened last, and the lanes, in lines */
	/* stage.c's own */
	uint64_t next_lane_us, attack_until_us;
	unsigned attacks_a_second, lanes, recorded_count, told;
	struct letter *recorded;
	char (*story)[240];
};

/* Plays the plan. NULL never; to be given to stage_free(), with what is in it. */
struct stage *stage_run(const struct plan *plan, const struct stage_game *game, void *context);
void stage_free(struct stage *s);

/* For a game, while it is played. */
void stage_send(struct player *p, unsigned to, const void *bytes, size_t length); /* to: an id; 0: all others */
void stage_tick_soon(struct player *p); /* its tick is due as soon as a thread wakes */
void stage_tell(struct stage *s, const char *format, ...) PRINTF_LIKE(2, 3);
void stage_fail(struct stage *s, const char *format, ...) PRINTF_LIKE(2, 3);
uint64_t stage_clock_us(const struct player *p);
uint64_t stage_lateness_us(struct stage *s); /* how late a thread wakes: 1 to 60 us, now and then milliseconds */
bool stage_runs(const struct player *p);     /* is there, and does not stand still */
bool stage_hear(const struct stage *s, unsigned i, unsigned k); /* both ways, as well as a protocol needs */
bool stage_hear_easily(const struct stage *s);                  /* everybody who is there everybody */

/* Two nodes with one id, which the simulation's plans have now and then, are another exercise. */
bool stage_has_twins(const struct plan *plan);

#endif
