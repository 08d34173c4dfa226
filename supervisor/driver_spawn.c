/* SPDX-License-Identifier: MIT */
/* From "start generation N" to running processes, and what they tell us until they are gone. */
#include "driver_private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bsd/stdlib.h>
#include <bsd/string.h>

#include "command.h"
#include "compat.h"
#include "fd.h"
#include "log.h"

/* What a worker is started from: also one that replaces a lost one later. */
static const struct recipe *driver_recipe(const struct generation *generation)
{
	return generation->recipe ? generation->recipe : generation->driver->recipe;
}

static int build_worker_env(struct worker *worker, const struct env *user_env)
{
	struct generation *generation = worker->generation;
	struct driver *driver = generation->driver;
	const struct recipe *recipe = driver_recipe(generation);
	struct env *env = &worker->env;
	int r = env_copy(env, user_env->items);
	if (r >= 0)
		r = command_add_listeners(env, recipe->names, recipe->listeners.count);
	if (r >= 0)
		r = env_set_number(env, "HANDOFF_READY_FD", COMMAND_FIRST_FD + (long long)recipe->listeners.count);
	if (r >= 0)
		r = env_set(env, "NOTIFY_SOCKET", ready_notify_socket(worker->ready));
	if (r >= 0)
		r = env_set_number(env, "HANDOFF_GENERATION", generation->number);
	if (r >= 0)
		r = env_set(env, "HANDOFF_NAME", driver->name);
	if (r >= 0)
		r = env_set(env, "PWD", generation->directory);
	if (r >= 0)
		r = compat_environment(env, recipe->options->compat, &recipe->listeners, COMMAND_FIRST_FD,
				       generation->number, driver_einhorn_path(driver));
	return r;
}

/* ---- what a worker tells us ---- */

static void take_exec_result(struct worker *worker)
{
	struct generation *generation = worker->generation;
	struct error error = {.text = ""};
	const struct child_plan plan = {
		.argv = generation->argv, .envp = worker->env.items, .chdir = generation->directory};
	int r = child_exec_result(&worker->child, &plan, &error);
	if (r == 0)
		return;
	loop_remove(worker->exec_source);
	worker->exec_source = NULL;
	worker->child.exec_fd = fd_close(worker->child.exec_fd);
	if (r > 0)
		ready_exec_done(worker->ready);
	else
		strlcpy(generation->reason, error.text, sizeof(generation->reason));
}

static void on_exec(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	(void)fd;
	(void)events;
	take_exec_result(data);
}

static void check_exit(struct worker *worker)
{
	int status;
	if (worker->child.pid == 0 || worker->exited || child_peek(worker->child.pid, &status) != 1)
		return;
	worker->exited = true;
	worker->status = status;
	loop_remove(worker->exit_source);
	worker->exit_source = NULL;
	/* The pipe is closed by now, so that this has the last word. */
	if (worker->exec_source)
		take_exec_result(worker);
	struct generation *generation = worker->generation;
	if (loop_now_ms() - worker->started_ms >= DRIVER_HEALTHY_MS)
		driver_post_generation(generation, HANDOFF_HEALTHY_DUE);
	if (worker->status != 0 || !worker->told)
		report_lost(worker);
	driver_post(generation->driver, &(struct handoff_event){.kind = worker->told ? HANDOFF_LEFT : HANDOFF_EXITED,
								.generation = generation->number,
								.clean = status == 0});
}

void driver_check_exits(struct generation *generation)
{
	for (size_t i = 0; i < generation->worker_count; i++)
		check_exit(generation->workers[i]);
}

static void on_exit_seen(struct loop_source *source, void *data)
{
	(void)source;
	struct worker *worker = data;
	struct driver *driver = worker->generation->driver;
	check_exit(worker);
	driver_pump(driver);
	driver_reap(driver);
	driver_pump(driver);
}

static void on_ready(void *data, const char *by, const char *why)
{
	struct worker *worker = data;
	struct generation *generation = worker->generation;
	struct driver *driver = generation->driver;
	driver_check_exits(generation);
	if (!worker->exited) {
		generation->ready_by = by;
		if (generation->recipe)
			generation->ready_ms = loop_now_ms();
		generation->ready_seen |= ready_seen(worker->ready);
		if (ready_own_word(worker->ready))
			driver->own_word = true;
		report_ready(worker, why);
		driver_post_generation(generation, HANDOFF_READY);
	}
	driver_pump(driver);
}

