/* The target is taken out by the first request that fails and again by all that were there with it: each says so in the
 * log, and each puts the probe off.
 * grader: times that this call took it out
 */
#define IS_OLD_REQUEST(t, pick) ((void)(pick), false)
#include "lesson.inc"
