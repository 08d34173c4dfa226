/* SPDX-License-Identifier: MIT */
/* Starting processes: fork, descriptor placement, credentials, exec; and the report of an exec that failed. */
#ifndef HANDOFF_CHILD_H
#define HANDOFF_CHILD_H

#include <sys/resource.h>
#include <sys/types.h>

#include "error.h"

struct child_rlimit {
	int resource; /* RLIMIT_* */
	struct rlimit limit;
};

/* Credentials and limits for the child only; the zero value with uid and gid -1 changes nothing. */
struct child_limits {
	bool set_user; /* drop to uid, gid and the groups below; for good: where the old ones could be had back, the
			  start fails */
	uid_t uid;     /* (uid_t)-1 keeps it (--group alone) */
	gid_t gid;     /* (gid_t)-1 keeps it */
	gid_t *groups; /* supplementary groups, owned by who made the struct */
	size_t group_count;
	bool set_umask;
	mode_t umask;
	const struct child_rlimit *rlimits;
	size_t rlimit_count;
	bool no_new_privs;
	bool die_with_supervisor; /* PR_SET_PDEATHSIG(SIGKILL), set after the uid change, which clears it; parent
				     checked */
};

/* Everything that happens between fork and exec, prepared before the fork, because nothing may be allocated after it.
 * The pointers are borrowed for the call. */
struct child_plan {
	char *const *argv; /* argv[0] is looked up in the PATH of `envp` when it has no slash, as execvp(3) does */
	char *const *envp; /* may hold "LISTEN_PID=" + LISTEN_PID_ROOM blanks at envp[listen_pid_index] */
	ssize_t listen_pid_index; /* -1: none; else the child writes its own pid there */
	const char *chdir;        /* resolved in the child, before exec and with the new credentials; NULL stays */
	bool chdir_may_be_denied; /* EACCES leaves the child where we are (started in a folder that --user may not see)
				   */
	const int *fds;           /* put at 3, 4, … in this order; the numbers may overlap with 3… in any way */
	size_t fd_count;
	int stderr_fd;         /* becomes fd 2, or -1 to leave it */
	bool quiet;            /* 1 and 2 become /dev/null too (readiness commands) */
	bool keep_hup_ignored; /* HUP stays ignored (nohup); all other dispositions and the mask become the default */
	const struct child_limits *limits; /* NULL: none */
};

/* The digits that a pid can take, blank-padded at the end by NULs in the plan's LISTEN_PID slot. */
#define LISTEN_PID_ROOM 12

/* A started process. Plain data for a successor, but for the two descriptors. */
struct child {
	pid_t pid;           /* leads its own process group of the same number */
	uint64_t start_time; /* clock ticks since boot (proc(5), stat field 22): tells this process from a later one; 0
				without /proc */
	int pidfd;           /* owned; close-on-exec; readable at exit */
	int exec_fd;         /* owned; close-on-exec, non-blocking; see child_exec_result */
};

/* Forks and execs. The child: own process group (set on both sides of the fork), default signal mask and dispositions,
 * fd 0 /dev/null, descriptors placed, everything else closed (close_range(2), Linux 5.9), limits, groups, gid, uid,
 * umask, no_new_privs, pdeathsig, chdir, exec (a file without a #! line goes to /bin/sh, as execvp does). 0 with
 * *ret_child filled, or -errno (fork, pidfd_open, pipe: -EAGAIN, -EMFILE, -ENOMEM …) with a sentence and no process
 * left. */
int child_spawn(const struct child_plan *plan, struct child *ret_child, struct error *error);

/* Reads what the exec pipe has to say; for a readable exec_fd. 1: exec succeeded (end of file); 0: nothing yet;
 * negative: the errno of the step that failed, with a sentence that names the command, the folder or the limit
 * ("cannot exec ./server: No such file or directory", "cannot change to /srv/app: …"). The child itself then exits with
 * 127 where the command or its interpreter was not found, else 126. */
int child_exec_result(struct child *child, const struct child_plan *plan, struct error *error);

/* Whether the process has exited, without reaping it (waitid(2) WNOHANG | WNOWAIT): 1 with *ret_status filled like that
 * of waitpid(2), 0 not yet, -ECHILD when it is not ours or was reaped. */
int child_peek(pid_t pid, int *ret_status);
/* Reaps a process that has exited; never waits. 0, -EAGAIN while it lives, or -errno. */
int child_reap(pid_t pid);
/* Signals the leader through its pidfd; 0 or -errno (-ESRCH once it was reaped). */
int child_signal(const struct child *child, int signal);
/* Signals the whole group. Only while the leader is unreaped, so that the number is still ours. 0 or -errno. */
int child_signal_group(const struct child *child, int signal);
void child_finish(struct child *child); /* closes the descriptors; does not reap */

/* "exited with status 3", "was killed by SIGSEGV (core dumped)". Returns `buffer`. */
const char *child_describe_status(int wait_status, char *buffer, size_t size);
/* 0 to 255 as a shell has it: the exit code, or 128 + signal. */
int child_exit_code(int wait_status);

#endif
