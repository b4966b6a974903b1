/* admin.h: a small HTTP server of its own, for people and programs that look after weir.
 *
 *      accept ─► read head ─► guard ─► read body ─► answer() ─► send ─┬─► the next request
 *                  deadline, bound    deadline, bound   the caller's  └─► stream(): what there is to say, as long as someone listens
 *
 * It shares the trades of the road (lib/http.h reads its heads, lib/crew.h gives it threads) and none of its limits: a service that is
 * full, or that drains, must still say so. What is served is the caller's business; here is what every answer has in common: who may
 * ask (guard.h), how much, and for how long.
 *
 * Bounds: ADMIN_CLIENTS_MAX connections at once, a head of ADMIN_HEAD_MAX, a body of ADMIN_BODY_MAX, and a deadline for each read and
 * write. Who keeps a connection open without asking loses it after a few seconds, and after one when there are hardly places left: a
 * thousand watchers must not keep those out who ask whether we live.
 */
#ifndef WEIR_ADMIN_H
#define WEIR_ADMIN_H

#include <stdbool.h>
#include <stddef.h>

#include "http.h"

#define ADMIN_CLIENTS_MAX 64u
#define ADMIN_HEAD_MAX (16u * 1024u)
#define ADMIN_BODY_MAX (256u * 1024u)

/* ---- where it listens ----------------------------------------------------------------------------------------------- */

struct admin_place {
	char bind[128]; /* for listener_open() */
	unsigned port;  /* 0: any that is free */
	char name[128]; /* the name it is called by, for Host; "" when it is an address */
};
/* Reads "9100" (on loopback), "127.0.0.1:9100", "[::1]:9100", "localhost:9100", "*:9100" (on every address) or "unix:/path".
   False for anything else. */
bool admin_parse_place(const char *text, struct admin_place *out);

/* ---- answers -------------------------------------------------------------------------------------------------------- */

struct admin_request {
	enum http_method method; /* HTTP_GET or HTTP_PUT; HEAD is asked as GET */
	struct http_text path;   /* without what follows '?' */
	bool wants_body;         /* false: HEAD */
	const char *body;        /* of a PUT: JSON, as its Content-Type said */
	size_t body_bytes;
};

/* One connection that a stream is written to. */
struct admin_stream;

struct admin_reply {
	int status;
	const char *content_type; /* static */
	const char *fields;       /* further "Name: value\r\n" lines, or NULL: static, or in room */
	char room[1024];
	char *body;               /* from malloc(): freed when it is sent. NULL: empty */
	size_t body_bytes;
	/* Not NULL: after the head this writes to the stream until it ends. The connection is closed then. */
	void (*stream)(void *context, struct admin_stream *stream);
};

/* Sends to a stream. False when the client is gone, or takes nothing, or the server ends. */
bool admin_stream_send(struct admin_stream *stream, const char *bytes, size_t length);
/* Is there still somebody? Asked when there is nothing to send. */
bool admin_stream_is_open(struct admin_stream *stream);

/* A refusal in JSON: {"error":"…"}. why is static or lives until the call returns. */
void admin_refuse(struct admin_reply *reply, int status, const char *why);

struct admin_job {
	void *context;
	/* Fills reply, whose fields are all zero. Methods other than GET, HEAD and PUT are refused before. Called by many threads. */
	void (*answer)(void *context, const struct admin_request *request, struct admin_reply *reply);
	/* Something went wrong that is not a client's fault. */
	void (*complain)(void *context, const char *what, int error);
};

struct admin;

/* Opens the port; nobody is served yet. token NULL: none. Both are copied. beside: one that is open and will be stopped, perhaps at the
   same port of another address that includes this one; or NULL. NULL, and a line in error, when it can't. */
struct admin *admin_open(const char *place, const char *token, const struct admin_job *job, const struct admin *beside, char *error,
                         size_t error_size);
/* Begins to serve. False, and a line in error, when there is no memory or thread to do it with. Once. */
bool admin_start(struct admin *admin, char *error, size_t error_size);
/* Ends all connections, after a moment for answers under way, and frees. */
void admin_stop(struct admin *admin);

/* Where it listens: "http://127.0.0.1:9100/". */
#define ADMIN_URL_MAX 192
void admin_url(struct admin *admin, char out[ADMIN_URL_MAX]);

#endif
