/* forward.h: the steps of the road that a forward proxy walks in its own way. For proxy.c and admit.c only. */
#ifndef WEIR_FORWARD_H
#define WEIR_FORWARD_H

#include "road.h"

/* Credentials, and whether the client may go where it wants to. */
enum step forward_check(struct road *r);

/* A plain request: a place at the host, a connection, the head of the answer. */
enum step forward_find_target(struct road *r);
/* CONNECT: a place, a connection, 200, and a tunnel to its end. Returns STEP_OVER, or STEP_REFUSED before anything was opened. */
enum step forward_tunnel(struct road *r);

/* After the answer: the connection is kept for another request, its place with it … */
void forward_keep(struct road *r);
/* … or closed, and its place given back. Without a place: nothing. */
void forward_give_back(struct road *r);
/* For exchange->target_is_done; context: the road. The place at the host is given back before the client has the end of its answer:
   one that asks for one thing after another, each on a connection of its own, would else meet its own last request under a small
   cap. */
void forward_target_is_done(void *context);

#endif
