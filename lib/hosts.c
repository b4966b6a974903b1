/* hosts.c: see hosts.h. How a place changes hands.
 *
 *                       ┌────────── hand_over ──────────► the first that waits
 *      hosts_end ───────┤
 *                       └─ nobody waits: open − 1, and the store is told
 *
 *      hosts_keep ──────┬─ somebody waits: the connection itself, if it will do; else it is closed and the place handed over
 *                       └─ nobody: into the pool, open stays
 *
 *      hosts_lease ─────┬─ an idle connection of this port, if it is quiet          (its place comes with it)
 *                       ├─ a free place: open < cap, or the store grants one
 *                       ├─ an idle connection of another port is closed             (its place comes over)
 *                       └─ in line
 *
 * Only the first in line asks the store; when it is served it tells the next to ask. So a thousand that wait cost as many
 * questions as one. It asks again when an event comes, and once in a while in case an event was lost or a place was freed by
 * somebody who sends none (a worker that died, a foreign one).
 */
#include "hosts_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "conn.h"

#define ASK_AGAIN_US US_PER_S
/* How long those that would not wait do, when another worker was asked to close idle connections. */
#define HOLD_FOR_IDLE_US (300 * US_PER_MS)
/* How much longer those behind the first may be held: they ask one after the other. */
#define HOLD_SLACK_US US_PER_S
#define WANTED_FOR_US (10 * US_PER_S)
/* That a connection is idle is told late, and to close it takes no time: whoever is refused first waits for that much. */
#define HOLD_FOR_OTHERS_US (100 * US_PER_MS)
#define IN_VAIN_FOR_US US_PER_S

static void host_changed(void *context, const char *name, bool is_wanted);
static void forget_entries(struct hosts *hosts, uint64_t now_us) EXCLUDES(hosts_mutex);

struct hosts *hosts_create(const struct hosts_settings *settings, struct redis_store *store, const struct hosts_watch *watch)
{
	struct hosts *hosts = calloc(1, sizeof *hosts);
	if (hosts == NULL)
		return NULL;
	pthread_mutex_init(&hosts->mutex, NULL);
	hosts->store = store;
	if (watch != NULL)
		hosts->watch = *watch;
	if (getrandom(hosts->secret, sizeof hosts->secret, 0) != (ssize_t)sizeof hosts->secret ||
	    hosts_configure(hosts, settings) != 0) {
		pthread_mutex_destroy(&hosts->mutex);
		free(hosts);
		return NULL;
	}
	if (store != NULL)
		redis_store_listen(store, host_changed, hosts);
	return hosts;
}

void hosts_destroy(struct hosts *hosts)
{
	if (hosts == NULL)
		return;
	if (hosts->store != NULL)
		redis_store_listen(hosts->store, NULL, NULL);
	hosts_close_idle(hosts);
	forget_entries(hosts, UINT64_MAX);
	hosts_lock(hosts);
	struct host_limits limits = hosts->limits;
	hosts_unlock(hosts);
	host_limits_free(&limits);
	pthread_mutex_destroy(&hosts->mutex);
	free(hosts);
}

/* ---- entries -------------------------------------------------------------------------------------------------------- */

static struct hosts_host **bucket_of(struct hosts *hosts, const char *name) REQUIRES(hosts_mutex)
{
	struct siphash hash;
	siphash_begin(&hash, hosts->secret);
	siphash_add(&hash, name, strlen(name));
	return &hosts->buckets[siphash_end(&hash) % HOSTS_BUCKETS];
}

static struct hosts_host *find(struct hosts *hosts, const char *name) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = *bucket_of(hosts, name);
	while (host != NULL && strcmp(host->name, name) != 0)
		host = host->next;
	return host;
}

unsigned hosts_open(struct hosts *hosts, const char *name)
{
	hosts_lock(hosts);
	const struct hosts_host *host = name != NULL ? find(hosts, name) : NULL;
	unsigned open = name == NULL ? hosts->totals.open : host != NULL ? host->open : 0;
	hosts_unlock(hosts);
	return open;
}

