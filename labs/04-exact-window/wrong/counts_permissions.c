/* What counts here is when a request was told to go. It is sent later, and the next may be sent earlier than a second
 * after it.
 * grader: 2.500 s  B asks and is told to go, half a second after A was sent
 */
#define WITHOUT_START
#include "lesson.inc"
