/* SPDX-License-Identifier: MIT */
/* What a started process inherits: signal mask and dispositions, credentials, limits. */
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "child.h"
#include "child_exec.h"
#include "child_fixture.h"

/* --- Signals. --- */

/* The kernel's own struct, on the architectures where it begins with the handler: signals that sigaction(3) refuses. */
static void ignore_bare(int number)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		unsigned long mask;
	} action = {.handler = SIG_IGN};
	syscall(SYS_rt_sigaction, number, &action, NULL, 8);
}

static void set_mask_bare(uint64_t mask)
{
	check_int(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8), 0);
}

static bool hup_ignored;

static void with_everything_blocked(void)
{
	static char shell[] = "/bin/sh", option[] = "-c";
	static char script[] = "read gate <&3; exec cat /proc/self/status >&2";
	char *argv[] = {shell, option, script, NULL};
	char *envp[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};
	struct child_plan plan = make_plan(argv);
	char output[8192];
	int gate[2], ends[2];
	struct child child;

	high_pipe(gate);
	high_pipe(ends);
	for (int number = 1; number <= 64; number++)
		ignore_bare(number);
	set_mask_bare(~UINT64_C(0));
	plan.envp = envp;
	plan.fds = &gate[0];
	plan.fd_count = 1;
	plan.stderr_fd = ends[1];
	plan.keep_hup_ignored = hup_ignored;
	check_int(child_spawn(&plan, &child, NULL), 0);
	/* Ignored, SIGCHLD would let the child vanish without a status. */
	signal(SIGCHLD, SIG_DFL);
	uint64_t mask = 0;
	check_int(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, 8), 0);
	/* KILL and STOP never are, and valgrind keeps one for itself. */
	check((mask | UINT64_C(0x8000000000040100)) == ~UINT64_C(0));
	close(gate[1]);
	close(ends[1]);
	read_all(ends[0], output, sizeof(output));
	check_int(await_exit(&child), 0);
	check_contains(output, "SigBlk:\t0000000000000000\n");
	check_contains(output, hup_ignored ? "SigIgn:\t0000000000000001\n" : "SigIgn:\t0000000000000000\n");
	check_contains(output, "SigCgt:\t0000000000000000\n");
}

static void test_child_resets_mask_and_dispositions(void)
{
	hup_ignored = false;
	in_process(with_everything_blocked);
}

static void test_child_keeps_hup_ignored_where_asked(void)
{
	hup_ignored = true;
	in_process(with_everything_blocked);
}

static void on_usr1(int number)
{
	(void)number;
}

static void test_child_spawn_restores_our_mask(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_plan plan = make_plan(argv);
	sigset_t usr1, before, after;
	struct sigaction action = {.sa_handler = on_usr1}, kept;
	struct child child;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	check_int(sigprocmask(SIG_BLOCK, &usr1, &before), 0);
	check_int(sigaction(SIGUSR1, &action, NULL), 0);
	check_int(child_spawn(&plan, &child, NULL), 0);
	check_int(sigprocmask(SIG_SETMASK, &before, &after), 0);
	check_int(sigismember(&after, SIGUSR1), 1);
	check_int(sigismember(&after, SIGTERM), 0);
	check_int(sigaction(SIGUSR1, NULL, &kept), 0);
	check(kept.sa_handler == on_usr1);
	signal(SIGUSR1, SIG_DFL);
	check_int(await_exit(&child), 0);
}

static void test_child_dies_of_an_early_signal(void)
{
	static char program[] = "/bin/sleep", seconds[] = "60";
	char *argv[] = {program, seconds, NULL};
	struct child_plan plan = make_plan(argv);

	/* Ignored here, and sent while the child may be anywhere between fork and exec. */
	signal(SIGTERM, SIG_IGN);
	for (int i = 0; i < 30; i++) {
		struct child child;
		check_int(child_spawn(&plan, &child, NULL), 0);
		check_int(child_signal(&child, SIGTERM), 0);
		check_int(await_exit(&child), SIGTERM);
	}
	signal(SIGTERM, SIG_DFL);
}

static void test_child_signal_group_reaches_all(void)
{
	static char shell[] = "/bin/sh", option[] = "-c", script[] = "sleep 60 & echo up >&2; wait";
	char *argv[] = {shell, option, script, NULL};
	char *envp[] = {(char[]){"PATH=/usr/bin:/bin"}, NULL};
	struct child_plan plan = make_plan(argv);
	struct child child;
	char output[64];
	int ends[2];

	high_pipe(ends);
	plan.envp = envp;
	plan.stderr_fd = ends[1];
	check_int(child_spawn(&plan, &child, NULL), 0);
	close(ends[1]);
	wait_readable(ends[0]);
	check_int(child_signal_group(&child, SIGTERM), 0);
	/* End of file only when the sleeping helper is gone too. */
	read_all(ends[0], output, sizeof(output));
	close(ends[0]);
	wait_readable(child.pidfd);
	check_int(child_signal_group(&child, 0), 0); /* unreaped: the number is still ours */
	struct child copy = child;
	copy.pidfd = fcntl(child.pidfd, F_DUPFD_CLOEXEC, 3);
	copy.exec_fd = -1;
	check_int(await_exit(&child), SIGTERM);
	check_int(child_signal(&copy, SIGTERM), -ESRCH);
	child_finish(&copy);
}

