/* schedule.c: runs threads one at a time: see schedule.h.
 *
 * The idea: each thread is a real one, with a semaphore that it sleeps on, and all but one sleep. Whoever runs comes
 * to a point (point()), draws from the seed whether somebody else goes on, posts that one's semaphore and sleeps on
 * its own.
 *
 *      A: ... point ──► draws B ──► post(B) ──► wait(A) ................... goes on
 *      B:  (asleep) ................................. goes on ... point ──► draws A ──► post(A) ──► wait(B)
 *
 * The mutexes and conditions themselves are never touched: who has which mutex, and who waits for what, is written
 * here. So "nobody can go on" is a look at a table, and not a guess.
 *
 * The invariant: between two points one thread runs, and it alone reads and writes struct schedule; the semaphores
 * make what it did visible to the next one. What a thread may do next depends on the seed and on what the threads
 * did, and on nothing else.
 *
 * A run that cannot go on is ended from here: every thread that sleeps is woken once more, and ends itself (is_over).
 */
#define SCHEDULE_ITSELF
#include "labs/schedule.h"

#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 2000u
#define STEPS_SHOWN 90u
#define MUTEXES_MAX 32u
#define TEXT_MAX 64u
#define COLUMN 26
#define PICTURE_MAX (STEPS_SHOWN * (10u + COLUMN * SCHEDULE_THREADS_MAX + TEXT_MAX) + 4096u)

enum state { READY, LOCKING, WAITING, JOINING, DONE };

struct thread {
	struct schedule *schedule;
	unsigned index;
	char name[8];
	enum state state;
	const void *object; /* LOCKING: the mutex; WAITING: the condition */
	const void *mutex;  /* WAITING: to be locked again */
	char object_name[TEXT_MAX];
	unsigned joined; /* JOINING: whom */
	void *(*start)(void *);
	void *argument, *result;
	sem_t turn;
	pthread_t real;
};

struct step {
	unsigned thread;
	unsigned mutex; /* its number; 0: none */
	char text[TEXT_MAX];
};

struct schedule {
	uint64_t random;
	unsigned switches; /* that are left */
	struct thread threads[SCHEDULE_THREADS_MAX];
	unsigned count;
	struct {
		const void *mutex; /* NULL: a free place */
		unsigned owner;
	} owners[MUTEXES_MAX];
	const void *known[MUTEXES_MAX]; /* mutexes, by number less one: two may have one name in the code */
	unsigned known_count;
	struct step steps[STEPS_MAX];
	unsigned step_count;
	sem_t finished;
	bool is_over;
	enum schedule_end end;
	char why[400];
	char picture[PICTURE_MAX];
	void (*body)(void *);
	void *context;
};

/* Which of them a real thread is. NULL: none, and then the calls do nothing, as there is nobody to be kept out. */
static _Thread_local struct thread *self;

static unsigned draw(struct schedule *s, unsigned limit)
{
	uint64_t z = s->random += 0x9e3779b97f4a7c15u; /* splitmix64, as in tests/sim/queue.c */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (unsigned)((z ^ (z >> 31)) % limit);
}

