/* SPDX-License-Identifier: MIT */
/* Descriptors: closing, handing over, flags, and reading small files whole. */
#include <assert.h>
#include <bsd/stdlib.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"

/* <linux/close_range.h> is younger than some C libraries that we build with. */
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

int fd_close(int fd)
{
	if (fd >= 0) {
		int saved_errno = errno;
		int result = close(fd);
		/* Closed twice: somebody else's descriptor may go next time. EINTR needs no retry, close(2) on Linux
		 * has let go of it. */
		assert(result == 0 || errno != EBADF);
		(void)result;
		errno = saved_errno;
	}
	return -1;
}

void fd_closep(int *fd)
{
	*fd = fd_close(*fd);
}

int fd_steal(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

void freep(void *pointer)
{
	void *memory;

	/* Copied, since the variable may be a pointer to any type. */
	memcpy(&memory, pointer, sizeof(memory));
	free(memory);
}

int fd_set_cloexec(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0)
		return -errno;
	int wanted = on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC;
	if (wanted != flags && fcntl(fd, F_SETFD, wanted) < 0)
		return -errno;
	return 0;
}

int fd_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	if (wanted != flags && fcntl(fd, F_SETFL, wanted) < 0)
		return -errno;
	return 0;
}

int fd_guard_stdio(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		/* Not close-on-exec: a server expects its standard streams to be open. The lowest free number is this
		 * one, since those below are open by now. */
		int opened = open("/dev/null", O_RDWR | O_NOCTTY);
		if (opened < 0)
			return -errno;
		assert(opened == fd);
	}
	return 0;
}

static void closedirp(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* Calls `visit` for every open descriptor but the one used for looking. Count or -errno. */
static int each_open_fd(int (*visit)(int fd, int first), int first)
{
	CLEANUP(closedirp) DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	if (!dir)
		return -errno;
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			return errno ? -errno : count;
		char *end;
		long fd = strtol(entry->d_name, &end, 10);
		if (end == entry->d_name || *end || fd == dirfd(dir))
			continue;
		int result = visit ? visit((int)fd, first) : 0;
		if (result < 0)
			return result;
		count++;
	}
}

static int set_cloexec_from(int fd, int first)
{
	return fd < first ? 0 : fd_set_cloexec(fd, true);
}

int fd_cloexec_from(int first)
{
	assert(first >= 0);
#ifdef SYS_close_range
	if (syscall(SYS_close_range, (unsigned)first, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
		return 0;
#endif
	/* Any error, not ENOSYS alone: Linux 5.9 knows the call but not the flag, and seccomp filters of older
	 * container runtimes answer EPERM. */
	int count = each_open_fd(set_cloexec_from, first);
	return count < 0 ? count : 0;
}

int fd_count_open(void)
{
	return each_open_fd(NULL, 0);
}

int fd_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_length)
{
	/* O_NONBLOCK, because opening a FIFO for reading otherwise waits for its writer. */
	CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	CLEANUP(freep) char *text = NULL;
	size_t size = 0, length = 0;
	struct stat status;

	assert(limit < SIZE_MAX / 4);
	if (fd < 0 || fstat(fd, &status) < 0)
		return errno == ENXIO ? -EINVAL : -errno; /* ENXIO: a unix socket */
	if (S_ISDIR(status.st_mode))
		return -EISDIR;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	for (;;) {
		/* st_size says nothing about proc files, and a file may grow while it is read: read until the end. */
		if (length + 1 >= size) {
			size = size ? size * 2 : 4096;
			char *grown = reallocarray(text, size, 1);
			if (!grown)
				return -ENOMEM;
			text = grown;
		}
		ssize_t count = read(fd, text + length, size - length - 1);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		if (count == 0)
			break;
		length += (size_t)count;
		if (length > limit)
			return -EFBIG;
	}
	text[length] = '\0';
	*ret_text = text;
	*ret_length = length;
	text = NULL;
	return 0;
}
