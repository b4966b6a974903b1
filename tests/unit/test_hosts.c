/* test_hosts.c: places of each host, idle connections, and the line of those that wait.
 *
 * Idle connections are socket pairs: the test holds the other side and can make it speak or close. Threads that wait in line are real;
 * the test knows that they wait when the report says so.
 */
#include "lib/hosts.h"

#include "lib/clock.h"
#include "lib/thread.h"
#include "unit.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_US (20 * US_PER_S)

static struct hosts *make(unsigned cap)
{
	struct hosts_settings settings = { .default_cap = cap };
	struct hosts *hosts = hosts_create(&settings, NULL, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(hosts);
	return hosts;
}

static struct hosts_wish wish_for(const char *name, unsigned port)
{
	return (struct hosts_wish){ .name = name, .port = port, .idle_max_us = LONG_US, .now_us = clock_us(), .client_fd = -1 };
}

static enum hosts_answer lease(struct hosts *hosts, const char *name, unsigned port, struct hosts_lease *out)
{
	struct hosts_wish wish = wish_for(name, port);
	return hosts_lease(hosts, &wish, out);
}

static struct hosts_totals totals_of(struct hosts *hosts)
{
	struct hosts_totals totals;
	hosts_report(hosts, NULL, 0, &totals);
	return totals;
}

/* An idle connection: its other side in *other. */
static void keep_one(struct hosts *hosts, const char *name, unsigned port, int *other)
{
	struct hosts_lease held;
	int pair[2];
	struct hosts_wish wish = wish_for(name, port);
	wish.idle_max_us = 0;
	CU_ASSERT_EQUAL_FATAL(hosts_lease(hosts, &wish, &held), HOSTS_PLACE);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	hosts_keep(hosts, &held, pair[0], clock_us());
	*other = pair[1];
}

static bool was_closed(int other)
{
	char byte;
	return recv(other, &byte, 1, MSG_DONTWAIT) == 0;
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

static void every_spelling_of_a_host_has_one_name(void)
{
	static const struct {
		const char *host;
		unsigned port;
		const char *name;
	} cases[] = {
		{ "example.com", 80, "example.com" },       { "EXAMPLE.Com.", 443, "example.com" },
		{ "example.com", 8443, "example.com:8443" }, { "127.0.0.1", 80, "127.0.0.1" },
		{ "127.1", 80, "127.0.0.1" },               { "0x7f000001", 443, "127.0.0.1" },
		{ "2130706433", 81, "127.0.0.1:81" },       { "::1", 80, "[::1]" },
		{ "[::1]", 8080, "[::1]:8080" },            { "[0:0::0:1]", 80, "[::1]" },
		{ "[2001:DB8::A]", 443, "[2001:db8::a]" },  { "::ffff:127.0.0.1", 80, "127.0.0.1" },
		{ "[::FFFF:7f00:1]", 82, "127.0.0.1:82" },  { "a_b-c.example", 80, "a_b-c.example" },
	};
	char name[HOSTS_NAME_MAX];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		CU_ASSERT_TRUE(hosts_name(cases[i].host, strlen(cases[i].host), cases[i].port, name));
		CU_ASSERT_STRING_EQUAL(name, cases[i].name);
	}
}

static void what_is_no_host_has_no_name(void)
{
	static const char *const bad[] = { "", ".", "a..b", "a..", ".a", "a b", "a/b", "[::1", "::1]", "[]", "a:b", "ex\x01",
		                           "[127.0.0.1]", "%31", "[2001:db8::100000000000000000000000000000000000]",
		                           "2001:db8::1000000000000000000000000000000000000" };
	char name[HOSTS_NAME_MAX], longest[300];
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_FALSE(hosts_name(bad[i], strlen(bad[i]), 80, name));
	memset(longest, 'a', sizeof longest);
	CU_ASSERT_TRUE(hosts_name(longest, 253, 65535, name));
	CU_ASSERT_FALSE(hosts_name(longest, 254, 80, name));
	CU_ASSERT_FALSE(hosts_name("a", 1, 0, name));
	CU_ASSERT_FALSE(hosts_name("a", 1, 65536, name));
	CU_ASSERT_FALSE(hosts_name("a\0b", 3, 80, name));
	CU_ASSERT_FALSE(hosts_name("::1\0", 4, 80, name));
	CU_ASSERT_FALSE(hosts_name("[::1\0]", 6, 80, name));
}

/* ---- places --------------------------------------------------------------------------------------------------------- */

static void places_up_to_the_cap_are_given_and_no_more(void)
{
	struct hosts *hosts = make(2);
	struct hosts_lease held[3];
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held[0]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(held[0].count, 1);
	CU_ASSERT_EQUAL(held[0].limit, 2);
	CU_ASSERT_EQUAL(lease(hosts, "a", 443, &held[1]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held[2]), HOSTS_FULL);
	CU_ASSERT_EQUAL(held[2].limit, 2);
	CU_ASSERT_EQUAL(held[2].count, 2);
	CU_ASSERT_PTR_NULL(held[2].host);
	hosts_end(hosts, &held[2]); /* nothing is held: nothing happens */
	CU_ASSERT_EQUAL(totals_of(hosts).open, 2);
	hosts_end(hosts, &held[0]);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held[0]), HOSTS_PLACE);
	hosts_end(hosts, &held[0]);
	hosts_end(hosts, &held[1]);
	hosts_destroy(hosts);
}

