/* SPDX-License-Identifier: MIT */
/* Decides when a starting process is ready: the ready pipe, guessing, delays, and what ends the waiting. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <bsd/string.h>

#include "fd.h"
#include "ready_private.h"

/* Looks after exec: at 2, 5 and 10 ms, then this far apart; a start that takes long is looked at less often. */
#define LOOK_INTERVAL_MS 20
#define LOOK_INTERVAL_LATE_MS 100
#define LOOK_LATE_AFTER_MS 10000
/* What auto takes for readiness where it cannot look. */
#define FALLBACK_MS 1000
/* How long an end-of-file waits for the exit that explains it. */
#define CLOSED_WAIT_MS 200

void ready_hold(struct ready *ready)
{
	ready->holds++;
}

void ready_release(struct ready *ready)
{
	if (--ready->holds == 0 && ready->is_destroyed)
		free(ready);
}

bool ready_is_open(const struct ready *ready)
{
	return ready->leader != 0 && !ready->is_ready && !ready->has_failed && !ready->is_settled &&
	       !ready->is_destroyed;
}

bool ready_has_how(const struct ready *ready, enum ready_kind kind)
{
	for (size_t i = 0; i < ready->options.how_count; i++) {
		if (ready->options.hows[i].kind == kind)
			return true;
	}
	return false;
}

static bool is_pipe_only(const struct ready *ready)
{
	for (size_t i = 0; i < ready->options.how_count; i++) {
		if (ready->options.hows[i].kind != READY_PIPE)
			return false;
	}
	return true;
}

/* Whether auto, where nothing else was asked for, may go by what it sees. */
static bool auto_guesses(const struct ready *ready)
{
	return ready_has_how(ready, READY_AUTO) && !ready->options.own_word_only && !ready_own_word(ready);
}

static void stop_timers(struct ready *ready)
{
	loop_remove(ready->guess);
	loop_remove(ready->delay);
	loop_remove(ready->verdict);
	loop_remove(ready->closed);
	ready->guess = ready->delay = ready->verdict = ready->closed = NULL;
	process_list_finish(&ready->processes);
	ready->processes = (struct process_list){0};
}

void ready_become(struct ready *ready, const char *by, const char *why)
{
	if (!ready_is_open(ready))
		return;
	ready->is_ready = true;
	stop_timers(ready);
	if (ready->handler.on_ready)
		ready->handler.on_ready(ready->data, by, why);
}

void ready_note(struct ready *ready, bool *already, const char *format, ...)
{
	char text[READY_WHY_ROOM + sizeof(struct error)];
	if (ready->is_destroyed || (already && *already))
		return;
	if (already)
		*already = true;
	va_list values;
	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	if (ready->handler.on_note)
		ready->handler.on_note(ready->data, text);
}

void ready_spoke(struct ready *ready, bool *which)
{
	*which = true;
	if (ready->guess && !ready_has_how(ready, READY_ACCEPTING)) {
		loop_remove(ready->guess);
		ready->guess = NULL;
	}
}

/* The pipe. */

static void close_pipe(struct ready *ready)
{
	loop_remove(ready->pipe_source);
	ready->pipe_source = NULL;
	ready->pipe_read = fd_close(ready->pipe_read);
}

static void handle_newline(struct ready *ready)
{
	ready->newline_seen = true;
	if (ready->text_length > 0) {
		char text[READY_TEXT_MAX];
		error_printable(text, sizeof(text), ready->text, ready->text_length);
		if (ready->handler.on_status)
			ready->handler.on_status(ready->data, text);
	}
	if (ready_has_how(ready, READY_PIPE) || ready_has_how(ready, READY_AUTO))
		ready_become(ready, "pipe", "a newline on the ready pipe");
}

