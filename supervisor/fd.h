/* SPDX-License-Identifier: MIT */
/* Descriptors: closing, handing over, flags, and reading small files whole. */
#ifndef HANDOFF_FD_H
#define HANDOFF_FD_H

#include <sys/types.h>

#include "macro.h"

/* Closes `fd` if it is one; leaves errno alone; returns -1, for `fd = fd_close(fd)`. */
int fd_close(int fd);

/* For CLEANUP(fd_closep): closes what the variable still holds. */
void fd_closep(int *fd);

/* Gives the descriptor away: returns it and leaves -1 behind. */
int fd_steal(int *fd);

/* For CLEANUP(freep) on any pointer to heap memory. */
void freep(void *pointer);

/* Sets or clears FD_CLOEXEC, which belongs to the descriptor alone (fcntl(2)). 0 or -errno. */
int fd_set_cloexec(int fd, bool on);

/* Sets or clears O_NONBLOCK, which belongs to the open file description: all holders see it. Only for descriptors
 * that nobody else shares, and for a listener at bind. 0 or -errno. */
int fd_set_nonblock(int fd, bool on);

/* Opens /dev/null on each of 0, 1, 2 that is closed, so that no later descriptor lands there. 0 or -errno. */
int fd_guard_stdio(void);

/* Sets FD_CLOEXEC on every open descriptor from `first` up (close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11;
 * /proc/self/fd before that). 0 or -errno. */
int fd_cloexec_from(int first);

/* Reads a whole small file (proc, pid files, environment files) into fresh heap memory, zero-terminated after its
 * `*ret_length` bytes. -EFBIG when it has more than `limit` bytes, -EISDIR for a directory; a FIFO or device is never
 * waited for (O_NONBLOCK; not a regular file: -EINVAL, but proc files count as regular). 0 or -errno. */
int fd_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_length);

/* How many descriptors this process has open, without the one used for counting. Count or -errno. */
int fd_count_open(void);

#endif
