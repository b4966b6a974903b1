/* guard.h: who may ask the admin server what.
 *
 * A server on loopback is not as private as it seems: every web page that somebody on this machine looks at may send requests to it,
 * from the browser, which is on this machine.
 *
 *      DNS rebinding      evil.example first has its own address, then 127.0.0.1: to the browser our answers are evil.example's own,
 *                         and it may read them. But the request says "Host: evil.example". So: Host must be an address,
 *                         "localhost", this machine's name, or the name that the admin server was bound by.
 *      request forgery    a page of another site sends a PUT and does not care for the answer. But the browser then says who
 *                         sent it: "Origin: http://evil.example". So: an Origin must be that of the Host; and a PUT must be JSON,
 *                         which a page can't send elsewhere without being asked about first (a CORS preflight, which we refuse).
 *      embedding          a page of another site names us in an <img> or a <script>: a GET without an Origin, whose answer it can't
 *                         read, but thirty-two of them are all places to look from. Today's browsers say "Sec-Fetch-Site".
 *
 * What changes something is asked of loopback alone, or with the token: "Authorization: Bearer TOKEN". A request with the right
 * token may have any Host, for no page of a stranger knows the token. A wrong one is refused even where none is needed: who
 * gives it believes that it counts.
 *
 * Sources: RFC 6454 (Origin), RFC 6750 (Bearer), W3C Fetch Metadata, OWASP on these attacks. No state: any thread.
 */
#ifndef WEIR_GUARD_H
#define WEIR_GUARD_H

#include <stdbool.h>

#include "address.h"
#include "http.h"

struct guard {
	const char *token;        /* NULL: none is set */
	const char *bound_name;   /* as admin says, without port; NULL: none */
	const char *machine_name; /* gethostname(); NULL: unknown */
};

enum guard_verdict {
	GUARD_PASS,
	GUARD_FOREIGN_HOST,   /* 403 */
	GUARD_FOREIGN_ORIGIN, /* 403 */
	GUARD_WRONG_TOKEN,    /* 401 */
	GUARD_TOKEN_NEEDED,   /* 401: a write from elsewhere, without a token */
	GUARD_LOCAL_ONLY,     /* 403: a write from elsewhere, and no token is set that could allow it */
};

enum guard_verdict guard_check(const struct guard *guard, const struct address *peer, const struct http_head *request);

/* Is this address on this machine: 127.0.0.0/8, ::1, a unix socket? */
bool guard_is_loopback(const struct address *peer);

#endif
