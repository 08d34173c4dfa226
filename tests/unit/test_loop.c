/* SPDX-License-Identifier: MIT */
/* Tests of loop.c: what is delivered, in which order, what never is, and that idle means idle. */
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "fd.h"
#include "loop.h"
#include "../lib/test.h"

#define DEADLINE_MS 10000

/* What the callbacks did, a letter a call. */
static char trace[512];

static void note(char letter)
{
	size_t length = strlen(trace);

	check(length + 1 < sizeof(trace));
	trace[length] = letter;
	trace[length + 1] = '\0';
}

static struct loop *loop;
static int fds[2]; /* a pipe that has something to read */
static pid_t pid;  /* a child that has exited and is not reaped; 0 when there is none */
static int pidfd;  /* its own */

static void setup(void)
{
	trace[0] = '\0';
	check_int(loop_create(&loop), 0);
	check_int(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	check_int(write(fds[1], "x", 1), 1);
}

static void teardown(void)
{
	loop_destroy(loop);
	fd_close(fds[0]);
	fd_close(fds[1]);
	if (pid > 0) {
		fd_close(pidfd);
		check_int(waitpid(pid, NULL, 0), pid);
		pid = 0;
	}
}

/* Fills `pid` and `pidfd`. */
static void make_exited_child(void)
{
	int end[2];
	siginfo_t info;

	check_int(pipe2(end, O_CLOEXEC), 0);
	pid = fork();
	check(pid >= 0);
	if (pid == 0)
		_exit(0);
	close(end[1]);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	/* valgrind 3.19 does not know the call. The end-of-file of a pipe looks the same to epoll. */
	if (pidfd < 0 && errno == ENOSYS)
		pidfd = fcntl(end[0], F_DUPFD_CLOEXEC, 3);
	close(end[0]);
	check(pidfd >= 0);
	check_int(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void run_round(void)
{
	check_int(loop_run_once(loop, DEADLINE_MS), 0);
}

static uint32_t seen_events;

/* The callbacks note the letter that `data` points to. */
static void on_fd(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source, (void)fd;
	seen_events = events;
	note(*(const char *)data);
}

/* For children and timers. */
static void on_call(struct loop_source *source, void *data)
{
	(void)source;
	note(*(const char *)data);
}

static void on_signal(struct loop_source *source, const struct signalfd_siginfo *info, void *data)
{
	(void)source, (void)data;
	check_int(info->ssi_pid, getpid());
	note(info->ssi_signo == SIGUSR1 ? '1' : info->ssi_signo == SIGUSR2 ? '2' : '?');
}

/* `which` as the data of a callback. */
static void *letter(char which)
{
	static char letters[256];

	letters[(unsigned char)which] = which;
	return &letters[(unsigned char)which];
}

static sigset_t usr_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	return set;
}

static void test_loop_owns_close_on_exec_descriptors(void)
{
	bool open_before[100];
	struct loop_source *source;
	sigset_t set = usr_signals();
	int new_count = 0;

	for (int fd = 0; fd < 100; fd++)
		open_before[fd] = fcntl(fd, F_GETFD) >= 0;
	setup();
	check_int(loop_add_signals(loop, &set, on_signal, NULL, &source), 0);
	for (int fd = 0; fd < 100; fd++) {
		int flags = fcntl(fd, F_GETFD);
		if (open_before[fd] || flags < 0)
			continue;
		check(flags & FD_CLOEXEC);
		new_count++;
	}
	check_int(new_count, 2 + 3); /* the pipe; epoll, timerfd, signalfd */
	teardown();
	loop_destroy(NULL);
}

static void test_loop_fd_gets_its_events(void)
{
	struct loop_source *source;
	char byte;

	setup();
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd, letter('a'), &source), 0);
	run_round();
	check_int(seen_events, EPOLLIN);
	check_int(read(fds[0], &byte, 1), 1);
	check_int(loop_run_once(loop, 0), 0);
	check_str(trace, "a");
	fds[1] = fd_close(fds[1]);
	run_round();
	check_int(seen_events, EPOLLHUP);
	check_str(trace, "aa");
	loop_remove(source);
	teardown();
}

