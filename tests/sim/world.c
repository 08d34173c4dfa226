/* SPDX-License-Identifier: MIT */
/* The world around the state machine: what happens, what is queued, and what the machine's actions do. */
#include "world.h"

#include <assert.h>
#include <string.h>

void world_init(struct world *world, const struct handoff_tables *tables, const struct handoff_config *config)
{
	assert(config->workers <= WORLD_WORKERS);
	memset(world, 0, sizeof(*world));
	world->tables = tables;
	handoff_init(&world->machine, config);
}

static void copy_part(struct world *to, const struct world *from, size_t start, size_t end)
{
	memcpy((uint8_t *)to + start, (const uint8_t *)from + start, end - start);
}

/* Unused elements are zero on both sides. */
#define COPY_ARRAY(to, from, array, count)                                                                             \
	do {                                                                                                           \
		memcpy((to)->array, (from)->array, (from)->count * sizeof((to)->array[0]));                            \
		if ((to)->count > (from)->count)                                                                       \
			memset(&(to)->array[(from)->count], 0,                                                         \
			       ((to)->count - (from)->count) * sizeof((to)->array[0]));                                \
	} while (0)

void world_copy(struct world *to, const struct world *from)
{
	COPY_ARRAY(&to->machine, &from->machine, generations, generation_count);
	COPY_ARRAY(to, from, generations, generation_count);
	COPY_ARRAY(to, from, requests, request_count);
	copy_part(to, from, 0, offsetof(struct world, machine.generations));
	copy_part(to, from, offsetof(struct world, tables), offsetof(struct world, generations));
	copy_part(to, from, offsetof(struct world, request_count), offsetof(struct world, requests));
	copy_part(to, from, offsetof(struct world, queue_head), offsetof(struct world, queue));
	for (uint32_t i = 0; i < from->queue_count; i++) {
		uint32_t at = (from->queue_head + i) % WORLD_QUEUE;
		to->queue[at] = from->queue[at];
	}
}

struct world_generation *world_find(struct world *world, uint32_t number)
{
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->generations[i].number == number)
			return &world->generations[i];
	return NULL;
}

const struct world_generation *world_look(const struct world *world, uint32_t number)
{
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->generations[i].number == number)
			return &world->generations[i];
	return NULL;
}

enum world_process world_process(const struct world_generation *generation, uint32_t slot)
{
	return (enum world_process)(generation->slots[slot] & 0xf);
}

bool world_lives(const struct world_generation *generation, uint32_t slot)
{
	enum world_process process = world_process(generation, slot);
	return process == PROCESS_ALIVE || process == PROCESS_READY;
}

uint32_t world_count(const struct world_generation *generation, enum world_process process)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		count += world_process(generation, i) == process;
	return count;
}

bool world_is_empty(const struct world_generation *generation)
{
	return world_count(generation, PROCESS_NONE) == WORLD_SLOTS;
}

uint32_t world_serving(const struct world_generation *generation)
{
	return (uint32_t)generation->alive - generation->leaving;
}

uint32_t world_fresh(const struct world_generation *generation)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		count += (generation->slots[i] & WORKER_FRESH) != 0;
	return count;
}

void world_settle_spawn(struct world_generation *generation)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		generation->slots[i] &= (uint8_t)~WORKER_FRESH;
}

/* ---- what happens ---- */

static struct handoff_event *post(struct world *world, enum handoff_event_kind kind, uint32_t generation)
{
	assert(world->queue_count < WORLD_QUEUE);
	struct handoff_event *event = &world->queue[(world->queue_head + world->queue_count++) % WORLD_QUEUE];
	*event = (struct handoff_event){.kind = kind, .generation = generation};
	return event;
}

void world_ask(struct world *world, enum handoff_event_kind kind)
{
	post(world, kind, 0);
}

void world_request(struct world *world, uint32_t key, uint32_t if_generation)
{
	struct handoff_event *event = post(world, HANDOFF_RELOAD, 0);
	event->request = ++world->last_request;
	event->key = key;
	event->if_generation = if_generation;
}

void world_spawn_failed(struct world *world, struct world_generation *generation, uint32_t count)
{
	for (uint32_t i = 0, failed = 0; i < WORLD_SLOTS && failed < count; i++)
		if (generation->slots[i] & WORKER_FRESH) {
			generation->slots[i] = PROCESS_NONE;
			failed++;
		}
	post(world, HANDOFF_SPAWN_FAILED, generation->number)->count = count;
}

