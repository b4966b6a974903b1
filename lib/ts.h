/* ts.h: which lock guards this field? Notes for the reader that clang can check.
 *
 * A comment "guarded by the mutex" is forgotten at the first hurried change. With these macros the comment is checked:
 * `make lint` runs clang with -Wthread-safety, and a bare read of a guarded field is an error. Other compilers see
 * nothing at all: every macro below vanishes.
 *
 * In C, clang cannot name a sibling field inside an attribute (clang 14), so each kind of lock has a *role*: one global
 * object that is declared, never defined and never touched at run time. The mutex is an ordinary field; the role is what
 * the compiler follows. It is per kind of lock, not per object: the lock of one limiter passes for that of another.
 * ThreadSanitizer (`make tsan`) covers that.
 *
 *      limiter_lock(l)        role limiter_mutex: held, GUARDED_BY(limiter_mutex) fields may be touched
 *      limiter_unlock(l)      role limiter_mutex: free
 *
 * THE ORDER OF LOCKS, outermost first. Each may be taken while those above it are held, never the other way round.
 * Most are never nested at all; the list is here so that the day they are, there is one answer.
 *
 *      weir_mutex          weir.c           whether an object of weir.h runs, and who waits for its end
 *      roster_mutex        roster.c         which services there are, and who looks at them
 *      live_mutex          live.c           the latest picture for the status page, and who waits for the next
 *      names_mutex         service.c        one change of the list of targets at a time
 *      proxy_mutex         service.c        the settings in force, the resolver, the crew
 *      roads_mutex         roads.c          the free roads of a service
 *      crew_mutex          lib/crew.c       the list of workers
 *      resolver_mutex      lib/resolver.c   the last answer of the name service
 *      lookups_mutex       lib/lookup.c     questions to the name service that are under way
 *      probe_mutex         lib/probe.c      the probe thread's orders and the probes under way
 *      cut_mutex           lib/cut.c        the connections one thread holds, to be cut by another
 *      client_limits_mutex lib/client_limits.c  one stripe of the table of clients
 *      switch_mutex        switch_table.c   which servers the message switch has
 *      host_rates_mutex    host_rates.c     which hosts of a forward proxy have a limiter
 *      cluster_mutex       group.c          this node's part of a group
 *      gossip_mutex        lib/gossip.c     where the other nodes are sent to
 *      limiter_mutex       limiter.c        the ring of starts and the line of those that wait
 *      balancer_mutex      balancer.c       the rotation
 *      client_counts_mutex lib/client_counts.c  connections of each client
 *      hosts_mutex         lib/hosts.c      places and idle connections of each host of a forward proxy
 *      redis_mutex         lib/redis_store.c  what this worker has told Redis and what it has yet to tell
 *      auth_mutex          lib/auth.c       who was let in lately, and how many checks are under way
 *      upstreams_mutex     lib/upstream.c   the list of all targets' pools
 *      upstream_mutex      lib/upstream.c   idle and leased connections of one target
 *      tls_mutex           lib/tls_stream.c the TLS sessions that one target has given us
 *      meters_mutex        lib/meters.c     the names of the limits that have refused
 *      recent_mutex        lib/recent.c     the last requests, while somebody looks
 *      log_mutex           lib/log.c        one line at a time
 *      log_events_mutex    lib/log.c        the last lines, for the status page
 *
 * No lock is held across a system call that can block.
 *
 * Source: clang's "Thread Safety Analysis"; roles as QEMU uses them in include/block/graph-lock.h.
 */
#ifndef WEIR_TS_H
#define WEIR_TS_H

#if defined(__clang__)
#define TSA(x) __attribute__((x))
#else
#define TSA(x)
#endif
#define GUARDED_BY(role) TSA(guarded_by(role))
#define PT_GUARDED_BY(role) TSA(pt_guarded_by(role))
#define REQUIRES(...) TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) TSA(release_capability(__VA_ARGS__))
#define ACQUIRED_AFTER(...) TSA(acquired_after(__VA_ARGS__))
#define UNCHECKED TSA(no_thread_safety_analysis)

struct TSA(capability("mutex")) lock_role {
	char never_used;
};

extern struct lock_role weir_mutex;
extern struct lock_role roster_mutex ACQUIRED_AFTER(weir_mutex);
extern struct lock_role live_mutex ACQUIRED_AFTER(roster_mutex);
extern struct lock_role names_mutex ACQUIRED_AFTER(live_mutex);
extern struct lock_role proxy_mutex ACQUIRED_AFTER(names_mutex);
extern struct lock_role roads_mutex ACQUIRED_AFTER(proxy_mutex);
extern struct lock_role crew_mutex ACQUIRED_AFTER(roads_mutex);
extern struct lock_role resolver_mutex ACQUIRED_AFTER(crew_mutex);
extern struct lock_role lookups_mutex ACQUIRED_AFTER(resolver_mutex);
extern struct lock_role probe_mutex ACQUIRED_AFTER(lookups_mutex);
extern struct lock_role cut_mutex ACQUIRED_AFTER(probe_mutex);
extern struct lock_role client_limits_mutex ACQUIRED_AFTER(cut_mutex);
extern struct lock_role switch_mutex ACQUIRED_AFTER(client_limits_mutex);
extern struct lock_role host_rates_mutex ACQUIRED_AFTER(switch_mutex);
extern struct lock_role cluster_mutex ACQUIRED_AFTER(host_rates_mutex);
extern struct lock_role gossip_mutex ACQUIRED_AFTER(cluster_mutex);
extern struct lock_role limiter_mutex ACQUIRED_AFTER(gossip_mutex);
extern struct lock_role balancer_mutex ACQUIRED_AFTER(limiter_mutex);
extern struct lock_role client_counts_mutex ACQUIRED_AFTER(balancer_mutex);
extern struct lock_role hosts_mutex ACQUIRED_AFTER(client_counts_mutex);
extern struct lock_role redis_mutex ACQUIRED_AFTER(hosts_mutex);
extern struct lock_role auth_mutex ACQUIRED_AFTER(redis_mutex);
extern struct lock_role upstreams_mutex ACQUIRED_AFTER(auth_mutex);
extern struct lock_role upstream_mutex ACQUIRED_AFTER(upstreams_mutex);
extern struct lock_role tls_mutex ACQUIRED_AFTER(upstream_mutex);
extern struct lock_role meters_mutex ACQUIRED_AFTER(tls_mutex);
extern struct lock_role recent_mutex ACQUIRED_AFTER(meters_mutex);
extern struct lock_role log_mutex ACQUIRED_AFTER(recent_mutex);
extern struct lock_role log_events_mutex ACQUIRED_AFTER(log_mutex);

/* The two verbs of one kind of lock: struct TYPE has a pthread_mutex_t FIELD of role ROLE. */
#define LOCK_VERBS(type, field, role)                                   \
	static inline void type##_lock(struct type *o) ACQUIRE(role) UNCHECKED; \
	static inline void type##_unlock(struct type *o) RELEASE(role) UNCHECKED; \
	static inline void type##_lock(struct type *o)                  \
	{                                                               \
		pthread_mutex_lock(&o->field);                          \
	}                                                               \
	static inline void type##_unlock(struct type *o)                \
	{                                                               \
		pthread_mutex_unlock(&o->field);                        \
	}

/* Lets the compiler check the arguments of a printf-like function. */
#if defined(__GNUC__) || defined(__clang__)
#define PRINTF_LIKE(format_at, first_at) __attribute__((format(printf, format_at, first_at)))
#else
#define PRINTF_LIKE(format_at, first_at)
#endif

#endif
