/* SPDX-License-Identifier: MIT */
/* What generations are started from: the options, and the listeners that they name. */
#include "recipe.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/stdlib.h>

#include "accepting.h"
#include "config.h"

/* ---- listeners ---- */

static bool same_text(const char *one, const char *other)
{
	return one == other || (one && other && strcmp(one, other) == 0);
}

/* Whether two SPECs mean the same socket, whatever their options. */
static bool same_address(const struct listen_spec *one, const struct listen_spec *other)
{
	return one->type == other->type && one->port == other->port && one->abstract == other->abstract &&
	       one->fd == other->fd && one->v6only == other->v6only && one->reuseport == other->reuseport &&
	       same_text(one->host, other->host) && same_text(one->path, other->path) &&
	       same_text(one->fd_name, other->fd_name);
}

static const struct listen_spec *find_spec(const struct options *options, const char *text)
{
	for (size_t i = 0; i < options->listen_count; i++)
		if (strcmp(options->listens[i].text, text) == 0)
			return &options->listens[i];
	return NULL;
}

/* Room for one more item; `borrower` is the SPEC that it is borrowed for, NULL for one of its own. */
static struct listener *add_item(struct recipe *recipe, const struct listen_spec *borrower)
{
	size_t count = recipe->listeners.count + 1;
	struct listener *items = reallocarray(recipe->listeners.items, count, sizeof(*items));
	recipe->listeners.items = items ? items : recipe->listeners.items;
	const struct listen_spec **borrowers = reallocarray(recipe->borrowers, count, sizeof(*borrowers));
	recipe->borrowers = borrowers ? borrowers : recipe->borrowers;
	if (!items || !borrowers)
		return NULL;
	borrowers[count - 1] = borrower;
	items[count - 1] = (struct listener){.fd = -1};
	recipe->listeners.count = count;
	return &items[count - 1];
}

/* How many listeners each SPEC of this text has: the text may stand twice, for two ports that the kernel chooses. */
static size_t count_each(const struct recipe *active, const char *text)
{
	size_t held = 0, specs = 0;
	for (size_t i = 0; i < active->listeners.count; i++)
		held += strcmp(active->listeners.items[i].spec, text) == 0;
	for (size_t i = 0; i < active->options->listen_count; i++)
		specs += strcmp(active->options->listens[i].text, text) == 0;
	return specs > 0 ? held / specs : 0;
}

static bool has_fd(const struct recipe *recipe, int fd)
{
	for (size_t i = 0; i < recipe->listeners.count; i++)
		if (recipe->listeners.items[i].fd == fd)
			return true;
	return false;
}

/* Whether the held listener may serve for the SPEC: as the same text, or as the same address where no other SPEC has
 * its text. A listener serves for one SPEC only. */
static bool serves(const struct recipe *recipe, const struct recipe *active, const struct listener *held,
		   const struct listen_spec *spec, bool same)
{
	const struct listen_spec *old = find_spec(active->options, held->spec);
	if (!old || has_fd(recipe, held->fd))
		return false;
	if (same)
		return strcmp(held->spec, spec->text) == 0;
	return same_address(old, spec) && !find_spec(recipe->options, held->spec);
}

/* How many of the active recipe's listeners serve for the SPEC; -ENOMEM. */
static int borrow(struct recipe *recipe, const struct recipe *active, const struct listen_spec *spec, bool same)
{
	const char *text = NULL;
	size_t count = 0;
	for (size_t i = 0; i < active->listeners.count; i++) {
		const struct listener *held = &active->listeners.items[i];
		if (!serves(recipe, active, held, spec, same) || (text && strcmp(text, held->spec) != 0))
			continue;
		text = held->spec;
		if (count == count_each(active, text))
			break;
		struct listener *item = add_item(recipe, spec);
		if (!item)
			return -ENOMEM;
		*item = *held;
		count++;
	}
	return (int)count;
}

static int open_one(struct recipe *recipe, const struct recipe *active, const struct listen_spec *spec,
		    struct error *error)
{
	struct listener_set opened = {.items = NULL};
	int r = borrow(recipe, active, spec, true);
	if (r == 0)
		r = borrow(recipe, active, spec, false);
	if (r > 0)
		return 0;
	if (r == 0)
		r = listener_set_open(&opened, spec, 1, NULL, error);
	else
		error_set(error, r, "out of memory");
	for (size_t i = 0; r >= 0 && i < opened.count; i++) {
		struct listener *item = add_item(recipe, NULL);
		if (!item) {
			listener_set_close(&opened);
			return error_set(error, -ENOMEM, "out of memory");
		}
		*item = opened.items[i];
	}
	free(opened.items);
	return r < 0 ? r : 0;
}

/* What is derived from the listeners. */
static int describe(struct recipe *recipe)
{
	size_t count = recipe->listeners.count;
	recipe->names = calloc(count + 1, sizeof(char *));
	recipe->stream_inodes = calloc(count + 1, sizeof(ino_t));
	if (!recipe->names || !recipe->stream_inodes)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct listener *listener = &recipe->listeners.items[i];
		const struct listen_spec *borrower = recipe->borrowers[i];
		recipe->names[i] = borrower ? borrower->name : listener->name;
		if (listener->stream && recipe->stream_count < ACCEPTING_MAX)
			recipe->stream_inodes[recipe->stream_count++] = listener->socket_ino;
	}
	return 0;
}

