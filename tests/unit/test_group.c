/* test_group.c: services of one process in groups: real sockets on the loopback interface, real threads, real limiters.
 *
 * What the protocol promises is shown elsewhere (tests/sim); here it is whether the parts are joined up: a line that
 * grows is heard of, starts that are given arrive, and whoever has no master is not kept for ever.
 */
#include "group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "unit.h"

#define SOON_US (30 * US_PER_S)
#define PATIENCE_US (100 * US_PER_MS)

/* A service, as far as its group is concerned. */
struct node {
	struct log *log;
	struct limiter *limiter;
	struct group *group;
	struct settings settings;
	char address[64];
};

static void wake_nobody(struct limiter_ticket *ticket)
{
	(void)ticket;
}

static unsigned free_port(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	socklen_t length = sizeof any;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&any, sizeof any), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(fd, (struct sockaddr *)&any, &length), 0);
	close(fd);
	return ntohs(any.sin_port);
}

static void say_group(struct node *n, unsigned id, unsigned port)
{
	snprintf(n->address, sizeof n->address, "127.255.255.255:%u", port);
	n->settings.id = id;
	n->settings.unicast = n->settings.group_address = n->address;
}

/* port 0: in no group. */
static void begin(struct node *n, unsigned id, unsigned port, unsigned backlog)
{
	char error[256] = "";
	struct log_options quiet = { .path = "/dev/null", .level = LOG_LEVEL_ERROR };
	memset(n, 0, sizeof *n);
	n->settings.threshold = (struct settings_rate){ 50, US_PER_S };
	if (port != 0)
		say_group(n, id, port);
	struct limiter_options limits = { .threshold = 50,
		                          .window_us = US_PER_S,
		                          .backlog = backlog,
		                          .slots_are_given = group_gives_slots(&n->settings) };
	n->log = log_create(&quiet, error, sizeof error);
	n->limiter = limiter_create(&limits, wake_nobody);
	CU_ASSERT_PTR_NOT_NULL_FATAL(n->log);
	n->group = group_create("test", n->log, n->limiter);
	CU_ASSERT_PTR_NOT_NULL_FATAL(n->group);
	CU_ASSERT_TRUE_FATAL(group_configure(n->group, &n->settings, error, sizeof error));
	CU_ASSERT_TRUE_FATAL(group_start(n->group, &n->settings, error, sizeof error));
}

static void end(struct node *n)
{
	group_destroy(n->group);
	limiter_destroy(n->limiter);
	log_destroy(n->log);
}

/* Waits until a node sees this many alive, itself included, and this master. */
static bool sees(struct node *n, unsigned alive, unsigned master)
{
	struct group_report report;
	uint64_t deadline_us = clock_us() + SOON_US;
	do {
		unsigned count = 0;
		group_report(n->group, &report);
		for (unsigned i = 0; i < report.cluster.node_count; i++)
			count += report.cluster.nodes[i].state == CLUSTER_ALIVE;
		if (report.is_member && count == alive && report.cluster.master == master)
			return true;
		usleep(1000);
	} while (clock_us() < deadline_us);
	return false;
}

/* Stands in line until there is an answer, as line.c does, but for the sleep. */
static enum limiter_answer ask(struct node *n, struct limiter_ticket *ticket)
{
	uint64_t deadline_us = clock_us() + SOON_US, wake_us;
	memset(ticket, 0, sizeof *ticket);
	enum limiter_answer answer = limiter_enter(n->limiter, ticket, 1, clock_us());
	group_kick(n->group);
	while (answer == LIMITER_WAIT && clock_us() < deadline_us) {
		usleep(200);
		answer = limiter_turn(n->limiter, ticket, clock_us(), &wake_us);
	}
	return answer;
}

static void start_one(struct node *n)
{
	struct limiter_ticket ticket;
	CU_ASSERT_EQUAL(ask(n, &ticket), LIMITER_GO);
	limiter_started(n->limiter, &ticket, clock_us());
}

static void a_service_of_no_group_has_nothing_to_report(void)
{
	struct node alone;
	struct group_report report;
	begin(&alone, 0, 0, 10);
	CU_ASSERT_FALSE(group_gives_slots(&alone.settings));
	group_kick(alone.group);
	group_kick(NULL);
	group_report(alone.group, &report);
	CU_ASSERT_FALSE(report.is_member);
	start_one(&alone);
	end(&alone);
}

static void nodes_of_one_process_meet_and_start_with_what_the_master_gives(void)
{
	struct node nodes[3];
	struct limiter_report report;
	unsigned port = free_port();
	for (unsigned i = 0; i < 3; i++)
		begin(&nodes[i], i + 5, port, 100);
	for (unsigned i = 0; i < 3; i++)
		CU_ASSERT_TRUE(sees(&nodes[i], 3, 5));
	for (unsigned i = 0; i < 3; i++) {
		start_one(&nodes[i]);
		limiter_report(nodes[i].limiter, clock_us(), &report);
		CU_ASSERT_EQUAL(report.used_total, 1);
	}
	group_leave(nodes[0].group); /* the others hear of it */
	for (unsigned i = 1; i < 3; i++)
		CU_ASSERT_TRUE(sees(&nodes[i], 2, 6));
	start_one(&nodes[2]);
	for (unsigned i = 0; i < 3; i++)
		end(&nodes[i]);
}

