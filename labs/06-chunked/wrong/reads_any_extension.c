/* Extensions have no bound: megabytes are read for a body of a few bytes.
 * grader: extension of 100000 bytes
 */
#define WITHOUT_FLOOD
#include "lesson.inc"
