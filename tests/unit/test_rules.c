/* test_rules.c: one path has one plain form, a rule sees through every spelling, and keys tell apart what they should.
 *
 * The plain form is compared, over random paths, with a slow one that works on a list of segments and has no limit of
 * length; and it must be its own plain form again once it is encoded.
 */
#include "lib/rules.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>

#define ROOM 8192

static struct http_text text_of(const char *text)
{
	return (struct http_text){ text, strlen(text) };
}

/* ---- the plain path ---- */

static void expect_plain_in(size_t capacity, const char *path, const char *wanted)
{
	/* Exactly as much room as is said, so that the address sanitizer sees a byte more; never none at all. */
	char *out = malloc(capacity + (capacity == 0));
	size_t length = rules_normalize_path(text_of(path), out, capacity);

	if (length != strlen(wanted) || memcmp(out, wanted, length) != 0)
		printf("       %s: %.*s, wanted %s\n", path, (int)length, out, wanted);
	CU_ASSERT_EQUAL(length, strlen(wanted));
	CU_ASSERT(length <= capacity && memcmp(out, wanted, length) == 0);
	free(out);
}

static void expect_plain(const char *path, const char *wanted)
{
	expect_plain_in(ROOM, path, wanted);
}

static void every_spelling_of_a_path_is_the_same_path(void)
{
	static const char *const spellings[] = {
		"/login",        "//login",       "///login",        "/./login",         "/x/../login",
		"/../login",     "/%6cogin",      "/%6Cogin",        "/logi%6e",         "/x/y/../../login",
		"/x%2f..%2flogin", "/%2Flogin",   "/%2e%2e/login",   "/%2e/login",       "/.%2e/login",
		"/login?",       "/login?next=/../x", "/./././login", "/x//../login",    "/x/./../login",
		"/%2e%2E//login", "/a/b/c/../.././../login",
	};
	for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++)
		expect_plain(spellings[i], "/login");
}

static void dot_segments_go_as_rfc_3986_says(void)
{
	expect_plain("/a/b/c/./../../g", "/a/g"); /* §5.2.4 */
	expect_plain("/a/./b", "/a/b");
	expect_plain("/a/.", "/a/");
	expect_plain("/a/..", "/");
	expect_plain("/a/b/..", "/a/");
	expect_plain("/a/b/../", "/a/");
	expect_plain("/..", "/");
	expect_plain("/../..", "/");
	expect_plain("/.", "/");
	expect_plain("/...", "/...");
	expect_plain("/a/...", "/a/...");
	expect_plain("/.a/..b/c..", "/.a/..b/c..");
	expect_plain("/a/%2e%2e", "/");
}

static void a_slash_at_the_end_stays(void)
{
	expect_plain("/", "/");
	expect_plain("//", "/");
	expect_plain("/a/", "/a/");
	expect_plain("/a//", "/a/");
	expect_plain("/a%2f", "/a/");
	expect_plain("/a/?b", "/a/");
	expect_plain("/a", "/a");
}

static void escapes_are_decoded_once(void)
{
	expect_plain("/%25%36%63", "/%6c");
	expect_plain("/%256c", "/%6c");
	expect_plain("/%252e%252e/a", "/%2e%2e/a");
	expect_plain("/a%20b", "/a b");
	expect_plain("/%c3%bc", "/\xc3\xbc");
	expect_plain("/a%3fb", "/a?b");
	expect_plain("/a%23b", "/a#b");
}

static void an_escape_that_is_none_stays_and_so_does_nul(void)
{
	expect_plain("/%", "/%");
	expect_plain("/%4", "/%4");
	expect_plain("/%zz", "/%zz");
	expect_plain("/%4g", "/%4g");
	expect_plain("/%%41", "/%A");
	expect_plain("/%4%41", "/%4A");
	expect_plain("/a%00b", "/a%00b");
	expect_plain("/%2?e", "/%2");
}

static void backslashes_parameters_and_case_are_left_alone(void)
{
	expect_plain("/a\\..\\b", "/a\\..\\b");
	expect_plain("/a;x=1/b", "/a;x=1/b");
	expect_plain("/..;/a", "/..;/a");
	expect_plain("/Login", "/Login");
	expect_plain("/a+b", "/a+b");
}

