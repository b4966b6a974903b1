/* splice.h: bytes that nobody here has to see, from one socket to another inside the kernel.
 *
 *      socket ══ splice_take ══► pipe ══ splice_give ══► socket
 *
 * recv() and send() copy each byte twice: out of the kernel, and into it again. splice() moves the kernel's own pages
 * from a socket into a pipe, and from the pipe into the other socket. It pays for bulk alone: a pipe costs two
 * descriptors, and some system calls to open and close (measured in bench/RESULTS.md and in tunnel.c).
 *
 * Where there is no pipe to be had (no descriptors left; the share of pipe memory that the system leaves a user who is
 * not root; too many in use here), or one side is TLS, whose bytes are to be made or read here, splice_begin() says no:
 * copy instead.
 *
 * Invariant: who takes gives all of it before reading the same socket in another way, so the bytes keep their order.
 *
 * Source: splice(2), pipe(7). One thread at a time; struct splice_share is for all.
 */
#ifndef WEIR_SPLICE_H
#define WEIR_SPLICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "conn.h"

#define SPLICE_PIPE_BYTES (1024 * 1024) /* what Linux allows anybody: /proc/sys/fs/pipe-max-size */
#define SPLICE_PIPES_MAX 64             /* of a share */
#define SPLICE_PIPE_FILES 2

/* How many pipes are in use of those that many threads share: a thousand readers that stop in the middle of something
   large must not hold a gigabyte of the kernel's memory, nor all descriptors. All zero: none. */
struct splice_share {
	atomic_uint in_use;
};

/* All zero: there is no pipe. */
struct splice {
	bool is_open;
	int in, out;
	size_t waiting_bytes;       /* in the pipe */
	struct splice_share *share; /* or NULL */
};

/* Opens a pipe for bytes between the two, and from then on no call on their sockets blocks: splice() asks the socket
   itself whether to wait. False: there is no pipe, and nothing has changed. share: NULL for none. */
bool splice_begin(struct splice *s, const struct conn *from, const struct conn *to, struct splice_share *share);
/* Closes the pipe, with what waits in it, if it is open. The sockets stay as they are: another pipe may need that. */
void splice_end(struct splice *s);
/* Calls on this socket may block again. */
void splice_let_block(int fd);

/* Takes what has come into the empty pipe, most bytes of it at the most: CONN_OK, CONN_END, CONN_BROKEN, or
   CONN_WOULD_BLOCK. After the last a plain read may still find something: at a byte sent as urgent (MSG_OOB) splice()
   finds nothing for ever, while poll() says that there is something, and the two would spin. Reading skips that byte.
   It also serves where a kind of socket can't be spliced. */
enum conn_result splice_take(struct splice *s, const struct conn *from, size_t most);
/* Gives what `to` takes now of what waits: CONN_OK, CONN_BROKEN or CONN_WOULD_BLOCK. *sent is set in every case. */
enum conn_result splice_give(struct splice *s, struct conn *to, size_t *sent);

#endif
