/* traffic.c: the soak's traffic: clients and targets around weir, in one program with one thread (see traffic.h).
 *
 *      traffic SEED TARGETS         commands on stdin, one a line; an answer on stdout for each
 *
 *      place I SERVICE PORT         weir number I serves SERVICE (0 group, 1 solo, 2 open, 3 forward) at this port, from now on
 *      draining I, killed I         it is about to be told to stop; to be killed
 *      kill N hard|soft, revive N   target N dies, or comes back
 *      rate SERVICE N               requests a second
 *      limit SERVICE N              starts a second, 0: any number
 *      large 1, large 0             from now on every body is as large as any may be; is as it comes
 *      rest, go                     no new requests; answered when all are over and all clients' connections closed
 *      report                       the counts so far, as KEY=VALUE
 *      quit
 *
 * The pace is a timetable, as in bench/load.c: what could not be asked because every connection was busy is counted (skipped) and not
 * made up for. Everything random comes from SEED; what the machine does in between does not, so a seed repeats the questions and not the
 * microsecond at which they are asked.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "traffic.h"

#define EVENTS_MAX 512
#define TICK_MS 3
#define LATE_US (US_PER_S / 4) /* what is later than this in the timetable is left out */

uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

/* splitmix64 (Steele, Lea, Flood 2014). */
uint64_t chance(struct traffic *t, uint64_t limit)
{
	uint64_t z = (t->seed += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return limit > 0 ? (z ^ (z >> 31)) % limit : 0;
}

void listen_to(struct traffic *t, struct ear *ear)
{
	struct epoll_event event = { .data.ptr = ear };
	event.events = ear->kind == EAR_CLIENT || ear->kind == EAR_SERVED ? EPOLLIN | EPOLLOUT | EPOLLET : EPOLLIN;
	if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, ear->fd, &event) != 0) {
		perror("traffic: epoll_ctl");
		exit(1);
	}
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

static void report(struct traffic *t)
{
	const struct counts *c = &t->counts;
	static const char *const names[] = { "group", "solo" };
	printf("ok get=%llu/%llu post=%llu/%llu tunnel=%llu/%llu refused=%llu cut=%llu failed=%llu gone=%llu moved=%llu skipped=%llu "
	       "lost=%llu wrong=%llu busy=%u kills=%u",
	       c->answered[KIND_GET], c->asked[KIND_GET], c->answered[KIND_POST], c->asked[KIND_POST], c->answered[KIND_TUNNEL],
	       c->asked[KIND_TUNNEL], c->refused, c->cut_by_target, c->failed_by_target, c->gone_with_node, c->moved, c->skipped, c->lost,
	       c->wrong, t->busy, t->target_kills);
	for (enum service service = SERVICE_GROUP; service <= SERVICE_SOLO; service++) {
		struct windows_report w = windows_judge(t->windows, service);
		printf(" %s_starts=%llu %s_fullest=%u %s_most_over=%ld %s_breaches=%llu", names[service], w.starts, names[service],
		       w.fullest, names[service], w.most_over, names[service], w.breaches);
	}
	for (enum service service = SERVICE_OPEN; service < SERVICES; service++)
		(void)windows_judge(t->windows, service); /* their times need not be kept */
	for (unsigned i = 0; i < PLACES_MAX; i++)
		printf(" busy%u=%u", i, t->places[i].busy);
	printf("\n");
}

static bool obey_place(struct traffic *t, const char *line)
{
	unsigned index, service, port;
	if (sscanf(line, "place %u %u %u", &index, &service, &port) == 3 && index < PLACES_MAX && service < SERVICES) {
		t->places[index].service = (enum service)service;
		t->places[index].port = port;
		t->places[index].state = PLACE_UP;
	} else if (sscanf(line, "draining %u", &index) == 1 && index < PLACES_MAX) {
		t->places[index].state = PLACE_DRAINING;
	} else if (sscanf(line, "killed %u", &index) == 1 && index < PLACES_MAX) {
		t->places[index].state = PLACE_DOWN;
		t->places[index].kills++;
	} else {
		return false;
	}
	return true;
}

