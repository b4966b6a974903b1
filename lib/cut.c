/* cut.c: see cut.h. shutdown() never blocks on a socket without SO_LINGER, so it may be called under the mutex. */
#include "cut.h"

#include <sys/socket.h>

LOCK_VERBS(cut, mutex, cut_mutex)

void cut_init(struct cut *cut)
{
	pthread_mutex_init(&cut->mutex, NULL);
	cut_lock(cut);
	for (int i = 0; i < CUT_PLACES; i++)
		cut->fds[i] = -1;
	cut->is_cut = false;
	cut_unlock(cut);
}

void cut_destroy(struct cut *cut)
{
	pthread_mutex_destroy(&cut->mutex);
}

void cut_attach(struct cut *cut, enum cut_place place, int fd)
{
	cut_lock(cut);
	cut->fds[place] = fd;
	if (cut->is_cut)
		shutdown(fd, SHUT_RDWR);
	cut_unlock(cut);
}

void cut_detach(struct cut *cut, enum cut_place place)
{
	cut_lock(cut);
	cut->fds[place] = -1;
	cut_unlock(cut);
}

void cut_now(struct cut *cut)
{
	cut_lock(cut);
	cut->is_cut = true;
	for (int i = 0; i < CUT_PLACES; i++)
		if (cut->fds[i] >= 0)
			shutdown(cut->fds[i], SHUT_RDWR);
	cut_unlock(cut);
}

bool cut_has_happened(struct cut *cut)
{
	cut_lock(cut);
	bool is_cut = cut->is_cut;
	cut_unlock(cut);
	return is_cut;
}

void cut_client_input(struct cut *cut)
{
	cut_lock(cut);
	if (cut->fds[CUT_CLIENT] >= 0)
		shutdown(cut->fds[CUT_CLIENT], SHUT_RD);
	cut_unlock(cut);
}
