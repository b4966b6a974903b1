/* tls.h: TLS on one connection, and what is read from files to speak it.
 *
 *      key, certificate, authorities ──► struct tls ──► a handshake ──► struct tls_stream ──► tls_read, tls_write …
 *      (of the settings; never changes)                 (for each connection)
 *
 * A reload makes a new struct tls. Connections that were made with the old one go on with it, and it is freed when the
 * last of them has ended: so certificates change with no connection dropped.
 *
 * Every call that waits is given the moment at which it gives up, and keeps to it over all the reads and writes of the
 * socket that one record, or a whole handshake, may take: a peer that sends a byte now and then gains nothing.
 *
 * A struct tls: any thread. A stream: one thread at a time.
 */
#ifndef WEIR_TLS_H
#define WEIR_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct tls;
struct tls_stream;
struct tls_sessions;

/* What went wrong, as one line for the log. What a peer sent is in it, made of visible characters alone. */
#define TLS_WHY_MAX 320
/* So many pairs of key and certificate may be listed. */
#define TLS_PAIRS_MAX 64
/* A call that is to do what can be done now, and not to wait. */
#define TLS_NOW 0

/* ---- what is read from files ------------------------------------------------------------------------------------- */

struct tls_client_options {
	const char *keyfile, *crtfile; /* PEM; both or neither. In crtfile also what is between it and its authority */
	const char *cafile; /* PEM: who may have signed a server's certificate; NULL: whom the system trusts */
	const char *name;   /* that is asked for, and that its certificate must have; NULL: the host connected to */
	bool verify;                   /* false: anybody may be the server */
};
struct tls_server_options {
	const char *keyfiles, *crtfiles; /* PEM, comma-separated, in pairs, the default pair first */
	const char *cafile; /* who may have signed a client's certificate, which is then required; or NULL */
	bool speaks_http;                /* the protocol that is agreed on (ALPN) is http/1.1 */
};

/* What is wrong with the files. setting: which of the options it is about ("crtfile"); it lives for ever. */
struct tls_fault {
	const char *setting;
	char why[TLS_WHY_MAX];
};
/* Called for what is odd but not wrong: a certificate that has expired. */
typedef void tls_warn(void *context, const char *setting, const char *why);

/* Read all files and check that they fit together. NULL: *fault says what does not. The result is the caller's to
   release. */
struct tls *tls_create_client(const struct tls_client_options *options, tls_warn *warn, void *context,
                              struct tls_fault *fault);
struct tls *tls_create_server(const struct tls_server_options *options, tls_warn *warn, void *context,
                              struct tls_fault *fault);
struct tls *tls_hold(struct tls *tls); /* NULL is held as NULL */
void tls_release(struct tls *tls);     /* NULL is fine */

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* What one server gave us to come back with (RFC 8446 §2.2): a handshake that resumes a session needs no certificates,
   and less than half of the CPU time. A few are kept, the newest first, and only for the struct tls that they were made
   with: what a session may do without a look at a certificate depends on it. Any thread. NULL when out of memory. */
struct tls_sessions *tls_sessions_create(void);
/* No stream that was made with it may live. NULL is fine. */
void tls_sessions_destroy(struct tls_sessions *sessions);

/* ---- streams ----------------------------------------------------------------------------------------------------- */

/* Shakes hands as the client, on a connected socket. host: a name or an address, which the certificate must be for
   unless tls says otherwise. sessions (may be NULL) outlives the stream. NULL: why says what went wrong, *timed_out
   whether that is only that the deadline came, and errno is ENOMEM if it was memory of ours that was missing, else
   EPROTO. The descriptor stays the caller's. */
struct tls_stream *tls_connect(struct tls *tls, int fd, const char *host, struct tls_sessions *sessions,
                               uint64_t deadline_us, bool *timed_out, char why[TLS_WHY_MAX]);

enum tls_greeting {
	TLS_GREETED,
	TLS_SPOKE_PLAINLY, /* what came is no TLS, but text: it may be answered as such */
	TLS_SAID_NOTHING,  /* the client was gone, or silent, before its first byte */
	TLS_GREETING_FAILED,
};
/* Shakes hands as the server. early: what was already read from the socket. On TLS_GREETED *stream is there; else why
   says what went wrong. */
enum tls_greeting tls_accept(struct tls *tls, int fd, const char *early, size_t early_bytes, uint64_t deadline_us,
                             struct tls_stream **stream, char why[TLS_WHY_MAX]);

enum tls_result {
	TLS_OK,
	TLS_END,    /* the peer has said that it has finished sending */
	TLS_LATER,  /* the deadline came; or nothing can be done now */
	TLS_BROKEN, /* reset, malformed, or ended without a word: what came before may have been cut short. tls_why() */
};

/* Reads what there is, at least one byte; *count says how many. */
enum tls_result tls_read(struct tls_stream *stream, void *at, size_t size, uint64_t deadline_us, size_t *count);
/* Sends one record of what the parts hold, or nothing: *count says how many of their bytes that took. TLS_LATER:
   nothing is taken although some of the record may have left, so the next call must begin with the same bytes. */
enum tls_result tls_write(struct tls_stream *stream, const struct iovec *parts, int part_count, uint64_t deadline_us,
                          size_t *count);
/* What would tls_read() say now? TLS_OK: there are bytes. Never blocks. On an idle connection it is one system call. */
enum tls_result tls_look(struct tls_stream *stream);
/* Says that nothing more will be sent (close_notify): without it the peer could not tell the end from a cut. Once; the
   second time does nothing. */
enum tls_result tls_end(struct tls_stream *stream, uint64_t deadline_us);
/* Says goodbye and listens to what the peer says last. False: that our part of the handshake is refused, which in TLS
   1.3 a client hears only after the handshake has ended. For a connection that is not used further. */
bool tls_part(struct tls_stream *stream, uint64_t deadline_us);
/* Without a word to the peer. NULL is fine. */
void tls_free(struct tls_stream *stream);

/* Bytes that were given to the socket: they tell a peer that takes a record slowly from one that takes nothing. */
uint64_t tls_sent_bytes(const struct tls_stream *stream);
/* Was this stream made with that? */
bool tls_is_of(const struct tls_stream *stream, const struct tls *tls);
/* Why it is TLS_BROKEN; "" when it is not. Lives as long as the stream. */
const char *tls_why(const struct tls_stream *stream);
/* Has the peer refused our part of the handshake, after it had ended? Then it has read nothing of what we sent. */
bool tls_was_refused(const struct tls_stream *stream);
/* "TLSv1.3" and whether a session was resumed, for traces. */
const char *tls_version(const struct tls_stream *stream);
bool tls_was_resumed(const struct tls_stream *stream);

#endif