/* The host's entry, made if there is none, with one more user. NULL when out of memory. */
static struct hosts_host *enter(struct hosts *hosts, const char *name) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = find(hosts, name);
	if (host == NULL) {
		size_t length = strlen(name);
		host = length < HOSTS_NAME_MAX ? calloc(1, sizeof *host) : NULL;
		if (host == NULL)
			return NULL;
		memcpy(host->name, name, length + 1);
		host->cap = host->cap_in_force = hosts_find_cap(hosts, name);
		struct hosts_host **bucket = bucket_of(hosts, name);
		host->next = *bucket;
		*bucket = host;
		hosts->totals.hosts++;
	}
	host->users++;
	return host;
}

/* That the host's places are wanted elsewhere is remembered for longer than the last of them is open. */
static bool is_of_no_use(const struct hosts_host *host, uint64_t now_us) REQUIRES(hosts_mutex)
{
	return host->users == 0 && host->open == 0 && host->waiting == 0 && host->owed == 0 && host->untold == 0 &&
	       host->wanted_until_us <= now_us;
}

static void remove_entry(struct hosts *hosts, struct hosts_host **place) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = *place;
	*place = host->next;
	hosts->totals.hosts--;
	free(host->idle);
	free(host);
}

/* One user less; the last one out frees the entry. */
static void leave(struct hosts *hosts, struct hosts_host *host) REQUIRES(hosts_mutex)
{
	host->users--;
	if (!is_of_no_use(host, host->wanted_until_us > 0 ? clock_us() : 0))
		return;
	struct hosts_host **place = bucket_of(hosts, host->name);
	while (*place != host)
		place = &(*place)->next;
	remove_entry(hosts, place);
}

/* Frees the entries that were kept for what they remember, and that is over. */
static void forget_entries(struct hosts *hosts, uint64_t now_us) EXCLUDES(hosts_mutex)
{
	for (size_t bucket = 0; bucket < HOSTS_BUCKETS; bucket++) {
		hosts_lock(hosts);
		for (struct hosts_host **place = &hosts->buckets[bucket]; *place != NULL;) {
			if (is_of_no_use(*place, now_us))
				remove_entry(hosts, place);
			else
				place = &(*place)->next;
		}
		hosts_unlock(hosts);
	}
}

/* Pays what is owed for the host, and leaves it. */
static void settle(struct hosts *hosts, struct hosts_host *host) EXCLUDES(hosts_mutex)
{
	hosts_lock(hosts);
	unsigned owed = host->owed, untold = host->untold, open = host->open, cap = host->cap;
	host->owed = host->untold = 0;
	hosts_unlock(hosts);
	while (untold-- > 0 && hosts->watch.changed != NULL)
		hosts->watch.changed(hosts->watch.context, host->name, false, open + untold, cap);
	if (owed > 0)
		redis_store_give(hosts->store, host->name, owed);
	hosts_lock(hosts);
	if (owed > 0)
		hosts_look_again(host);
	leave(hosts, host);
	hosts_unlock(hosts);
}

void hosts_visit(struct hosts *hosts, void (*visit)(struct hosts *hosts, struct hosts_host *host, const void *how), const void *how)
{
	for (size_t bucket = 0; bucket < HOSTS_BUCKETS; bucket++) {
		hosts_lock(hosts);
		for (struct hosts_host *host = hosts->buckets[bucket]; host != NULL; host = host->next)
			visit(hosts, host, how);
		for (;;) {
			struct hosts_host *host = hosts->buckets[bucket];
			while (host != NULL && host->owed == 0 && host->untold == 0)
				host = host->next;
			if (host == NULL)
				break;
			host->users++;
			hosts_unlock(hosts);
			settle(hosts, host);
			hosts_lock(hosts);
		}
		hosts_unlock(hosts);
	}
}

/* ---- idle connections ------------------------------------------------------------------------------------------------ */

static void tell_store_of_idle(struct hosts *hosts, struct hosts_host *host) REQUIRES(hosts_mutex)
{
	if (hosts->store != NULL && host->cap != 0)
		redis_store_idle(hosts->store, host->name, (unsigned)host->idle_count);
}

static struct hosts_idle remove_idle(struct hosts *hosts, struct hosts_host *host, size_t at) REQUIRES(hosts_mutex)
{
	struct hosts_idle idle = host->idle[at];
	memmove(host->idle + at, host->idle + at + 1, (host->idle_count - at - 1) * sizeof idle);
	host->idle_count--;
	hosts->totals.idle--;
	tell_store_of_idle(hosts, host);
	return idle;
}

