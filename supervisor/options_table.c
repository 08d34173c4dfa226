/* SPDX-License-Identifier: MIT */
/* The table of options, and what most of them do with their value. */
#include "options_table.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "options_private.h"

/* ---- Values of one kind ---- */

static int apply_help(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	(void)row, (void)value, (void)error;
	options->command_kind = COMMAND_HELP;
	return 0;
}

static int apply_version(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	(void)row, (void)value, (void)error;
	options->command_kind = COMMAND_VERSION;
	return 0;
}

static int apply_flag(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	(void)value, (void)error;
	*(bool *)options_field(row, options) = true;
	return 0;
}

static int apply_number(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	int64_t number;
	int code = spec_number(row->option, value, row->minimum, row->maximum, &number, error);
	if (code < 0)
		return code;
	*(int *)options_field(row, options) = (int)number;
	return 0;
}

static int apply_duration(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	int64_t ms;
	int code = spec_duration(row->option, value, &ms, error);
	if (code < 0)
		return code;
	if (ms == DURATION_NONE ? !row->none : ms < row->minimum)
		return error_set(error, -EINVAL, "%s \"%s\": %s", row->option, value, row->hint);
	*(int64_t *)options_field(row, options) = ms;
	return 0;
}

/* The enums of struct options, which have the size of an unsigned int. */
static int apply_word(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	_Static_assert(
		sizeof(enum options_restart) == sizeof(unsigned) && sizeof(enum options_drain_to) == sizeof(unsigned) &&
			sizeof(enum options_order) == sizeof(unsigned) && sizeof(enum log_format) == sizeof(unsigned) &&
			sizeof(enum log_level) == sizeof(unsigned),
		"enums are stored as unsigned int");
	unsigned index;
	int code = spec_word(row->option, value, row->words, &index, error);
	if (code < 0)
		return code;
	memcpy(options_field(row, options), &index, sizeof(index));
	return 0;
}

/* ---- The rows ---- */

#define FIELD(name) offsetof(struct options, name)

static const char *const restart_words[] = {
	[RESTART_ALWAYS] = "always", [RESTART_ON_FAILURE] = "on-failure", [RESTART_NEVER] = "never", NULL};
static const char *const drain_to_words[] = {
	[DRAIN_TO_AUTO] = "auto", [DRAIN_TO_MAIN] = "main", [DRAIN_TO_GROUP] = "group", NULL};
