/* All bytes that were there are taken as the body's: the next request on the connection is lost.
 * grader: belong to the next message
 */
#define WITHOUT_END
#include "lesson.inc"
