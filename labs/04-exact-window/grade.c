/* grade.c of lab 4: is the window exact, is it used, and does everybody who waits get a turn, in order?
 *
 * Most of it is a simulation. Requests come at times that were drawn at random, are sent a little after they were told
 * to go, wait as long as the limiter lets them, wake a little late, and sometimes give up:
 *
 *      arrive ──enter──► GO ──(sending takes a while)──► started       written down: one start
 *                  └───► WAIT ──► asks again at *wake_us, or when wake() was called for it
 *                            └──► its client goes away: cancel
 *
 * Then the starts are looked at as somebody at the target's door would: in no second, wherever it begins, more than the
 * threshold. A request that nobody will ever wake again is found when nothing is left to happen and somebody still
 * waits.
 */
#include "limiter.h"
#include "labs/grade.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_US UINT64_C(1000000)
#define NEVER UINT64_MAX
#define REQUESTS_MAX 4096u
#define COLUMNS 75u

enum state { COMING, WAITING, SENDING, STARTED, REFUSED, LEFT };

struct request {
	struct limiter_ticket ticket;
	enum state state;
	uint64_t arrive_us, sending_us, leave_us, late_us;
	uint64_t ask_us;   /* when it asks again; NEVER: when woken */
	uint64_t start_us; /* when it is sent, or was */
};

struct world {
	struct limiter *limiter;
	struct request requests[REQUESTS_MAX];
	size_t count;
	uint64_t now_us;
	uint64_t starts[REQUESTS_MAX];
	size_t start_count;
};

static struct world *the_world; /* for wake(), which is told a ticket and nothing else */

static uint64_t draw(uint64_t *random, uint64_t below)
{
	*random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (*random >> 33) % below;
}

static double seconds(uint64_t time_us)
{
	return (double)time_us / 1e6;
}

static struct limiter *make_limiter(unsigned threshold, unsigned backlog, void (*wake)(struct limiter_ticket *))
{
	struct limiter_options options = { .threshold = threshold, .window_us = SECOND_US, .backlog = backlog };
	struct limiter *l = limiter_create(&options, wake);

	grade_check(l != NULL, "limiter_create() gave NULL");
	return l;
}

static void count_wake(struct limiter_ticket *ticket)
{
	if (ticket->owner != NULL)
		++*(unsigned *)ticket->owner;
}

/* ---- what somebody at the target's door sees ------------------------------------------------------------ */

static int by_time(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

	return one < other ? -1 : one > other;
}

/* A line of columns from from_us on, each as long as column_us: how many starts fell into it. Below it the window that
   ends with end_us. */
static void draw_timeline(char *text, size_t capacity, const uint64_t *starts, size_t count, uint64_t end_us)
{
	uint64_t column_us = SECOND_US / 50,
		 from_us = end_us > SECOND_US + SECOND_US / 5 ? end_us - SECOND_US - SECOND_US / 5 : 0;
	char line[COLUMNS + 1], mark[COLUMNS + 1];
	size_t first = end_us > SECOND_US ? (end_us - SECOND_US - from_us) / column_us : 0,
	       last = (end_us - from_us) / column_us;

	memset(line, '.', COLUMNS);
	memset(mark, ' ', COLUMNS);
	line[COLUMNS] = mark[COLUMNS] = '\0';
	for (size_t i = 0; i < count; i++) {
		size_t column = starts[i] >= from_us ? (starts[i] - from_us) / column_us : COLUMNS;

		if (column < COLUMNS)
			line[column] = line[column] == '.' ? '1' : line[column] < '9' ? (char)(line[column] + 1) : '+';
	}
	memset(mark + first, '-', last - first + 1);
	mark[first] = '[';
	mark[last] = ']';
	mark[last + 1] = '\0'; /* last is at most 60 */
	snprintf(text, capacity,
	         "    %.3f s, each column 20 ms, a digit for that many starts\n    %s\n    %s one second",
	         seconds(from_us), line, mark);
}

