/* SPDX-License-Identifier: MIT */
/* The command line of `handoff` as one plain struct, checked as far as it can be without touching the system. */
#ifndef HANDOFF_OPTIONS_H
#define HANDOFF_OPTIONS_H

#include <sys/types.h>

#include "child.h"
#include "control_place.h"
#include "error.h"
#include "log.h"
#include "ready.h"
#include "spec.h"

enum options_command { COMMAND_RUN, COMMAND_CHECK, COMMAND_HELP, COMMAND_VERSION };

enum options_restart { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };

enum options_drain_to { DRAIN_TO_AUTO, DRAIN_TO_MAIN, DRAIN_TO_GROUP };

enum options_order { ORDER_START_FIRST, ORDER_STOP_FIRST };

#define WORKERS_MAX 256

/* Bits of `compat`. */
enum options_compat {
	COMPAT_SERVER_STARTER = 1 << 0,
	COMPAT_EINHORN = 1 << 1,
	COMPAT_FORKED_SERVER = 1 << 2,
	COMPAT_NO_LISTEN_PID = 1 << 3,
};

/* What a signal to us means. */
enum signal_action {
	SIGNAL_ACTION_UNUSED, /* not in our set: its default is right (TSTP, CONT, …) */
	SIGNAL_ACTION_RELOAD,
	SIGNAL_ACTION_HANGUP,  /* HUP's own: reload, or a graceful stop when our controlling terminal is gone */
	SIGNAL_ACTION_STOP,    /* graceful; the second one immediate */
	SIGNAL_ACTION_KILL,    /* immediate */
	SIGNAL_ACTION_QUIT,    /* QUIT's own: immediate with a controlling terminal, else ignored */
	SIGNAL_ACTION_FORWARD, /* to the active generation; forward_to, or itself when 0 */
	SIGNAL_ACTION_IGNORE,  /* logged */
};

struct signal_rule {
	enum signal_action action;
	int forward_to;
	bool explicit_rule; /* said with --signal */
};

struct string_list {
	char **items; /* owned, NULL-terminated once there is one */
	size_t count;
};

/* One option as the command line gave it. */
struct option_given {
	size_t row;        /* in options_table */
	const char *value; /* borrowed from argv; NULL for a flag */
};

struct options {
	enum options_command command_kind;
	char **command;        /* NULL-terminated; NULL when none was given */
	bool command_is_files; /* from the config file, then owned; else borrowed from argv */

	char *config_path; /* owned, absolute; NULL without --config */
	/* What the command line gave, in its order: it goes before a config file, whenever that is read. Owned. */
	struct option_given *given;
	size_t given_count;

	struct listen_spec *listens;
	size_t listen_count;
	char *name; /* owned; NULL: the command's base name */

	struct ready_how *readies; /* never empty after parsing: auto, or what --compat implies */
	size_t ready_count;
	int64_t ready_timeout_ms; /* DURATION_NONE: for ever; so in all below */
	int64_t settle_ms;

	int drain_signal;
	enum options_drain_to drain_to;
	int64_t drain_timeout_ms;
	int max_draining;
	int64_t kill_timeout_ms;

	enum options_order order;
	int workers; /* 1 to WORKERS_MAX */
	bool rolling;
	unsigned compat; /* of enum options_compat */

	enum options_restart restart;
	int64_t restart_delay_ms, restart_delay_max_ms;
	int max_restarts; /* 0: no bound */

	char *chdir; /* NULL: the logical cwd at start */
	struct string_list env, env_files, env_dirs;
	/* Not set where --user or --group only names what a process without root is anyway: nothing to change then. */
	bool set_user, set_group, set_umask;
	char *user_name; /* for USER, LOGNAME, HOME; NULL when a number without an entry */
	uid_t uid;       /* (uid_t)-1 without --user */
	gid_t gid;       /* --group, else the primary group of --user; never (gid_t)-1 with set_user */
	mode_t umask;
	struct child_rlimit *rlimits;
	size_t rlimit_count;
	bool no_new_privs, die_with_supervisor;

	struct signal_rule signals[65]; /* by number, 1 to 64; defaults filled in */
	struct control_option control;
	int notify_fd; /* -1 */
	char *pid_file;
	bool capture;
	enum log_format log_format;
	enum log_level log_level;
};

/* Parses argv (getopt_long; "run" may be left out; options end at `--` or at the first word that is no option), and
 * reads the file of --config, whose values stand where the command line gives none. argv is borrowed for as long as
 * *ret_options, and all that config_load makes of it, live. 0 with
 * *ret_options filled, or -EINVAL with one sentence that names what is wrong; -ENOMEM. Unknown options name the closest
 * known one. Checks what can be checked alone: values, doubled options, a HOW without its command, users and groups,
 * {fd} arguments that name no listener (done by the driver, which knows the descriptors), options that exclude each
 * other. For COMMAND_HELP and COMMAND_VERSION nothing else is filled. */
int options_parse(int argc, char **argv, struct options *ret_options, struct error *error);
void options_finish(struct options *options);

/* Compares the options that hold from start to exit (`fixed` in the table). 0 when they are the same; else 1 and
 * `error` is a sentence for a warning, which names the first one that differs and says that it waits for the next
 * start. */
int options_fixed_difference(const struct options *old_options, const struct options *new_options, struct error *error);

/* The name for log lines and sockets: --name, else the base name of the command, else "handoff". Borrowed. */
const char *options_name(const struct options *options);

/* The text of `handoff --help`, static. */
const char *options_help(void);

/* Every long option, for the test that compares them with the manual page and for completion. Static, NULL-terminated.
 */
const char *const *options_long_names(void);

#endif
