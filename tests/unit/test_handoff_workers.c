/* SPDX-License-Identifier: MIT */
/* Tests of the pure state machine: lost workers are replaced alone, rolling hand-offs, and how many workers there are.
 */
#include "handoff_fixture.h"

static const struct handoff_config three = {.restart = HANDOFF_RESTART_ON_FAILURE, .workers = 3};
static const struct handoff_config rolling_two = {.restart = HANDOFF_RESTART_ON_FAILURE, .workers = 2, .rolling = true};
static const struct handoff_config rolling_three = {
	.restart = HANDOFF_RESTART_ON_FAILURE, .workers = 3, .rolling = true};

static void check_workers(uint32_t number, uint32_t target, uint32_t alive, uint32_t leaving, uint32_t present)
{
	const struct handoff_generation *generation = handoff_find(&machine, number);
	check(generation != NULL);
	check_int(generation->target, target);
	check_int(generation->alive, alive);
	check_int(generation->leaving, leaving);
	check_int(generation->present, present);
}

/* The newest worker of a rolling hand-off becomes ready and settles. */
static const char *settle(uint32_t generation)
{
	tell(HANDOFF_READY, generation);
	check_generation(generation, GENERATION_SETTLING);
	return tell(HANDOFF_SETTLE_DUE, generation);
}

/* ---- a lost worker ---- */

static void test_handoff_lost_worker_is_replaced_alone(void)
{
	make_running(three);
	check_str(leave(1, false), "drain-rest:1 -healthy:1 +worker:1/0");
	check_workers(1, 3, 2, 0, 3);
	check_state(HANDOFF_RUNNING);
	check_str(tell(HANDOFF_WORKER_DUE, 1), "spawn-more:1*1 +healthy:1");
	/* What the lost one left behind is still there. */
	check_workers(1, 3, 3, 0, 4);
	check_str(tell(HANDOFF_READY, 1), "");
	check_str(tell(HANDOFF_GONE, 1), "");
	check_workers(1, 3, 3, 0, 3);
	check_str(tell(HANDOFF_WORKER_DUE, 1), "");
	check_generation(1, GENERATION_ACTIVE);
}

static void test_handoff_lost_workers_are_replaced_together(void)
{
	make_running(three);
	leave(1, false);
	check_str(leave(1, true), "drain-rest:1 -healthy:1 +worker:1/1");
	check_str(tell(HANDOFF_WORKER_DUE, 1), "spawn-more:1*2 +healthy:1");
}

static void test_handoff_losses_back_off_to_a_cap_and_are_forgotten(void)
{
	char expected[32];
	make_running(three);
	for (uint32_t lost = 0; lost < 20; lost++) {
		snprintf(expected, sizeof(expected), "+worker:1/%u", lost < 16 ? lost : 16);
		check_contains(leave(1, false), expected);
		tell(HANDOFF_GONE, 1);
		check_contains(tell(HANDOFF_WORKER_DUE, 1), "+healthy:1");
	}
	check_str(tell(HANDOFF_HEALTHY_DUE, 1), "");
	check_contains(leave(1, false), "+worker:1/0");
}

static void test_handoff_losses_are_no_failures_of_the_generation(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_ON_FAILURE, .workers = 2, .max_restarts = 1});
	for (uint32_t lost = 0; lost < 5; lost++) {
		leave(1, false);
		tell(HANDOFF_WORKER_DUE, 1);
	}
	check_int(machine.failures, 0);
	check_state(HANDOFF_RUNNING);
}

static void test_handoff_never_replaces_no_worker(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_NEVER, .workers = 2});
	check_str(leave(1, false), "drain-rest:1");
	check_contains(leave(1, false), "close-all");
	check_int(machine.exit, HANDOFF_EXIT_GAVE_UP);
}