static bool obey_numbers(struct traffic *t, const char *line)
{
	unsigned index, value;
	char how[8];
	if (sscanf(line, "kill %u %7s", &index, how) == 2 && index < t->target_count)
		target_kill(t, index, strcmp(how, "hard") == 0);
	else if (sscanf(line, "revive %u", &index) == 1 && index < t->target_count)
		target_revive(t, index);
	else if (sscanf(line, "large %u", &value) == 1)
		t->only_large = value != 0;
	else if (sscanf(line, "rate %u %u", &index, &value) == 2 && index < SERVICES)
		t->rate[index] = value;
	else if (sscanf(line, "limit %u %u", &index, &value) == 2 && index < SERVICES)
		windows_limit(t->windows, (enum service)index, value);
	else
		return false;
	return true;
}

static void obey(struct traffic *t, const char *line)
{
	if (strcmp(line, "report") == 0) {
		report(t);
	} else if (strcmp(line, "rest") == 0) {
		t->rests = true; /* answered by say_rested() */
	} else if (strcmp(line, "go") == 0) {
		t->rests = false;
		printf("ok\n");
	} else if (strcmp(line, "quit") == 0) {
		t->ends = true;
		printf("ok\n");
	} else if (obey_place(t, line) || obey_numbers(t, line)) {
		printf("ok\n");
	} else {
		printf("what is \"%s\"?\n", line);
	}
	fflush(stdout);
}

/* One command: whoever gives them waits for the answer of each. */
static void read_command(struct traffic *t)
{
	char line[256];
	size_t length = 0;
	while (length < sizeof line - 1) {
		ssize_t count = read(STDIN_FILENO, line + length, 1);
		if (count <= 0) {
			t->ends = true;
			return;
		}
		if (line[length] == '\n')
			break;
		length++;
	}
	line[length] = '\0';
	obey(t, line);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------- */

/* Asks what is due. */
static void keep_pace(struct traffic *t, uint64_t due_us[SERVICES])
{
	uint64_t now = now_us();
	for (enum service service = SERVICE_GROUP; service < SERVICES; service++) {
		if (t->rests || t->rate[service] == 0 || due_us[service] + LATE_US < now)
			due_us[service] = now;
		while (!t->rests && t->rate[service] > 0 && due_us[service] <= now) {
			client_ask_one(t, service);
			due_us[service] += US_PER_S / t->rate[service];
		}
	}
}

static void hear(struct traffic *t, struct ear *ear)
{
	if (ear->fd < 0) /* closed by an event before this one */
		return;
	switch (ear->kind) {
	case EAR_COMMANDS:
		read_command(t);
		break;
	case EAR_LISTENER:
		target_accept(t, (struct target *)ear);
		break;
	case EAR_SERVED:
		served_ready(t, (struct served *)ear);
		break;
	case EAR_CLIENT:
		client_ready(t, (struct client *)ear);
		break;
	}
}

static void run(struct traffic *t)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t due_us[SERVICES] = { 0 }, tick_us = 0;
	bool has_rested = false;
	while (!t->ends) {
		int count = epoll_wait(t->epoll, events, EVENTS_MAX, TICK_MS);
		for (int i = 0; i < count && !t->ends; i++)
			hear(t, events[i].data.ptr);
		keep_pace(t, due_us);
		if (now_us() - tick_us >= TICK_MS * UINT64_C(1000)) {
			clients_tick(t);
			targets_tick(t);
			tick_us = now_us();
		}
		if (!t->rests)
			has_rested = false;
		if (t->rests && !has_rested && t->busy == 0) {
			has_rested = true;
			clients_close_idle(t);
			printf("ok\n");
			fflush(stdout);
		}
	}
}

int main(int count, char **arguments)
{
	static struct traffic traffic;
	struct traffic *t = &traffic;
	static struct ear commands = { .kind = EAR_COMMANDS, .fd = STDIN_FILENO };
	unsigned targets = count == 3 ? (unsigned)atoi(arguments[2]) : 0;
	if (targets < 1 || targets > TARGETS_MAX) {
		fprintf(stderr, "traffic SEED TARGETS (1 to %d)\n", TARGETS_MAX);
		return 2;
	}
	t->seed = strtoull(arguments[1], NULL, 10);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	t->windows = windows_create();
	if (t->epoll < 0 || t->windows == NULL) {
		perror("traffic");
		return 1;
	}
	listen_to(t, &commands);
	clients_begin(t);
	targets_begin(t, targets);
	printf("targets");
	for (unsigned i = 0; i < targets; i++)
		printf(" %u", t->targets[i].port);
	printf("\n");
	fflush(stdout);
	run(t);
	return t->counts.lost > 0 || t->counts.wrong > 0;
}
