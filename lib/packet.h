/* packet.h: the messages of the switch: JSON objects in a stream of bytes.
 *
 *      stream:   {"type":"0","srcid":1,…}{"type":"0",⏎   "srcid":2,…}⏎ {"type"…
 *                └──────── message ──────┘└──── message ────┘          └─ not whole yet
 *
 * Nothing on the wire says how long a message is: it ends where its outermost bracket closes. TCP keeps bytes in
 * order and nothing else, so a message may come in one piece, in a hundred, or together with the next one. A program
 * that takes one recv() for one message works on its author's desk. The reader below counts brackets, knows strings,
 * and keeps what belongs to one message, without the blanks between its parts.
 *
 * What a message says is read by jansson, which calls itself for each bracket and would run through the end of a
 * thread's small stack; a million tiny arrays in one message would also take a hundred times their size in memory. So
 * depth, number of values and size are bounded here, before jansson sees a byte.
 *
 *      type 0   a client's message       srcid  privPoliId  payload
 *      type 1   a server sets itself up  id  privPolyId  listenport
 *      type 2   a server's answer        srcid  destid  payloadsize  payload
 *      type 3   an error                 error
 *
 * Numbers may be written as numbers or as texts. Both spellings of the policy's key are read in every message: the
 * exercise has one for each side, and its programs mix them up.
 *
 * One thread at a time for each object.
 */
#ifndef WEIR_PACKET_H
#define WEIR_PACKET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_PAYLOAD_MAX (1024u * 1024u)
/* On the wire one byte of a payload may be spelt with six ("\u0001"). */
#define PACKET_BYTES_MAX (6u * PACKET_PAYLOAD_MAX + 64u * 1024u)
#define PACKET_DEPTH_MAX 32u
#define PACKET_VALUES_MAX 1024u
#define PACKET_ID_MAX 64u /* with its NUL */
#define PACKET_WHY_MAX 256u

/* ---- finding messages ------------------------------------------------------------------------------------------ */

enum packet_event {
	PACKET_MORE,  /* all bytes are used, and no message is whole yet */
	PACKET_WHOLE, /* reader->bytes holds one, until the next call */
	PACKET_FAULT, /* reader->fault says why what came is no message; go on: the rest of it is passed over */
};

struct packet_reader {
	/* The message, or what there is of it. Not ended by a NUL. */
	char *bytes;
	size_t length;
	const char *fault; /* a phrase that lives for ever */

	/* The reader's own. */
	size_t capacity, limit;
	size_t depth, values;
	uint32_t braces; /* the open brackets, the innermost in the lowest bit: 1 for { */
	int state;
	bool is_faulty; /* the rest of this message is passed over */
	bool is_done;   /* bytes holds a message that was delivered */
	bool has_gap;   /* blanks came after the last byte */
};

/* limit_bytes: the most that a message may have, blanks not counted. Memory is taken as messages come. */
void packet_reader_init(struct packet_reader *reader, size_t limit_bytes);
void packet_reader_free(struct packet_reader *reader);
/* Forgets what there is of a message. */
void packet_reader_restart(struct packet_reader *reader);

/* Reads on. *used says how many of the bytes were used: the rest belongs to the next call. Any division of a stream
   over calls gives the same events. */
enum packet_event packet_read(struct packet_reader *reader, const char *bytes, size_t length, size_t *used);

/* Is nothing of a message there? A stream that ends now ends well. */
bool packet_reader_is_between(const struct packet_reader *reader);

/* ---- what they say --------------------------------------------------------------------------------------------- */

enum packet_type { PACKET_MESSAGE = 0, PACKET_SETUP = 1, PACKET_ANSWER = 2, PACKET_ERROR = 3 };

struct packet {
	json_t *json; /* all of it */
	enum packet_type type;
	char source[PACKET_ID_MAX];      /* srcid; id in a set-up */
	char destination[PACKET_ID_MAX]; /* destid */
	char policy[PACKET_ID_MAX];
	unsigned port;                   /* listenport */
	const char *payload;             /* UTF-8, ended by a NUL and perhaps with others inside */
	size_t payload_bytes;
	const char *error;               /* of an error */
};

/* Reads one whole object. False: why says what is wrong with it, in printable ASCII; nothing is to be released. bytes
   must have come from a packet_reader: the depth is not checked again. */
bool packet_parse(const char *bytes, size_t length, struct packet *out, char why[PACKET_WHY_MAX]);
void packet_release(struct packet *packet);

/* ---- saying it ------------------------------------------------------------------------------------------------- */

/* Each returns a text that is to be freed with free(), *length long and ended by a NUL; NULL when out of memory. */
char *packet_write_setup(const char *id, const char *policy, unsigned port, size_t *length);
/* The answer to message: payload goes back to its srcid, which is written as it came. */
char *packet_write_answer(const struct packet *message, const char *id, const char *payload, size_t *length);
/* The message with another srcid, written as a number if it was one and id is one; all else stays. */
char *packet_write_from(const struct packet *message, const char *id, size_t *length);
/* An error. over_limit_s is 0, or after how many seconds to come back: then the object says "overLimit" as well. */
char *packet_write_error(const char *error, unsigned over_limit_s, size_t *length);

/* What people are shown of a text from elsewhere: its beginning, in quotes, printable, and how long it is when that
   is not all. */
#define PACKET_EXCERPT_MAX 128u
const char *packet_excerpt(const char *text, size_t length, char out[PACKET_EXCERPT_MAX]);

#endif
