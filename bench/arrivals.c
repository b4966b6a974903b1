/* arrivals.c: a target that remembers when each request came, to the microsecond, and is never the bottleneck.
 *
 *      arrivals PORT FILE        PORT 0: any free one; says "listening on port N" and serves until SIGTERM
 *
 * A promise about "no window of one second" has to be checked at the target's door, by somebody who is not late
 * himself. A program that reads the clock after recv() notes when it was scheduled, not when the request came: on a
 * busy machine that is milliseconds, and one bunch of late looks makes a window of 20,000 into one of 20,100. So the
 * kernel notes the time as the packet comes in (SO_TIMESTAMPNS), and hands it over with the bytes.
 *
 * One thread, epoll, one short answer for each head ("\r\n\r\n"); a request counts at its first byte. On SIGTERM (or
 * SIGINT) the times are written to FILE, sorted, one a line, in nanoseconds of the wall clock.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define READ_BYTES 16384
#define NS_PER_S UINT64_C(1000000000)
#define CONNECTIONS_MAX 65536u

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";
#define ANSWER_BYTES (ssize_t)(sizeof(answer) - 1)
static const char head_end[] = "\r\n\r\n";

struct times {
	uint64_t *ns;
	size_t count, capacity;
	bool is_incomplete; /* out of memory: worth nothing */
};

/* How much of head_end each connection has seen, by descriptor; and whether it is inside a head. */
struct reader {
	unsigned char matched;
	bool in_head;
};

static struct reader readers[CONNECTIONS_MAX];

static void note_time(struct times *times, uint64_t ns)
{
	if (times->count == times->capacity) {
		size_t capacity = times->capacity > 0 ? 2 * times->capacity : 1 << 20;
		uint64_t *more = realloc(times->ns, capacity * sizeof(*more));

		if (more == NULL) {
			times->is_incomplete = true;
			return;
		}
		times->ns = more;
		times->capacity = capacity;
	}
	times->ns[times->count++] = ns;
}

/* When the last packet of what was read came in; the kernel leaves it out of the very first ones. */
static uint64_t stamp_of(struct msghdr *message)
{
	struct timespec stamp;

	clock_gettime(CLOCK_REALTIME, &stamp);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS)
			memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
	return (uint64_t)stamp.tv_sec * NS_PER_S + (uint64_t)stamp.tv_nsec;
}

/* Notes each request that begins in these bytes. Returns how many end in them. */
static int follow(struct reader *reader, const char *bytes, size_t length, uint64_t ns, struct times *times)
{
	int ended = 0;

	for (size_t i = 0; i < length; i++) {
		if (!reader->in_head)
			note_time(times, ns);
		reader->in_head = true;
		if (bytes[i] == head_end[reader->matched])
			reader->matched++;
		else
			reader->matched = bytes[i] == '\r';
		if (reader->matched == sizeof(head_end) - 1) {
			*reader = (struct reader){ .in_head = false };
			ended++;
		}
	}
	return ended;
}

/* False when the connection is over. An answer is small against a socket's buffer: a send that is cut short is an
   error. */
static bool serve(int fd, struct times *times)
{
	char bytes[READ_BYTES], control[CMSG_SPACE(sizeof(struct timespec))];
	struct iovec part = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t length;
	int ended;

	message.msg_control = control;
	message.msg_controllen = sizeof(control);
	length = recvmsg(fd, &message, MSG_DONTWAIT);
	if (length < 0)
		return errno == EAGAIN || errno == EINTR;
	if (length == 0)
		return false;
	ended = follow(&readers[fd], bytes, (size_t)length, stamp_of(&message), times);
	while (ended > 0 && send(fd, answer, ANSWER_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT) == ANSWER_BYTES)
		ended--;
	return ended == 0;
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
		close(fd);
}

static void accept_all(int epoll, int listener)
{
	int one = 1, fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		if ((unsigned)fd >= CONNECTIONS_MAX) {
			close(fd);
			continue;
		}
		readers[fd] = (struct reader){ .in_head = false };
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one));
		watch(epoll, fd);
	}
}

/* SO_TIMESTAMPNS before the first connection: the kernel begins to stamp packets when somebody asks for it. */
static int listen_on(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t length = sizeof(address);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one)) != 0 ||
	    bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 4096) != 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
		perror("arrivals: listen");
		return -1;
	}
	printf("listening on port %u\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

/* Serves until a signal comes. */
static void run(int epoll, int listener, int signals, struct times *times)
{
	struct epoll_event events[EVENTS_MAX];

	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS_MAX, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd == signals)
				return;
			if (fd == listener)
				accept_all(epoll, listener);
			else if (!serve(fd, times))
				close(fd);
		}
	}
}

static int compare_times(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool write_times(const char *path, struct times *times)
{
	FILE *file = fopen(path, "w");
	bool ok = file != NULL && !times->is_incomplete;

	if (times->count > 0)
		qsort(times->ns, times->count, sizeof(times->ns[0]), compare_times);
	for (size_t i = 0; ok && i < times->count; i++)
		ok = fprintf(file, "%" PRIu64 "\n", times->ns[i]) > 0;
	if (file != NULL && fclose(file) != 0)
		ok = false;
	if (!ok)
		perror("arrivals: the times could not be written");
	return ok;
}

int main(int argc, char **argv)
{
	struct rlimit files = { CONNECTIONS_MAX, CONNECTIONS_MAX };
	struct times times = { .ns = NULL };
	sigset_t endings;
	int epoll, listener, signals;

	if (argc != 3) {
		fprintf(stderr, "usage: arrivals PORT FILE\n");
		return 2;
	}
	setrlimit(RLIMIT_NOFILE, &files); /* if it may not be raised, fewer connections are served */
	sigemptyset(&endings);
	sigaddset(&endings, SIGTERM);
	sigaddset(&endings, SIGINT);
	sigprocmask(SIG_BLOCK, &endings, NULL);
	signals = signalfd(-1, &endings, SFD_CLOEXEC);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_on((uint16_t)strtoul(argv[1], NULL, 10));
	if (signals < 0 || epoll < 0 || listener < 0)
		return 1;
	watch(epoll, signals);
	watch(epoll, listener);
	run(epoll, listener, signals, &times);
	bool written = write_times(argv[2], &times);
	free(times.ns);
	return written ? 0 : 1;
}
