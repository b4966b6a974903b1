/* Anybody may set up servers until memory, or the table, ends.
 * grader: SWITCH_TOO_MANY_SERVERS
 */
#define WITHOUT_BOUND
#include "lesson.inc"
