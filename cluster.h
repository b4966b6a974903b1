/* cluster.h: one threshold, many nodes: who is in the group, who is master, and who gets how many starts.
 *
 *      datagrams in ──► cluster_receive ─┐                       ┌─► send     datagrams out
 *      time passes  ──► cluster_tick    ─┼──► the state machine ─┼─► give     starts for this node's line, each with its time
 *      the line grew ─► cluster_tick    ─┘                       ├─► answered how the line stood when the master last looked
 *                                                                └─► happened something to tell a person
 *
 * It is a pure state machine: it opens no socket, reads no clock, draws no random number and waits for nothing. So the tests can
 * run thousands of hours of loss, delay, death and pause in minutes, and the same seed gives the same run.
 *
 * One caller at a time: whoever owns it holds a lock of its own around each call (cluster_mutex, group.c). The callbacks are called
 * from inside those calls; they must not block and must not call back into the cluster.
 *
 * Times are microseconds of this node's own clock, which never goes back; no two nodes' clocks are ever compared. CLUSTER in docs/
 * tells the protocol and what each rule is for.
 */
#ifndef WEIR_CLUSTER_H
#define WEIR_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLUSTER_NODES_MAX 64u         /* in one group, this one included */
#define CLUSTER_THRESHOLD_MAX 1000000u
#define CLUSTER_WINDOW_MAX_US UINT64_C(604800000000) /* a week */
#define CLUSTER_RUNS_MAX 128u         /* of starts in one grant */
#define CLUSTER_BUCKETS_MAX 160u      /* of a ring that is handed over */
#define CLUSTER_BUCKET_US 10000u
#define CLUSTER_PLACE_BYTES 32u

/* ---- what nodes say to each other --------------------------------------------------------------------------------- */

enum cluster_kind {
	CLUSTER_HEARTBEAT = 1, /* here I am, and this is whom I hear */
	CLUSTER_LEAVE,         /* I am going */
	CLUSTER_DEMAND,        /* so many wait here */
	CLUSTER_GRANT,         /* so many may start, and when */
	CLUSTER_TAKEOVER,      /* my id is lower than yours: stop giving, and tell me what you gave */
	CLUSTER_HANDOVER,      /* this is what I gave */
};

struct cluster_heartbeat {
	uint64_t uptime_us;
	unsigned master;         /* whose grants the sender takes; its own id when it is master itself; 0: nobody's */
	bool is_aside;           /* it found a twin with its id, and takes no part */
	bool wants_answer;       /* it has not heard of the receiver for a while: a heartbeat back, please, to it alone */
	unsigned threshold;      /* as configured there */
	uint64_t window_us;
	unsigned group_size;     /* as configured there; 0: not known */
	uint64_t started_total;  /* for whoever looks at a status page */
	unsigned waiting;
	uint64_t challenge;      /* to be echoed */
	unsigned echo_count;
	struct cluster_echo {
		unsigned id;
		uint64_t challenge; /* the last one heard of that node */
	} echoes[CLUSTER_NODES_MAX];
};

/* Everything in it is absolute: lost, doubled or late, it does no harm. */
struct cluster_demand {
	uint64_t asked_us;       /* q, by the sender's clock; comes back in the grant */
	uint64_t last_grant;     /* the number of the last grant that arrived */
	unsigned waiting;        /* in line, starts in hand already taken off */
	uint64_t used_total;     /* starts that were used, ever */
	uint64_t died_total;     /* starts that nobody could use in time, ever */
	uint64_t late_us_total;  /* by how much starts came too late, all together, ever ... */
	uint64_t late_seen_us_total; /* ... and how much of it some master has confirmed */
	unsigned round_trip_us;  /* what a grant takes, from the question to the answer; 0: not known yet */
};

struct cluster_grant {
	uint64_t asked_us;       /* of the demand that it answers */
	uint64_t number;         /* rises with each grant to that node */
	unsigned late_us;        /* how long after its moment a start may still be used */
	unsigned run_count;      /* may be 0: nothing is due */
	struct cluster_run {
		uint32_t in_us;  /* not before so long from now */
		uint32_t count;
	} runs[CLUSTER_RUNS_MAX];
};

struct cluster_takeover {
	uint64_t nonce;          /* comes back in the answer */
};

struct cluster_handover {
	uint64_t nonce;
	uint32_t bucket_us;      /* the width of a bucket, at least CLUSTER_BUCKET_US */
	unsigned bucket_count;
	uint32_t buckets[CLUSTER_BUCKETS_MAX]; /* [i]: so many slots are free again in at most (i + 1) * bucket_us from now */
};

struct cluster_message {
	enum cluster_kind kind;
	unsigned id;             /* of the sender */
	uint64_t incarnation;    /* of its life, random */
	uint64_t epoch;
	union {
		struct cluster_heartbeat heartbeat;
		struct cluster_demand demand;
		struct cluster_grant grant;
		struct cluster_takeover takeover;
		struct cluster_handover handover;
	} is;
};

