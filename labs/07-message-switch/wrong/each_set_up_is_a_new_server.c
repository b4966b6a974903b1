/* A server that sets itself up again is new each time: it loses its turn, though nothing has changed.
 * grader: nothing about b has changed
 */
#define WITHOUT_UNCHANGED
#include "lesson.inc"
