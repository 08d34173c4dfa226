/* SPDX-License-Identifier: MIT */
/* Parsing of listen SPECs: `[NAME=]ADDRESS[?opt=value&…]`. */
#include "spec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "fd.h"

#define DIGITS "0123456789"
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define NAME_MAX_LENGTH 255
#define HOST_MAX_LENGTH 253
#define BACKLOG_DEFAULT 4096

/* A path needs its NUL in sun_path, and an abstract name its leading NUL: 107 bytes either way (unix(7)). */
#define UNIX_PATH_MAX_LENGTH (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

struct parser {
	const char *text;
	struct listen_spec *spec;
	struct error *error;
	unsigned seen; /* bit i: row i of the option table was there */
};

static int refuse(const struct parser *parser, const char *format, ...) PRINTF_LIKE(2, 3);
static int refuse(const struct parser *parser, const char *format, ...)
{
	char reason[400];
	va_list values;
	va_start(values, format);
	vsnprintf(reason, sizeof(reason), format, values);
	va_end(values);
	return error_set(parser->error, -EINVAL, "listen \"%.200s\": %s", parser->text, reason);
}

static int out_of_memory(const struct parser *parser)
{
	return error_set(parser->error, -ENOMEM, "listen \"%.200s\": out of memory", parser->text);
}

static int copy(const struct parser *parser, const char *text, size_t length, char **ret_copy)
{
	char *made = strndup(text, length);
	if (!made)
		return out_of_memory(parser);
	*ret_copy = made;
	return 0;
}

static bool only_of(const char *text, size_t length, const char *allowed)
{
	return strspn(text, allowed) >= length;
}

/* The part of the text after `prefix`, or NULL. */
static const char *after(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);
	return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

/* ---- The address ---- */

static int parse_port(const struct parser *parser, const char *text, uint16_t *ret_port)
{
	size_t length = strlen(text);
	if (length == 0)
		return refuse(parser, "the port is missing after the last colon; 0 lets the kernel choose one");
	if (strchr(text, '/'))
		return refuse(parser, "the port \"%.60s\" is not a number; a unix socket is written unix:PATH", text);
	if (!only_of(text, length, DIGITS) || length > 5 || strtoul(text, NULL, 10) > UINT16_MAX)
		return refuse(parser, "the port \"%.60s\" is not a number from 0 to 65535", text);
	*ret_port = (uint16_t)strtoul(text, NULL, 10);
	return 0;
}

/* The inside of the brackets; a scope such as %eth0 is for link-local addresses, and resolved at bind. */
static int parse_ipv6(const struct parser *parser, const char *host)
{
	char address[INET6_ADDRSTRLEN];
	struct in6_addr binary;
	size_t length = strcspn(host, "%");
	if (length >= sizeof(address))
		return refuse(parser, "\"%.80s\" is not an IPv6 address", host);
	memcpy(address, host, length);
	address[length] = '\0';
	if (inet_pton(AF_INET6, address, &binary) != 1)
		return refuse(parser, "\"%.80s\" in the brackets is not an IPv6 address", host);
	if (host[length] == '%' && !host[length + 1])
		return refuse(parser, "the interface is missing after %% in \"%.80s\"", host);
	return 0;
}

/* A host name, or an IPv4 address. What ends in digits is an address (RFC 3696, section 2): inet_aton(3)'s short forms
 * such as 127.1 are refused, because a mistyped address would quietly become another one. */
static int parse_host(const struct parser *parser, const char *host)
{
	struct in_addr binary;
	size_t length = strlen(host);
	if (strcmp(host, "*") == 0)
		return refuse(parser, "the wildcard is written without an address, as in :8080");
	if (length > HOST_MAX_LENGTH || !only_of(host, length, LETTERS DIGITS ".-_") || strchr("-.", *host))
		return refuse(parser, "\"%.80s\" is neither a host name nor an address", host);
	const char *last = strrchr(host, '.');
	last = last ? last + 1 : host;
	if (*last && only_of(last, strlen(last), DIGITS) && inet_pton(AF_INET, host, &binary) != 1)
		return refuse(parser, "\"%.80s\" is not an IPv4 address", host);
	return 0;
}

