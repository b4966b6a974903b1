/* own.h: lab 10's graded part: heads that are edited by rules.
 *
 *      lib/rewrite.c writes the head that goes out ──► own_edit(rules, head) ──► to the target, or to the client
 *
 * Rules are a text, from the environment of weir: LAB_REQUEST_HEADERS for what goes to targets, LAB_RESPONSE_HEADERS
 * for what goes to clients. They are separated by '|', carried out from left to right, and blanks around each are of
 * no meaning:
 *
 *      drop NAME            no field of that name
 *      set NAME: VALUE      one field of that name: where the first of them stood, or behind all others
 *      add NAME: VALUE      one more, behind all others
 *
 * Names are compared as HTTP does: "x-lab" is "X-Lab" (RFC 9110 §5.1), and written as the rule has them.
 */
#ifndef LAB_OWN_H
#define LAB_OWN_H

#include <stddef.h>

/* head: a start line, fields and the empty line, each ended by CR LF, well-formed. Writes the edited head into out,
   and nothing at or behind out + capacity. Returns its length; 0 when it does not fit, or when a rule is refused: no
   rule at all, a name that is no token (RFC 9110 §5.6.2), a control character in a value, or a field that decides
   where the message ends or goes: Content-Length, Transfer-Encoding, Connection, Upgrade, Host. Any thread. */
size_t own_edit(const char *rules, const char *head, size_t length, char *out, size_t capacity);

#endif
