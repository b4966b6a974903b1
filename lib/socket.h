/* socket.h: how long a read or write of a blocking socket may block.
 *
 * The kernel measures the silence before each call (SO_RCVTIMEO, SO_SNDTIMEO); whoever has a deadline tells it what is
 * left until then. It is one more system call, so it is made only when the kernel would otherwise wait for too long: on
 * a keep-alive connection, where each read has about as much time as the one before, almost never.
 *
 * No shared state: any thread, one at a time for each socket.
 */
#ifndef WEIR_SOCKET_H
#define WEIR_SOCKET_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "clock.h"

/* Tells the kernel that the next call may block for left_us (CLOCK_NEVER: for ever). option: SO_RCVTIMEO or
   SO_SNDTIMEO. *current_us is what it was told last, 0 for nothing. A value near the one it has is good enough: the
   caller looks at the deadline itself. */
static inline void socket_may_block(int fd, int option, uint64_t *current_us, uint64_t left_us)
{
	if (left_us == CLOCK_NEVER)
		left_us = 0; /* the kernel's "never" */
	else if (left_us < US_PER_MS)
		left_us = US_PER_MS; /* 0 would mean never */
	uint64_t slack_us = *current_us / 64;
	if (*current_us == left_us ||
	    (left_us != 0 && *current_us != 0 && left_us <= *current_us && *current_us - left_us <= slack_us))
		return;
	struct timeval value = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_usec = (suseconds_t)(left_us % US_PER_S) };
	if (setsockopt(fd, SOL_SOCKET, option, &value, sizeof value) == 0)
		*current_us = left_us;
}

#endif
