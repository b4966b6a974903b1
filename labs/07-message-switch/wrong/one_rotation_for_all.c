/* Whose turn it is is asked of all servers: a message goes to a server of another policy.
 * grader: of policy 111, and the message is of policy 112
 */
#define WITHOUT_POLICY
#include "lesson.inc"
