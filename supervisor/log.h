/* SPDX-License-Identifier: MIT */
/* The log on stderr: text or JSON lines, with journal priorities where stderr is the journal; never blocks. */
#ifndef HANDOFF_LOG_H
#define HANDOFF_LOG_H

#include "macro.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Sets format, level and the name in each line (copied). Before this call lines go out as text at level info, with
 * "handoff" alone as their prefix. Looks once whether JOURNAL_STREAM (sd-daemon(3): "dev:inode") names fd 2; then
 * text lines begin with "<3>", "<4>", "<6>", "<7>" (sd-daemon(3)). */
void log_init(enum log_format format, enum log_level level, const char *name);

/* Follows a change of the name (the driver learns a derived name late). */
void log_set_name(const char *name);

/* Whether lines of this level are written at all: for callers with costly arguments. */
bool log_enabled(enum log_level level);

/* One line. Text: `handoff: NAME: MESSAGE`, and with a generation (not 0) `handoff: NAME: [gen 7] MESSAGE`; level
 * error and warning are marked `error: ` and `warning: ` before the message. JSON: one object with "time" (RFC 3339,
 * UTC, milliseconds), "level", "name", "generation" (only if not 0), "message". Control characters and broken UTF-8
 * in the message are shown as \xNN. A line is cut to PIPE_BUF, so that it is written whole; if stderr cannot take
 * it now (poll(2) says so: full pipe, stopped terminal), it is dropped and counted, and the next line that fits is
 * preceded by `N log lines were dropped: stderr was full`. Write errors (ENOSPC, EPIPE) are ignored. The file status
 * flags of fd 2 are never changed: others share them. */
void log_line(enum log_level level, unsigned generation, const char *format, ...) PRINTF_LIKE(3, 4);

#define log_error(...) log_line(LOG_LEVEL_ERROR, 0, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, 0, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, 0, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, 0, __VA_ARGS__)

#endif