static void hosts_are_counted_apart(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held[3];
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held[0]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(lease(hosts, "b", 80, &held[1]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(lease(hosts, "a:8080", 8080, &held[2]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(totals_of(hosts).hosts, 3);
	for (size_t i = 0; i < 3; i++)
		hosts_end(hosts, &held[i]);
	hosts_destroy(hosts);
}

static void a_cap_of_nought_is_no_cap(void)
{
	struct hosts *hosts = make(0);
	struct hosts_lease held[100];
	for (size_t i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held[i]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(held[99].count, 100);
	CU_ASSERT_EQUAL(held[99].limit, 0);
	for (size_t i = 0; i < 100; i++)
		hosts_end(hosts, &held[i]);
	hosts_destroy(hosts);
}

static void a_host_with_nothing_open_has_no_entry(void)
{
	struct hosts *hosts = make(1);
	for (unsigned i = 0; i < 10000; i++) {
		char name[32];
		struct hosts_lease held, refused;
		snprintf(name, sizeof name, "host%u", i);
		CU_ASSERT_EQUAL(lease(hosts, name, 80, &held), HOSTS_PLACE);
		CU_ASSERT_EQUAL(lease(hosts, name, 80, &refused), HOSTS_FULL);
		CU_ASSERT_EQUAL(totals_of(hosts).hosts, 1);
		hosts_end(hosts, &held);
	}
	CU_ASSERT_EQUAL(totals_of(hosts).hosts, 0);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 0);
	hosts_destroy(hosts);
}

struct seen {
	char text[512];
};

static void note_change(void *context, const char *host, bool was_opened, unsigned count, unsigned limit)
{
	struct seen *seen = context;
	size_t end = strlen(seen->text);
	snprintf(seen->text + end, sizeof seen->text - end, "%s%s %u/%u;", was_opened ? "+" : "-", host, count, limit);
}

static void every_open_and_close_is_told(void)
{
	struct seen seen = { "" };
	struct hosts_settings settings = { .default_cap = 2 };
	struct hosts_watch watch = { note_change, &seen };
	struct hosts *hosts = hosts_create(&settings, NULL, &watch);
	struct hosts_lease one, two;
	CU_ASSERT_PTR_NOT_NULL_FATAL(hosts);
	lease(hosts, "a", 80, &one);
	lease(hosts, "a", 80, &two);
	hosts_end(hosts, &one);
	hosts_end(hosts, &two);
	CU_ASSERT_STRING_EQUAL(seen.text, "+a 1/2;+a 2/2;-a 1/2;-a 0/2;");
	hosts_destroy(hosts);
}

/* ---- idle connections ------------------------------------------------------------------------------------------------ */

static void the_idle_connection_used_last_is_leased_first_for_its_port_only(void)
{
	struct hosts *hosts = make(0);
	struct hosts_lease held;
	int other[3];
	keep_one(hosts, "a", 80, &other[0]);
	keep_one(hosts, "a", 80, &other[1]);
	keep_one(hosts, "a", 443, &other[2]);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_IDLE);
	CU_ASSERT_EQUAL(send(held.fd, "x", 1, 0), 1);
	char byte;
	CU_ASSERT_EQUAL(recv(other[1], &byte, 1, MSG_DONTWAIT), 1);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 3);
	close(held.fd);
	hosts_end(hosts, &held);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 2);
	hosts_destroy(hosts);
	for (size_t i = 0; i < 3; i++)
		close(other[i]);
}

static void an_idle_connection_that_spoke_or_closed_is_not_leased_and_its_place_is(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held;
	int other;
	keep_one(hosts, "a", 80, &other);
	CU_ASSERT_EQUAL(send(other, "x", 1, 0), 1);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	CU_ASSERT_EQUAL(held.fd, -1);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 1);
	hosts_end(hosts, &held);
	close(other);
	keep_one(hosts, "a", 80, &other);
	close(other);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	hosts_end(hosts, &held);
	CU_ASSERT_EQUAL(totals_of(hosts).hosts, 0);
	hosts_destroy(hosts);
}

