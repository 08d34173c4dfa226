/* SPDX-License-Identifier: MIT */
/* How many open connections from the held listeners do the processes of a generation still have? */
#ifndef HANDOFF_CONNECTIONS_H
#define HANDOFF_CONNECTIONS_H

#include <sys/types.h>

#include "listener.h"
#include "macro.h"

/* Counts the sockets that at least one of `pids` holds (/proc/PID/fd), each once, however many hold it, and that are
 * - TCP, with the port of one of the listeners as their local one, in any state but LISTEN, CLOSE and TIME_WAIT: one
 *   whose peer has closed counts until the server closes it;
 * - unix stream or seqpacket, connected, with the name of one of the listeners (accepted sockets bear it).
 * What waits in a listener's queue is held by nobody yet and does not count; datagram listeners have no connections.
 *
 * The sockets' states come from sock_diag(7) where we were built with libmnl and the kernel answers, else from
 * /proc/net; it is a snapshot of a moving world either way. Processes that are gone, exiting or not reaped count as
 * holding nothing. Never waits for anything; 10,000 connections take some 50 ms, nearly all of it the kernel's time in
 * /proc/PID/fd, so not to be called more often than somebody asks.
 *
 * -1, it cannot be counted: a process that exists may not be read (another user's without CAP_SYS_PTRACE, not dumpable,
 * /proc with hidepid=, no /proc), the processes have more than CONNECTIONS_MAX descriptors, a listener is of another
 * network namespace (a service with PrivateNetwork= that systemd passed it to) or neither plain TCP nor unix (MPTCP),
 * or there is no memory. errno is not kept. */
int64_t connections_count(const pid_t *pids, size_t count, const struct listener_set *listeners);

/* More descriptors than that would take more than half a second, and a supervisor has signals to answer. */
#define CONNECTIONS_MAX 131072

#endif
