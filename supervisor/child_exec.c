/* SPDX-License-Identifier: MIT */
/* What runs between fork and exec: system calls and plain memory only, nothing that allocates or locks. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child_exec.h"

/* Credentials are changed by bare system calls: the C library's functions take a lock, to tell its other threads. On
 * 32-bit machines the plain names are the calls with 16-bit ids. */
#ifdef SYS_setresuid32
#define SETGROUPS SYS_setgroups32
#define SETRESGID SYS_setresgid32
#define SETRESUID SYS_setresuid32
#else
#define SETGROUPS SYS_setgroups
#define SETRESGID SYS_setresgid
#define SETRESUID SYS_setresuid
#endif

/* The kernel's signal set is smaller than the C library's. */
#define SIGNAL_COUNT (_NSIG - 1)
#define SIGNAL_SET_SIZE (SIGNAL_COUNT / 8)

static noreturn void fail(const struct child_exec *exec, enum child_step step, int detail, int error)
{
	struct child_report report = {.step = step, .error = error, .detail = detail};
	bool not_found = error == ENOENT && (step == CHILD_STEP_EXEC || step == CHILD_STEP_INTERPRETER);

	while (write(exec->report_fd, &report, sizeof(report)) < 0 && errno == EINTR)
		;
	_exit(not_found ? 127 : 126);
}

static void reset_dispositions(bool keep_hup_ignored)
{
	/* sigaction(3) refuses the two signals that the C library keeps to itself, and a starter can have ignored these
	 * as well. A struct sigaction of zeros means SIG_DFL in every architecture's layout, and none is larger than
	 * the C library's. SIGKILL and SIGSTOP fail, and need nothing. */
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	for (int number = 1; number <= SIGNAL_COUNT; number++)
		if (number != SIGHUP || !keep_hup_ignored)
			syscall(SYS_rt_sigaction, number, &action, NULL, SIGNAL_SET_SIZE);
	if (keep_hup_ignored) {
		action.sa_handler = SIG_IGN;
		sigaction(SIGHUP, &action, NULL);
	}
}

static void unblock_all_signals(void)
{
	sigset_t none;

	/* As above: sigprocmask(3) leaves two signals as they are. */
	memset(&none, 0, sizeof(none));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, SIGNAL_SET_SIZE);
}

/* Whether a descriptor that is placed after `target` still has to be copied from `number`. */
static bool needed_later(const struct child_exec *exec, int target, int number)
{
	for (int later = target + 1; later < exec->source_count; later++)
		if (exec->sources[later] == number)
			return true;
	return false;
}

/* A copy above all targets, or -errno. */
static int copy_above(const struct child_exec *exec, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, exec->source_count);

	/* EINVAL: source_count itself is beyond RLIMIT_NOFILE. */
	return copy >= 0 ? copy : errno == EINVAL ? -EMFILE : -errno;
}

/* Whoever stands at `target` and is needed later moves above all targets. One number more at a time is all that this
 * needs, so that a tight RLIMIT_NOFILE is enough for many listeners. */
static int make_way(struct child_exec *exec, int target)
{
	if (!needed_later(exec, target, target))
		return 0;
	int moved = copy_above(exec, target);
	if (moved < 0)
		return moved;
	for (int later = target + 1; later < exec->source_count; later++)
		if (exec->sources[later] == target)
			exec->sources[later] = moved;
	return 0;
}

/* Puts sources[t] at t for all t. Sources may be any numbers, targets among them, in any order and several times. */
static void place_descriptors(struct child_exec *exec)
{
	/* The report must get out, whatever else fails: its pipe goes out of the way first. */
	if (exec->report_fd < exec->source_count) {
		int moved = copy_above(exec, exec->report_fd);
		if (moved < 0)
			fail(exec, CHILD_STEP_PLACE, exec->report_fd, -moved);
		exec->report_fd = moved;
	}
	for (int target = 0; target < exec->source_count; target++) {
		int source = exec->sources[target];

		if (source == target) {
			/* dup2 onto itself would leave close-on-exec as it is. */
			if (fcntl(target, F_SETFD, 0) < 0)
				fail(exec, CHILD_STEP_PLACE, target, errno);
			continue;
		}
		int result = make_way(exec, target);
		if (result < 0)
			fail(exec, CHILD_STEP_PLACE, target, -result);
		if (dup2(source, target) < 0)
			fail(exec, CHILD_STEP_PLACE, target, errno);
		if (source >= exec->source_count && !needed_later(exec, target, source))
			close(source);
	}
}

/* What the plan does not name goes, close-on-exec or not. */
static void close_others(const struct child_exec *exec)
{
	unsigned first = (unsigned)exec->source_count, report = (unsigned)exec->report_fd;

	if (first < report && syscall(SYS_close_range, first, report - 1, 0) < 0)
		fail(exec, CHILD_STEP_CLOSE, 0, errno);
	if (syscall(SYS_close_range, report + 1, ~0U, 0) < 0)
		fail(exec, CHILD_STEP_CLOSE, 0, errno);
}

