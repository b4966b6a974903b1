/* A new master gives at once, and does not know what was given before it.
 * grader: no quiet time
 */
#define WITHOUT_QUIET
#include "lesson.inc"
