/* test_gossip.c: the UDP thread, on this machine's loopback interface: who hears whom, what a kick does, and that it
 * stops.
 *
 * Ports are free ones. Nothing waits for a fixed time: what is expected is waited for with a deadline, and that
 * something does not come is asked for after something that must come later.
 */
#include "lib/gossip.h"

#include <dlfcn.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"
#include "unit.h"

#define SOON_US (20 * US_PER_S)

/* The interfaces that this machine seems to have; NULL: its own. */
static _Atomic(struct ifaddrs *) listed;

int getifaddrs(struct ifaddrs **list)
{
	int (*real)(struct ifaddrs **);
	*list = atomic_load(&listed);
	if (*list != NULL)
		return 0;
	*(void **)&real = dlsym(RTLD_NEXT, "getifaddrs");
	return real(list);
}

void freeifaddrs(struct ifaddrs *list)
{
	void (*real)(struct ifaddrs *);
	*(void **)&real = dlsym(RTLD_NEXT, "freeifaddrs");
	if (list != atomic_load(&listed))
		real(list);
}

/* One end, and what came to it. Fields behind the mutex are written by its thread. */
struct end {
	struct gossip *gossip;
	pthread_mutex_t mutex;
	char last[64]; /* text of the last datagram */
	struct address from;
	unsigned came;
	atomic_uint ticks, troubles;
	atomic_ullong wake_us;
};

static void came(void *context, const unsigned char *bytes, size_t length, const struct address *from)
{
	struct end *e = context;
	pthread_mutex_lock(&e->mutex);
	size_t kept = length < sizeof e->last ? length : sizeof e->last - 1;
	memcpy(e->last, bytes, kept);
	e->last[kept] = '\0';
	e->from = *from;
	e->came++;
	pthread_mutex_unlock(&e->mutex);
}

static uint64_t tick(void *context)
{
	struct end *e = context;
	atomic_fetch_add(&e->ticks, 1);
	return atomic_load(&e->wake_us);
}

static void trouble(void *context, const char *what, int error)
{
	struct end *e = context;
	(void)what;
	(void)error;
	atomic_fetch_add(&e->troubles, 1);
}

static void begin(struct end *e, const struct gossip_options *options)
{
	char error[256] = "";
	struct gossip_calls calls = { .context = e, .came = came, .tick = tick, .trouble = trouble };
	memset(e, 0, sizeof *e);
	pthread_mutex_init(&e->mutex, NULL);
	atomic_store(&e->wake_us, UINT64_MAX);
	e->gossip = gossip_create(&calls);
	CU_ASSERT_PTR_NOT_NULL_FATAL(e->gossip);
	struct gossip_sockets *sockets = gossip_open(options, NULL, error, sizeof error);
	if (sockets == NULL)
		fprintf(stderr, "%s\n", error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(sockets);
	gossip_use(e->gossip, sockets);
	CU_ASSERT_EQUAL_FATAL(gossip_start(e->gossip), 0);
}

static void end(struct end *e)
{
	gossip_destroy(e->gossip);
	pthread_mutex_destroy(&e->mutex);
}

static unsigned came_to(struct end *e, char last[64], struct address *from)
{
	pthread_mutex_lock(&e->mutex);
	unsigned count = e->came;
	if (last != NULL)
		memcpy(last, e->last, sizeof e->last);
	if (from != NULL)
		*from = e->from;
	pthread_mutex_unlock(&e->mutex);
	return count;
}

static void say(struct end *e, const struct address *to, const char *text)
{
	gossip_send(e->gossip, to, (const unsigned char *)text, strlen(text));
}

/* Says it again and again until the other has heard it: interfaces and names are found out at leisure. */
static bool is_heard(struct end *from, const struct address *to, struct end *by, const char *text, struct address *source)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	char last[64] = "";
	while (clock_us() < deadline_us) {
		say(from, to, text);
		uint64_t until_us = clock_us() + 20 * US_PER_MS;
		while (clock_us() < until_us) {
			came_to(by, last, source);
			if (strcmp(last, text) == 0)
				return true;
			usleep(200);
		}
	}
	return false;
}