static void test_handoff_replacement_that_cannot_be_spawned(void)
{
	make_running(three);
	leave(1, false);
	tell(HANDOFF_WORKER_DUE, 1);
	check_str(spawn_failed(1, 1), "-healthy:1 +worker:1/1");
	check_workers(1, 3, 2, 0, 3);
	check_str(tell(HANDOFF_WORKER_DUE, 1), "spawn-more:1*1 +healthy:1");
}

/* The others ended while it was tried. Nothing is left that could be heard of. */
static void test_handoff_replacement_was_the_last_hope(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_ON_FAILURE, .workers = 2});
	leave(1, false);
	tell(HANDOFF_GONE, 1);
	tell(HANDOFF_WORKER_DUE, 1);
	leave(1, false);
	tell(HANDOFF_GONE, 1);
	check_str(spawn_failed(1, 1), "-healthy:1 -worker:1 died:1 drain-rest:1 +drain:1 +restart/0 release:1");
	check_state(HANDOFF_WAITING);
	check_contains(ask(HANDOFF_RESTART_DUE), "spawn:2*2/0");
}

static void test_handoff_replaced_by_a_handoff_before_its_turn(void)
{
	make_running(three);
	leave(1, false);
	ask(HANDOFF_RELOAD);
	for (int i = 0; i < 3; i++)
		tell(HANDOFF_READY, 2);
	check_contains(tell(HANDOFF_SETTLE_DUE, 2), "-worker:1 drain:1");
	check_str(tell(HANDOFF_WORKER_DUE, 1), "");
}

/* ---- a rolling hand-off ---- */

static void test_handoff_rolls_worker_by_worker(void)
{
	make_running(rolling_three);
	check_str(request(1, 1, 0), "join:1/1 spawn:2*1/1 +ready:2");
	check_str(tell(HANDOFF_READY, 2), "-ready:2 +settle:2");
	check_str(tell(HANDOFF_SETTLE_DUE, 2), "drain-one:1 spawn-more:2*1 +ready:2");
	check_state(HANDOFF_REPLACING);
	check_workers(1, 2, 3, 1, 3);
	check_workers(2, 3, 2, 0, 2);
	/* It is not waited for. */
	check_str(settle(2), "drain-one:1 spawn-more:2*1 +ready:2");
	check_workers(1, 1, 3, 2, 3);
	check_str(go(1), "drain-rest:1");
	check_str(tell(HANDOFF_GONE, 1), "");
	check_str(settle(2), "activate:2 +healthy:2 answer/1:2/ok -settle:1 -healthy:1 -worker:1 drain:1 +drain:1");
	check_state(HANDOFF_RUNNING);
	check_str(go(1), "drain-rest:1");
	check_str(leave(1, true), "drain-rest:1");
	tell(HANDOFF_GONE, 1);
	check_str(tell(HANDOFF_GONE, 1), "release:1");
}

static void test_handoff_first_start_does_not_roll(void)
{
	make(rolling_three);
	check_str(ask(HANDOFF_START), "spawn:1*3/0 +ready:1");
}

static void test_handoff_failed_roll_gives_the_workers_back(void)
{
	make_running(rolling_three);
	request(1, 1, 0);
	settle(2);
	settle(2);
	check_workers(1, 1, 3, 2, 3);
	go(1);
	check_str(leave(2, false), "-ready:2 -settle:2 fail:2/exited answer/1:2/failed! drain:2 +abort:2 +worker:1/0");
	check_state(HANDOFF_RUNNING);
	check_workers(1, 3, 2, 1, 3);
	/* Who still leaves serves nobody new, and does not count. */
	check_str(tell(HANDOFF_WORKER_DUE, 1), "spawn-more:1*2 +healthy:1");
	check_workers(1, 3, 4, 1, 5);
	check_str(go(1), "drain-rest:1");
	check_str(tell(HANDOFF_WORKER_DUE, 1), "");
	check_workers(1, 3, 3, 0, 5);
}