/* Says what is wrong with text that has colons in its host, or no colon at all. */
static int refuse_host_port(const struct parser *parser, const char *text, const char *prefix)
{
	struct in6_addr binary;
	size_t length = strlen(text);
	const char *colon = strrchr(text, ':');
	if (strstr(text, "//"))
		return refuse(parser, "is not a URL: write HOST:PORT or unix:PATH");
	if (!colon && length > 0 && only_of(text, length, DIGITS))
		return refuse(parser, "a port has a colon before it: write %s:%.60s", prefix, text);
	if (!colon && strchr(text, '/'))
		return refuse(parser, "a unix socket is written unix:%.60s", text);
	if (!colon && length == 0)
		return refuse(parser, "the address is missing");
	if (!colon)
		return refuse(parser, "the port is missing: write %s%.60s:PORT", prefix, text);
	if (inet_pton(AF_INET6, text, &binary) == 1)
		return refuse(parser, "an IPv6 address stands in brackets: write %s[%s]:PORT, or %s[%.*s]%s", prefix,
			      text, prefix, (int)(colon - text), text, colon);
	if (after(text, "tcp:"))
		return refuse(parser, "TCP has no prefix: write %.60s", text + 4);
	return refuse(parser, "has too many colons: write HOST:PORT, or [ADDRESS]:PORT for IPv6");
}

static int parse_host_port(const struct parser *parser, const char *text, const char *prefix)
{
	struct listen_spec *spec = parser->spec;
	const char *colon = strrchr(text, ':');
	const char *host = text, *bracket = NULL;
	size_t length = colon ? (size_t)(colon - text) : 0;
	if (*text == '[') {
		bracket = strchr(text, ']');
		if (!bracket)
			return refuse(parser, "the closing bracket is missing");
		if (bracket[1] != ':')
			return refuse(parser, "the port is missing: write %s%.*s:PORT", prefix,
				      (int)(bracket + 1 - text), text);
		colon = bracket + 1;
		host = text + 1;
		length = (size_t)(bracket - host);
	} else if (!colon || memchr(text, ':', length)) {
		return refuse_host_port(parser, text, prefix);
	}

	if (bracket || length > 0) {
		int code = copy(parser, host, length, &spec->host);
		if (code == 0)
			code = bracket ? parse_ipv6(parser, spec->host) : parse_host(parser, spec->host);
		if (code < 0)
			return code;
	}
	return parse_port(parser, colon + 1, &spec->port);
}

static int parse_unix(const struct parser *parser, const char *path)
{
	size_t length = strlen(path);
	parser->spec->abstract = *path == '@';
	if (length == 0 || strcmp(path, "@") == 0)
		return refuse(parser, "the path is missing: write unix:/PATH, or unix:@NAME for an abstract socket");
	if (length > UNIX_PATH_MAX_LENGTH + parser->spec->abstract)
		return refuse(parser, "the path has %zu bytes, and the kernel takes %zu at most",
			      length - parser->spec->abstract, UNIX_PATH_MAX_LENGTH);
	if (!parser->spec->abstract && path[length - 1] == '/')
		return refuse(parser, "the path names a folder, not a socket");
	return copy(parser, path + parser->spec->abstract, length, &parser->spec->path);
}

static int parse_fd(const struct parser *parser, const char *text)
{
	size_t length = strlen(text);
	unsigned long fd = length > 0 && length < 10 && only_of(text, length, DIGITS) ? strtoul(text, NULL, 10) : 0;
	if (fd < 3)
		return refuse(parser, "must be fd: and the number of an inherited descriptor, 3 or above");
	parser->spec->fd = (int)fd;
	return 0;
}

