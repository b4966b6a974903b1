/* A request that was told to go and is not sent keeps its slot: after as many clients that went away as there are
 * slots, nothing moves.
 * grader: three were told to go, one was sent and two were cancelled
 */
#define WITHOUT_RETURN
#include "lesson.inc"
