/* roads.c: see roads.h.
 *
 * The free roads are a stack under a mutex: the last one given back is the first one taken. From time to time those are freed
 * that nobody has needed since the time before: as many as the stack had left at its lowest. So a burst of requests does not
 * leave its memory behind for good, and while it lasts hardly a request pays for making and freeing its own. More than
 * FREE_MAX are not kept even that long: ten thousand clients may all ask once and then be silent.
 *
 * The invariant: a connection is in one place, in the seat or in the road; the other's descriptor is -1. The
 * descriptor that was told to worker_cut() stays the same, whichever it is in.
 */
#include "roads.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "forward.h"
#include "lib/ts.h"

#define FREE_MAX 512
/* Room for the fields we add to a head. */
#define HEAD_ROOM (4u * 1024u)

struct roads {
	struct proxy *proxy;
	pthread_mutex_t mutex;
	struct road *free GUARDED_BY(roads_mutex);
	unsigned free_count GUARDED_BY(roads_mutex);
	unsigned least_free GUARDED_BY(roads_mutex); /* the lowest that free_count was since roads_trim() */
};

LOCK_VERBS(roads, mutex, roads_mutex)

void roads_take_settings(struct road *r)
{
	if (r->settings != NULL)
		settings_release(r->settings);
	auth_release(r->auth);
	r->settings = service_settings(r->proxy, &r->settings_generation);
	r->auth = service_auth(r->proxy);
}

/* The buffers are as large as the greatest head may be. Pages that are never touched cost nothing. */
static bool make_buffers(struct road *r)
{
	size_t max_header = (size_t)r->settings->max_header_bytes;
	if (r->buffers != NULL && r->max_header_bytes == max_header)
		return true;
	size_t read_bytes = max_header + CONN_BODY_ROOM, head_bytes = max_header + HEAD_ROOM;
	char *buffers = malloc(2 * read_bytes + head_bytes);
	if (buffers == NULL)
		return false;
	free(r->buffers);
	r->buffers = buffers;
	r->max_header_bytes = max_header;
	conn_init(&r->exchange.client, -1, buffers, read_bytes);
	conn_init(&r->exchange.upstream, -1, buffers + read_bytes, read_bytes);
	r->exchange.head = buffers + 2 * read_bytes;
	r->exchange.head_capacity = head_bytes;
	return true;
}

static void end_road(struct road *r)
{
	line_close(&r->sleeper);
	settings_release(r->settings);
	auth_release(r->auth);
	free(r->buffers);
	free(r);
}

static void end_roads(struct road *r)
{
	while (r != NULL) {
		struct road *next = r->next_free;
		end_road(r);
		r = next;
	}
}

static struct road *begin_road(struct proxy *proxy)
{
	struct road *r = malloc(sizeof *r);
	if (r == NULL)
		return NULL;
	memset(r, 0, sizeof *r);
	r->proxy = proxy;
	r->exchange.target_is_done = forward_target_is_done;
	r->exchange.context = r;
	r->exchange.pipes = &proxy->pipes;
	r->sleeper = (struct line_sleeper){ .wake_fd = -1, .client_has_sent_more = admit_client_has_more, .context = r };
	roads_take_settings(r);
	if (make_buffers(r))
		return r;
	end_road(r);
	return NULL;
}

struct roads *roads_create(struct proxy *proxy)
{
	struct roads *roads = calloc(1, sizeof *roads);
	if (roads == NULL)
		return NULL;
	roads->proxy = proxy;
	pthread_mutex_init(&roads->mutex, NULL);
	return roads;
}

void roads_destroy(struct roads *roads)
{
	if (roads == NULL)
		return;
	roads_lock(roads);
	struct road *free_roads = roads->free;
	roads->free = NULL;
	roads_unlock(roads);
	end_roads(free_roads);
	pthread_mutex_destroy(&roads->mutex);
	free(roads);
}

static struct road *pop_free(struct roads *roads)
{
	roads_lock(roads);
	struct road *r = roads->free;
	if (r != NULL) {
		roads->free = r->next_free;
		roads->free_count--;
	}
	if (roads->free_count < roads->least_free)
		roads->least_free = roads->free_count;
	roads_unlock(roads);
	return r;
}

struct road *roads_take(struct roads *roads, const struct seat *seat)
{
	struct road *r = pop_free(roads);
	if (r == NULL)
		r = begin_road(roads->proxy);
	if (r == NULL)
		return NULL;
	if (r->settings_generation != atomic_load_explicit(&roads->proxy->settings_generation, memory_order_acquire))
		roads_take_settings(r);
	make_buffers(r); /* without memory for new ones the old ones serve on */
	r->worker = seat->worker;
	r->stripe = seat->stripe;
	r->exchange.cut = worker_cut(seat->worker);
	return r;
}

void roads_give_back(struct roads *roads, struct road *r)
{
	roads_lock(roads);
	bool is_kept = roads->free_count < FREE_MAX;
	if (is_kept) {
		r->next_free = roads->free;
		roads->free = r;
		roads->free_count++;
	}
	roads_unlock(roads);
	if (!is_kept)
		end_road(r);
}

/* Those that nobody needed are the lowest of the stack. */
void roads_trim(struct roads *roads)
{
	roads_lock(roads);
	unsigned needed = roads->free_count - roads->least_free;
	struct road **place = &roads->free;
	for (unsigned i = 0; i < needed; i++)
		place = &(*place)->next_free;
	struct road *unneeded = *place;
	*place = NULL;
	roads->free_count = roads->least_free = needed;
	roads_unlock(roads);
	end_roads(unneeded);
}

struct road *roads_rise(struct roads *roads, struct seat *seat)
{
	struct road *r = roads_take(roads, seat);
	if (r == NULL)
		return NULL;
	bool may_be_more = conn_available(&seat->client) == sizeof seat->bytes;
	conn_move(&r->exchange.client, &seat->client);
	if (may_be_more) /* a body that came with its head can be sent again to another target, if it is here by then */
		(void)conn_try_fill(&r->exchange.client);
	r->peer = seat->peer;
	r->destination = seat->destination;
	memcpy(r->peer_text, seat->peer_text, sizeof r->peer_text);
	r->is_first_request = seat->is_first_request;
	return r;
}

void roads_rest(struct roads *roads, struct road *r, struct seat *seat)
{
	conn_move(&seat->client, &r->exchange.client);
	seat->peer = r->peer;
	seat->destination = r->destination;
	memcpy(seat->peer_text, r->peer_text, sizeof seat->peer_text);
	seat->is_first_request = r->is_first_request;
	roads_give_back(roads, r);
}
