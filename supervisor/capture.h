/* SPDX-License-Identifier: MIT */
/* --capture: one relay process, in a session of its own, copies the servers' stderr to ours and keeps the last lines.
 *
 * The supervisor keeps a copy of each generation's read end until the generation is gone: if the relay dies, a new one
 * is started and takes the same pipes, and no server gets SIGPIPE. The relay ends at end-of-file of everything, not
 * with us; a full stderr stops the relay's copying (and so, in time, the servers' own writes), never the supervisor. */
#ifndef HANDOFF_CAPTURE_H
#define HANDOFF_CAPTURE_H

#include <sys/types.h>

#include "error.h"

struct capture; /* heap */
struct loop;

/* How many lines of a generation are kept, and how long one may be (the rest of it is cut in the kept copy only). */
#define CAPTURE_LINES 20
#define CAPTURE_LINE_MAX 1024

/* Starts the relay. 0 or -errno. */
int capture_create(struct loop *loop, struct capture **ret_capture, struct error *error);
/* Lets the relay finish: closes our ends and waits at most `wait_ms` for it to have written everything, then leaves it
 * to itself. NULL is fine; questions still open are not answered any more. */
void capture_destroy(struct capture *capture, int wait_ms);

/* A pipe for one generation: returns the write end (the caller's, close-on-exec) or -errno; -EEXIST for one that has a
 * pipe and was not forgotten. */
int capture_open(struct capture *capture, unsigned generation, struct error *error);
/* The generation is gone: drops our copy of its pipe and its lines; what the pipe still holds is written. */
void capture_forget(struct capture *capture, unsigned generation);

/* Asks for the last lines of a generation; `fn` is called once, from the loop: at the relay's answer, or with what
 * there is (maybe nothing) after 500 ms. The relay first reads what the pipe already holds. `lines`, oldest first, is
 * borrowed for the call; each is printable (error_printable, tabs as blanks), an unfinished one is the last. `fn` may
 * call anything here, capture_destroy included. 0 or -ENOMEM. */
typedef void (*capture_lines_fn)(unsigned generation, const char *const *lines, size_t count, void *data);
int capture_ask(struct capture *capture, unsigned generation, capture_lines_fn fn, void *data);

/* Whether this child of ours is the relay: the caller's reaper leaves it alone, capture watches and reaps it itself. */
bool capture_owns(const struct capture *capture, pid_t pid);

#endif
