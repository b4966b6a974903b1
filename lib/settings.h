/* settings.h: everything that can be set, read from the command line, the environment and an INI file.
 *
 * Each setting is written once, as a row of settings.def. From that one table come the fields of the structs below, the INI
 * keys, the flags, the environment names, --help, --check, the reference page and the error messages.
 *
 *      flag  >  environment  >  file  >  default             each value remembers which of them it came from
 *
 * A configuration never changes once it has been read: a reload reads a new one. Any thread may read it.
 */
#ifndef WEIR_SETTINGS_H
#define WEIR_SETTINGS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "destination.h"
#include "hosts.h"
#include "network.h"

struct tls;

/* The kinds of values, as C types. */

/* count in window_us; count 0: no limit. "100" is 100 in 1 s, "600/m" 600 in 60 s, "0.5/s" 1 in 2 s, "2.5/s" 5 in 2 s. */
struct settings_rate {
	unsigned count;
	uint64_t window_us;
};

struct settings_endpoint {
	char *host;    /* name or address (IPv6 without brackets); the path of a "unix:" target */
	unsigned port; /* 0 for "unix:" */
	bool is_unix;
	unsigned weight;
};

struct settings_endpoints {
	struct settings_endpoint *items;
	size_t count;
};

/* Where another node of the group is, or all of them. */
struct settings_peer {
	char *host; /* name or address, IPv6 without brackets */
	unsigned port;
	bool is_all; /* "dns:": each address of the name is a node */
};

struct settings_peers {
	struct settings_peer *items;
	size_t count;
};

enum settings_hash_key_kind { HASH_KEY_CLIENT, HASH_KEY_URI, HASH_KEY_HEADER };
struct settings_hash_key {
	enum settings_hash_key_kind kind;
	char *header; /* HASH_KEY_HEADER */
};

/* What tells clients apart: the parts that are asked for, together. */
struct settings_key {
	bool client;  /* its address */
	bool path;    /* the request's path */
	char *header; /* a field's value; NULL: not asked for */
};

struct settings_header {
	char *name;
	char *value;
};

struct settings_exemptions {
	struct networks networks;
	struct settings_header *headers; /* any one of them will do */
	size_t header_count;
};

/* "example.com:8443=600/m" of host_rates: the name as hosts_name() gives it. */
struct settings_host_rate {
	char *name;
	struct settings_rate rate;
};
struct settings_host_rates {
	struct settings_host_rate *items;
	size_t count;
};

/* One limit.NAME. It concerns the requests that are all that is said below; what is NULL or empty says nothing. */
#define SETTINGS_RULES_MAX 16
struct settings_rule {
	char *name;                /* in lower case, with _ for - */
	struct settings_rate rate; /* count is at least 1 */
	unsigned burst;            /* at least 1 */
	struct settings_key key;
	char *method;              /* "POST" or "POST,PUT" */
	char *path;                /* as the request's path is once it is normalized; without the * */
	bool path_is_prefix;       /* there was a * */
	char *host;                /* without port */
	struct settings_header *headers;
	size_t header_count;
	bool shadow;               /* count and log, never refuse */
};

/* Choices, in the order in which settings.def spells them. */
enum settings_mode { MODE_REVERSE, MODE_PACKET, MODE_FORWARD };
enum settings_balance { BALANCE_ROUNDROBIN, BALANCE_LEASTCONN, BALANCE_HASH };
enum settings_forwarded { FORWARDED_APPEND, FORWARDED_SET, FORWARDED_OFF };
enum settings_queue { QUEUE_FIFO, QUEUE_FAIR };
enum settings_ratelimit_headers { RATELIMIT_BOTH, RATELIMIT_DRAFT, RATELIMIT_LEGACY, RATELIMIT_OFF };
enum settings_proxy_protocol { PROXY_PROTOCOL_OFF, PROXY_PROTOCOL_ON };
enum settings_send_proxy { SEND_PROXY_OFF, SEND_PROXY_V1, SEND_PROXY_V2 }; /* its number is the version */
enum settings_redis_fail { REDIS_FAIL_CLOSED, REDIS_FAIL_LOCAL, REDIS_FAIL_OPEN }; /* as enum hosts_fail */
enum settings_log_level { LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR };
enum settings_partition { PARTITION_AVAILABLE, PARTITION_STRICT };
enum settings_ssl { SSL_NO, SSL_YES };
enum settings_trace { TRACE_NO, TRACE_YES };
enum settings_log_format { FORMAT_TEXT, FORMAT_JSON };

