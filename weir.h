/* weir.h: the proxy as a part of another program. This is the whole of it: nothing else of weir's needs to be included.
 *
 *      static const char *const settings[] = { "mode = forward", "port = 0", "max_connections = 25", NULL };
 *      char error[WEIR_ERROR_MAX];
 *      struct weir *weir = weir_create(settings, NULL, NULL, error, sizeof error);
 *      if (weir == NULL || weir_start(weir, error, sizeof error) != WEIR_OK)
 *              fprintf(stderr, "%s\n", error);
 *      else
 *              printf("the proxy is at %s\n", weir_url(weir));
 *      ...
 *      weir_stop(weir, 5);
 *      weir_destroy(weir);
 *
 *      weir_create ──► weir_start ──► weir_stop ──► weir_destroy            in the background
 *                 └──► weir_serve ──────────────┘                           on the caller's thread, until another calls weir_stop()
 *
 * An object has no state outside itself: as many as wanted live in one process, of whatever kind, and end in whatever
 * order. It starts threads (with every signal blocked), opens sockets and, if settings say so, files; all of it is gone
 * when weir_destroy() returns, but for a question to the name service that nobody answers: its thread ends when the
 * system gives it up. It installs no signal handler, changes no signal mask but its own threads', raises no SIGPIPE,
 * reads no environment, changes no limit of the process (ulimit -n: a client takes two descriptors, and max_clients of
 * 10000 is only the most there may be), and never ends the process.
 *
 * Threads. Every function may be called from any thread, several at a time, with two exceptions: weir_destroy() is the
 * last call, and no function of an object may be called by its logger.
 *
 * Errors. Functions that can fail in many ways take error and error_size: room for one line without newline, which says
 * what was read and what is allowed, as `weir` would say it. It is always ended by a NUL, cut if there is too little
 * room, "" when all is well; error may be NULL. Others return an enum weir_result, and weir_result_text() tells what it
 * means. NULL for an object is an error like any other.
 *
 * Memory. Whatever is passed in is copied before a function returns, and stays the caller's.
 *
 * Link with: pkg-config --cflags --libs weir (or --static --libs weir).
 */
#ifndef WEIR_H
#define WEIR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header; weir_version() is that of the library that is there when the program runs. */
#define WEIR_VERSION "0.1.0"
#define WEIR_VERSION_MAJOR 0
#define WEIR_VERSION_MINOR 1
#define WEIR_VERSION_PATCH 0

/* The functions of this header are the only ones that the library shows. */
#if defined(__GNUC__)
#define WEIR_API __attribute__((visibility("default")))
#else
#define WEIR_API
#endif

struct weir;

enum weir_result {
	WEIR_OK = 0,
	WEIR_CUT = 1,         /* stopped, but connections had to be cut */
	WEIR_FAILED = -1,     /* error says why */
	WEIR_NOTHING = -2,    /* NULL where something is needed */
	WEIR_BAD_HOST = -3,   /* not "host", "host:port", "[IPv6]" or "[IPv6]:port" */
	WEIR_BAD_LIMIT = -4,  /* over WEIR_LIMIT_MAX, or WEIR_LIMITS_MAX of them */
	WEIR_NO_FORWARD = -5, /* there is no service of mode forward, or it was stopped */
	WEIR_NO_MEMORY = -6,
};

/* Enough for every error. */
#define WEIR_ERROR_MAX 1024

/* A sentence without end, for a message: "not a host; allowed: …". It lives for ever. */
WEIR_API const char *weir_result_text(enum weir_result result);

/* "0.1.0". It lives for ever. */
WEIR_API const char *weir_version(void);

/* ---- log ------------------------------------------------------------------------------------------------------------- */

enum weir_log_level { WEIR_LOG_DEBUG, WEIR_LOG_INFO, WEIR_LOG_WARN, WEIR_LOG_ERROR };

