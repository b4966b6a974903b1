/* http_text.c: characters, words, lists and numbers: the small coin of HTTP.
 *
 * Every grammar of a head is built from a few classes of characters (RFC 9110 §5.5, §5.6; RFC 3986 §2). They are kept
 * in one table, one byte for each of the 256 values, one bit for each class:
 *
 *      'g' ──► http_classes['g'] ──► TOKEN | VALUE | TARGET | HOST        one load, one AND
 *
 * What a table does not allow is not there: CR, LF, NUL and the other control characters are in no class at all, so
 * none of them can travel inside a name, a value or a target into a head that weir writes. A list of forbidden
 * characters would have to be complete in every place it is used; here nothing has to be remembered.
 *
 * Letters are compared in ASCII and by our own hand. The C library's functions ask the locale, and a locale in which
 * 'i' and 'I' are no pair (Turkish) would let "TRANSFER-ENCODING" pass for a field that nobody knows.
 */
#include <string.h>

#include "http_parts.h"

/* o none; B blanks and bytes above ASCII; V visible, in values and targets; N the number sign, which would begin a
   fragment; T in tokens too; H in host names too; A in all of these; X a hex letter; D a digit. */
enum {
	o = 0,
	B = HTTP_IN_VALUE,
	V = B | HTTP_IN_TARGET,
	N = B | HTTP_IN_TOKEN,
	T = V | HTTP_IN_TOKEN,
	H = V | HTTP_IN_HOST,
	A = T | H,
	X = A | HTTP_IN_HEX,
	D = X | HTTP_IN_DIGITS,
};

const unsigned char http_classes[256] = {
	/*       0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f */
	/* 0 */  o, o, o, o, o, o, o, o, o, B, o, o, o, o, o, o,
	/* 1 */  o, o, o, o, o, o, o, o, o, o, o, o, o, o, o, o,
	/* 2 */  B, A, V, N, A, T, A, A, H, H, A, A, V, A, A, V, /*   ! " # $ % & ' ( ) * + , - . / */
	/* 3 */  D, D, D, D, D, D, D, D, D, D, V, H, V, H, V, V, /* 0 1 2 3 4 5 6 7 8 9 : ; < = > ? */
	/* 4 */  V, X, X, X, X, X, X, A, A, A, A, A, A, A, A, A, /* @ A B C D E F G H I J K L M N O */
	/* 5 */  A, A, A, A, A, A, A, A, A, A, A, V, V, V, T, A, /* P Q R S T U V W X Y Z [ \ ] ^ _ */
	/* 6 */  T, X, X, X, X, X, X, A, A, A, A, A, A, A, A, A, /* ` a b c d e f g h i j k l m n o */
	/* 7 */  A, A, A, A, A, A, A, A, A, A, A, V, T, V, A, o, /* p q r s t u v w x y z { | } ~   */
	/* 8 */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* 9 */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* a */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* b */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* c */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* d */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* e */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	/* f */  B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
};

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool http_same(struct http_text one, struct http_text other)
{
	if (one.length != other.length)
		return false;
	for (size_t i = 0; i < one.length; i++)
		if (one.at[i] != other.at[i] && lower(one.at[i]) != lower(other.at[i]))
			return false;
	return true;
}

bool http_text_is(struct http_text text, const char *word)
{
	return http_same(text, (struct http_text){ word, strlen(word) });
}

bool http_is_token(struct http_text text)
{
	return text.length > 0 && http_skip(text.at, text.at + text.length, HTTP_IN_TOKEN) == text.at + text.length;
}

struct http_text http_trim(struct http_text text)
{
	while (text.length > 0 && (text.at[0] == ' ' || text.at[0] == '\t')) {
		text.at++;
		text.length--;
	}
	while (text.length > 0 && (text.at[text.length - 1] == ' ' || text.at[text.length - 1] == '\t'))
		text.length--;
	return text;
}

bool http_next_element(struct http_text *list, struct http_text *element)
{
	while (list->length > 0) {
		const char *comma = memchr(list->at, ',', list->length);
		const char *end = list->at + list->length;
		*element = http_trim(http_piece(list->at, comma ? comma : end));
		*list = http_piece(comma ? comma + 1 : end, end);
		if (element->length > 0)
			return true;
	}
	return false;
}

bool http_parse_number(struct http_text text, uint64_t *number)
{
	/* 18 digits are below 2^60: no sum or product below can overflow, and nobody sends an exabyte. */
	if (text.length == 0 || text.length > 18)
		return false;
	uint64_t value = 0;
	for (size_t i = 0; i < text.length; i++) {
		if (!http_is(text.at[i], HTTP_IN_DIGITS))
			return false;
		value = value * 10 + (uint64_t)(text.at[i] - '0');
	}
	*number = value;
	return true;
}

const struct http_field *http_find(const struct http_head *head, enum http_name known)
{
	for (size_t i = 0; i < head->field_count; i++)
		if (head->fields[i].known == known)
			return &head->fields[i];
	return NULL;
}

const struct http_field *http_find_name(const struct http_head *head, const char *name)
{
	for (size_t i = 0; i < head->field_count; i++)
		if (http_text_is(head->fields[i].name, name))
			return &head->fields[i];
	return NULL;
}

/* RFC 9110 §15 and the IANA registry. */
const char *http_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} known[] = {
		{ 100, "Continue" }, { 101, "Switching Protocols" }, { 102, "Processing" }, { 103, "Early Hints" },
		{ 200, "OK" }, { 201, "Created" }, { 202, "Accepted" }, { 203, "Non-Authoritative Information" },
		{ 204, "No Content" }, { 205, "Reset Content" }, { 206, "Partial Content" }, { 207, "Multi-Status" },
		{ 300, "Multiple Choices" }, { 301, "Moved Permanently" }, { 302, "Found" }, { 303, "See Other" },
		{ 304, "Not Modified" }, { 307, "Temporary Redirect" }, { 308, "Permanent Redirect" },
		{ 400, "Bad Request" }, { 401, "Unauthorized" }, { 402, "Payment Required" }, { 403, "Forbidden" },
		{ 404, "Not Found" }, { 405, "Method Not Allowed" }, { 406, "Not Acceptable" },
		{ 407, "Proxy Authentication Required" }, { 408, "Request Timeout" }, { 409, "Conflict" },
		{ 410, "Gone" },
		{ 411, "Length Required" }, { 412, "Precondition Failed" }, { 413, "Content Too Large" },
		{ 414, "URI Too Long" }, { 415, "Unsupported Media Type" }, { 416, "Range Not Satisfiable" },
		{ 417, "Expectation Failed" }, { 421, "Misdirected Request" }, { 422, "Unprocessable Content" },
		{ 425, "Too Early" }, { 426, "Upgrade Required" }, { 428, "Precondition Required" },
		{ 429, "Too Many Requests" }, { 431, "Request Header Fields Too Large" },
		{ 451, "Unavailable For Legal Reasons" }, { 500, "Internal Server Error" }, { 501, "Not Implemented" },
		{ 502, "Bad Gateway" }, { 503, "Service Unavailable" }, { 504, "Gateway Timeout" },
		{ 505, "HTTP Version Not Supported" }, { 507, "Insufficient Storage" }, { 508, "Loop Detected" },
		{ 511, "Network Authentication Required" },
	};
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (known[i].status == status)
			return known[i].reason;
	return "Unknown";
}
