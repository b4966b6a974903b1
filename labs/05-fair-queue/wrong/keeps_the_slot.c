/* A request that is cancelled after its slot was granted takes the slot with it.
 * grader: slot is lost
 */
#define WITHOUT_RETURN
#include "lesson.inc"
