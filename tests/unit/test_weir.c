/* Tests of weir.h, as a program that has the library in it would use it: nothing else of weir's is included but the
 * unit tests' own header.
 *
 * Servers and clients are plain sockets here. The name service is this program's own (getaddrinfo() stands before the C
 * library's): names that begin with "slow" hang until the test lets them go.
 */
#include "weir.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "unit.h"

/* What a test waits for at most, on a machine that is busy with other things. */
#define PATIENCE_MS 20000
/* Longer than any deadline given here, shorter than what would happen without it: hangs end after a minute at the
   earliest. */
#define SOON_S 20.0

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

/* A sanitizer takes sixty times as long for each, and finds what one of them leaves behind. */
#define CYCLES (IS_SANITIZED ? 50 : 1000)

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void nap(void)
{
	poll(NULL, 0, 1);
}

/* ---- a name service ------------------------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool hangs;
	unsigned waiting;
} names = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	struct in_addr number = { .s_addr = htonl(INADDR_LOOPBACK) };
	bool is_number = inet_pton(AF_INET, node, &number) == 1;
	if (!is_number && (hints->ai_flags & AI_NUMERICHOST))
		return EAI_NONAME;
	pthread_mutex_lock(&names.mutex);
	names.waiting++;
	while (!is_number && names.hangs && strncmp(node, "slow", 4) == 0)
		pthread_cond_wait(&names.changed, &names.mutex);
	names.waiting--;
	pthread_mutex_unlock(&names.mutex);
	struct addrinfo *info = calloc(1, sizeof *info + sizeof(struct sockaddr_in));
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)(info + 1);
	v4->sin_family = AF_INET;
	v4->sin_port = htons((uint16_t)atoi(service));
	v4->sin_addr = number;
	info->ai_addr = (struct sockaddr *)(void *)v4;
	info->ai_addrlen = sizeof *v4;
	*result = info;
	return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
	free(list);
}

static void let_names_hang(bool hangs)
{
	pthread_mutex_lock(&names.mutex);
	names.hangs = hangs;
	pthread_cond_broadcast(&names.changed);
	pthread_mutex_unlock(&names.mutex);
}

static bool somebody_waits_for_a_name(void)
{
	for (int i = 0; i < PATIENCE_MS; i++, nap()) {
		pthread_mutex_lock(&names.mutex);
		bool waits = names.waiting > 0;
		pthread_mutex_unlock(&names.mutex);
		if (waits)
			return true;
	}
	return false;
}

/* ---- a server and clients ------------------------------------------------------------------------------------------- */

/* Answers each request that comes; one for /hang is never answered. */
struct origin {
	int fd;
	unsigned port;
	pthread_t thread;
	atomic_uint hanging;
};

static int listen_on_loopback(unsigned *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &length) != 0)
		abort();
	*port = ntohs(address.sin_port);
	return fd;
}

