/* SPDX-License-Identifier: MIT */
/* Tests of the pure state machine: starts, hand-offs, what waits for them, and restarts. Ends: test_handoff_end.c. */
#include "handoff_fixture.h"

/* ---- the tables and the queries ---- */

static void test_handoff_no_cell_is_empty(void)
{
	for (size_t state = 0; state < HANDOFF_STATES; state++)
		for (size_t event = 0; event < HANDOFF_SUPERVISOR_EVENTS; event++)
			check(handoff_tables.supervisor[state][event] != NULL);
	for (size_t state = 0; state < GENERATION_STATES; state++)
		for (size_t event = 0; event < HANDOFF_GENERATION_EVENTS; event++)
			check(handoff_tables.generation[state][event] != NULL);
}

static void test_handoff_names_every_event(void)
{
	for (int one = 0; one < HANDOFF_EVENTS; one++)
		for (int other = 0; other < one; other++)
			check(strcmp(handoff_event_name((enum handoff_event_kind)one),
				     handoff_event_name((enum handoff_event_kind)other)) != 0);
	check_str(handoff_event_name(HANDOFF_EVENTS), "?");
	check_str(handoff_event_name((enum handoff_event_kind) - 1), "?");
}

static void test_handoff_finds_active_and_starting(void)
{
	make(on_failure);
	check(!handoff_active(&machine) && !handoff_starting(&machine) && !handoff_find(&machine, 1));
	ask(HANDOFF_START);
	check_int(handoff_starting(&machine)->number, 1);
	tell(HANDOFF_READY, 1);
	check_int(handoff_starting(&machine)->number, 1);
	check(!handoff_active(&machine));
	tell(HANDOFF_SETTLE_DUE, 1);
	check_int(handoff_active(&machine)->number, 1);
	check(!handoff_starting(&machine));
	check_int(handoff_find(&machine, 1)->number, 1);
	check(!handoff_find(&machine, 2));
}

/* ---- the first start ---- */

static void test_handoff_starts(void)
{
	make(on_failure);
	check_str(ask(HANDOFF_START), "spawn:1*1/0 +ready:1");
	check_state(HANDOFF_STARTING);
	check_str(tell(HANDOFF_READY, 1), "-ready:1 +settle:1");
	check_generation(1, GENERATION_SETTLING);
	check_state(HANDOFF_STARTING);
	check_str(tell(HANDOFF_SETTLE_DUE, 1), "activate:1 +healthy:1");
	check_generation(1, GENERATION_ACTIVE);
	check_state(HANDOFF_RUNNING);
	check_str(ask(HANDOFF_START), "");
}

static void test_handoff_failed_first_start_ends(void)
{
	make(on_failure);
	ask(HANDOFF_START);
	check_str(leave(1, false), "-ready:1 -settle:1 fail:1/exited drain:1 +abort:1 close-all");
	check_state(HANDOFF_STOPPING);
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_FIRST_FAILED, false);
}

static void test_handoff_nothing_spawned_at_first_ends_at_once(void)
{
	make(on_failure);
	ask(HANDOFF_START);
	check_str(spawn_failed(1, 1), "-ready:1 -settle:1 fail:1/spawn release:1 close-all exit");
	check_exit(HANDOFF_EXIT_FIRST_FAILED, false);
}

/* A readiness timeout before any generation was active: what ignores the signal is killed. */
static void test_handoff_first_timeout_ends(void)
{
	make(on_failure);
	ask(HANDOFF_START);
	check_str(tell(HANDOFF_READY_DUE, 1), "-ready:1 -settle:1 fail:1/timeout drain:1 +abort:1 close-all");
	check_str(tell(HANDOFF_KILL_DUE, 1), "kill:1/timeout");
	check_str(leave(1, false), "");
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_FIRST_FAILED, false);
}

/* ---- a hand-off ---- */

