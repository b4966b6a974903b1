/* service.h: what the threads of one service share. For service.c and proxy.c only. */
#ifndef WEIR_SERVICE_H
#define WEIR_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "balancer.h"
#include "group.h"
#include "lib/client_counts.h"
#include "lib/client_limits.h"
#include "lib/auth.h"
#include "lib/crew.h"
#include "lib/hosts.h"
#include "lib/lookup.h"
#include "lib/meters.h"
#include "lib/probe.h"
#include "lib/recent.h"
#include "lib/redis_store.h"
#include "lib/resolver.h"
#include "lib/settings.h"
#include "lib/splice.h"
#include "lib/ts.h"
#include "lib/upstream.h"
#include "host_rates.h"
#include "limiter.h"
#include "proxy.h"
#include "switch.h"

/* How many clients' rates a service remembers (see client_limits.h). */
#define CLIENTS_REMEMBERED (1u << 21)
/* "weir-" and 16 hex digits. */
#define VIA_MAX 32

struct proxy {
	/* Set once at the start, or objects with locks of their own. */
	struct log *log;
	char *name;
	char via[VIA_MAX]; /* what we call ourselves in Via: random, so that two instances in a row are not taken for a loop */
	struct roads *roads; /* the memory of requests */
	struct upstreams *upstreams;
	struct balancer *balancer;
	struct limiter *limiter;
	struct group *group; /* of nodes that share the threshold, if there is one */
	struct client_limits *client_limits;
	struct client_counts *client_counts; /* connections of each client */
	struct client_counts *goodbyes;      /* and those over client_connections, while they are told so */
	struct meters *meters;     /* what was done, and how long it took */
	struct splice_share pipes; /* for large bodies */
	struct recent *recent;     /* the last requests, while somebody looks */
	/* forward */
	struct hosts *hosts;       /* connections to each host, and their caps; NULL unless that is the mode */
	struct lookups *lookups;   /* who the hosts' names are asked of */
	struct host_rates *host_rates; /* how fast requests to each host may start; NULL unless that is the mode */
	struct redis_store *_Atomic store; /* caps and threshold shared by many workers; its thread may call back before this is set */
	struct packet_switch *packets; /* the table of the message switch; NULL unless that is the mode */
	struct prober *prober;
	atomic_ullong shadowed_total, shadow_logged_us; /* requests that a rule in shadow mode would have refused */
	atomic_uint unresolved; /* targets whose names do not resolve, when that was last said */
	atomic_ullong closed_logged_us; /* when the log last told of a connection without a PROXY header */
	atomic_ullong traced_total;
	atomic_ullong refused_total; /* over a limit, whichever */
	atomic_ullong requests_total, answered_total; /* answered: by weir itself */
	atomic_bool is_draining;
	atomic_uint cut_total; /* connections with something in hand, when the time to drain was over */
	uint64_t started_us;
	atomic_uint settings_generation;   /* changes with settings: a worker looks at this number for each request */
	uint64_t reap_us;                  /* when idle connections are looked at next; the probe thread's own */

	pthread_mutex_t names;
	unsigned answers_taken GUARDED_BY(names_mutex); /* the resolver's generation that the balancer has */

	pthread_mutex_t mutex;
	int opened_fd GUARDED_BY(proxy_mutex); /* between proxy_create() and proxy_start(): the listener; else -1 */
	struct settings *settings GUARDED_BY(proxy_mutex);
	struct resolver *resolver GUARDED_BY(proxy_mutex);
	struct auth *auth GUARDED_BY(proxy_mutex); /* forward: who may use it; NULL: everybody */
	struct serving *serving GUARDED_BY(proxy_mutex); /* the listener and its crew; behind it those that a reload has replaced */
};

LOCK_VERBS(proxy, mutex, proxy_mutex)

/* The settings in force, held: settings_release() them. generation is what to compare settings_generation with. */
struct settings *service_settings(struct proxy *proxy, unsigned *generation);

/* Who may use a forward proxy, held: auth_release() it. NULL: everybody. */
struct auth *service_auth(struct proxy *proxy);

/* A connection to this target failed: perhaps its name has moved. */
void service_target_failed(struct proxy *proxy);

/* A connection to a host was opened or closed: a line in the log at level debug. context: the proxy. */
void service_host_changed(void *context, const char *host, bool was_opened, unsigned count, unsigned limit);

/* A connection has come: with tls_crtfile, shakes hands, within header_timeout (mode packet: idle_timeout). One that
   is_unwanted (its client has too many, and this one is counted nowhere) has less time. TLS_GREETED: go on, with TLS or
   without. TLS_SPOKE_PLAINLY: the client may be told so, in plain text. Else the connection is of no use; the log says
   why. */
struct service_greeting {
	struct worker *worker;
	const struct settings *settings;
	struct conn *client;
	const char *client_text;
	bool is_unwanted;
};
enum tls_greeting service_shake_hands(struct proxy *proxy, const struct service_greeting *greeting);
/* Another threshold, at once: nothing is refilled, nobody dropped, and who waits is under the new one. It stays until the settings are
   read again. False, and a line in error, when it can't be: then nothing has changed. */
bool service_set_threshold(struct proxy *proxy, const struct settings_rate *threshold, char *error, size_t error_size);
/* The same for the caps of a forward proxy: all at once. */
bool service_set_caps(struct proxy *proxy, unsigned default_cap, const struct host_limits *limits);

/* A request has ended: it is counted, and shown to those who look. refused_by: the limit that refused it, or NULL. is_tunnel: how long
   it was open says nothing about how fast anybody is. */
void service_count(struct proxy *proxy, unsigned stripe, const struct log_access *record, const char *refused_by, bool is_tunnel);

/* How it is reached from this machine: "http://127.0.0.1:8000", "https://[::1]:8443", "tcp://…" of a message switch, "unix:/path". False
   when it does not listen. */
#define SERVICE_URL_MAX (ADDRESS_TEXT_MAX + 16)
bool service_url(struct proxy *proxy, char out[SERVICE_URL_MAX]);

/* Connections of clients that are being served. */
unsigned service_connections(struct proxy *proxy);

/* The crew's job, in proxy.c. */
extern const struct crew_job proxy_crew_job;
#endif
