/* cut.h: how one thread ends another's blocking call.
 *
 * A thread that blocks in recv() can't look at a flag. But a socket can be shut down by anybody: the blocked call then
 * returns as if the peer had hung up. The danger is in the numbers: a descriptor that its owner closes is at once reused by
 * the system for something else, and a late shutdown() would hit a stranger. So the owner says which sockets it holds, and takes
 * each back before it closes it; both sides do so under one mutex.
 *
 *      owner:   cut_attach(fd) … blocking calls … cut_detach() … close(fd)
 *      other:                   cut_now() ──► the owner's calls return
 */
#ifndef WEIR_CUT_H
#define WEIR_CUT_H

#include <pthread.h>
#include <stdbool.h>

#include "ts.h"

enum cut_place { CUT_CLIENT, CUT_UPSTREAM, CUT_PLACES };

struct cut {
	pthread_mutex_t mutex;
	int fds[CUT_PLACES] GUARDED_BY(cut_mutex);
	bool is_cut GUARDED_BY(cut_mutex);
};

void cut_init(struct cut *cut);
void cut_destroy(struct cut *cut);

/* The owner: fd may be shut down from now on, until it is detached. After cut_now() that happens at once. */
void cut_attach(struct cut *cut, enum cut_place place, int fd);
void cut_detach(struct cut *cut, enum cut_place place);

/* Another thread: shuts down everything attached, and everything that will be. */
void cut_now(struct cut *cut);
/* Has cut_now() been called? What then looks like the end of a stream is none. Any thread. */
bool cut_has_happened(struct cut *cut);
/* Another thread: the client's side is told that nothing more will be read; what the owner is writing still goes out. */
void cut_client_input(struct cut *cut);

#endif
