/* balancer.c: whose turn it is, and who is out of the rotation.
 *
 * The problem: several targets do the same work. Each should get its share, in a strict order that a person can
 * predict, and one that fails must cost no client anything: it leaves the rotation at once and comes back by a
 * probe, never by a guess.
 *
 * The idea: smooth weighted round robin. Each target has a credit. For each pick, all that are in earn their
 * weight; the richest is picked and pays what all earned together. Weights 3, 1, 1 (total 5):
 *
 *      A  B  C                A  B  C
 *      0  0  0   all earn ─►  3  1  1   A is picked, pays 5
 *     -2  1  1   all earn ─►  1  2  2   B
 *      1 -3  2   all earn ─►  4 -2  3   A
 *     -1 -2  3   all earn ─►  2 -1  4   C
 *      2 -1 -1   all earn ─►  5  0  0   A     and all are at 0 again: A B A C A, not A A A B C
 *
 * Equals are taken in a circle that begins after the last one picked. When the rotation changes all credits go back
 * to 0, else a target that returns would be owed for its absence: it keeps its place in the circle and nothing
 * more. So with equal weights the order is strict at all times: A B C D E, without C A B D E, then A B C D E as
 * before.
 *
 *      IN ──── a request fails, or probe_fall bad probes ──► OUT ── probe_rise good probes ──► IN
 *
 * Invariants: a target that is out or drained is never picked. A slot is given to another name only when nobody
 * holds a pick of the old one. The credits of those that are in sum to 0. Of two targets of equal weight none is
 * picked twice in a row.
 *
 * A TCP probe only shows that a port is open, which it is in front of a hung program too. So a target that such a
 * probe brought back is on trial: if its next request fails, the next probe waits twice as long, up to 32
 * intervals. Without that a hung target costs one client its whole patience each second.
 *
 * Sources: nginx, ngx_http_upstream_round_robin.c; Thaler and Ravishankar 1998, rendezvous hashing, with the
 * weighted score of Schindelhauer and Schomaker 2005.
 */
#include "balancer.h"
#include "lib/ts.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NO_PROBE UINT64_MAX
#define DELAY_MAX 32u /* a power of two */

struct target {
	char *name;
	uint64_t name_hash;
	void *item;
	unsigned slot;
	unsigned weight;
	bool is_listed; /* false: left the list, waits for its last request and its probe to end */
	bool is_out;
	bool is_drained;
	bool is_probing;
	bool is_on_trial; /* a TCP probe brought it back, and no request has succeeded since */
	unsigned stay;    /* how often it was taken out: a pick of an earlier stay brings old news */
	unsigned delay;   /* in probe intervals, from a failed request to the probe */
	unsigned good_probes, bad_probes; /* in a row */
	uint64_t next_probe_us;
	int64_t credit;
	unsigned active;
	uint64_t requests_total, failures_total;
};

struct balancer {
	pthread_mutex_t mutex;
	void (*release)(void *item); /* never changes */
	struct balancer_options options GUARDED_BY(balancer_mutex);
	struct target *slots[BALANCER_TARGETS_MAX] GUARDED_BY(balancer_mutex); /* also those that left and still work */
	unsigned slot_hint GUARDED_BY(balancer_mutex);                         /* where to look for a free one */
	struct target *list[BALANCER_TARGETS_MAX] GUARDED_BY(balancer_mutex);  /* in the caller's order */
	size_t count GUARDED_BY(balancer_mutex);
	size_t cursor GUARDED_BY(balancer_mutex); /* place in list, after the last pick: here the circle begins */
};

LOCK_VERBS(balancer, mutex, balancer_mutex)

/* What one call of balancer_set_targets() is about to do. */
struct plan {
	struct target *list[BALANCER_TARGETS_MAX];
	unsigned weights[BALANCER_TARGETS_MAX];
	bool is_new[BALANCER_TARGETS_MAX];
	size_t count;
	void *let_go[2 * BALANCER_TARGETS_MAX]; /* items to release when the lock is free again */
	size_t let_go_count;
};

