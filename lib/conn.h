/* conn.h: one connection, plain or TLS: a blocking socket with deadlines, and the bytes that were read from it and not used yet.
 *
 *      buffer:   [ kept head | used | waiting bytes | room ]
 *                0      kept    start          end       capacity
 *
 * A blocking read may block for ever. Here every read and write is given the moment at which it gives up. The kernel
 * measures the silence before each read (SO_RCVTIMEO); a peer that sends a byte a second would pass every such test, so
 * the deadline is a moment, not a duration, and it is checked again after each read.
 *
 * The head of a message stays where it was read (kept) while its body streams through the room behind it: whoever parsed it may
 * go on using the pieces it points to, to the end of the exchange.
 *
 * Whether TLS lies between the buffer and the socket is known here and to whoever opens the connection, and to nobody else. So
 * nobody else looks at the descriptor but to wait for it, and not before a try_ function has said that nothing can be done: what
 * has come may have left the socket and not be in the buffer yet.
 *
 * One thread at a time. (cut.h is how another thread ends a connection.)
 */
#ifndef WEIR_CONN_H
#define WEIR_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "address.h"
#include "tls.h"

enum conn_result {
	CONN_OK = 0,
	CONN_END = -1,         /* the peer has finished sending */
	CONN_TIMEOUT = -2,     /* the deadline came first */
	CONN_BROKEN = -3,      /* reset, or otherwise gone */
	CONN_FULL = -4,        /* no room left in the buffer */
	CONN_WOULD_BLOCK = -5, /* the try_ functions only */
};

struct conn {
	int fd; /* -1: none */
	struct tls_stream *tls; /* NULL: plain. The connection's own: conn_close() frees it */
	char *buffer;
	size_t capacity, kept, start, end;
	uint64_t receive_timeout_us, send_timeout_us; /* as the kernel has them now; 0: none set */
	uint64_t moved_bytes; /* that the socket has taken: of a TLS record, too, that has not left entirely */
};

/* buffer belongs to the caller and outlives the connection. */
void conn_init(struct conn *conn, int fd, char *buffer, size_t capacity);

/* From here on it is a TLS connection. What waits in the buffer is taken for the beginning of the client's handshake, and the
   buffer is empty afterwards. Else than on TLS_GREETED it stays as it is: plain, and good for one last word. */
enum tls_greeting conn_accept_tls(struct conn *conn, struct tls *tls, uint64_t deadline_us, char why[TLS_WHY_MAX]);
/* The same as a client; see tls_connect(). CONN_OK, CONN_TIMEOUT or CONN_BROKEN. */
enum conn_result conn_connect_tls(struct conn *conn, struct tls *tls, const char *host, struct tls_sessions *sessions,
                                  uint64_t deadline_us, char why[TLS_WHY_MAX]);
/* Why TLS failed, for the log; "" when it did not. Lives until the connection is closed. */
const char *conn_why(const struct conn *conn);

/* The bytes that wait to be used. */
static inline const char *conn_bytes(const struct conn *conn)
{
	return conn->buffer + conn->start;
}
static inline size_t conn_available(const struct conn *conn)
{
	return conn->end - conn->start;
}
static inline void conn_use(struct conn *conn, size_t count)
{
	conn->start += count;
}

/* The connection goes on in to, with to's buffer, and from has none any more. What waits in from's buffer, with nothing kept, is copied
   and must fit. */
void conn_move(struct conn *to, struct conn *from);

/* Room for a body behind any head: a buffer is made this much larger than the greatest head. */
#define CONN_BODY_ROOM (16u * 1024u)

/* The first head_length waiting bytes are a head, and a body may follow. Messages before it may have left it at the end
   of the buffer, with no room behind it: then all that waits is moved to the front. Before conn_keep(), with nothing
   kept. */
void conn_make_room(struct conn *conn, size_t head_length);
/* The first length waiting bytes are a head: they stay in place until conn_forget(). */
void conn_keep(struct conn *conn, size_t length);
/* The exchange is over: what is kept may be overwritten. */
void conn_forget(struct conn *conn);

