/* One line for all: a client with a hundred requests is served a hundred times before the next.
 * grader: the polite client waited for
 */
#define WITHOUT_TURNS
#include "lesson.inc"
