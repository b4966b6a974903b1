/* It goes out, and nobody plans a probe: after the first bad second of each server the last one does all the work.
 * grader: and no probe is planned
 */
#define WITHOUT_PLAN
#include "lesson.inc"
