/* notify.h: telling the service manager how things stand (the protocol of sd_notify(3)).
 *
 *      systemd, Type=notify                              weir
 *          starts it, NOTIFY_SOCKET=/run/systemd/notify
 *          waits                                         reads settings, opens every port, starts every crew
 *          "started" ◄─────────────────────────────────  READY=1
 *          shows the line in systemctl status ◄────────  STATUS=3 of 4 targets in, …           now and then
 *          waits with systemctl reload ◄───────────────  RELOADING=1, MONOTONIC_USEC=…         on SIGHUP
 *          "reloaded" ◄────────────────────────────────  READY=1
 *          gives it that long ◄────────────────────────  STOPPING=1, EXTEND_TIMEOUT_USEC=…     on SIGTERM
 *
 * A message is one datagram of lines NAME=VALUE to a unix socket. That is the whole protocol, it is promised to stay, and so there is no
 * library to link. Without it the manager takes a program for started as soon as it has forked: whoever is to be started after
 * weir would find no port to connect to, and a port that is taken would show as "started" first.
 *
 * The invariant: nothing here can keep weir from its work. Nobody listening, a socket that is full, a path that is wrong: the
 * message is lost, and the caller may say so once.
 *
 * One thread at a time.
 */
#ifndef WEIR_NOTIFY_H
#define WEIR_NOTIFY_H

#include <stdint.h>

enum notify_result {
	NOTIFY_SENT,
	NOTIFY_NOBODY,      /* there is no service manager that wants to know */
	NOTIFY_BAD_ADDRESS, /* neither a path from the root nor an abstract name, or too long */
	NOTIFY_FAILED,      /* errno says why */
};

struct notifier;

/* address: the value of NOTIFY_SOCKET, a path or, with @ for its first byte, a name in the abstract namespace; it is copied. NULL or
   empty: *out is NULL and the result NOTIFY_NOBODY. NOTIFY_SENT: *out is to be destroyed; nothing has been sent yet. Else *out is NULL. */
enum notify_result notifier_create(const char *address, struct notifier **out);
void notifier_destroy(struct notifier *notifier);

/* The verbs take a NULL notifier and say NOTIFY_NOBODY. status: what an administrator sees, a text without line breaks (what is no
   UTF-8, or is a control character, becomes '?'; a long one is cut). */

/* All ports are open and served; or, after notify_reloading(), the reload is over, well or not. */
enum notify_result notify_ready(struct notifier *notifier, const char *status);
/* now_us: clock_us(). The manager compares it with the moment it asked, to know which of its signals this is an answer to. */
enum notify_result notify_reloading(struct notifier *notifier, uint64_t now_us);
/* timeout_us: how long the end may take from now, whatever the manager's own setting says. */
enum notify_result notify_stopping(struct notifier *notifier, const char *status, uint64_t timeout_us);
/* Never waits for the manager. */
enum notify_result notify_status(struct notifier *notifier, const char *status);

#endif
