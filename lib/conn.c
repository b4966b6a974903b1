/* conn.c: see conn.h.
 *
 * Why blocking sockets with SO_RCVTIMEO and not poll() before each read: it is one system call a read instead of two. The
 * option is set again only when the deadline asks for another value, which on a keep-alive connection is almost never.
 * The kernel measures in ticks and may wake a little early or late: an early wake-up with time left simply waits again.
 *
 * MSG_NOSIGNAL: writing to a connection that the peer has closed raises SIGPIPE, which kills the process by default. A
 * library may not change the process's signals, so each send says that it wants the error number instead.
 *
 * A TLS connection takes a side road at the top of each function. A plain one pays a look at one pointer for it.
 */
#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "socket.h"

void conn_init(struct conn *conn, int fd, char *buffer, size_t capacity)
{
	memset(conn, 0, sizeof *conn);
	conn->fd = fd;
	conn->buffer = buffer;
	conn->capacity = capacity;
}

void conn_keep(struct conn *conn, size_t length)
{
	conn->start += length;
	conn->kept = conn->start;
}

void conn_forget(struct conn *conn)
{
	conn->kept = 0;
	if (conn->start == conn->end)
		conn->start = conn->end = 0;
}

void conn_move(struct conn *to, struct conn *from)
{
	char *buffer = to->buffer;
	size_t capacity = to->capacity, waiting = conn_available(from);
	memcpy(buffer, conn_bytes(from), waiting);
	*to = *from;
	to->buffer = buffer;
	to->capacity = capacity;
	to->kept = to->start = 0;
	to->end = waiting;
	conn_init(from, -1, from->buffer, from->capacity);
}

void conn_make_room(struct conn *conn, size_t head_length)
{
	if (conn->start == 0 || conn->capacity - conn->start - head_length >= CONN_BODY_ROOM)
		return;
	memmove(conn->buffer, conn->buffer + conn->start, conn->end - conn->start);
	conn->end -= conn->start;
	conn->start = 0;
}

/* Makes room at the end by moving the waiting bytes forward, to behind what is kept. */
static bool make_room(struct conn *conn)
{
	if (conn->start == conn->end)
		conn->start = conn->end = conn->kept;
	if (conn->end < conn->capacity)
		return true;
	if (conn->start == conn->kept)
		return false;
	memmove(conn->buffer + conn->kept, conn->buffer + conn->start, conn->end - conn->start);
	conn->end = conn->kept + (conn->end - conn->start);
	conn->start = conn->kept;
	return true;
}

static enum conn_result from_errno(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK ? CONN_WOULD_BLOCK : CONN_BROKEN;
}

static enum conn_result from_tls(enum tls_result result, enum conn_result later)
{
	switch (result) {
	case TLS_OK:
		return CONN_OK;
	case TLS_END:
		return CONN_END;
	case TLS_LATER:
		return later;
	default:
		return CONN_BROKEN;
	}
}

static enum conn_result fill_from_tls(struct conn *conn, uint64_t deadline_us, enum conn_result later)
{
	size_t count;
	enum tls_result result = tls_read(conn->tls, conn->buffer + conn->end, conn->capacity - conn->end, deadline_us, &count);
	conn->end += count;
	return from_tls(result, later);
}

/* One call. CONN_WOULD_BLOCK: nothing came that long, or it was interrupted (errno says which). */
static enum conn_result receive(struct conn *conn, uint64_t left_us)
{
	socket_may_block(conn->fd, SO_RCVTIMEO, &conn->receive_timeout_us, left_us);
	ssize_t count = recv(conn->fd, conn->buffer + conn->end, conn->capacity - conn->end, 0);
	if (count < 0)
		return errno == EINTR ? CONN_WOULD_BLOCK : from_errno(errno);
	conn->end += (size_t)count;
	return count > 0 ? CONN_OK : CONN_END;
}

enum conn_result conn_fill(struct conn *conn, uint64_t deadline_us)
{
	if (!make_room(conn))
		return CONN_FULL;
	enum conn_result result = CONN_WOULD_BLOCK;
	while (result == CONN_WOULD_BLOCK) {
		uint64_t left_us = clock_left_us(deadline_us);
		if (left_us == 0)
			return CONN_TIMEOUT;
		if (conn->tls != NULL)
			return fill_from_tls(conn, deadline_us, CONN_TIMEOUT);
		result = receive(conn, left_us);
	}
	return result;
}

