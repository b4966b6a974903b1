/* cluster.c: one threshold, many nodes: who is in the group, who is master, who gets how many starts.
 *
 * The problem: the sum over all nodes must obey the limiter's promise (in no window do more than threshold requests start) while
 * datagrams get lost, doubled, late and out of order, and nodes die, hang and come back; with no clock in common.
 *
 * The idea: one node, the master, has a ring of threshold slots, as limiter.c has. But it is not told when a slot was used, so
 * what it gives carries its bounds: start not before S, not after S + L. The slot is given again from S + W + L on.
 *
 *      master   ──────┬── slot given: S ............ S+L ──────────────────── S+W+L: given again
 *                     │                │              │
 *      member   q ────┴───── r         └── a start ───┘      two starts with one slot are never closer than W
 *               asks         has it
 *
 * No clocks are compared. The grant says "in d". The member counts d from r, when the grant came, so it is never early. By its own
 * clock the master answered at q or later, so q + d + L is no later than S + L. Delay can waste a grant, and never stretch one.
 *
 * Alive is who lately echoed a challenge of ours, by the time when we issued it. The lowest id alive is master. It gives only in
 * answer to a demand, what comes due within H: poorest first. It takes over from another master by asking for its ring, and where
 * nobody can answer, by QUIET TIME: every slot counts as given at the last moment at which somebody else could have given it.
 *
 * Invariants. For each slot: next S >= last S + W + L. A node gives only while it is master, and was master when it last looked,
 * less than PAUSE_US ago. A member takes grants from the master that it believes in, at the highest epoch that it has seen.
 *
 * Sources: Gray and Cheriton, "Leases" (SOSP 1989), for grants that carry their end; Garcia-Molina, "Elections in a Distributed
 * Computing System" (1982), the bully algorithm; Lamport's ballots for the epoch; Bertsekas and Gallager for max-min fairness.
 */
#include "cluster.h"

#include <stdlib.h>
#include <string.h>

#define MS_US UINT64_C(1000)
#define BEAT_US (200 * MS_US)          /* between heartbeats */
#define NEWS_US (5 * MS_US)            /* when there is something new to tell */
#define FAST_BEAT_US (50 * MS_US)      /* of a node that is not settled */
#define ALIVE_US (700 * MS_US)         /* how old an echo may be */
#define SUSPECT_US (450 * MS_US)       /* older: that node is asked directly, ... */
#define PROBE_US (25 * MS_US)          /* ... this often, ... */
#define PROBED_US (2600 * MS_US)       /* ... until its echo is so old */
#define LISTEN_US (700 * MS_US)        /* what a newcomer listens for before it stands for master */
#define PAUSE_US (500 * MS_US)         /* who did not run for so long may have been replaced */
#define AHEAD_US (50 * MS_US)          /* H: how far ahead the master gives */
#define LATE_MIN_US (8 * MS_US)        /* L */
#define LATE_MAX_US (100 * MS_US)
#define ROAD_US (2 * MS_US)            /* of L, kept for the road from the member to the target */
#define GRID_US (1 * MS_US)            /* slots come due on a grid, so that a grant is a few runs */
#define ASKING_US (45 * MS_US)         /* who asked so lately has a share */
#define DEMAND_US (20 * MS_US)
#define DEMAND_MIN_US (1 * MS_US)
#define TAKEOVER_US (50 * MS_US)       /* between two requests for a ring, ... */
#define HANDOVER_US (300 * MS_US)      /* ... and how long an answer is waited for from one that has yielded */
#define ADAPT_US (250 * MS_US)
#define ADAPT_STARTS 16u               /* at small thresholds it takes a while until anything can be said */
#define TWIN_PATIENCE_US (1000 * MS_US)
#define HANDED_US (2000 * MS_US)

#define TABLE 96u    /* nodes that are remembered: the living, and the dead for a while */
#define NOBODY TABLE /* owner of a slot */
#define CHALLENGES 24u
#define UNSEEN 64u
#define NEVER UINT64_MAX

enum role {
	LISTENING, /* a newcomer */
	MEMBER,
	CANDIDATE, /* the lowest id alive, while another is still master */
	MASTER,
	ASIDE,     /* another node has our id, and is the elder */
	GONE,
};

struct node {
	bool is_alive, has_left, claims; /* claims: to be master */
	unsigned id;
	uint64_t incarnation;
	struct cluster_place place;
	uint64_t heard_us;       /* the last datagram of it */
	uint64_t proven_us;      /* when the newest challenge of ours that it echoed was issued; 0: none yet */
	uint64_t claims_since_us, yielded_us, twin_since_us;
	uint64_t asked_directly_us, answered_us;
	bool has_challenge;
	unsigned told_threshold; /* what we complained about last */
	struct cluster_heartbeat said;
	/* What the master keeps of it. */
	uint64_t demand_us, demand_asked_us;
	uint64_t favours;        /* how often it got of what was left over, but not long ago */
	unsigned waiting, owned; /* owned: slots given to it that do not come due within H */
	uint64_t grant_number, seen_number;
	struct { uint64_t number, at_us; unsigned count; } unseen[UNSEEN];
	bool has_totals;
	uint64_t used_total, died_total, late_us_total;
	uint64_t round_trip_us;
};

struct slot {
	uint64_t free_us; /* plus ring.shift_us */
	unsigned owner;
};

/* Ascending by free_us, as in limiter.c. The first due of them come due within H, and belong to nobody. */
struct ring {
	struct slot *slots;
	size_t capacity, front, count, due;
	uint64_t shift_us; /* starts that were late push every slot back */
	uint64_t even_us;  /* burst: when an even flow would be due again */
};

struct cluster {
	struct cluster_options options;
	struct cluster_calls calls;
	enum role role;
	uint64_t born_us;    /* this life: since the start, or since the last pause */
	uint64_t begun_us;   /* the first life */
	uint64_t ran_us, beat_us;
	bool has_news;       /* for the others: the next heartbeat is due soon */
	uint64_t epoch;
	struct node nodes[TABLE]; /* [0]: this node */
	unsigned places;          /* so many of them are known; a place is used anew, and never free again */
	struct { uint64_t value, issued_us; } challenges[CHALLENGES];
	unsigned newest_challenge;
	unsigned seen_most;
	/* as member */
	unsigned master;         /* index; NOBODY */
	uint64_t told_master_epoch;
	unsigned told_master_id;
	uint64_t demand_sent_us, last_grant;
	unsigned demanded;
	uint64_t late_sent_us_total, late_sent_first_us, late_seen_us_total;
	uint64_t round_trip_us, round_trip_varies_us; /* smoothed, as TCP does it (RFC 6298) */
	/* as candidate and master */
	struct ring ring;
	uint64_t unknown_us;     /* until then others may have given what the ring does not know; 0: it knows all */
	uint64_t quiet_until_us; /* of a master: it gives nothing before; 0: it has given */
	uint64_t takeover_us, takeover_begun_us, takeover_nonce;
	unsigned handed_to;      /* index: who may ask again for what we gave; NOBODY */
	uint64_t handed_us;
	uint64_t late_us;        /* L */
	uint64_t adapted_us, narrow_us, used_lately, died_lately;
	uint64_t granted_total, takeovers_total, elections_total;
};

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How long ago that was; moments to come are now. */
static uint64_t since(uint64_t now_us, uint64_t then_us)
{
	return now_us > then_us ? now_us - then_us : 0;
}

