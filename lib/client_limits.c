/* client_limits.c: see client_limits.h.
 *
 * The debt. A leaky bucket in whole numbers: a rate of count in window_us is count / window_us requests in a
 * microsecond, so if one request counts window_us units, each microsecond takes away exactly count units. Nothing is
 * ever rounded, so nothing drifts, and between any two moments no more than burst + rate × time requests can pass:
 * each added window_us, the debt never passes burst × window_us, and each microsecond took count at most.
 *
 *      debt │    ╱╲  ╱╲                        the burst is the height, the rate the slope;
 *           │ ╱╲╱  ╲╱  ╲___╱╲                  where it would meet the ground: the theoretical arrival time
 *           └─────────────────────► time
 *
 * The table. A key's set follows from its hash; a set has eight places, and its keys lie together in one cache line, so
 * a look-up reads one line for the keys and one or two for the entry. A new key in a full set takes the place of the
 * entry that is the first to mean nothing, most often one that already does. A flood of new keys therefore pushes out
 * its own, which have the debt of one request, before those that are far over or blocked.
 *
 *      hash ──► [ set | set | set | ... ]      set: [ 8 keys | 8 entries ]      lock number = set number mod STRIPES
 *
 * All or nothing. The asks of one request may lie under several locks. They are taken in the order of their numbers,
 * each once, so that two requests can't wait for each other in a circle. Debts are worked out in copies, and written
 * back only when the whole request is let in; a refusal writes no more than that a client went over.
 *
 * Without all this: a map that grows with each address is a way to fill the memory, and a sweep over it stops the
 * service.
 */
#include "client_limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "clock.h"
#include "siphash.h"
#include "ts.h"

#define PLACES 8u
#define STRIPES 1024u
#define CACHE_LINE_BYTES 64u
#define NO_KEY 0u

/* What is known of one key. debt counts in units of 1 / window_us of a request. */
struct entry {
	uint64_t debt;
	uint64_t seen_us;   /* when debt was right */
	uint64_t over_us;   /* when the client went over; 0: it is not over */
	uint64_t window_us; /* the rate at that time */
	uint32_t count;
	uint32_t block_ms;  /* only to know how long the entry matters, should its place be wanted */
};

struct set {
	uint64_t keys[PLACES]; /* NO_KEY: the place is free */
	struct entry entries[PLACES];
};

/* The locks of all stripes are one role: the compiler checks that some are held, ThreadSanitizer that they are the
   right ones. */

struct stripe {
	pthread_mutex_t mutex;
	uint64_t keys GUARDED_BY(client_limits_mutex), forgotten_total GUARDED_BY(client_limits_mutex);
	char padding[CACHE_LINE_BYTES]; /* two locks in one cache line would slow each other down */
};

LOCK_VERBS(stripe, mutex, client_limits_mutex)

struct client_limits {
	uint8_t secret[SIPHASH_SECRET_BYTES]; /* never changes, as all of these */
	size_t set_count;                     /* a power of two */
	size_t bytes;
	struct set *sets PT_GUARDED_BY(client_limits_mutex);
	void *memory; /* the sets lie in it, moved to the next cache line */
	struct stripe stripes[STRIPES];
};

/* One request as it is worked out: copies of the entries it is about. */
struct request {
	struct client_ask *asks;
	size_t count;
	uint64_t now_us;
	size_t first[CLIENT_LIMITS_ASKS_MAX];         /* the first ask with the same key: its entry serves both */
	struct entry entries[CLIENT_LIMITS_ASKS_MAX]; /* of the first asks; count 0: the key is new */
	struct entry before[CLIENT_LIMITS_ASKS_MAX];  /* as each ask found it, to go back to */
	unsigned stripes[CLIENT_LIMITS_ASKS_MAX];     /* whose locks it holds, ascending */
	size_t stripe_count;
};

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b > 0);
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* ---- the debt ---------------------------------------------------------------------------------------------------- */

/* debt in units of another window: debt × to / from, rounded up, so that a change forgives nothing. The product may
   have more than 64 bits, so it is divided in two steps of 21 bits, as on paper: windows have at most 42. */
