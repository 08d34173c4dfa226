/* SPDX-License-Identifier: MIT */
/* The client commands: their table, and the command line of each. */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "completion.h"
#include "ctl_private.h"
#include "spec.h"

static int apply_control(struct ctl_request *request, const char *value, struct error *error)
{
	/* What is written for `run` may be written here too; mode and group are the supervisor's business. */
	control_option_finish(&request->control);
	return control_option_parse(value, &request->control, error);
}

static int apply_timeout(struct ctl_request *request, const char *value, struct error *error)
{
	int code = spec_duration("--timeout", value, &request->timeout_ms, error);
	request->timeout_given = true;
	if (code == 0 && request->timeout_ms == 0)
		return error_set(error, -EINVAL,
				 "--timeout \"%s\": nothing can be done in no time; leave --wait out, or write none",
				 value);
	return code;
}

static int apply_if_generation(struct ctl_request *request, const char *value, struct error *error)
{
	return spec_number("--if-generation", value, 1, UINT32_MAX, &request->if_generation, error);
}

#define FLAG(name) offsetof(struct ctl_request, name)

/* clang-format off */
#define CONTROL_OPTION \
	{.option = "--control", .value = "PATH", .apply = apply_control, .help = "the supervisor with this control socket"}
#define HELP_OPTION {.option = "--help", .flag = FLAG(help), .help = "show this text"}

static const struct ctl_option reload_options[] = {
	{.option = "--wait", .flag = FLAG(wait), .help = "until the new generation is active, or failed"},
	{.option = "--timeout", .value = "T", .apply = apply_timeout, .help = "wait no longer; the hand-off goes on"},
	{.option = "--if-generation", .value = "N", .apply = apply_if_generation,
	 .help = "only if N is still the active generation when it would start"},
	{.option = "--json", .flag = FLAG(json), .help = "print events and the result as they come, one a line"},
	CONTROL_OPTION, HELP_OPTION, {.option = NULL},
};
static const struct ctl_option status_options[] = {
	{.option = "--json", .flag = FLAG(json), .help = "as one JSON object; with --watch, events as they come"},
	{.option = "--prometheus", .flag = FLAG(prometheus), .help = "in the text format of Prometheus"},
	{.option = "--watch", .flag = FLAG(watch), .help = "go on, and show what changes"},
	CONTROL_OPTION, HELP_OPTION, {.option = NULL},
};
static const struct ctl_option stop_options[] = {
	{.option = "--now", .flag = FLAG(now), .help = "do not let it drain"},
	{.option = "--wait", .flag = FLAG(wait), .help = "until every generation is gone"},
	CONTROL_OPTION, HELP_OPTION, {.option = NULL},
};
static const struct ctl_option list_options[] = {CONTROL_OPTION, HELP_OPTION, {.option = NULL}};
static const struct ctl_option completion_options[] = {HELP_OPTION, {.option = NULL}};

const struct ctl_command ctl_commands[] = {
	{.word = "reload", .options = reload_options, .operand = "NAME", .takes_command = true, .run = ctl_reload,
	 .help = "hand over to a new generation"},
	{.word = "status", .options = status_options, .operand = "NAME", .run = ctl_show_status,
	 .help = "show what a supervisor does"},
	{.word = "stop", .options = stop_options, .operand = "NAME", .run = ctl_stop,
	 .help = "let every generation drain, then end"},
	{.word = "list", .options = list_options, .run = ctl_list,
	 .help = "the supervisors on this machine that you may talk to"},
	{.word = "completion", .options = completion_options, .operand = "SHELL", .operand_words = completion_shells,
	 .run = completion_print, .help = "print a completion script"},
};
/* clang-format on */
const size_t ctl_command_count = ARRAY_SIZE(ctl_commands);

static const struct ctl_command *find_command(const char *word)
{
	for (size_t i = 0; word && i < ctl_command_count; i++)
		if (strcmp(ctl_commands[i].word, word) == 0)
			return &ctl_commands[i];
	return NULL;
}

bool ctl_is_command(const char *word)
{
	return find_command(word);
}

/* ---- the command line ---- */

void ctl_request_finish(struct ctl_request *request)
{
	control_option_finish(&request->control);
}

static const struct ctl_option *find_option(const struct ctl_command *command, const char *word, size_t length)
{
	for (const struct ctl_option *option = command->options; option->option; option++)
		if (strlen(option->option) == length && strncmp(option->option, word, length) == 0)
			return option;
	return NULL;
}

static int refuse_option(const struct ctl_command *command, const char *word, struct error *error)
{
	const char *names[16];
	size_t count = 0;
	for (const struct ctl_option *option = command->options; option->option; option++)
		names[count++] = option->option + 2;
	names[count] = NULL;
	char *name = strndup(word + strspn(word, "-"), strcspn(word + strspn(word, "-"), "="));
	const char *closest = name ? spec_closest(name, names) : NULL;
	free(name);
	if (closest)
		return error_set(error, -EINVAL, "%s: unknown option %.200s; did you mean --%s?", command->word, word,
				 closest);
	return error_set(error, -EINVAL, "%s: unknown option %.200s; handoff %s --help lists them", command->word, word,
			 command->word);
}

