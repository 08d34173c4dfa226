/* SPDX-License-Identifier: MIT */
/* The pure state machine: tables of small handlers over the supervisor's state and each generation's state. */
#include "handoff.h"

#include <assert.h>
#include <string.h>

/* ---- actions ---- */

static struct handoff_action *act(struct handoff_step *step, enum handoff_action_kind kind)
{
	struct handoff_actions *actions = step->actions;
	assert(actions->count < HANDOFF_ACTIONS);
	struct handoff_action *action = &actions->items[actions->count++];
	memset(action, 0, sizeof(*action));
	action->kind = kind;
	return action;
}

static void act_on(struct handoff_step *step, enum handoff_action_kind kind, uint32_t generation)
{
	act(step, kind)->generation = generation;
}

static void timer_set(struct handoff_step *step, enum handoff_timer timer, uint32_t generation)
{
	struct handoff_action *action = act(step, HANDOFF_DO_TIMER_SET);
	action->timer = timer;
	action->generation = generation;
}

static void timer_stop(struct handoff_step *step, enum handoff_timer timer, uint32_t generation)
{
	struct handoff_action *action = act(step, HANDOFF_DO_TIMER_STOP);
	action->timer = timer;
	action->generation = generation;
}

static void answer(struct handoff_step *step, uint32_t wish, enum handoff_result result, uint32_t generation,
		   enum handoff_failure failure)
{
	if (wish == 0)
		return;
	struct handoff_action *action = act(step, HANDOFF_DO_ANSWER);
	action->wish = wish;
	action->result = result;
	action->generation = generation;
	action->failure = failure;
}

/* ---- the list of generations ---- */

static struct handoff_generation *find_state(struct handoff *machine, enum handoff_generation_state state)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].state == state)
			return &machine->generations[i];
	return NULL;
}

static struct handoff_generation *find_number(struct handoff *machine, uint32_t number)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].number == number)
			return &machine->generations[i];
	return NULL;
}

/* Invalidates pointers to the later ones. */
static void release(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff *machine = step->machine;
	act_on(step, HANDOFF_DO_RELEASE, generation->number);
	size_t index = (size_t)(generation - machine->generations);
	machine->generation_count--;
	memmove(generation, generation + 1, (machine->generation_count - index) * sizeof(*generation));
	/* Unused slots stay zero, so that equal machines are equal bytes. */
	memset(&machine->generations[machine->generation_count], 0, sizeof(*generation));
}

/* ---- ending ---- */

static void done_when_empty(struct handoff_step *step)
{
	if (step->machine->generation_count > 0)
		return;
	step->machine->state = HANDOFF_DONE;
	act(step, HANDOFF_DO_EXIT);
}

static void kill_generation(struct handoff_step *step, struct handoff_generation *generation,
			    enum handoff_kill_reason why)
{
	generation->killed = true;
	struct handoff_action *action = act(step, HANDOFF_DO_KILL);
	action->generation = generation->number;
	action->why = why;
}

/* One that serves is asked to finish what it has. */
static void drain(struct handoff_step *step, struct handoff_generation *generation)
{
	timer_stop(step, HANDOFF_TIMER_SETTLE, generation->number);
	timer_stop(step, HANDOFF_TIMER_HEALTHY, generation->number);
	timer_stop(step, HANDOFF_TIMER_WORKER, generation->number);
	generation->state = GENERATION_DRAINING;
	act_on(step, HANDOFF_DO_DRAIN, generation->number);
	timer_set(step, HANDOFF_TIMER_DRAIN, generation->number);
}

/* One that has not begun to serve gets the same signal, but no more time than an immediate stop gives. */
static void drain_unready(struct handoff_step *step, struct handoff_generation *generation)
{
	timer_stop(step, HANDOFF_TIMER_READY, generation->number);
	generation->state = GENERATION_DRAINING;
	act_on(step, HANDOFF_DO_DRAIN, generation->number);
	timer_set(step, HANDOFF_TIMER_KILL, generation->number);
}

