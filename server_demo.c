/* server_demo.c: a small server to put behind weir: of HTTP/1.1, or of the message switch.
 *
 *      server_demo --http 9001 --name target1
 *
 *      GET /        200, "Hello, world!"            X-Target: target1     on every answer, so that a client
 *      GET /ping/   200, "pong"                                           can count who answered it
 *
 *      server_demo -id 100 -pp 111 -listen 2105 -revproc 2100             see lib/demo_server.h
 *
 * The problem: a proxy is understood by watching what reaches the servers behind it, and those should be small enough
 * to be read in one sitting and strict enough that a proxy's mistakes do not go unnoticed. Python's http.server, say,
 * takes two lengths in one request and reads on.
 *
 * The idea: the main thread accepts, one thread serves each connection from its first request to its last. There is no
 * shared state at all but the count of free places, so there is nothing to lock:
 *
 *      main:    take a place ── accept ── start a thread ─┐     (and round again)
 *      thread:  head ── body ── answer ── head ── ...     ┘     close, give the place back
 *
 * The invariant: a place is taken before accept() and given back after close(), so there are never more connections
 * than the process may have open files. Without it accept() fails with EMFILE while the connection stays in the queue,
 * and the loop around it turns at full speed doing nothing.
 *
 * After an error in a request nothing more is read as one: where the next request begins is not known any more, and a
 * guess would let one client's body be another client's request (RFC 9112 sections 2.2, 6.3 and 11.2).
 */
#include "lib/clock.h"
#include "lib/demo_server.h"
#include "lib/flags.h"
#include "lib/packet.h"
#include "lib/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IDLE_US (75 * US_PER_S) /* longer than a proxy keeps idle connections, so that it is the proxy that closes */
#define HEAD_US (10 * US_PER_S)
#define BODY_US (60 * US_PER_S)
#define SEND_US (30 * US_PER_S)
#define LINGER_US (1 * US_PER_S)
#define BODY_BYTES_MAX (UINT64_C(1) << 30)
#define LINGER_BYTES_MAX (UINT64_C(1) << 20)
#define PLACES_MAX 20000
#define SPARE_FILES 16
#define STACK_BYTES ((size_t)256 * 1024)
#define NAME_BYTES_MAX 64

struct server {
	uint64_t port;
	const char *name; /* what X-Target says */
	uint64_t delay_ms;
	const char *log_path;
	int log_fd; /* -1: no log */
	int listening_fd;
	sem_t places; /* connections that may still be opened */
	bool is_packet_server;
	struct demo_server demo; /* then */
};

/* One connection, and the request that it is at. Belongs to the thread that serves it. */
struct session {
	struct server *server;
	struct wire wire;
	struct wire_framing framing;
	char method[32];
	char path[256]; /* cut, if longer: no such path exists here anyway */
	int minor_version;
	unsigned hosts;
	bool expects_continue;
	bool expects_other;
	uint64_t arrived_us; /* when the first bytes of the head came */
};

/* What to do after a request was read or refused. status is 0 when there is nobody to answer. */
struct verdict {
	int status;
	bool closes;
};

static const struct verdict goes_on = { 200, false };

static struct verdict refused_with(int status)
{
	return (struct verdict){ status, true };
}

/* A connection that ends between two requests ends well; one that ends within a request cannot be answered. */
static struct verdict verdict_of(enum wire_result result)
{
	switch (result) {
	case WIRE_OK:
		return goes_on;
	case WIRE_LATE:
		return refused_with(408);
	case WIRE_MALFORMED:
		return refused_with(400);
	case WIRE_TOO_BIG:
		return refused_with(431);
	case WIRE_END:
	case WIRE_RESET:
		break;
	}
	return refused_with(0);
}

/* ---- reading a request ------------------------------------------------------------------------------------------- */

/* "http://host:1/a?b" and "/a?b" are both the path "/a" (RFC 9112 section 3.2.2: a server must know the absolute
   form). */
static bool read_target(struct session *s, const char *target)
{
	if (strncasecmp(target, "http://", 7) == 0) {
		const char *authority = target + 7;
		target = authority + strcspn(authority, "/?#");
		if (target == authority)
			return false;
		if (*target == '\0' || *target == '?')
			target = "/";
	}
	bool is_asterisk = strcmp(target, "*") == 0 && strcmp(s->method, "OPTIONS") == 0;
	if ((*target != '/' && !is_asterisk) || strchr(target, '#'))
		return false;
	size_t length = strcspn(target, "?");
	if (length >= sizeof s->path)
		length = sizeof s->path - 1;
	memcpy(s->path, target, length);
	s->path[length] = '\0';
	return true;
}

