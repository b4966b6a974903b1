/* tls_internal.h: what tls.c (files) and tls_stream.c (connections) share. Nobody else includes it, but for their
 * tests. */
#ifndef WEIR_TLS_INTERNAL_H
#define WEIR_TLS_INTERNAL_H

#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <stdatomic.h>

#include "tls.h"

struct tls {
	atomic_uint holders; /* the settings, each stream, whoever is about to make one */
	BIO_METHOD *socket;  /* how a stream reads and writes: tls_stream.c */
	char *name;          /* a client's: that the server must have; NULL: the host's */
	size_t count;
	SSL_CTX *contexts[TLS_PAIRS_MAX]; /* one for each pair, the first for who asks for no name; a client's: one */
};

/* tls_stream.c. NULL when out of memory. */
BIO_METHOD *tls_socket_method(void);
/* tls_stream.c: the server may give a session at any time; this is how it comes to be kept. */
int tls_new_session(SSL *ssl, SSL_SESSION *session);
/* tls_stream.c: why a certificate is refused is written down, with the names that it is for. */
int tls_verified(int good, X509_STORE_CTX *store);

/* Writes what the oldest error of OpenSSL's says, for people, behind what is in why. Empties this thread's list of
   errors. True if one of them was a want of memory: no peer is to blame for that. */
bool tls_add_reason(char why[TLS_WHY_MAX]);

#endif