static void test_loop_add_refuses_bad_descriptors(void)
{
	struct loop_source *source = NULL, *other = NULL;

	setup();
	check_int(loop_add_fd(loop, -1, EPOLLIN, on_fd, NULL, &source), -EBADF);
	check_int(loop_add_child(loop, -1, on_call, NULL, &source), -EBADF);
	int file_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	check_int(loop_add_fd(loop, file_fd, EPOLLIN, on_fd, NULL, &source), -EPERM);
	fd_close(file_fd);
	check(!source);
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd, NULL, &source), 0);
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd, NULL, &other), -EEXIST);
	check(!other);
	teardown();
}

/* Everything at once, added in the wrong order. */
static void test_loop_round_delivers_by_class(void)
{
	struct loop_source *timer, *source;
	sigset_t set = usr_signals();

	setup();
	check_int(loop_add_timer(loop, on_call, letter('t'), &timer), 0);
	loop_timer_set(timer, 0);
	check_int(loop_add_signals(loop, &set, on_signal, NULL, &source), 0);
	check_int(raise(SIGUSR1), 0);
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd, letter('f'), &source), 0);
	make_exited_child();
	check_int(loop_add_child(loop, pidfd, on_call, letter('c'), &source), 0);
	run_round();
	check_str(trace, "cf1t");
	teardown();
}

static void test_loop_exit_comes_first_among_hundreds(void)
{
	enum { COUNT = 200 };
	struct loop_source *source;
	int copies[COUNT];

	setup();
	for (size_t i = 0; i < COUNT; i++) {
		copies[i] = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
		check_int(loop_add_fd(loop, copies[i], EPOLLIN, on_fd, letter('f'), &source), 0);
	}
	make_exited_child();
	check_int(loop_add_child(loop, pidfd, on_call, letter('c'), &source), 0);
	run_round();
	check_int(trace[0], 'c');
	check_int(strlen(trace), COUNT + 1);
	teardown();
	for (size_t i = 0; i < COUNT; i++)
		fd_close(copies[i]);
}

static void test_loop_child_is_called_once_and_then_silent(void)
{
	struct loop_source *source;

	setup();
	make_exited_child();
	check_int(loop_add_child(loop, pidfd, on_call, letter('c'), &source), 0);
	run_round();
	check_str(trace, "c");
	/* Not reaped, and the source still there: neither called again nor woken up. */
	int64_t start_ms = loop_now_ms();
	check_int(loop_run_once(loop, 50), 0);
	check(loop_now_ms() - start_ms >= 49);
	check_str(trace, "c");
	loop_remove(source);
	teardown();
}

static struct loop_source *victim;

static void on_fd_remove_victim(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source, (void)fd, (void)events;
	note(*(const char *)data);
	loop_remove(victim);
	victim = NULL;
}

static void on_call_remove_victim(struct loop_source *source, void *data)
{
	on_fd_remove_victim(source, -1, 0, data);
}

static void test_loop_remove_inside_own_callback(void)
{
	struct loop_source *timer;

	setup();
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd_remove_victim, letter('f'), &victim), 0);
	run_round();
	check_int(loop_run_once(loop, 0), 0);
	check_str(trace, "f");
	check_int(loop_add_timer(loop, on_call_remove_victim, letter('t'), &timer), 0);
	victim = timer;
	loop_timer_set(timer, 0);
	run_round();
	check_int(loop_run_once(loop, 0), 0);
	check_str(trace, "ft");
	loop_remove(NULL);
	teardown();
}