static void test_handoff_replaces(void)
{
	make_running(on_failure);
	check_str(request(7, 1, 0), "join:7/1 spawn:2*1/1 +ready:2");
	check_state(HANDOFF_REPLACING);
	check_str(tell(HANDOFF_READY, 2), "-ready:2 +settle:2");
	check_generation(1, GENERATION_ACTIVE);
	check_str(tell(HANDOFF_SETTLE_DUE, 2),
		  "activate:2 +healthy:2 answer/1:2/ok -settle:1 -healthy:1 -worker:1 drain:1 +drain:1");
	check_state(HANDOFF_RUNNING);
	check_generation(1, GENERATION_DRAINING);
	check_str(leave(1, true), "drain-rest:1");
	check_str(tell(HANDOFF_GONE, 1), "release:1");
	check_state(HANDOFF_RUNNING);
}

/* Hands off, feeds what makes the start fail, and compares the one that serves byte by byte. */
static void check_failed_handoff(struct handoff_event event, bool ready, const char *expected)
{
	make_running(on_failure);
	request(7, 1, 0);
	if (ready)
		tell(HANDOFF_READY, 2);
	struct handoff_generation before = *handoff_active(&machine);
	check_str(feed(event), expected);
	check(memcmp(&before, handoff_active(&machine), sizeof(before)) == 0);
	check_state(HANDOFF_RUNNING);
	check_str(request(8, 1, 0), "join:8/2 spawn:3*1/2 +ready:3");
}

static void test_handoff_failure_leaves_the_old_one(void)
{
	check_failed_handoff((struct handoff_event){.kind = HANDOFF_EXITED, .generation = 2}, false,
			     "-ready:2 -settle:2 fail:2/exited answer/1:2/failed! drain:2 +abort:2");
	check_failed_handoff((struct handoff_event){.kind = HANDOFF_READY_DUE, .generation = 2}, false,
			     "-ready:2 -settle:2 fail:2/timeout answer/1:2/failed! drain:2 +abort:2");
	check_failed_handoff((struct handoff_event){.kind = HANDOFF_NOT_READY, .generation = 2}, false,
			     "-ready:2 -settle:2 fail:2/protocol answer/1:2/failed! drain:2 +abort:2");
	check_failed_handoff((struct handoff_event){.kind = HANDOFF_SPAWN_FAILED, .generation = 2, .count = 1}, false,
			     "-ready:2 -settle:2 fail:2/spawn answer/1:2/failed! release:2");
	check_failed_handoff((struct handoff_event){.kind = HANDOFF_EXITED, .generation = 2, .clean = true}, true,
			     "-ready:2 -settle:2 fail:2/unsettled answer/1:2/failed! drain:2 +abort:2");
}

static void test_handoff_failed_one_is_killed(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_READY_DUE, 2);
	check_generation(2, GENERATION_FAILING);
	check_str(tell(HANDOFF_KILL_DUE, 2), "kill:2/timeout");
	check_str(leave(2, false), "");
	check_str(tell(HANDOFF_GONE, 2), "release:2");
	check_state(HANDOFF_RUNNING);
}

static void test_handoff_readiness_counts_once(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_READY, 2), "");
	check_str(tell(HANDOFF_NOT_READY, 2), "");
	check_str(tell(HANDOFF_READY_DUE, 2), "");
	check_generation(2, GENERATION_SETTLING);
}

static void test_handoff_drain_timeout_kills(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	become_active(2);
	check_str(tell(HANDOFF_DRAIN_DUE, 1), "kill:1/drain-timeout");
	check_str(leave(1, false), "");
	check_str(tell(HANDOFF_GONE, 1), "release:1");
}

/* ---- what waits ---- */

static void test_handoff_burst_folds_into_one(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	for (int i = 0; i < 10; i++)
		check_str(ask(HANDOFF_RELOAD), "");
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_SETTLE_DUE, 2),
		  "activate:2 +healthy:2 -settle:1 -healthy:1 -worker:1 drain:1 +drain:1 spawn:3*1/0 +ready:3");
	tell(HANDOFF_READY, 3);
	check_str(tell(HANDOFF_SETTLE_DUE, 3), "activate:3 +healthy:3 -settle:2 -healthy:2 -worker:2 drain:2 +drain:2");
	check_state(HANDOFF_RUNNING);
}

