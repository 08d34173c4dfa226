/* SPDX-License-Identifier: MIT */
/* Starting real processes: descriptors, environment, group; exits and reaping. */
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#include "child.h"
#include "child_fixture.h"

/* --- Descriptors. --- */

static ino_t inode_of(int fd)
{
	struct stat status;
	check_int(fstat(fd, &status), 0);
	return status.st_ino;
}

/* A file that no other descriptor shares, at exactly this number. */
static ino_t put_file_at(int number, bool cloexec)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	check(fd >= 0);
	if (fd == number)
		check_int(fcntl(fd, F_SETFD, cloexec ? FD_CLOEXEC : 0), 0);
	else {
		check_int(dup3(fd, number, cloexec ? O_CLOEXEC : 0), number);
		close(fd);
	}
	return inode_of(number);
}

/* Starts the helper with these descriptors; it must see them at 3…, 0 to 2, and nothing else. */
static void check_placement(const int *fds, size_t count)
{
	char *argv[] = {self(), (char[]){"--helper"}, (char[]){"2"}, NULL};
	struct child_plan plan = make_plan(argv);
	char want[4096];
	size_t length;
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	ino_t null_inode = inode_of(null_fd);

	close(null_fd);
	length =
		(size_t)snprintf(want, sizeof(want), "fd0=%ju fd1=%ju ", (uintmax_t)null_inode, (uintmax_t)inode_of(1));
	for (size_t i = 0; i < count; i++)
		length += (size_t)snprintf(want + length, sizeof(want) - length, "fd%zu=%ju ", 3 + i,
					   (uintmax_t)inode_of(fds[i]));
	strlcat(want, "pid=", sizeof(want));
	plan.fds = fds;
	plan.fd_count = count;
	struct run *run = run_plan(&plan);
	if (run->exec_result != 1)
		test_fail("%s", run->error.text);
	if (strncmp(run->output, want, strlen(want)) != 0)
		test_fail("the child has %s, not %s", run->output, want);
}

static int layout;

static void one_layout(void)
{
	int extra = layout == 1 ? 1 : layout == 2 ? 3 : 0;
	int fds[3], ready[2];

	/* What the caller left open, not close-on-exec. */
	for (int i = 0; i < extra; i++)
		check_int(open("/dev/null", O_RDWR), 3 + i);
	if (layout == 4)
		check_int(pipe2(ready, O_CLOEXEC), 0);
	for (int i = 0; i < 2; i++)
		check((fds[i] = memfd_create("listener", MFD_CLOEXEC)) >= 0);
	if (layout != 4)
		check_int(pipe2(ready, O_CLOEXEC), 0);
	if (layout == 3)
		check_int(fds[0], 3);
	fds[2] = ready[1];
	if (layout == 4) {
		/* The end that is passed stands at 3 itself. */
		close(ready[0]);
		check_int(dup3(ready[1], 3, O_CLOEXEC), 3);
		close(ready[1]);
		fds[2] = 3;
	}
	int before = test_open_fds();
	for (int start = 0; start < 6; start++)
		check_placement(fds, 3);
	check_int(test_open_fds(), before);
}

static void test_child_places_descriptors_in_all_layouts(void)
{
	for (layout = 0; layout < 5; layout++)
		in_process(one_layout);
}

static unsigned seed;

static int random_below(int bound)
{
	return rand_r(&seed) % bound;
}

static void one_permutation(void)
{
	int count = 1 + random_below(9), pool = count + random_below(3);
	int numbers[12], fds[9];

	for (int i = 0; i < pool; i++) {
		numbers[i] = 3 + i;
		put_file_at(3 + i, random_below(2));
	}
	for (int i = pool - 1; i > 0; i--) {
		int other = random_below(i + 1), number = numbers[i];
		numbers[i] = numbers[other];
		numbers[other] = number;
	}
	for (int i = 0; i < count; i++)
		fds[i] = numbers[i];
	if (random_below(4) == 0)
		fds[random_below(count)] = fds[random_below(count)];
	check_placement(fds, (size_t)count);
	closefrom(3);
}