/* method SP target SP HTTP/1.d, with exactly one blank each. Tears the line apart. */
static struct verdict read_request_line(struct session *s, char *line)
{
	char *target = strchr(line, ' ');
	char *version = target ? strchr(target + 1, ' ') : NULL;
	if (!target || !version)
		return refused_with(400);
	*target++ = '\0';
	*version++ = '\0';

	size_t letters = strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~");
	if (letters == 0 || line[letters] != '\0')
		return refused_with(400);
	if (letters >= sizeof s->method)
		return refused_with(501);
	memcpy(s->method, line, letters + 1);

	if (strlen(version) != 8 || strncmp(version, "HTTP/", 5) != 0 || version[5] < '0' || version[5] > '9' ||
	    version[6] != '.' || version[7] < '0' || version[7] > '9')
		return refused_with(400);
	if (version[5] != '1')
		return refused_with(505);
	s->minor_version = version[7] - '0';

	for (const char *c = target; *c; c++)
		if (*c < '!' || *c > '~')
			return refused_with(400);
	return read_target(s, target) ? goes_on : refused_with(400);
}

static enum wire_result take_field(struct session *s, char *line)
{
	char *name, *value;
	if (!wire_field(line, &name, &value))
		return WIRE_MALFORMED;
	for (const unsigned char *c = (const unsigned char *)value; *c; c++)
		if ((*c < ' ' && *c != '\t') || *c == 127)
			return WIRE_MALFORMED;
	if (strcasecmp(name, "Host") == 0)
		s->hosts++;
	if (strcasecmp(name, "Expect") == 0) {
		if (strcasecmp(value, "100-continue") == 0)
			s->expects_continue = true;
		else
			s->expects_other = true;
	}
	return wire_framing_field(&s->framing, name, value);
}

/* What the fields say together, once all of them are known. */
static struct verdict judge_head(const struct session *s)
{
	if (s->hosts > 1 || (s->hosts == 0 && s->minor_version > 0))
		return refused_with(400);
	if (s->framing.is_chunked && s->minor_version == 0)
		return refused_with(400);
	if (s->expects_other)
		return refused_with(417);
	if (s->framing.has_length && s->framing.length > BODY_BYTES_MAX)
		return refused_with(413);
	return goes_on;
}

static struct verdict read_head(struct session *s)
{
	size_t budget_bytes = WIRE_HEAD_BYTES;
	char *line;

	/* Waiting for a request to begin is not part of it: a kept connection may be silent for long, a head may not. */
	if (wire_wait(&s->wire, clock_us() + IDLE_US) != WIRE_OK)
		return refused_with(0);
	uint64_t deadline_us = clock_us() + HEAD_US;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	s->arrived_us = (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
	if (s->wire.arrived_us > 0)
		s->arrived_us = s->wire.arrived_us;

	enum wire_result got = wire_line(&s->wire, &budget_bytes, deadline_us, &line);
	/* One empty line before a request is an old client's habit (RFC 9112 section 2.2). */
	if (got == WIRE_OK && *line == '\0')
		got = wire_line(&s->wire, &budget_bytes, deadline_us, &line);
	if (got != WIRE_OK)
		return verdict_of(got);
	struct verdict verdict = read_request_line(s, line);
	if (verdict.closes)
		return verdict;
	for (;;) {
		got = wire_line(&s->wire, &budget_bytes, deadline_us, &line);
		if (got != WIRE_OK)
			return verdict_of(got);
		if (*line == '\0')
			return judge_head(s);
		got = take_field(s, line);
		if (got != WIRE_OK)
			return verdict_of(got);
	}
}

static struct verdict read_body(struct session *s)
{
	static const char go_ahead[] = "HTTP/1.1 100 Continue\r\n\r\n";
	uint64_t body_bytes = 0;
	bool has_body = s->framing.is_chunked || (s->framing.has_length && s->framing.length > 0);