enum conn_result conn_fill_within(struct conn *conn, uint64_t patience_us)
{
	if (conn->tls != NULL)
		return conn_fill(conn, clock_us() + patience_us);
	if (!make_room(conn))
		return CONN_FULL;
	enum conn_result result;
	do
		result = receive(conn, patience_us);
	while (result == CONN_WOULD_BLOCK && errno == EINTR); /* all patience anew: nobody is interrupted often */
	return result == CONN_WOULD_BLOCK ? CONN_TIMEOUT : result;
}

enum conn_result conn_try_fill(struct conn *conn)
{
	if (!make_room(conn))
		return CONN_FULL;
	if (conn->tls != NULL)
		return fill_from_tls(conn, TLS_NOW, CONN_WOULD_BLOCK);
	for (;;) {
		ssize_t count = recv(conn->fd, conn->buffer + conn->end, conn->capacity - conn->end, MSG_DONTWAIT);
		if (count > 0) {
			conn->end += (size_t)count;
			return CONN_OK;
		}
		if (count == 0)
			return CONN_END;
		if (errno != EINTR)
			return from_errno(errno);
	}
}

/* Moves parts on past count bytes that were sent. What is sent is emptied: a caller who still has the whole list can go
   on with it. */
static void move_on(struct iovec **parts, int *part_count, size_t count)
{
	while (*part_count > 0 && count >= (*parts)->iov_len) {
		count -= (*parts)->iov_len;
		(*parts)->iov_len = 0;
		++*parts;
		--*part_count;
	}
	if (count > 0) {
		(*parts)->iov_base = (char *)(*parts)->iov_base + count;
		(*parts)->iov_len -= count;
	}
}

static void count_sent(struct conn *conn, struct iovec **parts, int *count, size_t length, size_t *sent)
{
	if (sent != NULL)
		*sent += length;
	move_on(parts, count, length);
	if (conn->tls == NULL)
		conn->moved_bytes += length;
}

/* One call's worth. deadline_us TLS_NOW: what can be sent now. */
static enum conn_result send_some(struct conn *conn, struct iovec **parts, int *count, uint64_t deadline_us, size_t *sent)
{
	move_on(parts, count, 0);
	if (*count == 0)
		return CONN_OK;
	if (conn->tls != NULL) {
		size_t taken;
		enum tls_result result = tls_write(conn->tls, *parts, *count, deadline_us, &taken);
		conn->moved_bytes = tls_sent_bytes(conn->tls);
		count_sent(conn, parts, count, taken, sent);
		return from_tls(result, CONN_WOULD_BLOCK);
	}
	struct msghdr message = { .msg_iov = *parts, .msg_iovlen = (size_t)*count };
	int flags = MSG_NOSIGNAL | (deadline_us == TLS_NOW ? MSG_DONTWAIT : 0);
	/* One part alone, as most requests are, spares the kernel the reading of two more structures. */
	ssize_t length = *count == 1 ? send(conn->fd, (*parts)->iov_base, (*parts)->iov_len, flags) :
	                               sendmsg(conn->fd, &message, flags);
	if (length < 0)
		return errno == EINTR ? CONN_OK : from_errno(errno);
	count_sent(conn, parts, count, (size_t)length, sent);
	return CONN_OK;
}

enum conn_result conn_send(struct conn *conn, struct iovec *parts, int count, uint64_t deadline_us, size_t *sent)
{
	if (sent != NULL)
		*sent = 0;
	/* Most of what is sent finds room at once. Only a connection on which something had to wait has its SO_SNDTIMEO set. */
	bool may_wait = conn->tls != NULL || conn->send_timeout_us != 0;
	for (move_on(&parts, &count, 0); count > 0;) {
		uint64_t left_us = clock_left_us(deadline_us);
		if (left_us == 0)
			return CONN_TIMEOUT;
		if (may_wait && conn->tls == NULL)
			socket_may_block(conn->fd, SO_SNDTIMEO, &conn->send_timeout_us, left_us);
		enum conn_result result = send_some(conn, &parts, &count, may_wait ? deadline_us : TLS_NOW, sent);
		if (result == CONN_BROKEN)
			return CONN_BROKEN;
		may_wait = may_wait || result == CONN_WOULD_BLOCK;
	}
	return CONN_OK;
}

