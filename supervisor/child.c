/* SPDX-License-Identifier: MIT */
/* Starting processes: what is prepared before the fork, the fork, the exec pipe's report; signals, exits, reaping. */
#include <assert.h>
#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "child_exec.h"
#include "fd.h"
#include "process.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The kernel's signal set is smaller than the C library's. */
#define SIGNAL_SET_SIZE ((_NSIG - 1) / 8)

static const char *path_of(char *const *envp)
{
	for (; *envp; envp++)
		if (strncmp(*envp, "PATH=", 5) == 0)
			return *envp + 5;
	return DEFAULT_PATH;
}

/* Every path that execvp(3) would try, in order. */
static int build_candidates(const char *command, const char *path, struct child_exec *exec)
{
	size_t folders = 1, command_length = strlen(command);

	if (strchr(command, '/') || *command == '\0')
		path = NULL;
	for (const char *at = path; at && *at; at++)
		folders += *at == ':';
	exec->candidates = reallocarray(NULL, folders + 1, sizeof(*exec->candidates));
	/* Each is at most its folder, "./" for an empty one, the command and a NUL. */
	size_t size = (path ? strlen(path) : 0) + folders * (command_length + 3);
	exec->candidate_text = malloc(size);
	if (!exec->candidates || !exec->candidate_text)
		return -ENOMEM;

	char *out = exec->candidate_text;
	for (size_t i = 0; i < folders; i++) {
		size_t length = path ? strcspn(path, ":") : 0;
		exec->candidates[i] = out;
		if (length > 0) {
			memcpy(out, path, length);
			out += length;
			*out++ = '/';
		} else if (path) {
			/* The current folder; said so, because /bin/sh would take a name like "-c" for an option. */
			*out++ = '.';
			*out++ = '/';
		}
		memcpy(out, command, command_length + 1);
		out += command_length + 1;
		if (path)
			path += length + 1;
	}
	exec->candidates[folders] = NULL;
	return 0;
}

/* "/bin/sh", room for the path of a file without #!, and the arguments. */
static int build_shell_argv(char *const *argv, struct child_exec *exec)
{
	static char shell[] = "/bin/sh";
	size_t count = 0;

	while (argv[count])
		count++;
	exec->shell_argv = reallocarray(NULL, count + 2, sizeof(*exec->shell_argv));
	if (!exec->shell_argv)
		return -ENOMEM;
	exec->shell_argv[0] = shell;
	exec->shell_argv[1] = NULL;
	memcpy(exec->shell_argv + 2, argv + 1, count * sizeof(*argv)); /* the NULL too */
	return 0;
}

/* Before we open anything: a standard stream that is closed must not come to be one of our own new descriptors. -1
 * stands for /dev/null. */
static int build_sources(const struct child_plan *plan, struct child_exec *exec)
{
	exec->source_count = 3 + (int)plan->fd_count;
	exec->sources = reallocarray(NULL, (size_t)exec->source_count, sizeof(*exec->sources));
	if (!exec->sources)
		return -ENOMEM;
	exec->sources[0] = -1;
	exec->sources[1] = 1;
	exec->sources[2] = plan->stderr_fd >= 0 ? plan->stderr_fd : 2;
	for (int fd = 1; fd <= 2; fd++)
		if (plan->quiet || fcntl(exec->sources[fd], F_GETFD) < 0)
			exec->sources[fd] = -1;
	for (size_t i = 0; i < plan->fd_count; i++)
		exec->sources[3 + i] = plan->fds[i];
	return 0;
}

static void exec_finish(struct child_exec *exec)
{
	free(exec->candidates);
	free(exec->candidate_text);
	free(exec->shell_argv);
	free(exec->sources);
}

static int exec_prepare(const struct child_plan *plan, struct child_exec *exec)
{
	exec->plan = plan;
	exec->parent = getpid();
	int result = build_candidates(plan->argv[0], path_of(plan->envp), exec);
	if (result == 0)
		result = build_shell_argv(plan->argv, exec);
	if (result == 0)
		result = build_sources(plan, exec);
	return result;
}

static void check_plan(const struct child_plan *plan)
{
	assert(plan->argv && plan->argv[0] && plan->envp);
	assert(plan->fd_count < INT_MAX - 3);
	if (plan->listen_pid_index >= 0) {
		const char *item = plan->envp[plan->listen_pid_index];
		assert(strncmp(item, "LISTEN_PID=", 11) == 0 && strlen(item) >= 11 + LISTEN_PID_ROOM);
		(void)item;
	}
}

/* Forks with all signals blocked, so that no handler of ours and no default action meets the child before it has reset
 * both. The child does not return. */
