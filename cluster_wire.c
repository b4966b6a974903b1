/* cluster_wire.c: see cluster_wire.h.
 *
 * Each layout is written once. pass_heartbeat() and its sisters go over the fields in order, and the cursor that they
 * are handed either puts a field's bytes down or picks them up: so the writer and the reader can't disagree.
 *
 *      pass_number(cursor, &field, 4) ──┬─ writing: field ──► 4 bytes
 *                                       └─ reading: 4 bytes ──► field
 *
 * A reader that trusts a count in what it reads has lost. Here a count is checked before the list behind it is read; a
 * cursor that has come to its end gives noughts and remembers that it did; and at the last byte the cursor must stand
 * exactly at the end.
 *
 * The order of the checks: what costs nothing first, then the tag, and only what has a good tag may touch the memory of
 * sequence numbers. Otherwise a forger could move a window on, and make us deaf to the one it belongs to.
 *
 * That memory is bounded. A sender is an id and an incarnation. Somebody may play datagrams of nodes that died long ago, each a
 * new sender to us. Those must not push out one that lives, or its datagrams could be played again; nor may they keep out one that
 * has just begun, or it would believe itself alone. What tells them apart: only who lives in our time can say something to us alone,
 * by our incarnation. Who has done so is not forgotten as long as it was heard in the last SILENT_US. All others, which have only been
 * heard to say what is for everybody, make room for whoever comes.
 */
#include "cluster_wire.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define MAGIC 0x77656972u /* "weir" */
#define VERSION 1u
#define HEAD_BYTES 48u
#define TAG_BYTES 16u
#define GROUP_AT 6u
#define ID_AT 14u
#define INCARNATION_AT 16u
#define TO_AT 24u
#define SEQUENCE_AT 32u
#define EPOCH_AT 40u

#define ID_MAX 65535u
#define SENDERS_MAX (4u * CLUSTER_NODES_MAX)
#define LIVES_MAX 8u /* of one id, at once */
#define SILENT_US 2000000u
#define SEQUENCES 64u

struct sender {
	unsigned id; /* 0: nobody */
	uint64_t incarnation;
	uint64_t heard_us;
	bool knows_us;    /* it has said something to us alone */
	uint64_t highest; /* sequence number that was let in */
	uint64_t seen;    /* bit i: highest - i was let in */
};

struct cluster_wire {
	uint64_t group_tag;
	uint64_t incarnation;
	uint64_t sequence; /* of the last datagram written */
	unsigned char *secret;
	size_t secret_bytes;
	struct sender senders[SENDERS_MAX];
};

/* ---- numbers and the cursor -------------------------------------------------------------------------------------- */

static void put_number(unsigned char *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = bytes; i-- > 0; value >>= 8)
		at[i] = (unsigned char)(value & 0xff);
}

static uint64_t get_number(const unsigned char *at, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes; i++)
		value = value << 8 | at[i];
	return value;
}

struct cursor {
	unsigned char *put_at;       /* NULL: it reads */
	const unsigned char *get_at; /* NULL: it writes */
	size_t left_bytes;
	bool has_run_out;
	bool has_misfit; /* a number is larger than its field on the wire */
};

static void pass_number(struct cursor *c, uint64_t *value, unsigned bytes)
{
	if (c->left_bytes < bytes) {
		c->has_run_out = true;
		c->left_bytes = 0;
		if (c->get_at != NULL)
			*value = 0;
		return;
	}
	c->left_bytes -= bytes;
	if (c->put_at != NULL) {
		c->has_misfit = c->has_misfit || (bytes < 8 && *value >> (8 * bytes) != 0);
		put_number(c->put_at, *value, bytes);
		c->put_at += bytes;
	} else {
		*value = get_number(c->get_at, bytes);
		c->get_at += bytes;
	}
}

static void pass_small(struct cursor *c, unsigned *value, unsigned bytes)
{
	uint64_t number = *value;
	pass_number(c, &number, bytes);
	*value = (unsigned)number;
}

/* ---- the bodies -------------------------------------------------------------------------------------------------- */

#define FLAG_ASIDE 1u
#define FLAG_WANTS_ANSWER 2u