/* Takes one line: service is the name of the service that it is about, or NULL; text has no newline and no control
   characters. Both are valid during the call alone.

   With a logger nothing is written to standard error or output. It gets each line of the level that log_level sets
   or above (info), those that a logfile gets too; lines about requests when "access_log = -" is set (level info, as
   log_format says), else at level debug.

   It is called by the thread to which it happens, often one that serves a client, and by several at a time: it
   should return soon. That may also be the thread that has just called a function of the object, and a function may
   wait for a thread that logs: whoever calls one must not hold a lock that the logger takes. It must not call a
   function of the object that calls it, nor leave by anything but a return (an exception, longjmp()): what was under
   way would be so for ever. Not after weir_destroy(). */
typedef void weir_logger(void *context, enum weir_log_level level, const char *service, const char *text);

/* ---- life ------------------------------------------------------------------------------------------------------------ */

/* Makes a proxy and opens its ports, so that weir_port() is known; it begins to answer with weir_start().

   settings: "key = value" texts, the last one NULL; blanks around key and value are optional. The keys are those of
   a stanza of weir.ini and of its [globals], as docs/settings.md lists them (weir --help, weir.ini(5)): "port = 0",
   "endpoint = 127.0.0.1:9001". Each may stand once. NULL: none. user and pidfile belong to a
   process and not to a part of one: they are an error here.

   logger: NULL: lines go to logfile if that is set, else to standard error. context is passed to it, and stays the
   caller's.

   Takes as long as Redis and names take to answer: at most some connect_timeout (3 s). NULL, and a line in error,
   when a setting is wrong, a file can't be read, a port is taken, or there is no memory: then nothing is left
   behind. */
WEIR_API struct weir *weir_create(const char *const *settings, weir_logger *logger, void *context, char *error, size_t error_size);

/* The same from a file, which is read now and by weir_reload(). Every stanza for this machine is a service, as with
   `weir -c`; "node = NAME" in settings chooses stanzas by name instead, and may stand more than once. Other settings
   override those of every stanza. user and pidfile in the file are passed over, and the log says so. */
WEIR_API struct weir *weir_create_from_file(const char *path, const char *const *settings, weir_logger *logger, void *context,
                                            char *error, size_t error_size);

/* Begins to serve in the background, and returns at once. Once. WEIR_OK, or WEIR_FAILED and a line in error: it can
   then only be destroyed. */
WEIR_API enum weir_result weir_start(struct weir *weir, char *error, size_t error_size);

/* Starts, if weir_start() was not called before, and returns when it has been stopped by another thread: WEIR_OK,
   WEIR_CUT, or WEIR_FAILED and a line in error. One that was stopped already returns at once. */
WEIR_API enum weir_result weir_serve(struct weir *weir, char *error, size_t error_size);

/* As the deadline of weir_stop(): each service has its drain_timeout. */
#define WEIR_DRAIN_TIMEOUT (-1.0)

/* Takes no more connections, lets those that are there finish the request in hand, leaves the cluster, gives back
   what Redis was told, and returns when all that is done. What has a request in hand deadline_s seconds from now is
   cut: 0 does so at once; a negative number is WEIR_DRAIN_TIMEOUT. Neither a client that hangs nor a target or a
   name service makes it last longer, but for what the end itself takes: a fraction of a second, with Redis or open
   status pages up to 2 s. A weir_reload() that is under way is waited for, and that may wait for names: at most
   connect_timeout for each service.

   Any thread but one of the logger's, at any time, also before weir_start(), and more than once: a second call waits
   for the first, and cuts when its own deadline comes before. WEIR_OK: everything was finished. WEIR_CUT: something
   had to be cut. Each call returns the same. Afterwards it can't be started again. Not for a signal handler: let a
   thread take the signal, with sigwait(). */
WEIR_API enum weir_result weir_stop(struct weir *weir, double deadline_s);

/* Frees it, after weir_stop(weir, 0) if it has not been stopped. NULL: nothing. Waits for a thread that is in
   weir_serve() or weir_stop(); no other call may be under way, or come later. */
WEIR_API void weir_destroy(struct weir *weir);

/* Reads the file again, and goes over to what it says; no connection is dropped and no limit refilled. Limits that
   were set by the functions below become what the settings say. Without a file: that alone. WEIR_OK, or WEIR_FAILED
   and a line in error: the file is wrong and nothing has changed, or not all could be done (a new port is taken),
   and what could has been. */
WEIR_API enum weir_result weir_reload(struct weir *weir, char *error, size_t error_size);

