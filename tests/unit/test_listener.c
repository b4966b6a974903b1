/* test_listener.c: where a server can be reached, and what is said when it can not.
 *
 * listener.c is compiled here once more with a socket() that fails on demand: a machine without IPv6, and a process without
 * descriptors, are not to be had otherwise.
 */
#include <sys/socket.h>

#include <errno.h>
#include <stdbool.h>

static struct {
	int family, error; /* sockets of this family, or of any (0), fail with this error (0: none does) */
	unsigned spared;   /* so many that would fail are made yet */
} lack;

static int scarce_socket(int family, int type, int protocol)
{
	bool is_meant = lack.error != 0 && (lack.family == 0 || lack.family == family);
	if (!is_meant || lack.spared > 0) {
		lack.spared -= is_meant;
		return socket(family, type, protocol);
	}
	errno = lack.error;
	return -1;
}

#define socket scarce_socket
#include "lib/listener.c"
#undef socket

#include <fcntl.h>
#include <stdlib.h>

#include "unit.h"

static char folder[] = "/tmp/weir-test-listener-XXXXXX";
static char path[64], where[80]; /* "unix:" and the path */
static char error[200];

static void make_folder(void)
{
	if (where[0] == '\0')
		CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/socket", folder);
	snprintf(where, sizeof where, "unix:%s", path);
	memset(&lack, 0, sizeof lack);
	error[0] = '\0';
}

static bool exists(const char *name)
{
	return access(name, F_OK) == 0;
}

/* Does somebody answer there? */
static bool answers(const struct address *address)
{
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool is_connected = fd >= 0 && connect(fd, &address->any, address->length) == 0;
	close(fd);
	return is_connected;
}

static bool answers_at_loopback(const char *host, unsigned port)
{
	struct address address;
	CU_ASSERT_TRUE_FATAL(address_parse(host, port, &address));
	return answers(&address);
}

static struct address address_of(int fd)
{
	struct address address;
	listener_address(fd, &address);
	return address;
}

/* ---- ports ------------------------------------------------------------------------------------------------------- */

