/* A slot more than the threshold: the classic <= for <.
 * grader: threshold 5: of 8 requests at the same moment 6 started
 */
#define SLOTS(l) ((l)->options.threshold + 1)
#include "lesson.inc"