/* Spreads every bit of x over all 64 (the finish of splitmix64): close keys must not get close scores. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t hash_of_name(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (; *name != '\0'; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
	return mix(hash);
}

static bool takes_turns(const struct target *t)
{
	return !t->is_out && !t->is_drained;
}

static bool was_tried(const struct balancer_tried *tried, const struct target *t)
{
	return (tried->bits[t->slot / 64] >> (t->slot % 64) & 1u) != 0;
}

static void free_target(struct target *t)
{
	free(t->name);
	free(t);
}

static void start_afresh(struct balancer *b) REQUIRES(balancer_mutex)
{
	for (size_t i = 0; i < b->count; i++)
		b->list[i]->credit = 0;
}

/* A probe of a target that is in tells something only if it speaks HTTP. */
static void plan_probe(const struct balancer *b, struct target *t, uint64_t at_us) REQUIRES(balancer_mutex)
{
	t->next_probe_us = t->is_out || b->options.probe_asks ? at_us : NO_PROBE;
}

static void go_out(struct balancer *b, struct target *t) REQUIRES(balancer_mutex)
{
	t->is_out = true;
	t->stay++;
	t->good_probes = 0;
	start_afresh(b);
}

static void come_in(struct balancer *b, struct target *t) REQUIRES(balancer_mutex)
{
	t->is_out = false;
	t->is_on_trial = !b->options.probe_asks;
	start_afresh(b);
}

/* A target that left the list ends with its last request. Returns the target if that is now: the caller, once it has
   unlocked, releases the item and frees it. */
static struct target *end_if_unused(struct balancer *b, struct target *t) REQUIRES(balancer_mutex)
{
	if (t->is_listed || t->active > 0 || t->is_probing)
		return NULL;
	b->slots[t->slot] = NULL;
	return t;
}

static void bury(struct balancer *b, struct target *t)
{
	if (t == NULL)
		return;
	b->release(t->item);
	free_target(t);
}

struct balancer *balancer_create(const struct balancer_options *options, void (*release)(void *item))
{
	struct balancer *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return NULL;
	if (pthread_mutex_init(&b->mutex, NULL) != 0) {
		free(b);
		return NULL;
	}
	b->release = release;
	balancer_configure(b, options);
	return b;
}

void balancer_destroy(struct balancer *b)
{
	struct target *gone[BALANCER_TARGETS_MAX];

	if (b == NULL)
		return;
	balancer_lock(b);
	memcpy(gone, b->slots, sizeof(gone));
	balancer_unlock(b);
	for (size_t i = 0; i < BALANCER_TARGETS_MAX; i++)
		bury(b, gone[i]);
	pthread_mutex_destroy(&b->mutex);
	free(b);
}

void balancer_configure(struct balancer *b, const struct balancer_options *options)
{
	balancer_lock(b);
	b->options = *options;
	for (size_t i = 0; i < b->count; i++) {
		struct target *t = b->list[i];

		/* No time is given here: 0 is due at once. */
		plan_probe(b, t, t->next_probe_us == NO_PROBE ? 0 : t->next_probe_us);
	}
	start_afresh(b);
	balancer_unlock(b);
}

/* ---- the list of targets ------------------------------------------------------------ */

static struct target *find(struct target *const *list, size_t count, const char *name, uint64_t hash)
{
	for (size_t i = 0; i < count; i++)
		if (list[i]->name_hash == hash && strcmp(list[i]->name, name) == 0)
			return list[i];
	return NULL;
}

static struct target *new_target(const struct balancer_entry *entry, uint64_t hash)
{
	struct target *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->name = strdup(entry->name);
	if (t->name == NULL) {
		free(t);
		return NULL;
	}
	t->name_hash = hash;
	t->item = entry->item;
	t->is_out = entry->out;
	t->delay = 1;
	return t;
}

/* There is one. Slots are taken in a circle, so that one that came free rests as long as it can: a request that still
   has it marked as tried would pass over the new target in it. */
static void take_slot(struct balancer *b, struct target *t) REQUIRES(balancer_mutex)
{
	while (b->slots[b->slot_hint] != NULL)
		b->slot_hint = (b->slot_hint + 1) % BALANCER_TARGETS_MAX;
	t->slot = b->slot_hint;
	b->slots[t->slot] = t;
	b->slot_hint = (t->slot + 1) % BALANCER_TARGETS_MAX;
}

