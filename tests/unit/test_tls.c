/* Tests of lib/tls.c and lib/tls_stream.c, through lib/conn.c, which is how they are used: two connections, one on each
 * end of a socket pair, with a certificate that is made at the start. */
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/conn.h"
#include "lib/thread.h"
#include "lib/tls.h"
#include "lib/tunnel.h"
#include "unit.h"

#define SOON (clock_us() + 20 * US_PER_S)
#define HOST "host.example"
#define EARLY_S (10 * 24 * 3600) /* a certificate that is good in ten days */

static char folder[] = "/tmp/weir-test-tls-XXXXXX";
static char keyfile[64], crtfile[64], early_crtfile[64], other_keyfile[64];
static char client_buffer[40000], server_buffer[40000];
static struct conn client, server;
static struct tls *client_tls, *server_tls;
static struct tls_sessions *sessions;
static char client_why[TLS_WHY_MAX], server_why[TLS_WHY_MAX];

/* ---- the scene --------------------------------------------------------------------------------------------------- */

static void write_key(const char *path, EVP_PKEY *key)
{
	FILE *out = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
	fclose(out);
}

/* Good for two hours, which begin so many seconds from now. A URI is no name that a host could have. */
static void write_certificate(const char *path, EVP_PKEY *key, long from_s)
{
	X509 *x = X509_new();
	X509_NAME *name = X509_get_subject_name(x);
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), from_s);
	X509_gmtime_adj(X509_getm_notAfter(x), from_s + 7200);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)HOST, -1, -1, 0);
	X509_set_issuer_name(x, name);
	X509_set_pubkey(x, key);
	X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "URI:http://" HOST "/,DNS:" HOST);
	X509_add_ext(x, names, -1);
	X509_EXTENSION_free(names);
	X509_sign(x, key, EVP_sha256());
	FILE *out = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	PEM_write_X509(out, x);
	fclose(out);
	X509_free(x);
}

static void make_files(void)
{
	if (keyfile[0] != '\0')
		return;
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(keyfile, sizeof keyfile, "%s/key", folder);
	snprintf(crtfile, sizeof crtfile, "%s/crt", folder);
	snprintf(early_crtfile, sizeof early_crtfile, "%s/early", folder);
	snprintf(other_keyfile, sizeof other_keyfile, "%s/other", folder);
	EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
	write_key(keyfile, key);
	write_key(other_keyfile, other);
	write_certificate(crtfile, key, -3600);
	write_certificate(early_crtfile, key, EARLY_S);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
}

static void remove_files(void)
{
	unlink(keyfile);
	unlink(crtfile);
	unlink(early_crtfile);
	unlink(other_keyfile);
	rmdir(folder);
}

static struct tls *make_client(const char *name)
{
	struct tls_client_options options = { .cafile = crtfile, .name = name, .verify = true };
	struct tls_fault fault;
	struct tls *tls = tls_create_client(&options, NULL, NULL, &fault);
	CU_ASSERT_PTR_NOT_NULL_FATAL(tls);
	return tls;
}

static void make_tls(void)
{
	struct tls_server_options options = { .keyfiles = keyfile, .crtfiles = crtfile, .speaks_http = true };
	struct tls_fault fault;
	make_files();
	client_tls = make_client(NULL);
	server_tls = tls_create_server(&options, NULL, NULL, &fault);
	sessions = tls_sessions_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(server_tls);
	CU_ASSERT_PTR_NOT_NULL_FATAL(sessions);
}

static void release_tls(void)
{
	tls_sessions_destroy(sessions);
	tls_release(client_tls);
	tls_release(server_tls);
}

static void open_pair(void)
{
	int ends[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&client, ends[0], client_buffer, sizeof client_buffer);
	conn_init(&server, ends[1], server_buffer, sizeof server_buffer);
}

static void *connect_client(void *argument)
{
	*(enum conn_result *)argument = conn_connect_tls(&client, client_tls, HOST, sessions, SOON, client_why);
	return NULL;
}

/* Both shake hands: true if both are content. */
static bool shake_hands(void)
{
	pthread_t thread;
	enum conn_result result = CONN_BROKEN;
	CU_ASSERT_EQUAL_FATAL(thread_start(&thread, connect_client, &result), 0);
	enum tls_greeting greeting = conn_accept_tls(&server, server_tls, SOON, server_why);
	pthread_join(thread, NULL);
	return greeting == TLS_GREETED && result == CONN_OK;
}

