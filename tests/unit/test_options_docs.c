/* SPDX-License-Identifier: MIT */
/* Tests that what describes the options agrees with their table: help text, manual pages, schema. */
#include <ctype.h>
#include <limits.h>
#include <sys/mman.h>

#include <cjson/cJSON.h>

#include "config.h"
#include "fd.h"
#include "options_table.h"
#include "test.h"

static char *read_document(const char *name)
{
	char path[PATH_MAX], *text;
	size_t length;
	const char *slash = strrchr(__FILE__, '/');
	snprintf(path, sizeof(path), "%.*s/../../docs/%s", slash ? (int)(slash - __FILE__) : 1, slash ? __FILE__ : ".",
		 name);
	int code = fd_read_file(path, 1 << 20, &text, &length);
	if (code < 0)
		test_fail("%s: %s", path, strerror(-code));
	return text;
}

/* Whether `text` has the option, not as the beginning of a longer name. */
static bool mentions(const char *text, const char *option)
{
	size_t length = strlen(option);
	for (const char *found = text; (found = strstr(found, option)); found += length) {
		char next = found[length];
		if (!isalnum((unsigned char)next) && next != '-')
			return true;
	}
	return false;
}

static bool is_listed(const char *const *names, const char *name, size_t length)
{
	while (*names && !(strncmp(*names, name, length) == 0 && (*names)[length] == '\0'))
		names++;
	return *names;
}

/* Calls test_fail for a `--name` in the text that is no option. The text's own dashes are followed by no letter. */
static void check_only_known(const char *text, const char *const *names)
{
	static const char *const of_clients[] = {"wait",       "timeout", "if-generation", "json",
						 "prometheus", "watch",   "now",           NULL};
	for (const char *found = text; (found = strstr(found, "--")); found += 2) {
		size_t length = strspn(found + 2, "abcdefghijklmnopqrstuvwxyz-");
		if (length == 0 || found[2] == '-')
			continue;
		if (!is_listed(names, found + 2, length) && !is_listed(of_clients, found + 2, length))
			test_fail("%.*s is described, but is no option", (int)length + 2, found);
	}
}

static void test_options_docs_help_names_every_option(void)
{
	const char *help = options_help();
	const char *const *names = options_long_names();
	char option[64];
	size_t count = 0;
	for (; names[count]; count++) {
		snprintf(option, sizeof(option), "--%s", names[count]);
		if (!mentions(help, option))
			test_fail("%s is not in the help text", option);
	}
	check(count > 30);
	check_only_known(help, names);
	check_contains(help, "handoff(1)");
	for (const char *line = help; *line; line += strcspn(line, "\n") + 1) {
		if (strcspn(line, "\n") > 82)
			test_fail("too long a line: %.*s", (int)strcspn(line, "\n"), line);
	}
	check_str(options_help(), help);
}

static void test_options_docs_manual_describes_every_option(void)
{
	char *manual = read_document("handoff.1.scd");
	const char *const *names = options_long_names();
	char option[64];
	for (size_t i = 0; names[i]; i++) {
		/* At the head of its paragraph, not just somewhere. */
		snprintf(option, sizeof(option), "*--%s*", names[i]);
		bool found = false;
		for (const char *line = manual; *line && !found; line += strcspn(line, "\n"), line += *line == '\n')
			found = *line == '*' && memmem(line, strcspn(line, "\n"), option, strlen(option));
		if (!found)
			test_fail("%s has no paragraph in the manual page", option);
	}
	/* The hyphens of a program's own option in an example are a known name's, or not at a word's beginning. */
	for (const char *found = manual; (found = strstr(found, "*--")); found += 3) {
		char word[64];
		size_t length = strspn(found + 1, "abcdefghijklmnopqrstuvwxyz-");
		snprintf(word, sizeof(word), "%.*s", (int)length, found + 1);
		if (length > 2)
			check_only_known(word, names);
	}
	free(manual);
}

/* ---- The schema ---- */

static const char *text_of(const cJSON *object, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
	return text ? text : "";
}