static void on_failed(void *data, const char *reason)
{
	struct worker *worker = data;
	struct generation *generation = worker->generation;
	driver_check_exits(generation);
	if (!worker->exited)
		strlcpy(generation->reason, reason, sizeof(generation->reason));
	driver_post_generation(generation, HANDOFF_NOT_READY);
	driver_pump(generation->driver);
}

static void on_status(void *data, const char *text)
{
	struct worker *worker = data;
	log_line(LOG_LEVEL_DEBUG, worker->generation->number, "status: %s", text);
}

static void on_extend(void *data, uint64_t usec)
{
	struct worker *worker = data;
	struct generation *generation = worker->generation;
	int64_t wanted_ms = (int64_t)(usec / 1000);
	if (!generation->ready_timer || loop_timer_left_ms(generation->ready_timer) < 0)
		return;
	if (wanted_ms > loop_timer_left_ms(generation->ready_timer))
		loop_timer_set(generation->ready_timer, wanted_ms);
	if (!generation->driver->ever_active)
		notify_extend(generation->driver->notify, usec);
}

static void on_stopping(void *data)
{
	struct worker *worker = data;
	log_line(LOG_LEVEL_INFO, worker->generation->number, "says that it is stopping");
}

static void on_main_pid(void *data, pid_t pid)
{
	struct worker *worker = data;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return;
	fd_close(worker->main_pidfd);
	worker->main_pidfd = fd;
	worker->main_pid = pid;
	log_line(LOG_LEVEL_INFO, worker->generation->number, "its main process is pid %d", pid);
}

static void on_note(void *data, const char *text)
{
	struct worker *worker = data;
	log_line(LOG_LEVEL_WARNING, worker->generation->number, "%s", text);
}

static const struct ready_handler ready_handler = {
	.on_ready = on_ready,
	.on_failed = on_failed,
	.on_status = on_status,
	.on_extend = on_extend,
	.on_stopping = on_stopping,
	.on_main_pid = on_main_pid,
	.on_note = on_note,
};

/* ---- starting ---- */

static int create_ready(struct worker *worker, struct error *error)
{
	struct driver *driver = worker->generation->driver;
	const struct recipe *recipe = driver_recipe(worker->generation);
	/* What the active generation waits on says nothing about other listeners. */
	bool same = recipe == driver->recipe;
	uint64_t all = recipe->stream_count >= 64 ? UINT64_MAX : ((uint64_t)1 << recipe->stream_count) - 1;
	const struct ready_options options = {
		.hows = recipe->options->readies,
		.how_count = recipe->options->ready_count,
		.own_word_only = driver->own_word,
		.inodes = recipe->stream_inodes,
		.inode_count = recipe->stream_count,
		.wanted = same && driver->active_seen ? driver->active_seen : all,
	};
	return ready_create(driver->loop, &options, &ready_handler, worker, &worker->ready, error);
}

static int build_check_plan(struct worker *worker)
{
	struct generation *generation = worker->generation;
	const struct options *options = driver_recipe(generation)->options;
	bool wanted = false;
	for (size_t i = 0; i < options->ready_count; i++)
		wanted = wanted || options->readies[i].kind == READY_EXEC;
	if (!wanted)
		return 0;
	int r = env_copy(&worker->check_env, worker->env.items);
	if (r >= 0)
		r = env_set_number(&worker->check_env, "HANDOFF_PID", worker->child.pid);
	/* It gets no descriptors, and its word is its exit status. */
	static const char *const not_for_it[] = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET",
						 "HANDOFF_READY_FD"};
	for (size_t i = 0; i < ARRAY_SIZE(not_for_it); i++)
		env_unset(&worker->check_env, not_for_it[i]);
	worker->check_plan = (struct child_plan){
		.envp = worker->check_env.items,
		.listen_pid_index = -1,
		.chdir = generation->directory,
		.stderr_fd = -1,
		.quiet = true,
		.limits = &driver_recipe(generation)->limits,
	};
	return r;
}

