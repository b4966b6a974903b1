/* The room is off by one: the last byte is written behind the end.
 * grader: bytes of room
 */
#define ROOM_IS_MISSING(w, length) ((length) > (w)->capacity + 1 - (w)->length)
#include "lesson.inc"