static void begin(void)
{
	make_tls();
	open_pair();
	CU_ASSERT_TRUE_FATAL(shake_hands());
}

static void end(void)
{
	conn_close(&client);
	conn_close(&server);
	release_tls();
}

static void say(struct conn *conn, const char *text)
{
	struct iovec part = { .iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text) };
	CU_ASSERT_EQUAL(conn_send(conn, &part, 1, SOON, NULL), CONN_OK);
}

static bool waits(const struct conn *conn, const char *text)
{
	return conn_available(conn) == strlen(text) && memcmp(conn_bytes(conn), text, strlen(text)) == 0;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void bytes_come_out_as_they_went_in(void)
{
	begin();
	struct iovec parts[4] = { { "one ", 4 }, { "", 0 }, { "two ", 4 }, { "three", 5 } };
	size_t sent = 0;
	CU_ASSERT_EQUAL(conn_send(&client, parts, 4, SOON, &sent), CONN_OK);
	CU_ASSERT_EQUAL(sent, 13);
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&server, "one two three")); /* in one record: one read */
	say(&server, "four");
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&client, "four"));
	end();
}

static void a_read_that_is_smaller_than_a_record_leaves_the_rest_for_the_next(void)
{
	begin();
	say(&client, "hello you");
	server.capacity = 5;
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&server, "hello"));
	conn_use(&server, 5);
	CU_ASSERT_EQUAL(conn_try_fill(&server), CONN_OK); /* nothing of it is in the socket any more */
	CU_ASSERT_TRUE(waits(&server, " you"));
	conn_use(&server, 4);
	CU_ASSERT_EQUAL(conn_try_fill(&server), CONN_WOULD_BLOCK);
	end();
}

static void sending_goes_on_where_a_timeout_stopped_it(void)
{
	static char a[300000], b[300000];
	struct iovec parts[4] = { { "head", 4 }, { a, sizeof a }, { a, 0 }, { b, sizeof b } };
	size_t sent, sent_in_all = 0, read_in_all = 0;
	unsigned timeouts = 0, wrong = 0;
	enum conn_result result;
	memset(a, 'a', sizeof a);
	memset(b, 'b', sizeof b);
	begin();
	do {
		result = conn_send(&client, parts, 4, clock_us() + 2 * US_PER_MS, &sent);
		sent_in_all += sent;
		timeouts += result == CONN_TIMEOUT;
		while ((result == CONN_TIMEOUT || read_in_all < sent_in_all) && conn_try_fill(&server) == CONN_OK) {
			const char *stop = conn_bytes(&server) + conn_available(&server);
			for (const char *at = conn_bytes(&server); at < stop; at++, read_in_all++)
				wrong += read_in_all >= 4 && *at != (read_in_all < 4 + sizeof a ? 'a' : 'b');
			conn_use(&server, conn_available(&server));
		}
	} while (result == CONN_TIMEOUT);
	CU_ASSERT_EQUAL(result, CONN_OK);
	CU_ASSERT_TRUE(timeouts > 0);
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_EQUAL(sent_in_all, 4 + sizeof a + sizeof b);
	CU_ASSERT_EQUAL(read_in_all, 4 + sizeof a + sizeof b);
	end();
}

