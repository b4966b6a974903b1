/* load.c: a load generator that keeps to its timetable, checks every answer, and costs little.
 *
 *      load --port N [--rate N] [--connections N] [--idle N] [--seconds N] [--close] [--target /] [--statuses 200] --body FILE
 *
 * wrk asks again as soon as it has an answer: a proxy that stops for 10 ms delays one request of each connection, and nobody asks
 * what the hundred requests that should have come meanwhile would have met ("coordinated omission"). Here requests have a timetable:
 *
 *      due:    |    |    |    |    |    |    |    |        one every 1/rate seconds, whatever the proxy does
 *      sent:   |    |    |              |||| |    |        on the connection that has been free for longest
 *      latency:                ◄───────►                   from when it was due to the last byte of its answer
 *
 * So a request that had to wait for a free connection, or for this program, counts its waiting. --rate 0: no timetable, each
 * connection asks again at once (then the latency is from the send).
 *
 * Before anything is counted all connections are opened, the idle ones too, each makes one request, and the load runs for a
 * second: the first rush makes the proxy open connections to its target, and is no part of the question. Then the program
 * says "READY" and waits for a line on stdin; after the run it says "RESULT {json}" and waits for another: so whoever
 * measures CPU and memory from outside can do it with nothing else under way, and every connection still there.
 *
 * One thread and epoll; one recv() and one send() a request. An answer that differs in one byte of its body from FILE, or has a
 * status not asked for, makes the run worthless: exit 1.
 *
 * Source: G. Tene, "How NOT to Measure Latency"; wrk2.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_US UINT64_C(1000)
#define EVENTS_MAX 256
#define HEAD_MAX 4096u
#define BODY_MAX 65536u
#define STATUSES_MAX 4
#define WARM_UP_SECONDS 1
#define SILENCE_NS (5 * NS_PER_S) /* without any answer for so long, something is broken */

struct connection {
	int fd;
	char *answer; /* HEAD_MAX and the body */
	size_t length;
	uint64_t due_ns;
	struct connection *next_free;
};

struct load {
	unsigned port, connection_count, idle_count, rate, seconds;
	bool closes; /* a new connection for each request */
	const char *target;
	long statuses[STATUSES_MAX];
	char request[1024];
	size_t request_length;
	char body[BODY_MAX];
	size_t body_length;

	struct connection *connections, *idle;
	struct connection *first_free, *last_free;
	int epoll_fd;
	uint64_t end_ns, answered_ns;
	uint64_t *latencies_ns;
	size_t count, capacity;
	uint64_t by_status[STATUSES_MAX];
};

static _Noreturn void give_up(const char *what, const char *why)
{
	fprintf(stderr, "load: %s: %s\n", what, why);
	exit(1);
}

static uint64_t clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- the answers ---------------------------------------------------------------------------------------------------- */

/* Which of the statuses asked for it is; anything else ends the run. */
static unsigned check_status(struct load *load, const struct connection *c)
{
	long status = strncmp(c->answer, "HTTP/1.", 7) == 0 ? strtol(c->answer + 9, NULL, 10) : 0;
	for (unsigned i = 0; i < STATUSES_MAX; i++)
		if (load->statuses[i] != 0 && load->statuses[i] == status)
			return i;
	c->answer[c->length < 200 ? c->length : 200] = '\0';
	give_up("an answer that was not asked for", c->answer);
}

/* Is all of it there? Then it is checked. Each answer must say its length. */
static bool answer_is_whole(struct load *load, struct connection *c)
{
	c->answer[c->length] = '\0';
	const char *end = strstr(c->answer, "\r\n\r\n");
	if (end == NULL)
		return false;
	const char *field = strcasestr(c->answer, "\r\nContent-Length:");
	if (field == NULL || field > end)
		give_up("an answer without its length", c->answer);
	size_t wanted = strtoul(field + 17, NULL, 10), got = c->length - (size_t)(end + 4 - c->answer);
	if (got < wanted)
		return false;
	unsigned which = check_status(load, c);
	if (got > wanted || (load->statuses[which] == 200 &&
	                     (wanted != load->body_length || memcmp(end + 4, load->body, wanted) != 0)))
		give_up("an answer with another body", c->answer);
	load->by_status[which]++;
	return true;
}

static void note_latency(struct load *load, uint64_t ns)
{
	if (load->count == load->capacity) {
		load->capacity = load->capacity == 0 ? 1u << 20 : 2 * load->capacity;
		load->latencies_ns = realloc(load->latencies_ns, load->capacity * sizeof *load->latencies_ns);
		if (load->latencies_ns == NULL)
			give_up("latencies", "no memory");
	}
	load->latencies_ns[load->count++] = ns;
}

/* ---- one connection ------------------------------------------------------------------------------------------------- */

