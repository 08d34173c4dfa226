/* SPDX-License-Identifier: MIT */
/* The table of options, what each of them does with its value, and the defaults. */
#include "options_table.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bsd/stdlib.h>

#include "env.h"
#include "fd.h"

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define NAME_MAX_LENGTH 64

static int out_of_memory(const struct option_row *row, struct error *error)
{
	return error_set(error, -ENOMEM, "%s: out of memory", row->option);
}

static void *field_of(const struct option_row *row, struct options *options)
{
	return (char *)options + row->field;
}

/* Makes room for one more item; NULL when there is no memory. */
static void *grown(void *items, size_t count, size_t size)
{
	return reallocarray(items, count + 1, size);
}

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
	*(bool *)field_of(row, options) = true;
	return 0;
}

static int apply_path(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	char *copy = strdup(value);
	if (!copy)
		return out_of_memory(row, error);
	*(char **)field_of(row, options) = copy;
	return 0;
}

static int apply_list(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct string_list *list = field_of(row, options);
	char **items = grown(list->items, list->count + 1, sizeof(*items));
	if (!items)
		return out_of_memory(row, error);
	list->items = items;
	items[list->count] = strdup(value);
	if (!items[list->count])
		return out_of_memory(row, error);
	items[++list->count] = NULL;
	return 0;
}

static int apply_number(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	int64_t number;
	int code = spec_number(row->option, value, row->minimum, row->maximum, &number, error);
	if (code < 0)
		return code;
	*(int *)field_of(row, options) = (int)number;
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
	*(int64_t *)field_of(row, options) = ms;
	return 0;
}

/* The enums of struct options, which have the size of an unsigned int. */
static int apply_word(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	_Static_assert(
		sizeof(enum options_restart) == sizeof(unsigned) && sizeof(enum options_drain_to) == sizeof(unsigned) &&
			sizeof(enum log_format) == sizeof(unsigned) && sizeof(enum log_level) == sizeof(unsigned),
		"enums are stored as unsigned int");
	unsigned index;
	int code = spec_word(row->option, value, row->words, &index, error);
	if (code < 0)
		return code;
	memcpy(field_of(row, options), &index, sizeof(index));
	return 0;
}

/* ---- What is bound, and readiness ---- */

static int apply_listen(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct listen_spec *listens = grown(options->listens, options->listen_count, sizeof(*listens));
	if (!listens)
		return out_of_memory(row, error);
	options->listens = listens;

	struct error why;
	int code = listen_spec_parse(value, &listens[options->listen_count], &why);
	if (code < 0)
		return error_set(error, code, "--%s", why.text);
	options->listen_count++;
	return 0;
}

static int apply_name(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	size_t length = strlen(value);
	if (length > NAME_MAX_LENGTH || strspn(value, LETTERS "0123456789_.@-") != length || strchr("-.", *value))
		return error_set(error, -EINVAL,
				 "%s \"%.200s\": must be up to %d letters, digits, _, @, . and -, and begin with none "
				 "of the last two",
				 row->option, value, NAME_MAX_LENGTH);
	return apply_path(row, value, options, error);
}

static int apply_ready(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct ready_how *readies = grown(options->readies, options->ready_count, sizeof(*readies));
	if (!readies)
		return out_of_memory(row, error);
	options->readies = readies;
	int code = ready_how_parse(value, &readies[options->ready_count], error);
	if (code < 0)
		return code;
	options->ready_count++;
	return 0;
}

/* ---- Signals ---- */

