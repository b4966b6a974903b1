/* grade.c: lab 5's graded tests: guests at a limiter's door, on made-up time.
 *
 *      enter ──► GO: starts at once
 *         └────► WAIT ──► turn ──► ...
 *
 * A guest who waits sleeps until the time it was told, or until it is woken, as a thread would. Nobody asks without a
 * reason: so a wake-up that is lost shows.
 *
 * Each rule has a test of its own; then random histories, in which everything is checked at once.
 */
#include "limiter.h"

#include <stdio.h>
#include <string.h>

#include "labs/grade.h"

#define SECOND UINT64_C(1000000)
#define GUESTS_MAX 400u

enum guest_state { GUEST_WAITS, GUEST_CALLED, GUEST_STARTED, GUEST_REFUSED, GUEST_LEFT };

struct guest {
	struct limiter_ticket ticket;
	enum guest_state state;
	uint64_t client, wake_us, started_us;
	bool is_woken;
};

static struct hall {
	struct limiter *limiter;
	struct limiter_options options;
	struct guest guests[GUESTS_MAX];
	unsigned count;
	uint64_t now_us;
	unsigned asleep; /* how often everybody slept, and nobody was told until when */
} hall;

static void on_wake(struct limiter_ticket *ticket)
{
	((struct guest *)ticket->owner)->is_woken = true;
}

static void open_hall(unsigned threshold, unsigned backlog, enum limiter_queue queue)
{
	memset(&hall, 0, sizeof hall);
	hall.now_us = 1000 * SECOND;
	hall.options = (struct limiter_options){
		.threshold = threshold, .window_us = SECOND, .backlog = backlog, .queue = queue
	};
	hall.limiter = limiter_create(&hall.options, on_wake);
	if (hall.limiter == NULL)
		grade_fail("limiter_create() gave NULL");
}

/* The rest is ended by the end of the test's process. */
static unsigned waiting(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < hall.count; i++)
		count += hall.guests[i].state == GUEST_WAITS;
	return count;
}

static unsigned waiting_of(uint64_t client)
{
	unsigned count = 0;

	for (unsigned i = 0; i < hall.count; i++)
		count += hall.guests[i].state == GUEST_WAITS && hall.guests[i].client == client;
	return count;
}

static void ask(struct guest *g)
{
	uint64_t wake_us = UINT64_MAX;

	g->is_woken = false;
	enum limiter_answer answer = limiter_turn(hall.limiter, &g->ticket, hall.now_us, &wake_us);
	g->wake_us = answer == LIMITER_WAIT ? wake_us : UINT64_MAX;
	g->state = answer == LIMITER_GO ? GUEST_CALLED : answer == LIMITER_FULL ? GUEST_REFUSED : GUEST_WAITS;
}

static void start(struct guest *g)
{
	g->state = GUEST_STARTED;
	g->started_us = hall.now_us;
	limiter_started(hall.limiter, &g->ticket, hall.now_us);
}

static struct guest *enter(uint64_t client)
{
	struct guest *g = &hall.guests[hall.count++];

	*g = (struct guest){ .client = client, .wake_us = UINT64_MAX };
	g->ticket.owner = g;
	switch (limiter_enter(hall.limiter, &g->ticket, client, hall.now_us)) {
	case LIMITER_GO:
		start(g);
		break;
	case LIMITER_WAIT:
		ask(g);
		break;
	default:
		g->state = GUEST_REFUSED;
		break;
	}
	return g;
}

static void leave(struct guest *g)
{
	if (g->state == GUEST_WAITS || g->state == GUEST_CALLED) {
		limiter_cancel(hall.limiter, &g->ticket, hall.now_us);
		g->state = GUEST_LEFT;
	}
}

/* Lets everybody ask who has a reason to. The next who is called; NULL when nobody is, before until_us. */
static struct guest *next_called(uint64_t until_us)
{
	for (;;) {
		uint64_t soonest_us = UINT64_MAX;

		for (unsigned i = 0; i < hall.count; i++) {
			struct guest *g = &hall.guests[i];

			if (g->state == GUEST_WAITS && (g->is_woken || g->wake_us <= hall.now_us)) {
				ask(g);
				if (g->state == GUEST_CALLED)
					return g;
				if (g->state == GUEST_WAITS && g->wake_us <= hall.now_us) {
					grade_fail("limiter_turn() told a guest to ask again at once: that would never "
					           "end");
					return NULL;
				}
				i = (unsigned)-1; /* it may have woken one who was asked before */
			}
		}
		for (unsigned i = 0; i < hall.count; i++)
			if (hall.guests[i].state == GUEST_WAITS && hall.guests[i].wake_us < soonest_us)
				soonest_us = hall.guests[i].wake_us;
		if (soonest_us > until_us) {
			hall.asleep += soonest_us == UINT64_MAX && waiting() > 0;
			return NULL;
		}
		hall.now_us = soonest_us;
	}
}

