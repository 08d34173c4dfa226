/* SPDX-License-Identifier: MIT */
/* Invariants about what was asked and what ended: bursts, answers, failures and stops. */
#include "invariant_private.h"

enum verdict invariant_stop_is_final(const struct world_step *step)
{
	if (!step->after->stop_told && !step->before->closed)
		return IDLE;
	return invariant_held(!invariant_next(step, HANDOFF_DO_SPAWN, NULL) &&
			      !invariant_next(step, HANDOFF_DO_SPAWN_MORE, NULL) &&
			      !invariant_next(step, HANDOFF_DO_EMPTY, NULL));
}

/* With stop-first, a hand-off failed, and there is nobody to fall back to but a new one of what was good before. */
static bool falls_back(const struct world_step *step)
{
	const struct world_generation *failed = world_look(step->before, step->event->generation);
	return failed && failed->asked && step->before->machine.config.stop_first &&
	       invariant_next(step, HANDOFF_DO_FAIL, NULL);
}

/* However many ask by signal while one starts, one start follows: not none, and not two. */
enum verdict invariant_bursts_fold(const struct world_step *step)
{
	const struct world *before = step->before, *after = step->after;
	/* With stop-first what begins is the emptying, and the start belongs to it. */
	uint32_t begun = invariant_count(step, HANDOFF_DO_EMPTY);
	if (!before->emptying)
		begun += invariant_count(step, HANDOFF_DO_SPAWN);
	bool waited = before->signal_pending || before->waiting_wish != 0;
	enum handoff_event_kind kind = step->event->kind;
	if (begun > 1)
		return BROKEN;
	if (begun == 1 && !waited && kind != HANDOFF_RELOAD && kind != HANDOFF_START && kind != HANDOFF_RESTART_DUE &&
	    !falls_back(step))
		return BROKEN;
	/* Nobody is in its way, and still it waits: it was forgotten. */
	if (after->signal_pending && !invariant_new(after) && !after->emptying)
		return BROKEN;
	return begun == 1 && before->signals > 1 ? HELD : IDLE;
}

static bool is_new_enough(const struct world *world, const struct handoff_action *answer)
{
	if (answer->result != HANDOFF_RESULT_OK && answer->result != HANDOFF_RESULT_FAILED)
		return true;
	/* There was no room to start one. */
	if (answer->result == HANDOFF_RESULT_FAILED && answer->generation == 0)
		return answer->failure == HANDOFF_FAILURE_NO_ROOM;
	for (uint32_t i = 0; i < world->request_count; i++)
		if (world->requests[i].wish == answer->wish && world->requests[i].after >= answer->generation)
			return false;
	return true;
}

static bool is_waited_for(const struct world *world, const struct world_step *step, uint32_t wish)
{
	const struct handoff_action *join = invariant_next(step, HANDOFF_DO_JOIN, NULL);
	if (join && join->wish == wish)
		return true;
	for (uint32_t i = 0; i < world->request_count; i++)
		if (world->requests[i].wish == wish)
			return true;
	return false;
}

static bool activates(const struct world_step *step, uint32_t generation)
{
	const struct handoff_action *action = invariant_next(step, HANDOFF_DO_ACTIVATE, NULL);
	return action && action->generation == generation;
}

static bool answers_are_right(const struct world_step *step)
{
	const struct handoff_action *answer = NULL;
	while ((answer = invariant_next(step, HANDOFF_DO_ANSWER, answer))) {
		if (!is_waited_for(step->before, step, answer->wish) || !is_new_enough(step->before, answer))
			return false;
		/* Already it may have to go again, if it must go before the next one. */
		if (answer->result == HANDOFF_RESULT_OK && !activates(step, answer->generation))
			return false;
		for (const struct handoff_action *again = answer;
		     (again = invariant_next(step, HANDOFF_DO_ANSWER, again));)
			if (again->wish == answer->wish)
				return false;
	}
	return true;
}