static void nobody_waits_beyond_the_backlog_for_a_master_that_is_not_there(void)
{
	struct node node;
	struct limiter_ticket ticket;
	begin(&node, 1, free_port(), 0);
	uint64_t begun_us = clock_us();
	CU_ASSERT_EQUAL(ask(&node, &ticket), LIMITER_FULL);
	CU_ASSERT_TRUE(clock_us() - begun_us >= PATIENCE_US);
	end(&node);
}

static void within_the_backlog_the_first_master_is_waited_for(void)
{
	struct node node;
	begin(&node, 1, free_port(), 1);
	uint64_t begun_us = clock_us();
	start_one(&node);
	CU_ASSERT_TRUE(clock_us() - begun_us >= US_PER_S); /* its quiet time */
	end(&node);
}

static void who_joins_late_asks_for_nothing_until_its_own_starts_are_past(void)
{
	struct node group, late;
	char error[256];
	unsigned port = free_port();
	begin(&group, 1, port, 100);
	begin(&late, 0, 0, 100);
	CU_ASSERT_TRUE(sees(&group, 1, 1));
	start_one(&group);
	start_one(&late);
	uint64_t joined_us = clock_us();
	say_group(&late, 2, port);
	struct limiter_options limits = { .threshold = 50, .window_us = US_PER_S, .backlog = 100, .slots_are_given = true };
	CU_ASSERT_TRUE(group_configure(late.group, &late.settings, error, sizeof error));
	CU_ASSERT_EQUAL(limiter_configure(late.limiter, &limits, clock_us()), 0);
	CU_ASSERT_TRUE(sees(&late, 2, 1));
	start_one(&late);
	CU_ASSERT_TRUE(clock_us() - joined_us >= US_PER_S);
	late.settings.unicast = late.settings.group_address = NULL;
	CU_ASSERT_TRUE(group_configure(late.group, &late.settings, error, sizeof error));
	CU_ASSERT_TRUE(sees(&group, 1, 1));
	end(&group);
	end(&late);
}

static void another_secret_at_a_reload_parts_a_group(void)
{
	struct node one, other;
	struct group_report report;
	char error[256], secret[] = "hush";
	unsigned port = free_port();
	begin(&one, 1, port, 100);
	begin(&other, 2, port, 100);
	CU_ASSERT_TRUE(sees(&one, 2, 1) && sees(&other, 2, 1));
	one.settings.cluster_secret = secret;
	CU_ASSERT_TRUE(group_configure(one.group, &one.settings, error, sizeof error));
	CU_ASSERT_TRUE(sees(&one, 1, 1) && sees(&other, 1, 2));
	group_report(one.group, &report);
	CU_ASSERT_TRUE(report.dropped_total[CLUSTER_WIRE_TAG] > 0);
	other.settings.cluster_secret = secret;
	CU_ASSERT_TRUE(group_configure(other.group, &other.settings, error, sizeof error));
	CU_ASSERT_TRUE(sees(&one, 2, 1) && sees(&other, 2, 1));
	end(&one);
	end(&other);
}

static void a_group_that_cannot_be_joined_leaves_all_as_it_was(void)
{
	struct node node;
	char error[256] = "";
	struct settings_peer peers[] = { { .host = (char *)(uintptr_t)"127.0.0.1", .port = free_port() } };
	struct sockaddr_in taken = { .sin_family = AF_INET, .sin_port = htons((uint16_t)peers[0].port) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&taken, sizeof taken), 0);
	begin(&node, 1, free_port(), 100);
	struct settings before = node.settings;
	node.settings.unicast = NULL;
	node.settings.group_address = (char *)(uintptr_t)"127.0.0.1:1";
	node.settings.peers = (struct settings_peers){ peers, 1 };
	CU_ASSERT_FALSE(group_configure(node.group, &node.settings, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "taken"));
	node.settings = before;
	CU_ASSERT_TRUE(sees(&node, 1, 1));
	start_one(&node);
	close(fd);
	end(&node);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_service_of_no_group_has_nothing_to_report),
		TEST(nodes_of_one_process_meet_and_start_with_what_the_master_gives),
		TEST(nobody_waits_beyond_the_backlog_for_a_master_that_is_not_there),
		TEST(within_the_backlog_the_first_master_is_waited_for),
		TEST(who_joins_late_asks_for_nothing_until_its_own_starts_are_past),
		TEST(another_secret_at_a_reload_parts_a_group),
		TEST(a_group_that_cannot_be_joined_leaves_all_as_it_was),
	};
	return unit_main("group", tests, sizeof tests / sizeof tests[0]);
}
