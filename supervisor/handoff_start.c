/* SPDX-License-Identifier: MIT */
/* Who starts, and when: the first start, hand-offs and what waits for them, restarts and their back-off. */
#include "handoff_private.h"

#include <assert.h>
#include <string.h>

/* ---- starting ---- */

uint32_t handoff_first_batch(const struct handoff *machine, uint32_t workers)
{
	return machine->config.rolling && machine->state == HANDOFF_REPLACING ? 1 : workers;
}

static void spawn(struct handoff_step *step, uint32_t wish, bool asked)
{
	struct handoff *machine = step->machine;
	bool serving = handoff_active(machine) != NULL;
	struct handoff_generation *generation = &machine->generations[machine->generation_count++];
	generation->number = ++machine->last_number;
	generation->wish = wish;
	generation->asked = asked;
	generation->state = GENERATION_STARTING;
	generation->target = generation->workers = machine->config.workers;
	machine->state = serving ? HANDOFF_REPLACING : HANDOFF_STARTING;
	generation->present = generation->alive = handoff_first_batch(machine, generation->target);
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_SPAWN);
	action->generation = generation->number;
	action->count = generation->present;
	action->wish = wish;
	action->asked = asked;
	handoff_timer_set(step, HANDOFF_TIMER_READY, generation->number);
}

bool handoff_start(struct handoff_step *step, uint32_t wish, bool asked)
{
	struct handoff *machine = step->machine;
	if (machine->config.stop_first && machine->generation_count > 0) {
		machine->state = HANDOFF_EMPTYING;
		machine->begun_wish = wish;
		machine->begun_asked = asked;
		handoff_act(step, HANDOFF_DO_EMPTY)->asked = asked;
		handoff_drain_all(step);
		return true;
	}
	if (machine->generation_count == HANDOFF_GENERATIONS) {
		handoff_answer(step, wish, HANDOFF_RESULT_FAILED, 0, HANDOFF_FAILURE_NO_ROOM);
		handoff_act(step, HANDOFF_DO_FAIL)->failure = HANDOFF_FAILURE_NO_ROOM;
		return false;
	}
	spawn(step, wish, asked);
	return true;
}

void handoff_start_when_empty(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	if (machine->generation_count > 0)
		return;
	uint32_t wish = machine->begun_wish;
	bool asked = machine->begun_asked;
	machine->begun_wish = 0;
	machine->begun_asked = false;
	spawn(step, wish, asked);
}

bool handoff_next(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	struct handoff_wish wish = machine->waiting;
	memset(&machine->waiting, 0, sizeof(machine->waiting));
	if (wish.id != 0 && wish.if_generation != 0 && wish.if_generation != machine->last_active) {
		handoff_answer(step, wish.id, HANDOFF_RESULT_REFUSED_GENERATION, machine->last_active,
			       HANDOFF_FAILURE_NONE);
		wish.id = 0;
	}
	if (wish.id == 0 && !machine->signalled)
		return false;
	machine->signalled = false;
	return handoff_start(step, wish.id, true);
}

/* ---- restarts ---- */

static void back_off(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	/* Counted no further than anything looks, so that the machine has finitely many states. */
	if (machine->failures <= HANDOFF_EXPONENT_MAX || machine->failures < machine->config.max_restarts)
		machine->failures++;
	machine->state = HANDOFF_WAITING;
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_TIMER_SET);
	action->timer = HANDOFF_TIMER_RESTART;
	action->exponent = machine->failures <= HANDOFF_EXPONENT_MAX ? machine->failures - 1 : HANDOFF_EXPONENT_MAX;
}

void handoff_recover(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	if (machine->last_active == 0) {
		handoff_wind_down(step, HANDOFF_EXIT_FIRST_FAILED);
		return;
	}
	/* Somebody waits for a start of their own: that one is the restart, and comes without delay. */
	if (handoff_next(step))
		return;
	bool spent = machine->config.max_restarts > 0 && machine->failures >= machine->config.max_restarts;
	if (machine->config.restart == HANDOFF_RESTART_NEVER || spent)
		handoff_wind_down(step, HANDOFF_EXIT_GAVE_UP);
	else
		back_off(step);
}

/* ---- the supervisor's handlers ---- */

void handoff_supervisor_start(struct handoff_step *step)
{
	bool started = handoff_start(step, 0, false);
	assert(started);
	(void)started;
}

/* Puts the request into the queue of one: beside those who ask for the same, or in place of what waited there. */
void handoff_supervisor_queue(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	const struct handoff_event *event = step->event;
	if (event->request == 0) {
		machine->signalled = true;
		return;
	}
	struct handoff_wish *waiting = &machine->waiting;
	if (waiting->id == 0 || waiting->key != event->key || waiting->if_generation != event->if_generation) {
		handoff_answer(step, waiting->id, HANDOFF_RESULT_SUPERSEDED, 0, HANDOFF_FAILURE_NONE);
		waiting->id = ++machine->last_wish;
		waiting->key = event->key;
		waiting->if_generation = event->if_generation;
	}
	struct handoff_action *action = handoff_act(step, HANDOFF_DO_JOIN);
	action->request = event->request;
	action->wish = waiting->id;
}

void handoff_supervisor_reload(struct handoff_step *step)
{
	handoff_supervisor_queue(step);
	handoff_next(step);
}

/* In back-off the request is the restart. If it is refused, the back-off goes on. */
void handoff_supervisor_reload_waiting(struct handoff_step *step)
{
	handoff_supervisor_queue(step);
	if (handoff_next(step))
		handoff_timer_stop(step, HANDOFF_TIMER_RESTART, 0);
}

void handoff_supervisor_restart(struct handoff_step *step)
{
	if (!handoff_start(step, 0, false))
		back_off(step);
}
