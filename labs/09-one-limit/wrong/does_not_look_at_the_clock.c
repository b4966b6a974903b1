/* A master that stood still goes on giving, beside the one that was elected meanwhile.
 * grader: gave on after it had stood still
 */
#define WITHOUT_PAUSE
#include "lesson.inc"
