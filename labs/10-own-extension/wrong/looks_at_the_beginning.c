/* Names are compared as far as the rule goes: a rule for X-A is one for X-Another, too.
 * grader: "drop x-a" left "GET /a HTTP/1.1\r\nHost: b\r\nContent-Length
 */
#define SAME_NAME(rule, name, length) (strncasecmp((rule)->name, (name), (rule)->name_length) == 0 || (length) == 0)
#include "lesson.inc"