/* Targets that are not in the plan, or left before, and whose slots are still needed. */
static size_t count_leaving(const struct balancer *b, const struct plan *plan) REQUIRES(balancer_mutex)
{
	size_t count = 0;

	for (size_t i = 0; i < BALANCER_TARGETS_MAX; i++) {
		const struct target *t = b->slots[i];

		if (t != NULL && (t->active > 0 || t->is_probing) &&
		    find(plan->list, plan->count, t->name, t->name_hash) != t)
			count++;
	}
	return count;
}

/* Everything that can fail, and nothing that is seen. */
static bool make_plan(const struct balancer *b, struct plan *plan, const struct balancer_entry *entries, size_t count)
	REQUIRES(balancer_mutex)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t hash = hash_of_name(entries[i].name);
		struct target *t = find(b->list, b->count, entries[i].name, hash);

		if (find(plan->list, plan->count, entries[i].name, hash) != NULL) {
			plan->let_go[plan->let_go_count++] = entries[i].item;
			continue;
		}
		if (t != NULL) {
			plan->let_go[plan->let_go_count++] = entries[i].item;
		} else {
			t = new_target(&entries[i], hash);
			if (t == NULL)
				return false;
			plan->is_new[plan->count] = true;
		}
		plan->weights[plan->count] = entries[i].weight > 0 ? entries[i].weight : 1;
		plan->list[plan->count++] = t;
	}
	return plan->count + count_leaving(b, plan) <= BALANCER_TARGETS_MAX;
}

static void undo_plan(struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++)
		if (plan->is_new[i])
			free_target(plan->list[i]);
}

/* The turn goes on with the first target after the cursor that is still there. */
static size_t cursor_in_plan(const struct balancer *b, const struct plan *plan) REQUIRES(balancer_mutex)
{
	for (size_t i = 0; i < b->count; i++) {
		const struct target *t = b->list[(b->cursor + i) % b->count];

		for (size_t j = 0; j < plan->count; j++)
			if (plan->list[j] == t)
				return j;
	}
	return 0;
}

static void carry_out(struct balancer *b, struct plan *plan, uint64_t now_us) REQUIRES(balancer_mutex)
{
	size_t cursor = cursor_in_plan(b, plan);
	bool changed = plan->count != b->count || memcmp(plan->list, b->list, b->count * sizeof(b->list[0])) != 0;

	for (size_t i = 0; i < b->count; i++)
		b->list[i]->is_listed = false;
	for (size_t i = 0; i < plan->count; i++) {
		changed = changed || plan->list[i]->weight != plan->weights[i];
		plan->list[i]->weight = plan->weights[i];
		plan->list[i]->is_listed = true;
		if (plan->is_new[i])
			plan_probe(b, plan->list[i], now_us);
	}
	for (size_t i = 0; i < b->count; i++) {
		struct target *t = end_if_unused(b, b->list[i]);

		if (t != NULL) {
			plan->let_go[plan->let_go_count++] = t->item;
			free_target(t);
		}
	}
	for (size_t i = 0; i < plan->count; i++)
		if (plan->is_new[i])
			take_slot(b, plan->list[i]);
	memcpy(b->list, plan->list, plan->count * sizeof(b->list[0]));
	b->count = plan->count;
	b->cursor = cursor;
	if (changed) /* names that are resolved again and again mostly give the same list: the turns go on */
		start_afresh(b);
}

int balancer_set_targets(struct balancer *b, const struct balancer_entry *entries, size_t count, uint64_t now_us)
{
	struct plan *plan;
	bool done;

	if (count > BALANCER_TARGETS_MAX)
		return -1;
	plan = calloc(1, sizeof(*plan));
	if (plan == NULL)
		return -1;
	balancer_lock(b);
	done = make_plan(b, plan, entries, count);
	if (done)
		carry_out(b, plan, now_us);
	else
		undo_plan(plan);
	balancer_unlock(b);
	for (size_t i = 0; done && i < plan->let_go_count; i++)
		b->release(plan->let_go[i]);
	free(plan);
	return done ? 0 : -1;
}

/* ---- whose turn it is ------------------------------------------------------------ */

/* Rendezvous: key and name together throw a die for each target, and the highest wins. A target that leaves takes
   only its own keys away, for the others' dice stay as they fell. -weight / ln(u) makes a target win in proportion
   to its weight. */
