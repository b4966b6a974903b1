/* rules.h: which of the limit.NAME rules concern a request, and what the request's key is under each.
 *
 *      limit.login = rate=5 burst=10 key=client method=POST path=/login*
 *
 * A rule's path is matched against what the path means, not how it is spelt: after decoding, merging of slashes and dot
 * segments, so that /%6cogin, //login and /x/../login are /login. What is forwarded stays as it came.
 *
 * Source: RFC 3986 §5.2.4, §6.2.2. No shared state: any thread.
 */
#ifndef WEIR_RULES_H
#define WEIR_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http.h"
#include "settings.h"

#define RULES_PATH_MAX 8192

/* The path of a request in its plain form: decoded, slashes merged, dot segments resolved, query cut off. Returns its length; a path
   longer than capacity is cut there (a rule can't be dodged by length: what is matched is the beginning). */
size_t rules_normalize_path(struct http_text path, char *out, size_t capacity);

/* Does the rule concern this request? path is the normalized one. */
bool rules_match(const struct settings_rule *rule, const struct http_head *request, struct http_text path);

/* Writes what tells clients apart under a key ("client", "header:NAME", "client+path" …) into out, for hashing. client is
   the client's address in its counted form (IPv6: the /64); it stands in for a header that is missing, empty or there
   twice, for such a one tells nobody apart. Each part has its length before it, and of a long value there is a hash, so
   that two keys are the same only if all their parts are. Returns the length; capacity is at least RULES_PATH_MAX + 512,
   or the key is cut. */
size_t rules_key(const struct settings_key *key, const struct http_head *request, struct http_text path,
                 struct http_text client, char *out, size_t capacity);

#endif
