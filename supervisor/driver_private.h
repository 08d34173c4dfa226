/* SPDX-License-Identifier: MIT */
/* What the driver's files share: the supervisor's and each generation's run-time data. */
#ifndef HANDOFF_DRIVER_PRIVATE_H
#define HANDOFF_DRIVER_PRIVATE_H

#include <bsd/sys/queue.h>

#include "capture.h"
#include "child.h"
#include "control.h"
#include "driver.h"
#include "env.h"
#include "handoff.h"
#include "loop.h"
#include "process.h"
#include "ready.h"
#include "recipe.h"

/* A process that lived that long was healthy: its death is not one more in a row. */
#define DRIVER_HEALTHY_MS 10000
/* How long a failed start may still finish what it accepted. */
#define DRIVER_ABORT_MS 1000

struct generation;

/* One process of a generation: a group of its own. */
struct worker {
	struct generation *generation; /* who owns it */
	struct child child;            /* pid is 0 when it could not be spawned */
	struct env env;                /* what it was started with */
	struct env check_env;          /* the same for readiness commands; empty when there are none */
	struct child_plan check_plan;  /* points into check_env */
	struct ready *ready;           /* owned; NULL when it could not be spawned */
	struct loop_source *exit_source, *exec_source;
	pid_t main_pid;     /* by MAINPID=, else 0 */
	int main_pidfd;     /* of main_pid, so that the number cannot become a stranger's; -1 */
	bool exited;        /* the leader; it stays a zombie until the group is empty */
	int status;         /* as from waitpid(2), once exited */
	bool gone;          /* the whole group, and the leader is reaped */
	bool group_told;    /* the drain signal went to the whole group */
	bool told;          /* the drain signal went to it, by itself or with all of its generation */
	int64_t started_ms; /* CLOCK_MONOTONIC */
};

struct generation {
	TAILQ_ENTRY(generation) link; /* in driver.generations, oldest first */
	struct driver *driver;
	uint32_t number;
	uint32_t wish;           /* the machine's: whose hand-off it is; 0 for a signal's or our own */
	bool is_handoff;         /* somebody asked for it, while or because another one serves */
	struct worker **workers; /* owned, also each */
	size_t worker_count;
	char **argv;     /* owned: the command with its {fd} words replaced */
	char *directory; /* owned: where it runs */
	struct recipe
		*recipe; /* what it is started from, only until it is ready and settled, or has failed; borrowed */
	struct loop_source *ready_timer, *settle_timer, *drain_timer, *kill_timer, *worker_timer;
	int64_t started_ms, ready_ms, draining_ms; /* when, CLOCK_MONOTONIC; -1 before */
	const char *ready_by;                      /* static; NULL before */
	uint64_t ready_seen;                       /* listeners that it was seen waiting on; 0 unknown */
	int end_signal;   /* TERM or KILL once the whole of it was told; what turns up later gets it too */
	int stderr_fd;    /* --capture: the write end of its pipe, for workers that come later; owned; -1 */
	int exit_code;    /* what `run` exits with if this one is the reason */
	int left_with;    /* as a shell has it, where a failed start ended by an exit; else -1 */
	char reason[512]; /* why it cannot run, as far as known: exec's error, the protocol's */
};
TAILQ_HEAD(generation_list, generation);

/* A process that came to us because its parent died (we are a subreaper). */
struct orphan {
	pid_t pid;
	pid_t leader; /* of the worker that it belongs to; 0: could not be told */
};

/* A command line that a request brought. */
struct command_line {
	TAILQ_ENTRY(command_line) link; /* in driver.commands */
	uint32_t key;                   /* the machine's name for it */
	char **argv;                    /* owned */
};

/* How the last hand-off went, whoever asked for it. */
struct last_reload {
	uint32_t generation;
	const char *result; /* static; NULL before the first */
	char reason[512];
	int64_t duration_ms;
};