static void drain_all(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		struct handoff_generation *generation = &machine->generations[i];
		if (generation->state == GENERATION_STARTING)
			drain_unready(step, generation);
		else if (generation->state == GENERATION_SETTLING || generation->state == GENERATION_ACTIVE)
			drain(step, generation);
	}
}

static void terminate(struct handoff_step *step, struct handoff_generation *generation)
{
	generation->terminated = true;
	act_on(step, HANDOFF_DO_TERMINATE, generation->number);
	/* A failed start keeps its own, shorter, deadline. */
	if (generation->state == GENERATION_FAILING)
		return;
	/* One timer each, not all: HANDOFF_ACTIONS has room for three actions a generation. */
	static const enum handoff_timer running[GENERATION_STATES] = {[GENERATION_STARTING] = HANDOFF_TIMER_READY,
								      [GENERATION_SETTLING] = HANDOFF_TIMER_SETTLE,
								      [GENERATION_ACTIVE] = HANDOFF_TIMER_HEALTHY,
								      [GENERATION_DRAINING] = HANDOFF_TIMER_DRAIN};
	timer_stop(step, running[generation->state], generation->number);
	if (generation->state == GENERATION_ACTIVE)
		timer_stop(step, HANDOFF_TIMER_WORKER, generation->number);
	generation->state = GENERATION_DRAINING;
	timer_set(step, HANDOFF_TIMER_KILL, generation->number);
}

static void terminate_all(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	machine->state = HANDOFF_KILLING;
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (!machine->generations[i].killed)
			terminate(step, &machine->generations[i]);
}

/* From here on nothing starts any more. The listeners go first, so that connects are refused as soon as the servers
 * close theirs, instead of left in a queue that nobody reads. */
static void begin_end(struct handoff_step *step, enum handoff_exit reason)
{
	struct handoff *machine = step->machine;
	if (machine->state == HANDOFF_WAITING)
		timer_stop(step, HANDOFF_TIMER_RESTART, 0);
	machine->state = HANDOFF_STOPPING;
	machine->exit = reason;
	act(step, HANDOFF_DO_CLOSE_LISTENERS);
	answer(step, machine->waiting.id, HANDOFF_RESULT_REFUSED_STOPPING, 0, HANDOFF_FAILURE_NONE);
	memset(&machine->waiting, 0, sizeof(machine->waiting));
	answer(step, machine->begun_wish, HANDOFF_RESULT_REFUSED_STOPPING, 0, HANDOFF_FAILURE_NONE);
	machine->begun_wish = 0;
	machine->begun_asked = false;
	machine->signalled = false;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		struct handoff_generation *generation = &machine->generations[i];
		answer(step, generation->wish, HANDOFF_RESULT_REFUSED_STOPPING, generation->number,
		       HANDOFF_FAILURE_NONE);
		generation->wish = 0;
	}
}

static void wind_down(struct handoff_step *step, enum handoff_exit reason)
{
	begin_end(step, reason);
	drain_all(step);
	done_when_empty(step);
}

/* ---- starting ---- */

/* How many are started at once: in a rolling hand-off the others follow one by one. */
static uint32_t first_batch(const struct handoff *machine, uint32_t workers)
{
	return machine->config.rolling && machine->state == HANDOFF_REPLACING ? 1 : workers;
}

static void spawn(struct handoff_step *step, uint32_t wish, bool asked)
{
	struct handoff *machine = step->machine;
	bool serving = find_state(machine, GENERATION_ACTIVE) != NULL;
	struct handoff_generation *generation = &machine->generations[machine->generation_count++];
	generation->number = ++machine->last_number;
	generation->wish = wish;
	generation->state = GENERATION_STARTING;
	generation->target = generation->workers = machine->config.workers;
	machine->state = serving ? HANDOFF_REPLACING : HANDOFF_STARTING;
	generation->present = generation->alive = first_batch(machine, generation->target);
	struct handoff_action *action = act(step, HANDOFF_DO_SPAWN);
	action->generation = generation->number;
	action->count = generation->present;
	action->wish = wish;
	action->asked = asked;
	timer_set(step, HANDOFF_TIMER_READY, generation->number);
}

