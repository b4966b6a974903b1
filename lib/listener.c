/* listener.c: see listener.h.
 *
 * What the textbook leaves out:
 * - SO_REUSEADDR: the connections of a server that has just ended stay in TIME_WAIT for a minute, and without it the next one
 *   could not bind the port meanwhile. It does not let two live listeners share a port.
 * - An IPv6 socket with IPV6_V6ONLY off takes IPv4 clients as well, so one socket, and one line of waiting threads, serves both.
 *   A machine without IPv6 gets an IPv4 socket instead.
 * - TCP_NODELAY is inherited by what accept() returns: set here once, it costs no call for each connection.
 * - SO_REUSEPORT would let two live listeners share a port, and two servers started by mistake would each get some of the
 *   clients. It is on for the moment in which one of our own takes over from another, and then off again.
 * - A unix socket's path outlives a crashed server: a path that nobody answers on is removed, one that is in use is an error.
 */
#include "listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCEPT_QUEUE 4096 /* the system cuts it to net.core.somaxconn */

/* A path left over from a server that is gone may be taken over. */
static void remove_stale_path(const struct address *address)
{
	struct stat status;
	if (lstat(address->local.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode))
		return;
	/* Not to block: a live server with a full queue is not waited for. */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, &address->any, address->length) != 0 && errno == ECONNREFUSED)
		unlink(address->local.sun_path);
	close(fd);
}

void listener_share(int fd, bool on)
{
	int value = on;
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, sizeof value); /* a unix socket has no such thing, and no need */
}

static int open_at(struct address *address, bool takes_over)
{
	int family = address->any.sa_family;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	int on = 1, off = 0;
	if (family != AF_UNIX) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	}
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (family == AF_UNIX)
		remove_stale_path(address);
	if (takes_over)
		listener_share(fd, true);
	if (bind(fd, &address->any, address->length) == 0 && listen(fd, ACCEPT_QUEUE) == 0) {
		listener_share(fd, false);
		return fd;
	}
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

int listener_open(const char *where, unsigned port, bool takes_over, char *error, size_t error_size)
{
	struct address address;
	bool good;
	if (where == NULL)
		good = address_parse("::", port, &address);
	else if (strncmp(where, "unix:", 5) == 0)
		good = address_unix(where + 5, &address);
	else
		good = address_parse(where, port, &address);
	if (!good) {
		snprintf(error, error_size, "cannot listen on \"%s\": neither an address nor unix:/path (of at most 107 bytes)", where);
		return -1;
	}
	int fd = open_at(&address, takes_over);
	if (fd < 0 && where == NULL && errno == EAFNOSUPPORT) {
		address_parse("0.0.0.0", port, &address);
		fd = open_at(&address, takes_over);
	}
	if (fd < 0) {
		int number = errno;
		char text[ADDRESS_TEXT_MAX];
		address_text(&address, text);
		snprintf(error, error_size, "cannot listen on %s: %s", text, strerror(number));
	}
	return fd;
}

void listener_address(int fd, struct address *address)
{
	memset(address, 0, sizeof *address);
	address->length = sizeof address->storage;
	getsockname(fd, &address->any, &address->length);
}

void listener_retire(int fd)
{
	struct address address;
	listener_address(fd, &address);
	if (address.any.sa_family == AF_UNIX && address.local.sun_path[0] != '\0')
		unlink(address.local.sun_path);
	shutdown(fd, SHUT_RD);
}
