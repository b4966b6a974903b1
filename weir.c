/* weir.c: see weir.h. The life of an object: made, started, reloaded, stopped, freed, by whichever threads.
 *
 *      CREATED ──► STARTING ──► RUNNING ◄──► RELOADING
 *         │           │            │
 *         └───────────┴────────────┴──► STOPPING ──► STOPPED
 *
 * The services are one thread's at a time: whoever has put the object into one of the states that end in -ING. Others
 * wait for that state to pass, which it does soon; only STOPPING may last, up to its deadline, and who comes with a
 * nearer one cuts it short.
 *
 * The invariant: from STOPPED there is no way back, and nobody who waits is left waiting. Without it, a weir_stop()
 * that comes a moment before weir_serve() would leave that one serving for ever.
 */
#include "weir_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/thread.h"

/* A deadline further away than this is none. */
#define DEADLINE_MOST_S 1e9

/* ---- texts ---------------------------------------------------------------------------------------------------------- */

const char *weir_version(void)
{
	return WEIR_VERSION;
}

const char *weir_result_text(enum weir_result result)
{
	switch (result) {
	case WEIR_OK: return "done";
	case WEIR_CUT: return "stopped, and connections were cut";
	case WEIR_FAILED: return "it failed";
	case WEIR_NOTHING: return "NULL was passed where an object or a text is needed";
	case WEIR_BAD_HOST: return "not a host; allowed: host, host:port, [IPv6] or [IPv6]:port";
	case WEIR_BAD_LIMIT: return "too large; allowed: a limit of 0 to 1000000, for up to 4096 hosts";
	case WEIR_NO_FORWARD: return "there is no service of mode forward that runs, and no other has limits for hosts";
	case WEIR_NO_MEMORY: return "out of memory";
	}
	return "no such result";
}

static enum weir_result fail(char *error, size_t error_size, const char *why)
{
	if (error != NULL && error_size > 0)
		snprintf(error, error_size, "%s", why);
	return WEIR_FAILED;
}

/* Room for an error, and what the caller gave us of it. */
static void say(char *error, size_t error_size, const char *why)
{
	fail(error, error_size, why);
}

/* ---- making and freeing --------------------------------------------------------------------------------------------- */

static void take_line(void *context, enum log_level level, const char *service, const char *text)
{
	struct weir *weir = context;
	weir->logger(weir->logger_context, (enum weir_log_level)level, service, text);
}

static struct log_options log_options(struct weir *weir, const struct configuration *configuration)
{
	const struct settings_globals *globals = &configuration->globals;
	return (struct log_options){ .path = globals->logfile,
		                     .access_path = globals->access_log,
		                     .level = (enum log_level)globals->log_level,
		                     .json = globals->log_format == FORMAT_JSON,
		                     .traces = globals->trace == TRACE_YES,
		                     .take = weir->logger != NULL ? take_line : NULL,
		                     .take_context = weir };
}

static void free_weir(struct weir *weir)
{
	if (weir->services != NULL)
		services_destroy(weir->services);
	log_destroy(weir->log);
	configuration_free(weir->configuration);
	for (size_t i = 0; weir->settings != NULL && weir->settings[i] != NULL; i++)
		free(weir->settings[i]);
	free(weir->settings);
	free(weir->file);
	weir_lock(weir);
	while (weir->texts != NULL) {
		struct weir_text *text = weir->texts;
		weir->texts = text->next;
		free(text);
	}
	weir_unlock(weir);
	pthread_cond_destroy(&weir->changed);
	pthread_mutex_destroy(&weir->mutex);
	free(weir);
}

static struct weir *make(void)
{
	struct weir *weir = calloc(1, sizeof *weir);
	if (weir == NULL)
		return NULL;
	pthread_mutex_init(&weir->mutex, NULL);
	thread_condition_init(&weir->changed);
	return weir;
}

/* Gives it a log and services. False, and why. */
static bool furnish(struct weir *weir, struct configuration *configuration, char error[SETTINGS_ERROR_MAX])
{
	struct log_options options = log_options(weir, configuration);
	weir->configuration = configuration;
	weir->log = log_create(&options, error, SETTINGS_ERROR_MAX);
	if (weir->log != NULL)
		weir->services = services_create(configuration, weir->log, error, SETTINGS_ERROR_MAX);
	return weir->services != NULL;
}

