/* SPDX-License-Identifier: MIT */
/* How generations end, one by one or all together: draining, stops, kills, and the release of what is left. */
#include "handoff_private.h"

#include <assert.h>
#include <string.h>

static void done_when_empty(struct handoff_step *step)
{
	if (step->machine->generation_count > 0)
		return;
	step->machine->state = HANDOFF_DONE;
	handoff_act(step, HANDOFF_DO_EXIT);
}

static void kill_generation(struct handoff_step *step, struct handoff_generation *generation,
			    enum handoff_kill_reason why)
{
	generation->killed = true;
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_KILL);
	action->generation = generation->number;
	action->why = why;
}

/* ---- draining ---- */

void handoff_drain(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_timer_stop(step, HANDOFF_TIMER_SETTLE, generation->number);
	handoff_timer_stop(step, HANDOFF_TIMER_HEALTHY, generation->number);
	handoff_timer_stop(step, HANDOFF_TIMER_WORKER, generation->number);
	generation->state = GENERATION_DRAINING;
	handoff_act_on(step, HANDOFF_DO_DRAIN, generation->number);
	handoff_timer_set(step, HANDOFF_TIMER_DRAIN, generation->number);
}

/* One that has not begun to serve gets the same signal, but no more time than an immediate stop gives. */
static void drain_unready(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_timer_stop(step, HANDOFF_TIMER_READY, generation->number);
	generation->state = GENERATION_DRAINING;
	handoff_act_on(step, HANDOFF_DO_DRAIN, generation->number);
	handoff_timer_set(step, HANDOFF_TIMER_KILL, generation->number);
}

void handoff_drain_all(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		struct handoff_generation *generation = &machine->generations[i];
		if (generation->state == GENERATION_STARTING)
			drain_unready(step, generation);
		else if (generation->state == GENERATION_SETTLING || generation->state == GENERATION_ACTIVE)
			handoff_drain(step, generation);
	}
}

void handoff_enforce_max_draining(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	uint32_t draining = 0;
	for (uint32_t i = machine->generation_count; i-- > 0;) {
		struct handoff_generation *generation = &machine->generations[i];
		if (generation->state != GENERATION_DRAINING || generation->killed)
			continue;
		if (++draining > machine->config.max_draining)
			kill_generation(step, generation, HANDOFF_KILL_MAX_DRAINING);
	}
}

/* ---- the end of all ---- */

static void terminate(struct handoff_step *step, struct handoff_generation *generation)
{
	generation->terminated = true;
	handoff_act_on(step, HANDOFF_DO_TERMINATE, generation->number);
	/* A failed start keeps its own, shorter, deadline. */
	if (generation->state == GENERATION_FAILING)
		return;
	/* One timer each, not all: HANDOFF_ACTIONS has room for three actions a generation. */
	static const enum handoff_timer running[GENERATION_STATES] = {[GENERATION_STARTING] = HANDOFF_TIMER_READY,
								      [GENERATION_SETTLING] = HANDOFF_TIMER_SETTLE,
								      [GENERATION_ACTIVE] = HANDOFF_TIMER_HEALTHY,
								      [GENERATION_DRAINING] = HANDOFF_TIMER_DRAIN};
	handoff_timer_stop(step, running[generation->state], generation->number);
	if (generation->state == GENERATION_ACTIVE)
		handoff_timer_stop(step, HANDOFF_TIMER_WORKER, generation->number);
	generation->state = GENERATION_DRAINING;
	handoff_timer_set(step, HANDOFF_TIMER_KILL, generation->number);
}

static void terminate_all(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	machine->state = HANDOFF_KILLING;
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (!machine->generations[i].killed)
			terminate(step, &machine->generations[i]);
}

/* From here on nothing starts any more. The listeners go first, so that connects are refused as soon as the servers
 * close theirs, instead of left in a queue that nobody reads. */
