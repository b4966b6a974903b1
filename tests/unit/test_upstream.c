/* Tests of lib/upstream.c: which connection a request gets, and which are thrown away. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/listener.h"
#include "lib/upstream.h"
#include "unit.h"

#define LONG_US (60 * US_PER_S)

static struct upstreams *all;
static struct upstream *upstream;
static struct cut cut;
static int listener;
static char buffer[100];
static struct conn conn;

static void begin(void)
{
	char error[200];
	struct address address;
	listener = listener_open("127.0.0.1", 0, false, error, sizeof error);
	CU_ASSERT_TRUE_FATAL(listener >= 0);
	listener_address(listener, &address);
	all = upstreams_create();
	CU_ASSERT_PTR_NOT_NULL_FATAL(all);
	upstream = upstream_create(all, "target:80", &address);
	CU_ASSERT_PTR_NOT_NULL_FATAL(upstream);
	cut_init(&cut);
	conn_init(&conn, -1, buffer, sizeof buffer);
}

static void end(void)
{
	upstream_discard(&conn, &cut);
	upstream_destroy(upstream);
	upstreams_destroy(all);
	cut_destroy(&cut);
	close(listener);
}

static char why[UPSTREAM_WHY_MAX];

static const struct upstream_wish *wish(uint64_t idle_max_us)
{
	static struct upstream_wish it;
	it = (struct upstream_wish){ .idle_max_us = idle_max_us, .connect_timeout_us = US_PER_S };
	return &it;
}

/* A connection: is it one that was idle? */
static bool lease(uint64_t idle_max_us)
{
	bool reused = false;
	CU_ASSERT_EQUAL_FATAL(upstream_lease(upstream, &conn, &cut, wish(idle_max_us), &reused, why), CONN_OK);
	return reused;
}

/* The target's end of the connection made last. */
static int accepted(void)
{
	int fd = accept(listener, NULL, NULL);
	CU_ASSERT_TRUE_FATAL(fd >= 0);
	return fd;
}

static void a_connection_that_was_given_back_is_used_again(void)
{
	begin();
	CU_ASSERT_FALSE(lease(LONG_US));
	int fd = conn.fd;
	upstream_give_back(upstream, &conn, &cut);
	CU_ASSERT_EQUAL(conn.fd, -1);
	CU_ASSERT_TRUE(lease(LONG_US));
	CU_ASSERT_EQUAL(conn.fd, fd);
	end();
}

static void the_one_used_last_is_used_first(void)
{
	struct conn other;
	char other_buffer[10];
	bool reused;
	begin();
	conn_init(&other, -1, other_buffer, sizeof other_buffer);
	lease(LONG_US);
	CU_ASSERT_EQUAL_FATAL(upstream_lease(upstream, &other, &cut, wish(LONG_US), &reused, why), CONN_OK);
	int last = conn.fd;
	upstream_give_back(upstream, &other, &cut);
	upstream_give_back(upstream, &conn, &cut);
	CU_ASSERT_TRUE(lease(LONG_US));
	CU_ASSERT_EQUAL(conn.fd, last);
	end();
}

static void a_fresh_one_is_fresh(void)
{
	begin();
	lease(0);
	upstream_give_back(upstream, &conn, &cut);
	CU_ASSERT_FALSE(lease(0));
	end();
}

static void one_that_the_target_closed_or_spoke_on_is_thrown_away(void)
{
	for (int speaks = 0; speaks < 2; speaks++) {
		begin();
		lease(LONG_US);
		int peer = accepted();
		upstream_give_back(upstream, &conn, &cut);
		bool done = speaks ? send(peer, "x", 1, MSG_NOSIGNAL) == 1 : shutdown(peer, SHUT_WR) == 0;
		CU_ASSERT_TRUE(done);
		CU_ASSERT_FALSE(lease(LONG_US));
		close(peer);
		end();
	}
}