static int connect_to(unsigned port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
		give_up("cannot connect", strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static void open_connection(struct load *load, struct connection *c)
{
	struct epoll_event wanted = { .events = EPOLLIN, .data.ptr = c };
	c->fd = connect_to(load->port);
	if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, c->fd, &wanted) != 0)
		give_up("epoll_ctl", strerror(errno));
}

static void ask(struct load *load, struct connection *c, uint64_t due_ns)
{
	if (c->fd < 0)
		open_connection(load, c);
	c->due_ns = due_ns;
	c->length = 0;
	if (send(c->fd, load->request, load->request_length, MSG_NOSIGNAL) != (ssize_t)load->request_length)
		give_up("cannot send", strerror(errno));
}

static void set_free(struct load *load, struct connection *c)
{
	c->next_free = NULL;
	if (load->first_free == NULL)
		load->first_free = c;
	else
		load->last_free->next_free = c;
	load->last_free = c;
}

/* Takes what has come. True when the answer is whole; for a connection that the proxy is to close: when it has closed. */
static bool hear(struct load *load, struct connection *c)
{
	size_t room = HEAD_MAX + load->body_length - c->length;
	ssize_t count = recv(c->fd, c->answer + c->length, room, 0);
	if (count < 0 || (count == 0 && (!load->closes || !answer_is_whole(load, c))))
		give_up("an answer was cut short", count < 0 ? strerror(errno) : "the connection was closed");
	c->length += (size_t)count;
	if (count > 0)
		return !load->closes && answer_is_whole(load, c);
	close(c->fd);
	c->fd = -1;
	return true;
}

/* ---- the run -------------------------------------------------------------------------------------------------------- */

/* Sends what is due and can be sent. Returns when the next is due, or end_ns when no connection is free. */
static uint64_t ask_what_is_due(struct load *load, uint64_t *next_due_ns)
{
	uint64_t now_ns = clock_ns();
	while (load->first_free != NULL && now_ns < load->end_ns) {
		struct connection *c = load->first_free;
		if (load->rate > 0 && *next_due_ns > now_ns)
			return *next_due_ns;
		load->first_free = c->next_free;
		ask(load, c, load->rate > 0 ? *next_due_ns : clock_ns());
		*next_due_ns += load->rate > 0 ? NS_PER_S / load->rate : 0;
	}
	return load->end_ns;
}

static void wait_and_hear(struct load *load, uint64_t until_ns)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t now_ns = clock_ns(), left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
	struct timespec left = { .tv_sec = (time_t)(left_ns / NS_PER_S), .tv_nsec = (long)(left_ns % NS_PER_S) };
	int ready = epoll_pwait2(load->epoll_fd, events, EVENTS_MAX, &left, NULL);
	if (ready < 0 && errno != EINTR)
		give_up("epoll_pwait2", strerror(errno));
	for (int i = 0; i < ready; i++) {
		struct connection *c = events[i].data.ptr;
		if (!hear(load, c))
			continue;
		load->answered_ns = clock_ns();
		note_latency(load, load->answered_ns - c->due_ns);
		set_free(load, c);
	}
	if (clock_ns() > load->answered_ns + SILENCE_NS)
		give_up("no answer", "for five seconds");
}

static bool all_are_free(const struct load *load)
{
	size_t count = 0;
	for (const struct connection *c = load->first_free; c != NULL; c = c->next_free)
		count++;
	return count == load->connection_count;
}

/* Until the end, and then until the last answer. Returns how long it took. What was found before is forgotten. */
static uint64_t run(struct load *load, unsigned seconds)
{
	uint64_t begun_ns = clock_ns(), next_due_ns = begun_ns;
	load->end_ns = begun_ns + seconds * NS_PER_S;
	load->count = 0;
	memset(load->by_status, 0, sizeof load->by_status);
	load->answered_ns = begun_ns;
	while (clock_ns() < load->end_ns)
		wait_and_hear(load, ask_what_is_due(load, &next_due_ns));
	while (!all_are_free(load))
		wait_and_hear(load, clock_ns() + SILENCE_NS);
	return load->answered_ns - begun_ns;
}

/* Each connection makes its first request, one after the other: this is not what is measured. */
static void open_all(struct load *load, struct connection *connections, unsigned count, bool is_idle)
{
	for (unsigned i = 0; i < count; i++) {
		struct connection *c = &connections[i];
		c->answer = malloc(HEAD_MAX + load->body_length + 1);
		if (c->answer == NULL)
			give_up("connections", "no memory");
		c->fd = connect_to(load->port);
		ask(load, c, 0);
		while (!hear(load, c))
			;
		if (is_idle) {
			free(c->answer);
			c->answer = NULL;
			continue;
		}
		struct epoll_event wanted = { .events = EPOLLIN, .data.ptr = c };
		if (c->fd >= 0 && epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, c->fd, &wanted) != 0)
			give_up("epoll_ctl", strerror(errno));
		set_free(load, c);
	}
}

/* ---- what it found -------------------------------------------------------------------------------------------------- */

static int compare(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
	return a < b ? -1 : a > b;
}

