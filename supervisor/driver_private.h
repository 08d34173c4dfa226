/* SPDX-License-Identifier: MIT */
/* What the driver's files share: the supervisor's and each generation's run-time data. */
#ifndef HANDOFF_DRIVER_PRIVATE_H
#define HANDOFF_DRIVER_PRIVATE_H

#include <bsd/sys/queue.h>

#include "capture.h"
#include "child.h"
#include "driver.h"
#include "env.h"
#include "handoff.h"
#include "loop.h"
#include "process.h"
#include "ready.h"

#define DRIVER_HEALTHY_MS 10000
/* How long a failed start may still finish what it accepted. */
#define DRIVER_ABORT_MS 1000

struct generation;

/* One process of a generation: a group of its own. */
struct worker {
	struct generation *generation; /* whose array this is in */
	struct child child;            /* pid is 0 when it could not be spawned */
	struct env env;                /* what it was started with */
	struct env check_env;          /* the same for readiness commands; empty when there are none */
	struct child_plan check_plan;  /* points into check_env */
	struct ready *ready;           /* owned; NULL when it could not be spawned */
	struct loop_source *exit_source, *exec_source;
	pid_t main_pid;  /* by MAINPID=, else 0 */
	int main_pidfd;  /* of main_pid, so that the number cannot become a stranger's; -1 */
	bool exited;     /* the leader; it stays a zombie until the group is empty */
	int status;      /* as from waitpid(2), once exited */
	bool gone;       /* the whole group, and the leader is reaped */
	bool group_told; /* the drain signal went to the whole group */
};

struct generation {
	TAILQ_ENTRY(generation) link; /* in driver.generations, oldest first */
	struct driver *driver;
	uint32_t number;
	struct worker *workers; /* owned */
	size_t worker_count;
	char **argv;     /* owned: the command with its {fd} words replaced */
	char *directory; /* owned: where it runs */
	struct loop_source *ready_timer, *settle_timer, *drain_timer, *kill_timer;
	int64_t started_ms, ready_ms, draining_ms; /* when, CLOCK_MONOTONIC; -1 before */
	int64_t healthy_from_ms; /* a death after that is not one more in a row; -1 while it is not active */
	const char *ready_by;    /* static; NULL before */
	uint64_t ready_seen;     /* listeners that it was seen waiting on; 0 unknown */
	int end_signal;          /* TERM or KILL once the whole of it was told; what turns up later gets it too */
	int exit_code;           /* what `run` exits with if this one is the reason */
	char reason[512];        /* why it cannot run, as far as known: exec's error, the protocol's */
};
TAILQ_HEAD(generation_list, generation);

/* A process that came to us because its parent died (we are a subreaper). */
struct orphan {
	pid_t pid;
	pid_t leader; /* of the worker that it belongs to; 0: could not be told */
};

struct driver {
	const struct options *options;
	struct listener_set *listeners;
	bool listeners_closed;
	struct notify *notify;
	struct loop *loop;
	struct handoff machine;
	struct handoff_actions actions;
	struct handoff_event *queue; /* owned ring of events not yet stepped */
	size_t queue_head, queue_count, queue_capacity;
	bool pumping;
	struct generation_list generations;
	struct env base_env; /* the start environment, cleaned */
	char *start_dir;     /* the logical working directory at start */
	gid_t *groups;       /* supplementary groups of --user */
	size_t group_count;
	struct child_limits limits;
	char **listener_names;                 /* owned array; the names are the listeners' */
	ino_t *stream_inodes;                  /* of the held stream listeners */
	enum listener_path_state *path_states; /* owned array: as last seen, a restored one is fine */
	size_t stream_count;
	uint64_t active_seen;    /* what the active generation was seen waiting on */
	bool own_word;           /* a generation said ready by itself: later ones must too */
	struct capture *capture; /* NULL without --capture */
	struct loop_source *signal_source, *restart_timer, *watchdog_timer, *paths_source;
	int paths_fd;
	struct orphan *orphans;
	size_t orphan_count, orphan_capacity;
	struct process_list children; /* scratch */
	bool had_terminal;
	bool ever_active; /* READY=1 was sent */
	int exit_code;    /* of the generation that is the reason for giving up */
	bool done;
};

/* driver.c */
void driver_post(struct driver *driver, const struct handoff_event *event);
void driver_post_generation(struct generation *generation, enum handoff_event_kind kind);
/* Steps through all posted events and does what they ask for. Called at the end of every loop callback. */
void driver_pump(struct driver *driver);
struct generation *driver_find(struct driver *driver, uint32_t number);

/* driver_signal.c */
void driver_on_signal(struct loop_source *source, const struct signalfd_siginfo *info, void *data);
bool driver_has_terminal(void);

/* driver_spawn.c: from "start generation N" to running processes. */
/* Makes the generation and starts its workers. Returns how many could not be started (all, where the preparation
 * failed); `reason` and `exit_code` then say why. */
uint32_t driver_spawn(struct driver *driver, uint32_t number, uint32_t workers);
void driver_release(struct generation *generation);
/* Looks whether leaders have exited, and tells the machine once: for places where an exit must win over what else is
 * known. */
void driver_check_exits(struct generation *generation);

/* driver_group.c: signals to what a generation consists of, and its end. */
void driver_drain(struct generation *generation);
void driver_drain_rest(struct generation *generation);
/* TERM or KILL to all of it, and to whatever of it turns up later. */
void driver_end(struct generation *generation, int signal);
void driver_forward(struct driver *driver, int signal);
/* Reaps orphans, gives new ones to their worker, and finds groups that have become empty. After every exit. */
void driver_reap(struct driver *driver);
/* Whether anything of the worker lives on after its leader. */
bool driver_has_rest(struct worker *worker);

/* driver_report.c: what people and our manager read. */
void report_listeners(struct driver *driver);
/* Under a manager that stops with TERM: how to have a graceful stop. */
void report_manager_hint(struct driver *driver);
void report_spawned(struct generation *generation);
void report_handing_off(struct driver *driver, struct generation *generation);
void report_ready(struct generation *generation, const char *why);
void report_active(struct driver *driver, struct generation *generation);
/* `generation` may be NULL: there was no room for one. */
void report_failed(struct driver *driver, struct generation *generation, enum handoff_failure failure);
void report_died(struct generation *generation);
void report_drain(struct worker *worker, const char *whom);
void report_kill(struct generation *generation, enum handoff_kill_reason why);
void report_gone(struct generation *generation);
void report_stopping(struct driver *driver);

#endif