static void test_handoff_failure_begins_what_waits(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	request(7, 1, 0);
	check_str(leave(2, false), "-ready:2 -settle:2 fail:2/exited drain:2 +abort:2 spawn:3*1/1 +ready:3");
	check_state(HANDOFF_REPLACING);
}

static void test_handoff_equal_requests_share_a_wish(void)
{
	make_running(on_failure);
	request(1, 1, 0);
	check_str(request(2, 1, 0), "join:2/2");
	check_str(request(3, 1, 0), "join:3/2");
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_SETTLE_DUE, 2),
		  "activate:2 +healthy:2 answer/1:2/ok -settle:1 -healthy:1 -worker:1 drain:1 "
		  "+drain:1 spawn:3*1/2 +ready:3");
}

static void test_handoff_newer_request_supersedes(void)
{
	make_running(on_failure);
	request(1, 1, 0);
	request(2, 1, 0);
	check_str(request(3, 2, 0), "answer/2:0/superseded join:3/3");
	check_str(request(4, 2, 1), "answer/3:0/superseded join:4/4");
}

static void test_handoff_signals_neither_supersede_nor_are_superseded(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	request(1, 1, 99);
	check_str(ask(HANDOFF_RELOAD), "");
	/* The request is refused when its turn comes, the signal's hand-off is made all the same. */
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_SETTLE_DUE, 2), "activate:2 +healthy:2 -settle:1 -healthy:1 -worker:1 drain:1 +drain:1 "
					       "answer/1:2/other-generation spawn:3*1/0 +ready:3");
	ask(HANDOFF_RELOAD);
	check_str(request(2, 1, 0), "join:2/2");
	/* One start satisfies both. */
	tell(HANDOFF_READY, 3);
	check_contains(tell(HANDOFF_SETTLE_DUE, 3), "spawn:4*1/2");
	tell(HANDOFF_READY, 4);
	tell(HANDOFF_SETTLE_DUE, 4);
	check_state(HANDOFF_RUNNING);
}

static void test_handoff_if_generation_is_checked_when_it_would_start(void)
{
	make_running(on_failure);
	check_str(request(1, 1, 2), "join:1/1 answer/1:1/other-generation");
	check_state(HANDOFF_RUNNING);
	check_str(request(2, 1, 1), "join:2/2 spawn:2*1/2 +ready:2");
	request(3, 1, 2);
	tell(HANDOFF_READY, 2);
	check_contains(tell(HANDOFF_SETTLE_DUE, 2), "spawn:3*1/3");
}

static void test_handoff_no_room_fails_and_does_not_wait(void)
{
	make_running(on_failure);
	for (uint32_t number = 2; number <= HANDOFF_GENERATIONS; number++) {
		ask(HANDOFF_RELOAD);
		tell(HANDOFF_READY_DUE, number);
		tell(HANDOFF_KILL_DUE, number);
	}
	check_int(machine.generation_count, HANDOFF_GENERATIONS);
	check_str(request(1, 1, 0), "join:1/1 answer/1:0/failed! fail:0/no-room");
	check_str(ask(HANDOFF_RELOAD), "fail:0/no-room");
	check_state(HANDOFF_RUNNING);
	check_generation(1, GENERATION_ACTIVE);
	leave(2, false);
	tell(HANDOFF_GONE, 2);
	check_contains(ask(HANDOFF_RELOAD), "spawn:73*1/0");
}

/* ---- draining ---- */

static void test_handoff_max_draining_kills_the_oldest(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_ON_FAILURE, .max_draining = 2});
	for (uint32_t number = 2; number <= 3; number++) {
		ask(HANDOFF_RELOAD);
		become_active(number);
	}
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_READY, 4);
	check_str(tell(HANDOFF_SETTLE_DUE, 4),
		  "activate:4 +healthy:4 -settle:3 -healthy:3 -worker:3 drain:3 +drain:3 kill:1/max-draining");
	/* It counts no more, though it is not gone yet. */
	ask(HANDOFF_RELOAD);
	tell(HANDOFF_READY, 5);
	check_contains(tell(HANDOFF_SETTLE_DUE, 5), "kill:2/max-draining");
	check(!strstr(told, "kill:1"));
}

