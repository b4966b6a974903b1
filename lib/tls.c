/* tls.c: see tls.h. Keys, certificates and authorities: from files to what handshakes are made with.
 *
 *      keyfile ─┐  do they fit?  ┌─► SSL_CTX   a client has one
 *      crtfile ─┴────────────────┤
 *                                └─► SSL_CTX, SSL_CTX …   a server has one for each pair; the name that a client
 *                                                         asks for (SNI) says which certificate it is shown
 *
 * Files are read here and not by OpenSSL: so an error says which file of which setting, a pipe keeps nobody waiting,
 * and a key that is encrypted is refused instead of asked for on a terminal. What was read of a key is wiped.
 *
 * What is spoken. Protocols: TLS 1.2 and 1.3. As a server, for 1.2: ciphers with forward secrecy that authenticate what
 * they encrypt (RFC 9325 §4.2); the client's order counts, for it knows whether its processor has AES. As a client,
 * what OpenSSL holds to be good enough: a gateway that we must speak to may be old. No renegotiation, which has been an
 * attack more often than a use.
 *
 * Invariant: a struct tls is complete, and never changes. Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls_internal.h"

#define FILE_BYTES_MAX (4u * 1024u * 1024u) /* all the world's authorities are a quarter of a megabyte */
#define SERVER_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

static const unsigned char http_protocol[] = "\x08http/1.1"; /* as ALPN writes it: a length, and so many bytes */
#define HTTP_PROTOCOL_BYTES (sizeof http_protocol - 1)

/* What is being made, and what is said about it. */
struct making {
	struct tls *tls;
	tls_warn *warn;
	void *context;
	struct tls_fault *fault;
};

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* The end of a long path is what tells it apart. */
#define PATH_SHOWN 100u
static const char *shown(const char *path)
{
	size_t length = strlen(path);
	return length > PATH_SHOWN ? path + (length - PATH_SHOWN) : path;
}

static bool fail(struct making *m, const char *setting, const char *path, const char *why)
{
	m->fault->setting = setting;
	snprintf(m->fault->why, sizeof m->fault->why, "\"%.100s\": %.200s", shown(path), why);
	return false;
}

static bool fail_memory(struct making *m, const char *setting)
{
	m->fault->setting = setting;
	snprintf(m->fault->why, sizeof m->fault->why, "out of memory");
	return false;
}

/* What OpenSSL has against it. Nothing, when it lacked memory: then nothing is said about the file. */
static bool fail_reason(struct making *m, const char *setting, const char *path, const char *what)
{
	char why[TLS_WHY_MAX];
	snprintf(why, sizeof why, "%s: ", what);
	return tls_add_reason(why) ? fail_memory(m, setting) : fail(m, setting, path, why);
}

/* Was it memory that OpenSSL lacked? Forgets its complaints. */
static bool lacked_memory(void)
{
	char why[TLS_WHY_MAX] = "";
	return tls_add_reason(why);
}

struct content {
	char *bytes;
	size_t length;
};

static void wipe(struct content *content)
{
	if (content->bytes != NULL)
		OPENSSL_cleanse(content->bytes, content->length);
	free(content->bytes);
	*content = (struct content){ .bytes = NULL };
}

/* NULL, or what is wrong. */
static const char *read_all(int fd, struct content *content)
{
	struct stat status;
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
		return "not a regular file";
	if (status.st_size <= 0 || (size_t)status.st_size > FILE_BYTES_MAX)
		return status.st_size <= 0 ? "nothing in it" : "more than 4 MiB";
	content->bytes = malloc((size_t)status.st_size);
	if (content->bytes == NULL)
		return "out of memory";
	while (content->length < (size_t)status.st_size) {
		ssize_t count = read(fd, content->bytes + content->length, (size_t)status.st_size - content->length);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return count < 0 ? strerror(errno) : "it became shorter while it was read";
		content->length += (size_t)count;
	}
	return NULL;
}

static bool read_file(struct making *m, const char *setting, const char *path, struct content *content)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	*content = (struct content){ .bytes = NULL };
	if (fd < 0)
		return fail(m, setting, path, strerror(errno));
	const char *why = read_all(fd, content);
	close(fd);
	if (why == NULL)
		return true;
	wipe(content);
	return fail(m, setting, path, why);
}

