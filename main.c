/* main.c: arguments and signals become services.
 *
 *      main thread:   read settings ─► open the log ─► start services ─► wait for signals
 *      signals:       TERM, INT  drain and end; a second one ends at once
 *                     HUP        read the settings again
 *                     USR1       open the log files again
 *      service manager (NOTIFY_SOCKET, if there is one): told when ready, reloading, stopping, and how things stand
 *
 * All signals are blocked before the first thread is started, and threads inherit that: so a signal never interrupts a
 * worker, and the main thread takes each one in sigtimedwait(), as an ordinary return value. No handler, and none of the rules about
 * what a handler may call.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "healthcheck.h"
#include "lib/log.h"
#include "lib/settings.h"
#include "lib/splice.h"
#include "lib/thread.h"
#include "manager.h"
#include "top.h"
#include "weir_internal.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define ERROR_MAX SETTINGS_ERROR_MAX

/* Memory pools of malloc(): one for each few threads is plenty; the default (8 for each core) wastes address space. */
#define ARENAS_MAX 4
/* Descriptors besides those of connections: listeners, logs, probes, the name service. */
#define FILES_BESIDES 256
/* How old what the service manager shows may be. */
#define STATUS_INTERVAL_S 5
/* Two pipes. */
#define FILES_OF_PIPES 4

static void say_error(const char *error)
{
	fprintf(stderr, "weir: %s\n", error);
}

/* ---- descriptors ---------------------------------------------------------------------------------------------------- */

/* What one connection of a client's takes: its own descriptor, one to a target (or, before that, one to wait for a place under a cap
   with: never both), and one to wait in line with, which the memory of its request keeps. */
static rlim_t files_of_client(const struct settings *settings)
{
	return settings->backlog_requests > 0 || (settings->mode == MODE_FORWARD && settings->host_backlog_us > 0) ? 3 : 2;
}

/* What weir can't do without. */
static rlim_t files_needed(const struct configuration *configuration)
{
	rlim_t needed = FILES_BESIDES;
	for (size_t i = 0; i < configuration->service_count; i++)
		needed += configuration->services[i]->max_clients * files_of_client(configuration->services[i]);
	return needed;
}

/* What it can make use of: a tunnel that moves much has a pipe for each direction, some large bodies
   have one. Without, they are copied. */
static rlim_t files_wanted(const struct configuration *configuration)
{
	rlim_t wanted = files_needed(configuration);
	for (size_t i = 0; i < configuration->service_count; i++)
		wanted += configuration->services[i]->mode == MODE_FORWARD ?
		                  (rlim_t)configuration->services[i]->max_clients * FILES_OF_PIPES :
		                  SPLICE_PIPES_MAX * SPLICE_PIPE_FILES;
	return wanted;
}

/* Raises the limit on open files to what the configuration can use. Returns what it is now when that is less than it needs, else 0. */
static rlim_t raise_file_limit(const struct configuration *configuration)
{
	struct rlimit limit;
	rlim_t needed = files_needed(configuration), wanted = files_wanted(configuration);
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
		return 0;
	struct rlimit raised = { .rlim_cur = wanted, .rlim_max = limit.rlim_max < wanted ? wanted : limit.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
		return 0;
	raised = (struct rlimit){ .rlim_cur = needed, .rlim_max = limit.rlim_max < needed ? needed : limit.rlim_max };
	if (limit.rlim_max < needed && setrlimit(RLIMIT_NOFILE, &raised) == 0) /* the system allows so many, but no more */
		return 0;
	raised = (struct rlimit){ .rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max }; /* as far as we may */
	rlim_t now = setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
	return now >= needed ? 0 : now;
}

static void warn_of_file_limit(rlim_t limit, const struct configuration *configuration, struct log *log)
{
	if (limit == 0)
		return;
	log_write(log, LOG_LEVEL_WARN, NULL,
	          "open files are limited to %llu and max_clients needs %llu: raise \"ulimit -n\" (LimitNOFILE=) or lower max_clients",
	          (unsigned long long)limit, (unsigned long long)files_needed(configuration));
}

/* ---- becoming a daemon ---------------------------------------------------------------------------------------------- */

/* Forks; the parent waits to hear whether the start went well, and passes that on as its exit status. Returns the descriptor to
   say it on; -1 and errno. */
static int become_daemon(void)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -1;
	pid_t child = fork();
	if (child < 0)
		return -1;
	if (child > 0) {
		unsigned char status = EXIT_FAILED;
		close(ends[1]);
		ssize_t length = read(ends[0], &status, 1);
		_exit(length == 1 ? status : EXIT_FAILED);
	}
	close(ends[0]);
	setsid();
	return ends[1];
}

/* The start went well: the parent may go, and the terminal's streams with it. */
static void daemon_is_up(int fd)
{
	unsigned char status = 0;
	if (fd < 0)
		return;
	ssize_t written = write(fd, &status, 1);
	(void)written; /* a parent that is gone does not need to know */
	close(fd);
	int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (nowhere < 0)
		return;
	dup2(nowhere, STDIN_FILENO);
	dup2(nowhere, STDOUT_FILENO);
	dup2(nowhere, STDERR_FILENO);
	if (nowhere > STDERR_FILENO)
		close(nowhere);
}