static void become(struct world_generation *generation, uint32_t slot, enum world_process process)
{
	generation->slots[slot] = (uint8_t)((generation->slots[slot] & WORKER_TOLD) | process);
}

void world_ready(struct world *world, struct world_generation *generation, uint32_t slot)
{
	become(generation, slot, PROCESS_READY);
	post(world, HANDOFF_READY, generation->number);
}

void world_not_ready(struct world *world, struct world_generation *generation)
{
	post(world, HANDOFF_NOT_READY, generation->number);
}

void world_exit(struct world *world, struct world_generation *generation, uint32_t slot, bool clean)
{
	bool told = generation->slots[slot] & WORKER_TOLD;
	become(generation, slot, PROCESS_LEFT);
	post(world, told ? HANDOFF_LEFT : HANDOFF_EXITED, generation->number)->clean = clean;
}

void world_gone(struct world *world, struct world_generation *generation, uint32_t slot)
{
	generation->slots[slot] = PROCESS_NONE;
	post(world, HANDOFF_GONE, generation->number);
}

void world_expire(struct world *world, struct world_generation *generation, enum handoff_timer timer)
{
	static const enum handoff_event_kind kinds[] = {
		[HANDOFF_TIMER_READY] = HANDOFF_READY_DUE,   [HANDOFF_TIMER_SETTLE] = HANDOFF_SETTLE_DUE,
		[HANDOFF_TIMER_DRAIN] = HANDOFF_DRAIN_DUE,   [HANDOFF_TIMER_KILL] = HANDOFF_KILL_DUE,
		[HANDOFF_TIMER_ABORT] = HANDOFF_KILL_DUE,    [HANDOFF_TIMER_HEALTHY] = HANDOFF_HEALTHY_DUE,
		[HANDOFF_TIMER_WORKER] = HANDOFF_WORKER_DUE,
	};
	generation->armed &= (uint8_t)~world_timer_bit(timer);
	generation->due |= world_timer_bit(timer);
	post(world, kinds[timer], generation->number);
}

void world_expire_restart(struct world *world)
{
	world->restart_armed = false;
	world->restart_due = true;
	post(world, HANDOFF_RESTART_DUE, 0);
}

/* ---- what the machine is told ---- */

static void told_timer(struct world_generation *generation, enum handoff_timer timer)
{
	generation->due &= (uint8_t)~world_timer_bit(timer);
}

static void tell_generation(struct world *world, struct world_generation *generation, const struct handoff_event *event)
{
	static const struct {
		enum handoff_event_kind kind;
		enum handoff_timer timer;
	} timers[] = {{HANDOFF_READY_DUE, HANDOFF_TIMER_READY},     {HANDOFF_SETTLE_DUE, HANDOFF_TIMER_SETTLE},
		      {HANDOFF_DRAIN_DUE, HANDOFF_TIMER_DRAIN},     {HANDOFF_KILL_DUE, HANDOFF_TIMER_KILL},
		      {HANDOFF_HEALTHY_DUE, HANDOFF_TIMER_HEALTHY}, {HANDOFF_WORKER_DUE, HANDOFF_TIMER_WORKER}};
	for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
		if (timers[i].kind == event->kind)
			told_timer(generation, timers[i].timer);
	bool active = generation->state == GENERATION_ACTIVE;
	if (event->kind == HANDOFF_READY && generation->ready < generation->present && !active) {
		generation->ready++;
	} else if (event->kind == HANDOFF_SPAWN_FAILED) {
		generation->present = (uint8_t)(generation->present - event->count);
		generation->alive = (uint8_t)(generation->alive - event->count);
		generation->lost = (uint8_t)(generation->lost + (active ? event->count : 0));
	} else if (event->kind == HANDOFF_EXITED) {
		generation->alive--;
		generation->lost = (uint8_t)(generation->lost + active);
	} else if (event->kind == HANDOFF_LEFT) {
		generation->alive--;
		generation->leaving = (uint8_t)(generation->leaving - active);
	} else if (event->kind == HANDOFF_GONE) {
		generation->present--;
	} else if (event->kind == HANDOFF_HEALTHY_DUE && active) {
		world->failures = 0;
	}
}

