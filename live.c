/* live.c: see live.h. */
#include "live.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "lib/thread.h"
#include "lib/ts.h"

#define FRAME_US (100 * US_PER_MS)
/* How often a reader that gets no frame looks whether its client is still there. */
#define LOOK_US (1 * US_PER_S)
#define READERS_MAX 32u

struct frame {
	unsigned holders; /* guarded by live_mutex; one of them is live itself, while it is the latest */
	uint64_t number;
	struct text text;
};

struct live {
	void (*make)(void *context, struct text *out);
	void *context;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* a new frame, a first reader, or the end */
	struct frame *latest GUARDED_BY(live_mutex);
	uint64_t made GUARDED_BY(live_mutex);
	unsigned readers GUARDED_BY(live_mutex);
	bool is_ending GUARDED_BY(live_mutex);
};

LOCK_VERBS(live, mutex, live_mutex)

static struct timespec moment(uint64_t us)
{
	return (struct timespec){ .tv_sec = (time_t)(us / US_PER_S), .tv_nsec = (long)(us % US_PER_S) * 1000 };
}

static void let_go(struct frame *frame) REQUIRES(live_mutex)
{
	if (frame == NULL || --frame->holders > 0)
		return;
	text_free(&frame->text);
	free(frame);
}

/* ---- the one who draws ------------------------------------------------------------------------------------------------ */

static struct frame *make_frame(struct live *live)
{
	struct frame *frame = calloc(1, sizeof *frame);
	if (frame == NULL)
		return NULL;
	frame->holders = 1;
	text_add_bytes(&frame->text, "data: ", 6);
	live->make(live->context, &frame->text);
	text_add_bytes(&frame->text, "\n\n", 2);
	if (!frame->text.has_failed)
		return frame;
	text_free(&frame->text);
	free(frame);
	return NULL;
}

/* Waits until somebody looks, and until the next frame is due. False: this is the end. */
static bool wait_for_readers(struct live *live, uint64_t due_us)
{
	struct timespec due = moment(due_us);
	int error = 0;
	live_lock(live);
	while (!live->is_ending && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&live->changed, &live->mutex, &due);
	while (!live->is_ending && live->readers == 0)
		pthread_cond_wait(&live->changed, &live->mutex);
	bool goes_on = !live->is_ending;
	live_unlock(live);
	return goes_on;
}

static void *draw(void *argument)
{
	struct live *live = argument;
	thread_name("weir:page");
	uint64_t due_us = clock_us();
	while (wait_for_readers(live, due_us)) {
		uint64_t now_us = clock_us();
		due_us = due_us + FRAME_US > now_us ? due_us + FRAME_US : now_us + FRAME_US; /* in step, or in step again */
		struct frame *frame = make_frame(live);
		if (frame == NULL)
			continue;
		live_lock(live);
		struct frame *before = live->latest;
		frame->number = ++live->made;
		live->latest = frame;
		let_go(before);
		pthread_cond_broadcast(&live->changed);
		live_unlock(live);
	}
	return NULL;
}

/* ---- those who look --------------------------------------------------------------------------------------------------- */

bool live_enter(struct live *live)
{
	live_lock(live);
	bool has_room = live->readers < READERS_MAX && !live->is_ending;
	if (has_room)
		live->readers++;
	pthread_cond_broadcast(&live->changed);
	live_unlock(live);
	return has_room;
}

void live_leave(struct live *live)
{
	live_lock(live);
	live->readers--;
	live_unlock(live);
}

/* Waits for a frame after that number, or a while. The frame, held; NULL: none came. */
static struct frame *next_frame(struct live *live, uint64_t after)
{
	struct timespec until = moment(clock_us() + LOOK_US);
	struct frame *frame = NULL;
	int error = 0;
	live_lock(live);
	while (live->made <= after && error != ETIMEDOUT && !live->is_ending)
		error = pthread_cond_timedwait(&live->changed, &live->mutex, &until);
	if (live->made > after && live->latest != NULL) {
		frame = live->latest;
		frame->holders++;
	}
	live_unlock(live);
	return frame;
}

void live_stream(struct live *live, struct admin_stream *stream)
{
	live_lock(live);
	uint64_t seen = live->made; /* what was drawn for those before us may be old */
	live_unlock(live);
	bool goes_on = true;
	while (goes_on) {
		struct frame *frame = next_frame(live, seen);
		if (frame == NULL) {
			goes_on = admin_stream_is_open(stream);
			continue;
		}
		seen = frame->number;
		goes_on = admin_stream_send(stream, frame->text.bytes, frame->text.length);
		live_lock(live);
		let_go(frame);
		live_unlock(live);
	}
	live_leave(live);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

struct live *live_create(void (*make)(void *context, struct text *out), void *context)
{
	struct live *live = calloc(1, sizeof *live);
	if (live == NULL)
		return NULL;
	live->make = make;
	live->context = context;
	pthread_mutex_init(&live->mutex, NULL);
	thread_condition_init(&live->changed);
	if (thread_start(&live->thread, draw, live) == 0)
		return live;
	pthread_cond_destroy(&live->changed);
	pthread_mutex_destroy(&live->mutex);
	free(live);
	return NULL;
}

void live_destroy(struct live *live)
{
	if (live == NULL)
		return;
	live_lock(live);
	live->is_ending = true;
	pthread_cond_broadcast(&live->changed);
	live_unlock(live);
	pthread_join(live->thread, NULL);
	live_lock(live);
	let_go(live->latest);
	live_unlock(live);
	pthread_cond_destroy(&live->changed);
	pthread_mutex_destroy(&live->mutex);
	free(live);
}
