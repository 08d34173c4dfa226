/* SPDX-License-Identifier: MIT */
/* Tests of the pure state machine with stop-first: the old generation goes before the new one comes. */
#include "handoff_fixture.h"

static const struct handoff_config stop_first = {.restart = HANDOFF_RESTART_ON_FAILURE, .stop_first = true};
static const struct handoff_config stop_first_never = {.restart = HANDOFF_RESTART_NEVER, .stop_first = true};

/* What the last event started, or NULL. */
static const struct handoff_action *spawned(void)
{
	for (uint32_t i = 0; i < actions.count; i++)
		if (actions.items[i].kind == HANDOFF_DO_SPAWN)
			return &actions.items[i];
	return NULL;
}

static void empty(uint32_t generation)
{
	check_state(HANDOFF_EMPTYING);
	go(generation);
	tell(HANDOFF_GONE, generation);
}

static void test_handoff_stop_first_drains_then_starts(void)
{
	make_running(stop_first);
	check_str(request(7, 1, 0), "join:7/1 empty -settle:1 -healthy:1 -worker:1 drain:1 +drain:1");
	check(actions.items[1].asked);
	check_state(HANDOFF_EMPTYING);
	check(!handoff_active(&machine) && !handoff_starting(&machine));
	check_str(go(1), "drain-rest:1");
	check_state(HANDOFF_EMPTYING);
	check_str(tell(HANDOFF_GONE, 1), "release:1 spawn:2*1/1 +ready:2");
	check(spawned()->asked);
	check_state(HANDOFF_STARTING);
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_SETTLE_DUE, 2), "activate:2 +healthy:2 answer/1:2/ok");
}

static void test_handoff_stop_first_kills_at_the_drain_timeout(void)
{
	make_running(stop_first);
	ask(HANDOFF_RELOAD);
	check_str(tell(HANDOFF_DRAIN_DUE, 1), "kill:1/drain-timeout");
	check_str(go(1), "");
	check_contains(tell(HANDOFF_GONE, 1), "spawn:2*1/0");
	check(!machine.forced);
}

/* What was asked has begun: who comes now waits for the start after it. */
static void test_handoff_stop_first_queues_while_it_empties(void)
{
	make_running(stop_first);
	request(1, 1, 0);
	check_str(request(2, 1, 0), "join:2/2");
	check_str(ask(HANDOFF_RELOAD), "");
	check_str(ask(HANDOFF_RELOAD), "");
	check_str(request(3, 2, 0), "answer/2:0/superseded join:3/3");
	empty(1);
	check_int(spawned()->wish, 1);
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_SETTLE_DUE, 2), "activate:2 +healthy:2 answer/1:2/ok empty -settle:2 -healthy:2 "
					       "-worker:2 drain:2 +drain:2");
	empty(2);
	check_int(spawned()->wish, 3);
	become_active(3);
	check_state(HANDOFF_RUNNING);
}

static void test_handoff_stop_first_refuses_another_generation(void)
{
	make_running(stop_first);
	check_str(request(1, 1, 9), "join:1/1 answer/1:1/other-generation");
	check_state(HANDOFF_RUNNING);
	check_generation(1, GENERATION_ACTIVE);
}

static void test_handoff_stop_first_is_stopped_while_it_empties(void)
{
	make_running(stop_first);
	request(1, 1, 0);
	request(2, 2, 0);
	check_str(ask(HANDOFF_STOP), "close-all answer/2:0/stopping answer/1:0/stopping");
	go(1);
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);

	make_running(stop_first);
	request(1, 1, 0);
	check_str(ask(HANDOFF_KILL), "close-all answer/1:0/stopping terminate:1 -drain:1 +kill:1");
	leave(1, false);
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

static void test_handoff_stop_first_ignores_what_is_not_its_turn(void)
{
	make_running(stop_first);
	ask(HANDOFF_RELOAD);
	check_str(ask(HANDOFF_START), "");
	check_str(ask(HANDOFF_RESTART_DUE), "");
	check_state(HANDOFF_EMPTYING);
}

/* Nobody is left to fall back to: the last good one is started again, at once and whatever the policy is. */
static void test_handoff_stop_first_falls_back(void)
{
	const struct handoff_config configs[] = {stop_first, stop_first_never};
	for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
		make_running(configs[i]);
		request(1, 1, 0);
		empty(1);
		check_str(leave(2, false), "-ready:2 -settle:2 fail:2/exited answer/1:2/failed! drain:2 +abort:2 "
					   "empty");
		check(!actions.items[actions.count - 1].asked);
		check_str(tell(HANDOFF_GONE, 2), "release:2 spawn:3*1/0 +ready:3");
		check(!spawned()->asked);
		become_active(3);
		check_state(HANDOFF_RUNNING);
		check_int(machine.failures, 0);
	}
}