struct weir *weir_create_of(struct configuration *configuration, char *error, size_t error_size)
{
	char why[SETTINGS_ERROR_MAX] = "out of memory";
	struct weir *weir = make();
	if (weir == NULL)
		configuration_free(configuration);
	else if (furnish(weir, configuration, why))
		return weir;
	else
		free_weir(weir);
	say(error, error_size, why);
	return NULL;
}

/* A reload reads them again: they must not be gone, or have changed, by then. */
static bool copy_source(struct weir *weir, const char *path, const char *const *settings)
{
	size_t count = 0;
	while (settings != NULL && settings[count] != NULL)
		count++;
	weir->settings = calloc(count + 1, sizeof *weir->settings);
	if (path != NULL)
		weir->file = strdup(path);
	bool is_good = weir->settings != NULL && (path == NULL || weir->file != NULL);
	for (size_t i = 0; is_good && i < count; i++)
		is_good = (weir->settings[i] = strdup(settings[i])) != NULL;
	return is_good;
}

/* What is the process's, and not that of a part of it. */
static void say_what_is_passed_over(struct weir *weir)
{
	const struct settings_globals *globals = &weir->configuration->globals;
	if (globals->user != NULL)
		log_write(weir->log, LOG_LEVEL_WARN, NULL, "user does nothing here: it is for the program weir, not for one that has weir in it");
	if (globals->pidfile != NULL)
		log_write(weir->log, LOG_LEVEL_WARN, NULL, "pidfile does nothing here: it is for the program weir, not for one that has weir in it");
}

static struct weir *create(const char *path, const char *const *settings, weir_logger *logger, void *context, char *error,
                           size_t error_size)
{
	char why[SETTINGS_ERROR_MAX] = "out of memory";
	struct weir *weir = make();
	if (weir != NULL) {
		weir->logger = logger;
		weir->logger_context = context;
	}
	if (weir != NULL && copy_source(weir, path, settings)) {
		struct configuration *configuration =
			configuration_of_program(weir->file, (const char *const *)weir->settings, why);
		if (configuration != NULL && furnish(weir, configuration, why)) {
			say_what_is_passed_over(weir);
			say(error, error_size, "");
			return weir;
		}
	}
	if (weir != NULL)
		free_weir(weir);
	say(error, error_size, why);
	return NULL;
}

struct weir *weir_create(const char *const *settings, weir_logger *logger, void *context, char *error, size_t error_size)
{
	return create(NULL, settings, logger, context, error, error_size);
}

struct weir *weir_create_from_file(const char *path, const char *const *settings, weir_logger *logger, void *context, char *error,
                                   size_t error_size)
{
	if (path != NULL && *path != '\0')
		return create(path, settings, logger, context, error, error_size);
	say(error, error_size, "no file is named; allowed: a file's path");
	return NULL;
}

/* ---- starting and stopping ------------------------------------------------------------------------------------------ */

/* Somebody is at work on the services, and will soon have done. */
static bool is_busy(const struct weir *weir) REQUIRES(weir_mutex)
{
	return weir->state == WEIR_STARTING || weir->state == WEIR_RELOADING;
}

static void set_state(struct weir *weir, enum weir_state state)
{
	weir_lock(weir);
	weir->state = state;
	pthread_cond_broadcast(&weir->changed);
	weir_unlock(weir);
}

static void wait_while_busy(struct weir *weir) REQUIRES(weir_mutex)
{
	while (is_busy(weir))
		pthread_cond_wait(&weir->changed, &weir->mutex);
}

/* Is it ours to start? It is STARTING then. */
static bool begin_to_start(struct weir *weir, enum weir_state *found)
{
	weir_lock(weir);
	wait_while_busy(weir);
	*found = weir->state;
	if (weir->state == WEIR_CREATED)
		weir->state = WEIR_STARTING;
	weir_unlock(weir);
	return *found == WEIR_CREATED;
}

