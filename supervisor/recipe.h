/* SPDX-License-Identifier: MIT */
/* What generations are started from: the options, and the listeners that they name. Read anew at each hand-off where
 * there is a config file; the new one counts once its generation is active. */
#ifndef HANDOFF_RECIPE_H
#define HANDOFF_RECIPE_H

#include "child.h"
#include "error.h"
#include "listener.h"
#include "options.h"

struct recipe {
	const struct options *options;
	struct options *owned_options; /* NULL where the options are the command line's, which main keeps */
	struct listener_set listeners; /* in the order in which they are passed */
	/* Owned array: item i is still the active recipe's, for this SPEC, until we take its place; NULL: ours. */
	const struct listen_spec **borrowers;
	char **names;         /* owned array of borrowed names, as LISTEN_FDNAMES has them; NULL where unnamed */
	ino_t *stream_inodes; /* owned: socket inodes of the stream listeners */
	size_t stream_count;
	struct child_limits limits; /* points into options and groups */
	gid_t *groups;              /* owned */
};

/* The first one: opens everything that the options name. 0 or -errno with a sentence. */
int recipe_open(const struct options *options, const struct listener_inherited *inherited, struct recipe **ret_recipe,
		struct error *error);

/* Reads the config file again and opens what is new in it; what `active` holds already is borrowed: the same SPEC, or
 * the same address with other options. 0 or -errno with a sentence; then nothing has changed. */
int recipe_reread(const struct options *command_line, const struct recipe *active, struct recipe **ret_recipe,
		  struct error *error);

/* `next` takes the place of `active`: what it borrowed becomes its own, with the options of the new SPEC (backlog,
 * socket options, mode), and the listeners that it does not name are closed, their paths removed. `active` is freed.
 * Tells how many were closed and opened. 0, or -EINVAL with a sentence where an option could not be changed: all else
 * is done. */
int recipe_replace(struct recipe *active, struct recipe *next, size_t *ret_closed, size_t *ret_opened,
		   struct error *error);

/* The active recipe's listeners were closed (a stop): what this one borrowed is not there any more. */
void recipe_forget_borrowed(struct recipe *recipe);

/* Closes what is its own (not what it borrowed), and frees. NULL is fine. */
void recipe_destroy(struct recipe *recipe);

#endif
