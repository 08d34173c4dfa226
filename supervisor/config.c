/* SPDX-License-Identifier: MIT */
/* The config file of `-c FILE`: JSON with comments, whose keys are the options of `run`. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "config_json.h"
#include "fd.h"
#include "options_private.h"

#define FILE_MAX (1 << 20)
#define KEYS_MAX 128

/* The two keys that are no options. Editors look for the second one. */
#define KEY_COMMAND "command"
#define KEY_SCHEMA "$schema"

struct reader {
	const char *path;
	char *text; /* owned; its comments blanked */
	cJSON *root;
	const struct options *command_line;
	struct options *options; /* what is filled */
	struct error *error;
	/* Where we are. */
	int member, element; /* the latter is -1 outside of a list */
	const char *key;
};

/* ---- Complaints ---- */

static int refuse_value(const struct reader *reader, int code, const char *why)
{
	char element[24] = "";
	if (reader->element >= 0)
		snprintf(element, sizeof(element), "[%d]", reader->element);
	return error_set(reader->error, code, "%.300s: line %zu: key \"%.60s%s\": %s", reader->path,
			 config_json_line(reader->text, reader->member, reader->element), reader->key, element, why);
}

static int out_of_memory(const struct reader *reader)
{
	return error_set(reader->error, -ENOMEM, "%.300s: out of memory", reader->path);
}

/* What an option complains about begins with its name on the command line; here the key says that. */
static int refuse_option(const struct reader *reader, const struct option_row *row, int code, const struct error *why)
{
	const char *text = why->text;
	size_t length = strlen(row->option);
	if (strncmp(text, row->option, length) == 0 && (text[length] == ' ' || text[length] == ':'))
		text += length + strspn(text + length, ": ");
	return refuse_value(reader, code, text);
}

static int refuse_key(const struct reader *reader)
{
	const char *names[KEYS_MAX + 2];
	size_t count = 0;
	for (size_t i = 0; i < options_table_count && i < KEYS_MAX; i++) {
		if (!options_table[i].no_key)
			names[count++] = option_row_name(&options_table[i]);
	}
	names[count++] = KEY_COMMAND;
	names[count] = NULL;

	char why[160];
	const char *bare = reader->key + strspn(reader->key, "-");
	const struct option_row *row = option_row_find(bare, strlen(bare));
	const char *closest = row && !row->no_key ? bare : spec_closest(bare, names);
	if (row && row->no_key)
		snprintf(why, sizeof(why), "is for the command line only");
	else if (closest)
		snprintf(why, sizeof(why), "there is no such key; did you mean \"%.60s\"?", closest);
	else
		snprintf(why, sizeof(why), "there is no such key; the options in handoff --help are the keys");
	return refuse_value(reader, -EINVAL, why);
}

static int refuse_type(const struct reader *reader, const struct option_row *row)
{
	char why[160] = "must be true or false";
	switch (option_row_kind(row)) {
	case OPTION_FLAG:
		break;
	case OPTION_NUMBER:
		snprintf(why, sizeof(why), "must be a number, from %lld to %lld", (long long)row->minimum,
			 (long long)row->maximum);
		break;
	case OPTION_TIME:
		snprintf(why, sizeof(why), "must be a time in a string, such as \"30s\"%s",
			 row->none ? ", or \"none\"" : "");
		break;
	case OPTION_WORD:
	case OPTION_TEXT:
		snprintf(why, sizeof(why), "must be a string, %s", row->value);
		break;
	}
	return refuse_value(reader, -EINVAL, why);
}

/* ---- Values ---- */

static bool has_type(const struct option_row *row, const cJSON *item)
{
	switch (option_row_kind(row)) {
	case OPTION_FLAG:
		return cJSON_IsBool(item);
	case OPTION_NUMBER:
		return cJSON_IsNumber(item);
	case OPTION_TIME:
	case OPTION_WORD:
	case OPTION_TEXT:
		break;
	}
	return cJSON_IsString(item);
}

static bool given_on_command_line(const struct reader *reader, const struct option_row *row)
{
	for (size_t i = 0; i < reader->command_line->given_count; i++) {
		if (&options_table[reader->command_line->given[i].row] == row)
			return true;
	}
	return false;
}

/* One value, or one element of a list. What the command line goes before is not looked at beyond its type: a user who
 * is overruled need not exist on this machine. */
static int apply_item(const struct reader *reader, const struct option_row *row, const cJSON *item)
{
	if (!has_type(row, item))
		return refuse_type(reader, row);
	if (given_on_command_line(reader, row) || cJSON_IsFalse(item))
		return 0;
	char number[32];
	const char *value = row->value ? item->valuestring : NULL;
	if (cJSON_IsNumber(item)) {
		/* %g keeps a fraction, for the sentence that refuses it. */
		double wanted = item->valuedouble;
		bool whole = wanted > -1e15 && wanted < 1e15 && (double)(int64_t)wanted == wanted;
		snprintf(number, sizeof(number), "%.*g", whole ? 15 : 6, wanted);
		value = number;
	}
	if (value && *value == '\0')
		return refuse_value(reader, -EINVAL, "the string is empty");
	struct error why;
	int code = row->apply(row, value, reader->options, &why);
	return code < 0 ? refuse_option(reader, row, code, &why) : 0;
}

static int apply_list(struct reader *reader, const struct option_row *row, const cJSON *list)
{
	int code = 0;
	char why[96];
	snprintf(why, sizeof(why), "must be an array of strings: [\"%s\", ...]", row->value);
	if (!cJSON_IsArray(list))
		return refuse_value(reader, -EINVAL, why);
	for (const cJSON *item = list->child; item && code == 0; item = item->next) {
		reader->element++;
		code = apply_item(reader, row, item);
	}
	return code;
}