enum conn_result conn_try_send(struct conn *conn, struct iovec **parts, int *count, size_t *sent)
{
	for (move_on(parts, count, 0); *count > 0;) {
		enum conn_result result = send_some(conn, parts, count, TLS_NOW, sent);
		if (result != CONN_OK)
			return result;
	}
	return CONN_OK;
}

/* ---- TLS ------------------------------------------------------------------------------------------------------------ */

enum tls_greeting conn_accept_tls(struct conn *conn, struct tls *tls, uint64_t deadline_us, char why[TLS_WHY_MAX])
{
	struct tls_stream *stream = NULL;
	enum tls_greeting greeting =
		tls_accept(tls, conn->fd, conn_bytes(conn), conn_available(conn), deadline_us, &stream, why);
	conn->start = conn->end = conn->kept = 0;
	/* The kernel has been told other times than we know of. */
	conn->receive_timeout_us = conn->send_timeout_us = 0;
	conn->tls = stream;
	return greeting;
}

enum conn_result conn_connect_tls(struct conn *conn, struct tls *tls, const char *host, struct tls_sessions *sessions,
                                  uint64_t deadline_us, char why[TLS_WHY_MAX])
{
	bool timed_out;
	conn->tls = tls_connect(tls, conn->fd, host, sessions, deadline_us, &timed_out, why);
	return conn->tls != NULL ? CONN_OK : timed_out ? CONN_TIMEOUT : CONN_BROKEN;
}

const char *conn_why(const struct conn *conn)
{
	return conn->tls == NULL ? "" : tls_why(conn->tls);
}

/* ---- looking -------------------------------------------------------------------------------------------------------- */

