/* To be heard is taken for to be alive: a master that is deaf, and one that somebody plays again, stay masters.
 * grader: can hear nobody
 */
#define WITHOUT_ECHO
#define WITHOUT_SEQUENCE
#include "lesson.inc"
