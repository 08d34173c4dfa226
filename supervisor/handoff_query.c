/* SPDX-License-Identifier: MIT */
/* Looking into the pure state machine, without changing it. */
#include "handoff.h"

static const struct handoff_generation *find_state(const struct handoff *machine, enum handoff_generation_state state)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].state == state)
			return &machine->generations[i];
	return NULL;
}

const struct handoff_generation *handoff_active(const struct handoff *machine)
{
	return find_state(machine, GENERATION_ACTIVE);
}

const struct handoff_generation *handoff_starting(const struct handoff *machine)
{
	const struct handoff_generation *generation = find_state(machine, GENERATION_STARTING);
	return generation ? generation : find_state(machine, GENERATION_SETTLING);
}

const struct handoff_generation *handoff_find(const struct handoff *machine, uint32_t number)
{
	for (uint32_t i = 0; i < machine->generation_count; i++)
		if (machine->generations[i].number == number)
			return &machine->generations[i];
	return NULL;
}

const char *handoff_event_name(enum handoff_event_kind kind)
{
	static const char *const names[HANDOFF_EVENTS] = {
		[HANDOFF_START] = "start",
		[HANDOFF_RELOAD] = "reload",
		[HANDOFF_STOP] = "stop",
		[HANDOFF_KILL] = "kill",
		[HANDOFF_RESTART_DUE] = "restart-due",
		[HANDOFF_READY] = "ready",
		[HANDOFF_NOT_READY] = "not-ready",
		[HANDOFF_SPAWN_FAILED] = "spawn-failed",
		[HANDOFF_EXITED] = "exited",
		[HANDOFF_LEFT] = "left",
		[HANDOFF_GONE] = "gone",
		[HANDOFF_READY_DUE] = "ready-due",
		[HANDOFF_SETTLE_DUE] = "settle-due",
		[HANDOFF_DRAIN_DUE] = "drain-due",
		[HANDOFF_KILL_DUE] = "kill-due",
		[HANDOFF_HEALTHY_DUE] = "healthy-due",
		[HANDOFF_WORKER_DUE] = "worker-due",
	};
	return (unsigned)kind < HANDOFF_EVENTS ? names[kind] : "?";
}
