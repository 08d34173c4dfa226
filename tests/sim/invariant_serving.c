/* SPDX-License-Identifier: MIT */
/* Invariants about who serves: what may be told to end, and who is there instead. */
#include "invariant_private.h"

#include <string.h>

static bool ends(enum handoff_action_kind kind)
{
	return kind == HANDOFF_DO_DRAIN || kind == HANDOFF_DO_TERMINATE || kind == HANDOFF_DO_KILL;
}

static bool touches(enum handoff_action_kind kind)
{
	return ends(kind) || kind == HANDOFF_DO_DRAIN_ONE || kind == HANDOFF_DO_SPAWN_MORE ||
	       kind == HANDOFF_DO_DRAIN_REST || kind == HANDOFF_DO_DIED || kind == HANDOFF_DO_RELEASE ||
	       kind == HANDOFF_DO_TIMER_SET || kind == HANDOFF_DO_TIMER_STOP || kind == HANDOFF_DO_ACTIVATE;
}

static bool has_ready_successor(const struct world_step *step, uint32_t number)
{
	const struct world_generation *active = invariant_in_state(step->after, GENERATION_ACTIVE);
	const struct world_generation *was = active ? world_look(step->before, active->number) : NULL;
	return was && active->number > number && was->state == GENERATION_SETTLING && was->alive == was->workers &&
	       was->ready == was->workers;
}

/* The active generation that the step tells of the end of one of its workers, while others live on. */
static const struct world_generation *lost_one(const struct world_step *step)
{
	enum handoff_event_kind kind = step->event->kind;
	if (kind != HANDOFF_EXITED && kind != HANDOFF_LEFT && kind != HANDOFF_GONE && kind != HANDOFF_SPAWN_FAILED)
		return NULL;
	const struct world_generation *generation = world_look(step->before, step->event->generation);
	if (!generation || generation->state != GENERATION_ACTIVE)
		return NULL;
	uint32_t ended = kind == HANDOFF_GONE ? 0 : kind == HANDOFF_SPAWN_FAILED ? step->event->count : 1;
	return generation->alive > ended ? generation : NULL;
}

/* Nobody who serves is told to end before another was ready and has settled, unless all of it ends, or it goes first
 * because only one may be there (empty_first's). Where one of its workers ended it is others_untouched's. */
enum verdict invariant_serving_is_kept(const struct world_step *step)
{
	enum verdict verdict = IDLE;
	if (lost_one(step) || step->after->machine.config.stop_first)
		return IDLE;
	for (uint32_t i = 0; i < step->actions->count; i++) {
		const struct handoff_action *action = &step->actions->items[i];
		if (!ends(action->kind) || step->after->closed)
			continue;
		const struct world_generation *before = world_look(step->before, action->generation);
		const struct world_generation *after = world_look(step->after, action->generation);
		if (before && before->state == GENERATION_ACTIVE && !has_ready_successor(step, action->generation))
			return BROKEN;
		if (action->kind == HANDOFF_DO_KILL && after && after->state != GENERATION_DRAINING &&
		    after->state != GENERATION_FAILING)
			return BROKEN;
		verdict = HELD;
	}
	return verdict;
}

/* To the byte; but a rolling hand-off that failed gives back what it took. */
static bool is_as_before(const struct handoff_generation *before, const struct handoff_generation *after)
{
	if (!after)
		return false;
	struct handoff_generation restored = *before;
	restored.target = restored.workers;
	return memcmp(before, after, sizeof(*before)) == 0 || memcmp(&restored, after, sizeof(*after)) == 0;
}

