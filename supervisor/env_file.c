/* SPDX-License-Identifier: MIT */
/* Environment files (NAME=VALUE lines) and environment folders (envdir), read anew for every generation. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"
#include "fd.h"

#define ENV_FILE_MAX (1024 * 1024)

/* Where the parser stands. Values are unquoted in place, since they never become longer than they were written. */
struct cursor {
	const char *what, *path; /* for sentences */
	char *at, *end;          /* *end is the NUL that fd_read_file put there */
	size_t line;
};

static bool is_blank(char c)
{
	/* \r, so that files with DOS line ends are read as they were meant. */
	return c == ' ' || c == '\t' || c == '\r';
}

static void skip_blanks(struct cursor *cursor)
{
	while (cursor->at < cursor->end && is_blank(*cursor->at))
		cursor->at++;
}

static char *line_end(const struct cursor *cursor)
{
	char *newline = memchr(cursor->at, '\n', (size_t)(cursor->end - cursor->at));

	return newline ? newline : cursor->end;
}

/* Past the newline at `end`, or to the end of the file. */
static void next_line(struct cursor *cursor, char *end)
{
	cursor->at = end < cursor->end ? end + 1 : end;
	cursor->line++;
}

/* What was read is not shown: a line that went wrong is often the middle of a secret. */
static int malformed(const struct cursor *cursor, size_t line, struct error *error, const char *why)
{
	return error_set(error, -EINVAL, "%s %s, line %zu: %s", cursor->what, cursor->path, line, why);
}

/* Terminates the text between `start` and `end` without the blanks at its end. */
static void terminate_trimmed(const char *start, char *end)
{
	while (end > start && is_blank(end[-1]))
		end--;
	*end = '\0';
}

/* The character that a backslash and `c` stand for within "…"; NUL where the backslash is literal. */
static char unescape(char c)
{
	switch (c) {
	case 'n':
		return '\n';
	case '"':
	case '\\':
	case '$':
	case '`':
		return c;
	default:
		return '\0';
	}
}

/* From the opening quote to the end of the line that has the closing one. */
static int read_quoted(struct cursor *cursor, const char **ret_value, struct error *error)
{
	size_t first_line = cursor->line;
	char quote = *cursor->at++;
	char *value = cursor->at, *out = value;

	while (cursor->at < cursor->end && *cursor->at != quote) {
		char c = *cursor->at++;

		if (c == '\n')
			cursor->line++;
		/* At the end of the file this looks at its NUL, which stands for nothing. */
		if (quote == '"' && c == '\\' && unescape(*cursor->at) != '\0')
			c = unescape(*cursor->at++);
		*out++ = c;
	}
	if (cursor->at == cursor->end)
		return malformed(cursor, first_line, error, "the quote is never closed");
	cursor->at++;
	*out = '\0';
	skip_blanks(cursor);
	if (cursor->at != line_end(cursor))
		return malformed(cursor, cursor->line, error, "there is text behind the closing quote");
	next_line(cursor, cursor->at);
	*ret_value = value;
	return 0;
}

static void read_plain(struct cursor *cursor, const char **ret_value)
{
	const char *value = cursor->at;
	char *end = line_end(cursor);

	next_line(cursor, end);
	terminate_trimmed(value, end);
	*ret_value = value;
}

static int read_name(struct cursor *cursor, const char **ret_name, struct error *error)
{
	char *end = line_end(cursor);

	if (strncmp(cursor->at, "export", 6) == 0 && is_blank(cursor->at[6])) {
		cursor->at += 7;
		skip_blanks(cursor);
	}
	const char *name = cursor->at;
	char *equals = memchr(cursor->at, '=', (size_t)(end - cursor->at));
	if (!equals)
		return malformed(cursor, cursor->line, error, "must be NAME=VALUE");
	cursor->at = equals + 1;
	terminate_trimmed(name, equals);
	if (!env_is_name(name, strlen(name)))
		return malformed(
			cursor, cursor->line, error,
			"what is before the = is not a name of letters, digits and _ that begins with no digit");
	if (env_is_reserved(name))
		return error_set(error, -EINVAL, "%s %s, line %zu: %s is reserved, handoff sets or removes it itself",
				 cursor->what, cursor->path, cursor->line, name);
	*ret_name = name;
	return 0;
}

