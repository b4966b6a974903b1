/* embed.c: a program with a proxy in it.
 *
 *      your code ──► its HTTP client ──► the proxy, in this process ──► the hosts that it may not overrun
 *
 * A crawler, a webhook sender or a test suite has many threads that call other people's hosts, and promised never to
 * have more than N connections open to one of them. Here the promise is kept in one place: a forward proxy on a port of
 * its own, which the HTTP client of the program is pointed to (http_proxy, CURLOPT_PROXY, ...). The same few calls
 * embed a reverse proxy: only the settings differ.
 *
 *      cc embed.c $(pkg-config --cflags --libs weir) -o embed
 *      ./embed 2 slow.example=1            every host: 2 connections at once; this one: 1
 *      curl -x $PRINTED_URL http://…       in another terminal; Ctrl-C ends it
 *
 * What a program has to see to, and this one shows: lines of the log go where its own go; a signal is taken by a thread
 * that waits for it, for weir installs no handler; the end has a deadline.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir.h>

#define DRAIN_S 5.0

/* Several threads at a time may be in here: one call of printf() each, and nothing that is shared. */
static void log_line(void *context, enum weir_log_level level, const char *service, const char *text)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	const char *program = context;
	printf("%s: %s: %s: %s\n", program, names[level], service != NULL ? service : "weir", text);
}

/* "slow.example=1": a limit of its own for one host. Returns 0, or -1. */
static int set_limit(struct weir *weir, const char *argument)
{
	char host[WEIR_HOST_MAX], *end;
	const char *equals = strrchr(argument, '=');
	if (equals == NULL || (size_t)(equals - argument) >= sizeof host)
		return -1;
	memcpy(host, argument, (size_t)(equals - argument));
	host[equals - argument] = '\0';
	unsigned long limit = strtoul(equals + 1, &end, 10);
	if (end == equals + 1 || *end != '\0' || limit > WEIR_LIMIT_MAX)
		return -1;
	enum weir_result result = weir_set_host_limit(weir, host, (unsigned)limit);
	if (result != WEIR_OK)
		fprintf(stderr, "embed: %s: %s\n", argument, weir_result_text(result));
	return result == WEIR_OK ? 0 : -1;
}

/* Takes TERM and INT, one after another, as ordinary return values: the first one ends the proxy, with time for what
   is under way. */
static void wait_for_signal(void)
{
	int number;
	sigset_t wanted;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGTERM);
	sigaddset(&wanted, SIGINT);
	while (sigwait(&wanted, &number) != 0)
		continue;
}

/* Signals are blocked before weir makes its threads, and in this one for good: sigwait() wants that. */
static void block_signals(void)
{
	sigset_t wanted;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGTERM);
	sigaddset(&wanted, SIGINT);
	pthread_sigmask(SIG_BLOCK, &wanted, NULL);
}

static int run(struct weir *weir, int host_count, char **hosts)
{
	char error[WEIR_ERROR_MAX];
	for (int i = 0; i < host_count; i++) {
		if (set_limit(weir, hosts[i]) == 0)
			continue;
		fprintf(stderr, "embed: \"%s\" was read; allowed: HOST=LIMIT\n", hosts[i]);
		return 2;
	}
	if (weir_start(weir, error, sizeof error) != WEIR_OK) {
		fprintf(stderr, "embed: %s\n", error);
		return 1;
	}
	/* From here on the program does its own work, and its HTTP client goes through the proxy. */
	printf("the proxy is at %s\n", weir_url(weir));
	fflush(stdout);
	wait_for_signal();
	printf("open connections: %ld\n", weir_active_connections(weir, NULL));
	if (weir_stop(weir, DRAIN_S) == WEIR_CUT)
		printf("not all was done in %g s\n", DRAIN_S);
	return 0;
}

int main(int argc, char **argv)
{
	char error[WEIR_ERROR_MAX], limit[64];
	if (argc < 2) {
		fprintf(stderr, "usage: %s LIMIT [HOST=LIMIT]...\n", argv[0]);
		return 2;
	}
	snprintf(limit, sizeof limit, "max_connections = %.40s", argv[1]); /* weir says what is wrong with it */
	const char *const settings[] = {
		"mode = forward",
		"bind = 127.0.0.1",                /* for this machine alone */
		"port = 0",                        /* whichever is free */
		"connect_allow = *:*, 127.0.0.0/8:*", /* loopback is refused unless it is named */
		"reject_status = 503",             /* what a client over the limit is told */
		limit,
		NULL,
	};
	block_signals();
	struct weir *weir = weir_create(settings, log_line, argv[0], error, sizeof error);
	if (weir == NULL) {
		fprintf(stderr, "embed: %s\n", error);
		return 2;
	}
	int status = run(weir, argc - 2, argv + 2);
	weir_destroy(weir);
	return status;
}
