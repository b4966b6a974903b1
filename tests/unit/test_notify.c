/* test_notify.c: what a service manager receives, read from sockets as a manager would bind them. */
#include "lib/notify.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct manager {
	int fd;
	char folder[64], address[128];
};

static void bind_at(struct manager *manager, const char *name, size_t name_length)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	memcpy(address.sun_path, name, name_length);
	manager->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CU_ASSERT_TRUE_FATAL(manager->fd >= 0);
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_length);
	CU_ASSERT_EQUAL_FATAL(bind(manager->fd, (struct sockaddr *)&address, length), 0);
}

static void listen_at_path(struct manager *manager)
{
	strcpy(manager->folder, "/tmp/weir-notify-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(manager->folder));
	snprintf(manager->address, sizeof manager->address, "%s/notify", manager->folder);
	bind_at(manager, manager->address, strlen(manager->address) + 1);
}

static void listen_at_abstract_name(struct manager *manager)
{
	manager->folder[0] = '\0';
	snprintf(manager->address, sizeof manager->address, "@weir-notify-%ld", (long)getpid());
	char name[sizeof manager->address];
	strcpy(name, manager->address);
	name[0] = '\0';
	bind_at(manager, name, strlen(manager->address));
}

static void close_manager(struct manager *manager)
{
	close(manager->fd);
	if (manager->folder[0] == '\0')
		return;
	unlink(manager->address);
	rmdir(manager->folder);
}

/* The next message, or "" when there is none. */
static const char *received(struct manager *manager, char message[1024])
{
	ssize_t length = recv(manager->fd, message, 1023, 0);
	message[length < 0 ? 0 : length] = '\0';
	return message;
}

static struct notifier *notifier_for(struct manager *manager)
{
	struct notifier *notifier;
	CU_ASSERT_EQUAL_FATAL(notifier_create(manager->address, &notifier), NOTIFY_SENT);
	CU_ASSERT_PTR_NOT_NULL_FATAL(notifier);
	return notifier;
}

static void each_verb_is_one_datagram_of_the_protocols_lines(void)
{
	struct manager manager;
	char message[1024];
	listen_at_path(&manager);
	struct notifier *notifier = notifier_for(&manager);
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "");

	CU_ASSERT_EQUAL(notify_ready(notifier, "1 target in"), NOTIFY_SENT);
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "READY=1\nSTATUS=1 target in\n");
	CU_ASSERT_EQUAL(notify_status(notifier, "2 targets in"), NOTIFY_SENT);
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "STATUS=2 targets in\n");
	CU_ASSERT_EQUAL(notify_reloading(notifier, 1234567), NOTIFY_SENT);
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "RELOADING=1\nMONOTONIC_USEC=1234567\n");
	CU_ASSERT_EQUAL(notify_stopping(notifier, "draining", 15000000), NOTIFY_SENT);
	CU_ASSERT_STRING_EQUAL(received(&manager, message),
	                       "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\nSTATUS=draining\n");
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "");
	notifier_destroy(notifier);
	close_manager(&manager);
}

static void an_at_sign_is_a_name_in_the_abstract_namespace(void)
{
	struct manager manager;
	char message[1024];
	listen_at_abstract_name(&manager);
	struct notifier *notifier = notifier_for(&manager);
	CU_ASSERT_EQUAL(notify_ready(notifier, "here"), NOTIFY_SENT);
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "READY=1\nSTATUS=here\n");
	notifier_destroy(notifier);
	close_manager(&manager);
}

static void without_a_manager_nothing_is_sent(void)
{
	struct notifier *notifier = (struct notifier *)&errno;
	CU_ASSERT_EQUAL(notifier_create(NULL, &notifier), NOTIFY_NOBODY);
	CU_ASSERT_PTR_NULL(notifier);
	CU_ASSERT_EQUAL(notifier_create("", &notifier), NOTIFY_NOBODY);
	CU_ASSERT_EQUAL(notify_ready(NULL, "x"), NOTIFY_NOBODY);
	CU_ASSERT_EQUAL(notify_status(NULL, "x"), NOTIFY_NOBODY);
	CU_ASSERT_EQUAL(notify_reloading(NULL, 1), NOTIFY_NOBODY);
	CU_ASSERT_EQUAL(notify_stopping(NULL, "x", 1), NOTIFY_NOBODY);
	notifier_destroy(NULL);
}

