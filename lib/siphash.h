/* siphash.h: a hash that nobody can steer without knowing its secret.
 *
 * A table whose hash is known can be attacked: send keys that all fall into one place, and everybody else's entries
 * there are pushed out, or each look-up walks a list of thousands. With a secret of 128 bits that is drawn at the
 * start, the places of keys can't be foretold, nor learnt from what the program says.
 *
 *      struct siphash hash;
 *      siphash_begin(&hash, secret);
 *      siphash_add(&hash, "client", 7);        pieces of any length: the result is that of their bytes in a row
 *      siphash_add(&hash, address, length);
 *      number = siphash_end(&hash);
 *
 * Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012): SipHash-2-4, two rounds for each word of
 * eight bytes and four at the end. No shared state: any thread, each with its own struct.
 */
#ifndef WEIR_SIPHASH_H
#define WEIR_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_SECRET_BYTES 16

struct siphash {
	uint64_t v0, v1, v2, v3;
	uint64_t word;  /* the bytes that do not make a word yet */
	uint64_t bytes; /* all that were added */
};

void siphash_begin(struct siphash *hash, const uint8_t secret[SIPHASH_SECRET_BYTES]);
void siphash_add(struct siphash *hash, const void *bytes, size_t length);
uint64_t siphash_end(struct siphash *hash);

#endif