/* True if no second has more than threshold starts. Else the test fails, with a drawing of the first one that has. */
static bool window_holds(uint64_t *starts, size_t count, unsigned threshold, const char *where)
{
	char timeline[400], list[300] = "";
	size_t first, length = 0, last = threshold;

	qsort(starts, count, sizeof(starts[0]), by_time);
	while (last < count && starts[last] - starts[last - threshold] >= SECOND_US)
		last++;
	if (last >= count)
		return true;
	first = last - threshold;
	while (last + 1 < count && starts[last + 1] - starts[first] < SECOND_US)
		last++;
	draw_timeline(timeline, sizeof(timeline), starts, count, starts[last]);
	for (size_t i = first; i <= last && length + 16 < sizeof(list); i++)
		length += (size_t)snprintf(list + length, sizeof(list) - length, " %.3f", seconds(starts[i]));
	grade_fail("window exceeded at t=%.3f s: %zu starts in 1 s, threshold %u; here is the timeline\n"
	           "%s\n    the starts:%s\n    (%s)",
	           seconds(starts[last]), last - first + 1, threshold, timeline, list, where);
	return false;
}

/* ---- the simulation ------------------------------------------------------------ */

/* Its thread was asleep, and needs a moment. */
static void wake_in_world(struct limiter_ticket *ticket)
{
	struct request *request = ticket->owner;

	if (request->state == WAITING && request->ask_us > the_world->now_us + request->late_us)
		request->ask_us = the_world->now_us + request->late_us;
}

static void go(struct world *world, struct request *request)
{
	request->state = SENDING;
	request->start_us = world->now_us + request->sending_us;
}

static void ask(struct world *world, struct request *request)
{
	uint64_t wake_us = NEVER;
	enum limiter_answer answer = limiter_turn(world->limiter, &request->ticket, world->now_us, &wake_us);

	request->ask_us =
		wake_us == NEVER ? NEVER : (wake_us > world->now_us ? wake_us : world->now_us + 1) + request->late_us;
	if (answer == LIMITER_GO)
		go(world, request);
	if (answer == LIMITER_FULL)
		request->state = REFUSED;
}

static void arrive(struct world *world, struct request *request)
{
	enum limiter_answer answer;

	request->ticket.owner = request;
	request->state = WAITING;
	request->ask_us = NEVER;
	answer = limiter_enter(world->limiter, &request->ticket, 0, world->now_us);
	if (answer == LIMITER_GO)
		go(world, request);
	else if (answer == LIMITER_FULL)
		request->state = REFUSED;
	else
		ask(world, request);
}

static void leave(struct world *world, struct request *request)
{
	request->state = LEFT;
	limiter_cancel(world->limiter, &request->ticket, world->now_us);
}

static uint64_t event_us(const struct request *request)
{
	switch (request->state) {
	case COMING: return request->arrive_us;
	case WAITING: return request->ask_us < request->leave_us ? request->ask_us : request->leave_us;
	case SENDING: return request->start_us;
	default: return NEVER;
	}
}

static void happen(struct world *world, struct request *request)
{
	if (request->state == COMING) {
		arrive(world, request);
	} else if (request->state == WAITING && request->leave_us <= world->now_us) {
		leave(world, request);
	} else if (request->state == WAITING) {
		ask(world, request);
	} else {
		request->state = STARTED;
		world->starts[world->start_count++] = world->now_us;
		limiter_started(world->limiter, &request->ticket, world->now_us);
	}
}

/* Until nothing is left to happen. Requests stand in the order in which they come, so those past the first that is
   still to come wait. */
static void run_world(struct world *world)
{
	size_t over = 0;

	the_world = world;
	for (;;) {
		struct request *next = NULL;

		while (over < world->count && event_us(&world->requests[over]) == NEVER &&
		       world->requests[over].state != WAITING)
			over++;
		for (size_t i = over; i < world->count; i++) {
			struct request *request = &world->requests[i];

			if (event_us(request) != NEVER && (next == NULL || event_us(request) < event_us(next)))
				next = request;
			if (request->state == COMING)
				break;
		}
		if (next == NULL)
			return;
		world->now_us = event_us(next) > world->now_us ? event_us(next) : world->now_us;
		happen(world, next);
	}
}