/* Two hand-offs in a row that fail halfway, beside workers that take their time to leave: somebody must serve. */
static void test_handoff_failed_rolls_do_not_drain_all(void)
{
	make_running(rolling_two);
	for (uint32_t number = 2; number <= 3; number++) {
		ask(HANDOFF_RELOAD);
		settle(number);
		tell(HANDOFF_NOT_READY, number);
		const struct handoff_generation *active = handoff_active(&machine);
		check_int(active->target, 2);
		tell(HANDOFF_WORKER_DUE, 1);
		check_int(active->alive - active->leaving, 2);
	}
	check_workers(1, 2, 4, 2, 4);
}

/* The next hand-off begins before they are back: it takes away no more than there are. */
static void test_handoff_rolls_on_with_few(void)
{
	make_running(rolling_two);
	ask(HANDOFF_RELOAD);
	ask(HANDOFF_RELOAD);
	settle(2);
	check_contains(leave(2, false), "+worker:1/0 spawn:3*1/0 +ready:3");
	check_workers(1, 2, 2, 1, 2);
	check_str(settle(3), "spawn-more:3*1 +ready:3");
	check_workers(1, 1, 2, 1, 2);
	check_str(tell(HANDOFF_WORKER_DUE, 1), "");
	check_contains(settle(3), "activate:3");
}

/* A worker that is lost meanwhile is one that need not be told to go. */
static void test_handoff_rolls_on_beside_a_loss(void)
{
	make_running(rolling_three);
	ask(HANDOFF_RELOAD);
	check_contains(leave(1, false), "+worker:1/0");
	check_str(settle(2), "spawn-more:2*1 +ready:2");
	check_workers(1, 2, 2, 0, 3);
	check_str(tell(HANDOFF_WORKER_DUE, 1), "");
	check_contains(settle(2), "drain-one:1");
	/* The one that was to stay. */
	check_contains(leave(1, false), "+worker:1/1");
	check_str(tell(HANDOFF_WORKER_DUE, 1), "spawn-more:1*1 +healthy:1");
}

static void test_handoff_rolls_on_alone_where_the_old_one_died(void)
{
	make_running(rolling_three);
	ask(HANDOFF_RELOAD);
	for (int i = 0; i < 2; i++)
		leave(1, false);
	check_contains(leave(1, false), "died:1");
	check_state(HANDOFF_STARTING);
	check_str(settle(2), "spawn-more:2*2 +ready:2");
	tell(HANDOFF_READY, 2);
	check_contains(settle(2), "activate:2");
	check_state(HANDOFF_RUNNING);
}

static void test_handoff_spawn_fails_halfway(void)
{
	make_running(rolling_two);
	ask(HANDOFF_RELOAD);
	settle(2);
	check_str(spawn_failed(2, 1), "-ready:2 -settle:2 fail:2/spawn drain:2 +abort:2 +worker:1/0");
	check_workers(1, 2, 2, 1, 2);
}

/* The last worker was told to leave, and left cleanly. That is no clean end of the generation. */
static void test_handoff_leaving_is_no_clean_end(void)
{
	make_running(rolling_two);
	ask(HANDOFF_RELOAD);
	settle(2);
	leave(1, false);
	tell(HANDOFF_NOT_READY, 2);
	check_state(HANDOFF_RUNNING);
	check_contains(go(1), "died:1");
	check_state(HANDOFF_WAITING);
	check_int(machine.exit, HANDOFF_EXIT_NONE);
}

/* All had exited when one of them was to be told: none leaves. */
static void test_handoff_nobody_was_told(void)
{
	make_running(rolling_three);
	ask(HANDOFF_RELOAD);
	check_contains(settle(2), "drain-one:1");
	leave(1, false);
	leave(1, false);
	check_workers(1, 2, 1, 1, 3);
	tell(HANDOFF_WORKER_DUE, 1);
	check_workers(1, 2, 3, 1, 5);
	check_contains(leave(1, false), "+worker:1");
	check_workers(1, 2, 2, 1, 5);
}

