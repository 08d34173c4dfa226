/* SPDX-License-Identifier: MIT */
/* Chances, and the two ways to move a world: at random, and fairly. */
#include "life.h"

#include <string.h>

/* Every generation may need some ten events a worker to end, and one or two more are started on the way. */
#define FAIR_EVENTS(world) (200U + 40U * (world)->generation_count)
/* More than this in the queue, and nothing else happens before some of it is delivered. */
#define QUEUE_FULL (WORLD_QUEUE - 8)

/* ---- chances ---- */

/* splitmix64, Sebastiano Vigna, public domain. */
static uint64_t draw(struct world *world)
{
	uint64_t value = world->random += 0x9e3779b97f4a7c15;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
	value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
	return value ^ (value >> 31);
}

static uint32_t below(struct world *world, uint32_t bound)
{
	return (uint32_t)(((draw(world) >> 32) * bound) >> 32);
}

static bool chance(struct world *world, uint32_t percent)
{
	return below(world, 100) < percent;
}

#define PICK(world, ...) pick(world, (const uint16_t[]){__VA_ARGS__}, ARRAY_SIZE(((const uint16_t[]){__VA_ARGS__})))

static uint16_t pick(struct world *world, const uint16_t *values, size_t count)
{
	return values[below(world, (uint32_t)count)];
}

void life_begin(struct life *life, const struct handoff_tables *tables, uint64_t seed)
{
	struct world *world = &life->world;
	world->random = seed;
	struct handoff_config config = {.workers = PICK(world, 1, 1, 2, 3, 4),
					.max_restarts = PICK(world, 0, 0, 1, 2, 5),
					.max_draining = PICK(world, 1, 2, 3, 16, 64)};
	config.restart = (enum handoff_restart)PICK(world, HANDOFF_RESTART_ALWAYS, HANDOFF_RESTART_ON_FAILURE,
						    HANDOFF_RESTART_ON_FAILURE, HANDOFF_RESTART_NEVER);
	config.stop_first = PICK(world, 0, 0, 0, 1) != 0;
	config.rolling = PICK(world, 0, 0, 1) != 0;
	uint64_t random = world->random;
	world_init(world, tables, &config);
	world->random = random;
	world->mood = (struct world_mood){.deliver = (uint8_t)PICK(world, 30, 60, 90, 100),
					  .outside = (uint8_t)PICK(world, 2, 10, 30),
					  .ready = (uint8_t)PICK(world, 10, 50, 90),
					  .fail_spawn = (uint8_t)PICK(world, 0, 1, 10),
					  .fail_start = (uint8_t)PICK(world, 0, 2, 10, 40),
					  .crash_permill = (uint8_t)PICK(world, 0, 2, 20, 100),
					  .hang = (uint8_t)PICK(world, 0, 10, 50, 100),
					  .gone = (uint8_t)PICK(world, 1, 20, 80),
					  .no_drain_timeout = PICK(world, 0, 0, 1) != 0,
					  .vary = PICK(world, 0, 0, 1) != 0,
					  .stop_of = PICK(world, 20, 500, 2000)};
	/* Now and then somebody is faster than the start. */
	if (chance(world, 2))
		world_ask(world, chance(world, 50) ? HANDOFF_STOP : HANDOFF_KILL);
	if (chance(world, 2))
		world_request(world, 1, 0);
	world_ask(world, HANDOFF_START);
}

/* ---- at random ---- */

static void ask_something(struct world *world)
{
	if (below(world, world->mood.stop_of) == 0) {
		world_ask(world, chance(world, 60) ? HANDOFF_STOP : HANDOFF_KILL);
		return;
	}
	if (chance(world, 50)) {
		for (uint32_t burst = 1 + (chance(world, 30) ? below(world, 4) : 0); burst > 0; burst--)
			world_ask(world, HANDOFF_RELOAD);
		return;
	}
	/* Room for those that are queued and those that joined. */
	if (world->request_count + world->queue_count >= WORLD_REQUESTS)
		return;
	uint32_t last = world->machine.last_number;
	const uint32_t conditions[] = {0, 0, world->machine.last_active, last, last + 1, 1};
	world_request(world, 1 + below(world, 2), conditions[below(world, ARRAY_SIZE(conditions))]);
}

static bool all_ready(const struct world_generation *generation)
{
	return world_count(generation, PROCESS_READY) == generation->workers;
}

