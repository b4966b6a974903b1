/* Only a request that is granted is woken. Who comes to the front because another went away was told to sleep, and
 * sleeps.
 * grader: waits for ever: it was told to wait until it is woken
 */
#define WITHOUT_WAKE
#include "lesson.inc"