/* A server that is stopped never drains, and one that gets CHLD, CONT or URG hears nothing. */
static int apply_drain_signal(const struct option_row *row, const char *value, struct options *options,
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

static int apply_signal_rule(const struct option_row *row, const char *value, struct options *options,
			     struct error *error)
{
	const char *equals = strchr(value, '=');
	if (!equals)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be SIG=ACTION, as in TERM=stop", row->option,
				 value);
	CLEANUP(freep) char *name = strndup(value, (size_t)(equals - value));
	if (!name)
		return out_of_memory(row, error);
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

/* ---- What the server runs as ---- */

static int apply_env(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	int code = env_check_pair(row->option, value, error);
	return code < 0 ? code : apply_list(row, value, options, error);
}

/* Without root nobody can become another user, but naming oneself is no mistake: the same command line then works in
 * both cases. */
static int apply_user(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	uid_t uid;
	gid_t gid;
	int code = spec_user(row->option, value, &uid, &gid, error);
	if (code < 0)
		return code;
	if (geteuid() != 0 && uid != geteuid())
		return error_set(error, -EINVAL, "%s \"%.200s\": only root may run the server as another user",
				 row->option, value);
	const struct passwd *entry = getpwuid(uid);
	char *name = entry ? strdup(entry->pw_name) : NULL;
	if (entry && !name)
		return out_of_memory(row, error);
	options->user_name = name;
	options->uid = uid;
	options->set_user = geteuid() == 0;
	if (!options->set_group)
		options->gid = gid;
	return 0;
}

static int apply_group(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	gid_t gid;
	int code = spec_group(row->option, value, &gid, error);
	if (code < 0)
		return code;
	if (geteuid() != 0 && gid != getegid())
		return error_set(error, -EINVAL, "%s \"%.200s\": only root may run the server as another group",
				 row->option, value);
	options->gid = gid;
	options->set_group = geteuid() == 0;
	return 0;
}

static int apply_umask(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	mode_t mask;
	int code = spec_mode(row->option, value, &mask, error);
	if (code < 0)
		return code;
	if (mask > 0777)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be from 0000 to 0777", row->option, value);
	options->umask = mask;
	options->set_umask = true;
	return 0;
}

static const char *const rlimit_names[] = {
	"as",     "core",  "cpu", "data",   "fsize",  "locks",      "memlock", "msgqueue", "nice",
	"nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",   NULL,
};
static const int rlimit_resources[] = {
	RLIMIT_AS,      RLIMIT_CORE,     RLIMIT_CPU,        RLIMIT_DATA,   RLIMIT_FSIZE, RLIMIT_LOCKS,
	RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE,       RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS,
	RLIMIT_RTPRIO,  RLIMIT_RTTIME,   RLIMIT_SIGPENDING, RLIMIT_STACK,
};
_Static_assert(ARRAY_SIZE(rlimit_names) == ARRAY_SIZE(rlimit_resources) + 1, "a resource for every name");

static int parse_rlimit_bound(const char *what, const char *text, rlim_t *ret_bound, struct error *error)
{
	if (strcmp(text, "unlimited") == 0) {
		*ret_bound = RLIM_INFINITY;
		return 0;
	}
	int64_t number;
	if (spec_number(what, text, 0, INT64_MAX, &number, NULL) < 0)
		return error_set(error, -EINVAL, "%s \"%.200s\": a limit must be a number, or unlimited, or SOFT:HARD",
				 what, text);
	*ret_bound = (rlim_t)number;
	return 0;
}

/* `words` holds NAME=N or NAME=SOFT:HARD and is cut up. */
static int parse_rlimit(const char *what, const char *value, char *words, struct child_rlimit *rlimit,
			struct error *error)
{
	unsigned index;
	char *bound = strchr(words, '=');
	if (!bound)
		return error_set(error, -EINVAL, "%s \"%.200s\": must be NAME=N, as in nofile=65536", what, value);
	*bound++ = '\0';
	int code = spec_word(what, words, rlimit_names, &index, error);
	if (code < 0)
		return code;

	char *hard = strchr(bound, ':');
	if (hard)
		*hard++ = '\0';
	code = parse_rlimit_bound(what, bound, &rlimit->limit.rlim_cur, error);
	if (code == 0)
		code = parse_rlimit_bound(what, hard ? hard : bound, &rlimit->limit.rlim_max, error);
	if (code < 0)
		return code;
	if (rlimit->limit.rlim_cur > rlimit->limit.rlim_max)
		return error_set(error, -EINVAL, "%s \"%.200s\": the soft limit is above the hard one", what, value);
	rlimit->resource = rlimit_resources[index];
	return 0;
}

static int apply_rlimit(const struct option_row *row, const char *value, struct options *options, struct error *error)
{
	struct child_rlimit rlimit;
	CLEANUP(freep) char *words = strdup(value);
	struct child_rlimit *rlimits = grown(options->rlimits, options->rlimit_count, sizeof(*rlimits));
	if (rlimits)
		options->rlimits = rlimits;
	if (!words || !rlimits)
		return out_of_memory(row, error);
	int code = parse_rlimit(row->option, value, words, &rlimit, error);
	if (code < 0)
		return code;
	for (size_t i = 0; i < options->rlimit_count; i++) {
		if (rlimits[i].resource == rlimit.resource)
			return error_set(error, -EINVAL, "%s \"%.200s\": that limit was given before", row->option,
					 value);
	}
	rlimits[options->rlimit_count++] = rlimit;
	return 0;
}

/* ---- The rows ---- */

#define FIELD(name) offsetof(struct options, name)

static const char *const restart_words[] = {
	[RESTART_ALWAYS] = "always", [RESTART_ON_FAILURE] = "on-failure", [RESTART_NEVER] = "never", NULL};
static const char *const drain_to_words[] = {
	[DRAIN_TO_AUTO] = "auto", [DRAIN_TO_MAIN] = "main", [DRAIN_TO_GROUP] = "group", NULL};
static const char *const log_format_words[] = {[LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", NULL};
static const char *const log_level_words[] = {[LOG_LEVEL_ERROR] = "error",
					      [LOG_LEVEL_WARNING] = "warning",
					      [LOG_LEVEL_INFO] = "info",
					      [LOG_LEVEL_DEBUG] = "debug",
					      NULL};

/* clang-format off */
const struct option_row options_table[] = {
	{.option = "--listen", .letter = 'l', .value = "SPEC", .repeatable = true, .apply = apply_listen,
	 .section = "What to bind",
	 .help = "[NAME=]ADDRESS[?opt=value&...]; may be repeated:\n"
		 ":8080, 127.0.0.1:8080, [::1]:8080, localhost:8080,\n"
		 "udp:HOST:PORT, unix:/path, unix:@abstract,\n"
		 "unixgram:/path, fd:N, systemd, systemd:FDNAME"},
	{.option = "--name", .letter = 'n', .value = "NAME", .apply = apply_name, .field = FIELD(name),
	 .help = "name in the log (default: COMMAND's base name)"},

	{.option = "--ready", .value = "HOW", .repeatable = true, .apply = apply_ready,
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

	{.option = "--drain-signal", .value = "SIG", .apply = apply_drain_signal,
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

	{.option = "--chdir", .value = "DIR", .apply = apply_path, .field = FIELD(chdir),
	 .section = "What the server runs as",
	 .help = "its folder, resolved anew for each start"},
	{.option = "--env", .value = "K=V", .repeatable = true, .apply = apply_env, .field = FIELD(env),
	 .help = "add to its environment; may be repeated"},
	{.option = "--env-file", .value = "FILE", .repeatable = true, .apply = apply_list,
	 .field = FIELD(env_files),
	 .help = "a file of K=V lines, read anew for each start"},
	{.option = "--env-dir", .value = "DIR", .repeatable = true, .apply = apply_list, .field = FIELD(env_dirs),
	 .help = "a folder of files, one a variable, read anew"},
	{.option = "--user", .value = "U", .apply = apply_user, .help = "run it as this user"},
	{.option = "--group", .value = "G", .apply = apply_group, .help = "and as this group (default: the user's own)"},
	{.option = "--umask", .value = "M", .apply = apply_umask, .help = "octal, as in 0027"},
	{.option = "--rlimit", .value = "NAME=N", .repeatable = true, .apply = apply_rlimit,
	 .help = "as in nofile=65536, core=unlimited, as=SOFT:HARD"},
	{.option = "--no-new-privs", .apply = apply_flag, .field = FIELD(no_new_privs),
	 .help = "set PR_SET_NO_NEW_PRIVS"},
	{.option = "--die-with-supervisor", .apply = apply_flag, .field = FIELD(die_with_supervisor),
	 .help = "kill it when handoff itself is killed"},

	{.option = "--signal", .value = "SIG=ACTION", .repeatable = true, .apply = apply_signal_rule,
	 .section = "The supervisor itself",
	 .help = "reload, stop, kill, forward, forward:SIG or ignore"},
	{.option = "--notify-fd", .value = "N", .apply = apply_number, .field = FIELD(notify_fd),
	 .minimum = 3, .maximum = INT_MAX,
	 .help = "where s6 wants a newline when we are ready"},
	{.option = "--pid-file", .value = "PATH", .apply = apply_path, .field = FIELD(pid_file),
	 .help = "holds our pid, and is locked until we exit"},
	{.option = "--capture", .apply = apply_flag, .field = FIELD(capture),
	 .help = "relay the server's stderr and keep its last lines"},
	{.option = "--log-format", .value = "FORMAT", .apply = apply_word, .field = FIELD(log_format),
	 .words = log_format_words,
	 .help = "text or json (default: text)"},
	{.option = "--log-level", .value = "LEVEL", .apply = apply_word, .field = FIELD(log_level),
	 .words = log_level_words,
	 .help = "error, warning, info or debug (default: info)"},
	{.option = "--help", .letter = 'h', .apply = apply_help, .help = "show this text"},
	{.option = "--version", .letter = 'V', .apply = apply_version, .help = "show the version"},
};
/* clang-format on */

const size_t options_table_count = ARRAY_SIZE(options_table);

const char *option_row_name(const struct option_row *row)
{
	return row->option + 2;
}