static void tell(struct cluster *c, enum cluster_event event, unsigned id, uint64_t number)
{
	c->calls.happened(c->calls.context, event, id, number);
}

/* How long the grants of a master that is heard no more can still have an effect. A strict master learns that it has lost a member
   only when that one's echo is too old: until then it uses the member's share. */
static uint64_t quiet_us(const struct cluster *c)
{
	return c->options.window_us + AHEAD_US + LATE_MAX_US + (c->options.is_strict ? ALIVE_US : 0);
}

/* ---- the ring ------------------------------------------------------------------------------------------------------ */

static struct slot *slot_at(const struct ring *ring, size_t i)
{
	return &ring->slots[(ring->front + i) % ring->capacity];
}

static uint64_t free_us(const struct ring *ring, size_t i)
{
	return slot_at(ring, i)->free_us + ring->shift_us;
}

static void disown(struct cluster *c, struct slot *slot)
{
	if (slot->owner != NOBODY)
		c->nodes[slot->owner].owned--;
	slot->owner = NOBODY;
}

static void disown_all(struct cluster *c)
{
	for (size_t i = 0; i < c->ring.count; i++)
		disown(c, slot_at(&c->ring, i));
	c->ring.due = 0;
}

/* What comes due within H is to be given again: its last owner is no richer for it. */
static void release_due(struct cluster *c, uint64_t now_us)
{
	struct ring *ring = &c->ring;
	while (ring->due < ring->count && free_us(ring, ring->due) <= now_us + AHEAD_US)
		disown(c, slot_at(ring, ring->due++));
}

static void drop_front(struct cluster *c)
{
	struct ring *ring = &c->ring;
	disown(c, slot_at(ring, 0));
	ring->front = (ring->front + 1) % ring->capacity;
	ring->count--;
	if (ring->due > 0)
		ring->due--;
}

static void put_back(struct ring *ring, uint64_t at_us, unsigned owner)
{
	at_us = at_us > ring->shift_us ? at_us - ring->shift_us : 0;
	if (ring->count > 0)
		at_us = later(at_us, slot_at(ring, ring->count - 1)->free_us);
	ring->count++;
	*slot_at(ring, ring->count - 1) = (struct slot){ at_us, owner };
}

static uint64_t round_us(const struct cluster *c)
{
	return c->options.window_us + c->late_us;
}

/* burst: the distance of starts in an even flow; 0: they need not be even. */
static uint64_t step_us(const struct cluster *c)
{
	return c->options.burst > 0 && c->options.burst < c->options.threshold ? round_us(c) / c->options.threshold : 0;
}

static uint64_t slack_us(const struct cluster *c)
{
	return step_us(c) > 0 ? (c->options.burst - 1) * step_us(c) : 0;
}

/* When the soonest slot may be used. */
static uint64_t next_start_us(const struct cluster *c, uint64_t now_us)
{
	uint64_t start_us = later(free_us(&c->ring, 0), now_us), even_us = c->ring.even_us;
	return step_us(c) > 0 && even_us > slack_us(c) ? later(start_us, even_us - slack_us(c)) : start_us;
}

static void use_slot(struct cluster *c, unsigned owner, uint64_t start_us)
{
	drop_front(c);
	put_back(&c->ring, (start_us + round_us(c) + GRID_US - 1) / GRID_US * GRID_US, owner);
	c->nodes[owner].owned++;
	if (step_us(c) > 0)
		c->ring.even_us = later(c->ring.even_us, start_us) + step_us(c);
}

/* Every slot counts as given at that moment at the earliest. */
static void fill_ring(struct cluster *c, uint64_t at_us)
{
	disown_all(c);
	for (size_t i = 0; i < c->ring.count; i++) {
		struct slot *slot = slot_at(&c->ring, i);
		slot->free_us = later(slot->free_us, at_us > c->ring.shift_us ? at_us - c->ring.shift_us : 0);
	}
}

/* Fewer slots: those that are due soonest go, for of all starts the latest count. More: usable when what was given before has no
   effect any more. */
static void resize_ring(struct cluster *c, size_t count, uint64_t now_us)
{
	while (c->ring.count > count)
		drop_front(c);
	while (c->ring.count < count)
		put_back(&c->ring, now_us + quiet_us(c), NOBODY);
}

/* No slot is busy for longer than the window that is now in force makes it. */
static void hasten_ring(struct cluster *c, uint64_t now_us)
{
	struct ring *ring = &c->ring;
	for (size_t i = 0; i < ring->count; i++)
		slot_at(ring, i)->free_us = sooner(free_us(ring, i), now_us + quiet_us(c));
	ring->shift_us = 0;
	ring->even_us = sooner(ring->even_us, now_us + AHEAD_US + round_us(c));
}

static bool make_ring(struct cluster *c, unsigned capacity)
{
	struct slot *slots = calloc(capacity > 0 ? capacity : 1, sizeof *slots);
	if (slots == NULL)
		return false;
	while (c->ring.count > capacity)
		drop_front(c);
	for (size_t i = 0; i < c->ring.count; i++)
		slots[i] = *slot_at(&c->ring, i);
	free(c->ring.slots);
	c->ring.slots = slots;
	c->ring.capacity = capacity > 0 ? capacity : 1;
	c->ring.front = 0;
	return true;
}

/* Another master's slots and ours: the latest of them all, as many as there are slots. Where theirs are fewer (a strict part of a
   group, another threshold), nobody knows what became of the rest: it counts as given just now. */
