/* test_cluster_wire.c: what a datagram may be, and what it may not. Every kind is written, read back and compared;
 * every cut, every flipped bit, every doubling is refused, and says why.
 */
#include "cluster_wire.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#define GROUP "192.168.1.255:7000"
#define SECRET "a secret that a group shares"
#define SENDER UINT64_C(0x1122334455667788)
#define RECEIVER UINT64_C(0x99aabbccddeeff00)
#define SECOND_US UINT64_C(1000000)
#define SEQUENCE_END 40 /* of the number of a datagram, in its head */

static struct cluster_wire *create_wire(const char *group, const char *secret, uint64_t incarnation)
{
	struct cluster_wire_options options = { .group = group, .secret = secret, .incarnation = incarnation };
	struct cluster_wire *w = cluster_wire_create(&options);
	CU_ASSERT_PTR_NOT_NULL_FATAL(w);
	return w;
}

static struct cluster_message heartbeat(void)
{
	struct cluster_message m = { .kind = CLUSTER_HEARTBEAT, .id = 7, .incarnation = SENDER, .epoch = 12 };
	struct cluster_heartbeat *h = &m.is.heartbeat;
	*h = (struct cluster_heartbeat){ .uptime_us = 123456789012, .master = 65535, .wants_answer = true, .threshold = 20000,
		                         .window_us = 3600 * SECOND_US, .group_size = 5, .started_total = UINT64_MAX,
		                         .waiting = UINT32_MAX, .challenge = 0x0102030405060708, .echo_count = CLUSTER_NODES_MAX };
	for (unsigned i = 0; i < CLUSTER_NODES_MAX; i++)
		h->echoes[i] = (struct cluster_echo){ .id = i + 1, .challenge = UINT64_MAX - i };
	return m;
}

/* The largest of each kind, with no two fields alike. */
static struct cluster_message message_of(enum cluster_kind kind)
{
	struct cluster_message m = { .kind = kind, .id = 7, .incarnation = SENDER, .epoch = 12 };
	switch (kind) {
	case CLUSTER_HEARTBEAT:
		return heartbeat();
	case CLUSTER_LEAVE:
		break;
	case CLUSTER_DEMAND:
		m.is.demand = (struct cluster_demand){ 1, 2, 3, 4, 5, 6, 7, 8 };
		break;
	case CLUSTER_GRANT:
		m.is.grant = (struct cluster_grant){ .asked_us = 1, .number = 2, .late_us = 8000, .run_count = CLUSTER_RUNS_MAX };
		for (unsigned i = 0; i < CLUSTER_RUNS_MAX; i++)
			m.is.grant.runs[i] = (struct cluster_run){ .in_us = i * 400, .count = i + 1 };
		break;
	case CLUSTER_TAKEOVER:
		m.is.takeover.nonce = 99;
		break;
	case CLUSTER_HANDOVER:
		m.is.handover = (struct cluster_handover){ .nonce = 77, .bucket_us = CLUSTER_BUCKET_US + 3,
			                                 .bucket_count = CLUSTER_BUCKETS_MAX };
		for (unsigned i = 0; i < CLUSTER_BUCKETS_MAX; i++)
			m.is.handover.buckets[i] = i;
		break;
	}
	return m;
}

static const enum cluster_kind kinds[] = { CLUSTER_HEARTBEAT, CLUSTER_LEAVE, CLUSTER_DEMAND, CLUSTER_GRANT, CLUSTER_TAKEOVER,
	                                   CLUSTER_HANDOVER };
#define KINDS (sizeof kinds / sizeof kinds[0])
static const char *const secrets[] = { NULL, SECRET };

static size_t write_kind(struct cluster_wire *w, enum cluster_kind kind, unsigned char out[CLUSTER_WIRE_MAX])
{
	struct cluster_message m = message_of(kind);
	size_t length = cluster_wire_write(w, &m, 0, out);
	CU_ASSERT_TRUE_FATAL(length > 0 && length <= CLUSTER_WIRE_MAX);
	return length;
}

