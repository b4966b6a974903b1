/* The front leaves, and the next one sleeps on: nobody has told it that it is the front now.
 * grader: everybody sleeps
 */
#define WITHOUT_WAKE
#include "lesson.inc"