/* The one used last among those for this port, if it is young enough. fd -1: none. */
static struct hosts_idle newest_idle(struct hosts *hosts, struct hosts_host *host, const struct hosts_wish *wish)
	REQUIRES(hosts_mutex)
{
	for (size_t at = host->idle_count; at > 0 && wish->idle_max_us > 0; at--) {
		const struct hosts_idle *idle = &host->idle[at - 1];
		if (idle->port != wish->port)
			continue;
		uint64_t age_us = wish->now_us > idle->since_us ? wish->now_us - idle->since_us : 0;
		if (age_us > wish->idle_max_us)
			break;
		return remove_idle(hosts, host, at - 1);
	}
	return (struct hosts_idle){ .fd = -1 };
}

static bool add_idle(struct hosts *hosts, struct hosts_host *host, const struct hosts_idle *idle) REQUIRES(hosts_mutex)
{
	if (host->idle_count == host->idle_capacity) {
		size_t capacity = host->idle_capacity == 0 ? 4 : host->idle_capacity * 2;
		struct hosts_idle *grown = realloc(host->idle, capacity * sizeof *grown);
		if (grown == NULL)
			return false;
		host->idle = grown;
		host->idle_capacity = capacity;
	}
	host->idle[host->idle_count++] = *idle;
	hosts->totals.idle++;
	tell_store_of_idle(hosts, host);
	return true;
}

/* ---- places change hands -------------------------------------------------------------------------------------------- */

static void wake(const struct hosts_waiter *waiter)
{
	uint64_t one = 1;
	ssize_t written = write(waiter->wake_fd, &one, sizeof one);
	(void)written; /* it can only be full, and then the waiter is being woken already */
}

void hosts_look_again(struct hosts_host *host)
{
	host->events++;
	if (host->first != NULL)
		wake(host->first);
}

static void join_line(struct hosts *hosts, struct hosts_host *host, struct hosts_waiter *waiter) REQUIRES(hosts_mutex)
{
	waiter->next = NULL;
	waiter->previous = host->last;
	if (host->last != NULL)
		host->last->next = waiter;
	else
		host->first = waiter;
	host->last = waiter;
	host->waiting++;
	hosts->totals.waiting++;
}

/* Whoever is first now is told to ask for itself. */
static void leave_line(struct hosts *hosts, struct hosts_host *host, struct hosts_waiter *waiter) REQUIRES(hosts_mutex)
{
	bool was_first = host->first == waiter;
	if (waiter->next != NULL)
		waiter->next->previous = waiter->previous;
	else
		host->last = waiter->previous;
	if (waiter->previous != NULL)
		waiter->previous->next = waiter->next;
	else
		host->first = waiter->next;
	host->waiting--;
	hosts->totals.waiting--;
	if (was_first)
		hosts_look_again(host);
}

/* Gives a taken place to the first that waits, with the idle connection if that will do (idle->fd is then -1). False: nobody
   waits, or there are more places taken than may be. */
static bool hand_over(struct hosts *hosts, struct hosts_host *host, struct hosts_idle *idle) REQUIRES(hosts_mutex)
{
	struct hosts_waiter *waiter = host->first;
	if (waiter == NULL || host->must_ask || (host->cap_in_force != 0 && host->open > host->cap_in_force))
		return false;
	waiter->is_granted = true;
	if (idle != NULL && waiter->may_reuse && waiter->port == idle->port) {
		waiter->given = *idle;
		idle->fd = -1;
	}
	leave_line(hosts, host, waiter);
	wake(waiter);
	return true;
}

/* A place without a connection: to the first that waits, or back. The caller settles. */
static void free_place(struct hosts *hosts, struct hosts_host *host) REQUIRES(hosts_mutex)
{
	if (hand_over(hosts, host, NULL))
		return;
	host->open--;
	hosts->totals.open--;
	if (hosts->store != NULL)
		host->owed++;
}

/* close() of a quiet connection doesn't block: it may be done under the lock. */
void hosts_shrink_idle(struct hosts *hosts, struct hosts_host *host, size_t keep)
{
	while (host->idle_count > keep) {
		close(remove_idle(hosts, host, 0).fd);
		host->untold++;
		free_place(hosts, host);
	}
}