static bool nobody_was_forgotten(const struct world *world)
{
	for (size_t i = 0; i < world->count; i++) {
		const struct request *request = &world->requests[i];

		if (request->state != WAITING)
			continue;
		grade_fail("request %zu, which came at %.3f s, waits for ever: it was told to wait until it is woken,\n"
		           "all others are gone since %.3f s, and nobody woke it",
		           i + 1, seconds(request->arrive_us), seconds(world->now_us));
		return false;
	}
	return true;
}

static struct world *make_world(unsigned threshold, unsigned backlog)
{
	struct world *world = calloc(1, sizeof(*world));

	if (!grade_check(world != NULL, "no memory"))
		return NULL;
	world->limiter = make_limiter(threshold, backlog, wake_in_world);
	if (world->limiter == NULL) {
		free(world);
		return NULL;
	}
	return world;
}

static void end_world(struct world *world)
{
	limiter_destroy(world->limiter);
	free(world);
}

/* How the requests come: as fast as they can, in bunches with quiet between, or now and then. */
static void fill_world(struct world *world, size_t count, unsigned threshold, uint64_t *random, bool some_leave)
{
	uint64_t at_us = draw(random, SECOND_US), gap_us = SECOND_US / threshold;

	for (size_t i = 0; i < count; i++) {
		struct request *request = &world->requests[i];
		uint64_t kind = draw(random, 20);

		at_us += kind < 12   ? draw(random, gap_us / 4 + 1)
		         : kind < 19 ? draw(random, 2 * gap_us)
		                     : draw(random, 3 * SECOND_US);
		*request = (struct request){ .arrive_us = at_us,
			                     .leave_us = NEVER,
			                     .sending_us = draw(random, 4) == 0 ? draw(random, 30000) : 0,
			                     .late_us = draw(random, 3000) };
		if (some_leave && draw(random, 4) == 0)
			request->leave_us = at_us + draw(random, 2 * SECOND_US);
	}
	world->count = count;
}

/* ---- part 1: the window ------------------------------------------------------------ */

static bool starts(struct limiter *l, uint64_t now_us)
{
	struct limiter_ticket ticket = { .owner = NULL };
	enum limiter_answer answer = limiter_enter(l, &ticket, 0, now_us);

	if (answer == LIMITER_GO)
		limiter_started(l, &ticket, now_us);
	else if (answer == LIMITER_WAIT)
		limiter_cancel(l, &ticket, now_us);
	return answer == LIMITER_GO;
}

static unsigned count_starts(struct limiter *l, unsigned tries, uint64_t now_us)
{
	unsigned count = 0;

	for (unsigned i = 0; i < tries; i++)
		count += starts(l, now_us);
	return count;
}

static void a_threshold_of_nought_is_no_limit(void)
{
	struct limiter *l = make_limiter(0, 0, count_wake);
	unsigned count;

	if (l == NULL)
		return;
	count = count_starts(l, 1000, 5);
	grade_check(count == 1000, "without a threshold %u of 1000 requests started", count);
	limiter_destroy(l);
}

static void as_many_as_the_threshold_start_at_once_and_no_more(void)
{
	struct limiter *l = make_limiter(5, 0, count_wake);
	unsigned at_once, later;

	if (l == NULL)
		return;
	at_once = count_starts(l, 8, SECOND_US);
	grade_check(at_once == 5, "threshold 5: of 8 requests at the same moment %u started", at_once);
	later = count_starts(l, 8, SECOND_US + SECOND_US * 3 / 4);
	grade_check(later == 0,
	            "threshold 5: five started at 1.000 s, and at 1.750 s %u more: that is within one second", later);
	later = count_starts(l, 8, 2 * SECOND_US + SECOND_US / 100);
	if (later != 5)
		grade_partial(2, "threshold 5: five started at 1.000 s, so at 2.010 s five may start again, and %u did",
		              later);
	limiter_destroy(l);
}