static void an_idle_connection_counts_and_gives_its_place_up_when_it_is_needed(void)
{
	struct hosts *hosts = make(2);
	struct hosts_lease held, second, third;
	int other[2];
	keep_one(hosts, "a", 80, &other[0]);
	keep_one(hosts, "a", 80, &other[1]);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 2);
	CU_ASSERT_EQUAL(lease(hosts, "a", 443, &held), HOSTS_PLACE);
	CU_ASSERT_TRUE(was_closed(other[0])); /* the oldest */
	CU_ASSERT_FALSE(was_closed(other[1]));
	struct hosts_wish fresh = wish_for("a", 80);
	fresh.idle_max_us = 0; /* a tunnel can't use an idle one, and takes its place too */
	CU_ASSERT_EQUAL(hosts_lease(hosts, &fresh, &second), HOSTS_PLACE);
	CU_ASSERT_TRUE(was_closed(other[1]));
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &third), HOSTS_FULL);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 2);
	hosts_end(hosts, &held);
	hosts_end(hosts, &second);
	hosts_destroy(hosts);
	close(other[0]);
	close(other[1]);
}

static void idle_connections_that_are_old_or_closed_are_reaped(void)
{
	struct hosts *hosts = make(0);
	struct hosts_lease held;
	int other[3];
	uint64_t now_us = clock_us();
	for (size_t i = 0; i < 3; i++)
		keep_one(hosts, "a", 80, &other[i]);
	close(other[1]);
	hosts_reap(hosts, LONG_US, now_us);
	CU_ASSERT_EQUAL(totals_of(hosts).idle, 2);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 2);
	struct hosts_wish wish = wish_for("a", 80);
	wish.now_us = now_us + 3 * LONG_US;
	wish.idle_max_us = LONG_US;
	CU_ASSERT_EQUAL(hosts_lease(hosts, &wish, &held), HOSTS_PLACE); /* too old to be used */
	hosts_end(hosts, &held);
	hosts_reap(hosts, LONG_US, now_us + 3 * LONG_US);
	CU_ASSERT_EQUAL(totals_of(hosts).hosts, 0);
	CU_ASSERT_TRUE(was_closed(other[0]));
	CU_ASSERT_TRUE(was_closed(other[2]));
	hosts_destroy(hosts);
	close(other[0]);
	close(other[2]);
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

struct waiting {
	struct hosts *hosts;
	struct hosts_wish wish;
	struct hosts_lease lease;
	enum hosts_answer answer;
	unsigned order; /* the how manieth to be served */
	atomic_uint *served;
	pthread_t thread;
};