/* The C field of each kind of row. A duration is kept in microseconds, a size in bytes, and the field's name says so. */
#define SETTINGS_FIELD_TEXT(name) char *name; /* NULL when not set */
#define SETTINGS_FIELD_NUMBER(name) unsigned name;
#define SETTINGS_FIELD_SIZE(name) uint64_t name##_bytes;
#define SETTINGS_FIELD_DURATION(name) uint64_t name##_us;
#define SETTINGS_FIELD_CHOICE(name) int name;
#define SETTINGS_FIELD_RATE(name) struct settings_rate name;
#define SETTINGS_FIELD_ENDPOINTS(name) struct settings_endpoints name;
#define SETTINGS_FIELD_PEERS(name) struct settings_peers name;
#define SETTINGS_FIELD_HASH_KEY(name) struct settings_hash_key name;
#define SETTINGS_FIELD_KEY(name) struct settings_key name;
#define SETTINGS_FIELD_NETWORKS(name) struct networks name;
#define SETTINGS_FIELD_EXEMPTIONS(name) struct settings_exemptions name;
#define SETTINGS_FIELD_HOST_LIMITS(name) struct host_limits name;
#define SETTINGS_FIELD_HOST_RATES(name) struct settings_host_rates name;
#define SETTINGS_FIELD_DESTINATIONS(name) struct destinations name;
/* One row, many keys: limit.NAME. At most SETTINGS_RULES_MAX, in the order in which they were first written. */
#define SETTINGS_FIELD_RULE(name)    \
	struct settings_rule *rules; \
	size_t rule_count;

/* One service: a stanza of the file that is meant for this machine, or the command line's "weir reverse …". */
struct settings {
	char *name; /* the stanza's name; for a service of the command line its mode */
#define SERVICE(kind, name, ...) SETTINGS_FIELD_##kind(name)
#define GLOBAL(kind, name, ...)
#include "settings.def"
#undef SERVICE
#undef GLOBAL
	/* Worked out. client_burst is as well: it is at least 1 when there is a client_rate. A secret whose NAME_file was set
	   is what that file holds. */
	unsigned cap_reject_status; /* reject_status; 500 when that was not set: it is 429 for rates and 500 for caps */
	unsigned backlog_requests; /* threshold × backlog, at least 1 when both are set */
	char *group_address;       /* unicast or multicast, however it was spelt, or peers; NULL: it is alone */
	unsigned group_size;       /* nodes that the file or peers lists; 0: not known */
	/* Made of the files that are named. NULL: plain. */
	struct tls *tls_client, *tls_server;
	char *warnings; /* lines, without the last one's end; NULL: none */
	struct settings_origins *origins;
	struct settings *base; /* held: of settings_with_threshold(), whose other values are the base's own; else NULL */
	atomic_uint holders; /* see settings_hold() */
};

/* How many may wait: rate × backlog, at least 1 when both are set. No service's is over SETTINGS_BACKLOG_MAX. */
#define SETTINGS_BACKLOG_MAX 1000000u
uint64_t settings_backlog_requests(struct settings_rate rate, uint64_t backlog_us);

/* [globals] */
struct settings_globals {
#define SERVICE(kind, name, ...)
#define GLOBAL(kind, name, ...) SETTINGS_FIELD_##kind(name)
#include "settings.def"
#undef SERVICE
#undef GLOBAL
	struct settings_origins *origins;
};

