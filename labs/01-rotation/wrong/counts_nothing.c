/* The pick is right and is not counted: the status page says that nothing happens, and a target that left the list
 * while it was at work loses its memory under a running request.
 * grader: its active says
 */
#define WITHOUT_COUNTS
#include "lesson.inc"
