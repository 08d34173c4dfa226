/* SPDX-License-Identifier: MIT */
/* What a generation consists of: its process groups, the orphans it left to us, and how all of it comes to an end. */
#include "driver_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bsd/stdlib.h>
#include <bsd/string.h>

#include "connections.h"
#include "fd.h"
#include "log.h"

/* ---- orphans ---- */

static struct orphan *find_orphan(struct driver *driver, pid_t pid)
{
	for (size_t i = 0; i < driver->orphan_count; i++)
		if (driver->orphans[i].pid == pid)
			return &driver->orphans[i];
	return NULL;
}

static void drop_orphan(struct driver *driver, pid_t pid)
{
	struct orphan *orphan = find_orphan(driver, pid);
	if (orphan)
		*orphan = driver->orphans[--driver->orphan_count];
}

static struct worker *worker_by_leader(struct driver *driver, pid_t leader)
{
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link)
		for (size_t i = 0; i < generation->worker_count; i++)
			if (generation->workers[i]->child.pid == leader && leader != 0)
				return generation->workers[i];
	return NULL;
}

/* By its group; or, where it left that (setsid), by the notify socket in its environment, which is unique to one start.
 * NULL where neither tells: it is reaped like the others, but no generation waits for it. */
static struct worker *worker_of_orphan(struct driver *driver, pid_t pid)
{
	struct process_stat stat;
	if (process_stat(pid, &stat) < 0)
		return NULL;
	struct worker *worker = worker_by_leader(driver, stat.group);
	if (worker)
		return worker;
	char socket[256];
	if (process_environ(pid, "NOTIFY_SOCKET", socket, sizeof(socket)) < 0)
		return NULL;
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link)
		for (size_t i = 0; i < generation->worker_count; i++) {
			worker = generation->workers[i];
			if (worker->ready && strcmp(ready_notify_socket(worker->ready), socket) == 0)
				return worker;
		}
	return NULL;
}

static void take_in(struct driver *driver, pid_t pid)
{
	struct worker *worker = worker_of_orphan(driver, pid);
	if (driver->orphan_count == driver->orphan_capacity) {
		size_t capacity = driver->orphan_capacity ? 2 * driver->orphan_capacity : 16;
		struct orphan *orphans = reallocarray(driver->orphans, capacity, sizeof(*orphans));
		/* Looked at again at the next exit. */
		if (!orphans)
			return;
		driver->orphans = orphans;
		driver->orphan_capacity = capacity;
	}
	driver->orphans[driver->orphan_count++] = (struct orphan){.pid = pid, .leader = worker ? worker->child.pid : 0};
	log_debug("process %d came to us, of generation %u", pid, worker ? worker->generation->number : 0);
	/* It came too late for the signal that all the others got. */
	if (worker && worker->generation->end_signal != 0)
		kill(pid, worker->generation->end_signal);
}

/* The capture relay and readiness commands are children of ours that others reap. */
static bool is_owned(struct driver *driver, pid_t pid)
{
	if (driver->capture && capture_owns(driver->capture, pid))
		return true;
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link)
		for (size_t i = 0; i < generation->worker_count; i++) {
			const struct worker *worker = generation->workers[i];
			if (worker->child.pid == pid || (worker->ready && ready_owns(worker->ready, pid)))
				return true;
		}
	return false;
}

bool driver_has_rest(struct worker *worker)
{
	struct driver *driver = worker->generation->driver;
	for (size_t i = 0; i < driver->orphan_count; i++)
		if (driver->orphans[i].leader == worker->child.pid)
			return true;
	return false;
}

/* A leader stays a zombie until here, so that its number, which is the group's, cannot become a stranger's. */
static void find_empty(struct driver *driver)
{
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link)
		for (size_t i = 0; i < generation->worker_count; i++) {
			struct worker *worker = generation->workers[i];
			if (!worker->exited || worker->gone || driver_has_rest(worker))
				continue;
			worker->gone = true;
			child_reap(worker->child.pid);
			driver_post_generation(generation, HANDOFF_GONE);
		}
}

/* When a leader has exited, everything below it is our child already (exit(2) gives children away before the exit can
 * be seen), so that our direct children are all there is to look at. */
