/* SPDX-License-Identifier: MIT */
/* The values of --ready: parsing and names. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ready.h"
#include "spec.h"

static const char *const kind_names[] = {
	[READY_AUTO] = "auto",           [READY_PIPE] = "pipe",     [READY_NOTIFY] = "notify",
	[READY_ACCEPTING] = "accepting", [READY_LISTEN] = "listen", [READY_DELAY] = "delay",
	[READY_EXEC] = "exec",           [READY_SIGNAL] = "signal", [READY_NOW] = "now",
};

const char *ready_kind_name(enum ready_kind kind)
{
	return kind_names[kind];
}

/* The kind whose name begins `text` and ends there or at a colon; -1 for none. `ret_value` is what follows the colon,
 * or NULL. */
static int find_kind(const char *text, const char **ret_value)
{
	const char *colon = strchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : strlen(text);
	for (size_t i = 0; i < ARRAY_SIZE(kind_names); i++) {
		if (strlen(kind_names[i]) == length && strncmp(text, kind_names[i], length) == 0) {
			*ret_value = colon ? colon + 1 : NULL;
			return (int)i;
		}
	}
	return -1;
}

static int parse_delay(const char *text, const char *value, struct ready_how *ret_how, struct error *error)
{
	int64_t delay_ms;
	if (!value)
		return error_set(error, -EINVAL, "--ready \"%.200s\": a duration must follow, as in delay:2s", text);
	int result = spec_duration("--ready delay", value, &delay_ms, error);
	if (result < 0)
		return result;
	if (delay_ms == DURATION_NONE)
		return error_set(error, -EINVAL, "--ready \"%.200s\": it would never be ready", text);
	*ret_how = (struct ready_how){.kind = READY_DELAY, .delay_ms = delay_ms};
	return 0;
}

static int parse_exec(const char *text, const char *value, struct ready_how *ret_how, struct error *error)
{
	if (!value || value[strspn(value, " \t\n")] == '\0')
		return error_set(error, -EINVAL, "--ready \"%.200s\": a command must follow, as in exec:./is-ready",
				 text);
	char *command = strdup(value);
	if (!command)
		return error_set(error, -ENOMEM, "--ready \"%.200s\": %s", text, strerror(ENOMEM));
	*ret_how = (struct ready_how){.kind = READY_EXEC, .command = command};
	return 0;
}

int ready_how_parse(const char *text, struct ready_how *ret_how, struct error *error)
{
	const char *value = NULL;
	int kind = find_kind(text, &value);
	if (kind < 0)
		return error_set(error, -EINVAL,
				 "--ready \"%.200s\": not one of auto, pipe, notify, accepting, listen, delay:T, "
				 "exec:CMD, signal, "
				 "now",
				 text);
	if (kind == READY_DELAY)
		return parse_delay(text, value, ret_how, error);
	if (kind == READY_EXEC)
		return parse_exec(text, value, ret_how, error);
	if (value)
		return error_set(error, -EINVAL, "--ready \"%.200s\": nothing may follow %s", text, kind_names[kind]);
	*ret_how = (struct ready_how){.kind = (enum ready_kind)kind};
	return 0;
}

void ready_how_finish(struct ready_how *how)
{
	free(how->command);
	how->command = NULL;
}