/* A daemon's log must be a file: whoever started it waits for its streams to close. */
static void leave_terminal(int daemon_fd, struct log *log)
{
	if (daemon_fd < 0)
		return;
	log_write(log, LOG_LEVEL_INFO, NULL, "goes to the background; a log that is no file (logfile, access_log) ends here");
	log_leave_terminal(log);
	daemon_is_up(daemon_fd);
}

/* The file is locked for as long as we run: another weir with the same pidfile would overwrite it, and each would take the other
   for itself. Returns the descriptor that holds the lock; -1 when there is no pidfile, -2 and error when it can't be written. */
static int write_pidfile(const char *path, char error[ERROR_MAX])
{
	if (path == NULL)
		return -1;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
		snprintf(error, ERROR_MAX, "the pidfile \"%s\" is in use by a weir that runs", path);
		close(fd);
		return -2;
	}
	if (fd >= 0 && ftruncate(fd, 0) == 0 && dprintf(fd, "%ld\n", (long)getpid()) > 0)
		return fd;
	snprintf(error, ERROR_MAX, "cannot write the pidfile \"%s\": %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -2;
}

/* Without the rights to remove it (user), it is left empty: nobody is there. */
static void remove_pidfile(int fd, const char *path)
{
	if (fd < 0)
		return;
	if (unlink(path) != 0 && ftruncate(fd, 0) != 0)
		say_error("cannot remove the pidfile");
	close(fd);
}

/* Ports are open and files too: from here on the rights of an ordinary user are enough. */
static bool drop_rights(const char *name, struct log *log, char error[ERROR_MAX])
{
	if (name == NULL)
		return true;
	struct passwd *user = getpwnam(name);
	if (user == NULL) {
		snprintf(error, ERROR_MAX, "user: \"%s\" was read; allowed: a user that this machine knows", name);
		return false;
	}
	if (user->pw_uid == geteuid())
		return true;
	log_give_to(log, user->pw_uid, user->pw_gid);
	if (initgroups(name, user->pw_gid) == 0 && setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0)
		return true;
	snprintf(error, ERROR_MAX, "cannot become user \"%s\": %s", name, strerror(errno));
	return false;
}

/* ---- running -------------------------------------------------------------------------------------------------------- */

/* SIGHUP. A file that is wrong changes nothing. */
static void reload(struct weir *weir, struct manager *manager)
{
	char error[ERROR_MAX];
	manager_say_reloading(manager);
	struct configuration *fresh = configuration_reread(weir_configuration(weir), error);
	if (fresh == NULL) {
		weir_refuse(weir, error);
		manager_say_reloaded(manager, weir, error);
		return;
	}
	warn_of_file_limit(raise_file_limit(fresh), fresh, weir_log(weir));
	bool is_good = weir_apply(weir, fresh, error, sizeof error); /* the log says how it went */
	manager_say_reloaded(manager, weir, is_good ? NULL : error);
}

/* The next signal; or none, when it is time for the service manager to hear how things stand. */
static int next_signal(const sigset_t *signals, const struct manager *manager)
{
	const struct timespec interval = { .tv_sec = STATUS_INTERVAL_S };
	return sigtimedwait(signals, NULL, manager != NULL ? &interval : NULL);
}

/* Takes signals until one says stop. */
static void wait_for_stop(const sigset_t *signals, struct weir *weir, struct manager *manager)
{
	for (;;) {
		int signal_number = next_signal(signals, manager);
		if (signal_number == SIGUSR1) {
			weir_reopen_logs(weir);
		} else if (signal_number == SIGHUP) {
			reload(weir, manager);
		} else if (signal_number == SIGTERM || signal_number == SIGINT) {
			log_write(weir_log(weir), LOG_LEVEL_INFO, NULL, "%s: draining", signal_number == SIGINT ? "SIGINT" : "SIGTERM");
			return;
		} else {
			manager_say_status(manager, weir);
		}
	}
}

/* Of all services: they drain together. */
static uint64_t longest_drain_us(const struct configuration *configuration)
{
	uint64_t longest_us = 0;
	for (size_t i = 0; i < configuration->service_count; i++)
		if (configuration->services[i]->drain_timeout_us > longest_us)
			longest_us = configuration->services[i]->drain_timeout_us;
	return longest_us;
}

/* From now on a TERM or INT does what it does to any program: ends it at once. */
static void let_second_signal_kill(void)
{
	sigset_t deadly;
	sigemptyset(&deadly);
	sigaddset(&deadly, SIGTERM);
	sigaddset(&deadly, SIGINT);
	pthread_sigmask(SIG_UNBLOCK, &deadly, NULL);
}