static bool merge_ring(struct cluster *c, const struct cluster_handover *theirs, uint64_t now_us)
{
	struct ring *ring = &c->ring;
	struct slot *merged = calloc(ring->capacity, sizeof *merged);
	size_t left = ring->count, own = ring->count, told = 0;
	unsigned bucket = theirs->bucket_count;
	uint64_t latest_us = now_us + quiet_us(c); /* nobody can have given a slot for longer */
	if (merged == NULL)
		return false;
	for (unsigned i = 0; i < theirs->bucket_count; i++)
		told += theirs->buckets[i];
	uint64_t their_us = latest_us; /* for slots that we are not told of */
	size_t at_their_us = told < own ? own - told : 0;
	disown_all(c);
	while (left > 0) { /* theirs, with those that we are not told of, are as many at least: neither end before all is merged */
		while (at_their_us == 0) {
			their_us = sooner(now_us + (uint64_t)bucket * theirs->bucket_us, latest_us);
			at_their_us = theirs->buckets[--bucket];
		}
		uint64_t own_us = free_us(ring, own - 1);
		bool is_theirs = their_us > own_us;
		merged[--left] = (struct slot){ is_theirs ? their_us : own_us, NOBODY };
		if (is_theirs)
			at_their_us--;
		else
			own--;
	}
	free(ring->slots);
	ring->slots = merged;
	ring->front = 0;
	ring->shift_us = 0;
	return true;
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------- */

static struct node *self_of(struct cluster *c)
{
	return &c->nodes[0];
}

static unsigned index_of(const struct cluster *c, const struct node *node)
{
	return (unsigned)(node - c->nodes);
}

static bool takes_part(const struct node *node)
{
	return node->is_alive && !node->said.is_aside;
}

static struct node *find_node(struct cluster *c, unsigned id, uint64_t incarnation)
{
	for (unsigned i = 1; i < c->places; i++)
		if (c->nodes[i].id == id && c->nodes[i].incarnation == incarnation)
			return &c->nodes[i];
	return NULL;
}

static void forget_node(struct cluster *c, struct node *node)
{
	for (size_t i = 0; i < c->ring.count && node->owned > 0; i++)
		if (slot_at(&c->ring, i)->owner == index_of(c, node))
			disown(c, slot_at(&c->ring, i));
	if (c->handed_to == index_of(c, node))
		c->handed_to = NOBODY;
	if (c->master == index_of(c, node))
		c->master = NOBODY;
	memset(node, 0, sizeof *node);
}

/* A place in the table: one that is free, or else that of the node that has been silent for longest, those first that never
   proved to be there. */
static struct node *place_for_node(struct cluster *c, uint64_t now_us)
{
	struct node *oldest = NULL;
	for (unsigned i = 1; i < TABLE; i++) {
		struct node *node = &c->nodes[i];
		if (i == c->places) {
			c->places++;
			return node;
		}
		if (node->is_alive || (node->proven_us > 0 && since(now_us, node->heard_us) < ALIVE_US))
			continue;
		if (oldest == NULL || (node->proven_us == 0) > (oldest->proven_us == 0) ||
		    ((node->proven_us == 0) == (oldest->proven_us == 0) && node->heard_us < oldest->heard_us))
			oldest = node;
	}
	if (oldest != NULL)
		forget_node(c, oldest);
	return oldest;
}

static struct node *meet_node(struct cluster *c, const struct cluster_message *message, uint64_t now_us)
{
	struct node *node = find_node(c, message->id, message->incarnation);
	if (node != NULL || message->kind != CLUSTER_HEARTBEAT)
		return node;
	node = place_for_node(c, now_us);
	if (node == NULL) {
		tell(c, CLUSTER_FULL, message->id, CLUSTER_NODES_MAX);
		return NULL;
	}
	node->id = message->id;
	node->incarnation = message->incarnation;
	return node;
}

static unsigned count_alive(const struct cluster *c)
{
	unsigned count = c->role == ASIDE ? 0 : 1;
	for (unsigned i = 1; i < c->places; i++)
		count += takes_part(&c->nodes[i]);
	return count;
}

/* Of the nodes that take part: a node that restarts is there twice until its earlier life is too old. */
static unsigned count_ids(const struct cluster *c)
{
	unsigned count = count_alive(c);
	for (unsigned i = 0; i < TABLE; i++)
		for (unsigned j = i + 1; j < TABLE && (i == 0 || takes_part(&c->nodes[i])); j++)
			if (takes_part(&c->nodes[j]) && c->nodes[j].id == c->nodes[i].id) {
				count--;
				break;
			}
	return count;
}

/* It is no master any more, as far as we can tell, and did not hand over: what it gave until then we do not know. */
static void claim_ends(struct cluster *c, struct node *node, uint64_t until_us)
{
	if (!node->claims)
		return;
	node->claims = false;
	c->unknown_us = later(c->unknown_us, until_us);
}

static void claim_begins(struct node *node, uint64_t now_us)
{
	if (!node->claims)
		node->claims_since_us = now_us;
	node->claims = true;
	node->yielded_us = 0;
}

static void look_who_is_alive(struct cluster *c, uint64_t now_us)
{
	for (unsigned i = 1; i < c->places; i++) {
		struct node *node = &c->nodes[i];
		bool was_alive = node->is_alive;
		node->is_alive = node->proven_us > 0 && !node->has_left && since(now_us, node->proven_us) <= ALIVE_US;
		if (node->is_alive && !was_alive)
			tell(c, CLUSTER_NODE_CAME, node->id, 0);
		if (was_alive && !node->is_alive) {
			if (node->id < c->options.id)
				node->claims = true; /* it may have become master, and we not have heard of it */
			claim_ends(c, node, now_us); /* it may have given to others long after we heard it last */
			tell(c, CLUSTER_NODE_WENT, node->id, 0);
		}
	}
	if (count_alive(c) > c->seen_most && count_ids(c) > c->seen_most)
		c->seen_most = count_ids(c);
}

/* ---- heartbeats ----------------------------------------------------------------------------------------------------- */

/* A challenge is good for all heartbeats of a short while. */
static uint64_t fresh_challenge(struct cluster *c, uint64_t now_us)
{
	unsigned newest = c->newest_challenge;
	if (c->challenges[newest].issued_us == 0 || since(now_us, c->challenges[newest].issued_us) >= FAST_BEAT_US) {
		newest = (newest + 1) % CHALLENGES;
		c->challenges[newest].value = c->calls.random(c->calls.context);
		c->challenges[newest].issued_us = now_us;
		c->newest_challenge = newest;
	}
	return c->challenges[newest].value;
}

/* When we issued it; 0: we did not, or long ago. */
static uint64_t issued_us(const struct cluster *c, uint64_t challenge)
{
	for (unsigned i = 0; i < CHALLENGES; i++)
		if (c->challenges[i].issued_us > 0 && c->challenges[i].value == challenge)
			return c->challenges[i].issued_us;
	return 0;
}

static void send_message(struct cluster *c, const struct node *to, struct cluster_message *message)
{
	message->id = c->options.id;
	message->incarnation = c->options.incarnation;
	message->epoch = c->epoch;
	c->calls.send(c->calls.context, to == NULL ? NULL : &to->place, message);
}

static unsigned believed_master(const struct cluster *c)
{
	if (c->role == MASTER)
		return c->options.id;
	return c->master != NOBODY ? c->nodes[c->master].id : 0;
}

static bool is_heard(const struct node *node, uint64_t now_us)
{
	return node->has_challenge && !node->has_left && since(now_us, node->heard_us) <= ALIVE_US;
}

/* More nodes than fit into a group: the lowest ids have its places, so that all agree on who has. */
static unsigned count_heard_below(const struct cluster *c, unsigned id, uint64_t now_us)
{
	unsigned count = 0;
	for (unsigned i = 1; i < TABLE; i++)
		count += c->nodes[i].id < id && is_heard(&c->nodes[i], now_us);
	return count;
}

/* to: NULL for everybody. */
static void send_heartbeat(struct cluster *c, const struct node *to, bool wants_answer, uint64_t now_us)
{
	struct cluster_message message = { .kind = CLUSTER_HEARTBEAT };
	struct cluster_heartbeat *beat = &message.is.heartbeat;
	struct cluster_line line = { .waiting = 0 };
	c->calls.line(c->calls.context, now_us, &line);
	beat->uptime_us = since(now_us, c->begun_us);
	beat->master = believed_master(c);
	beat->is_aside = c->role == ASIDE;
	beat->wants_answer = wants_answer;
	beat->threshold = c->options.threshold;
	beat->window_us = c->options.window_us;
	beat->group_size = c->options.group_size;
	beat->started_total = line.started_total;
	beat->waiting = line.waiting;
	beat->challenge = fresh_challenge(c, now_us);
	for (unsigned i = 1; i < c->places && beat->echo_count < CLUSTER_NODES_MAX; i++) {
		const struct node *node = &c->nodes[i];
		if (is_heard(node, now_us) && count_heard_below(c, node->id, now_us) < CLUSTER_NODES_MAX)
			beat->echoes[beat->echo_count++] = (struct cluster_echo){ node->id, node->said.challenge };
	}
	send_message(c, to, &message);
}

/* Not settled is who listens, stands for master, or may not give yet: for it to miss a node would be worst. */
static bool is_settled(const struct cluster *c, uint64_t now_us)
{
	return c->role != LISTENING && c->role != CANDIDATE && (c->role != MASTER || now_us >= c->quiet_until_us);
}

static uint64_t beat(struct cluster *c, uint64_t now_us)
{
	uint64_t every_us = c->has_news ? NEWS_US : is_settled(c, now_us) ? BEAT_US : FAST_BEAT_US, next_us = NEVER;
	if (now_us >= c->beat_us + every_us) {
		c->beat_us = now_us;
		c->has_news = false;
		send_heartbeat(c, NULL, count_alive(c) <= 1, now_us);
	}
	for (unsigned i = 1; i < c->places; i++) {
		struct node *node = &c->nodes[i];
		uint64_t age_us = since(now_us, node->proven_us);
		if (node->proven_us == 0 || node->has_left || age_us > PROBED_US)
			continue;
		if (age_us > SUSPECT_US && now_us >= node->asked_directly_us + PROBE_US) {
			node->asked_directly_us = now_us;
			send_heartbeat(c, node, true, now_us);
		}
		next_us = sooner(next_us, later(node->proven_us + SUSPECT_US + 1, node->asked_directly_us + PROBE_US));
		if (node->is_alive)
			next_us = sooner(next_us, node->proven_us + ALIVE_US + 1);
	}
	return sooner(next_us, c->beat_us + (c->has_news ? NEWS_US : is_settled(c, now_us) ? BEAT_US : FAST_BEAT_US));
}

static bool hears_claim(const struct cluster *c, unsigned id)
{
	for (unsigned i = 1; i < c->places; i++)
		if (c->nodes[i].id == id && c->nodes[i].claims)
			return true;
	return false;
}

static void receive_heartbeat(struct cluster *c, struct node *node, const struct cluster_heartbeat *beat, uint64_t now_us)
{
	bool claimed = node->claims;
	for (unsigned i = 0; i < beat->echo_count; i++)
		if (beat->echoes[i].id == c->options.id)
			node->proven_us = later(node->proven_us, issued_us(c, beat->echoes[i].challenge));
	if (beat->uptime_us < node->said.uptime_us) /* overtaken by a newer one on its way */
		return;
	node->said = *beat;
	node->has_challenge = true;
	bool is_proven = node->proven_us > 0 && since(now_us, node->proven_us) <= ALIVE_US;
	if (beat->master == node->id && !beat->is_aside)
		claim_begins(node, now_us);
	else if (claimed && c->role == CANDIDATE && c->takeover_nonce != 0 && !beat->is_aside) /* its ring may be on its way to us */
		node->yielded_us = now_us;
	else /* it may have given until just before it said so */
		claim_ends(c, node, now_us);
	/* Somebody gives whom we do not hear ourselves. */
	if (beat->master != 0 && beat->master != c->options.id && beat->master != node->id && !hears_claim(c, beat->master))
		c->unknown_us = later(c->unknown_us, now_us);
	if ((beat->wants_answer || !is_proven) && now_us >= node->answered_us + PROBE_US / 2) {
		node->answered_us = now_us;
		send_heartbeat(c, node, !is_proven, now_us);
	}
	bool agrees = beat->threshold == c->options.threshold && beat->window_us == c->options.window_us &&
	              beat->group_size == c->options.group_size;
	if (c->role == MASTER && is_proven && !agrees && node->told_threshold != beat->threshold + 1) {
		node->told_threshold = beat->threshold + 1;
		tell(c, CLUSTER_DISAGREES, node->id, beat->threshold);
	}
}

/* ---- who is master --------------------------------------------------------------------------------------------------- */

/* The lowest id alive that says it is master. */
static struct node *find_claimant(struct cluster *c)
{
	struct node *found = NULL;
	for (unsigned i = 1; i < c->places; i++) {
		struct node *node = &c->nodes[i];
		if (takes_part(node) && node->claims && (found == NULL || node->id < found->id))
			found = node;
	}
	return found;
}

/* Nor does it stand for master who hears of a lower master from one that hears it: with two masters around one member, each would learn
   of the other's epoch from it, and raise its own, without end. */
static bool is_lowest(const struct cluster *c, uint64_t now_us)
{
	if (count_heard_below(c, c->options.id, now_us) >= CLUSTER_NODES_MAX)
		return false;
	for (unsigned i = 1; i < c->places; i++) {
		const struct node *node = &c->nodes[i];
		if (takes_part(node) && (node->id < c->options.id || (node->said.master != 0 && node->said.master < c->options.id)))
			return false;
	}
	return true;
}

static void forget_demands(struct cluster *c)
{
	for (unsigned i = 0; i < c->places; i++) {
		struct node *node = &c->nodes[i];
		node->demand_us = node->demand_asked_us = 0;
		node->waiting = 0;
		node->has_totals = false;
		memset(node->unseen, 0, sizeof node->unseen);
	}
	c->late_us = LATE_MIN_US;
	c->used_lately = c->died_lately = 0;
}

static void become(struct cluster *c, enum role role)
{
	c->role = role;
	c->master = NOBODY;     /* elect() sets it */
	c->takeover_nonce = 0;
	c->has_news = true; /* the others hear of it at once */
	c->demanded = 0;
}

static void become_master(struct cluster *c, uint64_t now_us)
{
	c->quiet_until_us = c->unknown_us > 0 ? c->unknown_us + quiet_us(c) : 0;
	fill_ring(c, c->quiet_until_us);
	c->ring.even_us = later(c->ring.even_us, now_us + slack_us(c)); /* a burst may have been used by another */
	c->unknown_us = 0;
	c->epoch += c->epoch < UINT64_MAX;
	c->elections_total++;
	c->adapted_us = c->narrow_us = now_us;
	forget_demands(c);
	become(c, MASTER);
}

/* Begins anew, with nothing but what every newcomer knows: others may have given until now. */
static void begin_life(struct cluster *c, uint64_t now_us)
{
	c->born_us = c->unknown_us = now_us;
	c->handed_to = NOBODY;
	become(c, LISTENING);
}

static void ask_for_takeover(struct cluster *c, const struct node *claimant, uint64_t now_us)
{
	struct cluster_message message = { .kind = CLUSTER_TAKEOVER };
	if (c->takeover_nonce != 0 && now_us < c->takeover_us + TAKEOVER_US)
		return;
	if (c->takeover_nonce == 0) {
		c->takeover_nonce = c->calls.random(c->calls.context) | 1;
		c->takeover_begun_us = now_us;
	}
	c->takeover_us = now_us;
	message.is.takeover.nonce = c->takeover_nonce;
	send_message(c, claimant, &message);
}

/* Another node with our id: the one that runs for longer stays. Where that is too close to say, or said differently by the two, the
   greater incarnation decides. */
static bool is_elder(const struct cluster *c, const struct node *twin, uint64_t now_us)
{
	uint64_t own_us = since(now_us, c->begun_us), theirs_us = twin->said.uptime_us + since(now_us, twin->heard_us);
	uint64_t apart_us = own_us > theirs_us ? own_us - theirs_us : theirs_us - own_us;
	if (apart_us < TWIN_PATIENCE_US || since(now_us, twin->twin_since_us) > TWIN_PATIENCE_US)
		return c->options.incarnation > twin->incarnation;
	return own_us > theirs_us;
}

static void look_for_twin(struct cluster *c, uint64_t now_us)
{
	bool gives_way = false;
	for (unsigned i = 1; i < c->places; i++) {
		struct node *node = &c->nodes[i];
		if (!node->is_alive || node->id != c->options.id) {
			node->twin_since_us = 0;
			continue;
		}
		if (node->twin_since_us == 0) {
			node->twin_since_us = now_us;
			tell(c, CLUSTER_TWIN_MET, node->id, 0);
		}
		gives_way = gives_way || (!node->said.is_aside && (c->role == ASIDE || !is_elder(c, node, now_us)));
	}
	if (gives_way && c->role != ASIDE) {
		become(c, ASIDE);
		tell(c, CLUSTER_STEPPED_ASIDE, c->options.id, 0);
	} else if (!gives_way && c->role == ASIDE) {
		begin_life(c, now_us);
		tell(c, CLUSTER_CAME_BACK, c->options.id, 0);
	}
}

/* From here on we give no more, and it may ask for our ring. */
static void yield_to(struct cluster *c, const struct node *node, uint64_t now_us)
{
	become(c, MEMBER);
	c->handed_to = index_of(c, node);
	c->handed_us = now_us;
}

static void elect(struct cluster *c, uint64_t now_us)
{
	struct node *claimant = find_claimant(c);
	if (c->role == LISTENING && now_us >= c->born_us + LISTEN_US) {
		become(c, MEMBER);
		if (count_heard_below(c, c->options.id, now_us) >= CLUSTER_NODES_MAX)
			tell(c, CLUSTER_FULL, c->options.id, CLUSTER_NODES_MAX);
	}
	if (c->role == MASTER && claimant != NULL && claimant->id < c->options.id)
		yield_to(c, claimant, now_us);
	if (c->role == MASTER && claimant != NULL) /* the groups of two masters have met */
		become(c, CANDIDATE);
	if (c->role == MEMBER && is_lowest(c, now_us))
		become(c, CANDIDATE);
	if (c->role == CANDIDATE && !is_lowest(c, now_us))
		become(c, MEMBER);
	if (c->role == CANDIDATE && claimant != NULL && claimant->yielded_us > 0 && now_us >= c->takeover_begun_us + HANDOVER_US) {
		claim_ends(c, claimant, claimant->yielded_us);
		claimant = find_claimant(c);
	}
	if (c->role == CANDIDATE && claimant != NULL)
		ask_for_takeover(c, claimant, now_us);
	if (c->role == CANDIDATE && claimant == NULL)
		become_master(c, now_us);
	bool follows = c->role == MEMBER || c->role == LISTENING;
	c->master = c->role == MASTER ? 0 : follows && claimant != NULL ? index_of(c, claimant) : NOBODY;
	unsigned id = believed_master(c);
	if (id != c->told_master_id || (id != 0 && c->epoch != c->told_master_epoch)) {
		c->told_master_id = id;
		c->told_master_epoch = c->epoch;
		c->last_grant = 0; /* it numbers its own */
		c->demanded = 0;
		c->has_news = true;
		tell(c, CLUSTER_MASTER_CHANGED, id, c->epoch);
	}
}

/* The ring as counts by time; what is free already stands in the first bucket, so that the receiver knows of how many slots it was
   told. */
static void send_handover(struct cluster *c, const struct node *to, uint64_t nonce, uint64_t now_us)
{
	struct cluster_message message = { .kind = CLUSTER_HANDOVER };
	struct cluster_handover *handover = &message.is.handover;
	uint64_t last_us = c->ring.count > 0 ? since(free_us(&c->ring, c->ring.count - 1), now_us) : 0;
	uint64_t longest_us = sooner(last_us, quiet_us(c)); /* after that no start has an effect, whatever members say */
	handover->nonce = nonce;
	handover->bucket_us = (uint32_t)later(CLUSTER_BUCKET_US, longest_us / (CLUSTER_BUCKETS_MAX - 1) + 1);
	for (size_t i = 0; i < c->ring.count; i++) {
		uint64_t left_us = sooner(since(free_us(&c->ring, i), now_us), longest_us);
		unsigned bucket = (unsigned)((later(left_us, 1) - 1) / handover->bucket_us);
		handover->buckets[bucket]++;
		handover->bucket_count = bucket + 1;
	}
	send_message(c, to, &message);
}

/* A lower id wants to be master. We gave our last: from here on it may give. */
static void receive_takeover(struct cluster *c, struct node *node, const struct cluster_takeover *takeover, uint64_t now_us)
{
	bool asks_again = c->handed_to == index_of(c, node) && since(now_us, c->handed_us) < HANDED_US;
	if (node->id >= c->options.id)
		return;
	if (c->role != MASTER && !asks_again)
		return;
	if (c->role == MASTER) {
		yield_to(c, node, now_us);
		claim_begins(node, now_us);
	}
	send_handover(c, node, takeover->nonce, now_us);
}

static void receive_handover(struct cluster *c, struct node *node, const struct cluster_handover *handover, uint64_t now_us)
{
	if (c->role != CANDIDATE || c->takeover_nonce == 0 || handover->nonce != c->takeover_nonce || !node->claims)
		return;
	if (!merge_ring(c, handover, now_us))
		return;
	/* It knew of all that was given before it became master. But a strict master's ring is only its part's. */
	if (c->options.is_strict)
		c->unknown_us = now_us;
	else if (c->unknown_us <= node->claims_since_us)
		c->unknown_us = 0;
	node->claims = false;
	c->takeover_nonce = 0;
	c->takeovers_total++;
}

/* ---- the master gives ------------------------------------------------------------------------------------------------ */

/* What it was given and has not said to have seen, is on its way. What was lost is forgotten as soon as it has seen anything later. */
static unsigned count_unseen(const struct node *node, uint64_t now_us)
{
	unsigned count = 0;
	for (unsigned i = 0; i < UNSEEN; i++)
		if (node->unseen[i].number > node->seen_number && since(now_us, node->unseen[i].at_us) < AHEAD_US + 3 * LATE_MAX_US)
			count += node->unseen[i].count;
	return count;
}

static unsigned wish_of(const struct node *node, uint64_t now_us)
{
	if (node->waiting == 0 || since(now_us, node->demand_us) > ASKING_US)
		return 0;
	unsigned unseen = count_unseen(node, now_us);
	return node->waiting > unseen ? node->waiting - unseen : 0;
}

/* Who wants something: side by side, for they are gone over many times. */
struct wishes {
	unsigned count;
	struct wish {
		unsigned index, owned, wish;
	} of[TABLE];
};

/* What a node gets when all are filled up to a level. */
static unsigned fill_to(unsigned level, const struct wish *w)
{
	unsigned room = level > w->owned ? level - w->owned : 0;
	return room < w->wish ? room : w->wish;
}

static uint64_t fill_all_to(const struct wishes *wishes, unsigned level)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < wishes->count; i++)
		sum += fill_to(level, &wishes->of[i]);
	return sum;
}

