/* SPDX-License-Identifier: MIT */
/* What /proc says of other processes: our direct children, the tree below one, group, parent, environment. */
#ifndef HANDOFF_PROCESS_H
#define HANDOFF_PROCESS_H

#include <sys/types.h>

#include "macro.h"

/* A growing list of pids, reusable between calls. */
struct process_list {
	pid_t *pids; /* owned */
	size_t count;
	size_t capacity;
};
void process_list_finish(struct process_list *list);

/* Our direct children, zombies included, among them orphans that came to us as a subreaper: from
 * /proc/thread-self/children (CONFIG_PROC_CHILDREN, Linux 4.2+), or by the parent field of every /proc/PID/stat where
 * that is missing. Complete as long as this process has one thread, since only we reap. 0 or -errno. */
int process_children(struct process_list *list);

/* `root` and everything below it (children of all its threads), breadth first; what exits meanwhile may be missing.
 * Same sources. 0, -ESRCH when there is no `root`, or -errno. */
int process_tree(pid_t root, struct process_list *list);

struct process_stat {
	pid_t parent, group, session;
	char state;          /* 'R', 'S', 'D', 'T', 'Z', … */
	uint64_t start_time; /* clock ticks since boot */
	char comm[17];
};
/* Reads /proc/PID/stat (robust against spaces and parentheses in the command name). 0, -ESRCH when there is no such
 * process, -errno. */
int process_stat(pid_t pid, struct process_stat *ret_stat);

/* Whether `pid` is `root` or below it, by its chain of parents. */
bool process_is_below(pid_t pid, pid_t root);

/* The value of a variable in the environment that `pid` was exec'd with (/proc/PID/environ), in `buffer`. 0, -ENOENT
 * when it is not set (a zombie has none), -EACCES / -EPERM when it may not be read, -ESRCH, -ERANGE when the buffer is
 * too small. */
int process_environ(pid_t pid, const char *name, char *buffer, size_t size);

#endif