static void test_handoff_late_events_are_ignored(void)
{
	make_running(on_failure);
	ask(HANDOFF_RELOAD);
	become_active(2);
	leave(1, true);
	tell(HANDOFF_GONE, 1);
	struct handoff before = machine;
	for (int kind = HANDOFF_SUPERVISOR_EVENTS; kind < HANDOFF_EVENTS; kind++) {
		check_str(tell((enum handoff_event_kind)kind, 1), "");
		check_str(tell((enum handoff_event_kind)kind, 99), "");
	}
	check_str(ask(HANDOFF_RESTART_DUE), "");
	check(memcmp(&before, &machine, sizeof(machine)) == 0);
}

/* ---- the active generation dies ---- */

static void test_handoff_death_restarts_after_a_back_off(void)
{
	make_running(on_failure);
	check_str(leave(1, false), "-healthy:1 -worker:1 died:1 drain-rest:1 +drain:1 +restart/0");
	check_state(HANDOFF_WAITING);
	check_str(tell(HANDOFF_GONE, 1), "release:1");
	check_str(ask(HANDOFF_RESTART_DUE), "spawn:2*1/0 +ready:2");
	check_state(HANDOFF_STARTING);
}

static void test_handoff_back_off_grows_to_a_cap_and_is_reset(void)
{
	char expected[32];
	make_running(on_failure);
	for (uint32_t failed = 0; failed < 20; failed++) {
		snprintf(expected, sizeof(expected), "+restart/%u", failed < 16 ? failed : 16);
		leave(failed + 1, false);
		size_t tail = strlen(told) - strlen(expected);
		check_str(told + tail, expected);
		tell(HANDOFF_GONE, failed + 1);
		ask(HANDOFF_RESTART_DUE);
	}
	become_active(21);
	check_str(tell(HANDOFF_HEALTHY_DUE, 21), "");
	check_contains(leave(21, false), "+restart/0");
}

static void test_handoff_max_restarts_gives_up(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_ALWAYS, .max_restarts = 2});
	for (uint32_t number = 1; number <= 2; number++) {
		check_contains(leave(number, true), "+restart");
		tell(HANDOFF_GONE, number);
		ask(HANDOFF_RESTART_DUE);
	}
	check_str(leave(3, false), "-ready:3 -settle:3 fail:3/exited drain:3 +abort:3 close-all");
	check_str(tell(HANDOFF_GONE, 3), "release:3 exit");
	check_exit(HANDOFF_EXIT_GAVE_UP, false);
}

static void test_handoff_policy_decides_about_restarts(void)
{
	static const struct {
		enum handoff_restart restart;
		bool clean;
		enum handoff_exit exit;
	} cases[] = {{HANDOFF_RESTART_ALWAYS, true, HANDOFF_EXIT_NONE},
		     {HANDOFF_RESTART_ALWAYS, false, HANDOFF_EXIT_NONE},
		     {HANDOFF_RESTART_ON_FAILURE, true, HANDOFF_EXIT_CLEAN},
		     {HANDOFF_RESTART_ON_FAILURE, false, HANDOFF_EXIT_NONE},
		     {HANDOFF_RESTART_NEVER, true, HANDOFF_EXIT_GAVE_UP},
		     {HANDOFF_RESTART_NEVER, false, HANDOFF_EXIT_GAVE_UP}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		make_running((struct handoff_config){.restart = cases[i].restart});
		leave(1, cases[i].clean);
		check_int(machine.exit, cases[i].exit);
		check_state(cases[i].exit == HANDOFF_EXIT_NONE ? HANDOFF_WAITING : HANDOFF_STOPPING);
		tell(HANDOFF_GONE, 1);
		if (cases[i].exit != HANDOFF_EXIT_NONE)
			check_exit(cases[i].exit, false);
	}
}

