/* SPDX-License-Identifier: MIT */
/* What runs between fork and exec: system calls and plain memory only, nothing that allocates or locks. Used by child.c
 * and its test. */
#ifndef HANDOFF_CHILD_EXEC_H
#define HANDOFF_CHILD_EXEC_H

#include <stdnoreturn.h>
#include <sys/types.h>

#include "child.h"

/* The step that failed, as the child reports it. */
enum child_step {
	CHILD_STEP_GROUP,        /* setpgid */
	CHILD_STEP_PLACE,        /* putting a descriptor at its number; detail: that number */
	CHILD_STEP_CLOSE,        /* closing all others */
	CHILD_STEP_RLIMIT,       /* detail: index into the plan's rlimits */
	CHILD_STEP_GROUPS,       /* supplementary groups */
	CHILD_STEP_GID,          /* setresgid */
	CHILD_STEP_UID,          /* setresuid */
	CHILD_STEP_REGAIN,       /* the old credentials could be had back */
	CHILD_STEP_NO_NEW_PRIVS, /* prctl */
	CHILD_STEP_DEATH_SIGNAL, /* prctl */
	CHILD_STEP_CHDIR,
	CHILD_STEP_EXEC,
	CHILD_STEP_INTERPRETER, /* exec said ENOENT, but the file is there */
};

/* Goes through the exec pipe in one write, far below PIPE_BUF. */
struct child_report {
	enum child_step step;
	int error; /* errno */
	int detail;
};

/* Everything prepared before the fork. All memory is the parent's; the child works on its copy. */
struct child_exec {
	const struct child_plan *plan;
	char **candidates; /* paths to try, in order, NULL-terminated; owned */
	char *candidate_text;
	char **shell_argv; /* "/bin/sh", room for the path, the plan's arguments, NULL; owned */
	int *sources;      /* sources[t] is to be put at t; owned */
	int source_count;  /* 3 for the standard streams and the plan's fd_count */
	int report_fd;     /* write end of the exec pipe, close-on-exec */
	pid_t parent;      /* who forks */
};

/* In the child, with all signals blocked. Execs, or reports and exits with 126 or 127. */
noreturn void child_exec_run(struct child_exec *exec);

#endif
