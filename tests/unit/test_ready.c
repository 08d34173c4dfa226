/* SPDX-License-Identifier: MIT */
/* Tests of the readiness protocols with real processes: pipe, looking, delays, commands, signals. */
#include "ready_fixture.h"

static void test_ready_by_newline(void)
{
	struct fixture f;
	begin(&f, "pipe", SCRIPT("say:load", "say:ed\001 it", "say:\nmore\n", "sleep"));
	run_until(&f, &f.ready_count);
	check_str(f.by, "pipe");
	check_str(f.status, "loaded\\x01 it");
	check(ready_own_word(f.ready));
	check_int(ready_seen(f.ready), 0);
	run(&f, NULL, NEVER_MS);
	check_int(f.ready_count, 1);
	finish(&f);
}

static void test_ready_pipe_never_blocks_the_server(void)
{
	struct fixture f;
	begin(&f, "pipe", SCRIPT("say-many:1000000", "say:\n", "say-many:1000000", "send:STATUS=after", "sleep"));
	run_until(&f, &f.ready_count);
	check(strlen(f.status) > 0 && strlen(f.status) <= READY_TEXT_MAX);
	int64_t deadline_ms = loop_now_ms() + DEADLINE_MS;
	while (strcmp(f.status, "after") != 0 && loop_now_ms() < deadline_ms)
		check(loop_run_once(f.loop, 100) >= 0);
	check_str(f.status, "after");
	finish(&f);
}

static void test_ready_pipe_closed_fails(void)
{
	struct fixture f;
	int64_t begin_ms = loop_now_ms();
	begin(&f, "pipe", SCRIPT("say:almost", "close", "sleep"));
	run_until(&f, &f.failed_count);
	check_contains(f.reason, "closed without a newline");
	check(loop_now_ms() - begin_ms >= 200);
	check_int(f.ready_count, 0);
	run(&f, NULL, NEVER_MS);
	check_int(f.failed_count, 1);
	finish(&f);
}

static void test_ready_pipe_closed_is_nothing_to_others(void)
{
	struct fixture f;
	begin(&f, "auto", SCRIPT("close", "stop", "accept"));
	wait_stopped(&f);
	run(&f, NULL, NEVER_MS);
	check_int(f.failed_count + f.ready_count, 0);
	kill(f.leader.pid, SIGCONT);
	run_until(&f, &f.ready_count);
	check_str(f.by, "accepting");
	finish(&f);
}

static void test_ready_by_accepting(void)
{
	struct fixture f;
	begin(&f, "auto", SCRIPT("accept"));
	run_until(&f, &f.ready_count);
	check_str(f.by, "accepting");
	check_int(ready_seen(f.ready), 1);
	check(!ready_own_word(f.ready));
	finish(&f);
	begin(&f, "accepting", SCRIPT("accept-in-child"));
	run_until(&f, &f.ready_count);
	check_str(f.by, "accepting");
	finish(&f);
}

static void test_ready_own_word_ends_guessing(void)
{
	static const char *const words[] = {"say:x", "send:STATUS=x"};
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		struct fixture f;
		char missing[512];
		begin(&f, "auto", SCRIPT(words[i], "stop", "accept"));
		wait_stopped(&f);
		run(&f, NULL, 50);
		check(ready_own_word(f.ready));
		kill(f.leader.pid, SIGCONT);
		run(&f, NULL, 1200);
		check_int(f.ready_count, 0);
		check_contains(ready_missing(f.ready, missing, sizeof(missing)), "it spoke on ");
		finish(&f);
	}
}

static void test_ready_own_word_only(void)
{
	struct fixture f;
	char missing[512];
	struct ready_options extra = {.own_word_only = true, .inode_count = 1};
	setup(&f, "auto", &extra);
	start(&f, SCRIPT("accept"));
	run(&f, NULL, 1200);
	check_int(f.ready_count, 0);
	check_contains(ready_missing(f.ready, missing, sizeof(missing)), "an earlier start said ready by itself");
	finish(&f);
	setup(&f, "auto", &extra);
	start(&f, SCRIPT("say:\n", "sleep"));
	run_until(&f, &f.ready_count);
	check_str(f.by, "pipe");
	finish(&f);
}

static void test_ready_auto_without_listeners_is_a_delay(void)
{
	struct fixture f;
	struct ready_options extra = {.inode_count = 0};
	setup(&f, "auto", &extra);
	int64_t begin_ms = loop_now_ms();
	start(&f, SCRIPT("sleep"));
	run_until(&f, &f.ready_count);
	check(loop_now_ms() - begin_ms >= 1000);
	check_str(f.by, "delay");
	check_contains(f.why, "no stream listener");
	check_int(f.note_count, 1);
	finish(&f);
}

