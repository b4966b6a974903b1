/* A server that does not answer stays in the turns.
 * grader: and is asked again
 */
#define WITHOUT_FAILURE
#include "lesson.inc"
