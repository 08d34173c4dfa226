/* SPDX-License-Identifier: MIT */
/* What must be so after every step, each as a named function over the world before and after it. */
#ifndef HANDOFF_SIM_INVARIANT_H
#define HANDOFF_SIM_INVARIANT_H

#include "world.h"

enum invariant {
	INVARIANT_SERVING_IS_KEPT,
	INVARIANT_FAILURE_CHANGES_NOTHING,
	INVARIANT_STOP_IS_FINAL,
	INVARIANT_BURSTS_FOLD,
	INVARIANT_RELEASED_ONCE,
	INVARIANT_ONE_ANSWER,
	INVARIANT_LISTENERS_CLOSE_ONCE,
	INVARIANT_LIVENESS, /* judged by life_is_live, not by a step */
	INVARIANT_STATES_AGREE,
	INVARIANT_COUNTS_AGREE,
	INVARIANT_EXIT_IS_EMPTY,
	INVARIANT_DRAINING_BOUNDED,
	INVARIANT_TIMERS_ARMED,
	INVARIANT_END_REACHES_ALL,
	INVARIANT_FAILURE_IS_NOTICED,
	INVARIANT_EMPTY_FIRST,
	INVARIANT_ROLLING_SERVES,
	INVARIANT_OTHERS_UNTOUCHED,
	INVARIANT_ACTIONS_FIT,
	/* As INVARIANT_LIVENESS. */
	INVARIANT_EMPTYING_ENDS,
	INVARIANT_ROLLED_BACK,
	INVARIANT_LOST_REPLACED,
	INVARIANTS,
};

/* How often each one's premise was met, and the set (a bit each) of those that did not hold. */
struct verdicts {
	uint64_t met[INVARIANTS];
	uint32_t broken;
};

/* One sentence, for people. */
const char *invariant_title(enum invariant invariant);

/* Judges one step by all that can be judged by a step. */
void invariants_check(const struct world_step *step, struct verdicts *verdicts);

#endif
