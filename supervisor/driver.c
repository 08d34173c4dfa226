/* SPDX-License-Identifier: MIT */
/* The driver's middle: the queue of events, the machine's actions, the timers, and one run from start to exit. */
#include "driver_private.h"

#include <assert.h>
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <bsd/stdlib.h>

#include "command.h"
#include "fd.h"
#include "log.h"

/* ---- events ---- */

void driver_post(struct driver *driver, const struct handoff_event *event)
{
	if (driver->queue_count == driver->queue_capacity) {
		size_t capacity = driver->queue_capacity ? 2 * driver->queue_capacity : 32;
		struct handoff_event *queue = calloc(capacity, sizeof(*queue));
		/* An event that is lost would leave the machine wrong for ever; 32 of them are a few hundred bytes. */
		if (!queue)
			abort();
		for (size_t i = 0; i < driver->queue_count; i++)
			queue[i] = driver->queue[(driver->queue_head + i) % driver->queue_capacity];
		free(driver->queue);
		driver->queue = queue;
		driver->queue_capacity = capacity;
		driver->queue_head = 0;
	}
	driver->queue[(driver->queue_head + driver->queue_count++) % driver->queue_capacity] = *event;
}

void driver_post_generation(struct generation *generation, enum handoff_event_kind kind)
{
	driver_post(generation->driver, &(struct handoff_event){.kind = kind, .generation = generation->number});
}

struct generation *driver_find(struct driver *driver, uint32_t number)
{
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link)
		if (generation->number == number)
			return generation;
	return NULL;
}

/* ---- timers ---- */

static void on_restart_due(struct loop_source *source, void *data)
{
	(void)source;
	struct driver *driver = data;
	driver_post(driver, &(struct handoff_event){.kind = HANDOFF_RESTART_DUE});
	driver_pump(driver);
}

static void generation_due(struct generation *generation, enum handoff_event_kind kind)
{
	struct driver *driver = generation->driver;
	/* If it died at the same instant, that is what counts. */
	driver_check_exits(generation);
	driver_post_generation(generation, kind);
	driver_pump(driver);
}

static void on_ready_due(struct loop_source *source, void *data)
{
	(void)source;
	generation_due(data, HANDOFF_READY_DUE);
}

static void on_settle_due(struct loop_source *source, void *data)
{
	(void)source;
	generation_due(data, HANDOFF_SETTLE_DUE);
}

static void on_drain_due(struct loop_source *source, void *data)
{
	(void)source;
	generation_due(data, HANDOFF_DRAIN_DUE);
}

static void on_kill_due(struct loop_source *source, void *data)
{
	(void)source;
	generation_due(data, HANDOFF_KILL_DUE);
}

static int64_t restart_delay(const struct options *options, uint32_t exponent)
{
	int64_t delay = options->restart_delay_ms;
	for (uint32_t i = 0; i < exponent && delay < options->restart_delay_max_ms; i++)
		delay *= 2;
	return delay < options->restart_delay_max_ms ? delay : options->restart_delay_max_ms;
}

/* Where a named timer of a generation lives, and how long it is; NULL for the others. */
static struct loop_source **timer_slot(struct generation *generation, enum handoff_timer timer, int64_t *ret_ms,
				       loop_timer_fn *ret_fn)
{
	const struct options *options = generation->driver->options;
	switch (timer) {
	case HANDOFF_TIMER_READY:
		*ret_ms = options->ready_timeout_ms;
		*ret_fn = on_ready_due;
		return &generation->ready_timer;
	case HANDOFF_TIMER_SETTLE:
		*ret_ms = options->settle_ms;
		*ret_fn = on_settle_due;
		return &generation->settle_timer;
	case HANDOFF_TIMER_DRAIN:
		*ret_ms = options->drain_timeout_ms;
		*ret_fn = on_drain_due;
		return &generation->drain_timer;
	case HANDOFF_TIMER_KILL:
	case HANDOFF_TIMER_ABORT:
		*ret_ms = options->kill_timeout_ms;
		if (timer == HANDOFF_TIMER_ABORT && (*ret_ms == DURATION_NONE || *ret_ms > DRIVER_ABORT_MS))
			*ret_ms = DRIVER_ABORT_MS;
		*ret_fn = on_kill_due;
		return &generation->kill_timer;
	case HANDOFF_TIMER_HEALTHY:
	case HANDOFF_TIMER_RESTART:
		break;
	}
	return NULL;
}