static void no_second_has_more_starts_than_the_threshold(void)
{
	uint64_t random = grade_seed();

	for (unsigned trial = 0; trial < 60; trial++) {
		unsigned threshold = trial == 0 ? 5 : 1 + (unsigned)draw(&random, 9),
			 backlog = (unsigned)draw(&random, 12);
		struct world *world = make_world(threshold, backlog);
		char where[100];

		if (world == NULL)
			return;
		fill_world(world, 300, threshold, &random, false);
		for (size_t i = 0; i < world->count; i++)
			world->requests[i].sending_us = 0;
		run_world(world);
		snprintf(where, sizeof(where), "history %u: threshold %u, backlog %u", trial + 1, threshold, backlog);
		if (!grade_check(world->start_count > 100, "%s: of 300 requests only %zu started", where,
		                 world->start_count) ||
		    !window_holds(world->starts, world->start_count, threshold, where))
			return;
		end_world(world);
	}
}

static void what_counts_is_when_a_request_was_sent(void)
{
	struct limiter *l = make_limiter(1, 0, count_wake);
	struct limiter_ticket ticket = { .owner = NULL };
	uint64_t random = grade_seed();

	if (l == NULL)
		return;
	if (!grade_check(limiter_enter(l, &ticket, 0, 0) == LIMITER_GO, "the first request of all was not let in"))
		return;
	grade_check(!starts(l, SECOND_US * 3 / 2),
	            "threshold 1\n0.000 s  A is told to go\n"
	            "1.500 s  A has not been sent yet, B asks, and is told to go: both may leave in the next moment");
	limiter_started(l, &ticket, 2 * SECOND_US);
	if (!grade_check(!starts(l, SECOND_US * 5 / 2),
	                 "threshold 1\n0.000 s  A is told to go\n2.000 s  A is sent\n"
	                 "2.500 s  B asks and is told to go, half a second after A was sent"))
		return;
	limiter_destroy(l);
	for (unsigned trial = 0; trial < 40; trial++) {
		unsigned threshold = 1 + (unsigned)draw(&random, 9);
		struct world *world = make_world(threshold, 10);

		if (world == NULL)
			return;
		fill_world(world, 300, threshold, &random, false);
		run_world(world);
		if (!window_holds(world->starts, world->start_count, threshold,
		                  "some requests were sent up to 30 ms after they were told to go"))
			return;
		end_world(world);
	}
}

static void a_request_that_is_not_sent_gives_its_slot_back(void)
{
	struct limiter *l = make_limiter(3, 0, count_wake);
	struct limiter_ticket tickets[3] = { { .owner = NULL } };
	unsigned count;

	if (l == NULL)
		return;
	for (size_t i = 0; i < 3; i++)
		if (!grade_check(limiter_enter(l, &tickets[i], 0, SECOND_US) == LIMITER_GO,
		                 "threshold 3, and request %zu was not let in", i + 1))
			return;
	limiter_started(l, &tickets[0], SECOND_US);
	limiter_cancel(l, &tickets[1], SECOND_US + 1000);
	limiter_cancel(l, &tickets[2], SECOND_US + 1000);
	count = count_starts(l, 5, SECOND_US + 2000);
	if (count != 2)
		grade_partial(count < 2 ? 0 : 1,
		              "threshold 3: three were told to go, one was sent and two were cancelled;\n"
		              "so two more may start now, and %u did",
		              count);
	count = count_starts(l, 5, SECOND_US + SECOND_US / 2);
	grade_check(count == 0,
	            "threshold 3: three started, and half a second later %u more: a slot was given back twice", count);
	limiter_destroy(l);
}

