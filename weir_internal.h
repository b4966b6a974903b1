/* weir_internal.h: what weir.h's object is made of, and what the program `weir` needs of it that no other program does.
 *
 * main.c is built on weir.h: it creates, starts, reloads, stops and destroys as any program would. What is left over is
 * the business of a process and not of a part of one: its command line, its limit on open files, its user, its
 * terminal.
 */
#ifndef WEIR_INTERNAL_H
#define WEIR_INTERNAL_H

#include <pthread.h>

#include "lib/log.h"
#include "lib/settings.h"
#include "lib/ts.h"
#include "services.h"
#include "weir.h"

enum weir_state {
	WEIR_CREATED,
	WEIR_STARTING,
	WEIR_RUNNING,
	WEIR_RELOADING,
	WEIR_STOPPING,
	WEIR_STOPPED,
};

/* A text that somebody may still read. */
struct weir_text {
	struct weir_text *next;
	char text[];
};

struct weir {
	/* Set once, or objects with locks of their own. The services are changed by whoever is STARTING, RELOADING or STOPPING. */
	struct log *log;
	weir_logger *logger;
	void *logger_context;
	char *file;              /* NULL: none */
	char **settings;         /* the caller's, copied; NULL-terminated */
	struct services *services;
	struct configuration *configuration; /* that of the last reload; whoever is RELOADING changes it */

	pthread_mutex_t mutex;
	pthread_cond_t changed;
	enum weir_state state GUARDED_BY(weir_mutex);
	bool was_cut GUARDED_BY(weir_mutex);
	unsigned inside GUARDED_BY(weir_mutex); /* threads in weir_serve() and weir_stop() */
	struct weir_text *texts GUARDED_BY(weir_mutex);
};

LOCK_VERBS(weir, mutex, weir_mutex)

/* Makes one of a configuration that was read already: it is the object's then, and freed on failure too. */
struct weir *weir_create_of(struct configuration *configuration, char *error, size_t error_size);
/* What is in force. Whoever reloads, between reloads. */
const struct configuration *weir_configuration(const struct weir *weir);
struct log *weir_log(struct weir *weir);
/* Puts a configuration into force: it is the object's then. The log tells how it went. False, and a line in error,
   when not all could be done. */
bool weir_apply(struct weir *weir, struct configuration *fresh, char *error, size_t error_size);
/* There is none to put into force, for what was read is wrong: the log and the metrics say so. */
void weir_refuse(struct weir *weir, const char *why);

#endif