bool conn_is_quiet(int fd, struct tls_stream *tls)
{
	char byte;
	if (tls != NULL)
		return tls_look(tls) == TLS_LATER;
	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

size_t conn_unread(struct conn *conn)
{
	int queued = 0;
	/* In the system's there are records: how many bytes of data these hold shows when they are read. */
	while (conn->tls != NULL && conn_try_fill(conn) == CONN_OK)
		;
	if (conn->tls != NULL && tls_look(conn->tls) != TLS_OK)
		return conn_available(conn);
	if (ioctl(conn->fd, FIONREAD, &queued) != 0 || queued < 0)
		queued = 0;
	return conn_available(conn) + (size_t)queued;
}

bool conn_has_hung_up(const struct conn *conn)
{
	char byte;
	if (conn_available(conn) > 0)
		return false;
	if (conn->tls != NULL) {
		enum tls_result result = tls_look(conn->tls);
		return result == TLS_END || result == TLS_BROKEN;
	}
	ssize_t count = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

enum conn_result conn_wait(int fd, bool for_read, uint64_t deadline_us)
{
	for (;;) {
		uint64_t left_us = clock_left_us(deadline_us);
		struct pollfd poller = { .fd = fd, .events = for_read ? POLLIN : POLLOUT };
		struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
		int ready = ppoll(&poller, 1, deadline_us == CLOCK_NEVER ? NULL : &left, NULL);
		if (ready > 0)
			return CONN_OK;
		if (ready == 0)
			return CONN_TIMEOUT;
		if (errno != EINTR)
			return CONN_BROKEN;
	}
}

int conn_socket(const struct address *to)
{
	/* A unix socket's connect() never says EINPROGRESS: when the other's queue is full, it waits or it fails. It may
	   wait, for it keeps to SO_SNDTIMEO. */
	int flags = to->any.sa_family == AF_UNIX ? 0 : SOCK_NONBLOCK;
	return socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
}

/* Two ways to be connected to nobody, without an error. A connect that another thread cut (cut.h) has no peer. And one to a
   local port that nobody listens on may be given that very port for its own end: TCP then connects the socket to itself
   (simultaneous open), and a dead target would seem to have come back. */
static int error_of_peer(int fd)
{
	struct address peer, own;
	int error = 0;
	socklen_t length = sizeof error;
	peer.length = sizeof peer.storage;
	own.length = sizeof own.storage;
	/* One that failed has no peer either: why, is only asked then. */
	if (getpeername(fd, &peer.any, &peer.length) != 0) {
		int no_peer = errno;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
			return errno;
		return error != 0 ? error : no_peer;
	}
	if (getsockname(fd, &own.any, &own.length) != 0)
		return errno;
	bool itself = peer.any.sa_family != AF_UNIX && peer.length == own.length && memcmp(&peer.any, &own.any, peer.length) == 0;
	return itself ? ECONNREFUSED : 0;
}

/* A connect() that blocks has no deadline of its own short of minutes, so this one call is made on a socket that doesn't
   block, and poll() waits for the outcome. */
enum conn_result conn_ask_to_connect(int fd, const struct address *to, uint64_t deadline_us)
{
	uint64_t none_set_us = 0;
	if (to->any.sa_family == AF_UNIX)
		socket_may_block(fd, SO_SNDTIMEO, &none_set_us, clock_left_us(deadline_us));
	if (connect(fd, &to->any, to->length) == 0 || errno == EINPROGRESS)
		return CONN_OK;
	if (errno != EAGAIN || to->any.sa_family != AF_UNIX)
		return CONN_BROKEN;
	errno = ETIMEDOUT;
	return CONN_TIMEOUT;
}

/* One that is connected already is writable at once, and has a peer. */
enum conn_result conn_await_connected(int fd, const struct address *to, uint64_t deadline_us)
{
	/* One nearby has often answered by now. */
	int error = error_of_peer(fd);
	if (error == ENOTCONN && to->any.sa_family != AF_UNIX) {
		enum conn_result result = conn_wait(fd, false, deadline_us);
		if (result != CONN_OK) {
			errno = ETIMEDOUT;
			return result;
		}
		error = error_of_peer(fd);
	}
	if (error != 0) {
		errno = error;
		return CONN_BROKEN;
	}
	fcntl(fd, F_SETFL, 0); /* of a socket of ours: O_NONBLOCK is all there was */
	if (to->any.sa_family != AF_UNIX) {
		/* Without it the last part of a request waits for the acknowledgement of the part before (Nagle). */
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	}
	return CONN_OK;
}

enum conn_result conn_connect(int fd, const struct address *to, uint64_t deadline_us)
{
	enum conn_result result = conn_ask_to_connect(fd, to, deadline_us);
	return result == CONN_OK ? conn_await_connected(fd, to, deadline_us) : result;
}

void conn_close_idle(int fd, struct tls_stream *tls)
{
	if (tls != NULL) {
		tls_end(tls, TLS_NOW);
		tls_free(tls);
	}
	if (fd >= 0)
		close(fd);
}

void conn_close(struct conn *conn)
{
	conn_close_idle(conn->fd, conn->tls);
	conn->fd = -1;
	conn->tls = NULL;
}

void conn_forgo_goodbye(struct conn *conn)
{
	tls_free(conn->tls);
	conn->tls = NULL;
}

void conn_close_hard(struct conn *conn)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	conn_forgo_goodbye(conn);
	conn_close(conn);
}

enum conn_result conn_end_sending(struct conn *conn, uint64_t deadline_us)
{
	enum conn_result result = conn->tls == NULL ? CONN_OK : from_tls(tls_end(conn->tls, deadline_us), CONN_TIMEOUT);
	if (result != CONN_TIMEOUT)
		shutdown(conn->fd, SHUT_WR);
	return result;
}

void conn_linger(struct conn *conn, uint64_t silence_us, uint64_t deadline_us)
{
	uint64_t patience_us = clock_us() + silence_us;
	conn_end_sending(conn, patience_us < deadline_us ? patience_us : deadline_us);
	enum conn_result result = CONN_OK;
	while (result == CONN_OK) {
		conn->start = conn->end = conn->kept = 0;
		uint64_t silent_us = clock_us() + silence_us;
		result = conn_fill(conn, silent_us < deadline_us ? silent_us : deadline_us);
	}
}
