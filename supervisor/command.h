/* SPDX-License-Identifier: MIT */
/* What a server is started with: its arguments with the {fd} words replaced, its environment, its folder. */
#ifndef HANDOFF_COMMAND_H
#define HANDOFF_COMMAND_H

#include "env.h"
#include "error.h"
#include "options.h"

/* The first descriptor that is passed (sd_listen_fds(3): SD_LISTEN_FDS_START). */
#define COMMAND_FIRST_FD 3

/* Copies the arguments with `{fd}`, `{fd:NAME}` and `{ready-fd}` replaced by numbers: listeners are COMMAND_FIRST_FD
 * and up, in the order of `names` (an item is NULL where it is unnamed), the ready pipe comes after them. Other words
 * in braces stay. 0 with a NULL-terminated array on the heap (command_free), -EINVAL where a word names no listener,
 * -ENOMEM. */
int command_expand(char *const *command, char *const *names, size_t count, char ***ret_argv, struct error *error);
void command_free(char **argv);

/* What the user said about the environment, read anew: `base` (already clean), then USER, LOGNAME and HOME of --user,
 * then
 * --env-dir,
 * --env-file and --env in that order, a later one wins. 0 or -errno with a sentence. */
int command_environment(const struct options *options, char *const *base, struct env *ret_env, struct error *error);

/* Adds LISTEN_FDS, LISTEN_FDNAMES and room for LISTEN_PID (see struct child_plan). Nothing where there are no
 * listeners. */
int command_add_listeners(struct env *env, char *const *names, size_t count);

/* The folder that --chdir means, seen from `start_directory`; on the heap, NULL when out of memory. */
char *command_directory(const struct options *options, const char *start_directory);

/* The working directory as the user sees it ($PWD of `environment`, through symbolic links, where it is right), so that
 * a link that moves is followed later; on the heap, NULL with errno. */
char *command_start_directory(char *const *environment);

#endif