static void many_permutations(void)
{
	for (int round = 0; round < 120; round++)
		one_permutation();
}

static void test_child_places_random_permutations(void)
{
	const char *given = getenv("TEST_SEED");

	seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	printf("# TEST_SEED=%u\n", seed);
	in_process(many_permutations);
}

/* Standard streams that are closed with us are /dev/null with the child, and never one of our own descriptors. */
static void without_stdio(void)
{
	char *argv[] = {self(), (char[]){"--helper"}, (char[]){"3"}, NULL};
	struct child_plan plan = make_plan(argv);
	char output[4096];
	int ends[2];
	struct child child;

	high_pipe(ends);
	close(0);
	close(2);
	plan.fds = &ends[1];
	plan.fd_count = 1;
	check_int(child_spawn(&plan, &child, NULL), 0);
	close(ends[1]);
	read_all(ends[0], output, sizeof(output));
	check_int(await_exit(&child), 0);
	int null_fd = open("/dev/null", O_RDWR);
	check_int(null_fd, 0);
	char want[256];
	snprintf(want, sizeof(want), "fd0=%ju fd1=%ju fd2=%ju pid", (uintmax_t)inode_of(0), (uintmax_t)inode_of(1),
		 (uintmax_t)inode_of(0));
	check_contains(output, want);
}

static void test_child_gets_null_for_closed_stdio(void)
{
	in_process(without_stdio);
}

static void test_child_quiet_has_null_outputs(void)
{
	char *argv[] = {self(), (char[]){"--helper"}, (char[]){"3"}, NULL};
	struct child_plan plan = make_plan(argv);
	char output[4096], want[256];
	int ends[2];
	struct child child;

	high_pipe(ends);
	plan.fds = &ends[1];
	plan.fd_count = 1;
	plan.quiet = true;
	check_int(child_spawn(&plan, &child, NULL), 0);
	close(ends[1]);
	read_all(ends[0], output, sizeof(output));
	close(ends[0]);
	check_int(await_exit(&child), 0);
	struct stat status;
	check_int(stat("/dev/null", &status), 0);
	uintmax_t null_inode = status.st_ino;
	snprintf(want, sizeof(want), "fd0=%ju fd1=%ju fd2=%ju pid", null_inode, null_inode, null_inode);
	check_contains(output, want);
}

static void spawn_short_of_descriptors(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_plan plan = make_plan(argv);

	for (rlim_t limit = 3; limit <= 6; limit++) {
		struct rlimit rlimit = {.rlim_cur = limit, .rlim_max = 100};
		struct child child = {.pid = -7};
		struct error error = {""};
		check_int(setrlimit(RLIMIT_NOFILE, &rlimit), 0);
		int spawned = child_spawn(&plan, &child, &error);
		if (limit < 6) {
			check_int(spawned, -EMFILE);
			check_int(child.pid, -7);
			check_contains(error.text, "cannot start /bin/true: ");
			check_int(waitpid(-1, NULL, 0), -1);
			check_int(errno, ECHILD);
			continue;
		}
		check_int(spawned, 0);
		check(child.start_time > 0);
		check_int(await_exit(&child), 0);
	}
}

static void test_child_spawn_fails_cleanly_without_descriptors(void)
{
	in_process(spawn_short_of_descriptors);
}

static void spawn_short_of_processes(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_plan plan = make_plan(argv);
	struct child child;
	struct error error = {""};

	check_int(setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0}), 0);
	check_int(setresuid(NOBODY, NOBODY, NOBODY), 0);
	int before = test_open_fds();
	check_int(child_spawn(&plan, &child, &error), -EAGAIN);
	check_str(error.text, "cannot start /bin/true: cannot fork: Resource temporarily unavailable");
	check_int(test_open_fds(), before);
}

static void test_child_spawn_fails_cleanly_without_processes(void)
{
	if (is_root())
		in_process(spawn_short_of_processes);
}

/* --- Environment and group. --- */

