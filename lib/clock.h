/* clock.h: the one clock of weir, microseconds that only ever go forwards.
 *
 * Deadlines and rates are measured on CLOCK_MONOTONIC: the wall clock jumps (NTP, an operator, a leap second), and a jump
 * would open a limit or hang a deadline. The wall clock is used for what people and caches are told, the time stamps of the log and
 * Date, and nothing else.
 * On Linux this is a read of shared memory (the vDSO), not a system call: about 25 ns.
 */
#ifndef WEIR_CLOCK_H
#define WEIR_CLOCK_H

#include <stdint.h>
#include <time.h>

#define US_PER_S UINT64_C(1000000)
#define US_PER_MS UINT64_C(1000)

/* A time that never comes: "no deadline". */
#define CLOCK_NEVER UINT64_MAX

/* Microseconds since some moment in the past (the machine's start). Any thread. */
static inline uint64_t clock_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

/* Seconds since 1970 on the wall clock, for Date. Any thread. */
static inline int64_t clock_wall_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec;
}

/* What is left until deadline_us, 0 when it has passed, CLOCK_NEVER when there is none. */
static inline uint64_t clock_left_us(uint64_t deadline_us)
{
	if (deadline_us == CLOCK_NEVER)
		return CLOCK_NEVER;
	uint64_t now = clock_us();
	return deadline_us > now ? deadline_us - now : 0;
}

#endif
