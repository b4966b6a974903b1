/* writer.h: bytes into a buffer of a fixed size: heads, fields, answers.
 *
 * Why not snprintf()? It reads its format anew at each call, and a head has dozens of pieces: the fields of one refusal
 * took 20,000 instructions by it, more than passing a whole request on (bench/RESULTS.md). Like this they take 2,000.
 *
 * Invariant: a piece is written whole or not at all; once one did not fit, nothing more is written and is_full tells
 * that what is there is worth nothing. So no caller has to look after each piece.
 *
 * One thread at a time.
 */
#ifndef WEIR_WRITER_H
#define WEIR_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct writer {
	char *out;
	size_t capacity;
	size_t length;
	bool is_full;
};

static inline void writer_put(struct writer *w, const char *bytes, size_t length)
{
	if (w->is_full || length > w->capacity - w->length) {
		w->is_full = true;
		return;
	}
	if (length > 0)
		memcpy(w->out + w->length, bytes, length);
	w->length += length;
}

static inline void writer_put_string(struct writer *w, const char *string)
{
	writer_put(w, string, strlen(string));
}

/* Its length is known when this is compiled. */
#define writer_put_literal(w, literal) writer_put((w), (literal), sizeof(literal) - 1)

static inline void writer_put_number(struct writer *w, uint64_t number)
{
	char digits[20];
	size_t at = sizeof digits;
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	writer_put(w, digits + at, sizeof digits - at);
}

/* No more than the first `most` bytes of the string: of words to a person, of which a part is better than nothing. */
static inline void writer_put_some(struct writer *w, const char *string, size_t most)
{
	writer_put(w, string, strnlen(string, most));
}

#endif
