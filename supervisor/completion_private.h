/* SPDX-License-Identifier: MIT */
/* What the completion scripts of the three shells share. */
#ifndef HANDOFF_COMPLETION_PRIVATE_H
#define HANDOFF_COMPLETION_PRIVATE_H

#include "completion.h"
#include "ctl.h"
#include "options_table.h"

/* A command word that is no client command. */
struct completion_word {
	const char *word, *help;
	bool takes_options; /* those of options_table, and `-- COMMAND` */
};
extern const struct completion_word completion_words[]; /* ends with an empty one */

/* What an option's value is, told from how the help text calls it. */
enum completion_kind {
	COMPLETION_NOTHING,
	COMPLETION_FILE,
	COMPLETION_FOLDER,
	COMPLETION_USER,
	COMPLETION_GROUP,
	COMPLETION_SIGNAL,
	COMPLETION_READY,
};
enum completion_kind completion_kind(const char *value);

/* The values of --ready, and a NULL-terminated list of words, with `between` between them. */
void completion_ready_words(FILE *out, const char *between);
void completion_list(FILE *out, const char *const *words, const char *between);
/* A help text on one line, with a backslash before each of `specials`. */
void completion_help(FILE *out, const char *help, const char *specials);

void completion_bash(FILE *out);
void completion_zsh(FILE *out);
void completion_fish(FILE *out);

#endif