static int read_line(struct env *env, struct cursor *cursor, struct error *error)
{
	const char *name = NULL, *value = NULL;

	skip_blanks(cursor);
	char *end = line_end(cursor);
	if (cursor->at == end || *cursor->at == '#' || *cursor->at == ';') {
		next_line(cursor, end);
		return 0;
	}
	int result = read_name(cursor, &name, error);
	if (result < 0)
		return result;
	skip_blanks(cursor);
	if (*cursor->at == '"' || *cursor->at == '\'') {
		result = read_quoted(cursor, &value, error);
		if (result < 0)
			return result;
	} else {
		read_plain(cursor, &value);
	}
	result = env_set(env, name, value);
	if (result < 0)
		return error_set(error, result, "%s %s: %s", cursor->what, cursor->path, strerror(-result));
	return 0;
}

/* fd_read_file, with a sentence. */
static int read_whole(const char *what, const char *path, char **ret_text, size_t *ret_length, struct error *error)
{
	int result = fd_read_file(path, ENV_FILE_MAX, ret_text, ret_length);

	switch (result) {
	case 0:
		return 0;
	case -EFBIG:
		return error_set(error, result, "%s %s: larger than 1 MiB", what, path);
	case -EINVAL:
		return error_set(error, result, "%s %s: not a regular file", what, path);
	default:
		return error_set(error, result, "%s %s: %s", what, path, strerror(-result));
	}
}

int env_read_file(struct env *env, const char *what, const char *path, struct error *error)
{
	CLEANUP(freep) char *text = NULL;
	size_t length;
	int result = read_whole(what, path, &text, &length, error);

	if (result < 0)
		return result;
	struct cursor cursor = {.what = what, .path = path, .at = text, .end = text + length, .line = 1};
	const char *nul = memchr(text, '\0', length);
	if (nul) {
		for (const char *at = text; at < nul; at++)
			cursor.line += *at == '\n';
		return malformed(&cursor, cursor.line, error, "there is a NUL byte");
	}
	while (cursor.at < cursor.end) {
		result = read_line(env, &cursor, error);
		if (result < 0)
			return result;
	}
	return 0;
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* One file of an environment folder. */
static int read_dir_file(struct env *env, const char *what, const char *folder, const char *name, struct error *error)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(freep) char *text = NULL;
	size_t length;

	if (strchr(name, '='))
		return error_set(error, -EINVAL, "%s %s: the file name \"%s\" has a =", what, folder, name);
	if (env_is_reserved(name))
		return error_set(error, -EINVAL, "%s %s: %s is reserved, handoff sets or removes it itself", what,
				 folder, name);
	if (asprintf(&path, "%s/%s", folder, name) < 0) {
		path = NULL; /* undefined after a failure (asprintf(3)) */
		return error_set(error, -ENOMEM, "%s %s: %s", what, folder, strerror(ENOMEM));
	}
	int result = read_whole(what, path, &text, &length, error);
	if (result < 0)
		return result;
	if (length == 0) {
		env_unset(env, name);
		return 0;
	}
	char *end = memchr(text, '\n', length);
	if (!end)
		end = text + length;
	while (end > text && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	for (char *at = text; at < end; at++)
		if (*at == '\0')
			*at = '\n';
	*end = '\0';
	result = env_set(env, name, text);
	if (result < 0)
		return error_set(error, result, "%s %s: %s", what, path, strerror(-result));
	return 0;
}

int env_read_dir(struct env *env, const char *what, const char *path, struct error *error)
{
	/* Resolved once: a deploy that turns a link to the next folder meanwhile must not give a mixture of both. */
	CLEANUP(freep) char *folder = realpath(path, NULL);
	CLEANUP(closedirp) DIR *dir = folder ? opendir(folder) : NULL;

	if (!dir)
		return error_set(error, -errno, "%s %s: %s", what, path, strerror(errno));
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			break;
		if (entry->d_name[0] == '.')
			continue;
		int result = read_dir_file(env, what, folder, entry->d_name, error);
		if (result < 0)
			return result;
	}
	if (errno != 0)
		return error_set(error, -errno, "%s %s: %s", what, path, strerror(errno));
	return 0;
}
