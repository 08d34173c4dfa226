/* SPDX-License-Identifier: MIT */
/* A generation that starts and settles, at once or worker by worker, until it serves or has failed. */
#include "handoff_private.h"

/* ---- it fails ---- */

/* With stop-first nobody is left to fall back to, so the last good one is started again, whatever the restart policy
 * says: it did not die by itself. */
static void fall_back(struct handoff_step *step)
{
	if (!handoff_next(step))
		handoff_start(step, 0, false);
}

/* The start failed. What serves is left alone; the failed one may already have accepted connections, so it is asked to
 * drain before it is killed. */
static void fail(struct handoff_step *step, struct handoff_generation *generation, enum handoff_failure failure)
{
	struct handoff *machine = step->machine;
	bool asked = generation->asked;
	handoff_timer_stop(step, HANDOFF_TIMER_READY, generation->number);
	handoff_timer_stop(step, HANDOFF_TIMER_SETTLE, generation->number);
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_FAIL);
	action->generation = generation->number;
	action->failure = failure;
	handoff_answer(step, generation->wish, HANDOFF_RESULT_FAILED, generation->number, failure);
	generation->wish = 0;
	if (generation->present == 0) {
		handoff_release(step, generation);
	} else {
		generation->state = GENERATION_FAILING;
		handoff_act_on(step, HANDOFF_DO_DRAIN, generation->number);
		handoff_timer_set(step, HANDOFF_TIMER_ABORT, generation->number);
	}
	struct handoff_generation *active = handoff_list_state(machine, GENERATION_ACTIVE);
	if (active) {
		machine->state = HANDOFF_RUNNING;
		handoff_restore(step, active);
		handoff_next(step);
	} else if (machine->config.stop_first && asked) {
		fall_back(step);
	} else {
		handoff_recover(step);
	}
}

void handoff_starting_not_ready(struct handoff_step *step, struct handoff_generation *generation)
{
	fail(step, generation, HANDOFF_FAILURE_PROTOCOL);
}

void handoff_starting_timeout(struct handoff_step *step, struct handoff_generation *generation)
{
	fail(step, generation, HANDOFF_FAILURE_TIMEOUT);
}

void handoff_starting_spawn_failed(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_never_were(step, generation);
	fail(step, generation, HANDOFF_FAILURE_SPAWN);
}

void handoff_starting_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_one_exited(generation);
	fail(step, generation, HANDOFF_FAILURE_EXITED);
}

void handoff_settling_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_one_exited(generation);
	fail(step, generation, HANDOFF_FAILURE_UNSETTLED);
}

/* ---- it succeeds ---- */

void handoff_starting_ready(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->ready < generation->present)
		generation->ready++;
	if (generation->ready < generation->present)
		return;
	handoff_timer_stop(step, HANDOFF_TIMER_READY, generation->number);
	generation->state = GENERATION_SETTLING;
	handoff_timer_set(step, HANDOFF_TIMER_SETTLE, generation->number);
}

/* A rolling hand-off goes on: an old worker may go, since a new one serves; then the next one starts. */
static void roll_on(struct handoff_step *step, struct handoff_generation *generation, struct handoff_generation *old)
{
	if (old)
		handoff_give_up_one(step, old);
	uint32_t missing = generation->target - generation->present;
	/* The old ones died meanwhile: there is nobody to take turns with. */
	uint32_t count = old ? 1 : missing;
	generation->present += count;
	generation->alive += count;
	generation->state = GENERATION_STARTING;
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_SPAWN_MORE);
	action->generation = generation->number;
	action->count = count;
	handoff_timer_set(step, HANDOFF_TIMER_READY, generation->number);
}

void handoff_settling_settled(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff *machine = step->machine;
	struct handoff_generation *old = handoff_list_state(machine, GENERATION_ACTIVE);
	if (generation->present < generation->target) {
		roll_on(step, generation, old);
		return;
	}
	generation->state = GENERATION_ACTIVE;
	machine->last_active = generation->number;
	machine->state = HANDOFF_RUNNING;
	handoff_act_on(step, HANDOFF_DO_ACTIVATE, generation->number);
	handoff_timer_set(step, HANDOFF_TIMER_HEALTHY, generation->number);
	handoff_answer(step, generation->wish, HANDOFF_RESULT_OK, generation->number, HANDOFF_FAILURE_NONE);
	generation->wish = 0;
	if (old)
		handoff_drain(step, old);
	handoff_enforce_max_draining(step);
	handoff_next(step);
}
