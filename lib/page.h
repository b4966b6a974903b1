/* page.h: the status page, as one document that asks for nothing else.
 *
 *      page/page.html ─┐
 *      page/page.css  ─┼── page/embed.sh, when weir is built ──► bytes in the program ──► one HTML document, and its policy
 *      page/page.js   ─┘
 *
 * The policy (Content-Security-Policy) names the one script and the one style by their hashes. So even if a stranger's text found a
 * way into the page as markup, no browser would run it: what it says is not what was hashed. And nothing is loaded from anywhere.
 *
 * Source: W3C, "Content Security Policy Level 3". Any thread.
 */
#ifndef WEIR_PAGE_H
#define WEIR_PAGE_H

#include <stddef.h>

#include "text.h"

#define PAGE_FIELDS_MAX 512

extern const unsigned char page_html_bytes[], page_css_bytes[], page_js_bytes[];
extern const size_t page_html_length, page_css_length, page_js_length;

/* Adds the document to out, and writes the fields that its answer must have ("Name: value\r\n"). */
void page_write(struct text *out, char fields[PAGE_FIELDS_MAX]);

#endif