/* Takes the option in words[0]. How many words it took, or a negative errno. */
static int take_option(struct ctl_request *request, char **words, int count, struct error *error)
{
	const char *word = strcmp(words[0], "-h") == 0 ? "--help" : words[0];
	size_t length = strcspn(word, "=");
	const struct ctl_option *option = find_option(request->command, word, length);
	if (!option)
		return refuse_option(request->command, word, error);
	if (!option->value) {
		if (word[length])
			return error_set(error, -EINVAL, "%s takes no value, but was written %.200s", option->option,
					 word);
		*(bool *)((char *)request + option->flag) = true;
		return 1;
	}
	const char *value = word[length] ? word + length + 1 : count > 1 ? words[1] : "";
	bool separate = !word[length] && count > 1;
	if (*value == '\0' || (separate && find_option(request->command, value, strcspn(value, "="))))
		return error_set(error, -EINVAL, "%s needs a value: %s %s", option->option, option->option,
				 option->value);
	int code = option->apply(request, value, error);
	return code < 0 ? code : 1 + separate;
}

static int take_operand(struct ctl_request *request, const char *word, struct error *error)
{
	const struct ctl_command *command = request->command;
	if (!command->operand)
		return error_set(error, -EINVAL, "%s takes no name, but \"%.200s\" was given", command->word, word);
	if (request->operand)
		return error_set(error, -EINVAL, "%s takes one %s, but \"%.200s\" and \"%.200s\" were given%s",
				 command->word, command->operand, request->operand, word,
				 command->takes_command ? "; a command line comes after --" : "");
	if (*word == '\0')
		return error_set(error, -EINVAL, "%s: the %s is empty", command->word, command->operand);
	if (strchr(word, '/'))
		return error_set(error, -EINVAL, "%s: \"%.200s\" is a path, not a name: write --control %.200s",
				 command->word, word, word);
	request->operand = word;
	unsigned index;
	return command->operand_words ? spec_word(command->operand, word, command->operand_words, &index, error) : 0;
}

/* What must hold between them. */
static int check_together(const struct ctl_request *request, struct error *error)
{
	const struct ctl_command *command = request->command;
	if (request->timeout_given && !request->wait)
		return error_set(error, -EINVAL, "--timeout is for waiting: it needs --wait");
	if (request->json && request->prometheus)
		return error_set(error, -EINVAL, "--json and --prometheus exclude each other");
	if (request->watch && request->prometheus)
		return error_set(error, -EINVAL, "--watch and --prometheus exclude each other");
	if (request->control.path && request->operand)
		return error_set(error, -EINVAL,
				 "--control \"%.200s\" says which supervisor already; leave \"%.200s\" out",
				 request->control.path, request->operand);
	if (command->operand_words && !request->operand)
		return error_set(error, -EINVAL, "%s: say for which shell: bash, zsh or fish", command->word);
	if (request->argv && !request->argv[0])
		return error_set(error, -EINVAL, "the command line after -- is missing");
	if (request->argv && request->argv[0][0] == '\0')
		return error_set(error, -EINVAL, "the command after -- is an empty word");
	return 0;
}

static int parse_words(struct ctl_request *request, int count, char **words, struct error *error)
{
	for (int at = 0; at < count && !request->help;) {
		int taken = 1;
		if (strcmp(words[at], "--") == 0) {
			if (!request->command->takes_command)
				return error_set(error, -EINVAL, "%s takes no command line after --",
						 request->command->word);
			request->argv = words + at + 1;
			break;
		}
		if (words[at][0] == '-' && words[at][1]) {
			taken = take_option(request, words + at, count - at, error);
		} else if (take_operand(request, words[at], error) < 0) {
			taken = -EINVAL;
		}
		if (taken < 0)
			return taken;
		at += taken;
	}
	return request->help ? 0 : check_together(request, error);
}

int ctl_parse(int argc, char **argv, struct ctl_request *ret_request, struct error *error)
{
	struct ctl_request request = {.command = find_command(argc > 1 ? argv[1] : NULL), .timeout_ms = DURATION_NONE};
	if (!request.command)
		return error_set(error, -EINVAL, "\"%.200s\" is no client command", argc > 1 ? argv[1] : "");
	int code = parse_words(&request, argc - 2, argv + 2, error);
	if (code < 0) {
		ctl_request_finish(&request);
		return code;
	}
	*ret_request = request;
	return 0;
}

void ctl_usage(FILE *out, const struct ctl_command *command)
{
	fprintf(out, "Usage: handoff %s", command->word);
	for (const struct ctl_option *option = command->options; option->option; option++)
		if (strcmp(option->option, "--help") != 0)
			fprintf(out, " [%s%s%s]", option->option, option->value ? " " : "",
				option->value ? option->value : "");
	if (command->operand)
		fprintf(out, command->operand_words ? " %s" : " [%s]", command->operand);
	fprintf(out, "%s\n\nhandoff %s: %s.\n\n", command->takes_command ? " [-- COMMAND [ARG...]]" : "", command->word,
		command->help);
	for (const struct ctl_option *option = command->options; option->option; option++) {
		int width = fprintf(out, "  %s%s%s", option->option, option->value ? " " : "",
				    option->value ? option->value : "");
		fprintf(out, "%*s%s\n", width < 23 ? 23 - width : 1, "", option->help);
	}
}

int ctl_main(int argc, char **argv)
{
	struct ctl_request request;
	struct error error = {.text = ""};
	int code = ctl_parse(argc, argv, &request, &error);
	if (code < 0) {
		ctl_complain("%s", error.text);
		return code == -ENOMEM ? CTL_ERROR : CTL_USAGE;
	}
	int status;
	if (request.help) {
		ctl_usage(stdout, request.command);
		status = ctl_flush();
	} else {
		status = request.command->run(&request);
	}
	ctl_request_finish(&request);
	return status;
}
