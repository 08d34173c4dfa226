/* SPDX-License-Identifier: MIT */
/* What every handler of the state machine uses: actions, the list of generations, and the counts of workers. */
#include "handoff_private.h"

#include <assert.h>
#include <string.h>

/* ---- actions ---- */

struct handoff_action *handoff_act(struct handoff_step *step, enum handoff_action_kind kind)
{
	struct handoff_actions *actions = step->actions;
	assert(actions->count < HANDOFF_ACTIONS);
	struct handoff_action *action = &actions->items[actions->count++];
	memset(action, 0, sizeof(*action));
	action->kind = kind;
	return action;
}

void handoff_act_on(struct handoff_step *step, enum handoff_action_kind kind, uint32_t generation)
{
	handoff_act(step, kind)->generation = generation;
}

void handoff_timer_set(struct handoff_step *step, enum handoff_timer timer, uint32_t generation)
{
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_TIMER_SET);
	action->timer = timer;
	action->generation = generation;
}

void handoff_timer_stop(struct handoff_step *step, enum handoff_timer timer, uint32_t generation)
{
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_TIMER_STOP);
	action->timer = timer;
	action->generation = generation;
}

void handoff_answer(struct handoff_step *step, uint32_t wish, enum handoff_result result, uint32_t generation,
		    enum handoff_failure failure)
{
	if (wish == 0)
		return;
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_ANSWER);
	action->wish = wish;
	action->result = result;
	action->generation = generation;
	action->failure = failure;
}

/* ---- the list of generations ---- */

struct handoff_generation *handoff_list_state(struct handoff *machine, enum handoff_generation_state state)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].state == state)
			return &machine->generations[i];
	return NULL;
}

struct handoff_generation *handoff_list_number(struct handoff *machine, uint32_t number)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].number == number)
			return &machine->generations[i];
	return NULL;
}

void handoff_release(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff *machine = step->machine;
	handoff_act_on(step, HANDOFF_DO_RELEASE, generation->number);
	size_t index = (size_t)(generation - machine->generations);
	machine->generation_count--;
	memmove(generation, generation + 1, (machine->generation_count - index) * sizeof(*generation));
	/* Unused slots stay zero, so that equal machines are equal bytes. */
	memset(&machine->generations[machine->generation_count], 0, sizeof(*generation));
}

/* ---- the workers of one ---- */

void handoff_never_were(struct handoff_step *step, struct handoff_generation *generation)
{
	assert(step->event->count <= generation->present && step->event->count <= generation->alive);
	generation->present -= step->event->count;
	generation->alive -= step->event->count;
}

void handoff_one_exited(struct handoff_generation *generation)
{
	assert(generation->alive > 0);
	generation->alive--;
}

uint32_t handoff_serving(const struct handoff_generation *generation)
{
	return generation->alive > generation->leaving ? generation->alive - generation->leaving : 0;
}
