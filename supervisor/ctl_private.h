/* SPDX-License-Identifier: MIT */
/* What the client's files share: the parsed request, the connection, and how messages read. */
#ifndef HANDOFF_CTL_PRIVATE_H
#define HANDOFF_CTL_PRIVATE_H

#include <signal.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "control_place.h"
#include "ctl.h"

/* How long a supervisor may take to accept us, and for every plain answer. */
#define CTL_ANSWER_MS 10000
/* Bytes of a line from a supervisor. */
#define CTL_LINE_MAX 1048576

enum ctl_status {
	CTL_OK = 0,
	CTL_FAILED = 1,  /* the hand-off failed, the old generation still serves */
	CTL_USAGE = 2,   /* also: several supervisors, and none was named */
	CTL_TIMEOUT = 3, /* it did not answer, or --timeout passed */
	CTL_ABSENT = 4,  /* no such supervisor, none that talks to us, or gone before it answered */
	CTL_REFUSED = 5, /* refused or superseded */
	CTL_ERROR = 125, /* our own: out of memory, standard output cannot be written */
	CTL_INTERRUPTED = 130,
};

/* A client's command line. */
struct ctl_request {
	const struct ctl_command *command;
	const char *operand;           /* the NAME or SHELL, borrowed from argv; NULL */
	struct control_option control; /* --control; path is NULL without it */
	bool help, wait, now, json, prometheus, watch, timeout_given;
	int64_t timeout_ms;    /* DURATION_NONE without one */
	int64_t if_generation; /* 0 without it */
	char **argv;           /* `-- COMMAND`, NULL-terminated, borrowed; NULL without it */
};

/* Parses argv (argv[1] is the command). 0, or a negative errno with one sentence; then nothing is to be finished. */
int ctl_parse(int argc, char **argv, struct ctl_request *ret_request, struct error *error);
void ctl_request_finish(struct ctl_request *request);
/* "Usage: handoff stop …" and a line an option. */
void ctl_usage(FILE *out, const struct ctl_command *command);

/* ---- the connection (ctl_stream.c) ---- */

/* One line from the supervisor. */
struct ctl_message {
	char *text;  /* owned: the line as received, without its newline */
	cJSON *json; /* owned: an object */
};
void ctl_message_finish(struct ctl_message *message);

struct ctl_stream {
	int fd;       /* owned */
	char *buffer; /* owned */
	size_t length, capacity;
	size_t scanned;    /* bytes at the start of the buffer that hold no newline */
	int64_t heard_ms;  /* when the last byte came, CLOCK_MONOTONIC */
	int64_t probed_ms; /* when it was asked for a sign of life since; -1 */
};

/* Connects within `limit_ms`. 0, -ETIMEDOUT, or another negative errno: nobody (who talks to us) is there. */
int ctl_stream_open(const char *path, int64_t limit_ms, struct ctl_stream *ret_stream, struct error *error);
void ctl_stream_finish(struct ctl_stream *stream);
/* Sends one request. 0, -EMSGSIZE when it is longer than supervisors take, -ETIMEDOUT, or another negative errno. */
int ctl_stream_send(struct ctl_stream *stream, const cJSON *request);
/* The next message, waited for until `until_ms` (CLOCK_MONOTONIC): 1; 0 when the supervisor closed; -ETIMEDOUT; -EINTR
 * when ctl_interrupted; -EPROTO for a line that is no JSON object or longer than CTL_LINE_MAX; another negative errno.
 * Answers to ctl_stream_probe are swallowed. */
int ctl_stream_next(struct ctl_stream *stream, int64_t until_ms, struct ctl_message *ret_message);
/* To be called in long waits: asks a supervisor that was silent for long whether it lives. 0, or -ETIMEDOUT when that
 * was not answered either. */
int ctl_stream_probe(struct ctl_stream *stream, int64_t now_ms);
/* When to call that next. */
int64_t ctl_stream_probe_at(const struct ctl_stream *stream);