static double rendezvous_score(const struct target *t, uint64_t key_hash)
{
	uint64_t die = mix(mix(key_hash) ^ t->name_hash);
	double u = ((double)(die >> 11) + 0.5) / 9007199254740992.0; /* 53 bits, strictly between 0 and 1 */

	return -(double)t->weight / log(u);
}

static bool is_less_busy(const struct target *a, const struct target *b)
{
	return (uint64_t)a->active * b->weight < (uint64_t)b->active * a->weight;
}

/* The richest is found among those that earn. A pick that had to pass over a target that is in and was tried upsets
   the credits (who was passed over would be owed a turn and could get two in a row), so the rotation starts afresh
   after it. */
static struct target *choose(struct balancer *b, uint64_t key_hash, const struct balancer_tried *tried)
	REQUIRES(balancer_mutex)
{
	enum balancer_policy policy = b->options.policy;
	struct target *best = NULL;
	double best_score = 0;
	int64_t earned = 0;
	size_t best_place = 0;
	bool passed_over = false;

	for (size_t i = 0; i < b->count; i++) {
		size_t place = (b->cursor + i) % b->count;
		struct target *t = b->list[place];

		if (!takes_turns(t))
			continue;
		if (was_tried(tried, t)) {
			passed_over = true;
			continue;
		}
		t->credit += t->weight;
		earned += t->weight;
		double score = policy == BALANCER_HASH ? rendezvous_score(t, key_hash) : (double)t->credit;
		/* Equals do not win: the first in the circle keeps the turn. */
		if (best == NULL || (policy == BALANCER_LEASTCONN ? is_less_busy(t, best) : score > best_score)) {
			best = t;
			best_score = score;
			best_place = place;
		}
	}
	if (best == NULL)
		return NULL;
	best->credit -= earned;
	if (passed_over || policy != BALANCER_ROUNDROBIN)
		start_afresh(b);
	b->cursor = (best_place + 1) % b->count;
	return best;
}

bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out)
{
	struct target *t;

	balancer_lock(b);
	t = choose(b, key_hash, tried);
	if (t != NULL) {
		tried->bits[t->slot / 64] |= (uint64_t)1 << (t->slot % 64);
		tried->count++;
		t->active++;
		t->requests_total++;
		*out = (struct balancer_pick){
			.slot = t->slot, .stay = t->stay, .is_trial = t->is_on_trial, .item = t->item };
	}
	balancer_unlock(b);
	return t != NULL;
}

bool balancer_any_in(struct balancer *b)
{
	bool found = false;

	balancer_lock(b);
	for (size_t i = 0; i < b->count && !found; i++)
		found = takes_turns(b->list[i]);
	balancer_unlock(b);
	return found;
}

/* ---- what became of it ------------------------------------------------------------ */

void balancer_done(struct balancer *b, const struct balancer_pick *pick)
{
	struct target *ended;

	balancer_lock(b);
	b->slots[pick->slot]->active--;
	ended = end_if_unused(b, b->slots[pick->slot]);
	balancer_unlock(b);
	bury(b, ended);
}

void balancer_succeeded(struct balancer *b, const struct balancer_pick *pick)
{
	struct target *t;

	if (!pick->is_trial) /* and none has begun in this stay: a trial begins when a target comes in */
		return;
	balancer_lock(b);
	t = b->slots[pick->slot];
	if (pick->stay == t->stay)
		t->is_on_trial = false;
	balancer_unlock(b);
}

bool balancer_failed(struct balancer *b, const struct balancer_pick *pick, uint64_t now_us)
{
	struct target *t;
	bool is_news;

	balancer_lock(b);
	t = b->slots[pick->slot];
	t->failures_total++;
	is_news = t->is_listed && pick->stay == t->stay;
	if (is_news) {
		t->delay = !t->is_on_trial ? 1 : t->delay < DELAY_MAX ? t->delay * 2 : DELAY_MAX;
		go_out(b, t);
		plan_probe(b, t, now_us + t->delay * b->options.probe_interval_us);
	}
	balancer_unlock(b);
	return is_news;
}

