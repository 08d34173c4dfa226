/* SPDX-License-Identifier: MIT */
/* What /proc says of processes that this test starts: children, trees, odd names, environments. */
#include <bsd/string.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "process.h"
#include "../lib/test.h"

#define DEADLINE_MS 20000

static bool lists(const struct process_list *list, pid_t pid)
{
	int found = 0;
	for (size_t i = 0; i < list->count; i++)
		found += list->pids[i] == pid;
	check(found <= 1);
	return found == 1;
}

/* What a child of the test tells through the pipe. */
static int told_read, told_write;

static void open_pipe(void)
{
	int ends[2];
	check_int(pipe2(ends, O_CLOEXEC), 0);
	told_read = ends[0];
	told_write = ends[1];
}

static void close_pipe(void)
{
	close(told_read);
	close(told_write);
}

static void tell(pid_t pid)
{
	if (write(told_write, &pid, sizeof(pid)) != sizeof(pid))
		_exit(1);
}

static pid_t hear(void)
{
	struct pollfd poll_fd = {.fd = told_read, .events = POLLIN};
	pid_t pid;
	check_int(poll(&poll_fd, 1, DEADLINE_MS), 1);
	check_int(read(told_read, &pid, sizeof(pid)), sizeof(pid));
	return pid;
}

static void sleep_until_killed(void)
{
	for (;;)
		pause();
}

/* Forks; the child runs `function` and then lives until it is killed, or until we are gone. */
static pid_t start(void (*function)(void))
{
	fflush(stdout);
	pid_t parent = getpid(), pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		if (function)
			function();
		sleep_until_killed();
	}
	return pid;
}

static void stop(pid_t pid)
{
	check_int(kill(pid, SIGKILL), 0);
	check_int(waitpid(pid, NULL, 0), pid);
}

