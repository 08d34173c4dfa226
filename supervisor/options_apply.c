/* SPDX-License-Identifier: MIT */
/* What options do with values that need more than a number, a time or a word. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/stdlib.h>

#include "command.h"
#include "fd.h"
#include "options_private.h"

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define NAME_MAX_LENGTH 64

int options_out_of_memory(const struct option_row *row, struct error *error)
{
	return error_set(error, -ENOMEM, "%s: out of memory", row->option);
}

void *options_field(const struct option_row *row, struct options *options)
{
	return (char *)options + row->field;
}

/* Makes room for one more item; NULL when there is no memory. */
static void *grown(void *items, size_t count, size_t size)
{
	return reallocarray(items, count + 1, size);
}

int options_apply_path(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	char *copy = strdup(value);
	if (!copy)
		return options_out_of_memory(row, error);
	*(char **)options_field(row, options) = copy;
	return 0;
}

int options_apply_list(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct string_list *list = options_field(row, options);
	char **items = grown(list->items, list->count + 1, sizeof(*items));
	if (!items)
		return options_out_of_memory(row, error);
	list->items = items;
	items[list->count] = strdup(value);
	if (!items[list->count])
		return options_out_of_memory(row, error);
	items[++list->count] = NULL;
	return 0;
}

/* ---- What is bound, and readiness ---- */

int options_apply_listen(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct listen_spec *listens = grown(options->listens, options->listen_count, sizeof(*listens));
	if (!listens)
		return options_out_of_memory(row, error);
	options->listens = listens;

	struct error why;
	int code = listen_spec_parse(value, &listens[options->listen_count], &why);
	if (code < 0)
		return error_set(error, code, "--%s", why.text);
	options->listen_count++;
	return 0;
}

int options_apply_name(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	size_t length = strlen(value);
	if (length > NAME_MAX_LENGTH || strspn(value, LETTERS "0123456789_.@-") != length || strchr("-.", *value))
		return error_set(error, -EINVAL,
				 "%s \"%.200s\": must be up to %d letters, digits, _, @, . and -, and begin with none "
				 "of the last two",
				 row->option, value, NAME_MAX_LENGTH);
	return options_apply_path(row, value, options, error);
}

/* Absolute from the start, by the working directory as the user sees it: the file is read again after a link that leads
 * there has moved. */
int options_apply_config(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	CLEANUP(freep) char *start = NULL;
	if (value[0] == '/')
		return options_apply_path(row, value, options, error);
	start = command_start_directory(environ);
	if (!start)
		return error_set(error, -errno, "%s \"%.200s\": cannot find the working directory: %s", row->option,
				 value, strerror(errno));
	if (asprintf(&options->config_path, "%s/%s", start, value) < 0) {
		options->config_path = NULL;
		return options_out_of_memory(row, error);
	}
	return 0;
}

int options_apply_control(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	(void)row;
	return control_option_parse(value, &options->control, error);
}

/* A word twice is no mistake that could do harm. */
int options_apply_compat(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	static const char *const words[] = {"server-starter", "einhorn", "forked-server", "no-listen-pid", NULL};
	static const unsigned bits[] = {COMPAT_SERVER_STARTER, COMPAT_EINHORN, COMPAT_FORKED_SERVER,
					COMPAT_NO_LISTEN_PID};
	CLEANUP(freep) char *copy = strdup(value);
	if (!copy)
		return options_out_of_memory(row, error);
	char *rest = copy;
	unsigned index;
	for (const char *word; (word = strsep(&rest, ","));) {
		int code = spec_word(row->option, word, words, &index, error);
		if (code < 0)
			return code;
		options->compat |= bits[index];
	}
	return 0;
}

int options_apply_ready(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct ready_how *readies = grown(options->readies, options->ready_count, sizeof(*readies));
	if (!readies)
		return options_out_of_memory(row, error);
	options->readies = readies;
	int code = ready_how_parse(value, &readies[options->ready_count], error);
	if (code < 0)
		return code;
	options->ready_count++;
	return 0;
}

/* ---- Signals ---- */

/* A server that is stopped never drains, and one that gets CHLD, CONT or URG hears nothing. */
int options_apply_drain_signal(const struct option_row *row, const char *value, struct options *options,
			       struct error *error)
{
	int signal;
	int code = spec_signal(row->option, value, &signal, error);
	if (code < 0)
		return code;
	if (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU)
		return error_set(error, -EINVAL, "%s \"%s\": would freeze the old server, not drain it", row->option,
				 value);
	if (signal == SIGCHLD || signal == SIGCONT || signal == SIGURG)
		return error_set(error, -EINVAL, "%s \"%s\": a server does not take that for an order to drain",
				 row->option, value);
	options->drain_signal = signal;
	return 0;
}

/* Why a signal cannot be given another meaning; NULL where it can. */
static const char *signal_is_fixed(int signal)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};
	if (signal == SIGKILL || signal == SIGSTOP)
		return "the kernel lets nobody catch that signal";
	if (signal == SIGCHLD)
		return "that signal says that a child has exited, and is needed for that";
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		if (signal == faults[i])
			return "that signal reports a fault of the program itself";
	}
	return NULL;
}

static int parse_action(const char *what, const char *action, struct signal_rule *rule, struct error *error)
{
	static const struct {
		const char *name;
		enum signal_action action;
	} actions[] = {
		{"reload", SIGNAL_ACTION_RELOAD},   {"stop", SIGNAL_ACTION_STOP},     {"kill", SIGNAL_ACTION_KILL},
		{"forward", SIGNAL_ACTION_FORWARD}, {"ignore", SIGNAL_ACTION_IGNORE},
	};
	if (strncmp(action, "forward:", 8) == 0) {
		rule->action = SIGNAL_ACTION_FORWARD;
		return spec_signal(what, action + 8, &rule->forward_to, error);
	}
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (strcmp(action, actions[i].name) == 0) {
			rule->action = actions[i].action;
			return 0;
		}
	}
	return error_set(error, -EINVAL,
			 "%s \"%.200s\": the action must be reload, stop, kill, forward, forward:SIG or ignore", what,
			 action);
}

int options_apply_signal(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	const char *equals = strchr(value, '=');
	if (!equals)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be SIG=ACTION, as in TERM=stop", row->option,
				 value);
	CLEANUP(freep) char *name = strndup(value, (size_t)(equals - value));
	if (!name)
		return options_out_of_memory(row, error);
	int signal;
	struct signal_rule rule = {.explicit_rule = true};
	int code = spec_signal(row->option, name, &signal, error);
	if (code == 0)
		code = parse_action(row->option, equals + 1, &rule, error);
	if (code < 0)
		return code;

	const char *fixed = signal_is_fixed(signal);
	if (fixed)
		return error_set(error, -EINVAL, "%s \"%.200s\": %s", row->option, value, fixed);
	if (options->signals[signal].explicit_rule)
		return error_set(error, -EINVAL, "%s \"%.200s\": that signal was given an action before", row->option,
				 value);
	options->signals[signal] = rule;
	return 0;
}
