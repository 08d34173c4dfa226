/* SPDX-License-Identifier: MIT */
/* Invariants about the books: states, counts, timers and the list of generations. */
#include "invariant_private.h"

static bool same_generations(const struct world *world)
{
	if (world->machine.generation_count != world->generation_count)
		return false;
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->machine.generations[i].number != world->generations[i].number)
			return false;
	return true;
}

/* A generation is forgotten once, when nothing of it is there, and never without a word. */
enum verdict invariant_released_once(const struct world_step *step)
{
	enum verdict verdict = IDLE;
	const struct handoff_action *action = NULL;
	while ((action = invariant_next(step, HANDOFF_DO_RELEASE, action))) {
		const struct world_generation *generation = world_look(step->before, action->generation);
		if (!generation || !world_is_empty(generation))
			return BROKEN;
		for (const struct handoff_action *again = action;
		     (again = invariant_next(step, HANDOFF_DO_RELEASE, again));)
			if (again->generation == action->generation)
				return BROKEN;
		verdict = HELD;
	}
	return same_generations(step->after) ? verdict : BROKEN;
}

static bool state_fits(const struct handoff *machine, uint32_t active, uint32_t new)
{
	switch (machine->state) {
	case HANDOFF_NEW:
		return machine->generation_count == 0;
	case HANDOFF_STARTING:
		return active == 0 && new == 1;
	case HANDOFF_RUNNING:
		return active == 1 && new == 0;
	case HANDOFF_REPLACING:
		return active == 1 && new == 1;
	case HANDOFF_WAITING:
	case HANDOFF_EMPTYING:
	case HANDOFF_STOPPING:
	case HANDOFF_KILLING:
		return active == 0 && new == 0;
	case HANDOFF_DONE:
		return true;
	case HANDOFF_STATES:
		break;
	}
	return false;
}

/* One active, one new at most; the supervisor's state says so; the actions told the same story. */
enum verdict invariant_states_agree(const struct world_step *step)
{
	const struct handoff *machine = &step->after->machine;
	uint32_t count[GENERATION_STATES] = {0};
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		const struct handoff_generation *generation = &machine->generations[i];
		const struct world_generation *told = world_look(step->after, generation->number);
		count[generation->state]++;
		if (told && (told->state != generation->state || told->killed != generation->killed ||
			     told->terminated != generation->terminated))
			return BROKEN;
	}
	if (step->after->emptying != (machine->state == HANDOFF_EMPTYING))
		return BROKEN;
	return invariant_held(
		state_fits(machine, count[GENERATION_ACTIVE], count[GENERATION_STARTING] + count[GENERATION_SETTLING]));
}

static bool counts_fit(const struct handoff_generation *is, const struct world_generation *told)
{
	if (is->alive > is->present || is->present != told->present || is->alive != told->alive)
		return false;
	if (is->workers != told->workers || is->target > is->workers || is->target == 0)
		return false;
	switch (is->state) {
	case GENERATION_STARTING:
		return is->ready == told->ready && is->ready < is->present && is->present <= is->workers;
	case GENERATION_SETTLING:
		return is->ready == is->present && is->alive == is->present && is->present <= is->workers;
	case GENERATION_ACTIVE:
		return is->leaving == told->leaving || told->untold > 0;
	case GENERATION_DRAINING:
	case GENERATION_FAILING:
	case GENERATION_STATES:
		break;
	}
	return true;
}

/* The machine counts what it was told, and no more; it spawns what is missing, and no more. `ready` has a meaning only
 * until the start is over. */
enum verdict invariant_counts_agree(const struct world_step *step)
{
	const struct handoff *machine = &step->after->machine;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		const struct world_generation *told = world_look(step->after, machine->generations[i].number);
		if (told && !counts_fit(&machine->generations[i], told))
			return BROKEN;
	}
	const struct handoff_action *more = invariant_next(step, HANDOFF_DO_SPAWN_MORE, NULL);
	const struct world_generation *grown = more ? world_look(step->after, more->generation) : NULL;
	if (more && (!grown || more->count == 0))
		return BROKEN;
	if (grown && grown->state == GENERATION_ACTIVE && world_serving(grown) > grown->workers + grown->untold)
		return BROKEN;
	return machine->generation_count > 0 ? HELD : IDLE;
}

enum verdict invariant_exit_is_empty(const struct world_step *step)
{
	uint32_t exits = invariant_count(step, HANDOFF_DO_EXIT);
	const struct world *after = step->after;
	if (after->exited != (after->machine.state == HANDOFF_DONE))
		return BROKEN;
	if (exits == 0)
		return IDLE;
	return invariant_held(exits == 1 && !step->before->exited && after->generation_count == 0 &&
			      after->machine.generation_count == 0 && after->machine.exit != HANDOFF_EXIT_NONE);
}

/* The timers that may run in a state, and those of which one must (armed, or expired and still to be told). */
static bool timers_fit(const struct world_generation *generation)
{
	const uint8_t ready = world_timer_bit(HANDOFF_TIMER_READY), settle = world_timer_bit(HANDOFF_TIMER_SETTLE);
	const uint8_t drain = world_timer_bit(HANDOFF_TIMER_DRAIN), kill = world_timer_bit(HANDOFF_TIMER_KILL);
	const uint8_t healthy = world_timer_bit(HANDOFF_TIMER_HEALTHY), worker = world_timer_bit(HANDOFF_TIMER_WORKER);
	const struct {
		uint8_t may, must;
	} wanted[GENERATION_STATES] = {
		[GENERATION_STARTING] = {ready, ready},
		[GENERATION_SETTLING] = {settle, settle},
		/* That a lost worker is waited for is judged by what comes of it. */
		[GENERATION_ACTIVE] = {(uint8_t)(healthy | worker), 0},
		[GENERATION_DRAINING] = {(uint8_t)(drain | kill), (uint8_t)(drain | kill)},
		[GENERATION_FAILING] = {kill, kill},
	};
	uint8_t must = generation->killed ? 0 : wanted[generation->state].must;
	if (generation->terminated && !generation->killed)
		must = kill;
	if (generation->armed & ~wanted[generation->state].may)
		return false;
	return must == 0 || ((generation->armed | generation->due) & must) != 0;
}

/* Whoever waits has a deadline, and nothing else runs. */
enum verdict invariant_timers_armed(const struct world_step *step)
{
	const struct world *after = step->after;
	for (uint32_t i = 0; i < after->generation_count; i++)
		if (!timers_fit(&after->generations[i]))
			return BROKEN;
	for (uint32_t i = 0; i < step->actions->count; i++) {
		const struct handoff_action *action = &step->actions->items[i];
		bool generations = action->kind == HANDOFF_DO_TIMER_SET && action->timer != HANDOFF_TIMER_RESTART;
		if (generations && !world_look(after, action->generation))
			return BROKEN;
	}
	bool waits = after->machine.state == HANDOFF_WAITING;
	if (after->restart_armed && !waits)
		return BROKEN;
	if (waits && !after->restart_armed && !after->restart_due)
		return BROKEN;
	return after->generation_count > 0 || waits ? HELD : IDLE;
}

/* As the header says of HANDOFF_ACTIONS; in proportion, so that few generations show it. */
enum verdict invariant_actions_fit(const struct world_step *step)
{
	uint32_t before = step->before->generation_count, after = step->after->generation_count;
	uint32_t most = before > after ? before : after, count = step->actions->count;
	if (count > 3 * most + HANDOFF_ACTIONS - 3 * HANDOFF_GENERATIONS)
		return BROKEN;
	return count > 3 * most ? HELD : IDLE;
}
