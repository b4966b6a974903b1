/* http.h: reads HTTP/1.x heads, strictly. The head is everything up to and including the empty line.
 *
 *      bytes from the wire ──► http_scan() ──► a whole head ──► http_parse_request() ──► struct http_head, or a fault
 *                               any split        in one piece    http_parse_response()
 *
 * Scanning only finds the end of the head and may be called after each read; parsing happens once, on the whole head.
 * That is why any division of the bytes over reads gives the same result.
 *
 * The rule of this file: what two programs could read in two ways is refused, never passed on (RFC 9112 §6.3, §11.2:
 * request smuggling lives in that gap).
 *
 * No allocation, no shared state: any thread.
 */
#ifndef WEIR_HTTP_H
#define WEIR_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_FIELDS_MAX 128
#define HTTP_DATE_MAX 30 /* a date and its NUL */

/* A piece of someone else's bytes. Not terminated by NUL. at is NULL when there is none. */
struct http_text {
	const char *at;
	size_t length;
};

/* Something that can't be accepted: the status that says so, and one English phrase (static). status 0: no fault. */
struct http_fault {
	int status;
	const char *why;
};

/* The methods that weir treats in a way of their own; everything else is HTTP_OTHER. */
enum http_method {
	HTTP_OTHER,
	HTTP_GET,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_PUT,
	HTTP_DELETE,
	HTTP_OPTIONS,
	HTTP_TRACE,
	HTTP_CONNECT,
};

/* The fields that weir itself reads, writes or removes. */
enum http_name {
	HTTP_NAME_OTHER,
	HTTP_NAME_CONNECTION,
	HTTP_NAME_CONTENT_LENGTH,
	HTTP_NAME_DATE,
	HTTP_NAME_EXPECT,
	HTTP_NAME_FORWARDED_FOR,   /* X-Forwarded-For */
	HTTP_NAME_FORWARDED_HOST,  /* X-Forwarded-Host */
	HTTP_NAME_FORWARDED_PROTO, /* X-Forwarded-Proto */
	HTTP_NAME_HOST,
	HTTP_NAME_HTTP2_SETTINGS,
	HTTP_NAME_KEEP_ALIVE,
	HTTP_NAME_MAX_FORWARDS,
	HTTP_NAME_PROXY_AUTHORIZATION,
	HTTP_NAME_PROXY_CONNECTION,
	HTTP_NAME_REFERER,
	HTTP_NAME_TE,
	HTTP_NAME_TRAILER,
	HTTP_NAME_TRANSFER_ENCODING,
	HTTP_NAME_UPGRADE,
	HTTP_NAME_USER_AGENT,
	HTTP_NAME_VIA,
};

struct http_field {
	struct http_text name;
	struct http_text value; /* without blanks at either end */
	enum http_name known;
	bool hop_by_hop;        /* must not be forwarded: always so, or named in Connection */
};

/* How the end of the body is found (RFC 9112 §6.3). */
enum http_framing {
	HTTP_NO_BODY,
	HTTP_BY_LENGTH,
	HTTP_CHUNKED,
	HTTP_UNTIL_CLOSE, /* responses only */
};

enum http_target_form { HTTP_ORIGIN_FORM, HTTP_ABSOLUTE_FORM, HTTP_AUTHORITY_FORM, HTTP_ASTERISK_FORM };