/* The access check goes by privilege, so the whole start is made without it. */
static void fall_back_unprivileged(void)
{
	struct fixture f;
	if (geteuid() == 0 && (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
		_exit(2);
	begin(&f, "auto", SCRIPT("undumpable", "accept"));
	run_until(&f, &f.ready_count);
	check_str(f.by, "delay");
	check_contains(f.why, "(not dumpable)");
	check_contains(f.note, "being alive for 1s is taken for ready");
	check_int(ready_seen(f.ready), 0);
	finish(&f);
	_exit(0);
}

static void test_ready_auto_falls_back_where_it_cannot_look(void)
{
	int status;
	fflush(stdout);
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0)
		fall_back_unprivileged();
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, 0);
}

static void test_ready_by_delay(void)
{
	struct fixture f;
	int64_t begin_ms = loop_now_ms();
	begin(&f, "delay:120ms", SCRIPT("say:x", "accept"));
	run_until(&f, &f.ready_count);
	check(loop_now_ms() - begin_ms >= 120);
	check_str(f.by, "delay");
	check_str(f.why, "alive for 120ms");
	finish(&f);
}

static void test_ready_now_comes_from_the_loop(void)
{
	struct fixture f;
	begin(&f, "now", SCRIPT("sleep"));
	check_int(f.ready_count, 0);
	run_until(&f, &f.ready_count);
	check_str(f.by, "now");
	finish(&f);
}

static void test_ready_by_signal(void)
{
	struct fixture f;
	begin(&f, "signal", SCRIPT("sleep"));
	check_int(ready_signal(f.ready, getpid()), 0);
	check_int(ready_signal(f.ready, 1), 0);
	check_int(ready_signal(f.ready, f.leader.pid), 1);
	check_int(f.ready_count, 0);
	run_until(&f, &f.ready_count);
	check_str(f.by, "signal");
	check_int(ready_signal(f.ready, f.leader.pid), 1);
	ready_settle(f.ready);
	check_int(ready_signal(f.ready, f.leader.pid), 0);
	finish(&f);
	begin(&f, "auto", SCRIPT("sleep"));
	check_int(ready_signal(f.ready, f.leader.pid), 0);
	finish(&f);
}

static void test_ready_by_command(void)
{
	struct fixture f;
	char path[] = "/tmp/test_ready.XXXXXX", how[160], line[64];
	int fd = mkstemp(path);
	check(fd >= 0);
	/* Fails once; its parent's number and its lack of descriptors are in the file. */
	snprintf(how, sizeof(how),
		 "exec:echo $HANDOFF_PID >>%s; test -e /proc/self/fd/3 && exit 1; "
		 "test $(wc -l <%s) -gt 1",
		 path, path);
	int64_t begin_ms = loop_now_ms();
	begin(&f, how, SCRIPT("sleep"));
	run_until(&f, &f.ready_count);
	check_str(f.by, "exec");
	check(loop_now_ms() - begin_ms >= 200);
	FILE *file = fdopen(fd, "r");
	check(file && fgets(line, sizeof(line), file));
	check_int(atoi(line), f.leader.pid);
	fclose(file);
	unlink(path);
	finish(&f);
}

static void test_ready_command_that_hangs_is_not_doubled(void)
{
	struct fixture f;
	char path[] = "/tmp/test_ready.XXXXXX", how[128], text[64];
	int fd = mkstemp(path);
	check(fd >= 0);
	snprintf(how, sizeof(how), "exec:echo x >>%s; sleep 600; true", path);
	begin(&f, how, SCRIPT("sleep"));
	run(&f, NULL, 700);
	check_int(pread(fd, text, sizeof(text), 0), 2);
	check_int(f.ready_count, 0);
	pid_t pid = f.ready->execs[0].child.pid;
	check(pid > 0 && ready_owns(f.ready, pid) && !ready_owns(f.ready, f.leader.pid) && !ready_owns(f.ready, 0));
	ready_settle(f.ready);
	check(!ready_owns(f.ready, pid));
	/* Its whole group is gone, the sleep too (which may be a zombie of ours for a moment, if we are a subreaper).
	 */
	check(kill(-pid, SIGKILL) == -1 || waitpid(-pid, NULL, 0) > 0 || errno == ECHILD);
	close(fd);
	unlink(path);
	finish(&f);
}

static void test_ready_command_that_cannot_run_is_noted_once(void)
{
	struct fixture f;
	begin(&f, "exec:true", SCRIPT("sleep"));
	f.plan.chdir = "/nonexistent";
	run(&f, NULL, 700);
	check_int(f.ready_count, 0);
	check_int(f.note_count, 1);
	check_contains(f.note, "/nonexistent");
	f.plan.chdir = NULL;
	run_until(&f, &f.ready_count);
	finish(&f);
}

