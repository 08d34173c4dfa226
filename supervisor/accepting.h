/* SPDX-License-Identifier: MIT */
/* Readiness seen from outside: are tasks of a generation blocked in a wait that includes the held listeners?
 *
 * Sources, all in proc(5): /proc/PID/fd/N ("socket:[INO]"), /proc/PID/fdinfo/N of an epoll descriptor (a "tfd:" line
 * with "ino:" in hex for each registered file, Linux 3.8+, ino 4.13+), /proc/PID/task/TID/syscall (number and arguments
 * of the call that a task is blocked in), process_vm_readv(2) for the arrays behind poll and select. All need
 * PTRACE_MODE_ATTACH or _READ access: same uid and dumpable, or CAP_SYS_PTRACE.
 *
 * A server that is saturated from its first moment (connections waited in the queue for it) is never seen blocked. What
 * it has accepted proves the same: every few looks the connections that it holds are looked for (pidfd_getfd(2)). */
#ifndef HANDOFF_ACCEPTING_H
#define HANDOFF_ACCEPTING_H

#include <sys/types.h>

#include "macro.h"

/* At most this many listeners are looked for (a bit each). */
#define ACCEPTING_MAX 64
/* At most this many idle tasks are remembered between looks. */
#define ACCEPTING_IDLE_MAX 64

enum accepting_verdict {
	ACCEPTING_NOT_YET,
	ACCEPTING_YES,        /* every wanted listener was seen waited on */
	ACCEPTING_UNREADABLE, /* a process could not be read: another uid without CAP_SYS_PTRACE, non-dumpable, 32-bit
			       */
	ACCEPTING_URING,      /* a process has an io_uring and nothing else waits: no descriptor shows there */
};

/* A task that was blocked on an epoll which has a held listener. */
struct accepting_idle {
	pid_t tid;
	int epoll_fd; /* in that task's descriptor table */
};

/* State between looks at one generation. */
struct accepting {
	const ino_t *inodes; /* socket inodes of the held stream listeners, borrowed */
	size_t count;
	uint64_t wanted; /* bit i: inodes[i] must be waited on */
	uint64_t seen;   /* what the looks so far saw waited on; it only grows, because a busy server's tasks are seldom
			    all blocked in the same instant. An epoll counts when the same task was blocked on it in
			    two looks in a row. A connection held from a listener counts too */
	struct accepting_idle idle[ACCEPTING_IDLE_MAX]; /* at the last look */
	size_t idle_count;
	unsigned looks;
	pid_t uring_pid;         /* which process waits through io_uring, for the message; 0 */
	pid_t unreadable_pid;    /* which process, for the message; 0 */
	char unreadable_why[64]; /* "another user", "another group", "not dumpable", "32-bit", … */
};

/* `wanted` 0 means all. Inodes beyond ACCEPTING_MAX are left out. */
void accepting_init(struct accepting *accepting, const ino_t *inodes, size_t count, uint64_t wanted);

/* One look at all `pids` (the generation's processes). Never blocks, never stops them. A process that exits under the
 * look is left out. UNREADABLE and URING are told only where the readable processes do not already make it YES. */
enum accepting_verdict accepting_look(struct accepting *accepting, const pid_t *pids, size_t count);

#endif
