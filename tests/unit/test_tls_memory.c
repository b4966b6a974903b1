/* test_tls_memory.c: keys and certificates are read while memory runs out, and from files that are not as they should be.
 *
 * tls.c is compiled here once more with allocations that fail on demand, and OpenSSL's own are told to fail in the same way: the
 * first fails, then, in a fresh run, the second, and so on until a run goes through (of the ten thousand that OpenSSL makes,
 * each 199th). Each failure is said, and leaves nothing behind (that is what `make asan` sees). And the files are good: nothing
 * is to be said against them. That OpenSSL lacked memory it does not always tell, though: some of its decoders only say that
 * there was nothing to decode.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long left = -1ul;     /* allocations, OpenSSL's too, that succeed before one fails */
static unsigned long own_left = -1ul; /* the same of those alone that tls.c makes or asks for itself */
static bool has_failed;

static bool fails(void)
{
	if (left-- > 0)
		return false;
	left = -1ul;
	has_failed = true;
	return true;
}

static bool own_fails(void)
{
	if (own_left-- > 0)
		return fails();
	own_left = -1ul;
	has_failed = true;
	return true;
}

static void *scarce_malloc(size_t size)
{
	return own_fails() ? NULL : malloc(size);
}

static void *scarce_calloc(size_t count, size_t size)
{
	return own_fails() ? NULL : calloc(count, size);
}

static char *scarce_strdup(const char *text)
{
	return own_fails() ? NULL : strdup(text);
}

static BIO *scarce_bio(const void *bytes, int length)
{
	if (!own_fails())
		return BIO_new_mem_buf(bytes, length);
	ERR_raise(ERR_LIB_BIO, ERR_R_MALLOC_FAILURE);
	return NULL;
}

/* What read() does next: the errors come first, and then at most so many bytes at once. */
static struct {
	int errors[2];
	size_t at_once;
	size_t all; /* the file has become so short */
} disk = { .at_once = SIZE_MAX, .all = SIZE_MAX };

static ssize_t told_read(int fd, void *bytes, size_t length)
{
	for (size_t i = 0; i < 2; i++)
		if (disk.errors[i] != 0) {
			errno = disk.errors[i];
			disk.errors[i] = 0;
			return -1;
		}
	length = length < disk.at_once ? length : disk.at_once;
	length = length < disk.all ? length : disk.all;
	ssize_t count = read(fd, bytes, length);
	disk.all -= disk.all == SIZE_MAX ? 0 : (size_t)count;
	return count;
}

/* Memory runs out while a key is compared with its certificate, and put beside it. */
static unsigned long left_for_pair = -1ul;

static int scarce_check(const X509 *x, const EVP_PKEY *of)
{
	left = left_for_pair == -1ul ? left : left_for_pair;
	return X509_check_private_key(x, of);
}

static int scarce_use(SSL_CTX *context, EVP_PKEY *key)
{
	int result = SSL_CTX_use_PrivateKey(context, key);
	left = left_for_pair == -1ul ? left : -1ul;
	return result;
}

#undef strdup
#define X509_check_private_key scarce_check
#define SSL_CTX_use_PrivateKey scarce_use
#define BIO_new_mem_buf scarce_bio
#define malloc scarce_malloc
#define calloc scarce_calloc
#define strdup scarce_strdup
#define read told_read
#include "lib/tls.c"
#undef malloc
#undef calloc
#undef strdup
#undef read
#undef BIO_new_mem_buf
#undef X509_check_private_key
#undef SSL_CTX_use_PrivateKey

#include "unit.h"

#define EVERY 199

/* ---- files ------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/weir-test-tls-memory-XXXXXX";
static struct {
	char key[64], crt[64], chain[64], ca[64], other_key[64], other_crt[64], bad[64];
} files;
static EVP_PKEY *ca_key, *key, *other_key;
static X509 *ca, *certificate, *other_certificate;

/* From so many seconds from now to so many. */
static X509 *make_certificate(const char *name, EVP_PKEY *of, X509 *issuer, EVP_PKEY *issuer_key, long from_s, long to_s)
{
	X509 *x = X509_new();
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), from_s);
	X509_gmtime_adj(X509_getm_notAfter(x), to_s);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(issuer != NULL ? issuer : x));
	X509_set_pubkey(x, of);
	X509_sign(x, issuer_key, EVP_sha256());
	return x;
}

static FILE *create_file(const char *path)
{
	FILE *out = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	return out;
}

static void write_key(const char *path, EVP_PKEY *of, const char *passphrase)
{
	FILE *out = create_file(path);
	PEM_write_PrivateKey(out, of, passphrase != NULL ? EVP_aes_128_cbc() : NULL, (const unsigned char *)passphrase,
	                     passphrase != NULL ? (int)strlen(passphrase) : 0, NULL, NULL);
	fclose(out);
}

