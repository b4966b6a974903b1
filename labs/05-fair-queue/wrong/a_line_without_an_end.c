/* The backlog is not looked at: the line grows until memory ends.
 * grader: stand in line, and the backlog is
 */
#define WITHOUT_BOUND
#include "lesson.inc"