/* The names that LISTEN_FDNAMES can carry (sd_listen_fds_with_names(3)). */
static int parse_systemd(const struct parser *parser, const char *name)
{
	size_t length = strlen(name);
	if (length == 0)
		return refuse(parser, "the name is missing after systemd: (systemd alone takes every socket passed)");
	if (length > NAME_MAX_LENGTH)
		return refuse(parser, "the name after systemd: is longer than %d bytes", NAME_MAX_LENGTH);
	for (const char *c = name; *c; c++) {
		if (*c <= 0x20 || *c >= 0x7f || *c == ':')
			return refuse(parser,
				      "the name after systemd: must be printable ASCII without blanks and colons");
	}
	return copy(parser, name, length, &parser->spec->fd_name);
}

static int parse_address(const struct parser *parser, const char *address)
{
	struct listen_spec *spec = parser->spec;
	const char *rest;
	if ((rest = after(address, "unix:"))) {
		spec->type = LISTEN_UNIX;
		return parse_unix(parser, rest);
	}
	if ((rest = after(address, "unixgram:"))) {
		spec->type = LISTEN_UNIXGRAM;
		return parse_unix(parser, rest);
	}
	if ((rest = after(address, "fd:"))) {
		spec->type = LISTEN_FD;
		return parse_fd(parser, rest);
	}
	if ((rest = after(address, "systemd")) && (*rest == '\0' || *rest == ':')) {
		spec->type = LISTEN_SYSTEMD;
		return *rest ? parse_systemd(parser, rest + 1) : 0;
	}
	if ((rest = after(address, "udp:"))) {
		spec->type = LISTEN_UDP;
		return parse_host_port(parser, rest, "udp:");
	}
	spec->type = LISTEN_TCP;
	return parse_host_port(parser, address, "");
}

/* ---- The options after the question mark ---- */

enum option_kind { KIND_FLAG, KIND_V6ONLY, KIND_NUMBER, KIND_SECONDS, KIND_MODE, KIND_USER, KIND_GROUP };

#define FITS(type) (1u << (type))
#define FITS_INET (FITS(LISTEN_TCP) | FITS(LISTEN_UDP))
#define FITS_UNIX (FITS(LISTEN_UNIX) | FITS(LISTEN_UNIXGRAM))
#define FITS_ALL (FITS_INET | FITS_UNIX | FITS(LISTEN_FD) | FITS(LISTEN_SYSTEMD))

/* Buffers: the kernel doubles the value (socket(7)), so half of an int is what it can take. */
static const struct listen_option {
	const char *name;
	enum option_kind kind;
	unsigned fits;
	const char *fits_text;
	size_t field;
	int maximum;
} listen_options[] = {
	{"backlog", KIND_NUMBER, FITS(LISTEN_TCP) | FITS(LISTEN_UNIX), "TCP and unix: addresses",
	 offsetof(struct listen_spec, backlog), INT_MAX},
	{"v6only", KIND_V6ONLY, FITS_INET, "TCP and UDP addresses", offsetof(struct listen_spec, v6only), 0},
	{"reuseport", KIND_FLAG, FITS_INET, "TCP and UDP addresses", offsetof(struct listen_spec, reuseport), 0},
	{"freebind", KIND_FLAG, FITS_INET, "TCP and UDP addresses", offsetof(struct listen_spec, freebind), 0},
	{"nodelay", KIND_FLAG, FITS(LISTEN_TCP), "TCP addresses", offsetof(struct listen_spec, nodelay), 0},
	{"keepalive", KIND_FLAG, FITS(LISTEN_TCP), "TCP addresses", offsetof(struct listen_spec, keepalive), 0},
	{"defer-accept", KIND_SECONDS, FITS(LISTEN_TCP), "TCP addresses", offsetof(struct listen_spec, defer_accept),
	 0},
	{"nonblock", KIND_FLAG, FITS_ALL, "every address", offsetof(struct listen_spec, nonblock), 0},
	{"rcvbuf", KIND_NUMBER, FITS_INET | FITS_UNIX, "sockets that are bound here",
	 offsetof(struct listen_spec, rcvbuf), INT_MAX / 2},
	{"sndbuf", KIND_NUMBER, FITS_INET | FITS_UNIX, "sockets that are bound here",
	 offsetof(struct listen_spec, sndbuf), INT_MAX / 2},
	{"mode", KIND_MODE, FITS_UNIX, "unix: and unixgram: paths", offsetof(struct listen_spec, mode), 0},
	{"user", KIND_USER, FITS_UNIX, "unix: and unixgram: paths", offsetof(struct listen_spec, uid), 0},
	{"group", KIND_GROUP, FITS_UNIX, "unix: and unixgram: paths", offsetof(struct listen_spec, gid), 0},
};

