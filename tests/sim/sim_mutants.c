/* SPDX-License-Identifier: MIT */
/* Proves that the invariants can fire: each mutant is the machine with one cell changed, and must be caught.
 *
 * First by hand, one mistake for each invariant, which must break that one and no other; then every cell that does
 * something is made to do nothing, which any invariant may notice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"
#include "life.h"

#define EVENTS_EACH 2000000
#define LOOK_AHEAD_EVERY 64

static struct life life;
static uint64_t tried; /* events until the first wrong step */

/* The set of what the first wrong step broke; 0 when nothing was noticed. */
static uint32_t first_broken(const struct handoff_tables *tables)
{
	tried = 0;
	memset(&life.verdicts, 0, sizeof(life.verdicts));
	for (uint64_t seed = 1; tried < EVENTS_EACH; seed++) {
		life_begin(&life, tables, seed);
		while (life.verdicts.broken == 0 && life.world.events < EVENTS_EACH && life_step(&life))
			if (life.verdicts.broken == 0 && life.world.events % LOOK_AHEAD_EVERY == 0)
				life_is_live(&life);
		tried += life.world.events;
		if (life.verdicts.broken != 0)
			return life.verdicts.broken;
	}
	return 0;
}

/* ---- mistakes ---- */

static struct handoff_action *act(struct handoff_step *step, enum handoff_action_kind kind, uint32_t generation)
{
	struct handoff_action *action = &step->actions->items[step->actions->count++];
	*action = (struct handoff_action){.kind = kind, .generation = generation};
	return action;
}

static struct handoff_generation *active(struct handoff *machine)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].state == GENERATION_ACTIVE)
			return &machine->generations[i];
	return NULL;
}

/* What the real table does in the cell that a mistake took the place of. */
static void rightly(struct handoff_step *step, struct handoff_generation *generation)
{
	handoff_tables.generation[generation->state][step->event->kind - HANDOFF_SUPERVISOR_EVENTS](step, generation);
}

static void rightly_too(struct handoff_step *step)
{
	handoff_tables.supervisor[step->machine->state][step->event->kind](step);
}

static void drains_at_ready(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff_generation *old = active(step->machine);
	rightly(step, generation);
	if (generation->state != GENERATION_SETTLING || !old)
		return;
	act(step, HANDOFF_DO_TIMER_STOP, old->number)->timer = HANDOFF_TIMER_HEALTHY;
	act(step, HANDOFF_DO_DRAIN, old->number);
	act(step, HANDOFF_DO_TIMER_SET, old->number)->timer = HANDOFF_TIMER_DRAIN;
	old->state = GENERATION_DRAINING;
	step->machine->state = HANDOFF_STARTING;
}

static void failure_touches_active(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff_generation *old = active(step->machine);
	uint32_t number = old ? old->number : 0;
	rightly(step, generation);
	if (number != 0)
		act(step, HANDOFF_DO_TIMER_STOP, number)->timer = HANDOFF_TIMER_HEALTHY;
}

/* Taken for a request while it runs. */
static void starts_though_stopping(struct handoff_step *step)
{
	handoff_tables.supervisor[HANDOFF_RUNNING][HANDOFF_RELOAD](step);
}

static void counts_signals(struct handoff_step *step, struct handoff_generation *generation)
{
	bool signalled = step->machine->signalled;
	rightly(step, generation);
	step->machine->signalled = signalled && step->machine->state == HANDOFF_REPLACING;
}

static void forgets_signals(struct handoff_step *step)
{
	if (step->event->request != 0)
		rightly_too(step);
}

static void releases_at_exit(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	act(step, HANDOFF_DO_RELEASE, generation->number);
}

static void forgets_requests(struct handoff_step *step)
{
	if (step->event->request == 0)
		rightly_too(step);
}

static void answers_before_settled(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	if (generation->state != GENERATION_SETTLING || generation->wish == 0)
		return;
	struct handoff_action *answer = act(step, HANDOFF_DO_ANSWER, generation->number);
	answer->wish = generation->wish;
	answer->result = HANDOFF_RESULT_OK;
	generation->wish = 0;
}

static void joins_what_has_begun(struct handoff_step *step)
{
	const struct handoff_generation *new = handoff_starting(step->machine);
	if (step->event->request == 0 || !new || new->wish == 0) {
		rightly_too(step);
		return;
	}
	struct handoff_action *join = act(step, HANDOFF_DO_JOIN, 0);
	join->wish = new->wish;
	join->request = step->event->request;
}

