/* client_demo.c: an HTTP client that sends requests at a set pace and says how it fared.
 *
 *      client_demo --url http://127.0.0.1:8000/ --count 1000 --interval 0.2 --concurrency 4
 *
 * (And a client of the message switch: client_demo -id 1 -revproc 2100 -pkt pktfiles/1.json; see lib/demo_client.h.)
 *
 * The problem: "send, wait for the answer, sleep 0.2 s" does not send five requests a second. It sends fewer, the
 * slower the server the fewer, and so it spares the server exactly when it is in trouble and hides what a user would
 * have met.
 *
 * The idea: request number n has its moment, start + n * interval, whatever happened to the others. The workers, each
 * with a thread and a connection of its own, draw numbers from one counter and sleep until the moment of the number
 * drawn:
 *
 *      numbers   0    1    2    3    4    5      drawn by whichever worker is free
 *      time     ─┼────┼────┼────┼────┼────┼─►
 *      worker A  ███       ████                  when all workers are busy a request starts late, and the summary
 *      worker B       ███████   ██    █          says by how much the worst one was late: use more workers
 *
 * The invariant: each number drawn ends in exactly one entry of the tally, as an answer with a status or as a failure
 * of one kind. What is cut short is a failure, however good its status line looked: this program is there to notice
 * it.
 *
 * A kept connection may be closed by the server just when a request is sent on it; nobody is to blame (RFC 9112 section
 * 9.3.1). So, as browsers do, a request that was sent on a used connection and got not one byte back is sent again on a
 * fresh one, if its method is idempotent. That is counted as "reconnected" and is not a failure.
 */
#include "lib/clock.h"
#include "lib/demo_client.h"
#include "lib/flags.h"
#include "lib/tally.h"
#include "lib/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORKERS_MAX 10000
#define STACK_BYTES ((size_t)256 * 1024)
#define PROGRESS_US (200 * US_PER_MS)

/* ---- what is asked ----------------------------------------------------------------------------------------------- */

enum keeping { KEEP_YES, KEEP_NO };
enum printing { PRINT_SUMMARY, PRINT_TARGETS, PRINT_ANSWERS };

struct settings {
	const char *url;
	uint64_t count, interval_us, concurrency, timeout_us, expect;
	const char *method;
	struct flag_list headers;
	unsigned keepalive; /* enum keeping */
	unsigned print;     /* enum printing */
	bool json;
	const char *proxy;  /* of the message switch */
	struct demo_client demo;
};

struct run {
	struct settings settings;
	char host[256], port[8];
	char *request; /* the same bytes each time */
	size_t request_bytes;
	bool may_repeat; /* the method is idempotent */
	bool is_head;
	struct addrinfo *addresses;
	pthread_t main_thread;
	uint64_t start_us;
	atomic_uint_fast64_t next_number;
	atomic_size_t workers_left;
	struct tally *tally;
};

/* One answer, while it is being read. */
struct answer {
	int status;
	uint64_t body_bytes;
	bool keeps_open; /* the connection may be used again */
	bool has_begun;  /* at least one byte of it came */
	char target[TALLY_NAME_BYTES];
	char retry_after[32];
};

struct worker {
	struct run *run;
	bool is_open;
	bool is_used; /* a request was answered on this connection before */
	struct wire wire;
};

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void worker_close(struct worker *w)
{
	if (w->is_open)
		close(w->wire.fd);
	w->is_open = false;
	w->is_used = false;
}

/* A blocking connect() waits for minutes where nobody answers. So: start it, wait for it with the deadline, ask how it
   went. Returns 0 or an errno. */
