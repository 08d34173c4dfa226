/* SPDX-License-Identifier: MIT */
/* JSON with comments, read so that every complaint and every value can be given a line. */
#ifndef HANDOFF_CONFIG_JSON_H
#define HANDOFF_CONFIG_JSON_H

#include <cjson/cJSON.h>

#include "error.h"

/* Parses `text`, zero-terminated after `length` bytes, whose comments (from `//` to the end of the line, and between
 * slash-star and star-slash) are overwritten with blanks. Refused beside what is no JSON: a comma after the last item,
 * a NUL character, a string that goes on in the next line. 0 with a root on the heap (cJSON_Delete), which may be of
 * any type; -EINVAL with a sentence that begins with "line N: "; -ENOMEM is not told from it. */
int config_json_parse(char *text, size_t length, cJSON **ret_root, struct error *error);

/* Where a value of the root object begins, for a text that config_json_parse took: the line, from 1, of the `member`-th
 * key, or, with an `element` that is not negative, of that element of the array which is the member's value. */
size_t config_json_line(const char *text, int member, int element);

#endif
