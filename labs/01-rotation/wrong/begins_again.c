/* When the list changes the turn goes back to the first target. Names are resolved every few seconds: the first targets
 * then get more than their share, without a word.
 * grader: The same list came again, so it was C's turn
 */
#define WITHOUT_PLACE
#include "lesson.inc"