static void await_last(struct end *e, const char *text)
{
	uint64_t deadline_us = clock_us() + SOON_US;
	char last[64] = "";
	while (strcmp(last, text) != 0 && clock_us() < deadline_us) {
		came_to(e, last, NULL);
		usleep(200);
	}
	CU_ASSERT_STRING_EQUAL(last, text);
}

static unsigned free_port(void)
{
	struct address any;
	socklen_t length = sizeof any.storage;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	address_parse("0.0.0.0", 0, &any);
	CU_ASSERT_EQUAL_FATAL(bind(fd, &any.any, any.length), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(fd, &any.any, &length), 0);
	unsigned port = address_port(&any);
	close(fd);
	return port;
}

static struct gossip_options to_address(enum gossip_way way, const char *host, unsigned port)
{
	struct gossip_options options = { .way = way };
	memset(&options.address, 0, sizeof options.address);
	CU_ASSERT_TRUE_FATAL(address_parse(host, port, &options.address));
	return options;
}

/* All of one group hear each of them, and an answer goes to its asker alone. */
static void talk(enum gossip_way way, const char *host)
{
	struct end ends[3];
	struct address source;
	char last[64];
	struct gossip_options options = to_address(way, host, free_port());
	for (int i = 0; i < 3; i++)
		begin(&ends[i], &options);
	for (int i = 1; i < 3; i++)
		CU_ASSERT_TRUE(is_heard(&ends[0], NULL, &ends[i], i == 1 ? "one" : "two", &source));
	CU_ASSERT_NOT_EQUAL(address_port(&source), address_port(&options.address));
	unsigned before = came_to(&ends[1], NULL, NULL);
	CU_ASSERT_TRUE(is_heard(&ends[2], &source, &ends[0], "answer", NULL));
	came_to(&ends[1], last, NULL);
	CU_ASSERT_STRING_NOT_EQUAL(last, "answer");
	CU_ASSERT_TRUE(before > 0);
	for (int i = 0; i < 3; i++)
		end(&ends[i]);
}

static void a_broadcast_on_one_machine_reaches_all_who_share_the_port(void)
{
	talk(GOSSIP_BROADCAST, "127.255.255.255");
}

static void a_broadcast_to_everybody_goes_out_of_every_interface(void)
{
	talk(GOSSIP_BROADCAST, "255.255.255.255");
}

static void a_multicast_reaches_all_who_joined(void)
{
	talk(GOSSIP_MULTICAST, "239.66.77.88");
}

static void an_interface_with_two_addresses_says_everything_once(void)
{
	struct end ends[2];
	struct gossip_options options = to_address(GOSSIP_MULTICAST, "239.66.77.89", free_port());
	struct address first, second;
	address_parse("127.0.0.1", 0, &first);
	address_parse("127.0.0.2", 0, &second);
	struct ifaddrs other = { .ifa_name = "lo", .ifa_flags = IFF_UP | IFF_LOOPBACK, .ifa_addr = &second.any };
	struct ifaddrs list = { .ifa_next = &other, .ifa_name = "lo", .ifa_flags = IFF_UP | IFF_LOOPBACK, .ifa_addr = &first.any };
	atomic_store(&listed, &list);
	for (int i = 0; i < 2; i++)
		begin(&ends[i], &options);
	CU_ASSERT_TRUE(is_heard(&ends[0], NULL, &ends[1], "often", NULL));
	say(&ends[0], NULL, "once");
	await_last(&ends[1], "once"); /* what was said often has come by now */
	unsigned before = came_to(&ends[1], NULL, NULL);
	say(&ends[0], NULL, "and again");
	await_last(&ends[1], "and again");
	CU_ASSERT_EQUAL(came_to(&ends[1], NULL, NULL), before + 1);
	for (int i = 0; i < 2; i++)
		end(&ends[i]);
	atomic_store(&listed, NULL);
}

static void groups_on_two_ports_do_not_hear_each_other(void)
{
	struct end one, other;
	struct gossip_options options = to_address(GOSSIP_BROADCAST, "127.255.255.255", free_port());
	struct gossip_options others = to_address(GOSSIP_BROADCAST, "127.255.255.255", free_port());
	begin(&one, &options);
	begin(&other, &others);
	CU_ASSERT_TRUE(is_heard(&one, NULL, &one, "to myself", NULL)); /* a broadcast comes back */
	CU_ASSERT_TRUE(is_heard(&other, NULL, &other, "to me", NULL));
	char last[64];
	came_to(&one, last, NULL);
	CU_ASSERT_STRING_EQUAL(last, "to myself");
	end(&one);
	end(&other);
}

