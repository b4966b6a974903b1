/* When the list or a weight changes the credits stay: what was owed in the old round is paid out in the new one.
 * grader: and B is not owed a turn for each of the 40
 */
#define WITHOUT_RESET
#include "lesson.inc"
