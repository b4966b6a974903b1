/* Good probes are counted, and a bad one between them does not begin the count anew: a server that answers every other
 * time is in.
 * grader: three in a row are the last three
 */
#define WITHOUT_ROW
#include "lesson.inc"