/* How many of the slots that are due this node gets: the poorest are filled first, all to one level (max-min fairness). What is left
   over goes to those who got the least of that; who comes new is soon level with the others. */
static unsigned share_of(struct cluster *c, unsigned index, uint64_t now_us)
{
	const struct node *node = &c->nodes[index];
	struct wishes wishes = { .count = 0 };
	struct wish own = { index, node->owned, wish_of(node, now_us) };
	uint64_t due = c->ring.due;
	unsigned low = 0, high = 2 * CLUSTER_THRESHOLD_MAX;
	for (unsigned i = 0; i < c->places; i++) {
		unsigned wish = wish_of(&c->nodes[i], now_us);
		if (wish > 0)
			wishes.of[wishes.count++] = (struct wish){ i, c->nodes[i].owned, wish };
	}
	if (fill_all_to(&wishes, high) <= due)
		return own.wish;
	while (high - low > 1) {
		unsigned middle = low + (high - low) / 2;
		*(fill_all_to(&wishes, middle) <= due ? &low : &high) = middle;
	}
	unsigned share = fill_to(low, &own);
	uint64_t left = due - fill_all_to(&wishes, low), ahead = 0, most = 0;
	if (fill_to(high, &own) == share)
		return share;
	for (unsigned i = 0; i < wishes.count; i++) {
		const struct wish *wish = &wishes.of[i];
		const struct node *other = &c->nodes[wish->index];
		bool has_more = fill_to(high, wish) > fill_to(low, wish);
		bool is_earlier = other->favours < node->favours || (other->favours == node->favours && wish->index < index);
		most = later(most, other->favours);
		ahead += wish->index != index && has_more && is_earlier;
	}
	if (ahead < left)
		c->nodes[index].favours = later(node->favours, most > 2 ? most - 2 : 0) + 1;
	return share + (ahead < left);
}