static void write_certificates(const char *path, X509 *first, X509 *second)
{
	FILE *out = create_file(path);
	PEM_write_X509(out, first);
	if (second != NULL)
		PEM_write_X509(out, second);
	fclose(out);
}

static void write_text(const char *path, const char *text, size_t length)
{
	FILE *out = create_file(path);
	fwrite(text, 1, length, out);
	fclose(out);
}

static void name_file(char path[64], const char *name)
{
	snprintf(path, 64, "%s/%s", folder, name);
}

static void make_files(void)
{
	if (ca != NULL)
		return;
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	name_file(files.key, "key");
	name_file(files.crt, "crt");
	name_file(files.chain, "chain");
	name_file(files.ca, "ca");
	name_file(files.other_key, "other-key");
	name_file(files.other_crt, "other-crt");
	name_file(files.bad, "bad");
	ca_key = EVP_EC_gen("P-256");
	key = EVP_EC_gen("P-256");
	other_key = EVP_EC_gen("P-256");
	ca = make_certificate("ca", ca_key, NULL, ca_key, -3600, 3600);
	certificate = make_certificate("host.example", key, ca, ca_key, -3600, 3600);
	other_certificate = make_certificate("other.example", other_key, ca, ca_key, -3600, 3600);
	write_key(files.key, key, NULL);
	write_key(files.other_key, other_key, NULL);
	write_certificates(files.crt, certificate, NULL);
	write_certificates(files.chain, certificate, ca);
	write_certificates(files.ca, ca, other_certificate);
	write_certificates(files.other_crt, other_certificate, NULL);
}

static void remove_files(void)
{
	unlink(files.key);
	unlink(files.crt);
	unlink(files.chain);
	unlink(files.ca);
	unlink(files.other_key);
	unlink(files.other_crt);
	unlink(files.bad);
	rmdir(folder);
	X509_free(ca);
	X509_free(certificate);
	X509_free(other_certificate);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other_key);
}

static struct tls *make_one(bool is_server, struct tls_fault *fault)
{
	char keys[160], crts[160];
	snprintf(keys, sizeof keys, "%s , %s", files.key, files.other_key);
	snprintf(crts, sizeof crts, " %s,%s ", files.chain, files.other_crt);
	struct tls_server_options server = { .keyfiles = keys, .crtfiles = crts, .cafile = files.ca, .speaks_http = true };
	struct tls_client_options client = {
		.keyfile = files.key, .crtfile = files.chain, .cafile = files.ca, .name = "host.example", .verify = true
	};
	*fault = (struct tls_fault){ .setting = NULL };
	return is_server ? tls_create_server(&server, NULL, NULL, fault) : tls_create_client(&client, NULL, NULL, fault);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void *openssl_malloc(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return fails() ? NULL : malloc(size);
}

static void *openssl_realloc(void *block, size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return fails() ? NULL : realloc(block, size);
}

static void openssl_free(void *block, const char *file, int line)
{
	(void)file;
	(void)line;
	free(block);
}

/* What is told when no client, or server, could be made. */
struct told {
	unsigned failures, of_memory, of_files;
};

static void note_fault(const struct tls_fault *fault, struct told *told)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(fault->setting);
	told->failures++;
	told->of_memory += strcmp(fault->why, "out of memory") == 0 || strstr(fault->why, ": out of memory") != NULL;
	told->of_files += strstr(fault->why, "not the key") != NULL || strstr(fault->why, "passphrase") != NULL ||
	                  strstr(fault->why, "malloc failure") != NULL;
}

static void check_whole(const struct tls *tls, bool is_server)
{
	STACK_OF(X509) *chain = NULL;
	CU_ASSERT_PTR_NOT_NULL_FATAL(tls);
	CU_ASSERT_EQUAL(tls->count, is_server ? 2 : 1);
	SSL_CTX_get0_chain_certs(tls->contexts[0], &chain);
	CU_ASSERT_EQUAL(sk_X509_num(chain), 1);
	for (size_t i = 0; i < tls->count; i++) {
		CU_ASSERT_EQUAL(sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(tls->contexts[i]))), 2);
		CU_ASSERT_EQUAL(SSL_CTX_check_private_key(tls->contexts[i]), 1);
		if (is_server)
			CU_ASSERT_EQUAL(sk_X509_NAME_num(SSL_CTX_get_client_CA_list(tls->contexts[i])), 2);
	}
}

