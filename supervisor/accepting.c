/* SPDX-License-Identifier: MIT */
/* Looks into a generation's tasks through /proc for a wait that includes the held listeners. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bsd/string.h>

#include "accepting_private.h"
#include "fd.h"
#include "process.h"

/* Bounds on what one look reads of one task: listeners come first in such arrays, and a look must stay cheap. */
#define POLL_ENTRIES_MAX 4096
#define SELECT_BITS_MAX 65536
#define FDS_MAX 1024
#define EPOLL_DEPTH_MAX 5 /* as the kernel: EP_MAX_NESTS in fs/eventpoll.c */

/* Every so many looks, held connections are looked for too. */
#define TAKEN_EVERY 8

#define PATH_ROOM 64
#define BITS_PER_LONG (8 * sizeof(unsigned long))

struct look {
	struct accepting *accepting;
	struct accepting_idle idle[ACCEPTING_IDLE_MAX];
	size_t idle_count;
	bool waits; /* the process being looked at waits on a listener, even if not for long enough yet */
	bool rings; /* … or is blocked in io_uring_enter */
};

struct task {
	pid_t pid, tid;
};

static void task_path(char path[static PATH_ROOM], const struct task *task, const char *what)
{
	snprintf(path, PATH_ROOM, "/proc/%d/task/%d/%s", task->pid, task->tid, what);
}

static void task_fd_path(char path[static PATH_ROOM], const struct task *task, const char *folder, int fd)
{
	snprintf(path, PATH_ROOM, "/proc/%d/task/%d/%s/%d", task->pid, task->tid, folder, fd);
}

/* Reads the start of a proc file: its length, or -errno. */
static ssize_t read_start(const char *path, char *buffer, size_t size)
{
	CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t length = read(fd, buffer, size);
	return length < 0 ? -errno : length;
}

/* Copies from the task's memory. A container's seccomp filter may refuse process_vm_readv (EPERM, ENOSYS) where
 * /proc/PID/mem, under the same access check, still works. Bytes read, or -errno. */
static ssize_t read_memory(const struct task *task, unsigned long address, void *buffer, size_t size)
{
	struct iovec local = {.iov_base = buffer, .iov_len = size};
	struct iovec remote = {.iov_len = size};
	/* A number of another process's address space: only the kernel ever follows it. */
	memcpy(&remote.iov_base, &address, sizeof(address));
	ssize_t length = process_vm_readv(task->tid, &local, 1, &remote, 1, 0);
	if (length >= 0 || (errno != EPERM && errno != ENOSYS))
		return length < 0 ? -errno : length;
	char path[PATH_ROOM];
	task_path(path, task, "mem");
	CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	length = pread(fd, buffer, size, (off_t)address);
	return length < 0 ? -errno : length;
}

static uint64_t bit_of_inode(const struct accepting *accepting, unsigned long inode)
{
	for (size_t i = 0; i < accepting->count; i++) {
		if (accepting->inodes[i] == inode)
			return UINT64_C(1) << i;
	}
	return 0;
}

/* What a descriptor is ("socket:[71]", "anon_inode:[eventpoll]"), or "" where that cannot be told. */
static void fd_link(const struct task *task, int fd, char *link, size_t size)
{
	char path[PATH_ROOM];
	task_fd_path(path, task, "fd", fd);
	ssize_t length = readlink(path, link, size - 1);
	link[length > 0 ? length : 0] = '\0';
}

static bool link_is_epoll(const char *link)
{
	return strcmp(link, "anon_inode:[eventpoll]") == 0;
}

static uint64_t bit_of_link(const struct accepting *accepting, const char *link)
{
	unsigned long inode;
	return sscanf(link, "socket:[%lu]", &inode) == 1 ? bit_of_inode(accepting, inode) : 0;
}