static void a_part_of_a_record_that_was_taken_is_progress_and_is_not_sent(void)
{
	static char much[2000000];
	struct iovec part = { much, sizeof much }, *parts = &part;
	int count = 1, small = 1;
	size_t sent = 0;
	begin();
	setsockopt(client.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	CU_ASSERT_EQUAL(conn_try_send(&client, &parts, &count, &sent), CONN_WOULD_BLOCK);
	CU_ASSERT_EQUAL(sent % 16384, 0);
	CU_ASSERT_TRUE(client.moved_bytes >= sent);
	CU_ASSERT_EQUAL(part.iov_len, sizeof much - sent);
	end();
}

/* ---- deadlines --------------------------------------------------------------------------------------------------- */

static void half_a_record_is_waited_for_until_the_deadline_and_no_longer(void)
{
	begin();
	CU_ASSERT_EQUAL(conn_fill(&client, clock_us() - 1), CONN_TIMEOUT);
	CU_ASSERT_EQUAL(send(server.fd, "\x17\x03\x03\x40\x00half", 9, MSG_NOSIGNAL), 9);
	uint64_t begun_us = clock_us();
	CU_ASSERT_EQUAL(conn_fill(&client, begun_us + 20 * US_PER_MS), CONN_TIMEOUT);
	CU_ASSERT_TRUE(clock_us() >= begun_us + 20 * US_PER_MS);
	CU_ASSERT_EQUAL(conn_try_fill(&client), CONN_WOULD_BLOCK);
	CU_ASSERT_FALSE(conn_has_hung_up(&client));
	end();
}

static void a_handshake_that_nobody_answers_ends_at_the_deadline(void)
{
	make_tls();
	open_pair();
	uint64_t deadline_us = clock_us() + 20 * US_PER_MS;
	CU_ASSERT_EQUAL(conn_connect_tls(&client, client_tls, HOST, sessions, deadline_us, client_why), CONN_TIMEOUT);
	CU_ASSERT_STRING_EQUAL(client_why, "the TLS handshake did not end within connect_timeout");
	CU_ASSERT_PTR_NULL(client.tls);
	conn_close(&client);
	/* It has a hello, and the end. */
	CU_ASSERT_EQUAL(conn_accept_tls(&server, server_tls, SOON, server_why), TLS_GREETING_FAILED);
	conn_close(&server);
	open_pair();
	deadline_us = clock_us() + 20 * US_PER_MS;
	CU_ASSERT_EQUAL(conn_accept_tls(&server, server_tls, deadline_us, server_why), TLS_SAID_NOTHING);
	conn_close(&client);
	conn_close(&server);
	release_tls();
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void an_end_with_a_goodbye_is_told_apart_from_one_without(void)
{
	begin();
	say(&server, "bye");
	conn_close(&server);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&client, "bye"));
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_END);
	end();
	begin();
	shutdown(server.fd, SHUT_RDWR);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_BROKEN);
	CU_ASSERT_STRING_EQUAL(conn_why(&client), "the connection ended without a TLS close_notify");
	end();
	begin();
	conn_close_hard(&server);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_BROKEN);
	end();
}

static void one_side_may_end_and_the_other_go_on(void)
{
	begin();
	CU_ASSERT_EQUAL(conn_end_sending(&client, SOON), CONN_OK);
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_END);
	say(&server, "still here");
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&client, "still here"));
	end();
}

static void a_write_to_a_peer_that_is_gone_is_an_error_and_no_signal(void)
{
	struct iovec part = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	begin();
	close(server.fd);
	server.fd = -1;
	CU_ASSERT_EQUAL(conn_send(&client, &part, 1, SOON, NULL), CONN_BROKEN);
	CU_ASSERT_EQUAL(conn_send(&client, &part, 1, SOON, NULL), CONN_BROKEN);
	CU_ASSERT_EQUAL(conn_end_sending(&client, SOON), CONN_BROKEN);
	end();
}

static void what_was_said_before_a_reset_is_still_heard(void)
{
	struct iovec part = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	begin();
	say(&server, "no!");
	close(server.fd);
	server.fd = -1;
	CU_ASSERT_EQUAL(conn_send(&client, &part, 1, SOON, NULL), CONN_BROKEN);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&client, "no!"));
	end();
}

