/* siphash.c: see siphash.h.
 *
 * Four words of state are stirred by a round of additions, rotations and exclusive ors (a network that a processor does
 * in a few cycles). Each word of the message is xored in before its rounds and out after them, so that an attacker who
 * chooses the message never sees or sets the state itself. The last word carries the message's length in its top byte:
 * without it "a" and "a\0" would be the same.
 *
 *      secret ──► v0 v1 v2 v3 ──► [word, 2 rounds]* ──► [last word and length, 2 rounds] ──► [4 rounds] ──► xor of all
 *
 * Words are read with the lowest byte first, by shifts, so that the numbers are the same on every processor.
 */
#include "siphash.h"

static uint64_t rotate(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

static uint64_t read_word(const uint8_t *bytes)
{
	uint64_t word = 0;

	for (unsigned i = 0; i < 8; i++)
		word |= (uint64_t)bytes[i] << (8 * i);
	return word;
}

static void stir(struct siphash *h, unsigned rounds)
{
	while (rounds-- > 0) {
		h->v0 += h->v1;
		h->v2 += h->v3;
		h->v1 = rotate(h->v1, 13) ^ h->v0;
		h->v3 = rotate(h->v3, 16) ^ h->v2;
		h->v0 = rotate(h->v0, 32);
		h->v2 += h->v1;
		h->v0 += h->v3;
		h->v1 = rotate(h->v1, 17) ^ h->v2;
		h->v3 = rotate(h->v3, 21) ^ h->v0;
		h->v2 = rotate(h->v2, 32);
	}
}

static void add_word(struct siphash *h, uint64_t word)
{
	h->v3 ^= word;
	stir(h, 2);
	h->v0 ^= word;
}

void siphash_begin(struct siphash *hash, const uint8_t secret[SIPHASH_SECRET_BYTES])
{
	uint64_t low = read_word(secret), high = read_word(secret + 8);

	/* The constants are "somepseudorandomlygeneratedbytes": no more is asked of them than to differ. */
	*hash = (struct siphash){ .v0 = low ^ UINT64_C(0x736f6d6570736575),
		                  .v1 = high ^ UINT64_C(0x646f72616e646f6d),
		                  .v2 = low ^ UINT64_C(0x6c7967656e657261),
		                  .v3 = high ^ UINT64_C(0x7465646279746573) };
}

void siphash_add(struct siphash *hash, const void *bytes, size_t length)
{
	const uint8_t *at = bytes, *end = at + length;

	while (at < end) {
		if (hash->bytes % 8 == 0 && end - at >= 8) {
			add_word(hash, read_word(at));
			hash->bytes += 8;
			at += 8;
			continue;
		}
		hash->word |= (uint64_t)*at++ << (8 * (hash->bytes % 8));
		if (++hash->bytes % 8 == 0) {
			add_word(hash, hash->word);
			hash->word = 0;
		}
	}
}

uint64_t siphash_end(struct siphash *hash)
{
	add_word(hash, hash->word | hash->bytes << 56);
	hash->v2 ^= 0xff;
	stir(hash, 4);
	return hash->v0 ^ hash->v1 ^ hash->v2 ^ hash->v3;
}
