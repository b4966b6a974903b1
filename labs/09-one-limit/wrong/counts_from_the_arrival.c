/* The end of a grant is counted from the moment when it came: one that lay in a buffer for 3 s is as good as new.
 * grader: a grant that is old
 */
#define WITHOUT_ASKED
#include "lesson.inc"