/* Where a datagram came from and an answer goes to. Bytes that only the caller understands. */
struct cluster_place {
	unsigned char bytes[CLUSTER_PLACE_BYTES];
};

/* ---- what the node is told, and tells ----------------------------------------------------------------------------- */

enum cluster_event {
	CLUSTER_NODE_CAME,       /* id */
	CLUSTER_NODE_WENT,       /* id; silent for too long, or it said so */
	CLUSTER_MASTER_CHANGED,  /* id, 0: none; epoch in number */
	CLUSTER_TWIN_MET,        /* another node has our id: that is a mistake in the settings */
	CLUSTER_STEPPED_ASIDE,   /* and it is the elder: we take no part */
	CLUSTER_CAME_BACK,       /* it is gone */
	CLUSTER_WAS_PAUSED,      /* number: microseconds; we start again as a newcomer */
	CLUSTER_DISAGREES,       /* id's threshold (number), window or group size is not the master's */
	CLUSTER_FULL,            /* more than CLUSTER_NODES_MAX nodes: id is not let in */
};

/* How this node's line stands. */
struct cluster_line {
	unsigned waiting;        /* requests in line */
	unsigned held;           /* starts in hand that nobody has taken yet */
	uint64_t used_total, died_total, late_us_total;
	uint64_t started_total;
};

struct cluster_calls {
	void *context;
	/* to: NULL for everybody, this node's own copy included (it is dropped). */
	void (*send)(void *context, const struct cluster_place *to, const struct cluster_message *message);
	/* count starts for this node, each not before from_us and not after until_us, in this order. */
	void (*give)(void *context, uint64_t from_us, uint64_t until_us, unsigned count, uint64_t now_us);
	/* The master has looked at the line as it stood at asked_us, and gave what was due: who stood in it then, and is beyond the
	   backlog, waits in vain. */
	void (*answered)(void *context, uint64_t asked_us, uint64_t now_us);
	void (*line)(void *context, uint64_t now_us, struct cluster_line *out);
	uint64_t (*random)(void *context);
	void (*happened)(void *context, enum cluster_event event, unsigned id, uint64_t number);
};

struct cluster_options {
	unsigned id;             /* 1 to 65535, of nobody else in the group */
	uint64_t incarnation;    /* random, not 0 */
	unsigned threshold;      /* starts in a window, for the whole group; 0: no limit, nothing is given */
	uint64_t window_us;
	unsigned burst;          /* how many may start at once; 0 or >= threshold: all */
	unsigned group_size;     /* nodes that there should be; 0: as many as were ever seen at once */
	bool is_strict;          /* a part of a split group uses only its share */
};

struct cluster;

/* calls is copied. NULL when out of memory, or when the threshold is over CLUSTER_THRESHOLD_MAX or the window over
   CLUSTER_WINDOW_MAX_US. */
struct cluster *cluster_create(const struct cluster_options *options, const struct cluster_calls *calls, uint64_t now_us);
void cluster_destroy(struct cluster *c);

/* Does what is due; also to be called at once when the line has grown. Returns when it wants to be called next, at the latest. */
uint64_t cluster_tick(struct cluster *c, uint64_t now_us);
/* A datagram came that is of this group, genuine, whole and not seen before. Call cluster_tick() after the last that is there. */
void cluster_receive(struct cluster *c, const struct cluster_message *message, const struct cluster_place *from, uint64_t now_us);
/* Says goodbye. Nothing is given or asked for any more. */
void cluster_leave(struct cluster *c, uint64_t now_us);
/* New settings; id and incarnation stay. Nothing is refilled: slots that are added are usable after quiet time. -1 when out of
   memory or when the threshold or the window is too large: nothing changed. */
int cluster_configure(struct cluster *c, const struct cluster_options *options, uint64_t now_us);

/* ---- for a status page -------------------------------------------------------------------------------------------- */

enum cluster_state { CLUSTER_ALIVE, CLUSTER_DEAD, CLUSTER_ASIDE };

struct cluster_node_report {
	unsigned id;
	enum cluster_state state;
	uint64_t age_us;         /* since it was last heard of; 0 for this node */
	uint64_t started_total;
	unsigned waiting;
	uint64_t uptime_us;
	unsigned granted;        /* what the master gave it in the last window; 0 unless this node is master */
};

struct cluster_report {
	unsigned self, master;   /* master: 0 when there is none */
	uint64_t epoch;
	bool is_giving;          /* this node is master and its quiet time is over */
	uint64_t quiet_until_us; /* of a master that may not give yet; else 0 */
	unsigned late_us;        /* L, as this master uses it */
	unsigned slots;          /* the master's ring: fewer than the threshold in a part of a strict group */
	uint64_t granted_total, takeovers_total, elections_total;
	unsigned node_count;     /* this node first, then those that it knows, by id */
	struct cluster_node_report nodes[CLUSTER_NODES_MAX];
};

void cluster_report(const struct cluster *c, uint64_t now_us, struct cluster_report *out);

#endif