static void reaping_closes_what_is_closed_or_old_and_keeps_the_rest(void)
{
	begin();
	lease(LONG_US);
	int peer = accepted();
	upstream_give_back(upstream, &conn, &cut);
	upstreams_reap(all, LONG_US);
	CU_ASSERT_TRUE(lease(LONG_US));
	upstream_give_back(upstream, &conn, &cut);
	shutdown(peer, SHUT_WR);
	upstreams_reap(all, LONG_US);
	char byte;
	CU_ASSERT_EQUAL(recv(peer, &byte, 1, 0), 0); /* it was closed here */
	close(peer);
	end();
}

static void a_target_that_goes_closes_what_is_idle(void)
{
	char byte;
	begin();
	lease(LONG_US);
	int peer = accepted();
	upstream_give_back(upstream, &conn, &cut);
	end();
	CU_ASSERT_EQUAL(recv(peer, &byte, 1, 0), 0);
	close(peer);
}

static void a_name_without_an_address_cannot_be_reached(void)
{
	bool reused;
	begin();
	struct upstream *nowhere = upstream_create(all, "nowhere.example:80", NULL);
	CU_ASSERT_EQUAL(upstream_lease(nowhere, &conn, &cut, wish(LONG_US), &reused, why), CONN_BROKEN);
	CU_ASSERT_EQUAL(errno, EHOSTUNREACH);
	CU_ASSERT_EQUAL(conn.fd, -1);
	CU_ASSERT_STRING_EQUAL(upstream_address(nowhere), "nowhere.example:80");
	upstream_destroy(nowhere);
	end();
}

static void a_refusal_says_so_and_leaves_no_descriptor(void)
{
	bool reused;
	begin();
	listener_retire(listener);
	CU_ASSERT_EQUAL(upstream_lease(upstream, &conn, &cut, wish(LONG_US), &reused, why), CONN_BROKEN);
	CU_ASSERT_EQUAL(errno, ECONNREFUSED);
	CU_ASSERT_STRING_EQUAL(why, strerror(ECONNREFUSED));
	CU_ASSERT_EQUAL(conn.fd, -1);
	end();
}

static void a_unix_target_has_a_host_that_servers_accept(void)
{
	struct address address;
	begin();
	CU_ASSERT_TRUE(address_unix("/run/app", &address));
	struct upstream *local = upstream_create(all, "unix:/run/app", &address);
	CU_ASSERT_STRING_EQUAL(upstream_host(local), "localhost");
	CU_ASSERT_STRING_EQUAL(upstream_address(local), "unix:/run/app");
	CU_ASSERT_STRING_EQUAL(upstream_host(upstream), "target:80");
	upstream_destroy(local);
	end();
}

static void a_connection_with_a_preface_is_fresh_and_begins_with_it(void)
{
	char got[16];
	bool reused;
	begin();
	struct upstream_wish with_preface = *wish(LONG_US);
	with_preface.preface = "preface";
	with_preface.preface_bytes = 7;
	CU_ASSERT_FALSE(lease(LONG_US));
	int first = accepted();
	upstream_give_back(upstream, &conn, &cut);
	CU_ASSERT_EQUAL_FATAL(upstream_lease(upstream, &conn, &cut, &with_preface, &reused, why), CONN_OK);
	int second = accepted(); /* the idle one was not taken */
	CU_ASSERT_EQUAL(recv(second, got, sizeof got, 0), 7);
	CU_ASSERT_EQUAL(memcmp(got, "preface", 7), 0);
	CU_ASSERT_EQUAL(recv(first, got, sizeof got, MSG_DONTWAIT), -1);
	close(first);
	close(second);
	end();
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_connection_that_was_given_back_is_used_again),
		TEST(the_one_used_last_is_used_first),
		TEST(a_fresh_one_is_fresh),
		TEST(one_that_the_target_closed_or_spoke_on_is_thrown_away),
		TEST(reaping_closes_what_is_closed_or_old_and_keeps_the_rest),
		TEST(a_target_that_goes_closes_what_is_idle),
		TEST(a_name_without_an_address_cannot_be_reached),
		TEST(a_refusal_says_so_and_leaves_no_descriptor),
		TEST(a_connection_with_a_preface_is_fresh_and_begins_with_it),
		TEST(a_unix_target_has_a_host_that_servers_accept),
	};
	return unit_main("upstream", tests, sizeof tests / sizeof tests[0]);
}