struct configuration {
	struct settings_globals globals;
	struct settings **services;
	size_t service_count;
	bool daemon;     /* --daemon */
	bool quiet;      /* --quiet: of --check nothing but what is wrong or odd */
	/* For reading it again. */
	int argc;
	char **argv;
	char *file_path; /* of -c, from the root, for a daemon may have changed its folder; NULL without -c */
	bool is_program; /* of configuration_of_program() */
	const char *program_file;
	const char *const *program_settings;
};

enum configuration_wish {
	CONFIGURATION_RUN,
	CONFIGURATION_CHECK,     /* --check: configuration_print() and exit 0 */
	CONFIGURATION_HELP,      /* --help: settings_print_help() and exit 0 */
	CONFIGURATION_VERSION,   /* --version */
	CONFIGURATION_REFERENCE, /* --reference: settings_print_reference() and exit 0 */
	CONFIGURATION_MANUAL_FLAGS, /* --manual-flags, and so on */
	CONFIGURATION_MANUAL_KEYS,
	CONFIGURATION_COMPLETION,   /* --completion bash */
};

#define SETTINGS_ERROR_MAX 1024

/* Reads command line, environment and file. On success *wish says what is asked for (services are there for RUN and CHECK).
   NULL: error holds one line, without newline, that names the option or FILE:LINE, what was read and what is allowed.
   argv must live as long as the configuration. Main thread. */
struct configuration *configuration_read(int argc, char **argv, enum configuration_wish *wish, char error[SETTINGS_ERROR_MAX]);
/* For a program that has the library in it: file, or NULL, and over it settings, "key = value" …, NULL; or NULL. "node = NAME" chooses
   a stanza, and may stand more than once. The environment is not looked at. Both must live as long as the configuration. */
struct configuration *configuration_of_program(const char *file, const char *const settings[], char error[SETTINGS_ERROR_MAX]);
/* The same command line and environment again, and the file as it stands now. */
struct configuration *configuration_reread(const struct configuration *old, char error[SETTINGS_ERROR_MAX]);
void configuration_free(struct configuration *configuration);

/* Finds a setting that a file or a flag sets for this service, to something else than its default, and that does nothing
   in its mode: "weir.ini:7: endpoint does nothing in mode packet, only in reverse". The environment may hold settings for
   other services. *at is 0 before
   the first call, and is moved on. False when there is none any more. Any thread. */
#define SETTINGS_IDLE_MAX 512
bool settings_next_idle(const struct settings *settings, size_t *at, char out[SETTINGS_IDLE_MAX]);

/* "[name]", then "key = value    # origin" for each setting. Secrets are masked. */
void configuration_print(const struct configuration *configuration, FILE *out);
void settings_print_help(FILE *out);
void settings_print_reference(FILE *out); /* Markdown, for docs/settings.md */
void settings_print_manual_flags(FILE *out); /* mdoc, for docs/man/weir.1 */
void settings_print_manual_keys(FILE *out);  /* and weir.ini.5 */
void settings_print_completion(FILE *out);   /* a script for bash */

/* A service's settings outlive the configuration they came from while someone holds them. Any thread. */
struct settings *settings_hold(struct settings *settings);
void settings_release(struct settings *settings);

/* The same settings with another threshold, and what is worked out from it: held by the caller. NULL, and error, when it can't be
   (the backlog would be too long, no memory). settings is held by the result. Any thread. */
struct settings *settings_with_threshold(struct settings *settings, const struct settings_rate *threshold,
                                         char error[SETTINGS_ERROR_MAX]);
/* Reads a host as host_limits does: "host", "host:port", "[v6]", "[v6]:port", and gives the name it is counted by. NULL, or what is
   wrong. Any thread. */
const char *settings_parse_host(const char *text, size_t length, char name[HOSTS_NAME_MAX]);
/* Reads a rate as the settings write it: "100", "600/m", "0.5/s". False, and why, when it is none. Any thread. */
bool settings_parse_rate(const char *text, struct settings_rate *out, char *why, size_t why_size);

#endif