static void *wait_body(void *argument)
{
	struct waiting *w = argument;
	w->answer = hosts_lease(w->hosts, &w->wish, &w->lease);
	w->order = atomic_fetch_add(w->served, 1);
	return NULL;
}

/* Starts one that waits, and returns when it stands in line. */
static void start_waiting(struct waiting *w, struct hosts *hosts, unsigned port, int client_fd, atomic_uint *served)
{
	unsigned before = totals_of(hosts).waiting;
	w->hosts = hosts;
	w->wish = wish_for("a", port);
	w->wish.wait_until_us = clock_us() + LONG_US;
	w->wish.client_fd = client_fd;
	w->served = served;
	CU_ASSERT_EQUAL_FATAL(thread_start(&w->thread, wait_body, w), 0);
	while (totals_of(hosts).waiting == before)
		sched_yield();
}

static void those_that_wait_are_served_in_the_order_in_which_they_came(void)
{
	enum { COUNT = 20 };
	struct hosts *hosts = make(1);
	struct hosts_lease held;
	struct waiting waiting[COUNT];
	atomic_uint served = 0;
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	for (size_t i = 0; i < COUNT; i++)
		start_waiting(&waiting[i], hosts, 80, -1, &served);
	struct hosts_lease hasty;
	hosts_end(hosts, &held);
	for (size_t i = 0; i < COUNT; i++) {
		pthread_join(waiting[i].thread, NULL);
		CU_ASSERT_EQUAL(waiting[i].answer, HOSTS_PLACE);
		CU_ASSERT_EQUAL(waiting[i].order, i);
		CU_ASSERT_EQUAL(lease(hosts, "a", 80, &hasty), HOSTS_FULL); /* nobody passes those that wait */
		CU_ASSERT_EQUAL(totals_of(hosts).open, 1);
		hosts_end(hosts, &waiting[i].lease);
	}
	CU_ASSERT_EQUAL(totals_of(hosts).hosts, 0);
	hosts_destroy(hosts);
}

static void a_connection_that_is_kept_goes_to_the_first_that_waits(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held;
	struct waiting same_port, other_port;
	atomic_uint served = 0;
	int pair[2];
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	start_waiting(&same_port, hosts, 80, -1, &served);
	start_waiting(&other_port, hosts, 443, -1, &served);
	hosts_keep(hosts, &held, pair[0], clock_us());
	pthread_join(same_port.thread, NULL);
	CU_ASSERT_EQUAL(same_port.answer, HOSTS_IDLE);
	CU_ASSERT_EQUAL(same_port.lease.fd, pair[0]);
	CU_ASSERT_FALSE(was_closed(pair[1]));
	hosts_keep(hosts, &same_port.lease, pair[0], clock_us());
	pthread_join(other_port.thread, NULL);
	CU_ASSERT_EQUAL(other_port.answer, HOSTS_PLACE); /* of no use to it: closed, and the place handed over */
	CU_ASSERT_TRUE(was_closed(pair[1]));
	hosts_end(hosts, &other_port.lease);
	close(pair[1]);
	hosts_destroy(hosts);
}

static void one_that_hangs_up_while_it_waits_gives_its_place_in_line_up(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held;
	struct waiting gone, next;
	atomic_uint served = 0;
	int client[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, client), 0);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	start_waiting(&gone, hosts, 80, client[0], &served);
	start_waiting(&next, hosts, 80, -1, &served);
	close(client[1]);
	pthread_join(gone.thread, NULL);
	CU_ASSERT_EQUAL(gone.answer, HOSTS_CLIENT_GONE);
	hosts_end(hosts, &held);
	pthread_join(next.thread, NULL);
	CU_ASSERT_EQUAL(next.answer, HOSTS_PLACE);
	hosts_end(hosts, &next.lease);
	CU_ASSERT_EQUAL(totals_of(hosts).hosts, 0);
	close(client[0]);
	hosts_destroy(hosts);
}

static bool says_it_is_there(void *context)
{
	atomic_fetch_add((atomic_uint *)context, 1);
	return false;
}

