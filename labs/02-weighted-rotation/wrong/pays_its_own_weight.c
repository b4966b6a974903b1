/* The one that is picked pays what it earned itself, not what all earned together: credits only grow, and whoever
 * weighs most is far behind what it is owed, or far ahead.
 * grader: and of round
 */
#define WITHOUT_OTHERS
#include "lesson.inc"