static void tell(struct world *world, const struct handoff_event *event)
{
	struct world_generation *generation = world_find(world, event->generation);
	if (generation)
		tell_generation(world, generation, event);
	else if (event->kind == HANDOFF_START)
		world->started = true;
	else if (event->kind == HANDOFF_RESTART_DUE)
		world->restart_due = false;
	else if (event->kind == HANDOFF_RELOAD && event->request == 0 && world->started && !world->closed) {
		world->signal_pending = true;
		world->signals++;
	} else if (event->kind == HANDOFF_STOP || event->kind == HANDOFF_KILL) {
		world->kill_told = world->kill_told || world->stop_told || event->kind == HANDOFF_KILL;
		world->stop_told = true;
	}
}

/* ---- what the machine does ---- */

static void add_workers(struct world *world, struct world_generation *generation, uint32_t count)
{
	uint32_t added = 0;
	generation->present = (uint8_t)(generation->present + count);
	generation->alive = (uint8_t)(generation->alive + count);
	for (uint32_t i = 0; i < WORLD_SLOTS && added < count; i++)
		if (generation->slots[i] == PROCESS_NONE) {
			generation->slots[i] = PROCESS_ALIVE | WORKER_FRESH;
			added++;
		}
	if (added < count)
		post(world, HANDOFF_SPAWN_FAILED, generation->number)->count = count - added;
}

/* A start that was asked for has begun: what comes now waits for the next one. */
static void begin(struct world *world)
{
	world->signal_pending = false;
	world->signals = 0;
	world->waiting_wish = 0;
}

static void do_empty(struct world *world, const struct handoff_action *action)
{
	world->emptying = true;
	world->begun_asked = action->asked;
	world->begun_wish = world->waiting_wish;
	begin(world);
}

static void do_spawn(struct world *world, const struct handoff_action *action)
{
	if (!world->emptying)
		begin(world);
	world->emptying = world->begun_asked = false;
	world->begun_wish = 0;
	world->newest = action->generation;
	if (world->generation_count == HANDOFF_GENERATIONS)
		return;
	struct world_generation *generation = &world->generations[world->generation_count++];
	memset(generation, 0, sizeof(*generation));
	generation->number = action->generation;
	generation->wish = action->wish;
	generation->asked = action->asked;
	generation->state = GENERATION_STARTING;
	generation->workers = (uint8_t)(world->next_workers ? world->next_workers : world->machine.config.workers);
	uint32_t count = action->count;
	if (world->next_workers)
		count = handoff_set_workers(&world->machine, action->generation, world->next_workers);
	add_workers(world, generation, count);
}

static void do_spawn_more(struct world *world, struct world_generation *generation, uint32_t count)
{
	if (generation->state == GENERATION_ACTIVE)
		generation->lost = generation->given = 0;
	else if (generation->state == GENERATION_SETTLING)
		generation->state = GENERATION_STARTING;
	add_workers(world, generation, count);
}

/* Those who are ready are the oldest ones, but for the few that were replaced. */
static void do_drain_one(struct world_generation *generation)
{
	const enum world_process order[] = {PROCESS_READY, PROCESS_ALIVE};
	generation->given++;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++) {
			if (generation->slots[slot] & WORKER_TOLD || world_process(generation, slot) != order[i])
				continue;
			generation->slots[slot] |= WORKER_TOLD;
			generation->slots[slot] &= (uint8_t)~WORKER_FRESH;
			generation->leaving++;
			return;
		}
	/* All of them have exited, and that is queued. */
	generation->untold++;
}

static void do_drain(struct world_generation *generation)
{
	generation->drained = true;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		if (world_lives(generation, i))
			generation->slots[i] |= WORKER_TOLD;
}

static void do_release(struct world *world, struct world_generation *generation)
{
	size_t index = (size_t)(generation - world->generations);
	world->generation_count--;
	memmove(generation, generation + 1, (world->generation_count - index) * sizeof(*generation));
	memset(&world->generations[world->generation_count], 0, sizeof(*generation));
}

static void do_answer(struct world *world, const struct handoff_action *action)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < world->request_count; i++)
		if (action->kind == HANDOFF_DO_REFUSE || world->requests[i].wish != action->wish)
			world->requests[kept++] = world->requests[i];
	memset(&world->requests[kept], 0, (world->request_count - kept) * sizeof(world->requests[0]));
	world->request_count = kept;
	if (world->waiting_wish == action->wish)
		world->waiting_wish = 0;
	if (world->begun_wish == action->wish)
		world->begun_wish = 0;
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->generations[i].wish == action->wish)
			world->generations[i].wish = 0;
}

static void do_join(struct world *world, const struct handoff_action *action)
{
	world->waiting_wish = action->wish;
	assert(world->request_count < WORLD_REQUESTS);
	world->requests[world->request_count++] =
		(struct world_request){.number = action->request, .wish = action->wish, .after = world->newest};
}