/* That the schema's idea of one value is the table's. */
static void check_value_schema(const struct option_row *row, const cJSON *schema)
{
	const char *type = text_of(schema, "type");
	const cJSON *words_allowed = cJSON_GetObjectItemCaseSensitive(schema, "enum");
	switch (option_row_kind(row)) {
	case OPTION_FLAG:
		check_str(type, "boolean");
		break;
	case OPTION_NUMBER:
		check_str(type, "integer");
		check_int(cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(schema, "minimum")), row->minimum);
		check_int(cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(schema, "maximum")), row->maximum);
		break;
	case OPTION_TIME:
		check_str(text_of(schema, "$ref"), row->none ? "#/$defs/time-or-none" : "#/$defs/time");
		break;
	case OPTION_WORD:
		for (size_t i = 0; row->words[i]; i++)
			check_str(cJSON_GetStringValue(cJSON_GetArrayItem(words_allowed, (int)i)), row->words[i]);
		check(cJSON_GetArraySize(words_allowed) > 1 && !row->words[cJSON_GetArraySize(words_allowed)]);
		break;
	case OPTION_TEXT:
		check_str(type, "string");
		check_int(cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(schema, "minLength")), 1);
		break;
	}
}

static void test_options_docs_schema_is_the_table(void)
{
	char *text = read_document("handoff.schema.json");
	cJSON *schema = cJSON_Parse(text);
	check(schema != NULL);
	check_str(text_of(schema, "$schema"), "https://json-schema.org/draft/2020-12/schema");
	check(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(schema, "additionalProperties")));
	const cJSON *properties = cJSON_GetObjectItemCaseSensitive(schema, "properties");
	int count = 2;
	for (size_t i = 0; i < options_table_count; i++) {
		const struct option_row *row = &options_table[i];
		const cJSON *property = cJSON_GetObjectItemCaseSensitive(properties, option_row_name(row));
		if (!property != row->no_key)
			test_fail("%s is %s the schema", row->option, property ? "in" : "not in");
		if (!property)
			continue;
		count++;
		check(strlen(text_of(property, "description")) > 10);
		test_current = row->option;
		if (row->repeatable) {
			check_str(text_of(property, "type"), "array");
			property = cJSON_GetObjectItemCaseSensitive(property, "items");
		}
		check_value_schema(row, property);
	}
	test_current = "test_options_docs_schema_is_the_table";
	check(cJSON_HasObjectItem(properties, "command") && cJSON_HasObjectItem(properties, "$schema"));
	check_int(cJSON_GetArraySize(properties), count);
	cJSON_Delete(schema);
	free(text);
}

static void test_options_docs_manual_describes_every_key(void)
{
	char *manual = read_document("handoff.json.5.scd");
	for (size_t i = 0; i < options_table_count; i++) {
		const struct option_row *row = &options_table[i];
		char key[64];
		snprintf(key, sizeof(key), "*%s*", option_row_name(row));
		if (!row->no_key && !strstr(manual, key))
			test_fail("%s is not in the manual page", key);
	}
	check_contains(manual, "*command*");
	free(manual);
}

static void load(const char *text)
{
	static const struct options nothing;
	struct options options;
	struct error error;
	char path[64];
	int fd = memfd_create("config", MFD_CLOEXEC);
	check(fd >= 0);
	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (config_load(path, &nothing, &options, &error) < 0)
		test_fail("%s", error.text);
	options_finish(&options);
	fd_close(fd);
}

static void test_options_docs_examples_of_the_manual_load(void)
{
	static const char fence[] = "```\n";
	char *manual = read_document("handoff.json.5.scd");
	int count = 0;
	for (char *rest = manual, *start; (start = strstr(rest, fence));) {
		start += strlen(fence);
		char *end = strstr(start, fence);
		check(end != NULL);
		rest = end + strlen(fence);
		*end = '\0';
		if (*start != '{')
			continue;
		load(start);
		count++;
	}
	check_int(count, 2);
	free(manual);
}

TEST_MAIN(TEST(test_options_docs_help_names_every_option), TEST(test_options_docs_manual_describes_every_option),
	  TEST(test_options_docs_schema_is_the_table), TEST(test_options_docs_manual_describes_every_key),
	  TEST(test_options_docs_examples_of_the_manual_load))
