/* traffic.h: what the two ends of the soak's traffic share. For tests/soak alone:
 *
 *      traffic.c    the loop, the commands, the pace, the report
 *      clients.c    the clients' end: asks, checks what comes back, and judges what does not
 *      targets.c    the targets' end: notes when a request starts, checks its body, answers; dies and comes back
 *      windows.c    no window of one second may hold more starts than the limit
 *      message.c    bytes
 *
 * Both ends are one program with one thread, so a client's end knows at once what became of its request at the other: whether a target
 * had seen it, had begun to answer it, and has died since. That is what makes "lost" exact.
 */
#ifndef WEIR_SOAK_TRAFFIC_H
#define WEIR_SOAK_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>

#include "message.h"

#define TARGETS_MAX 8
#define PLACES_MAX 8
#define CLIENTS_MAX 1500u
#define SERVED_MAX 3000u
#define US_PER_S UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* What a descriptor in epoll belongs to: the first member of what it is. */
enum ear_kind { EAR_COMMANDS, EAR_LISTENER, EAR_SERVED, EAR_CLIENT };
struct ear {
	enum ear_kind kind;
	int fd; /* -1: none */
};

enum service { SERVICE_GROUP, SERVICE_SOLO, SERVICE_OPEN, SERVICE_FORWARD, SERVICES };

/* A weir that listens. */
enum place_state { PLACE_DOWN, PLACE_UP, PLACE_DRAINING }; /* draining: it was told to stop */
struct place {
	enum place_state state;
	enum service service;
	unsigned port, connections, busy;
	unsigned kills; /* how often it was killed: a request that began before the last one may be gone with it */
};

struct target {
	struct ear ear;
	unsigned port, kills;
	bool is_up;
};

/* One connection of a client. */
enum client_state { CLIENT_FREE, CLIENT_IDLE, CLIENT_WAITS, CLIENT_TUNNEL };
enum kind { KIND_GET, KIND_POST, KIND_TUNNEL, KINDS };
struct client {
	struct ear ear;
	enum client_state state;
	enum kind kind;
	unsigned place, requests_left;
	bool closes, asks_connect; /* CONNECT is on its way: the request itself comes after */
	uint64_t serial;           /* of the request, in the whole soak */
	uint64_t begun_us, idle_us; /* since when */
	unsigned place_kills; /* as they were when it began */
	/* what its target tells */
	bool is_seen, is_answering;
	unsigned target, target_kills;
	uint64_t answer_bytes;
	/* the answer */
	bool has_answer_bytes;
	unsigned rounds_left; /* of a tunnel */
	uint64_t round, round_bytes, round_due_us;
	struct outgoing out;
	struct incoming in;
	char request[512];
};

/* A connection to a target. */
enum served_state { SERVED_FREE, SERVED_READS, SERVED_DELAYS, SERVED_ANSWERS, SERVED_ECHOES };
struct served {
	struct ear ear;
	enum served_state state;
	unsigned target, slot;
	uint64_t serial, answer_bytes, due_us;
	bool closes;
	struct outgoing out;
	struct incoming in;
};

struct counts {
	unsigned long long asked[KINDS], answered[KINDS];
	unsigned long long refused;       /* over a limit: 429 */
	unsigned long long cut_by_target; /* the target died in the middle of its answer */
	unsigned long long failed_by_target; /* a POST, or what goes to one target alone: that target died, and the client heard 502 */
	unsigned long long gone_with_node;   /* the weir that had it was killed */
	unsigned long long moved;   /* the weir was leaving and had not taken it: to be asked elsewhere */
	unsigned long long skipped; /* all connections were busy: never asked */
	unsigned long long lost, wrong; /* what must not be */
};

struct traffic {
	int epoll;
	uint64_t seed, serial;
	unsigned rate[SERVICES];
	bool rests, ends, only_large;
	unsigned busy; /* clients with a request or a tunnel */
	unsigned target_kills;
	uint64_t last_kill_us; /* of a target */
	struct place places[PLACES_MAX];
	struct target targets[TARGETS_MAX];
	unsigned target_count;
	unsigned clients_top, served_top; /* none beyond was ever in use */
	struct client clients[CLIENTS_MAX];
	struct served served[SERVED_MAX];
	struct counts counts;
	struct windows *windows;
};

uint64_t now_us(void);
/* A number below limit, the next of the seed's. */
uint64_t chance(struct traffic *t, uint64_t limit);
/* epoll tells of it from now on, at its edges. */
void listen_to(struct traffic *t, struct ear *ear);

/* clients.c */
void clients_begin(struct traffic *t);
/* One request to some place of the service. */
void client_ask_one(struct traffic *t, enum service service);
void client_ready(struct traffic *t, struct client *client);
/* What has no event: pauses of tunnels, answers that never come. */
void clients_tick(struct traffic *t);
/* Closes what is idle. */
void clients_close_idle(struct traffic *t);

/* targets.c */
void targets_begin(struct traffic *t, unsigned count);
void target_accept(struct traffic *t, struct target *target);
void served_ready(struct traffic *t, struct served *served);
void targets_tick(struct traffic *t);
/* As if its process died: with resets (hard), or as a process ends that had nothing unread. */
void target_kill(struct traffic *t, unsigned index, bool hard);
void target_revive(struct traffic *t, unsigned index);

/* windows.c: starts of a service, and how many a second may have. */
struct windows *windows_create(void);
void windows_note(struct windows *w, enum service service, uint64_t ns);
/* The limit from now on; 0: none. */
void windows_limit(struct windows *w, enum service service, unsigned limit);
struct windows_report {
	unsigned long long starts, breaches;
	unsigned fullest; /* window */
	long most_over;   /* the most that a window was over its limit, or the least it was under */
};
/* Judges all windows that are over. */
struct windows_report windows_judge(struct windows *w, enum service service);

#endif
