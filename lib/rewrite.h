/* rewrite.h: writes the head that goes out, from the head that came in.
 *
 * A proxy never relays a head as it came. Fields that concern one connection only stay on it (RFC 9110 §7.6.1);
 * framing is written by us, from what we decided, so that the next server reads the same message as we did; Via and
 * X-Forwarded-* say where it came through.
 *
 * No allocation, no shared state: any thread.
 */
#ifndef WEIR_REWRITE_H
#define WEIR_REWRITE_H

#include "http.h"

enum rewrite_forwarded { REWRITE_APPEND, REWRITE_SET, REWRITE_OFF };

struct rewrite_request {
	const char *via;               /* our pseudonym: "weir-5f3a…" */
	enum rewrite_forwarded forwarded;
	struct http_text client;       /* the client's address, for X-Forwarded-For (IPv6 without brackets) */
	const char *scheme;            /* "http": how the client reached us */
	struct http_text target_host;  /* Host for an HTTP/1.0 request that has none: the target's host:port */
	bool upgrades;                 /* Upgrade is passed on (a tunnel may come of it) */
	bool keep_alive;               /* whether we want to keep the upstream connection: else "Connection: close" */
	bool to_proxy;                 /* it goes to another proxy: in absolute form */
	const char *credentials;       /* to_proxy: "user:password" for it, or NULL */
	int max_forwards;              /* to send on OPTIONS and TRACE, already counted down; -1: leave as is */
};

struct rewrite_response {
	const char *via;          /* NULL: no Via (forwarded = off) */
	bool client_is_1_1;
	bool keep_alive;          /* whether the client's connection stays open */
	bool client_asked_keep_alive_1_0; /* a 1.0 client needs "Connection: keep-alive" to be told */
	enum http_framing framing;/* of what we send: BY_LENGTH with content_length, CHUNKED, UNTIL_CLOSE, NO_BODY */
	uint64_t content_length;
	bool has_content_length;  /* write Content-Length: by length; also announced in answers to HEAD and in 304 */
	const char *date;         /* added when the answer has no Date, as who passes it on must (RFC 9110 §6.6.1); or NULL */
	struct http_text extra;   /* whole lines of our own to be added: the RateLimit fields */
	bool upgrades;            /* this is the 101 of a tunnel: Connection and Upgrade are passed on */
};

/* A request of our own, that a parent proxy open a tunnel. */
struct rewrite_connect {
	const char *target;      /* "host:port" */
	const char *credentials; /* or NULL */
	const char *via;         /* or NULL */
	unsigned minor_version;  /* of the request that asks for it */
};

/* Each writes a whole head into out and returns its length, or 0 when it does not fit into capacity. */
size_t rewrite_request(const struct http_head *head, const struct rewrite_request *how, char *out, size_t capacity);
size_t rewrite_connect(const struct rewrite_connect *how, char *out, size_t capacity);
size_t rewrite_response(const struct http_head *head, const struct rewrite_response *how, char *out, size_t capacity);

/* Has this request passed through us before? (Via names our pseudonym: RFC 9110 §7.6.3) */
bool rewrite_is_loop(const struct http_head *head, const char *via);

#endif
