/* SPDX-License-Identifier: MIT */
/* The invariants. They read the actions and the world's own books first, the machine's struct second. */
#include "invariant.h"

#include <string.h>

enum verdict {
	IDLE, /* the step says nothing about it */
	HELD,
	BROKEN,
};

static enum verdict held(bool condition)
{
	return condition ? HELD : BROKEN;
}

/* ---- helpers ---- */

static const struct handoff_action *next_action(const struct world_step *step, enum handoff_action_kind kind,
						const struct handoff_action *previous)
{
	const struct handoff_actions *actions = step->actions;
	uint32_t from = previous ? (uint32_t)(previous - actions->items) + 1 : 0;
	for (uint32_t i = from; i < actions->count; i++)
		if (actions->items[i].kind == kind)
			return &actions->items[i];
	return NULL;
}

static uint32_t count_actions(const struct world_step *step, enum handoff_action_kind kind)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < step->actions->count; i++)
		count += step->actions->items[i].kind == kind;
	return count;
}

static const struct world_generation *in_state(const struct world *world, enum handoff_generation_state state)
{
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->generations[i].state == state)
			return &world->generations[i];
	return NULL;
}

static const struct world_generation *starting(const struct world *world)
{
	const struct world_generation *generation = in_state(world, GENERATION_STARTING);
	return generation ? generation : in_state(world, GENERATION_SETTLING);
}

static bool ends(enum handoff_action_kind kind)
{
	return kind == HANDOFF_DO_DRAIN || kind == HANDOFF_DO_TERMINATE || kind == HANDOFF_DO_KILL;
}

static bool touches(enum handoff_action_kind kind)
{
	return ends(kind) || kind == HANDOFF_DO_DRAIN_REST || kind == HANDOFF_DO_DIED || kind == HANDOFF_DO_RELEASE ||
	       kind == HANDOFF_DO_TIMER_SET || kind == HANDOFF_DO_TIMER_STOP || kind == HANDOFF_DO_ACTIVATE;
}

/* ---- the invariants ---- */

static bool has_ready_successor(const struct world_step *step, uint32_t number)
{
	const struct world_generation *active = in_state(step->after, GENERATION_ACTIVE);
	const struct world_generation *was = active ? world_look(step->before, active->number) : NULL;
	return was && active->number > number && was->state == GENERATION_SETTLING && was->told_exited == 0 &&
	       was->told_ready == step->after->machine.config.workers;
}

