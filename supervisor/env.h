/* SPDX-License-Identifier: MIT */
/* The environment of a generation: a clean copy of ours, env folders and files read anew, and what we pass. */
#ifndef HANDOFF_ENV_H
#define HANDOFF_ENV_H

#include <sys/types.h>

#include "error.h"

/* An environment being built: NAME=VALUE strings, owned; NULL-terminated, so `items` can go to execve. A name
 * stands in it once. */
struct env {
	char **items;
	size_t count;
	size_t capacity;
};

void env_finish(struct env *env);
/* Copies `source` (an environ) without what must never pass through: LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES,
 * LISTEN_PIDFDID and every other LISTEN_*, NOTIFY_SOCKET, WATCHDOG_*, SERVER_STARTER_*, EINHORN_*, HANDOFF_*,
 * FORKED_SERVER; nor what is no NAME=VALUE. Of a name that stands there twice the first is taken, as getenv(3) does.
 * 0 or -ENOMEM. */
int env_copy_clean(struct env *ret_env, char *const *source);
/* Copies all of it but what is no NAME=VALUE or stands there again. 0 or -ENOMEM. */
int env_copy(struct env *ret_env, char *const *source);
/* Adds or replaces. 0, -ENOMEM. */
int env_set(struct env *env, const char *name, const char *value);
int env_set_number(struct env *env, const char *name, long long value);
void env_unset(struct env *env, const char *name);
/* NULL when it is not there. Owned by env. */
const char *env_get(const struct env *env, const char *name);
/* Where `name` stands in items (for child_plan's listen_pid_index), -1 when it is not there. Stays so until the next
 * env_unset. */
ssize_t env_index(const struct env *env, const char *name);
/* Whether a user may not set it: the list above, but of LISTEN_* only the four that are named there. */
bool env_is_reserved(const char *name);
/* Whether the bytes are [A-Za-z_][A-Za-z0-9_]*. */
bool env_is_name(const char *name, size_t length);

/* `K=V` from --env: K is [A-Za-z_][A-Za-z0-9_]*, not one that we set ourselves or strip (then -EINVAL with a sentence).
 * Without '=' -EINVAL. */
int env_check_pair(const char *what, const char *pair, struct error *error);

/* Applies a file of `NAME=VALUE` lines (--env-file): blank lines and lines that begin with # or ; are skipped, `export
 * ` before the name is allowed, white space around the name and the value goes; a value in '…' is literal, in "…" has
 * \" \\ \n \$ \` and may go on over lines (both kinds); everything else is literal. The last of several lines with one
 * name wins. `what` names the option. Sentences never show a value, which may be a secret. At most 1 MiB. A malformed
 * line, a reserved name, a NUL byte, an unreadable or missing file is -EINVAL / -errno with a sentence that names file
 * and line; then env may be half changed. */
int env_read_file(struct env *env, const char *what, const char *path, struct error *error);
/* Applies a folder in the way of envdir(8) and s6-envdir: a file's name is the variable, its first line the value
 * (trailing spaces and tabs removed, NUL becomes newline), an empty file removes the variable; names beginning with '.'
 * are skipped; a name with '=' or a reserved one is an error. */
int env_read_dir(struct env *env, const char *what, const char *path, struct error *error);

#endif