static void look_at_children(struct driver *driver)
{
	if (process_children(&driver->children) < 0)
		return;
	for (size_t i = 0; i < driver->children.count; i++) {
		pid_t pid = driver->children.pids[i];
		if (is_owned(driver, pid))
			continue;
		if (waitpid(pid, NULL, WNOHANG | __WALL) == pid)
			drop_orphan(driver, pid);
		else if (!find_orphan(driver, pid))
			take_in(driver, pid);
	}
}

void driver_reap(struct driver *driver)
{
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link)
		driver_check_exits(generation);
	look_at_children(driver);
	find_empty(driver);
}

/* Everything that belongs to the generation: below its leaders, and what came to us. */
static int add_tree(pid_t root, struct process_list *all, struct process_list *scratch)
{
	if (process_tree(root, scratch) < 0)
		return 0;
	for (size_t i = 0; i < scratch->count; i++) {
		if (all->count == all->capacity) {
			size_t capacity = all->capacity ? 2 * all->capacity : 32;
			pid_t *pids = reallocarray(all->pids, capacity, sizeof(pid_t));
			if (!pids)
				return -ENOMEM;
			all->pids = pids;
			all->capacity = capacity;
		}
		all->pids[all->count++] = scratch->pids[i];
	}
	return 0;
}

int64_t driver_connections(struct generation *generation)
{
	struct driver *driver = generation->driver;
	CLEANUP(process_list_finish) struct process_list all = {.pids = NULL};
	CLEANUP(process_list_finish) struct process_list scratch = {.pids = NULL};
	int r = 0;
	/* After a stop we do not hold the addresses any more. */
	if (driver->listeners->count == 0)
		return -1;
	for (size_t i = 0; r >= 0 && i < generation->worker_count; i++) {
		const struct worker *worker = generation->workers[i];
		if (worker->child.pid != 0 && !worker->exited)
			r = add_tree(worker->child.pid, &all, &scratch);
		for (size_t j = 0; r >= 0 && j < driver->orphan_count; j++)
			if (driver->orphans[j].leader == worker->child.pid)
				r = add_tree(driver->orphans[j].pid, &all, &scratch);
	}
	return r < 0 ? -1 : connections_count(all.pids, all.count, driver->listeners);
}

/* ---- signals ---- */

static void signal_orphans(struct worker *worker, int signal)
{
	struct driver *driver = worker->generation->driver;
	for (size_t i = 0; i < driver->orphan_count; i++) {
		pid_t pid = driver->orphans[i].pid;
		/* Those in the group had it with the group; none is reaped but by us, so the number is theirs. */
		if (driver->orphans[i].leader == worker->child.pid && getpgid(pid) != worker->child.pid)
			kill(pid, signal);
	}
}

/* A stopped process takes its signal when it goes on; one that runs must not be bothered. */
static void wake(pid_t pid)
{
	struct process_stat stat;
	if (process_stat(pid, &stat) == 0 && (stat.state == 'T' || stat.state == 't'))
		kill(pid, SIGCONT);
}

static void wake_all(struct worker *worker)
{
	struct driver *driver = worker->generation->driver;
	if (process_tree(worker->child.pid, &driver->children) == 0)
		for (size_t i = 0; i < driver->children.count; i++)
			wake(driver->children.pids[i]);
	for (size_t i = 0; i < driver->orphan_count; i++)
		if (driver->orphans[i].leader == worker->child.pid)
			wake(driver->orphans[i].pid);
}

static void signal_all(struct worker *worker, int signal)
{
	if (worker->child.pid == 0 || worker->gone)
		return;
	child_signal_group(&worker->child, signal);
	signal_orphans(worker, signal);
	if (signal != SIGKILL)
		wake_all(worker);
}

/* Shells and package runners do not pass signals on, or not in time: what they run must get its own. */
static const char *const wrappers[] = {"sh",     "bash",    "dash", "ash",     "busybox", "zsh",    "ksh",
				       "mksh",   "fish",    "npm",  "npx",     "yarn",    "pnpm",   "bun",
				       "bundle", "bundler", "rake", "foreman", "poetry",  "pipenv", "uv",
				       "make",   "sudo",    "su",   "doas"};
static const char *const interpreters[] = {"node", "nodejs", "ruby", "python", "python3", "perl"};

static bool is_one_of(const char *word, const char *const *list, size_t count)
{
	const char *slash = strrchr(word, '/');
	const char *name = slash ? slash + 1 : word;
	/* A login shell is "-sh". */
	if (*name == '-')
		name++;
	for (size_t i = 0; i < count; i++)
		if (strcmp(name, list[i]) == 0)
			return true;
	return false;
}