static int parse_yes_no(const struct parser *parser, const char *name, const char *value, bool *ret_yes)
{
	if (value && strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return refuse(parser, "%s \"%.60s\": must be yes or no", name, value);
	*ret_yes = !value || strcmp(value, "yes") == 0;
	return 0;
}

static int parse_seconds(const struct parser *parser, const char *what, const char *value, int *ret_seconds)
{
	int64_t ms;
	int code = spec_duration(what, value, &ms, parser->error);
	if (code < 0)
		return code;
	if (ms == DURATION_NONE || ms % 1000 != 0)
		return refuse(parser, "defer-accept \"%.60s\": must be whole seconds, such as 5s", value);
	*ret_seconds = (int)(ms / 1000);
	return 0;
}

/* Fills the option's field. `value` is NULL where there was no '='. */
static int parse_value(struct parser *parser, const struct listen_option *option, const char *value)
{
	char what[300];
	int64_t number;
	uid_t uid;
	gid_t unused_gid;
	bool yes;
	int code;
	char *field = (char *)parser->spec + option->field;
	snprintf(what, sizeof(what), "listen \"%.200s\": %s", parser->text, option->name);
	switch (option->kind) {
	case KIND_FLAG:
		return parse_yes_no(parser, option->name, value, (bool *)(void *)field);
	case KIND_V6ONLY:
		if ((code = parse_yes_no(parser, option->name, value, &yes)) == 0)
			parser->spec->v6only = yes;
		return code;
	case KIND_NUMBER:
		if ((code = spec_number(what, value, 1, option->maximum, &number, parser->error)) == 0)
			*(int *)(void *)field = (int)number;
		return code;
	case KIND_SECONDS:
		return parse_seconds(parser, what, value, (int *)(void *)field);
	case KIND_MODE:
		return spec_mode(what, value, (mode_t *)(void *)field, parser->error);
	case KIND_USER:
		/* The group of the path is for group= alone to say. */
		if ((code = spec_user(what, value, &uid, &unused_gid, parser->error)) == 0)
			parser->spec->uid = uid;
		return code;
	case KIND_GROUP:
		return spec_group(what, value, (gid_t *)(void *)field, parser->error);
	}
	return -EINVAL;
}

static int refuse_unknown_option(const struct parser *parser, const char *name)
{
	const char *names[ARRAY_SIZE(listen_options) + 1];
	for (size_t i = 0; i < ARRAY_SIZE(listen_options); i++)
		names[i] = listen_options[i].name;
	names[ARRAY_SIZE(listen_options)] = NULL;
	const char *closest = spec_closest(name, names);
	if (*name == '\0')
		return refuse(parser, "an option is empty; they are written ?option=value&option");
	if (closest)
		return refuse(parser, "there is no option \"%.60s\"; did you mean %s?", name, closest);
	return refuse(parser, "there is no option \"%.60s\"", name);
}

/* One `opt` or `opt=value`; the '=' in `text` is overwritten. */
static int parse_option(struct parser *parser, char *text)
{
	char *value = strchr(text, '=');
	if (value)
		*value++ = '\0';
	size_t row = 0;
	while (row < ARRAY_SIZE(listen_options) && strcmp(text, listen_options[row].name) != 0)
		row++;
	if (row == ARRAY_SIZE(listen_options))
		return refuse_unknown_option(parser, text);

	const struct listen_option *option = &listen_options[row];
	if (parser->seen & (1u << row))
		return refuse(parser, "%s is given twice", option->name);
	parser->seen |= 1u << row;
	if (!(option->fits & FITS(parser->spec->type)))
		return refuse(parser, "%s is for %s only", option->name, option->fits_text);
	if (option->kind >= KIND_MODE && parser->spec->abstract)
		return refuse(parser, "%s is for unix: paths only: an abstract socket has no file", option->name);
	if (!value && option->kind > KIND_V6ONLY)
		return refuse(parser, "%s needs a value, as in %s=VALUE", option->name, option->name);
	if (option->field == offsetof(struct listen_spec, nonblock))
		parser->spec->nonblock_given = true;
	return parse_value(parser, option, value);
}

static int parse_options(struct parser *parser, const char *text)
{
	CLEANUP(freep) char *owned = strdup(text);
	if (!owned)
		return out_of_memory(parser);
	struct in_addr binary;
	int code = 0;
	char *rest = owned, *option;
	while (code == 0 && (option = strsep(&rest, "&")))
		code = parse_option(parser, option);
	if (code == 0 && parser->spec->v6only != -1 && parser->spec->host &&
	    inet_pton(AF_INET, parser->spec->host, &binary) == 1)
		return refuse(parser, "v6only is for IPv6 and the wildcard only");
	return code;
}

/* ---- The whole ---- */

/* A '=' that comes before anything that only an address has (colon, slash, bracket, @) ends a name. */
static int parse_name(const struct parser *parser, const char **ret_rest)
{
	size_t length = strcspn(parser->text, ":/[@?=");
	if (parser->text[length] != '=')
		return 0;
	if (length == 0)
		return refuse(parser, "the name before = is missing");
	if (length > NAME_MAX_LENGTH || !only_of(parser->text, length, LETTERS DIGITS "_.-"))
		return refuse(parser, "a name is made of up to %d letters, digits, _, . and -", NAME_MAX_LENGTH);
	*ret_rest = parser->text + length + 1;
	return copy(parser, parser->text, length, &parser->spec->name);
}

static int parse_all(struct parser *parser)
{
	const char *rest = parser->text;
	int code = copy(parser, rest, strlen(rest), &parser->spec->text);
	if (code == 0)
		code = parse_name(parser, &rest);
	if (code < 0)
		return code;

	const char *question = strchr(rest, '?');
	CLEANUP(freep) char *address = strndup(rest, question ? (size_t)(question - rest) : strlen(rest));
	if (!address)
		return out_of_memory(parser);
	code = parse_address(parser, address);
	if (code < 0 || !question)
		return code;
	return parse_options(parser, question + 1);
}

int listen_spec_parse(const char *text, struct listen_spec *ret_spec, struct error *error)
{
	struct listen_spec spec = {
		.backlog = BACKLOG_DEFAULT,
		.fd = -1,
		.v6only = -1,
		.mode = (mode_t)-1,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
	};
	struct parser parser = {.text = text, .spec = &spec, .error = error};
	int code = parse_all(&parser);
	if (code < 0) {
		listen_spec_finish(&spec);
		return code;
	}
	*ret_spec = spec;
	return 0;
}

void listen_spec_finish(struct listen_spec *spec)
{
	free(spec->text);
	free(spec->name);
	free(spec->host);
	free(spec->path);
	free(spec->fd_name);
	*spec = (struct listen_spec){.fd = -1};
}
