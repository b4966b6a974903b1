/* Nobody is refused: the line grows as long as clients come, and the last in it waits for minutes.
 * grader: they were told GGwwwwww
 */
#define WITHOUT_BOUND
#include "lesson.inc"
