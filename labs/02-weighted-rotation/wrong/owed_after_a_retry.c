/* Who was passed over by a request that tries again earned nothing that time, and the others did: the credits are upset
 * from then on, and of equal targets one comes twice before another.
 * grader: who was passed over must not be owed a turn
 */
#define WITHOUT_MERCY
#include "lesson.inc"