static bool is_same_body(const struct cluster_message *a, const struct cluster_message *b)
{
	const struct cluster_heartbeat *h = &a->is.heartbeat, *k = &b->is.heartbeat;
	switch (a->kind) {
	case CLUSTER_HEARTBEAT:
		for (unsigned i = 0; i < h->echo_count; i++)
			if (h->echoes[i].id != k->echoes[i].id || h->echoes[i].challenge != k->echoes[i].challenge)
				return false;
		return h->uptime_us == k->uptime_us && h->master == k->master && h->is_aside == k->is_aside &&
		       h->wants_answer == k->wants_answer && h->threshold == k->threshold && h->window_us == k->window_us &&
		       h->group_size == k->group_size && h->started_total == k->started_total && h->waiting == k->waiting &&
		       h->challenge == k->challenge && h->echo_count == k->echo_count;
	case CLUSTER_LEAVE:
		return true;
	case CLUSTER_DEMAND:
		return memcmp(&a->is.demand, &b->is.demand, sizeof a->is.demand) == 0;
	case CLUSTER_GRANT:
		return memcmp(&a->is.grant, &b->is.grant, sizeof a->is.grant) == 0;
	case CLUSTER_TAKEOVER:
		return a->is.takeover.nonce == b->is.takeover.nonce;
	case CLUSTER_HANDOVER:
		return memcmp(&a->is.handover, &b->is.handover, sizeof a->is.handover) == 0;
	}
	return false;
}

static void every_kind_is_read_as_it_was_written(void)
{
	for (size_t s = 0; s < 2; s++) {
		struct cluster_wire *from = create_wire(GROUP, secrets[s], SENDER), *to = create_wire(GROUP, secrets[s], RECEIVER);
		for (size_t k = 0; k < KINDS; k++) {
			unsigned char bytes[CLUSTER_WIRE_MAX];
			struct cluster_message before = message_of(kinds[k]), after;
			memset(&after, 0, sizeof after);
			size_t length = write_kind(from, kinds[k], bytes);
			CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &after), CLUSTER_WIRE_GOOD);
			CU_ASSERT_TRUE(after.kind == before.kind && after.id == before.id &&
			               after.incarnation == before.incarnation && after.epoch == before.epoch);
			CU_ASSERT_TRUE(is_same_body(&before, &after));
		}
		cluster_wire_destroy(from);
		cluster_wire_destroy(to);
	}
}

static void any_cut_and_anything_behind_is_refused(void)
{
	for (size_t s = 0; s < 2; s++) {
		struct cluster_wire *from = create_wire(GROUP, secrets[s], SENDER), *to = create_wire(GROUP, secrets[s], RECEIVER);
		for (size_t k = 0; k < KINDS; k++) {
			unsigned char bytes[CLUSTER_WIRE_MAX] = { 0 };
			struct cluster_message m;
			size_t length = write_kind(from, kinds[k], bytes);
			for (size_t cut = 0; cut < length; cut++)
				CU_ASSERT_NOT_EQUAL(cluster_wire_read(to, bytes, cut, SECOND_US, &m), CLUSTER_WIRE_GOOD);
			enum cluster_wire_result longer = cluster_wire_read(to, bytes, length + 1, SECOND_US, &m);
			CU_ASSERT_EQUAL(longer, secrets[s] == NULL ? CLUSTER_WIRE_LENGTH : CLUSTER_WIRE_TAG);
			CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
		}
		cluster_wire_destroy(from);
		cluster_wire_destroy(to);
	}
}

static void with_a_secret_any_flipped_bit_is_refused(void)
{
	struct cluster_wire *from = create_wire(GROUP, SECRET, SENDER), *to = create_wire(GROUP, SECRET, RECEIVER);
	for (size_t k = 0; k < KINDS; k++) {
		unsigned char bytes[CLUSTER_WIRE_MAX];
		struct cluster_message m;
		size_t length = write_kind(from, kinds[k], bytes);
		for (size_t bit = 0; bit < length * 8; bit++) {
			bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
			CU_ASSERT_NOT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
			bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		}
		/* None of them has moved the window: what it was made from still comes in. */
		CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	}
	cluster_wire_destroy(from);
	cluster_wire_destroy(to);
}