/* Until a signal says stop. False, and why, when it can't begin. */
static bool serve(struct weir *weir, rlim_t file_limit, const sigset_t *signals, int daemon_fd, char error[ERROR_MAX])
{
	const struct configuration *configuration = weir_configuration(weir);
	if (!drop_rights(configuration->globals.user, weir_log(weir), error) || weir_start(weir, error, ERROR_MAX) != WEIR_OK)
		return false;
	warn_of_file_limit(file_limit, configuration, weir_log(weir));
	leave_terminal(daemon_fd, weir_log(weir));
	struct manager *manager = manager_create(getenv("NOTIFY_SOCKET"), weir_log(weir));
	manager_say_ready(manager, weir);
	wait_for_stop(signals, weir, manager);
	let_second_signal_kill();
	manager_say_stopping(manager, weir, longest_drain_us(weir_configuration(weir)));
	manager_destroy(manager);
	weir_stop(weir, WEIR_DRAIN_TIMEOUT);
	return true;
}

static int run(struct configuration *configuration, const sigset_t *signals, int daemon_fd)
{
	char error[ERROR_MAX];
	rlim_t file_limit = raise_file_limit(configuration);
	/* For whom rights are dropped: no program that the process might be made to start gives it any, whatever that program's file
	   allows. Now, for it is a thread's own, and those that are started from here on have it too. */
	if (configuration->globals.user != NULL)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	/* A reload may name another one, which comes into force with the next start. */
	char *pidfile = configuration->globals.pidfile != NULL ? strdup(configuration->globals.pidfile) : NULL;
	struct weir *weir = weir_create_of(configuration, error, sizeof error);
	int pidfile_fd = weir != NULL ? write_pidfile(pidfile, error) : -2;
	bool good = pidfile_fd > -2 && serve(weir, file_limit, signals, daemon_fd, error);
	if (!good)
		say_error(error);
	if (pidfile_fd >= 0)
		remove_pidfile(pidfile_fd, pidfile);
	if (good)
		log_write(weir_log(weir), LOG_LEVEL_INFO, NULL, "stopped");
	weir_destroy(weir);
	free(pidfile);
	return good ? EXIT_SUCCESS : EXIT_FAILED;
}

/* What is odd and yet allowed. */
static void say_warnings(const struct configuration *configuration)
{
	for (size_t i = 0; i < configuration->service_count; i++) {
		const char *line = configuration->services[i]->warnings;
		while (line != NULL && *line != '\0') {
			size_t length = strcspn(line, "\n");
			fprintf(stderr, "weir: warning: %.*s\n", (int)length, line);
			line += length + (line[length] == '\n');
		}
	}
}

/* What is asked for besides running. */
static int show(enum configuration_wish wish, struct configuration *configuration)
{
	switch (wish) {
	case CONFIGURATION_RUN:
		break;
	case CONFIGURATION_CHECK:
		if (!configuration->quiet)
			configuration_print(configuration, stdout);
		say_warnings(configuration);
		break;
	case CONFIGURATION_HELP: settings_print_help(stdout); break;
	case CONFIGURATION_VERSION: printf("weir %s\n", WEIR_VERSION); break;
	case CONFIGURATION_REFERENCE: settings_print_reference(stdout); break;
	case CONFIGURATION_MANUAL_FLAGS: settings_print_manual_flags(stdout); break;
	case CONFIGURATION_MANUAL_KEYS: settings_print_manual_keys(stdout); break;
	case CONFIGURATION_COMPLETION: settings_print_completion(stdout); break;
	}
	configuration_free(configuration);
	if (fflush(stdout) == 0 && ferror(stdout) == 0)
		return EXIT_SUCCESS;
	say_error("cannot write to standard output");
	return EXIT_FAILED;
}

static void block_signals(sigset_t *waited_for)
{
	sigemptyset(waited_for);
	sigaddset(waited_for, SIGTERM);
	sigaddset(waited_for, SIGINT);
	sigaddset(waited_for, SIGHUP);
	sigaddset(waited_for, SIGUSR1);
	sigset_t blocked = *waited_for;
	sigaddset(&blocked, SIGPIPE); /* a log's reader that went away is an error number, not the end */
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
}

int main(int argc, char **argv)
{
	char error[ERROR_MAX];
	enum configuration_wish wish;
	if (argc > 1 && strcmp(argv[1], "top") == 0)
		return top_main(argc - 1, argv + 1);
	if (argc > 1 && healthcheck_is_asked(argv[1]))
		return healthcheck_main(argc, argv);
	struct configuration *configuration = configuration_read(argc, argv, &wish, error);
	if (configuration == NULL) {
		say_error(error);
		return EXIT_USAGE;
	}
	if (wish != CONFIGURATION_RUN)
		return show(wish, configuration);

	sigset_t signals;
	block_signals(&signals);
	int daemon_fd = configuration->daemon ? become_daemon() : -1;
	mallopt(M_ARENA_MAX, ARENAS_MAX);
	thread_prefer_batch();
	if (configuration->daemon && daemon_fd < 0) {
		say_error("cannot go to the background");
		configuration_free(configuration);
		return EXIT_FAILED;
	}
	return run(configuration, &signals, daemon_fd);
}