static int apply_command(struct reader *reader, const cJSON *list)
{
	static const char what[] = "must be an array of strings: [\"PROGRAM\", \"ARGUMENT\", ...]";
	if (!cJSON_IsArray(list) || !list->child)
		return refuse_value(reader, -EINVAL, what);
	char **command = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*command));
	if (!command)
		return out_of_memory(reader);
	int code = 0;
	size_t count = 0;
	for (const cJSON *item = list->child; item && code == 0; item = item->next) {
		reader->element++;
		if (!cJSON_IsString(item))
			code = refuse_value(reader, -EINVAL, "must be a string, one argument of the command");
		else if (count == 0 && item->valuestring[0] == '\0')
			code = refuse_value(reader, -EINVAL, "the program is an empty string");
		else if (!(command[count++] = strdup(item->valuestring)))
			code = out_of_memory(reader);
	}
	if (code < 0 || (reader->command_line->command && !reader->command_line->command_is_files)) {
		command_free(command);
		return code;
	}
	reader->options->command = command;
	reader->options->command_is_files = true;
	return 0;
}

/* ---- The whole ---- */

static int check_not_doubled(const struct reader *reader)
{
	const cJSON *before = reader->root->child;
	for (int member = 0; member < reader->member; member++, before = before->next) {
		if (strcmp(before->string, reader->key) != 0)
			continue;
		char why[64];
		snprintf(why, sizeof(why), "stands in line %zu already", config_json_line(reader->text, member, -1));
		return refuse_value(reader, -EINVAL, why);
	}
	return 0;
}

static int apply_member(struct reader *reader, const cJSON *item)
{
	const struct option_row *row = option_row_find(reader->key, strlen(reader->key));
	int code = check_not_doubled(reader);
	if (code < 0)
		return code;
	if (strcmp(reader->key, KEY_COMMAND) == 0)
		return apply_command(reader, item);
	if (strcmp(reader->key, KEY_SCHEMA) == 0)
		return cJSON_IsString(item) ? 0 : refuse_value(reader, -EINVAL, "must be a string");
	if (!row || row->no_key)
		return refuse_key(reader);
	return row->repeatable ? apply_list(reader, row, item) : apply_item(reader, row, item);
}

static int apply_file(struct reader *reader)
{
	if (!cJSON_IsObject(reader->root))
		return error_set(reader->error, -EINVAL, "%.300s: line 1: must be one object, in braces", reader->path);
	int code = 0;
	reader->member = 0;
	for (const cJSON *item = reader->root->child; item && code == 0; item = item->next, reader->member++) {
		reader->element = -1;
		reader->key = item->string;
		code = apply_member(reader, item);
	}
	return code;
}

static int read_file(struct reader *reader)
{
	size_t length;
	int code = fd_read_file(reader->path, FILE_MAX, &reader->text, &length);
	if (code < 0) {
		const char *why = code == -EFBIG    ? "it is larger than 1 MiB"
				  : code == -EINVAL ? "it is not a regular file"
						    : strerror(-code);
		return error_set(reader->error, code, "cannot read the config file %.300s: %s", reader->path, why);
	}
	struct error why;
	code = config_json_parse(reader->text, length, &reader->root, &why);
	return code < 0 ? error_set(reader->error, code, "%.300s: %s", reader->path, why.text) : 0;
}

/* What the command line gave was good at the start, and is no fault of the file now. */
static int apply_command_line(const struct reader *reader)
{
	const struct options *from = reader->command_line;
	struct options *options = reader->options;
	options->command_kind = from->command_kind;
	if (from->command && !from->command_is_files)
		options->command = from->command;
	options->given = calloc(from->given_count + 1, sizeof(*options->given));
	/* As it became absolute, which cannot be had a second time once a link in it has moved. */
	options->config_path = strdup(reader->path);
	if (!options->given || !options->config_path)
		return out_of_memory(reader);
	int code = 0;
	for (size_t i = 0; i < from->given_count && code == 0; i++) {
		const struct option_given *given = &from->given[i];
		const struct option_row *row = &options_table[given->row];
		options->given[options->given_count++] = *given;
		if (!row->no_key)
			code = row->apply(row, given->value, options, reader->error);
	}
	return code;
}

static int check_whole(const struct reader *reader)
{
	struct error why;
	int code = options_complete(reader->options, &why);
	if (code < 0)
		return error_set(reader->error, code, "%.300s: %s", reader->path, why.text);
	if (!reader->options->command && reader->options->command_kind == COMMAND_RUN)
		return error_set(reader->error, -EINVAL,
				 "%.300s: the key \"" KEY_COMMAND
				 "\" is missing, and the command line names no command to run",
				 reader->path);
	return 0;
}

int config_load(const char *path, const struct options *command_line, struct options *ret_options, struct error *error)
{
	struct options options;
	struct reader reader = {
		.path = path, .command_line = command_line, .options = &options, .error = error, .element = -1};
	options_set_defaults(&options);
	int code = read_file(&reader);
	if (code == 0)
		code = apply_file(&reader);
	if (code == 0)
		code = apply_command_line(&reader);
	if (code == 0)
		code = check_whole(&reader);
	if (code == 0)
		*ret_options = options;
	else
		options_finish(&options);
	cJSON_Delete(reader.root);
	free(reader.text);
	return code;
}
