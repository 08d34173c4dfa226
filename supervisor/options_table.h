/* SPDX-License-Identifier: MIT */
/* The table of options: one row says an option's name, what it takes, what it does, and its help text. */
#ifndef HANDOFF_OPTIONS_TABLE_H
#define HANDOFF_OPTIONS_TABLE_H

#include "options.h"

/* A row. The fields after `apply` are for the generic ones among the apply functions; the others leave them 0. */
struct option_row {
	const char *option; /* "--listen"; the key of a config file is the same without the hyphens */
	char letter;        /* 'l', or 0 */
	const char *value;  /* "SPEC"; NULL for a flag */
	bool repeatable;    /* may be given again, and is an array in a config file; a flag always may be */
	bool no_key;        /* only for the command line */
	bool fixed;         /* holds from start to exit: a config file that is read again cannot change it */
	/* Checks the value (NULL for a flag) and stores it. 0, -EINVAL with a sentence that names the option and the
	 * value, -ENOMEM. */
	int (*apply)(const struct option_row *row, const char *value, struct options *options, struct error *error);
	size_t field;             /* offset in struct options */
	int64_t minimum, maximum; /* of a number; the minimum also of a duration in ms */
	bool none;                /* a duration may be `none` */
	const char *hint;         /* why a duration below the minimum, or `none`, is refused */
	const char *const *words; /* the words to choose from, by the number that is stored */
	const char *section;      /* a heading before this row in the help text, or NULL */
	const char *help;         /* lines after the first one are indented by who prints them */
};

extern const struct option_row options_table[];
extern const size_t options_table_count;

/* "listen" for "--listen". */
const char *option_row_name(const struct option_row *row);

/* What kind of value it takes: in a config file a number, true or false, or a string for the others. */
enum option_kind { OPTION_FLAG, OPTION_NUMBER, OPTION_TIME, OPTION_WORD, OPTION_TEXT };
enum option_kind option_row_kind(const struct option_row *row);

/* The row of a long name of `length` bytes, or NULL. */
const struct option_row *option_row_find(const char *name, size_t length);

/* Whether both have the same value of a `fixed` row. */
bool option_row_same(const struct option_row *row, const struct options *a, const struct options *b);

#endif