/* False when there is no room; then nothing but the answers has happened. */
static bool start(struct handoff_step *step, uint32_t wish, bool asked)
{
	struct handoff *machine = step->machine;
	if (machine->config.stop_first && machine->generation_count > 0) {
		machine->state = HANDOFF_EMPTYING;
		machine->begun_wish = wish;
		machine->begun_asked = asked;
		act(step, HANDOFF_DO_EMPTY)->asked = asked;
		drain_all(step);
		return true;
	}
	if (machine->generation_count == HANDOFF_GENERATIONS) {
		answer(step, wish, HANDOFF_RESULT_FAILED, 0, HANDOFF_FAILURE_NO_ROOM);
		act(step, HANDOFF_DO_FAIL)->failure = HANDOFF_FAILURE_NO_ROOM;
		return false;
	}
	spawn(step, wish, asked);
	return true;
}

/* Stop-first: the last one is gone. */
static void start_when_empty(struct handoff_step *step)
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

/* Begins the hand-off that waits, if one does; it also satisfies the signals that came meanwhile. Whether it began. */
static bool next(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	struct handoff_wish wish = machine->waiting;
	memset(&machine->waiting, 0, sizeof(machine->waiting));
	if (wish.id != 0 && wish.if_generation != 0 && wish.if_generation != machine->last_active) {
		answer(step, wish.id, HANDOFF_RESULT_REFUSED_GENERATION, machine->last_active, HANDOFF_FAILURE_NONE);
		wish.id = 0;
	}
	if (wish.id == 0 && !machine->signalled)
		return false;
	machine->signalled = false;
	return start(step, wish.id, true);
}

static void back_off(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	/* Counted no further than anything looks, so that the machine has finitely many states. */
	if (machine->failures <= HANDOFF_EXPONENT_MAX || machine->failures < machine->config.max_restarts)
		machine->failures++;
	machine->state = HANDOFF_WAITING;
	struct handoff_action *action = act(step, HANDOFF_DO_TIMER_SET);
	action->timer = HANDOFF_TIMER_RESTART;
	action->exponent = machine->failures <= HANDOFF_EXPONENT_MAX ? machine->failures - 1 : HANDOFF_EXPONENT_MAX;
}

/* Nobody serves, and that was not asked for. */
static void recover(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	if (machine->last_active == 0) {
		wind_down(step, HANDOFF_EXIT_FIRST_FAILED);
		return;
	}
	/* Somebody waits for a start of their own: that one is the restart, and comes without delay. */
	if (next(step))
		return;
	bool spent = machine->config.max_restarts > 0 && machine->failures >= machine->config.max_restarts;
	if (machine->config.restart == HANDOFF_RESTART_NEVER || spent)
		wind_down(step, HANDOFF_EXIT_GAVE_UP);
	else
		back_off(step);
}

/* ---- the supervisor's handlers ---- */

static void supervisor_ignore(struct handoff_step *step)
{
	(void)step;
}

static void supervisor_start(struct handoff_step *step)
{
	bool started = start(step, 0, false);
	assert(started);
	(void)started;
}

/* Puts the request into the queue of one: beside those who ask for the same, or in place of what waited there. */
static void supervisor_queue(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	const struct handoff_event *event = step->event;
	if (event->request == 0) {
		machine->signalled = true;
		return;
	}
	struct handoff_wish *waiting = &machine->waiting;
	if (waiting->id == 0 || waiting->key != event->key || waiting->if_generation != event->if_generation) {
		answer(step, waiting->id, HANDOFF_RESULT_SUPERSEDED, 0, HANDOFF_FAILURE_NONE);
		waiting->id = ++machine->last_wish;
		waiting->key = event->key;
		waiting->if_generation = event->if_generation;
	}
	struct handoff_action *action = act(step, HANDOFF_DO_JOIN);
	action->request = event->request;
	action->wish = waiting->id;
}

static void supervisor_reload(struct handoff_step *step)
{
	supervisor_queue(step);
	next(step);
}

/* In back-off the request is the restart. If it is refused, the back-off goes on. */
static void supervisor_reload_waiting(struct handoff_step *step)
{
	supervisor_queue(step);
	if (next(step))
		timer_stop(step, HANDOFF_TIMER_RESTART, 0);
}

