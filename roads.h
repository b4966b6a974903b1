/* roads.h: the memory of requests, lent to a thread for one request at a time (part of the road).
 *
 *      thread:  a seat  (1 page)    waits for the client's next request      10,000 of these are 10,000 connections
 *                 │ something came
 *                 ▼
 *               a road  (10 pages)  heads, buffers, what the request holds   as many of these as requests are under way
 *                 │ answered
 *                 ▼
 *               given back, and taken by whoever is next
 *
 * Most connections are silent most of the time, and a thread that waits for its client's next request needs none of
 * what the last one needed. If each kept its own, 10,000 connections would keep 100,000 pages; and each request would
 * be read into memory that no processor has touched lately. The road that was given back last is in the cache still:
 * so it is the one that is taken next.
 *
 * Measured in bench/RESULTS.md: 46 KiB for each idle connection became 13.
 */
#ifndef WEIR_ROADS_H
#define WEIR_ROADS_H

#include "lib/conn.h"
#include "road.h"

/* What a client that has asked something says first is read into the seat; the rest goes to the road at once. */
#define SEAT_BYTES 4096u

/* What a thread keeps while it holds no road: the connection, and who is at its other end. */
struct seat {
	struct proxy *proxy;
	struct worker *worker;
	unsigned stripe; /* of the meters: this thread's own */
	struct conn client;
	struct address peer, destination;
	char peer_text[ADDRESS_TEXT_MAX];
	bool is_first_request;
	char bytes[SEAT_BYTES];
};

/* The roads of one service, none at first. NULL when out of memory. */
struct roads *roads_create(struct proxy *proxy);
/* All must have been given back. */
void roads_destroy(struct roads *roads);

/* A road under the settings in force, without a connection; NULL when out of memory. Any thread. */
struct road *roads_take(struct roads *roads, const struct seat *seat);
/* It holds nothing any more. */
void roads_give_back(struct roads *roads, struct road *road);

/* Frees the memory of those that nobody has needed since the last call. Any thread. */
void roads_trim(struct roads *roads);

/* Takes a road for what has come on the seat's connection, which moves to it. NULL when out of memory: it stays. */
struct road *roads_rise(struct roads *roads, struct seat *seat);
/* The connection is silent: it moves to the seat, and the road is given back. */
void roads_rest(struct roads *roads, struct road *road, struct seat *seat);

/* The settings in force, and who may use the service under them. */
void roads_take_settings(struct road *road);

#endif
