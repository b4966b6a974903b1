/* relay.c: the bare relay: the floor of weir's architecture, to see what its parsing, checking and counting cost on top.
 *
 *      relay --port N --target N [--threads N] [--no-batch] [--no-pin]
 *
 *      client ──► recv ──► send ──► target          four system calls a request, two of which block: that is two
 *             ◄── send ◄── recv ◄──                 context switches, and no call is there that could be left out
 *
 * As weir does: one thread a connection, waiting in accept() itself; blocking calls; connections to the target leased for one
 * exchange, from a stack under a mutex. Unlike weir it looks for the blank line and for Content-Length and for nothing
 * else, changes no byte, has no deadline and trusts everybody: never use it for more than a measurement.
 *
 * What can be switched off is what was found to pay: SCHED_BATCH, under which a thread that is woken does not push aside the one
 * that runs, so that a burst of requests is served one after the other; and each thread kept on one CPU, in turn, where its
 * stack and its sockets stay in the cache.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES 16384
#define STACK_BYTES (64u * 1024u)
#define IDLE_MAX 20000

static struct {
	int listen_fd;
	unsigned target, threads;
	bool batch, pin;
	atomic_uint next_cpu;
	pthread_mutex_t mutex;
	int idle[IDLE_MAX]; /* under the mutex */
	unsigned idle_count;
} relay = { .threads = 64, .batch = true, .pin = true, .mutex = PTHREAD_MUTEX_INITIALIZER };

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_target(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)relay.target) };
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
		give_up("cannot reach the target");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static int lease(void)
{
	int fd = -1;
	pthread_mutex_lock(&relay.mutex);
	if (relay.idle_count > 0)
		fd = relay.idle[--relay.idle_count];
	pthread_mutex_unlock(&relay.mutex);
	return fd >= 0 ? fd : open_target();
}

static void give_back(int fd)
{
	bool is_kept = false;
	pthread_mutex_lock(&relay.mutex);
	if (relay.idle_count < IDLE_MAX) {
		relay.idle[relay.idle_count++] = fd;
		is_kept = true;
	}
	pthread_mutex_unlock(&relay.mutex);
	if (!is_kept)
		close(fd);
}

/* How long the message is, once its head is there; 0: more is needed. */
static size_t length_of(char *bytes, size_t length)
{
	bytes[length] = '\0';
	const char *end = strstr(bytes, "\r\n\r\n"), *field = strcasestr(bytes, "\r\nContent-Length:");
	if (end == NULL)
		return 0;
	size_t body = field != NULL && field < end ? strtoul(field + 17, NULL, 10) : 0;
	return (size_t)(end + 4 - bytes) + body;
}

/* Reads one message that fits into the buffer. 0: there is none any more. */
static size_t receive(int fd, char *buffer)
{
	size_t length = 0, wanted = 0;
	while (wanted == 0 || length < wanted) {
		ssize_t count = recv(fd, buffer + length, BUFFER_BYTES - length, 0);
		if (count <= 0)
			return 0;
		length += (size_t)count;
		if (wanted == 0)
			wanted = length_of(buffer, length);
	}
	return length;
}

static bool asks_close(const char *head)
{
	return strstr(head, "\r\nConnection: close\r\n") != NULL;
}

static void serve(int client)
{
	char buffer[BUFFER_BYTES + 1];
	size_t length;
	bool is_last = false;
	while (!is_last && (length = receive(client, buffer)) > 0) {
		int target = lease();
		is_last = asks_close(buffer);
		if (is_last) /* the target's connection stays: it sees an Xonnection */
			strstr(buffer, "\r\nConnection: close\r\n")[2] = 'X';
		if (send(target, buffer, length, MSG_NOSIGNAL) != (ssize_t)length || (length = receive(target, buffer)) == 0)
			give_up("the target failed");
		give_back(target);
		if (send(client, buffer, length, MSG_NOSIGNAL) != (ssize_t)length)
			break;
	}
	close(client);
}

static void *work(void *unused)
{
	if (relay.pin) {
		cpu_set_t one;
		CPU_ZERO(&one);
		CPU_SET(atomic_fetch_add(&relay.next_cpu, 1) % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &one);
		sched_setaffinity(0, sizeof one, &one);
	}
	for (;;) {
		int fd = accept4(relay.listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			serve(fd);
	}
	return unused;
}

static void start_threads(void)
{
	struct sched_param none = { .sched_priority = 0 };
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	if (relay.batch)
		sched_setscheduler(0, SCHED_BATCH, &none); /* threads inherit it */
	for (unsigned i = 0; i < relay.threads; i++) {
		pthread_t thread;
		errno = pthread_create(&thread, &attributes, work, NULL);
		if (errno != 0)
			give_up("cannot start a thread");
	}
}

static void listen_on(unsigned port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int on = 1;
	relay.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(relay.listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(relay.listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (bind(relay.listen_fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(relay.listen_fd, 4096) != 0)
		give_up("cannot listen");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },    { "target", required_argument, NULL, 't' },
		{ "threads", required_argument, NULL, 'n' }, { "no-batch", no_argument, NULL, 'b' },
		{ "no-pin", no_argument, NULL, 'c' },        { NULL, 0, NULL, 0 },
	};
	unsigned port = 0;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'p': port = (unsigned)strtoul(optarg, NULL, 10); break;
		case 't': relay.target = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'n': relay.threads = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'b': relay.batch = false; break;
		case 'c': relay.pin = false; break;
		default: return 2;
		}
	}
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	listen_on(port);
	start_threads();
	pause();
	return 0;
}
