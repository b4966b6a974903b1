/* admission.h: what there is to decide about a request before it may stand in line: who is the client, may it come in at all,
 * and is it within the limits that each client has?
 *
 *      peer, head ──► whose request is it? (trust_forwarded) ──► allow, deny ──► client_rate, limit.NAME ──► the threshold's line
 *                                                                  403                  429
 *
 * All limits that concern the request are asked as one: a request that one of them refuses takes nothing from the others.
 *
 * Any thread; time is passed in.
 */
#ifndef WEIR_ADMISSION_H
#define WEIR_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "client_limits.h"
#include "http.h"
#include "ratelimit.h"
#include "settings.h"

/* client_rate, and every rule. */
#define ADMISSION_LIMITS_MAX (1 + SETTINGS_RULES_MAX)

enum admission_verdict {
	ADMISSION_PASS,
	ADMISSION_FORBIDDEN,  /* deny, or not in allow */
	ADMISSION_OVER_LIMIT, /* admission->refused_by, ->retry_after_us */
};

struct admission {
	struct address client;              /* worked out */
	char client_text[ADDRESS_TEXT_MAX];
	uint64_t client_number;             /* for the line's fairness */
	bool is_exempt;                     /* counted, never refused */
	const char *refused_by;             /* "client_rate", or a rule's name: as long as the settings live */
	const char *shadowed_by;            /* a rule in shadow mode that would have refused; NULL: none */
	uint64_t retry_after_us;
	size_t limit_count;                 /* what is left under each limit that was asked, for the RateLimit fields */
	struct ratelimit limits[ADMISSION_LIMITS_MAX];
};

/* Decides, and fills in *out. Nothing is taken from any limit unless the verdict is ADMISSION_PASS. */
enum admission_verdict admission_check(struct client_limits *limits, const struct settings *settings,
                                       const struct address *peer, const struct http_head *request, uint64_t now_us,
                                       struct admission *out);

#endif
