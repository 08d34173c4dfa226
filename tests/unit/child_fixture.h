/* SPDX-License-Identifier: MIT */
/* Shared by the tests of child.c: this program as the server that is started, and a plan run to its end. */
#ifndef HANDOFF_TEST_CHILD_FIXTURE_H
#define HANDOFF_TEST_CHILD_FIXTURE_H

#include <bsd/string.h>
#include <bsd/unistd.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "child.h"
#include "../lib/test.h"

#define DEADLINE_MS 20000
#define NOBODY 65534

/* --- This program as the server: `--helper OUT_FD` writes what it was given to OUT_FD. --- */

static inline void helper_report(FILE *out, int out_fd)
{
	for (int fd = 0; fd < 1024; fd++) {
		struct stat status;
		if (fd != out_fd && fstat(fd, &status) == 0)
			fprintf(out, "fd%d=%ju ", fd, (uintmax_t)status.st_ino);
	}
	const char *listen_pid = getenv("LISTEN_PID");
	fprintf(out, "pid=%d pgrp=%d LISTEN_PID=%s.", (int)getpid(), (int)getpgrp(), listen_pid ? listen_pid : "none");
}

__attribute__((constructor)) static void helper_main(int argc, char **argv)
{
	if (argc < 3 || strcmp(argv[1], "--helper") != 0)
		return;
	/* In memory, since a stream on the descriptor itself could open others. */
	static char text[65536];
	FILE *out = fmemopen(text, sizeof(text), "w");
	helper_report(out, atoi(argv[2]));
	fclose(out);
	ssize_t written = write(atoi(argv[2]), text, strlen(text));
	_exit(written < 0);
}

static char self_path[4096];

static inline char *self(void)
{
	/* Not /proc/self/exe itself, which is another program where one runs this under an emulator. */
	ssize_t length = readlink("/proc/self/exe", self_path, sizeof(self_path) - 1);
	check(length > 0);
	self_path[length] = '\0';
	return self_path;
}

/* --- Running a plan to its end. --- */

struct run {
	char output[65536]; /* what it wrote to fd 2 */
	int exec_result;
	struct error error;
	int status;
	pid_t pid;
};

static char *const empty_env[] = {NULL};

static inline struct child_plan make_plan(char *const *argv)
{
	return (struct child_plan){.argv = argv, .envp = empty_env, .listen_pid_index = -1, .stderr_fd = -1};
}

static inline void wait_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	if (poll(&poll_fd, 1, DEADLINE_MS) != 1)
		test_fail("nothing came within %d ms", DEADLINE_MS);
}

static inline void read_all(int fd, char *buffer, size_t size)
{
	size_t length = 0;
	for (;;) {
		wait_readable(fd);
		ssize_t count = read(fd, buffer + length, size - 1 - length);
		check(count >= 0);
		if (count == 0)
			break;
		length += (size_t)count;
	}
	buffer[length] = '\0';
}

static inline int await_exec(struct child *child, const struct child_plan *plan, struct error *error)
{
	wait_readable(child->exec_fd);
	return child_exec_result(child, plan, error);
}

static inline int await_exit(struct child *child)
{
	int status = -1;
	wait_readable(child->pidfd);
	check_int(child_peek(child->pid, &status), 1);
	check_int(child_reap(child->pid), 0);
	child_finish(child);
	return status;
}

/* A pipe out of the way of what the tests place. */
static inline void high_pipe(int ends[2])
{
	int low[2];
	check_int(pipe2(low, O_CLOEXEC), 0);
	for (int i = 0; i < 2; i++) {
		ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 500);
		check(ends[i] >= 500);
		close(low[i]);
	}
}

static struct run last_run;

/* Spawns, collects fd 2, awaits the end. */
static inline struct run *run_plan(struct child_plan *plan)
{
	int ends[2];
	struct child child;

	memset(&last_run, 0, sizeof(last_run));
	high_pipe(ends);
	plan->stderr_fd = ends[1];
	if (child_spawn(plan, &child, &last_run.error) < 0)
		test_fail("%s", last_run.error.text);
	close(ends[1]);
	last_run.pid = child.pid;
	read_all(ends[0], last_run.output, sizeof(last_run.output));
	close(ends[0]);
	last_run.exec_result = await_exec(&child, plan, &last_run.error);
	last_run.status = await_exit(&child);
	return &last_run;
}

static inline struct run *run_shell(struct child_plan *plan, const char *script)
{
	static char shell[] = "/bin/sh", option[] = "-c";
	static char copy[4096];
	static char *argv[] = {shell, option, copy, NULL};

	strlcpy(copy, script, sizeof(copy));
	plan->argv = argv;
	struct run *run = run_plan(plan);
	if (run->exec_result != 1)
		test_fail("%s", run->error.text);
	check_int(run->status, 0);
	return run;
}

/* Runs `function` in a process of its own, with nothing but 0, 1, 2 open and free to change what it likes. */
static inline void in_process(void (*function)(void))
{
	fflush(stdout);
	pid_t pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		closefrom(3);
		function();
		fflush(stdout);
		_exit(0);
	}
	int status;
	check_int(waitpid(pid, &status, 0), pid);
	if (status != 0)
		_exit(1); /* it has said why */
}

static inline bool is_root(void)
{
	if (geteuid() == 0)
		return true;
	printf("# not root: not tried\n");
	return false;
}

/* --- A folder for programs. --- */

static char folder[64];

static inline void write_file(const char *name, const char *text, mode_t mode)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check(fd >= 0);
	check_int(write(fd, text, strlen(text)), strlen(text));
	check_int(fchmod(fd, mode), 0);
	close(fd);
}

static inline void make_folder(void)
{
	char path[256];
	strlcpy(folder, "/tmp/handoff-test-XXXXXX", sizeof(folder));
	check(mkdtemp(folder));
	for (const char *name = "a\0b\0"; *name; name += 2) {
		snprintf(path, sizeof(path), "%s/%s", folder, name);
		check_int(mkdir(path, 0700), 0);
	}
}

static inline void remove_folder(void)
{
	static const char *const names[] = {"a/tool", "b/tool", "tool", "-c", "plain", "lost", "a", "b", "."};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[256];
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		if (strcmp(names[i], ".") == 0)
			check_int(rmdir(folder), 0);
		else
			remove(path);
	}
}

#endif