/* "&g->mutex" is g's mutex as the code calls it. */
static const char *plain(const char *name)
{
	return name[0] == '&' ? name + 1 : name;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void end_run(struct schedule *s, enum schedule_end end);

static void note(struct thread *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(struct thread *t, const char *format, ...)
{
	struct schedule *s = t->schedule;
	va_list values;

	if (s->step_count == STEPS_MAX) {
		snprintf(s->why, sizeof s->why, "%u steps, and no end", STEPS_MAX);
		end_run(s, SCHEDULE_ENDLESS);
	}
	s->steps[s->step_count].thread = t->index;
	s->steps[s->step_count].mutex = 0;
	va_start(values, format);
	vsnprintf(s->steps[s->step_count].text, TEXT_MAX, format, values);
	va_end(values);
	s->step_count++;
}

/* Numbers are given as mutexes are met. */
static unsigned number_of(struct schedule *s, const void *mutex)
{
	for (unsigned i = 0; i < s->known_count; i++)
		if (s->known[i] == mutex)
			return i + 1;
	if (s->known_count == MUTEXES_MAX)
		return 0;
	s->known[s->known_count++] = mutex;
	return s->known_count;
}

/* " (#2)", where there is more than one, and "" where one is enough to know which is meant. */
static const char *written(const struct schedule *s, unsigned number, char out[24])
{
	out[0] = '\0';
	if (number > 0 && s->known_count > 1)
		snprintf(out, 24, " (#%u)", number);
	return out;
}

/* The last step was about this mutex. */
static void about(struct thread *t, const void *mutex)
{
	t->schedule->steps[t->schedule->step_count - 1].mutex = number_of(t->schedule, mutex);
}

void schedule_note(const char *format, ...)
{
	char text[TEXT_MAX];
	va_list values;

	if (self == NULL)
		return;
	va_start(values, format);
	vsnprintf(text, sizeof text, format, values);
	va_end(values);
	note(self, "%s", text);
}

/* ---- who goes on ------------------------------------------------------------------------------------------------- */

/* The place of a mutex that somebody has; or a free one. */
static unsigned *owner_of(struct schedule *s, const void *mutex)
{
	for (unsigned i = 0; i < MUTEXES_MAX; i++)
		if (s->owners[i].mutex == mutex)
			return &s->owners[i].owner;
	return NULL;
}

static bool can_go_on(struct schedule *s, const struct thread *t)
{
	switch (t->state) {
	case READY:
		return true;
	case LOCKING:
		return owner_of(s, t->object) == NULL;
	case JOINING:
		return s->threads[t->joined].state == DONE;
	default:
		return false;
	}
}

static void describe_wait(struct schedule *s, const struct thread *t)
{
	size_t at = strlen(s->why);
	const unsigned *owner = owner_of(s, t->object);
	char number[24];

	if (t->state == LOCKING)
		snprintf(s->why + at, sizeof s->why - at, "; %s waits for %s%s, which %s has", t->name, t->object_name,
		         written(s, number_of(s, t->object), number), owner != NULL ? s->threads[*owner].name : "nobody");
	else if (t->state == WAITING)
		snprintf(s->why + at, sizeof s->why - at, "; %s sleeps on %s until it is signalled", t->name,
		         t->object_name);
	else if (t->state == JOINING)
		snprintf(s->why + at, sizeof s->why - at, "; %s waits for the end of %s", t->name,
		         s->threads[t->joined].name);
}

/* Ends the calling thread, and lets the others find out that it is over. */
static void end_run(struct schedule *s, enum schedule_end end)
{
	s->is_over = true;
	s->end = end;
	sem_post(&s->finished);
	pthread_exit(NULL);
}

/* The caller stops (it is DONE, or waits for its next turn), and one of those goes on that can. */
static void pass_on(struct thread *t, bool not_self)
{
	struct schedule *s = t->schedule;
	struct thread *able[SCHEDULE_THREADS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < s->count; i++)
		if (can_go_on(s, &s->threads[i]) && !(not_self && &s->threads[i] == t))
			able[count++] = &s->threads[i];
	if (count == 0) {
		snprintf(s->why, sizeof s->why, "deadlock: nobody can go on");
		for (unsigned i = 0; i < s->count; i++)
			describe_wait(s, &s->threads[i]);
		end_run(s, SCHEDULE_DEADLOCK);
	}
	struct thread *next = able[draw(s, count)];
	if (next == t)
		return;
	bool is_done = t->state == DONE;
	sem_post(&next->turn); /* from here on all belongs to next, until it is our turn again */
	if (is_done)
		return;
	while (sem_wait(&t->turn) != 0)
		;
	if (s->is_over)
		pthread_exit(NULL);
}

/* Here somebody else may go on, if the seed has a switch left to spend. */
static void point(struct thread *t)
{
	struct schedule *s = t->schedule;
	bool anybody = false;

	for (unsigned i = 0; i < s->count; i++)
		anybody = anybody || (i != t->index && can_go_on(s, &s->threads[i]));
	if (!anybody || s->switches == 0 || draw(s, 4) != 0)
		return;
	s->switches--;
	pass_on(t, true);
}

void schedule_yield(void)
{
	if (self != NULL)
		point(self);
}

/* ---- variables --------------------------------------------------------------------------------------------------- */

unsigned schedule_read(const unsigned *variable, const char *name)
{
	if (self == NULL)
		return *variable;
	point(self);
	note(self, "reads %s: %u", name, *variable);
	return *variable;
}

void schedule_write(unsigned *variable, unsigned value, const char *name)
{
	if (self != NULL) {
		point(self);
		note(self, "writes %s: %u", name, value);
	}
	*variable = value;
}

/* ---- mutexes ----------------------------------------------------------------------------------------------------- */

static void misuse(struct thread *t, const char *what, const char *name)
{
	struct schedule *s = t->schedule;

	note(t, "%s %s", what, plain(name));
	snprintf(s->why, sizeof s->why, "%s %s %s", t->name, what, plain(name));
	end_run(s, SCHEDULE_MISUSE);
}

static void own(struct thread *t, const void *mutex)
{
	struct schedule *s = t->schedule;

	for (unsigned i = 0; i < MUTEXES_MAX; i++)
		if (s->owners[i].mutex == NULL) {
			s->owners[i].mutex = mutex;
			s->owners[i].owner = t->index;
			return;
		}
	misuse(t, "locks more mutexes than can be followed:", "");
}

static void disown(struct thread *t, const void *mutex, const char *name)
{
	struct schedule *s = t->schedule;

	for (unsigned i = 0; i < MUTEXES_MAX; i++)
		if (s->owners[i].mutex == mutex && s->owners[i].owner == t->index) {
			s->owners[i].mutex = NULL;
			return;
		}
	misuse(t, "gives back what it has not:", name);
}

/* Until the mutex is free, and this thread's turn. */
static void take(struct thread *t, const void *mutex, const char *name)
{
	t->state = LOCKING;
	t->object = mutex;
	snprintf(t->object_name, sizeof t->object_name, "%s", plain(name));
	pass_on(t, false);
	t->state = READY;
	own(t, mutex);
}

int schedule_lock(pthread_mutex_t *mutex, const char *name)
{
	struct thread *t = self;

	if (t == NULL)
		return 0;
	point(t);
	const unsigned *owner = owner_of(t->schedule, mutex);
	if (owner != NULL && *owner == t->index)
		misuse(t, "waits for itself: it has already", name);
	if (owner != NULL) {
		note(t, "wants %s: %s has it", plain(name), t->schedule->threads[*owner].name);
		about(t, mutex);
		take(t, mutex, name);
	} else {
		own(t, mutex);
	}
	note(t, "locks %s", plain(name));
	about(t, mutex);
	return 0;
}

int schedule_unlock(pthread_mutex_t *mutex, const char *name)
{
	struct thread *t = self;

	if (t == NULL)
		return 0;
	disown(t, mutex, name);
	note(t, "unlocks %s", plain(name));
	about(t, mutex);
	point(t);
	return 0;
}

/* ---- conditions -------------------------------------------------------------------------------------------------- */

int schedule_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, const char *name, const char *mutex_name)
{
	struct thread *t = self;

	if (t == NULL)
		return 0;
	point(t);
	disown(t, mutex, mutex_name);
	note(t, "sleeps on %s, unlocks %s", plain(name), plain(mutex_name));
	t->state = WAITING;
	t->object = condition;
	t->mutex = mutex;
	snprintf(t->object_name, sizeof t->object_name, "%s", plain(name));
	pass_on(t, false); /* goes on when it was woken, which made it LOCKING, and the mutex is free */
	t->state = READY;
	own(t, mutex);
	note(t, "wakes, locks %s", plain(mutex_name));
	return 0;
}

int schedule_wake(pthread_cond_t *condition, bool all, const char *name)
{
	struct thread *t = self, *sleeping[SCHEDULE_THREADS_MAX];
	unsigned count = 0;

	if (t == NULL)
		return 0;
	point(t);
	for (unsigned i = 0; i < t->schedule->count; i++)
		if (t->schedule->threads[i].state == WAITING && t->schedule->threads[i].object == condition)
			sleeping[count++] = &t->schedule->threads[i];
	if (count == 0)
		note(t, "%s %s: nobody sleeps", all ? "wakes all of" : "signals", plain(name));
	unsigned first = count > 0 && !all ? draw(t->schedule, count) : 0, last = count;
	if (count > 0 && !all)
		last = first + 1;
	for (unsigned i = first; i < last; i++) {
		note(t, "signals %s: %s is woken", plain(name), sleeping[i]->name);
		sleeping[i]->state = LOCKING;
		sleeping[i]->object = sleeping[i]->mutex;
		snprintf(sleeping[i]->object_name, sizeof sleeping[i]->object_name, "its mutex");
	}
	return 0;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void *run_thread(void *argument)
{
	struct thread *t = argument;
	struct schedule *s = t->schedule;

	self = t;
	while (sem_wait(&t->turn) != 0)
		;
	if (s->is_over)
		return NULL;
	t->result = t->start(t->argument);
	t->state = DONE;
	note(t, "ends");
	for (unsigned i = 0; i < s->count; i++)
		if (s->threads[i].state != DONE) {
			pass_on(t, false);
			return NULL;
		}
	s->is_over = true;
	sem_post(&s->finished);
	return NULL;
}

/* NULL: no more of them. */
static struct thread *make_thread(struct schedule *s, void *(*start)(void *), void *argument)
{
	if (s->count == SCHEDULE_THREADS_MAX)
		return NULL;
	struct thread *t = &s->threads[s->count];
	*t = (struct thread){ .schedule = s, .index = s->count, .start = start, .argument = argument };
	if (t->index == 0)
		snprintf(t->name, sizeof t->name, "main");
	else
		t->name[0] = (char)('A' + (t->index - 1) % 26);
	sem_init(&t->turn, 0, 0);
	if (pthread_create(&t->real, NULL, run_thread, t) != 0) {
		sem_destroy(&t->turn);
		return NULL;
	}
	s->count++;
	return t;
}

int schedule_create(pthread_t *thread, void *(*start)(void *), void *argument)
{
	struct thread *t = self;
	struct thread *made = t != NULL ? make_thread(t->schedule, start, argument) : NULL;

	if (made == NULL)
		return -1;
	*thread = made->real;
	note(t, "creates %s", made->name);
	point(t);
	return 0;
}

int schedule_join(pthread_t thread, void **result)
{
	struct thread *t = self;
	unsigned which = 0;

	while (t != NULL && which < t->schedule->count && !pthread_equal(t->schedule->threads[which].real, thread))
		which++;
	if (t == NULL || which == t->schedule->count)
		return -1;
	t->joined = which;
	if (t->schedule->threads[which].state != DONE) {
		t->state = JOINING;
		pass_on(t, false);
		t->state = READY;
	}
	note(t, "joins %s", t->schedule->threads[which].name);
	if (result != NULL)
		*result = t->schedule->threads[which].result;
	return 0;
}

/* ---- the run, and its picture ------------------------------------------------------------------------------------ */

static void *run_body(void *argument)
{
	struct schedule *s = argument;

	s->body(s->context);
	return NULL;
}

static size_t add(struct schedule *s, size_t at, const char *format, ...) __attribute__((format(printf, 3, 4)));
static size_t add(struct schedule *s, size_t at, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	int length = vsnprintf(s->picture + at, PICTURE_MAX - at, format, values);
	va_end(values);
	return length < 0 || (size_t)length >= PICTURE_MAX - at ? PICTURE_MAX - 1 : at + (size_t)length;
}

static void draw_picture(struct schedule *s)
{
	unsigned first = s->step_count > STEPS_SHOWN ? s->step_count - STEPS_SHOWN : 0;
	size_t at = add(s, 0, "step");

	for (unsigned i = 0; i < s->count; i++)
		at = add(s, at, i + 1 < s->count ? "  %-*s" : "  %.*s", i + 1 < s->count ? COLUMN : 7,
		         s->threads[i].name);
	at = add(s, at, "\n");
	if (first > 0)
		at = add(s, at, "     (%u steps before that)\n", first);
	for (unsigned i = first; i < s->step_count; i++) {
		char number[24];

		at = add(s, at, "%4u  %*s%s%s\n", i + 1, (int)s->steps[i].thread * (COLUMN + 2), "", s->steps[i].text,
		         written(s, s->steps[i].mutex, number));
	}
}

struct schedule *schedule_run(uint64_t seed, void (*body)(void *context), void *context)
{
	static const unsigned switches[] = { 2, 4, 12 };
	struct schedule *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->random = seed;
	s->switches = switches[draw(s, 3)];
	s->body = body;
	s->context = context;
	sem_init(&s->finished, 0, 0);
	if (make_thread(s, run_body, s) == NULL) {
		schedule_free(s);
		return NULL;
	}
	sem_post(&s->threads[0].turn);
	while (sem_wait(&s->finished) != 0)
		;
	for (unsigned i = 0; i < s->count; i++)
		sem_post(&s->threads[i].turn); /* whoever sleeps finds out that it is over */
	for (unsigned i = 0; i < s->count; i++) {
		pthread_join(s->threads[i].real, NULL);
		sem_destroy(&s->threads[i].turn);
	}
	draw_picture(s);
	return s;
}

void schedule_free(struct schedule *s)
{
	if (s == NULL)
		return;
	sem_destroy(&s->finished);
	free(s);
}

enum schedule_end schedule_ended(const struct schedule *s)
{
	return s->end;
}

const char *schedule_why(const struct schedule *s)
{
	return s->why;
}

const char *schedule_picture(const struct schedule *s)
{
	return s->picture;
}
