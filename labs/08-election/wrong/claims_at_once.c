/* A newcomer does not listen before it stands for master: nodes that begin together are all masters.
 * grader: has not listened for 0.3 s
 */
#define WITHOUT_LISTENING
#include "lesson.inc"
