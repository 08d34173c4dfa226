/* SPDX-License-Identifier: MIT */
/* The pure state machine: which generation serves, which starts, which drains, and who gets which answer.
 *
 * No I/O, no clock, no allocation. The struct is flat: it can be copied, compared and hashed, so that millions of event
 * orders can be simulated and every reachable state enumerated. It holds no pid, no descriptor and no time: the driver
 * maps generation numbers to processes and timer names to durations. docs/state-machine.md draws it. */
#ifndef HANDOFF_HANDOFF_H
#define HANDOFF_HANDOFF_H

#include "macro.h"

/* Room for the 64 generations that --max-draining allows, an active, a starting one, and some that failed but whose
 * processes the kernel has not let go yet. With no room left a hand-off fails; it never waits. */
#define HANDOFF_GENERATIONS 72

/* Back-off doubles at most this often; the driver caps the delay long before. */
#define HANDOFF_EXPONENT_MAX 16

enum handoff_state {
	HANDOFF_NEW,       /* before HANDOFF_START */
	HANDOFF_STARTING,  /* nobody serves; one generation starts or settles */
	HANDOFF_RUNNING,   /* one generation is active, none starts */
	HANDOFF_REPLACING, /* one is active, another starts or settles */
	HANDOFF_WAITING,   /* nobody serves; the restart timer runs (back-off) */
	HANDOFF_EMPTYING,  /* stop-first: what is there drains; the next one starts when it is gone */
	HANDOFF_STOPPING,  /* final: all drain, then exit */
	HANDOFF_KILLING,   /* final: all were told to end at once, then exit */
	HANDOFF_DONE,
	HANDOFF_STATES,
};

enum handoff_generation_state {
	GENERATION_STARTING,
	GENERATION_SETTLING,
	GENERATION_ACTIVE,
	GENERATION_DRAINING,
	GENERATION_FAILING, /* its start failed; it was told to end and is killed soon; status does not list it */
	GENERATION_STATES,
};

enum handoff_restart { HANDOFF_RESTART_ALWAYS, HANDOFF_RESTART_ON_FAILURE, HANDOFF_RESTART_NEVER };

struct handoff_config {
	enum handoff_restart restart;
	uint32_t max_restarts; /* consecutive failures, then give up; 0 is no bound */
	uint32_t max_draining; /* at least 1 */
	uint32_t workers;      /* processes a generation, at least 1 */
	bool stop_first;       /* nothing starts while a generation is there */
	bool rolling;          /* a new generation takes over worker by worker */
};

struct handoff_generation {
	uint32_t number; /* from 1, never used again */
	uint32_t wish;   /* the wish that it answers; 0 for a start or restart of our own, or one by a signal */
	enum handoff_generation_state state;
	uint32_t workers; /* that it was made for */
	uint32_t target;  /* … and is to have now: in a rolling hand-off the old one gives them up one by one */
	uint32_t present; /* workers whose processes are not all gone; also those that have been replaced */
	uint32_t alive;   /* workers whose main process has not exited */
	uint32_t leaving; /* of these, while active: told to drain by HANDOFF_DO_DRAIN_ONE; they serve nobody new */
	uint32_t ready;
	uint32_t losses; /* workers lost in a row while active, for their back-off */
	bool asked;      /* somebody asked for it, by a wish or a signal */
	bool terminated; /* SIGTERM went to its groups */
	bool killed;     /* SIGKILL went to its groups */
};

/* What was asked and waits for its turn. Requests that ask for the same share one wish. */
struct handoff_wish {
	uint32_t id;            /* 0: none */
	uint32_t key;           /* what is asked for, by the driver's numbering: equal keys are the same request */
	uint32_t if_generation; /* 0: whatever; else only if that generation is the active one when it would start */
};

enum handoff_exit {
	HANDOFF_EXIT_NONE,
	HANDOFF_EXIT_STOPPED,      /* a stop was asked; see `forced` */
	HANDOFF_EXIT_CLEAN,        /* the active generation exited 0 and the policy does not restart it */
	HANDOFF_EXIT_GAVE_UP,      /* the policy gives up: with the status of the generation that died last */
	HANDOFF_EXIT_FIRST_FAILED, /* the first start failed: with its status */
};

