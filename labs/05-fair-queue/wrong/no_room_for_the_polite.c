/* A full line refuses whoever comes, also a client who has nothing in it, though one client has filled it.
 * grader: has nobody in line
 */
#define WITHOUT_ROOM
#include "lesson.inc"
