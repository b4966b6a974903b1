/* Credits go back to 0 whenever the list is set, though it is the same: names that are resolved every few seconds begin
 * a new round each time, and light targets, whose turn is late in the round, starve.
 * grader: The same list came again, so the round goes on
 */
#define WITHOUT_LOOK
#include "lesson.inc"
