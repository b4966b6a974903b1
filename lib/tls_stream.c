/* tls_stream.c: see tls.h. One connection: the handshake, records in and out, the goodbye.
 *
 *      conn.c ──► SSL_read, SSL_write ──► our own BIO: recv, send ──► the socket
 *                 (records, keys)         (deadlines, MSG_NOSIGNAL)
 *
 * OpenSSL does not touch the socket: it asks a BIO, and this one is ours, for three reasons. Its own one calls write(),
 * and a peer that has gone would raise SIGPIPE in whatever program this library is part of. It knows no deadlines: one
 * SSL_read() may take many reads of the socket, and only here is each of them told how much time is left. And it takes
 * the end of the stream for an error of the protocol, and tells the peer so; here it is an end without a goodbye, which
 * we tell from one with.
 *
 * A record is whole or nothing: a part of one can't be read by anybody. So what counts as sent are bytes whose records
 * have left entirely, and a record that got stuck must be continued with the same bytes (unfinished_bytes).
 *
 * An end without close_notify may be somebody's cut (RFC 8446 §6.1). Whoever has been told a length, or has seen a last
 * chunk, knows better; a body that only the end ends has then been cut short.
 *
 * Kernel TLS, where the kernel encrypts and splice() works again, is not used. It needs OpenSSL's own socket BIO, with
 * none of the above, and a kernel built with CONFIG_TLS; the one this was written on has none (to set TCP_ULP to "tls"
 * fails with ENOENT), so its gain could not be measured. What there is to gain (bench/tls.py): 64 KiB to a client cost
 * 101 us of CPU time, 50 without TLS; the cipher alone takes 15 of the 51 between (openssl speed), and the kernel would
 * have to compute it too.
 *
 * Sources: RFC 8446 (TLS 1.3), RFC 5246 (1.2), RFC 6066 §3 (SNI), RFC 7301 (ALPN), RFC 9325 (recommendations);
 * SSL_read(3).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "clock.h"
#include "socket.h"
#include "tls_internal.h"
#include "ts.h"

/* The most that one record holds (RFC 8446 §5.1). */
#define RECORD_BYTES (16u * 1024u)
/* A server hands out two tickets for a handshake, and one when it is resumed: enough for a burst after a quiet time. */
#define SESSIONS_MAX 16

struct tls_stream {
	SSL *ssl;
	struct tls *tls; /* held: the BIO's functions are there */
	struct tls_sessions *sessions;
	int fd;
	bool is_server;

	/* the call under way */
	uint64_t deadline_us; /* TLS_NOW: it does not wait */

	/* the socket */
	uint64_t receive_timeout_us, send_timeout_us; /* as the kernel has them now */
	uint64_t sent_bytes;
	const char *early; /* read from it already, and not used yet */
	size_t early_bytes;
	bool has_heard; /* a byte has come */
	bool is_plain;  /* and it was the beginning of a text */
	bool has_ended; /* it has no more */
	int error;      /* errno, when it failed */

	/* the stream */
	size_t unfinished_bytes; /* of the record that got stuck */
	bool is_greeted;         /* the handshake has succeeded; of a connection that has failed OpenSSL no longer knows it */
	bool has_read;           /* data has come */
	bool has_said_end;
	bool is_broken;       /* nothing more can be read */
	bool is_write_broken; /* nothing more can be said: something may have been said to us before */
	bool was_refused;
	bool lacked_memory; /* we, that is: no fault of the peer's */
	char why[TLS_WHY_MAX];
};

/* ---- the socket, as OpenSSL sees it ------------------------------------------------------------------------------ */

/* May the next call block? Tells the kernel for how long. False: the deadline has come. */
static bool may_go_on(struct tls_stream *stream, int option, uint64_t *timeout_us)
{
	uint64_t left_us = clock_left_us(stream->deadline_us);
	if (left_us == 0)
		return false;
	socket_may_block(stream->fd, option, timeout_us, left_us);
	return true;
}