/* An event from another worker, by the store's thread. */
static void host_changed_visit(struct hosts *hosts, struct hosts_host *host, const void *how) REQUIRES(hosts_mutex)
{
	(void)hosts;
	(void)how;
	hosts_look_again(host);
}

static void host_changed(void *context, const char *name, bool is_wanted)
{
	struct hosts *hosts = context;
	if (name == NULL) {
		hosts_visit(hosts, host_changed_visit, NULL);
		return;
	}
	hosts_lock(hosts);
	struct hosts_host *host = find(hosts, name);
	if (host == NULL) {
		hosts_unlock(hosts);
		return;
	}
	host->users++;
	if (is_wanted) {
		host->wanted_until_us = clock_us() + WANTED_FOR_US;
		hosts_shrink_idle(hosts, host, 0);
	} else {
		hosts_look_again(host);
	}
	hosts_unlock(hosts);
	settle(hosts, host);
}

/* ---- lease ---------------------------------------------------------------------------------------------------------- */

/* One thread's way through hosts_lease(). */
struct claim {
	struct hosts *hosts;
	const struct hosts_wish *wish;
	struct hosts_lease *lease;
	struct hosts_host *host;
	struct hosts_waiter waiter;
	int close_fd;            /* an idle connection whose place came over; closed outside the lock */
	bool was_held;           /* it waited for other workers' idle connections: once is enough */
	bool is_watching_client; /* for the end of its sending */
};

/* An idle connection of any port gives up its place. */
static bool take_over(struct claim *claim) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = claim->host;
	if (host->idle_count == 0)
		return false;
	claim->close_fd = remove_idle(claim->hosts, host, 0).fd;
	host->untold++;
	return true;
}

static void take(struct claim *claim) REQUIRES(hosts_mutex)
{
	claim->host->open++;
	claim->hosts->totals.open++;
}

/* Without asking the store, under this cap. A store that is down is told later. */
static enum hosts_answer take_locally(struct claim *claim, unsigned cap) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = claim->host;
	struct redis_store *store = claim->hosts->store;
	host->cap_in_force = cap;
	if (cap == 0 || host->open < cap) {
		if (store != NULL && !redis_store_assume(store, host->name, host->cap))
			return HOSTS_NO_MEMORY;
		take(claim);
		return HOSTS_PLACE;
	}
	claim->lease->count = host->open;
	return take_over(claim) ? HOSTS_PLACE : HOSTS_FULL;
}

static enum hosts_answer take_while_down(struct claim *claim, unsigned cap) REQUIRES(hosts_mutex)
{
	struct hosts *hosts = claim->hosts;
	if (hosts->fail == HOSTS_FAIL_CLOSED)
		return HOSTS_STORE_DOWN;
	if (hosts->fail == HOSTS_FAIL_LOCAL) {
		unsigned share = cap / redis_store_live_workers(hosts->store, claim->host->name);
		cap = share > 0 ? share : 1;
	}
	return take_locally(claim, cap);
}

/* Full, though places may come soon: those that would not wait are held. */
static void hold(struct claim *claim, uint64_t wait_us) REQUIRES(hosts_mutex)
{
	uint64_t until_us = clock_us() + wait_us;
	if (claim->host->hold_until_us < until_us)
		claim->host->hold_until_us = until_us;
}

/* Others have places. Each worker that keeps an idle one would have to be asked for it: from now on nobody keeps one. */
static void hold_for_others(struct claim *claim, bool idle_elsewhere) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = claim->host;
	uint64_t now_us = clock_us();
	host->wanted_until_us = now_us + WANTED_FOR_US;
	if (claim->was_held)
		return;
	if (idle_elsewhere) {
		hold(claim, HOLD_FOR_IDLE_US);
		claim->was_held = true;
	} else if (host->in_vain_until_us <= now_us) {
		host->in_vain_until_us = now_us + IN_VAIN_FOR_US;
		hold(claim, HOLD_FOR_OTHERS_US);
		claim->was_held = true;
	}
}