/* --- Credentials and limits. --- */

static void test_child_drops_credentials(void)
{
	gid_t groups[] = {7, 9};
	struct child_limits limits = {.set_user = true, .uid = NOBODY, .gid = 12, .groups = groups, .group_count = 2};
	struct child_plan plan = make_plan(NULL);

	if (!is_root())
		return;
	plan.limits = &limits;
	struct run *run = run_shell(&plan, "exec cat /proc/self/status >&2");
	check_contains(run->output, "Uid:\t65534\t65534\t65534\t65534\n");
	check_contains(run->output, "Gid:\t12\t12\t12\t12\n");
	check_contains(run->output, "Groups:\t7 9 \n");
	check_contains(run->output, "CapEff:\t0000000000000000\n");

	limits = (struct child_limits){.set_user = true, .uid = (uid_t)-1, .gid = 12};
	run = run_shell(&plan, "exec cat /proc/self/status >&2");
	check_contains(run->output, "Uid:\t0\t0\t0\t0\n");
	check_contains(run->output, "Gid:\t12\t12\t12\t12\n");
	check_contains(run->output, "Groups:\t \n");
}

static void credentials_that_come_back(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_limits limits = {.set_user = true, .uid = NOBODY, .gid = NOBODY};
	struct child_plan plan = make_plan(argv);

	/* Capabilities then survive the change of the user. */
	check_int(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), 0);
	plan.limits = &limits;
	struct run *run = run_plan(&plan);
	check_int(run->exec_result, -EPERM);
	check_contains(run->error.text, "cannot start /bin/true: it could take back the user or group");
	check_int(child_exit_code(run->status), 126);
}

static void test_child_refuses_credentials_that_come_back(void)
{
	if (is_root())
		in_process(credentials_that_come_back);
}

static void as_nobody(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	gid_t groups[] = {NOBODY};
	struct child_limits limits = {
		.set_user = true, .uid = NOBODY, .gid = NOBODY, .groups = groups, .group_count = 1};
	struct child_plan plan = make_plan(argv);

	check_int(setresgid(NOBODY, NOBODY, NOBODY), 0);
	check_int(setresuid(NOBODY, NOBODY, NOBODY), 0);
	plan.limits = &limits;
	/* Oneself is always allowed. */
	struct run *run = run_plan(&plan);
	check_int(run->exec_result, 1);
	check_int(run->status, 0);
	limits.uid = 1;
	run = run_plan(&plan);
	check_int(run->exec_result, -EPERM);
	check_contains(run->error.text, "cannot set the supplementary groups for /bin/true: ");
	check_int(child_exit_code(run->status), 126);
}

static void test_child_without_privileges_says_so(void)
{
	if (is_root())
		in_process(as_nobody);
}

static void raise_a_hard_limit(void)
{
	struct child_rlimit rlimit = {.resource = RLIMIT_SIGPENDING, .limit = {200, 200}};
	struct child_limits limits = {
		.set_user = true, .uid = NOBODY, .gid = NOBODY, .rlimits = &rlimit, .rlimit_count = 1};
	struct child_plan plan = make_plan(NULL);

	check_int(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){100, 100}), 0);
	plan.limits = &limits;
	struct run *run = run_shell(&plan, "while read line; do echo \"$line\" >&2; done </proc/self/limits");
	check_contains(run->output, "Max pending signals       200                  200");
}

static void test_child_sets_limits_before_dropping(void)
{
	if (!is_root())
		return;
	if (prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1)
		in_process(raise_a_hard_limit);
	else
		printf("# no CAP_SYS_RESOURCE: not tried\n");
}

/* More descriptors than the server's own limit: they are placed before it holds. (The program then has none left to be
 * loaded with, and fails by itself.) */
static void test_child_places_descriptors_before_the_limit_holds(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_rlimit rlimit = {.resource = RLIMIT_NOFILE, .limit = {4, 4}};
	struct child_limits limits = {.uid = (uid_t)-1, .gid = (gid_t)-1, .rlimits = &rlimit, .rlimit_count = 1};
	struct child_plan plan = make_plan(argv);
	int fds[] = {0, 0, 0, 0};

	plan.limits = &limits;
	plan.fds = fds;
	plan.fd_count = 4;
	struct run *run = run_plan(&plan);
	if (run->exec_result != 1)
		test_fail("%s", run->error.text);
}