/* Reads more: blocks until at least one byte came. CONN_OK, CONN_END, CONN_TIMEOUT, CONN_BROKEN or CONN_FULL. */
enum conn_result conn_fill(struct conn *conn, uint64_t deadline_us);
/* The same, from now on for patience_us: without a look at the clock when something comes. */
enum conn_result conn_fill_within(struct conn *conn, uint64_t patience_us);
/* Takes what has arrived, without waiting. */
enum conn_result conn_try_fill(struct conn *conn);

/* Sends everything, in order. The parts are changed: what has left is taken off them, so that after CONN_TIMEOUT another
   call with the same list goes on (nothing else may be sent then). *sent (may be NULL) counts the bytes that left, also on
   failure; with TLS those whose records left entirely, for nobody can read a part of one. */
enum conn_result conn_send(struct conn *conn, struct iovec *parts, int count, uint64_t deadline_us, size_t *sent);
/* Sends what the kernel takes now and moves *parts and *count on past it. CONN_OK when all is sent. */
enum conn_result conn_try_send(struct conn *conn, struct iovec **parts, int *count, size_t *sent);

/* Is an idle connection still good: open, and silent? A peer that closed, or said something unasked, is not. Session tickets
   and the like are no data. tls: NULL for a plain one. */
bool conn_is_quiet(int fd, struct tls_stream *tls);

/* How many bytes have come that nobody has used: in the buffer, and in the system's. With TLS what is in the system's is
   taken into the buffer, as far as there is room. */
size_t conn_unread(struct conn *conn);

/* Has the peer closed its side, with nothing left to read? An answer would have no reader: as nginx does, the end of the
   client's sending is taken for its going away. */
bool conn_has_hung_up(const struct conn *conn);

/* Waits until fd can be read (for_read) or written. CONN_OK, CONN_TIMEOUT or CONN_BROKEN. */
enum conn_result conn_wait(int fd, bool for_read, uint64_t deadline_us);

/* A socket that can be connected to that address; -1 and errno. In two steps, so that another thread can be told of the socket
   before the connecting begins, which may take long. */
int conn_socket(const struct address *to);
/* Connects it. CONN_OK, CONN_TIMEOUT, or CONN_BROKEN with errno. The socket stays the caller's to close. */
enum conn_result conn_connect(int fd, const struct address *to, uint64_t deadline_us);
/* The same in two steps, for who wants to know when the question has left: it asks without waiting for the answer (a unix
   socket's may be waited for), and waits for it. After CONN_OK the other must be called. */
enum conn_result conn_ask_to_connect(int fd, const struct address *to, uint64_t deadline_us);
enum conn_result conn_await_connected(int fd, const struct address *to, uint64_t deadline_us);

/* Says "no more from me" on a connection that may still be read from. With TLS: in words first, for without them the peer could not
   tell the end from a cut. CONN_OK, CONN_TIMEOUT or CONN_BROKEN. */
enum conn_result conn_end_sending(struct conn *conn, uint64_t deadline_us);

/* Before a close: makes sure that the peer can read what was sent last. Says "no more from me", then reads and throws away what
   the peer goes on sending, until it ends, is silent for silence_us, or the deadline comes. A plain close() with unread bytes
   would send a reset, and a reset destroys an answer that the peer has not read yet (RFC 9112 §9.6). */
void conn_linger(struct conn *conn, uint64_t silence_us, uint64_t deadline_us);
/* What was said is not all of it: no goodbye of TLS will be said, so that the peer takes the end, which is all that may follow, for
   the cut that it is. On a plain connection nothing: there an end is an end. */
void conn_forgo_goodbye(struct conn *conn);
/* Closes with a reset: the peer must not take what it has for a whole message. */
void conn_close_hard(struct conn *conn);
/* With TLS a goodbye goes before it, if it can be said at once. */
void conn_close(struct conn *conn);
/* The same for a connection that is not in a struct conn now. */
void conn_close_idle(int fd, struct tls_stream *tls);

#endif