/* Between fork and here nothing was told to anybody, so that the process can still be taken back. */
static int watch(struct worker *worker, struct error *error)
{
	struct loop *loop = worker->generation->driver->loop;
	int r = build_check_plan(worker);
	if (r >= 0)
		r = loop_add_child(loop, worker->child.pidfd, on_exit_seen, worker, &worker->exit_source);
	if (r >= 0)
		r = loop_add_fd(loop, worker->child.exec_fd, EPOLLIN, on_exec, worker, &worker->exec_source);
	if (r >= 0)
		r = ready_start(worker->ready, &worker->child, &worker->check_plan);
	if (r >= 0)
		return 0;
	loop_remove(worker->exit_source);
	loop_remove(worker->exec_source);
	worker->exit_source = worker->exec_source = NULL;
	child_signal_group(&worker->child, SIGKILL);
	waitpid(worker->child.pid, NULL, 0);
	return error_set(error, r, "cannot watch the new process: %s", strerror(-r));
}

static int fork_worker(struct worker *worker, int stderr_fd, struct error *error)
{
	struct generation *generation = worker->generation;
	const struct recipe *recipe = driver_recipe(generation);
	size_t count = recipe->listeners.count;
	CLEANUP(freep) int *fds = calloc(count + 1, sizeof(int));
	if (!fds)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		fds[i] = recipe->listeners.items[i].fd;
	fds[count] = ready_pipe_fd(worker->ready);
	const struct child_plan plan = {
		.argv = generation->argv,
		.envp = worker->env.items,
		.listen_pid_index = env_index(&worker->env, "LISTEN_PID"),
		.chdir = generation->directory,
		.chdir_may_be_denied = !recipe->options->chdir,
		.fds = fds,
		.fd_count = count + 1,
		.stderr_fd = stderr_fd,
		.keep_hup_ignored = generation->driver->command_line->signals[SIGHUP].action == SIGNAL_ACTION_UNUSED,
		.limits = &recipe->limits,
	};
	return child_spawn(&plan, &worker->child, error);
}

static void finish_worker(struct worker *worker)
{
	loop_remove(worker->exit_source);
	loop_remove(worker->exec_source);
	worker->exit_source = worker->exec_source = NULL;
	ready_destroy(worker->ready);
	worker->ready = NULL;
	fd_close(worker->main_pidfd);
	if (worker->child.pid != 0)
		child_finish(&worker->child);
	env_finish(&worker->env);
	env_finish(&worker->check_env);
}

static int start_worker(struct worker *worker, const struct env *user_env, int stderr_fd, struct error *error)
{
	worker->started_ms = loop_now_ms();
	int r = create_ready(worker, error);
	if (r < 0)
		return r;
	r = build_worker_env(worker, user_env);
	if (r < 0)
		return error_set(error, r, "out of memory");
	r = fork_worker(worker, stderr_fd, error);
	if (r < 0)
		return r;
	r = watch(worker, error);
	if (r < 0) {
		child_finish(&worker->child);
		worker->child.pid = 0;
	}
	return r;
}

/* The config file is read again for a hand-off, not for a restart: what was good is what is tried again. */
static int choose_recipe(struct generation *generation, struct error *error)
{
	struct driver *driver = generation->driver;
	generation->recipe = driver->recipe;
	if (!generation->is_handoff || !driver->command_line->config_path)
		return 0;
	int r = recipe_reread(driver->command_line, driver->recipe, &driver->next_recipe, error);
	if (r >= 0)
		generation->recipe = driver->next_recipe;
	return r;
}

/* What all workers of a generation share, made once. */
static int prepare(struct generation *generation, struct error *error)
{
	struct driver *driver = generation->driver;
	const struct recipe *recipe = generation->recipe;
	int r = command_expand(driver_command(driver, generation), recipe->names, recipe->listeners.count,
			       &generation->argv, error);
	if (r < 0)
		return r;
	generation->directory = command_directory(recipe->options, driver->start_dir);
	if (!generation->directory)
		return error_set(error, -ENOMEM, "out of memory");
	if (!driver->capture)
		return 0;
	generation->stderr_fd = capture_open(driver->capture, generation->number, error);
	return generation->stderr_fd < 0 ? generation->stderr_fd : 0;
}

