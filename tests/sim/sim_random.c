/* SPDX-License-Identifier: MIT */
/* Millions of random events: worlds that live until their supervisor exits, one after the other, judged at every step.
 *
 * usage: sim_random [--events N] [--seed S] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "describe.h"
#include "life.h"

#define SHOWN 60
#define LOOK_AHEAD_EVERY 256

struct tail {
	char lines[SHOWN][4096];
	size_t count;
};

static struct life life;
static struct tail tail;

static void keep(struct life *of, const struct world_step *step, bool fair)
{
	struct tail *kept = of->watch_data;
	char *line = kept->lines[kept->count++ % SHOWN];
	describe_step(line, sizeof(kept->lines[0]) - 32, step);
	if (fair)
		strcat(line, "   (looking ahead)");
}

/* True while there is nothing to complain about. */
static bool live_one(uint64_t seed, uint64_t events)
{
	life_begin(&life, &handoff_tables, seed);
	while (life.verdicts.broken == 0 && life.world.events < events && life_step(&life))
		if (life.verdicts.broken == 0 && life.world.events % LOOK_AHEAD_EVERY == seed % LOOK_AHEAD_EVERY)
			life_is_live(&life);
	return life.verdicts.broken == 0;
}

/* The same world again, which costs less than taking notes all the time. */
static void show(uint64_t seed, uint64_t events)
{
	const struct verdicts verdicts = life.verdicts;
	memset(&life.verdicts, 0, sizeof(life.verdicts));
	life.watch = keep;
	life.watch_data = &tail;
	live_one(seed, events);
	printf("# seed %llu, event %llu\n", (unsigned long long)seed, (unsigned long long)life.world.events);
	describe_broken(verdicts.broken);
	for (size_t i = tail.count > SHOWN ? tail.count - SHOWN : 0; i < tail.count; i++)
		printf("%s\n", tail.lines[i % SHOWN]);
	printf("# again: sim_random --seed %llu --events %llu\n", (unsigned long long)seed,
	       (unsigned long long)life.world.events);
	life.verdicts = verdicts;
}

static int report(uint64_t events, uint64_t worlds)
{
	int failed = 0;
	printf("# %llu events, %llu worlds\n1..%d\n", (unsigned long long)events, (unsigned long long)worlds,
	       INVARIANTS);
	for (uint32_t i = 0; i < INVARIANTS; i++) {
		bool broken = life.verdicts.broken & (1U << i);
		bool untested = life.verdicts.met[i] == 0;
		printf("%sok %u - random: %s\n", broken || untested ? "not " : "", i + 1,
		       invariant_title((enum invariant)i));
		printf("# its premise was met %llu times\n", (unsigned long long)life.verdicts.met[i]);
		failed += broken || untested;
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	uint64_t events = 10 * 1000 * 1000, seed = 0, done = 0, worlds = 0;
	bool seeded = false;
	for (int i = 1; i < argc; i += 2) {
		char *end = NULL;
		uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], &end, 10) : 0;
		bool number = end && *end == '\0' && *argv[i + 1] != '\0';
		if (number && strcmp(argv[i], "--events") == 0) {
			events = value;
		} else if (number && strcmp(argv[i], "--seed") == 0) {
			seed = value;
			seeded = true;
		} else {
			fprintf(stderr, "usage: sim_random [--events N] [--seed S]\n");
			return 2;
		}
	}
	if (!seeded && getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = 1;
	if (!seeded)
		seed &= UINT32_MAX;
	printf("# seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	while (done < events) {
		uint64_t left = events - done;
		bool fine = live_one(seed + worlds, left);
		done += life.world.events;
		if (!fine) {
			show(seed + worlds, left);
			break;
		}
		worlds++;
	}
	return report(done, worlds);
}
