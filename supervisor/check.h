/* SPDX-License-Identifier: MIT */
/* `handoff check`: would `handoff run` with these options begin? Starts nothing and leaves nothing behind. */
#ifndef HANDOFF_CHECK_H
#define HANDOFF_CHECK_H

#include "error.h"
#include "listener.h"
#include "options.h"

/* Addresses, pid file, environment files, working directory, and the command (found and executable), in the order in
 * which `run` would meet them. 0, or -errno with the sentence that `run` would print. */
int check_options(const struct options *options, const struct listener_inherited *inherited, struct error *error);

#endif