/* STARTING becomes RUNNING, or STOPPED. */
static enum weir_result start(struct weir *weir, char *error, size_t error_size)
{
	char why[SETTINGS_ERROR_MAX];
	if (services_start(weir->services, why, sizeof why)) {
		set_state(weir, WEIR_RUNNING);
		say(error, error_size, "");
		return WEIR_OK;
	}
	services_stop(weir->services, 0);
	set_state(weir, WEIR_STOPPED);
	return fail(error, error_size, why);
}

enum weir_result weir_start(struct weir *weir, char *error, size_t error_size)
{
	enum weir_state found;
	if (weir == NULL)
		return fail(error, error_size, weir_result_text(WEIR_NOTHING));
	if (begin_to_start(weir, &found))
		return start(weir, error, error_size);
	return fail(error, error_size, found == WEIR_RUNNING ? "it was started already" : "it was stopped, and can't be started again");
}

static enum weir_result result_of_stop(const struct weir *weir) REQUIRES(weir_mutex)
{
	return weir->was_cut ? WEIR_CUT : WEIR_OK;
}

static void leave(struct weir *weir) REQUIRES(weir_mutex)
{
	weir->inside--;
	pthread_cond_broadcast(&weir->changed);
}

/* Until it has been stopped. */
static enum weir_result wait_for_end(struct weir *weir)
{
	weir_lock(weir);
	while (weir->state != WEIR_STOPPED)
		pthread_cond_wait(&weir->changed, &weir->mutex);
	enum weir_result result = result_of_stop(weir);
	weir_unlock(weir);
	return result;
}

/* Inside from the first moment: one that counted itself only when it has started would find the object freed by a
   weir_destroy() that waited for the start. */
enum weir_result weir_serve(struct weir *weir, char *error, size_t error_size)
{
	enum weir_state found;
	enum weir_result result = WEIR_OK;
	if (weir == NULL)
		return fail(error, error_size, weir_result_text(WEIR_NOTHING));
	weir_lock(weir);
	weir->inside++;
	weir_unlock(weir);
	say(error, error_size, "");
	if (begin_to_start(weir, &found))
		result = start(weir, error, error_size);
	if (result == WEIR_OK)
		result = wait_for_end(weir);
	weir_lock(weir);
	leave(weir);
	weir_unlock(weir);
	return result;
}

/* Waits for another thread's weir_stop(), until ours would be over. False: it is over. */
static bool wait_for_other_stop(struct weir *weir, uint64_t deadline_us) REQUIRES(weir_mutex)
{
	struct timespec deadline = { .tv_sec = (time_t)(deadline_us / US_PER_S), .tv_nsec = (long)(deadline_us % US_PER_S) * 1000 };
	int error = 0;
	while (weir->state != WEIR_STOPPED && error != ETIMEDOUT)
		error = deadline_us == SERVICES_DRAIN_TIMEOUT ? pthread_cond_wait(&weir->changed, &weir->mutex) :
		                                                pthread_cond_timedwait(&weir->changed, &weir->mutex, &deadline);
	return weir->state == WEIR_STOPPED;
}

static void stop(struct weir *weir, uint64_t deadline_us) EXCLUDES(weir_mutex)
{
	bool none_cut = services_stop(weir->services, deadline_us);
	weir_lock(weir);
	weir->was_cut = !none_cut;
	weir->state = WEIR_STOPPED;
	pthread_cond_broadcast(&weir->changed);
	weir_unlock(weir);
}

enum weir_result weir_stop(struct weir *weir, double deadline_s)
{
	if (weir == NULL)
		return WEIR_NOTHING;
	bool is_own = !(deadline_s >= 0 && deadline_s < DEADLINE_MOST_S); /* also what is no number */
	uint64_t deadline_us = is_own ? SERVICES_DRAIN_TIMEOUT : clock_us() + (uint64_t)(deadline_s * (double)US_PER_S);
	weir_lock(weir);
	weir->inside++;
	wait_while_busy(weir);
	enum weir_state found = weir->state;
	if (found == WEIR_CREATED || found == WEIR_RUNNING)
		weir->state = WEIR_STOPPING;
	bool is_over = found != WEIR_STOPPING || wait_for_other_stop(weir, deadline_us);
	weir_unlock(weir);
	if (found == WEIR_CREATED || found == WEIR_RUNNING)
		stop(weir, deadline_us);
	else if (!is_over)
		services_cut(weir->services);
	weir_lock(weir);
	wait_for_other_stop(weir, SERVICES_DRAIN_TIMEOUT);
	enum weir_result result = result_of_stop(weir);
	leave(weir);
	weir_unlock(weir);
	return result;
}

