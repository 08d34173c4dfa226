/* SPDX-License-Identifier: MIT */
/* Every state of the machine and a small world that can be reached, breadth first, judged at every step.
 *
 * What happens is told at once (longer queues are sim_random's). States that differ only in numbers are one:
 * generations are numbered by age, wishes and requests by their place, and the workers of a generation are sorted.
 *
 * usage: sim_reach [--small | --large] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "describe.h"
#include "life.h"

/* No generation's number here. */
#define NO_GENERATION 1000000U
/* Looking ahead costs as much as some forty steps. */
#define LOOK_AHEAD_EVERY 16
#define PACKED_MAX 1024
#define PACKED_BLOCK 32

enum move_kind {
	MOVE_ASK,
	MOVE_REQUEST,
	MOVE_SPAWN_FAILED,
	MOVE_READY,
	MOVE_NOT_READY,
	MOVE_EXIT,
	MOVE_GONE,
	MOVE_EXPIRE,
	MOVE_EXPIRE_RESTART,
};

struct move {
	uint8_t kind;
	uint8_t index;    /* of the generation, by age */
	uint8_t argument; /* event, key, count, worker or timer */
	uint8_t detail;   /* which condition, or whether clean */
};

/* How a state was reached first. */
struct arrival {
	uint32_t parent;
	struct move move;
};

struct frontier {
	uint8_t *bytes; /* owned: packed worlds, each after its number and its length */
	size_t used, capacity, read;
};

static struct life life;
static struct frontier now, next;
static struct arrival *arrivals;
static uint64_t *slots;     /* fingerprints of the states seen; 0 is empty */
static uint32_t slot_count; /* a power of two; at most half of them are used */
static uint32_t count, deepest, max_ending, max_requests;
static bool varying; /* generations of one worker and of two take turns */
static uint64_t steps, bounded;

static void *need(void *memory)
{
	if (memory)
		return memory;
	printf("Bail out! out of memory\n");
	exit(1);
}

/* ---- one name for each state ---- */

static int by_value(const void *one, const void *other)
{
	return *(const uint8_t *)one - *(const uint8_t *)other;
}

static uint32_t place(const uint32_t *numbers, uint32_t length, uint32_t number)
{
	for (uint32_t i = 0; i < length; i++)
		if (numbers[i] == number)
			return i + 1;
	return NO_GENERATION;
}

/* The numbers that can still matter, in order: those of the generations, and of the one that was active last. */
static uint32_t collect(const struct handoff *machine, uint32_t *numbers)
{
	uint32_t length = 0;
	bool pending = machine->last_active != 0;
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		uint32_t number = machine->generations[i].number;
		if (pending && machine->last_active < number)
			numbers[length++] = machine->last_active;
		pending = pending && machine->last_active > number;
		numbers[length++] = number;
	}
	if (pending)
		numbers[length++] = machine->last_active;
	return length;
}

static uint32_t wish_place(const struct handoff *machine, uint32_t wish)
{
	return wish == 0 ? 0 : wish == machine->waiting.id ? 2 : 1;
}

static void rename_requests(struct world *world)
{
	uint32_t begun = 0;
	for (uint32_t i = 0; i < world->generation_count; i++)
		if (world->generations[i].wish != 0)
			begun = world->generations[i].number;
	for (uint32_t i = 0; i < world->request_count; i++) {
		struct world_request *request = &world->requests[i];
		request->number = i + 1;
		request->wish = wish_place(&world->machine, request->wish);
		/* As late as it can have come. */
		request->after = request->wish == 2 || world->emptying ? world->newest : begun - 1;
	}
	world->last_request = world->request_count;
}

/* Of one that ends, much has no meaning any more. */
static void forget(const struct handoff_config *config, struct handoff_generation *generation,
		   struct world_generation *told)
{
	/* Only an exponent depends on it. */
	generation->losses = 0;
	if (generation->state == GENERATION_STARTING || generation->state == GENERATION_SETTLING)
		return;
	generation->asked = told->asked = false;
	generation->ready = told->ready = 0;
	if (generation->state == GENERATION_ACTIVE)
		return;
	generation->leaving = told->lost = told->given = told->leaving = told->untold = 0;
	generation->workers = generation->target = config->workers;
	told->workers = (uint8_t)config->workers;
	for (size_t i = 0; i < WORLD_SLOTS; i++) {
		told->slots[i] &= (uint8_t)~WORKER_TOLD;
		if (world_process(told, (uint32_t)i) == PROCESS_READY)
			told->slots[i] = PROCESS_ALIVE;
	}
}

