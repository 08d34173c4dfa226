/* SPDX-License-Identifier: MIT */
/* What the options' own files and config.c share: defaults, what must hold between options, and the setters. */
#ifndef HANDOFF_OPTIONS_PRIVATE_H
#define HANDOFF_OPTIONS_PRIVATE_H

#include "options_table.h"

/* ---- options_complete.c ---- */

void options_set_defaults(struct options *options);
/* Once every source of values was applied: fills in what depends on others, and checks what must hold between them.
 * 0, -EINVAL with a sentence, -ENOMEM. */
int options_complete(struct options *options, struct error *error);

/* ---- options_apply.c: setters for `apply` of struct option_row ---- */

int options_out_of_memory(const struct option_row *row, struct error *error);
void *options_field(const struct option_row *row, struct options *options);

int options_apply_path(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_list(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_listen(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_name(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_config(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_ready(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_drain_signal(const struct option_row *row, const char *value, struct options *options,
			       struct error *error);
int options_apply_signal(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_control(const struct option_row *row, const char *value, struct options *options,
			  struct error *error);
int options_apply_compat(const struct option_row *row, const char *value, struct options *options, struct error *error);

/* ---- options_server.c: the same, for what the server runs as ---- */

int options_apply_env(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_user(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_group(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_umask(const struct option_row *row, const char *value, struct options *options, struct error *error);
int options_apply_rlimit(const struct option_row *row, const char *value, struct options *options, struct error *error);

#endif
