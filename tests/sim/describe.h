/* SPDX-License-Identifier: MIT */
/* Events, actions and states of the machine as people read them. */
#ifndef HANDOFF_SIM_DESCRIBE_H
#define HANDOFF_SIM_DESCRIBE_H

#include "invariant.h"

/* One step on some lines: the event, what it made the machine do, and where the machine is then. */
void describe_step(char *text, size_t size, const struct world_step *step);

const char *describe_state(enum handoff_state state);
const char *describe_generation_state(enum handoff_generation_state state);

/* The titles of a set of invariants, each as a TAP comment on stdout. */
void describe_broken(uint32_t broken);

#endif