static void canonicalize(struct world *world)
{
	struct handoff *machine = &world->machine;
	uint32_t numbers[HANDOFF_GENERATIONS + 1];
	uint32_t length = collect(machine, numbers);
	for (uint32_t i = 0; i < machine->generation_count; i++) {
		machine->generations[i].number = place(numbers, length, machine->generations[i].number);
		machine->generations[i].wish = wish_place(machine, machine->generations[i].wish);
		struct world_generation *generation = &world->generations[i];
		generation->number = place(numbers, length, generation->number);
		generation->wish = wish_place(machine, generation->wish);
		forget(&machine->config, &machine->generations[i], generation);
		qsort(generation->slots, WORLD_SLOTS, 1, by_value);
	}
	if (machine->last_active != 0)
		machine->last_active = place(numbers, length, machine->last_active);
	if (machine->waiting.if_generation != 0)
		machine->waiting.if_generation = place(numbers, length, machine->waiting.if_generation);
	machine->last_number = world->newest = length;
	rename_requests(world);
	machine->last_wish = 2;
	/* Which of two keys it is makes no difference, only whether the next one is the same. */
	if (machine->waiting.id != 0) {
		machine->waiting.id = world->waiting_wish = 2;
		machine->waiting.key = 1;
	}
	if (machine->begun_wish != 0)
		machine->begun_wish = world->begun_wish = 1;
	world->signals = world->signals > 0;
	world->next_workers = 0;
}

/* ---- states on the shelf ---- */

struct part {
	size_t offset, size;
};

static size_t parts_of(const struct world *world, struct part parts[5])
{
	const size_t scalars = offsetof(struct world, started);
	parts[0] = (struct part){0, offsetof(struct handoff, generations)};
	parts[1] = (struct part){scalars, offsetof(struct world, generations) - scalars};
	parts[2] = (struct part){offsetof(struct world, request_count),
				 offsetof(struct world, requests) - offsetof(struct world, request_count)};
	parts[3] = (struct part){offsetof(struct world, machine.generations),
				 world->machine.generation_count * sizeof(struct handoff_generation)};
	parts[4] = (struct part){offsetof(struct world, generations),
				 world->generation_count * sizeof(struct world_generation)};
	return world->request_count * sizeof(struct world_request);
}

static size_t pack(const struct world *world, uint8_t *bytes)
{
	struct part parts[5];
	size_t requests = parts_of(world, parts), used = 0;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		memcpy(bytes + used, (const uint8_t *)world + parts[i].offset, parts[i].size);
		used += parts[i].size;
	}
	memcpy(bytes + used, world->requests, requests);
	used += requests;
	/* The fingerprint is taken of whole blocks. */
	size_t padded = (used + PACKED_BLOCK - 1) / PACKED_BLOCK * PACKED_BLOCK;
	memset(bytes + used, 0, padded - used);
	return padded;
}

/* `world` is a fresh one of the same configuration. */
static void unpack(struct world *world, const uint8_t *bytes)
{
	struct part parts[5];
	size_t requests = parts_of(world, parts), used = 0;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		memcpy((uint8_t *)world + parts[i].offset, bytes + used, parts[i].size);
		used += parts[i].size;
		/* The first three tell how long the rest is. */
		requests = parts_of(world, parts);
	}
	memcpy(world->requests, bytes + used, requests);
}

/* Two states with one fingerprint would cost one of them its look: among a million, once in some 10^7 runs. */
static uint64_t fingerprint(const uint8_t *bytes, size_t size)
{
	uint64_t lanes[4] = {0x9e3779b97f4a7c15 ^ size, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xc4ceb9fe1a85ec53};
	for (size_t i = 0; i < size; i += sizeof(lanes)) {
		uint64_t words[ARRAY_SIZE(lanes)];
		memcpy(words, bytes + i, sizeof(words));
		for (size_t lane = 0; lane < ARRAY_SIZE(lanes); lane++) {
			lanes[lane] = (lanes[lane] ^ words[lane]) * 0xff51afd7ed558ccd;
			lanes[lane] ^= lanes[lane] >> 32;
		}
	}
	uint64_t hash = 0;
	for (size_t lane = 0; lane < ARRAY_SIZE(lanes); lane++) {
		hash = (hash ^ lanes[lane] ^ (lanes[lane] >> 29)) * 0xc4ceb9fe1a85ec53;
		hash ^= hash >> 32;
	}
	return hash ? hash : 1;
}