static void test_handoff_stop_first_falls_back_where_nothing_was_spawned(void)
{
	make_running(stop_first_never);
	ask(HANDOFF_RELOAD);
	empty(1);
	check_str(spawn_failed(2, 1), "-ready:2 -settle:2 fail:2/spawn release:2 spawn:3*1/0 +ready:3");
	check(!spawned()->asked);
}

/* Then the policy has the word. */
static void test_handoff_stop_first_falls_back_once(void)
{
	make_running(stop_first_never);
	ask(HANDOFF_RELOAD);
	empty(1);
	spawn_failed(2, 1);
	check_str(spawn_failed(3, 1), "-ready:3 -settle:3 fail:3/spawn release:3 close-all exit");
	check_exit(HANDOFF_EXIT_GAVE_UP, false);

	make_running(stop_first);
	ask(HANDOFF_RELOAD);
	empty(1);
	spawn_failed(2, 1);
	check_str(spawn_failed(3, 1), "-ready:3 -settle:3 fail:3/spawn release:3 +restart/0");
	check_state(HANDOFF_WAITING);
}

static void test_handoff_stop_first_begins_what_waits_after_a_failure(void)
{
	make_running(stop_first_never);
	request(1, 1, 0);
	empty(1);
	request(2, 2, 0);
	check_str(leave(2, false), "-ready:2 -settle:2 fail:2/exited answer/1:2/failed! drain:2 +abort:2 empty");
	check(actions.items[actions.count - 1].asked);
	check_contains(tell(HANDOFF_GONE, 2), "spawn:3*1/2");
}

static void test_handoff_stop_first_fails_at_first(void)
{
	make(stop_first);
	ask(HANDOFF_START);
	request(1, 1, 0);
	check_str(spawn_failed(1, 1), "-ready:1 -settle:1 fail:1/spawn release:1 close-all answer/1:0/stopping exit");
	check_exit(HANDOFF_EXIT_FIRST_FAILED, false);
}

/* What a crash leaves behind may hold what must not be held twice. */
static void test_handoff_stop_first_restarts_when_the_rest_is_gone(void)
{
	make_running(stop_first);
	check_contains(leave(1, false), "+restart/0");
	check_str(ask(HANDOFF_RESTART_DUE), "empty");
	check(!actions.items[0].asked);
	check_state(HANDOFF_EMPTYING);
	check_str(tell(HANDOFF_GONE, 1), "release:1 spawn:2*1/0 +ready:2");

	make_running(stop_first);
	leave(1, false);
	tell(HANDOFF_GONE, 1);
	check_str(ask(HANDOFF_RESTART_DUE), "spawn:2*1/0 +ready:2");

	make_running(stop_first);
	leave(1, false);
	check_str(request(1, 1, 0), "join:1/1 empty -restart:0");
	check_str(tell(HANDOFF_GONE, 1), "release:1 spawn:2*1/1 +ready:2");
}

/* A spawn that failed is told late: it was all that was there. */
static void test_handoff_stop_first_goes_on_where_nothing_was_spawned(void)
{
	make_running(stop_first);
	leave(1, false);
	tell(HANDOFF_GONE, 1);
	ask(HANDOFF_RESTART_DUE);
	tell(HANDOFF_NOT_READY, 2);
	ask(HANDOFF_RESTART_DUE);
	check_state(HANDOFF_EMPTYING);
	check_str(spawn_failed(2, 1), "release:2 spawn:3*1/0 +ready:3");
}

static void test_handoff_stop_first_with_several_workers(void)
{
	make_running((struct handoff_config){
		.restart = HANDOFF_RESTART_ON_FAILURE, .stop_first = true, .rolling = true, .workers = 2});
	ask(HANDOFF_RELOAD);
	go(1);
	tell(HANDOFF_GONE, 1);
	check_state(HANDOFF_EMPTYING);
	go(1);
	/* Rolling has no meaning here: all of them at once. */
	check_str(tell(HANDOFF_GONE, 1), "release:1 spawn:2*2/0 +ready:2");
}

TEST_MAIN(TEST(test_handoff_stop_first_drains_then_starts), TEST(test_handoff_stop_first_kills_at_the_drain_timeout),
	  TEST(test_handoff_stop_first_queues_while_it_empties),
	  TEST(test_handoff_stop_first_refuses_another_generation),
	  TEST(test_handoff_stop_first_is_stopped_while_it_empties),
	  TEST(test_handoff_stop_first_ignores_what_is_not_its_turn), TEST(test_handoff_stop_first_falls_back),
	  TEST(test_handoff_stop_first_falls_back_where_nothing_was_spawned),
	  TEST(test_handoff_stop_first_falls_back_once),
	  TEST(test_handoff_stop_first_begins_what_waits_after_a_failure), TEST(test_handoff_stop_first_fails_at_first),
	  TEST(test_handoff_stop_first_restarts_when_the_rest_is_gone),
	  TEST(test_handoff_stop_first_goes_on_where_nothing_was_spawned),
	  TEST(test_handoff_stop_first_with_several_workers))