/* The held listeners that are registered for reading in an epoll, or in one nested in it. */
static uint64_t epoll_bits(const struct accepting *accepting, const struct task *task, int epoll_fd, int depth)
{
	char path[PATH_ROOM];
	task_fd_path(path, task, "fdinfo", epoll_fd);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	uint64_t bits = 0;
	/* All anonymous descriptors share one inode, so only a target with the epoll's own can be another epoll. */
	unsigned long own_inode = 0;
	char line[256];
	while (fgets(line, sizeof(line), file)) {
		int target;
		unsigned int events;
		const char *inode_text = strstr(line, " ino:");
		unsigned long inode = inode_text ? strtoul(inode_text + 5, NULL, 16) : 0;
		if (sscanf(line, "ino: %lu", &own_inode) == 1)
			continue;
		if (sscanf(line, "tfd: %d events: %x", &target, &events) != 2 || inode == 0)
			continue;
		/* EPOLLONESHOT that has fired, and a listener that was paused, stay registered without EPOLLIN. */
		if (!(events & EPOLLIN))
			continue;
		bits |= bit_of_inode(accepting, inode);
		char link[64] = "";
		if (inode == own_inode && depth < EPOLL_DEPTH_MAX)
			fd_link(task, target, link, sizeof(link));
		if (link_is_epoll(link))
			bits |= epoll_bits(accepting, task, target, depth + 1);
	}
	fclose(file);
	return bits;
}

/* Event loops wait in epoll during their own start too (for a thread pool, a name server), with the listener already
 * registered: such a wait counts only when the next look finds the same task in it again. */
static uint64_t idle_bits(struct look *look, const struct task *task, int epoll_fd)
{
	const struct accepting *accepting = look->accepting;
	uint64_t bits = epoll_bits(accepting, task, epoll_fd, 1);
	if (bits == 0)
		return 0;
	look->waits = true;
	if (look->idle_count < ACCEPTING_IDLE_MAX)
		look->idle[look->idle_count++] = (struct accepting_idle){.tid = task->tid, .epoll_fd = epoll_fd};
	for (size_t i = 0; i < accepting->idle_count; i++) {
		if (accepting->idle[i].tid == task->tid && accepting->idle[i].epoll_fd == epoll_fd)
			return bits;
	}
	return 0;
}

static uint64_t fd_bits(struct look *look, const struct task *task, int fd)
{
	char link[64];
	fd_link(task, fd, link, sizeof(link));
	if (link_is_epoll(link))
		return idle_bits(look, task, fd);
	uint64_t bits = bit_of_link(look->accepting, link);
	if (bits)
		look->waits = true;
	return bits;
}

static uint64_t poll_bits(struct look *look, const struct task *task, unsigned long address, unsigned long count)
{
	uint64_t bits = 0;
	struct pollfd entries[256];
	if (count > POLL_ENTRIES_MAX)
		count = POLL_ENTRIES_MAX;
	for (unsigned long done = 0; done < count;) {
		size_t wanted = count - done < ARRAY_SIZE(entries) ? count - done : ARRAY_SIZE(entries);
		ssize_t length =
			read_memory(task, address + done * sizeof(entries[0]), entries, wanted * sizeof(entries[0]));
		size_t got = length > 0 ? (size_t)length / sizeof(entries[0]) : 0;
		for (size_t i = 0; i < got; i++) {
			if (entries[i].fd >= 0 && (entries[i].events & (POLLIN | POLLRDNORM)))
				bits |= fd_bits(look, task, entries[i].fd);
		}
		if (got < wanted)
			break;
		done += got;
	}
	return bits;
}

static uint64_t select_bits(struct look *look, const struct task *task, unsigned long count, unsigned long address)
{
	uint64_t bits = 0;
	unsigned long words[SELECT_BITS_MAX / BITS_PER_LONG];
	if (count > SELECT_BITS_MAX)
		count = SELECT_BITS_MAX;
	size_t size = (count + BITS_PER_LONG - 1) / BITS_PER_LONG * sizeof(words[0]);
	/* A wait with no read set at all is a plain sleep. */
	if (address == 0 || read_memory(task, address, words, size) != (ssize_t)size)
		return 0;
	for (unsigned long fd = 0; fd < count; fd++) {
		if (words[fd / BITS_PER_LONG] >> (fd % BITS_PER_LONG) & 1)
			bits |= fd_bits(look, task, (int)fd);
	}
	return bits;
}