bool balancer_probe_due(struct balancer *b, uint64_t now_us, struct balancer_pick *out, uint64_t *wake_us)
{
	struct target *first = NULL;
	bool is_due;

	balancer_lock(b);
	for (size_t i = 0; i < b->count; i++) {
		struct target *t = b->list[i];

		if (!t->is_drained && !t->is_probing && (first == NULL || t->next_probe_us < first->next_probe_us))
			first = t;
	}
	*wake_us = first != NULL ? first->next_probe_us : NO_PROBE;
	is_due = *wake_us != NO_PROBE && *wake_us <= now_us;
	if (is_due) {
		first->is_probing = true;
		*out = (struct balancer_pick){ .slot = first->slot, .stay = first->stay, .item = first->item };
	}
	balancer_unlock(b);
	return is_due;
}

/* Counts one probe of a target that was in the same stay when the probe began. */
static enum balancer_change judge(struct balancer *b, struct target *t, bool good) REQUIRES(balancer_mutex)
{
	t->good_probes = good ? t->good_probes + 1 : 0;
	t->bad_probes = good ? 0 : t->bad_probes + 1;
	if (t->is_out && good && t->good_probes >= b->options.probe_rise) {
		come_in(b, t);
		return BALANCER_CAME_IN;
	}
	if (!t->is_out && !good && t->bad_probes >= b->options.probe_fall) {
		go_out(b, t);
		return BALANCER_WENT_OUT;
	}
	return BALANCER_SAME;
}

enum balancer_change balancer_probed(struct balancer *b, const struct balancer_pick *pick, bool good, uint64_t now_us)
{
	enum balancer_change change = BALANCER_SAME;
	struct target *t, *ended;

	balancer_lock(b);
	t = b->slots[pick->slot];
	t->is_probing = false;
	/* A request may have failed while the probe was under way: then its plan stands, and this probe is old news. */
	if (pick->stay == t->stay) {
		if (!t->is_drained)
			change = judge(b, t, good);
		plan_probe(b, t, now_us + b->options.probe_interval_us);
	}
	ended = end_if_unused(b, t);
	if (!t->is_listed)
		change = BALANCER_SAME;
	balancer_unlock(b);
	bury(b, ended);
	return change;
}

bool balancer_drain(struct balancer *b, const char *name, bool drain)
{
	struct target *t;

	balancer_lock(b);
	t = find(b->list, b->count, name, hash_of_name(name));
	if (t != NULL && t->is_drained != drain) {
		t->is_drained = drain;
		start_afresh(b);
	}
	balancer_unlock(b);
	return t != NULL;
}

/* Whom choose() would choose now, without choosing: its place in the list, or count. */
static size_t next_place(struct balancer *b) REQUIRES(balancer_mutex)
{
	size_t best = b->count;
	int64_t best_credit = 0;

	if (b->options.policy == BALANCER_HASH)
		return best;
	for (size_t i = 0; i < b->count; i++) {
		size_t place = (b->cursor + i) % b->count;
		const struct target *t = b->list[place];
		int64_t credit = t->credit + t->weight;

		if (!takes_turns(t))
			continue;
		if (best == b->count ||
		    (b->options.policy == BALANCER_LEASTCONN ? is_less_busy(t, b->list[best]) : credit > best_credit)) {
			best = place;
			best_credit = credit;
		}
	}
	return best;
}

size_t balancer_report(struct balancer *b, struct balancer_report *reports, size_t capacity)
{
	size_t count;

	balancer_lock(b);
	count = b->count;
	size_t next = next_place(b);
	for (size_t i = 0; i < count && i < capacity; i++) {
		const struct target *t = b->list[i];
		struct balancer_report *r = &reports[i];

		memset(r, 0, sizeof(*r));
		strncpy(r->name, t->name, sizeof(r->name) - 1);
		r->state = t->is_drained ? BALANCER_DRAIN : t->is_out ? BALANCER_OUT : BALANCER_IN;
		r->probing = t->is_probing;
		r->is_next = i == next;
		r->weight = t->weight;
		r->active = t->active;
		r->requests_total = t->requests_total;
		r->failures_total = t->failures_total;
		if (!t->is_drained && !t->is_probing && t->next_probe_us != NO_PROBE)
			r->next_probe_us = t->next_probe_us > 0 ? t->next_probe_us : 1;
	}
	balancer_unlock(b);
	return count;
}
