/* SPDX-License-Identifier: MIT */
/* The command line of `handoff` as one plain struct, checked as far as it can be without touching the system. */
#ifndef HANDOFF_OPTIONS_H
#define HANDOFF_OPTIONS_H

#include <sys/types.h>

#include "child.h"
#include "error.h"
#include "log.h"
#include "ready.h"
#include "spec.h"

enum options_command { COMMAND_RUN, COMMAND_CHECK, COMMAND_HELP, COMMAND_VERSION };

enum options_restart { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };

enum options_drain_to { DRAIN_TO_AUTO, DRAIN_TO_MAIN, DRAIN_TO_GROUP };

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

struct options {
	enum options_command command_kind;
	char **command; /* NULL-terminated, borrowed from argv; NULL when none was given */

	struct listen_spec *listens;
	size_t listen_count;
	char *name; /* owned; NULL: the command's base name */

	struct ready_how *readies; /* never empty after parsing: auto */
	size_t ready_count;
	int64_t ready_timeout_ms; /* DURATION_NONE: for ever; so in all below */
	int64_t settle_ms;

	int drain_signal;
	enum options_drain_to drain_to;
	int64_t drain_timeout_ms;
	int max_draining;
	int64_t kill_timeout_ms;

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
	int notify_fd;                  /* -1 */
	char *pid_file;
	bool capture;
	enum log_format log_format;
	enum log_level log_level;
};

/* Parses argv (getopt_long; "run" may be left out; options end at `--` or at the first word that is no option). 0 with
 * *ret_options filled, or -EINVAL with one sentence that names what is wrong; -ENOMEM. Unknown options name the closest
 * known one. Checks what can be checked alone: values, doubled options, a HOW without its command, users and groups,
 * {fd} arguments that name no listener (done by the driver, which knows the descriptors), options that exclude each
 * other. For COMMAND_HELP and COMMAND_VERSION nothing else is filled. */
int options_parse(int argc, char **argv, struct options *ret_options, struct error *error);
void options_finish(struct options *options);

/* The name for log lines and sockets: --name, else the base name of the command, else "handoff". Borrowed. */
const char *options_name(const struct options *options);

/* The text of `handoff --help`, static. */
const char *options_help(void);

/* Every long option, for the test that compares them with the manual page and for completion. Static, NULL-terminated.
 */
const char *const *options_long_names(void);

#endif