static void closes_when_healthy(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	act(step, HANDOFF_DO_CLOSE_LISTENERS, 0);
}

static void closes_again(struct handoff_step *step)
{
	rightly_too(step);
	act(step, HANDOFF_DO_CLOSE_LISTENERS, 0);
}

static void waits_for_ever(struct handoff_step *step)
{
	act(step, HANDOFF_DO_TIMER_SET, 0)->timer = HANDOFF_TIMER_RESTART;
}

static void runs_at_ready(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	if (generation->state == GENERATION_SETTLING)
		step->machine->state = HANDOFF_RUNNING;
}

static void does_nothing(struct handoff_step *step, struct handoff_generation *generation)
{
	(void)step;
	(void)generation;
}

static void exits_at_once(struct handoff_step *step)
{
	rightly_too(step);
	if (step->machine->state == HANDOFF_DONE)
		return;
	step->machine->state = HANDOFF_DONE;
	act(step, HANDOFF_DO_EXIT, 0);
}

static void drains_without_bound(struct handoff_step *step, struct handoff_generation *generation)
{
	uint32_t bound = step->machine->config.max_draining;
	step->machine->config.max_draining = UINT32_MAX;
	rightly(step, generation);
	step->machine->config.max_draining = bound;
}

static void settles_without_deadline(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	if (generation->state == GENERATION_SETTLING)
		act(step, HANDOFF_DO_TIMER_STOP, generation->number)->timer = HANDOFF_TIMER_SETTLE;
}

static void ignores_impatience(struct handoff_step *step)
{
	step->machine->stop_asked = true;
}

static void starts_beside_the_old_one(struct handoff_step *step)
{
	bool stop_first = step->machine->config.stop_first;
	step->machine->config.stop_first = false;
	rightly_too(step);
	step->machine->config.stop_first = stop_first;
}

static void closes_while_it_empties(struct handoff_step *step)
{
	rightly_too(step);
	if (step->machine->state == HANDOFF_EMPTYING)
		act(step, HANDOFF_DO_CLOSE_LISTENERS, 0);
}

/* Taken for one of many that drain while another serves. */
static void stays_empty(struct handoff_step *step, struct handoff_generation *generation)
{
	bool empties = step->machine->state == HANDOFF_EMPTYING;
	if (empties)
		step->machine->state = HANDOFF_RUNNING;
	rightly(step, generation);
	if (empties)
		step->machine->state = HANDOFF_EMPTYING;
}

static void rolls_too_fast(struct handoff_step *step, struct handoff_generation *generation)
{
	uint32_t before = step->actions->count;
	struct handoff_generation *old = active(step->machine);
	rightly(step, generation);
	if (before == step->actions->count || generation->state != GENERATION_STARTING || !old || old->target < 2 ||
	    old->alive - old->leaving < 2)
		return;
	old->target--;
	old->leaving++;
	act(step, HANDOFF_DO_DRAIN_ONE, old->number);
}

static void starts_all_that_are_missing(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	uint32_t more = generation->state == GENERATION_STARTING ? generation->target - generation->present : 0;
	if (more == 0)
		return;
	struct handoff_action *action = &step->actions->items[step->actions->count - 2];
	action->count += more;
	generation->present += more;
	generation->alive += more;
}

static void keeps_what_it_took(struct handoff_step *step, struct handoff_generation *generation)
{
	struct handoff_generation *old = active(step->machine);
	if (old)
		old->target = old->workers;
	rightly(step, generation);
}

static void does_not_miss_one(struct handoff_step *step, struct handoff_generation *generation)
{
	if (generation->alive == 1)
		rightly(step, generation);
	else
		generation->alive--;
}

/* As if all of it had died. */
static void loses_all_with_one(struct handoff_step *step, struct handoff_generation *generation)
{
	uint32_t others = generation->alive - 1;
	generation->alive = 1;
	rightly(step, generation);
	generation->alive = others;
}

static void repeats_itself(struct handoff_step *step, struct handoff_generation *generation)
{
	rightly(step, generation);
	for (int i = 0; i < 3 * 8 + 16; i++)
		act(step, HANDOFF_DO_TIMER_STOP, generation->number)->timer = HANDOFF_TIMER_HEALTHY;
}

/* ---- by hand ---- */

static void change(struct handoff_tables *tables, enum handoff_generation_state state, enum handoff_event_kind event,
		   handoff_generation_fn function)
{
	tables->generation[state][event - HANDOFF_SUPERVISOR_EVENTS] = function;
}

