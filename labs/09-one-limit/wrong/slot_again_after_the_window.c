/* The slot is given again one window after its moment, and not one window after the last moment at which it may be
 * used.
 * grader: one window after the last moment
 */
#define WITHOUT_LATE
#include "lesson.inc"
