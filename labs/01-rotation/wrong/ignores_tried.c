/* The turn moves on, and what this request has tried is not looked at: a request that failed at A may be sent to A
 * again.
 * grader: one request met target
 */
#define WITHOUT_TRIED
#include "lesson.inc"