static pid_t fork_blocked(struct child_exec *exec)
{
	sigset_t all, before;

	/* Bare calls, because sigprocmask(3) leaves out two signals. */
	memset(&all, 0xff, sizeof(all));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, SIGNAL_SET_SIZE);
	pid_t pid = fork();
	if (pid == 0)
		child_exec_run(exec);
	int fork_errno = errno;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, SIGNAL_SET_SIZE);
	return pid > 0 ? pid : -fork_errno;
}

/* The descriptor and the start time of a process that was just forked. Where it fails, no process is left. */
static int identify(pid_t pid, struct child *ret_child)
{
	struct process_stat stat = {0};
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0) {
		int error = errno;
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return -error;
	}
	/* Without /proc the start time stays 0: the child runs all the same. */
	process_stat(pid, &stat);
	ret_child->pid = pid;
	ret_child->pidfd = pidfd;
	ret_child->start_time = stat.start_time;
	return 0;
}

int child_spawn(const struct child_plan *plan, struct child *ret_child, struct error *error)
{
	CLEANUP(exec_finish) struct child_exec exec = {0};
	CLEANUP(fd_closep) int null_fd = -1;
	CLEANUP(fd_closep) int read_fd = -1;
	CLEANUP(fd_closep) int write_fd = -1;
	const char *command = plan->argv[0];
	struct child child = {0};
	int ends[2];

	check_plan(plan);
	int result = exec_prepare(plan, &exec);
	if (result < 0)
		return error_set(error, result, "cannot start %s: %s", command, strerror(-result));
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (null_fd < 0)
		return error_set(error, -errno, "cannot start %s: cannot open /dev/null: %s", command, strerror(errno));
	for (int fd = 0; fd <= 2; fd++)
		if (exec.sources[fd] < 0)
			exec.sources[fd] = null_fd;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot start %s: cannot make a pipe: %s", command, strerror(errno));
	read_fd = ends[0];
	write_fd = ends[1];
	exec.report_fd = write_fd;
	result = fd_set_nonblock(read_fd, true);
	if (result < 0)
		return error_set(error, result, "cannot start %s: %s", command, strerror(-result));

	pid_t pid = fork_blocked(&exec);
	if (pid < 0)
		return error_set(error, pid, "cannot start %s: cannot fork: %s", command, strerror(-pid));
	/* The child does it too: neither side may be the first to need the group. Fails once the child has exec'd, and
	 * then it is done. */
	setpgid(pid, pid);
	/* These two make room, so that the calls below cannot fail for want of descriptors. */
	write_fd = fd_close(write_fd);
	null_fd = fd_close(null_fd);
	result = identify(pid, &child);
	if (result < 0)
		return error_set(error, result, "cannot watch %s: %s", command, strerror(-result));
	child.exec_fd = fd_steal(&read_fd);
	*ret_child = child;
	return 0;
}

static const char *rlimit_name(int resource)
{
	static const char *const names[] = {
		[RLIMIT_AS] = "AS",           [RLIMIT_CORE] = "CORE",         [RLIMIT_CPU] = "CPU",
		[RLIMIT_DATA] = "DATA",       [RLIMIT_FSIZE] = "FSIZE",       [RLIMIT_LOCKS] = "LOCKS",
		[RLIMIT_MEMLOCK] = "MEMLOCK", [RLIMIT_MSGQUEUE] = "MSGQUEUE", [RLIMIT_NICE] = "NICE",
		[RLIMIT_NOFILE] = "NOFILE",   [RLIMIT_NPROC] = "NPROC",       [RLIMIT_RSS] = "RSS",
		[RLIMIT_RTPRIO] = "RTPRIO",   [RLIMIT_RTTIME] = "RTTIME",     [RLIMIT_SIGPENDING] = "SIGPENDING",
		[RLIMIT_STACK] = "STACK",
	};

	if (resource < 0 || (size_t)resource >= ARRAY_SIZE(names) || !names[resource])
		return "?";
	return names[resource];
}

static int describe_limit(const struct child_rlimit *rlimit, int code, const char *why, struct error *error)
{
	return error_set(error, code, "cannot set the limit %s to %ju (hard %ju): %s", rlimit_name(rlimit->resource),
			 (uintmax_t)rlimit->limit.rlim_cur, (uintmax_t)rlimit->limit.rlim_max, why);
}