static void supervisor_refuse(struct handoff_step *step)
{
	if (step->event->request == 0)
		return;
	struct handoff_action *action = act(step, HANDOFF_DO_REFUSE);
	action->request = step->event->request;
	action->result = HANDOFF_RESULT_REFUSED_STOPPING;
}

static void supervisor_stop(struct handoff_step *step)
{
	step->machine->stop_asked = true;
	wind_down(step, HANDOFF_EXIT_STOPPED);
}

static void supervisor_kill(struct handoff_step *step)
{
	step->machine->stop_asked = true;
	begin_end(step, HANDOFF_EXIT_STOPPED);
	terminate_all(step);
	done_when_empty(step);
}

/* While it winds down because the policy gave up, a first stop changes nothing; a second one is impatience. */
static void supervisor_stop_again(struct handoff_step *step)
{
	bool first = !step->machine->stop_asked;
	step->machine->stop_asked = true;
	if (!first)
		terminate_all(step);
}

static void supervisor_kill_stopping(struct handoff_step *step)
{
	step->machine->stop_asked = true;
	terminate_all(step);
}

static void supervisor_restart(struct handoff_step *step)
{
	if (!start(step, 0, false))
		back_off(step);
}

/* ---- a generation's handlers ---- */

static void generation_ignore(struct handoff_step *step, struct handoff_generation *generation)
{
	(void)step;
	(void)generation;
}

static void starting_ready(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->ready < generation->present)
		generation->ready++;
	if (generation->ready < generation->present)
		return;
	timer_stop(step, HANDOFF_TIMER_READY, generation->number);
	generation->state = GENERATION_SETTLING;
	timer_set(step, HANDOFF_TIMER_SETTLE, generation->number);
}

static void enforce_max_draining(struct handoff_step *step)
{
	struct handoff *machine = step->machine;
	uint32_t draining = 0;
	for (uint32_t i = machine->generation_count; i-- > 0;) {
		struct handoff_generation *generation = &machine->generations[i];
		if (generation->state != GENERATION_DRAINING || generation->killed)
			continue;
		if (++draining > machine->config.max_draining)
			kill_generation(step, generation, HANDOFF_KILL_MAX_DRAINING);
	}
}

/* A rolling hand-off goes on: an old worker may go, since a new one serves; then the next one starts. */
static void roll_on(struct handoff_step *step, struct handoff_generation *generation, struct handoff_generation *old)
{
	if (old && old->target > 1) {
		old->target--;
		act_on(step, HANDOFF_DO_DRAIN_ONE, old->number);
	}
	uint32_t missing = generation->target - generation->present;
	/* The old ones died meanwhile: there is nobody to take turns with. */
	uint32_t count = old ? 1 : missing;
	generation->present += count;
	generation->alive += count;
	generation->state = GENERATION_STARTING;
	struct handoff_action *action = act(step, HANDOFF_DO_SPAWN_MORE);
	action->generation = generation->number;
	action->count = count;
	timer_set(step, HANDOFF_TIMER_READY, generation->number);
}

static void settling_settled(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff *machine = step->machine;
	struct handoff_generation *old = find_state(machine, GENERATION_ACTIVE);
	if (generation->present < generation->target) {
		roll_on(step, generation, old);
		return;
	}
	generation->state = GENERATION_ACTIVE;
	machine->last_active = generation->number;
	machine->state = HANDOFF_RUNNING;
	act_on(step, HANDOFF_DO_ACTIVATE, generation->number);
	timer_set(step, HANDOFF_TIMER_HEALTHY, generation->number);
	answer(step, generation->wish, HANDOFF_RESULT_OK, generation->number, HANDOFF_FAILURE_NONE);
	generation->wish = 0;
	if (old)
		drain(step, old);
	enforce_max_draining(step);
	next(step);
}

static void replace_lost(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff_action *action = act(step, HANDOFF_DO_TIMER_SET);
	action->timer = HANDOFF_TIMER_WORKER;
	action->generation = generation->number;
	action->exponent = generation->losses > 0 ? generation->losses - 1 : 0;
}