struct handoff {
	struct handoff_config config;
	enum handoff_state state;
	uint32_t last_number; /* the newest generation's number */
	uint32_t last_active; /* the active generation, or the one that was active last; 0 before any */
	uint32_t last_wish;
	uint32_t failures;   /* consecutive, since the last time a generation was healthy */
	bool begun_asked;    /* HANDOFF_EMPTYING: what is to start was asked for */
	uint32_t begun_wish; /* … by this wish; 0 by a signal or nobody */
	bool signalled;      /* a hand-off was asked by signal and has not begun: a level, not a count */
	bool stop_asked;
	bool forced; /* after a stop was asked, something had to be killed at a timeout */
	enum handoff_exit exit;
	struct handoff_wish waiting;
	uint32_t generation_count; /* the used part of the array, oldest first */
	struct handoff_generation generations[HANDOFF_GENERATIONS];
};

enum handoff_event_kind {
	/* To the supervisor. */
	HANDOFF_START,  /* once, first */
	HANDOFF_RELOAD, /* request (0: a signal), key, if_generation */
	HANDOFF_STOP,   /* graceful; a second one is HANDOFF_KILL */
	HANDOFF_KILL,
	HANDOFF_RESTART_DUE, /* HANDOFF_TIMER_RESTART expired */
	HANDOFF_SUPERVISOR_EVENTS,
	/* To a generation; one that is not there any more is ignored. */
	HANDOFF_READY = HANDOFF_SUPERVISOR_EVENTS, /* one worker said so */
	HANDOFF_NOT_READY,                         /* the readiness protocol failed for good */
	HANDOFF_SPAWN_FAILED,                      /* `count` workers could not be spawned: they never were there */
	HANDOFF_EXITED,                            /* the main process of one worker exited; `clean`: with status 0 */
	HANDOFF_LEFT,                              /* the same of one that was told to drain */
	HANDOFF_GONE,                              /* no process of one worker is left; after its exit */
	HANDOFF_READY_DUE,                         /* timers expired */
	HANDOFF_SETTLE_DUE,
	HANDOFF_DRAIN_DUE,
	HANDOFF_KILL_DUE,
	HANDOFF_HEALTHY_DUE,
	HANDOFF_WORKER_DUE,
	HANDOFF_EVENTS,
};
#define HANDOFF_GENERATION_EVENTS (HANDOFF_EVENTS - HANDOFF_SUPERVISOR_EVENTS)

struct handoff_event {
	enum handoff_event_kind kind;
	uint32_t generation;    /* events to a generation */
	uint32_t count;         /* HANDOFF_SPAWN_FAILED */
	bool clean;             /* HANDOFF_EXITED */
	uint32_t request;       /* HANDOFF_RELOAD: the driver's number for who asked, 0 for a signal */
	uint32_t key;           /* HANDOFF_RELOAD */
	uint32_t if_generation; /* HANDOFF_RELOAD */
};

enum handoff_timer {
	HANDOFF_TIMER_READY,   /* a generation's; --ready-timeout */
	HANDOFF_TIMER_SETTLE,  /* a generation's; --settle */
	HANDOFF_TIMER_DRAIN,   /* a generation's; --drain-timeout */
	HANDOFF_TIMER_KILL,    /* a generation's; --kill-timeout; expires as HANDOFF_KILL_DUE */
	HANDOFF_TIMER_ABORT,   /* the same timer, with the short grace of a failed start */
	HANDOFF_TIMER_HEALTHY, /* a generation's; how long until the back-off is reset */
	HANDOFF_TIMER_WORKER,  /* a generation's; until a lost worker is replaced; delay as for RESTART */
	HANDOFF_TIMER_RESTART, /* the supervisor's; --restart-delay doubled `exponent` times */
};

enum handoff_result {
	HANDOFF_RESULT_OK,     /* `generation` is active */
	HANDOFF_RESULT_FAILED, /* `generation` failed to start (0: it could not even be tried) */
	HANDOFF_RESULT_REFUSED_STOPPING,
	HANDOFF_RESULT_REFUSED_GENERATION, /* another generation than asked for is active */
	HANDOFF_RESULT_SUPERSEDED,         /* a newer, different request took its place in the queue */
};

enum handoff_failure {
	HANDOFF_FAILURE_NONE,
	HANDOFF_FAILURE_EXITED,    /* a worker's main process exited before it was ready */
	HANDOFF_FAILURE_UNSETTLED, /* … or after it was ready, within the settling time */
	HANDOFF_FAILURE_TIMEOUT,   /* not ready in time */
	HANDOFF_FAILURE_PROTOCOL,  /* HANDOFF_NOT_READY */
	HANDOFF_FAILURE_SPAWN,     /* HANDOFF_SPAWN_FAILED */
	HANDOFF_FAILURE_NO_ROOM,   /* HANDOFF_GENERATIONS are still there */
};

