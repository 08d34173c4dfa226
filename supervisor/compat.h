/* SPDX-License-Identifier: MIT */
/* --compat: the variables of other supervisors, for servers that were written for those. */
#ifndef HANDOFF_COMPAT_H
#define HANDOFF_COMPAT_H

#include "env.h"
#include "listener.h"

/* Adds what the wanted protocols (bits of enum options_compat) pass in the environment: SERVER_STARTER_PORT
 * ("127.0.0.1:80=3;/run/a.sock=4", Server::Starter(3pm)) and SERVER_STARTER_GENERATION; EINHORN_FD_COUNT, EINHORN_FD_0
 * … and EINHORN_SOCK_PATH (einhorn's "Client"), where `einhorn_path` is not NULL; FORKED_SERVER. Descriptors begin at
 * `first_fd`. COMPAT_NO_LISTEN_PID takes LISTEN_PID out. 0 or -ENOMEM. */
int compat_environment(struct env *env, unsigned compat, const struct listener_set *listeners, int first_fd,
		       uint32_t generation, const char *einhorn_path);

/* Whether a line from a client of einhorn's socket says that a worker is ready: {"command":"worker:ack","pid":N} as
 * JSON, or what einhorn's own client sends (YAML with newlines and percent signs as %0A and %25). Who sent it is for
 * the caller to find out. */
bool compat_is_ack(const char *line);

#endif
