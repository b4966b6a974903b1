/* tunnel.c: see tunnel.h.
 *
 *      client ══► buffer ══► target        a direction with bytes waiting to go out asks for room to send,
 *      client ◄══ buffer ◄══ target        one that has none asks for bytes: so memory is bounded by the two buffers
 *
 * One end may finish sending while the other goes on ("half close"): the end is passed on as it came (shutdown for writing), and
 * the other direction goes on. A tunnel that closed both at the first end would cut off the tail of many protocols.
 *
 * Source: RFC 9110 §9.3.6 (CONNECT), §7.8 (Upgrade).
 */
#include "tunnel.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "clock.h"

struct direction {
	struct conn *from, *to;
	uint64_t *moved_bytes;
	bool input_ended, is_over;
};

/* Moves what can be moved without waiting. *progress says whether anything did. */
static enum conn_result move(struct direction *d, bool *progress)
{
	if (d->is_over)
		return CONN_OK;
	if (conn_available(d->from) == 0 && !d->input_ended) {
		enum conn_result result = conn_try_fill(d->from);
		if (result == CONN_END)
			d->input_ended = true;
		else if (result != CONN_OK && result != CONN_WOULD_BLOCK)
			return result;
	}
	size_t sent = 0;
	if (conn_available(d->from) > 0) {
		struct iovec part = { .iov_base = (char *)(uintptr_t)conn_bytes(d->from), .iov_len = conn_available(d->from) };
		struct iovec *parts = &part;
		int count = 1;
		enum conn_result result = conn_try_send(d->to, &parts, &count, &sent);
		if (result == CONN_BROKEN)
			return result;
		conn_use(d->from, sent);
		*d->moved_bytes += sent;
	}
	if (d->input_ended && conn_available(d->from) == 0) {
		shutdown(d->to->fd, SHUT_WR);
		d->is_over = true;
		*progress = true;
	}
	*progress = *progress || sent > 0;
	return CONN_OK;
}

/* Waits until one of the two directions can move: false at the deadline. */
static bool wait_for_either(const struct direction *up, const struct direction *down, uint64_t deadline_us)
{
	const struct direction *both[2] = { up, down };
	struct pollfd fds[2] = { { .fd = up->from->fd }, { .fd = down->from->fd } };
	for (int i = 0; i < 2; i++) {
		if (both[i]->is_over)
			continue;
		if (conn_available(both[i]->from) > 0)
			fds[1 - i].events |= POLLOUT;
		else
			fds[i].events |= POLLIN;
	}
	/* A socket that nothing is asked of would still report its hang-up, again and again. */
	for (int i = 0; i < 2; i++)
		if (fds[i].events == 0)
			fds[i].fd = -1;
	uint64_t left_us = clock_left_us(deadline_us);
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	int ready = ppoll(fds, 2, &left, NULL);
	return ready > 0 || (ready < 0 && errno == EINTR);
}

enum conn_result tunnel_run(struct conn *client, struct conn *target, uint64_t idle_us, struct tunnel_counts *counts)
{
	struct direction up = { .from = client, .to = target, .moved_bytes = &counts->up_bytes };
	struct direction down = { .from = target, .to = client, .moved_bytes = &counts->down_bytes };
	uint64_t deadline_us = clock_us() + idle_us;
	while (!up.is_over || !down.is_over) {
		bool progress = false;
		if (move(&up, &progress) != CONN_OK || move(&down, &progress) != CONN_OK)
			return CONN_BROKEN;
		if (progress)
			deadline_us = clock_us() + idle_us;
		else if (!wait_for_either(&up, &down, deadline_us))
			return CONN_TIMEOUT;
	}
	return CONN_END;
}