/* Takes the node's share from the ring, as runs of starts at the same time. Returns how many. */
static unsigned take_share(struct cluster *c, unsigned index, struct cluster_grant *grant, uint64_t now_us)
{
	unsigned share = share_of(c, index, now_us), taken = 0;
	while (taken < share) { /* no more than is due: see share_of() */
		uint64_t start_us = next_start_us(c, now_us);
		uint32_t in_us = (uint32_t)(start_us - now_us);
		bool is_new_run = grant->run_count == 0 || grant->runs[grant->run_count - 1].in_us != in_us;
		if (start_us > now_us + AHEAD_US || (is_new_run && grant->run_count == CLUSTER_RUNS_MAX))
			break;
		if (is_new_run)
			grant->runs[grant->run_count++] = (struct cluster_run){ in_us, 0 };
		grant->runs[grant->run_count - 1].count++;
		use_slot(c, index, start_us);
		taken++;
	}
	c->granted_total += taken;
	return taken;
}

/* Starts from now on come in_us later: by the member's clock, from when the grant came, and until what is sure to be before the
   end of its time by the master's. */
static void use_grant(struct cluster *c, const struct cluster_grant *grant, uint64_t now_us)
{
	for (unsigned i = 0; i < grant->run_count; i++) {
		uint64_t in_us = grant->runs[i].in_us;
		c->calls.give(c->calls.context, now_us + in_us, grant->asked_us + in_us + grant->late_us, grant->runs[i].count, now_us);
	}
	c->calls.answered(c->calls.context, grant->asked_us, now_us);
}