/* TLS begins with the record of a handshake. A text that is sent by mistake is not given to OpenSSL at all: it could
   but answer with an alert, which would stand before ours. */
static bool begins_as_text(char first)
{
	return (first >= ' ' && first <= '~') || first == '\r' || first == '\n';
}

static int hear(struct tls_stream *stream, const char *bytes, int count)
{
	stream->is_plain = !stream->has_heard && stream->is_server && begins_as_text(bytes[0]);
	stream->has_heard = true;
	return stream->is_plain ? -1 : count;
}

static int take_early(struct tls_stream *stream, char *out, int size)
{
	size_t count = stream->early_bytes < (size_t)size ? stream->early_bytes : (size_t)size;
	memcpy(out, stream->early, count);
	stream->early += count;
	stream->early_bytes -= count;
	return hear(stream, out, (int)count);
}

static int read_socket(BIO *bio, char *out, int size)
{
	struct tls_stream *stream = BIO_get_data(bio);
	bool waits = stream->deadline_us != TLS_NOW;
	BIO_clear_retry_flags(bio);
	if (size <= 0)
		return 0;
	if (stream->early_bytes > 0)
		return take_early(stream, out, size);
	for (;;) {
		ssize_t count = -1;
		errno = EAGAIN;
		if (!waits || may_go_on(stream, SO_RCVTIMEO, &stream->receive_timeout_us))
			count = recv(stream->fd, out, (size_t)size, waits ? 0 : MSG_DONTWAIT);
		else
			waits = false;
		if (count > 0)
			return hear(stream, out, (int)count);
		if (count == 0) {
			stream->has_ended = true;
			return 0;
		}
		bool is_early = errno == EAGAIN || errno == EWOULDBLOCK;
		if (is_early && !waits) {
			BIO_set_retry_read(bio);
			return -1;
		}
		if (!is_early && errno != EINTR) {
			stream->error = errno;
			return -1;
		}
	}
}

static int write_socket(BIO *bio, const char *bytes, int size)
{
	struct tls_stream *stream = BIO_get_data(bio);
	bool waits = stream->deadline_us != TLS_NOW;
	BIO_clear_retry_flags(bio);
	for (;;) {
		ssize_t count = -1;
		errno = EAGAIN;
		if (!waits || may_go_on(stream, SO_SNDTIMEO, &stream->send_timeout_us))
			count = send(stream->fd, bytes, (size_t)size, MSG_NOSIGNAL | (waits ? 0 : MSG_DONTWAIT));
		else
			waits = false;
		if (count >= 0) {
			stream->sent_bytes += (uint64_t)count;
			return (int)count;
		}
		bool is_early = errno == EAGAIN || errno == EWOULDBLOCK;
		if (is_early && !waits) {
			BIO_set_retry_write(bio);
			return -1;
		}
		if (!is_early && errno != EINTR) {
			stream->error = errno;
			return -1;
		}
	}
}

/* Nothing is held back, so there is nothing to flush. That the end of the socket is not confirmed (BIO_CTRL_EOF) leaves
   it to us what it means. */