static void *serve_origin(void *argument)
{
	struct origin *origin = argument;
	int held[64], fd;
	unsigned count = 0;
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
	while ((fd = accept4(origin->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		char request[4096] = "";
		ssize_t length = recv(fd, request, sizeof request - 1, 0);
		if (length > 0 && strstr(request, "/hang") != NULL && count < 64) {
			held[count++] = fd;
			atomic_fetch_add(&origin->hanging, 1);
			continue;
		}
		if (length > 0)
			send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
		close(fd);
	}
	while (count > 0)
		close(held[--count]);
	return NULL;
}

static void origin_start(struct origin *origin)
{
	*origin = (struct origin){ .fd = -1 };
	origin->fd = listen_on_loopback(&origin->port);
	pthread_create(&origin->thread, NULL, serve_origin, origin);
}

static void origin_stop(struct origin *origin)
{
	shutdown(origin->fd, SHUT_RD);
	pthread_join(origin->thread, NULL);
	close(origin->fd);
}

static bool origin_has_hanging(struct origin *origin, unsigned count)
{
	for (int i = 0; i < PATIENCE_MS; i++, nap())
		if (atomic_load(&origin->hanging) >= count)
			return true;
	return false;
}

static int dial(unsigned port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
		                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

static int ask(unsigned port, const char *request)
{
	int fd = dial(port);
	if (fd >= 0 && send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The status of the answer that comes; 0: none. */
static int status_of(int fd)
{
	char answer[512] = "";
	size_t length = 0;
	ssize_t more = 1;
	while (fd >= 0 && more > 0 && length < 12 && (more = recv(fd, answer + length, sizeof answer - 1 - length, 0)) > 0)
		length += (size_t)more;
	return length >= 12 ? atoi(answer + 9) : 0;
}

static int status_and_close(int fd)
{
	int status = status_of(fd);
	if (fd >= 0)
		close(fd);
	return status;
}

static int get(unsigned port)
{
	return status_and_close(ask(port, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
}

/* Through a forward proxy. */
static int ask_for(unsigned port, const char *host, unsigned host_port, const char *path)
{
	char request[512];
	snprintf(request, sizeof request, "GET http://%s:%u%s HTTP/1.1\r\nHost: %s:%u\r\nConnection: close\r\n\r\n", host, host_port,
	         path, host, host_port);
	return ask(port, request);
}

/* ---- what a process holds ------------------------------------------------------------------------------------------- */

static unsigned entries(const char *path)
{
	DIR *folder = opendir(path);
	unsigned count = 0;
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

static unsigned count_files(void)
{
	return entries("/proc/self/fd");
}

/* A thread that has done its work takes a moment to be gone. */
static bool threads_come_down_to(unsigned count)
{
	for (int i = 0; i < PATIENCE_MS; i++, nap())
		if (entries("/proc/self/task") <= count)
			return true;
	return false;
}

static unsigned count_threads(void)
{
	return entries("/proc/self/task");
}

static long resident_kib(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
		pages = 0;
	if (file != NULL)
		fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- objects -------------------------------------------------------------------------------------------------------- */

struct lines {
	pthread_mutex_t mutex;
	unsigned count;
	char all[16384];
};

static void take_line(void *context, enum weir_log_level level, const char *service, const char *text)
{
	struct lines *lines = context;
	if (lines == NULL)
		return;
	pthread_mutex_lock(&lines->mutex);
	lines->count++;
	size_t used = strlen(lines->all);
	snprintf(lines->all + used, sizeof lines->all - used, "%d %s %s\n", (int)level, service != NULL ? service : "-", text);
	pthread_mutex_unlock(&lines->mutex);
}

static bool have_line(struct lines *lines, const char *part)
{
	pthread_mutex_lock(&lines->mutex);
	bool found = strstr(lines->all, part) != NULL;
	pthread_mutex_unlock(&lines->mutex);
	return found;
}

static struct weir *create(const char *const *settings)
{
	char error[WEIR_ERROR_MAX] = "";
	struct weir *weir = weir_create(settings, take_line, NULL, error, sizeof error);
	if (weir == NULL)
		fprintf(stderr, "weir_create: %s\n", error);
	return weir;
}

static struct weir *run(const char *const *settings)
{
	char error[WEIR_ERROR_MAX] = "";
	struct weir *weir = create(settings);
	if (weir != NULL && weir_start(weir, error, sizeof error) == WEIR_OK)
		return weir;
	fprintf(stderr, "weir_start: %s\n", error);
	weir_destroy(weir);
	return NULL;
}

static struct weir *run_forward(void)
{
	static const char *const settings[] = { "mode = forward", "port = 0", "bind = 127.0.0.1", "connect_allow = *:*, 127.0.0.1:*",
		                                "max_connections = 100", "connect_timeout = 60", "drain_timeout = 60", NULL };
	return run(settings);
}

static struct weir *run_reverse(unsigned target)
{
	char endpoint[64];
	snprintf(endpoint, sizeof endpoint, "endpoint = 127.0.0.1:%u", target);
	const char *const settings[] = { "port=0", "bind=127.0.0.1", endpoint, "drain_timeout=60", NULL };
	return run(settings);
}

/* ---- settings ------------------------------------------------------------------------------------------------------- */

static void what_is_wrong_is_said_in_one_line_and_nothing_is_left_behind(void)
{
	static const struct {
		const char *settings[4];
		const char *says;
	} table[] = {
		{ { NULL }, "endpoint" },
		{ { "mode = foward" }, "mode: \"foward\" was read; allowed: reverse" },
		{ { "prot = 0" }, "unknown setting \"prot\"; did you mean \"port\"?" },
		{ { "port" }, "\"port\" has no = after it; allowed: \"key = value\"" },
		{ { "= 5" }, "unknown setting \"\"" },
		{ { "port = 70000" }, "port: \"70000\" was read" },
		{ { "port = 0", "port=1" }, "port: given twice" },
		{ { "PORT = 1", "port=1" }, "port: given twice" },
		{ { "hostname = here" }, "hostname" },
		{ { "user = nobody" }, "user: belongs to the process" },
		{ { "pidfile = p" }, "pidfile: belongs to the process" },
		{ { "node = a" }, "node: chooses a stanza of a file" },
		{ { "limit.a = rate=x" }, "limit.a" },
		{ { "endpoint = 127.0.0.1:1", "port = 0", "logfile = /nowhere/at/all" }, "cannot open the log file \"/nowhere/at/all\"" },
		{ { "endpoint = 127.0.0.1:1", "tls_crtfile = /none", "tls_keyfile = /none" }, "/none" },
	};
	unsigned files = count_files(), threads = count_threads();
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		char error[WEIR_ERROR_MAX] = "";
		CU_ASSERT_PTR_NULL(weir_create(table[i].settings, take_line, NULL, error, sizeof error));
		CU_ASSERT_PTR_NOT_NULL(strstr(error, table[i].says));
		CU_ASSERT_PTR_NULL(strchr(error, '\n'));
		if (strstr(error, table[i].says) == NULL)
			fprintf(stderr, "wanted \"%s\", got \"%s\"\n", table[i].says, error);
	}
	CU_ASSERT_EQUAL(count_files(), files);
	CU_ASSERT(threads_come_down_to(threads));
}

static void a_file_that_is_not_there_and_a_port_that_is_taken_are_said(void)
{
	char error[WEIR_ERROR_MAX], small[8] = "xxxxxxx", setting[32];
	unsigned port, files = count_files(), threads = count_threads();
	CU_ASSERT_PTR_NULL(weir_create_from_file("/nowhere.ini", NULL, NULL, NULL, error, sizeof error));
	CU_ASSERT_STRING_EQUAL(error, "/nowhere.ini: cannot be read: No such file or directory");
	CU_ASSERT_PTR_NULL(weir_create_from_file("/nowhere.ini", NULL, NULL, NULL, small, sizeof small));
	CU_ASSERT_STRING_EQUAL(small, "/nowher");
	CU_ASSERT_PTR_NULL(weir_create_from_file("/nowhere.ini", NULL, NULL, NULL, NULL, 0));
	CU_ASSERT_PTR_NULL(weir_create_from_file(NULL, NULL, NULL, NULL, error, sizeof error));
	CU_ASSERT_STRING_EQUAL(error, "no file is named; allowed: a file's path");
	int taken = listen_on_loopback(&port);
	snprintf(setting, sizeof setting, "port = %u", port);
	const char *const settings[] = { "mode = forward", "bind = 127.0.0.1", setting, NULL };
	CU_ASSERT_PTR_NULL(weir_create(settings, take_line, NULL, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "Address already in use"));
	close(taken);
	CU_ASSERT_EQUAL(count_files(), files);
	CU_ASSERT(threads_come_down_to(threads));
}

static void null_is_an_error_and_never_a_crash(void)
{
	char error[WEIR_ERROR_MAX] = "";
	CU_ASSERT_EQUAL(weir_start(NULL, error, sizeof error), WEIR_FAILED);
	CU_ASSERT_STRING_EQUAL(error, weir_result_text(WEIR_NOTHING));
	CU_ASSERT_EQUAL(weir_serve(NULL, NULL, 0), WEIR_FAILED);
	CU_ASSERT_EQUAL(weir_stop(NULL, 1), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_reload(NULL, NULL, 0), WEIR_FAILED);
	CU_ASSERT_EQUAL(weir_port(NULL), 0);
	CU_ASSERT_PTR_NULL(weir_url(NULL));
	CU_ASSERT_EQUAL(weir_set_default_limit(NULL, 1), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_set_host_limit(NULL, "a", 1), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_set_host_limits(NULL, NULL, 0, NULL, 0), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_remove_host_limit(NULL, "a"), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_active_connections(NULL, NULL), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_default_limit(NULL), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_host_limit(NULL, "a"), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_host_limits(NULL, NULL, 0), WEIR_NOTHING);
	weir_reopen_logs(NULL);
	weir_destroy(NULL);
	CU_ASSERT_STRING_EQUAL(weir_version(), WEIR_VERSION);
}

static void the_environment_is_the_programs_own(void)
{
	setenv("WEIR_PORT", "1", 1);
	setenv("WEIR_NO_SUCH_THING", "1", 1);
	struct weir *weir = run_forward();
	CU_ASSERT_PTR_NOT_NULL(weir);
	CU_ASSERT(weir_port(weir) > 1);
	unsetenv("WEIR_PORT");
	unsetenv("WEIR_NO_SUCH_THING");
	weir_destroy(weir);
}

/* ---- serving -------------------------------------------------------------------------------------------------------- */

static void several_of_all_kinds_live_in_one_process(void)
{
	struct origin one, other;
	static const char *const packet[] = { "mode=packet", "port=0", "bind=127.0.0.1", NULL };
	origin_start(&one);
	origin_start(&other);
	struct weir *first = run_reverse(one.port), *second = run_reverse(other.port), *forward = run_forward(), *sw = run(packet);
	char url[64];
	snprintf(url, sizeof url, "http://127.0.0.1:%u", weir_port(first));
	CU_ASSERT_STRING_EQUAL(weir_url(first), url);
	CU_ASSERT_PTR_EQUAL(weir_url(first), weir_url(first));
	CU_ASSERT_EQUAL(strncmp(weir_url(sw), "tcp://127.0.0.1:", 16), 0);
	CU_ASSERT_EQUAL(weir_service_port(first, "reverse"), weir_port(first));
	CU_ASSERT_EQUAL(weir_service_port(first, "forward"), 0);
	CU_ASSERT_PTR_NULL(weir_service_url(first, "forward"));
	CU_ASSERT_EQUAL(get(weir_port(first)), 200);
	CU_ASSERT_EQUAL(get(weir_port(second)), 200);
	CU_ASSERT_EQUAL(status_and_close(ask_for(weir_port(forward), "127.0.0.1", one.port, "/")), 200);
	/* One that ends takes nothing from the others. */
	weir_destroy(first);
	CU_ASSERT_EQUAL(get(weir_port(second)), 200);
	CU_ASSERT_EQUAL(status_and_close(ask_for(weir_port(forward), "127.0.0.1", other.port, "/")), 200);
	CU_ASSERT_EQUAL(weir_stop(second, 10), WEIR_OK);
	CU_ASSERT_EQUAL(weir_port(second), 0);
	CU_ASSERT_PTR_NULL(weir_url(second));
	CU_ASSERT_EQUAL(weir_set_default_limit(second, 1), WEIR_NO_FORWARD);
	weir_destroy(second);
	weir_destroy(sw);
	weir_destroy(forward);
	origin_stop(&one);
	origin_stop(&other);
}

/* An address that stands for all of the machine's is not one to connect to: what the URL says in its place is. */
static void a_url_can_be_connected_to_wherever_weir_listens(void)
{
	static const char *const binds[] = { "bind=127.0.0.1", "bind=0.0.0.0", "bind=::", "bind=::ffff:0.0.0.0" };
	struct origin origin;
	char endpoint[64], url[64];
	origin_start(&origin);
	snprintf(endpoint, sizeof endpoint, "endpoint = 127.0.0.1:%u", origin.port);
	for (size_t i = 0; i < sizeof binds / sizeof binds[0]; i++) {
		const char *const settings[] = { "port=0", binds[i], endpoint, "drain_timeout=60", NULL };
		struct weir *weir = run(settings);
		CU_ASSERT_PTR_NOT_NULL_FATAL(weir);
		snprintf(url, sizeof url, "http://127.0.0.1:%u", weir_port(weir));
		CU_ASSERT_STRING_EQUAL(weir_url(weir), url);
		CU_ASSERT_EQUAL(get(weir_port(weir)), 200);
		weir_destroy(weir);
	}
	origin_stop(&origin);
}

/* ---- limits --------------------------------------------------------------------------------------------------------- */

static void a_limit_holds_for_the_next_connection_and_is_read_back(void)
{
	struct origin origin;
	char host[64];
	origin_start(&origin);
	struct weir *weir = run_forward();
	unsigned port = weir_port(weir);
	snprintf(host, sizeof host, "127.0.0.1:%u", origin.port);
	CU_ASSERT_EQUAL(weir_default_limit(weir), 100);
	CU_ASSERT_EQUAL(weir_host_limit(weir, host), 100);
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, host, 1), WEIR_OK);
	CU_ASSERT_EQUAL(weir_host_limit(weir, host), 1);
	int hanging = ask_for(port, "127.0.0.1", origin.port, "/hang");
	CU_ASSERT(origin_has_hanging(&origin, 1));
	CU_ASSERT_EQUAL(weir_active_connections(weir, host), 1);
	CU_ASSERT_EQUAL(weir_active_connections(weir, NULL), 1);
	CU_ASSERT_EQUAL(weir_active_connections(weir, "other.example"), 0);
	CU_ASSERT_EQUAL(status_and_close(ask_for(port, "127.0.0.1", origin.port, "/")), 500);
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, host, 2), WEIR_OK);
	CU_ASSERT_EQUAL(status_and_close(ask_for(port, "127.0.0.1", origin.port, "/")), 200);
	CU_ASSERT_EQUAL(weir_remove_host_limit(weir, host), WEIR_OK);
	CU_ASSERT_EQUAL(weir_set_default_limit(weir, 1), WEIR_OK);
	CU_ASSERT_EQUAL(status_and_close(ask_for(port, "127.0.0.1", origin.port, "/")), 500);
	CU_ASSERT_EQUAL(weir_set_default_limit(weir, 0), WEIR_OK);
	CU_ASSERT_EQUAL(weir_host_limit(weir, host), 0);
	CU_ASSERT_EQUAL(status_and_close(ask_for(port, "127.0.0.1", origin.port, "/")), 200);
	close(hanging);
	weir_destroy(weir);
	origin_stop(&origin);
}

static void a_list_of_limits_replaces_the_one_before_or_changes_nothing(void)
{
	static const struct weir_limit good[] = { { "B.example.", 2 }, { "a.example:443", 1 }, { "[::1]:8080", 0 } };
	static const struct weir_limit bad[][2] = {
		{ { "c.example", 1 }, { "no host", 1 } },       { { "c.example", 1 }, { "C.EXAMPLE:80", 1 } },
		{ { "c.example", 1 }, { "d", WEIR_LIMIT_MAX + 1 } }, { { "c.example", 1 }, { NULL, 1 } },
	};
	static const char *const says[] = { "\"no host\": ", "\"C.EXAMPLE:80\": this host is there twice", "\"d\": allowed: ", "NULL is no host" };
	struct weir_host out[2];
	char error[WEIR_ERROR_MAX];
	struct weir *weir = run_forward();
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, "gone.example", 7), WEIR_OK);
	CU_ASSERT_EQUAL(weir_set_host_limits(weir, good, 3, error, sizeof error), WEIR_OK);
	CU_ASSERT_STRING_EQUAL(error, "");
	CU_ASSERT_EQUAL(weir_host_limits(weir, out, 2), 3);
	CU_ASSERT_STRING_EQUAL(out[0].name, "[::1]:8080");
	CU_ASSERT_EQUAL(out[0].limit, 0);
	CU_ASSERT_STRING_EQUAL(out[1].name, "a.example");
	CU_ASSERT_EQUAL(out[1].limit, 1);
	CU_ASSERT_EQUAL(weir_host_limit(weir, "b.example"), 2);
	CU_ASSERT_EQUAL(weir_host_limit(weir, "gone.example"), 100);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT(weir_set_host_limits(weir, bad[i], 2, error, sizeof error) < 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(error, says[i]));
	}
	CU_ASSERT_EQUAL(weir_host_limits(weir, NULL, 0), 3);
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, "no host", 1), WEIR_BAD_HOST);
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, NULL, 1), WEIR_NOTHING);
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, "a", WEIR_LIMIT_MAX + 1), WEIR_BAD_LIMIT);
	CU_ASSERT_EQUAL(weir_set_default_limit(weir, (unsigned)-1), WEIR_BAD_LIMIT);
	CU_ASSERT_EQUAL(weir_active_connections(weir, "no host"), WEIR_BAD_HOST);
	CU_ASSERT_EQUAL(weir_set_host_limits(weir, NULL, 0, NULL, 0), WEIR_OK);
	CU_ASSERT_EQUAL(weir_host_limits(weir, NULL, 0), 0);
	weir_destroy(weir);
}