/* Each returns false for what can't be; that the bytes ran out comes first, and is the caller's to see. */
static bool pass_heartbeat(struct cursor *c, struct cluster_heartbeat *h)
{
	unsigned flags = (h->is_aside ? FLAG_ASIDE : 0) | (h->wants_answer ? FLAG_WANTS_ANSWER : 0);
	pass_number(c, &h->uptime_us, 8);
	pass_small(c, &h->master, 2);
	pass_small(c, &flags, 1);
	pass_small(c, &h->threshold, 4);
	pass_number(c, &h->window_us, 8);
	pass_small(c, &h->group_size, 2);
	pass_number(c, &h->started_total, 8);
	pass_small(c, &h->waiting, 4);
	pass_number(c, &h->challenge, 8);
	pass_small(c, &h->echo_count, 1);
	h->is_aside = (flags & FLAG_ASIDE) != 0;
	h->wants_answer = (flags & FLAG_WANTS_ANSWER) != 0;
	if (flags > (FLAG_ASIDE | FLAG_WANTS_ANSWER) || h->threshold > CLUSTER_THRESHOLD_MAX ||
	    h->window_us > CLUSTER_WINDOW_MAX_US || h->echo_count > CLUSTER_NODES_MAX)
		return false;
	for (unsigned i = 0; i < h->echo_count; i++) {
		pass_small(c, &h->echoes[i].id, 2);
		pass_number(c, &h->echoes[i].challenge, 8);
		if (h->echoes[i].id == 0)
			return false;
	}
	return true;
}

static bool pass_demand(struct cursor *c, struct cluster_demand *d)
{
	pass_number(c, &d->asked_us, 8);
	pass_number(c, &d->last_grant, 8);
	pass_small(c, &d->waiting, 4);
	pass_number(c, &d->used_total, 8);
	pass_number(c, &d->died_total, 8);
	pass_number(c, &d->late_us_total, 8);
	pass_number(c, &d->late_seen_us_total, 8);
	pass_small(c, &d->round_trip_us, 4);
	return true;
}

static bool pass_grant(struct cursor *c, struct cluster_grant *g)
{
	uint64_t sum = 0;
	pass_number(c, &g->asked_us, 8);
	pass_number(c, &g->number, 8);
	pass_small(c, &g->late_us, 4);
	pass_small(c, &g->run_count, 1);
	if (g->run_count > CLUSTER_RUNS_MAX)
		return false;
	for (unsigned i = 0; i < g->run_count; i++) {
		pass_small(c, &g->runs[i].in_us, 4);
		pass_small(c, &g->runs[i].count, 4);
		sum += g->runs[i].count;
		if (g->runs[i].count == 0)
			return false;
	}
	return sum <= CLUSTER_THRESHOLD_MAX;
}

static bool pass_handover(struct cursor *c, struct cluster_handover *h)
{
	uint64_t sum = 0;
	pass_number(c, &h->nonce, 8);
	pass_small(c, &h->bucket_us, 4);
	pass_small(c, &h->bucket_count, 1);
	if (h->bucket_us < CLUSTER_BUCKET_US || h->bucket_count > CLUSTER_BUCKETS_MAX)
		return false;
	for (unsigned i = 0; i < h->bucket_count; i++) {
		pass_small(c, &h->buckets[i], 4);
		sum += h->buckets[i];
	}
	return sum <= CLUSTER_THRESHOLD_MAX;
}

static bool pass_body(struct cursor *c, struct cluster_message *message)
{
	switch (message->kind) {
	case CLUSTER_HEARTBEAT:
		return pass_heartbeat(c, &message->is.heartbeat);
	case CLUSTER_LEAVE:
		return true;
	case CLUSTER_DEMAND:
		return pass_demand(c, &message->is.demand);
	case CLUSTER_GRANT:
		return pass_grant(c, &message->is.grant);
	case CLUSTER_TAKEOVER:
		pass_number(c, &message->is.takeover.nonce, 8);
		return true;
	case CLUSTER_HANDOVER:
		return pass_handover(c, &message->is.handover);
	}
	return false;
}

/* ---- the tag ----------------------------------------------------------------------------------------------------- */

static bool make_tag(const struct cluster_wire *w, const unsigned char *bytes, size_t length, unsigned char tag[TAG_BYTES])
{
	unsigned char whole[EVP_MAX_MD_SIZE];
	unsigned whole_bytes = 0;
	if (HMAC(EVP_sha256(), w->secret, (int)w->secret_bytes, bytes, length, whole, &whole_bytes) == NULL ||
	    whole_bytes < TAG_BYTES)
		return false;
	memcpy(tag, whole, TAG_BYTES);
	return true;
}

/* Compared in a time that does not tell how much of it was right. */
static bool has_good_tag(const struct cluster_wire *w, const unsigned char *bytes, size_t length)
{
	unsigned char tag[TAG_BYTES];
	return length >= HEAD_BYTES + TAG_BYTES && make_tag(w, bytes, length - TAG_BYTES, tag) &&
	       CRYPTO_memcmp(tag, bytes + length - TAG_BYTES, TAG_BYTES) == 0;
}

/* ---- what was seen before ---------------------------------------------------------------------------------------- */

