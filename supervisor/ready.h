/* SPDX-License-Identifier: MIT */
/* The readiness protocols of one starting process: pipe, notify, accepting, delay, exec, signal, now, auto.
 *
 * A struct ready lives from before the fork until the process is gone: after readiness it goes on reading the notify
 * socket and the pipe (STATUS=, STOPPING=1, MAINPID=), so that a server's writes never fail or block. */
#ifndef HANDOFF_READY_H
#define HANDOFF_READY_H

#include <sys/types.h>

#include "error.h"
#include "child.h"
#include "loop.h"
#include "accepting.h"

enum ready_kind {
	READY_AUTO,
	READY_PIPE,
	READY_NOTIFY,
	READY_ACCEPTING,
	READY_LISTEN, /* adoption only */
	READY_DELAY,
	READY_EXEC,
	READY_SIGNAL,
	READY_NOW,
};

struct ready_how {
	enum ready_kind kind;
	int64_t delay_ms; /* READY_DELAY */
	char *command;    /* READY_EXEC, owned */
};

/* Parses one `--ready HOW`: auto, pipe, notify, accepting, listen, delay:T, exec:CMD, signal, now. 0 or -EINVAL. */
int ready_how_parse(const char *text, struct ready_how *ret_how, struct error *error);
void ready_how_finish(struct ready_how *how);
const char *ready_kind_name(enum ready_kind kind);

/* What the driver hears. Called from the loop, never from inside ready_* calls. `by` is static ("pipe", "notify",
 * "accepting", "delay", "exec", "signal", "now"); `why` says more for the log ("READY=1 from pid 71", "cannot look into
 * pid 71 (another user): alive for 1s"), borrowed. on_ready comes at most once; on_failed at most once and never after
 * on_ready. After on_ready nothing times out. */
struct ready_handler {
	void (*on_ready)(void *data, const char *by, const char *why);
	void (*on_failed)(void *data, const char *reason); /* the pipe was closed without a newline */
	void (*on_status)(void *data, const char *text);   /* STATUS= or text before the newline, printable */
	void (*on_extend)(void *data, uint64_t usec);      /* EXTEND_TIMEOUT_USEC= while not ready */
	void (*on_stopping)(void *data);                   /* STOPPING=1 */
	void (*on_main_pid)(void *data, pid_t pid);        /* MAINPID= of a descendant */
	void (*on_note)(void *data,
			const char *text); /* worth a warning line: a foreign datagram, auto's fall-back … */
};

struct ready_options {
	const struct ready_how *hows; /* any one suffices; borrowed until ready_settle */
	size_t how_count;
	bool own_word_only;  /* auto: a generation of this command said ready by itself before, so guessing is off */
	const ino_t *inodes; /* socket inodes of the held stream listeners, borrowed; what `accepting` looks for */
	size_t inode_count;
	uint64_t wanted; /* bit i: inodes[i] must be waited on (all, or those that the active generation waits on) */
};

struct ready; /* heap */

/* Makes the pipe (where one is to be passed) and the notify socket (abstract, SO_PASSCRED, 128 random bits in its
 * name). 0 or -errno. */
int ready_create(struct loop *loop, const struct ready_options *options, const struct ready_handler *handler,
		 void *data, struct ready **ret_ready, struct error *error);
/* The write end for the child (owned by ready until ready_start), close-on-exec. */
int ready_pipe_fd(const struct ready *ready);
/* The value for NOTIFY_SOCKET ("@handoff/…"), borrowed. */
const char *ready_notify_socket(const struct ready *ready);

/* The process was forked: our copy of the write end closes, and the waiting begins. `check_plan` is how READY_EXEC runs
 * its command: argv is replaced by sh -c CMD, HANDOFF_PID is in its environment, no descriptors, quiet; borrowed for
 * the life of ready. */
int ready_start(struct ready *ready, const struct child *leader, const struct child_plan *check_plan);
/* exec succeeded: READY_NOW and the delays count from here. */
void ready_exec_done(struct ready *ready);
/* A signal TERM or USR1 came from `sender`: 1 if it was this process's (or its tree's) readiness (READY_SIGNAL is on
 * and it is still starting), so that it is no order to us; else 0. */
int ready_signal(struct ready *ready, pid_t sender);
/* The process said so on a way that is not this module's (einhorn's socket): counts as its own word, whatever --ready
 * asks for. */
void ready_acknowledge(struct ready *ready, const char *why);
/* What was seen waited on when it became ready by accepting; 0 when it was not asked. For the next generation's
 * `wanted`. */
uint64_t ready_seen(const struct ready *ready);
/* Whether the process itself spoke (a byte on the pipe, a datagram): later generations must too. */
bool ready_own_word(const struct ready *ready);
/* Why it is not ready yet, for the time-out message: "no newline on the ready pipe and no READY=1", "nobody waits on
 * 127.0.0.1:80 yet" … */
const char *ready_missing(const struct ready *ready, char *buffer, size_t size);
/* The start is over (ready or failed): looking, delays and readiness commands end; a running command is killed and
 * reaped. */
void ready_settle(struct ready *ready);
/* Whether this child of ours is a readiness command: the caller's reaper leaves it alone. */
bool ready_owns(const struct ready *ready, pid_t pid);
void ready_destroy(struct ready *ready);

#endif
