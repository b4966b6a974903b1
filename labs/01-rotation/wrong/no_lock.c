/* A turn is read and moved on without the lock: two threads that come together take the same one, and counts are lost.
 * grader: turns were lost or taken twice
 */
#define WITHOUT_LOCK
#include "lesson.inc"