/* From now on SIGINT ends ctl_stream_next instead of the process, unless it is ignored. */
void ctl_catch_interrupt(void);
extern volatile sig_atomic_t ctl_interrupted;

/* A connection to the supervisor that a request means. */
struct ctl_peer {
	char *name; /* owned: for sentences */
	struct ctl_stream stream;
};
/* Finds it by --control, by name or because it is the only one, and connects. CTL_OK, or an exit status after having
 * said why. */
int ctl_peer_open(const struct ctl_request *request, struct ctl_peer *ret_peer);
void ctl_peer_finish(struct ctl_peer *peer);
/* Sends `request` (consumed). CTL_OK, or an exit status after having said why. */
int ctl_peer_send(struct ctl_peer *peer, cJSON *request);
/* The result of a request that is answered at once; events before it are dropped. CTL_OK with a message whose "result"
 * is anything but "error", or an exit status after having said why. */
int ctl_peer_answer(struct ctl_peer *peer, struct ctl_message *ret_message);
/* Says why ctl_stream_next gave 0 or a negative number, and returns the exit status for it. */
int ctl_peer_lost(const struct ctl_peer *peer, int code);

/* ---- how things read (ctl_print.c) ---- */

/* "handoff: " and the sentence, on standard error, made safe for a terminal. */
void ctl_complain(const char *format, ...) PRINTF_LIKE(1, 2);
/* A line on standard output, made safe and flushed. */
void ctl_say(const char *format, ...) PRINTF_LIKE(1, 2);
/* CTL_OK, or CTL_ERROR with a sentence when standard output could not be written. */
int ctl_flush(void);
/* Text from elsewhere with tabs as spaces and control characters as \xNN, on the heap; NULL without memory. */
char *ctl_safe(const char *text);
/* The command line as one would type it, on the heap. */
char *ctl_command_line(const cJSON *words);

/* Members of an object, or what to take when they are missing or of another type. */
const char *ctl_string(const cJSON *object, const char *key, const char *otherwise);
int64_t ctl_number(const cJSON *object, const char *key, int64_t otherwise);
/* "212 ms", "5 s", "5 m 12 s", "3 h 12 m", "4 d 3 h". Returns `ret`. */
char *ctl_duration(int64_t ms, char *ret, size_t size);
/* What an event says, as in "generation 8 is ready after 190 ms (notify)"; false for events that say nothing to a
 * person. */
bool ctl_event_text(const cJSON *event, char *ret, size_t size);
/* Which generation serves, for the end of a sentence: "generation 7 still serves" or "no generation serves". */
void ctl_active_text(const cJSON *result, char *ret, size_t size);
/* Says on standard error why a hand-off failed: reason, exit status, last lines; who serves. */
void ctl_print_failure(FILE *out, const char *name, const cJSON *result);

/* The steps of a request that is waited for: one line that changes on a terminal, one line a step elsewhere. */
struct ctl_progress {
	const char *name; /* borrowed */
	bool json, live;
	char text[256];   /* live: the step shown; empty: nothing is shown */
	int64_t since_ms; /* live: when it began */
	int64_t drained;  /* the generation whose draining was told last */
};
void ctl_progress_init(struct ctl_progress *progress, const char *name, bool json);
void ctl_progress_event(struct ctl_progress *progress, const cJSON *event);
/* Live: shows the time that the step takes. */
void ctl_progress_tick(struct ctl_progress *progress);
/* Live: removes the line, before something else is printed. */
void ctl_progress_clear(struct ctl_progress *progress);

/* Whether standard output is a terminal that a line can be taken back on. */
bool ctl_on_terminal(void);

/* The table of `handoff status` (ctl_table.c), on the heap; NULL without memory. */
char *ctl_table(const cJSON *status, int64_t now_unix_ms);

/* ---- the commands ---- */

int ctl_reload(const struct ctl_request *request);
int ctl_stop(const struct ctl_request *request);
int ctl_show_status(const struct ctl_request *request);
int ctl_list(const struct ctl_request *request);
int ctl_watch(const struct ctl_request *request, struct ctl_peer *peer);

#endif