/* Calls and starts the next; shows what is wrong when nobody comes within a minute. */
static struct guest *serve(void)
{
	struct guest *g = next_called(hall.now_us + 60 * SECOND);

	if (g == NULL && hall.asleep > 0)
		grade_fail("t=%.3f s: %u wait, and everybody sleeps: the front was not told a time, and nobody woke it",
		           (double)(hall.now_us - 1000 * SECOND) / 1e6, waiting());
	else if (g == NULL)
		grade_fail("t=%.3f s: %u wait, and in a whole minute nobody is called",
		           (double)(hall.now_us - 1000 * SECOND) / 1e6, waiting());
	else
		start(g);
	return g;
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void first_come_first_served_when_the_line_is_fifo(void)
{
	open_hall(2, 10, LIMITER_FIFO);
	for (unsigned i = 0; i < 12; i++)
		enter(i % 3);
	for (unsigned i = 2; i < 12; i++) {
		struct guest *g = serve();

		if (g == NULL || !grade_check(g == &hall.guests[i], "request %u came next, and request %ld was called",
		                              i, (long)(g - hall.guests)))
			return;
	}
}

static void a_polite_client_need_not_wait_for_a_greedy_one(void)
{
	unsigned before = 0;

	open_hall(1, 100, LIMITER_FAIR);
	for (unsigned i = 0; i < 20; i++)
		enter('A');
	struct guest *polite = enter('B');
	while (polite->state == GUEST_WAITS) {
		if (serve() == NULL)
			return;
		before += polite->state == GUEST_WAITS;
	}
	if (before > 2)
		grade_fail("the polite client waited for %u requests of the greedy one, which had 19 in line; 2 are "
		           "enough (one is its turn)",
		           before);
}

/* Of two clients that both wait, neither is called twice while the other is not called at all. */
static void clients_take_turns(void)
{
	char order[64] = "";
	unsigned served[3] = { 0, 0, 0 };

	open_hall(1, 100, LIMITER_FAIR);
	enter('X');
	for (unsigned i = 0; i < 6; i++)
		enter('A');
	for (unsigned i = 0; i < 4; i++)
		enter('B');
	for (unsigned i = 0; i < 2; i++)
		enter('C');
	for (unsigned i = 0; i < 12; i++) {
		struct guest *g = serve();

		if (g == NULL)
			return;
		order[i] = (char)g->client;
		served[g->client - 'A']++;
		for (unsigned a = 0; a < 3; a++)
			for (unsigned b = 0; b < 3; b++)
				if (waiting_of('A' + b) > 0 && served[a] > served[b] + 1) {
					grade_fail("served: %s: client %c had %u turns and client %c, who waits, %u",
					           order, (char)('A' + a), served[a], (char)('A' + b), served[b]);
					return;
				}
	}
}

static void a_clients_own_requests_stay_in_order(void)
{
	unsigned last[3] = { 0, 0, 0 };

	open_hall(3, 100, LIMITER_FAIR);
	for (unsigned i = 0; i < 30; i++)
		enter(i * i % 3);
	while (waiting() > 0) {
		struct guest *g = serve();

		if (g == NULL)
			return;
		unsigned index = (unsigned)(g - hall.guests);
		if (!grade_check(index >= last[g->client], "client %u's request %u was called after its request %u",
		                 (unsigned)g->client, index, last[g->client]))
			return;
		last[g->client] = index;
	}
}

static void the_line_is_bounded(void)
{
	struct limiter_report report;

	open_hall(2, 5, LIMITER_FIFO);
	for (unsigned i = 0; i < 20; i++)
		enter(i);
	grade_check(waiting() <= 5,
	            "%u stand in line, and the backlog is 5: a line without an end ends when memory does", waiting());
	grade_check(waiting() == 5, "%u stand in line, and there is room for 5", waiting());
	limiter_report(hall.limiter, hall.now_us, &report);
	grade_check(report.waiting == waiting(), "limiter_report() says %u wait, and %u were told to", report.waiting,
	            waiting());
}

static void a_full_line_makes_room_for_who_has_nobody_in_it(void)
{
	unsigned refused = 0, which = 0;

	open_hall(1, 5, LIMITER_FAIR);
	for (unsigned i = 0; i < 6; i++)
		enter('A');
	grade_check(enter('A')->state == GUEST_REFUSED,
	            "the line is full of client A's requests, and one more of A is let in");
	struct guest *polite = enter('B');
	if (!grade_check(polite->state == GUEST_WAITS,
	                 "5 of client A fill the line, client B has nobody in line, and is refused"))
		return;
	next_called(hall.now_us);
	for (unsigned i = 0; i < 6; i++)
		if (hall.guests[i].state == GUEST_REFUSED) {
			refused++;
			which = i;
		}
	grade_check(waiting() <= 5, "%u stand in line, and the backlog is 5 (was the one who has to go woken?)",
	            waiting());
	if (refused > 0)
		grade_check(refused == 1 && which == 5, "request %u of client A had to go, and not its newest, 5",
		            which);
}

static void whoever_leaves_the_line_leaves_his_place(void)
{
	open_hall(1, 3, LIMITER_FIFO);
	for (unsigned i = 0; i < 4; i++)
		enter(i);
	leave(&hall.guests[2]);
	struct guest *newcomer = enter(9);
	grade_check(newcomer->state == GUEST_WAITS,
	            "one of three left the line, and there is still no room for another");
	struct guest *a = serve(), *b = serve();
	grade_check(a == &hall.guests[1] && b == &hall.guests[3],
	            "request 2 left; 1 and 3 are next, and %ld and %ld were called",
	            a != NULL ? (long)(a - hall.guests) : -1, b != NULL ? (long)(b - hall.guests) : -1);
}

static void the_front_leaves_and_the_next_is_told(void)
{
	open_hall(1, 10, LIMITER_FIFO);
	for (unsigned i = 0; i < 5; i++)
		enter(i);
	next_called(hall.now_us); /* all have asked once; the front knows when its slot comes */
	leave(&hall.guests[1]);
	struct guest *g = serve();
	if (g != NULL)
		grade_check(g == &hall.guests[2], "the front left; request 2 is next, and %ld was called",
		            (long)(g - hall.guests));
}

static void a_slot_that_nobody_uses_goes_to_the_next(void)
{
	open_hall(1, 10, LIMITER_FIFO);
	for (unsigned i = 0; i < 4; i++)
		enter(i);
	struct guest *g = next_called(hall.now_us + 60 * SECOND);
	if (!grade_check(g == &hall.guests[1], "request 1 is next and was not called"))
		return;
	uint64_t called_us = hall.now_us;
	next_called(hall.now_us); /* the others sleep now */
	leave(g);
	struct guest *heir = next_called(hall.now_us + 60 * SECOND);
	if (heir == NULL)
		grade_fail("request 1 was called and left without starting; its slot is lost: nobody is ever called "
		           "again");
	else
		grade_check(hall.now_us == called_us,
		            "request 1 was called at once and left without starting; its slot is lost for %.3f s",
		            (double)(hall.now_us - called_us) / 1e6);
}

static uint64_t draw(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

/* Starts of the window that ends now. */
static unsigned in_window(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < hall.count; i++)
		count += hall.guests[i].state == GUEST_STARTED &&
		         hall.guests[i].started_us + hall.options.window_us > hall.now_us;
	return count;
}

/* False: something was wrong, and is told. */
static bool play_history(uint64_t seed)
{
	uint64_t state = seed * 2654435761u;
	unsigned threshold = (unsigned)(1 + draw(&state) % 4), backlog = (unsigned)(draw(&state) % 12);

	open_hall(threshold, backlog, draw(&state) % 2 ? LIMITER_FAIR : LIMITER_FIFO);
	while (hall.count < 300) {
		struct guest *g = NULL;
		uint64_t dice = draw(&state) % 10;

		if (dice < 5)
			g = enter(draw(&state) % 4);
		else if (dice < 7 && hall.count > 0)
			leave(&hall.guests[hall.count - 1 - draw(&state) % (hall.count < 12 ? hall.count : 12)]);
		else if ((g = next_called(hall.now_us + draw(&state) % SECOND)) != NULL && draw(&state) % 4 > 0)
			start(g);
		else if (g != NULL)
			leave(g);
		if (!grade_check(in_window() <= threshold,
		                 "seed %llu, after %u requests: %u starts in one window, and the threshold is %u",
		                 (unsigned long long)seed, hall.count, in_window(), threshold))
			return false;
	}
	while (waiting() > 0)
		if (serve() == NULL) {
			grade_fail("(seed %llu, threshold %u, backlog %u, %s)", (unsigned long long)seed, threshold,
			           backlog, hall.options.queue == LIMITER_FAIR ? "fair" : "fifo");
			return false;
		}
	return true;
}

static void random_histories_lose_nobody_and_keep_the_window(void)
{
	unsigned won = 0;

	for (uint64_t seed = grade_seed(); seed < grade_seed() + 200; seed++) {
		if (!play_history(seed))
			return;
		won++;
	}
	grade_check(won == 200, "%u histories of 200", won);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(3, first_come_first_served_when_the_line_is_fifo),
		GRADE(5, a_polite_client_need_not_wait_for_a_greedy_one),
		GRADE(5, clients_take_turns),
		GRADE(4, a_clients_own_requests_stay_in_order),
		GRADE(3, the_line_is_bounded),
		GRADE(5, a_full_line_makes_room_for_who_has_nobody_in_it),
		GRADE(4, whoever_leaves_the_line_leaves_his_place),
		GRADE(4, the_front_leaves_and_the_next_is_told),
		GRADE(4, a_slot_that_nobody_uses_goes_to_the_next),
		GRADE(8, random_histories_lose_nobody_and_keep_the_window),
	};

	return grade_main("05-fair-queue", tests, sizeof tests / sizeof *tests, argc, argv);
}
