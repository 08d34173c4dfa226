/* SPDX-License-Identifier: MIT */
/* The pure state machine: tables of small handlers over the supervisor's state and each generation's state. */
#include "handoff_private.h"

#include <assert.h>
#include <string.h>

static void unmoved(struct handoff_step *step)
{
	(void)step;
}

static void ignored(struct handoff_step *step, struct handoff_generation *generation)
{
	(void)step;
	(void)generation;
}

/* ---- the tables ---- */

/* clang-format off */
#define IN(state_, start_, reload_, stop_, kill_, restart_due_) \
	[state_] = {[HANDOFF_START] = start_, [HANDOFF_RELOAD] = reload_, [HANDOFF_STOP] = stop_, \
	            [HANDOFF_KILL] = kill_, [HANDOFF_RESTART_DUE] = restart_due_}
#define ON(event_, starting_, settling_, active_, draining_, failing_) \
	[GENERATION_STARTING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = starting_, \
	[GENERATION_SETTLING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = settling_, \
	[GENERATION_ACTIVE][(event_) - HANDOFF_SUPERVISOR_EVENTS] = active_, \
	[GENERATION_DRAINING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = draining_, \
	[GENERATION_FAILING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = failing_

const struct handoff_tables handoff_tables = {
	.supervisor = {
		/* state              START                     RELOAD                             STOP                           KILL                              RESTART_DUE */
		IN(HANDOFF_NEW,       handoff_supervisor_start, handoff_supervisor_refuse,         handoff_supervisor_stop,       handoff_supervisor_kill,          unmoved),
		IN(HANDOFF_STARTING,  unmoved,                  handoff_supervisor_queue,          handoff_supervisor_stop,       handoff_supervisor_kill,          unmoved),
		IN(HANDOFF_RUNNING,   unmoved,                  handoff_supervisor_reload,         handoff_supervisor_stop,       handoff_supervisor_kill,          unmoved),
		IN(HANDOFF_REPLACING, unmoved,                  handoff_supervisor_queue,          handoff_supervisor_stop,       handoff_supervisor_kill,          unmoved),
		IN(HANDOFF_WAITING,   unmoved,                  handoff_supervisor_reload_waiting, handoff_supervisor_stop,       handoff_supervisor_kill,          handoff_supervisor_restart),
		IN(HANDOFF_EMPTYING,  unmoved,                  handoff_supervisor_queue,          handoff_supervisor_stop,       handoff_supervisor_kill,          unmoved),
		IN(HANDOFF_STOPPING,  unmoved,                  handoff_supervisor_refuse,         handoff_supervisor_stop_again, handoff_supervisor_kill_stopping, unmoved),
		IN(HANDOFF_KILLING,   unmoved,                  handoff_supervisor_refuse,         unmoved,                       unmoved,                          unmoved),
		IN(HANDOFF_DONE,      unmoved,                  handoff_supervisor_refuse,         unmoved,                       unmoved,                          unmoved),
	},
	.generation = {
		/* event                 STARTING                       SETTLING                  ACTIVE                       DRAINING                     FAILING */
		/* Ready twice is ready; and a stop may come while it starts. */
		ON(HANDOFF_READY,        handoff_starting_ready,        ignored,                  ignored,                     ignored,                     ignored),
		/* The protocol cannot fail after it has succeeded. */
		ON(HANDOFF_NOT_READY,    handoff_starting_not_ready,    ignored,                  ignored,                     ignored,                     ignored),
		ON(HANDOFF_SPAWN_FAILED, handoff_starting_spawn_failed, ignored,                  handoff_active_spawn_failed, handoff_ending_spawn_failed, handoff_ending_spawn_failed),
		ON(HANDOFF_EXITED,       handoff_starting_exited,       handoff_settling_exited,  handoff_active_exited,       handoff_ending_exited,       handoff_ending_exited),
		ON(HANDOFF_LEFT,         handoff_starting_exited,       handoff_settling_exited,  handoff_active_left,         handoff_ending_exited,       handoff_ending_exited),
		/* Before the end of a start or a settling comes an exit, which moves the generation on. None that starts or
		 * settles is told to drain. */
		ON(HANDOFF_GONE,         ignored,                       ignored,                  handoff_active_gone,         handoff_ending_gone,         handoff_ending_gone),
		ON(HANDOFF_READY_DUE,    handoff_starting_timeout,      ignored,                  ignored,                     ignored,                     ignored),
		ON(HANDOFF_SETTLE_DUE,   ignored,                       handoff_settling_settled, ignored,                     ignored,                     ignored),
		ON(HANDOFF_DRAIN_DUE,    ignored,                       ignored,                  ignored,                     handoff_draining_drain_due,  ignored),
		ON(HANDOFF_KILL_DUE,     ignored,                       ignored,                  ignored,                     handoff_ending_kill_due,     handoff_ending_kill_due),
		ON(HANDOFF_HEALTHY_DUE,  ignored,                       ignored,                  handoff_active_healthy,      ignored,                     ignored),
		ON(HANDOFF_WORKER_DUE,   ignored,                       ignored,                  handoff_active_worker_due,   ignored,                     ignored),
	},
};
/* clang-format on */

/* ---- outside ---- */

void handoff_init(struct handoff *machine, const struct handoff_config *config)
{
	assert(config->max_draining >= 1 && config->workers >= 1);
	memset(machine, 0, sizeof(*machine));
	machine->config = *config;
}

uint32_t handoff_set_workers(struct handoff *machine, uint32_t number, uint32_t workers)
{
	struct handoff_generation *generation = handoff_list_number(machine, number);
	assert(generation && generation->state == GENERATION_STARTING && workers >= 1);
	generation->target = generation->workers = workers;
	return generation->present = generation->alive = handoff_first_batch(machine, workers);
}

void handoff_step_with(const struct handoff_tables *tables, struct handoff *machine, const struct handoff_event *event,
		       struct handoff_actions *actions)
{
	struct handoff_step step = {.machine = machine, .event = event, .actions = actions};
	actions->count = 0;
	if (event->kind < HANDOFF_SUPERVISOR_EVENTS) {
		tables->supervisor[machine->state][event->kind](&step);
		return;
	}
	struct handoff_generation *generation = handoff_list_number(machine, event->generation);
	/* A late event of one that is gone. */
	if (!generation)
		return;
	tables->generation[generation->state][event->kind - HANDOFF_SUPERVISOR_EVENTS](&step, generation);
}

void handoff_step(struct handoff *machine, const struct handoff_event *event, struct handoff_actions *actions)
{
	handoff_step_with(&handoff_tables, machine, event, actions);
}