static enum cluster_wire_result read_changed(const char *secret, size_t at, unsigned char value, enum cluster_kind kind)
{
	struct cluster_wire *from = create_wire(GROUP, secret, SENDER), *to = create_wire(GROUP, secret, RECEIVER);
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m;
	size_t length = write_kind(from, kind, bytes);
	bytes[at] = value;
	enum cluster_wire_result result = cluster_wire_read(to, bytes, length, SECOND_US, &m);
	cluster_wire_destroy(from);
	cluster_wire_destroy(to);
	return result;
}

static void each_refusal_says_why(void)
{
	CU_ASSERT_EQUAL(read_changed(NULL, 0, 'W', CLUSTER_LEAVE), CLUSTER_WIRE_MAGIC);
	CU_ASSERT_EQUAL(read_changed(NULL, 4, 9, CLUSTER_LEAVE), CLUSTER_WIRE_VERSION);
	CU_ASSERT_EQUAL(read_changed(NULL, 5, 0, CLUSTER_LEAVE), CLUSTER_WIRE_VALUE);
	CU_ASSERT_EQUAL(read_changed(NULL, 5, 7, CLUSTER_LEAVE), CLUSTER_WIRE_VALUE);
	CU_ASSERT_EQUAL(read_changed(NULL, 5, CLUSTER_DEMAND, CLUSTER_LEAVE), CLUSTER_WIRE_LENGTH);
	CU_ASSERT_EQUAL(read_changed(NULL, 15, 0, CLUSTER_LEAVE), CLUSTER_WIRE_VALUE);  /* id 0 */
	CU_ASSERT_EQUAL(read_changed(NULL, 31, 1, CLUSTER_LEAVE), CLUSTER_WIRE_OTHER);  /* to somebody else */
	CU_ASSERT_EQUAL(read_changed(NULL, 58, 4, CLUSTER_HEARTBEAT), CLUSTER_WIRE_VALUE);   /* a flag that there is not */
	CU_ASSERT_EQUAL(read_changed(NULL, 59, 1, CLUSTER_HEARTBEAT), CLUSTER_WIRE_VALUE);   /* a threshold over the largest */
	CU_ASSERT_EQUAL(read_changed(NULL, 93, 65, CLUSTER_HEARTBEAT), CLUSTER_WIRE_VALUE);  /* too many echoes */
	CU_ASSERT_EQUAL(read_changed(NULL, 93, 63, CLUSTER_HEARTBEAT), CLUSTER_WIRE_LENGTH); /* fewer than there are */
	CU_ASSERT_EQUAL(read_changed(NULL, 95, 0, CLUSTER_HEARTBEAT), CLUSTER_WIRE_VALUE);   /* an echo of nobody */
	CU_ASSERT_EQUAL(read_changed(NULL, 68, 129, CLUSTER_GRANT), CLUSTER_WIRE_VALUE);     /* too many runs */
	CU_ASSERT_EQUAL(read_changed(NULL, 73, 1, CLUSTER_GRANT), CLUSTER_WIRE_VALUE);       /* too many starts */
	CU_ASSERT_EQUAL(read_changed(NULL, 76, 0, CLUSTER_GRANT), CLUSTER_WIRE_VALUE);       /* a run of none */
	CU_ASSERT_EQUAL(read_changed(NULL, 60, 161, CLUSTER_HANDOVER), CLUSTER_WIRE_VALUE);  /* too many buckets */
	CU_ASSERT_EQUAL(read_changed(NULL, 61, 1, CLUSTER_HANDOVER), CLUSTER_WIRE_VALUE);    /* too many slots */
	CU_ASSERT_EQUAL(read_changed(SECRET, 0, 'W', CLUSTER_LEAVE), CLUSTER_WIRE_MAGIC);
	CU_ASSERT_EQUAL(read_changed(SECRET, 47, 1, CLUSTER_LEAVE), CLUSTER_WIRE_TAG);
	for (int i = 0; i < CLUSTER_WIRE_RESULTS; i++)
		CU_ASSERT_TRUE(strlen(cluster_wire_reason((enum cluster_wire_result)i)) > 3);
}