	if (has_body && s->expects_continue && s->minor_version > 0 &&
	    wire_send(s->wire.fd, go_ahead, sizeof go_ahead - 1, clock_us() + SEND_US) != WIRE_OK)
		return refused_with(0);
	enum wire_result got = wire_skip_body(&s->wire, &s->framing, BODY_BYTES_MAX, clock_us() + BODY_US, &body_bytes);
	return got == WIRE_TOO_BIG ? refused_with(413) : verdict_of(got);
}

static struct verdict read_request(struct session *s)
{
	memset(&s->framing, 0, sizeof s->framing);
	s->method[0] = s->path[0] = '\0';
	s->minor_version = 1;
	s->hosts = 0;
	s->expects_continue = s->expects_other = false;

	struct verdict verdict = read_head(s);
	if (!verdict.closes)
		verdict = read_body(s);
	if (verdict.closes)
		return verdict;
	if (strcmp(s->path, "/") != 0 && strcmp(s->path, "/ping/") != 0 && strcmp(s->path, "*") != 0)
		verdict.status = 404;
	verdict.closes = s->framing.asks_close || (s->minor_version == 0 && !s->framing.asks_keep_alive);
	return verdict;
}

/* ---- answering --------------------------------------------------------------------------------------------------- */

static const char *reason_of(int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 408: return "Request Timeout";
	case 413: return "Content Too Large";
	case 417: return "Expectation Failed";
	case 431: return "Request Header Fields Too Large";
	case 501: return "Not Implemented";
	case 505: return "HTTP Version Not Supported";
	}
	return "Unknown";
}

static const char *body_of(const struct session *s, int status)
{
	if (status != 200)
		return reason_of(status);
	return strcmp(s->path, "/ping/") == 0 ? "pong" : strcmp(s->path, "*") == 0 ? "" : "Hello, world!";
}

/* One write for one line: lines of several threads never mix, and none is lost in a buffer when the process is
   ended. */
static void log_request(const struct session *s, int status)
{
	char line[512];
	if (s->server->log_fd < 0)
		return;
	int length = snprintf(line, sizeof line, "%" PRIu64 ".%06" PRIu64 " %s %s %s %d\n", s->arrived_us / US_PER_S,
	                      s->arrived_us % US_PER_S, s->server->name, *s->method ? s->method : "-",
	                      *s->path ? s->path : "-", status);
	if (length > 0 && (size_t)length < sizeof line && write(s->server->log_fd, line, (size_t)length) < 0)
		fprintf(stderr, "server_demo: cannot write the log: %s\n", strerror(errno));
}

static enum wire_result answer(struct session *s, struct verdict verdict)
{
	char date[64], message[1024];
	time_t now = time(NULL);
	struct tm utc;
	gmtime_r(&now, &utc);
	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);

	const char *body = body_of(s, verdict.status);
	const char *connection = verdict.closes ? "Connection: close\r\n"
	                         : s->minor_version == 0 ? "Connection: keep-alive\r\n" : "";
	/* A HEAD is answered with the head that a GET would get, its length included, and not one byte more. */
	bool has_body = strcmp(s->method, "HEAD") != 0;
	int length = snprintf(message, sizeof message,
	                      "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
	                      "X-Target: %s\r\n%s\r\n%s",
	                      verdict.status, reason_of(verdict.status), date, strlen(body), s->server->name, connection,
	                      has_body ? body : "");
	if (length < 0 || (size_t)length >= sizeof message)
		return WIRE_TOO_BIG;
	return wire_send(s->wire.fd, message, (size_t)length, clock_us() + SEND_US);
}

/* Close at once with unread bytes in the socket, and the kernel sends a reset, which throws away the answer that the
   client has not read yet. So: say that nothing more comes, and read for a moment what the client still sends. */
static void close_gently(struct session *s)
{
	uint64_t dropped_bytes = 0;
	shutdown(s->wire.fd, SHUT_WR);
	wire_skip_to_end(&s->wire, LINGER_BYTES_MAX, clock_us() + LINGER_US, &dropped_bytes);
	close(s->wire.fd);
}