/* ---- keys and certificates --------------------------------------------------------------------------------------- */

/* Asked for the passphrase of a key: there is nobody whom we could ask. */
static int no_passphrase(char *out, int size, int is_writing, void *asked)
{
	(void)out;
	(void)size;
	(void)is_writing;
	*(bool *)asked = true;
	return -1;
}

static EVP_PKEY *read_key(struct making *m, const char *setting, const char *path)
{
	struct content content;
	bool is_encrypted = false;
	if (!read_file(m, setting, path, &content))
		return NULL;
	BIO *bio = BIO_new_mem_buf(content.bytes, (int)content.length);
	EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &is_encrypted);
	BIO_free(bio);
	wipe(&content);
	if (key == NULL && (bio == NULL || lacked_memory()))
		fail_memory(m, setting);
	else if (key == NULL)
		fail(m, setting, path,
		     is_encrypted ? "the key is encrypted with a passphrase; allowed: one that is not" :
		                    "no private key in it; allowed: a key in PEM");
	ERR_clear_error();
	return key;
}

static void look_at_dates(struct making *m, const char *setting, const char *path, X509 *certificate)
{
	char why[TLS_WHY_MAX];
	struct tm at;
	bool has_ended = X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0;
	bool has_begun = X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0;
	if (has_begun && !has_ended)
		return;
	const ASN1_TIME *date = has_ended ? X509_get0_notAfter(certificate) : X509_get0_notBefore(certificate);
	if (ASN1_TIME_to_tm(date, &at) != 1)
		return;
	snprintf(why, sizeof why, "\"%.100s\": the certificate %s on %04d-%02d-%02d", shown(path),
	         has_ended ? "expired" : "is not valid yet: it begins", at.tm_year + 1900, at.tm_mon + 1, at.tm_mday);
	if (m->warn != NULL)
		m->warn(m->context, setting, why);
}