static void set_timer(struct driver *driver, struct generation *generation, const struct handoff_action *action)
{
	if (action->timer == HANDOFF_TIMER_RESTART) {
		int64_t delay = restart_delay(driver->options, action->exponent);
		log_info("restarting in %lld ms", (long long)delay);
		loop_timer_set(driver->restart_timer, delay);
		return;
	}
	if (!generation)
		return;
	if (action->timer == HANDOFF_TIMER_HEALTHY) {
		/* Nothing needs to happen at that moment, so that nobody is woken: check_exit looks at the clock. */
		generation->healthy_from_ms = loop_now_ms() + DRIVER_HEALTHY_MS;
		return;
	}
	int64_t after_ms = 0;
	loop_timer_fn fn = NULL;
	struct loop_source **slot = timer_slot(generation, action->timer, &after_ms, &fn);
	if (after_ms == DURATION_NONE)
		return;
	if (!*slot && loop_add_timer(driver->loop, fn, generation, slot) < 0) {
		/* Without its deadline the wait would never end: it ends now. */
		log_line(LOG_LEVEL_ERROR, generation->number, "out of memory for a timer");
		fn(NULL, generation);
		return;
	}
	loop_timer_set(*slot, after_ms);
}

static void stop_timer(struct driver *driver, struct generation *generation, enum handoff_timer timer)
{
	if (timer == HANDOFF_TIMER_RESTART) {
		loop_timer_stop(driver->restart_timer);
		return;
	}
	if (!generation || timer == HANDOFF_TIMER_HEALTHY)
		return;
	int64_t after_ms;
	loop_timer_fn fn;
	struct loop_source **slot = timer_slot(generation, timer, &after_ms, &fn);
	if (*slot)
		loop_timer_stop(*slot);
}

/* ---- actions ---- */

static void do_spawn(struct driver *driver, const struct handoff_action *action)
{
	uint32_t failed = driver_spawn(driver, action->generation, action->count);
	struct generation *generation = driver_find(driver, action->generation);
	if (failed > 0)
		driver_post(driver, &(struct handoff_event){.kind = HANDOFF_SPAWN_FAILED,
							    .generation = action->generation,
							    .count = failed});
	if (driver->machine.state == HANDOFF_REPLACING)
		report_handing_off(driver, generation);
}

static void do_activate(struct driver *driver, struct generation *generation)
{
	driver->active_seen = generation->ready_seen;
	report_active(driver, generation);
	driver->ever_active = true;
}

/* Nobody asks any more whether it is ready. */
static void end_start(struct generation *generation)
{
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i].ready)
			ready_settle(generation->workers[i].ready);
}

static void do_fail(struct driver *driver, struct generation *generation, enum handoff_failure failure)
{
	if (generation) {
		end_start(generation);
		/* Who lives on after its leader says whether it went into the background. */
		driver_reap(driver);
	}
	report_failed(driver, generation, failure);
	if (generation)
		driver->exit_code = generation->exit_code;
}

static void do_died(struct driver *driver, struct generation *generation)
{
	driver->exit_code = child_exit_code(generation->workers[generation->worker_count - 1].status);
	report_died(generation);
}

static void do_close_listeners(struct driver *driver)
{
	report_stopping(driver);
	loop_remove(driver->paths_source);
	driver->paths_source = NULL;
	driver->paths_fd = fd_close(driver->paths_fd);
	listener_set_close(driver->listeners);
	driver->listeners_closed = true;
}