static void a_service_that_has_enough_to_do_runs_at_99_percent(void)
{
	const unsigned threshold = 20;
	struct world *world = make_world(threshold, 40);
	uint64_t random = grade_seed(), end_us;
	size_t possible;
	double used;

	if (world == NULL)
		return;
	/* 1.3 times as many as may start; those that are refused do not come again. */
	for (size_t i = 0; i < 4000; i++)
		world->requests[i] = (struct request){ .arrive_us = i * SECOND_US / 26,
			                               .leave_us = NEVER,
			                               .late_us = draw(&random, 2000) };
	world->count = 4000;
	end_us = world->requests[world->count - 1].arrive_us;
	run_world(world);
	possible = (size_t)(end_us / SECOND_US) * threshold;
	size_t count = 0;
	for (size_t i = 0; i < world->start_count; i++)
		count += world->starts[i] < end_us / SECOND_US * SECOND_US;
	used = 100.0 * (double)count / (double)possible;
	if (used < 99)
		grade_partial(used >= 90 ? 3 : 0,
		              "threshold 20, 26 requests a second for %.0f s, each thread up to 2 ms late:\n"
		              "%zu started, and %zu could have: %.1f %%",
		              seconds(end_us), count, possible, used);
	window_holds(world->starts, world->start_count, threshold, "26 requests a second");
	end_world(world);
}

/* ---- part 2: the line ------------------------------------------------------------ */

/* A limiter with a threshold of 1, used up at 1.000 s, and some requests that wait. */
static struct limiter *make_line(struct limiter_ticket *tickets, unsigned *wakes, size_t count, uint64_t *wake_us)
{
	struct limiter *l = make_limiter(1, 5, count_wake);

	if (l == NULL)
		return NULL;
	if (!grade_check(starts(l, SECOND_US), "the first request of all was not let in"))
		return NULL;
	for (size_t i = 0; i < count; i++) {
		tickets[i] = (struct limiter_ticket){ .owner = &wakes[i] };
		enum limiter_answer answer = limiter_enter(l, &tickets[i], 0, SECOND_US + 1000 * (i + 1));

		if (!grade_check(answer == LIMITER_WAIT, "threshold 1, backlog 5: request %zu may wait, and was %s",
		                 i + 2, answer == LIMITER_GO ? "let in at once" : "refused"))
			return NULL;
		answer = limiter_turn(l, &tickets[i], SECOND_US + 1000 * (i + 1), &wake_us[i]);
		if (!grade_check(
			    answer == LIMITER_WAIT,
			    "threshold 1: one started at 1.000 s, and request %zu, which waits, was %s at 1.00%zu s",
			    i + 2, answer == LIMITER_GO ? "let in" : "refused", i + 1))
			return NULL;
		wakes[i] = 0;
	}
	return l;
}

static void as_many_as_the_backlog_may_wait(void)
{
	struct limiter *l = make_limiter(2, 3, count_wake);
	struct limiter_ticket tickets[8] = { { .owner = NULL } };
	struct limiter_report report;
	char came[9] = "";

	if (l == NULL)
		return;
	for (size_t i = 0; i < 8; i++) {
		enum limiter_answer answer = limiter_enter(l, &tickets[i], 0, SECOND_US);

		came[i] = answer == LIMITER_GO ? 'G' : answer == LIMITER_WAIT ? 'w' : '-';
		if (answer == LIMITER_GO)
			limiter_started(l, &tickets[i], SECOND_US);
	}
	if (!grade_check(strcmp(came, "GGwww---") == 0,
	                 "threshold 2, backlog 3, eight requests at once (G goes, w waits, - refused)\n"
	                 "    they were told %s\n    should have    GGwww---",
	                 came))
		return;
	limiter_report(l, SECOND_US, &report);
	if (report.waiting != 3 || report.refused_total != 3)
		grade_partial(2, "three wait and three were refused; totals.waiting says %u, totals.refused_total %ju",
		              report.waiting, (uintmax_t)report.refused_total);
	for (size_t i = 2; i < 5; i++)
		limiter_cancel(l, &tickets[i], SECOND_US);
	limiter_destroy(l);
}