/* The at-th allocation fails. False: there are no so many. */
static bool try_without(unsigned long at, bool is_server, struct told *told)
{
	struct tls_fault fault;
	left = at;
	has_failed = false;
	struct tls *tls = make_one(is_server, &fault);
	left = -1ul;
	if (tls == NULL)
		note_fault(&fault, told);
	else
		check_whole(tls, is_server); /* what OpenSSL could do without is no loss */
	tls_release(tls);
	return has_failed;
}

static void walk(bool is_server)
{
	struct told told = { .failures = 0 };
	struct tls_fault fault;
	make_files();
	tls_release(make_one(is_server, &fault)); /* what OpenSSL makes once, and keeps */
	for (unsigned long at = 0; try_without(at, is_server, &told); at += at < 20 ? 1 : EVERY)
		;
	CU_ASSERT_TRUE(told.failures > 8);
	CU_ASSERT_TRUE(told.of_memory > told.failures / 2);
	CU_ASSERT_EQUAL(told.of_files, 0);
}

static void out_of_memory_no_client_is_made(void)
{
	walk(false);
}

static void out_of_memory_no_server_is_made(void)
{
	walk(true);
}

static void out_of_memory_of_our_own_nothing_is_made_and_it_is_said(void)
{
	make_files();
	for (int is_server = 0; is_server < 2; is_server++) {
		struct told told = { .failures = 0 };
		for (unsigned long at = 0;; at++) {
			struct tls_fault fault;
			own_left = at;
			has_failed = false;
			struct tls *tls = make_one(is_server != 0, &fault);
			own_left = -1ul;
			if (!has_failed) {
				check_whole(tls, is_server != 0);
				tls_release(tls);
				break;
			}
			CU_ASSERT_PTR_NULL_FATAL(tls);
			note_fault(&fault, &told);
		}
		CU_ASSERT_TRUE(told.failures > 5);
		CU_ASSERT_EQUAL(told.of_memory, told.failures);
	}
}

static void out_of_memory_a_key_that_fits_is_not_said_not_to(void)
{
	struct told told = { .failures = 0 };
	make_files();
	for (left_for_pair = 0;; left_for_pair++) {
		has_failed = false;
		struct tls_fault fault;
		struct tls *tls = make_one(false, &fault);
		if (tls == NULL)
			note_fault(&fault, &told);
		tls_release(tls);
		if (!has_failed)
			break;
	}
	left_for_pair = left = -1ul;
	CU_ASSERT_TRUE(told.failures > 1);
	CU_ASSERT_EQUAL(told.of_memory, told.failures);
}

/* ---- files that are not as they should be ------------------------------------------------------------------------ */

static struct {
	unsigned count;
	char setting[32], why[TLS_WHY_MAX];
} warned;

static void note_warning(void *context, const char *setting, const char *why)
{
	(void)context;
	warned.count++;
	snprintf(warned.setting, sizeof warned.setting, "%s", setting);
	snprintf(warned.why, sizeof warned.why, "%s", why);
}

static struct tls *make_with(const char *keyfile, const char *crtfile, const char *cafile, struct tls_fault *fault)
{
	struct tls_client_options options = { .keyfile = keyfile, .crtfile = crtfile, .cafile = cafile, .verify = true };
	*fault = (struct tls_fault){ .setting = "" };
	warned.count = 0;
	return tls_create_client(&options, note_warning, NULL, fault);
}

/* It is refused, for what this setting names, and these words say why. */
static void refuses(const char *keyfile, const char *crtfile, const char *cafile, const char *setting, const char *words)
{
	struct tls_fault fault;
	CU_ASSERT_PTR_NULL_FATAL(make_with(keyfile, crtfile, cafile, &fault));
	CU_ASSERT_STRING_EQUAL(fault.setting, setting);
	CU_ASSERT_PTR_NOT_NULL(strstr(fault.why, words));
}

static void a_file_comes_in_pieces_and_despite_signals(void)
{
	struct tls_fault fault;
	make_files();
	disk.errors[0] = disk.errors[1] = EINTR;
	disk.at_once = 7;
	struct tls *tls = make_with(files.key, files.chain, files.ca, &fault);
	disk.at_once = SIZE_MAX;
	CU_ASSERT_PTR_NOT_NULL(tls);
	tls_release(tls);
}

static void a_file_that_can_not_be_read_to_its_end_is_named(void)
{
	make_files();
	disk.errors[0] = EIO;
	refuses(files.key, files.crt, NULL, "crtfile", "/crt\": Input/output error");
	disk.all = 10;
	refuses(files.key, files.crt, NULL, "crtfile", "/crt\": it became shorter while it was read");
	disk.all = SIZE_MAX;
	write_text(files.bad, "", 0);
	refuses(files.bad, files.crt, NULL, "keyfile", "/bad\": nothing in it");
	CU_ASSERT_EQUAL(truncate(files.bad, FILE_BYTES_MAX + 1), 0);
	refuses(NULL, NULL, files.bad, "cafile", "/bad\": more than 4 MiB");
}