static void move_alive(struct world *world, struct world_generation *generation, uint32_t slot)
{
	if (chance(world, world->mood.ready))
		world_ready(world, generation, slot);
	else if (chance(world, world->mood.fail_start))
		world_exit(world, generation, slot, chance(world, 20));
	else if (chance(world, world->mood.fail_start / 2U))
		world_not_ready(world, generation);
}

static void move_ready(struct world *world, struct world_generation *generation, uint32_t slot)
{
	if (below(world, 1000) < world->mood.crash_permill)
		world_exit(world, generation, slot, chance(world, 20));
	/* A second time: the driver tells it once a worker, but where all are ready it must do no harm. */
	else if (chance(world, 1) && !world->machine.config.rolling && all_ready(generation))
		world_ready(world, generation, slot);
}

static uint32_t used_slots(const struct world_generation *generation)
{
	uint32_t used = WORLD_SLOTS;
	while (used > 1 && generation->slots[used - 1] == PROCESS_NONE)
		used--;
	return used;
}

static void move_process(struct world *world, struct world_generation *generation)
{
	uint32_t slot = below(world, used_slots(generation));
	enum world_process process = world_process(generation, slot);
	bool told = generation->slots[slot] & WORKER_TOLD || generation->terminated;
	if (process == PROCESS_LEFT && chance(world, generation->killed ? 50 : world->mood.gone))
		world_gone(world, generation, slot);
	else if (!world_lives(generation, slot))
		return;
	else if (generation->killed || (told && !generation->hangs)) {
		if (chance(world, 50))
			world_exit(world, generation, slot, chance(world, 50));
	} else if (process == PROCESS_ALIVE)
		move_alive(world, generation, slot);
	else
		move_ready(world, generation, slot);
}

static void move_timer(struct world *world, struct world_generation *generation)
{
	enum handoff_timer timer = (enum handoff_timer)below(world, HANDOFF_TIMER_RESTART);
	if (timer == HANDOFF_TIMER_ABORT || !(generation->armed & world_timer_bit(timer)))
		return;
	if (timer == HANDOFF_TIMER_DRAIN && world->mood.no_drain_timeout)
		return;
	if (timer == HANDOFF_TIMER_READY && !chance(world, 5))
		return;
	world_expire(world, generation, timer);
}

static void happen(struct world *world)
{
	/* Half of what happens concerns the newest ones, where most decisions are. */
	if (world->restart_armed && below(world, 300) == 0) {
		/* Who is asked to stop seldom is in a back-off, unless it is when somebody loses patience. */
		world_ask(world, chance(world, 50) ? HANDOFF_STOP : HANDOFF_KILL);
	} else if (chance(world, world->mood.outside)) {
		ask_something(world);
	} else if (world->restart_armed && chance(world, 10)) {
		world_expire_restart(world);
	} else if (world->generation_count > 0) {
		uint32_t last = world->generation_count - 1;
		uint32_t index = chance(world, 50) ? last : below(world, world->generation_count);
		if (chance(world, 40))
			move_timer(world, &world->generations[index]);
		else
			move_process(world, &world->generations[index]);
	}
}

/* What the driver finds out while it spawns; something else may have been queued just before. */
static void fail_spawn(struct world *world, struct world_generation *generation, uint32_t fresh)
{
	uint32_t count = 1 + below(world, fresh);
	if (chance(world, 5))
		world_ask(world, chance(world, 50) ? HANDOFF_STOP : HANDOFF_KILL);
	else if (count < fresh && chance(world, 20))
		world_not_ready(world, generation);
	world_spawn_failed(world, generation, count);
}

static void spawn(struct world *world)
{
	for (uint32_t i = 0; i < world->generation_count; i++) {
		struct world_generation *generation = &world->generations[i];
		uint32_t fresh = world_fresh(generation);
		if (fresh == 0)
			continue;
		if (generation->state == GENERATION_STARTING && generation->ready == 0)
			generation->hangs = chance(world, world->mood.hang);
		if (chance(world, world->mood.fail_spawn))
			fail_spawn(world, generation, fresh);
		world_settle_spawn(generation);
	}
}

static void deliver(struct life *life, struct world *world, bool fair)
{
	struct world_step step;
	world_deliver(world, &life->before, &life->actions, &step);
	invariants_check(&step, &life->verdicts);
	if (life->watch)
		life->watch(life, &step, fair);
}