static long control_socket(BIO *bio, int command, long number, void *argument)
{
	(void)bio;
	(void)number;
	(void)argument;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int create_socket(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

BIO_METHOD *tls_socket_method(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "weir's socket");
	if (method == NULL)
		return NULL;
	BIO_meth_set_create(method, create_socket);
	BIO_meth_set_read(method, read_socket);
	BIO_meth_set_write(method, write_socket);
	BIO_meth_set_ctrl(method, control_socket);
	return method;
}

/* ---- why --------------------------------------------------------------------------------------------------------- */

static void add(char why[TLS_WHY_MAX], const char *format, ...) PRINTF_LIKE(2, 3);
static void add(char why[TLS_WHY_MAX], const char *format, ...)
{
	size_t used = strlen(why);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(why + used, TLS_WHY_MAX - used, format, arguments);
	va_end(arguments);
}

bool tls_add_reason(char why[TLS_WHY_MAX])
{
	unsigned long error = ERR_get_error();
	const char *reason = ERR_reason_error_string(error);
	if (reason == NULL && ERR_SYSTEM_ERROR(error))
		reason = strerror(ERR_GET_REASON(error));
	add(why, "%s", reason != NULL ? reason : error != 0 ? "an error without a name" : "out of memory");
	/* It may stand anywhere in the list: each floor of OpenSSL that had to give up says why. */
	bool lacked_memory = false;
	for (; error != 0; error = ERR_get_error())
		lacked_memory = lacked_memory || ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE;
	return lacked_memory;
}

/* A peer's text, at most so much of it: visible ASCII alone. */
static void add_foreign(char why[TLS_WHY_MAX], const unsigned char *text, int length)
{
	for (int i = 0; i < length && i < 64; i++)
		add(why, "%c", text[i] > ' ' && text[i] <= '~' ? text[i] : '?');
}

static void add_name(char why[TLS_WHY_MAX], const GENERAL_NAME *name)
{
	char text[INET6_ADDRSTRLEN] = "?";
	if (name->type == GEN_DNS) {
		add_foreign(why, ASN1_STRING_get0_data(name->d.dNSName), ASN1_STRING_length(name->d.dNSName));
	} else if (name->type == GEN_IPADD) {
		int length = ASN1_STRING_length(name->d.iPAddress);
		const unsigned char *address = ASN1_STRING_get0_data(name->d.iPAddress);
		if (length == 4 || length == 16)
			inet_ntop(length == 4 ? AF_INET : AF_INET6, address, text, sizeof text);
		add(why, "%s", text);
	}
}

/* The first names that a certificate is for. */
static void add_names(char why[TLS_WHY_MAX], X509 *certificate)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	int count = sk_GENERAL_NAME_num(names), said = 0; /* -1 of NULL */
	for (int i = 0; i < count && said < 4; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type != GEN_DNS && name->type != GEN_IPADD)
			continue;
		add(why, said++ > 0 ? ", " : " ");
		add_name(why, name);
	}
	if (said == 0)
		add(why, " no name");
	GENERAL_NAMES_free(names);
}

static void add_date(char why[TLS_WHY_MAX], const ASN1_TIME *date)
{
	struct tm at;
	if (ASN1_TIME_to_tm(date, &at) == 1)
		add(why, " on %04d-%02d-%02d", at.tm_year + 1900, at.tm_mon + 1, at.tm_mday);
}

/* Called by OpenSSL for each certificate of a chain; the first that is refused is what is told. */
int tls_verified(int good, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_stream *stream = SSL_get_app_data(ssl);
	X509 *certificate = X509_STORE_CTX_get_current_cert(store);
	int error = X509_STORE_CTX_get_error(store);
	if (good || stream->why[0] != '\0')
		return good;
	add(stream->why, "%s certificate is refused: %s", stream->is_server ? "the client's" : "its",
	    X509_verify_cert_error_string(error));
	if (certificate == NULL)
		return good;
	if (error == X509_V_ERR_CERT_HAS_EXPIRED)
		add_date(stream->why, X509_get0_notAfter(certificate));
	if (error == X509_V_ERR_CERT_NOT_YET_VALID)
		add_date(stream->why, X509_get0_notBefore(certificate));
	if (stream->is_server)
		return good;
	const char *wanted = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	char *address = X509_VERIFY_PARAM_get1_ip_asc(SSL_get0_param(ssl));
	add(stream->why, "; wanted was %.100s", wanted != NULL ? wanted : address != NULL ? address : "any name");
	OPENSSL_free(address);
	if (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
		add(stream->why, ", it is for");
		add_names(stream->why, certificate);
	}
	return good;
}

