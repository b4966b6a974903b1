/* crew.h: the threads that serve connections, each in accept() itself (leader/followers).
 *
 *             ┌────────────────────────────────────────────────┐
 *             ▼                                                │
 *      wait in accept() ──► a connection ──► serve it to its end, close it
 *             │ was I the last one waiting? then one more thread is started first
 *             │ are too many waiting? then I end
 *
 * Nothing is handed over: the thread that the kernel wakes in accept() is the thread that serves. No queue, no lock, no
 * second wake-up for a connection. Measured on a bare relay with a new connection for each request, this costs a third of the CPU
 * time of starting a thread for each connection, and half of that of a queue to idle threads.
 *
 * Invariant: unless the limit is reached or the system has no room for a thread, at least one thread waits in accept(). The
 * limit on clients is the limit on threads: when all are busy nobody accepts, and further clients wait in the kernel's queue.
 *
 * Source: Schmidt et al., "Leader/Followers" (POSA2); the pre-threaded server of Stevens, UNIX Network Programming vol. 1 §30.
 */
#ifndef WEIR_CREW_H
#define WEIR_CREW_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "cut.h"

struct crew;
struct worker;

struct crew_job {
	void *context;
	/* A thread begins, and ends: the memory it keeps from connection to connection. begin returns NULL when out of memory. */
	void *(*begin)(void *context, struct worker *worker);
	void (*end)(void *state);
	/* Serves one connection and closes it. Detach it from worker_cut() before closing. */
	void (*serve)(void *state, int fd, const struct address *peer);
	/* Something went wrong that is not a client's fault (no descriptors, no threads); called at most once a second. */
	void (*complain)(void *context, const char *what, int error);
};

/* Starts serving what connects to listen_fd, with at most max_workers threads. NULL when out of memory or threads. */
struct crew *crew_start(int listen_fd, unsigned max_workers, const struct crew_job *job);

/* A new limit. Threads over it end when their connection does. */
void crew_set_limit(struct crew *crew, unsigned max_workers);

/* Nobody accepts any more; connections that are there go on to their natural end. The listener must be shut down (listener_retire()). */
void crew_retire(struct crew *crew);
/* Nobody accepts any more; connections that are idle are closed; workers see worker_is_draining() and close theirs after the
   request in hand. Does not wait. */
void crew_drain(struct crew *crew);
/* Waits for all workers to end: true when their threads are gone, or false at the deadline. */
bool crew_wait(struct crew *crew, uint64_t deadline_us);
/* Has every worker ended? Then crew_wait() has the last moment of one thread to wait for, at most. Does not wait. */
bool crew_has_ended(struct crew *crew);
/* Cuts every connection, of clients and of targets. Returns how many of the clients' had something in hand. */
unsigned crew_cut(struct crew *crew);
/* After crew_wait() returned true. listen_fd stays the caller's. */
void crew_destroy(struct crew *crew);

/* Connections being served now. */
unsigned crew_active(struct crew *crew);

/* For the worker itself. */
struct cut *worker_cut(struct worker *worker);
/* Between two requests the worker is idle: a drain may close its connection. Returns false when the crew drains: close it. */
bool worker_rest(struct worker *worker);
/* Something has come. Not after a rest in which nothing did: that connection has nothing in hand until its end. */
void worker_resume(struct worker *worker);
bool worker_is_draining(const struct worker *worker);

#endif