static void a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(void)
{
	make_files();
	write_key(files.bad, key, "secret");
	refuses(files.bad, files.crt, NULL, "keyfile", "the key is encrypted with a passphrase");
}

static void a_certificate_that_openssl_will_not_use_is_refused_and_why(void)
{
	static const char broken[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
	make_files();
	EVP_PKEY *weak = EVP_RSA_gen(512);
	X509 *x = make_certificate("weak.example", weak, ca, ca_key, -3600, 3600);
	write_certificates(files.bad, x, NULL);
	refuses(files.key, files.bad, NULL, "crtfile", "a certificate that can't be used: ee key too small");
	X509_free(x);
	EVP_PKEY_free(weak);
	/* Behind a good one, and among authorities. */
	write_certificates(files.bad, certificate, NULL);
	FILE *out = fopen(files.bad, "a");
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	fputs(broken, out);
	fclose(out);
	refuses(files.key, files.bad, NULL, "crtfile", "a certificate that can't be used: ");
	refuses(NULL, NULL, files.bad, "cafile", "a certificate that can't be used: ");
	refuses(NULL, NULL, files.key, "cafile", "no certificate in it; allowed: authorities' certificates in PEM");
}

static void a_certificate_whose_time_is_not_now_is_used_and_warned_of(void)
{
	static const struct {
		long from_s, to_s;
		const char *words;
	} rows[] = {
		{ -3600, 3600, NULL },
		{ -86400, -3600, "/bad\": the certificate expired on " },
		{ 86400, 2 * 86400, "/bad\": the certificate is not valid yet: it begins on " },
	};
	make_files();
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct tls_fault fault;
		X509 *x = make_certificate("host.example", key, ca, ca_key, rows[i].from_s, rows[i].to_s);
		write_certificates(files.bad, x, NULL);
		X509_free(x);
		struct tls *tls = make_with(files.key, files.bad, files.ca, &fault);
		CU_ASSERT_PTR_NOT_NULL(tls);
		tls_release(tls);
		CU_ASSERT_EQUAL(warned.count, rows[i].words != NULL);
		if (rows[i].words != NULL) {
			CU_ASSERT_STRING_EQUAL(warned.setting, "crtfile");
			CU_ASSERT_PTR_NOT_NULL(strstr(warned.why, rows[i].words));
		}
	}
}

static void keys_and_certificates_of_a_server_come_in_pairs(void)
{
	char keys[4000] = "", crts[4000] = "";
	struct tls_fault fault;
	make_files();
	struct tls_server_options options = { .keyfiles = keys, .crtfiles = crts };
	snprintf(keys, sizeof keys, "%s,%s", files.key, files.other_key);
	snprintf(crts, sizeof crts, "%s", files.crt);
	CU_ASSERT_PTR_NULL(tls_create_server(&options, NULL, NULL, &fault));
	CU_ASSERT_STRING_EQUAL(fault.setting, "tls_keyfile");
	CU_ASSERT_STRING_EQUAL(fault.why, "2 of them and 1 in tls_crtfile; allowed: as many, in pairs, at most 64");
	memset(keys, ',', TLS_PAIRS_MAX);
	keys[TLS_PAIRS_MAX] = '\0';
	memcpy(crts, keys, TLS_PAIRS_MAX + 1);
	CU_ASSERT_PTR_NULL(tls_create_server(&options, NULL, NULL, &fault));
	CU_ASSERT_STRING_EQUAL(fault.why, "65 of them and 65 in tls_crtfile; allowed: as many, in pairs, at most 64");
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(out_of_memory_no_client_is_made),
		TEST(out_of_memory_no_server_is_made),
		TEST(out_of_memory_of_our_own_nothing_is_made_and_it_is_said),
		TEST(out_of_memory_a_key_that_fits_is_not_said_not_to),
		TEST(a_file_comes_in_pieces_and_despite_signals),
		TEST(a_file_that_can_not_be_read_to_its_end_is_named),
		TEST(a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it),
		TEST(a_certificate_that_openssl_will_not_use_is_refused_and_why),
		TEST(a_certificate_whose_time_is_not_now_is_used_and_warned_of),
		TEST(keys_and_certificates_of_a_server_come_in_pairs),
	};
	if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
		return 1;
	int status = unit_main("tls_memory", tests, sizeof tests / sizeof tests[0]);
	remove_files();
	return status;
}
