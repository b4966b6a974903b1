/* text.h: a text that grows, and bytes of strangers made fit to stand in one.
 *
 * An answer of the API is as long as there are targets and hosts: no fixed buffer is right for it. Here the text asks for
 * memory as it needs it, and remembers a failure: whoever builds one looks once, at the end, instead of after each line.
 *
 * No shared state: any thread, each with its own text.
 */
#ifndef WEIR_TEXT_H
#define WEIR_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "ts.h"

/* All zero is an empty text. */
struct text {
	char *bytes; /* NULL, or length bytes and a NUL */
	size_t length, capacity;
	bool has_failed; /* there was no memory: what the text holds is not all */
};

void text_add(struct text *text, const char *format, ...) PRINTF_LIKE(2, 3);
void text_add_bytes(struct text *text, const char *bytes, size_t length);
/* Frees what it holds: an empty text again. */
void text_free(struct text *text);

/* Copies what is valid UTF-8 without control characters, and '?' for each byte that is not; cut at size - 1 bytes, never inside a
   character. Whoever reads JSON or metrics may refuse the whole of it for one bad byte, and that byte may be a client's. */
void text_clean(const char *bytes, size_t length, char *out, size_t size);

#endif