/* The alerts by which a peer refuses our part of the handshake (RFC 8446 §6.2). */
static bool refuses_handshake(int alert)
{
	switch (alert) {
	case SSL_AD_HANDSHAKE_FAILURE:
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case SSL_AD_DECRYPT_ERROR:
	case SSL_AD_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

/* OpenSSL says "tlsv13 alert certificate required"; the words after "alert" are what matters. */
static void note_protocol_error(struct tls_stream *stream)
{
	unsigned long error = ERR_peek_error();
	int alert = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET : -1;
	if (alert < 0 || alert > 255) {
		if (stream->why[0] == '\0') {
			add(stream->why, "TLS failed: ");
			stream->lacked_memory = tls_add_reason(stream->why);
		}
		return;
	}
	const char *reason = ERR_reason_error_string(error);
	const char *word = reason == NULL ? NULL : strstr(reason, "alert ");
	stream->was_refused = !stream->is_server && !stream->has_read && refuses_handshake(alert);
	stream->why[0] = '\0'; /* a reset says less */
	add(stream->why, "%s %s the TLS handshake: alert %d, %s", stream->is_server ? "the client" : "it",
	    stream->was_refused || !stream->is_greeted ? "refused" : "broke off after", alert,
	    word != NULL ? word + 6 : "unknown");
}

/* What a call of OpenSSL's came to. Who refuses our handshake closes the connection at once, and what we send then is
   answered by a reset: so when nothing can be sent, the reason may be still to be read. */
static enum tls_result outcome(struct tls_stream *stream, int code, bool is_writing)
{
	int error = SSL_get_error(stream->ssl, code);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return TLS_LATER;
	if (error == SSL_ERROR_ZERO_RETURN)
		return TLS_END;
	if (error == SSL_ERROR_SSL)
		note_protocol_error(stream);
	else if (stream->why[0] == '\0')
		add(stream->why, "%s",
		    stream->has_ended && !is_writing ? "the connection ended without a TLS close_notify" :
		                                       strerror(stream->error));
	ERR_clear_error();
	/* After an end without a goodbye we can still say ours; after anything else nothing more may be said. */
	stream->is_broken = stream->is_broken || error == SSL_ERROR_SSL || !is_writing;
	stream->is_write_broken = stream->is_write_broken || error == SSL_ERROR_SSL || is_writing || !stream->has_ended;
	return TLS_BROKEN;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

struct tls_sessions {
	pthread_mutex_t mutex;
	/* That they were made with; held, so that no other can have its address. */
	SSL_CTX *context GUARDED_BY(tls_mutex);
	SSL_SESSION *kept[SESSIONS_MAX] GUARDED_BY(tls_mutex); /* the newest last */
	size_t count GUARDED_BY(tls_mutex);
};

LOCK_VERBS(tls_sessions, mutex, tls_mutex)

struct tls_sessions *tls_sessions_create(void)
{
	struct tls_sessions *sessions = calloc(1, sizeof *sessions);
	if (sessions != NULL)
		pthread_mutex_init(&sessions->mutex, NULL);
	return sessions;
}

static void forget_sessions(struct tls_sessions *sessions) REQUIRES(tls_mutex)
{
	while (sessions->count > 0)
		SSL_SESSION_free(sessions->kept[--sessions->count]);
	SSL_CTX_free(sessions->context);
	sessions->context = NULL;
}

void tls_sessions_destroy(struct tls_sessions *sessions)
{
	if (sessions == NULL)
		return;
	tls_sessions_lock(sessions);
	forget_sessions(sessions);
	tls_sessions_unlock(sessions);
	pthread_mutex_destroy(&sessions->mutex);
	free(sessions);
}

/* A session to resume, or NULL. One of TLS 1.3 is used once: two connections that come back with one ticket are known
   to be the same client's (RFC 8446 §C.4), and some servers take it once only. */
static SSL_SESSION *take_session(struct tls_sessions *sessions, SSL_CTX *context)
{
	SSL_SESSION *session = NULL;
	tls_sessions_lock(sessions);
	if (sessions->context != context) {
		forget_sessions(sessions);
		sessions->context = SSL_CTX_up_ref(context) == 1 ? context : NULL;
	}
	if (sessions->count > 0) {
		session = sessions->kept[sessions->count - 1];
		if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION)
			sessions->count--;
		else if (SSL_SESSION_up_ref(session) != 1)
			session = NULL;
	}
	tls_sessions_unlock(sessions);
	return session;
}

/* 1: the session is ours to keep. A connection that was made with older settings may still be given one: that is not
   kept. */
int tls_new_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls_stream *stream = SSL_get_app_data(ssl);
	struct tls_sessions *sessions = stream->sessions;
	SSL_SESSION *oldest = NULL;
	if (sessions == NULL)
		return 0;
	tls_sessions_lock(sessions);
	bool fits = sessions->context == SSL_get_SSL_CTX(ssl);
	if (fits) {
		if (sessions->count == SESSIONS_MAX) {
			oldest = sessions->kept[0];
			memmove(sessions->kept, sessions->kept + 1, (SESSIONS_MAX - 1) * sizeof sessions->kept[0]);
			sessions->count--;
		}
		sessions->kept[sessions->count++] = session;
	}
	tls_sessions_unlock(sessions);
	SSL_SESSION_free(oldest);
	return fits ? 1 : 0;
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

static struct tls_stream *create_stream(struct tls *tls, int fd, bool is_server, uint64_t deadline_us)
{
	struct tls_stream *stream = calloc(1, sizeof *stream);
	ERR_clear_error();
	SSL *ssl = stream == NULL ? NULL : SSL_new(tls->contexts[0]);
	BIO *bio = ssl == NULL ? NULL : BIO_new(tls->socket);
	if (bio == NULL) {
		SSL_free(ssl);
		free(stream);
		return NULL;
	}
	*stream = (struct tls_stream){
		.ssl = ssl, .tls = tls_hold(tls), .fd = fd, .is_server = is_server, .deadline_us = deadline_us
	};
	BIO_set_data(bio, stream);
	SSL_set_bio(ssl, bio, bio);
	if (SSL_set_app_data(ssl, stream) == 1) /* it allocates, and the callbacks could not do without */
		return stream;
	SSL_free(ssl);
	tls_release(tls);
	free(stream);
	return NULL;
}

void tls_free(struct tls_stream *stream)
{
	if (stream == NULL)
		return;
	SSL_free(stream->ssl);
	tls_release(stream->tls);
	ERR_clear_error();
	free(stream);
}

/* Whom we want to speak to: for the certificate, and for the server to choose one by. An address is not asked for:
   there are names only in SNI (RFC 6066 §3). */
static bool set_name(struct tls_stream *stream, const char *host)
{
	struct in6_addr address;
	char name[256];
	size_t length = strcspn(host, "%"); /* a scope is ours alone */
	if (length == 0 || length >= sizeof name)
		return false;
	memcpy(name, host, length);
	name[length] = '\0';
	if (inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(stream->ssl), name) == 1;
	if (name[length - 1] == '.')
		name[length - 1] = '\0';
	/* A common name is no name any more (RFC 9525 §2). */
	SSL_set_hostflags(stream->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	return SSL_set1_host(stream->ssl, name) == 1 && SSL_set_tlsext_host_name(stream->ssl, name) == 1;
}

static void resume_session(struct tls_stream *stream)
{
	SSL_SESSION *session = take_session(stream->sessions, stream->tls->contexts[0]);
	if (session != NULL)
		SSL_set_session(stream->ssl, session);
	SSL_SESSION_free(session);
}

struct tls_stream *tls_connect(struct tls *tls, int fd, const char *host, struct tls_sessions *sessions,
                               uint64_t deadline_us, bool *timed_out, char why[TLS_WHY_MAX])
{
	struct tls_stream *stream = create_stream(tls, fd, false, deadline_us);
	*timed_out = false;
	why[0] = '\0';
	if (stream == NULL || !set_name(stream, tls->name != NULL ? tls->name : host)) {
		add(why, "no TLS connection can be made: ");
		bool lacks_memory = tls_add_reason(why) || stream == NULL;
		tls_free(stream);
		errno = lacks_memory ? ENOMEM : EPROTO;
		return NULL;
	}
	stream->sessions = sessions;
	if (sessions != NULL)
		resume_session(stream);
	int code = SSL_connect(stream->ssl);
	stream->is_greeted = code == 1;
	if (stream->is_greeted)
		return stream;
	*timed_out = outcome(stream, code, false) == TLS_LATER;
	if (*timed_out)
		add(why, "the TLS handshake did not end within connect_timeout");
	else
		add(why, stream->has_ended ? "%.10sit closed the connection during the TLS handshake" : "%s",
		    stream->has_ended ? "" : stream->why);
	int error = stream->lacked_memory ? ENOMEM : EPROTO;
	tls_free(stream);
	errno = error;
	return NULL;
}

static enum tls_greeting judge_greeting(struct tls_stream *stream, int code, char why[TLS_WHY_MAX])
{
	enum tls_result result = outcome(stream, code, false);
	if (stream->is_plain)
		return TLS_SPOKE_PLAINLY;
	if (result == TLS_LATER)
		add(why, "it did not end in time");
	else
		add(why, "%s", stream->has_ended ? "the client went away" : stream->why);
	return stream->has_heard ? TLS_GREETING_FAILED : TLS_SAID_NOTHING;
}

enum tls_greeting tls_accept(struct tls *tls, int fd, const char *early, size_t early_bytes, uint64_t deadline_us,
                             struct tls_stream **out, char why[TLS_WHY_MAX])
{
	struct tls_stream *stream = create_stream(tls, fd, true, deadline_us);
	why[0] = '\0';
	if (stream == NULL) {
		add(why, "no TLS connection can be made: ");
		tls_add_reason(why);
		return TLS_GREETING_FAILED;
	}
	stream->early = early;
	stream->early_bytes = early_bytes;
	int code = SSL_accept(stream->ssl);
	enum tls_greeting greeting = TLS_GREETED;
	if (code == 1 && stream->early_bytes > 0) { /* the buffer is the caller's again: nothing may be left there */
		add(why, "the client said too much before it was its turn");
		greeting = TLS_GREETING_FAILED;
	} else if (code != 1) {
		greeting = judge_greeting(stream, code, why);
	}
	stream->is_greeted = greeting == TLS_GREETED;
	if (stream->is_greeted)
		*out = stream;
	else
		tls_free(stream);
	return greeting;
}

/* ---- reading and writing ----------------------------------------------------------------------------------------- */

static void begin_call(struct tls_stream *stream, uint64_t deadline_us)
{
	ERR_clear_error(); /* SSL_get_error() looks at this thread's list, whoever wrote to it */
	stream->deadline_us = deadline_us;
}

/* Reading sends nothing in the versions that we speak. Were it ever to wait for room to send, nobody would be watching
   for that. */
static enum tls_result outcome_of_read(struct tls_stream *stream, int code)
{
	if (SSL_get_error(stream->ssl, code) == SSL_ERROR_WANT_WRITE && stream->deadline_us == TLS_NOW) {
		stream->is_broken = true;
		add(stream->why, "the peer wants to be answered and takes nothing");
		return TLS_BROKEN;
	}
	return outcome(stream, code, false);
}

enum tls_result tls_read(struct tls_stream *stream, void *at, size_t size, uint64_t deadline_us, size_t *count)
{
	*count = 0;
	if (stream->is_broken)
		return TLS_BROKEN;
	begin_call(stream, deadline_us);
	int code = SSL_read_ex(stream->ssl, at, size, count);
	if (code != 1)
		return outcome_of_read(stream, code);
	stream->has_read = true;
	return TLS_OK;
}

enum tls_result tls_look(struct tls_stream *stream)
{
	char byte;
	size_t count;
	if (stream->is_broken)
		return TLS_BROKEN;
	/* Where nothing has come there is nothing to decrypt. */
	if (!SSL_has_pending(stream->ssl) && recv(stream->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	    (errno == EAGAIN || errno == EWOULDBLOCK))
		return TLS_LATER;
	begin_call(stream, TLS_NOW);
	int code = SSL_peek_ex(stream->ssl, &byte, 1, &count);
	return code == 1 ? TLS_OK : outcome_of_read(stream, code);
}

/* Copies what fits into one record: many small ones would cost more than the copy. */
static size_t gather(const struct iovec *parts, int part_count, char out[RECORD_BYTES])
{
	size_t length = 0;
	for (int i = 0; i < part_count && length < RECORD_BYTES; i++) {
		size_t room = RECORD_BYTES - length;
		size_t count = parts[i].iov_len < room ? parts[i].iov_len : room;
		if (count > 0)
			memcpy(out + length, parts[i].iov_base, count);
		length += count;
	}
	return length;
}

static enum tls_result write_record(struct tls_stream *stream, const void *at, size_t length, uint64_t deadline_us,
                                    size_t *count)
{
	/* A record that got stuck is continued, with neither more nor less than was in it. */
	if (stream->unfinished_bytes > 0 && stream->unfinished_bytes < length)
		length = stream->unfinished_bytes;
	begin_call(stream, deadline_us);
	int code = SSL_write_ex(stream->ssl, at, length, count);
	stream->unfinished_bytes = 0;
	if (code == 1)
		return TLS_OK;
	*count = 0;
	if (SSL_get_error(stream->ssl, code) == SSL_ERROR_WANT_WRITE) {
		stream->unfinished_bytes = length;
		return TLS_LATER;
	}
	enum tls_result result = outcome(stream, code, true);
	return result == TLS_LATER ? TLS_LATER : TLS_BROKEN;
}

enum tls_result tls_write(struct tls_stream *stream, const struct iovec *parts, int part_count, uint64_t deadline_us,
                          size_t *count)
{
	char gathered[RECORD_BYTES];
	*count = 0;
	while (part_count > 0 && parts->iov_len == 0) {
		parts++;
		part_count--;
	}
	if (stream->is_write_broken || stream->has_said_end)
		return TLS_BROKEN;
	if (part_count == 0)
		return TLS_OK;
	if (part_count == 1 || parts->iov_len >= RECORD_BYTES) {
		size_t length = parts->iov_len < RECORD_BYTES ? parts->iov_len : RECORD_BYTES;
		return write_record(stream, parts->iov_base, length, deadline_us, count);
	}
	return write_record(stream, gathered, gather(parts, part_count, gathered), deadline_us, count);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

enum tls_result tls_end(struct tls_stream *stream, uint64_t deadline_us)
{
	if (stream->has_said_end)
		return TLS_OK;
	/* Behind half a record nothing else can be said. */
	if (stream->is_write_broken || stream->unfinished_bytes > 0)
		return TLS_BROKEN;
	begin_call(stream, deadline_us);
	int code = SSL_shutdown(stream->ssl); /* 0: said, and the peer has not yet; 1: it has, too */
	stream->has_said_end = code >= 0;
	return code >= 0 ? TLS_OK : outcome(stream, code, true);
}

bool tls_part(struct tls_stream *stream, uint64_t deadline_us)
{
	char ignored[1024];
	size_t count;
	if (SSL_version(stream->ssl) < TLS1_3_VERSION)
		return true;
	tls_end(stream, deadline_us);
	shutdown(stream->fd, SHUT_WR);
	while (tls_read(stream, ignored, sizeof ignored, deadline_us, &count) == TLS_OK)
		;
	return !stream->was_refused;
}

uint64_t tls_sent_bytes(const struct tls_stream *stream)
{
	return stream->sent_bytes;
}

bool tls_is_of(const struct tls_stream *stream, const struct tls *tls)
{
	return stream->tls == tls; /* held: nobody else's address */
}

const char *tls_why(const struct tls_stream *stream)
{
	return stream->why;
}

bool tls_was_refused(const struct tls_stream *stream)
{
	return stream->was_refused;
}

const char *tls_version(const struct tls_stream *stream)
{
	return SSL_get_version(stream->ssl);
}

bool tls_was_resumed(const struct tls_stream *stream)
{
	return SSL_session_reused(stream->ssl) == 1;
}
