/* SPDX-License-Identifier: MIT */
/* A model of everything outside the state machine: processes, timers, the driver's queue of events, and who asked what.
 *
 * It does the machine's actions as the driver would, and keeps its own books of what it was told, so that the
 * invariants compare two independent accounts. It is flat and holds no pointer to itself: it can be copied and
 * compared. */
#ifndef HANDOFF_SIM_WORLD_H
#define HANDOFF_SIM_WORLD_H

#include "handoff.h"

#define WORLD_WORKERS 4
/* Room for those that were replaced and are not gone yet. Where there is none left, a spawn fails. */
#define WORLD_SLOTS 10
#define WORLD_QUEUE 48
#define WORLD_REQUESTS 32

/* One worker's processes, as they are, whether or not the machine has been told. */
enum world_process {
	PROCESS_NONE, /* never there, or gone */
	PROCESS_ALIVE,
	PROCESS_READY, /* alive, and has said that it is ready */
	PROCESS_LEFT,  /* the leader has exited, others of its group may live */
};
/* Beside that, in the same byte: */
#define WORKER_TOLD 0x10U  /* told to drain */
#define WORKER_FRESH 0x20U /* it is not settled yet whether it could be spawned */

struct world_generation {
	uint32_t number;
	uint32_t wish;
	bool asked;
	uint8_t workers; /* that it is to have */
	uint8_t state;   /* enum handoff_generation_state, as told by the actions */
	uint8_t armed;   /* a bit for each enum handoff_timer; ABORT counts as KILL, as in the driver */
	uint8_t due;     /* the same, for those that expired and whose event still waits */
	uint8_t slots[WORLD_SLOTS];
	/* What the machine has been told, in workers. */
	uint8_t present, alive, ready;
	/* While it was active, since it last was as it should be: lost; told one by one to leave; and of these, those
	 * that have not left yet, and those where there was nobody to tell. */
	uint8_t lost, given, leaving, untold;
	bool drained;    /* the drain signal went to it */
	bool terminated; /* SIGTERM */
	bool killed;     /* SIGKILL */
	bool hangs;      /* only SIGKILL ends it; the random life's choice */
};

struct world_request {
	uint32_t number;
	uint32_t wish;
	uint32_t after; /* the newest generation when it arrived: what answers it is newer */
};

/* How one simulated world behaves, in percent unless named otherwise; drawn once a world by life_begin. */
struct world_mood {
	uint8_t deliver;       /* that a queued event is taken before anything else happens */
	uint8_t outside;       /* that somebody asks for something */
	uint8_t ready;         /* that a starting server says so, when looked at */
	uint8_t fail_spawn;    /* that a start cannot spawn all its workers */
	uint8_t fail_start;    /* that a starting server exits instead */
	uint8_t crash_permill; /* that a serving one exits, when looked at */
	uint8_t hang;          /* that a generation ignores the drain signal and SIGTERM */
	uint8_t gone;          /* that a group is found empty, when looked at */
	bool no_drain_timeout;
	bool vary;        /* a generation may have another number of workers than configured */
	uint16_t stop_of; /* one in so many things asked is a stop */
};

struct world {
	struct handoff machine;
	const struct handoff_tables *tables;
	uint64_t random;
	uint64_t events; /* delivered */
	struct world_mood mood;
	/* What happened so far. */
	bool started;
	bool stop_told; /* a stop or a kill was delivered */
	bool kill_told; /* a kill, or a stop after a stop */
	bool closed;    /* the listeners */
	bool exited;
	bool ever_active;
	bool restart_armed, restart_due;
	bool signal_pending; /* a signal was delivered and no start has followed it */
	uint32_t signals;    /* how many of them */
	uint32_t waiting_wish;
	bool emptying; /* a start has begun, but what is there ends first */
	bool begun_asked;
	uint32_t begun_wish;
	uint32_t next_workers; /* how many the next generation is to have; 0: as configured */
	uint32_t newest;       /* the generation spawned last */
	uint32_t failures;     /* consecutive */
	uint32_t last_request;
	uint32_t generation_count; /* oldest first */
	struct world_generation generations[HANDOFF_GENERATIONS];
	uint32_t request_count;
	struct world_request requests[WORLD_REQUESTS]; /* those without an answer */
	uint32_t queue_head, queue_count;
	struct handoff_event queue[WORLD_QUEUE];
};

/* A step, for those who judge it. */
struct world_step {
	const struct world *before; /* the event is still its queue's head */
	const struct world *after;  /* the actions are done */
	const struct handoff_event *event;
	const struct handoff_actions *actions;
};

void world_init(struct world *world, const struct handoff_tables *tables, const struct handoff_config *config);
/* As an assignment, but what is not in use is not copied; `to` is a world too, or all zero. */
void world_copy(struct world *to, const struct world *from);

struct world_generation *world_find(struct world *world, uint32_t number);
const struct world_generation *world_look(const struct world *world, uint32_t number);
enum world_process world_process(const struct world_generation *generation, uint32_t slot);
/* Alive, ready or not. */
bool world_lives(const struct world_generation *generation, uint32_t slot);
uint32_t world_count(const struct world_generation *generation, enum world_process process);
bool world_is_empty(const struct world_generation *generation);
/* By what the machine was told: alive and not told to leave. */
uint32_t world_serving(const struct world_generation *generation);
/* It is settled now that those who are there could be spawned. */
void world_settle_spawn(struct world_generation *generation);
uint32_t world_fresh(const struct world_generation *generation);

static inline uint8_t world_timer_bit(enum handoff_timer timer)
{
	return (uint8_t)(1U << (timer == HANDOFF_TIMER_ABORT ? HANDOFF_TIMER_KILL : timer));
}

/* Things that happen: each queues what the driver would. The caller sees to it that they are possible. */
void world_ask(struct world *world, enum handoff_event_kind kind); /* START, STOP, KILL, or RELOAD by signal */
void world_request(struct world *world, uint32_t key, uint32_t if_generation);
void world_spawn_failed(struct world *world, struct world_generation *generation, uint32_t count);
void world_ready(struct world *world, struct world_generation *generation, uint32_t slot);
void world_not_ready(struct world *world, struct world_generation *generation);
void world_exit(struct world *world, struct world_generation *generation, uint32_t slot, bool clean);
void world_gone(struct world *world, struct world_generation *generation, uint32_t slot);
void world_expire(struct world *world, struct world_generation *generation, enum handoff_timer timer);
void world_expire_restart(struct world *world);

/* Gives the machine the oldest queued event and does what it asks for. Fills in `step`, which points to `before`,
 * `actions` and the world. */
void world_deliver(struct world *world, struct world *before, struct handoff_actions *actions, struct world_step *step);

#endif
