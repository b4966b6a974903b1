/* A value may hold a line end: one rule makes two fields, or a whole second message.
 * grader: a line end in a value
 */
#define VALUES_ARE_CHECKED false
#include "lesson.inc"
