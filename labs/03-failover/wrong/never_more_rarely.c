/* The next probe is always one interval away. A program that hangs behind an open port passes each of them, comes back,
 * and costs one client its whole patience, every second.
 * grader: each TCP probe of B is good and each request fails
 */
#define WITHOUT_DELAY
#include "lesson.inc"
