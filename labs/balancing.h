/* balancing.h: what the graders of labs 1 to 3 share: targets named A, B, C, ..., and requests that go to them.
 *
 * A history is a string: "ABCAB" are five requests, each done before the next came. So what came and what should have
 * come can be printed one above the other, with a mark below the first difference.
 */
#ifndef LABS_BALANCING_H
#define LABS_BALANCING_H

#include "balancer.h"
#include "labs/grade.h"

#include <string.h>

#define SECOND_US UINT64_C(1000000)
#define HISTORY_MAX 400

static inline void release_nothing(void *item)
{
	(void)item;
}

/* The targets with these letters, in this order; their weights, or NULL for 1 each. The grader fails the test when that
   does not work. */
static inline bool set_letters(struct balancer *b, const char *letters, const unsigned *weights, uint64_t now_us)
{
	static char names[26][2], items[26];
	struct balancer_entry entries[26];
	size_t count = strlen(letters);

	for (size_t i = 0; i < count; i++) {
		size_t letter = (size_t)(letters[i] - 'A');

		names[letter][0] = items[letter] = letters[i];
		entries[i] = (struct balancer_entry){ .name = names[letter], .weight = weights != NULL ? weights[i] : 1,
			                              .item = &items[letter] };
	}
	return grade_check(balancer_set_targets(b, entries, count, now_us) == 0, "balancer_set_targets() failed");
}

static inline struct balancer *make_balancer(const char *letters, const unsigned *weights,
                                             struct balancer_options options)
{
	struct balancer *b = balancer_create(&options, release_nothing);

	if (!grade_check(b != NULL, "balancer_create() gave NULL"))
		return NULL;
	set_letters(b, letters, weights, 0);
	return b;
}

static inline struct balancer_options plain_options(void)
{
	return (struct balancer_options){
		.policy = BALANCER_ROUNDROBIN, .probe_interval_us = SECOND_US, .probe_rise = 1, .probe_fall = 1
	};
}

/* The letter of whoever was picked, '-' when nobody was, '?' when the pick has no item. */
static inline char pick_letter(struct balancer *b, struct balancer_tried *tried, struct balancer_pick *pick)
{
	memset(pick, 0, sizeof(*pick));
	if (!balancer_pick(b, 0, tried, pick))
		return '-';
	return pick->item != NULL ? *(const char *)pick->item : '?';
}

/* One request, which is done at once. */
static inline char serve(struct balancer *b)
{
	struct balancer_tried tried = { .count = 0 };
	struct balancer_pick pick;
	char letter = pick_letter(b, &tried, &pick);

	if (letter != '-')
		balancer_done(b, &pick);
	return letter;
}

static inline void serve_many(struct balancer *b, size_t count, char *history)
{
	for (size_t i = 0; i < count; i++)
		history[i] = serve(b);
	history[count] = '\0';
}

/* Prints both histories, one letter apart, and a mark below the first difference, as one text for grade_fail(). */
static inline void tell_apart(int points_left, const char *came, const char *expected, const char *why)
{
	char came_apart[2 * HISTORY_MAX + 1] = "", expected_apart[2 * HISTORY_MAX + 1] = "";
	size_t first = 0, shown = strlen(expected);

	while (came[first] == expected[first] && came[first] != '\0')
		first++;
	shown = shown < 40 ? shown : 40;
	size_t from = first >= shown ? first - shown / 2 : 0;
	for (size_t i = 0; i < shown && expected[from + i] != '\0'; i++) {
		came_apart[2 * i] = came[from + i];
		expected_apart[2 * i] = expected[from + i];
		came_apart[2 * i + 1] = expected_apart[2 * i + 1] = ' ';
		came_apart[2 * i + 2] = expected_apart[2 * i + 2] = '\0';
	}
	grade_partial(
		points_left,
		"%s\n    requests went to    %s\n    should have gone to %s\n                        %*s^ request %zu",
		why, came_apart, expected_apart, (int)(2 * (first - from)), "", first + 1);
}

static inline bool expect_history(struct balancer *b, const char *expected, const char *why)
{
	char came[HISTORY_MAX + 1];

	serve_many(b, strlen(expected), came);
	if (strcmp(came, expected) == 0)
		return true;
	tell_apart(0, came, expected, why);
	return false;
}

#endif