/* True when it was not there. */
static bool remember(uint64_t print)
{
	uint32_t slot = (uint32_t)print & (slot_count - 1);
	while (slots[slot] != 0 && slots[slot] != print)
		slot = (slot + 1) & (slot_count - 1);
	if (slots[slot] == print)
		return false;
	slots[slot] = print;
	return true;
}

static void push(uint32_t number, const uint8_t *bytes, uint32_t size)
{
	size_t wanted = next.used + size + 2 * sizeof(uint32_t);
	if (wanted > next.capacity) {
		next.capacity = 2 * wanted;
		next.bytes = need(realloc(next.bytes, next.capacity));
	}
	memcpy(next.bytes + next.used, &number, sizeof(number));
	memcpy(next.bytes + next.used + sizeof(number), &size, sizeof(size));
	memcpy(next.bytes + next.used + 2 * sizeof(number), bytes, size);
	next.used = wanted;
}

/* ---- moves ---- */

static uint32_t condition(const struct handoff *machine, uint32_t which)
{
	const struct handoff_generation *new = handoff_starting(machine);
	const uint32_t conditions[] = {0, machine->last_active, new ? new->number : 0, NO_GENERATION};
	return conditions[which];
}

static void apply(struct world *world, struct move move)
{
	struct world_generation *generation = &world->generations[move.index];
	if (move.kind != MOVE_ASK && move.kind != MOVE_REQUEST && move.kind != MOVE_SPAWN_FAILED &&
	    move.kind != MOVE_EXPIRE_RESTART)
		world_settle_spawn(generation);
	switch ((enum move_kind)move.kind) {
	case MOVE_ASK:
		world_ask(world, (enum handoff_event_kind)move.argument);
		break;
	case MOVE_REQUEST:
		world_request(world, move.argument, condition(&world->machine, move.detail));
		break;
	case MOVE_SPAWN_FAILED:
		world_spawn_failed(world, generation, move.argument);
		break;
	case MOVE_READY:
		world_ready(world, generation, move.argument);
		break;
	case MOVE_NOT_READY:
		world_not_ready(world, generation);
		break;
	case MOVE_EXIT:
		world_exit(world, generation, move.argument, move.detail);
		break;
	case MOVE_GONE:
		world_gone(world, generation, move.argument);
		break;
	case MOVE_EXPIRE:
		world_expire(world, generation, (enum handoff_timer)move.argument);
		break;
	case MOVE_EXPIRE_RESTART:
		world_expire_restart(world);
		break;
	}
}

/* Whether the bounds leave it out. */
static bool is_beyond(const struct world *world)
{
	uint32_t ending = 0;
	for (uint32_t i = 0; i < world->generation_count; i++) {
		const struct world_generation *generation = &world->generations[i];
		ending += generation->state >= GENERATION_DRAINING;
		/* One more than it is to have, that was replaced and is not gone. */
		if (WORLD_SLOTS - world_count(generation, PROCESS_NONE) > world->machine.config.workers + 1)
			return true;
	}
	return ending > max_ending && !world->closed;
}

static void arrive(uint32_t parent, struct move move)
{
	struct world *world = &life.world;
	uint8_t bytes[PACKED_MAX];
	if (is_beyond(world)) {
		bounded++;
		return;
	}
	canonicalize(world);
	size_t size = pack(world, bytes);
	if (!remember(fingerprint(bytes, size)))
		return;
	if (count == slot_count / 2) {
		printf("Bail out! more than %u states\n", count);
		exit(1);
	}
	arrivals[count] = (struct arrival){.parent = parent, .move = move};
	push(count, bytes, (uint32_t)size);
	if (world->started && count % LOOK_AHEAD_EVERY == 0)
		life_is_live(&life);
	count++;
}

static struct world here;
static uint32_t here_number;

static uint32_t other_workers(const struct world *world)
{
	const struct handoff_generation *active = handoff_active(&world->machine);
	if (!varying)
		return 0;
	return active && active->workers == 2 ? 1 : 2;
}