/* The victim's event is fetched in the same round as that of its remover, which comes first by class. */
static void test_loop_remove_of_a_fetched_source(void)
{
	struct loop_source *child, *timer;

	setup();
	make_exited_child();
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd, letter('f'), &victim), 0);
	check_int(loop_add_child(loop, pidfd, on_call_remove_victim, letter('c'), &child), 0);
	run_round();
	check_str(trace, "c");
	check_int(loop_add_timer(loop, on_call_remove_victim, letter('t'), &timer), 0);
	check_int(loop_add_timer(loop, on_call, letter('u'), &victim), 0);
	loop_timer_set(timer, 0);
	loop_timer_set(victim, 0);
	run_round();
	check_int(loop_run_once(loop, 0), 0);
	check_str(trace, "ct");
	teardown();
}

static void on_child_pause_victim(struct loop_source *source, void *data)
{
	(void)source;
	note(*(const char *)data);
	check_int(loop_fd_set_events(victim, 0), 0);
}

static void test_loop_fd_set_events_drops_what_was_fetched(void)
{
	struct loop_source *child;

	setup();
	make_exited_child();
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd, letter('f'), &victim), 0);
	check_int(loop_add_child(loop, pidfd, on_child_pause_victim, letter('c'), &child), 0);
	run_round();
	check_str(trace, "c");
	check_int(loop_fd_set_events(victim, EPOLLIN), 0);
	run_round();
	check_str(trace, "cf");
	teardown();
}

static void test_loop_signals_restore_the_mask(void)
{
	struct loop_source *source, *other = NULL;
	sigset_t set = usr_signals(), original, now;

	setup();
	sigemptyset(&original);
	sigaddset(&original, SIGWINCH);
	sigaddset(&original, SIGUSR2);
	sigprocmask(SIG_SETMASK, &original, NULL);
	check_int(loop_add_signals(loop, &set, on_signal, NULL, &source), 0);
	check_int(loop_add_signals(loop, &set, on_signal, NULL, &other), -EBUSY);
	check(!other);
	sigprocmask(SIG_SETMASK, NULL, &now);
	check(sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2) && sigismember(&now, SIGWINCH));
	/* Twice: what is restored is the mask before the first. */
	loop_remove(source);
	check_int(loop_add_signals(loop, &set, on_signal, NULL, &source), 0);
	teardown();
	sigprocmask(SIG_SETMASK, NULL, &now);
	check(!sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2) && sigismember(&now, SIGWINCH));
	sigemptyset(&original);
	sigprocmask(SIG_SETMASK, &original, NULL);
}

static void on_signal_remove(struct loop_source *source, const struct signalfd_siginfo *info, void *data)
{
	on_signal(source, info, data);
	loop_remove(source);
}

static void test_loop_signals_are_not_lost_by_a_removal(void)
{
	struct loop_source *source;
	sigset_t set = usr_signals();

	setup();
	check_int(loop_add_signals(loop, &set, on_signal_remove, NULL, &source), 0);
	check_int(raise(SIGUSR2), 0);
	check_int(raise(SIGUSR1), 0);
	run_round();
	check_str(trace, "1");
	check_int(loop_add_signals(loop, &set, on_signal, NULL, &source), 0);
	run_round();
	check_str(trace, "12");
	teardown();
}

static void test_loop_timers_fire_in_order_and_never_early(void)
{
	struct loop_source *timers[4];
	static const int64_t after_ms[] = {30, 10, 30, 20};

	setup();
	for (size_t i = 0; i < 4; i++)
		check_int(loop_add_timer(loop, on_call, letter((char)('a' + i)), &timers[i]), 0);
	int64_t start_ms = loop_now_ms();
	for (size_t i = 0; i < 4; i++)
		loop_timer_set(timers[i], after_ms[i]);
	while (strlen(trace) < 4) {
		run_round();
		int64_t elapsed_ms = loop_now_ms() - start_ms;
		check(elapsed_ms < DEADLINE_MS);
		if (strlen(trace) > 0)
			check(elapsed_ms >= (strlen(trace) > 2 ? 30 : strlen(trace) > 1 ? 20 : 10));
	}
	check_str(trace, "bdac");
	teardown();
}

