/* given.h: the part of lab 3's balancer that is given: the rotation of lab 1, the locks, and the calls into what the
 * student writes. Included at the end of a student's balancer.
 *
 *      balancer_failed ────► take_out          balancer_probe_due ──► next_to_probe
 *      balancer_succeeded ─► forgive           balancer_probed ─────► judge
 *      balancer_pick, balancer_any_in ───────► takes_turns
 *      balancer_set_targets ─► list_changed ─► begin, for each that is new
 *
 * Each of those six is called with the mutex locked, and only then, so that they need not think of threads.
 */
#ifndef LABS_03_GIVEN_H
#define LABS_03_GIVEN_H

static void list_changed(struct balancer *b, struct target *const *old_list, size_t old_count, uint64_t now_us)
{
	size_t next = 0;
	bool is_found = false;

	for (size_t i = 0; i < old_count && !is_found; i++) {
		const struct target *t = old_list[(b->own.next + i) % old_count];

		for (size_t j = 0; t->is_listed && j < b->count && !is_found; j++) {
			is_found = b->list[j] == t;
			next = is_found ? j : 0;
		}
	}
	b->own.next = next;
	for (size_t i = 0; i < b->count; i++) {
		if (!b->list[i]->own.is_known)
			begin(b, b->list[i], now_us);
		b->list[i]->own.is_known = true;
	}
}

bool balancer_pick(struct balancer *b, uint64_t key_hash, struct balancer_tried *tried, struct balancer_pick *out)
{
	struct target *t = NULL;

	(void)key_hash;
	pthread_mutex_lock(&b->mutex);
	for (size_t i = 0; i < b->count && t == NULL; i++) {
		size_t place = (b->own.next + i) % b->count;
		struct target *candidate = b->list[place];

		if (!takes_turns(candidate) || (tried->bits[candidate->slot / 64] >> (candidate->slot % 64) & 1) != 0)
			continue;
		t = candidate;
		b->own.next = (place + 1) % b->count;
		tried->bits[t->slot / 64] |= UINT64_C(1) << (t->slot % 64);
		tried->count++;
		t->active++;
		t->requests_total++;
		*out = (struct balancer_pick){ .slot = t->slot, .stay = t->own.stay, .item = t->item };
	}
	pthread_mutex_unlock(&b->mutex);
	return t != NULL;
}

bool balancer_any_in(struct balancer *b)
{
	bool found = false;

	pthread_mutex_lock(&b->mutex);
	for (size_t i = 0; i < b->count && !found; i++)
		found = takes_turns(b->list[i]);
	pthread_mutex_unlock(&b->mutex);
	return found;
}

void balancer_succeeded(struct balancer *b, const struct balancer_pick *pick)
{
	pthread_mutex_lock(&b->mutex);
	forgive(b->slots[pick->slot], pick);
	pthread_mutex_unlock(&b->mutex);
}

bool balancer_failed(struct balancer *b, const struct balancer_pick *pick, uint64_t now_us)
{
	struct target *t;
	bool is_news;

	pthread_mutex_lock(&b->mutex);
	t = b->slots[pick->slot];
	t->failures_total++;
	is_news = t->is_listed && take_out(b, t, pick, now_us);
	pthread_mutex_unlock(&b->mutex);
	return is_news;
}

bool balancer_probe_due(struct balancer *b, uint64_t now_us, struct balancer_pick *out, uint64_t *wake_us)
{
	struct target *t;
	bool is_due;

	pthread_mutex_lock(&b->mutex);
	t = next_to_probe(b);
	*wake_us = t != NULL ? t->own.next_probe_us : NEVER;
	is_due = *wake_us != NEVER && *wake_us <= now_us;
	if (is_due) {
		t->is_probing = true;
		*out = (struct balancer_pick){ .slot = t->slot, .stay = t->own.stay, .item = t->item };
	}
	pthread_mutex_unlock(&b->mutex);
	return is_due;
}

enum balancer_change balancer_probed(struct balancer *b, const struct balancer_pick *pick, bool good, uint64_t now_us)
{
	enum balancer_change change;
	struct target *t;
	void *ended;

	pthread_mutex_lock(&b->mutex);
	t = b->slots[pick->slot];
	t->is_probing = false;
	change = judge(b, t, pick, good, now_us);
	if (!t->is_listed || t->is_drained)
		change = BALANCER_SAME;
	ended = end_if_unused(b, t);
	pthread_mutex_unlock(&b->mutex);
	if (ended != NULL)
		b->release(ended);
	return change;
}

static void describe(const struct balancer *b, const struct target *t, struct balancer_report *report)
{
	report->is_next = b->own.next < b->count && b->list[b->own.next] == t;
	if (t->own.is_out && !t->is_drained)
		report->state = BALANCER_OUT;
	if (t->own.next_probe_us != NEVER && !t->is_probing && !t->is_drained)
		report->next_probe_us = t->own.next_probe_us > 0 ? t->own.next_probe_us : 1;
}

#endif
