/* SPDX-License-Identifier: MIT */
/* The environment of a generation: names and values in a NULL-terminated array that can go to execve. */
#include <assert.h>
#include <bsd/stdlib.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"
#include "fd.h"

/* What tells a process about its activation or its manager. Each speaks of one process and its descriptors, so that a
 * copy one level too far makes a helper adopt a stranger's descriptor. */
/* What an activating parent left in our environment would be wrong one level down. */
static const char *const stripped_names[] = {"NOTIFY_SOCKET", "FORKED_SERVER"};
static const char *const stripped_prefixes[] = {"LISTEN_", "WATCHDOG_", "SERVER_STARTER_", "EINHORN_", "HANDOFF_"};
/* A user's own LISTEN_ADDR or the like is theirs to set; only what systemd's protocol reads is ours. */
static const char *const listen_names[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"};

static bool is_one_of(const char *name, size_t length, const char *const *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (length == strlen(list[i]) && memcmp(name, list[i], length) == 0)
			return true;
	return false;
}

static bool is_stripped(const char *name, size_t length)
{
	if (is_one_of(name, length, stripped_names, ARRAY_SIZE(stripped_names)))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(stripped_prefixes); i++) {
		size_t prefix_length = strlen(stripped_prefixes[i]);
		if (length >= prefix_length && memcmp(name, stripped_prefixes[i], prefix_length) == 0)
			return true;
	}
	return false;
}

static bool is_reserved(const char *name, size_t length)
{
	if (length >= strlen("LISTEN_") && memcmp(name, "LISTEN_", strlen("LISTEN_")) == 0)
		return is_one_of(name, length, listen_names, ARRAY_SIZE(listen_names));
	return is_stripped(name, length);
}

bool env_is_reserved(const char *name)
{
	return is_reserved(name, strlen(name));
}

bool env_is_name(const char *name, size_t length)
{
	/* Not isalpha(3), which asks the locale. */
	for (size_t i = 0; i < length; i++) {
		char c = name[i];
		bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
		if (!letter && (i == 0 || c < '0' || c > '9'))
			return false;
	}
	return length > 0;
}

void env_finish(struct env *env)
{
	for (size_t i = 0; i < env->count; i++)
		free(env->items[i]);
	free(env->items);
	*env = (struct env){0};
}

static ssize_t find(const struct env *env, const char *name, size_t length)
{
	for (size_t i = 0; i < env->count; i++)
		if (strncmp(env->items[i], name, length) == 0 && env->items[i][length] == '=')
			return (ssize_t)i;
	return -1;
}

ssize_t env_index(const struct env *env, const char *name)
{
	return find(env, name, strlen(name));
}

const char *env_get(const struct env *env, const char *name)
{
	size_t length = strlen(name);
	ssize_t index = find(env, name, length);

	return index < 0 ? NULL : env->items[index] + length + 1;
}

/* Makes room for one more item and the NULL behind it. */
static int reserve(struct env *env)
{
	if (env->count + 1 < env->capacity)
		return 0;
	size_t capacity = env->capacity ? env->capacity * 2 : 64;
	char **items = reallocarray(env->items, capacity, sizeof(*items));
	if (!items)
		return -ENOMEM;
	env->items = items;
	env->capacity = capacity;
	env->items[env->count] = NULL;
	return 0;
}

static int append(struct env *env, char *item)
{
	int result = reserve(env);

	if (result < 0)
		return result;
	env->items[env->count++] = item;
	env->items[env->count] = NULL;
	return 0;
}

int env_set(struct env *env, const char *name, const char *value)
{
	size_t name_length = strlen(name), value_length = strlen(value);

	assert(name_length > 0 && !strchr(name, '='));
	char *item = malloc(name_length + value_length + 2);
	if (!item)
		return -ENOMEM;
	memcpy(item, name, name_length);
	item[name_length] = '=';
	memcpy(item + name_length + 1, value, value_length + 1);

	ssize_t index = find(env, name, name_length);
	if (index >= 0) {
		free(env->items[index]);
		env->items[index] = item;
		return 0;
	}
	int result = append(env, item);
	if (result < 0)
		free(item);
	return result;
}

int env_set_number(struct env *env, const char *name, long long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", value);
	return env_set(env, name, text);
}

void env_unset(struct env *env, const char *name)
{
	ssize_t index = env_index(env, name);

	if (index < 0)
		return;
	free(env->items[index]);
	/* The NULL at the end moves along. */
	memmove(&env->items[index], &env->items[index + 1], (env->count - (size_t)index) * sizeof(*env->items));
	env->count--;
}

static int copy(struct env *ret_env, char *const *source, bool clean)
{
	CLEANUP(env_finish) struct env env = {0};
	int result = reserve(&env);

	if (result < 0)
		return result;
	for (; *source; source++) {
		const char *equals = strchr(*source, '=');
		size_t length = equals ? (size_t)(equals - *source) : 0;

		if (length == 0 || (clean && is_stripped(*source, length)) || find(&env, *source, length) >= 0)
			continue;
		char *item = strdup(*source);
		if (!item)
			return -ENOMEM;
		result = append(&env, item);
		if (result < 0) {
			free(item);
			return result;
		}
	}
	*ret_env = env;
	env = (struct env){0};
	return 0;
}

int env_copy(struct env *ret_env, char *const *source)
{
	return copy(ret_env, source, false);
}

int env_copy_clean(struct env *ret_env, char *const *source)
{
	return copy(ret_env, source, true);
}

int env_check_pair(const char *what, const char *pair, struct error *error)
{
	const char *equals = strchr(pair, '=');

	if (!equals)
		return error_set(error, -EINVAL, "%s %s: must be NAME=VALUE", what, pair);
	int length = equals - pair > 256 ? 256 : (int)(equals - pair);
	if (!env_is_name(pair, (size_t)(equals - pair)))
		return error_set(error, -EINVAL,
				 "%s: \"%.*s\" is not a name of letters, digits and _ that begins with no digit", what,
				 length, pair);
	if (is_reserved(pair, (size_t)(equals - pair)))
		return error_set(error, -EINVAL, "%s: %.*s is reserved, handoff sets or removes it itself", what,
				 length, pair);
	return 0;
}
