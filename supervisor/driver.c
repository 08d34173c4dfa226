/* SPDX-License-Identifier: MIT */
/* The driver's middle: the queue of events, the machine's actions, the timers, and one run from start to exit. */
#include "driver_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <bsd/stdlib.h>
#include <bsd/string.h>

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

struct handoff_config driver_machine_config(const struct options *options)
{
	static const enum handoff_restart policies[] = {[RESTART_ALWAYS] = HANDOFF_RESTART_ALWAYS,
							[RESTART_ON_FAILURE] = HANDOFF_RESTART_ON_FAILURE,
							[RESTART_NEVER] = HANDOFF_RESTART_NEVER};
	return (struct handoff_config){.restart = policies[options->restart],
				       .max_restarts = (uint32_t)options->max_restarts,
				       .max_draining = (uint32_t)options->max_draining,
				       .workers = (uint32_t)options->workers,
				       .stop_first = options->order == ORDER_STOP_FIRST,
				       .rolling = options->rolling};
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

static void on_worker_due(struct loop_source *source, void *data)
{
	(void)source;
	generation_due(data, HANDOFF_WORKER_DUE);
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
	const struct options *options = generation->recipe ? generation->recipe->options : generation->driver->options;
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
	case HANDOFF_TIMER_WORKER:
		*ret_ms = options->restart_delay_ms;
		*ret_fn = on_worker_due;
		return &generation->worker_timer;
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
		report_restarting(driver, delay);
		loop_timer_set(driver->restart_timer, delay);
		return;
	}
	if (!generation)
		return;
	/* Nothing needs to happen at that moment, so that nobody is woken: check_exit looks at the clock. */
	if (action->timer == HANDOFF_TIMER_HEALTHY)
		return;
	int64_t after_ms = 0;
	loop_timer_fn fn = NULL;
	struct loop_source **slot = timer_slot(generation, action->timer, &after_ms, &fn);
	if (action->timer == HANDOFF_TIMER_WORKER)
		after_ms = restart_delay(driver->options, action->exponent);
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

static void post_spawn_failed(struct driver *driver, uint32_t generation, uint32_t count)
{
	if (count > 0)
		driver_post(driver, &(struct handoff_event){
					    .kind = HANDOFF_SPAWN_FAILED, .generation = generation, .count = count});
}

static void do_spawn(struct driver *driver, const struct handoff_action *action)
{
	uint32_t failed = driver_spawn(driver, action);
	struct generation *generation = driver_find(driver, action->generation);
	post_spawn_failed(driver, action->generation, failed);
	if (driver->ever_active && action->asked && generation)
		report_handing_off(driver, generation);
	else if (driver->ever_active && !action->asked)
		driver->restarts++;
}

static void do_spawn_more(struct driver *driver, struct generation *generation, uint32_t count)
{
	uint32_t failed = driver_spawn_more(generation, count);
	post_spawn_failed(driver, generation->number, failed);
	if (!generation->recipe)
		driver->restarts += count - failed;
}

/* For last_reload in status, whoever asked. */
static void remember(struct driver *driver, const struct generation *generation, const char *result)
{
	bool failed = generation->reason[0] != '\0';
	driver->last_reload = (struct last_reload){.generation = generation->number,
						   .result = result,
						   .duration_ms = loop_now_ms() - generation->started_ms};
	if (failed) {
		driver->failed_handoffs++;
		strlcpy(driver->last_reload.reason, generation->reason, sizeof(driver->last_reload.reason));
	} else {
		driver->handoffs++;
	}
}

static void do_activate(struct driver *driver, struct generation *generation)
{
	driver_end_start(generation);
	driver_use_recipe(generation);
	driver->active_seen = generation->ready_seen;
	if (generation->is_handoff)
		remember(driver, generation, "ok");
	report_active(driver, generation);
	driver->ever_active = true;
}

static void do_fail(struct driver *driver, struct generation *generation, enum handoff_failure failure)
{
	/* Who lives on after its leader says whether it went into the background. */
	driver_reap(driver);
	report_failed(driver, generation, failure);
	if (!generation)
		return;
	driver_end_start(generation);
	driver_drop_recipe(generation);
	driver->exit_code = generation->exit_code;
	if (generation->is_handoff)
		remember(driver, generation, "failed");
	else if (driver->ever_active && !handoff_active(&driver->machine) && driver_fall_back(driver))
		log_warning("falling back to the command line that was good before: %s",
			    driver_command(driver, NULL)[0]);
}

static void do_died(struct driver *driver, struct generation *generation)
{
	driver->exit_code = child_exit_code(generation->workers[generation->worker_count - 1]->status);
	report_died(generation);
}

static void perform(struct driver *driver, const struct handoff_action *action)
{
	struct generation *generation = driver_find(driver, action->generation);
	switch (action->kind) {
	case HANDOFF_DO_SPAWN:
		do_spawn(driver, action);
		break;
	case HANDOFF_DO_SPAWN_MORE:
		do_spawn_more(driver, generation, action->count);
		break;
	case HANDOFF_DO_EMPTY:
		report_emptying(driver, action->asked);
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
		driver_end_start(generation);
		driver_drain(generation);
		break;
	case HANDOFF_DO_DRAIN_ONE:
		driver_drain_one(generation);
		break;
	case HANDOFF_DO_DRAIN_REST:
		driver_drain_rest(generation);
		break;
	case HANDOFF_DO_TERMINATE:
		driver_end_start(generation);
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
		report_stopping(driver);
		driver_close_listeners(driver);
		break;
	case HANDOFF_DO_JOIN:
		driver_join(driver, action);
		break;
	case HANDOFF_DO_ANSWER:
		driver_answer(driver, action);
		break;
	case HANDOFF_DO_REFUSE:
		driver_refuse(driver, action);
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
	if (r < 0)
		return r;
	driver_watch_paths(driver);
	r = driver_einhorn_init(driver, setup->place, error);
	if (r < 0)
		return r;
	driver->had_terminal = driver_has_terminal();
	if (setup->place)
		r = control_create(driver->loop, setup->place, driver_on_request, driver, &driver->control, error);
	if (r >= 0 && setup->place)
		control_place_publish(setup->place);
	if (r < 0)
		return r;
	return driver->options->capture ? capture_create(driver->loop, &driver->capture, error) : 0;
}

static void finish(struct driver *driver)
{
	driver_einhorn_finish(driver);
	if (driver->capture)
		capture_destroy(driver->capture, 1000);
	loop_destroy(driver->loop);
	fd_close(driver->paths_fd);
	env_finish(&driver->base_env);
	process_list_finish(&driver->children);
	free(driver->start_dir);
	recipe_destroy(driver->next_recipe);
	recipe_destroy(driver->recipe);
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
	struct driver driver = {.name = setup->place ? setup->place->name : options_name(setup->recipe->options),
				.started_ms = loop_now_ms(),
				.command_line = setup->recipe->options,
				.recipe = setup->recipe,
				.options = setup->recipe->options,
				.listeners = &setup->recipe->listeners,
				.notify = setup->notify,
				.paths_fd = -1,
				.exit_code = 125};
	const struct handoff_config config = driver_machine_config(driver.options);
	TAILQ_INIT(&driver.generations);
	TAILQ_INIT(&driver.askers);
	TAILQ_INIT(&driver.stop_waiters);
	TAILQ_INIT(&driver.late_answers);
	TAILQ_INIT(&driver.wishes);
	TAILQ_INIT(&driver.commands);
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
	driver_control_finish(&driver, r < 0 ? 125 : r);
	finish(&driver);
	return r;
}
