/* line.c: see line.h.
 *
 * Why a ticket may be entered twice: only who must wait needs an eventfd, and most requests never do. Whether there is
 * a line is the limiter's to say (a reload may have made one since this request began), so it is asked first, and when
 * it says "wait" to a thread that has nothing to wait with, the ticket is taken back, the descriptor made, and the
 * question put again.
 *
 * A wake-up that comes late, after the turn was found in another way, leaves its count in the eventfd; the next sleep
 * ends at once, asks, and sleeps again. A spurious question costs a microsecond; a lost wake-up would cost a request.
 */
#include "line.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"

/* How long the system is left alone when it has no memory to wait with. */
#define PAUSE_NS 10000000

void line_wake(struct limiter_ticket *ticket)
{
	uint64_t one = 1;
	const struct line_sleeper *sleeper = ticket->owner;
	/* An eventfd takes a write at once unless its count is at its limit, and then its reader is being woken
	   already. */
	ssize_t written;
	do
		written = write(sleeper->wake_fd, &one, sizeof one);
	while (written < 0 && errno == EINTR);
}

bool line_can_sleep(struct line_sleeper *sleeper)
{
	if (sleeper->wake_fd < 0)
		sleeper->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return sleeper->wake_fd >= 0;
}

/* A client that has finished sending has gone away, unless it sent more than this request: then it waits for answers.
   */
bool line_sleep(struct line_sleeper *sleeper, uint64_t wake_us)
{
	/* The end of a client's sending is no news once it is known that there is more before it; its hang-up always
	   is. */
	short end_of_sending = sleeper->client_has_more ? 0 : POLLRDHUP;
	struct pollfd fds[2] = { { .fd = sleeper->wake_fd, .events = POLLIN },
		                 { .fd = sleeper->client_fd, .events = end_of_sending } };
	uint64_t left_us = clock_left_us(wake_us);
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	if (ppoll(fds, 2, wake_us == CLOCK_NEVER ? NULL : &left, NULL) < 0) {
		/* For want of memory nobody loses a place in line: it is asked for again, and not at once. */
		struct timespec pause = { .tv_nsec = PAUSE_NS };
		if (errno != EINTR)
			nanosleep(&pause, NULL);
		return true;
	}
	uint64_t count;
	if (fds[0].revents != 0 && read(sleeper->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	if (fds[1].revents == 0)
		return true;
	sleeper->client_has_more =
		(fds[1].revents & (POLLHUP | POLLERR)) == 0 && sleeper->client_has_sent_more(sleeper->context);
	return sleeper->client_has_more;
}

void line_close(struct line_sleeper *sleeper)
{
	if (sleeper->wake_fd >= 0)
		close(sleeper->wake_fd);
	sleeper->wake_fd = -1;
}

/* Sleeps until the limiter says go. */
static enum line_answer wait_for_turn(struct line_turn *turn, struct line_sleeper *sleeper)
{
	for (;;) {
		uint64_t wake_us = CLOCK_NEVER;
		switch (limiter_turn(turn->limiter, &turn->ticket, clock_us(), &wake_us)) {
		case LIMITER_GO:
			turn->has_slot = true;
			return LINE_GO;
		case LIMITER_FULL:
			return LINE_FULL;
		case LIMITER_WAIT:
			break;
		}
		if (!line_sleep(sleeper, wake_us)) {
			limiter_cancel(turn->limiter, &turn->ticket, clock_us());
			return LINE_CLIENT_GONE;
		}
	}
}

/* The ticket is in the line: until it is out. */
static enum line_answer stand_in_line(struct line_turn *turn, struct line_sleeper *sleeper)
{
	uint64_t begun_us = clock_us();
	turn->has_slot = false;
	turn->waited = true;
	group_kick(turn->group);
	enum line_answer answer = wait_for_turn(turn, sleeper);
	turn->waited_us += clock_us() - begun_us;
	return answer;
}

/* Asks for a slot, with something to be woken by should it be given a place in line instead. */
static enum limiter_answer enter(struct line_turn *turn, struct line_sleeper *sleeper, uint64_t client)
{
	uint64_t now_us = clock_us();
	enum limiter_answer answer = limiter_enter(turn->limiter, &turn->ticket, client, now_us);
	if (answer != LIMITER_WAIT || sleeper->wake_fd >= 0)
		return answer;
	limiter_cancel(turn->limiter, &turn->ticket, now_us);
	return line_can_sleep(sleeper) ? limiter_enter(turn->limiter, &turn->ticket, client, now_us) : LIMITER_WAIT;
}

enum line_answer line_take(struct line_turn *turn, struct line_sleeper *sleeper, uint64_t client, bool is_exempt)
{
	turn->waited = false;
	turn->waited_us = 0;
	if (turn->has_slot)
		return LINE_GO;
	turn->ticket.owner = sleeper;
	turn->ticket.is_exempt = is_exempt;
	switch (enter(turn, sleeper, client)) {
	case LIMITER_GO:
		turn->has_slot = true;
		return LINE_GO;
	case LIMITER_FULL:
		return LINE_FULL;
	case LIMITER_WAIT:
		break;
	}
	return sleeper->wake_fd < 0 ? LINE_NO_DESCRIPTOR : stand_in_line(turn, sleeper);
}

enum line_answer line_renew(struct line_turn *turn, struct line_sleeper *sleeper)
{
	turn->waited = false;
	turn->waited_us = 0;
	if (!turn->has_slot || turn->ticket.until_us == UINT64_MAX) /* a slot of our own does not die */
		return LINE_GO;
	/* Before the question: from the answer "no" on the ticket is in line, and may be woken. */
	if (!line_can_sleep(sleeper)) {
		line_give_back(turn);
		return LINE_NO_DESCRIPTOR;
	}
	while (!limiter_may_start(turn->limiter, &turn->ticket, clock_us())) {
		enum line_answer answer = stand_in_line(turn, sleeper);
		if (answer != LINE_GO)
			return answer;
	}
	return LINE_GO;
}

bool line_try(struct line_turn *turn, uint64_t client, bool is_exempt)
{
	/* Never written to: a wake-up goes nowhere. */
	static const struct line_sleeper nobody = { .wake_fd = -1, .client_fd = -1 };
	if (turn->has_slot)
		return true;
	uint64_t now_us = clock_us();
	turn->ticket.owner = (void *)(uintptr_t)&nobody;
	turn->ticket.is_exempt = is_exempt;
	enum limiter_answer answer = limiter_enter(turn->limiter, &turn->ticket, client, now_us);
	if (answer == LIMITER_WAIT)
		limiter_cancel(turn->limiter, &turn->ticket, now_us);
	turn->has_slot = answer == LIMITER_GO;
	return turn->has_slot;
}

void line_use(struct line_turn *turn, uint64_t now_us)
{
	if (turn->has_slot)
		limiter_started(turn->limiter, &turn->ticket, now_us);
	turn->has_slot = false;
}

void line_give_back(struct line_turn *turn)
{
	if (turn->has_slot)
		limiter_cancel(turn->limiter, &turn->ticket, clock_us());
	turn->has_slot = false;
}