bool life_step(struct life *life)
{
	struct world *world = &life->world;
	while (world->queue_count == 0 || (world->queue_count < QUEUE_FULL && !chance(world, world->mood.deliver))) {
		if (world->exited && (world->queue_count > 0 || chance(world, 50)))
			break;
		happen(world);
	}
	if (world->queue_count == 0)
		return false;
	world->next_workers = world->mood.vary ? 1 + below(world, WORLD_WORKERS) : 0;
	deliver(life, world, false);
	spawn(world);
	return true;
}

/* ---- fairly ---- */

void life_deliver_all(struct life *life, struct world *world, bool fair)
{
	while (world->queue_count > 0 && life->verdicts.broken == 0)
		deliver(life, world, fair);
	for (uint32_t i = 0; fair && i < world->generation_count; i++)
		world_settle_spawn(&world->generations[i]);
}

static bool obey(struct world *world, struct world_generation *generation)
{
	bool ending = generation->state == GENERATION_DRAINING || generation->state == GENERATION_FAILING;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		if (world_process(generation, i) == PROCESS_LEFT) {
			world_gone(world, generation, i);
			return true;
		}
		if (world_lives(generation, i) && (ending || generation->slots[i] & WORKER_TOLD)) {
			world_exit(world, generation, i, true);
			return true;
		}
		if (world_process(generation, i) == PROCESS_ALIVE) {
			world_ready(world, generation, i);
			return true;
		}
	}
	return false;
}

static bool expire(struct world *world, struct world_generation *generation)
{
	static const enum handoff_timer timers[] = {HANDOFF_TIMER_READY, HANDOFF_TIMER_SETTLE,  HANDOFF_TIMER_DRAIN,
						    HANDOFF_TIMER_KILL,  HANDOFF_TIMER_HEALTHY, HANDOFF_TIMER_WORKER};
	for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
		if (generation->armed & world_timer_bit(timers[i])) {
			world_expire(world, generation, timers[i]);
			return true;
		}
	return false;
}

/* One thing that had to happen some time; false when everything rests. */
static bool happen_fairly(struct world *world)
{
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (obey(world, &world->generations[i]))
			return true;
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (expire(world, &world->generations[i]))
			return true;
	if (world->restart_armed) {
		world_expire_restart(world);
		return true;
	}
	return false;
}

static bool miss(struct life *life, enum invariant invariant)
{
	/* What an invariant of single steps says is more exact. */
	if (life->verdicts.broken == 0)
		life->verdicts.broken |= 1U << invariant;
	return false;
}

/* Where a world rests, the active generation has all its workers, and none too many. */
static bool is_complete(struct life *life, const struct world *world)
{
	const struct world_generation *active = &world->generations[0];
	uint32_t serving = world_serving(active), missing = 0;
	if (world->machine.config.restart == HANDOFF_RESTART_NEVER)
		missing = active->lost;
	if (serving + missing < active->workers)
		return miss(life, active->given > 0 ? INVARIANT_ROLLED_BACK : INVARIANT_LOST_REPLACED);
	return serving <= active->workers + active->untold || miss(life, INVARIANT_LIVENESS);
}

/* False when it does not come to rest, or rests where it should not. */
static bool come_to_rest(struct life *life, struct world *world)
{
	uint64_t bound = world->events + FAIR_EVENTS(world) + world->queue_count;
	do {
		life_deliver_all(life, world, true);
		if (world->events > bound)
			return miss(life, INVARIANT_LIVENESS);
		if (life->verdicts.broken != 0)
			return false;
	} while (happen_fairly(world));
	if (world->emptying)
		return miss(life, INVARIANT_EMPTYING_ENDS);
	if (world->request_count > 0 || world->signal_pending)
		return miss(life, INVARIANT_LIVENESS);
	if (world->exited)
		return true;
	if (world->generation_count != 1 || world->generations[0].state != GENERATION_ACTIVE)
		return miss(life, INVARIANT_LIVENESS);
	return is_complete(life, world);
}

/* Like come_to_rest, but nothing happens beside what is queued until a generation is in `state`. */
static bool wait_for(struct life *life, struct world *world, enum handoff_generation_state state)
{
	for (uint32_t events = 0; events < 100 && life->verdicts.broken == 0; events++) {
		life_deliver_all(life, world, true);
		for (uint32_t i = 0; i < world->generation_count; i++)
			if (world->generations[i].state == (uint8_t)state)
				return true;
		if (!happen_fairly(world))
			break;
	}
	return false;
}