static void what_is_no_path_is_left_as_it_is(void)
{
	expect_plain("*", "*");
	expect_plain("host:443", "host:443");
	expect_plain("?query", "/"); /* of http://host?query */
	expect_plain("", "/");
	CU_ASSERT_EQUAL(rules_normalize_path((struct http_text){ NULL, 0 }, (char[1]){ 0 }, 1), 1);
}

static void a_path_longer_than_the_room_is_cut(void)
{
	expect_plain_in(4, "/abcdef", "/abc");
	expect_plain_in(4, "/ab/cd", "/ab/");
	expect_plain_in(4, "/ab/", "/ab/");
	expect_plain_in(4, "/abc/", "/abc");
	expect_plain_in(4, "/abc/d", "/abc");
	expect_plain_in(1, "/abc", "/");
	expect_plain_in(1, "/", "/");
	expect_plain_in(0, "/abc", "");
	expect_plain_in(2, "host:443", "ho");
}

static void what_goes_again_takes_no_room(void)
{
	expect_plain_in(6, "/aaaaaaaaaaaa/../login", "/login");
	expect_plain_in(6, "/a/bbbbbbb/cccccc/../../../login", "/login");
	expect_plain_in(6, "/aaaaaaaaaaaa/b/..", "/aaaaa");
	expect_plain_in(6, "/log/xxxxxxx/../i/../../login", "/login");
	expect_plain_in(6, "/aaaaa/b/c/../../../login", "/login");
	expect_plain_in(8, "/aa/bbbbbbb/../cc/../dddd", "/aa/dddd");
	expect_plain_in(8, "/aa/bbbbbbb/../cccccccc", "/aa/cccc");
	char *path = malloc(20000);
	size_t used = (size_t)sprintf(path, "/%09000d", 1);
	strcpy(path + used, "/x/%2e%2e/../login");
	expect_plain(path, "/login");
	free(path);
}

/* ---- against a slow one ---- */

static int hex(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
	return at ? (int)(at - digits) : -1;
}

/* The plain form without a limit, in three steps: decode all, split, walk. The path begins with a slash. */
static size_t slow_plain(const char *path, char *out)
{
	static char decoded[4096];
	static const char *segments[4096];
	size_t lengths[4096], count = 0, length = 0, used = 0;

	for (; *path != '\0' && *path != '?'; path++) {
		int high = *path == '%' ? hex(path[1]) : -1, low = high >= 0 ? hex(path[2]) : -1;
		if (high >= 0 && low >= 0 && high * 16 + low != 0) {
			decoded[length++] = (char)(high * 16 + low);
			path += 2;
		} else {
			decoded[length++] = *path;
		}
	}
	bool slash = true;
	for (size_t at = 1; at <= length;) {
		const char *end = at < length ? memchr(decoded + at, '/', length - at) : NULL;
		size_t size = (end ? (size_t)(end - decoded) : length) - at;
		const char *segment = decoded + at;
		bool is_dot = size == 1 && segment[0] == '.',
		     is_up = size == 2 && segment[0] == '.' && segment[1] == '.';
		slash = size == 0 || is_dot || is_up;
		if (is_up && count > 0)
			count--;
		if (!slash) {
			segments[count] = segment;
			lengths[count++] = size;
		}
		at += size + 1;
	}
	for (size_t i = 0; i < count; i++) {
		out[used++] = '/';
		memcpy(out + used, segments[i], lengths[i]);
		used += lengths[i];
	}
	if (slash)
		out[used++] = '/';
	return used;
}

static uint64_t random_state = 88172645463325252u;

static size_t random_below(size_t most)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (size_t)(random_state >> 33) % most;
}

static void random_path(char *path)
{
	static const char *const pieces[] = { "/",    "/",   "..",  ".",   "a",   "bb",  "ccccc", "%2e",
					      "%2F",  "%2f", "%61", "%25", "%",   "%00", "%4",    "//",
					      "/../", "/./", ";",   "\\",  "%zz", "A",   "?",     "%3f" };
	size_t count = random_below(24);

	strcpy(path, "/");
	for (size_t i = 0; i < count; i++)
		strcat(path, pieces[random_below(sizeof pieces / sizeof pieces[0])]);
}