static void try(struct move move)
{
	if (life.verdicts.broken != 0)
		return;
	world_copy(&life.world, &here);
	life.world.next_workers = other_workers(&here);
	apply(&life.world, move);
	life_deliver_all(&life, &life.world, false);
	steps++;
	if (life.verdicts.broken == 0)
		arrive(here_number, move);
	/* The first way to a wrong step is a shortest one. */
	if (life.verdicts.broken != 0)
		arrivals[count] = (struct arrival){.parent = here_number, .move = move};
}

static void try_requests(void)
{
	const struct handoff_wish *waiting = &here.machine.waiting;
	bool starting = handoff_starting(&here.machine) != NULL;
	if (max_requests == 0)
		return;
	for (uint8_t key = 1; key <= (waiting->id ? 2 : 1); key++)
		for (uint8_t which = 0; which < 4; which++) {
			if ((which == 1 && here.machine.last_active == 0) || (which == 2 && !starting))
				continue;
			bool same = waiting->key == key && waiting->if_generation == condition(&here.machine, which);
			if (here.request_count < max_requests || (waiting->id && !same))
				try((struct move){MOVE_REQUEST, 0, key, which});
			else
				bounded++;
		}
}

static void try_processes(uint8_t index)
{
	const struct world_generation *generation = &here.generations[index];
	for (uint8_t slot = 0; slot < WORLD_SLOTS; slot++) {
		enum world_process process = world_process(generation, slot);
		/* They are sorted: the same again. */
		if (slot > 0 && generation->slots[slot] == generation->slots[slot - 1])
			continue;
		bool alive = process == PROCESS_ALIVE || process == PROCESS_READY;
		if (process == PROCESS_ALIVE && generation->state == GENERATION_STARTING) {
			try((struct move){MOVE_READY, index, slot, 0});
			try((struct move){MOVE_NOT_READY, index, 0, 0});
		}
		if (process == PROCESS_ALIVE && generation->state == GENERATION_ACTIVE)
			try((struct move){MOVE_READY, index, slot, 0});
		if (alive)
			try((struct move){MOVE_EXIT, index, slot, false});
		if (alive && generation->state == GENERATION_ACTIVE)
			try((struct move){MOVE_EXIT, index, slot, true});
		if (process == PROCESS_LEFT)
			try((struct move){MOVE_GONE, index, slot, 0});
	}
}

static void try_all(void)
{
	if (here.exited)
		return;
	if (!here.started)
		try((struct move){MOVE_ASK, 0, HANDOFF_START, 0});
	try((struct move){MOVE_ASK, 0, HANDOFF_RELOAD, 0});
	try((struct move){MOVE_ASK, 0, HANDOFF_STOP, 0});
	try((struct move){MOVE_ASK, 0, HANDOFF_KILL, 0});
	try_requests();
	if (here.restart_armed)
		try((struct move){MOVE_EXPIRE_RESTART, 0, 0, 0});
	for (uint8_t i = 0; i < here.generation_count; i++) {
		const struct world_generation *generation = &here.generations[i];
		for (uint8_t failed = 1; failed <= world_fresh(generation); failed++)
			try((struct move){MOVE_SPAWN_FAILED, i, failed, 0});
		try_processes(i);
		for (uint8_t timer = 0; timer < HANDOFF_TIMER_RESTART; timer++)
			if (timer != HANDOFF_TIMER_ABORT && (generation->armed & world_timer_bit(timer)))
				try((struct move){MOVE_EXPIRE, i, timer, 0});
	}
}

/* ---- one configuration ---- */

static void print_step(struct life *of, const struct world_step *step, bool fair)
{
	static char text[8192];
	(void)of;
	describe_step(text, sizeof(text), step);
	printf("%s%s\n", text, fair ? "   (looking ahead)" : "");
}

static void show(const struct handoff_config *config)
{
	uint32_t path[256], length = 0;
	for (uint32_t at = count; at != 0 && length < ARRAY_SIZE(path); at = arrivals[at].parent)
		path[length++] = at;
	describe_broken(life.verdicts.broken);
	memset(&life.verdicts, 0, sizeof(life.verdicts));
	world_init(&life.world, &handoff_tables, config);
	life.watch = print_step;
	while (length > 0) {
		life.world.next_workers = other_workers(&life.world);
		apply(&life.world, arrivals[path[--length]].move);
		life_deliver_all(&life, &life.world, false);
		canonicalize(&life.world);
	}
	life.watch = NULL;
}

