/* SPDX-License-Identifier: MIT */
/* JSON with comments, read so that every complaint and every value can be given a line. */
#include "config_json.h"

#include <errno.h>
#include <string.h>

#define BLANKS " \t\r\n"
#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* some editors begin UTF-8 with it, and cJSON skips it */

/* How much of the text a complaint shows. */
#define SHOWN_MAX 24

static size_t line_at(const char *text, size_t offset)
{
	size_t line = 1;
	for (const char *found = text; (found = memchr(found, '\n', offset - (size_t)(found - text))); found++)
		line++;
	return line;
}

static int refuse(const char *text, size_t offset, const char *why, struct error *error)
{
	return error_set(error, -EINVAL, "line %zu: %s", line_at(text, offset), why);
}

/* ---- Before cJSON: comments, and what it would take or could not explain ---- */

struct scan {
	char *text;
	size_t length;
	size_t at;
	size_t previous; /* where the last thing that is neither blank nor comment ended; its last character */
	char last;       /* that character; 0 at the beginning */
};

/* The text is blanked from `at` on for `count` bytes; lines stay. */
static void blank(struct scan *scan, size_t count)
{
	for (; count > 0; count--, scan->at++) {
		if (scan->text[scan->at] != '\n')
			scan->text[scan->at] = ' ';
	}
}

static int skip_comment(struct scan *scan, struct error *error)
{
	const char *start = scan->text + scan->at;
	if (start[1] == '/') {
		blank(scan, strcspn(start, "\n"));
		return 0;
	}
	const char *end = strstr(start + 2, "*/");
	if (!end)
		return refuse(scan->text, scan->at, "the comment that begins here is not closed", error);
	blank(scan, (size_t)(end + 2 - start));
	return 0;
}

/* cJSON takes a string over several lines, and ends it at an escaped NUL. */
static int skip_string(struct scan *scan, struct error *error)
{
	size_t start = scan->at++;
	for (;; scan->at++) {
		unsigned char byte = (unsigned char)scan->text[scan->at];
		if (byte == '"')
			break;
		if (byte == '\0' || byte == '\n')
			return refuse(scan->text, start, "a string is not closed at the end of its line", error);
		if (byte < 0x20)
			return refuse(scan->text, scan->at,
				      "a string holds a control character; write it as an escape, such as \\t", error);
		if (byte != '\\')
			continue;
		if (strncmp(scan->text + scan->at, "\\u0000", 6) == 0)
			return refuse(scan->text, scan->at, "a string holds a NUL character", error);
		if (scan->text[scan->at + 1] == '\0' || scan->text[scan->at + 1] == '\n')
			continue;
		scan->at++;
	}
	scan->at++;
	return 0;
}

/* Whether a value or key has just ended, so that no other may begin. */
static bool after_value(const struct scan *scan)
{
	return scan->last && !strchr(":,[{", scan->last);
}

static int scan_character(struct scan *scan, struct error *error)
{
	char character = scan->text[scan->at];
	size_t from = scan->previous;
	if (character == '\0')
		return refuse(scan->text, scan->at, "a NUL byte, which no text has", error);
	if (character == '\'')
		return refuse(scan->text, scan->at, "strings stand in double quotes", error);
	if (character == '#')
		return refuse(scan->text, scan->at, "a comment begins with // here, not with #", error);
	if (scan->last == ',' && strchr("}]", character))
		return refuse(scan->text, from, "the comma after the last item is too much", error);
	if (after_value(scan) && strchr("\"{[", character))
		return refuse(scan->text, from, "a comma or a colon is missing", error);
	if (character == '"') {
		int code = skip_string(scan, error);
		if (code < 0)
			return code;
	} else {
		scan->at++;
	}
	scan->previous = scan->at - 1;
	scan->last = character;
	return 0;
}

static int prepare(struct scan *scan, struct error *error)
{
	int code = 0;
	if (strncmp(scan->text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0)
		scan->at = strlen(BYTE_ORDER_MARK);
	while (code == 0 && scan->at < scan->length) {
		const char *here = scan->text + scan->at;
		if (here[0] && strchr(BLANKS, here[0]))
			scan->at++;
		else if (here[0] == '/' && (here[1] == '/' || here[1] == '*'))
			code = skip_comment(scan, error);
		else
			code = scan_character(scan, error);
	}
	if (code == 0 && scan->last == '\0')
		code = error_set(error, -EINVAL, "line 1: there is nothing but blanks and comments; {} is the least");
	return code;
}

/* ---- cJSON ---- */

static int refuse_syntax(const struct scan *scan, const char *end, struct error *error)
{
	/* cJSON points at the value that it could not take, or somewhere behind its beginning. */
	size_t offset = end ? (size_t)(end - scan->text) : 0;
	if (offset < scan->length)
		offset += strspn(scan->text + offset, BLANKS);
	while (offset > 0 && offset < scan->length && !strchr(BLANKS "{}[],:", scan->text[offset - 1]))
		offset--;
	const char *here = scan->text + offset;
	if (offset >= scan->length)
		return refuse(scan->text, scan->previous, "the text ends too early: a } or ] is missing", error);
	int shown = (int)strcspn(here, BLANKS);
	return error_set(error, -EINVAL, "line %zu: this is no JSON, from here on: %.*s", line_at(scan->text, offset),
			 shown < SHOWN_MAX ? shown : SHOWN_MAX, here);
}

int config_json_parse(char *text, size_t length, cJSON **ret_root, struct error *error)
{
	struct scan scan = {.text = text, .length = length};
	int code = prepare(&scan, error);
	if (code < 0)
		return code;
	/* With the terminator, which cJSON up to 1.7.17 may look at. */
	const char *end = NULL;
	cJSON *root = cJSON_ParseWithLengthOpts(text, length + 1, &end, true);
	if (!root)
		return refuse_syntax(&scan, end, error);
	*ret_root = root;
	return 0;
}

/* ---- Positions ---- */

static const char *after_string(const char *quote)
{
	const char *at = quote + 1;
	while (*at != '"')
		at += *at == '\\' ? 2 : 1;
	return at + 1;
}

/* The first character of item number `wanted` of the object or array whose bracket stands at `open`. */
static const char *find_item(const char *open, int wanted)
{
	int depth = 0;
	for (const char *at = open;;) {
		if (depth == 1 && wanted == 0) {
			at += strspn(at, BLANKS);
			return at;
		}
		if (*at == '{' || *at == '[')
			depth++;
		else if (*at == '}' || *at == ']')
			depth--;
		else if (*at == ',' && depth == 1)
			wanted--;
		if (*at == '\0' || depth == 0)
			return open;
		at = *at == '"' ? after_string(at) : at + 1;
	}
}

size_t config_json_line(const char *text, int member, int element)
{
	const char *root = strchr(text, '{');
	if (!root)
		return 1;
	const char *item = find_item(root, member);
	if (element >= 0 && *item == '"') {
		const char *value = after_string(item);
		value += strspn(value, BLANKS ":");
		item = *value == '[' ? find_item(value, element) : item;
	}
	return line_at(text, (size_t)(item - text));
}