static void a_forged_record_breaks_the_connection(void)
{
	begin();
	CU_ASSERT_EQUAL(send(server.fd, "\x17\x03\x03\x00\x14" "forged forged forged", 25, MSG_NOSIGNAL), 25);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_BROKEN);
	CU_ASSERT_TRUE(strncmp(conn_why(&client), "TLS failed: ", 12) == 0);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_BROKEN);
	end();
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static void session_tickets_do_not_make_an_idle_connection_speak(void)
{
	begin();
	int peeked = recv(client.fd, client_buffer, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
	CU_ASSERT_TRUE(peeked); /* they are there */
	CU_ASSERT_TRUE(conn_is_quiet(client.fd, client.tls));
	say(&server, "x");
	CU_ASSERT_FALSE(conn_is_quiet(client.fd, client.tls));
	end();
	begin();
	conn_close(&server);
	CU_ASSERT_FALSE(conn_is_quiet(client.fd, client.tls));
	end();
}

static void a_goodbye_in_the_socket_is_no_data(void)
{
	begin();
	CU_ASSERT_FALSE(conn_has_hung_up(&server));
	conn_close(&client);
	CU_ASSERT_TRUE(conn_has_hung_up(&server));
	CU_ASSERT_EQUAL(conn_unread(&server), 0);
	end();
	begin();
	say(&client, "more");
	say(&client, "over");
	conn_close(&client);
	CU_ASSERT_FALSE(conn_has_hung_up(&server));
	CU_ASSERT_EQUAL(conn_unread(&server), 8);
	end();
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

static void a_session_is_resumed_under_the_same_settings_only(void)
{
	begin();
	CU_ASSERT_FALSE(tls_was_resumed(client.tls));
	CU_ASSERT_TRUE(conn_is_quiet(client.fd, client.tls)); /* the tickets are read */
	for (int i = 0; i < 3; i++) {
		conn_close(&client);
		conn_close(&server);
		open_pair();
		CU_ASSERT_TRUE_FATAL(shake_hands());
		CU_ASSERT_TRUE(tls_was_resumed(client.tls));
		CU_ASSERT_TRUE(conn_is_quiet(client.fd, client.tls));
	}
	struct tls *before = client_tls;
	client_tls = make_client(NULL);
	struct tls_stream *stream = client.tls;
	CU_ASSERT_TRUE(tls_is_of(stream, before));
	CU_ASSERT_FALSE(tls_is_of(stream, client_tls));
	conn_close(&client);
	conn_close(&server);
	open_pair();
	CU_ASSERT_TRUE_FATAL(shake_hands());
	CU_ASSERT_FALSE(tls_was_resumed(client.tls));
	tls_release(before);
	end();
}

static void of_the_sessions_of_many_connections_sixteen_are_kept(void)
{
	enum { CONNECTIONS = 9, KEPT = 16 }; /* each is given two */
	struct conn ends[CONNECTIONS][2];
	unsigned resumed = 0;
	make_tls();
	for (int i = 0; i < CONNECTIONS; i++) {
		open_pair();
		CU_ASSERT_TRUE_FATAL(shake_hands());
		CU_ASSERT_FALSE(tls_was_resumed(client.tls));
		ends[i][0] = client;
		ends[i][1] = server;
	}
	for (int i = 0; i < CONNECTIONS; i++) {
		CU_ASSERT_TRUE(conn_is_quiet(ends[i][0].fd, ends[i][0].tls)); /* the tickets are read */
		conn_close(&ends[i][0]);
		conn_close(&ends[i][1]);
	}
	for (int i = 0; i <= KEPT; i++) { /* without a look at the tickets that come now */
		open_pair();
		CU_ASSERT_TRUE_FATAL(shake_hands());
		resumed += tls_was_resumed(client.tls);
		conn_close(&client);
		conn_close(&server);
	}
	CU_ASSERT_EQUAL(resumed, KEPT);
	release_tls();
}

static void a_connection_outlives_the_settings_it_was_made_with(void)
{
	begin();
	release_tls();
	sessions = NULL;
	client_tls = server_tls = NULL;
	say(&client, "hello");
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&server, "hello"));
	end();
}

static void the_name_that_is_wanted_is_checked(void)
{
	make_tls();
	tls_release(client_tls);
	client_tls = make_client("another.example");
	open_pair();
	CU_ASSERT_FALSE(shake_hands());
	CU_ASSERT_STRING_EQUAL(client_why, "its certificate is refused: hostname mismatch; wanted was another.example, "
	                                   "it is for host.example");
	CU_ASSERT_PTR_NOT_NULL(strstr(server_why, "the client refused the TLS handshake: alert"));
	end();
}

static void a_name_with_the_roots_dot_is_the_same_name(void)
{
	make_tls();
	tls_release(client_tls);
	client_tls = make_client(HOST ".");
	open_pair();
	CU_ASSERT_TRUE(shake_hands());
	CU_ASSERT_STRING_EQUAL(client_why, "");
	end();
}

