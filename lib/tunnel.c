/* tunnel.c: see tunnel.h.
 *
 *      client ══► buffer, later pipe ══► target     a direction with bytes waiting to go out asks for room to send, one
 *      client ◄══ buffer, later pipe ◄══ target     that has none asks for bytes: so memory is bounded by these four
 *
 * One end may finish sending while the other goes on ("half close"): the end is passed on as it came (shutdown for
 * writing), and the other direction goes on. A tunnel that closed both at the first end would cut off the tail of many
 * protocols.
 *
 * Bytes that nobody looks at need not come to us at all (splice.h). Measured with bench/tunnel.py, CPU seconds
 * for each GB (one tunnel down, eight down, one up; median of five rounds, two processors):
 *
 *      copy, the connection's buffer of 48 KiB     0.48  0.43  0.47        pipe of 512 KiB      0.32  0.32  0.30
 *      copy, 512 KiB                               0.39  0.37  0.33        pipe of 1 MiB        0.29  0.29  0.21
 *      copy, 1 MiB                                 0.32  0.35  0.27        (64 KiB: no better than the copy)
 *
 * Half of the gain comes from large steps: fewer wake-ups. A copy can take those too, but with a megabyte of memory for
 * each direction, where a pipe holds pages that are there anyway. Yet a pipe costs two descriptors and some system calls,
 * which a conversation never earns back. So a direction starts with the copy, takes a pipe when it has moved BULK_BYTES in
 * steps that are not small, and gives it back when it is quiet. Where there is no pipe to be had (no descriptors left; or
 * the share of pipe memory that the system leaves a user who is not root, 64 such pipes unless set otherwise) it goes on
 * with the copy, and asks again after as many bytes.
 *
 * Where one side is TLS its bytes are to be made or read here, and there is nothing to splice. There an end is a record of its
 * own (close_notify), which may find no room and then waits for it like data; and an end without one is a break, not an end.
 * A break is passed on as one: neither side hears a goodbye that the other has not said, or it would take half for the whole
 * (RFC 8446 §6.1).
 *
 * Source: RFC 9110 §9.3.6 (CONNECT), §7.8 (Upgrade); splice(2), pipe(7).
 */
#include "tunnel.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>

#include "clock.h"
#include "splice.h"

#define BULK_BYTES (256u * 1024u)
#define STEP_BYTES (16u * 1024u)
#define QUIET_US (200 * US_PER_MS)

struct direction {
	struct conn *from, *to;
	uint64_t *moved_bytes;
	uint64_t unpiped_bytes; /* copied in large steps since the start, or since there was or should have been a pipe */
	struct splice pipe;
	bool is_waiting;        /* nothing moved at the last look: it is poll()'s turn */
	bool is_drained;        /* the last read got all there was: another would get nothing */
	bool is_ending;         /* there is no more to come; its end is to be passed on */
	bool is_over;           /* its end was passed on */
	bool has_taken_pipe;    /* once at least: then calls on both sockets do not block */
};

/* ---- the pipe ------------------------------------------------------------------------------------------------------- */

static void give_pipe_back(struct direction *d)
{
	splice_end(&d->pipe);
	d->unpiped_bytes = 0;
}

static void take_pipe(struct direction *d)
{
	d->unpiped_bytes = 0;
	if (splice_begin(&d->pipe, d->from, d->to, NULL))
		d->has_taken_pipe = true;
}

/* ---- one direction -------------------------------------------------------------------------------------------------- */

/* Takes in what has come, without waiting. */
static enum conn_result take_in(struct direction *d)
{
	if (!d->pipe.is_open && d->unpiped_bytes >= BULK_BYTES)
		take_pipe(d);
	if (d->pipe.is_open) {
		enum conn_result result = splice_take(&d->pipe, d->from, SPLICE_PIPE_BYTES);
		if (result != CONN_WOULD_BLOCK)
			return result;
	}
	enum conn_result result = conn_try_fill(d->from);
	d->is_drained = result == CONN_OK && d->from->tls == NULL && d->from->end < d->from->capacity;
	return result;
}

static enum conn_result send_copied(struct direction *d, size_t *sent)
{
	struct iovec part = { .iov_base = (char *)(uintptr_t)conn_bytes(d->from), .iov_len = conn_available(d->from) };
	struct iovec *parts = &part;
	int count = 1;
	enum conn_result result = conn_try_send(d->to, &parts, &count, sent);
	conn_use(d->from, *sent);
	if (*sent >= STEP_BYTES)
		d->unpiped_bytes += *sent;
	return result;
}

/* Nothing is taken in while something waits, so never do bytes wait in the buffer and in the pipe: the order is kept. */
static bool has_waiting(const struct direction *d)
{
	return d->pipe.waiting_bytes > 0 || conn_available(d->from) > 0;
}