static const struct {
	const char *name;
	enum invariant breaks;
	uint32_t state; /* of the generation, or where `supervisor` is set, of the supervisor */
	enum handoff_event_kind event;
	handoff_generation_fn generation;
	handoff_supervisor_fn supervisor;
} mistakes[] = {
	{"drains the old one at ready", INVARIANT_SERVING_IS_KEPT, GENERATION_STARTING, HANDOFF_READY, drains_at_ready,
	 NULL},
	{"a failed start touches the active one", INVARIANT_FAILURE_CHANGES_NOTHING, GENERATION_STARTING,
	 HANDOFF_EXITED, failure_touches_active, NULL},
	{"starts though stopping", INVARIANT_STOP_IS_FINAL, HANDOFF_STOPPING, HANDOFF_RELOAD, NULL,
	 starts_though_stopping},
	{"counts signals", INVARIANT_BURSTS_FOLD, GENERATION_SETTLING, HANDOFF_SETTLE_DUE, counts_signals, NULL},
	{"forgets signals in a hand-off", INVARIANT_BURSTS_FOLD, HANDOFF_REPLACING, HANDOFF_RELOAD, NULL,
	 forgets_signals},
	{"releases at the first exit", INVARIANT_RELEASED_ONCE, GENERATION_DRAINING, HANDOFF_EXITED, releases_at_exit,
	 NULL},
	{"forgets requests", INVARIANT_ONE_ANSWER, HANDOFF_RUNNING, HANDOFF_RELOAD, NULL, forgets_requests},
	{"answers before it has settled", INVARIANT_ONE_ANSWER, GENERATION_STARTING, HANDOFF_READY,
	 answers_before_settled, NULL},
	{"joins a start that has begun", INVARIANT_ONE_ANSWER, HANDOFF_REPLACING, HANDOFF_RELOAD, NULL,
	 joins_what_has_begun},
	{"closes the listeners while it serves", INVARIANT_LISTENERS_CLOSE_ONCE, GENERATION_ACTIVE, HANDOFF_HEALTHY_DUE,
	 closes_when_healthy, NULL},
	{"waits for ever to restart", INVARIANT_LIVENESS, HANDOFF_WAITING, HANDOFF_RESTART_DUE, NULL, waits_for_ever},
	{"says that it runs while one settles", INVARIANT_STATES_AGREE, GENERATION_STARTING, HANDOFF_READY,
	 runs_at_ready, NULL},
	{"does not count an exit", INVARIANT_COUNTS_AGREE, GENERATION_DRAINING, HANDOFF_EXITED, does_nothing, NULL},
	{"exits at once", INVARIANT_EXIT_IS_EMPTY, HANDOFF_RUNNING, HANDOFF_STOP, NULL, exits_at_once},
	{"drains without bound", INVARIANT_DRAINING_BOUNDED, GENERATION_SETTLING, HANDOFF_SETTLE_DUE,
	 drains_without_bound, NULL},
	{"settles without a deadline", INVARIANT_TIMERS_ARMED, GENERATION_STARTING, HANDOFF_READY,
	 settles_without_deadline, NULL},
	{"closes the listeners again", INVARIANT_LISTENERS_CLOSE_ONCE, HANDOFF_STOPPING, HANDOFF_STOP, NULL,
	 closes_again},
	{"ignores a protocol that fails", INVARIANT_FAILURE_IS_NOTICED, GENERATION_STARTING, HANDOFF_NOT_READY,
	 does_nothing, NULL},
	{"starts beside the old one, though stop-first", INVARIANT_EMPTY_FIRST, HANDOFF_RUNNING, HANDOFF_RELOAD, NULL,
	 starts_beside_the_old_one},
	{"closes the listeners while nobody is there yet", INVARIANT_LISTENERS_CLOSE_ONCE, HANDOFF_RUNNING,
	 HANDOFF_RELOAD, NULL, closes_while_it_empties},
	{"starts nothing when the old one is gone", INVARIANT_EMPTYING_ENDS, GENERATION_DRAINING, HANDOFF_GONE,
	 stays_empty, NULL},
	{"tells two old workers to go for one that is new", INVARIANT_ROLLING_SERVES, GENERATION_SETTLING,
	 HANDOFF_SETTLE_DUE, rolls_too_fast, NULL},
	{"starts all the others after the first new worker", INVARIANT_ROLLING_SERVES, GENERATION_SETTLING,
	 HANDOFF_SETTLE_DUE, starts_all_that_are_missing, NULL},
	{"gives nothing back when a rolling hand-off fails", INVARIANT_ROLLED_BACK, GENERATION_STARTING, HANDOFF_EXITED,
	 keeps_what_it_took, NULL},
	{"does not replace a lost worker", INVARIANT_LOST_REPLACED, GENERATION_ACTIVE, HANDOFF_EXITED,
	 does_not_miss_one, NULL},
	{"takes one lost worker for all of them", INVARIANT_OTHERS_UNTOUCHED, GENERATION_ACTIVE, HANDOFF_EXITED,
	 loses_all_with_one, NULL},
	{"repeats itself", INVARIANT_ACTIONS_FIT, GENERATION_ACTIVE, HANDOFF_HEALTHY_DUE, repeats_itself, NULL},
	{"ignores a second stop", INVARIANT_END_REACHES_ALL, HANDOFF_STOPPING, HANDOFF_STOP, NULL, ignores_impatience},
};