/* What a rolling hand-off took from the active generation, it gets back. */
static void restore(struct handoff_step *step, struct handoff_generation *active)
{
	uint32_t workers = active->workers;
	if (active->target == workers)
		return;
	active->target = workers;
	replace_lost(step, active);
}

/* The start failed. What serves is left alone; the failed one may already have accepted connections, so it is asked to
 * drain before it is killed. */
static void fail(struct handoff_step *step, struct handoff_generation *generation, enum handoff_failure failure)
{
	struct handoff *machine = step->machine;
	timer_stop(step, HANDOFF_TIMER_READY, generation->number);
	timer_stop(step, HANDOFF_TIMER_SETTLE, generation->number);
	struct handoff_action *action = act(step, HANDOFF_DO_FAIL);
	action->generation = generation->number;
	action->failure = failure;
	answer(step, generation->wish, HANDOFF_RESULT_FAILED, generation->number, failure);
	generation->wish = 0;
	if (generation->present == 0) {
		release(step, generation);
	} else {
		generation->state = GENERATION_FAILING;
		act_on(step, HANDOFF_DO_DRAIN, generation->number);
		timer_set(step, HANDOFF_TIMER_ABORT, generation->number);
	}
	struct handoff_generation *active = find_state(machine, GENERATION_ACTIVE);
	if (active) {
		machine->state = HANDOFF_RUNNING;
		restore(step, active);
		next(step);
	} else {
		recover(step);
	}
}

static void starting_not_ready(struct handoff_step *step, struct handoff_generation *generation)
{
	fail(step, generation, HANDOFF_FAILURE_PROTOCOL);
}

static void starting_timeout(struct handoff_step *step, struct handoff_generation *generation)
{
	fail(step, generation, HANDOFF_FAILURE_TIMEOUT);
}

static void never_were(struct handoff_step *step, struct handoff_generation *generation)
{
	assert(step->event->count <= generation->present && step->event->count <= generation->alive);
	generation->present -= step->event->count;
	generation->alive -= step->event->count;
}

static void starting_spawn_failed(struct handoff_step *step, struct handoff_generation *generation)
{
	never_were(step, generation);
	fail(step, generation, HANDOFF_FAILURE_SPAWN);
}

static void one_exited(struct handoff_generation *generation)
{
	assert(generation->alive > 0);
	generation->alive--;
}

static void starting_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	one_exited(generation);
	fail(step, generation, HANDOFF_FAILURE_EXITED);
}

static void settling_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	one_exited(generation);
	fail(step, generation, HANDOFF_FAILURE_UNSETTLED);
}

/* The active generation is dead once its last worker is. What is left of its group still holds the listener and may be
 * serving, so it is asked to drain like any old generation. */
static void active_died(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff *machine = step->machine;
	timer_stop(step, HANDOFF_TIMER_HEALTHY, generation->number);
	timer_stop(step, HANDOFF_TIMER_WORKER, generation->number);
	generation->state = GENERATION_DRAINING;
	act_on(step, HANDOFF_DO_DIED, generation->number);
	act_on(step, HANDOFF_DO_DRAIN_REST, generation->number);
	timer_set(step, HANDOFF_TIMER_DRAIN, generation->number);
	if (machine->state == HANDOFF_REPLACING)
		machine->state = HANDOFF_STARTING;
	else if (step->event->clean && machine->config.restart == HANDOFF_RESTART_ON_FAILURE)
		wind_down(step, HANDOFF_EXIT_CLEAN);
	else
		recover(step);
}

/* One worker is lost; the others serve on. */
static void active_lost(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->alive == 0) {
		active_died(step, generation);
		return;
	}
	if (step->machine->config.restart == HANDOFF_RESTART_NEVER || generation->alive >= generation->target)
		return;
	if (generation->losses <= HANDOFF_EXPONENT_MAX)
		generation->losses++;
	replace_lost(step, generation);
}

static void active_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	one_exited(generation);
	active_lost(step, generation);
}