static void do_timer(struct world *world, struct world_generation *generation, const struct handoff_action *action)
{
	bool set = action->kind == HANDOFF_DO_TIMER_SET;
	if (action->timer == HANDOFF_TIMER_RESTART) {
		world->restart_armed = set;
		if (set)
			world->failures++;
		return;
	}
	if (!generation)
		return;
	if (set)
		generation->armed |= world_timer_bit(action->timer);
	else
		generation->armed &= (uint8_t)~world_timer_bit(action->timer);
	if (set && action->timer == HANDOFF_TIMER_SETTLE)
		generation->state = GENERATION_SETTLING;
}

static void do_to_generation(struct world *world, struct world_generation *generation,
			     const struct handoff_action *action)
{
	bool failing = generation->state == GENERATION_FAILING;
	if (action->kind == HANDOFF_DO_ACTIVATE) {
		generation->state = GENERATION_ACTIVE;
		world->ever_active = true;
	} else if (action->kind == HANDOFF_DO_FAIL) {
		generation->state = GENERATION_FAILING;
	} else if (action->kind == HANDOFF_DO_KILL) {
		generation->killed = true;
	} else if (action->kind == HANDOFF_DO_DRAIN_ONE) {
		do_drain_one(generation);
	} else if (action->kind == HANDOFF_DO_SPAWN_MORE) {
		do_spawn_more(world, generation, action->count);
	} else if (action->kind == HANDOFF_DO_DRAIN || action->kind == HANDOFF_DO_DIED ||
		   action->kind == HANDOFF_DO_TERMINATE) {
		generation->state = failing ? GENERATION_FAILING : GENERATION_DRAINING;
		if (action->kind == HANDOFF_DO_DRAIN)
			do_drain(generation);
		generation->terminated = generation->terminated || action->kind == HANDOFF_DO_TERMINATE;
	}
}

static void perform(struct world *world, const struct handoff_action *action)
{
	struct world_generation *generation = world_find(world, action->generation);
	switch (action->kind) {
	case HANDOFF_DO_SPAWN:
		do_spawn(world, action);
		break;
	case HANDOFF_DO_EMPTY:
		do_empty(world, action);
		break;
	case HANDOFF_DO_SPAWN_MORE:
	case HANDOFF_DO_DRAIN_ONE:
	case HANDOFF_DO_FAIL:
	case HANDOFF_DO_ACTIVATE:
	case HANDOFF_DO_DIED:
	case HANDOFF_DO_DRAIN:
	case HANDOFF_DO_DRAIN_REST:
	case HANDOFF_DO_TERMINATE:
	case HANDOFF_DO_KILL:
		if (generation)
			do_to_generation(world, generation, action);
		/* Without room nothing starts, and what was asked by signal has had its turn. */
		else if (action->failure == HANDOFF_FAILURE_NO_ROOM)
			world->signal_pending = false;
		break;
	case HANDOFF_DO_RELEASE:
		if (generation)
			do_release(world, generation);
		break;
	case HANDOFF_DO_TIMER_SET:
	case HANDOFF_DO_TIMER_STOP:
		do_timer(world, generation, action);
		break;
	case HANDOFF_DO_CLOSE_LISTENERS:
		world->closed = true;
		world->signal_pending = false;
		/* By nothing else, while nobody is there. */
		if (world->stop_told)
			world->emptying = world->begun_asked = false;
		break;
	case HANDOFF_DO_JOIN:
		do_join(world, action);
		break;
	case HANDOFF_DO_ANSWER:
	case HANDOFF_DO_REFUSE:
		do_answer(world, action);
		break;
	case HANDOFF_DO_EXIT:
		world->exited = true;
		break;
	}
}

void world_deliver(struct world *world, struct world *before, struct handoff_actions *actions, struct world_step *step)
{
	assert(world->queue_count > 0);
	world_copy(before, world);
	const struct handoff_event *event = &before->queue[before->queue_head];
	world->queue_head = (world->queue_head + 1) % WORLD_QUEUE;
	world->queue_count--;
	if (world->queue_count == 0)
		world->queue_head = 0;
	world->events++;
	tell(world, event);
	handoff_step_with(world->tables, &world->machine, event, actions);
	for (uint32_t i = 0; i < actions->count; i++)
		perform(world, &actions->items[i]);
	*step = (struct world_step){.before = before, .after = world, .event = event, .actions = actions};
}