/* Answers a demand, at once: to push later would not do, for the member could not tell how old such a grant is. */
static void answer_demand(struct cluster *c, struct node *node, uint64_t now_us)
{
	struct cluster_message message = { .kind = CLUSTER_GRANT };
	struct cluster_grant *grant = &message.is.grant;
	grant->asked_us = node->demand_asked_us;
	grant->number = ++node->grant_number;
	grant->late_us = (unsigned)(c->late_us - ROAD_US);
	release_due(c, now_us);
	unsigned count = take_share(c, index_of(c, node), grant, now_us);
	if (node == self_of(c)) {
		use_grant(c, grant, now_us);
		return;
	}
	unsigned at = (unsigned)(grant->number % UNSEEN);
	node->unseen[at].number = grant->number;
	node->unseen[at].at_us = now_us;
	node->unseen[at].count = count;
	send_message(c, node, &message);
}

/* How its starts have fared since it asked last. */
static void note_totals(struct cluster *c, struct node *node, const struct cluster_demand *demand)
{
	if (node->has_totals) {
		c->used_lately += since(demand->used_total, node->used_total);
		c->died_lately += since(demand->died_total, node->died_total);
	}
	/* A start came too late: its slot is used again as much later. Which one it was we do not know: so all are. */
	uint64_t known_us = node->has_totals ? node->late_us_total : demand->late_seen_us_total;
	c->ring.shift_us += sooner(since(demand->late_us_total, known_us), c->options.window_us);
	node->has_totals = true;
	node->used_total = demand->used_total;
	node->died_total = demand->died_total;
	node->late_us_total = demand->late_us_total;
	node->round_trip_us = demand->round_trip_us;
}