static void test_ready_any_one_suffices(void)
{
	struct fixture f;
	struct error error;
	char missing[512];
	begin(&f, "pipe", SCRIPT("close", "stop", "send:READY=1", "sleep"));
	check_int(ready_how_parse("notify", &f.hows[1], &error), 0);
	f.ready->options.how_count = 2;
	wait_stopped(&f);
	run(&f, NULL, NEVER_MS);
	check_int(f.ready_count + f.failed_count, 0);
	check_str(ready_missing(f.ready, missing, sizeof(missing)),
		  "no newline on the ready pipe, which was closed; no READY=1");
	kill(f.leader.pid, SIGCONT);
	run_until(&f, &f.ready_count);
	finish(&f);
}

static void test_ready_missing_names_the_address(void)
{
	struct fixture f;
	char missing[512], wanted[128];
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	begin(&f, "auto", SCRIPT("sleep"));
	check_int(getsockname(f.listen_fd, (struct sockaddr *)&address, &length), 0);
	run(&f, NULL, 100);
	snprintf(wanted, sizeof(wanted), "nobody waits on 127.0.0.1:%d yet", ntohs(address.sin_port));
	check_str(ready_missing(f.ready, missing, sizeof(missing)), wanted);
	finish(&f);
}

static void test_ready_settled_hears_no_more_readiness(void)
{
	struct fixture f;
	begin(&f, "auto",
	      SCRIPT("stop", "send:STATUS=s\nREADY=1\nEXTEND_TIMEOUT_USEC=1", "say:\n", "send:STOPPING=1", "accept"));
	wait_stopped(&f);
	ready_settle(f.ready);
	kill(f.leader.pid, SIGCONT);
	run_until(&f, &f.stopping_count);
	run(&f, NULL, NEVER_MS);
	check_int(f.ready_count, 0);
	check_int(f.extend_usec, 0);
	check_str(f.status, "s");
	finish(&f);
}

static void test_ready_may_be_destroyed_by_its_handler(void)
{
	static const struct {
		const char *how, *word;
		bool at_status;
	} cases[] = {{"auto", "accept", false},
		     {"pipe", "say:\n", false},
		     {"pipe", "say:x\n", true},
		     {"notify", "send:STOPPING=1\nREADY=1", false},
		     {"notify", "send:STATUS=x\nREADY=1\nMAINPID=1\nSTOPPING=1", true},
		     {"exec:true", "sleep", false},
		     {"delay:10ms", "sleep", false},
		     {"now", "sleep", false}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture f;
		begin(&f, cases[i].how, SCRIPT(cases[i].word, "sleep"));
		f.destroy_at_ready = !cases[i].at_status;
		f.destroy_at_status = cases[i].at_status;
		int64_t deadline_ms = loop_now_ms() + DEADLINE_MS;
		while (f.ready && loop_now_ms() < deadline_ms)
			check(loop_run_once(f.loop, 100) >= 0);
		check(!f.ready);
		check_int(f.ready_count, cases[i].at_status ? 0 : 1);
		check_int(f.stopping_count + f.note_count, 0);
		finish(&f);
	}
}

static void test_ready_destroy_without_a_start(void)
{
	struct fixture f;
	setup(&f, "exec:true", NULL);
	check_int(strncmp(ready_notify_socket(f.ready), "@handoff/", 9), 0);
	check_int(strlen(ready_notify_socket(f.ready)), 9 + 32);
	check_int(fcntl(ready_pipe_fd(f.ready), F_GETFD), FD_CLOEXEC);
	check_int(fcntl(ready_pipe_fd(f.ready), F_GETFL) & O_NONBLOCK, 0);
	ready_destroy(f.ready);
	ready_destroy(NULL);
	ready_how_finish(&f.hows[0]);
	loop_destroy(f.loop);
	close(f.listen_fd);
}

READY_TEST_MAIN(TEST(test_ready_by_newline), TEST(test_ready_pipe_never_blocks_the_server),
		TEST(test_ready_pipe_closed_fails), TEST(test_ready_pipe_closed_is_nothing_to_others),
		TEST(test_ready_by_accepting), TEST(test_ready_own_word_ends_guessing), TEST(test_ready_own_word_only),
		TEST(test_ready_auto_without_listeners_is_a_delay),
		TEST(test_ready_auto_falls_back_where_it_cannot_look), TEST(test_ready_by_delay),
		TEST(test_ready_now_comes_from_the_loop), TEST(test_ready_by_signal), TEST(test_ready_by_command),
		TEST(test_ready_command_that_hangs_is_not_doubled),
		TEST(test_ready_command_that_cannot_run_is_noted_once), TEST(test_ready_any_one_suffices),
		TEST(test_ready_missing_names_the_address), TEST(test_ready_settled_hears_no_more_readiness),
		TEST(test_ready_may_be_destroyed_by_its_handler), TEST(test_ready_destroy_without_a_start))
