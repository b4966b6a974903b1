/* exchange.h: one request and its answer, between one client and one target.
 *
 *      exchange_send ──► exchange_await_head ──► exchange_relay
 *
 * A request without a body, or whose body came with its head, is sent in one call, and the thread then simply blocks for the
 * answer. One whose body is still on its way makes the exchange two flows at once: the answer may come before the body has
 * ended, and neither side may be left waiting for the other (RFC 9112 §9.5). Then, and only then, poll() watches both.
 *
 * One thread at a time.
 */
#ifndef WEIR_EXCHANGE_H
#define WEIR_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "cut.h"
#include "http.h"
#include "relay.h"
#include "rewrite.h"

enum exchange_result {
	EXCHANGE_OK,
	EXCHANGE_TARGET_FAILED,   /* it refused, reset or closed before a whole head of an answer */
	EXCHANGE_TARGET_SILENT,   /* it said nothing for as long as it may */
	EXCHANGE_TARGET_BAD,      /* its answer is malformed or ambiguous: exchange->why */
	EXCHANGE_TARGET_CUT,      /* its answer ended before its end, or stopped coming */
	EXCHANGE_CLIENT_GONE,
	EXCHANGE_CLIENT_SILENT,   /* its body stopped coming */
	EXCHANGE_CLIENT_BAD,      /* its body is malformed: exchange->why */
	EXCHANGE_CLIENT_TOO_LONG, /* its body is over the limit */
};

/* The deadlines and limits of an exchange. */
struct exchange_limits {
	uint64_t idle_us;         /* the client may keep us waiting for its body, or for taking the answer */
	uint64_t response_us;     /* the target may be silent */
	uint64_t max_body_bytes;  /* 0: none */
	size_t max_header_bytes;
};

struct exchange {
	struct conn client, upstream;
	struct cut *cut; /* of the thread, or NULL: who ends a connection from outside ends no message */
	struct http_head request, response;
	struct exchange_limits limits;
	struct splice_share *pipes; /* of which large bodies may take one; NULL: they are copied */
	/* Called when all of the answer has come and its last bytes are about to go to the client: the target's connection may be given
	   away (its buffer is still read from). A client that has the end of its answer may ask again at once. NULL: not wanted. */
	void (*target_is_done)(void *context);
	void *context;

	/* The request on its way up. */
	struct flow up;
	size_t sent_head_bytes;     /* length of the head that was sent */
	uint64_t sent_bytes;        /* what left for the target in this try, head included */
	bool client_is_untouched;   /* no byte of the body has been read since the head: the same bytes can be sent again */
	bool up_is_broken;          /* the target takes no more of the body; it may still answer */

	/* The answer on its way down. */
	struct flow down;
	bool down_has_begun;
	bool has_answer_bytes;      /* something of an answer came from the target */
	struct http_text extra;     /* fields of ours to add to the answer's head; set before exchange_relay() */
	bool client_must_close;     /* what the client was told: the connection ends with this answer */
	uint64_t moved_us;          /* when something last moved in either direction */
	const char *why;

	char *head; /* heads to be sent are written here */
	size_t head_capacity;
};

/* A request head has been read and kept in client's buffer. */
void exchange_begin(struct exchange *x);

/* Sends the request's head, and what there is of its body, without waiting. EXCHANGE_OK also when the target did not take all of it
   (the rest goes in exchange_await_head()), and when it broke: it may have answered before. Nothing is sent if the body's beginning is
   malformed (EXCHANGE_CLIENT_BAD, _TOO_LONG). May be called again for another target while x->client_is_untouched. */
enum exchange_result exchange_send(struct exchange *x, const struct rewrite_request *how);

/* Waits for the head of the answer; passes 1xx on to the client. On EXCHANGE_OK x->response is the final one. */
enum exchange_result exchange_await_head(struct exchange *x, const char *via);

/* Sends the answer to the client, while the rest of the request goes up. keep_alive: the client's connection may stay open; what
   was told to the client in the end is in x->client_must_close. */
enum exchange_result exchange_relay(struct exchange *x, const char *via, bool keep_alive);

/* The exchange is over, however far it came: the connections are as they were, and calls on them block. May be called at any time. */
void exchange_end(struct exchange *x);

/* Has the whole request gone up? */
bool exchange_request_is_done(const struct exchange *x);
/* Is it the client's turn: has everything that came of the request gone up, and is more of it to come? */
bool exchange_client_is_waited_for(const struct exchange *x);
/* Can the target's connection serve another request? */
bool exchange_upstream_is_reusable(const struct exchange *x);

#endif
