/* notify.c: see notify.h. A socket without a name of its own, the manager's address, and a sendto() for each message. */
#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "socket.h"
#include "text.h"

/* A manager that is busy may let READY=1 wait for so long. */
#define PATIENCE_US (5 * US_PER_S)
#define STATUS_MAX 512
#define MESSAGE_MAX (STATUS_MAX + 128)

struct notifier {
	int fd;
	struct sockaddr_un address;
	socklen_t length; /* of the address: an abstract name has no NUL, and one that is sent along would be part of it */
};

static enum notify_result read_address(const char *text, struct notifier *out)
{
	size_t length = strlen(text);
	if (length < 2 || length >= sizeof out->address.sun_path || (text[0] != '/' && text[0] != '@'))
		return NOTIFY_BAD_ADDRESS;
	out->address.sun_family = AF_UNIX;
	memcpy(out->address.sun_path, text, length + 1);
	out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
	if (text[0] == '@') {
		out->address.sun_path[0] = '\0';
		out->length--;
	}
	return NOTIFY_SENT;
}

enum notify_result notifier_create(const char *address, struct notifier **out)
{
	*out = NULL;
	if (address == NULL || *address == '\0')
		return NOTIFY_NOBODY;
	struct notifier *notifier = calloc(1, sizeof *notifier);
	if (notifier == NULL)
		return NOTIFY_FAILED;
	enum notify_result result = read_address(address, notifier);
	if (result == NOTIFY_SENT) {
		uint64_t told_us = 0;
		notifier->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (notifier->fd >= 0)
			socket_may_block(notifier->fd, SO_SNDTIMEO, &told_us, PATIENCE_US);
		else
			result = NOTIFY_FAILED;
	}
	if (result == NOTIFY_SENT)
		*out = notifier;
	else
		free(notifier);
	return result;
}

void notifier_destroy(struct notifier *notifier)
{
	if (notifier == NULL)
		return;
	close(notifier->fd);
	free(notifier);
}

static enum notify_result send_message(struct notifier *notifier, const char *message, int flags)
{
	ssize_t sent;
	do
		sent = sendto(notifier->fd, message, strlen(message), flags | MSG_NOSIGNAL,
		              (const struct sockaddr *)&notifier->address, notifier->length);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? NOTIFY_FAILED : NOTIFY_SENT;
}

/* lines: those before the status, each with its end. */
static enum notify_result send_with_status(struct notifier *notifier, const char *lines, const char *status, int flags)
{
	char clean[STATUS_MAX], message[MESSAGE_MAX];
	if (notifier == NULL)
		return NOTIFY_NOBODY;
	text_clean(status, strlen(status), clean, sizeof clean);
	snprintf(message, sizeof message, "%sSTATUS=%s\n", lines, clean);
	return send_message(notifier, message, flags);
}

enum notify_result notify_ready(struct notifier *notifier, const char *status)
{
	return send_with_status(notifier, "READY=1\n", status, 0);
}

enum notify_result notify_reloading(struct notifier *notifier, uint64_t now_us)
{
	char message[MESSAGE_MAX];
	if (notifier == NULL)
		return NOTIFY_NOBODY;
	snprintf(message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%llu\n", (unsigned long long)now_us);
	return send_message(notifier, message, 0);
}

enum notify_result notify_stopping(struct notifier *notifier, const char *status, uint64_t timeout_us)
{
	char lines[MESSAGE_MAX - STATUS_MAX];
	snprintf(lines, sizeof lines, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu\n", (unsigned long long)timeout_us);
	return send_with_status(notifier, lines, status, 0);
}

enum notify_result notify_status(struct notifier *notifier, const char *status)
{
	return send_with_status(notifier, "", status, MSG_DONTWAIT);
}