static void test_loop_timer_set_again_starts_anew(void)
{
	struct loop_source *timer, *other;

	setup();
	check_int(loop_add_timer(loop, on_call, letter('t'), &timer), 0);
	check_int(loop_add_timer(loop, on_call, letter('o'), &other), 0);
	check_int(loop_timer_left_ms(timer), -1);
	loop_timer_set(timer, 0);
	loop_timer_set(timer, 60000);
	loop_timer_set(other, 0);
	run_round();
	check_str(trace, "o");
	check(loop_timer_left_ms(timer) > 50000 && loop_timer_left_ms(timer) <= 60000);
	loop_timer_set(timer, INT64_MAX);
	check(loop_timer_left_ms(timer) > INT64_C(1000) * 3600 * 24 * 365);
	check_int(loop_run_once(loop, 0), 0);
	loop_timer_set(timer, -5);
	check_int(loop_timer_left_ms(timer), 0);
	loop_timer_stop(timer);
	check_int(loop_timer_left_ms(timer), -1);
	check_int(loop_run_once(loop, 0), 0);
	check_str(trace, "o");
	teardown();
}

static void on_timer_set_zero(struct loop_source *source, void *data)
{
	note(*(const char *)data);
	loop_timer_set(source, 0);
}

static void on_fd_set_victim(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source, (void)fd, (void)events;
	note(*(const char *)data);
	loop_timer_set(victim, 0);
}

static void test_loop_timer_of_zero_waits_for_the_next_round(void)
{
	struct loop_source *timer, *source;

	setup();
	check_int(loop_add_timer(loop, on_timer_set_zero, letter('t'), &timer), 0);
	loop_timer_set(timer, 0);
	for (size_t round = 1; round <= 3; round++) {
		run_round();
		check_int(strlen(trace), round);
	}
	loop_remove(timer);
	trace[0] = '\0';
	check_int(loop_add_timer(loop, on_call, letter('v'), &victim), 0);
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd_set_victim, letter('f'), &source), 0);
	run_round();
	check_str(trace, "f");
	loop_remove(source);
	run_round();
	check_str(trace, "fv");
	teardown();
}

/* Whether some timerfd of this process is armed, by its fdinfo (proc(5)). */
static bool timer_fd_is_armed(void)
{
	for (int fd = 3; fd < 100; fd++) {
		CLEANUP(freep) char *text = NULL;
		char path[48];
		size_t length;

		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		if (fd_read_file(path, 65536, &text, &length) == 0 && strstr(text, "it_value:"))
			return !strstr(text, "it_value: (0, 0)");
	}
	test_fail("there is no timerfd");
}

static void test_loop_idle_has_no_armed_timer(void)
{
	struct loop_source *timer, *other;

	setup();
	check_int(loop_add_timer(loop, on_call, letter('t'), &timer), 0);
	check_int(loop_add_timer(loop, on_call, letter('o'), &other), 0);
	check(!timer_fd_is_armed());
	loop_timer_set(timer, 60000);
	check_int(loop_run_once(loop, 0), 0);
	check(timer_fd_is_armed());
	loop_timer_stop(timer);
	check_int(loop_run_once(loop, 0), 0);
	check(!timer_fd_is_armed());
	/* One that has fired, while another one stopped. */
	loop_timer_set(timer, 1);
	loop_timer_set(other, 60000);
	while (!*trace)
		run_round();
	loop_remove(other);
	int64_t start_ms = loop_now_ms();
	check_int(loop_run_once(loop, 30), 0);
	check(loop_now_ms() - start_ms >= 29);
	check(!timer_fd_is_armed());
	check_str(trace, "t");
	teardown();
}

static void on_fd_quit(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source, (void)fd, (void)events;
	note('q');
	loop_quit(data);
}

static void on_timer_quit(struct loop_source *source, void *data)
{
	on_fd_quit(source, -1, 0, data);
}

