/* SPDX-License-Identifier: MIT */
/* The pid file: locked until we exit, never seen empty, removed only by its owner. */
#include <bsd/libutil.h>
#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "pidfile.h"

/* How long a lock on a file with a dead pid is taken for another start in its few system calls. */
#define TURN_MS 500

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The pid that the file holds, or -EINVAL where it holds anything else: digits, then at most white space. */
static int64_t read_pid(int fd)
{
	char text[32];
	ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
	char *end;

	if (length < 0)
		return -errno;
	text[length] = '\0';
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	long pid = strtol(text, &end, 10);
	while (isspace((unsigned char)*end))
		end++;
	if (errno || pid < 1 || pid > INT_MAX || end != text + length || (size_t)length == sizeof(text) - 1)
		return -EINVAL;
	return pid;
}

static int refuse_content(const char *path, struct error *error)
{
	return error_set(error, -EINVAL, "pid file %s holds something other than a pid, and is left alone", path);
}

static int refuse_kind(const char *path, struct error *error)
{
	return error_set(error, -EINVAL, "pid file %s is not a regular file, and is left alone", path);
}

/* The sentence for a locked file. -EEXIST, or -EAGAIN where its pid is not alive: then the lock is probably that of
 * another start which is replacing it now. */
static int refuse_owner(const char *path, int64_t pid, struct error *error)
{
	if (pid < 0)
		return refuse_content(path, error);
	/* EPERM is a life sign too. */
	if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
		return error_set(error, -EAGAIN, "pid file %s is locked by another process (its pid %d is not alive)",
				 path, (int)pid);
	return error_set(error, -EEXIST, "pid file %s belongs to a running process, pid %d", path, (int)pid);
}

/* Locks the file that is at `path` now, and sees that it is a stale pid file. The descriptor that holds the lock,
 * -ENOENT where there is no file, -EAGAIN as in refuse_owner, or another -errno. */
static int lock_stale(const char *path, struct error *error)
{
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(fd_closep) int look_fd = -1;
	struct stat status;
	int64_t pid;

	/* Looked at before it is opened: opening a device may do things. */
	if (lstat(path, &status) == 0 && !S_ISREG(status.st_mode))
		return refuse_kind(path, error);
	/* flopen locks, then sees whether the path still leads to what it locked. */
	fd = flopen(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EWOULDBLOCK) {
		look_fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
		if (look_fd >= 0)
			return refuse_owner(path, read_pid(look_fd), error);
	}
	if (fd < 0 || fstat(fd, &status) < 0) {
		int code = -errno;
		if (code == -ELOOP || code == -ENXIO)
			return refuse_kind(path, error);
		return error_set(error, code, "cannot open pid file %s: %s", path, strerror(-code));
	}
	if (!S_ISREG(status.st_mode))
		return refuse_kind(path, error);
	pid = read_pid(fd);
	if (pid < 0)
		return refuse_content(path, error);
	return fd_steal(&fd);
}

/* Puts the finished, locked file at `temporary_path` in its place. 0 or -errno; the temporary name is gone after
 * success. */
static int put_in_place(const char *temporary_path, const char *path, struct error *error)
{
	int64_t deadline_ms = now_ms() + TURN_MS;

	for (;;) {
		/* Where there is no file yet: link(2) fails if another start was faster. */
		if (link(temporary_path, path) == 0) {
			unlink(temporary_path);
			return 0;
		}
		int code = -errno;
		if (code != -EEXIST)
			return error_set(error, code, "cannot create pid file %s: %s", path, strerror(-code));
		/* A stale one stays locked until ours has taken its name: whoever else wants to replace it fails to
		 * lock it, or locks it too late and sees that the path leads elsewhere. */
		CLEANUP(fd_closep) int stale_fd = lock_stale(path, error);
		if (stale_fd >= 0) {
			if (rename(temporary_path, path) == 0)
				return 0;
			code = -errno;
			return error_set(error, code, "cannot replace pid file %s: %s", path, strerror(-code));
		}
		code = stale_fd;
		if ((code != -EAGAIN && code != -ENOENT) || now_ms() >= deadline_ms)
			return code == -EAGAIN ? -EEXIST : code;
		/* Its owner removed it just now, or another start is about to replace it. */
		sched_yield();
	}
}

