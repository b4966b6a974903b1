/* skeleton.c: lab 9, one limit for many nodes. It compiles, and each node gives itself the whole threshold.
 *
 * The idea that works is in cluster.md and in the head of cluster.c: the master has a ring of threshold slots, and
 * what it gives carries its bounds, "start not before S, not after S + L". A slot is given again at S + W + L at the
 * earliest.
 *
 *      member   q: "3 wait here" ───────►                      from  = r + in      (r: when the answer came)
 *      master                     ◄─────── "1, in 12 ms"        until = q + in + L  (the master answered at q or later)
 *
 * share.h says what each function is called for, and with what.
 */
#include "labs/09-one-limit/share.h"

#include <stdlib.h>
#include <string.h>

/* What a datagram of yours says: a question or an answer. Add what you need. */
struct note {
	unsigned kind, id;
};

struct share {
	struct share_options options;
	struct share_calls calls;
	uint64_t window_begun_us;
	unsigned given; /* in this window */
};

struct share *share_create(const struct share_options *options, const struct share_calls *calls, uint64_t now_us)
{
	struct share *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->options = *options;
	s->calls = *calls;
	s->window_begun_us = now_us;
	return s;
}

void share_destroy(struct share *s)
{
	free(s);
}

/* 1. Has this node stood still?  2. Who waits here, and who is to be asked for starts?  3. Am I master myself? */
uint64_t share_tick(struct share *s, uint64_t now_us)
{
	struct share_line line;

	s->calls.line(s->calls.context, &line);
	if (now_us - s->window_begun_us >= s->options.window_us) {
		s->window_begun_us = now_us;
		s->given = 0;
	}
	for (unsigned i = line.held; i < line.waiting && s->given < s->options.threshold; i++, s->given++)
		s->calls.give(s->calls.context, now_us, now_us + 5000, 1);
	return now_us + 20000;
}

/* A question: answer it if you are master. An answer: is it yours, and is it new enough to be used? */
void share_receive(struct share *s, const void *bytes, size_t length, uint64_t now_us)
{
	struct note note;

	(void)s, (void)now_us;
	if (length != sizeof note)
		return;
	memcpy(&note, bytes, sizeof note);
}

/* A new master: what may others have given that you know nothing of, and until when can it be used? */
void share_elected(struct share *s, unsigned master, uint64_t now_us)
{
	(void)s, (void)master, (void)now_us;
}
