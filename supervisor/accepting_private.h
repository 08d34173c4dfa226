/* SPDX-License-Identifier: MIT */
/* What the parts of the accepting module share. */
#ifndef HANDOFF_ACCEPTING_PRIVATE_H
#define HANDOFF_ACCEPTING_PRIVATE_H

#include "accepting.h"

/* The listeners (a bit each) of which one of the processes holds a connection that was accepted: a socket with the
 * listener's address, found through pidfd_getfd(2) (Linux 5.6, PTRACE_MODE_ATTACH; none where that is refused). Nothing
 * inherits such a descriptor from us, so whoever holds one has called accept. */
uint64_t accepting_taken(const struct accepting *accepting, const pid_t *pids, size_t count);

#endif
