/* splice.c: see splice.h. */
#include "splice.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* splice() knows no MSG_NOSIGNAL: a peer that has gone raises SIGPIPE. All threads of thread.h have it blocked; on
   another one, in whatever program, we would rather copy than end the process. */
static bool sigpipe_is_blocked(void)
{
	sigset_t blocked;
	return pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, SIGPIPE) == 1;
}

static bool enter_share(struct splice_share *share)
{
	if (share == NULL)
		return true;
	if (atomic_fetch_add_explicit(&share->in_use, 1, memory_order_relaxed) < SPLICE_PIPES_MAX)
		return true;
	atomic_fetch_sub_explicit(&share->in_use, 1, memory_order_relaxed);
	return false;
}

static void leave_share(struct splice_share *share)
{
	if (share != NULL)
		atomic_fetch_sub_explicit(&share->in_use, 1, memory_order_relaxed);
}

static void forbid_to_block(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void splice_let_block(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

bool splice_begin(struct splice *s, const struct conn *from, const struct conn *to, struct splice_share *share)
{
	int ends[2];
	if (from->tls != NULL || to->tls != NULL || !sigpipe_is_blocked() || !enter_share(share))
		return false;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
		leave_share(share);
		return false;
	}
	*s = (struct splice){ .is_open = true, .out = ends[0], .in = ends[1], .share = share };
	if (fcntl(s->in, F_SETPIPE_SZ, SPLICE_PIPE_BYTES) < 0) {
		splice_end(s);
		return false;
	}
	forbid_to_block(from->fd);
	forbid_to_block(to->fd);
	return true;
}

void splice_end(struct splice *s)
{
	if (!s->is_open)
		return;
	close(s->in);
	close(s->out);
	leave_share(s->share);
	*s = (struct splice){ .is_open = false };
}

enum conn_result splice_take(struct splice *s, const struct conn *from, size_t most)
{
	size_t length = most < SPLICE_PIPE_BYTES ? most : SPLICE_PIPE_BYTES;
	ssize_t count = splice(from->fd, NULL, s->in, NULL, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (count > 0)
		s->waiting_bytes = (size_t)count;
	if (count >= 0)
		return count > 0 ? CONN_OK : CONN_END;
	bool reading_may_help = errno == EAGAIN || errno == EINTR || errno == EINVAL || errno == ENOSYS || errno == ENOMEM;
	return reading_may_help ? CONN_WOULD_BLOCK : CONN_BROKEN;
}

enum conn_result splice_give(struct splice *s, struct conn *to, size_t *sent)
{
	*sent = 0;
	ssize_t count = splice(s->out, NULL, to->fd, NULL, s->waiting_bytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (count < 0)
		return errno == EAGAIN || errno == EINTR ? CONN_WOULD_BLOCK : CONN_BROKEN;
	*sent = (size_t)count;
	s->waiting_bytes -= *sent;
	to->moved_bytes += *sent;
	return CONN_OK;
}