static void delay(uint64_t delay_ms)
{
	struct timespec left = { .tv_sec = (time_t)(delay_ms / 1000), .tv_nsec = (long)(delay_ms % 1000) * 1000000 };
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

static void serve_http(struct session *s)
{
	struct server *server = s->server;
	struct verdict verdict;

	do {
		verdict = read_request(s);
		if (verdict.status == 0)
			break;
		log_request(s, verdict.status);
		if (server->delay_ms > 0)
			delay(server->delay_ms);
		if (answer(s, verdict) != WIRE_OK)
			verdict = refused_with(0);
	} while (!verdict.closes);

	if (verdict.status == 0)
		close(s->wire.fd);
	else
		close_gently(s);
}

static void *serve(void *argument)
{
	struct session *s = argument;
	struct server *server = s->server;

	if (server->is_packet_server) {
		demo_server_serve(&server->demo, &s->wire);
		close_gently(s);
	} else {
		serve_http(s);
	}
	free(s);
	sem_post(&server->places);
	return NULL;
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

/* False when there is no memory or no thread for it: the connection is closed, the server lives. */
static bool start_session(struct server *server, int fd)
{
	pthread_attr_t attributes;
	pthread_t thread;
	struct session *s = malloc(sizeof *s);

	if (!s || pthread_attr_init(&attributes) != 0) {
		free(s);
		return false;
	}
	s->server = server;
	wire_begin(&s->wire, fd);
	s->wire.wants_arrival = server->log_fd >= 0;
	int one = 1;
	/* Answers are written in one piece; waiting for a fuller packet (Nagle) would only delay the second of two. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int failed = pthread_create(&thread, &attributes, serve, s);
	pthread_attr_destroy(&attributes);
	if (failed)
		free(s);
	return failed == 0;
}

static void serve_forever(struct server *server)
{
	for (;;) {
		while (sem_wait(&server->places) != 0)
			;
		int fd = accept4(server->listening_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0 && start_session(server, fd))
			continue;
		if (fd >= 0) {
			fprintf(stderr, "server_demo: no memory or no thread for a connection; closed it\n");
			close(fd);
		} else if (errno != EINTR && errno != ECONNABORTED) {
			/* The whole machine is out of files or memory. That passes; asking at full speed does not help. */
			fprintf(stderr, "server_demo: accept: %s\n", strerror(errno));
			delay(10);
		}
		sem_post(&server->places);
	}
}

