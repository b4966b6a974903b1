/* crew.c: see crew.h.
 *
 * Two races to know about.
 *
 * Drain against rest. A worker that goes idle just while the crew begins to drain must not be missed, or the drain would
 * last until that client speaks. Each side first writes its own flag, then reads the other's (sequentially consistent
 * atomics, Dekker's pattern): at least one of them sees the other. Either the worker sees "draining" and closes, or the
 * drain sees "resting" and shuts the connection's input.
 *
 * The last one waiting. waiting is counted down after accept() returned, and when a thread ends. Whoever takes it to zero starts
 * another thread, if there is a place for it; whoever gives a place back looks whether one is wanted. When the system refuses
 * (EAGAIN), every worker tries again after its connection, and at each rest: see keep_one_waiting().
 *
 * And one end that is later than it looks: see struct thread_end. A worker that ends gives its place in total back at once, for
 * somebody may be waiting for a place. It counts as living until the one that ended before it is gone altogether; so when nobody
 * lives one thread at most is left, and crew_wait() joins that one.
 */
#include "crew.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "thread.h"

/* More than this many idle threads are of no use: those over it end. */
#define WAITING_MAX 128
/* How long accept() is left alone when the process has run out of descriptors or memory. */
#define BACK_OFF_MS 50

struct worker {
	struct crew *crew;
	struct worker *next, *previous; /* guarded by the crew's mutex */
	struct cut cut;
	atomic_bool resting; /* nothing is in hand: it may be ended without anybody losing anything */
	atomic_bool serving;
};

struct crew {
	int listen_fd;
	struct crew_job job;
	atomic_uint waiting, total, limit; /* total: places taken */
	atomic_bool retired;  /* nobody accepts any more */
	atomic_bool draining; /* and connections end */
	atomic_ullong complained_us;
	pthread_mutex_t mutex;
	pthread_cond_t ended; /* signalled when nobody lives any more */
	struct worker *workers GUARDED_BY(crew_mutex);
	unsigned leaving GUARDED_BY(crew_mutex); /* workers counted in total that end because the limit was lowered */
	bool cut GUARDED_BY(crew_mutex);
	unsigned living GUARDED_BY(crew_mutex); /* threads whose end is not awaited yet */
	struct thread_end last_end GUARDED_BY(crew_mutex);
};

LOCK_VERBS(crew, mutex, crew_mutex)

static void complain(struct crew *crew, const char *what, int error)
{
	uint64_t now_us = clock_us();
	unsigned long long last_us = atomic_load(&crew->complained_us);
	if (last_us != 0 && now_us - last_us < US_PER_S)
		return;
	if (atomic_compare_exchange_strong(&crew->complained_us, &last_us, now_us))
		crew->job.complain(crew->job.context, what, error);
}

static void *work(void *argument);

/* Counts one more thread in, if the limit allows. */
static bool reserve_place(struct crew *crew)
{
	unsigned total = atomic_load(&crew->total);
	while (total < atomic_load(&crew->limit))
		if (atomic_compare_exchange_weak(&crew->total, &total, total + 1))
			return true;
	return false;
}

static void give_place_back(struct crew *crew, bool was_surplus)
{
	crew_lock(crew);
	if (was_surplus)
		crew->leaving--;
	atomic_fetch_sub(&crew->total, 1);
	crew_unlock(crew);
}

static void begin_life(struct crew *crew)
{
	crew_lock(crew);
	crew->living++;
	crew_unlock(crew);
}

static void end_life(struct crew *crew)
{
	crew_lock(crew);
	if (--crew->living == 0)
		pthread_cond_broadcast(&crew->ended);
	crew_unlock(crew);
}

