/* SPDX-License-Identifier: MIT */
/* One sentence about what went wrong, filled by leaf modules and printed once by main or the driver. */
#ifndef HANDOFF_ERROR_H
#define HANDOFF_ERROR_H

#include "macro.h"

/* Long enough for a path and a reason; a longer text is cut at the end. No newline, no final stop. */
struct error {
	char text[768];
};

/* Writes the sentence and returns `code` (a negative errno), so that `return error_set(error, -EINVAL, …)` reads
 * well. Bytes of the text that are not printable ASCII or valid UTF-8 are shown as \xNN, so that bad input can be
 * named safely. `error` may be NULL: then only the code is returned. Never allocates. */
int error_set(struct error *error, int code, const char *format, ...) PRINTF_LIKE(3, 4);

/* Copies `text` to `ret`, with what is not printable (control characters, broken UTF-8) shown as \xNN; cut, at a
 * character's end, where `size` is too small. Always terminated. Returns `ret`. */
char *error_printable(char *ret, size_t size, const char *text, size_t length);

#endif