/* What the main process is now, not what was started: `sh -c 'exec server'` has become the server. npm writes its title
 * over the arguments ("npm start"), hence the split at blanks too. */
static bool is_wrapper(pid_t pid)
{
	char path[64];
	CLEANUP(freep) char *text = NULL;
	size_t length = 0;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	if (fd_read_file(path, 65536, &text, &length) < 0 || length == 0)
		return false;
	char *second = NULL;
	for (size_t i = 0; i < length; i++)
		if (text[i] == ' ' || text[i] == '\0') {
			text[i] = '\0';
			if (!second && i + 1 < length)
				second = text + i + 1;
		}
	if (is_one_of(text, wrappers, ARRAY_SIZE(wrappers)))
		return true;
	return second && is_one_of(text, interpreters, ARRAY_SIZE(interpreters)) &&
	       is_one_of(second, wrappers, ARRAY_SIZE(wrappers));
}

static void tell_group(struct worker *worker, const char *whom)
{
	if (worker->group_told)
		return;
	worker->group_told = true;
	report_drain(worker, whom);
	signal_all(worker, worker->generation->driver->options->drain_signal);
}

static void drain_worker(struct worker *worker)
{
	const struct options *options = worker->generation->driver->options;
	/* Many servers take a second signal for impatience. */
	bool again = worker->told && !worker->exited;
	if (worker->child.pid == 0 || worker->gone || again)
		return;
	worker->told = true;
	if (worker->exited) {
		if (driver_has_rest(worker))
			tell_group(worker, "what is left of its process group");
		return;
	}
	if (options->drain_to == DRAIN_TO_GROUP) {
		tell_group(worker, "its process group");
		return;
	}
	if (options->drain_to == DRAIN_TO_AUTO && worker->main_pidfd >= 0 &&
	    syscall(SYS_pidfd_send_signal, worker->main_pidfd, options->drain_signal, NULL, 0) == 0) {
		report_drain(worker, "the main process that it named");
		return;
	}
	if (options->drain_to == DRAIN_TO_AUTO && is_wrapper(worker->child.pid)) {
		tell_group(worker, "its process group, since its main process is a shell or a package runner");
		return;
	}
	report_drain(worker, "its main process");
	child_signal(&worker->child, options->drain_signal);
	wake(worker->child.pid);
}

void driver_drain(struct generation *generation)
{
	generation->draining_ms = loop_now_ms();
	for (size_t i = 0; i < generation->worker_count; i++)
		drain_worker(generation->workers[i]);
}

void driver_drain_one(struct generation *generation)
{
	for (size_t i = 0; i < generation->worker_count; i++) {
		struct worker *worker = generation->workers[i];
		if (worker->told || worker->exited || worker->child.pid == 0)
			continue;
		drain_worker(worker);
		return;
	}
}

static bool is_active(const struct generation *generation)
{
	const struct handoff_generation *active = handoff_active(&generation->driver->machine);
	return active && active->number == generation->number;
}

void driver_drain_rest(struct generation *generation)
{
	/* Who has just lost its parent is not known yet. */
	driver_reap(generation->driver);
	for (size_t i = 0; i < generation->worker_count; i++) {
		if (!generation->workers[i]->exited || !driver_has_rest(generation->workers[i]))
			continue;
		if (generation->draining_ms < 0 && !is_active(generation))
			generation->draining_ms = loop_now_ms();
		drain_worker(generation->workers[i]);
	}
}

void driver_end(struct generation *generation, int signal)
{
	generation->end_signal = signal;
	for (size_t i = 0; i < generation->worker_count; i++)
		signal_all(generation->workers[i], signal);
}

void driver_forward(struct driver *driver, int signal)
{
	const struct handoff_generation *active = handoff_active(&driver->machine);
	if (!active)
		active = handoff_starting(&driver->machine);
	struct generation *generation = active ? driver_find(driver, active->number) : NULL;
	if (!generation) {
		log_info("no generation to forward signal %d to", signal);
		return;
	}
	log_line(LOG_LEVEL_INFO, generation->number, "forwarding signal %d", signal);
	for (size_t i = 0; i < generation->worker_count; i++)
		if (generation->workers[i]->child.pid != 0 && !generation->workers[i]->exited)
			child_signal(&generation->workers[i]->child, signal);
}