static void on_pipe(struct loop_source *source, int fd, uint32_t events, void *data)
{
	struct ready *ready = data;
	char bytes[16384];
	(void)source;
	(void)events;
	ssize_t length = read(fd, bytes, sizeof(bytes));
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (length <= 0) {
		close_pipe(ready);
		if (ready_is_open(ready) && is_pipe_only(ready) && ready->closed)
			loop_timer_set(ready->closed, CLOSED_WAIT_MS);
		return;
	}
	ready_spoke(ready, &ready->spoke_on_pipe);
	if (ready->newline_seen)
		return;
	const char *newline = memchr(bytes, '\n', (size_t)length);
	size_t room = sizeof(ready->text) - ready->text_length;
	size_t fresh = newline ? (size_t)(newline - bytes) : (size_t)length;
	memcpy(ready->text + ready->text_length, bytes, fresh < room ? fresh : room);
	ready->text_length += fresh < room ? fresh : room;
	if (!newline)
		return;
	ready_hold(ready);
	handle_newline(ready);
	ready_release(ready);
}

static void on_closed(struct loop_source *source, void *data)
{
	struct ready *ready = data;
	(void)source;
	if (!ready_is_open(ready))
		return;
	ready->has_failed = true;
	stop_timers(ready);
	if (ready->handler.on_failed)
		ready->handler.on_failed(ready->data,
					 "the ready pipe was closed without a newline (a server that closes "
					 "all its descriptors closes its listener too)");
}

/* Guessing. */

/* What keeps looking from an answer; `why` is empty where nothing does. */
static void blindness(const struct ready *ready, char *why, size_t size)
{
	const struct accepting *accepting = &ready->accepting;
	why[0] = '\0';
	if (accepting->count == 0)
		strlcpy(why, "there is no stream listener to wait on", size);
	else if (ready->last_look == ACCEPTING_UNREADABLE)
		snprintf(why, size, "cannot look into pid %d (%s)", accepting->unreadable_pid,
			 accepting->unreadable_why);
	else if (ready->last_look == ACCEPTING_URING)
		snprintf(why, size, "pid %d has an io_uring, which does not show what it waits on",
			 accepting->uring_pid);
}

/* A second has passed and looking gives no answer: auto takes the life so far for readiness, while an explicit
 * `accepting` goes on, since what cannot be read now (a helper of another user) may be gone later. */
static void fall_back(struct ready *ready)
{
	char why[READY_WHY_ROOM], text[READY_WHY_ROOM + 32];
	blindness(ready, why, sizeof(why));
	if (why[0] == '\0')
		return;
	ready_hold(ready);
	if (!auto_guesses(ready)) {
		ready_note(ready, &ready->noted_unreadable, "%s: whether it accepts cannot be seen so far", why);
	} else {
		ready_note(ready, &ready->noted_unreadable,
			   "%s: being alive for 1s is taken for ready; READY=1 or another --ready would be surer", why);
		snprintf(text, sizeof(text), "%s: alive for 1s", why);
		ready_become(ready, "delay", text);
	}
	ready_release(ready);
}

/* Looking may take long where there are many processes: never more than a fifth of our time. */
static int64_t next_look_ms(const struct ready *ready, uint64_t cost_us)
{
	static const int first_ms[] = {2, 3, 5, 10};
	if (ready->look_count < ARRAY_SIZE(first_ms))
		return first_ms[ready->look_count];
	int64_t interval_ms =
		loop_now_ms() - ready->exec_done_ms > LOOK_LATE_AFTER_MS ? LOOK_INTERVAL_LATE_MS : LOOK_INTERVAL_MS;
	int64_t rest_ms = (int64_t)(cost_us * 4 / 1000);
	return rest_ms > interval_ms ? rest_ms : interval_ms;
}