static void a_random_path_has_the_plain_form_that_a_slow_walk_finds(void)
{
	char path[512], slow[4096], fast[ROOM];
	size_t cut = 0;

	for (unsigned round = 0; round < 300000; round++) {
		random_path(path);
		size_t wanted = slow_plain(path, slow);
		size_t found = rules_normalize_path(text_of(path), fast, sizeof fast);
		if (found != wanted || memcmp(fast, slow, found) != 0)
			printf("       %s: %.*s, wanted %.*s\n", path, (int)found, fast, (int)wanted, slow);
		CU_ASSERT_FATAL(found == wanted && memcmp(fast, slow, found) == 0);
		/* With less room it is the beginning of the same. */
		size_t room = random_below(12) + 1;
		char *small = malloc(room);
		found = rules_normalize_path(text_of(path), small, room);
		CU_ASSERT_FATAL(found == (wanted < room ? wanted : room) && memcmp(small, slow, found) == 0);
		cut += wanted > room;
		free(small);
	}
	CU_ASSERT(cut > 1000);
}

static void a_plain_path_that_is_encoded_again_is_its_own_plain_form(void)
{
	char path[512], once[ROOM], encoded[3 * ROOM], twice[ROOM];

	for (unsigned round = 0; round < 100000; round++) {
		random_path(path);
		size_t length = rules_normalize_path(text_of(path), once, sizeof once), used = 0;
		for (size_t i = 0; i < length; i++)
			if (once[i] == '%' || once[i] == '?' || random_below(8) == 0)
				used += (size_t)sprintf(encoded + used, "%%%02x", (unsigned char)once[i]);
			else
				encoded[used++] = once[i];
		if (encoded[0] == '%') /* its first slash stays one, or it would be no path */
			continue;
		size_t again = rules_normalize_path((struct http_text){ encoded, used }, twice, sizeof twice);
		CU_ASSERT_FATAL(again == length && memcmp(once, twice, length) == 0);
	}
}

/* ---- matching ---- */

static char head_bytes[65536];
static struct http_head head;

/* A parsed request: its line without the version, its field lines each with their end. The next call replaces it. */
static const struct http_head *request(const char *line, const char *fields)
{
	int length = snprintf(head_bytes, sizeof head_bytes, "%s HTTP/1.1\r\n%s\r\n", line, fields);
	struct http_fault fault = http_parse_request(head_bytes, (size_t)length, &head);
	if (fault.status != 0)
		printf("       %s: %s\n", line, fault.why);
	CU_ASSERT_EQUAL_FATAL(fault.status, 0);
	return &head;
}

static bool matches(const struct settings_rule *rule, const char *line, const char *fields)
{
	char plain[ROOM];
	const struct http_head *parsed = request(line, fields);
	size_t length = rules_normalize_path(parsed->path, plain, sizeof plain);
	return rules_match(rule, parsed, (struct http_text){ plain, length });
}

static void a_rule_without_conditions_concerns_every_request(void)
{
	struct settings_rule rule = { .name = NULL };
	CU_ASSERT_TRUE(matches(&rule, "GET /", "Host: a\r\n"));
	CU_ASSERT_TRUE(matches(&rule, "OPTIONS *", "Host: a\r\n"));
	CU_ASSERT_TRUE(matches(&rule, "POST http://b/x", "Host: a\r\n"));
}

static void a_method_is_one_of_the_list_in_any_case(void)
{
	struct settings_rule one = { .method = "POST" }, two = { .method = "POST,PUT" };
	CU_ASSERT_TRUE(matches(&one, "POST /", "Host: a\r\nContent-Length: 0\r\n"));
	CU_ASSERT_TRUE(matches(&one, "post /", "Host: a\r\nContent-Length: 0\r\n"));
	CU_ASSERT_FALSE(matches(&one, "PUT /", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&one, "POSTS /", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&one, "POS /", "Host: a\r\n"));
	CU_ASSERT_TRUE(matches(&two, "PUT /", "Host: a\r\n"));
	CU_ASSERT_TRUE(matches(&two, "POST /", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&two, "GET /", "Host: a\r\n"));
}