static void a_client_that_has_finished_sending_may_go_on_waiting(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held;
	struct waiting stays;
	atomic_uint served = 0, asked = 0;
	int client[2];
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, client), 0);
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	stays.hosts = hosts;
	stays.wish = wish_for("a", 80);
	stays.wish.wait_until_us = clock_us() + LONG_US;
	stays.wish.client_fd = client[0];
	stays.wish.client_is_gone = says_it_is_there;
	stays.wish.context = &asked;
	stays.served = &served;
	shutdown(client[1], SHUT_WR);
	CU_ASSERT_EQUAL_FATAL(thread_start(&stays.thread, wait_body, &stays), 0);
	while (atomic_load(&asked) == 0)
		sched_yield();
	hosts_end(hosts, &held);
	pthread_join(stays.thread, NULL);
	CU_ASSERT_EQUAL(stays.answer, HOSTS_PLACE);
	CU_ASSERT_EQUAL(atomic_load(&asked), 1);
	hosts_end(hosts, &stays.lease);
	close(client[0]);
	close(client[1]);
	hosts_destroy(hosts);
}

static void a_client_that_has_finished_sending_is_gone_when_nothing_of_it_is_left_to_read(void)
{
	for (size_t unread = 0; unread <= 1; unread++) {
		struct hosts *hosts = make(1);
		struct hosts_lease held, late;
		int client[2];
		CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, client), 0);
		CU_ASSERT_EQUAL_FATAL(write(client[1], "next", unread), (ssize_t)unread);
		shutdown(client[1], SHUT_WR);
		CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
		struct hosts_wish wish = wish_for("a", 80);
		wish.wait_until_us = wish.now_us + (unread > 0 ? 20 * US_PER_MS : LONG_US);
		wish.client_fd = client[0];
		CU_ASSERT_EQUAL(hosts_lease(hosts, &wish, &late), unread > 0 ? HOSTS_FULL : HOSTS_CLIENT_GONE);
		CU_ASSERT_EQUAL(totals_of(hosts).waiting, 0);
		hosts_end(hosts, &held);
		close(client[0]);
		close(client[1]);
		hosts_destroy(hosts);
	}
}

static void a_wait_ends_at_its_time(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held, late;
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	struct hosts_wish wish = wish_for("a", 80);
	wish.wait_until_us = wish.now_us + 20 * US_PER_MS;
	CU_ASSERT_EQUAL(hosts_lease(hosts, &wish, &late), HOSTS_FULL);
	CU_ASSERT_TRUE(clock_us() >= wish.wait_until_us);
	CU_ASSERT_EQUAL(totals_of(hosts).waiting, 0);
	CU_ASSERT_EQUAL(totals_of(hosts).refused_total, 1);
	hosts_end(hosts, &held);
	hosts_destroy(hosts);
}

/* ---- limits that change ---------------------------------------------------------------------------------------------- */

static void a_raised_cap_lets_in_those_that_wait(void)
{
	struct hosts *hosts = make(1);
	struct hosts_lease held;
	struct waiting waiting[3];
	atomic_uint served = 0;
	CU_ASSERT_EQUAL(lease(hosts, "a", 80, &held), HOSTS_PLACE);
	for (size_t i = 0; i < 3; i++)
		start_waiting(&waiting[i], hosts, 80, -1, &served);
	CU_ASSERT_EQUAL(hosts_set_cap(hosts, "a", 3), 0);
	pthread_join(waiting[0].thread, NULL);
	pthread_join(waiting[1].thread, NULL);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 3);
	CU_ASSERT_EQUAL(totals_of(hosts).waiting, 1);
	CU_ASSERT_EQUAL(hosts_set_default_cap(hosts, 0), 0); /* not this host's */
	CU_ASSERT_EQUAL(totals_of(hosts).waiting, 1);
	CU_ASSERT_EQUAL(hosts_remove_cap(hosts, "a"), 0);
	pthread_join(waiting[2].thread, NULL);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 4);
	hosts_end(hosts, &held);
	for (size_t i = 0; i < 3; i++)
		hosts_end(hosts, &waiting[i].lease);
	hosts_destroy(hosts);
}

