/* entrance.c: see entrance.h.
 *
 *      accept ─► from trust_forwarded? ─► PROXY header within header_timeout ─► the client that it names
 *                     │ no                     │ none, malformed, late
 *                     └────────────────────────┴──────────────────────────────► closed without a word
 *
 * Where a header is asked for, a connection without one is an error, never a client of its own: else whoever reaches
 * the port could choose to have none and so be another. And a header from somebody who is not trusted is closed rather
 * than passed over, for what he sent was meant to be believed. There is no answer: before the header nobody knows
 * which protocol the other side speaks.
 *
 * One line in the log says why, at most one a second: a port that is scanned should not fill a disk. A connection that
 * ends by itself is no news: a balancer that only looks whether the port is open does that all day.
 */
#include "entrance.h"

#include "lib/clock.h"
#include "lib/conn.h"
#include "lib/log.h"
#include "lib/proxy_header.h"

static void say_closed(struct proxy *proxy, const struct address *peer, const char *why)
{
	char text[ADDRESS_TEXT_MAX];
	uint64_t now_us = clock_us();
	unsigned long long last_us = atomic_load(&proxy->closed_logged_us);
	if (last_us != 0 && now_us - last_us < US_PER_S)
		return;
	if (!atomic_compare_exchange_strong(&proxy->closed_logged_us, &last_us, now_us))
		return;
	address_text(peer, text);
	log_write(proxy->log, LOG_LEVEL_WARN, proxy_name(proxy), "a connection from %s is closed: %s", text, why);
}

/* A drain may close the connection while nothing has come. */
static enum proxy_header_result receive(struct worker *worker, const struct settings *settings, int fd,
                                        struct proxy_header *header)
{
	uint64_t deadline_us = clock_us() + settings->header_timeout_us;
	bool may_wait = worker_rest(worker);
	if (may_wait)
		conn_wait(fd, true, deadline_us);
	worker_resume(worker);
	return proxy_header_receive(fd, may_wait ? deadline_us : clock_us(), header);
}

bool entrance_read_header(struct proxy *proxy, struct worker *worker, const struct settings *settings, int fd,
                          struct address *peer, struct address *destination)
{
	struct proxy_header header;
	destination->length = 0;
	if (settings->proxy_protocol == PROXY_PROTOCOL_OFF)
		return true;
	if (!networks_contain(&settings->trust_forwarded, peer)) {
		say_closed(proxy, peer, "trust_forwarded does not name it, and proxy_protocol is on");
		return false;
	}
	enum proxy_header_result result = receive(worker, settings, fd, &header);
	if (result == PROXY_HEADER_LATE)
		say_closed(proxy, peer, "its PROXY header did not come within header_timeout");
	else if (result == PROXY_HEADER_BAD)
		say_closed(proxy, peer, "it does not begin with a PROXY header");
	if (result == PROXY_HEADER_WHOLE && header.has_client) {
		*peer = header.client;
		*destination = header.destination;
	}
	return result == PROXY_HEADER_WHOLE;
}