static void a_path_is_matched_by_what_it_means(void)
{
	struct settings_rule exact = { .path = "/login" };
	struct settings_rule prefix = { .path = "/login", .path_is_prefix = true };
	struct settings_rule all = { .path = "/", .path_is_prefix = true };
	static const char *const same[] = { "GET /login", "GET /%6cogin?x", "GET //x/..//login",
					    "GET http://a/./login" };
	static const char *const longer[] = { "GET /login/", "GET /login/x", "GET /loginx", "GET /login;x=1",
					      "GET /login%2fx" };
	static const char *const other[] = { "GET /Login",      "GET /logi",     "GET /x/login", "GET /",
					     "GET /login/../x", "GET /x?/login", "OPTIONS *",    "GET http://a" };

	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
		CU_ASSERT(matches(&exact, same[i], "Host: a\r\n") && matches(&prefix, same[i], "Host: a\r\n"));
	for (size_t i = 0; i < sizeof longer / sizeof longer[0]; i++)
		CU_ASSERT(!matches(&exact, longer[i], "Host: a\r\n") && matches(&prefix, longer[i], "Host: a\r\n"));
	for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
		CU_ASSERT(!matches(&exact, other[i], "Host: a\r\n") && !matches(&prefix, other[i], "Host: a\r\n"));
	CU_ASSERT_TRUE(matches(&all, "GET http://a", "Host: a\r\n"));
	CU_ASSERT_TRUE(matches(&all, "GET http://a?x", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&all, "OPTIONS *", "Host: a\r\n"));
}

static void a_host_is_compared_without_case_port_and_last_dot(void)
{
	struct settings_rule rule = { .host = "api.example" };
	static const char *const same[] = { "api.example", "API.Example", "api.example:80", "api.example.",
					    "Api.example.:8000" };
	static const char *const other[] = { "example",    "xapi.example",  "api.example.org",
					     "api.exampl", "api.example..", "" };
	char fields[128];

	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
		snprintf(fields, sizeof fields, "Host: %s\r\n", same[i]);
		CU_ASSERT_TRUE(matches(&rule, "GET /", fields));
	}
	for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
		struct http_head made = { .host = text_of(other[i]) };
		CU_ASSERT_FALSE(rules_match(&rule, &made, text_of("/")));
	}
	/* The target's host is the one that counts. */
	CU_ASSERT_TRUE(matches(&rule, "GET http://api.example:8080/", "Host: other\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "GET http://other/", "Host: api.example\r\n"));
}

static void an_empty_host_never_matches(void)
{
	struct settings_rule empty = { .host = "" };
	struct http_head none = { .method_text = text_of("GET") };
	static const char *const hosts[] = { "", ":80", ".", "[]", "[" };

	CU_ASSERT_FALSE(rules_match(&empty, &none, text_of("/")));
	for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
		none.host = text_of(hosts[i]);
		CU_ASSERT_FALSE(rules_match(&empty, &none, text_of("/")));
	}
}