/* ---- credentials ---- */

static int prepare_limits(struct recipe *recipe, struct error *error)
{
	const struct options *options = recipe->options;
	recipe->limits = (struct child_limits){
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
	int count = 64;
	while (recipe->limits.set_user && options->user_name) {
		gid_t *groups = reallocarray(recipe->groups, (size_t)count, sizeof(gid_t));
		if (!groups)
			return error_set(error, -ENOMEM, "out of memory");
		recipe->groups = groups;
		if (getgrouplist(options->user_name, options->gid, groups, &count) < 0)
			continue;
		recipe->limits.groups = groups;
		recipe->limits.group_count = (size_t)count;
		break;
	}
	return 0;
}

/* ---- outside ---- */

void recipe_forget_borrowed(struct recipe *recipe)
{
	size_t own = 0;
	for (size_t i = 0; i < recipe->listeners.count; i++) {
		if (recipe->borrowers[i])
			continue;
		recipe->listeners.items[own] = recipe->listeners.items[i];
		recipe->borrowers[own++] = NULL;
	}
	recipe->listeners.count = own;
}

void recipe_destroy(struct recipe *recipe)
{
	if (!recipe)
		return;
	recipe_forget_borrowed(recipe);
	listener_set_close(&recipe->listeners);
	free(recipe->borrowers);
	free(recipe->names);
	free(recipe->stream_inodes);
	free(recipe->groups);
	if (recipe->owned_options) {
		options_finish(recipe->owned_options);
		free(recipe->owned_options);
	}
	free(recipe);
}

int recipe_open(const struct options *options, const struct listener_inherited *inherited, struct recipe **ret_recipe,
		struct error *error)
{
	struct recipe *recipe = calloc(1, sizeof(*recipe));
	if (!recipe)
		return error_set(error, -ENOMEM, "out of memory");
	recipe->options = options;
	int r = listener_set_open(&recipe->listeners, options->listens, options->listen_count, inherited, error);
	if (r >= 0) {
		recipe->borrowers = calloc(recipe->listeners.count + 1, sizeof(*recipe->borrowers));
		r = recipe->borrowers ? describe(recipe) : -ENOMEM;
		if (r < 0)
			error_set(error, r, "out of memory");
	}
	if (r >= 0)
		r = prepare_limits(recipe, error);
	if (r < 0)
		recipe_destroy(recipe);
	else
		*ret_recipe = recipe;
	return r;
}

int recipe_reread(const struct options *command_line, const struct recipe *active, struct recipe **ret_recipe,
		  struct error *error)
{
	struct recipe *recipe = calloc(1, sizeof(*recipe));
	struct options *options = calloc(1, sizeof(*options));
	if (!recipe || !options) {
		free(recipe);
		free(options);
		return error_set(error, -ENOMEM, "out of memory");
	}
	int r = config_load(command_line->config_path, command_line, options, error);
	if (r < 0) {
		free(recipe);
		free(options);
		return r;
	}
	recipe->options = recipe->owned_options = options;
	for (size_t i = 0; r >= 0 && i < options->listen_count; i++)
		r = open_one(recipe, active, &options->listens[i], error);
	if (r >= 0 && describe(recipe) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	if (r >= 0)
		r = prepare_limits(recipe, error);
	if (r < 0)
		recipe_destroy(recipe);
	else
		*ret_recipe = recipe;
	return r;
}

static bool borrows(const struct recipe *recipe, int fd)
{
	for (size_t i = 0; i < recipe->listeners.count; i++)
		if (recipe->borrowers[i] && recipe->listeners.items[i].fd == fd)
			return true;
	return false;
}

/* A borrowed listener becomes one of this recipe, as its SPEC has it. */
static int own(struct listener *listener, const struct listen_spec *spec, struct error *error)
{
	if (strcmp(listener->spec, spec->text) == 0)
		return 0;
	char *text = strdup(spec->text), *name = spec->name ? strdup(spec->name) : NULL;
	if (!text || (spec->name && !name)) {
		free(text);
		free(name);
		return error_set(error, -ENOMEM, "out of memory");
	}
	free(listener->spec);
	free(listener->name);
	listener->spec = text;
	listener->name = name;
	return listener_change(listener, spec, error);
}

int recipe_replace(struct recipe *active, struct recipe *next, size_t *ret_closed, size_t *ret_opened,
		   struct error *error)
{
	int r = 0;
	*ret_closed = *ret_opened = 0;
	size_t kept = 0;
	/* What is borrowed is not the old one's any more, so that the old one does not close it. */
	for (size_t i = 0; i < active->listeners.count; i++) {
		if (borrows(next, active->listeners.items[i].fd))
			continue;
		active->listeners.items[kept] = active->listeners.items[i];
		active->borrowers[kept++] = NULL;
	}
	*ret_closed = active->listeners.count = kept;
	for (size_t i = 0; i < next->listeners.count; i++) {
		struct listener *listener = &next->listeners.items[i];
		*ret_opened += next->borrowers[i] == NULL;
		if (next->borrowers[i] && own(listener, next->borrowers[i], error) < 0)
			r = -EINVAL;
		next->borrowers[i] = NULL;
		next->names[i] = listener->name;
	}
	recipe_destroy(active);
	return r;
}