static void active_left(struct handoff_step *step, struct handoff_generation *generation)
{
	one_exited(generation);
	/* A rolling hand-off took it away, and then failed: its place is to be filled again. */
	if (generation->alive == 0)
		active_died(step, generation);
	else if (generation->alive < generation->target)
		replace_lost(step, generation);
}

static void active_spawn_failed(struct handoff_step *step, struct handoff_generation *generation)
{
	never_were(step, generation);
	active_lost(step, generation);
}

static void active_worker_due(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->alive >= generation->target)
		return;
	struct handoff_action *action = act(step, HANDOFF_DO_SPAWN_MORE);
	action->generation = generation->number;
	action->count = generation->target - generation->alive;
	generation->present += action->count;
	generation->alive += action->count;
}

static void active_healthy(struct handoff_step *step, struct handoff_generation *generation)
{
	generation->losses = 0;
	step->machine->failures = 0;
}

static void ending_exited(struct handoff_step *step, struct handoff_generation *generation)
{
	one_exited(generation);
	if (!generation->terminated && !generation->killed)
		act_on(step, HANDOFF_DO_DRAIN_REST, generation->number);
}

static void release_when_empty(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->present > 0)
		return;
	release(step, generation);
	if (step->machine->state == HANDOFF_STOPPING || step->machine->state == HANDOFF_KILLING)
		done_when_empty(step);
	else if (step->machine->state == HANDOFF_EMPTYING)
		start_when_empty(step);
}

static void ending_spawn_failed(struct handoff_step *step, struct handoff_generation *generation)
{
	never_were(step, generation);
	release_when_empty(step, generation);
}

static void active_gone(struct handoff_step *step, struct handoff_generation *generation)
{
	(void)step;
	assert(generation->present > generation->alive);
	generation->present--;
}

static void ending_gone(struct handoff_step *step, struct handoff_generation *generation)
{
	active_gone(step, generation);
	release_when_empty(step, generation);
}

static void ending_kill_due(struct handoff_step *step, struct handoff_generation *generation)
{
	if (step->machine->stop_asked && generation->state != GENERATION_FAILING)
		step->machine->forced = true;
	kill_generation(step, generation, HANDOFF_KILL_TIMEOUT);
}

static void draining_drain_due(struct handoff_step *step, struct handoff_generation *generation)
{
	/* --max-draining was faster. */
	if (generation->killed)
		return;
	if (step->machine->stop_asked)
		step->machine->forced = true;
	kill_generation(step, generation, HANDOFF_KILL_DRAIN_TIMEOUT);
}

/* ---- the tables ---- */

/* clang-format off */
#define IN(state_, start_, reload_, stop_, kill_, restart_due_) \
	[state_] = {[HANDOFF_START] = start_, [HANDOFF_RELOAD] = reload_, [HANDOFF_STOP] = stop_, \
	            [HANDOFF_KILL] = kill_, [HANDOFF_RESTART_DUE] = restart_due_}