static void a_certificate_that_is_not_good_yet_is_told_with_its_day(void)
{
	struct tls_server_options early = { .keyfiles = keyfile, .crtfiles = early_crtfile, .speaks_http = true };
	struct tls_client_options trusting = { .cafile = early_crtfile, .verify = true };
	struct tls_fault fault;
	char wanted[TLS_WHY_MAX], days[2][16];
	make_tls();
	tls_release(server_tls);
	tls_release(client_tls);
	server_tls = tls_create_server(&early, NULL, NULL, &fault);
	client_tls = tls_create_client(&trusting, NULL, NULL, &fault);
	CU_ASSERT_FATAL(server_tls != NULL && client_tls != NULL);
	open_pair();
	CU_ASSERT_FALSE(shake_hands());
	/* It was written some seconds ago: midnight may have passed since. */
	for (int i = 0; i < 2; i++) {
		time_t day = time(NULL) + EARLY_S - i * 600;
		struct tm at;
		strftime(days[i], sizeof days[i], "%Y-%m-%d", gmtime_r(&day, &at));
	}
	snprintf(wanted, sizeof wanted, "its certificate is refused: certificate is not yet valid on %s; wanted was " HOST,
	         strstr(client_why, days[0]) != NULL ? days[0] : days[1]);
	CU_ASSERT_STRING_EQUAL(client_why, wanted);
	end();
}

/* Asking another target helps against the one, and may do harm after the other: it may have read the request. */
static void an_alert_that_answers_a_record_is_no_refusal_of_the_handshake(void)
{
	begin();
	CU_ASSERT_EQUAL(send(client.fd, "\x17\x03\x03\x00\x14" "forged forged forged", 25, MSG_NOSIGNAL), 25);
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_BROKEN);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_BROKEN);
	CU_ASSERT_STRING_EQUAL(conn_why(&client), "it broke off after the TLS handshake: alert 20, bad record mac");
	CU_ASSERT_FALSE(tls_was_refused(client.tls));
	end();
}

static void a_text_is_answered_as_a_text(void)
{
	make_tls();
	open_pair();
	CU_ASSERT_EQUAL(send(client.fd, "DELETE / HTTP/1.1\r\n\r\n", 21, MSG_NOSIGNAL), 21);
	CU_ASSERT_EQUAL(conn_accept_tls(&server, server_tls, SOON, server_why), TLS_SPOKE_PLAINLY);
	say(&server, "no");
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&client, "no")); /* and no alert before it */
	end();
}