static void receive_demand(struct cluster *c, struct node *node, const struct cluster_demand *demand, uint64_t now_us)
{
	if (c->role != MASTER || demand->asked_us < node->demand_asked_us)
		return;
	node->demand_us = now_us;
	node->demand_asked_us = demand->asked_us;
	node->waiting = demand->waiting;
	node->seen_number = demand->last_grant;
	note_totals(c, node, demand);
	answer_demand(c, node, now_us);
}

/* No grant can be used that takes longer than L from the question to the answer. */
static uint64_t narrowest_us(const struct cluster *c, uint64_t now_us)
{
	uint64_t longest_us = 0;
	for (unsigned i = 1; i < c->places; i++)
		if (c->nodes[i].is_alive && since(now_us, c->nodes[i].demand_us) < ADAPT_US)
			longest_us = later(longest_us, c->nodes[i].round_trip_us);
	return sooner(LATE_MAX_US, later(LATE_MIN_US, longest_us + LATE_MIN_US / 2 + ROAD_US));
}

/* Starts that died of age: L is too narrow for this network, or for these machines. It is widened fast and narrowed slowly. */
static void adapt(struct cluster *c, uint64_t now_us)
{
	uint64_t all = c->used_lately + c->died_lately, narrowest = narrowest_us(c, now_us);
	c->late_us = later(c->late_us, narrowest);
	if (now_us < c->adapted_us + ADAPT_US)
		return;
	c->adapted_us = now_us;
	if (c->died_lately >= 2 && c->died_lately * 200 > all) {
		bool most_died = c->died_lately * 2 > all;
		c->late_us = sooner(LATE_MAX_US, most_died ? c->late_us * 2 : c->late_us * 3 / 2);
		c->used_lately = c->died_lately = 0;
		c->narrow_us = now_us;
	} else if (now_us >= c->narrow_us + 4 * ADAPT_US && all >= ADAPT_STARTS) {
		if (c->died_lately * 1000 <= all)
			c->late_us = later(narrowest, c->late_us * 15 / 16);
		if (c->died_lately == 0 || c->died_lately * 200 <= all) /* else there are too few yet to say */
			c->used_lately = c->died_lately = 0;
		c->narrow_us = now_us;
	}
}

/* strict: as many slots as are the share of those who take us for master. */
static void look_after_ring(struct cluster *c, uint64_t now_us)
{
	uint64_t slots = c->options.threshold, followers = 1;
	uint64_t whole = c->options.group_size > 0 ? c->options.group_size : c->seen_most;
	for (unsigned i = 1; i < c->places; i++)
		followers += takes_part(&c->nodes[i]) && c->nodes[i].said.master == c->options.id;
	if (c->options.is_strict && followers < whole)
		slots = slots * followers / whole;
	if (slots != c->ring.count)
		resize_ring(c, (size_t)slots, now_us);
}

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

static void send_demand(struct cluster *c, const struct cluster_line *line, unsigned waiting, uint64_t now_us)
{
	struct cluster_message message = { .kind = CLUSTER_DEMAND };
	struct cluster_demand *demand = &message.is.demand;
	unsigned round_trip = (unsigned)sooner(c->round_trip_us + 2 * c->round_trip_varies_us, LATE_MAX_US);
	*demand = (struct cluster_demand){ .asked_us = now_us,
		                           .last_grant = c->last_grant,
		                           .waiting = waiting,
		                           .used_total = line->used_total,
		                           .died_total = line->died_total,
		                           .late_us_total = line->late_us_total,
		                           .late_seen_us_total = c->late_seen_us_total,
		                           .round_trip_us = round_trip };
	c->demand_sent_us = now_us;
	c->demanded = waiting;
	if (line->late_us_total != c->late_sent_us_total) {
		c->late_sent_us_total = line->late_us_total;
		c->late_sent_first_us = now_us;
	}
	if (c->role == MASTER) {
		c->late_seen_us_total = line->late_us_total;
		receive_demand(c, self_of(c), demand, now_us);
	} else {
		send_message(c, &c->nodes[c->master], &message);
	}
}

/* Asks for starts if anybody stands in line. */
static uint64_t ask(struct cluster *c, uint64_t now_us)
{
	struct cluster_line line = { .waiting = 0 };
	if (c->master == NOBODY)
		return NEVER;
	c->calls.line(c->calls.context, now_us, &line);
	unsigned waiting = line.waiting > line.held ? line.waiting - line.held : 0;
	bool has_news = line.late_us_total != c->late_seen_us_total;
	if (waiting == 0 && !has_news) {
		c->demanded = 0;
		return NEVER;
	}
	uint64_t soonest_us = c->role == MASTER ? 0 : DEMAND_MIN_US;
	uint64_t due_us = c->demand_sent_us + (waiting != c->demanded ? soonest_us : DEMAND_US);
	if (now_us < due_us)
		return due_us;
	send_demand(c, &line, waiting, now_us);
	return now_us + DEMAND_US;
}

static void note_round_trip(struct cluster *c, uint64_t took_us)
{
	took_us = sooner(took_us, LATE_MAX_US); /* more is a pause, and not the network */
	uint64_t off_us = later(took_us, c->round_trip_us) - sooner(took_us, c->round_trip_us);
	if (c->round_trip_us == 0) {
		c->round_trip_us = took_us;
		c->round_trip_varies_us = took_us / 16;
		return;
	}
	c->round_trip_varies_us = (c->round_trip_varies_us * 15 + off_us) / 16;
	c->round_trip_us = (c->round_trip_us * 31 + took_us) / 32;
}

static void receive_grant(struct cluster *c, const struct node *node, uint64_t epoch, const struct cluster_grant *grant,
                          uint64_t now_us)
{
	if (c->master != index_of(c, node) || epoch < c->epoch || grant->asked_us > now_us)
		return;
	note_round_trip(c, now_us - grant->asked_us);
	c->last_grant = later(c->last_grant, grant->number);
	if (grant->asked_us >= c->late_sent_first_us)
		c->late_seen_us_total = c->late_sent_us_total;
	use_grant(c, grant, now_us);
}

/* ---- from outside ---------------------------------------------------------------------------------------------------- */

/* Who has not run for a while may have been replaced by another master, and what lies in its hands is old. */
static void look_at_clock(struct cluster *c, uint64_t now_us)
{
	uint64_t slept_us = since(now_us, c->ran_us);
	c->ran_us = later(c->ran_us, now_us);
	if (slept_us <= PAUSE_US || c->role == GONE)
		return;
	tell(c, CLUSTER_WAS_PAUSED, c->options.id, slept_us);
	begin_life(c, now_us);
}

uint64_t cluster_tick(struct cluster *c, uint64_t now_us)
{
	if (c->role == GONE)
		return NEVER;
	look_at_clock(c, now_us);
	look_who_is_alive(c, now_us);
	look_for_twin(c, now_us);
	elect(c, now_us);
	uint64_t next_us = NEVER;
	if (c->role == MASTER) {
		look_after_ring(c, now_us);
		adapt(c, now_us);
	}
	if (c->role == CANDIDATE)
		next_us = c->takeover_us + TAKEOVER_US;
	if (c->role == LISTENING)
		next_us = c->born_us + LISTEN_US;
	next_us = sooner(next_us, beat(c, now_us));
	return later(sooner(next_us, ask(c, now_us)), now_us + 1);
}

