/* road.h: what the steps of the road share. For those files only:
 *
 *      proxy.c      the road itself: read head, relay, account; threads and connections
 *      roads.c      the memory of a request, lent to the thread that serves it
 *      admit.c      admit: who is asking, may it, and when
 *      line.c       waiting for a turn: of the threshold, of a host's rate
 *      reverse.c    pick and send: targets in turn, until one answers
 *      forward.c    pick and send, when the client says where to; CONNECT
 *      parent.c     asking a parent proxy for a tunnel
 *      attempt.c    one try at one target, for both
 */
#ifndef WEIR_ROAD_H
#define WEIR_ROAD_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/admission.h"
#include "lib/answer.h"
#include "lib/auth.h"
#include "lib/clock.h"
#include "lib/exchange.h"
#include "lib/hosts.h"
#include "lib/log.h"
#include "line.h"
#include "service.h"

/* How a step ended. */
enum step {
	STEP_ON,      /* the next step, please */
	STEP_REFUSED, /* road->answer says what the client is told */
	STEP_OVER,    /* nothing can be said any more: the client is gone, or has half an answer */
};

enum ending { END_KEEP, END_CLOSE, END_LINGER, END_RESET, END_AT_ONCE };

/* What a thread holds while it serves a request: see roads.h. */
struct road {
	struct road *next_free; /* under roads.c's mutex, while it is free */
	struct proxy *proxy;
	struct worker *worker;
	struct settings *settings; /* held */
	struct auth *auth;         /* held; forward: who may use it; NULL: everybody */
	unsigned settings_generation;
	struct exchange exchange;
	size_t max_header_bytes; /* what the buffers were made for */
	char *buffers;
	struct line_sleeper sleeper; /* a request in line waits with it */

	/* this connection */
	struct address peer;
	char peer_text[ADDRESS_TEXT_MAX];
	struct address destination; /* where the client connected to, if a PROXY header says so; else its length is 0 */
	bool is_first_request;
	unsigned stripe;         /* of the meters: this thread's own */

	/* this request */
	struct admission admission; /* who is asking: see client_text in there */
	struct line_turn turn;       /* of threshold */
	bool has_shared_start; /* and one of the whole fleet's, through Redis */
	struct redis_store_start shared_start;
	bool has_pick;
	struct balancer_pick pick;
	enum exchange_result last_result; /* of the last attempt */
	/* forward: where the client wants to go, and the place taken there */
	char host[256];
	unsigned port;
	char host_name[HOSTS_NAME_MAX];
	struct host_rates_hold rate; /* of the host, if it has one, and the turn taken there */
	struct line_turn host_turn;
	bool has_lease;
	struct hosts_lease lease;
	struct balancer_tried tried;
	struct answer answer;
	bool has_request; /* a head could be read */
	enum ending ending;
	struct log_access record;
	char target_text[ADDRESS_TEXT_MAX + 256];
	char body[1024];             /* of an answer of ours */
	char details[HOSTS_NAME_MAX + 64]; /* why, when that is no fixed phrase */
	char fields[RATELIMIT_MAX];
	const char *refused_by; /* the limit that refused it, or NULL */
	uint64_t begun_us;
	uint64_t upstream_begun_us; /* since when a target has been busy with it, as far as record.upstream_us has not counted that */
	bool traces;      /* each hop is written to the log: see road_trace() */
	uint64_t number;  /* of this request, for its traces */
};

/* The one way out for what can't go on. cause is a token of RFC 9209, details a phrase that lives as long as the request. */
enum step road_refuse(struct road *r, int status, const char *cause, const char *details);
/* No target answers: unavailable_status. */
enum step road_refuse_unavailable(struct road *r);
/* Nothing can be said any more. */
enum step road_over(struct road *r, const char *outcome);

/* A line about one hop of this request, for --trace. Off, it costs the look at one bool; the arguments are not worked out. */
#define road_trace(r, ...)                                                                                                  \
	do {                                                                                                                \
		if ((r)->traces)                                                                                            \
			log_trace((r)->proxy->log, proxy_name((r)->proxy), (r)->number, clock_us() - (r)->begun_us, __VA_ARGS__); \
	} while (0)

/* May this request go on at all? And when? For a reverse proxy it ends with a slot of the threshold in hand. */
enum step admit(struct road *r);
/* Takes a slot of the threshold, if there is none in hand; waits for one if need be. */
enum step admit_take_slot(struct road *r);
/* Takes a slot of the rate of the host that the client wants to reach (forward), as above. may_wait false: a turn that is not free
   at once is left alone; see r->host_turn.has_slot. */
enum step admit_take_host_turn(struct road *r, bool may_wait);
/* The request is over, or needs its host's rate no more: no turn is in hand. */
void admit_forget_host(struct road *r);
/* The client has finished sending: has it gone away? Not if it sent more than this request. context: the road. */
bool admit_client_is_gone(void *context);
/* Has it sent more than this request? */
bool admit_client_has_more(void *context);
/* Right before the first byte of a try leaves: is the slot in hand still good? One that a group's master gave may have died while a
   connection was made; then this waits for another, at the front of the line. r->turn.waited tells that it did. */
enum step admit_renew_slot(struct road *r);
/* The slots in hand (the threshold's, its host's) are used up: the request's first bytes have left, and since then it became now_us.
   Without one: nothing. */
void admit_use_slot(struct road *r, uint64_t now_us);
/* The slots in hand will not be used: they are the next ones'. Without one: nothing. */
void admit_give_slot_back(struct road *r);
/* Refuses by a limit that has a name: which, and when to come back. */
enum step admit_refuse_over_limit(struct road *r, const char *limit, uint64_t after_us);
/* Writes the RateLimit fields for all limits that apply to this request. refused_by: "threshold" or "host_rate", when that refused
   it, and how long it should stay away; else NULL. They live in the road until the next call, and may be empty. */
struct http_text admit_ratelimit_fields(struct road *r, const char *refused_by, uint64_t refused_after_us);

/* Picks targets and sends the request until one answers: then the head of its answer is there. */
enum step reverse_find_target(struct road *r);
/* What is left of a pick after the answer: the balancer hears that the request is over. */
void reverse_give_pick_back(struct road *r);

#endif
