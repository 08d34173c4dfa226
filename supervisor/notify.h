/* SPDX-License-Identifier: MIT */
/* What we tell our own manager: sd_notify(3) datagrams, and s6's newline on a descriptor. */
#ifndef HANDOFF_NOTIFY_H
#define HANDOFF_NOTIFY_H

#include "error.h"

struct notify {
	int fd;              /* a datagram socket connected to NOTIFY_SOCKET, owned; -1 when there is none */
	int newline_fd;      /* --notify-fd, owned from init; -1 when there is none or the newline was sent */
	int64_t watchdog_ms; /* half of WATCHDOG_USEC, where WATCHDOG_PID is us or absent; -1 when not asked for */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID from our environment. A NOTIFY_SOCKET that cannot be used is not
 * fatal: error is filled, -errno returned, and the calls below leave it out (the newline still works). `newline_fd` is
 * -1 or an open descriptor above 2 (else -EBADF, and nothing is owned), which becomes close-on-exec. notify_finish is
 * safe after any result. */
int notify_init(struct notify *notify, int newline_fd, struct error *error);
void notify_finish(struct notify *notify);
/* Sends one datagram without ever blocking (MSG_DONTWAIT, MSG_NOSIGNAL); a full queue or a vanished manager loses it: 0
 * or -errno, for a debug log. */
int notify_ready(struct notify *notify);     /* READY=1, and s6's newline the first time (then closed) */
int notify_reloading(struct notify *notify); /* RELOADING=1 with MONOTONIC_USEC= (systemd 253+ needs it) */
int notify_stopping(struct notify *notify);
int notify_watchdog(struct notify *notify);
int notify_status(struct notify *notify, const char *text);
int notify_extend(struct notify *notify, uint64_t usec); /* EXTEND_TIMEOUT_USEC= */

#endif