static enum cluster_wire_result between(const char *group, const char *secret, const char *other_group, const char *other_secret)
{
	struct cluster_wire *from = create_wire(group, secret, SENDER), *to = create_wire(other_group, other_secret, RECEIVER);
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m;
	size_t length = write_kind(from, CLUSTER_DEMAND, bytes);
	enum cluster_wire_result result = cluster_wire_read(to, bytes, length, SECOND_US, &m);
	cluster_wire_destroy(from);
	cluster_wire_destroy(to);
	return result;
}

static void groups_and_secrets_do_not_mix(void)
{
	CU_ASSERT_EQUAL(between(GROUP, NULL, GROUP, NULL), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(between(GROUP, NULL, "192.168.1.255:7001", NULL), CLUSTER_WIRE_GROUP);
	CU_ASSERT_EQUAL(between(GROUP, SECRET, GROUP, SECRET), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(between(GROUP, SECRET, GROUP, "another"), CLUSTER_WIRE_TAG);
	CU_ASSERT_EQUAL(between(GROUP, NULL, GROUP, SECRET), CLUSTER_WIRE_TAG);
	CU_ASSERT_EQUAL(between(GROUP, SECRET, GROUP, NULL), CLUSTER_WIRE_LENGTH);
}

static void our_own_come_back_and_are_told_from_a_twins(void)
{
	struct cluster_wire *own = create_wire(GROUP, SECRET, SENDER);
	struct cluster_wire *twin = create_wire(GROUP, SECRET, SENDER + 1);
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m;
	size_t length = write_kind(own, CLUSTER_HEARTBEAT, bytes);
	CU_ASSERT_EQUAL(cluster_wire_read(own, bytes, length, SECOND_US, &m), CLUSTER_WIRE_OWN);
	CU_ASSERT_EQUAL(cluster_wire_read(twin, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	cluster_wire_destroy(own);
	cluster_wire_destroy(twin);
}

static void a_grant_to_one_node_is_refused_by_another(void)
{
	struct cluster_wire *from = create_wire(GROUP, SECRET, SENDER), *to = create_wire(GROUP, SECRET, RECEIVER);
	struct cluster_wire *other = create_wire(GROUP, SECRET, RECEIVER + 1);
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m = message_of(CLUSTER_GRANT);
	size_t length = cluster_wire_write(from, &m, RECEIVER, bytes);
	CU_ASSERT_EQUAL(cluster_wire_read(other, bytes, length, SECOND_US, &m), CLUSTER_WIRE_OTHER);
	CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	cluster_wire_destroy(from);
	cluster_wire_destroy(to);
	cluster_wire_destroy(other);
}

/* Datagrams 1 to count of one sender, each DEMAND. */
static unsigned char (*record(size_t count, uint64_t incarnation, size_t *length))[CLUSTER_WIRE_MAX]
{
	unsigned char(*all)[CLUSTER_WIRE_MAX] = malloc(count * sizeof *all);
	CU_ASSERT_PTR_NOT_NULL_FATAL(all);
	struct cluster_wire *from = create_wire(GROUP, SECRET, incarnation);
	struct cluster_message m = message_of(CLUSTER_DEMAND);
	m.incarnation = incarnation;
	for (size_t i = 0; i < count; i++)
		*length = cluster_wire_write(from, &m, 0, all[i]);
	cluster_wire_destroy(from);
	return all;
}

static void each_datagram_comes_in_once_in_any_order_within_the_window(void)
{
	size_t length = 0;
	unsigned char(*all)[CLUSTER_WIRE_MAX] = record(200, SENDER, &length);
	struct cluster_wire *to = create_wire(GROUP, SECRET, RECEIVER);
	struct cluster_message m;
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[100], length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[100], length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[37], length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[37], length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[36], length, SECOND_US, &m), CLUSTER_WIRE_REPLAY); /* too old to say */
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[110], length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[100], length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[199], length, SECOND_US, &m), CLUSTER_WIRE_GOOD); /* a jump beyond the window */
	CU_ASSERT_EQUAL(cluster_wire_read(to, all[110], length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	for (size_t i = 198; i > 135; i--)
		CU_ASSERT_EQUAL(cluster_wire_read(to, all[i], length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	for (size_t i = 0; i < 200; i++)
		CU_ASSERT_EQUAL(cluster_wire_read(to, all[i], length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	cluster_wire_destroy(to);
	free(all);
}

/* Somebody has recorded the lives of nodes that died, and plays them all. */
static unsigned play_dead_lives(struct cluster_wire *to, unsigned count, unsigned ids)
{
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m, old = message_of(CLUSTER_LEAVE);
	unsigned let_in = 0;
	for (unsigned i = 0; i < count; i++) {
		struct cluster_wire *dead = create_wire(GROUP, SECRET, SENDER + 1 + i);
		old.incarnation = SENDER + 1 + i;
		old.id = i % ids + 1;
		size_t length = cluster_wire_write(dead, &old, 0, bytes);
		let_in += cluster_wire_read(to, bytes, length, SECOND_US + i, &m) == CLUSTER_WIRE_GOOD;
		cluster_wire_destroy(dead);
	}
	return let_in;
}

static void dead_lives_do_not_push_out_one_that_lives(void)
{
	struct cluster_wire *to = create_wire(GROUP, SECRET, RECEIVER), *live = create_wire(GROUP, SECRET, SENDER);
	unsigned char first[CLUSTER_WIRE_MAX], bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m, said = message_of(CLUSTER_DEMAND);
	size_t length = cluster_wire_write(live, &said, RECEIVER, first);
	CU_ASSERT_EQUAL(cluster_wire_read(to, first, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	play_dead_lives(to, 2000, 300);
	CU_ASSERT_EQUAL(cluster_wire_read(to, first, length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	length = write_kind(live, CLUSTER_DEMAND, bytes);
	CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	cluster_wire_destroy(live);
	cluster_wire_destroy(to);
}

/* Seed 362 of the simulation: a node that began while its earlier lives were played was kept out, and became a second master. */
static void dead_lives_do_not_keep_out_one_that_begins(void)
{
	for (unsigned ids = 1; ids <= 300; ids += 299) {
		struct cluster_wire *to = create_wire(GROUP, SECRET, RECEIVER);
		CU_ASSERT_EQUAL(play_dead_lives(to, 1000, ids), 1000);
		cluster_wire_destroy(to);
	}
}

/* Those that lived in our time are remembered until they have been silent for a while: so many of one id, and no more. */
static void many_lives_of_one_id_leave_room_for_others(void)
{
	struct cluster_wire *to = create_wire(GROUP, NULL, RECEIVER);
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m, life = message_of(CLUSTER_LEAVE);
	unsigned let_in = 0;
	for (unsigned i = 0; i < 1000; i++) {
		struct cluster_wire *from = create_wire(GROUP, NULL, SENDER + i);
		life.incarnation = SENDER + i;
		size_t length = cluster_wire_write(from, &life, RECEIVER, bytes);
		let_in += cluster_wire_read(to, bytes, length, SECOND_US, &m) == CLUSTER_WIRE_GOOD;
		/* Much later a life that fell silent makes room. */
		if (i == 999)
			CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, 60 * SECOND_US, &m), CLUSTER_WIRE_GOOD);
		cluster_wire_destroy(from);
	}
	CU_ASSERT_EQUAL(let_in, 8);
	struct cluster_wire *other = create_wire(GROUP, NULL, 1);
	life.id = 8;
	life.incarnation = 1;
	size_t length = cluster_wire_write(other, &life, 0, bytes);
	CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	cluster_wire_destroy(other);
	cluster_wire_destroy(to);
}

static void what_could_not_be_read_is_not_written(void)
{
	struct cluster_wire *from = create_wire(GROUP, SECRET, SENDER);
	unsigned char bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m = message_of(CLUSTER_LEAVE);
	m.id = 65536;
	CU_ASSERT_EQUAL(cluster_wire_write(from, &m, 0, bytes), 0);
	m.id = 0;
	CU_ASSERT_EQUAL(cluster_wire_write(from, &m, 0, bytes), 0);
	m = message_of(CLUSTER_HEARTBEAT);
	m.is.heartbeat.master = 65536;
	CU_ASSERT_EQUAL(cluster_wire_write(from, &m, 0, bytes), 0);
	m = message_of(CLUSTER_GRANT);
	m.is.grant.run_count = CLUSTER_RUNS_MAX + 1;
	CU_ASSERT_EQUAL(cluster_wire_write(from, &m, 0, bytes), 0);
	m.is.grant.run_count = 2;
	m.is.grant.runs[0].count = CLUSTER_THRESHOLD_MAX;
	CU_ASSERT_EQUAL(cluster_wire_write(from, &m, 0, bytes), 0);
	m = message_of(CLUSTER_LEAVE);
	m.kind = (enum cluster_kind)(CLUSTER_HANDOVER + 1); /* that of a version to come */
	CU_ASSERT_EQUAL(cluster_wire_write(from, &m, 0, bytes), 0);
	/* Nor has any of them taken a number: the first that can be read is the first. */
	CU_ASSERT_TRUE(write_kind(from, CLUSTER_LEAVE, bytes) > SEQUENCE_END);
	CU_ASSERT_EQUAL(bytes[SEQUENCE_END - 1], 1);
	cluster_wire_destroy(from);
}

static void another_secret_keeps_what_was_seen(void)
{
	struct cluster_wire *from = create_wire(GROUP, NULL, SENDER), *to = create_wire(GROUP, NULL, RECEIVER);
	unsigned char old[CLUSTER_WIRE_MAX], bytes[CLUSTER_WIRE_MAX];
	struct cluster_message m;
	size_t old_length = write_kind(from, CLUSTER_LEAVE, old);
	CU_ASSERT_EQUAL(cluster_wire_read(to, old, old_length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(cluster_wire_set_secret(from, SECRET), 0);
	size_t length = write_kind(from, CLUSTER_LEAVE, bytes);
	CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_LENGTH);
	CU_ASSERT_EQUAL(cluster_wire_set_secret(to, SECRET), 0);
	CU_ASSERT_EQUAL(cluster_wire_read(to, bytes, length, SECOND_US, &m), CLUSTER_WIRE_GOOD);
	CU_ASSERT_EQUAL(cluster_wire_set_secret(to, NULL), 0);
	CU_ASSERT_EQUAL(cluster_wire_read(to, old, old_length, SECOND_US, &m), CLUSTER_WIRE_REPLAY);
	cluster_wire_destroy(from);
	cluster_wire_destroy(to);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(every_kind_is_read_as_it_was_written),
		TEST(any_cut_and_anything_behind_is_refused),
		TEST(with_a_secret_any_flipped_bit_is_refused),
		TEST(each_refusal_says_why),
		TEST(groups_and_secrets_do_not_mix),
		TEST(our_own_come_back_and_are_told_from_a_twins),
		TEST(a_grant_to_one_node_is_refused_by_another),
		TEST(each_datagram_comes_in_once_in_any_order_within_the_window),
		TEST(dead_lives_do_not_push_out_one_that_lives),
		TEST(dead_lives_do_not_keep_out_one_that_begins),
		TEST(many_lives_of_one_id_leave_room_for_others),
		TEST(what_could_not_be_read_is_not_written),
		TEST(another_secret_keeps_what_was_seen),
	};
	return unit_main("cluster_wire", tests, sizeof tests / sizeof tests[0]);
}