/* Which of two makes room. */
static struct sender *goes_first(struct sender *a, struct sender *b)
{
	if (b == NULL || a->knows_us != b->knows_us)
		return b == NULL || !a->knows_us ? a : b;
	return a->heard_us < b->heard_us ? a : b;
}

/* Room for a sender that is new to us: an empty place, or that of one that never knew us, or that is long silent; for an id with
   many lives only among those. */
static struct sender *make_room(struct cluster_wire *w, unsigned id, uint64_t now_us)
{
	struct sender *victim = NULL, *victim_life = NULL, *empty = NULL;
	unsigned lives = 0;
	for (unsigned i = 0; i < SENDERS_MAX; i++) {
		struct sender *s = &w->senders[i];
		if (s->id == 0) {
			empty = empty == NULL ? s : empty;
			continue;
		}
		lives += s->id == id;
		victim = goes_first(s, victim);
		if (s->id == id)
			victim_life = goes_first(s, victim_life);
	}
	if (lives >= LIVES_MAX)
		victim = victim_life;
	else if (empty != NULL)
		return empty;
	return !victim->knows_us || now_us - victim->heard_us > SILENT_US ? victim : NULL;
}

static struct sender *find_sender(struct cluster_wire *w, unsigned id, uint64_t incarnation)
{
	for (unsigned i = 0; i < SENDERS_MAX; i++)
		if (w->senders[i].id == id && w->senders[i].incarnation == incarnation)
			return &w->senders[i];
	return NULL;
}

/* Lets each sequence number in once. */
static enum cluster_wire_result pass_sequence(struct cluster_wire *w, const struct cluster_message *message, bool is_for_us,
                                              uint64_t sequence, uint64_t now_us)
{
	struct sender *s = find_sender(w, message->id, message->incarnation);
	if (s == NULL) {
		s = make_room(w, message->id, now_us);
		if (s == NULL)
			return CLUSTER_WIRE_CROWD;
		*s = (struct sender){ .id = message->id, .incarnation = message->incarnation, .highest = sequence, .seen = 1 };
	} else if (sequence > s->highest) {
		uint64_t steps = sequence - s->highest;
		s->seen = steps < SEQUENCES ? s->seen << steps | 1 : 1;
		s->highest = sequence;
	} else {
		uint64_t behind = s->highest - sequence;
		if (behind >= SEQUENCES || (s->seen >> behind & 1) != 0)
			return CLUSTER_WIRE_REPLAY;
		s->seen |= UINT64_C(1) << behind;
	}
	s->heard_us = now_us;
	s->knows_us = s->knows_us || is_for_us;
	return CLUSTER_WIRE_GOOD;
}

/* ---- the verbs --------------------------------------------------------------------------------------------------- */

size_t cluster_wire_write(struct cluster_wire *w, const struct cluster_message *message, uint64_t to,
                          unsigned char out[CLUSTER_WIRE_MAX])
{
	struct cluster_message copy = *message; /* a cursor passes both ways and so takes no const */
	size_t tag_bytes = w->secret != NULL ? TAG_BYTES : 0;
	struct cursor c = { .put_at = out + HEAD_BYTES, .left_bytes = CLUSTER_WIRE_MAX - HEAD_BYTES - tag_bytes };
	if (message->id == 0 || message->id > ID_MAX || message->incarnation == 0 || !pass_body(&c, &copy) || c.has_run_out ||
	    c.has_misfit)
		return 0;
	size_t length = (size_t)(c.put_at - out);
	put_number(out, MAGIC, 4);
	put_number(out + 4, VERSION, 1);
	put_number(out + 5, message->kind, 1);
	put_number(out + GROUP_AT, w->group_tag, 8);
	put_number(out + ID_AT, message->id, 2);
	put_number(out + INCARNATION_AT, message->incarnation, 8);
	put_number(out + TO_AT, to, 8);
	put_number(out + SEQUENCE_AT, ++w->sequence, 8);
	put_number(out + EPOCH_AT, message->epoch, 8);
	if (tag_bytes > 0 && !make_tag(w, out, length, out + length))
		return 0;
	return length + tag_bytes;
}

static enum cluster_wire_result read_body(const unsigned char *bytes, size_t length, struct cluster_message *message)
{
	struct cursor c = { .get_at = bytes, .left_bytes = length };
	bool is_possible = pass_body(&c, message);
	if (c.has_run_out)
		return CLUSTER_WIRE_LENGTH;
	if (!is_possible)
		return CLUSTER_WIRE_VALUE;
	return c.left_bytes == 0 ? CLUSTER_WIRE_GOOD : CLUSTER_WIRE_LENGTH;
}