static void on_guess(struct loop_source *source, void *data)
{
	struct ready *ready = data;
	uint64_t begin_us = loop_now_us();
	if (!ready_is_open(ready))
		return;
	if (ready->accepting.count > 0) {
		const pid_t *pids = &ready->leader;
		size_t count = 1;
		if (process_tree(ready->leader, &ready->processes) >= 0) {
			pids = ready->processes.pids;
			count = ready->processes.count;
		}
		ready->last_look = accepting_look(&ready->accepting, pids, count);
		ready->look_count++;
		loop_timer_set(source, next_look_ms(ready, loop_now_us() - begin_us));
	}
	if (ready->accepting.count > 0 && ready->last_look == ACCEPTING_YES) {
		char why[READY_WHY_ROOM];
		ready->seen_accepting = true;
		snprintf(why, sizeof(why), "it waits on %d of %zu stream listeners, or has taken connections from them",
			 __builtin_popcountll(ready->accepting.seen), ready->accepting.count);
		ready_hold(ready);
		ready_become(ready, "accepting", why);
		ready_release(ready);
	} else if (loop_now_ms() - ready->exec_done_ms >= FALLBACK_MS) {
		fall_back(ready);
	}
}

static void begin_guessing(struct ready *ready)
{
	bool looks = ready_has_how(ready, READY_ACCEPTING);
	if (!ready->guess || (!looks && !auto_guesses(ready)))
		return;
	/* With nothing to look for, auto is a delay. */
	loop_timer_set(ready->guess, ready->accepting.count > 0 ? next_look_ms(ready, 0) : FALLBACK_MS);
}

/* Delays, and what ready_* calls found out. */

static int64_t shortest_delay_ms(const struct ready *ready)
{
	int64_t shortest_ms = -1;
	for (size_t i = 0; i < ready->options.how_count; i++) {
		const struct ready_how *how = &ready->options.hows[i];
		if (how->kind == READY_DELAY && (shortest_ms < 0 || how->delay_ms < shortest_ms))
			shortest_ms = how->delay_ms;
	}
	return shortest_ms;
}

static void on_delay(struct loop_source *source, void *data)
{
	struct ready *ready = data;
	char why[READY_WHY_ROOM];
	(void)source;
	snprintf(why, sizeof(why), "alive for %lldms", (long long)shortest_delay_ms(ready));
	ready_hold(ready);
	ready_become(ready, "delay", why);
	ready_release(ready);
}

static void on_verdict(struct loop_source *source, void *data)
{
	struct ready *ready = data;
	(void)source;
	ready_hold(ready);
	ready_become(ready, ready->verdict_by, ready->verdict_why);
	ready_release(ready);
}

static void decide(struct ready *ready, const char *by)
{
	ready->verdict_by = by;
	loop_timer_set(ready->verdict, 0);
}

/* From creation to the end. */

static int open_pipe(struct ready *ready, struct error *error)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0) {
		int code = -errno;
		return error_set(error, code, "cannot make the ready pipe: %s", strerror(-code));
	}
	ready->pipe_read = ends[0];
	ready->pipe_write = ends[1];
	/* Each end has a description of its own: the server's stays blocking. */
	int result = fd_set_nonblock(ready->pipe_read, true);
	if (result < 0)
		return error_set(error, result, "cannot make the ready pipe: %s", strerror(-result));
	return 0;
}

int ready_create(struct loop *loop, const struct ready_options *options, const struct ready_handler *handler,
		 void *data, struct ready **ret_ready, struct error *error)
{
	struct ready *ready = calloc(1, sizeof(*ready));
	if (!ready)
		return error_set(error, -ENOMEM, "cannot wait for readiness: %s", strerror(ENOMEM));
	ready->loop = loop;
	ready->options = *options;
	ready->handler = *handler;
	ready->data = data;
	ready->pipe_read = ready->pipe_write = ready->notify_fd = -1;
	accepting_init(&ready->accepting, options->inodes, options->inode_count, options->wanted);
	int result = open_pipe(ready, error);
	if (result >= 0)
		result = ready_notify_open(ready, error);
	if (result < 0) {
		ready_destroy(ready);
		return result;
	}
	*ret_ready = ready;
	return 0;
}

