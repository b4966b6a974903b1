/* answer.h: the answers that weir makes itself: refusals and errors.
 *
 * Each names its cause twice: for a person in the body, for a program in Proxy-Status (RFC 9209). Any thread.
 */
#ifndef WEIR_ANSWER_H
#define WEIR_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_MAX 4096
/* Further fields: a line that is cut would join the next one. */
#define ANSWER_FIELDS_MAX 2048

struct answer {
	int status;
	int64_t date_s;         /* when: seconds since 1970 */
	const char *cause;      /* a Proxy-Status error token of RFC 9209 §2.3: "connection_refused"; NULL: none */
	const char *details;    /* one phrase: "field name with a blank", "over threshold": no quotes or control bytes */
	const char *body;       /* NULL: the status and its details, as a line of text */
	const char *content_type; /* NULL: text/plain */
	bool over_limit;        /* the body is {"overLimit":{…}} */
	unsigned retry_after_s; /* 0: no Retry-After */
	const char *fields;     /* further "Name: value\r\n" lines, at most ANSWER_FIELDS_MAX bytes; or NULL */
	bool head_only;         /* the request was HEAD: everything but the body */
	bool keep_alive;
	bool says_keep_alive;   /* to a 1.0 client */
};

/* Writes a whole response. Returns its length (at most ANSWER_MAX); *body_bytes is the body's share. */
size_t answer_write(const struct answer *answer, char out[ANSWER_MAX], size_t *body_bytes);

#endif