/* What can be said without reading the body. */
static enum cluster_wire_result check_head(const struct cluster_wire *w, const unsigned char *bytes, size_t length)
{
	if (length < 4 || get_number(bytes, 4) != MAGIC)
		return CLUSTER_WIRE_MAGIC;
	if (length < 5 || bytes[4] != VERSION)
		return CLUSTER_WIRE_VERSION;
	if (length < HEAD_BYTES || length > CLUSTER_WIRE_MAX)
		return CLUSTER_WIRE_LENGTH;
	if (get_number(bytes + GROUP_AT, 8) != w->group_tag)
		return CLUSTER_WIRE_GROUP;
	if (get_number(bytes + INCARNATION_AT, 8) == w->incarnation)
		return CLUSTER_WIRE_OWN;
	if (w->secret != NULL && !has_good_tag(w, bytes, length))
		return CLUSTER_WIRE_TAG;
	return CLUSTER_WIRE_GOOD;
}

enum cluster_wire_result cluster_wire_read(struct cluster_wire *w, const unsigned char *bytes, size_t length, uint64_t now_us,
                                           struct cluster_message *message)
{
	size_t tag_bytes = w->secret != NULL ? TAG_BYTES : 0;
	enum cluster_wire_result result = check_head(w, bytes, length);
	if (result != CLUSTER_WIRE_GOOD)
		return result;
	memset(message, 0, sizeof *message); /* a cursor looks at a field, also when it is to fill it */
	message->kind = bytes[5];
	message->id = (unsigned)get_number(bytes + ID_AT, 2);
	message->incarnation = get_number(bytes + INCARNATION_AT, 8);
	message->epoch = get_number(bytes + EPOCH_AT, 8);
	uint64_t to = get_number(bytes + TO_AT, 8);
	if (message->kind < CLUSTER_HEARTBEAT || message->kind > CLUSTER_HANDOVER || message->id == 0 ||
	    message->incarnation == 0)
		return CLUSTER_WIRE_VALUE;
	result = read_body(bytes + HEAD_BYTES, length - HEAD_BYTES - tag_bytes, message);
	if (result != CLUSTER_WIRE_GOOD)
		return result;
	if (to != 0 && to != w->incarnation)
		return CLUSTER_WIRE_OTHER;
	return pass_sequence(w, message, to != 0, get_number(bytes + SEQUENCE_AT, 8), now_us);
}

const char *cluster_wire_reason(enum cluster_wire_result result)
{
	static const char *const reasons[CLUSTER_WIRE_RESULTS] = {
		[CLUSTER_WIRE_GOOD] = "good",
		[CLUSTER_WIRE_OWN] = "our own",
		[CLUSTER_WIRE_MAGIC] = "not weir's",
		[CLUSTER_WIRE_VERSION] = "another version of the protocol",
		[CLUSTER_WIRE_GROUP] = "another group",
		[CLUSTER_WIRE_LENGTH] = "a wrong length",
		[CLUSTER_WIRE_VALUE] = "an impossible value",
		[CLUSTER_WIRE_TAG] = "a wrong tag: another cluster_secret, or a forgery",
		[CLUSTER_WIRE_OTHER] = "meant for another node",
		[CLUSTER_WIRE_REPLAY] = "seen before",
		[CLUSTER_WIRE_CROWD] = "too many senders",
	};
	return result < CLUSTER_WIRE_RESULTS ? reasons[result] : "unknown";
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void forget_secret(struct cluster_wire *w)
{
	if (w->secret != NULL)
		OPENSSL_cleanse(w->secret, w->secret_bytes);
	free(w->secret);
	w->secret = NULL;
	w->secret_bytes = 0;
}

int cluster_wire_set_secret(struct cluster_wire *w, const char *secret)
{
	unsigned char *copy = NULL;
	size_t length = secret == NULL ? 0 : strlen(secret);
	if (secret != NULL) {
		copy = malloc(length + 1);
		if (copy == NULL || length > INT32_MAX) {
			free(copy);
			return -1;
		}
		memcpy(copy, secret, length + 1);
	}
	forget_secret(w);
	w->secret = copy;
	w->secret_bytes = length;
	return 0;
}

struct cluster_wire *cluster_wire_create(const struct cluster_wire_options *options)
{
	struct cluster_wire *w = calloc(1, sizeof *w);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_bytes = 0;
	if (w == NULL)
		return NULL;
	w->incarnation = options->incarnation;
	if (EVP_Digest(options->group, strlen(options->group), digest, &digest_bytes, EVP_sha256(), NULL) != 1 ||
	    digest_bytes < 8 || cluster_wire_set_secret(w, options->secret) != 0) {
		cluster_wire_destroy(w);
		return NULL;
	}
	w->group_tag = get_number(digest, 8);
	return w;
}

void cluster_wire_destroy(struct cluster_wire *w)
{
	if (w == NULL)
		return;
	forget_secret(w);
	free(w);
}
