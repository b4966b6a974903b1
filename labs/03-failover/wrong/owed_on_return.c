/* A target that comes back gets the next turn, whoever's it was: one that goes up and down every second gets more than
 * those that stay.
 * grader: with no turn to make up for
 */
#define WITHOUT_WAITING
#include "lesson.inc"
