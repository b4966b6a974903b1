/* upstream.c: see upstream.h. The stack of idle connections is an array that grows; the mutex guards it and is never held
 * across a system call that could block: looking at a socket (MSG_DONTWAIT) and closing it are done outside. */
#include "upstream.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "ts.h"

#define REAP_AT_ONCE 64

struct idle {
	int fd;
	struct tls_stream *tls; /* NULL: plain */
	uint64_t since_us;
	uint64_t receive_timeout_us, send_timeout_us; /* what the kernel was told last: it need not be told again */
};

struct upstreams {
	pthread_mutex_t mutex;
	struct upstream *first GUARDED_BY(upstreams_mutex);
};

struct upstream {
	struct upstreams *all;
	struct upstream *next, *previous; /* guarded by all's mutex */
	char *name;
	char *host; /* the name without the port: whose certificate is wanted */
	struct tls_sessions *sessions;
	char address_text[ADDRESS_TEXT_MAX];
	bool has_address;
	struct address address;
	atomic_ullong answers_total, answers_us;
	pthread_mutex_t mutex;
	struct idle *idle GUARDED_BY(upstream_mutex); /* oldest first */
	size_t count GUARDED_BY(upstream_mutex);
	size_t capacity GUARDED_BY(upstream_mutex);
};

LOCK_VERBS(upstreams, mutex, upstreams_mutex)
LOCK_VERBS(upstream, mutex, upstream_mutex)

struct upstreams *upstreams_create(void)
{
	struct upstreams *all = calloc(1, sizeof *all);
	if (all != NULL)
		pthread_mutex_init(&all->mutex, NULL);
	return all;
}

void upstreams_destroy(struct upstreams *all)
{
	if (all == NULL)
		return;
	pthread_mutex_destroy(&all->mutex);
	free(all);
}

/* "api.example:80", "[2001:db8::1]:80", "unix:/path". */
static char *host_of(const char *name)
{
	const char *colon = strrchr(name, ':');
	if (strncmp(name, "unix:", 5) == 0)
		return strdup("localhost");
	if (name[0] == '[')
		return strndup(name + 1, strcspn(name + 1, "]"));
	return strndup(name, colon != NULL ? (size_t)(colon - name) : strlen(name));
}

static void free_upstream(struct upstream *upstream)
{
	tls_sessions_destroy(upstream->sessions);
	pthread_mutex_destroy(&upstream->mutex);
	free(upstream->host);
	free(upstream->name);
	free(upstream);
}

struct upstream *upstream_create(struct upstreams *all, const char *name, const struct address *address)
{
	struct upstream *upstream = calloc(1, sizeof *upstream);
	if (upstream == NULL)
		return NULL;
	pthread_mutex_init(&upstream->mutex, NULL);
	upstream->name = strdup(name);
	upstream->host = host_of(name);
	upstream->sessions = tls_sessions_create();
	if (upstream->name == NULL || upstream->host == NULL || upstream->sessions == NULL) {
		free_upstream(upstream);
		return NULL;
	}
	if (address != NULL) {
		upstream->has_address = true;
		upstream->address = *address;
		address_text(address, upstream->address_text);
	}
	upstream->all = all;
	upstreams_lock(all);
	upstream->next = all->first;
	if (all->first != NULL)
		all->first->previous = upstream;
	all->first = upstream;
	upstreams_unlock(all);
	return upstream;
}

void upstream_destroy(struct upstream *upstream)
{
	if (upstream == NULL)
		return;
	struct upstreams *all = upstream->all;
	upstreams_lock(all);
	if (upstream->next != NULL)
		upstream->next->previous = upstream->previous;
	if (upstream->previous != NULL)
		upstream->previous->next = upstream->next;
	else
		all->first = upstream->next;
	upstreams_unlock(all);
	upstream_lock(upstream);
	struct idle *idle = upstream->idle;
	size_t count = upstream->count;
	upstream->idle = NULL;
	upstream->count = 0;
	upstream_unlock(upstream);
	for (size_t i = 0; i < count; i++)
		conn_close_idle(idle[i].fd, idle[i].tls);
	free(idle);
	free_upstream(upstream);
}

const char *upstream_name(const struct upstream *upstream)
{
	return upstream->name;
}

const char *upstream_host(const struct upstream *upstream)
{
	return upstream->has_address && upstream->address.any.sa_family == AF_UNIX ? "localhost" : upstream->name;
}

