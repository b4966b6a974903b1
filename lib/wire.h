/* wire.h: just enough HTTP/1.1 framing for the two demo programs.
 *
 * server_demo and client_demo are what weir is measured with. They do not use weir's own parser: a mistake in it would
 * then be made twice, once on each side of the proxy, and cancel out. So this is a second, smaller reading of the same
 * RFC 9112, which knows lines, the fields that decide where a message ends, and how to throw a body away.
 *
 *      socket ──► buffer ──► wire_line   "GET / HTTP/1.1"
 *                       ├──► wire_line   "Content-Length: 5" ──► wire_framing_field
 *                       ├──► wire_line   ""                       the end of the head
 *                       └──► wire_skip_body                       counted, checked, dropped
 *
 * The invariant: every wait has a deadline, a moment and not a length of time, so that a peer that sends a byte a
 * second cannot stretch it; and nothing is kept beyond one fixed buffer.
 *
 * Without it: recv() gives whatever has arrived, half a line or three messages at once, and a program that takes one
 * recv() for one message works on its author's desk and nowhere else.
 *
 * One wire belongs to one thread at a time.
 */
#ifndef WEIR_WIRE_H
#define WEIR_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_BUFFER_BYTES 65536
#define WIRE_HEAD_BYTES 65536

enum wire_result {
	WIRE_OK,
	WIRE_END,       /* the peer closed its side */
	WIRE_RESET,     /* the connection is gone: reset, or any other error of the socket */
	WIRE_LATE,      /* the deadline passed */
	WIRE_MALFORMED, /* these bytes are not HTTP/1.1 */
	WIRE_TOO_BIG,   /* over the bound that the caller gave */
};

struct wire {
	int fd;              /* owned by the caller */
	bool wants_arrival;  /* the socket has SO_TIMESTAMPNS on: keep arrived_us */
	uint64_t arrived_us; /* when the kernel got the bytes of the last read, microseconds since 1970; 0: not known */
	size_t start, end;   /* what has been read and not yet used */
	char buffer[WIRE_BUFFER_BYTES];
};

/* Where a message's body ends, gathered from its fields. */
struct wire_framing {
	bool has_length;
	uint64_t length;
	bool is_chunked;
	bool asks_close;      /* Connection: close */
	bool asks_keep_alive; /* Connection: keep-alive, which an HTTP/1.0 peer has to say */
};

/* Begins anew on a connected socket. */
void wire_begin(struct wire *w, int fd);

/* Waits until at least one byte is in the buffer. Deadlines are microseconds of clock_us(). */
enum wire_result wire_wait(struct wire *w, uint64_t deadline_us);

/* Reads one line that ends in CRLF and takes the CRLF off. *line is inside the buffer, ends in NUL and is good
   until the next call. *budget_bytes goes down by what was read: WIRE_TOO_BIG when the line does not fit into it. A
   bare CR, a bare LF or a NUL is WIRE_MALFORMED. */
enum wire_result wire_line(struct wire *w, size_t *budget_bytes, uint64_t deadline_us, char **line);

/* Cuts "Name: value" in place. False unless the name is a token and the colon follows it at once. */
bool wire_field(char *line, char **name, char **value);

/* Takes one field into account if it is about framing. WIRE_MALFORMED when it makes the message ambiguous. */
enum wire_result wire_framing_field(struct wire_framing *f, const char *name, const char *value);

/* True when the comma-separated list has the word, in any letter case. */
bool wire_list_has(const char *list, const char *word);

/* Reads a body whose end the framing tells and drops it; *body_bytes grows by its size (without the chunks' own lines).
   WIRE_TOO_BIG when it is over limit_bytes. */
enum wire_result wire_skip_body(struct wire *w, const struct wire_framing *f, uint64_t limit_bytes,
                                uint64_t deadline_us, uint64_t *body_bytes);

/* Drops everything until the peer closes: the body of a response without a length. Answers as wire_skip_body does. */
enum wire_result wire_skip_to_end(struct wire *w, uint64_t limit_bytes, uint64_t deadline_us, uint64_t *body_bytes);

/* Sends it all. */
enum wire_result wire_send(int fd, const char *bytes, size_t length, uint64_t deadline_us);

#endif