static void test_handoff_stop_while_it_rolls(void)
{
	make_running(rolling_two);
	request(1, 1, 0);
	settle(2);
	check_str(ask(HANDOFF_STOP), "close-all answer/1:2/stopping -settle:1 -healthy:1 -worker:1 drain:1 +drain:1 "
				     "-ready:2 drain:2 +kill:2");
	check_str(tell(HANDOFF_WORKER_DUE, 1), "");
}

/* ---- how many ---- */

static void test_handoff_set_workers_decides_what_is_spawned(void)
{
	make(three);
	ask(HANDOFF_START);
	check_int(handoff_set_workers(&machine, 1, 1), 1);
	tell(HANDOFF_READY, 1);
	tell(HANDOFF_SETTLE_DUE, 1);
	check_generation(1, GENERATION_ACTIVE);
	ask(HANDOFF_RELOAD);
	check_int(handoff_set_workers(&machine, 2, 4), 4);
	for (int i = 0; i < 4; i++) {
		check_generation(2, GENERATION_STARTING);
		tell(HANDOFF_READY, 2);
	}
	check_generation(2, GENERATION_SETTLING);
	tell(HANDOFF_SETTLE_DUE, 2);
	leave(2, false);
	check_str(tell(HANDOFF_WORKER_DUE, 2), "spawn-more:2*1 +healthy:2");
	/* What the next one has is not decided by that. */
	check_contains(ask(HANDOFF_RELOAD), "spawn:3*3/0");
}

static void test_handoff_rolls_from_few_to_many(void)
{
	make_running(rolling_two);
	ask(HANDOFF_RELOAD);
	check_int(handoff_set_workers(&machine, 2, 4), 1);
	check_str(settle(2), "drain-one:1 spawn-more:2*1 +ready:2");
	/* The last one stays to the end. */
	check_str(settle(2), "spawn-more:2*1 +ready:2");
	check_str(settle(2), "spawn-more:2*1 +ready:2");
	check_workers(1, 1, 2, 1, 2);
	check_contains(settle(2), "activate:2");
}

static void test_handoff_rolls_from_many_to_few(void)
{
	make_running(rolling_three);
	ask(HANDOFF_RELOAD);
	check_int(handoff_set_workers(&machine, 2, 1), 1);
	check_contains(settle(2), "activate:2");
	check_generation(1, GENERATION_DRAINING);
	check_workers(1, 3, 3, 0, 3);
}

TEST_MAIN(TEST(test_handoff_lost_worker_is_replaced_alone), TEST(test_handoff_lost_workers_are_replaced_together),
	  TEST(test_handoff_losses_back_off_to_a_cap_and_are_forgotten),
	  TEST(test_handoff_losses_are_no_failures_of_the_generation), TEST(test_handoff_never_replaces_no_worker),
	  TEST(test_handoff_replacement_that_cannot_be_spawned), TEST(test_handoff_replacement_was_the_last_hope),
	  TEST(test_handoff_replaced_by_a_handoff_before_its_turn), TEST(test_handoff_rolls_worker_by_worker),
	  TEST(test_handoff_first_start_does_not_roll), TEST(test_handoff_failed_roll_gives_the_workers_back),
	  TEST(test_handoff_failed_rolls_do_not_drain_all), TEST(test_handoff_rolls_on_with_few),
	  TEST(test_handoff_rolls_on_beside_a_loss), TEST(test_handoff_rolls_on_alone_where_the_old_one_died),
	  TEST(test_handoff_spawn_fails_halfway), TEST(test_handoff_leaving_is_no_clean_end),
	  TEST(test_handoff_nobody_was_told), TEST(test_handoff_stop_while_it_rolls),
	  TEST(test_handoff_set_workers_decides_what_is_spawned), TEST(test_handoff_rolls_from_few_to_many),
	  TEST(test_handoff_rolls_from_many_to_few))