static void a_lowered_cap_closes_idle_connections_and_hands_no_place_on(void)
{
	struct hosts *hosts = make(4);
	struct hosts_lease held[2];
	struct waiting waiting;
	atomic_uint served = 0;
	int other[2];
	keep_one(hosts, "a", 80, &other[0]);
	keep_one(hosts, "a", 80, &other[1]);
	struct hosts_wish fresh = wish_for("a", 80);
	fresh.idle_max_us = 0;
	for (size_t i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(hosts_lease(hosts, &fresh, &held[i]), HOSTS_PLACE);
	CU_ASSERT_EQUAL(hosts_set_default_cap(hosts, 1), 0);
	CU_ASSERT_TRUE(was_closed(other[0]));
	CU_ASSERT_TRUE(was_closed(other[1]));
	CU_ASSERT_EQUAL(totals_of(hosts).open, 2); /* in use: they end in their own time */
	start_waiting(&waiting, hosts, 80, -1, &served);
	hosts_end(hosts, &held[0]);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 1);
	CU_ASSERT_EQUAL(totals_of(hosts).waiting, 1);
	hosts_end(hosts, &held[1]);
	pthread_join(waiting.thread, NULL);
	CU_ASSERT_EQUAL(waiting.answer, HOSTS_PLACE);
	CU_ASSERT_EQUAL(totals_of(hosts).open, 1);
	hosts_end(hosts, &waiting.lease);
	hosts_destroy(hosts);
	close(other[0]);
	close(other[1]);
}

static void overrides_are_found_changed_and_listed(void)
{
	struct host_limit items[] = { { "b:8080", 7 }, { "a", 0 }, { "c", 3 } };
	struct host_limits limits = { items, 3 }, copy;
	struct hosts_settings settings = { .default_cap = 5, .limits = &limits };
	struct hosts *hosts = hosts_create(&settings, NULL, NULL);
	unsigned default_cap = 0;
	CU_ASSERT_PTR_NOT_NULL_FATAL(hosts);
	CU_ASSERT_EQUAL(hosts_cap(hosts, "a"), 0);
	CU_ASSERT_EQUAL(hosts_cap(hosts, "b"), 5);
	CU_ASSERT_EQUAL(hosts_cap(hosts, "b:8080"), 7);
	CU_ASSERT_EQUAL(hosts_set_cap(hosts, "aa", 9), 0);
	CU_ASSERT_EQUAL(hosts_set_cap(hosts, "c", 4), 0);
	CU_ASSERT_EQUAL(hosts_remove_cap(hosts, "a"), 0);
	CU_ASSERT_EQUAL(hosts_remove_cap(hosts, "no-such"), 0);
	CU_ASSERT_EQUAL(hosts_limits(hosts, &default_cap, &copy), 0);
	CU_ASSERT_EQUAL(default_cap, 5);
	CU_ASSERT_EQUAL_FATAL(copy.count, 3);
	CU_ASSERT_STRING_EQUAL(copy.items[0].name, "aa");
	CU_ASSERT_STRING_EQUAL(copy.items[2].name, "c");
	CU_ASSERT_EQUAL(copy.items[2].cap, 4);
	host_limits_free(&copy);
	settings.limits = NULL;
	CU_ASSERT_EQUAL(hosts_configure(hosts, &settings), 0);
	CU_ASSERT_EQUAL(hosts_cap(hosts, "c"), 5);
	hosts_destroy(hosts);
}

/* ---- many threads ----------------------------------------------------------------------------------------------------- */

struct crowd {
	struct hosts *hosts;
	atomic_uint open, most, served;
	unsigned cap, seed;
};