static void a_handshake_may_begin_with_what_was_read_already(void)
{
	pthread_t thread;
	enum conn_result result = CONN_BROKEN;
	make_tls();
	open_pair();
	CU_ASSERT_EQUAL_FATAL(thread_start(&thread, connect_client, &result), 0);
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_OK);
	CU_ASSERT_EQUAL(conn_accept_tls(&server, server_tls, SOON, server_why), TLS_GREETED);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(result, CONN_OK);
	say(&client, "hello");
	CU_ASSERT_EQUAL(conn_fill(&server, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&server, "hello"));
	end();
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void files_that_do_not_fit_are_told_by_setting(void)
{
	struct tls_fault fault;
	make_files();
	static const struct {
		const char *key, *crt, *ca, *setting, *why;
	} cases[] = {
		{ "other", "crt", NULL, "keyfile", "not the key of the certificate" },
		{ "crt", "crt", NULL, "keyfile", "no private key in it" },
		{ "key", "key", NULL, "crtfile", "no certificate in it" },
		{ "none", "crt", NULL, "keyfile", "No such file" },
		{ NULL, NULL, "none", "cafile", "No such file" },
		{ NULL, NULL, "", "cafile", "not a regular file" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char key[128], crt[128], ca[128];
		snprintf(key, sizeof key, "%s/%s", folder, cases[i].key != NULL ? cases[i].key : "");
		snprintf(crt, sizeof crt, "%s/%s", folder, cases[i].crt != NULL ? cases[i].crt : "");
		snprintf(ca, sizeof ca, "%s/%s", folder, cases[i].ca != NULL ? cases[i].ca : "");
		struct tls_client_options options = { .keyfile = cases[i].key != NULL ? key : NULL,
			                              .crtfile = cases[i].crt != NULL ? crt : NULL,
			                              .cafile = cases[i].ca != NULL ? ca : NULL,
			                              .verify = true };
		CU_ASSERT_PTR_NULL(tls_create_client(&options, NULL, NULL, &fault));
		CU_ASSERT_STRING_EQUAL(fault.setting, cases[i].setting);
		CU_ASSERT_PTR_NOT_NULL(strstr(fault.why, cases[i].why));
	}
}

/* ---- tunnels ----------------------------------------------------------------------------------------------------- */

static struct conn far;
static enum conn_result tunnel_result;

static void *run_tunnel(void *argument)
{
	struct tunnel_counts counts = { .up_bytes = 0 };
	(void)argument;
	tunnel_result = tunnel_run(&server, &far, 20 * US_PER_S, &counts);
	return NULL;
}

static void a_tunnel_joins_a_tls_connection_and_a_plain_one_to_both_ends(void)
{
	static char far_buffer[40000], much[3000000];
	char byte;
	pthread_t thread;
	int ends[2];
	size_t got = 0, count;
	begin();
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	conn_init(&far, ends[0], far_buffer, sizeof far_buffer);
	CU_ASSERT_EQUAL_FATAL(thread_start(&thread, run_tunnel, NULL), 0);
	/* There and back: the peer of the plain side returns what it gets. More than the sockets hold, so each waits
	   for room. */
	struct iovec part = { much, sizeof much }, *parts = &part;
	int left = 1;
	while (got < sizeof much) {
		char piece[1000];
		ssize_t length = recv(ends[1], piece, sizeof piece, MSG_DONTWAIT);
		if (length > 0)
			CU_ASSERT_EQUAL_FATAL(send(ends[1], piece, (size_t)length, MSG_NOSIGNAL), length);
		CU_ASSERT_NOT_EQUAL_FATAL(conn_try_send(&client, &parts, &left, &count), CONN_BROKEN);
		while (conn_try_fill(&client) == CONN_OK) {
			got += conn_available(&client);
			conn_use(&client, conn_available(&client));
		}
	}
	CU_ASSERT_EQUAL(got, sizeof much);
	CU_ASSERT_EQUAL(conn_end_sending(&client, SOON), CONN_OK);
	CU_ASSERT_EQUAL(recv(ends[1], &byte, 1, 0), 0); /* the goodbye has become an end */
	CU_ASSERT_EQUAL(send(ends[1], "last", 4, MSG_NOSIGNAL), 4);
	close(ends[1]);
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_OK);
	CU_ASSERT_TRUE(waits(&client, "last"));
	CU_ASSERT_EQUAL(conn_fill(&client, SOON), CONN_END); /* and the end a goodbye */
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(tunnel_result, CONN_END);
	conn_close(&far);
	end();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(bytes_come_out_as_they_went_in),
		TEST(a_read_that_is_smaller_than_a_record_leaves_the_rest_for_the_next),
		TEST(sending_goes_on_where_a_timeout_stopped_it),
		TEST(a_part_of_a_record_that_was_taken_is_progress_and_is_not_sent),
		TEST(half_a_record_is_waited_for_until_the_deadline_and_no_longer),
		TEST(a_handshake_that_nobody_answers_ends_at_the_deadline),
		TEST(an_end_with_a_goodbye_is_told_apart_from_one_without),
		TEST(one_side_may_end_and_the_other_go_on),
		TEST(a_write_to_a_peer_that_is_gone_is_an_error_and_no_signal),
		TEST(what_was_said_before_a_reset_is_still_heard),
		TEST(a_forged_record_breaks_the_connection),
		TEST(session_tickets_do_not_make_an_idle_connection_speak),
		TEST(a_goodbye_in_the_socket_is_no_data),
		TEST(a_session_is_resumed_under_the_same_settings_only),
		TEST(of_the_sessions_of_many_connections_sixteen_are_kept),
		TEST(a_connection_outlives_the_settings_it_was_made_with),
		TEST(the_name_that_is_wanted_is_checked),
		TEST(a_name_with_the_roots_dot_is_the_same_name),
		TEST(a_certificate_that_is_not_good_yet_is_told_with_its_day),
		TEST(an_alert_that_answers_a_record_is_no_refusal_of_the_handshake),
		TEST(a_text_is_answered_as_a_text),
		TEST(a_handshake_may_begin_with_what_was_read_already),
		TEST(files_that_do_not_fit_are_told_by_setting),
		TEST(a_tunnel_joins_a_tls_connection_and_a_plain_one_to_both_ends),
	};
	int status = unit_main("tls", tests, sizeof tests / sizeof tests[0]);
	remove_files();
	return status;
}
