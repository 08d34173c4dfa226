/* SPDX-License-Identifier: MIT */
/* The active generation: workers that are lost and replaced, workers that it gives up one by one, and its death. */
#include "handoff_private.h"

#include <assert.h>

static void replace_lost(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_TIMER_SET);
	action->timer = HANDOFF_TIMER_WORKER;
	action->generation = generation->number;
	action->exponent = generation->losses > 0 ? generation->losses - 1 : 0;
}

/* ---- rolling hand-offs ---- */

void handoff_give_up_one(struct handoff_step *step, struct handoff_generation *active)
{
	if (active->target <= 1)
		return;
	active->target--;
	/* Where one is missing already, that one was given up. */
	if (handoff_serving(active) <= active->target)
		return;
	active->leaving++;
	handoff_act_on(step, HANDOFF_DO_DRAIN_ONE, active->number);
}

void handoff_restore(struct handoff_step *step, struct handoff_generation *active)
{
	if (active->target == active->workers)
		return;
	active->target = active->workers;
	replace_lost(step, active);
}

/* ---- its workers ---- */

/* The active generation is dead once its last worker is. What is left of its group still holds the listener and may be
 * serving, so it is asked to drain like any old generation. */
static void died(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff *machine = step->machine;
	/* One that was told to leave leaves cleanly, but its generation was not to end by that. */
	bool clean = step->event->kind == HANDOFF_EXITED && step->event->clean;
	handoff_timer_stop(step, HANDOFF_TIMER_HEALTHY, generation->number);
	handoff_timer_stop(step, HANDOFF_TIMER_WORKER, generation->number);
	generation->state = GENERATION_DRAINING;
	handoff_act_on(step, HANDOFF_DO_DIED, generation->number);
	handoff_act_on(step, HANDOFF_DO_DRAIN_REST, generation->number);
	handoff_timer_set(step, HANDOFF_TIMER_DRAIN, generation->number);
	if (machine->state == HANDOFF_REPLACING)
		machine->state = HANDOFF_STARTING;
	else if (clean && machine->config.restart == HANDOFF_RESTART_ON_FAILURE)
		handoff_wind_down(step, HANDOFF_EXIT_CLEAN);
	else
		handoff_recover(step);
}

/* One worker is lost, or some; the others serve on. */
static void lost(struct handoff_step *step, struct handoff_generation *generation)
{
	/* The drain signal may have found nobody any more. */
	if (generation->leaving > generation->alive)
		generation->leaving = generation->alive;
	if (step->machine->config.restart == HANDOFF_RESTART_NEVER || handoff_serving(generation) >= generation->target)
		return;
	if (generation->losses <= HANDOFF_EXPONENT_MAX)
		generation->losses++;
	/* Health is counted anew from the replacement. */
	handoff_timer_stop(step, HANDOFF_TIMER_HEALTHY, generation->number);
	replace_lost(step, generation);
}

void handoff_active_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_one_exited(generation);
	if (generation->alive == 0) {
		died(step, generation);
		return;
	}
	handoff_act_on(step, HANDOFF_DO_DRAIN_REST, generation->number);
	lost(step, generation);
}

/* It was counted as leaving already, and replaced where it had to be. */
void handoff_active_left(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_one_exited(generation);
	if (generation->leaving > 0)
		generation->leaving--;
	if (generation->alive == 0)
		died(step, generation);
	else
		handoff_act_on(step, HANDOFF_DO_DRAIN_REST, generation->number);
}

void handoff_active_spawn_failed(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_never_were(step, generation);
	if (generation->alive > 0) {
		lost(step, generation);
		return;
	}
	died(step, generation);
	/* The others may have been gone before: then nothing more will be heard of it. */
	handoff_release_when_empty(step, generation);
}

void handoff_active_gone(struct handoff_step *step, struct handoff_generation *generation)
{
	(void)step;
	assert(generation->present > generation->alive);
	generation->present--;
}

void handoff_active_worker_due(struct handoff_step *step, struct handoff_generation *generation)
{
	uint32_t serving = handoff_serving(generation);
	if (serving >= generation->target)
		return;
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_SPAWN_MORE);
	action->generation = generation->number;
	action->count = generation->target - serving;
	generation->present += action->count;
	generation->alive += action->count;
	handoff_timer_set(step, HANDOFF_TIMER_HEALTHY, generation->number);
}

void handoff_active_healthy(struct handoff_step *step, struct handoff_generation *generation)
{
	generation->losses = 0;
	step->machine->failures = 0;
}