static int connect_until(int fd, const struct addrinfo *address, uint64_t deadline_us)
{
	int error = 0;
	socklen_t size = sizeof error;
	if (connect(fd, address->ai_addr, address->ai_addrlen) == 0)
		return 0;
	if (errno != EINPROGRESS && errno != EINTR)
		return errno;
	for (;;) {
		uint64_t left_us = clock_left_us(deadline_us);
		uint64_t left_ms = left_us / US_PER_MS + 1;
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		if (left_us == 0)
			return ETIMEDOUT;
		int ready = poll(&p, 1, left_ms > 60000 ? 60000 : (int)left_ms);
		if (ready > 0)
			break;
		if (ready < 0 && errno != EINTR)
			return errno;
	}
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

/* Tries each address of the host in turn. */
static enum tally_outcome worker_connect(struct worker *w, uint64_t deadline_us)
{
	int error = 0, one = 1;
	for (const struct addrinfo *a = w->run->addresses; a; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0) {
			error = errno;
			continue;
		}
		error = connect_until(fd, a, deadline_us);
		if (error == 0) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
			wire_begin(&w->wire, fd);
			w->is_open = true;
			w->is_used = false;
			tally_add_connection(w->run->tally);
			return TALLY_ANSWERED;
		}
		close(fd);
	}
	if (error == ETIMEDOUT && clock_left_us(deadline_us) == 0)
		return TALLY_LATE;
	return error == ECONNREFUSED ? TALLY_REFUSED : TALLY_UNREACHABLE;
}