/* What the call that a task is blocked in waits for. Which of the numbers exist depends on the architecture. */
static uint64_t call_bits(struct look *look, const struct task *task, long number, const unsigned long arguments[2])
{
	switch (number) {
#ifdef SYS_accept
	case SYS_accept:
#endif
	case SYS_accept4:
		return fd_bits(look, task, (int)arguments[0]);
#ifdef SYS_poll
	case SYS_poll:
#endif
#ifdef SYS_ppoll_time64
	case SYS_ppoll_time64:
#endif
#ifdef SYS_restart_syscall
	/* A poll that was interrupted by a stop goes on under this number, its arguments still in place. */
	case SYS_restart_syscall:
#endif
	case SYS_ppoll:
		return poll_bits(look, task, arguments[0], arguments[1]);
#ifdef SYS_select
	case SYS_select:
#endif
#ifdef SYS__newselect
	case SYS__newselect:
#endif
#ifdef SYS_pselect6_time64
	case SYS_pselect6_time64:
#endif
	case SYS_pselect6:
		return select_bits(look, task, arguments[0], arguments[1]);
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
#ifdef SYS_epoll_pwait2
	case SYS_epoll_pwait2:
#endif
	case SYS_epoll_pwait:
		return idle_bits(look, task, (int)arguments[0]);
#ifdef SYS_io_uring_enter
	case SYS_io_uring_enter:
		look->rings = true;
		return 0;
#endif
	default:
		return 0;
	}
}

static void set_unreadable(struct accepting *accepting, pid_t pid, const char *why)
{
	if (accepting->unreadable_pid != 0)
		return;
	accepting->unreadable_pid = pid;
	strlcpy(accepting->unreadable_why, why, sizeof(accepting->unreadable_why));
}

/* The effective ids of a process, which its status file tells to everybody (its owner on disk is root's where it is not
 * dumpable). */
static bool read_ids(pid_t pid, uid_t *ret_uid, gid_t *ret_gid)
{
	char path[PATH_ROOM], text[2048];
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	ssize_t length = read_start(path, text, sizeof(text) - 1);
	if (length <= 0)
		return false;
	text[length] = '\0';
	const char *uid_line = strstr(text, "\nUid:"), *gid_line = strstr(text, "\nGid:");
	return uid_line && gid_line && sscanf(uid_line, "\nUid: %*u %u", ret_uid) == 1 &&
	       sscanf(gid_line, "\nGid: %*u %u", ret_gid) == 1;
}

/* Says why a process could not be read, unless the task is on its way out: then false. Which of the checks in ptrace(2)
 * failed is not told; those that can be seen from here come first. */
static bool explain(struct accepting *accepting, const struct task *task)
{
	struct process_stat stat;
	uid_t uid;
	gid_t gid;
	char scope;
	if (process_stat(task->tid, &stat) < 0 || stat.state == 'Z' || stat.state == 'X')
		return false;
	if (!read_ids(task->pid, &uid, &gid))
		set_unreadable(accepting, task->pid, strerror(EACCES));
	else if (uid != geteuid())
		set_unreadable(accepting, task->pid, "another user");
	else if (gid != getegid())
		set_unreadable(accepting, task->pid, "another group");
	else if (read_start("/proc/sys/kernel/yama/ptrace_scope", &scope, 1) == 1 && scope >= '2')
		set_unreadable(accepting, task->pid, "kernel.yama.ptrace_scope");
	else
		set_unreadable(accepting, task->pid, "not dumpable");
	return true;
}

/* A /proc without the file that everything hangs on: an old or reduced kernel, a sandbox, or no /proc at all. */
static bool syscall_file_is_missing(void)
{
	return access("/proc/self/syscall", F_OK) < 0;
}

/* What is not in /proc has exited, or is not shown to us. */
static void explain_absent(struct accepting *accepting, pid_t pid)
{
	if (syscall_file_is_missing())
		set_unreadable(accepting, pid, "no /proc/PID/syscall here");
	else if (kill(pid, 0) < 0 && errno == EPERM)
		set_unreadable(accepting, pid, "hidden in /proc");
}

/* Whether a process can be read at all, asked of one of its tasks: 1, 0 with the reason noted, or -1 when this task
 * does not tell (it is exiting, or we are short of descriptors). The first word of the auxiliary vector needs the same
 * access as the rest, is there from exec on, and tells the word size: two 32-bit words packed in one of 64 are no type
 * number. */
static int task_is_readable(struct accepting *accepting, const struct task *task)
{
	char path[PATH_ROOM];
	uint64_t word;
	task_path(path, task, "auxv");
	ssize_t length = read_start(path, (char *)&word, sizeof(word));
	if (length == -EACCES || length == -EPERM)
		return explain(accepting, task) ? 0 : -1;
	if (length != (ssize_t)sizeof(word))
		return -1;
	if (sizeof(long) == 8 && word > UINT32_MAX) {
		set_unreadable(accepting, task->pid, "32-bit");
		return 0;
	}
	return 1;
}

