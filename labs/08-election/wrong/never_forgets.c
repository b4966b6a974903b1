/* Who was heard once is alive for ever: the dead master stays master.
 * grader: no node took 20 for master
 */
#define WITHOUT_TIMEOUT
#include "lesson.inc"
