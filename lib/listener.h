/* listener.h: the socket that clients connect to. */
#ifndef WEIR_LISTENER_H
#define WEIR_LISTENER_H

#include <stddef.h>

#include <stdbool.h>

#include "address.h"

/* Opens, binds and listens. bind is NULL for every address of the machine, IPv6 and IPv4 on one socket; an address; or
   "unix:/path". port 0 lets the system pick. takes_over: from a listener for which
   listener_share() is on. Returns the descriptor; -1 and a line in error. */
int listener_open(const char *bind, unsigned port, bool takes_over, char *error, size_t error_size);

/* While this is on, another listener of this process can be opened on the same port, to take over from this one. */
void listener_share(int fd, bool on);

/* Where it listens in fact. */
void listener_address(int fd, struct address *address);

/* Nobody can connect any more, and every accept() returns; a unix socket's path is removed. The descriptor is still to be closed:
   not before the last thread has left accept(), for the number may be another file's by then. */
void listener_retire(int fd);

#endif
