/* SPDX-License-Identifier: MIT */
/* What the parts of the ready module share: the struct itself, the datagram parser, the readiness commands. */
#ifndef HANDOFF_READY_PRIVATE_H
#define HANDOFF_READY_PRIVATE_H

#include "process.h"
#include "ready.h"

/* Text before the newline that is kept; the rest is drained. */
#define READY_TEXT_MAX 1024
/* A longer datagram is no message of ours (systemd's own limit is the same: NOTIFY_BUFFER_MAX). */
#define READY_DATAGRAM_MAX 4096
/* Room for a sentence that goes to a handler. */
#define READY_WHY_ROOM 256

/* One READY_EXEC: its command, and the run of it that is going on. */
struct ready_exec {
	struct ready *ready; /* the owner of this */
	const char *command; /* borrowed from the how */
	struct loop_source *timer, *exit_source;
	struct child child; /* running while its pid is not 0 */
	int64_t started_ms;
	bool noted; /* a command that cannot be run is noted once */
};

struct ready {
	struct loop *loop;
	struct ready_options options;
	struct ready_handler handler;
	void *data;
	const struct child_plan *check_plan; /* borrowed; NULL before the start and where none was given */
	pid_t leader;                        /* 0 before the start; not ours to reap */

	int pipe_read, pipe_write, notify_fd; /* owned; -1 once closed */
	char notify_name[48];                 /* "@handoff/…" */
	struct loop_source *pipe_source, *notify_source;

	/* All of them go when it is ready or settled. `guess` looks, or is the delay where there is nothing to look
	 * for; `verdict` carries what ready_* calls decided to a callback of its own; `closed` waits for the exit that
	 * explains an end-of-file. */
	struct loop_source *guess, *delay, *verdict, *closed;
	const char *verdict_by; /* static */
	char verdict_why[64];

	struct ready_exec *execs; /* one for each READY_EXEC */
	size_t exec_count;

	struct accepting accepting;
	enum accepting_verdict last_look;
	struct process_list processes;
	int64_t exec_done_ms;
	unsigned look_count;

	char text[READY_TEXT_MAX]; /* what came before the newline */
	size_t text_length;
	bool newline_seen;

	bool spoke_on_pipe, spoke_by_datagram; /* its own word */
	bool is_ready, has_failed, is_settled;
	bool seen_accepting; /* ready by it */
	bool noted_foreign, noted_bad, noted_main_pid, noted_unreadable;

	/* A handler may destroy us: what called it holds the memory until it returns. */
	unsigned holds;
	bool is_destroyed;
};

void ready_hold(struct ready *ready);
void ready_release(struct ready *ready);

/* Whether it is still to be decided: started, neither ready nor failed nor settled. */
bool ready_is_open(const struct ready *ready);
bool ready_has_how(const struct ready *ready, enum ready_kind kind);
/* Tells the handler, if it still is open. `why` is borrowed for the call. */
void ready_become(struct ready *ready, const char *by, const char *why);
/* Tells the handler once for each `already` flag, which is set (NULL: each time). */
void ready_note(struct ready *ready, bool *already, const char *format, ...) PRINTF_LIKE(3, 4);
/* It spoke for itself: guessing ends. */
void ready_spoke(struct ready *ready, bool *which);

/* What one datagram says; the texts point into it. */
struct ready_message {
	bool ready, stopping;
	const char *status; /* not terminated; NULL when there is none */
	size_t status_length;
	bool has_extend;
	uint64_t extend_usec;
	bool has_main_pid;
	pid_t main_pid; /* 0 when it is no pid */
};

/* Parses lines of NAME=VALUE, as sd_notify(3) has them: unknown names are left alone, a name that comes twice counts as
 * it came last. 0, or -EBADMSG when it is no text. */
int ready_message_parse(const char *text, size_t length, struct ready_message *ret_message);

/* Makes and binds the notify socket. 0 or -errno with a sentence. */
int ready_notify_open(struct ready *ready, struct error *error);
/* Begins to watch it. 0 or -errno. */
int ready_notify_watch(struct ready *ready);

/* Prepares one runner a READY_EXEC. 0 or -errno. */
int ready_exec_prepare(struct ready *ready);
/* The first run comes in the next round of the loop. */
void ready_exec_begin(struct ready *ready);
/* Kills what runs, and reaps it if it dies within a moment; else the loop reaps it later. */
void ready_exec_end(struct ready *ready);
/* Ends watching what has not died yet; it is then anybody's to reap. */
void ready_exec_finish(struct ready *ready);

#endif