/* Opens logfile and access_log anew, by their names: what logrotate wants after it has moved them away. */
WEIR_API void weir_reopen_logs(struct weir *weir);

/* ---- where it is ----------------------------------------------------------------------------------------------------- */

/* The port of the first service, also when "port = 0" left the choice to the system. 0 when it has none (bind =
   unix:/path), and once it was stopped. */
WEIR_API unsigned weir_port(struct weir *weir);

/* How it is reached from this machine: "http://127.0.0.1:8000", "https://…" with tls_crtfile, "tcp://…" for mode
   packet, "unix:/path". It lives as long as the object. NULL once it was stopped, or when there is no memory. */
WEIR_API const char *weir_url(struct weir *weir);

/* The same of the service with that name: the stanza's; without a file it is the mode's. 0, or NULL, when there is
   none. */
WEIR_API unsigned weir_service_port(struct weir *weir, const char *service);
WEIR_API const char *weir_service_url(struct weir *weir, const char *service);

/* ---- limits of a forward proxy --------------------------------------------------------------------------------------- */

/* How many connections may be open to one host at once, for all clients together; 0: as many as they like. A change
   holds for the next connection, at once, and until weir_reload().

   A limit that is lowered below what is open closes nothing that is in use: connections that are idle are closed,
   those with a request end in their own time, and until fewer are open than the limit says new ones are refused (or
   wait, with cap_backlog). One that is raised lets those in that wait.

   A host is "host", "host:port" (80 and 443 may be left out, and are the same), "[IPv6]" or "[IPv6]:port", in any
   spelling: "API.example." and "api.example:443" are one. An object with several services of mode forward sets the
   limit of each, and reads that of the first; make an object of each ("node = NAME") to tell them apart. With
   redis_addr the limit is that of the whole fleet: set it everywhere. */

#define WEIR_LIMIT_MAX 1000000u
#define WEIR_LIMITS_MAX 4096u

/* For hosts that have no limit of their own. */
WEIR_API enum weir_result weir_set_default_limit(struct weir *weir, unsigned limit);

/* A limit for one host, new or instead of the one it has. */
WEIR_API enum weir_result weir_set_host_limit(struct weir *weir, const char *host, unsigned limit);

/* Of another name than the function below: in C++ it could not be called weir_host_limit without "struct" before it. */
struct weir_limit {
	const char *host;
	unsigned limit;
};

/* Replaces all limits of single hosts by these: a host that is not among them falls under the default. All or
   nothing; error says which one is wrong. A host that is there twice is wrong. count 0 removes all. */
WEIR_API enum weir_result weir_set_host_limits(struct weir *weir, const struct weir_limit *limits, size_t count, char *error,
                                               size_t error_size);

/* The host falls under the default. One that has no limit of its own: nothing happens, WEIR_OK. */
WEIR_API enum weir_result weir_remove_host_limit(struct weir *weir, const char *host);

/* What is in force; for a host its own limit, or the default. A negative enum weir_result on errors. */
WEIR_API long weir_default_limit(struct weir *weir);
WEIR_API long weir_host_limit(struct weir *weir, const char *host);

/* "[" + an IPv6 address or a name of 253 + "]:65535" + NUL. */
#define WEIR_HOST_MAX 272

struct weir_host {
	char name[WEIR_HOST_MAX]; /* as it is counted: lower case, 80 and 443 left out */
	unsigned limit;
	unsigned active;
};

/* Writes the hosts that have a limit of their own, up to capacity, sorted by name. Returns how many there are, which
   may be more; a negative enum weir_result on errors. out may be NULL when capacity is 0. */
WEIR_API long weir_host_limits(struct weir *weir, struct weir_host *out, size_t capacity);

/* Connections to targets. Mode forward: those that are open to this host, idle ones that wait to be used again too,
   for the host can't tell them apart, and those that are being opened. Mode reverse: requests that are at this
   target ("127.0.0.1:9001", as the status page writes it), mode packet: 0. host NULL: to all together. Several
   services are added up. 0 for a host that nothing goes to; a negative enum weir_result on errors. */
WEIR_API long weir_active_connections(struct weir *weir, const char *host);

#ifdef __cplusplus
}
#endif

#endif