static void a_reverse_proxy_has_no_limits_for_hosts_and_counts_its_requests(void)
{
	struct origin origin;
	char target[64];
	origin_start(&origin);
	struct weir *weir = run_reverse(origin.port);
	snprintf(target, sizeof target, "127.0.0.1:%u", origin.port);
	int hanging = ask(weir_port(weir), "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT(origin_has_hanging(&origin, 1));
	CU_ASSERT_EQUAL(weir_active_connections(weir, NULL), 1);
	CU_ASSERT_EQUAL(weir_active_connections(weir, target), 1);
	CU_ASSERT_EQUAL(weir_active_connections(weir, "127.0.0.1:1"), 0);
	CU_ASSERT_EQUAL(weir_set_host_limit(weir, "a", 1), WEIR_NO_FORWARD);
	CU_ASSERT_EQUAL(weir_set_host_limits(weir, NULL, 0, NULL, 0), WEIR_NO_FORWARD);
	CU_ASSERT_EQUAL(weir_default_limit(weir), WEIR_NO_FORWARD);
	close(hanging);
	weir_destroy(weir);
	origin_stop(&origin);
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */

static void a_stop_with_nothing_in_hand_cuts_nothing_even_at_once(void)
{
	struct origin origin;
	origin_start(&origin);
	struct weir *weir = run_reverse(origin.port);
	int idle = ask(weir_port(weir), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT_EQUAL(status_of(idle), 200);
	/* The answer is here a moment before the thread that sent it rests. */
	for (int i = 0; i < PATIENCE_MS && weir_active_connections(weir, NULL) > 0; i++)
		nap();
	CU_ASSERT_EQUAL(weir_stop(weir, 10), WEIR_OK);
	CU_ASSERT_EQUAL(weir_stop(weir, 0), WEIR_OK);
	weir_destroy(weir);
	close(idle);
	struct weir *unused = run_forward();
	CU_ASSERT_EQUAL(weir_stop(unused, 0), WEIR_OK);
	weir_destroy(unused);
	origin_stop(&origin);
}

static void what_hangs_is_cut_at_the_deadline_and_the_stop_says_so(void)
{
	struct origin origin;
	origin_start(&origin);
	struct weir *weir = run_reverse(origin.port);
	int hanging = ask(weir_port(weir), "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
	int half = ask(weir_port(weir), "GET / HT");
	CU_ASSERT(origin_has_hanging(&origin, 1));
	double begun = now_s();
	CU_ASSERT_EQUAL(weir_stop(weir, 0.2), WEIR_CUT);
	CU_ASSERT(now_s() - begun >= 0.2);
	CU_ASSERT(now_s() - begun < SOON_S);
	CU_ASSERT_EQUAL(weir_stop(weir, 5), WEIR_CUT); /* the second asks what became of the first */
	CU_ASSERT(dial(weir_port(weir)) < 0);
	weir_destroy(weir);
	close(hanging);
	close(half);
	origin_stop(&origin);
}

static void one_that_was_never_started_is_stopped_and_stays_so(void)
{
	static const char *const settings[] = { "mode=forward", "port=0", "bind=127.0.0.1", NULL };
	char error[WEIR_ERROR_MAX];
	struct weir *weir = create(settings);
	CU_ASSERT(weir_port(weir) > 0);
	CU_ASSERT_EQUAL(weir_reload(weir, error, sizeof error), WEIR_FAILED);
	CU_ASSERT_EQUAL(weir_stop(weir, 1), WEIR_OK);
	CU_ASSERT_EQUAL(weir_start(weir, error, sizeof error), WEIR_FAILED);
	CU_ASSERT_STRING_EQUAL(error, "it was stopped, and can't be started again");
	CU_ASSERT_EQUAL(weir_serve(weir, error, sizeof error), WEIR_OK);
	weir_destroy(weir);
	weir = run_forward();
	CU_ASSERT_EQUAL(weir_start(weir, error, sizeof error), WEIR_FAILED);
	CU_ASSERT_STRING_EQUAL(error, "it was started already");
	weir_destroy(weir);
}

struct server {
	struct weir *weir;
	pthread_t thread;
	enum weir_result result;
	double deadline_s;
};

static void *serve(void *argument)
{
	struct server *server = argument;
	server->result = weir_serve(server->weir, NULL, 0);
	return NULL;
}

static void *stop(void *argument)
{
	struct server *server = argument;
	server->result = weir_stop(server->weir, server->deadline_s);
	return NULL;
}

static void to_serve_is_to_wait_for_another_threads_stop(void)
{
	struct origin origin;
	char endpoint[64];
	origin_start(&origin);
	snprintf(endpoint, sizeof endpoint, "endpoint = 127.0.0.1:%u", origin.port);
	const char *const settings[] = { "port=0", "bind=127.0.0.1", endpoint, NULL };
	struct server server = { .weir = create(settings) };
	pthread_create(&server.thread, NULL, serve, &server);
	CU_ASSERT_EQUAL(get(weir_port(server.weir)), 200);
	CU_ASSERT_EQUAL(weir_stop(server.weir, WEIR_DRAIN_TIMEOUT), WEIR_OK);
	pthread_join(server.thread, NULL);
	CU_ASSERT_EQUAL(server.result, WEIR_OK);
	weir_destroy(server.weir);
	origin_stop(&origin);
}

static void a_second_stop_with_a_nearer_deadline_cuts_the_first_short(void)
{
	struct origin origin;
	origin_start(&origin);
	struct weir *weir = run_reverse(origin.port);
	struct server patient = { .weir = weir, .deadline_s = 300 }, own = { .weir = weir, .deadline_s = WEIR_DRAIN_TIMEOUT };
	int hanging = ask(weir_port(weir), "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT(origin_has_hanging(&origin, 1));
	double begun = now_s();
	pthread_create(&patient.thread, NULL, stop, &patient);
	pthread_create(&own.thread, NULL, stop, &own);
	for (int i = 0, fd = 0; i < PATIENCE_MS && (fd = dial(weir_port(weir))) >= 0; i++, nap()) /* until it drains */
		close(fd);
	CU_ASSERT_EQUAL(weir_stop(weir, 0), WEIR_CUT);
	pthread_join(patient.thread, NULL);
	pthread_join(own.thread, NULL);
	CU_ASSERT_EQUAL(patient.result, WEIR_CUT);
	CU_ASSERT_EQUAL(own.result, WEIR_CUT);
	CU_ASSERT(now_s() - begun < SOON_S);
	weir_destroy(weir);
	close(hanging);
	origin_stop(&origin);
}

static void write_file(const char *path, const char *text);

/* Taken out of the file and put back while its connections still drain: two services of one name for a while. */
static void a_nearer_deadline_cuts_what_a_reload_has_let_go_too(void)
{
	struct origin origin;
	char path[] = "/tmp/weir_ini_XXXXXX", error[WEIR_ERROR_MAX], with[512];
	origin_start(&origin);
	close(mkostemp(path, O_CLOEXEC));
	snprintf(with, sizeof with, "[other]\nport=0\nbind=127.0.0.1\nendpoint=127.0.0.1:%u\n"
	         "[it]\nport=0\nbind=127.0.0.1\nendpoint=127.0.0.1:%u\ndrain_timeout=300\n", origin.port, origin.port);
	write_file(path, with);
	struct weir *weir = weir_create_from_file(path, NULL, take_line, NULL, error, sizeof error);
	CU_ASSERT_EQUAL(weir_start(weir, error, sizeof error), WEIR_OK);
	int hanging = ask(weir_service_port(weir, "it"), "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT(origin_has_hanging(&origin, 1));
	*strstr(with, "[it]") = '\0';
	write_file(path, with);
	CU_ASSERT_EQUAL(weir_reload(weir, error, sizeof error), WEIR_OK);
	with[strlen(with)] = '[';
	write_file(path, with);
	CU_ASSERT_EQUAL(weir_reload(weir, error, sizeof error), WEIR_OK);
	int other = ask(weir_service_port(weir, "it"), "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
	CU_ASSERT(origin_has_hanging(&origin, 2));
	CU_ASSERT_EQUAL(weir_active_connections(weir, NULL), 2);
	struct server patient = { .weir = weir, .deadline_s = 300 };
	unsigned port = weir_port(weir);
	double begun = now_s();
	pthread_create(&patient.thread, NULL, stop, &patient);
	for (int i = 0, fd = 0; i < PATIENCE_MS && (fd = dial(port)) >= 0; i++, nap()) /* until it drains */
		close(fd);
	CU_ASSERT_EQUAL(weir_stop(weir, 0), WEIR_CUT);
	CU_ASSERT(now_s() - begun < SOON_S);
	pthread_join(patient.thread, NULL);
	weir_destroy(weir);
	unlink(path);
	close(hanging);
	close(other);
	origin_stop(&origin);
}

static void *destroy(void *weir)
{
	weir_destroy(weir);
	return NULL;
}

struct gate {
	atomic_bool is_reached, is_open;
};

static void wait_at_gate(void *context, enum weir_log_level level, const char *service, const char *text)
{
	struct gate *gate = context;
	(void)level, (void)service;
	if (strstr(text, "listens on") == NULL)
		return;
	atomic_store(&gate->is_reached, true);
	while (!atomic_load(&gate->is_open))
		nap();
}

static void one_that_is_destroyed_while_it_begins_to_serve_is_let_go_first(void)
{
	static const char *const settings[] = { "mode=forward", "port=0", "bind=127.0.0.1", NULL };
	for (int i = 0; i < 20; i++) {
		struct gate gate = { .is_reached = false };
		pthread_t destroyer;
		struct server server = { .weir = weir_create(settings, wait_at_gate, &gate, NULL, 0), .result = WEIR_FAILED };
		pthread_create(&server.thread, NULL, serve, &server);
		while (!atomic_load(&gate.is_reached))
			nap();
		pthread_create(&destroyer, NULL, destroy, server.weir);
		nap();
		atomic_store(&gate.is_open, true);
		pthread_join(server.thread, NULL);
		pthread_join(destroyer, NULL);
		CU_ASSERT_EQUAL(server.result, WEIR_OK);
	}
}

static void a_name_service_that_hangs_keeps_no_stop_waiting(void)
{
	static const char *const reverse[] = { "port=0", "bind=127.0.0.1", "endpoint=slow.example:80", "connect_timeout=0.05", NULL };
	static const char *const redis[] = { "mode=forward", "port=0", "bind=127.0.0.1", "redis_addr=slow.example:6379", NULL };
	let_names_hang(true);
	struct weir *forward = run_forward(), *of_name = run(reverse), *with_redis = run(redis);
	CU_ASSERT_PTR_NOT_NULL_FATAL(with_redis);
	int fd = ask_for(weir_port(forward), "slow.example", 80, "/");
	CU_ASSERT(somebody_waits_for_a_name());
	for (int i = 0; i < PATIENCE_MS && weir_active_connections(forward, NULL) == 0; i++)
		nap();
	double begun = now_s();
	CU_ASSERT_EQUAL(weir_stop(forward, 0.1), WEIR_CUT);
	CU_ASSERT_EQUAL(weir_stop(of_name, 0.1), WEIR_OK);
	CU_ASSERT_EQUAL(weir_stop(with_redis, 0.1), WEIR_OK);
	weir_destroy(forward);
	weir_destroy(of_name);
	weir_destroy(with_redis);
	CU_ASSERT(now_s() - begun < SOON_S);
	let_names_hang(false);
	close(fd);
}

/* ---- what a program is left with ------------------------------------------------------------------------------------ */

/* Standard output and error into a file, for a while. */
struct caught {
	int out, error, file;
};

static void catch_output(struct caught *caught, int instead)
{
	fflush(NULL);
	caught->out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	caught->error = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	caught->file = instead;
	dup2(instead, STDOUT_FILENO);
	dup2(instead, STDERR_FILENO);
}

static void release_output(struct caught *caught)
{
	dup2(caught->out, STDOUT_FILENO);
	dup2(caught->error, STDERR_FILENO);
	close(caught->out);
	close(caught->error);
	close(caught->file);
}

static void with_a_logger_nothing_is_written_to_the_standard_streams(void)
{
	static struct lines lines = { .mutex = PTHREAD_MUTEX_INITIALIZER };
	char error[WEIR_ERROR_MAX], endpoint[64], name[] = "/tmp/weir_out_XXXXXX";
	struct origin origin;
	struct caught caught;
	origin_start(&origin);
	snprintf(endpoint, sizeof endpoint, "endpoint = 127.0.0.1:%u", origin.port);
	const char *const settings[] = { "port=0", "bind=127.0.0.1", endpoint, "access_log = -", "log_level = debug",
		                         "trace = yes", "max_connections = 5", NULL };
	catch_output(&caught, mkostemp(name, O_CLOEXEC));
	struct weir *weir = weir_create(settings, take_line, &lines, error, sizeof error);
	enum weir_result started = weir_start(weir, error, sizeof error);
	int status = get(weir_port(weir));
	enum weir_result stopped = weir_stop(weir, 10);
	weir_destroy(weir);
	fflush(NULL);
	struct stat written;
	fstat(caught.file, &written);
	release_output(&caught);
	unlink(name);
	CU_ASSERT_EQUAL(started, WEIR_OK);
	CU_ASSERT_EQUAL(stopped, WEIR_OK);
	CU_ASSERT_EQUAL(status, 200);
	CU_ASSERT_EQUAL(written.st_size, 0);
	CU_ASSERT(have_line(&lines, "1 reverse reverse listens on 127.0.0.1:"));
	CU_ASSERT(have_line(&lines, "2 reverse max_connections: max_connections does nothing in mode reverse"));
	CU_ASSERT(have_line(&lines, "1 reverse 127.0.0.1 - - ["));
	CU_ASSERT(have_line(&lines, "0 reverse trace reverse #1 "));
	origin_stop(&origin);
}

static void a_log_that_nobody_reads_does_not_end_the_program(void)
{
	static const char *const settings[] = { "mode=forward", "port=0", "bind=127.0.0.1", NULL };
	int ends[2];
	char error[WEIR_ERROR_MAX];
	struct caught caught;
	sigset_t pending;
	CU_ASSERT_EQUAL_FATAL(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	catch_output(&caught, ends[1]);
	struct weir *weir = weir_create(settings, NULL, NULL, error, sizeof error);
	enum weir_result started = weir_start(weir, error, sizeof error); /* "listens on …" is written by this thread */
	weir_destroy(weir);
	sigpending(&pending);
	release_output(&caught);
	CU_ASSERT_EQUAL(started, WEIR_OK);
	CU_ASSERT_FALSE(sigismember(&pending, SIGPIPE));
}

static void signals_stay_as_the_program_has_them(void)
{
	sigset_t before, after;
	struct sigaction actions[2][NSIG];
	memset(actions, 0, sizeof actions);
	for (int i = 1; i < NSIG; i++)
		sigaction(i, NULL, &actions[0][i]);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	struct weir *weir = run_forward();
	weir_stop(weir, 1);
	weir_destroy(weir);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (int i = 1; i < NSIG; i++) {
		sigaction(i, NULL, &actions[1][i]);
		CU_ASSERT_EQUAL(sigismember(&before, i), sigismember(&after, i));
		CU_ASSERT(actions[0][i].sa_handler == actions[1][i].sa_handler && actions[0][i].sa_flags == actions[1][i].sa_flags);
	}
}

static bool live_once(const char *const *settings)
{
	struct weir *weir = weir_create(settings, take_line, NULL, NULL, 0);
	bool is_good = weir != NULL && weir_start(weir, NULL, 0) == WEIR_OK && weir_port(weir) > 0 && weir_url(weir) != NULL &&
	               weir_stop(weir, 1) == WEIR_OK;
	weir_destroy(weir);
	return is_good;
}

static void a_thousand_lives_leave_nothing_behind(void)
{
	static const char *const reverse[] = { "port=0", "bind=127.0.0.1", "endpoint=127.0.0.1:1, localhost:1", "threshold=10", NULL };
	static const char *const forward[] = { "mode=forward", "port=0", "bind=127.0.0.1", "admin=127.0.0.1:0", NULL };
	unsigned files = count_files(), threads = count_threads(), good = 0;
	for (int i = 0; i < CYCLES / 10; i++) /* what the C library keeps for itself */
		good += live_once(i % 2 == 0 ? reverse : forward);
	CU_ASSERT(threads_come_down_to(threads));
	long before_kib = resident_kib();
	for (int i = CYCLES / 10; i < CYCLES; i++)
		good += live_once(i % 2 == 0 ? reverse : forward);
	CU_ASSERT_EQUAL(good, CYCLES);
	CU_ASSERT(threads_come_down_to(threads));
	CU_ASSERT_EQUAL(count_files(), files);
	/* A leak of a hundred bytes a time would be 90 KiB. A sanitizer keeps what was freed, and looks for leaks itself. */
	long grown_kib = resident_kib() - before_kib;
	CU_ASSERT(IS_SANITIZED || grown_kib < 1024);
	if (!IS_SANITIZED && grown_kib >= 1024)
		fprintf(stderr, "grown by %ld KiB\n", grown_kib);
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");
	fputs(text, file);
	fclose(file);
}

static void a_file_is_read_and_read_again(void)
{
	static struct lines lines = { .mutex = PTHREAD_MUTEX_INITIALIZER };
	static const char *const only[] = { "node = other", "max_connections = 9", NULL };
	static const char *const none[] = { "node = third", NULL };
	char path[] = "/tmp/weir_ini_XXXXXX", error[WEIR_ERROR_MAX];
	close(mkostemp(path, O_CLOEXEC));
	write_file(path, "[globals]\nuser = nobody\n[one]\nmode = forward\nport = 0\nbind = 127.0.0.1\nmax_connections = 3\n"
	                 "[other]\nmode = forward\nport = 0\nbind = 127.0.0.1\n");
	struct weir *both = weir_create_from_file(path, NULL, take_line, &lines, error, sizeof error);
	struct weir *other = weir_create_from_file(path, only, take_line, NULL, error, sizeof error);
	CU_ASSERT_PTR_NULL(weir_create_from_file(path, none, take_line, NULL, error, sizeof error));
	CU_ASSERT_PTR_NOT_NULL(strstr(error, "has no stanza \"third\"; allowed: \"one\", \"other\""));
	CU_ASSERT(have_line(&lines, "user does nothing here"));
	CU_ASSERT_EQUAL(weir_start(both, error, sizeof error), WEIR_OK);
	CU_ASSERT_EQUAL(weir_start(other, error, sizeof error), WEIR_OK);
	CU_ASSERT(weir_service_port(both, "one") != weir_service_port(both, "other"));
	CU_ASSERT_EQUAL(weir_port(both), weir_service_port(both, "one"));
	CU_ASSERT_EQUAL(weir_service_port(other, "one"), 0);
	CU_ASSERT_EQUAL(weir_default_limit(other), 9);
	CU_ASSERT_EQUAL(weir_default_limit(both), 3);
	CU_ASSERT_EQUAL(weir_set_default_limit(both, 5), WEIR_OK);
	write_file(path, "[one]\nmode = forward\nport = 0\nbind = 127.0.0.1\nmax_connections = 4\n");
	unsigned port = weir_port(both);
	CU_ASSERT_EQUAL(weir_reload(both, error, sizeof error), WEIR_OK);
	CU_ASSERT_EQUAL(weir_default_limit(both), 4);
	CU_ASSERT_EQUAL(weir_port(both), port);
	CU_ASSERT_EQUAL(weir_service_port(both, "other"), 0);
	write_file(path, "[one]\nmode = forwrd\n");
	CU_ASSERT_EQUAL(weir_reload(both, error, sizeof error), WEIR_FAILED);
	CU_ASSERT_PTR_NOT_NULL(strstr(error, ":2: mode: \"forwrd\" was read"));
	CU_ASSERT_EQUAL(weir_default_limit(both), 4);
	unlink(path);
	CU_ASSERT_EQUAL(weir_stop(both, 10), WEIR_OK);
	weir_destroy(both);
	weir_destroy(other);
}

/* ---- many threads --------------------------------------------------------------------------------------------------- */

static void *use(void *argument)
{
	struct weir *weir = argument;
	char host[32];
	for (unsigned i = 0; weir_port(weir) > 0; i++) {
		snprintf(host, sizeof host, "h%u.example", i % 8);
		weir_set_host_limit(weir, host, i % 5);
		weir_host_limit(weir, host);
		weir_url(weir);
		weir_active_connections(weir, i % 2 == 0 ? host : NULL);
		weir_set_default_limit(weir, i % 9);
		weir_remove_host_limit(weir, host);
		weir_reopen_logs(weir);
		if (i % 16 == 0)
			weir_reload(weir, NULL, 0);
	}
	return NULL;
}

static void any_thread_may_call_anything_while_it_stops(void)
{
	pthread_t threads[4];
	struct weir *weir = run_forward();
	for (size_t i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, use, weir);
	for (int i = 0; i < 50; i++)
		nap();
	CU_ASSERT_EQUAL(weir_stop(weir, 10), WEIR_OK);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	weir_destroy(weir);
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(what_is_wrong_is_said_in_one_line_and_nothing_is_left_behind),
		TEST(a_file_that_is_not_there_and_a_port_that_is_taken_are_said),
		TEST(null_is_an_error_and_never_a_crash),
		TEST(the_environment_is_the_programs_own),
		TEST(several_of_all_kinds_live_in_one_process),
		TEST(a_url_can_be_connected_to_wherever_weir_listens),
		TEST(a_limit_holds_for_the_next_connection_and_is_read_back),
		TEST(a_list_of_limits_replaces_the_one_before_or_changes_nothing),
		TEST(a_reverse_proxy_has_no_limits_for_hosts_and_counts_its_requests),
		TEST(a_stop_with_nothing_in_hand_cuts_nothing_even_at_once),
		TEST(what_hangs_is_cut_at_the_deadline_and_the_stop_says_so),
		TEST(one_that_was_never_started_is_stopped_and_stays_so),
		TEST(to_serve_is_to_wait_for_another_threads_stop),
		TEST(a_second_stop_with_a_nearer_deadline_cuts_the_first_short),
		TEST(a_nearer_deadline_cuts_what_a_reload_has_let_go_too),
		TEST(one_that_is_destroyed_while_it_begins_to_serve_is_let_go_first),
		TEST(a_name_service_that_hangs_keeps_no_stop_waiting),
		TEST(with_a_logger_nothing_is_written_to_the_standard_streams),
		TEST(a_log_that_nobody_reads_does_not_end_the_program),
		TEST(signals_stay_as_the_program_has_them),
		TEST(a_thousand_lives_leave_nothing_behind),
		TEST(a_file_is_read_and_read_again),
		TEST(any_thread_may_call_anything_while_it_stops),
	};
	return unit_main("weir", tests, sizeof tests / sizeof tests[0]);
}