/* Nobody who serves is told to end before another was ready and has settled, unless all of it ends. */
static enum verdict serving_is_kept(const struct world_step *step)
{
	enum verdict verdict = IDLE;
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

/* Beside a failed start, the one that serves stays as it was, to the byte, and so do its timers. */
static enum verdict failure_changes_nothing(const struct world_step *step)
{
	const struct handoff_generation *before = handoff_active(&step->before->machine);
	bool failed = next_action(step, HANDOFF_DO_FAIL, NULL);
	/* After a hand-off that completed, the next one may at once find no room. */
	if (!before || !failed || next_action(step, HANDOFF_DO_ACTIVATE, NULL))
		return IDLE;
	const struct handoff_generation *after = handoff_find(&step->after->machine, before->number);
	if (!after || memcmp(before, after, sizeof(*before)) != 0)
		return BROKEN;
	for (uint32_t i = 0; i < step->actions->count; i++)
		if (step->actions->items[i].generation == before->number && touches(step->actions->items[i].kind))
			return BROKEN;
	return HELD;
}

static enum verdict stop_is_final(const struct world_step *step)
{
	if (!step->after->stop_told && !step->before->closed)
		return IDLE;
	return held(!next_action(step, HANDOFF_DO_SPAWN, NULL));
}

/* However many ask by signal while one starts, one start follows: not none, and not two. */
static enum verdict bursts_fold(const struct world_step *step)
{
	const struct world *before = step->before, *after = step->after;
	uint32_t spawned = count_actions(step, HANDOFF_DO_SPAWN);
	bool waited = before->signal_pending || before->waiting_wish != 0;
	enum handoff_event_kind kind = step->event->kind;
	if (spawned > 1)
		return BROKEN;
	if (spawned == 1 && !waited && kind != HANDOFF_RELOAD && kind != HANDOFF_START && kind != HANDOFF_RESTART_DUE)
		return BROKEN;
	/* Nobody is in its way, and still it waits: it was forgotten. */
	if (after->signal_pending && !starting(after))
		return BROKEN;
	return spawned == 1 && before->signals > 1 ? HELD : IDLE;
}

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
static enum verdict released_once(const struct world_step *step)
{
	enum verdict verdict = IDLE;
	const struct handoff_action *action = NULL;
	while ((action = next_action(step, HANDOFF_DO_RELEASE, action))) {
		const struct world_generation *generation = world_look(step->before, action->generation);
		if (!generation || !world_is_empty(step->before, generation))
			return BROKEN;
		for (const struct handoff_action *again = action;
		     (again = next_action(step, HANDOFF_DO_RELEASE, again));)
			if (again->generation == action->generation)
				return BROKEN;
		verdict = HELD;
	}
	return same_generations(step->after) ? verdict : BROKEN;
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
	const struct handoff_action *join = next_action(step, HANDOFF_DO_JOIN, NULL);
	if (join && join->wish == wish)
		return true;
	for (uint32_t i = 0; i < world->request_count; i++)
		if (world->requests[i].wish == wish)
			return true;
	return false;
}

static bool answers_are_right(const struct world_step *step)
{
	const struct handoff_action *answer = NULL;
	while ((answer = next_action(step, HANDOFF_DO_ANSWER, answer))) {
		if (!is_waited_for(step->before, step, answer->wish) || !is_new_enough(step->before, answer))
			return false;
		const struct world_generation *named = world_look(step->after, answer->generation);
		if (answer->result == HANDOFF_RESULT_OK && (!named || named->state != GENERATION_ACTIVE))
			return false;
		for (const struct handoff_action *again = answer;
		     (again = next_action(step, HANDOFF_DO_ANSWER, again));)
			if (again->wish == answer->wish)
				return false;
	}
	return true;
}

/* Each request joins or is refused at once; who joined is still waited for by somebody; nobody is left at the end. */
static enum verdict one_answer(const struct world_step *step)
{
	const struct world *after = step->after;
	uint32_t taken = count_actions(step, HANDOFF_DO_JOIN) + count_actions(step, HANDOFF_DO_REFUSE);
	bool asked = step->event->kind == HANDOFF_RELOAD && step->event->request != 0;
	if (taken != (asked ? 1U : 0U) || !answers_are_right(step))
		return BROKEN;
	const struct world_generation *new = starting(after);
	for (uint32_t i = 0; i < after->request_count; i++) {
		uint32_t wish = after->requests[i].wish;
		if (wish != after->machine.waiting.id && !(new &&new->wish == wish))
			return BROKEN;
	}
	if (after->exited && after->request_count > 0)
		return BROKEN;
	return taken > 0 || next_action(step, HANDOFF_DO_ANSWER, NULL) ? HELD : IDLE;
}

/* Whether the restart policy, by the world's own account, ends it with this step. */
static bool policy_ends(const struct world_step *step)
{
	const struct world *before = step->before;
	const struct handoff_config *config = &before->machine.config;
	bool died = next_action(step, HANDOFF_DO_DIED, NULL);
	bool failed = next_action(step, HANDOFF_DO_FAIL, NULL);
	if ((!died && !failed) || (failed && in_state(before, GENERATION_ACTIVE)) || (died && starting(before)))
		return false;
	if (!before->ever_active || config->restart == HANDOFF_RESTART_NEVER)
		return true;
	if (died && step->event->clean && config->restart == HANDOFF_RESTART_ON_FAILURE)
		return true;
	return config->max_restarts > 0 && before->failures >= config->max_restarts;
}

static enum verdict listeners_close_once(const struct world_step *step)
{
	uint32_t closed = count_actions(step, HANDOFF_DO_CLOSE_LISTENERS);
	bool exits = next_action(step, HANDOFF_DO_EXIT, NULL);
	if (closed == 0)
		return (exits || step->after->stop_told) && !step->after->closed ? BROKEN : IDLE;
	return held(closed == 1 && !step->before->closed && (step->after->stop_told || policy_ends(step)));
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
static enum verdict states_agree(const struct world_step *step)
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
	return held(
		state_fits(machine, count[GENERATION_ACTIVE], count[GENERATION_STARTING] + count[GENERATION_SETTLING]));
}

/* The machine counts what it was told, and no more. `ready` has a meaning only until the start is over. */
static enum verdict counts_agree(const struct world_step *step)
{
	const struct handoff *machine = &step->after->machine;
	uint32_t workers = machine->config.workers;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		const struct handoff_generation *is = &machine->generations[i];
		const struct world_generation *told = world_look(step->after, is->number);
		if (is->alive > is->present || is->present > workers || is->ready > workers)
			return BROKEN;
		if (told && (is->present != workers - told->told_never - told->told_gone ||
			     is->alive != workers - told->told_never - told->told_exited))
			return BROKEN;
		if (told && is->state == GENERATION_STARTING &&
		    (is->ready != told->told_ready || is->ready >= is->present))
			return BROKEN;
		if (is->state == GENERATION_SETTLING && (is->ready != workers || is->alive != workers))
			return BROKEN;
	}
	return machine->generation_count > 0 ? HELD : IDLE;
}

