/* SPDX-License-Identifier: MIT */
/* A simulated world that lives: moved at random, or fairly to an end, and judged after every step. */
#ifndef HANDOFF_SIM_LIFE_H
#define HANDOFF_SIM_LIFE_H

#include "invariant.h"

struct life {
	struct world world;
	struct verdicts verdicts;
	/* Called after each step, if set; `fair` while life_is_live looks ahead. */
	void (*watch)(struct life *life, const struct world_step *step, bool fair);
	void *watch_data;
	/* Scratch. */
	struct world before, ahead;
	struct handoff_actions actions;
};

/* A new world, all of whose chances follow from the seed. `verdicts` goes on counting. */
void life_begin(struct life *life, const struct handoff_tables *tables, uint64_t seed);

/* Lets things happen until the machine has taken one event. False when this world is over. */
bool life_step(struct life *life);

/* Looks ahead, in a copy, with servers that start and obey and timers that expire: everything that was asked must come
 * to its end within a bounded number of events, a crash must be repaired, and a stop must end. Judges
 * INVARIANT_LIVENESS, and all others on the way. */
void life_is_live(struct life *life);

/* Delivers all that is queued in `world`, and judges it. */
void life_deliver_all(struct life *life, struct world *world, bool fair);

#endif
