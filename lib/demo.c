/* demo.c: see demo.h. */
#include "demo.h"

#include <errno.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "conn.h"

static bool read_port(const char *text, char out[8])
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 5 || text[digits] != '\0')
		return false;
	unsigned long port = strtoul(text, NULL, 10);
	snprintf(out, 8, "%lu", port);
	return port >= 1 && port <= 65535;
}

bool demo_read_proxy(const char *text, struct demo_proxy *out)
{
	const char *colon = strrchr(text, ':');
	const char *host = text;
	size_t length = colon == NULL ? 0 : (size_t)(colon - text);
	if (colon == NULL) {
		snprintf(out->host, sizeof out->host, "localhost");
		return read_port(text, out->port);
	}
	bool is_bracketed = length > 2 && host[0] == '[' && host[length - 1] == ']';
	if (is_bracketed) {
		host++;
		length -= 2;
	}
	if (length == 0 || length >= sizeof out->host || (!is_bracketed && memchr(host, ':', length) != NULL))
		return false;
	memcpy(out->host, host, length);
	out->host[length] = '\0';
	return read_port(colon + 1, out->port);
}

int demo_connect(const struct demo_proxy *proxy, uint64_t deadline_us, const char **why)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC,
		                        .ai_socktype = SOCK_STREAM,
		                        .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found = NULL;
	int error = getaddrinfo(proxy->host, proxy->port, &hints, &found);
	if (error != 0) {
		*why = gai_strerror(error);
		return -1;
	}
	int connected = -1;
	for (const struct addrinfo *one = found; one != NULL && connected < 0; one = one->ai_next) {
		struct address address = { .length = one->ai_addrlen };
		memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
		int fd = conn_socket(&address);
		if (fd >= 0 && conn_connect(fd, &address, deadline_us) == CONN_OK) {
			connected = fd;
			continue;
		}
		*why = strerror(errno);
		if (fd >= 0)
			close(fd);
	}
	freeaddrinfo(found);
	return connected;
}

bool demo_sha1_hex(const char *bytes, size_t length, char out[DEMO_SHA1_HEX_BYTES])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_bytes = 0;
	if (EVP_Digest(bytes, length, digest, &digest_bytes, EVP_sha1(), NULL) != 1 || digest_bytes != 20)
		return false;
	for (unsigned i = 0; i < digest_bytes; i++)
		snprintf(out + 2 * (size_t)i, 3, "%02x", digest[i]);
	return true;
}

static bool has_colours(void)
{
	const char *refused = getenv("NO_COLOR");
	return isatty(STDOUT_FILENO) && (refused == NULL || refused[0] == '\0');
}

const char *demo_colour(const char *id)
{
	static const char *const colours[] = { "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m", "\x1b[31m" };
	unsigned sum = 0;
	for (const char *c = id; *c != '\0'; c++)
		sum = sum * 10 + (unsigned char)*c;
	return has_colours() ? colours[sum % 6] : "";
}

const char *demo_plain(void)
{
	return has_colours() ? "\x1b[0m" : "";
}
