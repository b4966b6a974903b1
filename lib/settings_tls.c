/* settings_tls.c: keys, certificates and authorities: do the settings about them fit together, and do the files?
 *
 *      ssl, keyfile, crtfile, cafile, ssl_verify, ssl_name   ──► settings->tls_client   how targets are spoken to
 *      tls_keyfile, tls_crtfile, tls_cafile                  ──► settings->tls_server   how clients are answered
 *
 * The files are read when the settings are: what --check lets pass will start, an error names the line that it is
 * about, and a reload with a bad certificate changes nothing, as one with a bad number. They are read for this
 * machine's services alone, and before weir becomes another user: that one need not be able to read keys, unless they
 * are to be read again on SIGHUP.
 *
 * What is odd but works is a warning: in the log at the start, and on standard error with --check. Any thread.
 */
#include "settings_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tls.h"

#define WARNING_MAX 640

static bool is_said(struct settings *s, const char *name)
{
	return settings_origin_of(settings_row_find(name), s->origins)->source != SOURCE_DEFAULT;
}

/* "weir.ini:7: crtfile", "--crtfile", "WEIR_CRTFILE". */
static void say_setting(struct settings *s, const char *name, char out[SETTINGS_ORIGIN_MAX + SETTINGS_NAME_MAX])
{
	const struct settings_row *row = settings_row_find(name);
	char place[SETTINGS_ORIGIN_MAX];
	settings_say_place(row, s->origins, place);
	bool from_file = settings_origin_of(row, s->origins)->source == SOURCE_FILE;
	snprintf(out, SETTINGS_ORIGIN_MAX + SETTINGS_NAME_MAX, "%s%s%s", place, from_file ? ": " : "",
	         from_file ? name : "");
}

static bool fail_setting(struct settings *s, const char *name, const char *why, char *error)
{
	char what[SETTINGS_ORIGIN_MAX + SETTINGS_NAME_MAX];
	say_setting(s, name, what);
	return settings_fail(error, "%s: %s", what, why);
}

/* Adds a line. Without memory for a warning there will soon be an error to tell. */
static void warn(void *context, const char *name, const char *why)
{
	struct settings *s = context;
	char what[SETTINGS_ORIGIN_MAX + SETTINGS_NAME_MAX], line[WARNING_MAX];
	say_setting(s, name, what);
	snprintf(line, sizeof line, "%s: %s", what, why);
	size_t used = s->warnings == NULL ? 0 : strlen(s->warnings) + 1, length = strlen(line);
	char *grown = realloc(s->warnings, used + length + 1);
	if (grown == NULL)
		return;
	if (used > 0)
		grown[used - 1] = '\n';
	memcpy(grown + used, line, length + 1);
	s->warnings = grown;
}

/* Two that make no sense without each other. */
static bool check_pair(struct settings *s, const char *key, const char *keyfile, const char *crt, const char *crtfile,
                       char *error)
{
	char why[SETTINGS_NAME_MAX + 64];
	if ((keyfile == NULL) == (crtfile == NULL))
		return true;
	snprintf(why, sizeof why, "set without %s; allowed: both, or neither", keyfile == NULL ? key : crt);
	return fail_setting(s, keyfile == NULL ? crt : key, why, error);
}

/* ---- to targets -------------------------------------------------------------------------------------------------- */

static void warn_of_client(struct settings *s)
{
	static const char *const names[] = { "keyfile", "crtfile", "cafile", "ssl_name" };
	for (size_t i = 0; s->ssl == SSL_NO && i < sizeof names / sizeof names[0]; i++)
		if (is_said(s, names[i]))
			warn(s, names[i], "not used: ssl is off");
	if (s->ssl == SSL_NO || s->ssl_verify == SSL_YES)
		return;
	warn(s, "ssl_verify", "targets' certificates are not checked: whoever answers at their addresses is believed");
	if (is_said(s, "cafile"))
		warn(s, "cafile", "not used: ssl_verify is off");
}

static bool read_client(struct settings *s, char *error)
{
	struct tls_fault fault;
	bool has_cafile = s->cafile != NULL && strcasecmp(s->cafile, "system") != 0;
	struct tls_client_options options = { .keyfile = s->keyfile,
		                              .crtfile = s->crtfile,
		                              .cafile = has_cafile && s->ssl_verify == SSL_YES ? s->cafile : NULL,
		                              .name = s->ssl_name,
		                              .verify = s->ssl_verify == SSL_YES };
	warn_of_client(s);
	if (!check_pair(s, "keyfile", s->keyfile, "crtfile", s->crtfile, error))
		return false;
	if (s->ssl == SSL_NO)
		return true;
	if (s->mode != MODE_REVERSE)
		return fail_setting(s, "ssl",
		                    s->mode == MODE_FORWARD ?
		                            "a forward proxy never opens TLS; allowed: no, or mode = reverse" :
		                            "servers of a message switch speak no TLS; allowed: no, or mode = reverse",
		                    error);
	s->tls_client = tls_create_client(&options, warn, s, &fault);
	return s->tls_client != NULL || fail_setting(s, fault.setting, fault.why, error);
}

/* ---- to clients -------------------------------------------------------------------------------------------------- */

static bool read_server(struct settings *s, char *error)
{
	struct tls_fault fault;
	struct tls_server_options options = { .keyfiles = s->tls_keyfile,
		                              .crtfiles = s->tls_crtfile,
		                              .cafile = s->tls_cafile,
		                              .speaks_http = s->mode != MODE_PACKET };
	if (!check_pair(s, "tls_keyfile", s->tls_keyfile, "tls_crtfile", s->tls_crtfile, error))
		return false;
	if (s->tls_cafile != NULL && s->tls_crtfile == NULL)
		return fail_setting(s, "tls_cafile",
		                    "set without tls_keyfile and tls_crtfile: without them nobody speaks TLS", error);
	if (s->tls_crtfile == NULL)
		return true;
	s->tls_server = tls_create_server(&options, warn, s, &fault);
	return s->tls_server != NULL || fail_setting(s, fault.setting, fault.why, error);
}

bool settings_read_tls(struct settings *settings, char *error)
{
	return read_client(settings, error) && read_server(settings, error);
}
