/* SPDX-License-Identifier: MIT */
/* For the tests of the state machine: one machine, events in, and what it does as words. */
#ifndef HANDOFF_HANDOFF_FIXTURE_H
#define HANDOFF_HANDOFF_FIXTURE_H

#include <stdarg.h>

#include "handoff.h"
#include "../lib/test.h"

static struct handoff machine;
static struct handoff_actions actions;
static char told[8192]; /* what the last event made it do */

static inline void say(const char *format, ...) PRINTF_LIKE(1, 2);
static inline void say(const char *format, ...)
{
	size_t used = strlen(told);
	va_list values;
	va_start(values, format);
	vsnprintf(told + used, sizeof(told) - used, format, values);
	va_end(values);
}

static const char *const timers[] = {
	[HANDOFF_TIMER_READY] = "ready",   [HANDOFF_TIMER_SETTLE] = "settle",  [HANDOFF_TIMER_DRAIN] = "drain",
	[HANDOFF_TIMER_KILL] = "kill",     [HANDOFF_TIMER_ABORT] = "abort",    [HANDOFF_TIMER_HEALTHY] = "healthy",
	[HANDOFF_TIMER_WORKER] = "worker", [HANDOFF_TIMER_RESTART] = "restart"};
static const char *const results[] = {[HANDOFF_RESULT_OK] = "ok",
				      [HANDOFF_RESULT_FAILED] = "failed",
				      [HANDOFF_RESULT_REFUSED_STOPPING] = "stopping",
				      [HANDOFF_RESULT_REFUSED_GENERATION] = "other-generation",
				      [HANDOFF_RESULT_SUPERSEDED] = "superseded"};
static const char *const failures[] = {[HANDOFF_FAILURE_NONE] = "",
				       [HANDOFF_FAILURE_EXITED] = "exited",
				       [HANDOFF_FAILURE_UNSETTLED] = "unsettled",
				       [HANDOFF_FAILURE_TIMEOUT] = "timeout",
				       [HANDOFF_FAILURE_PROTOCOL] = "protocol",
				       [HANDOFF_FAILURE_SPAWN] = "spawn",
				       [HANDOFF_FAILURE_NO_ROOM] = "no-room"};
static const char *const reasons[] = {[HANDOFF_KILL_DRAIN_TIMEOUT] = "drain-timeout",
				      [HANDOFF_KILL_TIMEOUT] = "timeout",
				      [HANDOFF_KILL_MAX_DRAINING] = "max-draining"};

static inline void say_action(const struct handoff_action *action)
{
	static const char *const simple[] = {[HANDOFF_DO_ACTIVATE] = "activate",
					     [HANDOFF_DO_EMPTY] = "empty",
					     [HANDOFF_DO_DIED] = "died",
					     [HANDOFF_DO_DRAIN] = "drain",
					     [HANDOFF_DO_DRAIN_ONE] = "drain-one",
					     [HANDOFF_DO_DRAIN_REST] = "drain-rest",
					     [HANDOFF_DO_TERMINATE] = "terminate",
					     [HANDOFF_DO_RELEASE] = "release",
					     [HANDOFF_DO_CLOSE_LISTENERS] = "close-all",
					     [HANDOFF_DO_EXIT] = "exit"};
	if (told[0])
		say(" ");
	if (action->kind == HANDOFF_DO_SPAWN)
		say("spawn:%u*%u/%u", action->generation, action->count, action->wish);
	else if (action->kind == HANDOFF_DO_SPAWN_MORE)
		say("spawn-more:%u*%u", action->generation, action->count);
	else if (action->kind == HANDOFF_DO_FAIL)
		say("fail:%u/%s", action->generation, failures[action->failure]);
	else if (action->kind == HANDOFF_DO_KILL)
		say("kill:%u/%s", action->generation, reasons[action->why]);
	else if (action->kind == HANDOFF_DO_TIMER_SET && action->timer == HANDOFF_TIMER_RESTART)
		say("+restart/%u", action->exponent);
	else if (action->kind == HANDOFF_DO_TIMER_SET && action->timer == HANDOFF_TIMER_WORKER)
		say("+worker:%u/%u", action->generation, action->exponent);
	else if (action->kind == HANDOFF_DO_TIMER_SET)
		say("+%s:%u", timers[action->timer], action->generation);
	else if (action->kind == HANDOFF_DO_TIMER_STOP)
		say("-%s:%u", timers[action->timer], action->generation);
	else if (action->kind == HANDOFF_DO_JOIN)
		say("join:%u/%u", action->request, action->wish);
	else if (action->kind == HANDOFF_DO_ANSWER)
		say("answer/%u:%u/%s%s", action->wish, action->generation, results[action->result],
		    action->failure ? "!" : "");
	else if (action->kind == HANDOFF_DO_REFUSE)
		say("refuse:%u/%s", action->request, results[action->result]);
	else if (action->generation)
		say("%s:%u", simple[action->kind], action->generation);
	else
		say("%s", simple[action->kind]);
}

static inline const char *feed(struct handoff_event event)
{
	handoff_step(&machine, &event, &actions);
	told[0] = '\0';
	for (uint32_t i = 0; i < actions.count; i++)
		say_action(&actions.items[i]);
	return told;
}

static inline const char *ask(enum handoff_event_kind kind)
{
	return feed((struct handoff_event){.kind = kind});
}

static inline const char *tell(enum handoff_event_kind kind, uint32_t generation)
{
	return feed((struct handoff_event){.kind = kind, .generation = generation});
}

static inline const char *leave(uint32_t generation, bool clean)
{
	return feed((struct handoff_event){.kind = HANDOFF_EXITED, .generation = generation, .clean = clean});
}

/* One that was told to drain. */
static inline const char *go(uint32_t generation)
{
	return feed((struct handoff_event){.kind = HANDOFF_LEFT, .generation = generation, .clean = true});
}

static inline const char *request(uint32_t number, uint32_t key, uint32_t if_generation)
{
	return feed((struct handoff_event){
		.kind = HANDOFF_RELOAD, .request = number, .key = key, .if_generation = if_generation});
}

static inline const char *spawn_failed(uint32_t generation, uint32_t count)
{
	return feed((struct handoff_event){.kind = HANDOFF_SPAWN_FAILED, .generation = generation, .count = count});
}

static inline void make(struct handoff_config config)
{
	config.workers = config.workers ? config.workers : 1;
	config.max_draining = config.max_draining ? config.max_draining : 16;
	handoff_init(&machine, &config);
}

static inline void become_active(uint32_t generation)
{
	for (uint32_t i = 0; i < machine.config.workers; i++)
		tell(HANDOFF_READY, generation);
	tell(HANDOFF_SETTLE_DUE, generation);
	check_int(machine.last_active, generation);
}

static inline void make_running(struct handoff_config config)
{
	make(config);
	ask(HANDOFF_START);
	become_active(1);
	check_int(machine.state, HANDOFF_RUNNING);
}

static const struct handoff_config on_failure = {.restart = HANDOFF_RESTART_ON_FAILURE};

static inline void check_state(enum handoff_state state)
{
	check_int(machine.state, state);
}

static inline void check_generation(uint32_t number, enum handoff_generation_state state)
{
	const struct handoff_generation *generation = handoff_find(&machine, number);
	check(generation != NULL);
	check_int(generation->state, state);
}

static inline void check_exit(enum handoff_exit reason, bool forced)
{
	check_state(HANDOFF_DONE);
	check_int(machine.exit, reason);
	check_int(machine.forced, forced);
	check_int(machine.generation_count, 0);
}

#endif
