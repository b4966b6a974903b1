/* page.c: see page.h. */
#include "page.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#define HASH_TEXT_MAX (4 * ((SHA256_DIGEST_LENGTH + 2) / 3) + 1)

static void hash_of(const unsigned char *bytes, size_t length, char out[HASH_TEXT_MAX])
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	SHA256(bytes, length, hash);
	EVP_EncodeBlock((unsigned char *)out, hash, sizeof hash);
}

/* Adds the document up to a mark, and then what stands in its place. Returns where it goes on behind the mark. */
static size_t add_part(struct text *out, size_t from, const char *mark, const unsigned char *bytes, size_t length)
{
	const char *html = (const char *)page_html_bytes;
	const char *found = memmem(html + from, page_html_length - from, mark, strlen(mark));
	if (found == NULL)
		return from;
	text_add_bytes(out, html + from, (size_t)(found - html) - from);
	text_add_bytes(out, (const char *)bytes, length);
	return (size_t)(found - html) + strlen(mark);
}

void page_write(struct text *out, char fields[PAGE_FIELDS_MAX])
{
	char style[HASH_TEXT_MAX], script[HASH_TEXT_MAX];
	hash_of(page_css_bytes, page_css_length, style);
	hash_of(page_js_bytes, page_js_length, script);
	snprintf(fields, PAGE_FIELDS_MAX,
	         "Content-Security-Policy: default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; connect-src 'self'; "
	         "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
	         script, style);
	size_t at = add_part(out, 0, "@STYLE@", page_css_bytes, page_css_length);
	at = add_part(out, at, "@SCRIPT@", page_js_bytes, page_js_length);
	text_add_bytes(out, (const char *)page_html_bytes + at, page_html_length - at);
}
