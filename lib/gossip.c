/* gossip.c: see gossip.h.
 *
 * Several processes of one machine are in one group, so they share its port. Linux asks for SO_REUSEADDR or
 * SO_REUSEPORT on each socket; other systems for the one or the other, so both are set. A broadcast or multicast
 * datagram is then delivered to every such socket, 127.255.255.255 too: udp(7) in the kernel walks over all that match
 * (__udp4_lib_mcast_deliver). A datagram to one address would be given to one of them, picked by a hash: that is why
 * nobody is ever answered on the shared port. The price is that any process of the machine can join: what is to be
 * believed is settled by whoever reads the datagrams.
 *
 * 255.255.255.255 and multicast addresses are on no network in particular: left alone, the kernel sends them out of one
 * interface, that of the default route, or says ENETUNREACH. So each goes out of every interface that is up, which
 * IP_PKTINFO names together with the source address. The copy that the kernel loops back is what other processes of
 * this machine get; with no interface up but the loopback one, that one is used. A node with two interfaces in one
 * network hears everything twice, and drops the second.
 *
 * Interfaces come and go. Each second they are looked at anew, and the group is joined on all that are up: joined
 * already is an error that means no harm. Multicast keeps its time to live of 1: it does not leave the local network.
 *
 * A flood must not keep the thread from its clock: it reads at most READS_PER_TURN datagrams of a socket before it
 * ticks.
 */
#include "gossip.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "resolver.h"
#include "thread.h"
#include "ts.h"

#define READS_PER_TURN 64
#define INTERFACES_MAX 32u
#define ADDRESSES_MAX 256u /* of peers */
#define LOOK_AGAIN_US US_PER_S
#define RESOLVE_EVERY_US (10 * US_PER_S)
#define NAMES_WAIT_US (2 * US_PER_S)
#define SAME_TROUBLE_US (60 * US_PER_S)
#define SOCKETS_MAX 2u

struct interface {
	unsigned index;
	struct address source;
};

struct gossip_socket {
	int fd;
	int family;
	bool sends; /* the own port; else the shared one, which only listens */
};

struct gossip_sockets {
	enum gossip_way way;
	struct address to;         /* of everybody */
	bool names_interfaces;     /* to says nothing about where it is */
	bool is_listed;
	struct gossip_socket items[SOCKETS_MAX];
	size_t count;
	struct address bound;      /* peers: the entry that is this node; length 0: none is */
	struct resolver *resolver; /* peers */
	atomic_bool has_news;      /* from it */
	struct gossip *_Atomic owner;
};

struct gossip {
	struct gossip_calls calls;
	pthread_t thread;
	bool is_running;
	int kick_fd;
	atomic_bool is_kicked, is_stopping;
	atomic_ullong troubled_us;
	atomic_int last_trouble;
	uint64_t look_us; /* when interfaces are looked at next */
	struct gossip_sockets *sockets;

	pthread_mutex_t mutex;
	struct interface interfaces[INTERFACES_MAX] GUARDED_BY(gossip_mutex);
	size_t interface_count GUARDED_BY(gossip_mutex);
	struct address peers[ADDRESSES_MAX] GUARDED_BY(gossip_mutex);
	size_t peer_count GUARDED_BY(gossip_mutex);
};

LOCK_VERBS(gossip, mutex, gossip_mutex)

/* The first of its kind is news, and after that so is one in a minute. */
static void say_trouble(struct gossip *g, const char *what, int error)
{
	uint64_t now_us = clock_us();
	unsigned long long last_us = atomic_load(&g->troubled_us);
	uint64_t pause_us = atomic_load(&g->last_trouble) == error ? SAME_TROUBLE_US : US_PER_S;
	if (last_us != 0 && now_us - last_us < pause_us)
		return;
	if (!atomic_compare_exchange_strong(&g->troubled_us, &last_us, now_us))
		return;
	atomic_store(&g->last_trouble, error);
	g->calls.trouble(g->calls.context, what, error);
}

/* ---- interfaces -------------------------------------------------------------------------------------------------- */

static bool is_same_address(const struct address *a, const struct sockaddr *b)
{
	if (a->any.sa_family != b->sa_family)
		return false;
	if (b->sa_family == AF_INET)
		return a->v4.sin_addr.s_addr == ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr);
}

