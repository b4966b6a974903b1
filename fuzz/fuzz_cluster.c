/* fuzz_cluster.c: datagrams of a group from random bytes.
 *
 *      input ──► read, without a secret ──► good? ──► written again ──► the same bytes, but for the sequence number
 *            └─► read, with a secret    ──► never good, unless the last 16 bytes are made to fit ──► as without
 *
 * Whatever comes, a count is bounded, an id is possible, and the second time the same datagram is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "cluster_wire.h"

#define GROUP "255.255.255.255:7000"
#define SECRET "secret"
#define GROUP_AT 6u
#define SEQUENCE_AT 32u
#define TAG_BYTES 16u
#define NOW_US UINT64_C(1000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static struct cluster_wire *create_wire(const char *secret, uint64_t incarnation)
{
	struct cluster_wire_options options = { .group = GROUP, .secret = secret, .incarnation = incarnation };
	struct cluster_wire *w = cluster_wire_create(&options);
	must(w != NULL, "there is memory");
	return w;
}

static void check_bounds(const struct cluster_message *m)
{
	uint64_t sum = 0;
	must(m->id >= 1 && m->id <= 65535 && m->incarnation != 0, "a sender is possible");
	switch (m->kind) {
	case CLUSTER_HEARTBEAT:
		must(m->is.heartbeat.echo_count <= CLUSTER_NODES_MAX, "echoes are bounded");
		must(m->is.heartbeat.threshold <= CLUSTER_THRESHOLD_MAX, "a threshold is bounded");
		break;
	case CLUSTER_GRANT:
		must(m->is.grant.run_count <= CLUSTER_RUNS_MAX, "runs are bounded");
		for (unsigned i = 0; i < m->is.grant.run_count; i++)
			sum += m->is.grant.runs[i].count;
		break;
	case CLUSTER_HANDOVER:
		must(m->is.handover.bucket_count <= CLUSTER_BUCKETS_MAX, "buckets are bounded");
		for (unsigned i = 0; i < m->is.handover.bucket_count; i++)
			sum += m->is.handover.buckets[i];
		break;
	case CLUSTER_LEAVE:
	case CLUSTER_DEMAND:
	case CLUSTER_TAKEOVER:
		break;
	}
	must(sum <= CLUSTER_THRESHOLD_MAX, "their sum is bounded");
}

/* What was read can be written, and is then the same, byte for byte. */
static void check_round_trip(const struct cluster_message *m, const unsigned char *bytes, size_t length)
{
	struct cluster_wire *w = create_wire(NULL, m->incarnation);
	unsigned char out[CLUSTER_WIRE_MAX];
	uint64_t to = 0;
	for (unsigned i = 24; i < 32; i++)
		to = to << 8 | bytes[i];
	size_t again = cluster_wire_write(w, m, to, out);
	must(again == length, "it is as long");
	must(memcmp(out, bytes, SEQUENCE_AT) == 0, "it has the same head");
	must(memcmp(out + SEQUENCE_AT + 8, bytes + SEQUENCE_AT + 8, length - SEQUENCE_AT - 8) == 0, "it has the same body");
	cluster_wire_destroy(w);
}

static bool read_plain(const unsigned char *bytes, size_t size, struct cluster_message *m)
{
	struct cluster_wire *w = create_wire(NULL, 1);
	enum cluster_wire_result result = cluster_wire_read(w, bytes, size, NOW_US, m);
	must(strlen(cluster_wire_reason(result)) > 3, "each result has a name");
	if (result == CLUSTER_WIRE_GOOD) {
		check_bounds(m);
		check_round_trip(m, bytes, size);
		struct cluster_message second;
		must(cluster_wire_read(w, bytes, size, NOW_US, &second) == CLUSTER_WIRE_REPLAY, "a second time it is refused");
	}
	cluster_wire_destroy(w);
	return result == CLUSTER_WIRE_GOOD;
}

static bool read_with_secret(const unsigned char *bytes, size_t size)
{
	struct cluster_wire *w = create_wire(SECRET, 1);
	struct cluster_message m;
	bool is_good = cluster_wire_read(w, bytes, size, NOW_US, &m) == CLUSTER_WIRE_GOOD;
	cluster_wire_destroy(w);
	return is_good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Nobody finds the group's tag of 64 bits by chance: half of the inputs get it. */
	unsigned char *bytes = malloc(size + TAG_BYTES), whole[EVP_MAX_MD_SIZE];
	struct cluster_message m;
	unsigned length = 0;
	must(bytes != NULL, "there is memory");
	memcpy(bytes, data, size);
	if (size > GROUP_AT + 8 && data[size - 1] % 2 == 0) {
		must(EVP_Digest(GROUP, strlen(GROUP), whole, &length, EVP_sha256(), NULL) == 1, "SHA-256 works");
		memcpy(bytes + GROUP_AT, whole, 8);
	}
	bool is_good = size <= CLUSTER_WIRE_MAX - TAG_BYTES && read_plain(bytes, size, &m);
	must(!read_with_secret(bytes, size), "without the secret nothing is let in");
	must(HMAC(EVP_sha256(), SECRET, (int)strlen(SECRET), bytes, size, whole, &length) != NULL, "HMAC works");
	memcpy(bytes + size, whole, TAG_BYTES);
	if (size <= CLUSTER_WIRE_MAX - TAG_BYTES)
		must(read_with_secret(bytes, size + TAG_BYTES) == is_good, "the tag changes nothing else");
	free(bytes);
	return 0;
}
