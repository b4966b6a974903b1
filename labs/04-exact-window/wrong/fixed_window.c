/* The clock's seconds are counted: 5 at the end of one and 5 at the beginning of the next are ten in a tenth of a
 * second.
 * grader: window exceeded at t=
 */
#define OWN_REST
#include "lesson.inc"

static uint64_t free_again_us(const struct limiter *l, uint64_t now_us)
{
	return (now_us / l->options.window_us + 1) * l->options.window_us;
}