static uint64_t look_at_task(struct look *look, const struct task *task)
{
	char path[PATH_ROOM], text[256];
	task_path(path, task, "syscall");
	ssize_t length = read_start(path, text, sizeof(text) - 1);
	/* This needs PTRACE_MODE_ATTACH, while CAP_PERFMON was enough for the vector. */
	if (length == -EPERM || length == -EACCES)
		explain(look->accepting, task);
	if (length == -ENOENT && syscall_file_is_missing())
		set_unreadable(look->accepting, task->pid, "no /proc/PID/syscall here");
	if (length <= 0)
		return 0;
	text[length] = '\0';
	long number;
	unsigned long arguments[2];
	/* "running" is a task that is not blocked; "-1 …" one that is blocked outside of a call. */
	if (sscanf(text, "%ld %lx %lx", &number, &arguments[0], &arguments[1]) != 3 || number < 0)
		return 0;
	return call_bits(look, task, number, arguments);
}

/* Whether one of the descriptors is an io_uring. */
static bool process_has_ring(pid_t pid)
{
	char path[PATH_ROOM];
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	DIR *folder = opendir(path);
	if (!folder)
		return false;
	bool found = false;
	const struct dirent *entry;
	for (int i = 0; !found && i < FDS_MAX && (entry = readdir(folder)); i++) {
		char link[64];
		ssize_t length = readlinkat(dirfd(folder), entry->d_name, link, sizeof(link) - 1);
		link[length > 0 ? length : 0] = '\0';
		found = strcmp(link, "anon_inode:[io_uring]") == 0;
	}
	closedir(folder);
	return found;
}

static uint64_t look_at_process(struct look *look, pid_t pid)
{
	char path[PATH_ROOM];
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *folder = opendir(path);
	if (!folder) {
		if (errno == ENOENT)
			explain_absent(look->accepting, pid);
		return 0;
	}
	look->waits = look->rings = false;
	uint64_t bits = 0;
	/* Of a leader thread that has exited before its others only a zombie is left, which tells nothing. */
	int readable = -1;
	const struct dirent *entry;
	while (readable != 0 && (entry = readdir(folder))) {
		struct task task = {.pid = pid, .tid = atoi(entry->d_name)};
		if (task.tid <= 0)
			continue;
		if (readable < 0)
			readable = task_is_readable(look->accepting, &task);
		if (readable > 0)
			bits |= look_at_task(look, &task);
	}
	closedir(folder);
	if (readable > 0 && look->accepting->uring_pid == 0 && !look->waits && (look->rings || process_has_ring(pid)))
		look->accepting->uring_pid = pid;
	return bits;
}

void accepting_init(struct accepting *accepting, const ino_t *inodes, size_t count, uint64_t wanted)
{
	if (count > ACCEPTING_MAX)
		count = ACCEPTING_MAX;
	uint64_t all = count == ACCEPTING_MAX ? UINT64_MAX : (UINT64_C(1) << count) - 1;
	*accepting = (struct accepting){.inodes = inodes, .count = count, .wanted = wanted & all};
	if (accepting->wanted == 0)
		accepting->wanted = all;
}

enum accepting_verdict accepting_look(struct accepting *accepting, const pid_t *pids, size_t count)
{
	struct look look = {.accepting = accepting};
	accepting->uring_pid = 0;
	accepting->unreadable_pid = 0;
	for (size_t i = 0; i < count; i++)
		accepting->seen |= look_at_process(&look, pids[i]);
	memcpy(accepting->idle, look.idle, look.idle_count * sizeof(look.idle[0]));
	accepting->idle_count = look.idle_count;

	if (++accepting->looks % TAKEN_EVERY == 0 && accepting->wanted & ~accepting->seen)
		accepting->seen |= accepting_taken(accepting, pids, count);
	if (accepting->wanted != 0 && (accepting->seen & accepting->wanted) == accepting->wanted)
		return ACCEPTING_YES;
	if (accepting->unreadable_pid != 0)
		return ACCEPTING_UNREADABLE;
	return accepting->uring_pid != 0 ? ACCEPTING_URING : ACCEPTING_NOT_YET;
}