static void await_zombie(pid_t pid)
{
	siginfo_t info;
	check_int(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void tell_self(void)
{
	tell(getpid());
}

static void exit_at_once(void)
{
	_exit(3);
}

static void test_process_children_are_all_listed(void)
{
	struct process_list list = {0};
	pid_t pids[40];

	check_int(process_children(&list), 0);
	check_int(list.count, 0);
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
		pids[i] = start(i % 2 ? exit_at_once : NULL);
	for (size_t i = 1; i < ARRAY_SIZE(pids); i += 2)
		await_zombie(pids[i]);
	for (int again = 0; again < 2; again++) {
		check_int(process_children(&list), 0);
		check_int(list.count, ARRAY_SIZE(pids));
		for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
			check(lists(&list, pids[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
		stop(pids[i]);
	check_int(process_children(&list), 0);
	check_int(list.count, 0);
	process_list_finish(&list);
}

/* A grandchild whose parent exits; with us as the subreaper it comes to us. */
static void leave_orphan(void)
{
	pid_t pid = fork();
	if (pid == 0)
		sleep_until_killed();
	tell(pid);
	_exit(0);
}

static void test_process_children_include_orphans(void)
{
	struct process_list list = {0};

	open_pipe();
	check_int(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	pid_t middle = start(leave_orphan), orphan = hear();
	check_int(waitpid(middle, NULL, 0), middle);
	check_int(process_children(&list), 0);
	check_int(list.count, 1);
	check_int(list.pids[0], orphan);
	check(process_is_below(orphan, getpid()));
	stop(orphan);
	check_int(prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0), 0);
	process_list_finish(&list);
	close_pipe();
}

static void *fork_in_thread(void *data)
{
	(void)data;
	tell(start(NULL));
	sleep_until_killed();
	return NULL;
}

/* Two children, one of them of a second thread, and a grandchild below the first. */
static void grow_tree(void)
{
	pthread_t thread;
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		tell(getpid());
		tell(start(NULL));
		sleep_until_killed();
	}
	if (pthread_create(&thread, NULL, fork_in_thread, NULL) != 0)
		_exit(1);
}

static void test_process_tree_follows_all_threads(void)
{
	struct process_list list = {0};
	pid_t below[3];

	open_pipe();
	check_int(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	pid_t root = start(grow_tree), other = start(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		below[i] = hear();
	check_int(process_tree(root, &list), 0);
	check_int(list.count, 4);
	check_int(list.pids[0], root);
	for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
		check(lists(&list, below[i]));
		check(process_is_below(below[i], root));
		check(!process_is_below(below[i], other));
	}
	check(process_is_below(root, root));
	check(!process_is_below(root, below[0]));
	check(!process_is_below(other, root));
	stop(other);
	stop(root);
	/* The rest dies with its parents, and comes to us. */
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		check_int(waitpid(below[i], NULL, 0), below[i]);
	check_int(prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0), 0);
	process_list_finish(&list);
	close_pipe();
}

static void test_process_tree_without_a_root(void)
{
	struct process_list list = {0};
	pid_t pid = start(NULL);

	check_int(process_tree(pid, &list), 0);
	check_int(list.count, 1);
	stop(pid);
	check_int(process_tree(pid, &list), -ESRCH);
	check(!process_is_below(pid, getpid()));
	process_list_finish(&list);
}

/* A /proc as of a kernel without CONFIG_PROC_CHILDREN: our own `task` folder is hidden, in our own mounts only. */
static void look_without_children_files(void)
{
	struct process_list list = {0};
	char folder[] = "/tmp/handoff-test-XXXXXX";

	if (unshare(CLONE_NEWNS) < 0) {
		printf("# no mounts of our own: not tried\n");
		return;
	}
	check_int(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	check(mkdtemp(folder));
	check_int(mount(folder, "/proc/self/task", NULL, MS_BIND, NULL), 0);
	check_int(access("/proc/thread-self/children", R_OK), -1);
	check_int(process_children(&list), 0);
	check_int(list.count, 0);
	pid_t root = start(grow_tree), other = start(exit_at_once), below[3];
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		below[i] = hear();
	await_zombie(other);
	check_int(process_children(&list), 0);
	check_int(list.count, 2);
	check(lists(&list, root) && lists(&list, other));
	check_int(process_tree(root, &list), 0);
	check_int(list.count, 4);
	check_int(list.pids[0], root);
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		check(lists(&list, below[i]));
	process_list_finish(&list);
	stop(other);
	stop(root); /* the rest dies with it */
	check_int(umount2("/proc/self/task", MNT_DETACH), 0);
	check_int(rmdir(folder), 0);
}

static void test_process_lists_without_children_files(void)
{
	open_pipe();
	fflush(stdout);
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		look_without_children_files();
		fflush(stdout);
		_exit(0);
	}
	int status;
	check_int(waitpid(pid, &status, 0), pid);
	if (status != 0)
		_exit(1); /* it has said why */
	close_pipe();
}

static const char *odd_name;

static void take_odd_name(void)
{
	prctl(PR_SET_NAME, odd_name, 0, 0, 0);
	setsid();
	tell_self();
}

static void test_process_stat_survives_odd_names(void)
{
	static const char *const names[] = {"a) R 1 2 3 (b", ") ) (", "line\nbreak", "", "123456789012345"};
	struct process_stat stat, ours;

	open_pipe();
	check_int(process_stat(getpid(), &ours), 0);
	check_int(ours.parent, getppid());
	check_int(ours.group, getpgrp());
	check_int(ours.session, getsid(0));
	check_int(ours.state, 'R');
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		odd_name = names[i];
		pid_t pid = start(take_odd_name);
		check_int(hear(), pid);
		check_int(process_stat(pid, &stat), 0);
		check_str(stat.comm, names[i]);
		check_int(stat.parent, getpid());
		check_int(stat.group, pid);
		check_int(stat.session, pid);
		check(stat.start_time >= ours.start_time);
		kill(pid, SIGKILL);
		await_zombie(pid);
		check_int(process_stat(pid, &stat), 0);
		check_int(stat.state, 'Z');
		stop(pid);
		struct process_stat untouched = stat;
		check_int(process_stat(pid, &stat), -ESRCH);
		check(memcmp(&stat, &untouched, sizeof(stat)) == 0);
	}
	close_pipe();
}

static void exec_with_environment(void)
{
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"echo ready.; kill -STOP $$"}, NULL};
	char *envp[] = {(char[]){"PATH=/usr/bin:/bin"},
			(char[]){"AB=1"},
			(char[]){"A=two words"},
			(char[]){"EMPTY="},
			(char[]){"A=3"},
			NULL};
	dup2(told_write, 1);
	execve("/bin/sh", argv, envp);
	_exit(127);
}

static void test_process_environ_finds_one_variable(void)
{
	char value[32] = "untouched";

	open_pipe();
	pid_t pid = start(exec_with_environment);
	hear(); /* "read" of "ready.\n": the shell runs */
	check_int(process_environ(pid, "A", value, sizeof(value)), 0);
	check_str(value, "two words");
	check_int(process_environ(pid, "EMPTY", value, sizeof(value)), 0);
	check_str(value, "");
	check_int(process_environ(pid, "AB", value, 2), 0);
	check_str(value, "1");
	strlcpy(value, "untouched", sizeof(value));
	check_int(process_environ(pid, "A", value, strlen("two words")), -ERANGE);
	check_int(process_environ(pid, "B", value, sizeof(value)), -ENOENT);
	check_int(process_environ(pid, "MISSING", value, sizeof(value)), -ENOENT);
	stop(pid);
	check_int(process_environ(pid, "A", value, sizeof(value)), -ESRCH);
	check_str(value, "untouched");
	close_pipe();
}

static void look_as_nobody(void)
{
	char value[32];
	if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
		_exit(1);
	int got = process_environ(getppid(), "PATH", value, sizeof(value));
	_exit(got == -EACCES || got == -EPERM ? 0 : 2);
}

static void test_process_environ_of_another_user(void)
{
	if (geteuid() != 0) {
		printf("# not root: not tried\n");
		return;
	}
	pid_t pid = start(look_as_nobody);
	int status;
	check_int(waitpid(pid, &status, 0), pid);
	check_int(status, 0);
}

TEST_MAIN(TEST(test_process_children_are_all_listed), TEST(test_process_children_include_orphans),
	  TEST(test_process_tree_follows_all_threads), TEST(test_process_tree_without_a_root),
	  TEST(test_process_lists_without_children_files), TEST(test_process_stat_survives_odd_names),
	  TEST(test_process_environ_finds_one_variable), TEST(test_process_environ_of_another_user))