static void peers_listen_each_at_its_own_entry(void)
{
	unsigned first = free_port(), second = free_port();
	struct gossip_peer peers[] = { { "127.0.0.1", first }, { "127.0.0.1", second } };
	struct gossip_options options = { .way = GOSSIP_PEERS, .peers = peers, .peer_count = 2 };
	struct end one, other;
	struct address source;
	char error[256];
	begin(&one, &options);
	begin(&other, &options);
	CU_ASSERT_TRUE(is_heard(&one, NULL, &other, "hello", &source));
	CU_ASSERT_EQUAL(address_port(&source), first);
	CU_ASSERT_TRUE(is_heard(&other, &source, &one, "hello yourself", &source));
	CU_ASSERT_EQUAL(address_port(&source), second);
	/* For a third there is no room; but one of the two may have its own port again. */
	CU_ASSERT_PTR_NULL(gossip_open(&options, NULL, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "taken"));
	gossip_stop(other.gossip);
	struct gossip_sockets *again = gossip_open(&options, other.gossip, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(again);
	CU_ASSERT_TRUE(gossip_is_listed(again));
	gossip_use(other.gossip, again);
	CU_ASSERT_EQUAL(gossip_start(other.gossip), 0);
	CU_ASSERT_TRUE(is_heard(&one, NULL, &other, "again", &source));
	end(&one);
	end(&other);
}

/* TEST-NET-1 is nobody's: who is not in its own list listens at the port of the first entry. */
static void a_node_that_its_list_does_not_name_listens_on_all_addresses(void)
{
	struct address source, to;
	struct gossip_peer peers[] = { { "192.0.2.77", free_port() } };
	struct gossip_options options = { .way = GOSSIP_PEERS, .peers = peers, .peer_count = 1 };
	struct gossip_options others = to_address(GOSSIP_BROADCAST, "127.255.255.255", free_port());
	struct end one, other;
	char error[256];
	begin(&one, &options);
	begin(&other, &others);
	memset(&to, 0, sizeof to);
	CU_ASSERT_TRUE_FATAL(address_parse("127.0.0.1", peers[0].port, &to));
	CU_ASSERT_TRUE(is_heard(&other, &to, &one, "here you are", &source));
	CU_ASSERT_TRUE(is_heard(&one, &source, &other, "here I am", NULL));
	gossip_stop(one.gossip);
	peers[0].port = free_port();
	struct gossip_sockets *elsewhere = gossip_open(&options, one.gossip, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(elsewhere);
	CU_ASSERT_FALSE(gossip_is_listed(elsewhere));
	gossip_close(elsewhere);
	end(&one);
	end(&other);
}

static bool has_ipv6(void)
{
	struct address loopback;
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool has = fd >= 0 && address_parse("::1", 0, &loopback) && bind(fd, &loopback.any, loopback.length) == 0;
	if (fd >= 0)
		close(fd);
	return has;
}

static void a_peer_finds_its_entry_by_an_ipv6_address_too(void)
{
	struct gossip_peer peers[] = { { "2001:db8::77", free_port() }, { "::1", free_port() } };
	struct gossip_options options = { .way = GOSSIP_PEERS, .peers = peers, .peer_count = 2 };
	struct end one;
	struct address source;
	char error[256];
	struct gossip_sockets *sockets = gossip_open(&options, NULL, error, sizeof error);
	CU_ASSERT_PTR_NOT_NULL_FATAL(sockets);
	CU_ASSERT_EQUAL(gossip_is_listed(sockets), has_ipv6());
	gossip_close(sockets);
	if (!has_ipv6())
		return;
	begin(&one, &options);
	CU_ASSERT_TRUE(is_heard(&one, NULL, &one, "it is me", &source));
	CU_ASSERT_EQUAL(address_port(&source), peers[1].port);
	end(&one);
}

static void a_port_that_another_node_has_on_all_addresses_is_said_to_be_taken(void)
{
	struct gossip_peer peers[] = { { "192.0.2.77", free_port() } };
	struct gossip_options options = { .way = GOSSIP_PEERS, .peers = peers, .peer_count = 1 };
	struct end one;
	char error[256] = "", wanted[256];
	begin(&one, &options);
	CU_ASSERT_PTR_NULL(gossip_open(&options, NULL, error, sizeof error));
	snprintf(wanted, sizeof wanted, "UDP port %u of peers can't be opened: Address already in use", peers[0].port);
	CU_ASSERT_STRING_EQUAL(error, wanted);
	end(&one);
}

static void peers_by_name_are_found(void)
{
	unsigned port = free_port();
	struct gossip_peer peers[] = { { "localhost", port } };
	struct gossip_options options = { .way = GOSSIP_PEERS, .peers = peers, .peer_count = 1 };
	struct end one;
	begin(&one, &options);
	CU_ASSERT_TRUE(is_heard(&one, NULL, &one, "it is me", NULL));
	end(&one);
}

static void a_kick_brings_a_tick_and_none_is_lost(void)
{
	struct end one;
	struct gossip_options options = to_address(GOSSIP_BROADCAST, "127.255.255.255", free_port());
	begin(&one, &options);
	for (int i = 0; i < 2000; i++) {
		unsigned before = atomic_load(&one.ticks);
		uint64_t deadline_us = clock_us() + SOON_US;
		gossip_kick(one.gossip);
		while (atomic_load(&one.ticks) == before && clock_us() < deadline_us)
			sched_yield();
		CU_ASSERT_FATAL(atomic_load(&one.ticks) != before);
	}
	end(&one);
}

static void a_tick_comes_when_it_was_asked_for(void)
{
	struct end one;
	struct gossip_options options = to_address(GOSSIP_BROADCAST, "127.255.255.255", free_port());
	begin(&one, &options);
	uint64_t wanted_us = clock_us() + 50 * US_PER_MS;
	atomic_store(&one.wake_us, wanted_us);
	gossip_kick(one.gossip);
	uint64_t deadline_us = clock_us() + SOON_US;
	while (clock_us() < wanted_us)
		usleep(100);
	unsigned before = atomic_load(&one.ticks);
	while (atomic_load(&one.ticks) <= before && clock_us() < deadline_us)
		usleep(100);
	CU_ASSERT_TRUE(atomic_load(&one.ticks) > before);
	end(&one);
}

/* A flood of its own datagrams: it still ticks, and it stops when it is told to. */
static void a_flood_does_not_keep_it_from_its_clock(void)
{
	struct end one, other;
	struct gossip_options options = to_address(GOSSIP_BROADCAST, "127.255.255.255", free_port());
	begin(&one, &options);
	begin(&other, &options);
	unsigned before = atomic_load(&one.ticks);
	for (int i = 0; i < 20000; i++)
		say(&other, NULL, "garbage");
	CU_ASSERT_TRUE(is_heard(&other, NULL, &one, "sense", NULL));
	CU_ASSERT_TRUE(atomic_load(&one.ticks) > before);
	end(&one);
	end(&other);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(a_broadcast_on_one_machine_reaches_all_who_share_the_port),
		TEST(a_broadcast_to_everybody_goes_out_of_every_interface),
		TEST(a_multicast_reaches_all_who_joined),
		TEST(an_interface_with_two_addresses_says_everything_once),
		TEST(groups_on_two_ports_do_not_hear_each_other),
		TEST(peers_listen_each_at_its_own_entry),
		TEST(a_node_that_its_list_does_not_name_listens_on_all_addresses),
		TEST(a_peer_finds_its_entry_by_an_ipv6_address_too),
		TEST(a_port_that_another_node_has_on_all_addresses_is_said_to_be_taken),
		TEST(peers_by_name_are_found),
		TEST(a_kick_brings_a_tick_and_none_is_lost),
		TEST(a_tick_comes_when_it_was_asked_for),
		TEST(a_flood_does_not_keep_it_from_its_clock),
	};
	return unit_main("gossip", tests, sizeof tests / sizeof tests[0]);
}
