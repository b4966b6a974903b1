/* No lock in the two functions that each request calls first: two threads take the same slot.
 * grader: the clock stands still, four threads
 */
#define WITHOUT_LOCK
#include "lesson.inc"
