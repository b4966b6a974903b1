/* hosts.h: how many connections a forward proxy has open to each host, and who may open one more.
 *
 *      hosts_lease ──► HOSTS_IDLE    here is a connection that was idle ──┐
 *            │                                                           ├──► hosts_keep  it is idle again, its place stays taken
 *            ├───────► HOSTS_PLACE   a place is yours: connect ──────────┘└──► hosts_end   close it first; the place is free
 *            │
 *            ├── waits, first come first served, while the wish says so ── HOSTS_CLIENT_GONE
 *            └──────►  HOSTS_FULL, HOSTS_STORE_DOWN, HOSTS_NO_MEMORY      nothing was taken
 *
 * A place is a connection that is open, is being opened, or is idle in the pool: the host on the other side can't tell one from
 * another. So an idle connection counts until it is closed. It is closed first when its place is needed, for whichever port.
 *
 * A place that comes free while others wait is handed to the first of them and never lies open in between: nobody who comes
 * later can take it. Waiters sleep in poll() on an eventfd of their own and on their client's socket.
 *
 * With a store (redis_store.h) the cap holds over all workers that share it; without one it holds over this process. What is to
 * happen when the store can't be reached is decided here (enum hosts_fail).
 *
 * The invariant: places of a host ≤ its cap at every moment, save those that were taken before the cap was lowered. A host with
 * no place taken and nobody waiting has no entry: memory is bounded by the connections.
 *
 * Any thread may call anything. One mutex; nothing that can block happens under it.
 */
#ifndef WEIR_HOSTS_H
#define WEIR_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hosts;
struct redis_store;

/* "[" + an IPv6 address or a name of 253 + "]:65535" + NUL. */
#define HOSTS_NAME_MAX 272

/* The name under which a host is counted: lower case, no trailing dot, ports 80 and 443 left out, IPv6 in brackets. Every spelling
   of one address (brackets or none, "0x7f.1", "::ffff:127.0.0.1") gives the same name, or a cap could be passed by spelling.
   False: no host (empty, too long, or with bytes that no name has). */
bool hosts_name(const char *host, size_t length, unsigned port, char out[HOSTS_NAME_MAX]);

/* ---- limits --------------------------------------------------------------------------------------------------------- */

/* "example.com:8443=5" of host_limits: the name as hosts_name() gives it. */
struct host_limit {
	char *name;
	unsigned cap; /* 0: no cap */
};
struct host_limits {
	struct host_limit *items;
	size_t count;
};

/* When the store can't be reached. */
enum hosts_fail {
	HOSTS_FAIL_CLOSED, /* nobody is let through to a host with a cap, not even over an idle connection */
	HOSTS_FAIL_LOCAL,  /* this worker's share: cap ÷ live workers, at least 1 */
	HOSTS_FAIL_OPEN,   /* the cap, for this worker alone */
};

struct hosts_settings {
	unsigned default_cap; /* max_connections; 0: no cap */
	const struct host_limits *limits;
	enum hosts_fail when_store_is_down;
};

/* What happened, for the log at level debug: called with no lock held, by the thread that did it. count: places of this worker
   after it; limit: the host's cap, 0 for none. */
struct hosts_watch {
	void (*changed)(void *context, const char *host, bool was_opened, unsigned count, unsigned limit);
	void *context;
};

/* store may be NULL; it must outlive the hosts (destroy the hosts first). NULL when out of memory or of eventfds. */
struct hosts *hosts_create(const struct hosts_settings *settings, struct redis_store *store, const struct hosts_watch *watch);
/* Closes what is idle. No lease may be out and nobody may wait. */
void hosts_destroy(struct hosts *hosts);

/* Replaces all limits. Those that wait are looked at again: a higher cap lets them in at once. A lowered cap closes no connection
   that is in use; idle ones over it are closed. 0, or -1 when out of memory: nothing changed. */