/* A parsed head. Every text points into the bytes that were parsed: they must stay where they are. */
struct http_head {
	/* requests */
	enum http_method method;
	struct http_text method_text;
	struct http_text target;      /* as it came */
	enum http_target_form form;
	struct http_text path;        /* what is sent upstream: origin form or "*"; for absolute form without path "/"
	                                 (or "*" for OPTIONS); for http://host?query the text begins with '?' and the
	                                 writer puts '/' before it; for CONNECT the target itself */
	struct http_text host;        /* the authority to go to: of the target if it has one, else of Host; {NULL,0} in
	                                 a 1.0 request without */
	bool expects_continue;        /* "Expect: 100-continue" of a 1.1 client that has a body and waits to send it */
	bool is_idempotent;           /* GET HEAD OPTIONS TRACE PUT DELETE (RFC 9110 §9.2.2) */
	/* responses */
	int status;
	struct http_text reason;
	/* both */
	unsigned minor_version;       /* HTTP/1.minor_version, 0 or 1 */
	bool keep_alive;              /* what the version and Connection say together */
	struct http_text upgrade;     /* the value of Upgrade when Connection names it, else {NULL,0} */
	enum http_framing framing;
	uint64_t content_length;      /* HTTP_BY_LENGTH; for HEAD or 304 answers the length announced, if
	                                 has_content_length */
	bool has_content_length;
	size_t field_count;
	struct http_field fields[HTTP_FIELDS_MAX];
};

/* How far a scan has come. All zero at the start of a head, but for is_response. */
struct http_scan {
	bool is_response; /* set by the caller: it must begin with "HTTP/", and no empty line comes before it */
	size_t line_at;   /* where the current line begins */
	size_t seen;      /* bytes looked at */
	size_t skipped;   /* bytes of empty lines before a request line; two such lines are tolerated (RFC 9112 §2.2) */
};

enum http_scan_result {
	HTTP_SCAN_MORE,     /* the head is not complete: read on */
	HTTP_SCAN_COMPLETE, /* *head_length bytes, from bytes + scan->skipped on, are the head with its empty line */
	HTTP_SCAN_BAD,      /* no head will come of this. The scan is over: don't go on with it */
};

/* Looks for the end of the head in bytes[0..length), going on where the last call stopped; bytes may have grown (and
   moved) since, not changed. Stops at the first byte that rules a head out: a line that ends in a bare LF, a NUL, a
   first byte that can't begin a method or "HTTP/". */
enum http_scan_result http_scan(struct http_scan *scan, const char *bytes, size_t length, size_t *head_length);

/* Parses a whole request head (as found by http_scan). On a fault the head's method_text and target are set if they
   could be read (for the log), and nothing else may be used. 400 malformed or ambiguous; 417 an expectation other
   than 100-continue; 431 too many fields; 501 unknown transfer coding; 505 other versions than 1.x, the HTTP/2
   preface. CONNECT is parsed (authority form); whether it is served is not decided here. */
struct http_fault http_parse_request(const char *bytes, size_t length, struct http_head *head);

/* Parses a whole response head. The request decides whether there is a body: HEAD, and 2xx to CONNECT, have none.
   Every fault has status 502. */
struct http_fault http_parse_response(const char *bytes, size_t length, enum http_method request_method,
                                      struct http_head *head);

/* The first field with that name, or NULL. Names are compared without regard to case. */
const struct http_field *http_find(const struct http_head *head, enum http_name known);
const struct http_field *http_find_name(const struct http_head *head, const char *name);

bool http_text_is(struct http_text text, const char *word);      /* equal, without regard to case */
/* Takes the next element of a comma-separated list off the front of *list, blanks trimmed, empty elements skipped.
   False at the end. */
bool http_next_element(struct http_text *list, struct http_text *element);
/* Decimal digits only, at most 18 of them. False for anything else. */
bool http_parse_number(struct http_text text, uint64_t *number);

/* Do all the protocols that the other side switched to stand among those that it was offered? Both are values of
   Upgrade (RFC 9110 §7.8). */
bool http_upgrade_was_offered(struct http_text offered, struct http_text chosen);

/* Writes a time, in seconds since 1970, as Date has it: "Sun, 06 Nov 1994 08:49:37 GMT", ended by NUL. */
void http_write_date(int64_t unix_s, char out[HTTP_DATE_MAX]);

const char *http_reason(int status); /* "Not Found"; "Unknown" for a status that has no name here */

#endif
