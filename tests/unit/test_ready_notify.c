/* SPDX-License-Identifier: MIT */
/* Tests of the notify socket with real senders: what is heard, and from whom it is not. */
#include <sys/prctl.h>

#include "ready_fixture.h"

static void test_ready_by_datagram(void)
{
	struct fixture f;
	begin(&f, "notify",
	      SCRIPT("send:EXTEND_TIMEOUT_USEC=7\nSTATUS=go\x1bing", "send-from-child:READY=1\nMAINPID=self",
		     "send:STOPPING=1", "sleep"));
	run_until(&f, &f.stopping_count);
	check_int(f.ready_count, 1);
	check_str(f.by, "notify");
	check_contains(f.why, "READY=1 from pid ");
	check_str(f.status, "go\\x1bing");
	check_int(f.extend_usec, 7);
	check(f.main_pid > 0 && f.main_pid != f.leader.pid);
	check(ready_own_word(f.ready));
	check_int(f.note_count, 0);
	finish(&f);
}

static void test_ready_by_datagram_of_a_sender_that_is_gone(void)
{
	struct fixture f;
	begin(&f, "notify", SCRIPT("send-and-go:READY=1", "stop"));
	wait_stopped(&f);
	run_until(&f, &f.ready_count);
	finish(&f);
}

static void test_ready_by_datagram_of_a_detached_helper(void)
{
	struct fixture f;
	check_int(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	begin(&f, "notify", SCRIPT("send-detached:READY=1", "stop"));
	run_until(&f, &f.ready_count);
	check_int(f.note_count, 0);
	finish(&f);
	check_int(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void test_ready_ignores_strangers(void)
{
	struct fixture f;
	begin(&f, "auto", SCRIPT("stop"));
	wait_stopped(&f);
	server_send(ready_notify_socket(f.ready), "READY=1\nSTATUS=x\nSTOPPING=1", 27, -1);
	server_send(ready_notify_socket(f.ready), "READY=1", 7, -1);
	run(&f, NULL, NEVER_MS);
	check_int(f.ready_count + f.stopping_count, 0);
	check_str(f.status, "");
	check_int(f.note_count, 1);
	check_contains(f.note, "which is not of this generation");
	check(!ready_own_word(f.ready));
	finish(&f);
}

static void test_ready_ignores_a_foreign_main_pid(void)
{
	struct fixture f;
	begin(&f, "notify", SCRIPT("send:MAINPID=1", "send:MAINPID=x", "send:READY=1", "sleep"));
	run_until(&f, &f.ready_count);
	check_int(f.main_pid, 0);
	check_int(f.note_count, 1);
	check_contains(f.note, "MAINPID=1 from pid ");
	finish(&f);
}

static void test_ready_survives_bad_datagrams(void)
{
	struct fixture f;
	begin(&f, "notify", SCRIPT("send-many:5000", "send-zero", "send-many:4096", "send:READY=1", "sleep"));
	run_until(&f, &f.ready_count);
	check_int(f.note_count, 1);
	check_contains(f.note, "more than 4096 bytes");
	finish(&f);
}

static void test_ready_closes_what_datagrams_carry(void)
{
	struct fixture f;
	begin(&f, "notify", SCRIPT("stop", "barrier:FDSTORE=1", "barrier:BARRIER=1", "send:READY=1", "sleep"));
	wait_stopped(&f);
	int before = test_open_fds();
	kill(f.leader.pid, SIGCONT);
	/* The server waits for the far end to be closed before it goes on. */
	run_until(&f, &f.ready_count);
	check_int(test_open_fds(), before);
	finish(&f);
}

READY_TEST_MAIN(TEST(test_ready_by_datagram), TEST(test_ready_by_datagram_of_a_sender_that_is_gone),
		TEST(test_ready_by_datagram_of_a_detached_helper), TEST(test_ready_ignores_strangers),
		TEST(test_ready_ignores_a_foreign_main_pid), TEST(test_ready_survives_bad_datagrams),
		TEST(test_ready_closes_what_datagrams_carry))