static void test_child_names_a_bad_limit(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_rlimit rlimit = {.resource = RLIMIT_NOFILE, .limit = {20, 10}};
	struct child_limits limits = {.uid = (uid_t)-1, .gid = (gid_t)-1, .rlimits = &rlimit, .rlimit_count = 1};
	struct child_plan plan = make_plan(argv);

	plan.limits = &limits;
	struct run *run = run_plan(&plan);
	check_int(run->exec_result, -EINVAL);
	check_str(run->error.text, "cannot set the limit NOFILE to 20 (hard 10): Invalid argument");
}

static void test_child_sets_umask_and_no_new_privs(void)
{
	struct child_limits limits = {
		.uid = (uid_t)-1, .gid = (gid_t)-1, .set_umask = true, .umask = 0137, .no_new_privs = true};
	struct child_plan plan = make_plan(NULL);

	plan.limits = &limits;
	struct run *run = run_shell(&plan, "umask >&2; exec cat /proc/self/status >&2");
	check_contains(run->output, "0137\n");
	check_contains(run->output, "NoNewPrivs:\t1\n");
}

static int told_fd;

/* A supervisor that dies at once. */
static void short_lived_supervisor(bool as_user)
{
	static char program[] = "/bin/sleep", seconds[] = "60";
	char *argv[] = {program, seconds, NULL};
	struct child_limits limits = {.set_user = as_user, .uid = NOBODY, .gid = NOBODY, .die_with_supervisor = true};
	struct child_plan plan = make_plan(argv);
	struct child child;

	plan.limits = &limits;
	check_int(child_spawn(&plan, &child, NULL), 0);
	check_int(await_exec(&child, &plan, NULL), 1);
	check_int(write(told_fd, &child.pid, sizeof(child.pid)), sizeof(child.pid));
	/* Lives until it is killed. */
	for (;;)
		pause();
}

static void check_dies_with_supervisor(bool as_user)
{
	int ends[2];
	pid_t server;

	high_pipe(ends);
	told_fd = ends[1];
	fflush(stdout);
	pid_t supervisor = fork();
	check(supervisor >= 0);
	if (supervisor == 0)
		short_lived_supervisor(as_user);
	wait_readable(ends[0]);
	check_int(read(ends[0], &server, sizeof(server)), sizeof(server));
	close(ends[0]);
	close(ends[1]);
	int pidfd = (int)syscall(SYS_pidfd_open, server, 0);
	check(pidfd >= 0);
	check_int(kill(supervisor, SIGKILL), 0);
	check_int(waitpid(supervisor, NULL, 0), supervisor);
	wait_readable(pidfd);
	close(pidfd);
}

static void test_child_dies_with_the_supervisor(void)
{
	check_dies_with_supervisor(false);
	if (is_root())
		check_dies_with_supervisor(true);
}

static void test_child_dies_when_the_supervisor_is_gone_already(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	char *candidates[] = {program, NULL};
	char *shell_argv[] = {program, NULL, NULL};
	int sources[] = {0, 1, 2}, ends[2];
	struct child_limits limits = {.uid = (uid_t)-1, .gid = (gid_t)-1, .die_with_supervisor = true};
	struct child_plan plan = make_plan(argv);
	struct child_exec exec = {.plan = &plan,
				  .candidates = candidates,
				  .shell_argv = shell_argv,
				  .sources = sources,
				  .source_count = 3};

	plan.limits = &limits;
	check_int(pipe2(ends, O_CLOEXEC), 0);
	exec.report_fd = ends[1];
	exec.parent = getpid();
	for (int gone = 0; gone <= 1; gone++) {
		fflush(stdout);
		pid_t pid = fork();
		check(pid >= 0);
		if (pid == 0) {
			if (gone)
				exec.parent = getpid(); /* never our parent's number */
			child_exec_run(&exec);
		}
		siginfo_t info;
		int status;
		check_int(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
		/* Its own doing, since this parent did not. */
		check_int(getpgid(pid), pid);
		check_int(waitpid(pid, &status, 0), pid);
		check_int(status, gone ? SIGKILL : 0);
	}
	close(ends[0]);
	close(ends[1]);
}

TEST_MAIN(TEST(test_child_resets_mask_and_dispositions), TEST(test_child_keeps_hup_ignored_where_asked),
	  TEST(test_child_spawn_restores_our_mask), TEST(test_child_dies_of_an_early_signal),
	  TEST(test_child_signal_group_reaches_all), TEST(test_child_drops_credentials),
	  TEST(test_child_refuses_credentials_that_come_back), TEST(test_child_without_privileges_says_so),
	  TEST(test_child_sets_limits_before_dropping), TEST(test_child_places_descriptors_before_the_limit_holds),
	  TEST(test_child_names_a_bad_limit), TEST(test_child_sets_umask_and_no_new_privs),
	  TEST(test_child_dies_with_the_supervisor), TEST(test_child_dies_when_the_supervisor_is_gone_already))
