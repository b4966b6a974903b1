/* access.c: see access.h.
 *
 * The walk goes from the end of the last X-Forwarded-For to the beginning of the first: several fields of one name are
 * one list, in the order in which they came (RFC 9110 §5.3). At each step there is someone whose word is believed, and
 * what this one wrote is the entry before:
 *
 *      who is believed      10.0.0.2 (the peer) ──► 10.0.0.3 ──► 198.51.100.7   not trusted: this is the client,
 *      what it wrote             10.0.0.3          198.51.100.7                  and what it wrote is not even read
 *
 * Reading from the left instead, as many programs do, takes the one entry that anybody can choose freely: a client
 * would have a new address for each request, past every limit and every deny list.
 *
 * The invariant: the result is the peer, or was written by a peer that trust_forwarded names. If all are trusted, it is
 * the first of the list. Empty entries are skipped (RFC 9110 §5.6.1); one that is no address ("unknown", "_hidden")
 * ends the walk, for it says that whoever is behind it is not to be told apart.
 */
#include "access.h"

#include <string.h>

#define PORT_DIGITS_MAX 5

/* ":8080"; nothing is a port as well. */
static bool is_port(const char *text, size_t length)
{
	if (length == 0)
		return true;
	if (text[0] != ':' || length < 2 || length > 1 + PORT_DIGITS_MAX)
		return false;
	for (size_t i = 1; i < length; i++)
		if (text[i] < '0' || text[i] > '9')
			return false;
	return true;
}

/* Cuts "1.2.3.4:80" and "[2001:db8::1]:80" down to the address. False when what stands around it is wrong. An IPv6
   address without brackets has no port: its last colon is its own. */
static bool cut_port(struct http_text *entry)
{
	const char *colon = memchr(entry->at, ':', entry->length);

	if (entry->at[0] == '[') {
		const char *end = memchr(entry->at, ']', entry->length);
		size_t inside = end ? (size_t)(end - entry->at) - 1 : 0;
		if (!end || !memchr(entry->at + 1, ':', inside) || !is_port(end + 1, entry->length - inside - 2))
			return false;
		*entry = (struct http_text){ entry->at + 1, inside };
		return true;
	}
	if (!colon)
		return true;
	size_t before = (size_t)(colon - entry->at), behind = entry->length - before;
	if (memchr(colon + 1, ':', behind - 1))
		return true;
	entry->length = before;
	return is_port(colon, behind);
}

static bool read_entry(struct http_text entry, struct address *out)
{
	char host[INET6_ADDRSTRLEN];

	if (!cut_port(&entry) || entry.length >= sizeof host)
		return false;
	memcpy(host, entry.at, entry.length);
	host[entry.length] = '\0';
	if (!address_parse(host, 0, out))
		return false;
	address_unmap(out);
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Takes the last entry that is not empty off the end of a list. False when there is none. */
static bool take_last(struct http_text *list, struct http_text *entry)
{
	while (list->length > 0) {
		size_t end = list->length;
		size_t at = end;
		while (at > 0 && list->at[at - 1] != ',')
			at--;
		list->length = at > 0 ? at - 1 : 0;
		while (at < end && is_blank(list->at[at]))
			at++;
		while (end > at && is_blank(list->at[end - 1]))
			end--;
		if (end > at) {
			*entry = (struct http_text){ list->at + at, end - at };
			return true;
		}
	}
	return false;
}

void access_client(const struct networks *trusted, const struct address *peer, const struct http_head *request,
                   struct address *client)
{
	*client = *peer;
	address_unmap(client);
	for (size_t i = request->field_count; i > 0; i--) {
		const struct http_field *field = &request->fields[i - 1];
		struct http_text list = field->value, entry;
		if (field->known != HTTP_NAME_FORWARDED_FOR)
			continue;
		for (;;) {
			struct address before;
			if (!networks_contain(trusted, client))
				return;
			if (!take_last(&list, &entry))
				break;
			if (!read_entry(entry, &before))
				return;
			*client = before;
		}
	}
}

bool access_may_enter(const struct networks *allow, const struct networks *deny, const struct address *client)
{
	bool allows_everyone = allow->count == 0 && !allow->has_unix;

	if (networks_contain(deny, client))
		return false;
	return allows_everyone || networks_contain(allow, client);
}

/* A proxy that sets the field replaces what its client sent. One that only adds its own leaves two, and then it can't
   be told whose word is whose: all of them must say the same. */
static bool says(const struct http_head *request, const struct settings_header *wanted)
{
	size_t length = strlen(wanted->value);
	bool is_there = false;

	for (size_t i = 0; i < request->field_count; i++) {
		const struct http_field *field = &request->fields[i];
		if (!http_text_is(field->name, wanted->name))
			continue;
		if (field->value.length != length || memcmp(field->value.at, wanted->value, length) != 0)
			return false;
		is_there = true;
	}
	return is_there;
}

bool access_is_exempt(const struct settings_exemptions *exempt, const struct networks *trusted,
                      const struct address *peer, const struct address *client, const struct http_head *request)
{
	if (networks_contain(&exempt->networks, client))
		return true;
	if (exempt->header_count == 0 || !networks_contain(trusted, peer))
		return false;
	for (size_t i = 0; i < exempt->header_count; i++)
		if (says(request, &exempt->headers[i]))
			return true;
	return false;
}