static void search(const struct handoff_config *config)
{
	memset(slots, 0, slot_count * sizeof(*slots));
	memset(&life.verdicts, 0, sizeof(life.verdicts));
	now.used = next.used = 0;
	count = deepest = 0;
	steps = bounded = 0;
	world_init(&life.world, &handoff_tables, config);
	arrive(0, (struct move){0});
	for (; next.used > 0 && life.verdicts.broken == 0; deepest++) {
		struct frontier swapped = now;
		now = next;
		next = swapped;
		next.used = 0;
		for (size_t at = 0; at < now.used && life.verdicts.broken == 0;) {
			uint32_t size;
			memcpy(&here_number, now.bytes + at, sizeof(here_number));
			memcpy(&size, now.bytes + at + sizeof(size), sizeof(size));
			world_init(&here, &handoff_tables, config);
			unpack(&here, now.bytes + at + 2 * sizeof(size));
			at += size + 2 * sizeof(size);
			try_all();
		}
	}
}

static bool report(int number, const struct handoff_config *config)
{
	static const char *const policies[] = {[HANDOFF_RESTART_ALWAYS] = "always",
					       [HANDOFF_RESTART_ON_FAILURE] = "on-failure",
					       [HANDOFF_RESTART_NEVER] = "never"};
	bool fine = life.verdicts.broken == 0;
	printf("%sok %d - reach: every invariant, restart %s, %s%u workers%s%s, max-draining %u, %u ending, %u "
	       "requests\n",
	       fine ? "" : "not ", number, policies[config->restart], varying ? "1 or " : "", config->workers,
	       config->stop_first ? ", stop-first" : "", config->rolling ? ", rolling" : "", config->max_draining,
	       max_ending, max_requests);
	printf("# %u states, %llu steps, deepest %u, %llu steps beyond the bounds not followed\n", count,
	       (unsigned long long)steps, deepest - 1, (unsigned long long)bounded);
	if (!fine)
		show(config);
	fflush(stdout);
	return fine;
}

int main(int argc, char **argv)
{
	static const struct {
		struct handoff_config config;
		uint32_t ending, requests; /* at a time */
		bool varying;
		enum { SMALL, MEDIUM, LARGE } size;
	} runs[] = {
		/* restart, max_restarts, max_draining, workers, stop_first, rolling */
		{{HANDOFF_RESTART_ALWAYS, 2, 2, 1, false, false}, 1, 2, false, SMALL},
		{{HANDOFF_RESTART_NEVER, 2, 2, 1, false, false}, 1, 2, false, SMALL},
		{{HANDOFF_RESTART_ON_FAILURE, 2, 1, 1, true, false}, 1, 2, false, SMALL},
		{{HANDOFF_RESTART_NEVER, 2, 1, 2, true, false}, 1, 1, false, SMALL},
		{{HANDOFF_RESTART_ON_FAILURE, 2, 2, 2, false, false}, 1, 0, false, MEDIUM},
		{{HANDOFF_RESTART_ON_FAILURE, 2, 1, 2, false, true}, 1, 0, false, MEDIUM},
		{{HANDOFF_RESTART_NEVER, 2, 1, 2, false, true}, 1, 0, true, MEDIUM},
		{{HANDOFF_RESTART_ON_FAILURE, 2, 1, 1, false, false}, 2, 2, false, MEDIUM},
		{{HANDOFF_RESTART_ON_FAILURE, 2, 1, 2, false, false}, 1, 1, false, LARGE},
		{{HANDOFF_RESTART_ON_FAILURE, 2, 1, 2, false, true}, 1, 1, true, LARGE},
	};
	int size = MEDIUM;
	if (argc > 1)
		size = strcmp(argv[1], "--small") == 0 ? SMALL : LARGE;
	int number = 0;
	bool fine = true;
	slot_count = size == LARGE ? 1U << 22 : 1U << 21;
	slots = need(calloc(slot_count, sizeof(*slots)));
	arrivals = need(calloc(slot_count / 2 + 1, sizeof(*arrivals)));
	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		if ((int)runs[i].size > size)
			continue;
		max_ending = runs[i].ending;
		max_requests = runs[i].requests;
		varying = runs[i].varying;
		search(&runs[i].config);
		fine = report(++number, &runs[i].config) && fine;
	}
	printf("1..%d\n", number);
	free(slots);
	free(arrivals);
	free(now.bytes);
	free(next.bytes);
	return fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
