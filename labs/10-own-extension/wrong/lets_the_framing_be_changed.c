/* Any field may be set: with another Content-Length the rest of the body is read as the next request.
 * grader: set Content-Length: 5
 */
#define FRAMING_MAY_BE_CHANGED true
#include "lesson.inc"
