/* SPDX-License-Identifier: MIT */
/* `handoff completion SHELL`: a completion script, made from the tables of options and commands. */
#ifndef HANDOFF_COMPLETION_H
#define HANDOFF_COMPLETION_H

#include <stdio.h>

#include "macro.h"

struct ctl_request;

/* "bash", "zsh", "fish"; NULL-terminated. */
extern const char *const completion_shells[];

/* Writes the script for the shell with this index in completion_shells. */
void completion_write(FILE *out, unsigned shell);

/* The command; its exit status. */
int completion_print(const struct ctl_request *request);

#endif