static void exit_one(struct world *world, struct world_generation *generation)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		if (world_lives(generation, i)) {
			world_exit(world, generation, i, false);
			return;
		}
}

/* One of several workers exits. */
static bool lost_is_replaced(struct life *life, struct world *world)
{
	struct world_generation *active = &world->generations[0];
	uint32_t number = active->number;
	if (active->workers < 2 || active->alive < 2 || world->machine.config.restart == HANDOFF_RESTART_NEVER)
		return true;
	life->verdicts.met[INVARIANT_LOST_REPLACED]++;
	exit_one(world, active);
	if (!come_to_rest(life, world))
		return false;
	return world->generations[0].number == number || miss(life, INVARIANT_LOST_REPLACED);
}

/* A rolling hand-off fails when one of the old workers has been told to leave already. */
static bool rolls_back(struct life *life, struct world *world)
{
	const struct handoff_config *config = &world->machine.config;
	uint32_t number = world->generations[0].number;
	uint32_t workers = world->next_workers ? world->next_workers : config->workers;
	if (!config->rolling || config->stop_first || world->generations[0].alive < 2 || workers < 2)
		return true;
	life->verdicts.met[INVARIANT_ROLLED_BACK]++;
	world_ask(world, HANDOFF_RELOAD);
	if (!wait_for(life, world, GENERATION_SETTLING))
		return miss(life, INVARIANT_LIVENESS);
	world_expire(world, &world->generations[1], HANDOFF_TIMER_SETTLE);
	life_deliver_all(life, world, true);
	if (life->verdicts.broken != 0)
		return false;
	exit_one(world, &world->generations[world->generation_count - 1]);
	if (!come_to_rest(life, world))
		return false;
	return world->generations[0].number == number || miss(life, INVARIANT_ROLLED_BACK);
}

/* With stop-first, the old one goes before the new one comes; and where the new one fails, there is another. */
static bool emptying_ends(struct life *life, struct world *world)
{
	uint32_t number = world->generations[0].number;
	if (!world->machine.config.stop_first)
		return true;
	life->verdicts.met[INVARIANT_EMPTYING_ENDS]++;
	world_ask(world, HANDOFF_RELOAD);
	if (!wait_for(life, world, GENERATION_STARTING))
		return miss(life, INVARIANT_EMPTYING_ENDS);
	world_not_ready(world, &world->generations[0]);
	if (!come_to_rest(life, world))
		return false;
	return (!world->exited && world->generations[0].number > number + 1) || miss(life, INVARIANT_EMPTYING_ENDS);
}

static bool crash_is_repaired(struct life *life, struct world *world)
{
	struct world_generation *active = &world->generations[0];
	uint32_t number = active->number;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		if (world_lives(active, i))
			world_exit(world, active, i, false);
	if (!come_to_rest(life, world))
		return false;
	if (world->exited)
		return world->machine.config.restart == HANDOFF_RESTART_NEVER || miss(life, INVARIANT_LIVENESS);
	return world->generations[0].number > number || miss(life, INVARIANT_LIVENESS);
}

static void is_live(struct life *life, struct world *world)
{
	uint32_t newest = world->newest;
	/* Where there is no room it may end with that. */
	bool wanted = world->signal_pending && world->generation_count < HANDOFF_GENERATIONS;
	life->verdicts.met[INVARIANT_EMPTYING_ENDS] += world->emptying;
	if (!come_to_rest(life, world) || world->exited)
		return;
	if (wanted && world->generations[0].number <= newest)
		miss(life, INVARIANT_LIVENESS);
	else if (lost_is_replaced(life, world) && rolls_back(life, world) && emptying_ends(life, world) &&
		 crash_is_repaired(life, world) && !world->exited) {
		world_ask(world, HANDOFF_STOP);
		if (come_to_rest(life, world) && !world->exited)
			miss(life, INVARIANT_LIVENESS);
	}
}

void life_is_live(struct life *life)
{
	world_copy(&life->ahead, &life->world);
	is_live(life, &life->ahead);
	life->verdicts.met[INVARIANT_LIVENESS]++;
}
