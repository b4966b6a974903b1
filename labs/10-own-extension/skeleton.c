/* skeleton.c: lab 10, heads edited by rules. It compiles, and copies the head without a look at the rules, or at the
 * room that there is.
 *
 * own.h says what the rules mean and which are refused. Why refuse any, if the administrator wrote them? Because a
 * head that says another length than the body has is a hole, whoever asked for it; and because a value with a line
 * end in it is two fields.
 */
#include "labs/10-own-extension/own.h"

#include <string.h>

/* ---- yours ------------------------------------------------------------------------------------------------------- */

size_t own_edit(const char *rules, const char *head, size_t length, char *out, size_t capacity)
{
	(void)rules, (void)capacity;
	memcpy(out, head, length);
	return length;
}

#include "labs/10-own-extension/given.h"
