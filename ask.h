/* ask.h: one GET of a weir that runs, by a program that looks at it from outside: `weir top`, `weir --healthcheck`. */
#ifndef WEIR_ASK_H
#define WEIR_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/text.h"

#define ASK_HOST_MAX 256

struct ask {
	const char *place;      /* as the setting admin is written, or HOST:PORT with a host's name */
	const char *target;     /* "/healthz" */
	const char *token;      /* admin_token, or "" */
	uint64_t deadline_us;   /* of clock_us(), for all of it: name, connection, question, answer */
	size_t answer_max_bytes;
	bool wants_body;        /* false: the answer's head is enough, its body is not waited for */
};

struct asked {
	int status;          /* of the answer; 0: there was none */
	struct text answer;  /* the bytes as they came; text_free() */
	size_t head_bytes;   /* so many of them are the head */
	const char *why;     /* when there was no answer: a phrase (static) */
};

/* Asks, and fills *asked: also on failure, and text_free(&asked->answer) is always the caller's to call. True when a whole answer
   came, whatever its status. Any thread. */
bool ask(const struct ask *question, struct asked *asked);

#endif
