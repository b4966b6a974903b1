/* text.c: see text.h. UTF-8: RFC 3629 §4. */
#include "text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES 4096u

/* Room for so many more, and a NUL. */
static bool make_room(struct text *text, size_t more)
{
	if (text->has_failed || more > SIZE_MAX / 4 - text->length) {
		text->has_failed = true;
		return false;
	}
	size_t needed = text->length + more + 1;
	if (needed <= text->capacity)
		return true;
	size_t capacity = text->capacity == 0 ? FIRST_BYTES : text->capacity;
	while (capacity < needed)
		capacity *= 2;
	char *bytes = realloc(text->bytes, capacity);
	if (bytes == NULL) {
		text->has_failed = true;
		return false;
	}
	text->bytes = bytes;
	text->capacity = capacity;
	return true;
}

void text_add_bytes(struct text *text, const char *bytes, size_t length)
{
	if (!make_room(text, length))
		return;
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
	text->bytes[text->length] = '\0';
}

void text_add(struct text *text, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	if (length < 0 || !make_room(text, (size_t)length)) {
		text->has_failed = true;
		return;
	}
	va_start(arguments, format);
	vsnprintf(text->bytes + text->length, (size_t)length + 1, format, arguments);
	va_end(arguments);
	text->length += (size_t)length;
}

void text_free(struct text *text)
{
	free(text->bytes);
	*text = (struct text){ .bytes = NULL };
}

/* The length of the character that begins here, 0 when none does. */
static size_t character_length(const unsigned char *at, size_t left)
{
	uint32_t value;
	size_t length;
	if (at[0] < 0x80)
		return at[0] >= ' ' && at[0] != 0x7f ? 1 : 0;
	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		length = 2, value = at[0] & 0x1fu;
	else if (at[0] >= 0xe0 && at[0] <= 0xef)
		length = 3, value = at[0] & 0x0fu;
	else if (at[0] >= 0xf0 && at[0] <= 0xf4)
		length = 4, value = at[0] & 0x07u;
	else
		return 0;
	if (length > left)
		return 0;
	for (size_t i = 1; i < length; i++) {
		if ((at[i] & 0xc0u) != 0x80u)
			return 0;
		value = value << 6 | (at[i] & 0x3fu);
	}
	bool is_short = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
	bool is_no_character = (value >= 0xd800 && value <= 0xdfff) || value > 0x10ffff || (value >= 0x80 && value < 0xa0);
	return is_short || is_no_character ? 0 : length;
}

void text_clean(const char *bytes, size_t length, char *out, size_t size)
{
	const unsigned char *at = (const unsigned char *)bytes;
	size_t used = 0;
	while (length > 0) {
		size_t step = character_length(at, length);
		size_t written = step > 0 ? step : 1;
		if (used + written >= size)
			break;
		if (step > 0)
			memcpy(out + used, at, step);
		else
			out[used] = '?';
		used += written;
		at += written;
		length -= written;
	}
	out[used] = '\0';
}
