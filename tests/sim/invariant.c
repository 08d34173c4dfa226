/* SPDX-License-Identifier: MIT */
/* All invariants by name. They read the actions and the world's own books first, the machine's struct second. */
#include "invariant_private.h"

const struct handoff_action *invariant_next(const struct world_step *step, enum handoff_action_kind kind,
					    const struct handoff_action *previous)
{
	const struct handoff_actions *actions = step->actions;
	uint32_t from = previous ? (uint32_t)(previous - actions->items) + 1 : 0;
	for (uint32_t i = from; i < actions->count; i++)
		if (actions->items[i].kind == kind)
			return &actions->items[i];
	return NULL;
}

uint32_t invariant_count(const struct world_step *step, enum handoff_action_kind kind)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < step->actions->count; i++)
		count += step->actions->items[i].kind == kind;
	return count;
}

const struct world_generation *invariant_in_state(const struct world *world, enum handoff_generation_state state)
{
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->generations[i].state == state)
			return &world->generations[i];
	return NULL;
}

const struct world_generation *invariant_new(const struct world *world)
{
	const struct world_generation *generation = invariant_in_state(world, GENERATION_STARTING);
	return generation ? generation : invariant_in_state(world, GENERATION_SETTLING);
}

static const struct {
	const char *title;
	enum verdict (*check)(const struct world_step *step);
} invariants[INVARIANTS] = {
	[INVARIANT_SERVING_IS_KEPT] = {"who serves is told to end only after a successor has settled, or at an end",
				       invariant_serving_is_kept},
	[INVARIANT_FAILURE_CHANGES_NOTHING] =
		{"a failed start leaves the active generation and its timers as they were",
		 invariant_failure_changes_nothing},
	[INVARIANT_STOP_IS_FINAL] = {"nothing starts after a stop was asked", invariant_stop_is_final},
	[INVARIANT_BURSTS_FOLD] = {"many reload signals during one hand-off give exactly one further start",
				   invariant_bursts_fold},
	[INVARIANT_RELEASED_ONCE] = {"each generation is released once, when nothing of it is left",
				     invariant_released_once},
	[INVARIANT_ONE_ANSWER] = {"each request has one answer, and by a generation that started after it arrived",
				  invariant_one_answer},
	[INVARIANT_LISTENERS_CLOSE_ONCE] = {"the listeners close once, with a stop or where the policy ends it",
					    invariant_listeners_close_once},
	[INVARIANT_LIVENESS] = {"in a fair world a hand-off completes, a crash is repaired and a stop ends", NULL},
	[INVARIANT_STATES_AGREE] = {"one active and one new generation at most, as the supervisor's state says",
				    invariant_states_agree},
	[INVARIANT_COUNTS_AGREE] = {"the counts of workers are what was told, and what is missing is spawned, no more",
				    invariant_counts_agree},
	[INVARIANT_EXIT_IS_EMPTY] = {"it exits once, with no generation left", invariant_exit_is_empty},
	[INVARIANT_DRAINING_BOUNDED] = {"no more than max_draining generations drain after a hand-off",
					invariant_draining_bounded},
	[INVARIANT_TIMERS_ARMED] = {"whoever waits has a deadline, and no other timer runs", invariant_timers_armed},
	[INVARIANT_FAILURE_IS_NOTICED] = {"what makes a start fail makes it fail at once",
					  invariant_failure_is_noticed},
	[INVARIANT_END_REACHES_ALL] = {"at an end every generation is told to end", invariant_end_reaches_all},
	[INVARIANT_EMPTY_FIRST] = {"with stop-first nothing starts while a generation is there", invariant_empty_first},
	[INVARIANT_ROLLING_SERVES] = {"a rolling hand-off keeps as many workers serving as there were",
				      invariant_rolling_serves},
	[INVARIANT_OTHERS_UNTOUCHED] = {"who loses one of its workers keeps the others", invariant_others_untouched},
	[INVARIANT_ACTIONS_FIT] = {"a step does three things a generation at most, and sixteen", invariant_actions_fit},
	[INVARIANT_EMPTYING_ENDS] = {"what was told to go first goes, and then another one starts", NULL},
	[INVARIANT_ROLLED_BACK] = {"a rolling hand-off that fails gives the old one its workers back", NULL},
	[INVARIANT_LOST_REPLACED] = {"a lost worker is replaced", NULL},
};

const char *invariant_title(enum invariant invariant)
{
	return invariants[invariant].title;
}

void invariants_check(const struct world_step *step, struct verdicts *verdicts)
{
	for (uint32_t i = 0; i < INVARIANTS; i++) {
		if (!invariants[i].check)
			continue;
		enum verdict verdict = invariants[i].check(step);
		verdicts->met[i] += verdict == HELD;
		if (verdict == BROKEN)
			verdicts->broken |= 1U << i;
	}
}