#define ON(event_, starting_, settling_, active_, draining_, failing_) \
	[GENERATION_STARTING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = starting_, \
	[GENERATION_SETTLING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = settling_, \
	[GENERATION_ACTIVE][(event_) - HANDOFF_SUPERVISOR_EVENTS] = active_, \
	[GENERATION_DRAINING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = draining_, \
	[GENERATION_FAILING][(event_) - HANDOFF_SUPERVISOR_EVENTS] = failing_

#define unmoved supervisor_ignore
#define ignored generation_ignore

const struct handoff_tables handoff_tables = {
	.supervisor = {
		/* state              START             RELOAD                     STOP                   KILL                      RESTART_DUE */
		IN(HANDOFF_NEW,       supervisor_start, supervisor_refuse,         supervisor_stop,       supervisor_kill,          unmoved),
		IN(HANDOFF_STARTING,  unmoved,          supervisor_queue,          supervisor_stop,       supervisor_kill,          unmoved),
		IN(HANDOFF_RUNNING,   unmoved,          supervisor_reload,         supervisor_stop,       supervisor_kill,          unmoved),
		IN(HANDOFF_REPLACING, unmoved,          supervisor_queue,          supervisor_stop,       supervisor_kill,          unmoved),
		IN(HANDOFF_WAITING,   unmoved,          supervisor_reload_waiting, supervisor_stop,       supervisor_kill,          supervisor_restart),
		IN(HANDOFF_EMPTYING,  unmoved,          supervisor_queue,          supervisor_stop,       supervisor_kill,          unmoved),
		IN(HANDOFF_STOPPING,  unmoved,          supervisor_refuse,         supervisor_stop_again, supervisor_kill_stopping, unmoved),
		IN(HANDOFF_KILLING,   unmoved,          supervisor_refuse,         unmoved,               unmoved,                  unmoved),
		IN(HANDOFF_DONE,      unmoved,          supervisor_refuse,         unmoved,               unmoved,                  unmoved),
	},
	.generation = {
		/* event                 STARTING               SETTLING          ACTIVE          DRAINING             FAILING */
		/* Ready twice is ready; and a stop may come while it starts. */
		ON(HANDOFF_READY,        starting_ready,        ignored,          ignored,        ignored,             ignored),
		/* The protocol cannot fail after it has succeeded. */
		ON(HANDOFF_NOT_READY,    starting_not_ready,    ignored,          ignored,        ignored,             ignored),
		ON(HANDOFF_SPAWN_FAILED, starting_spawn_failed, ignored,          active_spawn_failed, ending_spawn_failed, ending_spawn_failed),
		ON(HANDOFF_EXITED,       starting_exited,       settling_exited,  active_exited,  ending_exited,       ending_exited),
		ON(HANDOFF_LEFT,         starting_exited,       settling_exited,  active_left,    ending_exited,       ending_exited),
		/* Before the end of a start or a settling comes an exit, which moves the generation on. */
		ON(HANDOFF_GONE,         ignored,               ignored,          active_gone,    ending_gone,         ending_gone),
		ON(HANDOFF_READY_DUE,    starting_timeout,      ignored,          ignored,        ignored,             ignored),
		ON(HANDOFF_SETTLE_DUE,   ignored,               settling_settled, ignored,        ignored,             ignored),
		ON(HANDOFF_DRAIN_DUE,    ignored,               ignored,          ignored,        draining_drain_due,  ignored),
		ON(HANDOFF_KILL_DUE,     ignored,               ignored,          ignored,        ending_kill_due,     ending_kill_due),
		ON(HANDOFF_HEALTHY_DUE,  ignored,               ignored,          active_healthy, ignored,             ignored),
		ON(HANDOFF_WORKER_DUE,   ignored,               ignored,          active_worker_due, ignored,          ignored),
	},
};
/* clang-format on */

/* ---- outside ---- */

void handoff_init(struct handoff *machine, const struct handoff_config *config)
{
	assert(config->max_draining >= 1 && config->workers >= 1);
	memset(machine, 0, sizeof(*machine));
	machine->config = *config;
}

uint32_t handoff_set_workers(struct handoff *machine, uint32_t number, uint32_t workers)
{
	struct handoff_generation *generation = find_number(machine, number);
	assert(generation && generation->state == GENERATION_STARTING && workers >= 1);
	generation->target = generation->workers = workers;
	return generation->present = generation->alive = first_batch(machine, workers);
}

void handoff_step_with(const struct handoff_tables *tables, struct handoff *machine, const struct handoff_event *event,
		       struct handoff_actions *actions)
{
	struct handoff_step step = {.machine = machine, .event = event, .actions = actions};
	actions->count = 0;
	if (event->kind < HANDOFF_SUPERVISOR_EVENTS) {
		tables->supervisor[machine->state][event->kind](&step);
		return;
	}
	struct handoff_generation *generation = find_number(machine, event->generation);
	/* A late event of one that is gone. */
	if (!generation)
		return;
	tables->generation[generation->state][event->kind - HANDOFF_SUPERVISOR_EVENTS](&step, generation);
}

void handoff_step(struct handoff *machine, const struct handoff_event *event, struct handoff_actions *actions)
{
	handoff_step_with(&handoff_tables, machine, event, actions);
}