static void test_child_writes_its_own_pid(void)
{
	char slot[] = "LISTEN_PID=            ";
	char *argv[] = {self(), (char[]){"--helper"}, (char[]){"2"}, NULL};
	char *envp[] = {(char[]){"A=1"}, slot, (char[]){"LISTEN_PIDS=x"}, NULL};
	struct child_plan plan = make_plan(argv);
	char want[128];

	check_int(strlen(slot), strlen("LISTEN_PID=") + LISTEN_PID_ROOM);
	plan.envp = envp;
	plan.listen_pid_index = 1;
	struct run *run = run_plan(&plan);
	snprintf(want, sizeof(want), "pid=%d pgrp=%d LISTEN_PID=%d.", (int)run->pid, (int)run->pid, (int)run->pid);
	check_contains(run->output, want);
	check_str(slot, "LISTEN_PID=            ");
}

static void test_child_leads_its_group_at_once(void)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	struct child_plan plan = make_plan(argv);

	for (int i = 0; i < 20; i++) {
		struct child child;
		check_int(child_spawn(&plan, &child, NULL), 0);
		check_int(getpgid(child.pid), child.pid);
		check(fcntl(child.pidfd, F_GETFD) & FD_CLOEXEC);
		check(fcntl(child.exec_fd, F_GETFD) & FD_CLOEXEC);
		check(fcntl(child.exec_fd, F_GETFL) & O_NONBLOCK);
		check_int(await_exit(&child), 0);
	}
}

/* --- Exits. --- */

static void test_child_peek_leaves_the_process(void)
{
	static char shell[] = "/bin/sh", option[] = "-c", script[] = "read x <&3; exit 3";
	char *argv[] = {shell, option, script, NULL};
	struct child_plan plan = make_plan(argv);
	struct child child;
	int status = -1, gate[2];

	high_pipe(gate);
	plan.fds = &gate[0];
	plan.fd_count = 1;
	check_int(child_spawn(&plan, &child, NULL), 0);
	check_int(child_peek(child.pid, &status), 0);
	check_int(status, -1);
	check_int(child_reap(child.pid), -EAGAIN);
	close(gate[0]);
	close(gate[1]);
	wait_readable(child.pidfd);
	for (int i = 0; i < 2; i++) {
		check_int(child_peek(child.pid, &status), 1);
		check_int(child_exit_code(status), 3);
	}
	pid_t pid = child.pid;
	check_int(await_exit(&child), W_EXITCODE(3, 0));
	check_int(child_peek(pid, &status), -ECHILD);
	check_int(child_reap(pid), -ECHILD);
	check_int(child.pidfd, -1);
	check_int(child.exec_fd, -1);
}

static void test_child_describes_statuses(void)
{
	char text[64];

	check_str(child_describe_status(W_EXITCODE(0, 0), text, sizeof(text)), "exited with status 0");
	check_str(child_describe_status(W_EXITCODE(255, 0), text, sizeof(text)), "exited with status 255");
	check_str(child_describe_status(SIGKILL, text, sizeof(text)), "was killed by SIGKILL");
	check_str(child_describe_status(SIGSEGV | WCOREFLAG, text, sizeof(text)),
		  "was killed by SIGSEGV (core dumped)");
	check_str(child_describe_status(SIGRTMIN + 3, text, sizeof(text)), "was killed by SIGRTMIN+3");
	check_int(child_exit_code(W_EXITCODE(0, 0)), 0);
	check_int(child_exit_code(W_EXITCODE(7, 0)), 7);
	check_int(child_exit_code(SIGTERM), 143);
	check_int(child_exit_code(SIGSEGV | WCOREFLAG), 139);
}

TEST_MAIN(TEST(test_child_places_descriptors_in_all_layouts), TEST(test_child_places_random_permutations),
	  TEST(test_child_gets_null_for_closed_stdio), TEST(test_child_quiet_has_null_outputs),
	  TEST(test_child_spawn_fails_cleanly_without_descriptors),
	  TEST(test_child_spawn_fails_cleanly_without_processes), TEST(test_child_writes_its_own_pid),
	  TEST(test_child_leads_its_group_at_once), TEST(test_child_peek_leaves_the_process),
	  TEST(test_child_describes_statuses))