static void an_address_that_is_none_is_refused(void)
{
	char longest[109], too_long[110]; /* a path of 107 bytes and its NUL fill sun_path */
	struct notifier *notifier;
	memset(longest, 'x', sizeof longest);
	longest[0] = '/';
	longest[107] = '\0';
	memset(too_long, 'x', sizeof too_long);
	too_long[0] = '/';
	too_long[108] = '\0';
	static const char *const bad[] = { "/", "@", "notify", "run/notify", "vsock:2:1234", "1" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT_EQUAL(notifier_create(bad[i], &notifier), NOTIFY_BAD_ADDRESS);
		CU_ASSERT_PTR_NULL(notifier);
	}
	CU_ASSERT_EQUAL(notifier_create(too_long, &notifier), NOTIFY_BAD_ADDRESS);
	CU_ASSERT_EQUAL(notifier_create(longest, &notifier), NOTIFY_SENT);
	notifier_destroy(notifier);
}

static void a_manager_that_has_gone_is_an_error_and_no_more(void)
{
	struct manager manager;
	listen_at_path(&manager);
	struct notifier *notifier = notifier_for(&manager);
	close_manager(&manager);
	CU_ASSERT_EQUAL(notify_ready(notifier, "x"), NOTIFY_FAILED);
	CU_ASSERT_EQUAL(errno, ENOENT);
	notifier_destroy(notifier);
}

static void a_status_never_waits_for_a_manager_that_does_not_read(void)
{
	struct manager manager;
	listen_at_path(&manager);
	struct notifier *notifier = notifier_for(&manager);
	enum notify_result result = NOTIFY_SENT;
	int sent = 0;
	while (result == NOTIFY_SENT && sent < 100000) /* until the kernel's queue is full: a few hundred */
		if ((result = notify_status(notifier, "x")) == NOTIFY_SENT)
			sent++;
	CU_ASSERT_EQUAL(result, NOTIFY_FAILED);
	CU_ASSERT_TRUE(errno == EAGAIN || errno == ENOBUFS);
	CU_ASSERT_TRUE(sent > 0);
	notifier_destroy(notifier);
	close_manager(&manager);
}

/* A second line in a status would be a second assignment: MAINPID=1, say. */
static void a_status_cannot_begin_another_line(void)
{
	struct manager manager;
	char message[1024], endless[2000];
	listen_at_path(&manager);
	struct notifier *notifier = notifier_for(&manager);
	notify_status(notifier, "bad file\nMAINPID=1\xff");
	CU_ASSERT_STRING_EQUAL(received(&manager, message), "STATUS=bad file?MAINPID=1?\n");

	memset(endless, 'a', sizeof endless);
	endless[sizeof endless - 1] = '\0';
	notify_stopping(notifier, endless, UINT64_MAX);
	received(&manager, message);
	CU_ASSERT_TRUE(strlen(message) < 700 && message[strlen(message) - 1] == '\n');
	CU_ASSERT_PTR_NOT_NULL(strstr(message, "\nEXTEND_TIMEOUT_USEC=18446744073709551615\nSTATUS=aaa"));
	notifier_destroy(notifier);
	close_manager(&manager);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(each_verb_is_one_datagram_of_the_protocols_lines),
		TEST(an_at_sign_is_a_name_in_the_abstract_namespace),
		TEST(without_a_manager_nothing_is_sent),
		TEST(an_address_that_is_none_is_refused),
		TEST(a_manager_that_has_gone_is_an_error_and_no_more),
		TEST(a_status_never_waits_for_a_manager_that_does_not_read),
		TEST(a_status_cannot_begin_another_line),
	};
	return unit_main("notify", tests, sizeof tests / sizeof tests[0]);
}