void cluster_receive(struct cluster *c, const struct cluster_message *message, const struct cluster_place *from, uint64_t now_us)
{
	if (c->role == GONE || message->incarnation == c->options.incarnation)
		return;
	look_at_clock(c, now_us);
	struct node *node = meet_node(c, message, now_us);
	if (node == NULL)
		return;
	node->heard_us = now_us;
	node->place = *from;
	if (message->kind == CLUSTER_HEARTBEAT)
		receive_heartbeat(c, node, &message->is.heartbeat, now_us);
	look_who_is_alive(c, now_us);
	if (message->kind == CLUSTER_LEAVE) {
		node->has_left = true;
		look_who_is_alive(c, now_us);
	}
	if (!node->is_alive) {
		if (node->claims && c->role == LISTENING) /* it may be gone before we have met */
			c->unknown_us = now_us;
		return;
	}
	if (message->epoch > c->epoch) {
		/* There was a master that we knew nothing of. */
		if (c->role == MASTER && node->id != c->options.id) {
			c->unknown_us = now_us;
			become(c, CANDIDATE);
		}
		c->epoch = message->epoch;
	}
	if (message->kind == CLUSTER_DEMAND)
		receive_demand(c, node, &message->is.demand, now_us);
	else if (message->kind == CLUSTER_GRANT)
		receive_grant(c, node, message->epoch, &message->is.grant, now_us);
	else if (message->kind == CLUSTER_TAKEOVER)
		receive_takeover(c, node, &message->is.takeover, now_us);
	else if (message->kind == CLUSTER_HANDOVER)
		receive_handover(c, node, &message->is.handover, now_us);
}

void cluster_leave(struct cluster *c, uint64_t now_us)
{
	struct cluster_message message = { .kind = CLUSTER_LEAVE };
	look_at_clock(c, now_us);
	if (c->role != GONE)
		send_message(c, NULL, &message);
	c->role = GONE;
	c->master = NOBODY;
}

static bool is_possible(const struct cluster_options *options)
{
	return options->threshold <= CLUSTER_THRESHOLD_MAX && options->window_us <= CLUSTER_WINDOW_MAX_US;
}

int cluster_configure(struct cluster *c, const struct cluster_options *options, uint64_t now_us)
{
	struct cluster_options kept = c->options;
	if (!is_possible(options) || !make_ring(c, options->threshold))
		return -1;
	c->options = *options;
	c->options.id = kept.id;
	c->options.incarnation = kept.incarnation;
	if (c->options.window_us == 0)
		c->options.window_us = 1;
	if (c->options.window_us > kept.window_us) /* what is free by the old window may not be by the new one */
		fill_ring(c, now_us + quiet_us(c));
	hasten_ring(c, now_us);
	if (c->role == MASTER)
		look_after_ring(c, now_us);
	else
		resize_ring(c, c->options.threshold, now_us);
	return 0;
}

struct cluster *cluster_create(const struct cluster_options *options, const struct cluster_calls *calls, uint64_t now_us)
{
	struct cluster *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	c->options = *options;
	c->calls = *calls;
	if (c->options.window_us == 0)
		c->options.window_us = 1;
	c->begun_us = c->ran_us = now_us;
	c->late_us = LATE_MIN_US;
	c->places = 1;
	c->nodes[0] = (struct node){ .is_alive = true, .id = options->id, .incarnation = options->incarnation };
	if (!is_possible(options) || !make_ring(c, options->threshold)) {
		cluster_destroy(c);
		return NULL;
	}
	begin_life(c, now_us);
	while (c->ring.count < options->threshold) /* what others gave until now is unknown_us's affair */
		put_back(&c->ring, 0, NOBODY);
	return c;
}

void cluster_destroy(struct cluster *c)
{
	if (c == NULL)
		return;
	free(c->ring.slots);
	free(c);
}

/* ---- for a status page ----------------------------------------------------------------------------------------------- */

/* Of two lives with one id the living is told, of two dead ones the later. */
static bool is_shadowed(const struct cluster *c, unsigned index)
{
	const struct node *node = &c->nodes[index];
	for (unsigned i = 1; i < c->places; i++) {
		const struct node *other = &c->nodes[i];
		if (i != index && other->id == node->id && other->is_alive >= node->is_alive &&
		    (other->is_alive > node->is_alive || other->heard_us > node->heard_us))
			return true;
	}
	return node->proven_us == 0;
}

static void report_node(const struct cluster *c, unsigned index, uint64_t now_us, struct cluster_node_report *out)
{
	const struct node *node = &c->nodes[index];
	*out = (struct cluster_node_report){ .id = node->id,
		                             .state = !node->is_alive ? CLUSTER_DEAD : node->said.is_aside ? CLUSTER_ASIDE : CLUSTER_ALIVE,
		                             .age_us = since(now_us, node->heard_us),
		                             .started_total = node->said.started_total,
		                             .waiting = node->said.waiting,
		                             .uptime_us = node->said.uptime_us,
		                             .granted = c->role == MASTER ? node->owned : 0 };
}

static void report_self(const struct cluster *c, uint64_t now_us, struct cluster_node_report *out)
{
	struct cluster_line line = { .waiting = 0 };
	c->calls.line(c->calls.context, now_us, &line);
	report_node(c, 0, now_us, out);
	out->state = c->role == ASIDE ? CLUSTER_ASIDE : c->role == GONE ? CLUSTER_DEAD : CLUSTER_ALIVE;
	out->age_us = 0;
	out->started_total = line.started_total;
	out->waiting = line.waiting;
	out->uptime_us = since(now_us, c->begun_us);
}

static int by_id(const void *a, const void *b)
{
	const struct cluster_node_report *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

void cluster_report(const struct cluster *c, uint64_t now_us, struct cluster_report *out)
{
	bool is_quiet = c->role == MASTER && now_us < c->quiet_until_us;
	*out = (struct cluster_report){ .self = c->options.id,
		                        .master = believed_master(c),
		                        .epoch = c->epoch,
		                        .is_giving = c->role == MASTER && !is_quiet,
		                        .quiet_until_us = is_quiet ? c->quiet_until_us : 0,
		                        .late_us = (unsigned)c->late_us,
		                        .slots = c->role == MASTER ? (unsigned)c->ring.count : 0,
		                        .granted_total = c->granted_total,
		                        .takeovers_total = c->takeovers_total,
		                        .elections_total = c->elections_total };
	report_self(c, now_us, &out->nodes[0]);
	out->node_count = 1;
	for (unsigned i = 1; i < c->places && out->node_count < CLUSTER_NODES_MAX; i++)
		if (!is_shadowed(c, i))
			report_node(c, i, now_us, &out->nodes[out->node_count++]);
	qsort(&out->nodes[1], out->node_count - 1, sizeof out->nodes[1], by_id);
}
