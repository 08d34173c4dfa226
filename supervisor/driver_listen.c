/* SPDX-License-Identifier: MIT */
/* Listeners at run time: which recipe counts, what a re-read config file opens and closes, and unix paths that vanish.
 */
#include "driver_private.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"

/* Looks at one path and says what it finds, once. Whether it is ours where it was not, or the other way round. */
static bool repair(struct listener *listener)
{
	struct error error = {.text = ""};
	enum listener_path_state before = listener->path_state, now = listener_repair(listener, &error);
	listener->path_state = now == LISTENER_PATH_RESTORED ? LISTENER_PATH_FINE : now;
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
	return listener->path_state != before;
}

static bool repair_all(struct driver *driver)
{
	bool changed = false;
	for (size_t i = 0; i < driver->listeners->count; i++)
		changed = repair(&driver->listeners->items[i]) || changed;
	return changed;
}

static void on_paths(struct loop_source *source, int fd, uint32_t events, void *data)
{
	(void)source;
	(void)events;
	struct driver *driver = data;
	char buffer[4096];
	while (read(fd, buffer, sizeof(buffer)) > 0)
		continue;
	if (repair_all(driver))
		driver_watch_paths(driver);
}

/* A path that nobody watches is only less safe, so that a failure is worth a line and no more. What is watched depends
 * on whose the paths are, so once more where that changed before the watch began. */
void driver_watch_paths(struct driver *driver)
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

/* Its recipe is the one that counts from here on. */
void driver_use_recipe(struct generation *generation)
{
	struct driver *driver = generation->driver;
	bool changed = generation->recipe != driver->recipe;
	generation->recipe = NULL;
	if (!changed)
		return;
	struct error error = {.text = ""};
	size_t closed, opened;
	if (options_fixed_difference(driver->command_line, driver->next_recipe->options, &error) > 0)
		log_warning("%s", error.text);
	if (recipe_replace(driver->recipe, driver->next_recipe, &closed, &opened, &error) < 0)
		log_warning("%s", error.text);
	driver->recipe = driver->next_recipe;
	driver->next_recipe = NULL;
	driver->options = driver->recipe->options;
	driver->listeners = &driver->recipe->listeners;
	driver->machine.config = driver_machine_config(driver->options);
	if (closed + opened > 0) {
		log_info("listeners of the config file: %zu closed, %zu opened", closed, opened);
		report_listeners(driver);
	}
	driver_watch_paths(driver);
}

/* The start is over without having become active. */
void driver_drop_recipe(struct generation *generation)
{
	struct driver *driver = generation->driver;
	if (generation->recipe && generation->recipe == driver->next_recipe) {
		recipe_destroy(driver->next_recipe);
		driver->next_recipe = NULL;
	}
	generation->recipe = NULL;
}

void driver_close_listeners(struct driver *driver)
{
	struct generation *generation;
	TAILQ_FOREACH (generation, &driver->generations, link) {
		if (!generation->recipe)
			continue;
		driver_end_start(generation);
		generation->recipe = NULL;
	}
	if (driver->next_recipe)
		recipe_forget_borrowed(driver->next_recipe);
	recipe_destroy(driver->next_recipe);
	driver->next_recipe = NULL;
	loop_remove(driver->paths_source);
	driver->paths_source = NULL;
	driver->paths_fd = fd_close(driver->paths_fd);
	listener_set_close(driver->listeners);
}