void weir_destroy(struct weir *weir)
{
	if (weir == NULL)
		return;
	weir_stop(weir, 0);
	weir_lock(weir);
	while (weir->inside > 0)
		pthread_cond_wait(&weir->changed, &weir->mutex);
	weir_unlock(weir);
	free_weir(weir);
}

/* ---- reloading ------------------------------------------------------------------------------------------------------ */

const struct configuration *weir_configuration(const struct weir *weir)
{
	return weir->configuration;
}

struct log *weir_log(struct weir *weir)
{
	return weir->log;
}

void weir_refuse(struct weir *weir, const char *why)
{
	log_write(weir->log, LOG_LEVEL_ERROR, NULL, "the old settings stay in force: %s", why);
	services_reload_refused(weir->services);
}

/* Only what runs can be reloaded. */
static bool begin_to_reload(struct weir *weir)
{
	weir_lock(weir);
	wait_while_busy(weir);
	bool is_running = weir->state == WEIR_RUNNING;
	if (is_running)
		weir->state = WEIR_RELOADING;
	weir_unlock(weir);
	return is_running;
}

/* While RELOADING. */
static bool apply(struct weir *weir, struct configuration *fresh, char why[SETTINGS_ERROR_MAX])
{
	char log_error[SETTINGS_ERROR_MAX];
	struct log_options options = log_options(weir, fresh);
	bool log_is_good = log_configure(weir->log, &options, log_error, sizeof log_error);
	if (!log_is_good)
		log_write(weir->log, LOG_LEVEL_ERROR, NULL, "%s", log_error);
	bool is_good = services_reload(weir->services, fresh, why, SETTINGS_ERROR_MAX);
	if (is_good)
		log_write(weir->log, LOG_LEVEL_INFO, NULL, fresh->file_path != NULL || fresh->is_program ? "new settings are in force" :
		          "new settings are in force: those of the command line, for there is no file");
	else
		log_write(weir->log, LOG_LEVEL_ERROR, NULL, "not all new settings are in force: %s", why);
	if (is_good && !log_is_good)
		snprintf(why, SETTINGS_ERROR_MAX, "%s", log_error);
	configuration_free(weir->configuration);
	weir->configuration = fresh;
	return is_good && log_is_good;
}

bool weir_apply(struct weir *weir, struct configuration *fresh, char *error, size_t error_size)
{
	char why[SETTINGS_ERROR_MAX];
	if (!begin_to_reload(weir)) {
		configuration_free(fresh);
		say(error, error_size, "it does not run");
		return false;
	}
	bool is_good = apply(weir, fresh, why);
	set_state(weir, WEIR_RUNNING);
	say(error, error_size, is_good ? "" : why);
	return is_good;
}

enum weir_result weir_reload(struct weir *weir, char *error, size_t error_size)
{
	char why[SETTINGS_ERROR_MAX];
	if (weir == NULL)
		return fail(error, error_size, weir_result_text(WEIR_NOTHING));
	if (!begin_to_reload(weir))
		return fail(error, error_size, "it does not run, and there is nothing to reload");
	struct configuration *fresh = configuration_reread(weir->configuration, why);
	if (fresh == NULL)
		weir_refuse(weir, why);
	bool is_good = fresh != NULL && apply(weir, fresh, why);
	set_state(weir, WEIR_RUNNING);
	if (!is_good)
		return fail(error, error_size, why);
	say(error, error_size, "");
	return WEIR_OK;
}

void weir_reopen_logs(struct weir *weir)
{
	if (weir != NULL)
		log_reopen(weir->log);
}