struct driver {
	const char *name;                   /* of the log lines and the control socket */
	const struct options *command_line; /* main's; what does not change at a hand-off is read here */
	struct recipe *recipe;              /* of the active generation; owned */
	struct recipe *next_recipe;         /* of the one that starts, where the config file was read again; owned */
	const struct options *options;      /* of `recipe` */
	struct listener_set *listeners;     /* of `recipe` */
	struct notify *notify;
	struct loop *loop;
	struct handoff machine;
	struct handoff_actions actions;
	struct handoff_event *queue; /* owned ring of events not yet stepped */
	size_t queue_head, queue_count, queue_capacity;
	bool pumping;
	struct generation_list generations;
	struct env base_env;     /* the start environment, cleaned */
	char *start_dir;         /* the logical working directory at start */
	uint64_t active_seen;    /* what the active generation was seen waiting on */
	bool own_word;           /* a generation said ready by itself: later ones must too */
	struct capture *capture; /* NULL without --capture */
	struct loop_source *signal_source, *restart_timer, *watchdog_timer, *paths_source, *progress_timer;
	int paths_fd;
	struct orphan *orphans;
	size_t orphan_count, orphan_capacity;
	struct process_list children; /* scratch */
	bool had_terminal;
	struct control *control;              /* NULL where there is no place for it */
	TAILQ_HEAD(asker_list, asker) askers; /* of hand-offs */
	struct asker_list stop_waiters;
	TAILQ_HEAD(, late_answer) late_answers;
	TAILQ_HEAD(, wish) wishes;
	TAILQ_HEAD(, command_line) commands;
	uint32_t last_key;
	struct command_line *kept;        /* a reload's, which became active; NULL: that of the options */
	struct command_line *kept_before; /* what was good before it; NULL: that of the options */
	struct einhorn *einhorn;          /* NULL without --compat einhorn */
	struct last_reload last_reload;
	uint64_t restarts, handoffs, failed_handoffs;
	int64_t started_ms; /* CLOCK_MONOTONIC */
	bool ever_active;   /* READY=1 was sent */
	int exit_code;      /* of the generation that is the reason for giving up */
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
uint32_t driver_spawn(struct driver *driver, const struct handoff_action *action);
/* Starts `count` more workers of a generation. Returns how many could not be started. */
uint32_t driver_spawn_more(struct generation *generation, uint32_t count);
void driver_release(struct generation *generation);
/* Looks whether leaders have exited, and tells the machine once: for places where an exit must win over what else is
 * known. */
void driver_check_exits(struct generation *generation);

/* Nobody asks any more whether it is ready. */
void driver_end_start(struct generation *generation);

/* driver_listen.c: which recipe counts, and the listeners that it names. */
struct handoff_config driver_machine_config(const struct options *options); /* in driver.c */
/* The generation is active: its recipe is the one that counts, and what that does not name is closed. */
void driver_use_recipe(struct generation *generation);
/* Its start is over without that. */
void driver_drop_recipe(struct generation *generation);
void driver_watch_paths(struct driver *driver);
/* A stop: all our copies. */
void driver_close_listeners(struct driver *driver);

/* driver_group.c: signals to what a generation consists of, and its end. */
void driver_drain(struct generation *generation);
void driver_drain_rest(struct generation *generation);
/* The oldest worker that has not been told yet. */
void driver_drain_one(struct generation *generation);
/* TERM or KILL to all of it, and to whatever of it turns up later. */
void driver_end(struct generation *generation, int signal);
void driver_forward(struct driver *driver, int signal);
/* Reaps orphans, gives new ones to their worker, and finds groups that have become empty. After every exit. */
void driver_reap(struct driver *driver);
/* How many connections it still has; -1 where that cannot be counted. */
int64_t driver_connections(struct generation *generation);
/* Whether anything of the worker lives on after its leader. */
bool driver_has_rest(struct worker *worker);

/* driver_control.c: who asked, and what they are told. */
void driver_on_request(void *data, uint32_t request, const cJSON *message);
void driver_join(struct driver *driver, const struct handoff_action *action);
void driver_answer(struct driver *driver, const struct handoff_action *action);
void driver_refuse(struct driver *driver, const struct handoff_action *action);
/* Ends all requests; `status` is what we exit with. */
void driver_control_finish(struct driver *driver, int status);
/* What a generation runs: what its request brought, else the last good command line; NULL: that one. */
char *const *driver_command(struct driver *driver, const struct generation *generation);
/* A kept command line of a reload does not start any more: back to the one before. False when there is none. */
bool driver_fall_back(struct driver *driver);
/* Somebody still waits for what this generation wrote to stderr. */
bool driver_lines_wanted(const struct driver *driver, uint32_t generation);
/* An event for those who wait for this generation's hand-off (of one that drains: for all who wait), and for all
 * subscribers. NULL where there are none: then nothing needs to be filled in, and sending NULL is fine. */
cJSON *driver_event_new(struct driver *driver, const char *kind, const struct generation *generation);
/* While somebody listens, those who drain are told of once a second. */
void driver_event_draining(struct generation *generation);
void driver_event_send(struct driver *driver, const struct generation *generation, cJSON *event);

/* driver_einhorn.c: --compat einhorn; nothing without it. */
int driver_einhorn_init(struct driver *driver, const struct control_place *place, struct error *error);
void driver_einhorn_finish(struct driver *driver);
/* For EINHORN_SOCK_PATH; NULL when there is none. */
const char *driver_einhorn_path(const struct driver *driver);

/* driver_report.c: what people and our manager read. */
void report_listeners(struct driver *driver);
/* Under a manager that stops with TERM: how to have a graceful stop. */
void report_manager_hint(struct driver *driver);
void report_spawned(struct generation *generation);
/* A worker exited, and the others go on. */
void report_lost(struct worker *worker);
/* stop-first: what is there drains before the next one starts. */
void report_emptying(struct driver *driver, bool asked);
void report_handing_off(struct driver *driver, struct generation *generation);
void report_ready(struct worker *worker, const char *why);
void report_active(struct driver *driver, struct generation *generation);
/* `generation` may be NULL: there was no room for one. */
void report_failed(struct driver *driver, struct generation *generation, enum handoff_failure failure);
void report_died(struct generation *generation);
void report_drain(struct worker *worker, const char *whom);
void report_kill(struct generation *generation, enum handoff_kill_reason why);
void report_gone(struct generation *generation);
void report_restarting(struct driver *driver, int64_t delay_ms);
void report_stopping(struct driver *driver);

#endif