static void the_front_of_the_line_is_told_when_its_slot_comes(void)
{
	struct limiter_ticket tickets[2];
	unsigned wakes[2];
	uint64_t wake_us[2], later_us;
	struct limiter *l = make_line(tickets, wakes, 2, wake_us);

	if (l == NULL)
		return;
	if (!grade_check(wake_us[0] >= 2 * SECOND_US && wake_us[0] <= 2 * SECOND_US + SECOND_US / 100,
	                 "threshold 1: one started at 1.000 s; the front was told to ask again at %.3f s,\n"
	                 "and 2.000 s it should be (to 2.010 s)",
	                 wake_us[0] == NEVER ? 0.0 : seconds(wake_us[0])))
		return;
	grade_check(limiter_turn(l, &tickets[0], wake_us[0] - 1000, &later_us) == LIMITER_WAIT,
	            "the front asked 1 ms before its time and was let in");
	grade_check(limiter_turn(l, &tickets[0], wake_us[0], &later_us) == LIMITER_GO,
	            "the front asked at the time it was told, %.3f s, and was not let in", seconds(wake_us[0]));
	limiter_started(l, &tickets[0], wake_us[0]);
	limiter_cancel(l, &tickets[1], wake_us[0]);
	limiter_destroy(l);
}

static void nobody_overtakes(void)
{
	struct limiter_ticket tickets[3], newcomer = { .owner = NULL };
	unsigned wakes[3];
	uint64_t wake_us[3], ignored_us, now_us = 2 * SECOND_US + SECOND_US / 10;
	struct limiter *l = make_line(tickets, wakes, 3, wake_us);
	enum limiter_answer answer;

	if (l == NULL)
		return;
	answer = limiter_enter(l, &newcomer, 0, now_us);
	if (!grade_check(answer == LIMITER_WAIT, "B, C and D wait, a slot has come free, and E, who came last, was %s",
	                 answer == LIMITER_GO ? "let in before them" : "refused"))
		return;
	answer = limiter_turn(l, &tickets[1], now_us, &ignored_us);
	if (!grade_check(answer == LIMITER_WAIT,
	                 "B, C, D and E wait in this order, a slot has come free, C asked first and was %s",
	                 answer == LIMITER_GO ? "let in before B" : "refused"))
		return;
	for (size_t i = 0; i < 3; i++) {
		if (!grade_check(limiter_turn(l, &tickets[i], now_us, &ignored_us) == LIMITER_GO,
		                 "%c is in front, a slot is free, and it is not let in", 'B' + (int)i))
			return;
		limiter_started(l, &tickets[i], now_us);
		now_us += SECOND_US + SECOND_US / 10;
	}
	limiter_turn(l, &newcomer, now_us, &ignored_us);
	limiter_cancel(l, &newcomer, now_us);
	limiter_destroy(l);
}

/* Each is told something that another changes. Who sleeps must be woken then, for it will not ask. */
static void who_sleeps_is_woken_when_its_turn_comes_sooner(void)
{
	struct limiter_ticket tickets[2], first = { .owner = NULL }, second;
	unsigned wakes[2], woken = 0;
	uint64_t wake_us[2], told_us;
	struct limiter *l = make_line(tickets, wakes, 2, wake_us);
	bool is_one_forgotten;

	if (l == NULL)
		return;
	limiter_cancel(l, &tickets[0], SECOND_US + SECOND_US / 2);
	is_one_forgotten = wakes[1] == 0 && wake_us[1] > 2 * SECOND_US + SECOND_US / 100;
	if (is_one_forgotten)
		grade_partial(3, "B and C wait. B, in front, was told a time; C was told to sleep until it is woken.\n"
		                 "B's client went away: C is in front now, does not know it, and was not woken");
	limiter_cancel(l, &tickets[1], SECOND_US + SECOND_US / 2);
	limiter_destroy(l);

	l = make_limiter(1, 5, count_wake);
	second = (struct limiter_ticket){ .owner = &woken };
	if (l == NULL || limiter_enter(l, &first, 0, SECOND_US) != LIMITER_GO ||
	    limiter_enter(l, &second, 0, SECOND_US) != LIMITER_WAIT)
		return;
	limiter_turn(l, &second, SECOND_US, &told_us);
	limiter_started(l, &first, SECOND_US + SECOND_US / 10);
	if (woken == 0 && told_us > 2 * SECOND_US + SECOND_US / 5)
		grade_partial(is_one_forgotten ? 0 : 3,
		              "A was told to go and has not been sent; B waits, and nobody can tell it until when.\n"
		              "Then A was sent: now its time is known, and B was not woken to hear it");
	limiter_cancel(l, &second, 2 * SECOND_US);
	limiter_destroy(l);
}