static void an_ipv6_host_is_the_same_in_every_spelling(void)
{
	struct settings_rule rule = { .host = "2001:db8::1" };
	CU_ASSERT_TRUE(matches(&rule, "GET /", "Host: [2001:db8::1]\r\n"));
	CU_ASSERT_TRUE(matches(&rule, "GET /", "Host: [2001:DB8:0:0::1]:8000\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "GET /", "Host: [2001:db8::2]:8000\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "GET /", "Host: 2001\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "GET /", "Host: a-name-that-is-longer-than-every-spelling-of-an-address.example\r\n"));
	/* 46 bytes, one more than an address can have: no part of it is compared. */
	struct http_head made = { .host = text_of("[2001:db8::100000000000000000000000000000000000]") };
	CU_ASSERT_FALSE(rules_match(&rule, &made, text_of("/")));
}

static void headers_are_matched_by_their_whole_value(void)
{
	struct settings_header headers[] = { { "X-Plan", "free" }, { "X-Beta", "yes please" } };
	struct settings_rule one = { .headers = headers, .header_count = 1 };
	struct settings_rule both = { .headers = headers, .header_count = 2 };

	CU_ASSERT_TRUE(matches(&one, "GET /", "Host: a\r\nx-plan:  free \r\n"));
	CU_ASSERT_TRUE(matches(&one, "GET /", "Host: a\r\nX-Plan: gold\r\nX-Plan: free\r\n"));
	CU_ASSERT_FALSE(matches(&one, "GET /", "Host: a\r\nX-Plan: freed\r\n"));
	CU_ASSERT_FALSE(matches(&one, "GET /", "Host: a\r\nX-Plan: Free\r\n"));
	CU_ASSERT_FALSE(matches(&one, "GET /", "Host: a\r\nX-Plan:\r\n"));
	CU_ASSERT_FALSE(matches(&one, "GET /", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&both, "GET /", "Host: a\r\nX-Plan: free\r\n"));
	CU_ASSERT_TRUE(matches(&both, "GET /", "Host: a\r\nX-Beta: yes please\r\nX-Plan: free\r\n"));
}

static void every_condition_must_hold(void)
{
	struct settings_rule rule = { .method = "POST", .path = "/login", .host = "a" };
	CU_ASSERT_TRUE(matches(&rule, "POST /login", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "GET /login", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "POST /logout", "Host: a\r\n"));
	CU_ASSERT_FALSE(matches(&rule, "POST /login", "Host: b\r\n"));
}

/* ---- keys ---- */

struct key {
	char bytes[RULES_PATH_MAX + 512];
	size_t length;
};

static struct key key_of(struct settings_key wanted, const char *fields, const char *path, const char *client)
{
	struct key key;
	char with_host[40000];
	snprintf(with_host, sizeof with_host, "Host: a\r\n%s", fields);
	key.length = rules_key(&wanted, request("GET /", with_host), text_of(path), text_of(client), key.bytes,
			       sizeof key.bytes);
	CU_ASSERT_FATAL(key.length > 0 && key.length <= sizeof key.bytes);
	return key;
}

static bool is_same(struct key a, struct key b)
{
	return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

static const struct settings_key by_client = { .client = true }, by_path = { .path = true },
				 by_header = { .header = "X-Key" },
				 by_client_and_path = { .client = true, .path = true },
				 by_all = { .client = true, .path = true, .header = "X-Key" };

static void a_key_tells_apart_what_it_names_and_nothing_else(void)
{
	CU_ASSERT_TRUE(
		is_same(key_of(by_client, "X-Key: 1\r\n", "/a", "1.1.1.1"), key_of(by_client, "", "/b", "1.1.1.1")));
	CU_ASSERT_FALSE(is_same(key_of(by_client, "", "/a", "1.1.1.1"), key_of(by_client, "", "/a", "1.1.1.2")));
	CU_ASSERT_TRUE(is_same(key_of(by_path, "", "/a", "1.1.1.1"), key_of(by_path, "X-Key: 1\r\n", "/a", "1.1.1.2")));
	CU_ASSERT_FALSE(is_same(key_of(by_path, "", "/a", "1.1.1.1"), key_of(by_path, "", "/b", "1.1.1.1")));
	CU_ASSERT_TRUE(is_same(key_of(by_header, "X-Key: 1\r\n", "/a", "1.1.1.1"),
			       key_of(by_header, "x-key:1\r\n", "/b", "1.1.1.2")));
	CU_ASSERT_FALSE(
		is_same(key_of(by_header, "X-Key: 1\r\n", "/", "c"), key_of(by_header, "X-Key: 2\r\n", "/", "c")));
	CU_ASSERT_FALSE(is_same(key_of(by_all, "X-Key: 1\r\n", "/a", "c"), key_of(by_all, "X-Key: 1\r\n", "/b", "c")));
	CU_ASSERT_FALSE(is_same(key_of(by_all, "X-Key: 1\r\n", "/a", "c"), key_of(by_all, "X-Key: 1\r\n", "/a", "d")));
	CU_ASSERT_FALSE(is_same(key_of(by_all, "X-Key: 1\r\n", "/a", "c"), key_of(by_all, "X-Key: 2\r\n", "/a", "c")));
}

static void parts_cannot_run_into_each_other(void)
{
	CU_ASSERT_FALSE(is_same(key_of(by_client_and_path, "", "/a", "1.1.1.1"),
				key_of(by_client_and_path, "", "1/a", "1.1.1.")));
	CU_ASSERT_FALSE(is_same(key_of(by_client_and_path, "", "pb", "a"), key_of(by_client_and_path, "", "b", "ap")));
	/* A header that says what an address looks like is not that address. */
	CU_ASSERT_FALSE(
		is_same(key_of(by_header, "X-Key: 1.1.1.1\r\n", "/", "c"), key_of(by_header, "", "/", "1.1.1.1")));
	CU_ASSERT_FALSE(is_same(key_of(by_header, "X-Key: /a\r\n", "/a", "/a"), key_of(by_path, "", "/a", "/a")));
}

static void without_the_header_the_address_tells_clients_apart(void)
{
	CU_ASSERT_FALSE(is_same(key_of(by_header, "", "/", "c"), key_of(by_header, "", "/", "d")));
	CU_ASSERT_TRUE(is_same(key_of(by_header, "", "/", "c"), key_of(by_header, "X-Key:\r\n", "/", "c")));
	/* A second one would be a new client each time, to a target that looks at the other. */
	CU_ASSERT_TRUE(is_same(key_of(by_header, "X-Key: 1\r\nX-Key: 2\r\n", "/", "c"),
			       key_of(by_header, "X-Key: 3\r\nX-Key: 1\r\n", "/", "c")));
	CU_ASSERT_TRUE(
		is_same(key_of(by_header, "X-Key: 1\r\nX-Key: 2\r\n", "/", "c"), key_of(by_header, "", "/", "c")));
}

static void long_values_that_differ_at_their_end_or_length_differ(void)
{
	static char one[32768], other[32768];
	size_t used = (size_t)sprintf(one, "X-Key: %030000d", 1);
	strcpy(other, one);
	strcpy(one + used, "a\r\n");
	strcpy(other + used, "b\r\n");
	CU_ASSERT_FALSE(is_same(key_of(by_header, one, "/", "c"), key_of(by_header, other, "/", "c")));
	CU_ASSERT_TRUE(is_same(key_of(by_header, one, "/", "c"), key_of(by_header, one, "/", "d")));
	strcpy(other + used, "\r\n");
	CU_ASSERT_FALSE(is_same(key_of(by_header, one, "/", "c"), key_of(by_header, other, "/", "c")));
}

static void the_longest_key_fits_whole(void)
{
	static char header[32768], path[RULES_PATH_MAX + 1];
	char client[128 + 1];

	sprintf(header, "X-Key: %030000d\r\n", 1);
	memset(path, 'p', RULES_PATH_MAX);
	memset(client, 'c', 128);
	client[128] = '\0';
	struct key one = key_of(by_all, header, path, client);
	CU_ASSERT(one.length < sizeof one.bytes); /* nothing was cut off */
	path[RULES_PATH_MAX - 1] = 'q';
	CU_ASSERT_FALSE(is_same(one, key_of(by_all, header, path, client)));
}

static void a_key_never_goes_past_its_room(void)
{
	const struct http_head *parsed = request("GET /", "Host: a\r\nX-Key: secret\r\n");
	for (size_t room = 0; room < 64; room++) {
		char *out = malloc(room + (room == 0));
		size_t length = rules_key(&by_all, parsed, text_of("/a/b"), text_of("1.1.1.1"), out, room);
		CU_ASSERT(length <= room);
		free(out);
	}
}

int main(void)
{
	static const struct unit_test tests[] = {
		TEST(every_spelling_of_a_path_is_the_same_path),
		TEST(dot_segments_go_as_rfc_3986_says),
		TEST(a_slash_at_the_end_stays),
		TEST(escapes_are_decoded_once),
		TEST(an_escape_that_is_none_stays_and_so_does_nul),
		TEST(backslashes_parameters_and_case_are_left_alone),
		TEST(what_is_no_path_is_left_as_it_is),
		TEST(a_path_longer_than_the_room_is_cut),
		TEST(what_goes_again_takes_no_room),
		TEST(a_random_path_has_the_plain_form_that_a_slow_walk_finds),
		TEST(a_plain_path_that_is_encoded_again_is_its_own_plain_form),
		TEST(a_rule_without_conditions_concerns_every_request),
		TEST(a_method_is_one_of_the_list_in_any_case),
		TEST(a_path_is_matched_by_what_it_means),
		TEST(a_host_is_compared_without_case_port_and_last_dot),
		TEST(an_empty_host_never_matches),
		TEST(an_ipv6_host_is_the_same_in_every_spelling),
		TEST(headers_are_matched_by_their_whole_value),
		TEST(every_condition_must_hold),
		TEST(a_key_tells_apart_what_it_names_and_nothing_else),
		TEST(parts_cannot_run_into_each_other),
		TEST(without_the_header_the_address_tells_clients_apart),
		TEST(long_values_that_differ_at_their_end_or_length_differ),
		TEST(the_longest_key_fits_whole),
		TEST(a_key_never_goes_past_its_room),
	};
	return unit_main("rules", tests, sizeof tests / sizeof tests[0]);
}