enum handoff_action_kind {
	HANDOFF_DO_SPAWN,      /* generation, count workers, wish: its command (0: the last good one), asked */
	HANDOFF_DO_SPAWN_MORE, /* generation, count further workers of it */
	HANDOFF_DO_EMPTY,      /* stop-first: a hand-off has begun, and what is there drains first */
	HANDOFF_DO_ACTIVATE,   /* generation: new connections are for it */
	HANDOFF_DO_FAIL,       /* generation, failure: say why */
	HANDOFF_DO_DIED,       /* generation: the active one died unasked */
	HANDOFF_DO_DRAIN,      /* generation: the drain signal, by --drain-to */
	HANDOFF_DO_DRAIN_ONE,  /* generation: the drain signal to its oldest living worker that has not had it */
	HANDOFF_DO_DRAIN_REST, /* generation: a main process exited; what is left of its group gets the signal once */
	HANDOFF_DO_TERMINATE,  /* generation: SIGTERM to its groups */
	HANDOFF_DO_KILL,       /* generation, why: SIGKILL to its groups */
	HANDOFF_DO_RELEASE,    /* generation: gone; forget it */
	HANDOFF_DO_TIMER_SET,  /* timer, generation, exponent */
	HANDOFF_DO_TIMER_STOP, /* timer, generation */
	HANDOFF_DO_CLOSE_LISTENERS,
	HANDOFF_DO_JOIN,   /* request waits for the answer to wish */
	HANDOFF_DO_ANSWER, /* all that joined wish: result, generation, failure */
	HANDOFF_DO_REFUSE, /* request, result: at once, it joined nothing */
	HANDOFF_DO_EXIT,   /* the machine is done: see `exit` and `forced` */
};

enum handoff_kill_reason { HANDOFF_KILL_DRAIN_TIMEOUT, HANDOFF_KILL_TIMEOUT, HANDOFF_KILL_MAX_DRAINING };

struct handoff_action {
	enum handoff_action_kind kind;
	uint32_t generation;
	uint32_t wish;
	uint32_t request;
	uint32_t count;
	uint32_t exponent;
	bool asked; /* a hand-off that somebody asked for; else our own start or restart */
	enum handoff_timer timer;
	enum handoff_result result;
	enum handoff_failure failure;
	enum handoff_kill_reason why;
};

/* A stop may touch every generation thrice. */
#define HANDOFF_ACTIONS (3 * HANDOFF_GENERATIONS + 16)

struct handoff_actions {
	struct handoff_action items[HANDOFF_ACTIONS];
	uint32_t count;
};

/* Puts the machine into HANDOFF_NEW. */
void handoff_init(struct handoff *machine, const struct handoff_config *config);

/* Takes one event; `actions` is emptied first, then holds what is to be done, in order. The caller finishes all of it
 * before the next step; what happens meanwhile is queued as later events. */
void handoff_step(struct handoff *machine, const struct handoff_event *event, struct handoff_actions *actions);

/* How many workers a generation is to have, where that is known only once its configuration was read: while it performs
 * HANDOFF_DO_SPAWN, before any further step. Returns how many are to be spawned now (one, in a rolling hand-off). */
uint32_t handoff_set_workers(struct handoff *machine, uint32_t number, uint32_t workers);

/* The generation that new connections are for, or NULL. */
const struct handoff_generation *handoff_active(const struct handoff *machine);
/* The one that starts or settles, or NULL. */
const struct handoff_generation *handoff_starting(const struct handoff *machine);
const struct handoff_generation *handoff_find(const struct handoff *machine, uint32_t number);

const char *handoff_event_name(enum handoff_event_kind kind);

/* A step in progress: what the handlers in the tables get. */
struct handoff_step {
	struct handoff *machine;
	const struct handoff_event *event;
	struct handoff_actions *actions;
};
typedef void (*handoff_supervisor_fn)(struct handoff_step *step);
typedef void (*handoff_generation_fn)(struct handoff_step *step, struct handoff_generation *generation);
struct handoff_tables {
	handoff_supervisor_fn supervisor[HANDOFF_STATES][HANDOFF_SUPERVISOR_EVENTS];
	handoff_generation_fn generation[GENERATION_STATES][HANDOFF_GENERATION_EVENTS];
};

/* What handoff_step runs. A test checks that no cell is empty. */
extern const struct handoff_tables handoff_tables;

/* handoff_step with other tables: a simulator proves that each of its invariants can fire by changing one cell. */
void handoff_step_with(const struct handoff_tables *tables, struct handoff *machine, const struct handoff_event *event,
		       struct handoff_actions *actions);

#endif