static int listen_on(int family, uint64_t port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_any, .sin6_port = htons((uint16_t)port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	const struct sockaddr *address = family == AF_INET6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
	socklen_t size = family == AF_INET6 ? sizeof v6 : sizeof v4;
	int one = 1, zero = 0;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	/* Else a restart on the same port fails for a minute, while the old connections are in TIME_WAIT. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	/* One socket for both worlds: IPv4 clients appear as ::ffff:a.b.c.d. */
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (bind(fd, address, size) == 0 && listen(fd, SOMAXCONN) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Opens the socket and learns the port that the kernel chose for port 0. */
static int open_server(struct server *server)
{
	struct sockaddr_storage bound;
	socklen_t size = sizeof bound;
	int one = 1;

	server->listening_fd = listen_on(AF_INET6, server->port);
	if (server->listening_fd < 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
		server->listening_fd = listen_on(AF_INET, server->port);
	if (server->listening_fd < 0)
		return -1;
	/* Set here, connections inherit it, and it is on before their first byte comes. */
	if (server->log_fd >= 0)
		setsockopt(server->listening_fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
	if (getsockname(server->listening_fd, (struct sockaddr *)&bound, &size) != 0)
		return -1;
	server->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
	                                                 : ((struct sockaddr_in *)&bound)->sin_port);
	return 0;
}

/* As many connections as the process may have files, less a few for the log and the like. */
static unsigned count_places(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return 256;
	if (files.rlim_cur < files.rlim_max && files.rlim_cur < PLACES_MAX + SPARE_FILES) {
		rlim_t wanted = PLACES_MAX + SPARE_FILES;
		files.rlim_cur = files.rlim_max < wanted ? files.rlim_max : wanted;
		setrlimit(RLIMIT_NOFILE, &files);
		getrlimit(RLIMIT_NOFILE, &files);
	}
	if (files.rlim_cur >= PLACES_MAX + SPARE_FILES)
		return PLACES_MAX;
	return files.rlim_cur > 2 * SPARE_FILES ? (unsigned)files.rlim_cur - SPARE_FILES : SPARE_FILES;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* A target that dies is what the demos are about: no goodbye to anyone. _exit() may be called here, exit() may not. */
static void end_at_once(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static bool is_good_name(const char *name)
{
	size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-");
	return length > 0 && length <= NAME_BYTES_MAX && name[length] == '\0';
}

static const char usage[] =
	"server_demo --http PORT [--name NAME] [--delay MS] [--log FILE]\n"
	"server_demo --id ID --pp POLICY --listen PORT --revproc [HOST:]PORT [--delay MS] [--patience SECONDS]\n"
	"\n"
	"A small HTTP/1.1 server to put behind weir. GET / answers \"Hello, world!\", GET /ping/ answers 200,\n"
	"anything else 404; every answer says X-Target: NAME. Or a server of the message switch (weir packet): it\n"
	"sets itself up at the reverse proxy and answers each message with the SHA-1 of its payload. SIGTERM and\n"
	"SIGINT end it at once, with status 0.\n"
	"\n";

#define NO_PORT UINT64_MAX

/* What was asked for, before it is checked. */
struct wish {
	uint64_t http_port, listen_port;
	const char *proxy;
};

static bool is_good_id(const char *id)
{
	size_t length = strlen(id);
	for (const char *c = id; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			return false;
	return length > 0 && length < PACKET_ID_MAX;
}

/* The options of the message switch go together. */
static enum flags_result check_packet_options(struct server *server, const struct wish *wish,
                                              char error[FLAGS_ERROR_BYTES])
{
	const char *const names[] = { "id", "pp", "listen", "revproc" };
	const bool given[] = { server->demo.id != NULL, server->demo.policy != NULL, wish->listen_port != NO_PORT,
		               wish->proxy != NULL };
	for (size_t there = 0; there < 4; there++)
		for (size_t missing = 0; given[there] && missing < 4; missing++)
			if (!given[missing]) {
				snprintf(
					error, FLAGS_ERROR_BYTES,
					"--%s was read and --%s is missing; allowed: --id ID --pp POLICY --listen PORT "
					"--revproc [HOST:]PORT together, or none of them",
					names[there], names[missing]);
				return FLAGS_WRONG;
			}
	server->is_packet_server = given[0];
	if (!given[0])
		return FLAGS_READ;
	for (size_t i = 0; i < 2; i++) {
		const char *id = i == 0 ? server->demo.id : server->demo.policy;
		if (is_good_id(id))
			continue;
		snprintf(error, FLAGS_ERROR_BYTES, "--%s: '%.80s' was read; allowed: a text of 1 to %u bytes", names[i],
		         id, PACKET_ID_MAX - 1);
		return FLAGS_WRONG;
	}
	if (demo_read_proxy(wish->proxy, &server->demo.proxy))
		return FLAGS_READ;
	snprintf(error, FLAGS_ERROR_BYTES, "--revproc: '%.80s' was read; allowed: a port from 1 to 65535, or HOST:PORT",
	         wish->proxy);
	return FLAGS_WRONG;
}

/* Checks what the table cannot. */
static enum flags_result check_options(struct server *server, const struct wish *wish, char error[FLAGS_ERROR_BYTES])
{
	enum flags_result result = check_packet_options(server, wish, error);
	if (result != FLAGS_READ)
		return result;
	if (server->is_packet_server == (wish->http_port != NO_PORT)) {
		snprintf(error, FLAGS_ERROR_BYTES,
		         "--http %s; allowed: --http PORT, or --id, --pp, --listen and --revproc",
		         server->is_packet_server ? "was read beside --id" : "is missing");
		return FLAGS_WRONG;
	}
	if (server->name && !is_good_name(server->name)) {
		snprintf(error, FLAGS_ERROR_BYTES,
		         "--name: '%.80s' was read; allowed: 1 to %d letters, digits and . _ : -", server->name,
		         NAME_BYTES_MAX);
		return FLAGS_WRONG;
	}
	server->port = server->is_packet_server ? wish->listen_port : wish->http_port;
	server->demo.delay_us = server->delay_ms * US_PER_MS;
	return FLAGS_READ;
}

/* Returns the exit status, or -1 to go on. */
static int read_options(struct server *server, int argc, char **argv)
{
	struct wish wish = { .http_port = NO_PORT, .listen_port = NO_PORT };
	const struct flag table[] = {
		{ .name = "http",
		  .kind = FLAG_NUMBER,
		  .into.number = &wish.http_port,
		  .highest = 65535,
		  .value = "PORT",
		  .help = "listen on this port for HTTP; 0 picks a free one" },
		{ .name = "name",
		  .kind = FLAG_TEXT,
		  .into.text = &server->name,
		  .value = "NAME",
		  .help = "what X-Target says (target-PORT)" },
		{ .name = "delay",
		  .kind = FLAG_NUMBER,
		  .into.number = &server->delay_ms,
		  .highest = 3600000,
		  .value = "MS",
		  .help = "wait this many milliseconds before each answer (0)" },
		{ .name = "log",
		  .kind = FLAG_TEXT,
		  .into.text = &server->log_path,
		  .value = "FILE",
		  .help = "append a line for each HTTP request: time of arrival, name, method, path, status" },
		{ .name = "id",
		  .kind = FLAG_TEXT,
		  .into.text = &server->demo.id,
		  .value = "ID",
		  .help = "message switch: the id of this server" },
		{ .name = "pp",
		  .kind = FLAG_TEXT,
		  .into.text = &server->demo.policy,
		  .value = "POLICY",
		  .help = "message switch: the privacy policy that it serves" },
		{ .name = "listen",
		  .kind = FLAG_NUMBER,
		  .into.number = &wish.listen_port,
		  .highest = 65535,
		  .value = "PORT",
		  .help = "message switch: listen on this port; 0 picks a free one" },
		{ .name = "revproc",
		  .kind = FLAG_TEXT,
		  .into.text = &wish.proxy,
		  .value = "[HOST:]PORT",
		  .help = "message switch: where the reverse proxy is (this machine)" },
		{ .name = "patience",
		  .kind = FLAG_SECONDS,
		  .into.number = &server->demo.patience_us,
		  .highest = 3600 * US_PER_S,
		  .value = "SECONDS",
		  .help = "message switch: how long the reverse proxy may take to appear (10)" },
	};
	const size_t count = sizeof table / sizeof table[0];
	char error[FLAGS_ERROR_BYTES];

	enum flags_result result = flags_read(table, count, argc, argv, error);
	if (result == FLAGS_READ)
		result = check_options(server, &wish, error);
	return result == FLAGS_READ ? -1 : flags_finish(result, "server_demo", usage, table, count, error);
}

static int fail(const char *what, const char *which)
{
	int error = errno;
	fprintf(stderr, "server_demo: %s %s: %s\n", what, which, strerror(error));
	return 1;
}

/* Says who it is, as the exercise does, and sets itself up. Lines come as they are printed, also through a pipe. */
static bool begin_packet_server(const struct server *server)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("Server running with id %s%s%s\n", demo_colour(server->demo.id), server->demo.id, demo_plain());
	printf("Server serving privacy policy %s\n", server->demo.policy);
	printf("Listening on port %" PRIu64 "\n", server->port);
	return demo_server_set_up(&server->demo, (unsigned)server->port);
}

int main(int argc, char **argv)
{
	/* On main()'s stack, and used by all threads: main() never returns while there are any. */
	struct server server = { .log_fd = -1, .listening_fd = -1, .demo.patience_us = 10 * US_PER_S };
	char own_name[32], port_text[32];

	int status = read_options(&server, argc, argv);
	if (status >= 0)
		return status;

	struct sigaction ending = { .sa_handler = end_at_once };
	sigaction(SIGTERM, &ending, NULL);
	sigaction(SIGINT, &ending, NULL);

	if (server.log_path) {
		server.log_fd = open(server.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (server.log_fd < 0)
			return fail("cannot open the log", server.log_path);
	}
	snprintf(port_text, sizeof port_text, "%" PRIu64, server.port);
	if (open_server(&server) != 0)
		return fail("cannot listen on port", port_text);
	if (sem_init(&server.places, 0, count_places()) != 0)
		return fail("cannot count", "places");
	if (!server.name) {
		snprintf(own_name, sizeof own_name, "target-%" PRIu64, server.port);
		server.name = own_name;
	}
	if (server.is_packet_server && !begin_packet_server(&server))
		return 1;
	if (!server.is_packet_server)
		printf("server_demo %s listens on port %" PRIu64 "\n", server.name, server.port);
	if (fflush(stdout) != 0)
		return fail("cannot write to", "stdout");
	serve_forever(&server);
}