/* Each request joins or is refused at once; who joined is still waited for by somebody; nobody is left at the end. */
enum verdict invariant_one_answer(const struct world_step *step)
{
	const struct world *after = step->after;
	uint32_t taken = invariant_count(step, HANDOFF_DO_JOIN) + invariant_count(step, HANDOFF_DO_REFUSE);
	bool asked = step->event->kind == HANDOFF_RELOAD && step->event->request != 0;
	if (taken != (asked ? 1U : 0U) || !answers_are_right(step))
		return BROKEN;
	const struct world_generation *new = invariant_new(after);
	for (uint32_t i = 0; i < after->request_count; i++) {
		uint32_t wish = after->requests[i].wish;
		if (wish != after->machine.waiting.id && wish != after->begun_wish && !(new &&new->wish == wish))
			return BROKEN;
	}
	if (after->exited && after->request_count > 0)
		return BROKEN;
	return taken > 0 || invariant_next(step, HANDOFF_DO_ANSWER, NULL) ? HELD : IDLE;
}

/* Whether the restart policy, by the world's own account, ends it with this step. */
static bool policy_ends(const struct world_step *step)
{
	const struct world *before = step->before;
	const struct handoff_config *config = &before->machine.config;
	bool died = invariant_next(step, HANDOFF_DO_DIED, NULL);
	bool failed = invariant_next(step, HANDOFF_DO_FAIL, NULL);
	if ((!died && !failed) || (failed && invariant_in_state(before, GENERATION_ACTIVE)) ||
	    (died && invariant_new(before)))
		return false;
	if (falls_back(step))
		return false;
	if (!before->ever_active || config->restart == HANDOFF_RESTART_NEVER)
		return true;
	bool clean = step->event->kind == HANDOFF_EXITED && step->event->clean;
	if (died && clean && config->restart == HANDOFF_RESTART_ON_FAILURE)
		return true;
	return config->max_restarts > 0 && before->failures >= config->max_restarts;
}

enum verdict invariant_listeners_close_once(const struct world_step *step)
{
	uint32_t closed = invariant_count(step, HANDOFF_DO_CLOSE_LISTENERS);
	bool exits = invariant_next(step, HANDOFF_DO_EXIT, NULL);
	if (closed == 0)
		return (exits || step->after->stop_told) && !step->after->closed ? BROKEN : IDLE;
	return invariant_held(closed == 1 && !step->before->closed && (step->after->stop_told || policy_ends(step)));
}

/* At an end everybody is told, at an immediate one with SIGTERM, and nobody twice. */
enum verdict invariant_end_reaches_all(const struct world_step *step)
{
	const struct world *after = step->after;
	if (after->machine.exit == HANDOFF_EXIT_NONE)
		return IDLE;
	for (uint32_t i = 0; i < after->generation_count; i++) {
		const struct world_generation *generation = &after->generations[i];
		/* One that should not have started is stop_is_final's. */
		if (!world_look(step->before, generation->number))
			continue;
		bool told = generation->terminated || generation->killed;
		if (after->kill_told && !told)
			return BROKEN;
		if (!told && !generation->drained && generation->alive > 0)
			return BROKEN;
	}
	return after->generation_count > 0 ? HELD : IDLE;
}

/* What makes a start fail makes it fail at once. */
enum verdict invariant_failure_is_noticed(const struct world_step *step)
{
	const struct world_generation *generation = world_look(step->before, step->event->generation);
	enum handoff_event_kind kind = step->event->kind;
	if (!generation)
		return IDLE;
	bool fails = false;
	if (generation->state == GENERATION_STARTING)
		fails = kind == HANDOFF_NOT_READY || kind == HANDOFF_SPAWN_FAILED || kind == HANDOFF_EXITED ||
			kind == HANDOFF_READY_DUE;
	else if (generation->state == GENERATION_SETTLING)
		fails = kind == HANDOFF_EXITED;
	const struct handoff_action *action = invariant_next(step, HANDOFF_DO_FAIL, NULL);
	return fails ? invariant_held(action && action->generation == generation->number) : IDLE;
}
