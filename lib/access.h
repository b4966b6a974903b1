/* access.h: who is the client, and may it come in?
 *
 * A client's own word about its address is worth nothing: anybody can write an X-Forwarded-For. It is believed only as far
 * as it was written by proxies that the operator named (trust_forwarded): from the right, each entry was added by the hop on its right.
 *
 *      X-Forwarded-For: 203.0.113.9, 198.51.100.7, 10.0.0.3          peer 10.0.0.2
 *                                    ▲ the client: the first          ▲ trusted   ▲ trusted
 *                                      that is not trusted
 *
 * No shared state: any thread.
 */
#ifndef WEIR_ACCESS_H
#define WEIR_ACCESS_H

#include <stdbool.h>

#include "address.h"
#include "http.h"
#include "network.h"
#include "settings.h"

/* Works out the client's address. An entry that is no address ends the walk: the hop that wrote it is the client. */
void access_client(const struct networks *trusted, const struct address *peer, const struct http_head *request,
                   struct address *client);

/* deny wins; an empty allow lets everyone in. */
bool access_may_enter(const struct networks *allow, const struct networks *deny, const struct address *client);

/* Is this request counted and never refused? Header exemptions count only when the peer is trusted. */
bool access_is_exempt(const struct settings_exemptions *exempt, const struct networks *trusted, const struct address *peer,
                      const struct address *client, const struct http_head *request);

#endif