/* The policy ended it, and an old generation still drains: a stop makes it no stop, a second one is impatience. */
static void test_handoff_stop_while_giving_up(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_NEVER});
	ask(HANDOFF_RELOAD);
	become_active(2);
	leave(2, false);
	tell(HANDOFF_GONE, 2);
	check_state(HANDOFF_STOPPING);
	check_str(ask(HANDOFF_STOP), "");
	check_str(ask(HANDOFF_STOP), "terminate:1 -drain:1 +kill:1");
	leave(1, false);
	check_str(tell(HANDOFF_GONE, 1), "release:1 exit");
	check_exit(HANDOFF_EXIT_GAVE_UP, false);
}

static void test_handoff_handoff_is_the_restart(void)
{
	make_running((struct handoff_config){.restart = HANDOFF_RESTART_NEVER});
	request(1, 1, 0);
	check_str(leave(1, false), "-healthy:1 -worker:1 died:1 drain-rest:1 +drain:1");
	check_state(HANDOFF_STARTING);
	tell(HANDOFF_READY, 2);
	check_str(tell(HANDOFF_SETTLE_DUE, 2), "activate:2 +healthy:2 answer/1:2/ok");
	/* And where that one fails too, the policy has the word. */
	request(2, 1, 0);
	leave(2, false);
	check_str(leave(3, false), "-ready:3 -settle:3 fail:3/exited answer/2:3/failed! drain:3 +abort:3 close-all");
}

static void test_handoff_request_ends_a_back_off(void)
{
	make_running(on_failure);
	leave(1, false);
	check_str(request(1, 1, 9), "join:1/1 answer/1:1/other-generation");
	check_state(HANDOFF_WAITING);
	check_str(request(2, 1, 0), "join:2/2 spawn:2*1/2 +ready:2 -restart:0");
	check_str(ask(HANDOFF_RESTART_DUE), "");
	/* What waits while nobody serves comes without delay. */
	ask(HANDOFF_RELOAD);
	check_str(leave(2, false), "-ready:2 -settle:2 fail:2/exited answer/2:2/failed! drain:2 +abort:2 spawn:3*1/0 "
				   "+ready:3");
}

TEST_MAIN(TEST(test_handoff_no_cell_is_empty), TEST(test_handoff_names_every_event),
	  TEST(test_handoff_finds_active_and_starting), TEST(test_handoff_starts),
	  TEST(test_handoff_failed_first_start_ends), TEST(test_handoff_nothing_spawned_at_first_ends_at_once),
	  TEST(test_handoff_first_timeout_ends), TEST(test_handoff_replaces),
	  TEST(test_handoff_failure_leaves_the_old_one), TEST(test_handoff_failed_one_is_killed),
	  TEST(test_handoff_readiness_counts_once), TEST(test_handoff_drain_timeout_kills),
	  TEST(test_handoff_burst_folds_into_one), TEST(test_handoff_failure_begins_what_waits),
	  TEST(test_handoff_equal_requests_share_a_wish), TEST(test_handoff_newer_request_supersedes),
	  TEST(test_handoff_signals_neither_supersede_nor_are_superseded),
	  TEST(test_handoff_if_generation_is_checked_when_it_would_start),
	  TEST(test_handoff_no_room_fails_and_does_not_wait), TEST(test_handoff_max_draining_kills_the_oldest),
	  TEST(test_handoff_late_events_are_ignored), TEST(test_handoff_death_restarts_after_a_back_off),
	  TEST(test_handoff_back_off_grows_to_a_cap_and_is_reset), TEST(test_handoff_max_restarts_gives_up),
	  TEST(test_handoff_policy_decides_about_restarts), TEST(test_handoff_stop_while_giving_up),
	  TEST(test_handoff_handoff_is_the_restart), TEST(test_handoff_request_ends_a_back_off))