static enum verdict exit_is_empty(const struct world_step *step)
{
	uint32_t exits = count_actions(step, HANDOFF_DO_EXIT);
	const struct world *after = step->after;
	if (after->exited != (after->machine.state == HANDOFF_DONE))
		return BROKEN;
	if (exits == 0)
		return IDLE;
	return held(exits == 1 && !step->before->exited && after->generation_count == 0 &&
		    after->machine.generation_count == 0 && after->machine.exit != HANDOFF_EXIT_NONE);
}

/* The bound is drawn at a hand-off: what a crashed generation leaves behind is mostly gone before it could matter, and
 * nobody is killed for it. */
static enum verdict draining_bounded(const struct world_step *step)
{
	const struct world *after = step->after;
	uint32_t draining = 0;
	if (after->closed || count_actions(step, HANDOFF_DO_ACTIVATE) == 0)
		return IDLE;
	for (uint32_t i = 0; i < after->generation_count; i++)
		draining += after->generations[i].state == GENERATION_DRAINING && !after->generations[i].killed;
	if (draining > after->machine.config.max_draining)
		return BROKEN;
	return draining == after->machine.config.max_draining ? HELD : IDLE;
}

/* The timers that may run in a state, and those of which one must (armed, or expired and still to be told). */
static bool timers_fit(const struct world_generation *generation)
{
	const uint8_t ready = world_timer_bit(HANDOFF_TIMER_READY), settle = world_timer_bit(HANDOFF_TIMER_SETTLE);
	const uint8_t drain = world_timer_bit(HANDOFF_TIMER_DRAIN), kill = world_timer_bit(HANDOFF_TIMER_KILL);
	const uint8_t healthy = world_timer_bit(HANDOFF_TIMER_HEALTHY);
	const struct {
		uint8_t may, must;
	} wanted[GENERATION_STATES] = {
		[GENERATION_STARTING] = {ready, ready},
		[GENERATION_SETTLING] = {settle, settle},
		[GENERATION_ACTIVE] = {healthy, 0},
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
static enum verdict timers_armed(const struct world_step *step)
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

/* At an end everybody is told, at an immediate one with SIGTERM, and nobody twice. */
static enum verdict end_reaches_all(const struct world_step *step)
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
		if (!told && !generation->drained && generation->told_exited < after->machine.config.workers)
			return BROKEN;
	}
	return after->generation_count > 0 ? HELD : IDLE;
}

/* What makes a start fail makes it fail at once. */
static enum verdict failure_is_noticed(const struct world_step *step)
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
	const struct handoff_action *action = next_action(step, HANDOFF_DO_FAIL, NULL);
	return fails ? held(action && action->generation == generation->number) : IDLE;
}

/* ---- all of them ---- */

static const struct {
	const char *title;
	enum verdict (*check)(const struct world_step *step);
} invariants[INVARIANTS] = {
	[INVARIANT_SERVING_IS_KEPT] = {"who serves is told to end only after a successor has settled, or at an end",
				       serving_is_kept},
	[INVARIANT_FAILURE_CHANGES_NOTHING] =
		{"a failed start leaves the active generation and its timers as they were", failure_changes_nothing},
	[INVARIANT_STOP_IS_FINAL] = {"nothing starts after a stop was asked", stop_is_final},
	[INVARIANT_BURSTS_FOLD] = {"many reload signals during one hand-off give exactly one further start",
				   bursts_fold},
	[INVARIANT_RELEASED_ONCE] = {"each generation is released once, when nothing of it is left", released_once},
	[INVARIANT_ONE_ANSWER] = {"each request has one answer, and by a generation that started after it arrived",
				  one_answer},
	[INVARIANT_LISTENERS_CLOSE_ONCE] = {"the listeners close once, with a stop or where the policy ends it",
					    listeners_close_once},
	[INVARIANT_LIVENESS] = {"in a fair world a hand-off completes, a crash is repaired and a stop ends", NULL},
	[INVARIANT_STATES_AGREE] = {"one active and one new generation at most, as the supervisor's state says",
				    states_agree},
	[INVARIANT_COUNTS_AGREE] = {"the counts of workers are what was told, alive <= present <= workers",
				    counts_agree},
	[INVARIANT_EXIT_IS_EMPTY] = {"it exits once, with no generation left", exit_is_empty},
	[INVARIANT_DRAINING_BOUNDED] = {"no more than max_draining generations drain after a hand-off",
					draining_bounded},
	[INVARIANT_TIMERS_ARMED] = {"whoever waits has a deadline, and no other timer runs", timers_armed},
	[INVARIANT_FAILURE_IS_NOTICED] = {"what makes a start fail makes it fail at once", failure_is_noticed},
	[INVARIANT_END_REACHES_ALL] = {"at an end every generation is told to end", end_reaches_all},
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