/* Starts a thread when none waits in accept(). It counts as waiting from here on, so that one is started and not several. */
static void keep_one_waiting(struct crew *crew)
{
	for (unsigned none = 0;; none = 0) {
		if (atomic_load(&crew->waiting) != 0 || atomic_load(&crew->retired) || !reserve_place(crew))
			return;
		if (atomic_compare_exchange_strong(&crew->waiting, &none, 1))
			break;
		give_place_back(crew, false); /* and look once more: it may have been wanted meanwhile */
	}
	pthread_t thread;
	begin_life(crew);
	int error = thread_start(&thread, work, crew);
	if (error != 0) {
		end_life(crew);
		atomic_fetch_sub(&crew->waiting, 1);
		give_place_back(crew, false);
		complain(crew, "cannot start another thread", error);
	}
}

/* Waits in accept(). -1 when this thread is to end. */
static int next_connection(struct crew *crew, struct address *peer)
{
	while (!atomic_load(&crew->retired)) {
		peer->length = sizeof peer->storage;
		int fd = accept4(crew->listen_fd, &peer->any, &peer->length, SOCK_CLOEXEC);
		if (fd >= 0)
			return fd;
		int error = errno;
		if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
			complain(crew, "cannot accept a connection", error);
			poll(NULL, 0, BACK_OFF_MS);
		} else if (error == EINVAL || error == EBADF) {
			return -1; /* shut down */
		} /* else the client was gone before we came to it: the next, please */
	}
	return -1;
}

static void serve(struct worker *worker, void *state, int fd, struct address *peer)
{
	struct crew *crew = worker->crew;
	address_unmap(peer);
	cut_attach(&worker->cut, CUT_CLIENT, fd);
	atomic_store(&worker->serving, true);
	crew->job.serve(state, fd, peer);
	atomic_store(&worker->serving, false);
	atomic_store(&worker->resting, false);
}

static void join_crew(struct worker *worker)
{
	struct crew *crew = worker->crew;
	cut_init(&worker->cut);
	crew_lock(crew);
	worker->next = crew->workers;
	if (crew->workers != NULL)
		crew->workers->previous = worker;
	crew->workers = worker;
	bool cut = crew->cut;
	crew_unlock(crew);
	if (cut)
		cut_now(&worker->cut);
}

static struct thread_end leave_crew(struct worker *worker)
{
	struct crew *crew = worker->crew;
	crew_lock(crew);
	if (worker->next != NULL)
		worker->next->previous = worker->previous;
	if (worker->previous != NULL)
		worker->previous->next = worker->next;
	else
		crew->workers = worker->next;
	struct thread_end before = thread_note_end(&crew->last_end);
	crew_unlock(crew);
	cut_destroy(&worker->cut);
	return before;
}

/* Has the limit been lowered to below what we are? Then as many end as are over it, and not one more. */
static bool is_surplus(struct crew *crew)
{
	if (atomic_load(&crew->total) <= atomic_load(&crew->limit))
		return false;
	crew_lock(crew);
	bool surplus = atomic_load(&crew->total) - crew->leaving > atomic_load(&crew->limit);
	if (surplus)
		crew->leaving++;
	crew_unlock(crew);
	return surplus;
}

static void *begin(struct crew *crew, struct worker *worker)
{
	void *state;
	while ((state = crew->job.begin(crew->job.context, worker)) == NULL && !atomic_load(&crew->retired)) {
		complain(crew, "cannot begin another thread", ENOMEM);
		poll(NULL, 0, BACK_OFF_MS);
	}
	return state;
}

/* The life of one thread. */
static void *work(void *argument)
{
	struct crew *crew = argument;
	thread_name("weir:client");
	struct worker worker = { .crew = crew };
	join_crew(&worker);
	void *state = begin(crew, &worker);
	bool surplus = false;
	while (state != NULL && !surplus) {
		struct address peer;
		int fd = next_connection(crew, &peer);
		if (fd < 0)
			break;
		if (atomic_fetch_sub(&crew->waiting, 1) == 1)
			keep_one_waiting(crew);
		serve(&worker, state, fd, &peer);
		surplus = is_surplus(crew);
		if (atomic_fetch_add(&crew->waiting, 1) >= WAITING_MAX)
			break;
	}
	atomic_fetch_sub(&crew->waiting, 1);
	if (state != NULL)
		crew->job.end(state);
	struct thread_end before = leave_crew(&worker);
	give_place_back(crew, surplus);
	keep_one_waiting(crew);
	thread_join_end(before);
	end_life(crew);
	return NULL;
}