static uint64_t convert_debt(uint64_t debt, uint64_t from_us, uint64_t to_us)
{
	uint64_t requests = debt / from_us, rest = debt % from_us;
	uint64_t high = rest * (to_us >> 21), low = rest * (to_us & 0x1fffff);

	return requests * to_us + (high / from_us << 21) + divide_up((high % from_us << 21) + low, from_us);
}

static void change_rate(struct entry *e, const struct client_ask *ask)
{
	if (e->window_us != ask->window_us)
		e->debt = convert_debt(e->debt, e->window_us, ask->window_us);
	e->window_us = ask->window_us;
	e->count = ask->count;
}

static void pay(struct entry *e, uint64_t elapsed_us)
{
	e->debt = elapsed_us > e->debt / e->count ? 0 : e->debt - elapsed_us * e->count;
}

/* Brings an entry to the present, and to the ask's rate: before or after, so that the slower of the two has its way. */
static void update(struct entry *e, const struct client_ask *ask, uint64_t now_us)
{
	uint64_t elapsed_us = minus(now_us, e->seen_us);
	bool is_slower_now = ask->count * e->window_us < e->count * ask->window_us; /* 20 bits and 42 */

	if (e->count == 0) /* a new key */
		*e = (struct entry){ .window_us = ask->window_us, .count = ask->count };
	if (is_slower_now)
		change_rate(e, ask);
	pay(e, elapsed_us);
	change_rate(e, ask);
	e->seen_us = later(e->seen_us, now_us); /* another thread may have read the clock later and come here sooner */
	e->block_ms = ask->block_us < UINT32_MAX * UINT64_C(1000) ? (uint32_t)divide_up(ask->block_us, US_PER_MS) : UINT32_MAX;
}

/* In how long one more request is within the rate. */
static uint64_t rate_wait_us(const struct entry *e, const struct client_ask *ask)
{
	return divide_up(minus(e->debt + ask->window_us, ask->burst * ask->window_us), ask->count);
}

static uint64_t block_left_us(const struct entry *e, const struct client_ask *ask, uint64_t now_us)
{
	return e->over_us > 0 ? minus(ask->block_us, minus(now_us, e->over_us)) : 0;
}

static uint64_t wait_us(const struct entry *e, const struct client_ask *ask, uint64_t now_us)
{
	return later(rate_wait_us(e, ask), block_left_us(e, ask, now_us));
}

