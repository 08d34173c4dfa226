/* SPDX-License-Identifier: MIT */
/* The driver: turns what the loop sees into events of the pure machine, and the machine's actions into calls. */
#ifndef HANDOFF_DRIVER_H
#define HANDOFF_DRIVER_H

#include "control_place.h"
#include "error.h"
#include "notify.h"
#include "recipe.h"

struct driver_setup {
	struct recipe *recipe;       /* taken over */
	struct notify *notify;       /* borrowed, as the rest */
	struct control_place *place; /* NULL: no control socket */
	char *const *environment;    /* ours at start, untouched */
};

/* Supervises until every generation is gone. Needs the signals of the options' table blocked already
 * (driver_block_signals), so that none is lost before the loop runs. Returns the exit status of the contract (0 to
 * 255), or -errno with a sentence when it could not begin. */
int driver_run(const struct driver_setup *setup, struct error *error);

/* Blocks exactly the signals that the table gives a meaning, and SIGCHLD. Leaves out those that were ignored at start
 * and must stay so (HUP under nohup: its rule becomes SIGNAL_ACTION_UNUSED). 0 or -errno. */
int driver_block_signals(struct options *options, struct error *error);

#endif
