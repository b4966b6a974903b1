/* A message fails at the old entry of a server that has come again meanwhile, and the new one pays for it.
 * grader: old news
 */
#define WITHOUT_OLD_NEWS
#include "lesson.inc"
