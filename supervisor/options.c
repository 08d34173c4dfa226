/* SPDX-License-Identifier: MIT */
/* The command line: command words, the walk over the options, and the file of --config under them. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/stdlib.h>

#include "config.h"
#include "options_private.h"

#define OPTIONS_MAX 128

/* getopt_long(3) returns this plus the row's number for every option, so that letters need no second look-up. */
#define ROW_CODE 256

/* The words that may come first. Those of `client` are not for here, but known, so that they are not run as programs.
 */
static const struct command_word {
	const char *word;
	enum options_command command;
	bool client;
} command_words[] = {
	{"run", COMMAND_RUN, false},         {"check", COMMAND_CHECK, false}, {"help", COMMAND_HELP, false},
	{"version", COMMAND_VERSION, false}, {"reload", COMMAND_RUN, true},   {"status", COMMAND_RUN, true},
	{"stop", COMMAND_RUN, true},         {"list", COMMAND_RUN, true},     {"completion", COMMAND_RUN, true},
};

static const struct command_word *find_command_word(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(command_words); i++) {
		if (strcmp(word, command_words[i].word) == 0)
			return &command_words[i];
	}
	return NULL;
}

/* ---- The walk ---- */

struct walk {
	struct option longs[OPTIONS_MAX + 1];
	char shorts[2 * OPTIONS_MAX + 3];
	bool seen[OPTIONS_MAX];
};

static void walk_init(struct walk *walk)
{
	memset(walk, 0, sizeof(*walk));
	/* '+': the first word that is no option ends them, the rest is the server's. ':': we speak ourselves. */
	char *letter = walk->shorts;
	*letter++ = '+';
	*letter++ = ':';
	for (size_t i = 0; i < options_table_count && i < OPTIONS_MAX; i++) {
		const struct option_row *row = &options_table[i];
		walk->longs[i] = (struct option){
			.name = option_row_name(row),
			.has_arg = row->value ? required_argument : no_argument,
			.val = ROW_CODE + (int)i,
		};
		if (row->letter)
			*letter++ = row->letter;
		if (row->letter && row->value)
			*letter++ = ':';
	}
}

/* The row for a code that getopt_long returned or left in optopt, or NULL. */
static const struct option_row *row_by_code(int code)
{
	if (code >= ROW_CODE && (size_t)(code - ROW_CODE) < options_table_count)
		return &options_table[code - ROW_CODE];
	for (size_t i = 0; code != 0 && i < options_table_count; i++) {
		if (options_table[i].letter == code)
			return &options_table[i];
	}
	return NULL;
}

/* Whether a word is one of our options as it stands, so that it is hardly meant as another option's value. */
static bool is_option_word(const char *word)
{
	if (strcmp(word, "--") == 0)
		return true;
	if (strncmp(word, "--", 2) == 0)
		return option_row_find(word + 2, strcspn(word + 2, "="));
	return word[0] == '-' && word[1] && !word[2] && row_by_code(word[1]);
}

static int refuse_unknown(const char *word, struct error *error)
{
	char name[64];
	size_t length = strcspn(word, "=");
	snprintf(name, sizeof(name), "%.*s", (int)(length < sizeof(name) ? length : sizeof(name) - 1), word);
	const char *closest = spec_closest(name + strspn(name, "-"), options_long_names());
	if (closest)
		return error_set(error, -EINVAL, "unknown option %.*s; did you mean --%s?", (int)length, word, closest);
	return error_set(error, -EINVAL, "unknown option %.*s; handoff --help lists them", (int)length, word);
}

/* Looks at the next word before getopt_long does, which would take abbreviations (they would change their meaning when
 * an option is added) and would read "-listen" as -l with the value "isten". */
static int check_word(const char *word, struct error *error)
{
	if (word[0] != '-' || word[1] == '\0' || strcmp(word, "--") == 0)
		return 0;
	const char *name = word + strspn(word, "-");
	size_t length = strcspn(name, "=");
	if (strncmp(word, "--", 2) == 0 && option_row_find(word + 2, strcspn(word + 2, "=")))
		return 0;
	if (length > 1 && option_row_find(name, length))
		return error_set(error, -EINVAL, "unknown option %.*s; write --%.*s", (int)(name + length - word), word,
				 (int)length, name);
	return strncmp(word, "--", 2) == 0 ? refuse_unknown(word, error) : 0;
}

/* What getopt_long complains about: ':' for a missing value, else '?'. `word` is the one it was in. */
static int refuse_code(int code, const char *word, struct error *error)
{
	const struct option_row *row = row_by_code(optopt);
	if (code == ':' && row)
		return error_set(error, -EINVAL, "%s needs a value: %s %s", row->option, row->option, row->value);
	if (row)
		return error_set(error, -EINVAL, "%s takes no value, but was written %.200s", row->option, word);
	return error_set(error, -EINVAL, "unknown option -%c; handoff --help lists them", optopt);
}

