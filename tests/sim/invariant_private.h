/* SPDX-License-Identifier: MIT */
/* What the files of the invariants share. */
#ifndef HANDOFF_SIM_INVARIANT_PRIVATE_H
#define HANDOFF_SIM_INVARIANT_PRIVATE_H

#include "invariant.h"

enum verdict {
	IDLE, /* the step says nothing about it */
	HELD,
	BROKEN,
};

static inline enum verdict invariant_held(bool condition)
{
	return condition ? HELD : BROKEN;
}

/* The next action of a kind after `previous`, or the first one after NULL; or NULL. */
const struct handoff_action *invariant_next(const struct world_step *step, enum handoff_action_kind kind,
					    const struct handoff_action *previous);
uint32_t invariant_count(const struct world_step *step, enum handoff_action_kind kind);
/* The oldest generation in a state, or NULL. */
const struct world_generation *invariant_in_state(const struct world *world, enum handoff_generation_state state);
/* The one that starts or settles, or NULL. */
const struct world_generation *invariant_new(const struct world *world);

/* invariant_serving.c */
enum verdict invariant_serving_is_kept(const struct world_step *step);
enum verdict invariant_failure_changes_nothing(const struct world_step *step);
enum verdict invariant_empty_first(const struct world_step *step);
enum verdict invariant_rolling_serves(const struct world_step *step);
enum verdict invariant_others_untouched(const struct world_step *step);
enum verdict invariant_draining_bounded(const struct world_step *step);

/* invariant_books.c */
enum verdict invariant_released_once(const struct world_step *step);
enum verdict invariant_states_agree(const struct world_step *step);
enum verdict invariant_counts_agree(const struct world_step *step);
enum verdict invariant_exit_is_empty(const struct world_step *step);
enum verdict invariant_timers_armed(const struct world_step *step);
enum verdict invariant_actions_fit(const struct world_step *step);

/* invariant_asked.c */
enum verdict invariant_stop_is_final(const struct world_step *step);
enum verdict invariant_bursts_fold(const struct world_step *step);
enum verdict invariant_one_answer(const struct world_step *step);
enum verdict invariant_listeners_close_once(const struct world_step *step);
enum verdict invariant_end_reaches_all(const struct world_step *step);
enum verdict invariant_failure_is_noticed(const struct world_step *step);

#endif