/* The sentence for a step that failed in the child. */
static int describe_report(const struct child_report *report, const struct child_plan *plan, struct error *error)
{
	const struct child_limits *limits = plan->limits;
	const char *command = plan->argv[0], *why = strerror(report->error);
	int code = -report->error;

	switch (report->step) {
	case CHILD_STEP_GROUP:
		return error_set(error, code, "cannot start %s in a process group of its own: %s", command, why);
	case CHILD_STEP_PLACE:
		return error_set(error, code, "cannot put descriptor %d in place for %s: %s", report->detail, command,
				 why);
	case CHILD_STEP_CLOSE:
		return error_set(error, code, "cannot close our descriptors for %s (close_range, Linux 5.9): %s",
				 command, why);
	case CHILD_STEP_RLIMIT:
		return describe_limit(&limits->rlimits[report->detail], code, why, error);
	case CHILD_STEP_GROUPS:
		return error_set(error, code, "cannot set the supplementary groups for %s: %s", command, why);
	case CHILD_STEP_GID:
		return error_set(error, code, "cannot become group %ju: %s", (uintmax_t)limits->gid, why);
	case CHILD_STEP_UID:
		return error_set(error, code, "cannot become user %ju: %s", (uintmax_t)limits->uid, why);
	case CHILD_STEP_REGAIN:
		return error_set(error, code,
				 "cannot start %s: it could take back the user or group that --user or --group gave up"
				 " (capabilities that survive the change)",
				 command);
	case CHILD_STEP_NO_NEW_PRIVS:
		return error_set(error, code, "cannot set no_new_privs for %s: %s", command, why);
	case CHILD_STEP_DEATH_SIGNAL:
		return error_set(error, code, "cannot set the parent-death signal for %s: %s", command, why);
	case CHILD_STEP_CHDIR:
		return error_set(error, code, "cannot change to %s: %s", plan->chdir, why);
	case CHILD_STEP_EXEC:
		if (report->error == ENOENT && !strchr(command, '/'))
			return error_set(error, code, "cannot exec %s: %s in the folders of PATH", command, why);
		return error_set(error, code, "cannot exec %s: %s", command, why);
	case CHILD_STEP_INTERPRETER:
		return error_set(error, code,
				 "cannot exec %s: the file is there, but its interpreter is not (the program of its #!"
				 " line, or the dynamic loader)",
				 command);
	}
	return error_set(error, code, "cannot start %s: %s", command, why);
}

int child_exec_result(struct child *child, const struct child_plan *plan, struct error *error)
{
	struct child_report report;
	ssize_t count;

	do
		count = read(child->exec_fd, &report, sizeof(report));
	while (count < 0 && errno == EINTR);
	if (count == 0)
		return 1;
	if (count < 0 && errno == EAGAIN)
		return 0;
	if (count < 0)
		return error_set(error, -errno, "cannot read whether %s was started: %s", plan->argv[0],
				 strerror(errno));
	assert(count == sizeof(report));
	return describe_report(&report, plan, error);
}

int child_peek(pid_t pid, int *ret_status)
{
	siginfo_t info = {0};

	assert(pid > 0);
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
		return -errno;
	if (info.si_pid == 0)
		return 0;
	*ret_status = info.si_code == CLD_EXITED ? W_EXITCODE(info.si_status, 0)
						 : info.si_status | (info.si_code == CLD_DUMPED ? WCOREFLAG : 0);
	return 1;
}

int child_reap(pid_t pid)
{
	assert(pid > 0);
	/* Never waits: where there is nothing to reap, the caller was wrong about the exit. */
	pid_t reaped = waitpid(pid, NULL, WNOHANG);
	return reaped < 0 ? -errno : reaped == 0 ? -EAGAIN : 0;
}

int child_signal(const struct child *child, int signal)
{
	return syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

int child_signal_group(const struct child *child, int signal)
{
	/* kill(-1) would reach every process of the machine. */
	assert(child->pid > 1);
	return kill(-child->pid, signal) < 0 ? -errno : 0;
}

void child_finish(struct child *child)
{
	child->pidfd = fd_close(child->pidfd);
	child->exec_fd = fd_close(child->exec_fd);
}

static const char *signal_name(int signal, char *buffer, size_t size)
{
	const char *name = sigabbrev_np(signal);

	if (name)
		snprintf(buffer, size, "SIG%s", name);
	else if (signal >= SIGRTMIN && signal <= SIGRTMAX)
		snprintf(buffer, size, "SIGRTMIN+%d", signal - SIGRTMIN);
	else
		snprintf(buffer, size, "signal %d", signal);
	return buffer;
}

const char *child_describe_status(int wait_status, char *buffer, size_t size)
{
	char name[32];

	if (WIFEXITED(wait_status))
		snprintf(buffer, size, "exited with status %d", WEXITSTATUS(wait_status));
	else if (WIFSIGNALED(wait_status))
		snprintf(buffer, size, "was killed by %s%s", signal_name(WTERMSIG(wait_status), name, sizeof(name)),
			 WCOREDUMP(wait_status) ? " (core dumped)" : "");
	else
		snprintf(buffer, size, "has the wait status 0x%x", (unsigned)wait_status);
	return buffer;
}

int child_exit_code(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}
