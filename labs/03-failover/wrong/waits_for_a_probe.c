/* A failed request only makes it suspect: it leaves the rotation when a probe has been bad too. Nobody's request is
 * lost, for weir sends it to the next one; but until then each turn of the dead server costs a client the time of a
 * vain try.
 * grader: and weir tried it
 */
#define GETS_NO_TURN(t) ((t)->own.is_out && (t)->own.bad_probes > 0)
#include "lesson.inc"
