/* answer.c: see answer.h. Sources: RFC 9110 §15 (statuses), §6.6.1 (Date), §10.2.3 (Retry-After); RFC 9209 (Proxy-Status). */
#include "answer.h"

#include "http.h"
#include "writer.h"

#define BODY_MAX 512
/* Of what a person reads in an answer: so there is room for all of the rest. */
#define WORDS_MAX 400

static void put_body(struct writer *w, const struct answer *answer)
{
	if (answer->over_limit) {
		writer_put_literal(w, "{\"overLimit\":{\"code\":");
		writer_put_number(w, (uint64_t)answer->status);
		writer_put_literal(w, ",\"message\":\"");
		writer_put_some(w, answer->details, WORDS_MAX);
		writer_put_literal(w, "\"}}");
	} else if (answer->body != NULL) {
		writer_put_some(w, answer->body, BODY_MAX);
	} else {
		writer_put_number(w, (uint64_t)answer->status);
		writer_put_literal(w, " ");
		writer_put_string(w, http_reason(answer->status));
		writer_put_literal(w, ": ");
		writer_put_some(w, answer->details, WORDS_MAX);
		writer_put_literal(w, "\n");
	}
}

static void put_cause(struct writer *w, const struct answer *answer)
{
	if (answer->cause == NULL)
		return;
	writer_put_literal(w, "Proxy-Status: weir; error=");
	writer_put_string(w, answer->cause);
	writer_put_literal(w, "; details=\"");
	writer_put_some(w, answer->details, WORDS_MAX);
	writer_put_literal(w, "\"\r\n");
}

static void put_content(struct writer *w, const struct answer *answer, size_t body_bytes)
{
	const char *type = answer->over_limit ? "application/json" : answer->content_type;
	writer_put_literal(w, "\r\nContent-Type: ");
	writer_put_string(w, type != NULL ? type : "text/plain");
	writer_put_literal(w, "\r\nContent-Length: ");
	writer_put_number(w, body_bytes);
	writer_put_literal(w, "\r\n");
}

static void put_head(struct writer *w, const struct answer *answer, size_t body_bytes)
{
	char date[HTTP_DATE_MAX];
	http_write_date(answer->date_s, date);
	writer_put_literal(w, "HTTP/1.1 ");
	writer_put_number(w, (uint64_t)answer->status);
	writer_put_literal(w, " ");
	writer_put_string(w, http_reason(answer->status));
	writer_put_literal(w, "\r\nDate: ");
	writer_put_string(w, date);
	put_content(w, answer, body_bytes);
	put_cause(w, answer);
	if (answer->retry_after_s > 0) {
		writer_put_literal(w, "Retry-After: ");
		writer_put_number(w, answer->retry_after_s);
		writer_put_literal(w, "\r\n");
	}
	if (answer->fields != NULL)
		writer_put_string(w, answer->fields);
	if (!answer->keep_alive)
		writer_put_literal(w, "Connection: close\r\n");
	else if (answer->says_keep_alive)
		writer_put_literal(w, "Connection: keep-alive\r\n");
	writer_put_literal(w, "\r\n");
}

size_t answer_write(const struct answer *answer, char out[ANSWER_MAX], size_t *body_bytes)
{
	char body[BODY_MAX];
	struct writer words = { .out = body, .capacity = sizeof body };
	struct writer head = { .out = out, .capacity = ANSWER_MAX - sizeof body };
	put_body(&words, answer);
	put_head(&head, answer, words.length); /* it fits while fields are no longer than answer.h says */
	*body_bytes = answer->head_only ? 0 : words.length;
	memcpy(out + head.length, body, *body_bytes);
	return head.length + *body_bytes;
}