/* A place for this claim, now or not at all. The lock is let go while the store is asked. */
static enum hosts_answer take_place(struct claim *claim) REQUIRES(hosts_mutex)
{
	struct hosts *hosts = claim->hosts;
	struct hosts_host *host = claim->host;
	unsigned cap = host->cap;
	claim->lease->limit = cap;
	if (hosts->store == NULL || cap == 0)
		return take_locally(claim, cap);
	struct redis_store_result result = { .sum = 0 };
	/* Whoever is held wants to hear of places as those do that wait. */
	bool will_wait = claim->wish->wait_until_us > claim->wish->now_us ||
	                 (!claim->was_held && host->in_vain_until_us <= claim->wish->now_us);
	hosts_unlock(hosts);
	enum redis_store_answer answer = redis_store_take(hosts->store, host->name, cap, will_wait, &result);
	hosts_lock(hosts);
	claim->lease->count = result.sum;
	switch (answer) {
	case REDIS_STORE_GRANTED:
		host->must_ask = false;
		host->cap_in_force = host->cap;
		host->in_vain_until_us = 0;
		take(claim);
		return HOSTS_PLACE;
	case REDIS_STORE_FULL:
	case REDIS_STORE_SETTLING:
		if (take_over(claim))
			return HOSTS_PLACE;
		if (answer == REDIS_STORE_SETTLING)
			hold(claim, result.wait_us);
		else if (result.sum > host->open)
			hold_for_others(claim, result.idle_elsewhere);
		return HOSTS_FULL;
	case REDIS_STORE_DOWN: return take_while_down(claim, cap);
	case REDIS_STORE_OFF: return take_locally(claim, cap);
	case REDIS_STORE_NO_MEMORY: break;
	}
	return HOSTS_NO_MEMORY;
}

static uint64_t deadline_of(const struct claim *claim, uint64_t now_us) REQUIRES(hosts_mutex)
{
	uint64_t held_us = claim->host->hold_until_us > now_us ? claim->host->hold_until_us + HOLD_SLACK_US : 0;
	return claim->wish->wait_until_us > held_us ? claim->wish->wait_until_us : held_us;
}

