/* The way out when nobody is found forgets to unlock: the next caller waits for ever.
 * grader: (a lock that it holds itself?)
 * seconds: 2
 */
#define WITHOUT_UNLOCK
#include "lesson.inc"