static int run_by_hand(int number)
{
	int failed = 0;
	for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
		struct handoff_tables tables = handoff_tables;
		if (mistakes[i].supervisor)
			tables.supervisor[mistakes[i].state][mistakes[i].event] = mistakes[i].supervisor;
		else
			change(&tables, (enum handoff_generation_state)mistakes[i].state, mistakes[i].event,
			       mistakes[i].generation);
		uint32_t broken = first_broken(&tables);
		bool caught = broken == 1U << mistakes[i].breaks;
		printf("%sok %d - mutants: %s\n", caught ? "" : "not ", number + (int)i, mistakes[i].name);
		if (broken)
			printf("# after %llu events\n", (unsigned long long)tried);
		describe_broken(broken);
		failed += !caught;
	}
	for (uint32_t i = 0; i < INVARIANTS; i++) {
		bool made = false;
		for (size_t j = 0; j < ARRAY_SIZE(mistakes); j++)
			made = made || mistakes[j].breaks == (enum invariant)i;
		if (!made)
			printf("# no mutant for: %s\n", invariant_title((enum invariant)i));
		failed += !made;
	}
	return failed;
}

/* ---- one cell after the other ---- */

static int report_idle(int *number, const char *what, const char *state, enum handoff_event_kind event,
		       const struct handoff_tables *tables)
{
	uint32_t broken = first_broken(tables);
	printf("%sok %d - mutants: %s %s ignores %s\n", broken ? "" : "not ", (*number)++, what, state,
	       handoff_event_name(event));
	describe_broken(broken);
	return broken == 0;
}

/* None that starts is told to drain. */
static bool cannot_happen(uint32_t state, uint32_t event)
{
	return (state == GENERATION_STARTING || state == GENERATION_SETTLING) &&
	       event == HANDOFF_LEFT - HANDOFF_SUPERVISOR_EVENTS;
}

static int run_idle(int number)
{
	const handoff_supervisor_fn unmoved = handoff_tables.supervisor[HANDOFF_DONE][HANDOFF_STOP];
	const handoff_generation_fn ignored =
		handoff_tables.generation[GENERATION_ACTIVE][HANDOFF_READY - HANDOFF_SUPERVISOR_EVENTS];
	int failed = 0;
	for (uint32_t state = 0; state < HANDOFF_STATES; state++)
		for (uint32_t event = 0; event < HANDOFF_SUPERVISOR_EVENTS; event++) {
			struct handoff_tables tables = handoff_tables;
			tables.supervisor[state][event] = unmoved;
			if (handoff_tables.supervisor[state][event] != unmoved)
				failed += report_idle(&number, "supervisor", describe_state((enum handoff_state)state),
						      (enum handoff_event_kind)event, &tables);
		}
	for (uint32_t state = 0; state < GENERATION_STATES; state++)
		for (uint32_t event = 0; event < HANDOFF_GENERATION_EVENTS; event++) {
			struct handoff_tables tables = handoff_tables;
			tables.generation[state][event] = ignored;
			if (handoff_tables.generation[state][event] != ignored && !cannot_happen(state, event))
				failed += report_idle(&number, "generation",
						      describe_generation_state((enum handoff_generation_state)state),
						      (enum handoff_event_kind)(event + HANDOFF_SUPERVISOR_EVENTS),
						      &tables);
		}
	printf("1..%d\n", number - 1);
	return failed;
}

int main(void)
{
	int failed = run_by_hand(1);
	failed += run_idle(1 + (int)ARRAY_SIZE(mistakes));
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
