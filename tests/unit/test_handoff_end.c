/* SPDX-License-Identifier: MIT */
/* Tests of the pure state machine: stops in every state, and generations of several workers. */
#include "handoff_fixture.h"

static const struct handoff_config two_workers = {.restart = HANDOFF_RESTART_ON_FAILURE, .workers = 2};

/* ---- a graceful stop ---- */

static void test_handoff_stop_before_the_start(void)
{
	make(on_failure);
	check_str(request(1, 1, 0), "refuse:1/stopping");
	check_str(ask(HANDOFF_STOP), "close-all exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
	check_str(ask(HANDOFF_START), "");
	check_str(request(2, 1, 0), "refuse:2/stopping");
	check_str(ask(HANDOFF_RELOAD), "");
	check_str(ask(HANDOFF_STOP), "");
	check_str(ask(HANDOFF_KILL), "");
	check_state(HANDOFF_DONE);
}

static void test_handoff_stop_while_running(void)
{
	make_running(on_failure);
	check_str(ask(HANDOFF_STOP), "close-all -settle:1 -healthy:1 -worker:1 drain:1 +drain:1");
	check_state(HANDOFF_STOPPING);
	check_str(request(1, 1, 0), "refuse:1/stopping");
	check_str(ask(HANDOFF_RELOAD), "");
	check_str(leave(1, false), "drain-rest:1");
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

static void test_handoff_stop_while_starting(void)
{
	make(on_failure);
	ask(HANDOFF_START);
	request(1, 1, 0);
	check_str(ask(HANDOFF_STOP), "close-all answer/1:0/stopping -ready:1 drain:1 +kill:1");
	check_str(tell(HANDOFF_READY, 1), "");
	check_str(tell(HANDOFF_KILL_DUE, 1), "kill:1/timeout");
	leave(1, false);
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, true);
}

static void test_handoff_stop_comes_before_the_failed_spawn(void)
{
	make(on_failure);
	ask(HANDOFF_START);
	ask(HANDOFF_STOP);
	check_str(spawn_failed(1, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

static void test_handoff_stop_while_replacing(void)
{
	make_running(on_failure);
	request(1, 1, 0);
	request(2, 2, 0);
	check_str(ask(HANDOFF_STOP),
		  "close-all answer/2:0/stopping answer/1:2/stopping -settle:1 -healthy:1 -worker:1 drain:1 "
		  "+drain:1 -ready:2 drain:2 +kill:2");
	leave(2, false);
	check_str(tell(HANDOFF_GONE, 2), "release:2");
	leave(1, false);
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

/* One that is ready may have taken connections: it has all the time of one that serves. */
static void test_handoff_stop_while_settling(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_READY, 2);
	check_str(ask(HANDOFF_STOP), "close-all -settle:1 -healthy:1 -worker:1 drain:1 +drain:1 -settle:2 -healthy:2 "
				     "-worker:2 drain:2 +drain:2");
	check_str(tell(HANDOFF_SETTLE_DUE, 2), "");
	check_str(tell(HANDOFF_DRAIN_DUE, 2), "kill:2/drain-timeout");
	check(machine.forced);
}

static void test_handoff_stop_in_a_back_off(void)
{
	make_running(on_failure);
	leave(1, false);
	check_state(HANDOFF_WAITING);
	tell(HANDOFF_GONE, 1);
	check_str(ask(HANDOFF_STOP), "-restart:0 close-all exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
	check_str(ask(HANDOFF_RESTART_DUE), "");
}

/* What failed before the stop keeps its own deadline, and its kill is not the stop's. */
static void test_handoff_stop_beside_a_failed_start(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_NOT_READY, 2);
	check_str(ask(HANDOFF_STOP), "close-all -settle:1 -healthy:1 -worker:1 drain:1 +drain:1");
	leave(1, true);
	check_str(tell(HANDOFF_GONE, 1), "release:1");
	check_str(tell(HANDOFF_KILL_DUE, 2), "kill:2/timeout");
	leave(2, false);
	check_str(tell(HANDOFF_GONE, 2), "release:2 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

static void test_handoff_stop_is_forced_where_a_drain_times_out(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	become_active(2);
	/* Before the stop it is business as usual. */
	tell(HANDOFF_DRAIN_DUE, 1);
	check(!machine.forced);
	ask(HANDOFF_STOP);
	tell(HANDOFF_DRAIN_DUE, 2);
	check(machine.forced);
}

/* ---- an immediate stop ---- */

static void test_handoff_second_stop_is_immediate(void)
{
	make_running(on_failure);
	ask(HANDOFF_STOP);
	check_str(ask(HANDOFF_STOP), "terminate:1 -drain:1 +kill:1");
	check_state(HANDOFF_KILLING);
	check_str(ask(HANDOFF_STOP), "");
	check_str(ask(HANDOFF_KILL), "");
	check_str(leave(1, false), "");
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

static void test_handoff_kill_in_every_state(void)
{
	make(on_failure);
	check_str(ask(HANDOFF_KILL), "close-all exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);

	make(on_failure);
	ask(HANDOFF_START);
	check_str(ask(HANDOFF_KILL), "close-all terminate:1 -ready:1 +kill:1");

	make_running(on_failure);
	check_str(ask(HANDOFF_KILL), "close-all terminate:1 -healthy:1 -worker:1 +kill:1");

	make_running(on_failure);
	request(1, 1, 0);
	tell(HANDOFF_READY, 2);
	check_str(
		ask(HANDOFF_KILL),
		"close-all answer/1:2/stopping terminate:1 -healthy:1 -worker:1 +kill:1 terminate:2 -settle:2 +kill:2");

	make_running(on_failure);
	leave(1, false);
	check_str(ask(HANDOFF_KILL), "-restart:0 close-all terminate:1 -drain:1 +kill:1");

	make_running(on_failure);
	ask(HANDOFF_STOP);
	check_str(ask(HANDOFF_KILL), "terminate:1 -drain:1 +kill:1");
	check_str(tell(HANDOFF_KILL_DUE, 1), "kill:1/timeout");
	leave(1, false);
	tell(HANDOFF_GONE, 1);
	check_exit(HANDOFF_EXIT_STOPPED, true);
}

static void test_handoff_kill_reaches_failed_ones_too(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_NOT_READY, 2);
	check_str(ask(HANDOFF_KILL), "close-all terminate:1 -healthy:1 -worker:1 +kill:1 terminate:2");
}

/* As many as there can be: all that has to be done has room. */
static void test_handoff_kill_of_64_draining_generations(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_ON_FAILURE, .max_draining = 64});
	uint32_t number = 1;
	while (machine.generation_count < 65) {
		ask(HANDOFF_RELOAD);
		become_active(++number);
	}
	while (machine.generation_count < HANDOFF_GENERATIONS) {
		ask(HANDOFF_RELOAD);
		tell(HANDOFF_NOT_READY, ++number);
	}
	ask(HANDOFF_KILL);
	check_state(HANDOFF_KILLING);
	for (uint32_t i = 0; i < machine.generation_count; i++)
		check(machine.generations[i].terminated);
	while (machine.generation_count > 0) {
		uint32_t first = machine.generations[0].number;
		leave(first, false);
		tell(HANDOFF_GONE, first);
	}
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

/* ---- several workers ---- */

static void test_handoff_workers_are_ready_together(void)
{
	make(two_workers);
	check_str(ask(HANDOFF_START), "spawn:1*2/0 +ready:1");
	check_str(tell(HANDOFF_READY, 1), "");
	check_generation(1, GENERATION_STARTING);
	check_str(tell(HANDOFF_READY, 1), "-ready:1 +settle:1");
}

static void test_handoff_one_worker_fails_the_start(void)
{
	make_running(two_workers);
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_READY, 2);
	check_str(leave(2, false), "-ready:2 -settle:2 fail:2/exited drain:2 +abort:2");
	check_str(tell(HANDOFF_GONE, 2), "");
	check_str(leave(2, false), "drain-rest:2");
	check_str(tell(HANDOFF_GONE, 2), "release:2");
}

static void test_handoff_some_workers_cannot_be_spawned(void)
{
	make_running(two_workers);
	ask(HANDOFF_RELOAD);
	check_str(spawn_failed(2, 1), "-ready:2 -settle:2 fail:2/spawn drain:2 +abort:2");
	leave(2, true);
	check_str(tell(HANDOFF_GONE, 2), "release:2");

	ask(HANDOFF_RELOAD);
	check_str(spawn_failed(3, 2), "-ready:3 -settle:3 fail:3/spawn release:3");
	check_state(HANDOFF_RUNNING);

	/* The protocol failed first. */
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_NOT_READY, 4);
	check_str(spawn_failed(4, 1), "");
	leave(4, true);
	check_str(tell(HANDOFF_GONE, 4), "release:4");
}

static void test_handoff_active_lives_while_one_worker_does(void)
{
	make_running(two_workers);
	check_str(leave(1, false), "drain-rest:1 -healthy:1 +worker:1/0");
	check_str(tell(HANDOFF_GONE, 1), "");
	check_state(HANDOFF_RUNNING);
	check_str(leave(1, false), "-healthy:1 -worker:1 died:1 drain-rest:1 +drain:1 +restart/0");
	check_str(tell(HANDOFF_GONE, 1), "release:1");
}

static void test_handoff_drains_every_worker(void)
{
	make_running(two_workers);
	ask(HANDOFF_STOP);
	check_str(leave(1, true), "drain-rest:1");
	check_str(leave(1, true), "drain-rest:1");
	check_str(tell(HANDOFF_GONE, 1), "");
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_STOPPED, false);
}

TEST_MAIN(TEST(test_handoff_stop_before_the_start), TEST(test_handoff_stop_while_running),
	  TEST(test_handoff_stop_while_starting), TEST(test_handoff_stop_comes_before_the_failed_spawn),
	  TEST(test_handoff_stop_while_replacing), TEST(test_handoff_stop_while_settling),
	  TEST(test_handoff_stop_in_a_back_off), TEST(test_handoff_stop_beside_a_failed_start),
	  TEST(test_handoff_stop_is_forced_where_a_drain_times_out), TEST(test_handoff_second_stop_is_immediate),
	  TEST(test_handoff_kill_in_every_state), TEST(test_handoff_kill_reaches_failed_ones_too),
	  TEST(test_handoff_kill_of_64_draining_generations), TEST(test_handoff_workers_are_ready_together),
	  TEST(test_handoff_one_worker_fails_the_start), TEST(test_handoff_some_workers_cannot_be_spawned),
	  TEST(test_handoff_active_lives_while_one_worker_does), TEST(test_handoff_drains_every_worker))