static void perform(struct driver *driver, const struct handoff_action *action)
{
	struct generation *generation = driver_find(driver, action->generation);
	switch (action->kind) {
	case HANDOFF_DO_SPAWN:
		do_spawn(driver, action);
		break;
	case HANDOFF_DO_ACTIVATE:
		do_activate(driver, generation);
		break;
	case HANDOFF_DO_FAIL:
		do_fail(driver, generation, action->failure);
		break;
	case HANDOFF_DO_DIED:
		do_died(driver, generation);
		break;
	case HANDOFF_DO_DRAIN:
		end_start(generation);
		driver_drain(generation);
		break;
	case HANDOFF_DO_DRAIN_REST:
		driver_drain_rest(generation);
		break;
	case HANDOFF_DO_TERMINATE:
		end_start(generation);
		driver_end(generation, SIGTERM);
		break;
	case HANDOFF_DO_KILL:
		report_kill(generation, action->why);
		driver_end(generation, SIGKILL);
		break;
	case HANDOFF_DO_RELEASE:
		if (generation)
			driver_release(generation);
		break;
	case HANDOFF_DO_TIMER_SET:
		set_timer(driver, generation, action);
		break;
	case HANDOFF_DO_TIMER_STOP:
		stop_timer(driver, generation, action->timer);
		break;
	case HANDOFF_DO_CLOSE_LISTENERS:
		do_close_listeners(driver);
		break;
	case HANDOFF_DO_JOIN:
	case HANDOFF_DO_ANSWER:
	case HANDOFF_DO_REFUSE:
		/* Only requests on a control socket are answered; a signal has nobody who waits. */
		break;
	case HANDOFF_DO_EXIT:
		driver->done = true;
		loop_quit(driver->loop);
		break;
	}
}

void driver_pump(struct driver *driver)
{
	if (driver->pumping)
		return;
	driver->pumping = true;
	while (driver->queue_count > 0) {
		struct handoff_event event = driver->queue[driver->queue_head];
		driver->queue_head = (driver->queue_head + 1) % driver->queue_capacity;
		driver->queue_count--;
		log_debug("event %s, generation %u", handoff_event_name(event.kind), event.generation);
		handoff_step(&driver->machine, &event, &driver->actions);
		for (uint32_t i = 0; i < driver->actions.count; i++)
			perform(driver, &driver->actions.items[i]);
	}
	driver->pumping = false;
}

/* ---- the run ---- */

static void on_watchdog(struct loop_source *source, void *data)
{
	struct driver *driver = data;
	notify_watchdog(driver->notify);
	loop_timer_set(source, driver->notify->watchdog_ms);
}

/* Looks at one path and says what it finds, once. Whether it is ours where it was not, or the other way round. */
static bool repair(struct driver *driver, size_t index)
{
	struct listener *listener = &driver->listeners->items[index];
	struct error error = {.text = ""};
	enum listener_path_state before = driver->path_states[index], now = listener_repair(listener, &error);
	driver->path_states[index] = now == LISTENER_PATH_RESTORED ? LISTENER_PATH_FINE : now;
	if (now == before)
		return false;
	switch (now) {
	case LISTENER_PATH_FINE:
		break;
	case LISTENER_PATH_RESTORED:
		log_warning("%s was removed by somebody and is restored: a server must not unlink a path that it was "
			    "given",
			    listener->path);
		break;
	case LISTENER_PATH_FOREIGN:
		log_error("%s is not our socket any more: somebody put something else there; left alone",
			  listener->path);
		break;
	case LISTENER_PATH_LOST:
		log_error("%s is gone and could not be restored: %s", listener->path, error.text);
		break;
	}
	return driver->path_states[index] != before;
}

static bool repair_all(struct driver *driver)
{
	bool changed = false;
	for (size_t i = 0; i < driver->listeners->count; i++)
		changed = repair(driver, i) || changed;
	return changed;
}

static void watch_paths(struct driver *driver);