/* Nothing may come on a connection that nothing was asked on: what does is the server's goodbye. */
static bool worker_connection_is_quiet(const struct worker *w)
{
	char byte;
	ssize_t got = recv(w->wire.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

static enum tally_outcome outcome_of(enum wire_result result, const struct answer *a)
{
	switch (result) {
	case WIRE_OK:
		return TALLY_ANSWERED;
	case WIRE_END:
		return a->has_begun ? TALLY_CUT : TALLY_CLOSED;
	case WIRE_RESET:
		return TALLY_RESET;
	case WIRE_LATE:
		return TALLY_LATE;
	case WIRE_MALFORMED:
	case WIRE_TOO_BIG:
		break;
	}
	return TALLY_MALFORMED;
}

/* "HTTP/1.1 200 OK". The reason may be empty, its blank may not (RFC 9112 section 4); many leave it out all the
   same. */
static bool read_status_line(const char *line, int *status, int *minor_version)
{
	if (strncmp(line, "HTTP/1.", 7) != 0 || line[7] < '0' || line[7] > '9' || line[8] != ' ')
		return false;
	const char *digits = line + 9;
	if (strspn(digits, "0123456789") != 3 || (digits[3] != ' ' && digits[3] != '\0'))
		return false;
	*minor_version = line[7] - '0';
	*status = (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
	return *status >= 100 && *status <= 599;
}

/* What a server says is printed later, on a terminal and in JSON: nothing goes in that means something there. */
static void copy_printable(char *out, size_t size, const char *in)
{
	size_t length = 0;
	for (; *in && length + 1 < size; in++)
		out[length++] = *in > ' ' && *in <= '~' && *in != '"' && *in != '\\' ? *in : '?';
	out[length] = '\0';
}

/* Reads one head, which may be that of an interim (1xx) answer. */
static enum wire_result read_head(struct wire *w, uint64_t deadline_us, struct answer *a, struct wire_framing *framing)
{
	size_t budget_bytes = WIRE_HEAD_BYTES;
	char *line, *name, *value;
	int minor_version = 1;

	enum wire_result got = wire_line(w, &budget_bytes, deadline_us, &line);
	if (got != WIRE_OK)
		return got;
	if (!read_status_line(line, &a->status, &minor_version))
		return WIRE_MALFORMED;
	for (;;) {
		got = wire_line(w, &budget_bytes, deadline_us, &line);
		if (got != WIRE_OK)
			return got;
		if (*line == '\0')
			break;
		if (!wire_field(line, &name, &value))
			return WIRE_MALFORMED;
		if (strcasecmp(name, "X-Target") == 0)
			copy_printable(a->target, sizeof a->target, value);
		if (strcasecmp(name, "Retry-After") == 0)
			copy_printable(a->retry_after, sizeof a->retry_after, value);
		got = wire_framing_field(framing, name, value);
		if (got != WIRE_OK)
			return got;
	}
	a->keeps_open = !framing->asks_close && (minor_version > 0 || framing->asks_keep_alive);
	return framing->is_chunked && minor_version == 0 ? WIRE_MALFORMED : WIRE_OK;
}

static enum wire_result read_answer(struct worker *w, uint64_t deadline_us, struct answer *a)
{
	struct wire_framing framing;
	enum wire_result got = wire_wait(&w->wire, deadline_us);
	if (got != WIRE_OK)
		return got;
	a->has_begun = true;
	do {
		memset(&framing, 0, sizeof framing);
		got = read_head(&w->wire, deadline_us, a, &framing);
		if (got != WIRE_OK)
			return got;
		if (a->status == 101)
			return WIRE_MALFORMED; /* nobody asked for another protocol */
	} while (a->status < 200);

	if (!w->run->is_head && a->status != 204 && a->status != 304) {
		if (framing.is_chunked || framing.has_length) {
			got = wire_skip_body(&w->wire, &framing, UINT64_MAX, deadline_us, &a->body_bytes);
		} else {
			a->keeps_open = false;
			got = wire_skip_to_end(&w->wire, UINT64_MAX, deadline_us, &a->body_bytes);
		}
	}
	/* Bytes after the end of an answer would be read as the next one: somebody has counted wrong. */
	if (got == WIRE_OK && w->wire.start < w->wire.end)
		return WIRE_MALFORMED;
	return got;
}

/* Sends the request on the open connection and reads the answer. A server may answer and close before it has read all
   of the request, so a failed send is no reason not to read. */
static enum tally_outcome exchange(struct worker *w, uint64_t deadline_us, struct answer *a)
{
	const struct run *run = w->run;
	enum wire_result sent = wire_send(w->wire.fd, run->request, run->request_bytes, deadline_us);
	if (sent == WIRE_LATE)
		return TALLY_LATE;
	enum tally_outcome outcome = outcome_of(read_answer(w, deadline_us, a), a);
	if (outcome == TALLY_ANSWERED && a->keeps_open && run->settings.keepalive == KEEP_YES)
		w->is_used = true;
	else
		worker_close(w);
	return outcome;
}

static enum tally_outcome send_request(struct worker *w, uint64_t deadline_us, struct answer *a)
{
	if (w->is_open && !worker_connection_is_quiet(w)) {
		worker_close(w);
		tally_add_reconnection(w->run->tally);
	}
	for (;;) {
		bool was_used = w->is_open && w->is_used;
		if (!w->is_open) {
			enum tally_outcome connected = worker_connect(w, deadline_us);
			if (connected != TALLY_ANSWERED)
				return connected;
		}
		memset(a, 0, sizeof *a);
		enum tally_outcome outcome = exchange(w, deadline_us, a);
		bool went_unheard = (outcome == TALLY_CLOSED || outcome == TALLY_RESET) && !a->has_begun;
		if (!went_unheard || !was_used || !w->run->may_repeat)
			return outcome;
		tally_add_reconnection(w->run->tally);
	}
}

/* ---- the workers ------------------------------------------------------------------------------------------------- */

/* On the absolute clock: a sleep that ends late does not push back the ones after it. clock_us() reads the same
   clock. */
static void sleep_until(uint64_t moment_us)
{
	struct timespec moment = {
		.tv_sec = (time_t)(moment_us / US_PER_S),
		.tv_nsec = (long)(moment_us % US_PER_S) * 1000,
	};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL) == EINTR)
		;
}

/* One line for each request, in the order in which they ended. stdio locks stdout for each call, so lines stay
   whole. */
static void print_answer(const struct run *run, uint64_t number, uint64_t began_us, const struct tally_entry *entry,
                         const struct answer *a)
{
	char what[16];
	const char *target = a->target[0] != '\0' ? a->target : "-";
	bool is_answered = entry->outcome == TALLY_ANSWERED;

	if (is_answered)
		snprintf(what, sizeof what, "%d", a->status);
	else
		snprintf(what, sizeof what, "%s", tally_outcome_name(entry->outcome));
	if (run->settings.print == PRINT_TARGETS)
		printf("%s\n", is_answered && a->target[0] != '\0' ? target : what);
	else
		printf("%" PRIu64 " %.6f %.6f %s %s %s\n", number, (double)(began_us - run->start_us) / 1e6,
		       (double)entry->took_us / 1e6, what, target, a->retry_after[0] != '\0' ? a->retry_after : "-");
}

static void send_numbered(struct worker *w, uint64_t number)
{
	struct run *run = w->run;
	struct answer a = { .status = 0 };
	struct tally_entry entry = { .status = 0 };
	uint64_t moment_us = run->start_us + number * run->settings.interval_us;
	bool is_paced = run->settings.interval_us > 0;

	if (is_paced)
		sleep_until(moment_us);
	uint64_t began_us = clock_us();
	entry.outcome = send_request(w, began_us + run->settings.timeout_us, &a);
	entry.took_us = clock_us() - began_us;
	entry.behind_us = is_paced ? began_us - moment_us : 0;
	entry.status = a.status;
	entry.body_bytes = a.body_bytes;
	memcpy(entry.target, a.target, sizeof entry.target);
	if (entry.outcome != TALLY_ANSWERED)
		worker_close(w);
	tally_add(run->tally, &entry);
	if (run->settings.print != PRINT_SUMMARY)
		print_answer(run, number, began_us, &entry, &a);
}

/* The last worker to end tells main(), which waits for signals anyway. */
static void worker_leave(struct run *run)
{
	if (atomic_fetch_sub(&run->workers_left, 1) == 1)
		pthread_kill(run->main_thread, SIGUSR1);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct run *run = w->run;
	for (;;) {
		uint64_t number = atomic_fetch_add(&run->next_number, 1);
		if (number >= run->settings.count)
			break;
		send_numbered(w, number);
	}
	worker_close(w);
	free(w);
	worker_leave(run);
	return NULL;
}

static bool start_worker(struct run *run, const pthread_attr_t *attributes)
{
	pthread_t thread;
	struct worker *w = malloc(sizeof *w);
	if (!w)
		return false;
	w->run = run;
	w->is_open = w->is_used = false;
	if (pthread_create(&thread, attributes, work, w) == 0)
		return true;
	free(w);
	return false;
}

/* Returns how many could be started. The place of each is counted beforehand, or the first could end as "the last". */
static size_t start_workers(struct run *run)
{
	pthread_attr_t attributes;
	size_t wanted = (size_t)run->settings.concurrency, started = 0;

	if (wanted > run->settings.count)
		wanted = (size_t)run->settings.count;
	if (pthread_attr_init(&attributes) != 0)
		return 0;
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	atomic_store(&run->workers_left, wanted);
	while (started < wanted && start_worker(run, &attributes))
		started++;
	pthread_attr_destroy(&attributes);
	for (size_t missing = started; missing < wanted; missing++)
		worker_leave(run);
	return started;
}

/* ---- saying it --------------------------------------------------------------------------------------------------- */

/* The report, and the exit status that goes with it. */
static int finish(struct run *run, uint64_t elapsed_us)
{
	int expect = (int)run->settings.expect;
	FILE *out = run->settings.print == PRINT_SUMMARY ? stdout : stderr;
	struct tally_totals totals = tally_totals(run->tally, expect);
	bool is_good = totals.failed == 0 && totals.answered > 0 && (expect == 0 || totals.with_status == totals.answered);

	if (run->settings.json)
		tally_print_json(run->tally, out, elapsed_us);
	else
		tally_print(run->tally, out, elapsed_us);
	return fflush(stdout) == 0 && fflush(stderr) == 0 && is_good ? 0 : 1;
}

static void print_progress(struct run *run, uint64_t now_us)
{
	struct tally_totals totals = tally_totals(run->tally, 200);
	double took_s = (double)(now_us - run->start_us) / 1e6;

	fprintf(stderr,
	        "\r%" PRIu64 "/%" PRIu64 "  %.0f a second  200: %" PRIu64 "  other: %" PRIu64 "  failed: %" PRIu64 "\033[K",
	        totals.answered + totals.failed, run->settings.count, took_s > 0 ? (double)totals.answered / took_s : 0,
	        totals.with_status, totals.answered - totals.with_status, totals.failed);
}

/* Waits until the workers are done (SIGUSR1 from the last) or somebody wants it to end. All three signals are
   blocked in every thread and taken here, so none of this runs inside a signal handler. */
static void watch(struct run *run, const sigset_t *signals)
{
	bool has_terminal = isatty(STDERR_FILENO) && run->settings.print == PRINT_SUMMARY;
	const struct timespec tick = { .tv_sec = 0, .tv_nsec = (long)(PROGRESS_US * 1000) };

	while ((has_terminal ? sigtimedwait(signals, NULL, &tick) : sigwaitinfo(signals, NULL)) < 0)
		if (has_terminal)
			print_progress(run, clock_us());
	if (has_terminal)
		fputs("\r\033[K", stderr);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static const char usage[] =
	"client_demo --url http://HOST[:PORT][/PATH] [--count N] [--interval SECONDS] [--concurrency N] ...\n"
	"client_demo --pkt FILE --revproc [HOST:]PORT [--id ID] [--timeout SECONDS]\n"
	"\n"
	"Sends HTTP requests at a set pace and counts what came back, by status and by the X-Target of the answers.\n"
	"Exit status 0 when every request got a whole answer (with --expect: and each had that status), else 1.\n"
	"SIGINT and SIGTERM end it early; what was counted until then is printed and judged in the same way.\n"
	"Or sends one packet file through a message switch (weir packet): exit status 0 when the hash that comes back\n"
	"is correct.\n"
	"\n";

static bool has_only(const char *text, const char *lowest, const char *highest)
{
	for (; *text; text++)
		if (*text < *lowest || *text > *highest)
			return false;
	return true;
}

/* Cuts "http://host:port/path?query#fragment" into what getaddrinfo() and the request need. False when it is not
   one. */
static bool read_url(struct run *run, const char **path, size_t *path_bytes, const char **authority,
                     size_t *authority_bytes)
{
	const char *url = run->settings.url;
	if (strncasecmp(url, "http://", 7) != 0 || !has_only(url, "!", "~"))
		return false;
	*authority = url + 7;
	*authority_bytes = strcspn(*authority, "/?#");
	*path = *authority + *authority_bytes;
	*path_bytes = strcspn(*path, "#");

	const char *host = *authority, *end = *authority + *authority_bytes;
	bool is_bracketed = *host == '[';
	if (is_bracketed)
		host++;
	size_t host_bytes = strcspn(host, is_bracketed ? "]/?#" : ":/?#");
	const char *after = host + host_bytes;
	if (host_bytes == 0 || host_bytes >= sizeof run->host || (is_bracketed && *after++ != ']') ||
	    memchr(host, '@', host_bytes))
		return false;
	memcpy(run->host, host, host_bytes);
	run->host[host_bytes] = '\0';
	snprintf(run->port, sizeof run->port, "80");
	if (after == end)
		return true;
	size_t digits = strspn(after + 1, "0123456789");
	if (*after != ':' || after + 1 + digits != end || digits == 0 || digits > 5)
		return false;
	memcpy(run->port, after + 1, digits);
	run->port[digits] = '\0';
	unsigned long port = strtoul(run->port, NULL, 10);
	return port >= 1 && port <= 65535;
}

static bool is_method(const char *method)
{
	size_t letters = strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-");
	return letters > 0 && letters < 32 && method[letters] == '\0' && strcmp(method, "CONNECT") != 0;
}

/* A field line of the user's. Framing is this program's own business, and there is no body. */
static bool is_good_header(const char *header)
{
	char copy[1024], *name, *value;
	if (strlen(header) >= sizeof copy || strpbrk(header, "\r\n"))
		return false;
	snprintf(copy, sizeof copy, "%s", header);
	return wire_field(copy, &name, &value) && strcasecmp(name, "Content-Length") != 0 &&
	       strcasecmp(name, "Transfer-Encoding") != 0 && strcasecmp(name, "Connection") != 0;
}

/* Writes the request once, for all. False when the url is not one; *error stays empty when memory is short. */
static bool write_request(struct run *run)
{
	const struct settings *s = &run->settings;
	const char *path, *authority;
	size_t path_bytes, authority_bytes;
	bool has_host = false;

	if (!read_url(run, &path, &path_bytes, &authority, &authority_bytes))
		return false;
	FILE *out = open_memstream(&run->request, &run->request_bytes);
	if (!out)
		return false;
	fprintf(out, "%s %s%.*s HTTP/1.1\r\n", s->method, *path == '/' ? "" : "/", (int)path_bytes, path);
	for (size_t i = 0; i < s->headers.count; i++) {
		fprintf(out, "%s\r\n", s->headers.items[i]);
		has_host = has_host || strncasecmp(s->headers.items[i], "Host:", 5) == 0;
	}
	if (!has_host)
		fprintf(out, "Host: %.*s\r\n", (int)authority_bytes, authority);
	fputs("User-Agent: client_demo/" WEIR_VERSION "\r\n", out);
	/* Of a POST a server may want to know that there is no body (RFC 9110 section 8.6). */
	if (strcmp(s->method, "POST") == 0 || strcmp(s->method, "PUT") == 0 || strcmp(s->method, "PATCH") == 0)
		fputs("Content-Length: 0\r\n", out);
	fprintf(out, "%s\r\n", s->keepalive == KEEP_YES ? "" : "Connection: close\r\n");
	bool is_written = !ferror(out);
	return fclose(out) == 0 && is_written;
}

/* Checks what the table cannot. Returns FLAGS_READ or FLAGS_WRONG with error filled in. */
static enum flags_result check_options(struct run *run, char error[FLAGS_ERROR_BYTES])
{
	static const char *const idempotent[] = { "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE" };
	const struct settings *s = &run->settings;

	if (!s->url) {
		snprintf(error, FLAGS_ERROR_BYTES, "--url is missing; allowed: http://HOST[:PORT][/PATH]; or --pkt and --revproc");
		return FLAGS_WRONG;
	}
	if (!is_method(s->method)) {
		snprintf(error, FLAGS_ERROR_BYTES, "--method: '%.80s' was read; allowed: capital letters, not CONNECT",
		         s->method);
		return FLAGS_WRONG;
	}
	for (size_t i = 0; i < s->headers.count; i++) {
		if (is_good_header(s->headers.items[i]))
			continue;
		snprintf(error, FLAGS_ERROR_BYTES,
		         "--header: '%.80s' was read; allowed: 'Name: value', at most 1023 bytes, not "
		         "Content-Length, Transfer-Encoding or Connection",
		         s->headers.items[i]);
		return FLAGS_WRONG;
	}
	if (s->expect > 0 && s->expect < 200) {
		snprintf(error, FLAGS_ERROR_BYTES, "--expect: '%" PRIu64 "' was read; allowed: a final status, 200 to 599",
		         s->expect);
		return FLAGS_WRONG;
	}
	if (!write_request(run)) {
		snprintf(error, FLAGS_ERROR_BYTES, "--url: '%.160s' was read; allowed: http://HOST[:PORT][/PATH]", s->url);
		return FLAGS_WRONG;
	}
	run->is_head = strcmp(s->method, "HEAD") == 0;
	for (size_t i = 0; i < sizeof idempotent / sizeof idempotent[0]; i++)
		run->may_repeat = run->may_repeat || strcmp(s->method, idempotent[i]) == 0;
	return FLAGS_READ;
}

static bool is_for_the_switch(const struct settings *s)
{
	return s->demo.packet_path || s->proxy || s->demo.id;
}

/* The options of the message switch go together. */
static enum flags_result check_packet_options(struct settings *s, char error[FLAGS_ERROR_BYTES])
{
	const char *given = s->demo.packet_path ? "pkt" : s->proxy ? "revproc" : "id";
	const char *missing = !s->demo.packet_path ? "pkt" : !s->proxy ? "revproc" : NULL;
	if (missing || s->url) {
		snprintf(error, FLAGS_ERROR_BYTES,
		         "--%s was read %s --%s%s; allowed: --pkt FILE --revproc [HOST:]PORT [--id ID]", given,
		         s->url ? "beside" : "and", s->url ? "url" : missing, s->url ? "" : " is missing");
		return FLAGS_WRONG;
	}
	if (s->demo.id && (strlen(s->demo.id) > 63 || !has_only(s->demo.id, "!", "~"))) {
		snprintf(error, FLAGS_ERROR_BYTES, "--id: '%.80s' was read; allowed: 1 to 63 visible ASCII characters",
		         s->demo.id);
		return FLAGS_WRONG;
	}
	if (!demo_read_proxy(s->proxy, &s->demo.proxy)) {
		snprintf(error, FLAGS_ERROR_BYTES,
		         "--revproc: '%.80s' was read; allowed: a port from 1 to 65535, or HOST:PORT", s->proxy);
		return FLAGS_WRONG;
	}
	s->demo.timeout_us = s->timeout_us;
	return FLAGS_READ;
}

/* Returns the exit status, or -1 to go on. */
static int read_options(struct run *run, int argc, char **argv)
{
	struct settings *s = &run->settings;
	const struct flag table[] = {
		{ .name = "url", .kind = FLAG_TEXT, .into.text = &s->url, .value = "URL", .help = "what to ask for" },
		{ .name = "count", .kind = FLAG_NUMBER, .into.number = &s->count, .lowest = 1, .highest = 1000000000,
		  .value = "N", .help = "how many requests (1)" },
		{ .name = "interval", .kind = FLAG_SECONDS, .into.number = &s->interval_us, .highest = 3600 * US_PER_S,
		  .value = "SECONDS", .help = "from the start of one request to that of the next; 0: as fast as possible (0)" },
		{ .name = "concurrency", .kind = FLAG_NUMBER, .into.number = &s->concurrency, .lowest = 1,
		  .highest = WORKERS_MAX, .value = "N", .help = "workers, each with its own connection (1)" },
		{ .name = "method", .kind = FLAG_TEXT, .into.text = &s->method, .value = "METHOD", .help = "the method (GET)" },
		{ .name = "header", .kind = FLAG_LIST, .into.list = &s->headers, .value = "'NAME: VALUE'",
		  .help = "a further field of each request; may be repeated" },
		{ .name = "keepalive", .kind = FLAG_CHOICE, .into.choice = &s->keepalive, .choices = "yes|no",
		  .help = "use a connection for many requests, or for one (yes)" },
		{ .name = "timeout", .kind = FLAG_SECONDS, .into.number = &s->timeout_us, .lowest = US_PER_MS,
		  .highest = 3600 * US_PER_S, .value = "SECONDS",
		  .help = "for one request, from connecting to its last byte (10)" },
		{ .name = "expect", .kind = FLAG_NUMBER, .into.number = &s->expect, .highest = 599, .value = "STATUS",
		  .help = "exit with 1 unless every answer has this status; 0: any will do (0)" },
		{ .name = "print", .kind = FLAG_CHOICE, .into.choice = &s->print, .choices = "summary|targets|answers",
		  .help = "a line for each answer as it comes (summary: none):\n"
			  "                               targets: its X-Target, or its status if it has none;\n"
			  "                               answers: number, start and duration in seconds, status, X-Target,\n"
			  "                               Retry-After. With either, the summary goes to stderr" },
		{ .name = "json", .kind = FLAG_SWITCH, .into.on = &s->json, .help = "the summary as one line of JSON" },
		{ .name = "pkt", .kind = FLAG_TEXT, .into.text = &s->demo.packet_path, .value = "FILE",
		  .help = "message switch: the message to send, as a JSON object" },
		{ .name = "revproc", .kind = FLAG_TEXT, .into.text = &s->proxy, .value = "[HOST:]PORT",
		  .help = "message switch: where the reverse proxy is (this machine)" },
		{ .name = "id", .kind = FLAG_TEXT, .into.text = &s->demo.id, .value = "ID",
		  .help = "message switch: who sends it (what the file says)" },
	};
	const size_t count = sizeof table / sizeof table[0];
	char error[FLAGS_ERROR_BYTES];

	enum flags_result result = flags_read(table, count, argc, argv, error);
	if (result == FLAGS_READ)
		result = is_for_the_switch(s) ? check_packet_options(s, error) : check_options(run, error);
	return result == FLAGS_READ ? -1 : flags_finish(result, "client_demo", usage, table, count, error);
}

static int find_host(struct run *run)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	int error = getaddrinfo(run->host, run->port, &hints, &run->addresses);
	if (error == 0)
		return 0;
	fprintf(stderr, "client_demo: cannot find the host %s: %s\n", run->host, gai_strerror(error));
	return -1;
}

/* A connection is an open file: allow as many as there are workers. */
static void raise_file_limit(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static struct run *run_create(void)
{
	struct run *run = calloc(1, sizeof *run);
	struct tally *tally = tally_create();
	if (!run || !tally) {
		tally_destroy(tally);
		free(run);
		return NULL;
	}
	run->tally = tally;
	run->settings.count = 1;
	run->settings.concurrency = 1;
	run->settings.timeout_us = 10 * US_PER_S;
	run->settings.method = "GET";
	run->main_thread = pthread_self();
	return run;
}

static void run_destroy(struct run *run)
{
	if (run->addresses)
		freeaddrinfo(run->addresses);
	free(run->request);
	tally_destroy(run->tally);
	free(run);
}

int main(int argc, char **argv)
{
	sigset_t signals;
	struct run *run = run_create();
	if (!run) {
		fprintf(stderr, "client_demo: out of memory\n");
		return 1;
	}
	int status = read_options(run, argc, argv);
	if (status < 0 && is_for_the_switch(&run->settings))
		status = demo_client_run(&run->settings.demo);
	if (status < 0 && find_host(run) != 0)
		status = 1;
	if (status >= 0) {
		run_destroy(run);
		return status;
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	/* Before the first thread starts, so that all inherit it. */
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	raise_file_limit();
	if (run->settings.print != PRINT_SUMMARY)
		setvbuf(stdout, NULL, _IOLBF, 0);

	run->start_us = clock_us();
	size_t started = start_workers(run);
	if (started == 0) {
		fprintf(stderr, "client_demo: no memory or no thread for a single worker\n");
		run_destroy(run);
		return 1;
	}
	watch(run, &signals);
	/* From here on a second Ctrl-C ends the program in the ordinary way, should writing the summary block. */
	sigdelset(&signals, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
	status = finish(run, clock_us() - run->start_us);
	/* Workers may still be in the middle of something after SIGINT, and they use *run: no exit(), and nothing is
	   freed. */
	_exit(status);
}