static void *crowd_body(void *argument)
{
	struct crowd *crowd = argument;
	unsigned seed = atomic_fetch_add(&crowd->served, 1);
	for (unsigned i = 0; i < 300; i++) {
		struct hosts_lease held;
		struct hosts_wish wish = wish_for("a", rand_r(&seed) % 2 ? 80 : 443);
		wish.idle_max_us = rand_r(&seed) % 3 == 0 ? 0 : LONG_US;
		wish.wait_until_us = rand_r(&seed) % 2 ? wish.now_us + LONG_US : rand_r(&seed) % 2 ? wish.now_us + 300 : 0;
		enum hosts_answer answer = hosts_lease(crowd->hosts, &wish, &held);
		if (answer != HOSTS_IDLE && answer != HOSTS_PLACE)
			continue;
		unsigned open = atomic_fetch_add(&crowd->open, 1) + 1, most = atomic_load(&crowd->most);
		while (open > most && !atomic_compare_exchange_weak(&crowd->most, &most, open))
			;
		int pair[2] = { held.fd, -1 };
		if (answer == HOSTS_PLACE && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0)
			shutdown(pair[0], rand_r(&seed) % 4 == 0 ? SHUT_RDWR : SHUT_WR); /* some are not quiet when leased again */
		sched_yield();
		atomic_fetch_sub(&crowd->open, 1);
		if (pair[0] >= 0 && rand_r(&seed) % 2) {
			hosts_keep(crowd->hosts, &held, pair[0], clock_us());
		} else {
			if (pair[0] >= 0)
				close(pair[0]);
			hosts_end(crowd->hosts, &held);
		}
		if (pair[1] >= 0)
			close(pair[1]);
	}
	return NULL;
}

static void a_crowd_never_passes_the_cap_and_leaves_nothing_behind(void)
{
	struct crowd crowd = { .hosts = make(3) };
	pthread_t threads[16];
	for (size_t i = 0; i < 16; i++)
		CU_ASSERT_EQUAL_FATAL(thread_start(&threads[i], crowd_body, &crowd), 0);
	for (size_t i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_TRUE(atomic_load(&crowd.most) <= 3);
	CU_ASSERT_TRUE(atomic_load(&crowd.most) >= 2);
	CU_ASSERT_TRUE(totals_of(crowd.hosts).open == totals_of(crowd.hosts).idle);
	CU_ASSERT_EQUAL(totals_of(crowd.hosts).waiting, 0);
	hosts_close_idle(crowd.hosts);
	CU_ASSERT_EQUAL(totals_of(crowd.hosts).hosts, 0);
	hosts_destroy(crowd.hosts);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(every_spelling_of_a_host_has_one_name),
		TEST(what_is_no_host_has_no_name),
		TEST(places_up_to_the_cap_are_given_and_no_more),
		TEST(hosts_are_counted_apart),
		TEST(a_cap_of_nought_is_no_cap),
		TEST(a_host_with_nothing_open_has_no_entry),
		TEST(every_open_and_close_is_told),
		TEST(the_idle_connection_used_last_is_leased_first_for_its_port_only),
		TEST(an_idle_connection_that_spoke_or_closed_is_not_leased_and_its_place_is),
		TEST(an_idle_connection_counts_and_gives_its_place_up_when_it_is_needed),
		TEST(idle_connections_that_are_old_or_closed_are_reaped),
		TEST(those_that_wait_are_served_in_the_order_in_which_they_came),
		TEST(a_connection_that_is_kept_goes_to_the_first_that_waits),
		TEST(one_that_hangs_up_while_it_waits_gives_its_place_in_line_up),
		TEST(a_client_that_has_finished_sending_may_go_on_waiting),
		TEST(a_client_that_has_finished_sending_is_gone_when_nothing_of_it_is_left_to_read),
		TEST(a_wait_ends_at_its_time),
		TEST(a_raised_cap_lets_in_those_that_wait),
		TEST(a_lowered_cap_closes_idle_connections_and_hands_no_place_on),
		TEST(overrides_are_found_changed_and_listed),
		TEST(a_crowd_never_passes_the_cap_and_leaves_nothing_behind),
	};
	return unit_main("hosts", tests, sizeof tests / sizeof tests[0]);
}