static void on_paths(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	(void)events;
	struct driver *driver = data;
	char buffer[4096];
	while (read(fd, buffer, sizeof(buffer)) > 0)
		continue;
	if (repair_all(driver))
		watch_paths(driver);
}

/* A path that nobody watches is only less safe, so that a failure is worth a line and no more. What is watched depends
 * on whose the paths are, so once more where that changed before the watch began. */
static void watch_paths(struct driver *driver)
{
	do {
		loop_remove(driver->paths_source);
		driver->paths_source = NULL;
		driver->paths_fd = fd_close(driver->paths_fd);
		int fd = driver->paths_fd = listener_watch_paths(driver->listeners);
		if (fd == -ENOENT)
			return;
		int r = fd < 0 ? fd : loop_add_fd(driver->loop, fd, EPOLLIN, on_paths, driver, &driver->paths_source);
		if (r < 0)
			log_warning("cannot watch the unix paths: %s", strerror(-r));
	} while (repair_all(driver));
}

static int prepare_limits(struct driver *driver, struct error *error)
{
	const struct options *options = driver->options;
	driver->limits = (struct child_limits){
		.set_user = options->set_user || options->set_group,
		.uid = options->set_user ? options->uid : getuid(),
		.gid = options->gid,
		.set_umask = options->set_umask,
		.umask = options->umask,
		.rlimits = options->rlimits,
		.rlimit_count = options->rlimit_count,
		.no_new_privs = options->no_new_privs,
		.die_with_supervisor = options->die_with_supervisor,
	};
	if (!driver->limits.set_user)
		return 0;
	if (driver->limits.gid == (gid_t)-1)
		return error_set(error, -EINVAL, "--user: user %u is not in the user database: give --group too",
				 (unsigned)driver->limits.uid);
	int count = 64;
	while (options->user_name) {
		driver->groups = reallocarray(driver->groups, (size_t)count, sizeof(gid_t));
		if (!driver->groups)
			return error_set(error, -ENOMEM, "out of memory");
		if (getgrouplist(options->user_name, driver->limits.gid, driver->groups, &count) >= 0) {
			driver->group_count = (size_t)count;
			break;
		}
	}
	driver->limits.groups = driver->groups;
	driver->limits.group_count = driver->group_count;
	return 0;
}

static int prepare_listeners(struct driver *driver)
{
	driver->stream_inodes = calloc(driver->listeners->count + 1, sizeof(ino_t));
	driver->listener_names = calloc(driver->listeners->count + 1, sizeof(char *));
	driver->path_states = calloc(driver->listeners->count + 1, sizeof(*driver->path_states));
	if (!driver->stream_inodes || !driver->listener_names || !driver->path_states)
		return -ENOMEM;
	for (size_t i = 0; i < driver->listeners->count; i++)
		driver->listener_names[i] = driver->listeners->items[i].name;
	for (size_t i = 0; i < driver->listeners->count && driver->stream_count < ACCEPTING_MAX; i++)
		if (driver->listeners->items[i].stream)
			driver->stream_inodes[driver->stream_count++] = driver->listeners->items[i].socket_ino;
	watch_paths(driver);
	return 0;
}

static int prepare_signals(struct driver *driver)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (int signal = 1; signal < (int)ARRAY_SIZE(driver->options->signals); signal++)
		if (driver->options->signals[signal].action != SIGNAL_ACTION_UNUSED)
			sigaddset(&set, signal);
	return loop_add_signals(driver->loop, &set, driver_on_signal, driver, &driver->signal_source);
}

/* Who our children are is read from /proc. That of another pid namespace calls them by numbers which are strangers'
 * here, and a signal would go to those. */
static int check_proc(struct error *error)
{
	char self[32] = "";
	if (readlink("/proc/self", self, sizeof(self) - 1) < 0) {
		log_warning("/proc is not there: processes that a server leaves behind are not waited for");
		return 0;
	}
	if (strtol(self, NULL, 10) == getpid())
		return 0;
	return error_set(error, -EINVAL,
			 "/proc is that of another pid namespace (our pid is %d here, and %s there): mount the one of "
			 "this namespace",
			 (int)getpid(), self);
}