static const char *const order_words[] = {[ORDER_START_FIRST] = "start-first", [ORDER_STOP_FIRST] = "stop-first", NULL};
static const char *const log_format_words[] = {[LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", NULL};
static const char *const log_level_words[] = {[LOG_LEVEL_ERROR] = "error",
					      [LOG_LEVEL_WARNING] = "warning",
					      [LOG_LEVEL_INFO] = "info",
					      [LOG_LEVEL_DEBUG] = "debug",
					      NULL};

/* clang-format off */
const struct option_row options_table[] = {
	{.option = "--listen", .letter = 'l', .value = "SPEC", .repeatable = true, .apply = options_apply_listen,
	 .section = "What to bind",
	 .help = "[NAME=]ADDRESS[?opt=value&...]; may be repeated:\n"
		 ":8080, 127.0.0.1:8080, [::1]:8080, localhost:8080,\n"
		 "udp:HOST:PORT, unix:/path, unix:@abstract,\n"
		 "unixgram:/path, fd:N, systemd, systemd:FDNAME"},
	{.option = "--name", .letter = 'n', .value = "NAME", .apply = options_apply_name, .field = FIELD(name),
	 .fixed = true,
	 .help = "name in the log and for reload, status and stop\n(default: COMMAND's base name)"},
	{.option = "--config", .letter = 'c', .value = "FILE", .no_key = true, .apply = options_apply_config,
	 .field = FIELD(config_path),
	 .help = "options as JSON, read anew at every hand-off"},

	{.option = "--ready", .value = "HOW", .repeatable = true, .apply = options_apply_ready,
	 .section = "When a new server is ready",
	 .help = "auto, pipe, notify, accepting, delay:T, exec:CMD,\n"
		 "signal or now; may be repeated: any one suffices\n"
		 "(default: auto)"},
	{.option = "--ready-timeout", .value = "T", .apply = apply_duration, .field = FIELD(ready_timeout_ms),
	 .minimum = 1, .none = true, .hint = "nothing can be ready in no time; for no limit write none",
	 .help = "then the new server is killed, the old one stays\n(default: 30s)"},
	{.option = "--settle", .value = "T", .apply = apply_duration, .field = FIELD(settle_ms),
	 .hint = "the old server would never be told to drain; to drain it at once write 0",
	 .help = "how long a ready server must live before the old\none drains (default: 250ms)"},

	{.option = "--workers", .value = "N", .apply = apply_number, .field = FIELD(workers),
	 .minimum = 1, .maximum = WORKERS_MAX,
	 .section = "How a hand-off goes",
	 .help = "processes of one server, 1 to 256, all on the same\nlisteners (default: 1)"},
	{.option = "--rolling", .apply = apply_flag, .field = FIELD(rolling),
	 .help = "replace workers one at a time"},
	{.option = "--order", .value = "WHICH", .apply = apply_word, .field = FIELD(order), .words = order_words,
	 .help = "start-first, or stop-first for servers that must\nnot run twice (default: start-first)"},

	{.option = "--drain-signal", .value = "SIG", .apply = options_apply_drain_signal,
	 .section = "How the old server goes",
	 .help = "sent to the old server (default: INT)"},
	{.option = "--drain-to", .value = "WHO", .apply = apply_word, .field = FIELD(drain_to),
	 .words = drain_to_words,
	 .help = "main, group or auto: who gets it (default: auto)"},
	{.option = "--drain-timeout", .value = "T", .apply = apply_duration, .field = FIELD(drain_timeout_ms),
	 .none = true,
	 .help = "then SIGKILL to its process group (default: none)"},
	{.option = "--max-draining", .value = "N", .apply = apply_number, .field = FIELD(max_draining),
	 .minimum = 1, .maximum = 64,
	 .help = "1 to 64: above it the oldest draining one is\nkilled (default: 16)"},
	{.option = "--kill-timeout", .value = "T", .apply = apply_duration, .field = FIELD(kill_timeout_ms),
	 .none = true,
	 .help = "between SIGTERM and SIGKILL in an immediate stop\n(default: 8s)"},

	{.option = "--restart", .value = "WHEN", .apply = apply_word, .field = FIELD(restart),
	 .words = restart_words,
	 .section = "When the server dies unasked",
	 .help = "always, on-failure or never (default: on-failure)"},
	{.option = "--restart-delay", .value = "T", .apply = apply_duration, .field = FIELD(restart_delay_ms),
	 .minimum = 1,
	 .hint = "must be at least 1ms, so that a server that cannot start is not started in a tight loop; "
		 "to start none at all: --restart never",
	 .help = "before the first restart; doubles with each\nfailure (default: 100ms)"},
	{.option = "--restart-delay-max", .value = "T", .apply = apply_duration,
	 .field = FIELD(restart_delay_max_ms), .minimum = 1,
	 .hint = "must be a time, of at least 1ms and not below --restart-delay",
	 .help = "up to this (default: 30s)"},
	{.option = "--max-restarts", .value = "N", .apply = apply_number, .field = FIELD(max_restarts),
	 .maximum = INT_MAX,
	 .help = "failures in a row, then exit with the server's\nstatus; 0 is no bound (default: 0)"},

	{.option = "--chdir", .value = "DIR", .apply = options_apply_path, .field = FIELD(chdir),
	 .section = "What the server runs as",
	 .help = "its folder, resolved anew for each start"},
	{.option = "--env", .value = "K=V", .repeatable = true, .apply = options_apply_env, .field = FIELD(env),
	 .help = "add to its environment; may be repeated"},
	{.option = "--env-file", .value = "FILE", .repeatable = true, .apply = options_apply_list,
	 .field = FIELD(env_files),
	 .help = "a file of K=V lines, read anew for each start"},
	{.option = "--env-dir", .value = "DIR", .repeatable = true, .apply = options_apply_list, .field = FIELD(env_dirs),
	 .help = "a folder of files, one a variable, read anew"},
	{.option = "--user", .value = "U", .apply = options_apply_user, .help = "run it as this user"},
	{.option = "--group", .value = "G", .apply = options_apply_group, .help = "and as this group (default: the user's own)"},
	{.option = "--umask", .value = "M", .apply = options_apply_umask, .help = "octal, as in 0027"},
	{.option = "--rlimit", .value = "NAME=N", .repeatable = true, .apply = options_apply_rlimit,
	 .help = "as in nofile=65536, core=unlimited, as=SOFT:HARD"},
	{.option = "--compat", .value = "LIST", .repeatable = true, .apply = options_apply_compat,
	 .help = "further protocols, with commas: server-starter,\neinhorn, forked-server, no-listen-pid"},
	{.option = "--no-new-privs", .apply = apply_flag, .field = FIELD(no_new_privs),
	 .help = "set PR_SET_NO_NEW_PRIVS"},
	{.option = "--die-with-supervisor", .apply = apply_flag, .field = FIELD(die_with_supervisor),
	 .help = "kill it when handoff itself is killed"},

	{.option = "--signal", .value = "SIG=ACTION", .repeatable = true, .fixed = true, .apply = options_apply_signal,
	 .section = "The supervisor itself",
	 .help = "reload, stop, kill, forward, forward:SIG or ignore"},
	{.option = "--control", .value = "PATH", .fixed = true, .apply = options_apply_control,
	 .help = "PATH[?mode=M&group=G]: the control socket\n(default: by NAME, in /run/handoff or the like)"},
	{.option = "--notify-fd", .value = "N", .fixed = true, .apply = apply_number, .field = FIELD(notify_fd),
	 .minimum = 3, .maximum = INT_MAX,
	 .help = "where s6 wants a newline when we are ready"},
	{.option = "--pid-file", .value = "PATH", .fixed = true, .apply = options_apply_path, .field = FIELD(pid_file),
	 .help = "holds our pid, and is locked until we exit"},
	{.option = "--capture", .fixed = true, .apply = apply_flag, .field = FIELD(capture),
	 .help = "relay the server's stderr and keep its last lines"},
	{.option = "--log-format", .value = "FORMAT", .fixed = true, .apply = apply_word, .field = FIELD(log_format),
	 .words = log_format_words,
	 .help = "text or json (default: text)"},
	{.option = "--log-level", .value = "LEVEL", .fixed = true, .apply = apply_word, .field = FIELD(log_level),
	 .words = log_level_words,
	 .help = "error, warning, info or debug (default: info)"},
	{.option = "--help", .letter = 'h', .no_key = true, .apply = apply_help, .help = "show this text"},
	{.option = "--version", .letter = 'V', .no_key = true, .apply = apply_version, .help = "show the version"},
};
/* clang-format on */

const size_t options_table_count = ARRAY_SIZE(options_table);

const char *option_row_name(const struct option_row *row)
{
	return row->option + 2;
}

enum option_kind option_row_kind(const struct option_row *row)
{
	if (!row->value)
		return OPTION_FLAG;
	if (row->apply == apply_number)
		return OPTION_NUMBER;
	if (row->apply == apply_duration)
		return OPTION_TIME;
	return row->apply == apply_word ? OPTION_WORD : OPTION_TEXT;
}

const struct option_row *option_row_find(const char *name, size_t length)
{
	for (size_t i = 0; i < options_table_count; i++) {
		const char *known = option_row_name(&options_table[i]);
		if (strncmp(known, name, length) == 0 && known[length] == '\0')
			return &options_table[i];
	}
	return NULL;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Only what was said: the driver takes signals out that were ignored at its start. */
static bool same_signals(const struct signal_rule *a, const struct signal_rule *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(((struct options *)0)->signals); i++) {
		bool taken_out = a[i].action == SIGNAL_ACTION_UNUSED || b[i].action == SIGNAL_ACTION_UNUSED;
		if (a[i].explicit_rule != b[i].explicit_rule)
			return false;
		if (a[i].explicit_rule && !taken_out &&
		    (a[i].action != b[i].action || a[i].forward_to != b[i].forward_to))
			return false;
	}
	return true;
}

bool option_row_same(const struct option_row *row, const struct options *a, const struct options *b)
{
	const char *field_a = (const char *)a + row->field, *field_b = (const char *)b + row->field;
	if (row->apply == options_apply_control)
		return same_text(a->control.path, b->control.path) && a->control.mode == b->control.mode &&
		       a->control.gid == b->control.gid;
	if (row->apply == options_apply_signal)
		return same_signals(a->signals, b->signals);
	if (row->apply == apply_flag)
		return *(const bool *)(const void *)field_a == *(const bool *)(const void *)field_b;
	if (row->apply == apply_number || row->apply == apply_word)
		return memcmp(field_a, field_b, sizeof(int)) == 0;
	assert(row->apply == options_apply_path || row->apply == options_apply_name);
	return same_text(*(char *const *)(const void *)field_a, *(char *const *)(const void *)field_b);
}
