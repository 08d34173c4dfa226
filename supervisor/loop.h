/* SPDX-License-Identifier: MIT */
/* The event loop: epoll(7) over descriptors, signals (signalfd), child exits (pidfd, Linux 5.3+) and timers (one
 * timerfd for all of them, CLOCK_MONOTONIC, so that a jump of the wall clock moves no deadline). */
#ifndef HANDOFF_LOOP_H
#define HANDOFF_LOOP_H

#include <signal.h>
#include <sys/signalfd.h>

#include "macro.h"

struct loop;
struct loop_source;

/* `events` are EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR as epoll gave them. */
typedef void (*loop_fd_fn)(struct loop_source *source, int fd, uint32_t events, void *data);
typedef void (*loop_signal_fn)(struct loop_source *source, const struct signalfd_siginfo *info, void *data);
/* The process behind the pidfd has exited; it is not reaped yet. Called once. */
typedef void (*loop_child_fn)(struct loop_source *source, void *data);
typedef void (*loop_timer_fn)(struct loop_source *source, void *data);

/* 0 or -errno. The loop owns its own descriptors (all close-on-exec), and all sources still in it at destroy. */
int loop_create(struct loop **ret_loop);
void loop_destroy(struct loop *loop); /* NULL is fine */

/* Watches a descriptor; the caller keeps owning it and must remove the source before closing it. 0 or -errno. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *data, struct loop_source **ret_source);
/* Changes what is waited for. 0 or -errno. */
int loop_fd_set_events(struct loop_source *source, uint32_t events);

/* Blocks the signals of the set in this process and delivers them here. At most one signal source a loop. 0 or -errno.
 */
int loop_add_signals(struct loop *loop, const sigset_t *set, loop_signal_fn fn, void *data,
		     struct loop_source **ret_source);

/* Watches a pidfd for exit; the caller keeps owning it. Within one round of the loop, children come first, then
 * descriptors, then signals, then timers: where an exit and a readiness are both there to be seen, the exit wins. */
int loop_add_child(struct loop *loop, int pidfd, loop_child_fn fn, void *data, struct loop_source **ret_source);

/* A timer, not yet running. 0 or -errno (-ENOMEM). */
int loop_add_timer(struct loop *loop, loop_timer_fn fn, void *data, struct loop_source **ret_source);
/* Runs it once, `after_ms` from now (0: in the next round; rounded up, never early). Set again, it starts anew. */
void loop_timer_set(struct loop_source *source, int64_t after_ms);
void loop_timer_stop(struct loop_source *source);
/* Milliseconds until it fires, or -1 when it is not running. */
int64_t loop_timer_left_ms(const struct loop_source *source);

/* Takes a source out; NULL is fine. Safe inside any callback, also for the source being called and for one whose
 * event is already fetched: that event is then not delivered (the memory is freed at the end of the round). */
void loop_remove(struct loop_source *source);

/* Runs until loop_quit. With nothing to do it sleeps without a wake-up. 0 or -errno of epoll_wait. */
int loop_run(struct loop *loop);
/* One round: waits at most `timeout_ms` (-1: for ever). 0 or -errno. For tests and nested waits. */
int loop_run_once(struct loop *loop, int timeout_ms);
void loop_quit(struct loop *loop);

/* CLOCK_MONOTONIC now. */
int64_t loop_now_ms(void);
uint64_t loop_now_us(void);

#endif