const char *upstream_address(const struct upstream *upstream)
{
	return upstream->has_address ? upstream->address_text : upstream->name;
}

void upstream_answered(struct upstream *upstream, uint64_t us)
{
	atomic_fetch_add_explicit(&upstream->answers_total, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&upstream->answers_us, us, memory_order_relaxed);
}

static int compare_reports(const void *one, const void *other)
{
	return strcmp(((const struct upstream_report *)one)->address, ((const struct upstream_report *)other)->address);
}

size_t upstreams_report(struct upstreams *all, struct upstream_report *reports, size_t capacity)
{
	size_t count = 0;
	upstreams_lock(all);
	for (struct upstream *upstream = all->first; upstream != NULL && count < capacity; upstream = upstream->next) {
		struct upstream_report *report = &reports[count++];
		snprintf(report->address, sizeof report->address, "%s", upstream_address(upstream));
		report->answers_total = atomic_load_explicit(&upstream->answers_total, memory_order_relaxed);
		report->answers_us = atomic_load_explicit(&upstream->answers_us, memory_order_relaxed);
	}
	upstreams_unlock(all);
	if (count > 1)
		qsort(reports, count, sizeof *reports, compare_reports);
	return count;
}

const struct upstream_report *upstream_report_find(const struct upstream_report *reports, size_t count, const char *address)
{
	struct upstream_report key;
	if (count == 0)
		return NULL;
	snprintf(key.address, sizeof key.address, "%s", address);
	return bsearch(&key, reports, count, sizeof *reports, compare_reports);
}

/* Takes the connection used last. fd -1 when there is none young enough. */
static struct idle pop_idle(struct upstream *upstream, uint64_t now_us, uint64_t idle_max_us)
{
	struct idle idle = { .fd = -1 };
	upstream_lock(upstream);
	if (upstream->count > 0 && now_us - upstream->idle[upstream->count - 1].since_us <= idle_max_us)
		idle = upstream->idle[--upstream->count];
	upstream_unlock(upstream);
	return idle;
}

/* What a fresh socket is given at first it takes at once. */
static bool send_preface(int fd, const struct upstream_wish *wish)
{
	return wish->preface_bytes == 0 ||
	       send(fd, wish->preface, wish->preface_bytes, MSG_NOSIGNAL) == (ssize_t)wish->preface_bytes;
}

/* Connects conn->fd, and shakes hands. */
static enum conn_result connect_fresh(struct upstream *upstream, struct conn *conn, const struct upstream_wish *wish, char *why)
{
	uint64_t deadline_us = clock_us() + wish->connect_timeout_us;
	enum conn_result result = conn_connect(conn->fd, &upstream->address, deadline_us);
	if (result == CONN_OK && !send_preface(conn->fd, wish))
		result = CONN_BROKEN;
	if (result != CONN_OK || wish->tls == NULL)
		return result;
	return conn_connect_tls(conn, wish->tls, upstream->host, upstream->sessions, deadline_us, why);
}

static enum conn_result open_fresh(struct upstream *upstream, struct conn *conn, struct cut *cut, const struct upstream_wish *wish,
                                   char *why)
{
	if (!upstream->has_address) {
		errno = EHOSTUNREACH;
		return CONN_BROKEN;
	}
	conn_init(conn, conn_socket(&upstream->address), conn->buffer, conn->capacity);
	if (conn->fd < 0)
		return CONN_BROKEN;
	cut_attach(cut, CUT_UPSTREAM, conn->fd);
	enum conn_result result = connect_fresh(upstream, conn, wish, why);
	if (result == CONN_OK)
		return CONN_OK;
	int error = errno;
	cut_detach(cut, CUT_UPSTREAM);
	conn_close(conn);
	errno = error;
	return result;
}

/* Can it be used under these settings? */
static bool idle_is_good(const struct idle *idle, const struct tls *tls)
{
	bool is_of_now = idle->tls == NULL ? tls == NULL : tls_is_of(idle->tls, tls);
	return is_of_now && conn_is_quiet(idle->fd, idle->tls);
}