static bool is_address_of_ours(const struct address *address)
{
	struct ifaddrs *list = NULL;
	/* Of 127/8 one address is listed, and all are ours. */
	bool is_ours = address->any.sa_family == AF_INET && ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
	if (getifaddrs(&list) != 0)
		return is_ours;
	for (const struct ifaddrs *i = list; i != NULL && !is_ours; i = i->ifa_next)
		is_ours = i->ifa_addr != NULL && (i->ifa_addr->sa_family == AF_INET || i->ifa_addr->sa_family == AF_INET6) &&
		          is_same_address(address, i->ifa_addr);
	freeifaddrs(list);
	return is_ours;
}

/* Adds the interfaces that are up, have an address of this family, and have one of these flags; each once. */
static size_t pick_interfaces(const struct ifaddrs *list, int family, unsigned flags, struct interface out[INTERFACES_MAX])
{
	size_t count = 0;
	for (; list != NULL && count < INTERFACES_MAX; list = list->ifa_next) {
		if (list->ifa_addr == NULL || list->ifa_addr->sa_family != family || (list->ifa_flags & IFF_UP) == 0 ||
		    (list->ifa_flags & flags) == 0)
			continue;
		struct interface found = { .index = if_nametoindex(list->ifa_name) };
		found.source.length = family == AF_INET ? sizeof found.source.v4 : sizeof found.source.v6;
		memcpy(&found.source.storage, list->ifa_addr, found.source.length);
		bool is_new = found.index != 0;
		for (size_t i = 0; i < count; i++)
			is_new = is_new && out[i].index != found.index;
		if (is_new)
			out[count++] = found;
	}
	return count;
}

static void join_on(struct gossip *g, const struct gossip_socket *socket, unsigned index)
{
	const struct address *to = &g->sockets->to;
	int result;
	if (socket->family == AF_INET) {
		struct ip_mreqn join = { .imr_multiaddr = to->v4.sin_addr, .imr_ifindex = (int)index };
		result = setsockopt(socket->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join);
	} else {
		struct ipv6_mreq join = { .ipv6mr_multiaddr = to->v6.sin6_addr, .ipv6mr_interface = index };
		result = setsockopt(socket->fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &join, sizeof join);
	}
	if (result != 0 && errno != EADDRINUSE) /* joined already */
		say_trouble(g, "the multicast group can't be joined on an interface", errno);
}

/* Which interfaces are up now? A group is joined again there. */
static void look_at_interfaces(struct gossip *g)
{
	struct gossip_sockets *s = g->sockets;
	struct interface found[INTERFACES_MAX];
	struct ifaddrs *list = NULL;
	if (!s->names_interfaces)
		return;
	if (getifaddrs(&list) != 0) {
		say_trouble(g, "the network interfaces can't be listed", errno);
		return;
	}
	int family = s->to.any.sa_family;
	size_t count = pick_interfaces(list, family, s->way == GOSSIP_MULTICAST ? IFF_MULTICAST : IFF_BROADCAST, found);
	if (count == 0)
		count = pick_interfaces(list, family, IFF_LOOPBACK, found);
	freeifaddrs(list);
	for (size_t i = 0; s->way == GOSSIP_MULTICAST && i < count; i++)
		for (size_t j = 0; j < s->count; j++)
			if (!s->items[j].sends)
				join_on(g, &s->items[j], found[i].index);
	gossip_lock(g);
	memcpy(g->interfaces, found, count * sizeof found[0]);
	g->interface_count = count;
	gossip_unlock(g);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

union control {
	struct cmsghdr head; /* for its alignment */
	char v4[CMSG_SPACE(sizeof(struct in_pktinfo))];
	char v6[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Names the interface, and the source address: left to itself the kernel would put 0.0.0.0 on the loopback one. */
static void name_interface(struct msghdr *message, union control *control, const struct interface *via)
{
	memset(control, 0, sizeof *control);
	message->msg_control = control;
	if (via->source.any.sa_family == AF_INET) {
		struct in_pktinfo info = { .ipi_ifindex = (int)via->index, .ipi_spec_dst = via->source.v4.sin_addr };
		message->msg_controllen = sizeof control->v4;
		control->head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof info),
			                          .cmsg_level = IPPROTO_IP,
			                          .cmsg_type = IP_PKTINFO };
		memcpy(CMSG_DATA(&control->head), &info, sizeof info);
	} else {
		struct in6_pktinfo info = { .ipi6_ifindex = via->index }; /* of its addresses the kernel knows the right one */
		message->msg_controllen = sizeof control->v6;
		control->head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof info),
			                          .cmsg_level = IPPROTO_IPV6,
			                          .cmsg_type = IPV6_PKTINFO };
		memcpy(CMSG_DATA(&control->head), &info, sizeof info);
	}
}