/* Beside a failed start, the one that serves stays as it was, and so do its timers. */
enum verdict invariant_failure_changes_nothing(const struct world_step *step)
{
	const struct handoff_generation *before = handoff_active(&step->before->machine);
	bool failed = invariant_next(step, HANDOFF_DO_FAIL, NULL);
	/* After a hand-off that completed, the next one may at once find no room. */
	if (!before || !failed || invariant_next(step, HANDOFF_DO_ACTIVATE, NULL))
		return IDLE;
	const struct handoff_generation *after = handoff_find(&step->after->machine, before->number);
	if (!is_as_before(before, after))
		return BROKEN;
	for (uint32_t i = 0; i < step->actions->count; i++) {
		const struct handoff_action *action = &step->actions->items[i];
		bool gives_back = before->target != before->workers && action->kind == HANDOFF_DO_TIMER_SET &&
				  action->timer == HANDOFF_TIMER_WORKER;
		if (action->generation == before->number && touches(action->kind) && !gives_back)
			return BROKEN;
	}
	return HELD;
}

/* With stop-first nothing starts while anything is there; without, nothing has to go first. */
enum verdict invariant_empty_first(const struct world_step *step)
{
	const struct world *after = step->after;
	bool empties = invariant_next(step, HANDOFF_DO_EMPTY, NULL);
	if (!after->machine.config.stop_first)
		return empties ? BROKEN : IDLE;
	if (after->generation_count > 1 || (empties && after->generation_count == 0))
		return BROKEN;
	for (uint32_t i = 0; i < step->actions->count; i++) {
		const struct handoff_action *action = &step->actions->items[i];
		const struct world_generation *was = world_look(step->before, action->generation);
		if (ends(action->kind) && was && was->state == GENERATION_ACTIVE && !after->closed && !empties)
			return BROKEN;
	}
	return empties || (step->before->emptying && invariant_next(step, HANDOFF_DO_SPAWN, NULL)) ? HELD : IDLE;
}

/* In a rolling hand-off the new one comes worker by worker, and an old worker goes only where those who stay and those
 * who are new are together as many as the old one was made for. */
enum verdict invariant_rolling_serves(const struct world_step *step)
{
	const struct handoff_action *spawn = invariant_next(step, HANDOFF_DO_SPAWN, NULL);
	const struct handoff_action *more = invariant_next(step, HANDOFF_DO_SPAWN_MORE, NULL);
	const struct world_generation *old = invariant_in_state(step->after, GENERATION_ACTIVE),
				      *new = invariant_new(step->after);
	bool rolling = step->after->machine.config.rolling;
	if (spawn && new &&new->alive != (rolling && old ? 1 : new->workers))
		return BROKEN;
	if (more && new && more->generation == new->number && (!rolling || (old && more->count != 1)))
		return BROKEN;
	uint32_t told = invariant_count(step, HANDOFF_DO_DRAIN_ONE);
	if (told == 0 || lost_one(step))
		return IDLE;
	return invariant_held(told == 1 && rolling && old && new &&world_serving(old) + new->ready >= old->workers);
}

/* Who loses a worker, or is done with one, keeps the others. */
enum verdict invariant_others_untouched(const struct world_step *step)
{
	const struct world_generation *before = lost_one(step);
	if (!before)
		return IDLE;
	const struct world_generation *after = world_look(step->after, before->number);
	if (!after || after->state != GENERATION_ACTIVE)
		return BROKEN;
	for (uint32_t i = 0; i < step->actions->count; i++) {
		const struct handoff_action *action = &step->actions->items[i];
		if (action->generation == before->number &&
		    (ends(action->kind) || action->kind == HANDOFF_DO_DRAIN_ONE || action->kind == HANDOFF_DO_DIED))
			return BROKEN;
	}
	return HELD;
}

/* The bound is drawn at a hand-off: what a crashed generation leaves behind is mostly gone before it could matter, and
 * nobody is killed for it. */
enum verdict invariant_draining_bounded(const struct world_step *step)
{
	const struct world *after = step->after;
	uint32_t draining = 0;
	if (after->closed || invariant_count(step, HANDOFF_DO_ACTIVATE) == 0)
		return IDLE;
	for (uint32_t i = 0; i < after->generation_count; i++)
		draining += after->generations[i].state == GENERATION_DRAINING && !after->generations[i].killed;
	if (draining > after->machine.config.max_draining)
		return BROKEN;
	return draining == after->machine.config.max_draining ? HELD : IDLE;
}
