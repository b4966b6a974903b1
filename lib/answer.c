/* answer.c: see answer.h. Sources: RFC 9110 §15 (statuses), §6.6.1 (Date), §10.2.3 (Retry-After); RFC 9209 (Proxy-Status). */
#include "answer.h"

#include <stdio.h>
#include <string.h>

#include "http.h"

static int write_body(const struct answer *answer, char *body, size_t capacity)
{
	if (answer->over_limit)
		return snprintf(body, capacity, "{\"overLimit\":{\"code\":%d,\"message\":\"%s\"}}", answer->status, answer->details);
	if (answer->body != NULL)
		return snprintf(body, capacity, "%s", answer->body);
	return snprintf(body, capacity, "%d %s: %s\n", answer->status, http_reason(answer->status), answer->details);
}

static void write_cause(const struct answer *answer, char *out, size_t capacity)
{
	out[0] = '\0';
	if (answer->cause != NULL)
		snprintf(out, capacity, "Proxy-Status: weir; error=%s; details=\"%s\"\r\n", answer->cause, answer->details);
}

size_t answer_write(const struct answer *answer, char out[ANSWER_MAX], size_t *body_bytes)
{
	char body[512], cause[512], date[HTTP_DATE_MAX], retry[48] = "";
	int written = write_body(answer, body, sizeof body);
	size_t body_length = written < (int)sizeof body ? (size_t)written : sizeof body - 1;
	write_cause(answer, cause, sizeof cause);
	http_write_date(answer->date_s, date);
	if (answer->retry_after_s > 0)
		snprintf(retry, sizeof retry, "Retry-After: %u\r\n", answer->retry_after_s);
	const char *connection = "";
	if (!answer->keep_alive)
		connection = "Connection: close\r\n";
	else if (answer->says_keep_alive)
		connection = "Connection: keep-alive\r\n";

	const char *type = answer->over_limit ? "application/json" : answer->content_type;

	static const char form[] = "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s%s%s\r\n";
	int head = snprintf(out, ANSWER_MAX, form,
	                    answer->status, http_reason(answer->status), date, type != NULL ? type : "text/plain",
	                    body_length, cause, retry, answer->fields != NULL ? answer->fields : "", connection);
	size_t length = head < ANSWER_MAX ? (size_t)head : ANSWER_MAX - 1;
	*body_bytes = answer->head_only ? 0 : body_length;
	if (length + *body_bytes > ANSWER_MAX)
		*body_bytes = 0; /* can't happen while fields are no longer than answer.h says */
	memcpy(out + length, body, *body_bytes);
	return length + *body_bytes;
}
