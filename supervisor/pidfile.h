/* SPDX-License-Identifier: MIT */
/* The pid file: locked until we exit, never seen empty, removed only by its owner. */
#ifndef HANDOFF_PIDFILE_H
#define HANDOFF_PIDFILE_H

#include "error.h"

struct pidfile {
	char *path; /* owned, absolute; NULL when there is none */
	int fd;     /* owned, holds the lock (flock, through libbsd's flopen) */
};

/* Makes the file with our pid and a newline, complete from the moment it is seen (written beside it, locked, then
 * linked or renamed into place; a stale file is held locked while it is replaced, so of two starters one wins). A live
 * owner is -EEXIST with its pid in the sentence; a file that holds anything but a pid, or is no regular file, is
 * refused and left alone (-EINVAL). 0 or -errno. */
int pidfile_create(struct pidfile *ret_pidfile, const char *path, struct error *error);
/* Like create, but only looks; for `handoff check`. */
int pidfile_check(const char *path, struct error *error);
/* Removes it if it is still the file we made, and unlocks. */
void pidfile_finish(struct pidfile *pidfile);

#endif