int hosts_configure(struct hosts *hosts, const struct hosts_settings *settings);
/* One at a time (the API). name as hosts_name() gives it. -1 when out of memory. */
int hosts_set_default_cap(struct hosts *hosts, unsigned cap);
int hosts_set_cap(struct hosts *hosts, const char *name, unsigned cap);
int hosts_remove_cap(struct hosts *hosts, const char *name);
/* The cap in force for a name, 0 for none. */
unsigned hosts_cap(struct hosts *hosts, const char *name);
/* Connections that are open to a host, idle ones too, or being opened; NULL: to all hosts. */
unsigned hosts_open(struct hosts *hosts, const char *name);
/* A copy of the overrides, sorted by name, and the default: items and each name are the caller's to free (host_limits_free()).
   -1 when out of memory. */
int hosts_limits(struct hosts *hosts, unsigned *default_cap, struct host_limits *copy);
void host_limits_free(struct host_limits *limits);

/* ---- leases --------------------------------------------------------------------------------------------------------- */

enum hosts_answer {
	HOSTS_IDLE,        /* lease->fd is a connection to this host and port: idle until now, and quiet */
	HOSTS_PLACE,       /* a place is taken for you: connect, then keep or end */
	HOSTS_FULL,        /* lease->limit says the cap, lease->count the places of all workers as far as known */
	HOSTS_STORE_DOWN,  /* the store can't be reached and the settings say "closed" */
	HOSTS_CLIENT_GONE, /* it hung up while it waited */
	HOSTS_NO_MEMORY,   /* or no descriptor to wait with */
};

struct hosts_wish {
	const char *name; /* from hosts_name() */
	unsigned port;    /* an idle connection is for one port (80 and 443 have a name in common), or whatever else this number says */
	/* Which idle ones will do: those that have been idle for no longer than this. 0: a fresh connection is wanted (a tunnel). */
	uint64_t idle_max_us;
	uint64_t now_us;        /* clock_us() */
	uint64_t wait_until_us; /* now_us plus cap_backlog; 0: answer at once */
	int client_fd;          /* watched for hang-up while waiting; -1: not */
	/* The client has finished sending (POLLRDHUP): has it gone away? NULL: yes, unless unread bytes are in the socket. A client that
	   sent more than this request has not. Called at most once a wait. */
	bool (*client_is_gone)(void *context);
	void *context;
};

/* The memory is the caller's. From HOSTS_IDLE or HOSTS_PLACE until hosts_keep() or hosts_end(). */
struct hosts_lease {
	struct hosts_host *host; /* NULL: no place is held */
	unsigned port;
	int fd;                  /* HOSTS_IDLE: the connection; -1 otherwise */
	unsigned limit, count;
	/* What the kernel was told last about the idle connection (struct conn has the same fields): it need not be told again.
	   Set them before hosts_keep(). */
	uint64_t receive_timeout_us, send_timeout_us;
};

/* With a store it may wait a little even with wait_until_us 0: while the store settles (an empty Redis was met), and for
   idle connections that another worker is asked to close. At most some 2 s. */
enum hosts_answer hosts_lease(struct hosts *hosts, const struct hosts_wish *wish, struct hosts_lease *lease);

/* The exchange ended cleanly: fd goes into the pool, or is closed when its place is wanted more. It must be detached from
   its cut already. The lease is over; fd is not the caller's any more. */
void hosts_keep(struct hosts *hosts, struct hosts_lease *lease, int fd, uint64_t now_us);
/* The connection is closed (by the caller, before this), or was never opened. Without a place held: nothing happens. */
void hosts_end(struct hosts *hosts, struct hosts_lease *lease);

/* Closes idle connections that have been idle for longer than idle_max_us or that the other side has closed. Now and then. */
void hosts_reap(struct hosts *hosts, uint64_t idle_max_us, uint64_t now_us);
/* Closes every idle connection (a drain begins; the resolver's answer changed). */
void hosts_close_idle(struct hosts *hosts);

/* ---- for the status page ---------------------------------------------------------------------------------------------- */

struct hosts_report_row {
	char name[HOSTS_NAME_MAX];
	unsigned open, idle, waiting, limit;
};
struct hosts_totals {
	unsigned open, idle, waiting, hosts;
	uint64_t opened_total, reused_total, refused_total, refused_store_down_total;
};
/* Writes up to capacity rows, in no order; returns how many there are. */
size_t hosts_report(struct hosts *hosts, struct hosts_report_row *rows, size_t capacity, struct hosts_totals *totals);

#endif
