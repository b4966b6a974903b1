/* scenes.c: a few threads at a gate, in an order that a seed decides, and what must be so in the end.
 *
 * Each scene is as small as it can be: two or three threads, one or two calls each. A race needs no crowd; it needs
 * the right order, and that is what the seeds are for. What a scene itself counts it counts between two points of the
 * scheduler, where nobody else runs.
 */
#include "labs/11-race/scenes.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "labs/11-race/gate.h"
#include "labs/schedule.h"

struct play {
	struct gate *gate, *other;
	unsigned limit, inside; /* as the scene counts them */
	unsigned sums[2];
	char wrong[200];
};

struct part {
	struct play *play;
	unsigned number;
};

static void go_wrong(struct play *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void go_wrong(struct play *p, const char *format, ...)
{
	va_list values;

	if (p->wrong[0] != '\0')
		return;
	va_start(values, format);
	vsnprintf(p->wrong, sizeof p->wrong, format, values);
	va_end(values);
}

static void *visit(void *argument)
{
	struct play *p = ((struct part *)argument)->play;

	if (!gate_enter(p->gate)) {
		schedule_note("is not let in");
		return NULL;
	}
	schedule_note("is inside (%u)", ++p->inside);
	if (p->inside > p->limit)
		go_wrong(p, "%u threads are inside, and the limit is %u", p->inside, p->limit);
	schedule_yield();
	p->inside--;
	gate_leave(p->gate);
	return NULL;
}

static void *sum_up(void *argument)
{
	struct part *part = argument;
	struct play *p = part->play;

	p->sums[part->number] =
		part->number == 0 ? gate_served_by_both(p->gate, p->other) : gate_served_by_both(p->other, p->gate);
	return NULL;
}

/* So many threads that do the same, to their end. */
static void play_threads(struct play *p, unsigned count, void *(*start)(void *))
{
	pthread_t threads[SCHEDULE_THREADS_MAX];
	struct part parts[SCHEDULE_THREADS_MAX];

	for (unsigned i = 0; i < count; i++) {
		parts[i] = (struct part){ p, i };
		pthread_create(&threads[i], NULL, start, &parts[i]);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void play_served(void *context)
{
	struct play *p = context;

	play_threads(p, 2, visit);
	unsigned served = gate_served(p->gate);
	if (served != 2)
		go_wrong(p, "two threads have left, and %u is counted as served", served);
}

static void play_crowd(void *context)
{
	play_threads(context, 3, visit);
}

static void play_closing(void *context)
{
	struct play *p = context;
	pthread_t threads[2];
	struct part part = { p, 0 };

	if (!gate_enter(p->gate)) {
		go_wrong(p, "an empty gate lets nobody in");
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, visit, &part);
	schedule_note("closes the gate");
	gate_close(p->gate);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	if (gate_enter(p->gate))
		go_wrong(p, "the gate is closed, and lets somebody in");
}

static void play_sums(void *context)
{
	struct play *p = context;

	play_threads(p, 2, sum_up);
	if (p->sums[0] != 0 || p->sums[1] != 0)
		go_wrong(p, "nobody has left either gate, and the sums are %u and %u", p->sums[0], p->sums[1]);
}

static const struct scene {
	const char *title, *deadlock;
	unsigned limit;
	void (*body)(void *);
} scenes[SCENES] = {
	{ "two threads enter and leave: both are counted", "", 2, play_served },
	{ "three threads at a gate for one: never two inside, and all come through", "", 1, play_crowd },
	{ "three threads at a gate for two", "", 2, play_crowd },
	{ "the gate is closed while two wait: both go away", "the gate is closed, and somebody waits at it for ever. ",
	  1, play_closing },
	{ "two threads look at both gates", "", 1, play_sums },
};

const char *scene_title(unsigned scene)
{
	return scenes[scene].title;
}

bool scene_play(unsigned scene, uint64_t seed, char text[SCENE_TEXT_MAX])
{
	const struct scene *of = &scenes[scene];
	struct play play = { .gate = gate_create(of->limit), .other = gate_create(of->limit), .limit = of->limit };
	struct schedule *s = play.gate != NULL && play.other != NULL ? schedule_run(seed, of->body, &play) : NULL;

	if (s == NULL) {
		snprintf(text, SCENE_TEXT_MAX, "out of memory");
		return false;
	}
	bool is_over = schedule_ended(s) == SCHEDULE_WELL;
	bool went_well = is_over && play.wrong[0] == '\0';
	snprintf(text, SCENE_TEXT_MAX, "%s%s%s%s%s", schedule_picture(s), play.wrong,
	         play.wrong[0] != '\0' && !is_over ? "\n" : "",
	         schedule_ended(s) == SCHEDULE_DEADLOCK ? of->deadlock : "", schedule_why(s));
	if (is_over) {
		gate_destroy(play.gate);
		gate_destroy(play.other);
	}
	schedule_free(s);
	return went_well;
}