enum conn_result upstream_lease(struct upstream *upstream, struct conn *conn, struct cut *cut, const struct upstream_wish *wish,
                                bool *reused, char why[UPSTREAM_WHY_MAX])
{
	struct idle idle = { .fd = -1 };
	uint64_t idle_max_us = wish->preface_bytes > 0 ? 0 : wish->idle_max_us, now_us = idle_max_us > 0 ? clock_us() : 0;
	while (idle_max_us > 0 && (idle = pop_idle(upstream, now_us, idle_max_us)).fd >= 0 && !idle_is_good(&idle, wish->tls))
		conn_close_idle(idle.fd, idle.tls);
	*reused = idle.fd >= 0;
	if (*reused) {
		cut_attach(cut, CUT_UPSTREAM, idle.fd);
		conn_init(conn, idle.fd, conn->buffer, conn->capacity);
		conn->tls = idle.tls;
		conn->receive_timeout_us = idle.receive_timeout_us;
		conn->send_timeout_us = idle.send_timeout_us;
		return CONN_OK;
	}
	why[0] = '\0';
	enum conn_result result = open_fresh(upstream, conn, cut, wish, why);
	if (result != CONN_OK && why[0] == '\0') {
		int error = errno;
		snprintf(why, UPSTREAM_WHY_MAX, "%s", strerror(error));
		errno = error;
	}
	return result;
}

void upstream_discard(struct conn *conn, struct cut *cut)
{
	if (conn->fd < 0)
		return;
	cut_detach(cut, CUT_UPSTREAM);
	conn_close(conn);
}

void upstream_give_back(struct upstream *upstream, struct conn *conn, struct cut *cut)
{
	struct idle idle = { .fd = conn->fd,
	                     .tls = conn->tls,
	                     .since_us = clock_us(),
	                     .receive_timeout_us = conn->receive_timeout_us,
	                     .send_timeout_us = conn->send_timeout_us };
	bool kept = false;
	cut_detach(cut, CUT_UPSTREAM);
	upstream_lock(upstream);
	if (upstream->count == upstream->capacity) {
		size_t capacity = upstream->capacity == 0 ? 16 : upstream->capacity * 2;
		struct idle *grown = realloc(upstream->idle, capacity * sizeof *grown);
		if (grown != NULL) {
			upstream->idle = grown;
			upstream->capacity = capacity;
		}
	}
	if (upstream->count < upstream->capacity) {
		upstream->idle[upstream->count++] = idle;
		kept = true;
	}
	upstream_unlock(upstream);
	if (!kept)
		conn_close(conn);
	conn->fd = -1;
	conn->tls = NULL;
}

/* The oldest are at the front and are looked at first. One in the middle that the target has closed waits until it is among
   them, or until it is leased and found not to be quiet. */
static void reap(struct upstream *upstream, uint64_t idle_max_us)
{
	struct idle looked_at[REAP_AT_ONCE];
	size_t taken = 0, good = 0;
	uint64_t now_us = clock_us();
	upstream_lock(upstream);
	taken = upstream->count < REAP_AT_ONCE ? upstream->count : REAP_AT_ONCE;
	if (taken > 0) {
		memcpy(looked_at, upstream->idle, taken * sizeof *looked_at);
		memmove(upstream->idle, upstream->idle + taken, (upstream->count - taken) * sizeof *looked_at);
	}
	upstream->count -= taken;
	upstream_unlock(upstream);

	for (size_t i = 0; i < taken; i++) {
		if (now_us - looked_at[i].since_us <= idle_max_us && conn_is_quiet(looked_at[i].fd, looked_at[i].tls))
			looked_at[good++] = looked_at[i];
		else
			conn_close_idle(looked_at[i].fd, looked_at[i].tls);
	}

	upstream_lock(upstream);
	size_t room = upstream->capacity - upstream->count;
	size_t kept = good < room ? good : room;
	if (kept > 0) {
		memmove(upstream->idle + kept, upstream->idle, upstream->count * sizeof *looked_at);
		memcpy(upstream->idle, looked_at, kept * sizeof *looked_at);
	}
	upstream->count += kept;
	upstream_unlock(upstream);
	for (size_t i = kept; i < good; i++)
		conn_close_idle(looked_at[i].fd, looked_at[i].tls);
}

/* Under the list's mutex: neither a look at a socket (MSG_DONTWAIT) nor closing one can block. */
void upstreams_reap(struct upstreams *all, uint64_t idle_max_us)
{
	upstreams_lock(all);
	for (struct upstream *upstream = all->first; upstream != NULL; upstream = upstream->next)
		reap(upstream, idle_max_us);
	upstreams_unlock(all);
}