static void nobody_waits_for_ever(void)
{
	uint64_t random = grade_seed();

	for (unsigned trial = 0; trial < 80; trial++) {
		unsigned threshold = 1 + (unsigned)draw(&random, 5), backlog = 1 + (unsigned)draw(&random, 12);
		struct world *world = make_world(threshold, backlog);
		size_t waited = 0;

		if (world == NULL)
			return;
		fill_world(world, 200, threshold, &random, true);
		run_world(world);
		for (size_t i = 0; i < world->count; i++)
			waited += world->requests[i].state == LEFT ||
			          (world->requests[i].state == STARTED &&
			           world->requests[i].start_us > world->requests[i].arrive_us + 50000);
		if (!grade_check(waited > 0, "nobody ever waited") || !nobody_was_forgotten(world) ||
		    !window_holds(world->starts, world->start_count, threshold, "some who waited went away"))
			return;
		end_world(world);
	}
}

/* ---- many threads ------------------------------------------------------------ */

struct crowd {
	struct limiter *limiter;
	atomic_ulong started;
};

/* The clock stands still: so it is a matter of counting how many may start. Most are not sent, or there would be
   nothing left to take before the threads have met often enough. */
static void enter_and_start(void *argument)
{
	struct crowd *crowd = argument;
	struct limiter_ticket ticket = { .owner = NULL };

	for (unsigned i = 0; i < 100; i++) {
		if (limiter_enter(crowd->limiter, &ticket, 0, SECOND_US) != LIMITER_GO)
			continue;
		if (i > 0) {
			limiter_cancel(crowd->limiter, &ticket, SECOND_US);
			continue;
		}
		limiter_started(crowd->limiter, &ticket, SECOND_US);
		atomic_fetch_add(&crowd->started, 1);
	}
}

static void four_threads_at_once_do_not_exceed_it(void)
{
	const unsigned threshold = LIMITER_THRESHOLD_MAX;
	struct crowd crowd = { .limiter = make_limiter(threshold, 0, count_wake) };
	unsigned long total;

	if (crowd.limiter == NULL || grade_crowd(4, enter_and_start, &crowd) == 0)
		return;
	while (atomic_load(&crowd.started) <= threshold && starts(crowd.limiter, SECOND_US))
		atomic_fetch_add(&crowd.started, 1);
	total = atomic_load(&crowd.started);
	grade_check(total == threshold,
	            "threshold %u, the clock stands still, four threads: %s%lu could start in all\n"
	            "slots were lost, or two threads took the same one: which lock did they hold?",
	            threshold, total > threshold ? "more than " : "",
	            total > threshold ? (unsigned long)threshold : total);
	limiter_destroy(crowd.limiter);
}

int main(int argc, char **argv)
{
	static const struct grade_test tests[] = {
		GRADE(2, a_threshold_of_nought_is_no_limit),
		GRADE(4, as_many_as_the_threshold_start_at_once_and_no_more),
		GRADE(8, no_second_has_more_starts_than_the_threshold),
		GRADE(6, what_counts_is_when_a_request_was_sent),
		GRADE(4, a_request_that_is_not_sent_gives_its_slot_back),
		GRADE(6, a_service_that_has_enough_to_do_runs_at_99_percent),
		GRADE(4, as_many_as_the_backlog_may_wait),
		GRADE(4, the_front_of_the_line_is_told_when_its_slot_comes),
		GRADE(6, nobody_overtakes),
		GRADE(6, who_sleeps_is_woken_when_its_turn_comes_sooner),
		GRADE(6, nobody_waits_for_ever),
		GRADE(4, four_threads_at_once_do_not_exceed_it),
	};

	return grade_main("04-exact-window", tests, sizeof(tests) / sizeof(tests[0]), argc, argv);
}