/* Until when an entry says more than no entry would. */
static uint64_t matters_until_us(const struct entry *e)
{
	uint64_t arrival_us = e->seen_us + divide_up(e->debt, e->count);

	return e->over_us > 0 ? later(arrival_us, e->over_us + (uint64_t)e->block_ms * US_PER_MS) : arrival_us;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static size_t set_number(const struct client_limits *limits, uint64_t key)
{
	return (size_t)key & (limits->set_count - 1);
}

static unsigned stripe_number(const struct client_limits *limits, uint64_t key)
{
	return (unsigned)(set_number(limits, key) % STRIPES);
}

static struct entry *find_entry(struct client_limits *limits, uint64_t key) REQUIRES(client_limits_mutex)
{
	struct set *set = &limits->sets[set_number(limits, key)];

	for (unsigned i = 0; i < PLACES; i++)
		if (set->keys[i] == key)
			return &set->entries[i];
	return NULL;
}

/* A place for a key that has none: a free one, or that of the entry which is the first to mean nothing. */
static struct entry *take_place(struct client_limits *limits, uint64_t key, uint64_t now_us)
	REQUIRES(client_limits_mutex)
{
	struct set *set = &limits->sets[set_number(limits, key)];
	struct stripe *stripe = &limits->stripes[stripe_number(limits, key)];
	uint64_t first_us = UINT64_MAX;
	unsigned place = 0;

	for (unsigned i = 0; i < PLACES; i++) {
		uint64_t until_us = set->keys[i] != NO_KEY ? matters_until_us(&set->entries[i]) : 0;

		if (until_us < first_us) {
			first_us = until_us;
			place = i;
		}
	}
	if (set->keys[place] == NO_KEY)
		stripe->keys++;
	else if (first_us > now_us)
		stripe->forgotten_total++;
	set->keys[place] = key;
	return &set->entries[place];
}

/* ---- the locks --------------------------------------------------------------------------------------------------- */

/* The stripes that a request needs, in order and each once. */
static void note_stripe(struct request *r, unsigned number)
{
	size_t at = r->stripe_count;

	while (at > 0 && r->stripes[at - 1] > number)
		at--;
	if (at > 0 && r->stripes[at - 1] == number)
		return;
	memmove(&r->stripes[at + 1], &r->stripes[at], (r->stripe_count - at) * sizeof(r->stripes[0]));
	r->stripes[at] = number;
	r->stripe_count++;
}

static void lock_stripes(struct client_limits *limits, const struct request *r) ACQUIRE(client_limits_mutex) UNCHECKED
{
	for (size_t i = 0; i < r->stripe_count; i++)
		pthread_mutex_lock(&limits->stripes[r->stripes[i]].mutex);
}

static void unlock_stripes(struct client_limits *limits, const struct request *r) RELEASE(client_limits_mutex) UNCHECKED
{
	for (size_t i = 0; i < r->stripe_count; i++)
		pthread_mutex_unlock(&limits->stripes[r->stripes[i]].mutex);
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

static uint64_t within(uint64_t value, uint64_t max)
{
	return value == 0 ? 1 : value < max ? value : max;
}

static void begin(const struct client_limits *limits, struct request *r)
{
	r->stripe_count = 0;
	for (size_t i = 0; i < r->count; i++) {
		struct client_ask *ask = &r->asks[i];

		ask->key = ask->key != NO_KEY ? ask->key : 1;
		ask->count = (unsigned)within(ask->count, CLIENT_LIMITS_COUNT_MAX);
		ask->burst = (unsigned)within(ask->burst, CLIENT_LIMITS_BURST_MAX);
		ask->window_us = within(ask->window_us, CLIENT_LIMITS_WINDOW_MAX_US);
		for (r->first[i] = 0; r->asks[r->first[i]].key != ask->key; r->first[i]++)
			;
		note_stripe(r, stripe_number(limits, ask->key));
	}
}

/* Charges each ask that is within its limit, in the copies. Returns whether the request may come in. */
static bool judge(struct client_limits *limits, struct request *r) REQUIRES(client_limits_mutex)
{
	bool may_pass = true;

	for (size_t i = 0; i < r->count; i++) {
		struct client_ask *ask = &r->asks[i];
		struct entry *e = &r->entries[r->first[i]];

		if (r->first[i] == i) {
			const struct entry *known = find_entry(limits, ask->key);

			*e = known != NULL ? *known : (struct entry){ .count = 0 };
		}
		update(e, ask, r->now_us);
		ask->is_over = wait_us(e, ask, r->now_us) > 0;
		if (!ask->is_over)
			e->over_us = 0;
		r->before[i] = *e;
		if (!ask->is_over)
			e->debt += ask->window_us;
		else if (!ask->shadow && !ask->exempt)
			may_pass = false;
	}
	return may_pass;
}

/* Nothing is taken; the last first, since two asks may have changed the same copy. */
static void take_back(struct request *r)
{
	for (size_t i = r->count; i-- > 0;)
		r->entries[r->first[i]] = r->before[i];
}

/* Marks those that went over just now, and says how each ask stands. */
static void conclude(struct request *r)
{
	for (size_t i = 0; i < r->count; i++) {
		struct client_ask *ask = &r->asks[i];
		struct entry *e = &r->entries[r->first[i]];

		if (ask->is_over && !ask->exempt && e->over_us == 0)
			e->over_us = later(r->now_us, 1);
	}
	for (size_t i = 0; i < r->count; i++) {
		struct client_ask *ask = &r->asks[i];
		const struct entry *e = &r->entries[r->first[i]];
		uint64_t wait = wait_us(e, ask, r->now_us);

		ask->remaining = wait > 0 ? 0 : (unsigned)(ask->burst - divide_up(e->debt, ask->window_us));
		ask->retry_after_us = ask->is_over ? wait : 0;
		ask->reset_us = later(divide_up(e->debt, ask->count), block_left_us(e, ask, r->now_us));
	}
}

/* A key that owes nothing and is not over needs no entry: no entry says the same. */
static void write_back(struct client_limits *limits, const struct request *r) REQUIRES(client_limits_mutex)
{
	for (size_t i = 0; i < r->count; i++) {
		const struct entry *e = &r->entries[i];
		struct entry *known;

		if (r->first[i] != i)
			continue;
		known = find_entry(limits, r->asks[i].key);
		if (known == NULL && e->debt == 0 && e->over_us == 0)
			continue;
		if (known == NULL)
			known = take_place(limits, r->asks[i].key, r->now_us);
		*known = *e;
	}
}

bool client_limits_ask(struct client_limits *limits, struct client_ask *asks, size_t count, uint64_t now_us)
{
	struct request r;
	bool may_pass;

	r.asks = asks;
	r.count = count < CLIENT_LIMITS_ASKS_MAX ? count : CLIENT_LIMITS_ASKS_MAX;
	r.now_us = now_us;
	begin(limits, &r);
	lock_stripes(limits, &r);
	may_pass = judge(limits, &r);
	if (!may_pass)
		take_back(&r);
	conclude(&r);
	write_back(limits, &r);
	unlock_stripes(limits, &r);
	return may_pass;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

uint64_t client_limits_hash(const struct client_limits *limits, const char *part, const char *bytes, size_t length)
{
	struct siphash hash;

	siphash_begin(&hash, limits->secret);
	siphash_add(&hash, part, strlen(part) + 1); /* with its end: "ab", "c" is not "a", "bc" */
	siphash_add(&hash, bytes, length);
	return siphash_end(&hash);
}

static bool draw_secret(uint8_t secret[SIPHASH_SECRET_BYTES])
{
	ssize_t drawn;

	do
		drawn = getrandom(secret, SIPHASH_SECRET_BYTES, 0);
	while (drawn < 0 && errno == EINTR);
	return drawn == SIPHASH_SECRET_BYTES;
}

/* calloc leaves large memory as the kernel gave it, pages that are not there until touched, but knows nothing of
   cache lines. */
static bool make_sets(struct client_limits *limits, size_t capacity)
{
	size_t bytes;

	if (capacity > SIZE_MAX / 4 / sizeof(struct set))
		return false;
	for (limits->set_count = 1; limits->set_count * PLACES < 2 * capacity;)
		limits->set_count *= 2;
	bytes = limits->set_count * sizeof(struct set) + CACHE_LINE_BYTES;
	limits->bytes = sizeof(*limits) + bytes;
	limits->memory = calloc(bytes, 1);
	if (limits->memory == NULL)
		return false;
	limits->sets = (struct set *)((char *)limits->memory + CACHE_LINE_BYTES -
	                              (uintptr_t)limits->memory % CACHE_LINE_BYTES);
	return true;
}

struct client_limits *client_limits_create(size_t capacity)
{
	struct client_limits *limits = calloc(1, sizeof(*limits));
	size_t locks = 0;

	if (limits == NULL)
		return NULL;
	while (locks < STRIPES && pthread_mutex_init(&limits->stripes[locks].mutex, NULL) == 0)
		locks++;
	if (locks == STRIPES && make_sets(limits, capacity) && draw_secret(limits->secret))
		return limits;
	while (locks-- > 0)
		pthread_mutex_destroy(&limits->stripes[locks].mutex);
	free(limits->memory);
	free(limits);
	return NULL;
}

void client_limits_destroy(struct client_limits *limits)
{
	if (limits == NULL)
		return;
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_destroy(&limits->stripes[i].mutex);
	free(limits->memory);
	free(limits);
}

/* One stripe at a time: the sum is of no single moment, and nobody waits for it. */
void client_limits_report(struct client_limits *limits, struct client_limits_report *report)
{
	*report = (struct client_limits_report){ .bytes = limits->bytes };
	for (unsigned i = 0; i < STRIPES; i++) {
		struct stripe *stripe = &limits->stripes[i];

		stripe_lock(stripe);
		report->keys += stripe->keys;
		report->forgotten_total += stripe->forgotten_total;
		stripe_unlock(stripe);
	}
}