/* Says the end to the other side. False: there is no room for it now. */
static bool pass_end_on(struct direction *d)
{
	give_pipe_back(d);
	d->is_ending = true;
	d->is_over = conn_end_sending(d->to, TLS_NOW) != CONN_TIMEOUT;
	return d->is_over;
}

/* Moves what can be moved without waiting. *moved says whether anything did. */
static enum conn_result move(struct direction *d, bool *moved)
{
	size_t sent = 0;
	uint64_t moved_before = d->to->moved_bytes;
	if (!has_waiting(d) && !d->is_ending) {
		enum conn_result result = take_in(d);
		if (result == CONN_END)
			d->is_ending = true;
		else if (result != CONN_OK && result != CONN_WOULD_BLOCK)
			return result;
	}
	if (d->is_ending) {
		*moved = pass_end_on(d);
		return CONN_OK;
	}
	if (has_waiting(d)) {
		enum conn_result result = d->pipe.waiting_bytes > 0 ? splice_give(&d->pipe, d->to, &sent) : send_copied(d, &sent);
		if (result == CONN_BROKEN)
			return result;
		*d->moved_bytes += sent;
	}
	*moved = sent > 0 || d->to->moved_bytes != moved_before;
	return CONN_OK;
}

/* The same, if there is reason to try. *progress is set when something moved. */
static enum conn_result move_on(struct direction *d, bool *progress)
{
	bool moved = false;
	if (d->is_over || d->is_waiting)
		return CONN_OK;
	d->is_drained = false;
	enum conn_result result = move(d, &moved);
	d->is_waiting = !moved || (d->is_drained && !has_waiting(d) && !d->is_ending);
	*progress = *progress || moved;
	return result;
}

/* ---- both ----------------------------------------------------------------------------------------------------------- */

static bool has_idle_pipe(const struct direction *d)
{
	return d->pipe.is_open && d->pipe.waiting_bytes == 0;
}

/* Nothing can have come from the sender that poll() does not see. */
static bool is_silent(const struct direction *d)
{
	return d->from->tls == NULL && conn_available(d->from) == 0;
}

/* What a direction waits for: room at its receiver, when it has something for it, else more from its sender. */
static bool asks_for_room(const struct direction *d)
{
	return has_waiting(d) || d->is_ending;
}

/* Waits until one of the two directions can move: false at the deadline. A pipe that stays empty is given back. */
static bool wait_for_either(struct direction *up, struct direction *down, uint64_t deadline_us)
{
	struct direction *both[2] = { up, down };
	struct pollfd fds[2] = { { .fd = up->from->fd }, { .fd = down->from->fd } };
	struct pollfd *asked[2];
	for (int i = 0; i < 2; i++) {
		asked[i] = &fds[asks_for_room(both[i]) ? 1 - i : i];
		if (!both[i]->is_over)
			asked[i]->events |= asks_for_room(both[i]) ? POLLOUT : POLLIN;
	}
	/* A socket that nothing is asked of would still report its hang-up, again and again. */
	for (int i = 0; i < 2; i++)
		if (fds[i].events == 0)
			fds[i].fd = -1;
	uint64_t left_us = clock_left_us(deadline_us);
	if ((has_idle_pipe(up) || has_idle_pipe(down)) && left_us > QUIET_US)
		left_us = QUIET_US;
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	int ready = ppoll(fds, 2, &left, NULL);
	for (int i = 0; i < 2; i++)
		if (ready > 0 && asked[i]->revents != 0)
			both[i]->is_waiting = false;
	if (ready != 0)
		return ready > 0 || errno == EINTR;
	for (int i = 0; i < 2; i++)
		if (has_idle_pipe(both[i]))
			give_pipe_back(both[i]);
	return clock_left_us(deadline_us) > 0;
}

enum conn_result tunnel_run(struct conn *client, struct conn *target, uint64_t idle_us, struct tunnel_counts *counts)
{
	struct direction up = { .from = client, .to = target, .moved_bytes = &counts->up_bytes };
	struct direction down = { .from = target, .to = client, .moved_bytes = &counts->down_bytes };
	enum conn_result result = CONN_END;
	uint64_t deadline_us = clock_us() + idle_us;
	up.is_waiting = is_silent(&up); /* mostly: the client has just heard that there is a tunnel */
	down.is_waiting = is_silent(&down);
	while (result == CONN_END && (!up.is_over || !down.is_over)) {
		bool progress = false;
		if (move_on(&up, &progress) != CONN_OK || move_on(&down, &progress) != CONN_OK)
			result = CONN_BROKEN;
		else if (progress)
			deadline_us = clock_us() + idle_us;
		else if (!wait_for_either(&up, &down, deadline_us))
			result = CONN_TIMEOUT;
	}
	give_pipe_back(&up);
	give_pipe_back(&down);
	if (up.has_taken_pipe || down.has_taken_pipe) {
		splice_let_block(client->fd);
		splice_let_block(target->fd);
	}
	if (result != CONN_END) {
		conn_forgo_goodbye(client);
		conn_forgo_goodbye(target);
	}
	return result;
}
