/* A target is found due although its probe is under way: the probe thread starts another, and another, as long as the
 * first one hangs.
 * grader: and a second probe of B is due
 */
#define WITHOUT_ONE_AT_A_TIME
#include "lesson.inc"
