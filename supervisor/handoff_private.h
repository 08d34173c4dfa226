/* SPDX-License-Identifier: MIT */
/* What the files of the state machine share: actions, the list of generations, and the handlers for the tables.
 *
 * handoff_list.c    actions, and the list of generations
 * handoff_start.c   who starts when: starts, what waits for its turn, restarts and their back-off
 * handoff_try.c     a generation that starts or settles, until it serves or has failed
 * handoff_serve.c   the active generation and its workers
 * handoff_end.c     draining, stops, and all that is left of a generation
 * handoff.c         the tables and the step */
#ifndef HANDOFF_HANDOFF_PRIVATE_H
#define HANDOFF_HANDOFF_PRIVATE_H

#include "handoff.h"

/* ---- handoff_list.c ---- */

/* A new action at the end, all zero but for `kind`. */
struct handoff_action *handoff_act(struct handoff_step *step, enum handoff_action_kind kind);
void handoff_act_on(struct handoff_step *step, enum handoff_action_kind kind, uint32_t generation);
void handoff_timer_set(struct handoff_step *step, enum handoff_timer timer, uint32_t generation);
void handoff_timer_stop(struct handoff_step *step, enum handoff_timer timer, uint32_t generation);
/* Nothing for wish 0. */
void handoff_answer(struct handoff_step *step, uint32_t wish, enum handoff_result result, uint32_t generation,
		    enum handoff_failure failure);

struct handoff_generation *handoff_list_state(struct handoff *machine, enum handoff_generation_state state);
struct handoff_generation *handoff_list_number(struct handoff *machine, uint32_t number);
/* Takes it off the list. Invalidates pointers to it and to the later ones. */
void handoff_release(struct handoff_step *step, struct handoff_generation *generation);

/* The books of a generation's workers. */
void handoff_never_were(struct handoff_step *step, struct handoff_generation *generation);
void handoff_one_exited(struct handoff_generation *generation);
/* Alive, and not told to leave. */
uint32_t handoff_serving(const struct handoff_generation *generation);

/* ---- handoff_start.c ---- */

/* Starts a generation, or with stop-first lets the others end before. False when there is no room; then nothing but the
 * answers has happened. */
bool handoff_start(struct handoff_step *step, uint32_t wish, bool asked);
/* Stop-first: starts what waits for the last one to be gone, if it is. */
void handoff_start_when_empty(struct handoff_step *step);
/* Begins the hand-off that waits, if one does; it also satisfies the signals that came meanwhile. Whether it began. */
bool handoff_next(struct handoff_step *step);
/* Nobody serves, and that was not asked for: restarts, now or later, or ends. */
void handoff_recover(struct handoff_step *step);
/* How many workers are started at once: in a rolling hand-off the others follow one by one. */
uint32_t handoff_first_batch(const struct handoff *machine, uint32_t workers);

void handoff_supervisor_start(struct handoff_step *step);
void handoff_supervisor_queue(struct handoff_step *step);
void handoff_supervisor_reload(struct handoff_step *step);
void handoff_supervisor_reload_waiting(struct handoff_step *step);
void handoff_supervisor_restart(struct handoff_step *step);

/* ---- handoff_try.c ---- */

void handoff_starting_ready(struct handoff_step *step, struct handoff_generation *generation);
void handoff_starting_not_ready(struct handoff_step *step, struct handoff_generation *generation);
void handoff_starting_timeout(struct handoff_step *step, struct handoff_generation *generation);
void handoff_starting_spawn_failed(struct handoff_step *step, struct handoff_generation *generation);
void handoff_starting_exited(struct handoff_step *step, struct handoff_generation *generation);
void handoff_settling_exited(struct handoff_step *step, struct handoff_generation *generation);
void handoff_settling_settled(struct handoff_step *step, struct handoff_generation *generation);

/* ---- handoff_serve.c ---- */

/* In a rolling hand-off: the active one is to have one worker less, but never none. */
void handoff_give_up_one(struct handoff_step *step, struct handoff_generation *active);
/* What a rolling hand-off took from the active generation, it gets back. */
void handoff_restore(struct handoff_step *step, struct handoff_generation *active);

void handoff_active_exited(struct handoff_step *step, struct handoff_generation *generation);
void handoff_active_left(struct handoff_step *step, struct handoff_generation *generation);
void handoff_active_spawn_failed(struct handoff_step *step, struct handoff_generation *generation);
void handoff_active_gone(struct handoff_step *step, struct handoff_generation *generation);
void handoff_active_healthy(struct handoff_step *step, struct handoff_generation *generation);
void handoff_active_worker_due(struct handoff_step *step, struct handoff_generation *generation);

/* ---- handoff_end.c ---- */

/* One that serves is asked to finish what it has. */
void handoff_drain(struct handoff_step *step, struct handoff_generation *generation);
void handoff_drain_all(struct handoff_step *step);
void handoff_enforce_max_draining(struct handoff_step *step);
/* The end, gracefully: closes the listeners, answers all that wait, drains everything. */
void handoff_wind_down(struct handoff_step *step, enum handoff_exit reason);
/* One that ends is released once nothing of it is left, which may be what the supervisor waits for. */
void handoff_release_when_empty(struct handoff_step *step, struct handoff_generation *generation);

void handoff_supervisor_refuse(struct handoff_step *step);
void handoff_supervisor_stop(struct handoff_step *step);
void handoff_supervisor_kill(struct handoff_step *step);
void handoff_supervisor_stop_again(struct handoff_step *step);
void handoff_supervisor_kill_stopping(struct handoff_step *step);
void handoff_ending_spawn_failed(struct handoff_step *step, struct handoff_generation *generation);
void handoff_ending_exited(struct handoff_step *step, struct handoff_generation *generation);
void handoff_ending_gone(struct handoff_step *step, struct handoff_generation *generation);
void handoff_ending_kill_due(struct handoff_step *step, struct handoff_generation *generation);
void handoff_draining_drain_due(struct handoff_step *step, struct handoff_generation *generation);

#endif