/* The path from the root, since the working directory may change before the file is removed. NULL: errno. */
static char *absolute_path(const char *path)
{
	CLEANUP(freep) char *directory = NULL;
	char *absolute;

	if (path[0] == '/')
		return strdup(path);
	directory = getcwd(NULL, 0);
	if (!directory || asprintf(&absolute, "%s/%s", directory, path) < 0)
		return NULL;
	return absolute;
}

/* A locked file with our pid beside `path`, under a name that nobody else uses. The descriptor or -errno. */
static int create_temporary(const char *path, char **ret_temporary_path, struct error *error)
{
	CLEANUP(freep) char *temporary_path = NULL;
	CLEANUP(fd_closep) int fd = -1;

	if (asprintf(&temporary_path, "%s.%08x", path, (unsigned)arc4random()) < 0) {
		temporary_path = NULL;
		return error_set(error, -ENOMEM, "cannot create pid file %s: no memory", path);
	}
	fd = flopen(temporary_path, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, 0644);
	if (fd < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
		int code = -errno;
		if (fd >= 0)
			unlink(temporary_path);
		return error_set(error, code, "cannot create pid file %s: %s", path, strerror(-code));
	}
	*ret_temporary_path = temporary_path;
	temporary_path = NULL;
	return fd_steal(&fd);
}

int pidfile_create(struct pidfile *ret_pidfile, const char *path, struct error *error)
{
	CLEANUP(freep) char *absolute = absolute_path(path);
	CLEANUP(freep) char *temporary_path = NULL;
	CLEANUP(fd_closep) int fd = -1;

	if (!absolute) {
		int code = -errno;
		return error_set(error, code, "cannot create pid file %s: %s", path, strerror(-code));
	}
	int result = create_temporary(absolute, &temporary_path, error);
	if (result < 0)
		return result;
	fd = result;
	result = put_in_place(temporary_path, absolute, error);
	if (result < 0) {
		unlink(temporary_path);
		return result;
	}
	ret_pidfile->path = absolute;
	absolute = NULL;
	ret_pidfile->fd = fd_steal(&fd);
	return 0;
}

int pidfile_check(const char *path, struct error *error)
{
	/* The sentences are those of a start. */
	CLEANUP(freep) char *absolute = absolute_path(path);
	CLEANUP(freep) char *directory = absolute ? strdup(absolute) : NULL;

	if (!directory)
		return error_set(error, -ENOMEM, "cannot check pid file %s: no memory", path);
	path = absolute;
	int result = lock_stale(path, error);
	if (result == -ENOTDIR)
		return error_set(error, result, "cannot create pid file %s: %s", path, strerror(-result));
	if (result < 0 && result != -ENOENT)
		return result == -EAGAIN ? -EEXIST : result;
	fd_close(result);
	if (access(dirname(directory), W_OK | X_OK) < 0) {
		int code = -errno;
		return error_set(error, code, "cannot create pid file %s: %s", path, strerror(-code));
	}
	return 0;
}

void pidfile_finish(struct pidfile *pidfile)
{
	struct stat at_path, ours;

	/* Whoever replaces a pid file of ours by our rules must lock it first: so what is seen here stays true. */
	if (pidfile->path && fstat(pidfile->fd, &ours) == 0 && lstat(pidfile->path, &at_path) == 0 &&
	    at_path.st_dev == ours.st_dev && at_path.st_ino == ours.st_ino)
		unlink(pidfile->path);
	if (pidfile->path)
		pidfile->fd = fd_close(pidfile->fd);
	free(pidfile->path);
	pidfile->path = NULL;
}