static int prepare(struct driver *driver, const struct driver_setup *setup, struct error *error)
{
	int r = loop_create(&driver->loop);
	if (r >= 0)
		r = prepare_signals(driver);
	if (r >= 0)
		r = loop_add_timer(driver->loop, on_restart_due, driver, &driver->restart_timer);
	if (r >= 0)
		r = env_copy_clean(&driver->base_env, setup->environment);
	if (r >= 0)
		r = prepare_listeners(driver);
	if (r >= 0 && driver->notify->watchdog_ms > 0) {
		r = loop_add_timer(driver->loop, on_watchdog, driver, &driver->watchdog_timer);
		if (r >= 0)
			loop_timer_set(driver->watchdog_timer, driver->notify->watchdog_ms);
	}
	if (r >= 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		r = -errno;
	if (r < 0)
		return error_set(error, r, "cannot set up the supervisor: %s", strerror(-r));
	driver->start_dir = command_start_directory(setup->environment);
	if (!driver->start_dir)
		return error_set(error, -errno, "cannot find the working directory: %s", strerror(errno));
	r = check_proc(error);
	if (r >= 0)
		r = prepare_limits(driver, error);
	if (r < 0)
		return r;
	driver->had_terminal = driver_has_terminal();
	return driver->options->capture ? capture_create(driver->loop, &driver->capture, error) : 0;
}

static void finish(struct driver *driver)
{
	if (driver->capture)
		capture_destroy(driver->capture, 1000);
	loop_destroy(driver->loop);
	fd_close(driver->paths_fd);
	env_finish(&driver->base_env);
	process_list_finish(&driver->children);
	free(driver->start_dir);
	free(driver->groups);
	free(driver->stream_inodes);
	free(driver->listener_names);
	free(driver->path_states);
	free(driver->orphans);
	free(driver->queue);
}

static int exit_status(const struct driver *driver)
{
	switch (driver->machine.exit) {
	case HANDOFF_EXIT_STOPPED:
		return driver->machine.forced ? 3 : 0;
	case HANDOFF_EXIT_CLEAN:
		return 0;
	case HANDOFF_EXIT_GAVE_UP:
	case HANDOFF_EXIT_FIRST_FAILED:
		return driver->exit_code;
	case HANDOFF_EXIT_NONE:
		break;
	}
	return 125;
}

int driver_run(const struct driver_setup *setup, struct error *error)
{
	struct driver driver = {.options = setup->options,
				.listeners = setup->listeners,
				.notify = setup->notify,
				.paths_fd = -1,
				.exit_code = 125};
	static const enum handoff_restart policies[] = {[RESTART_ALWAYS] = HANDOFF_RESTART_ALWAYS,
							[RESTART_ON_FAILURE] = HANDOFF_RESTART_ON_FAILURE,
							[RESTART_NEVER] = HANDOFF_RESTART_NEVER};
	const struct handoff_config config = {.restart = policies[setup->options->restart],
					      .max_restarts = (uint32_t)setup->options->max_restarts,
					      .max_draining = (uint32_t)setup->options->max_draining,
					      .workers = 1};
	TAILQ_INIT(&driver.generations);
	handoff_init(&driver.machine, &config);
	int r = prepare(&driver, setup, error);
	if (r >= 0) {
		report_listeners(&driver);
		report_manager_hint(&driver);
		driver_post(&driver, &(struct handoff_event){.kind = HANDOFF_START});
		driver_pump(&driver);
		if (!driver.done)
			r = loop_run(driver.loop);
		if (r < 0)
			error_set(error, r, "the event loop failed: %s", strerror(-r));
		else
			r = exit_status(&driver);
	}
	finish(&driver);
	return r;
}