/* Behind the certificate may stand those between it and its authority. False: OpenSSL says why not. */
static bool add_chain(SSL_CTX *context, BIO *bio)
{
	X509 *between;
	while ((between = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
		if (SSL_CTX_add0_chain_cert(context, between) == 1)
			continue;
		X509_free(between);
		return false;
	}
	bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	if (at_end)
		ERR_clear_error();
	return at_end;
}

static bool use_certificate(struct making *m, SSL_CTX *context, const char *setting, const char *path)
{
	struct content content;
	if (!read_file(m, setting, path, &content))
		return false;
	BIO *bio = BIO_new_mem_buf(content.bytes, (int)content.length);
	X509 *certificate = bio == NULL ? NULL : PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
	bool good = certificate != NULL;
	if (!good && (bio == NULL || lacked_memory())) {
		fail_memory(m, setting);
	} else if (!good) {
		fail(m, setting, path, "no certificate in it; allowed: one in PEM");
	} else if (SSL_CTX_use_certificate(context, certificate) != 1 || !add_chain(context, bio)) {
		good = fail_reason(m, setting, path, "a certificate that can't be used");
	} else {
		look_at_dates(m, setting, path, certificate);
	}
	if (certificate == NULL)
		ERR_clear_error();
	X509_free(certificate);
	BIO_free(bio);
	wipe(&content);
	return good;
}

/* A pair goes into a context. */
static bool use_pair(struct making *m, SSL_CTX *context, const char *settings[2], const char *keyfile,
                     const char *crtfile)
{
	char what[TLS_WHY_MAX];
	if (!use_certificate(m, context, settings[1], crtfile))
		return false;
	EVP_PKEY *key = read_key(m, settings[0], keyfile);
	if (key == NULL)
		return false;
	bool fits = X509_check_private_key(SSL_CTX_get0_certificate(context), key) == 1;
	bool good = fits && SSL_CTX_use_PrivateKey(context, key) == 1;
	EVP_PKEY_free(key);
	snprintf(what, sizeof what, "not the key of the certificate in %s, \"%.100s\"", settings[1], shown(crtfile));
	if (!fits && lacked_memory())
		fail_memory(m, settings[0]);
	else if (!fits)
		fail(m, settings[0], keyfile, what);
	else if (!good)
		fail_reason(m, settings[0], keyfile, "a key that can't be used");
	ERR_clear_error();
	return good;
}

/* The certificates of a file become those that others' are checked against. A server also tells their names, so that a
   client can choose one of its certificates (RFC 8446 §4.2.4). */
static bool use_authorities(struct making *m, SSL_CTX *context, const char *setting, const char *path, bool tells_names)
{
	struct content content;
	if (!read_file(m, setting, path, &content))
		return false;
	BIO *bio = BIO_new_mem_buf(content.bytes, (int)content.length);
	X509 *certificate;
	size_t count = 0;
	bool good = bio != NULL;
	while (good && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
		count++;
		good = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1 &&
		       (!tells_names || SSL_CTX_add_client_CA(context, certificate) == 1);
		X509_free(certificate);
	}
	good = good && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	BIO_free(bio);
	wipe(&content);
	if (!good)
		return fail_reason(m, setting, path, "a certificate that can't be used");
	ERR_clear_error();
	return count > 0 || fail(m, setting, path, "no certificate in it; allowed: authorities' certificates in PEM");
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static SSL_CTX *add_context(struct making *m, const SSL_METHOD *method)
{
	SSL_CTX *context = m->tls->count < TLS_PAIRS_MAX ? SSL_CTX_new(method) : NULL;
	if (context == NULL)
		return NULL;
	m->tls->contexts[m->tls->count++] = context;
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	/* What is shown is what stands in the file, not what can be added from the authorities, at each handshake. The
	   memory of a connection that is idle is given back; a write may be continued from elsewhere; a read takes all
	   that is there, which is one system call a record instead of two. */
	SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
	                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_read_ahead(context, 1);
	return context;
}

static struct tls *create(struct making *m)
{
	ERR_clear_error();
	struct tls *tls = calloc(1, sizeof *tls);
	if (tls == NULL)
		return NULL;
	atomic_init(&tls->holders, 1);
	tls->socket = tls_socket_method();
	m->tls = tls;
	if (tls->socket != NULL)
		return tls;
	free(tls);
	return NULL;
}

struct tls *tls_hold(struct tls *tls)
{
	if (tls != NULL)
		atomic_fetch_add(&tls->holders, 1);
	return tls;
}

void tls_release(struct tls *tls)
{
	if (tls == NULL || atomic_fetch_sub(&tls->holders, 1) > 1)
		return;
	for (size_t i = 0; i < tls->count; i++)
		SSL_CTX_free(tls->contexts[i]);
	BIO_meth_free(tls->socket);
	free(tls->name);
	free(tls);
}

/* ---- a client ---------------------------------------------------------------------------------------------------- */

static bool make_client(struct making *m, const struct tls_client_options *options)
{
	static const char *settings[2] = { "keyfile", "crtfile" };
	SSL_CTX *context = add_context(m, TLS_client_method());
	if (options->name != NULL)
		m->tls->name = strdup(options->name);
	if (context == NULL || (options->name != NULL && m->tls->name == NULL) ||
	    SSL_CTX_set_alpn_protos(context, http_protocol, HTTP_PROTOCOL_BYTES) != 0)
		return fail_memory(m, "ssl");
	if (options->verify)
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER, tls_verified);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(context, tls_new_session);
	if (options->keyfile != NULL && !use_pair(m, context, settings, options->keyfile, options->crtfile))
		return false;
	if (options->cafile != NULL)
		return use_authorities(m, context, "cafile", options->cafile, false);
	return SSL_CTX_set_default_verify_paths(context) == 1 || fail_memory(m, "cafile");
}

struct tls *tls_create_client(const struct tls_client_options *options, tls_warn *warn, void *context,
                              struct tls_fault *fault)
{
	struct making making = { .warn = warn, .context = context, .fault = fault };
	struct tls *tls = create(&making);
	if (tls == NULL)
		fail_memory(&making, "ssl");
	if (tls != NULL && make_client(&making, options))
		return tls;
	tls_release(tls);
	return NULL;
}

/* ---- a server ---------------------------------------------------------------------------------------------------- */

/* The client says which server it wants (SNI): the first pair whose certificate is for that name. None is, or the
   client says nothing: the first pair of all. A client that insists sees for itself that the name is not there. */
static int choose_pair(SSL *ssl, int *alert, void *argument)
{
	struct tls *tls = argument;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	(void)alert;
	if (name == NULL || tls->count == 1)
		return SSL_TLSEXT_ERR_OK;
	for (size_t i = 0; i < tls->count; i++) {
		X509 *certificate = SSL_CTX_get0_certificate(tls->contexts[i]);
		if (X509_check_host(certificate, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) != 1)
			continue;
		SSL_set_SSL_CTX(ssl, tls->contexts[i]);
		break;
	}
	return SSL_TLSEXT_ERR_OK;
}

/* The client lists the protocols that it could speak here (ALPN). One that does not list ours would speak another:
   better to end it now (RFC 7301 §3.2). */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_bytes, const unsigned char *list,
                           unsigned list_bytes, void *argument)
{
	unsigned char *chosen;
	(void)ssl;
	(void)argument;
	if (SSL_select_next_proto(&chosen, out_bytes, http_protocol, HTTP_PROTOCOL_BYTES, list, list_bytes) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static bool make_pair(struct making *m, const struct tls_server_options *options, const char *keyfile,
                      const char *crtfile)
{
	static const char *settings[2] = { "tls_keyfile", "tls_crtfile" };
	static const unsigned char session_context[] = "weir";
	SSL_CTX *context = add_context(m, TLS_server_method());
	if (context == NULL || SSL_CTX_set_cipher_list(context, SERVER_CIPHERS) != 1 ||
	    SSL_CTX_set_session_id_context(context, session_context, sizeof session_context - 1) != 1)
		return fail_memory(m, settings[1]);
	/* Clients resume by tickets, which they keep; nothing of them is kept here. The key that seals them is made
	   with the context, so each reload makes another, and older tickets lead to a whole handshake. */
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_tlsext_servername_callback(context, choose_pair);
	SSL_CTX_set_tlsext_servername_arg(context, m->tls);
	if (options->speaks_http)
		SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
	if (!use_pair(m, context, settings, keyfile, crtfile))
		return false;
	if (options->cafile == NULL)
		return true;
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, tls_verified);
	return use_authorities(m, context, "tls_cafile", options->cafile, true);
}

static char *trim(char *text)
{
	text += strspn(text, " \t");
	size_t length = strlen(text);
	while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
		text[--length] = '\0';
	return text;
}

static size_t count_items(const char *list)
{
	size_t count = 1;
	for (; *list != '\0'; list++)
		count += *list == ',';
	return count;
}

static bool make_server(struct making *m, const struct tls_server_options *options, char *keyfiles, char *crtfiles)
{
	size_t count = count_items(crtfiles), keys = count_items(keyfiles);
	if (count != keys || count > TLS_PAIRS_MAX) {
		m->fault->setting = "tls_keyfile";
		snprintf(m->fault->why, sizeof m->fault->why,
		         "%zu of them and %zu in tls_crtfile; allowed: as many, in pairs, at most %d", keys, count,
		         TLS_PAIRS_MAX);
		return false;
	}
	for (size_t i = 0; i < count; i++)
		if (!make_pair(m, options, trim(strsep(&keyfiles, ",")), trim(strsep(&crtfiles, ","))))
			return false;
	return true;
}

struct tls *tls_create_server(const struct tls_server_options *options, tls_warn *warn, void *context,
                              struct tls_fault *fault)
{
	struct making making = { .warn = warn, .context = context, .fault = fault };
	struct tls *tls = create(&making);
	char *keyfiles = strdup(options->keyfiles), *crtfiles = strdup(options->crtfiles);
	bool good = tls != NULL && keyfiles != NULL && crtfiles != NULL;
	if (!good)
		fail_memory(&making, "tls_crtfile");
	good = good && make_server(&making, options, keyfiles, crtfiles);
	free(keyfiles);
	free(crtfiles);
	if (good)
		return tls;
	tls_release(tls);
	return NULL;
}
