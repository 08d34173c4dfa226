/* SPDX-License-Identifier: MIT */
/* The client side of `handoff`: reload, status, stop, list and completion. */
#ifndef HANDOFF_CTL_H
#define HANDOFF_CTL_H

#include "error.h"

struct ctl_request; /* ctl_private.h */

/* An option of a client command. */
struct ctl_option {
	const char *option; /* "--wait" */
	const char *value;  /* "T"; NULL for a flag */
	const char *help;   /* one line */
	size_t flag;        /* of a flag: which bool in struct ctl_request */
	/* NULL for a flag. Checks and stores the value; 0, or a negative errno with a sentence. */
	int (*apply)(struct ctl_request *request, const char *value, struct error *error);
};

/* A client command. */
struct ctl_command {
	const char *word;
	const char *help;                              /* one line */
	const struct ctl_option *options;              /* ends with an empty one */
	const char *operand;                           /* "NAME" or "SHELL", or NULL */
	const char *const *operand_words;              /* what it may be; NULL: anything */
	bool takes_command;                            /* `-- COMMAND [ARG...]` may follow */
	int (*run)(const struct ctl_request *request); /* the exit status */
};

/* All of them, for completion. */
extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;

/* Whether `word` (argv[1]; NULL is fine) is a client command. */
bool ctl_is_command(const char *word);

/* Runs the client command argv[1] and returns the exit status (handoff(1), "EXIT STATUS"): prints its results to
 * standard output and what went wrong, in one sentence, to standard error. To be called with the signal mask that the
 * process was started with, and with descriptors 0 to 2 open. Never waits longer than 10 s for a plain answer. */
int ctl_main(int argc, char **argv);

#endif