static void test_loop_run_ends_at_quit(void)
{
	struct loop_source *timer, *other;

	setup();
	check_int(loop_add_timer(loop, on_timer_quit, loop, &timer), 0);
	check_int(loop_add_timer(loop, on_call, letter('o'), &other), 0);
	loop_timer_set(timer, 1);
	loop_timer_set(other, 60000);
	check_int(loop_run(loop), 0);
	check_str(trace, "q");
	/* One that was asked before the loop runs counts, once. */
	loop_quit(loop);
	check_int(loop_run(loop), 0);
	loop_timer_set(timer, 1);
	check_int(loop_run(loop), 0);
	check_str(trace, "qq");
	teardown();
}

static void on_call_nested(struct loop_source *source, void *data)
{
	const struct loop_source *removed = victim;

	(void)source, (void)data;
	note('[');
	run_round();
	note(']');
	/* Freed at the end of the outermost round only: still readable memory, as ASan and valgrind know. */
	check_int(loop_timer_left_ms(removed), -1);
}

static void test_loop_nested_round_delivers_once(void)
{
	struct loop_source *source;

	setup();
	make_exited_child();
	check_int(loop_add_timer(loop, on_call, letter('v'), &victim), 0);
	loop_timer_set(victim, 0);
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd_remove_victim, letter('f'), &source), 0);
	check_int(loop_add_child(loop, pidfd, on_call_nested, NULL, &source), 0);
	run_round();
	check_str(trace, "[f]");
	teardown();
}

/* The state letter of a process, from /proc/PID/stat. */
static char process_state(pid_t which)
{
	CLEANUP(freep) char *text = NULL;
	char path[32];
	size_t length;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)which);
	check_int(fd_read_file(path, 4096, &text, &length), 0);
	return strrchr(text, ')')[2];
}

static void test_loop_run_survives_stop_and_continue(void)
{
	struct loop_source *source;
	int status;
	char byte;

	setup();
	check_int(read(fds[0], &byte, 1), 1);
	check_int(loop_add_fd(loop, fds[0], EPOLLIN, on_fd_quit, loop, &source), 0);
	pid_t runner = fork();
	check(runner >= 0);
	if (runner == 0)
		_exit(loop_run(loop) == 0 ? 0 : 1);
	int64_t deadline_ms = loop_now_ms() + DEADLINE_MS;
	while (process_state(runner) != 'S') {
		check(loop_now_ms() < deadline_ms);
		sched_yield();
	}
	check_int(kill(runner, SIGSTOP), 0);
	check_int(waitpid(runner, &status, WUNTRACED), runner);
	check_int(kill(runner, SIGCONT), 0);
	check_int(waitpid(runner, &status, WCONTINUED), runner);
	check_int(write(fds[1], "x", 1), 1);
	check_int(waitpid(runner, &status, 0), runner);
	check(WIFEXITED(status));
	check_int(WEXITSTATUS(status), 0);
	teardown();
}

TEST_MAIN(TEST(test_loop_owns_close_on_exec_descriptors), TEST(test_loop_fd_gets_its_events),
	  TEST(test_loop_add_refuses_bad_descriptors), TEST(test_loop_round_delivers_by_class),
	  TEST(test_loop_exit_comes_first_among_hundreds), TEST(test_loop_child_is_called_once_and_then_silent),
	  TEST(test_loop_remove_inside_own_callback), TEST(test_loop_remove_of_a_fetched_source),
	  TEST(test_loop_fd_set_events_drops_what_was_fetched), TEST(test_loop_signals_restore_the_mask),
	  TEST(test_loop_signals_are_not_lost_by_a_removal), TEST(test_loop_timers_fire_in_order_and_never_early),
	  TEST(test_loop_timer_set_again_starts_anew), TEST(test_loop_timer_of_zero_waits_for_the_next_round),
	  TEST(test_loop_idle_has_no_armed_timer), TEST(test_loop_run_ends_at_quit),
	  TEST(test_loop_nested_round_delivers_once), TEST(test_loop_run_survives_stop_and_continue))