static bool client_is_gone(struct claim *claim, short revents)
{
	char byte;
	if (revents == 0)
		return false;
	if ((revents & (POLLHUP | POLLERR | POLLNVAL)) != 0)
		return true;
	claim->is_watching_client = false; /* what it says now it would say for ever */
	if (claim->wish->client_is_gone != NULL)
		return claim->wish->client_is_gone(claim->wish->context);
	return recv(claim->wish->client_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/* Sleeps until woken or until then. False: the client is gone. */
static bool sleep_in_line(struct claim *claim, uint64_t until_us) EXCLUDES(hosts_mutex)
{
	short client_events = claim->is_watching_client ? POLLRDHUP : 0;
	struct pollfd fds[2] = { { .fd = claim->waiter.wake_fd, .events = POLLIN },
		                 { .fd = claim->wish->client_fd, .events = client_events } };
	uint64_t left_us = clock_left_us(until_us), count;
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	if (ppoll(fds, 2, until_us == CLOCK_NEVER ? NULL : &left, NULL) < 0)
		return errno == EINTR;
	if (fds[0].revents != 0 && read(claim->waiter.wake_fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	return !client_is_gone(claim, fds[1].revents);
}

/* When the first in line asks again without being woken. */
static uint64_t next_question(const struct claim *claim, uint64_t now_us) REQUIRES(hosts_mutex)
{
	uint64_t ask_us = now_us + ASK_AGAIN_US;
	uint64_t hold_us = claim->host->hold_until_us;
	return hold_us > now_us && hold_us < ask_us ? hold_us : ask_us;
}

/* In line, until a place is handed over (the answer is HOSTS_PLACE, and the waiter's is_granted), the first in line gets one for
   itself (*took_own), or there is a reason to give up. */
static enum hosts_answer wait_for_turn(struct claim *claim, unsigned seen_events, bool *took_own) REQUIRES(hosts_mutex)
{
	struct hosts *hosts = claim->hosts;
	struct hosts_host *host = claim->host;
	uint64_t ask_us = next_question(claim, clock_us());
	while (!claim->waiter.is_granted) {
		uint64_t now_us = clock_us();
		if (host->first == &claim->waiter && (host->events != seen_events || now_us >= ask_us)) {
			seen_events = host->events;
			enum hosts_answer answer = take_place(claim);
			*took_own = answer == HOSTS_PLACE;
			if (answer != HOSTS_FULL)
				return answer;
			now_us = clock_us();
			ask_us = next_question(claim, now_us);
			if (claim->waiter.is_granted || host->events != seen_events)
				continue;
		}
		uint64_t deadline_us = deadline_of(claim, now_us);
		if (now_us >= deadline_us)
			return HOSTS_FULL;
		bool is_first = host->first == &claim->waiter;
		uint64_t until_us = is_first && ask_us < deadline_us ? ask_us : deadline_us;
		hosts_unlock(hosts);
		bool is_there = sleep_in_line(claim, until_us);
		hosts_lock(hosts);
		if (!is_there)
			return HOSTS_CLIENT_GONE;
	}
	return HOSTS_PLACE;
}

/* A place may have been handed over while the store was asked, or while the client went: then it is one too many. */
static enum hosts_answer stand_in_line(struct claim *claim, unsigned seen_events) REQUIRES(hosts_mutex)
{
	struct hosts *hosts = claim->hosts;
	struct hosts_host *host = claim->host;
	struct hosts_waiter *waiter = &claim->waiter;
	uint64_t now_us = clock_us();
	if (deadline_of(claim, now_us) <= now_us)
		return HOSTS_FULL;
	waiter->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (waiter->wake_fd < 0)
		return HOSTS_NO_MEMORY;
	join_line(hosts, host, waiter);
	bool took_own = false;
	enum hosts_answer answer = wait_for_turn(claim, seen_events, &took_own);
	close(waiter->wake_fd);
	if (!waiter->is_granted) {
		leave_line(hosts, host, waiter);
	} else if (took_own || answer != HOSTS_PLACE) {
		if (waiter->given.fd >= 0) {
			close(waiter->given.fd);
			host->untold++;
			waiter->given.fd = -1;
		}
		free_place(hosts, host);
	}
	return answer;
}

/* Then an idle connection is of no use either: it counts for Redis only as long as Redis hears of it. */
static bool is_shut(struct hosts *hosts, const struct hosts_host *host) REQUIRES(hosts_mutex)
{
	return hosts->store != NULL && host->cap != 0 && hosts->fail == HOSTS_FAIL_CLOSED &&
	       redis_store_is_down(hosts->store);
}

/* Under the lock: from the wish to the answer. An idle connection is in claim->waiter.given. */
static enum hosts_answer decide(struct claim *claim) REQUIRES(hosts_mutex)
{
	struct hosts_host *host = claim->host;
	if (is_shut(claim->hosts, host))
		return HOSTS_STORE_DOWN;
	claim->waiter.given = newest_idle(claim->hosts, host, claim->wish);
	if (claim->waiter.given.fd >= 0)
		return HOSTS_PLACE;
	unsigned seen_events = host->events;
	enum hosts_answer answer = HOSTS_FULL;
	claim->lease->count = host->open;
	if (host->first == NULL)
		answer = take_place(claim);
	if (answer == HOSTS_FULL)
		answer = stand_in_line(claim, seen_events);
	return answer;
}

static void count_answer(struct hosts *hosts, enum hosts_answer answer) REQUIRES(hosts_mutex)
{
	if (answer == HOSTS_FULL)
		hosts->totals.refused_total++;
	else if (answer == HOSTS_STORE_DOWN)
		hosts->totals.refused_store_down_total++;
}

/* A place is taken. With an idle connection: is it still good? */
static enum hosts_answer look_at_connection(struct claim *claim)
{
	struct hosts *hosts = claim->hosts;
	struct hosts_idle *given = &claim->waiter.given;
	bool is_good = given->fd >= 0 && conn_is_quiet(given->fd, NULL);
	if (given->fd >= 0 && !is_good)
		close(given->fd);
	hosts_lock(hosts);
	if (given->fd >= 0 && !is_good)
		claim->host->untold++;
	if (is_good)
		hosts->totals.reused_total++;
	else
		hosts->totals.opened_total++;
	hosts_unlock(hosts);
	if (is_good) {
		claim->lease->fd = given->fd;
		claim->lease->receive_timeout_us = given->receive_timeout_us;
		claim->lease->send_timeout_us = given->send_timeout_us;
	}
	return is_good ? HOSTS_IDLE : HOSTS_PLACE;
}

enum hosts_answer hosts_lease(struct hosts *hosts, const struct hosts_wish *wish, struct hosts_lease *lease)
{
	struct claim claim = { .hosts = hosts, .wish = wish, .lease = lease, .close_fd = -1, .is_watching_client = true };
	claim.waiter.port = wish->port;
	claim.waiter.may_reuse = wish->idle_max_us > 0;
	claim.waiter.given.fd = -1;
	*lease = (struct hosts_lease){ .port = wish->port, .fd = -1 };
	hosts_lock(hosts);
	struct hosts_host *host = enter(hosts, wish->name);
	if (host == NULL) {
		hosts_unlock(hosts);
		return HOSTS_NO_MEMORY;
	}
	claim.host = host;
	enum hosts_answer answer = decide(&claim);
	count_answer(hosts, answer);
	lease->limit = host->cap;
	if (answer == HOSTS_PLACE) {
		lease->host = host;
		lease->count = host->open;
	}
	hosts_unlock(hosts);
	if (claim.close_fd >= 0)
		close(claim.close_fd);
	if (answer == HOSTS_PLACE)
		answer = look_at_connection(&claim);
	settle(hosts, host);
	/* A place is held: the entry stays. */
	if (answer == HOSTS_PLACE && hosts->watch.changed != NULL)
		hosts->watch.changed(hosts->watch.context, host->name, true, lease->count, lease->limit);
	return answer;
}

void hosts_keep(struct hosts *hosts, struct hosts_lease *lease, int fd, uint64_t now_us)
{
	struct hosts_host *host = lease->host;
	struct hosts_idle idle = { .fd = fd,
		                   .port = lease->port,
		                   .since_us = now_us,
		                   .receive_timeout_us = lease->receive_timeout_us,
		                   .send_timeout_us = lease->send_timeout_us };
	lease->host = NULL;
	hosts_lock(hosts);
	host->users++;
	bool is_over = (host->cap_in_force != 0 && host->open > host->cap_in_force) || host->wanted_until_us > now_us;
	if (hand_over(hosts, host, &idle)) {
		host->untold += idle.fd >= 0;
	} else if (!is_over && add_idle(hosts, host, &idle)) {
		idle.fd = -1;
	} else {
		host->untold++;
		free_place(hosts, host);
	}
	hosts_unlock(hosts);
	if (idle.fd >= 0)
		close(idle.fd);
	settle(hosts, host);
}

void hosts_end(struct hosts *hosts, struct hosts_lease *lease)
{
	struct hosts_host *host = lease->host;
	if (host == NULL)
		return;
	lease->host = NULL;
	hosts_lock(hosts);
	host->users++;
	host->untold++;
	free_place(hosts, host);
	hosts_unlock(hosts);
	settle(hosts, host);
}

/* ---- looking after idle ones ------------------------------------------------------------------------------------------ */

struct reaping {
	uint64_t idle_max_us, now_us;
};

/* To look at a socket (MSG_DONTWAIT) and to close it doesn't block. */
static void reap(struct hosts *hosts, struct hosts_host *host, const void *how) REQUIRES(hosts_mutex)
{
	const struct reaping *reaping = how;
	for (size_t at = host->idle_count; at > 0; at--) {
		const struct hosts_idle *idle = &host->idle[at - 1];
		uint64_t age_us = reaping->now_us > idle->since_us ? reaping->now_us - idle->since_us : 0;
		if (age_us <= reaping->idle_max_us && conn_is_quiet(idle->fd, NULL))
			continue;
		close(remove_idle(hosts, host, at - 1).fd);
		host->untold++;
		free_place(hosts, host);
	}
}

void hosts_reap(struct hosts *hosts, uint64_t idle_max_us, uint64_t now_us)
{
	struct reaping reaping = { .idle_max_us = idle_max_us, .now_us = now_us };
	hosts_visit(hosts, reap, &reaping);
	forget_entries(hosts, now_us);
}

static void close_idle(struct hosts *hosts, struct hosts_host *host, const void *how) REQUIRES(hosts_mutex)
{
	(void)how;
	hosts_shrink_idle(hosts, host, 0);
}

void hosts_close_idle(struct hosts *hosts)
{
	hosts_visit(hosts, close_idle, NULL);
}