/* Whether we are this user and group already, so that not being allowed to set groups is no failure. */
static bool is_already(const struct child_limits *limits)
{
	uid_t uids[3];
	gid_t gids[3];

	if (getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
		return false;
	for (int i = 0; i < 3; i++)
		if ((limits->uid != (uid_t)-1 && uids[i] != limits->uid) ||
		    (limits->gid != (gid_t)-1 && gids[i] != limits->gid))
			return false;
	return true;
}

/* Groups first and the user last, since each needs the privileges that the next one gives up. */
static void drop_credentials(const struct child_exec *exec, const struct child_limits *limits)
{
	uid_t old_uid = geteuid();
	gid_t old_gid = getegid();

	if (syscall(SETGROUPS, limits->group_count, limits->groups) < 0 && !(errno == EPERM && is_already(limits)))
		fail(exec, CHILD_STEP_GROUPS, 0, errno);
	if (limits->gid != (gid_t)-1 && syscall(SETRESGID, limits->gid, limits->gid, limits->gid) < 0)
		fail(exec, CHILD_STEP_GID, 0, errno);
	if (limits->uid != (uid_t)-1 && syscall(SETRESUID, limits->uid, limits->uid, limits->uid) < 0)
		fail(exec, CHILD_STEP_UID, 0, errno);
	if (!is_already(limits))
		fail(exec, CHILD_STEP_REGAIN, 0, EPERM);
	/* A capability that survived (securebits, ambient sets) would let the server take back what it should have
	 * lost. Root can always, and nothing was promised. */
	if (geteuid() == 0)
		return;
	if (syscall(SETRESUID, -1, 0, -1) == 0 || (old_uid != geteuid() && syscall(SETRESUID, -1, old_uid, -1) == 0) ||
	    (old_gid != getegid() && syscall(SETRESGID, -1, old_gid, -1) == 0))
		fail(exec, CHILD_STEP_REGAIN, 0, EPERM);
}

static void apply_limits(const struct child_exec *exec, const struct child_limits *limits)
{
	/* Before the privileges go, which raising a hard limit needs. */
	for (size_t i = 0; i < limits->rlimit_count; i++)
		if (setrlimit(limits->rlimits[i].resource, &limits->rlimits[i].limit) < 0)
			fail(exec, CHILD_STEP_RLIMIT, (int)i, errno);
	if (limits->set_user)
		drop_credentials(exec, limits);
	if (limits->set_umask)
		umask(limits->umask);
	if (limits->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail(exec, CHILD_STEP_NO_NEW_PRIVS, 0, errno);
	if (limits->die_with_supervisor) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
			fail(exec, CHILD_STEP_DEATH_SIGNAL, 0, errno);
		/* The supervisor may have died before the call, and then no signal will ever come. */
		if (getppid() != exec->parent) {
			kill(getpid(), SIGKILL);
			_exit(126);
		}
	}
}

/* Writes our pid behind the '=' of LISTEN_PID=; the rest of the slot becomes NULs. */
static void write_listen_pid(char *item)
{
	char digits[LISTEN_PID_ROOM];
	int count = 0;
	char *slot = strchr(item, '=') + 1;

	for (pid_t pid = getpid(); pid > 0; pid /= 10)
		digits[count++] = (char)('0' + pid % 10);
	for (int i = 0; i < LISTEN_PID_ROOM; i++)
		slot[i] = i < count ? digits[count - 1 - i] : '\0';
}

/* execvp(3)'s rules: what stops the search and what does not. */
static bool search_goes_on(int error)
{
	return error == EACCES || error == ENOENT || error == ENOTDIR || error == ESTALE || error == ENODEV ||
	       error == ETIMEDOUT || error == ENAMETOOLONG;
}

static noreturn void exec_candidates(struct child_exec *exec)
{
	const struct child_plan *plan = exec->plan;
	bool searched = !strchr(plan->argv[0], '/'), denied = false, no_interpreter = false;
	int last = ENOENT;

	for (char **candidate = exec->candidates; *candidate; candidate++) {
		execve(*candidate, plan->argv, plan->envp);
		int error = errno;
		if (error == ENOEXEC) {
			exec->shell_argv[1] = *candidate;
			execve(exec->shell_argv[0], exec->shell_argv, plan->envp);
			error = errno;
		}
		if (error == EACCES)
			denied = true;
		if (error == ENOENT && access(*candidate, F_OK) == 0)
			no_interpreter = true;
		if (!search_goes_on(error))
			fail(exec, CHILD_STEP_EXEC, 0, error);
		/* A folder of PATH that is none says nothing about the command. */
		if (!searched || (error != ENOTDIR && error != ENAMETOOLONG))
			last = error;
	}
	/* Of several failures the one that says most about a file that is there. */
	if (denied)
		fail(exec, CHILD_STEP_EXEC, 0, EACCES);
	if (no_interpreter)
		fail(exec, CHILD_STEP_INTERPRETER, 0, ENOENT);
	fail(exec, CHILD_STEP_EXEC, 0, last);
}

noreturn void child_exec_run(struct child_exec *exec)
{
	const struct child_plan *plan = exec->plan;

	/* The parent does the same; whoever comes first, the group is there before either goes on. */
	if (setpgid(0, 0) < 0)
		fail(exec, CHILD_STEP_GROUP, 0, errno);
	reset_dispositions(plan->keep_hup_ignored);
	place_descriptors(exec);
	close_others(exec);
	if (plan->limits)
		apply_limits(exec, plan->limits);
	if (plan->chdir && chdir(plan->chdir) < 0 && !(plan->chdir_may_be_denied && errno == EACCES))
		fail(exec, CHILD_STEP_CHDIR, 0, errno);
	if (plan->listen_pid_index >= 0)
		write_listen_pid(plan->envp[plan->listen_pid_index]);
	/* Last: a signal that came since the fork meets the default dispositions now, as it would in the server. */
	unblock_all_signals();
	exec_candidates(exec);
}