static struct worker *add_worker(struct generation *generation)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	struct worker **workers = reallocarray(generation->workers, generation->worker_count + 1, sizeof(*workers));
	if (workers)
		generation->workers = workers;
	if (!worker || !workers) {
		free(worker);
		return NULL;
	}
	worker->generation = generation;
	worker->main_pidfd = -1;
	return workers[generation->worker_count++] = worker;
}

/* Nobody asks any more whether it is ready. */
void driver_end_start(struct generation *generation)
{
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->ready)
			ready_settle(generation->workers[i]->ready);
}

static uint32_t start_workers(struct generation *generation, uint32_t count, struct error *error)
{
	CLEANUP(env_finish) struct env user_env = {.items = NULL};
	const struct options *options = driver_recipe(generation)->options;
	if (command_environment(options, generation->driver->base_env.items, &user_env, error) < 0)
		return count;
	uint32_t failed = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct worker *worker = add_worker(generation);
		if (!worker)
			error_set(error, -ENOMEM, "out of memory");
		failed += !worker || start_worker(worker, &user_env, generation->stderr_fd, error) < 0;
	}
	return failed;
}

uint32_t driver_spawn(struct driver *driver, const struct handoff_action *action)
{
	struct generation *generation = calloc(1, sizeof(*generation));
	if (!generation) {
		log_line(LOG_LEVEL_ERROR, action->generation, "out of memory");
		return action->count;
	}
	*generation = (struct generation){.driver = driver,
					  .number = action->generation,
					  .wish = action->wish,
					  .is_handoff = action->asked,
					  .stderr_fd = -1,
					  .started_ms = loop_now_ms(),
					  .ready_ms = -1,
					  .draining_ms = -1,
					  .exit_code = 125,
					  .left_with = -1};
	TAILQ_INSERT_TAIL(&driver->generations, generation, link);
	struct error error = {.text = ""};
	uint32_t count = action->count, failed = count;
	if (choose_recipe(generation, &error) >= 0 && prepare(generation, &error) >= 0) {
		/* Only now is it known what the file says. */
		count = handoff_set_workers(&driver->machine, action->generation,
					    (uint32_t)generation->recipe->options->workers);
		failed = start_workers(generation, count, &error);
	}
	if (failed > 0)
		strlcpy(generation->reason, error.text, sizeof(generation->reason));
	if (failed < count)
		report_spawned(generation);
	return failed;
}

/* Slots of workers that are gone are of no use any more. */
static void drop_gone_workers(struct generation *generation)
{
	size_t kept = 0;
	for (size_t i = 0; i < generation->worker_count; i++) {
		struct worker *worker = generation->workers[i];
		if (worker->gone) {
			finish_worker(worker);
			free(worker);
		} else {
			generation->workers[kept++] = worker;
		}
	}
	generation->worker_count = kept;
}

uint32_t driver_spawn_more(struct generation *generation, uint32_t count)
{
	struct error error = {.text = ""};
	drop_gone_workers(generation);
	size_t before = generation->worker_count;
	uint32_t failed = start_workers(generation, count, &error);
	if (failed > 0 && generation->recipe)
		strlcpy(generation->reason, error.text, sizeof(generation->reason));
	if (failed > 0)
		log_line(LOG_LEVEL_ERROR, generation->number, "cannot start a worker: %s", error.text);
	for (size_t i = before; i < generation->worker_count; i++)
		if (generation->workers[i]->child.pid != 0)
			log_line(LOG_LEVEL_INFO, generation->number, "started one more worker (pid %d)",
				 generation->workers[i]->child.pid);
	return failed;
}

void driver_release(struct generation *generation)
{
	struct driver *driver = generation->driver;
	report_gone(generation);
	TAILQ_REMOVE(&driver->generations, generation, link);
	loop_remove(generation->ready_timer);
	loop_remove(generation->settle_timer);
	loop_remove(generation->drain_timer);
	loop_remove(generation->kill_timer);
	loop_remove(generation->worker_timer);
	fd_close(generation->stderr_fd);
	for (size_t i = 0; i < generation->worker_count; i++) {
		finish_worker(generation->workers[i]);
		free(generation->workers[i]);
	}
	if (driver->capture && !driver_lines_wanted(driver, generation->number))
		capture_forget(driver->capture, generation->number);
	command_free(generation->argv);
	free(generation->directory);
	free(generation->workers);
	free(generation);
}