static int remember(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct option_given *given = reallocarray(options->given, options->given_count + 1, sizeof(*given));
	if (!given)
		return options_out_of_memory(row, error);
	given[options->given_count++] = (struct option_given){.row = (size_t)(row - options_table), .value = value};
	options->given = given;
	return 0;
}

static int apply(struct walk *walk, const struct option_row *row, char **argv, struct options *options,
		 struct error *error)
{
	bool *seen = &walk->seen[row - options_table];
	if (row->value && *optarg == '\0')
		return error_set(error, -EINVAL, "%s \"\": the value is empty; write %s %s", row->option, row->option,
				 row->value);
	if (row->value && optarg == argv[optind - 1] && is_option_word(optarg))
		return error_set(error, -EINVAL, "%s needs a value, but the next word is %.200s", row->option, optarg);
	if (*seen && row->value && !row->repeatable)
		return error_set(error, -EINVAL, "%s \"%.200s\": %s was given before, and it takes one value",
				 row->option, optarg, row->option);
	*seen = true;
	const char *value = row->value ? optarg : NULL;
	int code = row->apply(row, value, options, error);
	return code < 0 ? code : remember(row, value, options, error);
}

/* Applies the options of argv, from argv[1] on, up to `--`, the first other word, or --help or --version. The index of
 * what follows them or a negative errno. */
static int walk_options(int argc, char **argv, struct options *options, struct error *error)
{
	struct walk walk;
	walk_init(&walk);
	opterr = 0;
	optind = 0; /* glibc and musl start anew */
	for (;;) {
		int at = optind ? optind : 1;
		int result = at < argc ? check_word(argv[at], error) : 0;
		if (result < 0)
			return result;
		int code = getopt_long(argc, argv, walk.shorts, walk.longs, NULL);
		if (code == -1)
			return optind;
		if (code == ':' || code == '?')
			return refuse_code(code, at < argc ? argv[at] : "", error);
		result = apply(&walk, row_by_code(code), argv, options, error);
		if (result < 0)
			return result;
		if (options->command_kind == COMMAND_HELP || options->command_kind == COMMAND_VERSION)
			return optind;
	}
}

static int take_command(char **words, bool after_hyphens, bool word_given, struct options *options, struct error *error)
{
	if (!words[0]) {
		/* A config file may name it. */
		if (options->command_kind == COMMAND_CHECK || options->config_path)
			return 0;
		return error_set(error, -EINVAL,
				 "the command to run is missing: handoff run [OPTIONS] -- COMMAND [ARG...]");
	}
	if (words[0][0] == '\0')
		return error_set(error, -EINVAL, "the command to run is an empty word");
	if (!after_hyphens && !word_given && find_command_word(words[0]))
		return error_set(error, -EINVAL,
				 "\"%s\" is a word of handoff's own and comes before the options; to run a program of "
				 "that name: handoff [OPTIONS] -- %s",
				 words[0], words[0]);
	options->command = words;
	return 0;
}

/* ---- The whole ---- */

static int parse_into(int argc, char **argv, const struct command_word *word, struct options *options,
		      struct error *error)
{
	/* getopt_long skips argv[0], be it our name or the command word. */
	if (word) {
		options->command_kind = word->command;
		argc--;
		argv++;
	}
	int end = walk_options(argc, argv, options, error);
	if (end < 0)
		return end;
	if (options->command_kind == COMMAND_HELP || options->command_kind == COMMAND_VERSION)
		return 0;
	bool after_hyphens = end > 1 && strcmp(argv[end - 1], "--") == 0;
	int code = take_command(argv + end, after_hyphens, word, options, error);
	if (code < 0 || !options->config_path)
		return code < 0 ? code : options_complete(options, error);

	struct options complete;
	code = config_load(options->config_path, options, &complete, error);
	if (code < 0)
		return code;
	options_finish(options);
	*options = complete;
	return 0;
}

int options_parse(int argc, char **argv, struct options *ret_options, struct error *error)
{
	struct options options;
	const struct command_word *word = argc > 1 ? find_command_word(argv[1]) : NULL;
	if (argc < 1)
		return error_set(error, -EINVAL, "the argument list is empty");
	if (word && word->client)
		return error_set(error, -EINVAL,
				 "handoff %s starts no supervisor (to run a program of that name: handoff -- %s)",
				 word->word, word->word);
	options_set_defaults(&options);
	int code = 0;
	if (word && (word->command == COMMAND_HELP || word->command == COMMAND_VERSION))
		options.command_kind = word->command;
	else
		code = parse_into(argc, argv, word, &options, error);

	enum options_command kind = options.command_kind;
	if (code < 0 || kind == COMMAND_HELP || kind == COMMAND_VERSION)
		options_finish(&options);
	if (code < 0)
		return code;
	options.command_kind = kind;
	*ret_options = options;
	return 0;
}

const char *options_name(const struct options *options)
{
	if (options->name)
		return options->name;
	if (!options->command)
		return "handoff";
	const char *slash = strrchr(options->command[0], '/');
	return slash && slash[1] ? slash + 1 : options->command[0];
}
