/* SPDX-License-Identifier: MIT */
/* Readiness commands (--ready exec:CMD): one at a time, again and again until one exits with 0. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ready_private.h"

#define SHELL "/bin/sh"
/* From one start to the next. */
#define EXEC_INTERVAL_MS 200
/* How long the death of a killed command is waited for; longer takes only one that hangs in the kernel. */
#define EXEC_KILL_WAIT_MS 100

static void run_command(struct loop_source *source, void *data);

/* The run is over: what it left in its group goes too, while its number still is ours. */
static void reap_command(struct ready_exec *exec)
{
	loop_remove(exec->exit_source);
	exec->exit_source = NULL;
	child_signal_group(&exec->child, SIGKILL);
	child_reap(exec->child.pid);
	child_finish(&exec->child);
	exec->child = (struct child){.pid = 0, .pidfd = -1, .exec_fd = -1};
}

static void note_trouble(struct ready_exec *exec, const struct error *error)
{
	struct ready *ready = exec->ready;
	ready_hold(ready);
	ready_note(ready, &exec->noted, "the readiness command: %s", error->text);
	ready_release(ready);
}

static void on_command_exit(struct loop_source *source, void *data)
{
	struct ready_exec *exec = data;
	struct ready *ready = exec->ready;
	(void)source;
	int status = -1;
	struct error error;
	char shell[] = SHELL;
	char *const argv[] = {shell, NULL};
	struct child_plan plan = *ready->check_plan;
	plan.argv = argv;
	int result = child_peek(exec->child.pid, &status);
	bool executed = child_exec_result(&exec->child, &plan, &error) >= 0;
	reap_command(exec);
	if (!ready_is_open(ready))
		return;
	if (result == 1 && status == 0) {
		char command[READY_WHY_ROOM / 2], why[READY_WHY_ROOM];
		error_printable(command, sizeof(command), exec->command, strlen(exec->command));
		snprintf(why, sizeof(why), "\"%s\" exited with 0", command);
		ready_hold(ready);
		ready_become(ready, "exec", why);
		ready_release(ready);
		return;
	}
	int64_t rest_ms = exec->started_ms + EXEC_INTERVAL_MS - loop_now_ms();
	loop_timer_set(exec->timer, rest_ms > 0 ? rest_ms : 0);
	if (!executed)
		note_trouble(exec, &error);
}

static int start_command(struct ready_exec *exec, struct error *error)
{
	struct ready *ready = exec->ready;
	/* exec(2) wants pointers to what it promises not to change. */
	char shell[] = SHELL, option[] = "-c";
	char *command = strdup(exec->command);
	if (!command)
		return error_set(error, -ENOMEM, "cannot be started: %s", strerror(ENOMEM));
	char *const argv[] = {shell, option, command, NULL};
	struct child_plan plan = *ready->check_plan;
	plan.argv = argv;
	plan.listen_pid_index = -1;
	plan.fds = NULL;
	plan.fd_count = 0;
	plan.stderr_fd = -1;
	plan.quiet = true;
	int result = child_spawn(&plan, &exec->child, error);
	free(command);
	if (result < 0) {
		exec->child.pid = 0;
		return result;
	}
	exec->started_ms = loop_now_ms();
	result = loop_add_child(ready->loop, exec->child.pidfd, on_command_exit, exec, &exec->exit_source);
	if (result < 0) {
		error_set(error, result, "cannot be watched: %s", strerror(-result));
		exec->exit_source = NULL;
		child_signal_group(&exec->child, SIGKILL);
	}
	return result;
}

/* Also tries anew after a start that failed for want of memory, processes or descriptors, which may pass. */
static void run_command(struct loop_source *source, void *data)
{
	struct ready_exec *exec = data;
	struct ready *ready = exec->ready;
	struct error error;
	(void)source;
	if (!ready_is_open(ready))
		return;
	if (exec->child.pid != 0) {
		/* Killed because it could not be watched. */
		int status;
		if (child_peek(exec->child.pid, &status) != 0)
			reap_command(exec);
		loop_timer_set(exec->timer, EXEC_INTERVAL_MS);
		return;
	}
	if (start_command(exec, &error) >= 0)
		return;
	loop_timer_set(exec->timer, EXEC_INTERVAL_MS);
	note_trouble(exec, &error);
}

int ready_exec_prepare(struct ready *ready)
{
	size_t count = 0;
	for (size_t i = 0; i < ready->options.how_count; i++)
		count += ready->options.hows[i].kind == READY_EXEC;
	if (count == 0)
		return 0;
	ready->execs = calloc(count, sizeof(ready->execs[0]));
	if (!ready->execs)
		return -ENOMEM;
	for (size_t i = 0; i < ready->options.how_count; i++) {
		if (ready->options.hows[i].kind != READY_EXEC)
			continue;
		struct ready_exec *exec = &ready->execs[ready->exec_count];
		*exec = (struct ready_exec){.ready = ready,
					    .command = ready->options.hows[i].command,
					    .child = {.pid = 0, .pidfd = -1, .exec_fd = -1}};
		int result = loop_add_timer(ready->loop, run_command, exec, &exec->timer);
		if (result < 0)
			return result;
		ready->exec_count++;
	}
	return 0;
}

void ready_exec_begin(struct ready *ready)
{
	for (size_t i = 0; i < ready->exec_count; i++)
		loop_timer_set(ready->execs[i].timer, 0);
}

void ready_exec_end(struct ready *ready)
{
	for (size_t i = 0; i < ready->exec_count; i++) {
		struct ready_exec *exec = &ready->execs[i];
		loop_remove(exec->timer);
		exec->timer = NULL;
		if (exec->child.pid == 0)
			continue;
		child_signal_group(&exec->child, SIGKILL);
		struct pollfd exit = {.fd = exec->child.pidfd, .events = POLLIN};
		if (poll(&exit, 1, EXEC_KILL_WAIT_MS) == 1)
			reap_command(exec);
	}
}

void ready_exec_finish(struct ready *ready)
{
	for (size_t i = 0; i < ready->exec_count; i++) {
		struct ready_exec *exec = &ready->execs[i];
		loop_remove(exec->exit_source);
		loop_remove(exec->timer);
		exec->exit_source = exec->timer = NULL;
		child_finish(&exec->child);
		exec->child.pid = 0;
	}
}

bool ready_owns(const struct ready *ready, pid_t pid)
{
	for (size_t i = 0; i < ready->exec_count; i++) {
		if (pid > 0 && ready->execs[i].child.pid == pid)
			return true;
	}
	return false;
}
