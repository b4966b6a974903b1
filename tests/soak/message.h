/* message.h: HTTP messages whose bodies follow from a number, made and checked piece by piece (part of the soak's traffic).
 *
 * Byte i of the body of number n is pattern(n, i). So nobody has to keep a body to know whether it came as it was sent, and a piece
 * of another message, or of this one at another place, is found at its first byte or its second.
 */
#ifndef WEIR_SOAK_MESSAGE_H
#define WEIR_SOAK_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUT_BYTES 16384u
#define HEAD_BYTES 4096u

enum framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED };

/* A message on its way out: what is made of it and has not left yet, and how much of the body is made. */
struct outgoing {
	char bytes[OUT_BYTES];
	size_t length, sent;
	uint64_t number, body_bytes, made_bytes;
	bool is_chunked, is_made;
};

enum sending { SENDING_DONE, SENDING_LATER, SENDING_BROKEN };

/* head: whole, with its empty line; or "" for a body alone. Head and body leave together, as far as they fit into one buffer. */
void outgoing_begin(struct outgoing *out, const char *head, uint64_t number, uint64_t body_bytes, bool is_chunked);
/* Sends what fd takes now. */
enum sending outgoing_send(struct outgoing *out, int fd);

enum chunk_part { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER };

struct incoming {
	char head[HEAD_BYTES + 1]; /* a string, once it is whole */
	size_t head_bytes;
	bool head_is_whole;
	enum framing framing;
	uint64_t left_bytes; /* of the body, or of the chunk */
	enum chunk_part part;
	size_t line_bytes; /* of the line of a chunk */
	uint64_t number, body_bytes;
	const char *wrong;
};

enum receiving {
	RECEIVING_MORE,  /* all was taken, and is not the whole message */
	RECEIVING_HEAD,  /* the head is whole: say which number the body has, and go on with what was not taken */
	RECEIVING_WHOLE, /* the message is; what was not taken belongs to another */
	RECEIVING_WRONG, /* see wrong */
};

void incoming_begin(struct incoming *in);
/* Takes bytes; *used tells how many. */
enum receiving incoming_take(struct incoming *in, const char *bytes, size_t length, size_t *used);
/* Checks bytes of a body without a head: the next ones. */
bool incoming_check(struct incoming *in, const char *bytes, size_t length);
/* The value of a field of the head, at its first character; NULL: there is none. name: ": " included, in lower case. */
const char *incoming_field(const struct incoming *in, const char *name);

#endif