static double percentile_us(const struct load *load, double share)
{
	size_t rank = (size_t)(share * (double)(load->count - 1));
	return (double)load->latencies_ns[rank] / (double)NS_PER_US;
}

static void report(struct load *load, uint64_t took_ns)
{
	struct rusage used;
	if (load->count == 0)
		give_up("nothing", "not one answer");
	getrusage(RUSAGE_SELF, &used);
	qsort(load->latencies_ns, load->count, sizeof *load->latencies_ns, compare);
	printf("RESULT {\"requests\": %zu, \"duration_us\": %.0f, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, "
	       "\"max_us\": %.1f, \"load_cpu_us\": %ld, \"statuses\": {",
	       load->count, (double)took_ns / (double)NS_PER_US, percentile_us(load, 0.5), percentile_us(load, 0.9),
	       percentile_us(load, 0.99), percentile_us(load, 1),
	       (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec + used.ru_stime.tv_usec);
	for (unsigned i = 0; i < STATUSES_MAX && load->statuses[i] != 0; i++)
		printf("%s\"%ld\": %llu", i > 0 ? ", " : "", load->statuses[i], (unsigned long long)load->by_status[i]);
	printf("}}\n");
	fflush(stdout);
}

static void wait_for_word(void)
{
	int byte;
	while ((byte = getchar()) != EOF && byte != '\n')
		;
}

/* ---- the arguments -------------------------------------------------------------------------------------------------- */

static unsigned number_of(const char *name, const char *text)
{
	char *end;
	errno = 0;
	unsigned long number = strtoul(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || number > 10000000)
		give_up(name, "not a number from 0 to 10,000,000");
	return (unsigned)number;
}

static void read_statuses(struct load *load, char *list)
{
	memset(load->statuses, 0, sizeof load->statuses);
	unsigned count = 0;
	for (char *word = strtok(list, ","); word != NULL; word = strtok(NULL, ",")) {
		if (count == STATUSES_MAX)
			give_up("--statuses", "at most four");
		load->statuses[count++] = number_of("--statuses", word);
	}
}

static void read_body(struct load *load, const char *path)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL)
		give_up(path, strerror(errno));
	load->body_length = fread(load->body, 1, sizeof load->body, file);
	if (load->body_length == sizeof load->body)
		give_up(path, "longer than 64 KiB");
	fclose(file);
}

static void read_arguments(struct load *load, int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },     { "rate", required_argument, NULL, 'r' },
		{ "connections", required_argument, NULL, 'c' }, { "idle", required_argument, NULL, 'i' },
		{ "seconds", required_argument, NULL, 's' },  { "close", no_argument, NULL, 'x' },
		{ "target", required_argument, NULL, 't' },   { "statuses", required_argument, NULL, 'a' },
		{ "body", required_argument, NULL, 'b' },     { NULL, 0, NULL, 0 },
	};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'p': load->port = number_of("--port", optarg); break;
		case 'r': load->rate = number_of("--rate", optarg); break;
		case 'c': load->connection_count = number_of("--connections", optarg); break;
		case 'i': load->idle_count = number_of("--idle", optarg); break;
		case 's': load->seconds = number_of("--seconds", optarg); break;
		case 'x': load->closes = true; break;
		case 't': load->target = optarg; break;
		case 'a': read_statuses(load, optarg); break;
		case 'b': read_body(load, optarg); break;
		default: exit(2);
		}
	}
	if (load->port == 0 || load->port > 65535 || load->connection_count == 0 || load->seconds == 0 || optind < argc)
		give_up("arguments", "--port, and at least one connection and one second, are needed");
}

static void raise_limits(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	/* The kernel lets a timed wait run over by 50 us, to save power: half of the distance between two requests. */
	prctl(PR_SET_TIMERSLACK, 1UL);
}

int main(int argc, char **argv)
{
	static struct load load = { .connection_count = 64, .seconds = 3, .target = "/", .statuses = { 200 } };
	read_arguments(&load, argc, argv);
	raise_limits();
	int length = snprintf(load.request, sizeof load.request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s\r\n", load.target,
	                      load.port, load.closes ? "Connection: close\r\n" : "");
	if (length < 0 || (size_t)length >= sizeof load.request)
		give_up("--target", "too long");
	load.request_length = (size_t)length;
	load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	load.connections = calloc(load.connection_count, sizeof *load.connections);
	load.idle = calloc(load.idle_count + 1, sizeof *load.idle);
	if (load.epoll_fd < 0 || load.connections == NULL || load.idle == NULL)
		give_up("start", strerror(errno));
	open_all(&load, load.idle, load.idle_count, true);
	open_all(&load, load.connections, load.connection_count, false);
	run(&load, WARM_UP_SECONDS);
	printf("READY\n");
	fflush(stdout);
	wait_for_word();
	report(&load, run(&load, load.seconds));
	wait_for_word();
	return 0;
}
