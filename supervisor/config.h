/* SPDX-License-Identifier: MIT */
/* The config file of `-c FILE`: JSON with comments, whose keys are the options of `run`. */
#ifndef HANDOFF_CONFIG_H
#define HANDOFF_CONFIG_H

#include "error.h"
#include "options.h"

/* Reads the file anew and makes fresh options of it: what the command line gave goes before what the file says, and for
 * an option that may be repeated takes the place of the file's whole list; the command too. `command_line` is what
 * options_parse or an earlier call here made; it is only read. Blocks for as long as the disk does, never for a FIFO.
 *
 * 0 with *ret_options filled (options_finish), which borrows from the same argv as `command_line` but from nothing else
 * of it. -EINVAL with one sentence that names the file, and the line and key where there is one; -ENOENT and other
 * -errno where the file cannot be read; -EFBIG above 1 MiB; -ENOMEM. */
int config_load(const char *path, const struct options *command_line, struct options *ret_options, struct error *error);

#endif
