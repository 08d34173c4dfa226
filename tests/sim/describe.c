/* SPDX-License-Identifier: MIT */
/* Events, actions and states of the machine as people read them. */
#include "describe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const states[HANDOFF_STATES] = {
	[HANDOFF_NEW] = "new",           [HANDOFF_STARTING] = "starting",
	[HANDOFF_RUNNING] = "running",   [HANDOFF_REPLACING] = "replacing",
	[HANDOFF_WAITING] = "waiting",   [HANDOFF_STOPPING] = "stopping",
	[HANDOFF_KILLING] = "killing",   [HANDOFF_DONE] = "done",
	[HANDOFF_EMPTYING] = "emptying",
};
static const char *const generation_states[GENERATION_STATES] = {
	[GENERATION_STARTING] = "starting", [GENERATION_SETTLING] = "settling", [GENERATION_ACTIVE] = "active",
	[GENERATION_DRAINING] = "draining", [GENERATION_FAILING] = "failing",
};
static const char *const timers[] = {
	[HANDOFF_TIMER_READY] = "ready",   [HANDOFF_TIMER_SETTLE] = "settle",   [HANDOFF_TIMER_DRAIN] = "drain",
	[HANDOFF_TIMER_KILL] = "kill",     [HANDOFF_TIMER_ABORT] = "abort",     [HANDOFF_TIMER_HEALTHY] = "healthy",
	[HANDOFF_TIMER_WORKER] = "worker", [HANDOFF_TIMER_RESTART] = "restart",
};
static const char *const results[] = {
	[HANDOFF_RESULT_OK] = "ok",
	[HANDOFF_RESULT_FAILED] = "failed",
	[HANDOFF_RESULT_REFUSED_STOPPING] = "refused: stopping",
	[HANDOFF_RESULT_REFUSED_GENERATION] = "refused: another generation",
	[HANDOFF_RESULT_SUPERSEDED] = "superseded",
};
static const char *const failures[] = {
	[HANDOFF_FAILURE_NONE] = "none",           [HANDOFF_FAILURE_EXITED] = "exited",
	[HANDOFF_FAILURE_UNSETTLED] = "unsettled", [HANDOFF_FAILURE_TIMEOUT] = "timeout",
	[HANDOFF_FAILURE_PROTOCOL] = "protocol",   [HANDOFF_FAILURE_SPAWN] = "spawn",
	[HANDOFF_FAILURE_NO_ROOM] = "no room",
};
static const char *const actions[] = {
	[HANDOFF_DO_SPAWN] = "spawn",
	[HANDOFF_DO_SPAWN_MORE] = "spawn more",
	[HANDOFF_DO_EMPTY] = "empty",
	[HANDOFF_DO_DRAIN_ONE] = "drain one",
	[HANDOFF_DO_ACTIVATE] = "activate",
	[HANDOFF_DO_FAIL] = "fail",
	[HANDOFF_DO_DIED] = "died",
	[HANDOFF_DO_DRAIN] = "drain",
	[HANDOFF_DO_DRAIN_REST] = "drain the rest",
	[HANDOFF_DO_TERMINATE] = "terminate",
	[HANDOFF_DO_KILL] = "kill",
	[HANDOFF_DO_RELEASE] = "release",
	[HANDOFF_DO_TIMER_SET] = "set timer",
	[HANDOFF_DO_TIMER_STOP] = "stop timer",
	[HANDOFF_DO_CLOSE_LISTENERS] = "close listeners",
	[HANDOFF_DO_JOIN] = "join",
	[HANDOFF_DO_ANSWER] = "answer",
	[HANDOFF_DO_REFUSE] = "refuse",
	[HANDOFF_DO_EXIT] = "exit",
};

const char *describe_state(enum handoff_state state)
{
	return states[state];
}

const char *describe_generation_state(enum handoff_generation_state state)
{
	return generation_states[state];
}

struct text {
	char *start;
	size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
	va_list values;
	va_start(values, format);
	int length = vsnprintf(text->start + text->used, text->size - text->used, format, values);
	va_end(values);
	if (length > 0)
		text->used += (size_t)length;
	if (text->used >= text->size)
		text->used = text->size - 1;
}

static void add_event(struct text *text, const struct handoff_event *event)
{
	add(text, "%s", handoff_event_name(event->kind));
	if (event->generation)
		add(text, " g%u", event->generation);
	if (event->count)
		add(text, " count %u", event->count);
	if (event->kind == HANDOFF_EXITED || event->kind == HANDOFF_LEFT)
		add(text, "%s", event->clean ? " clean" : " with a failure");
	if (event->request)
		add(text, " request %u key %u if-generation %u", event->request, event->key, event->if_generation);
	else if (event->kind == HANDOFF_RELOAD)
		add(text, " by signal");
}

static void add_action(struct text *text, const struct handoff_action *action)
{
	add(text, "\n#        %s", actions[action->kind]);
	if (action->kind == HANDOFF_DO_TIMER_SET || action->kind == HANDOFF_DO_TIMER_STOP)
		add(text, " %s", timers[action->timer]);
	if (action->generation)
		add(text, " g%u", action->generation);
	if (action->request)
		add(text, " request %u", action->request);
	if (action->wish)
		add(text, " wish %u", action->wish);
	if (action->kind == HANDOFF_DO_ANSWER || action->kind == HANDOFF_DO_REFUSE)
		add(text, ": %s", results[action->result]);
	if (action->failure)
		add(text, ": %s", failures[action->failure]);
	if (action->count)
		add(text, " count %u", action->count);
	if (action->asked)
		add(text, " asked");
	if (action->exponent)
		add(text, " exponent %u", action->exponent);
}

void describe_step(char *buffer, size_t size, const struct world_step *step)
{
	const struct handoff *machine = &step->after->machine;
	struct text text = {.start = buffer, .size = size};
	add(&text, "# %6llu ", (unsigned long long)step->after->events);
	add_event(&text, step->event);
	for (uint32_t i = 0; i < step->actions->count; i++)
		add_action(&text, &step->actions->items[i]);
	add(&text, "\n#        = %s", states[machine->state]);
	/* Of many that end, those matter that are new. */
	uint32_t from = machine->generation_count > 6 ? machine->generation_count - 6 : 0;
	if (from > 0)
		add(&text, ", %u older", from);
	for (uint32_t i = from; i < machine->generation_count; i++) {
		const struct handoff_generation *generation = &machine->generations[i];
		add(&text, ", g%u %s %u/%u/%u of %u", generation->number, generation_states[generation->state],
		    generation->ready, generation->alive, generation->present, generation->workers);
		if (generation->target != generation->workers || generation->leaving > 0)
			add(&text, " (to have %u, %u leaving)", generation->target, generation->leaving);
	}
}

void describe_broken(uint32_t broken)
{
	for (uint32_t i = 0; i < INVARIANTS; i++)
		if (broken & (1U << i))
			printf("# broken: %s\n", invariant_title((enum invariant)i));
}