static void begin_end(struct handoff_step *step, enum handoff_exit reason)
{
	struct handoff *machine = step->machine;
	if (machine->state == HANDOFF_WAITING)
		handoff_timer_stop(step, HANDOFF_TIMER_RESTART, 0);
	machine->state = HANDOFF_STOPPING;
	machine->exit = reason;
	handoff_act(step, HANDOFF_DO_CLOSE_LISTENERS);
	handoff_answer(step, machine->waiting.id, HANDOFF_RESULT_REFUSED_STOPPING, 0, HANDOFF_FAILURE_NONE);
	memset(&machine->waiting, 0, sizeof(machine->waiting));
	handoff_answer(step, machine->begun_wish, HANDOFF_RESULT_REFUSED_STOPPING, 0, HANDOFF_FAILURE_NONE);
	machine->begun_wish = 0;
	machine->begun_asked = false;
	machine->signalled = false;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		struct handoff_generation *generation = &machine->generations[i];
		handoff_answer(step, generation->wish, HANDOFF_RESULT_REFUSED_STOPPING, generation->number,
			       HANDOFF_FAILURE_NONE);
		generation->wish = 0;
	}
}

void handoff_wind_down(struct handoff_step *step, enum handoff_exit reason)
{
	begin_end(step, reason);
	handoff_drain_all(step);
	done_when_empty(step);
}

/* ---- the supervisor's handlers ---- */

void handoff_supervisor_refuse(struct handoff_step *step)
{
	if (step->event->request == 0)
		return;
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_REFUSE);
	action->request = step->event->request;
	action->result = HANDOFF_RESULT_REFUSED_STOPPING;
}

void handoff_supervisor_stop(struct handoff_step *step)
{
	step->machine->stop_asked = true;
	handoff_wind_down(step, HANDOFF_EXIT_STOPPED);
}

void handoff_supervisor_kill(struct handoff_step *step)
{
	step->machine->stop_asked = true;
	begin_end(step, HANDOFF_EXIT_STOPPED);
	terminate_all(step);
	done_when_empty(step);
}

/* While it winds down because the policy gave up, a first stop changes nothing; a second one is impatience. */
void handoff_supervisor_stop_again(struct handoff_step *step)
{
	bool first = !step->machine->stop_asked;
	step->machine->stop_asked = true;
	if (!first)
		terminate_all(step);
}

void handoff_supervisor_kill_stopping(struct handoff_step *step)
{
	step->machine->stop_asked = true;
	terminate_all(step);
}

/* ---- the handlers of a generation that drains or failed ---- */

void handoff_release_when_empty(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->present > 0)
		return;
	handoff_release(step, generation);
	if (step->machine->state == HANDOFF_STOPPING || step->machine->state == HANDOFF_KILLING)
		done_when_empty(step);
	else if (step->machine->state == HANDOFF_EMPTYING)
		handoff_start_when_empty(step);
}

void handoff_ending_spawn_failed(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_never_were(step, generation);
	handoff_release_when_empty(step, generation);
}

void handoff_ending_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_one_exited(generation);
	if (!generation->terminated && !generation->killed)
		handoff_act_on(step, HANDOFF_DO_DRAIN_REST, generation->number);
}

void handoff_ending_gone(struct handoff_step *step, struct handoff_generation *generation)
{
	assert(generation->present > generation->alive);
	generation->present--;
	handoff_release_when_empty(step, generation);
}

void handoff_ending_kill_due(struct handoff_step *step, struct handoff_generation *generation)
{
	if (step->machine->stop_asked && generation->state != GENERATION_FAILING)
		step->machine->forced = true;
	kill_generation(step, generation, HANDOFF_KILL_TIMEOUT);
}

void handoff_draining_drain_due(struct handoff_step *step, struct handoff_generation *generation)
{
	/* --max-draining was faster. */
	if (generation->killed)
		return;
	if (step->machine->stop_asked)
		step->machine->forced = true;
	kill_generation(step, generation, HANDOFF_KILL_DRAIN_TIMEOUT);
}