static void one_socket_takes_clients_of_both_families(void)
{
	make_folder();
	int fd = listener_open(NULL, 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	struct address address = address_of(fd);
	CU_ASSERT_TRUE(address_port(&address) > 0);
	CU_ASSERT_TRUE(answers_at_loopback("127.0.0.1", address_port(&address)));
	if (address.any.sa_family == AF_INET6 && exists("/proc/sys/net/ipv6"))
		CU_ASSERT_TRUE(answers_at_loopback("::1", address_port(&address)));
	close(fd);
}

static void what_is_accepted_sends_without_delay(void)
{
	int on = 0;
	socklen_t size = sizeof on;
	make_folder();
	int fd = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	struct address address = address_of(fd);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(connect(client, &address.any, address.length), 0);
	int accepted = accept(fd, NULL, NULL);
	CU_ASSERT_EQUAL(getsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
	CU_ASSERT_NOT_EQUAL(on, 0);
	close(accepted);
	close(client);
	close(fd);
}

static void a_machine_without_ipv6_gets_a_socket_of_ipv4(void)
{
	make_folder();
	lack.family = AF_INET6;
	lack.error = EAFNOSUPPORT;
	int fd = listener_open(NULL, 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	struct address address = address_of(fd);
	CU_ASSERT_EQUAL(address.any.sa_family, AF_INET);
	CU_ASSERT_TRUE(answers_at_loopback("127.0.0.1", address_port(&address)));
	close(fd);
	/* Who asks for an address of IPv6 does not get another instead. */
	CU_ASSERT_EQUAL(listener_open("::1", 8080, false, error, sizeof error), -1);
	CU_ASSERT_STRING_EQUAL(error, "cannot listen on [::1]:8080: Address family not supported by protocol");
}

static void without_a_descriptor_the_place_and_the_reason_are_named(void)
{
	make_folder();
	lack.error = EMFILE;
	CU_ASSERT_EQUAL(listener_open("127.0.0.1", 8080, false, error, sizeof error), -1);
	CU_ASSERT_STRING_EQUAL(error, "cannot listen on 127.0.0.1:8080: Too many open files");
	CU_ASSERT_EQUAL(listener_open(NULL, 8080, false, error, sizeof error), -1);
	CU_ASSERT_STRING_EQUAL(error, "cannot listen on [::]:8080: Too many open files");
}

static void what_is_no_address_is_named(void)
{
	static const char *const bad[] = { "", "localhost", "1.2.3", "::1::", "unix:" };
	char expected[120], longest[200] = "unix:/";
	make_folder();
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT_EQUAL(listener_open(bad[i], 0, false, error, sizeof error), -1);
		snprintf(expected, sizeof expected, "cannot listen on \"%s\": neither an address nor unix:/path", bad[i]);
		CU_ASSERT_EQUAL(strncmp(error, expected, strlen(expected)), 0);
	}
	memset(longest + 6, 'p', 107); /* and so 108 with the slash */
	CU_ASSERT_EQUAL(listener_open(longest, 0, false, error, sizeof error), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "at most 107 bytes"));
}

static void a_port_is_shared_only_with_one_that_takes_over(void)
{
	make_folder();
	int first = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(first >= 0);
	struct address address = address_of(first);
	unsigned port = address_port(&address);
	CU_ASSERT_EQUAL(listener_open("127.0.0.1", port, false, error, sizeof error), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "Address already in use"));
	CU_ASSERT_EQUAL(listener_open("127.0.0.1", port, true, error, sizeof error), -1); /* the first does not know of it */
	listener_share(first, true);
	int second = listener_open("127.0.0.1", port, true, error, sizeof error);
	CU_ASSERT_TRUE(second >= 0);
	listener_share(first, false);
	CU_ASSERT_EQUAL(listener_open("127.0.0.1", port, false, error, sizeof error), -1); /* a server started by mistake */
	listener_retire(first);
	close(first);
	CU_ASSERT_TRUE(answers(&address));
	close(second);
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static void the_path_of_a_server_that_is_gone_is_taken_over(void)
{
	make_folder();
	int gone = listener_open(where, 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(gone >= 0);
	close(gone);
	CU_ASSERT_TRUE(exists(path));
	int fd = listener_open(where, 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	struct address address = address_of(fd);
	CU_ASSERT_TRUE(answers(&address));
	listener_retire(fd);
	CU_ASSERT_FALSE(exists(path));
	CU_ASSERT_FALSE(answers(&address));
	close(fd);
}

static void the_path_of_a_live_server_stays_its_own(void)
{
	make_folder();
	int first = listener_open(where, 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(first >= 0);
	CU_ASSERT_EQUAL(listener_open(where, 0, false, error, sizeof error), -1);
	CU_ASSERT_EQUAL(strncmp(error, "cannot listen on unix:/", 23), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ": Address already in use"));
	struct address address = address_of(first);
	CU_ASSERT_TRUE(answers(&address));
	listener_retire(first);
	close(first);
}

static void a_file_that_is_no_socket_is_never_removed(void)
{
	make_folder();
	int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	CU_ASSERT_TRUE_FATAL(file >= 0);
	CU_ASSERT_EQUAL(listener_open(where, 0, false, error, sizeof error), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ": Address already in use"));
	CU_ASSERT_TRUE(exists(path));
	close(file);
	unlink(path);
}

/* Whether somebody answers there can't be found out, so the path may be somebody's. */
static void without_a_descriptor_to_look_with_no_path_is_removed(void)
{
	make_folder();
	int gone = listener_open(where, 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(gone >= 0);
	close(gone);
	lack.error = EMFILE;
	lack.spared = 1;
	CU_ASSERT_EQUAL(listener_open(where, 0, false, error, sizeof error), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ": Address already in use"));
	CU_ASSERT_TRUE(exists(path));
	unlink(path);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(one_socket_takes_clients_of_both_families),
		TEST(what_is_accepted_sends_without_delay),
		TEST(a_machine_without_ipv6_gets_a_socket_of_ipv4),
		TEST(without_a_descriptor_the_place_and_the_reason_are_named),
		TEST(what_is_no_address_is_named),
		TEST(a_port_is_shared_only_with_one_that_takes_over),
		TEST(the_path_of_a_server_that_is_gone_is_taken_over),
		TEST(the_path_of_a_live_server_stays_its_own),
		TEST(a_file_that_is_no_socket_is_never_removed),
		TEST(without_a_descriptor_to_look_with_no_path_is_removed),
	};
	int status = unit_main("listener", tests, sizeof tests / sizeof tests[0]);
	rmdir(folder);
	return status;
}
