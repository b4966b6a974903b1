/* A master that stood still goes on as if nothing had happened, beside the one that was elected meanwhile.
 * grader: went on after it had stood still
 */
#define WITHOUT_PAUSE
#include "lesson.inc"