int ready_pipe_fd(const struct ready *ready)
{
	return ready->pipe_write;
}

const char *ready_notify_socket(const struct ready *ready)
{
	return ready->notify_name;
}

int ready_start(struct ready *ready, const struct child *leader, const struct child_plan *check_plan)
{
	ready->pipe_write = fd_close(ready->pipe_write);
	ready->check_plan = check_plan;
	if (!check_plan && ready_has_how(ready, READY_EXEC))
		return -EINVAL;
	int result = loop_add_fd(ready->loop, ready->pipe_read, EPOLLIN, on_pipe, ready, &ready->pipe_source);
	if (result >= 0)
		result = ready_notify_watch(ready);
	if (result >= 0)
		result = loop_add_timer(ready->loop, on_guess, ready, &ready->guess);
	if (result >= 0)
		result = loop_add_timer(ready->loop, on_delay, ready, &ready->delay);
	if (result >= 0)
		result = loop_add_timer(ready->loop, on_verdict, ready, &ready->verdict);
	if (result >= 0)
		result = loop_add_timer(ready->loop, on_closed, ready, &ready->closed);
	if (result >= 0)
		result = ready_exec_prepare(ready);
	if (result < 0)
		return result;
	ready->leader = leader->pid;
	return 0;
}

void ready_exec_done(struct ready *ready)
{
	if (!ready_is_open(ready))
		return;
	ready->exec_done_ms = loop_now_ms();
	int64_t delay_ms = shortest_delay_ms(ready);
	if (delay_ms >= 0)
		loop_timer_set(ready->delay, delay_ms);
	begin_guessing(ready);
	ready_exec_begin(ready);
	if (ready_has_how(ready, READY_NOW)) {
		strlcpy(ready->verdict_why, "exec succeeded", sizeof(ready->verdict_why));
		decide(ready, "now");
	}
}

int ready_signal(struct ready *ready, pid_t sender)
{
	struct process_stat stat;
	if (!ready_has_how(ready, READY_SIGNAL) || ready->leader == 0 || ready->is_settled || ready->has_failed ||
	    process_stat(sender, &stat) < 0)
		return 0;
	if (sender != ready->leader && stat.group != ready->leader && !process_is_below(sender, ready->leader))
		return 0;
	if (ready_is_open(ready)) {
		snprintf(ready->verdict_why, sizeof(ready->verdict_why), "a signal from pid %d", sender);
		decide(ready, "signal");
	}
	return 1;
}

uint64_t ready_seen(const struct ready *ready)
{
	return ready->seen_accepting ? ready->accepting.seen : 0;
}

void ready_acknowledge(struct ready *ready, const char *why)
{
	ready->spoke_by_datagram = true;
	if (ready->leader == 0 || !ready_is_open(ready))
		return;
	strlcpy(ready->verdict_why, why, sizeof(ready->verdict_why));
	decide(ready, "einhorn");
}

bool ready_own_word(const struct ready *ready)
{
	return ready->spoke_on_pipe || ready->spoke_by_datagram;
}

void ready_settle(struct ready *ready)
{
	/* They are the recipe's, which may go now. */
	ready->options.hows = NULL;
	ready->options.how_count = 0;
	ready->options.inodes = NULL;
	ready->options.inode_count = 0;
	ready->is_settled = true;
	stop_timers(ready);
	ready_exec_end(ready);
}

void ready_destroy(struct ready *ready)
{
	if (!ready)
		return;
	ready_hold(ready);
	ready_settle(ready);
	ready_exec_finish(ready);
	free(ready->execs);
	ready->execs = NULL;
	ready->exec_count = 0;
	close_pipe(ready);
	loop_remove(ready->notify_source);
	ready->notify_source = NULL;
	ready->notify_fd = fd_close(ready->notify_fd);
	ready->pipe_write = fd_close(ready->pipe_write);
	ready->is_destroyed = true;
	ready_release(ready);
}