static void send_datagram(struct gossip *g, const struct address *to, const struct interface *via, const unsigned char *bytes,
                          size_t length)
{
	struct address destination = *to;
	struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
	struct msghdr message = { .msg_name = &destination.storage,
		                  .msg_namelen = to->length,
		                  .msg_iov = &part,
		                  .msg_iovlen = 1 };
	union control control;
	if (via != NULL)
		name_interface(&message, &control, via);
	for (size_t i = 0; i < g->sockets->count; i++) {
		const struct gossip_socket *socket = &g->sockets->items[i];
		if (!socket->sends || socket->family != to->any.sa_family)
			continue;
		if (sendmsg(socket->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			say_trouble(g, "a datagram can't be sent", errno);
		return;
	}
}

void gossip_send(struct gossip *g, const struct address *to, const unsigned char *bytes, size_t length)
{
	struct interface interfaces[INTERFACES_MAX];
	struct address peers[ADDRESSES_MAX];
	if (g->sockets == NULL)
		return;
	if (to != NULL) {
		send_datagram(g, to, NULL, bytes, length);
		return;
	}
	gossip_lock(g);
	size_t interface_count = g->interface_count, peer_count = g->peer_count;
	memcpy(interfaces, g->interfaces, interface_count * sizeof interfaces[0]);
	memcpy(peers, g->peers, peer_count * sizeof peers[0]);
	gossip_unlock(g);
	if (g->sockets->way == GOSSIP_PEERS)
		for (size_t i = 0; i < peer_count; i++)
			send_datagram(g, &peers[i], NULL, bytes, length);
	else if (g->sockets->names_interfaces)
		for (size_t i = 0; i < interface_count; i++)
			send_datagram(g, &g->sockets->to, &interfaces[i], bytes, length);
	else
		send_datagram(g, &g->sockets->to, NULL, bytes, length);
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

void gossip_kick(struct gossip *g)
{
	uint64_t one = 1;
	if (atomic_exchange(&g->is_kicked, true))
		return;
	/* Once in a turn: this does not come near the count at which a write would wait. */
	ssize_t written = write(g->kick_fd, &one, sizeof one);
	(void)written;
}

static void take_peers(struct gossip *g)
{
	struct gossip_sockets *s = g->sockets;
	struct resolver_answer *answers = NULL;
	if (s->resolver == NULL || !atomic_exchange(&s->has_news, false))
		return;
	size_t count = resolver_take(s->resolver, &answers, NULL), used = 0;
	gossip_lock(g);
	for (size_t i = 0; i < count && used < ADDRESSES_MAX; i++)
		if (answers[i].has_address)
			g->peers[used++] = answers[i].address;
	if (answers != NULL)
		g->peer_count = used;
	gossip_unlock(g);
	free(answers);
}

static void read_some(struct gossip *g, int fd)
{
	unsigned char bytes[GOSSIP_DATAGRAM_MAX + 1];
	for (int i = 0; i < READS_PER_TURN; i++) {
		struct address from = { .length = sizeof from.storage };
		ssize_t length = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, &from.any, &from.length);
		if (length < 0 && errno != EINTR)
			return; /* nothing left; or an error that this call has taken off the socket */
		if (length >= 0)
			g->calls.came(g->calls.context, bytes, (size_t)length, &from);
	}
}

/* Sleeps until wake_us, a datagram or a kick; then reads what is there. */
static void wait_and_read(struct gossip *g, uint64_t wake_us)
{
	struct pollfd fds[SOCKETS_MAX + 1] = { { .fd = g->kick_fd, .events = POLLIN } };
	struct gossip_sockets *s = g->sockets;
	for (size_t i = 0; i < s->count; i++)
		fds[i + 1] = (struct pollfd){ .fd = s->items[i].fd, .events = POLLIN };
	uint64_t left_us = clock_left_us(wake_us < g->look_us ? wake_us : g->look_us), count;
	struct timespec left = { .tv_sec = (time_t)(left_us / US_PER_S), .tv_nsec = (long)(left_us % US_PER_S) * 1000 };
	if (ppoll(fds, (nfds_t)s->count + 1, &left, NULL) <= 0)
		return;
	if (fds[0].revents != 0 && read(g->kick_fd, &count, sizeof count) < 0)
		say_trouble(g, "an eventfd can't be read", errno);
	for (size_t i = 0; i < s->count; i++)
		if (fds[i + 1].revents != 0)
			read_some(g, s->items[i].fd);
}

static void *run(void *argument)
{
	struct gossip *g = argument;
	thread_name("weir:gossip");
	uint64_t wake_us = 0;
	thread_prefer_prompt();
	while (!atomic_load(&g->is_stopping)) {
		if (clock_us() >= g->look_us) {
			look_at_interfaces(g);
			g->look_us = clock_us() + LOOK_AGAIN_US;
		}
		take_peers(g);
		wake_us = g->calls.tick(g->calls.context);
		wait_and_read(g, wake_us);
		/* Before the tick that does what the kicks were for: who kicks from here on wakes us again. */
		atomic_store(&g->is_kicked, false);
	}
	return NULL;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static int open_socket(int family, const struct address *bind_to, bool is_shared)
{
	int one = 1, zero = 0;
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (is_shared) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
		/* Otherwise a socket hears every group that any process of this machine has joined. */
		if (family == AF_INET)
			setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &zero, sizeof zero);
		else
			setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &zero, sizeof zero);
	}
	if (bind(fd, &bind_to->any, bind_to->length) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Opens one more socket. port 0: any. */
static bool add_socket(struct gossip_sockets *s, const struct address *bind_to, bool is_shared, bool sends)
{
	int family = bind_to->any.sa_family, fd = open_socket(family, bind_to, is_shared);
	if (fd >= 0)
		s->items[s->count++] = (struct gossip_socket){ .fd = fd, .family = family, .sends = sends };
	return fd >= 0;
}

static struct address every_address(int family, unsigned port)
{
	struct address address;
	memset(&address, 0, sizeof address);
	address_parse(family == AF_INET ? "0.0.0.0" : "::", port, &address);
	return address;
}

/* Two sockets: the port that the group shares, and one of our own. */
static bool open_shared(struct gossip_sockets *s, char *error, size_t error_size)
{
	int family = s->to.any.sa_family;
	unsigned port = address_port(&s->to);
	struct address shared = every_address(family, port), own = every_address(family, 0);
	if (add_socket(s, &shared, true, false) && add_socket(s, &own, false, true))
		return true;
	snprintf(error, error_size, "UDP port %u of the group can't be opened: %s", port, strerror(errno));
	return false;
}

/* One of the entries is where this node listens: the first that is an address of this machine and not taken by another
   node here. */
static bool listen_as_listed(struct gossip_sockets *s, const struct resolver_answer *answers, size_t count, bool *is_taken)
{
	for (size_t i = 0; i < count; i++) {
		if (!answers[i].has_address || !is_address_of_ours(&answers[i].address))
			continue;
		if (add_socket(s, &answers[i].address, false, true)) {
			s->bound = answers[i].address;
			return true;
		}
		*is_taken = true;
	}
	return false;
}

/* The port that was ours before, if it still is. */
static bool keep_port(struct gossip_sockets *s, const struct gossip_sockets *before, const struct resolver_answer *answers,
                      size_t count)
{
	for (size_t i = 0; before != NULL && before->bound.length > 0 && i < count; i++) {
		if (!answers[i].has_address || address_port(&answers[i].address) != address_port(&before->bound) ||
		    !is_same_address(&before->bound, &answers[i].address.any))
			continue;
		int fd = fcntl(before->items[0].fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return false;
		s->items[s->count++] = (struct gossip_socket){ .fd = fd, .family = before->items[0].family, .sends = true };
		s->bound = before->bound;
		return true;
	}
	return false;
}

static bool open_for_peers(struct gossip_sockets *s, const struct gossip_sockets *before, unsigned first_port, char *error,
                           size_t error_size)
{
	struct resolver_answer *answers = NULL;
	size_t count = resolver_take(s->resolver, &answers, NULL);
	bool is_taken = false;
	s->is_listed = keep_port(s, before, answers, count) || listen_as_listed(s, answers, count, &is_taken);
	free(answers);
	if (s->is_listed) { /* to peers of the other family, if there are any, it speaks from any port */
		struct address other = every_address(s->items[0].family == AF_INET ? AF_INET6 : AF_INET, 0);
		add_socket(s, &other, false, true);
		return true;
	}
	struct address v4 = every_address(AF_INET, first_port), v6 = every_address(AF_INET6, first_port);
	if (is_taken)
		snprintf(error, error_size,
		         "each port that peers lists for this machine is taken: another node here has it, or another program");
	else if (add_socket(s, &v4, false, true) + add_socket(s, &v6, false, true) == 0)
		snprintf(error, error_size, "UDP port %u of peers can't be opened: %s", first_port, strerror(errno));
	return s->count > 0;
}

/* The resolver has news; by its thread. */
static void names_changed(void *context)
{
	struct gossip_sockets *s = context;
	atomic_store(&s->has_news, true);
	struct gossip *owner = atomic_load(&s->owner);
	if (owner != NULL)
		gossip_kick(owner);
}

static struct resolver *start_resolver(struct gossip_sockets *s, const struct gossip_options *options)
{
	struct resolver_question *questions = calloc(options->peer_count, sizeof *questions);
	if (questions == NULL)
		return NULL;
	for (size_t i = 0; i < options->peer_count; i++)
		questions[i] = (struct resolver_question){ .host = options->peers[i].host, .port = options->peers[i].port };
	struct resolver *resolver = resolver_start(questions, options->peer_count, RESOLVE_EVERY_US, names_changed, s);
	free(questions);
	return resolver;
}

/* 255.255.255.255 and multicast are on no network in particular; a subnet's own broadcast address has a route. */
static bool names_interfaces(const struct gossip_options *options)
{
	return options->way == GOSSIP_MULTICAST ||
	       (options->way == GOSSIP_BROADCAST && options->address.v4.sin_addr.s_addr == htonl(INADDR_BROADCAST));
}

struct gossip_sockets *gossip_open(const struct gossip_options *options, const struct gossip *before, char *error,
                                   size_t error_size)
{
	struct gossip_sockets *s = calloc(1, sizeof *s);
	bool is_open = false;
	snprintf(error, error_size, "no memory or threads to join a group with");
	if (s == NULL)
		return NULL;
	s->way = options->way;
	s->to = options->address;
	s->names_interfaces = names_interfaces(options);
	s->is_listed = true;
	if (options->way != GOSSIP_PEERS) {
		is_open = open_shared(s, error, error_size);
	} else {
		atomic_store(&s->has_news, true);
		s->resolver = start_resolver(s, options);
		if (s->resolver != NULL) {
			resolver_wait_first(s->resolver, clock_us() + NAMES_WAIT_US);
			is_open = open_for_peers(s, before != NULL ? before->sockets : NULL, options->peers[0].port, error,
			                         error_size);
		}
	}
	if (is_open)
		return s;
	gossip_close(s);
	return NULL;
}

void gossip_close(struct gossip_sockets *s)
{
	if (s == NULL)
		return;
	if (s->resolver != NULL)
		resolver_stop(s->resolver);
	for (size_t i = 0; i < s->count; i++)
		close(s->items[i].fd);
	free(s);
}

void gossip_use(struct gossip *g, struct gossip_sockets *sockets)
{
	struct gossip_sockets *before = g->sockets;
	g->sockets = sockets;
	if (sockets != NULL)
		atomic_store(&sockets->owner, g);
	gossip_lock(g);
	g->interface_count = g->peer_count = 0;
	gossip_unlock(g);
	g->look_us = 0;
	gossip_close(before);
}

bool gossip_is_listed(const struct gossip_sockets *sockets)
{
	return sockets->is_listed;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

struct gossip *gossip_create(const struct gossip_calls *calls)
{
	struct gossip *g = calloc(1, sizeof *g);
	if (g == NULL)
		return NULL;
	g->calls = *calls;
	g->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (g->kick_fd < 0) {
		free(g);
		return NULL;
	}
	pthread_mutex_init(&g->mutex, NULL);
	return g;
}

int gossip_start(struct gossip *g)
{
	if (g->is_running)
		return 0;
	atomic_store(&g->is_stopping, false);
	int error = thread_start(&g->thread, run, g);
	g->is_running = error == 0;
	return error;
}

void gossip_stop(struct gossip *g)
{
	if (!g->is_running)
		return;
	atomic_store(&g->is_stopping, true);
	/* Not by gossip_kick(): the flag may stand while the thread is on its way into its sleep. */
	uint64_t one = 1;
	ssize_t written = write(g->kick_fd, &one, sizeof one);
	(void)written;
	pthread_join(g->thread, NULL);
	g->is_running = false;
}

void gossip_destroy(struct gossip *g)
{
	if (g == NULL)
		return;
	gossip_stop(g);
	gossip_close(g->sockets);
	close(g->kick_fd);
	pthread_mutex_destroy(&g->mutex);
	free(g);
}