struct crew *crew_start(int listen_fd, unsigned max_workers, const struct crew_job *job)
{
	struct crew *crew = calloc(1, sizeof *crew);
	if (crew == NULL)
		return NULL;
	crew->listen_fd = listen_fd;
	crew->job = *job;
	atomic_store(&crew->limit, max_workers);
	pthread_mutex_init(&crew->mutex, NULL);
	thread_condition_init(&crew->ended);
	keep_one_waiting(crew);
	crew_lock(crew);
	bool has_begun = crew->living > 0 || crew->last_end.is_there;
	crew_unlock(crew);
	if (!has_begun) {
		crew_destroy(crew);
		return NULL;
	}
	return crew;
}

void crew_set_limit(struct crew *crew, unsigned max_workers)
{
	atomic_store(&crew->limit, max_workers);
	keep_one_waiting(crew);
}

void crew_retire(struct crew *crew)
{
	atomic_store(&crew->retired, true);
	shutdown(crew->listen_fd, SHUT_RD); /* wakes every accept() */
}

void crew_drain(struct crew *crew)
{
	crew_retire(crew);
	atomic_store(&crew->draining, true);
	crew_lock(crew);
	for (struct worker *worker = crew->workers; worker != NULL; worker = worker->next)
		if (atomic_load(&worker->resting))
			cut_client_input(&worker->cut);
	crew_unlock(crew);
}

bool crew_wait(struct crew *crew, uint64_t deadline_us)
{
	struct timespec deadline = { .tv_sec = (time_t)(deadline_us / US_PER_S),
	                             .tv_nsec = (long)(deadline_us % US_PER_S) * 1000 };
	int error = 0;
	crew_lock(crew);
	while (crew->living > 0 && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&crew->ended, &crew->mutex, &deadline);
	bool all_ended = crew->living == 0;
	struct thread_end last = { .is_there = false };
	if (all_ended) {
		last = crew->last_end;
		crew->last_end.is_there = false;
	}
	crew_unlock(crew);
	thread_join_end(last);
	return all_ended;
}

bool crew_has_ended(struct crew *crew)
{
	crew_lock(crew);
	bool has_ended = crew->living == 0;
	crew_unlock(crew);
	return has_ended;
}

unsigned crew_cut(struct crew *crew)
{
	unsigned in_the_middle = 0;
	crew_lock(crew);
	crew->cut = true;
	for (struct worker *worker = crew->workers; worker != NULL; worker = worker->next) {
		in_the_middle += atomic_load(&worker->serving) && !atomic_load(&worker->resting);
		cut_now(&worker->cut);
	}
	crew_unlock(crew);
	return in_the_middle;
}

void crew_destroy(struct crew *crew)
{
	pthread_cond_destroy(&crew->ended);
	pthread_mutex_destroy(&crew->mutex);
	free(crew);
}

unsigned crew_active(struct crew *crew)
{
	unsigned total = atomic_load(&crew->total), waiting = atomic_load(&crew->waiting);
	return total > waiting ? total - waiting : 0;
}

struct cut *worker_cut(struct worker *worker)
{
	return &worker->cut;
}

bool worker_rest(struct worker *worker)
{
	keep_one_waiting(worker->crew);
	atomic_store(&worker->resting, true);
	return !atomic_load(&worker->crew->draining);
}

void worker_resume(struct worker *worker)
{
	atomic_store(&worker->resting, false);
}

bool worker_is_draining(const struct worker *worker)
{
	return atomic_load(&worker->crew->draining);
}
