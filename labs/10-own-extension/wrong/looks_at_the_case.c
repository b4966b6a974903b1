/* Names are compared byte by byte: "cookie" is not found where the rule says "Cookie".
 * grader: "drop x-a" left
 */
#define SAME_NAME(rule, name, length) ((rule)->name_length == (length) && strncmp((rule)->name, (name), (length)) == 0)
#include "lesson.inc"
